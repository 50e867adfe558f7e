//! Concurrent commands on one node: each one completes, one after the other.

use std::process::Stdio;

use super::{NODE_1, NODE_2, NODE_3, cluster, node, settled};
use crate::support::namespace::{Outcome, Privilege, each, is_root};

/// The second apply waits for the first, makes no changes, and records nothing.
#[test]
fn concurrent_applies_are_one_apply() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let start = || {
            let mut command = node.hostgw_command(&["apply", "--yes"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw")
        };
        let all: Vec<_> = (0..6).map(|_| start()).collect();
        for child in all {
            let output = child.wait_with_output().expect("our child");
            Outcome::from_output(&node, "hostgw apply --yes, concurrent with others", output).expect(0);
        }
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "concurrent applies and one rollback");
    });
}

/// With different configurations, the last one to get the lock is completely in effect.
#[test]
fn concurrent_applies_of_two_files_leave_one_of_them() {
    each(|privilege| {
        let node = node(privilege);
        node.write("one.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.write("other.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_3]));
        let start = |file: &str| {
            let mut command = node.hostgw_command(&["apply", "--yes", "-f", file]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("hostgw")
        };
        let all: Vec<_> = ["one.yaml", "other.yaml", "one.yaml", "other.yaml"].map(start).into();
        for mut child in all {
            assert!(child.wait().expect("our child").success());
        }
        let left = |file| node.hostgw(&["plan", "--detailed-exitcode", "-f", file]).code;
        let mut codes = [left("one.yaml"), left("other.yaml")];
        codes.sort_unstable();
        assert_eq!(codes, [0, 2]);
    });
}

/// Fifty concurrent commands of every kind: each ends as documented, foreign objects stay, and the node can be
/// restored.
#[test]
fn fifty_concurrent_commands_each_complete_or_change_nothing() {
    const COMMANDS: [&[&str]; 8] = [
        &["apply", "--yes", "-f", "one.yaml", "--lock-timeout", "2m"],
        &["apply", "--yes", "-f", "other.yaml", "--lock-timeout", "2m"],
        &["plan", "-f", "one.yaml"],
        &["status"],
        &["rollback", "--yes", "--lock-timeout", "2m"],
        &["destroy", "--yes", "--lock-timeout", "2m"],
        &["status", "--history"],
        &["destroy", "--dry-run"],
    ];
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    node.write("one.yaml", &cluster("", &[NODE_1, NODE_2]));
    node.write("other.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_3]));
    node.sh("ip route add 10.244.77.0/24 via 172.30.0.77 proto static; nft add table ip foreign");
    let before = node.witness();
    let start = |at: usize| {
        let arguments = COMMANDS[at % COMMANDS.len()];
        let mut command = node.hostgw_command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
        (arguments, child)
    };
    let all: Vec<_> = (0..50).map(start).collect();
    for (arguments, child) in all {
        let output = child.wait_with_output().expect("our child");
        let name = format!("hostgw {}, concurrent with others", arguments.join(" "));
        let outcome = Outcome::from_output(&node, &name, output);
        assert!(outcome.code == 0 || is_overtaken(&outcome), "{outcome}");
    }
    node.hostgw_ok(&["destroy", "--yes"]);
    node.assert_unchanged(&before, "fifty concurrent commands and a destroy");
}

/// A rollback does not undo a transaction that began after its plan.
fn is_overtaken(outcome: &Outcome) -> bool {
    outcome.code == 5 && outcome.stderr.contains("is more recent")
}

/// A command that reads the node in the middle of another one's transaction waits, and decides by the state after it.
#[cfg(feature = "fault-injection")]
#[test]
fn no_decision_rests_on_a_partial_transaction() {
    const COMMANDS: [&[&str]; 6] = [
        &["plan"],
        &["rollback", "--yes"],
        &["destroy", "--yes"],
        &["rollback", "--dry-run"],
        &["destroy", "--dry-run"],
        &["apply", "--yes", "-f", "other.yaml"],
    ];
    std::thread::scope(|scope| {
        for first in ["apply", "destroy", "rollback"] {
            for second in COMMANDS {
                scope.spawn(move || run_during(first, second));
            }
        }
    });
}

/// Runs `second` while `first` is stopped, at every sixth point.
#[cfg(feature = "fault-injection")]
fn run_during(first: &str, second: &[&str]) {
    use std::{thread, time::Duration};

    use super::stopped::Stopped;

    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    // Switches with side effects, so that a partial transaction looks like foreign changes.
    node.sh("echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects; echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding");
    node.write("other.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_3]));
    let before = node.witness();
    for point in (5..).step_by(6) {
        if first != "apply" {
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let name = format!("hostgw {first}, stopped at {point}");
        let stopped = match Stopped::hostgw(&node, &[first, "--yes"], &name, point) {
            Ok(stopped) => stopped,
            Err(outcome) => return drop(outcome.expect(0)),
        };
        let mut command = node.hostgw_command(second);
        if second[0] != "plan" {
            command.args(["--lock-timeout", "2m"]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let other = command.spawn().expect("hostgw");
        // Longer than reading the node takes.
        thread::sleep(Duration::from_millis(100));
        let stopped = stopped.resume();
        assert!(stopped.code == 0 || is_overtaken(&stopped), "{stopped}");
        let name = format!("hostgw {}, in the middle of {name}", second.join(" "));
        let outcome = Outcome::from_output(&node, &name, other.wait_with_output().expect("our child"));
        assert!(outcome.code == 0 || is_overtaken(&outcome), "{outcome}");
        if second[0] == "plan" {
            // The state before the other command or after it, never one in between.
            let is_whole = outcome.stdout.contains("No changes.")
                || outcome.stdout.contains("Plan: 6 to add, 1 to update, 0 to remove.");
            assert!(is_whole, "{outcome}");
        }
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, &name);
    }
}
