//! Computes the plan of a Windows node, exactly as its script does on the node.

use std::{
    cell::LazyCell,
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Cluster, Family},
    plan::{Action, ForeignPolicy, Totals, off_link::skipped},
    state::{Role, WindowsRoute},
};

use super::{
    InterfaceRef, ObservedRoute, WindowsDesired, WindowsObserved, WindowsOrigin, WindowsPaths, WindowsReach,
    interfaces::NodeInterfaces,
    off_link::{Adapted, NodeLink, RequiredLink},
    paths::PlannedNode,
    traffic::{InterfaceIndexes, ResolvedRoute, TrafficIndex, route_delete},
};

/// The changes of a Windows node in the order of the commit, and the conflicts that prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsPlan {
    /// Added and changed routes, then removed ones, then forwarding.
    pub changes: Vec<WindowsChange>,
    /// Foreign routes to the destinations of managed ones.
    pub conflicts: Vec<WindowsConflict>,
    /// Findings about persistent routes of missing interfaces, which the script does not touch.
    pub leftovers: Vec<Diagnostic>,
    /// What the routes of the node do with packets once the plan is applied.
    pub paths: WindowsPaths,
}

/// The change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowsChange {
    /// A route, in one or both stores.
    Route(StoreChange),
    /// Forwarding on an interface.
    Forwarding(ForwardingChange),
}

/// The change of one route, identified by interface, destination and next hop, in both stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChange {
    /// The interface.
    pub interface: InterfaceRef,
    /// `-DestinationPrefix`.
    pub destination: IpNet,
    /// `-NextHop`.
    pub next_hop: IpAddr,
    /// The live state.
    pub before: Stores,
    /// The desired state.
    pub after: Stores,
    /// The reason.
    pub cause: WindowsCause,
}

/// The metric of a route in each store that contains it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stores {
    /// The metric in the active store, which packets use.
    pub active: Option<u32>,
    /// The metric in the persistent store, which survives a restart.
    pub persistent: Option<u32>,
}

/// The reason for the change of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowsCause {
    /// The route is configured.
    Configured(WindowsOrigin),
    /// The route is managed but not configured.
    Owned,
    /// The route is foreign and adopted.
    Foreign,
    /// The interface of the route no longer exists.
    Orphaned,
}

/// The change of forwarding on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardingChange {
    /// The interface.
    pub interface: InterfaceRef,
    /// The role of the interface.
    pub role: Role,
    /// The address family.
    pub family: Family,
    /// The live value: `Disabled`, or whatever else Windows reports.
    pub before: String,
}

/// A foreign route to the destination of a managed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsConflict {
    /// The interface of the route.
    pub interface: InterfaceRef,
    /// The destination of the route.
    pub destination: IpNet,
    /// The next hop of the route.
    pub next_hop: IpAddr,
    /// The metrics of the route.
    pub live: Stores,
    /// The next hop that hostgw needs for that destination.
    pub needed: IpAddr,
}

impl WindowsPlan {
    /// Counts the changes and the conflicts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { conflicts: self.conflicts.len(), ..Totals::default() };
        for change in &self.changes {
            *match change.action() {
                Action::Add => &mut totals.add,
                Action::Update => &mut totals.update,
                Action::Remove => &mut totals.remove,
            } += 1;
        }
        totals
    }
}

impl WindowsChange {
    fn action(&self) -> Action {
        match self {
            Self::Route(change) => change.action(),
            Self::Forwarding(_) => Action::Update,
        }
    }
}

impl StoreChange {
    /// Whether the route is added, changed or removed.
    #[must_use]
    pub fn action(&self) -> Action {
        let none = Stores::default();
        match (self.before == none, self.after == none) {
            (true, _) => Action::Add,
            (_, true) => Action::Remove,
            _ => Action::Update,
        }
    }
}

impl Stores {
    const fn both(metric: u32) -> Self {
        Self { active: Some(metric), persistent: Some(metric) }
    }
}

/// Computes the changes of the node at `index` of `cluster` with the live state `observed`.
///
/// # Errors
/// Returns the reasons that the node cannot be planned: an interface, an address or a default route is missing.
pub fn windows_plan(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    observed: &WindowsObserved,
    policy: ForeignPolicy,
) -> Result<WindowsPlan, Vec<Diagnostic>> {
    let node = &cluster.nodes[index];
    let machine = NodeInterfaces::new(observed);
    let (egress, pod) = machine.find(cluster, node).both()?;
    let interfaces = InterfaceIndexes { egress: egress.index, pod: pod.as_ref().map(|pod| pod.index) };
    let wanted = WantedRoutes::of(cluster, index, desired, observed, &egress);
    if !wanted.problems.is_empty() {
        return Err(wanted.problems);
    }
    let skipped = skipped(cluster, index, &wanted.skipped);
    let wanted = wanted.routes;
    let live: HashMap<WindowsRouteKey, Stores> =
        observed.routes.iter().map(|route| (WindowsRouteKey::of(route), stores(route))).collect();
    let owned = observed.owned_keys();
    let mut plan = WindowsPlan::default();
    let traffic = TrafficIndex::new(&wanted);
    reject_misplaced_addresses(cluster, observed, &traffic, interfaces)?;
    let mut keys = HashSet::new();
    let mut kept = Vec::new();
    for ResolvedRoute { destination, next_hop, metric, origin } in wanted.iter().copied() {
        let key = WindowsRouteKey { index: egress.index, destination, next_hop };
        keys.insert(key);
        let (before, after) = (live.get(&key).copied().unwrap_or_default(), Stores::both(metric));
        if before != after {
            let (interface, cause) = (egress.clone(), WindowsCause::Configured(origin));
            let change = StoreChange { interface, destination, next_hop, before, after, cause };
            plan.changes.push(WindowsChange::Route(change));
        }
    }
    for route in observed.routes.iter().filter(|route| !keys.contains(&WindowsRouteKey::of(route))) {
        let interface = InterfaceRef { index: route.index, alias: route.alias.clone() };
        let removal = |cause| {
            WindowsChange::Route(StoreChange {
                interface: interface.clone(),
                destination: route.destination,
                next_hop: route.next_hop,
                before: stores(route),
                after: Stores::default(),
                cause,
            })
        };
        let diverted = traffic.diverted_by(route, interfaces);
        if machine.is_orphan(route) {
            let is_owned = observed
                .managed
                .iter()
                .any(|owned| (owned.destination, owned.next_hop) == (route.destination, route.next_hop));
            let may_remove = is_owned || policy == ForeignPolicy::Adopt;
            match diverted {
                None if !is_owned => {}
                _ if may_remove && route.index > 0 => plan.changes.push(removal(WindowsCause::Orphaned)),
                _ => plan.leftovers.push(leftover(route)),
            }
            continue;
        }
        let is_owned = owned.contains(&(route.alias.as_str(), route.destination, route.next_hop));
        match diverted {
            _ if is_owned => plan.changes.push(removal(WindowsCause::Owned)),
            Some(_) if policy == ForeignPolicy::Adopt => plan.changes.push(removal(WindowsCause::Foreign)),
            Some(diverted) if diverted.destination == route.destination => {
                kept.push(route);
                plan.conflicts.push(WindowsConflict {
                    destination: route.destination,
                    next_hop: route.next_hop,
                    live: stores(route),
                    needed: diverted.next_hop,
                    interface: interface.clone(),
                });
            }
            _ => kept.push(route),
        }
    }
    if let Some(pod) = &pod {
        plan.changes.extend(forwarding(cluster, observed, &egress, pod)?);
    }
    plan.paths = PlannedNode::new(cluster, observed, (&egress, pod.as_ref()), &wanted, &kept).judge();
    plan.paths.warnings.extend(skipped);
    Ok(plan)
}

/// Returns what the routes of a node that cannot be planned would do with packets, as far as its interfaces were found.
#[must_use]
pub fn windows_paths(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    observed: &WindowsObserved,
) -> WindowsPaths {
    let machine = NodeInterfaces::new(observed);
    let found = machine.find(cluster, &cluster.nodes[index]);
    let Ok(egress) = &found.egress else { return WindowsPaths::default() };
    let WantedRoutes { routes: wanted, skipped: nodes, .. } =
        WantedRoutes::of(cluster, index, desired, observed, egress);
    let owned = observed.owned_keys();
    let desired: HashSet<WindowsRouteKey> = wanted
        .iter()
        .map(|route| WindowsRouteKey {
            index: egress.index,
            destination: route.destination,
            next_hop: route.next_hop,
        })
        .collect();
    let is_kept = |route: &&ObservedRoute| {
        !machine.is_orphan(route)
            && !owned.contains(&(route.alias.as_str(), route.destination, route.next_hop))
            && !desired.contains(&WindowsRouteKey::of(route))
    };
    let kept: Vec<&ObservedRoute> = observed.routes.iter().filter(is_kept).collect();
    let pod = found.pod.as_ref().ok().and_then(Option::as_ref);
    let mut paths = PlannedNode::new(cluster, observed, (egress, pod), &wanted, &kept).judge();
    paths.warnings.extend(skipped(cluster, index, &nodes));
    paths
}

/// Returns what the routes of a node do with packets now.
#[must_use]
pub fn windows_reach(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    observed: &WindowsObserved,
) -> WindowsReach {
    let found = NodeInterfaces::new(observed).find(cluster, &cluster.nodes[index]);
    let Ok(egress) = &found.egress else { return WindowsReach::nothing(cluster) };
    let wanted = WantedRoutes::of(cluster, index, desired, observed, egress);
    let pod = found.pod.as_ref().ok().and_then(Option::as_ref);
    let mut reach = PlannedNode::new(cluster, observed, (egress, pod), &wanted.routes, &[]).reach();
    reach.lost.extend(wanted.unusable);
    reach.skipped = wanted.skipped.into_iter().collect();
    reach
}

/// Rejects local addresses in the pod CIDR of another node, and the address of the master: Windows does not send packets
/// to them, whatever the routes are.
fn reject_misplaced_addresses(
    cluster: &Cluster,
    observed: &WindowsObserved,
    traffic: &TrafficIndex,
    interfaces: InterfaceIndexes,
) -> Result<(), Vec<Diagnostic>> {
    let mut problems = Vec::new();
    for route in &observed.derived {
        let Some(diverted) = traffic.diverted_by(route, interfaces) else { continue };
        if matches!(diverted.origin, WindowsOrigin::OwnPods(_)) {
            continue;
        }
        let message = format!(
            "{} has an address in {} ({}): Windows delivers packets to that address locally",
            route.alias,
            diverted.destination,
            diverted.origin.reason_in(cluster)
        );
        let problem = Diagnostic::new(Rule::LocalAddressInPods, message)
            .with_remedy("remove the address with Remove-NetIPAddress, or correct the configuration");
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn leftover(route: &ObservedRoute) -> Diagnostic {
    let ObservedRoute { destination, next_hop, .. } = route;
    Diagnostic::new(
        Rule::OrphanedRoute,
        format!(
            "the persistent route {destination} via {next_hop} belongs to an interface that no longer exists"
        ),
    )
    .with_remedy(format!("run `{}`, then run the script again", route_delete(*destination, *next_hop)))
}

fn stores(route: &ObservedRoute) -> Stores {
    Stores { active: route.active_metric, persistent: route.persistent_metric }
}

/// The identity of a route in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct WindowsRouteKey {
    index: u32,
    destination: IpNet,
    next_hop: IpAddr,
}

impl WindowsRouteKey {
    const fn of(route: &ObservedRoute) -> Self {
        Self { index: route.index, destination: route.destination, next_hop: route.next_hop }
    }
}

/// The desired routes of a node with the next hops that they have there.
#[derive(Default)]
struct WantedRoutes {
    routes: Vec<ResolvedRoute>,
    /// Why others have no next hop that works.
    problems: Vec<Diagnostic>,
    /// The indexes of the nodes that these others lead to.
    unusable: BTreeSet<usize>,
    /// The indexes of the nodes that get no route, because they are not on this node's link (`offLink: skip`), in the order
    /// of their routes.
    skipped: Vec<usize>,
}

impl WantedRoutes {
    fn of(
        cluster: &Cluster,
        index: usize,
        desired: &WindowsDesired,
        observed: &WindowsObserved,
        egress: &InterfaceRef,
    ) -> Self {
        let name = &cluster.nodes[index].name;
        let link = LazyCell::new(|| NodeLink::new(cluster, name, desired, observed, egress));
        let mut wanted = Self { routes: Vec::with_capacity(desired.state.routes.len()), ..Self::default() };
        let (mut skipped, mut reported) = (HashSet::new(), HashSet::new());
        for (route, origin) in desired.state.routes.iter().zip(&desired.origins) {
            let gateway = || default_gateway(observed, egress, route.family());
            let Some(next_hop) = route.next_hop.or_else(gateway) else {
                wanted.problems.push(no_gateway(route, egress));
                continue;
            };
            let next_hop = match RequiredLink::of(cluster, route, *origin) {
                None => next_hop,
                Some(required) => match link.adapt(next_hop, &required) {
                    Adapted::Via(next_hop) => next_hop,
                    Adapted::Skipped => {
                        if skipped.insert(required.peer) {
                            wanted.skipped.push(required.peer);
                        }
                        continue;
                    }
                    Adapted::Unusable(problem) => {
                        wanted.unusable.insert(required.peer);
                        if reported.insert((required.peer, next_hop)) {
                            let path = origin.path(cluster, route.destination_prefix);
                            wanted.problems.push(problem.at(Some(path)));
                        }
                        continue;
                    }
                },
            };
            let WindowsRoute { destination_prefix: destination, route_metric: metric, .. } = *route;
            wanted.routes.push(ResolvedRoute { destination, next_hop, metric, origin: *origin });
        }
        wanted
    }
}

fn no_gateway(route: &WindowsRoute, egress: &InterfaceRef) -> Diagnostic {
    let (destination, alias) = (route.destination_prefix, &egress.alias);
    Diagnostic::new(
        Rule::NoDefaultRoute,
        format!(
            "the gateway for {destination} is unknown, because {alias} has no default route: set the node's defaultGateway in the \
             configuration"
        ),
    )
}

/// Returns the gateway of the best default route of the egress interface.
fn default_gateway(observed: &WindowsObserved, egress: &InterfaceRef, family: Family) -> Option<IpAddr> {
    let is_default = |route: &&ObservedRoute| {
        route.index == egress.index
            && route.destination.prefix_len() == 0
            && Family::from(route.destination) == family
    };
    let candidates = observed.routes.iter().filter(is_default);
    let ranked = candidates.filter_map(|route| Some((route.active_metric?, route.next_hop)));
    ranked.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

fn forwarding(
    cluster: &Cluster,
    observed: &WindowsObserved,
    egress: &InterfaceRef,
    pod: &InterfaceRef,
) -> Result<Vec<WindowsChange>, Vec<Diagnostic>> {
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for (role, interface) in [(Role::Egress, egress), (Role::Pod, pod)] {
        for family in cluster.prefixes.families() {
            match observed.interface(interface.index, family) {
                Some(live) if live.forwarding == "Enabled" => {}
                Some(live) => changes.push(WindowsChange::Forwarding(ForwardingChange {
                    interface: interface.clone(),
                    role,
                    family,
                    before: live.forwarding.clone(),
                })),
                None => problems.push(Diagnostic::new(
                    Rule::FamilyDisabled,
                    format!(
                        "{family} is disabled on {}, which therefore cannot forward {family} packets",
                        interface.alias
                    ),
                )),
            }
        }
    }
    if problems.is_empty() { Ok(changes) } else { Err(problems) }
}
