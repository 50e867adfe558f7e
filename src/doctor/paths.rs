//! Examines the paths of pod packets through this node.

use super::{Examination, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, PathFault, Paths, faults},
    text::list,
};

/// Returns why paths will not work even after the plan is applied.
pub(super) fn faults_after_apply(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<PathFault> {
    let Examination { cluster, index, prepared, observed, .. } = examination;
    // Before the routes are applied, every path is lost, which HG1001 already reports.
    if !prepared.plan.changes.is_empty() {
        return crate::plan::path_faults(
            cluster,
            *index,
            &prepared.desired,
            &prepared.observed,
            &prepared.plan,
        );
    }
    let (desired, released) = (&prepared.desired.state, &prepared.desired.released);
    let faults = faults(paths, ForwardingModel::of(&observed.state, &observed.host)).into_iter();
    faults.map(|fault| fault.with_configured_sysctls(desired, released, &observed.state)).collect()
}

/// Reports pod CIDRs without an interface, whose paths cannot be judged.
pub(super) fn missing_interface(paths: &Paths<'_>) -> Vec<Diagnostic> {
    if paths.missing().is_empty() {
        return Vec::new();
    }
    let message = format!(
        "no interface that is up has an address in {}, and no route leads to a pod",
        list(paths.missing(), 2)
    );
    vec![finding(
        Rule::NoPodInterface,
        message,
        "most CNI plugins create the interface with the first pod; if pods already run here, check the CNI configuration with \
         `hostgw check-cni FILE`",
    )]
}
