//! An apply that is in effect and pending confirmation.
//!
//! Its journal stays open, so a rollback remains possible whatever happens. The first decision wins:
//! [`StateDir::decide`] is one atomic step, and the holder of the lock puts the decision into effect. That is the
//! supervisor or, if it is gone, the next command that takes the lock.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::{Backend, Failure, Interrupt, StateDir, transaction::restore_pending};
use crate::record::{Decision, Outcome, Pending, Record};

/// How often to check for a decision.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Pending {
    /// Creates a pending apply that expires after `time`.
    #[must_use]
    pub fn from_now(id: u64, time: Duration) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id,
            until: now.saturating_add(time).as_secs(),
            deadline: milliseconds(since_boot()).saturating_add(milliseconds(time)),
        }
    }

    /// The time since the deadline, or zero before it.
    #[must_use]
    pub fn overdue(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_millis(self.deadline))
    }

    /// The time left to confirm, or zero after the deadline.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.deadline).saturating_sub(since_boot())
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
}

/// Waits until the apply is confirmed or canceled, the deadline passes, or `interrupt` is raised, which cancels it.
pub fn wait(dir: &StateDir, pending: &Pending, interrupt: &Interrupt) -> Decision {
    loop {
        match dir.decision(pending) {
            Ok(None) => {}
            Ok(Some(decision)) => return decision,
            // Whether it was confirmed is unknown: rolling back is the safe choice.
            Err(_) => return Decision::Canceled,
        }
        let remaining = pending.remaining();
        let decision = if interrupt.is_raised() {
            Decision::Canceled
        } else if remaining.is_zero() {
            Decision::Expired
        } else {
            thread::sleep(remaining.min(POLL_INTERVAL));
            continue;
        };
        // A failing disk must not prevent the rollback.
        let _ = dir.decide(pending, decision);
        return dir.decision(pending).ok().flatten().unwrap_or(decision);
    }
}

/// Puts the decision on the open transaction into effect `record`. A rollback records its outcome before the transaction
/// ends, so a reader always sees one or the other. The caller holds the lock.
///
/// # Errors
/// Returns [`Failure::Untouched`] if it could not be confirmed and remains pending, and [`Failure::Incomplete`] if it
/// could not be rolled back completely.
pub fn carry_out(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    decision: Decision,
) -> Result<(), Failure> {
    match decision {
        Decision::Confirmed => dir.commit(record).map_err(Failure::Untouched),
        Decision::Canceled | Decision::Expired => restore_pending(node, dir, record, || {
            let metadata = record.metadata.clone();
            // Waiting commands learn of the rollback without this file, too.
            let _ = dir.write_outcome(&Outcome { pending, metadata, decision, failure: None });
        }),
    }
}
