//! The file format as serde types: what a file may look like, before anything is checked.
//!
//! Descriptions here become those of the JSON Schema, which editors show: they are written for the
//! people who write the files. Every field is an `Option`, so that a file can be read on after a mistake
//! in one of them; which keys must be there, the schema says. Values are taken by [`Scalar`], because
//! serde_yaml on its own would take `name: 1234` for a string and TOML would not.

use std::{borrow::Cow, collections::HashSet, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
};

use crate::model::{NatSource, NextHop, OperatingSystem};

/// The cluster of one hostgw file (hostgw.yaml, hostgw.yml or hostgw.toml): every node of it, and
/// what hostgw puts on them. The same file serves every node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "hostgw configuration")]
pub(super) struct RawConfig {
    /// Version of the file format. This hostgw knows version 1.
    #[schemars(extend("enum" = [1, null], "default" = 1))]
    pub version: Option<Bounded<0, { u32::MAX }>>,

    /// The prefix that holds the pod CIDRs of all nodes: one, or a list with one per address family.
    /// Traffic inside it keeps its source address; traffic that leaves it is masqueraded.
    #[schemars(required, example = "10.244.0.0/16", example = ["10.244.0.0/16", "fd00:244::/48"])]
    pub cluster_prefix: Option<OneOrMany<Prefix>>,

    /// The network interface by which Linux nodes reach each other. A node may override it. Windows nodes
    /// do not take it: theirs is their own key, or is found on the node from its address.
    #[schemars(example = &"eth0")]
    pub egress_interface: Option<Text>,

    /// What the routes to another node's pods go by.
    #[schemars(extend("default" = "pod-gateway"))]
    pub next_hop: Option<Word<NextHop>>,

    /// Every node of the cluster, in any order. Each gets a route to the pods of each other.
    #[schemars(required, with = "Vec<RawNode>", length(min = 1))]
    pub nodes: Option<Nodes>,

    /// The address of the Kubernetes API server. Windows nodes get a host route to it by their default
    /// gateway.
    #[schemars(example = "172.30.0.11")]
    pub master_address: Option<Address>,

    /// Which traffic of pods gets the node's address as its source (masquerading).
    pub nat: Option<RawNat>,

    /// Kernel parameters below `net.` to set on every Linux node, in addition to the forwarding switches
    /// that hostgw sets anyway (net.ipv4.ip_forward, and net.ipv6.conf.all.forwarding for IPv6).
    pub sysctls: Option<Sysctls>,

    /// Knobs of the routes that hostgw writes.
    pub routes: Option<RawRoutes>,

    /// What must answer before and after a change, of every Linux node: `hostgw apply` tries all of them
    /// at once, just before the change and after it. One that answered before and does not answer after
    /// is a reason to put everything back. One that does not answer before is warned of, and does not
    /// count.
    #[schemars(with = "Option<Vec<RawCheck>>", length(max = 100))]
    pub checks: Option<Vec<Option<RawCheck>>>,
}

/// A machine of the cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Node")]
pub(super) struct RawNode {
    /// The node's name, as `kubectl get nodes` shows it: at most 253 bytes. No two nodes share one.
    #[schemars(required, length(min = 1, max = 253), example = "linux-1")]
    pub name: Option<Text>,

    /// The node's operating system. The pod gateway depends on it: the first address of the pod CIDR on
    /// Linux, the second on Windows.
    #[schemars(required)]
    pub os: Option<Word<OperatingSystem>>,

    /// The subnet of this node's pods, inside the cluster prefix: one, or a list with one per address
    /// family. No two nodes may overlap.
    #[serde(rename = "podCIDR")]
    #[schemars(required, example = "10.244.1.0/24", example = ["10.244.1.0/24", "fd00:244:0:1::/64"])]
    pub pod_cidr: Option<OneOrMany<Prefix>>,

    /// The node's own address, outside the cluster prefix: one, or a list with one per address family.
    /// Windows nodes and `nextHop: node-address` need it, and hostgw recognises by it which node it runs
    /// on.
    #[schemars(example = "172.30.0.11")]
    pub address: Option<OneOrMany<Address>>,

    /// The pod gateway, if it is not the one that follows from the pod CIDR (the first address on Linux,
    /// the second on Windows): one, or a list with one per address family.
    #[schemars(example = "10.244.1.1")]
    pub gateway: Option<OneOrMany<Address>>,

    /// The network interface of this node alone. On Windows, the interface's alias.
    #[schemars(example = &"eth1", example = "vEthernet (Ethernet)")]
    pub egress_interface: Option<Text>,

    /// On Windows: the real gateway of the node's external adapter, by which it reaches `masterAddress`.
    #[schemars(example = "172.30.0.1")]
    pub default_gateway: Option<Address>,
}

/// Which traffic gets the node's address as its source.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Nat")]
pub(super) struct RawNat {
    /// Whether traffic that leaves the cluster prefix is masqueraded at all. `false` keeps hostgw out of
    /// nftables.
    #[schemars(extend("default" = true))]
    pub masquerade: Option<Flag>,

    /// Further destinations, outside the cluster prefix, where pods keep their own source address.
    #[schemars(with = "Option<Vec<Prefix>>", length(max = 1000), example = ["10.96.0.0/12"])]
    pub exclude: Option<Vec<Option<Prefix>>>,

    /// Whose traffic is masqueraded.
    #[schemars(extend("default" = "any"))]
    pub source: Option<Word<NatSource>>,

    /// Map source ports at random (nft `fully-random`), which avoids lost packets when very many
    /// connections to one destination begin at once.
    #[schemars(extend("default" = false))]
    pub random_fully: Option<Flag>,
}

/// Knobs of the routes that hostgw writes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Routes")]
pub(super) struct RawRoutes {
    /// The routing table: `main`, or the number of another. 255 is the kernel's own.
    #[schemars(extend("default" = "main"), example = &"main", example = 100)]
    pub table: Option<Table>,

    /// The metric of the routes: of two routes to one destination the smaller wins. 0 leaves it to the
    /// kernel.
    #[schemars(extend("default" = 0))]
    pub metric: Option<Bounded<0, { u32::MAX }>>,

    /// The MTU of the routes in bytes; without it, that of the interface. IPv6 needs at least 1280.
    #[schemars(example = 1450)]
    pub mtu: Option<Bounded<68, 65535>>,
}

/// Something that must answer before and after a change: `tcp` or `neighbour`, one of the two.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    rename = "Check",
    extend("oneOf" = [
        { "required": ["tcp"], "properties": { "tcp": { "type": "string" } } },
        { "required": ["neighbour"], "properties": { "neighbour": { "type": "string" } } },
    ])
)]
pub(super) struct RawCheck {
    /// An address and a port that accept a TCP connection from the node. An IPv6 address stands in
    /// brackets, and in YAML the whole in quotes. Host names are not looked up.
    #[schemars(example = "172.30.0.1:6443", example = "[fd00::1]:6443")]
    pub tcp: Option<Endpoint>,

    /// An address that answers on its link, asked afresh by ARP or neighbour discovery.
    #[schemars(example = "172.30.0.1")]
    pub neighbour: Option<Address>,

    /// How long the one try before the change may take, and how long it is tried again after it: at most
    /// 5m. Units are ms, s and m.
    #[schemars(extend("default" = "5s"), example = "3s")]
    pub timeout: Option<Time>,
}

/// The nodes; `None` stands for one that was wrong and is reported elsewhere.
#[derive(Debug, Default)]
pub(super) struct Nodes(pub Vec<Option<RawNode>>);

struct NodesVisitor;

impl<'de> Visitor<'de> for NodesVisitor {
    type Value = Nodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Nodes, A::Error> {
        // Room for all of them at once, where their number is known: it is never more than the file holds, and a list
        // that grows while the tree behind it shrinks takes the memory of both.
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

/// A single value as the file has it, with its type.
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

    fn refuse<E: Error>(&self, expected: &str) -> E {
        E::invalid_type(self.unexpected(), &expected)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, true or false")
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

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        match number.try_into() {
            Ok(number) => Ok(Scalar::Integer(number)),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
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

/// Defines a string with a schema of its own. What it means is parsed later, so that all mistakes can
/// be told at once.
macro_rules! strings {
    ($($(#[$meta:meta])* $name:ident: $schema:tt,)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name(pub String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Scalar::deserialize(deserializer)? {
                    Scalar::Text(text) => Ok(Self(text)),
                    other => Err(other.refuse("a string")),
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

strings! {
    /// Any string.
    Text: { "type": "string" },
    /// An address with a prefix length.
    Prefix: { "type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$" },
    /// An address.
    Address: { "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" },
    /// An address and a port.
    Endpoint: { "type": "string", "pattern": "^([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$" },
    /// A span of time with its unit.
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
            other => Err(other.refuse("true or false")),
        }
    }
}

/// A whole number from `MIN` to `MAX`.
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
        number.ok_or_else(|| scalar.refuse(&format!("a whole number from {MIN} to {MAX}")))
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

/// One of the words of an enumeration.
#[derive(Debug)]
pub(super) struct Word<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => T::deserialize(text.into_deserializer()).map(Self),
            other => Err(other.refuse("a word")),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Word<T> {
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

/// `main`, or the number of a routing table.
#[derive(Debug)]
pub(super) enum Table {
    Main,
    Number(u32),
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(deserializer)?;
        let table = match &scalar {
            Scalar::Text(text) if text == "main" => Some(Self::Main),
            Scalar::Integer(number) => {
                Bounded::<1, { u32::MAX }>::new(*number).map(|Bounded(number)| Self::Number(number))
            }
            _ => None,
        };
        table.ok_or_else(|| scalar.refuse("main or the number of a routing table"))
    }
}

impl JsonSchema for Table {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Table".into()
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

/// One value, or a list of values.
#[derive(Debug)]
pub(super) enum OneOrMany<T> {
    One(T),
    /// `None` stands for a value that was wrong and is reported elsewhere.
    Many(Vec<Option<T>>),
}

impl<T> OneOrMany<T> {
    /// The values, each with its index when they stand in a list.
    pub fn iter(&self) -> impl Iterator<Item = (Option<usize>, Option<&T>)> {
        let (one, many) = match self {
            Self::One(value) => (Some((None, Some(value))), &[][..]),
            Self::Many(values) => (None, values.as_slice()),
        };
        one.into_iter().chain(many.iter().enumerate().map(|(at, value)| (Some(at), value.as_ref())))
    }
}

struct OneOrManyVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

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
        Ok(OneOrMany::Many(values))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": 2 }] })
    }
}

/// Keys and values in the order of the file, no key twice.
#[derive(Debug, Default)]
pub(super) struct Sysctls(pub Vec<(String, Option<SysctlValue>)>);

/// What a sysctl is set to, as text.
#[derive(Debug)]
pub(super) struct SysctlValue(pub String);

impl<'de> Deserialize<'de> for SysctlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Self(text)),
            Scalar::Integer(number) => Ok(Self(number.to_string())),
            other @ Scalar::Flag(_) => Err(other.refuse("a whole number or a string")),
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
                return Err(Error::custom(format_args!("duplicate key {key}")));
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
