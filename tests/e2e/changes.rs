//! Changes of the configuration: removed objects are deleted, moved ones are replaced without a gap, and rollbacks
//! restore the initial state.

use super::{NODE_1, NODE_2, NODE_3, ON_LINK, TO_NODE_2, apply, cluster, node, settled};
use crate::support::namespace::{Namespace, Snapshots, each};

/// See openshift-docs #32255: removing a route from the file did not remove it from the node.
#[test]
fn the_route_to_a_removed_node_is_removed() {
    each(|privilege| {
        let node = node(privilege);
        apply(&node, &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        let mut snapshots = Snapshots::default();
        snapshots.compare("node-removed", &node.hostgw(&["apply", "--yes"]));
        assert_eq!(node.managed_routes(), [ON_LINK, TO_NODE_2]);
        settled(&node);
        snapshots.conclude();
    });
}

/// See cilium #28137 and antrea #6965: when the pods of a dead node start on another one, their packets must always
/// find a route.
#[test]
fn a_moved_pod_cidr_always_has_a_route() {
    each(|privilege| {
        let node = node(privilege);
        let address = "nextHop: node-address";
        apply(&node, &cluster(address, &[NODE_1, NODE_2, NODE_3]));
        let moved = [NODE_1, ("linux-2", "10.244.7.0/24", "172.30.0.12"), ("linux-3", NODE_2.1, NODE_3.2)];
        node.write("hostgw.yaml", &cluster(address, &moved));
        let announced = node.listen();
        let mut snapshots = Snapshots::default();
        snapshots.compare("pod-cidr-moved", &node.hostgw(&["apply", "--yes"]));
        let events = announced.end();
        assert_no_gap(&events, "10.244.1.0/24");
        assert_eq!(
            node.managed_routes(),
            ["10.244.1.0/24 via 172.30.0.13 dev eth0", "10.244.7.0/24 via 172.30.0.12 dev eth0"]
        );
        settled(&node);
        snapshots.conclude();
    });
}

/// Pod gateways are reachable through the on-link route, so it is added first and removed last.
#[test]
fn the_on_link_route_is_added_first_and_removed_last() {
    each(|privilege| {
        let node = node(privilege);
        let order = |node: &Namespace, head: &str| {
            node.write("hostgw.yaml", &cluster(head, &[NODE_1, NODE_2, NODE_3]));
            let announced = node.listen();
            node.hostgw_ok(&["apply", "--yes"]);
            settled(node);
            let routes = |line: &String| line.contains("10.244.") && line.contains("proto 87");
            announced.end().into_iter().filter(routes).collect::<Vec<_>>()
        };
        let pod_gateways = order(&node, "");
        assert!(
            pod_gateways.first().is_some_and(|first| first.contains("10.244.0.0/16")),
            "{pod_gateways:#?}"
        );
        let addresses = order(&node, "nextHop: node-address");
        let last = addresses.last().expect("announcements");
        assert!(last.contains("Deleted") && last.contains("10.244.0.0/16"), "{addresses:#?}");
        let back = order(&node, "");
        assert!(back.first().is_some_and(|first| first.contains("10.244.0.0/16")), "{back:#?}");
        for events in [addresses, back] {
            assert_no_gap(&events, "10.244.1.0/24");
            assert_no_gap(&events, "10.244.2.0/24");
            assert_eq!(events.iter().filter(|line| line.contains("10.244.0.0/16")).count(), 1, "{events:#?}");
        }
    });
}

/// Asserts that `destination`, which had a route before, always had one.
#[track_caller]
fn assert_no_gap(events: &[String], destination: &str) {
    let mut count = 1;
    let mut changes = 0;
    for line in events.iter().filter(|line| line.contains(destination)) {
        changes += 1;
        count += if line.contains("Deleted") { -1 } else { 1 };
        assert!(count > 0, "no route to {destination} for a moment: {events:#?}");
    }
    assert!(changes > 0, "{destination} did not change: {events:#?}");
    assert_eq!(count, 1, "{destination}: {events:#?}");
}

/// The head of a configuration, and what a command prints once it is applied.
const HEADS: [(&str, &str, &str); 9] = [
    ("nat:\n  masquerade: false", "nft list tables", ""),
    ("nat:\n  exclude: [192.168.0.0/16, 172.30.0.0/24]", "nft list table ip hostgw", "192.168.0.0/16"),
    ("nat:\n  source: pods", "nft list table ip hostgw", "ip saddr 10.244.0.0/24"),
    ("nat:\n  randomFully: true", "nft list table ip hostgw", "masquerade fully-random"),
    ("routes:\n  table: 100", "ip route show table 100 proto 87", "10.244.1.0/24 via 10.244.1.1 dev eth0"),
    ("routes:\n  metric: 77", "ip route show proto 87", "metric 77"),
    ("routes:\n  mtu: 1400", "ip route show proto 87", "mtu 1400"),
    ("sysctls:\n  net.ipv4.conf.eth0.rp_filter: 2", "sysctl net.ipv4.conf.eth0.rp_filter", "= 2"),
    (
        "sysctls:\n  net.ipv4.ip_local_port_range: 20000 50000",
        "sysctl net.ipv4.ip_local_port_range",
        "= 20000\t50000",
    ),
];

#[test]
fn every_option_is_applied_and_removed() {
    each(|privilege| {
        let node = node(privilege);
        let nodes = [NODE_1, NODE_2];
        let untouched = node.witness();
        apply(&node, &cluster("", &nodes));
        let plain = node.witness();
        for (head, look, expected) in HEADS {
            apply(&node, &cluster(head, &nodes));
            let seen = node.sh(look);
            assert!(seen.contains(expected), "{head}: no {expected:?} in {seen}");
            assert!(!expected.is_empty() || seen.is_empty(), "{head}: {seen}");
            apply(&node, &cluster("", &nodes));
            node.assert_unchanged(&plain, &format!("the way back from {head}"));
        }
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&untouched, "destroy");
    });
}

#[test]
fn every_option_is_replaced_by_the_next() {
    each(|privilege| {
        let node = node(privilege);
        let untouched = node.witness();
        for (head, look, expected) in HEADS {
            apply(&node, &cluster(head, &[NODE_1, NODE_2]));
            let seen = node.sh(look);
            assert!(seen.contains(expected), "{head}: no {expected:?} in {seen}");
        }
        for _ in HEADS {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        node.assert_unchanged(&untouched, "as many rollbacks as applies");
    });
}

#[test]
fn a_removed_sysctl_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter");
        apply(&node, &cluster("sysctls:\n  net.ipv4.conf.eth0.rp_filter: 2", &[NODE_1, NODE_2]));
        apply(&node, &cluster("sysctls:\n  net.ipv4.conf.eth0.rp_filter: 0", &[NODE_1, NODE_2]));
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        let mut snapshots = Snapshots::default();
        snapshots.compare("sysctl-released", &node.hostgw(&["apply", "--yes"]));
        assert_eq!(node.sysctl("net.ipv4.conf.eth0.rp_filter"), "1");
        settled(&node);
        snapshots.conclude();
    });
}

/// The switch rewrites the forwarding of all interfaces; the configuration overrides only its own keys.
#[test]
fn forwarding_can_be_disabled_on_one_interface() {
    each(|privilege| {
        let node = node(privilege);
        let untouched = node.witness();
        let nodes = [NODE_1, NODE_2];
        apply(&node, &cluster("sysctls:\n  net.ipv4.conf.lan0.forwarding: 0", &nodes));
        assert_eq!(node.sysctl("net.ipv4.conf.lan0.forwarding"), "0");
        assert_eq!(node.sysctl("net.ipv4.conf.eth0.forwarding"), "1");
        apply(&node, &cluster("", &nodes));
        assert_eq!(node.sysctl("net.ipv4.conf.lan0.forwarding"), "1", "as without that line from the start");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&untouched, "destroy");
    });
}
