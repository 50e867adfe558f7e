//! Chooses the packets that represent all those between pods, by the addresses that the rules of a firewall distinguish.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    forwarding::{Direction, Distinctions, Path, Region},
    state::Host,
};

/// A packet between pods that represents others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodSample {
    pub path: Path,
    /// The part of this node's pods that it represents; `None` for most of them.
    pub own: Option<Region>,
    /// The part of the other node's pods that it represents; `None` for most of them.
    pub other: Option<Region>,
}

impl PodSample {
    /// Returns `true` if it represents most pods of both nodes.
    pub(super) const fn is_whole(&self) -> bool {
        self.own.is_none() && self.other.is_none()
    }
}

/// Chooses samples for the paths of a node. Single pods that a rule names are represented by none: a policy for one pod says
/// nothing about the node.
pub(super) struct PodSampler<'a> {
    distinctions: &'a Distinctions,
    host: &'a Host,
    /// The addresses for this node's pod CIDRs, which are the same for all paths.
    own: HashMap<IpNet, Vec<(Option<Region>, IpAddr)>>,
}

impl<'a> PodSampler<'a> {
    pub(super) fn new(distinctions: &'a Distinctions, host: &'a Host) -> Self {
        Self { distinctions, host, own: HashMap::new() }
    }

    /// Returns the samples for the packets that `path` represents.
    pub(super) fn samples(&mut self, path: Path) -> Vec<PodSample> {
        if path.part.is_some() || path.node().is_none() {
            return vec![PodSample { path, own: None, other: None }];
        }
        let [own, other] = ends(&path);
        let others = self.addresses(path.other, other);
        let owns = match self.own.get(&path.own) {
            Some(known) => known,
            None => {
                let found = self.own_addresses(path.own, own);
                self.own.entry(path.own).or_insert(found)
            }
        };
        let mut samples = Vec::with_capacity(owns.len() * others.len());
        for (own, own_address) in owns {
            for (other, address) in &others {
                let path = between(&path, *own_address, *address);
                samples.push(PodSample { path, own: *own, other: *other });
            }
        }
        samples
    }

    /// The same as [`Self::addresses`] for a pod CIDR of this node. Without an address of this node in it, its addresses may be
    /// anywhere, except for the usual one.
    fn own_addresses(&self, cidr: IpNet, usual: IpAddr) -> Vec<(Option<Region>, IpAddr)> {
        let is_local = self.host.addresses.iter().any(|local| cidr.contains(&local.address));
        if is_local { self.addresses(cidr, usual) } else { vec![(None, usual)] }
    }

    /// Returns an address for most pods of a CIDR, and then one for each smaller part that the rules distinguish.
    fn addresses(&self, cidr: IpNet, usual: IpAddr) -> Vec<(Option<Region>, IpAddr)> {
        let regions = self.distinctions.regions(cidr).into_iter();
        let mut found: Vec<_> = regions
            .filter_map(|region| Some((Some(region), self.distinctions.sample(&region, usual)?)))
            .collect();
        match found.first_mut() {
            Some((region, _)) => *region = None,
            None => found.push((None, usual)),
        }
        found
    }
}

/// Returns the addresses of this node's pod and of the other one.
fn ends(path: &Path) -> [IpAddr; 2] {
    let (source, destination) = (path.packet.source, path.packet.destination);
    match path.direction {
        Direction::Out => [source, destination],
        Direction::In => [destination, source],
    }
}

/// The same path between other pods.
fn between(path: &Path, own: IpAddr, other: IpAddr) -> Path {
    let mut path = path.clone();
    let (source, destination) = match path.direction {
        Direction::Out => (own, other),
        Direction::In => (other, own),
    };
    (path.packet.source, path.packet.destination) = (source, destination);
    path
}
