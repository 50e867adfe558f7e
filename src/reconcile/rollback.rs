//! Undoes the newest transaction: the interrupted one, or else the last one that was committed.

use super::{
    caller::{Caller, Event},
    records,
    refusal::{check_complete, check_conflicts, plan_changed},
    run,
    turn::{take_lock, waiting_for_lock},
    wording::described,
};
use crate::{
    apply::{self, ActivityWatch, Failure, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    plan::{ForeignPolicy, Observe, Plan, Scope, Totals, TransactionProgress},
    record::Record,
    state::NatTable,
    text::{self, Untrusted, count, list},
};

/// How to treat what another program put in the place of an object that a rollback restores.
#[derive(Debug, Clone, Copy)]
pub struct Rollback {
    /// Whether to overwrite it.
    pub adopt: bool,
    /// Whether to leave it, and what else cannot be restored.
    pub abandon: bool,
}

/// The newest transaction, with the plan that undoes it.
#[derive(Debug)]
pub struct Undo {
    /// The transaction.
    pub record: Record,
    /// Whether it is still open: pending, interrupted, or only partly rolled back.
    pub is_open: bool,
    /// The plan.
    pub plan: Plan,
}

/// The result of a rollback.
#[derive(Debug)]
pub enum RollbackResult {
    /// No transaction is recorded.
    NothingRecorded,
    /// Another command undid the transaction that was shown.
    AlreadyUndone(Record),
    /// The transaction was undone, and that was verified.
    Undone(Record, Totals),
    /// The transaction was undone except for this.
    Abandoned(Record, Vec<String>),
}

impl Rollback {
    /// Undoes the newest transaction.
    ///
    /// # Errors
    /// Returns what failed, and the resulting state of the node.
    pub fn run(self, caller: &dyn Caller<Undo>) -> Result<RollbackResult, Failure> {
        self.run_in(&records::state_dir()?, caller)
    }

    /// Undoes the newest transaction that is recorded in `dir`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_in(self, dir: &StateDir, caller: &dyn Caller<Undo>) -> Result<RollbackResult, Failure> {
        let timeout = caller.lock_timeout();
        let look = ActivityWatch::begin(dir)?;
        let mut found = self.find(dir);
        let mut lock = None;
        if !look.was_exclusive()? {
            // Do not base any decision on another command's unfinished transaction.
            waiting_for_lock(dir, caller);
            lock = Some(take_lock(dir, timeout, "rollback", caller)?);
            found = self.find(dir);
        }
        let Some(shown) = found? else { return Ok(RollbackResult::NothingRecorded) };
        caller.show(&shown, !caller.is_unattended())?;
        // Other commands need not wait for an answer.
        lock = lock.filter(|_| caller.is_unattended());
        caller.approve(&shown, None)?;
        let _lock = match lock {
            Some(lock) => lock,
            None => take_lock(dir, timeout, "rollback", caller)?,
        };
        caller.interrupt()?;
        match newest(dir)? {
            Some((record, _)) if record.id == shown.record.id => {}
            Some((newer, _)) if newer.id > shown.record.id => return Err(more_recent(&newer).into()),
            _ => return Ok(RollbackResult::AlreadyUndone(shown.record)),
        }
        let Some(now) = self.find(dir)? else { return Ok(RollbackResult::NothingRecorded) };
        if now.plan != shown.plan {
            if !caller.is_unattended() {
                return Err(plan_changed("run `hostgw rollback` again to review the new plan").into());
            }
            caller.event(Event::PlanChanged);
            caller.show(&now, false)?;
        }
        self.undo(dir, now)
    }

    /// Plans without the lock and without writing anything. The inner result says whether the plan could be committed.
    ///
    /// # Errors
    /// Returns an error if the node or its records cannot be read, or if other commands keep changing it until `timeout`.
    pub fn preview(self, timeout: std::time::Duration) -> Result<(Option<Undo>, Result<(), Error>), Error> {
        let dir = records::state_dir()?;
        let mut found = None;
        let checked = run::preview(&dir, timeout, || {
            found = self.plan(&dir)?;
            Ok(found.as_ref().map_or(Ok(()), |undo| self.check(undo)))
        })?;
        Ok((found, checked))
    }

    fn undo(self, dir: &StateDir, Undo { record, is_open, plan }: Undo) -> Result<RollbackResult, Failure> {
        let progress = progress(dir, &record, is_open)?;
        // A committed transaction is reopened only now that nothing forbids its rollback.
        if !is_open {
            dir.reopen(&record)?;
        }
        let restored = apply::restore(&mut LiveNode, dir, &record, self.policy(), progress, Some(&plan));
        match restored {
            Ok(()) => Ok(RollbackResult::Undone(record, plan.totals())),
            Err(_) if self.abandon => {
                let left = apply::abandon(&mut LiveNode, dir, &record)?;
                Ok(RollbackResult::Abandoned(record, left))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Returns the plan that undoes the newest transaction, if there is one and nothing forbids it. A committed
    /// transaction is undone only as a whole; of an interrupted one, as much as possible is.
    fn find(self, dir: &StateDir) -> Result<Option<Undo>, Error> {
        let found = self.plan(dir)?;
        found.as_ref().map_or(Ok(()), |undo| self.check(undo))?;
        Ok(found)
    }

    fn plan(self, dir: &StateDir) -> Result<Option<Undo>, Error> {
        let Some((record, is_open)) = newest(dir)? else { return check_records(dir).map(|()| None) };
        let progress = progress(dir, &record, is_open)?;
        let mut plan = apply::plan_rollback(&mut LiveNode, dir, &record, self.policy(), progress)?;
        if self.abandon {
            apply::refuse_foreign_nat(&mut plan, None, &record);
        }
        Ok(Some(Undo { record, is_open, plan }))
    }

    const fn policy(self) -> ForeignPolicy {
        if self.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect }
    }

    fn check(self, Undo { record, is_open, plan }: &Undo) -> Result<(), Error> {
        check_complete(plan)?;
        if !is_open && !self.abandon {
            check_restorable(record)?;
            check_conflicts(
                plan,
                "undo the foreign changes, overwrite them with --adopt, or keep them with --abandon",
            )?;
        }
        Ok(())
    }
}

fn more_recent(newer: &Record) -> Error {
    Error::new(
        Kind::Stale,
        format!("{} is more recent and must be rolled back first; nothing was changed", described(newer)),
    )
    .with_hint("run `hostgw rollback` again to roll that one back")
}

/// Checks that what hostgw manages here comes from an apply that the state directory knows.
fn check_records(dir: &StateDir) -> Result<(), Error> {
    let observed = LiveNode.observe(&Scope::default())?.state;
    let routes = observed.routes.iter().filter(|route| route.is_owned()).count();
    let tables = observed.nat.iter().count();
    if routes + tables == 0 || dir.next_id()? > 1 {
        return Ok(());
    }
    let managed = format!("{} and {}", count(routes, "route"), count(tables, "NAT table"));
    Err(Error::unexpected(format!(
        "cannot roll back: hostgw manages {managed} here, but there is no record of an apply; nothing was changed"
    ))
    .with_details([format!("searched {}", text::path(dir.path()))])
    .with_hint("check HOSTGW_STATE_DIR, or remove everything hostgw manages with `hostgw destroy`"))
}

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

/// Returns the newest transaction, and whether it is still open.
fn newest(dir: &StateDir) -> Result<Option<(Record, bool)>, Error> {
    if let Some(open) = dir.open_journal()? {
        return Ok(Some((open, true)));
    }
    Ok(dir.last_committed()?.map(|record| (record, false)))
}
