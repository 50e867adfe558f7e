//! A sysctl that another program has written after hostgw is foreign: neither rollback, destroy, an expired apply nor
//! crash recovery overwrites it without being asked.

use std::process::Stdio;

#[cfg(feature = "fault-injection")]
use super::{NODE_1, NODE_2, cluster};
use super::{RECIPE, apply, assert_no_record, is_open, node, settled};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

const FILTER: &str = "net.ipv4.conf.all.rp_filter";
const LAN: &str = "net.ipv4.conf.lan0.forwarding";
const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";

fn write(node: &Namespace, key: &str, value: &str) {
    node.sh(&format!("echo '{value}' >/proc/sys/{}", key.replace('.', "/")));
}

/// The recipe with this value of rp_filter.
fn with_filter(value: u8) -> String {
    format!("sysctls: {{{FILTER}: {value}}}\n{RECIPE}")
}

/// Leaves a node whose rp_filter was 0, was set to 2 by hostgw, and then to 1 by another program.
fn leave_foreign_value(node: &Namespace) {
    write(node, FILTER, "0");
    apply(node, &with_filter(2));
    write(node, FILTER, "1");
}

#[test]
fn a_rollback_does_not_overwrite_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        leave_foreign_value(&node);
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("foreign-sysctl-rollback", &node.hostgw(&["rollback", "--yes"]).expect(10));
        node.assert_unchanged(&live, "a refused rollback");
        snapshots
            .compare("foreign-sysctl-rollback-abandon", &node.hostgw(&["rollback", "--yes", "--abandon"]));
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
        assert!(node.managed_routes().is_empty());
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");
        assert_eq!(node.sysctl(FILTER), "1", "no original value is saved any more");

        leave_foreign_value(&node);
        node.hostgw_ok(&["rollback", "--yes", "--adopt"]).says("net.ipv4.conf.all.rp_filter = 1 -> 0");
        assert_eq!(node.sysctl(FILTER), "0");
        snapshots.conclude();
    });
}

#[test]
fn a_destroy_does_not_overwrite_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        leave_foreign_value(&node);
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("foreign-sysctl-destroy", &node.hostgw(&["destroy", "--yes"]).expect(10));
        node.assert_unchanged(&live, "a refused destroy");
        snapshots.compare("foreign-sysctl-destroy-abandon", &node.hostgw(&["destroy", "--yes", "--abandon"]));
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");

        leave_foreign_value(&node);
        node.hostgw_ok(&["destroy", "--yes", "--adopt"]);
        assert_eq!(node.sysctl(FILTER), "0");
        snapshots.conclude();
    });
}

/// The last value that hostgw wrote counts, not the first. A value written between two applies is foreign, too.
#[test]
fn a_destroy_after_several_applies_knows_the_last_written_value() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        let before = node.witness();
        apply(&node, &with_filter(2));
        apply(&node, &with_filter(1));
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "two applies and destroy");
        apply(&node, &with_filter(2));
        apply(&node, &with_filter(1));
        write(&node, FILTER, "2");
        node.hostgw(&["destroy", "--yes"]).expect(10).warns("hostgw had set 1; the original value is 0");
        node.hostgw(&["rollback", "--yes"]).expect(0).warns("Rolled back apply");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "applies, a rollback and destroy");
    });
}

/// Undoing an undo: each transaction uses its own values.
#[test]
fn each_rollback_uses_the_values_of_its_transaction() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        let before = node.witness();
        apply(&node, &with_filter(2));
        write(&node, FILTER, "1");
        node.hostgw_ok(&["apply", "--yes"]).says("1 -> 2");
        node.hostgw_ok(&["rollback", "--yes"]);
        assert_eq!(node.sysctl(FILTER), "1");
        node.hostgw(&["rollback", "--yes"]).expect(10).warns("rp_filter = 1 was set by another program");
        write(&node, FILTER, "2");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "two applies and two rollbacks");
    });
}

/// A sysctl that is no longer in the configuration and was changed since keeps its value.
#[test]
fn an_apply_does_not_restore_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        leave_foreign_value(&node);
        node.write("hostgw.yaml", RECIPE);
        node.hostgw_ok(&["plan"]).says("rp_filter keeps its value 1, set by another program");
        node.hostgw_ok(&["apply", "--yes"]);
        settled(&node);
        assert_eq!(node.sysctl(FILTER), "1");
        node.hostgw_ok(&["destroy", "--yes"]);
        assert_eq!(node.sysctl(FILTER), "1");

        leave_foreign_value(&node);
        node.write("hostgw.yaml", RECIPE);
        node.hostgw_ok(&["apply", "--yes", "--adopt"]).says("1 -> 0");
        assert_eq!(node.sysctl(FILTER), "0");
    });
}

/// Disabling forwarding makes the kernel rewrite these values, so they are written again.
#[test]
fn a_foreign_value_survives_the_side_effects_of_a_switch() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, LAN, "1");
        write(&node, REDIRECTS, "0");
        apply(&node, RECIPE);
        // Neither the previous values nor those that the switch sets when it is enabled or disabled.
        write(&node, LAN, "0");
        write(&node, REDIRECTS, "1");
        let live = node.witness();
        for verb in ["rollback", "destroy"] {
            let outcome = node.hostgw(&[verb, "--yes"]).expect(10);
            outcome.warns(&format!("{LAN} = 0")).warns(&format!("{REDIRECTS} = 1"));
            node.assert_unchanged(&live, "a refused command");
            node.hostgw_ok(&[verb, "--yes", "--abandon"]);
            let values = [LAN, REDIRECTS, "net.ipv4.ip_forward"].map(|key| node.sysctl(key));
            assert_eq!(values, ["0", "1", "0"], "{verb}");
            write(&node, LAN, "1");
            write(&node, REDIRECTS, "0");
            apply(&node, RECIPE);
            write(&node, LAN, "0");
            write(&node, REDIRECTS, "1");
        }
    });
}

/// A new interface was never managed: its value survives the switch as well.
#[test]
fn a_new_interface_keeps_its_value() {
    each(|privilege| {
        let node = node(privilege);
        let key = "net.ipv6.conf.new0.ignore_routes_with_linkdown";
        let all = "net.ipv6.conf.all.ignore_routes_with_linkdown";
        for verb in ["rollback", "destroy"] {
            apply(&node, &format!("sysctls: {{{all}: 1}}\n{RECIPE}"));
            node.sh("ip link add new0 type bridge");
            write(&node, key, "7");
            node.hostgw_ok(&[verb, "--yes"]);
            assert_eq!((node.sysctl(all), node.sysctl(key)), ("0".to_owned(), "7".to_owned()), "{verb}");
            node.sh("ip link del new0");
        }
    });
}

/// A key whose interface no longer exists has nothing to restore.
#[test]
fn a_sysctl_of_a_deleted_interface_is_not_a_conflict() {
    each(|privilege| {
        let node = node(privilege);
        for verb in ["rollback", "destroy"] {
            node.sh("ip link add gone0 type bridge");
            apply(&node, &format!("sysctls: {{net.ipv4.conf.gone0.rp_filter: 2}}\n{RECIPE}"));
            node.sh("ip link del gone0");
            node.hostgw_ok(&[verb, "--yes"]);
            assert!(node.managed_routes().is_empty(), "{verb}");
        }
    });
}

/// The kernel prints several numbers separated by tabs, and accepts them separated by spaces.
#[test]
fn several_numbers_are_compared_as_one_value() {
    each(|privilege| {
        let node = node(privilege);
        let key = "net.ipv4.tcp_rmem";
        write(&node, key, "4096 131072 6291456");
        let before = node.witness();
        for verb in ["rollback", "destroy"] {
            apply(&node, &format!("sysctls: {{{key}: 4096   5000 6000000}}\n{RECIPE}"));
            node.hostgw_ok(&[verb, "--yes"]);
            node.assert_unchanged(&before, verb);
        }
        apply(&node, &format!("sysctls: {{{key}: 4096 5000 6000000}}\n{RECIPE}"));
        write(&node, key, "4096 5000 6000001");
        node.hostgw(&["rollback", "--yes"])
            .expect(10)
            .warns("= 4096 5000 6000001 was set by another program");
    });
}

/// A value that the kernel normalizes is not foreign.
#[test]
fn a_normalized_value_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.write("hostgw.yaml", &format!("sysctls: {{net.ipv4.ip_default_ttl: '0x41'}}\n{RECIPE}"));
        let outcome = node.hostgw(&["apply", "--yes"]).expect(6);
        outcome.warns("net.ipv4.ip_default_ttl = 0x41: the kernel stored 65 instead");
        node.assert_unchanged(&before, "a failed apply");
        assert_no_record(&node);
    });
}

/// Of several numbers, the kernel stores those before the first invalid one.
#[test]
fn a_partly_stored_value_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.write("hostgw.yaml", &format!("sysctls: {{net.ipv4.tcp_rmem: '5000 0 6000000'}}\n{RECIPE}"));
        node.hostgw(&["apply", "--yes"]).expect(6).warns("cannot write net.ipv4.tcp_rmem = 5000 0 6000000: ");
        node.assert_unchanged(&before, "a failed apply");
        assert_no_record(&node);
    });
}

/// As with routes: the remaining commands are listed, and a rollback can decide.
#[test]
fn an_expired_apply_keeps_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        node.write("hostgw.yaml", &with_filter(2));
        let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", "3s"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
        let pending = || node.state_dir().is_some_and(|dir| dir.join("wait/pending.json").exists());
        node.wait_until("the apply is pending", pending);
        write(&node, FILTER, "1");
        let output = child.wait_with_output().expect("our child");
        let outcome = Outcome::from_output(&node, "hostgw apply --yes --confirm 3s", output).expect(7);
        outcome
            .warns("rp_filter = 1 was set by another program")
            .warns("sysctl -w net.ipv4.conf.all.rp_filter=0");
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0", "everything else is restored");
        node.hostgw(&["rollback", "--yes"]).expect(7);
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
        assert_eq!(node.sysctl(FILTER), "1");
        assert!(!is_open(&node));
    });
}

/// A crash and a concurrent change: the foreign value stays, whichever command completes the rollback.
#[test]
#[cfg(feature = "fault-injection")]
fn crash_recovery_keeps_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, LAN, "1");
        write(&node, FILTER, "0");
        let before = node.managed_routes();
        let mut interrupted = 0;
        for point in 5..90 {
            node.write("hostgw.yaml", &with_filter(2));
            let mut command = node.hostgw_command(&["apply", "--yes"]);
            let killed = Outcome::of(&node, "apply", command.env("HOSTGW_FAULT", format!("kill:{point}")));
            if is_open(&node) && node.sysctl(FILTER) == "2" {
                interrupted += 1;
                write(&node, FILTER, "1");
                write(&node, LAN, "0");
                if point % 2 == 0 {
                    node.hostgw(&["rollback", "--yes"])
                        .expect(7)
                        .warns("rp_filter = 1 was set by another program");
                    node.hostgw(&["rollback", "--yes"])
                        .expect(7)
                        .warns("lan0.forwarding = 0 was set by another program");
                    node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
                } else {
                    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
                    node.hostgw_ok(&["apply", "--yes"]).warns("rp_filter = 1 was set by another program");
                    assert_eq!(node.sysctl(FILTER), "1", "{point}: {killed}");
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
                let values = [FILTER, LAN, "net.ipv4.ip_forward"].map(|key| node.sysctl(key));
                assert_eq!(values, ["1", "0", "0"], "{point}: {killed}");
                write(&node, FILTER, "0");
                write(&node, LAN, "1");
            } else if killed.code == 0 {
                break;
            } else {
                let _ = node.hostgw(&["rollback", "--yes"]).expect(0);
            }
            assert_eq!(node.managed_routes(), before, "{point}: {killed}");
        }
        assert!(interrupted > 2, "only {interrupted} were interrupted after the sysctl was written");
    });
}
