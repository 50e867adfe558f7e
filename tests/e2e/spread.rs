//! In a large cluster, the scope of an IPv4 route depends on its gateway. That changes how fast the kernel is, and nothing
//! that an operator sees.

use std::collections::{BTreeMap, BTreeSet};

use super::{large_cluster, node, settled};
use crate::support::namespace::{Namespace, each};

/// The number of nodes from which on hostgw spreads the scopes.
const LIMIT: usize = 300;

/// A configuration with this number of nodes, the first of which is the machine.
fn cluster(nodes: usize) -> String {
    large_cluster(nodes).replacen("name: linux-0,", "name: linux-0, address: 172.30.0.11,", 1)
}

/// The scopes of the managed routes by a gateway, by their destinations.
fn scopes(node: &Namespace) -> BTreeMap<String, Option<String>> {
    let routes = node.run(["ip", "-N", "route", "show", "table", "all", "proto", "87"]);
    let words = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter(|words| words.contains(&"via"))
        .map(|words| {
            let scope = words.iter().position(|word| *word == "scope").map(|at| words[at + 1].to_owned());
            (words[0].to_owned(), scope)
        })
        .collect()
}

fn distinct(node: &Namespace) -> usize {
    scopes(node).values().collect::<BTreeSet<_>>().len()
}

#[test]
fn crossing_the_limit_changes_no_route() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster(LIMIT - 1));
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(distinct(&node), 1, "a small cluster has one scope");
        let before = scopes(&node);
        let at_limit = node.witness();
        node.write("hostgw.yaml", &cluster(LIMIT + 1));
        node.hostgw(&["plan"]).expect(0).says("Plan: 2 to add, 0 to update, 0 to remove");
        node.hostgw_ok(&["apply", "--yes"]).warns("2 added, 0 updated, 0 removed");
        settled(&node);
        let after = scopes(&node);
        assert!(before.iter().all(|(destination, scope)| after[destination] == *scope), "{after:?}");
        assert_eq!(after.values().flatten().count(), 2, "the new routes are spread");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&at_limit, "an undo over the limit");
        node.hostgw_ok(&["destroy", "--yes"]);
        assert_eq!(scopes(&node).len(), 0);
    });
}

#[test]
fn only_ip_shows_the_scopes() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster(LIMIT + 100));
        let plain = cluster(LIMIT + 100).replace("nodes:", "routes: {spread: never}\nnodes:");
        node.write("plain.yaml", &plain);
        let outputs = |file: &str| {
            let mut text = String::new();
            for arguments in
                [&["plan"][..], &["plan", "--json"], &["plan", "--markdown"], &["show", "--json"]]
            {
                text += &node.hostgw(&[arguments, &["-f", file]].concat()).stdout.replace(file, "FILE");
            }
            text + &node.hostgw(&["diff", "hostgw.yaml", "plain.yaml"]).expect(0).stdout
        };
        let without_routes = (outputs("hostgw.yaml"), outputs("plain.yaml"));
        node.hostgw_ok(&["apply", "--yes"]);
        assert!(distinct(&node) > 150, "{:?}", scopes(&node));
        assert!(scopes(&node).values().flatten().all(|scope| scope.parse::<u8>().expect("a number") < 200));
        settled(&node);
        node.hostgw(&["plan", "-f", "plain.yaml", "--detailed-exitcode"]).expect(0).says("No changes");
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        assert!(!snapshot.contains("spread"), "{snapshot}");
        node.write("snapshot.json", &snapshot);
        node.hostgw(&["plan", "--state", "snapshot.json", "--detailed-exitcode"])
            .expect(0)
            .says("No changes");
        // A route that is spread forwards as another one.
        let (destination, _) = scopes(&node).into_iter().find(|(_, scope)| scope.is_some()).expect("spread");
        let (network, _) = destination.rsplit_once('.').expect("a prefix");
        let chosen = node.run(["ip", "route", "get", &format!("{network}.9")]);
        assert!(chosen.contains(&format!("via {network}.1 dev eth0 src 172.30.0.11")), "{chosen}");
        let with_routes = (outputs("hostgw.yaml"), outputs("plain.yaml"));
        for (spread, plain) in [without_routes, with_routes] {
            let lines = |text: &str| text.lines().filter(|line| !line.contains("routes:")).count();
            assert_eq!(lines(&spread), lines(&plain));
            assert!(!spread.contains("spread") && !spread.contains("scope 1"), "{spread}");
        }
        // A script for the node agrees, too.
        node.sh("$HOSTGW render --node linux-0 >node.sh");
        node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh").expect(0).says("No changes");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.try_sh("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh").expect(0).says("Applied");
        assert_eq!(distinct(&node), 1);
        settled(&node);
    });
}

/// The kernel keeps two routes that differ in their scope only. The second one is drift, and an undo restores it.
#[test]
fn a_second_route_with_another_scope_is_removed() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster(LIMIT));
        node.hostgw_ok(&["apply", "--yes"]);
        for command in ["append", "prepend"] {
            node.sh(&format!("ip route {command} 10.64.7.0/24 via 10.64.7.1 dev eth0 proto 87 scope 3"));
            let before = node.witness();
            node.hostgw(&["plan"])
                .expect(0)
                .says("- 10.64.7.0/24 via 10.64.7.1 dev eth0 proto 87")
                .says("0 to add, 0 to update, 1 to remove");
            node.hostgw_ok(&["apply", "--yes"]);
            settled(&node);
            let changed = node.witness();
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, command);
            node.hostgw_ok(&["apply", "--yes"]);
            node.assert_unchanged(&changed, "a second apply");
        }
        // A scope that the kernel uses for more is drift.
        node.sh("ip route delete 10.64.9.0/24; ip route add 10.64.9.0/24 via 10.64.9.1 dev eth0 proto 87 scope 201");
        node.hostgw(&["plan"]).expect(0).says("0 to add, 1 to update, 0 to remove");
        node.hostgw_ok(&["apply", "--yes"]);
        settled(&node);
    });
}
