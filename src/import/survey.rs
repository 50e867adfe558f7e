//! What a list says about the nodes of a cluster, and what is wrong with it.

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
    /// The warnings so far.
    pub findings: Vec<Diagnostic>,
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
            pod_cidrs: node.pod_cidrs.clone(),
            addresses: Family::ALL.into_iter().filter_map(|family| census.choose(node, family)).collect(),
            candidates: node.internal.clone(),
        };
        let (nodes, without_pods) =
            listed.iter().map(imported).partition(|node: &ImportedNode| !node.pod_cidrs.is_empty());
        Ok(Self { listed, nodes, without_pods, findings: Vec::new() })
    }

    /// Leaves out the pod CIDRs of other families, and the addresses of other families from nodes that have some of these.
    pub fn restrict(&mut self, families: &[Family], because: &str) {
        let is_in = |family: Family| families.contains(&family);
        let mut affected = Vec::new();
        for node in &mut self.nodes {
            let before = node.pod_cidrs.len();
            node.pod_cidrs.retain(|cidr| is_in((*cidr).into()));
            if node.pod_cidrs.len() < before {
                affected.push(node.name.clone());
            }
        }
        if !affected.is_empty() {
            let family = if is_in(Family::V4) { Family::V6 } else { Family::V4 };
            let message = format!(
                "{because} has no {family} prefix: the {family} pod CIDRs of {} are left out: {}",
                count(affected.len(), "node"),
                names(&affected)
            );
            self.findings.push(
                Diagnostic::new(Rule::FamilyLeftOut, message).with_remedy(format!(
                    "add an {family} prefix to clusterPrefix to route these pods as well"
                )),
            );
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

    /// Adds the warnings about the nodes with pods.
    pub fn examine(&mut self) {
        let mut findings = Vec::new();
        let is_imported: HashMap<&Untrusted, &ImportedNode> =
            self.nodes.iter().map(|node| (&node.name, node)).collect();
        let listed: Vec<(&ListedNode, &ImportedNode)> =
            self.listed.iter().filter_map(|node| Some((node, *is_imported.get(&node.name)?))).collect();
        systems(&listed, &mut findings);
        addresses(&listed, &mut findings);
        windows(&self.nodes, &mut findings);
        flannel(&listed, &mut findings);
        assigners(&listed, &mut findings);
        self.findings.extend(findings);
    }
}

/// Kubernetes only has names in lower case, and hostgw does not distinguish names that differ in nothing else.
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
            // A name that is missing is another error.
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

type Pairs<'a> = [(&'a ListedNode, &'a ImportedNode)];

/// Warns of operating systems that are unknown, or on which two sources disagree.
fn systems(nodes: &Pairs<'_>, findings: &mut Vec<Diagnostic>) {
    let unknown: Vec<&Untrusted> =
        nodes.iter().filter(|(node, _)| node.system().is_none()).map(|(node, _)| &node.name).collect();
    if !unknown.is_empty() {
        let message = format!(
            "no operating system is listed for {}: {}; assuming Linux",
            count(unknown.len(), "node"),
            names(unknown.iter().copied())
        );
        let remedy =
            "if one of them runs Windows, set `os: windows` in the file: its pod gateway is another address";
        findings.push(Diagnostic::new(Rule::OsUncertain, message).with_remedy(remedy));
    }
    let mut disputed: BTreeMap<(&str, String, &str, String), Vec<&Untrusted>> = BTreeMap::new();
    for (node, _) in nodes {
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
            "check the nodes, and remove the wrong one: `kubectl label node NAME {}-`",
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
fn addresses(nodes: &Pairs<'_>, findings: &mut Vec<Diagnostic>) {
    const NODE_IP: &str = "set the address with kubelet's --node-ip, or `address` in the file";
    let mut found = |what: String, remedy: &str| {
        findings.push(Diagnostic::new(Rule::InternalAddress, what).with_remedy(remedy));
    };
    let unusable: Vec<String> = nodes
        .iter()
        .filter(|(node, _)| !node.unusable.is_empty())
        .map(|(node, _)| format!("{} ({})", node.name, Untrusted::from(node.unusable.join("; "))))
        .collect();
    if !unusable.is_empty() {
        let what = format!(
            "{} {} an InternalIP that cannot be used: {}",
            count(unusable.len(), "node"),
            if unusable.len() == 1 { "has" } else { "have" },
            list(&unusable, SHOWN)
        );
        found(what, NODE_IP);
    }
    let without: Vec<&Untrusted> = nodes
        .iter()
        .filter(|(node, _)| node.internal.is_empty() && node.unusable.is_empty())
        .map(|(node, _)| &node.name)
        .collect();
    if !without.is_empty() {
        let what = format!(
            "{} {} no InternalIP: {}; hostgw never uses an ExternalIP",
            count(without.len(), "node"),
            if without.len() == 1 { "has" } else { "have" },
            names(without.iter().copied())
        );
        found(
            what,
            "add `address` by hand: without it, hostgw recognizes these nodes only by their hostname",
        );
    }
    let several: Vec<String> = nodes
        .iter()
        .filter_map(|(node, imported)| {
            let is_chosen = |address: &&IpAddr| node.internal_of((**address).into()).count() > 1;
            let chosen = imported.addresses.iter().find(is_chosen)?;
            Some(format!("{} (using {chosen})", node.name))
        })
        .collect();
    if !several.is_empty() {
        let what = format!(
            "{} {} several InternalIPs of one address family: {}",
            count(several.len(), "node"),
            if several.len() == 1 { "has" } else { "have" },
            list(&several, SHOWN)
        );
        found(what, NODE_IP);
    }
}

/// Warns of Windows nodes that registered the address of a NAT network.
fn windows(nodes: &[ImportedNode], findings: &mut Vec<Diagnostic>) {
    for (node, address) in strangers(nodes) {
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
fn flannel(nodes: &Pairs<'_>, findings: &mut Vec<Diagnostic>) {
    let mut backends: BTreeMap<&str, Vec<&Untrusted>> = BTreeMap::new();
    for (node, _) in nodes {
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
                      see `hostgw help migrating` before you apply";
        findings.push(Diagnostic::new(Rule::FlannelBackend, message).with_remedy(remedy));
    }
    let elsewhere: Vec<String> = nodes
        .iter()
        .filter_map(|(node, imported)| {
            let public = &node.hints.flannel.as_ref()?.public;
            let differs = |address: &&IpAddr| {
                imported.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4() && own != *address)
            };
            Some(format!("{} ({})", node.name, public.iter().find(differs)?))
        })
        .collect();
    if !elsewhere.is_empty() {
        let message = format!(
            "flannel reaches {} by another address than the InternalIP: {}",
            count(elsewhere.len(), "node"),
            list(&elsewhere, SHOWN)
        );
        let remedy =
            "check which of the two the other nodes reach on their link, and correct `address` in the file";
        findings.push(Diagnostic::new(Rule::FlannelBackend, message).with_remedy(remedy));
    }
}

/// The backend of flannel that hostgw replaces.
pub(super) const HOST_GW: &str = "host-gw";

/// Warns of programs that do not have to assign pod addresses from the pod CIDRs of the API.
fn assigners(nodes: &Pairs<'_>, findings: &mut Vec<Diagnostic>) {
    let mut found: BTreeMap<&str, Vec<&Untrusted>> = BTreeMap::new();
    for (node, imported) in nodes {
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
            _ => format!("{name} runs on {number} ({names}) with other pod CIDRs than the API lists"),
        };
        let remedy = "check the addresses of running pods: `kubectl get pods -A -o wide`";
        findings.push(Diagnostic::new(Rule::OtherAssigner, message).with_remedy(remedy));
    }
}
