//! Checks: a check that passes before a change must pass after it.

use super::{Backend, Interrupt};
use crate::{
    error::{Error, Kind},
    model::Check,
};

/// The result of a check: if it failed, the reason as a fragment such as "connection refused".
pub type CheckResult = Result<(), String>;

/// Whether a failed check is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeMode {
    /// One attempt, which can take as long as the check's timeout.
    Once,
    /// Retry until it passes or its timeout expires. Right after a change, neighbors may have to be resolved again;
    /// that must not fail the change.
    Retry,
}

/// A check that passed before the change. Only these checks can fail the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineCheck(Check);

/// The results of the checks before the change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseline {
    /// The checks that passed.
    pub passed: Vec<BaselineCheck>,
    /// The checks that failed, each with the reason.
    pub failed: Vec<(Check, String)>,
}

/// Runs each check once, before the change.
///
/// # Errors
/// Returns [`Kind::Interrupted`] after a signal, and [`Kind::Unexpected`] if a check cannot be run at all. Such a
/// check says nothing about the network, and a change is never made without its checks.
pub fn run_baseline(
    node: &mut dyn Backend,
    checks: &[Check],
    interrupt: &Interrupt,
) -> Result<Baseline, Error> {
    let mut baseline = Baseline::default();
    if checks.is_empty() {
        return Ok(baseline);
    }
    let results = node.probe(checks, ProbeMode::Once, interrupt).map_err(|error| match error.kind {
        Kind::Interrupted => Error { message: "interrupted; nothing was changed".into(), ..error },
        _ => error,
    })?;
    for (check, result) in checks.iter().zip(results) {
        match result {
            Ok(()) => baseline.passed.push(BaselineCheck(*check)),
            Err(why) => baseline.failed.push((*check, why)),
        }
    }
    Ok(baseline)
}

/// Repeats the baseline checks after the change until they pass again.
///
/// # Errors
/// Returns [`Kind::RolledBack`] with every check that no longer passes, or [`Kind::Interrupted`] after a signal.
pub(super) fn repeat_baseline(
    node: &mut dyn Backend,
    passed: &[BaselineCheck],
    interrupt: &Interrupt,
) -> Result<(), Error> {
    if passed.is_empty() {
        return Ok(());
    }
    let checks: Vec<Check> = passed.iter().map(|BaselineCheck(check)| *check).collect();
    let results = node.probe(&checks, ProbeMode::Retry, interrupt).map_err(|error| match error.kind {
        Kind::Interrupted => error,
        _ => Error { kind: Kind::RolledBack, ..error },
    })?;
    let failed = checks.iter().zip(results).filter_map(|(check, result)| Some((check, result.err()?)));
    failed_checks(&failed.collect::<Vec<_>>())
}

/// How to find out why a check fails after the change.
const REVIEW: &str =
    "review the changes with `hostgw plan`; `hostgw rehearse` tries them on a copy of this node";

fn failed_checks(failed: &[(&Check, String)]) -> Result<(), Error> {
    match failed {
        [] => Ok(()),
        [(check, why)] => {
            let message = format!("check {check} passed before the change but failed after it: {why}");
            Err(Error::new(Kind::RolledBack, message).with_hint(REVIEW))
        }
        several => {
            let message = format!("{} checks passed before the change but failed after it", several.len());
            let details = several.iter().map(|(check, why)| format!("{check}: {why}"));
            Err(Error::new(Kind::RolledBack, message).with_details(details).with_hint(REVIEW))
        }
    }
}
