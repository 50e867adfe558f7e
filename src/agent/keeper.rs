//! One round: the file, what other commands did, an apply or a repair, and the report.

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
    target::{self, OtherCommand, check_leavers, event_scope, gateways},
    trouble::{invalid_error, is_known, named, note},
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
        AgentCondition, AgentReport, AgentTrouble, Contested, LastApplied, Pin, PinReason, RepairReport,
    },
    text::Untrusted,
};

/// How long a file must have been unchanged before an error in it is reported: it may be half written.
const SETTLING: Duration = Duration::from_millis(500);
/// How often to check whether another command is done.
const YIELD_INTERVAL: Duration = Duration::from_millis(250);
/// The number of repairs in a row that must fail before this is reported.
const REPORTED_FAILURES: u32 = 3;

/// What the notifications since the last round said.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    /// When the first of them arrived.
    pub since: Option<Instant>,
    /// The kernel itself may have removed routes.
    pub is_by_kernel: bool,
    /// The programs that changed managed objects.
    pub programs: Vec<Untrusted>,
}

/// What has become of the content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is to be put in effect.
    New,
    /// It is in effect.
    InEffect,
    /// It has errors.
    Invalid,
}

/// Keeps one node.
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
    file_trouble: Option<AgentTrouble>,
    /// Why the node is not as the configuration in effect says.
    node_trouble: Option<AgentTrouble>,
    /// Whether the pin is that of the agent before this one.
    is_pin_inherited: bool,
    /// Whether the node was found, or made, to be as the configuration in effect says.
    is_verified: bool,
    /// Whether the configuration in effect does not fit the node for now.
    is_waiting: bool,
    /// Since when the content of the file has an error that is not reported yet.
    unsettled: Option<Instant>,
    /// The configuration in effect.
    held: Option<Session>,
    candidate_backoff: Backoff,
    repair_backoff: Backoff,
    contest: Contest,
    conflicts: BTreeMap<ObjectKey, String>,
    report: AgentReport,
    written: Option<AgentReport>,
    /// When another round is due, whatever happens.
    appointment: Option<Instant>,
    /// The yielding that was reported.
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
        // A pin outlives its agent, as long as it concerns the newest transaction and the same content of the file.
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
            file_trouble: None,
            node_trouble: None,
            is_pin_inherited: report.pin.is_some(),
            is_verified: false,
            is_waiting: false,
            unsettled: None,
            held: None,
            candidate_backoff: Backoff::default(),
            repair_backoff: Backoff::default(),
            contest: Contest::default(),
            conflicts: BTreeMap::new(),
            report,
            written: None,
            appointment: None,
            yielding_to: None,
        })
    }

    /// When another round is due, whatever happens.
    pub const fn appointment(&self) -> Option<Instant> {
        self.appointment
    }

    /// Reads the file again, follows it even if another command put another configuration in effect, and tries again what has
    /// failed.
    pub fn reload(&mut self) {
        self.host.event(AgentEvent::Reloading);
        self.file.forget();
        self.candidate_backoff = Backoff::default();
        self.repair_backoff = Backoff::default();
        self.is_pin_inherited = false;
        self.progress = Progress::New;
        // The report tells the end of the reload, even if nothing has changed.
        self.written = None;
        self.unpin();
    }

    fn unpin(&mut self) {
        if self.report.pin.take().is_some() {
            self.progress = Progress::New;
            self.host.event(AgentEvent::Unpinned);
        }
    }

    /// Looks at everything once, and mends what is not as it should be. Returns `false` if another command is running, for which
    /// it waits.
    pub fn round(&mut self, news: &News) -> bool {
        let begun = Instant::now();
        self.appointment = None;
        let holder = self.dir.holder();
        match &holder {
            Some(holder) => self.yield_to(&holder.to_string(), begun),
            None => {
                self.yielding_to = None;
                if news.is_by_kernel {
                    // The reason of a failure may be over.
                    self.repair_backoff = Backoff::default();
                }
                self.read_file(begun);
                self.follow_commands();
                // First what is in effect: what is missing of it must not make a mass removal look small.
                self.repair(news, begun);
                if !self.try_document(begun) && self.hold_last_good() {
                    self.repair(news, begun);
                }
            }
        }
        for key in self.contest.settle(begun) {
            self.host.event(AgentEvent::Settled(&key));
        }
        if holder.is_none() {
            self.host.looked();
        }
        self.publish();
        holder.is_none()
    }

    /// Another command is changing the node, or its apply is pending.
    fn yield_to(&mut self, holder: &str, now: Instant) {
        if self.yielding_to.as_deref() != Some(holder) {
            self.host.event(AgentEvent::Yielding(holder));
            self.yielding_to = Some(holder.to_owned());
        }
        self.appoint(now + YIELD_INTERVAL);
    }

    fn appoint(&mut self, at: Instant) {
        self.appointment = Some(self.appointment.map_or(at, |other| other.min(at)));
    }

    /// Reads the file if it may have changed.
    fn read_file(&mut self, now: Instant) {
        if !self.file.is_new() && self.unsettled.is_none() {
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
                // It could not be read for a while.
                self.unsettled = None;
                self.end_file_trouble();
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

    /// The content of the file cannot be used. It may be half written, so this is reported only if it stays. Returns `true` if
    /// it was reported.
    fn refuse_file(&mut self, error: &Error, now: Instant) -> bool {
        if is_known(self.file_trouble.as_ref(), error) {
            return true;
        }
        let settled = *self.unsettled.get_or_insert(now) + SETTLING;
        if now < settled {
            self.appoint(settled);
            return false;
        }
        self.unsettled = None;
        self.refuse(error);
        true
    }

    /// Reports that the content of the file is not in effect.
    fn refuse(&mut self, error: &Error) {
        if !note(&mut self.file_trouble, error) {
            return;
        }
        let in_effect = self.held.as_ref().map(|session| session.loaded.document.name().clone());
        self.report.failures += 1;
        self.host.event(AgentEvent::Refused { error, in_effect: in_effect.as_ref() });
    }

    fn end_file_trouble(&mut self) {
        if self.file_trouble.take().is_some() {
            self.host.event(AgentEvent::Recovered);
        }
    }

    fn end_node_trouble(&mut self) {
        if self.node_trouble.take().is_some() {
            self.host.event(AgentEvent::Recovered);
        }
    }

    /// Finds out what other commands have done since the last round.
    fn follow_commands(&mut self) {
        let newest = match self.dir.newest() {
            Ok(newest) => newest,
            Err(error) => {
                self.host.event(AgentEvent::Trouble(&error));
                return;
            }
        };
        let is_inherited = std::mem::take(&mut self.is_pin_inherited);
        if newest == self.report.newest && !is_inherited {
            return;
        }
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        if newest != self.report.newest {
            let turn = target::judge(self.report.newest, newest, last.as_ref(), self.document.as_ref());
            self.report.newest = newest;
            self.contest.clear();
            self.repair_backoff = Backoff::default();
            match turn {
                OtherCommand::SameConfiguration => {
                    self.unpin();
                    // It is found to be in effect. What was in effect before must not be restored.
                    self.set_held(None);
                    self.progress = Progress::New;
                    self.candidate_backoff = Backoff::default();
                    return;
                }
                OtherCommand::Pinned(pin) => self.report.pin = Some(pin),
            }
        }
        self.hold_pinned(last.as_ref());
    }

    /// Keeps what another command put in effect.
    fn hold_pinned(&mut self, last: Option<&LastApplied>) {
        let held = last.and_then(|last| self.session_of(last));
        self.set_held(held);
        if let Some(pin) = &self.report.pin {
            self.host.event(AgentEvent::Pinned { pin, file: &self.report.file });
        }
        if self.held.is_none() {
            self.polled = Polled::default();
            self.report.config_hash = None;
            self.report.routes = 0;
            self.report.unreachable.clear();
        }
    }

    /// Returns a session of the configuration that `last` put in effect, if this version accepts it and this machine is a node
    /// of it by now.
    fn session_of(&self, last: &LastApplied) -> Option<Session> {
        let name = last.meta.node.as_ref().map(Untrusted::as_raw).map(ToOwned::to_owned);
        Session::live(last.load()?, name.as_deref(), ForeignPolicy::Respect).ok()
    }

    /// Without a usable file, keeps what was in effect before, if anything was. Returns `true` if something is in effect.
    fn hold_last_good(&mut self) -> bool {
        if self.held.is_some() {
            return self.progress == Progress::InEffect && !self.is_verified;
        }
        if self.report.pin.is_some() || self.file_trouble.is_none() {
            return false;
        }
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        let held = last.as_ref().and_then(|last| self.session_of(last));
        self.set_held(held);
        let copy = || {
            let copy = self.settings.last_good.as_deref()?;
            let document = Document::read(copy).ok()?;
            let loaded = Loaded::new(document).ok()?;
            Session::live(loaded, self.settings.node.as_deref(), ForeignPolicy::Respect).ok()
        };
        let (transaction, file) = match &self.held {
            Some(_) => (last.as_ref().map(|last| last.id), last.and_then(|last| last.meta.file)),
            None => {
                let held = copy();
                self.set_held(held);
                (None, self.held.as_ref().map(|session| session.loaded.document.name().clone()))
            }
        };
        if self.held.is_some() {
            let pin = Pin { reason: PinReason::LastGood, transaction, file, instead_of: None };
            self.host.event(AgentEvent::Pinned { pin: &pin, file: &self.report.file });
            self.report.pin = Some(pin);
        }
        self.held.is_some()
    }

    /// Puts the content of the file in effect. Returns `true` if it is, and verified.
    fn try_document(&mut self, now: Instant) -> bool {
        let is_pinned = self.report.pin.as_ref().is_some_and(|pin| pin.reason != PinReason::LastGood);
        if self.progress != Progress::New || is_pinned {
            return false;
        }
        let Some(document) = &self.document else { return false };
        if let Some(until) = self.candidate_backoff.until
            && until > now
        {
            self.appoint(until);
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
            self.hold(session);
            self.host.event(AgentEvent::Following { file: &file, node: &node });
            return false;
        }
        let before = self.held.as_ref().map(gateways);
        let (dir, newest) = (&self.dir, self.report.newest);
        let guard = |session: &Session| {
            reconcile::check_newest(dir, newest)?;
            before.as_ref().map_or(Ok(()), |before| check_leavers(before, session))
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
                self.hold(session);
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

    /// From now on, `session`, the content of the file, is the configuration in effect.
    fn hold(&mut self, session: Session) {
        self.progress = Progress::InEffect;
        self.unsettled = None;
        self.report.pin = None;
        self.end_file_trouble();
        self.set_held(Some(session));
        self.keep_copy();
    }

    fn set_held(&mut self, session: Option<Session>) {
        self.is_verified = false;
        self.is_waiting = false;
        self.node_trouble = None;
        self.repair_backoff = Backoff::default();
        self.scope = session.as_ref().map(event_scope).unwrap_or_default();
        self.held = session;
    }

    /// Keeps a copy of the configuration that is in effect, for a start without a usable file.
    fn keep_copy(&self) {
        let Some((copy, session)) = self.settings.last_good.as_deref().zip(self.held.as_ref()) else {
            return;
        };
        let document = &session.loaded.document;
        if Document::read(copy).is_ok_and(|kept| kept.bytes() == document.bytes()) {
            return;
        }
        if let Err(error) = (self.settings.write)(copy, document.bytes()) {
            self.host.event(AgentEvent::Trouble(&error));
        }
    }

    /// Returns why a change failed, and whether nothing was changed. `None` if it only has to be tried again, or was stopped.
    fn cause_of(&mut self, failure: Failure, now: Instant) -> Option<(Error, bool)> {
        let (error, is_untouched) = match failure {
            Failure::Untouched(error) => (error, true),
            Failure::RolledBack { cause } => (cause, false),
            Failure::Incomplete(incomplete) => (incomplete_error(&incomplete), false),
        };
        match error.kind {
            Kind::Interrupted => None,
            Kind::Locked | Kind::Stale if is_untouched => {
                self.appoint(now + YIELD_INTERVAL);
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
            self.appoint(until);
        }
        self.refuse(&error);
    }

    /// Waits if the configuration does not fit this node, which may still change, and refuses it otherwise.
    fn wait_or_refuse(&mut self, error: &Error) {
        if error.kind != Kind::Invalid || self.held.is_some() {
            self.refuse(error);
        } else if note(&mut self.file_trouble, error) {
            self.host.event(AgentEvent::Waiting(error));
        }
    }

    /// Repairs what differs from the configuration in effect.
    fn repair(&mut self, news: &News, now: Instant) {
        if self.held.is_none() {
            return;
        }
        if !self.repair_backoff.is_over(now) {
            self.appoint(self.repair_backoff.until.unwrap_or(now));
            return;
        }
        // A repair that is rolled back leaves the node as it must not be.
        let caller = self.caller(Arc::default());
        let Some(session) = &mut self.held else { return };
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
                let faults = result.committed.map(|committed| self.repaired(committed, news, now));
                self.end_node_trouble();
                self.in_sync(faults);
                if let Some(next) = self.contest.next(now) {
                    self.appoint(next);
                }
            }
            Err(failure) => self.fail_repair(failure, now),
        }
    }

    /// Reports a repair, and counts it for each of its objects. Returns the paths that do not work.
    fn repaired(&mut self, committed: Committed, news: &News, now: Instant) -> Vec<PathFault> {
        let plan = self.held.as_mut().map(|session| std::mem::take(&mut session.prepared.plan));
        let plan = plan.unwrap_or_default();
        let objects = named(&plan);
        let Committed { totals, faults, .. } = committed;
        self.report.repairs += 1;
        self.report.last_repair = Some(RepairReport {
            at: wall_clock(),
            totals,
            objects: objects.clone(),
            programs: news.programs.clone(),
        });
        self.host.event(AgentEvent::Repaired {
            changes: &plan.changes,
            totals,
            objects: &objects,
            programs: &news.programs,
            took: news.since.unwrap_or(now).elapsed(),
        });
        // What the kernel removes together with a link or an address, nobody contests.
        if !news.is_by_kernel {
            let by = match &news.programs[..] {
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
            if note(&mut self.node_trouble, &error) {
                self.host.event(AgentEvent::Waiting(&error));
            }
            return;
        }
        self.repair_backoff.fail(REPAIR_PAUSES, now);
        self.appoint(self.repair_backoff.until.unwrap_or(now));
        let is_lasting = self.repair_backoff.failures >= REPORTED_FAILURES;
        if is_lasting && note(&mut self.node_trouble, &error) {
            self.report.failures += 1;
            let failures = self.repair_backoff.failures;
            self.host.event(AgentEvent::RepairFailed { error: &error, failures });
        }
    }

    /// The node is as it should be, as far as nobody contests it. `faults` are the paths that do not work, if they were judged.
    fn in_sync(&mut self, faults: Option<Vec<PathFault>>) {
        let now = Instant::now();
        let Some(session) = &mut self.held else { return };
        let faults = faults.unwrap_or_else(|| session.path_faults());
        self.polled.set(&session.prepared.desired.state, now);
        self.report.routes = session.prepared.desired.state.routes.len();
        self.report.node = Some(session.node_name().clone());
        if !self.is_verified {
            self.report.config_hash = Some(session.loaded.document.hash().into());
        }
        // An idle agent needs no memory for what it saw.
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

    /// Whether everything is as the configuration in effect says, as of the last look.
    fn is_as_configured(&self, now: Instant) -> bool {
        self.is_verified
            && !self.is_waiting
            && self.node_trouble.is_none()
            && self.repair_backoff.failures == 0
            && self.conflicts.is_empty()
            && self.contest.paused(now).is_empty()
    }

    fn condition(&self, now: Instant) -> AgentCondition {
        let is_failing = self.node_trouble.is_some() || self.repair_backoff.failures > 0;
        let has_file_trouble = self.file_trouble.is_some();
        if self.yielding_to.is_some() {
            AgentCondition::Yielding
        } else if self.held.is_none() && self.report.pin.is_some() {
            AgentCondition::Suspended
        } else if self.is_waiting || self.held.is_none() && has_file_trouble {
            AgentCondition::Waiting
        } else if !self.is_verified && !has_file_trouble && !is_failing {
            AgentCondition::Starting
        } else if has_file_trouble || !self.is_as_configured(now) {
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
            self.host.event(AgentEvent::ConflictOver(key));
        }
        self.conflicts = conflicts;
    }

    /// Publishes the report if it is another one.
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
        self.report.refused = self.file_trouble.is_some();
        self.report.trouble = self.node_trouble.clone().or_else(|| self.file_trouble.clone());
        self.report.condition = self.condition(now);
        if self.written.as_ref() == Some(&self.report) {
            return;
        }
        self.host.report(&self.report);
        if let Err(error) = self.dir.write_agent_report(&self.report) {
            self.host.event(AgentEvent::Trouble(&error));
        }
        self.written = Some(self.report.clone());
    }

    /// The caller of an operation that `stop` ends.
    fn caller(&self, stop: Arc<Interrupt>) -> AgentCaller<'a> {
        AgentCaller { host: self.host, stop, begun: Cell::new(None) }
    }
}
