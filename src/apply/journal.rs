//! What the journal holds: the *before* of every place that a transaction touches.

use serde::{Deserialize, Serialize};

use crate::{
    plan::{Saved, Touched},
    state::State,
};

/// The version of every file in the state directory. A file of another version is never guessed at.
pub(super) const FORMAT: u32 = 1;

/// One transaction: written before the first kernel write, kept in the history when it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Number of the transaction in this namespace, from 1.
    pub id: u64,
    /// The command that made it.
    pub command: Command,
    /// The node it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The configuration file, as named on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub started: u64,
    /// The places it touches.
    pub touched: Touched,
    /// What stood in those places.
    pub before: State,
    /// The saved sysctl values as they were.
    pub saved_before: Saved,
}

/// A command that changes a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
