//! The central idea of hostgw, as a pure function: `plan(desired, observed) -> Plan`.
//!
//! [`desired()`] computes the desired state of a node from the configuration, [`plan()`] compares it with an observed
//! state, [`check()`] finds problems that would make the plan fail on this node, and [`reason()`] explains each change.
//! [`compare()`] does this for all nodes of two configurations at once.

pub mod check;
pub mod compare;
pub mod desired;
pub mod diff;
mod egress;
mod facts;
pub mod foreign;
mod identify;
mod lookup;
mod object;
mod off_link;
mod paths;
mod prepare;
pub mod reason;
mod scope;
mod switch;
pub mod windows;

pub use check::check;
pub use compare::{Comparison, ComparisonTotals, PreviousConfig, compare};
pub use desired::{
    Desired, NotLinux, OriginalSysctls, OriginalValue, Sender, desired, desired_routes, routes_to_all,
};
pub use diff::{
    Action, Change, Conflict, ForeignPolicy, NatChange, Plan, RouteChange, Step, SysctlChange, Totals,
    in_write_order, plan, removed_routes,
};
pub use egress::find_egress;
pub use facts::Facts;
pub use foreign::{ForeignSysctl, ForeignSysctlPolicy, Restoration, SysctlValues, TransactionProgress};
pub use identify::{MachineSource, identify, node_named};
pub use lookup::{LookupChange, kept_routes, lookup_change};
pub use object::ObjectKey;
pub use paths::{path_faults, paths};
pub use prepare::{Observe, Prepared, prepare, prepare_removal};
pub use reason::{PreviousApply, Reason, reason};
pub use scope::{Observed, Scope};
pub use switch::{after, side_effects};
pub use windows::{WindowsDesired, WindowsOrigin, windows_desired};

use std::collections::BTreeSet;

use crate::{
    model::{Family, SysctlKey},
    state::{RouteKey, State},
};

/// The keys of the objects that a plan changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// The keys of the routes, sorted.
    pub routes: Vec<RouteKey>,
    /// The families whose NAT table changes.
    pub nat: Vec<Family>,
    /// The sysctls that are written, and those that the kernel overwrites because of them; sorted.
    pub sysctls: Vec<SysctlKey>,
}

impl Touched {
    /// Returns the keys of the objects that `plan` changes on a node with the state `observed`.
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

    /// Returns the part of `state` with these keys.
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
