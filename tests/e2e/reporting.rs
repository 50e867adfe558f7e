//! Commands report exactly what they did.

#[cfg(feature = "fault-injection")]
use super::is_open;
#[cfg(feature = "fault-injection")]
use super::settled;
use super::{NODE_2, NODE_3, apply, cluster, node};
use crate::support::namespace::{Namespace, each};

fn damage(node: &Namespace, name: &str) -> std::path::PathBuf {
    let path = node.state_dir().expect("a state directory").join(name);
    std::fs::write(&path, "{").expect("our folder");
    path
}

/// The journal contains the saved values: the undo completes, and the records are intact again.
#[test]
#[cfg(feature = "fault-injection")]
fn an_undo_with_damaged_records_completes() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for verb in [&["apply", "--yes"][..], &["destroy", "--yes"], &["rollback", "--yes", "--abandon"]] {
            for point in 10.. {
                let mut command = node.hostgw_command(&["apply", "--yes"]);
                command.env("HOSTGW_FAULT", format!("kill:{point}")).output().expect("hostgw");
                if is_open(&node) && node.sysctl("net.ipv4.ip_forward") == "1" {
                    break;
                }
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            let saved = damage(&node, "saved-sysctls.json");
            let outcome = node.hostgw_ok(verb);
            outcome.warns("Rolled back apply");
            assert!(!is_open(&node), "{outcome}");
            if verb[0] == "apply" {
                settled(&node);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            assert!(!saved.exists(), "{outcome}");
            node.assert_unchanged(&before, verb[0]);
        }
    });
}

/// Without a journal, the content of damaged records is unknown: nothing is changed, and that is reported.
#[test]
fn damaged_records_without_an_open_transaction_change_nothing() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24");
        let live = node.witness();
        damage(&node, "saved-sysctls.json");
        for verb in ["apply", "destroy"] {
            node.hostgw(&[verb, "--yes"]).expect(1).warns("saved-sysctls.json");
            node.assert_unchanged(&live, verb);
        }
    });
}

/// A node whose name and address are no longer in the configuration is recognized by its last apply.
#[test]
fn a_removed_node_shows_how_to_clean_up() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", &cluster("", &[NODE_2, NODE_3]));
        for arguments in [&["plan"][..], &["apply", "--yes"], &["plan", "--node", "linux-1"]] {
            let outcome = node.hostgw(arguments).expect(3);
            outcome.warns("the last apply here was for node linux-1, which is no longer in hostgw.yaml");
            outcome.warns("run `hostgw destroy`");
        }
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "apply and destroy");
    });
}

/// Its routes are as applied, but a plan fails.
#[test]
fn the_status_of_a_renumbered_node_reports_why_a_plan_would_fail() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster("", &[super::NODE_1, NODE_2]));
        apply(&node, &cluster("", &[super::NODE_1, NODE_2]));
        node.hostgw_ok(&["status"]).says("Drift: none\n");
        // The kernel keeps the routes as long as the interface has an address in another network.
        node.sh("ip address add 172.30.0.77/16 dev eth0; ip address del 172.30.0.11/24 dev eth0");
        let plan = node.hostgw(&["plan"]).expect(3);
        plan.warns("the last apply here was for node linux-1, which is still in hostgw.yaml");
        let status = node.hostgw_ok(&["status"]);
        status.says("Problems: the last applied configuration no longer fits this machine");
        status.says("no local interface has 172.30.0.11 (node linux-1)");
        assert!(!status.stdout.contains("Drift: none\n"), "{status}");
    });
}
