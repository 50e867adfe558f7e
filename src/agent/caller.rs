//! The caller of the agent's operations.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::host::{AgentEvent, AgentHost};
use crate::{
    apply::Interrupt,
    clock::{now as wall_clock, time},
    error::Error,
    reconcile::{Apply, Caller, Event, Observer, Operation, Repair, Session},
    record::{Record, TransactionMeta},
};

/// The caller of the agent's operations, which commits without review, and never waits for another command.
pub(super) struct AgentCaller<'a> {
    pub host: &'a dyn AgentHost,
    /// Asks the operation to stop.
    pub stop: Arc<Interrupt>,
    /// The ID of the transaction.
    pub begun: Cell<Option<u64>>,
}

impl Observer for AgentCaller<'_> {
    fn event(&self, event: Event<'_>) {
        self.host.beat();
        match event {
            // The agent has events of its own for these.
            Event::Begun(id) => self.begun.set(Some(id)),
            Event::Committed { .. } | Event::AlreadyMade | Event::PlanChanged => {}
            event => self.host.event(AgentEvent::Command(event)),
        }
    }

    fn interrupt(&self) -> Result<Arc<Interrupt>, Error> {
        Ok(Arc::clone(&self.stop))
    }
}

impl<O: Operation + HasSession> Caller<O> for AgentCaller<'_> {
    fn lock_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn is_unattended(&self) -> bool {
        true
    }

    fn show(&self, _: &O, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn approve(&self, _: &O, hold: Option<Duration>) -> Result<Option<Duration>, Error> {
        Ok(hold)
    }

    fn rolls_forward(&self) -> bool {
        true
    }

    fn approve_recovery(&self, _: &Record) -> Result<(), Error> {
        Ok(())
    }

    fn metadata(&self, operation: &O) -> TransactionMeta {
        let session = operation.session();
        match &session.last {
            // A repair restores what this apply established.
            Some(last) if operation.is_repair() => {
                TransactionMeta { at: time(wall_clock()).into(), ..last.metadata.clone() }
            }
            _ => self.host.metadata(&session.loaded.document, session.node_name()),
        }
    }
}

/// An operation with a session.
pub(super) trait HasSession {
    fn session(&self) -> &Session;
}

impl HasSession for Apply<'_> {
    fn session(&self) -> &Session {
        &self.session
    }
}

impl HasSession for Repair<'_> {
    fn session(&self) -> &Session {
        Repair::session(self)
    }
}
