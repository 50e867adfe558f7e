//! The cluster as the configuration describes it, valid by construction.
//!
//! [`crate::config`] creates a [`Cluster`] and checks the rules that involve several objects, such as overlaps,
//! duplicates and membership in the cluster prefix. The constructors in this module check the rules of single objects.

mod check;
mod family;
mod interface;
mod network;
mod path;
mod pod_cidr;
mod prefix_list;
mod sysctl;

pub use check::{Check, CheckTarget};
pub use family::{Family, PerFamily};
pub use interface::{InterfaceName, InvalidInterfaceName};
pub use network::{
    address_at, address_number, common_prefix, is_link_local, prefix_bounds, solicited_node, usual_network,
};
pub use path::{ConfigPath, Segment};
pub use pod_cidr::{InvalidPodCidr, PodCidr, PodNetwork, offset_by, pod_address};
pub use prefix_list::{PrefixList, Prefixed};
pub use sysctl::{InvalidSysctlKey, SysctlKey, normalize_value};

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::text::Untrusted;

/// The contents of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `clusterPrefix`: at least one prefix. They do not overlap.
    pub prefixes: PrefixList<IpNet>,
    /// `egressInterface` of the Linux nodes that do not override it.
    pub egress_interface: Option<InterfaceName>,
    /// `nextHop`, unless it is a router. See [`Self::next_hop_of`].
    pub next_hop_mode: NextHopMode,
    /// `nextHop`, if it is a router that has routes to the pods of all nodes.
    pub routers: PerFamily<IpAddr>,
    /// `offLink`.
    pub off_link: OffLink,
    /// `nodes`, in the order of the file, with unique names.
    pub nodes: Vec<Node>,
    /// `masterAddress`. Windows nodes have a host route to it.
    pub master_address: Option<IpAddr>,
    /// `nat`.
    pub nat: NatPolicy,
    /// `sysctls`, in the order of the file, with unique keys.
    pub sysctls: Vec<(SysctlKey, Untrusted)>,
    /// `routes`.
    pub routes: RouteOptions,
    /// `checks`, in the order of the file, with unique targets. They do not affect the plan.
    pub checks: Vec<Check>,
    /// The egress interface that was found on a node. It is not part of the configuration.
    pub found_egress: Option<FoundEgress>,
}

/// The egress interface that was found on a node by its address or by an alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEgress {
    /// The name of the node.
    pub node: Untrusted,
    /// The name of the interface.
    pub interface: InterfaceName,
}

impl Cluster {
    /// The maximum number of sysctls in a configuration.
    pub const MAX_SYSCTLS: usize = 1000;

    /// Sets the egress interface that was found on the node with this name.
    pub fn set_found_egress(&mut self, node: Untrusted, interface: InterfaceName) {
        self.found_egress = Some(FoundEgress { node, interface });
    }

    /// Returns the egress interface of `node`: the one that was found there, or else its own, or else the cluster's. The
    /// cluster's interface only applies to Linux nodes. `None` if it is the one with the node's address, which only the node
    /// knows.
    #[must_use]
    pub fn egress_interface_of<'a>(&'a self, node: &'a Node) -> Option<&'a InterfaceName> {
        if let Some(found) = self.found_egress.as_ref().filter(|found| found.node == node.name) {
            return Some(&found.interface);
        }
        match (node.egress_interface(), node.os) {
            (Some(interface), _) => Some(interface),
            (None, OperatingSystem::Linux) => self.egress_interface.as_ref(),
            (None, OperatingSystem::Windows) => None,
        }
    }

    /// Returns the next hop that other nodes use for the pods of `node`: the node's own `nextHop`, or else the cluster's.
    #[must_use]
    pub fn next_hop_of(&self, node: &Node, family: Family) -> NextHopKind {
        let own = node.next_hop();
        if let Some(router) = own.and_then(|own| own.routers.get(family)) {
            return NextHopKind::Router(*router);
        }
        let mode = match (own.and_then(|own| own.mode), self.routers.get(family)) {
            (Some(mode), _) => mode,
            (None, Some(router)) => return NextHopKind::Router(*router),
            (None, None) => self.next_hop_mode,
        };
        match mode {
            NextHopMode::PodGateway => NextHopKind::PodGateway,
            NextHopMode::NodeAddress => NextHopKind::NodeAddress,
        }
    }

    /// Returns whether the pod gateways of `family` must be on-link: whether any node's is a next hop.
    #[must_use]
    pub fn uses_pod_gateways(&self, family: Family) -> bool {
        let is_default = self.next_hop_mode == NextHopMode::PodGateway && self.routers.get(family).is_none();
        let overrides = || self.nodes.iter().filter(|node| node.next_hop().is_some());
        is_default || overrides().any(|node| self.next_hop_of(node, family) == NextHopKind::PodGateway)
    }

    /// Returns the largest packets, in bytes, that `node` sends to or receives from the pods of other nodes: its own `mtu`,
    /// or else `routes.mtu`. `None` if only its interface limits them.
    #[must_use]
    pub fn mtu_of(&self, node: &Node) -> Option<u32> {
        node.mtu().or(self.routes.mtu)
    }

    /// Returns whether hostgw masquerades packets of `family`.
    #[must_use]
    pub fn masquerades(&self, family: Family) -> bool {
        self.nat.masquerade && self.prefixes.has(family)
    }

    /// Returns the node with this name and its index.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(usize, &Node)> {
        self.nodes.iter().enumerate().find(|(_, node)| node.name == name)
    }
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `name`. It is unique in the file, and not empty or longer than [`Self::MAX_NAME_LEN`].
    pub name: Untrusted,
    /// `os`.
    pub os: OperatingSystem,
    /// `podCIDR` and `gateway`. Each pod CIDR is part of a cluster prefix. Empty for a machine without pods
    /// (`podCIDR: none`).
    pub pods: PrefixList<PodNetwork>,
    /// `address`. It is outside the cluster prefix.
    pub addresses: PerFamily<IpAddr>,
    /// Settings that few nodes have.
    pub overrides: Option<Box<NodeOverrides>>,
}

/// Settings of a node that few nodes have, most of which override those of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOverrides {
    /// `nextHop`, which overrides the cluster's.
    pub next_hop: Option<NextHopOverride>,
    /// `egressInterface`, which overrides the cluster's.
    pub egress_interface: Option<InterfaceName>,
    /// `defaultGateway` of a Windows node.
    pub default_gateway: Option<IpAddr>,
    /// `mtu`, which overrides `routes.mtu`. See [`Cluster::mtu_of`].
    pub mtu: Option<u32>,
}

impl Node {
    /// Returns `nextHop` of the node.
    #[must_use]
    pub fn next_hop(&self) -> Option<&NextHopOverride> {
        self.overrides.as_ref()?.next_hop.as_ref()
    }

    /// Returns `egressInterface` of the node.
    #[must_use]
    pub fn egress_interface(&self) -> Option<&InterfaceName> {
        self.overrides.as_ref()?.egress_interface.as_ref()
    }

    /// Returns `defaultGateway` of the node.
    #[must_use]
    pub fn default_gateway(&self) -> Option<IpAddr> {
        self.overrides.as_ref()?.default_gateway
    }

    /// Returns `mtu` of the node.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.overrides.as_ref()?.mtu
    }

    /// Returns the settings to change them.
    pub fn overrides_mut(&mut self) -> &mut NodeOverrides {
        self.overrides.get_or_insert_default()
    }

    /// The maximum length of a node name in bytes. As in Kubernetes, it is that of a DNS subdomain (RFC 1123).
    pub const MAX_NAME_LEN: usize = 253;

    /// Returns whether the node has pods. A machine without pods only gets the routes to the pods of all nodes: it neither
    /// forwards nor masquerades packets.
    #[must_use]
    pub fn has_pods(&self) -> bool {
        !self.pods.is_empty()
    }

    /// Returns the pod gateway of a pod CIDR of the node.
    #[must_use]
    pub fn gateway_of(&self, pods: &PodNetwork) -> IpAddr {
        pods.gateway.unwrap_or_else(|| pods.cidr.gateway(self.os))
    }

    /// Iterates over the pod gateways of the node.
    pub fn pod_gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.pods.iter().map(|pods| self.gateway_of(pods))
    }

    /// Iterates over the pod gateways of the node in one family.
    pub fn pod_gateways_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.pods.of(family).map(|pods| self.gateway_of(pods))
    }

    /// Returns the pod gateway of the node's pod CIDR `prefix`. `None` if the node has no such pod CIDR.
    #[must_use]
    pub fn gateway_at(&self, prefix: IpNet) -> Option<IpAddr> {
        self.pods.at(prefix).map(|pods| self.gateway_of(pods))
    }
}

/// The operating system of a node. It determines the pod gateway: on Windows, HNS reserves the first address of a pod
/// CIDR for its bridge, and the host's endpoint uses the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperatingSystem {
    /// The pod gateway is the first address.
    Linux,
    /// The pod gateway is the second address.
    Windows,
}

impl OperatingSystem {
    /// Its name in a sentence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
        }
    }
}

impl std::fmt::Display for OperatingSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
        })
    }
}

/// The next hop of the routes to other nodes' pods.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NextHopMode {
    /// The other node's pod gateway, which is reachable over the on-link route to the cluster prefix.
    #[default]
    PodGateway,
    /// The other node's address, as with flannel's host-gw backend. There is no on-link route.
    NodeAddress,
}

impl NextHopMode {
    /// All modes.
    pub const ALL: [Self; 2] = [Self::PodGateway, Self::NodeAddress];
}

impl std::fmt::Display for NextHopMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PodGateway => "pod-gateway",
            Self::NodeAddress => "node-address",
        })
    }
}

/// `nextHop` of one node: a mode or routers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NextHopOverride {
    /// The mode, unless there are routers.
    pub mode: Option<NextHopMode>,
    /// The routers that know the node's pods.
    pub routers: PerFamily<IpAddr>,
}

/// The next hop of the routes to a node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHopKind {
    /// Its pod gateway.
    PodGateway,
    /// Its own address.
    NodeAddress,
    /// A router that has routes to its pods.
    Router(IpAddr),
}

/// What happens to the route to a node whose next hop is not on the link of the egress interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OffLink {
    /// It is an error.
    #[default]
    Refuse,
    /// The node gets no route.
    Skip,
    /// The route uses the gateway through which the main routing table of this node reaches the other node.
    Gateway,
    /// The route has the flag `onlink`: the kernel sends packets to the next hop over the egress interface anyway.
    Onlink,
}

impl OffLink {
    /// Returns the word in a configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Skip => "skip",
            Self::Gateway => "gateway",
            Self::Onlink => "onlink",
        }
    }
}

/// The masquerading of traffic that leaves the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPolicy {
    /// `nat.masquerade`: whether hostgw manages NAT tables at all.
    pub masquerade: bool,
    /// `nat.exclude`: additional destinations that see the pod's source address.
    pub exclude: Vec<IpNet>,
    /// `nat.source`.
    pub source: NatSource,
    /// `nat.to`.
    pub to: NatTo,
    /// `nat.randomFully`: whether to randomize source ports (`fully-random` in nft).
    pub random_fully: bool,
}

impl NatPolicy {
    /// The maximum number of exclusions in a configuration. Each one is a rule that new connections have to pass.
    pub const MAX_EXCLUDED: usize = 1000;
}

/// The traffic to masquerade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatSource {
    /// All traffic that leaves the cluster.
    #[default]
    Any,
    /// Only the traffic of the node's own pods.
    Pods,
}

/// The source address that masqueraded packets get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NatTo {
    /// The address that the kernel chooses from those of the outgoing interface (`masquerade` in nft).
    #[default]
    Interface,
    /// The node's own address (`snat to` in nft).
    NodeAddress,
}

/// Options of the routes that hostgw adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOptions {
    /// The number of the routing table. `main` is 254 (`RT_TABLE_MAIN`, linux/rtnetlink.h).
    pub table: u32,
    /// The metric. The lowest one wins; 0 selects the kernel's default (1024 for IPv6).
    pub metric: u32,
    /// The MTU in bytes, or `None` for that of the interface.
    pub mtu: Option<u32>,
    /// Whether the scope of IPv4 routes spreads the gateways over the kernel's hash table.
    pub spread: ScopeSpread,
    /// What happens to packets for pod addresses that no node has.
    pub unassigned: Unassigned,
    /// The preferred source address.
    pub source: RouteSource,
}

/// The preferred source address of routes: that of packets from a node itself, unless a program chooses another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteSource {
    /// The kernel chooses an address of the interface.
    #[default]
    Auto,
    /// The node's own address.
    NodeAddress,
}

/// What happens to packets for addresses in the cluster prefix that no node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unassigned {
    /// They follow whatever other route matches, such as the default route.
    #[default]
    Leave,
    /// The kernel rejects them with an ICMP error.
    Unreachable,
}

/// When the scope of IPv4 routes depends on the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeSpread {
    /// In clusters of at least 300 nodes.
    #[default]
    Auto,
    /// Never: all routes via a gateway have global scope.
    Never,
}

impl ScopeSpread {
    /// The smallest number of nodes for which spreading saves more than a tenth of the time to add the routes. With 300
    /// nodes, `ip -batch` needs 0.88 of the time; with 1,000, 0.53; with 10,000, 0.09 (Linux 6.18).
    pub const MIN_NODES: usize = 300;

    /// Returns whether the routes of a cluster of `nodes` are spread.
    #[must_use]
    pub const fn applies_to(self, nodes: usize) -> bool {
        matches!(self, Self::Auto) && nodes >= Self::MIN_NODES
    }
}

/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            table: MAIN_TABLE,
            metric: 0,
            mtu: None,
            spread: ScopeSpread::Auto,
            unassigned: Unassigned::Leave,
            source: RouteSource::Auto,
        }
    }
}
