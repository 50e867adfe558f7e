//! `hostgw rollback`

use super::{
    Verdict,
    arguments::RollbackOptions,
    changed,
    clock::time,
    confirm::cancel_pending,
    node_records::state_dir,
    output::Output,
    pending::named_by,
    persisted,
    session::{check_complete, check_conflicts},
    signals,
    transaction::{take_lock, warn_of_wait, when_quiet},
    transaction_failure::{described, report},
};
use crate::{
    apply::{self, Look, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    plan::{Action, ForeignPolicy, Observe, Plan, Reason, Scope, TransactionProgress},
    record::Record,
    render::Report,
    state::NatTable,
    text::{self, Untrusted, count, list},
};

/// Undoes the newest transaction: the interrupted one, else the last that was committed.
pub(super) fn run(options: &RollbackOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    if options.preview.dry_run {
        return preview(&dir, options, output);
    }
    if let Some((record, pending)) = dir.pending()?.filter(|_| dir.holder().is_some()) {
        let (id, until) = (pending.id, time(pending.until));
        output.say(&format!("Pending: apply {id} can be confirmed until {until}."));
        if !options.consent.yes {
            output.ask(&format!("Roll back {}?", named_by(id, &record.occasion)))?;
        }
        return cancel_pending(&dir, &record, pending, options.consent.lock.lock_timeout, output)
            .map(|_| changed(options.preview.detailed_exitcode));
    }
    let timeout = options.consent.lock.lock_timeout;
    let look = Look::begin(&dir)?;
    let mut found = Undo::find(&dir, options);
    let mut lock = None;
    if !look.was_alone()? {
        // Another command's half of a transaction is nothing to decide by.
        warn_of_wait(&dir, output);
        lock = Some(take_lock(&dir, timeout, "rollback")?);
        found = Undo::find(&dir, options);
    }
    let Some(shown) = found? else { return nothing_on_record(output) };
    let named = described(&shown.record.occasion);
    output.record(|transaction| transaction.transaction = Some(shown.record.id));
    output.plan(&told(&shown.back), !options.consent.yes)?;
    if !options.consent.yes {
        // Nobody has to wait for an answer.
        lock = None;
        output.ask(&format!("Undo {named}?"))?;
    }
    let _lock = match lock {
        Some(lock) => lock,
        None => take_lock(&dir, timeout, "rollback")?,
    };
    signals::interrupt()?;
    match newest(&dir)? {
        Some((record, _)) if record.id == shown.record.id => {}
        Some((newer, _)) if newer.id > shown.record.id => {
            return Err(Error::new(
                Kind::Stale,
                format!(
                    "{} is more recent and must be undone first; nothing was changed",
                    described(&newer.occasion)
                ),
            )
            .with_hint("run `hostgw rollback` again to undo that one")
            .into());
        }
        _ => {
            output.done(&format!("Nothing to do: another command already undid {named} meanwhile."));
            return Ok(0);
        }
    }
    // Only now, when nothing forbids it, is a committed transaction opened again.
    let Some(Undo { record, is_open, back: now }) = Undo::find(&dir, options)? else {
        return nothing_on_record(output);
    };
    if now != shown.back {
        if !options.consent.yes {
            return Err(Error::new(
                Kind::Stale,
                "the live state changed after the plan was shown; nothing was changed",
            )
            .with_hint("run `hostgw rollback` again to review the new plan")
            .into());
        }
        output.warn("the live state changed; the new plan is:");
        output.plan(&told(&now), false)?;
    }
    let (policy, progress) = (policy(options), progress(&dir, &record, is_open)?);
    if !is_open {
        dir.reopen(&record)?;
    }
    match apply::restore(&mut LiveNode, &dir, &record, policy, progress, Some(&now)) {
        Ok(()) => {
            output.record(|transaction| {
                transaction.done = Some(now.totals().into());
                transaction.verified = true;
                transaction.rolled_back = true;
            });
            output.done(&format!(
                "Undid {} and verified: the node is in its previous state.",
                described(&record.occasion)
            ));
        }
        Err(_) if options.abandon => {
            let left =
                apply::abandon(&mut LiveNode, &dir, &record).map_err(|failure| report(failure, output))?;
            output.record(|transaction| transaction.rolled_back = true);
            output.done(&format!("Undid {}, except for what is listed above.", described(&record.occasion)));
            left.iter().for_each(|left| output.warn(left));
        }
        Err(failure) => return Err(report(failure, output)),
    }
    persisted::warn_after_rollback(&dir, output);
    Ok(changed(options.preview.detailed_exitcode))
}

/// Shows what the rollback would change, without a lock and without a write.
fn preview(dir: &StateDir, options: &RollbackOptions, output: &Output) -> Verdict {
    output.record(|transaction| transaction.dry_run = true);
    let mut found = None;
    let checked = when_quiet(dir, options.consent.lock.lock_timeout, || {
        found = Undo::plan(dir, options)?;
        Ok(found.as_ref().map_or(Ok(()), |undo| undo.check(options)))
    })?;
    let Some(Undo { record, is_open, back }) = found else { return nothing_on_record(output) };
    if let Some(holder) = dir.holder().filter(|_| is_open) {
        output.warn(&format!("{} is still running ({holder})", described(&record.occasion)));
    }
    output.record(|transaction| transaction.transaction = Some(record.id));
    output.plan(&told(&back), true)?;
    checked?;
    Ok(if back.is_empty() { 0 } else { changed(options.preview.detailed_exitcode) })
}

fn nothing_on_record(output: &Output) -> Verdict {
    output.result("Nothing to do: no apply recorded since boot.\n")?;
    Ok(0)
}

/// What hostgw manages here must come from an apply that the state directory knows of.
fn check_records(dir: &StateDir) -> Result<(), Error> {
    let observed = LiveNode.observe(&Scope::default())?.state;
    let routes = observed.routes.iter().filter(|route| route.is_owned()).count();
    let tables = observed.nat.iter().count();
    if routes + tables == 0 || dir.next_id()? > 1 {
        return Ok(());
    }
    let managed = format!("{} and {}", count(routes, "route"), count(tables, "NAT table"));
    Err(Error::unexpected(format!(
        "cannot roll back: hostgw manages {managed} here, but no apply is recorded since boot; nothing was changed"
    ))
    .with_details([format!("looked for in {}", text::path(dir.path()))])
    .with_hint("check HOSTGW_STATE_DIR, or remove everything hostgw manages with `hostgw destroy`"))
}

/// The newest transaction, with the plan that undoes it.
struct Undo {
    record: Record,
    is_open: bool,
    back: Plan,
}

impl Undo {
    /// The plan back, if there is something to undo and nothing forbids it. A committed transaction is only undone when
    /// all of it can be, as far as can be seen; of an interrupted one, as much as can be.
    fn find(dir: &StateDir, options: &RollbackOptions) -> Result<Option<Self>, Error> {
        let found = Self::plan(dir, options)?;
        found.as_ref().map_or(Ok(()), |undo| undo.check(options))?;
        Ok(found)
    }

    fn plan(dir: &StateDir, options: &RollbackOptions) -> Result<Option<Self>, Error> {
        let Some((record, is_open)) = newest(dir)? else { return check_records(dir).map(|()| None) };
        let progress = progress(dir, &record, is_open)?;
        let mut back = apply::undo_plan(&mut LiveNode, dir, &record, policy(options), progress)?;
        if options.abandon {
            apply::refuse_foreign_nat(&mut back, None, &record);
        }
        Ok(Some(Self { record, is_open, back }))
    }

    fn check(&self, options: &RollbackOptions) -> Result<(), Error> {
        check_back(&self.back, &self.record, self.is_open, options)
    }
}

const fn policy(options: &RollbackOptions) -> ForeignPolicy {
    if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect }
}

/// What forbids the plan back.
fn check_back(back: &Plan, record: &Record, is_open: bool, options: &RollbackOptions) -> Result<(), Error> {
    check_complete(back)?;
    if !is_open && !options.abandon {
        check_restorable(record)?;
        check_conflicts(
            back,
            "remove it or change it back, overwrite it with --adopt, or keep it with --abandon",
        )?;
    }
    Ok(())
}

/// How far a transaction came.
fn progress(dir: &StateDir, record: &Record, is_open: bool) -> Result<TransactionProgress, Error> {
    if is_open { apply::progress(dir, record) } else { Ok(TransactionProgress::Verified) }
}

/// Checks that the previous state can be restored.
fn check_restorable(record: &Record) -> Result<(), Error> {
    let tables = record.before.nat.iter().map(|(_, table)| table);
    let lost: Vec<Untrusted> = tables.flat_map(NatTable::unrestorable).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("{} cannot be restored; nothing was changed", list(&lost, usize::MAX));
    Err(Error::new(Kind::Conflict, message)
        .with_hint("run `hostgw rollback --abandon` to undo everything else"))
}

/// The newest transaction, and whether it is still open.
fn newest(dir: &StateDir) -> Result<Option<(Record, bool)>, Error> {
    if let Some(open) = dir.open_journal()? {
        return Ok(Some((open, true)));
    }
    Ok(dir.last_committed()?.map(|record| (record, false)))
}

fn told(back: &Plan) -> Report {
    let before = |_: &_| Reason { text: String::new(), places: Vec::new(), drift: false };
    let mut report = Report::new(back, before, |_, _| None);
    for change in &mut report.changes {
        match change.action {
            Action::Add => "existed before",
            Action::Change => "as it was before",
            Action::Remove => "did not exist before",
        }
        .clone_into(&mut change.reason.text);
    }
    report
}
