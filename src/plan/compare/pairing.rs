//! Relates the nodes of two configurations.

use std::{collections::HashMap, hash::Hash};

use ipnet::IpNet;

use super::{Member, NodeStatus, matching};
use crate::{
    model::{Cluster, Family, Node, OperatingSystem, PerFamily, Prefixed},
    plan::desired::route_sources,
};

/// Two configurations, and the nodes that they have in common.
pub(super) struct NodePairing<'a> {
    pub old: Option<&'a Cluster>,
    pub new: &'a Cluster,
    /// The index in the old file, by the index in the new file.
    pub to_old: Vec<Option<usize>>,
    /// The index in the new file, by the index in the old file.
    pub to_new: Vec<Option<usize>>,
}

/// The nodes with the same operating system and the same status.
pub(super) struct PairedNodes {
    pub os: OperatingSystem,
    pub status: NodeStatus,
    pub members: Vec<Member>,
}

/// Whether the egress interface of a node that stays differs between the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum EgressChange {
    Unchanged,
    Changed,
}

/// What the routes of nodes with the same status have in common, except for the names of interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RouteVariant {
    pub egress_change: EgressChange,
    /// The MTU of the node under the old configuration; `None` also for a new node.
    pub mtu_before: Option<u32>,
    /// The MTU of the node under the new configuration; `None` also for a removed node.
    pub mtu_after: Option<u32>,
    /// Whether the preferred source addresses of IPv4 and of IPv6 differ between the files.
    pub changed_sources: [bool; 2],
}

impl RouteVariant {
    /// Returns `true` if the routes of the nodes only differ if their destinations do.
    pub fn is_unchanged(&self) -> bool {
        self.egress_change == EgressChange::Unchanged
            && self.mtu_before == self.mtu_after
            && self.changed_sources == [false; 2]
    }
}

/// Whether a machine has pods under the old configuration and under the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PodPresence {
    pub before: bool,
    pub after: bool,
}

impl PodPresence {
    /// Returns whether `podCIDR: none` was added or removed.
    pub const fn changes(self) -> bool {
        self.before != self.after
    }
}

impl<'a> NodePairing<'a> {
    pub fn new(old: Option<&'a Cluster>, new: &'a Cluster) -> Self {
        let to_old = old.map_or_else(|| vec![None; new.nodes.len()], |old| matching::pairs(old, new));
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

    /// Iterates over all nodes: in the order of the new file, then those that are only in the old file.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let removed = (0..self.to_new.len()).filter(|index| self.to_new[*index].is_none());
        (0..self.to_old.len())
            .map(|index| self.new_member(index))
            .chain(removed.map(|index| self.old_member(index)))
    }

    /// Returns the node under the old configuration.
    pub fn before(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        let cluster = self.old?;
        Some((cluster, &cluster.nodes[member.old?]))
    }

    /// Returns the node under the new configuration.
    pub fn after(&self, member: Member) -> Option<(&'a Cluster, &'a Node)> {
        Some((self.new, &self.new.nodes[member.new?]))
    }

    /// Returns whether a machine has pods.
    pub fn presence(&self, member: Member) -> PodPresence {
        let has_pods = |side: Option<(&Cluster, &Node)>| side.is_some_and(|(_, node)| node.has_pods());
        PodPresence { before: has_pods(self.before(member)), after: has_pods(self.after(member)) }
    }

    /// Returns the pod CIDRs of a machine in one family, under the old configuration and under the new one.
    pub fn pod_cidrs(&self, member: Member, family: Family) -> [Vec<IpNet>; 2] {
        [self.before(member), self.after(member)].map(|side| {
            let pods = side.into_iter().flat_map(|(_, node)| node.pods.of(family));
            pods.map(Prefixed::prefix).collect()
        })
    }

    /// Returns whether a machine has or lacks this pod CIDR under both configurations.
    pub fn is_pod_cidr_kept(&self, member: Member, cidr: IpNet) -> bool {
        let has =
            |side: Option<(&Cluster, &Node)>| side.is_some_and(|(_, node)| node.pods.at(cidr).is_some());
        has(self.before(member)) == has(self.after(member))
    }

    /// Returns the status of a node. A node with another operating system is new: the state of the previous one was
    /// lost with it.
    pub fn status(&self, member: Member) -> NodeStatus {
        let os = |node: Option<(&Cluster, &Node)>| node.map(|(_, node)| node.os);
        match (os(self.before(member)), os(self.after(member))) {
            (Some(_), None) => NodeStatus::Removed,
            (before, after) if before == after => NodeStatus::Existing,
            _ => NodeStatus::New,
        }
    }

    /// Returns the operating system of a node, from the new file if it is there.
    pub fn os(&self, member: Member) -> OperatingSystem {
        let node = self.after(member).or_else(|| self.before(member));
        node.map_or(OperatingSystem::Linux, |(_, node)| node.os)
    }

    /// Groups the nodes by operating system and status.
    pub fn groups(&self) -> Vec<PairedNodes> {
        let systems = [OperatingSystem::Linux, OperatingSystem::Windows];
        let statuses = [NodeStatus::Existing, NodeStatus::New, NodeStatus::Removed];
        let empty = |os| statuses.map(|status| PairedNodes { os, status, members: Vec::new() });
        let mut groups: Vec<PairedNodes> = systems.into_iter().flat_map(empty).collect();
        for member in self.members() {
            let (os, status) = (self.os(member), self.status(member));
            if let Some(group) = groups.iter_mut().find(|group| (group.os, group.status) == (os, status)) {
                group.members.push(member);
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

    pub fn egress_change(&self, member: Member) -> EgressChange {
        if self.device_before(member) == self.device_after(member) {
            EgressChange::Unchanged
        } else {
            EgressChange::Changed
        }
    }

    /// Splits the nodes into those that have and had pods alike, in the order of each part's first node.
    pub fn split_by_presence(&self, members: &[Member]) -> Vec<(PodPresence, Vec<Member>)> {
        let parts = group_by(members, |member| self.presence(*member));
        parts.into_iter().filter_map(|part| Some((self.presence(*part.first()?), part))).collect()
    }

    /// Returns what the routes of a node with this status have in common with those of others.
    pub fn route_variant(&self, status: NodeStatus, member: Member) -> RouteVariant {
        let mtu = |side: Option<(&Cluster, &Node)>| side.and_then(|(cluster, node)| cluster.mtu_of(node));
        let sources = |side: Option<(&Cluster, &Node)>| {
            side.map_or_else(PerFamily::default, |(cluster, node)| route_sources(cluster, node))
        };
        let (before, after) = (sources(self.before(member)), sources(self.after(member)));
        let is_changed = |family| status == NodeStatus::Existing && before.get(family) != after.get(family);
        RouteVariant {
            changed_sources: Family::ALL.map(is_changed),
            egress_change: match status {
                NodeStatus::Existing => self.egress_change(member),
                NodeStatus::New | NodeStatus::Removed => EgressChange::Unchanged,
            },
            mtu_before: mtu(self.before(member)).filter(|_| status != NodeStatus::New),
            mtu_after: mtu(self.after(member)).filter(|_| status != NodeStatus::Removed),
        }
    }

    /// Splits the nodes, which have the same status, by their route variants, in the order of each part's first node.
    pub fn split_by_route_variant(
        &self,
        status: NodeStatus,
        members: &[Member],
    ) -> Vec<(RouteVariant, Vec<Member>)> {
        let variant = |member: &Member| self.route_variant(status, *member);
        let parts = group_by(members, variant);
        parts.into_iter().filter_map(|part| Some((variant(part.first()?), part))).collect()
    }

    /// Splits the nodes into those whose egress interface stays the same and those whose interface changes.
    pub fn split_by_egress_change(
        &self,
        status: NodeStatus,
        members: &[Member],
    ) -> Vec<(NodeStatus, Vec<Member>, EgressChange)> {
        let (unchanged, changed): (Vec<_>, Vec<_>) = members.iter().partition(|member| {
            status != NodeStatus::Existing || self.egress_change(**member) == EgressChange::Unchanged
        });
        vec![(status, unchanged, EgressChange::Unchanged), (status, changed, EgressChange::Changed)]
    }
}

/// Groups the nodes by `key`, in the order of each group's first node.
pub(super) fn group_by<K: Eq + Hash>(members: &[Member], key: impl Fn(&Member) -> K) -> Vec<Vec<Member>> {
    let mut groups: Vec<Vec<Member>> = Vec::new();
    let mut places: HashMap<K, usize> = HashMap::new();
    for member in members {
        let place = *places.entry(key(member)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(*member),
            None => groups.push(vec![*member]),
        }
    }
    groups
}
