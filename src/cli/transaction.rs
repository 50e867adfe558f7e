//! What the verbs that change a node have in common: the transaction, and telling the truth about it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Failure, arguments::Consent, output::Output, signals};
use crate::{
    apply::{self, Command, Counted, Record, Request, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    model::Check,
    plan::{Desired, Policy, Totals},
    render::{self, Report},
    text::count,
};

/// What a verb that changes the node wants.
pub(super) trait Aim {
    /// Observes the node and plans.
    fn look(&mut self) -> Result<(), Failure>;
    /// Everything that forbids the plan, before the first write.
    fn check(&self) -> Result<(), Error>;
    fn dir(&self) -> &StateDir;
    fn desired(&self) -> &Desired;
    /// What must answer before and after the change.
    fn checks(&self) -> &[Check] {
        &[]
    }
    /// The plan with everything that is told about it.
    fn report(&self) -> Report;
    /// What is asked before it is committed.
    fn question(&self) -> String;
    fn request(&self) -> Request<'_>;
}

/// Looks, shows, asks, locks, looks again, commits, verifies. Gives the totals of what was done; `None` when
/// there was nothing to do.
pub(super) fn carry_out(
    aim: &mut dyn Aim,
    consent: &Consent,
    output: &Output,
) -> Result<Option<Totals>, Failure> {
    recover(aim.dir(), consent, output)?;
    aim.look()?;
    aim.check()?;
    let show = |aim: &dyn Aim| output.result(&render::text(&aim.report(), &output.palette));
    show(aim)?;
    let has_work = !aim.request().plan.is_empty();
    if !has_work && aim.desired().released.is_empty() {
        return Ok(None);
    }
    if has_work && !consent.yes {
        output.ask(&aim.question())?;
    }
    let shown = aim.request().plan.clone();
    let description = description(aim.request().command);
    let _lock = aim.dir().lock(consent.lock_timeout, &description)?;
    // Before the last look: what is seen there must not grow old while the checks wait for answers.
    let counted = check_before(aim.checks(), output)?;
    aim.look()?;
    aim.check()?;
    if aim.request().plan.is_empty() {
        apply::settle(aim.dir(), aim.desired())?;
        if has_work {
            output.done("Nothing is left to do: it was done meanwhile.");
        }
        return Ok(None);
    }
    if *aim.request().plan != shown {
        if !consent.yes {
            show(aim)?;
            return Err(Error::new(
                Kind::Stale,
                "the live state changed after the plan was shown; nothing was changed",
            )
            .with_hint("the plan as it is now stands above: run the command again to be asked about it")
            .into());
        }
        output.warn("the live state changed meanwhile; the plan is now:");
        show(aim)?;
    }
    let interrupt = signals::interrupt()?;
    let request = Request { checks: &counted, ..aim.request() };
    apply::run(&mut LiveNode, aim.dir(), &request, &interrupt).map_err(|failure| report(failure, output))?;
    if !counted.is_empty() {
        output.done(&format!("{} passed, before the change and after it.", count(counted.len(), "check")));
    }
    Ok(Some(aim.request().plan.totals()))
}

/// Tries the checks before the change, and warns of those that do not count.
fn check_before(checks: &[Check], output: &Output) -> Result<Vec<Counted>, Failure> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let interrupt = signals::interrupt()?;
    let before = apply::check_before(&mut LiveNode, checks, &interrupt)?;
    for (check, why) in &before.failed {
        output.warn(&format!("check {check} fails already before the change ({why}): it does not count"));
    }
    Ok(before.counted)
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
    let error = Error::new(Kind::RollbackIncomplete, "the rollback could not be finished");
    let hint = if left.is_empty() {
        "run hostgw rollback once the cause is gone: it goes on from here"
    } else {
        "run these commands, or hostgw rollback once the cause is gone: it goes on from here; \
         hostgw rollback --abandon gives up what is left"
    };
    error.with_details(details).with_hint(hint)
}

/// Undoes what an interrupted command left half done, if one did. One that is still at work is waited for.
fn recover(dir: &StateDir, consent: &Consent, output: &Output) -> Result<(), Failure> {
    let open = || match dir.open_journal() {
        // Who may not read the journal may not apply either: the plan will say so.
        Err(error) if error.kind == Kind::Incomplete => Ok(None),
        other => other,
    };
    if open()?.is_none() {
        return Ok(());
    }
    let _lock = dir.lock(consent.lock_timeout, "rollback")?;
    let Some(record) = open()? else { return Ok(()) };
    output.warn(&format!("{} was interrupted, or not undone to its end", described(&record)));
    if !consent.yes {
        output.ask("Undo it first?")?;
    }
    signals::interrupt()?;
    match apply::recover(&mut LiveNode, dir) {
        Ok(_) => {
            output.done(&format!("Undid {}, and verified.", described(&record)));
            Ok(())
        }
        Err(failure) => {
            // What somebody else put in the way since is theirs; nothing of hostgw's is left then.
            let left = apply::undo_plan(&mut LiveNode, &record, Policy::Respect)?;
            if !left.changes.is_empty() || !left.unknown.is_empty() {
                return Err(report(failure, output));
            }
            let left = apply::abandon(&mut LiveNode, dir, &record)?;
            output.done(&format!("Undid {}, as far as it is hostgw's.", described(&record)));
            left.iter().for_each(|left| output.warn(left));
            Ok(())
        }
    }
}

/// A transaction in words: "the apply of 2026-01-31T12:00:00Z".
pub(super) fn described(record: &Record) -> String {
    let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(record.started));
    format!("the {} of {at}", record.command)
}

/// What the lock says of its holder.
fn description(command: Command) -> String {
    format!("{command}, since {}", humantime::format_rfc3339_seconds(SystemTime::now()))
}

/// Seconds since 1970-01-01 00:00 UTC.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
