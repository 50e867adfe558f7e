//! The networks of the nodes: which of them are on one link, and the unused addresses.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    error::{Error, Kind},
    model::{Cluster, Family, OffLink, PerFamily, usual_network},
    text::{Untrusted, list},
};

/// The networks of the nodes in both families.
#[derive(Debug)]
pub struct Networks {
    of_family: PerFamily<Vec<Network>>,
    /// Whether they were derived from the nodes' addresses.
    pub are_assumed: bool,
    /// Whether the configuration says that all of them are on one link, and the command line does not say otherwise.
    pub is_one_link: bool,
    /// The networks on the link of the first machine, by family and number. Empty if the
    /// addresses of the machine determine the networks.
    pub home: BTreeSet<(Family, usize)>,
    /// The numbers of the networks in which addresses are allocated.
    allocation: PerFamily<usize>,
    /// The routers in the first networks, if they are known.
    gateways: PerFamily<IpNet>,
}

/// A network of nodes.
#[derive(Debug)]
struct Network {
    prefix: IpNet,
    /// The addresses of nodes and routers, and those of nodes that are not simulated.
    taken: BTreeSet<IpAddr>,
    cluster: Vec<IpNet>,
}

impl Networks {
    /// Returns the networks of a cluster: those that are `given`, or else each /24 (IPv4) and /64 (IPv6) that contains an
    /// address of a node. If no node has an address, returns that of the router, or a documentation network (RFC 5737,
    /// RFC 3849).
    ///
    /// # Errors
    /// Returns [`Kind::Usage`] if the given networks overlap, or if the cluster does not have their address family, and
    /// [`Kind::Invalid`] if a node is in none of them.
    pub fn of(cluster: &Cluster, given: &[IpNet]) -> Result<Self, Error> {
        check(cluster, given)?;
        let mut of_family = PerFamily::default();
        let (mut are_assumed, mut allocation) = (false, PerFamily::default());
        for family in cluster.prefixes.families() {
            let wholes: Vec<IpNet> = cluster.prefixes.of(family).copied().collect();
            let given: Vec<IpNet> =
                given.iter().copied().filter(|prefix| Family::from(*prefix) == family).collect();
            // Include all nodes: the simulated ones have routes to the others.
            let nodes = || cluster.nodes.iter().filter_map(|node| Some((node, *node.addresses.get(family)?)));
            let mut prefixes: BTreeSet<IpNet> = given.iter().copied().collect();
            if given.is_empty() {
                prefixes.extend(nodes().map(|(_, address)| usual_network(address)));
                are_assumed |= prefixes.len() > 1;
            } else if let Some((node, address)) =
                nodes().find(|(_, address)| !given.iter().any(|prefix| prefix.contains(address)))
            {
                return Err(in_no_network(&node.name, address, &given));
            }
            if prefixes.is_empty() {
                // Nodes reach the router of the cluster on their link.
                let router = cluster.routers.get(family).copied().or_else(|| routers(cluster, family).next());
                prefixes.insert(router.map_or_else(|| for_documentation(family), usual_network));
            }
            let known = || nodes().map(|(_, address)| address).chain(routers(cluster, family));
            let network = |prefix: IpNet| {
                let taken = known().filter(|address| prefix.contains(address)).collect();
                Network { prefix, taken, cluster: wholes.clone() }
            };
            *of_family.get_mut(family) = Some(prefixes.into_iter().map(network).collect());
            *allocation.get_mut(family) = Some(0);
        }
        let is_one_link = cluster.off_link == OffLink::Onlink && given.is_empty();
        let (home, gateways) = (BTreeSet::new(), PerFamily::default());
        Ok(Self { of_family, are_assumed, is_one_link, home, allocation, gateways })
    }

    /// Returns the networks around a node that has the addresses `own` and these `gateways`: its own networks, each /24
    /// (IPv4) and /64 (IPv6) with an address of another node outside of them, and one to allocate addresses in.
    pub fn around(cluster: &Cluster, own: &PerFamily<IpNet>, gateways: &PerFamily<IpNet>) -> Self {
        /// The number of addresses that suffice for the nodes of a sample.
        const ROOMY: usize = 100;
        let mut networks = Self {
            of_family: PerFamily::default(),
            are_assumed: false,
            is_one_link: cluster.off_link == OffLink::Onlink,
            home: BTreeSet::new(),
            allocation: PerFamily::default(),
            gateways: *gateways,
        };
        for family in cluster.prefixes.families() {
            let wholes: Vec<IpNet> = cluster.prefixes.of(family).copied().collect();
            let own = own.get(family).copied();
            let nodes = || cluster.nodes.iter().filter_map(|node| node.addresses.get(family).copied());
            let is_outside = |address: &IpAddr| own.is_none_or(|own| !own.contains(address));
            let mut prefixes: Vec<IpNet> = own.iter().map(IpNet::trunc).collect();
            let others: BTreeSet<IpNet> = nodes().filter(is_outside).map(usual_network).collect();
            prefixes.extend(others);
            let is_roomy = own.is_some_and(|own| own.hosts().take(ROOMY).count() == ROOMY);
            let allocation = if is_roomy { 0 } else { prefixes.len() };
            if !is_roomy {
                prefixes.push(for_documentation(family));
            }
            if own.is_some() {
                networks.home.extend([(family, 0), (family, allocation)]);
            }
            let mut known: BTreeSet<IpAddr> = nodes().chain(routers(cluster, family)).collect();
            known.extend(own.iter().chain(gateways.get(family)).map(IpNet::addr));
            let network = |prefix: IpNet| {
                let taken = known.iter().copied().filter(|address| prefix.contains(address)).collect();
                Network { prefix, taken, cluster: wholes.clone() }
            };
            *networks.of_family.get_mut(family) = Some(prefixes.into_iter().map(network).collect());
            *networks.allocation.get_mut(family) = Some(allocation);
        }
        networks
    }

    /// Returns the number of the smallest network with an address, and the address with the length of its prefix.
    pub fn with_length(&self, address: IpAddr) -> Option<(usize, IpNet)> {
        let networks = self.of_family.get(Family::from(address))?.iter().enumerate();
        let those_with_it = networks.filter(|(_, network)| network.prefix.contains(&address));
        let (number, network) = those_with_it.max_by_key(|(_, network)| network.prefix.prefix_len())?;
        Some((number, network.with_length(address)))
    }

    /// Allocates an unused address of a family. Returns the number of its network and the address.
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] if none is free.
    pub fn allocate(&mut self, family: Family) -> Result<(usize, IpNet), Error> {
        let number = self.allocation.get(family).copied().unwrap_or(0);
        Ok((number, self.allocate_in(family, number)?))
    }

    /// Returns the address of the router in network `number` of a family. A network around a node needs none.
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] if no address is free.
    pub fn router(&mut self, family: Family, number: usize) -> Result<Option<IpNet>, Error> {
        let is_home = self.home.contains(&(family, number));
        match (self.gateways.get(family), number) {
            (Some(gateway), 0) if is_home => Ok(Some(*gateway)),
            _ => match self.allocate_in(family, number) {
                Err(_) if is_home => Ok(None),
                result => result.map(Some),
            },
        }
    }

    /// Returns the routers of the configuration in network `number` of a family.
    pub fn configured_routers(&self, cluster: &Cluster, family: Family, number: usize) -> Vec<IpNet> {
        let network = self.of_family.get(family).and_then(|networks| networks.get(number));
        let Some(network) = network else { return Vec::new() };
        let inside = |router: &IpAddr| network.prefix.contains(router);
        let addresses: BTreeSet<IpAddr> = routers(cluster, family).filter(inside).collect();
        addresses.into_iter().map(|address| network.with_length(address)).collect()
    }

    /// Returns the routers of the configuration that are in no network. With `offLink: onlink`, nodes expect them on their link.
    pub fn routers_on_link(&self, cluster: &Cluster) -> Vec<IpNet> {
        if cluster.off_link != OffLink::Onlink {
            return Vec::new();
        }
        let families = cluster.prefixes.families();
        let routers: BTreeSet<IpAddr> = families.flat_map(|family| routers(cluster, family)).collect();
        let is_outer = |router: &IpAddr| !self.prefixes().any(|prefix| prefix.contains(router));
        routers.into_iter().filter(is_outer).map(IpNet::from).collect()
    }

    /// Allocates an unused address in network `number` of a family.
    fn allocate_in(&mut self, family: Family, number: usize) -> Result<IpNet, Error> {
        let network = self.of_family.get_mut(family).as_mut().and_then(|networks| networks.get_mut(number));
        let missing = || Error::unexpected(format!("the nodes have no network {number} for {family}"));
        network.ok_or_else(missing)?.allocate()
    }

    /// Returns the prefix of network `number` of a family.
    pub fn prefix(&self, family: Family, number: usize) -> Option<IpNet> {
        self.of_family.get(family)?.get(number).map(|network| network.prefix)
    }

    /// Iterates over the prefixes of all networks.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.of_family.iter().flat_map(|(_, networks)| networks).map(|network| network.prefix)
    }
}

impl Network {
    fn with_length(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.prefix.prefix_len()).unwrap_or(self.prefix)
    }

    fn allocate(&mut self) -> Result<IpNet, Error> {
        // The first address of an IPv6 subnet is the subnet-router anycast address (RFC 4291, 2.6.1).
        let is_free = |address: &IpAddr| {
            *address != self.prefix.network()
                && !self.taken.contains(address)
                && !self.cluster.iter().any(|whole| whole.contains(address))
        };
        let free = self.prefix.hosts().take(100_000).find(is_free).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("the nodes' network {} has no free address for a simulated machine", self.prefix),
            )
            .with_hint("build fewer nodes with --sample, set the nodes' addresses in the file, or pass a larger --network")
        })?;
        self.taken.insert(free);
        Ok(self.with_length(free))
    }
}

/// Iterates over the routers of the configuration.
fn routers(cluster: &Cluster, family: Family) -> impl Iterator<Item = IpAddr> {
    let own = cluster.nodes.iter().filter_map(|node| node.next_hop());
    let routers = own.map(|own| &own.routers).chain([&cluster.routers]);
    routers.filter_map(move |routers| routers.get(family).copied())
}

fn check(cluster: &Cluster, given: &[IpNet]) -> Result<(), Error> {
    let is_foreign = |network: &&IpNet| !cluster.prefixes.has(Family::from(**network));
    if let Some(network) = given.iter().find(is_foreign) {
        let family = Family::from(*network);
        return Err(Error::new(
            Kind::Usage,
            format!("--network {network}: the cluster has no {family} prefix"),
        ));
    }
    for (number, network) in given.iter().enumerate() {
        let mut others = given[..number].iter();
        if let Some(other) = others.find(|other| other.contains(network) || network.contains(*other)) {
            return Err(Error::new(
                Kind::Usage,
                format!("--network {other} and --network {network} overlap"),
            ));
        }
    }
    Ok(())
}

fn in_no_network(node: &Untrusted, address: IpAddr, given: &[IpNet]) -> Error {
    Error::new(Kind::Invalid, format!("node {node}: {address} is in none of the networks {}", list(given, 6)))
        .with_hint("pass --network for each network of that address family, or for none of them")
}

fn for_documentation(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert([192, 0, 2, 0].into(), 24).into(),
        Family::V6 => Ipv6Net::new_assert([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0].into(), 64).into(),
    }
}
