//! The one idea: `plan(desired, observed) -> Plan`, pure.
//!
//! [`desired()`] makes the desired state of a node from the configuration, [`plan()`] compares it with an
//! observed state, [`check()`] finds what would make the plan fail on this node, [`explain()`] says why each
//! change is there.

pub mod check;
pub mod desired;
pub mod diff;
pub mod explain;
mod identify;
mod switch;
mod way;

pub use check::{Problem, check};
pub use desired::{Desired, NotLinux, Saved, SavedValue, desired};
pub use diff::{
    Action, Change, Conflict, NatChange, Plan, Policy, RouteChange, Step, SysctlChange, Totals, plan,
};
pub use explain::{Reason, explain};
pub use identify::{identify, node_named};
pub use switch::{is_switch, rewritten_on, side_effects};
pub use way::{WayChange, way_change};

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    model::Family,
    state::{Host, Route, RouteKey, State, SysctlKey},
};

/// A node as it was read: its state, and the surroundings a plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Routes, NAT and sysctls.
    pub state: State,
    /// Interfaces, addresses, foreign routes.
    pub host: Host,
}

/// What an observation has to look at, besides what is hostgw's by its mark.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Routes on these keys are read whoever owns them. Sorted.
    pub keys: Vec<RouteKey>,
    /// Foreign routes that touch these prefixes are reported with the host.
    pub prefixes: Vec<IpNet>,
    /// These sysctls are read. For a forwarding switch, what it rewrites is read too.
    pub sysctls: BTreeSet<SysctlKey>,
}

impl Scope {
    /// What must be seen to bring a node to `desired`.
    #[must_use]
    pub fn of(desired: &State, prefixes: Vec<IpNet>) -> Self {
        Self {
            keys: desired.routes.iter().map(Route::key).collect(),
            prefixes,
            sysctls: desired.sysctls.keys().cloned().collect(),
        }
    }

    /// What must be seen to put back everything that a plan touches.
    #[must_use]
    pub fn of_touched(touched: &Touched) -> Self {
        Self {
            keys: touched.routes.clone(),
            prefixes: Vec::new(),
            sysctls: touched.sysctls.iter().cloned().collect(),
        }
    }

    /// Whether routes on `key` are to be read whoever owns them.
    #[must_use]
    pub fn wants(&self, key: &RouteKey) -> bool {
        self.keys.binary_search(key).is_ok()
    }
}

/// The places that a plan changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Touched {
    /// Keys of routes, sorted.
    pub routes: Vec<RouteKey>,
    /// Families whose NAT table changes.
    pub nat: Vec<Family>,
    /// Sysctls that are written, and those that the kernel rewrites with them. Sorted.
    pub sysctls: Vec<SysctlKey>,
}

impl Touched {
    /// The places that `plan` changes, on a node where `observed` stands.
    #[must_use]
    pub fn by(plan: &Plan, observed: &State) -> Self {
        let mut touched = Self::default();
        let mut sysctls = BTreeSet::new();
        for change in &plan.changes {
            match change {
                Change::Route(route) => touched.routes.push(route.key),
                Change::Nat(nat) => touched.nat.push(nat.family),
                Change::Sysctl(sysctl) => {
                    sysctls.extend(side_effects(&sysctl.key, observed.sysctls.keys()).cloned());
                    sysctls.insert(sysctl.key.clone());
                }
            }
        }
        touched.routes.sort_unstable();
        touched.sysctls = sysctls.into_iter().collect();
        touched
    }

    /// The part of `state` that stands in these places.
    #[must_use]
    pub fn part_of(&self, state: &State) -> State {
        let mut part = State {
            routes: state
                .routes
                .iter()
                .filter(|route| self.routes.binary_search(&route.key()).is_ok())
                .cloned()
                .collect(),
            unknown: state.unknown.clone(),
            ..State::default()
        };
        for &family in &self.nat {
            *part.nat.slot(family) = state.nat.get(family).cloned();
        }
        for key in &self.sysctls {
            if let Some(value) = state.sysctls.get(key) {
                part.sysctls.insert(key.clone(), value.clone());
            }
        }
        part
    }
}
