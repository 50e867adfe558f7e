//! How good the path of a packet is, compared with the planned one.

use std::net::IpAddr;

use super::{
    Hop, Verdict,
    ends::{Direction, LocalEnd},
};
use crate::text::Untrusted;

/// How good a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The node does not forward the packet, or only by its default route.
    Lost,
    /// It forwards the packet via another next hop.
    Elsewhere,
    /// It forwards the packet as planned.
    Planned,
}

/// The ranks of some [`Paths`](super::Paths), in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger(pub(super) Vec<Rank>);

/// The interface through which a packet arrives, and the planned next hop.
pub(super) struct Course<'a> {
    pub local_end: LocalEnd,
    /// Whether the other end is outside the cluster.
    pub is_outside: bool,
    pub direction: Direction,
    /// The interface that it comes in through; `None` if the node itself sends it.
    pub input: Option<&'a Untrusted>,
    pub gateway: Option<IpAddr>,
    pub device: &'a Untrusted,
}

impl Course<'_> {
    pub fn rank(&self, verdict: &Verdict) -> Rank {
        let is_expected = |hop: &Hop| hop.gateway == self.gateway && hop.device == *self.device;
        match verdict {
            Verdict::Local if self.is_to_node() => Rank::Planned,
            _ if self.is_to_node() => Rank::Lost,
            Verdict::Forwarded { hops, .. } if hops.len() == 1 && is_expected(&hops[0]) => Rank::Planned,
            Verdict::Forwarded { hops, .. }
                if self.is_outside
                    && self.direction == Direction::Out
                    && hops.iter().all(|hop| !self.is_input(hop)) =>
            {
                Rank::Planned
            }
            Verdict::Forwarded { length: 1.., .. } if self.is_diverted(verdict) => Rank::Elsewhere,
            _ => Rank::Lost,
        }
    }

    /// Returns `true` if the node forwards the packet to a next hop that may deliver it.
    pub fn is_diverted(&self, verdict: &Verdict) -> bool {
        // A packet that is sent back reaches no other node, and one that is sent to a router does not reach this node's pods.
        let is_dead_end =
            |hop: &Hop| self.is_input(hop) || (self.direction == Direction::In && hop.gateway.is_some());
        matches!(verdict, Verdict::Forwarded { hops, .. } if !hops.iter().any(is_dead_end))
            && !self.is_to_node()
    }

    pub fn is_to_node(&self) -> bool {
        (self.local_end, self.direction) == (LocalEnd::Node, Direction::In)
    }

    fn is_input(&self, hop: &Hop) -> bool {
        self.input == Some(&hop.device)
    }
}

impl Ledger {
    /// Returns the indexes of the paths that are ranked worse than in `before`.
    #[must_use]
    pub fn worse_than(&self, before: &Self) -> Vec<usize> {
        let pairs = self.0.iter().zip(&before.0).enumerate();
        pairs.filter(|(_, (now, before))| now < before).map(|(index, _)| index).collect()
    }

    /// Returns the indexes of the paths that are not as planned.
    #[must_use]
    pub fn blocked(&self) -> Vec<usize> {
        let ranks = self.0.iter().enumerate();
        ranks.filter(|(_, rank)| **rank != Rank::Planned).map(|(index, _)| index).collect()
    }
}
