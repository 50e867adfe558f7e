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
    windows,
};
use crate::{
    config::Loaded,
    diagnose::Severity,
    doctor::{Examination, examine, notes},
    error::{Error, Kind},
    plan::{ForeignPolicy, MachineSource, Observed, windows::WindowsObserved},
    reconcile::Session,
    record::Snapshot,
    render::{FindingEntry, Locator, finding_text},
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
    /// The findings.
    findings: Vec<FindingEntry>,
    /// Notes about what may affect the node and hostgw cannot see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Untrusted>,
}

/// Examines this node, or the node of a snapshot.
pub(super) fn run(options: &DoctorOptions, output: &Output) -> VerbResult {
    let state = options.state.as_deref().map(text_of).transpose()?;
    if let Some((name, text)) = &state
        && WindowsObserved::is_snapshot(text)
    {
        let (findings, node) = windows::doctor(options, name, text)?;
        return show(findings, Vec::new(), &node, options, output);
    }
    let loaded = load(options.target.file.as_deref())?;
    let node = environment::node(options.target.node.as_deref());
    let (session, mut observed) = visit_state(loaded, node.as_deref(), state)?;
    let mut failure = None;
    if options.probe {
        let (entries, why) = ask_next_hops(&session)?;
        observed.host.neighbors = entries;
        failure = why.map(|why| {
            format!("the MAC addresses of next hops were not compared, which requires CAP_NET_RAW: {why}")
        });
    }
    let examination = Examination {
        cluster: &session.loaded.cluster,
        index: session.index,
        size: session.loaded.cluster.nodes.len(),
        prepared: &session.prepared,
        observed: &observed,
    };
    let locator = Locator::new(&session.loaded.document);
    let entry = |diagnostic: crate::diagnose::Diagnostic| {
        let source = diagnostic.path.as_ref().and_then(|path| locator.source(path));
        FindingEntry::new(diagnostic, source)
    };
    let is_live = options.state.is_none();
    let mut found = examine(&examination);
    found.extend(doctor_files::cni(options.cni.as_deref(), is_live, examination.cluster, examination.index)?);
    #[cfg(target_os = "linux")]
    if is_live {
        let egress = examination.cluster.egress_interface_of(&examination.cluster.nodes[examination.index]);
        found.extend(super::doctor_managers::examine(
            egress.and_then(|name| observed.host.link(name.as_str())),
            session.node_name(),
        ));
    }
    let notes: Vec<Untrusted> = notes(&examination).into_iter().chain(failure).map(Into::into).collect();
    let findings: Vec<FindingEntry> = found.into_iter().map(entry).collect();
    show(findings, notes, session.node_name(), options, output)
}

/// Prints the findings about a node, and returns the exit code.
fn show(
    findings: Vec<FindingEntry>,
    notes: Vec<Untrusted>,
    node: &Untrusted,
    options: &DoctorOptions,
    output: &Output,
) -> VerbResult {
    let code = if findings.is_empty() { 0 } else { FINDINGS };
    if options.json {
        output.json(&DoctorJson { format: FORMAT, node: node.clone(), findings, notes })?;
    } else {
        output.result(&text(&findings, &notes, node, output))?;
    }
    Ok(code)
}

/// Plans for this node, or for the node of a snapshot, and returns its whole state with the plan.
pub(super) fn visit(
    loaded: Loaded,
    node: Option<&str>,
    state: Option<&Path>,
) -> Result<(Session, Observed), Error> {
    visit_state(loaded, node, state.map(text_of).transpose()?)
}

/// Examines a node as [`visit`] does. Also returns the name and the text of the snapshot.
fn visit_state(
    loaded: Loaded,
    node: Option<&str>,
    state: Option<(String, String)>,
) -> Result<(Session, Observed), Error> {
    let name = state.as_ref().map(|(name, _)| name.as_str());
    let snapshot = match &state {
        Some((name, text)) if WindowsObserved::is_snapshot(text) => {
            let message =
                format!("{name} is from a Windows machine: packets can only be traced on Linux nodes");
            let hint = "run `hostgw doctor --node NODE --state FILE` to examine that node";
            return Err(Error::new(Kind::Invalid, message).with_hint(hint));
        }
        Some((_, text)) => Snapshot::parse(name.unwrap_or_default(), text)?,
        None => live()?,
    };
    let source = name.map_or(MachineSource::Live, MachineSource::Snapshot);
    let observed = snapshot.observed.clone();
    let mut session = Session::of_snapshot(loaded, node, source, snapshot, ForeignPolicy::Respect)?;
    session.look()?;
    Ok((session, observed))
}

#[cfg(target_os = "linux")]
fn live() -> Result<Snapshot, Error> {
    super::snapshot::take()
}

#[cfg(not(target_os = "linux"))]
fn live() -> Result<Snapshot, Error> {
    Err(super::only_on_linux("examining this machine"))
}

/// The entries of next hops in the neighbor table, and why their MAC addresses are unknown.
type Asked = (Vec<NeighborEntry>, Option<String>);

/// Asks the next hops of the planned routes to other nodes, and of the default routes.
#[cfg(target_os = "linux")]
fn ask_next_hops(session: &Session) -> Result<Asked, Error> {
    let prepared = &session.prepared;
    let routes = prepared.desired.routes_to_nodes();
    let hops =
        routes.filter_map(|(route, _)| Some((route.next_hop.gateway?, route.next_hop.device.clone()?)));
    let mut hops: Vec<_> = hops.collect();
    let paths =
        crate::plan::paths(&session.loaded.cluster, session.index, &prepared.desired, &prepared.observed);
    hops.extend(paths.gateways().filter_map(|hop| Some((hop.gateway?, hop.device))));
    let crate::kernel::AskedHops { entries, failure } = crate::kernel::ask_next_hops(&hops)?;
    Ok((entries, failure))
}

#[cfg(not(target_os = "linux"))]
fn ask_next_hops(_: &Session) -> Result<Asked, Error> {
    Err(super::only_on_linux("examining this machine"))
}

fn text(findings: &[FindingEntry], notes: &[Untrusted], node: &Untrusted, output: &Output) -> String {
    let palette = &output.palette;
    let mut text = String::new();
    findings.iter().for_each(|finding| text.push_str(&finding_text(finding, palette)));
    for note in notes {
        text.push_str(&format!("{} {}\n", palette.head.apply_to("note:"), printable(&note.to_string())));
    }
    let number = |wanted| findings.iter().filter(|finding| finding.severity == wanted).count();
    let summary = match findings.len() {
        0 => format!("Node {node}: no findings."),
        _ => format!(
            "Node {node}: {}, {}.",
            count(number(Severity::Error), "error"),
            count(number(Severity::Warning), "warning")
        ),
    };
    text.push_str(&format!("{}\n", palette.head.apply_to(summary)));
    text
}
