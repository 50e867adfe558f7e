//! An apply that is in force and waits for its confirmation.
//!
//! The journal stays open meanwhile, so that whatever happens the way back is there. Who decides first wins:
//! [`StateDir::decide`] is one atomic step, and whoever holds the lock carries out what was decided. That is
//! the supervisor; when it is gone, it is whoever comes next.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::{Backend, Failure, Interrupt, StateDir, transaction::restore_pending};
use crate::record::{Decision, Outcome, Pending, Record};

/// How often to check for a decision.
const LOOK: Duration = Duration::from_millis(100);

impl Pending {
    /// `time` from now.
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

    /// How long ago the time was over; zero before.
    #[must_use]
    pub fn overdue(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_millis(self.deadline))
    }

    /// How long it can still be confirmed; zero when the time is over.
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

/// Waits until somebody decides on `pending`, the time is over, or `interrupt` is raised, which is a
/// cancellation.
pub fn wait(dir: &StateDir, pending: &Pending, interrupt: &Interrupt) -> Decision {
    loop {
        match dir.decision(pending) {
            Ok(None) => {}
            Ok(Some(decision)) => return decision,
            // Who cannot tell whether it was confirmed takes the safe side.
            Err(_) => return Decision::Cancelled,
        }
        let remaining = pending.remaining();
        let own = if interrupt.is_raised() {
            Decision::Cancelled
        } else if remaining.is_zero() {
            Decision::Expired
        } else {
            thread::sleep(remaining.min(LOOK));
            continue;
        };
        // A disk that fails does not keep a node from being rolled back.
        let _ = dir.decide(pending, own);
        return dir.decision(pending).ok().flatten().unwrap_or(own);
    }
}

/// Carries out what was decided on the open transaction `record`, and leaves word of a rollback before its transaction
/// ends: somebody who looks sees the one or the other. The caller holds the lock.
///
/// # Errors
/// [`Failure::Untouched`] when it could not be confirmed, and waits on; [`Failure::Incomplete`] when it could
/// not be rolled back whole.
pub fn conclude(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    decision: Decision,
) -> Result<(), Failure> {
    match decision {
        Decision::Confirmed => dir.commit(record).map_err(Failure::Untouched),
        Decision::Cancelled | Decision::Expired => restore_pending(node, dir, record, || {
            let occasion = record.occasion.clone();
            // Who waits finds out without it.
            let _ = dir.tell(&Outcome { pending, occasion, decision, failure: None });
        }),
    }
}
