//! Chooses the configuration: reads the file, takes other commands into account, and applies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Keeper, Progress};
use crate::{
    agent::{
        backoff::{APPLY_PAUSES, Backoff},
        host::AgentEvent,
        polled::Polled,
        problem::{invalid_error, is_known, record},
        target::{self, OtherCommand, check_removed_routes, event_scope, gateways},
    },
    apply::Failure,
    config::{Document, Loaded},
    error::{Error, Kind},
    plan::ForeignPolicy,
    reconcile::{self, Apply, Session},
    record::{LastApplied, Pin, PinReason},
    text::Untrusted,
};

/// How long a file must be unchanged before an error in it is reported: it may be half written.
const SETTLING: Duration = Duration::from_millis(500);

impl Keeper<'_> {
    /// Reads the file if it may have changed.
    pub(super) fn read_file(&mut self, now: Instant) {
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

    /// Takes into account what other commands have done since the last pass.
    pub(super) fn follow_commands(&mut self) {
        let newest = match self.dir.newest() {
            Ok(newest) => newest,
            Err(error) => {
                self.host.event(AgentEvent::TaskFailed(&error));
                return;
            }
        };
        let is_inherited = std::mem::take(&mut self.is_pin_inherited);
        if newest == self.report.newest_transaction_id && !is_inherited {
            return;
        }
        let last = reconcile::last_applied(&self.dir).ok().flatten();
        if newest != self.report.newest_transaction_id {
            let command = target::classify(
                self.report.newest_transaction_id,
                newest,
                last.as_ref(),
                self.document.as_ref(),
            );
            self.report.newest_transaction_id = newest;
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
    pub(super) fn activate_last_good(&mut self) -> bool {
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
            let pin =
                Pin { reason: PinReason::LastGood, transaction_id: transaction, file, instead_of: None };
            self.host.event(AgentEvent::Pinned { pin: &pin, file: &self.report.file });
            self.report.pin = Some(pin);
        }
        self.active.is_some()
    }

    /// Applies the content of the file. Returns `true` if that succeeded.
    pub(super) fn try_document(&mut self, now: Instant) -> bool {
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
        let (dir, newest) = (&self.dir, self.report.newest_transaction_id);
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
                    self.report.newest_transaction_id = caller.begun.get();
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
}
