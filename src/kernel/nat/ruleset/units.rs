//! The requests that create a ruleset, in an order in which everything exists before it is used.

use std::collections::{BTreeMap, HashMap};

use super::{
    CHAIN_BINDING, CHAIN_OFFLOAD, DumpedObject, FLOWTABLE_OFFLOAD, Ruleset, SET_ANONYMOUS, TABLE_OWNER,
    TableKey, attribute, described_chain, described_table,
};
use crate::kernel::{
    nat::{
        abi::{self, expr, message},
        compat::compat,
        decode::{self, get, number},
        key,
    },
    netlink::{Malformed, attribute_at, put_attribute, retain, text},
};

// Flags of a request (linux/netlink.h).
const CREATE: u16 = 0x400;
const CREATE_NEW: u16 = 0x200 | 0x400;
const APPEND: u16 = 0x400 | 0x800;

/// The attributes that describe an object, as opposed to handles, counts of uses and padding. Each object is of a kind:
/// the type of its request, the flags of the request, and these attributes.
const TABLE: NftKind = NftKind { message: message::NEWTABLE, flags: CREATE, attributes: &[1, 2, 6] };
const CHAIN: NftKind =
    NftKind { message: message::NEWCHAIN, flags: CREATE, attributes: &[1, 3, 4, 5, 7, 8, 10, 12] };
const RULE: NftKind = NftKind { message: message::NEWRULE, flags: APPEND, attributes: &[1, 2, 4, 7] };
const SET: NftKind = NftKind {
    message: message::NEWSET,
    flags: CREATE_NEW,
    attributes: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18],
};
const ELEMENTS: NftKind = NftKind { message: message::NEWSETELEM, flags: CREATE, attributes: &[1, 2, 3] };
const OBJECT: NftKind = NftKind { message: message::NEWOBJ, flags: CREATE_NEW, attributes: &[1, 2, 3, 4, 8] };
const FLOWTABLE: NftKind =
    NftKind { message: message::NEWFLOWTABLE, flags: CREATE_NEW, attributes: &[1, 2, 3, 7] };

#[derive(Debug, Clone, Copy)]
pub(super) struct NftKind {
    pub(super) message: u16,
    pub(super) flags: u16,
    attributes: &'static [u16],
}

/// A request, and what it creates.
#[derive(Debug)]
pub(super) struct NftRequest {
    pub(super) kind: NftKind,
    pub(super) payload: Vec<u8>,
    pub(super) object: String,
}

/// Requests that only make sense together: a rule, and the anonymous sets and chains that are part of it.
#[derive(Debug)]
pub(super) struct NftUnit {
    pub(super) number: usize,
    pub(super) requests: Vec<NftRequest>,
}

impl NftUnit {
    pub(super) fn length(&self) -> usize {
        self.requests.iter().map(|request| request.payload.len() + 24).sum()
    }
}

/// The units under construction.
pub(super) struct UnitBuilder<'a> {
    ruleset: &'a Ruleset,
    pub(super) units: Vec<NftUnit>,
    /// The unit of each rule, and the index of the rule.
    pub(super) rules: Vec<(usize, usize)>,
    next_set: u32,
    /// The sets and chains that are parts of rules, by table and name, and what is in them.
    anonymous_sets: HashMap<(&'a TableKey, String), &'a DumpedObject>,
    set_elements: HashMap<(&'a TableKey, String), Vec<&'a DumpedObject>>,
    bound_chains: HashMap<(&'a TableKey, String), &'a DumpedObject>,
    chain_rules: BTreeMap<(&'a TableKey, String), Vec<usize>>,
}

impl<'a> UnitBuilder<'a> {
    /// Returns the units in an order in which everything exists before it is used.
    pub(super) fn of(ruleset: &'a Ruleset) -> Result<Self, Malformed> {
        let mut builder = Self {
            ruleset,
            units: Vec::new(),
            rules: Vec::new(),
            next_set: 1,
            anonymous_sets: HashMap::new(),
            set_elements: HashMap::new(),
            bound_chains: HashMap::new(),
            chain_rules: BTreeMap::new(),
        };
        builder.index();
        for table in &ruleset.tables {
            let payload = masked(&table.payload, abi::table::FLAGS, TABLE_OWNER);
            builder.unit([request(TABLE, &payload, described_table(&table.table))]);
        }
        for object in &ruleset.objects {
            let name =
                format!("object `{}` in {}", object.name(abi::other::NAME), described_table(&object.table));
            builder.unit([request(OBJECT, &object.payload, name)]);
        }
        for chain in ruleset.chains.iter().filter(|chain| !is_bound(chain)) {
            builder.unit([chain_request(chain)]);
        }
        for table in &ruleset.flowtables {
            let name =
                format!("flowtable `{}` in {}", table.name(abi::other::NAME), described_table(&table.table));
            let payload = masked(&table.payload, attribute::FLOWTABLE_FLAGS, FLOWTABLE_OFFLOAD);
            builder.unit([request(FLOWTABLE, &payload, name)]);
        }
        for set in ruleset.sets.iter().filter(|set| !is_anonymous(set)) {
            let new = builder.set_request(set)?;
            builder.unit([new]);
        }
        let named = ruleset.elements.iter().filter(|elements| {
            let name = elements.name(abi::elements::SET);
            !builder.anonymous_sets.contains_key(&(&elements.table, name))
        });
        let named: Vec<NftRequest> = named.map(elements_request).collect();
        for elements in named {
            builder.unit([elements]);
        }
        for index in 0..ruleset.rules.len() {
            let rule = &ruleset.rules[index];
            let chain = (&rule.table, rule.name(abi::rule::CHAIN));
            if !builder.bound_chains.contains_key(&chain) {
                let number = builder.units.len();
                let mut requests = Vec::new();
                builder.rule(index, number, &mut requests)?;
                builder.units.push(NftUnit { number, requests });
            }
        }
        Ok(builder)
    }

    fn index(&mut self) {
        let ruleset = self.ruleset;
        for set in ruleset.sets.iter().filter(|set| is_anonymous(set)) {
            self.anonymous_sets.insert((&set.table, set.name(abi::other::NAME)), set);
        }
        for elements in &ruleset.elements {
            let name = elements.name(abi::elements::SET);
            self.set_elements.entry((&elements.table, name)).or_default().push(elements);
        }
        for chain in ruleset.chains.iter().filter(|chain| is_bound(chain)) {
            self.bound_chains.insert((&chain.table, chain.name(abi::chain::NAME)), chain);
        }
        for (index, rule) in ruleset.rules.iter().enumerate() {
            self.chain_rules.entry((&rule.table, rule.name(abi::rule::CHAIN))).or_default().push(index);
        }
    }

    fn unit(&mut self, requests: impl IntoIterator<Item = NftRequest>) {
        let number = self.units.len();
        self.units.push(NftUnit { number, requests: requests.into_iter().collect() });
    }

    fn set_request(&mut self, set: &DumpedObject) -> Result<NftRequest, Malformed> {
        let name = format!("set `{}` in {}", set.name(abi::other::NAME), described_table(&set.table));
        let mut new = request(SET, &set.payload, name);
        put_attribute(&mut new.payload, attribute::SET_ID, &self.next_set.to_be_bytes())?;
        self.next_set += 1;
        Ok(new)
    }

    /// Appends the requests for a rule, after those for its sets, and for its chains with their rules.
    fn rule(&mut self, index: usize, unit: usize, requests: &mut Vec<NftRequest>) -> Result<(), Malformed> {
        let ruleset = self.ruleset;
        let rule = &ruleset.rules[index];
        let expressions = rule.get(abi::rule::EXPRESSIONS).unwrap_or_default();
        for name in mentioned(expressions) {
            let key = (&rule.table, name);
            if let Some(set) = self.anonymous_sets.remove(&key) {
                let new = self.set_request(set)?;
                requests.push(new);
                let elements = self.set_elements.get(&key).into_iter().flatten();
                requests.extend(elements.map(|elements| elements_request(elements)));
            } else if let Some(chain) = self.bound_chains.get(&key) {
                requests.push(chain_request(chain));
                for inner in self.chain_rules.get(&key).cloned().unwrap_or_default() {
                    self.rule(inner, unit, requests)?;
                }
            }
        }
        let name =
            format!("a rule in chain `{}` in {}", rule.name(abi::rule::CHAIN), described_table(&rule.table));
        let mut new = request(RULE, &acceptable(&rule.payload)?, name);
        if let Some(compat) = compat(rule.table.0, expressions)? {
            put_attribute(&mut new.payload, attribute::RULE_COMPAT, &compat)?;
        }
        requests.push(new);
        self.rules.push((unit, index));
        Ok(())
    }
}

/// Changes the data of an expression that the kernel does not accept as it dumps it; `None` if it does.
fn adapted(expression: &decode::RawExpression<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let field = |kind| get(expression.data, kind);
    Ok(match expression.name {
        b"exthdr" if field(attribute::EXTHDR_SREG).is_some() => {
            Some(retain(expression.data, |kind| kind != attribute::EXTHDR_FLAGS))
        }
        b"dynset" => {
            let timeout = field(attribute::DYNSET_TIMEOUT);
            let is_zero = timeout.is_some_and(|timeout| timeout.iter().all(|byte| *byte == 0));
            // Several statements require a flag that is not dumped.
            let has_several = field(attribute::DYNSET_EXPRESSIONS).is_some();
            if !is_zero && !has_several {
                return Ok(None);
            }
            let mut data = retain(expression.data, |kind| match kind {
                attribute::DYNSET_TIMEOUT => !is_zero,
                attribute::DYNSET_FLAGS => !has_several,
                _ => true,
            });
            if has_several {
                let flags = number(field(attribute::DYNSET_FLAGS)).unwrap_or(0) | attribute::DYNSET_F_EXPR;
                put_attribute(&mut data, attribute::DYNSET_FLAGS, &flags.to_be_bytes())?;
            }
            Some(data)
        }
        _ => None,
    })
}

/// Changes what the kernel dumps but does not accept.
fn acceptable(rule: &[u8]) -> Result<Vec<u8>, Malformed> {
    let attributes = rule.get(abi::GENERIC_HEADER..).unwrap_or_default();
    let expressions = get(attributes, abi::rule::EXPRESSIONS).unwrap_or_default();
    let list = decode::list(expressions).unwrap_or_default();
    let data: Vec<Option<Vec<u8>>> = list.iter().map(adapted).collect::<Result<_, _>>()?;
    if data.iter().all(Option::is_none) {
        return Ok(rule.to_vec());
    }
    let mut elements = Vec::new();
    for (expression, data) in list.iter().zip(&data) {
        let mut element = Vec::new();
        put_attribute(&mut element, expr::NAME, &[expression.name, &[0]].concat())?;
        put_attribute(&mut element, expr::DATA, data.as_deref().unwrap_or(expression.data))?;
        put_attribute(&mut elements, abi::LIST_ELEMENT, &element)?;
    }
    let mut new = rule.get(..abi::GENERIC_HEADER).unwrap_or_default().to_vec();
    new.extend(retain(attributes, |kind| kind != abi::rule::EXPRESSIONS));
    put_attribute(&mut new, abi::rule::EXPRESSIONS, &elements)?;
    Ok(new)
}

fn is_bound(chain: &DumpedObject) -> bool {
    chain.flags(abi::chain::FLAGS) & CHAIN_BINDING != 0
}

fn is_anonymous(set: &DumpedObject) -> bool {
    set.flags(attribute::SET_FLAGS) & SET_ANONYMOUS != 0
}

/// Returns every name in a list of expressions that can be that of a set or a chain.
fn mentioned(expressions: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for expression in decode::list(expressions).unwrap_or_default() {
        let name = match expression.name {
            b"lookup" => get(expression.data, key::LOOKUP_SET),
            // NFTA_OBJREF_SET_NAME
            b"objref" => get(expression.data, 4),
            // NFTA_DYNSET_SET_NAME
            b"dynset" => get(expression.data, 1),
            b"immediate" => get(expression.data, expr::IMMEDIATE_DATA)
                .and_then(|data| get(data, expr::DATA_VERDICT))
                .and_then(|verdict| get(verdict, key::VERDICT_CHAIN)),
            _ => None,
        };
        names.extend(name.map(text));
    }
    names
}

fn request(kind: NftKind, payload: &[u8], object: String) -> NftRequest {
    let family = payload.first().copied().unwrap_or(0);
    let mut new = vec![family, 0, 0, 0];
    let attributes = payload.get(abi::GENERIC_HEADER..).unwrap_or_default();
    new.extend(retain(attributes, |attribute| kind.attributes.contains(&attribute)));
    NftRequest { kind, payload: new, object }
}

fn chain_request(chain: &DumpedObject) -> NftRequest {
    let payload = masked(&chain.payload, abi::chain::FLAGS, CHAIN_OFFLOAD);
    request(CHAIN, &payload, described_chain(chain))
}

fn elements_request(elements: &DumpedObject) -> NftRequest {
    let name = elements.name(abi::elements::SET);
    let object = format!("elements of set `{name}` in {}", described_table(&elements.table));
    request(ELEMENTS, &elements.payload, object)
}

/// Clears bits of the number in the attribute `kind`.
fn masked(payload: &[u8], kind: u16, bits: u32) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let attributes = payload.get(abi::GENERIC_HEADER..).unwrap_or_default();
    let Some(value) = get(attributes, kind).and_then(|value| <[u8; 4]>::try_from(value).ok()) else {
        return payload;
    };
    let cleared = (u32::from_be_bytes(value) & !bits).to_be_bytes();
    let mut at = abi::GENERIC_HEADER;
    while let Some(Ok(attribute)) = attribute_at(&payload, at) {
        if attribute.kind == kind
            && let Some(field) = payload.get_mut(attribute.payload.clone())
        {
            field.copy_from_slice(&cleared);
        }
        at = attribute.next;
    }
    payload
}
