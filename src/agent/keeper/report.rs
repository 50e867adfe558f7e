//! Reports the condition of the node.

use std::time::Instant;

use super::Keeper;
use crate::{
    agent::host::AgentEvent,
    plan::ObjectKey,
    record::{AgentCondition, AgentConflict, Contested},
};

impl Keeper<'_> {
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

    /// Publishes the report if it has changed.
    pub(super) fn publish(&mut self) {
        let contested = self.contest.contested().map(|it| Contested {
            object: it.key.to_string().into(),
            by: it.by,
            repairs: it.repairs,
            pause_seconds: it.pause.as_secs(),
        });
        let conflicts = self.conflicts.iter();
        let conflict = |(key, text): (&ObjectKey, &String)| AgentConflict {
            object: key.to_string().into(),
            text: text.as_str().into(),
        };
        self.report.contested = contested.collect();
        self.report.conflicts = conflicts.map(conflict).collect();
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
}
