//! What the rules of firewalls and NAT do with a packet, as far as they can be decoded.

use std::{cmp::Ordering, collections::HashMap, net::IpAddr};

use super::Packet;
use crate::{
    model::Family,
    state::{
        ChainPolicy, ChainType, Firewall, FirewallChain, FirewallRule, Hook, Host, MatchedChains, NatTable,
        Operator, PacketPart, RuleVerdict, TableFamily, Term, TypeSet,
    },
    text::Untrusted,
};

/// The deepest nesting of jumps that the kernel accepts (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
const MAX_DEPTH: usize = 16;
/// The number of rules to follow for one packet. Chains can jump to each other in so many ways that there is no end.
const MAX_RULES: usize = 200_000;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `NF_CT_STATE_BIT(IP_CT_NEW)`, `NF_CT_STATE_UNTRACKED_BIT`
/// (linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 1 << 1;
const NEW: u32 = 1 << 3;
const UNTRACKED: u32 = 1 << 6;
/// `RTN_UNICAST`, `RTN_LOCAL` (linux/rtnetlink.h).
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;

/// Which of the node's hooks a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The node forwards it.
    Through,
    /// The node receives it.
    In,
    /// The node sends it itself. It has no incoming interface.
    Out,
}

impl Way {
    const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Through => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
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
    /// Where it comes from and goes to.
    pub way: Way,
    /// The interface that it leaves through. It does not matter if the node receives it.
    pub output: &'a Untrusted,
    /// Whether it answers the first packet of a connection.
    pub is_reply: bool,
}

/// A rule, or the policy of a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot<'a> {
    /// The chain.
    pub chain: &'a FirewallChain,
    /// The rule, or `None` for the policy of the chain.
    pub rule: Option<&'a FirewallRule>,
}

/// What firewalls and NAT do with a packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Treatment<'a> {
    /// Whether they let it pass.
    pub filter: Filtering<'a>,
    /// The rule that changes its source address.
    pub masquerade: Option<Spot<'a>>,
    /// The rule that changes its mark before it is routed, if the mark is unknown then.
    pub marked: Option<Spot<'a>>,
}

/// Whether firewalls let a packet pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filtering<'a> {
    /// They do.
    Passed,
    /// This drops it, if the conditions that cannot be decoded are met.
    MaybeDropped(Spot<'a>),
    /// The first drops it, unless the second, with a condition that cannot be decoded, accepts it.
    DroppedUnless(Spot<'a>, Spot<'a>),
    /// This drops it.
    Dropped(Spot<'a>),
}

impl Filtering<'_> {
    const fn severity(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::MaybeDropped(_) => 1,
            Self::DroppedUnless(..) => 2,
            Self::Dropped(_) => 3,
        }
    }
}

/// The end of a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ChainEnd<'a> {
    /// No rule decided.
    Through,
    Accepted,
    Dropped(Spot<'a>),
    Masqueraded(Spot<'a>),
}

/// Whether a rule applies. A condition of lower rank prevails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    /// To some packets between the two pods, but not to all of them.
    Some,
    /// That cannot be decoded.
    Maybe,
    Yes,
}

/// A value in a register.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RegisterValue {
    Known(Vec<u8>),
    Varies,
    Unknown,
    /// The kernel ends the rule, because the packet has no such part.
    Missing,
}

/// Returns what firewalls and NAT do with a packet.
#[must_use]
pub fn follow<'a>(
    firewall: &'a Firewall,
    host: &Host,
    passage: &Passage<'_>,
    whose: MatchedChains,
) -> Treatment<'a> {
    let family = Family::from(passage.packet.destination);
    let index = firewall
        .chains
        .iter()
        .map(|chain| ((chain.family, chain.table.as_raw(), chain.name.as_raw()), chain))
        .collect();
    let mut walker = Walker {
        index,
        host,
        passage,
        hook: Hook::Prerouting,
        mark: Some(0),
        marked: None,
        state: if passage.is_reply { ESTABLISHED } else { NEW },
        left: MAX_RULES,
        maybe: Maybe::default(),
    };
    let mut treatment = Treatment { filter: Filtering::Passed, masquerade: None, marked: None };
    for &hook in passage.way.hooks() {
        let is_here = |chain: &&FirewallChain| {
            chain.family.covers(family)
                && (whose == MatchedChains::All || chain.table != NatTable::NAME)
                && chain.base.as_ref().is_some_and(|base| {
                    // Elsewhere, NAT changes only the destination of services.
                    base.hook == hook && (hook == Hook::Postrouting || base.kind != ChainType::Nat)
                })
        };
        let mut chains: Vec<&FirewallChain> = firewall.chains.iter().filter(is_here).collect();
        chains.sort_by_key(|chain| chain.base.as_ref().map(|base| base.priority));
        walker.hook = hook;
        for chain in chains {
            let is_nat = chain.base.as_ref().is_some_and(|base| base.kind == ChainType::Nat);
            // NAT is decided by the first packet of a tracked connection.
            if is_nat && (passage.is_reply || walker.state == UNTRACKED || treatment.masquerade.is_some()) {
                continue;
            }
            let (filter, masquerade) = walker.base(chain, is_nat);
            treatment.masquerade = treatment.masquerade.or(masquerade);
            if filter.severity() > treatment.filter.severity() {
                treatment.filter = filter;
            }
        }
        if hook == Hook::Prerouting {
            treatment.marked = walker.marked;
        }
    }
    treatment
}

/// The first rules that may have decided, in the current base chain.
#[derive(Debug, Clone, Copy, Default)]
struct Maybe<'a> {
    accepted_by: Option<Spot<'a>>,
    dropped_by: Option<Spot<'a>>,
    returned_by: Option<Spot<'a>>,
}

/// Follows a packet through the chains.
struct Walker<'a, 'p> {
    index: HashMap<(TableFamily, &'a str, &'a str), &'a FirewallChain>,
    host: &'p Host,
    passage: &'p Passage<'p>,
    hook: Hook,
    /// The mark, if it is known.
    mark: Option<u32>,
    /// The rule that changed the mark.
    marked: Option<Spot<'a>>,
    state: u32,
    /// The number of rules that may still be followed.
    left: usize,
    maybe: Maybe<'a>,
}

impl<'a> Walker<'a, '_> {
    /// Follows a base chain. Returns what it does, and the rule that changes the source.
    fn base(&mut self, chain: &'a FirewallChain, is_nat: bool) -> (Filtering<'a>, Option<Spot<'a>>) {
        self.maybe = Maybe::default();
        let end = self.walk(chain, 0, Match::Yes);
        let drops = !is_nat && chain.base.as_ref().is_some_and(|base| base.policy == ChainPolicy::Drop);
        let policy = Spot { chain, rule: None };
        let Maybe { accepted_by, dropped_by, returned_by } = self.maybe;
        let dropped = |spot| match accepted_by {
            Some(by) => Filtering::DroppedUnless(spot, by),
            None => Filtering::Dropped(spot),
        };
        let passed = dropped_by.map_or(Filtering::Passed, Filtering::MaybeDropped);
        match end {
            ChainEnd::Masqueraded(spot) => (passed, Some(spot)),
            ChainEnd::Dropped(spot) => (dropped(spot), None),
            ChainEnd::Through if drops => (dropped(policy), None),
            ChainEnd::Accepted if drops => (returned_by.map_or(passed, Filtering::MaybeDropped), None),
            ChainEnd::Through | ChainEnd::Accepted => (passed, None),
        }
    }

    /// Follows a chain that is reached if `reached`.
    fn walk(&mut self, chain: &'a FirewallChain, depth: usize, reached: Match) -> ChainEnd<'a> {
        for rule in &chain.rules {
            let spot = Spot { chain, rule: Some(rule) };
            if self.left == 0 {
                self.maybe.dropped_by.get_or_insert(spot);
                self.maybe.accepted_by.get_or_insert(spot);
                return ChainEnd::Through;
            }
            self.left -= 1;
            let (applies, verdict) = self.judge(rule);
            let applies = applies.min(reached);
            if matches!(applies, Match::No | Match::Some) {
                continue;
            }
            let is_certain = applies == Match::Yes;
            for term in &rule.terms {
                match term {
                    Term::SetMark => (self.mark, self.marked) = (None, Some(spot)),
                    Term::Untrack if is_certain => self.state = UNTRACKED,
                    // Whether a packet is queued, or what a program does with it, is unknown.
                    Term::Effect(_) => {
                        self.maybe.dropped_by.get_or_insert(spot);
                        self.maybe.accepted_by.get_or_insert(spot);
                    }
                    _ => {}
                }
            }
            let Some(verdict) = verdict else { continue };
            match verdict {
                RuleVerdict::Jump(name) | RuleVerdict::Goto(name) => {
                    let key = (chain.family, chain.table.as_raw(), name.as_raw());
                    let Some(target) = self.index.get(&key).copied().filter(|_| depth < MAX_DEPTH) else {
                        continue;
                    };
                    match self.walk(target, depth + 1, applies) {
                        ChainEnd::Through => {
                            if is_certain && matches!(verdict, RuleVerdict::Goto(_)) {
                                return ChainEnd::Through;
                            }
                        }
                        end => return end,
                    }
                }
                RuleVerdict::Return if is_certain => return ChainEnd::Through,
                RuleVerdict::Return => {
                    self.maybe.returned_by.get_or_insert(spot);
                }
                RuleVerdict::Accept | RuleVerdict::Translate if is_certain => return ChainEnd::Accepted,
                RuleVerdict::Accept => {
                    self.maybe.accepted_by.get_or_insert(spot);
                }
                RuleVerdict::Drop if is_certain => return ChainEnd::Dropped(spot),
                RuleVerdict::Drop => {
                    self.maybe.dropped_by.get_or_insert(spot);
                }
                RuleVerdict::Masquerade if is_certain => return ChainEnd::Masqueraded(spot),
                RuleVerdict::Masquerade | RuleVerdict::Translate => {}
            }
        }
        ChainEnd::Through
    }

    /// Returns whether a rule applies, and what it does then.
    fn judge(&self, rule: &'a FirewallRule) -> (Match, Option<&'a RuleVerdict>) {
        let mut registers: HashMap<u32, RegisterValue> = HashMap::new();
        let mut applies = Match::Yes;
        for term in &rule.terms {
            let get = |register: &u32| registers.get(register).cloned().unwrap_or(RegisterValue::Unknown);
            let matches = match term {
                Term::Load { into, what } => {
                    registers.insert(*into, self.load(what));
                    continue;
                }
                Term::Mask { from, into, mask, invert } => {
                    let value = match get(from) {
                        RegisterValue::Known(value) => RegisterValue::Known(masked(&value, mask, invert)),
                        other => other,
                    };
                    registers.insert(*into, value);
                    continue;
                }
                Term::Compare { register, operator, value } => {
                    test(&get(register), value.len(), |loaded| compares(*operator, loaded.cmp(value)))
                }
                Term::Member { register, set, not } => {
                    let length = set.first().map_or(0, |range| range.from.len());
                    test(&get(register), length, |loaded| {
                        set.iter().any(|range| range.contains(loaded)) != *not
                    })
                }
                Term::Map { register, map } => {
                    let length = map.first().map_or(0, |(range, _)| range.from.len());
                    let mut found = None;
                    let matches = test(&get(register), length, |loaded| {
                        found =
                            map.iter().find(|(range, _)| range.contains(loaded)).map(|(_, verdict)| verdict);
                        found.is_some()
                    });
                    // Of an unknown value, the verdict is unknown: the most harmful one counts.
                    let worst = || {
                        map.iter().map(|(_, verdict)| verdict).find(|verdict| **verdict == RuleVerdict::Drop)
                    };
                    return (applies.min(matches), found.or_else(worst));
                }
                Term::AddressType { source, destination } => {
                    let Packet { source: from, destination: to, .. } = self.passage.packet;
                    let meets = |types: &Option<TypeSet>, address: &IpAddr| {
                        types.is_none_or(|types| types.meets(1 << self.address_type(*address)))
                    };
                    yes_if(meets(source, from) && meets(destination, to))
                }
                Term::State(states) => yes_if(states.meets(self.state)),
                Term::Mark { value, mask, not } => {
                    self.mark.map_or(Match::Maybe, |mark| yes_if((mark & mask == *value) != *not))
                }
                Term::Verdict(verdict) => return (applies, Some(verdict)),
                Term::Neutral(_) | Term::Effect(_) | Term::SetMark | Term::Untrack => continue,
                Term::Varies(_) => Match::Some,
                Term::Condition(_) | Term::Lookup { .. } => Match::Maybe,
            };
            applies = applies.min(matches);
            if applies == Match::No {
                return (Match::No, None);
            }
        }
        (applies, None)
    }

    fn load(&self, what: &PacketPart) -> RegisterValue {
        let Packet { source, destination, input } = self.passage.packet;
        let index = |name: &Untrusted| match self.host.link(name.as_raw()) {
            Some(link) => RegisterValue::Known(link.index.to_ne_bytes().to_vec()),
            None => RegisterValue::Unknown,
        };
        // Before routing, a packet has no outgoing interface.
        let has_output = !matches!(self.hook, Hook::Prerouting | Hook::Input);
        let has_input = self.passage.way != Way::Out;
        match what {
            PacketPart::Header { offset, length } => header(*source, *destination, *offset, *length),
            PacketPart::EtherType => {
                RegisterValue::Known(if destination.is_ipv4() { vec![0x08, 0x00] } else { vec![0x86, 0xdd] })
            }
            PacketPart::InputName if has_input => RegisterValue::Known(padded(input)),
            PacketPart::InputIndex if has_input => index(input),
            PacketPart::InputName | PacketPart::InputIndex => RegisterValue::Missing,
            PacketPart::OutputName if has_output => RegisterValue::Known(padded(self.passage.output)),
            PacketPart::OutputIndex if has_output => index(self.passage.output),
            PacketPart::OutputName | PacketPart::OutputIndex => RegisterValue::Missing,
            PacketPart::Mark => self
                .mark
                .map_or(RegisterValue::Unknown, |mark| RegisterValue::Known(mark.to_ne_bytes().to_vec())),
            PacketPart::Family => RegisterValue::Known(vec![if destination.is_ipv4() { 2 } else { 10 }]),
            PacketPart::State => RegisterValue::Known(self.state.to_ne_bytes().to_vec()),
            PacketPart::SourceType => RegisterValue::Known(self.address_type(*source).to_ne_bytes().to_vec()),
            PacketPart::DestinationType => {
                RegisterValue::Known(self.address_type(*destination).to_ne_bytes().to_vec())
            }
            PacketPart::Varies(_) => RegisterValue::Varies,
            PacketPart::Other(_) => RegisterValue::Unknown,
        }
    }

    fn address_type(&self, address: IpAddr) -> u32 {
        if self.host.owner_of(address).is_some() { LOCAL } else { UNICAST }
    }
}

/// Some bytes of the IP header: struct iphdr (linux/ip.h) or struct ipv6hdr (linux/ipv6.h).
fn header(source: IpAddr, destination: IpAddr, offset: usize, length: usize) -> RegisterValue {
    let (from, to, start) = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (from.octets().to_vec(), to.octets().to_vec(), 12),
        (IpAddr::V6(from), IpAddr::V6(to)) => (from.octets().to_vec(), to.octets().to_vec(), 8),
        _ => return RegisterValue::Unknown,
    };
    let addresses = [from, to].concat();
    let at = offset.checked_sub(start);
    match at.and_then(|at| addresses.get(at..at + length)) {
        Some(bytes) => RegisterValue::Known(bytes.to_vec()),
        // The protocol, the length and the like.
        None => RegisterValue::Varies,
    }
}

/// Applies a test to the first bytes of a value.
fn test(loaded: &RegisterValue, length: usize, test: impl FnOnce(&[u8]) -> bool) -> Match {
    match loaded {
        RegisterValue::Known(value) => value.get(..length).map_or(Match::Maybe, |value| yes_if(test(value))),
        RegisterValue::Varies => Match::Some,
        RegisterValue::Unknown => Match::Maybe,
        RegisterValue::Missing => Match::No,
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
