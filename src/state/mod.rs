//! What a node holds, or shall hold: one type for the desired and for the observed state.
//!
//! Everything prints in the words of the kernel's own tools: [`Route`] as `ip route`, [`NatTable`] as
//! the arguments of `nft add`, sysctls as `sysctl`.

mod host;
mod kind;
mod nat;
mod route;
mod windows;
mod word;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Family, SysctlKey},
    text::Untrusted,
};

pub use host::{Host, InterfaceAddress, Link};
pub use kind::ObjectKind;
pub use nat::{
    BaseChain, ChainPolicy, ChainType, Expression, Field, Hook, NatChain, NatObject, NatRule, NatTable,
    RuleBody, Tables,
};
pub use route::{NextHop, OpaqueRoute, Route, RouteKey, RouteScope, RouteType, protocol};
pub use windows::{Forwarding, Role, WindowsRoute, WindowsState};
pub use word::{Column, Word, join_words};

/// Routes, NAT and sysctls of one node, desired or observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Sorted by key. Several routes of one key stand in the kernel's order: the first is in force.
    pub routes: Vec<Route>,
    /// The tables named `hostgw`, at most one per family. A family that is absent has no such table.
    pub nat: Tables,
    /// Value by key. Desired: what shall stand. Observed: what stands; a key that the kernel does not
    /// have is absent.
    pub sysctls: BTreeMap<SysctlKey, Untrusted>,
    /// What could not be read. Nothing may be concluded about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

impl State {
    /// Whether the NAT table of `family` could not be read.
    #[must_use]
    pub fn nat_unknown(&self, family: Family) -> bool {
        self.nat_unknowns().any(|unknown| unknown.what == StatePart::Nat { family })
    }

    /// The NAT tables that could not be read.
    pub fn nat_unknowns(&self) -> impl Iterator<Item = &Unknown> {
        self.unknown.iter().filter(|unknown| matches!(unknown.what, StatePart::Nat { .. }))
    }
}

/// A part of the live state that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// Which part.
    pub what: StatePart,
    /// Why, as a sentence fragment ("reading nf_tables requires CAP_NET_ADMIN").
    pub why: Untrusted,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Untrusted>,
}

/// A part of the state that can be unknown on its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum StatePart {
    /// The NAT table of one family.
    Nat {
        /// Which family's.
        family: Family,
    },
    /// One sysctl.
    Sysctl {
        /// Its key.
        key: SysctlKey,
    },
    /// What hostgw keeps on disk: the values that sysctls had before, the last apply, an open journal.
    Records,
}

impl std::fmt::Display for StatePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nat { family } => write!(f, "table {} {}", family.nft(), nat::TABLE_NAME),
            Self::Sysctl { key } => key.fmt(f),
            Self::Records => f.write_str("hostgw's records"),
        }
    }
}
