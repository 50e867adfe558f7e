//! Copies the whole ruleset of a namespace to another one, byte by byte: what the kernel dumps is sent back to it as the
//! request that creates the same object.
//!
//! Interfaces must have the same names and numbers in both namespaces, because rules contain both.

mod units;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    NatError, Retries,
    abi::{self, message},
    decode::{self, get, number},
    key,
    read::read_generation,
};
use crate::kernel::{
    netlink::{KernelError, NLM_F_REQUEST, Refused, Socket, put_attribute, put_message, text},
    omission::Omission,
};
use units::{NftRequest, NftUnit, UnitBuilder};

/// Attributes of objects, and of lists of elements, that this file needs besides those in `abi`
/// (linux/netfilter/nf_tables.h).
mod attribute {
    pub(super) const RULE_COMPAT: u16 = 5;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const FLOWTABLE_FLAGS: u16 = 7;
    pub(super) const DYNSET_TIMEOUT: u16 = 6;
    pub(super) const DYNSET_FLAGS: u16 = 9;
    pub(super) const DYNSET_EXPRESSIONS: u16 = 10;
    /// `NFT_DYNSET_F_EXPR`.
    pub(super) const DYNSET_F_EXPR: u32 = 2;
    pub(super) const EXTHDR_FLAGS: u16 = 5;
    pub(super) const EXTHDR_SREG: u16 = 7;
}

// Flags of objects (linux/netfilter/nf_tables.h).
/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: the table ends with the process that created it.
const TABLE_OWNER: u32 = 0x2 | 0x4;
const CHAIN_OFFLOAD: u32 = 0x2;
/// The chain is part of the rule that jumps to it.
const CHAIN_BINDING: u32 = 0x4;
/// The set is part of the rule that uses it.
const SET_ANONYMOUS: u32 = 0x1;
const FLOWTABLE_OFFLOAD: u32 = 0x1;

/// A table, by its family and name.
type TableKey = (u8, String);

/// An object as the kernel dumps it.
#[derive(Debug, Clone)]
struct DumpedObject {
    table: TableKey,
    /// The family header and the attributes.
    payload: Vec<u8>,
}

impl DumpedObject {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        get(self.payload.get(abi::GENERIC_HEADER..)?, kind)
    }

    fn name(&self, kind: u16) -> String {
        text(self.get(kind).unwrap_or_default())
    }

    fn flags(&self, kind: u16) -> u32 {
        number(self.get(kind)).unwrap_or(0)
    }
}

/// All tables of a namespace.
#[derive(Debug, Default)]
pub struct Ruleset {
    tables: Vec<DumpedObject>,
    chains: Vec<DumpedObject>,
    rules: Vec<DumpedObject>,
    sets: Vec<DumpedObject>,
    elements: Vec<DumpedObject>,
    objects: Vec<DumpedObject>,
    flowtables: Vec<DumpedObject>,
}

/// The rules of a copy: where the kernel stored which rule of the original.
#[derive(Debug, Default)]
pub struct CopiedRules {
    /// The handle in the original by family, table and the handle in the copy.
    handles: HashMap<(u8, String, u64), u64>,
}

impl CopiedRules {
    /// Returns the handle in the original of a rule in the copy.
    #[must_use]
    pub fn original_handle(&self, family: u8, table: &str, handle: u64) -> Option<u64> {
        self.handles.get(&(family, table.to_owned(), handle)).copied()
    }
}

impl Ruleset {
    /// Reads all tables of the namespace of the calling thread, from one generation of the ruleset.
    ///
    /// # Errors
    /// Returns an error if they cannot be read, or change all the time.
    pub fn read() -> Result<Self, NatError> {
        let mut socket = Socket::open(NETLINK_NETFILTER).map_err(NatError::Open)?;
        let mut retries = Retries::new();
        loop {
            let generation = read_generation(&mut socket).map_err(NatError::Generation)?;
            let found = Self::read_once(&mut socket);
            if read_generation(&mut socket).map_err(NatError::Generation)? == generation {
                return found.map_err(|error| NatError::Read { what: "the ruleset".to_owned(), error });
            }
            retries.wait()?;
        }
    }

    fn read_once(socket: &mut Socket) -> Result<Self, KernelError> {
        let all = [0; abi::GENERIC_HEADER];
        let mut found = Self {
            tables: dump(socket, message::GETTABLE, &all, abi::table::NAME)?,
            chains: dump(socket, message::GETCHAIN, &all, abi::chain::TABLE)?,
            rules: dump(socket, message::GETRULE, &all, abi::rule::TABLE)?,
            sets: dump(socket, message::GETSET, &all, abi::other::TABLE)?,
            objects: dump(socket, message::GETOBJ, &all, abi::other::TABLE)?,
            flowtables: dump(socket, message::GETFLOWTABLE, &all, abi::other::TABLE)?,
            elements: Vec::new(),
        };
        for set in &found.sets {
            let mut request = vec![set.table.0, 0, 0, 0];
            for (kind, source) in
                [(abi::elements::TABLE, abi::other::TABLE), (abi::elements::SET, abi::other::NAME)]
            {
                put_attribute(&mut request, kind, set.get(source).unwrap_or_default())?;
            }
            found.elements.extend(dump(socket, message::GETSETELEM, &request, abi::elements::TABLE)?);
        }
        Ok(found)
    }

    /// Returns the numbers of tables, chains and rules.
    #[must_use]
    pub const fn counts(&self) -> (usize, usize, usize) {
        (self.tables.len(), self.chains.len(), self.rules.len())
    }

    /// Creates all objects in the namespace of the calling thread, which has none. Returns those that the kernel rejected,
    /// and where the rules are.
    ///
    /// # Errors
    /// Returns an error if requests cannot be sent or encoded.
    pub fn write(&self) -> Result<(Vec<Omission>, CopiedRules), NatError> {
        let mut socket = Socket::open(NETLINK_NETFILTER).map_err(NatError::Open)?;
        let mut omissions = Vec::new();
        let UnitBuilder { units, rules, .. } =
            UnitBuilder::of(self).map_err(|error| NatError::Unheard(error.into()))?;
        let mut written = HashSet::new();
        for batch in batches(&units) {
            written.extend(send(&mut socket, batch, &mut omissions)?);
        }
        let rules = rules.into_iter().filter(|(unit, _)| written.contains(unit)).map(|(_, rule)| rule);
        let copied = self.locate(&mut socket, rules)?;
        omissions.extend(self.altered());
        Ok((omissions, copied))
    }

    /// The properties of objects that a copy must not have.
    fn altered(&self) -> Vec<Omission> {
        let mut altered = Vec::new();
        for table in &self.tables {
            if table.flags(abi::table::FLAGS) & TABLE_OWNER != 0 {
                altered.push(Omission::new(described_table(&table.table), "the owner flag is not copied"));
            }
        }
        for chain in &self.chains {
            if chain.flags(abi::chain::FLAGS) & CHAIN_OFFLOAD != 0 {
                altered.push(Omission::new(
                    described_chain(chain),
                    "it is not offloaded to hardware in the copy",
                ));
            }
        }
        let queues = |rule: &&DumpedObject| {
            let expressions = rule.get(abi::rule::EXPRESSIONS).unwrap_or_default();
            decode::list(expressions).unwrap_or_default().iter().any(|expression| {
                let target = get(expression.data, key::XT_NAME).map(text);
                expression.name == b"queue"
                    || expression.name == b"target" && target.as_deref() == Some("NFQUEUE")
            })
        };
        for rule in self.rules.iter().filter(queues) {
            altered.push(Omission::new(
                format!(
                    "the queue of chain `{}` in {}",
                    rule.name(abi::rule::CHAIN),
                    described_table(&rule.table)
                ),
                "no program of the node receives its packets in the copy",
            ));
        }
        for table in &self.flowtables {
            if table.flags(attribute::FLOWTABLE_FLAGS) & FLOWTABLE_OFFLOAD != 0 {
                let object = format!(
                    "flowtable `{}` in {}",
                    table.name(abi::other::NAME),
                    described_table(&table.table)
                );
                altered.push(Omission::new(object, "it is not offloaded to hardware in the copy"));
            }
        }
        altered
    }

    /// Finds the rules in the copy. `rules` are the indexes of those that were written, in their order.
    fn locate(
        &self,
        socket: &mut Socket,
        rules: impl Iterator<Item = usize>,
    ) -> Result<CopiedRules, NatError> {
        let unreadable = |error| NatError::Read { what: "the copied rules".to_owned(), error };
        let handle = |object: &DumpedObject| {
            let bytes = object.get(abi::rule::HANDLE)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        let chain = |rule: &DumpedObject| (rule.table.clone(), rule.name(abi::rule::CHAIN));
        let mut original: HashMap<(TableKey, String), Vec<u64>> = HashMap::new();
        for rule in rules.map(|index| &self.rules[index]) {
            original.entry(chain(rule)).or_default().extend(handle(rule));
        }
        let copy = dump(socket, message::GETRULE, &[0; abi::GENERIC_HEADER], abi::rule::TABLE)
            .map_err(unreadable)?;
        let mut seen: HashMap<(TableKey, String), usize> = HashMap::new();
        let mut copied = CopiedRules::default();
        for rule in &copy {
            let at = seen.entry(chain(rule)).or_insert(0);
            let before = original.get(&chain(rule)).and_then(|handles| handles.get(*at));
            *at += 1;
            if let (Some(before), Some(handle)) = (before, handle(rule)) {
                let (family, table) = rule.table.clone();
                copied.handles.insert((family, table, handle), *before);
            }
        }
        Ok(copied)
    }
}

/// Dumps the objects of one type. `table` is the attribute that names the table.
fn dump(
    socket: &mut Socket,
    message_type: u16,
    request: &[u8],
    table: u16,
) -> Result<Vec<DumpedObject>, KernelError> {
    let dump = socket.dump(message_type, 0, request)?;
    let objects = dump.iter().map(|(_, payload)| {
        let attributes = payload.get(abi::GENERIC_HEADER..).unwrap_or_default();
        let name = text(get(attributes, table).unwrap_or_default());
        let family = payload.first().copied().unwrap_or(0);
        DumpedObject { table: (family, name), payload: payload.to_vec() }
    });
    Ok(objects.collect())
}

/// The name of a table's family in nft (`NFPROTO_*`, linux/netfilter.h).
pub(super) fn family_name(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

fn described_table((family, name): &TableKey) -> String {
    format!("table `{} {name}`", family_name(*family))
}

fn described_chain(chain: &DumpedObject) -> String {
    format!("chain `{}` in {}", chain.name(abi::chain::NAME), described_table(&chain.table))
}

/// Divides the units into batches that fit the send buffer of an unprivileged socket: 208 KiB by default.
fn batches(units: &[NftUnit]) -> Vec<&[NftUnit]> {
    const BYTES: usize = 128 << 10;
    let mut batches = Vec::new();
    let (mut start, mut length) = (0, 0);
    for (at, unit) in units.iter().enumerate() {
        if length > 0 && length + unit.length() > BYTES {
            batches.push(&units[start..at]);
            (start, length) = (at, 0);
        }
        length += unit.length();
    }
    if start < units.len() {
        batches.push(&units[start..]);
    }
    batches
}

/// Sends the units as one transaction, and again without those that the kernel rejects. Returns the numbers of the others.
fn send(
    socket: &mut Socket,
    units: &[NftUnit],
    omissions: &mut Vec<Omission>,
) -> Result<HashSet<usize>, NatError> {
    let mut left: Vec<&NftUnit> = units.iter().collect();
    while !left.is_empty() {
        let Err(refused) = socket.batch(&mut encoded(&left)) else { break };
        let rejected = rejected(&left, &refused)?;
        for (request, error) in rejected.values() {
            omissions.push(Omission::decisive(
                request.object.as_str(),
                format!("the kernel rejected it: {error}"),
            ));
        }
        left.retain(|unit| !rejected.contains_key(&unit.number));
    }
    Ok(left.iter().map(|unit| unit.number).collect())
}

fn encoded(units: &[&NftUnit]) -> Vec<u8> {
    let Ok(bytes) = abi::batch::<Infallible>(|bytes| {
        for NftRequest { kind, payload, .. } in units.iter().flat_map(|unit| &unit.requests) {
            put_message(bytes, kind.message, kind.flags | NLM_F_REQUEST, 0, payload);
        }
        Ok(())
    });
    bytes
}

/// Returns the units that the kernel rejected, each with its first rejected request.
fn rejected<'a>(
    units: &[&'a NftUnit],
    refused: &Refused,
) -> Result<BTreeMap<usize, (&'a NftRequest, KernelError)>, NatError> {
    let requests: Vec<(usize, &NftRequest)> =
        units.iter().flat_map(|unit| unit.requests.iter().map(|request| (unit.number, request))).collect();
    let mut rejected = BTreeMap::new();
    for (index, error) in &refused.rejections {
        // Message 0 begins the batch, and the last one ends it.
        let Some((unit, request)) = index.checked_sub(1).and_then(|at| requests.get(at)) else { continue };
        rejected.entry(*unit).or_insert_with(|| (*request, error.clone()));
    }
    if rejected.is_empty() {
        let error = refused.rejections.first().map(|(_, error)| error.clone());
        let error = error.or_else(|| refused.failure.clone());
        return Err(NatError::Unheard(error.unwrap_or_else(|| rustix::io::Errno::IO.into())));
    }
    Ok(rejected)
}
