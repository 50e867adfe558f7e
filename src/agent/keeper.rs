//! One pass: reads the file, takes other commands into account, applies or repairs, and reports.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    backoff::{APPLY_PAUSES, Backoff, REPAIR_PAUSES},
    caller::AgentCaller,
    contest::Contest,
    file_watch::FileWatch,
    host::{AgentEvent, AgentHost, AgentSettings, AgentSignals},
    polled::Polled,
    problem::{invalid_error, is_known, named, record},
    target::{self, OtherCommand, check_removed_routes, event_scope, gateways},
};
use crate::{
    apply::{Failure, Interrupt, StateDir},
    clock::now as wall_clock,
    config::{Document, Loaded},
    error::{Error, Kind},
    forwarding::PathFault,
    kernel::EventScope,
    plan::{Conflict, ForeignPolicy, ObjectKey, Prepared},
    reconcile::{self, Apply, Committed, Operation, Repair, Session, incomplete_error},
    record::{
        AgentCondition, AgentProblem, AgentReport, Contested, LastApplied, Pin, PinReason, RepairReport,
    },
    text::Untrusted,
};

/// How long a file must be unchanged before an error in it is reported: it may be half written.
const SETTLING: Duration = Duration::from_millis(500);
/// How often to check whether another command has ended.
const YIELD_INTERVAL: Duration = Duration::from_millis(250);
/// The number of failed repairs in a row after which a failure is reported.
const REPORTED_FAILURES: u32 = 3;

/// Summary of the notifications since the last pass.
#[derive(Debug, Clone, Default)]
pub(super) struct Notifications {
    /// When the first of them arrived.
    pub since: Option<Instant>,
    /// The kernel itself may have removed routes.
    pub may_have_lost_routes: bool,
    /// The programs that changed managed objects, if the kernel knows.
    pub programs: Vec<Untrusted>,
}

/// The state of the content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Not applied yet.
    New,
    /// In effect.
    InEffect,
    /// Has errors.
    Invalid,
}

/// Keeps one node in sync with its configuration.
pub(super) struct Keeper<'a> {
    host: &'a dyn AgentHost,
    signals: &'a AgentSignals,
    dir: StateDir,
    settings: &'a AgentSettings,
    pub file: FileWatch,
    pub polled: Polled,
    pub scope: EventScope,
    /// The content of the file, if it can be read.
    document: Option<Document>,
    progress: Progress,
    /// Why the content of the file is not in effect.
    file_problem: Option<AgentProblem>,
    /// Why the node does not match the configuration in effect.
    node_problem: Option<AgentProblem>,
    /// Whether the pin was set by a previous agent.
    is_pin_inherited: bool,
    /// Whether the node matched the configuration in effect when it was last examined, and since.
    is_verified: bool,
    /// Whether the configuration in effect does not fit the node at the moment.
    is_waiting: bool,
    /// Since when the content of the file has had an error that is not reported yet.
    unsettled: Option<Instant>,
    /// The configuration in effect.
    active: Option<Session>,
    candidate_backoff: Backoff,
    repair_backoff: Backoff,
    contest: Contest,
    conflicts: BTreeMap<ObjectKey, String>,
    report: AgentReport,
    written: Option<AgentReport>,
    /// When the next pass is due, even without notifications.
    deadline: Option<Instant>,
    /// The command that the agent is waiting for, as last reported.
    yielding_to: Option<String>,
}

impl<'a> Keeper<'a> {
    pub fn new(
        settings: &'a AgentSettings,
        dir: StateDir,
        host: &'a dyn AgentHost,
        signals: &'a AgentSignals,
    ) -> Result<Self, Error> {
        let file = FileWatch::new(&settings.file);
        let earlier = dir.agent_report().ok().flatten();
        let newest = dir.newest()?;
        // A pin outlives its agent while its transaction is the newest.
        let pin = earlier
            .and_then(|earlier| earlier.pin.filter(|_| earlier.newest == newest))
            .filter(|pin| pin.reason != PinReason::LastGood);
        let file_name = crate::text::path(&settings.file).to_string();
        let report = AgentReport { pin, newest, ..AgentReport::new(wall_clock(), file_name) };
        host.event(AgentEvent::Started(&report));
        Ok(Self {
            host,
            signals,
            dir,
            settings,
            file,
            polled: Polled::default(),
            scope: EventScope::default(),
            document: None,
            progress: Progress::New,
            file_problem: None,
            node_problem: None,
            is_pin_inherited: report.pin.is_some(),
            is_verified: false,
            is_waiting: false,
            unsettled: None,
            active: None,
            candidate_backoff: Backoff::default(),
            repair_backoff: Backoff::default(),
            contest: Contest::default(),
            conflicts: BTreeMap::new(),
            report,
            written: None,
            deadline: None,
            yielding_to: None,
        })
    }

    /// When the next pass is due, even without notifications.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Reads the file again, ends a pin, and retries immediately.
    pub fn reload(&mut self) {
        self.host.event(AgentEvent::Reloading);
        self.file.forget();
        self.candidate_backoff = Backoff::default();
        self.repair_backoff = Backoff::default();
        self.is_pin_inherited = false;
        self.progress = Progress::New;
        // The report marks the end of the reload, even if nothing has changed.
        self.written = None;
        self.unpin();
    }

    fn unpin(&mut self) {
        if self.report.pin.take().is_some() {
            self.progress = Progress::New;
            self.host.event(AgentEvent::Unpinned);
        }
    }

    /// Looks at the file, the records and the node once, and repairs or applies. Returns `false` if another command is
    /// running.
    pub fn pass(&mut self, notifications: &Notifications) -> bool {
        let begun = Instant::now();
        self.deadline = None;
        let holder = self.dir.holder();
        match &holder {
            Some(holder) => self.yield_to(&holder.to_string(), begun),
            None => {
                self.yielding_to = None;
                if notifications.may_have_lost_routes {
                    // The cause of a failure may be gone.
                    self.repair_backoff = Backoff::default();
                }
                self.read_file(begun);
                self.follow_commands();
                // Repairs first: missing routes must not make a mass removal look small.
                self.repair(notifications, begun);
                if !self.try_document(begun) && self.activate_last_good() {
                    self.repair(notifications, begun);
                }
            }
        }
        for key in self.contest.expire(begun) {
            self.host.event(AgentEvent::ContestEnded(&key));
        }
        if holder.is_none() {
            self.host.looked();
        }
        self.publish();
        holder.is_none()
    }

    /// Waits for another command, which is changing the node, or whose apply is pending.
    fn yield_to(&mut self, holder: &str, now: Instant) {
        if self.yielding_to.as_deref() != Some(holder) {
            self.host.event(AgentEvent::Yielding(holder));
            self.yielding_to = Some(holder.to_owned());
        }
        self.schedule(now + YIELD_INTERVAL);
    }

    fn schedule(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |other| other.min(at)));
    }

    /// Reads the file if it may have changed.
    fn read_file(&mut self, now: Instant) {
        if !self.file.has_changed() && self.unsettled.is_none() {
            return;
        }
        let document = match Document::read(&self.settings.file) {
            Ok(document) => document,
            Err(error) => {
                self.refuse_file(&(&error).into(), now);
                return;
            }
        };
        let is_same =
            |known: &Document| known.bytes() == document.bytes() && known.format() == document.format();
        if self.document.as_ref().is_some_and(is_same) {
            if self.progress == Progress::InEffect {
                // The file was unreadable for a while.
                self.unsettled = None;
                self.end_file_problem();
            }
            return;
        }
        let hash = document.hash();
        let is_outdated = |pin: &Pin| {
            pin.reason != PinReason::LastGood
                && pin.instead_of.as_ref().is_none_or(|instead| *instead != hash)
        };
        if self.report.pin.as_ref().is_some_and(is_outdated) {
            self.is_pin_inherited = false;
            self.unpin();
        }
        self.document = Some(document);
        self.progress = Progress::New;
        self.candidate_backoff = Backoff::default();
    }

    /// Refuses the content of the file if the error lasts: the file may be half written. Returns `true` if the error was
    /// reported.
    fn refuse_file(&mut self, error: &Error, now: Instant) -> bool {
        if is_known(self.file_problem.as_ref(), error) {
            return true;
        }
        let settled = *self.unsettled.get_or_insert(now) + SETTLING;
        if now < settled {
            self.schedule(settled);
            return false;
        }
        self.unsettled = None;
        self.refuse(error);
        true
    }

    /// Reports that the content of the file is not in effect.
    fn refuse(&mut self, error: &Error) {
        if !record(&mut self.file_problem, error) {
            return;
        }
        let in_effect = self.active.as_ref().map(|session| session.loaded.document.name().clone());
        self.report.failures += 1;
        self.host.event(AgentEvent::Refused { error, in_effect: in_effect.as_ref() });
    }

    fn end_file_problem(&mut self) {
        if self.file_problem.take().is_some() {
            self.host.event(AgentEvent::Recovered);
        }
    }

    fn end_node_problem(&mut self) {
        if self.node_problem.take().is_some() {
            self.host.event(AgentEvent::Recovered);
        }
    }

    /// Takes into account what other commands have done since the last pass.
    fn follow_commands(&mut self) {
        let newest = match self.dir.newest() {
            Ok(newest) => newest,
            Err(error) => {
                self.host.event(AgentEvent::TaskFailed(&error));
                return;
            }
        };
        let is_inherited = std::mem::take(&mut self.is_pin_inherited);
        if newest == self.report.newest && !is_inherited {
            return;
        }
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        if newest != self.report.newest {
            let command = target::classify(self.report.newest, newest, last.as_ref(), self.document.as_ref());
            self.report.newest = newest;
            self.contest.clear();
            self.repair_backoff = Backoff::default();
            match command {
                OtherCommand::SameConfiguration => {
                    self.unpin();
                    // The next steps find it in effect. The earlier configuration must not be restored.
                    self.set_active(None);
                    self.progress = Progress::New;
                    self.candidate_backoff = Backoff::default();
                    return;
                }
                OtherCommand::Pinned(pin) => self.report.pin = Some(pin),
            }
        }
        self.activate_pinned(last.as_ref());
    }

    /// Activates what another command put in effect.
    fn activate_pinned(&mut self, last: Option<&LastApplied>) {
        let active = last.and_then(|last| self.session_of(last));
        self.set_active(active);
        if let Some(pin) = &self.report.pin {
            self.host.event(AgentEvent::Pinned { pin, file: &self.report.file });
        }
        if self.active.is_none() {
            self.polled = Polled::default();
            self.report.config_hash = None;
            self.report.routes = 0;
            self.report.unreachable.clear();
        }
    }

    /// Returns a session of the configuration that `last` put in effect, if this version accepts it and this machine is now a
    /// node of it.
    fn session_of(&self, last: &LastApplied) -> Option<Session> {
        let name = last.metadata.node.as_ref().map(Untrusted::as_raw).map(ToOwned::to_owned);
        Session::live(last.load()?, name.as_deref(), ForeignPolicy::Respect).ok()
    }

    /// Without a usable file, activates the last good configuration. Returns `true` if a configuration must be verified.
    fn activate_last_good(&mut self) -> bool {
        if self.active.is_some() {
            return self.progress == Progress::InEffect && !self.is_verified;
        }
        if self.report.pin.is_some() || self.file_problem.is_none() {
            return false;
        }
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        let active = last.as_ref().and_then(|last| self.session_of(last));
        self.set_active(active);
        let copy = || {
            let copy = self.settings.last_good.as_deref()?;
            let document = Document::read(copy).ok()?;
            let loaded = Loaded::new(document).ok()?;
            Session::live(loaded, self.settings.node.as_deref(), ForeignPolicy::Respect).ok()
        };
        let (transaction, file) = match &self.active {
            Some(_) => (last.as_ref().map(|last| last.id), last.and_then(|last| last.metadata.file)),
            None => {
                let active = copy();
                self.set_active(active);
                (None, self.active.as_ref().map(|session| session.loaded.document.name().clone()))
            }
        };
        if self.active.is_some() {
            let pin = Pin { reason: PinReason::LastGood, transaction, file, instead_of: None };
            self.host.event(AgentEvent::Pinned { pin: &pin, file: &self.report.file });
            self.report.pin = Some(pin);
        }
        self.active.is_some()
    }

    /// Applies the content of the file. Returns `true` if that succeeded.
    fn try_document(&mut self, now: Instant) -> bool {
        let is_pinned = self.report.pin.as_ref().is_some_and(|pin| pin.reason != PinReason::LastGood);
        if self.progress != Progress::New || is_pinned {
            return false;
        }
        let Some(document) = &self.document else { return false };
        if let Some(until) = self.candidate_backoff.until
            && until > now
        {
            self.schedule(until);
            return false;
        }
        let loaded = match Loaded::new(document.clone()) {
            Ok(loaded) => loaded,
            Err(invalid) => {
                if self.refuse_file(&invalid_error(&invalid), now) {
                    self.progress = Progress::Invalid;
                }
                return false;
            }
        };
        self.unsettled = None;
        let session = match Session::live(loaded, self.settings.node.as_deref(), ForeignPolicy::Respect) {
            Ok(session) => session,
            Err(error) => {
                self.wait_or_refuse(&error);
                return false;
            }
        };
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        if session.is_established_by(last.as_ref()) {
            let (file, node) = (session.loaded.document.name().clone(), session.node_name().clone());
            self.activate(session);
            self.host.event(AgentEvent::Following { file: &file, node: &node });
            return false;
        }
        let before = self.active.as_ref().map(gateways);
        let (dir, newest) = (&self.dir, self.report.newest);
        let guard = |session: &Session| {
            reconcile::check_newest(dir, newest)?;
            before.as_ref().map_or(Ok(()), |before| check_removed_routes(before, session))
        };
        if let Some(longest) = session.loaded.cluster.checks.iter().map(|check| check.timeout).max() {
            self.host.begin_checks(longest);
        }
        let mut apply = Apply::in_dir(session, self.dir.clone(), None, &guard);
        let caller = self.caller(Arc::clone(&self.signals.stop));
        let result = reconcile::run(&mut apply, None, &caller);
        let session = apply.session;
        match result {
            Ok(result) => {
                if result.committed.is_some() {
                    self.report.newest = caller.begun.get();
                }
                let totals = result.committed.as_ref().map(|committed| committed.totals);
                let (file, node) = (session.loaded.document.name().clone(), session.node_name().clone());
                self.report.applies += u64::from(totals.is_some());
                self.activate(session);
                self.host.event(AgentEvent::Applied { file: &file, node: &node, totals });
                self.contest.clear();
                self.set_conflicts(&[]);
                self.in_sync(result.committed.map(|committed| committed.faults));
                true
            }
            Err(failure) => {
                self.fail_apply(failure, now);
                false
            }
        }
    }

    /// Makes `session`, the content of the file, the configuration in effect.
    fn activate(&mut self, session: Session) {
        self.progress = Progress::InEffect;
        self.unsettled = None;
        self.report.pin = None;
        self.end_file_problem();
        self.set_active(Some(session));
        self.keep_copy();
    }

    fn set_active(&mut self, session: Option<Session>) {
        self.is_verified = false;
        self.is_waiting = false;
        self.node_problem = None;
        self.repair_backoff = Backoff::default();
        self.scope = session.as_ref().map(event_scope).unwrap_or_default();
        self.active = session;
    }

    /// Copies the configuration in effect, for a start without a usable file.
    fn keep_copy(&self) {
        let Some((copy, session)) = self.settings.last_good.as_deref().zip(self.active.as_ref()) else {
            return;
        };
        let document = &session.loaded.document;
        if Document::read(copy).is_ok_and(|kept| kept.bytes() == document.bytes()) {
            return;
        }
        if let Err(error) = (self.settings.write)(copy, document.bytes()) {
            self.host.event(AgentEvent::TaskFailed(&error));
        }
    }

    /// Returns why a change failed, and whether nothing was changed. Returns `None` if it was interrupted, or must only be
    /// retried.
    fn cause_of(&mut self, failure: Failure, now: Instant) -> Option<(Error, bool)> {
        let (error, is_untouched) = match failure {
            Failure::Untouched(error) => (error, true),
            Failure::RolledBack { cause } => (cause, false),
            Failure::Incomplete(incomplete) => (incomplete_error(&incomplete), false),
        };
        match error.kind {
            Kind::Interrupted => None,
            Kind::Locked | Kind::Stale if is_untouched => {
                self.schedule(now + YIELD_INTERVAL);
                None
            }
            _ => Some((error, is_untouched)),
        }
    }

    fn fail_apply(&mut self, failure: Failure, now: Instant) {
        let Some((error, is_untouched)) = self.cause_of(failure, now) else { return };
        if is_untouched {
            self.wait_or_refuse(&error);
            return;
        }
        self.candidate_backoff.fail(APPLY_PAUSES, now);
        if let Some(until) = self.candidate_backoff.until {
            self.schedule(until);
        }
        self.refuse(&error);
    }

    /// Waits if the configuration does not fit this node yet, and refuses it otherwise.
    fn wait_or_refuse(&mut self, error: &Error) {
        if error.kind != Kind::Invalid || self.active.is_some() {
            self.refuse(error);
        } else if record(&mut self.file_problem, error) {
            self.host.event(AgentEvent::Waiting(error));
        }
    }

    /// Repairs what differs from the configuration in effect.
    fn repair(&mut self, notifications: &Notifications, now: Instant) {
        if self.active.is_none() {
            return;
        }
        if !self.repair_backoff.is_over(now) {
            self.schedule(self.repair_backoff.until.unwrap_or(now));
            return;
        }
        // A signal does not interrupt a repair: the state before it is not worth restoring.
        let caller = self.caller(Arc::default());
        let Some(session) = &mut self.active else { return };
        let paused = self.contest.paused(now);
        let node = match &self.report.pin {
            Some(_) => Some(session.node_name().as_raw().to_owned()),
            None => self.settings.node.clone(),
        };
        let mut repair = Repair::new(session, node.as_deref(), &self.dir, self.report.newest, &paused);
        let result = reconcile::run(&mut repair, None, &caller);
        let (conflicts, is_recorded) = (std::mem::take(&mut repair.conflicts), !repair.is_repair());
        match result {
            Ok(result) => {
                self.repair_backoff = Backoff::default();
                if result.committed.is_some() && is_recorded {
                    self.report.newest = caller.begun.get();
                }
                self.set_conflicts(&conflicts);
                let faults = result.committed.map(|committed| self.repaired(committed, notifications, now));
                self.end_node_problem();
                self.in_sync(faults);
                if let Some(next) = self.contest.next(now) {
                    self.schedule(next);
                }
            }
            Err(failure) => self.fail_repair(failure, now),
        }
    }

    /// Reports a repair, and counts it for each of its objects. Returns the pod paths that do not work.
    fn repaired(
        &mut self,
        committed: Committed,
        notifications: &Notifications,
        now: Instant,
    ) -> Vec<PathFault> {
        let plan = self.active.as_mut().map(|session| std::mem::take(&mut session.prepared.plan));
        let plan = plan.unwrap_or_default();
        let objects = named(&plan);
        let Committed { totals, faults, .. } = committed;
        self.report.repairs += 1;
        self.report.last_repair = Some(RepairReport {
            at: wall_clock(),
            totals,
            objects: objects.clone(),
            programs: notifications.programs.clone(),
        });
        self.host.event(AgentEvent::Repaired {
            changes: &plan.changes,
            totals,
            objects: &objects,
            programs: &notifications.programs,
            took: notifications.since.unwrap_or(now).elapsed(),
        });
        // Routes that the kernel removes together with a link or an address are not contested.
        if !notifications.may_have_lost_routes {
            let by = match &notifications.programs[..] {
                [only] => Some(only),
                _ => None,
            };
            let repaired = Instant::now();
            for change in &plan.changes {
                let key = change.object();
                if let Some(contested) = self.contest.repaired(key, by, repaired) {
                    let by = contested.by.as_ref();
                    let (repairs, pause) = (contested.repairs, contested.pause);
                    self.host.event(AgentEvent::Contested { object: &contested.key, by, repairs, pause });
                }
            }
        }
        faults
    }

    fn fail_repair(&mut self, failure: Failure, now: Instant) {
        let Some((error, is_untouched)) = self.cause_of(failure, now) else { return };
        self.is_waiting = is_untouched && error.kind == Kind::Invalid;
        if self.is_waiting {
            if record(&mut self.node_problem, &error) {
                self.host.event(AgentEvent::Waiting(&error));
            }
            return;
        }
        self.repair_backoff.fail(REPAIR_PAUSES, now);
        self.schedule(self.repair_backoff.until.unwrap_or(now));
        let is_lasting = self.repair_backoff.failures >= REPORTED_FAILURES;
        if is_lasting && record(&mut self.node_problem, &error) {
            self.report.failures += 1;
            let failures = self.repair_backoff.failures;
            self.host.event(AgentEvent::RepairFailed { error: &error, failures });
        }
    }

    /// Records that the node matches the configuration in effect, except for conflicts and contested objects. `faults` are
    /// the pod paths that do not work, if they were checked.
    fn in_sync(&mut self, faults: Option<Vec<PathFault>>) {
        let now = Instant::now();
        let Some(session) = &mut self.active else { return };
        let faults = faults.unwrap_or_else(|| session.path_faults());
        self.polled.set(&session.prepared.desired.state, now);
        self.report.routes = session.prepared.desired.state.routes.len();
        self.report.node = Some(session.node_name().clone());
        if !self.is_verified {
            self.report.config_hash = Some(session.loaded.document.hash().into());
        }
        // An idle agent does not need the plan and the live state.
        session.prepared = Prepared::nothing();
        let unreachable: BTreeSet<&Untrusted> = faults.iter().flat_map(|fault| fault.nodes.keys()).collect();
        let unreachable: Vec<Untrusted> = unreachable.into_iter().cloned().collect();
        if unreachable != self.report.unreachable {
            self.host.event(match &faults[..] {
                [] => AgentEvent::PathsRestored,
                faults => AgentEvent::PathsLost(faults),
            });
            self.report.unreachable = unreachable;
        }
        self.is_verified = true;
        self.is_waiting = false;
        self.host.verified();
    }

    /// Whether the node matched the configuration in effect at the last look.
    fn is_as_configured(&self, now: Instant) -> bool {
        self.is_verified
            && !self.is_waiting
            && self.node_problem.is_none()
            && self.repair_backoff.failures == 0
            && self.conflicts.is_empty()
            && self.contest.paused(now).is_empty()
    }

    fn condition(&self, now: Instant) -> AgentCondition {
        let is_failing = self.node_problem.is_some() || self.repair_backoff.failures > 0;
        let has_file_problem = self.file_problem.is_some();
        if self.yielding_to.is_some() {
            AgentCondition::Yielding
        } else if self.active.is_none() && self.report.pin.is_some() {
            AgentCondition::Suspended
        } else if self.is_waiting || self.active.is_none() && has_file_problem {
            AgentCondition::Waiting
        } else if !self.is_verified && !has_file_problem && !is_failing {
            AgentCondition::Starting
        } else if has_file_problem || !self.is_as_configured(now) {
            AgentCondition::Degraded
        } else {
            AgentCondition::InSync
        }
    }

    fn set_conflicts(&mut self, conflicts: &[Conflict]) {
        let conflicts: BTreeMap<ObjectKey, String> =
            conflicts.iter().map(|conflict| (conflict.object(), conflict.to_string())).collect();
        for (key, text) in &conflicts {
            if self.conflicts.get(key) != Some(text) {
                self.host.event(AgentEvent::Conflict(text));
            }
        }
        for key in self.conflicts.keys().filter(|key| !conflicts.contains_key(key)) {
            self.host.event(AgentEvent::ConflictResolved(key));
        }
        self.conflicts = conflicts;
    }

    /// Publishes the report if it has changed.
    fn publish(&mut self) {
        let contested = self.contest.contested().map(|it| Contested {
            object: it.key.to_string().into(),
            by: it.by,
            repairs: it.repairs,
            pause_seconds: Some(it.pause.as_secs()),
        });
        let conflicts = self.conflicts.iter().map(|(key, text)| Contested {
            object: key.to_string().into(),
            by: Some(text.as_str().into()),
            repairs: 0,
            pause_seconds: None,
        });
        self.report.contested = contested.chain(conflicts).collect();
        let now = Instant::now();
        self.report.verified = self.is_as_configured(now);
        self.report.refused = self.file_problem.is_some();
        self.report.problem = self.node_problem.clone().or_else(|| self.file_problem.clone());
        self.report.condition = self.condition(now);
        if self.written.as_ref() == Some(&self.report) {
            return;
        }
        self.host.report(&self.report);
        if let Err(error) = self.dir.write_agent_report(&self.report) {
            self.host.event(AgentEvent::TaskFailed(&error));
        }
        self.written = Some(self.report.clone());
    }

    /// Returns the caller of an operation that `stop` interrupts.
    fn caller(&self, stop: Arc<Interrupt>) -> AgentCaller<'a> {
        AgentCaller { host: self.host, stop, begun: Cell::new(None) }
    }
}
