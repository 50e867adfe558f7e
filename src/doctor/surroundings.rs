//! Examines interfaces, sysctls, neighbors, and the routes of removed nodes.

use std::collections::HashSet;

use ipnet::IpNet;

use super::{Effect, Examination, TrafficEffects, cloud, egress, finding, set_sysctls};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        ChainIndex, Direction, ForwardingModel, Packet, Passage, Paths, SAMPLE_PORT, Transport, Way,
        delete_route, interface_key, outside_address,
    },
    model::{Family, NatSource, Prefixed, SysctlKey, is_link_local, pod_address},
    state::{MatchedChains, Route, RouteType},
    text::{Untrusted, count, list},
};

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    routes_of_nobody: &[&Route],
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    if let Some(found) = no_carrier(examination) {
        effects.on_everything(Effect::Lost);
        findings.push(found);
    }
    findings.extend(default_forwarding(examination, paths));
    findings.extend(connection_table(examination));
    findings.extend(neighbor_table(examination));
    findings.extend(silent_neighbors(examination, effects));
    findings.extend(mtu(examination, paths));
    findings.extend(routes_of_nobody.iter().take(20).map(|route| of_nobody(route)));
    findings.extend(other_networks(examination, paths, model));
    findings
}

/// Reports an egress interface without a carrier. The plan already reports one that is administratively down.
fn no_carrier(examination: &Examination<'_>) -> Option<Diagnostic> {
    let link = egress(examination).filter(|link| link.up && link.carrier == Some(false))?;
    Some(finding(
        Rule::NoCarrier,
        format!("egress interface {} has no carrier: no packet leaves the node through it", link.name),
        "check the cable and the port at the other end or, for a virtual interface, the interface below it",
    ))
}

/// Reports that interfaces created from now on do not forward, if the node has no pod interface yet or creates one for each pod.
fn default_forwarding(examination: &Examination<'_>, paths: &Paths<'_>) -> Option<Diagnostic> {
    // IPv6 packets pass if the node forwards at all.
    let key = interface_key(Family::V4, "default", "forwarding")?;
    let is_missing = paths.missing().iter().any(|cidr| Family::from(*cidr) == Family::V4);
    let is_of_pod = |route: &&Route| {
        let pods = &examination.node().pods;
        let is_single = route.destination.prefix_len() == route.destination.max_prefix_len();
        is_single
            && route.destination.addr().is_ipv4()
            && !route.kind.is_local()
            && route.next_hop.gateway.is_none()
            && pods.containing(route.destination.addr()).is_some()
    };
    let host = &examination.observed.host;
    let has_interface_for_each = || host.foreign.iter().chain(&host.others).any(|route| is_of_pod(&route));
    let is_zero =
        |key: &SysctlKey| examination.observed.state.sysctls.get(key).is_some_and(|value| *value == "0");
    // The kernel sets it together with the forwarding of the node, which the plan enables.
    let is_off = is_zero(&key) && !is_zero(&SysctlKey::ipv4_forwarding());
    let what = match is_off {
        true if is_missing => "the pod interface, once created, will not forward packets",
        true if has_interface_for_each() => "the interfaces of new pods will not forward packets",
        _ => return None,
    };
    Some(finding(
        Rule::NewInterfacesDoNotForward,
        format!("{key} is 0: {what}"),
        format!(
            "{}, and find out what disables it, such as a file in /etc/sysctl.d",
            set_sysctls(examination, &[(key, "1".to_owned())])
        ),
    ))
}

/// Reports a connection tracking table that is nearly full: the kernel then drops new connections.
fn connection_table(examination: &Examination<'_>) -> Option<Diagnostic> {
    let sysctls = &examination.observed.state.sysctls;
    let key = |name| SysctlKey::from_parts(["net", "netfilter", name]).ok();
    let value = |key: &SysctlKey| -> Option<u64> { sysctls.get(key)?.as_raw().parse().ok() };
    let maximum = key("nf_conntrack_max")?;
    let (now, limit) = (value(&key("nf_conntrack_count")?)?, value(&maximum)?);
    // 0 means unlimited.
    (limit > 0 && now >= limit / 10 * 9).then(|| {
        finding(
            Rule::ConnectionTableFull,
            format!(
                "the node tracks {now} connections, and net.netfilter.nf_conntrack_max is {limit}: a full table drops new connections"
            ),
            format!(
                "find out what opens them, or raise the limit: {}",
                set_sysctls(examination, &[(maximum, limit.saturating_mul(4).to_string())])
            ),
        )
    })
}

/// Reports a neighbor table with too little room for all next hops: `gc_thresh3` is its maximum size.
fn neighbor_table(examination: &Examination<'_>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        if !examination.cluster.prefixes.has(family) {
            continue;
        }
        let Ok(key) = SysctlKey::from_parts(["net", name, "neigh", "default", "gc_thresh3"]) else {
            continue;
        };
        let limit = examination
            .observed
            .state
            .sysctls
            .get(&key)
            .and_then(|value| value.as_raw().parse::<usize>().ok());
        let nodes = examination.size;
        if let Some(limit) = limit.filter(|limit| *limit < 2 * nodes) {
            findings.push(finding(
                Rule::NeighborTableSmall,
                format!(
                    "{key} is {limit}, which is less than twice the {}: the neighbor table can overflow",
                    count(nodes, "node")
                ),
                set_sysctls(examination, &[(key, (4 * nodes).to_string())]),
            ));
        }
    }
    findings
}

/// Reports next hops that did not answer the kernel's last request.
fn silent_neighbors(examination: &Examination<'_>, effects: &mut TrafficEffects) -> Option<Diagnostic> {
    let silent: HashSet<_> = examination
        .observed
        .host
        .neighbors
        .iter()
        .filter(|neighbor| neighbor.unanswered)
        .map(|neighbor| (neighbor.address, &neighbor.device))
        .collect();
    let desired = &examination.prepared.desired;
    let names: Vec<String> = desired
        .routes_to_nodes()
        .filter_map(|(route, node)| {
            let (gateway, device) = (route.next_hop.gateway?, route.next_hop.device.as_ref()?);
            let name = &examination.cluster.nodes[node].name;
            silent.contains(&(gateway, device)).then(|| {
                effects.on_node(name.clone(), Direction::Out, Effect::Lost);
                format!("{gateway} (node {name})")
            })
        })
        .collect();
    (!names.is_empty()).then(|| {
        finding(
            Rule::NextHopSilent,
            format!("{} did not answer: {}", count(names.len(), "next hop"), list(&names, 6)),
            format!(
                "check that each node is up and has the configured address; {}",
                cloud::advice(examination)
            ),
        )
    })
}

fn mtu(examination: &Examination<'_>, paths: &Paths<'_>) -> Option<Diagnostic> {
    let egress = egress(examination)?;
    let path = paths.samples().into_iter().find(|path| path.direction == Direction::Out)?;
    let pods = examination.observed.host.link(path.packet.input.as_ref()?.as_raw())?;
    let (outer, inner) = (egress.mtu?, pods.mtu?);
    let limit = examination.cluster.mtu_of(examination.node()).unwrap_or(outer);
    (inner > outer.min(limit)).then(|| {
        finding(
            Rule::MtuDiffers,
            format!(
                "the MTU of {} is {inner} bytes, but packets to other nodes can have at most {} bytes; larger ones rely on path MTU discovery",
                pods.name,
                outer.min(limit)
            ),
            format!("set the MTU in the CNI configuration to {}, and restart the pods", outer.min(limit)),
        )
    })
}

/// Returns the foreign routes to parts of the cluster prefix that no node has, such as those of removed nodes.
pub(super) fn routes_of_nobody<'a>(examination: &Examination<'a>) -> Vec<&'a Route> {
    let cluster = examination.cluster;
    let of_nodes: HashSet<IpNet> =
        cluster.nodes.iter().flat_map(|node| node.pods.iter().map(Prefixed::prefix)).collect();
    let belongs = |prefix: IpNet| {
        let mut wider = std::iter::successors(Some(prefix), IpNet::supernet);
        wider.any(|prefix| of_nodes.contains(&prefix))
    };
    let is_of_nobody = |route: &&Route| {
        let destination = route.destination;
        let is_inside =
            cluster.prefixes.iter().any(|whole| whole.contains(&destination) && *whole != destination);
        is_inside
            && !route.is_owned()
            && route.kind == RouteType::Unicast
            && route.next_hop.gateway.is_some()
            && !belongs(destination)
            && !of_nodes.iter().any(|prefix| destination.contains(prefix))
    };
    let routes = examination.observed.state.routes.iter().chain(&examination.observed.host.foreign);
    routes.filter(is_of_nobody).collect()
}

fn of_nobody(route: &Route) -> Diagnostic {
    let with = delete_route(route).map_or_else(String::new, |command| format!(" with `{command}`"));
    finding(
        Rule::RouteOfNobody,
        format!(
            "the route `{route}` leads to a part of the cluster prefix that belongs to no node in the configuration"
        ),
        format!(
            "if its node has left the cluster, remove it{with}; otherwise, add the node to the configuration"
        ),
    )
}

/// Reports other networks behind this node whose packets hostgw also masquerades.
fn other_networks(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
) -> Vec<Diagnostic> {
    let Examination { cluster, observed, .. } = examination;
    let (Some(egress), Some(firewall)) = (egress(examination), &observed.host.firewall) else {
        return Vec::new();
    };
    if !cluster.nat.masquerade || cluster.nat.source != NatSource::Any {
        return Vec::new();
    }
    let chains = ChainIndex::new(firewall);
    let pods: Vec<Untrusted> = paths.samples().into_iter().filter_map(|path| path.packet.input).collect();
    let is_other_bridge = |name: &Untrusted| {
        let link = observed.host.link(name.as_raw());
        !pods.contains(name)
            && *name != egress.name
            && link.is_some_and(|link| link.up && link.is_a("bridge"))
    };
    let networks = observed.host.addresses.iter().filter(|local| {
        let family = Family::from(local.address);
        cluster.prefixes.has(family)
            && cluster.prefixes.containing(local.address).is_none()
            && local.prefix.prefix_len() < family.bits()
            && is_other_bridge(&local.device)
            && !is_link_local(local.address)
    });
    networks
        .filter(|local| {
            let source = pod_address(local.prefix, Some(local.address));
            let destination = outside_address(Family::from(source));
            let packet = Packet { source, destination, input: Some(local.device.clone()) };
            let passage = Passage {
                packet: &packet,
                transport: Transport::Tcp,
                port: SAMPLE_PORT,
                way: Way::Through,
                output: &egress.name,
                is_reply: false,
            };
            // If another program masquerades these packets, hostgw makes no difference.
            let masquerade = chains.follow(model, &passage, MatchedChains::Others).masquerade;
            !masquerade.is_some_and(|masquerade| masquerade.is_certain())
        })
        .map(|local| {
            finding(
                Rule::OtherNetworks,
                format!(
                    "nat.source is `any`, so hostgw also masquerades packets from {} on {}",
                    local.prefix, local.device
                ),
                "if hosts there should keep their source addresses, set nat.source: pods; destinations outside then need a return route to them",
            )
        })
        .collect()
}
