//! The state of a node: one type for the desired and the live state.
//!
//! Objects print as the kernel's own tools do: a [`Route`] as in `ip route`, a [`NatTable`] as the arguments of
//! `nft add`, and sysctls as in `sysctl`.

mod firewall;
mod host;
mod kind;
mod nat;
mod network_plugin;
mod policy_rule;
mod route;
mod route_list;
mod windows;
mod word;

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

use crate::{
    model::{Family, SysctlKey},
    text::Untrusted,
};

pub use firewall::{
    Firewall, FirewallChain, FirewallRule, KeyRange, LowerChain, MatchedChains, Operator, PacketHeader,
    PacketPart, RuleVerdict, TableFamily, Term, TypeSet,
};
pub use host::{
    AddressFlag, Hardware, Host, InterfaceAddress, Link, NeighborEntry, PacketProgram, PacketProgramKind,
};
pub use kind::ObjectKind;
pub use nat::{
    BaseChain, ChainPolicy, ChainType, Expression, Field, Hook, NatChain, NatObject, NatPlaceholders,
    NatRule, NatTable, RuleBody, Tables,
};
pub use network_plugin::{PLUGIN_CHAINS, PLUGIN_INTERFACES, PLUGIN_PROTOCOLS};
pub use policy_rule::{Mark, PolicyRule, RuleAction, RuleSelector, table_name};
pub use route::{
    LOCAL_TABLE, NextHop, OpaqueRoute, Route, RouteKey, RouteScope, RouteType, Spread, protocol,
};
pub use route_list::RouteList;
pub use windows::{Forwarding, Role, WindowsRoute, WindowsState};
pub use word::{Column, Word, join_words};

/// The routes, NAT tables and sysctls of a node, desired or observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The routes, sorted by key. Routes with the same key are in the kernel's order: packets use the first one.
    pub routes: RouteList,
    /// The tables named `hostgw`.
    pub nat: Tables,
    /// The value of each key. In an observed state, keys that the kernel does not have are absent.
    #[serde(deserialize_with = "sorted_map")]
    pub sysctls: BTreeMap<SysctlKey, Untrusted>,
    /// The parts that could not be read, and about which nothing is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

impl State {
    /// Returns the interface of the routes, if there is one. Routes that reject packets have none.
    #[must_use]
    pub fn device(&self) -> Option<&Untrusted> {
        let forwards = |route: &&Route| route.kind == RouteType::Unicast;
        self.routes.iter().filter(forwards).find_map(|route| route.next_hop.device.as_ref())
    }

    /// Returns `true` if the NAT table of `family` could not be read.
    #[must_use]
    pub fn nat_unknown(&self, family: Family) -> bool {
        self.nat_unknowns().any(|unknown| unknown.part == StatePart::Nat { family })
    }

    /// Iterates over the NAT tables that could not be read.
    pub fn nat_unknowns(&self) -> impl Iterator<Item = &Unknown> {
        self.unknown.iter().filter(|unknown| matches!(unknown.part, StatePart::Nat { .. }))
    }
}

/// Deserializes a map. Its entries are sorted in almost all files, so building it at the end is faster than inserting them one by
/// one. Of several entries with the same key, the last one counts.
///
/// # Errors
/// Returns an error if an entry is invalid.
pub fn sorted_map<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Entries<K, V>(PhantomData<(K, V)>);
    impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
        type Value = Vec<(K, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    Ok(deserializer.deserialize_map(Entries(PhantomData))?.into_iter().collect())
}

/// Returns the hint that makes all these parts readable. Root reads everything; with `CAP_NET_ADMIN` alone, root's
/// records stay unreadable.
#[must_use]
pub fn remedy_for(unknown: &[Unknown]) -> Option<&Untrusted> {
    let records = unknown.iter().find(|unknown| unknown.part == StatePart::Records);
    records.or_else(|| unknown.first()).and_then(|unknown| unknown.remedy.as_ref())
}

/// A part of the live state that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// The part of the live state.
    pub part: StatePart,
    /// The reason, as a sentence fragment ("reading nf_tables requires CAP_NET_ADMIN").
    pub reason: Untrusted,
    /// How to make the part readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Untrusted>,
}

/// A part of the state that can be unknown independently of others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum StatePart {
    /// The NAT table of one family.
    Nat {
        /// The family.
        family: Family,
    },
    /// A sysctl.
    Sysctl {
        /// The key.
        key: SysctlKey,
    },
    /// The records of hostgw: original sysctl values, the last apply, or the journal.
    Records,
}

impl fmt::Display for StatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat { family } => write!(f, "table {} {}", family.nft(), nat::TABLE_NAME),
            Self::Sysctl { key } => key.fmt(f),
            Self::Records => f.write_str("hostgw's records"),
        }
    }
}

/// Whether serde leaves out a number that is usually zero.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
