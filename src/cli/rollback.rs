//! `hostgw rollback`

use super::{
    Failure, Verdict,
    arguments::RollbackOptions,
    output::Output,
    session::state_dir,
    signals,
    transaction::{described, report},
};
use crate::{
    apply::{self, Record, StateDir},
    error::{Error, Kind},
    kernel::LiveNode,
    plan::{Policy, Reason},
    render::{self, Report},
};

/// Undoes the newest transaction: the interrupted one, else the last that was committed.
pub(super) fn run(options: &RollbackOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    let Some((record, _)) = newest(&dir)? else {
        output.result("Nothing to do: no apply of this boot is on record here.\n")?;
        return Ok(0);
    };
    show(&record, output)?;
    if !options.consent.yes {
        output.ask(&format!("Undo {}?", described(&record)))?;
    }
    let _lock = dir.lock(options.consent.lock_timeout, "rollback")?;
    signals::interrupt()?;
    let found = newest(&dir)?.filter(|(now, _)| *now == record);
    let Some((record, is_open)) = found else {
        return Err(Error::new(
            Kind::Stale,
            "another hostgw changed this node meanwhile; nothing was undone",
        )
        .with_hint("run hostgw rollback again")
        .into());
    };
    if !is_open {
        dir.reopen(&record)?;
    }
    apply::restore(&mut LiveNode, &dir, &record).map_err(|failure| report(failure, output))?;
    output.done(&format!("Undid {}, and verified: the node is as it was before.", described(&record)));
    Ok(0)
}

/// The newest transaction, and whether it is still open.
fn newest(dir: &StateDir) -> Result<Option<(Record, bool)>, Error> {
    if let Some(open) = dir.open_journal()? {
        return Ok(Some((open, true)));
    }
    Ok(dir.last_committed()?.map(|record| (record, false)))
}

fn show(record: &Record, output: &Output) -> Result<(), Failure> {
    let back = apply::undo_plan(&mut LiveNode, record, Policy::Respect)?;
    let before = |_: &_| Reason { text: "as it was before".to_owned(), origin: None, drift: false };
    let report = Report::new(&back, before, |_| None);
    output.result(&render::text(&report, &output.palette))
}
