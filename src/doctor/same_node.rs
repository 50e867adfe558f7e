//! Examines what keeps pods of this node from each other.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Examination,
    conditions::spot_text,
    finding,
    remedy::{accept, allow_between_own, is_open, remove},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Distinctions, Filtering, ForwardingModel, Packet, Passage, Paths, SAMPLE_PORT,
        Spot, Transport, Way,
    },
    model::{Family, SysctlKey, address_at, address_number},
    state::{Link, MatchedChains, Route},
    text::{ShellCommand, Untrusted, list},
};

/// Reports rules that drop packets between pods of this node. The rules in `known` are already reported.
pub(super) fn filtered<'a>(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    distinctions: &Distinctions,
    model: &ForwardingModel<'_>,
    known: &[Spot<'a>],
) -> Vec<Diagnostic> {
    let mut known = known.to_vec();
    let mut findings = Vec::new();
    for pair in pairs(examination, paths, distinctions) {
        let both = [false, true].into_iter();
        let passages = both.flat_map(|is_reply| Transport::ALL.map(|transport| (is_reply, transport)));
        for (is_reply, transport) in passages.filter(|(_, transport)| *transport != Transport::Icmp) {
            let passage = Passage {
                packet: &pair.packet,
                transport,
                port: SAMPLE_PORT,
                way: Way::Through,
                output: &pair.output,
                is_reply,
            };
            let Filtering::Dropped(spot) = chains.follow(model, &passage, MatchedChains::Others).filter
            else {
                continue;
            };
            if known.contains(&spot) {
                continue;
            }
            known.push(spot);
            let because = pair.because.as_ref().map_or_else(String::new, |because| {
                format!("; they pass the firewall, although they are only bridged, because {because}")
            });
            let remedy = match is_open(&spot) {
                true => {
                    let command = allow_between_own(&spot, &pair.packet, &pair.output, pair.pods);
                    accept(command.as_slice())
                }
                false => remove(&spot, "traffic between pods"),
            };
            let message = format!("{} drops packets between pods of this node{because}", spot_text(&spot));
            findings.push(finding(Rule::ForwardBlocked, message, remedy));
        }
    }
    findings
}

/// A packet between two pods of this node.
struct Pair {
    packet: Packet,
    output: Untrusted,
    /// The pod CIDR of both pods.
    pods: IpNet,
    /// Why a packet that is bridged passes the firewall.
    because: Option<String>,
}

/// Returns a packet of each family between two pods of this node, if it passes the firewall.
fn pairs(examination: &Examination<'_>, paths: &Paths<'_>, distinctions: &Distinctions) -> Vec<Pair> {
    let host = &examination.observed.host;
    let mut pairs = Vec::new();
    for path in paths.samples().into_iter().filter(|path| path.direction == Direction::Out) {
        let Packet { source, input: Some(input), .. } = path.packet else { continue };
        let Some(link) = host.link(input.as_raw()) else { continue };
        let is_gateway =
            host.addresses.iter().any(|local| local.device == input && path.own.contains(&local.address));
        if link.is_a("bridge") && is_gateway {
            let Some(because) = passes_firewall(examination, link, Family::from(source)) else { continue };
            let Some((source, destination)) = two_pods(distinctions, path.own, source) else { continue };
            let packet = Packet { source, destination, input: Some(input.clone()) };
            pairs.push(Pair { packet, output: input, pods: path.own, because: Some(because) });
            continue;
        }
        // Each pod has an interface of its own.
        let is_other = |route: &&Route| {
            let is_single = route.destination.prefix_len() == route.destination.max_prefix_len();
            let device = route.next_hop.device.as_ref();
            is_single
                && path.own.contains(&route.destination)
                && !route.kind.is_local()
                && route.next_hop.gateway.is_none()
                && device.is_some_and(|device| *device != input)
        };
        let other = host.foreign.iter().chain(&host.others).find(is_other);
        if let Some((destination, output)) =
            other.and_then(|route| Some((route.destination.addr(), route.next_hop.device.clone()?)))
        {
            pairs.push(Pair {
                packet: Packet { source, destination, input: Some(input) },
                output,
                pods: path.own,
                because: None,
            });
        }
    }
    pairs
}

/// Returns why packets that a bridge forwards pass the firewall, if they do.
fn passes_firewall(examination: &Examination<'_>, bridge: &Link, family: Family) -> Option<String> {
    let (sysctl, option) = match family {
        Family::V4 => ("bridge-nf-call-iptables", "nf_call_iptables"),
        Family::V6 => ("bridge-nf-call-ip6tables", "nf_call_ip6tables"),
    };
    let key = SysctlKey::from_parts(["net", "bridge", sysctl]).ok()?;
    // Without the module br_netfilter, there is no sysctl, and the option has no effect.
    let value = examination.observed.state.sysctls.get(&key)?;
    match *value == "0" {
        false => Some(format!("{key} is {value}")),
        true => bridge.filters.contains(&family).then(|| format!("{option} is set on {}", bridge.name)),
    }
}

/// Returns two addresses in a pod CIDR that represent most of its pods.
fn two_pods(distinctions: &Distinctions, cidr: IpNet, usual: IpAddr) -> Option<(IpAddr, IpAddr)> {
    /// The number of neighboring addresses to try.
    const TRIES: u128 = 32;
    let region = distinctions.regions(cidr).into_iter().next()?;
    let one = distinctions.sample(&region, usual)?;
    let next = (1..TRIES).filter_map(|offset| address_at(Family::from(one), address_number(one) + offset));
    let other = next
        .filter(|address| region.contains(*address))
        .find(|address| distinctions.sample(&region, *address) == Some(*address))?;
    Some((one, other))
}

/// Reports isolated ports of the pods' bridge: it forwards no packets between them.
pub(super) fn isolated(examination: &Examination<'_>, paths: &Paths<'_>) -> Option<Diagnostic> {
    let links = &examination.observed.host.links;
    let bridges: Vec<Untrusted> = paths.samples().into_iter().filter_map(|path| path.packet.input).collect();
    let is_port =
        |link: &&Link| link.isolated && link.master.as_ref().is_some_and(|master| bridges.contains(master));
    let ports: Vec<&Link> = links.iter().filter(is_port).collect();
    let master = ports.first()?.master.as_ref()?;
    let same: Vec<&Untrusted> =
        ports.iter().filter(|port| port.master.as_ref() == Some(master)).map(|port| &port.name).collect();
    (same.len() > 1).then(|| {
        let off = |name: &Untrusted| {
            format!(
                "`{}`",
                ShellCommand::new(["bridge", "link", "set", "dev", name.as_raw(), "isolated", "off"])
            )
        };
        let commands: Vec<String> = same.iter().map(|name| off(name)).collect();
        finding(
            Rule::PodsIsolated,
            format!(
                "ports {} of {master} are isolated: the pods behind them cannot reach each other",
                list(&same, 4)
            ),
            format!(
                "if this is not intended, set portIsolation: false in the CNI configuration, and run {}",
                list(&commands, 4)
            ),
        )
    })
}
