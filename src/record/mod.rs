//! What hostgw stores and prints about a node: the records of its transactions, the state of the last apply, and
//! snapshots. These types are pure data; [`crate::apply`] decides when to write them.

mod agent;
mod confirmation;
mod last_applied;
mod packed;
mod snapshot;
mod snapshot_outline;
mod transaction;

pub use agent::{
    AgentCondition, AgentConflict, AgentProblem, AgentReport, Contested, Pin, PinReason, RepairReport,
};
pub use confirmation::{Decision, Outcome, Pending};
pub use last_applied::LastApplied;
pub use snapshot::Snapshot;
pub use snapshot_outline::{RouteTexts, SnapshotOutline};
pub use transaction::{Command, Commit, HistoryEntry, Record, TransactionMeta};
