//! `hostgw snapshot`

use super::{VerbFailure, Verdict, output::Output};
use crate::{
    clock::{now, time},
    error::Kind,
    kernel::{self, LiveNode},
    reconcile::{last_applied, readable, state_dir},
    record::Snapshot,
};

/// Prints everything that a plan for this node can depend on.
pub(super) fn run(output: &Output) -> Verdict {
    let dir = state_dir()?;
    let mut unknown = Vec::new();
    let saved = readable(dir.saved(), &mut unknown)?.unwrap_or_default();
    let last = last_applied(&dir)?;
    let observed = LiveNode.everything()?;
    let hint = observed.state.nat_unknowns().next().or_else(|| unknown.first());
    let hint = hint.map(|unknown| unknown.hint.clone());
    let snapshot = Snapshot::new(time(now()), kernel::host_name().ok(), observed, saved, last, unknown);
    output.json(&snapshot)?;
    match hint {
        None => Ok(0),
        Some(hint) => {
            output.incomplete("the snapshot", hint.as_ref());
            Err(VerbFailure::AlreadyReported(Kind::Incomplete))
        }
    }
}
