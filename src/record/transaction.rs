//! The record of a transaction.

use serde::{Deserialize, Serialize};

use super::packed;
use crate::{
    clock,
    plan::{self, OriginalSysctls, SysctlChange, SysctlValues, Totals, Touched},
    state::{State, Tables},
    text::Untrusted,
};

/// A transaction. The record is written before the first change and moves to the history after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The ID of the transaction, unique in the network namespace; the first one is 1.
    pub id: u64,
    /// The metadata.
    pub metadata: TransactionMeta,
    /// The number of changes.
    pub totals: Totals,
    /// The keys of the objects it changes.
    #[serde(with = "packed::touched")]
    pub touched: Touched,
    /// The state of these objects before the transaction.
    #[serde(with = "packed::state")]
    pub before: State,
    /// The sysctl values after the transaction, including those that the kernel overwrites because of a switch.
    pub written: SysctlValues,
    /// The NAT tables after the transaction. Everything else in them is foreign.
    #[serde(default, skip_serializing_if = "Tables::is_empty")]
    pub written_nat: Tables,
    /// The original sysctl values as saved before the transaction.
    pub saved_before: OriginalSysctls,
}

impl Record {
    /// Returns the record of this transaction as if it had only made these sysctl `changes`.
    #[must_use]
    pub fn with_sysctl_changes(&self, changes: &[&SysctlChange]) -> Self {
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

/// The metadata of a transaction, as shown in the history: its purpose, its user and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransactionMeta {
    /// The command.
    pub command: Command,
    /// The node, except for `destroy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The configuration file, as named on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// SHA-256 of the configuration's bytes in lowercase hexadecimal, as sha256sum(1) prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<Untrusted>,
    /// The git commit of the configuration, if it is in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// The user who ran the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Untrusted>,
    /// The time of the command, as in RFC 3339. It is only shown, so a damaged one does not prevent a rollback.
    pub at: Untrusted,
}

impl TransactionMeta {
    /// Creates metadata with only a command and a time, in seconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn new(command: Command, at: u64) -> Self {
        let at = clock::time(at).into();
        Self { command, node: None, file: None, config_hash: None, commit: None, by: None, at }
    }
}

/// The state of a git working tree, as far as one file is concerned.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commit {
    /// The ID of the checked-out commit, in hexadecimal.
    pub id: Untrusted,
    /// Whether the file differs from the commit or is not part of it.
    pub dirty: bool,
}

/// A transaction in the history: a [`Record`] without the objects' state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The ID of the transaction, unique in the network namespace; the first one is 1.
    pub id: u64,
    /// The metadata.
    pub metadata: TransactionMeta,
    /// The number of changes.
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
