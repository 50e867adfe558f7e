//! Tests of all rules together, and with arbitrary files.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{self, Document, Format},
    model::NextHopMode,
};

fn cluster(extra: &str) -> Cluster {
    let text = format!(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\n{extra}\nnodes:\n\
         - {{name: linux-1, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64']}}\n\
         - {{name: linux-2, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64']}}\n\
         - {{name: win-1, os: windows, podCIDR: 10.244.2.128/25, address: 172.30.0.13}}\n"
    );
    config::load(&Document::new("test", text, Format::Yaml))
        .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

/// Returns the findings for a correct bridge of linux-1 with these entries added or replaced.
fn bridge(cluster: &Cluster, node: Option<usize>, entries: &Value) -> Vec<(FindingKind, Severity, String)> {
    let mut plugin = json!({ "type": "bridge", "isGateway": true, "ipam": { "ranges": [
        [{ "subnet": "10.244.0.0/24" }], [{ "subnet": "fd00:244:0:1::/64" }] ] } });
    for (key, value) in entries.as_object().expect("entries") {
        plugin[key] = value.clone();
    }
    let report = check(&json!({ "plugins": [plugin] }), cluster, node);
    assert_eq!(report.masquerade, None, "hostgw masquerades on Linux");
    let finding = |finding: &Finding| (finding.kind, finding.severity, finding.path.to_string());
    report.findings.iter().map(finding).collect()
}

#[test]
fn correct_configurations_have_no_findings() {
    let cluster = cluster("");
    for node in [None, Some(0)] {
        assert_eq!(bridge(&cluster, node, &json!({})), []);
        assert_eq!(bridge(&cluster, node, &json!({ "isGateway": false, "isDefaultGateway": true })), []);
        let explicit = json!({ "subnet": "10.244.0.0/24", "gateway": "10.244.0.1", "ranges": [[{
            "subnet": "fd00:244:0:1::/64", "gateway": "fd00:244:0:1::1" }]] });
        assert_eq!(bridge(&cluster, node, &json!({ "ipam": explicit, "mtu": 9000 })), []);
    }
    let configuration = json!({ "ipam": { "ranges": [[{ "subnet": "fd00:244:0:2::/64" }]] } });
    assert_eq!(check(&configuration, &cluster, None).node, Some(1));
}

#[test]
fn the_mtu_of_pods_is_compared_with_that_of_their_node() {
    let mut cluster = cluster("routes: {mtu: 1400}");
    let mtu = |severity| vec![(FindingKind::Mtu, severity, "plugins[0].mtu".to_owned())];
    let pods = json!({ "mtu": 1450 });
    assert_eq!(bridge(&cluster, Some(0), &pods), mtu(Severity::Error));
    cluster.nodes[0].overrides_mut().mtu = Some(1450);
    assert_eq!(bridge(&cluster, Some(0), &pods), []);
    assert_eq!(bridge(&cluster, Some(0), &json!({ "mtu": 1400 })), mtu(Severity::Warning));
}

#[test]
fn the_gateway_of_a_bridge_matters_if_other_nodes_use_it() {
    let other = json!({ "ipam": { "subnet": "10.244.0.0/24", "gateway": "10.244.0.254",
        "ranges": [[{ "subnet": "fd00:244:0:1::/64" }]] } });
    let wrong = [(FindingKind::Gateway, Severity::Error, "plugins[0].ipam.gateway".to_owned())];
    assert_eq!(bridge(&cluster(""), None, &other), wrong);
    let mut by_address = cluster("");
    by_address.next_hop_mode = NextHopMode::NodeAddress;
    assert_eq!(bridge(&by_address, None, &other), []);
}

#[test]
fn every_spelling_of_a_windows_gateway_is_checked() {
    let cluster = cluster("");
    for (ipam, path) in [
        (json!({ "gateway": "10.244.2.129", "subnet": "10.244.2.128/25" }), "ipam.gateway"),
        (json!({ "ROUTES": [{ "Gw": "10.244.2.129" }] }), "ipam.ROUTES[0].Gw"),
        (json!({ "routes": [{ "dst": "0.0.0.0/0", "gw": "x" }] }), "ipam.routes[0].gw"),
        (
            json!({ "ranges": [[{ "subnet": "10.244.2.128/25", "gateway": "10.244.2.129" }]] }),
            "ipam.ranges[0][0].gateway",
        ),
    ] {
        let report = check(&json!({ "type": "sdnbridge", "ipam": ipam }), &cluster, Some(2));
        let paths: Vec<_> = report.findings.iter().map(|finding| finding.path.to_string()).collect();
        assert_eq!(paths, [path]);
        assert_eq!(report.findings[0].expected(), Some("\"10.244.2.130\""));
        assert!(!report.fits());
    }
    // The gateway of other routes is irrelevant.
    let other = json!({ "type": "sdnbridge", "ipam": { "routes": [{ "dst": "10.96.0.0/12", "gw": "10.244.2.129" }] } });
    assert_eq!(check(&other, &cluster, Some(2)).findings, []);
}

#[test]
fn ranges_of_several_nodes_match_no_node() {
    let configuration = json!({ "plugins": [{ "type": "bridge", "isGateway": true, "ipam": { "ranges": [
        [{ "subnet": "10.244.0.0/24" }], [{ "subnet": "10.244.1.0/24" }] ] } }] });
    let report = check(&configuration, &cluster(""), None);
    assert_eq!(report.node, None);
    assert_eq!(report.findings.len(), 2);
    assert!(!report.fits());
}

/// Makes the change of a finding in the configuration.
fn make(correction: &Correction, at: &ConfigPath, configuration: &mut Value) {
    let (path, value) = match correction {
        Correction::Set(value) => (at, Some(serde_json::from_str(value).expect("JSON"))),
        Correction::Remove(path) => (path, None),
        Correction::Other(advice) => panic!("the plugin is for Linux: {advice}"),
    };
    let path = path.to_string().replace(['[', '.'], "/").replace(']', "");
    let (parent, last) = path.rsplit_once('/').expect("an entry of a plugin");
    match (configuration.pointer_mut(&format!("/{parent}")).expect("the closest parent"), value) {
        (Value::Object(object), Some(value)) => drop(object.insert(last.to_owned(), value)),
        (Value::Object(object), None) => drop(object.remove(last).expect("an entry to remove")),
        (Value::Array(list), value) => {
            let index: usize = last.parse().expect("an index");
            assert!(index < list.len() + usize::from(value.is_some()), "{path}");
            list.splice(index..(index + 1).min(list.len()), value);
        }
        (other, _) => panic!("{path}: {other}"),
    }
}

/// Generates bridge plugins with correct, wrong and missing entries.
fn any_bridge() -> impl Strategy<Value = Value> {
    let subnet = prop::sample::select(vec![
        "10.244.0.0/24",
        "10.244.0.0/25",
        "10.244.0.9/24",
        "10.244.1.0/24",
        "10.99.0.0/24",
        "fd00:244:0:1::/64",
        "fd00:244:0:2::/64",
        "x",
    ]);
    let gateway =
        prop::option::of(prop::sample::select(vec!["10.244.0.1", "10.244.0.9", "fd00:244:0:1::9", "x"]));
    let range = (subnet, gateway).prop_map(|(subnet, gateway)| match gateway {
        Some(gateway) => json!({ "subnet": subnet, "gateway": gateway }),
        None => json!({ "subnet": subnet }),
    });
    let sets = prop::option::of(prop::collection::vec(prop::collection::vec(range.clone(), 1..3), 0..4));
    let flag = || prop::option::of(any::<bool>());
    let mtu = prop::option::of(prop::sample::select(vec![0, 1300, 1400, 9000]));
    let entries = (prop::option::of(range), sets, flag(), flag(), mtu);
    entries.prop_map(|(ipam, sets, is_gateway, ip_masq, mtu)| {
        let mut plugin = json!({ "type": "bridge", "ipam": ipam.unwrap_or_else(|| json!({})) });
        for (key, value) in [("isGateway", is_gateway), ("ipMasq", ip_masq)] {
            value.into_iter().for_each(|value| plugin[key] = value.into());
        }
        sets.into_iter().for_each(|sets| plugin["ipam"]["ranges"] = sets.into());
        mtu.into_iter().for_each(|mtu| plugin["mtu"] = mtu.into());
        plugin
    })
}

/// Generates keys and values of CNI configurations in any order, mixed with nonsense.
fn any_json() -> impl Strategy<Value = Value> {
    let keys = [
        "plugins",
        "delegate",
        "delegates",
        "type",
        "ipam",
        "ranges",
        "subnet",
        "gateway",
        "routes",
        "gw",
        "dst",
        "mtu",
        "ipMasq",
        "isGateway",
        "policies",
        "Value",
        "ExceptionList",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "bridge",
            "sdnbridge",
            "OutBoundNAT",
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.244.0.9/24",
            "::/0",
            "",
            "x/",
            "fd00:244:0:1::/64",
            "10.244.0.1",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys.to_vec()), inner), 0..8).prop_map(|entries| {
                entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No file causes a panic, and every finding has a location.
    #[test]
    fn any_file_can_be_checked(configuration in any_json(), node in prop::option::of(0_usize..3)) {
        let report = check(&configuration, &cluster("routes: {mtu: 1400}"), node);
        for finding in &report.findings {
            prop_assert!(finding.path != ConfigPath::root() && !finding.message.is_empty());
        }
    }

    /// Whoever follows the remedies one by one gets a file that fits and in which nothing is left to change.
    #[test]
    fn remedies_make_a_file_fit(plugin in any_bridge(), node in 0_usize..2) {
        let cluster = cluster("routes: {mtu: 1400}");
        let mut configuration = json!({ "plugins": [plugin] });
        for _ in 0..30 {
            let report = check(&configuration, &cluster, Some(node));
            let Some(finding) = report.findings.first() else { return Ok(()) };
            let correction = finding.correction.as_ref().expect("the node is known");
            make(correction, &finding.path, &mut configuration);
        }
        prop_assert!(false, "the remedies do not end: {configuration}");
    }
}
