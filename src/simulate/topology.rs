//! The machines, links and addresses of a simulated cluster, derived from the configuration and from what the command
//! line says about networks.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::networks::Networks;

use crate::{
    error::{Error, Kind},
    forwarding::TableRule,
    model::{
        Cluster, Family, InterfaceName, MAIN_TABLE, NextHopKind, OffLink, OperatingSystem, PerFamily,
        PodNetwork, Prefixed, offset_by, pod_address,
    },
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
    /// The links of the simulated nodes, with a router between them.
    pub segments: Vec<LinkSegment>,
    /// Whether the networks of the nodes were derived from their addresses, although there are several.
    pub are_networks_assumed: bool,
    /// Whether nodes in different networks are on one link, because the configuration relies on it.
    pub is_one_link: bool,
    /// The addresses of the outside host and of the router on its link.
    pub outside: PerFamily<(IpNet, IpNet)>,
}

/// A link that connects nodes and the router.
#[derive(Debug, Clone, Default)]
pub struct LinkSegment {
    /// The networks on it.
    pub networks: Vec<IpNet>,
    /// The addresses of the router: one in each network.
    pub router: Vec<IpNet>,
    /// The numbers of the networks in each family.
    numbers: BTreeSet<(Family, usize)>,
}

impl LinkSegment {
    /// The router's address in the network of `address`.
    #[must_use]
    pub fn router_of(&self, address: &IpNet) -> Option<IpNet> {
        self.router.iter().copied().find(|router| router.contains(&address.addr()))
    }
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
    /// The node's addresses on its link.
    pub addresses: PerFamily<IpNet>,
    /// The router's addresses on its link.
    pub router: PerFamily<IpNet>,
    /// The number of its link.
    pub segment: usize,
    /// The addresses in each pod CIDR. A machine without pods has none.
    pub pods: Vec<PodAddresses>,
    /// The policy rules that `routes.table` relies on. The copy of a node has those of the node instead.
    pub rules: Vec<TableRule>,
}

/// The addresses that a machine uses in a pod CIDR.
#[derive(Debug, Clone, Copy)]
pub struct PodAddresses {
    /// The address of the pod bridge: the pod gateway of the node's operating system.
    pub bridge: IpNet,
    /// The address of the node's pod.
    pub pod: IpNet,
}

impl Machine {
    /// Iterates over the addresses in the pod CIDRs of `family`.
    pub fn pods_of(&self, family: Family) -> impl Iterator<Item = &PodAddresses> {
        self.pods.iter().filter(move |pods| Family::from(pods.bridge) == family)
    }

    /// Returns the default gateways of the pod: the first pod gateway of each family.
    pub fn gateways_of_pod(&self) -> impl Iterator<Item = (Family, IpAddr)> {
        let first = |family| Some((family, self.pods_of(family).next()?.bridge.addr()));
        Family::ALL.into_iter().filter_map(first)
    }
}

impl Topology {
    /// Creates the topology of the nodes at `indexes`. Allocates the addresses that the configuration omits. Nodes in
    /// different networks are on different links, unless they share one in the other family, or the configuration says
    /// that all are on one (`offLink: onlink`).
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] if no address is free to allocate.
    pub fn new(cluster: &Cluster, indexes: &[usize], mut networks: Networks) -> Result<Self, Error> {
        let mut simulated = cluster.clone();
        let mut machines = Vec::with_capacity(indexes.len());
        let mut segments: Vec<LinkSegment> = Vec::new();
        let mut numbers_of = Vec::with_capacity(indexes.len());
        for &index in indexes {
            let (machine, mut numbers) = machine(&mut simulated, index, &mut networks)?;
            if machines.is_empty() {
                numbers.retain(|(family, _)| !networks.home.iter().any(|(home, _)| home == family));
                numbers.extend(&networks.home);
            }
            machines.push(machine);
            merge(&mut segments, numbers.clone());
            numbers_of.push(numbers);
        }
        let is_one_link = networks.is_one_link && segments.len() > 1;
        if is_one_link {
            let numbers = segments.drain(..).flat_map(|segment| segment.numbers).collect();
            segments.push(LinkSegment { numbers, ..LinkSegment::default() });
        }
        for segment in &mut segments {
            for (family, number) in segment.numbers.clone() {
                segment.networks.extend(networks.prefix(family, number));
                let configured = networks.configured_routers(cluster, family, number);
                if configured.is_empty() || networks.home.contains(&(family, number)) {
                    segment.router.extend(networks.router(family, number)?);
                }
                let known: Vec<IpAddr> = segment.router.iter().map(IpNet::addr).collect();
                segment
                    .router
                    .extend(configured.into_iter().filter(|router| !known.contains(&router.addr())));
            }
            segment.router.extend(networks.routers_on_link(cluster));
        }
        for (machine, numbers) in machines.iter_mut().zip(numbers_of) {
            machine.segment =
                segments.iter().position(|segment| segment.numbers.is_superset(&numbers)).unwrap_or(0);
            for (family, address) in machine.addresses.iter() {
                *machine.router.get_mut(family) = segments[machine.segment].router_of(address);
            }
        }
        let mut outside = PerFamily::default();
        for family in cluster.prefixes.families() {
            *outside.get_mut(family) = Some(outside_addresses(cluster, &networks, family)?);
        }
        let are_networks_assumed = networks.are_assumed && segments.len() > 1;
        Ok(Self { cluster: simulated, machines, segments, are_networks_assumed, is_one_link, outside })
    }

    /// Returns whether the two machines have addresses in different networks of a family.
    #[must_use]
    pub fn are_apart(&self, one: &Machine, other: &Machine, family: Family) -> bool {
        let [one, other] = [one, other].map(|machine| machine.addresses.get(family));
        one.zip(other).is_some_and(|(one, other)| !one.contains(&other.addr()))
    }

    /// Iterates over the pod CIDRs that the router has routes to, because the configuration relies on it, each with the
    /// address of the node.
    pub fn routes_of_router(&self) -> impl Iterator<Item = (IpNet, IpAddr)> {
        self.machines.iter().flat_map(move |machine| {
            let node = &self.cluster.nodes[machine.index];
            machine.pods.iter().filter_map(move |PodAddresses { bridge, .. }| {
                let family = Family::from(*bridge);
                let next_hop = self.cluster.next_hop_of(node, family);
                let is_needed =
                    self.cluster.off_link == OffLink::Gateway || matches!(next_hop, NextHopKind::Router(_));
                let address = machine.addresses.get(family).filter(|_| is_needed)?;
                Some((bridge.trunc(), address.addr()))
            })
        })
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

/// Adds a link with these networks. Links with a network in common are one.
fn merge(segments: &mut Vec<LinkSegment>, mut numbers: BTreeSet<(Family, usize)>) {
    segments.retain(|segment| {
        let is_same = !segment.numbers.is_disjoint(&numbers);
        if is_same {
            numbers.extend(&segment.numbers);
        }
        !is_same
    });
    segments.push(LinkSegment { numbers, ..LinkSegment::default() });
}

/// Derives a machine, and the numbers of its networks.
fn machine(
    simulated: &mut Cluster,
    index: usize,
    networks: &mut Networks,
) -> Result<(Machine, BTreeSet<(Family, usize)>), Error> {
    let families: Vec<Family> = simulated.prefixes.families().collect();
    let egress = simulated.egress_interface.clone();
    let (wholes, table) = (simulated.prefixes.clone(), simulated.routes.table);
    let node = &mut simulated.nodes[index];
    let interface = match node.os {
        OperatingSystem::Linux => node.egress_interface().cloned().or(egress),
        OperatingSystem::Windows => None,
    };
    let interface = interface.filter(|name| !name.is_alternative());
    let is_named = interface.is_some();
    let interface = interface.map_or_else(|| DEFAULT_INTERFACE.to_owned(), |name| name.as_str().to_owned());
    let os = node.os;
    let mut addresses = PerFamily::default();
    let mut numbers = BTreeSet::new();
    for family in families {
        let known = node.addresses.get(family).and_then(|address| networks.with_length(*address));
        let (number, address) = match known {
            Some(known) => known,
            None => networks.allocate(family)?,
        };
        numbers.insert((family, number));
        *addresses.get_mut(family) = Some(address);
        // Routes with `nextHop: node-address` need the allocated address, too.
        *node.addresses.get_mut(family) = Some(address.addr());
    }
    let addresses_in = |network: &PodNetwork| {
        let (prefix, gateway) = (network.prefix(), network.cidr.gateway(os));
        let net = |address| IpNet::new(address, prefix.prefix_len()).unwrap_or(prefix);
        PodAddresses { bridge: net(gateway), pod: net(pod_address(prefix, Some(gateway))) }
    };
    let pods = node.pods.iter().map(addresses_in).collect();
    // Other nodes reach a Windows node through the Windows gateway, although Linux simulates it.
    let in_use = node.pods.iter().map(|network| {
        let gateway = network.gateway.unwrap_or_else(|| network.cidr.gateway(os));
        PodNetwork { gateway: Some(gateway), ..*network }
    });
    node.pods = in_use.collect();
    node.os = OperatingSystem::Linux;
    if !is_named {
        node.overrides_mut().egress_interface = InterfaceName::linux(&interface).ok();
    }
    let rules = if table == MAIN_TABLE {
        Vec::new()
    } else {
        let own = node.pods.iter().map(Prefixed::prefix);
        TableRule::for_pods(own, wholes.iter().copied(), table, TableRule::PRIORITY)
    };
    let (name, router) = (node.name.clone(), PerFamily::default());
    Ok((Machine { index, name, os, interface, addresses, router, segment: 0, pods, rules }, numbers))
}

/// The outside host and its router, in a documentation prefix that nothing else uses.
fn outside_addresses(
    cluster: &Cluster,
    networks: &Networks,
    family: Family,
) -> Result<(IpNet, IpNet), Error> {
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
        !networks.prefixes().any(|nodes| overlaps(candidate, &nodes))
            && !cluster.prefixes.iter().any(|prefix| overlaps(candidate, prefix))
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

    fn topology_of(cluster: &Cluster, indexes: &[usize], networks: &[IpNet]) -> Result<Topology, Error> {
        Topology::new(cluster, indexes, Networks::of(cluster, networks)?)
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
        let topology = topology_of(&cluster, &[0, 1], &[]).expect("a topology");
        let windows = &topology.machines[1];
        assert_eq!((windows.interface.as_str(), windows.os), ("eth0", OperatingSystem::Windows));
        assert_eq!(windows.pods[0].bridge.to_string(), "10.244.1.130/25");
        assert_eq!(windows.pods[0].pod.to_string(), "10.244.1.138/25");
        assert_eq!(v4(&windows.addresses), "172.30.0.12/24");
        assert_eq!(v4(&windows.router), "172.30.0.1/24");
        let gateways: Vec<String> =
            topology.cluster.nodes[1].pod_gateways().map(|gateway| gateway.to_string()).collect();
        assert_eq!(gateways, ["10.244.1.130"]);
    }

    #[test]
    fn only_missing_addresses_are_allocated() {
        let cluster = cluster(
            "  - {name: a, os: linux, podCIDR: 10.244.0.0/24}
  - {name: b, os: linux, podCIDR: 10.244.1.0/30, address: 172.30.0.2}
  - {name: c, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.9.1}\n",
        );
        let topology =
            topology_of(&cluster, &[0, 1, 2], &["172.30.0.0/20".parse().unwrap()]).expect("a topology");
        let addresses: Vec<_> = topology.machines.iter().map(|machine| v4(&machine.addresses)).collect();
        assert_eq!(addresses, ["172.30.0.1/20", "172.30.0.2/20", "172.30.9.1/20"]);
        assert_eq!(topology.machines[1].pods[0].pod.to_string(), "10.244.1.2/30");
        assert_eq!(topology.segments.len(), 1);
        let without_addresses =
            topology_of(&self::cluster("  - {name: a, os: linux, podCIDR: 10.244.0.0/24}\n"), &[0], &[]);
        let alone = without_addresses.expect("a topology");
        assert_eq!(v4(&alone.machines[0].addresses), "192.0.2.1/24");
        let outside = alone.outside.v4.map(|(host, _)| host.to_string());
        assert_eq!(outside.as_deref(), Some("203.0.113.10/24"));
    }

    /// Without an address of a node, the network is that of the router.
    #[test]
    fn a_node_never_gets_the_address_of_a_router() {
        for (address, expected) in [
            ("", ["172.30.0.2/24", "172.30.0.3/24"]),
            (", address: 172.30.0.2", ["172.30.0.2/24", "172.30.0.3/24"]),
        ] {
            let nodes = format!(
                "  - {{name: a, os: linux, podCIDR: 10.244.0.0/24{address}}}
  - {{name: b, os: linux, podCIDR: 10.244.1.0/24}}
nextHop: 172.30.0.1\n"
            );
            let topology = topology_of(&cluster(&nodes), &[0, 1], &[]).expect("a topology");
            let addresses = topology.machines.iter().map(|machine| v4(&machine.addresses));
            assert_eq!(addresses.collect::<Vec<_>>(), expected);
            let routers = topology.segments[0].router.iter().map(ToString::to_string);
            assert_eq!(routers.collect::<Vec<_>>(), ["172.30.0.1/24"]);
        }
    }

    /// Nodes in different networks are on different links, each with an address of the router in every network.
    #[test]
    fn networks_become_links() {
        let nodes = "  - {name: a, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.1}
  - {name: b, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.9.1}
  - {name: c, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.7}\n";
        let segments = |topology: &Topology| -> Vec<usize> {
            topology.machines.iter().map(|machine| machine.segment).collect()
        };
        let topology = topology_of(&cluster(nodes), &[0, 1, 2], &[]).expect("a topology");
        let [a, b, c] = segments(&topology).try_into().expect("three nodes");
        assert!(a == c && a != b && topology.are_networks_assumed);
        assert_eq!(v4(&topology.machines[0].router), "172.30.0.2/24");
        assert_eq!(v4(&topology.machines[1].router), "172.30.9.2/24");
        let given: Vec<IpNet> = ["172.30.0.0/21", "172.30.8.0/21"].map(|net| net.parse().unwrap()).to_vec();
        let topology = topology_of(&cluster(nodes), &[0, 1, 2], &given).expect("a topology");
        assert_eq!(v4(&topology.machines[1].addresses), "172.30.9.1/21");
        assert!(topology.segments.len() == 2 && !topology.are_networks_assumed);
        let error = topology_of(&cluster(nodes), &[0, 1, 2], &given[..1]).expect_err("b is nowhere");
        assert_eq!(error.message, "node b: 172.30.9.1 is in none of the networks 172.30.0.0/21");
        // A common network in the other family means one link.
        let dual = nodes.replace("/24, address: 172.30", "/24, address: [172.30").replace('}', "]}");
        let dual: String = dual
            .lines()
            .enumerate()
            .map(|(n, line)| {
                let v6 = format!("podCIDR: [10.244.{n}.0/24, 'fd00:244:0:{n}::/64']");
                let line = line
                    .replace(&format!("podCIDR: 10.244.{n}.0/24"), &v6)
                    .replace("]}", &format!(", '2001:db8::{n}1']}}"));
                line + "\n"
            })
            .collect();
        let text =
            format!("clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\nnodes:\n{dual}");
        let document = Document::new("hostgw.yaml", text, Format::Yaml);
        let cluster = config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        let topology = topology_of(&cluster, &[0, 1, 2], &[]).expect("a topology");
        assert_eq!(segments(&topology), [0, 0, 0]);
        assert_eq!(topology.segments[0].networks.len(), 3);
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
