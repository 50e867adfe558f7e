//! Renders a comparison of two configurations as a comment.

use std::collections::HashMap;

use crate::{
    plan::{Action, compare::NodeStatus},
    progress::Task,
    render::{
        BlockReport, ChangeEntry, CollapsedLine, ComparisonReport, Detail, NodeEntry, Palette, Renamed,
        comparison::{collapsed_line, entry_line, interfaces, place, renamed_line, title, totals},
        text::Line,
    },
    state::ObjectKind,
    text::{Untrusted, count, printable},
};

use super::{
    comment::{ChangeSection, Comment, Importance, RankedLine, Removal, RemovalScope, Removals},
    escape::name,
};

/// Renders the comparison as Markdown. The hidden marker contains `file` instead of revisions, which would change.
#[must_use]
pub fn comparison_markdown(report: &ComparisonReport, file: &Untrusted) -> String {
    let _task = Task::begin("formatting");
    let annotation =
        |name: &Option<Untrusted>| name.as_ref().map_or_else(|| "no configuration".to_owned(), code);
    let is_diff = report.old.is_some() || !report.notes.is_empty();
    let (marker, title) = if is_diff {
        let title = format!("hostgw diff: {} → {}", annotation(&report.old), annotation(&report.new));
        (format!("diff {}", name(file.as_raw())), title)
    } else {
        (
            format!("all-nodes {}", name(file.as_raw())),
            format!("hostgw plan for all nodes of {}", annotation(&report.new)),
        )
    };
    let comment = Comment {
        marker,
        title,
        notes: report.notes.iter().map(|note| note.sentence(code)).collect(),
        counts: totals(report),
        removals: removals(report),
        sections: sections(report),
        everything: if is_diff { "hostgw diff --full" } else { "hostgw plan --all-nodes --full" },
    };
    comment.render()
}

/// A name as a code span.
pub(super) fn code(text: &Untrusted) -> String {
    format!("`{}`", name(text.as_raw()))
}

/// The nodes of a block as a title.
fn block_title(report: &ComparisonReport, block: &BlockReport) -> String {
    title(report, block, Detail::Collapsed, &code)
}

fn removals(report: &ComparisonReport) -> Vec<Removals> {
    let mut removals = Vec::new();
    for block in report.blocks.iter().filter(|block| block.status == NodeStatus::Existing) {
        let changes = block.changes.iter().zip(&block.to_removed_nodes);
        let removed = changes.filter(|(entry, _)| entry.action == Action::Remove);
        let objects: Vec<Removal> = removed
            .map(|(entry, leads_to)| Removal { to_removed_node: *leads_to, ..removal(entry) })
            .collect();
        if !objects.is_empty() {
            removals.push(Removals { title: block_title(report, block), objects, scope: RemovalScope::Node });
        }
    }
    let nodes = removed_nodes(report);
    if !nodes.is_empty() {
        let title = format!(
            "Removed from the configuration: {} (to clean up, run `hostgw destroy` there; on Windows, run the script with `-Destroy`)",
            count(nodes.len(), "node")
        );
        let file = report.old.clone().unwrap_or_default();
        removals.push(Removals {
            title,
            objects: nodes,
            scope: RemovalScope::Cluster { file, kept: report.kept.clone() },
        });
    }
    removals
}

/// A removed object of a plan or a block.
pub(super) fn removal(entry: &ChangeEntry) -> Removal {
    Removal {
        line: entry_line(entry, &Palette::for_diff()),
        name: entry.before.as_ref().map_or_else(String::new, |object| object.name().into_owned()),
        to_removed_node: false,
    }
}

/// The removed nodes, each with the number of objects that it loses.
fn removed_nodes(report: &ComparisonReport) -> Vec<Removal> {
    let mut nodes: Vec<(&NodeEntry, [usize; 4])> = Vec::new();
    let mut places: HashMap<&Untrusted, usize> = HashMap::new();
    for block in report.blocks.iter().filter(|block| block.status == NodeStatus::Removed) {
        let mut exceptions: HashMap<&Untrusted, [usize; 4]> = HashMap::new();
        let mut all = [0; 4];
        for entry in &block.changes {
            all[entry.kind as usize] += 1;
            for node in entry.on.iter().flat_map(|reach| &reach.except) {
                exceptions.entry(node).or_default()[entry.kind as usize] += 1;
            }
        }
        for node in &block.nodes {
            let at = *places.entry(&node.name).or_insert_with(|| {
                nodes.push((node, [0; 4]));
                nodes.len() - 1
            });
            let exceptions = exceptions.get(&node.name).copied().unwrap_or_default();
            for kind in 0..4 {
                nodes[at].1[kind] += all[kind] - exceptions[kind];
            }
        }
    }
    nodes.into_iter().map(|(node, counts)| removed_node(node, counts)).collect()
}

fn removed_node(node: &NodeEntry, counts: [usize; 4]) -> Removal {
    let counts = ObjectKind::ALL.map(|kind| (counts[kind as usize], kind.noun()));
    let counts_text: Vec<String> = counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number, noun))
        .collect();
    let place = place(node.location.as_deref());
    let annotation = if place.is_empty() {
        counts_text.join(", ")
    } else {
        format!("{}; {place}", counts_text.join(", "))
    };
    Removal {
        line: Line { text: printable(&format!("- node {}", node.name)), annotation },
        name: node.name.as_raw().to_owned(),
        to_removed_node: false,
    }
}

fn sections(report: &ComparisonReport) -> Vec<ChangeSection> {
    let mut sections = Vec::new();
    if !report.renamed.is_empty() {
        let line =
            |renamed: &Renamed| RankedLine { importance: Importance::Add, line: renamed_line(renamed) };
        sections.push(ChangeSection {
            title: "#### Renamed nodes".to_owned(),
            shown: report.renamed.iter().map(line).collect(),
            folded: Vec::new(),
        });
    }
    sections.extend(report.blocks.iter().filter_map(|block| section(report, block)));
    sections
}

/// The changes of a block except removals, if there are any.
fn section(report: &ComparisonReport, block: &BlockReport) -> Option<ChangeSection> {
    let palette = Palette::for_diff();
    let importance = |action| match (action, block.status) {
        (Action::Add, NodeStatus::New) => Importance::New,
        (Action::Add, _) => Importance::Add,
        _ => Importance::Change,
    };
    let action_of = |line: &CollapsedLine| match line {
        CollapsedLine::Single(index) => block.changes[*index].action,
        CollapsedLine::Several { action, .. } => *action,
    };
    let kept = block.collapsed.iter().filter(|line| action_of(line) != Action::Remove);
    let mut shown: Vec<RankedLine> = kept
        .clone()
        .map(|line| RankedLine {
            importance: importance(action_of(line)),
            line: collapsed_line(block, line, &palette),
        })
        .collect();
    if shown.is_empty() {
        return None;
    }
    let names = interfaces(block, Detail::Collapsed).into_iter();
    shown.splice(0..0, names.map(|line| RankedLine { importance: Importance::Change, line }));
    let has_more = kept.clone().any(|line| matches!(line, CollapsedLine::Several { .. }));
    let entries = block.changes.iter().filter(|entry| has_more && entry.action != Action::Remove);
    let folded = entries
        .map(|entry| RankedLine { importance: importance(entry.action), line: entry_line(entry, &palette) });
    Some(ChangeSection {
        title: format!("#### {}", block_title(report, block)),
        shown,
        folded: folded.collect(),
    })
}
