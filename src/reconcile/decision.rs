//! Carries out the decision about a pending apply.

use crate::{
    apply::{self, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    record::{Decision, Outcome, Pending, Record},
    render,
};

/// Carries out `decision` and records the outcome. The caller holds the lock.
pub(super) fn finish(dir: &StateDir, record: &Record, pending: Pending, decision: Decision) -> Outcome {
    let concluded = apply::carry_out(&mut LiveNode, dir, record, pending, decision);
    let failure = concluded.err().map(|failure| match failure {
        apply::Failure::Untouched(error) | apply::Failure::RolledBack { cause: error } => error,
        apply::Failure::Incomplete(incomplete) => incomplete_error(&incomplete),
    });
    let outcome = Outcome { pending, metadata: record.metadata.clone(), decision, failure };
    if dir.outcome().ok().flatten().as_ref() != Some(&outcome) {
        // The record is a convenience: a waiting command can tell the outcome without it.
        let _ = dir.write_outcome(&outcome);
    }
    if decision != Decision::Confirmed {
        let _ = dir.end_pending();
    }
    outcome
}

/// Returns the error for a rollback that could not be completed: what is left, and the commands that would complete it.
#[must_use]
pub fn incomplete_error(incomplete: &apply::Incomplete) -> Error {
    let apply::Incomplete { why, left, is_restored, only_conflicts, .. } = incomplete;
    let details = why.details.iter().map(|detail| format!("  {detail}").into());
    let details = std::iter::once(why.message.clone()).chain(details);
    let message = if *is_restored {
        "the node is in its previous state, but hostgw could not update its records"
    } else {
        "the rollback is incomplete"
    };
    let hint = if *only_conflicts {
        "to overwrite or remove the foreign objects, run `hostgw rollback --adopt`, or these commands and then `hostgw rollback`; to keep them, run `hostgw rollback --abandon`"
    } else if left.is_empty() {
        "fix the cause, then run `hostgw rollback` to resume"
    } else {
        "fix the cause, then run `hostgw rollback` to resume, or run these commands and then `hostgw rollback`; to keep the node as it is, run `hostgw rollback --abandon`"
    };
    let error = Error::new(Kind::RollbackIncomplete, message).with_details(details).with_hint(hint);
    let commands = left.iter().flat_map(render::commands).map(|command| command.to_string().into());
    Error { commands: commands.collect(), ..error }
}
