//! Examines what firewalls and the NAT of other programs do with packets between pods and destinations outside the cluster.

use std::net::IpAddr;

use super::{
    Examination,
    conditions::{is_for_ipset, partial_property, spot_text, undecided, undecoded},
    finding,
    remedy::{accept, allow_outside, remove},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        AddressChange, ChainIndex, Conditional, Direction, Filtering, ForwardingModel, Packet, Passage, Path,
        Paths, SAMPLE_PORT, Spot, Transport, Treatment, Way, outside_address,
    },
    model::{Family, pod_address},
    state::{FirewallRule, MatchedChains, NatTable, Term},
    text::{Untrusted, list},
};

pub(super) fn examine<'a>(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    dropping: Vec<Spot<'a>>,
    unclear: Vec<Spot<'a>>,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for path in paths.samples().into_iter().filter(|path| path.direction == Direction::Out) {
        findings.extend(excluded(examination, &path, chains, model));
    }
    findings.extend(lost_outside(paths, chains, model, dropping, unclear));
    findings
}

/// Reports gateways of the default route that did not answer the kernel's last request.
pub(super) fn silent_gateways(examination: &Examination<'_>, paths: &Paths<'_>) -> Option<Diagnostic> {
    let neighbors = &examination.observed.host.neighbors;
    let mut gateways: Vec<(IpAddr, Untrusted)> =
        paths.gateways().filter_map(|hop| Some((hop.gateway?, hop.device))).collect();
    gateways.dedup();
    let unanswered = |(address, device): &&(IpAddr, Untrusted)| {
        let mut entries = neighbors.iter().filter(|entry| entry.unanswered);
        entries.any(|entry| entry.address == *address && entry.device == *device)
    };
    let silent: Vec<String> = gateways
        .iter()
        .filter(unanswered)
        .map(|(address, device)| format!("{address} on {device}"))
        .collect();
    let some = match gateways.len() {
        1 => "the gateway of the default route".to_owned(),
        all => format!("{} of {all} gateways of the default route", silent.len()),
    };
    (!silent.is_empty()).then(|| {
        finding(
            Rule::DefaultGatewaySilent,
            format!("{some} did not answer: {}; pod packets sent to it are lost", list(&silent, 6)),
            "check the gateway, and the default route with `ip route show default`",
        )
    })
}

/// Reports a masquerade rule of another program for traffic that leaves the cluster and that the configuration does not masquerade.
fn excluded(
    examination: &Examination<'_>,
    path: &Path,
    chains: &ChainIndex<'_>,
    model: &ForwardingModel<'_>,
) -> Option<Diagnostic> {
    let cluster = examination.cluster;
    let family = Family::from(path.packet.destination);
    let excluded = cluster.nat.exclude.iter().filter(|prefix| Family::from(**prefix) == family);
    let mut destinations: Vec<(IpAddr, String)> = excluded
        .map(|prefix| (pod_address(*prefix, None), format!("{prefix}, which nat.exclude contains")))
        .collect();
    if !cluster.nat.masquerade {
        let what = "destinations outside the cluster, but nat.masquerade is false";
        destinations.push((outside_address(family), what.to_owned()));
    }
    destinations.into_iter().find_map(|(destination, what)| {
        let packet = Packet { destination, ..path.packet.clone() };
        let passage = Passage {
            packet: &packet,
            transport: Transport::Tcp,
            port: SAMPLE_PORT,
            way: Way::Through,
            output: &path.expected.device,
            is_reply: false,
        };
        let masquerade = chains.follow(model, &passage, MatchedChains::Others).masquerade?;
        let spot = masquerade.spot;
        if !masquerade.is_certain() {
            return (!is_for_ipset(&masquerade)).then(|| {
                undecided(
                    &spot,
                    &spot_text(&spot),
                    &format!("change the source address of packets to {what}"),
                    &masquerade.depends_on.unwrap_or(spot),
                )
            });
        }
        let message = format!("{} changes the source address of packets to {what}", spot_text(&spot));
        Some(finding(Rule::ForeignMasquerade, message, remove(&spot, "these destinations")))
    })
}

/// Returns the rule because of which this node does not recognize the replies to masqueraded packets, and the finding.
fn no_reply<'a>(
    path: &Path,
    treatment: &Treatment<'a>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
) -> Option<(Spot<'a>, Diagnostic)> {
    let whose = "packets from this node's pods to destinations outside the cluster";
    let host = model.host();
    let masquerade = treatment.masquerade.filter(AddressChange::is_certain).map(|change| change.spot);
    let foreign = masquerade.filter(|spot| spot.chain.table != NatTable::NAME);
    let new_source = foreign.and_then(|spot| Some((spot, new_source(spot.rule?)?)));
    if let Some((spot, (from, to))) = new_source {
        let is_own = host.addresses.iter().any(|local| (from..=to).contains(&local.address));
        if !is_own {
            let to = if from == to { String::new() } else { format!("-{to}") };
            let message = format!(
                "{} changes the source of {whose} to {from}{to}, which is not an address of this node: replies are lost unless \
                 the network routes them to this node",
                spot_text(&spot)
            );
            return Some((spot, finding(Rule::OutsideBlocked, message, remove(&spot, "pod packets"))));
        }
    }
    masquerade?;
    let Packet { source, destination, .. } = &path.packet;
    let family = Family::from(*source);
    let output = &path.expected.device;
    let mut addresses = host.addresses.iter().filter(|local| local.device == *output);
    let own = addresses.find(|local| Family::from(local.address) == family)?.address;
    let packet = Packet { source: *destination, destination: own, input: Some(output.clone()) };
    let passage = Passage {
        packet: &packet,
        transport: Transport::Tcp,
        port: HTTPS,
        way: Way::In,
        output,
        is_reply: true,
    };
    let reply = chains.follow(model, &passage, MatchedChains::All);
    if let Some(spot) = reply.untracked {
        let message = format!(
            "{} excludes replies to {whose} from connection tracking: this node does not recognize them",
            spot_text(&spot)
        );
        return Some((spot, finding(Rule::OutsideBlocked, message, remove(&spot, "replies to pods"))));
    }
    let (spot, _) = treatment.zone.or(reply.zone)?;
    let [zone, of_reply] = [treatment.zone, reply.zone].map(|zone| zone.map_or(0, |(_, zone)| zone));
    (of_reply != zone).then(|| {
        let message = match treatment.zone {
            Some(_) => format!(
                "{} assigns {whose} to connection tracking zone {zone}, and the replies on {output} are in zone {of_reply}: this \
                 node does not recognize them",
                spot_text(&spot)
            ),
            None => format!(
                "{} assigns replies to {whose} to connection tracking zone {of_reply}, and the packets are in zone {zone}: this \
                 node does not recognize them",
                spot_text(&spot)
            ),
        };
        let remedy = "assign both directions to the same zone, or only the packets from pods with `ct original zone set` or \
                      `-j CT --zone-orig`";
        (spot, finding(Rule::OutsideBlocked, message, remedy))
    })
}

/// Returns the addresses of which a rule makes one the source.
fn new_source(rule: &FirewallRule) -> Option<(IpAddr, IpAddr)> {
    rule.terms.iter().find_map(|term| match term {
        Term::NewSource { from, to } => Some((*from, *to)),
        _ => None,
    })
}

/// Returns the rule that may drop packets, and the finding.
fn may_be_lost<'a>(treatment: &Treatment<'a>, whose: &str) -> Option<(Spot<'a>, Diagnostic)> {
    let because = |by: &Spot<'_>| format!("hostgw cannot tell, because it cannot decode {}", undecoded(by));
    let (spot, message) = match (&treatment.filter, &treatment.partly) {
        (Filtering::MaybeDropped(spot), _) => {
            (*spot, format!("{} may drop {whose}: {}", spot_text(spot), because(spot)))
        }
        (Filtering::DroppedUnless(spot, by), _) => {
            let unless = format!("unless {} accepts them: {}", spot_text(by), because(by));
            (*spot, format!("{} drops {whose} {unless}", spot_text(spot)))
        }
        (_, Some(Conditional { spot, depends_on })) => {
            let property = [depends_on, spot].into_iter().find_map(partial_property)?;
            let message = format!("{} drops some {whose}, depending on {property}", spot_text(spot));
            return Some((*spot, finding(Rule::OutsideBlocked, message, remove(spot, "pod packets"))));
        }
        _ => return None,
    };
    let remedy = "try a connection from a pod to the outside, or run `hostgw rehearse`";
    Some((spot, finding(Rule::ForwardUnclear, message, remedy)))
}

/// The port of a service that most firewalls allow.
const HTTPS: u16 = 443;

/// Reports rules that block traffic that leaves the cluster and that the configuration masquerades. The sample is a
/// connection to a service that most firewalls allow. The rules in `known` and in `unclear`, which may apply, are already reported.
fn lost_outside<'a>(
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    mut known: Vec<Spot<'a>>,
    mut unclear: Vec<Spot<'a>>,
) -> Vec<Diagnostic> {
    let mut lost = |path: &Path| {
        let is_reply = path.direction == Direction::In;
        let passage = Passage {
            packet: &path.packet,
            transport: Transport::Tcp,
            port: HTTPS,
            // A reply arrives with the node's address as its destination; firewalls see it with the address of the pod.
            way: if is_reply { Way::Returning } else { Way::Through },
            output: &path.expected.device,
            is_reply,
        };
        let treatment = chains.follow(model, &passage, MatchedChains::All);
        let Treatment { filter, untracked, .. } = &treatment;
        let whose = match is_reply {
            true => "replies from outside the cluster to this node's pods",
            false => "packets from this node's pods to destinations outside the cluster",
        };
        let dropped = match filter {
            Filtering::Dropped(spot) => Some(*spot),
            _ => None,
        };
        let blocking = dropped.or(untracked.filter(|_| !is_reply));
        let Some(spot) = blocking else {
            let lost = no_reply(path, &treatment, chains, model).filter(|_| !is_reply);
            let Some((spot, finding)) = lost else {
                let (spot, finding) = may_be_lost(&treatment, whose)?;
                let is_new = !known.contains(&spot) && !unclear.contains(&spot);
                unclear.push(spot);
                return is_new.then_some(finding);
            };
            let is_new = !known.contains(&spot);
            known.push(spot);
            return is_new.then_some(finding);
        };
        if known.contains(&spot) {
            return None;
        }
        known.push(spot);
        Some(match dropped {
            Some(_) => finding(
                Rule::OutsideBlocked,
                format!("{} drops {whose} (traced for TCP port {HTTPS})", spot_text(&spot)),
                format!(
                    "{}; if pods must not reach the outside, set nat.masquerade: false",
                    accept(allow_outside(&spot, path))
                ),
            ),
            None => finding(
                Rule::OutsideBlocked,
                format!(
                    "{} excludes {whose} from connection tracking, so they keep the pod's source address and get no reply",
                    spot_text(&spot)
                ),
                remove(&spot, "pod packets"),
            ),
        })
    };
    paths.with_outside().filter_map(|path| lost(&path)).collect()
}
