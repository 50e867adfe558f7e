//! Finds problems that would make a plan fail or cut the node off, before anything is written.

use std::{cmp::Ordering, collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{
    config,
    diagnose::{Diagnostic, Rule},
    model::{Cluster, ConfigPath, Family, Node, Prefixed, SysctlKey},
    state::{AddressFlag, InterfaceAddress, NatTable, Route, State, protocol},
    text::{self, ShellCommand, Untrusted, count, list, nearest, printable},
};

use super::{
    Desired, Observed, Plan, egress,
    off_link::{OnLink, UnusableNextHop, skipped},
};

/// Checks the desired state of the node at `index` of `cluster` against its live state. Returns every problem found.
#[must_use]
pub fn check(cluster: &Cluster, index: usize, desired: &Desired, observed: &Observed) -> Vec<Diagnostic> {
    let context = CheckContext { cluster, index, desired, observed };
    let mut problems = Vec::new();
    if let Some(device) = egress_interface(&context, &mut problems) {
        check_next_hops(&context, device, &mut problems);
        check_router(&context, device, &mut problems);
        check_sources(&context, &mut problems);
    }
    check_sysctls(&context, &mut problems);
    check_router_advertisements(&context, &mut problems);
    problems
}

/// The desired state of a node, and the live state to check it against.
#[derive(Clone, Copy)]
struct CheckContext<'a> {
    cluster: &'a Cluster,
    index: usize,
    desired: &'a Desired,
    observed: &'a Observed,
}

/// Reports routes that would cut off the node's router: they contain its address and are more specific than the network
/// that it is reached through now.
fn check_router(context: &CheckContext, device: &str, problems: &mut Vec<Diagnostic>) {
    let CheckContext { cluster, desired, observed, .. } = *context;
    let foreign = &observed.host.foreign;
    let defaults = foreign.iter().filter(|route| route.destination.prefix_len() == 0);
    for router in defaults.filter_map(|route| route.next_hop.gateway) {
        let on_link = observed.host.on_link(device).filter(|network| network.contains(&router));
        let now = on_link.map(|network| network.prefix_len()).max().unwrap_or(0);
        let captures =
            |route: &&Route| route.destination.contains(&router) && route.destination.prefix_len() > now;
        for route in desired.state.routes.iter().filter(captures) {
            problems.push(
                Diagnostic::new(
                    Rule::CutsOffRouter,
                    format!(
                        "the route to {} would cut the node off: it contains {router}, this node's router",
                        route.destination
                    ),
                )
                .at(desired.route_origin(cluster, &route.key()))
                .with_remedy("use a pod CIDR outside the nodes' network"),
            );
        }
    }
}

/// Reports default routes that would be lost. With IPv6 forwarding, an interface accepts router advertisements only if
/// `accept_ra` is 2; otherwise the kernel immediately removes the default routes that it learned from them, and no
/// rollback can restore them.
fn check_router_advertisements(context: &CheckContext, problems: &mut Vec<Diagnostic>) {
    let CheckContext { desired, observed, .. } = *context;
    let switch = SysctlKey::ipv6_forwarding();
    let is_enabled = |state: &State| state.sysctls.get(&switch).is_some_and(|value| value != "0");
    if !is_enabled(&desired.state) || is_enabled(&observed.state) {
        return;
    }
    let by_advertisement = |route: &&Route| {
        route.family() == Family::V6
            && route.destination.prefix_len() == 0
            && [protocol::KERNEL, protocol::RA].contains(&route.protocol)
    };
    for route in observed.host.foreign.iter().filter(by_advertisement) {
        let Some(device) = &route.next_hop.device else { continue };
        let Ok(key) = SysctlKey::from_parts(["net", "ipv6", "conf", device.as_raw(), "accept_ra"]) else {
            continue;
        };
        let value = desired.state.sysctls.get(&key).or_else(|| observed.state.sysctls.get(&key));
        if value.is_none_or(|value| value != "2") {
            problems.push(Diagnostic::new(Rule::LosesAdvertisedRoute, format!(
                    "{switch} = 1 would cut the node off: the kernel removes {route}, learned from router advertisements, unless {key} is 2"
                )).at(Some(ConfigPath::root().key("sysctls"))).with_remedy(format!("add `{key}: 2` under sysctls")));
        }
    }
}

/// Returns the egress interface, if it can carry routes at all.
fn egress_interface<'a>(context: &CheckContext<'a>, problems: &mut Vec<Diagnostic>) -> Option<&'a str> {
    let CheckContext { cluster, index, observed, .. } = *context;
    let node = &cluster.nodes[index];
    let name = cluster.egress_interface_of(node)?.as_str();
    let own = ConfigPath::root().key("nodes").index(index);
    let path = match (node.egress_interface(), &cluster.egress_interface) {
        (Some(_), _) => own.key("egressInterface"),
        (None, Some(_)) => ConfigPath::root().key("egressInterface"),
        (None, None) => own.key("address"),
    };
    let mut problem = |rule, message, remedy| {
        problems.push(Diagnostic::new(rule, message).at(Some(path.clone())).with_remedy_if(remedy));
    };
    match observed.host.link(name) {
        None => {
            let names: Vec<&Untrusted> = observed.host.links.iter().map(|link| &link.name).collect();
            let nearest = nearest(name, names.iter().map(|name| name.as_raw()))
                .map_or_else(String::new, |nearest| format!("did you mean {}? ", printable(nearest)));
            let message = format!("egress interface {name} does not exist on this node");
            problem(
                Rule::EgressMissing,
                message,
                Some(format!("{nearest}interfaces on this node: {}", list(&names, 12))),
            );
            None
        }
        Some(link) if !link.up => {
            let message = format!("egress interface {name} is down; the kernel rejects routes through it");
            problem(
                Rule::EgressDown,
                message,
                Some(format!(
                    "bring it up first: `{}`",
                    ShellCommand::new(["ip", "link", "set", name, "up"])
                )),
            );
            None
        }
        Some(link) => {
            if let Some(port) = egress::port_of(link, &observed.host) {
                problems.push(port.at(Some(path)));
                return None;
            }
            Some(name)
        }
    }
}

/// Reports next hops that the kernel would reject, and those that are addresses of this node.
fn check_next_hops(context: &CheckContext, device: &str, problems: &mut Vec<Diagnostic>) {
    let CheckContext { cluster, index, desired, observed } = *context;
    let node = &cluster.nodes[index];
    let on_link = OnLink::of(device, desired, &observed.host);
    let local: std::collections::HashMap<_, _> =
        observed.host.addresses.iter().map(|local| (local.address, local)).collect();
    let is_this_node = node.addresses.iter().any(|(_, address)| local.contains_key(address));
    for route in &desired.state.routes {
        let Some(gateway) = route.next_hop.gateway else { continue };
        let holder = local.get(&gateway);
        if holder.is_none() && (route.next_hop.onlink || on_link.covers(gateway)) {
            continue;
        }
        let name = desired
            .node_of(&route.key())
            .map_or_else(|| "?".into(), |other| cluster.nodes[other].name.clone());
        let path = desired.route_origin(cluster, &route.key());
        let unusable = UnusableNextHop { next_hop: gateway, other: &name, device };
        let problem = match holder {
            Some(holder) => {
                let remedy = match is_this_node {
                    true => stray_address_hint(holder, &name),
                    false => own_address_hint(&name, &node.name),
                };
                unusable.report_local(&holder.device).with_remedy(remedy)
            }
            None => unusable.report_off_link(cluster.off_link, &on_link, "ip address add"),
        };
        problems.push(problem.at(path));
    }
}

/// Reports source addresses that this node does not have. The kernel rejects them in routes, and replies to masqueraded
/// packets would not arrive here.
fn check_sources(context: &CheckContext, problems: &mut Vec<Diagnostic>) {
    let CheckContext { cluster, index, desired, observed } = *context;
    let node = &cluster.nodes[index];
    let of_routes: BTreeSet<IpAddr> = desired.state.routes.iter().filter_map(|route| route.source).collect();
    let tables = Family::ALL.into_iter().filter_map(|family| desired.state.nat.get(family));
    let of_nat: BTreeSet<IpAddr> = tables.flat_map(NatTable::source_addresses).collect();
    for source in of_routes.union(&of_nat).copied() {
        let what = match (of_routes.contains(&source), of_nat.contains(&source)) {
            (true, true) => "routes and of masqueraded packets",
            (true, false) => "routes",
            (false, _) => "masqueraded packets",
        };
        let why = match observed.host.owner_of(source) {
            Some(local) if local.flags.contains(&AddressFlag::DadFailed) => {
                format!("another machine has it, so {} does not use it", local.device)
            }
            Some(local) if !local.is_used() => {
                format!("duplicate address detection for it has not finished on {}", local.device)
            }
            Some(_) => continue,
            None => "no interface has it".to_owned(),
        };
        let message = format!("{source} (node {}) cannot be the source of {what}: {why}", node.name);
        let remedy = "if this machine is another node, pass --node NAME; otherwise, fix the node's address in the configuration";
        problems.push(
            Diagnostic::new(Rule::SourceNotLocal, message)
                .at(Some(ConfigPath::root().key("nodes").index(index).key("address")))
                .with_remedy(remedy),
        );
    }
}

fn own_address_hint(other: &Untrusted, this: &Untrusted) -> String {
    format!(
        "this machine looks like node {other}, not {this}; pass --node {other}, or fix the address in the file"
    )
}

/// The hint about an address of the node `other` on a machine that has its own node's address, too.
fn stray_address_hint(local: &InterfaceAddress, other: &Untrusted) -> String {
    let InterfaceAddress { address, device, .. } = local;
    let option = if address.is_ipv6() { "-6" } else { "-4" };
    let with_length = format!("{address}/{}", local.prefix.prefix_len());
    let remove = ShellCommand::new(["ip", option, "address", "del", &with_length, "dev", device.as_raw()]);
    format!(
        "remove it with `{remove}` if it was left over from another setup; if this machine is node {other}, pass --node {other}"
    )
}

/// Reports configured sysctls that this kernel does not have.
fn check_sysctls(context: &CheckContext, problems: &mut Vec<Diagnostic>) {
    let CheckContext { cluster, desired, observed, .. } = *context;
    let is_unreadable = |key: &SysctlKey| {
        observed.state.unknown.iter().any(|u| u.part == crate::state::StatePart::Sysctl { key: key.clone() })
    };
    // In a fixed order.
    let configured: BTreeSet<&SysctlKey> = cluster.sysctls.iter().map(|(key, _)| key).collect();
    for key in configured.iter().filter(|key| key.as_str().ends_with(".disable_ipv6")) {
        problems.push(
            Diagnostic::new(
                Rule::DisableIpv6,
                format!(
                    "{key} cannot be managed by hostgw: it removes addresses, which no rollback can restore"
                ),
            )
            .at(Some(ConfigPath::root().key("sysctls").key(key.as_str())))
            .with_remedy("set it where you configure the node's addresses"),
        );
    }
    for key in desired.state.sysctls.keys() {
        if observed.state.sysctls.contains_key(key) || is_unreadable(key) {
            continue;
        }
        // A released sysctl whose interface no longer exists cannot be restored.
        let implied = [SysctlKey::ipv4_forwarding(), SysctlKey::ipv6_forwarding()].contains(key);
        if configured.contains(key) {
            problems.push(Diagnostic::new(Rule::SysctlMissing, format!("this kernel has no sysctl {key}")).at(Some(ConfigPath::root().key("sysctls").key(key.as_str()))).with_remedy(format!(
                    "/proc/sys/{} does not exist: check the name, or load the kernel module that provides it",
                    text::path(&key.file())
                )));
        } else if implied {
            problems.push(
                Diagnostic::new(
                    Rule::SysctlMissing,
                    format!("this kernel has no sysctl {key}, so it cannot forward"),
                )
                .at(Some(ConfigPath::root().key("clusterPrefix")))
                .with_remedy("check whether the address family of the cluster prefix is disabled"),
            );
        }
    }
}

/// The maximum number of foreign routes in the warnings.
const MAX_LISTED: usize = 10;

/// Returns the problems that deserve a warning although the plan can be applied. `is_known` tells whether another finding is
/// about a foreign route.
pub fn warnings(
    cluster: &Cluster,
    index: usize,
    desired: &Desired,
    observed: &Observed,
    is_known: impl Fn(&Route) -> bool,
) -> Vec<Diagnostic> {
    let node = &cluster.nodes[index];
    let mut warnings = Vec::new();
    let is_local = |address| observed.host.owner_of(address).is_some();
    let addresses: Vec<_> = node.addresses.iter().map(|(_, address)| *address).collect();
    if !addresses.is_empty() && !addresses.iter().any(|address| is_local(*address)) {
        let (addresses, name) = (list(&addresses, 2), &node.name);
        let message = format!("no local interface has {addresses} (node {name}); is this the right machine?");
        let remedy = "pass --node NAME if this machine is another node; otherwise, fix the address in the configuration";
        let path = ConfigPath::root().key("nodes").index(index).key("address");
        warnings.push(Diagnostic::new(Rule::AddressElsewhere, message).at(Some(path)).with_remedy(remedy));
    }
    let by_v6_gateway = |(route, node): (&Route, usize)| {
        route.family() == Family::V6 && config::is_ipv6_pod_gateway(cluster, &cluster.nodes[node])
    };
    if desired.routes_to_nodes().any(by_v6_gateway) {
        warnings.extend(config::ipv6_pod_gateways(cluster));
    }
    warnings.extend(config::nodes_as_routers(cluster));
    warnings.extend(skipped(cluster, index, &desired.skipped));
    warnings.extend(mtu_above_interface(cluster, index, desired, observed));
    warnings.extend(pod_network_too_large(cluster, index, observed));
    let foreign = observed.host.foreign.iter().filter(|route| !is_known(route));
    let mut shadows = foreign.filter_map(|foreign| shadow(node, desired, foreign));
    warnings.extend(shadows.by_ref().take(MAX_LISTED));
    match shadows.count() {
        0 => {}
        more => warnings.push(Diagnostic::new(
            Rule::ShadowedByForeign,
            format!("{} like these", count(more, "more foreign route")),
        )),
    }
    warnings
}

/// Reports routes with a larger MTU than the egress interface, which drops packets of that size.
fn mtu_above_interface(
    cluster: &Cluster,
    index: usize,
    desired: &Desired,
    observed: &Observed,
) -> Option<Diagnostic> {
    let node = &cluster.nodes[index];
    let interface = cluster.egress_interface_of(node)?;
    let limit = observed.host.link(interface.as_str())?.mtu?;
    let routes = desired.state.routes.iter();
    let mtu = routes.filter_map(|route| route.mtu).filter(|mtu| *mtu > limit).max()?;
    let path = match node.mtu() {
        Some(_) => ConfigPath::root().key("nodes").index(index).key("mtu"),
        None => ConfigPath::root().key("routes").key("mtu"),
    };
    let message = format!(
        "routes with an MTU of {mtu} bytes lead through {interface}, whose MTU is {limit}: it drops larger packets"
    );
    let remedy = format!("raise the MTU of {interface}, or set the node's mtu to {limit}");
    Some(Diagnostic::new(Rule::MtuAboveInterface, message).at(Some(path)).with_remedy(remedy))
}

/// Reports an address in the node's pod CIDR whose network contains pods of other nodes.
fn pod_network_too_large(cluster: &Cluster, index: usize, observed: &Observed) -> Option<Diagnostic> {
    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| *at != index);
    let has_others = |prefix: IpNet| {
        let mut pods = others.clone().flat_map(|(_, node)| node.pods.iter().map(Prefixed::prefix));
        pods.any(|pods| prefix.contains(&pods))
    };
    observed.host.addresses.iter().find_map(|local| {
        let own = cluster.nodes[index].pods.iter().map(Prefixed::prefix);
        let own = own.into_iter().find(|own| own.contains(&local.address))?;
        if local.prefix.prefix_len() >= own.prefix_len() || !has_others(local.prefix) {
            return None;
        }
        let (device, length) = (&local.device, own.prefix_len());
        let message =
            format!("the network of {device}, {}, contains pods of other nodes", local.prefix.trunc());
        let path = ConfigPath::root().key("nodes").index(index).key("podCIDR");
        Some(Diagnostic::new(Rule::PodNetworkTooLarge, message).at(Some(path)).with_remedy(format!(
            "the prefix length must be that of the node's pod CIDR, {length}: correct `subnet` in the CNI configuration"
        )))
    })
}

/// Returns the removals of a plan that no rollback can undo.
#[must_use]
pub fn irrevocable(plan: &Plan) -> Vec<Diagnostic> {
    let tables = plan.changes.iter().filter_map(|change| change.as_nat()?.before.as_ref());
    tables
        .filter(|table| !table.can_be_restored())
        .map(|table| {
            let (family, lost) = (table.family.nft(), table.unrestorable().join(", "));
            let message = format!("no rollback can restore {lost} in table `{family} {}`", NatTable::NAME);
            Diagnostic::new(Rule::Irrevocable, message)
                .with_remedy("to keep them, move them to another table before you apply")
        })
        .collect()
}

/// Returns a warning if a foreign route and a planned one interfere although their keys differ.
fn shadow(node: &Node, desired: &Desired, foreign: &Route) -> Option<Diagnostic> {
    let in_own_pods = node.pods.around(foreign.destination).is_some();
    let table = desired.state.routes.first()?.table;
    if in_own_pods || foreign.table != table || foreign.destination.prefix_len() == 0 {
        return None;
    }
    if let Some(route) = planned(desired, foreign.destination, table) {
        if let Some(from) = foreign.source_prefix() {
            let message = format!(
                "the foreign route {foreign} is only for packets from {from}, but keeps all others from using {route}"
            );
            return Some(shadowed(foreign, message));
        }
        return match foreign.metric.cmp(&route.metric) {
            Ordering::Equal => None,
            Ordering::Less => Some(shadowed(
                foreign,
                format!("the foreign route {foreign} has a lower metric and takes precedence over {route}"),
            )),
            Ordering::Greater => Some(
                Diagnostic::new(
                    Rule::ShadowsForeign,
                    format!(
                        "{route} has a lower metric and takes precedence over the foreign route {foreign}"
                    ),
                )
                .with_remedy(format!(
                    "to prefer the foreign route, set routes.metric to a value above {}",
                    foreign.metric
                )),
            ),
        };
    }
    let device = foreign.next_hop.device.clone().unwrap_or_default();
    let is_network = foreign.protocol == protocol::KERNEL && foreign.is_on_link(device.as_raw());
    let mut routes = desired.state.routes.iter();
    if let Some(inside) = routes.find(|route| is_network && foreign.destination.contains(&route.destination))
    {
        let message = format!(
            "{} is part of {}, the network of {device}: traffic to machines with these addresses will go to pods instead",
            inside.destination, foreign.destination
        );
        return Some(
            Diagnostic::new(Rule::InsideNodeNetwork, message)
                .with_remedy("use a cluster prefix outside the nodes' networks"),
        );
    }
    let wider = std::iter::successors(foreign.destination.supernet(), IpNet::supernet)
        .find_map(|prefix| planned(desired, prefix, table))?;
    let message = format!(
        "the foreign route {foreign} is more specific than the managed route to {} and takes precedence over it",
        wider.destination
    );
    Some(shadowed(foreign, message))
}

/// Returns the warning about a foreign route that takes precedence.
fn shadowed(foreign: &Route, message: String) -> Diagnostic {
    let remedy = crate::forwarding::remove_route(foreign);
    Diagnostic::new(Rule::ShadowedByForeign, message).with_remedy_if(remedy)
}

/// Returns the planned route to a prefix.
fn planned(desired: &Desired, destination: IpNet, table: u32) -> Option<&Route> {
    let routes = &desired.state.routes;
    let at = routes.partition_point(|route| (route.table, route.destination) < (table, destination));
    routes.get(at).filter(|route| route.table == table && route.destination == destination)
}
