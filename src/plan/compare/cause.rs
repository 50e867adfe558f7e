//! The reasons for changes between two configurations, and their locations in the files.

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    plan::{
        Action,
        desired::Origin,
        reason::{CONFIGURED_SYSCTL, FORWARDING, MASQUERADE, ON_LINK, UNASSIGNED, pods_of, rewritten_after},
        windows::WindowsOrigin,
    },
    text::{Untrusted, count},
};

use super::Member;

/// One of the two configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The old one.
    Old,
    /// The new one.
    New,
}

/// The reason for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The node that the route leads to was added; its index in the new file.
    NodeAdded(usize),
    /// The node that the route leads to was removed; its index in the old file.
    NodeRemoved(usize),
    /// A pod CIDR moved from one node to another.
    PodCidrMoved {
        /// The node that had it.
        from: Member,
        /// The node that has it now.
        to: Member,
    },
    /// The values of these keys changed.
    Changed(Vec<ConfigKey>),
    /// A sysctl is no longer configured.
    Released(ConfigKey),
    /// A sysctl has to be written again because writing a forwarding switch overwrites it.
    Rewritten {
        /// The sysctl.
        key: SysctlKey,
        /// The switch.
        switch: SysctlKey,
    },
    /// One of the configurations asks for the object, on a node that is added or removed.
    Configured(Side, Purpose),
}

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigKey {
    /// A key that applies to all nodes.
    Global(ConfigPath),
    /// A key of one node.
    Node {
        /// The node.
        member: Member,
        /// The key, such as `podCIDR`.
        key: &'static str,
    },
    /// The same key of several nodes.
    PerNode {
        /// The first of the nodes.
        first: Member,
        /// The number of other nodes.
        others: usize,
        /// The key, such as `podCIDR`.
        key: &'static str,
    },
}

/// The purpose of an object on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Makes the pod gateways of all nodes on-link.
    OnLink,
    /// Rejects packets for addresses that no node has.
    Unassigned,
    /// Reaches the pods of the node with this index in its file.
    Pods(usize),
    /// Makes the pods of the Windows node with this index on-link.
    OwnPods(usize),
    /// Lets Windows nodes reach the master through their default gateway.
    Master,
    /// Masquerades traffic that leaves the cluster.
    Masquerade,
    /// Forwards packets, as every node must.
    Forwarding,
    /// Sets a configured sysctl.
    Sysctl(SysctlKey),
}

impl Purpose {
    /// Returns the purpose of a route.
    pub(super) const fn of_route(origin: Origin) -> Self {
        match origin {
            Origin::ClusterPrefix => Self::OnLink,
            Origin::Unassigned => Self::Unassigned,
            Origin::Node(index) => Self::Pods(index),
        }
    }
}

/// A cause as text, with its locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The reason, as a sentence fragment such as "node linux-9 added".
    pub text: String,
    /// Possible locations, best first: a file may omit the value.
    pub places: Vec<(Side, ConfigPath)>,
}

/// The kind of a cause, to summarize changes: see [`Cause::class`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nodes were added.
    NodesAdded,
    /// Nodes were removed.
    NodesRemoved,
    /// Pod CIDRs moved between nodes.
    PodCidrsMoved,
    /// These keys changed, globally or on nodes.
    Changed(Vec<String>),
    /// Sysctls are released or rewritten.
    Sysctls,
    /// The on-link route.
    OnLink,
    /// Routes to the pods of other nodes.
    Pods,
    /// Everything else that is configured for a node.
    Other,
}

impl Cause {
    /// Returns the kind of the cause, without the nodes and values involved.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NodeAdded(_) => Class::NodesAdded,
            Self::NodeRemoved(_) => Class::NodesRemoved,
            Self::PodCidrMoved { .. } => Class::PodCidrsMoved,
            Self::Changed(keys) => Class::Changed(keys.iter().map(ConfigKey::kind).collect()),
            Self::Released(_) | Self::Rewritten { .. } => Class::Sysctls,
            Self::Configured(_, Purpose::OnLink) => Class::OnLink,
            Self::Configured(_, Purpose::Pods(_)) => Class::Pods,
            Self::Configured(..) => Class::Other,
        }
    }

    /// Explains the cause of a change with this `action`; `destination` is that of a route. Removed objects are
    /// located in the old file, all others in the new file if it mentions them.
    #[must_use]
    pub fn explain(
        &self,
        old: Option<&Cluster>,
        new: &Cluster,
        action: Action,
        destination: Option<IpNet>,
    ) -> Explanation {
        let names = Names { old, new };
        let nodes = || ConfigPath::root().key("nodes");
        let single = |side, path| vec![(side, path)];
        let (text, places) = match self {
            Self::NodeAdded(index) => {
                let name = names.on(Side::New, *index);
                (format!("node {name} added"), single(Side::New, nodes().index(*index)))
            }
            Self::NodeRemoved(index) => {
                let name = names.on(Side::Old, *index);
                (format!("node {name} removed"), single(Side::Old, nodes().index(*index)))
            }
            Self::PodCidrMoved { from, to } => {
                let text = format!("moved from node {} to node {}", names.of(*from), names.of(*to));
                let place =
                    |side: Side, index: Option<usize>| Some((side, nodes().index(index?).key("podCIDR")));
                let (old, new) = (place(Side::Old, from.old), place(Side::New, to.new));
                let places = if action == Action::Remove { [old, new] } else { [new, old] };
                (text, places.into_iter().flatten().collect())
            }
            Self::Changed(keys) => names.changed(keys, action),
            Self::Released(key) => {
                let text = "no longer configured: restore original value".to_owned();
                (text, names.places(key, Action::Remove))
            }
            Self::Rewritten { key, switch } => {
                let path = ConfigPath::root().key("sysctls").key(key.as_str());
                (rewritten_after(switch), single(Side::New, path))
            }
            Self::Configured(side, purpose) => {
                let (text, path) = names.configured(*side, purpose, destination);
                (text, single(*side, path))
            }
        };
        Explanation { text, places }
    }
}

impl ConfigKey {
    fn kind(&self) -> String {
        match self {
            Self::Global(path) => path.to_string(),
            Self::Node { key, .. } | Self::PerNode { key, .. } => format!("nodes[].{key}"),
        }
    }
}

/// Both configurations, to look up node names.
struct Names<'a> {
    old: Option<&'a Cluster>,
    new: &'a Cluster,
}

impl Names<'_> {
    fn on(&self, side: Side, index: usize) -> Untrusted {
        let cluster = match side {
            Side::Old => self.old,
            Side::New => Some(self.new),
        };
        cluster
            .and_then(|cluster| cluster.nodes.get(index))
            .map_or_else(Untrusted::default, |node| node.name.clone())
    }

    /// Returns the name of a node, from the new file if possible.
    fn of(&self, member: Member) -> Untrusted {
        match (member.new, member.old) {
            (Some(index), _) => self.on(Side::New, index),
            (None, Some(index)) => self.on(Side::Old, index),
            (None, None) => Untrusted::default(),
        }
    }

    /// Returns `nodes[3].address changed`, with the name of the node in front for a key of one node.
    fn changed(&self, keys: &[ConfigKey], action: Action) -> (String, Vec<(Side, ConfigPath)>) {
        let paths: Vec<String> = keys
            .iter()
            .map(|key| match (key, self.places(key, action).first()) {
                (ConfigKey::PerNode { others, .. }, Some((_, path))) => {
                    format!("{path} and {}", count(*others, "other key"))
                }
                (_, Some((_, path))) => path.to_string(),
                (_, None) => "the file".to_owned(),
            })
            .collect();
        let node = keys.iter().find_map(|key| match key {
            ConfigKey::Node { member, .. } => Some(format!("node {}: ", self.of(*member))),
            _ => None,
        });
        let what = if paths.is_empty() { "the file".to_owned() } else { paths.join(", ") };
        let text = format!("{}{what} changed", node.unwrap_or_default());
        (text, keys.iter().flat_map(|key| self.places(key, action)).collect())
    }

    fn places(&self, key: &ConfigKey, action: Action) -> Vec<(Side, ConfigPath)> {
        let node = |index: usize, key: &str| ConfigPath::root().key("nodes").index(index).key(key);
        let (old, new) = match key {
            ConfigKey::Global(path) => (Some(path.clone()), Some(path.clone())),
            ConfigKey::Node { member, key } | ConfigKey::PerNode { first: member, key, .. } => {
                (member.old.map(|index| node(index, key)), member.new.map(|index| node(index, key)))
            }
        };
        let (old, new) = (old.map(|path| (Side::Old, path)), new.map(|path| (Side::New, path)));
        let places = if action == Action::Remove { [old, new] } else { [new, old] };
        places.into_iter().flatten().collect()
    }

    fn configured(&self, side: Side, purpose: &Purpose, destination: Option<IpNet>) -> (String, ConfigPath) {
        let root = ConfigPath::root();
        match purpose {
            Purpose::OnLink => (ON_LINK.to_owned(), root.key("clusterPrefix")),
            Purpose::Unassigned => (UNASSIGNED.to_owned(), root.key("routes").key("unassigned")),
            Purpose::Pods(index) => {
                let cluster = if side == Side::New { Some(self.new) } else { self.old };
                let path = cluster.zip(destination).map_or_else(
                    || root.key("nodes").index(*index),
                    |(cluster, destination)| Origin::Node(*index).path(cluster, destination),
                );
                (pods_of(&self.on(side, *index)), path)
            }
            Purpose::OwnPods(index) => (
                WindowsOrigin::OwnPods(*index).reason().to_owned(),
                root.key("nodes").index(*index).key("podCIDR"),
            ),
            Purpose::Master => (WindowsOrigin::Master.reason().to_owned(), root.key("masterAddress")),
            Purpose::Masquerade => (MASQUERADE.to_owned(), root.key("nat")),
            Purpose::Forwarding => (FORWARDING.to_owned(), root.key("clusterPrefix")),
            Purpose::Sysctl(key) => (CONFIGURED_SYSCTL.to_owned(), root.key("sysctls").key(key.as_str())),
        }
    }
}
