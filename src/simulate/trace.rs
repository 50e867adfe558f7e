//! Finds the hop that dropped a packet.

use std::net::IpAddr;

use super::{
    build::Lab,
    topology::{Machine, Topology},
    trial::Trial,
};
use crate::{
    error::Error,
    kernel::{Interfaces, Lookup, inside},
    model::{Family, MAIN_TABLE, NextHopKind, OffLink},
};

/// Returns why the node of `from` got no answer from the pod of `to`, as far as the two nodes can tell.
///
/// # Errors
/// Returns an error if a node cannot be queried.
pub fn between(
    lab: &Lab,
    topology: &Topology,
    trial: &Trial,
    to: usize,
    family: Family,
) -> Result<String, Error> {
    let from = trial.from;
    if from == to {
        return Ok(format!("lost on node {}: its own pod does not answer", topology.machines[from].name));
    }
    // Answers to a node go to one of its own addresses, to which hostgw adds no route.
    let own_pod = topology.machines[from].pods_of(family).map(|pods| pods.pod.addr()).next();
    let back = trial.source.or(own_pod);
    for (here, there, pod) in [(from, to, Some(trial.probe.to)), (to, from, back)] {
        let Some(pod) = pod else { continue };
        if let Some(reason) = trace_one_way(lab, topology, [here, there], pod, family)? {
            return Ok(reason);
        }
    }
    let (from, to) = (&topology.machines[from].name, &topology.machines[to].name);
    Ok(format!("lost between {from} and {to}: both have a route and both next hops answer"))
}

/// Returns why the pod of `from` got no answer from the outside host, as far as its node can tell.
///
/// # Errors
/// Returns an error if the node cannot be queried.
pub fn to_outside(lab: &Lab, topology: &Topology, from: usize, family: Family) -> Result<String, Error> {
    let name = &topology.machines[from].name;
    let Some((host, _)) = topology.outside.get(family) else { return Ok("no outside host".to_owned()) };
    let (lookup, answers) = next_hop(lab, from, host.addr())?;
    Ok(match lookup.gateway {
        None if lookup.has_route => format!("wrong route: {name} sends to {} on its own link", host.addr()),
        None => format!("no route: {name} has no route to {}", host.addr()),
        Some(gateway) if answers == Some(false) => {
            format!("no neighbor: {gateway} does not answer on {name}'s link")
        }
        Some(gateway) => format!(
            "no return route: {name} sends to {gateway} and gets no answer; the outside host has no route to sources that are not masqueraded"
        ),
    })
}

/// Returns the next hop from node `here` to `destination`, and whether it answers.
fn next_hop(lab: &Lab, here: usize, destination: IpAddr) -> Result<(Lookup, Option<bool>), Error> {
    inside(&lab.nodes[here].0, || {
        let mut interfaces = Interfaces::open()?;
        let lookup = interfaces.lookup(destination)?;
        let answers = lookup.gateway.map(|gateway| interfaces.neighbor_answers(gateway)).transpose()?;
        Ok((lookup, answers.flatten()))
    })
}

/// Returns what is wrong with the path from node `here` to the address `pod` of the pod of node `there`.
fn trace_one_way(
    lab: &Lab,
    topology: &Topology,
    [here, there]: [usize; 2],
    pod: IpAddr,
    family: Family,
) -> Result<Option<String>, Error> {
    let (source, target) = (&topology.machines[here], &topology.machines[there]);
    let name = &source.name;
    let (lookup, answers) = next_hop(lab, here, pod)?;
    let Some(gateway) = lookup.gateway.filter(|_| lookup.has_route) else {
        return Ok(Some(format!("no route: {name} has no next hop for {pod}")));
    };
    let correct = correct_next_hop(topology, source, target, pod);
    let is_default = source.router.get(family).is_some_and(|router| router.addr() == gateway);
    if is_default && correct != Some(gateway) {
        // Simulated nodes have the rule.
        let may_lack_rule = topology.cluster.routes.table != MAIN_TABLE && source.rules.is_empty();
        let check = if may_lack_rule { "; check that a rule looks up the table in routes.table" } else { "" };
        return Ok(Some(format!("no route: on {name} only the default route matches {pod}{check}")));
    }
    if Some(gateway) != correct {
        let at = correct.map_or_else(|| " has none".to_owned(), |at| format!(" is at {at}"));
        return Ok(Some(format!("wrong next hop: {name} sends to {gateway}, but {}{at}", target.name)));
    }
    if answers == Some(false) {
        if source.segment != target.segment {
            let network = |machine: &Machine| {
                machine.addresses.get(family).map_or_else(String::new, |address| address.trunc().to_string())
            };
            return Ok(Some(format!(
                "no neighbor: {gateway} does not answer on {name}'s link, because {} is behind a router: {name} is in {}, and {} is in {}",
                target.name,
                network(source),
                target.name,
                network(target)
            )));
        }
        let why = match (family, next_hop_kind(topology, target, family)) {
            (Family::V6, NextHopKind::PodGateway) => {
                ": with IPv6, Linux only answers for addresses of the receiving interface, and the pod gateway is on another; set nextHop: node-address"
            }
            _ => "",
        };
        return Ok(Some(format!("no neighbor: {gateway} does not answer on {name}'s link{why}")));
    }
    Ok(None)
}

/// The correct next hop from `source` to `target`.
fn correct_next_hop(topology: &Topology, source: &Machine, target: &Machine, pod: IpAddr) -> Option<IpAddr> {
    let family = Family::from(pod);
    if topology.cluster.off_link == OffLink::Gateway && topology.are_apart(source, target, family) {
        return source.router.get(family).map(ipnet::IpNet::addr);
    }
    let at = match next_hop_kind(topology, target, family) {
        NextHopKind::PodGateway => target.pods.iter().map(|pods| pods.bridge).find(|net| net.contains(&pod)),
        NextHopKind::NodeAddress => target.addresses.get(family).copied(),
        NextHopKind::Router(router) => return Some(router),
    };
    at.map(|net| net.addr())
}

fn next_hop_kind(topology: &Topology, target: &Machine, family: Family) -> NextHopKind {
    topology.cluster.next_hop_of(&topology.cluster.nodes[target.index], family)
}
