//! The file format as serde types, before validation.
//!
//! The doc comments become descriptions in the JSON Schema, which editors display, so they address the authors of
//! configurations. Every field is an `Option`, so that an error in one does not hide errors in the others; the schema
//! states which keys are required. Values go through [`Scalar`], so that no type is converted to another one.

use std::{borrow::Cow, collections::HashSet, fmt};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
};

use crate::model::{
    NatSource, NatTo, NextHopMode, OffLink, OperatingSystem, PrefixList, RouteSource, ScopeSpread, Unassigned,
};

/// A hostgw configuration (hostgw.yaml, hostgw.yml, or hostgw.toml). It describes every node of the cluster, and what
/// hostgw configures on them. All nodes use the same file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "hostgw configuration")]
pub(super) struct RawConfig {
    /// The version of the file format. This version of hostgw supports version 1.
    #[schemars(extend("enum" = [1, null], "default" = 1))]
    pub version: Option<Bounded<0, { u32::MAX }>>,

    /// The prefix that contains the pod CIDRs of all nodes: one, or a list, of one or both address families. Traffic within
    /// these prefixes keeps its source address. Traffic that leaves them is masqueraded.
    #[schemars(required, example = "10.244.0.0/16", example = ["10.244.0.0/16", "fd00:244::/48"])]
    pub cluster_prefix: Option<OneOrPrefixes<Prefix>>,

    /// The network interface that Linux nodes use to reach each other, by its name or an alternative name. A node can
    /// override it. Without it, hostgw uses the interface that has the node's address. It does not apply to Windows nodes:
    /// hostgw uses the interface set on the node, or finds it by the node's address.
    #[schemars(example = &"eth0")]
    pub egress_interface: Option<Text>,

    /// The next hop of the routes to another node's pods: `pod-gateway`, `node-address`, or the address of a router that
    /// has routes to the pods of all nodes (a list with one per address family). A node can override it.
    #[schemars(extend("default" = "pod-gateway"), example = &"node-address", example = &"10.0.0.1")]
    pub next_hop: Option<RawNextHop>,

    /// What happens if the next hop to a node is not on the link of the egress interface.
    #[schemars(extend("default" = "refuse"))]
    pub off_link: Option<Keyword<OffLink>>,

    /// All nodes of the cluster, in any order. Every node gets a route to the pods of every other node.
    #[schemars(required, with = "Vec<RawNode>", length(min = 1))]
    pub nodes: Option<Nodes>,

    /// The address of the Kubernetes API server. Windows nodes get a host route to it through their default gateway.
    #[schemars(example = "172.30.0.11")]
    pub master_address: Option<Address>,

    /// Source NAT (masquerading) of traffic that leaves the cluster.
    pub nat: Option<RawNat>,

    /// Kernel parameters under `net.` to set on every Linux node. hostgw always enables forwarding
    /// (net.ipv4.ip_forward, and net.ipv6.conf.all.forwarding for IPv6), so leave those out.
    pub sysctls: Option<Sysctls>,

    /// Options for the routes that hostgw creates.
    pub routes: Option<RawRoutes>,

    /// Connectivity checks that `hostgw apply` runs on every Linux node, all at once, right before and after a change.
    /// If a check passes before the change and fails after it, hostgw rolls the change back. If a check already fails
    /// before the change, hostgw prints a warning and ignores it.
    #[schemars(with = "Option<Vec<RawCheck>>", length(max = 100))]
    pub checks: Option<Vec<Option<RawCheck>>>,
}

/// A node of the cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Node")]
pub(super) struct RawNode {
    /// The name of the node, as `kubectl get nodes` shows it. Must be unique, and at most 253 bytes long.
    #[schemars(required, length(min = 1, max = 253), example = "linux-1")]
    pub name: Option<Text>,

    /// The operating system of the node. It determines the default pod gateway: the first address of the pod CIDR on
    /// Linux, the second on Windows.
    #[schemars(required)]
    pub os: Option<Keyword<OperatingSystem>>,

    /// The subnet of this node's pods, inside a cluster prefix: one, or a list, of one or both address families. Pod CIDRs
    /// must not overlap. `none` is for a machine without pods, which only gets the routes to the pods
    /// of all nodes.
    #[serde(rename = "podCIDR")]
    #[schemars(
        required,
        example = "10.244.1.0/24",
        example = ["10.244.1.0/24", "fd00:244:0:1::/64"],
        example = &"none",
    )]
    pub pod_cidr: Option<PodCidrs>,

    /// The address of the node itself, outside the cluster prefix: one, or a list with one per address family. Required
    /// for Windows nodes and for `nextHop: node-address`. hostgw also uses it to detect which node it runs on.
    #[schemars(example = "172.30.0.11")]
    pub address: Option<OneOrMany<Address>>,

    /// The pod gateway, if it is not the default (the first address of the pod CIDR on Linux, the second on Windows):
    /// one, or a list with at most one in each pod CIDR.
    #[schemars(example = "10.244.1.1")]
    pub gateway: Option<OneOrPrefixes<Address>>,

    /// The next hop of the routes to this node's pods, if it is not the cluster's: `pod-gateway`, `node-address`, or the
    /// address of a router that has routes to them (a list with one per address family).
    #[schemars(example = &"10.0.0.1")]
    pub next_hop: Option<RawNextHop>,

    /// The egress interface of this node. On Windows, the alias of the interface.
    #[schemars(example = &"eth1", example = "vEthernet (Ethernet)")]
    pub egress_interface: Option<Text>,

    /// Windows only: the gateway of the node's external adapter, used to reach `masterAddress`.
    #[schemars(example = "172.30.0.1")]
    pub default_gateway: Option<Address>,

    /// The MTU in bytes for packets between this node and the others, if it is not `routes.mtu`. A route between two nodes
    /// has the smaller MTU of both. IPv6 requires at least 1280.
    #[schemars(example = 9000)]
    pub mtu: Option<Mtu>,
}

/// An MTU in bytes. IPv4 requires at least 68 (RFC 791).
type Mtu = Bounded<68, 65535>;

/// Source NAT (masquerading) of traffic that leaves the cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Nat")]
pub(super) struct RawNat {
    /// Whether to masquerade traffic that leaves the cluster prefix. If `false`, hostgw does not use nftables.
    #[schemars(extend("default" = true))]
    pub masquerade: Option<Flag>,

    /// Additional destinations, outside the cluster prefix, that see the pod's own source address.
    #[schemars(with = "Option<Vec<Prefix>>", length(max = 1000), example = ["10.96.0.0/12"])]
    pub exclude: Option<Vec<Option<Prefix>>>,

    /// The sources whose traffic is masqueraded.
    #[schemars(extend("default" = "any"))]
    pub source: Option<Keyword<NatSource>>,

    /// The source address that the traffic gets: `interface`, an address of the outgoing interface that the kernel chooses, or
    /// `node-address`, the node's own `address`, which every Linux node then needs for each address family of its pods.
    #[schemars(extend("default" = "interface"))]
    pub to: Option<Keyword<NatTo>>,

    /// Randomize source ports (nft `fully-random`). This avoids dropped packets when very many connections to one
    /// destination start at the same time.
    #[schemars(extend("default" = false))]
    pub random_fully: Option<Flag>,
}

/// Options for the routes that hostgw creates.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Routes")]
pub(super) struct RawRoutes {
    /// The routing table: `main` or a number. Table 255 is reserved for the kernel.
    #[schemars(extend("default" = "main"), example = &"main", example = 100)]
    pub table: Option<RoutingTable>,

    /// The metric of the routes. Of two routes to the same destination, the kernel prefers the lower metric. 0 means
    /// the kernel's default.
    #[schemars(extend("default" = 0))]
    pub metric: Option<Bounded<0, { u32::MAX }>>,

    /// The MTU of the routes in bytes. Defaults to the MTU of the interface. A node can override it. IPv6 requires at least
    /// 1280.
    #[schemars(example = 1450)]
    pub mtu: Option<Mtu>,

    /// Whether hostgw gives IPv4 routes a scope that depends on the gateway, because the kernel adds routes with one
    /// scope in quadratic time. The scope has no other effect. `auto`: in clusters of at least 300 nodes.
    #[schemars(extend("default" = "auto"))]
    pub spread: Option<Keyword<ScopeSpread>>,

    /// What Linux nodes do with packets for addresses in the cluster prefix that no node has: `leave` them to other
    /// routes, or reject them (`unreachable`) by a route to the cluster prefix with the highest metric. Useful with
    /// `nextHop: node-address`, where such packets would follow the default route without being masqueraded.
    #[schemars(extend("default" = "leave"))]
    pub unassigned: Option<Keyword<Unassigned>>,

    /// The source address of packets that a Linux node itself sends to pods: `auto`, an address that the kernel chooses, or
    /// `node-address`, the node's own `address`, which every Linux node then needs for each address family. It does not
    /// affect packets from pods.
    #[schemars(extend("default" = "auto"))]
    pub source: Option<Keyword<RouteSource>>,
}

impl RawNat {
    /// Whether traffic that leaves the cluster is masqueraded.
    pub fn masquerades(&self) -> bool {
        self.masquerade.as_ref().is_none_or(|flag| flag.0)
    }

    /// The new source address, or the default.
    pub fn target(&self) -> NatTo {
        self.to.as_ref().map_or_else(Default::default, |word| word.0)
    }
}

impl RawRoutes {
    /// The source, or the default.
    pub fn source(&self) -> RouteSource {
        self.source.as_ref().map_or_else(Default::default, |word| word.0)
    }
}

/// A connectivity check: either `tcp` or `neighbor`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    rename = "Check",
    extend("oneOf" = [
        { "required": ["tcp"], "properties": { "tcp": { "type": "string" } } },
        { "required": ["neighbor"], "properties": { "neighbor": { "type": "string" } } },
    ])
)]
pub(super) struct RawCheck {
    /// An address and port that must accept a TCP connection from the node. Put IPv6 addresses in brackets, and in
    /// YAML, quote the whole value. Hostnames are not supported.
    #[schemars(example = "172.30.0.1:6443", example = "[fd00::1]:6443")]
    pub tcp: Option<Endpoint>,

    /// An address that must answer ARP or IPv6 neighbor discovery on its link. Cached entries do not count.
    #[schemars(example = "172.30.0.1")]
    pub neighbor: Option<Address>,

    /// The time limit of the single attempt before the change, and of the repeated attempts after it. At most 5m. The
    /// units are ms, s, and m.
    #[schemars(extend("default" = "5s"), example = "3s")]
    pub timeout: Option<Time>,
}

/// The nodes; `None` is an invalid node that was already reported.
#[derive(Debug, Default)]
pub(super) struct Nodes(pub Vec<Option<RawNode>>);

struct NodesVisitor;

impl<'de> Visitor<'de> for NodesVisitor {
    type Value = Nodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Nodes, A::Error> {
        // Allocate once if the number is known; it never exceeds what the file contains. A list that grows while the
        // tree behind it shrinks would need memory for both.
        let mut nodes = Vec::with_capacity(list.size_hint().unwrap_or_default());
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Nodes(nodes))
    }
}

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(NodesVisitor)
    }
}

/// A single value with its type in the file.
#[derive(Debug)]
pub(super) enum Scalar {
    Text(String),
    Integer(i64),
    Flag(bool),
}

impl Scalar {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Text(text) => Unexpected::Str(text),
            Self::Integer(number) => Unexpected::Signed(*number),
            Self::Flag(flag) => Unexpected::Bool(*flag),
        }
    }

    fn reject<E: Error>(&self, expected: &str) -> E {
        E::invalid_type(self.unexpected(), &expected)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an integer, true, or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Scalar, E> {
        Ok(Scalar::Text(text))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Defines a string type with its own schema. Its content is parsed later, so that all errors are reported at once.
macro_rules! strings {
    ($($(#[$meta:meta])* $name:ident: $schema:tt,)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name(pub Box<str>);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Scalar::deserialize(deserializer)? {
                    Scalar::Text(text) => Ok(Self(text.into())),
                    other => Err(other.reject("a string")),
                }
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

/// The regular expression for a prefix in the schema.
pub(super) const PREFIX_PATTERN: &str = "^[0-9A-Fa-f:.]+/[0-9]{1,3}$";
/// The regular expression for an address in the schema.
pub(super) const ADDRESS_PATTERN: &str = "^[0-9A-Fa-f:.]+$";

strings! {
    /// Any string.
    Text: { "type": "string" },
    /// An address and a prefix length.
    Prefix: { "type": "string", "pattern": PREFIX_PATTERN },
    /// An IP address.
    Address: { "type": "string", "pattern": ADDRESS_PATTERN },
    /// An address and a port.
    Endpoint: { "type": "string", "pattern": "^([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$" },
    /// A number with a unit of time.
    Time: { "type": "string", "pattern": "^[0-9]+(ms|s|m)$" },
}

/// `true` or `false`.
#[derive(Debug, JsonSchema)]
#[schemars(inline)]
pub(super) struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Flag(flag) => Ok(Self(flag)),
            other => Err(other.reject("true or false")),
        }
    }
}

/// An integer from `MIN` to `MAX`.
#[derive(Debug)]
pub(super) struct Bounded<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Bounded<MIN, MAX> {
    fn new(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(deserializer)?;
        let number = if let Scalar::Integer(number) = scalar { Self::new(number) } else { None };
        number.ok_or_else(|| scalar.reject(&format!("an integer from {MIN} to {MAX}")))
    }
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Bounded<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("From{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A value of an enumeration.
#[derive(Debug)]
pub(super) struct Keyword<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyword<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => T::deserialize(text.into_deserializer()).map(Self),
            other => Err(other.reject("a word")),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Keyword<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// `main` or the number of a routing table.
#[derive(Debug)]
pub(super) enum RoutingTable {
    Main,
    Number(u32),
}

impl<'de> Deserialize<'de> for RoutingTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(deserializer)?;
        let table = match &scalar {
            Scalar::Text(text) if text == "main" => Some(Self::Main),
            Scalar::Integer(number) => {
                Bounded::<1, { u32::MAX }>::new(*number).map(|Bounded(number)| Self::Number(number))
            }
            _ => None,
        };
        table.ok_or_else(|| scalar.reject("main or the number of a routing table"))
    }
}

impl JsonSchema for RoutingTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RoutingTable".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "const": "main" },
                { "type": "integer", "minimum": 1, "maximum": u32::MAX, "not": { "const": 255 } },
            ],
        })
    }
}

/// One value, or a list of up to `MAX` values: by default one for each address family.
#[derive(Debug)]
pub(super) enum OneOrMany<T, const MAX: usize = 2> {
    One(T),
    /// `None` is an invalid value that was already reported.
    Many(Box<[Option<T>]>),
}

/// One value, or a list of as many as a [`PrefixList`] may have.
pub(super) type OneOrPrefixes<T> = OneOrMany<T, { PrefixList::<IpNet>::MAX }>;

impl<T, const MAX: usize> OneOrMany<T, MAX> {
    /// The values, each with its index if they are in a list.
    pub fn iter(&self) -> impl Iterator<Item = (Option<usize>, Option<&T>)> {
        let (one, many) = match self {
            Self::One(value) => (Some((None, Some(value))), &[][..]),
            Self::Many(values) => (None, &**values),
        };
        one.into_iter().chain(many.iter().enumerate().map(|(at, value)| (Some(at), value.as_ref())))
    }
}

struct OneOrManyVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for OneOrManyVisitor<T, MAX> {
    type Value = OneOrMany<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values.into()))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for OneOrMany<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(std::marker::PhantomData))
    }
}

impl<T: JsonSchema, const MAX: usize> JsonSchema for OneOrMany<T, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrUpTo{MAX}{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": MAX }] })
    }
}

/// `none`, or the pod CIDRs of a node.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct PodCidrs(pub OneOrPrefixes<Prefix>);

impl PodCidrs {
    /// The value for a machine without pods.
    pub const NONE: &str = "none";

    /// Returns `true` if the machine has no pods.
    pub fn is_none(&self) -> bool {
        matches!(&self.0, OneOrMany::One(word) if *word.0 == *Self::NONE)
    }
}

impl JsonSchema for PodCidrs {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PodCidrs".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = OneOrPrefixes::<Prefix>::json_schema(generator);
        if let Some(serde_json::Value::Array(branches)) = schema.get_mut("anyOf") {
            branches.push(serde_json::json!({ "type": "string", "const": Self::NONE }));
        }
        schema
    }
}

/// `pod-gateway`, `node-address`, or the addresses of routers.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct RawNextHop(pub OneOrMany<Text>);

impl JsonSchema for RawNextHop {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NextHop".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = OneOrMany::<Address>::json_schema(generator);
        let modes = generator.subschema_for::<NextHopMode>();
        if let Some(serde_json::Value::Array(branches)) = schema.get_mut("anyOf") {
            branches.insert(0, modes.into());
        }
        schema
    }
}

/// Keys and values in the order of the file, without duplicates.
#[derive(Debug, Default)]
pub(super) struct Sysctls(pub Vec<(String, Option<SysctlValue>)>);

/// The value of a sysctl as text.
#[derive(Debug)]
pub(super) struct SysctlValue(pub String);

impl<'de> Deserialize<'de> for SysctlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Self(text)),
            Scalar::Integer(number) => Ok(Self(number.to_string())),
            other @ Scalar::Flag(_) => Err(other.reject("an integer or a string")),
        }
    }
}

struct SysctlsVisitor;

impl<'de> Visitor<'de> for SysctlsVisitor {
    type Value = Sysctls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sysctls and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sysctls, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, _>()? {
            if !seen.insert(key.clone()) {
                return Err(Error::custom(format_args!("duplicate key {key:?}")));
            }
            entries.push((key, value));
        }
        Ok(Sysctls(entries))
    }
}

impl<'de> Deserialize<'de> for Sysctls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SysctlsVisitor)
    }
}

impl JsonSchema for Sysctls {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Sysctls".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^net[./]" },
            "maxProperties": 1000,
            "additionalProperties": {
                "description": "The value, as `sysctl` prints it.",
                "type": ["integer", "string"],
            },
            "examples": [{ "net.ipv4.conf.all.rp_filter": 2 }],
        })
    }
}
