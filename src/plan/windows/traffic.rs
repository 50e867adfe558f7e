//! Finds the routes that divert traffic: packets use the most specific route, on whichever interface it is.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::WindowsOrigin;

/// A desired route with its next hop on this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResolvedRoute {
    pub destination: IpNet,
    pub next_hop: IpAddr,
    pub metric: u32,
    pub origin: WindowsOrigin,
}

/// The desired routes by destination, and the pods of every node by prefix.
#[derive(Debug, Default)]
pub(super) struct TrafficIndex {
    exact: HashMap<IpNet, ResolvedRoute>,
    pods: HashMap<IpNet, ResolvedRoute>,
    /// The prefix lengths in `pods`.
    lengths: BTreeSet<u8>,
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

    /// Returns the desired route whose traffic a route to `destination` on the interface `index` diverts: the one to
    /// the same destination, or to the pod CIDR that contains it. The node's own pods belong on its pod interface.
    pub fn diverted_by(&self, destination: IpNet, index: u32, pod: u32) -> Option<&ResolvedRoute> {
        let containing = || {
            let shorter = self.lengths.iter().filter(|length| **length <= destination.prefix_len());
            let prefixes = shorter.filter_map(|length| IpNet::new(destination.addr(), *length).ok());
            prefixes.filter_map(|prefix| self.pods.get(&prefix.trunc())).next_back()
        };
        let diverted = self.exact.get(&destination).or_else(containing)?;
        let is_own = matches!(diverted.origin, WindowsOrigin::OwnPods(_)) && index == pod;
        (!is_own).then_some(diverted)
    }
}

/// Returns the command that removes a persistent route.
pub(super) fn route_delete(destination: IpNet, next_hop: IpAddr) -> String {
    match destination {
        IpNet::V4(prefix) => format!("route delete {} mask {} {next_hop}", prefix.addr(), prefix.netmask()),
        IpNet::V6(prefix) => format!("route -6 delete {prefix} {next_hop}"),
    }
}
