//! What the rules of firewalls and NAT do with a packet, as far as they can be decoded.

use std::{cmp::Ordering, collections::HashMap, net::IpAddr};

use super::Packet;
use crate::{
    model::Family,
    state::{
        ChainPolicy, ChainType, Firewall, FirewallChain, FirewallRule, Hook, Host, MatchedChains, NatTable,
        Operator, PacketPart, RuleVerdict, Term,
    },
    text::Untrusted,
};

/// The deepest nesting of jumps that the kernel accepts (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
const MAX_DEPTH: usize = 16;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `NF_CT_STATE_BIT(IP_CT_NEW)` (linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 1 << 1;
const NEW: u32 = 1 << 3;
/// `RTN_UNICAST`, `RTN_LOCAL` (linux/rtnetlink.h).
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;

/// A packet on its way through the node: the first of a connection, or the reply to it.
#[derive(Debug, Clone)]
pub struct Passage<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The interface that it leaves through.
    pub output: &'a Untrusted,
    /// Whether it answers the first packet of a connection.
    pub is_reply: bool,
}

/// Where a packet was discarded or changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot<'a> {
    /// The chain.
    pub chain: &'a FirewallChain,
    /// The rule, or `None` for the policy of the chain.
    pub rule: Option<&'a FirewallRule>,
}

/// What the chains of a hook do with a packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Treatment<'a> {
    /// They let it pass.
    Passed,
    /// They discard it.
    Dropped(Spot<'a>),
    /// They change its source address.
    Masqueraded(Spot<'a>),
    /// It depends on a rule that cannot be decoded, or on more than addresses and interfaces: what would happen
    /// otherwise, and the rule.
    Unclear(Box<Treatment<'a>>, Spot<'a>),
}

/// The result of a chain.
enum ChainEnd<'a> {
    /// No rule decided.
    End,
    Accepted,
    Decided(Treatment<'a>),
}

/// Whether a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Maybe,
}

/// Returns what the filter chains at the hooks `prerouting` and `forward` do with a packet.
#[must_use]
pub fn filtered<'a>(firewall: &'a Firewall, host: &Host, passage: &Passage<'_>) -> Treatment<'a> {
    match through(firewall, host, passage, Hook::Prerouting, MatchedChains::All) {
        Treatment::Passed => through(firewall, host, passage, Hook::Forward, MatchedChains::All),
        other => other,
    }
}

/// Returns whether the chains at the hook `postrouting` change the source of a packet.
#[must_use]
pub fn translated<'a>(
    firewall: &'a Firewall,
    host: &Host,
    passage: &Passage<'_>,
    whose: MatchedChains,
) -> Treatment<'a> {
    through(firewall, host, passage, Hook::Postrouting, whose)
}

fn through<'a>(
    firewall: &'a Firewall,
    host: &Host,
    passage: &Passage<'_>,
    hook: Hook,
    whose: MatchedChains,
) -> Treatment<'a> {
    let family = Family::from(passage.packet.destination);
    let is_here = |chain: &&FirewallChain| {
        chain.family.covers(family)
            && (whose == MatchedChains::All || chain.table != NatTable::NAME)
            && chain.base.as_ref().is_some_and(|base| {
                // Before routing, NAT changes only the destination of services.
                base.hook == hook && (hook != Hook::Prerouting || base.kind != ChainType::Nat)
            })
    };
    let mut chains: Vec<&FirewallChain> = firewall.chains.iter().filter(is_here).collect();
    chains.sort_by_key(|chain| chain.base.as_ref().map(|base| base.priority));
    for chain in chains {
        let mut walker = Walker { firewall, host, passage, accepted_by: None };
        let ended = match walker.walk(chain, 0) {
            ChainEnd::Accepted => continue,
            ChainEnd::Decided(treatment) => treatment,
            ChainEnd::End => match chain.base.as_ref().map(|base| (base.policy, base.kind)) {
                Some((ChainPolicy::Drop, kind)) if kind != ChainType::Nat => {
                    Treatment::Dropped(Spot { chain, rule: None })
                }
                _ => continue,
            },
        };
        return match walker.accepted_by {
            Some(spot) => Treatment::Unclear(Box::new(ended), spot),
            None => ended,
        };
    }
    Treatment::Passed
}

/// Follows a packet through the chains of a base chain.
struct Walker<'a, 'p> {
    firewall: &'a Firewall,
    host: &'p Host,
    passage: &'p Passage<'p>,
    /// The first rule that may have accepted the packet before.
    accepted_by: Option<Spot<'a>>,
}

impl<'a> Walker<'a, '_> {
    fn walk(&mut self, chain: &'a FirewallChain, depth: usize) -> ChainEnd<'a> {
        for rule in &chain.rules {
            let spot = Spot { chain, rule: Some(rule) };
            let (applies, verdict) = self.judge(rule);
            let Some(verdict) = verdict else {
                // An effect that cannot be decoded may let the packet pass.
                if applies != Match::No && rule.terms.iter().any(|term| matches!(term, Term::Effect(_))) {
                    self.accepted_by.get_or_insert(spot);
                }
                continue;
            };
            let decided = match verdict {
                _ if applies == Match::No => continue,
                RuleVerdict::Jump(name) | RuleVerdict::Goto(name) => {
                    let Some(target) = self.target(chain, name).filter(|_| depth < MAX_DEPTH) else {
                        continue;
                    };
                    let before = self.accepted_by;
                    match self.walk(target, depth + 1) {
                        ChainEnd::End if matches!(verdict, RuleVerdict::Goto(_)) && applies == Match::Yes => {
                            return ChainEnd::End;
                        }
                        ChainEnd::End => continue,
                        ChainEnd::Accepted if applies == Match::Yes => return ChainEnd::Accepted,
                        ChainEnd::Accepted => {
                            self.accepted_by = before.or(Some(spot));
                            continue;
                        }
                        ChainEnd::Decided(treatment) => treatment,
                    }
                }
                RuleVerdict::Return if applies == Match::Yes => return ChainEnd::End,
                RuleVerdict::Accept if applies == Match::Yes => return ChainEnd::Accepted,
                RuleVerdict::Return | RuleVerdict::Accept => {
                    self.accepted_by.get_or_insert(spot);
                    continue;
                }
                RuleVerdict::Drop => Treatment::Dropped(spot),
                RuleVerdict::Masquerade => Treatment::Masqueraded(spot),
                RuleVerdict::Translate if applies == Match::Yes => return ChainEnd::Accepted,
                RuleVerdict::Translate => continue,
            };
            // A rule for some packets only, such as those to a port, does not decide about all others.
            if applies == Match::Yes {
                return ChainEnd::Decided(decided);
            }
        }
        ChainEnd::End
    }

    fn target(&self, from: &FirewallChain, name: &Untrusted) -> Option<&'a FirewallChain> {
        self.firewall
            .chains
            .iter()
            .find(|chain| chain.family == from.family && chain.table == from.table && chain.name == *name)
    }

    /// Returns whether a rule applies, and what it does then.
    fn judge(&self, rule: &'a FirewallRule) -> (Match, Option<&'a RuleVerdict>) {
        let mut registers: HashMap<u32, Option<Vec<u8>>> = HashMap::new();
        let mut applies = Match::Yes;
        for term in &rule.terms {
            let matches = match term {
                Term::Load { into, what } => {
                    registers.insert(*into, self.load(what));
                    continue;
                }
                Term::Mask { from, into, mask, invert } => {
                    let value = registers.get(from).cloned().flatten();
                    let masked = value.map(|value| masked(&value, mask, invert));
                    registers.insert(*into, masked);
                    continue;
                }
                Term::Compare { register, operator, value } => {
                    let loaded = registers.get(register).cloned().flatten();
                    match loaded.as_deref().and_then(|loaded| loaded.get(..value.len())) {
                        Some(loaded) => yes_if(compares(*operator, loaded.cmp(value))),
                        None => Match::Maybe,
                    }
                }
                Term::AddressType { source, destination } => {
                    let Packet { source: from, destination: to, .. } = self.passage.packet;
                    let meets = |types: &Option<crate::state::TypeSet>, address: &IpAddr| {
                        types.is_none_or(|types| types.meets(1 << self.address_type(*address)))
                    };
                    yes_if(meets(source, from) && meets(destination, to))
                }
                Term::State(states) => yes_if(states.meets(self.state())),
                // Nothing marks a packet between pods but rules that this model does not follow.
                Term::Mark { value, mask, not } => yes_if((value & mask == 0) != *not),
                Term::Verdict(verdict) => return (applies, Some(verdict)),
                Term::Neutral(_) | Term::Effect(_) => continue,
                Term::Condition(_) => Match::Maybe,
            };
            match matches {
                Match::No => return (Match::No, None),
                Match::Maybe => applies = Match::Maybe,
                Match::Yes => {}
            }
        }
        (applies, None)
    }

    fn load(&self, what: &PacketPart) -> Option<Vec<u8>> {
        let Packet { source, destination, input } = self.passage.packet;
        let part = |address: &IpAddr, offset: usize, length: usize| {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            bytes.get(offset..offset + length).map(<[u8]>::to_vec)
        };
        let index =
            |name: &Untrusted| self.host.link(name.as_raw()).map(|link| link.index.to_ne_bytes().to_vec());
        match what {
            PacketPart::Source { offset, length } => part(source, *offset, *length),
            PacketPart::Destination { offset, length } => part(destination, *offset, *length),
            PacketPart::InputName => Some(padded(input)),
            PacketPart::OutputName => Some(padded(self.passage.output)),
            PacketPart::InputIndex => index(input),
            PacketPart::OutputIndex => index(self.passage.output),
            PacketPart::Mark => Some(vec![0; 4]),
            PacketPart::Family => Some(vec![if destination.is_ipv4() { 2 } else { 10 }]),
            PacketPart::State => Some(self.state().to_ne_bytes().to_vec()),
            PacketPart::SourceType => Some(self.address_type(*source).to_ne_bytes().to_vec()),
            PacketPart::DestinationType => Some(self.address_type(*destination).to_ne_bytes().to_vec()),
            PacketPart::Other(_) => None,
        }
    }

    const fn state(&self) -> u32 {
        if self.passage.is_reply { ESTABLISHED } else { NEW }
    }

    fn address_type(&self, address: IpAddr) -> u32 {
        if self.host.owner_of(address).is_some() { LOCAL } else { UNICAST }
    }
}

/// A name as nft compares it: padded with zeros to `IFNAMSIZ` (linux/if.h).
fn padded(name: &Untrusted) -> Vec<u8> {
    let mut bytes = name.as_raw().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn masked(value: &[u8], mask: &[u8], invert: &[u8]) -> Vec<u8> {
    let byte = |(at, value): (usize, &u8)| {
        (value & mask.get(at).copied().unwrap_or(0)) ^ invert.get(at).copied().unwrap_or(0)
    };
    value.iter().enumerate().map(byte).collect()
}

const fn yes_if(matches: bool) -> Match {
    if matches { Match::Yes } else { Match::No }
}

const fn compares(operator: Operator, ordering: Ordering) -> bool {
    match operator {
        Operator::Equal => ordering.is_eq(),
        Operator::Unequal => ordering.is_ne(),
        Operator::Less => ordering.is_lt(),
        Operator::LessOrEqual => ordering.is_le(),
        Operator::Greater => ordering.is_gt(),
        Operator::GreaterOrEqual => ordering.is_ge(),
    }
}
