//! Renders a comparison for a terminal: blocks of nodes with the same changes, symbols in column 0, then totals and
//! removed names.

use std::collections::HashSet;

use super::{BeforeAfter, BlockReport, CollapsedLine, ComparisonReport, NodeEntry, Renamed};
use crate::{
    model::OperatingSystem,
    plan::{Action, ComparisonTotals, compare::NodeStatus},
    progress::Task,
    render::{
        ChangeEntry, Palette, SourceLocation,
        fold_names::fold_names,
        report::Object,
        text::{Line, Section, change_line, removed},
    },
    text::{Untrusted, count, list, printable},
};

/// The number of nodes to name in a block, unless the detail is full.
const MAX_NAMED: usize = 3;

/// The maximum number of removed objects to name individually; more are folded.
const MAX_REMOVED: usize = 20;

/// The amount of detail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// Names and counts.
    Summary,
    /// Many changes of one kind in one line.
    #[default]
    Collapsed,
    /// Every change and every name.
    Full,
}

/// Renders the comparison as text that ends with a newline.
#[must_use]
pub fn comparison_text(report: &ComparisonReport, palette: &Palette, detail: Detail) -> String {
    let _task = Task::begin("formatting");
    let mut sections = Vec::new();
    if !report.renamed.is_empty() {
        let lines = report.renamed.iter().map(renamed_line).collect();
        sections.push(Section { lines }.print("Renamed nodes", palette));
    }
    for block in &report.blocks {
        let lines = block_lines(block, palette, detail);
        sections.push(Section { lines }.print(&title(report, block, detail, &ToString::to_string), palette));
    }
    sections.push(summary(report, palette));
    sections.join("\n")
}

/// Returns the line for a renamed node: its old and its new name.
pub(in crate::render) fn renamed_line(renamed: &Renamed) -> Line {
    Line {
        text: printable(&format!("= {} -> {}", renamed.before, renamed.after)),
        annotation: place(renamed.location.as_ref()),
    }
}

/// Returns `FILE:LINE`, or an empty string if the location is unknown.
pub(in crate::render) fn place(source: Option<&SourceLocation>) -> String {
    source.map_or_else(String::new, |source| printable(&at(source)))
}

/// Returns the title of a block, which lists its nodes. `name` formats names.
pub(in crate::render) fn title(
    report: &ComparisonReport,
    block: &BlockReport,
    detail: Detail,
    name: &dyn Fn(&Untrusted) -> String,
) -> String {
    let shown = if detail == Detail::Full { block.nodes.len() } else { 2 * MAX_NAMED };
    let names = block.nodes.iter().take(shown).map(|node| name(&node.name)).collect();
    let listed = join_first(names, block.nodes.len());
    let with_place = |what: &str, node: &NodeEntry| match node.location.as_ref() {
        Some(source) => format!("{what} {}, {}", name(&node.name), name(&at(source).into())),
        None => format!("{what} {}", name(&node.name)),
    };
    // Without an old configuration, no node is newer than others.
    let is_new = block.status == NodeStatus::New && report.old.is_some();
    let which = match (block.status, &block.nodes[..]) {
        (NodeStatus::New, [node]) if is_new => with_place("New node", node),
        (NodeStatus::New, nodes) if is_new => format!("{}: {listed}", count(nodes.len(), "new node")),
        (NodeStatus::Removed, [node]) => with_place("Removed node", node),
        (NodeStatus::Removed, nodes) => format!("{}: {listed}", count(nodes.len(), "removed node")),
        (_, nodes) => {
            let is_named = nodes.len() <= MAX_NAMED || detail == Detail::Full;
            let named = if is_named { format!(": {listed}") } else { String::new() };
            format!("On {} of {}{named}", nodes.len(), count(report.nodes, "node"))
        }
    };
    let has_exception = |entry: &ChangeEntry| entry.on.as_ref().is_some_and(|reach| !reach.except.is_empty());
    let exception = block.changes.iter().any(has_exception).then_some(match block.status {
        NodeStatus::Removed => "no node has a route to its own pods",
        _ => "each node omits the route to its own pods",
    });
    let is_only = |entry: &ChangeEntry| entry.on.as_ref().is_some_and(|reach| reach.only.is_some());
    let own = (block.changes.iter().all(is_only))
        .then_some("each node changes only the routes to its own old and new pod CIDRs");
    let is_one = block.nodes.len() == 1;
    let removed = match (block.status, block.os == Some(OperatingSystem::Windows)) {
        (NodeStatus::Removed, false) if is_one => Some("to clean up, run `hostgw destroy` there"),
        (NodeStatus::Removed, false) => Some("to clean up, run `hostgw destroy` on each"),
        (NodeStatus::Removed, true) if is_one => Some("to clean up, run its script there with -Destroy"),
        (NodeStatus::Removed, true) => Some("to clean up, run each node's script there with -Destroy"),
        _ => None,
    };
    let notes: Vec<_> = [removed, exception, own].into_iter().flatten().collect();
    match notes.is_empty() {
        true => which,
        false => format!("{which} ({})", notes.join("; ")),
    }
}

/// Joins the first names of `all`.
fn join_first(names: Vec<String>, all: usize) -> String {
    match all - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn at(source: &SourceLocation) -> String {
    format!("{}:{}", source.file, source.line)
}

fn block_lines(block: &BlockReport, palette: &Palette, detail: Detail) -> Vec<Line> {
    let mut lines = if detail == Detail::Summary { Vec::new() } else { interfaces(block, detail) };
    match detail {
        Detail::Summary => lines.push(plain_line(counts(block.totals()))),
        Detail::Full => lines.extend(block.changes.iter().map(|entry| entry_line(entry, palette))),
        Detail::Collapsed => {
            lines.extend(block.collapsed.iter().map(|line| collapsed_line(block, line, palette)))
        }
    }
    lines
}

const fn plain_line(text: String) -> Line {
    Line { text, annotation: String::new() }
}

/// A change with its symbol, its reason, and the node if only one is affected.
pub(in crate::render) fn entry_line(entry: &ChangeEntry, palette: &Palette) -> Line {
    let line = change_line(entry, palette);
    match entry.on.as_ref().and_then(|reach| reach.only.as_ref()) {
        Some(name) => Line { annotation: format!("on {}: {}", name, line.annotation), ..line },
        None => line,
    }
}

/// A collapsed line with its symbol and its reason.
pub(in crate::render) fn collapsed_line(
    block: &BlockReport,
    line: &CollapsedLine,
    palette: &Palette,
) -> Line {
    match line {
        CollapsedLine::Single(index) => entry_line(&block.changes[*index], palette),
        CollapsedLine::Several { action, text, reason_text } => {
            let (symbol, style) = (palette.symbols.of(*action), palette.style(*action));
            Line {
                text: style.apply_to(format!("{symbol} {}", printable(text))).to_string(),
                annotation: printable(reason_text),
            }
        }
    }
}

/// The placeholder for an interface that the configuration does not name.
const FOUND_BY_ADDRESS: &str = "(found by node address)";

/// The egress interfaces that the lines of a block omit, with their nodes.
pub(in crate::render) fn interfaces(block: &BlockReport, detail: Detail) -> Vec<Line> {
    let mut groups: Vec<(&BeforeAfter, Vec<&Untrusted>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for node in &block.nodes {
        let Some(values) = &node.egress_interface else { continue };
        let place = *places.entry((&values.before, &values.after)).or_insert_with(|| {
            groups.push((values, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(&node.name);
    }
    if groups.len() > 2 * MAX_NAMED && detail != Detail::Full {
        return vec![plain_line(format!("  dev: {} egress interfaces", groups.len()))];
    }
    let line = |(values, names): (&BeforeAfter, Vec<&Untrusted>)| {
        let names = list(&names, if detail == Detail::Full { names.len() } else { 2 * MAX_NAMED });
        let word = if block.os == Some(OperatingSystem::Windows) { "-InterfaceAlias" } else { "dev" };
        let name = |names: &[String]| names.first().map_or(FOUND_BY_ADDRESS.to_owned(), Clone::clone);
        let (old, new) = (name(&values.before), name(&values.after));
        let interface = match block.status {
            NodeStatus::New => new,
            NodeStatus::Removed => old,
            NodeStatus::Existing if old == new => new,
            NodeStatus::Existing => format!("{old} -> {new}"),
        };
        plain_line(printable(&format!("  {word} {interface} on {names}")))
    };
    groups.into_iter().map(line).collect()
}

/// The number of changes of each kind.
pub(in crate::render) fn counts(totals: ComparisonTotals) -> String {
    format!("{} to add, {} to update, {} to remove", totals.add, totals.update, totals.remove)
}

/// The totals as a sentence.
pub(in crate::render) fn totals(report: &ComparisonReport) -> String {
    match report.totals {
        ComparisonTotals { nodes: 0, .. } => "No changes on any node.".to_owned(),
        totals => {
            let verb = if totals.nodes == 1 { "changes" } else { "change" };
            format!("{} {verb}: {}.", count(totals.nodes, "node"), counts(totals))
        }
    }
}

fn summary(report: &ComparisonReport, palette: &Palette) -> String {
    let mut text = format!("{}\n", palette.head.apply_to(totals(report)));
    let mut add = |title: &str, names: Vec<String>| {
        if !names.is_empty() {
            let line = format!("{title}: {}", names.join(", "));
            text.push_str(&format!("{}\n", palette.remove.apply_to(line)));
        }
    };
    let existing = report.blocks.iter().filter(|block| block.status == NodeStatus::Existing);
    let mut seen = HashSet::new();
    add(
        "To remove",
        fold_if_many(existing.flat_map(removed_objects).filter(|name| seen.insert(name.clone())).collect()),
    );
    add("Removed nodes", fold_if_many(removed_nodes(report)));
    text
}

/// The names, folded if there are many.
fn fold_if_many(names: Vec<String>) -> Vec<String> {
    if names.len() <= MAX_REMOVED { names } else { fold_names(names.iter().map(String::as_str)) }
}

/// The names of the objects that a block removes, except for routes whose destination gets another metric or table.
fn removed_objects(block: &BlockReport) -> Vec<String> {
    let destination = |entry: &ChangeEntry| {
        let object = entry.after.as_ref().or(entry.before.as_ref());
        object.and_then(|object| match object {
            Object::Route(route) => Some(route.destination),
            Object::SharedRoute { route, .. } => Some(route.destination),
            Object::WindowsRoute(route) => Some(route.destination_prefix),
            Object::Sysctl { .. } | Object::Text { .. } => None,
        })
    };
    let on_all = |entry: &ChangeEntry| entry.on.as_ref().is_none_or(|reach| reach.only.is_none());
    let added = block.changes.iter().filter(|entry| entry.action == Action::Add && on_all(entry));
    let added: HashSet<_> = added.filter_map(destination).collect();
    let stays =
        |entry: &&ChangeEntry| destination(entry).is_some_and(|destination| added.contains(&destination));
    removed(block.changes.iter().filter(|entry| !stays(entry)))
}

/// The names of the removed nodes, without duplicates.
fn removed_nodes(report: &ComparisonReport) -> Vec<String> {
    let blocks = report.blocks.iter().filter(|block| block.status == NodeStatus::Removed);
    let mut seen = HashSet::new();
    let names = blocks.flat_map(|block| &block.nodes).map(|node| &node.name);
    names.filter(|name| seen.insert(*name)).map(ToString::to_string).collect()
}
