//! Compares the routes of two configurations, once for all nodes.

use std::borrow::Borrow;

use ipnet::IpNet;

use crate::{
    align,
    model::{Cluster, ConfigPath, Family, NextHopKind, Node, OperatingSystem},
    plan::desired::{self, Origin, Sender},
    state::{Route, RouteKey, RouteType},
};

use super::{
    Cause, ConfigKey, Delta, Member, NodeStatus, ObjectChange, PerNodeAddress, Purpose, Side,
    pairing::{EgressChange, NodePairing, RouteVariant},
};

/// A route key, with the route that each file has there, before a [`Sender`] adapts it, and the origin of that route.
pub(super) struct RouteSlot {
    before: Option<(Route, Origin)>,
    after: Option<(Route, Origin)>,
}

impl RouteSlot {
    pub(super) fn key(&self) -> Option<RouteKey> {
        let (route, _) = self.after.as_ref().or(self.before.as_ref())?;
        Some(route.key())
    }

    /// Returns `true` if the files differ in this route.
    pub(super) fn differs(&self) -> bool {
        self.before.as_ref().map(|(route, _)| route) != self.after.as_ref().map(|(route, _)| route)
    }

    /// Returns `true` if the files differ in this route on one node, except for its egress interface.
    pub(super) fn differs_on(&self, pairing: &NodePairing<'_>, member: Member) -> bool {
        let route = |side, route: &Option<(Route, Origin)>| {
            let (route, _) = route.as_ref()?;
            Some(sender(side).adapt(route.clone()))
        };
        route(pairing.before(member), &self.before) != route(pairing.after(member), &self.after)
    }

    /// Returns the nodes that the route leads to, under the old and the new configuration. They do not have the route
    /// themselves.
    fn owners(&self, pairing: &NodePairing<'_>) -> [Option<Member>; 2] {
        [
            owner(self.before.as_ref(), |index| pairing.old_member(index)),
            owner(self.after.as_ref(), |index| pairing.new_member(index)),
        ]
    }
}

/// Returns the keys of either file: in the order of the new file, then those that are only in the old file. Without
/// `all`, omits the keys at which both files have the same route to the same node.
pub(super) fn slots(pairing: &NodePairing<'_>, all: bool) -> Vec<RouteSlot> {
    let is_moved = |before: &(Route, Origin), after: &(Route, Origin)| {
        owner(Some(before), |index| pairing.old_member(index))
            != owner(Some(after), |index| pairing.new_member(index))
    };
    let is_needed = |before: Option<&(Route, Origin)>, after: Option<&(Route, Origin)>| match (before, after)
    {
        (Some(before), Some(after)) => all || before.0 != after.0 || is_moved(before, after),
        _ => true,
    };
    join(pairing.old, pairing.new, |_| true, is_needed)
}

/// Returns the wanted keys of either file, in the same order.
pub(super) fn slots_at(
    old: Option<&Cluster>,
    new: &Cluster,
    is_wanted: impl Fn(&RouteKey) -> bool,
) -> Vec<RouteSlot> {
    join(old, new, is_wanted, |_, _| true)
}

fn join(
    old: Option<&Cluster>,
    new: &Cluster,
    is_wanted: impl Fn(&RouteKey) -> bool,
    is_needed: impl Fn(Option<&(Route, Origin)>, Option<&(Route, Origin)>) -> bool,
) -> Vec<RouteSlot> {
    let before = old.into_iter().flat_map(|old| installed(old, &is_wanted));
    let pairs = align::join(before, installed(new, &is_wanted), |(route, _)| route.key(), is_needed);
    pairs.into_iter().map(|(before, after)| RouteSlot { before, after }).collect()
}

/// Iterates over the keys of only one file.
pub(super) fn slots_of(pairing: &NodePairing<'_>, side: Side) -> impl Iterator<Item = RouteSlot> {
    let old = pairing.old.filter(|_| side == Side::Old);
    let new = Some(pairing.new).filter(|_| side == Side::New);
    let before = old.into_iter().flat_map(|old| installed(old, &|_: &RouteKey| true));
    let after = new.into_iter().flat_map(|new| installed(new, &|_: &RouteKey| true));
    let before = before.map(|before| RouteSlot { before: Some(before), after: None });
    before.chain(after.map(|after| RouteSlot { before: None, after: Some(after) }))
}

/// Returns the node that a route leads to. `member` finds a node of the route's file.
fn owner(route: Option<&(Route, Origin)>, member: impl Fn(usize) -> Member) -> Option<Member> {
    match route {
        Some((_, Origin::Node(index))) => Some(member(*index)),
        _ => None,
    }
}

/// Iterates over the wanted routes of a configuration. The route to the only node of a cluster is on no node, and that
/// node's pod CIDR may equal the cluster prefix.
fn installed<'a>(
    cluster: &'a Cluster,
    is_wanted: &'a impl Fn(&RouteKey) -> bool,
) -> impl Iterator<Item = (Route, Origin)> + 'a {
    let is_installed = |origin| cluster.nodes.len() > 1 || !matches!(origin, Origin::Node(_));
    desired::routes_at(cluster, is_wanted).filter(move |(_, origin)| is_installed(*origin))
}

/// Computes the route changes of nodes with the same status and the same `variant`. `slots` are those of one file for
/// nodes that are only there, and those of both for other nodes.
pub(super) fn deltas<S: Borrow<RouteSlot>>(
    pairing: &NodePairing<'_>,
    slots: impl Iterator<Item = S>,
    status: NodeStatus,
    members: &[Member],
    variant: RouteVariant,
) -> Vec<Delta> {
    if members.is_empty() {
        return Vec::new();
    }
    let device_before = common(members.iter().map(|member| pairing.device_before(*member)));
    let device_after = common(members.iter().map(|member| pairing.device_after(*member)));
    // The first node represents all of them.
    let sender_before = sender(pairing.before(members[0]));
    let sender_after = sender(pairing.after(members[0]));
    let is_member = |member: &Member| {
        pairing.os(*member) == OperatingSystem::Linux
            && pairing.status(*member) == status
            && pairing.route_variant(status, *member) == variant
    };
    let delta = |slot: S| {
        let slot = slot.borrow();
        let before = slot.before.as_ref().filter(|_| status != NodeStatus::New);
        let after = slot.after.as_ref().filter(|_| status != NodeStatus::Removed);
        let old_route = before.map(|(route, _)| sender_before.adapt(route.clone()));
        let new_route = after.map(|(route, _)| sender_after.adapt(route.clone()));
        let cause = match (status, before, after) {
            (_, None, None) => return None,
            (NodeStatus::New, _, Some((_, origin))) => {
                Cause::Configured(Side::New, Purpose::of_route(*origin))
            }
            (NodeStatus::Removed, Some((_, origin)), _) => {
                Cause::Configured(Side::Old, Purpose::of_route(*origin))
            }
            _ if old_route != new_route => slot_cause(pairing, slot, members),
            (_, Some((route, _)), _)
                if variant.egress_change == EgressChange::Changed && route.kind == RouteType::Unicast =>
            {
                egress_cause(pairing, members)
            }
            _ => return None,
        };
        let [old, new] = slot.owners(pairing);
        let owners = [old.filter(|_| before.is_some()), new.filter(|_| after.is_some())];
        let mut except: Vec<Member> = owners.into_iter().flatten().filter(is_member).collect();
        except.dedup();
        (except.len() < members.len()).then(|| Delta {
            item: ObjectChange::Route {
                own: if members.len() > 1 {
                    let source = |route: &Option<Route>| route.as_ref().and_then(|route| route.source);
                    PerNodeAddress { before: source(&old_route), after: source(&new_route) }
                } else {
                    PerNodeAddress::default()
                },
                before: old_route.map(|route| with_device(route, device_before)),
                after: new_route.map(|route| with_device(route, device_after)),
            },
            except,
            only: None,
            cause,
        })
    };
    let is_concerned =
        |slot: &S| status != NodeStatus::Existing || !variant.is_unchanged() || slot.borrow().differs();
    slots.filter(is_concerned).filter_map(delta).collect()
}

/// Computes the changes that only affect the node a route leads to. When a pod CIDR moves, its old node gains a route
/// to it and its new node loses one.
pub(super) fn owner_deltas(pairing: &NodePairing<'_>, slots: &[RouteSlot]) -> Vec<Delta> {
    let mut deltas = Vec::new();
    let stays = |member: &Member| {
        pairing.os(*member) == OperatingSystem::Linux && pairing.status(*member) == NodeStatus::Existing
    };
    for slot in slots {
        let (Some((before, _)), Some((after, _))) = (&slot.before, &slot.after) else { continue };
        let [old, new] = slot.owners(pairing);
        if old == new {
            continue;
        }
        let mut add = |member, before, after| {
            let cause = moved_cause(slot.owners(pairing));
            let item = ObjectChange::Route { before, after, own: PerNodeAddress::default() };
            deltas.push(Delta { item, except: Vec::new(), only: Some(member), cause });
        };
        if let Some(member) = old.filter(stays) {
            add(member, None, pairing.after(member).map(|side| as_on(side, after)));
        }
        if let Some(member) = new.filter(stays) {
            add(member, pairing.before(member).map(|side| as_on(side, before)), None);
        }
    }
    deltas
}

/// Returns the name that all have in common, if there is one.
pub(super) fn common<'a>(mut names: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)?
}

/// Returns a key of these nodes, or `None` if there are none.
pub(super) fn node_key(members: &[Member], key: &'static str) -> Option<ConfigKey> {
    let (first, rest) = members.split_first()?;
    Some(key_of(*first, rest.len(), key))
}

/// Returns a key of a node and of `others` after it.
const fn key_of(first: Member, others: usize, key: &'static str) -> ConfigKey {
    match others {
        0 => ConfigKey::Node { member: first, key },
        others => ConfigKey::PerNode { first, others, key },
    }
}

fn with_device(mut route: Route, device: Option<&str>) -> Route {
    if route.kind == RouteType::Unicast {
        route.next_hop.device = device.map(Into::into);
    }
    route
}

/// Returns what the routes of a node have in common, except for its egress interface.
fn sender(side: Option<(&Cluster, &Node)>) -> Sender {
    let sender = side.map_or_else(Sender::default, |(cluster, node)| Sender::of(cluster, node));
    Sender { device: None, ..sender }
}

/// Returns the route as a node has it.
fn as_on((cluster, node): (&Cluster, &Node), route: &Route) -> Route {
    Sender::of(cluster, node).adapt(route.clone())
}

/// Returns the reason that `members`, whose route variant is the same, have other routes in `slot`.
pub(super) fn slot_cause(pairing: &NodePairing<'_>, slot: &RouteSlot, members: &[Member]) -> Cause {
    match (&slot.before, &slot.after) {
        (None, Some((route, Origin::Node(index)))) => match pairing.to_old[*index] {
            None => Cause::NodeAdded(*index),
            Some(_) => relocation_cause(pairing, pairing.new_member(*index), route.destination),
        },
        (Some((route, Origin::Node(index))), None) => match pairing.to_new[*index] {
            None => Cause::NodeRemoved(*index),
            Some(_) => relocation_cause(pairing, pairing.old_member(*index), route.destination),
        },
        (Some((before, _)), Some((after, _))) => {
            let [old, new] = slot.owners(pairing);
            if old == new {
                replacement_cause(pairing, old, members, before, after)
            } else {
                moved_cause(slot.owners(pairing))
            }
        }
        (None, Some((route, _))) | (Some((route, _)), None) => {
            let has_prefix = |cluster: &Cluster| cluster.prefixes.at(route.destination).is_some();
            let is_renumbered = pairing.old.is_some_and(has_prefix) != has_prefix(pairing.new);
            let mut keys = Vec::new();
            if route.kind != RouteType::Unicast {
                let keys = Some(global(&["routes", "unassigned"])).filter(|_| is_unassigned_changed(pairing));
                let prefix_key = || global(&["clusterPrefix"]);
                let mut keys: Vec<ConfigKey> = keys.into_iter().collect();
                keys.extend(is_renumbered.then(prefix_key).filter(|_| keys.is_empty()));
                keys.extend(table_key(pairing));
                return Cause::Changed(keys);
            }
            let uses_pod_gateways = |cluster: &Cluster| cluster.uses_pod_gateways(route.family());
            if is_next_hop_changed(pairing) {
                keys.push(global(&["nextHop"]));
            } else if pairing.old.is_some_and(uses_pod_gateways) != uses_pod_gateways(pairing.new) {
                keys.extend(first_override(pairing));
            } else if is_renumbered {
                keys.push(global(&["clusterPrefix"]));
            }
            keys.extend(key_options(pairing));
            Cause::Changed(keys)
        }
        (None, None) => Cause::Changed(Vec::new()),
    }
}

pub(super) fn global(path: &[&str]) -> ConfigKey {
    ConfigKey::Global(path.iter().fold(ConfigPath::root(), |path, key| path.key(*key)))
}

/// Returns whether `nextHop` of the cluster differs.
pub(super) fn is_next_hop_changed(pairing: &NodePairing<'_>) -> bool {
    let next_hop = |cluster: &Cluster| (cluster.next_hop_mode, cluster.routers);
    pairing.old.map(next_hop) != Some(next_hop(pairing.new))
}

/// Returns the key of the first node whose own `nextHop` differs.
fn first_override(pairing: &NodePairing<'_>) -> Option<ConfigKey> {
    let mut members = pairing.members();
    let member = members.find(|member| is_override_changed(pairing, *member))?;
    Some(ConfigKey::Node { member, key: "nextHop" })
}

/// Returns whether the node's own `nextHop` differs.
fn is_override_changed(pairing: &NodePairing<'_>, member: Member) -> bool {
    let own = |side: Option<(&Cluster, &Node)>| side.and_then(|(_, node)| node.next_hop().copied());
    own(pairing.before(member)) != own(pairing.after(member))
}

/// Returns the key that changed the next hop to a pod CIDR of a node: its own or the cluster's `nextHop`, or what that refers to.
pub(super) fn next_hop_key(pairing: &NodePairing<'_>, member: Member, destination: IpNet) -> ConfigKey {
    if is_override_changed(pairing, member) {
        ConfigKey::Node { member, key: "nextHop" }
    } else if is_next_hop_changed(pairing) {
        global(&["nextHop"])
    } else {
        ConfigKey::Node { member, key: gateway_key(pairing, member, destination) }
    }
}

/// Returns whether `routes.unassigned` differs.
fn is_unassigned_changed(pairing: &NodePairing<'_>) -> bool {
    pairing.old.map(|old| old.routes.unassigned) != Some(pairing.new.routes.unassigned)
}

/// Returns `routes.table` if it differs.
fn table_key(pairing: &NodePairing<'_>) -> Option<ConfigKey> {
    let old = pairing.old?.routes;
    (old.table != pairing.new.routes.table).then(|| global(&["routes", "table"]))
}

/// Returns the options that differ among those that determine a route's key.
fn key_options(pairing: &NodePairing<'_>) -> Vec<ConfigKey> {
    let Some(old) = pairing.old else { return Vec::new() };
    let metric = (old.routes.metric != pairing.new.routes.metric).then(|| global(&["routes", "metric"]));
    table_key(pairing).into_iter().chain(metric).collect()
}

/// Returns the reason that the route to a node in both files has another key.
fn relocation_cause(pairing: &NodePairing<'_>, member: Member, destination: IpNet) -> Cause {
    if pairing.is_pod_cidr_kept(member, destination) {
        Cause::Changed(key_options(pairing))
    } else {
        Cause::Changed(vec![ConfigKey::Node { member, key: "podCIDR" }])
    }
}

/// Returns the reason that a route differs although its key and its node are the same.
fn replacement_cause(
    pairing: &NodePairing<'_>,
    owner: Option<Member>,
    members: &[Member],
    before: &Route,
    after: &Route,
) -> Cause {
    let mut keys = Vec::new();
    if before.next_hop.gateway != after.next_hop.gateway {
        keys.push(match owner {
            Some(member) => next_hop_key(pairing, member, after.destination),
            None => global(&["clusterPrefix"]),
        });
    }
    let senders = Senders { members, owner };
    keys.extend(mtu_keys(pairing, owner, senders));
    keys.extend(source_key(pairing, senders, after.family()).filter(|key| !keys.contains(key)));
    Cause::Changed(keys)
}

/// The nodes that have a route: all `members`, in the order of the new file, but the node that it leads to.
#[derive(Clone, Copy)]
struct Senders<'a> {
    members: &'a [Member],
    owner: Option<Member>,
}

impl Senders<'_> {
    fn iter(&self) -> impl Iterator<Item = Member> {
        self.members.iter().copied().filter(|member| Some(*member) != self.owner)
    }

    /// Returns a key of these nodes, or `None` if there are none.
    fn key(&self, key: &'static str) -> Option<ConfigKey> {
        let first = self.iter().next()?;
        // There may be thousands, for each of thousands of routes.
        let is_owner_among = self
            .owner
            .is_some_and(|owner| self.members.binary_search_by_key(&owner.new, |member| member.new).is_ok());
        Some(key_of(first, self.members.len() - usize::from(is_owner_among) - 1, key))
    }
}

/// Returns the key that changed the preferred source of a route.
fn source_key(pairing: &NodePairing<'_>, senders: Senders<'_>, family: Family) -> Option<ConfigKey> {
    let source = |side: Option<(&Cluster, &Node)>| {
        side.and_then(|(cluster, node)| desired::route_sources(cluster, node).get(family).copied())
    };
    let first = senders.iter().next()?;
    if source(pairing.before(first)) == source(pairing.after(first)) {
        return None;
    }
    match pairing.old.map(|old| old.routes.source) == Some(pairing.new.routes.source) {
        true => senders.key("address"),
        false => Some(global(&["routes", "source"])),
    }
}

/// Returns the keys that changed the MTU of a route to the pods of `owner`.
fn mtu_keys(pairing: &NodePairing<'_>, owner: Option<Member>, senders: Senders<'_>) -> Vec<ConfigKey> {
    let mtu = |side: Option<(&Cluster, &Node)>| side.and_then(|(cluster, node)| cluster.mtu_of(node));
    let ends = |member: Option<Member>, is_new: bool| {
        let side = |member| if is_new { pairing.after(member) } else { pairing.before(member) };
        member.and_then(|member| mtu(side(member)))
    };
    let first = senders.iter().next();
    let of_route = |is_new| [owner, first].into_iter().filter_map(|member| ends(member, is_new)).min();
    let (before, after) = (of_route(false), of_route(true));
    if before == after {
        return Vec::new();
    }
    // An end whose MTU neither was nor is the smaller one changes nothing.
    let matters = |member: Option<Member>| {
        let (old, new) = (ends(member, false), ends(member, true));
        old != new && (old == before || new == after)
    };
    let mut keys = Vec::new();
    let of_owner = Senders { members: owner.as_slice(), owner: None };
    for (member, of) in [(owner, of_owner), (first, senders)] {
        let own = |side: Option<(&Cluster, &Node)>| side.and_then(|(_, node)| node.mtu());
        let is_own = |member: &Member| own(pairing.before(*member)) != own(pairing.after(*member));
        if !matters(member) {
            continue;
        }
        let key = if member.as_ref().is_some_and(is_own) { of.key("mtu") } else { None };
        let key = key.unwrap_or_else(|| global(&["routes", "mtu"]));
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Returns the key that changed the gateway of a node's route, if `nextHop` is the same.
fn gateway_key(pairing: &NodePairing<'_>, member: Member, destination: IpNet) -> &'static str {
    let override_of = |(_, node): (&Cluster, &Node)| node.pods.at(destination)?.gateway;
    let before = pairing.before(member).and_then(override_of);
    let after = pairing.after(member).and_then(override_of);
    match pairing.after(member).map(|(cluster, node)| cluster.next_hop_of(node, destination.into())) {
        Some(NextHopKind::PodGateway) if before != after => "gateway",
        Some(NextHopKind::PodGateway) => "os",
        Some(NextHopKind::Router(_)) => "nextHop",
        Some(NextHopKind::NodeAddress) | None => "address",
    }
}

/// Returns the reason that a prefix leads to another node.
pub(super) fn moved_cause(owners: [Option<Member>; 2]) -> Cause {
    match owners {
        [Some(from), Some(to)] => Cause::PodCidrMoved { from, to },
        _ => Cause::Changed(vec![global(&["clusterPrefix"])]),
    }
}

/// Returns the reason that the egress interface of these nodes differs: the cluster's key, or the nodes' own.
pub(super) fn egress_cause(pairing: &NodePairing<'_>, members: &[Member]) -> Cause {
    let key = "egressInterface";
    let has_own =
        |node: Option<(&Cluster, &Node)>| node.is_some_and(|(_, node)| node.egress_interface().is_some());
    let has_override = |member: &Member| has_own(pairing.before(*member)) || has_own(pairing.after(*member));
    let key = if members.iter().any(has_override) { node_key(members, key) } else { Some(global(&[key])) };
    Cause::Changed(key.into_iter().collect())
}
