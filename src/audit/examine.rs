//! What one snapshot tells about its node.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use super::{
    changes::Changes,
    matrix::{PairState, Row},
    sample::{ClusterPart, Sampler, mentions},
};
use crate::{
    config::Loaded,
    diagnose::{Diagnostic, Rule},
    doctor::{
        Effect, Examination, Symptoms, TrafficEffects, WindowsExamination, WindowsSymptoms, symptoms,
        windows_symptoms,
    },
    error::Error,
    forwarding::{Direction, ForwardingModel, LocalEnd, PathFault, Transport, faults_unapplied},
    model::{Cluster, Family, Node, OperatingSystem},
    plan::{
        self, ForeignPolicy, NotLinux, Observed,
        windows::{WindowsObserved, WindowsReach},
    },
    record::{Commit, LastApplied, Snapshot},
    state::{Host, NeighborEntry, Route},
    text::Untrusted,
};

/// The configuration that was applied last on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppliedConfig {
    /// Its SHA-256.
    pub hash: Untrusted,
    /// Its Git commit.
    pub commit: Option<Commit>,
}

impl AppliedConfig {
    fn of(last: &LastApplied) -> Option<Self> {
        let commit = last.metadata.commit.clone();
        Some(Self { hash: last.metadata.config_hash.clone()?, commit })
    }
}

/// What one snapshot tells about its node.
#[derive(Debug, Clone)]
pub struct Examined {
    /// The snapshot, as named on the command line.
    pub snapshot: Untrusted,
    /// The index of the node.
    pub index: usize,
    /// When the snapshot was taken, as in RFC 3339.
    pub taken_at: String,
    /// The configuration that was applied last; `None` if it is not recorded, as on Windows.
    pub applied: Option<AppliedConfig>,
    /// Whether it is known how the node differs from the configuration.
    pub is_planned: bool,
    /// How the node differs from the configuration.
    pub changes: Changes,
    /// The addresses that matter to other nodes, with those of the egress interface.
    pub(super) addresses: Vec<IpAddr>,
    /// The addresses of the egress interface.
    pub(super) egress_addresses: Vec<IpAddr>,
    /// The hostname of the machine.
    pub(super) hostname: Option<Untrusted>,
    /// The name of the node for which a plan was applied last.
    pub(super) applied_node: Option<Untrusted>,
    /// The MAC address of the egress interface.
    pub(super) egress_hardware: Option<Untrusted>,
    /// The MAC addresses of all interfaces.
    pub(super) hardware: BTreeSet<Untrusted>,
    /// The neighbors on the egress interface that are nodes and have a MAC address.
    pub(super) neighbors: Vec<NeighborEntry>,
    /// The families in which packets are judged.
    pub(super) families: BTreeSet<Family>,
    /// Why packets do not take the planned path now.
    pub(super) live: Vec<PathFault>,
    /// Why packets will not take the planned path even after an apply.
    pub(super) faults: Vec<PathFault>,
    /// Everything else that is wrong with the node.
    pub(super) findings: Vec<Diagnostic>,
    /// What it does with the packets of pods.
    pub(super) row: Row,
}

/// The result of examining a snapshot.
#[derive(Debug, Clone)]
pub enum Sighting {
    /// The snapshot of a node.
    Node(Box<Examined>),
    /// The snapshot of a machine that is not in the configuration.
    Stranger {
        /// The snapshot, as named on the command line.
        snapshot: Untrusted,
        /// The hostname of the machine.
        hostname: Option<Untrusted>,
        /// The number of managed routes that it has.
        managed: usize,
        /// Those of its addresses that are also addresses of nodes.
        addresses: Vec<IpAddr>,
    },
    /// The snapshot cannot be used.
    Unusable {
        /// The snapshot, as named on the command line.
        snapshot: Untrusted,
        /// The reason.
        error: Error,
    },
}

/// Examines snapshots of the nodes of one cluster.
#[derive(Debug)]
pub struct Auditor<'a> {
    pub(super) loaded: &'a Loaded,
    /// The SHA-256 of the configuration.
    pub(super) hash: String,
    /// The addresses and pod gateways of the nodes.
    addresses: HashSet<IpAddr>,
    /// The indexes of the nodes by their names.
    names: HashMap<&'a str, usize>,
}

/// An [`Auditor`] on one thread: the cluster as the examined node sees it.
#[derive(Debug)]
pub struct Worker<'a> {
    auditor: &'a Auditor<'a>,
    cluster: Cluster,
    /// `None` if every node is examined with the whole cluster.
    sampler: Option<Sampler>,
}

/// The whole cluster. A worker may examine only a part of it.
struct Whole<'a> {
    /// The number of its nodes.
    size: usize,
    /// The indexes of the examined nodes by their names.
    names: &'a HashMap<&'a str, usize>,
}

impl<'a> Auditor<'a> {
    /// Creates an auditor for the cluster of a configuration.
    #[must_use]
    pub fn new(loaded: &'a Loaded) -> Self {
        let nodes = &loaded.cluster.nodes;
        let addresses = nodes.iter().flat_map(|node| {
            let own = node.addresses.iter().map(|(_, address)| *address);
            own.chain(node.pod_gateways())
        });
        let names = nodes.iter().enumerate().map(|(index, node)| (node.name.as_raw(), index));
        Self { loaded, hash: loaded.document.hash(), addresses: addresses.collect(), names: names.collect() }
    }

    /// Creates a worker for one thread.
    #[must_use]
    pub fn worker(&'a self) -> Worker<'a> {
        /// Beyond this number of nodes, most are alike.
        const MIN_NODES: usize = 16;
        self.worker_from(MIN_NODES)
    }

    /// Creates a worker that examines clusters of fewer nodes than this whole, and larger ones by a part that represents all
    /// nodes. The results are the same.
    #[must_use]
    pub fn worker_from(&'a self, min_nodes: usize) -> Worker<'a> {
        let cluster = self.loaded.cluster.clone();
        let sampler = (cluster.nodes.len() >= min_nodes).then(|| Sampler::new(&cluster)).flatten();
        Worker { auditor: self, cluster, sampler }
    }
}

impl Worker<'_> {
    /// Examines the snapshot `name`.
    pub fn examine(&mut self, name: &str, text: &str) -> Sighting {
        let result = match WindowsObserved::is_snapshot(text) {
            true => self.windows(name, text),
            false => self.linux(name, text),
        };
        result.unwrap_or_else(|error| Sighting::Unusable { snapshot: name.into(), error })
    }

    fn linux(&mut self, name: &str, text: &str) -> Result<Sighting, Error> {
        self.cluster.found_egress = None;
        let outline = self.sampler.as_mut().and_then(|sampler| sampler.outline(text));
        if let Some(outline) = outline {
            let recorded = outline.applied_node().cloned();
            let index = match self.identify(name, outline.host(), outline.hostname(), recorded.as_ref())? {
                Some(index) => index,
                None => return Ok(self.stranger(name, &Snapshot::parse(name, text)?)),
            };
            let found = plan::find_egress(&mut self.cluster, index, outline.host());
            let sampler = self.sampler.as_mut().filter(|_| found.is_ok());
            if let Some(sample) = sampler.and_then(|it| it.sample(&self.cluster, index, &outline)) {
                let mut snapshot = outline.with_routes(sample.routes.clone());
                let names = sample.cluster.nodes.iter().enumerate();
                let names: HashMap<&str, usize> =
                    names.map(|(index, node)| (node.name.as_raw(), index)).collect();
                let whole = Whole { size: self.cluster.nodes.len(), names: &names };
                let examined =
                    self.examine_node(&sample.cluster, sample.index, &whole, name, &mut snapshot)?;
                if let Some(examined) = expand(examined, &sample, self.cluster.nodes.len()) {
                    return Ok(Sighting::Node(Box::new(examined)));
                }
            }
        }
        let mut snapshot = Snapshot::parse(name, text)?;
        let recorded = snapshot.last_applied.as_ref().and_then(|last| last.metadata.node.clone());
        let (host, hostname) = (&snapshot.observed.host, snapshot.hostname.as_deref());
        let Some(index) = self.identify(name, host, hostname, recorded.as_ref())? else {
            return Ok(self.stranger(name, &snapshot));
        };
        if let Err(error) = plan::find_egress(&mut self.cluster, index, host) {
            return Ok(Sighting::Node(Box::new(self.unplanned(index, name, &snapshot, &error))));
        }
        let whole = Whole { size: self.cluster.nodes.len(), names: &self.auditor.names };
        let examined = self.examine_node(&self.cluster, index, &whole, name, &mut snapshot)?;
        Ok(Sighting::Node(Box::new(examined)))
    }

    /// Returns the index of the node that the machine is, or `None` if it is not in the configuration.
    fn identify(
        &self,
        name: &str,
        host: &Host,
        hostname: Option<&str>,
        recorded: Option<&Untrusted>,
    ) -> Result<Option<usize>, Error> {
        let recorded = recorded.and_then(|node| self.auditor.names.get(node.as_raw()).copied());
        match (
            plan::identify(&self.cluster, None, host, hostname, plan::MachineSource::OneOf(name)),
            recorded,
        ) {
            (Ok(index), _) | (Err(_), Some(index)) => Ok(Some(index)),
            (Err(error), None) if self.has_address(host) => Err(error),
            (Err(_), None) => Ok(None),
        }
    }

    /// Examines a Linux node.
    fn examine_node(
        &self,
        cluster: &Cluster,
        index: usize,
        whole: &Whole<'_>,
        name: &str,
        snapshot: &mut Snapshot,
    ) -> Result<Examined, Error> {
        let saved = std::mem::take(&mut snapshot.original_sysctls);
        let prepared = plan::prepare(snapshot, cluster, index, &saved, ForeignPolicy::Respect)?;
        let prepared = prepared.map_err(|NotLinux| wrong_system(name, &cluster.nodes[index]))?;
        let observed = &snapshot.observed;
        let examination = Examination { cluster, index, size: whole.size, prepared: &prepared, observed };
        let paths = examination.paths();
        let Symptoms { plan: mut findings, faults, others, effects } = symptoms(&examination, &paths);
        // The audit reports these in more detail.
        findings.retain(|found| !matches!(found.rule, Rule::NotApplied | Rule::InConflict));
        // It compares static neighbor entries with the MAC addresses of the nodes.
        findings.extend(others.into_iter().filter(|found| found.rule != Rule::StaticNeighbor));
        findings.extend(snapshot.unknown.iter().chain(observed.state.nat_unknowns()).map(|unknown| {
            let message = format!("cannot read {}: {}", unknown.part, unknown.reason);
            Diagnostic::new(Rule::SnapshotIncomplete, message).with_remedy("take the snapshot as root")
        }));
        let changes = Changes::of(&prepared.plan, &prepared.desired);
        let live = match changes.is_empty() {
            true => faults.clone(),
            false => {
                let model = ForwardingModel::of(&observed.state, &observed.host);
                faults_unapplied(&paths, model, &changes.destinations)
            }
        };
        let row = match paths.missing().is_empty() {
            true => row(whole, cluster.nodes.len(), &live, &effects, &prepared.desired.skipped),
            false => Row::UNKNOWN,
        };
        let node = &cluster.nodes[index];
        let egress = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
        let on_egress = observed.host.addresses.iter().filter(|local| local.device == egress);
        let egress_addresses: Vec<IpAddr> =
            on_egress.map(|local| local.address).filter(|address| is_global(*address)).collect();
        let known = |address: &IpAddr| self.auditor.addresses.contains(address);
        let mut addresses: Vec<IpAddr> =
            observed.host.addresses.iter().map(|local| local.address).filter(known).collect();
        addresses.extend(&egress_addresses);
        addresses.sort_unstable();
        addresses.dedup();
        let is_neighbor = |entry: &&NeighborEntry| {
            known(&entry.address) && entry.device == egress && entry.mac_address.is_some()
        };
        let neighbors = observed.host.neighbors.iter().filter(is_neighbor).cloned();
        let hardware = &observed.host.mac_addresses;
        Ok(Examined {
            snapshot: name.into(),
            index,
            taken_at: snapshot.taken_at.clone(),
            applied: snapshot.last_applied.as_ref().and_then(AppliedConfig::of),
            is_planned: true,
            changes,
            addresses,
            egress_addresses,
            hostname: snapshot.hostname.as_deref().map(Into::into),
            applied_node: snapshot.last_applied.as_ref().and_then(|last| last.metadata.node.clone()),
            egress_hardware: hardware.get(&Untrusted::from(egress)).cloned(),
            hardware: hardware.values().cloned().collect(),
            neighbors: neighbors.collect(),
            families: paths.families(),
            live,
            faults,
            findings,
            row,
        })
    }

    /// Returns what is known about a Linux node without an egress interface, such as one whose address moved.
    fn unplanned(&self, index: usize, name: &str, snapshot: &Snapshot, error: &Error) -> Examined {
        let Host { addresses, mac_addresses: hardware, .. } = &snapshot.observed.host;
        let addresses = addresses.iter().map(|local| local.address);
        let finding = Diagnostic::new(Rule::SnapshotUnusable, error.message.to_string());
        Examined {
            snapshot: name.into(),
            index,
            taken_at: snapshot.taken_at.clone(),
            applied: snapshot.last_applied.as_ref().and_then(AppliedConfig::of),
            is_planned: false,
            changes: Changes::default(),
            addresses: addresses.filter(|address| self.auditor.addresses.contains(address)).collect(),
            egress_addresses: Vec::new(),
            hostname: snapshot.hostname.as_deref().map(Into::into),
            applied_node: snapshot.last_applied.as_ref().and_then(|last| last.metadata.node.clone()),
            egress_hardware: None,
            hardware: hardware.values().cloned().collect(),
            neighbors: Vec::new(),
            families: BTreeSet::new(),
            live: Vec::new(),
            faults: Vec::new(),
            findings: vec![finding.with_remedy_if(error.hint.as_ref().map(ToString::to_string))],
            row: Row::UNKNOWN,
        }
    }

    fn windows(&mut self, name: &str, text: &str) -> Result<Sighting, Error> {
        let observed = WindowsObserved::parse(name, text)?;
        self.cluster.found_egress = None;
        let addresses: Vec<IpAddr> = observed.addresses.iter().map(|local| local.address).collect();
        let known = |address: &&IpAddr| self.auditor.addresses.contains(address);
        let addresses: Vec<IpAddr> = addresses.iter().filter(known).copied().collect();
        let index = self.auditor.names.get(observed.node.as_str()).copied();
        let Some((index, node)) = index.and_then(|index| Some((index, self.cluster.nodes.get(index)?)))
        else {
            return Ok(Sighting::Stranger {
                snapshot: name.into(),
                hostname: Some(observed.node.as_str().into()),
                managed: observed.managed.len(),
                addresses,
            });
        };
        let desired = plan::windows_desired(&self.cluster, index).ok_or_else(|| wrong_system(name, node))?;
        let examination = WindowsExamination {
            cluster: &self.cluster,
            index,
            desired: &desired,
            observed: &observed,
            state: name,
        };
        let WindowsSymptoms { plan, problems, others, reach } = windows_symptoms(&examination);
        let changes = plan.as_ref().map(Changes::of_windows).unwrap_or_default();
        let leftovers = plan.into_iter().flat_map(|plan| plan.leftovers);
        let findings = problems.into_iter().chain(leftovers).chain(others).collect();
        let nodes = self.cluster.nodes.len();
        let mut row = Row::default();
        let WindowsReach { lost, skipped, is_unrouted } = reach;
        for peer in lost {
            row.worsen(peer, Direction::Out, PairState::Lost, nodes);
        }
        lose(&mut row, &skipped, nodes);
        if is_unrouted {
            (0..nodes).for_each(|peer| row.worsen(peer, Direction::In, PairState::Lost, nodes));
        }
        Ok(Sighting::Node(Box::new(Examined {
            snapshot: name.into(),
            index,
            taken_at: observed.taken_at.clone(),
            applied: None,
            is_planned: true,
            changes,
            egress_addresses: addresses.clone(),
            addresses,
            hostname: Some(observed.node.as_str().into()),
            applied_node: None,
            egress_hardware: None,
            hardware: BTreeSet::new(),
            neighbors: Vec::new(),
            families: BTreeSet::new(),
            live: Vec::new(),
            faults: Vec::new(),
            findings,
            row,
        })))
    }

    fn has_address(&self, host: &Host) -> bool {
        host.addresses.iter().any(|local| self.auditor.addresses.contains(&local.address))
    }

    fn stranger(&self, name: &str, snapshot: &Snapshot) -> Sighting {
        let Observed { state, host } = &snapshot.observed;
        let addresses = host.addresses.iter().map(|local| local.address);
        Sighting::Stranger {
            snapshot: name.into(),
            hostname: snapshot.hostname.as_deref().map(Into::into),
            managed: state.routes.iter().filter(|route| Route::is_owned(route)).count(),
            addresses: addresses.filter(|address| self.auditor.addresses.contains(address)).collect(),
        }
    }
}

/// Returns what a node does with the packets of pods, given why some of them do not take the planned path, the effects of other
/// findings, and the nodes to which there is no route.
fn row(
    whole: &Whole<'_>,
    size: usize,
    faults: &[PathFault],
    effects: &TrafficEffects,
    skipped: &BTreeSet<usize>,
) -> Row {
    let mut row = Row::default();
    let index_of = |name: &Untrusted| whole.names.get(name.as_raw()).copied();
    // Pods that cannot ping each other can still talk.
    let is_ping = |transport: &Transport| *transport == Transport::Icmp;
    let concerns_traffic = |fault: &&PathFault| {
        fault.local_end == LocalEnd::Pod
            && (fault.protocols.is_empty() || !fault.protocols.iter().all(is_ping))
    };
    for fault in faults.iter().filter(concerns_traffic) {
        let state = if fault.is_detour { PairState::Diverted } else { PairState::Lost };
        for (peer, directions) in &fault.nodes {
            let Some(peer) = index_of(peer) else { continue };
            directions.iter().for_each(|direction| row.worsen(peer, *direction, state, size));
        }
    }
    let state_of = |effect| match effect {
        Effect::Unclear => PairState::Unknown,
        Effect::Lost => PairState::Lost,
    };
    for (peer, direction, effect) in effects.nodes() {
        if let Some(peer) = index_of(peer) {
            row.worsen(peer, direction, state_of(effect), size);
        }
    }
    for (family, direction, effect) in effects.all() {
        row.worsen_all(family, direction, state_of(effect));
    }
    lose(&mut row, skipped, size);
    row
}

/// Records that a node has no routes to these nodes, so that it can neither send packets to their pods nor reply.
fn lose(row: &mut Row, skipped: &BTreeSet<usize>, size: usize) {
    for peer in skipped {
        row.worsen(*peer, Direction::Out, PairState::Lost, size);
        row.worsen(*peer, Direction::In, PairState::Lost, size);
    }
}

/// Extends the findings about a sample to the whole cluster of `size` nodes. Returns `None` if any of them is about a node that
/// represents others.
fn expand(mut examined: Examined, sample: &ClusterPart, size: usize) -> Option<Examined> {
    /// Findings that count nodes.
    const COUNTING: [Rule; 7] = [
        Rule::ForwardBlocked,
        Rule::ForwardUnclear,
        Rule::PartlyBlocked,
        Rule::PodsMasqueraded,
        Rule::PodsRedirected,
        Rule::RoutedByMark,
        Rule::RouteOfNobody,
    ];
    let names = &sample.representatives;
    let tells = |found: &Diagnostic| {
        let mut texts = [Some(&found.message), found.remedy.as_ref()].into_iter().flatten();
        COUNTING.contains(&found.rule) || texts.any(|text| mentions(text, names))
    };
    let is_general =
        |fault: &PathFault| fault.nodes.is_empty() || fault.nodes.keys().any(|node| names.contains(node));
    let faults = examined.live.iter().chain(&examined.faults);
    if examined.findings.iter().any(tells) || faults.clone().any(is_general) {
        return None;
    }
    let whole = |index: usize| sample.indexes.get(index).copied();
    let of = sample.others(&examined.families);
    for fault in examined.live.iter_mut().chain(&mut examined.faults) {
        fault.of = of;
    }
    let short_of = |peer: u32| u32::try_from(whole(usize::try_from(peer).ok()?)?).ok();
    let changes = &mut examined.changes;
    changes.missing = changes.missing.iter().map(|peer| short_of(*peer)).collect::<Option<_>>()?;
    for (peer, _) in &mut changes.different {
        *peer = short_of(*peer)?;
    }
    for finding in &mut examined.findings {
        // The sample numbers the nodes differently than the configuration.
        finding.path = finding.path.take().map(|path| path.with_nodes(&sample.indexes));
    }
    examined.row = examined.row.expanded(&sample.indexes, size);
    examined.index = whole(examined.index)?;
    Some(examined)
}

/// Returns `true` unless the address only has a meaning on its link.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    }
}

/// The snapshot is from another operating system than its node.
fn wrong_system(name: &str, node: &Node) -> Error {
    let (of, other) = match node.os {
        OperatingSystem::Linux => ("Windows", "Linux"),
        OperatingSystem::Windows => ("Linux", "Windows"),
    };
    let message = format!("{name} is from a {of} machine, but node {} runs {other}", node.name);
    Error::new(crate::error::Kind::Invalid, message).with_hint("correct `os` in the configuration")
}
