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
    model::{Family, NextHopMode, OperatingSystem, PerFamily},
    state::{InterfaceAddress, NeighborEntry, Route},
    text::Untrusted,
};

/// The other nodes. Routes by the same address lead to the same node, unless their MTUs differ.
pub(super) fn others(
    routes: &[NodeRoute<'_>],
    view: &NodeView<'_>,
    common: &CommonOptions,
    prefixes: &[IpNet],
) -> Vec<LiveEntry> {
    let mtu_of = |route: &Route| route.mtu.filter(|mtu| Some(*mtu) != common.mtu);
    let mut by_address: BTreeMap<IpAddr, Vec<&Route>> = BTreeMap::new();
    let mut nodes = Vec::new();
    for NodeRoute { route, hop } in routes {
        let cidr = route.destination;
        match hop {
            RouteHop::NodeAddress(address) => by_address.entry(*address).or_default().push(route),
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
                    mtu: mtu_of(route),
                    comment: if is(OperatingSystem::Windows) { WINDOWS } else { "" },
                });
            }
            RouteHop::Router(router) => nodes.push(behind(*router, route, mtu_of(route))),
        }
    }
    for (address, routes) in by_address {
        let mtu = mtu_of(routes[0]);
        if routes.iter().any(|route| mtu_of(route) != mtu) {
            nodes.extend(routes.into_iter().map(|route| behind(address, route, mtu_of(route))));
            continue;
        }
        nodes.push(LiveEntry {
            name: name_of(address),
            pod_cidrs: routes.into_iter().map(|route| route.destination).collect(),
            addresses: vec![address],
            gateways: Vec::new(),
            hop: Some(HopMode::Mode(NextHopMode::NodeAddress)),
            reached_by: Some(address),
            mtu,
            comment: "",
        });
    }
    let neighbors = Neighbors { view, common };
    let mut nodes = paired(nodes, &neighbors);
    neighbors.add_addresses(&mut nodes, prefixes);
    nodes
}

/// A node that is reached through a router.
fn behind(router: IpAddr, route: &Route, mtu: Option<u32>) -> LiveEntry {
    LiveEntry {
        name: name_of(route.destination.network()),
        pod_cidrs: vec![route.destination],
        addresses: Vec::new(),
        gateways: Vec::new(),
        hop: Some(HopMode::Router(router)),
        reached_by: None,
        mtu,
        comment: "",
    }
}

/// The second address is the pod gateway of Windows nodes, but their address, which hostgw needs, is unknown.
pub(super) const WINDOWS: &str = "if it is a Windows node, set os and address, and remove gateway";

/// Merges the IPv4 and IPv6 pod CIDRs of a node whose next hops have the same MAC address. The routes alone do not show
/// that they belong together.
fn paired(mut nodes: Vec<LiveEntry>, neighbors: &Neighbors<'_>) -> Vec<LiveEntry> {
    let hardware = |address: IpAddr| neighbors.hardware(address);
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
        let is_same = nodes[first].hop == nodes[second].hop && nodes[first].mtu == nodes[second].mtu;
        if is_pair && is_same {
            merged.insert(second);
            let second = nodes[second].clone();
            let first = &mut nodes[first];
            first.pod_cidrs.extend(second.pod_cidrs);
            first.addresses.extend(second.addresses);
            first.gateways.extend(second.gateways);
            if first.comment.is_empty() {
                first.comment = second.comment;
            }
        }
    }
    let mut index = 0..;
    nodes.retain(|_| index.next().is_none_or(|index| !merged.contains(&index)));
    nodes
}

/// The neighbor table of the egress interface.
struct Neighbors<'a> {
    view: &'a NodeView<'a>,
    common: &'a CommonOptions,
}

impl<'a> Neighbors<'a> {
    fn entries(&self) -> impl Iterator<Item = &'a NeighborEntry> {
        let entries = self.view.host.neighbors.iter();
        entries.filter(|entry| entry.device == self.common.device && !entry.unanswered)
    }

    /// The MAC address of a neighbor.
    fn hardware(&self, address: IpAddr) -> Option<&'a Untrusted> {
        self.entries().find(|entry| entry.address == address)?.mac_address.as_ref()
    }

    /// Adds the addresses of nodes that their routes do not show, such as those to pod gateways: those with the same MAC address.
    fn add_addresses(&self, nodes: &mut [LiveEntry], prefixes: &[IpNet]) {
        let routers: BTreeSet<IpAddr> = nodes
            .iter()
            .filter_map(|node| match node.hop {
                Some(HopMode::Router(router)) => Some(router),
                Some(HopMode::Mode(_) | HopMode::Routers(..)) | None => None,
            })
            .collect();
        let hardware: Vec<Option<&Untrusted>> =
            nodes.iter().map(|node| node.reached_by.and_then(|address| self.hardware(address))).collect();
        for (node, own) in nodes.iter_mut().zip(&hardware) {
            let is_unique = own.is_some() && hardware.iter().filter(|other| *other == own).count() == 1;
            let has = |family| node.addresses.iter().any(|address| Family::from(*address) == family);
            let is_missing = |family: &Family| {
                !has(*family) && prefixes.iter().any(|prefix| Family::from(*prefix) == *family)
            };
            let missing: Vec<Family> = Family::ALL.into_iter().filter(is_missing).collect();
            for family in missing.into_iter().filter(|_| is_unique) {
                let is_possible = |address: &IpAddr| {
                    Family::from(*address) == family
                        && !pods::is_link_local(*address)
                        && !routers.contains(address)
                        && !prefixes.iter().any(|prefix| prefix.contains(address))
                };
                let same = self.entries().filter(|entry| entry.mac_address.as_ref() == *own);
                let mut addresses = same.map(|entry| entry.address).filter(is_possible);
                if let (Some(address), None) = (addresses.next(), addresses.next()) {
                    node.addresses.push(address);
                    node.addresses.sort_unstable();
                }
            }
        }
    }
}

/// `nextHop` of the cluster: that of most nodes. `wanted` says whether hostgw makes the pod gateways of a family reachable,
/// which then depends on `nextHop`. Empty if it manages nothing.
pub(super) fn next_hop(nodes: &[LiveEntry], wanted: &[(Family, bool)]) -> HopMode {
    let mut counts: BTreeMap<HopMode, usize> = BTreeMap::new();
    for hop in nodes.iter().filter_map(|node| node.hop) {
        *counts.entry(hop).or_default() += 1;
    }
    let mut candidates: Vec<(HopMode, usize)> = counts.into_iter().collect();
    let most_of = |family: Family| {
        let of_family = candidates.iter().filter_map(|(hop, count)| match hop {
            HopMode::Router(router) if Family::from(*router) == family => Some((*count, *router)),
            _ => None,
        });
        of_family.max_by_key(|(count, router)| (*count, std::cmp::Reverse(*router)))
    };
    if let (Some((count, IpAddr::V4(v4))), Some((more, IpAddr::V6(v6)))) =
        (most_of(Family::V4), most_of(Family::V6))
    {
        candidates.push((HopMode::Routers(v4, v6), count + more));
    }
    candidates.sort_by_key(|(hop, count)| (std::cmp::Reverse(*count), *hop));
    let modes = NextHopMode::ALL.map(HopMode::Mode);
    // The address of a node can stand for it as a router of its family.
    let routers = nodes.iter().filter_map(|node| node.reached_by);
    let is_of_pods =
        |router: &IpAddr| nodes.iter().any(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(router)));
    let routers = routers.filter(|router| !is_of_pods(router)).map(HopMode::Router);
    let candidates: Vec<HopMode> =
        candidates.into_iter().map(|(hop, _)| hop).chain(modes).chain(routers).collect();
    let fits = |candidate: &&HopMode| {
        wanted.iter().all(|(family, is_wanted)| uses_pod_gateways(**candidate, nodes, *family) == *is_wanted)
    };
    candidates.iter().find(fits).or_else(|| candidates.first()).copied().unwrap_or(HopMode::POD_GATEWAY)
}

/// The families in which no pod gateway is a next hop, so that the plan must not make them reachable.
pub(super) fn without_pod_gateways(nodes: &[LiveEntry], families: &[Family]) -> Vec<(Family, bool)> {
    let has_gateways = |family: &Family| {
        nodes.iter().any(|node| {
            node.hop == Some(HopMode::POD_GATEWAY)
                && node.pod_cidrs.iter().any(|cidr| Family::from(*cidr) == *family)
        })
    };
    families.iter().copied().filter(|family| !has_gateways(family)).map(|family| (family, false)).collect()
}

/// Gives this node a next hop of its own if the cluster's stands for the address of another node, which is not the way to this one.
pub(super) fn separate_own(nodes: &mut [LiveEntry], next_hop: HopMode, own: &PerFamily<IpAddr>) {
    for family in Family::ALL {
        let HopMode::Router(router) = next_hop.in_family(family) else { continue };
        let is_of_node = nodes.iter().any(|node| node.hop.is_some() && node.addresses.contains(&router));
        for node in nodes.iter_mut().filter(|node| is_of_node && node.hop.is_none()) {
            if node.pod_cidrs.iter().any(|cidr| Family::from(*cidr) == family) {
                node.hop = own.get(family).copied().map(HopMode::Router);
            }
        }
    }
}

/// Whether hostgw makes the pod gateways of a family reachable if `next_hop` is that of the cluster.
pub(super) fn uses_pod_gateways(next_hop: HopMode, nodes: &[LiveEntry], family: Family) -> bool {
    let is_override = |node: &LiveEntry| node.override_of(next_hop) == Some(HopMode::POD_GATEWAY);
    next_hop.in_family(family) == HopMode::POD_GATEWAY || nodes.iter().any(is_override)
}

/// The address that the node probably has on the egress interface.
pub(super) fn usual_addresses(
    view: &NodeView<'_>,
    prefixes: &[IpNet],
    common: &CommonOptions,
    routes: &[NodeRoute<'_>],
) -> PerFamily<IpAddr> {
    let mut usual = PerFamily::default();
    for family in Family::ALL {
        let of_device = view.host.addresses.iter().filter(|local| {
            local.device == common.device
                && Family::from(local.address) == family
                && local.flags.is_empty()
                && !pods::is_link_local(local.address)
                && !prefixes.iter().any(|prefix| prefix.contains(&local.address))
        });
        let reaches = |local: &&InterfaceAddress| {
            routes.iter().any(|found| {
                found.route.next_hop.gateway.is_some_and(|gateway| local.prefix.contains(&gateway))
            })
        };
        let all: Vec<_> = of_device.collect();
        let best = all.iter().copied().find(reaches).or_else(|| all.first().copied());
        *usual.get_mut(family) = best.map(|local| local.address);
    }
    usual
}

/// The node itself.
pub(super) fn own(
    sources: &LiveSources<'_>,
    options: &LiveOptions,
    view: &NodeView<'_>,
    own: &[IpNet],
    addresses: Vec<IpAddr>,
) -> LiveEntry {
    let gateways = own.iter().filter_map(|cidr| {
        let usual = computed_gateway(*cidr, OperatingSystem::Linux)?;
        let mut inside = view.host.addresses.iter().filter(|local| cidr.contains(&local.address));
        let of_interface = |local: &&InterfaceAddress| local.prefix.trunc() == *cidr;
        let has_usual = view.host.owner_of(usual).is_some();
        (!has_usual).then(|| inside.find(of_interface).map(|local| local.address))?
    });
    LiveEntry {
        name: options
            .node_name
            .clone()
            .or_else(|| sources.hostname.map(ToOwned::to_owned))
            .unwrap_or_else(|| "this-node".to_owned()),
        pod_cidrs: own.to_vec(),
        addresses,
        gateways: gateways.collect(),
        hop: None,
        reached_by: None,
        mtu: None,
        comment: "this node",
    }
}
