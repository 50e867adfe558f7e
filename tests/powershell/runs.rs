//! Runs without faults.

use super::{CLUSTER, applied, assert_exit_code, machine, routes, script_of, starts};
use crate::support::powershell::{RouteKey, Store, run_both as run};

#[test]
fn a_first_run_adds_all_routes_and_a_second_changes_nothing() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    let before = machine.network();
    assert_exit_code(&run(&mut machine, &script, &["-WhatIf"]), 0);
    assert_eq!(machine.network(), before);
    assert!(machine.steps.is_empty(), "-WhatIf writes nothing: {:?}", machine.steps);
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    assert_eq!(machine.network(), applied(super::machine()).network());
    let calls = machine.calls.len();
    let again = run(&mut machine, &script, &[]);
    assert_exit_code(&again, 0);
    assert_eq!(again.stdout, "No changes. This node matches the configuration.\n");
    assert_eq!(machine.calls.len(), calls, "{:?}", machine.calls);
}

/// A machine without pods gets the routes, and neither needs a pod interface nor forwards.
#[test]
fn a_machine_without_pods_gets_only_routes() {
    let podless = CLUSTER.replace("podCIDR: 10.244.1.0/24", "podCIDR: none");
    let script = script_of(&podless, "win-1");
    let mut bare = machine();
    bare.interfaces.retain(|interface| interface.index != 7);
    let (interfaces, ..) = bare.network();
    let outcome = run(&mut bare, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(bare.network().0, interfaces, "forwarding is not changed");
    let own: Vec<String> = routes(&bare).into_iter().filter(|line| line.contains(" 10.244.")).collect();
    let expected =
        [("10.244.0.0/24", "10.244.0.1"), ("10.244.2.0/25", "10.244.2.1"), ("10.244.8.0/21", "10.244.8.2")];
    let expected: Vec<String> = ["active", "persistent"]
        .into_iter()
        .flat_map(|store| {
            expected.map(|(destination, next_hop)| format!("{store} 12 {destination} {next_hop} 256"))
        })
        .collect();
    assert_eq!(own, expected);
    let again = run(&mut bare, &script, &[]);
    assert_exit_code(&again, 0);
    assert_eq!(again.stdout, "No changes. This node matches the configuration.\n");
}

/// The steps for managed routes; foreign ones stay.
#[test]
fn every_state_is_repaired_by_valid_steps() {
    for (what, mut machine, after) in starts() {
        let outcome = run(&mut machine, &script_of(CLUSTER, "win-1"), &[]);
        assert_eq!(outcome.code, Some(0), "{what}: {}{}", outcome.stdout, outcome.stderr);
        assert_eq!(machine.network(), after.network(), "{what}: {}", outcome.stdout);
        let calls = machine.calls.len();
        assert_exit_code(&run(&mut machine, &script_of(CLUSTER, "win-1"), &[]), 0);
        assert_eq!(machine.calls.len(), calls, "{what}: a second run");
    }
}

#[test]
fn rollback_and_destroy_restore_the_previous_state() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let mut machine = start.clone();
        assert_exit_code(&run(&mut machine, &script, &[]), 0);
        if machine.calls.len() > start.calls.len() {
            assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
            assert_eq!(machine.network(), start.network(), "{what}");
            assert_exit_code(&run(&mut machine, &script, &[]), 0);
        }
        assert_eq!(machine.network(), after.network(), "{what}");
        let outcome = run(&mut machine, &script, &["-Destroy"]);
        assert_exit_code(&outcome, 0);
        let own: Vec<String> =
            routes(&machine).into_iter().filter(|line| line.contains("12 10.244.")).collect();
        assert!(own.is_empty(), "{what}: {own:?}");
        assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
        assert_eq!(machine.network(), after.network(), "{what}: the rollback of -Destroy");
    }
    let mut machine = machine();
    let before = machine.network();
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    assert_exit_code(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), before, "forwarding is restored");
    assert_exit_code(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), before);
}

#[test]
fn foreign_routes_are_refused_or_adopted_and_restored() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    machine.route(12, "10.244.2.0/25", "172.30.0.99", 256, "AP");
    machine.route(1, "10.244.8.0/21", "0.0.0.0", 1, "A");
    let before = machine.network();
    let outcome = run(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 10);
    assert_eq!(machine.network(), before);
    assert!(
        outcome
            .stdout
            .contains("! -DestinationPrefix 10.244.2.0/25 -NextHop 172.30.0.99 on vEthernet (Ethernet)")
    );
    assert_exit_code(&run(&mut machine, &script, &["-WhatIf"]), 10);
    assert_exit_code(&run(&mut machine, &script, &["-Adopt"]), 0);
    assert_eq!(machine.network(), applied(super::machine()).network());
    assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
    assert_eq!(machine.network(), before);
}

#[test]
fn the_wrong_machine_is_refused_before_the_first_change() {
    let script = script_of(CLUSTER, "win-1");
    let mut no_pod = machine();
    no_pod.interfaces.retain(|interface| interface.index != 7);
    let mut two = machine();
    two.interfaces[0].addresses.push("172.30.0.12/32".parse().unwrap());
    let mut no_gateway = machine();
    no_gateway.active.retain(|key, _| key.destination.prefix_len() > 0);
    let mut without_address = machine();
    without_address.interfaces[1].addresses.clear();
    let mut blind = machine();
    blind.blind = true;
    let mut ordinary = machine();
    ordinary.is_administrator = false;
    let mut locked = machine();
    locked.locked.insert("C:\\Program Files\\hostgw\\lock".to_owned());
    for (mut machine, code, words) in [
        (no_pod, 3, "expected exactly one pod interface (with address 10.244.1.2, or named"),
        (two, 3, "one interface that has address 172.30.0.12, found 2"),
        (without_address, 3, "one interface that has address 172.30.0.12, found none"),
        (no_gateway, 3, "set defaultGateway for node win-1 in the configuration"),
        (blind, 1, "The WMI repository is corrupted."),
        (ordinary, 1, "only administrators"),
        (locked, 4, "another run holds"),
    ] {
        let before = machine.network();
        let outcome = run(&mut machine, &script, &[]);
        assert_exit_code(&outcome, code);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert_eq!(machine.network(), before);
    }
}

/// Indexes change when HNS creates its switch, also between an apply and its rollback.
#[test]
fn an_interface_is_identified_by_its_alias() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
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
    assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
    assert_eq!(routes(&machine).len(), 4, "{:?}", routes(&machine));
}

#[test]
fn both_families_and_node_addresses() {
    let dual = "\
clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
masterAddress: fd00:30::1
nodes:
  - {name: linux-1, os: linux, podCIDR: [10.244.0.0/26, 'fd00:244::/72'], address: [172.30.0.11, 'fd00:30::11']}
  - {name: win-1, os: windows, podCIDR: [10.244.1.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.12, 'fd00:30::12']}
";
    let mut machine = machine();
    machine.interfaces[1].addresses.push("fd00:30::12/64".parse().unwrap());
    machine.interfaces[2].addresses.push("fd00:244:0:1::2/64".parse().unwrap());
    machine = machine.with_local_routes();
    machine.route(12, "::/0", "fe80::1", 256, "A");
    let before = machine.network();
    let script = script_of(dual, "win-1");
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    let own: Vec<String> = routes(&machine)
        .into_iter()
        .filter(|line| line.starts_with("active") && !line.contains("0.0.0.0/0") && !line.contains(" ::/0"))
        .collect();
    let expected = [
        "active 12 10.244.0.0/26 172.30.0.11 256",
        "active 12 10.244.1.0/24 0.0.0.0 300",
        "active 12 192.168.7.0/24 172.30.0.77 5",
        "active 12 fd00:30::1/128 fe80::1 256",
        "active 12 fd00:244::/72 fd00:30::11 256",
        "active 12 fd00:244:0:1::/64 :: 300",
    ];
    assert_eq!(own, expected);
    assert!(machine.interfaces[1..].iter().all(|one| one.forwarding.values().all(|forwards| *forwards)));
    assert_exit_code(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), before);
}

#[test]
fn a_mass_removal_is_refused_without_its_number() {
    let nodes = |count: usize| -> String {
        let others = (0..count)
            .map(|at| format!("  - {{name: n{at}, os: linux, podCIDR: 10.244.{}.0/24}}\n", 100 + at));
        let own = "  - {name: win-1, os: windows, podCIDR: 10.244.1.0/24, address: 172.30.0.12}\n";
        format!(
            "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n{own}{}",
            others.collect::<String>()
        )
    };
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script_of(&nodes(20), "win-1"), &[]), 0);
    let before = machine.network();
    for (left, removed) in [(5, 15), (0, 20)] {
        let script = script_of(&nodes(left), "win-1");
        let outcome = run(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 8);
        let words = format!("removes {removed} of the 21 managed routes");
        assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
        assert_exit_code(&run(&mut machine, &script, &["-AllowRemovals 7"]), 8);
        assert_exit_code(&run(&mut machine, &script, &["-WhatIf"]), 0);
        assert_eq!(machine.network(), before);
    }
    assert_exit_code(&run(&mut machine, &script_of(&nodes(11), "win-1"), &[]), 0);
    assert_exit_code(&run(&mut machine, &script_of(&nodes(0), "win-1"), &["-AllowRemovals 11"]), 0);
}
