//! A large apply, killed repeatedly at random points: the node always has its previous or its planned state.

use std::{
    os::unix::process::ExitStatusExt,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::Rng;

use super::{is_open, large_cluster, live, node};
use crate::support::{
    namespace::{Namespace, Privilege, is_root},
    random::{new_seed, random, requested_seed},
};

/// Enough nodes for an apply to take a while.
const NODES: usize = 5000;
const KILLS: usize = 200;

/// A node of a large cluster, with drift for an undo to restore.
fn large() -> Namespace {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    node.sh("ip route add 10.99.0.0/16 via 172.30.0.1
             ip route add 10.64.5.0/24 via 172.30.0.1 dev eth0 proto 87
             echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding
             echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects");
    node.write("hostgw.yaml", &large_cluster(NODES));
    node
}

/// When to kill an apply.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// This long after it began to write.
    After(Duration),
    /// At a point of fault injection.
    At(u64),
}

/// Runs an apply and returns its exit code.
fn apply(node: &Namespace, kill: Option<Kill>) -> i32 {
    let mut command = node.hostgw_command(&["apply", "--yes", "--node", "linux-0"]);
    if let Some(Kill::At(point)) = kill {
        command.env("HOSTGW_FAULT", format!("kill:{point}"));
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("hostgw");
    if let Some(Kill::After(delay)) = kill {
        let mut has_ended = || child.try_wait().expect("our child").is_some();
        node.wait_until("the journal", || is_open(node) || has_ended());
        thread::sleep(delay);
        child.kill().expect("our child");
    }
    let status = child.wait().expect("our child");
    status.code().or(status.signal().map(|signal| 128 + signal)).expect("an end")
}

/// After a kill, the node has its previous or its planned state, or reports an interrupted apply. In that case a
/// rollback restores the node, or the next apply does, which is killed as well.
///
/// `HOSTGW_SEED` sets the random seed, which a failure prints.
#[test]
fn random_kills_of_a_large_apply_leave_the_previous_or_the_planned_state() {
    let node = large();
    let before = live(&node);
    let start = Instant::now();
    assert_eq!(apply(&node, None), 0);
    let duration = u64::try_from(start.elapsed().as_millis()).expect("a short time");
    let after = live(&node);
    node.hostgw_ok(&["rollback", "--yes"]);
    assert!(live(&node) == before, "not as before, after an apply and a rollback");

    let seed = requested_seed().unwrap_or_else(new_seed);
    let mut random = random(seed);
    let (mut kills, mut killed_midway) = (0, 0);
    while kills < KILLS {
        let kill = if cfg!(feature = "fault-injection") && random.next_u32().is_multiple_of(2) {
            // Around the points where it writes, of which there are more than a hundred.
            Kill::At(30 + random.next_u64() % 80)
        } else {
            Kill::After(Duration::from_millis(random.next_u64() % duration))
        };
        let context = format!("HOSTGW_SEED={seed}, {kills} kills, then {kill:?}");
        let code = apply(&node, Some(kill));
        assert!([0, 137].contains(&code), "{context}: exit code {code}");
        kills += usize::from(code == 137);
        if is_open(&node) {
            killed_midway += usize::from((2..NODES).contains(&node.managed_routes().len()));
            if random.next_u32().is_multiple_of(2) {
                continue;
            }
        } else {
            let now = live(&node);
            assert!(now == before || now == after, "{context}: neither before nor after");
            if now == before {
                continue;
            }
        }
        node.hostgw_ok(&["rollback", "--yes"]);
        assert!(live(&node) == before, "{context}: not as before, after a rollback");
    }
    assert!(killed_midway > KILLS / 5, "HOSTGW_SEED={seed}: only {killed_midway} were killed midway");
    assert_eq!(apply(&node, None), 0);
    assert!(live(&node) == after, "HOSTGW_SEED={seed}: not as planned, after an apply that was not killed");
}
