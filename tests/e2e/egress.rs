//! The egress interface of a node: found by its address, by an alternative name, and refused where it carries no packets.

use super::{NODE_1, NODE_2, NODE_3, cluster, node, settled};
use crate::support::namespace::{Namespace, Privilege, each};

/// A configuration that leaves the interfaces to the nodes.
fn unnamed() -> String {
    cluster("", &[NODE_1, NODE_2, NODE_3]).replace("egressInterface: eth0\n", "")
}

fn named(interface: &str) -> String {
    cluster("", &[NODE_1, NODE_2, NODE_3]).replace("eth0", interface)
}

/// What hostgw could change. The kernel adds IPv6 routes to a new interface some time later.
fn live(node: &Namespace) -> String {
    let state = super::live(node);
    state.lines().filter(|line| !line.contains("::")).map(|line| format!("{line}\n")).collect()
}

fn script(node: &Namespace, options: &str) -> crate::support::namespace::Outcome {
    node.write("node.sh", &node.hostgw_ok(&["render", "--node", "linux-1"]).stdout);
    node.try_sh(&format!("HOSTGW_STATE_DIR=$PWD/scripts sh node.sh {options}"))
}

/// A command and a script lead to the state that `by_name` leads to, and back.
fn same_as_named(privilege: Privilege, configuration: &str, by_name: &str, prepare: &str) {
    let node = node(privilege);
    node.sh(prepare);
    let before = live(&node);
    node.write("hostgw.yaml", by_name);
    node.hostgw_ok(&["apply", "--yes"]);
    let wanted = live(&node);
    node.write("hostgw.yaml", configuration);
    node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    node.hostgw_ok(&["destroy", "--yes"]);
    assert_eq!(live(&node), before);
    node.hostgw_ok(&["apply", "--yes"]);
    assert_eq!(live(&node), wanted);
    settled(&node);
    node.hostgw(&["status", "--detailed-exitcode"]).expect(0);
    node.write("snapshot.json", &node.hostgw_ok(&["snapshot"]).stdout);
    node.hostgw(&["plan", "--state", "snapshot.json", "--detailed-exitcode"]).expect(0).says("No changes");
    node.sh("ip route del 10.244.1.0/24");
    node.hostgw(&["plan"]).expect(0).says("drift: pods of node linux-2");
    node.hostgw_ok(&["rollback", "--yes"]);
    assert_eq!(live(&node), before);
    script(&node, "").expect(0);
    assert_eq!(live(&node), wanted);
    node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    script(&node, "--undo").expect(0);
    assert_eq!(live(&node), before);
}

#[test]
fn the_interface_with_the_nodes_address_is_found() {
    each(|privilege| {
        same_as_named(privilege, &unnamed(), &named("eth0"), ":");
        let odd = "ip link set eth0 down; ip link set eth0 name 'e+0&.5'; ip link set 'e+0&.5' up";
        same_as_named(privilege, &unnamed(), &named("\"e+0&.5\""), odd);
    });
}

#[test]
fn an_alternative_name_will_do() {
    each(|privilege| {
        let altname = "enp0s31f6-a-name-with-more-than-15-bytes";
        let prepare = format!("ip link property add dev eth0 altname {altname}");
        same_as_named(privilege, &named(altname), &named("eth0"), &prepare);
    });
}

/// A port hands what it receives to its master, so no reply arrives there.
#[test]
fn a_port_is_refused_and_its_master_named() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &named("eth0"));
        node.sh("ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0");
        let before = live(&node);
        let refused = "egress interface eth0 is a port of the bridge br0";
        node.hostgw(&["apply", "--yes"]).expect(3).warns(refused);
        node.hostgw(&["plan"]).expect(3).warns(refused);
        node.write("hostgw.yaml", &unnamed());
        node.hostgw(&["apply", "--yes"]).expect(3).warns(refused);
        script(&node, "").expect(3).warns("the interface eth0 is a port of br0");
        assert_eq!(live(&node), before);
        node.sh("ip address flush dev eth0; ip address add 172.30.0.11/24 dev br0");
        node.write("hostgw.yaml", &named("eth0"));
        node.hostgw(&["apply", "--yes"]).expect(3).warns("set egressInterface: br0");
        node.write("hostgw.yaml", &unnamed());
        node.hostgw_ok(&["apply", "--yes"]);
        assert!(live(&node).contains("10.244.1.0/24 via 10.244.1.1 dev br0 proto 87"), "{}", live(&node));
    });
}

#[test]
fn an_address_that_tells_no_interface_is_an_error() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &unnamed());
        for (prepare, error, of_script) in [
            (
                "ip address del 172.30.0.11/24 dev eth0",
                "cannot find the egress interface: no local interface has 172.30.0.11 (node linux-1)",
                "no interface has an address of node linux-1 (172.30.0.11)",
            ),
            (
                "ip address add 172.30.0.11/32 dev lo",
                "172.30.0.11 (node linux-1) is assigned to lo",
                "172.30.0.11 is assigned to lo",
            ),
            (
                "ip address add 172.30.0.11/24 dev eth0",
                "cannot find the egress interface: several interfaces have 172.30.0.11 (node linux-1): eth0, lo",
                "several interfaces have addresses of node linux-1 (172.30.0.11)",
            ),
        ] {
            node.sh(prepare);
            let before = live(&node);
            node.hostgw(&["apply", "--yes", "--node", "linux-1"]).expect(3).warns(error);
            script(&node, "").expect(3).warns(of_script);
            assert_eq!(live(&node), before);
        }
        let routes = node.hostgw(&["render", "--node", "linux-1", "--persist", "ifupdown"]);
        routes.expect(3).warns("the configuration does not name the egress interface of node linux-1");
        node.hostgw_ok(&["render", "--node", "linux-1", "--persist", "nftables"]);
        let diff = node.hostgw_ok(&["plan", "--all-nodes"]);
        diff.says("dev (found by node address) on linux-1, linux-2, linux-3");
    });
}
