//! `hostgw status`

use std::{fmt::Write as _, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    agent_status::AgentStatus,
    arguments::StatusOptions,
    boot_files,
    history::{self, NumberedTransaction, TransactionSummary},
    output::Output,
};
use crate::{
    apply::StateDir,
    clock::time,
    error::{Error, Kind},
    kernel::LiveNode,
    model::{Cluster, Family},
    plan::{self, Desired, ForeignPolicy, Observe, Observed, OriginalSysctls, Reason, Scope, Totals},
    reconcile::{described, last_applied, readable, state_dir},
    record::{Decision, LastApplied, Outcome, Pending, Record},
    render::{self, BootFile, FindingEntry, Report},
    state::{self, NatTable, Route, State, StatePart, Unknown},
    text::{Untrusted, count, list, printable},
};

/// The result of `hostgw status --json`. Parts that could not be read are null and listed under `unknown`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw status")]
pub(super) struct Status {
    /// The version of this format.
    format: u32,
    /// The network namespace: the name of its directory in the state directory.
    namespace: String,
    /// The managed objects on this node.
    managed: ManagedObjects,
    /// The number of sysctls whose original values hostgw keeps.
    original_sysctl_count: Option<usize>,
    /// The last committed transaction.
    last_transaction: Option<NumberedTransaction>,
    /// The transaction that is running or was interrupted.
    unfinished: Option<UnfinishedTransaction>,
    /// The pending apply.
    pending: Option<Wait>,
    /// The last apply, if it was rolled back because it was not confirmed.
    unconfirmed: Option<Unconfirmed>,
    /// The agent; absent if none has run since the machine booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentStatus>,
    /// The changes that would undo the drift since the last apply; absent if no apply is in effect.
    drift: Option<Report>,
    /// The files on this node that restore part of its state at boot, compared with the last apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    boot_files: Vec<BootFile>,
    /// Why a plan from the last applied configuration would fail on this machine.
    problems: Vec<Untrusted>,
    /// The pod paths that do not work, or not as planned, for reasons other than drift.
    findings: Vec<FindingEntry>,
    /// Whether the pod paths were checked. They are not if the node has no pod interface.
    #[serde(skip)]
    are_paths_known: bool,
    /// The parts of the live state that could not be read.
    unknown: Vec<Unknown>,
}

/// A transaction that is running or was interrupted.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct UnfinishedTransaction {
    /// The ID of the transaction.
    id: u64,
    /// What happened to it, and what to do next.
    message: String,
}

/// The managed objects on a node.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ManagedObjects {
    /// Routes, as `ip route` prints them.
    routes: Vec<String>,
    /// NAT objects, as `nft add` takes them.
    nat: Option<Vec<String>>,
}

/// Shows what hostgw manages here, the last apply, and the drift since then.
pub(super) fn run(options: &StatusOptions, output: &Output) -> VerbResult {
    if options.history {
        history::show(options.json, output)?;
        return Ok(0);
    }
    let status = gather()?;
    if options.json {
        output.json(&status)?;
    } else {
        output.result(&text(&status, output))?;
    }
    let has_drifted = status.drift.as_ref().is_some_and(|drift| drift.totals != Totals::default());
    if status.unknown.is_empty() {
        return Ok(if options.detailed_exitcode && has_drifted { 2 } else { 0 });
    }
    output.incomplete("the status", state::remedy_for(&status.unknown));
    Err(VerbFailure::AlreadyReported(Kind::Incomplete))
}

/// A pending apply.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Wait {
    /// The ID that `hostgw confirm` and `hostgw cancel` accept.
    id: u64,
    #[serde(flatten)]
    summary: TransactionSummary,
    /// The deadline for confirming it.
    deadline: String,
    /// The time until the deadline, in seconds.
    remaining_seconds: u64,
    /// The supervisor, which rolls it back; absent if it was killed.
    supervisor: Option<String>,
    /// Whether the supervisor is stopped, as by SIGSTOP, and so cannot roll back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    supervisor_stopped: bool,
    /// Whether the deadline has passed.
    #[serde(skip)]
    is_over: bool,
    /// The decision, if the apply has not ended yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
}

/// An apply that was not confirmed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Unconfirmed {
    #[serde(flatten)]
    summary: TransactionSummary,
    /// The ID of the apply.
    id: u64,
    /// How the apply ended.
    decision: Decision,
    /// The deadline for confirming it.
    deadline: String,
    /// Why the rollback is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Untrusted>,
}

/// Warns of a pending apply: when it rolls back, or why it does not, and what to do about it.
pub(super) fn warn_of_pending(dir: &StateDir, record: &Record, pending: &Pending, output: &Output) {
    match Wait::of(dir, record, pending).described() {
        (text, Some(help)) => output.warn_with_help(&text, &help),
        (text, None) => output.warn(&text),
    }
}

impl Wait {
    fn of(dir: &StateDir, record: &Record, pending: &Pending) -> Self {
        let holder = dir.holder();
        Self {
            summary: TransactionSummary::of(&record.metadata),
            deadline: time(pending.until),
            remaining_seconds: pending.remaining().as_secs(),
            id: pending.id,
            supervisor: holder.as_ref().map(ToString::to_string),
            is_over: pending.remaining().is_zero(),
            supervisor_stopped: holder.is_some_and(|holder| holder.stopped().is_some()),
            decision: dir.decision(pending).ok().flatten(),
        }
    }

    fn text(&self) -> String {
        match self.described() {
            (text, Some(help)) => format!("{text}; {help}"),
            (text, None) => text,
        }
    }

    /// Says what happens to the apply, and what to do about it.
    fn described(&self) -> (String, Option<String>) {
        let Self { id, summary, deadline, remaining_seconds, supervisor, decision, .. } = self;
        let Self { supervisor_stopped, is_over, .. } = *self;
        let named = summary.named_by(*id);
        if let Some(decision) = decision {
            let happened = match decision {
                Decision::Confirmed => "was confirmed",
                Decision::Canceled => "was canceled",
                Decision::Expired => "expired",
            };
            return match (supervisor, decision) {
                (Some(supervisor), Decision::Confirmed) => {
                    (format!("{named} {happened}; being recorded ({supervisor})"), None)
                }
                (Some(supervisor), _) => {
                    (format!("{named} {happened}; rollback in progress ({supervisor})"), None)
                }
                (None, Decision::Confirmed) => (
                    format!("{named} {happened}, but this is not recorded yet"),
                    Some("run `hostgw confirm`".to_owned()),
                ),
                (None, _) => (
                    format!("{named} {happened}, but has not been rolled back"),
                    Some("run `hostgw rollback`".to_owned()),
                ),
            };
        }
        let decide = || Some(format!("run `hostgw confirm {id}` or `hostgw cancel {id}`"));
        match supervisor {
            Some(supervisor) if is_over && supervisor_stopped => (
                format!(
                    "{named} was not confirmed by {deadline}, and has not been rolled back: its supervisor is stopped ({supervisor})"
                ),
                Some(format!("run `hostgw cancel {id}` to roll it back")),
            ),
            Some(supervisor) if is_over => (
                format!("{named} was not confirmed by {deadline}; it is being rolled back ({supervisor})"),
                None,
            ),
            Some(supervisor) if supervisor_stopped => (
                format!("{named} cannot roll back at {deadline}: its supervisor is stopped ({supervisor})"),
                decide(),
            ),
            Some(_) => (
                format!(
                    "{named} rolls back at {deadline}, in {remaining_seconds} s, unless you run `hostgw confirm {id}`"
                ),
                None,
            ),
            None if is_over => (
                format!(
                    "{named} was not confirmed by {deadline}, and has not been rolled back: its supervisor was killed"
                ),
                Some("run `hostgw rollback` to roll it back".to_owned()),
            ),
            None => (format!("{named} cannot roll back at {deadline}: its supervisor was killed"), decide()),
        }
    }
}

impl Unconfirmed {
    fn of(outcome: &Outcome) -> Option<Self> {
        (outcome.decision != Decision::Confirmed).then(|| Self {
            summary: TransactionSummary::of(&outcome.metadata),
            id: outcome.pending.id,
            decision: outcome.decision,
            deadline: time(outcome.pending.until),
            failure: outcome.failure.as_ref().map(|failure| failure.message.clone()),
        })
    }

    fn text(&self) -> String {
        let Self { id, summary, decision, deadline, failure } = self;
        let named = summary.named_by(*id);
        let why = match decision {
            Decision::Expired => format!("not confirmed by {deadline}"),
            Decision::Canceled | Decision::Confirmed => "canceled".to_owned(),
        };
        printable(&match failure {
            None => format!("Rolled back: {named}, {why}"),
            Some(_) => format!("Rollback incomplete: {named}, {why}"),
        })
    }
}

/// Gathers the status, and retries if the records changed meanwhile, so that all parts are from the same moment.
fn gather() -> Result<Status, Error> {
    /// If the records keep changing, the last attempt counts.
    const MAX_ATTEMPTS: usize = 5;
    let dir = state_dir()?;
    for _ in 1..MAX_ATTEMPTS {
        let before = dir.generation();
        let status = gather_once(&dir)?;
        if dir.generation() == before {
            return Ok(status);
        }
    }
    gather_once(&dir)
}

fn gather_once(dir: &StateDir) -> Result<Status, Error> {
    let mut unknown = Vec::new();
    let saved = readable(dir.saved(), &mut unknown)?;
    let last = last_applied(dir)?;
    let pending = readable(dir.pending(), &mut Vec::new())?;
    let journal = readable(dir.open_journal(), &mut Vec::new())?;
    let are_journals_readable = pending.is_some() && journal.is_some();
    let pending = pending.flatten();
    let open = journal.flatten().filter(|_| pending.is_none());
    let outcome = readable(dir.outcome(), &mut Vec::new())?.flatten();
    // The outcome of a rollback is recorded just before its transaction ends.
    let ending = pending.as_ref().map(|(record, _)| record).or(open.as_ref());
    let is_ending = |outcome: &Outcome| {
        outcome.failure.is_none() && ending.is_some_and(|record| record.id == outcome.pending.id)
    };
    let outcome = outcome.filter(|outcome| !is_ending(outcome)).map(|outcome| match ending {
        // Somebody has finished the rollback since.
        None if are_journals_readable => Outcome { failure: None, ..outcome },
        _ => outcome,
    });
    let loaded = last.as_ref().and_then(LastApplied::load);
    let last_state = last.as_ref().and_then(|last| last.whole_state(loaded.as_ref()));
    if last.is_some() && last_state.is_none() {
        unknown.push(Unknown {
            part: StatePart::Records,
            reason: boot_files::UNREADABLE.into(),
            remedy: Some("run `hostgw apply`".into()),
        });
    }
    let mut applied = last.as_ref().and_then(|last| Applied::of(last, loaded?.cluster, saved.as_ref()));
    let prefixes = applied.as_ref().map(|applied| applied.desired.prefixes.clone()).unwrap_or_default();
    let mut scope = last_state.as_ref().map_or_else(Scope::default, |state| Scope::of(state, prefixes));
    if let Some(applied) = &applied {
        scope.look_up_nodes(&applied.cluster);
    }
    let observed = LiveNode.observe(&scope)?;
    if let Some(Applied { cluster, index, desired }) = &mut applied {
        desired.adapt_off_link(cluster, *index, &observed);
    }
    let problems = applied.as_ref().map(|applied| applied.problems(&observed)).unwrap_or_default();
    let findings = applied.as_ref().map(|applied| applied.path_faults(&observed)).unwrap_or_default();
    let are_paths_known = applied.is_some_and(|applied| applied.has_paths(&observed));
    let observed = observed.state;
    unknown.extend(observed.unknown.iter().cloned());
    let drift = last_state.as_ref().map(|state| drift(state, &observed));
    let agent = readable(AgentStatus::of(dir), &mut Vec::new())?.flatten();
    let namespace = dir.path().file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Status {
        format: 1,
        namespace: namespace.unwrap_or_default(),
        managed: managed(&observed),
        original_sysctl_count: saved.map(|saved| saved.0.len()),
        last_transaction: last
            .as_ref()
            .map(|last| NumberedTransaction { id: last.id, summary: TransactionSummary::of(&last.metadata) }),
        unfinished: open.as_ref().map(|open| UnfinishedTransaction {
            id: open.id,
            message: match dir.holder() {
                Some(holder) => format!("{} is running ({holder})", described(open)),
                None => {
                    let ended = outcome.as_ref().filter(|outcome| outcome.pending.id == open.id);
                    let happened = match ended.map(|outcome| outcome.decision) {
                        Some(Decision::Canceled) => "was canceled, but its rollback is incomplete",
                        Some(Decision::Expired) => {
                            "was not confirmed in time, and its rollback is incomplete"
                        }
                        Some(Decision::Confirmed) | None => "was interrupted or only partly rolled back",
                    };
                    format!(
                        "{} {happened}; run `hostgw rollback` to restore the previous state",
                        described(open)
                    )
                }
            },
        }),
        pending: pending.as_ref().map(|(record, pending)| Wait::of(dir, record, pending)),
        unconfirmed: outcome.as_ref().and_then(Unconfirmed::of),
        agent,
        drift,
        boot_files: boot_files::judge_by_last(last.as_ref()),
        problems,
        findings,
        are_paths_known,
        unknown,
    })
}

/// The last applied configuration, and this node's desired state under it.
struct Applied {
    cluster: Cluster,
    index: usize,
    desired: Desired,
}

impl Applied {
    /// Returns `None` if it was not stored, or if this version no longer accepts it.
    fn of(last: &LastApplied, cluster: Cluster, saved: Option<&OriginalSysctls>) -> Option<Self> {
        let (index, _) = cluster.node(last.metadata.node.as_ref()?.as_raw())?;
        let desired = plan::desired(&cluster, index, saved.unwrap_or(&OriginalSysctls::default())).ok()?;
        Some(Self { cluster, index, desired })
    }

    /// Returns what does not fit this machine.
    fn problems(&self, observed: &Observed) -> Vec<Untrusted> {
        let node = &self.cluster.nodes[self.index];
        let is_missing = |address: &IpAddr| observed.host.owner_of(*address).is_none();
        let addresses: Vec<IpAddr> = node.addresses.iter().map(|(_, address)| *address).collect();
        // Without any of them, a plan cannot determine that this machine is the node.
        let is_renumbered = !addresses.is_empty() && addresses.iter().all(is_missing);
        let moved = is_renumbered.then(|| {
            let (addresses, name) = (list(&addresses, 2), &node.name);
            format!(
                "no local interface has {addresses} (node {name}): correct the address in the configuration"
            )
        });
        let problems = plan::check(&self.cluster, self.index, &self.desired, observed);
        moved.into_iter().chain(problems.into_iter().map(|problem| problem.message)).map(Into::into).collect()
    }
}

impl Applied {
    /// Returns `true` if the pod paths can be checked.
    fn has_paths(&self, observed: &Observed) -> bool {
        plan::paths(&self.cluster, self.index, &self.desired, observed).missing().is_empty()
    }

    /// Returns the pod paths that do not work even without drift.
    fn path_faults(&self, observed: &Observed) -> Vec<FindingEntry> {
        let plan = plan::plan(&self.desired.state, &observed.state, ForeignPolicy::Respect);
        let faults = plan::path_faults(&self.cluster, self.index, &self.desired, observed, &plan);
        faults.iter().map(|fault| FindingEntry::new(fault.diagnostic(), None)).collect()
    }
}

fn drift(last: &State, observed: &State) -> Report {
    let mut drift = plan::plan(last, observed, ForeignPolicy::Respect);
    drift.mark_replaced(&last.routes);
    let changed =
        |_: &_| Reason { text: "changed since the last apply".to_owned(), places: Vec::new(), drift: true };
    Report::new(&drift, changed, |_, _| None)
}

fn managed(observed: &State) -> ManagedObjects {
    let routes = observed.routes.iter().filter(|route| route.is_owned());
    let tables = Family::ALL.into_iter().filter_map(|family| observed.nat.get(family));
    let nat = tables.flat_map(NatTable::objects).map(|object| object.to_string());
    let is_known = !Family::ALL.into_iter().any(|family| observed.nat_unknown(family));
    ManagedObjects { routes: routes.map(Route::to_string).collect(), nat: is_known.then(|| nat.collect()) }
}

fn text(status: &Status, output: &Output) -> String {
    let mut text = String::new();
    let Status { managed, unknown, .. } = status;
    let nat = managed
        .nat
        .as_ref()
        .map_or_else(|| "an unknown number of NAT objects".to_owned(), |nat| count(nat.len(), "NAT object"));
    let _ = writeln!(text, "Managed: {}, {nat}", count(managed.routes.len(), "route"));
    for object in managed.routes.iter().chain(managed.nat.iter().flatten()) {
        let _ = writeln!(text, "  {}", printable(object));
    }
    let saved = status.original_sysctl_count.map_or_else(
        || "unknown".to_owned(),
        |saved| if saved == 0 { "none saved".to_owned() } else { format!("{saved} saved") },
    );
    let _ = writeln!(text, "Original sysctl values: {saved}");
    let _ = writeln!(text, "Last transaction: {}", last(status));
    if let Some(unfinished) = &status.unfinished {
        let _ = writeln!(text, "Unfinished: {}", unfinished.message);
    }
    if let Some(pending) = &status.pending {
        let _ = writeln!(text, "Pending: {}", printable(&pending.text()));
    }
    // The line on the unfinished transaction already says how a pending apply ended.
    if let Some(unconfirmed) = status
        .unconfirmed
        .as_ref()
        .filter(|unconfirmed| status.unfinished.as_ref().is_none_or(|open| open.id != unconfirmed.id))
    {
        let _ = writeln!(text, "{}", unconfirmed.text());
    }
    if let Some(agent) = &status.agent {
        text.push_str(&agent.text());
    }
    match &status.drift {
        Some(drift)
            if drift.totals == Totals::default()
                && status.problems.is_empty()
                && status.findings.is_empty() =>
        {
            text.push_str("Drift: none\n");
        }
        Some(drift) if drift.totals == Totals::default() => {
            text.push_str("Drift: none in routes, NAT and sysctls\n");
        }
        Some(drift) => {
            let _ = writeln!(
                text,
                "Drift: {}:
",
                drift_head(drift.totals)
            );
            text.push_str(&render::text(drift, &output.palette));
        }
        None => {}
    }
    for file in &status.boot_files {
        let program = file.program.as_deref().unwrap_or("an unknown program");
        let state = match (&file.problem, file.advice()) {
            (Some(problem), Some(advice)) => format!("{problem}; {advice}"),
            (Some(problem), None) => problem.to_string(),
            (None, _) => "is up to date".to_owned(),
        };
        let _ = writeln!(text, "Boot file: {} (for {program}) {state}", file.path);
    }
    if !status.problems.is_empty() {
        text.push_str("Problems: the last applied configuration no longer fits this machine\n");
    }
    for problem in &status.problems {
        let _ = writeln!(text, "  {problem}");
    }
    let has_drift = status.drift.as_ref().is_some_and(|drift| drift.totals != Totals::default());
    match (&status.drift, &status.findings[..]) {
        (None, _) => {}
        (Some(_), _) if !status.are_paths_known => {
            text.push_str("Paths: not checked (no pod interface yet)\n");
        }
        (Some(_), []) => {
            let except = if has_drift { ", except for the drift above" } else { "" };
            let _ = writeln!(
                text,
                "Paths: as planned{except} (`hostgw doctor` also examines firewalls, NAT and neighbors)"
            );
        }
        (Some(_), _) => text.push_str("Paths: not as planned\n"),
    }
    for finding in &status.findings {
        text.push_str(&render::finding_text(finding, &output.palette));
    }
    for unknown in unknown {
        let _ = writeln!(text, "? {}: {}", unknown.part, unknown.reason);
    }
    text
}

/// Says what to do about drift.
fn drift_head(Totals { add, update, remove, conflicts, .. }: Totals) -> String {
    let refused =
        || format!("{}, which `hostgw apply` refuses without --adopt", count(conflicts, "conflict"));
    match (add + update + remove, conflicts) {
        (0, 0) => "part of the state is unknown".to_owned(),
        (0, _) => refused(),
        (_, 0) => "found. To make these changes, run `hostgw apply`".to_owned(),
        _ => format!("found, with {}. To make all changes, run `hostgw apply --adopt`", refused()),
    }
}

fn last(status: &Status) -> String {
    let no_records = status.unknown.iter().any(|unknown| unknown.part == StatePart::Records);
    match &status.last_transaction {
        Some(NumberedTransaction { id, summary: TransactionSummary { command, node, file, at, .. } }) => {
            let node = node.as_ref().map_or_else(String::new, |node| format!(", node {node}"));
            let file = file.as_ref().map_or_else(String::new, |file| format!(", {file}"));
            printable(&format!("{command} {id} ({at}){node}{file}"))
        }
        None if no_records => "unknown".to_owned(),
        None => "none".to_owned(),
    }
}
