//! Renders the plan of one node as a comment.

use crate::{
    plan::Action,
    progress::Task,
    render::{
        ChangeEntry, Palette, Report,
        report::{ConflictEntry, FindingEntry},
        text::{Line, change_line, conflict_lines, totals, unknown_line},
    },
    state::ObjectKind,
};

use super::{
    comment::{ChangeSection, Comment, Importance, RankedLine, RemovalScope, Removals},
    comparison::{code, removal},
    escape::{name, quote_commands},
};

/// The maximum number of visible lines per kind; more are folded.
const MAX_SHOWN: usize = 20;

/// Renders the plan as Markdown. The hidden marker contains the node's name.
#[must_use]
pub fn plan_markdown(report: &Report) -> String {
    let _task = Task::begin("formatting");
    let node = report.node.clone().unwrap_or_default();
    let removed: Vec<&ChangeEntry> =
        report.changes.iter().filter(|entry| entry.action == Action::Remove).collect();
    let removals = Removals {
        scope: RemovalScope::Node,
        title: "On this node".to_owned(),
        objects: removed.into_iter().map(removal).collect(),
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

fn sections(report: &Report) -> Vec<ChangeSection> {
    let mut sections = vec![conflicts(report), warnings(report)];
    sections.extend(ObjectKind::ALL.map(|kind| changes(report, kind)));
    sections.retain(|section| !section.shown.is_empty() || !section.folded.is_empty());
    sections
}

fn conflicts(report: &Report) -> ChangeSection {
    let palette = Palette::for_diff();
    let conflicts =
        report.conflicts.iter().flat_map(|conflict: &ConflictEntry| conflict_lines(conflict, &palette));
    let unknown = report.unknown.iter().map(|unknown| unknown_line(unknown, &palette));
    let shown =
        conflicts.chain(unknown).map(|line| RankedLine { importance: Importance::Conflict, line }).collect();
    ChangeSection { title: "#### Foreign or unknown".to_owned(), shown, folded: Vec::new() }
}

fn warnings(report: &Report) -> ChangeSection {
    let line = |FindingEntry { code, severity, message, remedy, .. }: &FindingEntry| Line {
        text: format!("! {}[{code}]: {}", severity.name(), quote_commands(message)),
        annotation: remedy
            .as_ref()
            .map_or_else(String::new, |remedy| format!("help: {}", quote_commands(remedy))),
    };
    let shown = report
        .findings
        .iter()
        .map(|warning| RankedLine { importance: Importance::Conflict, line: line(warning) })
        .collect();
    ChangeSection { title: "#### Warnings".to_owned(), shown, folded: Vec::new() }
}

fn changes(report: &Report, kind: ObjectKind) -> ChangeSection {
    let palette = Palette::for_diff();
    let entries = report.changes.iter().filter(|entry| entry.kind == kind && entry.action != Action::Remove);
    let lines: Vec<RankedLine> = entries
        .map(|entry| {
            let importance =
                if entry.action == Action::Update { Importance::Change } else { Importance::Add };
            RankedLine { importance, line: change_line(entry, &palette) }
        })
        .collect();
    let title = format!("#### {}", kind.title());
    if lines.len() <= MAX_SHOWN {
        ChangeSection { title, shown: lines, folded: Vec::new() }
    } else {
        ChangeSection { title, shown: Vec::new(), folded: lines }
    }
}
