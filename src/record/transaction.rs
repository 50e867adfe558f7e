//! One transaction, and what it was made for.

use serde::{Deserialize, Serialize};

use crate::{
    plan::{self, OriginalSysctls, SysctlChange, SysctlValues, Totals, Touched},
    state::{State, Tables},
    text::Untrusted,
};

/// One transaction: written before the first kernel write, kept in the history when it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Number of the transaction in this namespace, from 1.
    pub id: u64,
    /// What it was made for.
    #[serde(rename = "occasion")]
    pub meta: TransactionMeta,
    /// How much its plan changed.
    pub totals: Totals,
    /// The places it touches.
    pub touched: Touched,
    /// What stood in those places.
    pub before: State,
    /// The sysctl values that it leaves there, what the kernel rewrites with a switch included.
    pub written: SysctlValues,
    /// The NAT tables that it leaves there: what else is in them is foreign.
    #[serde(default, skip_serializing_if = "Tables::is_empty")]
    pub written_nat: Tables,
    /// The saved sysctl values as they were.
    pub saved_before: OriginalSysctls,
}

impl Record {
    /// The same transaction as if it had made no other sysctl changes than `changes`.
    #[must_use]
    pub fn with_sysctls_of(&self, changes: &[&SysctlChange]) -> Self {
        let mut record = self.clone();
        let is_touched = |key: &_| {
            changes.iter().any(|change| {
                change.key == *key || plan::side_effects(&change.key, std::iter::once(key)).next().is_some()
            })
        };
        record.touched.sysctls.retain(is_touched);
        record.before.sysctls.retain(|key, _| is_touched(key));
        record.written.retain(|key, _| is_touched(key));
        record
    }
}

/// What a transaction was made for, by whom and when: what the history tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransactionMeta {
    /// The command.
    pub command: Command,
    /// The node; a `destroy` has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The configuration file, as named on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// SHA-256 of the configuration's bytes in lower-case hexadecimal, as sha256sum(1) prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<Untrusted>,
    /// Where the configuration stands in its git repository, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// Who started the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Untrusted>,
    /// When: seconds since 1970-01-01 00:00 UTC.
    pub at: u64,
}

impl TransactionMeta {
    /// A command at a time; all else is not known.
    #[must_use]
    pub const fn new(command: Command, at: u64) -> Self {
        Self { command, node: None, file: None, config_hash: None, commit: None, by: None, at }
    }
}

/// The state of a git work tree, as far as one file goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commit {
    /// The commit that is checked out, in hexadecimal.
    pub id: Untrusted,
    /// Whether the file differs from it, or is not in it.
    pub dirty: bool,
}

/// What the history tells of a transaction: a [`Record`] without the state before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Number of the transaction in this namespace, from 1.
    pub id: u64,
    /// What it was made for.
    #[serde(rename = "occasion")]
    pub meta: TransactionMeta,
    /// How much its plan changed.
    pub totals: Totals,
}

/// A command that changes a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// `hostgw apply`
    Apply,
    /// `hostgw destroy`
    Destroy,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Destroy => "destroy",
        })
    }
}
