//! A fault at every exchange with the kernel, one after another: whatever fails, and wherever the process is
//! killed, the node is as before or as planned, and hostgw says which. Only in a build with the feature
//! `fault-injection`, as `tests/run` makes it.

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, node};
use crate::support::namespace::{Namespace, Outcome, Peer, Privilege, is_root};

/// No plan here takes more exchanges; beyond it something does not end.
const MOST: usize = 400;

/// A plan to commit: what stands before, and the command.
struct Scenario {
    name: &'static str,
    before: Option<String>,
    file: Option<String>,
    verb: &'static str,
}

/// What answers at the other end of the cable.
const CHECKS: &str = "\nchecks: [{tcp: '172.30.0.1:8080'}, {neighbour: 172.30.0.1}]\n";

/// Plans that add, change and remove, and one with checks.
fn scenarios() -> [Scenario; 4] {
    let three = cluster("", &[NODE_1, NODE_2, NODE_3]);
    let changed = cluster("nextHop: node-address\nnat: {randomFully: true}", &[NODE_1, NODE_2]);
    [
        Scenario { name: "add", before: None, file: Some(RECIPE.to_owned()), verb: "apply" },
        Scenario { name: "change", before: Some(three), file: Some(changed), verb: "apply" },
        Scenario { name: "remove", before: Some(RECIPE.to_owned()), file: None, verb: "destroy" },
        Scenario { name: "check", before: None, file: Some(format!("{RECIPE}{CHECKS}")), verb: "apply" },
    ]
}

impl Scenario {
    /// A node where `before` stands, and the machine at the other end where there are checks.
    fn node(&self) -> (Namespace, Option<Peer>) {
        let node = node(if is_root() { Privilege::Root } else { Privilege::User });
        node.sh("echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding; echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects");
        if let Some(before) = &self.before {
            node.write("hostgw.yaml", before);
            node.hostgw_ok(&["apply", "--yes"]);
        }
        if let Some(file) = &self.file {
            node.write("hostgw.yaml", file);
        }
        let has_checks = self.file.as_ref().is_some_and(|file| file.ends_with(CHECKS));
        let peer = has_checks.then(|| {
            let peer = Peer::behind(&node, "lan0", &[8080]);
            peer.sh(&node, "ip address add 172.30.0.1/24 dev far");
            node.settle();
            peer
        });
        (node, peer)
    }

    fn run(&self, node: &Namespace, fault: &str) -> Outcome {
        let mut command = node.hostgw_command(&[self.verb, "--yes"]);
        command.env("HOSTGW_FAULT", fault).env("HOSTGW_FAULT_MARK", node.folder().join("fault"));
        Outcome::of(node, &format!("{} with {fault}", self.verb), &mut command)
    }

    /// Calls `each` for the fault `kind` at every exchange of the command, until one comes after the last.
    fn at_every_exchange(&self, kind: &str, each: impl Fn(&Namespace, &str, &Outcome)) {
        let (node, _peer) = self.node();
        let before = state(&node);
        for number in 1.. {
            assert!(number < MOST, "{}: no end of exchanges", self.name);
            let fault = format!("{kind}:{number}");
            let outcome = self.run(&node, &fault);
            if std::fs::remove_file(node.folder().join("fault")).is_err() {
                assert!(number > 10, "{}: no fault was injected", self.name);
                assert_eq!(outcome.code, 0, "{outcome}");
                return;
            }
            if outcome.code == 0 {
                // It came through: a read that was repeated. The plan is in force, whole.
                assert_ne!(before, state(&node), "{outcome}");
                // No fault makes a check count less.
                assert!(!outcome.stderr.contains("does not count"), "{outcome}");
                node.hostgw_ok(&["rollback", "--yes"]);
                assert_eq!(before, state(&node), "{outcome}");
            } else {
                each(&node, &before, &outcome);
            }
        }
    }
}

/// All that hostgw could change, told by others.
fn state(node: &Namespace) -> String {
    node.sh("ip route show table all; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'
             grep -rs . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf | sort")
}

fn is_open(node: &Namespace) -> bool {
    node.state_dir().is_some_and(|dir| dir.join("journal.json").exists())
}

/// One fault: nothing was changed (1), or it was rolled back (6).
#[test]
fn a_failure_at_every_exchange_leaves_the_state_before() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_exchange("fail", |node, before, outcome| {
            assert!([1, 6].contains(&outcome.code), "{}: {outcome}", scenario.name);
            seen.set(seen.get() || outcome.code == 6);
            assert_eq!(before, state(node), "{}: {outcome}", scenario.name);
            assert!(!is_open(node), "{}: {outcome}", scenario.name);
        });
        assert!(seen.get(), "{}: no fault came after the first write", scenario.name);
    }
}

/// Everything fails from some exchange on, the undo too: that is said (7), and a later rollback finishes.
#[test]
fn a_failing_undo_is_said_and_finished_later() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_exchange("fail-from", |node, before, outcome| {
            assert!([1, 7].contains(&outcome.code), "{}: {outcome}", scenario.name);
            assert_eq!(outcome.code == 7, is_open(node), "{}: {outcome}", scenario.name);
            if outcome.code == 7 {
                seen.set(true);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            assert_eq!(before, state(node), "{}: {outcome}", scenario.name);
        });
        assert!(seen.get(), "{}: no undo failed", scenario.name);
    }
}

/// Killed at any exchange: nothing was changed, or a rollback puts it back.
#[test]
fn a_kill_at_every_exchange_is_put_right() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_exchange("kill", |node, before, outcome| {
            if is_open(node) {
                seen.set(true);
                node.hostgw_ok(&["status"]).says("interrupted");
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            assert_eq!(before, state(node), "{}: {outcome}", scenario.name);
        });
        assert!(seen.get(), "{}: no kill came after the first write", scenario.name);
    }
}

/// The rollback itself is killed at every exchange, and the next one goes on.
#[test]
fn a_rollback_killed_at_every_exchange_goes_on() {
    let [add, ..] = scenarios();
    let (node, _peer) = add.node();
    let before = state(&node);
    for number in 1.. {
        assert!(number < MOST, "no end of exchanges");
        node.hostgw_ok(&["apply", "--yes"]);
        let mut command = node.hostgw_command(&["rollback", "--yes"]);
        let fault = format!("kill:{number}");
        let outcome =
            Outcome::of(&node, &format!("rollback with {fault}"), command.env("HOSTGW_FAULT", &fault));
        if outcome.code != 0 {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        assert_eq!(before, state(&node), "{outcome}");
        if outcome.code == 0 {
            return;
        }
    }
}
