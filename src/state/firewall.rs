//! The chains of firewalls and NAT that packets pass, as far as their rules can be decoded.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BaseChain;
use crate::{model::Family, text::Untrusted};

/// The base chains, hostgw's own included, and the chains that they jump to. Does not contain NAT chains at the hook `input`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Firewall {
    /// The chains, in the kernel's order.
    pub chains: Vec<FirewallChain>,
    /// The tables of iptables-legacy that have rules or drop by their policies, which nftables cannot read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legacy: Vec<Untrusted>,
    /// The programs of iptables-legacy whose tables cannot be listed, so that it is unknown whether there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legacy_unknown: Vec<Untrusted>,
    /// The chains below IP that can drop packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lower: Vec<LowerChain>,
}

/// A base chain that sees packets below IP, and whose rules are not examined: of the families `bridge`, `arp` and `netdev`, or
/// at the hook `ingress` of the family `inet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LowerChain {
    /// The family of its table, as in nft.
    pub family: Untrusted,
    /// The table of the chain.
    pub table: Untrusted,
    /// The name of the chain.
    pub name: Untrusted,
    /// The interfaces that the chain is attached to. Empty if it is for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Untrusted>,
}

/// The chains that a trace follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedChains {
    /// All chains.
    All,
    /// The chains of programs other than hostgw.
    Others,
}

/// The family of a table, which determines the packets that pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableFamily {
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// IPv4 and IPv6 packets.
    Inet,
}

impl TableFamily {
    /// Returns `true` if packets of `family` pass the chains of such a table.
    #[must_use]
    pub const fn covers(self, family: Family) -> bool {
        matches!((self, family), (Self::Inet, _) | (Self::Ip, Family::V4) | (Self::Ip6, Family::V6))
    }

    /// Returns the name of the family in nft.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

/// A chain of a firewall or NAT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirewallChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The table of the chain.
    pub table: Untrusted,
    /// The name of the chain.
    pub name: Untrusted,
    /// The hook, for a base chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseChain>,
    /// The rules of the chain, in order.
    pub rules: Vec<FirewallRule>,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirewallRule {
    /// The number that `nft delete rule` takes.
    pub handle: u64,
    /// The comment of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Untrusted>,
    /// The terms of the rule, in order.
    pub terms: Vec<Term>,
}

impl FirewallRule {
    /// Returns `true` if the rule depends on an ipset, whose elements are not part of the rules.
    #[must_use]
    pub fn depends_on_ipset(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Condition(name) if *name == *Self::IPSET))
    }

    /// The name of the condition.
    pub const IPSET: &str = "ipset";
}

/// A term of a rule: what it loads, compares or does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Term {
    /// Loads a part of the packet into a register.
    Load {
        /// The register.
        into: u32,
        /// The part of the packet.
        part: PacketPart,
    },
    /// Masks a register, and then inverts bits of it.
    Mask {
        /// The register that is read.
        from: u32,
        /// The register that is written.
        into: u32,
        /// The bits to keep.
        mask: Vec<u8>,
        /// The bits to invert.
        invert: Vec<u8>,
    },
    /// Matches if a register compares like this.
    Compare {
        /// The register.
        register: u32,
        /// The comparison.
        operator: Operator,
        /// The value.
        value: Vec<u8>,
    },
    /// Loads a constant into a register.
    Constant {
        /// The register.
        into: u32,
        /// The value.
        value: Vec<u8>,
    },
    /// Matches if the type of an address is among these (a bit for each `RTN_*`), as the iptables match `addrtype`.
    AddressType {
        /// The types of the source, if they matter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<TypeSet>,
        /// The types of the destination, if they matter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<TypeSet>,
    },
    /// Matches if the connection is in one of these states (`NF_CT_STATE_*`), as the iptables match `conntrack`.
    State(TypeSet),
    /// Matches the mark, as the iptables match of this name.
    Mark {
        /// The value.
        value: u32,
        /// The bits that count.
        mask: u32,
        /// Whether all other marks match instead.
        not: bool,
    },
    /// Matches if a register is in a set.
    Member {
        /// The register.
        register: u32,
        /// The set.
        set: Vec<KeyRange>,
        /// The lengths of the fields of a key that has several with ranges, in bytes. Each begins with a word of its own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fields: Vec<usize>,
        /// Whether all other values match instead.
        not: bool,
    },
    /// Ends the rule with the verdict for the value of a register. Without one, the rule does not match.
    Map {
        /// The register.
        register: u32,
        /// The lengths of the fields of a key that has several with ranges, in bytes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fields: Vec<usize>,
        /// The map.
        map: Vec<(KeyRange, RuleVerdict)>,
    },
    /// A set or map whose elements are not read yet.
    Lookup {
        /// The register.
        register: u32,
        /// The name of the set or map.
        set: Untrusted,
        /// Whether all other values match instead.
        not: bool,
        /// Where a map stores what it maps to: 0 is the verdict. Absent for a set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        into: Option<u32>,
    },
    /// Ends the rule with a verdict.
    Verdict(RuleVerdict),
    /// Changes the mark to an unknown value.
    SetMark,
    /// Changes the mark to the value of a register.
    MarkFrom {
        /// The register.
        register: u32,
    },
    /// Changes the mark of the connection.
    SetConnectionMark,
    /// Excludes the packet from connection tracking.
    Untrack,
    /// Assigns both directions of the packet's connection to a zone of connection tracking.
    SetZone(u16),
    /// Swaps the bytes of numbers in a register: between the byte orders of the host and of the network.
    Swap {
        /// The register that is read.
        from: u32,
        /// The register that is written.
        into: u32,
        /// The number of bytes.
        length: usize,
        /// The number of bytes of each number.
        size: usize,
    },
    /// Overwrites a part of the packet with a register.
    Overwrite {
        /// The register.
        register: u32,
        /// The header.
        header: PacketHeader,
        /// The first byte.
        offset: usize,
        /// The number of bytes.
        length: usize,
    },
    /// Reduces the time to live (IPv6: the hop limit) by this number.
    ReduceTimeToLive(u8),
    /// The addresses of which the verdict after it makes one the source.
    NewSource {
        /// The first address.
        from: IpAddr,
        /// The last address.
        to: IpAddr,
    },
    /// The destination that the verdict after it gives to the packet: one of these addresses, and this port.
    NewDestination {
        /// The first address. Absent if the address stays the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
        /// The last address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<IpAddr>,
        /// The port. Absent if it stays the same, or if it is one of several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The verdict after it makes this node the destination of the packet.
    ThisNode,
    /// Has no effect on where the packet goes, such as a counter.
    Neutral(Untrusted),
    /// A condition that some packets between two pods meet and others do not, such as one about ports.
    Varies(Untrusted),
    /// A condition that only unusual packets meet, such as those of a flood, above a high limit.
    Rare(Untrusted),
    /// A condition that cannot be decoded. It may change any register.
    Condition(Untrusted),
    /// A verdict that cannot be decoded.
    Effect(Untrusted),
}

impl Term {
    /// The name of the neutral term for `fully-random`, before the verdict that masquerades packets.
    pub const FULLY_RANDOM: &'static str = "fully-random";

    /// Returns the chains that it continues with.
    pub fn targets(&self) -> impl Iterator<Item = &Untrusted> {
        let verdicts: Vec<&RuleVerdict> = match self {
            Self::Verdict(verdict) => vec![verdict],
            Self::Map { map, .. } => map.iter().map(|(_, verdict)| verdict).collect(),
            _ => Vec::new(),
        };
        verdicts.into_iter().filter_map(|verdict| match verdict {
            RuleVerdict::Jump(chain) | RuleVerdict::Goto(chain) => Some(chain),
            _ => None,
        })
    }
}

/// The values from one to another, both included, as the bytes of a register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRange {
    /// The first value.
    pub from: Vec<u8>,
    /// The last value. Absent if it is the greatest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<u8>>,
}

impl KeyRange {
    /// Returns `true` if the range contains this value.
    #[must_use]
    pub fn contains(&self, value: &[u8]) -> bool {
        self.from.as_slice() <= value && self.to.as_ref().is_none_or(|to| value <= to.as_slice())
    }
}

/// A set of small numbers, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypeSet {
    /// The bits.
    pub bits: u32,
    /// Whether all other numbers are meant instead.
    pub not: bool,
}

impl TypeSet {
    /// Returns `true` if this set of bits meets it.
    #[must_use]
    pub const fn meets(self, bits: u32) -> bool {
        (self.bits & bits != 0) != self.not
    }
}

/// A header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PacketHeader {
    /// The IP header.
    Network,
    /// The header after it, such as that of TCP.
    Transport,
}

/// A part of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum PacketPart {
    /// Some bytes of the IP header.
    Header {
        /// The first byte.
        offset: usize,
        /// The number of bytes.
        length: usize,
    },
    /// Some bytes of the header after it, such as the ports.
    Transport {
        /// The first byte.
        offset: usize,
        /// The number of bytes.
        length: usize,
    },
    /// The number of the protocol after the IP header (`IPPROTO_*`).
    Protocol,
    /// The byte with differentiated services and ECN: the type of service, or the traffic class.
    ServiceType,
    /// The group of the incoming interface.
    InputGroup,
    /// The group of the outgoing interface.
    OutputGroup,
    /// The kind of the incoming interface, such as `bridge`.
    InputKind,
    /// The kind of the outgoing interface.
    OutputKind,
    /// The type of the packet: for this host, broadcast, multicast and so on (`PACKET_*`).
    PacketType,
    /// Whether the packet is of the first direction of its connection, as 0, or a reply, as 1.
    ConnectionDirection,
    /// The status of the connection (`IPS_*`).
    ConnectionStatus,
    /// The mark of the connection.
    ConnectionMark,
    /// Whether there is a route back to the source, as 1 or 0.
    ReturnRoute {
        /// Whether it must lead out of the incoming interface.
        by_input: bool,
    },
    /// The Ethernet type.
    EtherType,
    /// A part that differs between packets, such as a port.
    Varies(Untrusted),
    /// The name of the incoming interface.
    InputName,
    /// The name of the outgoing interface.
    OutputName,
    /// The number of the incoming interface.
    InputIndex,
    /// The number of the outgoing interface.
    OutputIndex,
    /// The mark.
    Mark,
    /// The family (`NFPROTO_*`).
    Family,
    /// The state of the connection (`NF_CT_STATE_*`).
    State,
    /// The type of the source address (`RTN_*`).
    SourceType,
    /// The type of the destination address (`RTN_*`).
    DestinationType,
    /// A part that hostgw cannot decode.
    Other(Untrusted),
}

impl PacketPart {
    /// The name of the part in a rule of this family, as nft or iptables call it, for messages.
    #[must_use]
    pub fn name(&self, family: TableFamily) -> String {
        let name = match self {
            Self::Varies(name) | Self::Other(name) => return name.to_string(),
            Self::Header { offset, length } => match (family, offset, length) {
                (TableFamily::Ip6 | TableFamily::Inet, 8, 5..) => "ip6 saddr",
                (TableFamily::Ip6 | TableFamily::Inet, 24, _) => "ip6 daddr",
                (TableFamily::Ip6, 4, _) | (TableFamily::Ip | TableFamily::Inet, 2, _) => "length",
                (TableFamily::Ip6, 7, _) => "hl",
                (TableFamily::Ip | TableFamily::Inet, 4, _) => "id",
                (TableFamily::Ip | TableFamily::Inet, 8, _) => "ttl",
                (TableFamily::Ip | TableFamily::Inet, 10, _) => "checksum",
                (TableFamily::Ip | TableFamily::Inet, 12, _) => "ip saddr",
                (TableFamily::Ip | TableFamily::Inet, 16, _) => "ip daddr",
                _ => "the IP header",
            },
            Self::Transport { offset: 0..4, .. } => "ports",
            Self::Transport { .. } => "transport header",
            Self::ServiceType => "ip dscp",
            Self::Protocol => "meta l4proto",
            Self::InputGroup => "iifgroup",
            Self::OutputGroup => "oifgroup",
            Self::InputKind => "iifkind",
            Self::OutputKind => "oifkind",
            Self::PacketType => "pkttype",
            Self::ConnectionDirection => "ct direction",
            Self::ConnectionStatus => "ct status",
            Self::ConnectionMark => "ct mark",
            Self::ReturnRoute { .. } | Self::SourceType | Self::DestinationType => "fib",
            Self::EtherType => "meta protocol",
            Self::InputName => "iifname",
            Self::OutputName => "oifname",
            Self::InputIndex => "iif",
            Self::OutputIndex => "oif",
            Self::Mark => "mark",
            Self::Family => "meta nfproto",
            Self::State => "ct state",
        };
        name.to_owned()
    }
}

/// How a register is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// Equal to the value.
    Equal,
    /// Not equal to the value.
    Unequal,
    /// Less than the value.
    Less,
    /// Less than or equal to the value.
    LessOrEqual,
    /// Greater than the value.
    Greater,
    /// Greater than or equal to the value.
    GreaterOrEqual,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RuleVerdict {
    /// Accepts the packet in this base chain.
    Accept,
    /// Drops the packet.
    Drop,
    /// Continues with the named chain, and afterward with the next rule.
    Jump(Untrusted),
    /// Continues with the named chain, without returning.
    Goto(Untrusted),
    /// Returns to the calling chain.
    Return,
    /// Changes the source address of the packet.
    Masquerade,
    /// Changes another address of the packet.
    Translate,
}
