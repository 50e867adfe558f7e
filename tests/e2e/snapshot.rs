//! A plan from a snapshot is the same as the plan of the node itself, wherever it is made.

use std::process::{Command, Stdio};

use super::{NODE_1, NODE_2, NODE_3, cluster, dual_stack, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, each};

/// Asserts that the live plan and the plan from a snapshot are the same.
#[track_caller]
fn assert_same_plan(node: &Namespace, what: &str) {
    node.write("snapshot.json", &node.hostgw(&["snapshot"]).stdout);
    for form in [&[][..], &["--json"], &["--adopt"], &["--json", "--adopt"], &["--detailed-exitcode"]] {
        let live = node.hostgw(&[&["plan"], form].concat());
        let planned = node.hostgw(&[&["plan", "--state", "snapshot.json"], form].concat());
        assert_eq!(live.stdout, planned.stdout, "{what} {form:?}");
        assert_eq!(live.code, planned.code, "{what} {form:?}: {live} {planned}");
    }
}

#[test]
fn a_plan_from_a_snapshot_is_the_live_plan() {
    each(|privilege| {
        let node = node(privilege);
        assert_same_plan(&node, "a fresh node");
        node.hostgw_ok(&["apply", "--yes"]);
        assert_same_plan(&node, "an applied one");
        node.sh("ip route del 10.244.1.0/24
                 ip route change 10.244.2.0/24 via 172.30.0.9 dev eth0 proto 87
                 ip route add 10.244.9.0/24 via 172.30.0.9 proto 87 table 100
                 ip route add 10.244.8.0/24 via 172.30.0.9 table 100
                 nft add rule ip hostgw postrouting counter
                 echo 0 >/proc/sys/net/ipv4/ip_forward");
        assert_same_plan(&node, "drift");
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.5
                 ip route add 10.244.7.0/25 via 172.30.0.5
                 ip route append 10.244.1.0/24 nexthop via 172.30.0.6 nexthop via 172.30.0.7
                 ip route add default via 172.30.0.1
                 ip link add eth1.7 type bridge
                 ip address add 10.245.0.1/24 dev eth1.7; ip link set eth1.7 up");
        assert_same_plan(&node, "conflicts");
        node.write(
            "hostgw.yaml",
            &cluster(
                "routes: {table: 100, metric: 7}\nsysctls: {net.ipv4.conf.eth1/7.rp_filter: 2, net.ipv4.nothing: 1}",
                &[NODE_1, NODE_2, NODE_3],
            ),
        );
        assert_same_plan(&node, "another table, and a sysctl that does not exist");
        node.sh("ip address add fd00:30::11/64 dev eth0 nodad
                 ip -6 route add fd00:244:1::/64 via fd00:30::9
                 ip -6 route add fd00:244:2::/64 via fd00:30::9 proto 87");
        node.await_ipv6_addresses();
        node.write("hostgw.yaml", dual_stack::CLUSTER);
        assert_same_plan(&node, "both families");
        node.sh("ip link set eth0 down");
        assert_same_plan(&node, "an interface that is down");
    });
}

/// A reviewer needs no root, no namespace, and no node.
#[test]
fn a_reviewer_needs_no_privileges() {
    let node = node(if crate::support::namespace::is_root() { Privilege::Root } else { Privilege::User });
    node.sh("ip route add 10.244.1.0/24 via 172.30.0.9 proto 87");
    let live = node.hostgw(&["plan", "--json"]).expect(0);
    node.write("snapshot.json", &node.hostgw_ok(&["snapshot"]).stdout);
    let mut reviewer = Command::new("env");
    reviewer.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    if crate::support::namespace::can_become_nobody() {
        reviewer.args([
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--no-new-privs",
        ]);
    }
    reviewer.arg(
        node.hostgw_command(&[])
            .get_envs()
            .find(|(name, _)| *name == "HOSTGW")
            .and_then(|(_, value)| value)
            .expect("the program"),
    );
    reviewer
        .args(["plan", "--json", "--state", "snapshot.json"])
        .current_dir(node.folder())
        .stdin(Stdio::null());
    let planned = Outcome::of(&node, "hostgw plan --json --state, of nobody", &mut reviewer).expect(0);
    assert_eq!(live.stdout, planned.stdout);
}

#[test]
fn files_that_are_not_snapshots_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        for (text, why) in [
            ("", "unexpected end of file"),
            ("{}", "missing field `format`"),
            (&snapshot[..snapshot.len() / 2], "unexpected end of file"),
            (
                &snapshot.replacen("\"format\": 2", "\"format\": 3", 1),
                "it has format 3, but this version of hostgw reads format 2",
            ),
            (
                &snapshot.replacen("\"format\": 2", "\"format\": 1", 1),
                "it has format 1, but this version of hostgw reads format 2",
            ),
        ] {
            node.write("snapshot.json", text);
            let refused = node.hostgw(&["plan", "--state", "snapshot.json"]).expect(3);
            refused
                .warns("snapshot.json is not a snapshot")
                .warns(why)
                .warns("create one with `hostgw snapshot`");
        }
        node.hostgw(&["plan", "--state", "nowhere.json"]).expect(3).warns("no such file: nowhere.json");
    });
}

/// A program on Windows adds a byte order mark to the file.
#[test]
fn a_byte_order_mark_is_no_part_of_a_snapshot() {
    each(|privilege| {
        let node = node(privilege);
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        node.write("snapshot.json", &snapshot);
        node.write("marked.json", &format!("\u{feff}{snapshot}"));
        for command in [
            &["plan", "--state"][..],
            &["doctor", "--state"],
            &["explain", "10.244.1.5", "--state"],
            &["audit"],
        ] {
            let plain = node.hostgw(&[command, &["snapshot.json"]].concat());
            let marked = node.hostgw(&[command, &["marked.json"]].concat());
            let name = |text: &str| text.replace("marked.json", "snapshot.json");
            assert_eq!(
                (name(&marked.stdout), marked.code),
                (plain.stdout.clone(), plain.code),
                "{command:?}: {marked}"
            );
        }
    });
}

/// If parts of the node could not be read, the plan from the snapshot reports that, too.
#[test]
fn unreadable_parts_of_a_snapshot_stay_unknown() {
    each(|privilege| {
        let node = node(privilege);
        let without = "setpriv --bounding-set -all --inh-caps -all --no-new-privs \"$HOSTGW\"";
        let snapshot = node.try_sh(&format!("{without} snapshot >snapshot.json"));
        assert_eq!(snapshot.code, 9, "{snapshot}");
        let live = node.try_sh(&format!("{without} plan --json")).expect(9);
        let planned = node.hostgw(&["plan", "--json", "--state", "snapshot.json"]).expect(9);
        assert_eq!(live.stdout, planned.stdout);
    });
}
