//! What is wrong, as the agent reports it.

use crate::{
    clock::now as wall_clock,
    config::{InvalidConfig, ReadError},
    error::{Error, Kind},
    plan::Plan,
    record::AgentTrouble,
    text::{Untrusted, count},
};

/// The number of objects or errors that an event names.
const MAX_NAMED: usize = 8;

/// Returns an error as the report has it, since now.
pub(super) fn trouble(error: &Error) -> AgentTrouble {
    AgentTrouble {
        since: wall_clock(),
        message: error.message.clone(),
        details: error.details.clone(),
        hint: error.hint.clone(),
    }
}

/// Returns `true` if the error is known.
pub(super) fn is_about(known: &AgentTrouble, error: &Error) -> bool {
    known.message == error.message && known.details == error.details
}

/// Returns the first few objects of a plan as text.
pub(super) fn named(plan: &Plan) -> Vec<Untrusted> {
    plan.changes.iter().take(MAX_NAMED).map(|change| change.to_string().into()).collect()
}

/// Returns why the file cannot be read.
pub(super) fn read_error(error: &ReadError) -> Error {
    Error::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint())
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
        .with_hint("run `hostgw validate` on it")
}
