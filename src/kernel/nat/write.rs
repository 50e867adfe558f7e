//! Replaces the tables named `hostgw`, each as a whole, in one atomic batch.
//!
//! A table is replaced only if it still equals the one that the plan was created from. hostgw reads it again, and the
//! batch names the generation of that read (`NFNL_BATCH_GENID`), so the kernel rejects the batch (`ERESTART`) if anything
//! has changed since. The generation counts the changes of all tables, and the kernel offers no such guard for a single
//! one. If hostgw's table is unchanged, the batch is sent again with the new generation.

use std::{
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use nftnl::{
    Batch, Chain, MsgType, NlMsg, ProtoFamily, Rule, Table,
    expr::{
        Bitwise, Cmp, CmpOp, Counter, Immediate, Ipv4HeaderField, Ipv6HeaderField, NetworkHeaderField,
        Payload, Register, Verdict,
    },
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::{
    NatError, Retries,
    abi::{self, expr, message},
    read::{ConsistentTables, read_consistent},
};
use crate::{
    apply::Interrupt,
    hex::unhex,
    kernel::{
        ffi::{BatchMessage, FibDaddrType, Masquerade, SourceNat},
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

/// The longest comment that nftnl writes, in bytes: `NFTNL_UDATA_COMMENT_MAXLEN` (libnftnl/udata.h) minus type, length
/// and NUL.
const COMMENT_MAX: usize = 125;

/// The longest comment that the kernel accepts, in bytes: `NFT_USERDATA_MAXLEN` (256, linux/netfilter/nf_tables.h) minus
/// type, length and NUL. nft itself writes up to 128.
const FOREIGN_COMMENT_MAX: usize = 253;

/// Carries out the changes in one transaction, provided that each table still equals its `before`.
///
/// The `others` of a table are not written; the kernel rejects rules that refer to them. Comments of tables and chains are
/// not part of the state. The comments of rules that hostgw understands are cut at 125 bytes. Counters start at zero.
///
/// # Errors
///
/// Returns [`NatError::Unheard`] if it is unknown whether anything changed. After any other error, nothing has changed.
pub fn replace(changes: &[&NatChange], interrupt: &Interrupt) -> Result<(), NatError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut builder = BatchBuilder { batch: Batch::new(), objects: Vec::new() };
    for change in changes {
        builder.remove(change.family)?;
        if let Some(table) = &change.after {
            builder.table(change.family, table)?;
        }
    }
    let objects = builder.objects;
    let batch: Vec<u8> = builder.batch.finalize().iter().flatten().copied().collect();
    let families: Vec<Family> = changes.iter().map(|change| change.family).collect();
    let mut socket = Socket::open(NETLINK_NETFILTER).map_err(NatError::Open)?;
    let mut retries = Retries::interruptible(interrupt);
    loop {
        let ConsistentTables { tables, generation } = read_consistent(&mut socket, &families, &mut retries)?;
        let is_stale = |change: &&&NatChange| tables.get(change.family) != change.before.as_ref();
        if let Some(change) = changes.iter().find(is_stale) {
            return Err(NatError::Overtaken(change.family));
        }
        match socket.batch(&mut with_generation(&batch, generation)?) {
            Err(error) if is_generation_mismatch(&error) => retries.wait()?,
            result => return result.map_err(|error| rejection(error, objects)),
        }
    }
}

/// Makes the batch conditional on `generation`.
fn with_generation(batch: &[u8], generation: u32) -> Result<Vec<u8>, NatError> {
    /// The length of the begin message that nftnl writes, without attributes.
    const BEGIN: usize = HEADER + abi::GENERIC_HEADER;
    let [high, low] = abi::BATCH_SUBSYSTEM.to_be_bytes();
    let mut begin = vec![0, 0, high, low];
    put_attribute(&mut begin, abi::BATCH_GENID, &generation.to_be_bytes())
        .map_err(|malformed| NatError::Unheard(malformed.into()))?;
    let mut bytes = Vec::with_capacity(batch.len() + begin.len());
    put_message(&mut bytes, abi::BATCH_BEGIN, NLM_F_REQUEST, 0, &begin);
    bytes.extend_from_slice(batch.get(BEGIN..).unwrap_or_default());
    Ok(bytes)
}

/// Returns `true` if the kernel rejected the batch because its generation is out of date.
fn is_generation_mismatch(error: &Refused) -> bool {
    error.rejections.first().is_some_and(|(at, error)| *at == 0 && error.errno == Errno::RESTART)
}

/// Names the object that the kernel rejected. Only the first rejection counts: the others often follow from it.
fn rejection(error: Refused, mut objects: Vec<String>) -> NatError {
    match (error.rejections.into_iter().next(), error.failure) {
        (Some((index, error)), _) => {
            // Message 0 begins the batch.
            let object = index.checked_sub(1).filter(|index| *index < objects.len());
            NatError::Refused { object: object.map(|index| objects.swap_remove(index)), error }
        }
        (None, Some(failure)) => NatError::Unheard(failure),
        (None, None) => NatError::Unheard(Errno::IO.into()),
    }
}

/// A batch under construction, and the object of each of its messages.
struct BatchBuilder {
    batch: Batch,
    objects: Vec<String>,
}

impl BatchBuilder {
    fn add(&mut self, object: String, message: &impl NlMsg) {
        self.put(object, message, MsgType::Add);
    }

    fn put(&mut self, object: String, message: &impl NlMsg, kind: MsgType) {
        self.batch.add(message, kind);
        self.objects.push(object);
    }

    /// Removes the table whether or not it exists. The message that first creates it sets no flags: flags would activate
    /// the hooks of a dormant table just before its removal.
    fn remove(&mut self, family: Family) -> Result<(), NatError> {
        let object = NatObject::Table { family, flags: 0 }.to_string();
        self.add(object.clone(), &table_message(family, None)?);
        let table = Table::new(table_name(family)?, proto(family));
        self.put(format!("the removal of {object}"), &table, MsgType::Del);
        Ok(())
    }

    /// Adds the table, its chains, and then all rules, since rules may jump to any chain.
    fn table(&mut self, family: Family, table: &NatTable) -> Result<(), NatError> {
        let object = NatObject::Table { family, flags: table.flags }.to_string();
        if table.family != family {
            return Err(unwritable(&object, format!("it is a table of {}", table.family.nft())));
        }
        if table.flags & !abi::table::DORMANT != 0 {
            // The kernel would remove an owned table when this process exits.
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
    ) -> Result<(), NatError> {
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

fn unwritable(object: &str, why: impl Into<String>) -> NatError {
    NatError::Unwritable { object: object.to_owned(), why: why.into() }
}

const fn proto(family: Family) -> ProtoFamily {
    match family {
        Family::V4 => ProtoFamily::Ipv4,
        Family::V6 => ProtoFamily::Ipv6,
    }
}

fn table_name(family: Family) -> Result<CString, NatError> {
    CString::new(NatTable::NAME).map_err(|_| unwritable(family.nft(), NUL))
}

const NUL: &str = "its name has a NUL byte";

/// The message for `add table`, which nftnl cannot write with flags.
fn table_message(family: Family, flags: Option<u32>) -> Result<BatchMessage, NatError> {
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
        .and_then(|attributes| BatchMessage::new(message::NEWTABLE, 0, family, attributes))
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
            Expression::SourceNat { address, flags } => {
                if Family::from(address) != family {
                    return Err("it sets an address of another family");
                }
                match address {
                    IpAddr::V4(address) => rule.add_expr(&Immediate::new(address.octets(), Register::Reg1)),
                    IpAddr::V6(address) => rule.add_expr(&Immediate::new(address.octets(), Register::Reg1)),
                }
                rule.add_expr(&SourceNat { family, flags });
            }
            Expression::Return => rule.add_expr(&Verdict::Return),
        }
    }
    if let Some(comment) = comment {
        rule.set_comment(comment_text(comment, COMMENT_MAX)?)?;
    }
    Ok(rule)
}

/// Converts a comment to a C string, cut at `max_length` bytes plus the NUL.
fn comment_text(comment: &str, max_length: usize) -> Result<CString, &'static str> {
    // str::floor_char_boundary needs Rust 1.91.
    let end =
        (0..=max_length.min(comment.len())).rev().find(|end| comment.is_char_boundary(*end)).unwrap_or(0);
    CString::new(&comment.as_bytes()[..end]).map_err(|_| "its comment has a NUL byte")
}

/// Adds the comparison of an address field with a prefix: load, mask unless the prefix is a single address, compare.
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
        let zero = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        rule.add_expr(&Bitwise::new(prefix.netmask(), zero));
    }
    let operation = if negated { CmpOp::Neq } else { CmpOp::Eq };
    rule.add_expr(&Cmp::new(operation, prefix.network()));
    Ok(())
}

/// The message for a foreign rule, with its expressions exactly as they were read.
fn raw_rule(
    family: Family,
    chain: &str,
    raw: &str,
    comment: Option<&str>,
) -> Result<BatchMessage, &'static str> {
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
        .and_then(|attributes| BatchMessage::new(message::NEWRULE, APPEND, family, attributes))
        .ok_or(TOO_LONG)
}

/// Encodes a rule's comment as user data: type, length, value with NUL.
fn userdata(comment: &str) -> Result<Vec<u8>, &'static str> {
    let text = comment_text(comment, FOREIGN_COMMENT_MAX)?;
    let value = text.as_bytes_with_nul();
    let length = u8::try_from(value.len()).map_err(|_| TOO_LONG)?;
    Ok([&[abi::rule::COMMENT, length], value].concat())
}
