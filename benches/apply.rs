//! Compares hostgw with other ways to write the same routes. All commands run alternately, each in a new network
//! namespace.
//!
//! `cargo bench --bench apply -- [NODES]... [--check | --save]` prints, for each number of nodes, medians and ratios:
//!
//! - an apply, on a node with a pod interface and on one without; only the first asks the kernel which paths of pods
//!   work, two questions for each other node before the commit and after it
//! - the same routes by `ip -batch`: with one scope, with the scopes of hostgw, and with nexthop objects; and by a minimal
//!   netlink loop, which sends requests in groups as hostgw does and reads the answers
//! - a plan without changes, a plan with one node more, a rollback, and a destroy, with their peak memory
//! - a loss of the carrier and `ip link set eth0 down`, with the routes that are left
//!
//! `--save` stores the ratios in `benches/apply.ratios`, and `--check` fails if one is more than 20 % above its stored
//! value. Times are not stored, because they depend on the machine. Beyond 10,000 nodes, `ip -batch` with one scope takes
//! minutes and is left out.
//!
//! The machine should be idle, because the kernel serializes the route changes of all namespaces. Requires GNU time, and
//! root or a user who may create namespaces.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use hostgw::state::Spread;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// The largest number of nodes for which `ip -batch` with one scope is timed.
const MAX_ONE_SCOPE: usize = 10_000;

/// How much a ratio may exceed the stored one.
const TOLERANCE: f64 = 1.2;

const RATIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/apply.ratios");

/// The argument with which this program runs the minimal loop.
const LOOP: &str = "--netlink-loop";

const INTERFACE: &str = "ip link set lo up; ip link add eth0 type veth peer name peer; \
                         ip link set eth0 up; ip link set peer up; ip addr add 172.16.0.1/12 dev eth0;";

/// The bridge of the pods of `n0`, with the interface of one pod.
const PODS: &str = "ip link add cni0 type bridge; ip link add pod0 type veth peer name pod; \
                    ip link set pod0 master cni0; ip link set pod0 up; ip link set pod up; \
                    ip link set cni0 up; ip addr add 10.0.0.1/26 dev cni0;";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == LOOP) {
        let size = arguments[at + 1].parse().expect("a number of nodes");
        return netlink_loop(size, arguments[at + 2].parse().expect("an interface"));
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let folder = env::temp_dir().join(format!("hostgw-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the files");
    let mut ratios = Ratios::default();
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        measure(&folder, size, &mut ratios);
    }
    fs::remove_dir_all(folder).expect("our folder");
    if has("--check") && !ratios.check() {
        std::process::exit(1);
    }
    if has("--save") {
        ratios.save();
    }
}

/// Ratios by their names, such as `10000 apply / netlink loop`.
#[derive(Default)]
struct Ratios(BTreeMap<String, f64>);

impl Ratios {
    fn stored() -> Self {
        let text = fs::read_to_string(RATIOS).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.rsplit_once('\t'));
        Self(lines.map(|(name, ratio)| (name.to_owned(), ratio.parse().expect("a ratio"))).collect())
    }

    /// Stores the ratios. Those of other numbers of nodes stay.
    fn save(self) {
        let mut all = Self::stored();
        all.0.extend(self.0);
        let text: String = all.0.iter().map(|(name, ratio)| format!("{name}\t{ratio:.2}\n")).collect();
        fs::write(RATIOS, text).expect("the folder of the benchmarks");
    }

    /// Prints every ratio that is much higher than the stored one. Returns `true` if there is none.
    fn check(&self) -> bool {
        let stored = Self::stored();
        let mut is_good = true;
        for (name, ratio) in &self.0 {
            match stored.0.get(name) {
                Some(before) if *ratio > before * TOLERANCE => {
                    println!("regression: {name} is {ratio:.2}, was {before:.2}");
                    is_good = false;
                }
                Some(_) => {}
                None => println!("{name} is {ratio:.2}, and was not stored"),
            }
        }
        is_good
    }
}

fn measure(folder: &Path, size: usize, ratios: &mut Ratios) {
    let files = Files::write(folder, size);
    let hostgw = |arguments: &str| {
        format!(
            "HOSTGW_STATE_DIR={} {} {arguments} >/dev/null 2>&1",
            folder.join("state").display(),
            env!("CARGO_BIN_EXE_hostgw"),
        )
    };
    let on = |verb: &str, file: &Path| hostgw(&format!("{verb} -f {} --node n0", file.display()));
    let batch = |file: &Path| format!("ip -batch {}", file.display());
    let apply = on("apply --yes", &files.cluster);
    let raw = format!(
        "{} {LOOP} {size} $(ip -o link show eth0 | cut -d : -f 1)",
        env::current_exe().expect("this program").display()
    );
    let runs = if size > MAX_ONE_SCOPE { 3 } else { 9 };

    println!("{size} nodes");
    let ways = [
        ("apply", "", Some(apply.clone())),
        ("apply with pods", PODS, Some(apply.clone())),
        ("netlink loop", "", Some(raw.clone())),
        ("ip -batch, the same scopes", "", Some(batch(&files.spread))),
        ("ip -batch, nexthop objects", "", Some(batch(&files.nexthops))),
        ("ip -batch, one scope", "", (size <= MAX_ONE_SCOPE).then(|| batch(&files.plain))),
    ];
    let ways: Vec<_> =
        ways.into_iter().filter_map(|(name, more, command)| Some((name, more, command?))).collect();
    let mut times = vec![Vec::new(); ways.len()];
    // The first run warms up.
    for run in 0..=runs {
        for ((_, more, command), times) in ways.iter().zip(&mut times) {
            let [time] = timed(more, [command]);
            if run > 0 {
                times.push(time);
            }
        }
    }
    for (at, ((name, ..), other)) in ways.iter().zip(&times).enumerate() {
        line(name, other, "");
        match at {
            0 => {}
            1 => ratios.add(size, name, other, ways[0].0, &times[0]),
            _ => {
                for own in 0..2 {
                    ratios.add(size, ways[own].0, &times[own], name, other);
                }
            }
        }
    }

    let (plan, one) = (on("plan", &files.cluster), on("plan", &files.one_more));
    let commands = [&apply, &plan, &one, &hostgw("rollback --yes"), &apply, &hostgw("destroy --yes")];
    let rounds: Vec<_> = (0..runs).map(|_| timed("", commands)).collect();
    let of = |at: usize| -> Vec<Measured> { rounds.iter().map(|round| round[at].clone()).collect() };
    let names = ["apply", "plan without changes", "plan with one node more", "rollback", "apply", "destroy"];
    for at in [1, 2, 3, 5] {
        line(names[at], &of(at), "");
    }
    for (name, other) in [(1, 0), (2, 1), (3, 0), (5, 0)] {
        ratios.add(size, names[name], &of(name), names[other], &of(other));
    }

    for (what, command) in [
        (
            "carrier loss",
            "ip link set peer down; ip -4 route show table all | grep -c proto.87 >left || true",
        ),
        ("link down", "ip link set eth0 down; ip -4 route show table all | grep -c proto.87 >left || true"),
    ] {
        for (who, written) in [("hostgw", &apply), ("nexthop objects", &batch(&files.nexthops))] {
            let (change, count) = command.split_once("; ").expect("two commands");
            let rounds: Vec<_> = (0..runs)
                .map(|_| timed("", [written, &change.to_owned(), &format!("{count}; cat left >&2")]))
                .collect();
            let left = rounds[0][2].messages.trim().to_owned();
            let changes: Vec<_> = rounds.into_iter().map(|[_, change, _]| change).collect();
            line(&format!("{what}, {who}"), &changes, &format!(", {left} routes left"));
        }
    }
}

impl Ratios {
    /// Prints and keeps the ratio of two commands, by pairs of runs.
    fn add(&mut self, size: usize, name: &str, times: &[Measured], other: &str, others: &[Measured]) {
        let pairs = times.iter().zip(others);
        let mut ratios: Vec<f64> =
            pairs.map(|(time, other)| time.milliseconds / other.milliseconds).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (ratios[0], ratios[ratios.len() - 1]);
        let median = ratios[ratios.len() / 2];
        println!("    {name} / {other}: {median:.2} ({min:.2} to {max:.2})");
        self.0.insert(format!("{size} {name} / {other}"), median);
    }
}

/// Prints the medians of a command.
fn line(name: &str, runs: &[Measured], more: &str) {
    let median = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (milliseconds, megabytes) = (median(|run| run.milliseconds), median(|run| run.kilobytes) / 1e3);
    println!("  {name:<30}  {milliseconds:>8.1} ms  {megabytes:>4.0} MB{more}");
}

/// A cluster as a configuration, with one node more, and as commands for `ip -batch`.
struct Files {
    cluster: PathBuf,
    one_more: PathBuf,
    plain: PathBuf,
    spread: PathBuf,
    nexthops: PathBuf,
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
        let batch = |route: fn(usize, Ipv4Addr, Ipv4Addr) -> String| {
            let mut text = "route add 10.0.0.0/8 dev eth0 proto 87 scope link\n".to_owned();
            text.extend((1..=size).map(|node| route(node, network(node), gateway(node))));
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
            plain: write(
                "plain",
                batch(|_, network, gateway| {
                    format!("route add {network}/26 via {gateway} dev eth0 proto 87\n")
                }),
            ),
            spread: write(
                "spread",
                batch(|_, network, gateway| {
                    let scope = Spread::of(gateway).number();
                    format!("route add {network}/26 via {gateway} dev eth0 proto 87 scope {scope}\n")
                }),
            ),
            nexthops: write(
                "nexthops",
                batch(|node, network, gateway| {
                    format!(
                        "nexthop add id {node} via {gateway} dev eth0\nroute add {network}/26 nhid {node} proto 87\n"
                    )
                }),
            ),
        }
    }
}

/// The pod network of a node.
fn network(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + 64 * u32::try_from(node).expect("few nodes"))
}

fn gateway(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network(node)) + 1)
}

/// What a command took, and what it printed to standard error.
#[derive(Clone)]
struct Measured {
    milliseconds: f64,
    kilobytes: f64,
    messages: String,
}

/// Runs commands, one after the other, in a new namespace with an egress interface and what `more` adds.
fn timed<const N: usize>(more: &str, commands: [&String; N]) -> [Measured; N] {
    let runs: String = commands
        .iter()
        .map(|command| {
            let quoted = command.replace('\'', "'\\''");
            format!("start=$(date +%s%N); /usr/bin/time -f %M -o memory sh -c '{quoted}' 2>messages; end=$(date +%s%N); echo $((end - start)) $(cat memory) $(cat messages);")
        })
        .collect();
    let script = format!("cd \"$(mktemp -d)\"; {INTERFACE} {more} {runs}");
    let is_root = rustix::process::geteuid().is_root();
    let unshare = if is_root { "-n" } else { "-rn" };
    let output =
        Command::new("unshare").args([unshare, "sh", "-ec", &script]).output().expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{commands:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = text.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).expect("a number");
        let (nanoseconds, kilobytes) = (number(), number());
        Measured {
            milliseconds: nanoseconds / 1e6,
            kilobytes,
            messages: words.next().unwrap_or_default().to_owned(),
        }
    });
    [(); N].map(|()| lines.next().expect("a line for each command"))
}

/// Adds the same routes as an apply through interface number `interface`: the least that must be sent and received.
fn netlink_loop(size: usize, interface: u32) {
    // linux/netlink.h and linux/rtnetlink.h
    const RTM_NEWROUTE: u16 = 24;
    /// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE`
    const FLAGS: u16 = 0x605;
    const GROUP: usize = 128;
    let request = |prefix: Ipv4Addr, length: u8, gateway: Option<Ipv4Addr>, scope: u8| -> Vec<u8> {
        let mut attributes = Vec::new();
        let mut attribute = |kind: u16, value: [u8; 4]| {
            attributes.extend_from_slice(&8_u16.to_ne_bytes());
            attributes.extend_from_slice(&kind.to_ne_bytes());
            attributes.extend_from_slice(&value);
        };
        attribute(1, prefix.octets());
        attribute(4, interface.to_ne_bytes());
        if let Some(gateway) = gateway {
            attribute(5, gateway.octets());
        }
        let size = u32::try_from(16 + 12 + attributes.len()).expect("a short message");
        let mut message = size.to_ne_bytes().to_vec();
        message.extend_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        message.extend_from_slice(&FLAGS.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&[2, length, 0, 0, 254, 87, scope, 1, 0, 0, 0, 0]);
        message.extend_from_slice(&attributes);
        message
    };
    let on_link = request(Ipv4Addr::new(10, 0, 0, 0), 8, None, 253);
    let routes = (1..=size)
        .map(|node| request(network(node), 26, Some(gateway(node)), Spread::of(gateway(node)).number()));
    let requests: Vec<Vec<u8>> = std::iter::once(on_link).chain(routes).collect();
    let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
    socket.bind_auto().expect("an address");
    socket.set_cap_ack(true).expect("short answers");
    let mut answers = Vec::with_capacity(1 << 16);
    for group in requests.chunks(GROUP) {
        socket.send(&group.concat(), 0).expect("sent");
        let mut open = group.len();
        while open > 0 {
            answers.clear();
            socket.recv(&mut answers, 0).expect("an answer");
            let mut rest = &answers[..];
            while let [a, b, c, d, ..] = *rest {
                let length = u32::from_ne_bytes([a, b, c, d]) as usize;
                let error = rest.get(16..20).expect("an error code");
                assert_eq!(error, [0; 4], "the kernel refused a route");
                rest = &rest[length..];
                open -= 1;
            }
        }
    }
}
