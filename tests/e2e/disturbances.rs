//! Random disturbances of a node with an agent: at rest, the node matches the file exactly, and nothing foreign was
//! touched. The suite makes 120 on each node; `HOSTGW_WHOLE=1 tests/run -- e2e::disturbances` makes 10,000.

use std::{env, thread, time::Duration};

use proptest::prelude::Rng;

use super::{
    agent::{node_with_bridge, three, two},
    agent_process::{Agent, state},
};
use crate::support::{
    namespace::{Namespace, each},
    random::{new_seed, random, requested_seed},
};

/// Objects of other programs on the node: a link with routes, one of them inside the cluster prefix, and a table.
const FOREIGN: &str = "ip link add theirs0 type veth peer name theirs1; ip link set theirs0 up; ip link set theirs1 up; ip address add 198.51.100.1/24 dev theirs0
    ip route add 203.0.113.0/24 via 198.51.100.2 dev theirs0 proto static
    ip route add 10.244.77.0/24 via 198.51.100.2 dev theirs0 proto bird metric 20
    ip route add 10.244.1.0/24 via 198.51.100.2 dev theirs0 proto static table 99";

/// The table of another program, which `flush ruleset` removes, too. `nft list ruleset` lists tables in the order of
/// their creation, so both happen in one transaction: hostgw's table, which the agent creates again, stays the second.
const TABLE: &str =
    "nft 'flush ruleset; add table ip theirs; add chain ip theirs guard { type filter hook forward priority 0; };
    add rule ip theirs guard ip daddr 192.0.2.9 drop'";

/// A disturbance, as a script.
const DISTURBANCES: [&str; 20] = [
    "ip route del 10.244.1.0/24 proto 87",
    "ip route del 10.244.2.0/24 proto 87",
    "ip route del 10.244.0.0/16 proto 87",
    "ip route flush proto 87",
    "ip route replace 10.244.1.0/24 via 172.30.0.77 dev eth0 proto 87",
    "ip route replace 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87 mtu 1300",
    "ip route append 10.244.2.0/24 via 172.30.0.78 dev eth0 proto 87",
    "ip route add 10.244.9.0/24 via 172.30.0.79 dev eth0 proto 87",
    "ip route replace blackhole 10.244.8.0/24 proto 87",
    "ip link set eth0 down; ip link set eth0 up",
    "ip link set eth0 down; sleep 0.05; ip link set eth0 up",
    "ip link set lan0 down; ip link set lan0 up",
    "ip address del 172.30.0.11/24 dev eth0; ip address add 172.30.0.11/24 dev eth0",
    "ip address add 172.30.0.12/24 dev eth0; ip address del 172.30.0.12/24 dev eth0",
    "nft delete table ip hostgw",
    "nft flush chain ip hostgw postrouting",
    "nft add rule ip hostgw postrouting ip daddr 192.0.2.1 counter accept",
    "echo 0 >/proc/sys/net/ipv4/ip_forward",
    "ip link set cni0 down; ip link set cni0 up",
    "ip link add veth7 type veth peer name veth8; ip link set veth7 up; ip link del veth7",
];

fn foreign(node: &Namespace) -> String {
    node.sh("ip route show dev theirs0; ip route show table 99; nft -s list table ip theirs")
}

#[test]
fn at_rest_the_node_matches_the_file() {
    let seed = requested_seed().unwrap_or_else(new_seed);
    let rounds = if env::var_os("HOSTGW_WHOLE").is_some() { 10_000 } else { 120 };
    each(|privilege| {
        let mut random = random(seed);
        let mut below = |limit: usize| usize::try_from(random.next_u32()).expect("32 bits") % limit;
        let node = node_with_bridge(privilege);
        node.sh(FOREIGN);
        node.sh(TABLE);
        let mut agent = Agent::start(&node);
        let with_three = state(&node);
        node.write("hostgw.yaml", &two());
        agent.await_true("two nodes", || !state(&node).contains("10.244.2.0/24 via 10.244.2.1"));
        agent.await_condition("inSync");
        let with_two = state(&node);
        let theirs = foreign(&node);
        let mut wanted = &with_two;
        for round in 0..rounds {
            match below(24) {
                20 => {
                    node.write("hostgw.yaml", &three());
                    wanted = &with_three;
                }
                21 => {
                    node.write(".new", &two());
                    node.sh("mv .new hostgw.yaml");
                    wanted = &with_two;
                }
                22 => {
                    // The agent is killed at a random moment, and started again.
                    drop(agent);
                    agent = Agent::spawn(&node, &[]);
                }
                23 => {
                    node.sh(TABLE);
                }
                other => {
                    // Some can fail, such as the removal of a route that does not exist.
                    node.try_sh(DISTURBANCES[other]);
                }
            }
            if below(4) == 0 {
                thread::sleep(Duration::from_millis(below(60) as u64));
            }
            if (round + 1) % 40 == 0 {
                agent.await_rest(wanted, &format!("round {round} of HOSTGW_SEED={seed}"), || {
                    agent.report()["condition"] == "inSync"
                });
                assert_eq!(foreign(&node), theirs, "foreign objects; HOSTGW_SEED={seed}");
            }
        }
        assert_eq!(agent.stop(), Some(0));
    });
}
