//! Other programs change the same things at the same moment, again and again: whatever comes of it, theirs stays.
//!
//! The suite runs a few races. `HOSTGW_WHOLE=1 tests/run -- e2e::races` runs 1,000 for routes and 200 for sysctls;
//! `HOSTGW_SEED` names the random numbers, which the message of a failure tells.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::Rng;

use super::{RECIPE, node};
use crate::support::{
    namespace::{Namespace, Outcome, Privilege, is_root},
    random::{asked_seed, new_seed, random},
};

const FILTER: &str = "net.ipv4.conf.all.rp_filter";

/// How many races: a few in the suite, `whole` of them when asked for.
fn races(few: usize, whole: usize) -> usize {
    if std::env::var_os("HOSTGW_WHOLE").is_some() { whole } else { few }
}

/// Starts hostgw, lets others do `theirs` after `delay`, and waits for both.
fn race(node: &Namespace, arguments: &[&str], delay: Duration, theirs: &str) -> Outcome {
    let script = format!("read -r _; {theirs}");
    let mut other = node.command("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("sh");
    let mut command = node.hostgw_command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
    thread::sleep(delay);
    // The end of its input is the start.
    drop(other.stdin.take());
    assert!(other.wait().expect("our child").code().is_some());
    let output = child.wait_with_output().expect("our child");
    Outcome::from_output(node, &arguments.join(" "), output)
}

/// How long a command takes here.
fn span(node: &Namespace, arguments: &[&str]) -> u64 {
    let begun = Instant::now();
    node.hostgw_ok(arguments);
    u64::try_from(begun.elapsed().as_micros()).expect("not ages")
}

/// Gives up what a race left open: what others did since is theirs.
fn settle(node: &Namespace) {
    if super::is_open(node) {
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
    }
}

#[test]
fn no_race_for_a_route_takes_one_of_others() {
    const THEIRS: &str = "10.244.1.0/24 via 172.30.0.98 dev eth0 proto static";
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let apply = span(&node, &["apply", "--yes"]);
    let back = span(&node, &["rollback", "--yes"]);
    let seed = asked_seed().unwrap_or_else(new_seed);
    let mut random = random(seed);
    let mut codes = std::collections::BTreeMap::<i32, usize>::new();
    for number in 0..races(30, 1000) {
        let is_apply = number % 2 == 0;
        let (verb, span) = if is_apply { ("apply", apply) } else { ("destroy", back) };
        if !is_apply {
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let delay = Duration::from_micros(random.next_u64() % (span + span / 4));
        let theirs = format!("ip route replace {THEIRS}");
        let outcome = race(&node, &[verb, "--yes"], delay, &theirs);
        *codes.entry(outcome.code).or_default() += 1;
        let context = format!("HOSTGW_SEED={seed}, race {number}: {outcome}");
        assert!([0, 5, 6, 7, 10].contains(&outcome.code), "{context}");
        settle(&node);
        node.hostgw_ok(&["destroy", "--yes"]);
        let left = node.run(["ip", "route", "show", "10.244.1.0/24"]);
        assert_eq!(left.trim_end(), THEIRS, "{context}");
        node.sh(&format!("ip route del {THEIRS}"));
    }
    assert!(codes.len() > 1, "HOSTGW_SEED={seed}: every race ended alike: {codes:?}");
}

#[test]
fn no_race_for_a_sysctl_takes_a_value_of_others() {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let write = |value: &str| drop(node.sh(&format!("echo {value} >/proc/sys/net/ipv4/conf/all/rp_filter")));
    write("0");
    node.write("hostgw.yaml", &format!("sysctls: {{{FILTER}: 2}}\n{RECIPE}"));
    let apply = span(&node, &["apply", "--yes"]);
    let back = span(&node, &["rollback", "--yes"]);
    let seed = asked_seed().unwrap_or_else(new_seed);
    let mut random = random(seed);
    let mut codes = std::collections::BTreeMap::<i32, usize>::new();
    for number in 0..races(20, 200) {
        let (verb, span) = [("apply", apply), ("rollback", back), ("destroy", back)][number % 3];
        if verb != "apply" {
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let delay = Duration::from_micros(random.next_u64() % (span + span / 4));
        let theirs = "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter";
        let outcome = race(&node, &[verb, "--yes"], delay, theirs);
        *codes.entry(outcome.code).or_default() += 1;
        let context = format!("HOSTGW_SEED={seed}, race {number}: {outcome}");
        assert!([0, 5, 6, 7, 10].contains(&outcome.code), "{context}");
        settle(&node);
        if verb == "apply" && outcome.code == 0 && node.sysctl(FILTER) == "2" {
            // Theirs came first, and is what the apply found.
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        assert_eq!(node.sysctl(FILTER), "1", "{context}");
        node.hostgw_ok(&["destroy", "--yes", "--abandon"]);
        assert_eq!(node.sysctl(FILTER), "1", "{context}, and after a destroy");
        write("0");
    }
    assert!(codes.len() > 1, "HOSTGW_SEED={seed}: every race ended alike: {codes:?}");
}
