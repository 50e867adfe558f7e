//! The cluster as an operator describes it, valid by construction.
//!
//! A [`Cluster`] comes out of [`crate::config`], which checks everything that one object cannot check
//! of itself (overlaps, duplicates, membership in the cluster prefix). What one object can check is
//! checked by its constructor, here.

mod check;
mod family;
mod interface;
mod path;
mod pod_cidr;
mod sysctl;

pub use check::{Check, CheckTarget};
pub use family::{Family, PerFamily};
pub use interface::{InterfaceName, InvalidInterfaceName};
pub use path::{ConfigPath, Segment};
pub use pod_cidr::{InvalidPodCidr, PodCidr};
pub use sysctl::{InvalidSysctlKey, SysctlKey, normalize_value};

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::text::Untrusted;

/// One configuration file: the cluster and what every node of it shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `clusterPrefix`: at least one family is present.
    pub prefixes: PerFamily<IpNet>,
    /// `egressInterface` of Linux nodes that name none of their own.
    pub egress_interface: Option<InterfaceName>,
    /// `nextHop`: what node routes go by.
    pub next_hop: NextHopMode,
    /// In the order of the file, names unique.
    pub nodes: Vec<Node>,
    /// `masterAddress`: Windows nodes get a host route to it.
    pub master_address: Option<IpAddr>,
    /// `nat`.
    pub nat: NatPolicy,
    /// `sysctls`, in the order of the file, keys unique.
    pub sysctls: Vec<(SysctlKey, Untrusted)>,
    /// `routes`.
    pub routes: RouteOptions,
    /// `checks`, in the order of the file, targets unique. The plan does not depend on them.
    pub checks: Vec<Check>,
}

impl Cluster {
    /// So many sysctls a file may have.
    pub const MAX_SYSCTLS: usize = 1000;

    /// The egress interface of `node`: its own, else the cluster's. A Windows node never takes the
    /// cluster's, which names an interface of Linux nodes.
    #[must_use]
    pub fn egress_interface_of<'a>(&'a self, node: &'a Node) -> Option<&'a InterfaceName> {
        match (&node.egress_interface, node.os) {
            (Some(own), _) => Some(own),
            (None, OperatingSystem::Linux) => self.egress_interface.as_ref(),
            (None, OperatingSystem::Windows) => None,
        }
    }

    /// Index and node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(usize, &Node)> {
        self.nodes.iter().enumerate().find(|(_, node)| node.name == name)
    }
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique in the file, never empty, at most [`Self::MAX_NAME_LEN`] bytes.
    pub name: Untrusted,
    /// `os`.
    pub os: OperatingSystem,
    /// `podCIDR`: at least one family, each inside the cluster prefix of its family.
    pub pod_cidrs: PerFamily<PodCidr>,
    /// `address`: the node's own address outside the cluster prefix.
    pub addresses: PerFamily<IpAddr>,
    /// `gateway`: overrides the computed pod gateway, inside the pod CIDR of its family.
    pub gateways: PerFamily<IpAddr>,
    /// `egressInterface` of this node alone.
    pub egress_interface: Option<InterfaceName>,
    /// `defaultGateway` of a Windows node.
    pub default_gateway: Option<IpAddr>,
}

impl Node {
    /// The longest name of a node in bytes, as Kubernetes has it: a DNS subdomain (RFC 1123).
    pub const MAX_NAME_LEN: usize = 253;

    /// The pod gateway in `family`: the override, else computed from the pod CIDR.
    ///
    /// `None` when the node has no pod CIDR of that family.
    #[must_use]
    pub fn pod_gateway(&self, family: Family) -> Option<IpAddr> {
        let cidr = self.pod_cidrs.get(family)?;
        Some(self.gateways.get(family).copied().unwrap_or_else(|| cidr.gateway(self.os)))
    }
}

/// The operating system of a node. It decides the pod gateway: HNS on Windows reserves the first
/// address of a pod CIDR for its bridge, so the host's endpoint has the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperatingSystem {
    /// The pod gateway is network + 1.
    Linux,
    /// The pod gateway is network + 2.
    Windows,
}

impl std::fmt::Display for OperatingSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
        })
    }
}

/// What a route to another node's pod CIDR goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NextHopMode {
    /// The other node's pod gateway, reached over the on-link route for the cluster prefix.
    #[default]
    PodGateway,
    /// The other node's own address, as flannel's host-gw backend does; no on-link route is needed.
    NodeAddress,
}

/// Which traffic keeps its source and which is masqueraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPolicy {
    /// `nat.masquerade`: whether hostgw has a NAT table at all.
    pub masquerade: bool,
    /// `nat.exclude`: further destinations that keep the pod's source address.
    pub exclude: Vec<IpNet>,
    /// `nat.source`.
    pub source: NatSource,
    /// `nat.randomFully`: map source ports at random (nft `fully-random`).
    pub random_fully: bool,
}

impl NatPolicy {
    /// So many exclusions a file may have: each is a rule that every new connection passes.
    pub const MAX_EXCLUDED: usize = 1000;
}

/// Whose traffic is masqueraded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatSource {
    /// All traffic that leaves the cluster prefix.
    #[default]
    Any,
    /// Only traffic from this node's own pod CIDRs.
    Pods,
}

/// Knobs of the routes hostgw writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOptions {
    /// Routing table number; `main` is 254 (`RT_TABLE_MAIN`, linux/rtnetlink.h).
    pub table: u32,
    /// Route metric; smaller wins. 0 leaves it to the kernel (IPv6: 1024).
    pub metric: u32,
    /// MTU of the routes in bytes; `None` leaves the interface's.
    pub mtu: Option<u32>,
}

/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;

impl Default for RouteOptions {
    fn default() -> Self {
        Self { table: MAIN_TABLE, metric: 0, mtu: None }
    }
}
