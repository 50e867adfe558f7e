//! Carries out what was decided about a pending apply.

use super::transaction_failure::what_is_left;
use crate::{
    apply::{self, StateDir},
    kernel::LiveNode,
    record::{Decision, Outcome, Pending, Record},
};

/// Carries out what was decided, and leaves word of it. The caller holds the lock.
pub(super) fn finish(dir: &StateDir, record: &Record, pending: Pending, decision: Decision) -> Outcome {
    let concluded = apply::conclude(&mut LiveNode, dir, record, pending, decision);
    let failure = concluded.err().map(|failure| match failure {
        apply::Failure::Untouched(error) | apply::Failure::RolledBack { cause: error } => error,
        apply::Failure::Incomplete(incomplete) => what_is_left(&incomplete),
    });
    let outcome = Outcome { pending, occasion: record.occasion.clone(), decision, failure };
    if dir.outcome().ok().flatten().as_ref() != Some(&outcome) {
        // Who waits finds out without it.
        let _ = dir.tell(&outcome);
    }
    if decision != Decision::Confirmed {
        let _ = dir.end_wait();
    }
    outcome
}
