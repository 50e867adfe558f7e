//! Changes, gathered by the nodes where they happen.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::{Delta, Member, NodeGroup, NodeStatus, ObjectChange};

/// Blocks as they come, those of the same nodes made one.
#[derive(Default)]
pub(super) struct NodeGroups {
    groups: Vec<NodeGroup>,
    places: HashMap<(NodeStatus, Vec<Member>), usize>,
}

impl NodeGroups {
    pub fn add(&mut self, status: NodeStatus, members: &[Member], mut deltas: Vec<Delta>) {
        let Some(first) = deltas.first().filter(|_| !members.is_empty()) else { return };
        // Nodes that all of the changes leave out are not part of it.
        let spared = first.except.clone();
        let same = !spared.is_empty() && deltas.iter().all(|delta| delta.except == spared);
        if same {
            let members: Vec<Member> =
                members.iter().copied().filter(|member| !spared.contains(member)).collect();
            deltas.iter_mut().for_each(|delta| delta.except.clear());
            return self.add(status, &members, deltas);
        }
        let next = self.groups.len();
        let place = *self.places.entry((status, members.to_vec())).or_insert(next);
        if place == next {
            self.groups.push(NodeGroup { status, members: members.to_vec(), deltas: Vec::new() });
        }
        self.groups[place].deltas.extend(deltas);
    }

    /// Adds changes that stand on one of these nodes each: a block of its own, which no other changes join,
    /// unless it is the same node for all.
    pub fn add_of_owners(&mut self, members: &[Member], mut deltas: Vec<Delta>) {
        let owners: HashSet<Member> = deltas.iter().filter_map(|delta| delta.only).collect();
        let part: Vec<Member> = members.iter().copied().filter(|member| owners.contains(member)).collect();
        if part.len() == 1 {
            deltas.iter_mut().for_each(|delta| delta.only = None);
            self.add(NodeStatus::Stays, &part, deltas);
        } else if !deltas.is_empty() {
            self.groups.push(NodeGroup { status: NodeStatus::Stays, members: part, deltas });
        }
    }

    /// In the order of standing, the larger before the smaller, then in the order of the nodes.
    pub fn finish(mut self) -> Vec<NodeGroup> {
        for group in &mut self.groups {
            group.deltas.sort_by_key(|delta| match delta.item {
                ObjectChange::Route { .. } | ObjectChange::WindowsRoute { .. } => 0,
                ObjectChange::Nat { .. } => 1,
                ObjectChange::Sysctl { .. } | ObjectChange::Forwarding { .. } => 2,
            });
        }
        let place = |member: &Member| (member.new.is_none(), member.new, member.old);
        self.groups.sort_by_key(|group| {
            let size = Reverse(group.members.len());
            (group.status as u8, size, group.members.first().map(place))
        });
        self.groups
    }
}
