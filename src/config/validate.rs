//! Validates a configuration: turns the raw types into a cluster, or reports every violation.
//!
//! A `None` in place of a required value means that the value is missing or malformed, which [`super::structure`]
//! reports. Here it only makes the result incomplete. Rules that need such a value are skipped, so that no error is
//! reported twice.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    capped::Capped,
    node::{NodeDraft, name_of},
    overlap::{Overlap, overlaps_of},
    parse::{self},
    problem::{Location, Problem},
    raw::{Nodes, OneOrPrefixes, Prefix, RawConfig, RawNat, RawRoutes, RoutingTable, Sysctls},
    special::SpecialAddress,
    validator::{ClusterPrefixes, Context, Located, Validator, item_path},
};
use crate::{
    diagnose::Rule,
    model::{
        Cluster, ConfigPath, Family, InterfaceName, InvalidSysctlKey, MAIN_TABLE, NatPolicy, NatTo,
        NextHopOverride, OperatingSystem, PodCidr, RouteOptions, SysctlKey, normalize_value,
    },
    state::WindowsRoute,
    text::{Untrusted, shortened},
};

/// The supported version of the file format.
const VERSION: u32 = 1;

/// The minimum MTU of a link that carries IPv6 (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h), which the kernel manages.
const LOCAL_TABLE: u32 = 255;

/// Validates `raw`. `reported` contains the paths whose errors were already reported.
///
/// # Errors
/// Returns every violation. The list is empty if all errors are structural.
pub(super) fn validate(raw: RawConfig, reported: &HashSet<ConfigPath>) -> Result<Cluster, Capped<Problem>> {
    let mut validator = Validator { problems: Capped::new(), reported, incomplete: false };
    let cluster = validator.cluster(raw);
    if validator.problems.is_empty() && !validator.incomplete {
        return cluster.ok_or_else(Capped::new);
    }
    Err(validator.problems)
}

impl Validator<'_> {
    fn cluster(&mut self, mut raw: RawConfig) -> Option<Cluster> {
        let Nodes(nodes) = self.require(raw.nodes.take()).unwrap_or_default();
        let root = ConfigPath::root();
        self.version(raw.version.map(|version| version.0));
        let prefixes = self.cluster_prefixes(raw.cluster_prefix.as_ref());
        let egress_path = root.key("egressInterface");
        let egress_interface = raw
            .egress_interface
            .as_ref()
            .and_then(|name| self.interface(&name.0, &egress_path, InterfaceName::linux));
        let cluster_egress_given = raw.egress_interface.is_some() || self.reported.contains(&egress_path);
        let next_hop_reported = self.reported.contains(&root.key("nextHop"));
        let next_hop = match &raw.next_hop {
            Some(next_hop) => self.next_hop(next_hop, &root.key("nextHop"), &prefixes),
            None => (!next_hop_reported).then(NextHopOverride::default),
        };
        let route_source = raw.routes.as_ref().map_or_else(Default::default, RawRoutes::source);
        let nat_to_nodes =
            raw.nat.as_ref().is_some_and(|nat| nat.masquerades() && nat.target() == NatTo::NodeAddress);
        let context = Context { prefixes, next_hop, route_source, nat_to_nodes, node_count: nodes.len() };
        let prefixes = &context.prefixes;
        if nodes.is_empty() && !self.incomplete {
            let hint = "list every node of the cluster; with an empty list, hostgw would remove every route";
            let message = "the list of nodes is empty".to_owned();
            self.report(Problem::new(Rule::NoNodes, message, Location::value(root.key("nodes"))).hint(hint));
        }
        let mut drafts = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let draft = self.node(index, node.unwrap_or_default(), &context);
            // The report is full, so no further rule will look at this node.
            if !self.problems.is_truncated() {
                drafts.push(draft);
            }
        }
        if self.problems.is_truncated() {
            return None;
        }
        self.unique_names(&drafts);
        self.unique_addresses(&drafts);
        self.disjoint_cidrs(&drafts, prefixes);
        let routers = context.next_hop.map(|next_hop| next_hop.routers).unwrap_or_default();
        self.routers_among_nodes(&drafts, &routers);
        if !cluster_egress_given {
            self.egress_interfaces(&drafts);
        }
        let master_address = self.master_address(raw.master_address.as_ref().map(AsRef::as_ref), prefixes);
        let nat = self.nat(raw.nat.unwrap_or_default(), prefixes);
        let sysctls = self.sysctls(raw.sysctls.unwrap_or_default(), prefixes);
        let routes = self.routes(&raw.routes.unwrap_or_default(), prefixes, &drafts);
        let checks = self.checks(raw.checks.unwrap_or_default());
        // Allocated once: a list that grows would need memory for itself twice.
        let mut nodes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            nodes.push(draft.finish()?);
        }
        Some(Cluster {
            prefixes: context.prefixes.valid,
            egress_interface,
            next_hop_mode: context.next_hop?.mode.unwrap_or_default(),
            routers: context.next_hop?.routers,
            off_link: raw.off_link.map(|word| word.0).unwrap_or_default(),
            nodes,
            master_address,
            nat,
            sysctls,
            routes,
            checks,
            found_egress: None,
        })
    }

    fn version(&mut self, version: Option<u32>) {
        if let Some(version) = version.filter(|version| *version != VERSION) {
            let message =
                format!("unsupported file format version {version} (this hostgw supports version {VERSION})");
            let location = Location::value(ConfigPath::root().key("version"));
            self.report(
                Problem::new(Rule::Version, message, location).hint("upgrade hostgw, or remove `version`"),
            );
        }
    }

    fn cluster_prefixes(&mut self, raw: Option<&OneOrPrefixes<Prefix>>) -> ClusterPrefixes {
        let path = ConfigPath::root().key("clusterPrefix");
        let Some(raw) = self.require(raw) else { return ClusterPrefixes::default() };
        let (found, complete) = self.limited(raw, || path.clone(), "cluster prefix", parse::prefix);
        for Located { value: prefix, item } in &found {
            if let Some((block, special)) = SpecialAddress::in_prefix(*prefix).next() {
                let message =
                    format!("{prefix} cannot be a cluster prefix: it contains {} ({block})", special.block());
                let hint = "use a private prefix, such as 10.244.0.0/16 or fd00:244::/48";
                self.report(
                    Problem::new(Rule::SpecialPrefix, message, Location::value(item_path(&path, *item)))
                        .hint(hint),
                );
            }
        }
        let values: Vec<IpNet> = found.iter().map(|located| located.value).collect();
        let overlaps: Vec<Overlap> =
            Family::ALL.into_iter().flat_map(|family| overlaps_of(&values, family)).collect();
        let redundant: HashSet<usize> = overlaps.iter().map(|overlap| overlap.inner).collect();
        for Overlap { inner, outer } in overlaps {
            let location = |at: usize| Location::value(item_path(&path, found[at].item));
            let (message, related) = if values[inner] == values[outer] {
                (format!("duplicate cluster prefix {}", values[inner]), "first used here")
            } else {
                let message = format!("cluster prefix {} is inside {}", values[inner], values[outer]);
                (message, "the larger prefix is defined here")
            };
            let problem = Problem::new(Rule::OverlappingPrefixes, message, location(inner));
            self.report(problem.related(related, location(outer)).hint("remove it"));
        }
        let valid = values.iter().enumerate().filter(|(at, _)| !redundant.contains(at));
        ClusterPrefixes { valid: valid.map(|(_, prefix)| *prefix).collect(), complete }
    }

    fn unique_names(&mut self, drafts: &[NodeDraft]) {
        let mut seen: HashMap<Cow<'_, str>, &NodeDraft> = HashMap::with_capacity(drafts.len());
        for draft in drafts {
            let Some(name) = &draft.name else { continue };
            let is_lowercase = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
            let lowercase =
                if is_lowercase { Cow::Borrowed(name.as_str()) } else { name.to_lowercase().into() };
            let first = match seen.entry(lowercase) {
                Entry::Vacant(entry) => {
                    entry.insert(draft);
                    continue;
                }
                Entry::Occupied(first) => *first.get(),
            };
            let message = match &first.name {
                Some(other) if other != name => format!("node names {other} and {name} differ only in case"),
                _ => format!("duplicate node name {name}"),
            };
            let problem =
                Problem::new(Rule::DuplicateNodeName, message, Location::value(draft.path().key("name")))
                    .related("first used here", Location::value(first.path().key("name")));
            self.report(problem.hint("give each node a unique, lowercase name"));
        }
    }

    fn unique_addresses(&mut self, drafts: &[NodeDraft]) {
        let mut seen: HashMap<IpAddr, &NodeDraft> = HashMap::with_capacity(drafts.len());
        for draft in drafts {
            for (_, located) in draft.addresses.iter() {
                let address = located.value;
                let first = match seen.entry(address) {
                    Entry::Vacant(entry) => {
                        entry.insert(draft);
                        continue;
                    }
                    Entry::Occupied(first) => *first.get(),
                };
                let message =
                    format!("address {address} of {} is already used by {}", name_of(draft), name_of(first));
                let problem = Problem::new(
                    Rule::DuplicateAddress,
                    message,
                    Location::value(draft.address_path("address", &draft.addresses, address)),
                )
                .related(
                    "first used here",
                    Location::value(first.address_path("address", &first.addresses, address)),
                );
                self.report(problem.hint("give every node its own address"));
            }
        }
    }

    fn disjoint_cidrs(&mut self, drafts: &[NodeDraft], prefixes: &ClusterPrefixes) {
        // A CIDR that covers a whole cluster prefix is reported on its own, not once per node inside it.
        let covers_cluster =
            |cidr: &PodCidr| prefixes.valid.iter().any(|cluster| cidr.prefix().contains(cluster));
        let (owners, cidrs): (Vec<&NodeDraft>, Vec<Located<PodCidr>>) = drafts
            .iter()
            .flat_map(|draft| draft.cidrs.iter().map(move |cidr| (draft, *cidr)))
            .filter(|(_, cidr)| !covers_cluster(&cidr.value))
            .unzip();
        let networks: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.value.prefix()).collect();
        for family in Family::ALL {
            for Overlap { inner, outer } in overlaps_of(&networks, family) {
                let (cidr, other) = (cidrs[inner].value, cidrs[outer].value);
                let is_same_node = std::ptr::eq(owners[inner], owners[outer]);
                let name = name_of(owners[inner]);
                let message = match is_same_node {
                    true if cidr == other => format!("{name} has pod CIDR {cidr} twice"),
                    true => format!("pod CIDRs {cidr} and {other} of {name} overlap"),
                    false => {
                        let other_name = name_of(owners[outer]);
                        format!("pod CIDR {cidr} of {name} overlaps {other} of {other_name}")
                    }
                };
                let related = if cidr == other {
                    "first used here"
                } else {
                    "the overlapping pod CIDR is defined here"
                };
                let location = |at: usize| Location::value(owners[at].cidr_path(&cidrs[at]));
                let problem = Problem::new(Rule::OverlappingCidrs, message, location(inner))
                    .related(related, location(outer));
                let hint =
                    if is_same_node { "remove one of them" } else { "give every node its own pod CIDR" };
                self.report(problem.hint(hint));
            }
        }
    }

    /// Reports a single error for all nodes whose egress interface is neither given nor can be found by their address,
    /// because one line fixes them all.
    fn egress_interfaces(&mut self, drafts: &[NodeDraft]) {
        let lacking = |draft: &&NodeDraft| {
            draft.os == Some(OperatingSystem::Linux)
                && !draft.has_egress_interface
                && !draft.has_address
                && !self.is_reported(|| draft.path().key("egressInterface"))
        };
        let mut lacking = drafts.iter().filter(lacking);
        let Some(first) = lacking.next() else { return };
        let message = match lacking.count() {
            0 => format!("{} has neither an egress interface nor an address to find it by", name_of(first)),
            1 => format!(
                "{} and 1 other Linux node have neither an egress interface nor an address to find it by",
                name_of(first)
            ),
            others => format!(
                "{} and {others} other Linux nodes have neither an egress interface nor an address to find it by",
                name_of(first)
            ),
        };
        let hint = "set egressInterface at the top level for all Linux nodes, or give each node its address";
        self.report(Problem::new(Rule::NoEgressInterface, message, Location::value(first.path())).hint(hint));
    }

    fn master_address(&mut self, text: Option<&str>, prefixes: &ClusterPrefixes) -> Option<IpAddr> {
        let path = ConfigPath::root().key("masterAddress");
        match parse::address(text?) {
            Ok(address) => {
                if let Some(prefix) = prefixes.containing(address) {
                    let message = format!("masterAddress {address} is inside the cluster prefix {prefix}");
                    let hint = "use the address of the machine that runs the API server, not of a pod";
                    self.report(
                        Problem::new(Rule::MasterInCluster, message, Location::value(path)).hint(hint),
                    );
                }
                Some(address)
            }
            Err(error) => {
                self.reject(error, Location::value(path));
                None
            }
        }
    }

    fn nat(&mut self, raw: RawNat, prefixes: &ClusterPrefixes) -> NatPolicy {
        let path = ConfigPath::root().key("nat").key("exclude");
        let mut seen: HashMap<IpNet, usize> = HashMap::new();
        let mut exclude = Vec::new();
        let (masquerade, to) = (raw.masquerades(), raw.target());
        let raw_exclude = raw.exclude.unwrap_or_default();
        self.at_most(raw_exclude.len(), NatPolicy::MAX_EXCLUDED, &path);
        for (index, text) in raw_exclude.into_iter().enumerate() {
            let Some(text) = self.require(text) else { continue };
            let location = Location::value(path.index(index));
            let prefix = match parse::prefix(&text.0) {
                Ok(prefix) => prefix,
                Err(error) => {
                    self.reject(error, location);
                    continue;
                }
            };
            if let Some(first) = seen.get(&prefix) {
                let problem = Problem::new(
                    Rule::DuplicateExclusion,
                    format!("duplicate prefix {prefix} in nat.exclude"),
                    location,
                );
                let problem = problem.related("first used here", Location::value(path.index(*first)));
                self.report(problem.hint("remove one of them"));
                continue;
            }
            seen.insert(prefix, index);
            self.exclusion(prefix, location, prefixes);
            exclude.push(prefix);
        }
        NatPolicy {
            masquerade,
            exclude,
            source: raw.source.map(|word| word.0).unwrap_or_default(),
            to,
            random_fully: raw.random_fully.is_some_and(|flag| flag.0),
        }
    }

    fn exclusion(&mut self, prefix: IpNet, location: Location, prefixes: &ClusterPrefixes) {
        let family = Family::from(prefix);
        let never_leaves = |special| {
            matches!(
                special,
                SpecialAddress::Unspecified | SpecialAddress::ThisNetwork | SpecialAddress::Loopback
            )
        };
        let block = SpecialAddress::in_prefix(prefix)
            .find(|(block, special)| block.contains(&prefix) && never_leaves(*special));
        if let Some((block, special)) = block {
            let message =
                format!("nat.exclude {prefix} has no effect: it contains only {} ({block})", special.block());
            self.report(
                Problem::new(Rule::UselessExclusion, message, location)
                    .hint("remove it: such packets never leave a node"),
            );
            return;
        }
        if let Some(cluster) = prefixes.valid.around(prefix) {
            let message =
                format!("nat.exclude {prefix} has no effect: clusterPrefix {cluster} already covers it");
            self.report(
                Problem::new(Rule::UselessExclusion, message, location)
                    .hint("remove it: that traffic is never masqueraded"),
            );
        } else if prefixes.lacks(family) {
            let message = format!("nat.exclude {prefix} has no effect: clusterPrefix has no {family} prefix");
            let hint = format!("remove it, or add an {family} prefix to clusterPrefix");
            self.report(Problem::new(Rule::UselessExclusion, message, location).hint(hint));
        }
    }

    fn sysctls(&mut self, raw: Sysctls, prefixes: &ClusterPrefixes) -> Vec<(SysctlKey, Untrusted)> {
        let path = ConfigPath::root().key("sysctls");
        let mut seen: HashMap<SysctlKey, String> = HashMap::new();
        let mut sysctls = Vec::new();
        self.at_most(raw.0.len(), Cluster::MAX_SYSCTLS, &path);
        for (text, value) in raw.0 {
            let location = Location::key(path.key(text.as_str()));
            let key: SysctlKey = match text.parse() {
                Ok(key) => key,
                // A key whose value is a mapping is only the first part of a key, and was already reported.
                Err(_) if self.is_reported(|| path.key(text.as_str())) => continue,
                Err(why) => {
                    let message = format!("cannot set sysctl {:?}: {why}", shortened(&text));
                    let hint = match why {
                        InvalidSysctlKey::OutsideNet => {
                            "remove it, and set it in /etc/sysctl.d if you need it"
                        }
                        InvalidSysctlKey::Malformed => {
                            "use a name that `sysctl -a` prints, such as net.ipv4.conf.all.rp_filter"
                        }
                    };
                    self.report(Problem::new(Rule::InvalidSysctl, message, location).hint(hint));
                    continue;
                }
            };
            if let Some(first) = seen.get(&key) {
                let message = format!("{} is the same sysctl as {}", shortened(&text), shortened(first));
                let problem = Problem::new(Rule::DuplicateSysctl, message, location)
                    .related("first used here", Location::key(path.key(first.as_str())));
                self.report(problem.hint("remove one of them"));
                continue;
            }
            seen.insert(key.clone(), text.clone());
            let Some(value) = self.require(value) else { continue };
            let location = Location::value(path.key(text.as_str()));
            if let Some(value) = self.sysctl_value(&key, &value.0, &location, prefixes) {
                sysctls.push((key, value.into()));
            }
        }
        sysctls
    }

    fn sysctl_value(
        &mut self,
        key: &SysctlKey,
        text: &str,
        location: &Location,
        prefixes: &ClusterPrefixes,
    ) -> Option<String> {
        let value = normalize_value(text);
        if value.is_empty() || value.chars().any(char::is_control) {
            let message =
                format!("{:?} is not a valid value for {}", shortened(text), shortened(key.as_str()));
            let hint = "use one non-empty line, as `sysctl -n` prints it";
            self.report(Problem::new(Rule::InvalidSysctlValue, message, location.clone()).hint(hint));
            return None;
        }
        let switches = match key.as_str() {
            "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => Some(Family::V4),
            "net.ipv6.conf.all.forwarding" => Some(Family::V6),
            _ => None,
        };
        if let Some(family) = switches.filter(|family| value != "1" && prefixes.valid.has(*family)) {
            let message = format!("cannot set {key} = {value}: nodes with pods must forward {family}");
            let hint = "remove it: hostgw enables forwarding automatically";
            self.report(Problem::new(Rule::ForwardingOff, message, location.clone()).hint(hint));
        }
        Some(value)
    }

    /// Reports an MTU that is too small for the cluster's prefixes.
    pub(super) fn mtu(
        &mut self,
        mtu: Option<u32>,
        prefixes: &ClusterPrefixes,
        path: impl Fn() -> ConfigPath,
    ) {
        if let Some(mtu) = mtu.filter(|mtu| *mtu < IPV6_MIN_MTU && prefixes.valid.has(Family::V6)) {
            let message =
                format!("MTU {mtu} is too small for IPv6, which requires at least {IPV6_MIN_MTU} bytes");
            self.report(Problem::new(Rule::MtuTooSmall, message, Location::value(path())));
        }
    }

    fn routes(&mut self, raw: &RawRoutes, prefixes: &ClusterPrefixes, drafts: &[NodeDraft]) -> RouteOptions {
        let path = ConfigPath::root().key("routes");
        let table = match raw.table {
            None | Some(RoutingTable::Main) => MAIN_TABLE,
            Some(RoutingTable::Number(number)) => number,
        };
        if table == LOCAL_TABLE {
            let message =
                format!("cannot use routing table {LOCAL_TABLE}: the kernel manages it (table local)");
            self.report(
                Problem::new(Rule::TableLocal, message, Location::value(path.key("table")))
                    .hint("use another table, or remove this key to use the default, main"),
            );
        }
        let mtu = raw.mtu.as_ref().map(|mtu| mtu.0);
        self.mtu(mtu, prefixes, || path.key("mtu"));
        let metric = raw.metric.as_ref().map_or(0, |metric| metric.0);
        let has_windows = drafts.iter().any(|draft| draft.os == Some(OperatingSystem::Windows));
        if has_windows && metric > WindowsRoute::MAX_METRIC {
            let max = WindowsRoute::MAX_METRIC;
            let message = format!("metric {metric} is too large for the Windows nodes of this cluster");
            let location = Location::value(path.key("metric"));
            self.report(
                Problem::new(Rule::MetricTooLarge, message, location)
                    .hint(format!("use at most {max}, the limit of New-NetRoute")),
            );
        }
        let spread = raw.spread.as_ref().map_or_else(Default::default, |spread| spread.0);
        let unassigned = raw.unassigned.as_ref().map_or_else(Default::default, |word| word.0);
        RouteOptions { table, metric, mtu, spread, unassigned, source: raw.source() }
    }
}
