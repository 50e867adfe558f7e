//! Groups changes by the nodes they apply to.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::{Delta, Member, NodeGroup, NodeStatus, ObjectChange};

/// Collects groups, merging those with the same nodes.
#[derive(Default)]
pub(super) struct NodeGroups {
    groups: Vec<NodeGroup>,
    indices: HashMap<(NodeStatus, Vec<Member>), usize>,
}

impl NodeGroups {
    pub fn add(&mut self, status: NodeStatus, members: &[Member], mut deltas: Vec<Delta>) {
        let Some(first) = deltas.first().filter(|_| !members.is_empty()) else { return };
        // Nodes that every change excludes are not part of the group.
        let excluded = first.except.clone();
        let is_common = !excluded.is_empty() && deltas.iter().all(|delta| delta.except == excluded);
        if is_common {
            let members: Vec<Member> =
                members.iter().copied().filter(|member| !excluded.contains(member)).collect();
            deltas.iter_mut().for_each(|delta| delta.except.clear());
            return self.add(status, &members, deltas);
        }
        let next = self.groups.len();
        let index = *self.indices.entry((status, members.to_vec())).or_insert(next);
        if index == next {
            self.groups.push(NodeGroup { status, members: members.to_vec(), deltas: Vec::new() });
        }
        // A new node has a change for each other node: the many are not copied to the few.
        let known = &mut self.groups[index].deltas;
        if known.len() < deltas.len() {
            deltas.reserve_exact(known.len());
            deltas.splice(0..0, known.drain(..));
            *known = deltas;
        } else {
            known.append(&mut deltas);
        }
    }

    /// Adds changes that each apply to only one of these nodes. They form a separate group, unless they all apply to
    /// the same node.
    pub fn add_owner_deltas(&mut self, members: &[Member], mut deltas: Vec<Delta>) {
        let owners: HashSet<Member> = deltas.iter().filter_map(|delta| delta.only).collect();
        let part: Vec<Member> = members.iter().copied().filter(|member| owners.contains(member)).collect();
        if part.len() == 1 {
            deltas.iter_mut().for_each(|delta| delta.only = None);
            self.add(NodeStatus::Existing, &part, deltas);
        } else if !deltas.is_empty() {
            self.groups.push(NodeGroup { status: NodeStatus::Existing, members: part, deltas });
        }
    }

    /// Returns the groups by status, then from large to small, then in the order of the nodes.
    pub fn finish(mut self) -> Vec<NodeGroup> {
        for group in &mut self.groups {
            // A stable sort without keys would need memory for half of the changes.
            group.deltas.sort_by_cached_key(|delta| match delta.item {
                ObjectChange::Route { .. } | ObjectChange::WindowsRoute { .. } => 0,
                ObjectChange::Nat { .. } => 1,
                ObjectChange::Sysctl { .. } | ObjectChange::Forwarding { .. } => 2,
            });
        }
        let position = |member: &Member| (member.new.is_none(), member.new, member.old);
        self.groups.sort_by_key(|group| {
            let size = Reverse(group.members.len());
            (group.status as u8, size, group.members.first().map(position))
        });
        self.groups
    }
}
