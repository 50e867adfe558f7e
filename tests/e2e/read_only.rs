//! A read-only `/proc/sys`, as in an unprivileged container.

use super::{assert_no_record, node};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

/// Runs `hostgw VERB --yes` where nothing below `/proc/sys` can be written.
fn read_only(node: &Namespace, verb: &str) -> Outcome {
    let mut outcome = node.try_sh(&format!(
        "unshare -m sh -ec 'mount --rbind /proc/sys /proc/sys
             mount -o remount,ro,bind,nosuid,nodev,noexec /proc/sys
             exec \"$HOSTGW\" {verb} --yes'"
    ));
    outcome.command = format!("hostgw {verb} --yes # /proc/sys is read-only");
    outcome
}

/// Routes and NAT are in force when the sysctl is refused, and are taken back.
#[test]
fn an_apply_that_cannot_write_sysctls_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let outcome = read_only(&node, "apply").expect(6);
        node.assert_unchanged(&before, "an apply with /proc/sys read-only");
        assert_no_record(&node);
        let mut snapshots = Snapshots::default();
        snapshots.compare("read-only-proc-sys", &outcome);
        snapshots.conclude();
    });
}

/// moby/libnetwork #405: failed on a value that was right already.
#[test]
fn values_that_stand_are_not_written() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        read_only(&node, "apply").expect(0);
        assert_eq!(node.own_routes().len(), 3);
    });
}

/// What a rollback could not put back is told with its commands, is not forgotten, and the next rollback
/// goes on from there.
#[test]
fn a_rollback_that_cannot_write_sysctls_says_what_is_left() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        let outcome = read_only(&node, "rollback").expect(7);
        node.hostgw_ok(&["status"]).says("hostgw rollback");
        let mut snapshots = Snapshots::default();
        snapshots.compare("read-only-rollback", &outcome);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "a rollback in two parts");
        snapshots.conclude();
    });
}

/// The commands that are told for what is left are the right ones.
#[test]
fn the_commands_of_an_unfinished_rollback_finish_it() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        let outcome = read_only(&node, "rollback").expect(7);
        for command in outcome.stderr.lines().filter_map(|line| line.strip_prefix("    ")) {
            node.sh(command);
        }
        node.assert_unchanged(&before, &outcome.to_string());
    });
}

/// A destroy that fails puts back what it had removed.
#[test]
fn a_destroy_that_cannot_write_sysctls_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let applied = node.witness();
        read_only(&node, "destroy").expect(6);
        node.assert_unchanged(&applied, "a failed destroy");
        super::settled(&node);
    });
}
