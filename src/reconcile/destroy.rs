//! Removes everything hostgw manages on this node.

use super::{
    operation::Operation,
    refusal::{check_complete, check_conflicts},
};
use crate::{
    apply::StateDir,
    error::Error,
    kernel::LiveNode,
    plan::{self, ForeignSysctlPolicy, OriginalSysctls, Prepared},
    record::Command,
};

/// The removal of everything hostgw manages.
#[derive(Debug)]
pub struct Destroy {
    dir: StateDir,
    on_foreign: ForeignSysctlPolicy,
    /// The original values of the sysctls that hostgw changed.
    pub saved: OriginalSysctls,
    /// The plan, and what it was made from.
    pub prepared: Prepared,
    /// Whether an apply is recorded here, so that the original sysctl values are known.
    pub has_record: bool,
}

impl Destroy {
    /// Prepares the removal; `on_foreign` says what to do about sysctls that another program has changed since.
    #[must_use]
    pub fn new(dir: StateDir, on_foreign: ForeignSysctlPolicy) -> Self {
        Self {
            on_foreign,
            dir,
            saved: OriginalSysctls::default(),
            prepared: Prepared::nothing(),
            has_record: false,
        }
    }
}

impl Operation for Destroy {
    fn look(&mut self) -> Result<(), Error> {
        self.saved = self.dir.saved()?;
        self.has_record = !self.dir.history()?.is_empty();
        self.prepared = plan::prepare_removal(&mut LiveNode, &self.saved, self.on_foreign)?;
        Ok(())
    }

    fn is_current(&self) -> Result<bool, Error> {
        Ok(self.dir.saved()? == self.saved
            && self.dir.history()?.is_empty() != self.has_record
            && self.prepared.is_current(&mut LiveNode)?)
    }

    fn check(&self) -> Result<(), Error> {
        check_complete(&self.prepared.plan)?;
        check_conflicts(
            &self.prepared.plan,
            "change it back, overwrite it with --adopt, or keep it with --abandon",
        )
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn command(&self) -> Command {
        Command::Destroy
    }

    fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    fn prepared_mut(&mut self) -> &mut Prepared {
        &mut self.prepared
    }
}
