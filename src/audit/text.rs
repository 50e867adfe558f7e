//! An audit for a terminal: one page, whatever the size of the cluster.

use std::fmt::Write as _;

use super::report::{AuditFinding, AuditReport};
use crate::{
    diagnose::Severity,
    render::{Palette, short_names},
    text::{count, printable},
};

/// The number of findings of one rule that are shown.
const MAX_PER_RULE: usize = 5;

/// The number of words that list the nodes of a finding, or those to apply.
pub(super) const MAX_NAME_WORDS: usize = 6;

/// Renders an audit for a terminal. The text ends with a newline.
#[must_use]
pub fn audit_text(report: &AuditReport, palette: &Palette) -> String {
    let mut text = String::new();
    for findings in
        report.findings.chunk_by(|one, other| one.code == other.code && one.severity == other.severity)
    {
        for finding in findings.iter().take(MAX_PER_RULE) {
            put(&mut text, finding, palette);
        }
        if let Some(more) = findings.len().checked_sub(MAX_PER_RULE).filter(|more| *more > 0) {
            let code = findings[0].code;
            let _ = writeln!(
                text,
                "  {}",
                palette.dim.apply_to(format!(
                    "{}; list all with --json",
                    count(more, &format!("more {code} finding"))
                ))
            );
        }
    }
    if !report.nodes_to_apply.is_empty() {
        let nodes = short_names(&report.nodes_to_apply, MAX_NAME_WORDS);
        let head = palette
            .head
            .apply_to(format!("Run `hostgw apply` on {}:", count(report.nodes_to_apply.len(), "node")));
        let _ = writeln!(text, "{head} {nodes}");
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(printable(&summary(report))));
    text
}

/// The last lines.
pub(super) fn summary(report: &AuditReport) -> String {
    let (errors, warnings) = report.totals();
    let found = match errors + warnings {
        0 => "no findings".to_owned(),
        _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    format!(
        "{}, {}: {found}. {}.",
        count(report.nodes.len(), "node"),
        count(report.snapshots, "snapshot"),
        capitalized(&report.pairs_sentence()),
    )
}

fn capitalized(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn put(text: &mut String, finding: &AuditFinding, palette: &Palette) {
    let style = match finding.severity {
        Severity::Error => &palette.conflict,
        Severity::Warning => &palette.change,
    };
    let head = style.apply_to(format!("{}[{}]:", finding.severity.name(), finding.code));
    let place =
        finding.location.as_ref().map_or_else(String::new, |at| format!(" ({}:{})", at.file, at.line));
    let nodes = nodes_prefix(finding);
    let _ = writeln!(text, "{head} {nodes}{}{place}", finding.message);
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "  {} {remedy}", palette.head.apply_to("help:"));
    }
}

/// The nodes of a finding before its message: `12 nodes (n1..n12): `.
pub(super) fn nodes_prefix(finding: &AuditFinding) -> String {
    match &finding.nodes[..] {
        [] => String::new(),
        [only] => format!("{only}: "),
        several => format!("{} ({}): ", count(several.len(), "node"), short_names(several, MAX_NAME_WORDS)),
    }
}
