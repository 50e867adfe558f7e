//! What every form of a comparison of two files tells.

mod note;
mod resolve;
mod short;
mod text;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Entry, Source};
use crate::{
    model::{Cluster, ConfigPath},
    plan::{
        Action, Comparison, ComparisonTotals,
        compare::{NodeStatus, Side},
    },
    text::Untrusted,
};
use resolve::Resolver;

pub use note::Note;
pub use short::Short;
pub use text::{Detail, comparison_text};
pub(super) use text::{entry_line, interfaces, place, renamed_line, short_line, title, totals};

/// The version of the JSON form.
const FORMAT: u32 = 1;

/// What a change of the configuration changes on every node, by blocks of nodes with the same changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw diff")]
pub struct ComparisonReport {
    /// Version of this form.
    pub format: u32,
    /// The old configuration, as in `cluster.yaml` or `main:cluster.yaml`; none where the new one is compared
    /// with nothing.
    pub old: Option<Untrusted>,
    /// The new configuration; none where it was deleted.
    pub new: Option<Untrusted>,
    /// Why this does not compare the same file in two revisions, if it does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// How many nodes the new configuration has.
    pub nodes: usize,
    /// Nodes that have another name, and are the same otherwise.
    pub renamed: Vec<Renamed>,
    /// What changes, and where. Several blocks can speak of one node.
    pub blocks: Vec<BlockReport>,
    /// The counts: every object counted on every node where it changes.
    pub totals: ComparisonTotals,
    /// The nodes that are in both files, by their old names.
    #[serde(skip)]
    pub kept: Vec<Untrusted>,
}

/// A node that has another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renamed {
    /// The name in the old file.
    pub before: Untrusted,
    /// The name in the new file.
    pub after: Untrusted,
    /// Where the new name stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Changes that stand on the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockReport {
    /// What becomes of the nodes.
    pub standing: NodeStatus,
    /// The nodes, in the order of the file.
    pub nodes: Vec<NodeEntry>,
    /// Object by object: routes, NAT, sysctls, forwarding. A route without a device goes by the egress interface of
    /// each node; `POD-CIDR` in a rule or a route is the pod CIDR of each node (`OLD-POD-CIDR` and `NEW-POD-CIDR`
    /// where it changes).
    pub changes: Vec<Entry>,
    /// The changes as they are told in short.
    #[serde(skip)]
    pub short: Vec<Short>,
    /// For each change, whether it is the removal of a route to a node that is removed.
    #[serde(skip)]
    pub to_removed_nodes: Vec<bool>,
}

/// A node of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeEntry {
    /// Its name, by the new file where it is in it.
    pub name: Untrusted,
    /// Its egress interface, where routes of the block name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_interface: Option<Values>,
    /// Its pod CIDRs, where rules or routes of the block hold them.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<Values>,
    /// Where it stands, when it is in one of the files only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// What a node has by the old file and by the new one: nothing, one value, or one per address family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Values {
    /// By the old file.
    pub before: Vec<String>,
    /// By the new file.
    pub after: Vec<String>,
}

/// The two files that were compared.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The old one and its name; none when there was none.
    pub old: Option<(&'a Untrusted, &'a Cluster)>,
    /// The new one and its name.
    pub new: (&'a Untrusted, &'a Cluster),
}

impl ComparisonReport {
    /// A comparison of nothing with nothing.
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

    /// Resolves a comparison of `files`. `locate` gives the place of a part of one of them.
    #[must_use]
    pub fn new(
        comparison: &Comparison,
        files: Files<'_>,
        locate: impl Fn(Side, &ConfigPath) -> Option<Source>,
    ) -> Self {
        let resolver = Resolver { files, locate: &locate };
        Self {
            format: FORMAT,
            old: files.old.map(|(name, _)| name.to_owned()),
            new: Some(files.new.0.to_owned()),
            notes: Vec::new(),
            nodes: files.new.1.nodes.len(),
            renamed: resolver.renamed(comparison),
            blocks: comparison.groups.iter().map(|block| resolver.block(block)).collect(),
            totals: comparison.totals(),
            kept: resolver.kept(comparison),
        }
    }
}

impl BlockReport {
    /// How much of it comes, changes and goes, on all its nodes.
    #[must_use]
    pub fn totals(&self) -> ComparisonTotals {
        let mut totals = ComparisonTotals { nodes: self.nodes.len(), ..ComparisonTotals::default() };
        for entry in &self.changes {
            *match entry.action {
                Action::Add => &mut totals.add,
                Action::Change => &mut totals.change,
                Action::Remove => &mut totals.remove,
            } += entry.on.as_ref().map_or(1, |reach| reach.nodes);
        }
        totals
    }
}
