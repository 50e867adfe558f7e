//! The transaction that all verbs that change a node share.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Failure, Verdict,
    arguments::Consent,
    changed,
    clock::{now, time},
    decision::finish,
    output::{Answer, Output},
    pending::{PendingApply, resume},
    plan::warn_of_open,
    signals, ssh,
    supervisor::Supervisor,
    transaction_failure::{described, report},
    transaction_json::Confirmation,
};
use crate::{
    apply::{self, BaselineCheck, Lock, Look, Request, StateDir},
    config::Document,
    error::{Error, Kind},
    kernel::LiveNode,
    model::Check,
    plan::{self, Plan, Prepared, Totals},
    record::{Command, Decision, Pending, Record, TransactionMeta},
    render::Report,
    text::count,
};

/// The goal of a verb that changes the node.
pub(super) trait Operation {
    /// Observes the node and plans.
    fn look(&mut self) -> Result<(), Failure>;
    /// Checks everything that must hold before the first write.
    fn check(&self) -> Result<(), Error>;
    fn dir(&self) -> &StateDir;
    fn command(&self) -> Command;
    fn prepared(&self) -> &Prepared;
    /// The checks to run before and after the change.
    fn checks(&self) -> &[Check] {
        &[]
    }
    /// The plan with its reasons, warnings and source lines.
    fn report(&self) -> Report;
    /// Whether it can stay pending until it is confirmed.
    fn can_wait(&self) -> bool;
    /// The question to ask before the commit.
    fn question(&self) -> String;
    /// The metadata that the history records.
    fn occasion(&self) -> TransactionMeta;
    /// The configuration to keep with the record.
    fn configuration(&self) -> Option<&Document> {
        None
    }
}

/// A plan that was committed.
pub(super) struct Done {
    pub totals: Totals,
    /// The pending apply, if it must be confirmed.
    pub held: Option<PendingApply>,
}

/// The result of a command that changes the node.
pub(super) struct CarriedOut {
    /// `None` if there was nothing to do.
    pub done: Option<Done>,
    /// Whether it first rolled back an interrupted transaction.
    pub recovered: bool,
}

/// Looks and shows what would change, without a lock and without a write; the exit codes are those of `plan`.
pub(super) fn preview(
    operation: &mut dyn Operation,
    detailed_exitcode: bool,
    timeout: Duration,
    output: &Output,
) -> Verdict {
    output.record(|transaction| transaction.dry_run = true);
    let dir = operation.dir().clone();
    let checked = when_quiet(&dir, timeout, || {
        operation.look()?;
        Ok(operation.check())
    })?;
    warn_of_open(&dir, output);
    output.plan(&operation.report(), true)?;
    checked?;
    Ok(if operation.prepared().plan.is_empty() { 0 } else { changed(detailed_exitcode) })
}

/// Looks without the lock. What is refused because of another command's half-done transaction is looked at again when
/// that command is done.
///
/// # Errors
/// What `look` fails with, and [`Kind::Locked`] when others are at work until `timeout` is over.
pub(super) fn when_quiet<T>(
    dir: &StateDir,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Result<T, Error>, Failure>,
) -> Result<Result<T, Error>, Failure> {
    let begun = Instant::now();
    loop {
        let this = Look::begin(dir)?;
        let seen = look();
        if matches!(seen, Ok(Ok(_))) || this.was_quiet()? {
            return seen;
        }
        loop {
            if begun.elapsed() >= timeout {
                return Err(apply::held_by(dir.holder().as_ref(), timeout).into());
            }
            if !Look::is_busy(dir)? {
                break;
            }
            thread::sleep(INTERVAL);
        }
    }
}

/// Looks, shows, asks, locks, looks again, commits, verifies. With `hold`, what was done waits for its
/// confirmation that long.
pub(super) fn carry_out(
    operation: &mut dyn Operation,
    consent: &Consent,
    mut hold: Option<Duration>,
    output: &Output,
) -> Result<CarriedOut, Failure> {
    let dir = operation.dir().clone();
    let name = description(operation.command());
    let mut recovered = recover(&dir, consent, output)?;
    let look = Look::begin(&dir)?;
    let mut checked = look_and_check(operation);
    let mut lock = None;
    if !look.was_alone()? {
        // Another command's half of a transaction is nothing to decide by.
        if dir.pending()?.is_none() {
            warn_of_wait(&dir, output);
        }
        let turn = take_turn(&dir, consent, &name, output)?;
        recovered |= turn.recovered;
        lock = Some(turn.lock);
        checked = look_and_check(operation);
    }
    checked?;
    let has_work = !operation.prepared().plan.is_empty();
    output.plan(&operation.report(), has_work && !consent.yes)?;
    if !has_work && operation.prepared().desired.released.is_empty() {
        return Ok(CarriedOut { done: None, recovered });
    }
    if has_work {
        // Nobody has to wait for an answer.
        lock = lock.filter(|_| consent.yes);
        hold = agreed(operation, consent, hold, output)?;
    }
    let lock = match lock {
        Some(lock) => lock,
        None => {
            let turn = take_turn(&dir, consent, &name, output)?;
            recovered |= turn.recovered;
            turn.lock
        }
    };
    let done = carry_out_locked(operation, consent, hold, &lock, output)?;
    Ok(CarriedOut { done, recovered })
}

fn look_and_check(operation: &mut dyn Operation) -> Result<(), Failure> {
    operation.look()?;
    Ok(operation.check()?)
}

/// Looks again, commits, verifies: what was shown, or what has become of it since.
fn carry_out_locked(
    operation: &mut dyn Operation,
    consent: &Consent,
    hold: Option<Duration>,
    lock: &Lock,
    output: &Output,
) -> Result<Option<Done>, Failure> {
    let has_work = !operation.prepared().plan.is_empty();
    let mut shown = operation.prepared().plan.clone();
    let occasion = operation.occasion();
    // Before the last look: what is seen there must not grow old while the checks wait for answers.
    let counted = check_before(operation.checks(), output)?;
    for attempt in 1.. {
        if !look_again(operation, &shown, consent, output)? {
            if has_work {
                output.done("Nothing to do: another program already made the changes.");
            }
            return Ok(None);
        }
        shown.clone_from(&operation.prepared().plan);
        let id = operation.dir().next_id()?;
        let result = commit(operation, &occasion, &counted, hold, lock);
        if !matches!(result, Err(apply::Failure::Untouched(_))) {
            output.record(|transaction| transaction.transaction = Some(id));
        }
        match result {
            Ok(Committed { totals, supervisor, pending }) => {
                output.record(|transaction| {
                    transaction.done = Some(totals.into());
                    transaction.verified = true;
                    transaction.confirmation =
                        pending.as_ref().map(|pending| Confirmation::of(pending, None));
                });
                if !counted.is_empty() {
                    let checks = count(counted.len(), "check");
                    output.done(&format!("{checks} passed before and after the change."));
                }
                let held = supervisor.zip(pending).map(|(supervisor, pending)| PendingApply {
                    dir: operation.dir().clone(),
                    pending,
                    occasion,
                    supervisor,
                });
                return Ok(Some(Done { totals, held }));
            }
            // Another program was faster than the commit.
            Err(apply::Failure::Untouched(error)) if error.kind == Kind::Stale && attempt < MAX_ATTEMPTS => {}
            Err(failure) => return Err(report(failure, output)),
        }
    }
    Ok(None)
}

/// How often to check whether a signal came, or whether another command is done.
const INTERVAL: Duration = Duration::from_millis(100);

/// Takes the lock; a signal ends the wait.
///
/// # Errors
/// As [`StateDir::lock`]; [`Kind::Interrupted`] when a signal comes first.
pub(super) fn take_lock(dir: &StateDir, timeout: Duration, description: &str) -> Result<Lock, Error> {
    let interrupt = signals::interrupt()?;
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        match dir.lock(left.min(INTERVAL), description) {
            Err(error) if error.kind == Kind::Locked && !interrupt.is_raised() => {
                if begun.elapsed() >= timeout {
                    let holder = dir.holder();
                    return Err(holder.map_or(error, |holder| apply::held_by(Some(&holder), timeout)));
                }
            }
            Err(error) if error.kind == Kind::Locked => {
                return Err(Error::new(Kind::Interrupted, "interrupted; nothing was changed"));
            }
            other => return other,
        }
    }
}

/// How often a plan is made and committed while other programs change what it rests on.
const MAX_ATTEMPTS: usize = 5;

/// Looks once more, under the lock; `false` when nothing is left to do.
///
/// # Errors
/// What forbids the plan now, and that it is no longer the one that was agreed to.
fn look_again(
    operation: &mut dyn Operation,
    shown: &Plan,
    consent: &Consent,
    output: &Output,
) -> Result<bool, Failure> {
    let show = |operation: &dyn Operation| output.plan(&operation.report(), false);
    operation.look()?;
    operation.check()?;
    if operation.prepared().plan.is_empty() {
        apply::settle(operation.dir(), &operation.prepared().desired)?;
        return Ok(false);
    }
    if operation.prepared().plan != *shown {
        if !consent.yes {
            show(operation)?;
            return Err(Error::new(
                Kind::Stale,
                "the live state changed after the plan was shown; nothing was changed",
            )
            .with_hint("review the new plan above, then run the command again")
            .into());
        }
        output.warn("the live state changed; the new plan is:");
        show(operation)?;
    }
    Ok(true)
}

/// A plan that was committed, and what watches it when it waits for its confirmation.
struct Committed {
    totals: Totals,
    supervisor: Option<Supervisor>,
    pending: Option<Pending>,
}

fn commit(
    operation: &dyn Operation,
    occasion: &TransactionMeta,
    counted: &[BaselineCheck],
    hold: Option<Duration>,
    lock: &Lock,
) -> Result<Committed, apply::Failure> {
    let interrupt = signals::interrupt().map_err(apply::Failure::Untouched)?;
    let request = Request {
        hold,
        checks: counted,
        configuration: operation.configuration(),
        ..Request::new(operation.prepared(), occasion)
    };
    let totals = request.plan.totals();
    let supervisor = hold.map(|_| Supervisor::start(operation.dir(), lock)).transpose();
    let mut supervisor = supervisor.map_err(apply::Failure::Untouched)?;
    match apply::run(&mut LiveNode, operation.dir(), &request, &interrupt) {
        Ok(pending) => {
            if let Some(supervisor) = &mut supervisor {
                supervisor.watch();
            }
            Ok(Committed { totals, supervisor, pending })
        }
        Err(failure) => {
            if let Some(supervisor) = supervisor {
                supervisor.dismiss();
            }
            Err(failure)
        }
    }
}

/// How long what is done waits for its confirmation, after whoever is there agreed to the plan. Where it
/// changes the way to them, they are offered to have it rolled back by itself.
fn agreed(
    operation: &dyn Operation,
    consent: &Consent,
    hold: Option<Duration>,
    output: &Output,
) -> Result<Option<Duration>, Failure> {
    /// What the prompt offers, as in product.md.
    const OFFERED: Duration = Duration::from_secs(90);
    let offered = humantime::format_duration(OFFERED);
    let Prepared { plan, observed, .. } = operation.prepared();
    let cut_off = match hold {
        None => ssh::client().filter(|client| plan::lookup_change(plan, observed, *client).is_some()),
        Some(_) => None,
    };
    if let Some(client) = cut_off {
        output.warn(&format!("this plan changes the route to {client}, which your SSH session comes from"));
    }
    if consent.yes {
        if cut_off.is_some() && operation.can_wait() {
            output.say(&format!("pass --confirm {offered} to roll back automatically unless you confirm"));
        }
        return Ok(hold);
    }
    if let Some(time) = hold {
        let time = humantime::format_duration(time);
        output.ask(&format!("{} It rolls back after {time} unless confirmed.", operation.question()))?;
    } else if cut_off.is_some() && operation.can_wait() {
        let answer = output.choose(
            &format!("{} Answer c to roll back after {offered} unless you confirm.", operation.question()),
            'c',
        )?;
        return Ok((answer == Answer::Other).then_some(OFFERED));
    } else {
        output.ask(&operation.question())?;
    }
    Ok(hold)
}

/// Tries the checks before the change, and warns of those that do not count.
fn check_before(checks: &[Check], output: &Output) -> Result<Vec<BaselineCheck>, Failure> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let interrupt = signals::interrupt()?;
    let before = apply::check_before(&mut LiveNode, checks, &interrupt)?;
    for (check, why) in &before.failed {
        output.warn(&format!("check {check} was failing before the change ({why}); ignoring it"));
    }
    Ok(before.counted)
}

/// Undoes what an interrupted command left half done, if one did. One that is still at work is waited for.
/// Returns whether it undid anything.
fn recover(dir: &StateDir, consent: &Consent, output: &Output) -> Result<bool, Failure> {
    match open_transaction(dir)? {
        None => Ok(false),
        Some(_) => Ok(take_turn(dir, consent, "rollback", output)?.recovered),
    }
}

/// Says which command this one is waiting for.
pub(super) fn warn_of_wait(dir: &StateDir, output: &Output) {
    if let Some(holder) = dir.holder() {
        output.warn(&format!("another hostgw command is running ({holder}); waiting"));
    }
}

/// The open transaction. Who may not read the journal may not apply either: the plan will say so.
fn open_transaction(dir: &StateDir) -> Result<Option<Record>, Error> {
    match dir.open_journal() {
        Err(error) if error.kind == Kind::Incomplete => Ok(None),
        other => other,
    }
}

/// The lock, while no transaction is open.
struct Turn {
    lock: Lock,
    /// An interrupted transaction was undone.
    recovered: bool,
}

/// Waits for other commands to end, and undoes what one of them left half done.
fn take_turn(dir: &StateDir, consent: &Consent, name: &str, output: &Output) -> Result<Turn, Failure> {
    if let Some((_, pending)) = dir.pending()?
        && let Some(holder) = dir.holder()
    {
        resume(&holder, output);
        let (id, until) = (pending.id, time(pending.until));
        output.warn(&format!(
            "apply {id} is pending until {until}; waiting: run `hostgw confirm {id}` to keep it, or `hostgw cancel {id}` to roll it back"
        ));
    }
    let lock = take_lock(dir, consent.lock.lock_timeout, name)?;
    let recovered = undo_open(dir, consent, output)?;
    Ok(Turn { lock, recovered })
}

/// Undoes the open transaction, if there is one; its command is gone. The caller holds the lock. Returns whether it
/// changed the node.
fn undo_open(dir: &StateDir, consent: &Consent, output: &Output) -> Result<bool, Failure> {
    let Some(record) = open_transaction(dir)? else { return Ok(false) };
    if let Some((record, pending)) = dir.pending()?
        && dir.decision(&pending)? == Some(Decision::Confirmed)
    {
        // Its supervisor was killed before it could carry that out.
        let outcome = finish(dir, &record, pending, Decision::Confirmed);
        if let Some(failure) = outcome.failure {
            return Err(failure.into());
        }
        output.done(&format!("{} was confirmed and stays in force.", described(&record.occasion)));
        return Ok(false);
    }
    output.warn(&format!("{} was interrupted or only partly rolled back", described(&record.occasion)));
    if !consent.yes {
        output.ask("Undo it first?")?;
    }
    signals::interrupt()?;
    match apply::recover(&mut LiveNode, dir) {
        Ok(_) => {
            output.record(|transaction| transaction.recovered = Some(record.id));
            output.done(&format!("Undid {}, and verified.", described(&record.occasion)));
            Ok(true)
        }
        Err(failure) => {
            // Conflicting foreign objects stay; nothing managed is left then.
            if !matches!(&failure, apply::Failure::Incomplete(incomplete) if incomplete.is_foreign) {
                return Err(report(failure, output));
            }
            let left =
                apply::abandon(&mut LiveNode, dir, &record).map_err(|failure| report(failure, output))?;
            output.record(|transaction| transaction.recovered = Some(record.id));
            output.done(&format!("Undid {}, except for foreign changes.", described(&record.occasion)));
            left.iter().for_each(|left| output.warn(left));
            Ok(true)
        }
    }
}

/// What the lock says of its holder.
fn description(command: Command) -> String {
    format!("{command}, since {}", time(now()))
}
