//! A foreign route where hostgw needs the place: shown, refused, and taken over only when asked.

use super::{ON_LINK, assert_no_record, node, settled};
use crate::support::namespace::{Snapshots, each};

/// Routes of others on the key of linux-2's pods, with what `ip` calls the attributes that hostgw has no
/// words for.
const FOREIGN: [&str; 9] = [
    "via 172.30.0.1 proto static",
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
fn what_adopt_takes_over_a_rollback_gives_back() {
    each(|privilege| {
        let node = node(privilege);
        for foreign in FOREIGN {
            node.sh(&format!("ip route add 10.244.1.0/24 {foreign}"));
            let before = node.witness();
            node.hostgw(&["apply", "--yes"]).expect(10);
            node.assert_unchanged(&before, foreign);
            node.hostgw_ok(&["apply", "--yes", "--adopt"]);
            assert_eq!(node.own_routes()[..2], [ON_LINK, super::TO_NODE_2], "{foreign}");
            assert_eq!(node.run(["ip", "route", "show", "10.244.1.0/24"]).lines().count(), 1, "{foreign}");
            settled(&node);
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, &format!("adopt and rollback of {foreign}"));
            node.sh("ip route del 10.244.1.0/24");
        }
    });
}

/// A route by a nexthop object shows its gateway too; only the object's number goes back to the kernel.
#[test]
fn a_route_by_a_nexthop_object_is_given_back() {
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

/// Routes that lead nowhere are routes too.
#[test]
fn blackholes_are_taken_over_and_given_back() {
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

/// Two routes on one key; the first is in force.
#[test]
fn adopt_and_rollback_keep_the_order_of_appended_routes() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.5
                 ip route append 10.244.1.0/24 via 172.30.0.4 proto static");
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        assert_eq!(node.run(["ip", "route", "show", "10.244.1.0/24"]).lines().count(), 1);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "adopt and rollback");
    });
}

/// Another metric is another key: no conflict, but a warning when it wins.
#[test]
fn a_foreign_route_on_another_metric_stays() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 metric 5");
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(node.run(["ip", "route", "show", "10.244.1.0/24"]).lines().count(), 2);
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "apply and destroy");
    });
}

/// A route that somebody put where an adopted one had stood is not overwritten by the rollback.
#[test]
fn a_rollback_does_not_overwrite_a_route_of_others() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 dev eth0 proto static");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.7 dev eth0 proto bird");
        let standing = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("conflict-rollback", &node.hostgw(&["rollback", "--yes"]).expect(10));
        node.assert_unchanged(&standing, "a refused rollback");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.7 dev eth0 proto bird");
        node.hostgw_ok(&["rollback", "--yes", "--adopt"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.9 dev eth0 proto bird");
        snapshots.compare(
            "conflict-rollback-abandon",
            &node.hostgw(&["rollback", "--yes", "--abandon"]).expect(0),
        );
        let route = node.run(["ip", "route", "show", "10.244.1.0/24"]);
        assert_eq!(route.trim_end(), "10.244.1.0/24 via 172.30.0.9 dev eth0 proto bird");
        assert!(node.own_routes().is_empty());
        snapshots.conclude();
    });
}

/// What the route of hostgw's that somebody replaced was is known from the last apply.
#[test]
fn a_conflict_says_that_the_route_was_hostgw_s() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.9 dev eth0 proto static");
        let words = "10.244.1.0/24 via 172.30.0.9 dev eth0 proto static replaced the route added by hostgw: \
                     10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        node.hostgw(&["apply", "--yes"]).expect(10).warns(words);
        let side = "replaced hostgw's route 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        node.hostgw(&["plan"]).expect(10).says(side);
        node.hostgw(&["status"]).expect(0).says(side);
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        let route = node.run(["ip", "route", "show", "10.244.1.0/24"]);
        assert_eq!(route.trim_end(), "10.244.1.0/24 via 172.30.0.9 dev eth0 proto static");
    });
}

/// Foreign routes on the keys of hostgw's, before them and behind them, that were there all the time.
#[test]
fn a_rollback_of_a_removal_leaves_the_foreign_routes_that_were_there() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route append 10.244.1.0/24 via 172.30.0.9 dev eth0 proto static
                 ip route add 10.244.7.0/24 via 172.30.0.9 dev eth0 proto static
                 ip route append 10.244.7.0/24 via 172.30.0.8 dev eth0 proto 87");
        let before = node.witness();
        for removal in [&["destroy", "--yes"][..], &["apply", "--yes"]] {
            node.hostgw_ok(removal);
            let routes = node.sh("ip route show 10.244.7.0/24");
            assert_eq!(routes.trim_end(), "10.244.7.0/24 via 172.30.0.9 dev eth0 proto static");
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, "a removal and its rollback");
        }
    });
}
