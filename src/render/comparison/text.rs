//! A comparison for people: blocks of nodes with the same changes, symbols in column 0, totals and names last.

use std::collections::HashSet;

use super::{BlockReport, ComparisonReport, NodeEntry, Renamed, Short, Values};
use crate::{
    plan::{Action, ComparisonTotals, compare::NodeStatus},
    render::{
        Entry, Group, Palette, Source,
        compact::compact,
        report::Object,
        text::{Line, Section, change_line, removed},
    },
    text::{Untrusted, count, list, printable},
};

/// So many nodes of a block are named, unless everything is told.
const NAMED: usize = 3;

/// So many removed objects are named one by one; more share words.
const REMOVED: usize = 20;

/// How much is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// Names and counts.
    Summary,
    /// Many changes of one kind as one line.
    #[default]
    Short,
    /// Every change and every name.
    Full,
}

/// The comparison as text, ending with a newline.
#[must_use]
pub fn comparison_text(report: &ComparisonReport, palette: &Palette, detail: Detail) -> String {
    let mut sections = Vec::new();
    if !report.renamed.is_empty() {
        let lines = report.renamed.iter().map(renamed_line).collect();
        sections.push(Section { lines }.print("Renamed without other changes", palette));
    }
    for block in &report.blocks {
        let lines = block_lines(block, palette, detail);
        sections.push(Section { lines }.print(&title(report, block, detail, &ToString::to_string), palette));
    }
    sections.push(summary(report, palette));
    sections.join("\n")
}

/// A node by its old and its new name.
pub(in crate::render) fn renamed_line(renamed: &Renamed) -> Line {
    Line {
        text: printable(&format!("= {} -> {}", renamed.before, renamed.after)),
        side: place(renamed.source.as_ref()),
    }
}

/// `FILE:LINE`, or nothing.
pub(in crate::render) fn place(source: Option<&Source>) -> String {
    source.map_or_else(String::new, |source| printable(&at(source)))
}

/// The nodes of a block in a sentence, names as `name` writes them.
pub(in crate::render) fn title(
    report: &ComparisonReport,
    block: &BlockReport,
    detail: Detail,
    name: &dyn Fn(&Untrusted) -> String,
) -> String {
    let shown = if detail == Detail::Full { block.nodes.len() } else { 2 * NAMED };
    let names = block.nodes.iter().take(shown).map(|node| name(&node.name)).collect();
    let listed = first_of(names, block.nodes.len());
    let with_place = |what: &str, node: &NodeEntry| match node.source.as_ref() {
        Some(source) => format!("{what} {}, {}", name(&node.name), name(&at(source).into())),
        None => format!("{what} {}", name(&node.name)),
    };
    // Without an old file no node is newer than others.
    let is_new = block.standing == NodeStatus::New && report.old.is_some();
    let which = match (block.standing, &block.nodes[..]) {
        (NodeStatus::New, [node]) if is_new => with_place("New node", node),
        (NodeStatus::New, nodes) if is_new => format!("{}: {listed}", count(nodes.len(), "new node")),
        (NodeStatus::Removed, [node]) => with_place("Removed node", node),
        (NodeStatus::Removed, nodes) => format!("{}: {listed}", count(nodes.len(), "removed node")),
        (_, nodes) => {
            let is_named = nodes.len() <= NAMED || detail == Detail::Full;
            let named = if is_named { format!(": {listed}") } else { String::new() };
            format!("On {} of {}{named}", nodes.len(), count(report.nodes, "node"))
        }
    };
    let spared = |entry: &Entry| entry.on.as_ref().is_some_and(|reach| !reach.except.is_empty());
    let but = if block.changes.iter().any(spared) { " (no route on the node it leads to)" } else { "" };
    let is_own = |entry: &Entry| entry.on.as_ref().is_some_and(|reach| reach.only.is_some());
    let own = if block.changes.iter().all(is_own) { " (each its own pod CIDR, old or new)" } else { "" };
    let removed = match (block.standing, is_windows(block)) {
        (NodeStatus::Removed, false) => " (removed by hostgw destroy)",
        (NodeStatus::Removed, true) => " (removed by -Destroy of its script)",
        _ => "",
    };
    format!("{which}{removed}{but}{own}")
}

/// These names of so many.
fn first_of(names: Vec<String>, all: usize) -> String {
    match all - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn at(source: &Source) -> String {
    format!("{}:{}", source.file, source.line)
}

fn block_lines(block: &BlockReport, palette: &Palette, detail: Detail) -> Vec<Line> {
    let mut lines = if detail == Detail::Summary { Vec::new() } else { interfaces(block, detail) };
    match detail {
        Detail::Summary => lines.push(plain_line(counts(block.totals()))),
        Detail::Full => lines.extend(block.changes.iter().map(|entry| entry_line(entry, palette))),
        Detail::Short => lines.extend(block.short.iter().map(|short| short_line(block, short, palette))),
    }
    lines
}

const fn plain_line(text: String) -> Line {
    Line { text, side: String::new() }
}

/// A change after its symbol, its reason, and the node where it happens on one only.
pub(in crate::render) fn entry_line(entry: &Entry, palette: &Palette) -> Line {
    let line = change_line(entry, palette);
    match entry.on.as_ref().and_then(|reach| reach.only.as_ref()) {
        Some(name) => Line { side: format!("on {}: {}", name, line.side), ..line },
        None => line,
    }
}

/// A line of the short form after its symbol, and its reason.
pub(in crate::render) fn short_line(block: &BlockReport, short: &Short, palette: &Palette) -> Line {
    match short {
        Short::One(index) => entry_line(&block.changes[*index], palette),
        Short::Many { action, text, side } => {
            let (symbol, style) = match action {
                Action::Add => ("+", &palette.add),
                Action::Change => ("~", &palette.change),
                Action::Remove => ("-", &palette.remove),
            };
            Line {
                text: style.apply_to(format!("{symbol} {}", printable(text))).to_string(),
                side: printable(side),
            }
        }
    }
}

/// Whether it is one of Windows nodes.
fn is_windows(block: &BlockReport) -> bool {
    let is_one = |entry: &Entry| {
        let mut objects = entry.before.iter().chain(&entry.after);
        entry.kind == Group::Forwarding || objects.any(|object| object.windows_route.is_some())
    };
    block.changes.iter().any(is_one)
}

/// The interface of a Windows node whose name the file does not have.
const FOUND: &str = "(by its address)";

/// The egress interfaces that the lines of a block leave out, with the nodes that have them.
pub(in crate::render) fn interfaces(block: &BlockReport, detail: Detail) -> Vec<Line> {
    let mut groups: Vec<(&Values, Vec<&Untrusted>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for node in &block.nodes {
        let Some(values) = &node.egress_interface else { continue };
        let place = *places.entry((&values.before, &values.after)).or_insert_with(|| {
            groups.push((values, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(&node.name);
    }
    if groups.len() > 2 * NAMED && detail != Detail::Full {
        return vec![plain_line(format!("  dev: {} egress interfaces", groups.len()))];
    }
    let line = |(values, names): (&Values, Vec<&Untrusted>)| {
        let names = list(&names, if detail == Detail::Full { names.len() } else { 2 * NAMED });
        let (word, unnamed) = if is_windows(block) { ("-InterfaceAlias", FOUND) } else { ("dev", "") };
        let name = |names: &[String]| names.first().map_or(unnamed.to_owned(), Clone::clone);
        let (old, new) = (name(&values.before), name(&values.after));
        let interface = match block.standing {
            NodeStatus::New => new,
            NodeStatus::Removed => old,
            NodeStatus::Stays if old == new => new,
            NodeStatus::Stays => format!("{old} -> {new}"),
        };
        plain_line(printable(&format!("  {word} {interface} on {names}")))
    };
    groups.into_iter().map(line).collect()
}

/// How much comes, changes and goes.
pub(in crate::render) fn counts(totals: ComparisonTotals) -> String {
    format!("{} to add, {} to change, {} to remove", totals.add, totals.change, totals.remove)
}

/// The totals in a sentence.
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
    let stays = report.blocks.iter().filter(|block| block.standing == NodeStatus::Stays);
    let mut seen = HashSet::new();
    add("Removed", few(stays.flat_map(removed_objects).filter(|name| seen.insert(name.clone())).collect()));
    add("Removed nodes", few(removed_nodes(report)));
    text
}

/// The names, sharing words where they are many.
fn few(names: Vec<String>) -> Vec<String> {
    if names.len() <= REMOVED { names } else { compact(names.iter().map(String::as_str)) }
}

/// The names of what goes in a block, but for routes that stand there with another metric or in another table
/// afterwards.
fn removed_objects(block: &BlockReport) -> Vec<String> {
    let destination = |entry: &Entry| {
        let object = entry.after.as_ref().or(entry.before.as_ref());
        let of_linux = |object: &Object| Some(object.route.as_ref()?.destination);
        let of_windows = |object: &Object| Some(object.windows_route.as_ref()?.destination_prefix);
        object.and_then(|object| of_linux(object).or_else(|| of_windows(object)))
    };
    let on_all = |entry: &Entry| entry.on.as_ref().is_none_or(|reach| reach.only.is_none());
    let added = block.changes.iter().filter(|entry| entry.action == Action::Add && on_all(entry));
    let added: HashSet<_> = added.filter_map(destination).collect();
    let stays = |entry: &&Entry| destination(entry).is_some_and(|destination| added.contains(&destination));
    removed(block.changes.iter().filter(|entry| !stays(entry)))
}

/// The names of the nodes that are removed, each once.
fn removed_nodes(report: &ComparisonReport) -> Vec<String> {
    let blocks = report.blocks.iter().filter(|block| block.standing == NodeStatus::Removed);
    let mut seen = HashSet::new();
    let names = blocks.flat_map(|block| &block.nodes).map(|node| &node.name);
    names.filter(|name| seen.insert(*name)).map(ToString::to_string).collect()
}
