//! Whether a node's CNI configuration fits the cluster: pure.
//!
//! hostgw routes to pods; the CNI gives them their addresses. A rule of each file here says where both must agree:
//!
//! | rule | what must hold |
//! |---|---|
//! | `masquerade` | Windows: the exceptions of `OutBoundNAT` hold the cluster prefix |
//! | `platform` | the plugin is one for the node's operating system |
//! | `subnet` | `ipam` hands out the node's pod CIDR |
//! | `gateway` | the pod gateway of `ipam` is the one that hostgw routes to |
//! | `ip_masq` | Linux: the plugin does not masquerade what hostgw leaves alone |
//! | `mtu` | pods send no larger packets than `routes.mtu` allows |
//!
//! Keys are compared without regard to case, as the plugins' decoder does (encoding/json of Go).

mod gateway;
mod ip_masq;
mod masquerade;
mod mtu;
mod platform;
mod plugin;
mod subnet;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    diagnose::{Rule, Severity},
    model::{Cluster, ConfigPath, Node, OperatingSystem},
    text::printable,
};
use plugin::Plugin;
use subnet::Owners;

pub use masquerade::{MasqueradeReport, OutboundNatPolicy};

/// What is wrong in a CNI configuration, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub code: Code,
    /// Whether pods lose packets for it.
    pub severity: Severity,
    /// The value, or where it has to be.
    pub path: ConfigPath,
    /// What is around it, for a value that is not there.
    pub at: ConfigPath,
    /// The value as JSON.
    pub found: Option<String>,
    /// The value as it should be, as JSON.
    pub wanted: Option<String>,
    /// What is wrong: a fragment, no capital, no period.
    pub message: String,
}

/// The rules. Their names are part of the JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The plugin is one for another operating system.
    Platform,
    /// `ipam` hands out other addresses than the node's pod CIDR.
    Subnet,
    /// The pod gateway is another address.
    Gateway,
    /// The plugin masquerades traffic inside the cluster.
    IpMasq,
    /// Pods send larger or smaller packets than routes allow.
    Mtu,
}

impl Code {
    /// The rule.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Platform => Rule::CniPlatform,
            Self::Subnet => Rule::CniSubnet,
            Self::Gateway => Rule::CniGateway,
            Self::IpMasq => Rule::CniIpMasq,
            Self::Mtu => Rule::CniMtu,
        }
    }
}

/// Everything that is said about a CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniReport {
    /// The index of the node that it is checked for.
    pub node: Option<usize>,
    /// The masquerade of a Windows node; `None` for a Linux node, where hostgw masquerades.
    pub masquerade: Option<MasqueradeReport>,
    /// In the order of the rules.
    pub findings: Vec<Finding>,
}

impl CniReport {
    /// Whether nothing has to be changed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.masquerade.as_ref().is_none_or(MasqueradeReport::holds)
            && self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }
}

/// Checks a CNI configuration for node number `node` of `cluster`; without it, for the node whose pod CIDR the
/// configuration names.
#[must_use]
pub fn check(configuration: &Value, cluster: &Cluster, node: Option<usize>) -> CniReport {
    let plugins = Plugin::all_of(configuration);
    let owners = Owners::new(cluster);
    let index = node.or_else(|| owners.only_owner(&plugins));
    let node = index.and_then(|index| cluster.nodes.get(index));
    let os = platform::of(&plugins).or(node.map(|node| node.os));
    // Where nothing says so, the file is taken for one of Windows: only there does the CNI masquerade.
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
        findings.extend(mtu::check(plugin, cluster));
    }
    findings.sort_by_key(|finding| finding.code);
    CniReport {
        node: index,
        masquerade: is_windows.then(|| masquerade::masquerade(configuration, cluster)),
        findings,
    }
}

/// A node as findings name it.
fn named(node: &Node) -> String {
    printable(&format!("node {}", node.name))
}

/// Pod CIDRs of the node, for people.
fn pod_cidrs(node: &Node) -> String {
    let cidrs: BTreeSet<String> = node.pod_cidrs.iter().map(|(_, cidr)| cidr.to_string()).collect();
    cidrs.into_iter().collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
