//! The lock and the report of the agent.

use super::*;
use crate::record::AgentReport;

/// The lock that an agent holds while it is running.
const AGENT_LOCK: &str = "agent-lock";
/// The report of the agent.
pub(super) const AGENT: &str = "agent.json";

impl StateDir {
    /// Acquires the agent lock, which allows one agent in each network namespace.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be written, or [`Kind::Locked`] if another agent is running.
    pub fn lock_agent(&self, description: &str) -> Result<Lock, Error> {
        match Lock::acquire(self.create()?, AGENT_LOCK, Duration::ZERO, description) {
            Ok(Ok(lock)) => Ok(lock),
            Ok(Err(holder)) => {
                Err(Error::new(Kind::Locked, format!("an agent is already running on this node: {holder}"))
                    .with_hint(
                        "run `hostgw status` to see what it is doing; stop it before you start another one",
                    ))
            }
            Err(error) => Err(cannot("acquire the agent lock in", &self.path, &error)),
        }
    }

    /// Returns the running agent, if any.
    #[must_use]
    pub fn agent(&self) -> Option<Holder> {
        Lock::holder(self.folder().ok()??, AGENT_LOCK)
    }

    /// Returns the last report of an agent since boot.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn agent_report(&self) -> Result<Option<AgentReport>, Error> {
        self.read(AGENT)
    }

    /// Replaces the report of the agent.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write_agent_report(&self, report: &AgentReport) -> Result<(), Error> {
        self.write(AGENT, report)
    }
}
