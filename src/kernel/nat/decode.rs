//! Decodes rules by their meaning, whether nft, nftnl or another program wrote them. Rules that hostgw does not understand
//! are kept as raw bytes.
//!
//! Decoding is strict on purpose. Mistaking a foreign rule for a managed one can leave a node without NAT; mistaking a
//! managed rule for a foreign one only rewrites it. Any attribute, register or flag that hostgw would not write makes the
//! whole rule foreign.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::abi::{self, expr};
use crate::{
    hex::hex,
    kernel::netlink::{Attributes, attribute_at, text},
    model::Family,
    state::{Expression, Field, RuleBody},
};

/// An expression as the kernel dumps it.
pub(super) struct RawExpression<'a> {
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Decodes the `NFTA_RULE_EXPRESSIONS` of a rule in a table of `family`.
pub(super) fn rule(family: Family, expressions: &[u8]) -> RuleBody {
    let list = list(expressions);
    if let Some(known) = list.as_ref().and_then(|list| known(family, list)) {
        return RuleBody::Known(known);
    }
    let mut raw = expressions.to_vec();
    let summary = match list {
        Some(list) => {
            let _ = clear_counters(&mut raw);
            list.iter().map(|expression| text(expression.name)).collect::<Vec<_>>().join(", ")
        }
        None => "malformed".to_owned(),
    };
    RuleBody::Other { summary, raw: hex(&raw) }
}

/// Splits the `NFTA_RULE_EXPRESSIONS` of a rule. Returns `None` if they are malformed.
pub(super) fn list(expressions: &[u8]) -> Option<Vec<RawExpression<'_>>> {
    Attributes::new(expressions)
        .map(|element| match element {
            Ok((abi::LIST_ELEMENT, element)) => {
                let [name, data] = fields(element, [expr::NAME, expr::DATA])?;
                Some(RawExpression { name: name?.strip_suffix(&[0])?, data: data.unwrap_or_default() })
            }
            _ => None,
        })
        .collect()
}

/// Returns the payloads of the attributes `kinds`, or `None` if there are others or duplicates.
fn fields<const N: usize>(data: &[u8], kinds: [u16; N]) -> Option<[Option<&[u8]>; N]> {
    let mut found = [None; N];
    for attribute in Attributes::new(data) {
        let (kind, payload) = attribute.ok()?;
        let slot = found.get_mut(kinds.iter().position(|wanted| *wanted == kind)?)?;
        if slot.replace(payload).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Returns an attribute of an expression.
pub(super) fn get(data: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes::find(data, kind)
}

/// Decodes an nftables number, which is in network byte order.
pub(super) fn number(payload: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(payload?.try_into().ok()?))
}

fn known(family: Family, list: &[RawExpression<'_>]) -> Option<Vec<Expression>> {
    let mut rest = list;
    let mut known = Vec::new();
    while let Some(first) = rest.first() {
        let (expression, used) = match first.name {
            b"payload" => address(family, rest)?,
            b"fib" => (not_local(rest)?, 2),
            b"counter" => (counter(first)?, 1),
            b"masq" => (masquerade(first)?, 1),
            b"immediate" => match verdict(first) {
                Some(verdict) => (verdict, 1),
                None => (source_nat(family, rest)?, 2),
            },
            _ => return None,
        };
        known.push(expression);
        rest = rest.get(used..)?;
    }
    Some(known)
}

/// Decodes an address comparison, and returns how many expressions it takes: load, mask unless the load itself is as long
/// as the prefix, compare.
fn address(family: Family, list: &[RawExpression<'_>]) -> Option<(Expression, usize)> {
    let load = Load::read(family, list.first()?)?;
    let (mask, used) = match list.get(1)? {
        bitwise if bitwise.name == b"bitwise" => (load.mask(bitwise)?, 3),
        _ => (vec![0xff; load.length], 2),
    };
    let (negated, value) = compare(list.get(used - 1)?, load.register)?;
    if value.len() != load.length || value.iter().zip(&mask).any(|(value, mask)| value & !mask != 0) {
        return None;
    }
    let prefix = family.prefix_of(value, prefix_length(&mask)?)?;
    Some((Expression::Address { field: load.field, negated, prefix }, used))
}

/// A load of the first bytes of an address into a register.
struct Load {
    field: Field,
    length: usize,
    register: u32,
}

impl Load {
    fn read(family: Family, payload: &RawExpression<'_>) -> Option<Self> {
        let [register, base, offset, length] = fields(
            payload.data,
            [expr::PAYLOAD_DREG, expr::PAYLOAD_BASE, expr::PAYLOAD_OFFSET, expr::PAYLOAD_LEN],
        )?;
        if number(base)? != expr::NETWORK_HEADER {
            return None;
        }
        let offset = usize::try_from(number(offset)?).ok()?;
        let field = Field::ALL.into_iter().find(|field| field.offset(family) == offset)?;
        let length = usize::try_from(number(length)?).ok()?;
        let register = number(register)?;
        let fits = (1..=usize::from(family.bits() / 8)).contains(&length);
        (fits && register != expr::REG_VERDICT).then_some(Self { field, length, register })
    }

    /// Returns the mask if the expression masks the loaded value and does nothing else.
    fn mask(&self, bitwise: &RawExpression<'_>) -> Option<Vec<u8>> {
        let [source, target, length, mask, xor, operation] = fields(
            bitwise.data,
            [
                expr::BITWISE_SREG,
                expr::BITWISE_DREG,
                expr::BITWISE_LEN,
                expr::BITWISE_MASK,
                expr::BITWISE_XOR,
                expr::BITWISE_OP,
            ],
        )?;
        // Linux before 5.6 has no operation: there is only this one.
        let plain = operation.is_none() || number(operation)? == expr::MASK_XOR;
        let same = number(source)? == self.register && number(target)? == self.register;
        let (mask, xor) = (value(mask?)?, value(xor?)?);
        let whole = usize::try_from(number(length)?).ok()? == self.length && mask.len() == self.length;
        (plain && same && whole && xor.iter().all(|byte| *byte == 0)).then(|| mask.to_vec())
    }
}

/// Decodes a comparison: whether it is negated, and the value to compare with.
fn compare<'a>(cmp: &RawExpression<'a>, register: u32) -> Option<(bool, &'a [u8])> {
    if cmp.name != b"cmp" {
        return None;
    }
    let [source, operation, data] = fields(cmp.data, [expr::CMP_SREG, expr::CMP_OP, expr::CMP_DATA])?;
    let negated = match number(operation)? {
        expr::CMP_EQ => false,
        expr::CMP_NEQ => true,
        _ => return None,
    };
    (number(source)? == register).then_some((negated, value(data?)?))
}

/// Returns the value in a data attribute.
pub(super) fn value(data: &[u8]) -> Option<&[u8]> {
    let [value] = fields(data, [expr::DATA_VALUE])?;
    value
}

/// Returns the length of a contiguous mask.
fn prefix_length(mask: &[u8]) -> Option<u8> {
    let ones = mask.iter().map(|byte| byte.leading_ones()).sum::<u32>();
    let all = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let full = mask.iter().take_while(|byte| **byte == 0xff).count();
    let rest_is_zero = mask.iter().skip(full + 1).all(|byte| *byte == 0);
    if ones == all && rest_is_zero { u8::try_from(ones).ok() } else { None }
}

fn not_local(list: &[RawExpression<'_>]) -> Option<Expression> {
    let fib = list.first()?;
    let [register, result, flags] = fields(fib.data, [expr::FIB_DREG, expr::FIB_RESULT, expr::FIB_FLAGS])?;
    let register = number(register)?;
    let destination_type = number(result)? == expr::FIB_ADDRTYPE && number(flags)? == expr::FIB_DADDR;
    let (negated, value) = compare(list.get(1)?, register)?;
    let usable = destination_type && register != expr::REG_VERDICT;
    (usable && negated && value == expr::LOCAL.to_ne_bytes()).then_some(Expression::NotLocal)
}

fn counter(counter: &RawExpression<'_>) -> Option<Expression> {
    fields(counter.data, [expr::COUNTER_BYTES, expr::COUNTER_PACKETS, expr::COUNTER_PAD])?;
    Some(Expression::Counter)
}

fn masquerade(masq: &RawExpression<'_>) -> Option<Expression> {
    let [flags] = fields(masq.data, [expr::MASQ_FLAGS])?;
    // The kernel omits flags that are zero.
    let flags = if flags.is_some() { number(flags)? } else { 0 };
    Some(Expression::Masquerade { flags })
}

/// Decodes an address in a register that becomes the source.
fn source_nat(family: Family, list: &[RawExpression<'_>]) -> Option<Expression> {
    let [immediate, nat, ..] = list else { return None };
    let [register, data] = fields(immediate.data, [expr::IMMEDIATE_DREG, expr::IMMEDIATE_DATA])?;
    let (register, bytes) = (number(register)?, value(data?)?);
    if nat.name != b"nat" || register == expr::REG_VERDICT {
        return None;
    }
    let [kind, protocol, from, to, flags] = fields(
        nat.data,
        [expr::NAT_TYPE, expr::NAT_FAMILY, expr::NAT_ADDRESS_MIN, expr::NAT_ADDRESS_MAX, expr::NAT_FLAGS],
    )?;
    // A single address is a range that ends where it begins.
    let is_single = to.is_none() || number(to)? == register;
    let is_of_family = number(protocol)? == u32::from(abi::protocol(family));
    let flags = if flags.is_some() { number(flags)? } else { 0 };
    let is_source = number(kind)? == expr::NAT_SOURCE && number(from)? == register;
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    (is_source && is_single && is_of_family)
        .then_some(Expression::SourceNat { address, flags: flags & !expr::NAT_HAS_ADDRESS })
}

fn verdict(immediate: &RawExpression<'_>) -> Option<Expression> {
    let [register, data] = fields(immediate.data, [expr::IMMEDIATE_DREG, expr::IMMEDIATE_DATA])?;
    let [verdict] = fields(data?, [expr::DATA_VERDICT])?;
    let [code] = fields(verdict?, [expr::VERDICT_CODE])?;
    let returns = number(register)? == expr::REG_VERDICT && number(code)? == expr::RETURN.cast_unsigned();
    returns.then_some(Expression::Return)
}

/// Zeroes the counters in a foreign rule. Traffic changes them, so the rule would otherwise differ from itself a moment
/// later, and a restored rule could not be recognized.
fn clear_counters(expressions: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(element) = attribute_at(expressions, at) {
        let element = element.ok()?;
        at = element.next;
        let element = expressions.get_mut(element.payload)?;
        let name = element.get(range_of(element, expr::NAME)?)?.strip_suffix(&[0])?;
        let live: &[u16] = match name {
            b"counter" => &[expr::COUNTER_BYTES, expr::COUNTER_PACKETS],
            b"quota" => &[expr::QUOTA_CONSUMED],
            b"last" => &[expr::LAST_SET, expr::LAST_MSECS],
            _ => continue,
        };
        let quota = name == b"quota";
        let Some(data) = range_of(element, expr::DATA) else { continue };
        let data = element.get_mut(data)?;
        zero(data, live)?;
        // The kernel reports an exhausted quota by a flag that it does not accept.
        if quota && let Some(flags) = range_of(data, expr::QUOTA_FLAGS) {
            *data.get_mut(flags)?.last_mut()? &= !expr::QUOTA_DEPLETED;
        }
    }
    Some(())
}

/// Locates the payload of the first attribute `kind`.
fn range_of(bytes: &[u8], kind: u16) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        let attribute = attribute_at(bytes, at)?.ok()?;
        if attribute.kind == kind {
            return Some(attribute.payload);
        }
        at = attribute.next;
    }
}

/// Fills the payloads of the attributes `kinds` with zeros.
fn zero(data: &mut [u8], kinds: &[u16]) -> Option<()> {
    let mut at = 0;
    while let Some(attribute) = attribute_at(data, at) {
        let attribute = attribute.ok()?;
        at = attribute.next;
        if kinds.contains(&attribute.kind) {
            data.get_mut(attribute.payload)?.fill(0);
        }
    }
    Some(())
}

/// Extracts the comment from a rule's user data, a list of type (1 byte), length (1 byte), value.
pub(super) fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let (value, next) = tail.split_at_checked(usize::from(*length))?;
        if *kind == abi::rule::COMMENT {
            return Some(text(value));
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::put_attribute;
    use proptest::prelude::*;

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in list {
            put_attribute(&mut bytes, *kind, payload).expect("short");
        }
        bytes
    }

    /// Encodes an expression as a list element.
    fn element(name: &str, list: &[(u16, &[u8])]) -> Vec<u8> {
        let name = format!("{name}\0");
        let data = attributes(list);
        attributes(&[(abi::LIST_ELEMENT, &attributes(&[(expr::NAME, name.as_bytes()), (expr::DATA, &data)]))])
    }

    fn data(value: &[u8]) -> Vec<u8> {
        attributes(&[(expr::DATA_VALUE, value)])
    }

    fn load(register: u32, base: u32, offset: u32, length: u32) -> Vec<u8> {
        let [register, base, offset, length] = [register, base, offset, length].map(u32::to_be_bytes);
        element("payload", &[(1, &register), (2, &base), (3, &offset), (4, &length)])
    }

    fn bitwise(source: u32, target: u32, mask: &[u8], xor: &[u8], operation: u32) -> Vec<u8> {
        let length = u32::try_from(mask.len()).expect("short");
        let [source, target, length, operation] = [source, target, length, operation].map(u32::to_be_bytes);
        let (mask, xor) = (data(mask), data(xor));
        element(
            "bitwise",
            &[(1, &source), (2, &target), (3, &length), (6, &operation), (4, &mask), (5, &xor)],
        )
    }

    fn cmp(register: u32, operation: u32, value: &[u8]) -> Vec<u8> {
        let [register, operation] = [register, operation].map(u32::to_be_bytes);
        element("cmp", &[(1, &register), (2, &operation), (3, &data(value))])
    }

    fn fib(register: u32, result: u32, flags: u32) -> Vec<u8> {
        let [register, result, flags] = [register, result, flags].map(u32::to_be_bytes);
        element("fib", &[(1, &register), (2, &result), (3, &flags)])
    }

    fn immediate(register: u32, code: i32, chain: Option<&[u8]>) -> Vec<u8> {
        let code = code.to_be_bytes();
        let mut verdict = vec![(expr::VERDICT_CODE, code.as_slice())];
        verdict.extend(chain.map(|chain| (2, chain)));
        let verdict = attributes(&[(expr::DATA_VERDICT, &attributes(&verdict))]);
        element("immediate", &[(1, &register.to_be_bytes()), (2, &verdict)])
    }

    /// Encodes a value in a register.
    fn in_register(register: u32, value: &[u8]) -> Vec<u8> {
        element("immediate", &[(1, &register.to_be_bytes()), (2, &data(value))])
    }

    /// Encodes NAT.
    fn nat(fields: &[(u16, u32)]) -> Vec<u8> {
        let fields: Vec<_> = fields.iter().map(|(kind, value)| (*kind, value.to_be_bytes())).collect();
        let fields: Vec<_> = fields.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        element("nat", &fields)
    }

    fn decoded(list: &[Vec<u8>]) -> RuleBody {
        rule(Family::V4, &list.concat())
    }

    #[test]
    fn equivalent_encodings_decode_to_the_same_rule() {
        let wanted = RuleBody::Known(vec![Expression::Address {
            field: Field::Daddr,
            negated: true,
            prefix: "10.244.0.0/16".parse().expect("a prefix"),
        }]);
        let short = [load(1, 1, 16, 2), cmp(1, 1, &[10, 244])];
        let masked =
            [load(1, 1, 16, 4), bitwise(1, 1, &[255, 255, 0, 0], &[0; 4], 0), cmp(1, 1, &[10, 244, 0, 0])];
        let half = [load(9, 1, 16, 3), bitwise(9, 9, &[255, 255, 0], &[0; 3], 0), cmp(9, 1, &[10, 244, 0])];
        for list in [&short[..], &masked[..], &half[..]] {
            assert_eq!(decoded(list), wanted);
        }
        let local = expr::LOCAL.to_ne_bytes();
        assert_eq!(decoded(&[fib(1, 3, 2), cmp(1, 1, &local)]), RuleBody::Known(vec![Expression::NotLocal]));
        assert_eq!(decoded(&[immediate(0, -5, None)]), RuleBody::Known(vec![Expression::Return]));
        for (fields, flags) in [
            (&[(1, 0), (2, 2), (3, 1)][..], 0),
            (&[(1, 0), (2, 2), (3, 1), (4, 1)][..], 0),
            (&[(1, 0), (2, 2), (3, 1), (4, 1), (7, 1)][..], 0),
            (&[(1, 0), (2, 2), (3, 1), (4, 1), (7, 17)][..], 16),
        ] {
            let address = Ipv4Addr::new(172, 30, 0, 11).into();
            let wanted = RuleBody::Known(vec![Expression::SourceNat { address, flags }]);
            assert_eq!(decoded(&[in_register(1, &[172, 30, 0, 11]), nat(fields)]), wanted);
        }
        assert_eq!(decoded(&[]), RuleBody::Known(vec![]));
    }

    #[test]
    fn rules_with_another_meaning_are_foreign() {
        let mask = [255, 255, 0, 0];
        let value = [10, 244, 0, 0];
        let local = expr::LOCAL.to_ne_bytes();
        let mut foreign = vec![
            ("another register compared", vec![load(1, 1, 16, 2), cmp(2, 1, &[10, 244])]),
            ("loaded into the verdict", vec![load(0, 1, 16, 2), cmp(0, 1, &[10, 244])]),
            ("less than", vec![load(1, 1, 16, 2), cmp(1, 2, &[10, 244])]),
            ("transport header", vec![load(1, 2, 16, 2), cmp(1, 1, &[10, 244])]),
            ("inside the address", vec![load(1, 1, 17, 2), cmp(1, 1, &[10, 244])]),
            ("an offset of IPv6", vec![load(1, 1, 24, 2), cmp(1, 1, &[10, 244])]),
            ("past the address", vec![load(1, 1, 16, 8), cmp(1, 1, &[10, 244, 0, 0, 0, 0, 0, 0])]),
            ("nothing loaded", vec![load(1, 1, 16, 0), cmp(1, 1, &[])]),
            ("shorter comparison", vec![load(1, 1, 16, 4), cmp(1, 1, &[10, 244])]),
            ("longer comparison", vec![load(1, 1, 16, 2), cmp(1, 1, &value)]),
            ("a load alone", vec![load(1, 1, 16, 2)]),
            ("a comparison alone", vec![cmp(1, 1, &[10, 244])]),
            (
                "bits outside the mask",
                vec![load(1, 1, 16, 4), bitwise(1, 1, &mask, &[0; 4], 0), cmp(1, 1, &[10, 244, 1, 0])],
            ),
            (
                "another result register",
                vec![load(1, 1, 16, 4), bitwise(1, 2, &mask, &[0; 4], 0), cmp(1, 1, &value)],
            ),
            (
                "another source register",
                vec![load(1, 1, 16, 4), bitwise(2, 1, &mask, &[0; 4], 0), cmp(1, 1, &value)],
            ),
            (
                "exclusive or",
                vec![load(1, 1, 16, 4), bitwise(1, 1, &mask, &[0, 1, 0, 0], 0), cmp(1, 1, &value)],
            ),
            ("a shift", vec![load(1, 1, 16, 4), bitwise(1, 1, &mask, &[0; 4], 1), cmp(1, 1, &value)]),
            (
                "a mask with holes",
                vec![
                    load(1, 1, 16, 4),
                    bitwise(1, 1, &[255, 0, 255, 0], &[0; 4], 0),
                    cmp(1, 1, &[10, 0, 0, 0]),
                ],
            ),
            (
                "a shorter mask",
                vec![load(1, 1, 16, 4), bitwise(1, 1, &[255, 255], &[0; 2], 0), cmp(1, 1, &value)],
            ),
            ("masked, not compared", vec![load(1, 1, 16, 4), bitwise(1, 1, &mask, &[0; 4], 0)]),
            ("local", vec![fib(1, 3, 2), cmp(1, 0, &local)]),
            ("not unicast", vec![fib(1, 3, 2), cmp(1, 1, &1u32.to_ne_bytes())]),
            ("the source's type", vec![fib(1, 3, 1), cmp(1, 1, &local)]),
            ("by interface", vec![fib(1, 3, 2 | 8), cmp(1, 1, &local)]),
            ("an interface index", vec![fib(1, 1, 2), cmp(1, 1, &local)]),
            ("fib into another register", vec![fib(2, 3, 2), cmp(1, 1, &local)]),
            ("a short address type", vec![fib(1, 3, 2), cmp(1, 1, &local[..2])]),
            ("fib alone", vec![fib(1, 3, 2)]),
            ("accept", vec![immediate(0, 1, None)]),
            ("jump", vec![immediate(0, -3, Some(b"x\0"))]),
            ("return to a chain", vec![immediate(0, -5, Some(b"x\0"))]),
            ("a verdict in a register", vec![immediate(1, -5, None)]),
            ("an address alone", vec![in_register(1, &value)]),
            ("an address for the verdict", vec![in_register(0, &value), nat(&[(1, 0), (2, 2), (3, 0)])]),
            ("an address of IPv6", vec![in_register(1, &[0; 16]), nat(&[(1, 0), (2, 2), (3, 1)])]),
            ("NAT without an address", vec![in_register(1, &value), nat(&[(1, 0), (2, 2)])]),
            ("NAT of the destination", vec![in_register(1, &value), nat(&[(1, 1), (2, 2), (3, 1)])]),
            ("NAT of IPv6", vec![in_register(1, &value), nat(&[(1, 0), (2, 10), (3, 1)])]),
            ("NAT from another register", vec![in_register(1, &value), nat(&[(1, 0), (2, 2), (3, 2)])]),
            ("NAT to a range", vec![in_register(1, &value), nat(&[(1, 0), (2, 2), (3, 1), (4, 2)])]),
            ("NAT to a port", vec![in_register(1, &value), nat(&[(1, 0), (2, 2), (3, 1), (5, 2)])]),
            ("NAT alone", vec![nat(&[(1, 0), (2, 2), (3, 1)])]),
            ("an address for something else", vec![in_register(1, &value), element("counter", &[])]),
            ("ports", vec![element("masq", &[(1, &[0, 0, 0, 2]), (2, &[0, 0, 0, 1])])]),
            ("short flags", vec![element("masq", &[(1, &[4])])]),
            ("an attribute twice", vec![element("masq", &[(1, &[0, 0, 0, 4]), (1, &[0, 0, 0, 8])])]),
            ("an unknown attribute", vec![element("counter", &[(9, &[0])])]),
            ("an unknown expression", vec![element("counter", &[]), element("log", &[])]),
            ("a name without its end", vec![attributes(&[(1, &attributes(&[(1, b"counter")]))])]),
            ("not a list", vec![attributes(&[(2, &attributes(&[(1, b"counter\0")]))])]),
        ];
        foreign.push(("bytes left over", vec![element("counter", &[]), vec![1, 2, 3]]));
        for (what, list) in foreign {
            let body = decoded(&list);
            assert!(matches!(body, RuleBody::Other { .. }), "{what}: {body:?}");
        }
    }

    #[test]
    fn counters_are_cleared() {
        let quota = |flags: u8, consumed: u8| {
            decoded(&[
                element("quota", &[(1, &[0; 8]), (2, &[0, 0, 0, flags]), (4, &[consumed; 8])]),
                element("last", &[(1, &[0, 0, 0, consumed]), (2, &[consumed; 8])]),
                element("counter", &[(1, &[consumed; 8]), (3, &[]), (2, &[consumed; 8])]),
            ])
        };
        assert_eq!(quota(3, 7), quota(1, 0));
        assert_ne!(quota(1, 0), quota(0, 0));
    }

    #[test]
    fn only_contiguous_masks_are_prefixes() {
        assert_eq!(prefix_length(&[0xff, 0xff]), Some(16));
        assert_eq!(prefix_length(&[0xff, 0x80, 0, 0]), Some(9));
        assert_eq!(prefix_length(&[0, 0, 0, 0]), Some(0));
        assert_eq!(prefix_length(&[0xff, 0, 0xff, 0]), None);
        assert_eq!(prefix_length(&[0xff, 0x81, 0, 0]), None);
        assert_eq!(prefix_length(&[0x80, 0x80, 0, 0]), None);
        assert_eq!(prefix_length(&[0, 0, 0, 1]), None);
    }

    #[test]
    fn comments() {
        assert_eq!(comment(b"\x00\x02x\x00"), Some("x".to_owned()));
        assert_eq!(comment(b"\x01\x01a\x00\x02y\x00"), Some("y".to_owned()));
        assert_eq!(comment(b"\x00\x09x\x00"), None);
        assert_eq!(comment(b""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = rule(Family::V4, &bytes);
            let _ = comment(&bytes);
            let _ = clear_counters(&mut bytes.clone());
        }
    }
}
