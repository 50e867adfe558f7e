//! Examines what firewalls and policy rules do with packets between this node's pods and other nodes themselves.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{
    MAX_PATHS,
    blockage::{Blockage, between, peers},
    finding,
    remedy::Acceptance,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, Distinctions, Filtering, ForwardingModel, Passage, Path, Paths, SAMPLE_PORT,
        Spot, Stop, Transport, Way, remove_route, remove_rule,
    },
    state::{Host, MatchedChains},
    text::Untrusted,
};

/// The own pods and the network of the other node on a path that is blocked.
type Ends = (Direction, IpNet, IpNet);

/// Returns the rules and policies of firewalls that drop packets between this node's pods and other nodes themselves. The samples
/// are a connection of each protocol from both ends.
pub(super) fn blocked<'a>(
    chains: &ChainIndex<'a>,
    distinctions: &Distinctions,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
) -> Vec<Blockage<'a>> {
    let mut alike: HashMap<_, Vec<(Spot<'a>, Transport)>> = HashMap::new();
    let mut found: Vec<Blockage<'a>> = Vec::new();
    let mut ends: Vec<BTreeSet<Ends>> = Vec::new();
    for path in paths.with_hosts().take(MAX_PATHS) {
        let Path { direction, packet, expected, .. } = &path;
        let classes = [packet.source, packet.destination].map(|address| distinctions.class(address));
        let returns = distinctions.return_routes(model, packet);
        let key = (classes, packet.input.clone(), expected.device.clone(), returns);
        let dropping = alike.entry(key).or_insert_with(|| dropping(chains, model, &path));
        for (spot, transport) in dropping {
            let at = Blockage::at(&mut found, *spot);
            ends.resize_with(found.len(), BTreeSet::new);
            ends[at].insert(network(&path, model.host()));
            found[at].add(*direction, *transport);
            found[at].nodes.extend(path.node().cloned());
        }
    }
    for (blockage, ends) in found.iter_mut().zip(ends) {
        blockage.commands = commands(&blockage.spot, &ends);
    }
    found
}

/// Returns what drops the packets of a path, with their protocols.
fn dropping<'a>(
    chains: &ChainIndex<'a>,
    model: &ForwardingModel<'_>,
    path: &Path,
) -> Vec<(Spot<'a>, Transport)> {
    let passages = Transport::ALL.into_iter().flat_map(|transport| {
        [false, true].map(|is_reply| Passage {
            packet: &path.packet,
            transport,
            port: SAMPLE_PORT,
            // Packets from pods to other nodes may be masqueraded.
            way: if is_reply && path.direction == Direction::In { Way::Returning } else { Way::Through },
            output: &path.expected.device,
            is_reply,
        })
    });
    let dropped =
        passages.filter_map(|passage| match chains.follow(model, &passage, MatchedChains::Others).filter {
            Filtering::Dropped(spot) => Some((spot, passage.transport)),
            _ => None,
        });
    let mut dropped: Vec<_> = dropped.collect();
    // Nodes need not answer pings, and nothing else depends on them.
    if dropped.iter().all(|(_, transport)| *transport == Transport::Icmp) {
        dropped.clear();
    }
    dropped
}

/// Returns the ends of a path: this node's pods, and the network that it shares with the other node, or else only the other node.
fn network(path: &Path, host: &Host) -> Ends {
    let device = match path.direction {
        Direction::Out => Some(&path.expected.device),
        Direction::In => path.packet.input.as_ref(),
    };
    let on_link = device.into_iter().flat_map(|device| host.on_link(device.as_raw()));
    let shared = on_link.filter(|network| network.contains(&path.other)).max_by_key(IpNet::prefix_len);
    (path.direction, path.own, shared.unwrap_or(path.other))
}

/// Returns the commands that accept packets between these ends.
fn commands(spot: &Spot<'_>, ends: &BTreeSet<Ends>) -> Vec<String> {
    /// More single nodes than these are not named.
    const NAMED: usize = 4;
    let is_short = ends.len() <= NAMED;
    let commands = ends.iter().map(|(direction, own, other)| {
        let accepted = match (direction, is_short) {
            (Direction::Out, true) => Acceptance::between(*own, *other),
            (Direction::In, true) => Acceptance::between(*other, *own),
            (Direction::Out, false) => Acceptance::of((*own).into()).with_source(*own),
            (Direction::In, false) => Acceptance::of((*own).into()).with_destination(*own),
        };
        accepted.command(spot)
    });
    let mut commands: Vec<String> = commands.collect();
    commands.dedup();
    commands
}

/// Names other nodes without their pods, out of `all`.
pub(super) fn without_pods(nodes: &BTreeSet<Untrusted>, all: usize) -> String {
    let peers = peers(&nodes.iter().collect::<Vec<_>>(), all, false);
    match peers.strip_suffix(')') {
        Some(list) => format!("{list}; not their pods)"),
        None => format!("{peers} (not {} pods)", if nodes.len() == 1 && all > 1 { "its" } else { "their" }),
    }
}

/// Returns the finding about a rule of a firewall, out of `all` other nodes.
pub(super) fn finding_of(blockage: &Blockage<'_>, all: usize, chains: &ChainIndex<'_>) -> Diagnostic {
    let message = blockage.message("this node's pods", &without_pods(&blockage.nodes, all));
    let message = message + &blockage.traced(chains);
    finding(Rule::OtherNodesBlocked, message, blockage.remedy("traffic between pods and nodes"))
}

/// Reports policy rules and routes that drop packets between this node's pods and other nodes themselves.
pub(super) fn unrouted(paths: &Paths<'_>, model: &ForwardingModel<'_>) -> Vec<Diagnostic> {
    let mut found: Vec<(String, String, BTreeSet<Direction>, BTreeSet<Untrusted>)> = Vec::new();
    for path in paths.with_hosts().take(MAX_PATHS) {
        let (cause, remedy) = match model.trace(&path.packet).stop {
            Some(Stop::Rule(rule)) => (format!("the policy rule `{rule}`"), remove_rule(rule)),
            Some(Stop::Route(route)) => {
                let remedy = remove_route(route);
                (
                    format!("the route `{route}`"),
                    remedy.unwrap_or_else(|| "if it is not needed, remove it".to_owned()),
                )
            }
            _ => continue,
        };
        let at = found.iter().position(|(known, ..)| *known == cause).unwrap_or_else(|| {
            found.push((cause, remedy, BTreeSet::new(), BTreeSet::new()));
            found.len() - 1
        });
        let (_, _, directions, nodes) = &mut found[at];
        directions.insert(path.direction);
        nodes.extend(path.node().cloned());
    }
    let all = paths.nodes();
    let finding_of = |(cause, remedy, directions, nodes): (_, String, _, _)| {
        let packets = between(&directions, "this node's pods", &without_pods(&nodes, all));
        finding(Rule::OtherNodesBlocked, format!("{cause} drops packets {packets}"), remedy)
    };
    found.into_iter().map(finding_of).collect()
}
