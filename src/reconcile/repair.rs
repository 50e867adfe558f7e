//! Restores what the last apply established.

use std::collections::BTreeSet;

use super::{apply::check_removals, operation::Operation, refusal::check_complete, session::Session};
use crate::{
    apply::StateDir,
    config::Document,
    error::{Error, Kind},
    forwarding::Paths,
    plan::{Conflict, ObjectKey, Prepared},
    record::Command,
};

/// Restores what the last apply of the session's configuration established. Foreign objects in place of managed ones stay,
/// and do not prevent the repair of other objects.
#[derive(Debug)]
pub struct Repair<'a> {
    session: &'a mut Session,
    node: Option<&'a str>,
    dir: &'a StateDir,
    /// The newest transaction that the agent has seen.
    newest: Option<u64>,
    is_record_current: bool,
    /// The objects to leave alone.
    excluded: &'a BTreeSet<ObjectKey>,
    /// The excluded objects, and those that conflict.
    withheld: BTreeSet<ObjectKey>,
    /// The foreign objects in place of managed ones.
    pub conflicts: Vec<Conflict>,
}

impl<'a> Repair<'a> {
    /// Prepares a repair of the node `node`, or else of the node that this machine is. Leaves the objects in `excluded` alone.
    /// Fails as stale if a transaction followed `newest`, because a repair must not undo it.
    #[must_use]
    pub fn new(
        session: &'a mut Session,
        node: Option<&'a str>,
        dir: &'a StateDir,
        newest: Option<u64>,
        excluded: &'a BTreeSet<ObjectKey>,
    ) -> Self {
        let (withheld, conflicts) = (excluded.clone(), Vec::new());
        Self { session, node, dir, newest, is_record_current: false, excluded, withheld, conflicts }
    }

    /// The configuration and the node.
    #[must_use]
    pub const fn session(&self) -> &Session {
        self.session
    }
}

/// Checks that no other command has changed the node since the transaction `seen`.
///
/// # Errors
/// [`Kind::Stale`] if one has.
pub fn check_newest(dir: &StateDir, seen: Option<u64>) -> Result<(), Error> {
    if dir.newest()? == seen {
        return Ok(());
    }
    Err(Error::new(Kind::Stale, "another hostgw command changed the node; nothing was changed"))
}

impl Operation for Repair<'_> {
    fn look(&mut self) -> Result<(), Error> {
        self.session.identify_again(self.node)?;
        self.session.look_at_once()?;
        self.is_record_current = self.session.is_established_by(self.session.last.as_ref());
        let plan = &mut self.session.prepared.plan;
        self.conflicts.clone_from(&plan.conflicts);
        self.withheld.clone_from(self.excluded);
        self.withheld.extend(plan.conflicts.iter().map(Conflict::object));
        plan.exclude(&self.withheld);
        Ok(())
    }

    fn is_current(&self) -> Result<bool, Error> {
        self.session.is_current()
    }

    fn check(&self) -> Result<(), Error> {
        check_newest(self.dir, self.newest)?;
        self.session.check()?;
        check_complete(&self.session.prepared.plan)?;
        check_removals(self.session, None)
    }

    fn dir(&self) -> &StateDir {
        self.dir
    }

    fn command(&self) -> Command {
        Command::Apply
    }

    fn prepared(&self) -> &Prepared {
        &self.session.prepared
    }

    fn prepared_mut(&mut self) -> &mut Prepared {
        &mut self.session.prepared
    }

    fn paths(&self) -> Option<Paths<'_>> {
        Some(self.session.paths())
    }

    /// If no record describes this configuration as applied, the operation is recorded as an apply.
    fn is_repair(&self) -> bool {
        self.is_record_current
    }

    fn withheld(&self) -> Option<&BTreeSet<ObjectKey>> {
        Some(&self.withheld)
    }

    fn configuration(&self) -> Option<&Document> {
        Some(&self.session.loaded.document)
    }
}
