//! `hostgw apply` and `hostgw destroy`

use super::{
    Failure, Verdict,
    arguments::{ApplyOptions, DestroyOptions},
    output::Output,
    session::{Session, check_complete, check_conflicts, state_dir},
    transaction::{Aim, carry_out, now},
};
use crate::{
    apply::{self, Command, Prepared, Request, StateDir},
    error::Error,
    kernel::LiveNode,
    model::Check,
    plan::{self, Desired, Policy, Saved},
    render::Report,
};

/// Brings this node to what the file says.
pub(super) fn run(options: &ApplyOptions, output: &Output) -> Verdict {
    let policy = if options.adopt { Policy::Adopt } else { Policy::Respect };
    let mut session = Session::new(&options.target, policy)?;
    if let Some(totals) = carry_out(&mut session, &options.consent, output)? {
        output.done(&format!(
            "Applied to node {} and verified: {} added, {} changed, {} removed.",
            session.node_name(),
            totals.add,
            totals.change,
            totals.remove
        ));
    }
    Ok(0)
}

impl Aim for Session {
    fn look(&mut self) -> Result<(), Failure> {
        Self::look(self)
    }

    fn check(&self) -> Result<(), Error> {
        Self::check(self)?;
        check_complete(&self.prepared.plan)?;
        check_conflicts(&self.prepared.plan, "remove what stands there, or take it over with --adopt")
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn desired(&self) -> &Desired {
        &self.prepared.desired
    }

    fn checks(&self) -> &[Check] {
        &self.loaded.cluster.checks
    }

    fn report(&self) -> Report {
        Self::report(self)
    }

    fn question(&self) -> String {
        format!("Apply this plan to node {}?", self.node_name())
    }

    fn request(&self) -> Request<'_> {
        let file = self.loaded.document.name();
        self.prepared.request(Command::Apply, Some(self.node_name()), Some(file), now())
    }
}

/// Removes all that hostgw owns here.
pub(super) fn destroy(options: &DestroyOptions, output: &Output) -> Verdict {
    let mut removal = Removal::new()?;
    if let Some(totals) = carry_out(&mut removal, &options.consent, output)? {
        output.done(&format!("Removed and verified: {} removed, {} restored.", totals.remove, totals.change));
    }
    Ok(0)
}

/// The way to a node without hostgw.
struct Removal {
    dir: StateDir,
    saved: Saved,
    prepared: Prepared,
    has_record: bool,
}

impl Removal {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            dir: state_dir()?,
            saved: Saved::default(),
            prepared: Prepared::nothing(),
            has_record: false,
        })
    }
}

impl Aim for Removal {
    fn look(&mut self) -> Result<(), Failure> {
        self.saved = self.dir.saved()?;
        self.has_record = self.dir.next_id()? > 1;
        self.prepared = apply::prepare_removal(&mut LiveNode, &self.saved)?;
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        check_complete(&self.prepared.plan)
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn desired(&self) -> &Desired {
        &self.prepared.desired
    }

    fn report(&self) -> Report {
        let Prepared { desired, plan, .. } = &self.prepared;
        let explain = |change: &_| plan::explain(None, desired, &self.saved, None, change);
        let mut report = Report::new(plan, explain, |_| None);
        if !self.has_record && !plan.is_empty() {
            report.warnings.push(
                "no apply is on record here: what the sysctls were before hostgw is not known, and they stay"
                    .to_owned(),
            );
        }
        report.warnings.extend(plan::check::irrevocable(plan));
        report
    }

    fn question(&self) -> String {
        "Remove all that hostgw owns on this node?".to_owned()
    }

    fn request(&self) -> Request<'_> {
        self.prepared.request(Command::Destroy, None, None, now())
    }
}
