//! The addresses of the node that other nodes send packets to.

use std::net::IpAddr;

use super::{Effect, Examination, TrafficEffects, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{Direction, Paths, interface_key},
    model::{Family, NextHopKind, PodNetwork, Prefixed},
    state::{AddressFlag, InterfaceAddress},
    text::ShellCommand,
};

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let (cluster, node) = (examination.cluster, examination.node());
    let mut findings = Vec::new();
    for network in node.pods.iter() {
        if let Some(missing) = missing_pod_gateway(examination, paths, network) {
            effects.on_all(network.family(), Direction::In, Effect::Lost);
            findings.push(missing);
        }
    }
    for family in Family::ALL {
        let gateways = node.pod_gateways_of(family).map(|gateway| ("pod gateway", gateway));
        let address = node.addresses.get(family).map(|address| ("address", *address));
        let is_next_hop = |what| match cluster.next_hop_of(node, family) {
            NextHopKind::PodGateway => what == "pod gateway",
            // A router uses the node's address as its next hop.
            NextHopKind::NodeAddress | NextHopKind::Router(_) => what == "address",
        };
        for (what, address) in address.into_iter().chain(gateways) {
            if let Some(local) = examination.observed.host.owner_of(address) {
                let found = judge(what, local, is_next_hop(what));
                if is_next_hop(what) && found.as_ref().is_some_and(|it| it.rule == Rule::AddressDuplicate) {
                    effects.on_all(family, Direction::In, Effect::Lost);
                }
                findings.extend(found);
            }
        }
    }
    findings
}

/// Reports a pod gateway that no interface has, although other nodes use it as their next hop. Without a pod interface,
/// HG1003 is reported instead.
fn missing_pod_gateway(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    network: &PodNetwork,
) -> Option<Diagnostic> {
    let Examination { cluster, observed, .. } = examination;
    let node = examination.node();
    let (cidr, family, gateway) = (network.prefix(), network.family(), node.gateway_of(network));
    let answers_for_others = || {
        // IPv6 nodes only answer for single addresses (`ip neigh add proxy`).
        if family == Family::V6 {
            return false;
        }
        let name = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
        ["all", name].into_iter().any(|name| {
            let key = interface_key(Family::V4, name, "proxy_arp");
            key.and_then(|key| observed.state.sysctls.get(&key)).is_some_and(|value| *value != "0")
        })
    };
    let is_needed = cluster.next_hop_of(node, family) == NextHopKind::PodGateway && cluster.nodes.len() > 1;
    if !is_needed
        || observed.host.owner_of(gateway).is_some()
        || paths.missing().contains(&cidr)
        || answers_for_others()
    {
        return None;
    }
    let other = observed.host.addresses.iter().find(|local| cidr.contains(&local.address));
    let (instead, remedy) = match other {
        Some(InterfaceAddress { address, device, .. }) => (
            format!(" ({device} has {address})"),
            format!(
                "if {address} is the pod gateway, set `gateway: {address}` for this node; otherwise, correct the CNI configuration"
            ),
        ),
        None => (String::new(), "set nextHop: node-address".to_owned()),
    };
    Some(finding(
        Rule::NoPodGateway,
        format!(
            "no interface has this node's pod gateway {gateway}{instead}, so other nodes cannot reach this node's pods"
        ),
        remedy,
    ))
}

/// Examines an address of this node. If `is_next_hop`, other nodes use it as their next hop.
fn judge(what: &str, local: &InterfaceAddress, is_next_hop: bool) -> Option<Diagnostic> {
    let InterfaceAddress { address, device, flags, .. } = local;
    if flags.contains(&AddressFlag::DadFailed) {
        let prefix = format!("{address}/{}", local.prefix.prefix_len());
        let renew = |verb| ShellCommand::new(["ip", "address", verb, &prefix, "dev", device.as_raw()]);
        return Some(finding(
            Rule::AddressDuplicate,
            format!(
                "the kernel does not use this node's {what} {address} on {device}: another machine has it"
            ),
            format!(
                "find the other machine, then remove and re-add the address: `{} && {}`",
                renew("del"),
                renew("add")
            ),
        ));
    }
    if flags.contains(&AddressFlag::Tentative) {
        return Some(finding(
            Rule::AddressDuplicate,
            format!(
                "the kernel does not use this node's {what} {address} on {device} yet: duplicate address detection has not finished"
            ),
            "wait a few seconds, and run this command again; on an interface without carrier, the detection cannot start"
                .to_owned(),
        ));
    }
    let fleeting = flags.iter().find(|flag| is_fleeting(**flag)).filter(|_| is_next_hop)?;
    Some(finding(
        Rule::AddressFleeting,
        format!(
            "this node's {what} {address} on {device} is {fleeting}: the kernel will remove it, and other nodes will lose their next hop"
        ),
        lasting(local.address),
    ))
}

const fn is_fleeting(flag: AddressFlag) -> bool {
    matches!(flag, AddressFlag::Temporary | AddressFlag::Deprecated)
}

fn lasting(address: IpAddr) -> String {
    let settings = if address.is_ipv6() { ", such as the one marked mngtmpaddr" } else { "" };
    format!(
        "set the node's address in the configuration to a stable one{settings}, and run `hostgw apply` on every node"
    )
}
