//! How the routes, NAT and sysctls of a node differ from the configuration.

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
    /// Managed routes that nobody asks for.
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
        for change in &plan.changes {
            match change {
                Change::Route(route) => changes.add_route(route, desired),
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
                    .push(format!("{} is {}, but should be {}", sysctl.key, sysctl.before, sysctl.after)),
            }
        }
        changes.conflicts.extend(plan.conflicts.iter().map(ToString::to_string));
        changes.sort();
        changes
    }

    fn add_route(&mut self, change: &RouteChange, desired: &Desired) {
        self.destinations.push(change.key.destination);
        let has_before = change.before.iter().any(Route::is_owned);
        let peer = desired.node_of(&change.key).and_then(|index| u32::try_from(index).ok());
        match (&change.after[..], peer) {
            ([], _) => self.leftovers.extend(change.before.iter().map(ToString::to_string)),
            ([_, ..], Some(peer)) if !has_before => self.missing.push(peer),
            ([after, ..], Some(peer)) => {
                self.different.push((peer, difference(&change.before, after)));
            }
            ([after, ..], None) if !has_before => self.other_routes.push(format!("no route `{after}`")),
            ([after, ..], None) => self.other_routes.push(difference(&change.before, after)),
        }
    }

    /// Returns the changes of a plan for a Windows node.
    pub(super) fn of_windows(plan: &WindowsPlan) -> Self {
        let mut changes = Self { totals: plan.totals(), ..Self::default() };
        for change in &plan.changes {
            match change {
                WindowsChange::Route(route) => changes.add_windows_route(route),
                WindowsChange::Forwarding(forwarding) => changes.settings.push(format!(
                    "{} forwarding on the {} is {}, but should be Enabled",
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
                        .push((peer, format!("route {route} has another metric, or is not persistent")));
                }
            }
            WindowsCause::Configured(_) if change.before.active.is_none() => {
                self.other_routes.push(format!("no route {route}"));
            }
            WindowsCause::Configured(_) => {
                self.other_routes.push(format!("route {route} has another metric, or is not persistent"));
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
fn difference(before: &[Route], after: &Route) -> String {
    match before {
        [only] => format!("`{only}` instead of `{after}`"),
        [first, ..] => format!("{} routes, the first `{first}`, instead of `{after}`", before.len()),
        [] => format!("no route `{after}`"),
    }
}
