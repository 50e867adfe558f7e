//! Two files side by side.

use super::{Member, Standing, pair};
use crate::model::{Cluster, Node, OperatingSystem};

/// Whether this version makes a desired state for nodes with `os`. What it does not plan is told as such.
const fn is_planned(os: OperatingSystem) -> bool {
    matches!(os, OperatingSystem::Linux)
}

/// Both files, and which nodes are the same.
pub(super) struct View<'a> {
    pub old: Option<&'a Cluster>,
    pub new: &'a Cluster,
    /// By index in the new file, the index in the old one.
    pub to_old: Vec<Option<usize>>,
    /// By index in the old file, the index in the new one.
    pub to_new: Vec<Option<usize>>,
}

/// Whether the egress interface of nodes that stay is the same in both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Same,
    Other,
}

impl<'a> View<'a> {
    pub fn new(old: Option<&'a Cluster>, new: &'a Cluster) -> Self {
        let to_old = old.map_or_else(|| vec![None; new.nodes.len()], |old| pair::pairs(old, new));
        let mut to_new = vec![None; old.map_or(0, |old| old.nodes.len())];
        for (index, pair) in to_old.iter().enumerate() {
            if let Some(pair) = pair {
                to_new[*pair] = Some(index);
            }
        }
        Self { old, new, to_old, to_new }
    }

    pub fn old_member(&self, index: usize) -> Member {
        Member { old: Some(index), new: self.to_new[index] }
    }

    pub fn new_member(&self, index: usize) -> Member {
        Member { old: self.to_old[index], new: Some(index) }
    }

    /// Every node: in the order of the new file, then those that only the old one has.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let gone = (0..self.to_new.len()).filter(|index| self.to_new[*index].is_none());
        (0..self.to_old.len())
            .map(|index| self.new_member(index))
            .chain(gone.map(|index| self.old_member(index)))
    }

    /// The node by the old file.
    pub fn before(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        let cluster = self.old?;
        Some((cluster, &cluster.nodes[member.old?]))
    }

    /// The node by the new file.
    pub fn after(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        Some((self.new, &self.new.nodes[member.new?]))
    }

    /// What becomes of a node that has, or had, a desired state; none for others. What was on a node that
    /// changed its operating system went with the system.
    pub fn standing(&self, member: Member) -> Option<Standing> {
        let planned = |node: Option<(&Cluster, &Node)>| node.is_some_and(|(_, node)| is_planned(node.os));
        match (planned(self.before(member)), planned(self.after(member))) {
            (true, true) => Some(Standing::Stays),
            (false, true) => Some(Standing::New),
            (true, false) if member.new.is_none() => Some(Standing::Removed),
            _ => None,
        }
    }

    /// The nodes by what becomes of them.
    pub fn groups(&self) -> Vec<(Standing, Vec<Member>)> {
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

    pub fn device_before(&self, member: Member) -> Option<&'a str> {
        self.before(member).and_then(|(cluster, node)| Some(cluster.egress_interface_of(node)?.as_str()))
    }

    pub fn device_after(&self, member: Member) -> Option<&'a str> {
        self.after(member).and_then(|(cluster, node)| Some(cluster.egress_interface_of(node)?.as_str()))
    }

    pub fn device(&self, member: Member) -> Device {
        if self.device_before(member) == self.device_after(member) { Device::Same } else { Device::Other }
    }

    /// The nodes, with those apart that stay and whose egress interface does not.
    pub fn by_device(&self, standing: Standing, members: &[Member]) -> Vec<(Standing, Vec<Member>, Device)> {
        let (same, other): (Vec<_>, Vec<_>) = members
            .iter()
            .partition(|member| standing != Standing::Stays || self.device(**member) == Device::Same);
        vec![(standing, same, Device::Same), (standing, other, Device::Other)]
    }

    /// The nodes for which nothing is planned though something changes: their own description, or any route
    /// of the cluster.
    pub fn unplanned(&self, routes_change: bool) -> Vec<Member> {
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
