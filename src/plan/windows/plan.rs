//! What must change on a Windows node: the plan that its script makes there, made here.

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

/// The names of the pod interface where nothing holds the pod gateway: HNS names the endpoint of the network `cbr0`
/// so, and flannel's `cbr0_ep`.
pub const POD_ALIASES: [&str; 2] = ["vEthernet (cbr0)", "vEthernet (cbr0_ep)"];

/// What must change, in the order in which it is committed, and what stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsPlan {
    /// Routes that come or change, those that go, forwarding.
    pub changes: Vec<WindowsChange>,
    /// Routes of others that take traffic of hostgw's.
    pub conflicts: Vec<WindowsConflict>,
    /// Persistent routes of interfaces that no longer exist and that the script leaves alone, in sentences.
    pub leftovers: Vec<String>,
}

/// One object that must change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowsChange {
    /// A route, in either store.
    Route(StoreChange),
    /// Whether an interface forwards.
    Forwarding(ForwardingChange),
}

/// One interface, destination and next hop, in both stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChange {
    /// The interface.
    pub interface: InterfaceRef,
    /// `-DestinationPrefix`.
    pub destination: IpNet,
    /// `-NextHop`.
    pub next_hop: IpAddr,
    /// What stands.
    pub before: Stores,
    /// What shall stand.
    pub after: Stores,
    /// Why.
    pub cause: WindowsCause,
}

/// The metric of a route in each store where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stores {
    /// What packets go by.
    pub active: Option<u32>,
    /// What is left when the machine starts.
    pub persistent: Option<u32>,
}

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRef {
    /// Its number, which changes.
    pub index: u32,
    /// Its name.
    pub alias: String,
}

/// Why a route changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowsCause {
    /// The configuration asks for it.
    Configured(WindowsOrigin),
    /// hostgw owns it, and the configuration does not ask for it.
    Owned,
    /// It is somebody else's, and is taken over.
    Foreign,
    /// Its interface no longer exists.
    Orphaned,
}

/// Whether an interface forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardingChange {
    /// The interface.
    pub interface: InterfaceRef,
    /// What it is there for.
    pub role: Role,
    /// Of which family.
    pub family: Family,
    /// What stands: `Disabled`, or whatever else Windows says.
    pub before: String,
}

/// A route of somebody else's.
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
    /// The destination whose traffic it takes.
    pub wanted: IpNet,
    /// The next hop that hostgw needs there.
    pub needed: IpAddr,
}

impl Stores {
    const fn both(metric: u32) -> Self {
        Self { active: Some(metric), persistent: Some(metric) }
    }
}

/// What must change on node number `index` of `cluster`, where `observed` stands.
///
/// # Errors
/// What of the node does not fit, in sentences without a full stop: an interface, an address, a default route is
/// missing.
pub fn windows_plan(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    observed: &WindowsObserved,
    policy: ForeignPolicy,
) -> Result<WindowsPlan, Vec<String>> {
    let node = &cluster.nodes[index];
    let machine = NodeInterfaces::new(observed);
    let (management, pod) = machine.places(cluster, node)?;
    let wanted = wanted(desired, observed, &management)?;
    let live: HashMap<WindowsRouteKey, Stores> =
        observed.routes.iter().map(|route| (WindowsRouteKey::of(route), stores(route))).collect();
    let owned: HashSet<(&str, IpNet, IpAddr)> = observed
        .owned
        .iter()
        .map(|route| (route.alias.as_str(), route.destination, route.next_hop))
        .collect();
    let mut plan = WindowsPlan::default();
    let needs = TrafficIndex::new(&wanted);
    refuse_misplaced(cluster, observed, &needs, &pod)?;
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
        let go = |cause| {
            WindowsChange::Route(StoreChange {
                interface: interface.clone(),
                destination: route.destination,
                next_hop: route.next_hop,
                before: stores(route),
                after: Stores::default(),
                cause,
            })
        };
        let taken = needs.taken_by(route.destination, route.index, pod.index);
        if machine.is_orphan(route) {
            let is_owned = observed
                .owned
                .iter()
                .any(|one| (one.destination, one.next_hop) == (route.destination, route.next_hop));
            let is_ours = is_owned || policy == ForeignPolicy::Adopt;
            match taken {
                None if !is_owned => {}
                _ if is_ours && route.index > 0 => plan.changes.push(go(WindowsCause::Orphaned)),
                _ => plan.leftovers.push(leftover(route)),
            }
            continue;
        }
        let is_owned = owned.contains(&(route.alias.as_str(), route.destination, route.next_hop));
        match taken {
            _ if is_owned => plan.changes.push(go(WindowsCause::Owned)),
            Some(_) if policy == ForeignPolicy::Adopt => plan.changes.push(go(WindowsCause::Foreign)),
            Some(taken) => plan.conflicts.push(WindowsConflict {
                destination: route.destination,
                next_hop: route.next_hop,
                live: stores(route),
                wanted: taken.destination,
                needed: taken.next_hop,
                interface: interface.clone(),
            }),
            None => {}
        }
    }
    plan.changes.extend(forwarding(cluster, observed, &management, &pod)?);
    Ok(plan)
}

/// Refuses addresses among the pods of another node: Windows keeps packets to them, whatever the routes are.
fn refuse_misplaced(
    cluster: &Cluster,
    observed: &WindowsObserved,
    needs: &TrafficIndex,
    pod: &InterfaceRef,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for route in &observed.made {
        let Some(taken) = needs.taken_by(route.destination, route.index, pod.index) else { continue };
        if !matches!(taken.origin, WindowsOrigin::Node(_)) {
            continue;
        }
        let problem = format!(
            "{} has an address in {} ({}): Windows keeps packets to it on this machine. Remove that address, or fix the configuration",
            route.alias,
            taken.destination,
            taken.origin.purpose(cluster)
        );
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn leftover(route: &ObservedRoute) -> String {
    format!(
        "-DestinationPrefix {} -NextHop {} is left of an interface that no longer exists; it carries nothing. To remove \
         it: {}, then run the script again",
        route.destination,
        route.next_hop,
        route_delete(route.destination, route.next_hop)
    )
}

fn stores(route: &ObservedRoute) -> Stores {
    Stores { active: route.active, persistent: route.persistent }
}

/// Where a route stands in a store.
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
                "no default route of {} shows the gateway for {destination}: set defaultGateway of the node in the \
                 configuration",
                management.alias
            )),
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// The gateway of the best default route of the management interface.
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
                observed.interfaces.iter().find(|one| one.index == interface.index && one.family == name);
            match live {
                Some(live) if live.forwarding == "Enabled" => {}
                Some(live) => changes.push(WindowsChange::Forwarding(ForwardingChange {
                    interface: interface.clone(),
                    role,
                    family,
                    before: live.forwarding.clone(),
                })),
                None => problems.push(format!("{} has no {family}: it cannot forward it", interface.alias)),
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
        let aliases = observed.interfaces.iter().map(|one| (one.index, one.alias.as_str())).collect();
        Self { aliases, observed }
    }

    /// Whether a route is only in the persistent store, and its interface no longer exists: it carries nothing.
    fn is_orphan(&self, route: &ObservedRoute) -> bool {
        route.active.is_none() && !self.aliases.contains_key(&route.index)
    }

    /// The interfaces that hold one of `addresses`.
    fn holders(&self, addresses: &[IpAddr]) -> BTreeSet<u32> {
        let held = self.observed.addresses.iter().filter(|one| addresses.contains(&one.address));
        held.map(|one| one.index).collect()
    }

    /// The interfaces with one of these names, which Windows compares without regard to case.
    fn called(&self, names: &[&str]) -> BTreeSet<u32> {
        let is_one = |alias: &str| names.iter().any(|name| name.to_lowercase() == alias.to_lowercase());
        self.aliases.iter().filter(|(_, alias)| is_one(alias)).map(|(index, _)| *index).collect()
    }

    /// The management interface and the pod interface.
    fn places(&self, cluster: &Cluster, node: &Node) -> Result<(InterfaceRef, InterfaceRef), Vec<String>> {
        let addresses: Vec<IpAddr> = node.addresses.iter().map(|(_, address)| *address).collect();
        let gateways: Vec<IpAddr> =
            Family::ALL.into_iter().filter_map(|family| node.pod_gateway(family)).collect();
        let alias = cluster.egress_interface_of(node).map(InterfaceName::as_str);
        let management = match alias {
            Some(alias) => self.called(&[alias]),
            None => self.holders(&addresses),
        };
        let holders = self.holders(&gateways);
        let pod = if holders.is_empty() { self.called(&POD_ALIASES) } else { holders };
        let sought =
            alias.map_or_else(|| format!("holds {}", or(&addresses)), |alias| format!("is called {alias}"));
        let management = self.only(&management, &format!("interface that {sought}"));
        let pod = self.only(
            &pod,
            &format!("pod interface, which holds {} or is called {}", or(&gateways), or(&POD_ALIASES)),
        );
        match (management, pod) {
            (Ok(management), Ok(pod)) => Ok((management, pod)),
            (management, pod) => Err([management.err(), pod.err()].into_iter().flatten().collect()),
        }
    }

    fn only(&self, found: &BTreeSet<u32>, what: &str) -> Result<InterfaceRef, String> {
        if let (Some(index), 1) = (found.first(), found.len()) {
            return Ok(InterfaceRef {
                index: *index,
                alias: self.aliases.get(index).copied().unwrap_or_default().to_owned(),
            });
        }
        let names: BTreeSet<&str> = self.aliases.values().copied().collect();
        let names: Vec<&str> = names.into_iter().collect();
        Err(format!("expected exactly one {what}, found {}; interfaces: {}", found.len(), names.join(", ")))
    }
}

fn or<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
