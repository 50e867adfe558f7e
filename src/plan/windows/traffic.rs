//! Whose traffic a route takes: packets go by the most specific route, on whatever interface it is.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::WindowsOrigin;

/// A route of the desired state, with the next hop that this node has for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResolvedRoute {
    pub destination: IpNet,
    pub next_hop: IpAddr,
    pub metric: u32,
    pub origin: WindowsOrigin,
}

/// The desired routes by destination, and the pods of every node by their prefix.
#[derive(Debug, Default)]
pub(super) struct TrafficIndex {
    exact: HashMap<IpNet, ResolvedRoute>,
    pods: HashMap<IpNet, ResolvedRoute>,
    /// The lengths of the prefixes of pods.
    lengths: BTreeSet<u8>,
}

impl TrafficIndex {
    pub fn new(wanted: &[ResolvedRoute]) -> Self {
        let mut needs = Self::default();
        for entry in wanted {
            needs.exact.insert(entry.destination, *entry);
            if entry.origin != WindowsOrigin::Master {
                needs.pods.insert(entry.destination, *entry);
                needs.lengths.insert(entry.destination.prefix_len());
            }
        }
        needs
    }

    /// The desired route whose traffic a route to `destination` on interface `index` takes: that to the same
    /// destination, or to the pods of a node around it. The node's own pods belong on its pod interface.
    pub fn taken_by(&self, destination: IpNet, index: u32, pod: u32) -> Option<&ResolvedRoute> {
        let around = || {
            let shorter = self.lengths.iter().filter(|length| **length <= destination.prefix_len());
            let prefixes = shorter.filter_map(|length| IpNet::new(destination.addr(), *length).ok());
            prefixes.filter_map(|prefix| self.pods.get(&prefix.trunc())).next_back()
        };
        let taken = self.exact.get(&destination).or_else(around)?;
        let is_at_home = matches!(taken.origin, WindowsOrigin::OwnPods(_)) && index == pod;
        (!is_at_home).then_some(taken)
    }
}

/// The line that removes a persistent route by hand.
pub(super) fn route_delete(destination: IpNet, next_hop: IpAddr) -> String {
    match destination {
        IpNet::V4(prefix) => format!("route delete {} mask {} {next_hop}", prefix.addr(), prefix.netmask()),
        IpNet::V6(prefix) => format!("route -6 delete {prefix} {next_hop}"),
    }
}
