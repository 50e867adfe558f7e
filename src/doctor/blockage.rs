//! The packets that a firewall drops, by the rule or policy that does so.

use std::collections::BTreeSet;

use super::{
    conditions::spot_text,
    remedy::{accept, is_open, remove},
};
use crate::{
    forwarding::{ChainIndex, Direction, SAMPLE_PORT, Spot, Transport},
    text::{Untrusted, count, list},
};

/// Packets between this node's pods and something else that a rule or policy certainly drops.
#[derive(Debug)]
pub(super) struct Blockage<'a> {
    pub(super) spot: Spot<'a>,
    pub(super) directions: BTreeSet<Direction>,
    pub(super) protocols: BTreeSet<Transport>,
    /// The other nodes that are affected, if the other ends are nodes.
    pub(super) nodes: BTreeSet<Untrusted>,
    /// The commands that accept the packets.
    pub(super) commands: Vec<String>,
}

impl<'a> Blockage<'a> {
    /// Returns one without packets.
    pub(super) fn new(spot: Spot<'a>) -> Self {
        let (directions, protocols, nodes) = Default::default();
        Self { spot, directions, protocols, nodes, commands: Vec::new() }
    }

    /// Returns the index of the one with this rule or policy. Adds it if there is none.
    pub(super) fn at(known: &mut Vec<Self>, spot: Spot<'a>) -> usize {
        known.iter().position(|blockage| blockage.spot == spot).unwrap_or_else(|| {
            known.push(Self::new(spot));
            known.len() - 1
        })
    }

    pub(super) fn add(&mut self, direction: Direction, transport: Transport) {
        self.directions.insert(direction);
        self.protocols.insert(transport);
    }

    /// Returns which port was traced, if other ports may pass.
    pub(super) fn traced(&self, chains: &ChainIndex<'_>) -> String {
        let has_ports = self.protocols.iter().any(|protocol| *protocol != Transport::Icmp);
        match has_ports && chains.accepts_by_port(self.spot.chain) {
            true => format!(" (traced for port {SAMPLE_PORT})"),
            false => String::new(),
        }
    }

    /// Describes what the rule or policy drops. `ends` are the other ends.
    pub(super) fn message(&self, own: &str, ends: &str) -> String {
        let packets = packets(&self.protocols);
        format!("{} drops {packets} {}", spot_text(&self.spot), between(&self.directions, own, ends))
    }

    /// Returns how to let the packets pass. `exclude` names them.
    pub(super) fn remedy(&self, exclude: &str) -> String {
        if is_open(&self.spot) { accept(&self.commands) } else { remove(&self.spot, exclude) }
    }
}

/// Returns a name for packets of these protocols.
pub(super) fn packets(protocols: &BTreeSet<Transport>) -> String {
    if protocols.len() == Transport::ALL.len() {
        return "packets".to_owned();
    }
    let names: Vec<&str> = protocols.iter().map(|protocol| protocol.name()).collect();
    format!("{} packets", names.join(" and "))
}

/// Describes the direction of packets between two ends.
pub(super) fn between(directions: &BTreeSet<Direction>, own: &str, other: &str) -> String {
    let [is_out, is_in] = [Direction::Out, Direction::In].map(|direction| directions.contains(&direction));
    match (is_out, is_in) {
        (true, true) => format!("between {own} and {other}"),
        (true, false) => format!("from {own} to {other}"),
        (false, _) => format!("from {other} to {own}"),
    }
}

/// Describes other nodes, out of `all`.
pub(super) fn peers(nodes: &[&Untrusted], all: usize, represent_all: bool) -> String {
    match nodes.len() {
        some if represent_all || some >= all => "other nodes".to_owned(),
        1 => format!("node {}", nodes[0]),
        some => format!("{} ({})", count(some, "node"), list(nodes, 6)),
    }
}
