//! Plans during constant changes: dumps are interrupted and repeated.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::node;
use crate::support::namespace::{Namespace, each};

/// Changes foreign interfaces, addresses, routes and rules until it is dropped.
struct Churn(Child);

impl Churn {
    fn over(node: &Namespace) -> Self {
        node.write(
            "storm.sh",
            "while :; do
                 ip link add storm0 type bridge; ip address add 198.51.100.1/24 dev storm0; ip link set storm0 up
                 ip route add 203.0.113.0/24 via 172.30.0.9; nft add table ip storm
                 ip route del 203.0.113.0/24; ip link del storm0; nft delete table ip storm
                 echo
             done",
        );
        let child = node.command("sh").arg("storm.sh").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("sh"))
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With enough routes and interfaces for dumps of many parts, existing objects are never missed, and transient ones do
/// no harm.
#[test]
fn a_plan_during_constant_changes_is_complete() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("for i in $(seq 60); do echo link add other$i type bridge; done | ip -batch -");
        let mut text = String::from("clusterPrefix: 10.64.0.0/10\negressInterface: eth0\nnodes:\n");
        for i in 0..2000 {
            let cidr = format!("10.{}.{}.0/24", 64 + i / 256, i % 256);
            text.push_str(&format!("  - {{ name: linux-{i}, os: linux, podCIDR: {cidr} }}\n"));
        }
        node.write("hostgw.yaml", &text.replacen("{ name: linux-0,", "{ name: machine,", 1));
        node.hostgw_ok(&["apply", "--yes"]);
        let churn = Churn::over(&node);
        let end = Instant::now() + Duration::from_secs(4);
        let mut plans = 0;
        while plans < 10 || Instant::now() < end {
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
            plans += 1;
        }
        node.sh("ip route del 10.64.77.0/24");
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(2).says("1 to add, 0 to update, 0 to remove");
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        drop(churn);
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(2).says("1 to add, 0 to update, 0 to remove");
    });
}
