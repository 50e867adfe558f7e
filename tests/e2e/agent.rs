//! `hostgw agent`: lost state is restored within a second, and the results of other commands and programs are respected.

use std::{fs, time::Instant};

use rustix::process::Signal;

use super::{
    NODE_1, NODE_2, NODE_3,
    agent_process::{Agent, cpu_time, state},
    cluster, is_open, large_cluster, node, settled,
    stopped::Stopped,
};
use crate::support::namespace::{Namespace, Privilege, each};

pub fn three() -> String {
    cluster("", &[NODE_1, NODE_2, NODE_3])
}

pub fn two() -> String {
    cluster("", &[NODE_1, NODE_2])
}

/// A node with its bridge, as the CNI plugin leaves it.
pub fn node_with_bridge(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.0.1/24 dev cni0");
    node.write("hostgw.yaml", &three());
    node
}

/// Events that remove or change routes, NAT or sysctls.
const EVENTS: [&str; 8] = [
    "ip link set eth0 down; ip link set eth0 up",
    "ip address del 172.30.0.11/24 dev eth0; ip address add 172.30.0.11/24 dev eth0",
    "ip link set lan0 down; ip link set lan0 up",
    "nft flush ruleset",
    "echo 0 >/proc/sys/net/ipv4/ip_forward",
    "ip route flush proto 87",
    "ip route replace 10.244.1.0/24 via 172.30.0.99 dev eth0 proto 87",
    "nft add rule ip hostgw postrouting ip daddr 192.0.2.1 counter accept",
];

#[test]
fn lost_state_is_restored() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        let wanted = state(&node);
        assert!(wanted.contains("10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87"), "{wanted}");
        for event in EVENTS {
            node.sh(event);
            agent.await_state(&wanted, event);
        }
        // The history only contains the apply: a rollback undoes the apply, not a repair.
        let history = node.state_dir().expect("records").join("history");
        assert_eq!(fs::read_dir(history).expect("a directory").count(), 1);
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(state(&node), wanted, "stopping the agent changes nothing");
        settled(&node);
    });
}

#[test]
fn the_agent_waits_for_what_is_missing_when_it_starts() {
    each(|privilege| {
        let node = Namespace::new(privilege);
        node.hostgw(&["agent"]).expect(3).warns("no configuration found");
        let agent = Agent::spawn(&node, &["-f", "hostgw.yaml"]);
        agent.await_event("refused", 1);
        node.write("hostgw.yaml", &three());
        let waiting = agent.await_event("waiting", 1);
        assert!(waiting["message"].to_string().contains("cannot tell which node"), "{waiting}");
        node.sh("ip link add eth0 type veth peer name lan0; ip link set lan0 up; ip link set eth0 up");
        node.sh("ip address add 172.30.0.11/24 dev eth0");
        agent.await_event("applied", 1);
        settled(&node);
    });
}

#[test]
fn a_changed_file_is_applied_and_a_bad_one_refused() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        node.write("hostgw.yaml", &two());
        agent.await_event("applied", 2);
        assert!(!state(&node).contains("10.244.2.0/24"));
        // As an editor saves: a new file replaces the old one.
        node.write(".hostgw.yaml.swp", &three());
        node.sh("mv .hostgw.yaml.swp hostgw.yaml");
        agent.await_event("applied", 3);
        let wanted = state(&node);
        node.write("hostgw.yaml", "clusterPrefix: nonsense\n");
        let refused = agent.await_event("refused", 1);
        let message = refused["message"].as_str().unwrap_or_default();
        let expected = "Refused; the previous configuration stays in effect: hostgw.yaml is invalid: ";
        assert!(message.starts_with(expected), "{refused}");
        assert!(message.ends_with(" (help: run `hostgw validate hostgw.yaml`)"), "{refused}");
        agent.await_condition("degraded");
        node.sh("ip route flush proto 87");
        agent.await_state(&wanted, "a flush");
        assert_eq!(agent.count("recovered"), 0, "the file is still invalid");
        node.hostgw_ok(&["status"]).says("hostgw.yaml is invalid");
        node.sh("rm hostgw.yaml");
        agent.await_event("refused", 2);
        node.write("hostgw.yaml", &three());
        agent.await_event("recovered", 1);
        agent.await_condition("inSync");
        assert_eq!(state(&node), wanted);
        assert_eq!(agent.count("applied"), 3, "the configuration was still in effect");
    });
}

#[test]
fn a_config_map_is_followed() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        node.sh("rm hostgw.yaml; mkdir map map/..1 map/..2; ln -s ..1 map/..data; ln -s ..data/hostgw.yaml map/hostgw.yaml");
        node.write("map/..1/hostgw.yaml", &three());
        node.write("map/..2/hostgw.yaml", &two());
        let agent = Agent::spawn(&node, &["-f", "map/hostgw.yaml"]);
        agent.await_event("applied", 1);
        node.sh("ln -s ..2 map/..tmp; mv -T map/..tmp map/..data; rm -r map/..1");
        agent.await_event("applied", 2);
        assert!(!state(&node).contains("10.244.2.0/24"));
    });
}

#[test]
fn a_mass_removal_is_refused_until_a_user_allows_it() {
    let node = node(Privilege::Root);
    node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.64.0.1/24 dev cni0");
    node.write("hostgw.yaml", &large_cluster(60));
    let agent = Agent::spawn(&node, &["--node", "linux-0"]);
    agent.await_event("applied", 1);
    let wanted = state(&node);
    node.write("hostgw.yaml", &large_cluster(20));
    let refused = agent.await_event("refused", 1);
    assert!(refused["message"].to_string().contains("--allow-removals 40"), "{refused}");
    node.sh("ip route flush proto 87");
    agent.await_state(&wanted, "a flush");
    node.hostgw_ok(&["apply", "--yes", "--node", "linux-0", "--allow-removals", "40"]);
    agent.await_condition("inSync");
    agent.await_event("following", 1);
    assert_eq!(node.managed_routes().len(), 20);
}

#[test]
fn other_commands_are_respected() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        // Another file.
        node.write("other.yaml", &two());
        node.hostgw_ok(&["apply", "--yes", "-f", "other.yaml"]);
        let pinned = agent.await_event("pinned", 1);
        assert_eq!(pinned["pin"]["reason"], "apply", "{pinned}");
        let wanted = state(&node);
        assert!(!wanted.contains("10.244.2.0/24"));
        node.sh("ip route flush proto 87");
        agent.await_state(&wanted, "a flush");
        node.hostgw_ok(&["status"])
            .says("Pinned: `hostgw apply` applied another configuration, other.yaml, and the agent keeps it");
        // A pin outlives the agent.
        assert_eq!(agent.stop(), Some(0));
        let status = node.hostgw_ok(&["status"]);
        status.says("Agent: not running; last started at ").says("\n  Last report:\n    Pinned: ");
        let agent = Agent::start(&node);
        agent.await_event("pinned", 2);
        assert_eq!(state(&node), wanted);
        // A manual apply of the agent's own file.
        node.hostgw_ok(&["apply", "--yes"]);
        agent.await_event("unpinned", 1);
        assert!(state(&node).contains("10.244.2.0/24"));
        // A rollback.
        node.hostgw_ok(&["rollback", "--yes"]);
        let pinned = agent.await_event("pinned", 3);
        assert_eq!(pinned["pin"]["reason"], "rollback", "{pinned}");
        assert_eq!(state(&node), wanted);
        // A destroy.
        node.hostgw_ok(&["destroy", "--yes"]);
        agent.await_condition("suspended");
        assert!(node.managed_routes().is_empty());
        // A new version of the file ends the suspension.
        node.write("hostgw.yaml", &format!("{}# a comment\n", three()));
        agent.await_condition("inSync");
        assert_eq!(node.managed_routes().len(), 3);
        // A reload ends a pin, too.
        node.hostgw_ok(&["destroy", "--yes"]);
        agent.await_condition("suspended");
        agent.signal(Signal::HUP);
        agent.await_condition("inSync");
        assert_eq!(node.managed_routes().len(), 3);
    });
}

#[test]
fn a_pending_apply_is_left_alone() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        let before = state(&node);
        node.write("other.yaml", &two());
        let pending = super::pending(&node, "10m", &["-f", "other.yaml"]);
        agent.await_condition("yielding");
        assert!(!state(&node).contains("10.244.2.0/24"));
        node.hostgw_ok(&["cancel"]);
        drop(pending.wait_with_output());
        agent.await_condition("inSync");
        assert_eq!(state(&node), before);
        assert_eq!(agent.count("pinned"), 0);
        let pending = super::pending(&node, "10m", &["-f", "other.yaml"]);
        agent.await_condition("yielding");
        node.hostgw_ok(&["confirm"]);
        drop(pending.wait_with_output());
        agent.await_event("pinned", 1);
        assert!(!state(&node).contains("10.244.2.0/24"));
    });
}

#[test]
fn a_killed_agent_changes_nothing_and_the_next_one_continues() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        let wanted = state(&node);
        drop(agent);
        assert_eq!(state(&node), wanted);
        node.hostgw_ok(&["status"]).says("Agent: not running");
        node.sh("ip route flush proto 87");
        let agent = Agent::start(&node);
        agent.await_state(&wanted, "a flush");
        node.hostgw_ok(&["status"]).says("Agent: in sync");
    });
}

#[test]
fn a_repair_is_completed_before_the_agent_stops() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let whole = state(&node);
        let is_midway = (1..200).any(|point| {
            node.sh("ip route flush proto 87; nft delete table ip hostgw");
            let stopped = Stopped::hostgw(&node, &["agent"], "agent", point);
            let stopped = stopped.unwrap_or_else(|outcome| panic!("the agent ended: {outcome}"));
            let is_midway = is_open(&node) && !node.managed_routes().is_empty();
            if is_midway {
                node.sh(&format!("/bin/kill -TERM {}", stopped.id()));
                stopped.resume().expect(0);
            } else {
                stopped.kill();
                node.hostgw_ok(&["apply", "--yes"]);
            }
            is_midway
        });
        assert!(is_midway, "no point midway");
        assert_eq!(state(&node), whole);
    });
}

#[test]
fn only_one_agent_can_run_on_a_node() {
    let node = node_with_bridge(Privilege::Root);
    let agent = Agent::start(&node);
    node.hostgw(&["agent"]).expect(4).warns("an agent is already running on this node");
    assert_eq!(agent.stop(), Some(0));
    node.hostgw(&["agent", "-f", "-"])
        .expect(64)
        .warns("it cannot read the configuration from standard input");
}

#[test]
fn a_foreign_route_is_not_fought_over_and_the_rest_is_repaired() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::start(&node);
        node.sh(
            "ip route replace 10.244.1.0/24 via 172.30.0.99 dev eth0 proto static; ip route del 10.244.2.0/24",
        );
        let conflict = agent.await_event("conflict", 1);
        assert!(conflict["message"].to_string().contains("proto static"), "{conflict}");
        agent.await_true("the other route", || state(&node).contains("10.244.2.0/24 via 10.244.2.1"));
        assert!(state(&node).contains("10.244.1.0/24 via 172.30.0.99 dev eth0 proto static"));
        agent.await_condition("degraded");
        node.hostgw_ok(&["status"]).says("Conflict: ");
        node.sh("ip route del 10.244.1.0/24");
        agent.await_event("conflictResolved", 1);
        agent.await_condition("inSync");
        assert!(state(&node).contains("10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87"));
    });
}

#[test]
fn a_contested_route_is_reported_and_costs_little() {
    let node = node_with_bridge(Privilege::Root);
    let agent = Agent::start(&node);
    let before = cpu_time(&agent);
    let begun = Instant::now();
    node.try_sh("for i in $(seq 100); do ip route del 10.244.1.0/24 2>/dev/null; sleep 0.1; done");
    let contested = agent.await_event("contested", 2);
    assert_eq!(contested["object"], "route 10.244.1.0/24", "{contested}");
    let used = cpu_time(&agent) - before;
    // This build is unoptimized, and the machine is busy; the release build stays below 2 %.
    assert!(used < begun.elapsed() / 10, "{used:?} of {:?}", begun.elapsed());
    let repairs = agent.count("repaired");
    assert!((5..15).contains(&repairs), "{repairs}");
    node.hostgw_ok(&["status"]).says("Contested: ").says("route 10.244.1.0/24");
    // Other routes are repaired immediately.
    node.sh("ip route del 10.244.2.0/24");
    agent.await_true("another route", || state(&node).contains("10.244.2.0/24"));
    agent.await_true("the contested route", || state(&node).contains("10.244.1.0/24"));
}

#[test]
fn the_last_good_configuration_is_used_at_a_boot_with_a_bad_file() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = Agent::spawn(&node, &["--last-good", "good.yaml"]);
        agent.await_condition("inSync");
        let wanted = state(&node);
        drop(agent);
        // A boot clears the state of the kernel and /run, and the file is invalid.
        node.sh("ip route flush proto 87; nft flush ruleset; rm -r state");
        node.write("hostgw.yaml", "clusterPrefix: nonsense\n");
        let agent = Agent::spawn(&node, &["--last-good", "good.yaml"]);
        agent.await_event("refused", 1);
        let pinned = agent.await_event("pinned", 1);
        assert_eq!(pinned["pin"]["reason"], "lastGood", "{pinned}");
        agent.await_state(&wanted, "a flush");
        node.write("hostgw.yaml", &two());
        agent.await_event("applied", 1);
        agent.await_condition("inSync");
        assert!(!state(&node).contains("10.244.2.0/24"));
        assert!(fs::read_to_string(node.folder().join("good.yaml")).expect("a copy") == two());
    });
}

#[test]
fn both_families_are_restored() {
    each(|privilege| {
        let node = node(privilege);
        super::configure_ipv6(&node);
        let agent = Agent::start(&node);
        let routes = || node.sh("ip -6 route show proto 87; nft -s list ruleset");
        let wanted = routes();
        assert!(wanted.contains("fd00:244:0:1::/64"), "{wanted}");
        node.sh(
            "ip link set eth0 down; ip link set eth0 up; ip -6 address add fd00:30::11/64 dev eth0 nodad",
        );
        agent.await_true("the routes", || routes() == wanted);
        node.sh("nft flush ruleset; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding");
        agent.await_true("NAT", || routes() == wanted);
        agent.await_true("forwarding", || node.sysctl("net.ipv6.conf.all.forwarding") == "1");
    });
}

#[test]
fn status_shows_routes_and_lost_paths() {
    let node = node_with_bridge(Privilege::Root);
    let agent = Agent::start(&node);
    let status = node.hostgw_ok(&["status", "--json"]).json();
    assert_eq!(status["agent"]["running"], true, "{status}");
    assert_eq!(status["agent"]["routes"], 3);
    node.sh("ip rule add to 10.244.1.0/24 blackhole");
    let lost = agent.await_event("pathsLost", 1);
    assert!(lost["nodes"].to_string().contains("linux-2"), "{lost}");
    let status = node.hostgw_ok(&["status", "--json"]).json();
    assert_eq!(status["agent"]["unreachable"], serde_json::json!(["linux-2"]));
    node.sh("ip rule del to 10.244.1.0/24 blackhole");
    agent.await_event("pathsRestored", 1);
}

#[test]
fn a_thousand_nodes_are_restored_quickly() {
    let node = node(Privilege::Root);
    node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.64.0.1/24 dev cni0");
    node.write("hostgw.yaml", &large_cluster(1000));
    let agent = Agent::spawn(&node, &["--node", "linux-0"]);
    agent.await_condition("inSync");
    let wanted = state(&node);
    assert_eq!(node.managed_routes().len(), 1000);
    for event in
        ["ip link set eth0 down; ip link set eth0 up", "nft flush ruleset", "ip route flush proto 87"]
    {
        node.sh(event);
        agent.await_state(&wanted, event);
    }
    agent.await_condition("inSync");
    assert_eq!(agent.count("contested"), 0);
}
