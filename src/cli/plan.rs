//! `hostgw plan`

use super::{Failure, Verdict, arguments::PlanOptions, output::Output, session::Session};
use crate::{error::Kind, plan::Policy, render};

/// Shows what would change on this node.
pub(super) fn run(options: &PlanOptions, output: &Output) -> Verdict {
    let policy = if options.adopt { Policy::Adopt } else { Policy::Respect };
    let session = Session::open(&options.target, policy)?;
    if session.dir.open_journal().is_ok_and(|open| open.is_some()) {
        output.warn("an apply was interrupted here, or not undone to its end: hostgw rollback finishes undoing it, and so does \
             the next apply before its own work");
    }
    session.check()?;
    let report = session.report();
    if options.json {
        output.json(&report)?;
    } else {
        output.result(&render::text(&report, &output.palette))?;
    }
    if let Some(unknown) = session.plan.unknown.first() {
        let hint =
            unknown.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}, to see the rest"));
        output.warn(&format!("the plan is incomplete{hint}"));
        return Err(Failure::Said(Kind::Incomplete));
    }
    if !session.plan.conflicts.is_empty() {
        return Err(Failure::Said(Kind::Conflict));
    }
    Ok(if options.detailed_exitcode && !session.plan.changes.is_empty() { 2 } else { 0 })
}
