//! Clusters with both address families.

use super::{node, settled};
use crate::support::namespace::{Namespace, Privilege, Snapshots, each};

pub(super) const CLUSTER: &str = "\
clusterPrefix: [10.244.0.0/16, fd00:244::/48]
egressInterface: eth0
nodes:
  - name: linux-1
    os: linux
    podCIDR: [10.244.0.0/24, fd00:244:0:1::/64]
    address: [172.30.0.11, fd00:30::11]
  - name: linux-2
    os: linux
    podCIDR: [10.244.1.0/24, fd00:244:0:2::/64]
    address: [172.30.0.12, fd00:30::12]
  - name: win-1
    os: windows
    podCIDR: [10.244.2.0/24, fd00:244:0:3::/64]
    address: [172.30.0.13, fd00:30::13]
";

fn dual_stack_node(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("ip -6 address add fd00:30::11/64 dev eth0
             echo 1 >/proc/sys/net/ipv6/conf/lan0/forwarding");
    node.await_ipv6_addresses();
    node.write("hostgw.yaml", CLUSTER);
    node
}

#[test]
fn both_families_are_applied_and_destroyed_without_residue() {
    each(|privilege| {
        let node = dual_stack_node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("dual-stack-apply", &node.hostgw(&["apply", "--yes"]));
        let routes = node.look("ip -6 route show proto 87");
        let routes: Vec<_> = routes.lines().map(str::trim_end).collect();
        assert_eq!(
            routes,
            [
                "fd00:244:0:2::/64 via fd00:244:0:2::1 dev eth0 metric 1024 pref medium",
                "fd00:244:0:3::/64 via fd00:244:0:3::2 dev eth0 metric 1024 pref medium",
                "fd00:244::/48 dev eth0 metric 1024 pref medium",
            ]
        );
        assert!(node.look("nft list table ip6 hostgw").contains("ip6 daddr != fd00:244::/48"));
        assert_eq!(node.sysctl("net.ipv6.conf.all.forwarding"), "1");
        assert_eq!(node.managed_routes().len(), 3);
        settled(&node);
        let monitors = node.listen();
        settled(&node);
        assert_eq!(monitors.end(), Vec::<String>::new());
        snapshots.compare("dual-stack-destroy", &node.hostgw(&["destroy", "--yes"]));
        node.assert_unchanged(&before, "apply and destroy");
        snapshots.conclude();
    });
}

#[test]
fn both_families_follow_the_configuration_and_are_rolled_back() {
    each(|privilege| {
        let node = dual_stack_node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        let first = node.witness();
        node.write("hostgw.yaml", &CLUSTER.replacen("egress", "nextHop: node-address\negress", 1));
        node.hostgw_ok(&["apply", "--yes"]);
        settled(&node);
        let routes = node.look("ip -6 route show proto 87");
        assert!(routes.contains("fd00:244:0:2::/64 via fd00:30::12 dev eth0"), "{routes}");
        assert_eq!(routes.lines().count(), 2, "{routes}");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&first, "the second apply and rollback");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "both rolled back");
    });
}

/// Foreign IPv6 routes can share a key in more ways: a second gateway forms a multipath route.
#[test]
fn adopted_ipv6_routes_are_restored() {
    each(|privilege| {
        let node = dual_stack_node(privilege);
        for foreign in [
            "via fd00:30::1 dev eth0 proto static",
            "nexthop via fd00:30::1 dev eth0 weight 1 nexthop via fd00:30::2 dev eth0 weight 3",
            "via fd00:30::1 dev eth0 mtu 1400 hoplimit 7",
            "via fd00:30::1 dev eth0 src fd00:30::11 pref high",
        ] {
            node.sh(&format!("ip -6 route add fd00:244:0:2::/64 {foreign}"));
            let before = node.witness();
            node.hostgw(&["apply", "--yes"]).expect(10);
            node.hostgw_ok(&["apply", "--yes", "--adopt"]);
            settled(&node);
            assert_eq!(node.look("ip -6 route show fd00:244:0:2::/64").lines().count(), 1);
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, &format!("adopt and rollback of {foreign}"));
            node.sh("ip -6 route del fd00:244:0:2::/64");
        }
    });
}
