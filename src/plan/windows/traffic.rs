//! Assigns routes to the traffic that they affect: packets use the most specific route, on whichever interface it is.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{ObservedRoute, WindowsOrigin};
use crate::state::WindowsRoute;

/// A desired route with its next hop on this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResolvedRoute {
    pub destination: IpNet,
    pub next_hop: IpAddr,
    pub metric: u32,
    pub origin: WindowsOrigin,
}

/// The indexes of the egress interface and, if there is one, of the pod interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct InterfaceIndexes {
    pub egress: u32,
    pub pod: Option<u32>,
}

/// The desired routes by destination, and the pods of every node by prefix.
#[derive(Debug, Default)]
pub(super) struct TrafficIndex {
    exact: HashMap<IpNet, ResolvedRoute>,
    pods: HashMap<IpNet, ResolvedRoute>,
    /// The prefix lengths in `pods`.
    lengths: BTreeSet<u8>,
}

impl ResolvedRoute {
    /// Returns `true` if packets of this route may use a route to `next_hop` on the interface `index`. The node's own
    /// pods are on-link on its pod interface, too.
    pub fn may_use(&self, next_hop: IpAddr, index: u32, interfaces: InterfaceIndexes) -> bool {
        let is_own = matches!(self.origin, WindowsOrigin::OwnPods(_));
        let is_on_link = next_hop == WindowsRoute::on_link(self.destination.into());
        (index == interfaces.egress && next_hop == self.next_hop)
            || (is_own && is_on_link && interfaces.pod == Some(index))
    }
}

impl TrafficIndex {
    pub fn new(wanted: &[ResolvedRoute]) -> Self {
        let mut index = Self::default();
        for entry in wanted {
            index.exact.insert(entry.destination, *entry);
            if entry.origin != WindowsOrigin::Master {
                index.pods.insert(entry.destination, *entry);
                index.lengths.insert(entry.destination.prefix_len());
            }
        }
        index
    }

    /// Returns the desired route to `destination`, or else the one to the pod CIDR that contains it.
    pub fn needed(&self, destination: IpNet) -> Option<&ResolvedRoute> {
        let containing = || {
            let shorter = self.lengths.iter().filter(|length| **length <= destination.prefix_len());
            let prefixes = shorter.filter_map(|length| IpNet::new(destination.addr(), *length).ok());
            prefixes.filter_map(|prefix| self.pods.get(&prefix.trunc())).next_back()
        };
        self.exact.get(&destination).or_else(containing)
    }

    /// Returns the desired route whose packets `route` would take on a different path.
    pub fn diverted_by(&self, route: &ObservedRoute, interfaces: InterfaceIndexes) -> Option<&ResolvedRoute> {
        let needed = self.needed(route.destination)?;
        (!needed.may_use(route.next_hop, route.index, interfaces)).then_some(needed)
    }
}

/// Returns the command that removes a persistent route.
pub(super) fn route_delete(destination: IpNet, next_hop: IpAddr) -> String {
    match destination {
        IpNet::V4(prefix) => format!("route delete {} mask {} {next_hop}", prefix.addr(), prefix.netmask()),
        IpNet::V6(prefix) => format!("route -6 delete {prefix} {next_hop}"),
    }
}
