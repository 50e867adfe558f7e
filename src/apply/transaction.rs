//! Commits a plan completely, or restores the previous state.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    config::{Document, StoredConfig},
    error::{Error, Kind},
    forwarding::{self, ForwardingModel, Ledger, PathFault, Paths},
    model::SysctlKey,
    plan::{
        self, Action, Change, Conflict, Desired, ForeignPolicy, ForeignSysctl, NatChange, ObjectKey,
        Observed, OriginalSysctls, OriginalValue, Plan, Prepared, Restoration, RouteChange, Scope,
        SysctlChange, SysctlValues, Touched, TransactionProgress, foreign, plan,
    },
    record::{Command, LastApplied, Pending, Record, TransactionMeta},
    state::{self, NatObject, NatTable, RouteList, State, Tables, Unknown},
};

use super::{Backend, BaselineCheck, CommitError, Interrupt, Order, StateDir, checks::repeat_baseline};

/// The input of a transaction.
#[derive(Debug)]
pub struct Request<'a> {
    /// The command that the transaction belongs to.
    pub metadata: &'a TransactionMeta,
    /// The configuration of the plan, recorded with the applied state.
    pub configuration: Option<&'a Document>,
    /// The state that must hold after the commit.
    pub desired: &'a State,
    /// Whether its routes differ from those that the configuration alone asks for.
    pub is_adapted: bool,
    /// The scope to observe for the verification.
    pub scope: &'a Scope,
    /// The plan to commit.
    pub plan: &'a Plan,
    /// The live state that the plan was made from.
    pub observed: &'a State,
    /// The sysctls that the plan restores to their original values.
    pub released: &'a BTreeSet<SysctlKey>,
    /// How the plan treats foreign objects.
    pub policy: ForeignPolicy,
    /// The checks that must still pass after the commit: see [`run_baseline`](super::run_baseline).
    pub checks: &'a [BaselineCheck],
    /// The pod paths. Those that work must still work after the commit.
    pub paths: Option<&'a Paths<'a>>,
    /// How long the apply is pending confirmation; `None` to commit at once.
    pub confirm_within: Option<Duration>,
    /// Whether it restores what the last apply established. Then it leaves no record, and a rollback undoes that apply.
    pub is_repair: bool,
    /// The objects that the plan leaves as they are.
    pub withheld: Option<&'a BTreeSet<ObjectKey>>,
}

impl<'a> Request<'a> {
    /// A transaction that commits a plan at once, without checks.
    #[must_use]
    pub const fn new(prepared: &'a Prepared, metadata: &'a TransactionMeta) -> Self {
        Self {
            metadata,
            configuration: None,
            desired: &prepared.desired.state,
            is_adapted: prepared.desired.is_adapted,
            scope: &prepared.scope,
            plan: &prepared.plan,
            observed: &prepared.observed.state,
            released: &prepared.desired.released,
            policy: prepared.policy,
            confirm_within: None,
            is_repair: false,
            withheld: None,
            checks: &[],
            paths: None,
        }
    }
}

/// A transaction that was committed and verified.
#[derive(Debug, Default)]
pub struct Verified {
    /// The pending apply, if the request asks for a confirmation.
    pub pending: Option<Pending>,
    /// The pod paths that do not work, and did not before.
    pub faults: Vec<PathFault>,
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

/// An incomplete rollback.
#[derive(Debug)]
pub struct Incomplete {
    /// Why the transaction failed; `None` if the rollback was requested.
    pub cause: Option<Error>,
    /// Why the rollback is incomplete.
    pub why: Error,
    /// The remaining changes that restore the previous state.
    pub left: Vec<Change>,
    /// The node is restored; only the records could not be updated.
    pub is_restored: bool,
    /// Only conflicts with foreign objects are left.
    pub only_conflicts: bool,
}

impl Incomplete {
    const fn new(why: Error, left: Vec<Change>) -> Self {
        Self { cause: None, why, left, is_restored: false, only_conflicts: false }
    }
}

/// An error before the first change.
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

/// Commits a plan as one transaction: writes the journal, commits, verifies the live state and the baseline checks,
/// and rolls everything back on any failure. The caller holds the lock, and no transaction is open.
///
/// # Errors
/// Returns a [`Failure`].
pub fn run(
    node: &mut dyn Backend,
    dir: &StateDir,
    request: &Request,
    interrupt: &Interrupt,
) -> Result<Verified, Failure> {
    ensure_none_is_open(dir).map_err(Failure::Untouched)?;
    let saved_before = dir.saved().map_err(Failure::Untouched)?;
    let record = record(dir, request, saved_before).map_err(Failure::Untouched)?;
    dir.begin(&record).map_err(Failure::Untouched)?;
    let mut written = Vec::new();
    let cause = match commit_and_verify(node, dir, request, &record, interrupt, &mut written) {
        Ok(verified) => return Ok(verified),
        Err(Stopped::Untouched(cause)) => {
            return Err(match end_undone(dir, &record, &record.saved_before, || {}) {
                Ok(()) => Failure::Untouched(cause),
                Err(why) => Failure::incomplete(Some(cause), why, Vec::new()),
            });
        }
        Err(Stopped::Midway(cause)) => cause,
    };
    // A sysctl that was not written yet must not be restored, whatever its value is by now.
    let record = record.with_sysctl_changes(&written);
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

/// Refuses to overwrite a journal, which a rollback would need.
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
        metadata: request.metadata.clone(),
        totals: request.plan.totals(),
        before: touched.part_of(request.observed),
        touched,
        written,
        written_nat: nat_tables(request.plan),
        saved_before,
    })
}

/// The tables that `plan` creates or updates.
fn nat_tables(plan: &Plan) -> Tables {
    let mut tables = Tables::default();
    for nat in plan.changes.iter().filter_map(Change::as_nat) {
        tables.get_mut(nat.family).clone_from(&nat.after);
    }
    tables
}

/// How far a transaction got before it stopped.
enum Stopped {
    Untouched(Error),
    Midway(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Midway(error)
    }
}

/// Makes and verifies the changes of a transaction. Adds each sysctl change to `written` before it is made.
fn commit_and_verify<'a>(
    node: &mut dyn Backend,
    dir: &StateDir,
    request: &Request<'a>,
    record: &Record,
    interrupt: &Interrupt,
    written: &mut Vec<&'a SysctlChange>,
) -> Result<Verified, Stopped> {
    let before = judge_before(node, request).map_err(Stopped::Untouched)?;
    let saved = saved_during(request, record);
    if saved != record.saved_before {
        dir.write_saved(&saved)?;
    }
    // The sysctls are the last changes of a plan.
    let changes = &request.plan.changes;
    let first_sysctl = changes.partition_point(|change| !matches!(change, Change::Sysctl(_)));
    let (before_sysctls, sysctls) = changes.split_at(first_sysctl);
    let is_untouched = before_sysctls.is_empty();
    node.commit(before_sysctls, Order::Forward, interrupt).map_err(|error| classify(error, true))?;
    ensure_sysctls_unchanged(node, record).map_err(|error| classify(error, is_untouched))?;
    for change in sysctls {
        let Change::Sysctl(sysctl) = change else { continue };
        written.push(sysctl);
        node.commit(std::slice::from_ref(change), Order::Forward, interrupt).map_err(|error| {
            if matches!(error, CommitError::Interrupted | CommitError::SysctlChanged { .. }) {
                written.pop();
            }
            classify(error, is_untouched && written.is_empty())
        })?;
    }
    let observed = node.observe(request.scope)?;
    let mut left = plan(request.desired, &observed.state, request.policy);
    if let Some(withheld) = request.withheld {
        left.exclude(withheld);
    }
    verify(&left)?;
    repeat_baseline(node, request.checks, interrupt)?;
    let faults = compare_paths(request, &before, &judge(node, request)?, &observed)?;
    if interrupt.is_raised() {
        return Err(commit_error(CommitError::Interrupted).into());
    }
    let kept = without_released(saved.clone(), request.desired, request.released);
    if kept != saved {
        dir.write_saved(&kept)?;
    }
    if request.is_repair {
        dir.end_repaired()?;
        return Ok(Verified { pending: None, faults });
    }
    dir.write_last_applied(&last_applied(request, record))?;
    let Some(timeout) = request.confirm_within else {
        dir.commit(record)?;
        return Ok(Verified { pending: None, faults });
    };
    let pending = Pending::from_now(record.id, timeout);
    dir.mark_pending(&pending)?;
    Ok(Verified { pending: Some(pending), faults })
}

/// Asks the node which pod paths work.
fn judge(node: &mut dyn Backend, request: &Request) -> Result<Ledger, Error> {
    request.paths.map_or_else(|| Ok(Ledger::default()), |paths| paths.judge(|packets| node.verdicts(packets)))
}

/// Asks the node which pod paths work before the commit. Until then, most nodes to which it adds routes are alike.
fn judge_before(node: &mut dyn Backend, request: &Request) -> Result<Ledger, Error> {
    /// With fewer, all questions are asked sooner than the nodes are compared.
    const MIN_ADDED: usize = 256;
    let is_added = |change: &&Change| matches!(change, Change::Route(route) if route.before.is_empty());
    match request.paths {
        Some(paths) if request.plan.changes.iter().filter(is_added).take(MIN_ADDED).count() == MIN_ADDED => {
            paths.judge_alike(&request.observed.routes, |packets| node.verdicts(packets))
        }
        _ => judge(node, request),
    }
}

/// Verifies that every path that worked before the commit still works. Returns why others do not.
fn compare_paths(
    request: &Request,
    before: &Ledger,
    after: &Ledger,
    observed: &Observed,
) -> Result<Vec<PathFault>, Error> {
    let Some(paths) = request.paths else { return Ok(Vec::new()) };
    let blocked = after.blocked();
    if blocked.is_empty() {
        return Ok(Vec::new());
    }
    let model = ForwardingModel::of(&observed.state, &observed.host);
    let explain = |blocked: &[usize]| -> Vec<PathFault> {
        let faults = forwarding::explain(paths, blocked, &model).into_iter();
        let Request { desired, released, observed, .. } = *request;
        faults.map(|fault| fault.with_configured_sysctls(desired, released, observed)).collect()
    };
    let worse = explain(&after.worse_than(before));
    if worse.is_empty() {
        return Ok(explain(&blocked));
    }
    let details = worse.iter().map(|fault| format!("{}: {}", fault.summary(), fault.why));
    Err(Error::new(Kind::RolledBack, "the change caused pod traffic to be lost or diverted:")
        .with_details(details)
        .with_hint_if(worse.iter().find_map(|fault| fault.remedy.clone())))
}

/// Verifies that no other program has written the sysctls since the plan was made: a switch sysctl would overwrite
/// such a value unnoticed.
fn ensure_sysctls_unchanged(node: &mut dyn Backend, record: &Record) -> Result<(), CommitError> {
    if record.touched.sysctls.is_empty() {
        return Ok(());
    }
    let live = node.sysctls(&record.touched.sysctls);
    let foreign = record.before.sysctls.iter().find_map(|(key, before)| {
        let now = live.get(key).filter(|now| *now != before)?;
        Some(CommitError::SysctlChanged { key: key.clone(), now: now.clone() })
    });
    foreign.map_or(Ok(()), Err)
}

fn last_applied(request: &Request, record: &Record) -> LastApplied {
    LastApplied {
        id: record.id,
        metadata: record.metadata.clone(),
        state: match record.metadata.command {
            // Released sysctls are not managed any more.
            Command::Apply => {
                let State { routes, nat, sysctls, unknown } = request.desired;
                // The configuration gives the routes again.
                let gives_routes = request.configuration.is_some() && !request.is_adapted;
                let routes = if gives_routes { RouteList::default() } else { routes.clone() };
                let mut state =
                    State { routes, nat: nat.clone(), sysctls: sysctls.clone(), unknown: unknown.clone() };
                state.sysctls.retain(|key, _| !request.released.contains(key));
                state
            }
            Command::Destroy => State::default(),
        },
        egress_interface: request.desired.device().cloned(),
        configuration: request.configuration.map(StoredConfig::from),
    }
}

/// Classifies the error of a commit. `is_untouched` says whether nothing has been changed yet.
fn classify(error: CommitError, is_untouched: bool) -> Stopped {
    match error {
        CommitError::Stale { .. } => Stopped::Untouched(commit_error(error)),
        CommitError::SysctlChanged { .. } if is_untouched => {
            let error = commit_error(error);
            let message = format!("{}; nothing was changed", error.message);
            Stopped::Untouched(Error { kind: Kind::Stale, message: message.into(), ..error })
        }
        _ => Stopped::Midway(commit_error(error)),
    }
}

fn commit_error(error: CommitError) -> Error {
    match error {
        CommitError::Interrupted => Error::new(Kind::Interrupted, "interrupted"),
        CommitError::Stale { why, hint } => Error::new(Kind::Stale, why).with_hint_if(hint),
        CommitError::Refused { object, why, hint } => {
            Error::new(Kind::RolledBack, format!("cannot write {object}: {why}")).with_hint_if(hint)
        }
        CommitError::SysctlChanged { key, now } => {
            Error::new(Kind::RolledBack, format!("another program changed {key} to {now}"))
                .with_hint("run the command again to plan from the new value")
        }
    }
}

/// Verifies the live state. A commit that reported success but left a difference is a failure, too.
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
    let unknown = plan
        .unknown
        .iter()
        .map(|Unknown { part, reason, .. }| format!("{part} is no longer readable: {reason}"));
    let hint = state::remedy_for(&plan.unknown).cloned();
    let message = if plan.changes.is_empty() && !plan.conflicts.is_empty() {
        "conflicts with objects that hostgw does not manage:"
    } else {
        "the live state does not match the plan"
    };
    let details = differences.chain(conflicts).chain(unknown);
    Err(Error::new(Kind::RolledBack, message).with_details(details).with_hint_if(hint))
}

/// Describes a NAT difference after a commit, including the foreign object that causes it.
fn nat_difference((_, before, after): &(Action, Option<NatObject>, Option<NatObject>)) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("not applied: {after}; there is {before}"),
        (Some(before), None) => format!("present but not planned: {before}"),
        (None, Some(after)) => format!("not applied: {after}"),
        (None, None) => String::new(),
    }
}

/// Returns the saved sysctl values during the commit, including those of sysctls that it writes for the first time.
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

/// Removes the `released` keys from the saved values. A key that a desired switch still rewrites is kept until the
/// switch is released.
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
    plan.changes.iter().filter_map(Change::as_sysctl)
}

/// Returns how far the open transaction `record` got.
///
/// # Errors
/// Returns an error if the records cannot be read.
pub fn progress(dir: &StateDir, record: &Record) -> Result<TransactionProgress, Error> {
    let is_pending = dir.pending()?.is_some_and(|(pending, _)| pending.id == record.id);
    Ok(if is_pending { TransactionProgress::Verified } else { TransactionProgress::Partial })
}

/// Rolls back the transaction that a crash left open, and returns it; `None` if no transaction is open. The caller
/// holds the lock.
///
/// # Errors
/// Returns [`Failure::Untouched`] if the journal cannot be read, and [`Failure::Incomplete`] if something could not be
/// restored.
pub fn recover(node: &mut dyn Backend, dir: &StateDir) -> Result<Option<Record>, Failure> {
    let Some(record) = dir.open_journal().map_err(Failure::Untouched)? else { return Ok(None) };
    let progress = progress(dir, &record).map_err(Failure::Untouched)?;
    restore(node, dir, &record, ForeignPolicy::Respect, progress, None)?;
    Ok(Some(record))
}

/// The maximum number of undo rounds: far more than the longest chain of dependent changes, and a limit in case other
/// programs keep changing the same objects.
const MAX_ROUNDS: usize = 20;

/// Restores the state from before the open transaction `record`, which got as far as `progress`; verifies the result,
/// and ends the transaction. `policy` controls how conflicting foreign objects are treated. The caller holds the lock.
///
/// Objects in NAT tables that are neither in the transaction nor in `basis`, a plan that the user has seen, are not
/// removed but reported as a conflict.
///
/// # Errors
/// Returns [`Failure::Incomplete`]. The journal stays, so a later rollback can resume.
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

/// Same as [`restore`], for a pending apply. Calls `report` just before the transaction ends, so that a reader always
/// sees either the pending apply or its outcome.
pub(super) fn restore_pending(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    report: impl FnOnce(),
) -> Result<(), Failure> {
    restore_kernel(node, dir, record, ForeignPolicy::Respect, TransactionProgress::Verified, None)?;
    end_restored(dir, record, report)
}

/// Ends the open transaction of a restored node.
fn end_restored(dir: &StateDir, record: &Record, report: impl FnOnce()) -> Result<(), Failure> {
    end_undone(dir, record, &record.saved_before, report).map_err(|why| {
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
    let mut undo = UndoContext::new(dir, record, policy, progress);
    let mut refused = None;
    let plan_undo = |undo: &UndoContext, node: &mut dyn Backend| -> Result<Plan, Error> {
        let mut left = undo.plan(node)?;
        refuse_foreign_nat(&mut left, basis, record);
        Ok(left)
    };
    let mut left = plan_undo(&undo, node).map_err(|why| Failure::incomplete(None, why, Vec::new()))?;
    undo.remember_foreign(dir, &left);
    // Repeat while it makes progress: one change may restore what another depends on.
    for _ in 0..MAX_ROUNDS {
        if left.changes.is_empty() {
            break;
        }
        // An undo cannot be interrupted.
        refused = node.commit(&left.changes, Order::Undo, &Interrupt::new()).map_err(commit_error).err();
        let before = std::mem::take(&mut left);
        left =
            plan_undo(&undo, node).map_err(|why| Failure::incomplete(None, why, before.changes.clone()))?;
        undo.remember_foreign(dir, &left);
        if left == before {
            break;
        }
    }
    if let Err(why) = verify(&left) {
        let why = match refused {
            // Its message does not name the live objects; the verification does.
            Some(stale) if stale.kind == Kind::Stale => Error { details: why.details, ..stale },
            Some(refused) => refused,
            None => why,
        };
        // Report all remaining changes, including the conflicts that the user must resolve.
        undo.policy = ForeignPolicy::Adopt;
        let remaining = undo.plan(node).map_or(left.changes.clone(), |plan| plan.changes);
        let only_conflicts = left.changes.is_empty() && left.unknown.is_empty();
        return Err(Failure::Incomplete(Box::new(Incomplete {
            only_conflicts,
            ..Incomplete::new(why, sort_for_undo(remaining))
        })));
    }
    Ok(())
}

/// Turns every NAT change of `back` into a conflict if it would remove objects that neither the transaction nor
/// `basis` contains.
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

/// Returns the objects that `change` would remove and that are in no table of `basis` or `record`.
fn foreign_objects(change: &NatChange, basis: Option<&Plan>, record: &Record) -> Vec<NatObject> {
    let changes = basis.iter().flat_map(|basis| &basis.changes);
    let shown = changes.filter_map(Change::as_nat).filter(|shown| shown.family == change.family);
    let shown = shown.filter_map(|shown| shown.before.as_ref());
    let tables = [&record.before.nat, &record.written_nat].map(|tables| tables.get(change.family));
    let known: Vec<NatObject> =
        shown.chain(tables.into_iter().flatten()).flat_map(NatTable::objects).collect();
    let found = change.before.iter().flat_map(NatTable::objects);
    found.filter(|object| !known.contains(object)).collect()
}

/// The undo of a transaction.
struct UndoContext<'a> {
    record: &'a Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
    /// Sysctl values known to be foreign.
    foreign: SysctlValues,
}

impl<'a> UndoContext<'a> {
    fn new(dir: &StateDir, record: &'a Record, policy: ForeignPolicy, progress: TransactionProgress) -> Self {
        // If the file is unreadable, foreign values are still recognized by comparison.
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
            foreign::keep(&mut target.sysctls, &conflicts);
        }
        let restored = record.touched.sysctls.iter().cloned().collect();
        foreign::keep_deviating(&mut target.sysctls, &restored, &observed.sysctls);
        let part = State { sysctls: observed.sysctls.clone(), ..record.touched.part_of(&observed) };
        let mut back = plan(&target, &part, *policy);
        back.conflicts.extend(conflicts.into_iter().map(Conflict::Sysctl));
        Ok(back)
    }

    /// Remembers which sysctls are foreign, before restoring a switch makes them indistinguishable.
    fn remember_foreign(&mut self, dir: &StateDir, left: &Plan) {
        self.progress = TransactionProgress::Partial;
        let found = left.conflicts.iter().filter_map(|conflict| match conflict {
            Conflict::Sysctl(ForeignSysctl { key, live, .. }) => Some((key.clone(), live.clone())),
            Conflict::Route { .. } | Conflict::Nat { .. } | Conflict::ForeignNat { .. } => None,
        });
        let mut foreign = self.foreign.clone();
        foreign.extend(found);
        if foreign != self.foreign {
            self.foreign = foreign;
            // A failing disk must not prevent the rollback.
            let _ = dir.write_foreign(&self.foreign);
        }
    }
}

/// Ends the open transaction `record`, whose changes are undone, with `saved` as the saved sysctl values. Calls
/// `report` just before.
fn end_undone(
    dir: &StateDir,
    record: &Record,
    saved: &OriginalSysctls,
    report: impl FnOnce(),
) -> Result<(), Error> {
    // Remove first: on a full disk, this makes room for the write below.
    dir.remove_applied(record)?;
    // Replace a damaged file, too: the journal holds its content.
    if dir.saved().ok().as_ref() != Some(saved) {
        dir.write_saved(saved)?;
    }
    report();
    dir.end_rolled_back()
}

/// Gives up what a rollback could not restore, and ends the transaction. Managed routes in the place of an unrestored
/// object are removed nevertheless. Returns a line for each object that is left. The caller holds the lock.
///
/// # Errors
/// Returns [`Failure::Incomplete`]. The changes undone so far stay undone, and the transaction stays open.
pub fn abandon(node: &mut dyn Backend, dir: &StateDir, record: &Record) -> Result<Vec<String>, Failure> {
    let incomplete = |why| Failure::incomplete(None, why, Vec::new());
    let undo = UndoContext::new(dir, record, ForeignPolicy::Respect, TransactionProgress::Partial);
    let mut left = undo.plan(node).map_err(incomplete)?;
    refuse_foreign_nat(&mut left, None, record);
    let incomplete = |why| Failure::incomplete(None, why, left.changes.clone());
    let saved = unrestored_sysctls(dir, record, &left).map_err(incomplete)?;
    let removals: Vec<Change> = left.changes.iter().filter_map(remove_managed).collect();
    node.commit(&removals, Order::Undo, &Interrupt::new())
        .map_err(|error| incomplete(commit_error(error)))?;
    end_undone(dir, record, &saved, || {}).map_err(incomplete)?;
    let changes = left.changes.iter().map(|change| format!("not restored: {change}"));
    Ok(changes.chain(left.conflicts.iter().map(ToString::to_string)).collect())
}

/// The saved values from before the transaction, plus those of sysctls that could not be restored, which a later
/// destroy must restore. Sysctls that another program has written are no longer included.
fn unrestored_sysctls(dir: &StateDir, record: &Record, left: &Plan) -> Result<OriginalSysctls, Error> {
    let mut saved = record.saved_before.clone();
    for change in sysctl_changes(left) {
        let is_affected = |key: &SysctlKey, value: &OriginalValue| {
            *key == change.key || value.with.as_ref() == Some(&change.key)
        };
        let now = dir.saved()?;
        let affected = now.0.iter().filter(|(key, value)| is_affected(key, value));
        for (key, value) in affected {
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

/// Removes the managed routes from the key of a route that cannot be restored.
fn remove_managed(change: &Change) -> Option<Change> {
    let Change::Route(change) = change else { return None };
    let after: RouteList = change.before.iter().filter(|route| !route.is_owned()).cloned().collect();
    (after != change.before).then(|| Change::Route(RouteChange { after, ..change.clone() }))
}

/// Drops the saved values of released sysctls that need no write because they already have their original value.
/// Otherwise they would later overwrite a foreign value. The caller holds the lock.
///
/// # Errors
/// Returns an error if the records cannot be read or written.
pub fn drop_restored_sysctls(dir: &StateDir, desired: &Desired) -> Result<(), Error> {
    ensure_none_is_open(dir)?;
    let saved = dir.saved()?;
    let remaining = without_released(saved.clone(), &desired.state, &desired.released);
    if remaining == saved { Ok(()) } else { dir.write_saved(&remaining) }
}

/// Sorts changes in the order of an undo.
fn sort_for_undo(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| change.kind().undo_order());
    changes
}

/// Computes the plan that restores the state from before `record`, which got as far as `progress`.
///
/// # Errors
/// Returns an error if the node cannot be read.
pub fn plan_rollback(
    node: &mut dyn Backend,
    dir: &StateDir,
    record: &Record,
    policy: ForeignPolicy,
    progress: TransactionProgress,
) -> Result<Plan, Error> {
    UndoContext::new(dir, record, policy, progress).plan(node)
}
