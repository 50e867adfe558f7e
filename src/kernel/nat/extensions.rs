//! Decodes the matches and targets of iptables, which nftables keeps in the binary form of iptables: linux/netfilter/xt_*.h
//! and linux/netfilter_ipv4/ipt_*.h, in host byte order unless they are parts of a packet.

use std::net::IpAddr;

use super::{
    decode::{RawExpression, get, number},
    key,
    limits::{connections, protects_from_floods},
};
use crate::{
    kernel::netlink::text,
    state::{FirewallRule, KeyRange, Operator, PacketHeader, PacketPart, RuleVerdict, Term, TypeSet},
    text::Untrusted,
};

/// The register for what a match loads. Rules of iptables keep nothing in it.
const SCRATCH: u32 = 1;
/// `NFT_REG32_00`, `NFT_REG32_01`: the words for a key of two fields.
const WORDS: [u32; 2] = [8, 9];

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

    fn long(&self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
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
        // iptables and ip6tables use the expression `limit`, but other programs may use the match.
        "limit" | "statistic" | "length" | "quota" | "string" => vec![Term::Varies(name)],
        // It matches packets for a socket of this node, such as those of a transparent proxy.
        "socket" => vec![Term::Rare(name)],
        // hostgw cannot read ipsets.
        "set" => vec![Term::Condition(FirewallRule::IPSET.into())],
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
        // struct xt_tos_match_info: mask, value, inversion. struct xt_dscp_info: value, inversion.
        ("tos", 1) => Some(service_type(info.byte(0)?, info.byte(1)?, info.byte(2)? != 0)),
        ("dscp", 0) => Some(service_type(0xfc, info.byte(0)?.checked_mul(4)?, info.byte(1)? != 0)),
        ("ecn", 0) => ecn(&info),
        // struct ipt_ttl_info and struct ip6t_hl_info: comparison, value.
        ("ttl" | "hl", 0) => {
            let operators = [Operator::Equal, Operator::Unequal, Operator::Less, Operator::Greater];
            let operator = *operators.get(usize::from(info.byte(0)?))?;
            let offset = if name == "ttl" { 8 } else { 7 };
            Some(vec![
                Term::Load { into: SCRATCH, part: PacketPart::Header { offset, length: 1 } },
                Term::Compare { register: SCRATCH, operator, value: vec![info.byte(1)?] },
            ])
        }
        ("time", 0) => Some(time(&info)?),
        ("recent", 0 | 1) => Some(vec![recent(&info)?]),
        // struct xt_connlimit_info: mask, limit, flags. XT_CONNLIMIT_INVERT is 1.
        ("connlimit", 1) => Some(vec![connections("connlimit", info.word(16)?, info.word(20)? & 1 == 0)]),
        // struct xt_connbytes_info: from, to.
        ("connbytes", 0) => Some(vec![match (info.long(0)?, info.long(8)?) {
            // Any packet of a connection.
            (0, u64::MAX) => Term::State(TypeSet { bits: UNTRACKED, not: true }),
            _ => Term::Varies("connbytes".into()),
        }]),
        ("hashlimit", _) => Some(vec![hash_limit(&info, revision)?]),
        // struct xt_helper_info: inversion. It matches connections that another one expected.
        ("helper", 0) if info.word(0)? != 0 => Some(Vec::new()),
        ("helper", 0) => Some(vec![
            Term::Load { into: SCRATCH, part: PacketPart::ConnectionStatus },
            Term::Mask {
                from: SCRATCH,
                into: SCRATCH,
                mask: EXPECTED.to_ne_bytes().to_vec(),
                invert: vec![0; 4],
            },
            Term::Compare { register: SCRATCH, operator: Operator::Unequal, value: vec![0; 4] },
        ]),
        // The rule is about this protocol only. IPPROTO_* (linux/in.h).
        ("sctp", _) => Some(protocol(132)),
        ("dccp", _) => Some(protocol(33)),
        ("udplite", _) => Some(protocol(136)),
        ("esp", _) => Some(protocol(50)),
        ("ah", _) => Some(protocol(51)),
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

/// `NF_CT_STATE_UNTRACKED_BIT`, `IPS_EXPECTED` (linux/netfilter/nf_conntrack_common.h).
const UNTRACKED: u32 = 1 << 6;
const EXPECTED: u32 = 1;

fn protocol(number: u8) -> Vec<Term> {
    part(PacketPart::Protocol, KeyRange { from: vec![number], to: Some(vec![number]) }, false)
}

/// Matches some bits of the type of service.
fn service_type(mask: u8, value: u8, not: bool) -> Vec<Term> {
    let operator = if not { Operator::Unequal } else { Operator::Equal };
    vec![
        Term::Load { into: SCRATCH, part: PacketPart::ServiceType },
        Term::Mask { from: SCRATCH, into: SCRATCH, mask: vec![mask], invert: vec![0] },
        Term::Compare { register: SCRATCH, operator, value: vec![value] },
    ]
}

/// `struct xt_ecn_info`: what to match, inversions, the bits in the IP header. `XT_ECN_OP_MATCH_*`.
fn ecn(info: &Info<'_>) -> Option<Vec<Term>> {
    const IP: u8 = 1;
    let (what, inversions) = (info.byte(0)?, info.byte(1)?);
    let mut terms = Vec::new();
    if what & IP != 0 {
        terms.extend(service_type(3, info.byte(2)?, inversions & IP != 0));
    }
    // The flags ECE and CWR of TCP.
    for (bit, flag) in [(0x10, 0x40), (0x20, 0x80)] {
        if what & bit != 0 {
            let operator = if inversions & bit != 0 { Operator::Equal } else { Operator::Unequal };
            terms.extend([
                Term::Load { into: SCRATCH, part: PacketPart::Transport { offset: 13, length: 1 } },
                Term::Mask { from: SCRATCH, into: SCRATCH, mask: vec![flag], invert: vec![0] },
                Term::Compare { register: SCRATCH, operator, value: vec![0] },
            ]);
        }
    }
    Some(terms)
}

/// `struct xt_time_info`: dates, times of day, days of the month, days of the week, flags.
fn time(info: &Info<'_>) -> Option<Vec<Term>> {
    /// `XT_TIME_MIN_DAYTIME`, `XT_TIME_MAX_DAYTIME`, `XT_TIME_ALL_MONTHDAYS`, `XT_TIME_ALL_WEEKDAYS`.
    const ALWAYS: ([u32; 5], u8) = ([0, i32::MAX.cast_unsigned(), 0, 24 * 60 * 60 - 1, 0xffff_fffe], 0xfe);
    let [from, until, begin, end, days] = [0, 4, 8, 12, 16].map(|at| info.word(at));
    let found = ([from?, until?, begin?, end?, days?], info.byte(20)?);
    Some(if found == ALWAYS { Vec::new() } else { vec![Term::Condition("time".into())] })
}

/// `struct xt_recent_mtinfo`: seconds, hits, what to check, inversion.
fn recent(info: &Info<'_>) -> Option<Term> {
    /// `XT_RECENT_SET`, which matches every packet.
    const SET: u8 = 2;
    Some(match (info.byte(8)? & SET != 0, info.byte(9)? != 0) {
        (true, false) => Term::Neutral("recent".into()),
        (true, true) => Term::Rare("recent".into()),
        (false, _) => Term::Condition("recent".into()),
    })
}

/// `struct xt_hashlimit_mtinfo1` to `mtinfo3`: name, configuration. `XT_HASHLIMIT_INVERT` is 0x10, `XT_HASHLIMIT_BYTES` 0x20.
fn hash_limit(info: &Info<'_>, revision: u32) -> Option<Term> {
    /// The intervals per second: `XT_HASHLIMIT_SCALE`, `XT_HASHLIMIT_SCALE_v2`.
    const SCALES: [u64; 2] = [10_000, 1_000_000];
    let (mode, interval, burst, scale): (_, u64, u64, _) = match revision {
        1 => (info.word(16)?, info.word(20)?.into(), info.word(24)?.into(), SCALES[0]),
        2 | 3 => (info.word(272)?, info.long(256)?, info.long(264)?, SCALES[1]),
        _ => return None,
    };
    let is_protective = mode & 0x30 == 0x10 && protects_from_floods(scale / interval.max(1), burst);
    Some(match is_protective {
        true => Term::Rare("hashlimit".into()),
        false => Term::Varies("hashlimit".into()),
    })
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
        // Either of them: in the ranges of the source ports and any destination port, or the other way round.
        _ => {
            let key = |[source, destination]: [&[u8]; 2]| [source, &[0, 0], destination, &[0, 0]].concat();
            let any: [&[u8]; 2] = [&[0, 0], &[0xff, 0xff]];
            let pairs = set.iter().filter_map(|range| Some([range.from.as_slice(), range.to.as_deref()?]));
            let either = pairs.flat_map(|[from, to]| {
                [([from, any[0]], [to, any[1]]), ([any[0], from], [any[1], to])]
                    .map(|(from, to)| KeyRange { from: key(from), to: Some(key(to)) })
            });
            let loads = WORDS
                .into_iter()
                .zip([0, 2])
                .map(|(into, offset)| Term::Load { into, part: PacketPart::Transport { offset, length: 2 } });
            let member = Term::Member { register: WORDS[0], set: either.collect(), fields: vec![2, 2], not };
            return Some(loads.chain([member]).collect());
        }
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
        ("SNAT", Some(0..=2)) => {
            let source = new_source(&info, revision == Some(0));
            return source.into_iter().chain([Term::Verdict(RuleVerdict::Masquerade)]).collect();
        }
        ("MASQUERADE" | "SNAT" | "NETMAP", _) => Term::Verdict(RuleVerdict::Masquerade),
        ("DNAT", Some(revision @ 0..=2)) => {
            let destination = new_destination(&info, revision == 0);
            return destination.into_iter().chain([Term::Verdict(RuleVerdict::Translate)]).collect();
        }
        ("REDIRECT" | "TPROXY", _) => return vec![Term::ThisNode, Term::Verdict(RuleVerdict::Translate)],
        ("DNAT", _) => Term::Verdict(RuleVerdict::Translate),
        ("REJECT" | "DROP", _) => Term::Verdict(RuleVerdict::Drop),
        ("MARK", Some(2)) => return mark(&info).unwrap_or_else(|| vec![Term::SetMark]),
        // struct xt_connmark_tginfo1: three masks, and the mode. XT_CONNMARK_RESTORE is 2.
        ("CONNMARK", _) if info.byte(12).is_some_and(|mode| mode != 2) => Term::SetConnectionMark,
        ("MARK" | "CONNMARK", _) => Term::SetMark,
        // struct xt_ct_target_info: flags, of which XT_CT_NOTRACK is the first, and zone. With the other flags, the zone is
        // one of only one direction, or the mark.
        ("CT", _) if info.half(0).is_some_and(|flags| flags & 1 == 0) => match (info.half(0), info.half(2)) {
            (Some(0), Some(zone @ 1..)) => Term::SetZone(zone),
            _ => Term::Neutral(name),
        },
        ("CT" | "NOTRACK", _) => Term::Untrack,
        ("TTL" | "HL", Some(0)) => {
            let is_v4 = name.as_raw() == "TTL";
            return time_to_live(&info, is_v4).unwrap_or_else(|| vec![Term::Effect(name)]);
        }
        (
            "LOG" | "NFLOG" | "TCPMSS" | "TOS" | "DSCP" | "ECN" | "CHECKSUM" | "CLASSIFY" | "TRACE" | "SET"
            | "AUDIT" | "TEE" | "TCPOPTSTRIP" | "IDLETIMER" | "LED" | "RATEEST" | "SECMARK" | "CONNSECMARK",
            _,
        ) => Term::Neutral(name),
        _ => Term::Effect(name),
    }]
}

/// `struct ipt_TTL_info` and `struct ip6t_HL_info`: mode (set, increase, reduce), number.
fn time_to_live(info: &Info<'_>, is_v4: bool) -> Option<Vec<Term>> {
    let value = info.byte(1)?;
    Some(match info.byte(0)? {
        0 => vec![
            Term::Constant { into: SCRATCH, value: vec![value] },
            Term::Overwrite {
                register: SCRATCH,
                header: PacketHeader::Network,
                offset: if is_v4 { 8 } else { 7 },
                length: 1,
            },
        ],
        1 => Vec::new(),
        2 => vec![Term::ReduceTimeToLive(value)],
        _ => return None,
    })
}

/// A range of NAT: `struct nf_nat_ipv4_multi_range_compat` of the first revision (number, flags, first and last address, first
/// and last port), or `struct nf_nat_range` (flags, first and last address, first and last port).
struct NatRange {
    /// The first and the last address, if the range has addresses.
    addresses: Option<(IpAddr, IpAddr)>,
    /// The first and the last port, if the range has ports.
    ports: Option<(u16, u16)>,
}

fn nat_range(info: &Info<'_>, is_first: bool) -> Option<NatRange> {
    /// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
    const ADDRESSES: u32 = 1;
    const PORTS: u32 = 2;
    let address = |at: usize| {
        // An address of IPv4 leaves the rest of its 16 bytes empty.
        let v4 = is_first || info.bytes(at + 4, 12)?.iter().all(|byte| *byte == 0);
        Some(match v4 {
            true => IpAddr::from(<[u8; 4]>::try_from(info.bytes(at, 4)?).ok()?),
            false => IpAddr::from(<[u8; 16]>::try_from(info.bytes(at, 16)?).ok()?),
        })
    };
    let port = |at: usize| info.half(at).map(u16::from_be);
    let (flags, ends, ports) = if is_first { (4, [8, 12], [16, 18]) } else { (0, [4, 20], [36, 38]) };
    let flags = info.word(flags)?;
    let addresses = (flags & ADDRESSES != 0).then(|| address(ends[0]).zip(address(ends[1])));
    let ports = (flags & PORTS != 0).then(|| port(ports[0]).zip(port(ports[1])));
    Some(NatRange {
        addresses: addresses.map_or(Some(None), |some| some.map(Some))?,
        ports: ports.map_or(Some(None), |some| some.map(Some))?,
    })
}

fn new_source(info: &Info<'_>, is_first: bool) -> Option<Term> {
    let (from, to) = nat_range(info, is_first)?.addresses?;
    Some(Term::NewSource { from, to })
}

fn new_destination(info: &Info<'_>, is_first: bool) -> Option<Term> {
    let NatRange { addresses, ports } = nat_range(info, is_first)?;
    let port = ports.filter(|(first, last)| first == last).map(|(port, _)| port);
    Some(Term::NewDestination {
        from: addresses.map(|(from, _)| from),
        to: addresses.map(|(_, to)| to),
        port,
    })
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
