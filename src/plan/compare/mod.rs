//! Compares two configurations: computes `plan(desired by the new one, desired by the old one)` for all nodes at once.
//!
//! The route to a node is the same on all other nodes, except for their egress interfaces, MTUs and source addresses.
//! Routes are therefore compared once rather than once per node, and each change lists the nodes it applies to. Both the cost and the result
//! are linear in the number of nodes.
//!
//! | nodes | changes |
//! |---|---|
//! | in both files | the differences between the files; all routes, if the node's egress interface, MTU or source address differs |
//! | new | everything that the new file configures |
//! | removed | everything that the old file configured |
//!
//! Windows nodes have other kinds of routes and their own forwarding, and therefore separate groups.

mod cause;
mod groups;
mod matching;
mod nat;
mod pairing;
mod previous;
mod routes;
mod sysctls;
mod windows;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

pub use cause::{Cause, Class, ConfigKey, Explanation, Purpose, Side};
pub use previous::PreviousConfig;

use crate::{
    model::{Cluster, OperatingSystem, SysctlKey},
    progress::Task,
    state::{Forwarding, NatObject, Route, WindowsRoute},
    text::Untrusted,
};

use super::Action;
use groups::NodeGroups;
use pairing::{EgressChange, NodePairing, PairedNodes};

/// The changes between two configurations, grouped by the nodes they apply to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The nodes that are in both files.
    pub pairs: Vec<Member>,
    /// The changes. A node can be in several groups.
    pub groups: Vec<NodeGroup>,
}

/// Changes that apply to the same nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGroup {
    /// Whether the nodes stay, are added or are removed.
    pub status: NodeStatus,
    /// The nodes, in the order of the new file, then of the old one.
    pub members: Vec<Member>,
    /// The changes, in the order routes, NAT, sysctls.
    pub deltas: Vec<Delta>,
}

/// A node, by its index in the old file, the new file, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its index in the old file.
    pub old: Option<usize>,
    /// Its index in the new file.
    pub new: Option<usize>,
}

/// Whether a node is existing, new or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// It is in both files.
    Existing,
    /// It is only in the new file, or has another operating system there.
    New,
    /// It is only in the old file.
    Removed,
}

/// The change of one object on the nodes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The object.
    pub item: ObjectChange,
    /// The nodes of the group that do not have this change: no node has a route to its own pods.
    pub except: Vec<Member>,
    /// The only node of the group that has this change, because the route's pod CIDR was or is its own.
    pub only: Option<Member>,
    /// The reason.
    pub cause: Cause,
}

/// An object before and after. At least one of the two exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectChange {
    /// A route. The device is `None` if the nodes of the group have different ones: then it is each node's egress
    /// interface.
    Route {
        /// The route under the old configuration.
        before: Option<Route>,
        /// The route under the new configuration.
        after: Option<Route>,
        /// The preferred source addresses in it that represent those of every node of the group.
        own: PerNodeAddress,
    },
    /// A route of Windows nodes. The interface is `None` if the nodes of the group have different ones, or if only the
    /// nodes themselves know it.
    WindowsRoute {
        /// The route under the old configuration.
        before: Option<WindowsRoute>,
        /// The route under the new configuration.
        after: Option<WindowsRoute>,
        /// The pod CIDRs in it that represent those of every node of the group.
        own: PerNodeCidr,
    },
    /// Forwarding on Windows nodes.
    Forwarding {
        /// The interface and the family.
        forwarding: Forwarding,
        /// Whether the old file asks for it.
        before: bool,
        /// Whether the new file asks for it.
        after: bool,
    },
    /// A line of the NAT table.
    Nat {
        /// The line under the old configuration.
        before: Option<NatObject>,
        /// The line under the new configuration.
        after: Option<NatObject>,
        /// The pod CIDRs in it that represent those of every node of the group.
        own: PerNodeCidr,
        /// The addresses in it that represent those of every node of the group.
        address: PerNodeAddress,
    },
    /// A sysctl. A value is `None` if that file does not configure the key.
    Sysctl {
        /// The key.
        key: SysctlKey,
        /// The value under the old configuration.
        before: Option<Untrusted>,
        /// The value under the new configuration.
        after: Option<Untrusted>,
    },
}

/// The pod CIDRs of one node, representing those of every node of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerNodeCidr {
    /// The pod CIDR under the old configuration.
    pub before: Option<IpNet>,
    /// The pod CIDR under the new configuration.
    pub after: Option<IpNet>,
}

/// The addresses of one node, representing those of every node of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerNodeAddress {
    /// The address under the old configuration.
    pub before: Option<IpAddr>,
    /// The address under the new configuration.
    pub after: Option<IpAddr>,
}

/// Counts of a comparison. An object that changes on several nodes counts once for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ComparisonTotals {
    /// Nodes on which something changes.
    pub nodes: usize,
    /// Objects added.
    pub add: usize,
    /// Objects updated.
    pub update: usize,
    /// Objects removed.
    pub remove: usize,
}

impl ObjectChange {
    /// Returns whether the object is added, changed or removed.
    #[must_use]
    pub const fn action(&self) -> Action {
        let (before, after) = match self {
            Self::Route { before, after, .. } => (before.is_some(), after.is_some()),
            Self::WindowsRoute { before, after, .. } => (before.is_some(), after.is_some()),
            Self::Forwarding { before, after, .. } => (*before, *after),
            Self::Nat { before, after, .. } => (before.is_some(), after.is_some()),
            Self::Sysctl { before, after, .. } => (before.is_some(), after.is_some()),
        };
        match (before, after) {
            (false, _) => Action::Add,
            (true, true) => Action::Update,
            (true, false) => Action::Remove,
        }
    }
}

impl NodeStatus {
    /// Returns the file whose routes the node gains or loses, unless it is in both.
    const fn only_side(self) -> Option<Side> {
        match self {
            Self::Existing => None,
            Self::New => Some(Side::New),
            Self::Removed => Some(Side::Old),
        }
    }
}

impl NodeGroup {
    /// Returns the number of nodes of the group that have this change.
    #[must_use]
    pub fn reach(&self, delta: &Delta) -> usize {
        if delta.only.is_some() { 1 } else { self.members.len() - delta.except.len() }
    }

    /// Iterates over the nodes of the group that have at least one of its changes.
    fn affected_members(&self) -> impl Iterator<Item = Member> {
        let mut excluded: HashMap<Member, usize> = HashMap::new();
        for member in self.deltas.iter().flat_map(|delta| &delta.except) {
            *excluded.entry(*member).or_default() += 1;
        }
        let only: HashSet<Member> = self.deltas.iter().filter_map(|delta| delta.only).collect();
        let common = self.deltas.iter().filter(|delta| delta.only.is_none()).count();
        let changes = move |member: &Member| {
            excluded.get(member).copied().unwrap_or(0) < common || only.contains(member)
        };
        self.members.iter().copied().filter(changes)
    }
}

impl Comparison {
    /// Returns `true` if nothing changes on any node.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Counts the changes.
    #[must_use]
    pub fn totals(&self) -> ComparisonTotals {
        let affected: HashSet<Member> = self.groups.iter().flat_map(NodeGroup::affected_members).collect();
        let mut totals = ComparisonTotals { nodes: affected.len(), ..ComparisonTotals::default() };
        for group in &self.groups {
            for delta in &group.deltas {
                *match delta.item.action() {
                    Action::Add => &mut totals.add,
                    Action::Update => &mut totals.update,
                    Action::Remove => &mut totals.remove,
                } += group.reach(delta);
            }
        }
        totals
    }
}

/// Computes the changes on every node when `new` replaces `old`, or an empty configuration.
///
/// A node is the same in both files if it is the same machine: by its address, or else by its name.
#[must_use]
pub fn compare(old: Option<&Cluster>, new: &Cluster) -> Comparison {
    let _task = Task::begin("comparing");
    let pairing = NodePairing::new(old, new);
    let mut groups = NodeGroups::default();
    let (linux, windows): (Vec<_>, Vec<_>) =
        pairing.groups().into_iter().partition(|group| group.os == OperatingSystem::Linux);
    // One after the other: the routes of a large cluster take much memory.
    compare_linux(&pairing, &linux, &mut groups);
    compare_windows(&pairing, &windows, &mut groups);
    let pairs = pairing.members().filter(|member| member.old.is_some() && member.new.is_some()).collect();
    Comparison { pairs, groups: groups.finish() }
}

fn compare_linux(pairing: &NodePairing<'_>, parts: &[PairedNodes], groups: &mut NodeGroups) {
    for PairedNodes { status, members, .. } in parts.iter().filter(|part| !part.members.is_empty()) {
        for (part, deltas) in sysctls::deltas(pairing, *status, members) {
            groups.add(*status, &part, deltas);
        }
        let variants = pairing.split_by_route_variant(*status, members);
        let is_any_changed = variants.iter().any(|(variant, _)| !variant.is_unchanged());
        let only_side = status.only_side();
        let slots = if only_side.is_none() { routes::slots(pairing, is_any_changed) } else { Vec::new() };
        for (variant, part) in variants {
            let deltas = match only_side {
                Some(side) => {
                    routes::deltas(pairing, routes::slots_of(pairing, side), *status, &part, variant)
                }
                None => routes::deltas(pairing, slots.iter(), *status, &part, variant),
            };
            groups.add(*status, &part, deltas);
        }
        for (part, deltas) in nat::deltas(pairing, *status, members) {
            groups.add(*status, &part, deltas);
        }
        groups.add_owner_deltas(members, routes::owner_deltas(pairing, &slots));
    }
}

fn compare_windows(pairing: &NodePairing<'_>, parts: &[PairedNodes], groups: &mut NodeGroups) {
    for PairedNodes { status, members, .. } in parts.iter().filter(|part| !part.members.is_empty()) {
        let variants = pairing.split_by_egress_change(*status, members);
        let is_any_changed =
            variants.iter().any(|(_, part, change)| !part.is_empty() && *change == EgressChange::Changed);
        let only_side = status.only_side();
        let slots = if only_side.is_none() { windows::slots(pairing, is_any_changed) } else { Vec::new() };
        for (status, part, change) in variants {
            let found = match only_side {
                Some(side) => {
                    windows::deltas(pairing, windows::slots_of(pairing, side), status, &part, change)
                }
                None => windows::deltas(pairing, slots.iter(), status, &part, change),
            };
            for (part, deltas) in found {
                groups.add(status, &part, deltas);
            }
        }
        groups.add_owner_deltas(members, windows::owner_deltas(pairing, &slots, members));
    }
}
