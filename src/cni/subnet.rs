//! Checks that `ipam` assigns addresses from the node's pod CIDR.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{
    Correction, Finding, FindingKind, Severity, node_label,
    plugin::{IpamRange, Plugin},
    pod_cidrs,
};
use crate::model::{Cluster, Family, Node, PodNetwork, Prefixed};

/// The nodes by pod CIDR.
pub(super) struct Owners<'a> {
    cluster: &'a Cluster,
    by_cidr: HashMap<IpNet, usize>,
}

impl<'a> Owners<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        let nodes = cluster.nodes.iter().enumerate();
        let by_cidr =
            nodes.flat_map(|(index, node)| node.pods.iter().map(move |network| (network.prefix(), index)));
        Self { cluster, by_cidr: by_cidr.collect() }
    }

    /// Returns the index of the only node whose pod CIDRs the plugins use, if there is one.
    pub fn unique_owner(&self, plugins: &[Plugin]) -> Option<usize> {
        let nets = plugins.iter().flat_map(Plugin::ranges).filter_map(|range| range.net());
        let owners: BTreeSet<usize> = nets.filter_map(|net| self.by_cidr.get(&net).copied()).collect();
        owners.first().copied().filter(|_| owners.len() == 1)
    }

    fn owner(&self, net: IpNet) -> Option<&'a Node> {
        self.cluster.nodes.get(*self.by_cidr.get(&net)?)
    }
}

fn is_pod_cidr(net: IpNet, node: &Node) -> bool {
    node.pods.at(net).is_some()
}

pub(super) fn check(plugin: &Plugin, node: Option<&Node>, owners: &Owners) -> Vec<Finding> {
    let ranges = plugin.ranges();
    // The pod CIDRs that a range has, or is to have.
    let mut taken: BTreeSet<IpNet> = ranges.iter().filter_map(IpamRange::net).collect();
    let mut findings: Vec<_> =
        ranges.iter().filter_map(|range| check_range(range, node, owners, &mut taken)).collect();
    if let Some(node) = node.filter(|_| !ranges.is_empty()) {
        findings.extend(check_families(plugin, &ranges, node, &taken));
    }
    findings
}

fn check_range(
    range: &IpamRange,
    node: Option<&Node>,
    owners: &Owners,
    taken: &mut BTreeSet<IpNet>,
) -> Option<Finding> {
    let net = range.net();
    let (severity, message) = match (net, node) {
        (None, _) => (Severity::Error, "not a prefix".to_owned()),
        (Some(net), _) if net != net.trunc() => {
            (Severity::Error, format!("host bits set; did you mean {}?", net.trunc()))
        }
        (Some(net), Some(node)) if is_pod_cidr(net, node) => return None,
        (Some(net), None) if owners.owner(net).is_some() => {
            (Severity::Error, "the ranges are pod CIDRs of several nodes".to_owned())
        }
        (Some(net), Some(node)) => describe_mismatch(net, node, owners),
        (Some(_), None) => {
            (Severity::Error, "no node has this pod CIDR, so no other node has a route to it".to_owned())
        }
    };
    Some(Finding {
        kind: FindingKind::Subnet,
        severity,
        path: range.subnet.path.clone(),
        at: range.at.clone(),
        actual: Some(range.subnet.text()),
        correction: node.map(|node| match free_cidr(node, net, taken) {
            Some(cidr) => {
                taken.insert(cidr);
                Correction::Set(format!("\"{cidr}\""))
            }
            None => Correction::Remove(range.whole.clone()),
        }),
        message,
    })
}

/// Returns the pod CIDR that a wrong range should have: the one around it, or else the first one of its family that no
/// other range has.
fn free_cidr(node: &Node, net: Option<IpNet>, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    let is_free = |network: &&PodNetwork| !taken.contains(&network.prefix());
    let around = net.and_then(|net| node.pods.around(net)).filter(is_free);
    let is_alike =
        |network: &&PodNetwork| net.is_none_or(|net| Family::from(net) == Family::from(network.prefix()));
    around.or_else(|| node.pods.iter().filter(is_alike).find(is_free)).map(PodNetwork::prefix)
}

/// Describes a range that is not the node's pod CIDR.
fn describe_mismatch(net: IpNet, node: &Node, owners: &Owners) -> (Severity, String) {
    if let Some(owner) = owners.owner(net) {
        let message = format!("this is the pod CIDR of {}, not of {}", node_label(owner), node_label(node));
        (Severity::Error, message)
    } else if node.pods.around(net).is_some() {
        (Severity::Warning, format!("this is only part of the pod CIDR of {}", node_label(node)))
    } else {
        (
            Severity::Error,
            format!("this is not the pod CIDR of {}, so no other node has a route to it", node_label(node)),
        )
    }
}

/// Returns the families in which the node has a pod CIDR but pods get no address.
fn check_families(
    plugin: &Plugin,
    ranges: &[IpamRange],
    node: &Node,
    taken: &BTreeSet<IpNet>,
) -> Vec<Finding> {
    let Some((first, (path, has_sets))) = ranges.first().zip(plugin.next_set()) else { return Vec::new() };
    let is_missing = |family: &Family| !taken.iter().any(|net| Family::from(*net) == *family);
    let missing = node.pods.families().filter(|family| is_missing(family) && !taken.is_empty());
    missing
        .filter_map(|family| Some((family, node.pods.of(family).next()?.cidr)))
        .map(|(family, cidr)| Finding {
            kind: FindingKind::Subnet,
            severity: Severity::Warning,
            path: path.clone(),
            at: first.at.clone(),
            actual: None,
            correction: Some(Correction::Set(match has_sets {
                true => format!("[{{\"subnet\": \"{cidr}\"}}]"),
                false => format!("[[{{\"subnet\": \"{cidr}\"}}]]"),
            })),
            message: format!(
                "no {} range: {} has the pod CIDRs {}",
                match family {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                },
                node_label(node),
                pod_cidrs(node)
            ),
        })
        .collect()
}
