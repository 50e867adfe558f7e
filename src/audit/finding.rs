//! A finding about the cluster, and the nodes that share it.

use std::collections::HashMap;

use crate::{
    diagnose::{Diagnostic, Rule, Severity},
    model::ConfigPath,
    text::Untrusted,
};

/// A finding about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedFinding {
    pub rule: Rule,
    pub severity: Severity,
    pub message: String,
    /// The indexes of the nodes that it is about, sorted.
    pub nodes: Vec<u32>,
    /// The snapshots that it is about and that cannot be used.
    pub files: Vec<Untrusted>,
    /// The machines that it is about and that are not in the configuration.
    pub machines: Vec<Untrusted>,
    pub path: Option<ConfigPath>,
    pub remedy: Option<String>,
}

impl SharedFinding {
    pub fn new(rule: Rule, message: String, nodes: Vec<u32>) -> Self {
        Self {
            rule,
            severity: rule.severity(),
            message,
            nodes,
            files: Vec::new(),
            machines: Vec::new(),
            path: None,
            remedy: None,
        }
    }

    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Collects findings about single nodes. Nodes with the same finding share one.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: Vec<SharedFinding>,
    known: HashMap<(Rule, String, Option<String>), usize>,
}

impl Findings {
    /// Adds a finding about a node.
    pub fn add(&mut self, node: u32, diagnostic: Diagnostic) {
        let Diagnostic { rule, severity, message, path, remedy } = diagnostic;
        let key = (rule, message, remedy);
        if let Some(finding) = self.known.get(&key).and_then(|at| self.all.get_mut(*at)) {
            finding.nodes.push(node);
            finding.severity = finding.severity.min(severity);
            return;
        }
        self.known.insert(key.clone(), self.all.len());
        let (rule, message, remedy) = key;
        let finding = SharedFinding::new(rule, message, vec![node]);
        self.all.push(SharedFinding { severity, path, remedy, ..finding });
    }

    /// Adds a finding about the cluster.
    pub fn push(&mut self, finding: SharedFinding) {
        self.all.push(finding);
    }

    /// Adds findings about the cluster.
    pub fn extend(&mut self, findings: Vec<SharedFinding>) {
        self.all.extend(findings);
    }

    /// Returns the findings: errors first, then by rule, those about most nodes first.
    pub fn sorted(self) -> Vec<SharedFinding> {
        let mut all = self.all;
        for finding in &mut all {
            finding.nodes.sort_unstable();
            finding.nodes.dedup();
        }
        all.sort_by(|one, other| {
            let key = |finding: &SharedFinding| (finding.severity, finding.rule);
            key(one)
                .cmp(&key(other))
                .then(other.nodes.len().cmp(&one.nodes.len()))
                .then_with(|| (&one.nodes, &one.message).cmp(&(&other.nodes, &other.message)))
        });
        all
    }
}
