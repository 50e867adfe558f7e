//! The packets between the pods of this node, or the node itself, and the pods of all others and the outside, and the path they
//! should take.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::Range,
};

use ipnet::IpNet;

use super::{
    ForwardingModel, Hop, Packet, TableRule, Verdict,
    ends::{Direction, End, LocalEnd, default_route, itself, pod},
    outside_address,
    prefix_set::{PrefixSet, ancestors},
    rank::{Course, Ledger, Rank},
};
use crate::{
    model::{Cluster, Family, Node, PerFamily, Prefixed, pod_address},
    state::{Host, Route, RouteType},
    text::Untrusted,
};

/// The other end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A pod of the node with this name.
    Node(Untrusted),
    /// A host outside the cluster.
    Outside,
}

/// A packet between a pod of this node, or the node itself, and another pod or the outside, and the next hop that it should
/// take on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// This node's end.
    pub local_end: LocalEnd,
    /// The other end.
    pub peer: Peer,
    /// The direction.
    pub direction: Direction,
    /// The packet.
    pub packet: Packet,
    /// The planned next hop. For a path to the outside, any next hop is accepted; a path to the node itself has none, only the
    /// interface.
    pub expected: Hop,
    /// The pod CIDR of this node, or the address of the node itself.
    pub own: IpNet,
    /// The pod CIDR of the other node, or the destination of the default route.
    pub other: IpNet,
    /// The cluster prefix of the pod that the packet is for; to the outside, of the pod that it comes from.
    pub cluster: IpNet,
    /// The cluster prefix of the pod that the packet comes from; from the outside, of the pod that it is for.
    pub from_cluster: IpNet,
    /// The table of the planned route.
    pub table: u32,
    /// The part of a pod CIDR that the path represents; `None` for all of it.
    pub part: Option<PodPart>,
    /// Whether the path also represents the paths to all other nodes.
    pub is_of_all: bool,
    /// Whether the interface of this node's pod leads to no other pod.
    pub is_alone: bool,
}

/// A part of a pod CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPart {
    /// A part of this node's pod CIDR.
    Own(IpNet),
    /// A part of the other node's pod CIDR.
    Other(IpNet),
}

/// The paths between a node or its pods and the pods of all others, and between its pods and the outside.
#[derive(Debug, Clone)]
pub struct Paths<'a> {
    cluster: &'a Cluster,
    /// A pod in each pod CIDR of the node that has a pod interface.
    pods: Vec<End>,
    /// The node itself, in each family.
    own: PerFamily<End>,
    node: &'a Node,
    /// The indexes of the entries in `others` to which packets of the node itself are judged, if those of its pods also are:
    /// one that represents many, and those whose packets may take a different path.
    of_node: Vec<(usize, bool)>,
    /// The routes to the pods of other nodes, with the indexes of the nodes.
    others: Vec<(&'a Route, usize)>,
    /// Parts of the pod CIDR of another node that a foreign route or a policy rule singles out, with the index of the entry
    /// in `others` for the whole node.
    parts: Vec<(IpNet, usize)>,
    /// Such parts of this node's pod CIDRs, each with a pod.
    own_parts: Vec<(IpNet, End)>,
    /// The pod CIDRs for which the node has no pod interface yet.
    missing: Vec<IpNet>,
    /// Prefixes inside the cluster whose packets may take a different path than all others.
    special: PrefixSet,
    /// The default routes, by which pods reach the outside. A node without one has no outside.
    outside: PerFamily<&'a Route>,
}

impl<'a> Paths<'a> {
    /// Returns the paths of the node at `index` of `cluster`. `routes` are its desired routes to the pods of other nodes,
    /// each with the index of the node, and `foreign` are the foreign routes. The pods are behind the interface with an
    /// address in the node's pod CIDR, such as the bridge `cni0`, or else behind any interface that has a route to one of
    /// them.
    #[must_use]
    pub fn new(
        cluster: &'a Cluster,
        index: usize,
        routes: impl Iterator<Item = (&'a Route, usize)>,
        foreign: impl Iterator<Item = &'a Route> + Clone,
        host: &'a Host,
    ) -> Self {
        let node = &cluster.nodes[index];
        let (mut pods, mut missing) = (Vec::new(), Vec::new());
        for network in &node.pods {
            match pod(network.prefix(), node.gateway_of(network), host) {
                Some(pod) => pods.push(pod),
                None => missing.push(network.prefix()),
            }
        }
        let mut others: Vec<(&Route, usize)> = routes.collect();
        let mut own = PerFamily::default();
        for family in Family::ALL {
            let mut of_family = others.iter().filter(|(route, _)| route.family() == family);
            if let Some((route, _)) = of_family.next() {
                *own.get_mut(family) = itself(node, route, host);
            }
        }
        let families: BTreeSet<Family> =
            pods.iter().map(End::family).chain(own.iter().map(|(family, _)| family)).collect();
        let is_usable = |route: &Route| {
            families.contains(&route.family())
                && route.next_hop.gateway.is_some()
                && route.next_hop.device.is_some()
        };
        others.retain(|(route, _)| is_usable(route));
        let (parts, own_parts) = (Vec::new(), Vec::new());
        let mut outside = PerFamily::default();
        for family in cluster.prefixes.families().filter(|_| cluster.nat.masquerade) {
            // An address with a route of its own does not represent the rest of the outside.
            let is_special = |route: &Route| {
                route.destination.prefix_len() > 1 && route.destination.contains(&outside_address(family))
            };
            let is_inside = cluster.prefixes.containing(outside_address(family)).is_some();
            if !is_inside && !foreign.clone().any(is_special) {
                *outside.get_mut(family) = default_route(family, foreign.clone(), &host.rules);
            }
        }
        let (of_node, special) = (Vec::new(), PrefixSet::default());
        let mut paths =
            Self { cluster, pods, own, node, of_node, others, parts, own_parts, missing, special, outside };
        paths.add_foreign(index, foreign, host);
        let alike = paths.first_alike(&paths.special).into_iter().enumerate();
        let firsts = alike.filter(|(at, first)| at == first).map(|(at, _)| at);
        let is_special = |at: usize| paths.special.overlaps(paths.others[at].0.destination);
        paths.of_node = firsts.map(|at| (at, !is_special(at))).collect();
        paths
    }

    /// Adds the paths of packets that foreign routes and rules may divert.
    fn add_foreign(
        &mut self,
        index: usize,
        foreign: impl Iterator<Item = &'a Route> + Clone,
        host: &'a Host,
    ) {
        let cluster = self.cluster;
        let is_inside = |prefix: &IpNet| is_inside(cluster, prefix);
        let selectors = host.rules.iter().flat_map(|rule| [rule.selector.from, rule.selector.to]).flatten();
        // The kernel's own routes to addresses of this node lead to no pod.
        let destinations =
            foreign.clone().filter(|route| !route.kind.is_local()).map(|route| route.destination);
        // No pod has an address of this node.
        let is_local = |prefix: &IpNet| {
            prefix.prefix_len() == prefix.max_prefix_len() && host.owner_of(prefix.addr()).is_some()
        };
        let found = selectors.chain(destinations).filter(is_inside).filter(|prefix| !is_local(prefix));
        let found: BTreeSet<IpNet> = found.collect();
        let mut whole: HashMap<IpNet, usize> = HashMap::new();
        for prefix in &found {
            if let Some(own) = cluster.nodes[index].pods.around(*prefix).map(Prefixed::prefix) {
                let pod = self.pods.iter().find(|pod| pod.prefix == own).filter(|_| own != *prefix);
                if let Some(pod) = pod {
                    let local = host.addresses.iter().find(|local| prefix.contains(&local.address));
                    let address = pod_address(*prefix, local.map(|local| local.address));
                    let device = own_device(pod, *prefix, foreign.clone(), &self.others);
                    let device = device.unwrap_or(&pod.device).clone();
                    self.own_parts.push((*prefix, End { address, device, ..pod.clone() }));
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
        // Nor does the kernel forward packets from one.
        let local = host.addresses.iter().map(|local| IpNet::from(local.address)).filter(is_inside);
        for prefix in found.into_iter().chain(local) {
            self.special.insert(prefix);
        }
    }

    /// Iterates over the paths: for each other node and family, out and in, then to parts of their pods, then to parts of
    /// this node's, then those of the node itself, and then those to the outside.
    pub fn iter(&self) -> impl Iterator<Item = Path> + '_ {
        self.refs().map(|path| self.path(path))
    }

    /// Iterates over the paths between this node's pods and the outside.
    pub fn with_outside(&self) -> impl Iterator<Item = Path> + '_ {
        self.outside_refs().map(|path| self.path(path))
    }

    /// Iterates over the next hops of the default routes.
    pub fn gateways(&self) -> impl Iterator<Item = Hop> + '_ {
        let hops = self.outside.iter().flat_map(|(_, route)| route.hops());
        hops.map(|(gateway, device)| Hop { gateway, device: device.clone() })
    }

    /// Iterates over the paths between pods.
    pub fn between_pods(&self) -> impl Iterator<Item = Path> + '_ {
        let refs = self.whole_refs().chain(self.part_refs());
        refs.filter(|path| path.own.local_end == LocalEnd::Pod).map(|path| self.path(path))
    }

    /// Iterates over the paths between this node's pods and other nodes themselves, as far as their addresses are known. The
    /// planned next hops are those to their pods.
    pub fn with_hosts(&self) -> impl Iterator<Item = Path> + '_ {
        let hosts = self.others.iter().filter_map(|(route, node)| {
            Some((*route, *node, *self.cluster.nodes[*node].addresses.get(route.family())?))
        });
        let refs = hosts.flat_map(move |(route, node, address)| {
            let pods = self.pods_of(route.family());
            pods.filter_map(move |own| self.both(own, route, Some(node), address)).flatten()
        });
        refs.map(|path| {
            let is_out = path.direction == Direction::Out;
            let host = IpNet::from(if is_out { path.destination } else { path.source });
            let path = self.path(path);
            let (cluster, from_cluster) = if is_out { (host, path.own) } else { (path.own, host) };
            Path { other: host, cluster, from_cluster, ..path }
        })
    }

    /// Returns the paths between this node's pods and those of another node, out and in for each family, which represent all
    /// others where nothing diverts them.
    #[must_use]
    pub fn samples(&self) -> Vec<Path> {
        let of_family = |family| {
            let pod = self.pods_of(family).next()?;
            let (route, node) = self.others.iter().find(|(route, _)| route.family() == family)?;
            self.both(pod, route, Some(*node), self.pod_behind(route, *node))
        };
        let refs = Family::ALL.into_iter().filter_map(of_family).flatten();
        refs.map(|path| self.path(path)).collect()
    }

    /// Iterates over the paths between the node itself and the pods of others. If it has pods, some paths represent the rest.
    pub fn of_node(&self) -> impl Iterator<Item = Path> + '_ {
        let refs = self.whole_refs().chain(self.node_refs());
        refs.filter(|path| path.own.local_end == LocalEnd::Node).map(|path| self.path(path))
    }

    fn refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        self.whole_refs().chain(self.other_refs())
    }

    /// The refs that represent all pods of other nodes.
    fn whole_refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        self.others.iter().flat_map(|(route, node)| self.whole(route, *node)).flatten()
    }

    /// The refs that follow those for all pods of other nodes.
    fn other_refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        self.part_refs().chain(self.node_refs()).chain(self.outside_refs())
    }

    /// The refs of the node itself, in the families in which it also has pods. Before the first pod, nothing is judged.
    fn node_refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        let refs = self.of_node.iter().filter_map(|(at, is_of_all)| {
            let (route, node) = self.others[*at];
            let own =
                self.own.get(route.family()).filter(|_| self.pods_of(route.family()).next().is_some())?;
            let both = self.both(own, route, Some(node), self.pod_behind(route, node))?;
            Some(both.map(|path| PathRef { is_of_all: *is_of_all, ..path }))
        });
        refs.flatten()
    }

    fn outside_refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        Family::ALL.into_iter().flat_map(|family| self.to_outside(family))
    }

    fn part_refs(&self) -> impl Iterator<Item = PathRef<'_>> {
        let parts = self.parts.iter().filter_map(|(part, at)| {
            let (route, node) = self.others[*at];
            let own = self.ends_of(route.family()).next()?;
            let both = self.both(own, route, Some(node), pod_address(*part, None))?;
            Some(both.map(|path| PathRef { part: Some(PodPart::Other(*part)), ..path }))
        });
        let own_parts = self.own_parts.iter().filter_map(|(part, pod)| {
            let (route, node) = self.others.iter().find(|(route, _)| route.family() == pod.family())?;
            let both = self.both(pod, route, Some(*node), pod_address(route.destination, None))?;
            Some(both.map(|path| PathRef { part: Some(PodPart::Own(*part)), is_of_all: true, ..path }))
        });
        parts.flatten().chain(own_parts.flatten())
    }

    fn pods_of(&self, family: Family) -> impl Iterator<Item = &End> {
        self.pods.iter().filter(move |pod| pod.family() == family)
    }

    /// The pods of the node, or the node itself if it has none.
    fn ends_of(&self, family: Family) -> impl Iterator<Item = &End> {
        let own = self.own.get(family).filter(|_| !self.node.pods.has(family));
        self.pods_of(family).chain(own)
    }

    /// A pod of another node behind `route`.
    fn pod_behind(&self, route: &Route, node: usize) -> IpAddr {
        pod_address(route.destination, self.cluster.nodes[node].gateway_at(route.destination))
    }

    /// The refs that represent all of another node's pods behind `route`: two for each of this node's ends.
    fn whole<'p>(&'p self, route: &'p Route, node: usize) -> impl Iterator<Item = [PathRef<'p>; 2]> {
        let address = self.pod_behind(route, node);
        self.ends_of(route.family()).filter_map(move |own| self.both(own, route, Some(node), address))
    }

    /// The refs between this node's pods and the outside. Replies from there reach the pod's address, because the
    /// kernel restores it before it routes them.
    fn to_outside(&self, family: Family) -> Vec<PathRef<'_>> {
        let mut refs: Vec<PathRef<'_>> = Vec::new();
        let Some(route) = self.outside.get(family) else { return refs };
        let hops_of = |pod| route.hops().map(move |hop| (pod, hop));
        for (pod, (gateway, device)) in self.pods_of(family).flat_map(hops_of) {
            for path in Self::along(pod, route, gateway, device, None, outside_address(family)) {
                // All next hops of a route share the packet to the outside, and those of an interface share the reply.
                if !refs.iter().any(|known| known.is_same_packet(&path)) {
                    refs.push(path);
                }
            }
        }
        refs
    }

    /// The two refs between `own` and `address` behind `route`, which is a pod of `node`, if any.
    fn both<'p>(
        &'p self,
        own: &'p End,
        route: &'p Route,
        node: Option<usize>,
        address: IpAddr,
    ) -> Option<[PathRef<'p>; 2]> {
        Some(Self::along(own, route, route.next_hop.gateway, route.next_hop.device.as_ref()?, node, address))
    }

    /// Returns the same two refs by one of the next hops of `route`.
    const fn along<'p>(
        own: &'p End,
        route: &'p Route,
        gateway: Option<IpAddr>,
        device: &'p Untrusted,
        node: Option<usize>,
        address: IpAddr,
    ) -> [PathRef<'p>; 2] {
        let out = PathRef {
            route,
            gateway,
            device,
            node,
            own,
            direction: Direction::Out,
            source: own.address,
            destination: address,
            part: None,
            is_of_all: false,
        };
        let back = PathRef { direction: Direction::In, source: address, destination: own.address, ..out };
        [out, back]
    }

    fn path(&self, path: PathRef<'_>) -> Path {
        let PathRef { route, node, own, direction, part, is_of_all, .. } = path;
        let Course { gateway, device, .. } = path.course();
        let is_out = direction == Direction::Out;
        let end = |is_own: bool| {
            let end = if is_own || node.is_none() { own.prefix } else { route.destination };
            self.cluster.prefixes.around(end).copied().unwrap_or(end)
        };
        Path {
            local_end: own.local_end,
            peer: node.map_or(Peer::Outside, |node| Peer::Node(self.cluster.nodes[node].name.clone())),
            direction,
            packet: path.packet(),
            expected: Hop { gateway, device: device.clone() },
            own: own.prefix,
            other: route.destination,
            cluster: end(!is_out),
            from_cluster: end(is_out),
            table: route.table,
            part,
            is_of_all,
            is_alone: own.is_alone,
        }
    }

    /// Returns, for each route to another node, the index of the first one that is like it: the node's rules and routes
    /// treat packets to all of them alike, except for their own routes. A route that a `special` prefix overlaps is only
    /// like itself.
    fn first_alike(&self, special: &PrefixSet) -> Vec<usize> {
        let mut known: PerFamily<(usize, Option<&Untrusted>)> = PerFamily::default();
        let mut firsts = Vec::with_capacity(self.others.len());
        for (index, (route, _)) in self.others.iter().enumerate() {
            let device = route.next_hop.device.as_ref();
            let alike = known.get(route.family()).filter(|(_, of)| *of == device);
            firsts.push(match alike {
                _ if special.overlaps(route.destination) => index,
                Some((first, _)) => *first,
                None => {
                    *known.get_mut(route.family()) = Some((index, device));
                    index
                }
            });
        }
        firsts
    }

    /// Returns the ranks of the paths by a model of the node with all of their routes. The paths along routes that are
    /// alike have the same ranks.
    #[must_use]
    pub fn rank_by(&self, model: &ForwardingModel<'_>) -> Ledger {
        self.rank_apart(model, &self.special)
    }

    /// Returns the ranks of the paths by a model of the node whose routes to `changed` are not the planned ones.
    #[must_use]
    pub fn rank_unapplied(&self, model: &ForwardingModel<'_>, changed: &[IpNet]) -> Ledger {
        let mut special = self.special.clone();
        changed.iter().for_each(|prefix| special.insert(*prefix));
        self.rank_apart(model, &special)
    }

    /// Returns the ranks of the paths. Those along routes that `special` prefixes overlap are judged one by one.
    fn rank_apart(&self, model: &ForwardingModel<'_>, special: &PrefixSet) -> Ledger {
        let rank = |path: PathRef<'_>| path.course().rank(&model.trace(&path.packet()).verdict);
        let mut ranks = Vec::with_capacity(2 * self.others.len());
        // For each route, the range of its ranks, or of those of a route like it.
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(self.others.len());
        for (index, first) in self.first_alike(special).into_iter().enumerate() {
            let start = ranks.len();
            if let Some(known) = ranges.get(first) {
                ranks.extend_from_within(known.clone());
                ranges.push(known.clone());
            } else {
                let (route, node) = self.others[index];
                ranks.extend(self.whole(route, node).flatten().map(rank));
                ranges.push(start..ranks.len());
            }
        }
        ranks.extend(self.other_refs().map(rank));
        Ledger(ranks)
    }

    /// Returns `true` if there are no paths.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refs().next().is_none()
    }

    /// Returns the policy rules by which pod traffic uses hostgw's routes, the last ones with this priority.
    #[must_use]
    pub fn table_rules(&self, family: Family, table: u32, priority: u32) -> Vec<TableRule> {
        let own = self.node.pods.of(family).map(Prefixed::prefix);
        TableRule::for_pods(own, self.cluster.prefixes.of(family).copied(), table, priority)
    }

    /// Returns the pod CIDRs of the node for which no path can be judged, because the node has no pod interface.
    #[must_use]
    pub fn missing(&self) -> &[IpNet] {
        &self.missing
    }

    /// Returns the families in which packets of the node or its pods are judged.
    #[must_use]
    pub fn families(&self) -> BTreeSet<Family> {
        self.pods.iter().map(End::family).chain(self.own.iter().map(|(family, _)| family)).collect()
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
    pub fn judge<E>(&self, ask: impl FnMut(&[Packet]) -> Result<Vec<Verdict>, E>) -> Result<Ledger, E> {
        let mut ranks = Vec::with_capacity(2 * self.others.len());
        ask_all(self.refs(), ask, |path, verdict| ranks.push(path.course().rank(verdict)))?;
        Ok(Ledger(ranks))
    }

    /// Ranks the paths of a node whose managed routes are `live`. Asks about only one of the nodes that have no route yet and
    /// whose packets nothing diverts: the kernel treats the packets of all of them alike.
    ///
    /// # Errors
    /// Returns the error of `ask`.
    pub fn judge_alike<E>(
        &self,
        live: &[Route],
        ask: impl FnMut(&[Packet]) -> Result<Vec<Verdict>, E>,
    ) -> Result<Ledger, E> {
        let mut special = self.special.clone();
        for route in live.iter().filter(|route| is_inside(self.cluster, &route.destination)) {
            special.insert(route.destination);
        }
        let mut asked: Vec<PathRef<'_>> = Vec::new();
        // For each route, the index of the first of its packets, or of those of a route like it.
        let mut places = Vec::with_capacity(self.others.len());
        for (index, first) in self.first_alike(&special).into_iter().enumerate() {
            if let Some(place) = places.get(first) {
                places.push(*place);
                continue;
            }
            let (route, node) = self.others[index];
            places.push(asked.len());
            asked.extend(self.whole(route, node).flatten());
        }
        let whole = asked.len();
        asked.extend(self.other_refs());
        let mut verdicts = Vec::with_capacity(asked.len());
        ask_all(asked.iter().copied(), ask, |_, verdict| verdicts.push(verdict.clone()))?;
        let rank = |path: &PathRef<'_>, place: usize| {
            verdicts.get(place).map_or(Rank::Lost, |verdict| path.course().rank(verdict))
        };
        let mut ranks = Vec::with_capacity(2 * places.len());
        for ((route, node), place) in self.others.iter().zip(places) {
            let refs = self.whole(route, *node).flatten().zip(place..);
            ranks.extend(refs.map(|(path, place)| rank(&path, place)));
        }
        ranks.extend(asked.iter().enumerate().skip(whole).map(|(place, path)| rank(path, place)));
        Ok(Ledger(ranks))
    }
}

/// Asks about paths in batches, and passes each with its result to `take`.
fn ask_all<'p, E>(
    paths: impl Iterator<Item = PathRef<'p>>,
    mut ask: impl FnMut(&[Packet]) -> Result<Vec<Verdict>, E>,
    mut take: impl FnMut(&PathRef<'p>, &Verdict),
) -> Result<(), E> {
    /// Enough to fill many requests, and few enough to take little memory.
    const AT_ONCE: usize = 8_192;
    let mut paths = paths.peekable();
    while paths.peek().is_some() {
        let some: Vec<PathRef<'_>> = paths.by_ref().take(AT_ONCE).collect();
        let packets: Vec<Packet> = some.iter().map(PathRef::packet).collect();
        for (path, verdict) in some.iter().zip(&ask(&packets)?) {
            take(path, verdict);
        }
    }
    Ok(())
}

/// Returns the interface of the pod with the address `prefix`, if each pod has an interface of its own, to which a route leads.
fn own_device<'r>(
    pod: &End,
    prefix: IpNet,
    mut foreign: impl Iterator<Item = &'r Route>,
    others: &[(&Route, usize)],
) -> Option<&'r Untrusted> {
    let is_own = |route: &&Route| {
        route.destination == prefix && route.kind == RouteType::Unicast && route.next_hop.gateway.is_none()
    };
    let device = foreign.find(is_own).filter(|_| pod.is_alone)?.next_hop.device.as_ref()?;
    // One that leads to other nodes does not lead to a pod.
    let is_egress = |(route, _): &(&Route, usize)| route.next_hop.device.as_ref() == Some(device);
    (!others.iter().any(is_egress)).then_some(device)
}

/// A path without copies: a cluster has two for each other node, and almost all are only judged.
#[derive(Debug, Clone, Copy)]
struct PathRef<'p> {
    route: &'p Route,
    /// The next hop of the route, or one of them.
    gateway: Option<IpAddr>,
    device: &'p Untrusted,
    /// The index of the other node; `None` for the outside.
    node: Option<usize>,
    own: &'p End,
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    part: Option<PodPart>,
    is_of_all: bool,
}

impl<'p> PathRef<'p> {
    const fn course(&self) -> Course<'p> {
        let End { local_end, device: own, .. } = self.own;
        let (input, gateway, device) = match (self.direction, local_end) {
            (Direction::Out, LocalEnd::Pod) => (Some(own), self.gateway, self.device),
            (Direction::Out, LocalEnd::Node) => (None, self.gateway, self.device),
            (Direction::In, _) => (Some(self.device), None, own),
        };
        let (is_outside, direction) = (self.node.is_none(), self.direction);
        Course { local_end: *local_end, is_outside, direction, input, gateway, device }
    }

    fn is_same_packet(&self, other: &Self) -> bool {
        let packet = |path: &Self| (path.source, path.destination, path.course().input);
        packet(self) == packet(other)
    }

    fn packet(&self) -> Packet {
        let Course { input, .. } = self.course();
        Packet { source: self.source, destination: self.destination, input: input.cloned() }
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

    /// Returns how good a result for the packet is.
    #[must_use]
    pub fn rank(&self, verdict: &Verdict) -> Rank {
        self.course().rank(verdict)
    }

    /// Returns `true` if the node forwards a packet that it does not forward as planned to a next hop that may deliver it.
    #[must_use]
    pub fn is_diverted(&self, verdict: &Verdict) -> bool {
        self.course().is_diverted(verdict)
    }

    /// Returns `true` if the node itself receives the packet.
    #[must_use]
    pub fn is_to_node(&self) -> bool {
        self.course().is_to_node()
    }

    fn course(&self) -> Course<'_> {
        Course {
            local_end: self.local_end,
            is_outside: self.peer == Peer::Outside,
            direction: self.direction,
            input: self.packet.input.as_ref(),
            gateway: self.expected.gateway,
            device: &self.expected.device,
        }
    }
}

/// Returns `true` if the cluster has a prefix that contains this one and is larger.
fn is_inside(cluster: &Cluster, prefix: &IpNet) -> bool {
    cluster.prefixes.iter().any(|whole| whole.contains(prefix) && whole != prefix)
}
