//! Chooses the address that a node uses in the cluster, and finds addresses outside the network of the other nodes.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::node::{ImportedNode, ListedNode};
use crate::model::{Family, OperatingSystem, usual_network};

/// The smallest network that Windows nodes are expected in: addresses that differ in these bits are probably of a NAT
/// network on the machine itself.
const fn widest_length(family: Family) -> u8 {
    match family {
        Family::V4 => 16,
        Family::V6 => 48,
    }
}

fn network(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

/// The number of nodes with an address in each network.
pub(super) struct AddressCensus(HashMap<IpNet, usize>);

impl AddressCensus {
    pub fn new(nodes: &[ListedNode]) -> Self {
        let mut counts = HashMap::new();
        for node in nodes {
            let networks: BTreeSet<IpNet> =
                node.internal.iter().map(|address| usual_network(*address)).collect();
            networks.into_iter().for_each(|network| *counts.entry(network).or_default() += 1);
        }
        Self(counts)
    }

    /// The address of a family that a node uses: the one in the network with the most nodes, then the lowest one, because
    /// the order of a list means nothing.
    pub fn choose(&self, node: &ListedNode, family: Family) -> Option<IpAddr> {
        let count = |address: &IpAddr| self.0.get(&usual_network(*address)).copied();
        // Of several maxima, `max_by_key` returns the last.
        let lowest_last = node.internal_of(family).collect::<Vec<_>>().into_iter().rev();
        lowest_last.max_by_key(|address| count(address).unwrap_or_default())
    }
}

/// Finds Windows nodes whose address is in none of the networks of the other nodes, with that address.
pub(super) fn strangers(nodes: &[ImportedNode]) -> Vec<(&ImportedNode, IpAddr)> {
    let is_windows = |node: &&ImportedNode| node.os == OperatingSystem::Windows;
    let of = |node: &ImportedNode, family: Family| {
        node.addresses.iter().copied().find(|address| Family::from(*address) == family)
    };
    let mut found = Vec::new();
    for family in Family::ALL {
        let addresses = |windows: bool| {
            nodes.iter().filter(move |node| is_windows(node) == windows).filter_map(|node| of(node, family))
        };
        let linux: Vec<IpAddr> = addresses(false).collect();
        // Without Linux nodes, a Windows node is compared with the other Windows nodes.
        let (others, is_among_them) =
            if linux.is_empty() { (addresses(true).collect(), true) } else { (linux, false) };
        let mut counts: HashMap<IpNet, usize> = HashMap::new();
        let wide = |address: IpAddr| network(address, widest_length(family));
        others
            .iter()
            .filter_map(|address| wide(*address))
            .for_each(|net| *counts.entry(net).or_default() += 1);
        let own = usize::from(is_among_them);
        for (node, address) in
            nodes.iter().filter(is_windows).filter_map(|node| Some((node, of(node, family)?)))
        {
            let neighbors = wide(address).and_then(|net| counts.get(&net)).copied().unwrap_or_default();
            // If every node is in its own network, there is no common network to compare with.
            let is_spread = counts.len() > 2 + own;
            if others.len() > own && neighbors <= own && !is_spread {
                found.push((node, address));
            }
        }
    }
    found
}
