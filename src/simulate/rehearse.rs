//! Rehearses an apply on a copy of this node, firewall included, with real packets.
//!
//! The node is copied to a namespace ([`NodeImage`]), and some of the other nodes, a pod, a router and an outside host are
//! simulated around it. The plan is applied in the copy as `hostgw apply` does, and the connections of
//! the node are tested before and after. `wiring` connects the copy.

mod wiring;

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;

use super::{
    Assumption, Connection, ConnectionKind, Guarantee, KeepGoing, Lab, NodeResult, Simulation, Testers,
    Topology, Trial, TrialResult, apply_or_refuse, assumption, build,
    handshake::shakes_hands,
    node_error, probe, remove_unsupported_sysctls,
    trial::{self, Endpoints},
    workers,
};
use crate::{
    apply::{Failure, StateDir},
    diagnose::Diagnostic,
    error::{Error, Kind},
    forwarding::PathFault,
    kernel::{
        self, CopiedRules, CopyTotals, FingerprintScope, FirewallTrace, LiveNode, Namespace, NodeImage,
        Omission, PacketFate, TracedVerdict, inside,
    },
    model::{Family, SysctlKey},
    plan::{OriginalSysctls, Prepared, Totals},
    progress::{self, Task},
    reconcile::{self, Apply, Place, Rollback, Session, Unattended},
    record::{Command, TransactionMeta},
    state::PacketProgram,
    text::{OsError, ShellCommand, Untrusted},
};
use wiring::Wiring;

/// The ports of the packets before the plan, after it, and to find out why one is lost. To connection tracking, packets
/// of different ports are different flows, so what it decided about one has no effect on the others.
const PORT_BEFORE: u16 = probe::PORT;
const PORT_AFTER: u16 = PORT_BEFORE + 1;
const FIRST_TRACE_PORT: u16 = PORT_AFTER + 1;
/// The number of lost connections to examine: usually, all are lost for the same reason.
const MAX_TRACES: u16 = 20;

/// What to rehearse.
#[derive(Debug)]
pub struct RehearsalOptions {
    /// The indexes of the other nodes to simulate.
    pub others: Vec<usize>,
    /// The exact number of routes that a mass removal may remove.
    pub allowed_removals: Option<usize>,
    /// Whether the copy stays as it is after the test, so that its rollback is not tested.
    pub keep: bool,
}

/// A connection of the node, before and after the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RehearsedConnection {
    /// What was tested.
    pub kind: ConnectionKind,
    /// The node that sent the packet, itself or from its pod.
    pub from: Untrusted,
    /// The node whose pod was the target; absent if the target was the outside host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Untrusted>,
    /// The address family.
    pub family: Family,
    /// Whether the connection worked before the plan was applied.
    pub worked_before: bool,
    /// Whether it works after the plan was applied; absent if the plan could not be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub works: Option<bool>,
    /// Why the connection fails after the plan, or before it if the plan could not be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Untrusted>,
}

/// A copy of this node with the plan applied, and the results of the tests.
#[derive(Debug)]
pub struct Rehearsal {
    simulation: Simulation,
    /// The far ends of the interfaces that nothing answers on.
    void: Namespace,
    rules: CopiedRules,
    records: StateDir,
    families_with_gateway: Vec<Family>,
    families_with_other_default: Vec<Family>,
    faults: Vec<PathFault>,
    /// The numbers of copied objects.
    pub copied: CopyTotals,
    /// What the copy lacks.
    pub omissions: Vec<Omission>,
    /// The totals of the plan, or why it could not be applied.
    pub applied: Result<Totals, Error>,
    /// The connections of the node.
    pub connections: Vec<RehearsedConnection>,
    /// Whether a rollback restores the copy; `None` if that was not tested.
    pub rollback: Option<Guarantee>,
}

impl Rehearsal {
    /// Copies the node of the calling thread's namespace, applies the plan of `session` there, and tests it. Records are
    /// stored under `scratch`. Changes nothing on the node.
    ///
    /// # Errors
    /// Returns an error if the node cannot be read, if the namespaces cannot be built, or if `keep_going` returns one.
    pub fn run(
        session: Session,
        options: &RehearsalOptions,
        scratch: &Path,
        keep_going: &KeepGoing,
    ) -> Result<Self, Error> {
        let (name, index) = (session.node_name().clone(), session.index);
        let mut rehearsal = Self::build(&session, options, scratch, keep_going)?;
        let before = rehearsal.probe(PORT_BEFORE, keep_going)?;
        keep_going()?;
        let fingerprint = rehearsal.in_copy(|| kernel::fingerprint(&FingerprintScope::Everything))?;
        rehearsal.apply(session, index, &name, options)?;
        let after = match &rehearsal.applied {
            Ok(_) => Some(rehearsal.probe(PORT_AFTER, keep_going)?),
            Err(_) => None,
        };
        rehearsal.connections = rehearsal.compare(before, after, keep_going)?;
        if rehearsal.applied.as_ref().is_ok_and(|totals| *totals != Totals::default()) && !options.keep {
            keep_going()?;
            rehearsal.rollback = Some(rehearsal.check_rollback(&name, &fingerprint)?);
        }
        Ok(rehearsal)
    }

    fn build(
        session: &Session,
        options: &RehearsalOptions,
        scratch: &Path,
        keep_going: &KeepGoing,
    ) -> Result<Self, Error> {
        let task = Task::begin("copying the node");
        let cluster = &session.loaded.cluster;
        let host = LiveNode.everything()?.host;
        let image = NodeImage::read()?;
        let wiring = Wiring::of(cluster, session.index, &host, image.links())?;
        let indexes: Vec<usize> = [session.index].into_iter().chain(options.others.iter().copied()).collect();
        let mut topology = Topology::new(cluster, &indexes, wiring.networks(cluster))?;
        wiring.adjust(&mut topology);
        let switch = build::build_switch(&topology)?;
        let (router, outside) = build::build_outside(&topology, &switch)?;
        let pod = build::namespace()?;
        let copy = image.write(&wiring.cables(&switch, &router, &pod), wiring.simulated())?;
        wiring.connect(&copy.namespace, &pod, &switch, &router, &topology)?;
        drop(task);
        let others = workers::each("building nodes", options.others.len(), keep_going, |number| {
            build::build_node(&topology.machines[number + 1], number + 1, &switch)
        })?;
        let nodes = [(copy.namespace, pod)].into_iter().chain(others).collect();
        let lab = Lab { nodes, outside, router, switch };
        let unsupported_sysctls = remove_unsupported_sysctls(&mut topology.cluster, &lab)?;
        let outcomes = workers::each("applying nodes", options.others.len(), keep_going, |number| {
            let (machine, node) = (&topology.machines[number + 1], &lab.nodes[number + 1].0);
            inside(node, || apply_or_refuse(&topology.cluster, machine.index, &records_in(scratch)?))
        })?;
        let outcomes = std::iter::once(Ok(Totals::default())).chain(outcomes);
        let nodes = topology.machines.iter().zip(outcomes);
        let nodes = nodes.map(|(machine, outcome)| NodeResult::new(machine, outcome)).collect();
        let records = inside(&lab.nodes[0].0, || records_in(scratch))?;
        let lacks = |program: &PacketProgram| Omission::decisive(program.to_string(), "not copied");
        let omissions = host.programs.iter().map(lacks).chain(copy.omissions).chain(wiring.notes).collect();
        Ok(Self {
            simulation: Simulation { topology, lab, before: Vec::new(), unsupported_sysctls, nodes },
            void: copy.void,
            rules: copy.rules,
            records,
            families_with_gateway: wiring.families_with_gateway.into_iter().collect(),
            families_with_other_default: wiring.families_with_other_default.into_iter().collect(),
            faults: Vec::new(),
            copied: copy.totals,
            omissions,
            applied: Ok(Totals::default()),
            connections: Vec::new(),
            rollback: None,
        })
    }

    fn in_copy<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        inside(&self.simulation.lab.nodes[0].0, work)
    }

    /// The names of the other nodes.
    pub fn others(&self) -> impl Iterator<Item = &Untrusted> {
        self.simulation.topology.machines.iter().skip(1).map(|machine| &machine.name)
    }

    /// All namespaces, each with its name.
    pub fn namespaces(&self) -> impl Iterator<Item = (String, &Namespace)> {
        self.simulation.namespaces().chain([("void".to_owned(), &self.void)])
    }

    /// The sysctls of the configuration that do not exist or are read-only in a network namespace.
    #[must_use]
    pub fn unsupported_sysctls(&self) -> &[SysctlKey] {
        &self.simulation.unsupported_sysctls
    }

    /// What the simulated machines have although hostgw does not set it up, because the configuration relies on it.
    #[must_use]
    pub fn assumptions(&self) -> Vec<Assumption> {
        assumption::all(&self.simulation.topology, "each other node")
    }

    /// The families whose outside connections were not tested, each with the reason.
    #[must_use]
    pub fn untested_outside(&self) -> Vec<(Family, &'static str)> {
        let topology = &self.simulation.topology;
        let reason = |family| match () {
            () if !topology.masquerades(family) => Some("masquerading is off"),
            () if self.families_with_gateway.contains(&family) => None,
            () if self.families_with_other_default.contains(&family) => {
                Some("the default route has no gateway, or one that is not simulated")
            }
            () => Some("this node has no default gateway"),
        };
        let families = topology.cluster.prefixes.families();
        families.filter_map(|family| Some((family, reason(family)?))).collect()
    }

    /// The pod paths that will not work, as far as rules, routes and sysctls decide.
    pub fn faults(&self) -> impl Iterator<Item = Diagnostic> {
        self.faults.iter().map(PathFault::diagnostic)
    }

    /// Returns `true` if the plan was applied, every connection works, and the rollback restored the copy.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.applied.is_ok()
            && self.connections.iter().all(|connection| connection.works == Some(true))
            && self.rollback.as_ref().is_none_or(|rollback| rollback.held)
    }

    /// What the copy lacks that can drop or divert packets on the node.
    pub fn decisive_omissions(&self) -> impl Iterator<Item = &Untrusted> {
        self.omissions.iter().filter(|omission| omission.affects_result).map(|omission| &omission.object)
    }

    fn families(&self) -> Vec<Family> {
        self.simulation.topology.cluster.prefixes.families().collect()
    }

    /// The connections of the node: those that it or its pod begins, and those to its pod.
    fn trials(&self, family: Family) -> Vec<Trial> {
        let is_own = |trial: &Trial| match trial.to {
            Some(to) => trial.from == 0 || to == 0,
            None => trial.from == 0 && self.families_with_gateway.contains(&family),
        };
        let mut trials = trial::all(&self.simulation.topology, family);
        trials.retain(is_own);
        // Which of its addresses the node uses outside depends on its routes. Without masquerading, no answer arrives.
        for trial in trials.iter_mut().filter(|trial| trial.to.is_none()) {
            trial.source = None;
        }
        trials
    }

    /// Sends the packets of every connection.
    fn probe(&self, port: u16, keep_going: &KeepGoing) -> Result<Vec<(Family, Trial, TrialResult)>, Error> {
        let mut found = Vec::new();
        for family in self.families() {
            let trials = self.trials(family);
            let mut results = self.simulation.try_all(&trials, family, port, keep_going)?;
            self.shake_hands(&trials, &mut results, port, keep_going)?;
            found.extend(trials.into_iter().zip(results).map(|(trial, result)| (family, trial, result)));
        }
        Ok(found)
    }

    /// Also tests TCP where UDP works.
    fn shake_hands(
        &self,
        trials: &[Trial],
        results: &mut [TrialResult],
        port: u16,
        keep_going: &KeepGoing,
    ) -> Result<(), Error> {
        let working: Vec<usize> =
            (0..trials.len()).filter(|trial| results[*trial].reason.is_none()).collect();
        let _task = Task::counted("testing TCP connections", working.len());
        for number in working {
            keep_going()?;
            if !self.shakes_hands(&trials[number], port)? {
                let reason = "TCP connections fail, although UDP packets get through".to_owned();
                let answer = results[number].answer;
                results[number] = TrialResult { answer, reason: Some(reason), is_tcp: true };
            }
            progress::advance(1);
        }
        Ok(())
    }

    /// Opens a TCP connection between the ends of a trial.
    fn shakes_hands(&self, trial: &Trial, port: u16) -> Result<bool, Error> {
        let Lab { nodes, outside, .. } = &self.simulation.lab;
        let (node, pod) = &nodes[trial.from];
        let from = if trial.kind == ConnectionKind::NodeToPod { node } else { pod };
        let to = trial.to.map_or(outside, |to| &nodes[to].1);
        shakes_hands(from, to, trial.probe.to, port)
    }

    /// Applies the plan in the copy as `hostgw apply --yes` does.
    fn apply(
        &mut self,
        session: Session,
        index: usize,
        name: &Untrusted,
        options: &RehearsalOptions,
    ) -> Result<(), Error> {
        let _task = Task::begin("applying the plan");
        let (records, unsupported) = (self.records.clone(), self.simulation.unsupported_sysctls.clone());
        let Session { mut loaded, saved, policy, .. } = session;
        loaded.cluster.sysctls.retain(|(key, _)| !unsupported.contains(key));
        // Their targets, such as an API server, are not part of the copy.
        loaded.cluster.checks.clear();
        let allowed = options.allowed_removals;
        let metadata = metadata(Command::Apply, name);
        let (applied, faults) = self.in_copy(move || {
            adopt_records(&records, &saved)?;
            let session = Session {
                loaded,
                index,
                place: Place::Live(records.clone()),
                saved: OriginalSysctls::default(),
                last: None,
                policy,
                prepared: Prepared::nothing(),
                reading: None,
            };
            let guard = |_: &Session| Ok(());
            let mut apply = Apply::in_dir(session, records, allowed, &guard);
            let result = reconcile::run(&mut apply, None, &Unattended { metadata });
            let faults = apply.session.path_faults();
            Ok((result.map(|result| result.committed.map(|committed| committed.totals)), faults))
        })?;
        self.faults = faults;
        self.applied = applied.map(Option::unwrap_or_default).map_err(|failure| refusal(name, failure));
        Ok(())
    }

    /// Pairs the results, and finds out why connections fail.
    fn compare(
        &self,
        before: Vec<(Family, Trial, TrialResult)>,
        after: Option<Vec<(Family, Trial, TrialResult)>>,
        keep_going: &KeepGoing,
    ) -> Result<Vec<RehearsedConnection>, Error> {
        let worked: Vec<bool> = before.iter().map(|(_, _, result)| result.reason.is_none()).collect();
        let is_applied = after.is_some();
        let mut ports = FIRST_TRACE_PORT..FIRST_TRACE_PORT + MAX_TRACES;
        let mut connections = Vec::new();
        for ((family, trial, result), worked_before) in after.unwrap_or(before).into_iter().zip(worked) {
            keep_going()?;
            let mut reason = result.reason.clone();
            if let Some(found) = reason.as_mut()
                && let Some(port) = ports.next()
                && let Some(better) = self.explain(&trial, &result, family, port)?
            {
                *found = if result.is_tcp { format!("TCP connections fail: {better}") } else { better };
            }
            let Connection { kind, from, to, family, works, reason } =
                self.simulation.connection(&trial, family, reason);
            let works = is_applied.then_some(works);
            connections.push(RehearsedConnection { kind, from, to, family, worked_before, works, reason });
        }
        Ok(connections)
    }

    /// Returns why a connection fails, if the firewall, a rule, a route or a sysctl of the node is the reason.
    fn explain(
        &self,
        trial: &Trial,
        result: &TrialResult,
        family: Family,
        port: u16,
    ) -> Result<Option<String>, Error> {
        let cannot = |error: kernel::NatError| Error::unexpected(format!("cannot trace packets: {error}"));
        // Without a trace, the other reasons remain.
        let mut trace = self.in_copy(|| Ok(FirewallTrace::start(port).ok()))?;
        let mut machines = vec![trial.from];
        machines.extend(trial.to.filter(|to| *to != trial.from));
        let has_answer = result.answer.is_some() && !result.is_tcp;
        let endpoints = Endpoints::of(&self.simulation.topology, family);
        let mut testers = Testers::open(&self.simulation.lab, endpoints, family, port)?;
        testers.forget_neighbors(&machines)?;
        let listening = testers.of(&machines);
        let has_legacy = self.copied.legacy_tables > 0;
        let drops = || self.in_copy(|| Ok(if has_legacy { kernel::legacy_drops() } else { BTreeMap::new() }));
        let before = drops()?;
        // Long enough for neighbor resolution, whose failure otherwise looks like a loss at a later hop.
        if result.is_tcp {
            self.shakes_hands(trial, port)?;
        } else {
            probe::ask(&testers.endpoints, &listening, &[trial.probe], Duration::from_millis(400))?;
        }
        let verdicts = trace.as_mut().map(FirewallTrace::verdicts).unwrap_or_default();
        if let Some(trace) = trace {
            self.in_copy(|| trace.stop().map_err(cannot))?;
        }
        let culprit = if has_answer {
            verdicts.iter().rev().find(|it| it.fate == PacketFate::Accepted && it.rule.is_some())
        } else {
            verdicts.iter().find(|it| it.fate != PacketFate::Accepted)
        };
        if let Some(verdict) = culprit {
            let place = self.place(verdict);
            return Ok(Some(match verdict.fate {
                PacketFate::Accepted => format!("masqueraded by {place}"),
                PacketFate::Dropped => format!("dropped by {place}"),
                PacketFate::Queued => {
                    format!("queued by {place}, for a program that does not run in the copy")
                }
            }));
        }
        let more = |(rule, packets): &(String, u64)| before.get(rule).is_none_or(|before| before < packets);
        if let Some((rule, _)) = drops()?.into_iter().find(more) {
            return Ok(Some(format!("dropped by `{rule}`")));
        }
        let names: Vec<&Untrusted> =
            machines.iter().map(|machine| &self.simulation.topology.machines[*machine].name).collect();
        let concerns = |fault: &&PathFault| {
            fault.families.contains(&family) && fault.nodes.keys().any(|name| names.contains(&name))
        };
        let fault = self.faults.iter().find(concerns);
        if let Some(fault) = fault.filter(|_| !has_answer && trial.to.is_some()) {
            return Ok(Some(fault.why.clone()));
        }
        Ok(None)
    }

    /// Names the rule or the chain of a verdict, by its handle on the node.
    fn place(&self, verdict: &TracedVerdict) -> String {
        let TracedVerdict { table, chain, rule, .. } = verdict;
        let family = verdict.family_name();
        let list = ShellCommand::new(["nft", "-a", "list", "chain", family, table, chain]);
        let Some(handle) = rule else {
            return format!("the policy of chain `{chain}` in table `{family} {table}`");
        };
        match self.rules.original_handle(verdict.family, table, *handle) {
            Some(handle) => {
                format!(
                    "the rule with handle {handle} in chain `{chain}` in table `{family} {table}` (`{list}`)"
                )
            }
            None => format!("a rule in chain `{chain}` in table `{family} {table}`"),
        }
    }

    /// Rolls the plan back, and compares the copy with what it was before.
    fn check_rollback(&self, name: &Untrusted, before: &kernel::Fingerprint) -> Result<Guarantee, Error> {
        let _task = Task::begin("rolling back");
        let metadata = metadata(Command::Apply, name);
        let violations = self.in_copy(|| {
            let rollback = Rollback { adopt: false, abandon: false };
            if let Err(failure) = rollback.run_in(&self.records, &Unattended { metadata }) {
                return Ok(vec![node_error(name, failure).message.to_string()]);
            }
            Ok(before.differences(&kernel::fingerprint(&FingerprintScope::Everything)?))
        })?;
        Ok(Guarantee::new("rollback restores the copy", violations))
    }
}

/// The records of the namespace of the calling thread.
fn records_in(scratch: &Path) -> Result<StateDir, Error> {
    let identity = kernel::identity().map_err(|error| {
        Error::unexpected(format!("cannot identify the network namespace: {}", OsError(&error)))
    })?;
    Ok(StateDir::new_in(scratch, identity))
}

/// Stores the original values of the sysctls that hostgw changed on the node, on which its plan depends.
fn adopt_records(records: &StateDir, saved: &OriginalSysctls) -> Result<(), Error> {
    let _lock = records.lock(Duration::ZERO, "rehearse")?;
    records.write_saved(saved)
}

fn metadata(command: Command, name: &Untrusted) -> TransactionMeta {
    TransactionMeta { node: Some(name.clone()), ..TransactionMeta::new(command, 0) }
}

/// Why the plan could not be applied in the copy. Its exit code would be about the node, which is unchanged.
fn refusal(name: &Untrusted, failure: Failure) -> Error {
    let is_rolled_back = matches!(failure, Failure::RolledBack { .. });
    let error = node_error(name, failure);
    if is_rolled_back {
        let message = format!("the apply was rolled back: {}", error.message);
        return Error { message: message.into(), ..error };
    }
    Error { kind: Kind::Unexpected, ..error }
}
