//! Writes the configuration.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::syntax::{NO_PODS, Syntax},
    masquerade::NatChoice,
    routes::{CommonOptions, RouteHop},
};
use crate::{
    config::Format,
    model::{Family, MAIN_TABLE, NextHopMode, OperatingSystem, PodCidr},
    text::{Untrusted, printable},
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
    /// What its routes lead to, unless it is this node.
    pub hop: Option<HopMode>,
    /// The next hop that only leads to it, if there is one.
    pub reached_by: Option<IpAddr>,
    pub comment: &'static str,
}

/// `nextHop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HopMode {
    Mode(NextHopMode),
    Router(IpAddr),
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

impl HopMode {
    fn text(self) -> String {
        match self {
            Self::Mode(mode) => mode.to_string(),
            Self::Router(router) => router.to_string(),
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
    /// hostgw's own NAT table.
    OwnTable,
    /// `/run/flannel/subnet.env`.
    Flannel,
    /// The on-link route of the recipe.
    OnLinkRoute,
    /// A rule that masquerades packets to other destinations.
    MasqueradeRule,
    /// The pod CIDRs.
    Computed,
}

impl PodPrefixOrigin {
    const fn comment(self) -> &'static str {
        match self {
            Self::Given => "",
            Self::OwnTable => "from the table hostgw",
            Self::Flannel => "FLANNEL_NETWORK in /run/flannel/subnet.env",
            Self::OnLinkRoute => "from the on-link route",
            Self::MasqueradeRule => "from the masquerade rule",
            Self::Computed => "computed from the routes: see `hostgw help HG1112`",
        }
    }
}

/// What the configuration says.
#[derive(Debug, Clone)]
pub(super) struct LiveDocument<'a> {
    pub host_name: &'a Untrusted,
    /// The programs that set the routes and the firewall up.
    pub plugins: &'a [&'static str],
    pub prefixes: &'a [PodPrefix],
    pub options: CommonOptions,
    pub next_hop: HopMode,
    pub is_onlink: bool,
    pub nat: NatChoice,
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
            let keys = self.keys(node);
            match format {
                Format::Yaml => text.extend(["  - ", &syntax.inline(&keys, ""), &comment, "\n"]),
                Format::Toml => {
                    text.extend(["\n[[nodes]]", &comment, "\n"]);
                    for (key, values) in &keys {
                        text.extend([syntax.entry(key, values).as_str(), "\n"]);
                    }
                }
            }
        }
        text
    }

    fn header(&self) -> String {
        let by = match self.plugins {
            [] => "routes that were added by hand".to_owned(),
            plugins => format!("the routes of {}", plugins.join(" and ")),
        };
        // The host name is the only text that others choose, and it must not end the comment.
        let host = printable(self.host_name.as_raw());
        format!(
            "# Imported by hostgw on node {host}, from {by}.\n\
             # The kernel does not know the names of the other nodes: rename them as in `kubectl get nodes -o wide`.\n"
        )
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
        if self.next_hop != HopMode::Mode(NextHopMode::PodGateway) {
            lines.push(syntax.entry("nextHop", &[self.next_hop.text()]));
        }
        if self.is_onlink {
            lines.push(syntax.entry("offLink", &["onlink".to_owned()]));
        }
        let assign = if syntax == Syntax::Toml { " = " } else { ": " };
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
        if self.nat.is_random_fully {
            nat.push(flag("randomFully", true));
        }
        if !nat.is_empty() {
            let comment = if self.nat.masquerade {
                "from the current masquerade rules"
            } else {
                "nothing masquerades pod traffic now"
            };
            lines.push(commented(mapping("nat", &nat), comment));
        }
        let CommonOptions { table, metric, mtu, .. } = self.options;
        let number = |key: &str, value: Option<u32>| value.map(|value| format!("{key}{assign}{value}"));
        let routes: Vec<String> = [
            number("table", Some(table).filter(|table| *table != MAIN_TABLE)),
            number("metric", Some(metric).filter(|metric| *metric != 0)),
            number("mtu", mtu),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !routes.is_empty() {
            lines.push(commented(mapping("routes", &routes), "from the current routes"));
        }
        lines
    }

    fn keys(&self, node: &LiveEntry) -> Vec<(&'static str, Vec<String>)> {
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
        if let Some(hop) = node.hop.filter(|hop| *hop != self.next_hop) {
            keys.push(("nextHop", vec![hop.text()]));
        }
        keys
    }
}

/// The pod gateway that is computed from a pod CIDR on an operating system.
pub(super) fn computed_gateway(cidr: IpNet, os: OperatingSystem) -> Option<IpAddr> {
    PodCidr::new(cidr).ok().map(|cidr| cidr.gateway(os))
}

/// A stable name for a machine of which an address is known.
pub(super) fn name_of(address: IpAddr) -> String {
    let text: String = address.to_string().replace([':', '.'], "-");
    format!("node-{}", text.trim_matches('-'))
}

/// The families of prefixes, IPv4 first.
pub(super) fn families(prefixes: &[PodPrefix]) -> Vec<Family> {
    prefixes.iter().map(|it| Family::from(it.prefix)).collect()
}
