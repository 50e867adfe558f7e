//! Reads the chains of firewalls and NAT that packets pass.

use std::collections::{BTreeSet, HashMap, HashSet};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    abi::{self, message},
    decode::{self, get, number},
    read::{NftObject, base_chain, objects_of},
    terms::{Objects, terms, verdict},
};
use crate::{
    kernel::netlink::{Attributes, Socket, put_attribute, text},
    state::{
        ChainType, Firewall, FirewallChain, FirewallRule, Hook, KeyRange, LowerChain, PacketPart,
        RuleVerdict, TableFamily, Term,
    },
};

/// The lists of tables that iptables-legacy uses in the namespace of the calling thread.
pub(in crate::kernel) const LEGACY: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// Reads the base chains of nftables, without those of NAT at the hook `input`, and those that they jump to.
/// `None` if they cannot be read, which needs `CAP_NET_ADMIN`.
#[must_use]
pub fn firewall() -> Option<Firewall> {
    let mut socket = Socket::open(NETLINK_NETFILTER).ok()?;
    let is_dormant =
        |object: &NftObject| number(object.get(abi::table::FLAGS)).unwrap_or(0) & abi::table::DORMANT != 0;
    let tables = objects_of(&mut socket, message::GETTABLE).ok()?;
    let dormant: HashSet<(u8, String)> = tables
        .into_iter()
        .filter(|(_, object)| is_dormant(object))
        .map(|(family, object)| (family, name(&object, abi::table::NAME)))
        .collect();
    let mut chains: Vec<FirewallChain> = Vec::new();
    let mut places: HashMap<(TableFamily, String, String), usize> = HashMap::new();
    let mut lower = LowerChains::default();
    for (number, object) in objects_of(&mut socket, message::GETCHAIN).ok()? {
        let (table, name) = (name(&object, abi::chain::TABLE), name(&object, abi::chain::NAME));
        if dormant.contains(&(number, table.clone())) {
            continue;
        }
        lower.add(number, &object);
        let Some(family) = family_of(number) else { continue };
        places.insert((family, table.clone(), name.clone()), chains.len());
        let base = base_chain(&object).flatten();
        chains.push(FirewallChain {
            family,
            table: table.into(),
            name: name.into(),
            base,
            rules: Vec::new(),
        });
    }
    let objects = named_objects(&mut socket);
    let none = Objects::default();
    for (number, object) in objects_of(&mut socket, message::GETRULE).ok()? {
        let table = name(&object, abi::rule::TABLE);
        let rule = rule(&object, objects.get(&(number, table.clone())).unwrap_or(&none));
        lower.add_rule(number, &table, &rule);
        let Some(family) = family_of(number) else { continue };
        let place = (family, table, name(&object, abi::rule::CHAIN));
        if let Some(at) = places.get(&place) {
            chains[*at].rules.push(rule);
        }
    }
    let mut sets: HashMap<(TableFamily, String, String), Option<Elements>> = HashMap::new();
    for chain in &mut chains {
        let (family, table) = (chain.family, chain.table.as_raw().to_owned());
        for rule in &mut chain.rules {
            let has_lookup = |term: &Term| matches!(term, Term::Lookup { .. });
            if !rule.terms.iter().any(has_lookup) {
                continue;
            }
            let terms = std::mem::take(&mut rule.terms);
            rule.terms = terms
                .into_iter()
                .flat_map(|term| {
                    let Term::Lookup { register, set, not, into } = term else { return vec![term] };
                    let key = (family, table.clone(), set.as_raw().to_owned());
                    let elements = sets
                        .entry(key)
                        .or_insert_with(|| Elements::read(&mut socket, family, &table, set.as_raw()));
                    match (elements, into) {
                        (Some(elements), None) => vec![elements.member(register, not)],
                        (Some(elements), Some(into)) => elements.map(register, into),
                        (None, None) => vec![Term::Condition("set".into())],
                        (None, Some(_)) => vec![Term::Effect("map".into())],
                    }
                })
                .collect();
        }
    }
    let (chains, lower) = (passed(chains, &places), lower.that_discard());
    Some(Firewall { chains, lower, ..Firewall::default() })
}

/// Reads the named objects of all tables. Objects that cannot be read are missing.
fn named_objects(socket: &mut Socket) -> HashMap<(u8, String), Objects> {
    let mut tables: HashMap<(u8, String), Objects> = HashMap::new();
    for (family, object) in objects_of(socket, message::GETOBJ).unwrap_or_default() {
        let kind = number(object.get(abi::other::KIND)).unwrap_or(0);
        let data = object.get(abi::other::DATA).unwrap_or_default().to_vec();
        let objects = tables.entry((family, name(&object, abi::other::TABLE))).or_default();
        objects.insert((kind, name(&object, abi::other::NAME)), data);
    }
    tables
}

fn name(object: &NftObject, kind: u16) -> String {
    text(object.get(kind).unwrap_or_default())
}

/// The base chains below IP, and the tables that have a rule which can discard packets.
#[derive(Default)]
struct LowerChains {
    chains: Vec<(u8, bool, LowerChain)>,
    discarding: HashSet<(u8, String)>,
}

impl LowerChains {
    /// Adds a chain, if it is one.
    fn add(&mut self, number: u8, object: &NftObject) {
        let hook = object.get(abi::chain::HOOK).unwrap_or_default();
        let is_ingress = decode::number(get(hook, abi::chain::HOOK_NUMBER)) == Some(abi::chain::INET_INGRESS);
        let family = match number {
            1 if is_ingress => "inet",
            // NFPROTO_ARP, NFPROTO_NETDEV, NFPROTO_BRIDGE (linux/netfilter.h).
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            _ => return,
        };
        if hook.is_empty() {
            return;
        }
        let several = Attributes::new(get(hook, abi::chain::HOOK_DEVICES).unwrap_or_default()).flatten();
        let mut devices: Vec<&[u8]> = several.map(|(_, name)| name).collect();
        if devices.is_empty() {
            devices.extend(get(hook, abi::chain::HOOK_DEVICE));
        }
        let chain = LowerChain {
            family: family.into(),
            table: name(object, abi::chain::TABLE).into(),
            name: name(object, abi::chain::NAME).into(),
            devices: devices.into_iter().map(|name| text(name).into()).collect(),
        };
        // NF_DROP.
        let drops = decode::number(object.get(abi::chain::POLICY)) == Some(0);
        self.chains.push((number, drops, chain));
    }

    /// Notes a rule that can discard packets, in any chain: one of them may jump to it.
    fn add_rule(&mut self, number: u8, table: &str, rule: &FirewallRule) {
        let discards = |term: &Term| match term {
            Term::Verdict(RuleVerdict::Drop) | Term::Effect(_) | Term::Lookup { into: Some(_), .. } => true,
            Term::Map { map, .. } => map.iter().any(|(_, verdict)| *verdict == RuleVerdict::Drop),
            _ => false,
        };
        if rule.terms.iter().any(discards) {
            self.discarding.insert((number, table.to_owned()));
        }
    }

    fn that_discard(self) -> Vec<LowerChain> {
        let Self { chains, discarding } = self;
        let discards =
            |number: u8, chain: &LowerChain| discarding.contains(&(number, chain.table.as_raw().to_owned()));
        let chains = chains.into_iter().filter(|(number, drops, chain)| *drops || discards(*number, chain));
        chains.map(|(_, _, chain)| chain).collect()
    }
}

/// An element of a set or map.
struct Element {
    key: Vec<u8>,
    is_end: bool,
    /// It stands for all other keys.
    is_rest: bool,
    last: Option<Vec<u8>>,
    verdict: Option<RuleVerdict>,
}

/// More elements are not worth reading: no rule between pods needs them.
const MAX_ELEMENTS: usize = 20_000;

/// The elements of a set or map, sorted by their keys.
struct Elements {
    all: Vec<Element>,
    /// The lengths of the fields of a key that has several with ranges.
    fields: Vec<usize>,
}

impl Elements {
    /// Reads the elements of a set. `None` if they cannot be read, or are too many.
    fn read(socket: &mut Socket, family: TableFamily, table: &str, set: &str) -> Option<Self> {
        let mut request = vec![family_number(family), 0, 0, 0];
        for (kind, name) in [(abi::elements::TABLE, table), (abi::elements::SET, set)] {
            let mut bytes = name.as_bytes().to_vec();
            bytes.push(0);
            put_attribute(&mut request, kind, &bytes).ok()?;
        }
        let dump = socket.dump(message::GETSETELEM, 0, &request).ok()?;
        let mut all = Vec::new();
        for (_, payload) in dump.iter() {
            let list = get(payload.get(abi::GENERIC_HEADER..)?, abi::elements::LIST).unwrap_or_default();
            for (_, element) in Attributes::new(list).flatten() {
                let field = |kind| get(element, kind);
                let key = field(abi::elements::KEY).and_then(|key| get(key, abi::expr::DATA_VALUE));
                let last = field(abi::elements::KEY_END).and_then(|key| get(key, abi::expr::DATA_VALUE));
                let flags = number(field(abi::elements::FLAGS)).unwrap_or(0);
                let is_rest = flags & abi::elements::CATCHALL != 0;
                all.push(Element {
                    key: if is_rest { Vec::new() } else { key?.to_vec() },
                    is_end: flags & 1 != 0,
                    is_rest,
                    last: last.map(<[u8]>::to_vec),
                    verdict: field(abi::elements::DATA).and_then(verdict),
                });
                if all.len() > MAX_ELEMENTS {
                    return None;
                }
            }
        }
        // The element for all other keys comes last, because the others prevail.
        let order = |element: &Element| (element.is_rest, element.key.clone(), !element.is_end);
        all.sort_by_cached_key(order);
        let has_ranges = all.iter().any(|element| element.last.is_some());
        let fields = if has_ranges { fields(socket, &request)? } else { Vec::new() };
        Some(Self { all, fields })
    }

    /// The ranges with their verdicts. An interval is two elements: its first value, and the end, which is not part of it.
    fn ranges(&self) -> impl Iterator<Item = (KeyRange, Option<&RuleVerdict>)> {
        let is_interval = self.all.iter().any(|element| element.is_end);
        let starts = self.all.iter().enumerate().filter(|(_, element)| !element.is_end);
        starts.map(move |(at, element)| {
            let next = self.all.get(at + 1).filter(|next| !next.is_rest);
            let to = match (&element.last, is_interval) {
                _ if element.is_rest => None,
                (Some(last), _) => Some(last.clone()),
                (None, false) => Some(element.key.clone()),
                (None, true) => next.map(|end| before(&end.key)),
            };
            (KeyRange { from: element.key.clone(), to }, element.verdict.as_ref())
        })
    }

    /// The term for a lookup in a set.
    fn member(&self, register: u32, not: bool) -> Term {
        let set = self.ranges().map(|(range, _)| range).collect();
        Term::Member { register, set, fields: self.fields.clone(), not }
    }

    /// The terms for a lookup in a map that stores what it finds in register `into`.
    fn map(&self, register: u32, into: u32) -> Vec<Term> {
        let verdicts: Option<Vec<_>> =
            self.ranges().map(|(range, verdict)| Some((range, verdict?.clone()))).collect();
        let is_verdict = into == abi::expr::REG_VERDICT;
        if let Some(map) = verdicts.filter(|_| is_verdict) {
            return vec![Term::Map { register, fields: self.fields.clone(), map }];
        }
        // Values of another kind, such as ports.
        let part = PacketPart::Other("map".into());
        vec![self.member(register, false), Term::Load { into, part }]
    }
}

/// Reads the lengths of the fields of a set's keys. Empty if they have only one.
fn fields(socket: &mut Socket, request: &[u8]) -> Option<Vec<usize>> {
    let answer = socket.get(message::GETSET, request).ok()?;
    let (_, payload) = answer.iter().next()?;
    let description =
        get(payload.get(abi::GENERIC_HEADER..)?, abi::elements::DESCRIPTION).unwrap_or_default();
    let list = get(description, abi::elements::CONCATENATION).unwrap_or_default();
    Attributes::new(list)
        .flatten()
        .map(|(_, field)| usize::try_from(number(get(field, abi::elements::FIELD_LENGTH))?).ok())
        .collect()
}

/// Returns the value before this one.
fn before(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    for byte in value.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    value
}

/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6` (linux/netfilter.h).
const fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => 1,
        TableFamily::Ip => 2,
        TableFamily::Ip6 => 10,
    }
}

const fn family_of(number: u8) -> Option<TableFamily> {
    match number {
        1 => Some(TableFamily::Inet),
        2 => Some(TableFamily::Ip),
        10 => Some(TableFamily::Ip6),
        _ => None,
    }
}

fn rule(object: &NftObject, objects: &Objects) -> FirewallRule {
    let handle =
        object.get(abi::rule::HANDLE).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let list = object.get(abi::rule::EXPRESSIONS).map_or_else(|| Some(Vec::new()), decode::list);
    FirewallRule {
        handle: handle.unwrap_or(0),
        comment: object.get(abi::rule::USERDATA).and_then(decode::comment).map(Into::into),
        terms: list.map_or_else(|| vec![Term::Effect("malformed".into())], |list| terms(&list, objects)),
    }
}

/// Keeps the chains that packets pass.
fn passed(
    chains: Vec<FirewallChain>,
    places: &HashMap<(TableFamily, String, String), usize>,
) -> Vec<FirewallChain> {
    let is_entry = |chain: &FirewallChain| {
        chain.base.as_ref().is_some_and(|base| match base.hook {
            Hook::Input => base.kind != ChainType::Nat,
            Hook::Prerouting | Hook::Output | Hook::Forward | Hook::Postrouting => true,
        })
    };
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<usize> = (0..chains.len()).filter(|at| is_entry(&chains[*at])).collect();
    while let Some(at) = open.pop() {
        if !kept.insert(at) {
            continue;
        }
        let from = &chains[at];
        for target in from.rules.iter().flat_map(|rule| &rule.terms).flat_map(Term::targets) {
            let place = (from.family, from.table.as_raw().to_owned(), target.as_raw().to_owned());
            open.extend(places.get(&place));
        }
    }
    let numbered = chains.into_iter().enumerate();
    numbered.filter(|(at, _)| kept.contains(at)).map(|(_, chain)| chain).collect()
}
