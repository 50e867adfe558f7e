//! A comparison of two files as a comment.

use std::collections::HashMap;

use crate::{
    plan::{Action, compare::NodeStatus},
    render::{
        BlockReport, ComparisonReport, Detail, Entry, Group, NodeEntry, Palette, Renamed, Short,
        comparison::{entry_line, interfaces, place, renamed_line, short_line, title, totals},
        text::Line,
    },
    text::{Untrusted, count, printable},
};

use super::{
    comment::{Comment, Danger, Of, Ranked, Removal, Removals, Section},
    escape::name,
};

/// The comparison as Markdown. `file` is what the hidden marker names: not a revision, which changes.
#[must_use]
pub fn comparison_markdown(report: &ComparisonReport, file: &Untrusted) -> String {
    let side = |name: &Option<Untrusted>| name.as_ref().map_or_else(|| "nothing".to_owned(), code);
    let is_diff = report.old.is_some() || !report.notes.is_empty();
    let (marker, title) = if is_diff {
        let title = format!("hostgw diff: {} → {}", side(&report.old), side(&report.new));
        (format!("diff {}", name(file.as_raw())), title)
    } else {
        (
            format!("all-nodes {}", name(file.as_raw())),
            format!("hostgw plan for all nodes of {}", side(&report.new)),
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

/// The nodes of a block in a sentence.
fn where_(report: &ComparisonReport, block: &BlockReport) -> String {
    title(report, block, Detail::Short, &code)
}

fn removals(report: &ComparisonReport) -> Vec<Removals> {
    let mut removals = Vec::new();
    for block in report.blocks.iter().filter(|block| block.standing == NodeStatus::Stays) {
        let changes = block.changes.iter().zip(&block.to_removed_nodes);
        let gone = changes.filter(|(entry, _)| entry.action == Action::Remove);
        let objects: Vec<Removal> =
            gone.map(|(entry, leads_to)| Removal { to_removed_node: *leads_to, ..removal(entry) }).collect();
        if !objects.is_empty() {
            removals.push(Removals { title: where_(report, block), objects, of: Of::Node });
        }
    }
    let nodes = removed_nodes(report);
    if !nodes.is_empty() {
        let title = format!(
            "Everything hostgw manages on {} (removed by `hostgw destroy`, on Windows by `-Destroy` of the script)",
            count(nodes.len(), "node")
        );
        let file = report.old.clone().unwrap_or_default();
        removals.push(Removals {
            title,
            objects: nodes,
            of: Of::Cluster { file, kept: report.kept.clone() },
        });
    }
    removals
}

/// A removed object of a plan or a block.
pub(super) fn removal(entry: &Entry) -> Removal {
    Removal {
        line: entry_line(entry, &Palette::new(false)),
        name: entry.before.as_ref().map_or_else(String::new, |object| object.name.clone()),
        to_removed_node: false,
    }
}

/// Every node that is removed, with how much goes with it.
fn removed_nodes(report: &ComparisonReport) -> Vec<Removal> {
    let mut nodes: Vec<(&NodeEntry, [usize; 4])> = Vec::new();
    let mut places: HashMap<&Untrusted, usize> = HashMap::new();
    for block in report.blocks.iter().filter(|block| block.standing == NodeStatus::Removed) {
        let mut spared: HashMap<&Untrusted, [usize; 4]> = HashMap::new();
        let mut all = [0; 4];
        for entry in &block.changes {
            all[entry.kind as usize] += 1;
            for node in entry.on.iter().flat_map(|reach| &reach.except) {
                spared.entry(node).or_default()[entry.kind as usize] += 1;
            }
        }
        for node in &block.nodes {
            let at = *places.entry(&node.name).or_insert_with(|| {
                nodes.push((node, [0; 4]));
                nodes.len() - 1
            });
            let spared = spared.get(&node.name).copied().unwrap_or_default();
            for kind in 0..4 {
                nodes[at].1[kind] += all[kind] - spared[kind];
            }
        }
    }
    nodes.into_iter().map(|(node, counts)| removed_node(node, counts)).collect()
}

fn removed_node(node: &NodeEntry, counts: [usize; 4]) -> Removal {
    let kinds = [
        (Group::Route, "route"),
        (Group::Nat, "NAT object"),
        (Group::Sysctl, "sysctl"),
        (Group::Forwarding, "forwarding interface"),
    ];
    let told = kinds.map(|(kind, noun)| (counts[kind as usize], noun));
    let told: Vec<String> = told
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number, noun))
        .collect();
    let place = place(node.source.as_ref());
    let side = if place.is_empty() { told.join(", ") } else { format!("{}; {place}", told.join(", ")) };
    Removal {
        line: Line { text: printable(&format!("- node {}", node.name)), side },
        name: node.name.as_raw().to_owned(),
        to_removed_node: false,
    }
}

fn sections(report: &ComparisonReport) -> Vec<Section> {
    let mut sections = Vec::new();
    if !report.renamed.is_empty() {
        let line = |renamed: &Renamed| Ranked { danger: Danger::Add, line: renamed_line(renamed) };
        sections.push(Section {
            title: "#### Renamed without other changes".to_owned(),
            shown: report.renamed.iter().map(line).collect(),
            folded: Vec::new(),
        });
    }
    sections.extend(report.blocks.iter().filter_map(|block| section(report, block)));
    sections
}

/// What happens on the nodes of a block but for removals, if anything.
fn section(report: &ComparisonReport, block: &BlockReport) -> Option<Section> {
    let palette = Palette::new(false);
    let danger = |action| match (action, block.standing) {
        (Action::Add, NodeStatus::New) => Danger::New,
        (Action::Add, _) => Danger::Add,
        _ => Danger::Change,
    };
    let action_of = |short: &Short| match short {
        Short::One(index) => block.changes[*index].action,
        Short::Many { action, .. } => *action,
    };
    let kept = block.short.iter().filter(|short| action_of(short) != Action::Remove);
    let mut shown: Vec<Ranked> = kept
        .clone()
        .map(|short| Ranked { danger: danger(action_of(short)), line: short_line(block, short, &palette) })
        .collect();
    if shown.is_empty() {
        return None;
    }
    let names = interfaces(block, Detail::Short).into_iter();
    shown.splice(0..0, names.map(|line| Ranked { danger: Danger::Change, line }));
    let has_more = kept.clone().any(|short| matches!(short, Short::Many { .. }));
    let entries = block.changes.iter().filter(|entry| has_more && entry.action != Action::Remove);
    let folded =
        entries.map(|entry| Ranked { danger: danger(entry.action), line: entry_line(entry, &palette) });
    Some(Section { title: format!("#### {}", where_(report, block)), shown, folded: folded.collect() })
}
