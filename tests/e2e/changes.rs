//! Changes of the file: what goes is removed, what moves is replaced without a gap, and the way back leads
//! to where it began.

use super::{NODE_1, NODE_2, NODE_3, ON_LINK, TO_NODE_2, apply, cluster, node, settled};
use crate::support::namespace::{Namespace, Snapshots, each};

/// Removing a route from the file did not remove it: openshift-docs #32255.
#[test]
fn a_node_that_left_the_file_loses_its_route() {
    each(|privilege| {
        let node = node(privilege);
        apply(&node, &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        let mut snapshots = Snapshots::default();
        snapshots.compare("node-removed", &node.hostgw(&["apply", "--yes"]));
        assert_eq!(node.own_routes(), [ON_LINK, TO_NODE_2]);
        settled(&node);
        snapshots.conclude();
    });
}

/// cilium #28137, antrea #6965: the pods of a dead node come up on another one, and their packets must not
/// find a time without a route.
#[test]
fn a_pod_cidr_that_moves_is_replaced_without_a_gap() {
    each(|privilege| {
        let node = node(privilege);
        let address = "nextHop: node-address";
        apply(&node, &cluster(address, &[NODE_1, NODE_2, NODE_3]));
        let moved = [NODE_1, ("linux-2", "10.244.7.0/24", "172.30.0.12"), ("linux-3", NODE_2.1, NODE_3.2)];
        node.write("hostgw.yaml", &cluster(address, &moved));
        let announced = node.listen();
        let mut snapshots = Snapshots::default();
        snapshots.compare("pod-cidr-moved", &node.hostgw(&["apply", "--yes"]));
        let heard = announced.end();
        assert_no_gap(&heard, "10.244.1.0/24");
        assert_eq!(
            node.own_routes(),
            ["10.244.1.0/24 via 172.30.0.13 dev eth0", "10.244.7.0/24 via 172.30.0.12 dev eth0"]
        );
        settled(&node);
        snapshots.conclude();
    });
}

/// The on-link route is what makes pod gateways reachable: it comes first and goes last.
#[test]
fn the_on_link_route_comes_first_and_goes_last() {
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
        for heard in [addresses, back] {
            assert_no_gap(&heard, "10.244.1.0/24");
            assert_no_gap(&heard, "10.244.2.0/24");
            assert_eq!(heard.iter().filter(|line| line.contains("10.244.0.0/16")).count(), 1, "{heard:#?}");
        }
    });
}

/// That another route of `destination`, which had one before, came before that went.
#[track_caller]
fn assert_no_gap(heard: &[String], destination: &str) {
    let mut standing = 1;
    let mut changes = 0;
    for line in heard.iter().filter(|line| line.contains(destination)) {
        changes += 1;
        standing += if line.contains("Deleted") { -1 } else { 1 };
        assert!(standing > 0, "no route to {destination} for a moment: {heard:#?}");
    }
    assert!(changes > 0, "{destination} did not change: {heard:#?}");
    assert_eq!(standing, 1, "{destination}: {heard:#?}");
}

/// A head of a configuration, and what witnesses find once it is applied.
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
fn every_option_comes_and_goes() {
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
fn every_option_gives_way_to_the_next() {
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
fn a_sysctl_that_left_the_file_goes_back() {
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

/// The switch of all interfaces rewrites each one's; the file has the last word on its own keys only.
#[test]
fn an_interface_that_shall_not_forward() {
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
