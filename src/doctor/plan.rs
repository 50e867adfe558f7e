//! Examines whether the node matches the configuration, and what would prevent an apply.

use super::{Examination, conflicts, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    plan::{Conflict, Prepared, check, foreign},
    state::Route,
};

/// `is_known` tells whether other findings are about a foreign route.
pub(super) fn examine(examination: &Examination<'_>, is_known: impl Fn(&Route) -> bool) -> Vec<Diagnostic> {
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
            Conflict::address_remedy(&plan.conflicts).unwrap_or(match plan.conflicts.len() {
                1 => "review it with `hostgw plan`, then remove the foreign object, or take it over with `hostgw apply --adopt`",
                _ => "review them with `hostgw plan`, then remove the foreign objects, or take them over with `hostgw apply --adopt`",
            }),
        ));
    }
    let Prepared { desired, observed, .. } = prepared;
    findings.extend(check::warnings(cluster, *index, desired, observed, is_known));
    findings.extend(foreign::warnings(&prepared.left));
    findings
}
