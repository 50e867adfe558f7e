//! The plan of one node as a comment.

use crate::{
    plan::Action,
    render::{
        Entry, Group, Palette, Report,
        report::ConflictEntry,
        text::{GROUPS, Line, change_line, conflict_lines, totals, unknown_line},
    },
    text::printable,
};

use super::{
    comment::{Comment, Danger, Of, Ranked, Removals, Section},
    comparison::{code, removal},
    escape::name,
};

/// So many lines of a group are shown; more are folded away.
const SHOWN: usize = 20;

/// The plan as Markdown. The hidden marker names the node.
#[must_use]
pub fn plan_markdown(report: &Report) -> String {
    let node = report.node.clone().unwrap_or_default();
    let gone: Vec<&Entry> = report.changes.iter().filter(|entry| entry.action == Action::Remove).collect();
    let removals = Removals {
        of: Of::Node,
        title: "From this node".to_owned(),
        objects: gone.into_iter().map(removal).collect(),
    };
    let comment = Comment {
        notes: Vec::new(),
        marker: format!("plan {}", name(node.as_raw())),
        title: format!("hostgw plan for node {}", code(&node)),
        counts: totals(report),
        removals: if removals.objects.is_empty() { Vec::new() } else { vec![removals] },
        sections: sections(report),
        everything: "hostgw plan",
    };
    comment.render()
}

fn sections(report: &Report) -> Vec<Section> {
    let mut sections = vec![conflicts(report), warnings(report)];
    sections.extend(GROUPS.map(|(group, title)| changes(report, group, title)));
    sections.retain(|section| !section.shown.is_empty() || !section.folded.is_empty());
    sections
}

fn conflicts(report: &Report) -> Section {
    let palette = Palette::new(false);
    let conflicts =
        report.conflicts.iter().flat_map(|conflict: &ConflictEntry| conflict_lines(conflict, &palette));
    let unknown = report.unknown.iter().map(|unknown| unknown_line(unknown, &palette));
    let shown = conflicts.chain(unknown).map(|line| Ranked { danger: Danger::Conflict, line }).collect();
    Section { title: "#### Foreign or unknown".to_owned(), shown, folded: Vec::new() }
}

fn warnings(report: &Report) -> Section {
    let line = |warning: &String| Line { text: printable(&format!("! {warning}")), side: String::new() };
    let shown = report
        .warnings
        .iter()
        .map(|warning| Ranked { danger: Danger::Conflict, line: line(warning) })
        .collect();
    Section { title: "#### Warnings".to_owned(), shown, folded: Vec::new() }
}

fn changes(report: &Report, group: Group, title: &str) -> Section {
    let palette = Palette::new(false);
    let entries = report.changes.iter().filter(|entry| entry.kind == group && entry.action != Action::Remove);
    let lines: Vec<Ranked> = entries
        .map(|entry| {
            let danger = if entry.action == Action::Change { Danger::Change } else { Danger::Add };
            Ranked { danger, line: change_line(entry, &palette) }
        })
        .collect();
    let title = format!("#### {title}");
    if lines.len() <= SHOWN {
        Section { title, shown: lines, folded: Vec::new() }
    } else {
        Section { title, shown: Vec::new(), folded: lines }
    }
}
