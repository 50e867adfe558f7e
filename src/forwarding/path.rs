//! The packets between the pods of this node and those of all others, and the way they should take.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Hop, Packet, Verdict};
use crate::{
    model::{Cluster, Family, PerFamily, PodCidr, pod_address},
    state::{Host, RouteType, State},
    text::Untrusted,
};

/// The direction of a packet between a pod of this node and a pod of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From this node's pod to the other one.
    Out,
    /// From the other pod to this node's.
    In,
}

/// A packet between two pods, and the next hop that it should take on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The other node.
    pub node: Untrusted,
    /// The direction.
    pub direction: Direction,
    /// The packet.
    pub packet: Packet,
    /// The next hop.
    pub expected: Hop,
}

/// A pod of this node, and the interface that all of its packets use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    address: IpAddr,
    device: Untrusted,
}

/// The paths between the pods of a node and those of all others.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    pods: PerFamily<Pod>,
    /// The other nodes, each with the address of a pod and the next hop to it.
    others: Vec<(Untrusted, IpAddr, Hop)>,
    /// Other addresses of pods of this node, to which a foreign route leads.
    more_pods: Vec<IpAddr>,
    /// The families for which the node has a pod CIDR, but no interface for pods yet.
    missing: Vec<Family>,
}

/// How good a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The node does not forward the packet, or only by its default route.
    Lost,
    /// It forwards the packet another way.
    Elsewhere,
    /// It forwards the packet as planned.
    Planned,
}

/// The ranks of some [`Paths`], in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger(Vec<Rank>);

impl Paths {
    /// Returns the paths of the node at `index` of `cluster` with its `desired` routes. The pods are behind the interface
    /// with an address in the node's pod CIDR, such as the bridge `cni0`, or else behind any interface that has a route
    /// to one of them.
    #[must_use]
    pub fn new(cluster: &Cluster, index: usize, desired: &State, host: &Host) -> Self {
        let mut paths = Self::default();
        for (family, cidr) in cluster.nodes[index].pod_cidrs.iter() {
            let gateway = cluster.nodes[index].pod_gateway(family);
            match pod(cidr.prefix(), gateway, host) {
                Some(pod) => *paths.pods.get_mut(family) = Some(pod),
                None => paths.missing.push(family),
            }
        }
        let mut destinations: HashMap<IpNet, usize> = HashMap::new();
        for (number, node) in cluster.nodes.iter().enumerate() {
            destinations.extend(node.pod_cidrs.iter().map(|(_, cidr)| (cidr.prefix(), number)));
        }
        let all_foreign = || host.foreign.iter().chain(&host.others);
        let foreign: Vec<_> = all_foreign().filter(|route| is_inside(&route.destination, cluster)).collect();
        let mut hops: HashMap<IpNet, Hop> = HashMap::new();
        for route in desired.routes.iter().filter(|route| paths.pods.get(route.family()).is_some()) {
            let device = route.next.device.clone().filter(|_| route.next.gateway.is_some());
            let Some(device) = device else { continue };
            let Some(&number) = destinations.get(&route.destination) else { continue };
            let gateway = cluster.nodes[number].pod_gateway(route.family());
            let hop = Hop { gateway: route.next.gateway, device };
            let address = pod_address(route.destination, gateway);
            paths.others.push((cluster.nodes[number].name.clone(), address, hop.clone()));
            if !foreign.is_empty() {
                hops.insert(route.destination, hop);
            }
        }
        // A foreign route to some of a node's pods is a way of its own.
        for route in foreign {
            let own = cluster.nodes[index].pod_cidrs.get(route.family()).map(PodCidr::prefix);
            if own.is_some_and(|own| own != route.destination && own.contains(&route.destination)) {
                let is_local =
                    matches!(route.kind, RouteType::LOCAL | RouteType::BROADCAST | RouteType::ANYCAST);
                if !is_local {
                    paths.more_pods.push(pod_address(route.destination, None));
                }
                continue;
            }
            let Some(whole) = ancestors(route.destination).find(|prefix| hops.contains_key(prefix)) else {
                continue;
            };
            let (Some(&number), Some(hop)) = (destinations.get(&whole), hops.get(&whole)) else { continue };
            let address = pod_address(route.destination, None);
            paths.others.push((cluster.nodes[number].name.clone(), address, hop.clone()));
        }
        paths
    }

    /// Iterates over the paths: for each other node and family, out and in, and then to other pods of this node.
    pub fn iter(&self) -> impl Iterator<Item = Path> + '_ {
        let all = self.others.iter().flat_map(|(node, address, hop)| {
            let pod = self.pods.get(Family::from(*address));
            pod.into_iter().flat_map(move |pod| {
                let path =
                    |direction, packet, expected| Path { node: node.clone(), direction, packet, expected };
                let out = Packet { source: pod.address, destination: *address, input: pod.device.clone() };
                let back = Packet { source: *address, destination: pod.address, input: hop.device.clone() };
                let to_pod = Hop { gateway: None, device: pod.device.clone() };
                [path(Direction::Out, out, hop.clone()), path(Direction::In, back, to_pod)]
            })
        });
        let more = self.more_pods.iter().filter_map(|address| {
            let family = Family::from(*address);
            let device = self.pods.get(family)?.device.clone();
            let (node, other, hop) =
                self.others.iter().find(|(_, other, _)| Family::from(*other) == family)?;
            let packet = Packet { source: *other, destination: *address, input: hop.device.clone() };
            let expected = Hop { gateway: None, device };
            Some(Path { node: node.clone(), direction: Direction::In, packet, expected })
        });
        all.chain(more)
    }

    /// Returns `true` if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.others.is_empty()
    }

    /// Returns the families for which no path can be judged, because the node has no interface for pods.
    #[must_use]
    pub fn missing(&self) -> &[Family] {
        &self.missing
    }

    /// Returns the number of other nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.others.iter().map(|(node, ..)| node).collect::<HashSet<_>>().len()
    }

    /// Ranks the paths. `ask` returns what the node does with packets, in their order.
    ///
    /// # Errors
    /// Returns the error of `ask`.
    pub fn judge<E>(&self, mut ask: impl FnMut(&[Packet]) -> Result<Vec<Verdict>, E>) -> Result<Ledger, E> {
        /// Enough to fill many requests, and few enough to take little memory.
        const AT_ONCE: usize = 4096;
        let mut ranks = Vec::with_capacity(2 * self.others.len());
        let mut paths = self.iter().peekable();
        while paths.peek().is_some() {
            let some: Vec<Path> = paths.by_ref().take(AT_ONCE).collect();
            let packets: Vec<Packet> = some.iter().map(|path| path.packet.clone()).collect();
            let verdicts = ask(&packets)?;
            ranks.extend(some.iter().zip(&verdicts).map(|(path, verdict)| path.rank(verdict)));
        }
        Ok(Ledger(ranks))
    }
}

impl Path {
    /// Returns how good a verdict about the packet is.
    #[must_use]
    pub fn rank(&self, verdict: &Verdict) -> Rank {
        match verdict {
            Verdict::Forwarded { hops, .. } if hops.len() == 1 && hops[0] == self.expected => Rank::Planned,
            // Back to where it came from, or on to another router, no packet reaches this node's pods.
            Verdict::Forwarded { hops, .. }
                if self.direction == Direction::In
                    && hops.iter().any(|hop| hop.gateway.is_some() || hop.device == self.packet.input) =>
            {
                Rank::Lost
            }
            Verdict::Forwarded { length: 1.., .. } => Rank::Elsewhere,
            _ => Rank::Lost,
        }
    }
}

impl Ledger {
    /// Returns the indexes of the paths that are worse than in the ledger of `before`.
    #[must_use]
    pub fn worse_than(&self, before: &Self) -> Vec<usize> {
        let pairs = self.0.iter().zip(&before.0).enumerate();
        pairs.filter(|(_, (now, before))| now < before).map(|(index, _)| index).collect()
    }

    /// Returns the indexes of the paths that are not as planned.
    #[must_use]
    pub fn blocked(&self) -> Vec<usize> {
        let ranks = self.0.iter().enumerate();
        ranks.filter(|(_, rank)| **rank != Rank::Planned).map(|(index, _)| index).collect()
    }
}

/// Returns whether a prefix is part of a cluster prefix.
fn is_inside(prefix: &IpNet, cluster: &Cluster) -> bool {
    cluster.prefixes.iter().any(|(_, whole)| whole.contains(prefix))
}

/// Iterates over the prefixes that contain this one, the longest first.
fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(prefix.supernet(), IpNet::supernet)
}

/// Returns a pod of the node, and the interface to it.
fn pod(cidr: IpNet, gateway: Option<IpAddr>, host: &Host) -> Option<Pod> {
    let holds = |device: &Untrusted| host.link(device.as_raw()).is_some_and(|link| link.up);
    let bridge = host.addresses.iter().filter(|local| cidr.contains(&local.address) && holds(&local.device));
    if let Some(local) = bridge.min_by_key(|local| Some(local.address) != gateway) {
        return Some(Pod { address: pod_address(cidr, Some(local.address)), device: local.device.clone() });
    }
    let routes = host.foreign.iter().chain(&host.others).filter(|route| {
        cidr.contains(&route.destination) && route.next.gateway.is_none() && route.destination != cidr
    });
    routes
        .filter_map(|route| {
            let device = route.next.device.clone().filter(holds)?;
            Some(Pod { address: route.destination.addr(), device })
        })
        .next()
}
