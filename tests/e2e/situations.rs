//! Clusters that people have: what the configuration can describe, and that it works with real packets.

use std::collections::BTreeSet;

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

/// Two clusters that reach each other, one of which has several address pools.
fn several_prefixes(next_hop: &str, nat: &str) -> String {
    format!(
        "clusterPrefix: [10.244.0.0/16, 10.96.0.0/20, 'fd00:244::/48', 'fd00:245::/48']
egressInterface: eth0
nextHop: {next_hop}
nat: {{source: {nat}}}
nodes:
  - name: a
    os: linux
    podCIDR: [10.244.0.0/24, 10.96.0.0/26, 10.96.0.64/26, 'fd00:244:0:1::/64', 'fd00:245:0:1::/64']
    address: [172.30.0.11, '2001:db8::11']
  - {{name: b, os: linux, podCIDR: [10.96.1.0/26, 'fd00:245:0:2::/64'], address: [172.30.0.12, '2001:db8::12']}}
  - {{name: c, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.13}}
"
    )
}

fn pods_of_several_prefixes(privilege: Privilege, next_hop: &str, nat: &str) {
    let _turn = small();
    let cluster = SimulatedCluster::new(privilege, &several_prefixes(next_hop, nat));
    let routes: BTreeSet<String> =
        routes_to_pods(&cluster, "node c").iter().map(|route| first_word(route).to_owned()).collect();
    let v4 = ["10.244.0.0/24", "10.96.0.0/26", "10.96.0.64/26", "10.96.1.0/26"].map(str::to_owned);
    let v6 = ["fd00:244:0:1::/64", "fd00:245:0:1::/64", "fd00:245:0:2::/64"].map(str::to_owned);
    assert_eq!(routes, v4.into_iter().chain(v6).collect());
    for pod in ["10.244.0.10", "10.96.0.10", "10.96.0.74"] {
        ping(&cluster, "pod of b", pod);
        ping(&cluster, "node c", pod);
        // Each pod CIDR has its own gateway and source.
        cluster.sh("pod of a", &format!("ping -n -q -c 1 -W 5 -I {pod} 10.96.1.10"));
    }
    let rules = cluster.sh("node a", "nft list table ip hostgw");
    let masquerading: Vec<&str> = rules.lines().filter(|line| line.contains("masquerade")).collect();
    assert_eq!(masquerading.len(), if nat == "pods" { 3 } else { 1 }, "{rules}");
    for rule in masquerading {
        assert!(rule.contains("ip daddr != 10.96.0.0/20 ip daddr != 10.244.0.0/16"), "{rule}");
    }
    for name in ["a", "b", "c"] {
        let place = format!("node {name}");
        let plan = cluster.sh(&place, &format!("\"$HOSTGW\" plan --node {name}"));
        assert!(plan.contains("No changes."), "{plan}");
        if next_hop == "node-address" {
            let doctor = format!("\"$HOSTGW\" doctor --node {name}");
            cluster.try_sh(&place, &doctor).expect(0).says("no findings");
        }
    }
    if next_hop == "node-address" {
        cluster.try_sh("node a", "\"$HOSTGW\" rehearse --node a").expect(0);
    }
    let explained = cluster.sh("node c", "\"$HOSTGW\" explain --node c 10.96.0.74");
    assert!(
        explained.contains("pods of node a") && explained.contains("outcome    forwarded"),
        "{explained}"
    );
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[test]
fn pods_of_several_prefixes_reach_each_other_by_pod_gateways() {
    pods_of_several_prefixes(Privilege::Root, "pod-gateway", "pods");
}

#[test]
fn pods_of_several_prefixes_reach_each_other_by_node_addresses() {
    each(|privilege| pods_of_several_prefixes(privilege, "node-address", "any"));
}

/// The packets of all pods arrive with their own addresses, and leave the cluster with the node's.
#[test]
fn several_prefixes_are_simulated() {
    for nat in ["any", "pods"] {
        let _turn = small();
        let machine = Namespace::new(Privilege::Root);
        machine.write("hostgw.yaml", &several_prefixes("node-address", nat));
        machine.hostgw(&["simulate"]).expect(0).says("connections work");
    }
}

/// A node that gets another pod CIDR changes the others by one route, and a rollback takes it away.
#[test]
fn a_second_pod_cidr_is_one_more_route() {
    each(|privilege| {
        let machine = node(privilege);
        let configuration = |cidrs: &str| {
            format!(
                "clusterPrefix: [10.244.0.0/16, 10.96.0.0/20]\negressInterface: eth0\nnodes:\n  \
                 - {{name: linux-1, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}}\n  \
                 - {{name: linux-2, os: linux, podCIDR: {cidrs}, address: 172.30.0.12}}\n"
            )
        };
        machine.write("hostgw.yaml", &configuration("10.244.1.0/24"));
        machine.hostgw(&["apply", "--yes"]).expect(0);
        let before = machine.look("ip route show proto 87");
        assert!(
            before.contains("10.96.0.0/20 dev eth0") && before.contains("10.244.0.0/16 dev eth0"),
            "{before}"
        );
        let several = configuration("[10.244.1.0/24, 10.96.1.0/26]");
        machine.write("hostgw.yaml", &several);
        machine.hostgw(&["plan"]).expect(0).says("Plan: 1 to add, 0 to update, 0 to remove.");
        machine.hostgw(&["apply", "--yes"]).expect(0);
        assert!(machine.look("ip route show proto 87").contains("10.96.1.0/26 via 10.96.1.1 dev eth0"));
        machine.hostgw(&["apply", "--yes"]).expect(0).says("No changes.");
        machine.hostgw(&["rollback", "--yes"]).expect(0);
        assert_eq!(machine.look("ip route show proto 87"), before);
        machine.hostgw(&["destroy", "--yes"]).expect(0);
        let pools = several.replace("podCIDR: 10.244.0.0/24", "podCIDR: [10.244.0.0/24, 10.96.0.0/26]");
        assert_full_circle(&machine, &format!("{pools}nat: {{source: pods}}\n"), "linux-1");
    });
}

/// Applies the configuration, and checks that nothing is left to do, that the script does the same, and that both can be
/// undone. Returns the managed routes, as `ip` prints them.
fn assert_full_circle(node: &Namespace, configuration: &str, name: &str) -> String {
    let before = node.witness();
    node.write("hostgw.yaml", configuration);
    node.hostgw_ok(&["apply", "--yes", "--node", name]);
    node.hostgw(&["plan", "--node", name, "--detailed-exitcode"]).expect(0).says("No changes.");
    node.hostgw(&["status", "--detailed-exitcode"]).expect(0);
    let after = node.witness();
    let routes = node.sh("ip route show proto 87; ip -6 route show proto 87");
    node.hostgw_ok(&["rollback", "--yes"]);
    node.assert_unchanged(&before, "rollback");
    node.write("node.sh", &node.hostgw_ok(&["render", "--node", name]).stdout);
    node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh").expect(0);
    node.assert_unchanged(&after, "the script");
    node.hostgw(&["plan", "--node", name, "--detailed-exitcode"]).expect(0).says("No changes.");
    node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh --undo").expect(0);
    node.assert_unchanged(&before, "the script's undo");
    node.hostgw_ok(&["apply", "--yes", "--node", name]);
    node.assert_unchanged(&after, "another apply");
    routes
}

/// Some nodes take larger packets than others.
#[test]
fn routes_have_the_mtu_of_both_ends() {
    let configuration = "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
nextHop: node-address
routes: {mtu: 1420}
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, 'fd00:30::11'], mtu: 1480}
  - {name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, 'fd00:30::12'], mtu: 1480}
  - {name: c, os: linux, podCIDR: [10.244.2.0/24, 'fd00:244:0:3::/64'], address: [172.30.0.13, 'fd00:30::13']}
";
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip address add fd00:30::11/64 dev eth0 nodad");
        node.await_ipv6_addresses();
        let routes = assert_full_circle(&node, configuration, "a");
        for expected in [
            "10.244.1.0/24 via 172.30.0.12 dev eth0 mtu 1480",
            "10.244.2.0/24 via 172.30.0.13 dev eth0 mtu 1420",
            "fd00:244:0:2::/64 via fd00:30::12 dev eth0 metric 1024 mtu 1480",
            "fd00:244:0:3::/64 via fd00:30::13 dev eth0 metric 1024 mtu 1420",
        ] {
            assert!(routes.contains(expected), "{routes}");
        }
        // The interface drops what is larger than its own MTU, without a word to the sender.
        node.hostgw(&["plan", "--node", "a"]).expect(0).says("No changes.");
        node.sh("ip link set eth0 mtu 1450");
        let warned = node.hostgw(&["plan", "--node", "a"]).expect(0);
        warned
            .says("warning[HG0813]: routes with an MTU of 1480 bytes lead through eth0, whose MTU is 1450")
            .says("help: raise the MTU of eth0, or set the node's mtu to 1450");
        node.sh("ip link set eth0 mtu 1500");
        let plan = node.hostgw(&["plan", "--node", "a"]).expect(0);
        assert!(!plan.to_string().contains("HG0813"), "{plan}");
        // The node's own key changes all its routes; that of another node only the one to it.
        node.write("hostgw.yaml", &configuration.replacen(", mtu: 1480", "", 1));
        let plan = node.hostgw(&["plan", "--node", "a"]).expect(0);
        plan.says("~ 10.244.1.0/24     via 172.30.0.12 dev eth0 proto 87 mtu 1480 -> 1420")
            .says("# node a: nodes[0].mtu changed, hostgw.yaml:5")
            .says("Plan: 0 to add, 2 to update, 0 to remove.");
        node.write(
            "hostgw.yaml",
            &configuration.replace(".13']}", ".13'], mtu: 1400}").replace("::13']}", "::13'], mtu: 1400}"),
        );
        let plan = node.hostgw(&["plan", "--node", "a"]).expect(0);
        plan.says("~ 10.244.2.0/24     via 172.30.0.13 dev eth0 proto 87 mtu 1420 -> 1400")
            .says("# node c: nodes[2].mtu changed, hostgw.yaml:7");
        node.write("hostgw.yaml", configuration);
        node.sh("ip route change 10.244.1.0/24 via 172.30.0.12 dev eth0 proto 87 mtu 1300");
        node.hostgw(&["plan", "--node", "a"]).expect(0).says("# drift: pods of node b");
        node.hostgw_ok(&["destroy", "--yes"]);
        drop(node);

        let _turn = small();
        let cluster = SimulatedCluster::new(privilege, configuration);
        for (to, size, expected) in [
            ("10.244.1.10", 1480 - 28, None),
            ("10.244.2.10", 1420 - 28, None),
            ("10.244.2.10", 1480 - 28, Some("1420")),
            ("fd00:244:0:2::a", 1480 - 48, None),
            ("fd00:244:0:3::a", 1420 - 48, None),
            ("fd00:244:0:3::a", 1480 - 48, Some("1420")),
        ] {
            let outcome = cluster.try_sh("pod of a", &format!("ping -M do -n -c 1 -W 5 -s {size} {to}"));
            match expected {
                None => assert_eq!(outcome.code, 0, "{outcome}"),
                Some(mtu) => assert!(outcome.code == 1 && outcome.to_string().contains(mtu), "{outcome}"),
            }
        }
    });
}

/// Makes a virtual address the first one of the egress interface of a node with 172.30.0.11 and fd00:30::11, so that the
/// kernel prefers it.
const VIRTUAL_ADDRESS_FIRST: &str = "
    default=$(ip route show default)
    default6=$(ip -6 route show default)
    ip address flush dev eth0 scope global
    ip address add 172.30.0.250/24 dev eth0
    ip address add fd00:30::250/64 dev eth0 nodad
    ip address add 172.30.0.11/24 dev eth0
    ip address add fd00:30::11/64 dev eth0 nodad preferred_lft 0
    [ -z \"$default\" ] || ip route replace $default
    [ -z \"$default6\" ] || ip -6 route replace $default6
";

/// Three nodes, in whose file `options` is a line.
fn with_virtual_address(next_hop: &str, options: &str) -> String {
    format!(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: {next_hop}
{options}
nodes:
  - {{name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, 'fd00:30::11']}}
  - {{name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, 'fd00:30::12']}}
  - {{name: c, os: linux, podCIDR: 10.244.2.0/24, address: [172.30.0.13, 'fd00:30::13']}}
"
    )
}

/// The node's own packets to pods have its address, although another one is first on the interface.
#[test]
fn routes_prefer_the_address_of_the_node() {
    let configuration = |source: &str| {
        with_virtual_address(
            "node-address",
            &format!("routes: {{source: {source}, unassigned: unreachable}}"),
        )
    };
    each(|privilege| {
        let node = node(privilege);
        node.sh(VIRTUAL_ADDRESS_FIRST);
        node.await_ipv6_addresses();
        let source_to = |pod: &str| node.sh(&format!("ip route get {pod}"));
        assert_full_circle(&node, &configuration("auto"), "a");
        for (pod, address) in [("10.244.1.10", "172.30.0.250"), ("fd00:244:0:2::a", "fd00:30::250")] {
            assert!(source_to(pod).contains(&format!("src {address} ")), "{}", source_to(pod));
        }
        node.hostgw_ok(&["destroy", "--yes"]);

        let routes = assert_full_circle(&node, &configuration("node-address"), "a");
        for expected in [
            "10.244.1.0/24 via 172.30.0.12 dev eth0 src 172.30.0.11",
            "fd00:244:0:2::/64 via fd00:30::12 dev eth0 src fd00:30::11 metric 1024",
            "unreachable 10.244.0.0/16 metric 4294967295",
        ] {
            assert!(routes.contains(expected), "{routes}");
        }
        for (pod, address) in [("10.244.1.10", "172.30.0.11"), ("fd00:244:0:2::a", "fd00:30::11")] {
            assert!(source_to(pod).contains(&format!("src {address} ")), "{}", source_to(pod));
            let explained = node.hostgw(&["explain", "--node", "a", "--from", "node", pod]);
            assert!(explained.stdout.contains(&format!("From {address} ")), "{explained}");
        }
        node.hostgw_ok(&["snapshot"]).says("\"source\":\"172.30.0.11\"");
        let persisted = node.hostgw_ok(&["render", "--node", "a", "--persist", "systemd-networkd"]);
        persisted.says("PreferredSource=172.30.0.11").says("PreferredSource=fd00:30::11");
        node.write("old.yaml", &configuration("auto"));
        let diff = node.hostgw_ok(&["diff", "old.yaml", "hostgw.yaml"]);
        diff.says("~ 10.244.1.0/24     via 172.30.0.12 dev eth0 proto 87 {+src NODE-ADDRESS+}")
            .says("# routes.source changed, hostgw.yaml:4");

        // Another source is drift, and so is what the kernel makes of a lost address.
        node.sh("ip route change 10.244.1.0/24 via 172.30.0.12 dev eth0 proto 87 src 172.30.0.250");
        let drift = node.hostgw(&["plan", "--node", "a"]).expect(0);
        drift.says("src 172.30.0.250 -> 172.30.0.11").says("# drift: pods of node b");
        node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
        node.sh("ip address del 172.30.0.11/24 dev eth0; ip address del fd00:30::11/64 dev eth0");
        let refused = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(3);
        refused
            .warns("HG0709: 172.30.0.11 (node a) cannot be the source of routes: no interface has it")
            .warns("HG0709: fd00:30::11 (node a) cannot be the source of routes: no interface has it");
        node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh")
            .expect(3)
            .warns("no interface has 172.30.0.11, the source address of node a");
        node.hostgw(&["doctor", "--node", "a"]).expect(11).says("HG0709");
        node.sh(VIRTUAL_ADDRESS_FIRST);
        node.await_ipv6_addresses();
        node.hostgw_ok(&["apply", "--yes", "--node", "a"]);

        // A foreign route with the same key and another source is a conflict.
        node.hostgw_ok(&["destroy", "--yes"]);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.12 dev eth0 src 172.30.0.250");
        let conflict = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(10);
        conflict.warns("proto boot src 172.30.0.250 conflicts with 10.244.1.0/24");
        node.hostgw_ok(&["apply", "--yes", "--node", "a", "--adopt"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        let restored = node.look("ip route show 10.244.1.0/24");
        assert!(restored.contains("src 172.30.0.250"), "{restored}");
    });
}

/// The pods see the node's own address, in both models of next hops.
#[test]
fn pods_see_the_address_of_the_node() {
    each(|privilege| {
        for next_hop in ["node-address", "pod-gateway"] {
            let _turn = small();
            let cluster = SimulatedCluster::new(
                privilege,
                &with_virtual_address(next_hop, "routes: {source: node-address}"),
            );
            cluster.sh("node a", VIRTUAL_ADDRESS_FIRST);
            cluster.sh("node a", "\"$HOSTGW\" apply --yes --node a");
            cluster.sh(
                "pod of b",
                "nft add table inet seen
                 nft 'add chain inet seen input { type filter hook input priority 0; }'
                 nft add rule inet seen input ip saddr 172.30.0.11 icmp type echo-request counter
                 nft add rule inet seen input ip6 saddr fd00:30::11 icmpv6 type echo-request counter",
            );
            ping(&cluster, "node a", "10.244.1.10");
            // With IPv6, pod gateways do not answer.
            let is_dual = next_hop == "node-address";
            if is_dual {
                ping(&cluster, "node a", "fd00:244:0:2::a");
            }
            let seen = cluster.sh("pod of b", "nft list chain inet seen input");
            assert_eq!(seen.matches("packets 2 ").count(), 1 + usize::from(is_dual), "{seen}");
            if is_dual {
                cluster.try_sh("node a", "\"$HOSTGW\" rehearse --node a").expect(0);
                cluster.machine().hostgw(&["simulate"]).expect(0);
            }
        }
    });
}

/// The table of the family in the namespace, as `nft` prints it, without counts.
fn table(node: &Namespace, family: &str) -> String {
    node.sh(&format!("nft -s list table {family} hostgw"))
}

/// Masqueraded packets get the address of the node, although another one is first on the interface.
#[test]
fn packets_leave_with_the_address_of_the_node() {
    let configuration = |nat: &str| with_virtual_address("node-address", &format!("nat: {{{nat}}}"));
    each(|privilege| {
        let node = node(privilege);
        node.sh(VIRTUAL_ADDRESS_FIRST);
        node.await_ipv6_addresses();
        for (nat, rules) in [
            (
                "to: node-address",
                [
                    "ip daddr != 10.244.0.0/16 fib daddr type != local counter snat to 172.30.0.11 comment",
                    "ip6 daddr != fd00:244::/48 fib daddr type != local counter snat to fd00:30::11 comment",
                ],
            ),
            (
                "to: node-address, randomFully: true, source: pods, exclude: [192.0.2.0/24]",
                [
                    "ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/16 fib daddr type != local counter snat to 172.30.0.11 fully-random comment",
                    "ip6 saddr fd00:244:0:1::/64 ip6 daddr != fd00:244::/48 fib daddr type != local counter snat to fd00:30::11 fully-random comment",
                ],
            ),
        ] {
            assert_full_circle(&node, &configuration(nat), "a");
            for (family, rule) in ["ip", "ip6"].into_iter().zip(rules) {
                assert!(table(&node, family).contains(rule), "{}", table(&node, family));
            }
            let persisted = node.hostgw_ok(&["render", "--node", "a", "--persist", "nftables"]);
            node.write("persisted.nft", &persisted.stdout);
            node.sh("nft -f persisted.nft");
            node.hostgw(&["plan", "--node", "a", "--detailed-exitcode"]).expect(0).says("No changes.");
            node.hostgw_ok(&["destroy", "--yes"]);
        }

        // Another address is drift. A range of addresses is a foreign rule.
        node.write("hostgw.yaml", &configuration("to: node-address"));
        node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
        node.hostgw_ok(&["snapshot"]).says("\"sourceNat\"");
        for other in ["172.30.0.250", "172.30.0.11-172.30.0.12", "172.30.0.11:1024-2048"] {
            let protocol = if other.contains(':') { "meta l4proto tcp " } else { "" };
            node.sh(&format!(
                "nft flush chain ip hostgw postrouting
                 nft add rule ip hostgw postrouting ip daddr != 10.244.0.0/16 {protocol}fib daddr type != local counter snat to {other}"
            ));
            let drift = node.hostgw(&["plan", "--node", "a"]).expect(0);
            drift.says("snat to 172.30.0.11").says("drift");
            node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
            assert!(table(&node, "ip").contains("snat to 172.30.0.11 comment"), "{}", table(&node, "ip"));
        }
        node.write("old.yaml", &configuration("to: interface"));
        let diff = node.hostgw_ok(&["diff", "old.yaml", "hostgw.yaml"]);
        diff.says("counter [-masquerade-] {+snat to NODE-ADDRESS+}").says("# nat.to changed, hostgw.yaml:4");

        node.sh("ip address del 172.30.0.11/24 dev eth0; ip address del fd00:30::11/64 dev eth0");
        let refused = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(3);
        refused
            .warns("HG0709: 172.30.0.11 (node a) cannot be the source of masqueraded packets: no interface has it")
            .warns("HG0709: fd00:30::11 (node a) cannot be the source of masqueraded packets: no interface has it");
        node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh")
            .expect(3)
            .warns("no interface has 172.30.0.11, the source address of node a");
    });
}

/// The outside sees the virtual address of a node, or its own.
#[test]
fn the_outside_sees_the_address_of_the_node() {
    each(|privilege| {
        for (to, host) in [("interface", "250"), ("node-address", "11")] {
            let _turn = small();
            let configuration =
                with_virtual_address("node-address", &format!("nat: {{to: {to}, source: pods}}"));
            let cluster = SimulatedCluster::new(privilege, &configuration);
            cluster.sh("node a", VIRTUAL_ADDRESS_FIRST);
            cluster.sh("node a", "\"$HOSTGW\" apply --yes --node a");
            cluster.sh(
                "outside",
                &format!(
                    "nft add table inet seen
                     nft 'add chain inet seen input {{ type filter hook input priority 0; }}'
                     nft add rule inet seen input ip saddr 172.30.0.{host} icmp type echo-request counter
                     nft add rule inet seen input ip6 saddr fd00:30::{host} icmpv6 type echo-request counter"
                ),
            );
            let addresses = cluster.sh("outside", "ip -o address show scope global | awk '{ print $4 }'");
            for address in addresses.lines() {
                ping(&cluster, "pod of a", address.split('/').next().unwrap_or_default());
            }
            let seen = cluster.sh("outside", "nft list chain inet seen input");
            assert_eq!(seen.matches("packets 2 ").count(), 2, "{to}: {seen}");
            // The address of the node is deprecated for this test.
            let findings = cluster.try_sh("node a", "\"$HOSTGW\" doctor --node a").expect(11);
            findings.says("warning[HG1020]").says("Node a: 0 errors, 1 warning.");
            cluster.try_sh("node a", "\"$HOSTGW\" rehearse --node a").expect(0);
            let explained = cluster.sh("node a", "\"$HOSTGW\" explain --node a 192.0.2.7");
            assert!(explained.contains("masqueraded by"), "{explained}");
            cluster.machine().hostgw(&["simulate"]).expect(0);
        }
    });
}
