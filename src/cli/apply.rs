//! `hostgw apply`

use std::cell::OnceCell;

use super::{
    VerbFailure, VerbResult,
    arguments::{ApplyOptions, Consent},
    changed,
    command_line::{CommandLine, Presentation},
    configuration::load,
    environment,
    output::Output,
    reporter::Reporter,
    saved_plan::SavedPlan,
    session_report, transaction_meta,
};
use crate::{
    clock::time,
    diagnose::Diagnostic,
    doctor::firewall_errors,
    error::{Error, Kind},
    kernel,
    plan::ForeignPolicy,
    reconcile::{self, Apply, Committed, PendingApply, RunResult, Session, WaitResult, not_kept},
    record::{Decision, Outcome, TransactionMeta},
    render::{Palette, Report},
};

/// Applies a configuration, or a saved plan, to this node.
pub(super) fn run(options: &ApplyOptions, output: &Output) -> VerbResult {
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let plan = options.plan.as_deref().map(SavedPlan::read).transpose()?;
    let session = match &plan {
        Some(plan) => plan.session()?,
        None => {
            let node = environment::node(options.target.node.as_deref());
            Session::live(load(options.target.file.as_deref())?, node.as_deref(), policy)?
        }
    };
    let guard = |session: &Session| plan.as_ref().map_or(Ok(()), |plan| plan.check(session));
    let mut apply = Apply::new(session, options.allow_removals, &guard)?;
    // A saved plan was reviewed before.
    let consent = Consent { yes: options.consent.yes || plan.is_some(), ..options.consent };
    let presentation = Applying { plan: plan.as_ref(), blocked: OnceCell::new() };
    let caller = CommandLine { presentation, consent, output };
    let reporter = caller.reporter();
    let result = reconcile::run(&mut apply, options.confirm, &caller);
    let RunResult { committed, recovered } = result.map_err(|failure| reporter.failure(failure))?;
    let is_changed = committed.is_some() || recovered;
    if let Some(Committed { totals, pending, faults }) = committed {
        let changes = format!("{} added, {} updated, {} removed", totals.add, totals.update, totals.remove);
        let name = apply.session.node_name();
        let blocked = caller.presentation.blocked.get().map_or(&[][..], Vec::as_slice);
        for finding in blocked {
            output.diagnostic(finding);
        }
        if faults.is_empty() && blocked.is_empty() {
            output.done(&format!("Applied to node {name} and verified: {changes}."));
        } else {
            output.say(&format!(
                "Applied to node {name}: {changes}. Some pod traffic is lost or diverted; see the warnings above."
            ));
        }
        if let Some(pending) = pending {
            wait(pending, &reporter)?;
        }
    } else if plan.is_some() {
        output.done("The saved plan has already been applied.");
    }
    Ok(if is_changed { changed(options.detailed_exitcode) } else { 0 })
}

/// Returns the errors about a firewall that drops, redirects or masquerades packets between pods, which a route lookup of the
/// kernel does not show.
fn blocked_by_firewall(session: &Session) -> Vec<Diagnostic> {
    let Session { loaded, index, prepared, .. } = session;
    let Some(firewall) = kernel::firewall() else { return Vec::new() };
    let mut errors =
        firewall_errors(&loaded.cluster, *index, &prepared.desired, &prepared.observed, &firewall);
    for error in &mut errors {
        error.message.insert_str(0, "applied, but ");
    }
    errors
}

struct Applying<'a> {
    plan: Option<&'a SavedPlan>,
    /// The errors about the firewall. They are found before the transaction, so that the apply ends with the transaction.
    blocked: OnceCell<Vec<Diagnostic>>,
}

impl Applying<'_> {
    fn look_at_firewall(&self, session: &Session) {
        self.blocked.get_or_init(|| blocked_by_firewall(session));
    }
}

impl Presentation<Apply<'_>> for Applying<'_> {
    fn report(&self, apply: &Apply<'_>) -> Report {
        self.look_at_firewall(&apply.session);
        session_report::report(&apply.session)
    }

    fn text(&self, apply: &Apply<'_>, palette: &Palette) -> String {
        self.look_at_firewall(&apply.session);
        session_report::text(&apply.session, palette)
    }

    fn question(&self, apply: &Apply<'_>) -> String {
        format!("Apply this plan to node {}?", apply.session.node_name())
    }

    fn can_be_pending(&self) -> bool {
        true
    }

    fn metadata(&self, Apply { session, .. }: &Apply<'_>) -> TransactionMeta {
        match &self.plan {
            Some(plan) => plan.metadata(),
            None => transaction_meta::of_apply(&session.loaded.document, session.node_name()),
        }
    }
}

/// Waits for the confirmation of an apply, with a countdown on a terminal.
fn wait(pending: PendingApply, reporter: &Reporter<'_>) -> Result<(), VerbFailure> {
    let output = reporter.output;
    let (id, until) = (pending.pending().id, time(pending.pending().until));
    output.say(&format!(
        "Pending: apply {id} rolls back at {until} unless you run `hostgw confirm {id}`; `hostgw cancel {id}` \
         rolls it back now."
    ));
    let WaitResult { outcome, was_interrupted } = pending.wait(reporter)?;
    reporter.outcome(&outcome);
    if outcome.decision == Decision::Canceled && was_interrupted && outcome.failure.is_none() {
        let interrupted = Error::new(Kind::Interrupted, "interrupted");
        return Err(reporter.rolled_back(&interrupted));
    }
    let cause = not_kept(&outcome);
    let Outcome { pending, decision, failure, .. } = outcome;
    match (failure, decision) {
        (Some(failure), Decision::Confirmed) => Err(failure.into()),
        (Some(failure), _) => {
            output.error(&cause);
            Err(failure.into())
        }
        (None, Decision::Confirmed) => {
            output.done(&format!("Confirmed apply {}: it will not be rolled back.", pending.id));
            Ok(())
        }
        (None, _) => Err(reporter.rolled_back(&cause)),
    }
}
