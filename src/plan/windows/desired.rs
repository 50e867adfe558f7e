//! The desired state of a Windows node, from the configuration alone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, Family, Node, OperatingSystem},
    plan::desired::{Origin, next_hop},
    state::{Forwarding, Role, WindowsRoute, WindowsState},
    text::Untrusted,
};

/// What a Windows node shall hold, and which part of the configuration asks for each route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsDesired {
    /// The state itself.
    pub state: WindowsState,
    /// For each route of the state, what asks for it.
    pub origins: Vec<WindowsOrigin>,
}

/// The part of the configuration that asks for a route of a Windows node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowsOrigin {
    /// The node, by its index, whose pods the route leads to.
    Node(usize),
    /// The node itself, by its index: its pods are on-link.
    OwnPods(usize),
    /// `masterAddress`.
    Master,
}

impl WindowsOrigin {
    /// What the route is for.
    #[must_use]
    pub fn purpose(self, cluster: &Cluster) -> String {
        match self {
            Self::Node(index) => crate::plan::reason::pods_of(&cluster.nodes[index].name),
            Self::OwnPods(_) | Self::Master => self.words().to_owned(),
        }
    }

    /// The same where it does not name a node.
    pub(in crate::plan) const fn words(self) -> &'static str {
        match self {
            Self::Node(_) => "pods of another node",
            Self::OwnPods(_) => "own pods are on-link",
            Self::Master => "masterAddress via the default gateway",
        }
    }

    /// Where it stands in the configuration, for a route of `family`.
    #[must_use]
    pub fn path(self, cluster: &Cluster, family: Family) -> ConfigPath {
        match self {
            Self::Node(index) => Origin::Node(index).path(cluster, family),
            Self::OwnPods(index) => ConfigPath::root().key("nodes").index(index).key("podCIDR"),
            Self::Master => ConfigPath::root().key("masterAddress"),
        }
    }
}

/// The desired state of node number `index` of `cluster`; none for a node that is no Windows node.
#[must_use]
pub fn windows_desired(cluster: &Cluster, index: usize) -> Option<WindowsDesired> {
    let node = cluster.nodes.get(index).filter(|node| node.os == OperatingSystem::Windows)?;
    let alias = cluster.egress_interface_of(node).map(|name| Untrusted::from(name.as_str()));
    let mut state = WindowsState::default();
    let mut origins = Vec::new();
    for (family, _) in cluster.prefixes.iter() {
        for (route, origin) in routes(cluster, node, index, family) {
            state.routes.push(WindowsRoute { interface_alias: alias.clone(), ..route });
            origins.push(origin);
        }
        let forwards = [Role::Management, Role::Pod].map(|interface| Forwarding { interface, family });
        state.forwarding.extend(forwards);
    }
    Some(WindowsDesired { state, origins })
}

/// The routes of one family by no interface: to the other nodes in the order of the file, the own pod CIDR, the
/// master.
fn routes<'a>(
    cluster: &'a Cluster,
    node: &'a Node,
    index: usize,
    family: Family,
) -> impl Iterator<Item = (WindowsRoute, WindowsOrigin)> + 'a {
    let others = cluster.nodes.iter().enumerate().filter(move |(other, _)| *other != index);
    let others = others
        .filter_map(move |(other, node)| Some((to_node(cluster, node, family)?, WindowsOrigin::Node(other))));
    let own = own(node, family).map(|route| (route, WindowsOrigin::OwnPods(index)));
    let master = to_master(cluster, node, family).map(|route| (route, WindowsOrigin::Master));
    others.chain(own).chain(master)
}

/// The route to the pods of `node`, on all other Windows nodes.
pub(in crate::plan) fn to_node(cluster: &Cluster, node: &Node, family: Family) -> Option<WindowsRoute> {
    let destination = node.pod_cidrs.get(family)?.prefix();
    let gateway = next_hop(cluster, node, family)?;
    // The option is one of Linux and Windows alike; 0 leaves it to either.
    let metric = match cluster.routes.metric {
        0 => WindowsRoute::DEFAULT_METRIC,
        metric => metric,
    };
    Some(route(destination, Some(gateway), metric))
}

/// The own pods of `node`, on-link.
pub(in crate::plan) fn own(node: &Node, family: Family) -> Option<WindowsRoute> {
    let destination = node.pod_cidrs.get(family)?.prefix();
    Some(route(destination, Some(WindowsRoute::on_link(family)), WindowsRoute::OWN_METRIC))
}

/// The route of `node` to the master by the gateway of its external adapter.
pub(in crate::plan) fn to_master(cluster: &Cluster, node: &Node, family: Family) -> Option<WindowsRoute> {
    let master = cluster.master_address.filter(|master| Family::from(*master) == family)?;
    let gateway = node.default_gateway.filter(|gateway| Family::from(*gateway) == family);
    let is_here = node.addresses.get(family) == Some(&master) || gateway == Some(master);
    (!is_here).then(|| route(host(master), gateway, WindowsRoute::DEFAULT_METRIC))
}

const fn route(destination_prefix: IpNet, next_hop: Option<IpAddr>, route_metric: u32) -> WindowsRoute {
    WindowsRoute { destination_prefix, next_hop, interface_alias: None, route_metric, policy_store: None }
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
