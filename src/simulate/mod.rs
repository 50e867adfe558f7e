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
    apply::{Failure, StateDir},
    error::{Error, Kind},
    kernel::{self, Interfaces, Namespace},
    model::{Cluster, Family, OperatingSystem, SysctlKey},
    plan::Totals,
    reconcile::{self, ApplyCluster, Operation, Unattended},
    record::TransactionMeta,
    text::Untrusted,
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
    left_out: Vec<SysctlKey>,
    /// What was applied to each node.
    pub nodes: Vec<NodeResult>,
}

/// What was applied to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeResult {
    /// Its name.
    pub name: Untrusted,
    /// Its operating system in the file; Linux plays Windows here, with the Windows gateway.
    pub os: OperatingSystem,
    /// The totals of its plan.
    pub totals: Totals,
}

/// Whether one end reached the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// What was tried.
    pub kind: ConnectionKind,
    /// The node whose pod, or which itself, asked.
    pub from: Untrusted,
    /// The node whose pod was asked; none for the host outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Untrusted>,
    /// The address family.
    pub family: Family,
    /// Whether the answer came, and the other end saw the source that it shall see.
    pub works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Untrusted>,
}

/// Who asks whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
        let mut topology = Topology::new(cluster, indexes)?;
        let count = topology.machines.len();
        let lab = Lab::build(&topology, progress)?;
        let left_out = leave_out_sysctls(&mut topology.cluster, &lab)?;
        let (directories, fingerprints, nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut simulation = Self { topology, lab, directories, fingerprints, left_out, nodes };
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
            let dir = StateDir::new_in(scratch, identity);
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

    /// The families in which the way to the outside was not tried: the file keeps the pod's source there, and
    /// no way leads back.
    #[must_use]
    pub fn outside_untried(&self) -> Vec<Family> {
        let families = self.topology.cluster.prefixes.iter().map(|(family, _)| family);
        families.filter(|family| !self.topology.masquerades(*family)).collect()
    }

    /// The sysctls of the file that a network namespace does not have, or may not write.
    #[must_use]
    pub fn sysctls_left_out(&self) -> &[SysctlKey] {
        &self.left_out
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
        let answers = self.ask(&endpoints, &trials, progress)?;
        for (trial, answer) in trials.iter().zip(answers) {
            let reason = self.judge(trial, answer, family)?;
            connections.push(Connection {
                kind: trial.kind,
                from: machines[trial.from].name.clone(),
                to: trial.to.map(|to| machines[to].name.clone()),
                family,
                works: reason.is_none(),
                reason: reason.map(Into::into),
            });
        }
        self.forget_neighbours()
    }

    /// Tries everything, in rounds that fit the machine's neighbour table. What gets no answer is tried once
    /// more at the end: that table may have been full of what else the machine does.
    fn ask(
        &self,
        endpoints: &[Endpoint],
        trials: &[Trial],
        progress: &Progress,
    ) -> Result<Vec<Option<IpAddr>>, Error> {
        let mut answers = vec![None; trials.len()];
        let all: Vec<usize> = (0..trials.len()).collect();
        self.ask_these(endpoints, trials, &all, &mut answers, progress)?;
        let lost: Vec<usize> = all.into_iter().filter(|at| answers[*at].is_none()).collect();
        self.ask_these(endpoints, trials, &lost, &mut answers, progress)?;
        Ok(answers)
    }

    fn ask_these(
        &self,
        endpoints: &[Endpoint],
        trials: &[Trial],
        these: &[usize],
        answers: &mut [Option<IpAddr>],
        progress: &Progress,
    ) -> Result<(), Error> {
        let rounds: Vec<&[usize]> = these.chunks(TRIALS_A_ROUND).collect();
        for (number, round) in rounds.iter().enumerate() {
            progress("probing", number, rounds.len())?;
            self.forget_neighbours()?;
            let probes: Vec<Probe> = round.iter().map(|at| trials[*at].probe).collect();
            let patience = if number == 0 { probe::FIRST_PATIENCE } else { probe::PATIENCE };
            for (at, answer) in round.iter().zip(probe::ask(endpoints, &probes, patience)?) {
                answers[*at] = answer;
            }
        }
        Ok(())
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
            let own_pod = address(machine.pod.get(family));
            for (to, other) in machines.iter().enumerate() {
                let Some(pod) = address(other.pod.get(family)) else { continue };
                if own_pod.is_some() {
                    let probe = Probe { from: 2 * from + 1, to: pod };
                    let kind = ConnectionKind::PodToPod;
                    trials.push(Trial { kind, from, to: Some(to), probe, source: own_pod });
                }
                let probe = Probe { from: 2 * from, to: pod };
                let kind = ConnectionKind::NodeToPod;
                trials.push(Trial { kind, from, to: Some(to), probe, source: None });
            }
            let masquerades = own_pod.is_some() && self.topology.masquerades(family);
            if let (true, Some((host, _))) = (masquerades, self.topology.outside.get(family)) {
                let probe = Probe { from: 2 * from + 1, to: host.addr() };
                let source = address(machine.addresses.get(family));
                trials.push(Trial { kind: ConnectionKind::PodToOutside, from, to: None, probe, source });
            }
        }
        trials
    }

    /// What is wrong with an answer, or with its absence; `None` when it is as it shall be.
    fn judge(&self, trial: &Trial, answer: Option<IpAddr>, family: Family) -> Result<Option<String>, Error> {
        let Some(seen) = answer else {
            return Ok(Some(match trial.to {
                Some(to) => trace::between(&self.lab, &self.topology, trial.from, to, family)?,
                None => trace::to_outside(&self.lab, &self.topology, trial.from, family)?,
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

/// So many trials go at once. The machine's neighbour table is one for all namespaces and for the machine
/// itself, begins to throw out at 512 entries (`gc_thresh2`), and a trial takes six at most: each node has the
/// other's next hop and the address that asked for its own, and each pod and its node have each other.
const TRIALS_A_ROUND: usize = 60;

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

/// Takes the sysctls out of the cluster that the namespaces do not have, or may not write: the kernel keeps
/// some for the machine as a whole.
fn leave_out_sysctls(cluster: &mut Cluster, lab: &Lab) -> Result<Vec<SysctlKey>, Error> {
    let mut left_out = Vec::new();
    if let Some((node, _)) = lab.nodes.first() {
        let keys: Vec<SysctlKey> = cluster.sysctls.iter().map(|(key, _)| key.clone()).collect();
        left_out = inside(node, || Ok(keys.into_iter().filter(|key| !kernel::can_write(key)).collect()))?;
        cluster.sysctls.retain(|(key, _)| !left_out.contains(key));
    }
    Ok(left_out)
}

/// Applies node number `index`, as `hostgw apply --yes` does, in the namespace of the calling thread.
fn apply_node(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Totals, Error> {
    reconcile(&cluster.nodes[index].name, &mut ApplyCluster::new(cluster, index, dir))
}

/// Commits an operation on the node `name`, in the namespace of the calling thread.
fn reconcile(name: &Untrusted, operation: &mut impl Operation) -> Result<Totals, Error> {
    let meta = TransactionMeta { node: Some(name.clone()), ..TransactionMeta::new(operation.command(), 0) };
    let result =
        reconcile::run(operation, None, &Unattended { meta }).map_err(|failure| failed(name, failure))?;
    Ok(result.committed.map_or_else(Totals::default, |committed| committed.totals))
}

fn failed(name: &Untrusted, failure: Failure) -> Error {
    let error = match failure {
        Failure::Untouched(error) | Failure::RolledBack { cause: error } => error,
        Failure::Incomplete(incomplete) => incomplete.why,
    };
    // What became of a namespace that is thrown away is no exit code of its own.
    Error { kind: Kind::Unexpected, message: format!("node {name}: {}", error.message).into(), ..error }
}
