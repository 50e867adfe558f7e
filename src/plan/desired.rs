//! The desired state of a node, computed from the configuration alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        Cluster, ConfigPath, Family, NatSource, NatTo, NextHopKind, Node, OperatingSystem, PerFamily,
        PodNetwork, Prefixed, RouteOptions, RouteSource, SysctlKey, Unassigned,
    },
    state::{
        BaseChain, ChainPolicy, ChainType, Expression, Field, Hook, NatChain, NatRule, NatTable, NextHop,
        Route, RouteKey, RouteScope, RouteType, RuleBody, Spread, State, protocol,
    },
    text::Untrusted,
};

use super::switch;

/// The kernel's metric for an IPv6 route without one (`IP6_RT_PRIO_USER`, net/ip6_route.h).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// The desired state of a node, with the origin of each route.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The state.
    pub state: State,
    /// The cluster prefixes, which are part of the scope of an observation.
    pub prefixes: Vec<IpNet>,
    /// The sysctls in `state` that are not configured: hostgw restores their original values.
    pub released: BTreeSet<SysctlKey>,
    /// The indexes of the nodes to which there is no route, because they are not on this node's link (`offLink: skip`).
    pub skipped: BTreeSet<usize>,
    /// Whether routes differ from what the configuration alone asks for.
    pub is_adapted: bool,
    /// The index of the node, unless this is the state without hostgw.
    pub(super) node: Option<usize>,
    /// The origins of the routes of `state`, in the same order.
    origins: Vec<Origin>,
}

/// The part of the configuration that asks for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The cluster prefix, which asks for an on-link route.
    ClusterPrefix,
    /// `routes.unassigned`, which asks for an unreachable route to the cluster prefix.
    Unassigned,
    /// The node with this index, whose pods the route reaches.
    Node(usize),
}

impl Origin {
    /// Returns the location in the configuration, for the route to `destination`.
    pub(super) fn path(self, cluster: &Cluster, destination: IpNet) -> ConfigPath {
        let index = match self {
            Self::Node(index) => index,
            Self::ClusterPrefix => return ConfigPath::root().key("clusterPrefix"),
            Self::Unassigned => return ConfigPath::root().key("routes").key("unassigned"),
        };
        let path = ConfigPath::root().known_key("nodes").index(index);
        let node = &cluster.nodes[index];
        let has_gateway = || node.pods.at(destination).is_some_and(|pods| pods.gateway.is_some());
        path.known_key(match cluster.next_hop_of(node, destination.into()) {
            NextHopKind::NodeAddress => "address",
            NextHopKind::PodGateway if has_gateway() => "gateway",
            NextHopKind::Router(_) if node.next_hop().is_some() => "nextHop",
            NextHopKind::PodGateway | NextHopKind::Router(_) => "podCIDR",
        })
    }
}

/// What the routes of one node have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// The egress interface; `None` if the configuration does not name it.
    pub device: Option<Untrusted>,
    /// The MTU of the node.
    pub mtu: Option<u32>,
    /// The preferred source addresses.
    pub sources: PerFamily<IpAddr>,
}

impl Sender {
    /// Returns what the routes of `node` have in common.
    #[must_use]
    pub fn of(cluster: &Cluster, node: &Node) -> Self {
        let device = cluster.egress_interface_of(node).map(|name| name.as_str().into());
        Self { device, mtu: cluster.mtu_of(node), sources: route_sources(cluster, node) }
    }

    /// Returns `route`, which only depends on its destination, as this node has it.
    #[must_use]
    pub fn adapt(&self, mut route: Route) -> Route {
        // An unreachable route leads to no interface.
        if route.kind == RouteType::Unicast {
            route.next_hop.device.clone_from(&self.device);
            // The packets must fit both ends.
            route.mtu = route.mtu.into_iter().chain(self.mtu).min();
            route.source = self.sources.get(route.family()).copied();
        }
        route
    }
}

/// Returns the preferred source addresses of the routes of `node`.
pub(super) fn route_sources(cluster: &Cluster, node: &Node) -> PerFamily<IpAddr> {
    let mut sources = PerFamily::default();
    if cluster.routes.source == RouteSource::NodeAddress {
        for family in cluster.prefixes.families() {
            *sources.get_mut(family) = node.addresses.get(family).copied();
        }
    }
    sources
}

/// The node is not a Linux node. Its plan is a script from `hostgw render`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotLinux;

/// The values that sysctls had before hostgw first wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct OriginalSysctls(pub BTreeMap<SysctlKey, OriginalValue>);

/// The original value of a sysctl, and how it was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginalValue {
    /// The value from before hostgw first wrote the key.
    pub value: Untrusted,
    /// The forwarding switch whose change made the kernel overwrite this key; absent if hostgw wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<SysctlKey>,
    /// The last value that hostgw wrote, or the kernel because of it. Any other value is foreign.
    pub last: Untrusted,
    /// Whether hostgw also wrote the key itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub written: bool,
}

impl OriginalSysctls {
    /// Returns the saved values to restore: those of every key that is not in `wanted`. If the kernel overwrites a key
    /// because of a switch that is still wanted, its value is the one that the switch implies.
    pub fn to_restore<'a>(
        &'a self,
        wanted: &'a BTreeMap<SysctlKey, Untrusted>,
    ) -> impl Iterator<Item = (SysctlKey, Untrusted)> + 'a {
        self.0.iter().filter(|(key, _)| !wanted.contains_key(key)).filter_map(|(key, saved)| {
            let switched = saved.with.as_ref().and_then(|switch| wanted.get(switch));
            let value = match switched {
                None => saved.value.clone(),
                Some(value) if saved.written => switch::value_with(key, value.as_raw()).into(),
                Some(_) => return None,
            };
            Some((key.clone(), value))
        })
    }
}

/// Computes the desired state of the node at `index` of `cluster`, including the `saved` values to restore.
///
/// # Errors
/// Returns [`NotLinux`] for a Windows node.
pub fn desired(cluster: &Cluster, index: usize, saved: &OriginalSysctls) -> Result<Desired, NotLinux> {
    let node = &cluster.nodes[index];
    if node.os != OperatingSystem::Linux {
        return Err(NotLinux);
    }
    let sender = Sender::of(cluster, node);
    let others = routes(cluster).filter(|(_, origin)| *origin != Origin::Node(index));
    let mut routes: Vec<_> = others.map(|(route, origin)| (sender.adapt(route), origin)).collect();
    let mut state = State { sysctls: sysctls(cluster, node.has_pods()), ..State::default() };
    for family in cluster.prefixes.families() {
        *state.nat.get_mut(family) = nat_table(cluster, node, family);
    }
    let released = release(&mut state.sysctls, saved);

    routes.sort_by_key(|(route, _)| route.key());
    let (routes, origins): (Vec<_>, _) = routes.into_iter().unzip();
    state.routes = routes.into();
    let prefixes = cluster.prefixes.iter().copied().collect();
    Ok(Desired {
        state,
        prefixes,
        released,
        skipped: BTreeSet::new(),
        is_adapted: false,
        node: Some(index),
        origins,
    })
}

/// Returns the desired routes of the node at `index` of `cluster` that have a wanted key, sorted by key. None for a
/// Windows node.
#[must_use]
pub fn desired_routes(cluster: &Cluster, index: usize, is_wanted: impl Fn(&RouteKey) -> bool) -> Vec<Route> {
    let node = &cluster.nodes[index];
    if node.os != OperatingSystem::Linux {
        return Vec::new();
    }
    let sender = Sender::of(cluster, node);
    let others = routes_at(cluster, &is_wanted).filter(|(_, origin)| *origin != Origin::Node(index));
    let mut routes: Vec<_> = others.map(|(route, _)| sender.adapt(route)).collect();
    routes.sort_by_key(Route::key);
    routes
}

/// Returns the routes of the whole cluster as a node with this `sender` has them, each with the index of the node that it leads
/// to, if any. A node has all of them but those to its own pods.
#[must_use]
pub fn routes_to_all(cluster: &Cluster, sender: &Sender) -> Vec<(Route, Option<usize>)> {
    let node_of = |origin| match origin {
        Origin::Node(index) => Some(index),
        Origin::ClusterPrefix | Origin::Unassigned => None,
    };
    routes(cluster).map(|(route, origin)| (sender.adapt(route), node_of(origin))).collect()
}

/// Adds the saved values to restore, and returns their keys.
fn release(sysctls: &mut BTreeMap<SysctlKey, Untrusted>, saved: &OriginalSysctls) -> BTreeSet<SysctlKey> {
    let restored: BTreeMap<_, _> = saved.to_restore(sysctls).collect();
    let keys = restored.keys().cloned().collect();
    sysctls.extend(restored);
    keys
}

impl Desired {
    /// Returns the desired state without hostgw: no managed objects, and the original values of all sysctls.
    #[must_use]
    pub fn nothing(saved: &OriginalSysctls) -> Self {
        let mut state = State::default();
        let released = release(&mut state.sysctls, saved);
        Self {
            state,
            prefixes: Vec::new(),
            released,
            skipped: BTreeSet::new(),
            is_adapted: false,
            node: None,
            origins: Vec::new(),
        }
    }

    /// Returns the origin of the route at `key`.
    pub(super) fn origin(&self, key: &RouteKey) -> Option<Origin> {
        let at = self.state.routes.binary_search_by(|route| route.key().cmp(key)).ok()?;
        self.origins.get(at).copied()
    }

    /// Calls `adapt` for each route to the pods of another node, with the index of that node, and removes the routes for
    /// which it returns `false`.
    pub(super) fn adapt_routes(&mut self, mut adapt: impl FnMut(&mut Route, usize) -> bool) {
        let mut origins = std::mem::take(&mut self.origins).into_iter();
        let (skipped, is_adapted, kept) = (&mut self.skipped, &mut self.is_adapted, &mut self.origins);
        let mut routes = self.state.routes.to_vec();
        routes.retain_mut(|route| {
            let Some(origin) = origins.next() else { return true };
            let is_kept = match origin {
                Origin::ClusterPrefix | Origin::Unassigned => true,
                Origin::Node(node) => {
                    let before = route.next_hop.clone();
                    let is_kept = adapt(route, node);
                    *is_adapted |= !is_kept || route.next_hop != before;
                    skipped.extend((!is_kept).then_some(node));
                    is_kept
                }
            };
            kept.extend(is_kept.then_some(origin));
            is_kept
        });
        self.state.routes = routes.into();
    }

    /// Returns the index of the node whose pods the route at `key` reaches.
    #[must_use]
    pub fn node_of(&self, key: &RouteKey) -> Option<usize> {
        match self.origin(key)? {
            Origin::Node(index) => Some(index),
            Origin::ClusterPrefix | Origin::Unassigned => None,
        }
    }

    /// Iterates over the routes to the pods of other nodes, each with the index of the node.
    pub fn routes_to_nodes(&self) -> impl Iterator<Item = (&Route, usize)> {
        self.state.routes.iter().zip(&self.origins).filter_map(|(route, origin)| match origin {
            Origin::Node(index) => Some((route, *index)),
            Origin::ClusterPrefix | Origin::Unassigned => None,
        })
    }

    /// Returns the location in the configuration that asks for the route at `key`.
    #[must_use]
    pub fn route_origin(&self, cluster: &Cluster, key: &RouteKey) -> Option<ConfigPath> {
        Some(self.origin(key)?.path(cluster, key.destination))
    }
}

/// Iterates over all routes of the cluster, before a [`Sender`] adapts them. Each node has them all, except those to its
/// own pods. In each family the on-link routes and the unreachable ones come first, then the nodes in the order of the
/// file.
pub(super) fn routes(cluster: &Cluster) -> impl Iterator<Item = (Route, Origin)> + '_ {
    routes_at(cluster, &|_| true)
}

/// Iterates over the same routes, as far as their keys are wanted. The others cost little.
pub(super) fn routes_at<'a>(
    cluster: &'a Cluster,
    is_wanted: &'a impl Fn(&RouteKey) -> bool,
) -> impl Iterator<Item = (Route, Origin)> + 'a {
    let is_key_wanted = is_wanted;
    let is_wanted = move |prefix: IpNet| is_key_wanted(&key(cluster, prefix));
    cluster.prefixes.families().flat_map(move |family| {
        let uses_pod_gateways = cluster.uses_pod_gateways(family);
        let is_rejected = cluster.routes.unassigned == Unassigned::Unreachable;
        let of_prefix = move |prefix: &IpNet| {
            let on_link = (uses_pod_gateways && is_wanted(*prefix))
                .then(|| (route(cluster, *prefix, None), Origin::ClusterPrefix));
            let unassigned = is_rejected
                .then(|| unreachable(cluster, *prefix))
                .filter(|route| is_key_wanted(&route.key()))
                .map(|route| (route, Origin::Unassigned));
            on_link.into_iter().chain(unassigned)
        };
        let to_node = move |(number, node): (usize, &'a Node)| {
            node.pods.of(family).filter_map(move |pods| {
                let prefix = pods.prefix();
                let gateway = is_wanted(prefix).then(|| next_hop(cluster, node, pods)).flatten()?;
                let route = Route { mtu: cluster.mtu_of(node), ..route(cluster, prefix, Some(gateway)) };
                Some((route, Origin::Node(number)))
            })
        };
        let nodes = cluster.nodes.iter().enumerate().flat_map(to_node);
        cluster.prefixes.of(family).flat_map(of_prefix).chain(nodes)
    })
}

/// Returns the key of the route to `destination`.
fn key(cluster: &Cluster, destination: IpNet) -> RouteKey {
    let RouteOptions { table, metric, .. } = cluster.routes;
    let is_default = metric == 0 && Family::from(destination) == Family::V6;
    let metric = if is_default { IPV6_DEFAULT_METRIC } else { metric };
    RouteKey { table, destination, tos: 0, metric, from: None }
}

/// Returns the configured sysctls: the forwarding switches that the cluster prefixes imply on a node with pods, and those
/// listed in the file.
pub(super) fn sysctls(cluster: &Cluster, has_pods: bool) -> BTreeMap<SysctlKey, Untrusted> {
    let families = cluster.prefixes.families().filter(|_| has_pods);
    let switches = families.map(|family| (SysctlKey::forwarding(family), "1".into()));
    switches.chain(cluster.sysctls.iter().cloned()).collect()
}

/// Returns the next hop of the routes to `pods` of the node `other`.
pub(super) fn next_hop(cluster: &Cluster, other: &Node, pods: &PodNetwork) -> Option<IpAddr> {
    let family = pods.family();
    match cluster.next_hop_of(other, family) {
        NextHopKind::PodGateway => Some(other.gateway_of(pods)),
        NextHopKind::NodeAddress => other.addresses.get(family).copied(),
        NextHopKind::Router(router) => Some(router),
    }
}

/// Returns a route exactly as the kernel reports it, so that the two compare equal, but for what a [`Sender`] adapts.
fn route(cluster: &Cluster, destination: IpNet, gateway: Option<IpAddr>) -> Route {
    let options = cluster.routes;
    let is_v6 = Family::from(destination) == Family::V6;
    let scope = match gateway {
        Some(IpAddr::V4(gateway)) if options.spread.applies_to(cluster.nodes.len()) => {
            RouteScope::Spread(Spread::of(gateway))
        }
        None if !is_v6 => RouteScope::Link,
        _ => RouteScope::Global,
    };
    Route {
        destination,
        table: options.table,
        tos: None,
        metric: key(cluster, destination).metric,
        protocol: protocol::HOSTGW,
        scope,
        kind: RouteType::Unicast,
        next_hop: NextHop { gateway, device: None, onlink: false },
        source: None,
        mtu: None,
        opaque: None,
    }
}

/// Returns the route that rejects packets for which there is no better one.
fn unreachable(cluster: &Cluster, destination: IpNet) -> Route {
    // The kernel gives IPv6 routes of this type the interface lo.
    let device = (Family::from(destination) == Family::V6).then(|| "lo".into());
    Route {
        metric: u32::MAX,
        kind: RouteType::Unreachable,
        scope: RouteScope::Global,
        next_hop: NextHop { gateway: None, device, onlink: false },
        ..route(cluster, destination, None)
    }
}

/// Returns the NAT table of `node` in `family`, or `None` if nothing is masqueraded.
pub(super) fn nat_table(cluster: &Cluster, node: &Node, family: Family) -> Option<NatTable> {
    if !cluster.masquerades(family) || !node.has_pods() {
        return None;
    }
    let flags = if cluster.nat.random_fully { Expression::FULLY_RANDOM } else { 0 };
    let translate = match cluster.nat.to {
        NatTo::Interface => Expression::Masquerade { flags },
        // Without an address of the family, the node has no pods of it.
        NatTo::NodeAddress => Expression::SourceNat { address: *node.addresses.get(family)?, flags },
    };
    let masquerade = |source: Option<IpNet>| {
        let source = source.map(|prefix| Expression::Address { field: Field::Saddr, negated: false, prefix });
        let outside = cluster.prefixes.of(family).map(|prefix| Expression::Address {
            field: Field::Daddr,
            negated: true,
            prefix: *prefix,
        });
        let rest = [Expression::NotLocal, Expression::Counter, translate];
        let expressions = source.into_iter().chain(outside).chain(rest).collect();
        rule(expressions, "hostgw: traffic that leaves the cluster")
    };
    let sources: Vec<Option<IpNet>> = match cluster.nat.source {
        NatSource::Any => vec![None],
        NatSource::Pods => node.pods.of(family).map(|pods| Some(pods.prefix())).collect(),
    };
    if sources.is_empty() {
        return None;
    }
    let excluded = cluster.nat.exclude.iter().filter(|prefix| Family::from(**prefix) == family);
    let mut rules: Vec<NatRule> = excluded
        .map(|prefix| {
            let destination = Expression::Address { field: Field::Daddr, negated: false, prefix: *prefix };
            rule(vec![destination, Expression::Return], "hostgw: nat.exclude")
        })
        .collect();
    rules.extend(sources.into_iter().map(masquerade));
    Some(NatTable {
        family,
        flags: 0,
        chains: vec![NatChain { name: "postrouting".into(), base: Some(postrouting()), rules }],
        others: Vec::new(),
    })
}

const fn postrouting() -> BaseChain {
    BaseChain {
        kind: ChainType::Nat,
        hook: Hook::Postrouting,
        priority: BaseChain::SRCNAT,
        policy: ChainPolicy::Accept,
    }
}

fn rule(expressions: Vec<Expression>, comment: &str) -> NatRule {
    NatRule { body: RuleBody::Known(expressions), comment: Some(comment.into()) }
}
