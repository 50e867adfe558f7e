//! The content of a comparison of two configurations that all forms share.

mod collapse;
mod note;
mod resolve;
mod text;

use schemars::JsonSchema;
use serde::Serialize;

use super::{ChangeEntry, SourceLocation};
use crate::{
    model::{Cluster, ConfigPath, OperatingSystem},
    plan::{
        Action, Comparison, ComparisonTotals,
        compare::{NodeStatus, Side},
    },
    progress::Task,
    text::Untrusted,
};
use resolve::Resolver;

pub use collapse::CollapsedLine;
pub use note::RevisionNote;
pub use text::{Detail, comparison_text};
pub(super) use text::{collapsed_line, entry_line, interfaces, place, renamed_line, title, totals};

/// The version of the JSON format.
const FORMAT: u32 = 1;

/// The effect of a configuration change on every node, grouped into blocks of nodes with the same changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw diff")]
pub struct ComparisonReport {
    /// The version of this format.
    pub format: u32,
    /// The old configuration, such as `cluster.yaml` or `main:cluster.yaml`; null if there is none.
    pub old: Option<Untrusted>,
    /// The new configuration; null if it was deleted.
    pub new: Option<Untrusted>,
    /// Notes if this is not a comparison of the same file in two revisions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<RevisionNote>,
    /// The number of nodes in the new configuration.
    pub nodes: usize,
    /// The renamed nodes, with their old names. Blocks list their other changes.
    pub renamed: Vec<Renamed>,
    /// The changes, grouped by the nodes that they affect. A node may be in several blocks.
    pub blocks: Vec<BlockReport>,
    /// The number of changes, summed over all nodes.
    pub totals: ComparisonTotals,
    /// The nodes in both configurations, by their old names.
    #[serde(skip)]
    pub kept: Vec<Untrusted>,
}

/// A renamed node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renamed {
    /// The name in the old configuration.
    pub before: Untrusted,
    /// The name in the new configuration.
    pub after: Untrusted,
    /// The location of the new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<SourceLocation>,
}

/// Changes that affect the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockReport {
    /// Whether the nodes are new, removed, or in both configurations.
    pub status: NodeStatus,
    /// The operating system of the nodes.
    #[serde(skip)]
    pub os: Option<OperatingSystem>,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeEntry>,
    /// The changes, one per object: routes, NAT, sysctls, forwarding. A route without a device uses the egress
    /// interface of each node. `POD-CIDR` in a rule or a route is the pod CIDR of each node (`OLD-POD-CIDR` and
    /// `NEW-POD-CIDR` if it changes). `NODE-ADDRESS` is the address of each node in the same family
    /// (`OLD-NODE-ADDRESS` and `NEW-NODE-ADDRESS` if it changes).
    pub changes: Vec<ChangeEntry>,
    /// The changes as collapsed lines.
    #[serde(skip)]
    pub collapsed: Vec<CollapsedLine>,
    /// For each change, whether it removes a route to a removed node.
    #[serde(skip)]
    pub to_removed_nodes: Vec<bool>,
}

/// A node of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeEntry {
    /// The node's name, from the new configuration if it contains the node.
    pub name: Untrusted,
    /// The node's egress interface, if routes of the block have no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_interface: Option<Box<BeforeAfter>>,
    /// The node's pod CIDRs, if rules or routes of the block refer to them.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<Box<BeforeAfter>>,
    /// The node's addresses, if rules or routes of the block refer to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Box<BeforeAfter>>,
    /// The location of the node, if it is in only one of the configurations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Box<SourceLocation>>,
}

/// The values of a node in the old and in the new configuration: none, one, or one per address family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeforeAfter {
    /// The values in the old configuration.
    pub before: Vec<String>,
    /// The values in the new configuration.
    pub after: Vec<String>,
}

/// The compared configurations.
#[derive(Debug, Clone, Copy)]
pub struct ComparedFiles<'a> {
    /// The name and the cluster of the old configuration, if there is one.
    pub old: Option<(&'a Untrusted, &'a Cluster)>,
    /// The name and the cluster of the new configuration.
    pub new: (&'a Untrusted, &'a Cluster),
}

impl ComparisonReport {
    /// Creates a comparison without configurations.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            format: FORMAT,
            old: None,
            new: None,
            notes: Vec::new(),
            nodes: 0,
            renamed: Vec::new(),
            blocks: Vec::new(),
            totals: ComparisonTotals::default(),
            kept: Vec::new(),
        }
    }

    /// Resolves the comparison of `files`. `locate` finds a part of one of them.
    #[must_use]
    pub fn new(
        comparison: Comparison,
        files: ComparedFiles<'_>,
        locate: impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
    ) -> Self {
        let _task = Task::begin("finding the reasons");
        let resolver = Resolver { files, locate: &locate };
        let (totals, renamed) = (comparison.totals(), resolver.renamed(&comparison));
        let kept = resolver.kept(&comparison);
        Self {
            format: FORMAT,
            old: files.old.map(|(name, _)| name.to_owned()),
            new: Some(files.new.0.to_owned()),
            notes: Vec::new(),
            nodes: files.new.1.nodes.len(),
            renamed,
            blocks: comparison.groups.into_iter().map(|block| resolver.block(block)).collect(),
            totals,
            kept,
        }
    }
}

impl BlockReport {
    /// The number of changes, summed over the nodes of the block.
    #[must_use]
    pub fn totals(&self) -> ComparisonTotals {
        let mut totals = ComparisonTotals { nodes: self.nodes.len(), ..ComparisonTotals::default() };
        for entry in &self.changes {
            *match entry.action {
                Action::Add => &mut totals.add,
                Action::Update => &mut totals.update,
                Action::Remove => &mut totals.remove,
            } += entry.on.as_ref().map_or(1, |reach| reach.nodes);
        }
        totals
    }
}
