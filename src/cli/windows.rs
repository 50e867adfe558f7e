//! `hostgw plan --state` and `hostgw doctor --state` for a Windows node.

use super::{
    VerbFailure, VerbResult,
    arguments::{DoctorOptions, PlanOptions, TargetOptions},
    configuration::load,
    doctor_files, environment,
    output::Output,
    plan_shape::{PlanShape, refused, show, warn_of_conflicts},
};
use crate::{
    config::{Document, Loaded},
    diagnose::Diagnostic,
    doctor::{WindowsExamination, examine_windows},
    error::{Error, Kind},
    model::Cluster,
    plan::{
        self, ForeignPolicy, WindowsDesired,
        compare::Side,
        windows::{WindowsObserved, WindowsPlan, windows_plan},
    },
    reconcile::misfit,
    render::{FindingEntry, Locator, Report},
    text::{ShellCommand, Untrusted},
};

/// Shows what would change on a Windows node, whose state the collector script wrote to the file `name`.
pub(super) fn plan(options: &PlanOptions, name: &str, text: &str, output: &Output) -> VerbResult {
    let observed = WindowsObserved::parse(name, text)?;
    let (Loaded { document, cluster }, index) = find(&options.target, &observed)?;
    let node = cluster.nodes[index].name.as_raw();
    if options.out.is_some() {
        let message = format!("{node} is a Windows node: its plan cannot be saved for `hostgw apply`");
        let render = ShellCommand::new(["hostgw", "render", "--node", node]);
        let hint = format!("`{render}` prints a script that plans and applies on the node");
        return Err(Error::new(Kind::Usage, message).with_hint(hint).into());
    }
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let (report, plan) = planned(&document, &cluster, index, name, &observed, policy)?;
    show(&report, None, PlanShape::of(options), output)?;
    for leftover in &plan.leftovers {
        output.diagnostic(leftover);
    }
    if !plan.conflicts.is_empty() {
        return Err(warn_of_conflicts(&refused(plan.conflicts.len(), "the script", "-Adopt"), output));
    }
    Ok(if options.detailed_exitcode && !plan.changes.is_empty() { 2 } else { 0 })
}

/// Plans for the Windows node that a snapshot was collected for.
pub(super) fn report_of(
    loaded: &Loaded,
    name: &str,
    text: &str,
    policy: ForeignPolicy,
) -> Result<(Report, WindowsPlan), Error> {
    let observed = WindowsObserved::parse(name, text)?;
    let index = plan::node_named(&loaded.cluster, &observed.node)?;
    planned(&loaded.document, &loaded.cluster, index, name, &observed, policy)
}

fn planned(
    document: &Document,
    cluster: &Cluster,
    index: usize,
    name: &str,
    observed: &WindowsObserved,
    policy: ForeignPolicy,
) -> Result<(Report, WindowsPlan), Error> {
    let desired = desired(cluster, index, name)?;
    let node = &cluster.nodes[index].name;
    let locator = Locator::new(document);
    let plan = windows_plan(cluster, index, &desired, observed, policy)
        .map_err(|problems| misfit(node, &problems, |path| locator.source(path)))?;
    let mut report = Report::of_windows(&plan, cluster, |side, path| match side {
        Side::New => locator.source(path),
        Side::Old => None,
    });
    report.node = Some(node.clone());
    report.file = Some(document.name().clone());
    Ok((report, plan))
}

/// Examines a Windows node, whose state the collector script wrote to the file `name`.
/// Returns the findings and the name of the node.
pub(super) fn doctor(
    options: &DoctorOptions,
    name: &str,
    text: &str,
) -> Result<(Vec<FindingEntry>, Untrusted), VerbFailure> {
    let observed = WindowsObserved::parse(name, text)?;
    let (Loaded { document, cluster }, index) = find(&options.target, &observed)?;
    let desired = desired(&cluster, index, name)?;
    let state = options.state.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned());
    let examination = WindowsExamination {
        cluster: &cluster,
        index,
        desired: &desired,
        observed: &observed,
        state: &state,
    };
    let mut found = examine_windows(&examination);
    found.extend(doctor_files::cni(options.cni.as_deref(), false, &cluster, index)?);
    let locator = Locator::new(&document);
    let entry = |diagnostic: Diagnostic| {
        let source = diagnostic.path.as_ref().and_then(|path| locator.source(path));
        FindingEntry::new(diagnostic, source)
    };
    Ok((found.into_iter().map(entry).collect(), cluster.nodes[index].name.clone()))
}

/// Loads the configuration and finds the node: the named one, or else the one that the state was collected for.
fn find(target: &TargetOptions, observed: &WindowsObserved) -> Result<(Loaded, usize), VerbFailure> {
    let loaded = load(target.file.as_deref())?;
    let named = environment::node(target.node.as_deref());
    let index = plan::node_named(&loaded.cluster, named.as_deref().unwrap_or(&observed.node))?;
    Ok((loaded, index))
}

fn desired(cluster: &Cluster, index: usize, name: &str) -> Result<WindowsDesired, Error> {
    plan::windows_desired(cluster, index).ok_or_else(|| {
        let node = &cluster.nodes[index].name;
        let message = format!("{name} is from a Windows machine, but node {node} runs Linux");
        Error::new(Kind::Invalid, message)
            .with_hint("run `hostgw snapshot` on the node, and pass its output with --state")
    })
}
