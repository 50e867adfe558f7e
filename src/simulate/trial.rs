//! The connections that a simulation tests, and the rounds in which it tests them.

use std::{collections::BTreeMap, net::IpAddr};

use super::{ConnectionKind, probe::Probe, topology::Topology};
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

/// Returns all trials of `family`. Endpoint 2n is node n, and endpoint 2n + 1 is its pod.
pub fn all(topology: &Topology, family: Family) -> Vec<Trial> {
    let machines = &topology.machines;
    let address = |net: Option<&ipnet::IpNet>| net.map(ipnet::IpNet::addr);
    let mut trials = Vec::new();
    for (from, machine) in machines.iter().enumerate() {
        let own_pod = address(machine.pod.get(family));
        for (to, other) in machines.iter().enumerate() {
            let Some(pod) = address(other.pod.get(family)) else { continue };
            // Something else carries these packets.
            if topology.cluster.off_link == OffLink::Skip && topology.are_apart(machine, other, family) {
                continue;
            }
            if own_pod.is_some() {
                let probe = Probe { from: 2 * from + 1, to: pod };
                let kind = ConnectionKind::PodToPod;
                trials.push(Trial { kind, from, to: Some(to), probe, source: own_pod });
            }
            let probe = Probe { from: 2 * from, to: pod };
            let kind = ConnectionKind::NodeToPod;
            trials.push(Trial { kind, from, to: Some(to), probe, source: None });
        }
        let masquerades = own_pod.is_some() && topology.masquerades(family);
        if let (true, Some((host, _))) = (masquerades, topology.outside.get(family)) {
            let probe = Probe { from: 2 * from + 1, to: host.addr() };
            let source = address(machine.addresses.get(family));
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
    /// Returns the numbers of the machines, of `count`, that take part.
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
