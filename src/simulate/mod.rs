//! The cluster of a configuration in network namespaces, on the real kernel, with real packets.
//!
//! `topology` says which machines there are, `build` makes them, each node then gets the plan and the apply
//! that `hostgw apply` would give it, `probe` sends packets, `trace` says which hop lost one, and `promises`
//! holds hostgw to what it promises. Namespaces are held by file descriptors alone: they go with the process,
//! whatever ends it.

mod build;
mod probe;
mod promises;
mod topology;
mod trace;

use std::net::IpAddr;

use serde::Serialize;

use crate::{
    apply::{self, Command, Failure, Interrupt, StateDir},
    error::{Error, Kind},
    kernel::{self, Interfaces, LiveNode, Namespace},
    model::{Cluster, Family, OperatingSystem},
    plan::{self, Policy, Totals},
};
use build::{Lab, inside};
use probe::{Endpoint, Probe};
pub use promises::Promise;
pub use topology::{Machine, Topology, sample};

/// Is told what is done now, how far it is, and how much there is; an error ends the simulation.
pub type Progress<'a> = dyn Fn(&str, usize, usize) -> Result<(), Error> + 'a;

/// A cluster that stands in namespaces, with every node applied.
#[derive(Debug)]
pub struct Simulation {
    topology: Topology,
    lab: Lab,
    directories: Vec<StateDir>,
    fingerprints: Vec<kernel::Fingerprint>,
    /// What was applied to each node.
    pub nodes: Vec<NodeResult>,
}

/// What was applied to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResult {
    /// Its name.
    pub name: String,
    /// Its operating system in the file; Linux plays Windows here, with the Windows gateway.
    pub os: OperatingSystem,
    /// The totals of its plan.
    pub totals: Totals,
}

/// Whether one end reached the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// What was tried.
    pub kind: ConnectionKind,
    /// The node whose pod, or which itself, asked.
    pub from: String,
    /// The node whose pod was asked; none for the host outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The address family.
    pub family: Family,
    /// Whether the answer came, and the other end saw the source that it shall see.
    pub works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who asks whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionKind {
    /// A pod asks a pod, which shall see the pod's own address.
    PodToPod,
    /// A node asks a pod.
    NodeToPod,
    /// A pod asks the host outside, which shall see the node's address.
    PodToOutside,
}

impl Simulation {
    /// Builds the nodes at `indexes` of `cluster`, and applies to each its own plan. Journals go below
    /// `scratch`. `progress` is told what is done and how much there is, and can end it.
    ///
    /// # Errors
    /// When the namespaces cannot be built, or an apply fails; and those of `progress`.
    pub fn build(
        cluster: &Cluster,
        indexes: &[usize],
        scratch: &std::path::Path,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let topology = Topology::new(cluster, indexes)?;
        let count = topology.machines.len();
        let lab = Lab::build(&topology, progress)?;
        let mut simulation =
            Self { topology, lab, directories: Vec::new(), fingerprints: Vec::new(), nodes: Vec::new() };
        for number in 0..count {
            progress("applying", number, count)?;
            simulation.prepare_node(number, scratch)?;
        }
        Ok(simulation)
    }

    fn prepare_node(&mut self, number: usize, scratch: &std::path::Path) -> Result<(), Error> {
        let machine = &self.topology.machines[number];
        let (cluster, index) = (&self.topology.cluster, machine.index);
        let (dir, fingerprint, totals) = inside(&self.lab.nodes[number].0, || {
            let identity = kernel::identity()
                .map_err(|error| Error::unexpected(format!("cannot tell the namespace: {error}")))?;
            let dir = StateDir::below(scratch, identity);
            let fingerprint = kernel::fingerprint()?;
            let totals = apply_node(cluster, index, &dir)?;
            Ok((dir, fingerprint, totals))
        })?;
        self.nodes.push(NodeResult { name: machine.name.clone(), os: machine.os, totals });
        self.directories.push(dir);
        self.fingerprints.push(fingerprint);
        Ok(())
    }

    /// The nodes that were built.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.topology.machines
    }

    /// Name and namespace of everything that was built.
    pub fn namespaces(&self) -> impl Iterator<Item = (String, &Namespace)> {
        let nodes = self.topology.machines.iter().zip(&self.lab.nodes);
        let of_nodes = nodes.flat_map(|(machine, (node, pod))| {
            [(format!("node {}", machine.name), node), (format!("pod of {}", machine.name), pod)]
        });
        let others =
            [("router", &self.lab.router), ("outside", &self.lab.outside), ("switch", &self.lab.switch)];
        of_nodes.chain(others.map(|(name, namespace)| (name.to_owned(), namespace)))
    }

    /// Sends packets from every pod to every pod, from every node to every pod, and from every pod to the
    /// outside, in every family of the cluster.
    ///
    /// # Errors
    /// When no packet can be sent at all; and those of `progress`.
    pub fn probe(&self, progress: &Progress) -> Result<Vec<Connection>, Error> {
        let mut connections = Vec::new();
        let families: Vec<Family> = self.topology.cluster.prefixes.iter().map(|(family, _)| family).collect();
        for family in families {
            self.probe_family(family, progress, &mut connections)?;
        }
        Ok(connections)
    }

    fn probe_family(
        &self,
        family: Family,
        progress: &Progress,
        connections: &mut Vec<Connection>,
    ) -> Result<(), Error> {
        let machines = &self.topology.machines;
        let mut endpoints = Vec::new();
        for (node, pod) in &self.lab.nodes {
            endpoints.push(Endpoint::open(node, family)?);
            endpoints.push(Endpoint::open(pod, family)?);
        }
        endpoints.push(Endpoint::open(&self.lab.outside, family)?);
        let trials = self.trials(family);
        let rounds = rounds(&trials, machines.len());
        for (number, round) in rounds.iter().enumerate() {
            progress("probing", number, rounds.len())?;
            let answers = self.ask(&endpoints, round)?;
            for (trial, answer) in round.iter().zip(answers) {
                let reason = self.judge(trial, answer, family)?;
                connections.push(Connection {
                    kind: trial.kind,
                    from: machines[trial.from].name.clone(),
                    to: trial.to.map(|to| machines[to].name.clone()),
                    family,
                    works: reason.is_none(),
                    reason,
                });
            }
            self.forget_neighbours()?;
        }
        Ok(())
    }

    /// Asks the questions of a round. What gets no answer is asked once more by itself: the machine's
    /// neighbour table may have been full, of this round or of what else the machine does.
    fn ask(&self, endpoints: &[Endpoint], round: &[Trial]) -> Result<Vec<Option<IpAddr>>, Error> {
        let probes: Vec<Probe> = round.iter().map(|trial| trial.probe).collect();
        let mut answers = probe::ask(endpoints, &probes)?;
        let lost: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_none()).collect();
        if !lost.is_empty() {
            self.forget_neighbours()?;
            let again: Vec<Probe> = lost.iter().map(|at| probes[*at]).collect();
            for (at, answer) in lost.into_iter().zip(probe::ask(endpoints, &again)?) {
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    fn forget_neighbours(&self) -> Result<(), Error> {
        let namespaces = self.lab.nodes.iter().flat_map(|(node, pod)| [node, pod]);
        namespaces
            .chain([&self.lab.router, &self.lab.outside])
            .try_for_each(|namespace| inside(namespace, || Interfaces::open()?.forget_neighbours()))
    }

    /// Everything to try in `family`. Endpoint 2n is node n, endpoint 2n + 1 its pod.
    fn trials(&self, family: Family) -> Vec<Trial> {
        let machines = &self.topology.machines;
        let address = |net: Option<&ipnet::IpNet>| net.map(ipnet::IpNet::addr);
        let mut trials = Vec::new();
        for (from, machine) in machines.iter().enumerate() {
            let Some(own_pod) = address(machine.pod.get(family)) else { continue };
            for (to, other) in machines.iter().enumerate() {
                let Some(pod) = address(other.pod.get(family)) else { continue };
                let probe = Probe { from: 2 * from + 1, to: pod };
                let kind = ConnectionKind::PodToPod;
                trials.push(Trial { kind, from, to: Some(to), probe, source: Some(own_pod) });
                let probe = Probe { from: 2 * from, to: pod };
                let kind = ConnectionKind::NodeToPod;
                trials.push(Trial { kind, from, to: Some(to), probe, source: None });
            }
            if let (true, Some((host, _))) =
                (self.topology.masquerades(family), self.topology.outside.get(family))
            {
                let probe = Probe { from: 2 * from + 1, to: host.addr() };
                let source = address(machine.addresses.get(family));
                trials.push(Trial { kind: ConnectionKind::PodToOutside, from, to: None, probe, source });
            }
        }
        trials
    }

    /// What is wrong with an answer, or with its absence; `None` when it is as it shall be.
    fn judge(&self, trial: &Trial, answer: Option<IpAddr>, family: Family) -> Result<Option<String>, Error> {
        let machine = &self.topology.machines[trial.from];
        let Some(seen) = answer else {
            return Ok(Some(match trial.to {
                Some(to) => trace::between(&self.lab, &self.topology, trial.from, to, family)?,
                None => format!("lost: no answer from the outside to the pod of {}", machine.name),
            }));
        };
        Ok(match trial.source {
            Some(source) if source != seen => Some(match trial.kind {
                ConnectionKind::PodToOutside => {
                    format!("not masqueraded: the outside saw {seen} instead of the node's {source}")
                }
                _ => format!("masqueraded: the pod saw {seen} instead of the other pod's {source}"),
            }),
            _ => None,
        })
    }
}

/// So many pairs of nodes talk in one round. The machine's neighbour table is one for all namespaces, with
/// 1,024 places by default (`gc_thresh3`), and a pair takes four: each node has the other's next hop, and
/// the address that asked for its own.
const PAIRS_A_ROUND: usize = 120;

/// The trials in rounds that fit the neighbour table: pairs of nodes at the same distance in the file go
/// together.
fn rounds(trials: &[Trial], machines: usize) -> Vec<Vec<Trial>> {
    let distances = (PAIRS_A_ROUND / machines.max(1)).max(1);
    let mut rounds: Vec<Vec<Trial>> = Vec::new();
    for trial in trials {
        let distance = trial.to.map_or(0, |to| (to + machines - trial.from) % machines);
        let round = distance / distances;
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(*trial);
    }
    rounds.retain(|round| !round.is_empty());
    rounds
}

/// Something to try.
#[derive(Debug, Clone, Copy)]
struct Trial {
    kind: ConnectionKind,
    from: usize,
    to: Option<usize>,
    probe: Probe,
    /// The source that the other end shall see; none where any will do.
    source: Option<IpAddr>,
}

/// Applies node number `index`, as `hostgw apply --yes` does, in the namespace of the calling thread.
fn apply_node(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Totals, Error> {
    let name = &cluster.nodes[index].name;
    let not_linux = |plan::NotLinux| Error::unexpected(format!("node {name} is not played by Linux"));
    let mut node = LiveNode;
    let prepared =
        apply::prepare(&mut node, cluster, index, &dir.saved()?, Policy::Respect)?.map_err(not_linux)?;
    let problems = plan::check(cluster, index, &prepared.desired, &prepared.observed);
    if !problems.is_empty() {
        let details = problems.iter().take(10).map(ToString::to_string);
        return Err(Error::new(Kind::Invalid, format!("the configuration does not fit node {name}"))
            .with_details(details));
    }
    if !prepared.plan.unknown.is_empty() || !prepared.plan.conflicts.is_empty() {
        let unknown =
            prepared.plan.unknown.iter().map(|unknown| format!("{}: {}", unknown.what, unknown.why));
        let conflicts = prepared.plan.conflicts.iter().map(ToString::to_string);
        return Err(Error::unexpected(format!("node {name} cannot be applied"))
            .with_details(unknown.chain(conflicts)));
    }
    let totals = prepared.plan.totals();
    if prepared.plan.is_empty() {
        return Ok(totals);
    }
    let _lock = dir.lock(std::time::Duration::ZERO, "simulate")?;
    let request = prepared.request(Command::Apply, Some(name), Some("simulation"), 0);
    apply::run(&mut node, dir, &request, &Interrupt::new()).map_err(|failure| failed(name, failure))?;
    Ok(totals)
}

fn failed(name: &str, failure: Failure) -> Error {
    let (kind, error) = match failure {
        Failure::Untouched(error) => (error.kind, error),
        Failure::RolledBack { cause } => (Kind::RolledBack, cause),
        Failure::Incomplete(incomplete) => (Kind::RollbackIncomplete, incomplete.why),
    };
    Error { kind, message: format!("node {name}: {}", error.message), ..error }
}
