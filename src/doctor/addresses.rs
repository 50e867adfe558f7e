//! The addresses of the node that other nodes send packets to.

use std::net::IpAddr;

use super::{Patient, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, NextHopMode},
    state::{AddressFlag, InterfaceAddress},
    text::ShellCommand,
};

pub(super) fn examine(patient: &Patient<'_>) -> Vec<Diagnostic> {
    let (cluster, node) = (patient.cluster, patient.node());
    let mut findings = Vec::new();
    for family in Family::ALL {
        let gateway = node.pod_gateway(family).map(|address| ("pod gateway", address));
        let address = node.addresses.get(family).map(|address| ("address", *address));
        let is_next_hop = |what| match cluster.next_hop {
            NextHopMode::PodGateway => what == "pod gateway",
            NextHopMode::NodeAddress => what == "address",
        };
        for (what, address) in [address, gateway].into_iter().flatten() {
            if let Some(local) = patient.observed.host.owner_of(address) {
                findings.extend(judge(what, local, is_next_hop(what)));
            }
        }
    }
    findings
}

/// Judges an own address, which is the next hop of other nodes if `is_next_hop`.
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
                "find the other machine, then add the address again: `{}`, `{}`",
                renew("del"),
                renew("add")
            ),
        ));
    }
    let fleeting = flags.iter().find(|flag| is_fleeting(**flag)).filter(|_| is_next_hop)?;
    Some(finding(
        Rule::AddressFleeting,
        format!(
            "this node's {what} {address} on {device} is {fleeting}: the kernel will remove it, and other nodes lose their next hop"
        ),
        lasting(local.address),
    ))
}

const fn is_fleeting(flag: AddressFlag) -> bool {
    matches!(flag, AddressFlag::Temporary | AddressFlag::Deprecated)
}

fn lasting(address: IpAddr) -> String {
    let settings = if address.is_ipv6() { ", such as the one that does not change (mngtmpaddr)" } else { "" };
    format!(
        "set the node's address in the configuration to a lasting one{settings}, and apply it on all nodes"
    )
}
