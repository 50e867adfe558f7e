//! Clusters that people have: what the configuration can describe, and that it works with real packets.

use super::simulate::small;
use crate::support::namespace::{Privilege, SimulatedCluster, each};

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
