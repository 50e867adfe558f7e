//! The facts that a plan depends on. They include everything that makes a plan stale when it changes, and nothing that
//! other programs may change elsewhere on the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Desired, Observed};
use crate::{
    model::{Family, Node, SysctlKey},
    state::{NatTable, Route, RouteList, Tables},
    text::Untrusted,
};

/// The part of a node's live state that a plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// The addresses of the configured node that this machine has: a plan for one node fits no other.
    pub addresses: Vec<IpAddr>,
    /// Managed routes, and every route at a key that the plan needs.
    pub routes: RouteList,
    /// The NAT tables of hostgw.
    pub nat: Tables,
    /// The live values of the desired sysctls, except those that the kernel does not have.
    pub sysctls: BTreeMap<SysctlKey, Untrusted>,
    /// The values that hostgw restores because the configuration no longer sets these sysctls.
    pub restored_sysctls: BTreeMap<SysctlKey, Untrusted>,
}

impl Facts {
    /// Returns the facts that a plan from `observed` to `desired` for `node` depends on.
    #[must_use]
    pub fn of(node: &Node, desired: &Desired, observed: &Observed) -> Self {
        let addresses = node.addresses.iter().map(|(_, address)| *address);
        let wanted = &desired.state.sysctls;
        let select = |is_selected: &dyn Fn(&SysctlKey) -> bool, values: &BTreeMap<SysctlKey, Untrusted>| {
            let selected = values.iter().filter(|(key, _)| is_selected(key));
            selected.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self {
            addresses: addresses.filter(|address| observed.host.owner_of(*address).is_some()).collect(),
            routes: observed.state.routes.clone(),
            nat: observed.state.nat.clone(),
            sysctls: select(&|key| wanted.contains_key(key), &observed.state.sysctls),
            restored_sysctls: select(&|key| desired.released.contains(key), wanted),
        }
    }

    /// Returns what was removed and added since these facts were taken, one line each.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let (then, now) = (self.lines(), now.lines());
        let removed = then.difference(&now).map(|line| format!("- {line}"));
        removed.chain(now.difference(&then).map(|line| format!("+ {line}"))).collect()
    }

    fn lines(&self) -> BTreeSet<String> {
        let tables = Family::ALL.into_iter().filter_map(|family| self.nat.get(family));
        let nat = tables.flat_map(NatTable::objects).map(|object| object.to_string());
        let sysctls = self.sysctls.iter().map(|(key, value)| format!("{key} = {value}"));
        let released =
            self.restored_sysctls.iter().map(|(key, value)| format!("{key} was {value} before hostgw"));
        let addresses = self.addresses.iter().map(|address| format!("address {address} of the node"));
        addresses
            .chain(self.routes.iter().map(Route::to_string))
            .chain(nat)
            .chain(sysctls)
            .chain(released)
            .collect()
    }
}
