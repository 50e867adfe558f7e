//! Reads the tables named `hostgw`, all from one generation of the ruleset.

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::{
    LOAD_NF_TABLES, NEEDS_ROOT, NatError, Retries,
    abi::{self, message},
    decode::{self, number},
};
use crate::{
    kernel::netlink::{Attributes, Dump, KernelError, Malformed, Socket, put_attribute, text},
    model::Family,
    state::{
        BaseChain, ChainPolicy, ChainType, Hook, NatChain, NatRule, NatTable, RuleBody, StatePart, Tables,
        Unknown,
    },
};

/// Reads the table `hostgw` of each of `families`. An absent table is `None`; a family that this process may not read, or
/// that this kernel lacks, is unknown.
///
/// # Errors
///
/// Returns an error if reading fails for another reason.
pub fn observe(families: &[Family]) -> Result<(Tables, Vec<Unknown>), NatError> {
    let mut socket = match Socket::open(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let reason = errno.and_then(unavailable).ok_or(NatError::Open(error))?;
            return Ok((Tables::default(), unknown(families, reason)));
        }
    };
    match read_consistent(&mut socket, families, &mut Retries::new()) {
        Ok(ConsistentTables { tables, .. }) => Ok((tables, Vec::new())),
        Err(NatError::Generation(error)) => {
            let reason = unavailable(error.errno).ok_or(NatError::Generation(error))?;
            Ok((Tables::default(), unknown(families, reason)))
        }
        Err(error) => Err(error),
    }
}

/// Tables that were all read from one generation of the ruleset.
pub(super) struct ConsistentTables {
    pub tables: Tables,
    pub generation: u32,
}

/// Reads the table `hostgw` of each of `families`, and retries as long as the ruleset changes during the read.
///
/// # Errors
///
/// Returns [`NatError::Generation`] if nothing can be read at all, the error of a later read, or that of [`Retries::wait`].
pub(super) fn read_consistent(
    socket: &mut Socket,
    families: &[Family],
    retries: &mut Retries,
) -> Result<ConsistentTables, NatError> {
    loop {
        let generation = read_generation(socket).map_err(NatError::Generation)?;
        let tables = read(socket, families);
        // A concurrent change can also surface as an error, for example if a table was just removed.
        if read_generation(socket).map_err(NatError::Generation)? == generation {
            return tables.map(|tables| ConsistentTables { tables, generation });
        }
        retries.wait()?;
    }
}

/// The reason that nftables is unavailable, and the remedy.
#[derive(Clone, Copy)]
struct Unavailable {
    why: &'static str,
    hint: &'static str,
}

/// Interprets an error of the first request. Returns `None` if it does not mean that nftables is unavailable.
fn unavailable(errno: Errno) -> Option<Unavailable> {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            Some(Unavailable { why: "reading nf_tables requires CAP_NET_ADMIN", hint: NEEDS_ROOT })
        }
        // nfnetlink returns EINVAL for a subsystem that it lacks. Without nfnetlink itself, the protocol does not
        // exist.
        Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
            Some(Unavailable { why: "this kernel does not support nf_tables", hint: LOAD_NF_TABLES })
        }
        _ => None,
    }
}

/// Returns the remedy for an error of the first request that means that nftables is unavailable.
pub(super) fn unavailable_hint(errno: Errno) -> Option<&'static str> {
    unavailable(errno).map(|unavailable| unavailable.hint)
}

fn unknown(families: &[Family], Unavailable { why, hint }: Unavailable) -> Vec<Unknown> {
    let unknown = |family: &Family| Unknown {
        part: StatePart::Nat { family: *family },
        reason: why.into(),
        remedy: Some(hint.into()),
    };
    families.iter().map(unknown).collect()
}

/// Reads the generation: a counter that changes with every change of any table in this namespace.
pub(super) fn read_generation(socket: &mut Socket) -> Result<u32, KernelError> {
    let dump = socket.get(message::GETGEN, &header(None))?;
    for (kind, payload) in dump.iter() {
        if kind == message::NEWGEN {
            return number(find(payload, abi::GEN_ID)?).ok_or_else(|| Malformed.into());
        }
    }
    Err(Malformed.into())
}

fn read(socket: &mut Socket, families: &[Family]) -> Result<Tables, NatError> {
    let mut tables = Tables::default();
    for &family in families {
        *tables.get_mut(family) = Reader { socket, family }.table()?;
    }
    Ok(tables)
}

/// Reads the table of one family.
struct Reader<'a> {
    socket: &'a mut Socket,
    family: Family,
}

impl Reader<'_> {
    fn table(&mut self) -> Result<Option<NatTable>, NatError> {
        let tables = self.dump(message::GETTABLE, "tables", None)?;
        let Some(table) = tables.iter().find(|table| table.belongs_to_hostgw(abi::table::NAME)) else {
            return Ok(None);
        };
        let flags = number(table.get(abi::table::FLAGS)).unwrap_or(0);
        let (mut chains, mut others) = self.chains()?;
        self.rules(&mut chains)?;
        self.others(message::GETSET, "sets", set_kind, &mut others)?;
        self.others(message::GETOBJ, "named objects", object_kind, &mut others)?;
        self.others(message::GETFLOWTABLE, "flow tables", |_| "flowtable", &mut others)?;
        Ok(Some(NatTable {
            family: self.family,
            flags,
            chains,
            others: others.into_iter().map(Into::into).collect(),
        }))
    }

    /// Reads the chains that hostgw can write, and descriptions of the others.
    fn chains(&mut self) -> Result<(Vec<NatChain>, Vec<String>), NatError> {
        let (mut chains, mut others) = (Vec::new(), Vec::new());
        for object in self.dump(message::GETCHAIN, "chains", None)? {
            if object.belongs_to_hostgw(abi::chain::TABLE) {
                match chain(&object) {
                    Ok(chain) => chains.push(chain),
                    Err(name) => others.push(format!("chain {name}")),
                }
            }
        }
        Ok((chains, others))
    }

    /// Reads the rules into their chains. Rules of a chain that hostgw cannot write are skipped: the chain is already
    /// among the descriptions.
    fn rules(&mut self, chains: &mut [NatChain]) -> Result<(), NatError> {
        // The kernel dumps rules chain by chain, in the order of the chains.
        let mut at = 0;
        for object in self.dump(message::GETRULE, "rules", Some(abi::rule::TABLE))? {
            let Some(name) =
                object.get(abi::rule::CHAIN).filter(|_| object.belongs_to_hostgw(abi::rule::TABLE))
            else {
                continue;
            };
            let is_named = |chain: &NatChain| name.strip_suffix(&[0]) == Some(chain.name.as_raw().as_bytes());
            if !chains.get(at).is_some_and(is_named) {
                let Some(found) = chains.iter().position(is_named) else { continue };
                at = found;
            }
            chains[at].rules.push(rule(self.family, &object));
        }
        Ok(())
    }

    fn others(
        &mut self,
        message_type: u16,
        what: &str,
        kind: fn(u32) -> &'static str,
        others: &mut Vec<String>,
    ) -> Result<(), NatError> {
        for object in self.dump(message_type, what, Some(abi::other::TABLE))? {
            if object.belongs_to_hostgw(abi::other::TABLE) {
                let name = text(object.get(abi::other::NAME).unwrap_or_default());
                let kind = kind(number(object.get(abi::other::KIND)).unwrap_or(0));
                others.push(format!("{kind} {name}"));
            }
        }
        Ok(())
    }

    /// Dumps the objects of one type. With a `filter`, the attribute that names a table, the kernel dumps only those
    /// of hostgw's table; it cannot filter tables and chains.
    fn dump(
        &mut self,
        message_type: u16,
        what: &str,
        filter: Option<u16>,
    ) -> Result<Vec<NftObject>, NatError> {
        let mut request = header(Some(self.family)).to_vec();
        filter
            .map_or(Ok(()), |attribute| put_attribute(&mut request, attribute, TABLE_NAME))
            .map_err(KernelError::from)
            .and_then(|()| self.socket.dump(message_type, 0, &request))
            .and_then(|dump| Ok(objects(&dump)?))
            .map_err(|error| NatError::Read { what: format!("{what} of {}", self.family.nft()), error })
    }
}

/// [`NatTable::NAME`] as an attribute.
const TABLE_NAME: &[u8] = b"hostgw\0";

/// The attributes of one nftables object.
pub(super) struct NftObject(Vec<(u16, Vec<u8>)>);

impl NftObject {
    pub(super) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == kind).map(|(_, payload)| payload.as_slice())
    }

    /// Returns `true` if the attribute `table` names hostgw's table.
    fn belongs_to_hostgw(&self, table: u16) -> bool {
        self.get(table) == Some(TABLE_NAME)
    }
}

/// Dumps the objects of one type in all tables, each with the family of its table.
///
/// # Errors
///
/// Returns the kernel's error.
pub(super) fn objects_of(
    socket: &mut Socket,
    message_type: u16,
) -> Result<Vec<(u8, NftObject)>, KernelError> {
    let dump = socket.dump(message_type, 0, &header(None))?;
    let families = dump.iter().map(|(_, payload)| payload.first().copied().unwrap_or(0));
    Ok(families.zip(objects(&dump)?).collect())
}

fn objects(dump: &Dump) -> Result<Vec<NftObject>, Malformed> {
    let owned = |(kind, payload): (u16, &[u8])| (kind, payload.to_vec());
    dump.iter()
        .map(|(_, payload)| {
            let attributes = Attributes::new(payload.get(abi::GENERIC_HEADER..).ok_or(Malformed)?);
            attributes.map(|attribute| attribute.map(owned)).collect::<Result<_, _>>().map(NftObject)
        })
        .collect()
}

/// Builds a `struct nfgenmsg` (linux/netfilter/nfnetlink.h): family, version, resource.
fn header(family: Option<Family>) -> [u8; abi::GENERIC_HEADER] {
    [family.map_or(0, abi::protocol), 0, 0, 0]
}

fn find(payload: &[u8], kind: u16) -> Result<Option<&[u8]>, Malformed> {
    for attribute in Attributes::new(payload.get(abi::GENERIC_HEADER..).ok_or(Malformed)?) {
        let (found, value) = attribute?;
        if found == kind {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Decodes a chain, without its rules.
///
/// # Errors
///
/// Returns the name of a chain that hostgw cannot write.
fn chain(object: &NftObject) -> Result<NatChain, String> {
    let bytes = object.get(abi::chain::NAME).unwrap_or_default();
    let name = text(bytes);
    let base = base_chain(object);
    // A name that is not UTF-8 cannot be written. Other flags mark anonymous and offloaded chains.
    let exact = bytes.strip_suffix(&[0]) == Some(name.as_bytes());
    let plain = number(object.get(abi::chain::FLAGS)).unwrap_or(0) & !abi::chain::FLAG_BASE == 0;
    match base {
        Some(base) if exact && plain => Ok(NatChain { name: name.into(), base, rules: Vec::new() }),
        _ => Err(name),
    }
}

/// Decodes the hook, `Some(None)` for a chain without one. Returns `None` for a hook that hostgw cannot write.
pub(super) fn base_chain(object: &NftObject) -> Option<Option<BaseChain>> {
    let Some(hook) = object.get(abi::chain::HOOK) else { return Some(None) };
    let (mut hook_number, mut priority) = (None, None);
    for attribute in Attributes::new(hook) {
        match attribute.ok()? {
            (abi::chain::HOOK_NUMBER, value) => hook_number = number(Some(value)),
            (abi::chain::HOOK_PRIORITY, value) => priority = number(Some(value)).map(u32::cast_signed),
            _ => return None,
        }
    }
    let kind = match object.get(abi::chain::TYPE)? {
        b"nat\0" => ChainType::Nat,
        b"filter\0" => ChainType::Filter,
        b"route\0" => ChainType::Route,
        _ => return None,
    };
    // enum nf_inet_hooks (linux/netfilter.h).
    let hook = match hook_number? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    // NF_DROP and NF_ACCEPT (linux/netfilter.h).
    let policy = match number(object.get(abi::chain::POLICY))? {
        0 => ChainPolicy::Drop,
        1 => ChainPolicy::Accept,
        _ => return None,
    };
    Some(Some(BaseChain { kind, hook, priority: priority?, policy }))
}

fn rule(family: Family, object: &NftObject) -> NatRule {
    NatRule {
        body: object
            .get(abi::rule::EXPRESSIONS)
            .map_or(RuleBody::Known(Vec::new()), |expressions| decode::rule(family, expressions)),
        comment: object.get(abi::rule::USERDATA).and_then(decode::comment).map(Into::into),
    }
}

const fn set_kind(flags: u32) -> &'static str {
    if flags & abi::other::MAPS == 0 { "set" } else { "map" }
}

/// The `nft add` keyword of an `NFT_OBJECT_*` type (linux/netfilter/nf_tables.h).
const fn object_kind(kind: u32) -> &'static str {
    match kind {
        1 => "counter",
        2 => "quota",
        3 => "ct-helper",
        4 => "limit",
        6 => "tunnel",
        7 => "ct-timeout",
        8 => "secmark",
        9 => "ct-expectation",
        10 => "synproxy",
        _ => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_nf_tables_is_unknown_and_other_errors_are_errors() {
        for errno in [Errno::INVAL, Errno::PROTONOSUPPORT, Errno::OPNOTSUPP] {
            let Some(reason) = unavailable(errno) else { panic!("{errno}") };
            let unknown = unknown(&[Family::V6], reason);
            assert_eq!(unknown[0].part, StatePart::Nat { family: Family::V6 });
            assert_eq!(unknown[0].reason, "this kernel does not support nf_tables");
            assert_eq!(
                unknown[0].remedy.as_ref().map(crate::text::Untrusted::as_raw),
                Some("run `modprobe nf_tables`")
            );
        }
        assert!(unavailable(Errno::NOMEM).is_none());
    }
}
