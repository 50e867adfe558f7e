//! Keeps one node in sync with its configuration, pass by pass.
//!
//! | module | contents |
//! |---|---|
//! | `configuration` | chooses the configuration: reads the file, takes other commands into account, and applies |
//! | `repair` | repairs what differs from the configuration in effect |
//! | `report` | reports the condition of the node |

mod configuration;
mod repair;
mod report;

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    backoff::Backoff,
    caller::AgentCaller,
    contest::Contest,
    file_watch::FileWatch,
    host::{AgentEvent, AgentHost, AgentSettings, AgentSignals},
    polled::Polled,
};
use crate::{
    apply::{Failure, Interrupt, StateDir},
    clock::now as wall_clock,
    config::Document,
    error::{Error, Kind},
    kernel::EventScope,
    plan::ObjectKey,
    reconcile::{Session, incomplete_error},
    record::{AgentProblem, AgentReport, PinReason},
    text::Untrusted,
};

/// How often to check whether another command has ended.
const YIELD_INTERVAL: Duration = Duration::from_millis(250);

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
            .and_then(|earlier| earlier.pin.filter(|_| earlier.newest_transaction_id == newest))
            .filter(|pin| pin.reason != PinReason::LastGood);
        let file_name = crate::text::path(&settings.file).to_string();
        let report =
            AgentReport { pin, newest_transaction_id: newest, ..AgentReport::new(wall_clock(), file_name) };
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

    /// Returns the caller of an operation that `stop` interrupts.
    fn caller(&self, stop: Arc<Interrupt>) -> AgentCaller<'a> {
        AgentCaller { host: self.host, stop, begun: Cell::new(None) }
    }
}
