//! The pod gateway that `ipam` gives is the one that hostgw routes to.
//!
//! On Linux the bridge has it (`isGateway`), by default the first address of the range; with `nextHop: node-address`
//! no other node asks for it. On Windows the host's endpoint has it: the second address, for HNS keeps the first.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Code, Finding, Severity, named,
    plugin::{IpamRange, Placed, Plugin},
};
use crate::model::{Cluster, Family, NextHopMode, Node, OperatingSystem, PodCidr};

pub(super) fn check(plugin: &Plugin, node: &Node, cluster: &Cluster) -> Vec<Finding> {
    match node.os {
        OperatingSystem::Windows => on_windows(plugin, node),
        OperatingSystem::Linux if cluster.next_hop == NextHopMode::PodGateway => on_linux(plugin, node),
        OperatingSystem::Linux => Vec::new(),
    }
}

fn on_windows(plugin: &Plugin, node: &Node) -> Vec<Finding> {
    // It computes the gateway itself (HNS endpoints of github.com/containernetworking/plugins).
    let is_computed = plugin.kind().as_deref() == Some("win-bridge");
    let severity = if is_computed { Severity::Warning } else { Severity::Error };
    let given = plugin.ranges().into_iter().filter_map(|range| range.gateway);
    let given = given.chain(plugin.default_gateways());
    let wrong = given.filter_map(|gateway| wrong(&gateway, node));
    wrong
        .map(|(gateway, wanted)| {
            let message = if is_computed {
                format!("{} has the pod gateway {wanted}; win-bridge always uses it", named(node))
            } else {
                format!("{} has the pod gateway {wanted}: HNS reserves the first address", named(node))
            };
            finding(severity, &gateway, wanted, message)
        })
        .collect()
}

fn on_linux(plugin: &Plugin, node: &Node) -> Vec<Finding> {
    if plugin.kind().as_deref() != Some("bridge") {
        return Vec::new();
    }
    let ranges = plugin.ranges();
    let mut findings: Vec<_> = ranges.iter().filter_map(|range| of_bridge(range, node)).collect();
    findings.extend(without_address(plugin, node));
    findings
}

/// The address that the bridge gets from a range.
fn of_bridge(range: &IpamRange, node: &Node) -> Option<Finding> {
    if let Some(gateway) = &range.gateway {
        let (gateway, wanted) = wrong(gateway, node)?;
        let message = format!("other nodes route to the pods of {} via {wanted}", named(node));
        return Some(finding(Severity::Error, &gateway, wanted, message));
    }
    let net = range.net()?;
    let wanted = node.pod_gateway(Family::from(net))?;
    let first = PodCidr::new(net).ok()?.gateway(OperatingSystem::Linux);
    let is_in_force = first == wanted || !IpNet::contains(&net, &wanted);
    (!is_in_force).then(|| Finding {
        code: Code::Gateway,
        severity: Severity::Error,
        path: range.at.key("gateway"),
        at: range.at.clone(),
        found: None,
        wanted: Some(format!("\"{wanted}\"")),
        message: format!(
            "the bridge gets {first}, the first address; other nodes route to the pods of {} via {wanted}",
            named(node)
        ),
    })
}

/// A bridge that gets no address answers for no gateway.
fn without_address(plugin: &Plugin, node: &Node) -> Option<Finding> {
    let is_gateway = plugin.entry("isGateway");
    let is_default = plugin.is_delegate && is_gateway.is_none();
    if plugin.is_true("isGateway") || plugin.is_true("isDefaultGateway") || is_default {
        return None;
    }
    let gateways: Vec<String> = node
        .pod_cidrs
        .iter()
        .filter_map(|(family, _)| node.pod_gateway(family))
        .map(|ip| ip.to_string())
        .collect();
    Some(Finding {
        code: Code::Gateway,
        severity: Severity::Error,
        path: is_gateway.as_ref().map_or_else(|| plugin.path.key("isGateway"), |entry| entry.path.clone()),
        at: plugin.path.clone(),
        found: is_gateway.map(|entry| entry.text()),
        wanted: Some("true".to_owned()),
        message: format!(
            "the bridge gets no address, so nothing answers for the pod gateway {} of {}",
            gateways.join(" and "),
            named(node)
        ),
    })
}

/// A gateway that is not the node's, and the one that is. One of a family without pods is not judged.
fn wrong<'a>(gateway: &Placed<'a>, node: &Node) -> Option<(Placed<'a>, IpAddr)> {
    let address = gateway.value.as_str().and_then(|text| text.trim().parse::<IpAddr>().ok());
    let family = match address {
        Some(address) => Family::from(address),
        None if gateway.value == &Value::Null || gateway.value == "" => return None,
        None => node.pod_cidrs.iter().next()?.0,
    };
    let wanted = node.pod_gateway(family)?;
    (address != Some(wanted)).then(|| (gateway.clone(), wanted))
}

fn finding(severity: Severity, gateway: &Placed, wanted: IpAddr, message: String) -> Finding {
    Finding {
        code: Code::Gateway,
        severity,
        path: gateway.path.clone(),
        at: gateway.path.clone(),
        found: Some(gateway.text()),
        wanted: Some(format!("\"{wanted}\"")),
        message,
    }
}
