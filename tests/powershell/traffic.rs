//! Foreign routes that divert traffic, and routes of interfaces that no longer exist.

use super::{CLUSTER, applied, assert_exit_code, machine, routes, script_of};
use crate::support::powershell::{Machine, RouteKey, run, run_both};

/// A foreign route to the destination of a managed one is a conflict on any interface, whichever packets take.
#[test]
fn a_foreign_route_to_a_managed_destination_is_a_conflict_on_any_interface() {
    let script = script_of(CLUSTER, "win-1");
    for (index, destination, next_hop, stores) in [
        // Pods of another node, on the pod interface.
        (7, "10.244.2.0/25", "0.0.0.0", "A"),
        (7, "10.244.0.0/24", "10.244.0.9", "AP"),
        // Only after a restart.
        (1, "10.244.0.0/24", "0.0.0.0", "P"),
        // The node's own pods, not on-link.
        (12, "10.244.1.0/24", "172.30.0.99", "A"),
        (7, "10.244.1.0/24", "10.244.1.9", "A"),
        // The master, on another interface.
        (7, "172.30.0.11/32", "10.244.1.9", "A"),
    ] {
        let mut machine = machine();
        machine.route(index, destination, next_hop, 1, stores);
        let before = machine.network();
        let outcome = run_both(&mut machine, &script, &[]);
        assert_eq!(outcome.code, Some(10), "{destination} on {index}: {outcome:#?}");
        assert!(outcome.stdout.contains(&format!("! -DestinationPrefix {destination} ")), "{outcome:#?}");
        assert_eq!(machine.network(), before);
        assert_exit_code(&run_both(&mut machine, &script, &["-Adopt"]), 0);
        assert_eq!(machine.network(), applied(super::machine()).network());
        assert_exit_code(&run_both(&mut machine, &script, &["-Rollback"]), 0);
        assert_eq!(machine.network(), before, "{destination} on {index}: restored");
    }
}

/// A route that is added between two runs is noticed although nothing else changed.
#[test]
fn a_foreign_route_beside_matching_routes_is_noticed() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = applied(machine());
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    machine.route(7, "10.244.2.0/25", "0.0.0.0", 1, "A");
    assert_exit_code(&run_both(&mut machine, &script, &[]), 10);
}

#[test]
fn routes_that_divert_no_traffic_are_ignored() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    // The node's own pods on its pod interface, also individually.
    machine.route(7, "10.244.1.0/24", "0.0.0.0", 1, "AP");
    machine.route(7, "10.244.1.5/32", "0.0.0.0", 1, "A");
    machine.route(12, "10.244.1.6/32", "0.0.0.0", 1, "A");
    // A part of another node's pods on the planned path.
    machine.route(12, "10.244.2.64/26", "10.244.2.1", 9, "AP");
    // A part on a different path, all of which is back on the planned one.
    machine.route(12, "10.244.9.0/24", "172.30.0.99", 1, "A");
    machine.route(12, "10.244.9.0/25", "10.244.8.2", 1, "A");
    machine.route(12, "10.244.9.128/25", "10.244.8.2", 1, "A");
    // Prefixes that contain a node's pod CIDR, and one next to it.
    machine.route(12, "10.244.0.0/16", "172.30.0.99", 1, "AP");
    machine.route(12, "10.244.2.128/25", "172.30.0.99", 1, "AP");
    machine.route(12, "0.0.0.0/1", "172.30.0.99", 1, "AP");
    let after = applied(machine.clone());
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    assert!(!outcome.stdout.contains("WARNING"), "{}", outcome.stdout);
    assert_eq!(machine.network(), after.network());
}

/// Windows keeps packets to its own addresses: no managed route could change that.
#[test]
fn an_address_among_the_pods_of_another_node_is_refused() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    machine.interfaces[0].addresses.push("10.244.2.7/32".parse().unwrap());
    let mut machine = machine.with_local_routes();
    let before = machine.network();
    let outcome = run_both(&mut machine, &script, &["-Adopt"]);
    assert_exit_code(&outcome, 3);
    let words = "Loopback Pseudo-Interface 1 has an address in 10.244.2.0/25 (pods of node linux-2)";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    assert_eq!(machine.network(), before);
}

#[test]
fn the_host_route_to_the_master_is_not_another_node() {
    let cluster = |others: &str| {
        format!(
            "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nmasterAddress: 172.30.0.11\nnodes:\n\
             - {{name: win-1, os: windows, podCIDR: 10.244.1.0/24, address: 172.30.0.12, \
             defaultGateway: 172.30.0.1}}\n{others}"
        )
    };
    let full = cluster(
        "- {name: linux-2, os: linux, podCIDR: 10.244.2.0/24}\n- {name: linux-3, os: linux, podCIDR: 10.244.3.0/24}\n",
    );
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script_of(&full, "win-1"), &[]), 0);
    let before = machine.network();
    let empty = script_of(&cluster(""), "win-1");
    let outcome = run_both(&mut machine, &empty, &[]);
    assert_exit_code(&outcome, 8);
    assert!(outcome.stderr.contains("with -AllowRemovals 2"), "{}", outcome.stderr);
    assert_eq!(machine.network(), before);
    assert_exit_code(&run_both(&mut machine, &empty, &["-AllowRemovals 2"]), 0);
    assert!(!routes(&machine).iter().any(|line| line.contains("10.244.2.0")));
}

fn destinations(machine: &Machine, index: i64) -> Vec<String> {
    let keys = machine.persistent.keys().filter(|key| key.index == index);
    keys.map(|key| key.destination.to_string()).collect()
}

/// A machine whose switch was recreated: the managed routes of the old one, 33, remain in the persistent store.
pub fn with_a_new_switch(script: &str) -> Machine {
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, script, &[]), 0);
    let is_kept =
        |key: &RouteKey| key.destination.prefix_len() == 0 || key.next_hop.to_string() == "172.30.0.77";
    machine.active.retain(|key, value| value.protocol == "Local" || is_kept(key));
    machine.persistent = std::mem::take(&mut machine.persistent)
        .into_iter()
        .map(|(key, value)| (RouteKey { index: if is_kept(&key) { key.index } else { 33 }, ..key }, value))
        .collect();
    machine
}

#[test]
fn persistent_routes_of_a_removed_interface_never_conflict() {
    let script = script_of(CLUSTER, "win-1");
    let start = with_a_new_switch(&script);
    assert_eq!(destinations(&start, 33).len(), 5);
    let outcome = run_both(&mut start.clone(), &script, &["-WhatIf"]);
    assert_exit_code(&outcome, 0);
    assert!(outcome.stdout.contains("- Remove-NetRoute -InterfaceIndex 33"), "{}", outcome.stdout);
    // Managed, and the index is known: removed.
    let mut machine = start.clone();
    assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
    assert_eq!(machine.network(), applied(super::machine()).network());
    let outcome = run_both(&mut machine, &script, &[]);
    assert_eq!(outcome.stdout, "No changes. This node matches the configuration.\n");
    // Windows refuses to remove them: a warning with the command that does.
    let mut machine = start.clone();
    machine.calls_denied_from = Some(machine.calls.len() + 5);
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 0);
    let line = "route delete 10.244.2.0 mask 255.255.255.128 10.244.2.1";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
    // -Destroy removes them as well.
    let mut machine = start;
    assert_exit_code(&run_both(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), super::machine().network());
}

#[test]
fn a_foreign_orphaned_route_is_only_removed_on_request() {
    let script = script_of(CLUSTER, "win-1");
    for (index, is_removed) in [(33, true), (0, false)] {
        let mut machine = machine();
        machine.route(index, "10.244.2.0/25", "172.30.0.99", 256, "P");
        machine.route(index, "192.168.99.0/24", "172.30.0.99", 256, "P");
        let outcome = run_both(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 0);
        let line = "route delete 10.244.2.0 mask 255.255.255.128 172.30.0.99";
        assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
        assert!(!outcome.stdout.contains("192.168.99.0"), "{}", outcome.stdout);
        assert_eq!(destinations(&machine, index).len(), 2);
        let outcome = run_both(&mut machine, &script, &["-Adopt"]);
        assert_exit_code(&outcome, 0);
        assert_eq!(outcome.stdout.contains(line), !is_removed, "{}", outcome.stdout);
        let left = destinations(&machine, index);
        assert_eq!(left.len(), if is_removed { 1 } else { 2 }, "{left:?}");
    }
}

/// The routes of an interface that was removed between an apply and its rollback are gone: nothing is left to undo on
/// it.
#[test]
fn a_rollback_skips_a_removed_interface() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    machine.interfaces.retain(|interface| interface.index != 12);
    machine.active.retain(|key, _| key.index != 12);
    let outcome = run_both(&mut machine, &script, &["-Rollback"]);
    assert_exit_code(&outcome, 0);
    assert!(outcome.stdout.contains("Skipped: vEthernet (Ethernet) no longer exists"), "{}", outcome.stdout);
    let pod = machine.interfaces.iter().find(|interface| interface.index == 7).unwrap();
    assert!(!pod.forwarding["IPv4"], "everything else is undone");
    assert_exit_code(&run_both(&mut machine, &script, &["-Rollback"]), 0);
}
