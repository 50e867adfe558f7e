//! Modified files of hostgw: whatever any field of a snapshot, a saved plan or a CNI configuration contains, the
//! result is a documented exit code and a readable message.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{RECIPE, node};
use crate::support::namespace::{Namespace, each};

/// Collects one place for each path of keys: of the items of a list, only the first.
fn places(value: &Value, at: &str, path: &str, found: &mut BTreeMap<String, String>) {
    found.entry(path.to_owned()).or_insert_with(|| at.to_owned());
    match value {
        Value::Object(map) => {
            // If the keys of a map are data, such as sysctls, the first entry suffices.
            let is_data = map.len() > 40 || map.keys().any(|key| key.contains(['.', '/']));
            for (key, value) in map.iter().take(if is_data { 1 } else { usize::MAX }) {
                let key = key.replace('~', "~0").replace('/', "~1");
                let step = if is_data { "*" } else { &key };
                places(value, &format!("{at}/{key}"), &format!("{path}/{step}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate().take(3) {
                places(value, &format!("{at}/{index}"), &format!("{path}/*"), found);
            }
        }
        _ => {}
    }
}

fn hostile() -> Vec<Value> {
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    vec![json!(null), json!(-1), json!(u64::MAX), json!("9".repeat(70_000)), json!([[], {}, null]), deep]
}

/// Runs hostgw on a text, and asserts that the result is documented.
fn assert_documented(node: &Namespace, arguments: &[&str], file: &str, text: &str, what: &str) {
    node.write(file, text);
    let outcome = node.hostgw(arguments);
    let documented = [0, 3, 5, 9, 10];
    assert!(documented.contains(&outcome.code), "{what}: exit code {}\n{}", outcome.code, outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    assert!(outcome.stderr.len() < 100_000, "{what}: {} bytes of messages", outcome.stderr.len());
    if arguments[0] == "apply" && outcome.code == 0 {
        // The modified field, such as a date, is not part of the plan: the node matches the configuration.
        node.hostgw_ok(&["plan", "--detailed-exitcode"]);
        node.hostgw_ok(&["status", "--history"]);
        node.hostgw_ok(&["destroy", "--yes"]);
    }
}

fn sweep(node: &Namespace, arguments: &[&str], file: &str, good: &str) {
    let value: Value = serde_json::from_str(good).unwrap();
    let mut found = BTreeMap::new();
    places(&value, "", "", &mut found);
    assert!(found.len() > 5, "{found:?}");
    for place in found.values() {
        for hostile in hostile() {
            let mut changed = value.clone();
            *changed.pointer_mut(place).unwrap() = hostile.clone();
            let shown: String = hostile.to_string().chars().take(40).collect();
            assert_documented(
                node,
                arguments,
                file,
                &changed.to_string(),
                &format!("{file} with {shown} at {place:?}"),
            );
        }
    }
    let compact = value.to_string();
    for cut in (0..24).map(|part| compact.len() * part / 24).filter(|cut| compact.is_char_boundary(*cut)) {
        assert_documented(node, arguments, file, &compact[..cut], &format!("{file} cut at byte {cut}"));
    }
    let nested = "[".repeat(100_000);
    assert_documented(node, arguments, file, &nested, &format!("{file} nested"));
}

#[test]
fn a_snapshot_can_contain_anything() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        sweep(&node, &["plan", "--state", "changed.json", "--node", "linux-1"], "changed.json", &snapshot);
    });
}

#[test]
fn a_saved_plan_can_contain_anything() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["plan", "--out", "plan.json"]);
        let plan = std::fs::read_to_string(node.folder().join("plan.json")).unwrap();
        sweep(&node, &["apply", "changed.json", "--yes"], "changed.json", &plan);
        node.assert_unchanged(&before, "modified plans");
    });
}

#[test]
fn a_cni_configuration_can_contain_anything() {
    each(|privilege| {
        let node = Namespace::new(privilege);
        node.write("hostgw.yaml", RECIPE);
        let good = json!({ "cniVersion": "0.2.0", "name": "l2bridge", "plugins": [{
            "type": "sdnbridge", "apiVersion": 2, "master": "Ethernet",
            "ipam": { "subnet": "10.244.2.0/24", "routes": [{ "GW": "10.244.2.2" }] },
            "policies": [
                { "name": "EndpointPolicy", "value": { "type": "OutBoundNAT", "settings": { "exceptions": ["10.244.0.0/16"] } } },
                { "Name": "EndpointPolicy", "Value": { "Type": "OutBoundNAT", "ExceptionList": ["10.244.0.0/16"] } },
            ],
        }] });
        sweep(&node, &["check-cni", "changed.json"], "changed.json", &good.to_string());
    });
}
