//! Decodes the rules of other programs into terms, as far as they decide where forwarded packets go.

use super::{
    abi::expr,
    decode::{RawExpression, get, number, value},
    extensions, key,
};
use crate::{
    kernel::netlink::text,
    state::{Expression, KeyRange, Operator, PacketPart, RuleVerdict, Term},
    text::Untrusted,
};

/// Decodes the expressions of a rule.
pub(super) fn terms(list: &[RawExpression<'_>]) -> Vec<Term> {
    let mut terms = Vec::with_capacity(list.len());
    for expression in list {
        match expression.name {
            b"match" => terms.extend(extensions::of_match(expression)),
            b"masq" if flags(expression, expr::MASQ_FLAGS) & Expression::FULLY_RANDOM != 0 => {
                terms.extend([Term::Neutral(Term::FULLY_RANDOM.into()), term(expression)]);
            }
            b"nat" if flags(expression, expr::NAT_FLAGS) & Expression::FULLY_RANDOM != 0 => {
                terms.extend([Term::Neutral(Term::FULLY_RANDOM.into()), term(expression)]);
            }
            b"target" => terms.extend(extensions::of_target(expression)),
            _ => terms.push(term(expression)),
        }
    }
    terms
}

/// The `NF_NAT_RANGE_*` flags of an expression that changes addresses.
fn flags(expression: &RawExpression<'_>, kind: u16) -> u32 {
    number(get(expression.data, kind)).unwrap_or(0)
}

fn term(expression: &RawExpression<'_>) -> Term {
    let name = || text(expression.name).into();
    let condition = || Term::Condition(nft_word(expression));
    match expression.name {
        b"payload" => payload(expression).unwrap_or_else(|| unknown_load(expression)),
        b"meta" => meta(expression).unwrap_or_else(|| match number(get(expression.data, key::META_KEY)) {
            Some(key::META_MARK) => match number(get(expression.data, key::META_SREG)) {
                Some(register) => Term::MarkFrom { register },
                None => Term::SetMark,
            },
            _ => Term::Neutral(name()),
        }),
        b"ct" => ct(expression).unwrap_or_else(|| match number(get(expression.data, key::CT_KEY)) {
            Some(key::CT_MARK) => Term::SetConnectionMark,
            _ => Term::Neutral(name()),
        }),
        b"fib" => fib(expression).unwrap_or_else(|| unknown_load(expression)),
        b"bitwise" => bitwise(expression).unwrap_or_else(|| unknown_load(expression)),
        b"cmp" => compare(expression).unwrap_or_else(condition),
        b"range" => range(expression).unwrap_or_else(condition),
        b"immediate" => immediate(expression),
        b"masq" => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" if number(get(expression.data, 1)) == Some(0) => Term::Verdict(RuleVerdict::Masquerade),
        b"nat" | b"redir" | b"tproxy" => Term::Verdict(RuleVerdict::Translate),
        b"reject" => Term::Verdict(RuleVerdict::Drop),
        b"notrack" => Term::Untrack,
        b"limit" => limit(expression),
        b"numgen" | b"hash" => match number(get(expression.data, expr::PAYLOAD_DREG)) {
            Some(into) => Term::Load { into, part: PacketPart::Varies(name()) },
            None => Term::Varies(name()),
        },
        b"quota" | b"connlimit" => Term::Varies(name()),
        b"objref" => object(expression),
        // With an expression, it limits each element of the set.
        b"dynset" if key::DYNSET_EXPRESSIONS.iter().any(|kind| get(expression.data, *kind).is_some()) => {
            Term::Varies(name())
        }
        b"counter" | b"log" | b"last" | b"flow_offload" | b"dynset" | b"dup" => Term::Neutral(name()),
        b"queue" | b"synproxy" | b"fwd" => Term::Effect(name()),
        b"lookup" => lookup(expression).unwrap_or_else(condition),
        _ => condition(),
    }
}

/// Decodes a limit. A rule that drops packets above a rate that pods can reach loses packets; one with a higher rate protects
/// the node from floods.
fn limit(expression: &RawExpression<'_>) -> Term {
    /// The rates from which a limit counts as protection: packets, and bytes, per second.
    const PROTECTIVE: [u64; 2] = [1000, 1_000_000];
    let long = |kind| {
        let bytes: Option<[u8; 8]> = get(expression.data, kind).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes)
    };
    let (rate, unit) = (long(key::LIMIT_RATE).unwrap_or(u64::MAX), long(key::LIMIT_UNIT).unwrap_or(1));
    let field = |kind| number(get(expression.data, kind)).unwrap_or(0);
    let protective = PROTECTIVE[usize::from(field(key::LIMIT_TYPE) == 1)];
    let exceeds = field(key::LIMIT_FLAGS) & 1 != 0;
    Term::Varies(match exceeds && rate / unit.max(1) < protective {
        true => "limit".into(),
        false => "high limit".into(),
    })
}

/// Decodes a reference to a named object, such as a counter.
fn object(expression: &RawExpression<'_>) -> Term {
    match number(get(expression.data, key::OBJECT_TYPE)) {
        Some(key::OBJECT_QUOTA) => Term::Varies("quota".into()),
        // Its rate is not part of the rule, and neither is the object that a map refers to.
        Some(key::OBJECT_LIMIT | key::OBJECT_CONNLIMIT) | None => Term::Varies("object".into()),
        Some(key::OBJECT_SYNPROXY) => Term::Effect("synproxy".into()),
        Some(_) => Term::Neutral("object".into()),
    }
}

fn range(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| get(expression.data, kind);
    let end = |kind| Some(value(field(kind)?)?.to_vec());
    Some(Term::Member {
        register: number(field(key::RANGE_SREG))?,
        set: vec![KeyRange { from: end(key::RANGE_FROM)?, to: Some(end(key::RANGE_TO)?) }],
        fields: Vec::new(),
        // enum nft_range_ops.
        not: number(field(key::RANGE_OP))? == 1,
    })
}

/// Returns the word of `nft` for an expression that cannot be decoded, for messages.
fn nft_word(expression: &RawExpression<'_>) -> Untrusted {
    match expression.name {
        b"cmp" | b"range" => "comparison".into(),
        b"bitwise" => "bitwise operation".into(),
        b"lookup" => "set".into(),
        b"byteorder" => "byte order conversion".into(),
        b"xfrm" => "ipsec".into(),
        name => text(name).into(),
    }
}

/// The words of `nft` for `enum nft_meta_keys` (linux/netfilter/nf_tables.h).
const META_WORDS: [(u32, &str); 14] = [
    (2, "priority"),
    (8, "iiftype"),
    (9, "oiftype"),
    (10, "skuid"),
    (11, "skgid"),
    (12, "nftrace"),
    (13, "rtclassid"),
    (14, "secmark"),
    (17, "ibrname"),
    (18, "obrname"),
    (23, "cgroup"),
    (25, "ipsec"),
    (33, "sdif"),
    (34, "sdifname"),
];

/// The words of `nft` for `enum nft_ct_keys` (linux/netfilter/nf_tables.h).
const CT_WORDS: [(u32, &str); 16] = [
    (4, "secmark"),
    (5, "expiration"),
    (6, "helper"),
    (7, "l3proto"),
    (8, "saddr"),
    (9, "daddr"),
    (10, "protocol"),
    (11, "proto-src"),
    (12, "proto-dst"),
    (13, "label"),
    (17, "zone"),
    (19, "ip saddr"),
    (20, "ip daddr"),
    (21, "ip6 saddr"),
    (22, "ip6 daddr"),
    (23, "id"),
];

/// Returns the words of `nft` for a key, or its number if it is unknown.
fn numbered(expression: &str, words: &[(u32, &str)], key: u32) -> Untrusted {
    let word = words.iter().find(|(number, _)| *number == key);
    word.map_or_else(|| format!("{expression} {key}"), |(_, word)| format!("{expression} {word}")).into()
}

/// Returns the term for a load that cannot be decoded. The destination register is the first attribute of most expressions.
fn unknown_load(expression: &RawExpression<'_>) -> Term {
    let register = match expression.name {
        b"bitwise" => expr::BITWISE_DREG,
        _ => expr::PAYLOAD_DREG,
    };
    match number(get(expression.data, register)) {
        Some(into) => Term::Load { into, part: PacketPart::Other(nft_word(expression)) },
        None => Term::Condition(nft_word(expression)),
    }
}

fn lookup(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| get(expression.data, kind);
    Some(Term::Lookup {
        register: number(field(key::LOOKUP_SREG))?,
        set: text(field(key::LOOKUP_SET)?).into(),
        not: number(field(key::LOOKUP_FLAGS)).is_some_and(|flags| flags & 1 != 0),
        into: field(key::LOOKUP_DREG).and_then(|register| number(Some(register))),
    })
}

fn payload(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(expr::PAYLOAD_DREG)?;
    let length = usize::try_from(field(expr::PAYLOAD_LEN)?).ok()?;
    let offset = usize::try_from(field(expr::PAYLOAD_OFFSET)?).ok()?;
    let part = match field(expr::PAYLOAD_BASE)? {
        expr::NETWORK_HEADER => PacketPart::Header { offset, length },
        key::TRANSPORT_HEADER => PacketPart::Transport { offset, length },
        key::LINK_HEADER => PacketPart::Other("ether".into()),
        // The payload of the transport protocol.
        _ => PacketPart::Varies("payload".into()),
    };
    Some(Term::Load { into, part })
}

/// Decodes the load of packet metadata. Returns `None` for `meta set`, which has no destination register.
fn meta(expression: &RawExpression<'_>) -> Option<Term> {
    let into = number(get(expression.data, key::META_DREG))?;
    let part = match number(get(expression.data, key::META_KEY))? {
        key::META_MARK => PacketPart::Mark,
        key::META_IIF => PacketPart::InputIndex,
        key::META_OIF => PacketPart::OutputIndex,
        key::META_IIFNAME => PacketPart::InputName,
        key::META_OIFNAME => PacketPart::OutputName,
        key::META_NFPROTO => PacketPart::Family,
        key::META_PROTOCOL => PacketPart::EtherType,
        key::META_L4PROTO => PacketPart::Protocol,
        key::META_PKTTYPE => PacketPart::PacketType,
        key::META_IIFGROUP => PacketPart::InputGroup,
        key::META_OIFGROUP => PacketPart::OutputGroup,
        key::META_IIFKIND => PacketPart::InputKind,
        key::META_OIFKIND => PacketPart::OutputKind,
        key::META_LEN => PacketPart::Varies("length".into()),
        key::META_CPU => PacketPart::Varies("cpu".into()),
        key::META_PRANDOM => PacketPart::Varies("random".into()),
        time if key::META_TIME.contains(&time) => PacketPart::Varies("time".into()),
        other => PacketPart::Other(numbered("meta", &META_WORDS, other)),
    };
    Some(Term::Load { into, part })
}

/// Decodes the load of connection properties. Returns `None` for `ct … set`.
fn ct(expression: &RawExpression<'_>) -> Option<Term> {
    let into = number(get(expression.data, key::CT_DREG))?;
    let part = match number(get(expression.data, key::CT_KEY))? {
        key::CT_STATE => PacketPart::State,
        key::CT_DIRECTION => PacketPart::ConnectionDirection,
        key::CT_STATUS => PacketPart::ConnectionStatus,
        key::CT_MARK => PacketPart::ConnectionMark,
        key::CT_PACKETS | key::CT_BYTES | key::CT_AVERAGE => PacketPart::Varies("volume".into()),
        other => PacketPart::Other(numbered("ct", &CT_WORDS, other)),
    };
    Some(Term::Load { into, part })
}

fn fib(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(expr::FIB_DREG)?;
    /// The mark is the one that the model looks routes up for.
    const REVERSE: u32 = key::FIB_SADDR | key::FIB_PRESENT;
    let part = match (field(expr::FIB_RESULT)?, field(expr::FIB_FLAGS)? & !key::FIB_MARK) {
        (expr::FIB_ADDRTYPE, expr::FIB_DADDR) => PacketPart::DestinationType,
        (expr::FIB_ADDRTYPE, key::FIB_SADDR) => PacketPart::SourceType,
        (key::FIB_OIF, REVERSE) => PacketPart::ReturnRoute { by_input: false },
        (key::FIB_OIF, flags) if flags == REVERSE | key::FIB_IIF => {
            PacketPart::ReturnRoute { by_input: true }
        }
        _ => return None,
    };
    Some(Term::Load { into, part })
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
        None => {
            let into = number(get(expression.data, expr::IMMEDIATE_DREG));
            match into.zip(value(data)) {
                Some((into, value)) => Term::Constant { into, value: value.to_vec() },
                None => Term::Neutral("immediate".into()),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_that_cannot_be_decoded_are_named_as_in_nft() {
        let name = |name: &'static [u8]| nft_word(&RawExpression { name, data: &[] }).to_string();
        assert_eq!([name(b"xfrm"), name(b"cmp"), name(b"socket")], ["ipsec", "comparison", "socket"]);
        assert_eq!(numbered("meta", &META_WORDS, 10).as_raw(), "meta skuid");
        assert_eq!(numbered("ct", &CT_WORDS, 17).as_raw(), "ct zone");
        assert_eq!(numbered("ct", &CT_WORDS, 99).as_raw(), "ct 99");
    }
}
