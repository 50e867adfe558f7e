//! `hostgw plan`

#[cfg(target_os = "linux")]
use std::time::Duration;

use super::{
    VerbFailure, VerbResult,
    arguments::PlanOptions,
    configuration::{load, text_of},
    diff, environment, fleet_plan,
    output::Output,
    plan_shape::{PlanShape, refused_by_apply, show, warn_of_conflicts},
    saved_plan::SavedPlan,
    session_report, windows,
};
#[cfg(target_os = "linux")]
use crate::reconcile::{Place, look_when_idle};
use crate::{
    clock::time,
    error::{Error, Kind},
    plan::{ForeignPolicy, MachineSource, windows::WindowsObserved},
    reconcile::Session,
    record::Snapshot,
    state,
    text::{self, ShellCommand},
};

/// Shows what would change on this node, or on the node of a snapshot.
pub(super) fn run(options: &PlanOptions, output: &Output) -> VerbResult {
    if options.all_nodes {
        return diff::all_nodes(options, output);
    }
    if options.out.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        return Err(Error::new(Kind::Usage, "cannot save a plan to standard output")
            .with_hint("pass the name of a file with --out, or print the plan as JSON with --json")
            .into());
    }
    if options.state.len() > 1 || options.state.iter().any(|path| path.is_dir()) {
        if options.target.node.is_some() {
            let message = "--node selects one node, but --state has the snapshots of several";
            return Err(Error::new(Kind::Usage, message)
                .with_hint("omit --node, or pass only the snapshot of that node with --state")
                .into());
        }
        return fleet_plan::run(options, output);
    }
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let (file, node) = (options.target.file.as_deref(), environment::node(options.target.node.as_deref()));
    let node = node.as_deref();
    let mut session = match options.state.first() {
        Some(snapshot) => {
            let (name, text) = text_of(snapshot)?;
            if WindowsObserved::is_snapshot(&text) {
                return windows::plan(options, &name, &text, output);
            }
            let snapshot = Snapshot::parse(&name, &text)?;
            Session::of_snapshot(load(file)?, node, MachineSource::Snapshot(&name), snapshot, policy)?
        }
        #[cfg(target_os = "linux")]
        None => Session::live(load(file)?, node, policy)?,
        #[cfg(not(target_os = "linux"))]
        None => return Err(super::only_on_linux("planning for this machine").into()),
    };
    look(&mut session, output)?;
    session.check()?;
    let is_whole = session.prepared.plan.conflicts.is_empty() && session.prepared.plan.unknown.is_empty();
    let saved = options.out.as_deref().filter(|_| is_whole);
    match (PlanShape::of(options), saved) {
        (PlanShape::Text, None) => output.long(&session_report::text(&session, &output.palette))?,
        (shape, saved) => {
            let report = session_report::report(&session);
            if let Some(path) = saved {
                SavedPlan::of(&session, &report)?.write(path)?;
            }
            show(&report, None, shape, output)?;
        }
    }
    let unknown = &session.prepared.plan.unknown;
    if !unknown.is_empty() {
        output.incomplete("the plan", state::remedy_for(unknown));
        return Err(VerbFailure::AlreadyReported(Kind::Incomplete));
    }
    if let Some(path) = saved {
        let name = text::path(path);
        let apply = ShellCommand::new(["hostgw", "apply", &path.to_string_lossy()]);
        output.say(&format!("Saved to {name}. `{apply}` applies exactly this plan."));
    }
    if !session.prepared.plan.conflicts.is_empty() {
        return Err(warn_of_conflicts(&refused_by_apply(&session.prepared.plan.conflicts), output));
    }
    Ok(if options.detailed_exitcode && !session.prepared.plan.changes.is_empty() { 2 } else { 0 })
}

/// Observes and plans, on a live node while no other command is changing it.
#[cfg(target_os = "linux")]
fn look(session: &mut Session, output: &Output) -> Result<(), Error> {
    /// As long as `apply` waits by default.
    const TIMEOUT: Duration = Duration::from_secs(30);
    let Place::Live(dir) = &session.place else { return session.look() };
    let dir = dir.clone();
    look_when_idle(&dir, TIMEOUT, || session.look_at_once())?;
    warn_of_open(&dir, output);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn look(session: &mut Session, _: &Output) -> Result<(), Error> {
    session.look()
}

#[cfg(target_os = "linux")]
/// Warns that the live state may change soon.
pub(super) fn warn_of_open(dir: &crate::apply::StateDir, output: &Output) {
    if let Ok(Some((record, pending))) = dir.pending() {
        let is_watched = dir.holder().is_some_and(|holder| holder.stopped().is_none());
        if is_watched && !pending.remaining().is_zero() {
            output.warn(&format!(
                "an apply is pending until {} and may be rolled back; this output may be out of date",
                time(pending.until)
            ));
        } else {
            super::status::warn_of_pending(dir, &record, &pending, output);
        }
    } else if dir.open_journal().is_ok_and(|open| open.is_some()) {
        match dir.holder() {
            Some(holder) => output
                .warn(&format!("another apply is running ({holder}); this output may be out of date")),
            None => output.warn_with_help(
                "an apply was interrupted or only partly rolled back",
                "run `hostgw rollback` to restore the previous state; otherwise, the next apply does so first",
            ),
        }
    }
}
