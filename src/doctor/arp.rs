//! Examines whether the node resolves its next hops and answers other nodes (ARP and neighbor discovery).

use std::net::{IpAddr, Ipv6Addr};

use super::{
    Effect, Examination, TrafficEffects, conditions::spot_text, egress, finding, samples, set_sysctls,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Filtering, ForwardingModel, Packet, Passage, Paths, SAMPLE_PORT, Spot,
        Transport, Verdict, Way, interface_key,
    },
    model::{Cluster, Family, NextHopKind, Node, SysctlKey, solicited_node},
    state::MatchedChains,
    text::{ShellCommand, Untrusted},
};

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let no_arp = no_arp(examination);
    if no_arp.is_some() {
        effects.on_everything(Effect::Lost);
    }
    let ignored: Vec<Diagnostic> =
        [arp_ignore(examination), arp_filter(examination, model)].into_iter().flatten().collect();
    if !ignored.is_empty() {
        effects.on_all(Family::V4, Direction::In, Effect::Lost);
    }
    let blocked = discovery(examination, paths, model, effects);
    no_arp.into_iter().chain(ignored).chain(blocked).collect()
}

/// Reports an Ethernet interface without ARP and neighbor discovery. Some virtual interfaces have the flag `NOARP` and resolve
/// addresses differently.
fn no_arp(examination: &Examination<'_>) -> Option<Diagnostic> {
    let is_served = |kind: &Untrusted| ["ipvlan", "dummy", "vrf"].iter().any(|served| kind == *served);
    let link =
        egress(examination).filter(|link| link.no_arp && !link.kind.as_ref().is_some_and(is_served))?;
    Some(finding(
        Rule::ArpDisabled,
        format!(
            "ARP is off on egress interface {}: this node cannot resolve next hops and does not answer other nodes",
            link.name
        ),
        format!("run `{}`", ShellCommand::new(["ip", "link", "set", link.name.as_raw(), "arp", "on"])),
    ))
}

/// Returns the addresses of a node that other nodes or routers ask for with ARP or neighbor discovery.
fn asked_for(cluster: &Cluster, node: &Node, family: Family) -> Vec<IpAddr> {
    match cluster.next_hop_of(node, family) {
        NextHopKind::PodGateway => node.pod_gateways_of(family).collect(),
        NextHopKind::NodeAddress | NextHopKind::Router(_) => {
            node.addresses.get(family).copied().into_iter().collect()
        }
    }
}

/// Reports an `arp_filter` that prevents answers: the kernel answers only if its route from the address to the other node uses
/// the same interface (`arp_filter`, net/ipv4/arp.c).
fn arp_filter(examination: &Examination<'_>, model: &ForwardingModel<'_>) -> Option<Diagnostic> {
    let Examination { cluster, index, observed, .. } = examination;
    let egress = egress(examination)?;
    let sysctls = &observed.state.sysctls;
    let keys = ["all", egress.name.as_raw()]
        .into_iter()
        .filter_map(|name| interface_key(Family::V4, name, "arp_filter"));
    let set: Vec<SysctlKey> =
        keys.filter(|key| sysctls.get(key).is_some_and(|value| *value != "0")).collect();
    let key = set.first()?;
    let node = examination.node();
    let what = match cluster.next_hop_of(node, Family::V4) {
        NextHopKind::PodGateway => "pod gateway",
        NextHopKind::NodeAddress | NextHopKind::Router(_) => "address",
    };
    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| at != index);
    let other = others.filter_map(|(_, node)| node.addresses.get(Family::V4)).next()?;
    let (asked, device) = asked_for(cluster, node, Family::V4).into_iter().find_map(|asked| {
        let Verdict::Forwarded { hops, .. } = model.trace_own(asked, *other).verdict else { return None };
        let mut devices = hops.into_iter().map(|hop| hop.device);
        Some((asked, devices.find(|device| *device != egress.name)?))
    })?;
    let settings: Vec<(SysctlKey, String)> = set.iter().map(|key| (key.clone(), "0".to_owned())).collect();
    Some(finding(
        Rule::ArpIgnored,
        format!(
            "{key} is set, and the route from this node's {what} {asked} to other nodes leads through {device}: the node ignores \
             ARP requests for it on {}, so other nodes cannot send packets to its pods",
            egress.name
        ),
        format!(
            "{}, or fix the route that `ip route get {other} from {asked}` shows",
            set_sysctls(examination, &settings)
        ),
    ))
}

/// Reports an `arp_ignore` that prevents answers: with pod gateways as next hops, a node must answer ARP requests for an address
/// of another interface.
fn arp_ignore(examination: &Examination<'_>) -> Option<Diagnostic> {
    let node = examination.node();
    let gateways: Vec<IpAddr> = node.pod_gateways_of(Family::V4).collect();
    let is_pod_gateway =
        examination.cluster.next_hop_of(examination.node(), Family::V4) == NextHopKind::PodGateway;
    let egress = egress(examination)?;
    let value = |name: &str| {
        let key = interface_key(Family::V4, name, "arp_ignore")?;
        let value: u32 = examination.observed.state.sysctls.get(&key)?.as_raw().parse().ok()?;
        Some((value, key))
    };
    let values: Vec<(u32, SysctlKey)> = ["all", egress.name.as_raw()].into_iter().filter_map(value).collect();
    let is_on_egress = |gateway: &IpAddr| {
        examination.observed.host.owner_of(*gateway).is_some_and(|local| local.device == egress.name)
    };
    let elsewhere = gateways.iter().find(|gateway| !is_on_egress(gateway));
    let gateway = elsewhere.or_else(|| gateways.first())?;
    // The greater value applies. 1 and 2 answer only for addresses of the interface itself, and 8 never does.
    let (value, key) = values.iter().max_by_key(|(value, _)| *value)?;
    let unanswered = *value == 8 || ([1, 2].contains(value) && is_pod_gateway && elsewhere.is_some());
    let asked = match is_pod_gateway {
        true => format!("its pod gateway {gateway}"),
        false => "its own address".to_owned(),
    };
    unanswered.then(|| {
        let nonzero = values.iter().filter(|(value, _)| *value > 0);
        let settings: Vec<(SysctlKey, String)> =
            nonzero.map(|(_, key)| (key.clone(), "0".to_owned())).collect();
        let disable = set_sysctls(examination, &settings);
        finding(
            Rule::ArpIgnored,
            format!(
                "{key} is {value}: this node does not answer ARP requests for {asked} on {}, so other nodes cannot send packets to its pods",
                egress.name
            ),
            match is_pod_gateway && *value != 8 {
                true => format!("use nextHop: node-address, or {disable}"),
                false => disable,
            },
        )
    })
}

/// A packet of neighbor discovery.
struct Discovery {
    transport: Transport,
    way: Way,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    /// What happens without it.
    effect: &'static str,
    /// The direction of the packets between pods that do not pass without it.
    prevented: Direction,
}

/// What happens without packets of neighbor discovery, and the direction of the packets that then do not pass.
type DiscoveryEffect = (&'static str, Direction);

/// Returns the packets with which `other` resolves `own`, an address of this node, and this node resolves `other`.
fn discoveries(own: IpAddr, other: IpAddr, [asked, asking]: [DiscoveryEffect; 2]) -> Vec<Discovery> {
    let (IpAddr::V6(own), IpAddr::V6(other)) = (own, other) else { return Vec::new() };
    let packet = |transport, way, source, destination, (effect, prevented)| Discovery {
        transport,
        way,
        source,
        destination,
        effect,
        prevented,
    };
    let (asks, answers) = (Transport::Solicitation, Transport::Advertisement);
    vec![
        packet(asks, Way::In, other, solicited_node(own), asked),
        packet(answers, Way::Out, own, other, asked),
        packet(asks, Way::Out, own, solicited_node(other), asking),
        packet(answers, Way::In, other, own, asking),
    ]
}

/// Reports firewall rules that drop neighbor discovery, which IPv6 uses to resolve next hops and pods.
fn discovery(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let Some(firewall) = &examination.observed.host.firewall else { return Vec::new() };
    let chains = ChainIndex::new(firewall);
    let on_egress = egress(examination).map(|link| (link.name.clone(), with_nodes(examination)));
    let mut known: Vec<Spot<'_>> = Vec::new();
    let mut findings = Vec::new();
    for (device, packets) in on_egress.into_iter().chain(with_pods(examination, paths)) {
        let dropped = packets.into_iter().filter_map(|discovery| {
            let Discovery { transport, way, source, destination, .. } = discovery;
            let packet =
                Packet { source: source.into(), destination: destination.into(), input: device.clone() };
            let passage = Passage {
                packet: &packet,
                transport,
                port: SAMPLE_PORT,
                way,
                output: &device,
                is_reply: false,
            };
            match chains.follow(model, &passage, MatchedChains::Others).filter {
                Filtering::Dropped(spot) => Some((spot, discovery)),
                _ => None,
            }
        });
        let dropped: Vec<(Spot<'_>, Discovery)> = dropped.collect();
        for (_, discovery) in &dropped {
            effects.on_all(Family::V6, discovery.prevented, Effect::Lost);
        }
        let Some((spot, Discovery { transport, way, effect, .. })) = dropped.into_iter().next() else {
            continue;
        };
        if known.contains(&spot) {
            continue;
        }
        known.push(spot);
        let direction = if way == Way::In { "to" } else { "from" };
        findings.push(finding(
            Rule::DiscoveryBlocked,
            format!(
                "{} drops {}s {direction} this node on {device}, {effect}",
                spot_text(&spot),
                transport.name()
            ),
            "accept ICMPv6 in the program that manages this firewall, at least the types 1 to 4 (errors, such as packet \
             too big) and 133 to 136 (neighbor discovery)",
        ));
    }
    findings
}

/// Returns the packets between this node and another one.
fn with_nodes(examination: &Examination<'_>) -> Vec<Discovery> {
    let Examination { cluster, index, .. } = examination;
    let mut others = cluster.nodes.iter().enumerate().filter(|(at, _)| at != index);
    let Some(other) = others.find_map(|(_, node)| node.addresses.get(Family::V6)).copied() else {
        return Vec::new();
    };
    let effects = [
        ("so it does not answer other nodes over IPv6", Direction::In),
        ("so it cannot resolve IPv6 next hops", Direction::Out),
    ];
    let own = asked_for(cluster, examination.node(), Family::V6).into_iter();
    own.flat_map(|own| discoveries(own, other, effects)).collect()
}

/// Returns the packets between this node and one of its pods, on the pod interface.
fn with_pods(examination: &Examination<'_>, paths: &Paths<'_>) -> Option<(Untrusted, Vec<Discovery>)> {
    let mut samples = samples(paths).into_iter();
    let path = samples.find(|path| path.direction == Direction::Out && path.packet.source.is_ipv6())?;
    let Packet { source: pod, input, .. } = path.packet;
    let mut local = examination.observed.host.addresses.iter().filter(|local| local.device == input);
    let own = local.find(|local| local.address.is_ipv6())?.address;
    let effects = [
        ("so its pods cannot send packets over IPv6", Direction::Out),
        ("so it cannot deliver packets to its pods over IPv6", Direction::In),
    ];
    Some((input, discoveries(own, pod, effects)))
}
