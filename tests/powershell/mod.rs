//! The scripts for Windows nodes: their text, and their effects on a model of a Windows machine.
//!
//! Windows is not available here. Therefore the scripts are checked by a parser and a lint, and run unmodified in a
//! small PowerShell interpreter on a model of the two route stores, with a fault at every step. If `pwsh` is
//! installed, the same cases also run in that real PowerShell, with a substitute for the module NetTCPIP, and both
//! must have the same output, exit code and result. The scheduled task is only tested there, with a substitute for the
//! module ScheduledTasks. `HOSTGW_WHOLE=1` runs every fault at every call; by default, an evenly chosen part of them
//! runs.

mod arguments;
mod collected;
mod doctor;
mod faults;
mod hostile_text;
mod off_link;
mod paths;
mod real;
mod records;
mod runs;
mod task;
mod text;
mod traffic;

use hostgw::{
    config::{self, Document, Format},
    model::Cluster,
    plan::{self, WindowsDesired},
    render::{Provenance, windows_script},
};

use crate::support::powershell::{Interface, Machine, Outcome, RouteKey, run};

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

const PROVENANCE: Provenance<'static> = Provenance { file: "hostgw.yaml", config_hash: "0123456789abcdef" };

fn cluster(text: &str) -> Cluster {
    let document = Document::new("hostgw.yaml", text.to_owned(), Format::Yaml);
    config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

/// All Windows nodes of a cluster.
fn windows_nodes(cluster: &Cluster) -> Vec<(usize, WindowsDesired)> {
    (0..cluster.nodes.len())
        .filter_map(|index| Some((index, plan::windows_desired(cluster, index)?)))
        .collect()
}

fn script_of(text: &str, name: &str) -> String {
    let cluster = cluster(text);
    let (index, _) = cluster.node(name).unwrap();
    let desired = plan::windows_desired(&cluster, index).unwrap();
    windows_script(&cluster, index, &desired, &PROVENANCE)
}

/// A fresh machine for win-1, with an interface for the node's address and one for its pod gateway.
fn machine() -> Machine {
    let interface = |index, alias: &str, address: &str| Interface {
        index,
        alias: alias.to_owned(),
        addresses: vec![address.parse().unwrap()],
        forwarding: [("IPv4", false), ("IPv6", false)].into(),
        metric: 25,
        is_connected: true,
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

/// The routes of a machine by store, except those that Windows itself created.
fn routes(machine: &Machine) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, store) in [("active", &machine.active), ("persistent", &machine.persistent)] {
        for (key, value) in store.iter().filter(|(_, value)| value.protocol != "Local") {
            lines.push(format!("{name} {} {} {} {}", key.index, key.destination, key.next_hop, value.metric));
        }
    }
    lines
}

/// The managed routes that a machine must have after an apply.
const DESIRED: [(&str, &str, i64); 4] = [
    ("10.244.0.0/24", "10.244.0.1", 256),
    ("10.244.2.0/25", "10.244.2.1", 256),
    ("10.244.8.0/21", "10.244.8.2", 256),
    ("10.244.1.0/24", "0.0.0.0", 300),
];

/// The machine after an apply that found no managed routes.
fn applied(mut machine: Machine) -> Machine {
    for (destination, next_hop, metric) in DESIRED {
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
fn assert_exit_code(outcome: &Outcome, code: i64) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
}

/// Initial states, each with the state after an apply.
fn starts() -> Vec<(&'static str, Machine, Machine)> {
    let (fresh, script) = (machine(), script_of(CLUSTER, "win-1"));
    let after = applied(fresh.clone());
    let mut applied_machine = fresh.clone();
    assert_exit_code(&run(&mut applied_machine, &script, &[]), 0);
    applied_machine.steps.clear();
    applied_machine.calls.clear();
    let with = |change: &dyn Fn(&mut Machine)| {
        let mut machine = applied_machine.clone();
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
        assert_exit_code(&run(&mut machine, script, &[]), 0);
        machine.steps.clear();
        machine
    };
    vec![
        ("fresh", fresh.clone(), after.clone()),
        ("lost in a restart", with(&|machine| without(machine, "10.244.0.0/24", "P")), after.clone()),
        ("not yet active", with(&|machine| without(machine, "10.244.1.0/24", "A")), after.clone()),
        ("one is missing", with(&|machine| without(machine, "10.244.8.0/21", "AP")), after.clone()),
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
            "added manually, as by the old script",
            {
                let mut machine = fresh.clone();
                machine.route(12, "10.244.0.0/24", "10.244.0.1", 256, "AP");
                machine.route(12, "10.244.1.0/24", "0.0.0.0", 300, "A");
                machine
            },
            after.clone(),
        ),
        (
            "a similar route on another interface",
            with(&|machine| machine.route(7, "10.244.1.0/24", "0.0.0.0", 3, "A")),
            {
                let mut after = after.clone();
                after.route(7, "10.244.1.0/24", "0.0.0.0", 3, "A");
                after
            },
        ),
    ]
}
