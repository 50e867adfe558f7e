//! What is wrong, as the agent reports it.

use crate::{
    clock::now as wall_clock,
    config::InvalidConfig,
    error::{Error, Kind},
    plan::Plan,
    record::AgentTrouble,
    text::{Untrusted, count},
};

/// The number of objects or errors that an event names.
const MAX_NAMED: usize = 8;

/// Returns `true` if the error is the one that is known.
pub(super) fn is_known(known: Option<&AgentTrouble>, error: &Error) -> bool {
    known.is_some_and(|known| known.message == error.message && known.details == error.details)
}

/// Takes note of an error, since now. Returns `false` if it is known.
pub(super) fn note(trouble: &mut Option<AgentTrouble>, error: &Error) -> bool {
    let is_new = !is_known(trouble.as_ref(), error);
    if is_new {
        *trouble = Some(AgentTrouble {
            since: wall_clock(),
            message: error.message.clone(),
            details: error.details.clone(),
            hint: error.hint.clone(),
        });
    }
    is_new
}

/// Returns the first few objects of a plan as text.
pub(super) fn named(plan: &Plan) -> Vec<Untrusted> {
    plan.changes.iter().take(MAX_NAMED).map(|change| change.to_string().into()).collect()
}

/// Summarizes the errors of a configuration, each in one line.
pub(super) fn invalid_error(invalid: &InvalidConfig) -> Error {
    let (name, count) = (invalid.name(), count(invalid.count(), "error"));
    let details = invalid.errors().iter().take(MAX_NAMED).map(|error| match error.position {
        Some(position) => {
            format!("{}: {} ({name}:{}:{})", error.rule, error.message, position.line, position.column)
        }
        None => format!("{}: {}", error.rule, error.message),
    });
    Error::new(Kind::Invalid, format!("{name} is invalid: {count}"))
        .with_details(details)
        .with_hint(format!("run `hostgw validate {name}`"))
}
