//! All of a plan, or the state as it was.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    config::{Document, StoredConfig},
    error::{Error, Kind},
    model::SysctlKey,
    plan::{
        self, Action, Change, Conflict, Desired, ForeignPolicy, ForeignSysctl, NatChange, OriginalSysctls,
        OriginalValue, Plan, Prepared, Restoration, RouteChange, Scope, SysctlChange, SysctlValues, Touched,
        TransactionProgress, foreign, plan,
    },
    record::{Command, LastApplied, Pending, Record, TransactionMeta},
    state::{NatObject, NatTable, State, Tables, Unknown},
};

use super::{Backend, BaselineCheck, CommitError, Interrupt, Order, StateDir, checks::check_after};

/// What a transaction is to bring about.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it is made for.
    pub occasion: &'a TransactionMeta,
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
    /// The sysctls that the plan restores to their original values.
    pub released: &'a BTreeSet<SysctlKey>,
    /// How the plan treats what is not hostgw's.
    pub policy: ForeignPolicy,
    /// The checks that must still answer when the plan is committed: see [`check_before`](super::check_before).
    pub checks: &'a [BaselineCheck],
    /// How long it can be confirmed before it has to be rolled back; none when it is committed at once.
    pub hold: Option<Duration>,
}

impl<'a> Request<'a> {
    /// The transaction that commits a plan at once, without checks.
    #[must_use]
    pub const fn new(prepared: &'a Prepared, occasion: &'a TransactionMeta) -> Self {
        Self {
            occasion,
            configuration: None,
            desired: &prepared.desired.state,
            scope: &prepared.scope,
            plan: &prepared.plan,
            observed: &prepared.observed.state,
            released: &prepared.desired.released,
            policy: prepared.policy,
            hold: None,
            checks: &[],
        }
    }
}

/// A transaction that did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was changed.
    Untouched(Error),
    /// Every change was rolled back, and the rollback was verified.
    RolledBack {
        /// Why the transaction failed.
        cause: Error,
    },
    /// Not everything could be restored.
    Incomplete(Box<Incomplete>),
}

/// What is known of a rollback that could not be finished.
#[derive(Debug)]
pub struct Incomplete {
    /// Why the transaction failed; absent for a rollback that was asked for.
    pub cause: Option<Error>,
    /// Why the rollback is incomplete.
    pub why: Error,
    /// What is left to do to get back to the state before.
    pub left: Vec<Change>,
    /// The node is as it was before; only the records are not.
    pub is_restored: bool,
    /// Only conflicts with foreign objects are left.
    pub is_foreign: bool,
}

impl Incomplete {
    const fn new(why: Error, left: Vec<Change>) -> Self {
        Self { cause: None, why, left, is_restored: false, is_foreign: false }
    }
}

/// An error before anything was changed.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Untouched(error)
    }
}

impl Failure {
    fn incomplete(cause: Option<Error>, why: Error, left: Vec<Change>) -> Self {
        Self::Incomplete(Box::new(Incomplete { cause, ..Incomplete::new(why, left) }))
    }
}

/// Commits a plan as one transaction: writes the journal, commits, verifies by observing once more and by the
/// checks that count; puts everything back on any failure. The caller holds the lock, and no transaction is
/// open. Returns until when the transaction waits for its confirmation, if it shall.
///
/// # Errors
/// As [`Failure`] says.
pub fn run(
    node: &mut dyn Backend,
    dir: &StateDir,
    request: &Request,
    interrupt: &Interrupt,
) -> Result<Option<Pending>, Failure> {
    ensure_none_is_open(dir).map_err(Failure::Untouched)?;
    let saved_before = dir.saved().map_err(Failure::Untouched)?;
    let record = record(dir, request, saved_before).map_err(Failure::Untouched)?;
    dir.begin(&record).map_err(Failure::Untouched)?;
    let mut written = Vec::new();
    let cause = match commit_and_verify(node, dir, request, &record, interrupt, &mut written) {
        Ok(pending) => return Ok(pending),
        Err(Stopped::BeforeAnyChange(cause)) => {
            return Err(match end_undone(dir, &record, &record.saved_before, || {}) {
                Ok(()) => Failure::Untouched(cause),
                Err(why) => Failure::incomplete(Some(cause), why, Vec::new()),
            });
        }
        Err(Stopped::Midway(cause)) => cause,
    };
    // A sysctl that was not written yet is not to be restored, whatever it is by now.
    let record = record.with_sysctls_of(&written);
    match restore(node, dir, &record, ForeignPolicy::Respect, TransactionProgress::Partial, None) {
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
        Some(_) => Err(Error::new(
            Kind::Stale,
            "another transaction was left open concurrently; nothing was changed",
        )
        .with_hint("run the command again; it rolls that one back first")),
    }
}

fn record(dir: &StateDir, request: &Request, saved_before: OriginalSysctls) -> Result<Record, Error> {
    let touched = Touched::by(request.plan, request.observed);
    let mut written = plan::after(&request.observed.sysctls, sysctl_changes(request.plan));
    written.retain(|key, _| touched.sysctls.binary_search(key).is_ok());
    Ok(Record {
        id: dir.next_id()?,
        occasion: request.occasion.clone(),
        totals: request.plan.totals(),
        before: touched.part_of(request.observed),
        touched,
        written,
        written_nat: nat_tables(request.plan),
        saved_before,
    })
}

/// The tables that `plan` leaves.
fn nat_tables(plan: &Plan) -> Tables {
    let mut tables = Tables::default();
    for change in &plan.changes {
        if let Change::Nat(nat) = change {
            tables.get_mut(nat.family).clone_from(&nat.after);
        }
    }
    tables
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

/// Makes the changes of a transaction and verifies them. `written` are the sysctl changes that were begun.
fn commit_and_verify<'a>(
    node: &mut dyn Backend,
    dir: &StateDir,
    request: &Request<'a>,
    record: &Record,
    interrupt: &Interrupt,
    written: &mut Vec<&'a SysctlChange>,
) -> Result<Option<Pending>, Stopped> {
    dir.write_saved(&saved_during(request, record))?;
    // A plan has its sysctls last.
    let changes = &request.plan.changes;
    let first_sysctl = changes.partition_point(|change| !matches!(change, Change::Sysctl(_)));
    let (others, sysctls) = changes.split_at(first_sysctl);
    let is_first = others.is_empty();
    node.commit(others, Order::Forward, interrupt).map_err(|error| stopped(error, true))?;
    look_again(node, record).map_err(|error| stopped(error, is_first))?;
    for change in sysctls {
        let Change::Sysctl(sysctl) = change else { continue };
        written.push(sysctl);
        node.commit(std::slice::from_ref(change), Order::Forward, interrupt).map_err(|error| {
            if matches!(error, CommitError::Interrupted | CommitError::Moved { .. }) {
                written.pop();
            }
            stopped(error, is_first && written.is_empty())
        })?;
    }
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

/// That nobody has written a sysctl since the plan was made: a switch would rewrite it unseen.
fn look_again(node: &mut dyn Backend, record: &Record) -> Result<(), CommitError> {
    if record.touched.sysctls.is_empty() {
        return Ok(());
    }
    let live = node.sysctls(&record.touched.sysctls);
    let moved = record.before.sysctls.iter().find_map(|(key, before)| {
        let now = live.get(key).filter(|now| *now != before)?;
        Some(CommitError::Moved { key: key.clone(), now: now.clone() })
    });
    moved.map_or(Ok(()), Err)
}

fn last_applied(request: &Request, record: &Record) -> LastApplied {
    LastApplied {
        id: record.id,
        occasion: record.occasion.clone(),
        state: match record.occasion.command {
            // What was given back is not hostgw's any more.
            Command::Apply => {
                let mut state = request.desired.clone();
                state.sysctls.retain(|key, _| !request.released.contains(key));
                state
            }
            Command::Destroy => State::default(),
        },
        configuration: request.configuration.map(StoredConfig::from),
    }
}

/// What `error` makes of a transaction that has changed nothing before, if `is_first`.
fn stopped(error: CommitError, is_first: bool) -> Stopped {
    match error {
        CommitError::Stale { .. } => Stopped::BeforeAnyChange(commit_error(error)),
        CommitError::Moved { .. } if is_first => {
            let error = commit_error(error);
            let message = format!("{}; nothing was changed", error.message);
            Stopped::BeforeAnyChange(Error { kind: Kind::Stale, message: message.into(), ..error })
        }
        _ => Stopped::Midway(commit_error(error)),
    }
}

fn commit_error(error: CommitError) -> Error {
    match error {
        CommitError::Interrupted => Error::new(Kind::Interrupted, "interrupted"),
        CommitError::Stale { why, hint } => Error::new(Kind::Stale, why).with_hint_if(hint),
        CommitError::Refused { object, why, hint } => {
            Error::new(Kind::RolledBack, format!("{object} failed: {why}")).with_hint_if(hint)
        }
        CommitError::Moved { key, now } => {
            Error::new(Kind::RolledBack, format!("somebody else has changed {key} to {now} meanwhile"))
                .with_hint("run the command again to plan from the new value")
        }
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
        Change::Route(_) => vec![format!("not applied: {change}")],
    });
    let conflicts = plan.conflicts.iter().map(|conflict| conflict.to_string());
    let unknown =
        plan.unknown.iter().map(|Unknown { what, why, .. }| format!("{what} is no longer readable: {why}"));
    let hint = plan.unknown.first().and_then(|unknown| unknown.hint.clone());
    let message = if plan.changes.is_empty() && !plan.conflicts.is_empty() {
        "conflicts with objects that hostgw does not manage"
    } else {
        "the live state does not match the plan"
    };
    let details = differences.chain(conflicts).chain(unknown);
    Err(Error::new(Kind::RolledBack, message).with_details(details).with_hint_if(hint))
}

/// A line of a NAT change that is left, said so that what somebody else put there is named before it goes.
fn nat_difference((_, before, after): &(Action, Option<NatObject>, Option<NatObject>)) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("not applied: {after}; there is {before}"),
        (Some(before), None) => format!("present but not planned: {before}"),
        (None, Some(after)) => format!("not applied: {after}"),
        (None, None) => String::new(),
    }
}

/// The saved values while the commit runs: what it writes for the first time is added.
fn saved_during(request: &Request, record: &Record) -> OriginalSysctls {
    let mut saved = record.saved_before.clone();
    for change in sysctl_changes(request.plan) {
        let mut save = |key: &SysctlKey, with: Option<&SysctlKey>| {
            let found = request.observed.sysctls.get(key).zip(record.written.get(key));
            if let Some((value, last)) = found {
                let (value, last) = (value.clone(), last.clone());
                let new = OriginalValue { value, last: last.clone(), with: with.cloned(), written: false };
                let entry = saved.0.entry(key.clone()).or_insert(new);
                entry.last = last;
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
fn saved_after(request: &Request, record: &Record) -> OriginalSysctls {
    without_released(saved_during(request, record), request.desired, request.released)
}

/// The saved values without those of `released` keys. A key that a wanted switch still rewrites stays, for
/// the day when the switch goes.
fn without_released(
    mut saved: OriginalSysctls,
    desired: &State,
    released: &BTreeSet<SysctlKey>,
) -> OriginalSysctls {
    let is_rewritten = |saved: &OriginalValue| {
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

/// How far the open transaction `record` came.
///
/// # Errors
/// When the records cannot be read.
pub fn progress(dir: &StateDir, record: &Record) -> Result<TransactionProgress, Error> {
    let is_pending = dir.pending()?.is_some_and(|(pending, _)| pending.id == record.id);
    Ok(if is_pending { TransactionProgress::Verified } else { TransactionProgress::Partial })
}

/// Finishes the transaction that a crash left open, by putting back what it had changed. Returns it, or
/// `None` when none is open. The caller holds the lock.
///
/// # Errors
/// [`Failure::Untouched`] when the journal cannot be read, [`Failure::Incomplete`] when not everything
/// could be put back.
pub fn recover(node: &mut dyn Backend, dir: &StateDir) -> Result<Option<Record>, Failure> {
    let Some(record) = dir.open_journal().map_err(Failure::Untouched)? else { return Ok(None) };
    let progress = progress(dir, &record).map_err(Failure::Untouched)?;
    restore(node, dir, &record, ForeignPolicy::Respect, progress, None)?;
    Ok(Some(record))
}

/// How often an undo is repeated: far more than one change can depend on another, and an end where other programs change
/// the same things without pause.
const MAX_ROUNDS: usize = 20;

/// Puts back what stood before the open transaction `record`, which came as far as `progress` says, verifies
/// that, and ends the transaction. `policy` says what becomes of what somebody else put in the way since. The
/// caller holds the lock.
///
/// Of NAT tables nothing is removed that neither the transaction nor `basis`, a plan that was shown, has put there or names:
/// it is a conflict, since whoever put it there would not be told.
///
/// # Errors
/// [`Failure::Incomplete`]; the journal stays, so that a later rollback goes on from there.
pub fn restore(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
    basis: Option<&Plan>,
) -> Result<(), Failure> {
    restore_kernel(node, dir, record, policy, progress, basis)?;
    end_restored(dir, record, || {})
}

/// The same for a pending apply: `tell` leaves word of it just before its transaction ends, so that there is no moment
/// without either.
pub(super) fn restore_pending(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    tell: impl FnOnce(),
) -> Result<(), Failure> {
    restore_kernel(node, dir, record, ForeignPolicy::Respect, TransactionProgress::Verified, None)?;
    end_restored(dir, record, tell)
}

/// Ends the open transaction of a node that is restored.
fn end_restored(dir: &StateDir, record: &Record, tell: impl FnOnce()) -> Result<(), Failure> {
    end_undone(dir, record, &record.saved_before, tell).map_err(|why| {
        let incomplete = Incomplete { is_restored: true, ..Incomplete::new(why, Vec::new()) };
        Failure::Incomplete(Box::new(incomplete))
    })
}

/// The part of [`restore`] that changes and verifies the node.
fn restore_kernel(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
    basis: Option<&Plan>,
) -> Result<(), Failure> {
    let mut undo = Undo::new(dir, record, policy, progress);
    let mut refused = None;
    let plan_back = |undo: &Undo, node: &mut dyn Backend| -> Result<Plan, Error> {
        let mut left = undo.plan(node)?;
        refuse_foreign_nat(&mut left, basis, record);
        Ok(left)
    };
    let mut left = plan_back(&undo, node).map_err(|why| Failure::incomplete(None, why, Vec::new()))?;
    undo.note(dir, &left);
    // Repeat as long as it helps: one change may have restored what another needs.
    for _ in 0..MAX_ROUNDS {
        if left.changes.is_empty() {
            break;
        }
        // An undo is never interrupted.
        refused = node.commit(&left.changes, Order::Undo, &Interrupt::new()).map_err(commit_error).err();
        let before = std::mem::take(&mut left);
        left =
            plan_back(&undo, node).map_err(|why| Failure::incomplete(None, why, before.changes.clone()))?;
        undo.note(dir, &left);
        if left == before {
            break;
        }
    }
    if let Err(why) = verify(&left) {
        let why = match refused {
            // With what is there now, which its message does not name.
            Some(stale) if stale.kind == Kind::Stale => Error { details: why.details, ..stale },
            Some(refused) => refused,
            None => why,
        };
        // What somebody else put in the way meanwhile is theirs to clear; told is the whole way back.
        undo.policy = ForeignPolicy::Adopt;
        let whole = undo.plan(node).map_or(left.changes.clone(), |plan| plan.changes);
        let is_foreign = left.changes.is_empty() && left.unknown.is_empty();
        return Err(Failure::Incomplete(Box::new(Incomplete {
            is_foreign,
            ..Incomplete::new(why, in_undo_order(whole))
        })));
    }
    Ok(())
}

/// Makes a conflict of every NAT change of `back` that would remove objects of which neither the transaction nor `basis`
/// knows: that table stays.
pub fn refuse_foreign_nat(back: &mut Plan, basis: Option<&Plan>, record: &Record) {
    let Plan { changes, conflicts, .. } = back;
    changes.retain(|change| {
        let Change::Nat(change) = change else { return true };
        let objects = foreign_objects(change, basis, record);
        let is_known = objects.is_empty();
        if !is_known {
            conflicts.push(Conflict::ForeignNat { family: change.family, objects });
        }
        is_known
    });
}

/// The objects that `change` would remove, and that are in no table of `basis` and `record`.
fn foreign_objects(change: &NatChange, basis: Option<&Plan>, record: &Record) -> Vec<NatObject> {
    let changes = basis.iter().flat_map(|basis| &basis.changes);
    let shown = changes.filter_map(|shown| match shown {
        Change::Nat(shown) if shown.family == change.family => shown.before.as_ref(),
        Change::Nat(_) | Change::Route(_) | Change::Sysctl(_) => None,
    });
    let tables = [&record.before.nat, &record.written_nat].map(|tables| tables.get(change.family));
    let known: Vec<NatObject> =
        shown.chain(tables.into_iter().flatten()).flat_map(NatTable::objects).collect();
    let found = change.before.iter().flat_map(NatTable::objects);
    found.filter(|object| !known.contains(object)).collect()
}

/// The way back from a transaction.
struct Undo<'a> {
    record: &'a Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
    /// Sysctl values that are known to be foreign.
    foreign: SysctlValues,
}

impl<'a> Undo<'a> {
    fn new(dir: &StateDir, record: &'a Record, policy: ForeignPolicy, progress: TransactionProgress) -> Self {
        // Where they cannot be read, what is known from the values alone has to do.
        let foreign = dir.foreign().unwrap_or_default();
        Self { record, policy, progress, foreign }
    }

    /// Computes the changes that restore the previous state.
    fn plan(&self, node: &mut dyn Backend) -> Result<Plan, Error> {
        let Self { record, policy, progress, foreign } = self;
        let observed = node.observe(&Scope::of_touched(&record.touched))?.state;
        let (mut target, mut conflicts) = (record.before.clone(), Vec::new());
        if *policy == ForeignPolicy::Respect {
            let restoration = Restoration {
                original: &record.before.sysctls,
                written: &record.written,
                foreign,
                progress: *progress,
            };
            conflicts = restoration.foreign(&observed.sysctls);
            foreign::leave(&mut target.sysctls, &conflicts);
        }
        let restored = record.touched.sysctls.iter().cloned().collect();
        foreign::leave_deviating(&mut target.sysctls, &restored, &observed.sysctls);
        let part = State { sysctls: observed.sysctls.clone(), ..record.touched.part_of(&observed) };
        let mut back = plan(&target, &part, *policy);
        back.conflicts.extend(conflicts.into_iter().map(Conflict::Sysctl));
        Ok(back)
    }

    /// Keeps in mind which sysctls are foreign, before a switch that goes back makes them look otherwise.
    fn note(&mut self, dir: &StateDir, left: &Plan) {
        self.progress = TransactionProgress::Partial;
        let found = left.conflicts.iter().filter_map(|conflict| match conflict {
            Conflict::Sysctl(ForeignSysctl { key, live, .. }) => Some((key.clone(), live.clone())),
            Conflict::Route { .. } | Conflict::Nat { .. } | Conflict::ForeignNat { .. } => None,
        });
        let mut foreign = self.foreign.clone();
        foreign.extend(found);
        if foreign != self.foreign {
            self.foreign = foreign;
            // A disk that fails does not keep a node from being rolled back.
            let _ = dir.write_foreign(&self.foreign);
        }
    }
}

/// Ends the open transaction `record`, whose changes are undone; `saved` are the saved values from now on.
/// `tell` is called just before that.
fn end_undone(
    dir: &StateDir,
    record: &Record,
    saved: &OriginalSysctls,
    tell: impl FnOnce(),
) -> Result<(), Error> {
    // First what goes: on a full disk that makes room for what is written, if anything has to be.
    dir.forget_applied(record)?;
    // A file that is damaged is written anew: the journal knows what was in it.
    if dir.saved().ok().as_ref() != Some(saved) {
        dir.write_saved(saved)?;
    }
    tell();
    dir.forget()
}

/// Gives up what a rollback could not put back, and ends its transaction; a route of hostgw's that stands in
/// its place goes all the same. Returns what is left, in words. The caller holds the lock.
///
/// # Errors
/// [`Failure::Incomplete`]: whatever was undone stays undone, and the transaction stays open.
pub fn abandon(node: &mut dyn Backend, dir: &StateDir, record: &Record) -> Result<Vec<String>, Failure> {
    let incomplete = |why| Failure::incomplete(None, why, Vec::new());
    let undo = Undo::new(dir, record, ForeignPolicy::Respect, TransactionProgress::Partial);
    let mut left = undo.plan(node).map_err(incomplete)?;
    refuse_foreign_nat(&mut left, None, record);
    let incomplete = |why| Failure::incomplete(None, why, left.changes.clone());
    let saved = still_owed(dir, record, &left).map_err(incomplete)?;
    let own: Vec<Change> = left.changes.iter().filter_map(without_own).collect();
    node.commit(&own, Order::Undo, &Interrupt::new()).map_err(|error| incomplete(commit_error(error)))?;
    end_undone(dir, record, &saved, || {}).map_err(incomplete)?;
    let changes = left.changes.iter().map(|change| format!("not restored: {change}"));
    Ok(changes.chain(left.conflicts.iter().map(ToString::to_string)).collect())
}

/// The saved values from before the transaction, and those of sysctls that it changed and that could not be
/// put back: a later destroy still owes them. What somebody else has written since is theirs from now on.
fn still_owed(dir: &StateDir, record: &Record, left: &Plan) -> Result<OriginalSysctls, Error> {
    let mut saved = record.saved_before.clone();
    for change in sysctl_changes(left) {
        let belongs = |key: &SysctlKey, value: &OriginalValue| {
            *key == change.key || value.with.as_ref() == Some(&change.key)
        };
        let now = dir.saved()?;
        let owed = now.0.iter().filter(|(key, value)| belongs(key, value));
        for (key, value) in owed {
            saved.0.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    for conflict in &left.conflicts {
        if let Conflict::Sysctl(foreign) = conflict {
            saved.0.remove(&foreign.key);
        }
    }
    Ok(saved)
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

/// The order of the changes in an undo.
fn in_undo_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| match change {
        Change::Sysctl(_) => 0,
        Change::Route(_) => 1,
        Change::Nat(_) => 2,
    });
    changes
}

/// What must change to get back to what stood before `record`, which came as far as `progress` says.
///
/// # Errors
/// When the node cannot be read.
pub fn undo_plan(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
) -> Result<Plan, Error> {
    Undo::new(dir, record, policy, progress).plan(node)
}
