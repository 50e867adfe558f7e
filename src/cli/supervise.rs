//! `hostgw supervise`: the hidden verb of the process that rolls back a pending apply.

use super::{VerbResult, signals};
use crate::reconcile;

/// Runs the supervisor.
pub(super) fn run() -> VerbResult {
    reconcile::supervise(signals::interrupt)?;
    Ok(0)
}
