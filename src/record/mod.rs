//! What hostgw stores and prints about a node: the records of its transactions, what the last apply put in force, and
//! snapshots. These types are pure data: [`crate::apply`] decides when one is written.

mod confirmation;
mod last_applied;
mod snapshot;
mod transaction;

pub use confirmation::{Decision, Outcome, Pending};
pub use last_applied::LastApplied;
pub use snapshot::Snapshot;
pub use transaction::{Command, Commit, HistoryEntry, Record, TransactionMeta};
