//! `hostgw confirm`, `hostgw cancel`, and the wait of `apply --confirm` for them.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Failure, Verdict,
    arguments::{CancelOptions, ConfirmOptions},
    output::Output,
    session::state_dir,
    signals,
    supervisor::{Supervisor, waiting},
    transaction::{described, rolled_back, time, what_is_left},
    transaction_json::Confirmation,
};
use crate::{
    apply::{self, Decision, Occasion, Outcome, Pending, Record, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
};

/// An apply that is in force and waits, as the command that made it sees it.
pub(super) struct Held {
    pub dir: StateDir,
    pub pending: Pending,
    pub occasion: Occasion,
    pub supervisor: Supervisor,
}

/// Until whoever decided is done, and how often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Held {
    /// Waits until it is decided, with a countdown on a terminal.
    ///
    /// # Errors
    /// When it was rolled back, or should have been.
    pub(super) fn wait(self, output: &Output) -> Result<(), Failure> {
        let Self { dir, pending, occasion, supervisor } = self;
        let interrupt = signals::interrupt()?;
        output.say(&format!(
            "It is rolled back at {} unless hostgw confirm says that it shall stay; hostgw cancel rolls it back at \
             once.",
            time(pending.until)
        ));
        let mut cancelled = false;
        let mut tick = || {
            if interrupt.is_raised() && !cancelled {
                if signals::hung_up() {
                    signals::end_by_hang_up();
                }
                // The supervisor may have decided otherwise in this moment: its word counts.
                cancelled = true;
                if let Err(error) = dir.decide(&pending, Decision::Cancelled) {
                    output.error(&error);
                    output.say(&format!(
                        "It cannot be cancelled, and is rolled back at {}.",
                        time(pending.until)
                    ));
                }
            }
            let seconds = pending.remaining().as_millis().div_ceil(1000);
            output.progress(&format!("{seconds} s left for hostgw confirm"));
        };
        let outcome = supervisor.outcome(&mut tick);
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

/// What the supervisor of `pending` would do, if it was killed.
fn stand_in(
    dir: &StateDir,
    pending: &Pending,
    occasion: &Occasion,
    output: &Output,
) -> Result<Outcome, Failure> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let _lock = dir.lock(PATIENCE, &waiting(pending))?;
    let Some((record, _)) = dir.pending()?.filter(|(_, waiting)| waiting == pending) else {
        return Ok(ended(dir, pending, occasion)?);
    };
    output.warn("the supervisor was killed: this command waits in its place");
    let decision = apply::wait(dir, pending, &*signals::interrupt()?);
    Ok(finish(dir, &record, *pending, decision))
}

/// How a wait ended that is over.
fn ended(dir: &StateDir, pending: &Pending, occasion: &Occasion) -> Result<Outcome, Error> {
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

/// Carries out what was decided, and leaves word of it. The caller holds the lock.
pub(super) fn finish(dir: &StateDir, record: &Record, pending: Pending, decision: Decision) -> Outcome {
    let failure = apply::conclude(&mut LiveNode, dir, record, decision).err().map(|failure| match failure {
        apply::Failure::Untouched(error) | apply::Failure::RolledBack { cause: error } => error,
        apply::Failure::Incomplete(incomplete) => what_is_left(&incomplete),
    });
    let outcome = Outcome { pending, occasion: record.occasion.clone(), decision, failure };
    // Who waits finds out without it.
    let _ = dir.tell(&outcome);
    if decision != Decision::Confirmed {
        let _ = dir.end_wait();
    }
    outcome
}

/// Notes for programs which apply is pending.
fn note_pending(pending: &Pending, output: &Output) {
    output.record(|transaction| {
        transaction.transaction = Some(pending.id);
        transaction.confirmation = Some(Confirmation::of(pending, None));
    });
}

/// Notes for programs how a wait ended.
fn note_outcome(outcome: &Outcome, output: &Output) {
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

/// What the outcome is to the command that made the apply.
fn told(outcome: Outcome, output: &Output) -> Result<(), Failure> {
    let cause = not_kept(&outcome);
    let Outcome { decision, failure, .. } = outcome;
    match (failure, decision) {
        (Some(failure), Decision::Confirmed) => Err(failure.into()),
        (Some(failure), _) => {
            output.error(&cause);
            Err(failure.into())
        }
        (None, Decision::Confirmed) => {
            output.done("Confirmed: it stays.");
            Ok(())
        }
        (None, _) => Err(rolled_back(&cause, output)),
    }
}

/// Why an apply was not kept.
fn not_kept(outcome: &Outcome) -> Error {
    let described = described(&outcome.occasion);
    Error::new(
        Kind::Declined,
        match outcome.decision {
            Decision::Expired => format!("{described} was not confirmed by {}", time(outcome.pending.until)),
            Decision::Cancelled | Decision::Confirmed => format!("{described} was cancelled"),
        },
    )
}

/// `hostgw confirm`
pub(super) fn confirm(options: &ConfirmOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    let Some((record, pending)) = dir.pending()? else {
        wait_for_others(&dir, options.patience.lock_timeout)?;
        return nothing_to_confirm(&dir, output);
    };
    note_pending(&pending, output);
    let is_over = dir.decision(&pending)?.is_none() && pending.remaining().is_zero();
    if !is_over {
        dir.decide(&pending, Decision::Confirmed)?;
    }
    let outcome = settle(&dir, &record, pending, options.patience.lock_timeout)?.ok_or_else(|| {
        Error::new(
            Kind::Declined,
            format!(
                "the time to confirm {} was over at {}; it is still in force, for its supervisor was killed",
                described(&record.occasion),
                time(pending.until)
            ),
        )
        .with_hint("hostgw rollback undoes it")
    })?;
    note_outcome(&outcome, output);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) => {
            output.done(&format!("Confirmed {}: it stays.", described(&outcome.occasion)));
            Ok(0)
        }
        (None, _) => Err(rolled_back(&not_kept(&outcome), output)),
    }
}

/// `hostgw cancel`
pub(super) fn cancel(options: &CancelOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    let Some((record, pending)) = dir.pending()? else {
        wait_for_others(&dir, options.patience.lock_timeout)?;
        return nothing_to_cancel(&dir, output);
    };
    cancel_pending(&dir, &record, pending, options.patience.lock_timeout, output)
}

/// Rolls back an apply that waits, by its supervisor or, if that was killed, here.
pub(super) fn cancel_pending(
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    lock_timeout: Duration,
    output: &Output,
) -> Verdict {
    note_pending(&pending, output);
    dir.decide(&pending, Decision::Cancelled)?;
    let outcome = settle(dir, record, pending, lock_timeout)?
        .map_or_else(|| ended(dir, &pending, &record.occasion), Ok)?;
    note_outcome(&outcome, output);
    let described = described(&outcome.occasion);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) => Err(Error::unexpected(format!("{described} was confirmed before"))
            .with_hint("hostgw rollback undoes it")
            .into()),
        (None, _) => {
            output.done(&format!("Rolled back {described}, and verified: the node is as it was before."));
            Ok(0)
        }
    }
}

/// Waits until the supervisor has carried out what was decided, or does so in its place. None when nothing
/// was decided and the supervisor is gone.
fn settle(
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    lock_timeout: Duration,
) -> Result<Option<Outcome>, Error> {
    let begun = Instant::now();
    let is_this = |(_, waiting): &(Record, Pending)| *waiting == pending;
    loop {
        // What could not be kept waits on: it is tried again.
        let is_told = |outcome: &Outcome| {
            outcome.pending == pending
                && !(outcome.decision == Decision::Confirmed && outcome.failure.is_some())
        };
        if let Some(outcome) = dir.outcome()?.filter(is_told) {
            return Ok(Some(outcome));
        }
        if dir.pending()?.is_none_or(|waiting| !is_this(&waiting)) {
            return ended(dir, &pending, &record.occasion).map(Some);
        }
        match dir.lock(Duration::ZERO, "confirm") {
            Ok(_lock) => {
                // It may have ended since, and with it the lock.
                if dir.pending()?.is_none_or(|waiting| !is_this(&waiting))
                    || dir.outcome()?.is_some_and(|o| is_told(&o))
                {
                    continue;
                }
                return Ok(dir.decision(&pending)?.map(|decision| finish(dir, record, pending, decision)));
            }
            Err(error) if error.kind == Kind::Locked && begun.elapsed() < lock_timeout => thread::sleep(LOOK),
            Err(error) if error.kind == Kind::Locked => {
                let holder = dir.holder().unwrap_or_else(|| "another process".to_owned());
                let decided = dir.decision(&pending)?.map_or("undecided", Decision::name);
                return Err(apply::held_by(&holder, lock_timeout).with_details([format!(
                    "the apply is {decided}: that is on record, and whoever holds the lock carries it out"
                )]));
            }
            Err(error) => return Err(error),
        }
    }
}

fn nothing_to_confirm(dir: &StateDir, output: &Output) -> Verdict {
    match dir.outcome()? {
        Some(outcome) if outcome.decision != Decision::Confirmed => {
            let cause = not_kept(&outcome);
            let message = format!("{}, and was rolled back", cause.message);
            Err(Error { message: message.into(), ..cause }.into())
        }
        Some(outcome) => {
            let described = described(&outcome.occasion);
            output.result(&format!("Nothing to do: {described} is confirmed already.\n"))?;
            Ok(0)
        }
        // Who thinks that an apply is kept, and is wrong, shall hear of it.
        None => Err(Error::new(Kind::Declined, "no apply waits to be confirmed here")
            .with_details([format!("looked for in {}", dir.path().display())])
            .with_hint("is this the node, the network namespace and the HOSTGW_STATE_DIR of the apply?")
            .into()),
    }
}

fn nothing_to_cancel(dir: &StateDir, output: &Output) -> Verdict {
    let undone = dir.outcome()?.filter(|outcome| outcome.decision != Decision::Confirmed);
    output.result(&match undone {
        Some(outcome) => format!("Nothing to do: {} is rolled back already.\n", described(&outcome.occasion)),
        None => {
            "Nothing to do: no apply waits to be confirmed. hostgw rollback undoes the last one.\n".to_owned()
        }
    })?;
    Ok(0)
}

/// Lets another hostgw end that may be about to leave word of how a wait ended. A transaction that is open
/// is an error: it is not in force yet, or not any more.
fn wait_for_others(dir: &StateDir, lock_timeout: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    while dir.open_journal()?.is_none() {
        match dir.holder() {
            Some(_) if begun.elapsed() < lock_timeout => thread::sleep(LOOK),
            Some(holder) => return Err(apply::held_by(&holder, lock_timeout)),
            None => return Ok(()),
        }
    }
    let Some(open) = dir.open_journal()? else { return Ok(()) };
    let described = described(&open.occasion);
    Err(match dir.holder() {
        Some(holder) => Error::new(Kind::Locked, format!("{described} is still under way ({holder})"))
            .with_hint("it can be confirmed once it is in force and verified"),
        None => Error::unexpected(format!("{described} was interrupted, or not undone to its end"))
            .with_hint("hostgw rollback finishes undoing it"),
    })
}
