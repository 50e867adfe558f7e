//! `hostgw import --live` on a node that hostgw manages: what hostgw wrote is read back whole.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use hostgw::{
    config::{self, Document, Format},
    diagnose::Rule,
    import::{LiveImport, LiveOptions, LiveSources, import_live},
    model::{Cluster, Family, Node, OffLink, OperatingSystem, SysctlKey},
    plan::{self, ForeignPolicy, Observed, OriginalSysctls, OriginalValue, Scope},
    state::{Firewall, Host, InterfaceAddress, NeighborEntry, NextHop, Route, RouteType},
};

use crate::{
    import_live_cases::{link, usual_route},
    support::clusters,
};

/// What can differ between two nodes with the same configuration.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Whether the network of the nodes is on the link, or only a gateway is.
    pub is_on_link: bool,
    off_link: OffLink,
    /// Whether the neighbor table has all nodes.
    has_neighbors: bool,
    /// The last part of the address of the default gateway.
    default_gateway: Option<u8>,
    /// Whether hostgw's records can be read.
    has_records: bool,
    format: Format,
}

pub fn surroundings() -> impl Strategy<Value = Surroundings> {
    let off_link = prop::sample::select(vec![OffLink::Skip, OffLink::Gateway, OffLink::Onlink]);
    let gateway = prop::option::of(prop::sample::select(vec![100_u8, 254]));
    let flags = any::<[bool; 3]>();
    let format = prop::sample::select(vec![Format::Yaml, Format::Toml]);
    (prop::bool::weighted(0.7), off_link, gateway, flags, format).prop_map(
        |(is_on_link, off_link, default_gateway, [has_neighbors, has_records, _], format)| Surroundings {
            is_on_link,
            off_link,
            has_neighbors,
            default_gateway,
            has_records,
            format,
        },
    )
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// A route that the kernel or the administrator added.
fn foreign_route(destination: IpNet, gateway: Option<IpAddr>, device: &str) -> Route {
    let protocol = if gateway.is_none() { 2 } else { 4 };
    let (to, through) = (destination.to_string(), gateway.map(|gateway| gateway.to_string()));
    let usual = usual_route((&to, through.as_deref()));
    let next_hop = NextHop { device: Some(device.into()), ..usual.next_hop };
    Route { protocol, next_hop, ..usual }
}

/// The addresses of a node on the network of the nodes. A node without configured ones has some, too.
fn addresses_of(node: &Node) -> Vec<IpAddr> {
    match node.addresses.is_empty() {
        true => vec!["172.30.0.250".parse().expect("an address"), "fd00:1::250".parse().expect("an address")],
        false => node.addresses.iter().map(|(_, address)| *address).collect(),
    }
}

fn host(cluster: &Cluster, index: usize, surroundings: &Surroundings) -> Host {
    let node = &cluster.nodes[index];
    let device = cluster.egress_interface_of(node).expect("an interface").as_str();
    let mut addresses = Vec::new();
    let mut foreign = Vec::new();
    for address in addresses_of(node) {
        let (network, length) = if address.is_ipv4() { (24, 32) } else { (64, 128) };
        let length = if surroundings.is_on_link { network } else { length };
        let prefix = IpNet::new(address, length).expect("a prefix");
        addresses.push(InterfaceAddress { device: device.into(), address, prefix, flags: Vec::new() });
        if surroundings.is_on_link {
            foreign.push(foreign_route(prefix.trunc(), None, device));
        }
    }
    let number = surroundings.default_gateway.or((!surroundings.is_on_link).then_some(254));
    if let Some(number) = number {
        for (all, gateway) in
            [("0.0.0.0/0", format!("172.30.0.{number}")), ("::/0", format!("fd00:1::{number}"))]
        {
            let gateway: IpAddr = gateway.parse().expect("an address");
            if !surroundings.is_on_link {
                foreign.push(foreign_route(gateway.into(), None, device));
            }
            foreign.push(foreign_route(net(all), Some(gateway), device));
        }
    }
    for pods in &node.pods {
        let prefix = IpNet::new(node.gateway_of(pods), pods.cidr.prefix().prefix_len()).expect("a prefix");
        addresses.push(InterfaceAddress {
            device: "cni0".into(),
            address: prefix.addr(),
            prefix,
            flags: Vec::new(),
        });
        foreign.push(foreign_route(prefix.trunc(), None, "cni0"));
    }
    let mut neighbors = Vec::new();
    for (number, other) in cluster.nodes.iter().enumerate().filter(|(number, _)| *number != index) {
        let known = other.addresses.iter().map(|(_, address)| *address).chain(other.pod_gateways());
        neighbors.extend(known.filter(|_| surroundings.has_neighbors).map(|address| NeighborEntry {
            device: device.into(),
            address,
            mac_address: Some(format!("02:00:00:00:00:{number:02x}").into()),
            unanswered: false,
            permanent: false,
            external: false,
            answers: Vec::new(),
        }));
    }
    Host {
        links: vec![link("lo", 1, None), link(device, 2, None), link("cni0", 3, Some("bridge"))],
        addresses,
        foreign,
        neighbors,
        firewall: Some(Firewall::default()),
        ..Host::default()
    }
}

/// What hostgw writes on a node, and the records of it.
pub fn managed(cluster: &Cluster, index: usize, surroundings: &Surroundings) -> (Observed, OriginalSysctls) {
    let mut observed = Observed { host: host(cluster, index, surroundings), ..Observed::default() };
    let mut desired = plan::desired(cluster, index, &OriginalSysctls::default()).expect("a Linux node");
    desired.adapt_off_link(cluster, index, &observed);
    observed.state = desired.state;
    let value = |value: &hostgw::text::Untrusted| OriginalValue {
        value: "7".into(),
        with: None,
        last: value.clone(),
        written: true,
    };
    let sysctls = observed.state.sysctls.iter();
    let records = OriginalSysctls(sysctls.map(|(key, live)| (key.clone(), value(live))).collect());
    (observed, if surroundings.has_records { records } else { OriginalSysctls::default() })
}

fn imported(
    observed: &Observed,
    records: &OriginalSysctls,
    options: &LiveOptions,
) -> Result<LiveImport, Vec<hostgw::diagnose::Diagnostic>> {
    let written: BTreeSet<SysctlKey> = records.0.keys().cloned().collect();
    let sources = LiveSources {
        hostname: Some("machine"),
        state: &observed.state,
        host: &observed.host,
        iptables: &[],
        flannel: None,
        written: &written,
    };
    import_live(&sources, options)
}

/// The errors of nodes whose routes and rules do not show everything, and what the command line then says.
fn with_help(cluster: &Cluster, index: usize, mut options: LiveOptions, rule: Rule) -> Option<LiveOptions> {
    let own: Vec<IpNet> = cluster.nodes[index].pods.iter().map(|pods| pods.cidr.prefix()).collect();
    match rule {
        // Only `nat.source: pods` writes the node's own pod CIDRs. Without it, several addresses of a bridge could have any
        // meaning, and a machine without pods looks like one whose pod interface is still missing.
        Rule::OwnPodsUnknown if options.pod_cidrs.is_none() => options.pod_cidrs = Some(own),
        // Without pod gateways, NAT and `unassigned`, nothing shows the cluster prefixes. The smallest that contains all
        // pod CIDRs can contain the nodes.
        Rule::CidrOutsideCluster
        | Rule::CidrCoversCluster
        | Rule::SpecialPrefix
        | Rule::AddressInCluster
        | Rule::NotDescribable
            if options.cluster_prefixes.is_empty() =>
        {
            options.cluster_prefixes = cluster.prefixes.iter().copied().collect();
        }
        _ => return None,
    }
    Some(options)
}

fn check(cluster: &Cluster, index: usize, surroundings: &Surroundings) -> Result<(), TestCaseError> {
    let (observed, records) = managed(cluster, index, surroundings);
    let mut options = LiveOptions {
        format: surroundings.format,
        cluster_prefixes: Vec::new(),
        egress_interface: None,
        pod_cidrs: None,
        node_name: None,
        cleanup: None,
    };
    let live = loop {
        match imported(&observed, &records, &options) {
            Ok(live) => break live,
            Err(errors) => {
                let rule = errors[0].rule;
                // Without routes to other nodes, and to pod gateways, nothing shows the egress interface.
                let is_alone = observed.state.routes.iter().all(|route| route.kind != RouteType::Unicast);
                if rule == Rule::NoNodeRoutes && is_alone {
                    return Ok(());
                }
                match with_help(cluster, index, options, rule) {
                    Some(more) => options = more,
                    None => return Err(TestCaseError::fail(format!("{errors:?}"))),
                }
            }
        }
    };
    let document = Document::new("imported", live.text.clone(), surroundings.format);
    let again = config::load(&document).map_err(|invalid| TestCaseError::fail(invalid.render(false)))?;
    let (own, _) = again.node("machine").expect("this node");
    let mut desired = plan::desired(&again, own, &records).expect("a Linux node");
    desired.adapt_off_link(&again, own, &observed);
    let scope = Scope::of(&desired.state, desired.prefixes.clone());
    let mut within = observed.within(&scope);
    let mut wanted = desired.state;
    // The addresses of other nodes, without which `routes.source` and `nat.to` are invalid, only show in their routes, or
    // in the neighbor table.
    if live.findings.iter().any(|finding| finding.rule == Rule::SourceNotImported) {
        let left_out = live.findings.iter().filter(|finding| finding.rule == Rule::SourceNotImported);
        prop_assert!(
            left_out.clone().all(|finding| finding.message.contains("addresses of other nodes")),
            "{:?}",
            live.findings
        );
        prop_assert!(
            !(surroundings.has_neighbors && surroundings.is_on_link && are_recognizable(cluster)),
            "{:?}\n{}",
            live.findings,
            live.text
        );
        wanted.routes = wanted
            .routes
            .iter()
            .cloned()
            .map(|route| {
                let before = observed.state.routes.iter().find(|before| before.key() == route.key());
                Route { source: before.and_then(|before| before.source), ..route }
            })
            .collect();
        wanted.nat.clone_from(&observed.state.nat);
    }
    // A router through which no route leads yet.
    if live.findings.iter().any(|finding| finding.rule == Rule::NextHopUnknown) {
        let hidden = |(family, _): (Family, &IpAddr)| {
            let mut routes = observed.state.routes.iter().filter(|route| route.family() == family);
            routes.all(|route| route.next_hop.gateway.is_none())
        };
        prop_assert!(cluster.routers.iter().any(hidden), "{:?}\n{}", live.findings, live.text);
        let is_on_link = |route: &Route| route.kind == RouteType::Unicast && route.next_hop.gateway.is_none();
        wanted.routes = wanted.routes.iter().filter(|route| !is_on_link(route)).cloned().collect();
        within.state.routes =
            within.state.routes.iter().filter(|route| !is_on_link(route)).cloned().collect();
    }
    let plan = plan::plan(&wanted, &within.state, ForeignPolicy::Respect);
    prop_assert!(
        plan.changes.is_empty() && plan.conflicts.is_empty(),
        "{:#?}\n{}\n{:#?}",
        plan.changes,
        live.text,
        live.findings
    );
    Ok(())
}

/// Whether the neighbor table shows the address of every node: a node with several pod CIDRs of one family looks like several
/// nodes, and routers hide the nodes behind them, as the gateway to other links does.
fn are_recognizable(cluster: &Cluster) -> bool {
    let has_routers = !cluster.routers.is_empty()
        || cluster.nodes.iter().any(|node| node.next_hop().is_some_and(|hop| !hop.routers.is_empty()));
    let is_plain = |node: &Node| {
        let is_single = |family| node.pods.of(family).count() < 2;
        !node.addresses.is_empty() && Family::ALL.into_iter().all(is_single)
    };
    !has_routers && cluster.nodes.iter().all(is_plain)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The plan of an imported configuration is empty.
    #[test]
    fn what_hostgw_wrote_is_read_back_whole((mut cluster, _) in clusters::two(), surroundings in surroundings()) {
        cluster.off_link = if surroundings.is_on_link { OffLink::Refuse } else { surroundings.off_link };
        for index in 0..cluster.nodes.len() {
            if cluster.nodes[index].os == OperatingSystem::Linux {
                check(&cluster, index, &surroundings)?;
            }
        }
    }
}

/// A prefix without pods, on a machine without pods: only the on-link route shows it.
#[test]
fn a_prefix_without_pods_is_read_back() {
    let text = "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: 172.30.0.100
nodes:
  - {name: n0, os: linux, podCIDR: none}
  - {name: n3, os: linux, podCIDR: 10.244.3.0/24}
";
    let document = Document::new("hostgw.yaml", text.to_owned(), Format::Yaml);
    let cluster = config::load(&document).expect("valid");
    let surroundings = Surroundings {
        is_on_link: false,
        off_link: OffLink::Skip,
        has_neighbors: false,
        default_gateway: Some(100),
        has_records: false,
        format: Format::Yaml,
    };
    check(&cluster, 0, &surroundings).expect("the plan of the import is empty");
}
