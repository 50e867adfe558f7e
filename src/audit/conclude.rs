//! The findings about the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use super::{
    changes::Changes,
    examine::{AppliedConfig, Auditor, Examined, Sighting, is_global, share_family},
    finding::{Findings, SharedFinding},
    matrix::{Matrix, PairState, Row},
    report::{AuditReport, Parts},
    units::short,
};
use crate::{
    clock,
    diagnose::{Diagnostic, Rule, Severity},
    forwarding::Direction,
    model::{Cluster, ConfigPath, Family, NextHopKind, Node, OperatingSystem},
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
            AddressOwner::Stranger(name) => format!("{name} (not in the configuration)"),
        }
    }

    /// Iterates over the nodes with a snapshot.
    fn examined(&self) -> impl Iterator<Item = (u32, &Examined)> {
        self.nodes.iter().flatten().map(|examined| (short(examined.index), &**examined))
    }

    /// Assigns the snapshots to the nodes. The newest of several counts.
    fn sort(&mut self, sightings: Vec<Sighting>) {
        let mut unusable = Vec::new();
        for sighting in sightings {
            match sighting {
                Sighting::Node(examined) => self.take(examined),
                Sighting::Stranger { snapshot, hostname, managed, addresses } => {
                    let name = hostname.unwrap_or_else(|| snapshot.clone());
                    for address in addresses {
                        self.holders.entry(address).or_default().insert(AddressOwner::Stranger(name.clone()));
                    }
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
        for (snapshot, error) in unusable {
            let mut finding =
                SharedFinding::new(Rule::SnapshotUnusable, error.message.to_string(), Vec::new());
            finding.remedy = error.hint.map(|hint| hint.to_string());
            finding.files.push(snapshot);
            self.findings.push(finding);
        }
    }

    fn take(&mut self, examined: Box<Examined>) {
        let node = short(examined.index);
        for address in &examined.addresses {
            self.holders.entry(*address).or_default().insert(AddressOwner::Node(node));
        }
        let name = self.name(node).clone();
        let Some(place) = self.nodes.get_mut(examined.index) else { return };
        let Some(other) = place else {
            *place = Some(examined);
            return;
        };
        let is_same_machine = other.egress_addresses == examined.egress_addresses;
        let (older, newer) = match clock::parse(&examined.taken_at) >= clock::parse(&other.taken_at) {
            true => (other.snapshot.clone(), examined.snapshot.clone()),
            false => (examined.snapshot.clone(), other.snapshot.clone()),
        };
        if newer == examined.snapshot {
            *place = Some(examined);
        }
        let finding = SharedFinding::new(
            Rule::SnapshotTwice,
            format!("{older} and {newer} are both from node {name}; ignoring the older one"),
            vec![node],
        );
        self.findings.push(match is_same_machine {
            true => finding.with_remedy("remove the older one"),
            false => SharedFinding { severity: Severity::Error, ..finding }.with_remedy(
                "they are from different machines: give each machine its own node, address and hostname",
            ),
        });
    }

    fn missing_snapshots(&mut self) {
        let missing: Vec<u32> =
            (0..self.nodes.len()).filter(|index| self.nodes[*index].is_none()).map(short).collect();
        if missing.is_empty() {
            return;
        }
        let collect = self.cluster.nodes.iter().any(|node| node.os == OperatingSystem::Windows);
        let windows = if collect { " (on Windows: the script from `hostgw render --collect`)" } else { "" };
        self.findings.push(
            SharedFinding::new(Rule::NoSnapshot, "no snapshot".to_owned(), missing)
                .with_remedy(format!("run `hostgw snapshot` on it{windows}, then audit again")),
        );
    }

    /// Reports snapshots much older than the newest.
    fn old_snapshots(&mut self) {
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
            let (node, is_same) = (short(examined.index), examined.changes.is_empty());
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
            let commit = commit.as_ref().map_or_else(String::new, |(id, is_dirty)| {
                let dirty = if *is_dirty { ", with uncommitted changes" } else { "" };
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
                    format!("no routes to the pods of any other node ({})", several.len())
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
            let remedy = match (rule, has_windows) {
                (Rule::InConflict, _) => {
                    "review the conflict with `hostgw plan` on the node, then remove the foreign object, or take it over with `hostgw apply --adopt`"
                }
                (_, false) => "run `hostgw apply` on the node",
                (_, true) => "run `hostgw apply` on the node, or the script from `hostgw render` on Windows",
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

    /// Nodes must agree on which machine answers for an address.
    fn neighbors(&mut self) {
        let mut seen: BTreeMap<IpAddr, BTreeMap<&Untrusted, Vec<u32>>> = BTreeMap::new();
        for (node, examined) in self.examined() {
            for (address, hardware) in &examined.neighbors {
                seen.entry(*address).or_default().entry(hardware).or_default().push(node);
            }
        }
        let mut found = Vec::new();
        for (address, answers) in seen.into_iter().filter(|(_, answers)| answers.len() > 1) {
            // Assume that the majority is right.
            let mut answers: Vec<(&Untrusted, Vec<u32>)> = answers.into_iter().collect();
            answers.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
            let texts: Vec<String> = answers
                .iter()
                .map(|(hardware, nodes)| format!("{hardware} ({})", self.names(nodes)))
                .collect();
            let nodes = answers.iter().skip(1).flat_map(|(_, nodes)| nodes.iter().copied()).collect();
            let message = format!(
                "neighbor tables disagree about {address} ({} machines): {}",
                answers.len(),
                list(&texts, 3)
            );
            found.push(SharedFinding::new(Rule::NeighborsDiffer, message, nodes).with_remedy(
                "find the machine that also answers for this address; if the address has just moved, take the snapshots again",
            ));
        }
        self.findings.extend(found);
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
        let has_pods: Vec<bool> = self.cluster.nodes.iter().map(|node| node.has_pods()).collect();
        let is_single_family = self.cluster.prefixes.families().count() == 1;
        Matrix::new(rows.len(), |from, to| {
            let (one, other) = (&self.cluster.nodes[from], &self.cluster.nodes[to]);
            let is_judged = from != to
                && has_pods[from]
                && has_pods[to]
                && (is_single_family || share_family(one, other));
            if !is_judged {
                return PairState::Nothing;
            }
            let out = rows[from].get(to, Direction::Out);
            out.max(rows[to].get(from, Direction::In)).max(arrives[to])
        })
    }

    /// Returns what happens to packets that other nodes send to the next hop of a node.
    fn arrival(&self, index: usize) -> PairState {
        let Some(Some(examined)) = self.nodes.get(index) else { return PairState::Unknown };
        let (node, of) = (short(index), &self.cluster.nodes[index]);
        let mut hops = Family::ALL.into_iter().filter(|family| self.is_next_hop(index, *family));
        let is_lost =
            hops.any(|family| of.addresses.get(family).is_some_and(|address| !self.holds(node, *address)));
        let lacks_gateway = examined.findings.iter().any(|found| found.rule == Rule::NoPodGateway);
        if is_lost || lacks_gateway { PairState::Lost } else { PairState::Works }
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
