//! Confirms or cancels a pending apply from a process other than the one that made it.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    caller::{Event, Observer},
    decision::finish,
    pending::ended,
    turn::resume,
    wording::{described, named, named_by, not_kept},
};
use crate::{
    apply::{ActivityWatch, StateDir},
    clock::time,
    error::{Error, Kind},
    record::{Decision, Outcome, Pending, Record},
    text,
};

/// How often to check whether something ended, or became pending.
const INTERVAL: Duration = Duration::from_millis(50);

/// The end of a pending apply, as another command sees it.
#[derive(Debug)]
pub struct Settled {
    /// The decision, and its result.
    pub outcome: Outcome,
    /// Whether this call made or completed the decision.
    pub is_by_this_call: bool,
}

/// The result of [`cancel`].
#[derive(Debug)]
pub enum Cancellation {
    /// An apply was pending, and is no longer.
    Ended(Outcome),
    /// No apply is pending, because the last one was already rolled back.
    AlreadyUndone(Outcome),
    /// No apply is pending.
    NothingPending,
}

/// Confirms the pending apply, or the one with this `id`; waits up to `wait` for it to become pending.
///
/// # Errors
/// [`Kind::NotApplied`] if there is nothing to confirm, [`Kind::Locked`] if the decision does not take effect in time.
pub fn confirm(
    dir: &StateDir,
    id: Option<u64>,
    wait: Option<Duration>,
    lock_timeout: Duration,
    observer: &dyn Observer,
) -> Result<Settled, Error> {
    let Some((record, pending)) = find(dir, id, wait, lock_timeout)? else {
        return Err(nothing_to_confirm(dir, id, wait)?);
    };
    observer.event(Event::Pending(&pending));
    let is_over = dir.decision(&pending)?.is_none() && pending.remaining().is_zero();
    let is_decided_here = !is_over && dir.decide(&pending, Decision::Confirmed)?;
    let settled = settle(dir, &record, pending, lock_timeout, observer)?.ok_or_else(|| {
        Error::new(
            Kind::NotApplied,
            format!(
                "{} was not confirmed by {}, and has not been rolled back: its supervisor was killed",
                described(&record),
                time(pending.until)
            ),
        )
        .with_hint("run `hostgw rollback` to roll it back")
    })?;
    Ok(Settled { is_by_this_call: is_decided_here || settled.is_by_this_call, ..settled })
}

/// Finds the apply to confirm, and waits for it.
fn find(
    dir: &StateDir,
    id: Option<u64>,
    wait: Option<Duration>,
    lock_timeout: Duration,
) -> Result<Option<(Record, Pending)>, Error> {
    let begun = Instant::now();
    let is_requested = |pending: &Pending| id.is_none_or(|id| id == pending.id);
    loop {
        if let Some(found) = dir.pending()?.filter(|(_, pending)| is_requested(pending)) {
            return Ok(Some(found));
        }
        let Some(_) = wait.filter(|wait| begun.elapsed() < *wait) else { break };
        if let Some(id) = id
            && is_over(dir, id)?
        {
            return Ok(None);
        }
        thread::sleep(INTERVAL);
    }
    if dir.pending()?.is_none() {
        wait_for_others(dir, lock_timeout)?;
    }
    Ok(None)
}

/// Returns `true` if the transaction `id` can no longer become pending. The newest one still can: its number is
/// recorded before its journal.
fn is_over(dir: &StateDir, id: u64) -> Result<bool, Error> {
    let look = ActivityWatch::begin(dir)?;
    let is_open = dir.open_journal()?.is_some_and(|open| open.id == id);
    let next = dir.next_id()?;
    let is_newest = id.checked_add(1) == Some(next);
    Ok(!is_open && id < next && (!is_newest || look.was_exclusive()?))
}

/// Cancels the pending apply, or the one with this `id`.
///
/// # Errors
/// [`Kind::NotApplied`] if another apply is pending, [`Kind::Locked`] if the decision does not take effect in time.
pub fn cancel(
    dir: &StateDir,
    id: Option<u64>,
    lock_timeout: Duration,
    observer: &dyn Observer,
) -> Result<Cancellation, Error> {
    let (record, pending) = loop {
        if let Some(found) = dir.pending()? {
            break found;
        }
        let waited = wait_for_others(dir, lock_timeout);
        // It may have become pending in the meantime.
        if dir.pending()?.is_none() {
            waited?;
            return nothing_to_cancel(dir, id);
        }
    };
    match id {
        Some(id) if id != pending.id => Err(another_is_pending(id, &record, "cancel")),
        _ => cancel_pending(dir, &record, pending, lock_timeout, observer).map(Cancellation::Ended),
    }
}

/// Rolls back a pending apply, through its supervisor, or in this command if the supervisor was killed.
///
/// # Errors
/// As [`cancel`].
pub fn cancel_pending(
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    lock_timeout: Duration,
    observer: &dyn Observer,
) -> Result<Outcome, Error> {
    observer.event(Event::Pending(&pending));
    dir.decide(&pending, Decision::Canceled)?;
    match settle(dir, record, pending, lock_timeout, observer)? {
        Some(settled) => Ok(settled.outcome),
        None => ended(dir, &pending, &record.metadata),
    }
}

/// Waits until the supervisor has completed the decision, or does so if the supervisor is gone. Returns `None` if it is
/// gone and nothing was decided.
fn settle(
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    lock_timeout: Duration,
    observer: &dyn Observer,
) -> Result<Option<Settled>, Error> {
    let begun = Instant::now();
    let is_this = |(_, waiting): &(Record, Pending)| *waiting == pending;
    let by_supervisor = |outcome| Ok(Some(Settled { outcome, is_by_this_call: false }));
    let over = || -> Result<Option<Outcome>, Error> {
        if dir.pending()?.is_none_or(|waiting| !is_this(&waiting)) {
            return ended(dir, &pending, &record.metadata).map(Some);
        }
        // An apply that could not be confirmed remains pending, and the confirmation is retried.
        let is_final =
            |outcome: &Outcome| outcome.decision != Decision::Confirmed && outcome.failure.is_some();
        Ok(dir.outcome()?.filter(|outcome| outcome.pending == pending && is_final(outcome)))
    };
    loop {
        if let Some(outcome) = over()? {
            return by_supervisor(outcome);
        }
        match dir.lock(Duration::ZERO, "confirm") {
            Ok(_lock) => {
                // It may have ended just before, which released the lock.
                if let Some(outcome) = over()? {
                    return by_supervisor(outcome);
                }
                return Ok(dir.decision(&pending)?.map(|decision| Settled {
                    outcome: finish(dir, record, pending, decision),
                    is_by_this_call: true,
                }));
            }
            Err(error) if error.kind == Kind::Locked => {
                let holder = dir.holder();
                if begun.elapsed() >= lock_timeout {
                    let decided = dir.decision(&pending)?.map_or("undecided", Decision::name);
                    return Err(dir.lock_timeout(holder.as_ref(), lock_timeout).with_details([format!(
                        "the apply is {decided}: the decision is recorded, and the holder of the lock carries it out"
                    )]));
                }
                if let Some(holder) = holder {
                    resume(&holder, observer);
                }
                thread::sleep(INTERVAL);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns the reason that there is nothing to confirm.
fn nothing_to_confirm(dir: &StateDir, id: Option<u64>, wait: Option<Duration>) -> Result<Error, Error> {
    if let (Some(id), Some((record, _))) = (id, dir.pending()?) {
        return Ok(another_is_pending(id, &record, "confirm"));
    }
    let is_meant = |outcome: &Outcome| id.is_none_or(|id| id == outcome.pending.id);
    if let Some(outcome) = dir.outcome()?.filter(is_meant) {
        if outcome.decision == Decision::Confirmed {
            return Ok(already_confirmed(&named(&outcome)));
        }
        let cause = not_kept(&outcome);
        let message = format!("{}, and was rolled back", cause.message);
        return Ok(Error { message: message.into(), ..cause });
    }
    let what = match id {
        None => "no apply".to_owned(),
        Some(id) => {
            if let Some(entry) = dir.entries()?.into_iter().find(|entry| entry.id == id) {
                return Ok(already_confirmed(&named_by(id, &entry.metadata)));
            }
            if is_over(dir, id)? {
                return Ok(Error::new(Kind::NotApplied, format!("apply {id} was rolled back")));
            }
            format!("no apply {id}")
        }
    };
    let or_wait = if wait.is_some() { "" } else { ", or pass --wait 30s to wait for an apply" };
    // The user may believe that an apply was kept: name what was looked for.
    let message = match wait {
        Some(wait) => format!("{what} became pending within {}", text::in_units(wait)),
        None => format!("{what} is pending here"),
    };
    Ok(Error::new(Kind::NotApplied, message)
        .with_details([format!("searched {}", text::path(dir.path()))])
        .with_hint(format!(
            "check that this is the right node, network namespace and HOSTGW_STATE_DIR{or_wait}"
        )))
}

/// Returns the error that an apply was confirmed before.
#[must_use]
pub fn already_confirmed(named: &str) -> Error {
    Error::new(Kind::NotApplied, format!("nothing to confirm: {named} is already confirmed"))
        .with_hint("run `hostgw confirm --wait 30s` to wait for the next apply")
}

fn another_is_pending(id: u64, record: &Record, verb: &str) -> Error {
    let named = described(record);
    Error::new(Kind::NotApplied, format!("apply {id} is not pending: {named} is"))
        .with_hint(format!("run `hostgw {verb} {}` to act on that one", record.id))
}

fn nothing_to_cancel(dir: &StateDir, id: Option<u64>) -> Result<Cancellation, Error> {
    let is_meant = |outcome: &Outcome| id.is_none_or(|id| id == outcome.pending.id);
    let undone =
        dir.outcome()?.filter(|outcome| outcome.decision != Decision::Confirmed && is_meant(outcome));
    match (undone, id) {
        (Some(outcome), _) => Ok(Cancellation::AlreadyUndone(outcome)),
        (None, None) => Ok(Cancellation::NothingPending),
        (None, Some(id)) => Err(Error::new(Kind::NotApplied, format!("apply {id} is not pending here"))
            .with_hint("run `hostgw status --history` to list the applies in effect, or `hostgw rollback` to roll back the last one")),
    }
}

/// Waits for another command, which may be about to record an outcome.
///
/// # Errors
/// Returns an error if a transaction is open: it is not in effect yet, or no longer.
fn wait_for_others(dir: &StateDir, lock_timeout: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    while dir.open_journal()?.is_none() {
        match dir.holder() {
            Some(_) if begun.elapsed() < lock_timeout => thread::sleep(INTERVAL),
            Some(holder) => return Err(dir.lock_timeout(Some(&holder), lock_timeout)),
            None => return Ok(()),
        }
    }
    let Some(open) = dir.open_journal()? else { return Ok(()) };
    Err(match dir.holder() {
        Some(holder) => {
            let named = described(&open);
            Error::new(Kind::NotApplied, format!("{named} is not in effect yet ({holder})")).with_hint(
                format!("run `hostgw confirm --wait 30s {}` to confirm it as soon as it is", open.id),
            )
        }
        None => Error::new(
            Kind::NotApplied,
            format!("{} was interrupted or only partly rolled back", described(&open)),
        )
        .with_hint("run `hostgw rollback` to restore the previous state"),
    })
}
