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
//! | Windows | nothing is planned for them yet; that something would change is told |

mod cause;
mod nat;
mod pair;
mod routes;
mod sysctls;

use std::collections::HashMap;

use ipnet::IpNet;

pub use cause::{Cause, Class, Key, Purpose, Side, Told};

use crate::{
    model::{Cluster, Node, OperatingSystem},
    state::{NatObject, Route, SysctlKey},
};

use super::Action;

/// What changes from one file to another, by blocks of nodes with the same changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The nodes that are in both files, by their indices.
    pub pairs: Vec<Member>,
    /// What changes, and where. Several blocks can speak of one node.
    pub blocks: Vec<Block>,
    /// Nodes whose routes change too, and for which this version plans none.
    pub unplanned: Vec<Member>,
}

/// Changes that stand on the same nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What becomes of the nodes.
    pub standing: Standing,
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
pub enum Standing {
    /// It is in both files.
    Stays,
    /// It is in the new file only, or a Linux node only there.
    New,
    /// It is in the old file only.
    Removed,
}

/// One object that comes, changes or goes on the nodes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The object.
    pub item: Item,
    /// Those of the block's nodes where this does not happen: a route never stands on the node it leads to.
    pub except: Vec<Member>,
    /// Why.
    pub cause: Cause,
}

/// An object, before and after. One of the two is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A route. It has no device where the nodes of the block have different ones: on each node it is the
    /// egress interface of that node.
    Route {
        /// By the old file.
        before: Option<Route>,
        /// By the new file.
        after: Option<Route>,
    },
    /// A line of the NAT table.
    Nat {
        /// By the old file.
        before: Option<NatObject>,
        /// By the new file.
        after: Option<NatObject>,
        /// The pod CIDRs in it that stand for those of each node of the block.
        own: Own,
    },
    /// A sysctl; where a value is missing, that file does not ask for it.
    Sysctl {
        /// Its key.
        key: SysctlKey,
        /// By the old file.
        before: Option<String>,
        /// By the new file.
        after: Option<String>,
    },
}

/// Pod CIDRs of one node that stand for those of each node of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
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

impl Item {
    /// Whether it comes, changes or goes.
    #[must_use]
    pub const fn action(&self) -> Action {
        let (before, after) = match self {
            Self::Route { before, after } => (before.is_some(), after.is_some()),
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

impl Block {
    /// On how many of its nodes `delta` happens.
    #[must_use]
    pub fn reach(&self, delta: &Delta) -> usize {
        self.members.len() - delta.except.len()
    }

    /// Its nodes on which at least one of its changes happens.
    fn changing(&self) -> impl Iterator<Item = Member> {
        let mut spared: HashMap<Member, usize> = HashMap::new();
        for member in self.deltas.iter().flat_map(|delta| &delta.except) {
            *spared.entry(*member).or_default() += 1;
        }
        let all = self.deltas.len();
        self.members.iter().copied().filter(move |member| spared.get(member) != Some(&all))
    }
}

impl Comparison {
    /// Whether nothing changes on any node, as far as can be told.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.unplanned.is_empty()
    }

    /// The counts.
    #[must_use]
    pub fn totals(&self) -> ComparisonTotals {
        let changing: std::collections::HashSet<Member> =
            self.blocks.iter().flat_map(Block::changing).collect();
        let mut totals = ComparisonTotals { nodes: changing.len(), ..ComparisonTotals::default() };
        for block in &self.blocks {
            for delta in &block.deltas {
                *match delta.item.action() {
                    Action::Add => &mut totals.add,
                    Action::Change => &mut totals.change,
                    Action::Remove => &mut totals.remove,
                } += block.reach(delta);
            }
        }
        totals
    }
}

/// What changes on every node when `new` takes the place of `old`, or of nothing.
///
/// A node is the same in both files when its machine is: see [`Comparison::pairs`] and the module `pair`.
#[must_use]
pub fn compare(old: Option<&Cluster>, new: &Cluster) -> Comparison {
    let view = View::new(old, new);
    let slots = routes::slots(old, new);
    let mut blocks = Blocks::default();
    for (standing, members) in view.groups() {
        blocks.add(standing, &members, sysctls::deltas(&view, standing));
        for (standing, part, device) in view.by_device(standing, &members) {
            blocks.add(standing, &part, routes::deltas(&view, &slots, standing, &part, device));
        }
        for (part, deltas) in nat::deltas(&view, standing, &members) {
            blocks.add(standing, &part, deltas);
        }
        if standing == Standing::Stays {
            for (member, delta) in routes::of_owners(&view, &slots) {
                blocks.add(standing, &[member], vec![delta]);
            }
        }
    }
    let unplanned = view.unplanned(slots.iter().any(routes::Slot::differs));
    let pairs = view.members().filter(|member| member.old.is_some() && member.new.is_some()).collect();
    Comparison { pairs, blocks: blocks.finish(), unplanned }
}

/// Whether this version makes a desired state for nodes with `os`. What it does not plan is told as such.
const fn is_planned(os: OperatingSystem) -> bool {
    matches!(os, OperatingSystem::Linux)
}

/// Both files, and which nodes are the same.
struct View<'a> {
    old: Option<&'a Cluster>,
    new: &'a Cluster,
    /// By index in the new file, the index in the old one.
    to_old: Vec<Option<usize>>,
    /// By index in the old file, the index in the new one.
    to_new: Vec<Option<usize>>,
}

/// Whether the egress interface of nodes that stay is the same in both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    Same,
    Other,
}

impl<'a> View<'a> {
    fn new(old: Option<&'a Cluster>, new: &'a Cluster) -> Self {
        let to_old = old.map_or_else(|| vec![None; new.nodes.len()], |old| pair::pairs(old, new));
        let mut to_new = vec![None; old.map_or(0, |old| old.nodes.len())];
        for (index, pair) in to_old.iter().enumerate() {
            if let Some(pair) = pair {
                to_new[*pair] = Some(index);
            }
        }
        Self { old, new, to_old, to_new }
    }

    fn old_member(&self, index: usize) -> Member {
        Member { old: Some(index), new: self.to_new[index] }
    }

    fn new_member(&self, index: usize) -> Member {
        Member { old: self.to_old[index], new: Some(index) }
    }

    /// Every node: in the order of the new file, then those that only the old one has.
    fn members(&self) -> impl Iterator<Item = Member> {
        let gone = (0..self.to_new.len()).filter(|index| self.to_new[*index].is_none());
        (0..self.to_old.len())
            .map(|index| self.new_member(index))
            .chain(gone.map(|index| self.old_member(index)))
    }

    /// The node by the old file.
    fn before(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        let cluster = self.old?;
        Some((cluster, &cluster.nodes[member.old?]))
    }

    /// The node by the new file.
    fn after(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        Some((self.new, &self.new.nodes[member.new?]))
    }

    /// What becomes of a node that has, or had, a desired state; none for others. What was on a node that
    /// changed its operating system went with the system.
    fn standing(&self, member: Member) -> Option<Standing> {
        let planned = |node: Option<(&Cluster, &Node)>| node.is_some_and(|(_, node)| is_planned(node.os));
        match (planned(self.before(member)), planned(self.after(member))) {
            (true, true) => Some(Standing::Stays),
            (false, true) => Some(Standing::New),
            (true, false) if member.new.is_none() => Some(Standing::Removed),
            _ => None,
        }
    }

    /// The nodes by what becomes of them.
    fn groups(&self) -> Vec<(Standing, Vec<Member>)> {
        let mut groups =
            vec![(Standing::Stays, Vec::new()), (Standing::New, Vec::new()), (Standing::Removed, Vec::new())];
        for member in self.members() {
            let standing = self.standing(member);
            if let Some((_, members)) = groups.iter_mut().find(|group| Some(group.0) == standing) {
                members.push(member);
            }
        }
        groups
    }

    fn device_before(&self, member: Member) -> Option<&'a str> {
        self.before(member).and_then(|(cluster, node)| Some(cluster.egress_interface_of(node)?.as_str()))
    }

    fn device_after(&self, member: Member) -> Option<&'a str> {
        self.after(member).and_then(|(cluster, node)| Some(cluster.egress_interface_of(node)?.as_str()))
    }

    fn device(&self, member: Member) -> Device {
        if self.device_before(member) == self.device_after(member) { Device::Same } else { Device::Other }
    }

    /// The nodes, with those apart that stay and whose egress interface does not.
    fn by_device(&self, standing: Standing, members: &[Member]) -> Vec<(Standing, Vec<Member>, Device)> {
        let (same, other): (Vec<_>, Vec<_>) = members
            .iter()
            .partition(|member| standing != Standing::Stays || self.device(**member) == Device::Same);
        vec![(standing, same, Device::Same), (standing, other, Device::Other)]
    }

    /// The nodes for which nothing is planned though something changes: their own description, or any route
    /// of the cluster.
    fn unplanned(&self, routes_change: bool) -> Vec<Member> {
        let is_unplanned = |member: &Member| {
            let node = |node: Option<(&Cluster, &'a Node)>| node.map(|(_, node)| node);
            let (before, after) = (node(self.before(*member)), node(self.after(*member)));
            if after.or(before).is_none_or(|node| is_planned(node.os)) {
                return false;
            }
            let renamed = |node: &Node| Node { name: String::new(), ..node.clone() };
            routes_change
                || before.map(renamed) != after.map(renamed)
                || self.old.is_none_or(|old| old.master_address != self.new.master_address)
        };
        self.members().filter(is_unplanned).collect()
    }
}

/// Blocks as they come, those of the same nodes made one.
#[derive(Default)]
struct Blocks {
    blocks: Vec<Block>,
    places: HashMap<(Standing, Vec<Member>), usize>,
}

impl Blocks {
    fn add(&mut self, standing: Standing, members: &[Member], mut deltas: Vec<Delta>) {
        let Some(first) = deltas.first().filter(|_| !members.is_empty()) else { return };
        // Nodes that all of the changes leave out are not part of it.
        let spared = first.except.clone();
        let same = !spared.is_empty() && deltas.iter().all(|delta| delta.except == spared);
        if same {
            let members: Vec<Member> =
                members.iter().copied().filter(|member| !spared.contains(member)).collect();
            deltas.iter_mut().for_each(|delta| delta.except.clear());
            return self.add(standing, &members, deltas);
        }
        let next = self.blocks.len();
        let place = *self.places.entry((standing, members.to_vec())).or_insert(next);
        if place == next {
            self.blocks.push(Block { standing, members: members.to_vec(), deltas: Vec::new() });
        }
        self.blocks[place].deltas.extend(deltas);
    }

    /// In the order of standing, the larger before the smaller, then in the order of the nodes.
    fn finish(mut self) -> Vec<Block> {
        for block in &mut self.blocks {
            block.deltas.sort_by_key(|delta| match delta.item {
                Item::Route { .. } => 0,
                Item::Nat { .. } => 1,
                Item::Sysctl { .. } => 2,
            });
        }
        let place = |member: &Member| (member.new.is_none(), member.new, member.old);
        self.blocks.sort_by_key(|block| {
            let size = std::cmp::Reverse(block.members.len());
            (block.standing as u8, size, block.members.first().map(place))
        });
        self.blocks
    }
}
