//! The nodes of a cluster according to a list, and the errors and warnings about them.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::IpAddr,
};

use super::{
    list::NodeList,
    natural::natural_order,
    networks::{AddressCensus, strangers},
    node::{ImportedNode, ListedNode},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, OperatingSystem},
    text::{Untrusted, count, list},
};

/// The number of names in a message.
const SHOWN: usize = 5;

/// The nodes of a cluster.
#[derive(Debug)]
pub(super) struct Survey {
    /// All nodes, in natural order.
    pub listed: Vec<ListedNode>,
    /// The nodes with pods, in natural order.
    pub nodes: Vec<ImportedNode>,
    /// The nodes without a pod CIDR, in natural order.
    pub without_pods: Vec<ImportedNode>,
    /// The nodes that lost pod CIDRs of a family without a cluster prefix.
    restricted: Vec<(Untrusted, Family)>,
    /// The warnings so far.
    pub findings: Vec<Diagnostic>,
}

/// How an update affects a node, which determines the warnings that are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relevance {
    /// The node is new, so every warning is of interest.
    New,
    /// Some values of the node change.
    Changed,
    /// Nothing changes: warnings were printed before, and the configuration may have been corrected by hand.
    Known,
}

/// Formats some names for a message.
pub(super) fn names<'a>(nodes: impl IntoIterator<Item = &'a Untrusted>) -> String {
    list(&nodes.into_iter().collect::<Vec<_>>(), SHOWN)
}

impl Survey {
    /// Examines the nodes of a list.
    ///
    /// # Errors
    /// Returns every error in the list.
    pub fn new(list: NodeList) -> Result<Self, Vec<Diagnostic>> {
        let others = list.others();
        let listed = unique(list.nodes)?;
        let mut errors = Vec::new();
        for node in &listed {
            for error in &node.errors {
                let message = match node.name.is_empty() {
                    true => format!("a node cannot be identified: {error}"),
                    false => format!("node {}: {error}", node.name),
                };
                let remedy = "correct the list, or remove the node from it";
                errors.push(Diagnostic::new(Rule::NodeUnreadable, message).with_remedy(remedy));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let census = AddressCensus::new(&listed);
        let imported = |node: &ListedNode| ImportedNode {
            name: node.name.clone(),
            os: node.system().unwrap_or(OperatingSystem::Linux),
            is_os_assumed: node.system().is_none(),
            pod_cidrs: node.pod_cidrs.clone(),
            addresses: Family::ALL.into_iter().filter_map(|family| census.choose(node, family)).collect(),
            candidates: node.internal.clone(),
        };
        let (nodes, without_pods) =
            listed.iter().map(imported).partition(|node: &ImportedNode| !node.pod_cidrs.is_empty());
        Ok(Self {
            listed,
            nodes,
            without_pods,
            restricted: Vec::new(),
            findings: others.into_iter().collect(),
        })
    }

    /// Leaves out the pod CIDRs of other families, and the addresses of other families from nodes that have some of these.
    pub fn restrict(&mut self, families: &[Family]) {
        let is_in = |family: Family| families.contains(&family);
        for node in &mut self.nodes {
            let lost = node.pod_cidrs.iter().copied().map(Family::from).find(|family| !is_in(*family));
            self.restricted.extend(lost.map(|family| (node.name.clone(), family)));
            node.pod_cidrs.retain(|cidr| is_in((*cidr).into()));
        }
        let (nodes, lost) =
            std::mem::take(&mut self.nodes).into_iter().partition(|node| !node.pod_cidrs.is_empty());
        self.nodes = nodes;
        self.without_pods.extend::<Vec<ImportedNode>>(lost);
        self.without_pods.sort_by(|one, other| natural_order(one.name.as_raw(), other.name.as_raw()));
        for node in self.nodes.iter_mut().chain(&mut self.without_pods) {
            if node.addresses.iter().any(|address| is_in((*address).into())) {
                node.addresses.retain(|address| is_in((*address).into()));
            }
        }
    }

    /// Adds the warnings about the nodes with pods that are of interest.
    pub fn examine(&mut self, relevance: impl Fn(&Untrusted) -> Relevance) {
        let mut findings = Vec::new();
        families(&self.restricted, &mut findings);
        let imported: HashMap<&Untrusted, &ImportedNode> =
            self.nodes.iter().map(|node| (&node.name, node)).collect();
        let found: Vec<ExaminedNode<'_>> = self
            .listed
            .iter()
            .filter_map(|node| {
                Some(ExaminedNode {
                    node,
                    imported: *imported.get(&node.name)?,
                    is_new: relevance(&node.name) == Relevance::New,
                })
            })
            .filter(|examined| relevance(&examined.node.name) != Relevance::Known)
            .collect();
        systems(&found, &mut findings);
        addresses(&found, &mut findings);
        windows(&self.nodes, &relevance, &mut findings);
        flannel(&found, &mut findings);
        assigners(&found, &mut findings);
        self.findings.extend(findings);
    }
}

/// A node to warn about.
struct ExaminedNode<'a> {
    node: &'a ListedNode,
    imported: &'a ImportedNode,
    /// Whether the configuration does not have it yet.
    is_new: bool,
}

/// Warns of pod CIDRs that the cluster prefix has no family for. They may be new although the configuration does not change.
fn families(restricted: &[(Untrusted, Family)], findings: &mut Vec<Diagnostic>) {
    for family in Family::ALL {
        let affected: Vec<&Untrusted> =
            restricted.iter().filter(|(_, lost)| *lost == family).map(|(name, _)| name).collect();
        if !affected.is_empty() {
            let message = format!(
                "the {family} pod CIDRs of {} ({}) are left out, because clusterPrefix has no {family} prefix",
                count(affected.len(), "node"),
                names(affected)
            );
            let remedy = format!("add an {family} prefix to clusterPrefix to route these pods as well");
            findings.push(Diagnostic::new(Rule::FamilyLeftOut, message).with_remedy(remedy));
        }
    }
}

/// Reports names that differ only in case: Kubernetes names are in lower case, and hostgw ignores case.
pub(super) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// Sorts nodes, and removes those that are listed twice with the same values.
fn unique(listed: Vec<ListedNode>) -> Result<Vec<ListedNode>, Vec<Diagnostic>> {
    let mut known: HashMap<String, usize> = HashMap::with_capacity(listed.len());
    let mut nodes: Vec<ListedNode> = Vec::with_capacity(listed.len());
    let mut twice = Vec::new();
    for node in listed {
        match known.entry(folded(node.name.as_raw())) {
            Entry::Occupied(first) if nodes.get(*first.get()) == Some(&node) => {}
            // A missing name is reported as another error.
            Entry::Occupied(first) if !node.name.is_empty() => {
                twice.push(Untrusted::from(first.key().as_str()))
            }
            Entry::Occupied(_) => nodes.push(node),
            Entry::Vacant(entry) => {
                entry.insert(nodes.len());
                nodes.push(node);
            }
        }
    }
    nodes.sort_by(|one, other| natural_order(one.name.as_raw(), other.name.as_raw()));
    twice.sort_by(|one, other| natural_order(one.as_raw(), other.as_raw()));
    twice.dedup();
    let error = |name: Untrusted| {
        Diagnostic::new(Rule::NodeListedTwice, format!("node {name} is listed twice with different values"))
            .with_remedy(
                "get the list again with a single command; the lists of two clusters cannot be combined",
            )
    };
    if twice.is_empty() { Ok(nodes) } else { Err(twice.into_iter().map(error).collect()) }
}

/// Warns of operating systems that are unknown, or on which two sources disagree.
fn systems(nodes: &[ExaminedNode<'_>], findings: &mut Vec<Diagnostic>) {
    let unknown: Vec<&Untrusted> =
        nodes.iter().filter(|it| it.is_new && it.imported.is_os_assumed).map(|it| &it.node.name).collect();
    if !unknown.is_empty() {
        let message = format!(
            "no operating system is listed for {}: {}; assuming Linux",
            count(unknown.len(), "node"),
            names(unknown.iter().copied())
        );
        let remedy = match &*unknown {
            [_] => {
                "if it runs Windows, set `os: windows` in the file: its default pod gateway is a different address"
            }
            _ => {
                "if one of them runs Windows, set `os: windows` in the file: its default pod gateway is a different address"
            }
        };
        findings.push(Diagnostic::new(Rule::OsUncertain, message).with_remedy(remedy));
    }
    let mut disputed: BTreeMap<(&str, String, &str, String), Vec<&Untrusted>> = BTreeMap::new();
    for ExaminedNode { node, .. } in nodes {
        let Some((source, system)) = node.systems.first() else { continue };
        for (other_source, other) in node.systems.iter().filter(|(_, other)| other != system) {
            let key = (*source, system.to_string(), *other_source, other.to_string());
            disputed.entry(key).or_default().push(&node.name);
        }
    }
    for ((source, system, other_source, other), found) in disputed {
        let message = format!(
            "{source} is {system} but {other_source} is {other} on {}: {}; using {system}",
            count(found.len(), "node"),
            names(found)
        );
        let remedy = format!(
            "check the node, and correct a wrong label with `kubectl label --overwrite node NAME {}={system}`",
            label(other_source)
        );
        findings.push(Diagnostic::new(Rule::OsUncertain, message).with_remedy(remedy));
    }
}

/// The label of a source.
fn label(source: &str) -> &str {
    source.strip_prefix("label ").unwrap_or(source)
}

/// Warns of addresses that are missing, cannot be used, or were chosen from several.
fn addresses(nodes: &[ExaminedNode<'_>], findings: &mut Vec<Diagnostic>) {
    const NODE_IP: &str = "set the address with kubelet's --node-ip, or `address` in the file";
    let nodes_have =
        |number| format!("{} {}", count(number, "node"), if number == 1 { "has" } else { "have" });
    let mut found = |what: String, remedy: &str| {
        findings.push(Diagnostic::new(Rule::InternalAddress, what).with_remedy(remedy));
    };
    let unusable: Vec<String> = nodes
        .iter()
        .map(|it| it.node)
        .filter(|node| !node.unusable.is_empty())
        .map(|node| format!("{} ({})", node.name, Untrusted::from(node.unusable.join("; "))))
        .collect();
    if !unusable.is_empty() {
        let what = format!(
            "{} an InternalIP that cannot be used: {}",
            nodes_have(unusable.len()),
            list(&unusable, SHOWN)
        );
        found(what, NODE_IP);
    }
    let without: Vec<&Untrusted> = nodes
        .iter()
        .filter(|it| it.is_new && it.node.internal.is_empty() && it.node.unusable.is_empty())
        .map(|it| &it.node.name)
        .collect();
    if !without.is_empty() {
        let what = format!(
            "{} no InternalIP: {}; hostgw never uses an ExternalIP",
            nodes_have(without.len()),
            names(without.iter().copied())
        );
        found(
            what,
            "add `address` by hand: without it, hostgw recognizes these nodes only by their hostname",
        );
    }
    let several: Vec<String> = nodes
        .iter()
        .filter_map(|ExaminedNode { node, imported, .. }| {
            let is_chosen = |address: &&IpAddr| node.internal_of((**address).into()).count() > 1;
            let chosen = imported.addresses.iter().find(is_chosen)?;
            Some(format!("{} (using {chosen})", node.name))
        })
        .collect();
    if !several.is_empty() {
        let what = format!(
            "{} several InternalIPs of one address family: {}",
            nodes_have(several.len()),
            list(&several, SHOWN)
        );
        found(what, NODE_IP);
    }
}

/// Warns of Windows nodes that registered the address of a NAT network.
fn windows(
    nodes: &[ImportedNode],
    relevance: &impl Fn(&Untrusted) -> Relevance,
    findings: &mut Vec<Diagnostic>,
) {
    for (node, address) in strangers(nodes) {
        if relevance(&node.name) == Relevance::Known {
            continue;
        }
        let message = format!(
            "Windows node {} has the InternalIP {address}, which is not in the network of the other nodes",
            node.name
        );
        let remedy = "kubelet probably chose the address of a virtual switch: start it with --node-ip=ADDRESS, \
                      then import again, or correct `address` in the file";
        findings.push(Diagnostic::new(Rule::WindowsAddress, message).with_remedy(remedy));
    }
}

/// Warns if flannel encapsulates packets, or uses other addresses.
fn flannel(nodes: &[ExaminedNode<'_>], findings: &mut Vec<Diagnostic>) {
    let mut backends: BTreeMap<&str, Vec<&Untrusted>> = BTreeMap::new();
    for ExaminedNode { node, .. } in nodes {
        if let Some(flannel) = node.hints.flannel.as_ref().filter(|flannel| flannel.backend != HOST_GW) {
            backends.entry(&flannel.backend).or_default().push(&node.name);
        }
    }
    for (backend, found) in backends {
        let message = format!(
            "flannel uses its {} backend on {}, not host-gw: {}",
            Untrusted::from(backend),
            count(found.len(), "node"),
            names(found)
        );
        let remedy = "pod traffic is encapsulated now and will not be with hostgw, so all nodes must be on one link; \
                      see `hostgw help HG1113` before you apply";
        findings.push(Diagnostic::new(Rule::FlannelBackend, message).with_remedy(remedy));
    }
    let elsewhere: Vec<String> = nodes
        .iter()
        .filter_map(|ExaminedNode { node, imported, .. }| {
            let public = &node.hints.flannel.as_ref()?.public;
            let differs = |address: &&IpAddr| {
                imported.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4() && own != *address)
            };
            Some(format!("{} ({})", node.name, public.iter().find(differs)?))
        })
        .collect();
    if !elsewhere.is_empty() {
        let message = format!(
            "flannel reaches {} at an address other than the InternalIP: {}",
            count(elsewhere.len(), "node"),
            list(&elsewhere, SHOWN)
        );
        let remedy = "check which one the other nodes reach on their link, and set `address` to it";
        findings.push(Diagnostic::new(Rule::FlannelBackend, message).with_remedy(remedy));
    }
}

/// The backend of flannel that hostgw replaces.
pub(super) const HOST_GW: &str = "host-gw";

/// Warns of programs that do not have to assign pod addresses from the pod CIDRs of the API.
fn assigners(nodes: &[ExaminedNode<'_>], findings: &mut Vec<Diagnostic>) {
    let mut found: BTreeMap<&str, Vec<&Untrusted>> = BTreeMap::new();
    for ExaminedNode { node, imported, .. } in nodes {
        let Some(assigner) = &node.hints.assigner else { continue };
        if assigner.pod_cidrs.iter().any(|cidr| !imported.pod_cidrs.contains(cidr))
            || assigner.pod_cidrs.is_empty()
        {
            found.entry(assigner.name).or_default().push(&node.name);
        }
    }
    for (name, found) in found {
        let (number, names) = (count(found.len(), "node"), names(found));
        let message = match name {
            "Calico" => format!(
                "Calico runs on {number} ({names}): it assigns pod addresses from its IP pools, unless its CNI \
                 configuration uses host-local"
            ),
            _ => format!("the pod CIDRs that {name} uses on {number} ({names}) differ from those in the API"),
        };
        let remedy = "check the addresses of running pods: `kubectl get pods -A -o wide`";
        findings.push(Diagnostic::new(Rule::OtherAssigner, message).with_remedy(remedy));
    }
}
