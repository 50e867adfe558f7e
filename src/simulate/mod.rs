//! Runs the cluster of a configuration in network namespaces, on the real kernel and with real packets.
//!
//! `topology` derives the machines from the configuration, and `build` creates them. Each node is then applied as by
//! `hostgw apply`. `probe` sends packets, `trace` finds the hop that dropped one, and `promises` verifies the
//! guarantees of hostgw. Only file descriptors refer to the namespaces, so they disappear when the process ends for
//! any reason.

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

/// A callback that receives the current activity, the steps done, and their total. An error ends the simulation.
pub type Progress<'a> = dyn Fn(&str, usize, usize) -> Result<(), Error> + 'a;

/// A running simulated cluster with every node's plan applied.
#[derive(Debug)]
pub struct Simulation {
    topology: Topology,
    lab: Lab,
    directories: Vec<StateDir>,
    fingerprints: Vec<kernel::Fingerprint>,
    unsupported_sysctls: Vec<SysctlKey>,
    /// The result of each node's apply.
    pub nodes: Vec<NodeResult>,
}

/// The result of a node's apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeResult {
    /// The node's name.
    pub name: Untrusted,
    /// The node's operating system in the configuration. Windows nodes are simulated as Linux nodes with the Windows
    /// pod gateway.
    pub os: OperatingSystem,
    /// The totals of the node's plan.
    pub totals: Totals,
}

/// The result of a connection test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// What was tested.
    pub kind: ConnectionKind,
    /// The node that sent the packet, itself or from its pod.
    pub from: Untrusted,
    /// The node whose pod was the target; absent if the target was the outside host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Untrusted>,
    /// The address family.
    pub family: Family,
    /// Whether the target answered and saw the expected source address.
    pub works: bool,
    /// Why the connection failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Untrusted>,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionKind {
    /// From a pod to a pod, which must see the source pod's own address.
    PodToPod,
    /// From a node to a pod.
    NodeToPod,
    /// From a pod to the outside host, which must see the node's address.
    PodToOutside,
}

impl Simulation {
    /// Builds the nodes at `indexes` of `cluster`, and applies each one's plan. Journals are stored under `scratch`.
    ///
    /// # Errors
    /// Returns an error if the namespaces cannot be built, if an apply fails, or if `progress` returns one.
    pub fn build(
        cluster: &Cluster,
        indexes: &[usize],
        scratch: &std::path::Path,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let mut topology = Topology::new(cluster, indexes)?;
        let count = topology.machines.len();
        let lab = Lab::build(&topology, progress)?;
        let unsupported_sysctls = remove_unsupported_sysctls(&mut topology.cluster, &lab)?;
        let (directories, fingerprints, nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut simulation = Self { topology, lab, directories, fingerprints, unsupported_sysctls, nodes };
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

    /// The simulated nodes.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.topology.machines
    }

    /// The families whose outside connections were not tested: the configuration does not masquerade there, so the
    /// outside host has no route back.
    #[must_use]
    pub fn untested_outside(&self) -> Vec<Family> {
        let families = self.topology.cluster.prefixes.iter().map(|(family, _)| family);
        families.filter(|family| !self.topology.masquerades(*family)).collect()
    }

    /// The sysctls of the configuration that do not exist or are read-only in a network namespace.
    #[must_use]
    pub fn unsupported_sysctls(&self) -> &[SysctlKey] {
        &self.unsupported_sysctls
    }

    /// All namespaces, each with its name.
    pub fn namespaces(&self) -> impl Iterator<Item = (String, &Namespace)> {
        let nodes = self.topology.machines.iter().zip(&self.lab.nodes);
        let node_namespaces = nodes.flat_map(|(machine, (node, pod))| {
            [(format!("node {}", machine.name), node), (format!("pod of {}", machine.name), pod)]
        });
        let others =
            [("router", &self.lab.router), ("outside", &self.lab.outside), ("switch", &self.lab.switch)];
        node_namespaces.chain(others.map(|(name, namespace)| (name.to_owned(), namespace)))
    }

    /// Sends packets from every pod to every pod, from every node to every pod, and from every pod to the outside
    /// host, in every address family of the cluster.
    ///
    /// # Errors
    /// Returns an error if packets cannot be sent at all, or if `progress` returns one.
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
        let answers = self.run_trials(&endpoints, &trials, progress)?;
        for (trial, answer) in trials.iter().zip(answers) {
            let reason = self.diagnose(trial, answer, family)?;
            connections.push(Connection {
                kind: trial.kind,
                from: machines[trial.from].name.clone(),
                to: trial.to.map(|to| machines[to].name.clone()),
                family,
                works: reason.is_none(),
                reason: reason.map(Into::into),
            });
        }
        self.forget_neighbors()
    }

    /// Runs all trials, in rounds that fit the neighbor table. Failed trials are repeated once, because other programs
    /// may have filled that table.
    fn run_trials(
        &self,
        endpoints: &[Endpoint],
        trials: &[Trial],
        progress: &Progress,
    ) -> Result<Vec<Option<IpAddr>>, Error> {
        let mut answers = vec![None; trials.len()];
        let all: Vec<usize> = (0..trials.len()).collect();
        self.run_subset(endpoints, trials, &all, &mut answers, progress)?;
        let lost: Vec<usize> = all.into_iter().filter(|trial| answers[*trial].is_none()).collect();
        self.run_subset(endpoints, trials, &lost, &mut answers, progress)?;
        Ok(answers)
    }

    fn run_subset(
        &self,
        endpoints: &[Endpoint],
        trials: &[Trial],
        subset: &[usize],
        answers: &mut [Option<IpAddr>],
        progress: &Progress,
    ) -> Result<(), Error> {
        let rounds: Vec<&[usize]> = subset.chunks(TRIALS_PER_ROUND).collect();
        for (number, round) in rounds.iter().enumerate() {
            progress("probing", number, rounds.len())?;
            self.forget_neighbors()?;
            let probes: Vec<Probe> = round.iter().map(|trial| trials[*trial].probe).collect();
            let timeout = if number == 0 { probe::FIRST_TIMEOUT } else { probe::TIMEOUT };
            for (trial, answer) in round.iter().zip(probe::ask(endpoints, &probes, timeout)?) {
                answers[*trial] = answer;
            }
        }
        Ok(())
    }

    fn forget_neighbors(&self) -> Result<(), Error> {
        let namespaces = self.lab.nodes.iter().flat_map(|(node, pod)| [node, pod]);
        namespaces
            .chain([&self.lab.router, &self.lab.outside])
            .try_for_each(|namespace| inside(namespace, || Interfaces::open()?.forget_neighbors()))
    }

    /// Returns all trials of `family`. Endpoint 2n is node n, and endpoint 2n + 1 is its pod.
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

    /// Returns what is wrong with an answer, or why there is none; `None` if it is as expected.
    fn diagnose(
        &self,
        trial: &Trial,
        answer: Option<IpAddr>,
        family: Family,
    ) -> Result<Option<String>, Error> {
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

/// The number of concurrent trials. All namespaces share the machine's neighbor table, which the kernel begins to
/// shrink at 512 entries (`gc_thresh2`). A trial needs at most six: each node has the other's next hop and the address
/// that resolves its own, and each pod and its node have each other.
const TRIALS_PER_ROUND: usize = 60;

/// A connection to test.
#[derive(Debug, Clone, Copy)]
struct Trial {
    kind: ConnectionKind,
    from: usize,
    to: Option<usize>,
    probe: Probe,
    /// The source address that the target must see; `None` if any will do.
    source: Option<IpAddr>,
}

/// Removes the sysctls from the cluster that the namespaces do not have or cannot write, because the kernel keeps them
/// for the whole machine.
fn remove_unsupported_sysctls(cluster: &mut Cluster, lab: &Lab) -> Result<Vec<SysctlKey>, Error> {
    let mut unsupported_sysctls = Vec::new();
    if let Some((node, _)) = lab.nodes.first() {
        let keys: Vec<SysctlKey> = cluster.sysctls.iter().map(|(key, _)| key.clone()).collect();
        unsupported_sysctls =
            inside(node, || Ok(keys.into_iter().filter(|key| !kernel::can_write(key)).collect()))?;
        cluster.sysctls.retain(|(key, _)| !unsupported_sysctls.contains(key));
    }
    Ok(unsupported_sysctls)
}

/// Applies the node at `index` as `hostgw apply --yes` does, in the namespace of the calling thread.
fn apply_node(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Totals, Error> {
    reconcile(&cluster.nodes[index].name, &mut ApplyCluster::new(cluster, index, dir))
}

/// Commits an operation on the node `name`, in the namespace of the calling thread.
fn reconcile(name: &Untrusted, operation: &mut impl Operation) -> Result<Totals, Error> {
    let meta = TransactionMeta { node: Some(name.clone()), ..TransactionMeta::new(operation.command(), 0) };
    let result =
        reconcile::run(operation, None, &Unattended { meta }).map_err(|failure| node_error(name, failure))?;
    Ok(result.committed.map_or_else(Totals::default, |committed| committed.totals))
}

fn node_error(name: &Untrusted, failure: Failure) -> Error {
    let error = match failure {
        Failure::Untouched(error) | Failure::RolledBack { cause: error } => error,
        Failure::Incomplete(incomplete) => incomplete.why,
    };
    // The exit code of a failed apply is meaningless for a namespace that is discarded.
    Error { kind: Kind::Unexpected, message: format!("node {name}: {}", error.message).into(), ..error }
}
