//! Checks that the pod gateway in `ipam` is the one that hostgw routes to.
//!
//! On Linux, it is the bridge's address (`isGateway`), by default the first one of the range. With
//! `nextHop: node-address`, other nodes do not use it. On Windows, it is the address of the host's endpoint: the second
//! one, because HNS reserves the first.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Correction, Finding, FindingKind, Severity, network_of, node_label,
    plugin::{IpamRange, Placed, Plugin},
};
use crate::model::{Cluster, NextHopKind, Node, OperatingSystem, PodCidr};

pub(super) fn check(plugin: &Plugin, node: &Node, cluster: &Cluster) -> Vec<Finding> {
    match node.os {
        OperatingSystem::Windows => on_windows(plugin, node),
        OperatingSystem::Linux if is_next_hop(node, cluster) => on_linux(plugin, node),
        OperatingSystem::Linux => Vec::new(),
    }
}

/// Returns whether other nodes send packets to the pod gateway of `node`.
fn is_next_hop(node: &Node, cluster: &Cluster) -> bool {
    node.pods.families().any(|family| cluster.next_hop_of(node, family) == NextHopKind::PodGateway)
}

fn on_windows(plugin: &Plugin, node: &Node) -> Vec<Finding> {
    // win-bridge computes the gateway itself (HNS endpoints in github.com/containernetworking/plugins).
    let is_computed = plugin.kind().as_deref() == Some("win-bridge");
    let severity = if is_computed { Severity::Warning } else { Severity::Error };
    let given = plugin.ranges().into_iter().filter_map(|range| range.gateway);
    let given = given.chain(plugin.default_gateways());
    let mismatches = given.filter_map(|gateway| mismatch(&gateway, node));
    mismatches
        .map(|(gateway, expected)| {
            let message = if is_computed {
                format!("the pod gateway of {} is {expected}; win-bridge ignores this key", node_label(node))
            } else {
                format!("the pod gateway of {} is {expected}", node_label(node))
            };
            finding(severity, &gateway, expected, message)
        })
        .collect()
}

fn on_linux(plugin: &Plugin, node: &Node) -> Vec<Finding> {
    if plugin.kind().as_deref() != Some("bridge") {
        return Vec::new();
    }
    let ranges = plugin.ranges();
    let mut findings: Vec<_> = ranges.iter().filter_map(|range| check_range(range, node)).collect();
    findings.extend(check_bridge_address(plugin, node));
    findings
}

/// Checks the address that the bridge gets from a range.
fn check_range(range: &IpamRange, node: &Node) -> Option<Finding> {
    if let Some(gateway) = &range.gateway {
        let (gateway, expected) = mismatch(gateway, node)?;
        let message = format!("other nodes route to the pods of {} via {expected}", node_label(node));
        return Some(finding(Severity::Error, &gateway, expected, message));
    }
    let net = range.net()?;
    let expected = node.gateway_of(network_of(node, net)?);
    let first = PodCidr::new(net).ok()?.gateway(OperatingSystem::Linux);
    let is_correct = first == expected || !IpNet::contains(&net, &expected);
    (!is_correct).then(|| Finding {
        kind: FindingKind::Gateway,
        severity: Severity::Error,
        path: range.at.key("gateway"),
        at: range.at.clone(),
        actual: None,
        correction: Some(Correction::Set(format!("\"{expected}\""))),
        message: format!(
            "the bridge gets {first}, the first address; other nodes route to the pods of {} via {expected}",
            node_label(node)
        ),
    })
}

/// Checks that the bridge gets an address at all: otherwise nothing answers for the gateway.
fn check_bridge_address(plugin: &Plugin, node: &Node) -> Option<Finding> {
    let is_gateway = plugin.entry("isGateway");
    let is_default = plugin.is_delegate && is_gateway.is_none();
    if plugin.is_true("isGateway") || plugin.is_true("isDefaultGateway") || is_default {
        return None;
    }
    let gateways: Vec<String> = node.pod_gateways().map(|gateway| gateway.to_string()).collect();
    Some(Finding {
        kind: FindingKind::Gateway,
        severity: Severity::Error,
        path: is_gateway.as_ref().map_or_else(|| plugin.path.key("isGateway"), |entry| entry.path.clone()),
        at: plugin.path.clone(),
        actual: is_gateway.map(|entry| entry.text()),
        correction: Some(Correction::Set("true".to_owned())),
        message: format!(
            "the bridge gets no address, so nothing answers for the pod gateway {} of {}",
            gateways.join(" and "),
            node_label(node)
        ),
    })
}

/// Returns the gateway with the expected one, if they differ. Gateways of families without pods are ignored.
fn mismatch<'a>(gateway: &Placed<'a>, node: &Node) -> Option<(Placed<'a>, IpAddr)> {
    let address = gateway.value.as_str().and_then(|text| text.trim().parse::<IpAddr>().ok());
    let network = match address {
        Some(address) => network_of(node, address.into())?,
        None if gateway.value == &Value::Null || gateway.value == "" => return None,
        None => node.pods.iter().next()?,
    };
    let expected = node.gateway_of(network);
    (address != Some(expected)).then(|| (gateway.clone(), expected))
}

fn finding(severity: Severity, gateway: &Placed, expected: IpAddr, message: String) -> Finding {
    Finding {
        kind: FindingKind::Gateway,
        severity,
        path: gateway.path.clone(),
        at: gateway.path.clone(),
        actual: Some(gateway.text()),
        correction: Some(Correction::Set(format!("\"{expected}\""))),
        message,
    }
}
