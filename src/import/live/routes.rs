//! The routes to the pods of other nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    super::prefix::private_block,
    plugin,
    pods::{self, NodeView},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, MAIN_TABLE, PodCidr, address_number, common_prefix},
    state::{PLUGIN_PROTOCOLS, Route, RouteType},
    text::{Untrusted, count, list},
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
    /// A router that leads to several nodes.
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
    /// Whether everything in the prefixes is a pod. A rule of the firewall may name a network that contains more.
    pub is_exact: bool,
    /// The only interface whose routes count, if it is given.
    pub device: Option<&'a str>,
}

/// The routes to the pods of other nodes, sorted by destination.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundRoutes<'a> {
    pub routes: Vec<NodeRoute<'a>>,
    /// The routes that resemble them, but probably lead to other networks.
    pub doubtful: Vec<&'a Route>,
}

fn not_describable(message: String, remedy: &str) -> Diagnostic {
    Diagnostic::new(Rule::NotDescribable, message).with_remedy(remedy)
}

impl KnownPods<'_> {
    /// Whether a route leads to pods of other nodes.
    fn leads_to_pods(&self, route: &Route) -> bool {
        let destination = route.destination;
        let is_own = self.own.iter().any(|own| own.contains(&destination) || destination.contains(own));
        // A plan can only adopt a route for all types of service.
        if is_own || destination.prefix_len() == 0 || route.kind != RouteType::Unicast || route.tos.is_some()
        {
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
        self.own.iter().any(|own| {
            own.prefix_len() == destination.prefix_len() && private_block(*own) == private_block(destination)
        })
    }

    /// The routes that resemble those to pods, but are not among `found`. `cluster` are the cluster prefixes.
    ///
    /// # Errors
    /// Returns an error about a route to a single pod of these networks.
    pub fn left_out<'a>(
        &self,
        view: &NodeView<'a>,
        cluster: &[IpNet],
        found: &[NodeRoute<'a>],
    ) -> Result<Vec<&'a Route>, Diagnostic> {
        let is_found = |net: IpNet| found.iter().any(|found| found.route.destination == net);
        let is_on_device =
            |route: &Route| self.device.is_none_or(|device| route.hops().all(|(_, name)| *name == *device));
        let resembles = |route: &&Route| {
            let net = route.destination;
            let is_own = self.own.iter().any(|own| own.contains(&net) || net.contains(own));
            route.kind == RouteType::Unicast
                && route.next_hop.gateway.is_some()
                && net.prefix_len() > 0
                && !cluster.contains(&net)
                && !is_own
                && (!is_found(net) || route.tos.is_some())
                && is_on_device(route)
                && cluster.iter().any(|prefix| is_near(*prefix, net))
        };
        let routes: Vec<&Route> = view.added(self.family).filter(resembles).collect();
        let is_certain = |net: IpNet| self.is_exact || self.own.iter().any(|own| is_near(*own, net));
        let is_pod = |route: &&&Route| {
            PodCidr::new(route.destination).is_err()
                && cluster.iter().any(|prefix| prefix.contains(&route.destination))
                && is_certain(route.destination)
        };
        match routes.iter().find(is_pod) {
            Some(route) => Err(single_pod(route)),
            // A single address outside the cluster is that of a machine.
            None => Ok(routes.into_iter().filter(|route| PodCidr::new(route.destination).is_ok()).collect()),
        }
    }

    /// Finds the routes to the pods of other nodes, sorted by destination.
    ///
    /// # Errors
    /// Returns an error about a route that a configuration cannot describe.
    pub fn routes<'a>(&self, view: &NodeView<'a>) -> Result<FoundRoutes<'a>, Diagnostic> {
        let default_gateways = default_gateways(view);
        let resembling: Vec<&Route> =
            view.added(self.family).filter(|route| self.leads_to_pods(route)).collect();
        let doubtful = match self.is_exact && !self.prefixes.is_empty() {
            true => BTreeSet::new(),
            false => {
                Evidence { known: self, view, default_gateways: &default_gateways }.doubtful(&resembling)
            }
        };
        let (doubtful, certain): (Vec<&Route>, Vec<&Route>) =
            resembling.into_iter().partition(|route| doubtful.contains(&route.destination));
        let mut by_destination: BTreeMap<IpNet, &Route> = BTreeMap::new();
        for route in certain {
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
                return Err(single_pod(route));
            }
            let first = by_destination.entry(route.destination).or_insert(route);
            // Packets use the route with the lowest metric, unless it was added after hostgw's.
            if (!route.is_owned(), route.metric) < (!first.is_owned(), first.metric) {
                *first = route;
            }
        }
        let has_several = self.own.len() > 1;
        let routes = with_hops(by_destination.into_values().collect(), &default_gateways, has_several);
        let is_by_default_gateway =
            |route: &Route| route.next_hop.gateway.is_some_and(|gateway| default_gateways.contains(&gateway));
        let is_on_device =
            |route: &Route| self.device.is_none_or(|device| route.hops().all(|(_, name)| *name == *device));
        // Networks behind the default gateway are usually those of the data center.
        let doubtful = doubtful.into_iter().filter(|route| {
            !is_by_default_gateway(route) && is_on_device(route) && PodCidr::new(route.destination).is_ok()
        });
        Ok(FoundRoutes { routes, doubtful: doubtful.collect() })
    }
}

/// What shows whether routes lead to pods, if nothing shows the cluster prefix for certain.
struct Evidence<'a, 'v> {
    known: &'a KnownPods<'a>,
    view: &'a NodeView<'v>,
    default_gateways: &'a [IpAddr],
}

impl Evidence<'_, '_> {
    /// Finds the destinations among these that probably are other networks, such as those behind a VPN router.
    ///
    /// A controller assigns pod CIDRs of one length, one after the other: each one is close to the others.
    fn doubtful(&self, routes: &[&Route]) -> BTreeSet<IpNet> {
        let mut by_gateway: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for gateway in routes.iter().filter_map(|route| route.next_hop.gateway) {
            *by_gateway.entry(gateway).or_default() += 1;
        }
        let routers = self.routers();
        let (certain, uncertain): (Vec<&Route>, Vec<&Route>) =
            routes.iter().partition(|route| self.is_certain(route));
        let own = self.known.own;
        let mut members: BTreeSet<IpNet> =
            own.iter().copied().chain(certain.iter().map(|route| route.destination)).collect();
        let mut others: Vec<(IpNet, bool)> = Vec::new();
        let mut doubtful = BTreeSet::new();
        for route in uncertain {
            let net = route.destination;
            let Some(gateway) = route.next_hop.gateway.filter(|_| !members.contains(&net)) else { continue };
            let has_own_length = own.iter().any(|own| own.prefix_len() == net.prefix_len());
            // A single route via the default gateway can be one to any network.
            let is_single = self.default_gateways.contains(&gateway) && by_gateway.get(&gateway) == Some(&1);
            if !has_own_length || is_single {
                doubtful.insert(net);
            } else {
                others.push((net, routers.contains(&gateway)));
            }
        }
        others.sort_unstable();
        loop {
            let before = members.len();
            for _ in 0..2 {
                others.retain(|(net, is_by_router)| {
                    let is_member = is_adjacent(*net, &members) || !is_by_router && is_close(*net, &members);
                    if is_member {
                        members.insert(*net);
                    }
                    !is_member
                });
                others.reverse();
            }
            if members.len() == before {
                break;
            }
        }
        doubtful.extend(others.into_iter().map(|(net, _)| net));
        doubtful
    }

    /// Whether a route leads to pods for certain.
    fn is_certain(&self, route: &Route) -> bool {
        let net = route.destination;
        let has_pod_gateway = route.next_hop.gateway.is_some_and(|gateway| net.contains(&gateway));
        let by_plugin = PLUGIN_PROTOCOLS.iter().any(|(number, _)| *number == route.protocol);
        // Calico assigns the blocks of a pool in any order.
        let by_calico = pods::CALICO_PROTOCOLS.contains(&route.protocol)
            && self.view.routes.iter().any(|own| pods::is_calico_block(own));
        // The plugins that speak BGP also add the routes of other routers.
        let has_own_length = self.known.own.is_empty()
            || self.known.own.iter().any(|own| own.prefix_len() == net.prefix_len());
        route.is_owned() || has_pod_gateway || (by_plugin || by_calico) && has_own_length
    }

    /// The gateways that also lead to networks that cannot be pod CIDRs, except the default gateways.
    fn routers(&self) -> BTreeSet<IpAddr> {
        let is_pod_cidr = |net: IpNet| self.known.own.iter().any(|own| own.prefix_len() == net.prefix_len());
        let to_others = self.view.routes.iter().filter(|route| {
            let net = route.destination;
            net.prefix_len() > 0 && !is_pod_cidr(net) && PodCidr::new(net).is_ok()
        });
        let gateways = to_others.filter_map(|route| route.next_hop.gateway);
        gateways.filter(|gateway| !self.default_gateways.contains(gateway)).collect()
    }
}

/// Whether only few networks of the same length are between a network and the nearest of some others: not more than there are
/// others.
fn is_adjacent(net: IpNet, members: &BTreeSet<IpNet>) -> bool {
    const MIN: u128 = 16;
    let same = |member: &&IpNet| {
        member.prefix_len() == net.prefix_len() && Family::from(**member) == Family::from(net)
    };
    let bits = u32::from(Family::from(net).bits() - net.prefix_len());
    let number = |net: &IpNet| address_number(net.network()).checked_shr(bits).unwrap_or(0);
    let before = members.range(..=net).rev().find(same);
    let after = members.range(net..).find(same);
    let gap = before.into_iter().chain(after).map(|member| number(member).abs_diff(number(&net))).min();
    let most = u128::try_from(members.len()).unwrap_or(MIN).saturating_mul(2).max(MIN);
    gap.is_some_and(|gap| gap <= most)
}

/// Whether a network can belong to one cluster with the nearest of some others.
fn is_close(net: IpNet, members: &BTreeSet<IpNet>) -> bool {
    let nearest = members.range(..=net).next_back().into_iter().chain(members.range(net..).next());
    nearest.into_iter().any(|member| is_near(*member, net))
}

/// The default gateways of this node.
fn default_gateways(view: &NodeView<'_>) -> Vec<IpAddr> {
    let defaults = view.routes.iter().filter(|route| route.destination.prefix_len() == 0);
    defaults.filter_map(|route| route.next_hop.gateway).collect()
}

fn single_pod(route: &Route) -> Diagnostic {
    let message = format!("`{route}` leads to a single pod, but hostgw only adds routes to whole pod CIDRs");
    not_describable(
        message,
        "let each node assign addresses from its own pod CIDR only, and remove this route",
    )
}

/// Whether two networks can belong to one cluster. Cluster prefixes are usually not larger than these.
fn is_near(cluster: IpNet, other: IpNet) -> bool {
    let usual: u8 = match Family::from(cluster) {
        Family::V4 => 16,
        Family::V6 => 48,
    };
    // A given prefix can be somewhat too small.
    let shortest = usual.min(cluster.prefix_len().saturating_sub(4));
    private_block(cluster) == private_block(other)
        && common_prefix([cluster, other].into_iter()).is_some_and(|common| common.prefix_len() >= shortest)
}

/// Refuses a computed cluster prefix that is far larger than the nodes need, because of routes that may not lead to pods.
///
/// # Errors
/// Returns an error that names the routes.
pub(super) fn check_computed(own: &[IpNet], routes: &[NodeRoute<'_>]) -> Result<(), Diagnostic> {
    const MAX_NETWORKS_PER_NODE: u64 = 1024;
    // Without a plugin's mark, a route is only taken for one to pods because of its length.
    let is_certain = |found: &&NodeRoute<'_>| {
        found.route.is_owned() || PLUGIN_PROTOCOLS.iter().any(|(number, _)| *number == found.route.protocol)
    };
    let (certain, uncertain): (Vec<&NodeRoute<'_>>, Vec<&NodeRoute<'_>>) =
        routes.iter().partition(is_certain);
    let far: Vec<&Route> = uncertain
        .iter()
        .map(|found| found.route)
        .filter(|route| !own.iter().any(|own| is_near(*own, route.destination)))
        .collect();
    let cidrs: Vec<IpNet> =
        own.iter().copied().chain(routes.iter().map(|found| found.route.destination)).collect();
    let Some(computed) = common_prefix(cidrs.iter().copied()) else { return Ok(()) };
    let length = cidrs.iter().map(IpNet::prefix_len).max().unwrap_or(0);
    let networks =
        1u64.checked_shl(u32::from(length.saturating_sub(computed.prefix_len()))).unwrap_or(u64::MAX);
    let needed = u64::try_from(own.len() + certain.len() + uncertain.len()).unwrap_or(u64::MAX);
    if far.is_empty() || networks <= needed.saturating_mul(MAX_NETWORKS_PER_NODE) {
        return Ok(());
    }
    let named: Vec<String> = far.iter().map(|route| format!("`{route}`")).collect();
    let message = format!(
        "cluster prefix cannot be determined: with {}, it would be {computed}, which is far larger than {} need",
        list(&named, 4),
        count(cidrs.len(), "pod CIDR")
    );
    Err(Diagnostic::new(Rule::ClusterPrefixUnknown, message).with_remedy(
        "pass --cluster-prefix with the value of kube-controller-manager's --cluster-cidr (kubeadm: podSubnet); routes outside \
         it are not imported",
    ))
}

/// Warns of attributes that the configuration does not keep.
pub(super) fn lost_attributes(routes: &[NodeRoute<'_>]) -> Option<Diagnostic> {
    let lost: Vec<&Route> =
        routes.iter().map(|found| found.route).filter(|route| route.opaque.is_some()).collect();
    let parts: BTreeSet<&Untrusted> =
        lost.iter().flat_map(|route| &route.opaque).flat_map(|opaque| &opaque.attributes).collect();
    let first = lost.first()?;
    let parts: Vec<&Untrusted> = parts.into_iter().collect();
    let parts = list(&parts, 8);
    let message = match lost.len() {
        1 => format!(
            "the route `{first}` to another node has attributes that a configuration cannot express: {parts}"
        ),
        some => format!(
            "{some} routes to other nodes, such as `{first}`, have attributes that a configuration cannot express: {parts}"
        ),
    };
    Some(
        Diagnostic::new(Rule::AttributesNotImported, message)
            .with_remedy("`hostgw apply --adopt` removes them: check whether pods need them"),
    )
}

/// Warns of an address that is imported as a router, because the routes to several pod CIDRs lead via it.
pub(super) fn routers(routes: &[NodeRoute<'_>]) -> Option<Diagnostic> {
    let mut by_router: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
    for NodeRoute { route, hop } in routes {
        if let (RouteHop::Router(address), false) = (hop, route.is_owned()) {
            by_router.entry(*address).or_default().push(route.destination);
        }
    }
    let (address, cidrs) = by_router.first_key_value()?;
    let others = match by_router.len() - 1 {
        0 => String::new(),
        others => format!(" (the same applies to {})", count(others, "other next hop")),
    };
    let message = format!(
        "the routes to {} lead via {address}, which is imported as a router, with one node for each pod CIDR{others}; the names and \
         addresses of these nodes are unknown",
        list(cidrs, 4)
    );
    Some(Diagnostic::new(Rule::NextHopUnknown, message).with_remedy(format!(
        "rename the nodes; if {address} is a single node, list it once, with all its pod CIDRs and `address: {address}`"
    )))
}

/// Finds the next hops of routes of one family. `has_several` says whether this node has several pod CIDRs: then the others can have
/// them, too.
fn with_hops<'a>(
    routes: Vec<&'a Route>,
    default_gateways: &[IpAddr],
    has_several: bool,
) -> Vec<NodeRoute<'a>> {
    let mut shared: BTreeMap<IpAddr, (usize, bool)> = BTreeMap::new();
    for route in &routes {
        if let Some(gateway) = route.next_hop.gateway {
            let (count, is_of_calico) = shared.entry(gateway).or_default();
            *count += 1;
            // Calico assigns several blocks to a node.
            *is_of_calico |= pods::CALICO_PROTOCOLS.contains(&route.protocol);
        }
    }
    // A single node may also be the default gateway of the others.
    let is_router = |gateway: IpAddr| {
        let (count, is_of_calico) = shared.get(&gateway).copied().unwrap_or_default();
        count > 1 && (default_gateways.contains(&gateway) || !is_of_calico && !has_several)
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

/// Warns of routes that may lead to pods, but are not imported.
pub(super) fn left_out_warning(left_out: &[&Route]) -> Option<Diagnostic> {
    if left_out.is_empty() {
        return None;
    }
    let named: Vec<String> = left_out.iter().map(|route| format!("`{route}`")).collect();
    let (message, remedy) = match &*named {
        [route] => (
            format!("a route was not imported, because it is unclear whether it leads to pods: {route}"),
            "if it does, pass --cluster-prefix with a prefix that contains it; otherwise, nothing needs to be done",
        ),
        routes => (
            format!(
                "routes were not imported, because it is unclear whether they lead to pods: {}",
                list(routes, 8)
            ),
            "if they do, pass --cluster-prefix with a prefix that contains them; otherwise, nothing needs to be done",
        ),
    };
    Some(Diagnostic::new(Rule::RoutesNotImported, message).with_remedy(remedy))
}

/// Returns the error for a node without routes to the pods of other nodes.
pub(super) fn no_routes(own: &[IpNet], prefixes: &[IpNet], left_out: &[&Route]) -> Diagnostic {
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
    if !left_out.is_empty() {
        let named: Vec<String> = left_out.iter().map(|route| format!("`{route}`")).collect();
        let message = format!("{message}; these may lead to pods: {}", list(&named, 4));
        return Diagnostic::new(Rule::NoNodeRoutes, message)
            .with_remedy("if they do, pass --cluster-prefix with a prefix that contains them");
    }
    Diagnostic::new(Rule::NoNodeRoutes, message).with_remedy(
        "run this on a node whose routes are set up; if they lead to other networks, or this is the only node, pass --cluster-prefix \
         and --pod-cidr",
    )
}
