//! `hostgw simulate`: its output for clusters that work and for one that does not, and its cleanup, however it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{NODE_1, NODE_2, RECIPE, cluster};
use crate::support::namespace::{Namespace, Privilege, SimulatedCluster, Snapshots, each};

/// All namespaces share the machine's neighbor table. A large cluster fills it, and is simulated alone.
static NEIGHBORS: RwLock<()> = RwLock::new(());

/// Waits until a cluster of up to five nodes can be simulated.
pub(super) fn small() -> RwLockReadGuard<'static, ()> {
    NEIGHBORS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a large cluster can be simulated.
fn large() -> RwLockWriteGuard<'static, ()> {
    NEIGHBORS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A machine with only a `hostgw.yaml`.
fn machine(privilege: Privilege, configuration: &str) -> Namespace {
    let machine = Namespace::new(privilege);
    machine.write("hostgw.yaml", configuration);
    machine
}

/// The network namespaces that a process holds by descriptors, as `net:[4026532177]`.
pub(super) fn namespaces_of(process: u32) -> Vec<PathBuf> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("net:")).collect()
}

/// The processes that a command started with `TMPDIR=scratch` in this folder has left behind. Without a process, a namespace
/// disappears. Its number alone tells nothing, because the kernel gives it to the next namespace.
pub(super) fn left_behind(folder: &Path) -> Vec<String> {
    let is_left = |process: &String| {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let has_scratch = environment.split(|byte| *byte == 0).any(|entry| entry == b"TMPDIR=scratch");
        has_scratch && fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|at| at.starts_with(folder))
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.parse::<u32>().is_ok()).filter(is_left).collect()
}

#[test]
fn the_recipe_works_and_the_machine_is_unchanged() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(privilege, RECIPE);
        let before = machine.witness();
        let outcome = machine.hostgw(&["simulate"]).expect(0);
        machine.assert_unchanged(&before, "a simulation");
        let mut snapshots = Snapshots::default();
        snapshots.compare("simulate-recipe", &outcome);
        snapshots.conclude();
    });
}

#[test]
fn both_families_work_with_node_addresses() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(
            privilege,
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: bond0
nextHop: node-address
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}
  - {name: b, os: linux, podCIDR: [10.244.1.128/25, 'fd00:244:0:2::/112'], address: [172.30.0.12, '2001:db8::12']}
",
        );
        machine.hostgw(&["simulate"]).expect(0).says("IPv6: each cell").says("20 of 20 connections work");
    });
}

/// Two nodes on one network and one on another, with this next hop.
fn two_networks(next_hop: &str) -> String {
    cluster(
        &format!("nextHop: {next_hop}"),
        &[
            ("a", "10.244.0.0/24", "172.30.0.11"),
            ("b", "10.244.1.0/24", "172.30.0.12"),
            ("c", "10.244.2.0/24", "172.30.8.13"),
        ],
    )
}

/// No ARP request crosses a router, and no node accepts a next hop behind one.
#[test]
fn nodes_in_different_networks_are_not_on_one_link() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(privilege, &two_networks("pod-gateway"));
        let before = machine.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("simulate-networks", &machine.hostgw(&["simulate"]).expect(1));
        let json = machine.hostgw(&["simulate", "--json"]).expect(1).json();
        assert_eq!(json["networks"], serde_json::json!([["172.30.0.0/24"], ["172.30.8.0/24"]]));
        machine.write("hostgw.yaml", &two_networks("node-address"));
        snapshots.compare("simulate-networks-node-address", &machine.hostgw(&["simulate"]).expect(1));
        let one = machine.hostgw(&["simulate", "--network", "172.30.0.0/20"]).expect(0);
        one.says("21 of 21 connections work");
        let two = ["simulate", "--network", "172.30.0.0/21", "--network", "172.30.8.0/22"];
        let two = machine.hostgw(&two).expect(1);
        two.says("2 links with a router between them: 172.30.0.0/21, 172.30.8.0/22\n\n");
        machine.assert_unchanged(&before, "simulations");
        snapshots.conclude();
        for (networks, code, why) in [
            ("172.30.0.0/24", 3, "node c: 172.30.8.13 is in none of the networks 172.30.0.0/24"),
            ("172.30.0.1/24", 64, "did you mean 172.30.0.0/24?"),
            (
                "172.30.0.0/16 --network 172.30.8.0/24",
                64,
                "--network 172.30.0.0/16 and --network 172.30.8.0/24 overlap",
            ),
            ("fd00::/64", 64, "--network fd00::/64: the cluster has no IPv6 prefix"),
        ] {
            let arguments: Vec<&str> = "simulate --network".split(' ').chain(networks.split(' ')).collect();
            machine.hostgw(&arguments).expect(code).warns(why);
        }
    });
}

/// Nodes of both operating systems, one with addresses of one family only, and a machine without pods.
const OTHER_TABLE: &str = "clusterPrefix: [10.244.0.0/16, 10.245.0.0/20, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
routes: {table: 100, source: node-address, unassigned: unreachable, metric: 7, mtu: 1400}
nat: {to: node-address}
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 10.245.1.0/26, 'fd00:244:0:1::/64'], address: [172.30.0.11, 'fd00:30::11']}
  - {name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, 'fd00:30::12']}
  - {name: w, os: windows, podCIDR: 10.244.2.0/24, address: [172.30.0.13, 'fd00:30::13']}
  - {name: bastion, os: linux, podCIDR: none, address: [172.30.0.20, 'fd00:30::20']}
";

/// With `routes.table`, operators add policy rules. The simulated nodes have them, and the output says so.
#[test]
fn routes_in_another_table_are_looked_up() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(privilege, &cluster("routes: {table: 100}", &[NODE_1, NODE_2]));
        let before = machine.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("simulate-table", &machine.hostgw(&["simulate"]).expect(0));
        snapshots.conclude();
        let json = machine.hostgw(&["simulate", "--json"]).expect(0).json();
        assert_eq!(json["assumptions"][0]["kind"], "policyRules", "{json}");
        machine.write("hostgw.yaml", OTHER_TABLE);
        machine.hostgw(&["simulate"]).expect(0).says("50 of 50 connections work");
        // Packets use the routes, not the default route, which also leads to the router.
        let router = "nextHop: 172.30.0.1\nroutes: {table: 100}";
        let kept = SimulatedCluster::new(privilege, &cluster(router, &[NODE_1, NODE_2]));
        let rules = kept.sh("node linux-2", "ip rule");
        let [own, cluster] =
            ["999:\tfrom all to 10.244.1.0/24 lookup main", "1000:\tfrom all to 10.244.0.0/16 lookup 100"];
        assert!(rules.contains(own) && rules.contains(cluster), "{rules}");
        let route = kept.sh("node linux-2", "ip route get 10.244.0.10");
        assert!(route.contains("table 100"), "{route}");
        machine.assert_unchanged(&before, "simulations");
    });
}

/// With `offLink: onlink`, nodes in different networks are on one link, and so is a router in another network.
#[test]
fn nodes_in_different_networks_share_a_link_with_onlink() {
    let _turn = small();
    each(|privilege| {
        let machine = Namespace::new(privilege);
        for next_hop in ["pod-gateway", "node-address", "172.31.1.1"] {
            machine.write("hostgw.yaml", &two_networks(&format!("{next_hop}\noffLink: onlink")));
            let outcome = machine.hostgw(&["simulate"]).expect(0);
            outcome.says("21 of 21 connections work");
            outcome.says("· nodes in different networks are on one link: the configuration relies on it (offLink: onlink)\n");
            let json = machine.hostgw(&["simulate", "--json"]).expect(0).json();
            assert_eq!(json["networks"], serde_json::json!([["172.30.0.0/24", "172.30.8.0/24"]]));
            assert_eq!(json["assumptions"][0]["kind"], "oneLink", "{json}");
        }
        machine.write("hostgw.yaml", &two_networks("node-address\noffLink: onlink"));
        let two = ["simulate", "--network", "172.30.0.0/21", "--network", "172.30.8.0/22"];
        machine.hostgw(&two).expect(1).says("2 links with a router between them");
    });
}

/// The failing pairs name the node and the hop.
#[test]
fn a_wrong_gateway_is_named() {
    let _turn = small();
    each(|privilege| {
        let wrong_gateway =
            RECIPE.replace("podCIDR: 10.244.1.0/24", "podCIDR: 10.244.1.0/24\n    gateway: 10.244.1.7");
        let machine = machine(privilege, &wrong_gateway);
        let outcome = machine.hostgw(&["simulate"]).expect(1);
        outcome.says("linux-1 sends to 10.244.1.7, but linux-2 is at 10.244.1.1");
        let mut snapshots = Snapshots::default();
        snapshots.compare("simulate-wrong-gateway", &outcome);
        snapshots.conclude();
        let json: Value = machine.hostgw(&["simulate", "--json"]).expect(1).json();
        assert_eq!(json["passed"], false);
        let lost =
            json["connections"].as_array().unwrap().iter().find(|pair| pair["works"] == false).unwrap();
        assert_eq!(
            (&lost["from"], &lost["to"]),
            (&Value::from("linux-1"), &Value::from("linux-2")),
            "{lost}"
        );
    });
}

#[test]
fn missing_addresses_are_allocated_and_excluded_destinations_skipped() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(
            privilege,
            "clusterPrefix: 10.244.0.0/16
egressInterface: eth0
nat: {exclude: [203.0.113.0/24]}
sysctls: {net.ipv4.neigh.default.gc_thresh3: 4096}
nodes:
  - {name: a, os: linux, podCIDR: 10.244.0.0/30}
  - {name: b, os: linux, podCIDR: 10.244.8.0/21}
",
        );
        let outcome = machine.hostgw(&["simulate"]).expect(0);
        outcome.says("8 of 8 connections work").says("gc_thresh3 was skipped");
        outcome.says("IPv4 connections to the outside were not tested");
    });
}

/// A node without an address of a family does not get that of the router.
#[test]
fn a_router_keeps_its_addresses() {
    let _turn = small();
    each(|privilege| {
        let configuration = "clusterPrefix: [10.20.0.0/16, 'fd20::/48']
egressInterface: eth0
nextHop: [192.168.50.1, 'fd50::1']
nodes:
  - {name: a, os: linux, podCIDR: [10.20.1.0/24, 'fd20:0:0:1::/64'], address: [192.168.50.11, 'fd50::11']}
  - {name: b, os: linux, podCIDR: [10.20.2.0/24, 'fd20:0:0:2::/64']}
  - {name: w, os: windows, podCIDR: 10.20.3.0/24, address: 192.168.50.13}
";
        machine(privilege, configuration).hostgw(&["simulate"]).expect(0).says("33 of 33 connections work");
    });
}

#[test]
fn many_nodes_are_sampled() {
    let _turn = small();
    each(|privilege| {
        let nodes: Vec<_> = (0..200)
            .map(|n| {
                (format!("n{n}"), format!("10.244.{n}.0/24"), format!("172.30.{}.{}", n / 100, n % 100 + 10))
            })
            .collect();
        let nodes: Vec<_> = nodes.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        let machine = machine(privilege, &cluster("", &nodes));
        let sampled = machine
            .hostgw(&["simulate", "--network", "172.30.0.0/16", "--sample", "5", "--seed", "7", "--json"])
            .expect(0);
        let json = sampled.json();
        assert_eq!((&json["nodesInConfiguration"], &json["seed"]), (&Value::from(200), &Value::from(7)));
        assert_eq!(json["nodes"][0]["name"], "n0");
        assert_eq!(json["nodes"][4]["name"], "n199");
        assert_eq!(json["nodes"][4]["totals"]["add"], 203);
        let named =
            machine.hostgw(&["simulate", "--network", "172.30.0.0/16", "--nodes", "n3,n150"]).expect(0);
        named.says("n150").says("10 of 10 connections work");
        machine.hostgw(&["simulate", "--nodes", "n3,n500"]).expect(3).warns("unknown node: n500");
        machine.hostgw(&["simulate", "--nodes", "n3", "--sample", "2"]).expect(64);
        machine.hostgw(&["simulate", "--sample", "0"]).expect(64);
    });
}

/// Thirty nodes reach each other although the machine's neighbor table has only 1,024 entries.
#[test]
fn thirty_nodes_work() {
    let _turn = large();
    let privilege = if crate::support::namespace::is_root() { Privilege::Root } else { Privilege::User };
    let nodes: Vec<_> = (0..30)
        .map(|n| (format!("n{n}"), format!("10.244.{n}.0/24"), format!("172.30.0.{}", n + 10)))
        .collect();
    let nodes: Vec<_> = nodes.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
    machine(privilege, &cluster("", &nodes))
        .hostgw(&["simulate"])
        .expect(0)
        .says("1830 of 1830 connections work");
}

/// Starts a simulation and waits for this time, or for less if it ends too early. Returns it with its namespaces.
fn simulating_for(machine: &Namespace, mut delay: Duration) -> Child {
    while !delay.is_zero() {
        let mut child = machine
            .command("env")
            .args(["--default-signal=INT,TERM", "sh", "-c", "TMPDIR=scratch exec \"$HOSTGW\" simulate"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let has_ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        machine.wait_until("a namespace exists", || {
            !namespaces_of(child.id()).is_empty() || has_ended(&mut child)
        });
        thread::sleep(delay);
        if !namespaces_of(child.id()).is_empty() && !has_ended(&mut child) {
            assert_eq!(left_behind(machine.folder()), [child.id().to_string()]);
            return child;
        }
        child.wait().unwrap();
        delay /= 2;
    }
    panic!("every simulation ends before it is interrupted")
}

/// When killed midway, it leaves no namespace and no process; when interrupted, no file, either.
#[test]
fn nothing_is_left_behind() {
    let _turn = large();
    each(|privilege| {
        let nodes: Vec<_> = (0..12)
            .map(|n| (format!("n{n}"), format!("10.244.{n}.0/24"), format!("172.30.0.{}", n + 10)))
            .collect();
        let nodes: Vec<_> = nodes.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        let machine = machine(privilege, &cluster("", &nodes));
        let before = machine.witness();
        for (signal, delay) in [("KILL", 20), ("KILL", 200), ("INT", 100), ("TERM", 300)] {
            let scratch = machine.folder().join("scratch");
            machine.sh("mkdir -p scratch");
            let mut child = simulating_for(&machine, Duration::from_millis(delay));
            machine.sh(&format!("kill -{signal} {}", child.id()));
            let status = child.wait().unwrap();
            assert_eq!(left_behind(machine.folder()), [""; 0], "after SIG{signal}");
            if signal != "KILL" {
                assert_eq!(status.code(), Some(130), "after SIG{signal}");
                assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "after SIG{signal}");
            }
            machine.assert_unchanged(&before, &format!("SIG{signal}"));
        }
    });
}

/// A kept cluster can be entered, and disappears with the command.
#[test]
fn a_kept_cluster_can_be_entered() {
    let _turn = small();
    each(|privilege| {
        let kept = SimulatedCluster::new(privilege, RECIPE);
        let routes = kept.sh("node linux-2", "ip route show proto 87");
        assert!(routes.contains("10.244.2.0/24 via 10.244.2.2 dev eth0"), "{routes}");
        let status = kept.sh("node linux-2", "\"$HOSTGW\" status");
        assert!(status.contains("Drift: none"), "{status}");
    });
}

/// If the system forbids namespaces, the error names the remedy.
#[test]
fn a_system_that_forbids_namespaces_is_reported() {
    let _turn = small();
    each(|privilege| {
        let machine = machine(privilege, RECIPE);
        let mut outcome = machine.try_sh(
            "unshare -r sh -ec 'echo 0 >/proc/sys/user/max_net_namespaces; exec \"$HOSTGW\" simulate'",
        );
        outcome.command = "hostgw simulate # network namespaces are not permitted".to_owned();
        let mut snapshots = Snapshots::default();
        snapshots.compare("simulate-forbidden", &outcome.expect(1));
        snapshots.conclude();
    });
}
