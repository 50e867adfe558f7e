//! Examines a node for everything visible there that keeps pods from reaching each other, now or soon.
//!
//! - `plan.rs`: whether the node matches the configuration, and what would prevent an apply
//! - `paths.rs`: the paths of pod packets
//! - `filter.rs`: what firewalls and the NAT of other programs do with pod packets
//! - `samples.rs`: the packets that represent all those between pods
//! - `conditions.rs`: firewall rules, and their conditions that hostgw cannot decide, as text
//! - `hosts.rs`: the same for packets between pods and other nodes themselves
//! - `outside.rs`: the same for packets that leave the cluster
//! - `own_packets.rs`: the same for packets of the node itself to pods
//! - `blockage.rs`: the packets that a firewall drops, by the rule or policy that does so
//! - `remedy.rs`: the command that makes a firewall accept pod packets
//! - `programs.rs`: what else sees pod packets besides the firewall, such as XDP and tc
//! - `journey.rs`: the path of one packet, step by step, for `hostgw explain`
//! - `destination.rs`: the rules that change the destination of packets to an address
//! - `effects.rs`: what the findings mean for the packets of pods
//! - `reception.rs`: whether the node receives packets to its own addresses
//! - `same_node.rs`: what keeps pods of this node from each other
//! - `ports.rs`: bridge ports that forward no packets
//! - `second_interface.rs`: other interfaces in the network of the egress interface
//! - `surroundings.rs`: interfaces, sysctls, neighbors, and routes of nodes that are gone
//! - `addresses.rs`: the addresses that other nodes send packets to
//! - `arp.rs`: whether the node resolves its next hops and answers other nodes and its pods
//! - `neighbors.rs`: the neighbor entries of next hops
//! - `other_cni.rs`: routes to pods of other CNIs
//! - `cloud.rs`: cloud networks, which deliver only packets for addresses that they know
//! - `windows.rs`: the examination of a Windows node

mod addresses;
mod arp;
mod blockage;
mod cloud;
mod conditions;
mod destination;
mod effects;
mod filter;
mod hosts;
mod journey;
mod neighbors;
mod other_cni;
mod outside;
mod own_packets;
mod paths;
mod plan;
mod ports;
mod programs;
mod reception;
mod remedy;
mod same_node;
mod samples;
mod second_interface;
mod surroundings;
mod windows;

pub use effects::{Effect, TrafficEffects};
pub use journey::{Guidepost, Journey, JourneyEnd, JourneyStep, StepKind};
pub use windows::{WindowsExamination, WindowsSymptoms, examine_windows, windows_symptoms};

use std::{collections::HashSet, net::IpAddr};

use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{Direction, ForwardingModel, PathFault, Paths},
    model::{Cluster, Family, NextHopKind, Node, SysctlKey},
    plan::{Desired, Observed, Prepared},
    state::{Firewall, Host, InterfaceAddress, Link, Route, RouteKey},
    text::{ShellCommand, Untrusted, count},
};

/// The maximum number of paths to follow through the firewall during an apply, so that it is not noticeably slower, and between what
/// is not a pod at any time.
const MAX_PATHS: usize = 2000;

/// A Linux node to examine.
pub struct Examination<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The index of the node.
    pub index: usize,
    /// The number of all nodes, if `cluster` only has some of them.
    pub size: usize,
    /// The plan, and the part of the live state that it depends on.
    pub prepared: &'a Prepared,
    /// The whole live state, as in a snapshot.
    pub observed: &'a Observed,
}

/// Everything that is wrong with a node.
#[derive(Debug, Clone, Default)]
pub struct Symptoms {
    /// What keeps the node from matching the configuration.
    pub plan: Vec<Diagnostic>,
    /// The paths of pods that will not work even after the plan is applied, as far as rules, routes and sysctls decide.
    pub faults: Vec<PathFault>,
    /// Everything else.
    pub others: Vec<Diagnostic>,
    /// What `others` means for the packets of pods.
    pub effects: TrafficEffects,
}

/// Returns everything that is wrong with a node, the causes of lost packets first.
#[must_use]
pub fn examine(examination: &Examination<'_>) -> Vec<Diagnostic> {
    let Symptoms { plan, faults, others, effects: _ } = symptoms(examination, &examination.paths());
    let faults = faults.iter().map(PathFault::finding);
    plan.into_iter().chain(faults).chain(others).collect()
}

/// Examines a node with these paths.
#[must_use]
pub fn symptoms(examination: &Examination<'_>, paths: &Paths<'_>) -> Symptoms {
    let model = ForwardingModel::of(&examination.observed.state, &examination.observed.host);
    let mut faults = paths::faults_after_apply(examination, paths);
    let mut findings = paths::missing_interface(examination, paths);
    let mut effects = TrafficEffects::default();
    findings.extend(filter::examine(examination, paths, &model, &mut effects));
    findings.extend(outside::silent_gateways(examination, paths));
    findings.extend(programs::examine(examination, paths, &mut effects));
    findings.extend(arp::examine(examination, paths, &model, &mut effects));
    findings.extend(same_node::isolated(examination, paths));
    findings.extend(ports::examine(examination, paths, &mut effects));
    findings.extend(second_interface::examine(examination, paths, &model, &mut effects));
    findings.extend(reception::examine(examination, paths, &model, &mut effects));
    let of_nobody = surroundings::routes_of_nobody(examination);
    findings.extend(surroundings::examine(examination, paths, &model, &of_nobody, &mut effects));
    findings.extend(neighbors::examine(examination, paths, &mut effects));
    findings.extend(addresses::examine(examination, paths, &mut effects));
    findings.extend(other_cni::examine(examination));
    findings.extend(cloud::examine(examination, &mut effects));
    // They have the same cause.
    if findings.iter().any(|found| found.rule == Rule::OwnAddressUnreachable) {
        faults.retain(|fault| !fault.is_only_to_node());
    }
    let is_known = |found: &Diagnostic| faults.iter().any(|fault| fault.remedy == found.remedy);
    findings.retain(|found| found.rule != Rule::OtherNodesBlocked || !is_known(found));
    let culprits: HashSet<&RouteKey> = faults.iter().filter_map(|fault| fault.culprit.as_ref()).collect();
    let of_nobody: HashSet<RouteKey> = of_nobody.into_iter().map(Route::key).collect();
    let is_known = |route: &Route| culprits.contains(&route.key()) || of_nobody.contains(&route.key());
    let plan = plan::examine(examination, is_known);
    if plan.iter().any(|found| found.rule == Rule::EgressIsPort) {
        // The answers to its ARP requests arrive on another interface.
        Family::ALL.into_iter().for_each(|family| effects.on_all(family, Direction::Out, Effect::Lost));
    }
    Symptoms { plan, faults, others: findings, effects }
}

/// Returns the errors that `hostgw apply` reports about firewalls: what they certainly do to the packets of this node's pods.
/// `firewall` is passed separately because `observed` has none.
#[must_use]
pub fn firewall_errors(
    cluster: &Cluster,
    index: usize,
    desired: &Desired,
    observed: &Observed,
    firewall: &Firewall,
) -> Vec<Diagnostic> {
    let paths = crate::plan::paths(cluster, index, desired, observed);
    let model = ForwardingModel::of(&observed.state, &observed.host);
    filter::errors(firewall, &observed.host, &paths, &model, MAX_PATHS)
}

/// Returns notes about what hostgw cannot examine on this node: sentences in lower case without a period.
#[must_use]
pub fn notes(examination: &Examination<'_>) -> Vec<String> {
    let paths = examination.paths();
    cloud::note(examination).into_iter().chain(programs::notes(examination, &paths)).collect()
}

impl<'a> Examination<'a> {
    fn node(&self) -> &'a Node {
        &self.cluster.nodes[self.index]
    }

    /// The paths between the pods of this node and those of all others, as the configuration plans them.
    #[must_use]
    pub fn paths(&self) -> Paths<'a> {
        let Prepared { desired, observed, .. } = self.prepared;
        crate::plan::paths(self.cluster, self.index, desired, observed)
    }
}

/// Returns the egress interface, if it exists on the node.
fn egress<'a>(examination: &Examination<'a>) -> Option<&'a Link> {
    let name = examination.cluster.egress_interface_of(examination.node())?;
    examination.observed.host.link(name.as_str())
}

/// Returns the addresses of a node that other nodes or routers ask for with ARP or neighbor discovery.
fn asked_for(cluster: &Cluster, node: &Node, family: Family) -> Vec<IpAddr> {
    match cluster.next_hop_of(node, family) {
        NextHopKind::PodGateway => node.pod_gateways_of(family).collect(),
        NextHopKind::NodeAddress | NextHopKind::Router(_) => {
            node.addresses.get(family).copied().into_iter().collect()
        }
    }
}

/// The gateway that pods of this node use.
struct OwnGateway {
    address: IpAddr,
    /// The pod interface, which has the address.
    device: Untrusted,
    /// One of the pods.
    pod: IpAddr,
}

/// Returns the gateways of this node's pods: the address of the pod interface in their pod CIDR. Interfaces that have none, such
/// as those to single pods, answer by other means.
fn own_gateways(examination: &Examination<'_>, paths: &Paths<'_>, family: Family) -> Vec<OwnGateway> {
    let host = &examination.observed.host;
    let node = examination.node();
    let is_own = |path: &crate::forwarding::Path| {
        path.direction == Direction::Out && Family::from(path.packet.source) == family
    };
    let gateways = paths.samples().into_iter().filter(is_own).filter_map(|path| {
        let (pod, device) = (path.packet.source, path.packet.input?);
        let inside = |local: &&InterfaceAddress| local.device == device && path.own.contains(&local.address);
        let is_gateway =
            |local: &InterfaceAddress| node.pod_gateways_of(family).any(|gateway| gateway == local.address);
        let local = host.addresses.iter().filter(inside).min_by_key(|local| !is_gateway(local))?;
        Some(OwnGateway { address: local.address, device, pod })
    });
    gateways.collect()
}

/// Returns the interfaces that carry packets between pods: the pod interface, the egress interface, and those below them.
fn carriers<'a>(examination: &Examination<'a>, paths: &Paths<'_>) -> Vec<&'a Link> {
    let mut used: Vec<Untrusted> = paths.samples().into_iter().filter_map(|path| path.packet.input).collect();
    used.extend(egress(examination).map(|link| link.name.clone()));
    with_lower(&examination.observed.host, used)
}

/// Returns the other interfaces that carry packets to the outside, with those below them.
fn outer_carriers<'a>(examination: &Examination<'a>, paths: &Paths<'_>) -> Vec<&'a Link> {
    let inner = carriers(examination, paths);
    let used = paths.gateways().map(|hop| hop.device).collect();
    let mut outer = with_lower(&examination.observed.host, used);
    outer.retain(|link| inner.iter().all(|known| known.name != link.name));
    outer
}

/// Adds the interfaces below: the ports of a bridge or bond, and the parent of a VLAN or macvlan interface.
fn with_lower(host: &Host, mut used: Vec<Untrusted>) -> Vec<&Link> {
    loop {
        let is_below = |link: &&Link| {
            let is_parent = || {
                let mut upper = host.links.iter().filter(|upper| used.contains(&upper.name));
                upper.any(|upper| upper.parent.as_ref() == Some(&link.name))
            };
            link.master.as_ref().is_some_and(|master| used.contains(master)) || is_parent()
        };
        let below = host.links.iter().filter(|link| !used.contains(&link.name)).filter(is_below);
        let below: Vec<Untrusted> = below.map(|link| link.name.clone()).collect();
        if below.is_empty() {
            return host.links.iter().filter(|link| used.contains(&link.name)).collect();
        }
        used.extend(below);
    }
}

/// Creates a finding with a remedy.
fn finding(rule: Rule, message: String, remedy: impl Into<String>) -> Diagnostic {
    Diagnostic::new(rule, message).with_remedy(remedy)
}

/// Returns how to set sysctls: with a command, or in the configuration if it sets them.
fn set_sysctls(examination: &Examination<'_>, settings: &[(SysctlKey, String)]) -> String {
    let configured = &examination.cluster.sysctls;
    let is_configured = |key: &SysctlKey| configured.iter().any(|(configured, _)| configured == key);
    let (configured, others): (Vec<_>, Vec<_>) = settings.iter().partition(|(key, _)| is_configured(key));
    let mut steps: Vec<String> = configured
        .into_iter()
        .map(|(key, value)| format!("set {key} to {value} under sysctls in the configuration"))
        .collect();
    if !others.is_empty() {
        let words = others.into_iter().map(|(key, value)| format!("{key}={value}"));
        let words: Vec<String> = ["sysctl", "-w"].map(str::to_owned).into_iter().chain(words).collect();
        steps.push(format!("run `{}`", ShellCommand::new(words.iter().map(String::as_str))));
    }
    steps.join(", and ")
}

/// Counts conflicts in a message.
fn conflicts(number: usize) -> String {
    let objects = if number == 1 { "an object" } else { "objects" };
    format!("{} with {objects} that hostgw does not manage", count(number, "conflict"))
}
