//! The report on a session: its plan with reasons, warnings and source lines.

use std::{borrow::Cow, collections::HashSet};

#[cfg(target_os = "linux")]
use super::boot_files::{self, Basis};
use crate::{
    forwarding::PathFault,
    plan::{self, Prepared, compare::Side},
    reconcile::Session,
    record::LastApplied,
    render::{self, ChangeEntry, Locator, Palette, Report, SourceLocation},
    state::{Route, RouteKey},
};
#[cfg(target_os = "linux")]
use crate::{plan::Desired, reconcile::Place, render::BootFile};

/// Returns the plan with its reasons, warnings and source lines.
pub(super) fn report(session: &Session) -> Report {
    resolve(session, |report, changes| Report { changes: changes.collect(), ..report })
}

/// Returns the plan as text.
pub(super) fn text(session: &Session, palette: &Palette) -> String {
    resolve(session, |report, changes| render::text_of(changes, &report, palette))
}

/// Passes the plan to `take`: a report without changes, and the changes.
fn resolve<T>(session: &Session, take: impl FnOnce(Report, &mut dyn Iterator<Item = ChangeEntry>) -> T) -> T {
    let locator = Locator::new(&session.loaded.document);
    let last = session.last.as_ref().filter(|last| last.metadata.node.as_ref() == Some(session.node_name()));
    let cluster = &session.loaded.cluster;
    let Prepared { desired, observed, plan, .. } = &session.prepared;
    let is_current = last.is_some_and(|last| is_current(session, last));
    // Read only if it explains something.
    let previous = last
        .filter(|_| !plan.changes.is_empty() && !is_current)
        .and_then(|last| last.load_before(&session.loaded));
    let known = last.map(|last| plan::PreviousApply {
        state: &last.state,
        routes: match is_current {
            true => Some(Cow::Borrowed(&desired.state.routes[..])),
            false => {
                let keys = plan.route_keys();
                last.routes(previous.as_ref(), |key| keys.contains(key)).map(Cow::Owned)
            }
        },
        previous: previous
            .as_ref()
            .map(|previous| plan::PreviousConfig::new(&previous.cluster, cluster, session.index, plan)),
    });
    let previous_locator = previous.as_ref().map(|previous| Locator::new(&previous.document));
    let explain = |change: &_| plan::reason(Some(cluster), desired, &session.saved, known.as_ref(), change);
    let locate = |side, path: &_| match side {
        Side::New => locator.source(path),
        Side::Old => {
            let source = previous_locator.as_ref()?.source(path)?;
            Some(SourceLocation { transaction_id: last.map(|last| last.id), ..source })
        }
    };
    let mut report = Report::without_changes(plan);
    report.node = Some(session.node_name().to_owned());
    report.file = Some(session.loaded.document.name().clone());
    let faults = session.path_faults();
    let culprits: HashSet<&RouteKey> = faults.iter().filter_map(|fault| fault.culprit.as_ref()).collect();
    let is_known = |route: &Route| culprits.contains(&route.key());
    let warnings = plan::check::warnings(cluster, session.index, desired, observed, is_known);
    let warnings = warnings.into_iter().chain(plan::check::irrevocable(plan));
    report.warn(warnings.chain(plan::foreign::warnings(&session.prepared.left)), |path| locator.source(path));
    report.warn_of_paths(faults.iter().map(PathFault::diagnostic), |path| locator.source(path));
    #[cfg(target_os = "linux")]
    if let Place::Live(_) = session.place {
        report.add_boot_files(boot_files(session));
    }
    take(report, &mut Report::changes_of(plan, explain, locate))
}

#[cfg(target_os = "linux")]
/// Compares the files on this node that restore part of its state at boot with the configuration. Sysctls that get
/// their original values back are not restored at boot.
fn boot_files(session: &Session) -> Vec<BootFile> {
    let found = boot_files::find();
    if found.is_empty() {
        return Vec::new();
    }
    let Desired { state, released, .. } = &session.prepared.desired;
    let mut state = state.clone();
    state.sysctls.retain(|key, _| !released.contains(key));
    let document = &session.loaded.document;
    // Absolute: the remedy may be run from another directory.
    let file = document.path().and_then(|path| path.canonicalize().ok());
    let file = file.map_or_else(|| "FILE".into(), |path| path.to_string_lossy().into_owned());
    boot_files::judge(
        &found,
        &Basis::Wanted { state: &state, node: session.node_name().as_raw(), file: &file },
    )
}

/// Returns whether the last apply applied the current configuration.
fn is_current(session: &Session, last: &LastApplied) -> bool {
    last.configuration.as_ref().is_some_and(|stored| *stored == session.loaded.document)
}
