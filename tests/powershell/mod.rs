//! The scripts for Windows nodes: their text, and what they do on a model of a Windows machine.
//!
//! There is no Windows here. So the scripts are read by a parser and a lint, and run, as they are, by a small
//! PowerShell on a model of the two stores of routes, with a fault at every step. Where there is a `pwsh`, the same cases
//! run in that real PowerShell too, on a stand-in for the module NetTCPIP, and both must print, return and leave the
//! same. `HOSTGW_WHOLE=1` runs every fault at every call; otherwise a part of them runs, evenly chosen.

mod arguments;
mod collected;
mod faults;
mod hostile_text;
mod real;
mod records;
mod runs;
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
    windows_script(&cluster, index, &desired, &PROVENANCE)
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
