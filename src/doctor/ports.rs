//! Examines whether the ports of bridges forward the packets of pods.

use super::{Effect, Examination, TrafficEffects, egress, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::Paths,
    state::Link,
    text::{ShellCommand, Untrusted, all_of, list},
};

/// Reports ports of the pods' bridge, or of an egress interface that is a bridge, that forward no packets.
pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let host = &examination.observed.host;
    let pods = paths.samples().into_iter().filter_map(|path| path.packet.input);
    let mut pods: Vec<Untrusted> = pods.collect();
    pods.dedup();
    let egress = egress(examination).map(|link| &link.name);
    let mut findings = Vec::new();
    for name in pods.iter().chain(egress) {
        let Some(bridge) = host.link(name.as_raw()).filter(|link| link.is_a("bridge")) else { continue };
        let is_for_pods = pods.contains(name);
        // A switch or a redundant link can block ports on purpose.
        if bridge.stp && !is_for_pods {
            continue;
        }
        let used = host
            .links
            .iter()
            .filter(|link| link.master.as_ref() == Some(name) && link.up && link.carrier == Some(true));
        let (blocked, forwarding): (Vec<&Link>, Vec<&Link>) = used.partition(|link| link.not_forwarding);
        if blocked.is_empty() && !(bridge.stp && is_for_pods) {
            continue;
        }
        let is_all = !blocked.is_empty() && forwarding.is_empty();
        let mut found = diagnostic(bridge, &blocked, is_for_pods);
        if is_all && !bridge.stp {
            found = found.as_error();
            effects.on_everything(Effect::Lost);
        }
        findings.push(found);
    }
    findings
}

fn diagnostic(bridge: &Link, blocked: &[&Link], is_for_pods: bool) -> Diagnostic {
    let Link { name, stp, .. } = bridge;
    let names: Vec<&Untrusted> = blocked.iter().map(|link| &link.name).collect();
    let which = match names.as_slice() {
        [port] => format!("port {port} of {name} forwards"),
        ports => format!("ports {} of {name} forward", list(ports, 6)),
    };
    if *stp {
        let off = ShellCommand::new(["ip", "link", "set", name.as_raw(), "type", "bridge", "stp_state", "0"]);
        let now = if names.is_empty() { String::new() } else { format!("; {which} no packets now") };
        return finding(
            Rule::PortsNotForwarding,
            format!("the bridge {name} uses STP: a new pod has no connectivity for about 30 seconds{now}"),
            format!("run `{off}`, and find out what turned it on"),
        );
    }
    let them = if names.len() == 1 { "it" } else { "them" };
    let effect = match is_for_pods {
        true => format!("the pods behind {them} have no connectivity"),
        false => format!("this node cannot reach what is behind {them}"),
    };
    let set = |name: &&Untrusted| {
        format!("`{}`", ShellCommand::new(["bridge", "link", "set", "dev", name.as_raw(), "state", "3"]))
    };
    let commands: Vec<String> = names.iter().take(6).map(set).collect();
    finding(
        Rule::PortsNotForwarding,
        format!("{which} no packets: {effect}"),
        format!("run {}, and find out what changed the state", all_of(&commands)),
    )
}
