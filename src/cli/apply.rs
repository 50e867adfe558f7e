//! `hostgw apply` and `hostgw destroy`

use super::{
    Failure, Verdict,
    arguments::{ApplyOptions, DestroyOptions},
    output::Output,
    session::{Session, check_complete, check_conflicts, state_dir},
    transaction::{Aim, carry_out, now},
};
use crate::{
    apply::{Command, Node, Request, StateDir},
    error::Error,
    kernel::LiveNode,
    plan::{self, Desired, Observed, Plan, Policy, Saved, Scope},
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
        check_complete(&self.plan)?;
        check_conflicts(&self.plan, "remove what stands there, or take it over with --adopt")
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn desired(&self) -> &Desired {
        &self.desired
    }

    fn report(&self) -> Report {
        Self::report(self)
    }

    fn question(&self) -> String {
        format!("Apply this plan to node {}?", self.node_name())
    }

    fn request(&self) -> Request<'_> {
        Request {
            command: Command::Apply,
            node: Some(self.node_name()),
            file: Some(self.loaded.document.name()),
            desired: &self.desired.state,
            scope: &self.scope,
            plan: &self.plan,
            observed: &self.observed.state,
            released: &self.desired.released,
            policy: self.policy,
            now: now(),
        }
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
    desired: Desired,
    scope: Scope,
    observed: Observed,
    plan: Plan,
    has_record: bool,
}

impl Removal {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            dir: state_dir()?,
            saved: Saved::default(),
            desired: Desired::nothing(&Saved::default()),
            scope: Scope::default(),
            observed: Observed::default(),
            plan: Plan::default(),
            has_record: false,
        })
    }
}

impl Aim for Removal {
    fn look(&mut self) -> Result<(), Failure> {
        self.saved = self.dir.saved()?;
        self.has_record = self.dir.next_id()? > 1;
        self.desired = Desired::nothing(&self.saved);
        self.scope = Scope::of(&self.desired.state, Vec::new());
        self.observed = LiveNode.observe(&self.scope)?;
        // Everything in hostgw's own table goes.
        self.plan = plan::plan(&self.desired.state, &self.observed.state, Policy::Adopt);
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        check_complete(&self.plan)
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn desired(&self) -> &Desired {
        &self.desired
    }

    fn report(&self) -> Report {
        let explain = |change: &_| plan::explain(None, &self.desired, &self.saved, None, change);
        let mut report = Report::new(&self.plan, explain, |_| None);
        if !self.has_record && !self.plan.is_empty() {
            report.warnings.push(
                "no apply is on record here: what the sysctls were before hostgw is not known, and they stay"
                    .to_owned(),
            );
        }
        report.warnings.extend(plan::check::irrevocable(&self.plan));
        report
    }

    fn question(&self) -> String {
        "Remove all that hostgw owns on this node?".to_owned()
    }

    fn request(&self) -> Request<'_> {
        Request {
            command: Command::Destroy,
            node: None,
            file: None,
            desired: &self.desired.state,
            scope: &self.scope,
            plan: &self.plan,
            observed: &self.observed.state,
            released: &self.desired.released,
            policy: Policy::Adopt,
            now: now(),
        }
    }
}
