//! Tests of the built program in network namespaces of their own. Other tools check the results: `ip`, `nft`, `sysctl`,
//! `ping`, and the kernel's notifications.
//!
//! Every scenario runs as root, and as an ordinary user in a user namespace, as far as the user who runs the suite can
//! do both.

mod agent;
mod agent_metrics;
mod agent_process;
mod alike;
mod audit;
mod changes;
mod checks;
mod churn;
mod ci;
mod color;
mod concurrency;
mod confirm;
mod conflict;
mod damaged_records;
mod diff;
mod disturbances;
mod doctor;
mod documents;
mod drift;
mod dual_stack;
mod egress;
mod environment;
mod examination;
mod fates;
#[cfg(feature = "fault-injection")]
mod faults;
mod findings;
mod foreign;
mod foreign_nat;
mod foreign_sysctls;
mod full_disk;
mod history;
mod hostile_git;
mod hostile_text;
mod import;
mod inputs;
mod interrupted;
mod invoker;
mod json;
mod kills;
mod lengths;
mod losses;
#[cfg(feature = "fault-injection")]
mod midway;
pub mod migration;
mod packets;
mod paths;
mod persist;
mod preview;
mod privileges;
mod progress;
mod prompt;
mod races;
mod read_only;
#[cfg(feature = "fault-injection")]
mod reboots;
mod recipe;
mod refusals;
mod regressions;
mod rehearse;
mod render;
mod render_foreign;
mod reporting;
mod saved_plan;
mod sequences;
#[cfg(feature = "fault-injection")]
mod signals;
mod simulate;
mod situations;
mod snapshot;
mod spread;
mod state_directory;
#[cfg(feature = "fault-injection")]
mod stopped;
mod supervisor;
mod sweep;
pub mod terminal;
mod units;

use std::{
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use crate::support::namespace::{Namespace, Privilege, without_counters};

/// The configuration of the recipe.
const RECIPE: &str = include_str!("../../examples/recipe.yaml");

/// A cluster of IPv6 alone.
const IPV6: &str = "clusterPrefix: fd00:244::/48
egressInterface: eth0
nextHop: node-address
nodes:
  - {name: linux-1, os: linux, podCIDR: 'fd00:244::/64', address: 'fd00:30::11'}
  - {name: linux-2, os: linux, podCIDR: 'fd00:244:0:1::/64', address: 'fd00:30::12'}
";

/// The machine of node linux-1: eth0 with 172.30.0.11/24, the recipe in its directory, and nothing applied.
pub fn node(privilege: Privilege) -> Namespace {
    let node = Namespace::new(privilege);
    plug_in(&node);
    // Both ends of eth0 are up.
    node.await_link_addresses(2);
    node.write("hostgw.yaml", RECIPE);
    node
}

/// Gives a node its addresses in [`IPV6`], and that configuration.
fn configure_ipv6(node: &Namespace) {
    node.sh("ip link add cni0 type bridge; ip link set cni0 up
             ip -6 address add fd00:244::1/64 dev cni0 nodad
             ip -6 address add fd00:30::11/64 dev eth0 nodad");
    node.await_ipv6_addresses();
    node.write("hostgw.yaml", IPV6);
}

/// Connects a node's eth0.
fn plug_in(node: &Namespace) {
    node.sh("ip -batch - <<'END'
link add eth0 type veth peer name lan0
link set lan0 up
link set eth0 up
address add 172.30.0.11/24 dev eth0
END");
}

/// A configuration with these Linux nodes: name, pod CIDR and address.
fn cluster(head: &str, nodes: &[(&str, &str, &str)]) -> String {
    let mut text = format!("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\n{head}\nnodes:\n");
    for (name, cidr, address) in nodes {
        text.push_str(&format!(
            "  - name: {name}\n    os: linux\n    podCIDR: {cidr}\n    address: {address}\n"
        ));
    }
    text
}

/// A configuration with this number of Linux nodes, named linux-0, linux-1, and so on.
fn large_cluster(nodes: usize) -> String {
    let mut text = String::from("clusterPrefix: 10.64.0.0/10\negressInterface: eth0\nnodes:\n");
    for i in 0..nodes {
        let cidr = format!("10.{}.{}.0/24", 64 + i / 256, i % 256);
        text.push_str(&format!("  - {{ name: linux-{i}, os: linux, podCIDR: {cidr} }}\n"));
    }
    text
}

/// The two Linux nodes that most scenarios need.
const NODE_1: (&str, &str, &str) = ("linux-1", "10.244.0.0/24", "172.30.0.11");
const NODE_2: (&str, &str, &str) = ("linux-2", "10.244.1.0/24", "172.30.0.12");
const NODE_3: (&str, &str, &str) = ("linux-3", "10.244.2.0/24", "172.30.0.13");

const ON_LINK: &str = "10.244.0.0/16 dev eth0 scope link";
const TO_NODE_2: &str = "10.244.1.0/24 via 10.244.1.1 dev eth0";

/// Applies a configuration, and asserts that a second apply makes no changes.
#[track_caller]
fn apply(node: &Namespace, configuration: &str) {
    node.write("hostgw.yaml", configuration);
    node.hostgw_ok(&["apply", "--yes"]);
    settled(node);
}

/// Asserts that the plan is empty.
#[track_caller]
fn settled(node: &Namespace) {
    node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    node.hostgw_ok(&["apply", "--yes"]).says("No changes");
}

/// Returns whether a transaction is open, by its journal.
fn is_open(node: &Namespace) -> bool {
    node.state_dir().is_some_and(|dir| dir.join("journal.json").exists())
}

/// Starts `apply --yes --confirm TIME` with more options, and waits until it is pending.
fn pending(node: &Namespace, time: &str, options: &[&str]) -> Child {
    let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", time]);
    let mut child =
        command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
    let deadline = Instant::now() + Duration::from_secs(60);
    while supervisor(node).is_none() {
        let has_ended = child.try_wait().expect("our child").is_some();
        if has_ended || Instant::now() > deadline {
            let (holder, files) = (holder(node), state_files(node));
            let _ = child.kill();
            panic!("the apply is not pending: {:?}, {holder:?}\n{files}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The process that holds or last held the lock, and its description.
fn holder(node: &Namespace) -> Option<(Pid, String)> {
    let text = std::fs::read_to_string(node.state_dir()?.join("lock")).ok()?;
    let text = text.lines().next()?;
    let process = Pid::from_raw(text.split_whitespace().nth(1)?.parse().ok()?)?;
    Some((process, text.to_owned()))
}

/// The process that keeps the deadline of the pending apply, if there is one.
fn supervisor(node: &Namespace) -> Option<Pid> {
    let (process, description) = holder(node)?;
    let is_pending =
        node.state_dir()?.join("wait/pending.json").exists() && description.contains("pending until");
    is_pending.then_some(process)
}

/// The IPv4 state that hostgw could change, as other tools print it. Less complete than the witness, but ten times
/// faster.
fn live(node: &Namespace) -> String {
    let objects = node.look("ip route show table all; nft list ruleset");
    let sysctls = node.sysctls(&["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf"]);
    without_counters(&objects) + &sysctls.join("\n")
}

/// The files of the state directory, with their times.
fn state_files(node: &Namespace) -> String {
    node.sh("find state -printf '%p %y %s %i %T@ %C@\\n' 2>/dev/null | sort || true")
}

/// Asserts that no transaction is recorded.
#[track_caller]
fn assert_no_record(node: &Namespace) {
    let records = node.sh("find state -name '*.json' 2>/dev/null || true");
    assert_eq!(records, "");
}
