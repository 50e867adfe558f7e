//! Examines the entries of next hops in the neighbor table: static ones, and those that several machines answer.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Effect, Examination, TrafficEffects, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{Direction, Paths},
    state::NeighborEntry,
    text::{ShellCommand, Untrusted, count, list},
};

/// The maximum number of findings of a kind.
const MAX: usize = 20;

/// A next hop.
struct NextHopEntry<'a> {
    entry: &'a NeighborEntry,
    /// The node; `None` for a gateway of the default route.
    node: Option<&'a Untrusted>,
}

impl NextHopEntry<'_> {
    fn text(&self) -> String {
        let NeighborEntry { address, device, .. } = self.entry;
        match self.node {
            Some(node) => format!("{address} on {device} (node {node})"),
            None => format!("{address} on {device} (the gateway of the default route)"),
        }
    }

    fn removal(&self) -> ShellCommand {
        let NeighborEntry { address, device, .. } = self.entry;
        ShellCommand::new(["ip", "neigh", "del", &address.to_string(), "dev", device.as_raw()])
    }

    /// Returns `true` for an entry that neither the kernel nor the control plane of a network updates.
    const fn is_static(&self) -> bool {
        self.entry.permanent && !self.entry.external
    }
}

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let hops = hops(examination, paths);
    let (mut findings, mut unproven) = (Vec::new(), Vec::new());
    for hop in &hops {
        let answers = &hop.entry.answers;
        if answers.len() > 1 {
            findings.push(answered_twice(hop));
        } else if let (true, Some(hardware)) = (hop.is_static(), &hop.entry.mac_address) {
            match answers.first() {
                None if hop.entry.unanswered => {}
                None => unproven.push(hop),
                Some(answer) if answer == hardware => {}
                Some(answer) => {
                    if let Some(node) = hop.node {
                        effects.on_node(node.clone(), Direction::Out, Effect::Lost);
                    }
                    findings.push(wrong(hop, hardware, answer));
                }
            }
        }
    }
    findings.truncate(MAX);
    findings.extend(unproven_entries(&unproven));
    findings
}

/// Returns the next hops that have an entry.
fn hops<'a>(examination: &Examination<'a>, paths: &Paths<'_>) -> Vec<NextHopEntry<'a>> {
    let neighbors = &examination.observed.host.neighbors;
    let entries: HashMap<(IpAddr, &Untrusted), &NeighborEntry> =
        neighbors.iter().map(|entry| ((entry.address, &entry.device), entry)).collect();
    let mut known = HashSet::new();
    let mut hops = Vec::new();
    let mut add = |address: IpAddr, device: &Untrusted, node: Option<&'a Untrusted>| {
        if let Some(entry) = entries.get(&(address, device))
            && known.insert((address, entry.device.clone()))
        {
            hops.push(NextHopEntry { entry, node });
        }
    };
    for (route, node) in examination.prepared.desired.routes_to_nodes() {
        if let (Some(gateway), Some(device)) = (route.next_hop.gateway, &route.next_hop.device) {
            add(gateway, device, Some(&examination.cluster.nodes[node].name));
        }
    }
    for hop in paths.gateways() {
        if let Some(gateway) = hop.gateway {
            add(gateway, &hop.device, None);
        }
    }
    hops
}

fn wrong(hop: &NextHopEntry<'_>, hardware: &Untrusted, answer: &Untrusted) -> Diagnostic {
    finding(
        Rule::StaticNeighbor,
        format!(
            "the static neighbor entry for {} has MAC address {hardware}, but {answer} answers: packets to this next hop are lost",
            hop.text()
        ),
        format!("remove it with `{}`, and find out what added it", hop.removal()),
    )
    .as_error()
}

fn answered_twice(hop: &NextHopEntry<'_>) -> Diagnostic {
    finding(
        Rule::SeveralAnswers,
        format!(
            "{} MAC addresses answer for {}: {}; packets to this next hop may reach the wrong machine",
            hop.entry.answers.len(),
            hop.text(),
            list(&hop.entry.answers, 4)
        ),
        "usually, another machine has the same address: find it, and remove the address there; if one machine with several \
         interfaces in this network has all of these MAC addresses, run `sysctl -w net.ipv4.conf.INTERFACE.arp_ignore=1` there \
         for each other interface",
    )
}

fn unproven_entries(hops: &[&NextHopEntry<'_>]) -> Option<Diagnostic> {
    hops.first()?;
    let texts: Vec<String> = hops.iter().map(|hop| hop.text()).collect();
    let removals: Vec<String> = hops.iter().map(|hop| format!("`{}`", hop.removal())).collect();
    let remove = match removals.as_slice() {
        [only] => format!("remove the entry with {only}"),
        all => format!("remove the entries with {}", list(all, 6)),
    };
    let message = match texts.as_slice() {
        [only] => format!("the neighbor entry of next hop {only} is static"),
        all => {
            format!("the neighbor entries of {} are static: {}", count(all.len(), "next hop"), list(all, 6))
        }
    };
    Some(finding(
        Rule::StaticNeighbor,
        format!(
            "{message}; the kernel does not update static entries, so all packets are lost if the MAC address is wrong"
        ),
        format!("check the MAC addresses with `hostgw doctor --probe`, or {remove}"),
    ))
}
