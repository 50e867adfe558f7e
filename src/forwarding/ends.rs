//! The ends of paths on this node: a pod, the node itself, or the way outside.

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;

use super::outside_address;
use crate::{
    model::{Family, Node, is_link_local, pod_address},
    state::{Host, InterfaceAddress, PolicyRule, Route, RouteType, RuleAction, RuleSelector},
    text::Untrusted,
};

/// The direction of a packet from or to a pod of this node, or the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From this node or its pod.
    Out,
    /// To this node or its pod.
    In,
}

/// This node's end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalEnd {
    /// A pod of this node.
    Pod,
    /// The node itself. It sends packets to pods, and receives the replies.
    Node,
}

/// A pod of this node, or the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub local_end: LocalEnd,
    /// The pod CIDR, or the address of the node.
    pub prefix: IpNet,
    pub address: IpAddr,
    /// The interface that all packets of the pod use, or the one with the address of the node.
    pub device: Untrusted,
    /// Whether the interface leads to only one pod: each pod has an interface and a route of its own.
    pub is_alone: bool,
}

impl End {
    pub fn family(&self) -> Family {
        self.prefix.into()
    }
}

/// Returns the default route that the kernel prefers: one in the first table that the policy rules select for all packets, or
/// half of one, as VPNs add them.
pub(super) fn default_route<'a>(
    family: Family,
    routes: impl Iterator<Item = &'a Route> + Clone,
    rules: &[PolicyRule],
) -> Option<&'a Route> {
    let in_table = |rule: &PolicyRule| {
        let RuleAction::Lookup(table) = rule.action else { return None };
        let is_default = |route: &&Route| {
            let length = route.destination.prefix_len();
            route.kind == RouteType::Unicast
                && route.hops().next().is_some()
                && length <= 1
                && rule.suppress_length.is_none_or(|suppressed| u32::from(length) > suppressed)
                && route.destination.contains(&outside_address(family))
                && route.table == table
        };
        let preference = |route: &&Route| (Reverse(route.destination.prefix_len()), route.metric);
        routes.clone().filter(is_default).min_by_key(preference)
    };
    // A rule for packets without a certain mark applies to those of pods.
    let is_for_all = |rule: &&PolicyRule| {
        let without_mark = RuleSelector { not: false, mark: None, ..rule.selector.clone() };
        rule.family == family
            && without_mark == RuleSelector::default()
            && rule.selector.not == rule.selector.mark.is_some()
    };
    let defaults = PolicyRule::defaults(family);
    let rules = if rules.is_empty() { &defaults } else { rules };
    rules.iter().filter(is_for_all).find_map(in_table)
}

/// Returns the node itself with the source address that it uses for packets that follow `route`: the preferred one of the
/// route, or the address of the node, or else the first one of the interface.
pub(super) fn itself(node: &Node, route: &Route, host: &Host) -> Option<End> {
    let family = route.family();
    let device = route.next_hop.device.as_ref()?;
    // Without the kernel's own routes, it is unknown whether the node receives packets.
    if host.is_in_vrf(device) || !host.local_routes().any(|route| route.family() == family) {
        return None;
    }
    let local_at =
        |wanted: IpAddr| host.addresses.iter().find(|local| local.address == wanted && local.is_used());
    let is_usual = |local: &&InterfaceAddress| {
        local.device == *device
            && Family::from(local.address) == family
            && local.is_used()
            && !is_link_local(local.address)
    };
    let local = match route.source {
        Some(source) => local_at(source)?,
        None => {
            let own = node.addresses.get(family).copied().and_then(local_at);
            own.filter(is_usual).or_else(|| host.addresses.iter().find(is_usual))?
        }
    };
    Some(End {
        local_end: LocalEnd::Node,
        prefix: local.address.into(),
        address: local.address,
        device: local.device.clone(),
        is_alone: false,
    })
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// Its address.
    pub address: IpAddr,
    /// The interface to it.
    pub device: Untrusted,
    /// Whether the interface leads to no other pod.
    pub is_alone: bool,
}

/// Returns a pod of the node in `cidr`, whose pod gateway is `gateway`.
#[must_use]
pub fn own_pod(cidr: IpNet, gateway: IpAddr, host: &Host) -> Option<OwnPod> {
    let End { address, device, is_alone, .. } = pod(cidr, gateway, host)?;
    Some(OwnPod { address, device, is_alone })
}

/// Returns a pod of the node, and the interface to it: one with an address in a network of pods, such as a bridge, or else one
/// that has a route to a pod.
pub(super) fn pod(cidr: IpNet, gateway: IpAddr, host: &Host) -> Option<End> {
    let holds = |device: &Untrusted| host.link(device.as_raw()).is_some_and(|link| link.up);
    let is_inside = |local: &&InterfaceAddress| cidr.contains(&local.address) && holds(&local.device);
    let is_host = |prefix: IpNet| prefix.prefix_len() == prefix.max_prefix_len();
    let routes = || {
        let on_link = host.foreign.iter().chain(&host.others).filter(|route| {
            cidr.contains(&route.destination) && route.next_hop.gateway.is_none() && !route.kind.is_local()
        });
        on_link.filter_map(|route| Some((route.destination, route.next_hop.device.as_ref()?)))
    };
    // The interfaces of single pods can all have the address of the pod gateway, which is then no network of pods.
    let is_network = |local: &&InterfaceAddress| {
        !is_host(local.prefix) || routes().any(|route| route == (cidr, &local.device))
    };
    let bridge = host.addresses.iter().filter(is_inside).filter(is_network);
    if let Some(local) = bridge.min_by_key(|local| local.address != gateway) {
        return Some(End {
            local_end: LocalEnd::Pod,
            prefix: cidr,
            address: pod_address(cidr, Some(local.address)),
            device: local.device.clone(),
            is_alone: false,
        });
    }
    let (destination, device) =
        routes().find(|(destination, device)| *destination != cidr && holds(device))?;
    Some(End {
        local_end: LocalEnd::Pod,
        prefix: cidr,
        address: destination.addr(),
        device: device.clone(),
        is_alone: is_host(destination),
    })
}
