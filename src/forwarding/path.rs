//! The packets between the pods of this node and those of all others and the outside, and the way they should take.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{ForwardingModel, Hop, Packet, Verdict, outside_address};
use crate::{
    model::{Cluster, Family, MAIN_TABLE, PerFamily, PodCidr, pod_address},
    state::{Host, Route, RouteType},
    text::Untrusted,
};

/// The direction of a packet from or to a pod of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From this node's pod.
    Out,
    /// To this node's pod.
    In,
}

/// The other end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A pod of the node with this name.
    Node(Untrusted),
    /// A host outside the cluster.
    Outside,
}

/// A packet between a pod of this node and another pod or the outside, and the next hop that it should take on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The other end.
    pub peer: Peer,
    /// The direction.
    pub direction: Direction,
    /// The packet.
    pub packet: Packet,
    /// The next hop. To the outside, any other one will do.
    pub expected: Hop,
    /// The pod CIDR of this node.
    pub own: IpNet,
    /// The pod CIDR of the other node, or the destination of the default route.
    pub other: IpNet,
    /// The cluster prefix.
    pub cluster: IpNet,
    /// The table of the planned route.
    pub table: u32,
    /// The part of one of the pod CIDRs that the path stands for, if not for all of it.
    pub part: Option<PodPart>,
    /// Whether the path stands for those of all other nodes, too.
    pub is_of_all: bool,
}

/// A part of a pod CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPart {
    /// Of this node's.
    Own(IpNet),
    /// Of the other node's.
    Other(IpNet),
}

/// A pod of this node, and the interface that all of its packets use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    cidr: IpNet,
    address: IpAddr,
    device: Untrusted,
}

/// The paths between the pods of a node and those of all others, and between its pods and the outside.
#[derive(Debug, Clone)]
pub struct Paths<'a> {
    cluster: &'a Cluster,
    pods: PerFamily<Pod>,
    /// The routes to the pods of other nodes, with the indexes of the nodes.
    others: Vec<(&'a Route, usize)>,
    /// Parts of the pod CIDR of another node that a foreign route or a policy rule singles out, with the index of the entry
    /// in `others` for the whole node.
    parts: Vec<(IpNet, usize)>,
    /// The same of this node.
    own_parts: Vec<IpNet>,
    /// The families for which the node has a pod CIDR, but no pod interface yet.
    missing: Vec<Family>,
    /// Prefixes inside the cluster whose packets may take another way than all others.
    special: HashSet<IpNet>,
    /// The default routes, by which pods reach the outside. A node without one has no outside.
    outside: PerFamily<&'a Route>,
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

impl<'a> Paths<'a> {
    /// Returns the paths of the node at `index` of `cluster`. `routes` are its desired routes to the pods of other nodes,
    /// each with the index of the node, and `foreign` are the routes of others. The pods are behind the interface with
    /// an address in the node's pod CIDR, such as the bridge `cni0`, or else behind any interface that has a route to one
    /// of them.
    #[must_use]
    pub fn new(
        cluster: &'a Cluster,
        index: usize,
        routes: impl Iterator<Item = (&'a Route, usize)>,
        foreign: impl Iterator<Item = &'a Route> + Clone,
        host: &'a Host,
    ) -> Self {
        let node = &cluster.nodes[index];
        let (mut pods, mut missing) = (PerFamily::default(), Vec::new());
        for (family, cidr) in node.pod_cidrs.iter() {
            match pod(cidr.prefix(), node.pod_gateway(family), host) {
                Some(pod) => *pods.get_mut(family) = Some(pod),
                None => missing.push(family),
            }
        }
        let is_usable = |route: &Route| {
            pods.get(route.family()).is_some() && route.next.gateway.is_some() && route.next.device.is_some()
        };
        let others = routes.filter(|(route, _)| is_usable(route)).collect();
        let (parts, own_parts, special) = (Vec::new(), Vec::new(), HashSet::new());
        let mut outside = PerFamily::default();
        for (family, prefix) in cluster.prefixes.iter().filter(|_| cluster.nat.masquerade) {
            // A route of its own makes the address stand for nothing else.
            let is_special = |route: &Route| {
                route.destination.prefix_len() > 1 && route.destination.contains(&outside_address(family))
            };
            if !prefix.contains(&outside_address(family)) && !foreign.clone().any(is_special) {
                *outside.get_mut(family) = default_route(family, foreign.clone());
            }
        }
        let mut paths = Self { cluster, pods, others, parts, own_parts, missing, special, outside };
        paths.add_foreign(index, foreign, host);
        paths
    }

    /// Adds the ways of packets that foreign routes and rules may divert.
    fn add_foreign(&mut self, index: usize, foreign: impl Iterator<Item = &'a Route>, host: &'a Host) {
        let cluster = self.cluster;
        let is_inside = |prefix: &IpNet| {
            let mut wholes = cluster.prefixes.iter();
            wholes.any(|(_, whole)| whole.contains(prefix) && whole != prefix)
        };
        let selectors = host.rules.iter().flat_map(|rule| [rule.selector.from, rule.selector.to]).flatten();
        // The kernel's own routes to addresses of this node lead to no pod.
        let destinations = foreign.filter(|route| !route.kind.is_local()).map(|route| route.destination);
        let found: BTreeSet<IpNet> = selectors.chain(destinations).filter(is_inside).collect();
        let mut whole: HashMap<IpNet, usize> = HashMap::new();
        for prefix in &found {
            let own = cluster.nodes[index].pod_cidrs.get(Family::from(*prefix)).map(PodCidr::prefix);
            if own.is_some_and(|own| own.contains(prefix)) {
                if own != Some(*prefix) {
                    self.own_parts.push(*prefix);
                }
                continue;
            }
            if whole.is_empty() {
                whole.extend(self.others.iter().enumerate().map(|(at, (route, _))| (route.destination, at)));
            }
            if let Some(at) = ancestors(*prefix).find_map(|prefix| whole.get(&prefix)) {
                self.parts.push((*prefix, *at));
            }
        }
        self.special.extend(found);
        // A special prefix inside a pod CIDR makes all of it special.
        let inside: Vec<IpNet> = self.special.iter().flat_map(|prefix| ancestors(*prefix)).collect();
        self.special.extend(inside.into_iter().filter(is_inside));
    }

    /// Iterates over the paths: for each other node and family, out and in, then to parts of their pods, then to parts of
    /// this node's, and then to the outside.
    pub fn iter(&self) -> impl Iterator<Item = Path> + '_ {
        let outside = Family::ALL.into_iter().filter_map(|family| self.to_outside(family)).flatten();
        self.between_pods().chain(outside)
    }

    /// Iterates over the paths between pods.
    pub fn between_pods(&self) -> impl Iterator<Item = Path> + '_ {
        let wholes = self.others.iter().flat_map(|(route, node)| self.whole(route, *node));
        let parts = self.parts.iter().flat_map(|(part, at)| {
            let (route, node) = self.others[*at];
            let both = self.both(route, Some(node), pod_address(*part, None))?;
            Some(both.map(|path| Path { part: Some(PodPart::Other(*part)), ..path }))
        });
        let own_parts = self.own_parts.iter().flat_map(|part| {
            let family = Family::from(*part);
            let (route, node) = self.others.iter().find(|(route, _)| route.family() == family)?;
            let [mut out, mut back] = self.both(route, Some(*node), pod_address(route.destination, None))?;
            (out.packet.source, back.packet.destination) =
                (pod_address(*part, None), pod_address(*part, None));
            Some([out, back].map(|path| Path { part: Some(PodPart::Own(*part)), is_of_all: true, ..path }))
        });
        wholes.flatten().chain(parts.flatten()).chain(own_parts.flatten())
    }

    /// The two paths that stand for all of another node's pods.
    fn whole(&self, route: &Route, node: usize) -> Option<[Path; 2]> {
        let gateway = self.cluster.nodes[node].pod_gateway(route.family());
        self.both(route, Some(node), pod_address(route.destination, gateway))
    }

    /// The two paths between this node's pod and the outside. Replies from there reach the pod's address, because the
    /// kernel restores it before it routes them.
    fn to_outside(&self, family: Family) -> Option<[Path; 2]> {
        let route = self.outside.get(family)?;
        self.both(route, None, outside_address(family))
    }

    /// The two paths between this node's pod and `address` behind `route`, which is a pod of `node`, if any.
    fn both(&self, route: &Route, node: Option<usize>, address: IpAddr) -> Option<[Path; 2]> {
        let pod = self.pods.get(route.family())?;
        let device = route.next.device.clone()?;
        let cluster = *self.cluster.prefixes.get(route.family())?;
        let path = |direction, packet, expected| Path {
            peer: node.map_or(Peer::Outside, |node| Peer::Node(self.cluster.nodes[node].name.clone())),
            direction,
            packet,
            expected,
            own: pod.cidr,
            other: route.destination,
            cluster,
            table: route.table,
            part: None,
            is_of_all: false,
        };
        let out = Packet { source: pod.address, destination: address, input: pod.device.clone() };
        let back = Packet { source: address, destination: pod.address, input: device.clone() };
        Some([
            path(Direction::Out, out, Hop { gateway: route.next.gateway, device }),
            path(Direction::In, back, Hop { gateway: None, device: pod.device.clone() }),
        ])
    }

    /// Returns the ranks of the paths by a model of the node with all of their routes. Nodes whose packets nothing but
    /// their own routes can divert are all alike, so one of them is enough.
    #[must_use]
    pub fn rank_by(&self, model: &ForwardingModel<'_>) -> Ledger {
        let mut alike: PerFamily<[Rank; 2]> = PerFamily::default();
        let mut ranks = Vec::with_capacity(2 * self.others.len());
        for (route, node) in &self.others {
            let is_special = !self.special.is_empty()
                && (self.special.contains(&route.destination)
                    || ancestors(route.destination).any(|prefix| self.special.contains(&prefix)));
            let known = alike.get(route.family()).filter(|_| !is_special);
            if let Some(known) = known {
                ranks.extend(known);
                continue;
            }
            let Some(paths) = self.whole(route, *node) else { continue };
            let both = paths.map(|path| path.rank(&model.trace(&path.packet).verdict));
            if !is_special {
                *alike.get_mut(route.family()) = Some(both);
            }
            ranks.extend(both);
        }
        let rest = self.iter().skip(ranks.len());
        let rest: Vec<Rank> = rest.map(|path| path.rank(&model.trace(&path.packet).verdict)).collect();
        ranks.extend(rest);
        Ledger(ranks)
    }

    /// Returns `true` if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the families for which no path can be judged, because the node has no pod interface.
    #[must_use]
    pub fn missing(&self) -> &[Family] {
        &self.missing
    }

    /// Iterates over the names of the other nodes, some of them twice.
    pub fn names(&self) -> impl Iterator<Item = &Untrusted> {
        self.others.iter().map(|(_, node)| &self.cluster.nodes[*node].name)
    }

    /// Returns the number of other nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.others.iter().map(|(_, node)| node).collect::<HashSet<_>>().len()
    }

    /// Ranks the paths. `ask` returns what the node does with packets, in their order.
    ///
    /// # Errors
    /// Returns the error of `ask`.
    pub fn judge<E>(&self, mut ask: impl FnMut(&[Packet]) -> Result<Vec<Verdict>, E>) -> Result<Ledger, E> {
        /// Enough to fill many requests, and few enough to take little memory.
        const AT_ONCE: usize = 16_384;
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
    /// The node of the other pod; `None` if the other end is outside the cluster.
    #[must_use]
    pub const fn node(&self) -> Option<&Untrusted> {
        match &self.peer {
            Peer::Node(name) => Some(name),
            Peer::Outside => None,
        }
    }

    /// Returns how good a verdict about the packet is.
    #[must_use]
    pub fn rank(&self, verdict: &Verdict) -> Rank {
        match verdict {
            Verdict::Forwarded { hops, .. } if hops.len() == 1 && hops[0] == self.expected => Rank::Planned,
            Verdict::Forwarded { hops, .. }
                if (&self.peer, self.direction) == (&Peer::Outside, Direction::Out)
                    && hops.iter().all(|hop| hop.device != self.packet.input) =>
            {
                Rank::Planned
            }
            Verdict::Forwarded { length: 1.., .. } if self.is_diverted(verdict) => Rank::Elsewhere,
            _ => Rank::Lost,
        }
    }

    /// Returns `true` if the node forwards a packet that it does not forward as planned to a next hop that may deliver it.
    #[must_use]
    pub fn is_diverted(&self, verdict: &Verdict) -> bool {
        // Back to where it came from, no packet reaches another node, and on to another router, none reaches this node's
        // pods.
        let is_dead_end = |hop: &Hop| {
            hop.device == self.packet.input || (self.direction == Direction::In && hop.gateway.is_some())
        };
        matches!(verdict, Verdict::Forwarded { hops, .. } if !hops.iter().any(is_dead_end))
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

/// Iterates over the prefixes that contain this one, the longest first.
fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(prefix.supernet(), IpNet::supernet)
}

/// Returns the default route that the kernel prefers.
fn default_route<'a>(family: Family, routes: impl Iterator<Item = &'a Route>) -> Option<&'a Route> {
    let is_default = |route: &&Route| {
        let is_usable = route.kind == RouteType::Unicast && route.next.device.is_some();
        is_usable
            && route.destination.prefix_len() == 0
            && route.family() == family
            && route.table == MAIN_TABLE
    };
    routes.filter(is_default).min_by_key(|route| route.metric)
}

/// Returns a pod of the node, and the interface to it.
fn pod(cidr: IpNet, gateway: Option<IpAddr>, host: &Host) -> Option<Pod> {
    let holds = |device: &Untrusted| host.link(device.as_raw()).is_some_and(|link| link.up);
    let bridge = host.addresses.iter().filter(|local| cidr.contains(&local.address) && holds(&local.device));
    if let Some(local) = bridge.min_by_key(|local| Some(local.address) != gateway) {
        return Some(Pod {
            cidr,
            address: pod_address(cidr, Some(local.address)),
            device: local.device.clone(),
        });
    }
    let mut routes = host.foreign.iter().chain(&host.others).filter(|route| {
        cidr.contains(&route.destination) && route.next.gateway.is_none() && route.destination != cidr
    });
    routes.find_map(|route| {
        let device = route.next.device.clone().filter(holds)?;
        Some(Pod { cidr, address: route.destination.addr(), device })
    })
}
