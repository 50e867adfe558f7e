//! Other programs change the same objects at the same moment, repeatedly: whatever the result, their changes stay.
//!
//! The suite runs a few races. `HOSTGW_WHOLE=1 tests/run -- e2e::races` runs 1,000 for routes and 200 for sysctls.
//! `HOSTGW_SEED` sets the random seed, which a failure prints.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::Rng;

use super::{RECIPE, node};
use crate::support::{
    namespace::{Namespace, Outcome, Privilege, is_root},
    random::{new_seed, random, requested_seed},
};

const FILTER: &str = "net.ipv4.conf.all.rp_filter";

/// The number of races: `few` by default, `whole` if requested.
fn races(few: usize, whole: usize) -> usize {
    if std::env::var_os("HOSTGW_WHOLE").is_some() { whole } else { few }
}

/// Starts hostgw, runs the command `foreign` after `delay`, and waits for both.
fn race(node: &Namespace, arguments: &[&str], delay: Duration, foreign: &str) -> Outcome {
    let script = format!("read -r _; {foreign}");
    let mut other = node.command("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("sh");
    let mut command = node.hostgw_command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
    thread::sleep(delay);
    // The end of its input starts it.
    drop(other.stdin.take());
    assert!(other.wait().expect("our child").code().is_some());
    let output = child.wait_with_output().expect("our child");
    Outcome::from_output(node, &arguments.join(" "), output)
}

/// How long a command takes on this machine.
fn duration(node: &Namespace, arguments: &[&str]) -> u64 {
    let start = Instant::now();
    node.hostgw_ok(arguments);
    u64::try_from(start.elapsed().as_micros()).expect("a short time")
}

/// Abandons what a race left open: foreign changes since then stay.
fn abandon(node: &Namespace) {
    if super::is_open(node) {
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
    }
}

#[test]
fn no_race_for_a_route_removes_a_foreign_one() {
    const FOREIGN: &str = "10.244.1.0/24 via 172.30.0.98 dev eth0 proto static";
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let apply = duration(&node, &["apply", "--yes"]);
    let back = duration(&node, &["rollback", "--yes"]);
    let seed = requested_seed().unwrap_or_else(new_seed);
    let mut random = random(seed);
    let mut codes = std::collections::BTreeMap::<i32, usize>::new();
    for number in 0..races(30, 1000) {
        let is_apply = number % 2 == 0;
        let (verb, duration) = if is_apply { ("apply", apply) } else { ("destroy", back) };
        if !is_apply {
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let delay = Duration::from_micros(random.next_u64() % (duration + duration / 4));
        let foreign = format!("ip route replace {FOREIGN}");
        let outcome = race(&node, &[verb, "--yes"], delay, &foreign);
        *codes.entry(outcome.code).or_default() += 1;
        let context = format!("HOSTGW_SEED={seed}, race {number}: {outcome}");
        assert!([0, 5, 6, 7, 10].contains(&outcome.code), "{context}");
        abandon(&node);
        node.hostgw_ok(&["destroy", "--yes"]);
        let left = node.look("ip route show 10.244.1.0/24");
        assert_eq!(left.trim_end(), FOREIGN, "{context}");
        node.sh(&format!("ip route del {FOREIGN}"));
    }
    assert!(codes.len() > 1, "HOSTGW_SEED={seed}: every race ended alike: {codes:?}");
}

#[test]
fn no_race_for_a_sysctl_overwrites_a_foreign_value() {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let write = |value: &str| drop(node.sh(&format!("echo {value} >/proc/sys/net/ipv4/conf/all/rp_filter")));
    write("0");
    node.write("hostgw.yaml", &format!("sysctls: {{{FILTER}: 2}}\n{RECIPE}"));
    let apply = duration(&node, &["apply", "--yes"]);
    let back = duration(&node, &["rollback", "--yes"]);
    let seed = requested_seed().unwrap_or_else(new_seed);
    let mut random = random(seed);
    let mut codes = std::collections::BTreeMap::<i32, usize>::new();
    for number in 0..races(20, 200) {
        let (verb, duration) = [("apply", apply), ("rollback", back), ("destroy", back)][number % 3];
        if verb != "apply" {
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let delay = Duration::from_micros(random.next_u64() % (duration + duration / 4));
        let foreign = "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter";
        let outcome = race(&node, &[verb, "--yes"], delay, foreign);
        *codes.entry(outcome.code).or_default() += 1;
        let context = format!("HOSTGW_SEED={seed}, race {number}: {outcome}");
        assert!([0, 5, 6, 7, 10].contains(&outcome.code), "{context}");
        abandon(&node);
        if verb == "apply" && outcome.code == 0 && node.sysctl(FILTER) == "2" {
            // The foreign change came first, and the apply found it.
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        assert_eq!(node.sysctl(FILTER), "1", "{context}");
        node.hostgw_ok(&["destroy", "--yes", "--abandon"]);
        assert_eq!(node.sysctl(FILTER), "1", "{context}, and after a destroy");
        write("0");
    }
    assert!(codes.len() > 1, "HOSTGW_SEED={seed}: every race ended alike: {codes:?}");
}
