//! Validates a single node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    parse::{self, ParseError},
    problem::{Location, Problem},
    raw::{Address, OneOrMany, OneOrPrefixes, PodCidrs, RawNextHop, RawNode},
    validator::{Context, Located, LocatedList, Validator, item_path, map},
};
use crate::{
    diagnose::Rule,
    model::{
        ConfigPath, Family, InterfaceName, InvalidPodCidr, NextHopMode, NextHopOverride, Node, NodeOverrides,
        OperatingSystem, PerFamily, PodCidr, PodNetwork, PrefixList, RouteSource,
    },
    text::shortened,
};

/// The valid parts of a node.
#[derive(Debug, Default)]
pub(super) struct NodeDraft {
    index: usize,
    pub name: Option<String>,
    pub os: Option<OperatingSystem>,
    pub cidrs: LocatedList<PodCidr>,
    /// Whether the machine has no pods (`podCIDR: none`).
    has_no_pods: bool,
    pub addresses: PerFamily<Located<IpAddr>>,
    /// Whether the node has an egress interface, valid or not.
    pub has_egress_interface: bool,
    /// Whether the node has an address, valid or not.
    pub has_address: bool,
    rare: Option<Box<RareSettings>>,
}

/// Settings that few nodes have.
#[derive(Debug, Default)]
struct RareSettings {
    gateways: LocatedList<IpAddr>,
    overrides: NodeOverrides,
}

/// The node as messages name it.
pub(super) fn name_of(draft: &NodeDraft) -> String {
    draft.name.as_ref().map_or_else(|| draft.path().to_string(), |name| format!("node {name}"))
}

impl NodeDraft {
    pub fn path(&self) -> ConfigPath {
        ConfigPath::root().key("nodes").index(self.index)
    }

    pub fn cidr_path(&self, cidr: &Located<PodCidr>) -> ConfigPath {
        item_path(&self.path().key("podCIDR"), cidr.item)
    }

    fn cidrs_of(&self, family: Family) -> impl Iterator<Item = &Located<PodCidr>> {
        self.cidrs.iter().filter(move |cidr| Family::from(cidr.value.prefix()) == family)
    }

    /// The families of its pods.
    pub fn pod_families(&self) -> PerFamily<()> {
        let has = |family| self.cidrs_of(family).next().map(|_| ());
        PerFamily { v4: has(Family::V4), v6: has(Family::V6) }
    }

    /// `nextHop` of the node.
    pub fn next_hop(&self) -> Option<&NextHopOverride> {
        self.rare.as_ref()?.overrides.next_hop.as_ref()
    }

    /// The path of `address` under `key`, whose values are `all`.
    pub fn address_path(&self, key: &str, all: &PerFamily<Located<IpAddr>>, address: IpAddr) -> ConfigPath {
        item_path(&self.path().key(key), all.get(address.into()).and_then(|located| located.item))
    }

    pub fn finish(self) -> Option<Node> {
        let RareSettings { gateways, overrides } = self.rare.map(|rare| *rare).unwrap_or_default();
        let has_any = overrides != NodeOverrides::default();
        Some(Node {
            name: self.name?.into(),
            os: self.os?,
            pods: pods(&self.cidrs, &gateways),
            addresses: map(&self.addresses, |located| located.value),
            overrides: has_any.then(|| overrides.into()),
        })
    }
}

impl Validator<'_> {
    pub fn node(&mut self, index: usize, raw: RawNode, context: &Context) -> NodeDraft {
        let mut draft = NodeDraft { index, ..NodeDraft::default() };
        draft.name = self.require(raw.name).and_then(|name| self.node_name(name.0.into(), &draft));
        draft.os = self.require(raw.os).map(|word| word.0);
        let mut cidrs_complete = false;
        if let Some(cidrs) = self.require(raw.pod_cidr) {
            draft.has_no_pods = cidrs.is_none();
            if !draft.has_no_pods {
                let path = || draft.path().key("podCIDR");
                (draft.cidrs, cidrs_complete) = self.limited(&cidrs.0, path, "pod CIDR", pod_cidr);
            }
        }
        self.cidrs_in_cluster(&draft, context);
        let addresses_given = raw.address.is_some() || self.is_reported(|| draft.path().key("address"));
        let addresses_complete;
        (draft.addresses, addresses_complete) = self.addresses(raw.address.as_ref(), &draft, context);
        draft.has_address = addresses_given;
        draft.has_egress_interface = raw.egress_interface.is_some();
        if raw.gateway.is_some()
            || raw.next_hop.is_some()
            || raw.egress_interface.is_some()
            || raw.default_gateway.is_some()
            || raw.mtu.is_some()
        {
            let gateways = raw.gateway.map(|gateway| self.gateways(&gateway, &draft, cidrs_complete));
            let next_hop = raw.next_hop.and_then(|next_hop| self.node_next_hop(&next_hop, &draft, context));
            let egress_interface = raw.egress_interface.and_then(|name| self.node_interface(&name.0, &draft));
            let default_gateway =
                raw.default_gateway.and_then(|gateway| self.default_gateway(&gateway.0, &draft, context));
            let gateways = gateways.unwrap_or_default();
            let mtu = raw.mtu.as_ref().map(|mtu| mtu.0);
            self.mtu(mtu, &context.prefixes, || draft.path().key("mtu"));
            let overrides = NodeOverrides { next_hop, egress_interface, default_gateway, mtu };
            draft.rare = Some(RareSettings { gateways, overrides }.into());
        }
        if !addresses_given || addresses_complete {
            self.required_addresses(&draft, addresses_given, context);
        }
        draft
    }

    fn node_name(&mut self, name: String, draft: &NodeDraft) -> Option<String> {
        let message = match name.chars().find(|c| c.is_whitespace() || c.is_control()) {
            _ if name.is_empty() => "the node name is empty".to_owned(),
            _ if name.len() > Node::MAX_NAME_LEN => {
                format!("node name {:?} is longer than {} bytes", shortened(&name), Node::MAX_NAME_LEN)
            }
            Some(c) => format!("{:?} is not a valid node name: {c:?} is not allowed", shortened(&name)),
            None => return Some(name),
        };
        let hint = "use the name that `kubectl get nodes` shows";
        self.report(
            Problem::new(Rule::InvalidNodeName, message, Location::value(draft.path().key("name")))
                .hint(hint),
        );
        None
    }

    fn cidrs_in_cluster(&mut self, draft: &NodeDraft, context: &Context) {
        let prefixes = &context.prefixes;
        for located in &draft.cidrs {
            let cidr = located.value;
            let family = Family::from(cidr.prefix());
            // Formatted only if there is an error.
            let subject = || format!("pod CIDR {cidr} of {}", name_of(draft));
            let location = || Location::value(draft.cidr_path(located));
            let problem = match prefixes.valid.around(cidr.prefix()) {
                None if prefixes.lacks(family) => Problem::new(
                    Rule::FamilyMismatch,
                    format!("{} does not fit clusterPrefix, which has no {family} prefix", subject()),
                    location(),
                )
                .hint(format!("clusterPrefix can be a list: add an {family} prefix")),
                // An invalid cluster prefix may be the one that contains it.
                None if !prefixes.complete => continue,
                None => {
                    let all: Vec<String> = prefixes.valid.of(family).map(ToString::to_string).collect();
                    let (message, hint) = match all.as_slice() {
                        [only] => (
                            format!("{} is not inside the cluster prefix {only}", subject()),
                            format!("use a prefix inside {only}, or enlarge clusterPrefix"),
                        ),
                        all => (
                            format!("{} is not inside any cluster prefix ({})", subject(), all.join(", ")),
                            "use a prefix inside one of them, or add another to clusterPrefix".to_owned(),
                        ),
                    };
                    let prefix = Location::value(ConfigPath::root().key("clusterPrefix"));
                    Problem::new(Rule::CidrOutsideCluster, message, location())
                        .related("the cluster prefix is defined here", prefix)
                        .hint(hint)
                }
                Some(cluster) if *cluster == cidr.prefix() && context.node_count > 1 => Problem::new(
                    Rule::CidrCoversCluster,
                    format!("{} covers the whole cluster prefix", subject()),
                    location(),
                )
                .hint("leave room for the other nodes"),
                Some(_) => continue,
            };
            self.report(problem);
        }
    }

    fn addresses(
        &mut self,
        raw: Option<&OneOrMany<Address>>,
        draft: &NodeDraft,
        context: &Context,
    ) -> (PerFamily<Located<IpAddr>>, bool) {
        let Some(raw) = raw else { return (PerFamily::default(), false) };
        let path = || draft.path().key("address");
        let (addresses, complete) = self.per_family(raw, path, "address", parse::address);
        for (_, Located { value: address, item }) in addresses.iter() {
            if let Some(prefix) = context.prefixes.containing(*address) {
                let message =
                    format!("address {address} of {} is inside the cluster prefix {prefix}", name_of(draft));
                let hint = "use the machine's own address; the cluster prefix is for pods";
                self.report(
                    Problem::new(Rule::AddressInCluster, message, Location::value(item_path(&path(), *item)))
                        .hint(hint),
                );
            }
        }
        (addresses, complete)
    }

    /// Reports missing addresses. Windows nodes require one; `nextHop: node-address` requires one for every address
    /// family of the pods, and on Linux nodes, so does `nat.to: node-address`; `routes.source: node-address` requires one on
    /// Linux nodes for every family of the cluster.
    fn required_addresses(&mut self, draft: &NodeDraft, given: bool, context: &Context) {
        let path = || draft.path().key("address");
        if !given && draft.os == Some(OperatingSystem::Windows) {
            let message = format!("{} has no address, but Windows nodes require one", name_of(draft));
            self.report_missing(
                message,
                path(),
                "add the node's address; hostgw uses it to find the interface",
            );
            return;
        }
        let Some(next_hop) = context.next_hop else { return };
        let own = draft.next_hop();
        let by_address = |family: Family| {
            let router = |hops: &NextHopOverride| hops.routers.get(family).is_some();
            match own {
                Some(own) if router(own) => false,
                Some(NextHopOverride { mode: Some(mode), .. }) => *mode == NextHopMode::NodeAddress,
                _ => !router(&next_hop) && next_hop.mode == Some(NextHopMode::NodeAddress),
            }
        };
        let is_linux = draft.os == Some(OperatingSystem::Linux);
        let is_source = is_linux && context.route_source == RouteSource::NodeAddress;
        for family in Family::ALL.into_iter().filter(|family| draft.addresses.get(*family).is_none()) {
            let has_pods = draft.cidrs_of(family).next().is_some();
            let (message, hint) = if has_pods && by_address(family) {
                (
                    format!("{family} pods but no {family} address, which nextHop: node-address requires"),
                    "add the address; with nextHop: node-address, other nodes route to these pods through it",
                )
            } else if is_source && context.prefixes.valid.has(family) {
                (
                    format!("no {family} address, which routes.source: node-address requires"),
                    "add the address: it becomes the source address of packets that the node sends to pods",
                )
            } else if has_pods && is_linux && context.nat_to_nodes {
                (
                    format!("{family} pods but no {family} address, which nat.to: node-address requires"),
                    "add the address: it becomes the source address of pod traffic that leaves the cluster",
                )
            } else {
                continue;
            };
            self.report_missing(format!("{} has {message}", name_of(draft)), path(), hint);
        }
    }

    fn gateways(
        &mut self,
        raw: &OneOrPrefixes<Address>,
        draft: &NodeDraft,
        cidrs_complete: bool,
    ) -> LocatedList<IpAddr> {
        let path = draft.path().key("gateway");
        let (gateways, _) = self.limited(raw, || path.clone(), "pod gateway", parse::address);
        for (at, Located { value: gateway, item }) in gateways.iter().enumerate() {
            let family = Family::from(*gateway);
            let location = Location::value(item_path(&path, *item));
            let subject = format!("gateway {gateway} of {}", name_of(draft));
            let containing = draft.cidrs_of(family).find(|cidr| cidr.value.prefix().contains(gateway));
            if let Some(cidr) = containing {
                let mut earlier = gateways.iter().take(at);
                if let Some(first) = earlier.find(|first| cidr.value.prefix().contains(&first.value)) {
                    let message = format!("second gateway in pod CIDR {}: {gateway}", cidr.value);
                    let first = Location::value(item_path(&path, first.item));
                    let problem = Problem::new(Rule::OnePerFamily, message, location);
                    let hint = "remove one; each pod CIDR has one pod gateway";
                    self.report(problem.related("the first is defined here", first).hint(hint));
                } else if let Some(problem) = unusable(&subject, *gateway, cidr.value, location) {
                    self.report(problem.hint(default_gateway_hint(draft.os, cidr.value)));
                }
            } else if draft.has_no_pods {
                let message = format!("{subject} has no effect, because podCIDR is none");
                let hint = "remove it: nothing is routed to a machine without pods";
                self.report(Problem::new(Rule::MisplacedGateway, message, location).hint(hint));
            } else if let Some(first) = draft.cidrs_of(family).next() {
                // An invalid pod CIDR may be the one that contains it.
                if !cidrs_complete && draft.cidrs.len() > 1 {
                    continue;
                }
                let (message, hint) = match draft.cidrs_of(family).count() {
                    1 => {
                        let message = format!("{subject} is outside its pod CIDR {}", first.value);
                        (message, default_gateway_hint(draft.os, first.value))
                    }
                    _ => (format!("{subject} is outside its pod CIDRs"), GATEWAY_HINT.to_owned()),
                };
                let problem = Problem::new(Rule::MisplacedGateway, message, location);
                let cidr = Location::value(draft.cidr_path(first));
                self.report(problem.related("the pod CIDR is defined here", cidr).hint(hint));
            } else if cidrs_complete {
                let message = format!("{subject} does not fit podCIDR, which has no {family} prefix");
                self.report(Problem::new(Rule::FamilyMismatch, message, location).hint(GATEWAY_HINT));
            }
        }
        gateways
    }

    fn node_next_hop(
        &mut self,
        raw: &RawNextHop,
        draft: &NodeDraft,
        context: &Context,
    ) -> Option<NextHopOverride> {
        let path = draft.path().key("nextHop");
        if draft.has_no_pods {
            let message = format!("nextHop of {} has no effect, because podCIDR is none", name_of(draft));
            let hint = "remove it: nothing is routed to a machine without pods";
            self.report(Problem::new(Rule::MisplacedGateway, message, Location::key(path)).hint(hint));
            return None;
        }
        self.next_hop(raw, &path, &context.prefixes)
    }

    fn node_interface(&mut self, name: &str, draft: &NodeDraft) -> Option<InterfaceName> {
        let path = draft.path().key("egressInterface");
        match draft.os? {
            OperatingSystem::Linux => self.interface(name, &path, InterfaceName::linux),
            OperatingSystem::Windows => self.interface(name, &path, InterfaceName::windows),
        }
    }

    fn default_gateway(&mut self, text: &str, draft: &NodeDraft, context: &Context) -> Option<IpAddr> {
        let location = Location::value(draft.path().key("defaultGateway"));
        if draft.os == Some(OperatingSystem::Linux) {
            let message =
                format!("{} runs Linux, but defaultGateway is only for Windows nodes", name_of(draft));
            self.report(Problem::new(Rule::DefaultGatewayOnLinux, message, location).hint("remove it"));
            return None;
        }
        let gateway = match parse::router(text) {
            Ok(gateway) => gateway,
            Err(error) => {
                self.reject(error, location);
                return None;
            }
        };
        if let Some(prefix) = context.prefixes.containing(gateway) {
            let message = format!(
                "default gateway {gateway} of {} is inside the cluster prefix {prefix}",
                name_of(draft)
            );
            let hint = "use the address of the router on the machine's own network";
            self.report(Problem::new(Rule::DefaultGatewayInCluster, message, location).hint(hint));
        }
        Some(gateway)
    }
}

const GATEWAY_HINT: &str = "use an address in the pod CIDR";

fn pod_cidr(text: &str) -> Result<PodCidr, ParseError> {
    let prefix = parse::prefix(text).map_err(|error| match text.eq_ignore_ascii_case(PodCidrs::NONE) {
        true => ParseError {
            hint: Some("for a machine without pods, write `none` in lower case and not in a list".to_owned()),
            ..error
        },
        false => error,
    })?;
    PodCidr::new(prefix).map_err(|why| {
        let hint = match why {
            InvalidPodCidr::TooSmall => Some(format!("use a /{} or larger", Family::from(prefix).bits() - 2)),
            InvalidPodCidr::HostBits(_) => None,
        };
        ParseError {
            rule: Rule::InvalidPodCidr,
            message: format!("{text} is not a valid pod CIDR: {why}"),
            hint,
        }
    })
}

/// Returns the pod CIDRs of a node with their pod gateways.
fn pods(cidrs: &[Located<PodCidr>], gateways: &[Located<IpAddr>]) -> PrefixList<PodNetwork> {
    let gateway_in = |cidr: PodCidr| gateways.iter().find(|gateway| cidr.prefix().contains(&gateway.value));
    let cidrs = cidrs.iter().map(|located| located.value);
    cidrs.map(|cidr| PodNetwork { cidr, gateway: gateway_in(cidr).map(|gateway| gateway.value) }).collect()
}

/// Reports a gateway in a pod CIDR that no machine can have.
fn unusable(subject: &str, gateway: IpAddr, cidr: PodCidr, location: Location) -> Option<Problem> {
    let prefix: IpNet = cidr.prefix();
    if gateway == prefix.network() {
        return Some(Problem::new(
            Rule::MisplacedGateway,
            format!("{subject} is the network address of {cidr}"),
            location,
        ));
    }
    // IPv6 has no broadcast address.
    if gateway.is_ipv4() && gateway == prefix.broadcast() {
        return Some(Problem::new(
            Rule::MisplacedGateway,
            format!("{subject} is the broadcast address of {cidr}"),
            location,
        ));
    }
    None
}

fn default_gateway_hint(os: Option<OperatingSystem>, cidr: PodCidr) -> String {
    os.map_or_else(
        || GATEWAY_HINT.to_owned(),
        |os| format!("remove this key to use the default, {}", cidr.gateway(os)),
    )
}
