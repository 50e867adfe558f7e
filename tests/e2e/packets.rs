//! Real packets: what `ping` and the receivers see in a cluster that `hostgw simulate` has built and applied.

use std::process::Stdio;

use super::RECIPE;
use crate::support::namespace::{Privilege, SimulatedCluster, each};

/// The outside host of simulate.
const OUTSIDE: &str = "203.0.113.10";

/// The nodes of the recipe, with their addresses and their pods'. The third one has the Windows gateway.
const NODES: [(&str, &str, &str); 3] = [
    ("linux-1", "172.30.0.11", "10.244.0.10"),
    ("linux-2", "172.30.0.12", "10.244.1.10"),
    ("win-1", "172.30.0.13", "10.244.2.10"),
];

/// Records the source and destination of each echo request as it arrives.
const WITNESS: &str = "nft -f - <<'END'
    table ip witness {
        set seen { type ipv4_addr . ipv4_addr; flags dynamic; }
        chain input {
            type filter hook input priority 0;
            icmp type echo-request add @seen { ip saddr . ip daddr }
        }
    }
END";

fn cluster(privilege: Privilege, next_hop: &str) -> SimulatedCluster {
    let cluster = SimulatedCluster::new(privilege, &with(next_hop, ""));
    cluster.sh("outside", WITNESS);
    for (name, ..) in NODES {
        cluster.sh(&pod(name), WITNESS);
    }
    cluster
}

/// The recipe with this next hop and additional nodes.
fn with(next_hop: &str, more_nodes: &str) -> String {
    let nodes = RECIPE.replacen("nodes:\n", &format!("nodes:\n{more_nodes}"), 1);
    format!("nextHop: {next_hop}\n{nodes}")
}

fn node(name: &str) -> String {
    format!("node {name}")
}

fn pod(name: &str) -> String {
    format!("pod of {name}")
}

#[track_caller]
fn ping(cluster: &SimulatedCluster, from: &str, to: &str) {
    cluster.sh(from, &format!("ping -n -q -c 2 -i 0.05 -W 5 {to}"));
}

/// Returns whether the receiver saw an echo request with this source.
fn saw(cluster: &SimulatedCluster, receiver: &str, source: &str, destination: &str) -> bool {
    let seen = cluster.sh(receiver, "nft list set ip witness seen");
    seen.contains(&format!("{source} . {destination}"))
}

fn packets_arrive(privilege: Privilege, next_hop: &str) {
    let cluster = cluster(privilege, next_hop);
    for (sender, address, source) in NODES {
        for (receiver, other_address, destination) in NODES {
            if sender != receiver {
                ping(&cluster, &pod(sender), destination);
                let kept = saw(&cluster, &pod(receiver), source, destination);
                assert!(kept, "{next_hop}: {destination} did not see {source}");
            }
            ping(&cluster, &node(sender), destination);
            // The managed routes separate neither pods from nodes nor nodes from each other.
            ping(&cluster, &node(sender), other_address);
            ping(&cluster, &pod(sender), other_address);
        }
        ping(&cluster, &pod(sender), OUTSIDE);
        assert!(saw(&cluster, "outside", address, OUTSIDE), "{next_hop}: not masqueraded");
        assert!(!saw(&cluster, "outside", source, OUTSIDE), "{next_hop}: a pod's address got out");
    }
}

#[test]
fn packets_arrive_with_pod_gateways() {
    each(|privilege| packets_arrive(privilege, "pod-gateway"));
}

#[test]
fn packets_arrive_with_node_addresses() {
    each(|privilege| packets_arrive(privilege, "node-address"));
}

/// The control experiment: without hostgw, none of this works.
#[test]
fn without_an_apply_no_packet_arrives() {
    each(|privilege| {
        let cluster = cluster(privilege, "pod-gateway");
        for (name, ..) in NODES {
            cluster.sh(&node(name), "\"$HOSTGW\" destroy --yes");
        }
        for destination in [OUTSIDE, NODES[1].2] {
            let outcome =
                cluster.try_sh(&pod("linux-1"), &format!("ping -n -q -c 2 -i 0.1 -W 1 {destination}"));
            assert_eq!(outcome.code, 1, "{outcome}");
        }
    });
}

/// No packet is lost by applies that move and add other nodes, change the next hops, and revert.
#[test]
fn no_packet_is_lost_while_the_configuration_changes() {
    each(|privilege| {
        let cluster = cluster(privilege, "pod-gateway");
        let destination = NODES[1].2;
        ping(&cluster, &pod("linux-1"), destination);
        let flow = cluster
            .command(&pod("linux-1"), "ping")
            .args(["-n", "-q", "-c", "400", "-i", "0.005", "-W", "5", destination])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ping");
        let added = "  - { name: node-4, os: linux, podCIDR: 10.244.3.0/24, address: 172.30.0.14 }\n";
        let moved = added.replace("10.244.3.0/24", "10.244.4.0/24");
        for (next_hop, more) in
            [("pod-gateway", added), ("node-address", &*moved), ("pod-gateway", added), ("pod-gateway", "")]
        {
            cluster.write("hostgw.yaml", &with(next_hop, more));
            for (name, ..) in &NODES[..2] {
                cluster.sh(&node(name), "\"$HOSTGW\" apply --yes");
            }
        }
        let output = flow.wait_with_output().expect("our child");
        cluster.outcome("ping", output).expect(0).says("400 packets transmitted, 400 received");
    });
}
