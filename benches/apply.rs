//! Compares hostgw with `ip -batch` on the same routes. All commands run alternately, each in a new network namespace.
//!
//! `cargo bench --bench apply` prints, for each number of nodes, the medians of an apply, of `ip -batch` with the same
//! routes in one scope, and of `ip -batch` with the scopes that hostgw gives them; then the ratios of an apply to both, by
//! pairs (minimum, median, maximum). After that, it prints a plan without changes, a plan with one new node, a rollback of
//! the whole apply, and a destroy, as ratios to the apply, and the memory of each. Beyond 10,000 nodes, `ip -batch` with one scope
//! takes minutes and is left out.
//!
//! `cargo bench --bench apply -- 1000 10000 100000` selects the numbers of nodes. The machine should be idle, because the
//! kernel serializes the route changes of all namespaces. Requires root, or a user who may create namespaces.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use hostgw::state::Spread;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// The largest number of nodes for which `ip -batch` with one scope is timed.
const MAX_ONE_SCOPE: usize = 10_000;

const INTERFACE: &str = "ip link set lo up; ip link add eth0 type veth peer name peer; \
                         ip link set eth0 up; ip link set peer up; ip addr add 172.16.0.1/12 dev eth0;";

fn main() {
    let sizes: Vec<usize> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let folder = env::temp_dir().join(format!("hostgw-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the files");
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        measure(&folder, size);
    }
    fs::remove_dir_all(folder).expect("our folder");
}

fn measure(folder: &Path, size: usize) {
    let files = Files::write(folder, size);
    let hostgw = |arguments: &str| {
        format!(
            "HOSTGW_STATE_DIR={} {} {arguments} >/dev/null 2>&1",
            folder.join("state").display(),
            env!("CARGO_BIN_EXE_hostgw"),
        )
    };
    let on = |verb: &str, file: &Path| hostgw(&format!("{verb} -f {} --node n0", file.display()));
    let apply = on("apply --yes", &files.cluster);
    let batch = |file: &Path| format!("ip -batch {}", file.display());
    let runs = if size > MAX_ONE_SCOPE { 3 } else { 7 };
    let mut times: [Vec<f64>; 3] = Default::default();
    // The first run warms up.
    for run in 0..=runs {
        let commands = [
            Some(apply.clone()),
            Some(batch(&files.spread)),
            (size <= MAX_ONE_SCOPE).then(|| batch(&files.plain)),
        ];
        for (times, command) in times.iter_mut().zip(commands) {
            let Some(command) = command else { continue };
            let [time] = timed([&command]);
            if run > 0 {
                times.push(time.milliseconds);
            }
        }
    }
    println!("{size} nodes");
    let [applied, spread, plain] = &times;
    println!("  apply                         {:>8.0} ms", median(applied));
    for (name, other) in [("ip -batch, the same scopes", spread), ("ip -batch, one scope", plain)] {
        if other.is_empty() {
            continue;
        }
        let mut ratios: Vec<f64> = applied.iter().zip(other).map(|(apply, other)| apply / other).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (ratios[0], ratios[ratios.len() - 1]);
        println!(
            "  {name:<28}  {:>8.0} ms  apply takes {min:.2}, {:.2}, {max:.2} times as long",
            median(other),
            median(&ratios)
        );
    }
    let (plan, one) = (on("plan", &files.cluster), on("plan", &files.one_more));
    let commands = [&apply, &plan, &one, &hostgw("rollback --yes"), &apply, &hostgw("destroy --yes")];
    let rounds: Vec<_> = (0..runs).map(|_| timed(commands)).collect();
    let names = ["apply", "plan without changes", "plan with one node more", "rollback", "", "destroy"];
    for (at, name) in names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        let of = |value: fn(&Measured) -> f64| -> Vec<f64> {
            rounds.iter().map(|round| value(&round[at])).collect()
        };
        let (milliseconds, kilobytes) = (of(|run| run.milliseconds), of(|run| run.kilobytes));
        let applies: Vec<f64> = rounds.iter().map(|round| round[0].milliseconds).collect();
        println!(
            "  {name:<28}  {:>8.0} ms  {:.2} of an apply, {:.0} MB",
            median(&milliseconds),
            median(&milliseconds) / median(&applies),
            median(&kilobytes) / 1e3
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A cluster as a configuration, with one node more, and as commands for `ip -batch`.
struct Files {
    cluster: PathBuf,
    one_more: PathBuf,
    plain: PathBuf,
    spread: PathBuf,
}

impl Files {
    fn write(folder: &Path, size: usize) -> Self {
        let cluster = |size: usize| {
            let mut text = "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes:\n".to_owned();
            for node in 0..=size {
                text += &format!("  - {{name: n{node}, os: linux, podCIDR: {}/26}}\n", network(node));
            }
            text
        };
        let batch = |is_spread: bool| {
            let mut text = "route add 10.0.0.0/8 dev eth0 proto 87 scope link\n".to_owned();
            for node in 1..=size {
                let network = network(node);
                let gateway = Ipv4Addr::from(u32::from(network) + 1);
                let scope = if is_spread { Spread::of(gateway).number() } else { 0 };
                text += &format!("route add {network}/26 via {gateway} dev eth0 proto 87 scope {scope}\n");
            }
            text
        };
        let write = |name: &str, text: String| {
            let path = folder.join(format!("{size}.{name}"));
            fs::write(&path, text).expect("our folder");
            path
        };
        Self {
            cluster: write("yaml", cluster(size)),
            one_more: write("more.yaml", cluster(size + 1)),
            plain: write("plain", batch(false)),
            spread: write("spread", batch(true)),
        }
    }
}

/// The pod network of a node.
fn network(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + 64 * u32::try_from(node).expect("few nodes"))
}

/// What a command took.
struct Measured {
    milliseconds: f64,
    kilobytes: f64,
}

/// Runs commands, one after the other, in a new namespace with an egress interface.
fn timed<const N: usize>(commands: [&String; N]) -> [Measured; N] {
    let runs: String = commands
        .iter()
        .map(|command| {
            let quoted = command.replace('\'', "'\\''");
            format!("start=$(date +%s%N); /usr/bin/time -f %M -o memory sh -c '{quoted}'; end=$(date +%s%N); echo $((end - start)) $(cat memory);")
        })
        .collect();
    let script = format!("cd \"$(mktemp -d)\"; {INTERFACE} {runs}");
    let is_root = rustix::process::geteuid().is_root();
    let unshare = if is_root { "-n" } else { "-rn" };
    let output =
        Command::new("unshare").args([unshare, "sh", "-ec", &script]).output().expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{commands:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = text.lines().map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<f64>().expect("a number"));
        let (nanoseconds, kilobytes) = (words.next().expect("a time"), words.next().expect("a size"));
        Measured { milliseconds: nanoseconds / 1e6, kilobytes }
    });
    [(); N].map(|()| lines.next().expect("a line for each command"))
}
