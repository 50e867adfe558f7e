//! Reasons not to commit a plan.

use crate::{
    error::{Error, Kind},
    plan::Plan,
    text,
};

/// Checks that all the live state that a plan depends on could be read.
pub(super) fn check_complete(plan: &Plan) -> Result<(), Error> {
    let Some(first) = plan.unknown.first() else { return Ok(()) };
    let details = plan.unknown.iter().map(|unknown| format!("{}: {}", unknown.what, unknown.why));
    let error = Error::new(Kind::Incomplete, "part of the live state could not be read; nothing was changed")
        .with_details(details)
        .with_hint_if(first.hint.clone());
    Err(error)
}

/// Checks that no foreign object conflicts with the plan.
pub(super) fn check_conflicts(plan: &Plan, hint: &str) -> Result<(), Error> {
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    let count = text::count(plan.conflicts.len(), "conflict");
    Err(Error::new(
        Kind::Conflict,
        format!("{count} with objects that hostgw does not manage; nothing was changed"),
    )
    .with_details(plan.conflicts.iter().map(ToString::to_string))
    .with_hint(hint))
}

/// The error for a plan that is no longer the one that was shown.
pub(super) fn plan_changed(hint: &str) -> Error {
    Error::new(Kind::Stale, "the live state changed after the plan was shown; nothing was changed")
        .with_hint(hint)
}
