//! The nodes that the routes show: this one, and those that others lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    LiveOptions, LiveSources,
    document::{HopMode, LiveEntry, computed_gateway, name_of},
    pods::{self, NodeView},
    routes::{CommonOptions, NodeRoute, RouteHop},
};
use crate::{
    model::{Family, NextHopMode, OperatingSystem},
    state::InterfaceAddress,
    text::Untrusted,
};

/// The other nodes. Routes by the same address lead to the same node.
pub(super) fn others(
    routes: &[NodeRoute<'_>],
    view: &NodeView<'_>,
    common: &CommonOptions,
) -> Vec<LiveEntry> {
    let mut by_address: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
    let mut nodes = Vec::new();
    for NodeRoute { route, hop } in routes {
        let cidr = route.destination;
        match hop {
            RouteHop::NodeAddress(address) => by_address.entry(*address).or_default().push(cidr),
            RouteHop::PodGateway(gateway) => {
                let is = |os| computed_gateway(cidr, os) == Some(*gateway);
                let is_usual = is(OperatingSystem::Linux);
                nodes.push(LiveEntry {
                    name: name_of(cidr.network()),
                    pod_cidrs: vec![cidr],
                    addresses: Vec::new(),
                    gateways: if is_usual { Vec::new() } else { vec![*gateway] },
                    hop: Some((*hop).into()),
                    reached_by: Some(*gateway),
                    comment: if is(OperatingSystem::Windows) { WINDOWS } else { "" },
                });
            }
            RouteHop::Router(_) => nodes.push(LiveEntry {
                name: name_of(cidr.network()),
                pod_cidrs: vec![cidr],
                addresses: Vec::new(),
                gateways: Vec::new(),
                hop: Some((*hop).into()),
                reached_by: None,
                comment: "",
            }),
        }
    }
    nodes.extend(by_address.into_iter().map(|(address, pod_cidrs)| LiveEntry {
        name: name_of(address),
        pod_cidrs,
        addresses: vec![address],
        gateways: Vec::new(),
        hop: Some(HopMode::Mode(NextHopMode::NodeAddress)),
        reached_by: Some(address),
        comment: "",
    }));
    paired(nodes, view, common)
}

/// The second address is the pod gateway of Windows nodes, but their address, which hostgw needs, is unknown.
pub(super) const WINDOWS: &str = "if it is a Windows node, set os and address, and remove gateway";

/// Merges the IPv4 and IPv6 pod CIDRs of a node whose next hops have the same hardware address. The routes alone do not show
/// that they belong together.
fn paired(mut nodes: Vec<LiveEntry>, view: &NodeView<'_>, common: &CommonOptions) -> Vec<LiveEntry> {
    let hardware = |address: IpAddr| -> Option<&Untrusted> {
        let mut entries = view.host.neighbors.iter().filter(|entry| entry.device == common.device);
        entries.find(|entry| entry.address == address && !entry.is_silent)?.hardware.as_ref()
    };
    let mut by_hardware: BTreeMap<&Untrusted, Vec<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        if let Some(hardware) = node.reached_by.and_then(hardware) {
            by_hardware.entry(hardware).or_default().push(index);
        }
    }
    let family = |node: &LiveEntry| node.pod_cidrs.first().map(|cidr| Family::from(*cidr));
    let mut merged = BTreeSet::new();
    for indexes in by_hardware.into_values() {
        let &[one, other] = indexes.as_slice() else { continue };
        let (first, second) =
            if family(&nodes[one]) == Some(Family::V4) { (one, other) } else { (other, one) };
        let is_pair = family(&nodes[first]) == Some(Family::V4) && family(&nodes[second]) == Some(Family::V6);
        if is_pair && nodes[first].hop == nodes[second].hop && nodes[second].comment.is_empty() {
            merged.insert(second);
            let second = nodes[second].clone();
            let first = &mut nodes[first];
            first.pod_cidrs.extend(second.pod_cidrs);
            first.addresses.extend(second.addresses);
            first.gateways.extend(second.gateways);
        }
    }
    let mut index = 0..;
    nodes.retain(|_| index.next().is_none_or(|index| !merged.contains(&index)));
    nodes
}

/// The next hop of most nodes.
pub(super) fn most_frequent(nodes: &[LiveEntry]) -> HopMode {
    let mut counts: BTreeMap<HopMode, usize> = BTreeMap::new();
    for hop in nodes.iter().filter_map(|node| node.hop) {
        *counts.entry(hop).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(hop, count)| (*count, std::cmp::Reverse(*hop)));
    most.map_or(HopMode::Mode(NextHopMode::PodGateway), |(hop, _)| hop)
}

/// The node itself.
pub(super) fn own(
    sources: &LiveSources<'_>,
    options: &LiveOptions,
    view: &NodeView<'_>,
    own: &[IpNet],
    prefixes: &[IpNet],
    common: &CommonOptions,
    routes: &[NodeRoute<'_>],
) -> LiveEntry {
    let gateways = own.iter().filter_map(|cidr| {
        let usual = computed_gateway(*cidr, OperatingSystem::Linux)?;
        let mut inside = view.host.addresses.iter().filter(|local| cidr.contains(&local.address));
        let of_interface = |local: &&InterfaceAddress| local.prefix.trunc() == *cidr;
        let has_usual = view.host.owner_of(usual).is_some();
        (!has_usual).then(|| inside.find(of_interface).map(|local| local.address))?
    });
    let addresses = Family::ALL.into_iter().filter_map(|family| {
        let of_device = view.host.addresses.iter().filter(|local| {
            local.device == common.device
                && Family::from(local.address) == family
                && local.flags.is_empty()
                && !pods::is_link_local(local.address)
                && !prefixes.iter().any(|prefix| prefix.contains(&local.address))
        });
        let is_needed = routes.iter().any(|found| found.route.family() == family)
            || own.iter().any(|cidr| Family::from(*cidr) == family);
        let reaches = |local: &&InterfaceAddress| {
            routes
                .iter()
                .any(|found| found.route.next.gateway.is_some_and(|gateway| local.prefix.contains(&gateway)))
        };
        let all: Vec<_> = of_device.collect();
        let best = all.iter().copied().find(reaches).or_else(|| all.first().copied());
        best.filter(|_| is_needed).map(|local| local.address)
    });
    LiveEntry {
        name: options
            .node_name
            .clone()
            .or_else(|| sources.host_name.map(ToOwned::to_owned))
            .unwrap_or_else(|| "this-node".to_owned()),
        pod_cidrs: own.to_vec(),
        addresses: addresses.collect(),
        gateways: gateways.collect(),
        hop: None,
        reached_by: None,
        comment: "this node",
    }
}
