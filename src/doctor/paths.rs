//! Examines the paths of pod packets through this node.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Examination, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, PathFault, Paths, faults},
    text::{ShellCommand, Untrusted, list},
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
pub(super) fn missing_interface(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let host = &examination.observed.host;
    let is_down = |device: &Untrusted| host.link(device.as_raw()).is_some_and(|link| !link.up);
    let interface_of = |cidr: &IpNet| {
        let mut inside = host.addresses.iter().filter(|local| cidr.contains(&local.address));
        inside.find(|local| is_down(&local.device)).map(|local| &local.device)
    };
    let (mut devices, mut missing) = (BTreeSet::new(), Vec::new());
    for cidr in paths.missing() {
        match interface_of(cidr) {
            Some(device) => {
                devices.insert(device);
            }
            None => missing.push(cidr),
        }
    }
    let mut findings: Vec<Diagnostic> = devices
        .into_iter()
        .map(|device| {
            let up = ShellCommand::new(["ip", "link", "set", device.as_raw(), "up"]);
            let message = format!("the interface {device}, which has an address for pods, is down");
            finding(Rule::NoPodInterface, message, format!("run `{up}`, and find out what brought it down"))
                .as_error()
        })
        .collect();
    if !missing.is_empty() {
        findings.push(finding(
            Rule::NoPodInterface,
            format!("no interface that is up has an address in {}, and no route leads to a pod", list(&missing, 2)),
            "most CNI plugins create the interface with the first pod; if pods already run here, check the CNI configuration with \
             `hostgw check-cni FILE`",
        ));
    }
    findings
}
