//! All of a plan, or the state as it was.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    config::{Document, Kept},
    error::{Error, Kind},
    plan::{
        self, Action, Change, Desired, Plan, Policy, RouteChange, Saved, SavedValue, Scope, SysctlChange,
        Touched, plan,
    },
    state::{NatObject, State, SysctlKey, Unknown},
};

use super::{
    Command, CommitError, Counted, Interrupt, LastApplied, Node, Occasion, Order, Pending, Record, StateDir,
    checks::check_after,
};

/// What a transaction is to bring about.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it is made for.
    pub occasion: &'a Occasion,
    /// The configuration it is made from, to be kept with what is applied.
    pub configuration: Option<&'a Document>,
    /// The state to bring about; verified when the plan is committed.
    pub desired: &'a State,
    /// What has to be seen to verify it.
    pub scope: &'a Scope,
    /// The plan to commit.
    pub plan: &'a Plan,
    /// The observed state that the plan was made from.
    pub observed: &'a State,
    /// The sysctls that the plan gives back as they were before hostgw.
    pub released: &'a BTreeSet<SysctlKey>,
    /// How the plan treats what is not hostgw's.
    pub policy: Policy,
    /// The checks that must still answer when the plan is committed: see [`check_before`](super::check_before).
    pub checks: &'a [Counted],
    /// How long it can be confirmed before it has to be rolled back; none when it is committed at once.
    pub hold: Option<Duration>,
}

/// A transaction that did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was changed.
    Untouched(Error),
    /// What had been changed was put back, and that was verified.
    RolledBack {
        /// Why the transaction failed.
        cause: Error,
    },
    /// Not everything could be put back.
    Incomplete(Box<Incomplete>),
}

/// What is known of a rollback that could not be finished.
#[derive(Debug)]
pub struct Incomplete {
    /// Why the transaction failed; absent for a rollback that was asked for.
    pub cause: Option<Error>,
    /// Why the rollback could not be finished.
    pub why: Error,
    /// What is left to do to get back to the state before.
    pub left: Vec<Change>,
}

impl Failure {
    fn incomplete(cause: Option<Error>, why: Error, left: Vec<Change>) -> Self {
        Self::Incomplete(Box::new(Incomplete { cause, why, left }))
    }
}

/// Commits a plan as one transaction: writes the journal, commits, verifies by observing once more and by the
/// checks that count; puts everything back on any failure. The caller holds the lock, and no transaction is
/// open. Returns until when the transaction waits for its confirmation, if it shall.
///
/// # Errors
/// As [`Failure`] says.
pub fn run(
    node: &mut dyn Node,
    dir: &StateDir,
    request: &Request,
    interrupt: &Interrupt,
) -> Result<Option<Pending>, Failure> {
    ensure_none_is_open(dir).map_err(Failure::Untouched)?;
    let saved_before = dir.saved().map_err(Failure::Untouched)?;
    let record = record(dir, request, saved_before).map_err(Failure::Untouched)?;
    dir.begin(&record).map_err(Failure::Untouched)?;
    let cause = match commit_and_verify(node, dir, request, &record, interrupt) {
        Ok(pending) => return Ok(pending),
        Err(Stopped::BeforeAnyChange(cause)) => {
            return Err(match end_undone(dir, &record, &record.saved_before) {
                Ok(()) => Failure::Untouched(cause),
                Err(why) => Failure::incomplete(Some(cause), why, Vec::new()),
            });
        }
        Err(Stopped::Midway(cause)) => cause,
    };
    match restore(node, dir, &record, Policy::Respect) {
        Ok(()) => Err(Failure::RolledBack { cause }),
        Err(Failure::Incomplete(mut incomplete)) => {
            incomplete.cause = Some(cause);
            Err(Failure::Incomplete(incomplete))
        }
        Err(Failure::Untouched(why) | Failure::RolledBack { cause: why }) => {
            Err(Failure::incomplete(Some(cause), why, Vec::new()))
        }
    }
}

/// A journal is never written over: it is the only way back.
fn ensure_none_is_open(dir: &StateDir) -> Result<(), Error> {
    match dir.open_journal()? {
        None => Ok(()),
        Some(_) => {
            Err(Error::new(Kind::Stale, "another transaction was left open meanwhile; nothing was changed")
                .with_hint("run the command again: it undoes that one first"))
        }
    }
}

fn record(dir: &StateDir, request: &Request, saved_before: Saved) -> Result<Record, Error> {
    let touched = Touched::by(request.plan, request.observed);
    Ok(Record {
        id: dir.next_id()?,
        occasion: request.occasion.clone(),
        totals: request.plan.totals(),
        before: touched.part_of(request.observed),
        touched,
        saved_before,
    })
}

/// Where a transaction stopped.
enum Stopped {
    BeforeAnyChange(Error),
    Midway(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Midway(error)
    }
}

fn commit_and_verify(
    node: &mut dyn Node,
    dir: &StateDir,
    request: &Request,
    record: &Record,
    interrupt: &Interrupt,
) -> Result<Option<Pending>, Stopped> {
    dir.write_saved(&saved_during(request, record))?;
    node.commit(&request.plan.changes, Order::Forward, interrupt).map_err(|error| match error {
        CommitError::Stale { .. } => Stopped::BeforeAnyChange(commit_error(error)),
        _ => Stopped::Midway(commit_error(error)),
    })?;
    let observed = node.observe(request.scope)?;
    verify(&plan(request.desired, &observed.state, request.policy))?;
    check_after(node, request.checks, interrupt)?;
    if interrupt.is_raised() {
        return Err(commit_error(CommitError::Interrupted).into());
    }
    dir.write_saved(&saved_after(request, record))?;
    dir.write_last_applied(&last_applied(request, record))?;
    let Some(time) = request.hold else {
        dir.commit(record)?;
        return Ok(None);
    };
    let pending = Pending::from_now(record.id, time);
    dir.hold(&pending)?;
    Ok(Some(pending))
}

fn last_applied(request: &Request, record: &Record) -> LastApplied {
    LastApplied {
        id: record.id,
        occasion: record.occasion.clone(),
        state: match record.occasion.command {
            Command::Apply => request.desired.clone(),
            // What was given back is not hostgw's any more.
            Command::Destroy => State::default(),
        },
        configuration: request.configuration.map(Kept::from),
    }
}

fn commit_error(error: CommitError) -> Error {
    match error {
        CommitError::Interrupted => Error::new(Kind::Interrupted, "interrupted"),
        CommitError::Stale { why, hint } => {
            Error { hint: hint.map(Into::into), ..Error::new(Kind::Stale, why) }
        }
        CommitError::Refused { object, why, hint } => Error {
            hint: hint.map(Into::into),
            ..Error::new(Kind::RolledBack, format!("{object} failed: {why}"))
        },
    }
}

/// A commit that reported success and left a difference is a failure all the same.
fn verify(plan: &Plan) -> Result<(), Error> {
    if plan.is_empty() && plan.unknown.is_empty() {
        return Ok(());
    }
    let differences = plan.changes.iter().flat_map(|change| match change {
        Change::Sysctl(sysctl) => {
            vec![format!("{} is {}, not {}", sysctl.key, sysctl.before, sysctl.after)]
        }
        Change::Nat(nat) => nat.lines().iter().map(nat_difference).collect(),
        Change::Route(_) => vec![format!("not in force: {change}")],
    });
    let conflicts = plan.conflicts.iter().map(|conflict| conflict.to_string());
    let unknown =
        plan.unknown.iter().map(|Unknown { what, why, .. }| format!("{what} cannot be read any more: {why}"));
    let hint = plan.unknown.first().and_then(|unknown| unknown.hint.clone());
    let message = if plan.changes.is_empty() && !plan.conflicts.is_empty() {
        "something that is not hostgw's stands in the way"
    } else {
        "what stands now is not what was planned"
    };
    let error = Error::new(Kind::RolledBack, message);
    Err(Error { hint, ..error.with_details(differences.chain(conflicts).chain(unknown)) })
}

/// A line of a NAT change that is left, said so that what somebody else put there is named before it goes.
fn nat_difference((_, before, after): &(Action, Option<NatObject>, Option<NatObject>)) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("not in force: {after}; there is {before}"),
        (Some(before), None) => format!("not planned, and there: {before}"),
        (None, Some(after)) => format!("not in force: {after}"),
        (None, None) => String::new(),
    }
}

/// The saved values while the commit runs: what it writes for the first time is added.
fn saved_during(request: &Request, record: &Record) -> Saved {
    let mut saved = record.saved_before.clone();
    for change in sysctl_changes(request.plan) {
        let mut save = |key: &SysctlKey, with: Option<&SysctlKey>| {
            if let Some(value) = request.observed.sysctls.get(key) {
                let new = SavedValue { value: value.clone(), with: with.cloned(), written: false };
                let entry = saved.0.entry(key.clone()).or_insert(new);
                entry.written |= with.is_none();
            }
        };
        save(&change.key, None);
        for key in plan::side_effects(&change.key, request.observed.sysctls.keys()) {
            save(key, Some(&change.key));
        }
    }
    saved
}

/// The saved values after the commit: what was given back is forgotten.
fn saved_after(request: &Request, record: &Record) -> Saved {
    without_released(saved_during(request, record), request.desired, request.released)
}

/// The saved values without those of `released` keys. A key that a wanted switch still rewrites stays, for
/// the day when the switch goes.
fn without_released(mut saved: Saved, desired: &State, released: &BTreeSet<SysctlKey>) -> Saved {
    let is_rewritten = |saved: &SavedValue| {
        saved
            .with
            .as_ref()
            .is_some_and(|switch| desired.sysctls.contains_key(switch) && !released.contains(switch))
    };
    saved.0.retain(|key, saved| {
        let is_released = released.contains(key);
        saved.written &= !is_released;
        !is_released || is_rewritten(saved)
    });
    saved
}

fn sysctl_changes(plan: &Plan) -> impl Iterator<Item = &SysctlChange> {
    plan.changes.iter().filter_map(|change| match change {
        Change::Sysctl(sysctl) => Some(sysctl),
        Change::Route(_) | Change::Nat(_) => None,
    })
}

/// Finishes the transaction that a crash left open, by putting back what it had changed. Returns it, or
/// `None` when none is open. The caller holds the lock.
///
/// # Errors
/// [`Failure::Untouched`] when the journal cannot be read, [`Failure::Incomplete`] when not everything
/// could be put back.
pub fn recover(node: &mut dyn Node, dir: &StateDir) -> Result<Option<Record>, Failure> {
    let Some(record) = dir.open_journal().map_err(Failure::Untouched)? else { return Ok(None) };
    restore(node, dir, &record, Policy::Respect)?;
    Ok(Some(record))
}

/// How often an undo goes on: far more than one change can depend on another, and an end where other programs change
/// the same things without pause.
const MAX_ROUNDS: usize = 20;

/// Puts back what stood before the open transaction `record`, verifies that, and ends the transaction.
/// `policy` says what becomes of what somebody else put in the way since. The caller holds the lock.
///
/// # Errors
/// [`Failure::Incomplete`]; the journal stays, so that a later rollback goes on from there.
pub fn restore(node: &mut dyn Node, dir: &StateDir, record: &Record, policy: Policy) -> Result<(), Failure> {
    let incomplete = |why, left| Failure::incomplete(None, why, left);
    let mut refused = None;
    let mut left = undo_plan(node, record, policy).map_err(|why| incomplete(why, Vec::new()))?;
    // Again as long as it helps: what one change needs, another may have put back.
    for _ in 0..MAX_ROUNDS {
        if left.changes.is_empty() {
            break;
        }
        // An undo is never interrupted.
        let committed = node.commit(&left.changes, Order::Undo, &Interrupt::new());
        refused = committed.map_err(commit_error).err();
        let before = std::mem::take(&mut left);
        left = undo_plan(node, record, policy).map_err(|why| incomplete(why, before.changes.clone()))?;
        if left == before {
            break;
        }
    }
    if let Err(why) = verify(&left) {
        // What somebody else put in the way meanwhile is theirs to clear; told is the whole way back.
        let whole = undo_plan(node, record, Policy::Adopt).map_or(left.changes, |plan| plan.changes);
        return Err(incomplete(refused.unwrap_or(why), in_undo_order(whole)));
    }
    end_undone(dir, record, &record.saved_before).map_err(|why| incomplete(why, Vec::new()))
}

/// Ends the open transaction `record`, whose changes are undone; `saved` are the saved values from now on.
fn end_undone(dir: &StateDir, record: &Record, saved: &Saved) -> Result<(), Error> {
    // First what goes: on a full disk that makes room for what is written, if anything has to be.
    dir.forget_applied(record)?;
    if dir.saved()? != *saved {
        dir.write_saved(saved)?;
    }
    dir.forget()
}

/// Gives up what a rollback could not put back, and ends its transaction; a route of hostgw's that stands in
/// its place goes all the same. Returns what is left, in words. The caller holds the lock.
///
/// # Errors
/// When the node or the state directory cannot be read or written.
pub fn abandon(node: &mut dyn Node, dir: &StateDir, record: &Record) -> Result<Vec<String>, Error> {
    let left = undo_plan(node, record, Policy::Respect)?;
    let own: Vec<Change> = left.changes.iter().filter_map(without_own).collect();
    node.commit(&own, Order::Undo, &Interrupt::new()).map_err(commit_error)?;
    let saved = still_owed(dir.saved()?, record, &left);
    end_undone(dir, record, &saved)?;
    let changes = left.changes.iter().map(|change| format!("not put back: {change}"));
    Ok(changes.chain(left.conflicts.iter().map(ToString::to_string)).collect())
}

/// The saved values from before the transaction, and those of sysctls that it changed and that could not be
/// put back: a later destroy still owes them.
fn still_owed(now: Saved, record: &Record, left: &Plan) -> Saved {
    let mut saved = record.saved_before.clone();
    for change in sysctl_changes(left) {
        let belongs = |key: &SysctlKey, value: &SavedValue| {
            *key == change.key || value.with.as_ref() == Some(&change.key)
        };
        let owed = now.0.iter().filter(|(key, value)| belongs(key, value));
        for (key, value) in owed {
            saved.0.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    saved
}

/// The removal of hostgw's own from a place where something else cannot be put back.
fn without_own(change: &Change) -> Option<Change> {
    let Change::Route(change) = change else { return None };
    let after: Vec<_> = change.before.iter().filter(|route| !route.is_owned()).cloned().collect();
    (after != change.before).then(|| Change::Route(RouteChange { after, ..change.clone() }))
}

/// Gives back the saved sysctl values that stand again already, though nothing has to be written for it:
/// kept, they would one day overwrite somebody else's. The caller holds the lock.
///
/// # Errors
/// When they cannot be read or written.
pub fn settle(dir: &StateDir, desired: &Desired) -> Result<(), Error> {
    ensure_none_is_open(dir)?;
    let saved = dir.saved()?;
    let settled = without_released(saved.clone(), &desired.state, &desired.released);
    if settled == saved { Ok(()) } else { dir.write_saved(&settled) }
}

/// The order in which an undo goes about it.
fn in_undo_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| match change {
        Change::Sysctl(_) => 0,
        Change::Route(_) => 1,
        Change::Nat(_) => 2,
    });
    changes
}

/// What must change to get back to what stood before `record`.
///
/// # Errors
/// When the node cannot be read.
pub fn undo_plan(node: &mut dyn Node, record: &Record, policy: Policy) -> Result<Plan, Error> {
    let observed = node.observe(&Scope::of_touched(&record.touched))?;
    let part = record.touched.part_of(&observed.state);
    Ok(plan(&record.before, &part, policy))
}
