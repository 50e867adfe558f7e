//! What the findings about a node mean for the packets of its pods.

use std::collections::BTreeMap;

use crate::{
    forwarding::{Direction, Path},
    model::Family,
    text::Untrusted,
};

/// What happens to packets that should pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// They may be lost: hostgw cannot tell.
    Unclear,
    /// They are lost.
    Lost,
}

/// What the findings mean for packets from and to the pods of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficEffects {
    all: BTreeMap<(Family, Direction), Effect>,
    nodes: BTreeMap<(Untrusted, Direction), Effect>,
}

impl TrafficEffects {
    /// Takes note of an effect on the packets of all nodes.
    pub(super) fn on_all(&mut self, family: Family, direction: Direction, effect: Effect) {
        let known = self.all.entry((family, direction)).or_insert(effect);
        *known = effect.max(*known);
    }

    /// Takes note of an effect on all packets.
    pub(super) fn on_everything(&mut self, effect: Effect) {
        for family in Family::ALL {
            self.on_all(family, Direction::Out, effect);
            self.on_all(family, Direction::In, effect);
        }
    }

    /// Takes note of an effect on the packets to or from the pods of one node.
    pub(super) fn on_node(&mut self, node: Untrusted, direction: Direction, effect: Effect) {
        let known = self.nodes.entry((node, direction)).or_insert(effect);
        *known = effect.max(*known);
    }

    /// Takes note of an effect on a path. The outside is no node.
    pub(super) fn on_path(&mut self, path: &Path, effect: Effect) {
        if let Some(node) = path.node() {
            self.on_node(node.clone(), path.direction, effect);
        }
    }

    /// Iterates over the effects on the packets of all nodes.
    pub fn all(&self) -> impl Iterator<Item = (Family, Direction, Effect)> + '_ {
        self.all.iter().map(|((family, direction), effect)| (*family, *direction, *effect))
    }

    /// Iterates over the effects on the packets to or from the pods of single nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&Untrusted, Direction, Effect)> + '_ {
        self.nodes.iter().map(|((node, direction), effect)| (node, *direction, *effect))
    }
}
