//! Compares the Windows nodes of two configurations: routes to other nodes as on Linux nodes, the on-link routes to
//! their own pods, routes to the master, and forwarding.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    align,
    model::{Cluster, Family, Node},
    plan::windows::{to_master, to_node, to_own_pods},
    state::{Forwarding, Role, WindowsRoute},
};

use super::{
    Cause, ConfigKey, Delta, Member, NodeStatus, ObjectChange, PerNodeCidr, Purpose, Side,
    pairing::{EgressChange, NodePairing, PodPresence, group_by},
    routes::{common, egress_cause, global, moved_cause, next_hop_key, node_key},
};

/// A destination, with the route that each file has there on all Windows nodes except the one it leads to, and the
/// index of that node.
pub(super) struct WindowsRouteSlot {
    before: Option<(WindowsRoute, usize)>,
    after: Option<(WindowsRoute, usize)>,
}

impl WindowsRouteSlot {
    fn differs(&self) -> bool {
        self.before.as_ref().map(|(route, _)| route) != self.after.as_ref().map(|(route, _)| route)
    }

    fn owners(&self, pairing: &NodePairing<'_>) -> [Option<Member>; 2] {
        [
            self.before.as_ref().map(|(_, index)| pairing.old_member(*index)),
            self.after.as_ref().map(|(_, index)| pairing.new_member(*index)),
        ]
    }

    fn destination(&self) -> Option<IpNet> {
        let (route, _) = self.after.as_ref().or(self.before.as_ref())?;
        Some(route.destination_prefix)
    }
}

/// Returns the destinations of either file: in the order of the new file, then those that are only in the old file.
/// Without `all`, omits the destinations to which both files have the same route to the same node.
pub(super) fn slots(pairing: &NodePairing<'_>, all: bool) -> Vec<WindowsRouteSlot> {
    let is_needed = |before: Option<&(WindowsRoute, usize)>, after: Option<&(WindowsRoute, usize)>| {
        let (Some((before, old)), Some((after, new))) = (before, after) else { return true };
        all || before != after || pairing.old_member(*old) != pairing.new_member(*new)
    };
    let before = pairing.old.into_iter().flat_map(routes_to_nodes);
    let destination = |(route, _): &(WindowsRoute, usize)| route.destination_prefix;
    let pairs = align::join(before, routes_to_nodes(pairing.new), destination, is_needed);
    pairs.into_iter().map(|(before, after)| WindowsRouteSlot { before, after }).collect()
}

/// Iterates over the destinations of only one file.
pub(super) fn slots_of(pairing: &NodePairing<'_>, side: Side) -> impl Iterator<Item = WindowsRouteSlot> {
    let old = pairing.old.filter(|_| side == Side::Old);
    let new = Some(pairing.new).filter(|_| side == Side::New);
    let before = old.into_iter().flat_map(routes_to_nodes);
    let after = new.into_iter().flat_map(routes_to_nodes);
    let before = before.map(|before| WindowsRouteSlot { before: Some(before), after: None });
    before.chain(after.map(|after| WindowsRouteSlot { before: None, after: Some(after) }))
}

fn routes_to_nodes(cluster: &Cluster) -> impl Iterator<Item = (WindowsRoute, usize)> + '_ {
    cluster.prefixes.families().flat_map(move |family| {
        let nodes = cluster.nodes.iter().enumerate();
        nodes.flat_map(move |(index, node)| {
            let routes = node.pods.of(family).filter_map(move |pods| to_node(cluster, node, pods));
            routes.map(move |route| (route, index))
        })
    })
}

/// Windows nodes with the same status and the same change of the egress interface.
struct WindowsPart<'a> {
    pairing: &'a NodePairing<'a>,
    status: NodeStatus,
    members: &'a [Member],
    /// The members as a set, for lookups.
    member_set: HashSet<Member>,
    /// The interface of all these nodes under the old configuration and under the new one, if they have the same.
    devices: [Option<&'a str>; 2],
    egress_change: EgressChange,
}

/// Computes the changes of Windows nodes with the same status and the same `egress_change`, grouped by nodes with the
/// same changes. `slots` are those of one file for nodes that are only there, and those of both for other nodes.
pub(super) fn deltas(
    pairing: &NodePairing<'_>,
    slots: impl Iterator<Item: Borrow<WindowsRouteSlot>>,
    status: NodeStatus,
    members: &[Member],
    egress_change: EgressChange,
) -> Vec<(Vec<Member>, Vec<Delta>)> {
    if members.is_empty() {
        return Vec::new();
    }
    let member_set = members.iter().copied().collect();
    let devices = devices(pairing, members);
    let part = WindowsPart { pairing, status, members, member_set, devices, egress_change };
    let mut found = vec![(members.to_vec(), slots.filter_map(|slot| part.to_node(slot.borrow())).collect())];
    for family in Family::ALL {
        found.extend(part.to_own_pods(family));
        found.extend(part.to_master(family));
    }
    found.extend(part.forwarding());
    found
}

/// Computes the changes that only affect the Windows node a route leads to, before or after.
pub(super) fn owner_deltas(
    pairing: &NodePairing<'_>,
    slots: &[WindowsRouteSlot],
    members: &[Member],
) -> Vec<Delta> {
    let mut deltas = Vec::new();
    let member_set: HashSet<Member> = members.iter().copied().collect();
    for slot in slots {
        let (Some((before, _)), Some((after, _))) = (&slot.before, &slot.after) else { continue };
        let [old, new] = slot.owners(pairing);
        if old == new {
            continue;
        }
        let mut add = |member: Option<Member>, route: &WindowsRoute, is_added: bool| {
            let Some(member) = member.filter(|member| member_set.contains(member)) else { return };
            let device = if is_added { pairing.device_after(member) } else { pairing.device_before(member) };
            let route = Some(with_device(route, device));
            let (before, after) = if is_added { (None, route) } else { (route, None) };
            let item = ObjectChange::WindowsRoute { before, after, own: PerNodeCidr::default() };
            deltas.push(Delta { item, except: Vec::new(), only: Some(member), cause: moved(slot, pairing) });
        };
        add(old, after, true);
        add(new, before, false);
    }
    deltas
}

/// Returns the interface of all nodes under the old configuration and under the new one, if they have the same.
fn devices<'a>(pairing: &'a NodePairing<'_>, members: &[Member]) -> [Option<&'a str>; 2] {
    [
        common(members.iter().map(|member| pairing.device_before(*member))),
        common(members.iter().map(|member| pairing.device_after(*member))),
    ]
}

fn with_device(route: &WindowsRoute, device: Option<&str>) -> WindowsRoute {
    WindowsRoute { interface_alias: device.map(Into::into), ..route.clone() }
}

fn moved(slot: &WindowsRouteSlot, pairing: &NodePairing<'_>) -> Cause {
    moved_cause(slot.owners(pairing))
}

/// Computes the changes of a route to the same pods or to the master; a new destination is a new route. If each node
/// has a different interface, routes without one can look the same although they are not.
fn route_deltas(
    before: Option<WindowsRoute>,
    after: Option<WindowsRoute>,
    own: PerNodeCidr,
    egress_change: EgressChange,
    cause: &Cause,
) -> Vec<Delta> {
    let destination = |route: &Option<WindowsRoute>| route.as_ref().map(|route| route.destination_prefix);
    let steps = if before.is_some() && after.is_some() && destination(&before) != destination(&after) {
        vec![(before, None), (None, after)]
    } else {
        vec![(before, after)]
    };
    let delta = |(before, after)| Delta {
        item: ObjectChange::WindowsRoute { before, after, own },
        except: Vec::new(),
        only: None,
        cause: cause.clone(),
    };
    let changes = |(before, after): &(Option<WindowsRoute>, Option<WindowsRoute>)| {
        before != after || (egress_change == EgressChange::Changed && before.is_some())
    };
    steps.into_iter().filter(changes).map(delta).collect()
}

/// Pairs routes to the same destination.
fn by_destination(
    before: Vec<WindowsRoute>,
    after: Vec<WindowsRoute>,
) -> Vec<(Option<WindowsRoute>, Option<WindowsRoute>)> {
    let mut pairs: BTreeMap<IpNet, (Option<WindowsRoute>, Option<WindowsRoute>)> = BTreeMap::new();
    for route in before {
        let destination = route.destination_prefix;
        pairs.entry(destination).or_default().0 = Some(route);
    }
    for route in after {
        let destination = route.destination_prefix;
        pairs.entry(destination).or_default().1 = Some(route);
    }
    pairs.into_values().collect()
}

impl WindowsPart<'_> {
    /// Returns a route as nodes with these `devices` have it under the old configuration, and under the new one.
    fn before_and_after(
        &self,
        [device_before, device_after]: [Option<&str>; 2],
        before: Option<&WindowsRoute>,
        after: Option<&WindowsRoute>,
    ) -> (Option<WindowsRoute>, Option<WindowsRoute>) {
        let before = before.filter(|_| self.status != NodeStatus::New);
        let after = after.filter(|_| self.status != NodeStatus::Removed);
        (
            before.map(|route| with_device(route, device_before)),
            after.map(|route| with_device(route, device_after)),
        )
    }

    /// Returns the reason for an object on nodes that are only in one file.
    fn configured_cause(&self, purpose: impl Fn(Side) -> Option<Purpose>) -> Option<Cause> {
        let side = self.status.only_side()?;
        purpose(side).map(|purpose| Cause::Configured(side, purpose))
    }

    fn to_node(&self, slot: &WindowsRouteSlot) -> Option<Delta> {
        let (before, after) = self.before_and_after(
            self.devices,
            slot.before.as_ref().map(|(route, _)| route),
            slot.after.as_ref().map(|(route, _)| route),
        );
        if before.is_none() && after.is_none() {
            return None;
        }
        let pods = |side| match side {
            Side::Old => slot.before.as_ref().map(|(_, index)| Purpose::Pods(*index)),
            Side::New => slot.after.as_ref().map(|(_, index)| Purpose::Pods(*index)),
        };
        let cause = match self.configured_cause(pods) {
            Some(cause) => cause,
            None if slot.differs() => self.cause(slot),
            None if self.egress_change == EgressChange::Changed => egress_cause(self.pairing, self.members),
            None => return None,
        };
        let [old, new] = slot.owners(self.pairing);
        let owners = [old.filter(|_| before.is_some()), new.filter(|_| after.is_some())];
        let is_here = |member: &Member| self.member_set.contains(member);
        let mut except: Vec<Member> = owners.into_iter().flatten().filter(is_here).collect();
        except.dedup();
        let item = ObjectChange::WindowsRoute { before, after, own: PerNodeCidr::default() };
        (except.len() < self.members.len()).then_some(Delta { item, except, only: None, cause })
    }

    /// Returns the reason that the files differ in a destination.
    fn cause(&self, slot: &WindowsRouteSlot) -> Cause {
        let pairing = self.pairing;
        match (&slot.before, &slot.after, slot.owners(pairing)) {
            (None, Some((_, index)), _) if pairing.to_old[*index].is_none() => Cause::NodeAdded(*index),
            (Some((_, index)), None, _) if pairing.to_new[*index].is_none() => Cause::NodeRemoved(*index),
            (Some((before, _)), Some((after, _)), [Some(old), Some(new)]) if old == new => {
                let mut keys = Vec::new();
                if before.next_hop != after.next_hop {
                    keys.push(next_hop_key(self.pairing, old, after.destination_prefix));
                }
                if before.route_metric != after.route_metric {
                    keys.push(global(&["routes", "metric"]));
                }
                Cause::Changed(keys)
            }
            (Some(_), Some(_), _) => moved(slot, pairing),
            (.., [old, new]) => {
                let key = old.or(new).zip(slot.destination());
                let key = key.map(|(owner, destination)| self.cidr_key(owner, destination));
                Cause::Changed(key.into_iter().collect())
            }
        }
    }

    /// Returns the key that changed a node's pod CIDR, or the route to it.
    fn cidr_key(&self, owner: Member, destination: IpNet) -> ConfigKey {
        if self.pairing.is_pod_cidr_kept(owner, destination) {
            next_hop_key(self.pairing, owner, destination)
        } else {
            ConfigKey::Node { member: owner, key: "podCIDR" }
        }
    }

    /// Computes the changes of the on-link routes to the nodes' own pods, once for nodes with the same kind of change.
    fn to_own_pods(&self, family: Family) -> Vec<(Vec<Member>, Vec<Delta>)> {
        let pairing = self.pairing;
        let routes = |member: &Member| {
            [pairing.before(*member), pairing.after(*member)].map(|side| {
                let side = side.filter(|(cluster, _)| cluster.prefixes.has(family));
                let pods = side.into_iter().flat_map(|(_, node)| node.pods.of(family));
                pods.map(to_own_pods).collect::<Vec<_>>()
            })
        };
        // Nodes with one pod CIDR are alike, whichever it is.
        let kind = |member: &Member| {
            let [before, after] = routes(member);
            let alike = (before.is_empty(), after.is_empty(), before != after);
            (alike, (before.len().max(after.len()) > 1).then_some([before, after]))
        };
        let parts = self.group_by(kind);
        let deltas = parts.into_iter().filter_map(|members| {
            let [before, after] = routes(members.first()?);
            let pairs = match (before.as_slice(), after.as_slice()) {
                ([_] | [], [_] | []) => vec![(before.into_iter().next(), after.into_iter().next())],
                _ => by_destination(before, after),
            };
            let is_one = members.len() == 1 || pairs.len() > 1;
            let deltas = pairs.into_iter().flat_map(|(before, after)| {
                self.to_own_pods_deltas(&members, before.as_ref(), after.as_ref(), is_one)
            });
            let deltas = deltas.collect();
            Some((members, deltas))
        });
        deltas.collect()
    }

    /// Computes the changes of the route to a pod CIDR of these nodes. Of several nodes, the routes are those of the first
    /// one, unless all have the same.
    fn to_own_pods_deltas(
        &self,
        members: &[Member],
        first_before: Option<&WindowsRoute>,
        first_after: Option<&WindowsRoute>,
        is_same_for_all: bool,
    ) -> Vec<Delta> {
        let pairing = self.pairing;
        let (before, after) = self.before_and_after(devices(pairing, members), first_before, first_after);
        if before == after && self.egress_change == EgressChange::Unchanged {
            return Vec::new();
        }
        let prefix = |route: &Option<WindowsRoute>| {
            route.as_ref().filter(|_| !is_same_for_all).map(|route| route.destination_prefix)
        };
        let own = PerNodeCidr { before: prefix(&before), after: prefix(&after) };
        let purpose = |side| {
            let first = members.first()?;
            match side {
                Side::Old => first.old.map(Purpose::OwnPods),
                Side::New => first.new.map(Purpose::OwnPods),
            }
        };
        let cause = match self.configured_cause(purpose) {
            Some(cause) => cause,
            None if first_before == first_after => egress_cause(pairing, members),
            None => Cause::Changed(node_key(members, "podCIDR").into_iter().collect()),
        };
        route_deltas(before, after, own, self.egress_change, &cause)
    }

    /// Computes the changes of the routes to the master through the default gateway, which nodes can have in common.
    fn to_master(&self, family: Family) -> Vec<(Vec<Member>, Vec<Delta>)> {
        let pairing = self.pairing;
        let routes = |member: &Member| {
            let route = |side: Option<(&Cluster, &Node)>| {
                side.filter(|(cluster, _)| cluster.prefixes.has(family))
                    .and_then(|(cluster, node)| to_master(cluster, node, family))
            };
            (route(pairing.before(*member)), route(pairing.after(*member)))
        };
        let parts = self.group_by(routes);
        let mut found = Vec::new();
        for members in parts {
            let Some(first) = members.first() else { continue };
            let (first_before, first_after) = routes(first);
            let (before, after) = self.before_and_after(
                devices(pairing, &members),
                first_before.as_ref(),
                first_after.as_ref(),
            );
            let cause = match self.configured_cause(|_| Some(Purpose::Master)) {
                Some(cause) => cause,
                None => Cause::Changed(self.master_keys(&members, first_before == first_after)),
            };
            let deltas = route_deltas(before, after, PerNodeCidr::default(), self.egress_change, &cause);
            found.push((members, deltas));
        }
        found
    }

    fn master_keys(&self, members: &[Member], same_route: bool) -> Vec<ConfigKey> {
        let pairing = self.pairing;
        if same_route {
            return match egress_cause(pairing, members) {
                Cause::Changed(keys) => keys,
                _ => Vec::new(),
            };
        }
        if pairing.old.map(|old| old.master_address) != Some(pairing.new.master_address) {
            return vec![global(&["masterAddress"])];
        }
        let gateway = |side: Option<(&Cluster, &Node)>| -> Option<IpAddr> {
            side.and_then(|(_, node)| node.default_gateway())
        };
        let gateway_changed =
            members.iter().any(|member| gateway(pairing.before(*member)) != gateway(pairing.after(*member)));
        node_key(members, if gateway_changed { "defaultGateway" } else { "address" }).into_iter().collect()
    }

    /// Computes the changes of forwarding, on both interfaces, once for nodes that have or had pods alike.
    fn forwarding(&self) -> Vec<(Vec<Member>, Vec<Delta>)> {
        let deltas = self.pairing.split_by_presence(self.members).into_iter().map(|(presence, members)| {
            let deltas = self.forwarding_of(presence, &members);
            (members, deltas)
        });
        deltas.collect()
    }

    /// Computes the changes in each family that only one of the files has.
    fn forwarding_of(&self, presence: PodPresence, members: &[Member]) -> Vec<Delta> {
        let pairing = self.pairing;
        let mut deltas = Vec::new();
        for family in Family::ALL {
            let has = |cluster: &Cluster| cluster.prefixes.has(family);
            let before = self.status != NodeStatus::New && presence.before && pairing.old.is_some_and(has);
            let after = self.status != NodeStatus::Removed && presence.after && has(pairing.new);
            if before == after {
                continue;
            }
            let cause = self.configured_cause(|_| Some(Purpose::Forwarding));
            let cause = cause.unwrap_or_else(|| {
                let key = node_key(members, "podCIDR").filter(|_| presence.changes());
                Cause::Changed(vec![key.unwrap_or_else(|| global(&["clusterPrefix"]))])
            });
            deltas.extend([Role::Egress, Role::Pod].map(|interface| Delta {
                item: ObjectChange::Forwarding {
                    forwarding: Forwarding { interface, family },
                    before,
                    after,
                },
                except: Vec::new(),
                only: None,
                cause: cause.clone(),
            }));
        }
        deltas
    }

    /// Groups the nodes by `key`, in the order of each group's first node.
    fn group_by<K: Eq + Hash>(&self, key: impl Fn(&Member) -> K) -> Vec<Vec<Member>> {
        group_by(self.members, key)
    }
}
