//! Describes a node that another program or a person set up, in a configuration whose plan only takes its routes over.
//!
//! | file | purpose |
//! |---|---|
//! | `iptables` | reads what `iptables-save` prints |
//! | `plugin` | recognizes the programs that created rules, chains, sets and interfaces |
//! | `managed` | what hostgw itself created |
//! | `chains` | the chains of all firewalls |
//! | `nat_rules` | the NAT rules of all firewalls in one form |
//! | `masquerade` | which of them masquerade pod traffic, and `nat` |
//! | `pods` | the pod CIDRs of the node itself |
//! | `routes` | the routes to the pods of other nodes |
//! | `nodes` | the nodes that the routes show |
//! | `source_address` | whether source addresses are the node's own |
//! | `document` | writes the configuration |
//! | `leftover` | what is left over once hostgw has adopted the routes, and the commands that remove it |

mod chains;
mod document;
mod iptables;
mod leftover;
mod managed;
mod masquerade;
mod nat_rules;
mod nodes;
mod plugin;
mod pods;
mod routes;
mod source_address;

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

pub use iptables::IptablesDump;
pub use leftover::{Leftover, LeftoverKind};

use crate::{
    config::{self, ConfigError, Document, Format},
    diagnose::{Diagnostic, Rule},
    model::{Cluster, Family, NextHopMode, SysctlKey, common_prefix},
    state::{Host, PLUGIN_PROTOCOLS, Route, State},
    text::{ShellCommand, Untrusted, count, list, printable},
};
use chains::Chains;
use document::{DescribedBy, HopMode, LiveDocument, LiveEntry, PodPrefix, PodPrefixOrigin, families};
use leftover::{LeftoverScope, Takeover};
use managed::Managed;
use masquerade::{NatChoice, NatReading, NatScope};
use nat_rules::NatRules;
use pods::NodeView;
use routes::{CommonOptions, FoundRoutes, KnownPods, NodeRoute, RouteHop, common_options};
use source_address::{SourceAddresses, SourceFacts};

/// What was read on the node.
#[derive(Debug, Clone, Copy)]
pub struct LiveSources<'a> {
    /// The hostname.
    pub hostname: Option<&'a str>,
    /// The managed objects.
    pub state: &'a State,
    /// Everything else.
    pub host: &'a Host,
    /// The rules of iptables.
    pub iptables: &'a [IptablesDump],
    /// The contents of `/run/flannel/subnet.env`.
    pub flannel: Option<&'a str>,
    /// The sysctls that hostgw has written, from its records.
    pub written: &'a BTreeSet<SysctlKey>,
}

/// The options from the command line.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// The language to write.
    pub format: Format,
    /// The cluster prefixes; none to determine them.
    pub cluster_prefixes: Vec<IpNet>,
    /// The egress interface.
    pub egress_interface: Option<String>,
    /// The pod CIDRs of the node. `Some` without any for a machine without pods; `None` to determine them.
    pub pod_cidrs: Option<Vec<IpNet>>,
    /// The name of the node; `None` for the hostname.
    pub node_name: Option<String>,
    /// The file to which the script that removes leftovers is written.
    pub cleanup: Option<String>,
}

impl LiveOptions {
    /// Returns the command that writes the script again.
    fn command(&self) -> ShellCommand {
        let mut words: Vec<String> = ["hostgw", "import", "--live"].map(str::to_owned).into();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        let joined = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if !self.cluster_prefixes.is_empty() {
            add("--cluster-prefix", joined(&self.cluster_prefixes));
        }
        if let Some(interface) = &self.egress_interface {
            add("--egress-interface", interface.clone());
        }
        match self.pod_cidrs.as_deref() {
            Some([]) => add("--pod-cidr", "none".to_owned()),
            Some(cidrs) => add("--pod-cidr", joined(cidrs)),
            None => {}
        }
        if let Some(name) = &self.node_name {
            add("--node-name", name.clone());
        }
        add("--cleanup", self.cleanup.clone().unwrap_or_else(|| "cleanup.sh".to_owned()));
        ShellCommand::new(words.iter().map(String::as_str))
    }
}

/// A node in a configuration.
#[derive(Debug)]
pub struct LiveImport {
    /// The valid configuration.
    pub text: String,
    /// The number of nodes.
    pub nodes: usize,
    /// The warnings.
    pub findings: Vec<Diagnostic>,
    /// What is left over once hostgw has adopted the routes, in the order of its removal.
    pub leftovers: Vec<Leftover>,
    /// A script that removes it.
    pub script: String,
}

/// The networks that flannel writes to a file: of the cluster and of the node.
#[derive(Debug, Default)]
struct FlannelNetworks {
    cluster: Vec<IpNet>,
    own: Vec<IpNet>,
}

impl FlannelNetworks {
    fn new(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let nets = value.split(',').filter_map(|net| net.parse::<IpNet>().ok()).map(|net| net.trunc());
            match key {
                "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => found.cluster.extend(nets),
                "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET" => found.own.extend(nets),
                _ => {}
            }
        }
        found
    }
}

/// What is known about the pods of one family.
struct FamilyPods<'a> {
    prefixes: Vec<PodPrefix>,
    own: Vec<IpNet>,
    routes: Vec<NodeRoute<'a>>,
    /// The routes that may lead to pods, but are not among `routes`.
    left_out: Vec<&'a Route>,
}

/// Describes a node.
///
/// # Errors
/// Returns every reason why a configuration cannot describe it.
pub fn import_live(sources: &LiveSources<'_>, options: &LiveOptions) -> Result<LiveImport, Vec<Diagnostic>> {
    let one = |error: Diagnostic| vec![error];
    let view = NodeView::new(sources.state, sources.host);
    let tables = sources.iptables.iter().flat_map(IptablesDump::tables).collect();
    let chains = Chains::new(sources.host.firewall.as_ref(), tables);
    let nat_rules = NatRules::new(&chains);
    let flannel = FlannelNetworks::new(sources.flannel.unwrap_or_default());
    let mut by_family = Vec::new();
    for family in Family::ALL {
        let found = family_pods(sources, options, &view, &nat_rules, &flannel, family);
        by_family.push(found.map_err(one)?);
    }
    let all_own: Vec<IpNet> = by_family.iter().flat_map(|found| found.own.iter().copied()).collect();
    if all_own.is_empty() && options.pod_cidrs.is_none() {
        return Err(vec![own_pods_unknown(&options.cluster_prefixes)]);
    }
    let node_routes: Vec<NodeRoute<'_>> =
        by_family.iter().flat_map(|found| found.routes.iter().copied()).collect();
    let left_out: Vec<&Route> = by_family.iter().flat_map(|found| found.left_out.iter().copied()).collect();
    let prefixes: Vec<PodPrefix> =
        by_family.iter().flat_map(|found| found.prefixes.iter().copied()).collect();
    let nets: Vec<IpNet> = prefixes.iter().map(|it| it.prefix).collect();
    let managed = Managed::new(sources.state);
    let on_link: Vec<&Route> = managed.on_link().filter(|route| nets.contains(&route.destination)).collect();
    let is_alone = node_routes.is_empty() && on_link.is_empty();
    // Such as routes through another interface than the one that was given.
    let leads_to_pods = |route: &&Route| {
        let net = route.destination;
        route.next_hop.gateway.is_some() && nets.iter().any(|prefix| prefix.contains(&net) && *prefix != net)
    };
    let has_others = || !left_out.is_empty() || view.routes.iter().any(leads_to_pods);
    if is_alone && (all_own.is_empty() || nets.is_empty() || has_others()) {
        return Err(vec![routes::no_routes(&all_own, &nets, &left_out)]);
    }
    let described = by_family.iter().filter(|found| !found.prefixes.is_empty());
    let own: Vec<IpNet> = described.flat_map(|found| found.own.iter().copied()).collect();
    let mut common = common_options(&node_routes, &on_link).map_err(one)?;
    if is_alone {
        common.device = egress_of_alone(options, &view).map_err(one)?;
        common.table = managed.table_of_unassigned().unwrap_or(common.table);
    }
    let common = common;
    let mut nodes = nodes::others(&node_routes, &view, &common, &nets);
    let families = families(&prefixes);
    let reachable: Vec<(Family, bool)> = families
        .iter()
        .filter(|_| managed.has_routes())
        .map(|family| (*family, on_link.iter().any(|route| route.family() == *family)))
        .collect();
    // Pod gateways would need an on-link route, which is not there.
    let next_hop = match is_alone {
        true => HopMode::Mode(NextHopMode::NodeAddress),
        false if managed.has_routes() => nodes::next_hop(&nodes, &reachable),
        false => nodes::next_hop(&nodes, &nodes::without_pod_gateways(&nodes, &families)),
    };
    let hostname = Untrusted::from(sources.hostname.unwrap_or("this machine"));
    let reading = NatReading::new(&nat_rules, &NatScope { view: &view, prefixes: &nets, own: &own });
    let is_foreign = managed.nat().is_none() && !managed.has_routes() && sources.host.firewall.is_some();
    let legacy = unread_legacy(sources.host, &chains, is_foreign && !reading.choice.masquerade);
    let is_hidden = |found| legacy.as_ref().is_some_and(|(_, nat)| *nat == found);
    // Rules that stay in effect show that pod traffic is not masqueraded in general.
    let is_nat_unknown =
        is_foreign && is_hidden(HiddenNat::Rules) && !reading.choice.masquerade && !reading.has_kept();
    let nat = match (managed.nat(), &sources.host.firewall) {
        (Some(own), _) => own,
        (None, None) => NatChoice::DEFAULT,
        (None, Some(_)) if managed.has_routes() && own.is_empty() => NatChoice::DEFAULT,
        (None, Some(_)) if managed.has_routes() => NatChoice::none(),
        (None, Some(_)) if is_nat_unknown => NatChoice::DEFAULT,
        (None, Some(_)) => reading.choice.clone(),
    };
    let with_source: Vec<&Route> =
        node_routes.iter().map(|found| found.route).chain(on_link.iter().copied()).collect();
    let found = SourceFacts {
        host: sources.host,
        prefixes: &nets,
        own_pods: &own,
        routes: &with_source,
        targets: &nat.targets,
        others: &nodes,
        usual: &nodes::usual_addresses(&view, &nets, &common, &node_routes),
    }
    .addresses();
    let addresses = own_addresses(&found, &managed, sources.state, &with_source, &own);
    nodes.push(nodes::own(sources, options, &view, &own, addresses));
    nodes.sort_by_key(|node| node.pod_cidrs.first().map(|cidr| (Family::from(*cidr), *cidr)));

    let mut findings = findings(&prefixes, &nodes);
    nodes::separate_own(&mut nodes, next_hop, &found.own);
    findings.extend(found.findings);
    if is_alone {
        let is_unmanaged = managed.nat().is_none() && !managed.has_routes();
        findings.extend(is_unmanaged.then(|| only_node(&nets)));
    } else {
        findings.extend(unexplained(&reachable, next_hop, &nodes));
    }
    findings.extend(routes::routers(&node_routes));
    findings.extend(routes::lost_attributes(&node_routes));
    findings.extend(routes::left_out_warning(&left_out));
    if is_foreign {
        findings.extend(reading.findings.iter().cloned());
    }
    findings.extend(legacy.iter().map(|(finding, _)| finding.clone()));
    let is_firewall_unknown = sources.host.firewall.is_none() && managed.nat().is_none();
    findings.extend(is_firewall_unknown.then(firewall_unknown));
    let is_rejected = pods::rejects_unassigned(&view, &nets, common.table);
    let scope = LeftoverScope {
        prefixes: &nets,
        own: &own,
        unassigned_table: is_rejected.then_some(common.table),
        nat: &reading,
        adopted: &adopted(&view, &nets, &common, &node_routes, |family| {
            nodes::uses_pod_gateways(next_hop, &nodes, family)
        }),
    };
    let leftovers = leftover::leftovers(&view, &chains, &scope);
    let mut plugins: BTreeSet<&'static str> = leftover::plugins(&leftovers).into_iter().collect();
    let by_protocol = node_routes.iter().filter_map(|found| {
        PLUGIN_PROTOCOLS.iter().find(|(number, _)| *number == found.route.protocol).map(|(_, plugin)| *plugin)
    });
    plugins.extend(by_protocol);
    plugins.extend(
        (!flannel.own.is_empty() && flannel.own.iter().all(|cidr| own.contains(cidr))).then_some("flannel"),
    );
    let plugins: Vec<&'static str> = plugins.into_iter().collect();
    let routing: Vec<&'static str> =
        plugins.iter().copied().filter(|plugin| plugin::adds_routes(plugin)).collect();
    let masquerades = nat.masquerade;
    let text = LiveDocument {
        hostname: &hostname,
        plugins: &routing,
        origin: match is_alone {
            true if managed.has_routes() || managed.nat().is_some() => DescribedBy::Managed,
            true => DescribedBy::NoRoutes,
            false if with_source.iter().all(|route| route.is_owned()) => DescribedBy::Managed,
            false => DescribedBy::Routes,
        },
        prefixes: &prefixes,
        is_onlink: needs_onlink(&view, &common, &node_routes),
        rejects_unassigned: is_rejected || managed.rejects_unassigned(),
        left_out: &left_out,
        has_own_source: found.are_of_routes,
        has_own_target: found.are_of_nat,
        nat_unknown: match managed.has_routes() && own.is_empty() {
            true => Some("hostgw masquerades nothing on a machine without pods"),
            false if is_nat_unknown => Some("the rules of iptables-legacy could not be read"),
            false if is_firewall_unknown => Some("the firewall rules could not be read"),
            false => None,
        },
        without_nat: match reading.has_kept() {
            true => "other rules stay in effect: see `hostgw help HG1123`",
            false if is_hidden(HiddenNat::Possible) => {
                "unless iptables-legacy does: see `hostgw help HG1007`"
            }
            false => "nothing masquerades pod traffic now",
        },
        sysctls: &sysctls(sources, &families, !own.is_empty()),
        options: common,
        next_hop,
        nat,
        nodes: &nodes,
    }
    .text(options.format);
    validate(&text, options.format)?;
    let family = families.first().copied().unwrap_or(Family::V4);
    let takeover = match is_alone {
        false => Takeover::Routes(family),
        true if masquerades => Takeover::Table(family),
        true => Takeover::Nothing,
    };
    let script = leftover::script(&hostname, &leftovers, takeover, &plugins, &options.command());
    Ok(LiveImport { text, nodes: nodes.len(), findings, leftovers, script })
}

/// Finds the pods of a family.
fn family_pods<'a>(
    sources: &LiveSources<'_>,
    options: &LiveOptions,
    view: &NodeView<'a>,
    nat_rules: &NatRules<'_>,
    flannel: &FlannelNetworks,
    family: Family,
) -> Result<FamilyPods<'a>, Diagnostic> {
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().copied().filter(|net| Family::from(*net) == family).collect()
    };
    let given = of_family(&options.cluster_prefixes);
    if given.is_empty() && !options.cluster_prefixes.is_empty() {
        return Ok(FamilyPods {
            prefixes: Vec::new(),
            own: Vec::new(),
            routes: Vec::new(),
            left_out: Vec::new(),
        });
    }
    let managed = Managed::new(sources.state);
    let by_hostgw = managed.prefixes(family);
    let by_flannel = of_family(&flannel.cluster);
    let on_link = pods::on_link(view, family);
    let mut unreachable = pods::unreachable(view, family);
    let own = match &options.pod_cidrs {
        Some(cidrs) => of_family(cidrs),
        None => {
            let wide: Vec<IpNet> = [&given, &by_hostgw, &by_flannel, &on_link, &unreachable]
                .into_iter()
                .flatten()
                .copied()
                .collect();
            let mut found = managed.own_pods(family);
            if found.is_empty() {
                found = pods::own(view, family, &given, &wide)?;
            }
            // flannel creates the pod interface together with the first pod.
            if found.is_empty() { of_family(&flannel.own) } else { found }
        }
    };
    let contains_own = |nets: &[IpNet]| own.iter().all(|own| nets.iter().any(|net| net.contains(own)));
    let known = |nets: &[IpNet], origin| -> Vec<PodPrefix> {
        let is_certain = matches!(origin, PodPrefixOrigin::Given | PodPrefixOrigin::Managed);
        let nets: Vec<IpNet> = match is_certain {
            true => nets.to_vec(),
            false => nets
                .iter()
                .copied()
                .find(|net| contains_own(&[*net]) && !own.contains(net))
                .into_iter()
                .collect(),
        };
        let is_usable = match origin {
            PodPrefixOrigin::Given => true,
            PodPrefixOrigin::UnreachableRoute | PodPrefixOrigin::MasqueradeRule => !own.is_empty(),
            _ => contains_own(&nets),
        };
        let of = |prefix| PodPrefix { prefix, origin };
        if is_usable { nets.into_iter().map(of).collect() } else { Vec::new() }
    };
    let mut masqueraded = nat_rules.networks(family);
    let is_of_machines = |net: &IpNet| {
        let mut locals = view.host.addresses.iter().map(|local| local.address);
        locals.any(|local| net.contains(&local) && !own.iter().any(|own| own.contains(&local)))
    };
    masqueraded.retain(|net| !is_of_machines(net));
    unreachable.retain(|net| !is_of_machines(net));
    masqueraded.sort_by_key(|net| std::cmp::Reverse(net.prefix_len()));
    let by_origin = [
        (&given, PodPrefixOrigin::Given),
        (&by_hostgw, PodPrefixOrigin::Managed),
        (&by_flannel, PodPrefixOrigin::Flannel),
        (&on_link, PodPrefixOrigin::OnLinkRoute),
        (&unreachable, PodPrefixOrigin::UnreachableRoute),
        (&masqueraded, PodPrefixOrigin::MasqueradeRule),
    ];
    let prefixes =
        by_origin.into_iter().map(|(nets, origin)| known(nets, origin)).find(|found| !found.is_empty());
    let mut prefixes = prefixes.unwrap_or_default();
    let nets: Vec<IpNet> = prefixes.iter().map(|it| it.prefix).collect();
    let is_exact = prefixes.iter().all(|it| it.origin != PodPrefixOrigin::MasqueradeRule);
    let device = options.egress_interface.as_deref();
    let network = KnownPods { family, own: &own, prefixes: &nets, is_exact, device };
    let FoundRoutes { routes, doubtful } = network.routes(view)?;
    let with_doubtful = |mut left_out: Vec<&'a Route>| {
        left_out.extend(doubtful.iter().copied());
        left_out.sort_by_cached_key(|route| route.key());
        left_out.dedup_by_key(|route| route.key());
        left_out
    };
    // Nothing shows that pods of other nodes have this family.
    let is_managed = prefixes.iter().any(|it| by_hostgw.contains(&it.prefix));
    if routes.is_empty() && !is_managed && (own.is_empty() || prefixes.is_empty()) {
        let left_out = network.left_out(view, if nets.is_empty() { &own } else { &nets }, &routes)?;
        let left_out = with_doubtful(left_out);
        return Ok(FamilyPods { prefixes: Vec::new(), own, routes, left_out });
    }
    if prefixes.is_empty() {
        routes::check_computed(&own, &routes)?;
        let cidrs = own.iter().copied().chain(routes.iter().map(|found| found.route.destination));
        let computed = common_prefix(cidrs);
        prefixes.extend(computed.map(|prefix| PodPrefix { prefix, origin: PodPrefixOrigin::Computed }));
    }
    let nets: Vec<IpNet> = prefixes.iter().map(|it| it.prefix).collect();
    let network = KnownPods { prefixes: &nets, ..network };
    let left_out =
        if is_managed { Vec::new() } else { with_doubtful(network.left_out(view, &nets, &routes)?) };
    Ok(FamilyPods { prefixes, own, routes, left_out })
}

/// The sysctls that hostgw has written, with their values, except the forwarding switches that the cluster prefixes imply.
fn sysctls<'a>(
    sources: &LiveSources<'a>,
    families: &[Family],
    has_pods: bool,
) -> Vec<(&'a SysctlKey, &'a Untrusted)> {
    let switches: Vec<SysctlKey> = match has_pods {
        true => families.iter().map(|family| SysctlKey::forwarding(*family)).collect(),
        false => Vec::new(),
    };
    let written = sources.state.sysctls.iter().filter(|(key, _)| sources.written.contains(key));
    written.filter(|(key, value)| !(switches.contains(key) && **value == "1")).collect()
}

/// The addresses of this node that the configuration needs.
fn own_addresses(
    found: &SourceAddresses,
    managed: &Managed<'_>,
    state: &State,
    routes: &[&Route],
    own: &[IpNet],
) -> Vec<IpAddr> {
    let is_needed = |family: Family| {
        // Without an address of the family, hostgw masquerades nothing, and the node has no pods of it.
        let is_masqueraded = !found.are_of_nat || managed.nat().is_none() || state.nat.get(family).is_some();
        let is_present = routes.iter().any(|route| route.family() == family)
            || own.iter().any(|cidr| Family::from(*cidr) == family);
        let is_target = found.are_of_nat && state.nat.get(family).is_some();
        found.are_of_routes || is_target || (is_present && is_masqueraded)
    };
    let families = Family::ALL.into_iter().filter(|family| is_needed(*family));
    families.filter_map(|family| found.own.get(family).copied()).collect()
}

/// What is unknown about the NAT rules of iptables-legacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HiddenNat {
    /// Nothing.
    None,
    /// There are rules, but not what they do.
    Rules,
    /// Whether there are any.
    Possible,
}

/// Warns of tables of iptables-legacy whose rules could not be read. Whether there are any only matters if `nothing_else`
/// masquerades packets.
fn unread_legacy(host: &Host, chains: &Chains<'_>, nothing_else: bool) -> Option<(Diagnostic, HiddenNat)> {
    let firewall = host.firewall.as_ref()?;
    let is_read = |name: &&Untrusted| {
        chains.iptables.iter().any(|table| table.is_legacy && **name == *table.name && table.does_anything())
    };
    let unread: Vec<&Untrusted> = firewall.legacy.iter().filter(|name| !is_read(name)).collect();
    let has_nat = unread.iter().any(|name| **name == *"nat");
    let (message, nat) = match (unread.as_slice(), firewall.legacy_unknown.as_slice()) {
        ([], []) => return None,
        ([], _) if !nothing_else => return None,
        ([], programs) => (
            format!("the tables of {} cannot be listed, which requires root", list(programs, 2)),
            HiddenNat::Possible,
        ),
        (tables, _) => (
            format!("iptables-legacy has rules in {}, which could not be read", list(tables, 5)),
            if has_nat { HiddenNat::Rules } else { HiddenNat::None },
        ),
    };
    let unknown = match nat {
        HiddenNat::None => "the list of what is left over is incomplete",
        _ => "they may masquerade pod traffic, and the list of what is left over is incomplete",
    };
    let remedy = "compare `nat` with what `iptables-legacy-save` and `ip6tables-legacy-save` print as root; with these programs \
                  installed, hostgw reads the rules itself";
    let finding = Diagnostic::new(Rule::LegacyTables, format!("{message}: {unknown}")).with_remedy(remedy);
    Some((finding, nat))
}

/// Warns that it is unknown what the node masquerades.
fn firewall_unknown() -> Diagnostic {
    let message = "the firewall rules could not be read, so `nat` was not imported: this configuration masquerades all pod traffic \
                   that leaves the cluster";
    Diagnostic::new(Rule::FirewallUnknown, message.to_owned())
        .with_remedy("run `hostgw import --live` as root, or with CAP_NET_ADMIN")
}

fn own_pods_unknown(prefixes: &[IpNet]) -> Diagnostic {
    let inside = if prefixes.is_empty() { String::new() } else { format!(" in {}", list(prefixes, 4)) };
    let message = format!("found no pod interface{inside} on this node, so its pod CIDR is unknown");
    Diagnostic::new(Rule::OwnPodsUnknown, message)
        .with_remedy("pass it with --pod-cidr, or `--pod-cidr none` for a machine without pods")
}

/// The egress interface of a node without routes to other nodes: the one to the default gateway, if it is not given.
fn egress_of_alone(options: &LiveOptions, view: &NodeView<'_>) -> Result<Untrusted, Diagnostic> {
    if let Some(given) = &options.egress_interface {
        if view.host.link(given).is_none() {
            let message = format!("found no routes to other nodes, and no interface {}", printable(given));
            return Err(Diagnostic::new(Rule::NoNodeRoutes, message)
                .with_remedy("`ip link` lists the interfaces of this node"));
        }
        return Ok(given.as_str().into());
    }
    let defaults = view.routes.iter().filter(|route| route.destination.prefix_len() == 0);
    let devices: BTreeSet<&Untrusted> = defaults.filter_map(|route| route.next_hop.device.as_ref()).collect();
    match devices.into_iter().collect::<Vec<_>>().as_slice() {
        [device] => Ok((*device).clone()),
        devices => {
            let why = match devices {
                [] => "there is no default route".to_owned(),
                devices => format!("there are default routes through {}", list(devices, 4)),
            };
            let message =
                format!("found no routes to other nodes, and {why}, so the egress interface is unknown");
            Err(Diagnostic::new(Rule::NoNodeRoutes, message)
                .with_remedy("pass --egress-interface with the interface that connects the nodes"))
        }
    }
}

/// Warns that nothing shows other nodes.
fn only_node(prefixes: &[IpNet]) -> Diagnostic {
    let message = format!(
        "found no routes to the pod CIDRs of other nodes in {}, so the configuration contains only this node; nextHop is assumed",
        list(prefixes, 4)
    );
    Diagnostic::new(Rule::NextHopUnknown, message).with_remedy(
        "if the cluster has other nodes, run this on a node whose routes are set up, or use `kubectl get nodes -o json | hostgw import`",
    )
}

/// The routes that hostgw adopts: those to other nodes and, in the families whose pod gateways are next hops, those in the place
/// of the on-link routes.
fn adopted<'a>(
    view: &NodeView<'a>,
    prefixes: &[IpNet],
    common: &CommonOptions,
    routes: &[NodeRoute<'a>],
    uses_pod_gateways: impl Fn(Family) -> bool,
) -> Vec<&'a Route> {
    let is_on_link = |route: &&&Route| {
        uses_pod_gateways(route.family())
            && prefixes.contains(&route.destination)
            && route.table == common.table
            && common.has_metric(route)
    };
    let on_link = view.routes.iter().filter(is_on_link).copied();
    routes.iter().map(|found| found.route).chain(on_link).collect()
}

/// Warns if the next hops do not explain for which families hostgw makes pod gateways reachable.
fn unexplained(reachable: &[(Family, bool)], next_hop: HopMode, nodes: &[LiveEntry]) -> Option<Diagnostic> {
    let is_explained = |(family, is_on_link): &&(Family, bool)| {
        nodes::uses_pod_gateways(next_hop, nodes, *family) == *is_on_link
    };
    let (family, is_on_link) = reachable.iter().find(|it| !is_explained(it))?;
    let what = if *is_on_link { "manages an on-link route" } else { "manages no on-link route" };
    let message = format!(
        "hostgw {what} to the {family} cluster prefix, but the next hops of the other routes are inconsistent with that"
    );
    Some(Diagnostic::new(Rule::NextHopUnknown, message).with_remedy(
        "set `nextHop` to its previous value, such as the address of a router, and compare with `hostgw plan`",
    ))
}

/// Whether the kernel only accepts the next hops because the routes say that they are on-link.
fn needs_onlink(view: &NodeView<'_>, common: &CommonOptions, routes: &[NodeRoute<'_>]) -> bool {
    let device = common.device.as_raw();
    let covers = |gateway: IpAddr| {
        view.routes.iter().any(|route| route.is_on_link(device) && route.destination.contains(&gateway))
    };
    routes.iter().any(|NodeRoute { route, hop }| {
        !matches!(hop, RouteHop::PodGateway(_))
            && route.next_hop.onlink
            && route.next_hop.gateway.is_some_and(|gateway| !covers(gateway))
    })
}

/// Warns of what the kernel does not show.
fn findings(prefixes: &[PodPrefix], nodes: &[LiveEntry]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let computed: Vec<IpNet> =
        prefixes.iter().filter(|it| it.origin == PodPrefixOrigin::Computed).map(|it| it.prefix).collect();
    if !computed.is_empty() {
        let message = format!(
            "clusterPrefix is computed as {}, the smallest that contains the pod CIDRs in this node's routes; the next node may \
             not fit, and changing it later changes NAT on every node",
            list(&computed, 2)
        );
        findings.push(Diagnostic::new(Rule::ClusterPrefixComputed, message).with_remedy(
            "pass --cluster-prefix with the value of kube-controller-manager's --cluster-cidr (kubeadm: podSubnet)",
        ));
    }
    let of_one = |family: Family| {
        nodes.iter().filter(move |node| {
            node.hop.is_some() && node.pod_cidrs.iter().all(|cidr| Family::from(*cidr) == family)
        })
    };
    if Family::ALL.into_iter().all(|family| of_one(family).next().is_some()) {
        let names: Vec<&str> = of_one(Family::V6).map(|node| node.name.as_str()).collect();
        let message = format!(
            "routes do not show which IPv4 and IPv6 pod CIDRs belong to the same node, so {} listed once for each family: {}",
            if names.len() == 1 { "a node is" } else { "nodes are" },
            list(&names, 8)
        );
        findings.push(Diagnostic::new(Rule::FamiliesApart, message).with_remedy(
            "merge the two entries of each node before you use the file on other nodes; `kubectl get nodes -o json` has both",
        ));
    }
    let windows: Vec<&str> =
        nodes.iter().filter(|node| node.comment == nodes::WINDOWS).map(|node| node.name.as_str()).collect();
    if !windows.is_empty() {
        let message = format!(
            "{} may run Windows, because the pod gateway is the second address of the pod CIDR: {}",
            count(windows.len(), "node"),
            list(&windows, 8)
        );
        findings.push(
            Diagnostic::new(Rule::OsUncertain, message)
                .with_remedy("for a Windows node, set `os: windows` and its address, and remove `gateway`"),
        );
    }
    findings
}

/// Checks the configuration. Its errors show what a configuration cannot describe.
fn validate(text: &str, format: Format) -> Result<Cluster, Vec<Diagnostic>> {
    let document = Document::new("the imported configuration", text.to_owned(), format);
    config::load(&document).map_err(|invalid| invalid.errors().iter().map(problem).collect())
}

/// An error in a configuration that was not written anywhere, without its place.
fn problem(error: &ConfigError) -> Diagnostic {
    let remedy = match error.rule {
        Rule::InvalidNodeName | Rule::DuplicateNodeName => {
            Some("pass the name of this node with --node-name".to_owned())
        }
        Rule::CidrOutsideCluster | Rule::CidrCoversCluster | Rule::SpecialPrefix | Rule::AddressInCluster => {
            Some("pass the cluster prefix with --cluster-prefix".to_owned())
        }
        _ => error.hint.clone(),
    };
    Diagnostic::new(error.rule, error.message.clone()).with_remedy_if(remedy)
}
