//! Adapts routes whose next hops are not on the link of the egress interface.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    model::{Cluster, Family, MAIN_TABLE, NextHopKind, OffLink},
    state::{Host, Route, RouteScope, RouteType, Spread},
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
        let mut all: Vec<IpNet> = host.on_link(device).chain(planned).map(|p| p.trunc()).collect();
        all.sort_unstable();
        all.dedup();
        let mut by_length: BTreeMap<_, HashSet<_>> = BTreeMap::new();
        for prefix in &all {
            by_length.entry((Family::from(*prefix), prefix.prefix_len())).or_default().insert(*prefix);
        }
        Self { by_length, all }
    }

    pub fn covers(&self, address: IpAddr) -> bool {
        self.by_length.iter().any(|((family, length), prefixes)| {
            *family == Family::from(address)
                && IpNet::new(address, *length).is_ok_and(|prefix| prefixes.contains(&prefix.trunc()))
        })
    }
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
                NextHopKind::NodeAddress | NextHopKind::Router(_) => route.next.gateway,
            };
            if !needed.is_some_and(is_off) {
                return true;
            }
            match cluster.off_link {
                OffLink::Refuse => {}
                OffLink::Skip => return false,
                OffLink::Onlink => route.next.onlink = kind != NextHopKind::PodGateway,
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
    route.next.gateway = Some(gateway);
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
        let is_on_device = route.next.device.as_ref().is_some_and(|device| *device == self.device);
        route.next.gateway.filter(|gateway| {
            let is_usable = route.kind == RouteType::Unicast && is_on_device;
            is_usable && Family::from(*gateway) == Family::from(address)
        })
    }
}
