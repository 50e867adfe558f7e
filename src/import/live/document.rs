//! Writes the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    super::syntax::{NO_PODS, Syntax},
    masquerade::NatChoice,
    routes::{CommonOptions, RouteHop},
};
use crate::{
    config::Format,
    model::{Family, MAIN_TABLE, NextHopMode, OperatingSystem, PodCidr, SysctlKey},
    state::Route,
    text::{Untrusted, list, printable},
};

/// A node of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveEntry {
    pub name: String,
    /// Empty for a machine without pods.
    pub pod_cidrs: Vec<IpNet>,
    pub addresses: Vec<IpAddr>,
    /// The pod gateways that differ from the computed ones.
    pub gateways: Vec<IpAddr>,
    /// The kind of next hop of its routes; `None` for this node.
    pub hop: Option<HopMode>,
    /// The next hop of its routes, if no other node has the same.
    pub reached_by: Option<IpAddr>,
    /// The MTU of its routes, if it differs from `routes.mtu`.
    pub mtu: Option<u32>,
    pub comment: &'static str,
}

/// `nextHop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HopMode {
    Mode(NextHopMode),
    Router(IpAddr),
    /// A router for each family.
    Routers(Ipv4Addr, Ipv6Addr),
}

impl From<RouteHop> for HopMode {
    fn from(hop: RouteHop) -> Self {
        match hop {
            RouteHop::NodeAddress(_) => Self::Mode(NextHopMode::NodeAddress),
            RouteHop::PodGateway(_) => Self::Mode(NextHopMode::PodGateway),
            RouteHop::Router(router) => Self::Router(router),
        }
    }
}

impl LiveEntry {
    /// `nextHop` of the node, if it differs from that of the cluster.
    pub fn override_of(&self, cluster: HopMode) -> Option<HopMode> {
        let mut families = self.pod_cidrs.iter().map(|cidr| Family::from(*cidr));
        self.hop.filter(|hop| families.any(|family| cluster.in_family(family) != *hop))
    }
}

impl HopMode {
    pub const POD_GATEWAY: Self = Self::Mode(NextHopMode::PodGateway);

    /// Returns the next hop of a family's routes if this is `nextHop` of the cluster: without a router of the family, pod gateways.
    pub fn in_family(self, family: Family) -> Self {
        match self {
            Self::Router(router) if Family::from(router) != family => Self::POD_GATEWAY,
            Self::Routers(router, _) if family == Family::V4 => Self::Router(router.into()),
            Self::Routers(_, router) => Self::Router(router.into()),
            other => other,
        }
    }

    fn texts(self) -> Vec<String> {
        match self {
            Self::Mode(mode) => vec![mode.to_string()],
            Self::Router(router) => vec![router.to_string()],
            Self::Routers(v4, v6) => vec![v4.to_string(), v6.to_string()],
        }
    }
}

/// A cluster prefix with its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PodPrefix {
    pub prefix: IpNet,
    pub origin: PodPrefixOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodPrefixOrigin {
    /// The command line.
    Given,
    /// The table or the routes of hostgw.
    Managed,
    /// `/run/flannel/subnet.env`.
    Flannel,
    /// The on-link route of the recipe.
    OnLinkRoute,
    /// A route that rejects packets to pods that no node has.
    UnreachableRoute,
    /// A rule that masquerades packets to other destinations.
    MasqueradeRule,
    /// The pod CIDRs.
    Computed,
}

impl PodPrefixOrigin {
    const fn comment(self) -> &'static str {
        match self {
            Self::Given => "",
            Self::Managed => "from the objects that hostgw manages",
            Self::Flannel => "FLANNEL_NETWORK in /run/flannel/subnet.env",
            Self::OnLinkRoute => "from the on-link route",
            Self::UnreachableRoute => "from the unreachable route",
            Self::MasqueradeRule => "from the masquerade rule",
            Self::Computed => "computed from the routes: see `hostgw help HG1112`",
        }
    }
}

/// What shows the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DescribedBy {
    /// The routes and the NAT table of hostgw itself.
    Managed,
    /// The routes of others.
    Routes,
    /// The pod interface and the firewall of a node without routes to others.
    NoRoutes,
}

/// The contents of the configuration.
#[derive(Debug, Clone)]
pub(super) struct LiveDocument<'a> {
    pub hostname: &'a Untrusted,
    /// The programs that set up the routes and the firewall.
    pub plugins: &'a [&'static str],
    pub origin: DescribedBy,
    pub prefixes: &'a [PodPrefix],
    pub options: CommonOptions,
    pub next_hop: HopMode,
    pub is_onlink: bool,
    pub rejects_unassigned: bool,
    /// The routes that may lead to pods, but are not imported.
    pub left_out: &'a [&'a Route],
    /// Whether the routes prefer the node's own address as the source.
    pub has_own_source: bool,
    /// Whether the source of masqueraded packets is the node's own address.
    pub has_own_target: bool,
    pub nat: NatChoice,
    /// Why `nat` is unknown.
    pub nat_unknown: Option<&'static str>,
    /// The comment if nothing is masqueraded.
    pub without_nat: &'static str,
    pub sysctls: &'a [(&'a SysctlKey, &'a Untrusted)],
    pub nodes: &'a [LiveEntry],
}

impl LiveDocument<'_> {
    /// Writes the configuration. The text ends with a newline.
    pub fn text(&self, format: Format) -> String {
        let syntax = match format {
            Format::Yaml => Syntax::Yaml,
            Format::Toml => Syntax::Toml,
        };
        let mut text = self.header();
        for line in self.head(syntax) {
            text.extend([line.as_str(), "\n"]);
        }
        if syntax == Syntax::Yaml {
            text.push_str("nodes:\n");
        }
        for node in self.nodes {
            let comment =
                if node.comment.is_empty() { String::new() } else { format!(" # {}", node.comment) };
            let entries = self.entries(node, syntax);
            match format {
                Format::Yaml => text.extend(["  - {", &entries.join(", "), "}", &comment, "\n"]),
                Format::Toml => {
                    text.extend(["\n[[nodes]]", &comment, "\n"]);
                    for entry in &entries {
                        text.extend([entry, "\n"]);
                    }
                }
            }
        }
        text
    }

    fn header(&self) -> String {
        let by = match (self.plugins, self.origin) {
            ([], DescribedBy::Managed) => "the routes that hostgw manages".to_owned(),
            ([], DescribedBy::Routes) => "routes that were added by hand".to_owned(),
            ([], DescribedBy::NoRoutes) => "its pod interface and firewall rules".to_owned(),
            (plugins, DescribedBy::NoRoutes) => {
                format!("the pod network of {}", plugins.join(" and "))
            }
            (plugins, _) => format!("the routes of {}", plugins.join(" and ")),
        };
        // The hostname is the only text that others choose, and it must not end the comment.
        let host = printable(self.hostname.as_raw());
        // The destinations and next hops are numbers.
        let left_out = match self.left_out {
            [] => String::new(),
            routes => {
                let named: Vec<String> = routes.iter().map(|route| destination_and_gateway(route)).collect();
                let they_lead = if named.len() == 1 { "it leads" } else { "they lead" };
                format!(
                    "# Not imported, because it is unclear whether {they_lead} to pods: {} (see `hostgw help HG1125`)\n",
                    list(&named, 8)
                )
            }
        };
        let names = match self.nodes {
            [] | [_] => "",
            _ => {
                "# The kernel does not know the names of the other nodes: rename them as in `kubectl get nodes -o wide`.\n"
            }
        };
        format!("# Imported by hostgw on node {host}, from {by}.\n{names}{left_out}")
    }

    fn head(&self, syntax: Syntax) -> Vec<String> {
        let commented = |entry: String, comment: &str| {
            if comment.is_empty() { entry } else { format!("{entry} # {comment}") }
        };
        let prefixes: Vec<String> = self.prefixes.iter().map(|it| it.prefix.to_string()).collect();
        let mut comments: Vec<&str> = self.prefixes.iter().map(|it| it.origin.comment()).collect();
        comments.retain(|comment| !comment.is_empty());
        comments.dedup();
        let device = self.options.device.as_raw().to_owned();
        let mut lines = vec![
            commented(syntax.entry("clusterPrefix", &prefixes), &comments.join("; ")),
            syntax.entry("egressInterface", &[device]),
        ];
        if self.next_hop != HopMode::POD_GATEWAY {
            lines.push(syntax.entry("nextHop", &self.next_hop.texts()));
        }
        if self.is_onlink {
            lines.push(syntax.entry("offLink", &["onlink".to_owned()]));
        }
        let assign = assign(syntax);
        let mapping = |key: &str, entries: &[String]| {
            let space = if syntax == Syntax::Toml { " " } else { "" };
            format!("{key}{assign}{{{space}{}{space}}}", entries.join(", "))
        };
        let flag = |key: &str, value: bool| format!("{key}{assign}{value}");
        let mut nat = Vec::new();
        if !self.nat.masquerade {
            nat.push(flag("masquerade", false));
        }
        if !self.nat.exclude.is_empty() {
            let nets: Vec<String> =
                self.nat.exclude.iter().map(|net| syntax.scalar(&net.to_string())).collect();
            nat.push(format!("exclude{assign}[{}]", nets.join(", ")));
        }
        if self.nat.is_source_pods {
            nat.push(syntax.entry("source", &["pods".to_owned()]));
        }
        if self.has_own_target {
            nat.push(syntax.entry("to", &["node-address".to_owned()]));
        }
        if self.nat.is_random_fully {
            nat.push(flag("randomFully", true));
        }
        if let Some(why) = self.nat_unknown {
            lines.push(format!("# nat is unknown: {why}"));
        }
        if !nat.is_empty() {
            let comment =
                if self.nat.masquerade { "from the current masquerade rules" } else { self.without_nat };
            lines.push(commented(mapping("nat", &nat), comment));
        }
        let CommonOptions { table, metric, mtu, .. } = self.options;
        let number = |key: &str, value: Option<u32>| value.map(|value| format!("{key}{assign}{value}"));
        let word =
            |key: &str, value: &str, is_set: bool| is_set.then(|| syntax.entry(key, &[value.to_owned()]));
        let routes: Vec<String> = [
            number("table", Some(table).filter(|table| *table != MAIN_TABLE)),
            number("metric", Some(metric).filter(|metric| *metric != 0)),
            number("mtu", mtu),
            word("source", "node-address", self.has_own_source),
            word("unassigned", "unreachable", self.rejects_unassigned),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !routes.is_empty() {
            lines.push(commented(mapping("routes", &routes), "from the current routes"));
        }
        let sysctls: Vec<String> = self
            .sysctls
            .iter()
            .map(|(key, value)| {
                format!("{}{assign}{}", syntax.scalar(key.as_str()), syntax.scalar(value.as_raw()))
            })
            .collect();
        if !sysctls.is_empty() {
            lines.push(commented(mapping("sysctls", &sysctls), "written by hostgw"));
        }
        lines
    }

    /// The keys of a node with their values.
    fn entries(&self, node: &LiveEntry, syntax: Syntax) -> Vec<String> {
        let texts = |values: &[IpAddr]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let pod_cidrs = match node.pod_cidrs.is_empty() {
            true => vec![NO_PODS.to_owned()],
            false => node.pod_cidrs.iter().map(ToString::to_string).collect(),
        };
        let mut keys =
            vec![("name", vec![node.name.clone()]), ("os", vec!["linux".to_owned()]), ("podCIDR", pod_cidrs)];
        if !node.addresses.is_empty() {
            keys.push(("address", texts(&node.addresses)));
        }
        if !node.gateways.is_empty() {
            keys.push(("gateway", texts(&node.gateways)));
        }
        if let Some(hop) = node.override_of(self.next_hop) {
            keys.push(("nextHop", hop.texts()));
        }
        let mut entries: Vec<String> = keys.iter().map(|(key, values)| syntax.entry(key, values)).collect();
        entries.extend(node.mtu.map(|mtu| format!("mtu{}{mtu}", assign(syntax))));
        entries
    }
}

fn destination_and_gateway(route: &Route) -> String {
    match route.next_hop.gateway {
        Some(gateway) => format!("{} via {gateway}", route.destination),
        None => route.destination.to_string(),
    }
}

/// What separates a key and its value.
const fn assign(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Toml => " = ",
        Syntax::Yaml | Syntax::Json => ": ",
    }
}

/// The pod gateway that is computed from a pod CIDR on an operating system.
pub(super) fn computed_gateway(cidr: IpNet, os: OperatingSystem) -> Option<IpAddr> {
    PodCidr::new(cidr).ok().map(|cidr| cidr.gateway(os))
}

/// Returns a stable name for a machine, derived from its address.
pub(super) fn name_of(address: IpAddr) -> String {
    let text: String = address.to_string().replace([':', '.'], "-");
    format!("node-{}", text.trim_matches('-'))
}

/// The families of prefixes, IPv4 first.
pub(super) fn families(prefixes: &[PodPrefix]) -> Vec<Family> {
    let mut families: Vec<Family> = prefixes.iter().map(|it| Family::from(it.prefix)).collect();
    families.dedup();
    families
}
