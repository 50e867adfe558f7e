//! A sysctl that somebody else has written since is theirs: neither a rollback nor a destroy, neither the end of
//! a wait nor the recovery from a crash writes over it unasked.

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

/// The recipe, and rp_filter with this value.
fn with_filter(value: u8) -> String {
    format!("sysctls: {{{FILTER}: {value}}}\n{RECIPE}")
}

/// A node where rp_filter was 0, where hostgw set it to 2, and somebody else to 1.
fn changed_by_others(node: &Namespace) {
    write(node, FILTER, "0");
    apply(node, &with_filter(2));
    write(node, FILTER, "1");
}

#[test]
fn a_rollback_does_not_overwrite_a_sysctl_of_others() {
    each(|privilege| {
        let node = node(privilege);
        changed_by_others(&node);
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("foreign-sysctl-rollback", &node.hostgw(&["rollback", "--yes"]).expect(10));
        node.assert_unchanged(&live, "a refused rollback");
        snapshots
            .compare("foreign-sysctl-rollback-abandon", &node.hostgw(&["rollback", "--yes", "--abandon"]));
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
        assert!(node.own_routes().is_empty());
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");
        assert_eq!(node.sysctl(FILTER), "1", "nothing of it is owed any more");

        changed_by_others(&node);
        node.hostgw_ok(&["rollback", "--yes", "--adopt"]).says("net.ipv4.conf.all.rp_filter = 1 -> 0");
        assert_eq!(node.sysctl(FILTER), "0");
        snapshots.conclude();
    });
}

#[test]
fn a_destroy_does_not_overwrite_a_sysctl_of_others() {
    each(|privilege| {
        let node = node(privilege);
        changed_by_others(&node);
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("foreign-sysctl-destroy", &node.hostgw(&["destroy", "--yes"]).expect(10));
        node.assert_unchanged(&live, "a refused destroy");
        snapshots.compare("foreign-sysctl-destroy-abandon", &node.hostgw(&["destroy", "--yes", "--abandon"]));
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");

        changed_by_others(&node);
        node.hostgw_ok(&["destroy", "--yes", "--adopt"]);
        assert_eq!(node.sysctl(FILTER), "0");
        snapshots.conclude();
    });
}

/// Known is what hostgw wrote last, not first; and what somebody wrote between two applies is theirs, too.
#[test]
fn a_destroy_after_several_applies_knows_what_was_written_last() {
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
        node.hostgw(&["destroy", "--yes"]).expect(10).warns("hostgw wrote 1 and would restore 0");
        node.hostgw(&["rollback", "--yes"]).expect(0).warns("Undid the apply");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "applies, a rollback and destroy");
    });
}

/// The undo of an undo: each transaction knows its own values.
#[test]
fn a_rollback_of_a_rollback_knows_the_values_of_its_own_transaction() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        let before = node.witness();
        apply(&node, &with_filter(2));
        write(&node, FILTER, "1");
        node.hostgw_ok(&["apply", "--yes"]).says("1 -> 2");
        node.hostgw_ok(&["rollback", "--yes"]);
        assert_eq!(node.sysctl(FILTER), "1");
        node.hostgw(&["rollback", "--yes"]).expect(10).warns("rp_filter = 1 was not set by hostgw");
        write(&node, FILTER, "2");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "two applies and two rollbacks");
    });
}

/// What the configuration asks for no longer, and somebody else has set since, is left to them.
#[test]
fn an_apply_does_not_restore_a_sysctl_of_others() {
    each(|privilege| {
        let node = node(privilege);
        changed_by_others(&node);
        node.write("hostgw.yaml", RECIPE);
        node.hostgw_ok(&["plan"]).says("rp_filter keeps its value 1, set by another program");
        node.hostgw_ok(&["apply", "--yes"]);
        settled(&node);
        assert_eq!(node.sysctl(FILTER), "1");
        node.hostgw_ok(&["destroy", "--yes"]);
        assert_eq!(node.sysctl(FILTER), "1");

        changed_by_others(&node);
        node.write("hostgw.yaml", RECIPE);
        node.hostgw_ok(&["apply", "--yes", "--adopt"]).says("1 -> 0");
        assert_eq!(node.sysctl(FILTER), "0");
    });
}

/// The kernel rewrites them when forwarding goes off: they are written again.
#[test]
fn what_others_made_of_a_side_effect_outlives_the_switch() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, LAN, "1");
        write(&node, REDIRECTS, "0");
        apply(&node, RECIPE);
        // Neither as before nor as the switch makes it, nor what the switch makes of it when it goes off.
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

/// An interface that came later was never hostgw's: its own value outlives the switch as well.
#[test]
fn an_interface_that_came_later_keeps_its_value() {
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

/// A key whose interface is gone has nothing to restore.
#[test]
fn a_sysctl_of_an_interface_that_is_gone_is_no_conflict() {
    each(|privilege| {
        let node = node(privilege);
        for verb in ["rollback", "destroy"] {
            node.sh("ip link add gone0 type bridge");
            apply(&node, &format!("sysctls: {{net.ipv4.conf.gone0.rp_filter: 2}}\n{RECIPE}"));
            node.sh("ip link del gone0");
            node.hostgw_ok(&[verb, "--yes"]);
            assert!(node.own_routes().is_empty(), "{verb}");
        }
    });
}

/// The kernel prints several numbers with tabs, and takes them with blanks.
#[test]
fn several_numbers_are_one_value() {
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
        node.hostgw(&["rollback", "--yes"]).expect(10).warns("= 4096 5000 6000001 was not set by hostgw");
    });
}

/// The kernel makes another value of it: that is not somebody else's.
#[test]
fn a_value_that_the_kernel_spells_otherwise_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.write("hostgw.yaml", &format!("sysctls: {{net.ipv4.ip_default_ttl: '0x41'}}\n{RECIPE}"));
        let outcome = node.hostgw(&["apply", "--yes"]).expect(6);
        outcome.warns("net.ipv4.ip_default_ttl = 0x41 failed: the kernel reads it back as 65");
        node.assert_unchanged(&before, "a failed apply");
        assert_no_record(&node);
    });
}

/// Of several numbers the kernel takes those before the one that it refuses.
#[test]
fn a_value_that_the_kernel_takes_by_half_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.write("hostgw.yaml", &format!("sysctls: {{net.ipv4.tcp_rmem: '5000 0 6000000'}}\n{RECIPE}"));
        node.hostgw(&["apply", "--yes"]).expect(6).warns("net.ipv4.tcp_rmem = 5000 0 6000000 failed");
        node.assert_unchanged(&before, "a failed apply");
        assert_no_record(&node);
    });
}

/// As with routes: told with the commands that would finish it, and left for a rollback to decide on.
#[test]
fn an_apply_that_nobody_confirms_leaves_a_sysctl_of_others() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        node.write("hostgw.yaml", &with_filter(2));
        let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", "3s"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
        let pending = || node.state_dir().is_some_and(|dir| dir.join("wait/pending.json").exists());
        node.wait_until("the apply waits", pending);
        write(&node, FILTER, "1");
        let output = child.wait_with_output().expect("our child");
        let outcome = Outcome::from_output(&node, "hostgw apply --yes --confirm 3s", output).expect(7);
        outcome.warns("rp_filter = 1 was not set by hostgw").warns("sysctl -w net.ipv4.conf.all.rp_filter=0");
        assert_eq!(node.sysctl(FILTER), "1");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0", "all the rest is restored");
        node.hostgw(&["rollback", "--yes"]).expect(7);
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
        assert_eq!(node.sysctl(FILTER), "1");
        assert!(!is_open(&node));
    });
}

/// A crash, and somebody else: theirs stays whoever finishes the undo.
#[test]
#[cfg(feature = "fault-injection")]
fn crash_recovery_leaves_a_sysctl_of_others() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, LAN, "1");
        write(&node, FILTER, "0");
        let before = node.own_routes();
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
                        .warns("rp_filter = 1 was not set by hostgw");
                    node.hostgw(&["rollback", "--yes"])
                        .expect(7)
                        .warns("lan0.forwarding = 0 was not set by hostgw");
                    node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
                } else {
                    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
                    node.hostgw_ok(&["apply", "--yes"]).warns("rp_filter = 1 was not set by hostgw");
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
            assert_eq!(node.own_routes(), before, "{point}: {killed}");
        }
        assert!(interrupted > 2, "only {interrupted} were interrupted after the sysctl was written");
    });
}
