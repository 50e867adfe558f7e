//! Keeps this node in sync with its configuration, for as long as the process runs.
//!
//! The agent looks at the node whenever the kernel or the file system reports a change, and about once a minute. It
//! repairs and applies through [`reconcile`](crate::reconcile), like every command. It prints nothing: [`AgentHost`]
//! receives its events.
//!
//! | file | purpose |
//! |---|---|
//! | `run` | the main loop: waits for notifications, signals and deadlines |
//! | `keeper` | one pass: the file, the records of other commands, an apply or a repair, the report |
//! | `target` | the configuration in effect after another command |
//! | `caller` | the [`Caller`](crate::reconcile::Caller) of the agent's operations |
//! | `problem` | problems in the form in which they are reported |
//! | `backoff` | pauses after failures |
//! | `pace` | when to look at the node |
//! | `contest` | objects that other programs keep changing |
//! | `file_watch` | reports when the configuration file may have changed |
//! | `polled` | the sysctls whose changes the kernel does not announce |
//! | `host` | settings, events and signals |

mod backoff;
mod caller;
mod contest;
mod file_watch;
mod host;
mod keeper;
mod pace;
mod polled;
mod problem;
mod run;
mod target;

pub use host::{AgentEvent, AgentHost, AgentSettings, AgentSignals};
pub use pace::LONGEST_INTERVAL;
pub use run::run;
