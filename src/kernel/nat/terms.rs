//! Decodes the rules of other programs into terms, as far as they decide where forwarded packets go.

use super::{
    abi::expr,
    decode::{RawExpression, number, value},
};
use crate::{
    kernel::netlink::{Attributes, text},
    state::{Operator, PacketPart, RuleVerdict, TableFamily, Term, TypeSet},
};

/// enum nft_meta_keys, enum nft_ct_keys and the like (linux/netfilter/nf_tables.h).
mod key {
    pub const META_DREG: u16 = 1;
    pub const META_KEY: u16 = 2;
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

/// Decodes the expressions of a rule in a table of `family`.
pub(super) fn terms(family: TableFamily, list: &[RawExpression<'_>]) -> Vec<Term> {
    list.iter().map(|expression| term(family, expression)).collect()
}

fn term(family: TableFamily, expression: &RawExpression<'_>) -> Term {
    let name = || text(expression.name).into();
    let condition = || Term::Condition(name());
    match expression.name {
        b"payload" => payload(family, expression).unwrap_or_else(|| unknown_load(expression)),
        b"meta" => meta(expression).unwrap_or_else(|| Term::Neutral(name())),
        b"ct" => ct(expression).unwrap_or_else(|| Term::Neutral(name())),
        b"fib" => fib(expression).unwrap_or_else(|| unknown_load(expression)),
        b"bitwise" => bitwise(expression).unwrap_or_else(|| unknown_load(expression)),
        b"cmp" => compare(expression).unwrap_or_else(condition),
        b"immediate" => immediate(expression),
        b"masq" => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" if number(get(expression.data, 1)) == Some(0) => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" | b"redir" | b"tproxy" => Term::Verdict(RuleVerdict::Translate),
        b"reject" => Term::Verdict(RuleVerdict::Drop),
        b"counter" | b"log" | b"notrack" | b"last" | b"objref" | b"flow_offload" | b"dynset" | b"dup" => {
            Term::Neutral(name())
        }
        b"lookup" if get(expression.data, key::LOOKUP_DREG).is_some() => Term::Effect("map".into()),
        b"queue" | b"synproxy" | b"fwd" => Term::Effect(name()),
        b"lookup" => Term::Condition("set".into()),
        b"match" => xt_match(expression).unwrap_or_else(|| Term::Condition(xt_name(expression))),
        b"target" => xt_target(expression),
        _ => condition(),
    }
}

fn get(data: &[u8], kind: u16) -> Option<&[u8]> {
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

fn payload(family: TableFamily, expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(expr::PAYLOAD_DREG)?;
    let length = usize::try_from(field(expr::PAYLOAD_LEN)?).ok()?;
    let offset = usize::try_from(field(expr::PAYLOAD_OFFSET)?).ok()?;
    let of_address = |start: usize, size: usize| {
        let offset = offset.checked_sub(start)?;
        (offset + length <= size).then_some(offset)
    };
    let is_network = field(expr::PAYLOAD_BASE)? == expr::NETWORK_HEADER;
    // Offsets of struct iphdr (linux/ip.h) and struct ipv6hdr (linux/ipv6.h). In an inet table, the rule has compared
    // the family before.
    let (source, destination) = match family {
        TableFamily::Ip => (of_address(12, 4), of_address(16, 4)),
        TableFamily::Ip6 => (of_address(8, 16), of_address(24, 16)),
        TableFamily::Inet if length > 4 || offset >= 20 => (of_address(8, 16), of_address(24, 16)),
        TableFamily::Inet => (of_address(12, 4), of_address(16, 4)),
    };
    let what = match (source, destination) {
        (Some(offset), _) if is_network => PacketPart::Source { offset, length },
        (_, Some(offset)) if is_network => PacketPart::Destination { offset, length },
        _ => return None,
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
    let verdict = || {
        let data = get(expression.data, expr::IMMEDIATE_DATA)?;
        let verdict = get(data, expr::DATA_VERDICT)?;
        let chain = || Some(text(get(verdict, key::VERDICT_CHAIN)?).into());
        // enum nft_verdicts, NF_DROP and NF_ACCEPT (linux/netfilter.h).
        Some(match number(get(verdict, expr::VERDICT_CODE))?.cast_signed() {
            0 => Term::Verdict(RuleVerdict::Drop),
            1 => Term::Verdict(RuleVerdict::Accept),
            // NFT_CONTINUE
            -1 => Term::Neutral("continue".into()),
            -3 => Term::Verdict(RuleVerdict::Jump(chain()?)),
            -4 => Term::Verdict(RuleVerdict::Goto(chain()?)),
            expr::RETURN => Term::Verdict(RuleVerdict::Return),
            _ => Term::Effect("verdict".into()),
        })
    };
    // Without a verdict, it loads a constant, which only NAT uses.
    verdict().unwrap_or_else(|| Term::Neutral("immediate".into()))
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
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "CT" | "TCPMSS" | "TOS" | "DSCP" | "TTL" | "HL"
        | "CHECKSUM" | "CLASSIFY" | "TRACE" | "SET" | "AUDIT" => Term::Neutral(name),
        _ => Term::Effect(name),
    }
}
