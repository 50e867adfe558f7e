//! The wait for the confirmation of an apply, in the command that made it.

use std::time::Duration;

use super::{
    caller::{Event, Observer},
    decision::finish,
    supervisor::{Supervisor, waiting},
};
use crate::{
    apply::{self, StateDir},
    error::Error,
    progress::{self, Task},
    record::{Decision, Outcome, Pending, TransactionMeta},
};

/// An apply that is in effect and must be confirmed, in the command that made it.
#[derive(Debug)]
pub struct PendingApply {
    pub(super) dir: StateDir,
    pub(super) pending: Pending,
    pub(super) metadata: TransactionMeta,
    pub(super) supervisor: Supervisor,
}

/// The end of a wait.
#[derive(Debug)]
pub struct WaitResult {
    /// The decision, and its result.
    pub outcome: Outcome,
    /// Whether a signal to this command arrived during the wait.
    pub was_interrupted: bool,
}

/// How long after the deadline to wait for a supervisor that has not decided. A stopped supervisor gets no grace
/// period.
const GRACE: Duration = Duration::from_secs(10);

impl PendingApply {
    /// The transaction and its deadline.
    #[must_use]
    pub const fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Waits until the apply is confirmed, canceled or expired. A signal cancels it.
    ///
    /// # Errors
    /// Returns an error if the supervisor is gone and this command cannot take over.
    pub fn wait(self, observer: &dyn Observer) -> Result<WaitResult, Error> {
        let Self { dir, pending, metadata, supervisor } = self;
        let interrupt = observer.interrupt()?;
        observer.event(Event::Pending(&pending));
        let mut canceled = false;
        let tick = || {
            if interrupt.is_raised() && !canceled {
                observer.event(Event::SignalWhilePending);
                // The supervisor may have decided otherwise at this very moment: its decision counts.
                canceled = true;
                if let Err(error) = dir.decide(&pending, Decision::Canceled) {
                    observer.event(Event::CannotCancel(&pending, &error));
                }
            }
            progress::rename(countdown(&pending));
        };
        let task = Task::begin(countdown(&pending));
        let outcome = supervisor.outcome(tick, |is_stopped| is_stuck(&dir, &pending, is_stopped));
        drop(task);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => take_over(&dir, &pending, &metadata, observer)?,
        };
        Ok(WaitResult { outcome, was_interrupted: interrupt.is_raised() })
    }
}

/// How much time is left, and for what.
fn countdown(pending: &Pending) -> String {
    let seconds = pending.remaining().as_millis().div_ceil(1000);
    format!("{seconds} s left to run hostgw confirm {}", pending.id)
}

/// Returns `true` if the supervisor should do something and does not.
fn is_stuck(dir: &StateDir, pending: &Pending, is_stopped: bool) -> bool {
    if !is_stopped && pending.overdue() <= GRACE {
        return false;
    }
    if dir.pending().ok().flatten().is_none_or(|(_, waiting)| waiting != *pending) {
        return false;
    }
    match dir.decision(pending) {
        Ok(Some(_)) => is_stopped,
        _ => (is_stopped && pending.remaining().is_zero()) || pending.overdue() > GRACE,
    }
}

/// Does the work of a supervisor that is gone.
fn take_over(
    dir: &StateDir,
    pending: &Pending,
    metadata: &TransactionMeta,
    observer: &dyn Observer,
) -> Result<Outcome, Error> {
    const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
    let _lock = dir.lock(LOCK_TIMEOUT, &waiting(pending))?;
    let Some((record, _)) = dir.pending()?.filter(|(_, waiting)| waiting == pending) else {
        return ended(dir, pending, metadata);
    };
    observer.event(Event::SupervisorLost);
    let decision = apply::wait(dir, pending, &*observer.interrupt()?);
    Ok(finish(dir, &record, *pending, decision))
}

/// Returns the outcome of a wait that is over.
pub(super) fn ended(dir: &StateDir, pending: &Pending, metadata: &TransactionMeta) -> Result<Outcome, Error> {
    if let Some(outcome) = dir.outcome()?.filter(|outcome| outcome.pending == *pending) {
        return Ok(outcome);
    }
    // The outcome is not recorded if the disk was full, or if another apply followed: infer it from the history.
    let is_in_effect =
        dir.entries()?.iter().any(|entry| entry.id == pending.id && entry.metadata == *metadata);
    let decision = match is_in_effect {
        true => Decision::Confirmed,
        false if pending.remaining().is_zero() => Decision::Expired,
        false => Decision::Canceled,
    };
    Ok(Outcome { pending: *pending, metadata: metadata.clone(), decision, failure: None })
}
