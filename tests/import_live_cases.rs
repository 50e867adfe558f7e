//! Folders of cases: `tests/cases/import-live/NAME/` holds the observed state of a node (`observed.json`), what the variants of
//! `iptables-save` print there, flannel's `subnet.env`, further `arguments`, and what `hostgw import --live` makes of them. A
//! new folder is a new test.
//!
//! Every configuration is valid, and a plan with it only takes routes over.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use proptest::prelude::*;

use hostgw::{
    config::{self, Document, Format},
    import::{IptablesDump, LiveImport, LiveOptions, LiveSources, import_live},
    model::Family,
    plan::{self, Change, ForeignPolicy, Observed, OriginalSysctls, Plan, RouteChange, Scope},
    state::{Host, InterfaceAddress, Link, NextHop, Route, RouteScope, RouteType, State},
};

use crate::support::cases;

/// The options that the command line would read.
fn options(arguments: &str) -> LiveOptions {
    let mut options = LiveOptions {
        format: Format::Yaml,
        cluster_prefixes: Vec::new(),
        egress_interface: None,
        pod_cidrs: None,
        node_name: None,
        cleanup: None,
    };
    let mut words = arguments.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        let nets = |text: &str| text.split(',').map(|net| net.parse().expect("a prefix")).collect();
        match word {
            "--toml" => options.format = Format::Toml,
            "--cluster-prefix" => options.cluster_prefixes = nets(value()),
            "--egress-interface" => options.egress_interface = Some(value().to_owned()),
            "--node-name" => options.node_name = Some(value().to_owned()),
            "--pod-cidr" => {
                let value = value();
                options.pod_cidrs = Some(if value == "none" { Vec::new() } else { nets(value) });
            }
            other => panic!("unknown argument {other}"),
        }
    }
    options
}

/// The state of a case, and what is made of it.
fn imported(folder: &Path) -> (Observed, LiveOptions, Result<LiveImport, String>) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let observed: Observed = serde_json::from_str(&read("observed.json").expect("a state"))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let dumps =
        ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"].into_iter().filter_map(|program| {
            let family = if program.starts_with("ip6") { Family::V6 } else { Family::V4 };
            Some(IptablesDump {
                is_legacy: program.ends_with("-legacy"),
                program: program.to_owned(),
                family,
                text: read(&format!("{program}.txt"))?,
            })
        });
    let dumps: Vec<IptablesDump> = dumps.collect();
    let options = options(&read("arguments").unwrap_or_default());
    let flannel = read("subnet.env");
    let sources = LiveSources {
        hostname: Some("machine"),
        state: &observed.state,
        host: &observed.host,
        iptables: &dumps,
        flannel: flannel.as_deref(),
        written: &BTreeSet::new(),
    };
    let result = import_live(&sources, &options).map_err(|errors| {
        let line = |error: hostgw::diagnose::Diagnostic| {
            format!("error[{}]: {error}\n  help: {}\n", error.rule, error.remedy.as_deref().unwrap_or("none"))
        };
        errors.into_iter().map(line).collect()
    });
    (observed, options, result)
}

#[test]
fn every_node_is_described_in_these_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/import-live");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut failures = Vec::new();
    for folder in &folders {
        let (observed, options, result) = imported(folder);
        let text = match &result {
            Err(errors) => errors.clone(),
            Ok(live) => {
                let finding = |finding: &hostgw::diagnose::Diagnostic| {
                    format!("warning[{}]: {finding}\n", finding.rule)
                };
                let findings: String = live.findings.iter().map(finding).collect();
                format!("{}--- {} nodes\n{findings}--- script\n{}", live.text, live.nodes, live.script)
            }
        };
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
        cases::compare(&folder.join("expected.txt"), &text, &mut failures);
        if let Ok(live) = &result {
            let plan = takes_over(folder, &observed, &options, live, is_taken_over);
            assert_eq!(plan.conflicts, [], "{}", folder.display());
        }
    }
    cases::assert_none(folders.len(), &failures);
}

/// The plan neither adds nor removes a route, and no command removes one that it adopts.
fn takes_over(
    folder: &Path,
    observed: &Observed,
    options: &LiveOptions,
    live: &LiveImport,
    is_fine: fn(&RouteChange) -> bool,
) -> Plan {
    let document = Document::new("hostgw.yaml", live.text.clone(), options.format);
    let cluster = config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
    let name = options.node_name.as_deref().unwrap_or("machine");
    let (index, _) = cluster.node(name).expect("this node");
    let desired = plan::desired(&cluster, index, &OriginalSysctls::default()).expect("a Linux node");
    let scope = Scope::of(&desired.state, desired.prefixes.clone());
    let within = observed.within(&scope);
    let plan = plan::plan(&desired.state, &within.state, ForeignPolicy::Adopt);
    for change in &plan.changes {
        let Change::Route(change) = change else { continue };
        assert!(is_fine(change), "{}: {change:?}", folder.display());
        for route in change.before.iter().chain(&change.after) {
            let removal = route.arguments().join(" ");
            let removal = format!("route del {removal}\n");
            assert!(!live.script.contains(&removal), "{}: {removal}", folder.display());
        }
    }
    plan
}

/// Whether a change takes a route over, or adds one that rejects packets in the place of another one, which has another metric.
fn is_taken_over(change: &RouteChange) -> bool {
    let rejects = |route: &Route| route.kind == RouteType::Unreachable && route.metric == u32::MAX;
    (!change.before.is_empty() || change.after.iter().all(rejects)) && !change.after.is_empty()
}

/// Whether a change takes a route over, removes one of hostgw's own that leads nowhere, or adds what routes by pod gateways need.
fn is_harmless(change: &RouteChange) -> bool {
    let is_own = change.after.is_empty() && change.before.iter().all(Route::is_owned);
    let is_on_link =
        change.before.is_empty() && change.after.iter().all(|route| route.next_hop.gateway.is_none());
    is_taken_over(change) || is_own || is_on_link
}

pub fn link(name: &str, index: u32, kind: Option<&str>) -> Link {
    Link { kind: kind.map(Into::into), ..Link::new(name, index) }
}

/// Values of which any combination can be a route, most of them of a cluster.
fn route() -> impl Strategy<Value = Route> {
    const DESTINATIONS: [&str; 14] = [
        "0.0.0.0/0",
        "10.244.0.0/16",
        "10.244.0.0/24",
        "10.244.0.128/25",
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.3.9/32",
        "10.99.1.0/24",
        "192.168.1.0/24",
        "::/0",
        "fd00:244::/48",
        "fd00:244::/64",
        "fd00:244:0:1::/64",
        "fd00:244:0:2::/64",
    ];
    const GATEWAYS: [Option<&str>; 10] = [
        None,
        Some("172.30.0.1"),
        Some("172.30.0.12"),
        Some("172.30.0.13"),
        Some("10.244.1.1"),
        Some("10.244.2.2"),
        Some("10.244.2.9"),
        Some("fd00:30::12"),
        Some("fd00:30::13"),
        Some("fd00:244:0:1::1"),
    ];
    (
        prop::sample::select(&DESTINATIONS[..]),
        prop::sample::select(&GATEWAYS[..]),
        prop::sample::select(vec!["eth0", "eth0", "eth0", "eth1", "cni0", "flannel.1"]),
        prop::sample::select(vec![2, 3, 3, 3, 4, 12, 17, 80, 87]),
        prop::sample::select(vec![254, 254, 254, 100, 255]),
        prop::sample::select(vec![0, 0, 0, 0, 50]),
        prop::sample::select(vec![
            RouteType::Unicast,
            RouteType::Unicast,
            RouteType::Unicast,
            RouteType::Blackhole,
            RouteType::Unreachable,
            RouteType::LOCAL,
        ]),
        any::<bool>(),
    )
        .prop_map(|(destination, gateway, device, protocol, table, metric, kind, onlink)| {
            let destination: IpNet = destination.parse().expect("a prefix");
            let is_v6 = Family::from(destination) == Family::V6;
            let gateway = gateway.map(|gateway| gateway.parse().expect("an address")).filter(|gateway| {
                Family::from(*gateway) == Family::from(destination) && kind == RouteType::Unicast
            });
            let has_device = kind == RouteType::Unicast || is_v6;
            Route {
                destination,
                table,
                tos: None,
                metric: if is_v6 && metric == 0 { 1024 } else { metric },
                protocol,
                scope: if gateway.is_some() || is_v6 { RouteScope::Global } else { RouteScope::Link },
                kind,
                next_hop: NextHop {
                    gateway,
                    device: has_device.then(|| device.into()),
                    onlink: onlink && gateway.is_some(),
                },
                source: None,
                mtu: None,
                opaque: None,
            }
        })
}

/// A route as flannel or a person adds it.
pub fn usual_route((destination, gateway): (&str, Option<&str>)) -> Route {
    let destination: IpNet = destination.parse().expect("a prefix");
    let is_v6 = Family::from(destination) == Family::V6;
    Route {
        destination,
        table: 254,
        tos: None,
        metric: if is_v6 { 1024 } else { 0 },
        protocol: 3,
        scope: if gateway.is_some() || is_v6 { RouteScope::Global } else { RouteScope::Link },
        kind: RouteType::Unicast,
        next_hop: NextHop {
            gateway: gateway.map(|gateway| gateway.parse().expect("an address")),
            device: Some("eth0".into()),
            onlink: false,
        },
        source: None,
        mtu: None,
        opaque: None,
    }
}

/// A node with a bridge or two, and any routes.
fn node() -> impl Strategy<Value = Observed> {
    let bridges = prop::sample::subsequence(
        vec![
            ("cni0", "10.244.0.1/24"),
            ("cni0", "fd00:244::1/64"),
            ("docker0", "172.17.0.1/16"),
            ("vms", "10.9.0.1/24"),
        ],
        0..4,
    );
    let usual = prop::sample::subsequence(
        vec![
            ("10.244.1.0/24", Some("172.30.0.12")),
            ("10.244.2.0/24", Some("172.30.0.13")),
            ("10.244.0.0/16", None),
            ("fd00:244:0:1::/64", Some("fd00:30::12")),
            ("fd00:244::/48", None),
        ],
        0..6,
    );
    let usual = usual.prop_map(|usual| usual.into_iter().map(usual_route).collect::<Vec<Route>>());
    (usual, prop::collection::vec(route(), 0..6), bridges).prop_map(|(usual, random, bridges)| {
        let mut addresses =
            vec![("eth0", "172.30.0.11/24"), ("eth0", "fd00:30::11/64"), ("eth1", "172.31.0.11/24")];
        addresses.extend(bridges);
        let addresses = addresses.into_iter().map(|(device, prefix)| {
            let prefix: IpNet = prefix.parse().expect("a prefix");
            InterfaceAddress { device: device.into(), address: prefix.addr(), prefix, flags: Vec::new() }
        });
        // The kernel has at most one route of a key.
        let mut routes = [usual, random].concat();
        routes.sort_by_key(Route::key);
        routes.dedup_by_key(|route| route.key());
        let (own, foreign): (Vec<Route>, Vec<Route>) = routes.into_iter().partition(Route::is_owned);
        Observed {
            state: State { routes: own.into(), ..State::default() },
            host: Host {
                links: vec![
                    link("eth0", 2, None),
                    link("eth1", 3, None),
                    link("cni0", 4, Some("bridge")),
                    link("docker0", 5, Some("bridge")),
                    link("vms", 6, Some("bridge")),
                    link("flannel.1", 7, Some("vxlan")),
                ],
                addresses: addresses.collect(),
                foreign,
                ..Host::default()
            },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever is on a node, it is described by a valid configuration, or refused with a reason. A plan with it only takes
    /// routes over, in whatever order the kernel lists them.
    #[test]
    fn any_node_is_described_or_refused(observed in node(), has_prefix in any::<bool>()) {
        let mut options = options("");
        if has_prefix {
            options.cluster_prefixes = vec!["10.244.0.0/16".parse().expect("a prefix"), "fd00:244::/48".parse().expect("a prefix")];
        }
        let describe = |observed: &Observed| {
            let sources = LiveSources {
                hostname: Some("machine"),
                state: &observed.state,
                host: &observed.host,
                iptables: &[],
                flannel: None,
                written: &BTreeSet::new(),
            };
            import_live(&sources, &options)
        };
        match describe(&observed) {
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(error.remedy.is_some(), "{error}");
                }
            }
            Ok(live) => {
                takes_over(Path::new("a random node"), &observed, &options, &live, is_harmless);
                let mut reversed = observed.clone();
                reversed.host.foreign.reverse();
                reversed.host.addresses.reverse();
                reversed.host.links.reverse();
                let again = describe(&reversed);
                prop_assert!(again.is_ok_and(|again| again.text == live.text && again.script == live.script));
            }
        }
    }
}
