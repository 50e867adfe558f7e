//! Foreign rules in the table `hostgw`: no rollback removes them without showing them first.

use std::process::{Child, Stdio};

#[cfg(feature = "fault-injection")]
use super::stopped::Stopped;
use super::{is_open, node, settled};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

/// A rule that hostgw can decode, so that snapshots do not depend on the version of nft.
const FOREIGN_RULE: &str = "ip daddr != 10.9.0.0/16 counter masquerade comment \"theirs\"";

fn add_foreign_rule(node: &Namespace) {
    node.sh(&format!("nft 'insert rule ip hostgw postrouting {FOREIGN_RULE}'"));
}

fn has_foreign_rule(node: &Namespace) -> bool {
    node.look("nft list ruleset").contains("theirs")
}

/// Asserts that everything of the apply is undone except its table, which contains the foreign rule.
#[track_caller]
fn assert_kept(node: &Namespace) {
    assert!(has_foreign_rule(node), "the foreign rule was removed");
    assert_eq!(node.managed_routes(), [""; 0]);
    assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
    assert!(is_open(node), "a later rollback can finish");
}

fn pending(node: &Namespace, time: &str) -> Child {
    let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", time]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
    node.wait_until("the apply is pending", || {
        node.state_dir().is_some_and(|dir| dir.join("wait/pending.json").exists())
    });
    child
}

fn end(node: &Namespace, child: Child) -> Outcome {
    Outcome::from_output(node, "hostgw apply --confirm", child.wait_with_output().expect("our child"))
}

#[test]
fn an_expired_or_canceled_apply_keeps_and_reports_a_foreign_rule() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        for (time, is_canceled) in [("2s", false), ("10m", true)] {
            let child = pending(&node, time);
            add_foreign_rule(&node);
            if is_canceled {
                snapshots.compare("foreign-rule-cancel", &node.hostgw(&["cancel"]).expect(7));
            }
            let outcome = end(&node, child).expect(7);
            outcome.warns("contains an object that hostgw did not create: rule ip hostgw postrouting ip daddr != 10.9.0.0/16");
            assert_kept(&node);
            node.hostgw_ok(&["status"]).says("its rollback is incomplete");
            // A rollback shows it first.
            let outcome = node.hostgw_ok(&["rollback", "--yes"]);
            if is_canceled {
                snapshots.compare("foreign-rule-rollback", &outcome);
            }
            node.assert_unchanged(&before, "a rollback that showed the rule");
        }
        snapshots.conclude();
    });
}

#[test]
fn a_foreign_rule_can_be_kept_permanently() {
    each(|privilege| {
        let node = node(privilege);
        let child = pending(&node, "10m");
        add_foreign_rule(&node);
        node.hostgw(&["cancel"]).expect(7);
        end(&node, child).expect(7);
        let outcome = node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
        outcome
            .says("hostgw did not add it; its table stays")
            .warns("contains an object that hostgw did not create");
        assert!(has_foreign_rule(&node) && !is_open(&node));
        // The same for an apply in effect.
        node.hostgw_ok(&["apply", "--yes"]);
        add_foreign_rule(&node);
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
        assert!(has_foreign_rule(&node) && !is_open(&node));
        assert_eq!(node.managed_routes(), [""; 0]);
    });
}

/// A confirmed apply is in effect with objects added later; its rollback shows these first.
#[test]
fn existing_nat_is_restored_exactly() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        add_foreign_rule(&node);
        let before = node.witness();
        node.sh("ip route del 10.244.1.0/24");
        let child = pending(&node, "10m");
        assert!(!has_foreign_rule(&node), "the apply showed and removed it");
        node.hostgw_ok(&["cancel"]);
        end(&node, child).expect(8);
        node.sh("ip route add 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87");
        node.assert_unchanged(&before, "an apply that was canceled");
        node.hostgw_ok(&["apply", "--yes"]);
        settled(&node);
    });
}

/// An apply on a node without history that is stopped after writing its NAT table and a route.
#[cfg(feature = "fault-injection")]
fn stop_midway<'a>(node: &'a Namespace, arguments: &[&str]) -> Stopped<'a> {
    for point in 10..200 {
        let stopped = Stopped::hostgw(node, arguments, "hostgw apply", point);
        let stopped = stopped.unwrap_or_else(|outcome| panic!("no middle: {outcome}"));
        if is_open(node) && !node.managed_routes().is_empty() {
            return stopped;
        }
        stopped.kill();
        node.hostgw_ok(&["rollback", "--yes"]);
    }
    panic!("no point midway")
}

#[cfg(feature = "fault-injection")]
#[test]
fn recovery_from_a_kill_keeps_and_reports_a_foreign_rule() {
    each(|privilege| {
        let node = node(privilege);
        let stopped = stop_midway(&node, &["apply", "--yes"]);
        add_foreign_rule(&node);
        stopped.kill();
        let mut snapshots = Snapshots::default();
        // The apply itself shows the rule before it removes it. Its number is that of the attempts to stop one midway.
        let mut outcome = node.hostgw_ok(&["apply", "--yes"]);
        let (_, id) = outcome.stderr.split_once("warning: apply ").expect("a recovery");
        let numbered = format!("apply {} (", id.split(' ').next().expect("a number"));
        outcome.stderr = outcome.stderr.replace(&numbered, "apply ID (");
        snapshots.compare("foreign-rule-recovery", &outcome);
        settled(&node);
        snapshots.conclude();
    });
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_supervisor_that_rolls_back_keeps_a_foreign_rule() {
    each(|privilege| {
        let node = node(privilege);
        let stopped = stop_midway(&node, &["apply", "--yes", "--confirm", "10m"]);
        add_foreign_rule(&node);
        stopped.kill();
        node.wait_until("the supervisor has undone the rest", || node.managed_routes().is_empty());
        assert_kept(&node);
        let rollback = node.hostgw_ok(&["rollback", "--yes"]);
        rollback.says("- rule ip hostgw postrouting ip daddr != 10.9.0.0/16");
        assert!(!has_foreign_rule(&node) && !is_open(&node));
    });
}
