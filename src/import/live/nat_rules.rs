//! The NAT rules of all firewalls in one form: what each one matches and does, and the exclusions that packets pass before it.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

use super::{
    chains::Chains,
    iptables::{IptablesRule, IptablesTable, MatchedPrefix, RuleMatch},
    plugin,
};
use crate::{
    forwarding::MAX_DEPTH,
    model::Family,
    state::{
        ChainType, Field, FirewallChain, FirewallRule, Hook, KeyRange, Operator, PacketPart, RuleVerdict,
        TableFamily, Term,
    },
    text::{ShellCommand, Untrusted},
};

/// `RTN_LOCAL` (linux/rtnetlink.h).
const LOCAL_TYPE: u32 = 2;

/// The mark by which kube-proxy masquerades packets itself.
const KUBE_PROXY_MARK: &str = "0x4000/0x4000";
const KUBE_PROXY_BIT: u32 = 0x4000;

/// How many prefixes of a set are read at most. Larger ones are not about the networks of a site.
const MAX_PREFIXES: usize = 64;

/// How many rules are followed at most.
pub(super) const MAX_VISITS: usize = 50_000;

/// The source address that masqueraded packets get, or that routes prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceTarget {
    /// The one that the kernel chooses from those of the interface.
    Interface,
    /// A fixed address.
    Address(IpAddr),
    /// Several addresses, or one that the rule does not show.
    Unclear,
}

impl SourceTarget {
    /// Returns the common value of several targets, or [`Self::Unclear`] if they differ; `None` if there are none.
    pub fn common(targets: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut targets = targets.into_iter();
        let first = targets.next()?;
        Some(if targets.all(|target| target == first) { first } else { Self::Unclear })
    }
}

/// A condition of a rule other than the prefixes of its source and destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub kind: ConditionKind,
    pub is_negated: bool,
    /// The condition as the firewall's program writes it.
    pub text: Untrusted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConditionKind {
    /// The packet leaves through this interface.
    Output(String),
    /// The destination is an address of this node.
    LocalDestination,
    /// kube-proxy has marked the packet to masquerade it.
    KubeProxyMark,
    /// The source is in a set of a plugin that contains all pods.
    FromPods,
    /// The destination is in a set of a plugin that contains all pods.
    ToPods,
    Other,
}

/// What a rule matches.
#[derive(Debug, Clone, Default)]
pub(super) struct Matched {
    /// The family; `None` for both.
    pub family: Option<Family>,
    pub source: Option<MatchedPrefix>,
    pub destination: Option<MatchedPrefix>,
    /// More prefixes without the destination.
    pub outside: Vec<IpNet>,
    pub conditions: Vec<Condition>,
    /// Whether it only applies to sources that are pods, although it names no prefix that contains them all.
    pub is_for_pods: bool,
    /// Whether a network plugin created it.
    pub is_of_plugin: bool,
}

impl Matched {
    /// What a rule matches in a chain that packets reach by this rule.
    fn then(&self, inner: &Self) -> Self {
        Self {
            family: inner.family.or(self.family),
            source: inner.source.or(self.source),
            destination: inner.destination.or(self.destination),
            outside: [&*self.outside, &*inner.outside].concat(),
            conditions: self.conditions.iter().chain(&inner.conditions).cloned().collect(),
            is_for_pods: self.is_for_pods || inner.is_for_pods,
            is_of_plugin: self.is_of_plugin || inner.is_of_plugin,
        }
    }
}

/// The identity of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum RuleOrigin<'a> {
    Iptables(&'a IptablesTable, &'a IptablesRule),
    Native(&'a FirewallChain, &'a FirewallRule),
}

impl RuleOrigin<'_> {
    /// Whether both are the same rule.
    pub fn is(&self, other: &RuleOrigin<'_>) -> bool {
        match (self, other) {
            (Self::Iptables(_, one), RuleOrigin::Iptables(_, other)) => std::ptr::eq(*one, *other),
            (Self::Native(_, one), RuleOrigin::Native(_, other)) => std::ptr::eq(*one, *other),
            _ => false,
        }
    }

    /// The rule as a command of iptables, or where it is.
    pub fn text(&self) -> String {
        match self {
            Self::Iptables(table, rule) => {
                let head = [table.program.as_str(), "-t", &table.name, "-A", &rule.chain];
                let words = head.into_iter().chain(rule.words.iter().map(String::as_str));
                format!("`{}`", ShellCommand::new(words))
            }
            Self::Native(chain, rule) => {
                let FirewallChain { family, table, name, .. } = chain;
                format!(
                    "the rule with handle {} in chain `{name}` in table `{} {table}`",
                    rule.handle,
                    family.name()
                )
            }
        }
    }
}

/// A rule that masquerades packets.
#[derive(Debug, Clone)]
pub(super) struct MasqueradeRule<'a> {
    pub origin: RuleOrigin<'a>,
    pub matched: Matched,
    pub is_random_fully: bool,
    /// Whether it chooses ports from a range.
    pub has_ports: bool,
    pub target: SourceTarget,
    /// The last exclusion that packets pass before it.
    after: Option<usize>,
}

/// A rule that ends before packets are masqueraded.
#[derive(Debug, Clone)]
pub(super) struct Exclusion<'a> {
    pub origin: RuleOrigin<'a>,
    pub matched: Matched,
}

/// The NAT rules that packets to other machines pass.
#[derive(Debug, Clone, Default)]
pub(super) struct NatRules<'a> {
    pub masquerades: Vec<MasqueradeRule<'a>>,
    pub exclusions: Vec<Exclusion<'a>>,
    /// Lists of exclusions: one of them, and the previous item.
    lists: Vec<(usize, Option<usize>)>,
    /// Whether there are more rules than were followed.
    pub is_cut_short: bool,
}

impl<'a> NatRules<'a> {
    pub fn new(chains: &'a Chains<'_>) -> Self {
        let mut walk =
            ChainWalk { chains: Vec::new(), by_key: HashMap::new(), visits: 0, found: Self::default() };
        for table in chains.iptables.iter().filter(|table| table.name == "nat") {
            let view = |name: &'a str| ChainView {
                key: (table.family.nft(), table.program.as_str(), name),
                is_base: name == "POSTROUTING",
                rules: table
                    .rules
                    .iter()
                    .filter(move |rule| rule.chain == name)
                    .map(|rule| iptables(table, rule)),
            };
            let mut names: Vec<&str> = table.chains.iter().map(|chain| chain.name.as_str()).collect();
            names.extend(table.rules.iter().map(|rule| rule.chain.as_str()));
            names.sort_unstable();
            names.dedup();
            let of_others = |name: &&str| {
                let is_of_plugin = plugin::of_chain(name).is_some();
                !is_of_plugin && (name.starts_with("KUBE-") || name.starts_with("CNI-"))
            };
            for name in names.into_iter().filter(|name| !of_others(name)) {
                walk.add(view(name));
            }
        }
        for chain in &chains.native {
            let is_nat = chain
                .base
                .as_ref()
                .is_some_and(|it| it.kind == ChainType::Nat && it.hook == Hook::Postrouting);
            walk.add(ChainView {
                key: (chain.family.name(), chain.table.as_raw(), chain.name.as_raw()),
                is_base: is_nat,
                rules: chain.rules.iter().flat_map(|rule| native(chain, rule)),
            });
        }
        for at in 0..walk.chains.len() {
            if walk.chains[at].is_base {
                walk.follow(at, &Matched::default(), None, 0);
            }
        }
        walk.found
    }

    /// The exclusions that packets pass before a rule.
    pub fn before(&self, rule: &MasqueradeRule<'a>) -> impl Iterator<Item = &Exclusion<'a>> {
        let mut at = rule.after;
        std::iter::from_fn(move || {
            let (exclusion, previous) = *self.lists.get(at?)?;
            at = previous;
            self.exclusions.get(exclusion)
        })
    }

    /// The networks that rules do not masquerade packets to, or masquerade packets from: that of the pods, if they contain the
    /// node's own.
    pub fn networks(&self, family: Family) -> Vec<IpNet> {
        let of_rules = self.masquerades.iter().flat_map(|rule| {
            let outside = rule.matched.destination.filter(|to| to.is_negated);
            let inside = rule.matched.source.filter(|from| !from.is_negated);
            let first = [outside, inside].into_iter().flatten().map(|matched| matched.prefix);
            first.chain(rule.matched.outside.iter().copied())
        });
        of_rules.filter(|net| Family::from(*net) == family && net.prefix_len() > 0).collect()
    }
}

/// What a rule does.
#[derive(Debug, Clone)]
enum NatAction {
    Masquerade { is_random_fully: bool, has_ports: bool, target: SourceTarget },
    Return,
    Accept,
    Jump(Vec<String>),
    Nothing,
}

/// A rule of any firewall.
#[derive(Debug, Clone)]
struct RuleView<'a> {
    origin: RuleOrigin<'a>,
    matched: Matched,
    action: NatAction,
}

/// The family, the table or the program, and the name of a chain.
type ChainKey<'a> = (&'a str, &'a str, &'a str);

struct ChainView<'a, R> {
    key: ChainKey<'a>,
    is_base: bool,
    rules: R,
}

struct ChainWalk<'a> {
    chains: Vec<ChainView<'a, Vec<RuleView<'a>>>>,
    by_key: HashMap<ChainKey<'a>, usize>,
    visits: usize,
    found: NatRules<'a>,
}

impl<'a> ChainWalk<'a> {
    fn add(&mut self, chain: ChainView<'a, impl Iterator<Item = RuleView<'a>>>) {
        let ChainView { key, is_base, rules } = chain;
        self.by_key.insert(key, self.chains.len());
        self.chains.push(ChainView { key, is_base, rules: rules.collect() });
    }

    /// Follows a chain. `after` is the list of exclusions before it. Returns the exclusions of the chain that also apply after
    /// it.
    fn follow(&mut self, at: usize, outer: &Matched, mut after: Option<usize>, depth: usize) -> Vec<usize> {
        let mut lasting = Vec::new();
        let is_base = self.chains[at].is_base;
        for index in 0..self.chains[at].rules.len() {
            self.visits += 1;
            if self.visits > MAX_VISITS || depth > MAX_DEPTH {
                self.found.is_cut_short = true;
                break;
            }
            let RuleView { origin, matched, action } = self.chains[at].rules[index].clone();
            let matched = outer.then(&matched);
            match action {
                NatAction::Nothing => {}
                NatAction::Masquerade { is_random_fully, has_ports, target } => {
                    let rule = MasqueradeRule { origin, matched, is_random_fully, has_ports, target, after };
                    self.found.masquerades.push(rule);
                }
                NatAction::Return | NatAction::Accept => {
                    let number = self.found.exclusions.len();
                    self.found.exclusions.push(Exclusion { origin, matched });
                    after = Some(self.list(number, after));
                    if is_base || matches!(action, NatAction::Accept) {
                        lasting.push(number);
                    }
                }
                NatAction::Jump(targets) => {
                    for target in targets {
                        let (family, table, _) = self.chains[at].key;
                        let Some(position) = self.by_key.get(&(family, table, &*target)).copied() else {
                            continue;
                        };
                        for number in self.follow(position, &matched, after, depth + 1) {
                            after = Some(self.list(number, after));
                            lasting.push(number);
                        }
                    }
                }
            }
        }
        lasting
    }

    fn list(&mut self, number: usize, after: Option<usize>) -> usize {
        self.found.lists.push((number, after));
        self.found.lists.len() - 1
    }
}

/// Reads a rule of iptables.
fn iptables<'a>(table: &'a IptablesTable, rule: &'a IptablesRule) -> RuleView<'a> {
    let plugin = plugin::of_rule(rule);
    let action = match rule.target() {
        Some("MASQUERADE" | "SNAT") => NatAction::Masquerade {
            is_random_fully: rule.has("--random-fully"),
            has_ports: rule.value("--to-ports").is_some(),
            target: match rule.value("--to-source") {
                None => SourceTarget::Interface,
                Some(text) => text.parse().map_or(SourceTarget::Unclear, SourceTarget::Address),
            },
        },
        Some("RETURN") => NatAction::Return,
        Some("ACCEPT") => NatAction::Accept,
        Some(chain) => NatAction::Jump(vec![chain.to_owned()]),
        None => NatAction::Nothing,
    };
    let matched = Matched {
        family: Some(table.family),
        source: rule.source(),
        destination: rule.destination(),
        outside: Vec::new(),
        conditions: rule.matches().iter().map(condition).collect(),
        is_for_pods: plugin == Some(plugin::BRIDGE_PLUGIN)
            || rule.sets().any(|set| plugin::of_set(set).is_some()),
        is_of_plugin: plugin.is_some(),
    };
    RuleView { origin: RuleOrigin::Iptables(table, rule), matched, action }
}

/// Reads a condition of a rule of iptables.
fn condition(found: &RuleMatch) -> Condition {
    let values: Vec<&str> = found.values.iter().map(String::as_str).collect();
    let kind = match (found.option.as_str(), values.as_slice()) {
        ("-o", [device]) => ConditionKind::Output((*device).to_owned()),
        ("--dst-type", ["LOCAL"]) => ConditionKind::LocalDestination,
        ("--mark", [KUBE_PROXY_MARK]) => ConditionKind::KubeProxyMark,
        ("--match-set", [set, "src"]) if plugin::contains_pods(set) => ConditionKind::FromPods,
        ("--match-set", [set, "dst"]) if plugin::contains_pods(set) => ConditionKind::ToPods,
        _ => ConditionKind::Other,
    };
    let not = if found.is_negated { "! " } else { "" };
    let text = std::iter::once(found.option.as_str()).chain(values).collect::<Vec<_>>().join(" ");
    Condition { kind, is_negated: found.is_negated, text: format!("{not}{text}").into() }
}

/// Reads a rule of nftables. One that excludes a set of destinations is like one for each of them.
fn native<'a>(chain: &'a FirewallChain, rule: &'a FirewallRule) -> Vec<RuleView<'a>> {
    let verdict = rule.terms.iter().rev().find_map(|term| match term {
        Term::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    let is_fully_random = |term: &Term| matches!(term, Term::Neutral(name) if *name == Term::FULLY_RANDOM);
    let targets: Vec<String> =
        rule.terms.iter().flat_map(Term::targets).map(|target| target.as_raw().to_owned()).collect();
    let action = match verdict {
        Some(RuleVerdict::Masquerade) => NatAction::Masquerade {
            is_random_fully: rule.terms.iter().any(is_fully_random),
            has_ports: false,
            target: native_target(&rule.terms),
        },
        Some(RuleVerdict::Return) => NatAction::Return,
        Some(RuleVerdict::Accept) => NatAction::Accept,
        _ if !targets.is_empty() => NatAction::Jump(targets),
        _ => NatAction::Nothing,
    };
    let family = match chain.family {
        TableFamily::Ip => Some(Family::V4),
        TableFamily::Ip6 => Some(Family::V6),
        TableFamily::Inet => compared_family(&rule.terms),
    };
    let of_field = |field| family.map(|family| addresses(&rule.terms, family, field)).unwrap_or_default();
    let is_exclusion = matches!(action, NatAction::Return | NatAction::Accept);
    let from = ReadAddresses::new(of_field(Field::Saddr), Sets::Unread);
    let sets = if is_exclusion { Sets::All } else { Sets::Negated };
    let to = ReadAddresses::new(of_field(Field::Daddr), sets);
    let is_read = |at: usize| from.read.contains(&at) || to.read.contains(&at);
    let matched = Matched {
        family,
        source: from.prefixes.first().copied(),
        destination: None,
        outside: to.outside,
        conditions: native_conditions(&rule.terms, chain.family, is_read),
        is_for_pods: false,
        is_of_plugin: plugin::of_table(chain.table.as_raw()).is_some()
            || plugin::of_chain(chain.name.as_raw()).is_some(),
    };
    let view = |destination| RuleView {
        origin: RuleOrigin::Native(chain, rule),
        matched: Matched { destination, ..matched.clone() },
        action: action.clone(),
    };
    match to.prefixes.as_slice() {
        [] => vec![view(None)],
        prefixes => prefixes.iter().map(|prefix| view(Some(*prefix))).collect(),
    }
}

/// A term that compares the source or the destination with prefixes.
struct AddressMatch {
    /// The number of the term.
    at: usize,
    prefixes: Vec<IpNet>,
    is_negated: bool,
}

/// Which sets of addresses can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sets {
    Unread,
    /// Those that the address is not in.
    Negated,
    All,
}

/// The prefixes that a rule compares its source or destination with.
struct ReadAddresses {
    /// The alternatives.
    prefixes: Vec<MatchedPrefix>,
    /// More prefixes without the address.
    outside: Vec<IpNet>,
    /// The numbers of the terms that these stand for.
    read: BTreeSet<usize>,
}

impl ReadAddresses {
    fn new(found: Vec<AddressMatch>, sets: Sets) -> Self {
        let mut it = Self { prefixes: Vec::new(), outside: Vec::new(), read: BTreeSet::new() };
        let has_inside = found.iter().any(|found| !found.is_negated);
        for AddressMatch { at, prefixes, is_negated } in found {
            let is_one = prefixes.len() == 1;
            if is_one && it.prefixes.is_empty() && (!is_negated || !has_inside)
                || sets == Sets::All && it.prefixes.is_empty() && !is_negated
            {
                let of = |prefix| MatchedPrefix { prefix, is_negated };
                it.prefixes.extend(prefixes.into_iter().map(of));
            } else if sets != Sets::Unread && is_negated {
                it.outside.extend(prefixes);
            } else {
                continue;
            }
            it.read.insert(at);
        }
        it
    }
}

/// The conditions of a rule of nftables, other than its family and the terms with the numbers for which `is_read` holds.
fn native_conditions(terms: &[Term], family: TableFamily, is_read: impl Fn(usize) -> bool) -> Vec<Condition> {
    let mut loaded: Vec<(u32, &PacketPart)> = Vec::new();
    let mut bits: Option<&[u8]> = None;
    let mut conditions = Vec::new();
    let of = |loaded: &[(u32, &'_ PacketPart)], register: u32| -> Option<PacketPart> {
        loaded.iter().rev().find(|(into, _)| *into == register).map(|(_, part)| (*part).clone())
    };
    for (at, term) in terms.iter().enumerate() {
        if is_read(at) {
            continue;
        }
        let other = |is_negated, text: String| Condition {
            kind: ConditionKind::Other,
            is_negated,
            text: text.into(),
        };
        match term {
            Term::Load { into, part } => {
                loaded.push((*into, part));
                bits = None;
            }
            Term::Mask { mask, .. } => bits = Some(mask),
            Term::Compare { register, operator, value } => {
                let part = of(&loaded, *register);
                let is_negated = *operator == Operator::Unequal;
                let is_exact = matches!(operator, Operator::Equal | Operator::Unequal);
                conditions.push(match part {
                    Some(PacketPart::Family | PacketPart::EtherType) if *operator == Operator::Equal => {
                        continue;
                    }
                    Some(PacketPart::OutputName) if is_exact => {
                        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                        let name = String::from_utf8_lossy(&value[..end]).into_owned();
                        // Without a zero at its end, it is the beginning of names.
                        let name = if end == value.len() && end < 16 { format!("{name}+") } else { name };
                        let not = if is_negated { "!= " } else { "" };
                        let text = format!("oifname {not}{name}").into();
                        Condition { kind: ConditionKind::Output(name), is_negated, text }
                    }
                    Some(PacketPart::DestinationType) if is_exact && *value == LOCAL_TYPE.to_ne_bytes() => {
                        Condition {
                            kind: ConditionKind::LocalDestination,
                            is_negated,
                            text: "fib daddr type local".into(),
                        }
                    }
                    Some(PacketPart::Mark) if is_exact && bits == Some(&KUBE_PROXY_BIT.to_ne_bytes()) => {
                        let is_other = *value != KUBE_PROXY_BIT.to_ne_bytes();
                        Condition {
                            kind: ConditionKind::KubeProxyMark,
                            is_negated: is_negated != is_other,
                            text: "mark".into(),
                        }
                    }
                    part => other(is_negated, part.map_or_else(|| "?".to_owned(), |part| part.name(family))),
                });
            }
            Term::AddressType { source: None, destination: Some(types) } if types.bits == 1 << LOCAL_TYPE => {
                conditions.push(Condition {
                    kind: ConditionKind::LocalDestination,
                    is_negated: types.not,
                    text: "addrtype".into(),
                });
            }
            Term::Mark { value: KUBE_PROXY_BIT, mask: KUBE_PROXY_BIT, not } => conditions.push(Condition {
                kind: ConditionKind::KubeProxyMark,
                is_negated: *not,
                text: "mark".into(),
            }),
            Term::Member { register, not, .. } | Term::Lookup { register, not, into: None, .. } => {
                let part =
                    of(&loaded, *register).map_or_else(|| "packets".to_owned(), |part| part.name(family));
                let text = if *not { format!("{part} not in a set") } else { format!("{part} in a set") };
                conditions.push(other(*not, text));
            }
            Term::Map { .. } | Term::Lookup { .. } => conditions.push(other(false, "a map".to_owned())),
            Term::AddressType { .. } => conditions.push(other(false, "addrtype".to_owned())),
            Term::Mark { not, .. } => conditions.push(other(*not, "mark".to_owned())),
            Term::State(_) => conditions.push(other(false, "ct state".to_owned())),
            Term::Varies(name) | Term::Rare(name) | Term::Condition(name) => {
                conditions.push(other(false, name.as_raw().to_owned()));
            }
            Term::Constant { .. }
            | Term::Verdict(_)
            | Term::NewSource { .. }
            | Term::NewDestination { .. }
            | Term::ThisNode
            | Term::Swap { .. }
            | Term::Overwrite { .. }
            | Term::ReduceTimeToLive(_)
            | Term::SetZone(_)
            | Term::SetMark
            | Term::MarkFrom { .. }
            | Term::SetConnectionMark
            | Term::Untrack
            | Term::Neutral(_)
            | Term::Effect(_) => {}
        }
    }
    conditions
}

/// The family that the terms of a rule compare that of packets with (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
fn compared_family(terms: &[Term]) -> Option<Family> {
    let at = terms.iter().position(|term| matches!(term, Term::Load { part: PacketPart::Family, .. }))?;
    match terms.get(at + 1)? {
        Term::Compare { operator: Operator::Equal, value, .. } => match value.as_slice() {
            [2] => Some(Family::V4),
            [10] => Some(Family::V6),
            _ => None,
        },
        _ => None,
    }
}

/// The source address that the terms of a rule set. `snat to` loads it from a constant; `masquerade` has at most constants for
/// ports.
fn native_target(terms: &[Term]) -> SourceTarget {
    let constants = terms.iter().filter_map(|term| match term {
        Term::Constant { value, .. } if value.len() >= 4 => Some(value.as_slice()),
        _ => None,
    });
    match constants.collect::<Vec<_>>().as_slice() {
        [] => SourceTarget::Interface,
        [value] => address_of(value).map_or(SourceTarget::Unclear, SourceTarget::Address),
        _ => SourceTarget::Unclear,
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6)
}

/// What the terms of a rule compare the source or the destination with, as far as it is prefixes.
fn addresses(terms: &[Term], family: Family, field: Field) -> Vec<AddressMatch> {
    let start = field.offset(family);
    let is_start = |term: &Term| matches!(term, Term::Load { part: PacketPart::Header { offset, .. }, .. } if *offset == start);
    let starts = terms.iter().enumerate().filter(|(_, term)| is_start(term)).map(|(at, _)| at);
    starts.filter_map(|at| address_match(terms, at, family)).collect()
}

/// What the terms of a rule compare the address with that the term with the number `start` loads.
fn address_match(terms: &[Term], start: usize, family: Family) -> Option<AddressMatch> {
    let mut bits = None;
    for (at, term) in terms.iter().enumerate().skip(start + 1) {
        match term {
            Term::Mask { mask, invert, .. } if invert.iter().all(|byte| *byte == 0) => {
                bits = Some(mask.iter().map(|byte| byte.count_ones()).sum::<u32>());
            }
            Term::Compare { operator, value, .. } => {
                let is_negated = match operator {
                    Operator::Equal => false,
                    Operator::Unequal => true,
                    _ => return None,
                };
                let length = match bits {
                    Some(bits) => u8::try_from(bits).ok()?,
                    None => u8::try_from(8 * value.len()).ok()?,
                };
                let prefix = family.prefix_of(value, length)?.trunc();
                return Some(AddressMatch { at, prefixes: vec![prefix], is_negated });
            }
            Term::Member { set, fields, not, .. } if bits.is_none() && fields.is_empty() => {
                let mut prefixes = Vec::new();
                for range in set {
                    prefixes.extend(prefixes_of(range, family)?.take(MAX_PREFIXES + 1));
                    if prefixes.len() > MAX_PREFIXES {
                        return None;
                    }
                }
                // The rule matches always, or never.
                let is_used = !prefixes.is_empty();
                return is_used.then_some(AddressMatch { at, prefixes, is_negated: *not });
            }
            _ => return None,
        }
    }
    None
}

/// The prefixes that together contain the addresses of a range. `None` if its values are not addresses of the family.
fn prefixes_of(range: &KeyRange, family: Family) -> Option<IpSubnets> {
    let last = |length: usize| range.to.clone().unwrap_or_else(|| vec![u8::MAX; length]);
    Some(match family {
        Family::V4 => {
            let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
            IpSubnets::V4(Ipv4Subnets::new(address(&range.from)?, address(&last(4))?, 0))
        }
        Family::V6 => {
            let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from);
            IpSubnets::V6(Ipv6Subnets::new(address(&range.from)?, address(&last(16))?, 0))
        }
    })
}
