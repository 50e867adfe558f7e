//! Computes the plan of a Windows node, exactly as its script does on the node.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    model::{Cluster, Family, InterfaceName, Node},
    plan::ForeignPolicy,
    state::{Role, WindowsRoute},
};

use super::{
    ObservedRoute, WindowsDesired, WindowsObserved, WindowsOrigin,
    traffic::{ResolvedRoute, TrafficIndex, route_delete},
};

/// The aliases of the pod interface if no interface has the pod gateway: HNS uses the first one for the endpoint of the
/// network `cbr0`, and flannel the second one.
pub const POD_ALIASES: [&str; 2] = ["vEthernet (cbr0)", "vEthernet (cbr0_ep)"];

/// The changes of a Windows node in the order of the commit, and the conflicts that prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsPlan {
    /// Added and changed routes, then removed ones, then forwarding.
    pub changes: Vec<WindowsChange>,
    /// Foreign routes that divert traffic from managed ones.
    pub conflicts: Vec<WindowsConflict>,
    /// Persistent routes of missing interfaces that the script does not touch, described in sentences.
    pub leftovers: Vec<String>,
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

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRef {
    /// Its index, which is not stable.
    pub index: u32,
    /// Its alias.
    pub alias: String,
}

/// The reason for the change of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowsCause {
    /// It is configured.
    Configured(WindowsOrigin),
    /// It is managed but not configured.
    Owned,
    /// It is foreign and adopted.
    Foreign,
    /// Its interface no longer exists.
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

/// A foreign route that diverts traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsConflict {
    /// Its interface.
    pub interface: InterfaceRef,
    /// Its destination.
    pub destination: IpNet,
    /// Its next hop.
    pub next_hop: IpAddr,
    /// Its metrics.
    pub live: Stores,
    /// The destination whose traffic it diverts.
    pub wanted: IpNet,
    /// The next hop that hostgw needs for that destination.
    pub needed: IpAddr,
}

impl Stores {
    const fn both(metric: u32) -> Self {
        Self { active: Some(metric), persistent: Some(metric) }
    }
}

/// Computes the changes of the node at `index` of `cluster` with the live state `observed`.
///
/// # Errors
/// Returns the reasons that the node cannot be planned, as sentences without a period: an interface, an address or a
/// default route is missing.
pub fn windows_plan(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    observed: &WindowsObserved,
    policy: ForeignPolicy,
) -> Result<WindowsPlan, Vec<String>> {
    let node = &cluster.nodes[index];
    let machine = NodeInterfaces::new(observed);
    let (management, pod) = machine.find_interfaces(cluster, node)?;
    let wanted = wanted(desired, observed, &management)?;
    let live: HashMap<WindowsRouteKey, Stores> =
        observed.routes.iter().map(|route| (WindowsRouteKey::of(route), stores(route))).collect();
    let owned: HashSet<(&str, IpNet, IpAddr)> = observed
        .owned
        .iter()
        .map(|route| (route.alias.as_str(), route.destination, route.next_hop))
        .collect();
    let mut plan = WindowsPlan::default();
    let traffic = TrafficIndex::new(&wanted);
    reject_misplaced_addresses(cluster, observed, &traffic, &pod)?;
    let mut keys = HashSet::new();
    for ResolvedRoute { destination, next_hop, metric, origin } in wanted {
        let key = WindowsRouteKey { index: management.index, destination, next_hop };
        keys.insert(key);
        let (before, after) = (live.get(&key).copied().unwrap_or_default(), Stores::both(metric));
        if before != after {
            let (interface, cause) = (management.clone(), WindowsCause::Configured(origin));
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
        let diverted = traffic.diverted_by(route.destination, route.index, pod.index);
        if machine.is_orphan(route) {
            let is_owned = observed
                .owned
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
            Some(diverted) => plan.conflicts.push(WindowsConflict {
                destination: route.destination,
                next_hop: route.next_hop,
                live: stores(route),
                wanted: diverted.destination,
                needed: diverted.next_hop,
                interface: interface.clone(),
            }),
            None => {}
        }
    }
    plan.changes.extend(forwarding(cluster, observed, &management, &pod)?);
    Ok(plan)
}

/// Rejects local addresses in the pod CIDR of another node: Windows does not send packets to them, whatever the routes
/// are.
fn reject_misplaced_addresses(
    cluster: &Cluster,
    observed: &WindowsObserved,
    traffic: &TrafficIndex,
    pod: &InterfaceRef,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for route in &observed.derived {
        let Some(diverted) = traffic.diverted_by(route.destination, route.index, pod.index) else { continue };
        if !matches!(diverted.origin, WindowsOrigin::Node(_)) {
            continue;
        }
        let problem = format!(
            "{} has an address in {} ({}): Windows keeps packets to it on this machine. Remove that address, or fix the configuration",
            route.alias,
            diverted.destination,
            diverted.origin.reason_in(cluster)
        );
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn leftover(route: &ObservedRoute) -> String {
    format!(
        "-DestinationPrefix {} -NextHop {} belongs to an interface that no longer exists, and carries no traffic. To remove \
         it: {}, then run the script again",
        route.destination,
        route.next_hop,
        route_delete(route.destination, route.next_hop)
    )
}

fn stores(route: &ObservedRoute) -> Stores {
    Stores { active: route.active, persistent: route.persistent }
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

fn wanted(
    desired: &WindowsDesired,
    observed: &WindowsObserved,
    management: &InterfaceRef,
) -> Result<Vec<ResolvedRoute>, Vec<String>> {
    let mut problems = Vec::new();
    let mut wanted = Vec::with_capacity(desired.state.routes.len());
    for (route, origin) in desired.state.routes.iter().zip(&desired.origins) {
        let WindowsRoute { destination_prefix: destination, route_metric: metric, .. } = *route;
        match route.next_hop.or_else(|| default_gateway(observed, management, route.family())) {
            Some(next_hop) => wanted.push(ResolvedRoute { destination, next_hop, metric, origin: *origin }),
            None => problems.push(format!(
                "no default route on {} shows the gateway for {destination}: set defaultGateway of the node in the \
                 configuration",
                management.alias
            )),
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// Returns the gateway of the best default route of the management interface.
fn default_gateway(observed: &WindowsObserved, management: &InterfaceRef, family: Family) -> Option<IpAddr> {
    let is_default = |route: &&ObservedRoute| {
        route.index == management.index
            && route.destination.prefix_len() == 0
            && Family::from(route.destination) == family
    };
    let candidates = observed.routes.iter().filter(is_default);
    let ranked = candidates.filter_map(|route| Some((route.active?, route.next_hop)));
    ranked.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

fn forwarding(
    cluster: &Cluster,
    observed: &WindowsObserved,
    management: &InterfaceRef,
    pod: &InterfaceRef,
) -> Result<Vec<WindowsChange>, Vec<String>> {
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for (role, interface) in [(Role::Management, management), (Role::Pod, pod)] {
        for (family, _) in cluster.prefixes.iter() {
            let name = family.to_string();
            let live =
                observed.interfaces.iter().find(|live| live.index == interface.index && live.family == name);
            match live {
                Some(live) if live.forwarding == "Enabled" => {}
                Some(live) => changes.push(WindowsChange::Forwarding(ForwardingChange {
                    interface: interface.clone(),
                    role,
                    family,
                    before: live.forwarding.clone(),
                })),
                None => {
                    problems.push(format!("{} has no {family}, so it cannot forward it", interface.alias))
                }
            }
        }
    }
    if problems.is_empty() { Ok(changes) } else { Err(problems) }
}

/// The interfaces of a node.
struct NodeInterfaces<'a> {
    aliases: BTreeMap<u32, &'a str>,
    observed: &'a WindowsObserved,
}

impl<'a> NodeInterfaces<'a> {
    fn new(observed: &'a WindowsObserved) -> Self {
        let aliases =
            observed.interfaces.iter().map(|interface| (interface.index, interface.alias.as_str())).collect();
        Self { aliases, observed }
    }

    /// Returns `true` if a route is only in the persistent store and its interface no longer exists, so that it has no
    /// effect.
    fn is_orphan(&self, route: &ObservedRoute) -> bool {
        route.active.is_none() && !self.aliases.contains_key(&route.index)
    }

    /// Returns the interfaces with one of `addresses`.
    fn with_address(&self, addresses: &[IpAddr]) -> BTreeSet<u32> {
        let matching = self.observed.addresses.iter().filter(|address| addresses.contains(&address.address));
        matching.map(|address| address.index).collect()
    }

    /// Returns the interfaces with one of these aliases, which Windows compares without case.
    fn with_alias(&self, names: &[&str]) -> BTreeSet<u32> {
        let matches = |alias: &str| names.iter().any(|name| name.to_lowercase() == alias.to_lowercase());
        self.aliases.iter().filter(|(_, alias)| matches(alias)).map(|(index, _)| *index).collect()
    }

    /// Returns the management interface and the pod interface.
    fn find_interfaces(
        &self,
        cluster: &Cluster,
        node: &Node,
    ) -> Result<(InterfaceRef, InterfaceRef), Vec<String>> {
        let addresses: Vec<IpAddr> = node.addresses.iter().map(|(_, address)| *address).collect();
        let gateways: Vec<IpAddr> =
            Family::ALL.into_iter().filter_map(|family| node.pod_gateway(family)).collect();
        let alias = cluster.egress_interface_of(node).map(InterfaceName::as_str);
        let management = match alias {
            Some(alias) => self.with_alias(&[alias]),
            None => self.with_address(&addresses),
        };
        let with_gateway = self.with_address(&gateways);
        let pod = if with_gateway.is_empty() { self.with_alias(&POD_ALIASES) } else { with_gateway };
        let sought = alias
            .map_or_else(|| format!("has address {}", or(&addresses)), |alias| format!("is named {alias}"));
        let management = self.unique(&management, &format!("interface that {sought}"));
        let pod = self.unique(
            &pod,
            &format!("pod interface (with address {}, or named {})", or(&gateways), or(&POD_ALIASES)),
        );
        match (management, pod) {
            (Ok(management), Ok(pod)) => Ok((management, pod)),
            (management, pod) => Err([management.err(), pod.err()].into_iter().flatten().collect()),
        }
    }

    fn unique(&self, found: &BTreeSet<u32>, what: &str) -> Result<InterfaceRef, String> {
        if let (Some(index), 1) = (found.first(), found.len()) {
            return Ok(InterfaceRef {
                index: *index,
                alias: self.aliases.get(index).copied().unwrap_or_default().to_owned(),
            });
        }
        let names: BTreeSet<&str> = self.aliases.values().copied().collect();
        let names: Vec<&str> = names.into_iter().collect();
        let number = if found.is_empty() { "none".to_owned() } else { found.len().to_string() };
        Err(format!("expected exactly one {what}, found {number}; interfaces: {}", names.join(", ")))
    }
}

fn or<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
