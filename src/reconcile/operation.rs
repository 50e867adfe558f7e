//! What can be committed as one transaction.

use std::collections::BTreeSet;

use crate::{
    apply::StateDir,
    config::Document,
    error::Error,
    forwarding::Paths,
    model::Check,
    plan::{ObjectKey, Prepared},
    record::Command,
};

/// A change of the node: where to find its plan, and what must hold before it is committed.
pub trait Operation {
    /// Observes the node and plans.
    ///
    /// # Errors
    /// Returns an error if the node or its records cannot be read.
    fn look(&mut self) -> Result<(), Error>;

    /// Observes the node again. Returns `true` if [`Self::look`] and [`Self::check`] would give the same results as last
    /// time, because everything that they depend on is unchanged.
    ///
    /// # Errors
    /// Returns an error if the node cannot be read.
    fn is_current(&self) -> Result<bool, Error>;

    /// Checks everything that must hold before the first write.
    ///
    /// # Errors
    /// Returns the reason that the plan must not be committed.
    fn check(&self) -> Result<(), Error>;

    /// The state directory of the node.
    fn dir(&self) -> &StateDir;

    /// The command that the lock and the records name.
    fn command(&self) -> Command;

    /// The plan, and what it was made from.
    fn prepared(&self) -> &Prepared;

    /// Returns the newest observation and plan.
    fn prepared_mut(&mut self) -> &mut Prepared;

    /// The checks to run before and after the change.
    fn checks(&self) -> &[Check] {
        &[]
    }

    /// The pod paths that must not become worse.
    fn paths(&self) -> Option<Paths<'_>> {
        None
    }

    /// Returns `true` if it restores what the last apply established, and therefore leaves no record of its own.
    fn is_repair(&self) -> bool {
        false
    }

    /// The objects that the plan leaves alone.
    fn withheld(&self) -> Option<&BTreeSet<ObjectKey>> {
        None
    }

    /// The configuration to keep with the record.
    fn configuration(&self) -> Option<&Document> {
        None
    }
}
