//! Routes, formatted as `ip route` prints them.

use std::{
    cmp::Ordering,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::word::{Column, Word, write_word};
use crate::{
    model::{Family, MAIN_TABLE},
    text::{FastAddress, FastPrefix, Untrusted, list},
};

/// Route protocol numbers, which identify the program that added a route.
pub mod protocol {
    use std::borrow::Cow;

    /// The protocol number of managed routes. It is unassigned in linux/rtnetlink.h and in iproute2's rt_protos.
    pub const HOSTGW: u8 = 87;

    /// The kernel itself (`RTPROT_KERNEL`).
    pub const KERNEL: u8 = 2;

    /// Programs that do not identify themselves (`RTPROT_BOOT`), such as `ip route`.
    pub const BOOT: u8 = 3;

    /// Router advertisements (`RTPROT_RA`).
    pub const RA: u8 = 9;

    /// Returns the name of a protocol as `ip route` prints it (linux/rtnetlink.h, iproute2 rt_protos). Unnamed
    /// protocols print as numbers.
    #[must_use]
    pub fn name(protocol: u8) -> Cow<'static, str> {
        Cow::Borrowed(match protocol {
            HOSTGW => "87",
            0 => "unspec",
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            8 => "gated",
            9 => "ra",
            10 => "mrt",
            11 => "zebra",
            12 => "bird",
            13 => "dnrouted",
            14 => "xorp",
            15 => "ntk",
            16 => "dhcp",
            18 => "keepalived",
            42 => "babel",
            99 => "openr",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            192 => "eigrp",
            other => return Cow::Owned(other.to_string()),
        })
    }
}

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h).
pub const LOCAL_TABLE: u32 = 255;

/// The identity of a route, as in the kernel's tables (`fib_table_insert`, net/ipv4/fib_trie.c; `fib6_add`,
/// net/ipv6/ip6_fib.c). IPv6 has no TOS, and IPv4 has no source prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteKey {
    /// The number of the routing table.
    pub table: u32,
    /// The destination prefix.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// The type of service. Managed routes have 0.
    #[serde(default)]
    pub tos: u8,
    /// The metric. The lowest one wins.
    pub metric: u32,
    /// The source prefix of an IPv6 route that is only for packets from there. Managed routes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub from: Option<Ipv6Net>,
}

impl RouteKey {
    /// Returns the family of the destination.
    #[must_use]
    pub fn family(&self) -> Family {
        self.destination.into()
    }
}

/// A route, desired or observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The destination prefix.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// The number of the routing table.
    pub table: u32,
    /// The type of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// The metric, or 0 if the kernel reports none.
    pub metric: u32,
    /// The protocol number, which identifies the program that added the route.
    pub protocol: u8,
    /// The scope.
    pub scope: RouteScope,
    /// The type.
    #[serde(rename = "type")]
    pub kind: RouteType,
    /// The next hop.
    pub next_hop: NextHop,
    /// The source address of packets from this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The attributes that the other fields cannot express. Managed routes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Box<OpaqueRoute>>,
}

/// The parts of a route that the other fields cannot express, kept so that a foreign route can be restored exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpaqueRoute {
    /// The names of these attributes, such as `multipath`.
    pub attributes: Vec<Untrusted>,
    /// The next hops of a route with several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<NextHop>,
    /// The whole route in the kernel's encoding, in hexadecimal.
    pub raw: String,
}

/// The next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NextHop {
    /// The address of the next hop; absent if the destination is on-link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The outgoing interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Untrusted>,
    /// Whether the gateway is treated as on-link even if no local prefix covers it (`onlink`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onlink: bool,
}

/// The scope of a route (`rt_scope_t`, linux/rtnetlink.h). IPv6 routes have none and are reported as global.
// A spread scope equals the global one, because the number is not a setting. The schemas need not know.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteScope {
    /// Destinations behind a gateway (`RT_SCOPE_UNIVERSE`).
    Global,
    /// The global scope, encoded as another number in a managed IPv4 route.
    #[serde(skip)]
    Spread(Spread),
    /// Destinations on the link.
    Link,
    /// Addresses of this node.
    Host,
    /// Another scope, by its number.
    Other(u8),
}

impl RouteScope {
    /// Returns the scope with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Global,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }

    /// Returns the scope with this number in a managed IPv4 route via a gateway.
    #[must_use]
    pub const fn from_spread(number: u8) -> Self {
        match number {
            1..Spread::LIMIT => Self::Spread(Spread(number)),
            _ => Self::from_number(number),
        }
    }

    /// Returns `true` for the global scope, however it is encoded.
    #[must_use]
    pub const fn is_global(self) -> bool {
        matches!(self, Self::Global | Self::Spread(_))
    }

    /// Returns the number of the scope.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Global => 0,
            Self::Spread(spread) => spread.number(),
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(number) => number,
        }
    }
}

impl Serialize for RouteScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = "RouteScope";
        match self {
            Self::Global | Self::Spread(_) => serializer.serialize_unit_variant(name, 0, "global"),
            Self::Link => serializer.serialize_unit_variant(name, 1, "link"),
            Self::Host => serializer.serialize_unit_variant(name, 2, "host"),
            Self::Other(number) => serializer.serialize_newtype_variant(name, 3, "other", number),
        }
    }
}

impl PartialEq for RouteScope {
    fn eq(&self, other: &Self) -> bool {
        let meaning = |scope: &Self| if scope.is_global() { 0 } else { scope.number() };
        meaning(self) == meaning(other)
    }
}

impl Eq for RouteScope {}

/// The number by which the kernel stores the global scope of a managed IPv4 route.
///
/// The kernel finds equal next hops of IPv4 routes in a hash table whose hash includes the scope but not the gateway
/// (`fib_info_hashfn`, net/ipv4/fib_semantics.c). With one scope, all gateways of a cluster share a bucket, and adding
/// routes is quadratic in their number. A route via a gateway forwards in the same way with any scope below
/// [`LIMIT`](Self::LIMIT), and the scope is not part of a route's key, so the scope can spread the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread(u8);

impl Spread {
    /// From 200 (`RT_SCOPE_SITE`) on, the kernel would choose source addresses with a narrower scope.
    pub const LIMIT: u8 = 200;

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the number for the routes via `gateway`, which depends on nothing else.
    #[must_use]
    pub fn of(gateway: Ipv4Addr) -> Self {
        // Fibonacci hashing: multiplies by 2^32 divided by the golden ratio, and uses the upper bits.
        let hash = u32::from(gateway).wrapping_mul(0x9E37_79B1);
        let number = (u64::from(hash) * u64::from(Self::LIMIT)) >> 32;
        Self(u8::try_from(number).unwrap_or_default())
    }
}

impl fmt::Display for RouteScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global | Self::Spread(_) => f.write_str("global"),
            Self::Link => f.write_str("link"),
            Self::Host => f.write_str("host"),
            Self::Other(200) => f.write_str("site"),
            Self::Other(255) => f.write_str("nowhere"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

/// The type of a route (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteType {
    /// Forwards packets to the next hop.
    Unicast,
    /// Drops packets silently.
    Blackhole,
    /// Drops packets with an ICMP unreachable error.
    Unreachable,
    /// Drops packets with an ICMP prohibited error.
    Prohibit,
    /// Continues with the next routing rule.
    Throw,
    /// Another type, by its number.
    Other(u8),
}

impl RouteType {
    /// Delivers packets to this node (`RTN_LOCAL`).
    pub const LOCAL: Self = Self::Other(2);
    /// Delivers packets to this node, and to all others on the link (`RTN_BROADCAST`).
    pub const BROADCAST: Self = Self::Other(3);
    /// Delivers packets to this node, as one of several (`RTN_ANYCAST`).
    pub const ANYCAST: Self = Self::Other(4);

    /// Returns the type with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            other => Self::Other(other),
        }
    }

    /// Whether routes of this type deliver packets to this node.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Self::LOCAL | Self::BROADCAST | Self::ANYCAST)
    }

    /// Returns the number of the type.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Prohibit => 8,
            Self::Throw => 9,
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for RouteType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unicast => f.write_str("unicast"),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Prohibit => f.write_str("prohibit"),
            Self::Throw => f.write_str("throw"),
            Self::Other(2) => f.write_str("local"),
            Self::Other(3) => f.write_str("broadcast"),
            Self::Other(4) => f.write_str("anycast"),
            Self::Other(5) => f.write_str("multicast"),
            Self::Other(number) => write!(f, "type {number}"),
        }
    }
}

impl Route {
    /// Iterates over the gateways and interfaces of its next hops, of which the kernel uses one. Empty if they are unknown.
    pub fn hops(&self) -> impl Iterator<Item = (Option<IpAddr>, &Untrusted)> {
        let several = self.opaque.iter().flat_map(|opaque| &opaque.hops);
        several.chain([&self.next_hop]).filter_map(|hop| Some((hop.gateway, hop.device.as_ref()?)))
    }

    /// Returns `true` if the kernel added the route together with an address of the node. It adds no such routes through
    /// gateways: those of its protocol are from other programs.
    #[must_use]
    pub fn is_of_address(&self) -> bool {
        let several = self.opaque.iter().flat_map(|opaque| &opaque.hops);
        self.protocol == protocol::KERNEL && several.chain([&self.next_hop]).all(|hop| hop.gateway.is_none())
    }

    /// Returns the route's key.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey {
            table: self.table,
            destination: self.destination,
            tos: self.tos.unwrap_or(0),
            metric: self.metric,
            from: self.source_prefix(),
        }
    }

    /// Returns the source prefix of an IPv6 route that is only for packets from there.
    #[must_use]
    pub fn source_prefix(&self) -> Option<Ipv6Net> {
        let attributes = self.opaque.iter().flat_map(|opaque| &opaque.attributes);
        attributes
            .filter_map(|attribute| attribute.as_raw().strip_prefix("from "))
            .find_map(|from| from.parse().ok())
    }

    /// Returns the family of the destination.
    #[must_use]
    pub fn family(&self) -> Family {
        self.destination.into()
    }

    /// Returns `true` if the route is managed.
    #[must_use]
    pub const fn is_owned(&self) -> bool {
        self.protocol == protocol::HOSTGW
    }

    /// Returns `true` if the two routes are equal, and the kernel could not keep both.
    #[must_use]
    pub fn is_identical(&self, other: &Self) -> bool {
        self == other && self.scope.number() == other.scope.number()
    }

    /// Returns `true` if the route makes its destination reachable on `device` without a gateway.
    #[must_use]
    pub fn is_on_link(&self, device: &str) -> bool {
        self.kind == RouteType::Unicast
            && self.next_hop.gateway.is_none()
            && self.next_hop.device.as_ref().is_some_and(|name| name == device)
            && matches!(
                (self.family(), self.scope),
                (Family::V6, _) | (_, RouteScope::Link | RouteScope::Host)
            )
    }

    /// Compares the positions of routes in a plan: by family and table, on-link routes before others, then by
    /// destination and metric.
    #[must_use]
    pub fn plan_order(&self, other: &Self) -> Ordering {
        let rank = |route: &Self| (route.family(), route.table, route.next_hop.gateway.is_some());
        rank(self).cmp(&rank(other)).then_with(|| self.key().cmp(&other.key()))
    }

    /// Calls `each` for the words of the route, in the order of `ip route` and of the columns.
    fn each_word(&self, mut each: impl FnMut(Column, &'static str, Option<&dyn fmt::Display>)) {
        use Column::{Destination, Details, Interface, NextHop};
        if self.kind != RouteType::Unicast {
            each(Destination, "", Some(&self.kind));
        }
        each(Destination, "", Some(&ShownPrefix(self.destination)));
        if let Some(tos) = self.tos.filter(|tos| *tos != 0) {
            each(Destination, "tos", Some(&format_args!("{tos:#04x}")));
        }
        if let Some(gateway) = self.next_hop.gateway {
            match (self.family(), gateway) {
                (Family::V4, IpAddr::V6(_)) => each(NextHop, "via", Some(&format_args!("inet6 {gateway}"))),
                _ => each(NextHop, "via", Some(&FastAddress(gateway))),
            }
        }
        if let Some(device) = &self.next_hop.device {
            each(Interface, "dev", Some(device));
        }
        match self.table {
            MAIN_TABLE => {}
            LOCAL_TABLE => each(Details, "table", Some(&"local")),
            number => each(Details, "table", Some(&number)),
        }
        each(Details, "proto", Some(&protocol::name(self.protocol)));
        if !self.scope.is_global() {
            each(Details, "scope", Some(&self.scope));
        }
        if let Some(source) = self.source {
            each(Details, "src", Some(&source));
        }
        if self.metric != 0 {
            each(Details, "metric", Some(&self.metric));
        }
        if self.next_hop.onlink {
            each(Details, "onlink", None);
        }
        if let Some(mtu) = self.mtu {
            each(Details, "mtu", Some(&mtu));
        }
        if let Some(opaque) = &self.opaque {
            each(Details, "", Some(&format_args!("(with {})", list(&opaque.attributes, usize::MAX))));
        }
    }

    /// Returns the words of the route, in the order of `ip route`.
    #[must_use]
    pub fn words(&self) -> Vec<Word> {
        let mut words = Vec::with_capacity(8);
        self.each_word(|column, keyword, value| {
            words.push(Word::new(column, keyword, value.map_or_else(String::new, ToString::to_string)));
        });
        words
    }

    /// Replaces the text of the columns with the same words, joined in each column.
    pub fn put_columns(&self, columns: &mut [String; 4]) {
        columns.iter_mut().for_each(String::clear);
        self.each_word(|column, keyword, value| {
            let cell = &mut columns[column as usize];
            let _ = write_word(cell, !cell.is_empty(), keyword, value);
        });
    }

    /// Returns the arguments of `ip route`. The name of an interface is one argument, whatever it contains.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for Word { column, keyword, value } in self.words() {
            arguments.extend((!keyword.is_empty()).then(|| keyword.to_owned()));
            match (column, &self.next_hop.device) {
                (Column::Interface, Some(device)) => arguments.push(device.as_raw().to_owned()),
                _ => arguments.extend(value.split_whitespace().map(ToOwned::to_owned)),
            }
        }
        arguments
    }
}

/// Formats a destination as `ip route` does: `default` for the whole family, and no length for a single address.
struct ShownPrefix(IpNet);

impl fmt::Display for ShownPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(prefix) = self;
        if prefix.prefix_len() == 0 {
            f.write_str("default")
        } else if prefix.prefix_len() == prefix.max_prefix_len() {
            FastAddress(prefix.addr()).fmt(f)
        } else {
            FastPrefix(*prefix).fmt(f)
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ShownPrefix(self.destination).fmt(f)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut is_first, mut result) = (true, Ok(()));
        self.each_word(|_, keyword, value| {
            result = result.and_then(|()| write_word(f, !is_first, keyword, value));
            is_first = false;
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>) -> Route {
        Route {
            destination: destination.parse().expect("a prefix"),
            table: MAIN_TABLE,
            tos: None,
            metric: 0,
            protocol: protocol::HOSTGW,
            scope: if gateway.is_some() { RouteScope::Global } else { RouteScope::Link },
            kind: RouteType::Unicast,
            next_hop: NextHop {
                gateway: gateway.map(|text| text.parse().expect("an address")),
                device: Some("eth0".into()),
                onlink: false,
            },
            source: None,
            mtu: None,
            opaque: None,
        }
    }

    #[test]
    fn routes_print_as_in_ip_route() {
        assert_eq!(route("10.244.0.0/16", None).to_string(), "10.244.0.0/16 dev eth0 proto 87 scope link");
        assert_eq!(
            route("10.244.1.0/24", Some("10.244.1.2")).to_string(),
            "10.244.1.0/24 via 10.244.1.2 dev eth0 proto 87"
        );
        let full = Route {
            table: 100,
            metric: 50,
            protocol: 4,
            mtu: Some(1400),
            source: Some("172.30.0.11".parse().expect("an address")),
            next_hop: NextHop { onlink: true, ..route("::/0", Some("10.0.0.1")).next_hop },
            ..route("10.9.9.9/32", Some("10.0.0.1"))
        };
        assert_eq!(
            full.to_string(),
            "10.9.9.9 via 10.0.0.1 dev eth0 table 100 proto static src 172.30.0.11 metric 50 onlink mtu 1400"
        );
        assert_eq!(
            route("0.0.0.0/0", Some("10.0.0.1")).to_string(),
            "default via 10.0.0.1 dev eth0 proto 87"
        );
    }

    #[test]
    fn gateways_are_spread_evenly() {
        for stride in [1, 16, 64, 200, 256, 4096] {
            let mut counts = [0_usize; 256];
            for at in 0..10_000_u32 {
                let scope = RouteScope::Spread(Spread::of(Ipv4Addr::from(0x0AF4_0001 + at * stride)));
                assert_eq!(scope, RouteScope::Global);
                assert_eq!(RouteScope::from_spread(scope.number()).number(), scope.number());
                counts[usize::from(scope.number())] += 1;
            }
            let (spread, rest) = counts.split_at(usize::from(Spread::LIMIT));
            assert!(spread.iter().all(|count| (25..=100).contains(count)), "{stride}: {spread:?}");
            assert!(rest.iter().all(|count| *count == 0), "{stride}");
        }
        assert_ne!(RouteScope::from_spread(200), RouteScope::Global);
        assert_ne!(RouteScope::from_number(1), RouteScope::Global);
    }

    #[test]
    fn on_link_routes_come_first_in_a_plan() {
        let mut routes = [
            route("10.244.2.0/24", Some("10.244.2.1")),
            route("10.244.1.0/24", Some("10.244.1.1")),
            route("10.244.0.0/16", None),
        ];
        routes.sort_by(Route::plan_order);
        let destinations: Vec<_> = routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(destinations, ["10.244.0.0/16", "10.244.1.0/24", "10.244.2.0/24"]);
    }
}
