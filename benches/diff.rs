//! Measures `hostgw diff` of two revisions of a large configuration: the CPU time of the command and its git processes,
//! and the size of the comment.
//!
//! `cargo bench --bench diff` prints the median of five runs for each format. Requires git, but neither root nor Linux.
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

const SIZES: [usize; 3] = [500, 5_000, 20_000];
const RUNS: usize = 5;

/// The differences between the two revisions.
const CASES: [(&str, Difference); 4] = [
    ("one node more", Difference { skipped: 0, head: "", shift: 0, more: 1 }),
    ("another MTU", Difference { skipped: 0, head: "routes: {mtu: 1400}\n", shift: 0, more: 0 }),
    ("all renumbered", Difference { skipped: 0, head: "", shift: 30_000, more: 0 }),
    ("half removed", Difference { skipped: 2, head: "", shift: 0, more: 0 }),
];

#[derive(Clone, Copy)]
struct Difference {
    /// If not 0, every node whose number is a multiple of it is removed.
    skipped: usize,
    head: &'static str,
    /// The offset of each pod CIDR.
    shift: usize,
    more: usize,
}

const SAME: Difference = Difference { skipped: 0, head: "", shift: 0, more: 0 };

fn main() {
    let folder = env::temp_dir().join(format!("hostgw-bench-diff-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the files");
    println!(
        "{:>6}  {:<15}  {:>7}  {:>7}  {:>10}  {:>8}",
        "nodes", "change", "text", "--json", "--markdown", "bytes"
    );
    for size in SIZES {
        for (name, difference) in CASES {
            let repository = repository(&folder, size, difference);
            let time = |form: &str| median((0..RUNS).map(|_| cpu(&repository, form)).collect());
            let comment = output(&repository, "--markdown").len();
            println!(
                "{size:>6}  {name:<15}  {:>5.2} s  {:>5.2} s  {:>8.2} s  {comment:>8}",
                time("--color=never"),
                time("--json"),
                time("--markdown")
            );
        }
    }
    fs::remove_dir_all(folder).expect("our folder");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Creates a repository with two revisions of `cluster.yaml`.
fn repository(folder: &Path, size: usize, difference: Difference) -> PathBuf {
    let path = folder.join("repository");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("our folder");
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=bench", "-c", "user.email=bench", "-C"];
        let status = Command::new("git").args(identity).arg(&path).args(arguments).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    };
    git(&["init", "-q"]);
    for configuration in [cluster(size, SAME), cluster(size, difference)] {
        fs::write(path.join("cluster.yaml"), configuration).expect("our folder");
        git(&["add", "."]);
        git(&["commit", "-qm", "nodes"]);
    }
    path
}

fn cluster(size: usize, Difference { skipped, head, shift, more }: Difference) -> String {
    let mut text = format!("clusterPrefix: 10.0.0.0/8\negressInterface: eth0\n{head}nodes:\n");
    for node in (0..size + more).filter(|node| skipped == 0 || node % skipped > 0) {
        let (high, low) = ((node + shift) / 256, (node + shift) % 256);
        let address = format!("172.{}.{}.{}", 16 + node / 65_000, node / 250 % 260, node % 250 + 1);
        text += &format!(
            "  - name: node-{node}\n    os: linux\n    podCIDR: 10.{high}.{low}.0/24\n    address: {address}\n"
        );
    }
    text
}

fn diff(repository: &Path, form: &str) -> Command {
    let mut command = Command::new("sh");
    // The second line of `times` is for child processes.
    let script = "\"$HOSTGW\" diff HEAD~1..HEAD -f cluster.yaml \"$1\" || exit; times >&2";
    command.args(["-c", script, "sh", form]).env("HOSTGW", env!("CARGO_BIN_EXE_hostgw"));
    command.current_dir(repository);
    command
}

fn output(repository: &Path, form: &str) -> Vec<u8> {
    diff(repository, form).output().expect("sh").stdout
}

/// Returns the CPU seconds in user and system mode.
fn cpu(repository: &Path, form: &str) -> f64 {
    let output = diff(repository, form).output().expect("sh");
    let times = String::from_utf8_lossy(&output.stderr).into_owned();
    let seconds = |word: &str| -> f64 {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("as in 0m0.13s");
        60.0 * minutes.parse::<f64>().expect("minutes") + seconds.parse::<f64>().expect("seconds")
    };
    times.lines().last().expect("two lines of times").split_whitespace().map(seconds).sum()
}
