//! `hostgw supervise`: the hidden verb of the process that rolls back a pending apply.

use super::{Verdict, signals};
use crate::reconcile;

/// Runs the supervisor.
pub(super) fn run() -> Verdict {
    reconcile::supervise(signals::interrupt)?;
    Ok(0)
}
