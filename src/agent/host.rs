//! The settings of an agent, the events that it reports, and the signals that control it.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    apply::Interrupt,
    config::Document,
    error::Error,
    forwarding::PathFault,
    plan::{Change, ObjectKey, Totals},
    reconcile::Event,
    record::{AgentReport, Pin, TransactionMeta},
    text::Untrusted,
};

/// The settings of an agent.
pub struct AgentSettings {
    /// The configuration file to follow.
    pub file: PathBuf,
    /// The name of the node, unless it is found by its address or name.
    pub node: Option<String>,
    /// Where to keep a copy of the last good configuration.
    pub last_good: Option<PathBuf>,
    /// Replaces a file with new content.
    pub write: fn(&Path, &[u8]) -> Result<(), Error>,
}

/// An event, which the log shows as one line.
#[derive(Debug)]
pub enum AgentEvent<'a> {
    /// The agent has started to follow a file.
    Started(&'a AgentReport),
    /// The configuration of the file was found to be in effect.
    Following {
        /// The name of the file.
        file: &'a Untrusted,
        /// The node.
        node: &'a Untrusted,
    },
    /// The configuration of the file is in effect, and verified.
    Applied {
        /// The name of the file.
        file: &'a Untrusted,
        /// The node.
        node: &'a Untrusted,
        /// The number of changes; `None` if the node already matched the configuration.
        totals: Option<Totals>,
    },
    /// The node was repaired and verified.
    Repaired {
        /// The changes.
        changes: &'a [Change],
        /// The number of changes.
        totals: Totals,
        /// The first few objects, as text.
        objects: &'a [Untrusted],
        /// The programs that had changed the objects, if the kernel knows.
        programs: &'a [Untrusted],
        /// The time since the first notification.
        took: Duration,
    },
    /// The configuration does not fit the node yet, and the agent waits until it does.
    Waiting(&'a Error),
    /// The content of the file was refused, and is not in effect.
    Refused {
        /// The reason.
        error: &'a Error,
        /// The name of the configuration in effect, if any.
        in_effect: Option<&'a Untrusted>,
    },
    /// Several repairs in a row failed.
    RepairFailed {
        /// Why the last one failed.
        error: &'a Error,
        /// The number of failures in a row.
        failures: u32,
    },
    /// The reported problem is gone.
    Recovered,
    /// The agent keeps another configuration than the current content of its file.
    Pinned {
        /// The configuration, and the reason.
        pin: &'a Pin,
        /// The name of the agent's own file.
        file: &'a Untrusted,
    },
    /// The agent follows its file again.
    Unpinned,
    /// Another command holds the lock.
    Yielding(&'a str),
    /// Another program keeps changing an object.
    Contested {
        /// The object.
        object: &'a ObjectKey,
        /// The program, if known.
        by: Option<&'a Untrusted>,
        /// The number of repairs in a row.
        repairs: u32,
        /// The pause before the next repair.
        pause: Duration,
    },
    /// The object is no longer contested.
    ContestEnded(&'a ObjectKey),
    /// A foreign object is in place of a managed one.
    Conflict(&'a str),
    /// The conflict is resolved.
    ConflictResolved(&'a ObjectKey),
    /// Some pod paths do not work, or not as planned.
    PathsLost(&'a [PathFault]),
    /// All pod paths work again.
    PathsRestored,
    /// An event that every command reports, such as the rollback of an interrupted transaction.
    Command(Event<'a>),
    /// The agent was asked to read the file again.
    Reloading,
    /// The agent is stopping. Routes, NAT and sysctls stay in effect.
    Stopping,
    /// A side task failed, such as writing the report.
    TaskFailed(&'a Error),
}

/// Receives the events of an agent.
pub trait AgentHost {
    /// Handles an event.
    fn event(&self, event: AgentEvent<'_>);

    /// Receives the report of the agent after each change to it.
    fn report(&self, report: &AgentReport);

    /// Called after each look at the node.
    fn looked(&self);

    /// Called when the node matches the configuration in effect, except for conflicts and contested objects.
    fn verified(&self);

    /// The interval in which [`Self::beat`] must be called; `None` if there is no watchdog.
    fn heartbeat(&self) -> Option<Duration>;

    /// Called regularly while the agent is working.
    fn beat(&self);

    /// Called before checks run, during which [`Self::beat`] is not called for up to `longest`, twice.
    fn begin_checks(&self, longest: Duration);

    /// Returns what the history records about an apply of `document` to `node`.
    fn metadata(&self, document: &Document, node: &Untrusted) -> TransactionMeta;
}

/// The signals that control an agent.
#[derive(Debug)]
pub struct AgentSignals {
    /// Raised to stop the agent. A running apply is rolled back; a running repair is completed.
    pub stop: Arc<Interrupt>,
    /// Set to read the file again.
    pub reload: Arc<AtomicBool>,
    /// Becomes readable when a signal arrives.
    pub wake: OwnedFd,
}

impl AgentSignals {
    /// Returns `true` once after each request to read the file again.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::SeqCst)
    }
}
