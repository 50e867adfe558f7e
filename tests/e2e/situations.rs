//! Clusters that people have: what the configuration can describe, and that it works with real packets.

use super::{node, settled, simulate::small};
use crate::support::namespace::{Namespace, Privilege, SimulatedCluster, each};

/// Two nodes with pods and a machine without.
fn with_bastion(next_hop: &str) -> String {
    format!(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: {next_hop}
nodes:
  - {{name: linux-1, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}}
  - {{name: bastion, os: linux, podCIDR: none, address: [172.30.0.12, '2001:db8::12']}}
  - {{name: linux-2, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.13, '2001:db8::13']}}
"
    )
}

/// A machine without pods reaches all pods. It neither forwards nor masquerades, and nobody has a route to it.
fn machine_without_pods(privilege: Privilege, next_hop: &str, pods: &[&str]) {
    let _turn = small();
    let cluster = SimulatedCluster::new(privilege, &with_bastion(next_hop));
    let bastion = "node bastion";
    for pod in pods {
        cluster.sh(bastion, &format!("ping -n -q -c 2 -i 0.05 -W 5 {pod}"));
    }
    assert_eq!(
        cluster.sh(bastion, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"),
        "0\n0\n"
    );
    assert_eq!(cluster.sh(bastion, "nft list tables | grep -c hostgw || true"), "0\n");
    let routes = |place: &str| cluster.sh(place, "ip route show proto 87; ip -6 route show proto 87");
    let is_to_node = |line: &&str| line.contains(" via ");
    assert_eq!(routes(bastion).lines().filter(is_to_node).count(), 4, "{}", routes(bastion));
    for node in ["node linux-1", "node linux-2"] {
        assert_eq!(routes(node).lines().filter(is_to_node).count(), 2, "{}", routes(node));
    }
    let no_changes = cluster.sh(bastion, "\"$HOSTGW\" plan --node bastion");
    assert!(no_changes.contains("No changes."), "{no_changes}");
    let explained = cluster.sh(bastion, &format!("\"$HOSTGW\" explain --node bastion {}", pods[0]));
    assert!(
        explained.contains("pods of node linux-1") && explained.contains("outcome    sent"),
        "{explained}"
    );
    // With IPv6, pod gateways do not answer.
    let (code, verdict) = match next_hop {
        "pod-gateway" => (11, "warning[HG0802]"),
        _ => (0, "Node bastion: no findings."),
    };
    cluster.try_sh(bastion, "\"$HOSTGW\" doctor --node bastion").expect(code).says(verdict);
    let outcome =
        cluster.try_sh(bastion, "echo '{}' >cni.conf; \"$HOSTGW\" check-cni --node bastion cni.conf");
    outcome.expect(3).warns("node bastion has no pods (podCIDR: none)");
    cluster.sh(bastion, "\"$HOSTGW\" destroy --yes");
    assert_eq!(routes(bastion), "");
}

#[test]
fn a_machine_without_pods_reaches_all_pods_by_pod_gateways() {
    each(|privilege| machine_without_pods(privilege, "pod-gateway", &["10.244.0.10", "10.244.1.10"]));
}

#[test]
fn a_machine_without_pods_reaches_all_pods_by_node_addresses() {
    let pods = ["10.244.0.10", "10.244.1.10", "fd00:244:0:1::a", "fd00:244:0:2::a"];
    each(|privilege| machine_without_pods(privilege, "node-address", &pods));
}

/// Returns the managed routes to the pods of other nodes, as `ip` prints them.
fn routes_to_pods(cluster: &SimulatedCluster, place: &str) -> Vec<String> {
    let routes = cluster.sh(place, "ip route show proto 87; ip -6 route show proto 87");
    routes.lines().filter(|line| line.contains(" via ")).map(|line| line.trim().to_owned()).collect()
}

#[track_caller]
fn ping(cluster: &SimulatedCluster, from: &str, to: &str) {
    cluster.sh(from, &format!("ping -n -q -c 2 -i 0.05 -W 5 {to}"));
}

/// The nodes do not see each other, and a router knows the pods of all, as in some clouds.
#[test]
fn a_router_is_the_next_hop_to_all_pods() {
    let configuration = "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
nextHop: [172.30.0.254, '2001:db8::fe']
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}
  - {name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, '2001:db8::12']}
  - {name: bastion, os: linux, podCIDR: none, address: [172.30.0.13, '2001:db8::13']}
";
    each(|privilege| {
        let _turn = small();
        let cluster = SimulatedCluster::new(privilege, configuration);
        let routes = routes_to_pods(&cluster, "node a");
        assert_eq!(routes.len(), 2, "{routes:?}");
        assert!(routes[0].starts_with("10.244.1.0/24 via 172.30.0.254 dev eth0"), "{routes:?}");
        assert!(routes[1].starts_with("fd00:244:0:2::/64 via 2001:db8::fe dev eth0"), "{routes:?}");
        assert!(
            !cluster.sh("node a", "ip route show 10.244.0.0/16").contains("10.244.0.0/16"),
            "no on-link route"
        );
        // Nodes never ask for each other.
        cluster.sh("node a", "ip neigh add 172.30.0.12 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
        for pod in ["10.244.1.10", "fd00:244:0:2::a"] {
            ping(&cluster, "pod of a", pod);
            ping(&cluster, "node bastion", pod);
        }
        let machine = cluster.machine();
        machine.hostgw(&["simulate"]).expect(0).says("the router was given routes to the pods");
        let plan = cluster.sh("node a", "\"$HOSTGW\" plan --node a");
        assert!(plan.contains("No changes."), "{plan}");
        cluster.try_sh("node a", "\"$HOSTGW\" doctor --node a").expect(0);
    });
}

/// One node is elsewhere, behind a router that knows its pods; the others are on one link.
#[test]
fn a_router_is_the_next_hop_to_one_node() {
    let configuration = "clusterPrefix: 10.244.0.0/16
nodes:
  - {name: a, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}
  - {name: b, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.12}
  - {name: edge, os: linux, podCIDR: 10.244.2.0/24, address: 172.31.0.13, nextHop: 172.30.0.254}
";
    each(|privilege| {
        let _turn = small();
        let machine = Namespace::new(privilege);
        machine.write("hostgw.yaml", configuration);
        // The edge node cannot reach the pod gateways of the others, and says so by losing packets.
        let outcome = machine.hostgw(&["simulate"]).expect(1);
        outcome.says("pod of edge -> pod of a");
        let fixed = configuration.replace("nodes:", "offLink: gateway\nnodes:");
        machine.write("hostgw.yaml", &fixed);
        machine.hostgw(&["simulate"]).expect(0);
        let cluster = SimulatedCluster::new(privilege, &fixed);
        assert_eq!(
            routes_to_pods(&cluster, "node a"),
            ["10.244.1.0/24 via 10.244.1.1 dev eth0", "10.244.2.0/24 via 172.30.0.254 dev eth0"]
        );
        ping(&cluster, "pod of edge", "10.244.0.10");
        ping(&cluster, "pod of b", "10.244.2.10");
    });
}

/// Two nodes in one network and one in another, with what happens to next hops on other links.
fn apart(next_hop: &str, off_link: &str) -> String {
    format!(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
nextHop: {next_hop}
offLink: {off_link}
nodes:
  - {{name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8:0:1::11']}}
  - {{name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, '2001:db8:0:1::12']}}
  - {{name: far, os: linux, podCIDR: [10.244.2.0/24, 'fd00:244:0:3::/64'], address: [172.31.0.13, '2001:db8:0:2::13']}}
"
    )
}

#[test]
fn nodes_in_other_networks_are_reached_through_the_gateway() {
    each(|privilege| {
        for (next_hop, families) in [("node-address", 2), ("pod-gateway", 1)] {
            let _turn = small();
            let cluster = SimulatedCluster::new(privilege, &apart(next_hop, "gateway"));
            let gateway = cluster.sh("node a", "ip route show default | cut -d' ' -f3");
            let to_far = cluster.sh("node a", "ip route show 10.244.2.0/24 proto 87");
            assert_eq!(to_far.trim(), format!("10.244.2.0/24 via {} dev eth0", gateway.trim()));
            ping(&cluster, "pod of a", "10.244.2.10");
            ping(&cluster, "pod of far", "10.244.1.10");
            ping(&cluster, "pod of a", "10.244.1.10");
            if families == 2 {
                ping(&cluster, "pod of a", "fd00:244:0:3::a");
                ping(&cluster, "pod of far", "fd00:244:0:2::a");
            }
            for command in ["plan --node a --detailed-exitcode", "status --detailed-exitcode"] {
                cluster.try_sh("node a", &format!("\"$HOSTGW\" {command}")).expect(0);
            }
            // The record knows the adapted routes, and a plan from a snapshot adapts them, too.
            cluster.sh("node a", "ip route del 10.244.2.0/24");
            cluster.try_sh("node a", "\"$HOSTGW\" plan --node a").expect(0).says("drift: pods of node far");
            let from_snapshot =
                "\"$HOSTGW\" snapshot >state.json; \"$HOSTGW\" plan --node a --state state.json";
            let live = cluster.sh("node a", "\"$HOSTGW\" plan --node a");
            assert_eq!(cluster.sh("node a", from_snapshot), live);
            // A saved plan is stale once the gateway has changed.
            cluster.sh(
                "node a",
                "\"$HOSTGW\" plan --node a --out a.plan >/dev/null; ip route change default via 172.30.0.99",
            );
            cluster.try_sh("node a", "\"$HOSTGW\" apply --yes a.plan").expect(5);
            cluster.try_sh("node a", "\"$HOSTGW\" plan --node a").expect(0).says("via 172.30.0.99");
        }
    });
}

#[test]
fn nodes_in_other_networks_are_skipped_and_counted() {
    each(|privilege| {
        for next_hop in ["node-address", "pod-gateway"] {
            let _turn = small();
            let cluster = SimulatedCluster::new(privilege, &apart(next_hop, "skip"));
            let routes = cluster.sh("node a", "ip route show proto 87; ip -6 route show proto 87");
            assert!(routes.contains("10.244.1.0/24 via") && !routes.contains("10.244.2.0/24"), "{routes}");
            assert!(
                routes.contains("fd00:244:0:2::/64 via") && !routes.contains("fd00:244:0:3::/64"),
                "{routes}"
            );
            ping(&cluster, "pod of a", "10.244.1.10");
            let skipped = "no route to 1 of 2 other nodes (offLink: skip); not on this node's link: far";
            cluster.try_sh("node a", "\"$HOSTGW\" plan --node a --detailed-exitcode").expect(0).says(skipped);
            // What else carries the packets is not hostgw's.
            cluster.sh("node a", "ip route add 10.244.2.0/24 via 172.30.0.12");
            cluster.try_sh("node a", "\"$HOSTGW\" plan --node a --detailed-exitcode").expect(0);
            cluster.try_sh("node a", "\"$HOSTGW\" status --detailed-exitcode").expect(0);
            // With IPv6, pod gateways do not answer.
            if next_hop == "node-address" {
                cluster.machine().hostgw(&["simulate"]).expect(0);
            }
        }
    });
}

/// On some links a node answers although its address is in another network.
#[test]
fn nodes_in_other_networks_are_reached_on_the_link() {
    let _turn = small();
    each(|privilege| {
        let node = node(privilege);
        node.write(
            "hostgw.yaml",
            &apart("node-address", "onlink").replace(", '2001:db8:0:1::11'", ", 'fd00:30::11'"),
        );
        node.sh("ip address add fd00:30::11/64 dev eth0 nodad");
        node.await_ipv6_addresses();
        node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
        let routes = node.sh("ip route show proto 87; ip -6 route show proto 87");
        assert!(routes.contains("10.244.2.0/24 via 172.31.0.13 dev eth0 onlink"), "{routes}");
        assert!(routes.contains("10.244.1.0/24 via 172.30.0.12 dev eth0 \n"), "{routes}");
        assert!(
            routes.contains("fd00:244:0:3::/64 via 2001:db8:0:2::13 dev eth0 metric 1024 onlink"),
            "{routes}"
        );
        node.hostgw(&["plan", "--node", "a", "--detailed-exitcode"]).expect(0).says("No changes.");
        node.sh("ip route del 10.244.2.0/24");
        node.hostgw(&["plan", "--node", "a"]).expect(0).says("+ 10.244.2.0/24");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.write("hostgw.yaml", &apart("node-address", "refuse"));
        let refused = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(3);
        refused
            .warns("next hop 172.31.0.13 of node far is not on-link on eth0")
            .warns("set offLink to gateway, skip or onlink");
    });
}

/// Packets for addresses that no node has do not follow the default route.
#[test]
fn unassigned_addresses_are_unreachable() {
    let configuration = |unassigned: &str, next_hop: &str| {
        format!(
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
nextHop: {next_hop}
routes: {{unassigned: {unassigned}, mtu: 1400, metric: 50}}
nodes:
  - {{name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, 'fd00:30::11']}}
  - {{name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, 'fd00:30::12']}}
"
        )
    };
    each(|privilege| {
        for next_hop in ["node-address", "pod-gateway"] {
            let node = node(privilege);
            node.sh("ip address add fd00:30::11/64 dev eth0 nodad; ip route add default via 172.30.0.1");
            node.await_ipv6_addresses();
            let before = node.witness();
            node.write("hostgw.yaml", &configuration("unreachable", next_hop));
            node.hostgw_ok(&["apply", "--yes"]);
            settled(&node);
            let routes =
                node.sh("ip route show type unreachable; ip -6 route show type unreachable proto 87");
            let expected = [
                "unreachable 10.244.0.0/16 proto 87 metric 4294967295",
                "unreachable fd00:244::/48 dev lo metric 4294967295",
            ];
            assert!(expected.iter().all(|line| routes.contains(line)), "{routes}");
            // With pod gateways, the on-link route takes precedence.
            let looked_up = node.try_sh("ip route get 10.244.77.7; ip route get fd00:244:0:77::7");
            assert_eq!(looked_up.code == 0, next_hop == "pod-gateway", "{looked_up}");
            let after = node.witness();
            node.hostgw(&["status", "--detailed-exitcode"]).expect(0);
            node.sh("ip route del unreachable 10.244.0.0/16");
            let repaired = node.hostgw(&["plan"]).expect(0);
            repaired
                .says("+ unreachable 10.244.0.0/16")
                .says("drift: addresses in the cluster prefix that no node has");
            node.hostgw_ok(&["apply", "--yes"]);
            node.assert_unchanged(&after, "a repair");
            node.hostgw_ok(&["destroy", "--yes"]);
            node.assert_unchanged(&before, "destroy");
            node.write("node.sh", &node.hostgw_ok(&["render", "--node", "a"]).stdout);
            node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh").expect(0);
            node.assert_unchanged(&after, "the script");
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
            node.write("old.yaml", &configuration("leave", next_hop));
            let diff = node.hostgw_ok(&["diff", "old.yaml", "hostgw.yaml"]);
            diff.says("+ unreachable 10.244.0.0/16").says("# routes.unassigned changed, hostgw.yaml:3");
            node.write("hostgw.yaml", &configuration("leave", next_hop));
            node.hostgw(&["plan"]).expect(0).says("- unreachable 10.244.0.0/16");
            node.hostgw_ok(&["apply", "--yes"]);
            settled(&node);
        }
    });
}
