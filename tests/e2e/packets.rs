//! Real packets: what `ping` and the receivers see of a cluster once every node has applied its plan.

use std::process::Stdio;

use crate::support::namespace::{Namespace, Outcome, Privilege, each};

/// An address in another network, behind the nodes' router.
const OUTSIDE: &str = "198.51.100.1";

/// The third node has the gateway of a Windows node, and Linux to play it.
const NODES: [(&str, &str, &str); 3] = [
    ("172.30.0.11", "10.244.0.1", "10.244.0.10"),
    ("172.30.0.12", "10.244.1.1", "10.244.1.10"),
    ("172.30.0.13", "10.244.2.2", "10.244.2.10"),
];

struct Node {
    host: Namespace,
    pod: Namespace,
    address: &'static str,
    pod_address: &'static str,
}

/// Three nodes with a pod each on one switch, and a router that knows nothing of pods.
struct Cluster {
    _switch: Namespace,
    router: Namespace,
    nodes: Vec<Node>,
}

impl Cluster {
    fn new(privilege: Privilege, next_hop: &str) -> Self {
        let switch = Namespace::new(privilege);
        switch.sh("ip link add switch0 type bridge; ip link set switch0 up");
        let router = switch.sibling();
        plug(&switch, &router, "router", "172.30.0.1");
        router.sh(&format!("ip address add {OUTSIDE}/32 dev lo"));
        let nodes: Vec<_> =
            (1..).zip(NODES).map(|(number, ends)| node(&switch, number, ends, next_hop)).collect();
        for namespace in nodes.iter().flat_map(|node| [&node.host, &node.pod]).chain([&router]) {
            namespace.sh(WITNESS);
        }
        Self { _switch: switch, router, nodes }
    }

    fn apply(&self) {
        for node in &self.nodes {
            node.host.hostgw_ok(&["apply", "--yes"]);
        }
    }

    /// The namespaces that can be pinged, with their addresses.
    fn pods(&self) -> impl Iterator<Item = (&Namespace, &'static str)> {
        self.nodes.iter().map(|node| (&node.pod, node.pod_address))
    }
}

/// Collects who sends echo requests to whom, as they arrive.
const WITNESS: &str = "nft -f - <<'END'
    table ip witness {
        set seen { type ipv4_addr . ipv4_addr; flags dynamic; }
        chain input {
            type filter hook input priority 0;
            icmp type echo-request add @seen { ip saddr . ip daddr }
        }
    }
END";

fn plug(switch: &Namespace, namespace: &Namespace, name: &str, address: &str) {
    namespace.sh(&format!(
        "ip link add eth0 type veth peer name {name} netns {}
         ip address add {address}/24 dev eth0
         ip link set eth0 up",
        switch.pid()
    ));
    switch.sh(&format!("ip link set {name} master switch0 up"));
}

/// A node with its bridge at the pod gateway and one pod on it.
fn node(
    switch: &Namespace,
    number: usize,
    (address, gateway, pod_address): (&'static str, &'static str, &'static str),
    next_hop: &str,
) -> Node {
    let (host, pod) = (switch.sibling(), switch.sibling());
    plug(switch, &host, &format!("node{number}"), address);
    host.sh(&format!(
        "ip route add default via 172.30.0.1
         ip link add cni0 type bridge
         ip address add {gateway}/24 dev cni0
         ip link add pod0 type veth peer name eth0 netns {}
         ip link set pod0 master cni0 up
         ip link set cni0 up",
        pod.pid()
    ));
    pod.sh(&format!(
        "ip address add {pod_address}/24 dev eth0
         ip link set eth0 up
         ip route add default via {gateway}"
    ));
    host.write("hostgw.yaml", &configuration(next_hop, ""));
    Node { host, pod, address, pod_address }
}

/// The cluster of these nodes; the third by its gateway what a Windows node would be.
fn configuration(next_hop: &str, more_nodes: &str) -> String {
    let mut text =
        format!("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnextHop: {next_hop}\nnodes:\n");
    for (number, (address, gateway, _)) in (1..).zip(NODES) {
        let prefix = format!("10.244.{}.0/24", number - 1);
        text.push_str(&format!(
            "  - {{ name: node-{number}, os: linux, podCIDR: {prefix}, address: {address}, gateway: {gateway} }}\n"
        ));
    }
    text + more_nodes
}

#[track_caller]
fn ping(from: &Namespace, to: &str) {
    from.run(["ping", "-n", "-q", "-c", "2", "-i", "0.05", "-W", "5", to]);
}

/// Whether the receiver saw an echo request with that source.
fn saw(receiver: &Namespace, source: &str, destination: &str) -> bool {
    receiver
        .run(["nft", "list", "set", "ip", "witness", "seen"])
        .contains(&format!("{source} . {destination}"))
}

fn packets_arrive(privilege: Privilege, next_hop: &str) {
    let cluster = Cluster::new(privilege, next_hop);
    cluster.apply();
    for (sender, source) in cluster.pods() {
        for (receiver, destination) in cluster.pods().filter(|(_, destination)| *destination != source) {
            ping(sender, destination);
            assert!(saw(receiver, source, destination), "{next_hop}: {destination} did not see {source}");
        }
    }
    for node in &cluster.nodes {
        ping(&node.pod, OUTSIDE);
        assert!(saw(&cluster.router, node.address, OUTSIDE), "{next_hop}: not masqueraded");
        assert!(!saw(&cluster.router, node.pod_address, OUTSIDE), "{next_hop}: a pod's address got out");
        for (_, destination) in cluster.pods() {
            ping(&node.host, destination);
        }
        // What hostgw adds does not keep pods from their node, nor nodes from each other.
        for other in &cluster.nodes {
            ping(&node.host, other.address);
            ping(&node.pod, other.address);
        }
    }
}

#[test]
fn packets_arrive_by_pod_gateways() {
    each(|privilege| packets_arrive(privilege, "pod-gateway"));
}

#[test]
fn packets_arrive_by_node_addresses() {
    each(|privilege| packets_arrive(privilege, "node-address"));
}

/// Without hostgw none of this works: the pings above prove something.
#[test]
fn without_an_apply_no_packet_arrives() {
    each(|privilege| {
        let cluster = Cluster::new(privilege, "pod-gateway");
        let (sender, _) = cluster.pods().next().expect("a pod");
        for destination in [OUTSIDE, NODES[1].2] {
            let outcome = sender.try_sh(&format!("ping -n -q -c 2 -i 0.1 -W 1 {destination}"));
            assert_eq!(outcome.code, 1, "{outcome}");
        }
    });
}

/// An apply that moves and adds other nodes, changes the next hop of these, and goes back, loses no packet.
#[test]
fn no_packet_is_lost_while_the_file_changes() {
    each(|privilege| {
        let cluster = Cluster::new(privilege, "pod-gateway");
        cluster.apply();
        let (sender, _) = cluster.pods().next().expect("a pod");
        let (_, destination) = cluster.pods().nth(1).expect("a pod");
        ping(sender, destination);
        let flow = sender
            .command("ping")
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
            for node in &cluster.nodes {
                node.host.write("hostgw.yaml", &configuration(next_hop, more));
                node.host.hostgw_ok(&["apply", "--yes"]);
            }
        }
        let output = flow.wait_with_output().expect("our child");
        let outcome = Outcome::from_output(sender, "ping", output).expect(0);
        outcome.says("400 packets transmitted, 400 received");
    });
}
