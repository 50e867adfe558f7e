//! Replaces the tables named `hostgw`, each as a whole, all in one atomic batch.
//!
//! A table is replaced only while it is what the plan was made from: it is read again, and the batch names the
//! generation of that look (`NFNL_BATCH_GENID`), so that the kernel refuses it whole (`ERESTART`) when anything changed
//! in between. Any change of any table moves that number, and the kernel has no such guard for one table: where
//! hostgw's is still the same, the change was somebody else's business, and the batch goes out again.

use std::{
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use nftnl::{
    Batch, Chain, MsgType, NlMsg, ProtoFamily, Rule, Table,
    expr::{
        Bitwise, Cmp, CmpOp, Counter, Ipv4HeaderField, Ipv6HeaderField, NetworkHeaderField, Payload, Verdict,
    },
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::{
    Error, Patience,
    abi::{self, expr, message},
    read::{AtRest, read_at_rest},
};
use crate::{
    apply::Interrupt,
    hex::unhex,
    kernel::{
        ffi::{FibDaddrType, Masquerade, Message},
        netlink::{HEADER, NLM_F_REQUEST, Refused, Socket, put_attribute, put_message},
    },
    model::Family,
    plan::NatChange,
    state::{
        BaseChain, ChainPolicy, ChainType, Expression, Field, Hook, NatChain, NatObject, NatRule, NatTable,
        RuleBody,
    },
    text::Untrusted,
};

/// `NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND` (linux/netlink.h): a new rule at the end of its chain.
const APPEND: u16 = 0x200 | 0x400 | 0x800;

/// The longest comment that nftnl writes: `NFTNL_UDATA_COMMENT_MAXLEN` (libnftnl/udata.h) less type,
/// length and NUL.
const COMMENT_MAX: usize = 125;

/// The longest comment that the kernel takes: `NFT_USERDATA_MAXLEN` (linux/netfilter/nf_tables.h), 256,
/// less the same. nft itself writes up to 128.
const FOREIGN_COMMENT_MAX: usize = 253;

/// Makes the table of each family what its change says, in one transaction, if each is still what it was before.
///
/// A table's `others` are not written: what refers to them is refused by the kernel. Comments of tables
/// and chains are not part of the state, and the comment of a rule that hostgw
/// knows is cut at 125 bytes. Counts start at zero.
///
/// # Errors
///
/// [`Error::Unwritable`] before anything is sent; [`Error::Unheard`] when it is not known whether anything changed.
/// With every other error nothing has: [`Error::Overtaken`] when a table is not what the plan was made from,
/// [`Error::Unsteady`] when nftables changed too fast, [`Error::Interrupted`], [`Error::Refused`], or that a table
/// could not be read.
pub fn replace(changes: &[&NatChange], interrupt: &Interrupt) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut script = Script { batch: Batch::new(), objects: Vec::new() };
    for change in changes {
        script.remove(change.family)?;
        if let Some(table) = &change.after {
            script.table(change.family, table)?;
        }
    }
    let objects = script.objects;
    let batch: Vec<u8> = script.batch.finalize().iter().flatten().copied().collect();
    let families: Vec<Family> = changes.iter().map(|change| change.family).collect();
    let mut socket = Socket::open(NETLINK_NETFILTER).map_err(Error::Open)?;
    let mut patience = Patience::until(interrupt);
    loop {
        let AtRest { tables, generation } = read_at_rest(&mut socket, &families, &mut patience)?;
        let is_other = |change: &&&NatChange| tables.get(change.family) != change.before.as_ref();
        if let Some(change) = changes.iter().find(is_other) {
            return Err(Error::Overtaken(change.family));
        }
        match socket.batch(&mut guarded(&batch, generation)?) {
            Err(refused) if is_of_another_generation(&refused) => patience.again()?,
            result => return result.map_err(|refused| explain(refused, objects)),
        }
    }
}

/// The batch with a begin that names `generation`.
fn guarded(batch: &[u8], generation: u32) -> Result<Vec<u8>, Error> {
    /// The begin that nftnl writes: no attributes.
    const BEGIN: usize = HEADER + abi::GENERIC_HEADER;
    let [high, low] = abi::BATCH_SUBSYSTEM.to_be_bytes();
    let mut begin = vec![0, 0, high, low];
    put_attribute(&mut begin, abi::BATCH_GENID, &generation.to_be_bytes())
        .map_err(|malformed| Error::Unheard(malformed.into()))?;
    let mut bytes = Vec::with_capacity(batch.len() + begin.len());
    put_message(&mut bytes, abi::BATCH_BEGIN, NLM_F_REQUEST, 0, &begin);
    bytes.extend_from_slice(batch.get(BEGIN..).unwrap_or_default());
    Ok(bytes)
}

/// Whether the kernel refused a batch for the generation that it names.
fn is_of_another_generation(refused: &Refused) -> bool {
    refused.refusals.first().is_some_and(|(at, error)| *at == 0 && error.errno == Errno::RESTART)
}

/// Names the object that was refused. The first refusal counts: the others often only follow from it.
fn explain(refused: Refused, mut objects: Vec<String>) -> Error {
    match (refused.refusals.into_iter().next(), refused.failure) {
        (Some((index, error)), _) => {
            // Message 0 is the begin of the batch.
            let object = index.checked_sub(1).filter(|index| *index < objects.len());
            Error::Refused { object: object.map(|index| objects.swap_remove(index)), error }
        }
        (None, Some(failure)) => Error::Unheard(failure),
        (None, None) => Error::Unheard(Errno::IO.into()),
    }
}

/// A batch under construction, with what each of its messages is about.
struct Script {
    batch: Batch,
    objects: Vec<String>,
}

impl Script {
    fn add(&mut self, object: String, message: &impl NlMsg) {
        self.put(object, message, MsgType::Add);
    }

    fn put(&mut self, object: String, message: &impl NlMsg, kind: MsgType) {
        self.batch.add(message, kind);
        self.objects.push(object);
    }

    /// Removes the table whether it is there or not. The first message names no flags: with flags, it
    /// would awaken a dormant table, hooks and all, only for it to be removed.
    fn remove(&mut self, family: Family) -> Result<(), Error> {
        let object = NatObject::Table { family, flags: 0 }.to_string();
        self.add(object.clone(), &table_message(family, None)?);
        let table = Table::new(table_name(family)?, proto(family));
        self.put(format!("the removal of {object}"), &table, MsgType::Del);
        Ok(())
    }

    /// All chains come before any rule: rules jump to chains.
    fn table(&mut self, family: Family, table: &NatTable) -> Result<(), Error> {
        let object = NatObject::Table { family, flags: table.flags }.to_string();
        if table.family != family {
            return Err(unwritable(&object, format!("it is a table of {}", table.family.nft())));
        }
        if table.flags & !abi::table::DORMANT != 0 {
            // An owned table would go with this process.
            return Err(unwritable(&object, "only a dormant table's flags can be written"));
        }
        self.add(object, &table_message(family, Some(table.flags))?);
        let parent = Table::new(table_name(family)?, proto(family));
        let mut chains = Vec::with_capacity(table.chains.len());
        for chain in &table.chains {
            let object =
                NatObject::Chain { family, name: chain.name.clone(), base: chain.base.clone() }.to_string();
            let message = chain_message(&parent, chain).map_err(|why| unwritable(&object, why))?;
            self.add(object, &message);
            chains.push((message, chain));
        }
        for (parent, chain) in &chains {
            for rule in &chain.rules {
                self.rule(family, parent, chain, rule)?;
            }
        }
        Ok(())
    }

    fn rule(
        &mut self,
        family: Family,
        parent: &Chain<'_>,
        chain: &NatChain,
        rule: &NatRule,
    ) -> Result<(), Error> {
        let object = NatObject::Rule { family, chain: chain.name.clone(), rule: rule.clone() }.to_string();
        match &rule.body {
            RuleBody::Known(expressions) => {
                let message =
                    known_rule(family, parent, expressions, rule.comment.as_ref().map(Untrusted::as_raw))
                        .map_err(|why| unwritable(&object, why))?;
                self.add(object, &message);
            }
            RuleBody::Other { raw, .. } => {
                let message =
                    raw_rule(family, chain.name.as_raw(), raw, rule.comment.as_ref().map(Untrusted::as_raw))
                        .map_err(|why| unwritable(&object, why))?;
                self.add(object, &message);
            }
        }
        Ok(())
    }
}

fn unwritable(object: &str, why: impl Into<String>) -> Error {
    Error::Unwritable { object: object.to_owned(), why: why.into() }
}

const fn proto(family: Family) -> ProtoFamily {
    match family {
        Family::V4 => ProtoFamily::Ipv4,
        Family::V6 => ProtoFamily::Ipv6,
    }
}

fn table_name(family: Family) -> Result<CString, Error> {
    CString::new(NatTable::NAME).map_err(|_| unwritable(family.nft(), NUL))
}

const NUL: &str = "its name has a NUL byte";

/// `add table`, which nftnl writes without flags only.
fn table_message(family: Family, flags: Option<u32>) -> Result<Message, Error> {
    let attributes = || {
        let mut attributes = Vec::new();
        put_attribute(&mut attributes, abi::table::NAME, table_name(family).ok()?.as_bytes_with_nul())
            .ok()?;
        if let Some(flags) = flags {
            put_attribute(&mut attributes, abi::table::FLAGS, &flags.to_be_bytes()).ok()?;
        }
        Some(attributes)
    };
    attributes()
        .and_then(|attributes| Message::new(message::NEWTABLE, 0, family, attributes))
        .ok_or_else(|| unwritable(family.nft(), TOO_LONG))
}

const TOO_LONG: &str = "it is longer than a netlink message";

fn chain_message<'a>(table: &'a Table, chain: &NatChain) -> Result<Chain<'a>, &'static str> {
    let mut message = Chain::new(CString::new(chain.name.as_raw()).map_err(|_| NUL)?, table);
    if let Some(BaseChain { kind, hook, priority, policy }) = chain.base {
        message.set_type(match kind {
            ChainType::Nat => nftnl::ChainType::Nat,
            ChainType::Filter => nftnl::ChainType::Filter,
            ChainType::Route => nftnl::ChainType::Route,
        });
        let hook = match hook {
            Hook::Prerouting => nftnl::Hook::PreRouting,
            Hook::Input => nftnl::Hook::In,
            Hook::Forward => nftnl::Hook::Forward,
            Hook::Output => nftnl::Hook::Out,
            Hook::Postrouting => nftnl::Hook::PostRouting,
        };
        message.set_hook(hook, priority);
        message.set_policy(match policy {
            ChainPolicy::Accept => nftnl::Policy::Accept,
            ChainPolicy::Drop => nftnl::Policy::Drop,
        });
    }
    Ok(message)
}

fn known_rule<'a>(
    family: Family,
    chain: &'a Chain<'a>,
    expressions: &[Expression],
    comment: Option<&str>,
) -> Result<Rule<'a>, &'static str> {
    let mut rule = Rule::new(chain);
    for expression in expressions {
        match *expression {
            Expression::Address { field, negated, prefix } => {
                address(&mut rule, family, field, negated, prefix)?;
            }
            Expression::NotLocal => {
                rule.add_expr(&FibDaddrType);
                rule.add_expr(&Cmp::new(CmpOp::Neq, expr::LOCAL));
            }
            Expression::Counter => rule.add_expr(&Counter),
            Expression::Masquerade { flags: 0 } => rule.add_expr(&nftnl::expr::Masquerade),
            Expression::Masquerade { flags } => rule.add_expr(&Masquerade { flags }),
            Expression::Return => rule.add_expr(&Verdict::Return),
        }
    }
    if let Some(comment) = comment {
        rule.set_comment(comment_text(comment, COMMENT_MAX)?)?;
    }
    Ok(rule)
}

/// The comment as a C string of at most `most` bytes without its NUL.
fn comment_text(comment: &str, most: usize) -> Result<CString, &'static str> {
    // str::floor_char_boundary needs Rust 1.91.
    let end = (0..=most.min(comment.len())).rev().find(|end| comment.is_char_boundary(*end)).unwrap_or(0);
    CString::new(&comment.as_bytes()[..end]).map_err(|_| "its comment has a NUL byte")
}

/// Load, mask unless the prefix is a whole address, compare.
fn address(
    rule: &mut Rule<'_>,
    family: Family,
    field: Field,
    negated: bool,
    prefix: IpNet,
) -> Result<(), &'static str> {
    if Family::from(prefix) != family {
        return Err("it compares an address of another family");
    }
    let header = match (family, field) {
        (Family::V4, Field::Saddr) => NetworkHeaderField::Ipv4(Ipv4HeaderField::Saddr),
        (Family::V4, Field::Daddr) => NetworkHeaderField::Ipv4(Ipv4HeaderField::Daddr),
        (Family::V6, Field::Saddr) => NetworkHeaderField::Ipv6(Ipv6HeaderField::Saddr),
        (Family::V6, Field::Daddr) => NetworkHeaderField::Ipv6(Ipv6HeaderField::Daddr),
    };
    rule.add_expr(&Payload::Network(header));
    if prefix.prefix_len() < prefix.max_prefix_len() {
        let nothing = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        rule.add_expr(&Bitwise::new(prefix.netmask(), nothing));
    }
    let operation = if negated { CmpOp::Neq } else { CmpOp::Eq };
    rule.add_expr(&Cmp::new(operation, prefix.network()));
    Ok(())
}

/// A foreign rule, with the expressions that were read.
fn raw_rule(family: Family, chain: &str, raw: &str, comment: Option<&str>) -> Result<Message, &'static str> {
    let expressions = unhex(raw).ok_or("its expressions are not hexadecimal")?;
    let chain = CString::new(chain).map_err(|_| NUL)?;
    let userdata = comment.map(userdata).transpose()?;
    let attributes = || {
        let mut attributes = Vec::new();
        put_attribute(&mut attributes, abi::rule::TABLE, table_name(family).ok()?.as_bytes_with_nul())
            .ok()?;
        put_attribute(&mut attributes, abi::rule::CHAIN, chain.as_bytes_with_nul()).ok()?;
        put_attribute(&mut attributes, abi::rule::EXPRESSIONS, &expressions).ok()?;
        if let Some(userdata) = &userdata {
            put_attribute(&mut attributes, abi::rule::USERDATA, userdata).ok()?;
        }
        Some(attributes)
    };
    attributes()
        .and_then(|attributes| Message::new(message::NEWRULE, APPEND, family, attributes))
        .ok_or(TOO_LONG)
}

/// The user data that holds a rule's comment: type, length, value with its NUL.
fn userdata(comment: &str) -> Result<Vec<u8>, &'static str> {
    let text = comment_text(comment, FOREIGN_COMMENT_MAX)?;
    let value = text.as_bytes_with_nul();
    let length = u8::try_from(value.len()).map_err(|_| TOO_LONG)?;
    Ok([&[abi::rule::COMMENT, length], value].concat())
}
