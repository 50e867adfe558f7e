//! Adapts routes to the links of a node as `offLink` asks, exactly as its script does
//! (`src/render/powershell/off-link.ps1`).

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    InterfaceRef, ObservedRoute, WindowsDesired, WindowsObserved, WindowsOrigin, observed::COLLECT_AGAIN,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ActiveRoute, ActiveTable},
    model::{Cluster, NextHopKind, OffLink},
    plan::off_link::{OnLink, UnusableNextHop},
    state::WindowsRoute,
    text::Untrusted,
};

/// What must be on the link of the egress interface for a route to another node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequiredLink {
    /// The index of the other node.
    pub peer: usize,
    /// The address that must be on the link: the next hop or, if that is a pod gateway, the address of its node.
    pub on_link: IpAddr,
    /// The other node's own address, whose gateway the route uses with `offLink: gateway`.
    pub address: Option<IpAddr>,
}

impl RequiredLink {
    /// Returns what must be on the link for `route`, or `None` if nothing must be.
    #[must_use]
    pub fn of(cluster: &Cluster, route: &WindowsRoute, origin: WindowsOrigin) -> Option<Self> {
        let WindowsOrigin::Node(peer) = origin else { return None };
        let (node, family) = (&cluster.nodes[peer], route.family());
        let address = node.addresses.get(family).copied();
        let is_pod_gateway = cluster.next_hop_of(node, family) == NextHopKind::PodGateway;
        let on_link = match (cluster.off_link, is_pod_gateway) {
            // The route stays as it is: Windows has no flag for it.
            (OffLink::Onlink, _) | (OffLink::Refuse, true) => return None,
            // A pod gateway is on the link of its node.
            (OffLink::Skip | OffLink::Gateway, true) => address,
            (OffLink::Refuse | OffLink::Skip | OffLink::Gateway, false) => route.next_hop,
        };
        Some(Self { peer, on_link: on_link?, address })
    }
}

/// What becomes of a route to another node's pods.
pub(super) enum Adapted {
    /// It has this next hop.
    Via(IpAddr),
    /// There is none.
    Skipped,
    /// It cannot work.
    Unusable(Diagnostic),
}

/// What a node reaches on the link of its egress interface, and through which gateways it reaches the rest.
pub(super) struct NodeLink<'a> {
    cluster: &'a Cluster,
    name: &'a Untrusted,
    egress: &'a InterfaceRef,
    on_link: OnLink,
    /// The alias of the interface with each address of this machine.
    local: HashMap<IpAddr, &'a str>,
    /// The active routes that neither are managed nor will be.
    routes: ActiveTable,
    /// Whether the snapshot has the lengths of the prefixes on the link.
    has_prefixes: bool,
}

impl<'a> NodeLink<'a> {
    pub fn new(
        cluster: &'a Cluster,
        name: &'a Untrusted,
        desired: &WindowsDesired,
        observed: &'a WindowsObserved,
        egress: &'a InterfaceRef,
    ) -> Self {
        let alias = |index: u32| observed.interfaces.iter().find(|interface| interface.index == index);
        let alias = |index| alias(index).map_or("", |interface| interface.alias.as_str());
        let local: HashMap<IpAddr, &str> =
            observed.addresses.iter().map(|local| (local.address, alias(local.index))).collect();
        let foreign = Foreign::new(desired, observed);
        let own = observed.addresses.iter().filter(|local| local.index == egress.index);
        let networks = own.clone().filter_map(|local| IpNet::new(local.address, local.prefix_length?).ok());
        let reached = foreign.active().filter(|(route, _)| route.index == egress.index);
        let reached =
            reached.filter(|(route, _)| route.next_hop == WindowsRoute::on_link(route.destination.into()));
        let reached = reached.map(|(route, _)| route.destination).filter(|to| !is_multicast(*to));
        // Windows has routes to its own addresses and to broadcast addresses, each of which covers nothing else.
        let derived: HashSet<IpNet> = observed.derived.iter().map(|route| route.destination).collect();
        let is_whole = |prefix: &IpNet| prefix.prefix_len() == 0;
        let is_own = |prefix: &IpNet| {
            prefix.prefix_len() == prefix.max_prefix_len()
                && (derived.contains(prefix) || local.contains_key(&prefix.addr()))
        };
        Self {
            cluster,
            name,
            egress,
            on_link: networks.chain(reached).filter(|prefix| !is_whole(prefix) && !is_own(prefix)).collect(),
            has_prefixes: !observed.derived.is_empty()
                || own.clone().all(|local| local.prefix_length.is_some()),
            routes: foreign.usable(egress),
            local,
        }
    }

    /// Adapts a route with this next hop.
    pub fn adapt(&self, next_hop: IpAddr, required: &RequiredLink) -> Adapted {
        let RequiredLink { peer, on_link, address } = *required;
        let other = &self.cluster.nodes[peer].name;
        let unusable = UnusableNextHop { next_hop, other, device: &self.egress.alias };
        if let Some(holder) = self.local.get(&on_link) {
            if on_link != next_hop {
                return Adapted::Via(next_hop);
            }
            let remedy = format!(
                "this machine looks like node {other}, not {}; run the script of node {other} here, or fix the address in the file",
                self.name
            );
            return Adapted::Unusable(unusable.report_local(holder).with_remedy(remedy));
        }
        if self.on_link.covers(on_link) {
            return Adapted::Via(next_hop);
        }
        let unknown = |what: &str| {
            let message = format!(
                "cannot tell how this node reaches next hop {next_hop} of node {other}: the {what} are unknown"
            );
            let problem = Diagnostic::new(Rule::PathUnknown, message).as_error();
            Adapted::Unusable(problem.with_remedy(COLLECT_AGAIN))
        };
        if !self.has_prefixes {
            return unknown("prefix lengths of addresses");
        }
        let off_link = self.cluster.off_link;
        if off_link == OffLink::Skip {
            return Adapted::Skipped;
        }
        let routes =
            address.filter(|_| off_link == OffLink::Gateway).map(|address| self.routes.lookup(address));
        let routes = routes.unwrap_or_default();
        if routes.len() > 1 && routes.iter().any(|route| route.interface_metric.is_none()) {
            return unknown("interface metrics");
        }
        // Several routes with the same metric are equally good.
        let mut routes = routes.iter().filter(|route| route.interface == self.egress.index);
        let is_usable = |gateway: &IpAddr| !gateway.is_unspecified() && !self.local.contains_key(gateway);
        match routes.find_map(|route| Some(route.next_hop).filter(is_usable)) {
            Some(gateway) => Adapted::Via(gateway),
            None => Adapted::Unusable(unusable.report_off_link(off_link, &self.on_link, "New-NetIPAddress")),
        }
    }
}

/// The routes that neither are managed nor will be: those that decide how this node reaches others.
struct Foreign<'a> {
    observed: &'a WindowsObserved,
    owned: HashSet<(&'a str, IpNet, IpAddr)>,
    desired: HashSet<IpNet>,
}

impl<'a> Foreign<'a> {
    fn new(desired: &WindowsDesired, observed: &'a WindowsObserved) -> Self {
        let desired = desired.state.routes.iter().map(|route| route.destination_prefix).collect();
        Self { observed, owned: observed.owned_keys(), desired }
    }

    /// Iterates over the active routes, each with its metric.
    fn active(&self) -> impl Iterator<Item = (&'a ObservedRoute, u32)> + '_ {
        let is_foreign = |route: &&ObservedRoute| {
            !self.desired.contains(&route.destination)
                && !self.owned.contains(&(route.alias.as_str(), route.destination, route.next_hop))
        };
        let stored = self
            .observed
            .routes
            .iter()
            .filter(is_foreign)
            .filter_map(|route| Some((route, route.active_metric?)));
        let derived = self.observed.derived.iter().filter(is_foreign);
        stored.chain(derived.map(|route| (route, route.derived_metric())))
    }

    /// Returns the active routes whose interfaces are connected, or not known to be disconnected. The egress interface
    /// is treated as if it were connected.
    fn usable(&self, egress: &InterfaceRef) -> ActiveTable {
        let table = self.active().filter_map(|(route, metric)| {
            let interface = self.observed.interface(route.index, route.destination.into());
            let is_usable =
                route.index == egress.index || interface.is_none_or(|interface| !interface.is_disconnected());
            is_usable.then(|| ActiveRoute {
                destination: route.destination,
                next_hop: route.next_hop,
                interface: route.index,
                route_metric: metric,
                interface_metric: interface.and_then(|interface| interface.metric),
            })
        });
        table.collect()
    }
}

fn is_multicast(prefix: IpNet) -> bool {
    prefix.addr().is_multicast() && prefix.prefix_len() >= if prefix.addr().is_ipv4() { 4 } else { 8 }
}
