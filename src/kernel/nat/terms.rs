//! Decodes the rules of other programs into terms, as far as they decide where forwarded packets go.

use super::{
    abi::expr,
    decode::{RawExpression, number, value},
};
use crate::{
    kernel::netlink::{Attributes, text},
    state::{Operator, PacketPart, RuleVerdict, Term, TypeSet},
};

/// enum nft_meta_keys, enum nft_ct_keys and the like (linux/netfilter/nf_tables.h).
pub(super) mod key {
    pub const META_DREG: u16 = 1;
    pub const META_KEY: u16 = 2;
    pub const META_LEN: u32 = 0;
    pub const META_PROTOCOL: u32 = 1;
    pub const META_L4PROTO: u32 = 16;
    pub const META_CPU: u32 = 20;
    pub const META_PRANDOM: u32 = 24;
    pub const LOOKUP_SET: u16 = 1;
    pub const LOOKUP_SREG: u16 = 2;
    pub const LOOKUP_FLAGS: u16 = 5;
    /// `NFT_PAYLOAD_LL_HEADER`.
    pub const LINK_HEADER: u32 = 0;
    pub const META_MARK: u32 = 3;
    pub const META_IIF: u32 = 4;
    pub const META_OIF: u32 = 5;
    pub const META_IIFNAME: u32 = 6;
    pub const META_OIFNAME: u32 = 7;
    pub const META_NFPROTO: u32 = 15;
    pub const CT_DREG: u16 = 1;
    pub const CT_KEY: u16 = 2;
    pub const CT_STATE: u32 = 0;
    pub const FIB_SADDR: u32 = 1;
    /// `NFTA_TARGET_*` and `NFTA_MATCH_*` (linux/netfilter/nf_tables_compat.h).
    pub const XT_NAME: u16 = 1;
    pub const XT_REVISION: u16 = 2;
    pub const XT_INFO: u16 = 3;
    pub const LOOKUP_DREG: u16 = 3;
    pub const VERDICT_CHAIN: u16 = 2;
}

/// Decodes the expressions of a rule.
pub(super) fn terms(list: &[RawExpression<'_>]) -> Vec<Term> {
    list.iter().map(term).collect()
}

fn term(expression: &RawExpression<'_>) -> Term {
    let name = || text(expression.name).into();
    let condition = || Term::Condition(name());
    match expression.name {
        b"payload" => payload(expression).unwrap_or_else(|| unknown_load(expression)),
        b"meta" => meta(expression).unwrap_or_else(|| match number(get(expression.data, key::META_KEY)) {
            Some(key::META_MARK) => Term::SetMark,
            _ => Term::Neutral(name()),
        }),
        b"ct" => ct(expression).unwrap_or_else(|| Term::Neutral(name())),
        b"fib" => fib(expression).unwrap_or_else(|| unknown_load(expression)),
        b"bitwise" => bitwise(expression).unwrap_or_else(|| unknown_load(expression)),
        b"cmp" => compare(expression).unwrap_or_else(condition),
        b"immediate" => immediate(expression),
        b"masq" => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" if number(get(expression.data, 1)) == Some(0) => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" | b"redir" | b"tproxy" => Term::Verdict(RuleVerdict::Translate),
        b"reject" => Term::Verdict(RuleVerdict::Drop),
        b"notrack" => Term::Untrack,
        b"limit" | b"quota" | b"numgen" | b"hash" | b"connlimit" => Term::Varies(name()),
        b"counter" | b"log" | b"last" | b"objref" | b"flow_offload" | b"dynset" | b"dup" => {
            Term::Neutral(name())
        }
        b"queue" | b"synproxy" | b"fwd" => Term::Effect(name()),
        b"lookup" => lookup(expression).unwrap_or_else(condition),
        b"match" => xt_match(expression).unwrap_or_else(|| Term::Condition(xt_name(expression))),
        b"target" => xt_target(expression),
        _ => condition(),
    }
}

pub(super) fn get(data: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes::new(data).flatten().find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

/// A load of something unknown. Its destination register is the first attribute of most expressions.
fn unknown_load(expression: &RawExpression<'_>) -> Term {
    let register = match expression.name {
        b"bitwise" => expr::BITWISE_DREG,
        _ => expr::PAYLOAD_DREG,
    };
    match number(get(expression.data, register)) {
        Some(into) => Term::Load { into, what: PacketPart::Other(text(expression.name).into()) },
        None => Term::Condition(text(expression.name).into()),
    }
}

fn lookup(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| get(expression.data, kind);
    Some(Term::Lookup {
        register: number(field(key::LOOKUP_SREG))?,
        set: text(field(key::LOOKUP_SET)?).into(),
        not: number(field(key::LOOKUP_FLAGS)).is_some_and(|flags| flags & 1 != 0),
        is_map: field(key::LOOKUP_DREG).is_some(),
    })
}

fn payload(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(expr::PAYLOAD_DREG)?;
    let length = usize::try_from(field(expr::PAYLOAD_LEN)?).ok()?;
    let offset = usize::try_from(field(expr::PAYLOAD_OFFSET)?).ok()?;
    let what = match field(expr::PAYLOAD_BASE)? {
        expr::NETWORK_HEADER => PacketPart::Header { offset, length },
        key::LINK_HEADER => PacketPart::Other("ether".into()),
        _ => PacketPart::Varies("ports".into()),
    };
    Some(Term::Load { into, what })
}

/// `None` for `meta set`, which has no destination register.
fn meta(expression: &RawExpression<'_>) -> Option<Term> {
    let into = number(get(expression.data, key::META_DREG))?;
    let what = match number(get(expression.data, key::META_KEY))? {
        key::META_MARK => PacketPart::Mark,
        key::META_IIF => PacketPart::InputIndex,
        key::META_OIF => PacketPart::OutputIndex,
        key::META_IIFNAME => PacketPart::InputName,
        key::META_OIFNAME => PacketPart::OutputName,
        key::META_NFPROTO => PacketPart::Family,
        key::META_PROTOCOL => PacketPart::EtherType,
        key::META_LEN | key::META_L4PROTO | key::META_CPU | key::META_PRANDOM => {
            PacketPart::Varies("meta".into())
        }
        other => PacketPart::Other(format!("meta {other}").into()),
    };
    Some(Term::Load { into, what })
}

/// `None` for `ct … set`.
fn ct(expression: &RawExpression<'_>) -> Option<Term> {
    let into = number(get(expression.data, key::CT_DREG))?;
    let what = match number(get(expression.data, key::CT_KEY))? {
        key::CT_STATE => PacketPart::State,
        other => PacketPart::Other(format!("ct {other}").into()),
    };
    Some(Term::Load { into, what })
}

fn fib(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(expr::FIB_DREG)?;
    let what = match (field(expr::FIB_RESULT)?, field(expr::FIB_FLAGS)?) {
        (expr::FIB_ADDRTYPE, expr::FIB_DADDR) => PacketPart::DestinationType,
        (expr::FIB_ADDRTYPE, key::FIB_SADDR) => PacketPart::SourceType,
        _ => return None,
    };
    Some(Term::Load { into, what })
}

fn bitwise(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| get(expression.data, kind);
    let operation = field(expr::BITWISE_OP);
    if operation.is_some() && number(operation)? != expr::MASK_XOR {
        return None;
    }
    Some(Term::Mask {
        from: number(field(expr::BITWISE_SREG))?,
        into: number(field(expr::BITWISE_DREG))?,
        mask: value(field(expr::BITWISE_MASK)?)?.to_vec(),
        invert: value(field(expr::BITWISE_XOR)?)?.to_vec(),
    })
}

fn compare(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| get(expression.data, kind);
    // enum nft_cmp_ops.
    let operator = match number(field(expr::CMP_OP))? {
        0 => Operator::Equal,
        1 => Operator::Unequal,
        2 => Operator::Less,
        3 => Operator::LessOrEqual,
        4 => Operator::Greater,
        5 => Operator::GreaterOrEqual,
        _ => return None,
    };
    let register = number(field(expr::CMP_SREG))?;
    Some(Term::Compare { register, operator, value: value(field(expr::CMP_DATA)?)?.to_vec() })
}

fn immediate(expression: &RawExpression<'_>) -> Term {
    let data = get(expression.data, expr::IMMEDIATE_DATA).unwrap_or_default();
    match get(data, expr::DATA_VERDICT) {
        Some(_) => match verdict(data) {
            Some(verdict) => Term::Verdict(verdict),
            None if is_continue(data) => Term::Neutral("continue".into()),
            None => Term::Effect("verdict".into()),
        },
        // It loads a constant, which only NAT uses.
        None => Term::Neutral("immediate".into()),
    }
}

fn code(data: &[u8]) -> Option<i32> {
    Some(number(get(get(data, expr::DATA_VERDICT)?, expr::VERDICT_CODE))?.cast_signed())
}

/// `NFT_CONTINUE`.
fn is_continue(data: &[u8]) -> bool {
    code(data) == Some(-1)
}

/// Decodes the verdict in a data attribute: enum nft_verdicts, and NF_DROP and NF_ACCEPT (linux/netfilter.h).
pub(super) fn verdict(data: &[u8]) -> Option<RuleVerdict> {
    let chain = || Some(text(get(get(data, expr::DATA_VERDICT)?, key::VERDICT_CHAIN)?).into());
    match code(data)? {
        0 => Some(RuleVerdict::Drop),
        1 => Some(RuleVerdict::Accept),
        -3 => Some(RuleVerdict::Jump(chain()?)),
        -4 => Some(RuleVerdict::Goto(chain()?)),
        expr::RETURN => Some(RuleVerdict::Return),
        _ => None,
    }
}

fn xt_name(expression: &RawExpression<'_>) -> crate::text::Untrusted {
    text(get(expression.data, key::XT_NAME).unwrap_or_default()).into()
}

/// Decodes the iptables matches that are part of most rules. Their layouts are in linux/netfilter/xt_*.h, in host byte
/// order.
fn xt_match(expression: &RawExpression<'_>) -> Option<Term> {
    let info = get(expression.data, key::XT_INFO)?;
    let revision = number(get(expression.data, key::XT_REVISION))?;
    let half = |at: usize| Some(u32::from(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?)));
    let word = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    match (xt_name(expression).as_raw(), revision) {
        ("comment", _) => Some(Term::Neutral("comment".into())),
        // struct xt_addrtype_info_v1: source, destination, flags.
        ("addrtype", 1) => {
            let (source, destination, flags) = (half(0)?, half(2)?, word(4)?);
            let types = |bits: u32, not| (bits != 0).then_some(TypeSet { bits, not });
            // XT_ADDRTYPE_LIMIT_IFACE_IN and _OUT.
            if flags & 0xc != 0 {
                return None;
            }
            Some(Term::AddressType {
                source: types(source, flags & 1 != 0),
                destination: types(destination, flags & 2 != 0),
            })
        }
        // struct xt_mark_mtinfo1: mark, mask, invert.
        ("mark", 1) => Some(Term::Mark { value: word(0)?, mask: word(4)?, not: *info.get(8)? != 0 }),
        // struct xt_conntrack_mtinfo3, from match_flags on: only a match of the state (XT_CONNTRACK_STATE) is decoded.
        ("conntrack", 2 | 3) => {
            let (matches, inverts, states) = (half(146)?, half(148)?, half(150)?);
            (matches == 1).then_some(Term::State(TypeSet { bits: states, not: inverts & 1 != 0 }))
        }
        // struct xt_state_info: states.
        (
            "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmp6" | "icmpv6" | "multiport" | "limit"
            | "hashlimit" | "statistic" | "recent" | "connlimit" | "connbytes" | "string" | "length" | "time"
            | "tos" | "dscp" | "ttl" | "hl" | "u32" | "bpf" | "helper" | "quota" | "ecn" | "esp" | "ah",
            _,
        ) => Some(Term::Varies(xt_name(expression))),
        ("state", 0) => Some(Term::State(TypeSet { bits: word(0)?, not: false })),
        _ => None,
    }
}

fn xt_target(expression: &RawExpression<'_>) -> Term {
    let name = xt_name(expression);
    match name.as_raw() {
        "MASQUERADE" | "SNAT" | "NETMAP" => Term::Verdict(RuleVerdict::Masquerade),
        "DNAT" | "REDIRECT" | "TPROXY" => Term::Verdict(RuleVerdict::Translate),
        "REJECT" | "DROP" => Term::Verdict(RuleVerdict::Drop),
        "MARK" | "CONNMARK" => Term::SetMark,
        // struct xt_ct_target_info: flags, of which XT_CT_NOTRACK is the first.
        "CT" | "NOTRACK" => match get(expression.data, key::XT_INFO).and_then(|info| info.first()) {
            Some(flags) if name.as_raw() == "CT" && flags & 1 == 0 => Term::Neutral(name),
            _ => Term::Untrack,
        },
        "LOG" | "NFLOG" | "TCPMSS" | "TOS" | "DSCP" | "TTL" | "HL" | "CHECKSUM" | "CLASSIFY" | "TRACE"
        | "SET" | "AUDIT" => Term::Neutral(name),
        _ => Term::Effect(name),
    }
}
