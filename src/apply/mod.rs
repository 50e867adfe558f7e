//! The transaction: prepare, commit, verify, confirm, roll back.
//!
//! It changes a node through the trait [`Backend`], which [`kernel`](crate::kernel) implements for the live kernel, and plans with
//! the same function as everything else: a rollback is a plan from the live state to the state that the journal saved.
//!
//! # Faults, and the tests that cover them
//!
//! The numbers are exit codes. Test files without a path are in `tests/e2e`.
//!
//! | fault | result | covered by |
//! |---|---|---|
//! | any kernel exchange or any write to the state directory fails | nothing changed (1), or rolled back and verified (6); the records are unchanged, too | `faults.rs`: each one, in plans that add, change and remove |
//! | the rollback fails as well | the remaining commands are listed (7); a later rollback finishes | `faults.rs`: everything fails from each point on |
//! | `kill -9` at any point | a rollback or the next apply restores the state from the journal | `faults.rs`: at each point; `kills.rs`: 200 times at random in an apply of 5,000 nodes |
//! | `kill -9` of the rollback | the next rollback resumes it | `faults.rs` |
//! | `kill -9`, then the rollback fails | reported (7; 1 if it could not begin); a later rollback finishes | `faults.rs`: each kill with every third failure; with each one under `HOSTGW_WHOLE=1` |
//! | a privilege is lost midway | like any failure; the error names the privilege and the remedy | `faults.rs`: `EPERM` at each exchange, once and from there on; `privileges.rs`: missing from the start |
//! | a concurrent change interrupts a dump, or an answer overflows the socket | retried ten times; then an error (1), or rolled back (6, 7) as above | `faults.rs`: every answer, once and from there on; `churn.rs`: with real concurrent changes |
//! | the egress interface disappears midway | its routes are gone with it, and everything else is restored (6); objects that were on it are reported (7), and restored once it is back or given up with `--abandon` | `midway.rs`: at each point; `interrupted.rs`: in a large apply |
//! | another program creates an object where the plan needs to write, or changes other objects, midway | all of its objects stay; rolled back (6), or reported where they conflict (7). For IPv6 the kernel can only replace whatever is at a key, which leaves a gap between the last read and the write of a changed route | `midway.rs`: at each point |
//! | another program changes the table `hostgw` between the last read and the commit | the kernel refuses the batch, because it names an outdated nftables generation; hostgw makes and shows a new plan with `--yes`, or else refuses (5); a set is a conflict (10) | `midway.rs`: at each point; `kernel::nat::tests`: in a race |
//! | another program adds a rule to the table `hostgw` of an apply that is rolled back later | an automatic rollback keeps the table, restores everything else, and names the rule (7); `rollback` shows the rule first | `foreign_nat.rs` |
//! | other programs keep changing their own tables | the batch is retried for 10 s; then nothing is changed (5) | `kernel::nat::tests` |
//! | any signal that can be caught | rolled back and verified (130), or ignored, as the internals guide lists; a rollback is never interrupted | `signals.rs`: each signal, to a running command, a pending one, and the supervisor |
//! | `apply --confirm` is not confirmed | rolled back and verified (8), within 2 seconds of the deadline | `confirm.rs` |
//! | `kill -9` or hangup of a pending `apply --confirm` | the same: its supervisor runs in a session of its own | `confirm.rs` |
//! | `kill -9` of an `apply --confirm` midway | the supervisor restores the state at once | `confirm.rs`: killed at each exchange |
//! | `kill -9` of the supervisor | the command takes over; if both are gone, `status`, `plan` and `confirm` report it, and the next command that changes the node rolls back | `confirm.rs` |
//! | the command is stopped before it can report that the apply is in effect | the deadline still holds | `confirm.rs`: stopped at that point |
//! | the disk fills up while an apply is pending | it can still be confirmed or canceled: the files for the decision already exist | `full_disk.rs` |
//! | the supervisor's rollback fails | reported (7); a later rollback finishes | `confirm.rs`: everything fails from each point on |
//! | the supervisor is stopped | its command takes over when a decision is due; without the command, the next command resumes it | `supervisor.rs` |
//! | the supervisor hangs | its command kills it 10 s after the deadline and takes over | `supervisor.rs` |
//! | `status` runs while a pending apply is rolled back | it shows the apply as pending or as rolled back at every moment | `supervisor.rs`: stopped at each point |
//! | other users own or can write the state directory, or swap folders | nothing of theirs is read or written (1) | `state_directory.rs` |
//! | any field of any record is damaged | an error that names the file (1), or a rollback; never a panic | `damaged_records.rs` |
//! | confirmed and canceled at once, or at the last moment | the first decision wins, and every command reports the same | `confirm.rs` |
//! | a check passes before the change and fails after it | rolled back (6); a check that fails before the change is reported and ignored | `checks.rs`, `tests/properties.rs` |
//! | a check cannot be run | nothing changed (1), or rolled back (6) if the change was made | `faults.rs` |
//! | a signal while checks run | nothing changed, or rolled back (130), at once | `checks.rs` |
//! | `/proc/sys` is read-only | rolled back (6); no error if every value is already right | `read_only.rs` |
//! | one object cannot be restored | everything else is; reported (7), and given up with `--abandon` | `regressions.rs` |
//! | another program changes the state the plan depends on | refused as stale (5) | `prompt.rs` |
//! | the node changed since a plan was saved | refused as stale (5) with the differences; unrelated changes do not matter | `saved_plan.rs` |
//! | a foreign object is where the rollback must write | refused before anything is undone (10) | `conflict.rs` |
//! | another program writes a sysctl after hostgw did | its value stays: a rollback or destroy is refused (10); an automatic rollback keeps it and reports it (7) | `foreign_sysctls.rs`, `tests/sequences.rs` |
//! | another program writes a sysctl midway | its value stays, and everything else is restored (6, 7). The kernel has no compare-and-swap for sysctls, which leaves a gap between the last read and the write | `midway.rs`: at each point |
//! | records are damaged while a transaction is open | rolled back from the journal, which holds the original values | `reporting.rs` |
//! | another program changes the same routes or sysctls at the same moment | its changes stay | `races.rs`: a few races; `HOSTGW_WHOLE=1 tests/run -- e2e::races`: 1,000 for routes, 200 for sysctls |
//! | a command reads the node in the middle of another command's transaction | the result is discarded: the command waits for the lock and reads again | `concurrency.rs`: stopped at every sixth point |
//! | two applies at once | one makes the changes, and the other finds nothing to do, or times out (4) | `concurrency.rs`, `refusals.rs` |
//! | the state directory is not writable | nothing is changed (1) | `refusals.rs` |
//! | its file system is full from some point on, or read-only | nothing changed (1), or rolled back (6); what the rollback could not write is reported (7) and written by a later one | `full_disk.rs`: a real file system, filled so that each write in turn fails |
//! | the journal is truncated, empty, or from a newer version | nothing is changed, and the journal is kept (1) | `state_dir.rs`, `regressions.rs` |
//! | the journal is from an earlier boot or another namespace | set aside: its objects are gone | `state_dir.rs` |
//! | an agent is killed at any moment, while other programs change the node | the next agent rolls back what was left open, and the node matches the file | `disturbances.rs` |
//! | a command commits while an agent is about to repair | the agent drops its repair, and keeps what the command put in effect | `agent.rs` |
//! | all of these in a row, with drift in between, in any order | each command makes all changes or none, or lists the remaining ones, which a later command finishes; objects outside the transaction and foreign routes are unchanged | `tests/sequences.rs`: 2,000 random sequences in memory; `sequences.rs`: the same kind on real nodes |
//! | any one of these on any state of a node | the node has the previous or the planned state, never anything else | `tests/properties.rs`, in memory |

mod checks;
mod confirm;
mod folder;
mod lock;
mod state_dir;
mod transaction;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub use checks::{Baseline, BaselineCheck, CheckResult, ProbeMode, run_baseline};
pub use confirm::{carry_out, wait};
pub use lock::{Holder, Lock, is_stopped};
pub use state_dir::{Generation, Identity, OVERRIDE, StateDir};
pub use transaction::{
    Failure, Incomplete, Request, Verified, abandon, drop_restored_sysctls, plan_rollback, progress, recover,
    refuse_foreign_nat, restore, run,
};
pub use watch::ActivityWatch;

use crate::{
    error::Error,
    forwarding::Forwarder,
    model::{Check, SysctlKey},
    plan::{Change, Observe, SysctlValues},
    text::Untrusted,
};

/// A node that can also be changed.
pub trait Backend: Observe + Forwarder {
    /// Reads these sysctls. The result omits keys that do not exist or cannot be read.
    fn sysctls(&mut self, keys: &[SysctlKey]) -> SysctlValues;

    /// Makes `changes` in the given order or, for an undo, in the reverse order of their groups. Stops at the first
    /// change that fails, or when `interrupt` is raised; the changes made so far stay. A NAT table is replaced only
    /// while it matches the change's `before`. A sysctl whose value differs from its change's `before` is not written,
    /// because another program has written it.
    ///
    /// # Errors
    /// Returns the change that failed and why, or that the commit was interrupted.
    fn commit(&mut self, changes: &[Change], order: Order, interrupt: &Interrupt) -> Result<(), CommitError>;

    /// Runs all `checks` concurrently, each for at most its timeout, and returns one result per check. Stops as soon
    /// as `interrupt` is raised.
    ///
    /// # Errors
    /// Returns [`Kind::Interrupted`](crate::error::Kind::Interrupted), or an error if a check cannot be run at all.
    fn probe(
        &mut self,
        checks: &[Check],
        mode: ProbeMode,
        interrupt: &Interrupt,
    ) -> Result<Vec<CheckResult>, Error>;
}

/// The order of the groups in a commit, which [`Backend::commit`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// NAT, routes, sysctls: the node forwards only after everything else is in place.
    Forward,
    /// Sysctls, routes, NAT.
    Undo,
}

/// A flag that a signal raises to ask the command to stop.
#[derive(Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Creates an interrupt that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks a running commit to stop before the next change.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns `true` if a stop was requested.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The reason why a commit stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// A change failed.
    Refused {
        /// The object, as `ip`, `nft` or `sysctl` prints it.
        object: String,
        /// The reason, a fragment that follows "cannot write …: ".
        why: String,
        /// The suggested next step.
        hint: Option<String>,
    },
    /// The live state is no longer the one that the changes were planned from. In forward order, nothing was changed.
    Stale {
        /// What happened: a sentence in lower case, without a period.
        why: String,
        /// The suggested next step.
        hint: Option<String>,
    },
    /// A sysctl was not written, because another program has written it since the plan was made.
    SysctlChanged {
        /// The sysctl.
        key: SysctlKey,
        /// The value that it has now.
        now: Untrusted,
    },
    /// A signal interrupted the commit.
    Interrupted,
}
