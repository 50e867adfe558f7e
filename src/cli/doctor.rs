//! `hostgw doctor`

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbResult,
    arguments::DoctorOptions,
    configuration::{load, text_of},
    doctor_files, environment,
    output::Output,
};
use crate::{
    config::Loaded,
    diagnose::Severity,
    doctor::{Patient, examine, notes},
    error::Error,
    plan::{ForeignPolicy, Observed},
    reconcile::Session,
    record::Snapshot,
    render::{DiagnosticEntry, Locator},
    state::NeighborEntry,
    text::{Untrusted, count, printable},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The exit code if there are findings.
const FINDINGS: u8 = 11;

/// The result of `hostgw doctor --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw doctor")]
pub(super) struct DoctorJson {
    /// The version of this format.
    format: u32,
    /// The node.
    node: Untrusted,
    /// Everything that was found.
    findings: Vec<DiagnosticEntry>,
    /// What may concern the node and hostgw cannot see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Untrusted>,
}

/// Examines this node, or the node of a snapshot.
pub(super) fn run(options: &DoctorOptions, output: &Output) -> VerbResult {
    let loaded = load(options.target.file.as_deref())?;
    let node = environment::node(options.target.node.as_deref());
    let (session, mut observed) = visit(loaded, node.as_deref(), options.state.as_deref())?;
    if options.probe {
        observed.host.neighbors = ask_next_hops(&session)?;
    }
    let patient = Patient {
        cluster: &session.loaded.cluster,
        index: session.index,
        prepared: &session.prepared,
        observed: &observed,
    };
    let locator = Locator::new(&session.loaded.document);
    let entry = |diagnostic: crate::diagnose::Diagnostic| {
        let source = diagnostic.path.as_ref().and_then(|path| locator.source(path));
        DiagnosticEntry::new(diagnostic, source)
    };
    let is_live = options.state.is_none();
    let mut found = examine(&patient);
    found.extend(doctor_files::cni(options.cni.as_deref(), is_live, patient.cluster, patient.index)?);
    #[cfg(target_os = "linux")]
    if is_live {
        let egress = patient.cluster.egress_interface_of(&patient.cluster.nodes[patient.index]);
        found.extend(super::doctor_managers::examine(
            egress.and_then(|name| observed.host.link(name.as_str())),
        ));
    }
    let notes: Vec<Untrusted> = notes(&patient).into_iter().map(Into::into).collect();
    let findings: Vec<DiagnosticEntry> = found.into_iter().map(entry).collect();
    let code = if findings.is_empty() { 0 } else { FINDINGS };
    if options.json {
        output.json(&DoctorJson { format: FORMAT, node: session.node_name().clone(), findings, notes })?;
    } else {
        output.result(&text(&findings, &notes, session.node_name(), output))?;
    }
    Ok(code)
}

/// Plans for this node, or for the node of a snapshot, and returns its whole state with the plan.
pub(super) fn visit(
    loaded: Loaded,
    node: Option<&str>,
    state: Option<&Path>,
) -> Result<(Session, Observed), Error> {
    let snapshot = match state {
        Some(snapshot) => {
            let (name, text) = text_of(snapshot)?;
            Snapshot::parse(&name, &text)?
        }
        None => live()?,
    };
    let observed = snapshot.observed.clone();
    let mut session = Session::of_snapshot(loaded, node, snapshot, ForeignPolicy::Respect)?;
    session.look()?;
    Ok((session, observed))
}

#[cfg(target_os = "linux")]
fn live() -> Result<Snapshot, Error> {
    super::snapshot::take()
}

#[cfg(not(target_os = "linux"))]
fn live() -> Result<Snapshot, Error> {
    Err(super::only_on_linux("an examination of this machine"))
}

/// Asks the next hops of the planned routes to other nodes.
#[cfg(target_os = "linux")]
fn ask_next_hops(session: &Session) -> Result<Vec<NeighborEntry>, Error> {
    let routes = session.prepared.desired.routes_to_nodes();
    let hops = routes.filter_map(|(route, _)| Some((route.next.gateway?, route.next.device.clone()?)));
    crate::kernel::ask_next_hops(&hops.collect::<Vec<_>>())
}

#[cfg(not(target_os = "linux"))]
fn ask_next_hops(_: &Session) -> Result<Vec<NeighborEntry>, Error> {
    Err(super::only_on_linux("an examination of this machine"))
}

fn text(findings: &[DiagnosticEntry], notes: &[Untrusted], node: &Untrusted, output: &Output) -> String {
    let palette = &output.palette;
    let mut text = String::new();
    for DiagnosticEntry { code, severity, message, source, remedy } in findings {
        let style = match severity {
            Severity::Error => &palette.conflict,
            Severity::Warning => &palette.change,
        };
        let head = format!("{}[{code}]:", severity.name());
        let place =
            source.as_ref().map_or_else(String::new, |source| format!(" ({}:{})", source.file, source.line));
        text.push_str(&format!("{} {}{place}\n", style.apply_to(head), printable(&message.to_string())));
        if let Some(remedy) = remedy {
            text.push_str(&format!(
                "  {} {}\n",
                palette.head.apply_to("help:"),
                printable(&remedy.to_string())
            ));
        }
    }
    for note in notes {
        text.push_str(&format!("{} {}\n", palette.head.apply_to("note:"), printable(&note.to_string())));
    }
    let number = |wanted| findings.iter().filter(|finding| finding.severity == wanted).count();
    let summary = match findings.len() {
        0 => format!("Node {node}: nothing found."),
        _ => format!(
            "Node {node}: {}, {}.",
            count(number(Severity::Error), "error"),
            count(number(Severity::Warning), "warning")
        ),
    };
    text.push_str(&format!("{}\n", palette.head.apply_to(summary)));
    text
}
