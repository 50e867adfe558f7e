//! Whether the node finds its next hops and answers other nodes: ARP and neighbor discovery.

use super::{Patient, egress, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, Verdict, interface_key},
    model::{Family, NextHopKind, SysctlKey},
    text::{ShellCommand, Untrusted},
};

pub(super) fn examine(patient: &Patient<'_>, model: &ForwardingModel<'_>) -> Vec<Diagnostic> {
    [no_arp(patient), arp_ignore(patient), arp_filter(patient, model)].into_iter().flatten().collect()
}

/// Packets with an Ethernet address need ARP or neighbor discovery. Some virtual interfaces have the flag and answer in
/// another way.
fn no_arp(patient: &Patient<'_>) -> Option<Diagnostic> {
    let is_served = |kind: &Untrusted| ["ipvlan", "dummy", "vrf"].iter().any(|served| kind == *served);
    let link = egress(patient).filter(|link| link.no_arp && !link.kind.as_ref().is_some_and(is_served))?;
    Some(finding(
        Rule::ArpDisabled,
        format!(
            "ARP is off on egress interface {}: this node neither finds next hops nor answers other nodes",
            link.name
        ),
        format!("run `{}`", ShellCommand::new(["ip", "link", "set", link.name.as_raw(), "arp", "on"])),
    ))
}

/// With `arp_filter`, the kernel answers only if it would send packets from the address to the other node out of the same
/// interface (`arp_filter`, net/ipv4/arp.c).
fn arp_filter(patient: &Patient<'_>, model: &ForwardingModel<'_>) -> Option<Diagnostic> {
    let Patient { cluster, index, observed, .. } = patient;
    let egress = egress(patient)?;
    let sysctls = &observed.state.sysctls;
    let keys = ["all", egress.name.as_raw()]
        .into_iter()
        .filter_map(|name| interface_key(Family::V4, name, "arp_filter"));
    let set: Vec<SysctlKey> =
        keys.filter(|key| sysctls.get(key).is_some_and(|value| *value != "0")).collect();
    let key = set.first()?;
    let node = patient.node();
    let (asked, what) = match cluster.next_hop_of(node, Family::V4) {
        NextHopKind::PodGateway => (node.pod_gateway(Family::V4)?, "pod gateway"),
        NextHopKind::NodeAddress | NextHopKind::Router(_) => (*node.addresses.get(Family::V4)?, "address"),
    };
    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| at != index);
    let other = others.filter_map(|(_, node)| node.addresses.get(Family::V4)).next()?;
    let trace = model.trace_own(asked, *other);
    let Verdict::Forwarded { hops, .. } = &trace.verdict else { return None };
    let device = hops.iter().map(|hop| &hop.device).find(|device| **device != egress.name)?;
    let settings: Vec<String> = set.iter().map(|key| format!("{key}=0")).collect();
    let words: Vec<&str> = ["sysctl", "-w"].into_iter().chain(settings.iter().map(String::as_str)).collect();
    Some(finding(
        Rule::ArpIgnored,
        format!(
            "{key} is set, and packets from this node's {what} {asked} to other nodes leave through {device}: this node does not \
             answer ARP requests for it on {}, so other nodes cannot send packets to its pods",
            egress.name
        ),
        format!("fix the route, or run `{}`", ShellCommand::new(words)),
    ))
}

/// With pod gateways as next hops, a node must answer ARP requests for an address of another interface.
fn arp_ignore(patient: &Patient<'_>) -> Option<Diagnostic> {
    let gateway = patient.node().pod_gateway(Family::V4)?;
    let is_pod_gateway = patient.cluster.next_hop_of(patient.node(), Family::V4) == NextHopKind::PodGateway;
    let egress = egress(patient)?;
    let value = |name: &str| {
        let key = interface_key(Family::V4, name, "arp_ignore")?;
        let value: u32 = patient.observed.state.sysctls.get(&key)?.as_raw().parse().ok()?;
        Some((value, key))
    };
    let values: Vec<(u32, SysctlKey)> = ["all", egress.name.as_raw()].into_iter().filter_map(value).collect();
    let on_egress = patient.observed.host.owner_of(gateway).is_some_and(|local| local.device == egress.name);
    // The greater value applies. 1 and 2 answer only for addresses of the interface itself, and 8 never does.
    let (value, key) = values.iter().max_by_key(|(value, _)| *value)?;
    let is_silent = *value == 8 || ([1, 2].contains(value) && is_pod_gateway && !on_egress);
    let asked = match is_pod_gateway {
        true => format!("its pod gateway {gateway}"),
        false => "its own address".to_owned(),
    };
    is_silent.then(|| {
        let settings = values.iter().filter(|(value, _)| *value > 0).map(|(_, key)| format!("{key}=0"));
        let words: Vec<String> = ["sysctl", "-w"].map(str::to_owned).into_iter().chain(settings).collect();
        let command = ShellCommand::new(words.iter().map(String::as_str));
        finding(
            Rule::ArpIgnored,
            format!(
                "{key} is {value}: this node does not answer ARP requests for {asked} on {}, so other nodes cannot send packets to its pods",
                egress.name
            ),
            match is_pod_gateway && *value != 8 {
                true => format!("use nextHop: node-address, or run `{command}`"),
                false => format!("run `{command}`"),
            },
        )
    })
}
