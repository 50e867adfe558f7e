//! The course of every operation: observe, show, approve, lock, observe again, commit, verify.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    caller::{Caller, Event},
    operation::Operation,
    pending::PendingApply,
    supervisor::Supervisor,
    turn::{INTERVAL, lock_description, recover, take_turn, waiting_for_lock},
};
use crate::{
    apply::{self, ActivityWatch, BaselineCheck, Failure, Lock, Request, StateDir, Verified},
    error::{Error, Kind},
    forwarding::PathFault,
    kernel::LiveNode,
    model::Check,
    plan::Totals,
    record::TransactionMeta,
};

/// A plan that was committed and verified.
#[derive(Debug)]
pub struct Committed {
    /// The number of changes.
    pub totals: Totals,
    /// The pending apply, if it must be confirmed.
    pub pending: Option<PendingApply>,
    /// The pod paths that do not work.
    pub faults: Vec<PathFault>,
}

/// The result of an operation.
#[derive(Debug)]
pub struct RunResult {
    /// The committed plan, or `None` if there was nothing to change.
    pub committed: Option<Committed>,
    /// Whether an interrupted transaction was undone first.
    pub recovered: bool,
}

/// Observes and plans without the lock and without writing anything. The inner result is that of the operation's check.
///
/// # Errors
/// Returns an error if the node cannot be read, or [`Kind::Locked`] if other commands keep changing it until `timeout`.
pub fn preview(
    dir: &StateDir,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Result<(), Error>, Error>,
) -> Result<Result<(), Error>, Error> {
    let begun = Instant::now();
    loop {
        let watch = ActivityWatch::begin(dir)?;
        let seen = look();
        // A refusal may be due to another command's half-done transaction: look again when that command is done.
        if matches!(seen, Ok(Ok(()))) || watch.was_stable()? {
            return seen;
        }
        if !is_idle_within(dir, timeout.saturating_sub(begun.elapsed()))? {
            return Err(dir.lock_timeout(dir.holder().as_ref(), timeout));
        }
    }
}

/// Observes with `look` while no other command is changing the node, so that it never sees a half-done transaction. If
/// others are still busy after `timeout`, returns the last observation.
///
/// # Errors
/// Returns the error of `look`, or an error if the records cannot be read.
pub fn look_when_idle(
    dir: &StateDir,
    timeout: Duration,
    mut look: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let watch = ActivityWatch::begin(dir)?;
        let seen = look();
        if watch.was_stable()? || !is_idle_within(dir, timeout.saturating_sub(begun.elapsed()))? {
            return seen;
        }
    }
}

/// Waits until no other command is changing the node. Returns `false` if that takes longer than `timeout`.
fn is_idle_within(dir: &StateDir, timeout: Duration) -> Result<bool, Error> {
    let begun = Instant::now();
    loop {
        if begun.elapsed() >= timeout {
            return Ok(false);
        }
        if !ActivityWatch::is_busy(dir)? {
            return Ok(true);
        }
        thread::sleep(INTERVAL);
    }
}

/// Runs `operation`. With `hold`, the apply remains pending that long unless it is confirmed.
///
/// # Errors
/// Returns the failure, and the resulting state of the node.
pub fn run<O: Operation>(
    operation: &mut O,
    mut hold: Option<Duration>,
    caller: &dyn Caller<O>,
) -> Result<RunResult, Failure> {
    let dir = operation.dir().clone();
    let description = lock_description(operation.command());
    let mut recovered = recover(&dir, caller)?;
    let look = ActivityWatch::begin(&dir)?;
    let mut checked = look_and_check(operation);
    let mut lock = None;
    if !look.was_exclusive()? {
        // Do not base any decision on another command's unfinished transaction.
        if dir.pending()?.is_none() {
            waiting_for_lock(&dir, caller);
        }
        let turn = take_turn(&dir, caller, &description)?;
        recovered |= turn.recovered;
        lock = Some(turn.lock);
        checked = look_and_check(operation);
    }
    checked?;
    let has_work = !operation.prepared().plan.is_empty();
    let is_unattended = caller.is_unattended();
    caller.show(operation, has_work && !is_unattended)?;
    if !has_work && operation.prepared().desired.released.is_empty() {
        return Ok(RunResult { committed: None, recovered });
    }
    if has_work {
        // Other commands need not wait for an answer.
        lock = lock.filter(|_| is_unattended);
        hold = caller.approve(operation, hold)?;
    }
    let lock = match lock {
        Some(lock) => lock,
        None => {
            let turn = take_turn(&dir, caller, &description)?;
            recovered |= turn.recovered;
            turn.lock
        }
    };
    let committed = run_locked(operation, hold, &lock, caller)?;
    Ok(RunResult { committed, recovered })
}

fn look_and_check(operation: &mut impl Operation) -> Result<(), Error> {
    operation.look()?;
    operation.check()
}

/// The maximum number of attempts to plan and commit while other programs change the state that the plan depends on.
const MAX_ATTEMPTS: usize = 5;

/// Observes again and commits. The caller holds the lock.
fn run_locked<O: Operation>(
    operation: &mut O,
    hold: Option<Duration>,
    lock: &Lock,
    caller: &dyn Caller<O>,
) -> Result<Option<Committed>, Failure> {
    let has_work = !operation.prepared().plan.is_empty();
    let metadata = caller.metadata(operation);
    // Before the last look, whose result must not become outdated while the checks wait for answers.
    let baseline = run_baseline(operation.checks(), caller)?;
    for attempt in 1.. {
        if !look_again(operation, caller)? {
            if has_work {
                caller.event(Event::AlreadyMade);
            }
            return Ok(None);
        }
        let id = operation.dir().next_id()?;
        let result = commit(operation, &metadata, &baseline, hold, lock, caller);
        if !matches!(result, Err(Failure::Untouched(_))) {
            caller.event(Event::Begun(id));
        }
        match result {
            Ok(committed) => {
                let pending = committed.pending.as_ref().map(PendingApply::pending);
                let (totals, faults) = (committed.totals, &committed.faults[..]);
                caller.event(Event::Committed { totals, pending, checks: baseline.len(), faults });
                return Ok(Some(committed));
            }
            // Another program made the same changes before the commit.
            Err(Failure::Untouched(error)) if error.kind == Kind::Stale && attempt < MAX_ATTEMPTS => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// Observes once more, under the lock, and plans again if something has changed. Returns `false` if nothing is left to do.
fn look_again<O: Operation>(operation: &mut O, caller: &dyn Caller<O>) -> Result<bool, Error> {
    let shown = if operation.is_current()? {
        None
    } else {
        // Not copied: the plans of a large cluster take much memory.
        let shown = std::mem::take(&mut operation.prepared_mut().plan);
        look_and_check(operation)?;
        Some(shown)
    };
    if operation.prepared().plan.is_empty() {
        apply::drop_restored_sysctls(operation.dir(), &operation.prepared().desired)?;
        return Ok(false);
    }
    if shown.is_some_and(|shown| operation.prepared().plan != shown) {
        if !caller.is_unattended() {
            caller.show(operation, false)?;
            return Err(super::refusal::plan_changed(
                "review the new plan above, then run the command again",
            ));
        }
        caller.event(Event::PlanChanged);
        caller.show(operation, false)?;
    }
    Ok(true)
}

fn commit<O: Operation>(
    operation: &O,
    metadata: &TransactionMeta,
    checks: &[BaselineCheck],
    hold: Option<Duration>,
    lock: &Lock,
    caller: &dyn Caller<O>,
) -> Result<Committed, Failure> {
    let interrupt = caller.interrupt()?;
    let paths = operation.paths();
    let request = Request {
        confirm_within: hold,
        checks,
        paths: paths.as_ref(),
        configuration: operation.configuration(),
        is_repair: operation.is_repair(),
        withheld: operation.withheld(),
        ..Request::new(operation.prepared(), metadata)
    };
    let totals = request.plan.totals();
    let mut supervisor = hold.map(|_| Supervisor::start(operation.dir(), lock)).transpose()?;
    match apply::run(&mut LiveNode, operation.dir(), &request, &interrupt) {
        Ok(Verified { pending, faults }) => {
            if let Some(supervisor) = &mut supervisor {
                supervisor.watch();
            }
            let pending = supervisor.zip(pending).map(|(supervisor, pending)| PendingApply {
                dir: operation.dir().clone(),
                pending,
                metadata: metadata.clone(),
                supervisor,
            });
            Ok(Committed { totals, pending, faults })
        }
        Err(failure) => {
            if let Some(supervisor) = supervisor {
                supervisor.dismiss();
            }
            Err(failure)
        }
    }
}

/// Runs the checks before the change, and reports those that were failing already, which are ignored.
fn run_baseline<O>(checks: &[Check], caller: &dyn Caller<O>) -> Result<Vec<BaselineCheck>, Error> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let interrupt = caller.interrupt()?;
    let baseline = apply::run_baseline(&mut LiveNode, checks, &interrupt)?;
    for (check, why) in &baseline.failed {
        caller.event(Event::CheckIgnored { check, why });
    }
    Ok(baseline.passed)
}
