//! `hostgw cancel`

use super::{VerbResult, arguments::CancelOptions, output::Output, reporter::Reporter};
use crate::{
    error::Error,
    reconcile::{self, Cancellation, named, state_dir},
    record::{Decision, Outcome},
};

/// Rolls back a pending apply now.
pub(super) fn run(options: &CancelOptions, output: &Output) -> VerbResult {
    let reporter = Reporter { output };
    match reconcile::cancel(&state_dir()?, options.id, options.lock.lock_timeout, &reporter)? {
        Cancellation::Ended(outcome) => report(&outcome, &reporter),
        Cancellation::AlreadyUndone(outcome) => {
            output.result(&format!("Nothing to do: {} is already rolled back.\n", named(&outcome)))?;
            Ok(0)
        }
        Cancellation::NothingPending => {
            output.result(
                "Nothing to do: no apply is pending. Run `hostgw rollback` to undo the last apply.\n",
            )?;
            Ok(0)
        }
    }
}

/// Reports the end of an apply that was to be canceled.
pub(super) fn report(outcome: &Outcome, reporter: &Reporter<'_>) -> VerbResult {
    reporter.outcome(outcome);
    let named = named(outcome);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) => Err(Error::unexpected(format!("{named} was already confirmed"))
            .with_hint("run `hostgw rollback` to roll it back")
            .into()),
        (None, _) => {
            let done = format!("Rolled back {named} and verified: the node is in its previous state.");
            reporter.output.done(&done);
            Ok(0)
        }
    }
}
