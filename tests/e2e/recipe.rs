//! The recipe in `examples/recipe.yaml`: planned, applied, and then unchanged.

use super::{node, state_files};
use crate::support::namespace::{Snapshots, each, without_counters};

const TABLE: &str = r#"table ip hostgw {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr != 10.244.0.0/16 fib daddr type != local counter packets N bytes N masquerade comment "hostgw: traffic that leaves the cluster"
	}
}
"#;

#[test]
fn the_recipe_is_applied_and_stays_in_effect() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        let before = node.witness();
        snapshots.compare("recipe-plan", &node.hostgw(&["plan"]));
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(2);
        node.assert_unchanged(&before, "plan");
        assert_eq!(state_files(&node), "", "a plan writes no file");

        snapshots.compare("recipe-apply", &node.hostgw(&["apply", "--yes"]));
        assert_eq!(
            node.managed_routes(),
            [
                "10.244.0.0/16 dev eth0 scope link",
                "10.244.1.0/24 via 10.244.1.1 dev eth0",
                "10.244.2.0/24 via 10.244.2.2 dev eth0",
            ]
        );
        assert_eq!(without_counters(&node.look("nft list table ip hostgw")), TABLE);
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "1");
        snapshots.compare("recipe-plan-after", &node.hostgw(&["plan", "--detailed-exitcode"]));
        snapshots.conclude();
    });
}

#[test]
fn a_second_apply_writes_nothing() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let files = state_files(&node);
        let monitors = node.listen();
        let again = node.hostgw(&["apply", "--yes"]);
        assert_eq!(monitors.end(), Vec::<String>::new(), "the kernel announced changes");
        assert_eq!(state_files(&node), files);
        let mut snapshots = Snapshots::default();
        snapshots.compare("recipe-apply-again", &again);
        snapshots.conclude();
    });
}

/// The control experiment for the monitors above: the listener can receive notifications.
#[test]
fn the_kernel_announces_the_writes_of_a_first_apply() {
    each(|privilege| {
        let node = node(privilege);
        let announced = node.listen();
        node.hostgw_ok(&["apply", "--yes"]);
        let notifications = announced.end().join("\n");
        for what in ["10.244.1.0/24 via 10.244.1.1", "add table ip hostgw", "masquerade"] {
            assert!(notifications.contains(what), "no {what:?} in:\n{notifications}");
        }
    });
}
