//! How the routes, NAT and sysctls of a node differ from the configuration.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::{
    plan::{
        Change, Desired, Plan, RouteChange, Totals, WindowsOrigin,
        windows::{StoreChange, WindowsCause, WindowsChange, WindowsPlan},
    },
    state::{NatTable, Route},
};

/// How the routes, NAT and sysctls of a node differ from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The counts of the plan.
    pub totals: Totals,
    /// The indexes of the nodes to whose pods routes are missing, sorted.
    pub missing: Vec<u32>,
    /// The routes to pods that differ from the planned ones: the index of the node, and the difference.
    pub different: Vec<(u32, String)>,
    /// Other routes that are missing or differ.
    pub other_routes: Vec<String>,
    /// Managed routes that are not in the configuration.
    pub leftovers: Vec<String>,
    /// How the NAT tables differ.
    pub nat: Vec<String>,
    /// How sysctls, or forwarding on interfaces, differ.
    pub settings: Vec<String>,
    /// The conflicts with foreign objects.
    pub conflicts: Vec<String>,
    /// The destinations of the routes that change.
    pub destinations: Vec<IpNet>,
}

impl Changes {
    /// Returns the changes of a plan for a Linux node.
    pub(super) fn of(plan: &Plan, desired: &Desired) -> Self {
        let mut changes = Self { totals: plan.totals(), ..Self::default() };
        let routes = || plan.changes.iter().filter_map(Change::as_route);
        let added: BTreeSet<IpNet> =
            routes().filter(|route| !route.after.is_empty()).map(|route| route.key.destination).collect();
        let removed = routes().filter(|route| route.after.is_empty());
        let removed = removed.filter_map(|route| route.before.iter().find(|route| route.is_owned()));
        let moved: BTreeMap<IpNet, &Route> = removed
            .filter(|route| added.contains(&route.destination))
            .map(|route| (route.destination, route))
            .collect();
        for change in &plan.changes {
            match change {
                // It is reported as different.
                Change::Route(route)
                    if route.after.is_empty() && moved.contains_key(&route.key.destination) =>
                {
                    changes.destinations.push(route.key.destination);
                }
                Change::Route(route) => changes.add_route(route, desired, &moved),
                Change::Nat(nat) => {
                    let table = format!("table {} {}", nat.family.nft(), NatTable::NAME);
                    changes.nat.push(match (&nat.before, &nat.after) {
                        (None, _) => format!("{table} is missing"),
                        (Some(_), None) => format!("{table} should not exist"),
                        (Some(_), Some(_)) => format!("{table} differs from the configuration"),
                    });
                }
                Change::Sysctl(sysctl) => changes
                    .settings
                    .push(format!("{} is {}, expected {}", sysctl.key, sysctl.before, sysctl.after)),
            }
        }
        changes.conflicts.extend(plan.conflicts.iter().map(ToString::to_string));
        changes.sort();
        changes
    }

    fn add_route(&mut self, change: &RouteChange, desired: &Desired, moved: &BTreeMap<IpNet, &Route>) {
        self.destinations.push(change.key.destination);
        let peer = desired.node_of(&change.key).and_then(|index| u32::try_from(index).ok());
        let owned = change.before.iter().find(|route| route.is_owned());
        // With another table or metric, it is another route for the kernel.
        let before = owned.or_else(|| moved.get(&change.key.destination).copied());
        match (&change.after[..], before, peer) {
            ([], ..) => self.leftovers.extend(change.before.iter().map(ToString::to_string)),
            ([_, ..], None, Some(peer)) => self.missing.push(peer),
            ([after, ..], None, None) => self.other_routes.push(format!("missing route `{after}`")),
            ([after, ..], Some(before), Some(peer)) => {
                self.different.push((peer, difference(before, after)));
            }
            ([after, ..], Some(before), None) => self.other_routes.push(difference(before, after)),
        }
    }

    /// Returns the changes of a plan for a Windows node.
    pub(super) fn of_windows(plan: &WindowsPlan) -> Self {
        let mut changes = Self { totals: plan.totals(), ..Self::default() };
        for change in &plan.changes {
            match change {
                WindowsChange::Route(route) => changes.add_windows_route(route),
                WindowsChange::Forwarding(forwarding) => changes.settings.push(format!(
                    "{} forwarding on the {} is {}, expected Enabled",
                    forwarding.family, forwarding.role, forwarding.before
                )),
            }
        }
        let conflicts = plan.conflicts.iter().map(|conflict| {
            format!(
                "route {} via {} on {} conflicts with the one via {}",
                conflict.destination, conflict.next_hop, conflict.interface.alias, conflict.needed
            )
        });
        changes.conflicts.extend(conflicts);
        changes.sort();
        changes
    }

    fn add_windows_route(&mut self, change: &StoreChange) {
        let route = format!("{} via {}", change.destination, change.next_hop);
        match change.cause {
            WindowsCause::Configured(WindowsOrigin::Node(index)) => {
                let Ok(peer) = u32::try_from(index) else { return };
                if change.before.active.is_none() {
                    self.missing.push(peer);
                } else {
                    self.different
                        .push((peer, format!("route {route} has a different metric or is not persistent")));
                }
            }
            WindowsCause::Configured(_) if change.before.active.is_none() => {
                self.other_routes.push(format!("missing route {route}"));
            }
            WindowsCause::Configured(_) => {
                self.other_routes.push(format!("route {route} has a different metric or is not persistent"));
            }
            WindowsCause::Owned | WindowsCause::Foreign | WindowsCause::Orphaned => {
                self.leftovers.push(route)
            }
        }
    }

    fn sort(&mut self) {
        self.missing.sort_unstable();
        self.missing.dedup();
    }

    /// Returns `true` if an apply changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals == Totals::default()
    }

    /// Returns `true` if the route to the pods of a node is missing or differs.
    #[must_use]
    pub fn concerns(&self, peer: u32) -> bool {
        self.missing.binary_search(&peer).is_ok() || self.different.iter().any(|(other, _)| *other == peer)
    }
}

/// Describes how a route differs from the planned one.
fn difference(before: &Route, after: &Route) -> String {
    format!("found `{before}`, expected `{after}`")
}
