//! What the verbs that change a node have in common: the transaction, and telling the truth about it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Failure, arguments::Consent, output::Output, signals};
use crate::{
    apply::{self, Command, Record, Request, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    render,
};

/// A transaction to run.
pub(super) struct Work<'a> {
    pub request: Request<'a>,
    pub dir: &'a StateDir,
}

/// Runs a transaction and reports how it ended when it failed.
pub(super) fn run(work: &Work, output: &Output) -> Result<(), Failure> {
    let interrupt = signals::interrupt()?;
    apply::run(&mut LiveNode, work.dir, &work.request, &interrupt).map_err(|failure| report(failure, output))
}

/// What a failed transaction is to whoever started it.
pub(super) fn report(failure: apply::Failure, output: &Output) -> Failure {
    match failure {
        apply::Failure::Untouched(error) => Failure::Error(error),
        apply::Failure::RolledBack { cause } => {
            let kind = if cause.kind == Kind::Interrupted { Kind::Interrupted } else { Kind::RolledBack };
            output.error(&cause);
            output.say("Rolled back, and verified: the node is as it was before.");
            Failure::Said(kind)
        }
        apply::Failure::Incomplete(incomplete) => {
            if let Some(cause) = &incomplete.cause {
                output.error(cause);
            }
            Failure::Error(what_is_left(&incomplete))
        }
    }
}

/// A rollback that could not be finished: what is left, and the commands that would finish it.
fn what_is_left(apply::Incomplete { why, left, .. }: &apply::Incomplete) -> Error {
    let mut details = vec![why.message.clone()];
    details.extend(why.details.iter().cloned());
    if !left.is_empty() {
        details.push("what is left to do, in this order:".to_owned());
        details.extend(left.iter().flat_map(render::commands).map(|command| format!("  {command}")));
    }
    Error::new(Kind::RollbackIncomplete, "the rollback could not be finished")
        .with_details(details)
        .with_hint("run these commands, or hostgw rollback once the cause is gone: it goes on from here")
}

/// Undoes what an interrupted command left half done, if one did.
pub(super) fn recover(dir: &StateDir, consent: &Consent, output: &Output) -> Result<(), Failure> {
    // A first look without the lock; a directory that cannot be read is for the plan to report.
    let Ok(Some(record)) = dir.open_journal() else { return Ok(()) };
    output.warn(&format!("{} was interrupted and left this node half changed", described(&record)));
    if !consent.yes {
        output.ask("Undo it first?")?;
    }
    let _lock = dir.lock(consent.lock_timeout, "rollback")?;
    signals::interrupt()?;
    if let Some(record) = apply::recover(&mut LiveNode, dir).map_err(|failure| report(failure, output))? {
        output.done(&format!("Undid {}, and verified.", described(&record)));
    }
    Ok(())
}

/// A transaction in words: "apply number 3".
pub(super) fn described(record: &Record) -> String {
    let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(record.started));
    format!("the {} of {at}", record.command)
}

/// What the lock says of its holder.
pub(super) fn description(command: Command) -> String {
    format!("{command}, since {}", humantime::format_rfc3339_seconds(SystemTime::now()))
}

/// Seconds since 1970-01-01 00:00 UTC.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
