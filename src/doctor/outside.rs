//! Examines what firewalls and the NAT of other programs do with packets between pods and destinations outside the cluster.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Examination,
    blockage::{Blockage, packets},
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
    text::{Untrusted, all_of, list},
};

/// The other ends of packets to the outside.
pub(super) const ENDS: &str = "destinations outside the cluster";

/// Reports masquerade rules of other programs for traffic that leaves the cluster and that the configuration does not masquerade.
pub(super) fn excluded(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    chains: &ChainIndex<'_>,
    model: &ForwardingModel<'_>,
) -> Vec<Diagnostic> {
    let out = paths.samples().into_iter().filter(|path| path.direction == Direction::Out);
    out.filter_map(|path| excluded_from(examination, &path, chains, model)).collect()
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
    let them = if silent.len() == 1 { "it" } else { "them" };
    (!silent.is_empty()).then(|| {
        finding(
            Rule::DefaultGatewaySilent,
            format!("{some} did not answer: {}; pod packets sent to {them} are lost", list(&silent, 6)),
            "check the gateway, and the default route with `ip route show default`",
        )
    })
}

/// Reports such a rule for packets from the pod of a path.
fn excluded_from(
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
        port: port(Transport::Tcp),
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

/// Returns the port of a service that most firewalls allow: HTTPS, or DNS.
const fn port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp => 53,
        _ => 443,
    }
}

/// What happens to packets to the outside, or to the replies.
#[derive(PartialEq)]
enum Loss<'a> {
    Dropped(Spot<'a>),
    /// Excluded from connection tracking.
    Untracked(Spot<'a>),
    /// The node does not recognize the replies.
    NoReply(Spot<'a>, Diagnostic),
    /// Dropped, if conditions that cannot be decoded are met, or unless the second rule, which has such conditions, accepts them.
    Unclear(Spot<'a>, Option<Spot<'a>>),
    /// Dropped or passed, depending on a property that differs between packets.
    Partly(Conditional<'a>),
}

impl<'a> Loss<'a> {
    fn of(
        path: &Path,
        transport: Transport,
        chains: &ChainIndex<'a>,
        model: &ForwardingModel<'_>,
    ) -> Option<Self> {
        let is_reply = path.direction == Direction::In;
        let passage = Passage {
            packet: &path.packet,
            transport,
            port: port(transport),
            // A reply arrives with the node's address as its destination; firewalls see it with the address of the pod.
            way: if is_reply { Way::Returning } else { Way::Through },
            output: &path.expected.device,
            is_reply,
        };
        let treatment = chains.follow(model, &passage, MatchedChains::All);
        if let Filtering::Dropped(spot) = treatment.filter {
            return Some(Self::Dropped(spot));
        }
        if !is_reply {
            if let Some(spot) = treatment.untracked {
                return Some(Self::Untracked(spot));
            }
            // Connections of other protocols share the address.
            let no_reply = (transport == Transport::Tcp).then(|| no_reply(path, &treatment, chains, model));
            if let Some((spot, finding)) = no_reply.flatten() {
                return Some(Self::NoReply(spot, finding));
            }
        }
        match treatment.filter {
            Filtering::MaybeDropped(spot) => Some(Self::Unclear(spot, None)),
            Filtering::DroppedUnless(spot, by) => Some(Self::Unclear(spot, Some(by))),
            _ => treatment.partly.map(Self::Partly),
        }
    }

    const fn spot(&self) -> Spot<'a> {
        match self {
            Self::Dropped(spot)
            | Self::Untracked(spot)
            | Self::NoReply(spot, _)
            | Self::Unclear(spot, _)
            | Self::Partly(Conditional { spot, .. }) => *spot,
        }
    }

    /// Returns the finding, unless the packets are certainly dropped. `whose` names them.
    fn finding(&self, whose: &str, path: &Path) -> Option<Diagnostic> {
        let because =
            |by: &Spot<'_>| format!("hostgw cannot tell, because it cannot decode {}", undecoded(by));
        let spot_text = spot_text(&self.spot());
        let message = match self {
            Self::Dropped(_) => return None,
            Self::NoReply(_, finding) => return Some(finding.clone()),
            Self::Untracked(spot) => {
                let message = format!(
                    "{spot_text} excludes {whose} from connection tracking, so they keep the pod's source address and get no reply"
                );
                return Some(finding(Rule::OutsideBlocked, message, remove(spot, "pod packets")));
            }
            Self::Partly(Conditional { spot, depends_on }) => {
                let property = [depends_on, spot].into_iter().find_map(partial_property)?;
                let message = format!("{spot_text} drops some {whose}, depending on {property}");
                let remedy = match spot.rule {
                    Some(_) => remove(spot, "pod packets"),
                    None => accept(allow_outside(spot, path).as_slice()),
                };
                return Some(finding(Rule::OutsideBlocked, message, remedy));
            }
            Self::Unclear(spot, None) => format!("{spot_text} may drop {whose}: {}", because(spot)),
            Self::Unclear(_, Some(by)) => {
                format!(
                    "{spot_text} drops {whose} unless {} accepts them: {}",
                    self::spot_text(by),
                    because(by)
                )
            }
        };
        let remedy = "try a connection from a pod to the outside, or run `hostgw rehearse`";
        Some(finding(Rule::ForwardUnclear, message, remedy))
    }
}

/// Returns the rules and policies that drop traffic that leaves the cluster and that the configuration masquerades, and other
/// findings about such traffic. The samples are packets to services that most firewalls allow. The rules and policies in
/// `known` are already reported.
pub(super) fn lost<'a>(
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    mut known: Vec<Spot<'a>>,
) -> (Vec<Blockage<'a>>, Vec<Diagnostic>) {
    let mut dropped: Vec<Blockage<'a>> = Vec::new();
    let mut findings = Vec::new();
    for path in paths.with_outside() {
        let mut losses: Vec<(Loss<'a>, BTreeSet<Transport>)> = Vec::new();
        for transport in Transport::ALL {
            let Some(loss) = Loss::of(&path, transport, chains, model) else { continue };
            match losses.iter_mut().find(|(known, _)| *known == loss) {
                Some((_, protocols)) => drop(protocols.insert(transport)),
                None => losses.push((loss, BTreeSet::from([transport]))),
            }
        }
        // Many networks do not answer pings, and nothing else depends on them.
        losses.retain(|(_, protocols)| protocols.iter().any(|transport| *transport != Transport::Icmp));
        for (loss, protocols) in losses {
            let spot = loss.spot();
            if let Loss::Dropped(spot) = loss {
                let at = Blockage::at(&mut dropped, spot);
                let blockage = &mut dropped[at];
                protocols.iter().for_each(|transport| blockage.add(path.direction, *transport));
                let command = allow_outside(&spot, &path);
                blockage.commands.extend(command.filter(|command| !blockage.commands.contains(command)));
                continue;
            }
            let whose = match path.direction {
                Direction::In => replies(&protocols),
                Direction::Out => format!("{} from this node's pods to {ENDS}", packets(&protocols)),
            };
            if !known.contains(&spot) {
                known.push(spot);
                findings.extend(loss.finding(&whose, &path));
            }
        }
    }
    (dropped, findings)
}

/// Returns a name for replies of these protocols from the outside.
fn replies(protocols: &BTreeSet<Transport>) -> String {
    let replies = match packets(protocols).strip_suffix("packets") {
        Some(names) => format!("{names}replies"),
        None => "replies".to_owned(),
    };
    format!("{replies} from outside the cluster to this node's pods")
}

/// Returns the finding about a rule or policy that drops traffic to the outside.
pub(super) fn finding_of(blockage: &Blockage<'_>) -> Diagnostic {
    let is_only_reply = !blockage.directions.contains(&Direction::Out);
    let message = match is_only_reply {
        true => format!("{} drops {}", spot_text(&blockage.spot), replies(&blockage.protocols)),
        false => blockage.message("this node's pods", ENDS),
    };
    let traced = blockage.protocols.iter().map(|transport| match transport {
        Transport::Tcp | Transport::Udp => format!("{} port {}", transport.name(), port(*transport)),
        _ => transport.name().to_owned(),
    });
    let traced = all_of(&traced.collect::<Vec<_>>());
    finding(
        Rule::OutsideBlocked,
        format!("{message} (traced for {traced})"),
        format!(
            "{}; if this is intended, ignore this finding (nat.masquerade: false silences it, but turns masquerading off on every node)",
            accept(&blockage.commands)
        ),
    )
}
