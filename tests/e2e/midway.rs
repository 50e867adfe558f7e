//! Concurrent changes by other programs at each point of an apply. Requires a build with the feature
//! `fault-injection`.

use std::collections::BTreeSet;

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, is_open, node, plug_in, stopped::Stopped};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, is_root, without_counters};

/// An upper bound on the number of points. A test that reaches it is in an endless loop.
const MAX_POINTS: usize = 200;

/// Applies `file` repeatedly. Stops it at each point and calls `disturb`, then calls `judge`, which must leave the
/// node ready for the next round.
fn at_every_point(
    node: &Namespace,
    file: &str,
    disturb: impl Fn(&Namespace),
    judge: impl FnMut(usize, &Outcome),
) {
    node.write("hostgw.yaml", file);
    at_every_point_of("apply", node, disturb, judge);
}

/// Like [`at_every_point`], for any command.
fn at_every_point_of(
    verb: &str,
    node: &Namespace,
    disturb: impl Fn(&Namespace),
    mut judge: impl FnMut(usize, &Outcome),
) {
    for point in 1..MAX_POINTS {
        match Stopped::hostgw(node, &[verb, "--yes"], &format!("hostgw {verb} --yes"), point) {
            Ok(stopped) => {
                disturb(node);
                judge(point, &stopped.resume());
            }
            Err(ended) => {
                ended.expect(0);
                assert!(point > 30, "only {point} points");
                return;
            }
        }
    }
    panic!("more than {MAX_POINTS} points");
}

fn new_node() -> Namespace {
    node(if is_root() { Privilege::Root } else { Privilege::User })
}

fn unplug(node: &Namespace) {
    node.sh("ip link del eth0");
}

/// The managed live state: routes, table, forwarding.
fn managed_state(node: &Namespace) -> (Vec<String>, String, String) {
    let seen = node.look("ip route show proto 87; echo '#'; nft list table ip hostgw 2>/dev/null || true");
    let (routes, table) = seen.split_once("#\n").expect("the end of the routes");
    let routes = routes.lines().map(|line| line.trim_end().to_owned()).collect();
    (routes, without_counters(table), node.sysctl("net.ipv4.ip_forward"))
}

/// The interface takes its routes with it. On a node without earlier objects, everything else is restored.
#[test]
fn an_interface_that_disappears_leaves_nothing_of_a_first_apply() {
    let node = new_node();
    let before = managed_state(&node);
    let mut codes = BTreeSet::new();
    let mut snapshots = Snapshots::default();
    at_every_point(&node, RECIPE, unplug, |point, outcome| {
        assert!(!is_open(&node), "{point}: {outcome}");
        match outcome.code {
            // It was noticed before the first write.
            3 => {}
            6 => {
                outcome.warns("Rolled back and verified");
                if outcome.stderr.contains("ENODEV") {
                    snapshots.compare("interface-vanished", outcome);
                }
            }
            // It disappeared after the verification.
            0 => drop(node.hostgw_ok(&["rollback", "--yes"])),
            _ => panic!("{point}: {outcome}"),
        }
        assert_eq!(managed_state(&node), before, "{point}: {outcome}");
        codes.insert(outcome.code);
        plug_in(&node);
    });
    assert_eq!(codes, [0, 3, 6].into());
    snapshots.conclude();
}

/// Objects that were on the interface cannot be restored without it: that is reported (7) with the remaining commands,
/// until the interface returns or they are abandoned.
#[test]
fn an_interface_that_disappears_is_reported_if_objects_are_lost() {
    let node = new_node();
    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
    node.hostgw_ok(&["apply", "--yes"]);
    let before = managed_state(&node);
    let without_routes = (Vec::new(), before.1.clone(), before.2.clone());
    let mut is_compared = false;
    let mut codes = BTreeSet::new();
    let mut snapshots = Snapshots::default();
    let changed = cluster("nextHop: node-address\nnat: {randomFully: true}", &[NODE_1, NODE_2]);
    at_every_point(&node, &changed, unplug, |point, outcome| {
        if outcome.code == 0 {
            node.hostgw(&["rollback", "--yes"]).expect(7);
        }
        if [0, 7].contains(&outcome.code) {
            assert!(is_open(&node), "{point}: {outcome}");
            // Everything else is restored.
            assert_eq!(managed_state(&node), without_routes, "{point}: {outcome}");
        }
        // The kernel removes the routes one by one: those missing in a second plan are drift, not part of this
        // transaction.
        let has_replanned = outcome.stderr.contains("the live state changed");
        if outcome.code == 7 {
            outcome.warns("interface eth0 does not exist");
            let commands: Vec<&str> =
                outcome.stderr.lines().filter(|line| line.starts_with("    ip route")).collect();
            assert!(commands.iter().collect::<BTreeSet<_>>().len() == commands.len(), "{point}: {outcome}");
            if !has_replanned {
                for destination in ["10.244.0.0/16 dev", "10.244.1.0/24 via 10.244.1.1", "10.244.2.0/24 via"]
                {
                    outcome.warns(&format!("ip route add {destination}"));
                }
                if !std::mem::replace(&mut is_compared, true) {
                    snapshots.compare("interface-vanished-7", outcome);
                }
            }
            if point % 2 == 0 {
                node.hostgw_ok(&["rollback", "--yes", "--abandon"]).warns("not restored: 10.244.1.0/24");
                assert_eq!(managed_state(&node), without_routes, "{point}: {outcome}");
            }
        }
        assert!([0, 3, 7].contains(&outcome.code), "{point}: {outcome}");
        codes.insert(outcome.code);
        plug_in(&node);
        let is_restored = is_open(&node) && !has_replanned;
        if is_restored {
            node.hostgw_ok(&["rollback", "--yes"]);
        } else {
            if is_open(&node) {
                // The route that a gateway needs may be among those that were missing before.
                node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
            }
            // Abandoned, not begun, or removed before it began: the routes are drift.
            node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
            node.hostgw_ok(&["apply", "--yes"]);
            node.write("hostgw.yaml", &changed);
        }
        assert_eq!(managed_state(&node), before, "{point}: {outcome}");
    });
    assert_eq!(codes, [0, 3, 7].into());
    snapshots.conclude();
}

/// Another program creates a route in place of a planned one, and other objects: all of its objects stay, and the node
/// has its planned or its previous state.
#[test]
fn foreign_objects_added_at_any_point_stay() {
    const FOREIGN: &str = "10.244.2.0/24 via 172.30.0.98 dev eth0 proto static";
    const MORE: &str = "10.244.9.0/24 via 172.30.0.99 dev eth0 proto bird";
    let node = new_node();
    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
    node.hostgw_ok(&["apply", "--yes"]);
    let before = managed_state(&node);
    let mut codes = BTreeSet::new();
    let disturb = |node: &Namespace| {
        drop(node.sh(&format!("ip route replace {FOREIGN}; ip route add {MORE}; nft add table ip others")));
    };
    at_every_point(&node, &cluster("", &[NODE_1, NODE_2, NODE_3]), disturb, |point, outcome| {
        let routes = node.look("ip route");
        for route in [FOREIGN, MORE] {
            assert!(routes.lines().any(|line| line.trim_end() == route), "{point}: {outcome}\n{routes}");
        }
        assert!(node.look("nft list tables").contains("table ip others"), "{point}: {outcome}");
        // Whatever the result, it is reported, and the node is never in between.
        assert!([0, 6, 10].contains(&outcome.code), "{point}: {outcome}");
        assert!(!is_open(&node), "{point}: {outcome}");
        assert_eq!(managed_state(&node), before, "{point}: {outcome}");
        codes.insert(outcome.code);
        node.sh(&format!("ip route del {FOREIGN}; ip route del {MORE}; nft delete table ip others"));
        if outcome.code == 0 {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
    });
    assert_eq!(codes, [0, 6, 10].into());
}

/// Another program creates a route in place of one that is to be changed, which `NLM_F_REPLACE` would overwrite: it
/// stays, and no managed route is left behind it.
#[test]
fn a_foreign_route_added_at_any_point_is_not_replaced() {
    const FOREIGN: &str = "10.244.1.0/24 via 172.30.0.98 dev eth0 proto static";
    let node = new_node();
    let (initial, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nextHop: node-address", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &initial);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = managed_state(&node);
    let mut codes = BTreeSet::new();
    let disturb = |node: &Namespace| drop(node.sh(&format!("ip route replace {FOREIGN}")));
    let assert_foreign_route_kept = |context: &str| {
        let routes = node.look("ip route show 10.244.1.0/24");
        assert_eq!(routes.trim_end(), FOREIGN, "{context}");
    };
    at_every_point(&node, &changed, disturb, |point, outcome| {
        let context = format!("{point}: {outcome}");
        assert!([0, 7, 10].contains(&outcome.code), "{context}");
        assert_eq!(is_open(&node), outcome.code == 7, "{context}");
        assert_foreign_route_kept(&context);
        if outcome.code == 7 {
            outcome.warns(&format!("{FOREIGN} conflicts with 10.244.1.0/24 via 10.244.1.1"));
            node.hostgw(&["rollback", "--yes"]).expect(7);
            node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
            assert_foreign_route_kept(&context);
        }
        node.sh(&format!("ip route del {FOREIGN}"));
        node.write("hostgw.yaml", &initial);
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(managed_state(&node), before, "{context}");
        node.write("hostgw.yaml", &changed);
        codes.insert(outcome.code);
    });
    assert_eq!(codes, [0, 7, 10].into());
}

/// Another program adds a set to the managed table, which hostgw could not restore: it stays, even if it is added
/// between the last read and the commit.
#[test]
fn a_foreign_set_added_at_any_point_stays() {
    let node = new_node();
    let disturb = |node: &Namespace| {
        drop(node.sh("nft 'add table ip hostgw; add set ip hostgw theirs { type ipv4_addr; }'"));
    };
    let initial = cluster("", &[NODE_1, NODE_2]);
    for (file, is_first) in [(RECIPE, true), (&cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]), false)]
    {
        if !is_first {
            node.write("hostgw.yaml", &initial);
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let before = managed_state(&node);
        let mut codes = BTreeSet::new();
        at_every_point(&node, file, disturb, |point, outcome| {
            let context = format!("{point}: {outcome}");
            assert!(node.look("nft list table ip hostgw").contains("set theirs"), "{context}");
            assert_eq!(is_open(&node), outcome.code == 7, "{context}");
            if [7, 10].contains(&outcome.code) {
                outcome.warns("set theirs");
            }
            codes.insert(outcome.code);
            node.sh("nft delete set ip hostgw theirs");
            if is_open(&node) || outcome.code == 0 {
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            if is_first {
                node.sh("nft destroy table ip hostgw 2>/dev/null || nft delete table ip hostgw 2>/dev/null || true");
            }
            assert_eq!(managed_state(&node), before, "{context}");
        });
        assert_eq!(codes, [0, 7, 10].into());
        if is_first {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
    }
}

/// Another program adds a rule to the managed table: it stays, or its removal is shown.
#[test]
fn a_foreign_rule_added_at_any_point_is_never_lost_silently() {
    const FOREIGN: &str = "ip daddr 203.0.113.9 return";
    let node = new_node();
    let (initial, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &initial);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = managed_state(&node);
    let disturb =
        |node: &Namespace| drop(node.sh(&format!("nft insert rule ip hostgw postrouting {FOREIGN}")));
    at_every_point(&node, &changed, disturb, |point, outcome| {
        let context = format!("{point}: {outcome}");
        let is_kept = node.look("nft list table ip hostgw").contains(FOREIGN);
        let is_reported = outcome.stdout.contains(FOREIGN) || outcome.stderr.contains(FOREIGN);
        assert!(is_kept || is_reported, "{context}");
        assert!([0, 7].contains(&outcome.code), "{context}");
        assert_eq!(is_open(&node), outcome.code == 7, "{context}");
        if is_open(&node) {
            assert!(is_kept && is_reported, "{context}");
            node.hostgw_ok(&["rollback", "--yes"]).says(FOREIGN);
        }
        node.write("hostgw.yaml", &initial);
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(managed_state(&node), before, "{context}");
        node.write("hostgw.yaml", &changed);
    });
}

/// Same, during a rollback: a set stays; a rule stays, or its removal is shown.
#[test]
fn foreign_objects_added_during_a_rollback_are_never_lost_silently() {
    const SET: &str = "add set ip hostgw theirs { type ipv4_addr; }";
    const RULE: &str = "insert rule ip hostgw postrouting ip daddr 203.0.113.9 return";
    let node = new_node();
    let (initial, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &initial);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = managed_state(&node);
    let apply = || {
        node.write("hostgw.yaml", &changed);
        drop(node.hostgw_ok(&["apply", "--yes"]));
    };
    for (foreign, seen) in [(SET, "set theirs"), (RULE, "ip daddr 203.0.113.9 return")] {
        apply();
        let mut codes = BTreeSet::new();
        let disturb = |node: &Namespace| drop(node.sh(&format!("nft '{foreign}'")));
        at_every_point_of("rollback", &node, disturb, |point, outcome| {
            let context = format!("{point}: {outcome}");
            let is_kept = node.look("nft list table ip hostgw").contains(seen);
            let is_reported = outcome.stdout.contains(seen) || outcome.stderr.contains(seen);
            assert!(is_kept || (is_reported && foreign == RULE), "{context}");
            assert!([0, 7, 10].contains(&outcome.code), "{context}");
            assert_eq!(is_open(&node), outcome.code == 7, "{context}");
            codes.insert(outcome.code);
            node.sh("nft delete set ip hostgw theirs 2>/dev/null || true");
            if is_open(&node) {
                outcome.warns(seen);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            node.write("hostgw.yaml", &initial);
            node.hostgw_ok(&["apply", "--yes"]);
            assert_eq!(managed_state(&node), before, "{context}");
            apply();
        });
        assert!(codes.contains(&0) && codes.contains(&7), "{codes:?}");
    }
}

/// Another program writes a managed sysctl, and one that the kernel rewrites with forwarding: its values survive, at
/// whatever point it wrote them.
#[test]
fn a_foreign_sysctl_value_written_at_any_point_stays() {
    const FILTER: &str = "net.ipv4.conf.all.rp_filter";
    const LAN: &str = "net.ipv4.conf.lan0.forwarding";
    let node = new_node();
    let reset = |node: &Namespace| {
        drop(node.sh("cd /proc/sys/net/ipv4/conf; echo 0 >all/rp_filter; echo 0 >lan0/forwarding"));
    };
    reset(&node);
    let mut codes = BTreeSet::new();
    let was_off = std::cell::Cell::new(false);
    let mut missed = 0;
    let disturb = |node: &Namespace| {
        was_off.set(node.sysctl("net.ipv4.ip_forward") == "0");
        drop(node.sh("cd /proc/sys/net/ipv4/conf; echo 1 >all/rp_filter; echo 1 >lan0/forwarding"));
    };
    at_every_point(&node, &format!("sysctls: {{{FILTER}: 2}}\n{RECIPE}"), disturb, |point, outcome| {
        let context = format!("{point}: {outcome}");
        assert!([0, 5, 6, 7].contains(&outcome.code), "{context}");
        assert_eq!(is_open(&node), outcome.code == 7, "{context}");
        codes.insert(outcome.code);
        if outcome.code == 0 && node.sysctl(FILTER) == "2" {
            node.hostgw_ok(&["rollback", "--yes"]);
        } else if outcome.code == 0 || outcome.code == 7 {
            assert_eq!(node.sysctl(FILTER), "1", "{context}");
            node.hostgw(&["rollback", "--yes"]).expect(if outcome.code == 0 { 10 } else { 7 });
            node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
        }
        assert_eq!(node.sysctl(FILTER), "1", "{context}");
        // Once forwarding is enabled, the kernel has set the same value itself. Just before, there is a gap between
        // the last read of the values that the switch rewrites and its write.
        missed += usize::from(was_off.get() && node.sysctl(LAN) == "0");
        assert!(missed <= 1, "{context}");
        assert!(node.managed_routes().is_empty(), "{context}");
        reset(&node);
    });
    assert!(codes.contains(&0) && codes.contains(&7), "{codes:?}");
}
