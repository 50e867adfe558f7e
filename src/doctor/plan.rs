//! Examines whether the node matches the configuration, and what would prevent an apply.

use super::{Examination, conflicts, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    plan::{check, foreign},
};

pub(super) fn examine(examination: &Examination<'_>) -> Vec<Diagnostic> {
    let Examination { cluster, index, prepared, observed, .. } = examination;
    let mut findings = check(cluster, *index, &prepared.desired, observed);
    let plan = &prepared.plan;
    if !plan.changes.is_empty() {
        findings.push(finding(
            Rule::NotApplied,
            format!("this node does not match the configuration: {}", plan.totals()),
            "review the changes with `hostgw plan`, then run `hostgw apply`",
        ));
    }
    if !plan.conflicts.is_empty() {
        findings.push(finding(
            Rule::InConflict,
            conflicts(plan.conflicts.len()),
            "review them with `hostgw plan`, then remove the foreign objects, or take them over with `hostgw apply --adopt`",
        ));
    }
    findings.extend(check::warnings(cluster, *index, &prepared.desired, &prepared.observed));
    findings.extend(foreign::warnings(&prepared.left));
    findings
}
