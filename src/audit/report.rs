//! Everything that the forms of an audit show.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    examine::{Auditor, Examined},
    finding::SharedFinding,
    matrix::{Matrix, PairCounts, PairState},
};
use crate::{
    clock,
    diagnose::Severity,
    model::OperatingSystem,
    plan::Totals,
    record::Commit,
    render::{Locator, SourceLocation},
    text::Untrusted,
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of an audit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw audit")]
pub struct AuditReport {
    /// The version of this format.
    format: u32,
    /// The configuration, as named on the command line.
    pub(super) file: Untrusted,
    /// SHA-256 of the configuration.
    pub(super) config_hash: Untrusted,
    /// The number of snapshots of nodes.
    pub(super) snapshots: usize,
    /// When the oldest of them was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_snapshot: Option<Untrusted>,
    /// When the newest of them was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest_snapshot: Option<Untrusted>,
    /// The numbers of ordered pairs of nodes.
    pub(super) pairs: PairCounts,
    /// The findings, errors first.
    pub findings: Vec<AuditFinding>,
    /// The nodes on which an apply would change something.
    pub(super) nodes_to_apply: Vec<Untrusted>,
    /// The nodes, in the order of the configuration.
    pub(super) nodes: Vec<AuditedNode>,
    /// For each node, in the same order, what happens to packets from its pods to those of every node: the lengths of runs,
    /// each with a letter. `w` they take the planned path, `d` they take another path, `u` unknown, `x` they are lost, `.`
    /// nothing to check. `3w1.96w` means: to the first three nodes, not to itself, and to 96 others.
    pub(super) matrix: Vec<String>,
}

/// A finding about the cluster.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditFinding {
    /// The code of the rule: `hostgw help CODE` explains it.
    pub(super) code: &'static str,
    /// The problem in a few words.
    pub(super) title: &'static str,
    /// The severity of the finding.
    pub severity: Severity,
    /// What is wrong, on each of the nodes.
    pub(super) message: Untrusted,
    /// The nodes that it is about.
    pub(super) nodes: Vec<Untrusted>,
    /// The snapshots that cannot be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<Untrusted>,
    /// The machines that are not in the configuration, by their hostnames if they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) machines: Vec<Untrusted>,
    /// The line of the configuration that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<SourceLocation>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<Untrusted>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditedNode {
    /// The name of the node.
    pub(super) name: Untrusted,
    /// The operating system of the node.
    pub(super) os: OperatingSystem,
    /// Its snapshot, as named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<Untrusted>,
    /// When the snapshot was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) taken_at: Option<Untrusted>,
    /// SHA-256 of the configuration that was applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_hash: Option<Untrusted>,
    /// Its Git commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<Commit>,
    /// What an apply would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) totals: Option<Totals>,
    /// The number of nodes whose pods cannot send packets to this node's pods, or the reverse.
    pub(super) lost: usize,
}

/// What a report is made from.
pub(super) struct Parts<'a> {
    pub auditor: &'a Auditor<'a>,
    pub nodes: &'a [Option<Box<Examined>>],
    pub findings: Vec<SharedFinding>,
    pub matrix: &'a Matrix,
    pub locator: &'a Locator<'a>,
}

impl AuditReport {
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let Parts { auditor, nodes, findings, matrix, locator } = parts;
        let document = &auditor.loaded.document;
        let cluster = &auditor.loaded.cluster;
        let name = |index: usize| cluster.nodes[index].name.clone();
        let times =
            || nodes.iter().flatten().filter_map(|it| Some((clock::parse(&it.taken_at)?, &it.taken_at)));
        let needs_apply = |examined: &Examined| !examined.changes.is_empty();
        let finding = |finding: SharedFinding| {
            let SharedFinding { rule, severity, message, nodes, files, machines, path, remedy } = finding;
            AuditFinding {
                code: rule.code(),
                title: rule.title(),
                severity,
                message: message.into(),
                nodes: nodes.into_iter().map(|node| name(node as usize)).collect(),
                files,
                machines,
                location: path.and_then(|path| locator.source(&path)),
                remedy: remedy.map(Into::into),
            }
        };
        let is_lost = |from, to| matrix.get(from, to) == PairState::Lost;
        let audited = |(index, examined): (usize, &Option<Box<Examined>>)| {
            let applied = examined.as_ref().and_then(|it| it.applied.as_ref());
            let peers = (0..nodes.len()).filter(|peer| is_lost(index, *peer) || is_lost(*peer, index));
            AuditedNode {
                name: name(index),
                os: cluster.nodes[index].os,
                snapshot: examined.as_ref().map(|it| it.snapshot.clone()),
                taken_at: examined.as_ref().map(|it| it.taken_at.as_str().into()),
                config_hash: applied.map(|it| it.hash.clone()),
                commit: applied.and_then(|it| it.commit.clone()),
                totals: examined.as_ref().filter(|it| it.is_planned).map(|it| it.changes.totals),
                lost: peers.count(),
            }
        };
        Self {
            format: FORMAT,
            file: document.name().clone(),
            config_hash: auditor.hash.as_str().into(),
            snapshots: nodes.iter().flatten().count(),
            oldest_snapshot: times().min().map(|(_, at)| at.as_str().into()),
            newest_snapshot: times().max().map(|(_, at)| at.as_str().into()),
            pairs: matrix.counts(),
            findings: findings.into_iter().map(finding).collect(),
            nodes_to_apply: nodes
                .iter()
                .flatten()
                .filter(|it| needs_apply(it))
                .map(|it| name(it.index))
                .collect(),
            nodes: nodes.iter().enumerate().map(audited).collect(),
            matrix: (0..nodes.len()).map(|from| matrix.encoded_row(from)).collect(),
        }
    }

    /// Returns the numbers of errors and warnings.
    #[must_use]
    pub(super) fn totals(&self) -> (usize, usize) {
        let errors = self.findings.iter().filter(|found| found.severity == Severity::Error).count();
        (errors, self.findings.len() - errors)
    }

    /// Returns what is known about the pairs, as a sentence.
    pub(super) fn pairs_sentence(&self) -> String {
        let PairCounts { working, diverted, unknown, lost, one_way } = self.pairs;
        let total = self.pairs.total();
        let mut sentence = format!("pod traffic works for {working} of {total} pairs (one per direction)");
        let mut parts = Vec::new();
        if lost > 0 {
            let ways = if one_way > 0 { format!(" ({one_way} of them one-way)") } else { String::new() };
            parts.push(format!("{lost} lost{ways}"));
        }
        if diverted > 0 {
            parts.push(format!("{diverted} diverted"));
        }
        if unknown > 0 {
            parts.push(format!("{unknown} unknown"));
        }
        if !parts.is_empty() {
            sentence.push_str(&format!("; {}", parts.join(", ")));
        }
        sentence
    }
}
