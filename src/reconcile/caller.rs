//! The interfaces through which `reconcile` asks for decisions and reports events.

use std::{sync::Arc, time::Duration};

use crate::{
    apply::{Holder, Interrupt},
    error::Error,
    forwarding::PathFault,
    model::Check,
    plan::Totals,
    record::{Pending, Record, TransactionMeta},
};

/// Something that happened. None of these expects an answer.
#[derive(Debug)]
pub enum Event<'a> {
    /// Another command holds the lock, and this one waits for it.
    WaitingForLock(&'a Holder),
    /// An apply is pending, and this command waits until it is confirmed or rolled back.
    WaitingForDecision(&'a Pending),
    /// A supervisor that was stopped was resumed, because it can neither roll back nor release the lock.
    SupervisorResumed(&'a Holder),
    /// An earlier transaction was interrupted or only partly rolled back.
    InterruptedFound(&'a Record),
    /// An earlier apply was confirmed, but its supervisor was killed before it could complete the confirmation.
    ConfirmationCompleted(&'a Record),
    /// An earlier transaction was undone.
    Recovered {
        /// The transaction.
        record: &'a Record,
        /// What was not restored because it conflicts with foreign changes, or `None` if everything was.
        left: Option<&'a [String]>,
    },
    /// A check fails before the change and therefore does not count.
    CheckIgnored {
        /// The check.
        check: &'a Check,
        /// Why it fails.
        why: &'a str,
    },
    /// The live state changed after the plan was shown, and the new plan is committed without review.
    PlanChanged,
    /// Another program already made all the changes.
    AlreadyMade,
    /// A transaction with this ID began.
    Begun(u64),
    /// A plan was committed and verified.
    Committed {
        /// The number of changes.
        totals: Totals,
        /// The pending apply, if it must be confirmed.
        pending: Option<&'a Pending>,
        /// The number of checks that passed before and after the change.
        checks: usize,
        /// The pod paths that do not work, and did not before.
        faults: &'a [PathFault],
    },
    /// An apply is pending, and the command waits for its confirmation, or is about to confirm or cancel it.
    Pending(&'a Pending),
    /// A signal arrived while an apply is pending.
    SignalWhilePending,
    /// The pending apply cannot be canceled; it rolls back at its deadline.
    CannotCancel(&'a Pending, &'a Error),
    /// The supervisor was killed or is stuck, and this command takes over.
    SupervisorLost,
}

/// Receives events, and can interrupt an operation.
pub trait Observer {
    /// Handles an event.
    fn event(&self, event: Event<'_>);

    /// Returns what interrupts a commit. From the first call on, a signal no longer ends the process.
    ///
    /// # Errors
    /// Returns an error if signals cannot be handled.
    fn interrupt(&self) -> Result<Arc<Interrupt>, Error>;
}

/// Decides about the operation `O`.
pub trait Caller<O>: Observer {
    /// How long to wait while another command holds the lock.
    fn lock_timeout(&self) -> Duration;

    /// Returns `true` if the plan is committed without review, even if it changes after it was shown.
    fn is_unattended(&self) -> bool;

    /// Shows the plan of `operation`; `for_review` if a decision about it follows.
    ///
    /// # Errors
    /// Returns an error if it cannot be shown.
    fn show(&self, operation: &O, for_review: bool) -> Result<(), Error>;

    /// Decides about the plan that was shown. `hold` is how long the apply stays pending after the commit; the decision
    /// can change that.
    ///
    /// # Errors
    /// Returns an error if the plan was declined.
    fn approve(&self, operation: &O, hold: Option<Duration>) -> Result<Option<Duration>, Error>;

    /// Decides whether an interrupted transaction may be undone first.
    ///
    /// # Errors
    /// Returns an error if that was declined.
    fn approve_recovery(&self, interrupted: &Record) -> Result<(), Error>;

    /// Returns `true` if the operation may continue even if an interrupted transaction cannot be rolled back completely. The
    /// operation then establishes the desired state itself.
    fn rolls_forward(&self) -> bool {
        false
    }

    /// Returns what the history records about the operation.
    fn metadata(&self, operation: &O) -> TransactionMeta;
}
