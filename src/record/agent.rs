//! What an agent reports about itself.

use serde::{Deserialize, Serialize};

use crate::{clock, plan::Totals, text::Untrusted};

/// What an agent reports about itself, for `hostgw status` and its metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentReport {
    /// The ID of the agent's process.
    pub pid: u32,
    /// When the agent started, as in RFC 3339.
    #[serde(with = "clock::rfc3339")]
    #[schemars(with = "String")]
    pub since: u64,
    /// The configuration file that the agent follows.
    pub file: Untrusted,
    /// The name of this node in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The condition of the node.
    pub condition: AgentCondition,
    /// The configuration in effect, by its SHA-256 hash in lowercase hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<Untrusted>,
    /// Where the configuration in effect comes from, unless it is the current content of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Whether the node matches the configuration in effect.
    #[serde(default)]
    pub verified: bool,
    /// Whether the content of the file is invalid, was refused, or does not fit the node yet.
    #[serde(default)]
    pub refused: bool,
    /// Why the file is not in effect, or why the node does not match the configuration in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<AgentProblem>,
    /// The last repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_repair: Option<RepairReport>,
    /// The number of repairs since the agent started.
    pub repairs: u64,
    /// The number of times that the agent has applied a new configuration since it started.
    pub applies: u64,
    /// The number of applies and repairs that were refused or rolled back since the agent started.
    pub failures: u64,
    /// The objects that other programs keep changing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<Contested>,
    /// The foreign objects in place of managed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<AgentConflict>,
    /// The number of managed routes.
    pub routes: usize,
    /// The names of the nodes to which pod traffic is lost or diverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<Untrusted>,
    /// The ID of the newest transaction that the agent has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_transaction_id: Option<u64>,
}

impl AgentReport {
    /// Returns the report of this process when it starts to follow `file`.
    #[must_use]
    pub fn new(since: u64, file: impl Into<Untrusted>) -> Self {
        Self {
            pid: std::process::id(),
            since,
            file: file.into(),
            node: None,
            condition: AgentCondition::Starting,
            config_hash: None,
            pin: None,
            verified: false,
            refused: false,
            problem: None,
            last_repair: None,
            repairs: 0,
            applies: 0,
            failures: 0,
            contested: Vec::new(),
            conflicts: Vec::new(),
            routes: 0,
            unreachable: Vec::new(),
            newest_transaction_id: None,
        }
    }
}

/// The condition of a node, as its agent reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AgentCondition {
    /// The agent has not verified the node yet.
    Starting,
    /// The node matches the configuration in effect.
    InSync,
    /// The configuration does not fit the node yet: an interface is missing or down, an address is missing, a next hop is not on-link,
    /// or a sysctl does not exist. Or there is
    /// no usable one.
    Waiting,
    /// Another hostgw command is running, or its apply is pending.
    Yielding,
    /// The file was refused, repairs fail, there are conflicts, or contested objects wait for a repair.
    Degraded,
    /// The agent leaves the node alone after `hostgw destroy`, or after a rollback of the only apply.
    Suspended,
}

/// A configuration other than the current content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Why the agent keeps this configuration.
    pub reason: PinReason,
    /// The transaction that put this configuration in effect; absent if it is the agent's own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<u64>,
    /// The name of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// The SHA-256 hash of the agent's own file when the other configuration was put in effect, in lowercase hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Untrusted>,
}

/// Why the agent keeps another configuration than the current content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PinReason {
    /// The file is unusable, and this configuration was the last that was in effect.
    LastGood,
    /// `hostgw apply` applied another configuration.
    Apply,
    /// `hostgw rollback` restored an earlier configuration.
    Rollback,
    /// `hostgw destroy` removed everything that hostgw manages.
    Destroy,
}

/// A problem that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentProblem {
    /// When the problem began, as in RFC 3339.
    #[serde(with = "clock::rfc3339")]
    #[schemars(with = "String")]
    pub since: u64,
    /// What is wrong.
    pub message: Untrusted,
    /// The parts of the problem, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Untrusted>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Untrusted>,
}

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairReport {
    /// When the repair ended, as in RFC 3339.
    #[serde(with = "clock::rfc3339")]
    #[schemars(with = "String")]
    pub at: u64,
    /// The number of changes.
    pub totals: Totals,
    /// The first few objects that were repaired.
    pub objects: Vec<Untrusted>,
    /// The programs that had changed them, if the kernel knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Untrusted>,
}

impl RepairReport {
    /// The maximum number of objects that a report names.
    pub const MAX_OBJECTS: usize = 8;
}

/// An object that other programs keep changing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contested {
    /// The object.
    pub object: Untrusted,
    /// The program that changes the object, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Untrusted>,
    /// How often the object was restored in a row.
    pub repairs: u32,
    /// The pause before the next repair, in seconds.
    pub pause_seconds: u64,
}

/// A conflict with a foreign object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConflict {
    /// The managed object.
    pub object: Untrusted,
    /// The conflict as text.
    pub text: Untrusted,
}
