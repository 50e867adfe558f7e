//! The other side of the agent: what it is to keep, who is told what happens, and who can stop it.

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

/// What an agent keeps.
pub struct AgentSettings {
    /// The configuration file.
    pub file: PathBuf,
    /// The name of the node, unless it is found by its address or name.
    pub node: Option<String>,
    /// Where to keep a copy of the last configuration that was in effect, for a start without a usable file.
    pub last_good: Option<PathBuf>,
    /// Replaces a file.
    pub write: fn(&Path, &[u8]) -> Result<(), Error>,
}

/// Something that happened. Each is one line of the log.
#[derive(Debug)]
pub enum AgentEvent<'a> {
    /// It has started to follow a file.
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
        /// What was changed; `None` if the node was already as it should be.
        totals: Option<Totals>,
    },
    /// The node was repaired, and that was verified.
    Repaired {
        /// What was changed.
        changes: &'a [Change],
        /// The number of changes.
        totals: Totals,
        /// The objects, as text: at most a few.
        objects: &'a [Untrusted],
        /// The programs that had changed them, as far as the kernel tells.
        programs: &'a [Untrusted],
        /// How long it took, from the first notification.
        took: Duration,
    },
    /// Something is missing on this node, and the agent waits for it.
    Waiting(&'a Error),
    /// The content of the file was refused, and is not in effect.
    Refused {
        /// Why.
        error: &'a Error,
        /// What is in effect instead, if anything.
        in_effect: Option<&'a Untrusted>,
    },
    /// Several repairs in a row failed.
    RepairFailed {
        /// Why the last one failed.
        error: &'a Error,
        /// The number of failures in a row.
        failures: u32,
    },
    /// What was wrong is over.
    Recovered,
    /// It keeps another configuration than the file's, because of another command.
    Pinned {
        /// Which one, and why.
        pin: &'a Pin,
        /// The name of the agent's own file.
        file: &'a Untrusted,
    },
    /// It follows the file again.
    Unpinned,
    /// Another command holds the lock.
    Yielding(&'a str),
    /// Another program keeps changing an object.
    Contested {
        /// The object.
        object: &'a ObjectKey,
        /// The program, if it is known.
        by: Option<&'a Untrusted>,
        /// The number of repairs in a row.
        repairs: u32,
        /// The pause before the next one.
        pause: Duration,
    },
    /// Nobody changes the object any more.
    Settled(&'a ObjectKey),
    /// A foreign object is in the place of a managed one.
    Conflict(&'a str),
    /// The conflict is over.
    ConflictOver(&'a ObjectKey),
    /// Some paths of pods stopped working, or never did.
    PathsLost(&'a [PathFault]),
    /// All paths of pods work again.
    PathsRestored,
    /// What every command tells, such as the rollback of an interrupted transaction.
    Command(Event<'a>),
    /// It was asked to read the file again.
    Reloading,
    /// It ends. Everything stays in effect.
    Stopping,
    /// Something that is not essential failed, such as writing the report.
    Trouble(&'a Error),
}

/// Who is told what happens.
pub trait AgentHost {
    /// Takes note of an event.
    fn event(&self, event: AgentEvent<'_>);

    /// Takes note of the agent's condition, after each change of it.
    fn report(&self, report: &AgentReport);

    /// Takes note that the agent has looked at the node.
    fn looked(&self);

    /// Takes note that the agent has found, or made, the node to be as the configuration in effect says, apart from
    /// conflicts and contested objects.
    fn verified(&self);

    /// Is called at least this often while the agent works as it should; `None` if nobody watches it.
    fn heartbeat(&self) -> Option<Duration>;

    /// Takes note that the agent works.
    fn beat(&self);

    /// Takes note that the agent now runs checks, which give no sign of life for up to `longest`, twice.
    fn begin_checks(&self, longest: Duration);

    /// Returns what the history records about an apply of `document` to `node`.
    fn meta(&self, document: &Document, node: &Untrusted) -> TransactionMeta;
}

/// What signals do.
#[derive(Debug)]
pub struct AgentSignals {
    /// Raised to end the agent. An apply then stops at the next change and is rolled back; a repair is completed.
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
