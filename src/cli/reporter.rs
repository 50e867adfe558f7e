//! Prints what happens while a command changes the node, and records it for `--json`.

use std::sync::Arc;

use super::{VerbFailure, output::Output, signals, transaction_json::Confirmation};
use crate::{
    apply::{self, Interrupt},
    clock::time,
    error::{Error, Kind},
    reconcile::{Event, Observer, abandoned, described, incomplete_error},
    record::{Decision, Outcome},
    text::count,
};

/// An observer that prints.
pub(super) struct Reporter<'a> {
    pub output: &'a Output,
}

/// Describes an event that every command reports in the same words. The first part is whether it is a warning.
pub(super) fn sentence(event: &Event<'_>) -> Option<(bool, String)> {
    Some(match event {
        Event::SupervisorResumed(holder) => (true, format!("resumed {holder}")),
        Event::InterruptedFound(record) => (
            true,
            format!(
                "{} was interrupted or only partly rolled back; hostgw will roll it back first",
                described(record)
            ),
        ),
        Event::ConfirmationCompleted(record) => {
            (false, format!("{} was confirmed, and will not be rolled back.", described(record)))
        }
        Event::Recovered { record, left: None } => (
            false,
            format!("Rolled back {} and verified: the node is in its previous state.", described(record)),
        ),
        Event::Recovered { record, left: Some(left) } => (false, abandoned(record, left.len())),
        Event::CheckIgnored { check, why } => {
            (true, format!("check {check} was failing before the change ({why}); ignoring it"))
        }
        _ => return None,
    })
}

impl Observer for Reporter<'_> {
    fn event(&self, event: Event<'_>) {
        let output = self.output;
        match event {
            Event::WaitingForLock(holder) => {
                output.warn(&format!("another hostgw command is running: {holder}; waiting"));
            }
            Event::WaitingForDecision(pending) => {
                let (id, until) = (pending.id, time(pending.until));
                output.warn_with_help(
                    &format!("apply {id} is pending until {until}; waiting for it to end"),
                    &format!("run `hostgw confirm {id}` to keep it, or `hostgw cancel {id}` to roll it back"),
                );
            }
            Event::Recovered { record, left } => {
                output.record(|transaction| transaction.recovered_transaction_id = Some(record.id));
                if let Some((_, text)) = sentence(&event) {
                    output.done(&text);
                }
                left.into_iter().flatten().for_each(|left| output.warn_of_item(left));
            }
            Event::SupervisorResumed(_)
            | Event::InterruptedFound(_)
            | Event::ConfirmationCompleted(_)
            | Event::CheckIgnored { .. } => match sentence(&event) {
                Some((true, text)) => output.warn(&text),
                Some((false, text)) => output.done(&text),
                None => {}
            },
            Event::PlanChanged => output.warn("the live state changed; the new plan is:"),
            Event::AlreadyMade => {
                output.done("No changes left: another program already made them.");
            }
            Event::Begun(id) => output.record(|transaction| transaction.transaction_id = Some(id)),
            Event::Committed { totals, pending, checks, faults } => {
                output.record(|transaction| {
                    transaction.done = Some(totals.into());
                    transaction.verified = true;
                    transaction.confirmation = pending.map(|pending| Confirmation::of(pending, None));
                });
                for fault in faults {
                    let mut diagnostic = fault.diagnostic();
                    diagnostic.message.insert_str(0, "applied, but ");
                    output.diagnostic(&diagnostic);
                }
                if checks > 0 {
                    let checks = count(checks, "check");
                    output.done(&format!("{checks} passed before and after the change."));
                }
            }
            Event::Pending(pending) => output.record(|transaction| {
                transaction.transaction_id = Some(pending.id);
                transaction.confirmation = Some(Confirmation::of(pending, None));
            }),
            Event::SignalWhilePending => {
                if signals::hung_up() {
                    signals::end_by_hang_up();
                }
            }
            Event::CannotCancel(pending, error) => {
                output.error(error);
                let until = time(pending.until);
                output.say(&format!("The apply cannot be canceled; it rolls back at {until}."));
            }
            Event::SupervisorLost => {
                output.warn("the supervisor was killed or stopped; this command now enforces the deadline");
            }
        }
    }

    fn interrupt(&self) -> Result<Arc<Interrupt>, Error> {
        signals::interrupt()
    }
}

impl Reporter<'_> {
    /// Reports a failed transaction.
    pub(super) fn failure(&self, failure: apply::Failure) -> VerbFailure {
        match failure {
            apply::Failure::Untouched(error) => VerbFailure::Error(error),
            apply::Failure::RolledBack { cause } => {
                let kind = if cause.kind == Kind::Interrupted { Kind::Interrupted } else { Kind::RolledBack };
                self.rolled_back(&Error { kind, ..cause })
            }
            apply::Failure::Incomplete(incomplete) => {
                if let Some(cause) = &incomplete.cause {
                    // The next command is the one that finishes the rollback.
                    self.output.error(&Error { hint: None, ..cause.clone() });
                }
                VerbFailure::Error(incomplete_error(&incomplete))
            }
        }
    }

    /// Reports that the node was rolled back because of `cause`, whose kind determines the exit code.
    pub(super) fn rolled_back(&self, cause: &Error) -> VerbFailure {
        self.output.error(cause);
        self.output.record(|transaction| {
            transaction.done = None;
            transaction.verified = true;
            transaction.rolled_back = true;
        });
        self.output.say("Rolled back and verified: the node is in its previous state.");
        VerbFailure::AlreadyReported(cause.kind)
    }

    /// Records the end of a pending apply.
    pub(super) fn outcome(&self, outcome: &Outcome) {
        self.output.record(|transaction| {
            let is_undone = outcome.decision != Decision::Confirmed;
            transaction.transaction_id = Some(outcome.pending.id);
            transaction.confirmation = Some(Confirmation::of(&outcome.pending, Some(outcome.decision)));
            transaction.rolled_back = is_undone && outcome.failure.is_none();
            if is_undone {
                transaction.done = None;
                transaction.verified = outcome.failure.is_none();
            }
        });
    }
}
