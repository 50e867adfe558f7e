//! The desired state of a Windows node, computed from the configuration alone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, Family, Node, OperatingSystem, PodNetwork, Prefixed},
    plan::desired::{Origin, next_hop},
    state::{Forwarding, Role, WindowsRoute, WindowsState},
    text::Untrusted,
};

/// The desired state of a Windows node, with the origin of each route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsDesired {
    /// The state.
    pub state: WindowsState,
    /// The origins of the state's routes, in the same order.
    pub origins: Vec<WindowsOrigin>,
}

/// The part of the configuration that asks for a route of a Windows node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowsOrigin {
    /// The node with this index, whose pods the route reaches.
    Node(usize),
    /// The node itself, with this index, whose pods are on-link.
    OwnPods(usize),
    /// `masterAddress`.
    Master,
}

impl WindowsOrigin {
    /// Returns the reason for the route.
    #[must_use]
    pub fn reason_in(self, cluster: &Cluster) -> String {
        match self {
            Self::Node(index) => crate::plan::reason::pods_of(&cluster.nodes[index].name),
            Self::OwnPods(_) | Self::Master => self.reason().to_owned(),
        }
    }

    /// Returns the reason for the route without naming a node.
    pub(in crate::plan) const fn reason(self) -> &'static str {
        match self {
            Self::Node(_) => "pods of another node",
            Self::OwnPods(_) => "this node's pods",
            Self::Master => "masterAddress via the default gateway",
        }
    }

    /// Returns the location in the configuration, for the route to `destination`.
    #[must_use]
    pub fn path(self, cluster: &Cluster, destination: IpNet) -> ConfigPath {
        match self {
            Self::Node(index) => Origin::Node(index).path(cluster, destination),
            Self::OwnPods(index) => ConfigPath::root().key("nodes").index(index).key("podCIDR"),
            Self::Master => ConfigPath::root().key("masterAddress"),
        }
    }
}

/// Returns the desired state of the node at `index` of `cluster`, or `None` if it is not a Windows node.
#[must_use]
pub fn windows_desired(cluster: &Cluster, index: usize) -> Option<WindowsDesired> {
    let node = cluster.nodes.get(index).filter(|node| node.os == OperatingSystem::Windows)?;
    let alias = cluster.egress_interface_of(node).map(|name| Untrusted::from(name.as_str()));
    let mut state = WindowsState::default();
    let mut origins = Vec::new();
    for family in cluster.prefixes.families() {
        for (route, origin) in routes(cluster, node, index, family) {
            state.routes.push(WindowsRoute { interface_alias: alias.clone(), ..route });
            origins.push(origin);
        }
        if node.has_pods() {
            let forwarding = [Role::Egress, Role::Pod].map(|interface| Forwarding { interface, family });
            state.forwarding.extend(forwarding);
        }
    }
    Some(WindowsDesired { state, origins })
}

/// Returns the routes of one family without an interface: to the other nodes in the order of the file, to the node's
/// own pods, and to the master.
fn routes<'a>(
    cluster: &'a Cluster,
    node: &'a Node,
    index: usize,
    family: Family,
) -> impl Iterator<Item = (WindowsRoute, WindowsOrigin)> + 'a {
    let others = cluster.nodes.iter().enumerate().filter(move |(other, _)| *other != index);
    let others = others.flat_map(move |(other, node)| {
        let routes = node.pods.of(family).filter_map(move |pods| to_node(cluster, node, pods));
        routes.map(move |route| (route, WindowsOrigin::Node(other)))
    });
    let own_pods = node.pods.of(family).map(move |pods| (to_own_pods(pods), WindowsOrigin::OwnPods(index)));
    let master = to_master(cluster, node, family).map(|route| (route, WindowsOrigin::Master));
    others.chain(own_pods).chain(master)
}

/// Returns the route to `pods` of `node` that all other Windows nodes have.
pub(in crate::plan) fn to_node(cluster: &Cluster, node: &Node, pods: &PodNetwork) -> Option<WindowsRoute> {
    let gateway = next_hop(cluster, node, pods)?;
    // The option applies to Linux and Windows; 0 means the default of either.
    let metric = match cluster.routes.metric {
        0 => WindowsRoute::DEFAULT_METRIC,
        metric => metric,
    };
    Some(route(pods.prefix(), Some(gateway), metric))
}

/// Returns the on-link route to one of the node's own pod CIDRs.
pub(in crate::plan) fn to_own_pods(pods: &PodNetwork) -> WindowsRoute {
    let on_link = WindowsRoute::on_link(pods.family());
    route(pods.prefix(), Some(on_link), WindowsRoute::OWN_PODS_METRIC)
}

/// Returns the node's route to the master through the gateway of its external adapter.
pub(in crate::plan) fn to_master(cluster: &Cluster, node: &Node, family: Family) -> Option<WindowsRoute> {
    let master = cluster.master_address.filter(|master| Family::from(*master) == family)?;
    let gateway = node.default_gateway().filter(|gateway| Family::from(*gateway) == family);
    let is_local = node.addresses.get(family) == Some(&master) || gateway == Some(master);
    (!is_local).then(|| route(host(master), gateway, WindowsRoute::DEFAULT_METRIC))
}

const fn route(destination_prefix: IpNet, next_hop: Option<IpAddr>, route_metric: u32) -> WindowsRoute {
    WindowsRoute { destination_prefix, next_hop, interface_alias: None, route_metric, policy_store: None }
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
