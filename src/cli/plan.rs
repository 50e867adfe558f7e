//! `hostgw plan`

use super::{Failure, Verdict, arguments::PlanOptions, output::Output, session::Session, transaction::time};
use crate::{error::Kind, plan::Policy, render, text::count};

/// Shows what would change on this node.
pub(super) fn run(options: &PlanOptions, output: &Output) -> Verdict {
    let policy = if options.adopt { Policy::Adopt } else { Policy::Respect };
    let mut session = Session::new(&options.target, policy)?;
    session.look()?;
    if let Ok(Some((_, pending))) = session.dir.pending() {
        output.warn(&format!(
            "an apply is in force that waits to be confirmed until {}: what stands now may be rolled back",
            time(pending.until)
        ));
    } else if session.dir.open_journal().is_ok_and(|open| open.is_some()) {
        output.warn(&match session.dir.holder() {
            Some(holder) => format!("an apply is under way ({holder}): what stands now will change"),
            None => {
                "an apply was interrupted here, or not undone to its end: hostgw rollback finishes undoing \
                     it, and so does the next apply before its own work"
                    .to_owned()
            }
        });
    }
    session.check()?;
    let report = session.report();
    if options.json {
        output.json(&report)?;
    } else {
        output.result(&render::text(&report, &output.palette))?;
    }
    if let Some(unknown) = session.prepared.plan.unknown.first() {
        output.incomplete("the plan", unknown.hint.as_deref());
        return Err(Failure::Said(Kind::Incomplete));
    }
    if !session.prepared.plan.conflicts.is_empty() {
        let count = count(session.prepared.plan.conflicts.len(), "conflict");
        output.warn(&format!("{count}: apply refuses this plan; --adopt takes over what stands in the way"));
        return Err(Failure::Said(Kind::Conflict));
    }
    Ok(if options.detailed_exitcode && !session.prepared.plan.changes.is_empty() { 2 } else { 0 })
}
