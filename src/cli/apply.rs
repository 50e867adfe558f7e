//! `hostgw apply` and `hostgw destroy`

use super::{
    Failure, Verdict,
    arguments::{ApplyOptions, Consent, DestroyOptions, Preview},
    changed,
    node_records::state_dir,
    output::Output,
    persisted::{self, Basis},
    saved_plan::SavedPlan,
    session::{Session, check_complete, check_conflicts},
    transaction::{CarriedOut, Done, Operation, carry_out, preview},
    transaction_meta,
};
use crate::{
    apply::StateDir,
    config::Document,
    error::{Error, Kind},
    kernel::LiveNode,
    model::Check,
    plan::{self, ForeignPolicy, ForeignSysctlPolicy, OriginalSysctls, Prepared},
    record::{Command, TransactionMeta},
    render::Report,
    text::count,
};

/// Applies the configuration, or a saved plan, to this node.
pub(super) fn run(options: &ApplyOptions, output: &Output) -> Verdict {
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let plan = options.plan.as_deref().map(SavedPlan::read).transpose()?;
    let session = match &plan {
        Some(plan) => plan.session()?,
        None => Session::live(&options.target, policy)?,
    };
    let allowed = options.allow_removals;
    let mut application = Application { session, dir: state_dir()?, plan, allowed };
    // A saved plan was reviewed before it was applied.
    let consent = Consent { yes: options.consent.yes || application.plan.is_some(), ..options.consent };
    let CarriedOut { done, recovered } = carry_out(&mut application, &consent, options.confirm, output)?;
    let is_changed = done.is_some() || recovered;
    if let Some(Done { totals, held }) = done {
        output.done(&format!(
            "Applied to node {} and verified: {} added, {} changed, {} removed.",
            application.session.node_name(),
            totals.add,
            totals.change,
            totals.remove
        ));
        if let Some(held) = held {
            held.wait(output)?;
        }
    } else if application.plan.is_some() {
        output.done("The saved plan is already in force.");
    }
    Ok(if is_changed { changed(options.detailed_exitcode) } else { 0 })
}

/// The number of removed routes from which an apply needs `--allow-removals`.
const MASS: usize = 10;

/// Brings the node to the desired state of a configuration.
struct Application {
    session: Session,
    dir: StateDir,
    /// The one that it has to be.
    plan: Option<SavedPlan>,
    /// How many routes may go.
    allowed: Option<usize>,
}

impl Operation for Application {
    fn look(&mut self) -> Result<(), Failure> {
        self.session.look()
    }

    fn check(&self) -> Result<(), Error> {
        self.session.check()?;
        check_complete(&self.session.prepared.plan)?;
        check_conflicts(
            &self.session.prepared.plan,
            "remove the foreign object, or take it over with --adopt",
        )?;
        self.plan.as_ref().map_or(Ok(()), |plan| plan.check(&self.session))?;
        self.check_removals()
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn command(&self) -> Command {
        Command::Apply
    }

    fn prepared(&self) -> &Prepared {
        &self.session.prepared
    }

    fn checks(&self) -> &[Check] {
        &self.session.loaded.cluster.checks
    }

    fn report(&self) -> Report {
        self.session.report()
    }

    fn can_wait(&self) -> bool {
        true
    }

    fn question(&self) -> String {
        format!("Apply this plan to node {}?", self.session.node_name())
    }

    fn occasion(&self) -> TransactionMeta {
        match &self.plan {
            Some(plan) => plan.occasion(),
            None => transaction_meta::of_apply(&self.session.loaded.document, self.session.node_name()),
        }
    }

    fn configuration(&self) -> Option<&Document> {
        Some(&self.session.loaded.document)
    }
}

impl Application {
    /// Checks that a configuration that lost its nodes does not silently remove their routes.
    fn check_removals(&self) -> Result<(), Error> {
        let Prepared { plan, observed, desired, .. } = &self.session.prepared;
        let removed = plan::removed_routes(plan);
        let standing = observed.state.routes.iter().filter(|route| route.is_owned()).count();
        let leaves_none = desired.state.routes.iter().all(|route| route.next.gateway.is_none());
        let is_mass = removed >= MASS && removed * 2 > standing;
        if removed == 0 || !(is_mass || leaves_none) || self.allowed == Some(removed) {
            return Ok(());
        }
        let said = self.allowed.map_or_else(String::new, |said| format!(", not {said}"));
        let left = if leaves_none { "; no other node is left in the configuration" } else { "" };
        let message = format!(
            "this plan removes {removed} of the {} managed here{said}{left}; nothing was changed",
            count(standing, "route")
        );
        Err(Error::new(Kind::Declined, message).with_hint(format!(
            "review them with `hostgw plan`; if they are intended, pass --allow-removals {removed}"
        )))
    }
}

/// Removes everything hostgw manages on this node.
pub(super) fn destroy(options: &DestroyOptions, output: &Output) -> Verdict {
    let on_foreign = match (options.adopt, options.abandon) {
        (true, _) => ForeignSysctlPolicy::Overwrite,
        (false, true) => ForeignSysctlPolicy::Leave,
        (false, false) => ForeignSysctlPolicy::Refuse,
    };
    let mut removal = Removal::new(on_foreign)?;
    let Preview { dry_run, detailed_exitcode } = options.preview;
    if dry_run {
        return preview(&mut removal, detailed_exitcode, options.consent.lock.lock_timeout, output);
    }
    let CarriedOut { done, recovered } = carry_out(&mut removal, &options.consent, None, output)?;
    if let Some(Done { totals, .. }) = &done {
        output.done(&format!("Removed and verified: {} removed, {} restored.", totals.remove, totals.change));
    }
    Ok(if done.is_some() || recovered { changed(detailed_exitcode) } else { 0 })
}

/// Removes everything hostgw manages.
struct Removal {
    dir: StateDir,
    saved: OriginalSysctls,
    prepared: Prepared,
    has_record: bool,
    on_foreign: ForeignSysctlPolicy,
}

impl Removal {
    fn new(on_foreign: ForeignSysctlPolicy) -> Result<Self, Error> {
        Ok(Self {
            on_foreign,
            dir: state_dir()?,
            saved: OriginalSysctls::default(),
            prepared: Prepared::nothing(),
            has_record: false,
        })
    }
}

impl Operation for Removal {
    fn look(&mut self) -> Result<(), Failure> {
        self.saved = self.dir.saved()?;
        self.has_record = !self.dir.history()?.is_empty();
        self.prepared = plan::prepare_removal(&mut LiveNode, &self.saved, self.on_foreign)?;
        Ok(())
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

    fn report(&self) -> Report {
        let Prepared { desired, plan, .. } = &self.prepared;
        let explain = |change: &_| plan::reason(None, desired, &self.saved, None, change);
        let mut report = Report::new(plan, explain, |_, _| None);
        if !self.has_record && !plan.is_empty() {
            report.warnings.push(
                "no apply is recorded here, so the original sysctl values are unknown; the sysctls keep their current values"
                    .to_owned(),
            );
        }
        report.warnings.extend(plan::check::irrevocable(plan));
        report.warnings.extend(plan::foreign::left(&self.prepared.left));
        report.add_persisted(persisted::judge(&persisted::find(), &Basis::Nothing));
        report
    }

    fn can_wait(&self) -> bool {
        false
    }

    fn question(&self) -> String {
        "Remove everything hostgw manages on this node?".to_owned()
    }

    fn occasion(&self) -> TransactionMeta {
        transaction_meta::of_command(Command::Destroy)
    }
}
