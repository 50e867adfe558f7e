//! A read-only `/proc/sys`, as in an unprivileged container.

use super::{assert_no_record, node};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

/// Runs `hostgw VERB --yes` with a read-only `/proc/sys`.
fn read_only(node: &Namespace, verb: &str) -> Outcome {
    let mut outcome = node.try_sh(&format!(
        "unshare -m sh -ec 'mount --rbind /proc/sys /proc/sys
             mount -o remount,ro,bind,nosuid,nodev,noexec /proc/sys
             exec \"$HOSTGW\" {verb} --yes'"
    ));
    outcome.command = format!("hostgw {verb} --yes # /proc/sys is read-only");
    outcome
}

/// Routes and NAT are in effect when the sysctl is refused, and are rolled back.
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

/// See moby/libnetwork #405: writing failed although the value was already right.
#[test]
fn matching_values_are_not_written() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        read_only(&node, "apply").expect(0);
        assert_eq!(node.managed_routes().len(), 3);
    });
}

/// An incomplete rollback lists the remaining commands, and the next rollback resumes it.
#[test]
fn a_rollback_that_cannot_write_sysctls_lists_the_remaining_commands() {
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

/// The listed commands complete the rollback.
#[test]
fn the_listed_commands_complete_the_rollback() {
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

/// A failed destroy restores what it had removed.
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

/// A container has the sysctls of its node in another place.
#[test]
fn sysctls_can_be_mounted_elsewhere() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.sh("mkdir -p sysctls/net other/net/core");
        let elsewhere = |directory: &str, arguments: &str| {
            node.try_sh(&format!(
                "unshare -m sh -ec 'mount --bind /proc/sys/net sysctls/net
                     mount --rbind /proc/sys /proc/sys
                     mount -o remount,ro,bind,nosuid,nodev,noexec /proc/sys
                     HOSTGW_SYSCTL_DIR={directory} exec \"$HOSTGW\" {arguments}'"
            ))
        };
        elsewhere("\"$PWD\"/sysctls", "apply --yes").expect(0).says("net.ipv4.ip_forward = 0 -> 1");
        assert_eq!(node.sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        elsewhere("\"$PWD\"/sysctls", "rollback --yes").expect(0);
        node.assert_unchanged(&before, "a rollback with the sysctls elsewhere");
        // The supervisor of a pending apply inherits the variable.
        elsewhere("\"$PWD\"/sysctls", "apply --yes --confirm 1s").expect(8);
        node.assert_unchanged(&before, "an apply that nobody confirms, with the sysctls elsewhere");

        let refused = |directory: &str| elsewhere(directory, "apply --yes").expect(64);
        refused("sysctls").warns("HOSTGW_SYSCTL_DIR=sysctls is not absolute");
        for other in ["\"$PWD\"/other", "/proc", "/nowhere"] {
            refused(other).warns("does not contain the sysctls of net");
        }
        node.assert_unchanged(&before, "a directory without sysctls");
    });
}
