//! `hostgw rollback`

use std::{sync::Arc, time::Duration};

use super::{
    VerbResult, arguments::RollbackOptions, boot_files, cancel, changed, output::Output, reporter::Reporter,
};
use crate::{
    apply::Interrupt,
    clock::time,
    error::Error,
    plan::{Action, Plan, Reason},
    reconcile::{
        Caller, Event, Observer, Rollback, RollbackResult, Undo, abandoned, cancel_pending, described,
        state_dir,
    },
    record::{Record, TransactionMeta},
    render::Report,
};

/// Undoes the newest transaction: the interrupted one, or else the last one that was committed.
pub(super) fn run(options: &RollbackOptions, output: &Output) -> VerbResult {
    let (rollback, reporter) =
        (Rollback { adopt: options.adopt, abandon: options.abandon }, Reporter { output });
    let dir = state_dir()?;
    if options.preview.dry_run {
        return preview(rollback, options, output);
    }
    let when_changed = changed(options.preview.detailed_exitcode);
    if let Some((record, pending)) = dir.pending()?.filter(|_| dir.holder().is_some()) {
        let (id, until) = (pending.id, time(pending.until));
        output
            .say(&format!("Pending: apply {id} rolls back at {until} unless you run `hostgw confirm {id}`."));
        if !options.consent.yes {
            output.ask(&format!("Roll back {}?", described(&record)))?;
        }
        let outcome = cancel_pending(&dir, &record, pending, options.consent.lock.lock_timeout, &reporter)?;
        return cancel::report(&outcome, &reporter).map(|_| when_changed);
    }
    match rollback.run(&User { options, output }).map_err(|failure| reporter.failure(failure))? {
        RollbackResult::NothingRecorded => return nothing_recorded(output),
        RollbackResult::AlreadyUndone(record) => {
            let named = described(&record);
            output.done(&format!("Nothing to do: another command already rolled back {named}."));
            return Ok(0);
        }
        RollbackResult::Undone(record, totals) => {
            output.record(|transaction| {
                transaction.done = Some(totals.into());
                transaction.verified = true;
                transaction.rolled_back = true;
            });
            let named = described(&record);
            output.done(&format!("Rolled back {named} and verified: the node is in its previous state."));
        }
        RollbackResult::Abandoned(record, left) => {
            output.record(|transaction| transaction.rolled_back = true);
            output.done(&abandoned(&record, left.len()));
            left.iter().for_each(|left| output.warn_of_item(left));
        }
    }
    boot_files::warn_after_rollback(&dir, output);
    Ok(when_changed)
}

/// Shows what would be undone.
fn preview(rollback: Rollback, options: &RollbackOptions, output: &Output) -> VerbResult {
    output.record(|transaction| transaction.dry_run = true);
    let (found, checked) = rollback.preview(options.consent.lock.lock_timeout)?;
    let Some(Undo { record, is_open, plan }) = found else { return nothing_recorded(output) };
    if let Some(holder) = state_dir()?.holder().filter(|_| is_open) {
        output.warn(&format!("{} is still running ({holder})", described(&record)));
    }
    output.record(|transaction| transaction.transaction_id = Some(record.id));
    output.plan_report(&report(&plan), true)?;
    checked?;
    Ok(if plan.is_empty() { 0 } else { changed(options.preview.detailed_exitcode) })
}

fn nothing_recorded(output: &Output) -> VerbResult {
    output.result("Nothing to do: there is no apply or destroy to roll back.\n")?;
    Ok(0)
}

/// The user who reviews and approves a rollback.
struct User<'a> {
    options: &'a RollbackOptions,
    output: &'a Output,
}

impl Observer for User<'_> {
    fn event(&self, event: Event<'_>) {
        Reporter { output: self.output }.event(event);
    }

    fn interrupt(&self) -> Result<Arc<Interrupt>, Error> {
        Reporter { output: self.output }.interrupt()
    }
}

impl Caller<Undo> for User<'_> {
    fn lock_timeout(&self) -> Duration {
        self.options.consent.lock.lock_timeout
    }

    fn is_unattended(&self) -> bool {
        self.options.consent.yes
    }

    fn show(&self, undo: &Undo, for_review: bool) -> Result<(), Error> {
        self.output.record(|transaction| transaction.transaction_id = Some(undo.record.id));
        self.output.plan_report(&report(&undo.plan), for_review)
    }

    fn approve(&self, undo: &Undo, hold: Option<Duration>) -> Result<Option<Duration>, Error> {
        if !self.options.consent.yes {
            self.output.ask(&format!("Roll back {}?", described(&undo.record)))?;
        }
        Ok(hold)
    }

    /// A rollback is a recovery itself.
    fn approve_recovery(&self, _: &Record) -> Result<(), Error> {
        Ok(())
    }

    fn metadata(&self, undo: &Undo) -> TransactionMeta {
        undo.record.metadata.clone()
    }
}

fn report(plan: &Plan) -> Report {
    let no_reason = |_: &_| Reason { text: String::new(), places: Vec::new(), drift: false };
    let mut report = Report::new(plan, no_reason, |_, _| None);
    report.is_rollback = true;
    for change in &mut report.changes {
        match change.action {
            Action::Add => "existed before",
            Action::Update => "restore previous value",
            Action::Remove => "did not exist before",
        }
        .clone_into(&mut change.reason.text);
    }
    report
}
