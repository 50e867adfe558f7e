//! The work of a command grows linearly with the number of nodes, in every shape of a change. valgrind counts the executed
//! instructions, which, unlike times, are the same in every run.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{
    directory::Directory,
    namespace::{Served, programs},
};

/// Large enough that work for each pair of nodes would outweigh everything else.
const FEW: usize = 128;
const MANY: usize = 4 * FEW;

/// How much more work four times as many nodes may be. Maps and sorting take a little more than four times as much.
const MAX_RATIO: f64 = 4.4;

/// A version of a cluster.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Every how many nodes one runs Windows; 0 for none.
    windows: usize,
    /// Whether nodes have addresses.
    addresses: bool,
    /// How the second version differs from the first.
    change: Change,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    OneMore,
    Renumbered,
    HalfRemoved,
    AllRenamed,
    Reversed,
    AnotherMtu,
    AllWindows,
}

const SHAPES: [Shape; 9] = [
    Shape { name: "one node more", windows: 0, addresses: false, change: Change::OneMore },
    Shape { name: "one node more, a tenth Windows", windows: 10, addresses: true, change: Change::OneMore },
    Shape { name: "renumbered", windows: 0, addresses: false, change: Change::Renumbered },
    Shape { name: "renumbered, a tenth Windows", windows: 10, addresses: true, change: Change::Renumbered },
    Shape { name: "half removed, half Windows", windows: 2, addresses: true, change: Change::HalfRemoved },
    Shape { name: "all renamed", windows: 0, addresses: true, change: Change::AllRenamed },
    Shape { name: "reversed", windows: 3, addresses: true, change: Change::Reversed },
    Shape { name: "another MTU", windows: 10, addresses: true, change: Change::AnotherMtu },
    Shape { name: "all on Windows", windows: 0, addresses: true, change: Change::AllWindows },
];

fn configuration(shape: Shape, nodes: usize, change: Change) -> String {
    let mut text = String::from("clusterPrefix: 10.0.0.0/8\negressInterface: eth0\n");
    if change == Change::AnotherMtu {
        text.push_str("routes: {mtu: 1400}\n");
    }
    text.push_str("nodes:\n");
    let mut lines = Vec::new();
    for number in 0..nodes + usize::from(change == Change::OneMore) {
        if change == Change::HalfRemoved && number % 2 == 1 {
            continue;
        }
        let is_windows = change == Change::AllWindows
            || (shape.windows > 0 && number % shape.windows == shape.windows - 1);
        let os = if is_windows { "windows" } else { "linux" };
        let shift = if change == Change::Renumbered { MANY + 1 } else { 0 };
        let [_, b, c, _] = u32::try_from((number + shift) * 256).expect("few nodes").to_be_bytes();
        let prefix = if change == Change::AllRenamed { "x" } else { "n" };
        let mut line = format!("  - {{name: {prefix}{number}, os: {os}, podCIDR: 10.{b}.{c}.0/24");
        if shape.addresses {
            let _ = write!(line, ", address: 172.20.{}.{}", number / 250, number % 250 + 1);
        }
        lines.push(line + "}\n");
    }
    if change == Change::Reversed {
        lines.reverse();
    }
    text + &lines.concat()
}

/// A hostgw under valgrind. It forks for every command, because valgrind takes longer to start than the commands take.
struct Valgrind {
    folder: Directory,
    served: Served,
}

impl Valgrind {
    fn start() -> Self {
        programs::check();
        let folder = Directory::new();
        // valgrind would read the symbols.
        let program = folder.path().join("stripped");
        let status =
            Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_hostgw-served")).status();
        assert!(status.expect("strip").success());
        let mut command = Command::new("valgrind");
        command
            // The fastest way to count instructions: no call graph, no simulated caches, short translations.
            .args([
                "--tool=cachegrind",
                "--cache-sim=no",
                "--cachegrind-out-file=/dev/null",
                "--vex-guest-chase=no",
                "--log-file=%p",
            ])
            .arg(&program)
            .current_dir(folder.path())
            .env("PATH", programs::PATH);
        let served = Served::start(command, folder.path());
        Self { folder, served }
    }

    /// Runs hostgw and returns the number of instructions that it executes.
    fn instructions(&mut self, folder: &Path, arguments: &[&str]) -> f64 {
        let before = self.count(&[], Path::new("/"));
        let count = self.count(&[&["hostgw"], arguments].concat(), folder) - before;
        f64::from(u32::try_from(count).expect("a short command"))
    }

    /// Runs hostgw once, so that valgrind need not translate it again: translating takes longer than running.
    fn translate(&mut self, folder: &Path, arguments: &[&str]) {
        let output = self.served.run_here(&[&["hostgw"], arguments].concat(), folder);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The instructions of a command, and of this process before.
    fn count(&mut self, words: &[&str], folder: &Path) -> u64 {
        let (output, process) = self.served.run(words, &[], folder, &[]);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {messages}");
        let log = fs::read_to_string(self.folder.path().join(process.to_string())).expect("valgrind's log");
        let count =
            log.lines().find_map(|line| line.split_once("I   refs:").or_else(|| line.split_once("I refs:")));
        let count = count.map(|(_, number)| number.trim().replace(',', ""));
        count.and_then(|number| number.parse().ok()).expect("the number of instructions")
    }
}

/// Asserts that a command is linear. The files `old` and `new` of the shape are in the folder.
fn assert_linear(valgrind: &mut Valgrind, shape: Shape, arguments: &[&str]) {
    let files = |nodes: usize| {
        let folder = Directory::new();
        for (name, change) in [("old.yaml", Change::Nothing), ("new.yaml", shape.change)] {
            fs::write(folder.path().join(name), configuration(shape, nodes, change)).expect("our folder");
        }
        let list = node_list(&configuration(shape, nodes, shape.change));
        fs::write(folder.path().join("nodes.json"), list.to_string()).expect("our folder");
        let items = list["items"].as_array().expect("nodes");
        let lines: Vec<String> = items.iter().map(Value::to_string).collect();
        for (name, separator) in [("lines.json", "\n"), ("documents.yaml", "\n---\n")] {
            let text = format!("{}{}", separator.trim_start_matches('\n'), lines.join(separator));
            fs::write(folder.path().join(name), text).expect("our folder");
        }
        folder
    };
    let [few, many] = [FEW, MANY].map(files);
    valgrind.translate(few.path(), arguments);
    let mut work = |folder: &Directory| valgrind.instructions(folder.path(), arguments);
    let ratio = work(&many) / work(&few);
    assert!(
        ratio < MAX_RATIO,
        "hostgw {} ({}): {MANY} nodes are {ratio:.2} times the work of {FEW}",
        arguments.join(" "),
        shape.name
    );
}

/// The nodes of a configuration as kubectl lists them.
fn node_list(configuration: &str) -> Value {
    let configuration: Value = serde_yaml::from_str(configuration).expect("YAML");
    let node = |node: &Value| {
        let address =
            node["address"].as_str().map(|address| json!({ "type": "InternalIP", "address": address }));
        json!({
            "metadata": { "name": node["name"] },
            "spec": { "podCIDR": node["podCIDR"] },
            "status": { "addresses": [address], "nodeInfo": { "operatingSystem": node["os"] } },
        })
    };
    json!({ "items": configuration["nodes"].as_array().expect("nodes").iter().map(node).collect::<Vec<_>>() })
}

/// Runs the checks one after the other, so that they share what valgrind translated.
fn all(checks: Vec<(Shape, Vec<&'static str>)>) {
    let mut valgrind = Valgrind::start();
    checks.iter().for_each(|(shape, arguments)| assert_linear(&mut valgrind, *shape, arguments));
}

#[test]
fn comparisons_are_linear() {
    all(SHAPES.map(|shape| (shape, vec!["diff", "old.yaml", "new.yaml"])).into());
}

#[test]
fn imports_are_linear() {
    let [_, one, _, renumbered, half, renamed, ..] = SHAPES;
    let update = ["import", "nodes.json", "--update", "old.yaml", "--dry-run"];
    let mut checks: Vec<_> = [one, half, renamed].map(|shape| (shape, update.to_vec())).into();
    for list in ["nodes.json", "lines.json", "documents.yaml"] {
        checks.push((renumbered, vec!["import", list, "--cluster-prefix", "10.0.0.0/8"]));
    }
    all(checks);
}

#[test]
fn comments_are_linear() {
    all(SHAPES.map(|shape| (shape, vec!["diff", "old.yaml", "new.yaml", "--markdown"])).into());
}

#[test]
fn other_commands_are_linear() {
    let [one, mixed, ..] = SHAPES;
    all(vec![
        (mixed, vec!["diff", "old.yaml", "new.yaml", "--full"]),
        (mixed, vec!["diff", "old.yaml", "new.yaml", "--json"]),
        (mixed, vec!["plan", "-f", "new.yaml", "--all-nodes"]),
        (mixed, vec!["validate", "new.yaml"]),
        (one, vec!["render", "-f", "new.yaml", "--node", "n0"]),
        (mixed, vec!["render", "-f", "new.yaml", "--node", "n9"]),
        (mixed, vec!["render", "-f", "new.yaml", "--node", "n0", "--persist", "systemd-networkd"]),
    ]);
}
