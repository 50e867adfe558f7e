//! How a transaction that failed, or was undone, is reported.

use super::{Failure, clock::time, output::Output};
use crate::{
    apply,
    error::{Error, Kind},
    record::TransactionMeta,
    render,
};

/// The result of a failed transaction, for the command that started it.
pub(super) fn report(failure: apply::Failure, output: &Output) -> Failure {
    match failure {
        apply::Failure::Untouched(error) => Failure::Error(error),
        apply::Failure::RolledBack { cause } => {
            let kind = if cause.kind == Kind::Interrupted { Kind::Interrupted } else { Kind::RolledBack };
            rolled_back(&Error { kind, ..cause }, output)
        }
        apply::Failure::Incomplete(incomplete) => {
            if let Some(cause) = &incomplete.cause {
                output.error(cause);
            }
            Failure::Error(what_is_left(&incomplete))
        }
    }
}

/// What is said of an apply that was undone because of `cause`, whose kind decides the exit code.
pub(super) fn rolled_back(cause: &Error, output: &Output) -> Failure {
    output.error(cause);
    output.record(|transaction| {
        transaction.done = None;
        transaction.verified = true;
        transaction.rolled_back = true;
    });
    output.say("Rolled back and verified: the node is in its previous state.");
    Failure::AlreadyReported(cause.kind)
}

/// A rollback that could not be finished: what is left, and the commands that would finish it.
pub(super) fn what_is_left(incomplete: &apply::Incomplete) -> Error {
    let apply::Incomplete { why, left, is_restored, is_foreign, .. } = incomplete;
    let details = std::iter::once(why.message.clone()).chain(why.details.iter().cloned());
    let message = if *is_restored {
        "the node is in its previous state, but hostgw's records could not be updated"
    } else {
        "the rollback is incomplete"
    };
    let hint = if *is_foreign {
        "run these commands, overwrite it with `hostgw rollback --adopt`, or keep it with `hostgw rollback --abandon`"
    } else if left.is_empty() {
        "fix the cause, then run `hostgw rollback` to resume"
    } else {
        "run these commands, or fix the cause and run `hostgw rollback` to resume; to give up on them, run `hostgw rollback --abandon`"
    };
    let error = Error::new(Kind::RollbackIncomplete, message).with_details(details).with_hint(hint);
    let commands = left.iter().flat_map(render::commands).map(|command| command.to_string().into());
    Error { commands: commands.collect(), ..error }
}

/// A transaction in words: "the apply of 2026-01-31T12:00:00Z".
pub(super) fn described(TransactionMeta { command, at, .. }: &TransactionMeta) -> String {
    format!("the {command} of {}", time(*at))
}
