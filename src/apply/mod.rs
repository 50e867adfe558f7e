//! The transaction: lock, journal, commit, verify, confirm, roll back.
//!
//! It drives a node through the trait [`Node`], which the kernel room implements for the live kernel, and
//! plans with the same function as everything else: to roll back is to plan from what stands to what the
//! journal says stood before.
//!
//! # Faults, and how each is proved
//!
//! | fault | what comes of it | proved by |
//! |---|---|---|
//! | an exchange with the kernel fails, or a step in writing the state directory, whichever | nothing was changed (1), or rolled back and verified (6); the records are as before, too | `tests/e2e/faults.rs`: each of them, in plans that add, change, remove |
//! | the undo fails too | what is left is told (7); a later rollback finishes | the same, everything failing from each of them on |
//! | `kill -9`, whenever | the journal is found; a rollback or the next apply puts the state back | the same, killed at each of them; `kills.rs`: 200 times at random in an apply of 5,000 nodes |
//! | `kill -9` of the rollback | the next one goes on | `faults.rs` |
//! | `kill -9`, and the rollback fails, wherever | that is said (7; 1 when it could not begin); a later rollback finishes | `faults.rs`: each kill with every third failure; with each one under `HOSTGW_WHOLE=1` |
//! | a right is lost half way | as any failure, with its name and what to do | `faults.rs`: `EPERM` at each exchange, once and from there on; without it from the start: `privileges.rs` |
//! | an answer of the kernel is cut by a concurrent change, or does not fit the socket | it is asked for again, ten times; then an error (1), or rolled back (6, 7) as above | `faults.rs`: every answer, once and from there on; `storm.rs`: by what others really do meanwhile |
//! | the egress interface vanishes half way | its routes go with it, the rest is put back (6); what stood on it before is told (7), and put back when it is there again, or given up with `--abandon` | `midway.rs`: at each point; `interrupted.rs`: in a large apply |
//! | somebody else takes a place that is wanted, and changes other things, half way | all of theirs stays; rolled back (6), or told where theirs is in the way (7). On IPv6 the kernel only knows to replace whatever stands there: a changed route has a moment between the last look and its write | `midway.rs`: at each point |
//! | another program changes the table `hostgw` between the last look and the commit | the kernel refuses the batch, which names the generation of nftables it was made from; hostgw plans again: shown with `--yes`, else refused (5), a conflict (10) for a set | `midway.rs`: at each point; `kernel::nat::tests`: in a race |
//! | another program adds a rule to the table `hostgw` of an apply that is undone later | an undo that asks nobody keeps the table, undoes all the rest, and names the rule (7); `rollback` shows it first | `foreign_nat.rs` |
//! | other programs change their own tables all the time | the batch is sent again, for 10 s; then nothing was changed (5) | `kernel::nat::tests` |
//! | any signal that can be caught | rolled back and verified (130), or ignored: the table is in the guide on internals; an undo is never interrupted | `signals.rs`: each signal, to the command in the middle, to one that waits, and to the supervisor |
//! | nobody confirms an `apply --confirm` | rolled back and verified (8), within 2 seconds of the deadline | `confirm.rs` |
//! | `kill -9` or hang-up of an `apply --confirm` that waits | the same: its supervisor is a process and a session of its own | `confirm.rs` |
//! | `kill -9` of an `apply --confirm` in the middle | the supervisor puts the state back at once | `confirm.rs`: killed at each exchange |
//! | `kill -9` of the supervisor | the command stands in; with both gone `status`, `plan` and `confirm` tell it, and the next command that changes the node undoes it | `confirm.rs` |
//! | the command is stopped before it can say that the apply is in force | the time goes on all the same | `confirm.rs`: stopped just there |
//! | the disk fills up while an apply waits | it is decided on all the same: the ballots are there beforehand | `full_disk.rs` |
//! | the supervisor's undo fails | told (7); a later rollback finishes | `confirm.rs`: everything failing from each point on |
//! | the supervisor is stopped | its command takes its place when there is something to do; without the command, the next one has it go on | `supervisor.rs` |
//! | the supervisor hangs | its command kills it 10 s after the deadline, and takes its place | `supervisor.rs` |
//! | somebody looks while a pending apply is rolled back | `status` shows it as pending or as rolled back at every moment | `supervisor.rs`: stopped at each point |
//! | others own or can write the state directory, or swap folders meanwhile | nothing of theirs is read or written (1) | `state_directory.rs` |
//! | any field of any record is damaged | an error that names the file (1), or the way back; never a panic | `damaged_records.rs` |
//! | confirmed and cancelled at once, or in the last moment | who decides first wins, everybody is told the same | `confirm.rs` |
//! | a check answers before the change and not after it | rolled back (6); one that does not answer before is told, and does not count | `checks.rs`, `tests/properties.rs` |
//! | a check cannot even be tried | before the change nothing is changed (1), after it rolled back (6) | `faults.rs` |
//! | a signal while checks are tried | nothing was changed, or rolled back (130), at once | `checks.rs` |
//! | `/proc/sys` is read-only | rolled back (6); fine where the values stand | `read_only.rs` |
//! | one part cannot be put back | the rest is; told (7), and given up with `--abandon` | `regressions.rs` |
//! | somebody else changes what the plan rests on | refused as stale (5) | `prompt.rs` |
//! | the node moved since a plan was saved | refused as stale (5), with what moved; unrelated changes do not matter | `saved_plan.rs` |
//! | somebody else stands where the way back leads | refused before anything is undone (10) | `conflict.rs` |
//! | somebody else writes a sysctl after hostgw did | theirs stays: a rollback or destroy is refused (10), an undo without anybody to ask leaves it and says so (7) | `foreign_sysctls.rs`, `tests/sequences.rs` |
//! | somebody else writes a sysctl half way | theirs stays, and all the rest is put back (6, 7). The kernel has no compare-and-swap for sysctls: there is a moment between the last look, just before the write, and the write | `midway.rs`: at each point |
//! | records are damaged while a transaction is open | undone from the journal, which knows what was in the saved values | `truth.rs` |
//! | somebody else changes the same routes or sysctls at the same moment | theirs stays | `races.rs`: a few races; `HOSTGW_WHOLE=1 tests/run -- e2e::races`: 1,000 for routes, 200 for sysctls |
//! | a command looks at the node in the middle of another one's transaction | it decides nothing by that: it waits for the lock, and looks again | `together.rs`: stopped at every sixth point |
//! | two applies at once | one of them does it, the other has nothing left to do; or waits, and gives up (4) | `together.rs`, `refusals.rs` |
//! | the state directory cannot be written | nothing is changed (1) | `refusals.rs` |
//! | its file system is full, from the start or from some point on, or read-only | nothing is changed (1), or rolled back (6); what the rollback could not write is told (7), and done by a later one | `full_disk.rs`: a real one, filled so that each write in turn does not fit; and filled up at each point |
//! | the journal is cut, empty, or of a newer version | nothing is changed, and it is not written over (1) | `state_dir.rs`, `regressions.rs` |
//! | the journal is of an earlier boot or another namespace | set aside: what it speaks of is gone | `state_dir.rs` |
//! | all of these in a row, with drift in between, in any order | each command does all, nothing, or says what is left; what is left is finished later; places that a transaction did not touch, and routes of others, stay as they are | `tests/sequences.rs`: 2,000 random sequences on a node in memory; `e2e/sequences.rs`: the same kind on real ones |
//! | any one of them on any state of a node | before or after, never else | `tests/properties.rs`, on a node in memory |

mod checks;
mod confirm;
mod folder;
mod lock;
mod look;
mod state_dir;
mod transaction;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub use checks::{Answer, Before, Counted, Effort, check_before};
pub use confirm::{conclude, wait};
pub use lock::{Holder, Lock, is_stopped};
pub use look::Look;
pub use state_dir::{Identity, Mark, OVERRIDE, StateDir, held_by};
pub use transaction::{
    Failure, Incomplete, Request, abandon, progress, recover, refuse_foreign_nat, restore, run, settle,
    undo_plan,
};

use crate::{
    error::Error,
    model::{Check, SysctlKey},
    plan::{Change, Observe, Values},
    text::Untrusted,
};

/// A node that can be changed, too.
pub trait Node: Observe {
    /// Reads these sysctls; a key that is gone or cannot be read is absent.
    fn sysctls(&mut self, keys: &[SysctlKey]) -> Values;

    /// Makes `changes`, in the order given or, to undo, the groups in reverse. Stops at the first change
    /// that fails, or when `interrupt` is raised; what was done until then stays. A NAT table is replaced only
    /// while it is what its change says that it was before. A sysctl
    /// whose value is not the one before its change is not written: somebody else has written it meanwhile.
    ///
    /// # Errors
    /// Which change failed and why, or that it was interrupted.
    fn commit(&mut self, changes: &[Change], order: Order, interrupt: &Interrupt) -> Result<(), CommitError>;

    /// Tries all `checks` at once, each for at most its timeout, and gives an answer for each. Stops as soon as
    /// `interrupt` is raised.
    ///
    /// # Errors
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted), or that a check could not even be tried.
    fn probe(
        &mut self,
        checks: &[Check],
        effort: Effort,
        interrupt: &Interrupt,
    ) -> Result<Vec<Answer>, Error>;
}

/// The order of the groups in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// NAT, routes, sysctls: the node forwards only when everything else stands.
    Forward,
    /// Sysctls, routes, NAT.
    Undo,
}

/// Raised by a signal that asks the command to stop.
#[derive(Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// An interrupt that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a signal handler sets to raise it.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks the commit under way to stop at the next change.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why a commit stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// A change could not be made.
    Refused {
        /// The object, in the words of the kernel's tools.
        object: String,
        /// Why, a fragment that follows "… failed: ".
        why: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// What stands is no longer what the changes were made from. In the order of a plan, nothing was changed.
    Stale {
        /// What became of it: a sentence in lower case without its full stop.
        why: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// A sysctl was not written, since somebody else has written it meanwhile.
    Moved {
        /// The key.
        key: SysctlKey,
        /// The value that they gave it.
        now: Untrusted,
    },
    /// A signal came.
    Interrupted,
}
