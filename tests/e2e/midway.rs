//! What others do to the node while an apply is at work, at each of its points. Only in a build with the
//! feature `fault-injection`.

use std::collections::BTreeSet;

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, is_open, node, plug_in, stopped::Stopped};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, is_root};

/// No apply here has more points; beyond it something does not end.
const MOST: usize = 200;

/// Applies `file` again and again: stopped at each point for `disturb`, and judged by `judge`, which leaves
/// the node ready for the next time.
fn at_every_point(
    node: &Namespace,
    file: &str,
    disturb: impl Fn(&Namespace),
    judge: impl FnMut(usize, &Outcome),
) {
    node.write("hostgw.yaml", file);
    at_every_point_of("apply", node, disturb, judge);
}

/// The same of any verb.
fn at_every_point_of(
    verb: &str,
    node: &Namespace,
    disturb: impl Fn(&Namespace),
    mut judge: impl FnMut(usize, &Outcome),
) {
    for point in 1..MOST {
        let mut command = node.hostgw_command(&[verb, "--yes"]);
        match Stopped::at(node, &mut command, &format!("hostgw {verb} --yes"), point) {
            Ok(stopped) => {
                disturb(node);
                judge(point, &stopped.go_on());
            }
            Err(ended) => {
                ended.expect(0);
                assert!(point > 30, "only {point} points");
                return;
            }
        }
    }
    panic!("no end of points");
}

fn new_node() -> Namespace {
    node(if is_root() { Privilege::Root } else { Privilege::User })
}

fn unplug(node: &Namespace) {
    node.sh("ip link del eth0");
}

/// What stands of hostgw's: routes, table, forwarding.
fn own(node: &Namespace) -> (Vec<String>, String, String) {
    let table =
        node.sh("nft list table ip hostgw 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//' || true");
    (node.own_routes(), table, node.sysctl("net.ipv4.ip_forward"))
}

/// The interface takes its routes with it; where nothing stood before, the rest is put back.
#[test]
fn an_interface_that_vanishes_at_any_point_leaves_nothing_of_a_first_apply() {
    let node = new_node();
    let before = own(&node);
    let mut codes = BTreeSet::new();
    let mut snapshots = Snapshots::default();
    at_every_point(&node, RECIPE, unplug, |point, outcome| {
        assert!(!is_open(&node), "{point}: {outcome}");
        match outcome.code {
            // It was found out before the first write.
            3 => {}
            6 => {
                outcome.warns("Rolled back and verified");
                if outcome.stderr.contains("ENODEV") {
                    snapshots.compare("interface-vanished", outcome);
                }
            }
            // It was there until all was verified.
            0 => drop(node.hostgw_ok(&["rollback", "--yes"])),
            _ => panic!("{point}: {outcome}"),
        }
        assert_eq!(own(&node), before, "{point}: {outcome}");
        codes.insert(outcome.code);
        plug_in(&node);
    });
    assert_eq!(codes, [0, 3, 6].into());
    snapshots.conclude();
}

/// What stood on the interface before cannot be restored without it: that is said (7), with what is left, and
/// either the interface comes back, or it is given up.
#[test]
fn an_interface_that_vanishes_at_any_point_is_told_where_it_is_missed() {
    let node = new_node();
    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
    node.hostgw_ok(&["apply", "--yes"]);
    let before = own(&node);
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
            // All the rest is put back.
            assert_eq!(own(&node), without_routes, "{point}: {outcome}");
        }
        // The kernel takes the routes away one by one: what was gone at a second look is drift, not this transaction's.
        let has_replanned = outcome.stderr.contains("the live state changed");
        if outcome.code == 7 {
            outcome.warns("no interface eth0");
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
                assert_eq!(own(&node), without_routes, "{point}: {outcome}");
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
                // The route that a gateway needs may be among those that were gone before.
                node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
            }
            // Given up, not begun, or gone before it began: the routes are drift.
            node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
            node.hostgw_ok(&["apply", "--yes"]);
            node.write("hostgw.yaml", &changed);
        }
        assert_eq!(own(&node), before, "{point}: {outcome}");
    });
    assert_eq!(codes, [0, 3, 7].into());
    snapshots.conclude();
}

/// Somebody takes the place of a route that is wanted, and does other things: all of theirs stays, and the
/// node is as planned or as before.
#[test]
fn what_others_do_at_any_point_stays() {
    const THEIRS: &str = "10.244.2.0/24 via 172.30.0.98 dev eth0 proto static";
    const MORE: &str = "10.244.9.0/24 via 172.30.0.99 dev eth0 proto bird";
    let node = new_node();
    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
    node.hostgw_ok(&["apply", "--yes"]);
    let before = own(&node);
    let mut codes = BTreeSet::new();
    let disturb = |node: &Namespace| {
        drop(node.sh(&format!("ip route replace {THEIRS}; ip route add {MORE}; nft add table ip others")));
    };
    at_every_point(&node, &cluster("", &[NODE_1, NODE_2, NODE_3]), disturb, |point, outcome| {
        let routes = node.run(["ip", "route"]);
        for route in [THEIRS, MORE] {
            assert!(routes.lines().any(|line| line.trim_end() == route), "{point}: {outcome}\n{routes}");
        }
        assert!(node.sh("nft list tables").contains("table ip others"), "{point}: {outcome}");
        // Whatever comes of it, it says so, and nothing of hostgw's is left in between.
        assert!([0, 6, 10].contains(&outcome.code), "{point}: {outcome}");
        assert!(!is_open(&node), "{point}: {outcome}");
        assert_eq!(own(&node), before, "{point}: {outcome}");
        codes.insert(outcome.code);
        node.sh(&format!("ip route del {THEIRS}; ip route del {MORE}; nft delete table ip others"));
        if outcome.code == 0 {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
    });
    assert_eq!(codes, [0, 6, 10].into());
}

/// Somebody takes the place of a route that is to be changed, which the kernel's own replacement would take
/// back: it stays, and no route of hostgw's is left behind it.
#[test]
fn a_route_that_others_take_at_any_point_is_theirs() {
    const THEIRS: &str = "10.244.1.0/24 via 172.30.0.98 dev eth0 proto static";
    let node = new_node();
    let (standing, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nextHop: node-address", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &standing);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = own(&node);
    let mut codes = BTreeSet::new();
    let disturb = |node: &Namespace| drop(node.sh(&format!("ip route replace {THEIRS}")));
    let assert_theirs = |context: &str| {
        let routes = node.run(["ip", "route", "show", "10.244.1.0/24"]);
        assert_eq!(routes.trim_end(), THEIRS, "{context}");
    };
    at_every_point(&node, &changed, disturb, |point, outcome| {
        let context = format!("{point}: {outcome}");
        assert!([0, 7, 10].contains(&outcome.code), "{context}");
        assert_eq!(is_open(&node), outcome.code == 7, "{context}");
        assert_theirs(&context);
        if outcome.code == 7 {
            outcome.warns(&format!("{THEIRS} conflicts with 10.244.1.0/24 via 10.244.1.1"));
            node.hostgw(&["rollback", "--yes"]).expect(7);
            node.hostgw_ok(&["rollback", "--yes", "--abandon"]);
            assert_theirs(&context);
        }
        node.sh(&format!("ip route del {THEIRS}"));
        node.write("hostgw.yaml", &standing);
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(own(&node), before, "{context}");
        node.write("hostgw.yaml", &changed);
        codes.insert(outcome.code);
    });
    assert_eq!(codes, [0, 7, 10].into());
}

/// Somebody puts a set into hostgw's table, which hostgw could not write again: it stays, whenever it comes, the
/// moment between the last look and the commit included.
#[test]
fn a_set_that_others_add_to_the_table_at_any_point_stays() {
    let node = new_node();
    let disturb = |node: &Namespace| {
        drop(node.sh("nft 'add table ip hostgw; add set ip hostgw theirs { type ipv4_addr; }'"));
    };
    let standing = cluster("", &[NODE_1, NODE_2]);
    for (file, is_first) in [(RECIPE, true), (&cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]), false)]
    {
        if !is_first {
            node.write("hostgw.yaml", &standing);
            node.hostgw_ok(&["apply", "--yes"]);
        }
        let before = own(&node);
        let mut codes = BTreeSet::new();
        at_every_point(&node, file, disturb, |point, outcome| {
            let context = format!("{point}: {outcome}");
            assert!(node.sh("nft list table ip hostgw").contains("set theirs"), "{context}");
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
            assert_eq!(own(&node), before, "{context}");
        });
        assert_eq!(codes, [0, 7, 10].into());
        if is_first {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
    }
}

/// Somebody puts a rule into hostgw's table: it stays, or it is told that it goes.
#[test]
fn a_rule_that_others_add_to_the_table_at_any_point_is_never_lost_unsaid() {
    const THEIRS: &str = "ip daddr 203.0.113.9 return";
    let node = new_node();
    let (standing, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &standing);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = own(&node);
    let disturb =
        |node: &Namespace| drop(node.sh(&format!("nft insert rule ip hostgw postrouting {THEIRS}")));
    at_every_point(&node, &changed, disturb, |point, outcome| {
        let context = format!("{point}: {outcome}");
        let stays = node.sh("nft list table ip hostgw").contains(THEIRS);
        let is_told = outcome.stdout.contains(THEIRS) || outcome.stderr.contains(THEIRS);
        assert!(stays || is_told, "{context}");
        assert!([0, 7].contains(&outcome.code), "{context}");
        assert_eq!(is_open(&node), outcome.code == 7, "{context}");
        if is_open(&node) {
            assert!(stays && is_told, "{context}");
            node.hostgw_ok(&["rollback", "--yes"]).says(THEIRS);
        }
        node.write("hostgw.yaml", &standing);
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(own(&node), before, "{context}");
        node.write("hostgw.yaml", &changed);
    });
}

/// The same while a rollback is at work: a set stays, a rule stays or it is told that it goes.
#[test]
fn what_others_add_to_the_table_at_any_point_of_a_rollback_is_never_lost_unsaid() {
    const SET: &str = "add set ip hostgw theirs { type ipv4_addr; }";
    const RULE: &str = "insert rule ip hostgw postrouting ip daddr 203.0.113.9 return";
    let node = new_node();
    let (standing, changed) =
        (cluster("", &[NODE_1, NODE_2]), cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]));
    node.write("hostgw.yaml", &standing);
    node.hostgw_ok(&["apply", "--yes"]);
    let before = own(&node);
    let apply = || {
        node.write("hostgw.yaml", &changed);
        drop(node.hostgw_ok(&["apply", "--yes"]));
    };
    for (theirs, seen) in [(SET, "set theirs"), (RULE, "ip daddr 203.0.113.9 return")] {
        apply();
        let mut codes = BTreeSet::new();
        let disturb = |node: &Namespace| drop(node.sh(&format!("nft '{theirs}'")));
        at_every_point_of("rollback", &node, disturb, |point, outcome| {
            let context = format!("{point}: {outcome}");
            let stays = node.sh("nft list table ip hostgw").contains(seen);
            let is_told = outcome.stdout.contains(seen) || outcome.stderr.contains(seen);
            assert!(stays || (is_told && theirs == RULE), "{context}");
            assert!([0, 7, 10].contains(&outcome.code), "{context}");
            assert_eq!(is_open(&node), outcome.code == 7, "{context}");
            codes.insert(outcome.code);
            node.sh("nft delete set ip hostgw theirs 2>/dev/null || true");
            if is_open(&node) {
                outcome.warns(seen);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            node.write("hostgw.yaml", &standing);
            node.hostgw_ok(&["apply", "--yes"]);
            assert_eq!(own(&node), before, "{context}");
            apply();
        });
        assert!(codes.contains(&0) && codes.contains(&7), "{codes:?}");
    }
}

/// Somebody writes a sysctl that is wanted, and one that the kernel rewrites with forwarding: what they wrote is
/// there in the end, at whatever point they did.
#[test]
fn a_sysctl_that_others_write_at_any_point_is_theirs() {
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
        // Once forwarding is on, theirs is what the kernel has made of it anyway. Just before, there is one moment
        // between the last look at what the switch rewrites and its write.
        missed += usize::from(was_off.get() && node.sysctl(LAN) == "0");
        assert!(missed <= 1, "{context}");
        assert!(node.own_routes().is_empty(), "{context}");
        reset(&node);
    });
    assert!(codes.contains(&0) && codes.contains(&7), "{codes:?}");
}
