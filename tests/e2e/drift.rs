//! Manual changes in the kernel are reported as drift and repaired by an apply, after which the plan is empty.

use super::{node, settled};
use crate::support::namespace::{Snapshots, each};

/// Changes to a node after an apply.
const DRIFTS: [(&str, &str); 10] = [
    ("route-deleted", "ip route del 10.244.1.0/24"),
    ("route-gateway", "ip route replace 10.244.1.0/24 via 172.30.0.99 dev eth0 proto 87"),
    ("route-mtu", "ip route replace 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87 mtu 1300"),
    ("route-extra", "ip route add 10.244.9.0/24 via 10.244.9.1 dev eth0 proto 87"),
    ("rule-deleted", "nft flush chain ip hostgw postrouting"),
    ("rule-foreign", "nft add rule ip hostgw postrouting ip daddr 192.0.2.1 counter accept comment hers"),
    ("chain-foreign", "nft add chain ip hostgw mine"),
    ("table-dormant", "nft add table ip hostgw '{ flags dormant; }'"),
    ("table-deleted", "nft delete table ip hostgw"),
    ("forwarding-off", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
];

#[test]
fn drift_is_reported_and_repaired() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        node.hostgw_ok(&["apply", "--yes"]);
        let applied = node.witness();
        for (name, change) in DRIFTS {
            node.sh(change);
            let mut plan = node.hostgw(&["plan", "--detailed-exitcode"]).expect(2);
            plan.command.push_str(&format!(" # after {change}"));
            snapshots.compare(&format!("drift-{name}"), &plan);
            plan.says("drift");
            node.hostgw_ok(&["status"]).says("Drift");
            node.hostgw_ok(&["apply", "--yes"]);
            settled(&node);
            node.assert_unchanged(&applied, name);
        }
        snapshots.conclude();
    });
}

/// When a link goes down, the kernel silently removes its IPv4 routes.
#[test]
fn routes_lost_with_their_link_are_restored() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip link set eth0 down; ip link set eth0 up");
        assert_eq!(node.managed_routes(), Vec::<String>::new(), "the kernel keeps the routes");
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(2).says("drift");
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(node.managed_routes().len(), 3);
        settled(&node);
    });
}

/// hostgw finds managed objects by protocol and table, not by its records.
#[test]
fn managed_objects_are_found_without_records() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("rm -r state");
        settled(&node);
        node.hostgw_ok(&["destroy", "--yes"]);
        assert_eq!(node.managed_routes(), Vec::<String>::new());
        assert_eq!(node.look("nft list tables"), "");
    });
}
