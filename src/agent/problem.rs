//! Problems in the form in which the agent reports them.

use crate::{
    clock::now as wall_clock,
    config::InvalidConfig,
    error::{Error, Kind},
    plan::Plan,
    record::{AgentProblem, RepairReport},
    text::{Untrusted, count},
};

/// The number of errors that an event names.
const MAX_ERRORS: usize = 8;

/// Returns `true` if the error is already recorded.
pub(super) fn is_known(known: Option<&AgentProblem>, error: &Error) -> bool {
    known.is_some_and(|known| known.message == error.message && known.details == error.details)
}

/// Records an error that begins now. Returns `false` if it is already recorded.
pub(super) fn record(problem: &mut Option<AgentProblem>, error: &Error) -> bool {
    let is_new = !is_known(problem.as_ref(), error);
    if is_new {
        *problem = Some(AgentProblem {
            since: wall_clock(),
            message: error.message.clone(),
            details: error.details.clone(),
            remedy: error.hint.clone(),
        });
    }
    is_new
}

/// Returns the first few objects of a plan as text.
pub(super) fn named(plan: &Plan) -> Vec<Untrusted> {
    plan.changes.iter().take(RepairReport::MAX_OBJECTS).map(|change| change.to_string().into()).collect()
}

/// Summarizes the errors of a configuration, each in one line.
pub(super) fn invalid_error(invalid: &InvalidConfig) -> Error {
    let (name, count) = (invalid.name(), count(invalid.count(), "error"));
    let details = invalid.errors().iter().take(MAX_ERRORS).map(|error| match error.position {
        Some(position) => {
            format!("{}: {} ({name}:{}:{})", error.rule, error.message, position.line, position.column)
        }
        None => format!("{}: {}", error.rule, error.message),
    });
    Error::new(Kind::Invalid, format!("{name} is invalid: {count}"))
        .with_details(details)
        .with_hint(format!("run `hostgw validate {name}`"))
}
