//! An audit in Markdown, for an issue, a comment or a job summary.

use std::fmt::Write as _;

use super::{
    report::{AuditFinding, AuditReport},
    text::{MAX_NAME_WORDS, summary},
};
use crate::{
    diagnose::Severity,
    render::{code_span, short_names},
    text::count,
};

/// The number of findings of one rule that are shown.
const MAX_PER_RULE: usize = 10;

/// Renders an audit in Markdown.
#[must_use]
pub fn audit_markdown(report: &AuditReport) -> String {
    let mut text = "### hostgw audit\n\n".to_owned();
    let _ = writeln!(text, "{}\n", summary(report));
    let kinds = [(Severity::Error, "Errors"), (Severity::Warning, "Warnings")];
    for (severity, title) in kinds {
        let findings: Vec<&AuditFinding> =
            report.findings.iter().filter(|found| found.severity == severity).collect();
        if findings.is_empty() {
            continue;
        }
        let _ = writeln!(text, "#### {title}\n");
        for of_rule in findings.chunk_by(|one, other| one.code == other.code) {
            let _ = writeln!(text, "**{}** {}\n", of_rule[0].code, of_rule[0].title);
            for finding in of_rule.iter().take(MAX_PER_RULE) {
                put(&mut text, finding);
            }
            if let Some(more) = of_rule.len().checked_sub(MAX_PER_RULE).filter(|more| *more > 0) {
                let _ = writeln!(text, "- and {more} more; list all with `hostgw audit --json`");
            }
            text.push('\n');
        }
    }
    if !report.nodes_to_apply.is_empty() {
        let nodes = code_span(&short_names(&report.nodes_to_apply, 4 * MAX_NAME_WORDS).into());
        let _ = writeln!(text, "#### Nodes that need an apply ({})\n\n{nodes}", report.nodes_to_apply.len());
    }
    text
}

fn put(text: &mut String, finding: &AuditFinding) {
    let nodes = match &finding.nodes[..] {
        [] => String::new(),
        [only] => format!("{}: ", code_span(only)),
        several => {
            format!(
                "{} ({}): ",
                count(several.len(), "node"),
                code_span(&short_names(several, 2 * MAX_NAME_WORDS).into())
            )
        }
    };
    let _ = writeln!(text, "- {nodes}{}", code_span(&finding.message));
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "  - help: {}", code_span(remedy));
    }
}
