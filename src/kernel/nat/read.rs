//! The tables named `hostgw` as the kernel holds them, all of one generation of the rule set.

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::{
    BECOME_ROOT, Error, LOAD_NF_TABLES, Patience,
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

/// The table `hostgw` of each of `families`; an absent table is `None`. A family that this process may
/// not read, or this kernel does not have, is unknown.
///
/// # Errors
///
/// What else goes wrong while reading.
pub fn observe(families: &[Family]) -> Result<(Tables, Vec<Unknown>), Error> {
    let mut socket = match Socket::open(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let reason = errno.and_then(unreadable).ok_or(Error::Open(error))?;
            return Ok((Tables::default(), unknown(families, reason)));
        }
    };
    match read_at_rest(&mut socket, families, &mut Patience::new()) {
        Ok(AtRest { tables, .. }) => Ok((tables, Vec::new())),
        Err(Error::Generation(error)) => {
            let reason = unreadable(error.errno).ok_or(Error::Generation(error))?;
            Ok((Tables::default(), unknown(families, reason)))
        }
        Err(error) => Err(error),
    }
}

/// Tables, and the generation of the ruleset that all of them are of.
pub(super) struct AtRest {
    pub tables: Tables,
    pub generation: u32,
}

/// Reads the table `hostgw` of each of `families`, again as long as the ruleset changes while it is read.
///
/// # Errors
///
/// [`Error::Generation`] when nothing can be read at all; what goes wrong later; as [`Patience::again`] says.
pub(super) fn read_at_rest(
    socket: &mut Socket,
    families: &[Family],
    patience: &mut Patience,
) -> Result<AtRest, Error> {
    loop {
        let generation = read_generation(socket).map_err(Error::Generation)?;
        let tables = read(socket, families);
        // A change in between can show as an error too, say of a table that has just gone.
        if read_generation(socket).map_err(Error::Generation)? == generation {
            return tables.map(|tables| AtRest { tables, generation });
        }
        patience.again()?;
    }
}

/// Why nothing can be read, and what to do about it.
#[derive(Clone, Copy)]
struct Reason(&'static str, &'static str);

/// The reason that an error on the first request stands for, when it does not stand for a failure.
fn unreadable(errno: Errno) -> Option<Reason> {
    match errno {
        Errno::PERM | Errno::ACCESS => Some(Reason("reading nf_tables needs CAP_NET_ADMIN", BECOME_ROOT)),
        // nfnetlink answers EINVAL for a subsystem that it does not have; without nfnetlink itself
        // there is no such protocol.
        Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
            Some(Reason("this kernel has no nf_tables", LOAD_NF_TABLES))
        }
        _ => None,
    }
}

/// What to do about an error on the first request, where it means that nothing can be read.
pub(super) fn remedy(errno: Errno) -> Option<&'static str> {
    unreadable(errno).map(|Reason(_, hint)| hint)
}

fn unknown(families: &[Family], Reason(why, hint): Reason) -> Vec<Unknown> {
    let unknown = |family: &Family| Unknown {
        what: StatePart::Nat { family: *family },
        why: why.into(),
        hint: Some(hint.into()),
    };
    families.iter().map(unknown).collect()
}

/// The generation: a number that every change of any table of this namespace moves.
fn read_generation(socket: &mut Socket) -> Result<u32, KernelError> {
    let dump = socket.get(message::GETGEN, &header(None))?;
    for (kind, payload) in dump.iter() {
        if kind == message::NEWGEN {
            return number(find(payload, abi::GEN_ID)?).ok_or_else(|| Malformed.into());
        }
    }
    Err(Malformed.into())
}

fn read(socket: &mut Socket, families: &[Family]) -> Result<Tables, Error> {
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
    fn table(&mut self) -> Result<Option<NatTable>, Error> {
        let tables = self.dump(message::GETTABLE, "tables", None)?;
        let Some(table) = tables.iter().find(|table| table.is(abi::table::NAME)) else { return Ok(None) };
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

    /// The chains that hostgw can write, and descriptions of the others.
    fn chains(&mut self) -> Result<(Vec<NatChain>, Vec<String>), Error> {
        let (mut chains, mut others) = (Vec::new(), Vec::new());
        for item in self.dump(message::GETCHAIN, "chains", None)? {
            if item.is(abi::chain::TABLE) {
                match chain(&item) {
                    Ok(chain) => chains.push(chain),
                    Err(name) => others.push(format!("chain {name}")),
                }
            }
        }
        Ok((chains, others))
    }

    /// Adds the rules to their chains. One of a chain that is not there is told by the others already.
    fn rules(&mut self, chains: &mut [NatChain]) -> Result<(), Error> {
        // The kernel dumps chain by chain, in its order of chains.
        let mut at = 0;
        for item in self.dump(message::GETRULE, "rules", Some(abi::rule::TABLE))? {
            let Some(name) = item.get(abi::rule::CHAIN).filter(|_| item.is(abi::rule::TABLE)) else {
                continue;
            };
            let is_it = |chain: &NatChain| name.strip_suffix(&[0]) == Some(chain.name.as_raw().as_bytes());
            if !chains.get(at).is_some_and(is_it) {
                let Some(found) = chains.iter().position(is_it) else { continue };
                at = found;
            }
            chains[at].rules.push(rule(self.family, &item));
        }
        Ok(())
    }

    fn others(
        &mut self,
        message_type: u16,
        what: &str,
        kind: fn(u32) -> &'static str,
        others: &mut Vec<String>,
    ) -> Result<(), Error> {
        for item in self.dump(message_type, what, Some(abi::other::TABLE))? {
            if item.is(abi::other::TABLE) {
                let name = text(item.get(abi::other::NAME).unwrap_or_default());
                let kind = kind(number(item.get(abi::other::KIND)).unwrap_or(0));
                others.push(format!("{kind} {name}"));
            }
        }
        Ok(())
    }

    /// A dump, of hostgw's table only when `filter` is the attribute by which the kernel selects it. Tables
    /// and chains it dumps of the whole family.
    fn dump(&mut self, message_type: u16, what: &str, filter: Option<u16>) -> Result<Vec<Item>, Error> {
        let mut request = header(Some(self.family)).to_vec();
        filter
            .map_or(Ok(()), |attribute| put_attribute(&mut request, attribute, TABLE_NAME))
            .map_err(KernelError::from)
            .and_then(|()| self.socket.dump(message_type, 0, &request))
            .and_then(|dump| Ok(items(&dump)?))
            .map_err(|error| Error::Read { what: format!("{what} of {}", self.family.nft()), error })
    }
}

/// [`NatTable::NAME`] as an attribute.
const TABLE_NAME: &[u8] = b"hostgw\0";

/// The attributes of one message.
struct Item(Vec<(u16, Vec<u8>)>);

impl Item {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == kind).map(|(_, payload)| payload.as_slice())
    }

    /// Whether the attribute `table` names hostgw's table.
    fn is(&self, table: u16) -> bool {
        self.get(table) == Some(TABLE_NAME)
    }
}

fn items(dump: &Dump) -> Result<Vec<Item>, Malformed> {
    let owned = |(kind, payload): (u16, &[u8])| (kind, payload.to_vec());
    dump.iter()
        .map(|(_, payload)| {
            let attributes = Attributes::new(payload.get(abi::GENERIC_HEADER..).ok_or(Malformed)?);
            attributes.map(|attribute| attribute.map(owned)).collect::<Result<_, _>>().map(Item)
        })
        .collect()
}

/// `struct nfgenmsg` (linux/netfilter/nfnetlink.h): family, version, resource.
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

/// The chain without its rules, or the name of one that hostgw cannot write.
fn chain(item: &Item) -> Result<NatChain, String> {
    let bytes = item.get(abi::chain::NAME).unwrap_or_default();
    let name = text(bytes);
    let base = base_chain(item);
    // A name that is not UTF-8 cannot be written back; other flags are of anonymous and offloaded chains.
    let exact = bytes.strip_suffix(&[0]) == Some(name.as_bytes());
    let plain = number(item.get(abi::chain::FLAGS)).unwrap_or(0) & !abi::chain::FLAG_BASE == 0;
    match base {
        Some(base) if exact && plain => Ok(NatChain { name: name.into(), base, rules: Vec::new() }),
        _ => Err(name),
    }
}

/// The hook, if there is one; `None` for a hook that hostgw cannot write.
fn base_chain(item: &Item) -> Option<Option<BaseChain>> {
    let Some(hook) = item.get(abi::chain::HOOK) else { return Some(None) };
    let (mut place, mut priority) = (None, None);
    for attribute in Attributes::new(hook) {
        match attribute.ok()? {
            (abi::chain::HOOK_NUMBER, value) => place = number(Some(value)),
            (abi::chain::HOOK_PRIORITY, value) => priority = number(Some(value)).map(u32::cast_signed),
            _ => return None,
        }
    }
    let kind = match item.get(abi::chain::TYPE)? {
        b"nat\0" => ChainType::Nat,
        b"filter\0" => ChainType::Filter,
        b"route\0" => ChainType::Route,
        _ => return None,
    };
    // enum nf_inet_hooks (linux/netfilter.h).
    let hook = match place? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    // NF_DROP and NF_ACCEPT (linux/netfilter.h).
    let policy = match number(item.get(abi::chain::POLICY))? {
        0 => ChainPolicy::Drop,
        1 => ChainPolicy::Accept,
        _ => return None,
    };
    Some(Some(BaseChain { kind, hook, priority: priority?, policy }))
}

fn rule(family: Family, item: &Item) -> NatRule {
    NatRule {
        body: item
            .get(abi::rule::EXPRESSIONS)
            .map_or(RuleBody::Known(Vec::new()), |expressions| decode::rule(family, expressions)),
        comment: item.get(abi::rule::USERDATA).and_then(decode::comment).map(Into::into),
    }
}

const fn set_kind(flags: u32) -> &'static str {
    if flags & abi::other::MAPS == 0 { "set" } else { "map" }
}

/// The words of `nft add` for `NFT_OBJECT_*` (linux/netfilter/nf_tables.h).
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
    fn a_missing_nf_tables_is_unknown_and_other_errors_are_errors() {
        for errno in [Errno::INVAL, Errno::PROTONOSUPPORT, Errno::OPNOTSUPP] {
            let Some(reason) = unreadable(errno) else { panic!("{errno}") };
            let unknown = unknown(&[Family::V6], reason);
            assert_eq!(unknown[0].what, StatePart::Nat { family: Family::V6 });
            assert_eq!(unknown[0].why, "this kernel has no nf_tables");
            assert_eq!(
                unknown[0].hint.as_ref().map(crate::text::Untrusted::as_raw),
                Some("modprobe nf_tables")
            );
        }
        assert!(unreadable(Errno::NOMEM).is_none());
    }
}
