//! Repairs what differs from the configuration in effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{Keeper, Notifications};
use crate::{
    agent::{
        backoff::{Backoff, REPAIR_PAUSES},
        host::AgentEvent,
        problem::{named, record},
    },
    apply::Failure,
    clock::now as wall_clock,
    error::Kind,
    forwarding::PathFault,
    plan::{Conflict, ObjectKey, Prepared},
    reconcile::{self, Committed, Operation, Repair},
    record::RepairReport,
    text::Untrusted,
};

/// The number of failed repairs in a row after which a failure is reported.
const REPORTED_FAILURES: u32 = 3;

impl Keeper<'_> {
    fn end_node_problem(&mut self) {
        if self.node_problem.take().is_some() {
            self.host.event(AgentEvent::Recovered);
        }
    }

    /// Repairs what differs from the configuration in effect.
    pub(super) fn repair(&mut self, notifications: &Notifications, now: Instant) {
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
        let mut repair =
            Repair::new(session, node.as_deref(), &self.dir, self.report.newest_transaction_id, &paused);
        let result = reconcile::run(&mut repair, None, &caller);
        let (conflicts, is_recorded) = (std::mem::take(&mut repair.conflicts), !repair.is_repair());
        match result {
            Ok(result) => {
                self.repair_backoff = Backoff::default();
                if result.committed.is_some() && is_recorded {
                    self.report.newest_transaction_id = caller.begun.get();
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
    pub(super) fn in_sync(&mut self, faults: Option<Vec<PathFault>>) {
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

    pub(super) fn set_conflicts(&mut self, conflicts: &[Conflict]) {
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
}
