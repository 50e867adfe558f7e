//! Takes the lock when other commands have ended, and first rolls back a transaction that one of them left open.

use std::time::{Duration, Instant};

use super::{
    caller::{Caller, Event, Observer},
    decision::finish,
};
use crate::{
    apply::{self, Failure, Holder, Lock, StateDir},
    clock::{now, time},
    error::{Error, Kind},
    kernel::LiveNode,
    progress::Task,
    record::{Command, Decision, Record},
};

/// How often to check whether a signal has arrived, or whether another command has ended.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// The lock, held while no transaction is open.
pub(super) struct Turn {
    pub lock: Lock,
    /// Whether an interrupted transaction was undone.
    pub recovered: bool,
}

/// Returns how the lock describes its holder.
pub(super) fn lock_description(command: Command) -> String {
    format!("{command}, since {}", time(now()))
}

/// Takes the lock. A signal ends the wait.
///
/// # Errors
/// As [`StateDir::lock`]; [`Kind::Interrupted`] if a signal arrives first.
pub(super) fn take_lock(
    dir: &StateDir,
    timeout: Duration,
    description: &str,
    observer: &dyn Observer,
) -> Result<Lock, Error> {
    let interrupt = observer.interrupt()?;
    let _task = Task::begin("waiting for the lock");
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        match dir.lock(left.min(INTERVAL), description) {
            Err(error) if error.kind == Kind::Locked && !interrupt.is_raised() => {
                if begun.elapsed() >= timeout {
                    let holder = dir.holder();
                    return Err(holder.map_or(error, |holder| dir.lock_timeout(Some(&holder), timeout)));
                }
            }
            Err(error) if error.kind == Kind::Locked => {
                return Err(Error::new(Kind::Interrupted, "interrupted; nothing was changed"));
            }
            other => return other,
        }
    }
}

/// Reports which command holds the lock, if one does.
pub(super) fn waiting_for_lock(dir: &StateDir, observer: &dyn Observer) {
    if let Some(holder) = dir.holder() {
        observer.event(Event::WaitingForLock(&holder));
    }
}

/// Resumes a supervisor that was stopped: stopped, it can neither roll back in time nor release the lock.
pub(super) fn resume(holder: &Holder, observer: &dyn Observer) {
    if holder.stopped().is_some() && holder.resume() {
        observer.event(Event::SupervisorResumed(holder));
    }
}

/// Rolls back an interrupted transaction. Waits for a command that is still running. Returns `true` if there was one.
pub(super) fn recover<O>(dir: &StateDir, caller: &dyn Caller<O>) -> Result<bool, Failure> {
    match open_transaction(dir)? {
        None => Ok(false),
        Some(_) => Ok(take_turn(dir, caller, "rollback")?.recovered),
    }
}

/// Returns the open transaction. A user who may not read the journal may not apply either: the plan will say so.
fn open_transaction(dir: &StateDir) -> Result<Option<Record>, Error> {
    match dir.open_journal() {
        Err(error) if error.kind == Kind::Incomplete => Ok(None),
        other => other,
    }
}

/// Waits for other commands, takes the lock, and rolls back a transaction that one of them left open.
pub(super) fn take_turn<O>(
    dir: &StateDir,
    caller: &dyn Caller<O>,
    description: &str,
) -> Result<Turn, Failure> {
    if let Some((_, pending)) = dir.pending()?
        && let Some(holder) = dir.holder()
    {
        resume(&holder, caller);
        caller.event(Event::WaitingForDecision(&pending));
    }
    let lock = take_lock(dir, caller.lock_timeout(), description, caller)?;
    let recovered = undo_open(dir, caller)?;
    Ok(Turn { lock, recovered })
}

/// Undoes the open transaction, if there is one; its command is gone, since the caller holds the lock. Returns `true` if
/// that changed the node.
fn undo_open<O>(dir: &StateDir, caller: &dyn Caller<O>) -> Result<bool, Failure> {
    let Some(record) = open_transaction(dir)? else { return Ok(false) };
    if let Some((record, pending)) = dir.pending()?
        && dir.decision(&pending)? == Some(Decision::Confirmed)
    {
        // Its supervisor was killed before it could complete the confirmation.
        let outcome = finish(dir, &record, pending, Decision::Confirmed);
        if let Some(failure) = outcome.failure {
            return Err(failure.into());
        }
        caller.event(Event::ConfirmationCompleted(&record));
        return Ok(false);
    }
    caller.event(Event::InterruptedFound(&record));
    caller.approve_recovery(&record)?;
    caller.interrupt()?;
    match apply::recover(&mut LiveNode, dir) {
        Ok(_) => {
            caller.event(Event::Recovered { record: &record, left: None });
            Ok(true)
        }
        // Foreign objects that conflict stay; then no managed object is left. An operation that rolls forward does not need the
        // previous state.
        Err(Failure::Incomplete(incomplete)) if incomplete.only_conflicts || caller.rolls_forward() => {
            let left = apply::abandon(&mut LiveNode, dir, &record)?;
            caller.event(Event::Recovered { record: &record, left: Some(&left) });
            Ok(true)
        }
        Err(failure) => Err(failure),
    }
}
