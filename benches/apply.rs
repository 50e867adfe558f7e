//! Compares `hostgw apply` with `ip -batch` for the same routes. Both run alternately, each in a new network namespace.
//!
//! `cargo bench --bench apply` prints the medians and the ratio of pairs for each number of nodes. The machine should be
//! idle, because the kernel serializes the route changes of all namespaces. Requires root, or a user who may create
//! namespaces.
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
    path::{Path, PathBuf},
    process::Command,
};

const SIZES: [usize; 3] = [1_000, 5_000, 10_000];
const RUNS: usize = 5;

const INTERFACE: &str = "ip link set lo up; ip link add eth0 type veth peer name peer; \
                         ip link set eth0 up; ip link set peer up; ip addr add 172.16.0.1/12 dev eth0;";

fn main() {
    let folder = env::temp_dir().join(format!("hostgw-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the files");
    println!(
        "{:>8}  {:>12}  {:>12}  ratio hostgw / ip -batch (min, median, max)",
        "nodes", "hostgw", "ip -batch"
    );
    for size in SIZES {
        let (file, batch) = write_files(&folder, size);
        let hostgw = format!(
            "HOSTGW_STATE_DIR={} {} apply -f {} --node n0 --yes >/dev/null 2>&1",
            folder.join("state").display(),
            env!("CARGO_BIN_EXE_hostgw"),
            file.display()
        );
        let ip = format!("ip -batch {}", batch.display());
        let pairs: Vec<(f64, f64)> = (0..=RUNS).map(|_| (time(&hostgw), time(&ip))).skip(1).collect();
        report(size, &pairs);
    }
    fs::remove_dir_all(folder).expect("our folder");
}

fn report(size: usize, pairs: &[(f64, f64)]) {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let hostgw = sorted(pairs.iter().map(|pair| pair.0).collect());
    let ip = sorted(pairs.iter().map(|pair| pair.1).collect());
    let ratio = sorted(pairs.iter().map(|pair| pair.0 / pair.1).collect());
    let middle = pairs.len() / 2;
    println!(
        "{size:>8}  {:>9.0} ms  {:>9.0} ms  {:.2}, {:.2}, {:.2}",
        hostgw[middle],
        ip[middle],
        ratio[0],
        ratio[middle],
        ratio[pairs.len() - 1]
    );
}

/// Writes a cluster of `size` other nodes as a configuration and as commands for `ip -batch`.
fn write_files(folder: &Path, size: usize) -> (PathBuf, PathBuf) {
    let mut text = "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes:\n".to_owned();
    let mut batch = "route add 10.0.0.0/8 dev eth0 proto 87 scope link\n".to_owned();
    for node in 0..=size {
        let (high, low) = (node / 256, node % 256);
        text += &format!("  - {{name: n{node}, os: linux, podCIDR: 10.{high}.{low}.0/24}}\n");
        if node > 0 {
            batch += &format!("route add 10.{high}.{low}.0/24 via 10.{high}.{low}.1 dev eth0 proto 87\n");
        }
    }
    let (file, commands) = (folder.join(format!("{size}.yaml")), folder.join(format!("{size}.batch")));
    fs::write(&file, text).expect("our folder");
    fs::write(&commands, batch).expect("our folder");
    (file, commands)
}

/// Returns how many milliseconds a command takes in a new namespace with an egress interface.
fn time(command: &str) -> f64 {
    let script = format!("{INTERFACE} start=$(date +%s%N); {command}; echo $(($(date +%s%N) - start))");
    let is_root = rustix::process::geteuid().is_root();
    let unshare = if is_root { "-n" } else { "-rn" };
    let output =
        Command::new("unshare").args([unshare, "sh", "-ec", &script]).output().expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    text.trim().parse::<f64>().expect("nanoseconds") / 1e6
}
