//! `hostgw confirm`

use super::{VerbResult, arguments::ConfirmOptions, output::Output, reporter::Reporter};
use crate::{
    reconcile::{self, Settled, already_confirmed, named, not_kept, state_dir},
    record::Decision,
};

/// Confirms a pending apply. Succeeds only if this very call confirmed it.
pub(super) fn run(options: &ConfirmOptions, output: &Output) -> VerbResult {
    let reporter = Reporter { output };
    let lock_timeout = options.lock.lock_timeout;
    let Settled { outcome, is_by_this_call } =
        reconcile::confirm(&state_dir()?, options.id, options.wait, lock_timeout, &reporter)?;
    reporter.outcome(&outcome);
    let named = named(&outcome);
    match (&outcome.failure, outcome.decision) {
        (Some(failure), _) => Err(failure.clone().into()),
        (None, Decision::Confirmed) if is_by_this_call => {
            output.done(&format!("Confirmed {named}: it will not be rolled back."));
            Ok(0)
        }
        (None, Decision::Confirmed) => Err(already_confirmed(&named).into()),
        (None, _) => Err(reporter.rolled_back(&not_kept(&outcome))),
    }
}
