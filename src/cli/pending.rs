//! The wait of `apply --confirm`, as the command that made the apply sees it.

use std::time::Duration;

use super::{
    Failure,
    clock::time,
    decision::finish,
    output::Output,
    signals,
    supervisor::{Supervisor, waiting},
    transaction_failure::rolled_back,
    transaction_json::Confirmation,
};
use crate::{
    apply::{self, Holder, StateDir},
    error::{Error, Kind},
    record::{Decision, Outcome, Pending, TransactionMeta},
};

/// An apply that is in force and waits, as the command that made it sees it.
pub(super) struct PendingApply {
    pub dir: StateDir,
    pub pending: Pending,
    pub occasion: TransactionMeta,
    pub supervisor: Supervisor,
}

/// How long after the deadline a supervisor that has not decided is given up. One that is stopped is at once.
const GRACE: Duration = Duration::from_secs(10);

impl PendingApply {
    /// Waits until it is decided, with a countdown on a terminal.
    ///
    /// # Errors
    /// When it was rolled back, or should have been.
    pub(super) fn wait(self, output: &Output) -> Result<(), Failure> {
        let Self { dir, pending, occasion, supervisor } = self;
        let interrupt = signals::interrupt()?;
        let (id, until) = (pending.id, time(pending.until));
        output.say(&format!(
            "Pending: apply {id} rolls back at {until} unless you run `hostgw confirm {id}`; `hostgw cancel {id}` \
             rolls it back now."
        ));
        let mut cancelled = false;
        let tick = || {
            if interrupt.is_raised() && !cancelled {
                if signals::hung_up() {
                    signals::end_by_hang_up();
                }
                // The supervisor may have decided otherwise in this moment: its word counts.
                cancelled = true;
                if let Err(error) = dir.decide(&pending, Decision::Cancelled) {
                    output.error(&error);
                    output.say(&format!("It cannot be canceled, and rolls back at {until}."));
                }
            }
            let seconds = pending.remaining().as_millis().div_ceil(1000);
            output.progress(&format!("{seconds} s left to run hostgw confirm {id}"));
        };
        let outcome = supervisor.outcome(tick, |is_stopped| is_stuck(&dir, &pending, is_stopped));
        output.progress("");
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => stand_in(&dir, &pending, &occasion, output)?,
        };
        note_outcome(&outcome, output);
        if outcome.decision == Decision::Cancelled && interrupt.is_raised() && outcome.failure.is_none() {
            let interrupted = Error::new(Kind::Interrupted, "interrupted");
            return Err(rolled_back(&interrupted, output));
        }
        told(outcome, output)
    }
}

/// Whether there is something to do for the supervisor that it does not do.
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

/// What the supervisor of `pending` would do, if it is gone.
fn stand_in(
    dir: &StateDir,
    pending: &Pending,
    occasion: &TransactionMeta,
    output: &Output,
) -> Result<Outcome, Failure> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let _lock = dir.lock(PATIENCE, &waiting(pending))?;
    let Some((record, _)) = dir.pending()?.filter(|(_, waiting)| waiting == pending) else {
        return Ok(ended(dir, pending, occasion)?);
    };
    output.warn("the supervisor was killed or stopped; this command takes over the wait");
    let decision = apply::wait(dir, pending, &*signals::interrupt()?);
    Ok(finish(dir, &record, *pending, decision))
}

/// Has a supervisor that was stopped go on: it neither rolls back in time nor lets go of the lock.
pub(super) fn resume(holder: &Holder, output: &Output) {
    if holder.stopped().is_some() && holder.resume() {
        output.warn(&format!("resumed {holder}"));
    }
}

/// Notes for programs which apply is pending.
pub(super) fn note_pending(pending: &Pending, output: &Output) {
    output.record(|transaction| {
        transaction.transaction = Some(pending.id);
        transaction.confirmation = Some(Confirmation::of(pending, None));
    });
}

/// Notes for programs how a wait ended.
pub(super) fn note_outcome(outcome: &Outcome, output: &Output) {
    output.record(|transaction| {
        let is_undone = outcome.decision != Decision::Confirmed;
        transaction.transaction = Some(outcome.pending.id);
        transaction.confirmation = Some(Confirmation::of(&outcome.pending, Some(outcome.decision)));
        transaction.rolled_back = is_undone && outcome.failure.is_none();
        if is_undone {
            transaction.done = None;
            transaction.verified = outcome.failure.is_none();
        }
    });
}

/// How a wait ended that is over.
pub(super) fn ended(dir: &StateDir, pending: &Pending, occasion: &TransactionMeta) -> Result<Outcome, Error> {
    if let Some(outcome) = dir.outcome()?.filter(|outcome| outcome.pending == *pending) {
        return Ok(outcome);
    }
    // No more is known when the disk was full, or another apply has come since.
    let stands = dir.entries()?.iter().any(|entry| entry.id == pending.id && entry.occasion == *occasion);
    let decision = match stands {
        true => Decision::Confirmed,
        false if pending.remaining().is_zero() => Decision::Expired,
        false => Decision::Cancelled,
    };
    Ok(Outcome { pending: *pending, occasion: occasion.clone(), decision, failure: None })
}

/// What the outcome is to the command that made the apply.
fn told(outcome: Outcome, output: &Output) -> Result<(), Failure> {
    let cause = not_kept(&outcome);
    let Outcome { pending, decision, failure, .. } = outcome;
    match (failure, decision) {
        (Some(failure), Decision::Confirmed) => Err(failure.into()),
        (Some(failure), _) => {
            output.error(&cause);
            Err(failure.into())
        }
        (None, Decision::Confirmed) => {
            output.done(&format!("Confirmed apply {}: it stays in force.", pending.id));
            Ok(())
        }
        (None, _) => Err(rolled_back(&cause, output)),
    }
}

/// Why an apply was not kept.
pub(super) fn not_kept(outcome: &Outcome) -> Error {
    let named = named(outcome);
    Error::new(
        Kind::Declined,
        match outcome.decision {
            Decision::Expired => format!("{named} was not confirmed by {}", time(outcome.pending.until)),
            Decision::Cancelled | Decision::Confirmed => format!("{named} was canceled"),
        },
    )
}

/// The apply of `outcome`, with its id: "apply 4 of 2026-01-31T12:00:00Z".
pub(super) fn named(outcome: &Outcome) -> String {
    named_by(outcome.pending.id, &outcome.occasion)
}

/// The same of its parts.
pub(super) fn named_by(id: u64, TransactionMeta { command, at, .. }: &TransactionMeta) -> String {
    format!("{command} {id} of {}", time(*at))
}
