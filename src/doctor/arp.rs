//! Examines whether the node resolves its next hops and answers other nodes and its pods (ARP and neighbor discovery).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use super::{
    Effect, Examination, TrafficEffects, asked_for,
    conditions::spot_text,
    egress, finding, outer_carriers,
    reception::{Call, calls},
    set_sysctls,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Filtering, ForwardingModel, Packet, Passage, Paths, SAMPLE_PORT, Spot,
        Transport, Verdict, Way, interface_key,
    },
    model::{Family, NextHopKind, PodNetwork, Prefixed, SysctlKey, solicited_node},
    state::{Link, MatchedChains},
    text::{ShellCommand, Untrusted},
};

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let mut no_arp = no_arp(examination, paths);
    if !no_arp.is_empty() {
        effects.on_everything(Effect::Lost);
    }
    no_arp.extend(no_arp_outside(examination, paths));
    let mut ignored: Vec<Diagnostic> = Vec::new();
    for call in calls(examination, paths, Family::V4) {
        let found = arp_ignore(examination, &call).or_else(|| arp_filter(examination, model, &call));
        let Some(found) = found else { continue };
        effects.on_all(Family::V4, call.direction, Effect::Lost);
        // The cause and the remedy can be the same for nodes and for pods.
        if !ignored.iter().any(|known| known.remedy == found.remedy) {
            ignored.push(found);
        }
    }
    let blocked = discovery(examination, paths, model, effects);
    no_arp.into_iter().chain(ignored).chain(blocked).collect()
}

/// Returns `true` for an Ethernet interface without ARP and neighbor discovery. Some virtual interfaces have the flag `NOARP` and
/// resolve addresses differently.
fn is_off(link: &Link) -> bool {
    link.no_arp && !["ipvlan", "dummy", "vrf"].iter().any(|served| link.is_a(served))
}

fn arp_disabled(link: &Link, message: String) -> Diagnostic {
    let on = ShellCommand::new(["ip", "link", "set", link.name.as_raw(), "arp", "on"]);
    finding(Rule::ArpDisabled, message, format!("run `{on}`"))
}

/// Reports other interfaces to gateways of the default route without ARP and neighbor discovery.
fn no_arp_outside(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let mut devices: Vec<Untrusted> =
        paths.gateways().filter(|hop| hop.gateway.is_some()).map(|hop| hop.device).collect();
    devices.dedup();
    let links = outer_carriers(examination, paths).into_iter();
    let off = links.filter(|link| is_off(link) && devices.contains(&link.name));
    let diagnostic = |link: &Link| {
        let effect = "this node cannot resolve the gateway of the default route";
        arp_disabled(link, format!("ARP is off on {}: {effect}", link.name))
    };
    off.map(diagnostic).collect()
}

/// Reports interfaces that carry packets between pods without ARP and neighbor discovery.
fn no_arp(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let is_off = |link: &&Link| is_off(link);
    let on_egress = egress(examination).filter(is_off).map(|link| {
        let effect = "this node cannot resolve next hops and does not answer other nodes";
        (link, format!("ARP is off on egress interface {}: {effect}", link.name))
    });
    let on_pods = pod_links(examination, paths).into_iter().filter(is_off).map(|link| {
        let effect = "this node cannot deliver packets to its pods and does not answer them";
        (link, format!("ARP is off on {}, which leads to pods: {effect}", link.name))
    });
    on_egress.into_iter().chain(on_pods).map(|(link, message)| arp_disabled(link, message)).collect()
}

/// Returns the interfaces to this node's pods: the bridge, or the interfaces that have routes to single pods.
fn pod_links<'a>(examination: &Examination<'a>, paths: &Paths<'_>) -> Vec<&'a Link> {
    let host = &examination.observed.host;
    let pods = &examination.node().pods;
    let mut names: BTreeSet<Untrusted> = paths
        .samples()
        .into_iter()
        .filter(|path| path.direction == Direction::Out)
        .filter_map(|path| path.packet.input)
        .collect();
    let to_pods = host.foreign.iter().chain(&host.others).filter(|route| {
        let is_whole = |network: &PodNetwork| network.prefix() == route.destination;
        !route.kind.is_local()
            && route.next_hop.gateway.is_none()
            && pods.containing(route.destination.addr()).is_some()
            && !pods.iter().any(is_whole)
    });
    names.extend(to_pods.filter_map(|route| route.next_hop.device.clone()));
    names.iter().filter_map(|name| host.link(name.as_raw())).collect()
}

/// Returns what happens without an answer.
const fn effect(call: &Call) -> &'static str {
    match call.direction {
        Direction::In => "so other nodes cannot send packets to its pods",
        Direction::Out => "so its pods cannot send packets to other nodes",
    }
}

/// Returns the values of a sysctl, for all interfaces and for one, and their keys.
fn values(examination: &Examination<'_>, device: &Untrusted, name: &str) -> Vec<(u32, SysctlKey)> {
    let value = |device: &str| {
        let key = interface_key(Family::V4, device, name)?;
        let value: u32 = examination.observed.state.sysctls.get(&key)?.as_raw().parse().ok()?;
        Some((value, key))
    };
    ["all", device.as_raw()].into_iter().filter_map(value).collect()
}

/// Returns the settings that disable a sysctl.
fn disabled(values: &[(u32, SysctlKey)]) -> Vec<(SysctlKey, String)> {
    let set = values.iter().filter(|(value, _)| *value > 0);
    set.map(|(_, key)| (key.clone(), "0".to_owned())).collect()
}

/// Reports an `arp_filter` that prevents an answer: the kernel answers only if its route from the address to the other end uses
/// the same interface (`arp_filter`, net/ipv4/arp.c).
fn arp_filter(examination: &Examination<'_>, model: &ForwardingModel<'_>, call: &Call) -> Option<Diagnostic> {
    let Call { device, address, sender, senders, direction } = call;
    let values = values(examination, device, "arp_filter");
    let (_, key) = values.iter().find(|(value, _)| *value > 0)?;
    let Verdict::Forwarded { hops, .. } = model.trace_own(*address, *sender).verdict else { return None };
    let other = hops.into_iter().map(|hop| hop.device).find(|hop| hop != device)?;
    let what = match (direction, has_pod_gateway_mode(examination)) {
        (Direction::In, true) => "this node's pod gateway",
        (Direction::In, false) => "this node's address",
        (Direction::Out, _) => "the pods' gateway",
    };
    Some(finding(
        Rule::ArpIgnored,
        format!(
            "{key} is set, and the route from {what} {address} to {senders} leads through {other}: the node ignores ARP requests for \
             it on {device}, {}",
            effect(call)
        ),
        format!(
            "{}, or fix the route that `ip route get {sender} from {address}` shows",
            set_sysctls(examination, &disabled(&values))
        ),
    ))
}

/// Returns `true` if other nodes use this node's pod gateways as their next hops.
fn has_pod_gateway_mode(examination: &Examination<'_>) -> bool {
    examination.cluster.next_hop_of(examination.node(), Family::V4) == NextHopKind::PodGateway
}

/// Reports an `arp_ignore` that prevents an answer: with pod gateways as next hops, a node must answer ARP requests for an address
/// of another interface.
fn arp_ignore(examination: &Examination<'_>, call: &Call) -> Option<Diagnostic> {
    let Call { device, address, senders, direction, .. } = call;
    let values = values(examination, device, "arp_ignore");
    // The greater value applies. 1 and 2 answer only for addresses of the interface itself, and 8 never does.
    let (value, key) = values.iter().max_by_key(|(value, _)| *value)?;
    let host = &examination.observed.host;
    let is_here = host.owner_of(*address).is_some_and(|local| local.device == *device);
    let depends_on_mode = *direction == Direction::In && has_pod_gateway_mode(examination);
    let unanswered = *value == 8 || ([1, 2].contains(value) && !is_here && depends_on_mode);
    unanswered.then(|| {
        let disable = set_sysctls(examination, &disabled(&values));
        let what = match direction {
            Direction::In if depends_on_mode => format!("its pod gateway {address}"),
            Direction::In => "its own address".to_owned(),
            Direction::Out => format!("the gateway {address} of {senders}"),
        };
        finding(
            Rule::ArpIgnored,
            format!(
                "{key} is {value}: this node does not answer ARP requests for {what} on {device}, {}",
                effect(call)
            ),
            match depends_on_mode && *value != 8 {
                true => format!("set nextHop: node-address, or {disable}"),
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
            let packet = Packet {
                source: source.into(),
                destination: destination.into(),
                input: Some(device.clone()),
            };
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
    let mut samples = paths.samples().into_iter();
    let path = samples.find(|path| path.direction == Direction::Out && path.packet.source.is_ipv6())?;
    let (pod, input) = (path.packet.source, path.packet.input?);
    let mut local = examination.observed.host.addresses.iter().filter(|local| local.device == input);
    let own = local.find(|local| local.address.is_ipv6())?.address;
    let effects = [
        ("so its pods cannot send packets over IPv6", Direction::Out),
        ("so it cannot deliver packets to its pods over IPv6", Direction::In),
    ];
    Some((input, discoveries(own, pod, effects)))
}
