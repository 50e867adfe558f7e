//! An apply that is interrupted midway: a signal rolls it back, and after a kill -9 the next command does.

use std::{
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{is_open, large_cluster, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, each};

/// Enough nodes for an apply to take a while.
const NODES: usize = 3000;

/// A node of a large cluster, with drift for an undo to restore.
fn large(privilege: Privilege) -> (Namespace, String) {
    let node = node(privilege);
    node.sh("ip route add 10.99.0.0/16 via 172.30.0.1
             ip route add 10.64.5.0/24 via 172.30.0.1 dev eth0 proto 87
             nft add table ip hostgw
             echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding
             echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects");
    // With one scope, the kernel takes long enough to be interrupted.
    node.write("hostgw.yaml", &format!("routes: {{spread: never}}\n{}", large_cluster(NODES)));
    let before = node.witness();
    (node, before)
}

/// An apply that has written its journal and possibly a few changes.
fn start_apply(node: &Namespace) -> Child {
    let mut child = node
        .hostgw_command(&["apply", "--yes", "--node", "linux-0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hostgw");
    node.wait_until("the journal", || is_open(node) || child.try_wait().expect("our child").is_some());
    child
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("a child that was not waited for");
}

/// Delays after the journal is written. By then, the kernel has none, some or all of the routes.
const DELAYS: [u64; 6] = [0, 10, 30, 60, 100, 200];

#[test]
fn a_rollback_recovers_from_a_kill() {
    each(|privilege| {
        let (node, before) = large(privilege);
        let mut kills = 0;
        let mut killed_midway = false;
        let mut snapshots = Snapshots::default();
        for delay in DELAYS {
            let mut child = start_apply(&node);
            thread::sleep(Duration::from_millis(delay));
            child.kill().expect("our child");
            child.wait().expect("our child");
            if is_open(&node) {
                kills += 1;
                killed_midway |= (2..NODES).contains(&node.managed_routes().len());
                node.hostgw_ok(&["status"]).says("interrupted");
                node.hostgw_ok(&["plan", "--node", "linux-0"]).warns("interrupted");
                node.hostgw(&["confirm"]).expect(8).warns("was interrupted").warns("`hostgw rollback`");
                if kills == 1 {
                    let without = node.hostgw(&["apply", "--node", "linux-0"]).expect(8);
                    snapshots.compare("interrupted-apply", &without);
                }
            }
            node.hostgw_ok(&["rollback", "--yes"]);
            node.assert_unchanged(&before, &format!("kill after {delay} ms, and rollback"));
            node.hostgw_ok(&["status"]).says("Last transaction: none\n");
        }
        assert!(killed_midway, "no apply was killed midway");
        snapshots.conclude();
    });
}

/// The next apply recovers first.
#[test]
fn the_next_apply_recovers_from_a_kill() {
    each(|privilege| {
        let (node, before) = large(privilege);
        let mut child = start_apply(&node);
        thread::sleep(Duration::from_millis(30));
        child.kill().expect("our child");
        child.wait().expect("our child");
        node.hostgw_ok(&["apply", "--yes", "--node", "linux-0"]);
        node.hostgw(&["plan", "--node", "linux-0", "--detailed-exitcode"]).expect(0);
        assert_eq!(node.managed_routes().len(), NODES);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "kill, apply and rollback");
    });
}

/// An apply that only rolls back an interrupted one reports that it changed the node.
#[cfg(feature = "fault-injection")]
#[test]
fn an_apply_that_only_recovers_reports_a_change() {
    use super::{settled, stopped::Stopped};

    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let live = node.witness();
        // The routes are removed, but the sysctls are not restored.
        let mut point = 20;
        loop {
            let mut destroy = node.hostgw_command(&["destroy", "--yes"]);
            let stopped = Stopped::at(&node, &mut destroy, "hostgw destroy", point);
            stopped.unwrap_or_else(|outcome| panic!("no middle: {outcome}")).kill();
            if is_open(&node) && node.managed_routes().is_empty() {
                break;
            }
            node.hostgw_ok(&["apply", "--yes"]);
            point += 1;
        }
        node.hostgw(&["apply", "--yes", "--detailed-exitcode"])
            .expect(2)
            .warns("Rolled back destroy")
            .says("No changes");
        node.assert_unchanged(&live, "an interrupted destroy and an apply");
        settled(&node);
    });
}

/// A second kill -9, during the rollback of the first.
#[test]
fn a_killed_rollback_can_be_resumed() {
    each(|privilege| {
        let (node, before) = large(privilege);
        node.hostgw_ok(&["apply", "--yes", "--node", "linux-0"]);
        for delay in [20, 60, 100] {
            let mut child = node
                .hostgw_command(&["rollback", "--yes"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("hostgw");
            thread::sleep(Duration::from_millis(delay));
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "killed rollbacks and one that was not");
    });
}

#[test]
fn a_signal_rolls_back() {
    each(|privilege| {
        let (node, before) = large(privilege);
        let mut snapshots = Snapshots::default();
        for (name, signal) in [("INT", Signal::INT), ("TERM", Signal::TERM), ("HUP", Signal::HUP)] {
            let child = start_apply(&node);
            send(&child, signal);
            let output = child.wait_with_output().expect("our child");
            let outcome = Outcome::from_output(&node, "hostgw apply --yes, interrupted", output);
            assert_eq!(outcome.code, 130, "SIG{name}: {outcome}");
            node.assert_unchanged(&before, &format!("SIG{name}"));
            node.hostgw_ok(&["rollback", "--yes"]).says("Nothing to do");
            snapshots.compare("interrupted-by-signal", &outcome);
        }
        snapshots.conclude();
    });
}

/// A signal before the first write, for example at the question.
#[test]
fn a_signal_at_the_question_changes_nothing() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        // ^C on the terminal.
        let mut child = node.on_terminal("\"$HOSTGW\" apply").spawn().expect("script");
        let mut shown = Vec::new();
        let mut byte = [0];
        while !shown.ends_with(b"[y/N]") {
            std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut byte)
                .expect("the question");
            shown.push(byte[0]);
        }
        crate::support::namespace::feed(&mut child, "\x03");
        let output = child.wait_with_output().expect("our child");
        Outcome::from_output(&node, "hostgw apply, ^C", output).expect(130);
        node.assert_unchanged(&before, "^C at the question");
        super::assert_no_record(&node);
    });
}

/// The egress interface disappears while routes are written: all routes on it are gone, everything else is restored,
/// and objects that were on it are reported.
#[test]
fn an_interface_that_disappears_midway_is_reported() {
    each(|privilege| {
        for _ in 0..5 {
            let (node, _) = large(privilege);
            let child = start_apply(&node);
            node.wait_until("the first routes", || node.managed_routes().len() > 1);
            node.sh("ip link del eth0");
            let output = child.wait_with_output().expect("our child");
            let outcome = Outcome::from_output(&node, "hostgw apply --yes, and eth0 disappears", output);
            if outcome.code == 0 {
                // Everything was already done.
                continue;
            }
            assert_eq!(outcome.code, 7, "{outcome}");
            outcome
                .warns("interface eth0 does not exist")
                .warns("ip route add 10.64.5.0/24 via 172.30.0.1 dev eth0");
            let assert_restored = || {
                assert_eq!(node.managed_routes(), [""; 0]);
                assert_eq!(node.look("nft list ruleset"), "table ip hostgw {\n}\n");
                assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
                assert_eq!(node.sysctl("net.ipv4.conf.all.accept_redirects"), "0");
            };
            assert_restored();
            node.hostgw(&["rollback", "--yes"]).expect(7);
            node.hostgw_ok(&["rollback", "--yes", "--abandon"]).warns("not restored: 10.64.5.0/24");
            assert_restored();
            node.hostgw_ok(&["status"]).says("Last transaction: none\n");
            return;
        }
        panic!("every apply finished before its interface disappeared");
    });
}
