//! Nodes on other links: what becomes of their routes with each value of `offLink`.

use std::collections::BTreeSet;

use hostgw::{
    diagnose::{Diagnostic, Rule},
    doctor::{WindowsExamination, windows_symptoms},
    model::Cluster,
    plan::{
        self, ForeignPolicy, WindowsDesired,
        windows::{WindowsChange, WindowsObserved, WindowsPlan, windows_plan},
    },
    render::{windows_collector, windows_script},
};
use proptest::prelude::*;

use super::{PROVENANCE, assert_exit_code, cluster, machine, routes, text::check_script};
use crate::support::powershell::{Machine, Outcome, run, run_both};

const ALIAS: &str = "vEthernet (Ethernet)";
const REMEDY: &str = "or set offLink to gateway, skip or onlink\n";

/// The addresses of one family: a node on the link of win-1, and one that is not.
struct Setting {
    prefix: &'static str,
    /// The pod CIDR, the pod gateway and the address of each node: near, win-1, far.
    nodes: [[&'static str; 3]; 3],
    network: &'static str,
    /// The network of the node that is not on the link.
    beyond: &'static str,
    everything: &'static str,
    on_link: &'static str,
    /// The gateway of the default route, and one of a more specific route.
    gateways: [&'static str; 2],
}

const V4: Setting = Setting {
    prefix: "10.244.0.0/16",
    nodes: [
        ["10.244.0.0/24", "10.244.0.1", "172.30.0.11"],
        ["10.244.1.0/24", "10.244.1.2", "172.30.0.12"],
        ["10.244.2.0/24", "10.244.2.1", "172.30.9.5"],
    ],
    network: "172.30.0.0/24",
    beyond: "172.30.9.0/24",
    everything: "0.0.0.0/0",
    on_link: "0.0.0.0",
    gateways: ["172.30.0.1", "172.30.0.254"],
};

const V6: Setting = Setting {
    prefix: "fd00:244::/48",
    nodes: [
        ["fd00:244::/64", "fd00:244::1", "fd00:30::11"],
        ["fd00:244:0:1::/64", "fd00:244:0:1::2", "fd00:30::12"],
        ["fd00:244:0:2::/64", "fd00:244:0:2::1", "fd00:39::5"],
    ],
    network: "fd00:30::/64",
    beyond: "fd00:39::/64",
    everything: "::/0",
    on_link: "::",
    gateways: ["fd00:30::1", "fd00:30::fe"],
};

impl Setting {
    fn cluster(&self, keys: &str) -> Cluster {
        let node = |name: &str, os: &str, [pods, _, address]: [&str; 3]| {
            format!("  - {{name: {name}, os: {os}, podCIDR: '{pods}', address: '{address}'}}\n")
        };
        let [near, own, far] = self.nodes;
        let nodes = [node("near", "linux", near), node("win-1", "windows", own), node("far", "linux", far)];
        let prefix = self.prefix;
        cluster(&format!(
            "clusterPrefix: '{prefix}'\negressInterface: eth0\n{keys}nodes:\n{}",
            nodes.concat()
        ))
    }

    fn far(&self) -> &'static str {
        self.nodes[2][2]
    }

    /// A machine for win-1.
    fn machine(&self) -> Machine {
        let mut machine = machine();
        machine.active.clear();
        machine.persistent.clear();
        let length = |prefix: &str| prefix.split_once('/').unwrap().1.to_owned();
        let [pods, gateway, address] = self.nodes[1];
        for (at, address, prefix) in [(1, address, self.network), (2, gateway, pods)] {
            machine.interfaces[at].addresses = vec![format!("{address}/{}", length(prefix)).parse().unwrap()];
        }
        let mut machine = machine.with_local_routes();
        machine.route(12, self.everything, self.gateways[0], 25, "AP");
        machine
    }

    fn script(&self, keys: &str) -> String {
        let cluster = self.cluster(keys);
        windows_script(&cluster, 1, &plan::windows_desired(&cluster, 1).unwrap(), &PROVENANCE)
    }

    /// Runs the script of a configuration and asserts that `plan --state` agrees with it.
    fn run(&self, machine: &mut Machine, keys: &str) -> Outcome {
        let cluster = self.cluster(keys);
        let judged = Judged::new(&cluster, machine);
        let shown = run_both(machine, &judged.script, &["-WhatIf"]);
        judged.assert_alike(&shown);
        let outcome = run_both(machine, &judged.script, &[]);
        assert_eq!(outcome.code, shown.code, "{outcome:#?}");
        outcome
    }

    /// Runs the script, asserts that a second run changes nothing, and returns the next hop of the route to the pods of the
    /// node on the other link, in both stores.
    fn next_hop(&self, machine: &mut Machine, keys: &str) -> Option<String> {
        assert_exit_code(&self.run(machine, keys), 0);
        let calls = machine.calls.len();
        let again = run_both(machine, &self.script(keys), &[]);
        assert_exit_code(&again, 0);
        assert!(again.stdout.ends_with("No changes. This node matches the configuration.\n"), "{again:#?}");
        assert_eq!(machine.calls.len(), calls, "a second run");
        assert_eq!(self.next_hops(machine, 0).len(), 1, "the other node is not affected");
        let mut found = self.next_hops(machine, 2);
        assert!(found.len() <= 1, "{found:?}");
        found.pop()
    }

    fn next_hops(&self, machine: &Machine, node: usize) -> Vec<String> {
        let to = format!(" 12 {} ", self.nodes[node][0]);
        let of = |store: &str| {
            let lines =
                routes(machine).into_iter().filter(|line| line.starts_with(store) && line.contains(&to));
            lines.map(|line| line.split(' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("active"), of("persistent"));
        of("active")
    }
}

/// The result of `plan --state` with what the collector printed on a machine.
struct Judged {
    script: String,
    plan: Result<WindowsPlan, Vec<Diagnostic>>,
}

impl Judged {
    fn new(cluster: &Cluster, machine: &mut Machine) -> Self {
        let (desired, observed) = collected(cluster, machine);
        let script = windows_script(cluster, 1, &desired, &PROVENANCE);
        Self { script, plan: windows_plan(cluster, 1, &desired, &observed, ForeignPolicy::Respect) }
    }

    /// Asserts that the script said and did the same with `-WhatIf`.
    fn assert_alike(&self, outcome: &Outcome) {
        match &self.plan {
            Err(problems) => {
                assert_exit_code(outcome, 3);
                let remedy = problems.iter().find_map(|problem| problem.remedy.as_deref()).unwrap();
                let lines = problems.iter().take(10).map(|problem| format!("error: {}\n", problem.message));
                let more = match problems.len().saturating_sub(10) {
                    0 => String::new(),
                    more => format!("and {more} more problems\n"),
                };
                let expected = lines.collect::<String>() + &more + "help: " + remedy + "\n";
                assert_eq!(outcome.stderr, expected);
            }
            Ok(plan) => {
                assert_exit_code(outcome, if plan.conflicts.is_empty() { 0 } else { 10 });
                let found = plan.paths.faults.iter().chain(&plan.paths.warnings);
                let mut expected: Vec<String> =
                    found.map(|found| format!("{}: {}", found.rule, found.message)).collect();
                let lines = outcome.stdout.lines();
                let mut said: Vec<&str> =
                    lines.clone().filter_map(|line| line.strip_prefix("WARNING: ")).collect();
                expected.sort_unstable();
                said.sort_unstable();
                assert_eq!(said, expected, "{outcome:#?}");
                for change in &plan.changes {
                    let words = match change {
                        WindowsChange::Route(route) => format!(
                            "Route -InterfaceIndex {} -DestinationPrefix {} -NextHop {} ",
                            route.interface.index, route.destination, route.next_hop
                        ),
                        WindowsChange::Forwarding(forwarding) => {
                            format!(
                                "Interface -InterfaceIndex {} -AddressFamily ",
                                forwarding.interface.index
                            )
                        }
                    };
                    assert!(outcome.stdout.contains(&words), "{words:?} not in {}", outcome.stdout);
                }
                let conflicts = lines.filter(|line| line.starts_with("! ")).count();
                assert_eq!(conflicts, plan.conflicts.len(), "{}", outcome.stdout);
                if conflicts == 0 && !plan.changes.is_empty() {
                    let totals = plan.totals();
                    let totals = format!(
                        "Plan: {} to add, {} to update, {} to remove. Nothing was changed.\n",
                        totals.add, totals.update, totals.remove
                    );
                    assert!(outcome.stdout.ends_with(&totals), "{totals}{}", outcome.stdout);
                }
            }
        }
    }
}

fn collected(cluster: &Cluster, machine: &mut Machine) -> (WindowsDesired, WindowsObserved) {
    let collected = run(machine, &windows_collector(cluster, 1, &PROVENANCE), &[]);
    let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
    (plan::windows_desired(cluster, 1).unwrap(), observed)
}

#[test]
fn a_next_hop_on_another_link_is_refused() {
    for setting in [V4, V6] {
        let (far, network, beyond) = (setting.far(), setting.network, setting.beyond);
        for keys in ["nextHop: node-address\n", "nextHop: node-address\noffLink: refuse\n"] {
            let mut machine = setting.machine();
            let before = machine.network();
            let outcome = setting.run(&mut machine, keys);
            assert_exit_code(&outcome, 3);
            let expected = format!(
                "error: next hop {far} of node far is not on-link on {ALIAS}\nhelp: use a next hop in {network}, the network on {ALIAS}, {REMEDY}"
            );
            assert_eq!(outcome.stderr, expected);
            assert_eq!(machine.network(), before);
        }
        let keys = "nextHop: node-address\n";
        let with = |change: &dyn Fn(&mut Machine)| {
            let mut machine = setting.machine();
            change(&mut machine);
            machine.with_local_routes()
        };
        let host = format!("{far}/{}", if far.contains(':') { 128 } else { 32 });
        let second = beyond.replacen("0/", "77/", 1).replacen("::/", "::77/", 1);
        // On the link: a second prefix of the interface, or an active on-link route, also to the host alone.
        let reached = [
            with(&|machine| machine.interfaces[1].addresses.push(second.parse().unwrap())),
            with(&|machine| machine.route(12, beyond, setting.on_link, 256, "A")),
            with(&|machine| machine.route(12, &host, setting.on_link, 256, "AP")),
        ];
        for mut machine in reached {
            assert_eq!(setting.next_hop(&mut machine, keys).as_deref(), Some(far));
        }
        // Not on the link: everything, a route that is not active, one with a gateway, and those of other interfaces.
        let not_reached = [
            with(&|machine| machine.route(12, setting.everything, setting.on_link, 1, "AP")),
            with(&|machine| machine.route(12, beyond, setting.on_link, 1, "P")),
            with(&|machine| machine.route(12, beyond, setting.gateways[1], 1, "AP")),
            with(&|machine| machine.route(1, beyond, setting.on_link, 1, "AP")),
            with(&|machine| machine.interfaces[2].addresses.push(second.parse().unwrap())),
        ];
        for mut machine in not_reached {
            let before = machine.network();
            assert_exit_code(&setting.run(&mut machine, keys), 3);
            assert_eq!(machine.network(), before);
        }
    }
}

#[test]
fn a_router_on_another_link_is_refused() {
    for setting in [V4, V6] {
        let far = setting.far();
        let keys = format!("nextHop: '{far}1'\n");
        let mut machine = setting.machine();
        let outcome = setting.run(&mut machine, &keys);
        assert_exit_code(&outcome, 3);
        for node in ["near", "far"] {
            let message = format!("error: next hop {far}1 of node {node} is not on-link on {ALIAS}\n");
            assert!(outcome.stderr.contains(&message), "{}", outcome.stderr);
        }
        let keys = format!("nextHop: '{}'\n", setting.gateways[1]);
        assert_eq!(setting.next_hop(&mut machine, &keys).as_deref(), Some(setting.gateways[1]));
    }
}

/// Only routes that depend on the links have the addresses for it.
#[test]
fn a_script_has_the_addresses_that_decide() {
    let to_far = |keys: &str| {
        let cluster = V4.cluster(keys);
        let script = check_script(&cluster, 1, &plan::windows_desired(&cluster, 1).unwrap());
        let words = script.lines().find(|line| line.contains("'10.244.2.0/24'")).unwrap();
        let policy = script.lines().find_map(|line| line.strip_prefix("$OffLink = ")).unwrap_or("none");
        let link = words.split_once("pods of node far'").unwrap().1;
        format!("{policy}: {link}")
    };
    let node_address = "nextHop: node-address\n";
    assert_eq!(to_far(""), "none:  }");
    assert_eq!(to_far("offLink: onlink\nnextHop: node-address\n"), "none:  }");
    assert_eq!(to_far(node_address), "'refuse': ; Link = '172.30.9.5'; Peer = 'far' }");
    assert_eq!(to_far("nextHop: 172.30.9.1\n"), "'refuse': ; Link = '172.30.9.1'; Peer = 'far' }");
    assert_eq!(to_far("offLink: skip\n"), "'skip': ; Link = '172.30.9.5'; Peer = 'far' }");
    let gateway = "offLink: gateway\n";
    let address = "'gateway': ; Link = '172.30.9.5'; Peer = 'far'; Address = '172.30.9.5' }";
    assert_eq!(to_far(gateway), address);
    assert_eq!(to_far(&format!("{gateway}{node_address}")), address);
    let router = "'gateway': ; Link = '172.30.9.1'; Peer = 'far'; Address = '172.30.9.5' }";
    assert_eq!(to_far(&format!("{gateway}nextHop: 172.30.9.1\n")), router);
}

/// With pod gateways, only `skip` and `gateway` depend on the links.
#[test]
fn pod_gateways_are_routed_to_as_before() {
    for setting in [V4, V6] {
        let gateway = setting.nodes[2][1];
        for keys in ["", "offLink: refuse\n", "offLink: onlink\n"] {
            let script = setting.script(keys);
            assert!(!script.contains("Link = '") && !script.contains("$OffLink = "), "{script}");
            assert_eq!(setting.next_hop(&mut setting.machine(), keys).as_deref(), Some(gateway));
        }
    }
}

#[test]
fn a_skipped_node_gets_no_route() {
    for setting in [V4, V6] {
        let (far, pods) = (setting.far(), setting.nodes[2][0]);
        for next_hop in ["", "nextHop: node-address\n"] {
            let keys = format!("offLink: skip\n{next_hop}");
            let mut machine = setting.machine();
            let outcome = setting.run(&mut machine, &keys);
            assert_exit_code(&outcome, 0);
            let said = "WARNING: HG0812: no route to 1 of 2 other nodes (offLink: skip); not on this node's link: far\n";
            assert!(outcome.stdout.starts_with(said), "{}", outcome.stdout);
            assert_eq!(setting.next_hop(&mut machine, &keys), None);
            // Something else carries the packets: neither a conflict nor a diverted path.
            machine.route(12, pods, setting.gateways[1], 1, "AP");
            let half = pods.replacen("/24", "/25", 1).replacen("/64", "/65", 1);
            machine.route(7, &half, setting.on_link, 1, "A");
            let outcome = setting.run(&mut machine, &keys);
            assert_exit_code(&outcome, 0);
            assert!(!outcome.stdout.contains("HG0852"), "{}", outcome.stdout);
            assert_eq!(setting.next_hops(&machine, 2), [setting.gateways[1]]);
        }
        // A router is skipped with all nodes behind it.
        let mut machine = setting.machine();
        let outcome = setting.run(&mut machine, &format!("offLink: skip\nnextHop: '{far}1'\n"));
        assert_exit_code(&outcome, 0);
        let said = "no route to 2 of 2 other nodes (offLink: skip); not on this node's link: near, far\n";
        assert!(outcome.stdout.contains(said), "{}", outcome.stdout);
    }
}

/// A route that was managed is removed once its node is skipped, unless no other node remains.
#[test]
fn a_route_is_removed_once_its_node_is_skipped() {
    let keys = |off_link: &str| format!("offLink: {off_link}\nnextHop: node-address\n");
    let mut machine = V4.machine();
    assert_eq!(V4.next_hop(&mut machine, &keys("onlink")).as_deref(), Some(V4.far()));
    assert_eq!(V4.next_hop(&mut machine, &keys("skip")), None);
    let mut machine = V4.machine();
    assert_eq!(V4.next_hop(&mut machine, &keys("onlink")).as_deref(), Some(V4.far()));
    machine.interfaces[1].addresses = vec!["172.30.0.12/32".parse().unwrap()];
    machine.active.retain(|key, _| key.destination.to_string() != V4.network);
    let before = machine.network();
    let outcome = run_both(&mut machine, &V4.script(&keys("skip")), &[]);
    assert_exit_code(&outcome, 8);
    let left = "error: this plan removes 2 of the 3 managed routes; this node would have no routes to other nodes; nothing was changed\n";
    assert!(outcome.stderr.starts_with(left), "{}", outcome.stderr);
    assert_eq!(machine.network(), before);
}

#[test]
fn a_route_leads_through_the_gateway_for_the_other_node() {
    for setting in [V4, V6] {
        let Setting { gateways: [default, specific], everything, beyond, on_link, .. } = setting;
        let far = setting.far();
        let router = format!("nextHop: '{far}1'\n");
        for next_hop in ["", "nextHop: node-address\n"] {
            let keys = format!("offLink: gateway\n{next_hop}");
            let mut machine = setting.machine();
            assert_eq!(setting.next_hop(&mut machine, &keys).as_deref(), Some(default));
            // The longest prefix takes precedence, and the route changes with it.
            machine.route(12, beyond, specific, 900, "AP");
            assert_eq!(setting.next_hop(&mut machine, &keys).as_deref(), Some(specific));
            // Then the lowest total metric: 900 + 25 against 30 + the metric of the other interface.
            let through_another = |metric: i64| {
                let mut machine = setting.machine();
                machine.route(12, beyond, specific, 900, "A");
                machine.route(1, beyond, on_link, 30, "A");
                machine.interfaces[0].metric = metric;
                machine
            };
            assert_eq!(setting.next_hop(&mut through_another(896), &keys).as_deref(), Some(specific));
            let mut disconnected = through_another(1);
            disconnected.interfaces[0].is_connected = false;
            assert_eq!(setting.next_hop(&mut disconnected, &keys).as_deref(), Some(specific));
            let mut without = setting.machine();
            without.active.retain(|key, _| key.destination.to_string() != everything);
            for mut machine in [through_another(894), without] {
                let before = machine.network();
                let outcome = setting.run(&mut machine, &keys);
                assert_exit_code(&outcome, 3);
                let next_hop = if next_hop.is_empty() { setting.nodes[2][1] } else { far };
                let expected = format!(
                    "error: next hop {next_hop} of node far is not on-link on {ALIAS}\n\
                     help: set node far's address to one that this node reaches through a gateway on {ALIAS}, or set its nextHop\n"
                );
                assert_eq!(outcome.stderr, expected);
                assert_eq!(machine.network(), before);
            }
        }
        // Behind a router on another link, the near node is on the link: it has no gateway.
        let mut machine = setting.machine();
        let outcome = setting.run(&mut machine, &format!("offLink: gateway\n{router}"));
        assert_exit_code(&outcome, 3);
        let message = format!("error: next hop {far}1 of node near is not on-link on {ALIAS}\n");
        assert!(outcome.stderr.starts_with(&message), "{}", outcome.stderr);
    }
}

/// The host route to the master is managed. It does not decide which gateway leads to the master's pods.
#[test]
fn managed_routes_do_not_decide() {
    let far = V4.far();
    let keys = format!("offLink: gateway\nnextHop: node-address\nmasterAddress: {far}\n");
    let mut machine = V4.machine();
    machine.route(12, V4.beyond, V4.gateways[1], 256, "AP");
    assert_eq!(V4.next_hop(&mut machine, &keys).as_deref(), Some(V4.gateways[1]));
    let to_master = format!("active 12 {far}/32 {} 256", V4.gateways[0]);
    assert!(routes(&machine).contains(&to_master), "{:?}", routes(&machine));
    // An on-link route to the master that the script takes over does not count either.
    let keys = format!("nextHop: node-address\nmasterAddress: {far}\n");
    let mut machine = V4.machine();
    machine.route(12, &format!("{far}/32"), "0.0.0.0", 256, "AP");
    assert_exit_code(&run_both(&mut machine, &V4.script(&keys), &["-Adopt"]), 3);
}

/// Windows has no flag for it, and nothing is checked.
#[test]
fn on_link_keeps_the_routes() {
    for setting in [V4, V6] {
        let far = setting.far();
        let router = format!("{far}1");
        for (next_hop, expected) in [("node-address".to_owned(), far), (format!("'{router}'"), &router)] {
            let keys = format!("offLink: onlink\nnextHop: {next_hop}\n");
            assert!(!setting.script(&keys).contains("Link = '"));
            assert_eq!(setting.next_hop(&mut setting.machine(), &keys).as_deref(), Some(expected));
        }
    }
}

/// An address of this machine is never a next hop. Its node's pod gateway can be.
#[test]
fn an_address_of_this_machine_is_no_next_hop() {
    for setting in [V4, V6] {
        let far = setting.far();
        let length = if far.contains(':') { 64 } else { 24 };
        for (off_link, at) in [("refuse", 1), ("skip", 1), ("gateway", 0)] {
            let mut machine = setting.machine();
            machine.interfaces[at].addresses.push(format!("{far}/{length}").parse().unwrap());
            let mut machine = machine.with_local_routes();
            let alias = machine.interfaces[at].alias.clone();
            let alone = format!("offLink: {off_link}\n");
            let gateway = setting.nodes[2][1];
            assert_eq!(setting.next_hop(&mut machine.clone(), &alone).as_deref(), Some(gateway));
            let outcome = setting.run(&mut machine, &format!("{alone}nextHop: node-address\n"));
            assert_exit_code(&outcome, 3);
            let expected = format!(
                "error: next hop {far} of node far is this node's own address (on {alias}): packets would never leave this node\n\
                 help: this machine looks like node far, not win-1; run the script of node far here, or fix the address in the file\n"
            );
            assert_eq!(outcome.stderr, expected);
        }
    }
}

#[test]
fn many_problems_are_not_all_listed() {
    let nodes: String = (0..12)
        .map(|at| format!("  - {{name: n{at}, os: linux, podCIDR: [10.244.{}.0/25, 10.244.{}.128/25], address: 172.30.9.{at}}}\n", 100 + at, 100 + at))
        .collect();
    let own = "  - {name: win-1, os: windows, podCIDR: 10.244.1.0/24, address: 172.30.0.12}\n";
    let near = "  - {name: near, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.11}\n";
    let text = format!("clusterPrefix: 10.244.0.0/16\nnextHop: node-address\nnodes:\n{near}{own}{nodes}");
    let cluster = cluster(&text.replace("172.30.9.0}", "172.30.9.99}"));
    let mut machine = V4.machine();
    let judged = Judged::new(&cluster, &mut machine);
    let outcome = run_both(&mut machine, &judged.script, &[]);
    judged.assert_alike(&outcome);
    assert!(outcome.stderr.contains("\nand 2 more problems\nhelp: use a next hop in"), "{}", outcome.stderr);
}

/// A node that gets no route is lost in both directions for the audit, and one whose next hop is refused in one.
#[test]
fn doctor_and_audit_know_the_nodes_without_a_route() {
    for (off_link, rule, skipped) in
        [("skip", Rule::SkippedOffLink, true), ("refuse", Rule::NextHopNotOnLink, false)]
    {
        let cluster = V4.cluster(&format!("offLink: {off_link}\nnextHop: node-address\n"));
        let mut machine = V4.machine();
        // The routes of a run with `onlink`.
        let script = V4.script("offLink: onlink\nnextHop: node-address\n");
        assert_exit_code(&run(&mut machine, &script, &[]), 0);
        let (desired, observed) = collected(&cluster, &mut machine);
        let symptoms = windows_symptoms(&WindowsExamination {
            cluster: &cluster,
            index: 1,
            desired: &desired,
            observed: &observed,
            state: "node.json",
        });
        let found: Vec<Rule> =
            symptoms.problems.iter().chain(&symptoms.others).map(|found| found.rule).collect();
        assert_eq!(found, [rule]);
        let (with_far, without): (BTreeSet<usize>, BTreeSet<usize>) = ([2].into(), [].into());
        let (in_both, in_one) = if skipped { (with_far, without) } else { (without, with_far) };
        assert_eq!((symptoms.reach.skipped, symptoms.reach.lost), (in_both, in_one));
    }
}

/// What a snapshot of an earlier version lacks is only missed where it decides.
#[test]
fn nothing_is_guessed_from_an_older_snapshot() {
    let mut machine = V4.machine();
    let older = |cluster: &Cluster, machine: &mut Machine, has_derived: bool| {
        let collected = run(machine, &windows_collector(cluster, 1, &PROVENANCE), &[]);
        let mut json: serde_json::Value = serde_json::from_str(&collected.stdout).unwrap();
        for (list, key) in [("Addresses", "PrefixLength"), ("Interfaces", "Metric")] {
            for entry in json[list].as_array_mut().unwrap() {
                assert!(entry.as_object_mut().unwrap().remove(key).is_some());
            }
        }
        if !has_derived {
            assert!(json.as_object_mut().unwrap().remove("Derived").is_some());
        }
        let observed = WindowsObserved::parse("older", &json.to_string()).unwrap();
        let desired = plan::windows_desired(cluster, 1).unwrap();
        windows_plan(cluster, 1, &desired, &observed, ForeignPolicy::Respect).map_err(|problems| {
            problems.into_iter().map(|problem| (problem.rule, problem.message)).collect::<Vec<_>>()
        })
    };
    let refuse = V4.cluster("nextHop: node-address\n");
    let gateway = V4.cluster("nextHop: node-address\noffLink: gateway\n");
    // The derived routes have the prefixes, too.
    let problems = older(&refuse, &mut machine, true).unwrap_err();
    assert_eq!(
        problems,
        [(Rule::NextHopNotOnLink, format!("next hop 172.30.9.5 of node far is not on-link on {ALIAS}"))]
    );
    let problems = older(&refuse, &mut machine, false).unwrap_err();
    let message = |node: &str, address: &str, what: &str| {
        format!("cannot tell how this node reaches next hop {address} of node {node}: the {what} are unknown")
    };
    let lengths = "prefix lengths of addresses";
    let expected = [("near", "172.30.0.11"), ("far", "172.30.9.5")]
        .map(|(node, address)| (Rule::PathUnknown, message(node, address, lengths)));
    assert_eq!(problems, expected);
    assert!(older(&V4.cluster(""), &mut machine, false).is_ok());
    // The metrics only matter between interfaces.
    machine.route(12, "172.30.9.0/24", "172.30.0.254", 5, "A");
    assert!(older(&gateway, &mut machine, true).is_ok());
    machine.route(1, "172.30.9.0/24", "0.0.0.0", 5, "A");
    let problems = older(&gateway, &mut machine, true).unwrap_err();
    assert_eq!(problems, [(Rule::PathUnknown, message("far", "172.30.9.5", "interface metrics"))]);
}

/// Clusters of both families with nodes on the link and beyond it, and every policy.
fn random_cluster() -> impl Strategy<Value = Cluster> {
    let v4 = prop::sample::select(vec![
        "172.30.0.21",
        "172.30.9.5",
        "172.30.9.130",
        "192.168.50.7",
        "172.30.0.12",
    ]);
    let v6 = prop::sample::select(vec!["fd00:30::21", "fd00:39::5", "fd00:39:0:1::5", "fd00:50::7"]);
    let own_hop = prop::sample::select(vec![
        "",
        ", nextHop: pod-gateway",
        ", nextHop: node-address",
        ", nextHop: ['172.30.0.254', 'fd00:30::fe']",
        ", nextHop: ['172.30.9.254', 'fd00:39::fe']",
        ", nextHop: ['192.168.50.1', 'fd00:50::1']",
    ]);
    let nodes = prop::collection::vec((v4, v6, own_hop), 1..6);
    let off_link = prop::sample::select(vec!["refuse", "skip", "skip", "gateway", "gateway", "onlink"]);
    let next_hop =
        prop::sample::select(vec!["pod-gateway", "node-address", "['172.30.9.254', 'fd00:39::fe']"]);
    let master = prop::sample::select(vec!["", "masterAddress: 172.30.9.5\n"]);
    (nodes, off_link, next_hop, master).prop_map(|(nodes, off_link, next_hop, master)| {
        let mut text = format!(
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\noffLink: {off_link}\nnextHop: {next_hop}\n{master}nodes:\n\
             - {{name: near, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244::/64'], address: [172.30.0.11, 'fd00:30::11'], \
             nextHop: node-address}}\n\
             - {{name: win-1, os: windows, podCIDR: [10.244.1.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.13, 'fd00:30::12'], \
             egressInterface: vEthernet (Ethernet)}}\n"
        );
        let mut seen = BTreeSet::new();
        for (at, (v4, v6, own_hop)) in nodes.into_iter().enumerate() {
            // Two nodes have different addresses.
            if seen.insert(v4) & seen.insert(v6) {
                let pods = format!("[10.244.{}.0/24, 'fd00:244:0:{}::/64']", at + 2, at + 2);
                text.push_str(&format!(
                    "- {{name: n{at}, os: linux, podCIDR: {pods}, address: ['{v4}', '{v6}']{own_hop}}}\n"
                ));
            }
        }
        cluster(&text)
    })
}

/// Machines with several prefixes on the interface, gateways, and routes of other interfaces.
fn random_machine() -> impl Strategy<Value = Machine> {
    let addresses = prop::sample::subsequence(
        vec![
            (1_usize, "172.30.9.77/25"),
            (1, "fd00:39::77/64"),
            (1, "192.168.50.8/32"),
            (2, "192.168.50.9/24"),
            (0, "fd00:50::9/64"),
        ],
        0..4,
    );
    let v4 = (
        prop::sample::select(vec![
            "0.0.0.0/0",
            "172.30.9.0/24",
            "172.30.9.128/25",
            "172.30.9.5/32",
            "192.168.0.0/16",
            "192.168.50.0/24",
            "128.0.0.0/1",
        ]),
        prop::sample::select(vec!["0.0.0.0", "172.30.0.1", "172.30.0.254", "172.30.0.12"]),
    );
    let v6 = (
        prop::sample::select(vec!["::/0", "fd00:39::/64", "fd00:39::/48", "fd00:39::5/128", "fd00:50::/32"]),
        prop::sample::select(vec!["::", "fd00:30::1", "fe80::1", "fd00:30::12"]),
    );
    let stores = || prop::sample::select(vec!["A", "P", "AP", "AP"]);
    let index = || prop::sample::select(vec![1_i64, 12, 12, 12]);
    let metric = || prop::sample::select(vec![1_i64, 25, 256]);
    let v4 = prop::collection::vec((v4, index(), metric(), stores()), 0..6);
    let v6 = prop::collection::vec((v6, index(), metric(), stores()), 0..6);
    let metrics = prop::collection::vec(prop::sample::select(vec![1_i64, 25, 256]), 3);
    (addresses, v4, v6, metrics, any::<[bool; 3]>()).prop_map(|(addresses, v4, v6, metrics, flags)| {
        let mut machine = machine();
        machine.interfaces[1].addresses.push("fd00:30::12/64".parse().unwrap());
        machine.interfaces[2].addresses.push("fd00:244:0:1::2/64".parse().unwrap());
        for (at, address) in addresses {
            machine.interfaces[at].addresses.push(address.parse().unwrap());
        }
        let mut machine = machine.with_local_routes();
        for ((destination, next_hop), index, metric, stores) in v4.into_iter().chain(v6) {
            machine.route(index, destination, next_hop, metric, stores);
        }
        for (interface, metric) in machine.interfaces.iter_mut().zip(metrics) {
            interface.metric = metric;
        }
        machine.interfaces[0].is_connected = flags[0];
        if flags[1] || flags[2] {
            machine.route(12, "::/0", "fd00:30::1", 256, "AP");
        }
        machine
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// The script and `plan --state` adapt the routes alike, and a second run changes nothing.
    #[test]
    fn the_plan_and_the_script_adapt_alike(cluster in random_cluster(), mut machine in random_machine()) {
        let before = machine.network();
        let judged = Judged::new(&cluster, &mut machine);
        let shown = run(&mut machine, &judged.script, &["-WhatIf"]);
        judged.assert_alike(&shown);
        let outcome = run(&mut machine, &judged.script, &[]);
        prop_assert_eq!(outcome.code, shown.code, "{:#?}", outcome);
        if outcome.code == Some(0) {
            let calls = machine.calls.len();
            let again = Judged::new(&cluster, &mut machine);
            prop_assert!(again.plan.is_ok_and(|plan| plan.changes.is_empty()));
            assert_exit_code(&run(&mut machine, &judged.script, &[]), 0);
            prop_assert_eq!(machine.calls.len(), calls);
        } else {
            prop_assert_eq!(machine.network(), before);
        }
    }
}
