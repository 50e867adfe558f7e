//! Examines what firewalls do with the packets of the node itself to pods.

use std::collections::HashMap;

use super::{
    MAX_PATHS,
    blockage::peers,
    conditions::spot_text,
    finding,
    remedy::{Acceptance, accept, allow, allow_replies, is_open, remove},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Distinctions, Filtering, ForwardingModel, Packet, Passage, Path, Paths,
        SAMPLE_PORT, Spot, Transport, Way,
    },
    state::MatchedChains,
    text::Untrusted,
};

/// Reports rules that drop the packets with which the node itself opens connections to pods, or the replies. The sample is a TCP
/// connection.
pub(super) fn examine(
    chains: &ChainIndex<'_>,
    distinctions: &Distinctions,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
) -> Vec<Diagnostic> {
    let mut findings = to_other_pods(chains, distinctions, paths, model);
    findings.extend(to_own_pods(chains, paths, model));
    findings
}

/// Returns the rule or policy that drops a packet of the node itself, or the reply to it.
fn dropping<'a>(
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    packet: &Packet,
    direction: Direction,
    device: &Untrusted,
) -> Option<Spot<'a>> {
    let passage = Passage {
        packet,
        transport: Transport::Tcp,
        port: SAMPLE_PORT,
        way: match direction {
            Direction::Out => Way::Out,
            Direction::In => Way::In,
        },
        output: device,
        is_reply: direction == Direction::In,
    };
    match chains.follow(model, &passage, MatchedChains::Others).filter {
        Filtering::Dropped(spot) => Some(spot),
        _ => None,
    }
}

fn to_other_pods<'a>(
    chains: &ChainIndex<'a>,
    distinctions: &Distinctions,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
) -> Vec<Diagnostic> {
    let mut alike: HashMap<_, Option<Spot<'a>>> = HashMap::new();
    let mut found: Vec<(Spot<'a>, Direction, Vec<Path>)> = Vec::new();
    for path in paths.of_node().take(MAX_PATHS) {
        let Path { direction, packet, expected, .. } = &path;
        let classes = [packet.source, packet.destination].map(|address| distinctions.class(address));
        let spot = *alike
            .entry((classes, *direction, expected.device.clone()))
            .or_insert_with(|| dropping(chains, model, packet, *direction, &expected.device));
        let (Some(spot), direction) = (spot, *direction) else { continue };
        match found.iter_mut().find(|(known, along, _)| (*known, *along) == (spot, direction)) {
            Some((_, _, paths)) => paths.push(path),
            None => found.push((spot, direction, vec![path])),
        }
    }
    let all = paths.nodes();
    let diagnostic = |(spot, direction, affected): (Spot<'_>, Direction, Vec<Path>)| {
        let mut nodes: Vec<&Untrusted> = affected.iter().filter_map(Path::node).collect();
        nodes.dedup();
        let peers = peers(&nodes, all, affected.iter().any(|path| path.is_of_all));
        let (packets, commands) = match direction {
            Direction::Out => {
                (format!("packets from this node to pods on {peers}"), allow(affected.iter(), &spot))
            }
            Direction::In => {
                (format!("replies from pods on {peers} to this node"), allow_replies(affected.iter(), &spot))
            }
        };
        report(&spot, &packets, &commands)
    };
    found.into_iter().map(diagnostic).collect()
}

/// Examines the packets to this node's own pods, such as the probes of kubelet.
fn to_own_pods(chains: &ChainIndex<'_>, paths: &Paths<'_>, model: &ForwardingModel<'_>) -> Vec<Diagnostic> {
    let own = paths.samples().into_iter().filter(|path| path.direction == Direction::Out);
    let both =
        own.flat_map(|path| [Direction::Out, Direction::In].map(|direction| (path.clone(), direction)));
    let diagnostic = |(path, direction): (Path, Direction)| {
        let (pod, device) = (path.packet.source, path.packet.input.clone()?);
        let source = model.own_source(pod)?;
        let (packet, packets, accepted) = match direction {
            Direction::Out => (
                Packet { source, destination: pod, input: None },
                "packets from this node to its own pods, such as kubelet's probes",
                Acceptance::to_pods(&path, &device),
            ),
            Direction::In => (
                Packet { source: pod, destination: source, input: Some(device.clone()) },
                "replies from this node's pods to the node itself, such as those to kubelet's probes",
                Acceptance::from_pods(&path, &device).replies(),
            ),
        };
        let spot = dropping(chains, model, &packet, direction, &device)?;
        Some(report(&spot, packets, &[accepted.command(&spot)]))
    };
    both.filter_map(diagnostic).collect()
}

/// Reports a rule or policy. `commands` accept the packets.
fn report(spot: &Spot<'_>, packets: &str, commands: &[String]) -> Diagnostic {
    let remedy = match is_open(spot) {
        true => accept(commands),
        false => remove(spot, "packets between this node and pods"),
    };
    let message = format!("{} drops {packets} (traced for TCP port {SAMPLE_PORT})", spot_text(spot));
    finding(Rule::OwnPacketsBlocked, message, remedy)
}
