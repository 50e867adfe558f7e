//! Plans from the output of the collector on a machine.

use hostgw::{
    plan::{
        self, ForeignPolicy,
        windows::{WindowsChange, WindowsObserved},
    },
    render::{windows_collector, windows_script},
};

use super::{CLUSTER, PROVENANCE, applied, cluster, machine, starts, traffic::with_a_new_switch};
use crate::support::{cases, directory::Directory, powershell::run, schema::schema};

/// `plan --state` with the output of the collector makes the same plan as the script on that machine.
#[test]
fn a_plan_from_collected_state_matches_the_script() {
    let cluster = cluster(CLUSTER);
    let desired = plan::windows_desired(&cluster, 1).unwrap();
    let script = windows_script(&cluster, 1, &desired, &PROVENANCE);
    let collector = windows_collector(&cluster, 1, &PROVENANCE);
    let mut foreign = machine();
    foreign.route(12, "10.244.2.0/25", "172.30.0.99", 256, "AP");
    let conflict = ("foreign", foreign.clone(), foreign);
    let mut part = machine();
    part.route(7, "10.244.8.0/24", "0.0.0.0", 1, "A");
    part.route(1, "10.244.1.128/25", "0.0.0.0", 1, "P");
    part.route(7, "10.244.1.5/32", "0.0.0.0", 1, "A");
    let part = ("a part of the pods", part.clone(), part);
    let mut switch = with_a_new_switch(&script);
    switch.route(0, "10.244.2.0/25", "172.30.0.99", 1, "P");
    let switch = ("a new switch", switch.clone(), switch);
    let mut metrics = machine();
    metrics.interfaces[2].metric = 9000;
    metrics.route(1, "10.244.2.0/25", "0.0.0.0", 9, "A");
    metrics.route(12, "10.244.9.0/24", "172.30.0.99", 9, "P");
    metrics.interfaces[1].is_connected = false;
    let metrics = ("metrics and a disconnected interface", metrics.clone(), metrics);
    for (what, mut machine, _) in starts().into_iter().chain([conflict, part, switch, metrics]) {
        let collected = run(&mut machine, &collector, &[]);
        let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
        let plan =
            plan::windows::windows_plan(&cluster, 1, &desired, &observed, ForeignPolicy::Respect).unwrap();
        let outcome = run(&mut machine, &script, &["-WhatIf"]);
        let mut counts = [0; 3];
        for change in &plan.changes {
            match change {
                WindowsChange::Route(route) if route.before == Default::default() => counts[0] += 1,
                WindowsChange::Route(route) if route.after == Default::default() => counts[2] += 1,
                _ => counts[1] += 1,
            }
        }
        let [add, change, remove] = counts;
        let totals =
            format!("Plan: {add} to add, {change} to update, {remove} to remove. Nothing was changed.\n");
        let conflicts = outcome.stdout.lines().filter(|line| line.starts_with("! ")).count();
        assert_eq!(conflicts, plan.conflicts.len(), "{what}: {}", outcome.stdout);
        for leftover in &plan.leftovers {
            let remedy = leftover.remedy.as_deref().unwrap().replace("the script", "this script");
            let warning = format!("WARNING: {}\n  help: {remedy}\n", leftover.message);
            assert!(outcome.stdout.contains(&warning), "{what}: {warning}{}", outcome.stdout);
        }
        assert_eq!(plan.leftovers.len(), usize::from(what == "a new switch"));
        for found in plan.paths.faults.iter().chain(&plan.paths.warnings) {
            let remedy = found.remedy.as_deref().unwrap();
            let said = format!("WARNING: {}: {}\n  help: {remedy}\n", found.rule, found.message);
            assert!(outcome.stdout.contains(&said), "{what}: {said}{}", outcome.stdout);
        }
        let codes = outcome.stdout.lines().filter(|line| line.starts_with("WARNING: HG")).count();
        assert_eq!(codes, plan.paths.faults.len() + plan.paths.warnings.len(), "{what}: {}", outcome.stdout);
        assert_eq!(
            codes > 0,
            !starts().iter().any(|(name, ..)| *name == what) && what != "a new switch",
            "{what}"
        );
        if plan.changes.is_empty() {
            assert_eq!(outcome.stdout, "No changes. This node matches the configuration.\n", "{what}");
        } else if conflicts == 0 {
            assert!(outcome.stdout.ends_with(&totals), "{what}: {totals}{}", outcome.stdout);
        }
        for change in &plan.changes {
            let words = match change {
                WindowsChange::Route(route) => format!(
                    "Route -InterfaceIndex {} -DestinationPrefix {} -NextHop {} ",
                    route.interface.index, route.destination, route.next_hop
                ),
                WindowsChange::Forwarding(forwarding) => format!(
                    "-InterfaceIndex {} -AddressFamily {} -Forwarding Enabled",
                    forwarding.interface.index, forwarding.family
                ),
            };
            assert!(outcome.stdout.contains(&words), "{what}: {words:?} not in {}", outcome.stdout);
        }
    }
}

/// A reviewer's workflow with the built program: collect there, plan here.
#[test]
fn a_windows_node_can_be_planned_from_collected_state() {
    let folder = Directory::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    let configure = |text: &str| std::fs::write(folder.path().join("hostgw.yaml"), text).unwrap();
    configure(CLUSTER);
    let hostgw = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hostgw"))
            .args(arguments)
            .current_dir(folder.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let code = output.status.code().unwrap();
        (code, text(&output.stdout), text(&output.stderr))
    };
    let (_, collector, _) = hostgw(&["render", "--node", "win-1", "--collect"]);
    let mut failures = Vec::new();
    let mut conflict = machine();
    conflict.route(12, "10.244.2.0/25", "172.30.0.99", 256, "AP");
    let mut partly = starts().remove(4).1;
    partly.route(12, "10.244.77.0/24", "10.244.77.1", 256, "A");
    let mut diverted = applied(machine());
    diverted.route(12, "10.244.2.64/26", "172.30.0.99", 5, "AP");
    diverted.route(1, "10.244.9.0/24", "0.0.0.0", 1, "P");
    let mut no_pod = machine();
    no_pod.interfaces.retain(|interface| interface.index != 7);
    let far = CLUSTER.replace("172.30.0.13", "172.30.9.13").replace("172.30.0.14", "172.30.9.14");
    let with = |keys: &str| format!("nextHop: node-address\n{keys}{far}");
    for (name, mut machine, configuration) in [
        ("fresh", machine(), CLUSTER.to_owned()),
        ("partly", partly, CLUSTER.to_owned()),
        ("conflict", conflict, CLUSTER.to_owned()),
        ("diverted", diverted, CLUSTER.to_owned()),
        ("no-pod-interface", no_pod, CLUSTER.to_owned()),
        ("off-link-refused", machine(), with("")),
        ("off-link-skipped", machine(), with("offLink: skip\n")),
        ("off-link-gateway", machine(), with("offLink: gateway\n")),
    ] {
        configure(&configuration);
        let collected = run(&mut machine, &collector, &[]);
        std::fs::write(folder.path().join("node.json"), &collected.stdout).unwrap();
        let arguments = ["plan", "--state", "node.json", "--detailed-exitcode"];
        let (code, stdout, stderr) = hostgw(&arguments);
        let text = format!("exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}");
        cases::compare(&root.join(format!("plan-{name}.txt")), &text, &mut failures);
        // Encoded as by `>` in Windows PowerShell 5.1.
        let units = std::iter::once(0xfeff).chain(collected.stdout.encode_utf16());
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        std::fs::write(folder.path().join("node.json"), bytes).unwrap();
        assert_eq!(hostgw(&arguments), (code, stdout, stderr));
        let (_, json, _) = hostgw(&["plan", "--state", "node.json", "--json"]);
        if let (2, Ok(json)) = (code, serde_json::from_str::<serde_json::Value>(&json)) {
            assert!(jsonschema::is_valid(&schema("plan"), &json), "{json:#}");
        }
    }
    configure(CLUSTER);
    let (code, _, stderr) = hostgw(&["plan", "--state", "node.json", "--node", "linux-1"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("node.json is from a Windows machine, but node linux-1 runs Linux"), "{stderr}");
    let (code, _, stderr) = hostgw(&["plan", "--state", "node.json", "--out", "p.json"]);
    assert_eq!(code, 64, "{stderr}");
    cases::assert_none(8, &failures);
}
