//! Checks: what answered before the change must answer after it.

use super::{Backend, Interrupt};
use crate::{
    error::{Error, Kind},
    model::Check,
};

/// Whether a check answered; if not, why: a fragment such as "connection refused".
pub type Answer = Result<(), String>;

/// How long a check is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Once; that may take until the timeout.
    Once,
    /// Again and again until it answers, or the timeout is over: just after a change, a neighbour may have to
    /// be found anew, and that must not cost the change.
    UntilItAnswers,
}

/// A check that answered before the change. Only such a one counts after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineCheck(Check);

/// What the checks said before the change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    /// The checks that answered.
    pub counted: Vec<BaselineCheck>,
    /// The checks that did not, and why.
    pub failed: Vec<(Check, String)>,
}

/// Tries every check once, before the change.
///
/// # Errors
/// [`Kind::Interrupted`] after a signal. [`Kind::Unexpected`] when a check could not even be tried: that says
/// nothing about what it checks, and a change that was to be checked is not made unchecked.
pub fn check_before(
    node: &mut dyn Backend,
    checks: &[Check],
    interrupt: &Interrupt,
) -> Result<Before, Error> {
    let mut before = Before::default();
    if checks.is_empty() {
        return Ok(before);
    }
    let answers = node.probe(checks, Effort::Once, interrupt).map_err(|error| match error.kind {
        Kind::Interrupted => Error { message: "interrupted; nothing was changed".into(), ..error },
        _ => error,
    })?;
    for (check, answer) in checks.iter().zip(answers) {
        match answer {
            Ok(()) => before.counted.push(BaselineCheck(*check)),
            Err(why) => before.failed.push((*check, why)),
        }
    }
    Ok(before)
}

/// Tries after the change what answered before it, until it answers again.
///
/// # Errors
/// [`Kind::RolledBack`] with every check that does not answer any more, [`Kind::Interrupted`] after a signal.
pub(super) fn check_after(
    node: &mut dyn Backend,
    counted: &[BaselineCheck],
    interrupt: &Interrupt,
) -> Result<(), Error> {
    if counted.is_empty() {
        return Ok(());
    }
    let checks: Vec<Check> = counted.iter().map(|BaselineCheck(check)| *check).collect();
    let answers =
        node.probe(&checks, Effort::UntilItAnswers, interrupt).map_err(|error| match error.kind {
            Kind::Interrupted => error,
            _ => Error { kind: Kind::RolledBack, ..error },
        })?;
    let failed = checks.iter().zip(answers).filter_map(|(check, answer)| Some((check, answer.err()?)));
    verdict(&failed.collect::<Vec<_>>())
}

fn verdict(failed: &[(&Check, String)]) -> Result<(), Error> {
    match failed {
        [] => Ok(()),
        [(check, why)] => {
            let message = format!("check {check} passed before the change and fails after it: {why}");
            Err(Error::new(Kind::RolledBack, message))
        }
        several => {
            let message = format!("{} checks passed before the change and fail after it", several.len());
            let details = several.iter().map(|(check, why)| format!("{check}: {why}"));
            Err(Error::new(Kind::RolledBack, message).with_details(details))
        }
    }
}
