//! Without the privileges to read or change everything, this is reported.

use super::{assert_no_record, node, state_files};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, can_become_nobody, each};

fn unprivileged(node: &Namespace, arguments: &str) -> Outcome {
    let mut outcome = node.try_sh(&format!(
        "exec setpriv --bounding-set -all --inh-caps -all --no-new-privs \"$HOSTGW\" {arguments}"
    ));
    outcome.command = format!("hostgw {arguments} # without CAP_NET_ADMIN");
    outcome
}

#[test]
fn an_unprivileged_plan_lists_what_it_could_not_read() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let plan = unprivileged(&node, "plan").expect(9);
        assert!(!plan.stdout.contains("masquerade"), "an invented NAT rule in:\n{plan}");
        snapshots.compare("unprivileged-plan", &plan);
        snapshots.compare("unprivileged-apply", &unprivileged(&node, "apply --yes"));
        snapshots.compare("unprivileged-destroy", &unprivileged(&node, "destroy --yes"));
        snapshots.compare("unprivileged-status", &unprivileged(&node, "status"));
        node.assert_unchanged(&before, "unprivileged commands");
        assert_no_record(&node);
        snapshots.conclude();
    });
}

/// NAT in effect is not planned as removed because it is unreadable.
#[test]
fn an_unprivileged_plan_after_an_apply_removes_nothing() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let plan = unprivileged(&node, "plan").expect(9);
        plan.says("unknown");
        assert!(!plan.stdout.lines().any(|line| line.starts_with(['+', '-', '~'])), "changes in:\n{plan}");
    });
}

/// Root's state directory is closed to other users: its content is unknown to them, not absent.
#[test]
fn an_ordinary_user_on_a_node_applied_by_root() {
    each(|privilege| {
        // A user namespace with a single user has no other one.
        if privilege != Privilege::Root || !can_become_nobody() {
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
