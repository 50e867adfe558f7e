//! The one idea: `plan(desired, observed) -> Plan`, pure.
//!
//! [`desired()`] makes the desired state of a node from the configuration, [`plan()`] compares it with an
//! observed state, [`check()`] finds what would make the plan fail on this node, [`reason()`] says why each
//! change is there. [`compare()`] does it for all nodes of two files at once.

pub mod check;
pub mod compare;
pub mod desired;
pub mod diff;
mod facts;
pub mod foreign;
mod identify;
mod lookup;
mod prepare;
pub mod reason;
mod scope;
mod switch;
pub mod windows;

pub use check::check;
pub use compare::{Comparison, ComparisonTotals, PreviousConfig, compare};
pub use desired::{Desired, NotLinux, OriginalSysctls, OriginalValue, desired};
pub use diff::{
    Action, Change, Conflict, ForeignPolicy, NatChange, Plan, RouteChange, Step, SysctlChange, Totals,
    in_order_of_writing, plan, removed_routes,
};
pub use facts::Facts;
pub use foreign::{ForeignSysctl, ForeignSysctlPolicy, Restoration, SysctlValues, TransactionProgress};
pub use identify::{identify, node_named};
pub use lookup::{LookupChange, lookup_change};
pub use prepare::{Observe, Prepared, prepare, prepare_removal};
pub use reason::{PreviousApply, Reason, reason};
pub use scope::{Observed, Scope};
pub use switch::{after, side_effects};
pub use windows::{WindowsDesired, WindowsOrigin, windows_desired};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Family, SysctlKey},
    state::{RouteKey, State},
};

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
            *part.nat.get_mut(family) = state.nat.get(family).cloned();
        }
        for key in &self.sysctls {
            if let Some(value) = state.sysctls.get(key) {
                part.sysctls.insert(key.clone(), value.clone());
            }
        }
        part
    }
}
