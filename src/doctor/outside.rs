//! Examines what firewalls and the NAT of other programs do with packets between pods and destinations outside the cluster.

use std::net::IpAddr;

use super::{
    Examination, finding,
    journey::spot_text,
    remedy::{allow_outside, remove},
    samples,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Filtering, ForwardingModel, Packet, Passage, Path, Paths, SAMPLE_PORT, Spot,
        Transport, Treatment, Way, outside_address,
    },
    model::{Family, pod_address},
    state::MatchedChains,
    text::{Untrusted, list},
};

pub(super) fn examine<'a>(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    dropping: Vec<Spot<'a>>,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for path in samples(paths).into_iter().filter(|path| path.direction == Direction::Out) {
        findings.extend(excluded(examination, &path, chains, model));
    }
    findings.extend(lost_outside(paths, chains, model, dropping));
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
        let spot = chains.follow(model, &passage, MatchedChains::Others).masquerade?;
        let message = format!("{} changes the source address of packets to {what}", spot_text(&spot));
        Some(finding(Rule::ForeignMasquerade, message, remove(&spot, "these destinations")))
    })
}

/// Reports rules that block traffic that leaves the cluster and that the configuration masquerades. The sample is a
/// connection to a service that most firewalls allow. The rules in `known` are already reported.
fn lost_outside<'a>(
    paths: &Paths<'_>,
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    mut known: Vec<Spot<'a>>,
) -> Vec<Diagnostic> {
    const HTTPS: u16 = 443;
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
        let Treatment { filter, untracked, .. } = chains.follow(model, &passage, MatchedChains::All);
        let whose = match is_reply {
            true => "replies from outside the cluster to this node's pods",
            false => "packets from this node's pods to destinations outside the cluster",
        };
        let dropped = match filter {
            Filtering::Dropped(spot) => Some(spot),
            _ => None,
        };
        let spot = dropped.or(untracked.filter(|_| !is_reply)).filter(|spot| !known.contains(spot))?;
        known.push(spot);
        Some(match dropped {
            Some(_) => finding(
                Rule::OutsideBlocked,
                format!("{} drops {whose} (traced for TCP port {HTTPS})", spot_text(&spot)),
                format!(
                    "accept them in the program that manages this firewall, for example with `{}`; if pods must not reach the \
                     outside, set nat.masquerade: false",
                    allow_outside(&spot, path)
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
