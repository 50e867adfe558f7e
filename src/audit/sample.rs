//! A part of the cluster that represents all of it, as one node sees it.
//!
//! The snapshot of a node in a cluster of 5,000 has 5,000 routes, and almost all of them are alike: nothing on the node
//! distinguishes the pods that they lead to. The node is therefore examined with one node of each kind, and with every node
//! whose route is missing or differs. If this tells anything about a node that stands for others, the whole snapshot is
//! examined instead.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::{
    forwarding::Distinctions,
    model::{
        Cluster, Family, NextHopKind, Node, OffLink, PerFamily, Prefixed, RouteSource, address_number,
        pod_address, prefix_bounds,
    },
    plan::{self, Sender},
    record::{RouteTexts, SnapshotOutline},
    state::{Host, Route, RouteKey},
    text::Untrusted,
};

/// The largest number of nodes that are examined one by one. Beyond it, a sample saves too little.
const MAX_SPECIAL: usize = 200;

/// The routes that nodes with the same interface and options have.
#[derive(Debug)]
struct Expected {
    sender: Sender,
    /// The routes to the pods of all nodes, each with the index of its node, and those of the cluster prefixes.
    routes: Vec<(Route, Option<usize>)>,
    places: HashMap<RouteKey, usize>,
    /// For each known text of a route, the place of the same route.
    known: Vec<Option<Option<usize>>>,
}

/// Finds samples. It is kept for many snapshots.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The cluster without its nodes.
    frame: Cluster,
    texts: RouteTexts,
    expected: Vec<Expected>,
}

/// A part of the cluster, and the routes of the snapshot that lead there.
#[derive(Debug)]
pub(super) struct ClusterPart {
    /// The cluster without most nodes.
    pub cluster: Cluster,
    /// The indexes of its nodes in the whole cluster.
    pub indexes: Vec<usize>,
    /// The index of the node in the sample.
    pub index: usize,
    /// The routes to these nodes, and all routes that are not planned.
    pub routes: Vec<Route>,
    /// The nodes that stand for others.
    pub representatives: HashSet<Untrusted>,
    /// For each node, the families of the routes to its pods.
    reached: Vec<(bool, bool)>,
}

impl ClusterPart {
    /// Returns the number of other nodes to which there are routes of these families.
    pub fn others(&self, families: &BTreeSet<Family>) -> usize {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| families.contains(&family));
        self.reached.iter().filter(|reached| (v4 && reached.0) || (v6 && reached.1)).count()
    }
}

impl Sampler {
    /// Creates a sampler. `None` if the routes of a node depend on more than its interface and options.
    pub fn new(cluster: &Cluster) -> Option<Self> {
        let is_uniform = cluster.off_link == OffLink::Refuse && cluster.routes.source == RouteSource::Auto;
        is_uniform.then(|| Self {
            frame: Cluster { nodes: Vec::new(), ..cluster.clone() },
            texts: RouteTexts::default(),
            expected: Vec::new(),
        })
    }

    /// Parses a snapshot; `None` if it has to be parsed completely.
    pub fn outline(&mut self, text: &str) -> Option<SnapshotOutline> {
        SnapshotOutline::parse(text, &mut self.texts)
    }

    /// Returns a sample of `cluster` for the node at `index`, whose snapshot has this `outline`. `None` if the whole cluster has
    /// to be examined.
    pub fn sample(
        &mut self,
        cluster: &Cluster,
        index: usize,
        outline: &SnapshotOutline,
    ) -> Option<ClusterPart> {
        let at = self.expected(cluster, index);
        let Self { frame, texts, expected } = self;
        let expected = &mut expected[at];
        let ids = outline.routes();
        let mut is_seen = vec![false; expected.routes.len()];
        let mut extra: Vec<&Route> = Vec::new();
        for id in ids {
            match expected.place(*id, texts.route(*id)) {
                Some(place) if !is_seen[place] && expected.routes[place].1 != Some(index) => {
                    is_seen[place] = true;
                }
                _ => extra.push(texts.route(*id)),
            }
        }
        let (mut is_special, mut reached) =
            (vec![false; cluster.nodes.len()], vec![(false, false); cluster.nodes.len()]);
        for ((route, peer), is_seen) in expected.routes.iter().zip(&is_seen) {
            if let Some(peer) = peer.filter(|peer| *peer != index) {
                match route.family() {
                    Family::V4 => reached[peer].0 = true,
                    Family::V6 => reached[peer].1 = true,
                }
                is_special[peer] |= !is_seen;
            }
        }
        let mut special = is_special.iter().filter(|is_special| **is_special).count();
        if extra.len() + special > MAX_SPECIAL {
            return None;
        }
        let host = outline.host();
        let kinds = Landmarks::new(cluster, host, &extra)?;
        let mut firsts: Vec<(Likeness, usize, bool)> = Vec::new();
        for (peer, node) in cluster.nodes.iter().enumerate().filter(|(peer, _)| *peer != index) {
            if is_special[peer] {
                continue;
            }
            let Some(kind) = kinds.of(cluster, node) else {
                (is_special[peer], special) = (true, special + 1);
                continue;
            };
            match firsts.iter_mut().find(|(known, ..)| *known == kind) {
                Some((_, _, stands_for_others)) => *stands_for_others = true,
                None => firsts.push((kind, peer, false)),
            }
            if firsts.len() + special > MAX_SPECIAL {
                return None;
            }
        }
        let representatives = firsts.iter().filter(|(_, _, stands_for_others)| *stands_for_others);
        let representatives = representatives.map(|(_, peer, _)| cluster.nodes[*peer].name.clone()).collect();
        let mut is_in_sample = is_special;
        is_in_sample[index] = true;
        firsts.iter().for_each(|(_, peer, _)| is_in_sample[*peer] = true);
        let indexes: Vec<usize> = (0..cluster.nodes.len()).filter(|index| is_in_sample[*index]).collect();
        let is_kept = |id: &&usize| {
            let place = expected.known[**id].flatten();
            let peer = place.and_then(|place| expected.routes[place].1);
            peer.is_none_or(|peer| is_in_sample[peer])
        };
        let routes = ids.iter().filter(is_kept).map(|id| texts.route(*id).clone()).collect();
        let nodes = indexes.iter().map(|index| cluster.nodes[*index].clone()).collect();
        let sample = indexes.binary_search(&index).ok()?;
        Some(ClusterPart {
            cluster: Cluster { nodes, found_egress: cluster.found_egress.clone(), ..frame.clone() },
            indexes,
            index: sample,
            routes,
            representatives,
            reached,
        })
    }

    /// Returns the place of the routes that the node at `index` should have.
    fn expected(&mut self, cluster: &Cluster, index: usize) -> usize {
        let sender = Sender::of(cluster, &cluster.nodes[index]);
        if let Some(at) = self.expected.iter().position(|known| known.sender == sender) {
            return at;
        }
        // Senders are few, unless the configuration is unusual.
        const MAX_SENDERS: usize = 16;
        if self.expected.len() >= MAX_SENDERS {
            self.expected.clear();
        }
        let routes = plan::routes_to_all(cluster, &sender);
        let places = routes.iter().enumerate().map(|(at, (route, _))| (route.key(), at)).collect();
        self.expected.push(Expected { sender, routes, places, known: Vec::new() });
        self.expected.len() - 1
    }
}

impl Expected {
    /// Returns the place of the same route as the one with this number.
    fn place(&mut self, id: usize, route: &Route) -> Option<usize> {
        if id >= self.known.len() {
            self.known.resize(id + 1, None);
        }
        *self.known[id].get_or_insert_with(|| {
            let place = self.places.get(&route.key()).copied();
            place.filter(|place| self.routes[*place].0 == *route)
        })
    }
}

/// What distinguishes the pods of nodes on one machine.
struct Landmarks {
    /// The first addresses of what routes, rules and addresses of the machine distinguish, sorted.
    bounds: PerFamily<Vec<u128>>,
}

/// What one machine does with packets to and from a node, as far as it depends on the node.
type Likeness = SmallVec<[u64; 24]>;

impl Landmarks {
    fn new(cluster: &Cluster, host: &Host, extra: &[&Route]) -> Option<Self> {
        let mut bounds: PerFamily<Vec<u128>> = PerFamily::default();
        let mut add = |prefix: IpNet| {
            let (first, last) = prefix_bounds(prefix);
            let bounds = bounds.get_mut(Family::from(prefix)).get_or_insert_default();
            bounds.extend([first, last.saturating_add(1)]);
        };
        let foreign = host.foreign.iter().chain(&host.others);
        let routes = foreign.chain(extra.iter().copied()).map(|route| route.destination);
        let rules = host.rules.iter().flat_map(|rule| [rule.selector.from, rule.selector.to]).flatten();
        let links = host.addresses.iter().map(|local| local.prefix);
        let prefixes = cluster.prefixes.iter().copied();
        for prefix in routes.chain(rules).chain(links).chain(prefixes) {
            add(prefix);
        }
        let local = host.addresses.iter().map(|local| local.address);
        let neighbors = host.neighbors.iter().filter(|entry| entry.unanswered).map(|entry| entry.address);
        for address in local.chain(neighbors) {
            add(address.into());
        }
        let distinctions = host.firewall.as_ref().map(|firewall| Distinctions::of(firewall, host));
        for family in Family::ALL {
            let bounds = bounds.get_mut(family).get_or_insert_default();
            if let Some(distinctions) = &distinctions {
                bounds.extend(distinctions.bounds(family)?);
            }
            bounds.sort_unstable();
            bounds.dedup();
        }
        Some(Self { bounds })
    }

    fn region(&self, address: IpAddr) -> usize {
        let bounds = self.bounds.get(Family::from(address)).map_or(&[][..], Vec::as_slice);
        bounds.partition_point(|bound| *bound <= address_number(address))
    }

    /// Returns the kind of a node; `None` if it is like no other.
    fn of(&self, cluster: &Cluster, node: &Node) -> Option<Likeness> {
        let mut kind = Likeness::new();
        kind.push(node.os as u64);
        kind.push(node.mtu().map_or(0, |mtu| u64::from(mtu) + 1));
        let mut add = |address: IpAddr| {
            kind.push(self.region(address) as u64);
        };
        for network in node.pods.iter() {
            let prefix = network.prefix();
            if self.region(prefix.network()) != self.region(prefix.broadcast()) {
                return None;
            }
            let gateway = node.gateway_of(network);
            add(gateway);
            add(pod_address(prefix, Some(gateway)));
            match cluster.next_hop_of(node, network.family()) {
                NextHopKind::PodGateway | NextHopKind::NodeAddress => {}
                NextHopKind::Router(router) => add(router),
            }
        }
        for (_, address) in node.addresses.iter() {
            add(*address);
        }
        for network in node.pods.iter() {
            let family = network.family();
            kind.push(u64::from(network.prefix().prefix_len()) << 8 | u64::from(family == Family::V6));
            kind.push(match cluster.next_hop_of(node, family) {
                NextHopKind::PodGateway => 1,
                NextHopKind::NodeAddress => 2,
                NextHopKind::Router(_) => 3,
            });
        }
        Some(kind)
    }
}

/// Returns `true` if a text mentions one of the names, as a word of its own.
pub(super) fn mentions(text: &str, names: &HashSet<Untrusted>) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    names.iter().map(Untrusted::as_raw).any(|name| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(is_of_name) && !after.is_some_and(|c| is_of_name(c) && c != '.')
        })
    })
}
