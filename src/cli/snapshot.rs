//! `hostgw snapshot`

use super::{VerbFailure, VerbResult, output::Output};
use crate::{
    clock::{now, time},
    error::{Error, Kind},
    kernel::{self, LiveNode},
    reconcile::{last_applied, readable, state_dir},
    record::Snapshot,
    state::{self, Unknown},
};

/// Prints everything that a plan for this node can depend on.
pub(super) fn run(output: &Output) -> VerbResult {
    let snapshot = take()?;
    let incomplete: Vec<Unknown> =
        snapshot.observed.state.nat_unknowns().chain(&snapshot.unknown).cloned().collect();
    output.json_rows(&snapshot)?;
    if incomplete.is_empty() {
        return Ok(0);
    }
    output.incomplete("the snapshot", state::remedy_for(&incomplete));
    Err(VerbFailure::AlreadyReported(Kind::Incomplete))
}

/// Takes a snapshot of this node.
pub(super) fn take() -> Result<Snapshot, Error> {
    let dir = state_dir()?;
    let mut unknown = Vec::new();
    let saved = readable(dir.saved(), &mut unknown)?.unwrap_or_default();
    let last = last_applied(&dir)?;
    let observed = LiveNode.everything()?;
    Ok(Snapshot::new(time(now()), kernel::hostname(), observed, saved, last, unknown))
}
