//! `hostgw confirm` and `hostgw cancel`: the end of the wait of `apply --confirm`.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Verdict,
    arguments::{CancelOptions, ConfirmOptions},
    clock::time,
    decision::finish,
    node_records::state_dir,
    output::Output,
    pending::{ended, named, named_by, not_kept, note_outcome, note_pending, resume},
    transaction_failure::{described, rolled_back},
};
use crate::{
    apply::{self, Look, StateDir},
    error::{Error, Kind},
    record::{Decision, Outcome, Pending, Record},
    text,
};

/// How often it is looked whether something has come to its end, or begun to wait.
const LOOK: Duration = Duration::from_millis(50);

/// `hostgw confirm`: succeeds only when this very call confirmed an apply.
pub(super) fn confirm(options: &ConfirmOptions, output: &Output) -> Verdict {
    let (dir, lock_timeout) = (state_dir()?, options.lock.lock_timeout);
    let Some((record, pending)) = find(&dir, options)? else {
        return Err(nothing_to_confirm(&dir, options)?.into());
    };
    note_pending(&pending, output);
    let is_over = dir.decision(&pending)?.is_none() && pending.remaining().is_zero();
    let is_ours = !is_over && dir.decide(&pending, Decision::Confirmed)?;
    let named = named_by(pending.id, &record.occasion);
    let settled = settle(&dir, &record, pending, lock_timeout, output)?.ok_or_else(|| {
        Error::new(
            Kind::Declined,
            format!(
                "{named} was not confirmed by {} and is not rolled back: its supervisor was killed",
                time(pending.until)
            ),
        )
        .with_hint("run `hostgw rollback` to undo it")
    })?;
    let Settled { outcome, is_carried_out_here } = settled;
    note_outcome(&outcome, output);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) if is_ours || is_carried_out_here => {
            output.done(&format!("Confirmed {named}: it stays in force."));
            Ok(0)
        }
        (None, Decision::Confirmed) => Err(confirmed_already(&named).into()),
        (None, _) => Err(rolled_back(&not_kept(&outcome), output)),
    }
}

/// The apply to confirm, or to wait for with `--wait`.
fn find(dir: &StateDir, options: &ConfirmOptions) -> Result<Option<(Record, Pending)>, Error> {
    let begun = Instant::now();
    let is_asked_for = |pending: &Pending| options.id.is_none_or(|id| id == pending.id);
    loop {
        if let Some(found) = dir.pending()?.filter(|(_, pending)| is_asked_for(pending)) {
            return Ok(Some(found));
        }
        let Some(_) = options.wait.filter(|wait| begun.elapsed() < *wait) else { break };
        if let Some(id) = options.id
            && is_over(dir, id)?
        {
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
    if dir.pending()?.is_none() {
        wait_for_others(dir, options.lock.lock_timeout)?;
    }
    Ok(None)
}

/// Whether the transaction `id` is one that will not wait any more. The newest may be about to begin: its number is on
/// record before its journal.
fn is_over(dir: &StateDir, id: u64) -> Result<bool, Error> {
    let look = Look::begin(dir)?;
    let is_open = dir.open_journal()?.is_some_and(|open| open.id == id);
    let next = dir.next_id()?;
    let is_newest = id.checked_add(1) == Some(next);
    Ok(!is_open && id < next && (!is_newest || look.was_alone()?))
}

/// `hostgw cancel`
pub(super) fn cancel(options: &CancelOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    let lock_timeout = options.lock.lock_timeout;
    let (record, pending) = loop {
        if let Some(found) = dir.pending()? {
            break found;
        }
        let waited = wait_for_others(&dir, lock_timeout);
        // It may have become pending in the meantime.
        if dir.pending()?.is_none() {
            waited?;
            return nothing_to_cancel(&dir, options.id, output);
        }
    };
    match options.id {
        Some(id) if id != pending.id => Err(another_is_pending(id, &record, "cancel").into()),
        _ => cancel_pending(&dir, &record, pending, lock_timeout, output),
    }
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
    let outcome = match settle(dir, record, pending, lock_timeout, output)? {
        Some(settled) => settled.outcome,
        None => ended(dir, &pending, &record.occasion)?,
    };
    note_outcome(&outcome, output);
    let named = named(&outcome);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) => Err(Error::unexpected(format!("{named} was already confirmed"))
            .with_hint("run `hostgw rollback` to undo it")
            .into()),
        (None, _) => {
            output.done(&format!("Rolled back {named} and verified: the node is in its previous state."));
            Ok(0)
        }
    }
}

/// The end of a wait, as a command sees it that did not make the apply.
struct Settled {
    outcome: Outcome,
    /// By this command, not by the supervisor.
    is_carried_out_here: bool,
}

/// Waits until the supervisor has carried out what was decided, or does so in its place. None when nothing
/// was decided and the supervisor is gone.
fn settle(
    dir: &StateDir,
    record: &Record,
    pending: Pending,
    lock_timeout: Duration,
    output: &Output,
) -> Result<Option<Settled>, Error> {
    let begun = Instant::now();
    let is_this = |(_, waiting): &(Record, Pending)| *waiting == pending;
    let by_others = |outcome| Ok(Some(Settled { outcome, is_carried_out_here: false }));
    let over = || -> Result<Option<Outcome>, Error> {
        if dir.pending()?.is_none_or(|waiting| !is_this(&waiting)) {
            return ended(dir, &pending, &record.occasion).map(Some);
        }
        // What could not be kept waits on: it is tried again.
        let is_final =
            |outcome: &Outcome| outcome.decision != Decision::Confirmed && outcome.failure.is_some();
        Ok(dir.outcome()?.filter(|outcome| outcome.pending == pending && is_final(outcome)))
    };
    loop {
        if let Some(outcome) = over()? {
            return by_others(outcome);
        }
        match dir.lock(Duration::ZERO, "confirm") {
            Ok(_lock) => {
                // It may have ended since, and with it the lock.
                if let Some(outcome) = over()? {
                    return by_others(outcome);
                }
                return Ok(dir.decision(&pending)?.map(|decision| Settled {
                    outcome: finish(dir, record, pending, decision),
                    is_carried_out_here: true,
                }));
            }
            Err(error) if error.kind == Kind::Locked => {
                let holder = dir.holder();
                if begun.elapsed() >= lock_timeout {
                    let decided = dir.decision(&pending)?.map_or("undecided", Decision::name);
                    return Err(apply::held_by(holder.as_ref(), lock_timeout).with_details([format!(
                        "the apply is {decided}: the decision is recorded, and the holder of the lock carries it out"
                    )]));
                }
                if let Some(holder) = holder {
                    resume(&holder, output);
                }
                thread::sleep(LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Why there is nothing to confirm.
fn nothing_to_confirm(dir: &StateDir, options: &ConfirmOptions) -> Result<Error, Error> {
    if let (Some(id), Some((record, _))) = (options.id, dir.pending()?) {
        return Ok(another_is_pending(id, &record, "confirm"));
    }
    let is_meant = |outcome: &Outcome| options.id.is_none_or(|id| id == outcome.pending.id);
    if let Some(outcome) = dir.outcome()?.filter(is_meant) {
        if outcome.decision == Decision::Confirmed {
            return Ok(confirmed_already(&named(&outcome)));
        }
        let cause = not_kept(&outcome);
        let message = format!("{}, and was rolled back", cause.message);
        return Ok(Error { message: message.into(), ..cause });
    }
    let what = match options.id {
        None => "no apply".to_owned(),
        Some(id) => {
            if let Some(entry) = dir.entries()?.into_iter().find(|entry| entry.id == id) {
                return Ok(confirmed_already(&named_by(id, &entry.occasion)));
            }
            if is_over(dir, id)? {
                return Ok(Error::new(Kind::Declined, format!("apply {id} was rolled back")));
            }
            format!("no apply {id}")
        }
    };
    // A user who wrongly believes that an apply is kept must be told.
    let message = match options.wait {
        Some(wait) => format!("{what} became pending within {}", humantime::format_duration(wait)),
        None => format!("{what} is pending here"),
    };
    Ok(Error::new(Kind::Declined, message)
        .with_details([format!("looked for in {}", text::path(dir.path()))])
        .with_hint(
            "check that this is the right node, network namespace and HOSTGW_STATE_DIR, or wait for an apply with --wait 30s",
        ))
}

fn confirmed_already(named: &str) -> Error {
    Error::new(Kind::Declined, format!("nothing to confirm: {named} is already confirmed and in force"))
        .with_hint("run `hostgw confirm --wait 30s` to wait for the next apply")
}

fn another_is_pending(id: u64, record: &Record, verb: &str) -> Error {
    let named = named_by(record.id, &record.occasion);
    Error::new(Kind::Declined, format!("apply {id} is not pending: {named} is"))
        .with_hint(format!("`hostgw {verb} {}` to act on that one", record.id))
}

fn nothing_to_cancel(dir: &StateDir, id: Option<u64>, output: &Output) -> Verdict {
    let is_meant = |outcome: &Outcome| id.is_none_or(|id| id == outcome.pending.id);
    let undone =
        dir.outcome()?.filter(|outcome| outcome.decision != Decision::Confirmed && is_meant(outcome));
    if let Some(outcome) = undone {
        output.result(&format!("Nothing to do: {} is already rolled back.\n", named(&outcome)))?;
        return Ok(0);
    }
    if let Some(id) = id {
        return Err(Error::new(Kind::Declined, format!("apply {id} is not pending here"))
            .with_hint("run `hostgw status --history` to list the applies in force, or `hostgw rollback` to undo the last one")
            .into());
    }
    output.result("Nothing to do: no apply is pending. Run `hostgw rollback` to undo the last one.\n")?;
    Ok(0)
}

/// Lets another hostgw end that may be about to leave word of how a wait ended. A transaction that is open
/// is an error: it is not in force yet, or not any more.
fn wait_for_others(dir: &StateDir, lock_timeout: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    while dir.open_journal()?.is_none() {
        match dir.holder() {
            Some(_) if begun.elapsed() < lock_timeout => thread::sleep(LOOK),
            Some(holder) => return Err(apply::held_by(Some(&holder), lock_timeout)),
            None => return Ok(()),
        }
    }
    let Some(open) = dir.open_journal()? else { return Ok(()) };
    Err(match dir.holder() {
        Some(holder) => {
            let named = named_by(open.id, &open.occasion);
            Error::new(Kind::Declined, format!("{named} is not in force yet ({holder})")).with_hint(format!(
                "`hostgw confirm --wait 30s {}` to wait until it is, and confirm it",
                open.id
            ))
        }
        None => Error::new(
            Kind::Declined,
            format!("{} was interrupted or only partly rolled back", described(&open.occasion)),
        )
        .with_hint("run `hostgw rollback` to finish"),
    })
}
