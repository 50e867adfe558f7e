//! Without the rights to see or change everything: said, never papered over.

use super::{assert_no_record, node, state_files};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, each, has_nobody};

fn without_rights(node: &Namespace, arguments: &str) -> Outcome {
    let mut outcome = node.try_sh(&format!(
        "exec setpriv --bounding-set -all --inh-caps -all --no-new-privs \"$HOSTGW\" {arguments}"
    ));
    outcome.command = format!("hostgw {arguments} # without CAP_NET_ADMIN");
    outcome
}

#[test]
fn a_plan_without_rights_says_what_it_could_not_see() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let plan = without_rights(&node, "plan").expect(9);
        assert!(!plan.stdout.contains("masquerade"), "an invented NAT rule in:\n{plan}");
        snapshots.compare("unprivileged-plan", &plan);
        snapshots.compare("unprivileged-apply", &without_rights(&node, "apply --yes"));
        snapshots.compare("unprivileged-destroy", &without_rights(&node, "destroy --yes"));
        snapshots.compare("unprivileged-status", &without_rights(&node, "status"));
        node.assert_unchanged(&before, "commands without rights");
        assert_no_record(&node);
        snapshots.conclude();
    });
}

/// NAT that is in force is not planned away because it cannot be seen.
#[test]
fn a_plan_without_rights_after_an_apply_has_nothing_to_remove() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let plan = without_rights(&node, "plan").expect(9);
        plan.says("unknown");
        assert!(!plan.stdout.lines().any(|line| line.starts_with(['+', '-', '~'])), "changes in:\n{plan}");
    });
}

/// Root's state directory is closed to others: what it holds is unknown to them, not absent.
#[test]
fn an_ordinary_user_of_a_node_that_root_applied() {
    each(|privilege| {
        // In a user namespace of one user there is no other.
        if privilege != Privilege::Root || !has_nobody() {
            return;
        }
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let applied = node.witness();
        let files = state_files(&node);
        let mut snapshots = Snapshots::default();
        for command in ["plan", "apply --yes", "destroy --yes", "rollback --yes", "status"] {
            let mut outcome = node.try_sh(&format!(
                "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$HOSTGW\" {command}"
            ));
            outcome.command = format!("hostgw {command} # as an ordinary user, applied by root");
            let name = command.split(' ').next().unwrap_or_default();
            snapshots.compare(&format!("ordinary-user-{name}"), &outcome);
        }
        node.assert_unchanged(&applied, "commands of an ordinary user");
        assert_eq!(state_files(&node), files);
        snapshots.conclude();
    });
}
