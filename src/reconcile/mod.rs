//! Brings a node to a desired state, or back: observes, plans, checks, commits, verifies, waits, and undoes.
//!
//! This module does not print, prompt, or choose exit codes. Its user implements [`Caller`]: the command line asks its
//! user and prints what happens; a program that runs unattended answers by itself.
//!
//! | file | what it does |
//! |---|---|
//! | `session` | from a configuration and a node, live or saved in a snapshot, to a plan |
//! | `operation` | the trait of everything that can be committed: an apply, a destroy |
//! | `run` | observe, show, approve, lock, observe again, commit, verify; and the preview of all that |
//! | `turn` | waits for other commands, and rolls back a transaction that one of them left open |
//! | `pending` | waits for the confirmation of an apply, and takes over from a lost supervisor |
//! | `supervisor` | the process that rolls back a pending apply |
//! | `decide` | confirms or cancels a pending apply from another process |
//! | `rollback` | undoes the newest transaction |
//! | `apply`, `destroy`, `repair` | the operations |
//! | `unattended` | a caller that approves everything, for `simulate` |
//! | `records` | the records of this node |

#[cfg(target_os = "linux")]
mod apply;
#[cfg(target_os = "linux")]
mod caller;
#[cfg(target_os = "linux")]
mod decide;
#[cfg(target_os = "linux")]
mod decision;
#[cfg(target_os = "linux")]
mod destroy;
#[cfg(target_os = "linux")]
mod operation;
#[cfg(target_os = "linux")]
mod pending;
#[cfg(target_os = "linux")]
mod records;
mod refusal;
#[cfg(target_os = "linux")]
mod repair;
#[cfg(target_os = "linux")]
mod rollback;
#[cfg(target_os = "linux")]
mod run;
mod session;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod systemd_scope;
#[cfg(target_os = "linux")]
mod turn;
#[cfg(target_os = "linux")]
mod unattended;
mod wording;

#[cfg(target_os = "linux")]
pub use self::{
    apply::{Apply, ApplyCluster, check_mass_removal},
    caller::{Caller, Event, Observer},
    decide::{Cancellation, Settled, already_confirmed, cancel, cancel_pending, confirm},
    decision::incomplete_error,
    destroy::Destroy,
    operation::Operation,
    pending::{PendingApply, WaitResult},
    records::{last_applied, readable, state_dir},
    repair::{Repair, check_newest},
    rollback::{Rollback, RollbackResult, Undo},
    run::{Committed, RunResult, look_when_idle, preview, run},
    supervisor::supervise,
    unattended::Unattended,
};
pub use refusal::misfit;
pub use session::{Place, Session};
#[cfg(target_os = "linux")]
pub use wording::{abandoned, described, name, named, not_kept};
