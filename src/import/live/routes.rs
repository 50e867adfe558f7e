//! The routes to the pods of other nodes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{super::prefix::private_block, plugin, pods::NodeView};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, MAIN_TABLE, PodCidr},
    state::{PLUGIN_PROTOCOLS, Route, RouteType},
    text::{Untrusted, list},
};

/// The kernel's metric for an IPv6 route without one (`IP6_RT_PRIO_USER`, net/ip6_route.h).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// The next hop of a route to the pods of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteHop {
    /// The node's address.
    NodeAddress(IpAddr),
    /// An address in the pod CIDR.
    PodGateway(IpAddr),
    /// This node's default gateway.
    Router(IpAddr),
}

/// A route to the pods of another node.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeRoute<'a> {
    pub route: &'a Route,
    pub hop: RouteHop,
}

/// What is known about the pods of a family.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownPods<'a> {
    pub family: Family,
    /// The node's own pod CIDRs.
    pub own: &'a [IpNet],
    /// The cluster prefixes; empty if they are unknown.
    pub prefixes: &'a [IpNet],
    /// The only interface whose routes count, if it is given.
    pub device: Option<&'a str>,
}

fn not_describable(message: String, remedy: &str) -> Diagnostic {
    Diagnostic::new(Rule::NotDescribable, message).with_remedy(remedy)
}

impl KnownPods<'_> {
    /// Whether a route leads to pods of other nodes.
    fn leads_to_pods(&self, route: &Route, default_gateways: &[IpAddr]) -> bool {
        let destination = route.destination;
        let is_own = self.own.iter().any(|own| own.contains(&destination) || destination.contains(own));
        if is_own || destination.prefix_len() == 0 || route.kind != RouteType::Unicast {
            return false;
        }
        if !self.prefixes.is_empty() {
            return self
                .prefixes
                .iter()
                .any(|prefix| prefix.contains(&destination) && *prefix != destination);
        }
        if route.is_owned() {
            return route.next_hop.gateway.is_some();
        }
        if PLUGIN_PROTOCOLS.iter().any(|(number, _)| *number == route.protocol) {
            return true;
        }
        let is_by_default_gateway =
            route.next_hop.gateway.is_some_and(|gateway| default_gateways.contains(&gateway));
        self.own.iter().any(|own| {
            own.prefix_len() == destination.prefix_len()
                && private_block(*own) == private_block(destination)
                && !is_by_default_gateway
        })
    }

    /// Finds the routes to the pods of other nodes, sorted by destination.
    ///
    /// # Errors
    /// Returns an error about a route that a configuration cannot describe.
    pub fn routes<'a>(&self, view: &NodeView<'a>) -> Result<Vec<NodeRoute<'a>>, Diagnostic> {
        let default_gateways: Vec<IpAddr> = view
            .routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .filter_map(|route| route.next_hop.gateway)
            .collect();
        let mut by_destination: BTreeMap<IpNet, &Route> = BTreeMap::new();
        for route in view.added(self.family).filter(|route| self.leads_to_pods(route, &default_gateways)) {
            let name = route.next_hop.device.as_ref().map_or("", |device| device.as_raw());
            let kind = view.host.link(name).and_then(|link| link.kind.as_ref()).map(Untrusted::as_raw);
            if let Some(tunnel) = plugin::of_tunnel(name, kind) {
                let message = format!(
                    "`{route}` leads through a tunnel ({}), but hostgw does not encapsulate pod traffic",
                    Untrusted::from(tunnel)
                );
                return Err(not_describable(
                    message,
                    "turn encapsulation off first; all nodes must be on one link",
                ));
            }
            if self.device.is_some_and(|device| device != name) {
                continue;
            }
            if route.hops().count() > 1 {
                let message = format!("`{route}` has several next hops; hostgw routes have one");
                return Err(not_describable(message, "replace it with a route that has one next hop"));
            }
            // A network of pods on this node itself, such as another bridge.
            if route.next_hop.gateway.is_none() {
                continue;
            }
            if PodCidr::new(route.destination).is_err() {
                let message = format!(
                    "`{route}` leads to a single pod, but hostgw only adds routes to whole pod CIDRs"
                );
                return Err(not_describable(
                    message,
                    "let each node assign addresses from its own pod CIDR only, and remove this route",
                ));
            }
            let first = by_destination.entry(route.destination).or_insert(route);
            // Packets use the route with the lowest metric, unless it was added after hostgw's.
            if (!route.is_owned(), route.metric) < (!first.is_owned(), first.metric) {
                *first = route;
            }
        }
        Ok(with_hops(by_destination.into_values().collect(), &default_gateways))
    }
}

fn with_hops<'a>(routes: Vec<&'a Route>, default_gateways: &[IpAddr]) -> Vec<NodeRoute<'a>> {
    // A single node may also be the default gateway of the others.
    let is_router = |gateway: IpAddr| {
        default_gateways.contains(&gateway)
            && routes.iter().filter(|route| route.next_hop.gateway == Some(gateway)).count() > 1
    };
    let hop = |route: &Route| {
        let gateway = route.next_hop.gateway?;
        Some(match route.destination.contains(&gateway) {
            true => RouteHop::PodGateway(gateway),
            false if is_router(gateway) => RouteHop::Router(gateway),
            false => RouteHop::NodeAddress(gateway),
        })
    };
    routes.iter().filter_map(|route| Some(NodeRoute { route, hop: hop(route)? })).collect()
}

/// What all routes have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommonOptions {
    pub device: Untrusted,
    pub table: u32,
    /// The metric; 0 if it is the kernel's default.
    pub metric: u32,
    /// The largest MTU, if all routes have one. Those of single routes can be smaller.
    pub mtu: Option<u32>,
}

impl CommonOptions {
    /// Whether a route has the metric.
    pub fn has_metric(&self, route: &Route) -> bool {
        has_metric(route, self.metric)
    }
}

/// Returns whether a route has this `routes.metric`; 0 means the kernel's default.
const fn has_metric(route: &Route, metric: u32) -> bool {
    match (route.destination, metric) {
        (IpNet::V6(_), 0) => route.metric == IPV6_DEFAULT_METRIC,
        _ => route.metric == metric,
    }
}

/// Returns the `routes.metric` that gives a route its metric.
const fn metric_of(route: &Route) -> u32 {
    if has_metric(route, 0) { 0 } else { route.metric }
}

/// Finds what all routes have in common: `routes`, and those of hostgw that make pod gateways reachable.
///
/// # Errors
/// Returns an error if they differ in an option that a configuration has only once.
pub(super) fn common_options(
    routes: &[NodeRoute<'_>],
    on_link: &[&Route],
) -> Result<CommonOptions, Diagnostic> {
    let all: Vec<&Route> = match routes {
        [] => on_link.to_vec(),
        routes => routes.iter().map(|found| found.route).collect(),
    };
    let Some(first) = all.first().copied() else {
        return Ok(CommonOptions { device: Untrusted::default(), table: MAIN_TABLE, metric: 0, mtu: None });
    };
    let differs = |what: &str, remedy: &str, is_same: &dyn Fn(&Route) -> bool| {
        all.iter().find(|route| !is_same(route)).map_or(Ok(()), |other| {
            let message =
                format!("the routes to other nodes use several {what}, such as `{first}` and `{other}`");
            Err(not_describable(message, remedy))
        })
    };
    differs("interfaces", "pass the one that all nodes are on with --egress-interface", &|route| {
        route.next_hop.device == first.next_hop.device
    })?;
    differs("routing tables", "move them to one table first", &|route| route.table == first.table)?;
    // The metric of an IPv6 route can be the kernel's default or the same number in the configuration.
    let metric = all.iter().copied().find(|route| route.family() == Family::V4).unwrap_or(first);
    let metric = metric_of(metric);
    differs("metrics", "delete them and add them again with one metric", &|route| has_metric(route, metric))?;
    // A route has the smaller MTU of the two nodes that it connects, and the one to the pod gateways that of this node.
    let of_node = on_link.first().map(|route| route.mtu);
    let largest = || all.iter().map(|route| route.mtu).collect::<Option<Vec<u32>>>()?.into_iter().max();
    Ok(CommonOptions {
        device: first.next_hop.device.clone().unwrap_or_default(),
        table: first.table,
        metric,
        mtu: of_node.unwrap_or_else(largest),
    })
}

/// Returns the error for a node without routes to the pods of other nodes.
pub(super) fn no_routes(own: &[IpNet], prefixes: &[IpNet]) -> Diagnostic {
    let inside = match (prefixes, own) {
        ([], []) => String::new(),
        ([], own) => {
            format!(
                " (looked for prefixes of the same length and private block as this node's {})",
                list(own, 4)
            )
        }
        (prefixes, _) => format!(" in {}", list(prefixes, 4)),
    };
    let message = format!("found no routes to the pod CIDRs of other nodes{inside}");
    Diagnostic::new(Rule::NoNodeRoutes, message).with_remedy(
        "run this on a node whose routes are set up; if they lead to other networks, pass --cluster-prefix and --pod-cidr",
    )
}
