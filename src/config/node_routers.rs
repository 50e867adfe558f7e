//! Nodes as routers: next hops that are addresses of other nodes.
//!
//! Such a node cannot have hostgw's routes itself: its own route to the pods behind it would lead to one of its own addresses.

use std::{collections::HashMap, net::IpAddr};

use super::{
    node::{NodeDraft, name_of},
    problem::{Location, Problem},
    validator::{Validator, map},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Cluster, ConfigPath, Family, NextHopOverride, PerFamily},
    text::{Untrusted, count, list},
};

/// The parts of a node that next hops depend on.
struct RoutedNode<'a> {
    addresses: PerFamily<IpAddr>,
    /// The families of its pods.
    pods: PerFamily<()>,
    next_hop: Option<&'a NextHopOverride>,
}

/// A node whose pods are reached through another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ThroughNode {
    /// The index of the node with the pods.
    node: usize,
    router: IpAddr,
    /// The index of the node with the address of the router.
    through: usize,
    /// Whether the router is `nextHop` of the node rather than of the cluster.
    is_own: bool,
}

/// Finds the nodes whose pods are reached through another node. `routers` are those of the cluster.
fn through_nodes<'a, I>(routers: &PerFamily<IpAddr>, nodes: impl Fn() -> I) -> Vec<ThroughNode>
where
    I: Iterator<Item = RoutedNode<'a>>,
{
    let own_routers =
        || nodes().filter_map(|node| node.next_hop).flat_map(|own| own.routers.iter()).map(|(_, it)| *it);
    let used = routers.iter().map(|(_, router)| *router).chain(own_routers());
    let mut holders: HashMap<IpAddr, Option<usize>> = used.map(|router| (router, None)).collect();
    if holders.is_empty() {
        return Vec::new();
    }
    for (index, node) in nodes().enumerate() {
        for (_, address) in node.addresses.iter() {
            if let Some(holder) = holders.get_mut(address) {
                *holder = Some(index);
            }
        }
    }
    let mut found = Vec::new();
    for (index, node) in nodes().enumerate() {
        for (family, ()) in node.pods.iter() {
            let own = node.next_hop.and_then(|own| own.routers.get(family));
            let has_mode = node.next_hop.is_some_and(|own| own.mode.is_some());
            let Some(router) = own.or_else(|| routers.get(family).filter(|_| !has_mode)) else { continue };
            match holders.get(router) {
                // The address of the node itself is what `node-address` means.
                Some(Some(through)) if *through != index => found.push(ThroughNode {
                    node: index,
                    router: *router,
                    through: *through,
                    is_own: own.is_some(),
                }),
                _ => {}
            }
        }
    }
    found
}

/// Finds the circles of nodes that are only reached through each other, each beginning with its first node.
fn circles(own: &[ThroughNode]) -> Vec<Vec<ThroughNode>> {
    let by_node: HashMap<(usize, Family), &ThroughNode> =
        own.iter().map(|hop| ((hop.node, hop.router.into()), hop)).collect();
    // The walk that met a node, and the node's position in it.
    let mut met: HashMap<(usize, Family), (usize, usize)> = HashMap::with_capacity(own.len());
    let mut circles: Vec<Vec<ThroughNode>> = Vec::new();
    for (walk, first) in own.iter().enumerate() {
        let family = Family::from(first.router);
        let mut path: Vec<ThroughNode> = Vec::new();
        let mut next = Some(first);
        while let Some(hop) = next {
            match met.get(&(hop.node, family)) {
                None => {}
                Some((of, start)) if *of == walk => {
                    let mut circle = path.split_off(*start);
                    let lowest = (0..circle.len()).min_by_key(|at| circle[*at].node).unwrap_or(0);
                    circle.rotate_left(lowest);
                    circles.push(circle);
                    break;
                }
                Some(_) => break,
            }
            met.insert((hop.node, family), (walk, path.len()));
            path.push(*hop);
            next = by_node.get(&(hop.through, family)).copied();
        }
    }
    circles.sort_by_key(|circle| circle.first().map(|hop| hop.node));
    circles.dedup_by(|one, other| one.iter().map(|hop| hop.node).eq(other.iter().map(|hop| hop.node)));
    circles
}

impl Validator<'_> {
    /// Reports next hops that are addresses of nodes, if there is no node on which the routes could work.
    pub fn routers_among_nodes(&mut self, drafts: &[NodeDraft], routers: &PerFamily<IpAddr>) {
        let nodes = || {
            drafts.iter().map(|draft| RoutedNode {
                addresses: map(&draft.addresses, |located| located.value),
                pods: draft.pod_families(),
                next_hop: draft.next_hop(),
            })
        };
        let found = through_nodes(routers, nodes);
        let (own, of_cluster): (Vec<ThroughNode>, Vec<ThroughNode>) =
            found.into_iter().partition(|hop| hop.is_own);
        for (_, router) in routers.iter() {
            let behind: Vec<&ThroughNode> = of_cluster.iter().filter(|hop| hop.router == *router).collect();
            let Some(first) = behind.first() else { continue };
            let through = &drafts[first.through];
            let message = format!(
                "next hop {router} is the address of {}: on that node, the routes to {} would lead to the node itself",
                name_of(through),
                count(behind.len(), "other node")
            );
            let address = Location::value(through.address_path("address", &through.addresses, *router));
            self.report(
                Problem::new(
                    Rule::MisplacedGateway,
                    message,
                    Location::value(ConfigPath::root().key("nextHop")),
                )
                .related("the node's address is defined here", address)
                .hint("set `nextHop: node-address`, or use the address of a router that is not a node"),
            );
        }
        for circle in circles(&own) {
            let names: Vec<String> = circle.iter().map(|hop| name_of(&drafts[hop.node])).collect();
            let message = match &names[..] {
                [one, other] => format!("{one} is reached through {other}, and {other} through {one}"),
                names => format!("these nodes are reached only through each other: {}", list(names, 8)),
            };
            let location = |hop: &ThroughNode| Location::value(drafts[hop.node].path().key("nextHop"));
            let (Some(first), Some(last)) = (circle.first(), circle.last()) else { continue };
            self.report(
                Problem::new(Rule::MisplacedGateway, message, location(first))
                    .related("the other next hop is defined here", location(last))
                    .hint(
                        "remove `nextHop` of one of them, or use the address of a router that is not a node",
                    ),
            );
        }
    }
}

/// Warns of nodes whose pods are reached through other nodes.
#[must_use]
pub fn nodes_as_routers(cluster: &Cluster) -> Option<Diagnostic> {
    let nodes = || {
        cluster.nodes.iter().map(|node| RoutedNode {
            addresses: node.addresses,
            pods: PerFamily {
                v4: node.pods.has(Family::V4).then_some(()),
                v6: node.pods.has(Family::V6).then_some(()),
            },
            next_hop: node.next_hop(),
        })
    };
    let mut found = through_nodes(&cluster.routers, nodes);
    found.dedup_by_key(|hop| (hop.node, hop.through));
    let first = *found.first()?;
    let name = |index: usize| &cluster.nodes[index].name;
    let through = name(first.through);
    let behind: Vec<&Untrusted> =
        found.iter().filter(|hop| hop.through == first.through).map(|hop| name(hop.node)).collect();
    let others = match found.len() - behind.len() {
        0 => String::new(),
        others => format!(", and those of {} through other nodes", count(others, "more node")),
    };
    let message = format!(
        "the pods of {} are reached through node {through} ({}){others}: {through} must forward these packets using routes that hostgw \
         does not manage, because hostgw refuses to plan on it",
        if behind.len() == 1 { format!("node {}", behind[0]) } else { format!("nodes {}", list(&behind, 4)) },
        first.router,
    );
    let path = ConfigPath::root().key("nodes").index(first.node).key("nextHop");
    Some(Diagnostic::new(Rule::NodeAsRouter, message).at(Some(path)).with_remedy(
        "use the address of a router that is not a node, or remove `nextHop` if the other nodes can reach the node directly",
    ))
}
