//! The findings about the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    changes::Changes,
    examine::{AppliedConfig, Auditor, Examined, Sighting, is_global},
    finding::{Findings, SharedFinding},
    matrix::{FamilySet, Matrix, PairState, Row, family_set},
    report::{AuditReport, Parts},
    units::short,
};
use crate::{
    clock,
    diagnose::{Diagnostic, Rule, Severity},
    forwarding::Direction,
    model::{Cluster, ConfigPath, Family, NextHopKind, Node, OperatingSystem},
    record::Commit,
    render::Locator,
    text::{ShellCommand, Untrusted, count, list},
};

/// The number of names in a message.
pub(super) const NAMES: usize = 6;

/// How much older than the newest snapshot another one may be.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Judges the cluster by what was found in its snapshots.
#[must_use]
pub fn conclude(auditor: &Auditor<'_>, sightings: Vec<Sighting>) -> AuditReport {
    let cluster = &auditor.loaded.cluster;
    let mut conclusion = Conclusion {
        auditor,
        cluster,
        nodes: (0..cluster.nodes.len()).map(|_| None).collect(),
        findings: Findings::default(),
        holders: HashMap::new(),
        ambiguous: HashSet::new(),
        pairs: HashMap::new(),
    };
    conclusion.sort(sightings);
    conclusion.missing_snapshots();
    conclusion.old_snapshots();
    conclusion.configurations();
    conclusion.changes();
    conclusion.addresses();
    conclusion.neighbors();
    conclusion.single_nodes();
    let matrix = conclusion.matrix();
    conclusion.one_way(&matrix);
    let Conclusion { nodes, findings, .. } = conclusion;
    let (findings, locator) = (findings.sorted(), Locator::new(&auditor.loaded.document));
    AuditReport::new(Parts { auditor, nodes: &nodes, findings, matrix: &matrix, locator: &locator })
}

/// A machine, by its index among the nodes, or by its name if it is not one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum AddressOwner {
    Node(u32),
    Stranger(Untrusted),
}

struct Conclusion<'a> {
    auditor: &'a Auditor<'a>,
    cluster: &'a Cluster,
    /// What is known about each node.
    nodes: Vec<Option<Box<Examined>>>,
    findings: Findings,
    /// The machines that have an address.
    holders: HashMap<IpAddr, BTreeSet<AddressOwner>>,
    /// The addresses that several machines have.
    ambiguous: HashSet<IpAddr>,
    /// What happens to packets from the pods of a node to those of another, as far as only several snapshots together tell.
    pairs: HashMap<(u32, u32), PairState>,
}

impl Conclusion<'_> {
    fn name(&self, node: u32) -> &Untrusted {
        &self.cluster.nodes[node as usize].name
    }

    fn names(&self, nodes: &[u32]) -> String {
        let names: Vec<&Untrusted> = nodes.iter().map(|node| self.name(*node)).collect();
        list(&names, NAMES)
    }

    fn machine(&self, machine: &AddressOwner) -> String {
        match machine {
            AddressOwner::Node(node) => self.name(*node).to_string(),
            AddressOwner::Stranger(name) if self.cluster.node(name.as_raw()).is_some() => name.to_string(),
            AddressOwner::Stranger(name) => format!("{name} (not in the configuration)"),
        }
    }

    /// Iterates over the nodes with a snapshot.
    fn examined(&self) -> impl Iterator<Item = (u32, &Examined)> {
        self.nodes.iter().flatten().map(|examined| (short(examined.index), &**examined))
    }

    /// Assigns the snapshots to the nodes.
    fn sort(&mut self, sightings: Vec<Sighting>) {
        let mut unusable = Vec::new();
        let mut claims: BTreeMap<usize, Vec<Examined>> = BTreeMap::new();
        for sighting in sightings {
            match sighting {
                Sighting::Node(examined) => claims.entry(examined.index).or_default().push(*examined),
                Sighting::Stranger { snapshot, hostname, managed, addresses } => {
                    let name = hostname.unwrap_or_else(|| snapshot.clone());
                    self.add_holder(addresses, &AddressOwner::Stranger(name.clone()));
                    let still = match managed {
                        0 => String::new(),
                        number => format!(" but has {}", count(number, "managed route")),
                    };
                    let mut finding = SharedFinding::new(
                        Rule::UnknownMachine,
                        format!("{snapshot}: machine {name} is not in the configuration{still}"),
                        Vec::new(),
                    )
                    .with_remedy("if it has left the cluster, run `hostgw destroy` on it; otherwise, add it to the configuration");
                    finding.machines.push(name);
                    self.findings.push(finding);
                }
                Sighting::Unusable { snapshot, error } => unusable.push((snapshot, error)),
            }
        }
        for claims in claims.into_values() {
            self.take(claims);
        }
        for (snapshot, error) in unusable {
            let mut finding =
                SharedFinding::new(Rule::SnapshotUnusable, error.message.to_string(), Vec::new());
            finding.remedy = error.hint.map(|hint| hint.to_string());
            finding.files.push(snapshot);
            self.findings.push(finding);
        }
    }

    fn add_holder(&mut self, addresses: impl IntoIterator<Item = IpAddr>, owner: &AddressOwner) {
        for address in addresses {
            self.holders.entry(address).or_default().insert(owner.clone());
        }
    }

    /// Takes the snapshots that are from one node. If they are from several machines, the node is the one with its name. Of
    /// the snapshots of one machine, the newest counts.
    fn take(&mut self, mut claims: Vec<Examined>) {
        let order = |examined: &Examined| (self.identity(examined), clock::parse(&examined.taken_at));
        claims.sort_by_key(|examined| std::cmp::Reverse(order(examined)));
        let mut claims = claims.into_iter();
        let Some(chosen) = claims.next() else { return };
        let node = short(chosen.index);
        let name = self.name(node).clone();
        self.add_holder(chosen.addresses.iter().copied(), &AddressOwner::Node(node));
        for other in claims {
            let (snapshot, kept) = (&other.snapshot, &chosen.snapshot);
            if is_same_machine(&other, &chosen) {
                self.findings.push(
                    SharedFinding::new(
                        Rule::SnapshotTwice,
                        format!("{snapshot} and {kept} are both from node {name}; ignoring the older one"),
                        vec![node],
                    )
                    .with_remedy("remove the older one"),
                );
                continue;
            }
            // Machines with the same hostname are told apart by their snapshots.
            let hostname =
                other.hostname.as_ref().filter(|hostname| Some(*hostname) != chosen.hostname.as_ref());
            let machine = hostname.filter(|hostname| **hostname != name).unwrap_or(snapshot).clone();
            self.add_holder(other.addresses.iter().copied(), &AddressOwner::Stranger(machine.clone()));
            let finding = SharedFinding::new(
                Rule::SnapshotTwice,
                format!(
                    "{snapshot} and {kept} are from different machines, but both match node {name}; ignoring {snapshot}"
                ),
                vec![node],
            );
            self.findings.push(
                SharedFinding { severity: Severity::Error, machines: vec![machine], ..finding }
                    .with_remedy("give each machine its own node, address and hostname"),
            );
        }
        let place = chosen.index;
        self.nodes[place] = Some(Box::new(chosen));
    }

    /// Returns how well a machine identifies as its node; the greater, the better.
    fn identity(&self, examined: &Examined) -> [bool; 4] {
        let node = &self.cluster.nodes[examined.index];
        let host = |name: &str| name.split('.').next().unwrap_or(name).to_lowercase();
        let is_named = |hostname: &Untrusted| host(hostname.as_raw()) == host(node.name.as_raw());
        [
            examined.applied_node.as_ref() == Some(&node.name),
            examined.hostname.as_ref().is_some_and(is_named),
            examined.applied.is_some(),
            node.pod_gateways().any(|gateway| examined.addresses.contains(&gateway)),
        ]
    }

    fn missing_snapshots(&mut self) {
        let missing: Vec<u32> =
            (0..self.nodes.len()).filter(|index| self.nodes[*index].is_none()).map(short).collect();
        if missing.is_empty() {
            return;
        }
        let collect = self.cluster.nodes.iter().any(|node| node.os == OperatingSystem::Windows);
        let windows = if collect { " (on Windows: the script from `hostgw render --collect`)" } else { "" };
        let it = if missing.len() == 1 { "it" } else { "each of them" };
        self.findings.push(
            SharedFinding::new(Rule::NoSnapshot, "no snapshot".to_owned(), missing)
                .with_remedy(format!("run `hostgw snapshot` on {it}{windows}, then audit again")),
        );
    }

    /// Reports snapshots much older than the newest, and those whose age is unknown.
    fn old_snapshots(&mut self) {
        let without_time = self.examined().filter(|(_, it)| clock::parse(&it.taken_at).is_none());
        let without_time: Vec<(u32, Untrusted)> =
            without_time.map(|(node, it)| (node, it.taken_at.as_str().into())).collect();
        for (node, text) in without_time {
            let message = format!("takenAt of the snapshot is not a time: {text}; its age is unknown");
            self.findings.push(
                SharedFinding::new(Rule::SnapshotIncomplete, message, vec![node])
                    .with_remedy("take the snapshot again with `hostgw snapshot`"),
            );
        }
        let times: Vec<(u32, u64)> =
            self.examined().filter_map(|(node, it)| Some((node, clock::parse(&it.taken_at)?))).collect();
        let newest = times.iter().map(|(_, at)| *at).max().unwrap_or_default();
        let is_old = |(_, at): &&(u32, u64)| newest - at > MAX_AGE.as_secs();
        let old: Vec<u32> = times.iter().filter(is_old).map(|(node, _)| *node).collect();
        if !old.is_empty() {
            let message = "snapshot more than an hour older than the newest".to_owned();
            self.findings.push(SharedFinding::new(Rule::SnapshotOld, message, old).with_remedy(
                "take all snapshots at about the same time: old ones may contradict the others",
            ));
        }
    }

    /// Reports nodes on which another version of the configuration was applied last, or none. An apply that changes nothing
    /// leaves no record, so these nodes may match the configuration anyway.
    fn configurations(&mut self) {
        let mut others: BTreeMap<(&AppliedConfig, bool), Vec<u32>> = BTreeMap::new();
        let mut never: BTreeMap<bool, Vec<u32>> = BTreeMap::new();
        for examined in self.nodes.iter().flatten() {
            let is_same = examined.is_planned && examined.changes.is_empty();
            let node = short(examined.index);
            match &examined.applied {
                Some(applied) if applied.hash != self.auditor.hash.as_str() => {
                    others.entry((applied, is_same)).or_default().push(node);
                }
                // The script for Windows records no configuration.
                None if !self.is_windows(node) => never.entry(is_same).or_default().push(node),
                Some(_) | None => {}
            }
        }
        let mut found = Vec::new();
        for ((AppliedConfig { hash, commit }, is_same), nodes) in others {
            let commit = commit.as_ref().map_or_else(String::new, |Commit { id, dirty }| {
                let dirty = if *dirty { ", with uncommitted changes" } else { "" };
                format!(" (commit {}{dirty})", id.truncated(12))
            });
            let message = format!("last applied a different configuration, {}{commit}", hash.truncated(12));
            let remedy = match is_same {
                true => "nothing to do: both configurations have the same effect there",
                false => "run `hostgw apply` with this configuration",
            };
            found.push(SharedFinding::new(Rule::OtherConfiguration, message, nodes).with_remedy(remedy));
        }
        for (is_same, nodes) in never {
            let remedy = match is_same {
                true => {
                    "nothing to do now; make sure that something restores the state at boot: see `hostgw help boot`"
                }
                false => "run `hostgw apply`, or the agent: see `hostgw help boot`",
            };
            let message = "no apply recorded since boot".to_owned();
            found.push(SharedFinding::new(Rule::NeverApplied, message, nodes).with_remedy(remedy));
        }
        self.findings.extend(found);
    }

    /// Differences from the configuration. Nodes with the same difference share a finding.
    fn changes(&mut self) {
        let mut missing: BTreeMap<&[u32], Vec<u32>> = BTreeMap::new();
        let mut others: BTreeMap<(Rule, &str), Vec<u32>> = BTreeMap::new();
        let nodes: Vec<(u32, &Changes)> =
            self.nodes.iter().flatten().map(|it| (short(it.index), &it.changes)).collect();
        for (node, changes) in nodes {
            if !changes.missing.is_empty() {
                missing.entry(&changes.missing).or_default().push(node);
            }
            let Changes { different, other_routes, leftovers, nat, settings, conflicts, .. } = changes;
            let texts = different
                .iter()
                .map(|(_, text)| (Rule::RouteDiffers, text))
                .chain(other_routes.iter().map(|text| (Rule::RouteDiffers, text)))
                .chain(leftovers.iter().map(|text| (Rule::RouteLeftOver, text)))
                .chain(nat.iter().map(|text| (Rule::NatDiffers, text)))
                .chain(settings.iter().map(|text| (Rule::SysctlDiffers, text)))
                .chain(conflicts.iter().map(|text| (Rule::InConflict, text)));
            for (rule, text) in texts {
                others.entry((rule, text)).or_default().push(node);
            }
        }
        let mut found = Vec::new();
        for (peers, nodes) in missing {
            let others = |node: &u32| {
                let has_pods = |(index, other): &(usize, &Node)| other.has_pods() && *index != *node as usize;
                self.cluster.nodes.iter().enumerate().filter(has_pods).count()
            };
            let message = match peers {
                [only] => format!("no route to the pods of {}", self.name(*only)),
                several if nodes.iter().all(|node| several.len() >= others(node)) => {
                    format!("no routes to the pods of the other {} nodes", several.len())
                }
                several => {
                    format!("no routes to the pods of {} nodes: {}", several.len(), self.names(several))
                }
            };
            found.push((Rule::RouteMissing, message, nodes));
        }
        // Routes that differ on the same nodes are one finding.
        let mut together: BTreeMap<(Rule, Vec<u32>), Vec<&str>> = BTreeMap::new();
        for ((rule, text), nodes) in others {
            together.entry((rule, nodes)).or_default().push(text);
        }
        for ((rule, nodes), texts) in together {
            let message = match (rule, &texts[..]) {
                (Rule::RouteLeftOver, [only]) => format!("leftover route `{only}`, not in the configuration"),
                (Rule::RouteLeftOver, several) => {
                    format!(
                        "{}, not in the configuration: {}",
                        count(several.len(), "leftover route"),
                        list(several, 3)
                    )
                }
                (Rule::InConflict, several) => format!("conflict: {}", list(several, 3)),
                (_, [only]) => (*only).to_owned(),
                (_, several) => format!("{} differences: {}", several.len(), list(several, 3)),
            };
            found.push((rule, message, nodes));
        }
        for (rule, message, nodes) in found {
            let has_windows = nodes.iter().any(|node| self.is_windows(*node));
            let it = if nodes.len() == 1 { "the node" } else { "each of these nodes" };
            let remedy = match (rule, has_windows) {
                (Rule::InConflict, _) => format!(
                    "review the conflict with `hostgw plan` on {it}, then remove the foreign object, or take it over with `hostgw apply --adopt`"
                ),
                (_, false) => format!("run `hostgw apply` on {it}"),
                (_, true) => {
                    format!("run `hostgw apply` on {it}, or the script from `hostgw render` on Windows")
                }
            };
            self.findings.push(SharedFinding::new(rule, message, nodes).with_remedy(remedy));
        }
    }

    fn is_windows(&self, node: u32) -> bool {
        self.cluster.nodes[node as usize].os == OperatingSystem::Windows
    }

    /// The addresses that other nodes send packets to: those of nodes that do not have them, and those of several machines.
    fn addresses(&mut self) {
        let mut found = Vec::new();
        for (node, examined) in self.examined() {
            for family in Family::ALL {
                let Some(address) = self.cluster.nodes[examined.index].addresses.get(family) else {
                    continue;
                };
                if self.holds(node, *address) {
                    continue;
                }
                let others: Vec<String> =
                    self.holders.get(address).into_iter().flatten().map(|it| self.machine(it)).collect();
                let elsewhere = match others.is_empty() {
                    true => String::new(),
                    false => format!("; it is on {}", list(&others, 2)),
                };
                let own: Vec<&IpAddr> =
                    examined.egress_addresses.iter().filter(|own| Family::from(**own) == family).collect();
                let instead = match own.is_empty() {
                    true => String::new(),
                    false => format!(" (the egress interface has {})", list(&own, 2)),
                };
                let is_next_hop = self.is_next_hop(examined.index, family);
                let effect = if is_next_hop { ": packets to its pods are lost" } else { "" };
                let finding = SharedFinding::new(
                    Rule::AddressMoved,
                    format!("its address {address} is not on this machine{instead}{elsewhere}{effect}"),
                    vec![node],
                );
                let path = ConfigPath::root().known_key("nodes").index(examined.index).known_key("address");
                found.push(SharedFinding {
                    path: Some(path),
                    severity: if is_next_hop { Severity::Error } else { Severity::Warning },
                    remedy: Some(
                        "correct the address in the configuration, and run `hostgw apply` on every node; or give the machine this address"
                            .to_owned(),
                    ),
                    ..finding
                });
            }
        }
        let mut twice: Vec<(&IpAddr, &BTreeSet<AddressOwner>)> = self
            .holders
            .iter()
            .filter(|(address, machines)| machines.len() > 1 && is_global(**address))
            .collect();
        twice.sort_by_key(|(address, _)| **address);
        let ambiguous = twice.iter().map(|(address, _)| **address).collect();
        for (address, machines) in twice {
            let nodes = machines.iter().filter_map(|machine| match machine {
                AddressOwner::Node(node) => Some(*node),
                AddressOwner::Stranger(_) => None,
            });
            let names: Vec<String> = machines.iter().map(|machine| self.machine(machine)).collect();
            let message =
                format!("{} machines have the address {address}: {}", machines.len(), list(&names, NAMES));
            found.push(
                SharedFinding::new(Rule::AddressTwice, message, nodes.collect())
                    .with_remedy("keep it on one machine only: packets reach an arbitrary one of them"),
            );
        }
        self.ambiguous = ambiguous;
        self.findings.extend(found);
    }

    fn holds(&self, node: u32, address: IpAddr) -> bool {
        self.holders.get(&address).is_some_and(|machines| machines.contains(&AddressOwner::Node(node)))
    }

    /// Returns whether other nodes use the node's own address as the next hop to its pods.
    fn is_next_hop(&self, index: usize, family: Family) -> bool {
        let node = &self.cluster.nodes[index];
        node.pods.has(family) && self.cluster.next_hop_of(node, family) == NextHopKind::NodeAddress
    }

    /// Nodes must agree on which machine answers for an address, and static entries must be those of its node.
    fn neighbors(&mut self) {
        let mut seen: BTreeMap<IpAddr, BTreeMap<&Untrusted, Vec<u32>>> = BTreeMap::new();
        let mut wrong: BTreeMap<(IpAddr, &Untrusted, &Untrusted, u32), Vec<u32>> = BTreeMap::new();
        let owners = self.owners();
        let owner_of = |address: &IpAddr| {
            let owner = self.nodes.get(*owners.get(address)?)?.as_ref()?;
            (!owner.hardware.is_empty()).then_some(&**owner)
        };
        for (node, examined) in self.examined() {
            for entry in &examined.neighbors {
                let Some(hardware) = &entry.mac_address else { continue };
                let owner = owner_of(&entry.address).filter(|_| entry.permanent);
                match owner.filter(|owner| !owner.hardware.contains(hardware)) {
                    Some(owner) => {
                        let key = (entry.address, hardware, &entry.device, short(owner.index));
                        wrong.entry(key).or_default().push(node);
                    }
                    None => seen.entry(entry.address).or_default().entry(hardware).or_default().push(node),
                }
            }
        }
        let mut found = Vec::new();
        let mut pairs = Vec::new();
        let mut note = |nodes: &[u32], address: IpAddr, state: PairState| {
            let Some(owner) =
                owners.get(&address).filter(|owner| self.next_hops(**owner).any(|hop| hop == address))
            else {
                return;
            };
            pairs.extend(nodes.iter().map(|node| ((*node, short(*owner)), state)));
        };
        for ((address, hardware, device, owner), nodes) in wrong {
            note(&nodes, address, PairState::Lost);
            let message = format!(
                "static neighbor entry for {address} ({hardware} on {device}), but no interface of {} has this MAC address",
                self.name(owner)
            );
            let delete =
                ["ip", "neigh", "del", &address.to_string(), "dev", device.as_raw()].map(str::to_owned);
            let delete = ShellCommand::new(delete.iter().map(String::as_str));
            found.push(
                SharedFinding::new(Rule::NeighborsDiffer, message, nodes)
                    .with_remedy(format!("remove the entry with `{delete}`, or correct what sets it")),
            );
        }
        for (address, answers) in seen.into_iter().filter(|(_, answers)| answers.len() > 1) {
            let owner = owner_of(&address);
            let is_right =
                |hardware: &Untrusted| owner.is_some_and(|owner| owner.hardware.contains(hardware));
            let is_known = answers.keys().any(|hardware| is_right(hardware));
            // If no snapshot tells which one is right, assume that the majority is.
            let mut answers: Vec<(&Untrusted, Vec<u32>)> = answers.into_iter().collect();
            answers.sort_by_key(|(hardware, nodes)| (!is_right(hardware), std::cmp::Reverse(nodes.len())));
            let texts: Vec<String> = answers
                .iter()
                .map(|(hardware, nodes)| format!("{hardware} ({})", self.names(nodes)))
                .collect();
            let others = answers.iter().filter(|(hardware, _)| !is_right(hardware));
            let others = others.skip(usize::from(!is_known));
            let nodes: Vec<u32> = others.flat_map(|(_, nodes)| nodes.iter().copied()).collect();
            if nodes.is_empty() {
                continue;
            }
            note(&nodes, address, if is_known { PairState::Lost } else { PairState::Unknown });
            let right = match owner.filter(|_| is_known) {
                Some(owner) => format!("; {} has {}", self.name(short(owner.index)), answers[0].0),
                None => String::new(),
            };
            let message = format!(
                "neighbor tables disagree about {address} ({} machines): {}{right}",
                answers.len(),
                list(&texts, 3)
            );
            found.push(SharedFinding::new(Rule::NeighborsDiffer, message, nodes).with_remedy(
                "find the machine that also answers for this address; if the address has just moved, take the snapshots again",
            ));
        }
        self.add_pairs(pairs);
        self.findings.extend(found);
    }

    fn add_pairs(&mut self, pairs: Vec<((u32, u32), PairState)>) {
        for (pair, state) in pairs {
            let known = self.pairs.entry(pair).or_insert(state);
            *known = state.max(*known);
        }
    }

    /// Returns the indexes of the nodes by their addresses and pod gateways.
    fn owners(&self) -> HashMap<IpAddr, usize> {
        let nodes = self.cluster.nodes.iter().enumerate();
        let addresses = nodes.flat_map(|(index, node)| {
            let own = node.addresses.iter().map(|(_, address)| *address);
            own.chain(node.pod_gateways()).map(move |address| (address, index))
        });
        addresses.collect()
    }

    /// Iterates over the addresses of a node to which other nodes send the packets for its pods.
    fn next_hops(&self, index: usize) -> impl Iterator<Item = IpAddr> + '_ {
        let node = &self.cluster.nodes[index];
        node.pods.families().flat_map(move |family| match self.cluster.next_hop_of(node, family) {
            NextHopKind::PodGateway => node.pod_gateways_of(family).collect(),
            NextHopKind::NodeAddress => node.addresses.get(family).copied().into_iter().collect(),
            NextHopKind::Router(_) => Vec::new(),
        })
    }

    /// What is wrong with single nodes. Consequences of a difference from the configuration are left out.
    fn single_nodes(&mut self) {
        let mut findings = std::mem::take(&mut self.findings);
        for (node, examined) in self.examined() {
            for fault in &examined.faults {
                findings.add(node, fault.finding());
            }
            let is_told = |diagnostic: &&Diagnostic| diagnostic.rule == Rule::AddressElsewhere;
            for diagnostic in examined.findings.iter().filter(|found| !is_told(found)) {
                findings.add(node, diagnostic.clone());
            }
        }
        self.findings = findings;
    }

    /// Judges every pair of nodes: what the first does with packets from its pods, whether their next hop is the second, and
    /// what the second does with them.
    fn matrix(&self) -> Matrix {
        let unknown = Row::UNKNOWN;
        let rows: Vec<&Row> =
            self.nodes.iter().map(|node| node.as_ref().map_or(&unknown, |examined| &examined.row)).collect();
        let arrives: Vec<PairState> = (0..self.nodes.len()).map(|index| self.arrival(index)).collect();
        let families: Vec<FamilySet> =
            self.cluster.nodes.iter().map(|node| family_set(node.pods.families())).collect();
        Matrix::new(rows.len(), |from, to| {
            let shared = [0, 1].map(|family| families[from][family] && families[to][family]);
            if from == to || shared == [false, false] {
                return PairState::Nothing;
            }
            let out = rows[from].get(to, Direction::Out, shared);
            let known = self.pairs.get(&(short(from), short(to))).copied().unwrap_or(PairState::Works);
            out.max(rows[to].get(from, Direction::In, shared)).max(arrives[to]).max(known)
        })
    }

    /// Returns what happens to packets that other nodes send to the next hop of a node.
    fn arrival(&self, index: usize) -> PairState {
        if self.nodes.get(index).is_none_or(Option::is_none) {
            return PairState::Unknown;
        }
        let (node, of) = (short(index), &self.cluster.nodes[index]);
        let mut hops = Family::ALL.into_iter().filter(|family| self.is_next_hop(index, *family));
        let is_lost =
            hops.any(|family| of.addresses.get(family).is_some_and(|address| !self.holds(node, *address)));
        if is_lost {
            return PairState::Lost;
        }
        let is_ambiguous = self.next_hops(index).any(|hop| self.ambiguous.contains(&hop));
        if is_ambiguous { PairState::Unknown } else { PairState::Works }
    }

    /// Packets that pass in one direction only.
    fn one_way(&mut self, matrix: &Matrix) {
        let size = self.nodes.len();
        let is_lost = |from: usize, to: usize| {
            matrix.get(from, to) == PairState::Lost
                && matches!(matrix.get(to, from), PairState::Works | PairState::Diverted)
        };
        let mut by_peers: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
        for from in 0..size {
            let peers: Vec<u32> = (0..size).filter(|to| is_lost(from, *to)).map(short).collect();
            if !peers.is_empty() {
                by_peers.entry(peers).or_default().push(short(from));
            }
        }
        for (peers, nodes) in by_peers {
            let message = format!(
                "one-way traffic: packets from the pods of {} ({}) arrive, but packets to them are lost",
                count(peers.len(), "node"),
                self.names(&peers)
            );
            let example = self.name(peers[0]).as_raw().to_owned();
            let trace = ShellCommand::new(["hostgw", "explain", "POD", "--state", "SNAPSHOT"]);
            self.findings.push(SharedFinding::new(Rule::OneWay, message, nodes).with_remedy(format!(
                "fix the other findings for these nodes; to trace a packet to a pod on {example}, run `{trace}`"
            )));
        }
    }
}

/// Returns whether two snapshots that match one node are from the same machine.
fn is_same_machine(one: &Examined, other: &Examined) -> bool {
    let hardware = [one, other].map(|examined| examined.egress_hardware.as_ref());
    let hostnames = [one, other].map(|examined| examined.hostname.as_ref());
    let nodes = [one, other].map(|examined| examined.applied_node.as_ref());
    let is_same = |[one, other]: [Option<&Untrusted>; 2]| Some(one? == other?);
    match (is_same(hardware), is_same(hostnames)) {
        (Some(true), _) => true,
        // A machine can get another network card.
        (Some(false), is_same_name) => is_same_name == Some(true) && is_same(nodes) == Some(true),
        (None, Some(false)) => false,
        (None, _) => one.egress_addresses == other.egress_addresses,
    }
}
