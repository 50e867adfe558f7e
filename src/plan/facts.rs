//! What a plan rests on: no less, so that a plan that fits no longer is found out, and no more, so that what
//! others do elsewhere on the node does not matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Desired, Observed};
use crate::{
    model::{Family, Node, SysctlKey},
    state::{NatTable, Route, Tables},
    text::Untrusted,
};

/// The part of a node that a plan was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The node's addresses that the machine has: a plan for one node fits no other.
    pub addresses: Vec<IpAddr>,
    /// hostgw's routes, and whatever stands where hostgw wants one.
    pub routes: Vec<Route>,
    /// hostgw's NAT tables.
    pub nat: Tables,
    /// The sysctls that are to have a value; those that the kernel does not have are absent.
    pub sysctls: BTreeMap<SysctlKey, Untrusted>,
    /// The values that sysctls go back to, by what hostgw keeps of the time before it.
    pub released: BTreeMap<SysctlKey, Untrusted>,
}

impl Facts {
    /// What a plan to bring `node` to `desired` rests on, on a machine where `observed` stands.
    #[must_use]
    pub fn of(node: &Node, desired: &Desired, observed: &Observed) -> Self {
        let addresses = node.addresses.iter().map(|(_, address)| *address);
        let wanted = &desired.state.sysctls;
        let with = |keep: &dyn Fn(&SysctlKey) -> bool, values: &BTreeMap<SysctlKey, Untrusted>| {
            let kept = values.iter().filter(|(key, _)| keep(key));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self {
            addresses: addresses.filter(|address| observed.host.owner_of(*address).is_some()).collect(),
            routes: observed.state.routes.clone(),
            nat: observed.state.nat.clone(),
            sysctls: with(&|key| wanted.contains_key(key), &observed.state.sysctls),
            released: with(&|key| desired.released.contains(key), wanted),
        }
    }

    /// What went since these facts, and what came, one line each.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let (then, now) = (self.lines(), now.lines());
        let gone = then.difference(&now).map(|line| format!("- {line}"));
        gone.chain(now.difference(&then).map(|line| format!("+ {line}"))).collect()
    }

    fn lines(&self) -> BTreeSet<String> {
        let tables = Family::ALL.into_iter().filter_map(|family| self.nat.get(family));
        let nat = tables.flat_map(NatTable::objects).map(|object| object.to_string());
        let sysctls = self.sysctls.iter().map(|(key, value)| format!("{key} = {value}"));
        let released = self.released.iter().map(|(key, value)| format!("{key} was {value} before hostgw"));
        let addresses = self.addresses.iter().map(|address| format!("address {address} of the node"));
        addresses
            .chain(self.routes.iter().map(Route::to_string))
            .chain(nat)
            .chain(sysctls)
            .chain(released)
            .collect()
    }
}
