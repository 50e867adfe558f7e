//! Runs the cluster of a configuration in network namespaces, on the real kernel and with real packets.
//!
//! `topology` derives the machines from the configuration, `assumption` says what they have that hostgw does not set up, and
//! `build` creates them. Each node's plan is then applied as
//! `hostgw apply` does. `trial` lists the connections to test, in rounds; `probe` sends the packets of a round, `trace` finds
//! the hop that dropped one, and `guarantees` verifies the guarantees of hostgw. `workers` spreads the nodes over the
//! processors. `rehearse` puts a copy of this node in the place of the first machine. Only file descriptors refer to the
//! namespaces, so they disappear when the process ends for any reason.

mod assumption;
mod build;
mod guarantees;
mod handshake;
mod networks;
mod probe;
mod rehearse;
mod topology;
mod trace;
mod trial;
mod workers;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    apply::{Failure, StateDir},
    error::{Error, Kind},
    kernel::{self, FingerprintScope, Interfaces, Namespace, inside},
    model::{Cluster, Family, OperatingSystem, SysctlKey, common_prefix},
    plan::{self, Totals},
    progress::{self, Task},
    reconcile::{self, ApplyCluster, Operation, Unattended},
    record::TransactionMeta,
    text::{OsError, Untrusted},
};
pub use assumption::Assumption;
use build::Lab;
pub use guarantees::Guarantee;
use networks::Networks;
use probe::{Endpoint, Probe};
pub use rehearse::{Rehearsal, RehearsalOptions, RehearsedConnection};
pub use topology::{Machine, Topology, sample};
use trial::Trial;

/// A callback that is called often. An error ends the simulation.
pub type KeepGoing<'a> = dyn Fn() -> Result<(), Error> + 'a;

/// A running simulated cluster with every node's plan applied.
#[derive(Debug)]
pub struct Simulation {
    topology: Topology,
    lab: Lab,
    /// Each node's records, and its state before its plan was applied.
    before: Vec<Before>,
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
    /// Why the node refused its plan, as a node of this cluster would: a sentence, and details if there are several
    /// reasons. Absent if the plan was applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Untrusted>,
}

impl NodeResult {
    fn new(machine: &Machine, outcome: PlanOutcome) -> Self {
        let (totals, refused) = match outcome {
            Ok(totals) => (totals, Vec::new()),
            Err(why) => (Totals::default(), why),
        };
        Self { name: machine.name.clone(), os: machine.os, totals, refused }
    }
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
#[serde(rename_all = "camelCase")]
pub enum ConnectionKind {
    /// From a pod to a pod, which must see the source pod's own address.
    PodToPod,
    /// From a node to a pod.
    NodeToPod,
    /// From a pod to the outside host, which must see the node's address.
    PodToOutside,
}

impl Simulation {
    /// Builds the nodes at `indexes` of `cluster`, in these `networks` (`--network`), and applies each one's plan.
    /// Journals are stored under `scratch`.
    ///
    /// # Errors
    /// Returns an error if the namespaces cannot be built, if an apply fails, or if `keep_going` returns one. A refused
    /// plan is not an error.
    pub fn build(
        cluster: &Cluster,
        indexes: &[usize],
        networks: &[IpNet],
        scratch: &std::path::Path,
        keep_going: &KeepGoing,
    ) -> Result<Self, Error> {
        let mut topology = Topology::new(cluster, indexes, Networks::of(cluster, networks)?)?;
        let count = topology.machines.len();
        let lab = Lab::build(&topology, keep_going)?;
        let unsupported_sysctls = remove_unsupported_sysctls(&mut topology.cluster, &lab)?;
        let prepared = workers::each("applying nodes", count, keep_going, |number| {
            prepare_node(&topology, &lab, number, scratch)
        })?;
        let (mut nodes, mut before) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (machine, (initial, outcome)) in topology.machines.iter().zip(prepared) {
            nodes.push(NodeResult::new(machine, outcome));
            before.push(initial);
        }
        Ok(Self { topology, lab, before, unsupported_sysctls, nodes })
    }

    /// The simulated nodes.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.topology.machines
    }

    /// The networks of the nodes, by link. There is a router between links.
    pub fn networks(&self) -> impl Iterator<Item = &[IpNet]> {
        self.topology.segments.iter().map(|segment| segment.networks.as_slice())
    }

    /// Returns the prefixes that would put all nodes on one link, one per family, if the links were derived from their
    /// addresses.
    #[must_use]
    pub fn one_link(&self) -> Option<Vec<IpNet>> {
        self.topology.are_networks_assumed.then(|| {
            let networks = || self.topology.segments.iter().flat_map(|segment| &segment.networks).copied();
            let of = |family| networks().filter(move |prefix| Family::from(*prefix) == family);
            Family::ALL.into_iter().filter_map(|family| common_prefix(of(family))).collect()
        })
    }

    /// What the simulated machines have although hostgw does not set it up, because the configuration relies on it.
    #[must_use]
    pub fn assumptions(&self) -> Vec<Assumption> {
        assumption::all(&self.topology, "each node")
    }

    /// The families whose outside connections were not tested: the configuration does not masquerade there, so the
    /// outside host has no route back.
    #[must_use]
    pub fn untested_outside(&self) -> Vec<Family> {
        let families = self.topology.cluster.prefixes.families();
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
    /// Returns an error if packets cannot be sent at all, or if `keep_going` returns one.
    pub fn probe(&self, keep_going: &KeepGoing) -> Result<Vec<Connection>, Error> {
        let mut connections = Vec::new();
        let families: Vec<Family> = self.topology.cluster.prefixes.families().collect();
        for family in families {
            self.probe_family(family, keep_going, &mut connections)?;
        }
        Ok(connections)
    }

    fn probe_family(
        &self,
        family: Family,
        keep_going: &KeepGoing,
        connections: &mut Vec<Connection>,
    ) -> Result<(), Error> {
        let trials = trial::all(&self.topology, family);
        let results = self.try_all(&trials, family, probe::PORT, keep_going)?;
        connections.extend(
            trials.iter().zip(results).map(|(trial, result)| self.connection(trial, family, result.reason)),
        );
        Ok(())
    }

    fn connection(&self, trial: &Trial, family: Family, reason: Option<String>) -> Connection {
        let machines = &self.topology.machines;
        Connection {
            kind: trial.kind,
            from: machines[trial.from].name.clone(),
            to: trial.to.map(|to| machines[to].name.clone()),
            family,
            works: reason.is_none(),
            reason: reason.map(Into::into),
        }
    }

    /// Runs the trials, and those that fail once more. Returns their results.
    fn try_all(
        &self,
        trials: &[Trial],
        family: Family,
        port: u16,
        keep_going: &KeepGoing,
    ) -> Result<Vec<TrialResult>, Error> {
        let endpoints = trial::Endpoints::of(&self.topology, family);
        let mut testers = Testers::open(&self.lab, endpoints, family, port)?;
        let all: Vec<usize> = (0..trials.len()).collect();
        let mut results = vec![TrialResult::default(); trials.len()];
        self.run_trials(&mut testers, trials, &all, &mut results, keep_going)?;
        // Other programs may have filled the neighbor table: the failed trials are repeated once.
        let failed: Vec<usize> = all.into_iter().filter(|trial| results[*trial].answer.is_none()).collect();
        self.run_trials(&mut testers, trials, &failed, &mut results, keep_going)?;
        Ok(results)
    }

    /// Runs the trials of `subset` in rounds, and explains those that fail while the neighbor table still shows why.
    fn run_trials(
        &self,
        testers: &mut Testers,
        trials: &[Trial],
        subset: &[usize],
        results: &mut [TrialResult],
        keep_going: &KeepGoing,
    ) -> Result<(), Error> {
        let rounds = trial::rounds(trials, subset);
        let _task = Task::counted("testing connections", subset.len());
        for (number, round) in rounds.iter().enumerate() {
            keep_going()?;
            let machines = round.machines(self.topology.machines.len());
            testers.forget_neighbors(&machines)?;
            let probes: Vec<Probe> = round.trials.iter().map(|trial| trials[*trial].probe).collect();
            let timeout = if number == 0 { probe::FIRST_TIMEOUT } else { probe::TIMEOUT };
            let answers = probe::ask(&testers.endpoints, &testers.of(&machines), &probes, timeout)?;
            for (trial, answer) in round.trials.iter().zip(answers) {
                let reason = self.diagnose(&trials[*trial], answer, testers.family)?;
                results[*trial] = TrialResult { answer, reason, is_tcp: false };
            }
            testers.forget_neighbors(&machines)?;
            progress::advance(round.trials.len());
        }
        Ok(())
    }

    /// Returns what is wrong with an answer, or why there is none; `None` if it is as expected.
    fn diagnose(
        &self,
        trial: &Trial,
        answer: Option<IpAddr>,
        family: Family,
    ) -> Result<Option<String>, Error> {
        let Some(seen) = answer else {
            let mut ends = [Some(trial.from), trial.to].into_iter().flatten();
            if let Some(end) = ends.find(|end| !self.nodes[*end].refused.is_empty()) {
                return Ok(Some(format!("{} refused its plan", self.nodes[end].name)));
            }
            return Ok(Some(match trial.to {
                Some(to) => trace::between(&self.lab, &self.topology, trial, to, family)?,
                None => trace::to_outside(&self.lab, &self.topology, trial.from, family)?,
            }));
        };
        Ok(match trial.source {
            Some(source) if source != seen => Some(match trial.kind {
                ConnectionKind::PodToOutside => {
                    format!("not masqueraded: the outside host saw {seen} instead of the node's {source}")
                }
                _ => format!("masqueraded: the pod saw {seen} instead of the other pod's {source}"),
            }),
            _ => None,
        })
    }
}

/// The state of a node before its plan is applied.
#[derive(Debug)]
struct Before {
    records: StateDir,
    scope: FingerprintScope,
    fingerprint: kernel::Fingerprint,
}

/// The totals of a plan that was applied, or why the node refused it.
type PlanOutcome = Result<Totals, Vec<Untrusted>>;

/// Applies the plan of a node. Returns the node's previous state, and the result.
fn prepare_node(
    topology: &Topology,
    lab: &Lab,
    number: usize,
    scratch: &std::path::Path,
) -> Result<(Before, PlanOutcome), Error> {
    let (cluster, index) = (&topology.cluster, topology.machines[number].index);
    inside(&lab.nodes[number].0, || {
        let identity = kernel::identity().map_err(|error| {
            Error::unexpected(format!("cannot identify the network namespace: {}", OsError(&error)))
        })?;
        let records = StateDir::new_in(scratch, identity);
        // Reading every sysctl of a namespace takes longer than everything else that happens to a node.
        let scope = match plan::desired(cluster, index, &plan::OriginalSysctls::default()) {
            Ok(desired) if number > 0 => FingerprintScope::of(&desired.state),
            _ => FingerprintScope::Everything,
        };
        let fingerprint = kernel::fingerprint(&scope)?;
        let outcome = apply_or_refuse(cluster, index, &records)?;
        Ok((Before { records, scope, fingerprint }, outcome))
    })
}

/// The result of a trial.
#[derive(Debug, Clone, Default)]
struct TrialResult {
    /// The source address that the target saw; `None` without an answer.
    answer: Option<IpAddr>,
    /// Why the trial failed.
    reason: Option<String>,
    /// Whether only TCP failed.
    is_tcp: bool,
}

/// The sockets of all namespaces, through which a family is tested.
struct Testers {
    family: Family,
    /// The sockets, by their numbers.
    endpoints: Vec<Endpoint>,
    numbers: trial::Endpoints,
    /// The network stacks of the nodes, their pods and the outside host, in the order of the endpoints, and that of the
    /// router.
    stacks: Vec<Interfaces>,
}

impl Testers {
    fn open(lab: &Lab, numbers: trial::Endpoints, family: Family, port: u16) -> Result<Self, Error> {
        let namespaces = || lab.nodes.iter().flat_map(|(node, pod)| [node, pod]).chain([&lab.outside]);
        let open = |namespace, address| match address {
            Some(address) => Endpoint::open_at(namespace, address, port),
            None => Endpoint::open(namespace, family, port),
        };
        let of_machines =
            lab.nodes.iter().enumerate().flat_map(|(machine, (node, pod))| {
                [open(node, None), open(pod, numbers.address_of(machine))]
            });
        let outside = std::iter::once(open(&lab.outside, None));
        let further = numbers.further().map(|(machine, address)| open(&lab.nodes[machine].1, Some(address)));
        let endpoints = of_machines.chain(outside).chain(further).collect::<Result<_, _>>()?;
        let stacks = namespaces()
            .chain([&lab.router])
            .map(|namespace| inside(namespace, Interfaces::open))
            .collect::<Result<_, _>>()?;
        Ok(Self { family, endpoints, numbers, stacks })
    }

    /// Returns the indexes of the endpoints of `machines` and of the outside host.
    fn of(&self, machines: &[usize]) -> Vec<usize> {
        self.stacks_of(machines).chain(self.numbers.further_of(machines)).collect()
    }

    fn stacks_of(&self, machines: &[usize]) -> impl Iterator<Item = usize> + use<'_> {
        let numbers: Vec<usize> = machines.iter().flat_map(|number| [2 * number, 2 * number + 1]).collect();
        numbers.into_iter().chain([self.numbers.outside()])
    }

    /// Makes room in the neighbor table, which all namespaces of the machine share.
    fn forget_neighbors(&mut self, machines: &[usize]) -> Result<(), Error> {
        let router = self.stacks.len() - 1;
        let stacks: Vec<usize> = self.stacks_of(machines).chain([router]).collect();
        stacks.into_iter().try_for_each(|stack| self.stacks[stack].forget_neighbors())
    }
}

/// Removes from the cluster the sysctls that the namespaces do not have or cannot write, because the kernel keeps them
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

/// Applies the plan of the node at `index`. A refused plan is not an error.
fn apply_or_refuse(cluster: &Cluster, index: usize, records: &StateDir) -> Result<PlanOutcome, Error> {
    match apply_node(cluster, index, records) {
        Ok(totals) => Ok(Ok(totals)),
        Err(Failure::Untouched(error)) if error.kind == Kind::Invalid => {
            Ok(Err(std::iter::once(error.message).chain(error.details).collect()))
        }
        Err(failure) => Err(node_error(&cluster.nodes[index].name, failure)),
    }
}

/// Applies the plan of the node at `index` as `hostgw apply --yes` does, in the namespace of the calling thread.
fn apply_node(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Totals, Failure> {
    reconcile(&cluster.nodes[index].name, &mut ApplyCluster::new(cluster, index, dir))
}

/// Commits an operation on the node `name`, in the namespace of the calling thread.
fn reconcile(name: &Untrusted, operation: &mut impl Operation) -> Result<Totals, Failure> {
    let metadata =
        TransactionMeta { node: Some(name.clone()), ..TransactionMeta::new(operation.command(), 0) };
    let result = reconcile::run(operation, None, &Unattended { metadata })?;
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
