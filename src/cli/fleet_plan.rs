//! `hostgw plan --state` with the snapshots of many nodes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    VerbFailure, VerbResult,
    arguments::PlanOptions,
    configuration::{load, text_of},
    output::Output,
    plan_shape::{PlanShape, refused, refused_by_apply},
    saved_plan::SavedPlan,
    session_report,
    snapshot_files::snapshot_files,
    windows,
};
use crate::{
    config::Loaded,
    error::{Error, Kind},
    plan::{ForeignPolicy, MachineSource, Totals, windows::WindowsObserved},
    progress::{Task, advance},
    reconcile::Session,
    record::Snapshot,
    render::{FleetChange, FleetChanges, FleetNode, FleetReport, fleet_markdown, fleet_summary, fleet_text},
    state,
    text::{self, OsError, Untrusted, count},
};

/// Plans for the nodes of many snapshots, and saves the plans in a directory.
pub(super) fn run(options: &PlanOptions, output: &Output) -> VerbResult {
    let files = snapshot_files(&options.state)?;
    let loaded = load(options.target.file.as_deref())?;
    if let Some(folder) = &options.out {
        create(folder)?;
    }
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let (mut nodes, mut changes, mut last_failure) =
        (Vec::with_capacity(files.len()), FleetChanges::default(), None);
    let _task = Task::counted("planning nodes", files.len());
    for file in &files {
        let mut node = FleetNode {
            node: None,
            snapshot: text::path(file),
            totals: None,
            plan: None,
            problem: None,
            remedy: None,
        };
        if let Err(error) = plan_one(file, &loaded, policy, options.out.as_deref(), &mut node, |change| {
            changes.add(nodes.len(), change);
        }) {
            last_failure = Some(error.kind);
            node.remedy = error.hint;
            let details = error.details.iter().map(|detail| format!("; {detail}")).collect::<String>();
            node.problem = Some(format!("{}{details}", error.message).into());
        }
        nodes.push(node);
        advance(1);
    }
    drop(_task);
    let report =
        FleetReport::new(loaded.document.name().clone(), loaded.document.hash().into(), nodes, changes);
    match PlanShape::of(options) {
        PlanShape::Json => output.json(&report)?,
        PlanShape::Markdown => output.verbatim(&fleet_markdown(&report))?,
        PlanShape::Summary => output.long(&fleet_summary(&report, &output.palette))?,
        PlanShape::Text => output.long(&fleet_text(&report, &output.palette))?,
    }
    if let Some(folder) = &options.out {
        let saved = report.nodes.iter().filter(|node| node.plan.is_some()).count();
        let folder = text::path(folder);
        output.say(&format!(
            "Saved {} to {folder}. Copy each one to its node, then run `hostgw apply NODE.json` there.",
            count(saved, "plan")
        ));
    }
    if let Some(kind) = last_failure {
        return Err(VerbFailure::AlreadyReported(kind));
    }
    Ok(if options.detailed_exitcode && report.changed() > 0 { 2 } else { 0 })
}

/// Plans for the node of one snapshot. Passes its changes to `add`.
fn plan_one(
    file: &Path,
    loaded: &Loaded,
    policy: ForeignPolicy,
    folder: Option<&Path>,
    node: &mut FleetNode,
    mut add: impl FnMut(FleetChange),
) -> Result<(), Error> {
    // A node without a usable plan does not change.
    let (name, text) = text_of(file)?;
    if WindowsObserved::is_snapshot(&text) {
        let (report, plan) = windows::report_of(loaded, &name, &text, policy)?;
        node.node.clone_from(&report.node);
        node.totals = Some(report.totals);
        return match plan.conflicts.len() {
            0 => {
                report.changes.iter().map(FleetChange::from).for_each(&mut add);
                Ok(())
            }
            number => Err(refused(number, "the script", "-Adopt")),
        };
    }
    let snapshot = Snapshot::parse(&name, &text)?;
    let mut session =
        Session::of_snapshot(loaded.clone(), None, MachineSource::OneOf(&name), snapshot, policy)?;
    node.node = Some(session.node_name().clone());
    session.look()?;
    session.check()?;
    let report = session_report::report(&session);
    node.totals = Some(report.totals);
    let plan = &session.prepared.plan;
    if !plan.unknown.is_empty() {
        let unknown: Vec<String> =
            plan.unknown.iter().map(|it| format!("{}: {}", it.part, it.reason)).collect();
        return Err(Error::new(
            Kind::Incomplete,
            format!("the snapshot is incomplete: {}", text::list(&unknown, 3)),
        )
        .with_hint_if(state::remedy_for(&plan.unknown).cloned()));
    }
    if !plan.conflicts.is_empty() {
        return Err(
            refused_by_apply(&plan.conflicts).with_details(plan.conflicts.iter().map(ToString::to_string))
        );
    }
    report.changes.iter().map(FleetChange::from).for_each(&mut add);
    if let Some(folder) = folder.filter(|_| report.totals != Totals::default()) {
        let path = folder.join(file_name(session.node_name()));
        SavedPlan::of(&session, &report)?.write(&path)?;
        node.plan = Some(text::path(&path));
    }
    Ok(())
}

/// Returns the name of the file for the plan of a node. The name of a node can contain anything, and can be as long as the
/// name of a file.
fn file_name(node: &Untrusted) -> PathBuf {
    /// Leaves room for the endings of this file and of a temporary one.
    const MAX_LENGTH: usize = 200;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = node.as_raw().chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let plain = plain.trim_start_matches('.');
    // It is ASCII.
    let plain = plain.get(..MAX_LENGTH).unwrap_or(plain);
    let suffix = if plain == node.as_raw() {
        String::new()
    } else {
        format!("-{}", &crate::hex::sha256(node.as_raw().as_bytes())[..8])
    };
    PathBuf::from(format!("{plain}{suffix}.json"))
}

/// Creates the directory for the plans.
fn create(folder: &Path) -> Result<(), Error> {
    let cannot = |error| {
        Error::new(
            Kind::Usage,
            format!("cannot create the directory {}: {}", text::path(folder), OsError(&error)),
        )
    };
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot(error)),
        _ if !folder.is_dir() => Err(Error::new(
            Kind::Usage,
            format!(
                "not a directory: {} (with several snapshots, --out names a directory)",
                text::path(folder)
            ),
        )
        .with_hint("pass a directory: `--out plans`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_node_gives_a_file_name_of_its_own() {
        let long = |last: &str| format!("{}{last}", "n".repeat(252));
        let names = ["n1", "n1.example.com", "../n1", "..", "ä", "N 1", "N_1", &long("a"), &long("b")];
        let files: Vec<PathBuf> = names.iter().map(|name| file_name(&(*name).into())).collect();
        assert_eq!(files[..2], ["n1.json", "n1.example.com.json"].map(PathBuf::from));
        for (number, file) in files.iter().enumerate() {
            assert!(file.as_os_str().len() < 240 && file.components().count() == 1, "{file:?}");
            assert!(!files[..number].contains(file), "{file:?}");
        }
    }
}
