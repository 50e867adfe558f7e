//! Decodes the rules of other programs into terms, as far as they decide where forwarded packets go.

use std::{collections::HashMap, net::IpAddr};

use super::{
    abi::expr,
    decode::{self, RawExpression, get, number, value},
    extensions, key,
    limits::{connections, protects_from_floods},
};
use crate::{
    kernel::netlink::text,
    state::{Expression, KeyRange, Operator, PacketHeader, PacketPart, RuleVerdict, Term},
    text::Untrusted,
};

/// The attributes of the named objects of a table, by their types and names.
pub(super) type Objects = HashMap<(u32, String), Vec<u8>>;

/// Decodes the expressions of a rule in a table with these named objects.
pub(super) fn terms(list: &[RawExpression<'_>], objects: &Objects) -> Vec<Term> {
    let mut terms = Vec::with_capacity(list.len());
    for expression in list {
        match expression.name {
            b"match" => terms.extend(extensions::of_match(expression)),
            b"masq" => {
                terms.extend(fully_random(expression, expr::MASQ_FLAGS).into_iter().chain([term(expression)]))
            }
            b"redir" | b"tproxy" => terms.extend([Term::ThisNode, term(expression)]),
            b"target" => terms.extend(extensions::of_target(expression)),
            b"dynset" => terms.extend(dynset(expression)),
            b"objref" => terms.push(object(expression, objects)),
            b"nat" => {
                let translation = nat(expression, &terms);
                terms.extend(fully_random(expression, expr::NAT_FLAGS).into_iter().chain(translation));
            }
            b"ct" => {
                let term = set_ct(expression, &terms);
                terms.push(term);
            }
            _ => terms.push(term(expression)),
        }
    }
    terms
}

/// The term for `fully-random`, if an expression that changes addresses has this flag among those with this number.
fn fully_random(expression: &RawExpression<'_>, flags: u16) -> Option<Term> {
    let flags = number(get(expression.data, flags))?;
    (flags & Expression::FULLY_RANDOM != 0).then(|| Term::Neutral(Term::FULLY_RANDOM.into()))
}

/// Returns the constant in a register after these terms.
fn constant(terms: &[Term], register: u32) -> Option<&[u8]> {
    terms.iter().rev().find_map(|term| match term {
        Term::Constant { into, value } if *into == register => Some(Some(value.as_slice())),
        Term::Load { into, .. } | Term::Mask { into, .. } | Term::Swap { into, .. } if *into == register => {
            Some(None)
        }
        Term::Condition(_) => Some(None),
        _ => None,
    })?
}

fn nat(expression: &RawExpression<'_>, before: &[Term]) -> Vec<Term> {
    let field = |kind| number(get(expression.data, kind));
    let address = |kind| {
        let bytes = constant(before, field(kind)?)?;
        let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
    };
    let range = address(expr::NAT_ADDRESS_MIN).and_then(|from| match field(expr::NAT_ADDRESS_MAX) {
        Some(_) => Some((from, address(expr::NAT_ADDRESS_MAX)?)),
        None => Some((from, from)),
    });
    if field(expr::NAT_TYPE) != Some(expr::NAT_SOURCE) {
        // A port can be stored in a word.
        let port = |kind| constant(before, field(kind)?)?.first_chunk().copied().map(u16::from_be_bytes);
        let last = || field(expr::NAT_PORT_MAX).map_or(Some(None), |_| port(expr::NAT_PORT_MAX).map(Some));
        let port = port(expr::NAT_PORT_MIN)
            .filter(|first| last().is_some_and(|last| last.is_none_or(|last| last == *first)));
        let keeps_address = field(expr::NAT_ADDRESS_MIN).is_none();
        let destination = (keeps_address || range.is_some()).then(|| Term::NewDestination {
            from: range.map(|(from, _)| from),
            to: range.map(|(_, to)| to),
            port,
        });
        return destination.into_iter().chain([Term::Verdict(RuleVerdict::Translate)]).collect();
    }
    let source = range.map(|(from, to)| Term::NewSource { from, to });
    source.into_iter().chain([Term::Verdict(RuleVerdict::Masquerade)]).collect()
}

fn set_ct(expression: &RawExpression<'_>, before: &[Term]) -> Term {
    let field = |kind| number(get(expression.data, kind));
    if let Some(load) = ct(expression) {
        return load;
    }
    let Some(register) = field(key::CT_SREG) else { return unknown_load(expression) };
    match field(key::CT_KEY) {
        Some(key::CT_MARK) => Term::SetConnectionMark,
        Some(key::CT_SECMARK | key::CT_LABELS | key::CT_EVENTMASK) => Term::Neutral("ct".into()),
        // A zone of only one direction is meant to keep NAT working.
        Some(key::CT_ZONE) if get(expression.data, key::CT_DIRECTION_OF_KEY).is_some() => {
            Term::Neutral("ct".into())
        }
        Some(key::CT_ZONE) => {
            let zone = constant(before, register).and_then(|bytes| bytes.first_chunk());
            zone.map_or_else(|| Term::Neutral("ct".into()), |zone| Term::SetZone(u16::from_ne_bytes(*zone)))
        }
        Some(other) => Term::Effect(numbered("ct", &CT_WORDS, other)),
        None => Term::Effect("ct".into()),
    }
}

fn term(expression: &RawExpression<'_>) -> Term {
    let name = || text(expression.name).into();
    let condition = || Term::Condition(nft_word(expression));
    match expression.name {
        b"payload" => payload(expression)
            .or_else(|| set_payload(expression))
            .unwrap_or_else(|| unknown_load(expression)),
        b"meta" => meta(expression).unwrap_or_else(|| match number(get(expression.data, key::META_KEY)) {
            Some(key::META_MARK) => match number(get(expression.data, key::META_SREG)) {
                Some(register) => Term::MarkFrom { register },
                None => Term::SetMark,
            },
            Some(key::META_PRIORITY | key::META_NFTRACE | key::META_SECMARK) => Term::Neutral(name()),
            // With another packet type, the kernel does not forward the packet.
            Some(key::META_PKTTYPE) => Term::Effect("meta pkttype".into()),
            Some(other) => Term::Effect(numbered("meta", &META_WORDS, other)),
            None => Term::Effect(name()),
        }),
        b"byteorder" => byteorder(expression).unwrap_or_else(condition),
        b"fib" => fib(expression).unwrap_or_else(|| unknown_load(expression)),
        b"bitwise" => bitwise(expression).unwrap_or_else(|| unknown_load(expression)),
        b"cmp" => compare(expression).unwrap_or_else(condition),
        b"range" => range(expression).unwrap_or_else(condition),
        b"immediate" => immediate(expression),
        b"masq" => Term::Verdict(RuleVerdict::Masquerade),
        b"redir" | b"tproxy" => Term::Verdict(RuleVerdict::Translate),
        b"reject" => Term::Verdict(RuleVerdict::Drop),
        b"notrack" => Term::Untrack,
        b"limit" => limit(expression.data),
        b"numgen" => only_number(expression).unwrap_or_else(|| varying(expression, key::NUMGEN_DREG)),
        b"hash" => varying(expression, key::HASH_DREG),
        b"quota" => Term::Varies(name()),
        b"connlimit" => connection_limit(expression.data),
        b"counter" | b"log" | b"last" | b"flow_offload" | b"dup" => Term::Neutral(name()),
        b"queue" | b"synproxy" | b"fwd" => Term::Effect(name()),
        b"lookup" => lookup(expression).unwrap_or_else(condition),
        _ => condition(),
    }
}

/// Loads something that differs between packets.
fn varying(expression: &RawExpression<'_>, register: u16) -> Term {
    let name = || text(expression.name).into();
    match number(get(expression.data, register)) {
        Some(into) => Term::Load { into, part: PacketPart::Varies(name()) },
        None => Term::Condition(name()),
    }
}

/// Decodes a number generator that has only one number, such as kube-proxy's for a Service with one endpoint.
fn only_number(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let into = field(key::NUMGEN_DREG)?;
    let value = field(key::NUMGEN_OFFSET).unwrap_or(0).to_ne_bytes().to_vec();
    (field(key::NUMGEN_MODULUS)? == 1).then_some(Term::Constant { into, value })
}

/// Decodes a limit. A rule that drops packets above a rate that pods can reach loses packets; one with a higher rate protects
/// the node from floods. A rule for packets below a rate applies to most packets.
fn limit(data: &[u8]) -> Term {
    /// The rate in bytes per second from which a limit counts as protection.
    const PROTECTIVE: u64 = 1_000_000;
    let long = |kind| {
        let bytes: Option<[u8; 8]> = get(data, kind).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes)
    };
    let (Some(rate), Some(unit)) = (long(key::LIMIT_RATE), long(key::LIMIT_UNIT)) else {
        return Term::Condition("limit".into());
    };
    let field = |kind| number(get(data, kind)).unwrap_or(0);
    let per_second = rate / unit.max(1);
    let protects = match field(key::LIMIT_TYPE) == 1 {
        true => per_second >= PROTECTIVE,
        false => protects_from_floods(per_second, field(key::LIMIT_BURST).into()),
    };
    let exceeds = field(key::LIMIT_FLAGS) & 1 != 0;
    match exceeds && protects {
        true => Term::Rare("limit".into()),
        false => Term::Varies("limit".into()),
    }
}

/// Decodes a limit of the number of connections.
fn connection_limit(data: &[u8]) -> Term {
    let field = |kind| number(get(data, kind));
    match field(key::CONNLIMIT_COUNT) {
        Some(count) => connections("ct count", count, field(key::CONNLIMIT_FLAGS).unwrap_or(0) & 1 != 0),
        None => Term::Condition("ct count".into()),
    }
}

/// Decodes an update of a set, with expressions for each of its elements.
fn dynset(expression: &RawExpression<'_>) -> Vec<Term> {
    let single = get(expression.data, key::DYNSET_EXPR).map(|element| {
        let name = get(element, expr::NAME).unwrap_or_default();
        let name = name.strip_suffix(&[0]).unwrap_or(name);
        vec![RawExpression { name, data: get(element, expr::DATA).unwrap_or_default() }]
    });
    let several = || get(expression.data, key::DYNSET_EXPRESSIONS).map(decode::list);
    match single.map(Some).or_else(several) {
        None => vec![Term::Neutral("dynset".into())],
        Some(None) => vec![Term::Condition("dynset".into())],
        Some(Some(list)) => list.iter().map(term).collect(),
    }
}

/// Decodes a reference to a named object, such as a counter.
fn object(expression: &RawExpression<'_>, objects: &Objects) -> Term {
    let name = || text(get(expression.data, key::OBJECT_NAME).unwrap_or_default());
    // A map refers to an object whose type is not part of the rule.
    let Some(kind) = number(get(expression.data, key::OBJECT_TYPE)) else {
        return Term::Condition("object".into());
    };
    let known = |decode: fn(&[u8]) -> Term| {
        objects.get(&(kind, name())).map_or_else(|| Term::Condition("object".into()), |data| decode(data))
    };
    match kind {
        key::OBJECT_QUOTA => Term::Varies("quota".into()),
        key::OBJECT_LIMIT => known(limit),
        key::OBJECT_CONNLIMIT => known(connection_limit),
        key::OBJECT_SYNPROXY => Term::Effect("synproxy".into()),
        other if key::OBJECTS_WITHOUT_CONDITION.contains(&other) => Term::Neutral("object".into()),
        _ => Term::Condition("object".into()),
    }
}

/// Decodes a conversion between the byte orders of the host and of the network.
fn byteorder(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let length = usize::try_from(field(key::BYTEORDER_LEN)?).ok()?;
    let size = usize::try_from(field(key::BYTEORDER_SIZE)?).ok()?;
    let size = if cfg!(target_endian = "big") { 1 } else { size };
    Some(Term::Swap { from: field(key::BYTEORDER_SREG)?, into: field(key::BYTEORDER_DREG)?, length, size })
}

/// Decodes a rule that overwrites a part of the packet.
fn set_payload(expression: &RawExpression<'_>) -> Option<Term> {
    let field = |kind| number(get(expression.data, kind));
    let register = field(key::PAYLOAD_SREG)?;
    let length = usize::try_from(field(expr::PAYLOAD_LEN)?).ok()?;
    let offset = usize::try_from(field(expr::PAYLOAD_OFFSET)?).ok()?;
    Some(match field(expr::PAYLOAD_BASE)? {
        expr::NETWORK_HEADER => Term::Overwrite { register, header: PacketHeader::Network, offset, length },
        key::TRANSPORT_HEADER => {
            Term::Overwrite { register, header: PacketHeader::Transport, offset, length }
        }
        // The header below IP is made anew for the next hop.
        key::LINK_HEADER => Term::Neutral("payload".into()),
        _ => Term::Effect("payload".into()),
    })
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
const META_WORDS: [(u32, &str); 17] = [
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
    (30, "time"),
    (31, "day"),
    (32, "hour"),
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
        key::CT_PACKETS => PacketPart::Varies("ct packets".into()),
        key::CT_BYTES => PacketPart::Varies("ct bytes".into()),
        key::CT_AVERAGE => PacketPart::Varies("ct avgpkt".into()),
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

    /// Only a list of names says that an expression has no condition or no effect.
    #[test]
    fn an_unknown_expression_is_an_unknown_condition() {
        let decoded = |name: &'static [u8]| terms(&[RawExpression { name, data: &[] }], &Objects::new());
        for name in
            [&b"bitwise"[..], b"byteorder", b"cmp", b"ct", b"exthdr", b"fib", b"lookup", b"numgen", b"objref"]
        {
            assert!(matches!(decoded(name)[..], [Term::Condition(_)]), "{:?}", decoded(name));
        }
        assert!(matches!(decoded(b"not yet invented")[..], [Term::Condition(_)]));
        assert!(matches!(decoded(b"match")[..], [Term::Condition(_)]));
        assert!(matches!(decoded(b"target")[..], [Term::Effect(_)]));
        assert!(matches!(decoded(b"meta")[..], [Term::Effect(_)]));
        assert!(matches!(decoded(b"limit")[..], [Term::Condition(_)]));
    }

    #[test]
    fn conditions_that_cannot_be_decoded_are_named_as_in_nft() {
        let name = |name: &'static [u8]| nft_word(&RawExpression { name, data: &[] }).to_string();
        assert_eq!([name(b"xfrm"), name(b"cmp"), name(b"socket")], ["ipsec", "comparison", "socket"]);
        assert_eq!(numbered("meta", &META_WORDS, 10).as_raw(), "meta skuid");
        assert_eq!(numbered("ct", &CT_WORDS, 17).as_raw(), "ct zone");
        assert_eq!(numbered("ct", &CT_WORDS, 99).as_raw(), "ct 99");
    }
}
