//! Examines a node: everything that keeps pods from reaching each other, or will, as far as the node itself shows it.
//!
//! - `plan.rs`: whether the node matches the configuration, and what would prevent an apply
//! - `paths.rs`: which way the packets of pods go
//! - `filter.rs`: what firewalls and the NAT of other programs do with them
//! - `outside.rs`: the same for packets that leave the cluster
//! - `remedy.rs`: the command that keeps a firewall from it
//! - `journey.rs`: the way of one packet, step by step, for `hostgw explain`
//! - `surroundings.rs`: interfaces, sysctls, neighbors, and routes of nodes that are gone
//! - `addresses.rs`: the addresses that other nodes send packets to
//! - `arp.rs`: whether it finds its next hops and answers other nodes
//! - `other_cni.rs`: routes to pods of other CNIs
//! - `cloud.rs`: networks that deliver only what they were told about
//! - `windows.rs`: all of this on a Windows node

mod addresses;
mod arp;
mod cloud;
mod filter;
mod journey;
mod other_cni;
mod outside;
mod paths;
mod plan;
mod remedy;
mod surroundings;
mod windows;

pub use journey::{Guidepost, Journey, JourneyEnd, JourneyStep};
pub use windows::{WindowsPatient, examine_windows};

use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ForwardingModel, Paths},
    model::{Cluster, Node},
    plan::{Observed, Prepared},
    state::Link,
    text::count,
};

/// A node to examine.
pub struct Patient<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The index of the node.
    pub index: usize,
    /// The plan, and the part of the live state that it depends on.
    pub prepared: &'a Prepared,
    /// The whole live state, as in a snapshot.
    pub observed: &'a Observed,
}

/// Returns everything that is wrong with a node, the causes of lost packets first.
#[must_use]
pub fn examine(patient: &Patient<'_>) -> Vec<Diagnostic> {
    let paths = crate::plan::paths(
        patient.cluster,
        patient.index,
        &patient.prepared.desired,
        &patient.prepared.observed,
    );
    let model = ForwardingModel::of(&patient.observed.state, &patient.observed.host);
    let mut findings = plan::examine(patient);
    findings.extend(paths::examine(patient, &paths));
    findings.extend(filter::examine(patient, &paths, &model));
    findings.extend(outside::silent_gateways(patient, &paths));
    findings.extend(arp::examine(patient, &model));
    findings.extend(surroundings::examine(patient, &paths, &model));
    findings.extend(addresses::examine(patient, &paths));
    findings.extend(other_cni::examine(patient));
    findings.extend(cloud::examine(patient));
    findings
}

/// Returns what the operator must know about a node and hostgw cannot see: sentences in lower case without a period.
#[must_use]
pub fn notes(patient: &Patient<'_>) -> Vec<String> {
    cloud::note(patient).into_iter().collect()
}

impl<'a> Patient<'a> {
    fn node(&self) -> &'a Node {
        &self.cluster.nodes[self.index]
    }
}

/// The egress interface, if the node has it.
fn egress<'a>(patient: &Patient<'a>) -> Option<&'a Link> {
    let name = patient.cluster.egress_interface_of(patient.node())?;
    patient.observed.host.link(name.as_str())
}

/// What most examinations need: a finding with a remedy.
fn finding(rule: Rule, message: String, remedy: impl Into<String>) -> Diagnostic {
    Diagnostic::new(rule, message).with_remedy(remedy)
}

/// Counts conflicts in a message.
fn conflicts(number: usize) -> String {
    let objects = if number == 1 { "an object" } else { "objects" };
    format!("{} with {objects} that hostgw does not manage", count(number, "conflict"))
}

/// Returns the paths from this node's pods, one for each family, that represent all others where nothing diverts them.
fn samples(paths: &Paths<'_>) -> Vec<crate::forwarding::Path> {
    let mut samples: Vec<crate::forwarding::Path> = Vec::new();
    for path in paths.between_pods() {
        let is_known = samples.iter().any(|known| {
            known.direction == path.direction
                && known.packet.destination.is_ipv4() == path.packet.destination.is_ipv4()
        });
        if !is_known {
            samples.push(path);
        }
    }
    samples
}
