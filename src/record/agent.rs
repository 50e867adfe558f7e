//! What an agent reports about itself.

use serde::{Deserialize, Serialize};

use crate::{plan::Totals, text::Untrusted};

/// What an agent reports about itself, for `hostgw status` and its metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentReport {
    /// The ID of its process.
    pub process: u32,
    /// When it started, in seconds since 1970-01-01 00:00 UTC.
    pub since: u64,
    /// The configuration file that it follows.
    pub file: Untrusted,
    /// The node that this machine is in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The condition of the node, as far as the agent is concerned.
    pub condition: AgentCondition,
    /// The configuration that it keeps in effect, by its SHA-256 hash in lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<Untrusted>,
    /// Where that configuration comes from, unless it is the current content of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Whether the node is as that configuration says.
    #[serde(default)]
    pub verified: bool,
    /// Whether the content of the file is invalid, was refused, or does not fit the node yet.
    #[serde(default)]
    pub refused: bool,
    /// Why the file, or the node, is not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<AgentTrouble>,
    /// The last repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_repair: Option<RepairReport>,
    /// The number of repairs since it started.
    pub repairs: u64,
    /// The number of applies of a new configuration since it started.
    pub applies: u64,
    /// The number of changes that were refused or rolled back since it started.
    pub failures: u64,
    /// The objects that other programs keep changing, and foreign objects in the place of managed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<Contested>,
    /// The number of managed routes.
    pub routes: usize,
    /// The names of the nodes whose pods this node's pods cannot reach, or not as planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<Untrusted>,
    /// The newest transaction that it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<u64>,
}

impl AgentReport {
    /// Returns the report of this process when it starts to follow `file`.
    #[must_use]
    pub fn new(since: u64, file: impl Into<Untrusted>) -> Self {
        Self {
            process: std::process::id(),
            since,
            file: file.into(),
            node: None,
            condition: AgentCondition::Starting,
            config_hash: None,
            pin: None,
            verified: false,
            refused: false,
            trouble: None,
            last_repair: None,
            repairs: 0,
            applies: 0,
            failures: 0,
            contested: Vec::new(),
            routes: 0,
            unreachable: Vec::new(),
            newest: None,
        }
    }

    /// The number of objects that other programs keep changing.
    #[must_use]
    pub fn contested_objects(&self) -> usize {
        self.contested.iter().filter(|contested| contested.pause_seconds.is_some()).count()
    }

    /// The number of foreign objects in place of managed ones.
    #[must_use]
    pub fn conflicts(&self) -> usize {
        self.contested.len() - self.contested_objects()
    }
}

/// The condition of a node, as far as its agent is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AgentCondition {
    /// It has not verified the node yet.
    Starting,
    /// The node is as the configuration says.
    InSync,
    /// The interface, an address, or the bridge is missing.
    Waiting,
    /// Another hostgw command is running, or its apply is pending.
    Yielding,
    /// Part of the node is not as the configuration says.
    Degraded,
    /// After `hostgw destroy`, it leaves the node alone.
    Suspended,
}

/// A configuration other than the current content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Why.
    pub reason: PinReason,
    /// The transaction that put it in effect; absent if it came from the agent's own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u64>,
    /// The name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// The SHA-256 hash of the agent's own file at that time, in lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Untrusted>,
}

/// Why the agent keeps another configuration than the current content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PinReason {
    /// The file is invalid or was refused, and this one was the last that was applied.
    LastGood,
    /// `hostgw apply` applied another configuration.
    Apply,
    /// `hostgw rollback` restored it.
    Rollback,
    /// `hostgw destroy` removed everything.
    Destroy,
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentTrouble {
    /// Since when, in seconds since 1970-01-01 00:00 UTC.
    pub since: u64,
    /// What is wrong.
    pub message: Untrusted,
    /// Its parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Untrusted>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Untrusted>,
}

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairReport {
    /// When, in seconds since 1970-01-01 00:00 UTC.
    pub at: u64,
    /// The number of changes.
    pub totals: Totals,
    /// The first few objects.
    pub objects: Vec<Untrusted>,
    /// The programs that had changed them, as far as the kernel tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Untrusted>,
}

/// An object that other programs keep changing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contested {
    /// The object.
    pub object: Untrusted,
    /// Who changes it, or what is in its place, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Untrusted>,
    /// How often it was restored in a row; 0 if a foreign object is in its place.
    pub repairs: u32,
    /// The pause before the next repair, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_seconds: Option<u64>,
}
