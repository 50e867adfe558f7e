//! `checks:` with a machine at the other end of the cable: checks that pass, that fail before the change, that the
//! change breaks, and signals while a check is running.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{NODE_1, NODE_2, assert_no_record, cluster, node, settled};
use crate::support::namespace::{Namespace, Outcome, Peer, Privilege, Snapshots, each};

/// A node whose router 172.30.0.1 listens on port 8080. According to the configuration, 10.244.1.0/24 are the pods of
/// node linux-2, but the router has 10.244.1.9, reached by the default route, and 10.244.1.7, reached by a foreign
/// on-link route. Both routes win as long as the main table has only /16 routes.
pub(super) fn node_with_router(privilege: Privilege) -> (Namespace, Peer) {
    let node = node(privilege);
    let router = Peer::behind(&node, "lan0", &[8080]);
    router.sh(
        &node,
        "ip address add 172.30.0.1/24 dev far
         ip address add 10.244.1.7/32 dev far
         ip address add 10.244.1.9/32 dev lo",
    );
    node.sh("ip route add default via 172.30.0.1
             ip route add 10.244.1.0/29 dev eth0 scope link table 100
             ip rule add to 10.244.1.7 lookup main suppress_prefixlength 15 priority 100
             ip rule add to 10.244.1.7 lookup 100 priority 101");
    node.await_ipv6_addresses();
    (node, router)
}

/// A configuration of two nodes with these checks, each a line of YAML.
pub(super) fn checked(checks: &[&str]) -> String {
    let checks: String = checks.iter().map(|check| format!("  - {check}\n")).collect();
    format!("{}checks:\n{checks}", cluster("", &[NODE_1, NODE_2]))
}

/// Makes the kernel give up neighbor resolution after 0.2 seconds instead of three.
fn shorten_neighbor_timeout(node: &Namespace) {
    node.sh("ip ntable change name arp_cache dev eth0 retrans 60");
}

#[test]
fn only_checks_that_pass_before_the_change_count() {
    each(|privilege| {
        let (node, _router) = node_with_router(privilege);
        shorten_neighbor_timeout(&node);
        let mut snapshots = Snapshots::default();
        let passing = ["tcp: 172.30.0.1:8080", "neighbor: 172.30.0.1", "neighbor: 172.30.0.11"];
        node.write("hostgw.yaml", &checked(&passing));
        let before = node.witness();
        snapshots.compare("checks-pass", &node.hostgw_ok(&["apply", "--yes"]));
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "apply with checks, and rollback");

        let failing = ["{tcp: 172.30.0.1:9, timeout: 5m}", "neighbor: 172.30.0.77", "neighbor: 10.244.1.9"];
        let mixed: Vec<&str> = failing.into_iter().chain(passing).collect();
        node.write("hostgw.yaml", &checked(&mixed));
        snapshots.compare("checks-fail-before", &node.hostgw_ok(&["apply", "--yes"]));
        // Without changes, no check runs.
        let again = node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(again.stderr, "", "{again}");
        let destroyed = node.hostgw_ok(&["destroy", "--yes"]);
        assert!(!destroyed.stderr.contains("check"), "{destroyed}");
        node.assert_unchanged(&before, "apply with failing checks, and destroy");

        node.write("hostgw.yaml", &checked(&failing));
        snapshots.compare("checks-none-counts", &node.hostgw_ok(&["apply", "--yes"]));
        snapshots.conclude();
    });
}

/// The routes to the pods of node linux-2 redirect traffic from two machines that are not pods.
#[test]
fn a_change_that_breaks_a_check_is_rolled_back() {
    each(|privilege| {
        let (node, _router) = node_with_router(privilege);
        shorten_neighbor_timeout(&node);
        let mut snapshots = Snapshots::default();
        let (by_router, on_link) =
            ("{tcp: 10.244.1.9:8080, timeout: 3s}", "{neighbor: 10.244.1.7, timeout: 3s}");
        let cases: [(&str, &[&str]); 3] = [
            ("checks-lose-tcp", &[by_router, "neighbor: 172.30.0.1"]),
            ("checks-lose-neighbor", &["tcp: 172.30.0.1:8080", on_link]),
            ("checks-lose-all", &[by_router, "tcp: 172.30.0.1:9", on_link]),
        ];
        let before = node.witness();
        for (name, checks) in cases {
            node.write("hostgw.yaml", &checked(checks));
            snapshots.compare(name, &node.hostgw(&["apply", "--yes"]).expect(6));
            node.assert_unchanged(&before, name);
            assert_no_record(&node);
        }
        // The apply never becomes pending, and no process keeps waiting.
        node.hostgw(&["apply", "--yes", "--confirm", "10m"]).expect(6);
        node.assert_unchanged(&before, "an apply with checks that would have become pending");
        node.hostgw(&["confirm", "--lock-timeout", "10s"]).expect(8).warns("no apply is pending here");
        // Only the checks prevented the apply.
        node.write("hostgw.yaml", &checked(&["tcp: 172.30.0.1:8080"]));
        node.hostgw_ok(&["apply", "--yes"]);
        snapshots.conclude();
    });
}

/// An undo does not run checks, and the next apply runs a check again that failed before.
#[test]
fn a_rolled_back_change_can_be_applied_once_its_checks_pass() {
    each(|privilege| {
        let (node, router) = node_with_router(privilege);
        shorten_neighbor_timeout(&node);
        node.write("hostgw.yaml", &checked(&["{tcp: 10.244.1.9:8080, timeout: 2s}"]));
        node.hostgw(&["apply", "--yes"]).expect(6);
        // Now the address is where the configuration says: behind 10.244.1.1.
        router.sh(&node, "ip address add 10.244.1.1/32 dev far");
        node.hostgw_ok(&["apply", "--yes"]).warns("1 check passed before and after the change.");
        settled(&node);
    });
}

fn start_apply(node: &Namespace) -> Child {
    node.hostgw_command(&["apply", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hostgw")
}

/// Waits until hostgw waits for an answer, and interrupts it.
fn interrupt_check(node: &Namespace, name: &str, child: Child) -> Outcome {
    node.wait_until("an unanswered connection", || {
        !node.run(["ss", "-Htn", "state", "syn-sent"]).trim().is_empty()
    });
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::INT).expect("a child that was not waited for");
    Outcome::from_output(node, name, child.wait_with_output().expect("our child"))
}

#[test]
fn a_signal_interrupts_a_running_check_immediately() {
    each(|privilege| {
        let (node, router) = node_with_router(privilege);
        let mut snapshots = Snapshots::default();
        // A machine that receives packets but never answers.
        let far = router.sh(&node, "ip -o link show far | sed 's/.*ether //; s/ .*//'");
        node.sh(&format!("ip neigh add 172.30.0.99 lladdr {} dev eth0 nud permanent", far.trim()));
        let before = node.witness();

        node.write("hostgw.yaml", &checked(&["{tcp: 172.30.0.99:80, timeout: 5m}"]));
        let outcome = interrupt_check(&node, "hostgw apply --yes, interrupted before", start_apply(&node));
        assert_eq!(outcome.code, 130, "{outcome}");
        node.assert_unchanged(&before, "a signal before the change");
        assert_no_record(&node);
        snapshots.compare("checks-interrupted-before", &outcome);

        node.write("hostgw.yaml", &checked(&["{tcp: 10.244.1.9:8080, timeout: 5m}"]));
        let child = start_apply(&node);
        node.wait_until("the change is in effect", || node.sysctl("net.ipv4.ip_forward") == "1");
        let outcome = interrupt_check(&node, "hostgw apply --yes, interrupted after", child);
        assert_eq!(outcome.code, 130, "{outcome}");
        node.assert_unchanged(&before, "a signal after the change");
        assert_no_record(&node);
        snapshots.compare("checks-interrupted-after", &outcome);
        snapshots.conclude();
    });
}

/// The plan is the same with and without checks, and does not run them.
#[test]
fn a_plan_does_not_depend_on_checks() {
    each(|privilege| {
        let (node, _router) = node_with_router(privilege);
        let plans = |node: &Namespace| {
            [vec!["plan"], vec!["plan", "--json"]].map(|verb| {
                let plan = node.hostgw_ok(&verb);
                (plan.stdout, plan.stderr)
            })
        };
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        let without = plans(&node);
        node.write("hostgw.yaml", &checked(&["neighbor: 172.30.0.77", "tcp: 172.30.0.1:9"]));
        assert_eq!(plans(&node), without);
        assert_eq!(node.run(["ip", "neigh", "show", "172.30.0.77"]), "");
    });
}
