//! Which way the packets of pods go.

use super::{Patient, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, PathFault, Paths, faults},
    text::list,
};

pub(super) fn examine(patient: &Patient<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    // Without the routes, every path is lost, which the plan says already.
    let is_applied = patient.prepared.plan.changes.is_empty();
    if is_applied {
        let model = ForwardingModel::of(&patient.observed.state, &patient.observed.host);
        findings.extend(faults(paths, model).iter().map(diagnostic));
    } else {
        let Patient { cluster, index, prepared, .. } = patient;
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

/// Packets that take another way may still arrive; lost ones are an error of the node.
fn diagnostic(fault: &PathFault) -> Diagnostic {
    let diagnostic = fault.diagnostic();
    if fault.is_detour { diagnostic } else { diagnostic.as_error() }
}
