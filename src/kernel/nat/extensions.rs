//! Decodes the matches and targets of iptables, which nftables keeps in the binary form of iptables: linux/netfilter/xt_*.h
//! and linux/netfilter_ipv4/ipt_*.h, in host byte order unless they are parts of a packet.

use super::{
    decode::{RawExpression, get, number},
    key,
};
use crate::{
    kernel::netlink::text,
    state::{KeyRange, Operator, PacketPart, RuleVerdict, Term, TypeSet},
    text::Untrusted,
};

/// The register for what a match loads. Rules of iptables keep nothing in it.
const SCRATCH: u32 = 1;

fn name_of(expression: &RawExpression<'_>) -> Untrusted {
    text(get(expression.data, key::XT_NAME).unwrap_or_default()).into()
}

/// The binary form of a match or target.
struct Info<'a>(&'a [u8]);

impl Info<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn half(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn bytes(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        Some(self.0.get(at..at + length)?.to_vec())
    }

    /// A range of ports, as a key of a packet.
    fn ports(&self, at: usize) -> Option<KeyRange> {
        let end = |at| Some(self.half(at)?.to_be_bytes().to_vec());
        Some(KeyRange { from: end(at)?, to: Some(end(at + 2)?) })
    }
}

/// Decodes a match.
pub(super) fn of_match(expression: &RawExpression<'_>) -> Vec<Term> {
    let name = name_of(expression);
    match name.as_raw() {
        "comment" => vec![Term::Neutral(name)],
        "limit" | "hashlimit" | "recent" | "connlimit" | "connbytes" | "string" | "time" | "helper" => {
            vec![Term::Varies(name)]
        }
        "statistic" | "length" | "ttl" | "hl" | "quota" => vec![Term::Varies(name)],
        "tos" | "dscp" | "ecn" | "sctp" | "dccp" | "udplite" | "esp" | "ah" => vec![Term::Varies(name)],
        known => decoded(known, expression).unwrap_or_else(|| vec![Term::Condition(name)]),
    }
}

fn decoded(name: &str, expression: &RawExpression<'_>) -> Option<Vec<Term>> {
    let info = Info(get(expression.data, key::XT_INFO)?);
    let revision = number(get(expression.data, key::XT_REVISION))?;
    match (name, revision) {
        ("addrtype", 1) => address_type(&info).map(|term| vec![term]),
        // struct xt_mark_mtinfo1: mark, mask, invert.
        ("mark", 1) => {
            Some(vec![Term::Mark { value: info.word(0)?, mask: info.word(4)?, not: info.byte(8)? != 0 }])
        }
        // struct xt_conntrack_mtinfo3, and mtinfo1 with a mask of one byte, from match_flags on: only a match of the state
        // (XT_CONNTRACK_STATE) is decoded, also as `-m state` writes it (XT_CONNTRACK_STATE_ALIAS).
        ("conntrack", 1..=3) => {
            const STATE: u16 = 1;
            const ALIAS: u16 = 1 << 13;
            let (matches, inverts) = (info.half(146)?, info.half(148)?);
            let states = if revision == 1 { u16::from(info.byte(150)?) } else { info.half(150)? };
            let states = TypeSet { bits: states.into(), not: inverts & STATE != 0 };
            (matches & !ALIAS == STATE).then(|| vec![Term::State(states)])
        }
        // struct xt_state_info: states.
        ("state", 0) => Some(vec![Term::State(TypeSet { bits: info.word(0)?, not: false })]),
        ("tcp", 0) => tcp(&info),
        // struct xt_udp: source ports, destination ports, inversions.
        ("udp", 0) => Some(
            [ports(0, info.ports(0)?, info.byte(8)?, 1), ports(2, info.ports(4)?, info.byte(8)?, 2)].concat(),
        ),
        ("multiport", 1) => multiport(&info),
        // struct ipt_icmp and struct ip6t_icmp: type, codes, inversion. 255 is any type of ICMP.
        ("icmp" | "icmp6" | "icmpv6", 0) => {
            let (kind, not) = (info.byte(0)?, info.byte(3)? & 1 != 0);
            let is_any = kind == 255 && name == "icmp";
            let range = KeyRange { from: vec![kind], to: Some(vec![kind]) };
            (!is_any)
                .then(|| part(PacketPart::Transport { offset: 0, length: 1 }, range, not))
                .or(Some(Vec::new()))
        }
        ("iprange", 1) => address_range(&info),
        // struct xt_pkttype_info: type, inversion.
        ("pkttype", 0) => {
            let kind = u8::try_from(info.word(0)?).ok()?;
            let range = KeyRange { from: vec![kind], to: Some(vec![kind]) };
            Some(part(PacketPart::PacketType, range, info.word(4)? != 0))
        }
        // struct xt_rpfilter_info: XT_RPFILTER_LOOSE is 1, XT_RPFILTER_INVERT is 8.
        ("rpfilter", 0) => {
            let flags = info.byte(0)?;
            let range = KeyRange { from: vec![1], to: Some(vec![1]) };
            Some(part(PacketPart::ReturnRoute { by_input: flags & 1 == 0 }, range, flags & 8 != 0))
        }
        _ => None,
    }
}

/// Loads a part of the packet and matches it with a range.
fn part(part: PacketPart, range: KeyRange, not: bool) -> Vec<Term> {
    let member = Term::Member { register: SCRATCH, set: vec![range], fields: Vec::new(), not };
    vec![Term::Load { into: SCRATCH, part }, member]
}

/// Matches the ports at `offset`, unless the range is all of them.
fn ports(offset: usize, range: KeyRange, inversions: u8, bit: u8) -> Vec<Term> {
    let not = inversions & bit != 0;
    let is_all = range.from == [0, 0] && range.to.as_deref() == Some(&[0xff, 0xff]);
    if is_all && !not {
        return Vec::new();
    }
    part(PacketPart::Transport { offset, length: 2 }, range, not)
}

/// `struct xt_tcp`: source ports, destination ports, option, mask and value of the flags, inversions.
fn tcp(info: &Info<'_>) -> Option<Vec<Term>> {
    let (option, mask, flags, inversions) = (info.byte(8)?, info.byte(9)?, info.byte(10)?, info.byte(11)?);
    let mut terms =
        [ports(0, info.ports(0)?, inversions, 1), ports(2, info.ports(4)?, inversions, 2)].concat();
    if mask != 0 || inversions & 4 != 0 {
        let operator = if inversions & 4 != 0 { Operator::Unequal } else { Operator::Equal };
        terms.extend([
            Term::Load { into: SCRATCH, part: PacketPart::Transport { offset: 13, length: 1 } },
            Term::Mask { from: SCRATCH, into: SCRATCH, mask: vec![mask], invert: vec![0] },
            Term::Compare { register: SCRATCH, operator, value: vec![flags] },
        ]);
    }
    if option != 0 {
        terms.push(Term::Varies("tcp option".into()));
    }
    Some(terms)
}

/// `struct xt_multiport_v1`: which ports, their number, the ports, whether one begins a range, inversion.
fn multiport(info: &Info<'_>) -> Option<Vec<Term>> {
    let (which, count) = (info.byte(0)?, usize::from(info.byte(1)?));
    let not = info.byte(47)? != 0;
    let mut set = Vec::new();
    let mut at = 0;
    while at < count {
        let port = |at: usize| Some(info.half(2 + 2 * at)?.to_be_bytes().to_vec());
        let begins_range = info.byte(32 + at)? != 0;
        let last = if begins_range { at + 1 } else { at };
        set.push(KeyRange { from: port(at)?, to: Some(port(last)?) });
        at = last + 1;
    }
    let offset = match which {
        0 => 0,
        1 => 2,
        // Either of them.
        _ => return Some(vec![Term::Varies("multiport".into())]),
    };
    let member = Term::Member { register: SCRATCH, set, fields: Vec::new(), not };
    Some(vec![Term::Load { into: SCRATCH, part: PacketPart::Transport { offset, length: 2 } }, member])
}

/// `struct xt_addrtype_info_v1`: source, destination, flags.
fn address_type(info: &Info<'_>) -> Option<Term> {
    let (source, destination, flags) = (info.half(0)?, info.half(2)?, info.word(4)?);
    let types = |bits: u16, not| (bits != 0).then_some(TypeSet { bits: bits.into(), not });
    // XT_ADDRTYPE_LIMIT_IFACE_IN and _OUT.
    if flags & 0xc != 0 {
        return None;
    }
    Some(Term::AddressType {
        source: types(source, flags & 1 != 0),
        destination: types(destination, flags & 2 != 0),
    })
}

/// `struct xt_iprange_mtinfo`: the ends of the range of sources, those of destinations, flags.
fn address_range(info: &Info<'_>) -> Option<Vec<Term>> {
    let flags = info.byte(64)?;
    let mut terms = Vec::new();
    for (bit, at, places) in [(1, 0, [12, 8]), (2, 32, [16, 24])] {
        if flags & bit == 0 {
            continue;
        }
        // An address of IPv4 leaves the rest of its 16 bytes empty.
        let is_empty = |at| Some(info.bytes(at, 12)?.iter().all(|byte| *byte == 0));
        let is_v4 = is_empty(at + 4)? && is_empty(at + 20)?;
        let (length, offset) = if is_v4 { (4, places[0]) } else { (16, places[1]) };
        let range = KeyRange { from: info.bytes(at, length)?, to: Some(info.bytes(at + 16, length)?) };
        terms.extend(part(PacketPart::Header { offset, length }, range, flags & (bit << 4) != 0));
    }
    Some(terms)
}

/// Decodes a target.
pub(super) fn of_target(expression: &RawExpression<'_>) -> Vec<Term> {
    let name = name_of(expression);
    let info = Info(get(expression.data, key::XT_INFO).unwrap_or_default());
    let revision = number(get(expression.data, key::XT_REVISION));
    vec![match (name.as_raw(), revision) {
        ("MASQUERADE" | "SNAT" | "NETMAP", _) => Term::Verdict(RuleVerdict::Masquerade),
        ("DNAT" | "REDIRECT" | "TPROXY", _) => Term::Verdict(RuleVerdict::Translate),
        ("REJECT" | "DROP", _) => Term::Verdict(RuleVerdict::Drop),
        ("MARK", Some(2)) => return mark(&info).unwrap_or_else(|| vec![Term::SetMark]),
        // struct xt_connmark_tginfo1: three masks, and the mode. XT_CONNMARK_RESTORE is 2.
        ("CONNMARK", _) if info.byte(12).is_some_and(|mode| mode != 2) => Term::SetConnectionMark,
        ("MARK" | "CONNMARK", _) => Term::SetMark,
        // struct xt_ct_target_info: flags, of which XT_CT_NOTRACK is the first.
        ("CT", _) if info.byte(0).is_some_and(|flags| flags & 1 == 0) => Term::Neutral(name),
        ("CT" | "NOTRACK", _) => Term::Untrack,
        (
            "LOG" | "NFLOG" | "TCPMSS" | "TOS" | "DSCP" | "TTL" | "HL" | "CHECKSUM" | "CLASSIFY" | "TRACE"
            | "SET" | "AUDIT",
            _,
        ) => Term::Neutral(name),
        _ => Term::Effect(name),
    }]
}

/// `struct xt_mark_tginfo2`: the bits to invert, and those to clear before.
fn mark(info: &Info<'_>) -> Option<Vec<Term>> {
    let (mark, mask) = (info.word(0)?, info.word(4)?);
    Some(vec![
        Term::Load { into: SCRATCH, part: PacketPart::Mark },
        Term::Mask {
            from: SCRATCH,
            into: SCRATCH,
            mask: (!mask).to_ne_bytes().to_vec(),
            invert: mark.to_ne_bytes().to_vec(),
        },
        Term::MarkFrom { register: SCRATCH },
    ])
}
