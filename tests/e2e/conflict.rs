//! Foreign routes in the place of managed ones: shown, refused, and adopted only on request.

use super::{ON_LINK, assert_no_record, node, settled};
use crate::support::namespace::{Snapshots, each};

/// Foreign routes to the pods of linux-2, with the attributes, in `ip` syntax, that hostgw cannot decode.
const FOREIGN: [&str; 10] = [
    "via 172.30.0.1 proto static",
    // Cilium marks its routes so. The kernel itself adds none via gateways.
    "via 172.30.0.1 proto kernel",
    "via 172.30.0.1 proto bird src 172.30.0.11 mtu 1400",
    "nexthop via 172.30.0.1 dev eth0 weight 1 nexthop via 172.30.0.2 dev eth0 weight 5",
    "via 172.30.0.1 advmss 1300 window 5000 initcwnd 20",
    "via 192.0.2.1 dev eth0 onlink",
    "dev eth0 scope link",
    "via 172.30.0.1 mtu lock 1400 rto_min 10ms quickack 1",
    "via 172.30.0.1 realm 5",
    "via inet6 fe80::1 dev eth0",
];

#[test]
fn a_foreign_route_is_shown_and_refused() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 dev eth0 proto static");
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("conflict-plan", &node.hostgw(&["plan"]));
        snapshots.compare("conflict-apply", &node.hostgw(&["apply", "--yes"]));
        snapshots.compare("conflict-plan-adopt", &node.hostgw(&["plan", "--adopt"]));
        node.assert_unchanged(&before, "a refused apply");
        assert_no_record(&node);
        snapshots.conclude();
    });
}

#[test]
fn a_rollback_restores_adopted_routes() {
    each(|privilege| {
        let node = node(privilege);
        for foreign in FOREIGN {
            node.sh(&format!("ip route add 10.244.1.0/24 {foreign}"));
            let before = node.witness();
            node.hostgw(&["apply", "--yes"]).expect(10);
            node.assert_unchanged(&before, foreign);
            node.hostgw_ok(&["apply", "--yes", "--adopt"]);
            assert_eq!(node.managed_routes()[..2], [ON_LINK, super::TO_NODE_2], "{foreign}");
            assert_eq!(node.look("ip route show 10.244.1.0/24").lines().count(), 1, "{foreign}");
            settled(&node);
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, &format!("adopt and rollback of {foreign}"));
            node.sh("ip route del 10.244.1.0/24");
        }
    });
}

/// A route with a nexthop object also shows its gateway, but only the object's ID is written back to the kernel.
#[test]
fn a_route_with_a_nexthop_object_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip nexthop add id 5 via 172.30.0.1 dev eth0
                 ip route add 10.244.1.0/24 nhid 5 proto bird");
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "adopt and rollback");
    });
}

/// Blackhole routes are routes, too.
#[test]
fn blackhole_routes_are_adopted_and_restored() {
    each(|privilege| {
        let node = node(privilege);
        for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
            node.sh(&format!("ip route add {kind} 10.244.1.0/24"));
            let before = node.witness();
            node.hostgw(&["apply", "--yes"]).expect(10);
            node.hostgw_ok(&["apply", "--yes", "--adopt"]);
            settled(&node);
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, kind);
            node.sh(&format!("ip route del {kind} 10.244.1.0/24"));
        }
    });
}

/// With two routes at one key, the first one is in effect.
#[test]
fn adopt_and_rollback_keep_the_order_of_appended_routes() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.5
                 ip route append 10.244.1.0/24 via 172.30.0.4 proto static");
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        assert_eq!(node.look("ip route show 10.244.1.0/24").lines().count(), 1);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "adopt and rollback");
    });
}

/// A route with another metric has another key: it is not a conflict, but a warning if it wins.
#[test]
fn a_foreign_route_with_another_metric_stays() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 metric 5");
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(node.look("ip route show 10.244.1.0/24").lines().count(), 2);
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "apply and destroy");
    });
}

/// The rollback does not overwrite a route that another program created in place of an adopted one.
#[test]
fn a_rollback_does_not_overwrite_a_foreign_route() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 dev eth0 proto static");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.7 dev eth0 proto bird");
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("conflict-rollback", &node.hostgw(&["rollback", "--yes"]).expect(10));
        node.assert_unchanged(&live, "a refused rollback");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.7 dev eth0 proto bird");
        node.hostgw_ok(&["rollback", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.9 dev eth0 proto bird");
        snapshots.compare(
            "conflict-rollback-abandon",
            &node.hostgw(&["rollback", "--yes", "--abandon"]).expect(0),
        );
        let route = node.look("ip route show 10.244.1.0/24");
        assert_eq!(route.trim_end(), "10.244.1.0/24 via 172.30.0.9 dev eth0 proto bird");
        assert!(node.managed_routes().is_empty());
        snapshots.conclude();
    });
}

/// The last apply shows that the replaced route was a managed one.
#[test]
fn a_conflict_names_the_managed_route_that_was_replaced() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.9 dev eth0 proto static");
        let words = "10.244.1.0/24 via 172.30.0.9 dev eth0 proto static replaced the managed route \
                     10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        node.hostgw(&["apply", "--yes"]).expect(10).warns(words);
        let side = "foreign; it replaced the managed route 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        node.hostgw(&["plan"]).expect(10).says(side);
        node.hostgw(&["status"]).expect(0).says(side);
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        let route = node.look("ip route show 10.244.1.0/24");
        assert_eq!(route.trim_end(), "10.244.1.0/24 via 172.30.0.9 dev eth0 proto static");
    });
}

/// Foreign routes at the keys of managed ones, before and after them, existed all the time.
#[test]
fn the_rollback_of_a_removal_keeps_existing_foreign_routes() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route append 10.244.1.0/24 via 172.30.0.9 dev eth0 proto static
                 ip route add 10.244.7.0/24 via 172.30.0.9 dev eth0 proto static
                 ip route append 10.244.7.0/24 via 172.30.0.8 dev eth0 proto 87");
        let before = node.witness();
        for removal in [&["destroy", "--yes"][..], &["apply", "--yes"]] {
            node.hostgw_ok(removal);
            let routes = node.look("ip route show 10.244.7.0/24");
            assert_eq!(routes.trim_end(), "10.244.7.0/24 via 172.30.0.9 dev eth0 proto static");
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, "a removal and its rollback");
        }
    });
}
