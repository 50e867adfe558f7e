//! The rules that a configuration keeps: raw types in, a cluster or every broken rule out.
//!
//! A `None` where a value must be means that the value is missing or wrong in a way that
//! [`super::structure`] puts into words; here it only makes the result incomplete. Rules that would need
//! such a value are left out, so that no mistake is told twice.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    capped::Capped,
    mistake::{Finding, Place},
    node::{Draft, name_of},
    overlap::{Overlap, overlaps},
    parse::{self},
    raw::{Nodes, OneOrMany, Prefix, RawConfig, RawNat, RawRoutes, Sysctls, Table},
    special::Special,
    validator::{Context, Located, Prefixes, Validator, item_path, map},
};
use crate::{
    model::{
        Cluster, ConfigPath, Family, InterfaceName, MAIN_TABLE, NatPolicy, OperatingSystem, PodCidr,
        RouteOptions, SysctlKey, normalise_value,
    },
    state::WindowsRoute,
    text::{Untrusted, shortened},
};

/// The version of the file format that this hostgw knows.
const VERSION: u32 = 1;

/// The smallest MTU of a link that carries IPv6 (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h), which the kernel maintains.
const LOCAL_TABLE: u32 = 255;

/// Checks `raw`; `wrong` are the places of which something is said already.
///
/// # Errors
/// Everything that breaks a rule. Nothing, when the only mistakes are structural.
pub(super) fn validate(raw: RawConfig, wrong: &HashSet<ConfigPath>) -> Result<Cluster, Capped<Finding>> {
    let mut validator = Validator { findings: Capped::new(), wrong, incomplete: false };
    let cluster = validator.cluster(raw);
    if validator.findings.is_empty() && !validator.incomplete {
        return cluster.ok_or_else(Capped::new);
    }
    Err(validator.findings)
}

impl Validator<'_> {
    fn cluster(&mut self, raw: RawConfig) -> Option<Cluster> {
        let root = ConfigPath::root();
        self.version(raw.version.map(|version| version.0));
        let prefixes = self.cluster_prefixes(raw.cluster_prefix.as_ref());
        let egress_path = root.key("egressInterface");
        let egress_interface = raw
            .egress_interface
            .as_ref()
            .and_then(|name| self.interface(&name.0, &egress_path, InterfaceName::linux));
        let cluster_egress_given = raw.egress_interface.is_some() || self.wrong.contains(&egress_path);
        let next_hop_wrong = self.wrong.contains(&root.key("nextHop"));
        let Nodes(raw_nodes) = self.require(raw.nodes).unwrap_or_default();
        let context = Context {
            prefixes,
            next_hop: (!next_hop_wrong).then(|| raw.next_hop.map(|word| word.0).unwrap_or_default()),
            node_count: raw_nodes.len(),
        };
        if raw_nodes.is_empty() && !self.incomplete {
            let hint = "list every node of the cluster; an empty list would remove every route";
            self.report(
                Finding::new("there are no nodes".to_owned(), Place::value(root.key("nodes"))).hint(hint),
            );
        }
        let mut drafts = Vec::with_capacity(raw_nodes.len());
        for (index, node) in raw_nodes.into_iter().enumerate() {
            let draft = self.node(index, node.unwrap_or_default(), &context);
            // With more mistakes than can be shown nobody asks for the rest.
            if !self.findings.is_cut() {
                drafts.push(draft);
            }
        }
        if self.findings.is_cut() {
            return None;
        }
        self.unique_names(&drafts);
        self.unique_addresses(&drafts);
        self.disjoint_cidrs(&drafts, &prefixes);
        if !cluster_egress_given {
            self.egress_interfaces(&drafts);
        }
        let master_address = self.master_address(raw.master_address.as_ref().map(AsRef::as_ref), &prefixes);
        let nat = self.nat(raw.nat.unwrap_or_default(), &prefixes);
        let sysctls = self.sysctls(raw.sysctls.unwrap_or_default(), &prefixes);
        let routes = self.routes(&raw.routes.unwrap_or_default(), &prefixes, &drafts);
        let checks = self.checks(raw.checks.unwrap_or_default());
        Some(Cluster {
            prefixes: prefixes.of,
            egress_interface,
            next_hop: context.next_hop?,
            nodes: drafts.into_iter().map(Draft::finish).collect::<Option<_>>()?,
            master_address,
            nat,
            sysctls,
            routes,
            checks,
        })
    }

    fn version(&mut self, version: Option<u32>) {
        if let Some(version) = version.filter(|version| *version != VERSION) {
            let message = format!(
                "unsupported file format version {version}; this version of hostgw supports {VERSION}"
            );
            let place = Place::value(ConfigPath::root().key("version"));
            self.report(Finding::new(message, place).hint("a newer version of hostgw may support it"));
        }
    }

    fn cluster_prefixes(&mut self, raw: Option<&OneOrMany<Prefix>>) -> Prefixes {
        let path = ConfigPath::root().key("clusterPrefix");
        let Some(raw) = self.require(raw) else { return Prefixes::default() };
        let (found, complete) =
            self.per_family(raw, || path.clone(), "cluster prefix", parse::prefix, |prefix| (*prefix).into());
        for (_, Located { value: prefix, item }) in found.iter() {
            if let Some((block, special)) = Special::in_prefix(*prefix).next() {
                let message =
                    format!("{prefix} cannot be a cluster prefix: it contains {} ({block})", special.block());
                let hint = "use a private prefix, such as 10.244.0.0/16 or fd00:244::/48";
                self.report(Finding::new(message, Place::value(item_path(&path, *item))).hint(hint));
            }
        }
        Prefixes { of: map(&found, |located| located.value), complete }
    }

    fn unique_names(&mut self, drafts: &[Draft]) {
        let mut seen: HashMap<String, &Draft> = HashMap::with_capacity(drafts.len());
        for draft in drafts {
            let Some(name) = &draft.name else { continue };
            let first = match seen.entry(name.to_lowercase()) {
                Entry::Vacant(place) => {
                    place.insert(draft);
                    continue;
                }
                Entry::Occupied(first) => *first.get(),
            };
            let message = match &first.name {
                Some(other) if other != name => format!("nodes {other} and {name} differ only in case"),
                _ => format!("two nodes are named {name}"),
            };
            let finding = Finding::new(message, Place::value(draft.path().key("name")))
                .related("first used here", Place::value(first.path().key("name")));
            self.report(finding.hint("node names are unique and lower case in Kubernetes"));
        }
    }

    fn unique_addresses(&mut self, drafts: &[Draft]) {
        let mut seen: HashMap<IpAddr, &Draft> = HashMap::with_capacity(drafts.len());
        for draft in drafts {
            for (_, located) in draft.addresses.iter() {
                let address = located.value;
                let first = match seen.entry(address) {
                    Entry::Vacant(place) => {
                        place.insert(draft);
                        continue;
                    }
                    Entry::Occupied(first) => *first.get(),
                };
                let message =
                    format!("address {address} of {} is already used by {}", name_of(draft), name_of(first));
                let finding =
                    Finding::new(message, Place::value(draft.place_in("address", &draft.addresses, address)))
                        .related(
                            "first used here",
                            Place::value(first.place_in("address", &first.addresses, address)),
                        );
                self.report(finding.hint("give every node its own address"));
            }
        }
    }

    fn disjoint_cidrs(&mut self, drafts: &[Draft], prefixes: &Prefixes) {
        for family in Family::ALL {
            let (owners, cidrs): (Vec<&Draft>, Vec<PodCidr>) = drafts
                .iter()
                .filter_map(|draft| Some((draft, draft.cidrs.get(family)?.value)))
                // One that holds the whole cluster prefix is reported by itself, not for every node in it.
                .filter(|(_, cidr)| prefixes.of.get(family).is_none_or(|all| !cidr.prefix().contains(all)))
                .unzip();
            let networks: Vec<IpNet> = cidrs.iter().map(PodCidr::prefix).collect();
            for Overlap { inner, outer } in overlaps(&networks) {
                let message = format!(
                    "pod CIDR {} of {} overlaps {} of {}",
                    cidrs[inner],
                    name_of(owners[inner]),
                    cidrs[outer],
                    name_of(owners[outer]),
                );
                let related = if cidrs[inner] == cidrs[outer] {
                    "first used here"
                } else {
                    "the larger one is defined here"
                };
                let place = |at: usize| Place::value(owners[at].cidr_path(family));
                let finding = Finding::new(message, place(inner)).related(related, place(outer));
                self.report(finding.hint("give every node a pod CIDR of its own"));
            }
        }
    }

    /// One mistake for all nodes that lack an egress interface: the remedy is one line.
    fn egress_interfaces(&mut self, drafts: &[Draft]) {
        let lacking = |draft: &&Draft| {
            draft.os == Some(OperatingSystem::Linux)
                && !draft.has_egress_interface
                && !self.is_wrong(&draft.path().key("egressInterface"))
        };
        let mut lacking = drafts.iter().filter(lacking);
        let Some(first) = lacking.next() else { return };
        let message = match lacking.count() {
            0 => format!("{} has no egress interface", name_of(first)),
            1 => format!("{} and one more Linux node have no egress interface", name_of(first)),
            more => format!("{} and {more} more Linux nodes have no egress interface", name_of(first)),
        };
        let hint = "set egressInterface at the top of the file for all Linux nodes, or in the node";
        self.report(Finding::new(message, Place::value(first.path())).hint(hint));
    }

    fn master_address(&mut self, text: Option<&str>, prefixes: &Prefixes) -> Option<IpAddr> {
        let path = ConfigPath::root().key("masterAddress");
        match parse::address(text?) {
            Ok(address) => {
                if let Some(prefix) = prefixes.around(address) {
                    let message = format!("master address {address} is inside the cluster prefix {prefix}");
                    let hint = "use the address of the machine, not of a pod";
                    self.report(Finding::new(message, Place::value(path)).hint(hint));
                }
                Some(address)
            }
            Err(wrong) => {
                self.refuse(wrong, Place::value(path));
                None
            }
        }
    }

    fn nat(&mut self, raw: RawNat, prefixes: &Prefixes) -> NatPolicy {
        let path = ConfigPath::root().key("nat").key("exclude");
        let mut seen: HashMap<IpNet, usize> = HashMap::new();
        let mut exclude = Vec::new();
        let raw_exclude = raw.exclude.unwrap_or_default();
        self.at_most(raw_exclude.len(), NatPolicy::MOST_EXCLUDED, "exclusions", &path);
        for (index, text) in raw_exclude.into_iter().enumerate() {
            let Some(text) = self.require(text) else { continue };
            let place = Place::value(path.index(index));
            let prefix = match parse::prefix(&text.0) {
                Ok(prefix) => prefix,
                Err(wrong) => {
                    self.refuse(wrong, place);
                    continue;
                }
            };
            if let Some(first) = seen.get(&prefix) {
                let finding = Finding::new(format!("{prefix} is excluded twice"), place);
                self.report(finding.related("first used here", Place::value(path.index(*first))));
                continue;
            }
            seen.insert(prefix, index);
            self.exclusion(prefix, place, prefixes);
            exclude.push(prefix);
        }
        NatPolicy {
            masquerade: raw.masquerade.is_none_or(|flag| flag.0),
            exclude,
            source: raw.source.map(|word| word.0).unwrap_or_default(),
            random_fully: raw.random_fully.is_some_and(|flag| flag.0),
        }
    }

    /// Refuses a list that is longer than a file needs.
    fn at_most(&mut self, number: usize, most: usize, what: &str, path: &ConfigPath) {
        if number > most {
            let message = format!("{number} {what}, more than the limit of {most}");
            self.report(Finding::new(message, Place::value(path.clone())));
        }
    }

    fn exclusion(&mut self, prefix: IpNet, place: Place, prefixes: &Prefixes) {
        let family = Family::from(prefix);
        let stays =
            |special| matches!(special, Special::Unspecified | Special::ThisNetwork | Special::Loopback);
        let block =
            Special::in_prefix(prefix).find(|(block, special)| block.contains(&prefix) && stays(*special));
        if let Some((block, special)) = block {
            let message =
                format!("excluding {prefix} has no effect: it contains {} ({block})", special.block());
            self.report(Finding::new(message, place).hint("remove it: such packets never leave a node"));
            return;
        }
        match prefixes.of.get(family) {
            Some(cluster) if cluster.contains(&prefix) => {
                let message =
                    format!("excluding {prefix} has no effect: clusterPrefix {cluster} already covers it");
                self.report(
                    Finding::new(message, place).hint("remove it: this traffic is never masqueraded"),
                );
            }
            None if prefixes.complete => {
                let message = format!("excluding {prefix} has no effect: the cluster has no {family} prefix");
                let hint = format!("remove it, or add an {family} prefix to clusterPrefix");
                self.report(Finding::new(message, place).hint(hint));
            }
            _ => {}
        }
    }

    fn sysctls(&mut self, raw: Sysctls, prefixes: &Prefixes) -> Vec<(SysctlKey, Untrusted)> {
        let path = ConfigPath::root().key("sysctls");
        let mut seen: HashMap<SysctlKey, String> = HashMap::new();
        let mut sysctls = Vec::new();
        self.at_most(raw.0.len(), Cluster::MOST_SYSCTLS, "sysctls", &path);
        for (text, value) in raw.0 {
            let place = Place::key(path.key(text.as_str()));
            let key: SysctlKey = match text.parse() {
                Ok(key) => key,
                // A key whose value is a mapping is only the beginning of a key.
                Err(_) if self.is_wrong(&path.key(text.as_str())) => continue,
                Err(why) => {
                    self.report(Finding::new(
                        format!("{:?} cannot be set by hostgw: {why}", shortened(&text)),
                        place,
                    ));
                    continue;
                }
            };
            if let Some(first) = seen.get(&key) {
                let message = format!("{} names the same sysctl as {}", shortened(&text), shortened(first));
                let finding = Finding::new(message, place)
                    .related("first used here", Place::key(path.key(first.as_str())));
                self.report(finding.hint("remove one of the two"));
                continue;
            }
            seen.insert(key.clone(), text.clone());
            let Some(value) = self.require(value) else { continue };
            let place = Place::value(path.key(text.as_str()));
            if let Some(value) = self.sysctl_value(&key, &value.0, &place, prefixes) {
                sysctls.push((key, value.into()));
            }
        }
        sysctls
    }

    fn sysctl_value(
        &mut self,
        key: &SysctlKey,
        text: &str,
        place: &Place,
        prefixes: &Prefixes,
    ) -> Option<String> {
        let value = normalise_value(text);
        if value.is_empty() || value.chars().any(char::is_control) {
            let message = format!("{:?} is not a value for {}", shortened(text), shortened(key.as_str()));
            self.report(
                Finding::new(message, place.clone()).hint("a value is one line, as `sysctl` prints it"),
            );
            return None;
        }
        let switches = match key.as_str() {
            "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => Some(Family::V4),
            "net.ipv6.conf.all.forwarding" => Some(Family::V6),
            _ => None,
        };
        if let Some(family) = switches.filter(|family| value != "1" && prefixes.of.get(*family).is_some()) {
            let message = format!("{key} = {value} conflicts with the cluster, whose nodes forward {family}");
            let hint = "remove it: hostgw manages forwarding itself";
            self.report(Finding::new(message, place.clone()).hint(hint));
        }
        Some(value)
    }

    fn routes(&mut self, raw: &RawRoutes, prefixes: &Prefixes, drafts: &[Draft]) -> RouteOptions {
        let path = ConfigPath::root().key("routes");
        let table = match raw.table {
            None | Some(Table::Main) => MAIN_TABLE,
            Some(Table::Number(number)) => number,
        };
        if table == LOCAL_TABLE {
            let message =
                format!("routing table {LOCAL_TABLE} is the table \"local\", which the kernel maintains");
            self.report(Finding::new(message, Place::value(path.key("table"))).hint("the default is main"));
        }
        let mtu = raw.mtu.as_ref().map(|mtu| mtu.0);
        if let Some(mtu) = mtu.filter(|mtu| *mtu < IPV6_MIN_MTU && prefixes.of.v6.is_some()) {
            let message =
                format!("an MTU of {mtu} is too small for IPv6, which needs at least {IPV6_MIN_MTU}");
            self.report(Finding::new(message, Place::value(path.key("mtu"))));
        }
        let metric = raw.metric.as_ref().map_or(0, |metric| metric.0);
        let has_windows = drafts.iter().any(|draft| draft.os == Some(OperatingSystem::Windows));
        if has_windows && metric > WindowsRoute::MOST_METRIC {
            let most = WindowsRoute::MOST_METRIC;
            let message = format!("a metric of {metric} is too large for the Windows nodes in this file");
            let place = Place::value(path.key("metric"));
            self.report(Finding::new(message, place).hint(format!("New-NetRoute takes at most {most}")));
        }
        RouteOptions { table, metric, mtu }
    }
}
