//! What a change of the file changes on every node: `plan(desired by the new file, desired by the old)` for
//! all nodes at once.
//!
//! The route to a node is the same on all other nodes but for their egress interface. So routes are compared
//! once, not once per node, and a change is told with the nodes where it stands: the cost grows in a straight
//! line with the nodes, and so does the result.
//!
//! | nodes | what changes on them |
//! |---|---|
//! | in both files | what differs between the files; all routes, where a node's egress interface differs |
//! | new | all that the new file asks for |
//! | removed | all that the old file asked for |
//!
//! Windows nodes have routes and forwarding of their own kind, and blocks of their own.

mod cause;
mod groups;
mod matching;
mod nat;
mod pairing;
mod previous;
mod routes;
mod sysctls;
mod windows;

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

pub use cause::{Cause, Class, ConfigKey, Explanation, Purpose, Side};
pub use previous::PreviousConfig;

use crate::{
    model::{Cluster, OperatingSystem, SysctlKey},
    state::{Forwarding, NatObject, Route, WindowsRoute},
    text::Untrusted,
};

use super::Action;
use groups::NodeGroups;
use pairing::NodePairing;

/// What changes from one file to another, by blocks of nodes with the same changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The nodes that are in both files, by their indices.
    pub pairs: Vec<Member>,
    /// What changes, and where. Several blocks can speak of one node.
    pub groups: Vec<NodeGroup>,
}

/// Changes that stand on the same nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGroup {
    /// What becomes of the nodes.
    pub status: NodeStatus,
    /// The nodes, in the order of the new file, then of the old one.
    pub members: Vec<Member>,
    /// Routes, NAT, sysctls.
    pub deltas: Vec<Delta>,
}

/// A node by its indices in the old and in the new file: it is in one of them, or in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its index in the old file.
    pub old: Option<usize>,
    /// Its index in the new file.
    pub new: Option<usize>,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// It is in both files.
    Stays,
    /// It is in the new file only, or has another operating system there.
    New,
    /// It is in the old file only.
    Removed,
}

/// One object that comes, changes or goes on the nodes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The object.
    pub item: ObjectChange,
    /// Those of the block's nodes where this does not happen: a route never stands on the node it leads to.
    pub except: Vec<Member>,
    /// The only one of the block's nodes where this happens: the route to a pod CIDR that was its own, or is now.
    pub only: Option<Member>,
    /// Why.
    pub cause: Cause,
}

/// An object, before and after. One of the two is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectChange {
    /// A route. It has no device where the nodes of the block have different ones: on each node it is the
    /// egress interface of that node.
    Route {
        /// By the old file.
        before: Option<Route>,
        /// By the new file.
        after: Option<Route>,
    },
    /// A route of Windows nodes. It has no interface where the nodes of the block have different ones, or where
    /// only they know it.
    WindowsRoute {
        /// By the old file.
        before: Option<WindowsRoute>,
        /// By the new file.
        after: Option<WindowsRoute>,
        /// Its destinations, where they stand for the pod CIDRs of each node of the block.
        own: PerNodeCidr,
    },
    /// Whether packets are forwarded on Windows nodes.
    Forwarding {
        /// By which interface, of which family.
        forwarding: Forwarding,
        /// Whether the old file asks for it.
        before: bool,
        /// Whether the new file asks for it.
        after: bool,
    },
    /// A line of the NAT table.
    Nat {
        /// By the old file.
        before: Option<NatObject>,
        /// By the new file.
        after: Option<NatObject>,
        /// The pod CIDRs in it that stand for those of each node of the block.
        own: PerNodeCidr,
    },
    /// A sysctl; where a value is missing, that file does not ask for it.
    Sysctl {
        /// Its key.
        key: SysctlKey,
        /// By the old file.
        before: Option<Untrusted>,
        /// By the new file.
        after: Option<Untrusted>,
    },
}

/// Pod CIDRs of one node that stand for those of each node of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerNodeCidr {
    /// The one by the old file.
    pub before: Option<IpNet>,
    /// The one by the new file.
    pub after: Option<IpNet>,
}

/// How much changes: every object counted on every node where it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ComparisonTotals {
    /// Nodes on which something changes.
    pub nodes: usize,
    /// Objects added.
    pub add: usize,
    /// Objects changed.
    pub change: usize,
    /// Objects removed.
    pub remove: usize,
}

impl ObjectChange {
    /// Whether it comes, changes or goes.
    #[must_use]
    pub const fn action(&self) -> Action {
        let (before, after) = match self {
            Self::Route { before, after } => (before.is_some(), after.is_some()),
            Self::WindowsRoute { before, after, .. } => (before.is_some(), after.is_some()),
            Self::Forwarding { before, after, .. } => (*before, *after),
            Self::Nat { before, after, .. } => (before.is_some(), after.is_some()),
            Self::Sysctl { before, after, .. } => (before.is_some(), after.is_some()),
        };
        match (before, after) {
            (false, _) => Action::Add,
            (true, true) => Action::Change,
            (true, false) => Action::Remove,
        }
    }
}

impl NodeGroup {
    /// On how many of its nodes `delta` happens.
    #[must_use]
    pub fn reach(&self, delta: &Delta) -> usize {
        if delta.only.is_some() { 1 } else { self.members.len() - delta.except.len() }
    }

    /// Its nodes on which at least one of its changes happens.
    fn changing(&self) -> impl Iterator<Item = Member> {
        let mut spared: HashMap<Member, usize> = HashMap::new();
        for member in self.deltas.iter().flat_map(|delta| &delta.except) {
            *spared.entry(*member).or_default() += 1;
        }
        let only: HashSet<Member> = self.deltas.iter().filter_map(|delta| delta.only).collect();
        let common = self.deltas.iter().filter(|delta| delta.only.is_none()).count();
        let changes =
            move |member: &Member| spared.get(member).copied().unwrap_or(0) < common || only.contains(member);
        self.members.iter().copied().filter(changes)
    }
}

impl Comparison {
    /// Whether nothing changes on any node, as far as can be told.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The counts.
    #[must_use]
    pub fn totals(&self) -> ComparisonTotals {
        let changing: HashSet<Member> = self.groups.iter().flat_map(NodeGroup::changing).collect();
        let mut totals = ComparisonTotals { nodes: changing.len(), ..ComparisonTotals::default() };
        for group in &self.groups {
            for delta in &group.deltas {
                *match delta.item.action() {
                    Action::Add => &mut totals.add,
                    Action::Change => &mut totals.change,
                    Action::Remove => &mut totals.remove,
                } += group.reach(delta);
            }
        }
        totals
    }
}

/// What changes on every node when `new` takes the place of `old`, or of nothing.
///
/// A node is the same in both files when its machine is: by its address, else by its name.
#[must_use]
pub fn compare(old: Option<&Cluster>, new: &Cluster) -> Comparison {
    let pairing = NodePairing::new(old, new);
    let slots = routes::slots(old, new);
    let mut groups = NodeGroups::default();
    let windows_slots = windows::slots(old, new);
    for (os, status, members) in pairing.groups() {
        if os == OperatingSystem::Windows {
            for (status, part, device) in pairing.by_device(status, &members) {
                for (part, deltas) in windows::deltas(&pairing, &windows_slots, status, &part, device) {
                    groups.add(status, &part, deltas);
                }
            }
            if status == NodeStatus::Stays {
                groups.add_of_owners(&members, windows::of_owners(&pairing, &windows_slots, &members));
            }
            continue;
        }
        groups.add(status, &members, sysctls::deltas(&pairing, status));
        for (status, part, device) in pairing.by_device(status, &members) {
            groups.add(status, &part, routes::deltas(&pairing, &slots, status, &part, device));
        }
        for (part, deltas) in nat::deltas(&pairing, status, &members) {
            groups.add(status, &part, deltas);
        }
        if status == NodeStatus::Stays {
            groups.add_of_owners(&members, routes::of_owners(&pairing, &slots));
        }
    }
    let pairs = pairing.members().filter(|member| member.old.is_some() && member.new.is_some()).collect();
    Comparison { pairs, groups: groups.finish() }
}
