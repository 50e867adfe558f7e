//! Reasons not to commit a plan.

use crate::{
    diagnose::Diagnostic,
    error::{Error, Kind},
    model::ConfigPath,
    plan::Plan,
    render::SourceLocation,
    state,
    text::{self, Untrusted},
};

/// Checks that nothing in the configuration keeps it from being applied to the node `name`. `source` finds the line of a
/// path.
pub(super) fn check_fit(
    name: &Untrusted,
    problems: &[Diagnostic],
    source: impl Fn(&ConfigPath) -> Option<SourceLocation>,
) -> Result<(), Error> {
    if problems.is_empty() { Ok(()) } else { Err(misfit(name, problems, source)) }
}

/// Returns the error for a configuration that does not fit the node `name`. `source` finds the line of a path.
#[must_use]
pub fn misfit(
    name: &Untrusted,
    problems: &[Diagnostic],
    source: impl Fn(&ConfigPath) -> Option<SourceLocation>,
) -> Error {
    /// The number of problems to list. If there are more, they usually share one cause that affects every node.
    const MAX_LISTED: usize = 10;
    let described = |problem: &Diagnostic| match problem.path.as_ref().and_then(&source) {
        Some(source) => format!("{} ({}:{})", problem.message, source.file, source.line),
        None => problem.message.clone(),
    };
    if let [only] = problems {
        let error = Error::new(Kind::Invalid, described(only)).with_hint_if(only.remedy.clone());
        return error.with_code(only.rule.number());
    }
    let count = text::count(problems.len(), "problem");
    let listed = problems.iter().take(MAX_LISTED);
    let mut details: Vec<String> =
        listed.map(|problem| format!("{}: {}", problem.rule, described(problem))).collect();
    if problems.len() > MAX_LISTED {
        details.push(format!("… and {} more", problems.len() - MAX_LISTED));
    }
    let message = format!("the configuration does not fit node {name}: {count}");
    let hint = problems.iter().find_map(|problem| problem.remedy.clone());
    Error::new(Kind::Invalid, message).with_details(details).with_hint_if(hint)
}

/// Checks that all the live state that a plan depends on could be read.
pub(super) fn check_complete(plan: &Plan) -> Result<(), Error> {
    if plan.unknown.is_empty() {
        return Ok(());
    }
    let details = plan.unknown.iter().map(|unknown| format!("{}: {}", unknown.part, unknown.reason));
    let error = Error::new(Kind::Incomplete, "part of the live state could not be read; nothing was changed")
        .with_details(details)
        .with_hint_if(state::remedy_for(&plan.unknown).cloned());
    Err(error)
}

/// Checks that no foreign object conflicts with the plan.
pub(super) fn check_conflicts(plan: &Plan, hint: &str) -> Result<(), Error> {
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    let count = text::count(plan.conflicts.len(), "conflict");
    let objects = if plan.conflicts.len() == 1 { "an object" } else { "objects" };
    Err(Error::new(
        Kind::Conflict,
        format!("{count} with {objects} that hostgw does not manage; nothing was changed"),
    )
    .with_details(plan.conflicts.iter().map(ToString::to_string))
    .with_hint(hint))
}

/// The error for a plan that is no longer the one that was shown.
pub(super) fn plan_changed(hint: &str) -> Error {
    Error::new(Kind::Stale, "the live state changed after the plan was shown; nothing was changed")
        .with_hint(hint)
}
