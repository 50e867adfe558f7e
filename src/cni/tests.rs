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
        assert_eq!(report.findings[0].expected.as_deref(), Some("\"10.244.2.130\""));
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
}
