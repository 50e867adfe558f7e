//! `hostgw doctor --state` with the output of the collector on a machine, by the built program.

use std::path::Path;

use hostgw::render::windows_collector;

use super::{CLUSTER, PROVENANCE, applied, cluster, machine};
use crate::support::{
    cases,
    directory::Directory,
    powershell::{Machine, run},
    schema::schema,
};

/// A folder with the configuration and the state of a machine.
struct Examination(Directory);

impl Examination {
    fn new() -> Self {
        let folder = Directory::new();
        std::fs::write(folder.path().join("hostgw.yaml"), CLUSTER).unwrap();
        Self(folder)
    }

    /// Collects the state of a machine, edits it as JSON, and examines it.
    fn of(
        &self,
        machine: &Machine,
        edit: &dyn Fn(&mut serde_json::Value),
        arguments: &[&str],
    ) -> (i32, String, String) {
        let collector = windows_collector(&cluster(CLUSTER), 1, &PROVENANCE);
        let collected = run(&mut machine.clone(), &collector, &[]);
        let mut json = serde_json::from_str(&collected.stdout).unwrap();
        edit(&mut json);
        self.write("node.json", &json.to_string());
        self.hostgw(&[&["doctor", "--node", "win-1", "--state", "node.json"], arguments].concat())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn hostgw(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hostgw"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }
}

/// Removes what snapshots of earlier versions do not contain.
fn as_before(json: &mut serde_json::Value) {
    for (list, keys) in [
        ("Interfaces", &["Metric", "ConnectionState"][..]),
        ("Addresses", &["PrefixLength"]),
        ("Routes", &["Protocol"]),
        ("Derived", &["Protocol"]),
    ] {
        for entry in json[list].as_array_mut().unwrap() {
            let entry = entry.as_object_mut().unwrap();
            keys.iter().for_each(|key| assert!(entry.remove(*key).is_some(), "{key}"));
            if list == "Derived" {
                entry["ActiveMetric"] = (-1).into();
            }
        }
    }
}

#[test]
fn doctor_examines_a_collected_windows_node() {
    let examination = Examination::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    let healthy = || applied(machine());
    let with = |change: &dyn Fn(&mut Machine)| {
        let mut machine = healthy();
        change(&mut machine);
        machine
    };
    let cases: Vec<(&str, Machine)> = vec![
        ("healthy", healthy()),
        (
            "healthy-other-disconnected",
            with(&|machine| {
                machine.interfaces[0].is_connected = false;
                machine.route(1, "10.244.2.64/26", "0.0.0.0", 1, "A");
            }),
        ),
        ("fresh", machine()),
        (
            "forwarding-off",
            with(&|machine| {
                machine.interfaces[1].forwarding.insert("IPv4", false);
                machine.interfaces[2].forwarding.insert("IPv4", false);
            }),
        ),
        (
            "diverted",
            with(&|machine| {
                machine.route(12, "10.244.2.64/26", "172.30.0.99", 5, "AP");
                machine.route(7, "10.244.1.128/25", "10.244.1.9", 1, "A");
                machine.route(1, "10.244.9.0/24", "0.0.0.0", 1, "P");
            }),
        ),
        ("conflict", with(&|machine| machine.route(7, "10.244.2.0/25", "0.0.0.0", 1, "A"))),
        (
            "no-pod-interface",
            with(&|machine| {
                machine.interfaces.retain(|interface| interface.index != 7);
                machine.active.retain(|key, _| key.index != 7);
                machine.interfaces[1].forwarding.insert("IPv4", false);
                machine.route(12, "10.244.2.64/26", "172.30.0.99", 5, "A");
            }),
        ),
        ("disconnected", with(&|machine| machine.interfaces[1].is_connected = false)),
        (
            "own-pods-unrouted",
            with(&|machine| {
                machine.interfaces[2].addresses.clear();
                machine.active.retain(|key, _| key.destination.to_string() != "10.244.1.0/24");
            }),
        ),
        (
            "wrong-machine",
            with(&|machine| {
                machine.interfaces[1].addresses.clear();
                machine.interfaces[0].addresses.push("10.244.2.7/32".parse().unwrap());
            }),
        ),
        ("orphan", with(&|machine| machine.route(33, "10.244.2.0/25", "172.30.0.99", 256, "P"))),
    ];
    let (snapshot, doctor) = (schema("windows-snapshot"), schema("doctor"));
    let mut failures = Vec::new();
    for (name, machine) in &cases {
        let (code, stdout, stderr) =
            examination.of(machine, &|json| assert!(jsonschema::is_valid(&snapshot, json)), &[]);
        assert_eq!(code, if name.starts_with("healthy") { 0 } else { 11 }, "{name}: {stdout}{stderr}");
        cases::compare(&root.join(format!("doctor-{name}.txt")), &(stdout + &stderr), &mut failures);
        let (code_of_json, stdout, _) =
            examination.hostgw(&["doctor", "--node", "win-1", "--state", "node.json", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert!(jsonschema::is_valid(&doctor, &json), "{json:#}");
        assert_eq!(code_of_json, code);
        assert_eq!(json["findings"].as_array().unwrap().is_empty(), code == 0);
    }
    cases::assert_none(cases.len(), &failures);
}

/// What an older snapshot does not contain is unknown, which only matters if it decides something.
#[test]
fn an_older_snapshot_is_read_and_nothing_is_guessed() {
    let examination = Examination::new();
    let old = |machine: &Machine| examination.of(machine, &as_before, &[]);
    let healthy = applied(machine());
    assert_eq!(old(&healthy), (0, "Node win-1: no findings.\n".to_owned(), String::new()));
    let (code, stdout, _) = old(&machine());
    assert_eq!(code, 11);
    assert!(!stdout.contains("HG1030"), "the pod interface has an address: {stdout}");
    let mut machine = healthy.clone();
    machine.interfaces[1].is_connected = false;
    assert_eq!(old(&machine).0, 0);
    // A more specific route needs no metric; which of two routes on different interfaces is used does.
    let mut machine = healthy.clone();
    machine.route(12, "10.244.2.64/26", "172.30.0.99", 5, "A");
    let (code, stdout, _) = old(&machine);
    assert_eq!(code, 11);
    assert!(
        stdout.contains("172.30.0.99 on vEthernet (Ethernet) (metric 5, ActiveStore) is more specific"),
        "{stdout}"
    );
    let mut machine = healthy;
    machine.route(12, "10.244.1.128/25", "0.0.0.0", 5, "A");
    machine.route(1, "10.244.1.128/25", "0.0.0.0", 300, "A");
    let (code, stdout, _) = old(&machine);
    assert_eq!(code, 11);
    let words = "warning[HG0862]: cannot tell whether packets to 10.244.1.128/25 (this node's pods) are \
        diverted: the interface metrics are unknown\n";
    assert!(stdout.starts_with(words), "{stdout}");
    assert_eq!(examination.of(&machine, &|_| (), &[]).0, 0, "the metrics tell");
}

#[test]
fn doctor_checks_the_cni_configuration_of_a_windows_node() {
    let examination = Examination::new();
    let cni = |exceptions: &str, subnet: &str| {
        format!(
            r#"{{"cniVersion": "0.3.1", "name": "pods", "type": "win-bridge", "ipam": {{"type": "host-local", "subnet": "{subnet}"}},
            "policies": [{{"Name": "EndpointPolicy", "Value": {{"Type": "OutBoundNAT", "ExceptionList": [{exceptions}]}}}}]}}"#
        )
    };
    for (exceptions, subnet, code, words) in [
        ("\"10.244.0.0/16\"", "10.244.1.0/24", 0, "Node win-1: no findings."),
        (
            "\"10.244.1.0/24\"",
            "10.244.1.0/24",
            11,
            "error[HG0901]: cni.conf masquerades traffic that must keep the pod's address: 1 exception is missing\n  help: review the policies with `hostgw check-cni cni.conf`\n",
        ),
        ("\"10.244.0.0/16\"", "10.244.2.0/25", 11, "error[HG0903]: cni.conf: ipam.subnet"),
    ] {
        examination.write("cni.conf", &cni(exceptions, subnet));
        let (found, stdout, stderr) = examination.of(&applied(machine()), &|_| (), &["--cni", "cni.conf"]);
        assert_eq!(found, code, "{stdout}{stderr}");
        assert!(stdout.contains(words), "{stdout}");
    }
}

#[test]
fn doctor_refuses_a_windows_state_of_a_linux_node() {
    let examination = Examination::new();
    examination.of(&machine(), &|_| (), &[]);
    let (code, stdout, stderr) = examination.hostgw(&["doctor", "--node", "linux-1", "--state", "node.json"]);
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert!(stderr.contains("node.json is from a Windows machine, but node linux-1 runs Linux"), "{stderr}");
    let (code, _, stderr) = examination.hostgw(&["explain", "10.244.2.5", "--state", "node.json"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("packets can only be traced on Linux nodes"), "{stderr}");
}

/// Nothing in a snapshot controls the terminal.
#[test]
fn hostile_text_in_a_windows_state_is_escaped() {
    let examination = Examination::new();
    let mut machine = applied(machine());
    machine.interfaces[1].alias = "v\u{1b}[31m\u{202e}E".to_owned();
    machine.interfaces[1].is_connected = false;
    machine.interfaces[1].forwarding.insert("IPv4", false);
    machine.route(12, "10.244.2.64/26", "172.30.0.99", 5, "AP");
    let hostile = |json: &mut serde_json::Value| {
        for route in json["Routes"].as_array_mut().unwrap() {
            route["Protocol"] = "Net\u{1b}[1mMgmt\n".into();
        }
    };
    let (code, text, stderr) = examination.of(&machine, &hostile, &[]);
    assert_eq!(code, 11, "{text}{stderr}");
    assert!(
        text.contains("v\\u{1b}[31m\\u{202e}E") && text.contains("protocol Net\\u{1b}[1mMgmt\\n)"),
        "{text}"
    );
    let (_, plan, _) = examination.hostgw(&["plan", "--node", "win-1", "--state", "node.json"]);
    assert!(plan.contains("HG0852"), "{plan}");
    let (_, json, _) = examination.hostgw(&["doctor", "--node", "win-1", "--state", "node.json", "--json"]);
    for text in [text, plan, json] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
}
