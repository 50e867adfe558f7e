//! Examines whether packets for this node's pods can arrive on a second interface in the network of the egress interface. Linux
//! answers ARP requests on all of them (ARP flux), so other nodes may use any.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Effect, Examination, TrafficEffects, asked_for, conditions::spot_text, egress, finding, set_sysctls,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Filtering, ForwardingModel, Packet, Passage, Path, Paths, SAMPLE_PORT, Stop,
        Transport, Verdict, Way, interface_key,
    },
    model::Family,
    state::{InterfaceAddress, Link, MatchedChains},
};

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let is_incoming = |path: &Path| path.direction == Direction::In && path.packet.source.is_ipv4();
    let Some(egress) = egress(examination) else { return Vec::new() };
    let Some(path) = paths.samples().into_iter().find(is_incoming) else { return Vec::new() };
    let mut findings = Vec::new();
    for (link, network) in others_in_network(examination, egress) {
        let Some(asked) = answered_on(examination, model, link) else { continue };
        let packet = Packet { input: Some(link.name.clone()), ..path.packet.clone() };
        let Some(why) = loss(examination, model, &packet, &path) else { continue };
        let Some(key) = interface_key(Family::V4, link.name.as_raw(), "arp_ignore") else { continue };
        effects.on_all(Family::V4, Direction::In, Effect::Unclear);
        let ignore = set_sysctls(examination, &[(key, "1".to_owned())]);
        findings.push(finding(
            Rule::SecondInterface,
            format!(
                "{} is also in network {network} of egress interface {} and answers ARP requests for {asked}, so other nodes may send \
                 packets for this node's pods to it, where they are lost: {why}",
                link.name, egress.name
            ),
            format!("let {} answer only for its own addresses: {ignore}", link.name),
        ));
    }
    findings
}

/// Returns the other Ethernet interfaces with an address in a network of the egress interface, and the network.
fn others_in_network<'a>(examination: &Examination<'a>, egress: &Link) -> Vec<(&'a Link, IpNet)> {
    let host = &examination.observed.host;
    let is_ethernet =
        |link: &Link| host.mac_addresses.is_empty() || host.mac_addresses.contains_key(&link.name);
    let is_network = |local: &&InterfaceAddress| local.address.is_ipv4() && local.prefix.prefix_len() < 32;
    let own: Vec<&InterfaceAddress> =
        host.addresses.iter().filter(is_network).filter(|local| local.device == egress.name).collect();
    let mut found: Vec<(&Link, IpNet)> = Vec::new();
    for local in host.addresses.iter().filter(is_network).filter(|local| local.device != egress.name) {
        let shares = |own: &&&InterfaceAddress| {
            own.prefix.contains(&local.address) || local.prefix.contains(&own.address)
        };
        let Some(link) = host.link(local.device.as_raw()) else { continue };
        let is_usable = link.up
            && link.carrier != Some(false)
            && !link.no_arp
            && link.master.is_none()
            && is_ethernet(link);
        let is_below = egress.master.as_ref() == Some(&link.name);
        if let Some(own) = own.iter().find(shares)
            && is_usable
            && !is_below
            && !found.iter().any(|(known, _)| known.name == link.name)
        {
            found.push((link, own.prefix));
        }
    }
    found
}

/// Returns an address that other nodes send packets for this node's pods to, if the node answers ARP requests for it on `link`
/// although the address is not there.
fn answered_on(examination: &Examination<'_>, model: &ForwardingModel<'_>, link: &Link) -> Option<IpAddr> {
    let Examination { cluster, index, observed, .. } = examination;
    let value = |name: &str| {
        let of = |device: &str| {
            let key = interface_key(Family::V4, device, name)?;
            observed.state.sysctls.get(&key)?.as_raw().parse::<u32>().ok()
        };
        ["all", link.name.as_raw()].into_iter().filter_map(of).max().unwrap_or(0)
    };
    if [1, 2, 8].contains(&value("arp_ignore")) {
        return None;
    }
    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| at != index);
    let other = *others.filter_map(|(_, node)| node.addresses.get(Family::V4)).next()?;
    asked_for(cluster, examination.node(), Family::V4).into_iter().find(|asked| {
        let leads_back = || match model.trace_own(*asked, other).verdict {
            Verdict::Forwarded { hops, .. } => hops.iter().any(|hop| hop.device == link.name),
            _ => false,
        };
        let packet = Packet { source: other, destination: *asked, input: Some(link.name.clone()) };
        let is_elsewhere = observed.host.owner_of(*asked).is_some_and(|local| local.device != link.name);
        is_elsewhere
            && model.trace(&packet).verdict == Verdict::Local
            && (value("arp_filter") == 0 || leads_back())
    })
}

/// Returns why a packet is lost that arrives on another interface than `path`; `None` if it is not.
fn loss(
    examination: &Examination<'_>,
    model: &ForwardingModel<'_>,
    packet: &Packet,
    path: &Path,
) -> Option<String> {
    let trace = model.trace(packet);
    // What loses the packets on the egress interface, too, is another finding.
    match &trace.stop {
        _ if model.trace(&path.packet).stop.is_some() => return None,
        None => {}
        Some(Stop::Forwarding(key)) => return Some(format!("{key} is 0")),
        Some(Stop::ReversePath { sysctl, back: Some(back), .. }) => {
            return Some(format!("{sysctl} drops them, because the return route is `{back}`"));
        }
        Some(_) => return None,
    }
    let chains = ChainIndex::new(examination.observed.host.firewall.as_ref()?);
    let follow = |input: &Packet, is_reply| {
        let passage = Passage {
            packet: input,
            transport: Transport::Tcp,
            port: SAMPLE_PORT,
            way: Way::Through,
            output: &path.expected.device,
            is_reply,
        };
        chains.follow(model, &passage, MatchedChains::Others).filter
    };
    [false, true].into_iter().find_map(|is_reply| {
        let Filtering::Dropped(spot) = follow(packet, is_reply) else { return None };
        (follow(&path.packet, is_reply) != Filtering::Dropped(spot))
            .then(|| format!("{} drops them", spot_text(&spot)))
    })
}
