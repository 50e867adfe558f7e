//! Checks whether the CNI configuration of a node matches the cluster, without side effects.
//!
//! hostgw routes to pods, and the CNI assigns their addresses. Each file contains one rule on which the two must agree:
//!
//! | rule | requirement |
//! |---|---|
//! | `masquerade` | Windows: the exceptions of `OutBoundNAT` contain the cluster prefix |
//! | `platform` | the plugin is for the node's operating system |
//! | `subnet` | `ipam` assigns addresses from the node's pod CIDR |
//! | `gateway` | the pod gateway in `ipam` is the one that hostgw routes to |
//! | `ip_masq` | Linux: the plugin does not masquerade traffic inside the cluster |
//! | `mtu` | pods do not send larger packets than `routes.mtu`, or the node's own `mtu`, allows |
//!
//! Keys are compared without case, as Go's encoding/json does in the plugins.

mod gateway;
mod ip_masq;
mod masquerade;
mod mtu;
mod platform;
mod plugin;
mod subnet;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    diagnose::{Rule, Severity},
    model::{Cluster, ConfigPath, Node, OperatingSystem, PodNetwork},
    text::printable,
};
use plugin::Plugin;
use subnet::Owners;

pub use masquerade::{MasqueradeReport, OutboundNatPolicy};

/// A problem in a CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of problem.
    pub kind: FindingKind,
    /// Whether pods lose packets because of the problem.
    pub severity: Severity,
    /// The location of the value, even if it is missing.
    pub path: ConfigPath,
    /// The location of the closest existing parent.
    pub at: ConfigPath,
    /// The value in JSON.
    pub actual: Option<String>,
    /// What solves the problem, if that is known.
    pub correction: Option<Correction>,
    /// The problem, as a sentence fragment without capital and period.
    pub message: String,
}

impl Finding {
    /// Returns what to do about the problem, if that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        self.correction.as_ref().map(|correction| match correction {
            Correction::Set(value) => format!("set {} to {value}", self.path),
            Correction::Remove(path) => format!("remove {path}"),
            Correction::Other(advice) => advice.clone(),
        })
    }

    /// Returns the correct value in JSON, if there is one.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        match &self.correction {
            Some(Correction::Set(value)) => Some(value),
            _ => None,
        }
    }
}

/// What solves a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// The value at the location of the finding becomes this JSON value, and is added if it is missing.
    Set(String),
    /// The value at this location is removed.
    Remove(ConfigPath),
    /// The user has to choose: a sentence fragment without capital and period.
    Other(String),
}

/// The kind of a problem. Its name is part of the JSON output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FindingKind {
    /// The plugin is for another operating system.
    Platform,
    /// `ipam` assigns addresses outside the node's pod CIDR.
    Subnet,
    /// The pod gateway differs.
    Gateway,
    /// The plugin masquerades traffic inside the cluster.
    IpMasq,
    /// Pods send larger or smaller packets than the routes allow.
    Mtu,
    /// On Windows, the plugin masquerades the wrong traffic.
    Masquerade,
}

impl FindingKind {
    /// Returns the rule.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Platform => Rule::CniPlatform,
            Self::Subnet => Rule::CniSubnet,
            Self::Gateway => Rule::CniGateway,
            Self::IpMasq => Rule::CniIpMasq,
            Self::Mtu => Rule::CniMtu,
            Self::Masquerade => Rule::CniMasquerade,
        }
    }
}

/// The result of checking a CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniReport {
    /// The index of the node that the configuration is for.
    pub node: Option<usize>,
    /// The masquerading of a Windows node; `None` for a Linux node, where hostgw masquerades.
    pub masquerade: Option<MasqueradeReport>,
    /// The problems, in the order of the rules.
    pub findings: Vec<Finding>,
}

impl CniReport {
    /// Returns `true` if there are no errors.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.masquerade.as_ref().is_none_or(MasqueradeReport::fits)
            && self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }
}

/// Checks a CNI configuration for the node at the index `node` of `cluster`. By default, it is the node whose pod CIDR
/// the configuration contains.
#[must_use]
pub fn check(configuration: &Value, cluster: &Cluster, node: Option<usize>) -> CniReport {
    let plugins = Plugin::all_of(configuration);
    let owners = Owners::new(cluster);
    let index = node.or_else(|| owners.unique_owner(&plugins));
    let node = index.and_then(|index| cluster.nodes.get(index));
    let os = platform::of(&plugins).or(node.map(|node| node.os));
    // If the operating system is unknown, it is assumed to be Windows: only there does the CNI masquerade.
    let is_windows = os != Some(OperatingSystem::Linux);
    let mut findings = Vec::new();
    for plugin in &plugins {
        if let Some(node) = node {
            findings.extend(platform::check(plugin, node));
            findings.extend(gateway::check(plugin, node, cluster));
        }
        findings.extend(subnet::check(plugin, node, &owners));
        if os != Some(OperatingSystem::Windows) {
            findings.extend(ip_masq::check(plugin));
        }
        findings.extend(mtu::check(plugin, node, cluster));
    }
    findings.sort_by_key(|finding| finding.kind);
    CniReport {
        node: index,
        masquerade: is_windows.then(|| masquerade::masquerade(configuration, cluster)),
        findings,
    }
}

/// Formats a node for a message.
fn node_label(node: &Node) -> String {
    printable(&format!("node {}", node.name))
}

/// Formats the pod CIDRs of a node for a message.
fn pod_cidrs(node: &Node) -> String {
    let cidrs: Vec<String> = node.pods.iter().map(|network| network.cidr.to_string()).collect();
    cidrs.join(" and ")
}

/// Returns the pod CIDR of a node that contains `net`, or else the first one of its family.
fn network_of(node: &Node, net: IpNet) -> Option<&PodNetwork> {
    node.pods.around(net).or_else(|| node.pods.of(net.into()).next())
}

#[cfg(test)]
mod tests;
