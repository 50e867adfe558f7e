//! `hostgw plan --state` for a Windows node.

use super::{
    VerbFailure, VerbResult,
    arguments::PlanOptions,
    configuration::load,
    environment,
    output::Output,
    plan_shape::{PlanShape, refuses, show},
};
use crate::{
    config::Loaded,
    error::{Error, Kind},
    plan::{
        self, ForeignPolicy,
        compare::Side,
        windows::{WindowsObserved, windows_plan},
    },
    render::{Locator, Report},
    text::ShellCommand,
};

/// Shows what would change on a Windows node, whose state the collector script wrote to the file `name`.
pub(super) fn plan(options: &PlanOptions, name: &str, text: &str, output: &Output) -> VerbResult {
    let observed = WindowsObserved::parse(name, text)?;
    let Loaded { document, cluster } = load(options.target.file.as_deref())?;
    let named = environment::node(options.target.node.as_deref());
    let node = named.as_deref().unwrap_or(&observed.node);
    let index = plan::node_named(&cluster, node)?;
    if options.out.is_some() {
        let message = format!("{node} is a Windows node: its plan cannot be saved for `hostgw apply`");
        let render = ShellCommand::new(["hostgw", "render", "--node", node]);
        let hint = format!("{render} writes a script to plan and apply on the node");
        return Err(Error::new(Kind::Usage, message).with_hint(hint).into());
    }
    let Some(desired) = plan::windows_desired(&cluster, index) else {
        let message = format!("{name} is from a Windows machine, but node {node} runs Linux");
        return Err(Error::new(Kind::Invalid, message).with_hint("run `hostgw snapshot` on the node").into());
    };
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let plan = windows_plan(&cluster, index, &desired, &observed, policy).map_err(|problems| {
        Error::new(Kind::Invalid, format!("the configuration does not fit node {node}"))
            .with_details(problems)
    })?;
    let locator = Locator::new(&document);
    let mut report = Report::of_windows(&plan, &cluster, |side, path| match side {
        Side::New => locator.source(path),
        Side::Old => None,
    });
    report.node = Some(node.into());
    report.file = Some(document.name().clone());
    show(&report, None, PlanShape::of(options), output)?;
    for leftover in &plan.leftovers {
        output.warn(leftover);
    }
    if !plan.conflicts.is_empty() {
        output.warn(&refuses(plan.conflicts.len(), "the script", "-Adopt"));
        return Err(VerbFailure::AlreadyReported(Kind::Conflict));
    }
    Ok(if options.detailed_exitcode && !plan.changes.is_empty() { 2 } else { 0 })
}
