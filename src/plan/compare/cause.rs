//! Why something changes from one file to the next, and where in which file that stands.

use crate::{
    model::SysctlKey,
    model::{Cluster, ConfigPath, Family},
    plan::{
        Action,
        desired::Origin,
        reason::{FORWARDS, MASQUERADE, ON_LINK, SYSCTLS, pods_of, rewritten_after},
        windows::WindowsOrigin,
    },
    text::Untrusted,
};

use super::Member;

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The old one.
    Old,
    /// The new one.
    New,
}

/// Why something changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The node it leads to is new; its index in the new file.
    NodeAdded(usize),
    /// The node it leads to is only in the old file; its index there.
    NodeRemoved(usize),
    /// The pod CIDR of one node is that of another one now.
    PodCidrMoved {
        /// The node that had it.
        from: Member,
        /// The node that has it.
        to: Member,
    },
    /// Parts of the configuration have other values.
    Changed(Vec<ConfigKey>),
    /// A sysctl that is asked for no longer.
    Released(ConfigKey),
    /// A sysctl that must be written again after a switch that rewrites it.
    Rewritten {
        /// The sysctl.
        key: SysctlKey,
        /// The switch.
        switch: SysctlKey,
    },
    /// That file asks for it, on nodes that are new or removed.
    Configured(Side, Purpose),
}

/// A part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigKey {
    /// One for all nodes.
    Global(ConfigPath),
    /// One of a node.
    Node {
        /// The node.
        member: Member,
        /// As in `podCIDR`.
        key: &'static str,
    },
    /// One of each of several nodes.
    PerNode {
        /// The first of them.
        first: Member,
        /// How many others there are.
        others: usize,
        /// As in `podCIDR`.
        key: &'static str,
    },
}

/// What something on a node is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The pod gateways of all nodes are on-link.
    OnLink,
    /// The pods of that node, by its index in the file that asks for it.
    Pods(usize),
    /// The own pods of that Windows node, by its index, are on-link.
    OwnPods(usize),
    /// Windows nodes reach the master by their default gateway.
    Master,
    /// Traffic that leaves the cluster is masqueraded.
    Masquerade,
    /// A gateway node forwards.
    Forwarding,
    /// The file sets this sysctl.
    Sysctl(SysctlKey),
}

impl Purpose {
    /// The purpose of a route.
    pub(super) const fn of_route(origin: Origin) -> Self {
        match origin {
            Origin::ClusterPrefix => Self::OnLink,
            Origin::Node(index) => Self::Pods(index),
        }
    }
}

/// A cause in words, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// A fragment: "node linux-9 is new".
    pub text: String,
    /// Where it may stand, the best place first: a value that a file does not mention stands nowhere in it.
    pub places: Vec<(Side, ConfigPath)>,
}

/// What causes have in common that many changes share: see [`Cause::class`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nodes are new.
    NodesAdded,
    /// Nodes are removed.
    NodesRemoved,
    /// Pod CIDRs went from node to node.
    PodCidrsMoved,
    /// These keys of the file, or of nodes, changed.
    Changed(Vec<String>),
    /// Sysctls are asked for no longer, or written again.
    Sysctls,
    /// The on-link route.
    OnLink,
    /// Pods of other nodes.
    Pods,
    /// Whatever else a node is to have.
    Other,
}

impl Cause {
    /// What the cause is about, without whose.
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

    /// The cause in words, of a change that is this `action`, of `family` where it is one of a route. What
    /// is removed stands in the old file, all else in the new one where that mentions it.
    #[must_use]
    pub fn explain(
        &self,
        old: Option<&Cluster>,
        new: &Cluster,
        action: Action,
        family: Option<Family>,
    ) -> Explanation {
        let names = Names { old, new };
        let nodes = || ConfigPath::root().key("nodes");
        let at = |side, path| vec![(side, path)];
        let (text, places) = match self {
            Self::NodeAdded(index) => {
                let name = names.on(Side::New, *index);
                (format!("node {name} added"), at(Side::New, nodes().index(*index)))
            }
            Self::NodeRemoved(index) => {
                let name = names.on(Side::Old, *index);
                (format!("node {name} removed"), at(Side::Old, nodes().index(*index)))
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
                (rewritten_after(switch), at(Side::New, path))
            }
            Self::Configured(side, purpose) => {
                let (text, path) = names.configured(*side, purpose, family);
                (text, at(*side, path))
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

/// Both files, for the names of nodes.
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

    /// The name of a node, by the new file where it is in it.
    fn of(&self, member: Member) -> Untrusted {
        match (member.new, member.old) {
            (Some(index), _) => self.on(Side::New, index),
            (None, Some(index)) => self.on(Side::Old, index),
            (None, None) => Untrusted::default(),
        }
    }

    /// `nodes[3].address changed`, after the name of the node, if it is one.
    fn changed(&self, keys: &[ConfigKey], action: Action) -> (String, Vec<(Side, ConfigPath)>) {
        let words: Vec<String> = keys
            .iter()
            .map(|key| match (key, self.places(key, action).first()) {
                (ConfigKey::PerNode { others, .. }, Some((_, path))) => format!("{path} and {others} more"),
                (_, Some((_, path))) => path.to_string(),
                (_, None) => "the file".to_owned(),
            })
            .collect();
        let node = keys.iter().find_map(|key| match key {
            ConfigKey::Node { member, .. } => Some(format!("node {}: ", self.of(*member))),
            _ => None,
        });
        let what = if words.is_empty() { "the file".to_owned() } else { words.join(", ") };
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

    fn configured(&self, side: Side, purpose: &Purpose, family: Option<Family>) -> (String, ConfigPath) {
        let root = ConfigPath::root();
        match purpose {
            Purpose::OnLink => (ON_LINK.to_owned(), root.key("clusterPrefix")),
            Purpose::Pods(index) => {
                let cluster = if side == Side::New { Some(self.new) } else { self.old };
                let path = cluster.zip(family).map_or_else(
                    || root.key("nodes").index(*index),
                    |(cluster, family)| Origin::Node(*index).path(cluster, family),
                );
                (pods_of(&self.on(side, *index)), path)
            }
            Purpose::OwnPods(index) => (
                WindowsOrigin::OwnPods(*index).words().to_owned(),
                root.key("nodes").index(*index).key("podCIDR"),
            ),
            Purpose::Master => (WindowsOrigin::Master.words().to_owned(), root.key("masterAddress")),
            Purpose::Masquerade => (MASQUERADE.to_owned(), root.key("nat")),
            Purpose::Forwarding => (FORWARDS.to_owned(), root.key("clusterPrefix")),
            Purpose::Sysctl(key) => (SYSCTLS.to_owned(), root.key("sysctls").key(key.as_str())),
        }
    }
}
