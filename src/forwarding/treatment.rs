//! A packet at a node, and what firewalls and NAT can do with it.

use std::{net::IpAddr, ptr};

use super::{Packet, Transport};
use crate::{
    state::{FirewallChain, FirewallRule, Hook, Term},
    text::Untrusted,
};

/// How a packet passes the node, which determines its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The node forwards the packet.
    Through,
    /// The node forwards the packet, after restoring the address of a pod that it had masqueraded.
    Returning,
    /// The node receives the packet.
    In,
    /// The node sends the packet itself, so there is no incoming interface.
    Out,
}

impl Way {
    pub(super) const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Through => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
            Self::Returning => &[Hook::Forward, Hook::Postrouting],
            Self::In => &[Hook::Prerouting, Hook::Input],
            Self::Out => &[Hook::Output, Hook::Postrouting],
        }
    }
}

/// A packet at the node: the first of a connection, or the reply to it.
#[derive(Debug, Clone)]
pub struct Passage<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The protocol of the packet.
    pub transport: Transport,
    /// The port of the service at the other end of the connection, for a protocol with ports.
    pub port: u16,
    /// How the packet passes the node.
    pub way: Way,
    /// The outgoing interface. It does not matter if the node receives the packet.
    pub output: &'a Untrusted,
    /// Whether the packet is the reply to the first packet of a connection.
    pub is_reply: bool,
}

/// A rule, or the policy of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The chain.
    pub chain: &'a FirewallChain,
    /// The rule, or `None` for the policy of the chain.
    pub rule: Option<&'a FirewallRule>,
}

impl PartialEq for Spot<'_> {
    fn eq(&self, other: &Self) -> bool {
        let address = |rule: Option<&FirewallRule>| rule.map(ptr::from_ref);
        ptr::eq(self.chain, other.chain) && address(self.rule) == address(other.rule)
    }
}

/// What firewalls and NAT do with a packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Treatment<'a> {
    /// Whether the packet passes.
    pub filter: Filtering<'a>,
    /// The rule that drops such packets depending on what differs between them, such as their length.
    pub partly: Option<Conditional<'a>>,
    /// The rule that changes its destination address.
    pub redirected: Option<AddressChange<'a>>,
    /// The rule that changes its source address.
    pub masquerade: Option<AddressChange<'a>>,
    /// The rule that overwrites a part of its headers so that it does not arrive, or not unchanged.
    pub overwritten: Option<Overwriting<'a>>,
    /// The rule that changes its mark before it is routed, and the mark, if it is known.
    pub marked: Option<(Spot<'a>, Option<u32>)>,
    /// The rule that excludes it from connection tracking, and so from NAT.
    pub untracked: Option<Spot<'a>>,
    /// The zone of its connection, and the rule that sets it.
    pub zone: Option<(Spot<'a>, u16)>,
}

/// A rule that applies depending on something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditional<'a> {
    /// The rule.
    pub spot: Spot<'a>,
    /// The rule with the condition: the rule itself, one that leads to it, or one before it.
    pub depends_on: Spot<'a>,
}

/// A change of an address by NAT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddressChange<'a> {
    /// The rule.
    pub spot: Spot<'a>,
    /// The rule with a condition that cannot be decided, if there is one.
    pub depends_on: Option<Spot<'a>>,
}

impl AddressChange<'_> {
    /// Returns `true` if the rule certainly applies.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        self.depends_on.is_none()
    }
}

/// A rule that may change the destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Translation<'a> {
    /// The rule.
    pub spot: Spot<'a>,
    /// Whether the rule certainly changes the destination, rather than another rule or none.
    pub is_certain: bool,
    /// The new destination, if it can be decoded.
    pub destination: Option<NewDestination>,
    /// The mark of the packet afterward, if it is known.
    pub mark: Option<u32>,
}

/// The destination that NAT gives to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewDestination {
    /// The node itself.
    Node,
    /// One of the addresses from one to another, or the same address as before, and this port.
    Other {
        /// The first and the last address, if the address changes.
        addresses: Option<(IpAddr, IpAddr)>,
        /// The port, if it is known.
        port: Option<u16>,
    },
}

impl NewDestination {
    /// Returns the destination that a rule with the verdict [`RuleVerdict::Translate`] gives to a packet.
    pub(super) fn of(rule: &FirewallRule) -> Option<Self> {
        rule.terms.iter().find_map(|term| match term {
            Term::ThisNode => Some(Self::Node),
            Term::NewDestination { from, to, port } => {
                Some(Self::Other { addresses: (*from).zip(*to), port: *port })
            }
            _ => None,
        })
    }
}

/// A rule that overwrites a part of a header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overwriting<'a> {
    /// The rule.
    pub spot: Spot<'a>,
    /// The part.
    pub part: HeaderPart,
    /// The rule with a condition that cannot be decided, if there is one.
    pub depends_on: Option<Spot<'a>>,
}

/// A part of a header that must not change on the way to a pod. The most important part comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderPart {
    /// The destination address.
    Destination,
    /// The source address.
    Source,
    /// The ports.
    Ports,
    /// The time to live (IPv6: the hop limit), which is this number afterward: too low to reach the destination.
    TimeToLive(u8),
    /// Another part, whose effect is unknown.
    Unknown,
}

/// Whether firewalls let a packet pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filtering<'a> {
    /// The packet passes.
    Passed,
    /// This rule or policy drops the packet, if conditions that cannot be decoded are met.
    MaybeDropped(Spot<'a>),
    /// The first drops the packet, unless the second, which has a condition that cannot be decoded, accepts it.
    DroppedUnless(Spot<'a>, Spot<'a>),
    /// This rule or policy drops the packet.
    Dropped(Spot<'a>),
}

impl Filtering<'_> {
    pub(super) const fn severity(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::MaybeDropped(_) => 1,
            Self::DroppedUnless(..) => 2,
            Self::Dropped(_) => 3,
        }
    }
}
