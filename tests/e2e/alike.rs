//! Applies that add many routes: before the commit, hostgw asks the kernel about one of the nodes that have no route yet, and
//! about each node that the kernel treats differently.

use super::{large_cluster, node, settled};
use crate::support::namespace::{Namespace, Privilege, each};

/// The number of nodes. hostgw asks about all of them if an apply adds fewer than 256 routes.
const NODES: usize = 300;

/// The machine linux-0 of a large cluster, with the bridge of its pods.
fn node_with_pods(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("ip link add cni0 type bridge; ip address add 10.64.0.1/24 dev cni0; ip link set cni0 up");
    node
}

/// A configuration with this number of nodes, the first of which is the machine.
fn cluster(head: &str, nodes: usize) -> String {
    let text = large_cluster(nodes).replacen("name: linux-0,", "name: linux-0, address: 172.30.0.11,", 1);
    format!("{head}\n{text}")
}

/// The kernel's answer to a packet from the node's own pod to a pod of another node.
fn asked(node: &Namespace, address: &str) -> String {
    node.sh(&format!("ip route get {address} from 10.64.0.10 iif cni0 2>&1 || true"))
}

/// The default route leads to the router of all pods, so all packets take their planned paths even before the apply, except
/// those to two nodes. The apply loses nothing.
#[test]
fn a_path_that_was_lost_before_is_reported_and_kept_lost() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("sysctl -qw net.ipv4.ip_forward=1
                 ip route add default via 172.30.0.1
                 ip rule add to 10.64.7.0/24 blackhole pref 5
                 ip route add unreachable 10.64.9.192/26");
        node.write("hostgw.yaml", &cluster("nextHop: 172.30.0.1", NODES));
        let applied = node.hostgw(&["apply", "--yes"]).expect(0);
        applied.warns(
            "HG0851]: applied, but this node's pods cannot reach pods on node linux-7: the policy rule `5: ",
        );
        applied.warns(
            "HG0852]: applied, but this node's pods cannot reach pods on node linux-9 in 10.64.9.192/26: ",
        );
        assert_eq!(applied.stderr.matches("applied, but").count(), 2, "{applied}");
        assert!(asked(&node, "10.64.7.10").contains("Invalid argument"), "{}", asked(&node, "10.64.7.10"));
        assert!(asked(&node, "10.64.9.200").contains("No route to host"), "{}", asked(&node, "10.64.9.200"));
        for address in ["10.64.1.10", "10.64.9.10", "10.65.43.10"] {
            assert!(asked(&node, address).contains("via 172.30.0.1"), "{}", asked(&node, address));
        }
        settled(&node);
    });
}

/// Nine nodes have routes, and the apply moves these to another table, which a foreign rule hides from the packets to one
/// of them. All other nodes had no path yet.
#[test]
fn an_apply_that_loses_one_path_of_many_is_rolled_back() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.write("hostgw.yaml", &cluster("", 10));
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip rule add to 10.64.0.0/10 lookup 101 pref 1000
                 ip route add 10.64.0.0/24 dev cni0 table 101
                 ip rule add to 10.64.7.0/24 lookup main pref 899
                 ip rule add to 10.64.7.0/24 lookup 102 pref 900
                 ip route add unreachable 10.64.7.0/24 table 102");
        let before = node.witness();
        assert!(asked(&node, "10.64.7.10").contains("via 10.64.7.1"), "{}", asked(&node, "10.64.7.10"));
        node.write("hostgw.yaml", &cluster("routes: {table: 101}", NODES));
        let lost = node.hostgw(&["apply", "--yes", "--allow-removals", "10"]).expect(6);
        lost.warns("error: the change caused pod traffic to be lost or diverted:\n");
        lost.warns("this node's pods cannot reach pods on node linux-7: the policy rule `900: ");
        lost.warns("Rolled back and verified");
        assert_eq!(lost.stderr.matches("cannot reach").count(), 1, "{lost}");
        node.assert_unchanged(&before, "one lost path of many");
        // Without the rule, the same apply loses nothing.
        node.sh("ip rule del pref 900");
        node.hostgw_ok(&["apply", "--yes", "--allow-removals", "10"]);
        for (address, gateway) in [("10.64.7.10", "10.64.7.1"), ("10.65.43.10", "10.65.43.1")] {
            assert!(asked(&node, address).contains(&format!("via {gateway}")), "{}", asked(&node, address));
        }
        settled(&node);
    });
}
