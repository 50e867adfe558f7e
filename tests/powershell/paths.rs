//! Which way packets go: what the script says about foreign routes, and what it does if Windows disagrees.

use hostgw::{
    plan::{self, ForeignPolicy, windows::WindowsObserved},
    render::{windows_collector, windows_script},
};
use proptest::prelude::*;

use super::{CLUSTER, PROVENANCE, applied, assert_exit_code, cluster, machine, script_of};
use crate::support::powershell::{Find, Interface, Machine, Outcome, run, run_both};

const NO_CHANGES: &str = "No changes. This node matches the configuration.\n";
const NO_CHANGES_BUT: &str = "No changes. This node matches the configuration, but some pod traffic is lost or diverted; see the warnings above.\n";

/// A foreign route to the second half of linux-2's pods, and what the script says about it.
const FOREIGN: (i64, &str, &str, i64, &str) = (12, "10.244.2.64/26", "172.30.0.99", 5, "AP");
const MESSAGE: &str = "packets to 10.244.2.64/26 (pods of node linux-2) are diverted: the foreign route \
    -DestinationPrefix 10.244.2.64/26 -NextHop 172.30.0.99 on vEthernet (Ethernet) (metric 5 + interface metric 25, ActiveStore and \
    PersistentStore, protocol NetMgmt) is more specific than -DestinationPrefix 10.244.2.0/25\n";

fn with_foreign(mut machine: Machine) -> Machine {
    let (index, destination, next_hop, metric, stores) = FOREIGN;
    machine.route(index, destination, next_hop, metric, stores);
    machine
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    outcome.stdout.lines().filter_map(|line| line.strip_prefix("WARNING: ")).collect()
}

#[test]
fn a_more_specific_foreign_route_is_reported_before_and_after_an_apply() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = with_foreign(machine());
    let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
    assert_exit_code(&outcome, 0);
    assert!(outcome.stdout.starts_with(&format!("WARNING: HG0852: {MESSAGE}  help: ")), "{}", outcome.stdout);
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(machine.network(), with_foreign(applied(super::machine())).network(), "it stays");
    // Before the result, which does not claim that the apply is verified.
    let said = format!("WARNING: HG0852: applied, but {MESSAGE}  help: ");
    let result = "Applied to node win-1: 5 added, 2 updated, 0 removed. Some pod traffic is lost or diverted; see the \
        warnings above.\n";
    let at = |text: &str| {
        outcome.stdout.find(text).unwrap_or_else(|| panic!("{text:?} not in {}", outcome.stdout))
    };
    assert!(at(&said) < at(result));
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert!(outcome.stdout.ends_with(NO_CHANGES_BUT), "{}", outcome.stdout);
    assert!(outcome.stdout.contains(&format!("WARNING: HG0852: {MESSAGE}")), "{}", outcome.stdout);
    // The remedy removes exactly this route.
    let remedy = "remove it with `Remove-NetRoute -InterfaceIndex 12 -DestinationPrefix 10.244.2.64/26 -NextHop 172.30.0.99 \
        -PolicyStore ActiveStore; Remove-NetRoute -InterfaceIndex 12 -DestinationPrefix 10.244.2.64/26 -NextHop 172.30.0.99 \
        -PolicyStore PersistentStore`, or run the script with -Adopt\n";
    assert!(outcome.stdout.contains(remedy), "{}", outcome.stdout);
    let mut adopted = machine.clone();
    assert_exit_code(&run_both(&mut adopted, &script, &["-Adopt"]), 0);
    assert_eq!(adopted.network(), applied(super::machine()).network());
    assert_exit_code(&run_both(&mut adopted, &script, &["-Rollback"]), 0);
    assert_eq!(adopted.network(), machine.network(), "restored");
    for store in [&mut machine.active, &mut machine.persistent] {
        store.retain(|key, _| key.destination.to_string() != FOREIGN.1);
    }
    assert_eq!(run_both(&mut machine, &script, &[]).stdout, NO_CHANGES);
}

#[test]
fn ipv6_routes_are_judged_alike() {
    let text = "\
clusterPrefix: 'fd00:244::/48'
egressInterface: eth0
nextHop: node-address
nodes:
  - {name: linux-1, os: linux, podCIDR: 'fd00:244::/64', address: 'fd00:30::11'}
  - {name: win-1, os: windows, podCIDR: 'fd00:244:0:1::/64', address: 'fd00:30::12'}
";
    let script = script_of(text, "win-1");
    let mut machine = machine();
    machine.interfaces[1].addresses.push("fd00:30::12/64".parse().unwrap());
    machine.interfaces[2].addresses.push("fd00:244:0:1::2/64".parse().unwrap());
    let mut machine = machine.with_local_routes();
    assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
    assert_eq!(run_both(&mut machine, &script, &[]).stdout, NO_CHANGES);
    // Covered by two halves on the planned path, and not.
    for (half, is_covered) in [("fd00:244::8000:0:0:0/65", true), ("fd00:244::8000:0:0:0/66", false)] {
        let mut machine = machine.clone();
        machine.route(7, "fd00:244::8000:0:0:0/65", "fd00:30::99", 900, "A");
        machine.route(12, half, "fd00:30::11", 1, "A");
        let outcome = run_both(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 0);
        let words = "HG0852: packets to fd00:244:0:0:8000::/65 (pods of node linux-1) are diverted: ";
        let found = warnings(&outcome);
        assert_eq!(found.len(), usize::from(!is_covered), "{outcome:#?}");
        assert!(is_covered || found[0].starts_with(words), "{found:?}");
    }
    machine.find = Find::Diverts {
        from_call: 0,
        times: usize::MAX,
        destination: "fd00:244::/64".parse().unwrap(),
        route: None,
    };
    let outcome = run_both(&mut machine, &script, &[]);
    assert!(
        warnings(&outcome)[0]
            .starts_with("HG0861: packets to fd00:244:0:0:0:0:0:5 (pods of node linux-1) are lost"),
        "{outcome:#?}"
    );
}

/// The metric of the interface decides between routes to the same destination.
#[test]
fn the_total_metric_decides_between_routes_to_one_destination() {
    let script = script_of(CLUSTER, "win-1");
    // A second interface with an address among the node's own pods: 256 + its metric, against 256 + 25 on the pod interface.
    for (metric, words) in [(24, Some("are")), (25, Some("can be")), (26, None)] {
        let mut machine = machine();
        machine.interfaces.push(Interface {
            index: 9,
            alias: "Ethernet 9".to_owned(),
            addresses: vec!["10.244.1.77/24".parse().unwrap()],
            metric,
            ..machine.interfaces[0].clone()
        });
        let mut machine = machine.with_local_routes();
        let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
        assert_exit_code(&outcome, 0);
        let expected = words.map(|words| {
            format!("HG0852: packets to 10.244.1.0/24 (this node's pods) {words} diverted: the route of a local address ")
        });
        let found = warnings(&outcome);
        assert_eq!(found.len(), usize::from(words.is_some()), "{found:?}");
        assert!(expected.is_none_or(|expected| found[0].starts_with(&expected)), "{found:?}");
    }
    // A conflict, with or without packets: 256 + 25 is the planned route.
    for (metric, words) in [(300, "lower"), (256, "the same"), (1, "")] {
        let mut machine = machine();
        machine.interfaces[0].metric = if words.is_empty() { 9000 } else { 25 };
        machine.route(1, "10.244.2.0/25", "0.0.0.0", if words == "lower" { 1 } else { metric }, "A");
        let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
        assert_exit_code(&outcome, 10);
        let found = warnings(&outcome);
        assert_eq!(found.len(), usize::from(!words.is_empty()), "{found:?}");
        let relation = format!("{words} total metric");
        assert!(words.is_empty() || found[0].contains(&relation), "{found:?}");
    }
}

#[test]
fn a_persistent_route_takes_packets_after_a_restart() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    machine.route(1, "10.244.9.0/24", "0.0.0.0", 1, "P");
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    let found = warnings(&outcome);
    let words = "HG0852: applied, but after the next restart, packets to 10.244.9.0/24 (pods of node win-2) are \
        diverted: ";
    assert!(found.len() == 1 && found[0].starts_with(words), "{found:?}");
    assert!(outcome.stdout.contains("and verified"), "packets get through now: {}", outcome.stdout);
    assert!(outcome.stdout.contains("-PolicyStore PersistentStore`, or"), "{}", outcome.stdout);
}

#[test]
fn a_disconnected_interface_carries_nothing() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    machine.interfaces[0].is_connected = false;
    machine.route(1, "10.244.9.0/24", "0.0.0.0", 1, "A");
    let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
    assert_eq!(warnings(&outcome), Vec::<&str>::new());
    machine.interfaces[1].is_connected = false;
    let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
    let words =
        "HG0860: the egress interface vEthernet (Ethernet) is disconnected, so no packets pass through it";
    assert_eq!(warnings(&outcome), [words]);
}

/// A change that uncovers a foreign route is rolled back: the path worked before.
#[test]
fn a_path_that_no_longer_works_is_rolled_back() {
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script_of(CLUSTER, "win-1"), &[]), 0);
    machine.route(7, "10.244.2.0/25", "172.30.0.99", 900, "A");
    let before = machine.network();
    // The pods of linux-2 get a larger pod CIDR, so the managed route to the smaller one goes.
    let script = script_of(&CLUSTER.replace("10.244.2.0/25", "10.244.2.0/24"), "win-1");
    for find in [Find::ByTable, Find::Absent] {
        machine.find = find;
        let outcome = run_both(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 6);
        let words = "error: the change caused pod traffic to be lost or diverted: packets to 10.244.2.0/25 (pods of node \
            linux-2) are diverted: the foreign route -DestinationPrefix 10.244.2.0/25 -NextHop 172.30.0.99 on ";
        assert!(outcome.stderr.starts_with(words), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("\nhelp: hostgw did not add this route"), "{}", outcome.stderr);
        assert!(outcome.stdout.ends_with("Rolled back and verified: the node is in its previous state.\n"));
        assert_eq!(machine.network(), before);
    }
    // A path that did not work before is not a reason.
    machine.find = Find::ByTable;
    machine.route(7, "10.244.2.0/25", "172.30.0.99", 1, "A");
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert!(
        warnings(&outcome)[0].starts_with("HG0852: applied, but packets to 10.244.2.0/25"),
        "{outcome:#?}"
    );
}

#[test]
fn without_find_netroute_the_script_says_that_nothing_was_verified() {
    let script = script_of(CLUSTER, "win-1");
    for (find, why) in [(Find::Absent, "is not recognized"), (Find::Fails, "A general error occurred.")] {
        let mut machine = Machine { find, ..machine() };
        let outcome = run_both(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 0);
        assert_eq!(machine.network(), applied(super::machine()).network());
        let found = warnings(&outcome);
        let words = "HG0862: cannot ask Windows for the path to 10.244.0.5 (destinations not verified: 5 of 5): Find-NetRoute: ";
        assert!(found.len() == 1 && found[0].starts_with(words) && found[0].contains(why), "{found:?}");
    }
}

#[test]
fn windows_has_the_last_word() {
    let script = script_of(CLUSTER, "win-1");
    let diverts = |from_call, destination: &str, route: Option<(i64, &str)>| Find::Diverts {
        from_call,
        times: usize::MAX,
        destination: destination.parse().unwrap(),
        route: route.map(|(index, next_hop)| (index, next_hop.parse().unwrap())),
    };
    // Another path than the routes show, from the beginning.
    for (route, words) in [
        (
            Some((7, "10.9.9.9")),
            "are diverted: Find-NetRoute reports -DestinationPrefix 10.244.8.0/21 -NextHop 10.9.9.9 on \
             vEthernet (cbr0), although the active routes lead to -NextHop 10.244.8.2 on vEthernet (Ethernet)",
        ),
        (
            None,
            "are lost: Find-NetRoute reports no route, although the active routes lead to -NextHop 10.244.8.2 on vEthernet (Ethernet)",
        ),
    ] {
        let mut machine = Machine { find: diverts(0, "10.244.8.0/21", route), ..machine() };
        let outcome = run_both(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 0);
        let expected = format!("HG0861: applied, but packets to 10.244.8.5 (pods of node win-2) {words}");
        assert_eq!(warnings(&outcome), [expected]);
        let outcome = run_both(&mut machine, &script, &["-WhatIf"]);
        assert!(outcome.stdout.ends_with(NO_CHANGES_BUT), "{}", outcome.stdout);
    }
    // The planned path, although the routes show another one.
    let mut machine = with_foreign(machine());
    machine.find = diverts(0, "10.244.2.64/26", Some((12, "10.244.2.1")));
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(warnings(&outcome), Vec::<&str>::new());
    // It worked before the change, and does not after it.
    let mut machine = applied(super::machine());
    machine.active.retain(|key, _| key.destination.to_string() != "10.244.0.0/24");
    let before = machine.network();
    let forgetful = |times| Find::Diverts {
        from_call: 1,
        times,
        destination: "10.244.8.0/21".parse().unwrap(),
        route: None,
    };
    // Windows settles within two attempts, or does not.
    let outcome = run_both(&mut Machine { find: forgetful(2), ..machine.clone() }, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(warnings(&outcome), Vec::<&str>::new());
    machine.find = forgetful(3);
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 6);
    assert!(
        outcome.stderr.starts_with(
            "error: the change caused pod traffic to be lost or diverted: packets to 10.244.8.5"
        )
    );
    assert_eq!(machine.network(), before);
}

/// At most 32 destinations are asked about, evenly chosen, and diverted ones among them.
#[test]
fn the_sample_is_bounded_and_spread() {
    let nodes: String = (0..80)
        .map(|at| format!("  - {{name: n{at}, os: linux, podCIDR: 10.244.{}.0/24}}\n", 100 + at))
        .collect();
    let own = "  - {name: win-1, os: windows, podCIDR: 10.244.1.0/24, address: 172.30.0.12}\n";
    let text = format!("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n{own}{nodes}");
    let script = script_of(&text, "win-1");
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    machine.found.clear();
    for at in 0..20 {
        machine.route(1, &format!("10.244.{}.128/26", 100 + at), "0.0.0.0", 1, "A");
    }
    let outcome = run(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(warnings(&outcome).len(), 20, "{outcome:#?}");
    assert_eq!(machine.found.len(), 32, "{:?}", machine.found);
    let in_foreign = machine.found.iter().filter(|address| address.to_string().ends_with(".133")).count();
    assert_eq!(in_foreign, 16);
    let mut hosts: Vec<u8> = machine
        .found
        .iter()
        .filter(|address| address.to_string().ends_with(".5"))
        .map(|address| address.to_string().split('.').nth(2).unwrap().parse().unwrap())
        .collect();
    hosts.sort_unstable();
    let gaps: Vec<u8> = hosts.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap < 90).collect();
    assert!(gaps.iter().all(|gap| (4..=7).contains(gap)), "{hosts:?}");
}

/// A machine with random foreign routes, local addresses, metrics and connections.
fn random_machine() -> impl Strategy<Value = Machine> {
    let destinations = vec![
        "10.244.2.0/25",
        "10.244.2.0/26",
        "10.244.2.64/26",
        "10.244.2.64/27",
        "10.244.2.96/27",
        "10.244.2.7/32",
        "10.244.8.0/21",
        "10.244.8.0/22",
        "10.244.12.0/22",
        "10.244.9.0/24",
        "10.244.1.0/24",
        "10.244.1.0/25",
        "10.244.1.128/25",
        "10.244.1.9/32",
        "172.30.0.11/32",
        "10.244.0.0/16",
        "0.0.0.0/0",
    ];
    let hops = vec!["0.0.0.0", "172.30.0.99", "10.244.2.1", "10.244.8.2"];
    let route = (
        prop::sample::select(vec![1_i64, 7, 12]),
        prop::sample::select(destinations),
        prop::sample::select(hops),
        prop::sample::select(vec![1_i64, 256, 300, 900]),
        prop::sample::select(vec!["A", "P", "AP"]),
    );
    let metrics = prop::collection::vec(prop::sample::select(vec![1_i64, 25, 5000]), 3);
    (prop::collection::vec(route, 0..8), metrics, any::<[bool; 3]>(), any::<bool>(), any::<bool>()).prop_map(
        |(routes, metrics, connections, is_applied, has_local)| {
            let mut machine = if is_applied { applied(machine()) } else { machine() };
            if has_local {
                machine.interfaces[0].addresses.push("10.244.1.70/26".parse().unwrap());
                machine = machine.with_local_routes();
            }
            for (index, destination, next_hop, metric, stores) in routes {
                machine.route(index, destination, next_hop, metric, stores);
            }
            for ((interface, metric), is_connected) in
                machine.interfaces.iter_mut().zip(metrics).zip(connections)
            {
                interface.metric = metric;
                interface.is_connected = is_connected || interface.index == 12;
            }
            machine
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// `plan --state` and the script say the same about any routes. The answers of Windows confirm it.
    #[test]
    fn the_plan_and_the_script_judge_alike(mut machine in random_machine()) {
        let cluster = cluster(CLUSTER);
        let desired = plan::windows_desired(&cluster, 1).unwrap();
        let collected = run(&mut machine, &windows_collector(&cluster, 1, &PROVENANCE), &[]);
        let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
        let plan = plan::windows::windows_plan(&cluster, 1, &desired, &observed, ForeignPolicy::Respect).unwrap();
        let script = windows_script(&cluster, 1, &desired, &PROVENANCE);
        let outcome = run(&mut machine, &script, &["-WhatIf"]);
        let mut expected: Vec<String> = plan
            .paths
            .faults
            .iter()
            .chain(&plan.paths.warnings)
            .map(|found| format!("{}: {}", found.rule, found.message))
            .collect();
        let mut said = warnings(&outcome);
        said.sort_unstable();
        expected.sort_unstable();
        // Ties are unclear to the plan, but the model of Windows decides them, and the script asks it if nothing changes.
        let is_tie = |message: &String| message.contains(" can be diverted: ");
        let has_ties = expected.iter().any(is_tie);
        if plan.changes.is_empty() {
            expected.retain(|message| !is_tie(message) || said.contains(&message.as_str()));
        }
        prop_assert_eq!(&said, &expected, "{:#?}", outcome);
        let findings = plan.paths.faults.iter().chain(&plan.paths.warnings);
        for found in findings.filter(|found| said.contains(&format!("{}: {}", found.rule, found.message).as_str())) {
            let help = format!("  help: {}\n", found.remedy.as_deref().unwrap_or_default());
            prop_assert!(outcome.stdout.contains(&help), "{help}{}", outcome.stdout);
        }
        let conflicts = outcome.stdout.lines().filter(|line| line.starts_with("! ")).count();
        prop_assert_eq!(conflicts, plan.conflicts.len());
        prop_assert_eq!(outcome.code, Some(if conflicts > 0 { 10 } else { 0 }));
        if conflicts == 0 {
            // After the apply, Windows uses the routes that the plan predicts, except for ties.
            let outcome = run(&mut machine, &script, &[]);
            if outcome.code == Some(0) && !has_ties {
                let mut said: Vec<String> =
                    warnings(&outcome).into_iter().map(|line| line.replacen("applied, but ", "", 1)).collect();
                said.sort_unstable();
                prop_assert_eq!(said, expected, "{:#?}", outcome);
            }
        }
    }
}
