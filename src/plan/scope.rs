//! The part of a node's live state that a plan depends on.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Touched, switch};
use crate::{
    forwarding::{self, outside_address},
    model::{Cluster, Family, MAIN_TABLE, OffLink, SysctlKey},
    state::{Host, InterfaceAddress, Route, RouteKey, State, StatePart},
    text::Untrusted,
};

/// The live state of a node: the objects that hostgw manages, and the surroundings that a plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Routes, NAT and sysctls.
    pub state: State,
    /// Interfaces, addresses, foreign routes.
    pub host: Host,
}

/// The objects that an observation reads in addition to those that hostgw manages.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Routes with these keys are read whether managed or foreign; sorted.
    pub keys: Vec<RouteKey>,
    /// Foreign routes that overlap these prefixes are reported with the host.
    pub prefixes: Vec<IpNet>,
    /// Foreign routes that lead to these addresses are reported with the host; sorted.
    pub lookups: Vec<IpAddr>,
    /// The kernel's routes to the addresses of these interfaces, by which the node receives packets, are reported with the host.
    pub devices: BTreeSet<Untrusted>,
    /// The same for these addresses.
    pub sources: BTreeSet<IpAddr>,
    /// These sysctls are read, along with those that the kernel overwrites because of a forwarding switch among them.
    pub sysctls: BTreeSet<SysctlKey>,
}

impl Scope {
    /// Returns the scope of a plan to `desired`.
    #[must_use]
    pub fn of(desired: &State, prefixes: Vec<IpNet>) -> Self {
        let mut scope = Self {
            keys: desired.routes.iter().map(Route::key).collect(),
            prefixes,
            sysctls: desired.sysctls.keys().cloned().collect(),
            ..Self::default()
        };
        for Route { next_hop, source, .. } in desired.routes.iter() {
            if let Some(device) = next_hop.device.as_ref().filter(|device| !scope.devices.contains(*device)) {
                scope.devices.insert(device.clone());
            }
            scope.sources.extend(source);
        }
        scope
    }

    /// Returns the scope of a plan that restores everything in `touched`.
    #[must_use]
    pub fn of_touched(touched: &Touched) -> Self {
        Self {
            keys: touched.routes.clone(),
            sysctls: touched.sysctls.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Adds the foreign routes that lead to the nodes of `cluster`, if routes to their pods may use the same gateways.
    pub fn look_up_nodes(&mut self, cluster: &Cluster) {
        if cluster.off_link == OffLink::Gateway {
            let addresses = cluster.nodes.iter().flat_map(|node| node.addresses.iter());
            self.lookups = addresses.map(|(_, address)| *address).collect();
            self.lookups.sort_unstable();
        }
    }

    /// Returns `true` if all routes with `key` are read.
    #[must_use]
    pub fn wants(&self, key: &RouteKey) -> bool {
        self.keys.binary_search(key).is_ok()
    }

    /// Returns the tables that are read completely: those of the keys, and the main table, which the kernel uses to
    /// look up gateways, if the scope includes anything of the family.
    #[must_use]
    pub fn tables(&self, family: Family) -> BTreeSet<u32> {
        let keys = self.keys.iter().filter(|key| key.family() == family);
        let mut tables: BTreeSet<u32> = keys.map(|key| key.table).collect();
        if !tables.is_empty() || self.prefixes.iter().any(|prefix| Family::from(*prefix) == family) {
            tables.insert(MAIN_TABLE);
        }
        tables
    }

    /// Returns `true` if a plan depends on a foreign route in one of the tables: because it makes addresses reachable,
    /// or because it diverts cluster traffic.
    #[must_use]
    pub fn depends_on(&self, route: &Route) -> bool {
        let is_on_link =
            route.next_hop.device.as_ref().is_some_and(|device| route.is_on_link(device.as_raw()));
        let is_default = route.destination.prefix_len() == 0;
        let leads_to_address = || {
            let at = self.lookups.partition_point(|address| *address < route.destination.network());
            self.lookups.get(at).is_some_and(|address| route.destination.contains(address))
        };
        is_default
            || is_on_link
            || self.prefixes.iter().any(|prefix| prefix.contains(&route.destination))
            || leads_to_address()
    }

    /// Returns `true` if a foreign route, of any table, can carry the packets of pods to each other or to the outside, or leads to
    /// an address of the node itself.
    #[must_use]
    pub fn bears_on(&self, route: &Route) -> bool {
        let destination = &route.destination;
        let outside = outside_address(route.family());
        self.prefixes.iter().any(|prefix| {
            let is_of_family = Family::from(*prefix) == route.family();
            prefix.contains(destination)
                || destination.contains(prefix)
                || (is_of_family && (destination.contains(&outside) || self.is_own(route)))
        })
    }

    fn is_own(&self, route: &Route) -> bool {
        route.kind.is_local()
            && (route.next_hop.device.as_ref().is_some_and(|device| self.devices.contains(device))
                || self.sources.contains(&route.destination.addr()))
    }

    /// Returns the sysctls to read. `interfaces` returns the names in `net/FAMILY/conf` (`ipv4` or `ipv6`), including
    /// `all` and `default`. A switch adds everything that the kernel overwrites because of it, and IPv6 forwarding adds
    /// each interface's `accept_ra`. With a cluster prefix, those that decide about forwarding on interfaces with
    /// `addresses` are read, too.
    pub fn every_sysctl(
        &self,
        interfaces: impl Fn(&str) -> Vec<String>,
        addresses: &[InterfaceAddress],
    ) -> BTreeSet<SysctlKey> {
        let mut wanted = self.sysctls.clone();
        for family in Family::ALL {
            if !self.prefixes.iter().any(|prefix| Family::from(*prefix) == family) {
                continue;
            }
            let of_family = addresses.iter().filter(|local| Family::from(local.address) == family);
            let names: BTreeSet<&str> = of_family.map(|local| local.device.as_raw()).collect();
            wanted.extend(names.iter().flat_map(|name| forwarding::sysctls(family, name)));
            wanted.extend(forwarding::sysctls(family, "all"));
        }
        for key in self.sysctls.iter().filter(|key| switch::is_switch(key)) {
            let Some(family) = key.parts().nth(1) else { continue };
            wanted.extend(switch::rewritten_on(key, interfaces(&family).iter().map(String::as_str)));
        }
        if self.sysctls.contains(&SysctlKey::ipv6_forwarding()) {
            let accept_ra = |name: &String| SysctlKey::from_parts(["net", "ipv6", "conf", name, "accept_ra"]);
            wanted.extend(interfaces("ipv6").iter().filter_map(|name| accept_ra(name).ok()));
        }
        wanted
    }
}

impl Observed {
    /// Returns `true` if the two are equal, including how the kernel stores the scopes of the routes.
    #[must_use]
    pub fn is_identical(&self, other: &Self) -> bool {
        let mut routes = self.state.routes.iter().zip(&other.state.routes);
        self == other && routes.all(|(this, that)| this.is_identical(that))
    }

    /// Narrows a complete observation down to what an observation of `scope` would have returned.
    #[must_use]
    pub fn within(&self, scope: &Scope) -> Self {
        let (mut routes, mut foreign, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let all = || self.state.routes.iter().chain(&self.host.foreign);
        for family in Family::ALL {
            let tables = scope.tables(family);
            let is_in_other_table = |route: &&Route| route.is_owned() && !tables.contains(&route.table);
            let of_family = || all().filter(|route| route.family() == family);
            routes.extend(of_family().filter(is_in_other_table).cloned());
            for table in &tables {
                for route in of_family().filter(|route| route.table == *table) {
                    if route.is_owned() || scope.wants(&route.key()) {
                        routes.push(route.clone());
                    } else if scope.depends_on(route) {
                        foreign.push(route.clone());
                    }
                }
            }
        }
        // Foreign routes that share a key with a managed route that will be removed.
        let keys: HashSet<RouteKey> = routes.iter().map(Route::key).filter(|key| !scope.wants(key)).collect();
        for route in self.host.foreign.iter().filter(|route| !scope.wants(&route.key())) {
            if keys.contains(&route.key()) {
                routes.push(route.clone());
            }
            let is_foreign = scope.tables(route.family()).contains(&route.table) && scope.depends_on(route);
            if !is_foreign && scope.bears_on(route) {
                others.push(route.clone());
            }
        }
        others.sort_by_cached_key(Route::key);
        // The sort is stable, so routes with the same key stay in the kernel's order.
        routes.sort_by_cached_key(Route::key);
        let wanted = scope.every_sysctl(|family| self.interfaces(family), &self.host.addresses);
        let seen = self.state.sysctls.iter().filter(|(key, _)| wanted.contains(key));
        let is_wanted = |subject: &StatePart| match subject {
            StatePart::Sysctl { key } => wanted.contains(key),
            StatePart::Nat { .. } | StatePart::Records => true,
        };
        Self {
            state: State {
                routes: routes.into(),
                nat: self.state.nat.clone(),
                sysctls: seen.map(|(key, value)| (key.clone(), value.clone())).collect(),
                unknown: self
                    .state
                    .unknown
                    .iter()
                    .filter(|unknown| is_wanted(&unknown.part))
                    .cloned()
                    .collect(),
            },
            host: Host {
                foreign,
                others,
                rules: if scope.prefixes.is_empty() { Vec::new() } else { self.host.rules.clone() },
                ..self.host.clone()
            },
        }
    }

    /// Returns the interfaces that have sysctls in `net.FAMILY.conf`.
    fn interfaces(&self, family: &str) -> Vec<String> {
        let unknown = self.state.unknown.iter().filter_map(|unknown| match &unknown.part {
            StatePart::Sysctl { key } => Some(key),
            StatePart::Nat { .. } | StatePart::Records => None,
        });
        let keys = self.state.sysctls.keys().chain(unknown);
        let names = keys.filter_map(|key| {
            let mut parts = key.parts().skip(1);
            (parts.next()? == family && parts.next()? == "conf").then(|| parts.next()).flatten()
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
