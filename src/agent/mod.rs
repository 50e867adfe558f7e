//! Keeps this node as its configuration says, for as long as the process runs.
//!
//! The agent looks at the node whenever the kernel or the file system reports a change, and at least once a minute. It
//! repairs and applies through [`reconcile`](crate::reconcile), like every command. It prints nothing: [`AgentHost`] tells
//! its user what happens.
//!
//! | file | purpose |
//! |---|---|
//! | `run` | waits for notifications, signals and deadlines |
//! | `keeper` | one round: the file, the records of other commands, an apply or a repair, the report |
//! | `target` | which configuration to keep: the file's, the last good one, or that of another command |
//! | `caller` | what the operations ask and tell |
//! | `trouble` | what is wrong, as the report has it |
//! | `backoff` | pauses after failures |
//! | `pace` | when to look at the node |
//! | `contest` | objects that other programs change again and again |
//! | `file_watch` | reports when the configuration file may have changed |
//! | `polled` | the sysctls whose changes the kernel does not announce |
//! | `host` | the other side: what to keep, who is told, and who can stop it |

mod backoff;
mod caller;
mod contest;
mod file_watch;
mod host;
mod keeper;
mod pace;
mod polled;
mod run;
mod target;
mod trouble;

pub use host::{AgentEvent, AgentHost, AgentSettings, AgentSignals};
pub use run::run;
