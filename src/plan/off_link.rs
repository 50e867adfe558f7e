//! Adapts routes whose next hops are not on the link of the egress interface, and words what cannot be adapted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Cluster, ConfigPath, Family, MAIN_TABLE, NextHopKind, OffLink},
    state::{Host, Route, RouteScope, RouteType, Spread},
    text::{Untrusted, count, list},
};

use super::{Desired, Observed};

/// The prefixes that are reachable through an interface without a gateway.
pub(super) struct OnLink {
    by_length: BTreeMap<(Family, u8), HashSet<IpNet>>,
    /// The prefixes, sorted.
    pub all: Vec<IpNet>,
}

impl OnLink {
    /// Collects the prefixes of the interface's addresses, of foreign routes, and of the on-link routes that the plan
    /// adds.
    pub fn of(device: &str, desired: &Desired, host: &Host) -> Self {
        let planned = desired
            .state
            .routes
            .iter()
            .filter(|route| route.is_on_link(device))
            .map(|route| route.destination);
        host.on_link(device).chain(planned).collect()
    }
}

impl FromIterator<IpNet> for OnLink {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut all: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        all.sort_unstable();
        all.dedup();
        let mut by_length: BTreeMap<_, HashSet<_>> = BTreeMap::new();
        for prefix in &all {
            by_length.entry((Family::from(*prefix), prefix.prefix_len())).or_default().insert(*prefix);
        }
        Self { by_length, all }
    }
}

impl OnLink {
    pub fn covers(&self, address: IpAddr) -> bool {
        self.by_length.iter().any(|((family, length), prefixes)| {
            *family == Family::from(address)
                && IpNet::new(address, *length).is_ok_and(|prefix| prefixes.contains(&prefix.trunc()))
        })
    }
}

/// A next hop that packets cannot use, on a node of either system.
pub(super) struct UnusableNextHop<'a> {
    pub next_hop: IpAddr,
    /// The node whose pods are behind it.
    pub other: &'a Untrusted,
    /// The interface that carries pod traffic.
    pub device: &'a str,
}

impl UnusableNextHop<'_> {
    /// Reports that the next hop is an address of this machine, on the interface `holder`. The finding has no remedy yet.
    pub fn report_local(&self, holder: &dyn std::fmt::Display) -> Diagnostic {
        let Self { next_hop, other, .. } = self;
        let message = format!(
            "next hop {next_hop} of node {other} is this node's own address (on {holder}): packets would never leave this node"
        );
        Diagnostic::new(Rule::NextHopIsLocal, message)
    }

    /// Reports that the next hop is not on the link. `command` assigns an address.
    pub fn report_off_link(&self, off_link: OffLink, on_link: &OnLink, command: &str) -> Diagnostic {
        let Self { next_hop, other, device } = self;
        let family = Family::from(*next_hop);
        let networks: Vec<_> = on_link.all.iter().filter(|prefix| Family::from(**prefix) == family).collect();
        let remedy = if networks.is_empty() {
            format!("{device} has no {family} address in the nodes' network: assign one with `{command}`")
        } else if off_link == OffLink::Gateway {
            format!(
                "set node {other}'s address to one that this node reaches through a gateway on {device}, or set its nextHop"
            )
        } else {
            let networks = list(&networks, 4);
            format!(
                "use a next hop in {networks}, the network on {device}, or set offLink to gateway, skip or onlink"
            )
        };
        let message = format!("next hop {next_hop} of node {other} is not on-link on {device}");
        Diagnostic::new(Rule::NextHopNotOnLink, message).with_remedy(remedy)
    }
}

/// Returns a warning about the nodes to which the node at `index` has no route, if there are any.
pub(super) fn skipped<'a>(
    cluster: &Cluster,
    index: usize,
    skipped: impl IntoIterator<Item = &'a usize>,
) -> Option<Diagnostic> {
    let names: Vec<&Untrusted> = skipped.into_iter().map(|node| &cluster.nodes[*node].name).collect();
    let others = cluster.nodes.iter().enumerate().filter(|(other, node)| *other != index && node.has_pods());
    (!names.is_empty()).then(|| {
        let message = format!(
            "no route to {} of {} (offLink: skip); not on this node's link: {}",
            names.len(),
            count(others.count(), "other node"),
            list(&names, 6)
        );
        Diagnostic::new(Rule::SkippedOffLink, message).at(Some(ConfigPath::root().key("offLink")))
    })
}

impl Desired {
    /// Adapts the routes to nodes that are not on this node's link, as `offLink` asks. [`check`](super::check())
    /// reports the routes that cannot be adapted, which stay as they are.
    pub fn adapt_off_link(&mut self, cluster: &Cluster, index: usize, observed: &Observed) {
        let host = &observed.host;
        let device = cluster.egress_interface_of(&cluster.nodes[index]).map(|name| name.as_str().to_owned());
        let Some(device) = device.filter(|_| cluster.off_link != OffLink::Refuse) else { return };
        let on_link = OnLink::of(&device, self, host);
        let is_off = |address: IpAddr| !on_link.covers(address) && host.owner_of(address).is_none();
        let gateways = Gateways::new(host, &device);
        self.adapt_routes(|route, node| {
            let (node, family) = (&cluster.nodes[node], route.family());
            let address = node.addresses.get(family).copied();
            let kind = cluster.next_hop_of(node, family);
            // A pod gateway is on the link of its node.
            let needed = match kind {
                NextHopKind::PodGateway => address,
                NextHopKind::NodeAddress | NextHopKind::Router(_) => route.next_hop.gateway,
            };
            if !needed.is_some_and(is_off) {
                return true;
            }
            match cluster.off_link {
                OffLink::Refuse => {}
                OffLink::Skip => return false,
                OffLink::Onlink => route.next_hop.onlink = kind != NextHopKind::PodGateway,
                OffLink::Gateway => {
                    if let Some(gateway) = address.and_then(|address| gateways.to(address)) {
                        lead_through(route, gateway);
                    }
                }
            }
            true
        });
    }
}

fn lead_through(route: &mut Route, gateway: IpAddr) {
    route.next_hop.gateway = Some(gateway);
    if let (RouteScope::Spread(_), IpAddr::V4(gateway)) = (route.scope, gateway) {
        route.scope = RouteScope::Spread(Spread::of(gateway));
    }
}

/// The gateways on an interface that the routing table has for addresses.
struct Gateways<'a> {
    /// The routes of the main table, the longest prefixes first.
    routes: Vec<&'a Route>,
    device: &'a str,
}

impl<'a> Gateways<'a> {
    fn new(host: &'a Host, device: &'a str) -> Self {
        let is_usable = |route: &&Route| route.table == MAIN_TABLE && route.tos.unwrap_or(0) == 0;
        let mut routes: Vec<&Route> = host.foreign.iter().filter(is_usable).collect();
        routes.sort_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric));
        Self { routes, device }
    }

    fn to(&self, address: IpAddr) -> Option<IpAddr> {
        let route = self.routes.iter().find(|route| route.destination.contains(&address))?;
        let is_on_device = route.next_hop.device.as_ref().is_some_and(|device| *device == self.device);
        route.next_hop.gateway.filter(|gateway| {
            let is_usable = route.kind == RouteType::Unicast && is_on_device;
            is_usable && Family::from(*gateway) == Family::from(address)
        })
    }
}
