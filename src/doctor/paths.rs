//! Examines the paths of pod packets through this node.

use super::{Examination, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, PathFault, Paths, faults},
    text::list,
};

pub(super) fn examine(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let Examination { cluster, index, prepared, observed, .. } = examination;
    // Before the routes are applied, every path is lost, which HG1001 already reports.
    let is_applied = prepared.plan.changes.is_empty();
    if is_applied {
        let (desired, released) = (&prepared.desired.state, &prepared.desired.released);
        let faults = faults(paths, ForwardingModel::of(&observed.state, &observed.host)).into_iter();
        let faults = faults.map(|fault| fault.with_configured_sysctls(desired, released, &observed.state));
        findings.extend(faults.map(|fault| diagnostic(&fault)));
    } else {
        let faults =
            crate::plan::path_faults(cluster, *index, &prepared.desired, &prepared.observed, &prepared.plan);
        findings.extend(faults.iter().map(diagnostic));
    }
    if !paths.missing().is_empty() {
        findings.push(finding(
            Rule::NoPodInterface,
            format!("no interface that is up has an address in {}, and no route leads to a pod", list(paths.missing(), 2)),
            "most CNI plugins create the interface with the first pod; if pods already run here, check the CNI configuration with \
             `hostgw check-cni FILE`",
        ));
    }
    findings
}

/// Returns the finding. Packets on a different path may still arrive, but lost packets are an error.
fn diagnostic(fault: &PathFault) -> Diagnostic {
    let diagnostic = fault.diagnostic();
    if fault.is_detour { diagnostic } else { diagnostic.as_error() }
}
