//! Evaluates what the rules of firewalls and NAT do with a packet, as far as they can be decoded.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    ForwardingModel, Packet, Transport,
    register::{Byte, Match, Registers},
    sample,
    treatment::{
        AddressChange, Conditional, Filtering, HeaderPart, NewDestination, Overwriting, Passage, Spot,
        Translation, Treatment, Way,
    },
};
use crate::{
    model::Family,
    state::{
        ChainPolicy, ChainType, Firewall, FirewallChain, FirewallRule, Hook, KeyRange, Link, MatchedChains,
        NatTable, PacketHeader, PacketPart, RuleVerdict, TableFamily, Term, TypeSet,
    },
    text::Untrusted,
};

/// The deepest nesting of jumps that the kernel accepts (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
pub const MAX_DEPTH: usize = 16;
/// The maximum number of rules to follow for one packet, because chains can jump to each other in exponentially many ways.
const MAX_RULES: usize = 200_000;
/// `NF_IP_PRI_CONNTRACK` (linux/netfilter_ipv4.h).
const CONNECTION_TRACKING: i32 = -200;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `NF_CT_STATE_BIT(IP_CT_NEW)`, `NF_CT_STATE_UNTRACKED_BIT`
/// (linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 1 << 1;
const NEW: u32 = 1 << 3;
const UNTRACKED: u32 = 1 << 6;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_CONFIRMED`, `IPS_SRC_NAT`, `IPS_DST_NAT`, `IPS_NAT_DONE_MASK`
/// (linux/netfilter/nf_conntrack_common.h).
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
const CONFIRMED: u32 = 1 << 3;
const SOURCE_NAT: u32 = 1 << 4;
const DESTINATION_NAT: u32 = 1 << 5;
const NAT_DONE: u32 = 0x180;
/// `RTN_UNICAST`, `RTN_LOCAL`, `RTN_MULTICAST` (linux/rtnetlink.h).
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
const MULTICAST: u32 = 5;

/// The end of a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ChainEnd<'a> {
    /// No rule decided.
    Through,
    Accepted,
    Dropped(Spot<'a>),
    Masqueraded(Spot<'a>),
    Redirected(Spot<'a>),
}

/// The chains of a node, indexed for packets to follow.
#[derive(Debug)]
pub struct ChainIndex<'a> {
    firewall: &'a Firewall,
    by_name: HashMap<(TableFamily, &'a str, &'a str), &'a FirewallChain>,
    /// Whether a rule changes the marks of connections, which are 0 before.
    sets_connection_marks: bool,
    /// The number of rules that packets have passed.
    steps: Cell<usize>,
}

impl<'a> ChainIndex<'a> {
    /// Indexes the chains of a node.
    #[must_use]
    pub fn new(firewall: &'a Firewall) -> Self {
        let key = |chain: &'a FirewallChain| (chain.family, chain.table.as_raw(), chain.name.as_raw());
        let rules = || firewall.chains.iter().flat_map(|chain| &chain.rules);
        Self {
            firewall,
            by_name: firewall.chains.iter().map(|chain| (key(chain), chain)).collect(),
            sets_connection_marks: rules().any(|rule| rule.terms.contains(&Term::SetConnectionMark)),
            steps: Cell::new(0),
        }
    }

    /// Returns the number of rules that packets have passed so far, a measure of the time spent.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.get()
    }

    /// Returns what firewalls and NAT do with a packet on a node.
    #[must_use]
    pub fn follow(
        &self,
        model: &ForwardingModel<'_>,
        passage: &Passage<'_>,
        whose: MatchedChains,
    ) -> Treatment<'a> {
        let mut walker = self.walker(model, passage);
        self.pass(&mut walker, passage.way.hooks(), whose);
        walker.treatment
    }

    /// Returns what firewalls and NAT do with a packet whose destination has been changed: `passage` has the new destination.
    /// `mark` is the mark of the packet, if it is known.
    #[must_use]
    pub fn follow_translated(
        &self,
        model: &ForwardingModel<'_>,
        passage: &Passage<'_>,
        mark: Option<u32>,
    ) -> Treatment<'a> {
        let mut walker = Walker { mark, is_translated: true, ..self.walker(model, passage) };
        let hooks: Vec<Hook> =
            passage.way.hooks().iter().copied().filter(|hook| *hook != Hook::Prerouting).collect();
        self.pass(&mut walker, &hooks, MatchedChains::All);
        walker.treatment
    }

    /// Returns `true` if a rule in the table of `chain` accepts packets by their ports, or leads to one that may.
    #[must_use]
    pub fn accepts_by_port(&self, chain: &FirewallChain) -> bool {
        let is_port = |term: &Term| {
            matches!(term, Term::Load { part: PacketPart::Transport { offset: 0..4, length: 2..=4 }, .. })
        };
        let accepts = |term: &Term| {
            matches!(
                term,
                Term::Verdict(RuleVerdict::Accept | RuleVerdict::Jump(_) | RuleVerdict::Goto(_))
                    | Term::Map { .. }
            )
        };
        let same =
            self.firewall.chains.iter().filter(|it| it.family == chain.family && it.table == chain.table);
        same.flat_map(|it| &it.rules)
            .any(|rule| rule.terms.iter().any(is_port) && rule.terms.iter().any(accepts))
    }

    /// Returns the rules that may change the destination of a packet before it is routed, in the order in which it meets them.
    #[must_use]
    pub fn translations(&self, model: &ForwardingModel<'_>, passage: &Passage<'_>) -> Vec<Translation<'a>> {
        self.survey(model, passage, false).translations
    }

    /// Returns the ports that the rules on the way to a changed destination name.
    #[must_use]
    pub fn ports(&self, model: &ForwardingModel<'_>, passage: &Passage<'_>) -> BTreeSet<u16> {
        let DestinationSurvey { ports, translations, .. } = self.survey(model, passage, true);
        if translations.is_empty() { BTreeSet::new() } else { ports }
    }

    fn survey(
        &self,
        model: &ForwardingModel<'_>,
        passage: &Passage<'_>,
        is_for_all_ports: bool,
    ) -> DestinationSurvey<'a> {
        let survey = DestinationSurvey { is_for_all_ports, ..DestinationSurvey::default() };
        let mut walker = Walker { survey: Some(survey), ..self.walker(model, passage) };
        let hook = if passage.way == Way::Out { Hook::Output } else { Hook::Prerouting };
        self.pass(&mut walker, &[hook], MatchedChains::All);
        walker.survey.unwrap_or_default()
    }

    fn walker<'p>(&'p self, model: &'p ForwardingModel<'p>, passage: &'p Passage<'p>) -> Walker<'a, 'p> {
        let connection_mark = self.connection_mark(model, passage);
        Walker { connection_mark, ..self.unmarked_walker(model, passage) }
    }

    /// Returns the mark of the connection that a packet belongs to: 0, unless a rule changes that of its packets. `None` if it is
    /// unknown.
    fn connection_mark(&self, model: &ForwardingModel<'_>, passage: &Passage<'_>) -> Option<u32> {
        if !self.sets_connection_marks {
            return Some(0);
        }
        let (Way::Through | Way::Returning, Some(input)) = (passage.way, &passage.packet.input) else {
            return None;
        };
        let Packet { source, destination, .. } = passage.packet;
        let opposite =
            Packet { source: *destination, destination: *source, input: Some(passage.output.clone()) };
        let opposite = Passage { packet: &opposite, output: input, is_reply: !passage.is_reply, ..*passage };
        let keeps_mark = |passage: Passage<'_>| {
            // Replies to masqueraded packets also pass the other hooks.
            let passage = Passage { way: Way::Through, ..passage };
            let mut walker = self.unmarked_walker(model, &passage);
            self.pass(&mut walker, passage.way.hooks(), MatchedChains::All);
            walker.connection_mark == Some(0)
        };
        (keeps_mark(passage.clone()) && keeps_mark(opposite)).then_some(0)
    }

    fn unmarked_walker<'p>(
        &'p self,
        model: &'p ForwardingModel<'p>,
        passage: &'p Passage<'p>,
    ) -> Walker<'a, 'p> {
        Walker {
            index: self,
            model,
            passage,
            hook: Hook::Prerouting,
            mark: Some(0),
            connection_mark: Some(0),
            state: match passage.is_reply {
                _ if passage.transport.is_untracked() => UNTRACKED,
                true => ESTABLISHED,
                false => NEW,
            },
            left: MAX_RULES,
            maybe: Maybe::default(),
            gate: None,
            doubt: None,
            is_tracked: false,
            is_translated: false,
            survey: None,
            treatment: Treatment {
                filter: Filtering::Passed,
                partly: None,
                redirected: None,
                masquerade: None,
                overwritten: None,
                marked: None,
                untracked: None,
                zone: None,
            },
        }
    }

    /// Leads a packet through the chains at some hooks.
    fn pass(&self, walker: &mut Walker<'a, '_>, hooks: &[Hook], whose: MatchedChains) {
        let family = Family::from(walker.passage.packet.destination);
        for &hook in hooks {
            let is_here = |chain: &&FirewallChain| {
                chain.family.covers(family)
                    && (whose == MatchedChains::All || chain.table != NatTable::NAME)
                    && chain.base.as_ref().is_some_and(|base| {
                        // There, NAT changes only the source of packets to the node.
                        base.hook == hook && (hook != Hook::Input || base.kind != ChainType::Nat)
                    })
            };
            let mut chains: Vec<&FirewallChain> = self.firewall.chains.iter().filter(is_here).collect();
            // Of several chains with the same priority, packets pass the newest first (`nf_hook_entries_grow`,
            // net/netfilter/core.c).
            chains.reverse();
            chains.sort_by_key(|chain| chain.base.as_ref().map(|base| base.priority));
            walker.hook = hook;
            for chain in chains {
                walker.base(chain);
            }
            // The new destination changes the route.
            if walker.treatment.redirected.is_some_and(|redirected| redirected.is_certain()) {
                break;
            }
        }
        self.steps.set(self.steps.get() + MAX_RULES - walker.left);
    }
}

/// Returns `true` for a rule that applies below a rate.
fn is_below_rate(spot: &Spot<'_>) -> bool {
    let is_rate =
        |term: &Term| matches!(term, Term::Varies(name) if *name == "limit" || *name == "hashlimit");
    spot.rule.is_some_and(|rule| rule.terms.iter().any(is_rate))
}

/// What a packet meets that could go to any port.
#[derive(Debug, Default)]
struct DestinationSurvey<'a> {
    /// Whether the packet can go to any port.
    is_for_all_ports: bool,
    /// The ports of the rules that may apply.
    ports: BTreeSet<u16>,
    translations: Vec<Translation<'a>>,
}

impl DestinationSurvey<'_> {
    /// Takes note of a value that may be a port, or several values with a word each.
    fn add_ports(&mut self, value: &[u8]) {
        self.ports.extend(value.chunks(4).filter_map(|word| match word {
            [high, low] | [high, low, 0, 0] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }));
    }

    fn add_ports_of(&mut self, range: &KeyRange) {
        self.add_ports(&range.from);
        range.to.iter().for_each(|to| self.add_ports(to));
    }
}

/// The first rules that may have decided, in the current base chain.
#[derive(Debug, Clone, Copy, Default)]
struct Maybe<'a> {
    accepted_by: Option<Spot<'a>>,
    dropped_by: Option<Spot<'a>>,
    returned_by: Option<Spot<'a>>,
    /// A rule that accepts packets below a rate.
    limited_by: Option<Spot<'a>>,
}

/// Follows a packet through the chains.
struct Walker<'a, 'p> {
    index: &'p ChainIndex<'a>,
    model: &'p ForwardingModel<'p>,
    passage: &'p Passage<'p>,
    hook: Hook,
    /// The mark, if it is known.
    mark: Option<u32>,
    /// The mark of the connection, if it is known.
    connection_mark: Option<u32>,
    state: u32,
    /// The number of rules that may still be followed.
    left: usize,
    maybe: Maybe<'a>,
    /// The rule with the undecided condition by which the packet reaches the current chain.
    gate: Option<Spot<'a>>,
    /// An earlier rule that may have ended the current chain, or one that led to it.
    doubt: Option<Spot<'a>>,
    /// Whether connection tracking has seen the packet.
    is_tracked: bool,
    /// Whether NAT has changed the destination of the packet.
    is_translated: bool,
    /// What the packet meets, if that is of interest.
    survey: Option<DestinationSurvey<'a>>,
    treatment: Treatment<'a>,
}

impl<'a> Walker<'a, '_> {
    /// Follows a base chain.
    fn base(&mut self, chain: &'a FirewallChain) {
        let is_nat = chain.base.as_ref().is_some_and(|base| base.kind == ChainType::Nat);
        // NAT is decided by the first packet of a tracked connection.
        let is_masqueraded = self.treatment.masquerade.is_some_and(|masquerade| masquerade.is_certain());
        let is_decided = self.hook == Hook::Postrouting && is_masqueraded;
        let is_decided = is_decided || self.is_translated && self.hook == Hook::Output;
        if is_nat && (self.passage.is_reply || self.state == UNTRACKED || is_decided) {
            return;
        }
        self.maybe = Maybe::default();
        self.is_tracked = chain.base.as_ref().is_some_and(|base| base.priority > CONNECTION_TRACKING);
        let end = self.walk(chain, 0, Match::Yes);
        let drops = chain.base.as_ref().is_some_and(|base| base.policy == ChainPolicy::Drop);
        let policy = Spot { chain, rule: None };
        let Maybe { accepted_by, dropped_by, returned_by, limited_by } = self.maybe;
        let passed = dropped_by.map_or(Filtering::Passed, Filtering::MaybeDropped);
        let partly = &mut self.treatment.partly;
        let mut dropped = |spot| match (accepted_by, limited_by) {
            (Some(by), _) => Filtering::DroppedUnless(spot, by),
            (None, Some(depends_on)) => {
                partly.get_or_insert(Conditional { spot, depends_on });
                passed
            }
            (None, None) => Filtering::Dropped(spot),
        };
        let filter = match end {
            ChainEnd::Masqueraded(spot) => {
                self.treatment.masquerade = Some(AddressChange { spot, depends_on: None });
                passed
            }
            ChainEnd::Redirected(spot) => {
                self.treatment.redirected = Some(AddressChange { spot, depends_on: None });
                passed
            }
            ChainEnd::Dropped(spot) => dropped(spot),
            ChainEnd::Through if drops => dropped(policy),
            ChainEnd::Accepted if drops => returned_by.map_or(passed, Filtering::MaybeDropped),
            ChainEnd::Through | ChainEnd::Accepted => passed,
        };
        if filter.severity() > self.treatment.filter.severity() {
            self.treatment.filter = filter;
        }
    }

    /// Follows a chain; `reached` says whether the packet certainly reaches it.
    fn walk(&mut self, chain: &'a FirewallChain, depth: usize, reached: Match) -> ChainEnd<'a> {
        let doubt = self.doubt;
        let end = self.rules(chain, depth, reached);
        self.doubt = doubt;
        end
    }

    fn rules(&mut self, chain: &'a FirewallChain, depth: usize, reached: Match) -> ChainEnd<'a> {
        for rule in &chain.rules {
            let spot = Spot { chain, rule: Some(rule) };
            if self.left == 0 {
                self.maybe.dropped_by.get_or_insert(spot);
                self.maybe.accepted_by.get_or_insert(spot);
                return ChainEnd::Through;
            }
            self.left -= 1;
            let (applies, verdicts) = self.judge(&spot, rule, reached);
            if applies == Match::No {
                continue;
            }
            self.survey_rule(rule);
            let applies = if verdicts.len() > 1 { applies.min(Match::Maybe) } else { applies };
            for verdict in verdicts {
                if let Some(end) = self.conclude(&spot, verdict, applies, depth) {
                    return end;
                }
            }
        }
        ChainEnd::Through
    }

    /// Applies the verdict of a rule. Returns the end of its chain, unless the next rule follows.
    fn conclude(
        &mut self,
        spot: &Spot<'a>,
        verdict: &'a RuleVerdict,
        applies: Match,
        depth: usize,
    ) -> Option<ChainEnd<'a>> {
        let is_certain = applies == Match::Yes;
        // `NETMAP` changes the destination here, and the source after routing.
        let is_before_routing = matches!(self.hook, Hook::Prerouting | Hook::Output);
        let verdict = match verdict {
            RuleVerdict::Masquerade if is_before_routing => &RuleVerdict::Translate,
            other => other,
        };
        if *verdict == RuleVerdict::Translate && applies > Match::Rare {
            self.note_translation(spot, is_certain && self.doubted().is_none());
        }
        match verdict {
            RuleVerdict::Jump(name) | RuleVerdict::Goto(name) => {
                let key = (spot.chain.family, spot.chain.table.as_raw(), name.as_raw());
                let target = self.index.by_name.get(&key).copied().filter(|_| depth < MAX_DEPTH)?;
                let gate = self.gate;
                if !is_certain {
                    self.gate.get_or_insert(*spot);
                }
                let end = self.walk(target, depth + 1, applies);
                self.gate = gate;
                let is_last = matches!(verdict, RuleVerdict::Goto(_));
                if is_last && applies == Match::Maybe {
                    self.doubt.get_or_insert(*spot);
                }
                match end {
                    ChainEnd::Through => (is_certain && is_last).then_some(ChainEnd::Through),
                    end => Some(end),
                }
            }
            RuleVerdict::Return if is_certain => Some(ChainEnd::Through),
            RuleVerdict::Accept if is_certain => Some(ChainEnd::Accepted),
            RuleVerdict::Drop if is_certain => Some(ChainEnd::Dropped(*spot)),
            RuleVerdict::Masquerade | RuleVerdict::Translate if is_certain && self.doubted().is_none() => {
                Some(match verdict {
                    RuleVerdict::Masquerade => ChainEnd::Masqueraded(*spot),
                    _ => ChainEnd::Redirected(*spot),
                })
            }
            _ if applies == Match::Rare => None,
            RuleVerdict::Masquerade | RuleVerdict::Translate => {
                let change = AddressChange { spot: *spot, depends_on: Some(self.condition_of(spot)) };
                match verdict {
                    RuleVerdict::Masquerade => self.treatment.masquerade.get_or_insert(change),
                    _ => self.treatment.redirected.get_or_insert(change),
                };
                // The packet passes the chain, whether or not it reaches the rule.
                is_certain.then_some(ChainEnd::Accepted)
            }
            RuleVerdict::Drop if applies == Match::Some => {
                let depends_on = self.gate.unwrap_or(*spot);
                self.treatment.partly.get_or_insert(Conditional { spot: *spot, depends_on });
                None
            }
            RuleVerdict::Accept if applies == Match::Some && is_below_rate(spot) => {
                self.maybe.limited_by.get_or_insert(*spot);
                None
            }
            _ if applies == Match::Some => None,
            RuleVerdict::Return => {
                self.maybe.returned_by.get_or_insert(*spot);
                self.doubt.get_or_insert(*spot);
                None
            }
            RuleVerdict::Accept => {
                self.maybe.accepted_by.get_or_insert(*spot);
                None
            }
            RuleVerdict::Drop => {
                self.maybe.dropped_by.get_or_insert(*spot);
                None
            }
        }
    }

    /// Takes note of the ports that a rule compares, which applies or may apply.
    fn survey_rule(&mut self, rule: &FirewallRule) {
        let Some(survey) = self.survey.as_mut().filter(|survey| survey.is_for_all_ports) else { return };
        for term in &rule.terms {
            match term {
                Term::Compare { value, .. } => survey.add_ports(value),
                Term::Member { set, .. } => set.iter().for_each(|range| survey.add_ports_of(range)),
                _ => {}
            }
        }
    }

    fn note_translation(&mut self, spot: &Spot<'a>, applies: bool) {
        let mark = self.mark;
        let Some(survey) = &mut self.survey else { return };
        if survey.translations.iter().any(|known| known.spot == *spot) {
            return;
        }
        let is_certain = applies && survey.translations.is_empty();
        let destination = spot.rule.and_then(NewDestination::of);
        survey.translations.push(Translation { spot: *spot, is_certain, destination, mark });
    }

    /// Returns the earlier rule that may have kept the packet from the current one.
    const fn doubted(&self) -> Option<Spot<'a>> {
        match self.doubt {
            Some(doubt) => Some(doubt),
            None => self.maybe.accepted_by,
        }
    }

    /// Returns the rule with the condition on which `spot` depends.
    fn condition_of(&self, spot: &Spot<'a>) -> Spot<'a> {
        self.doubted().or(self.gate).unwrap_or(*spot)
    }

    /// Returns whether a rule applies, and its possible verdicts. `reached` says whether the packet certainly reaches the rule.
    fn judge(
        &mut self,
        spot: &Spot<'a>,
        rule: &'a FirewallRule,
        reached: Match,
    ) -> (Match, Vec<&'a RuleVerdict>) {
        let mut registers = Registers::new();
        let mut applies = reached;
        for term in &rule.terms {
            let matches = match term {
                Term::Load { into, part } => match self.load(part) {
                    Some(bytes) => {
                        registers.store(*into, bytes);
                        continue;
                    }
                    // The kernel ends the rule, because the packet has no such part.
                    None => Match::No,
                },
                Term::Constant { into, value } => {
                    registers.store(*into, value.iter().copied().map(Byte::known));
                    continue;
                }
                Term::Mask { from, into, mask, invert } => {
                    registers.mask(*from, *into, mask, invert);
                    continue;
                }
                Term::Compare { register, operator, value } => registers.compare(*register, *operator, value),
                Term::Member { register, set, fields, not } => {
                    registers.is_member(*register, set, fields, *not)
                }
                Term::Map { register, fields, map } => {
                    if let Some(survey) = self.survey.as_mut().filter(|survey| survey.is_for_all_ports) {
                        let is_possible =
                            |range: &&KeyRange| registers.is_in(*register, range, fields) != Match::No;
                        map.iter()
                            .map(|(range, _)| range)
                            .filter(is_possible)
                            .for_each(|range| survey.add_ports_of(range));
                    }
                    let (matches, verdicts) = mapped(&registers, *register, fields, map);
                    return (applies.min(matches), verdicts);
                }
                Term::AddressType { source, destination } => {
                    let Packet { source: from, destination: to, .. } = self.passage.packet;
                    let meets = |types: &Option<TypeSet>, address: &IpAddr| {
                        types.is_none_or(|types| types.meets(1 << self.address_type(*address)))
                    };
                    Match::yes_if(meets(source, from) && meets(destination, to))
                }
                Term::State(states) => Match::yes_if(states.meets(self.state)),
                Term::Mark { value, mask, not } => {
                    self.mark.map_or(Match::Maybe, |mark| Match::yes_if((mark & mask == *value) != *not))
                }
                Term::Verdict(verdict) => return (applies, vec![verdict]),
                Term::SetMark => {
                    self.set_mark(spot, None, applies);
                    continue;
                }
                Term::MarkFrom { register } => {
                    self.set_mark(spot, registers.number(*register), applies);
                    continue;
                }
                Term::Swap { from, into, length, size } => {
                    registers.swap(*from, *into, *length, *size);
                    continue;
                }
                Term::Overwrite { register, header, offset, length } => {
                    self.overwrite(spot, *header, *offset, &registers.bytes(*register, *length), applies);
                    continue;
                }
                Term::ReduceTimeToLive(by) => {
                    // The initial value on Linux (`net.ipv4.ip_default_ttl`).
                    let left = 64_u8.saturating_sub(*by);
                    self.note_overwriting(spot, self.too_low(left), applies);
                    continue;
                }
                Term::SetZone(zone) => {
                    // Later, the packet has a connection, and the rule has no effect.
                    if applies == Match::Yes && !self.is_tracked {
                        self.treatment.zone = Some((*spot, *zone));
                    }
                    continue;
                }
                Term::Untrack => {
                    if applies == Match::Yes {
                        self.state = UNTRACKED;
                        self.treatment.untracked.get_or_insert(*spot);
                    }
                    continue;
                }
                // Whether a packet is queued, or what a program does with it, is unknown.
                Term::Effect(_) => {
                    if applies > Match::Some {
                        self.maybe.dropped_by.get_or_insert(*spot);
                        self.maybe.accepted_by.get_or_insert(*spot);
                    }
                    continue;
                }
                Term::SetConnectionMark => {
                    self.connection_mark = None;
                    continue;
                }
                Term::Neutral(_) | Term::NewSource { .. } | Term::NewDestination { .. } | Term::ThisNode => {
                    continue;
                }
                Term::Varies(_) => Match::Some,
                Term::Rare(_) => Match::Rare,
                Term::Condition(_) | Term::Lookup { .. } => {
                    registers = Registers::new();
                    Match::Maybe
                }
            };
            applies = applies.min(matches);
            if applies == Match::No {
                break;
            }
        }
        (applies, Vec::new())
    }

    /// Notes what a rule overwrites, unless the packet has the same bytes already.
    fn overwrite(
        &mut self,
        spot: &Spot<'a>,
        header: PacketHeader,
        offset: usize,
        bytes: &[Byte],
        applies: Match,
    ) {
        let Passage { packet, transport, port, is_reply, .. } = *self.passage;
        let family = Family::from(packet.destination);
        let before = match header {
            PacketHeader::Network => sample::network(packet, transport),
            PacketHeader::Transport => sample::transport(family, transport, port, is_reply),
        };
        let changed = bytes.iter().enumerate().map(|(at, byte)| (offset + at, *byte));
        let changed = changed.filter(|(at, byte)| before.get(*at) != Some(byte));
        let part = changed.filter_map(|(at, byte)| match (header, family, at) {
            (PacketHeader::Network, Family::V4, 16..=19) | (PacketHeader::Network, Family::V6, 24..=39) => {
                Some(HeaderPart::Destination)
            }
            (PacketHeader::Network, Family::V4, 12..=15) | (PacketHeader::Network, Family::V6, 8..=23) => {
                Some(HeaderPart::Source)
            }
            (PacketHeader::Network, Family::V4, 8) | (PacketHeader::Network, Family::V6, 7) => {
                byte.exact().map_or(Some(HeaderPart::Unknown), |value| self.too_low(value))
            }
            // Type of service, identification, fragmentation and checksum; traffic class and flow label.
            (PacketHeader::Network, Family::V4, 1 | 4..=7 | 10..=11)
            | (PacketHeader::Network, Family::V6, 0..=3) => None,
            (PacketHeader::Transport, _, 0..=3) if transport != Transport::Icmp => Some(HeaderPart::Ports),
            _ => Some(HeaderPart::Unknown),
        });
        self.note_overwriting(spot, part.min(), applies);
    }

    /// Returns the time to live as a finding, if it is too low for the routers between this rule and the destination. This
    /// node checks it after the hook `prerouting`, and the other node does before it forwards the packet to its pod.
    fn too_low(&self, value: u8) -> Option<HeaderPart> {
        let Passage { packet, way, output, .. } = *self.passage;
        let forwards = way == Way::Through && self.hook == Hook::Prerouting;
        let mut networks = self.model.host().on_link(output.as_raw());
        let is_forwarded_again = way != Way::In && !networks.any(|net| net.contains(&packet.destination));
        let routers = u8::from(forwards) + u8::from(is_forwarded_again);
        (routers > 0 && value <= routers).then_some(HeaderPart::TimeToLive(value))
    }

    fn note_overwriting(&mut self, spot: &Spot<'a>, part: Option<HeaderPart>, applies: Match) {
        let Some(part) = part.filter(|_| applies > Match::Rare) else { return };
        let is_certain = applies == Match::Yes && self.doubted().is_none();
        let depends_on = (!is_certain).then(|| self.condition_of(spot));
        let known = self.treatment.overwritten.is_some_and(|known| known.depends_on.is_none());
        if !known && (is_certain || self.treatment.overwritten.is_none()) {
            self.treatment.overwritten = Some(Overwriting { spot: *spot, part, depends_on });
        }
    }

    fn set_mark(&mut self, spot: &Spot<'a>, mark: Option<u32>, applies: Match) {
        self.mark = mark.filter(|_| applies == Match::Yes);
        if self.hook == Hook::Prerouting {
            self.treatment.marked = Some((*spot, self.mark)).filter(|_| self.mark != Some(0));
        }
    }

    /// Returns a part of the packet, or `None` if it has none.
    fn load(&self, part: &PacketPart) -> Option<Vec<Byte>> {
        let Passage { packet, transport, port, is_reply, .. } = *self.passage;
        let family = Family::from(packet.destination);
        let known = |bytes: &[u8]| bytes.iter().copied().map(Byte::known).collect();
        let number = |number: u32| known(&number.to_ne_bytes());
        let of_link = |name: Option<&Untrusted>, value: &dyn Fn(&Link) -> Vec<Byte>| {
            let link = self.model.host().link(name?.as_raw());
            Some(link.map_or_else(|| vec![Byte::UNKNOWN; 16], value))
        };
        let group = |link: &Link| number(link.group);
        let kind = |link: &Link| known(&padded(&link.kind.clone().unwrap_or_default()));
        Some(match part {
            PacketPart::Header { offset, length } => {
                sample::part(&sample::network(packet, transport), *offset, *length)
            }
            PacketPart::Transport { offset, length } => {
                let mut header = sample::transport(family, transport, port, is_reply);
                if self.survey.as_ref().is_some_and(|survey| survey.is_for_all_ports)
                    && matches!(transport, Transport::Tcp | Transport::Udp)
                {
                    header[2..4].fill(Byte::VARIES);
                }
                sample::part(&header, *offset, *length)
            }
            PacketPart::ServiceType => vec![sample::SERVICE_TYPE],
            PacketPart::Protocol => known(&[transport.number(family)]),
            PacketPart::EtherType => known(match family {
                Family::V4 => &[0x08, 0x00],
                Family::V6 => &[0x86, 0xdd],
            }),
            PacketPart::InputName => known(&padded(self.input()?)),
            PacketPart::OutputName => known(&padded(self.output()?)),
            PacketPart::InputIndex => of_link(self.input(), &|link| number(link.index))?,
            PacketPart::OutputIndex => of_link(self.output(), &|link| number(link.index))?,
            PacketPart::InputGroup => of_link(self.input(), &group)?,
            PacketPart::OutputGroup => of_link(self.output(), &group)?,
            PacketPart::InputKind => of_link(self.input(), &kind)?,
            PacketPart::OutputKind => of_link(self.output(), &kind)?,
            PacketPart::Mark => self.mark.map_or_else(|| vec![Byte::UNKNOWN; 4], number),
            PacketPart::Family => known(&[if family == Family::V4 { 2 } else { 10 }]),
            // PACKET_HOST, PACKET_MULTICAST (linux/if_packet.h).
            PacketPart::PacketType => known(&[if packet.destination.is_multicast() { 2 } else { 0 }]),
            PacketPart::State => number(self.state),
            // Without a connection, the kernel ends the rule.
            PacketPart::ConnectionDirection => known(&[self.connection(u8::from(is_reply))?]),
            PacketPart::ConnectionStatus => {
                let (value, varies) = self.connection(match is_reply {
                    true => (SEEN_REPLY | CONFIRMED, ASSURED | NAT_DONE),
                    false if self.is_translated => (DESTINATION_NAT, NAT_DONE),
                    false => (0, NAT_DONE),
                })?;
                // Whether the first packet of its connection was masqueraded does not matter to any rule between pods.
                let varies = if self.passage.way == Way::Returning { varies | SOURCE_NAT } else { varies };
                let bytes = value.to_ne_bytes().into_iter().zip(varies.to_ne_bytes());
                bytes.map(|(value, varies)| Byte::varying(value, varies)).collect()
            }
            PacketPart::ConnectionMark => {
                self.connection(self.connection_mark)?.map_or_else(|| vec![Byte::UNKNOWN; 4], number)
            }
            PacketPart::SourceType => number(self.address_type(packet.source)),
            PacketPart::DestinationType => number(self.address_type(packet.destination)),
            PacketPart::ReturnRoute { by_input } => {
                known(&[u8::from(self.model.has_return_route(packet, *by_input))])
            }
            PacketPart::Varies(_) => vec![Byte::VARIES; 16],
            PacketPart::Other(_) => vec![Byte::UNKNOWN; 16],
        })
    }

    /// Returns `value` if the packet belongs to a connection.
    fn connection<T>(&self, value: T) -> Option<T> {
        (self.state != UNTRACKED).then_some(value)
    }

    fn input(&self) -> Option<&Untrusted> {
        self.passage.packet.input.as_ref()
    }

    /// Before routing, a packet has no outgoing interface.
    fn output(&self) -> Option<&Untrusted> {
        (!matches!(self.hook, Hook::Prerouting | Hook::Input)).then_some(self.passage.output)
    }

    fn address_type(&self, address: IpAddr) -> u32 {
        match address {
            _ if address.is_multicast() => MULTICAST,
            _ if self.model.host().uses(address) => LOCAL,
            _ => UNICAST,
        }
    }
}

/// Looks up a register in a map. Returns whether the rule continues, and the verdicts, one of which applies.
fn mapped<'a>(
    registers: &Registers,
    register: u32,
    fields: &[usize],
    map: &'a [(KeyRange, RuleVerdict)],
) -> (Match, Vec<&'a RuleVerdict>) {
    let (mut matches, mut verdicts) = (Match::No, Vec::new());
    for (range, verdict) in map {
        let found = registers.is_in(register, range, fields);
        if found == Match::No {
            continue;
        }
        matches = match matches {
            Match::No => found,
            before => before.min(found),
        };
        if !verdicts.contains(&verdict) {
            verdicts.push(verdict);
        }
        // Later elements, such as the one for all other values, do not apply.
        if found == Match::Yes {
            break;
        }
    }
    (matches, verdicts)
}

/// A name as nft compares it: padded with zeros to `IFNAMSIZ` (linux/if.h).
fn padded(name: &Untrusted) -> Vec<u8> {
    let mut bytes = name.as_raw().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
