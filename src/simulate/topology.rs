//! The machines and addresses of a simulated cluster, derived from the configuration alone.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    error::{Error, Kind},
    model::{Cluster, Family, InterfaceName, OperatingSystem, PerFamily, offset_by, pod_address},
    text::Untrusted,
};

/// The interface of a node without an egress interface, and of a simulated Windows node.
const DEFAULT_INTERFACE: &str = "eth0";

/// A cluster to build.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The simulated cluster: its Windows nodes are Linux nodes with the Windows gateway.
    pub cluster: Cluster,
    /// The simulated nodes, in the order of the configuration.
    pub machines: Vec<Machine>,
    /// The address of the router on the nodes' link.
    pub router: PerFamily<IpNet>,
    /// The addresses of the outside host and of the router on its link.
    pub outside: PerFamily<(IpNet, IpNet)>,
}

/// A node with its pod.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The index of the node in the cluster.
    pub index: usize,
    /// The node's name.
    pub name: Untrusted,
    /// The node's operating system in the configuration.
    pub os: OperatingSystem,
    /// The node's egress interface.
    pub interface: String,
    /// The node's addresses on the shared link.
    pub addresses: PerFamily<IpNet>,
    /// The addresses of the pod bridge: the pod gateways of the node's operating system.
    pub bridge: PerFamily<IpNet>,
    /// The addresses of the node's pod.
    pub pod: PerFamily<IpNet>,
}

impl Topology {
    /// Creates the topology of the nodes at `indexes`. Allocates the addresses that the configuration omits.
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] if no address is free to allocate.
    pub fn new(cluster: &Cluster, indexes: &[usize]) -> Result<Self, Error> {
        let mut networks = PerFamily::<Network>::default();
        for (family, prefix) in cluster.prefixes.iter() {
            *networks.get_mut(family) = Some(Network::of(cluster, family, *prefix));
        }
        let mut simulated = cluster.clone();
        let mut machines = Vec::with_capacity(indexes.len());
        for &index in indexes {
            machines.push(machine(&mut simulated, index, &mut networks)?);
        }
        let (mut router, mut outside) = (PerFamily::default(), PerFamily::default());
        for (family, _) in cluster.prefixes.iter() {
            if let Some(network) = networks.get_mut(family) {
                *router.get_mut(family) = Some(network.allocate()?);
                *outside.get_mut(family) = Some(outside_addresses(cluster, network.prefix, family)?);
            }
        }
        Ok(Self { cluster: simulated, machines, router, outside })
    }

    /// Returns `true` if traffic from pods to the outside host is masqueraded. Otherwise the outside host has no route
    /// back, so nothing can be tested.
    #[must_use]
    pub fn masquerades(&self, family: Family) -> bool {
        let nat = &self.cluster.nat;
        self.outside.get(family).is_some_and(|(host, _)| {
            nat.masquerade && !nat.exclude.iter().any(|prefix| prefix.contains(&host.addr()))
        })
    }
}

fn machine(
    simulated: &mut Cluster,
    index: usize,
    networks: &mut PerFamily<Network>,
) -> Result<Machine, Error> {
    let egress = simulated.egress_interface.clone();
    let node = &mut simulated.nodes[index];
    let interface = match node.os {
        OperatingSystem::Linux => node.egress_interface.clone().or(egress),
        OperatingSystem::Windows => None,
    };
    let interface = interface.map_or_else(|| DEFAULT_INTERFACE.to_owned(), |name| name.as_str().to_owned());
    let os = node.os;
    let (mut addresses, mut bridge, mut pod) =
        (PerFamily::default(), PerFamily::default(), PerFamily::default());
    for family in Family::ALL {
        let Some(network) = networks.get_mut(family) else { continue };
        let address = match node.addresses.get(family) {
            Some(address) => network.with_length(*address),
            None => network.allocate()?,
        };
        *addresses.get_mut(family) = Some(address);
        // Routes with `nextHop: node-address` need the allocated address, too.
        *node.addresses.get_mut(family) = Some(address.addr());
        let Some(cidr) = node.pod_cidrs.get(family) else { continue };
        let gateway = cidr.gateway(os);
        let length = cidr.prefix().prefix_len();
        let net = |address| IpNet::new(address, length).unwrap_or(cidr.prefix());
        *bridge.get_mut(family) = Some(net(gateway));
        *pod.get_mut(family) = Some(net(pod_address(cidr.prefix(), Some(gateway))));
        // Other nodes reach a Windows node through the Windows gateway, although Linux simulates it.
        let gateway_in_use = node.gateways.get(family).copied().unwrap_or(gateway);
        *node.gateways.get_mut(family) = Some(gateway_in_use);
    }
    node.os = OperatingSystem::Linux;
    if os == OperatingSystem::Windows {
        node.egress_interface = InterfaceName::linux(&interface).ok();
    }
    Ok(Machine { index, name: node.name.clone(), os, interface, addresses, bridge, pod })
}

/// The nodes' link.
#[derive(Debug)]
struct Network {
    prefix: IpNet,
    taken: BTreeSet<IpAddr>,
    cluster: IpNet,
}

impl Network {
    /// The smallest prefix around the configured node addresses, with at most a /24 or /64; without any, a
    /// documentation prefix (RFC 5737, RFC 3849).
    fn of(cluster: &Cluster, family: Family, cluster_prefix: IpNet) -> Self {
        let configured: BTreeSet<IpAddr> =
            cluster.nodes.iter().filter_map(|node| node.addresses.get(family).copied()).collect();
        // Include all nodes: the simulated ones have routes to the others.
        let prefix = configured
            .iter()
            .copied()
            .map(|address| enclosing_net(address, if address.is_ipv4() { 24 } else { 64 }))
            .reduce(common_prefix)
            .unwrap_or_else(|| match family {
                Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24).into(),
                Family::V6 => Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0), 64).into(),
            });
        Self { prefix, taken: configured, cluster: cluster_prefix }
    }

    fn with_length(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.prefix.prefix_len()).unwrap_or(self.prefix)
    }

    /// Allocates an unused address.
    fn allocate(&mut self) -> Result<IpNet, Error> {
        // The first address of an IPv6 subnet is the subnet-router anycast address (RFC 4291, 2.6.1).
        let is_free = |address: &IpAddr| {
            *address != self.prefix.network()
                && !self.taken.contains(address)
                && !self.cluster.contains(address)
        };
        let free = self.prefix.hosts().take(100_000).find(is_free).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("the nodes' network {} has no free address for a simulated machine", self.prefix),
            )
            .with_hint("build fewer nodes with --sample, or set the nodes' addresses in the file")
        })?;
        self.taken.insert(free);
        Ok(self.with_length(free))
    }
}

fn enclosing_net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// The longest prefix that contains both.
pub(super) fn common_prefix(a: IpNet, b: IpNet) -> IpNet {
    let mut net = a;
    while !net.contains(&b) {
        match net.supernet() {
            Some(wider) => net = wider,
            None => break,
        }
    }
    net
}

/// The outside host and its router, in a documentation prefix that nothing else uses.
fn outside_addresses(cluster: &Cluster, nodes: IpNet, family: Family) -> Result<(IpNet, IpNet), Error> {
    let candidates: Vec<IpNet> = match family {
        Family::V4 => [[203, 0, 113], [198, 51, 100], [192, 0, 2]]
            .map(|[a, b, c]| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24).into())
            .to_vec(),
        Family::V6 => [0xff, 0xfe, 0xfd]
            .map(|subnet| Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, 0), 64).into())
            .to_vec(),
    };
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let is_free = |candidate: &IpNet| {
        !overlaps(candidate, &nodes)
            && !cluster.prefixes.iter().any(|(_, prefix)| overlaps(candidate, prefix))
    };
    let prefix = candidates.into_iter().find(is_free).ok_or_else(|| {
        Error::new(Kind::Invalid, "the cluster uses every documentation prefix: none is left for the outside")
    })?;
    let net = |offset| IpNet::new(offset_by(prefix.network(), offset), prefix.prefix_len()).unwrap_or(prefix);
    Ok((net(10), net(1)))
}

/// Selects the nodes to simulate: the first one of each operating system, the first and the last of the configuration,
/// and others at random, drawn with `seed`. Returns indexes in ascending order.
#[must_use]
pub fn sample(cluster: &Cluster, size: usize, seed: u64) -> Vec<usize> {
    let nodes = &cluster.nodes;
    if size >= nodes.len() {
        return (0..nodes.len()).collect();
    }
    let first = |os| nodes.iter().position(|node| node.os == os);
    let fixed =
        [first(OperatingSystem::Linux), first(OperatingSystem::Windows), Some(0), nodes.len().checked_sub(1)];
    let mut chosen = BTreeSet::new();
    for index in fixed.into_iter().flatten() {
        if chosen.len() < size {
            chosen.insert(index);
        }
    }
    let mut random = SplitMix(seed);
    while chosen.len() < size {
        let below = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
        chosen.insert(usize::try_from(random.next() % below).unwrap_or(0));
    }
    chosen.into_iter().collect()
}

/// The generator `SplitMix64` (Steele, Lea, Flood 2014). It is small, and the same seed gives the same sample on every
/// machine and in every version.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Document, Format};

    fn cluster(nodes: &str) -> Cluster {
        let text = format!("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n{nodes}");
        let document = Document::new("hostgw.yaml", text, Format::Yaml);
        config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    }

    fn v4(net: &PerFamily<IpNet>) -> String {
        net.v4.map_or_else(String::new, |net| net.to_string())
    }

    #[test]
    fn a_windows_node_is_simulated_with_the_windows_gateway() {
        let cluster = cluster(
            "  - {name: a, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}
  - {name: w, os: windows, podCIDR: 10.244.1.128/25, address: 172.30.0.12, egressInterface: vEthernet (Ethernet)}\n",
        );
        let topology = Topology::new(&cluster, &[0, 1]).expect("a topology");
        let windows = &topology.machines[1];
        assert_eq!((windows.interface.as_str(), windows.os), ("eth0", OperatingSystem::Windows));
        assert_eq!(v4(&windows.bridge), "10.244.1.130/25");
        assert_eq!(v4(&windows.pod), "10.244.1.138/25");
        assert_eq!(v4(&windows.addresses), "172.30.0.12/24");
        assert_eq!(v4(&topology.router), "172.30.0.1/24");
        let gateway = topology.cluster.nodes[1].pod_gateway(Family::V4).map(|gateway| gateway.to_string());
        assert_eq!(gateway.as_deref(), Some("10.244.1.130"));
    }

    #[test]
    fn only_missing_addresses_are_allocated() {
        let cluster = cluster(
            "  - {name: a, os: linux, podCIDR: 10.244.0.0/24}
  - {name: b, os: linux, podCIDR: 10.244.1.0/30, address: 172.30.0.2}
  - {name: c, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.9.1}\n",
        );
        let topology = Topology::new(&cluster, &[0, 1, 2]).expect("a topology");
        let addresses: Vec<_> = topology.machines.iter().map(|machine| v4(&machine.addresses)).collect();
        assert_eq!(addresses, ["172.30.0.1/20", "172.30.0.2/20", "172.30.9.1/20"]);
        assert_eq!(v4(&topology.machines[1].pod), "10.244.1.2/30");
        let without_addresses =
            Topology::new(&self::cluster("  - {name: a, os: linux, podCIDR: 10.244.0.0/24}\n"), &[0]);
        let alone = without_addresses.expect("a topology");
        assert_eq!(v4(&alone.machines[0].addresses), "192.0.2.1/24");
        let outside = alone.outside.v4.map(|(host, _)| host.to_string());
        assert_eq!(outside.as_deref(), Some("203.0.113.10/24"));
    }

    #[test]
    fn a_sample_includes_the_first_node_of_each_os_and_both_ends() {
        let nodes: String = (0..100)
            .map(|n| {
                let os = if n == 57 { "windows" } else { "linux" };
                format!(
                    "  - {{name: n{n}, os: {os}, podCIDR: 10.244.{n}.0/24, address: 172.30.0.{}}}\n",
                    n + 1
                )
            })
            .collect();
        let cluster = cluster(&nodes);
        let sample_of = |size, seed| sample(&cluster, size, seed);
        assert_eq!(sample_of(3, 1), [0, 57, 99]);
        let ten = sample_of(10, 7);
        assert_eq!(ten.len(), 10);
        assert!([0, 57, 99].iter().all(|index| ten.contains(index)));
        assert_eq!(ten, sample_of(10, 7), "the same seed gives the same sample");
        assert_ne!(ten, sample_of(10, 8));
        assert_eq!(sample_of(200, 1).len(), 100);
    }
}
