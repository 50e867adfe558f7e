//! The scripts for Windows nodes: their text, and what they do on a model of a Windows machine.
//!
//! There is no Windows here. So the scripts are read by a parser and a lint, and run, as they are, by a small
//! PowerShell on a model of the two stores of routes, with a fault at every step.

use hostgw::{
    config::{self, Document, Format},
    model::{Cluster, InterfaceName},
    plan::{
        self, Policy, WindowsDesired,
        windows::{WindowsChange, WindowsObserved},
    },
    render::{Facts, windows_collector, windows_script},
};
use proptest::prelude::*;

use crate::support::{
    cases,
    clusters::two,
    directory::Directory,
    powershell::{Fault, Interface, Machine, Outcome, RouteKey, Store, lint, parse, routes_of, run},
};

/// A cluster with two Linux nodes and two Windows nodes.
const CLUSTER: &str = "\
clusterPrefix: 10.244.0.0/16
egressInterface: eth0
masterAddress: 172.30.0.11
nodes:
  - {name: linux-1, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}
  - {name: win-1, os: windows, podCIDR: 10.244.1.0/24, address: 172.30.0.12}
  - {name: linux-2, os: linux, podCIDR: 10.244.2.0/25, address: 172.30.0.13}
  - {name: win-2, os: windows, podCIDR: 10.244.8.0/21, address: 172.30.0.14}
";

const FACTS: Facts<'static> = Facts { file: "hostgw.yaml", config_hash: "0123456789abcdef" };

fn cluster(text: &str) -> Cluster {
    let document = Document::new("hostgw.yaml", text.to_owned(), Format::Yaml);
    config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

/// Every Windows node of a cluster.
fn windows_nodes(cluster: &Cluster) -> Vec<(usize, WindowsDesired)> {
    (0..cluster.nodes.len())
        .filter_map(|index| Some((index, plan::windows_desired(cluster, index)?)))
        .collect()
}

fn script_of(text: &str, name: &str) -> String {
    let cluster = cluster(text);
    let (index, _) = cluster.node(name).unwrap();
    let desired = plan::windows_desired(&cluster, index).unwrap();
    windows_script(&cluster, index, &desired, &FACTS)
}

/// A fresh machine for win-1: an interface with the node's address, one with its pod gateway.
fn machine() -> Machine {
    let interface = |index, alias: &str, address: &str| Interface {
        index,
        alias: alias.to_owned(),
        addresses: vec![address.parse().unwrap()],
        forwarding: [("IPv4", false), ("IPv6", false)].into(),
    };
    let mut machine = Machine {
        interfaces: vec![
            interface(1, "Loopback Pseudo-Interface 1", "127.0.0.1/8"),
            interface(12, "vEthernet (Ethernet)", "172.30.0.12/24"),
            interface(7, "vEthernet (cbr0)", "10.244.1.2/24"),
        ],
        is_administrator: true,
        ..Machine::default()
    }
    .with_local_routes();
    machine.route(12, "0.0.0.0/0", "172.30.0.1", 25, "AP");
    machine.route(12, "192.168.7.0/24", "172.30.0.77", 5, "AP");
    machine
}

/// The routes of a machine that are not Windows' own, in words: store by store.
fn routes(machine: &Machine) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, store) in [("active", &machine.active), ("persistent", &machine.persistent)] {
        for (key, value) in store.iter().filter(|(_, value)| value.protocol != "Local") {
            lines.push(format!("{name} {} {} {} {}", key.index, key.destination, key.next_hop, value.metric));
        }
    }
    lines
}

/// What a machine is to hold of hostgw's after an apply, besides what it held of others.
const WANTED: [(&str, &str, i64); 4] = [
    ("10.244.0.0/24", "10.244.0.1", 256),
    ("10.244.2.0/25", "10.244.2.1", 256),
    ("10.244.8.0/21", "10.244.8.2", 256),
    ("10.244.1.0/24", "0.0.0.0", 300),
];

/// The machine as it is after an apply that found nothing of its own.
fn applied(mut machine: Machine) -> Machine {
    for (destination, next_hop, metric) in WANTED {
        machine.route(12, destination, next_hop, metric, "AP");
    }
    machine.route(12, "172.30.0.11/32", "172.30.0.1", 256, "AP");
    forwarding(&mut machine);
    machine
}

fn forwarding(machine: &mut Machine) {
    for interface in machine.interfaces.iter_mut().filter(|one| one.index != 1) {
        interface.forwarding.insert("IPv4", true);
    }
}

#[track_caller]
fn ends_with(outcome: &Outcome, code: i64) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn a_fresh_machine_gets_all_its_routes_and_a_second_run_changes_nothing() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    let before = machine.network();
    ends_with(&run(&mut machine, &script, &["-WhatIf"]), 0);
    assert_eq!(machine.network(), before);
    assert!(machine.steps.is_empty(), "-WhatIf writes nothing: {:?}", machine.steps);
    ends_with(&run(&mut machine, &script, &[]), 0);
    assert_eq!(machine.network(), applied(self::machine()).network());
    let calls = machine.calls.len();
    let again = run(&mut machine, &script, &[]);
    ends_with(&again, 0);
    assert_eq!(again.stdout, "Nothing to do: the node is as the file says.\n");
    assert_eq!(machine.calls.len(), calls, "{:?}", machine.calls);
}

/// States that an apply may find, and what it is to leave of each.
fn starts() -> Vec<(&'static str, Machine, Machine)> {
    let (fresh, script) = (machine(), script_of(CLUSTER, "win-1"));
    let after = applied(fresh.clone());
    let mut standing = fresh.clone();
    ends_with(&run(&mut standing, &script, &[]), 0);
    standing.steps.clear();
    standing.calls.clear();
    let with = |change: &dyn Fn(&mut Machine)| {
        let mut machine = standing.clone();
        change(&mut machine);
        machine
    };
    let without = |machine: &mut Machine, destination: &str, stores: &str| {
        let is_it = |key: &RouteKey| key.index == 12 && key.destination.to_string() == destination;
        if stores.contains('A') {
            machine.active.retain(|key, _| !is_it(key));
        }
        if stores.contains('P') {
            machine.persistent.retain(|key, _| !is_it(key));
        }
    };
    let old = script_of(&CLUSTER.replace("10.244.2.0/25", "10.244.3.0/24"), "win-1");
    let other_hops = script_of(&format!("nextHop: node-address\n{CLUSTER}"), "win-1");
    let made_by = |script: &str| {
        let mut machine = fresh.clone();
        ends_with(&run(&mut machine, script, &[]), 0);
        machine.steps.clear();
        machine
    };
    vec![
        ("fresh", fresh.clone(), after.clone()),
        ("lost at a restart", with(&|machine| without(machine, "10.244.0.0/24", "P")), after.clone()),
        ("not yet active", with(&|machine| without(machine, "10.244.1.0/24", "A")), after.clone()),
        ("one is gone", with(&|machine| without(machine, "10.244.8.0/21", "AP")), after.clone()),
        (
            "other metrics",
            with(&|machine| {
                machine.route(12, "10.244.0.0/24", "10.244.0.1", 5, "A");
                machine.route(12, "10.244.8.0/21", "10.244.8.2", 7, "P");
                machine.route(12, "172.30.0.11/32", "172.30.0.1", 9, "AP");
            }),
            after.clone(),
        ),
        ("another configuration", made_by(&old), after.clone()),
        ("another next hop model", made_by(&other_hops), after.clone()),
        (
            "by hand, as the old script did",
            {
                let mut machine = fresh.clone();
                machine.route(12, "10.244.0.0/24", "10.244.0.1", 256, "AP");
                machine.route(12, "10.244.1.0/24", "0.0.0.0", 300, "A");
                machine
            },
            after.clone(),
        ),
        (
            "the like of it on another interface",
            with(&|machine| machine.route(7, "10.244.1.0/24", "0.0.0.0", 3, "A")),
            {
                let mut after = after.clone();
                after.route(7, "10.244.1.0/24", "0.0.0.0", 3, "A");
                after
            },
        ),
    ]
}

/// What stands of hostgw's, and what does not belong to it.
#[test]
fn every_state_is_repaired_by_steps_that_windows_takes() {
    for (what, mut machine, after) in starts() {
        let outcome = run(&mut machine, &script_of(CLUSTER, "win-1"), &[]);
        assert_eq!(outcome.code, Some(0), "{what}: {}{}", outcome.stdout, outcome.stderr);
        assert_eq!(machine.network(), after.network(), "{what}: {}", outcome.stdout);
        let calls = machine.calls.len();
        ends_with(&run(&mut machine, &script_of(CLUSTER, "win-1"), &[]), 0);
        assert_eq!(machine.calls.len(), calls, "{what}: a second run");
    }
}

/// What a fault leaves: what stood before, all of the new, or what the script says is left.
#[test]
fn a_fault_at_any_step_ends_in_before_or_after() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let steps = {
            let mut machine = start.clone();
            run(&mut machine, &script, &[]);
            machine.steps.len()
        };
        for step in 0..steps {
            for fault in [Fault::Refuse, Fault::Late, Fault::Ignore, Fault::Stop] {
                let mut machine = start.clone();
                machine.faults.insert(step, fault);
                let outcome = run(&mut machine, &script, &[]);
                let told = format!("{what}, step {step} {fault:?}: {outcome:#?}\n{:#?}", machine.steps);
                let (before, now) = (start.network(), machine.network());
                match outcome.code {
                    Some(0) => assert_eq!(now, after.network(), "{told}"),
                    // Stopped when all was committed, and only to be told.
                    None if step + 1 == steps => assert_eq!(now, after.network(), "{told}"),
                    Some(6 | 1 | 4) | None => assert_eq!(now, before, "{told}"),
                    Some(7) => assert_eq!(now, before, "only records were left: {told}"),
                    other => panic!("{other:?}: {told}"),
                }
                // Whatever it was, the next run does all of it.
                machine.faults.clear();
                let outcome = run(&mut machine, &script, &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:#?} after {told}");
                assert_eq!(machine.network(), after.network(), "{told}");
            }
        }
    }
}

/// A machine that loses power, or a script that is killed: the next run, or -Rollback, puts back what stood before.
#[test]
fn after_a_kill_at_any_step_the_next_run_puts_back_what_stood_before() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        for step in 0.. {
            let mut finished = false;
            for fault in [Fault::Kill, Fault::KillAfter] {
                let mut machine = start.clone();
                machine.faults.insert(step, fault);
                let outcome = run(&mut machine, &script, &[]);
                finished = outcome.code.is_some();
                if finished {
                    break;
                }
                machine.faults.clear();
                let is_committed = !machine.files.contains_key("C:\\Program Files\\hostgw\\journal.json");
                let told = format!("{what}, step {step} {fault:?}: {:#?}", machine.steps);
                let mut other = machine.clone();
                let outcome = run(&mut other, &script, &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:#?} after {told}");
                assert_eq!(other.network(), after.network(), "{told}");
                if is_committed {
                    let stands = machine.network();
                    assert!(stands == start.network() || stands == after.network(), "{told}");
                } else {
                    ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
                    assert_eq!(machine.network(), start.network(), "{told}");
                }
            }
            if finished {
                break;
            }
        }
    }
}

/// Two faults: one in the change, one in undoing it. What is left is told, and done once the cause is gone.
#[test]
fn a_rollback_that_cannot_be_finished_says_what_is_left() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let steps = {
            let mut machine = start.clone();
            run(&mut machine, &script, &[]);
            machine.steps.len()
        };
        for step in 0..steps {
            let mut machine = start.clone();
            machine.denied_from = Some(step);
            let outcome = run(&mut machine, &script, &[]);
            let told = format!("{what}, from step {step}: {outcome:#?}");
            if outcome.code == Some(7) {
                assert!(outcome.stderr.contains("What is left to do, in this order:"), "{told}");
                let left: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("  ")).collect();
                assert!(!left.is_empty(), "{told}");
                assert_ne!(machine.network(), start.network(), "{told}");
            } else {
                let stands = if outcome.code == Some(0) { &after } else { &start };
                assert_eq!(machine.network(), stands.network(), "{told}");
            }
            machine.denied_from = None;
            ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
            let outcome = run(&mut machine, &script, &["-Rollback"]);
            ends_with(&outcome, 0);
            if what == "fresh" {
                assert_eq!(machine.network(), start.network(), "{told}");
            }
        }
    }
}

#[test]
fn rollback_and_destroy_leave_what_was_there_before() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let mut machine = start.clone();
        ends_with(&run(&mut machine, &script, &[]), 0);
        if machine.calls.len() > start.calls.len() {
            ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
            assert_eq!(machine.network(), start.network(), "{what}");
            ends_with(&run(&mut machine, &script, &[]), 0);
        }
        assert_eq!(machine.network(), after.network(), "{what}");
        let outcome = run(&mut machine, &script, &["-Destroy"]);
        ends_with(&outcome, 0);
        let own: Vec<String> =
            routes(&machine).into_iter().filter(|line| line.contains("12 10.244.")).collect();
        assert!(own.is_empty(), "{what}: {own:?}");
        ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
        assert_eq!(machine.network(), after.network(), "{what}: the rollback of -Destroy");
    }
    let mut machine = machine();
    let before = machine.network();
    ends_with(&run(&mut machine, &script, &[]), 0);
    ends_with(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), before, "forwarding is restored");
    ends_with(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), before);
}

#[test]
fn what_hostgw_does_not_own_is_refused_or_taken_over_and_given_back() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    machine.route(12, "10.244.2.0/25", "172.30.0.99", 256, "AP");
    machine.route(1, "10.244.8.0/21", "0.0.0.0", 1, "A");
    let before = machine.network();
    let outcome = run(&mut machine, &script, &[]);
    ends_with(&outcome, 10);
    assert_eq!(machine.network(), before);
    assert!(
        outcome
            .stdout
            .contains("! -DestinationPrefix 10.244.2.0/25 -NextHop 172.30.0.99 on vEthernet (Ethernet)")
    );
    ends_with(&run(&mut machine, &script, &["-WhatIf"]), 10);
    ends_with(&run(&mut machine, &script, &["-Adopt"]), 0);
    assert_eq!(machine.network(), applied(self::machine()).network());
    ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
    assert_eq!(machine.network(), before);
}

#[test]
fn a_machine_that_does_not_fit_is_refused_before_anything_is_changed() {
    let script = script_of(CLUSTER, "win-1");
    let mut no_pod = machine();
    no_pod.interfaces.retain(|interface| interface.index != 7);
    let mut two = machine();
    two.interfaces[0].addresses.push("172.30.0.12/32".parse().unwrap());
    let mut no_gateway = machine();
    no_gateway.active.retain(|key, _| key.destination.prefix_len() > 0);
    let mut nobody = machine();
    nobody.interfaces[1].addresses.clear();
    let mut blind = machine();
    blind.blind = true;
    let mut ordinary = machine();
    ordinary.is_administrator = false;
    let mut held = machine();
    held.locked.insert("C:\\Program Files\\hostgw\\lock".to_owned());
    for (mut machine, code, words) in [
        (no_pod, 3, "to have one pod interface, which holds 10.244.1.2 or is called"),
        (two, 3, "one interface that holds 172.30.0.12; this machine has 2 of them"),
        (nobody, 3, "one interface that holds 172.30.0.12; this machine has 0 of them"),
        (no_gateway, 3, "set defaultGateway of node win-1 in the configuration"),
        (blind, 1, "The WMI repository is corrupted."),
        (ordinary, 1, "only an administrator"),
        (held, 4, "another run holds"),
    ] {
        let before = machine.network();
        let outcome = run(&mut machine, &script, &[]);
        ends_with(&outcome, code);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert_eq!(machine.network(), before);
    }
}

/// Indexes change when HNS makes its switch, between an apply and its rollback too.
#[test]
fn an_interface_is_found_again_by_its_name() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    ends_with(&run(&mut machine, &script, &[]), 0);
    let moved = |store: &Store| {
        let index = |index| if index == 12 { 33 } else { index };
        store
            .iter()
            .map(|(key, value)| {
                let key = RouteKey { index: index(key.index), ..key.clone() };
                (key, value.clone())
            })
            .collect()
    };
    (machine.active, machine.persistent) = (moved(&machine.active), moved(&machine.persistent));
    machine.interfaces[1].index = 33;
    ends_with(&run(&mut machine, &script, &["-Rollback"]), 0);
    assert_eq!(routes(&machine).len(), 4, "{:?}", routes(&machine));
}

/// What a script of node number `index` must hold, by its tree.
fn check_script(cluster: &Cluster, index: usize, desired: &WindowsDesired) -> String {
    let script = windows_script(cluster, index, desired, &FACTS);
    for text in [&script, &windows_collector(cluster, index, &FACTS)] {
        let (tree, wrong) = parse(text);
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(lint(text, &tree), Vec::<String>::new());
        assert!(text.lines().all(|line| line.len() <= 400), "nobody reviews such lines");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end as on Windows");
    }
    let (tree, _) = parse(&script);
    let told: Vec<_> = desired
        .state
        .routes
        .iter()
        .map(|route| {
            let next_hop = route.next_hop.map(|address| address.to_string()).unwrap_or_default();
            (route.destination_prefix.to_string(), next_hop, route.route_metric.to_string())
        })
        .collect();
    assert_eq!(routes_of(&script, &tree), told);
    script
}

#[test]
fn scripts_of_every_example_are_powershell_and_say_the_plan() {
    let mut checked = 0;
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if let (Some(_), Ok(document)) = (Format::of_path(&path), Document::read(&path)) {
            let cluster = config::load(&document).unwrap();
            for (index, desired) in windows_nodes(&cluster) {
                check_script(&cluster, index, &desired);
                checked += 1;
            }
        }
    }
    assert!(checked > 1);
}

/// The whole text, as a reviewer sees it.
#[test]
fn a_script_reads_like_this() {
    let mut failures = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    let cluster = cluster(CLUSTER);
    for (index, desired) in windows_nodes(&cluster) {
        let name = &cluster.nodes[index].name;
        let script = windows_script(&cluster, index, &desired, &FACTS);
        cases::compare(&root.join(format!("{name}.ps1")), &script, &mut failures);
    }
    let collector = windows_collector(&cluster, 1, &FACTS);
    cases::compare(&root.join("win-1.collect.ps1"), &collector, &mut failures);
    cases::conclude(3, &failures);
}

/// Names that would get out of their place where they are not kept in it.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "'",
        "''",
        "\"",
        "$",
        "$(exit 9)",
        "`",
        "`n",
        "\n",
        "\r\n",
        "\u{2018}",
        "\u{2019}",
        "\u{201b}",
        "\u{201c}",
        "\u{202e}",
        "\u{200b}",
        "#",
        "<#",
        "#>",
        "@'",
        "'@",
        "{",
        "}",
        ";",
        "; exit 9 #",
        "é",
        "\u{1f600}",
        "\0",
        "n",
        " ",
        "|",
        "&",
        "%",
        "[",
        "]",
        "*",
    ]);
    prop::collection::vec(pieces, 1..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scripts_of_random_clusters_are_powershell_and_say_the_plan((_, cluster) in two()) {
        for (index, desired) in windows_nodes(&cluster) {
            check_script(&cluster, index, &desired);
        }
    }

    /// The names come out of the running script as they went into it, and nothing else of them runs.
    #[test]
    fn hostile_names_never_leave_their_literal(
        names in prop::collection::vec(hostile(), 4),
        alias in hostile(),
        file in hostile(),
    ) {
        let mut cluster = cluster(CLUSTER);
        for (node, name) in cluster.nodes.iter_mut().zip(&names) {
            node.name = format!("{name}{}", node.name);
        }
        let alias = alias.replace(char::is_control, "x") + "y";
        cluster.nodes[1].egress_interface = Some(InterfaceName::windows(&alias).unwrap());
        let desired = plan::windows_desired(&cluster, 1).unwrap();
        let facts = Facts { file: &file, ..FACTS };
        check_script(&cluster, 1, &desired);
        let script = windows_script(&cluster, 1, &desired, &facts);
        let mut machine = machine();
        machine.interfaces[1].alias.clone_from(&alias);
        let outcome = run(&mut machine, &script, &[]);
        prop_assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
        let mut after = applied(self::machine());
        after.interfaces[1].alias.clone_from(&alias);
        prop_assert_eq!(machine.network(), after.network());
        for at in [0, 2, 3] {
            let told = format!("{alias}: pods of node {}\n", cluster.nodes[at].name);
            prop_assert!(outcome.stdout.contains(&told), "{told:?} not in {:?}", outcome.stdout);
        }
        let collector = windows_collector(&cluster, 1, &facts);
        let collected = run(&mut machine, &collector, &[]);
        let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
        prop_assert_eq!(&observed.node, &cluster.nodes[1].name);
    }
}

/// Scripts that are wrong in one place each: the gate has to see it.
#[test]
fn the_gate_can_fail() {
    let script = script_of(CLUSTER, "win-1");
    let refused = |text: &str| {
        let (tree, wrong) = parse(text);
        !wrong.is_empty() || !lint(text, &tree).is_empty()
    };
    assert!(!refused(&script));
    for (from, to) in [
        ("InterfaceIndex = $route.Index; ", ""),
        ("DestinationPrefix = $route.Destination; ", ""),
        ("; NextHop = $route.NextHop\r\n        Confirm", "\r\n        Confirm"),
        ("        Confirm = $false; ErrorAction = 'Stop'", "        ErrorAction = 'Stop'"),
        ("Confirm = $false; ErrorAction = 'Stop'", "Confirm = $true; ErrorAction = 'Stop'"),
        ("Confirm = $false; ErrorAction = 'Stop'", "Confirm = $false; ErrorAction = 'Continue'"),
        ("Get-NetRoute -PolicyStore $store -ErrorAction Stop", "Get-NetRoute -PolicyStore $store"),
        ("Remove-NetRoute @one -PolicyStore $step.Store", "Remove-NetRoute @one"),
        ("Remove-NetRoute @one -PolicyStore $step.Store", "Remove-NetRoute @other -PolicyStore $step.Store"),
        ("AddressFamily = $change.Family; ", ""),
        ("'10.244.0.0/24'", "\"10.244.0.0/24$x\""),
        ("'pods of node linux-1'", "'pods of node linux'1'"),
        ("'pods of node linux-1'", "'pods of node linux\u{2019}1'"),
        ("$code = Invoke-Main", "$code = Invoke-Expression 'Invoke-Main'"),
        ("$code = Invoke-Main", "$code = & $main"),
        ("$code = Invoke-Main", "$code = [scriptblock]::Create('Invoke-Main')"),
        ("exit $code", "exit $code }"),
        ("    return (Invoke-Work $true)\r\n}", "    return (Invoke-Work $true)\r\n"),
    ] {
        assert!(script.contains(from), "{from:?}");
        assert!(refused(&script.replacen(from, to, 1)), "{from:?} -> {to:?}");
    }
}

/// The self-test runs on Windows alone; that it is PowerShell, and does not touch what it must not, is seen here.
#[test]
fn the_self_test_is_powershell() {
    let text = std::fs::read_to_string("examples/windows/self-test.ps1").unwrap();
    let (tree, wrong) = parse(&text);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let found = lint(&text, &tree);
    let is_known =
        |line: &String| line.contains("calls what a variable names") || line.contains("SilentlyContinue");
    assert!(found.iter().all(is_known), "{found:#?}");
    let document = Document::read(std::path::Path::new("examples/windows/self-test.yaml")).unwrap();
    let cluster = config::load(&document).unwrap();
    let (index, _) = cluster.node("self-test").unwrap();
    let desired = plan::windows_desired(&cluster, index).unwrap();
    for route in &desired.state.routes {
        let entry = format!(
            "@{{ Destination = '{}'; NextHop = '{}'; Metric = {} }}",
            route.destination_prefix,
            route.next_hop.unwrap(),
            route.route_metric
        );
        assert!(text.contains(&entry), "{entry}");
        let documentation = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"];
        let within =
            |prefix: &&str| prefix.parse::<ipnet::IpNet>().unwrap().contains(&route.destination_prefix);
        assert!(documentation.iter().any(within), "{route}");
    }
}

/// What the script plans on a machine is what `plan --state` makes of what the collector prints there.
#[test]
fn a_plan_from_what_was_collected_is_the_one_of_the_script() {
    let cluster = cluster(CLUSTER);
    let desired = plan::windows_desired(&cluster, 1).unwrap();
    let script = windows_script(&cluster, 1, &desired, &FACTS);
    let collector = windows_collector(&cluster, 1, &FACTS);
    let mut foreign = machine();
    foreign.route(12, "10.244.2.0/25", "172.30.0.99", 256, "AP");
    let conflict = ("foreign", foreign.clone(), foreign);
    for (what, mut machine, _) in starts().into_iter().chain([conflict]) {
        let collected = run(&mut machine, &collector, &[]);
        let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
        let plan = plan::windows::windows_plan(&cluster, 1, &desired, &observed, Policy::Respect).unwrap();
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
            format!("Plan: {add} to add, {change} to change, {remove} to remove. Nothing was changed.\n");
        let conflicts = outcome.stdout.lines().filter(|line| line.starts_with("! ")).count();
        assert_eq!(conflicts, plan.conflicts.len(), "{what}: {}", outcome.stdout);
        if plan.changes.is_empty() {
            assert_eq!(outcome.stdout, "Nothing to do: the node is as the file says.\n", "{what}");
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

/// The whole way of a reviewer: collect there, plan here, with the built program.
#[test]
fn a_windows_node_is_planned_from_what_was_collected() {
    let folder = Directory::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    std::fs::write(folder.path().join("hostgw.yaml"), CLUSTER).unwrap();
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
    let mut no_pod = machine();
    no_pod.interfaces.retain(|interface| interface.index != 7);
    for (name, mut machine) in
        [("fresh", machine()), ("partly", partly), ("conflict", conflict), ("no-pod-interface", no_pod)]
    {
        let collected = run(&mut machine, &collector, &[]);
        std::fs::write(folder.path().join("node.json"), &collected.stdout).unwrap();
        let arguments = ["plan", "--state", "node.json", "--detailed-exitcode"];
        let (code, stdout, stderr) = hostgw(&arguments);
        let text = format!("exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}");
        cases::compare(&root.join(format!("plan-{name}.txt")), &text, &mut failures);
        // As `>` of Windows PowerShell 5.1 writes it.
        let units = std::iter::once(0xfeff).chain(collected.stdout.encode_utf16());
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        std::fs::write(folder.path().join("node.json"), bytes).unwrap();
        assert_eq!(hostgw(&arguments), (code, stdout, stderr));
        let (_, json, _) = hostgw(&["plan", "--state", "node.json", "--json"]);
        if let (2, Ok(json)) = (code, serde_json::from_str::<serde_json::Value>(&json)) {
            let schema: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string("schemas/plan.schema.json").unwrap()).unwrap();
            assert!(jsonschema::is_valid(&schema, &json), "{json:#}");
        }
    }
    let (code, _, stderr) = hostgw(&["plan", "--state", "node.json", "--node", "linux-1"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("node.json is of a Windows machine, and node linux-1 runs Linux"), "{stderr}");
    let (code, _, stderr) = hostgw(&["plan", "--state", "node.json", "--out", "p.json"]);
    assert_eq!(code, 64, "{stderr}");
    cases::conclude(4, &failures);
}
