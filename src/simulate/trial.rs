//! The connections that a simulation tests, and the rounds in which it tests them.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    ConnectionKind,
    probe::Probe,
    topology::{Machine, Topology},
};
use crate::model::{Family, OffLink};

/// A connection to test.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// What is tested.
    pub kind: ConnectionKind,
    /// The number of the machine that sends, itself or from its pod.
    pub from: usize,
    /// The number of the machine whose pod is the target; `None` if the target is the outside host.
    pub to: Option<usize>,
    /// The packet.
    pub probe: Probe,
    /// The source address that the target must see; `None` if any will do.
    pub source: Option<IpAddr>,
}

/// Numbers the endpoints of a family: 2n is node n, 2n + 1 is its pod, and the next one is the outside host. A pod
/// has one more endpoint for each additional address.
pub struct Endpoints {
    /// The addresses of each machine's pod.
    pods: Vec<Vec<IpAddr>>,
}

impl Endpoints {
    /// Numbers the endpoints of `topology`.
    pub fn of(topology: &Topology, family: Family) -> Self {
        let addresses =
            |machine: &Machine| machine.pods_of(family).map(|pods| pods.pod.addr()).collect::<Vec<_>>();
        Self { pods: topology.machines.iter().map(addresses).collect() }
    }

    /// The number of the outside host.
    pub const fn outside(&self) -> usize {
        2 * self.pods.len()
    }

    /// The address that the endpoint of a pod needs, because the pod has several.
    pub fn address_of(&self, machine: usize) -> Option<IpAddr> {
        let addresses = &self.pods[machine];
        addresses.first().copied().filter(|_| addresses.len() > 1)
    }

    /// Iterates over the additional endpoints in the order of their numbers: the machine and the address.
    pub fn further(&self) -> impl Iterator<Item = (usize, IpAddr)> {
        let machines = self.pods.iter().enumerate();
        machines.flat_map(|(machine, pods)| pods.iter().skip(1).map(move |address| (machine, *address)))
    }

    /// Iterates over the numbers of the additional endpoints of these machines.
    pub fn further_of(&self, machines: &[usize]) -> impl Iterator<Item = usize> {
        let numbers = (self.outside() + 1..).zip(self.further());
        numbers.filter(|(_, (machine, _))| machines.contains(machine)).map(|(number, _)| number)
    }

    /// The number of the endpoint of a pod with this address.
    fn pod(&self, machine: usize, address: IpAddr) -> usize {
        let further = self.further().position(|further| further == (machine, address));
        further.map_or(2 * machine + 1, |position| self.outside() + 1 + position)
    }
}

/// Returns all trials of `family`: between all addresses of pods, and from nodes and to the outside host.
pub fn all(topology: &Topology, family: Family) -> Vec<Trial> {
    let machines = &topology.machines;
    let endpoints = Endpoints::of(topology, family);
    let mut trials = Vec::new();
    for (from, machine) in machines.iter().enumerate() {
        let own_pods: Vec<(IpAddr, usize)> = machine
            .pods_of(family)
            .map(|pods| (pods.pod.addr(), endpoints.pod(from, pods.pod.addr())))
            .collect();
        for (to, other) in machines.iter().enumerate() {
            // Something else carries these packets.
            if topology.cluster.off_link == OffLink::Skip && topology.are_apart(machine, other, family) {
                continue;
            }
            for pod in other.pods_of(family).map(|pods| pods.pod.addr()) {
                for (own, endpoint) in &own_pods {
                    let probe = Probe { from: *endpoint, to: pod };
                    let (kind, source) = (ConnectionKind::PodToPod, Some(*own));
                    trials.push(Trial { kind, from, to: Some(to), probe, source });
                }
                let probe = Probe { from: 2 * from, to: pod };
                let kind = ConnectionKind::NodeToPod;
                trials.push(Trial { kind, from, to: Some(to), probe, source: None });
            }
        }
        let outside = topology.outside.get(family).filter(|_| topology.masquerades(family));
        for ((_, endpoint), (host, _)) in
            own_pods.iter().flat_map(|own| outside.map(|outside| (own, outside)))
        {
            let probe = Probe { from: *endpoint, to: host.addr() };
            let source = machine.addresses.get(family).map(ipnet::IpNet::addr);
            trials.push(Trial { kind: ConnectionKind::PodToOutside, from, to: None, probe, source });
        }
    }
    trials
}

/// The number of machines in a block. A round tests every connection between two blocks. All namespaces share the
/// machine's neighbor table, which the kernel begins to shrink at 512 entries (`gc_thresh2`). Two machines need at most
/// four entries for each other, each the other's next hop and the address that resolves its own, and a machine and its
/// pod need two: 440 entries for two blocks of ten.
const BLOCK: usize = 10;

/// The trials between two blocks of machines.
#[derive(Debug, PartialEq, Eq)]
pub struct Round {
    blocks: (usize, usize),
    /// The indexes of the trials.
    pub trials: Vec<usize>,
}

impl Round {
    /// Returns which of the `count` machines take part.
    pub fn machines(&self, count: usize) -> Vec<usize> {
        let range = |block: usize| block * BLOCK..count.min((block + 1) * BLOCK);
        let (first, second) = self.blocks;
        let other = if first == second { 0..0 } else { range(second) };
        range(first).chain(other).collect()
    }
}

/// Distributes the trials with the indexes `subset` over rounds.
pub fn rounds(trials: &[Trial], subset: &[usize]) -> Vec<Round> {
    let mut rounds: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for &index in subset {
        let Trial { from, to, .. } = trials[index];
        let (from, to) = (from / BLOCK, to.unwrap_or(from) / BLOCK);
        rounds.entry((from.min(to), from.max(to))).or_default().push(index);
    }
    rounds.into_iter().map(|(blocks, trials)| Round { blocks, trials }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(from: usize, to: Option<usize>) -> Trial {
        let probe = Probe { from, to: IpAddr::from([0, 0, 0, 0]) };
        Trial { kind: ConnectionKind::NodeToPod, from, to, probe, source: None }
    }

    /// Every trial is in exactly one round, whose machines include both of its ends.
    #[test]
    fn rounds_cover_all_trials_with_few_machines() {
        for count in [1, 2, 9, 10, 11, 35] {
            let pairs = (0..count).flat_map(|from| (0..count).map(move |to| trial(from, Some(to))));
            let trials: Vec<Trial> = pairs.chain((0..count).map(|from| trial(from, None))).collect();
            let subset: Vec<usize> = (0..trials.len()).collect();
            let rounds = rounds(&trials, &subset);
            let mut seen: Vec<usize> = rounds.iter().flat_map(|round| round.trials.clone()).collect();
            seen.sort_unstable();
            assert_eq!(seen, subset);
            for round in &rounds {
                let machines = round.machines(count);
                assert!(machines.len() <= 2 * BLOCK && machines.iter().all(|machine| *machine < count));
                for index in &round.trials {
                    let Trial { from, to, .. } = trials[*index];
                    assert!(machines.contains(&from) && to.is_none_or(|to| machines.contains(&to)));
                }
            }
        }
    }
}
