//! What deserves a warning although the configuration is valid.

use super::node_routers::nodes_as_routers;
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Cluster, Family, NextHopKind, Node, OperatingSystem},
};

/// Returns whether other nodes use IPv6 pod gateways of this node as next hops, which Linux does not answer for.
#[must_use]
pub fn is_ipv6_pod_gateway(cluster: &Cluster, node: &Node) -> bool {
    node.os == OperatingSystem::Linux
        && node.pods.has(Family::V6)
        && cluster.next_hop_of(node, Family::V6) == NextHopKind::PodGateway
}

/// Reports IPv6 pod gateways of Linux nodes as next hops.
#[must_use]
pub fn ipv6_pod_gateways(cluster: &Cluster) -> Option<Diagnostic> {
    let node = cluster.nodes.iter().find(|node| is_ipv6_pod_gateway(cluster, node))?;
    let message = "IPv6 routes through pod gateways do not work between Linux nodes without an NDP proxy";
    let own = node.next_hop().map(|own| &own.routers);
    let has_router = own.unwrap_or(&cluster.routers).get(Family::V4).is_some();
    let has_addresses = cluster
        .nodes
        .iter()
        .filter(|node| is_ipv6_pod_gateway(cluster, node))
        .all(|node| node.addresses.get(Family::V6).is_some());
    let remedy = match (has_router, has_addresses) {
        (true, _) => "nextHop only has an IPv4 router: add an IPv6 router to it",
        (false, true) => "set nextHop: node-address",
        (false, false) => "add an IPv6 address to every node, and set nextHop: node-address",
    };
    Some(Diagnostic::new(Rule::Ipv6PodGateway, message.to_owned()).with_remedy(remedy))
}

/// Returns the problems that deserve a warning and that the configuration alone shows.
#[must_use]
pub fn warnings(cluster: &Cluster) -> Vec<Diagnostic> {
    let has_others = cluster.nodes.len() > 1;
    let by_gateway = ipv6_pod_gateways(cluster).filter(|_| has_others);
    by_gateway.into_iter().chain(nodes_as_routers(cluster)).collect()
}
