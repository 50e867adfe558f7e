//! Regressions: bugs that were found by review or by experiments, each with a test that failed before the fix.

use super::{NODE_1, NODE_2, RECIPE, apply, assert_no_record, cluster, node, settled};
use crate::support::namespace::each;

/// One foreign route whose interface no longer existed made a rollback, and every later apply, undo nothing else.
#[test]
fn an_unrestorable_object_does_not_prevent_the_rest() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add eth1 type veth peer name lan1; ip link set eth1 up; ip link set lan1 up
                 ip route add 10.244.1.0/24 dev eth1 proto static");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip link del eth1");
        let outcome = node.hostgw(&["rollback", "--yes"]).expect(7);
        outcome
            .warns("interface eth1 does not exist")
            .warns("ip route append 10.244.1.0/24 dev eth1 proto static scope link");
        assert_eq!(node.managed_routes(), ["10.244.1.0/24 via 10.244.1.1 dev eth0"]);
        assert_eq!(node.look("nft list tables"), "");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
        node.hostgw(&["rollback", "--yes"]).expect(7);
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]).warns("not restored");
        assert!(node.managed_routes().is_empty(), "{:?}", node.managed_routes());
        apply(&node, RECIPE);
    });
}

/// The kernel rejects link states that it prints itself, so a multipath route with a dead next hop could not be
/// restored.
#[test]
fn a_multipath_route_with_a_dead_next_hop_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add eth1 type veth peer name lan1; ip link set eth1 up; ip link set lan1 up
                 ip address add 172.31.0.11/24 dev eth1
                 ip route add 10.244.1.0/24 proto static nexthop via 172.30.0.1 dev eth0 nexthop via 172.31.0.1 dev eth1");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.sh("ip link set lan1 down");
        node.hostgw_ok(&["rollback", "--yes"]);
        let route = node.look("ip route show 10.244.1.0/24");
        assert!(route.contains("172.30.0.1") && route.contains("172.31.0.1"), "{route}");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]);
        node.hostgw_ok(&["rollback", "--yes"]);
    });
}

/// A pod CIDR inside the nodes' own network was applied, and made the router unreachable.
#[test]
fn a_pod_cidr_must_not_overlap_the_nodes_network() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add default via 172.30.0.254 dev eth0");
        let before = node.witness();
        node.write(
            "hostgw.yaml",
            "clusterPrefix: 172.30.0.0/16
egressInterface: eth0
nodes:
  - {name: a, os: linux, podCIDR: 172.30.4.0/24}
  - {name: b, os: linux, podCIDR: 172.30.0.128/25}
",
        );
        let outcome = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(3);
        outcome.warns("172.30.0.128/25 would cut the node off: it contains 172.30.0.254, this node's router");
        node.assert_unchanged(&before, "a refused apply");
        node.sh("ip route replace default via 10.2.0.9 dev eth0 onlink");
        let before = node.witness();
        let elsewhere = "clusterPrefix: 10.0.0.0/8
egressInterface: eth0
nodes:
  - {name: a, os: linux, podCIDR: 10.1.0.0/24}
  - {name: b, os: linux, podCIDR: 10.2.0.0/24}
";
        node.write("hostgw.yaml", elsewhere);
        let outcome = node.hostgw(&["apply", "--yes", "--node", "a"]).expect(3);
        outcome.warns("10.2.0.0/24 would cut the node off: it contains 10.2.0.9, this node's router");
        node.assert_unchanged(&before, "a refused apply");
        assert_no_record(&node);
    });
}

/// When IPv6 forwarding is enabled, the kernel drops the default route from router advertisements, and no rollback
/// restores it.
#[test]
fn a_default_route_from_router_advertisements_is_not_lost() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip -6 address add 2001:db8::11/64 dev eth0 nodad
                 ip -6 route add default via fe80::99 dev eth0 proto ra");
        node.wait_until("the kernel has added the address's own route", || {
            !node.look("ip -6 route show table local 2001:db8::11").is_empty()
        });
        let before = node.witness();
        let dual = |sysctls: &str| {
            format!(
                "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
{sysctls}
nodes:
  - {{name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}}
  - {{name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, '2001:db8::12']}}
"
            )
        };
        node.write("hostgw.yaml", &dual(""));
        node.hostgw(&["apply", "--yes"])
            .expect(3)
            .warns("add `net.ipv6.conf.eth0.accept_ra: 2` under sysctls");
        node.assert_unchanged(&before, "a refused apply");
        apply(&node, &dual("sysctls: {net.ipv6.conf.eth0.accept_ra: 2}"));
        assert!(node.look("ip -6 route show default").contains("fe80::99"));
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "apply and destroy");
    });
}

/// A saved value that was already restored was kept, and later overwrote a foreign value.
#[test]
fn a_saved_value_is_not_restored_twice() {
    each(|privilege| {
        let node = node(privilege);
        apply(&node, RECIPE);
        node.sh("ip route flush proto 87; nft delete table ip hostgw; echo 0 >/proc/sys/net/ipv4/ip_forward");
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");
        node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");
        assert_eq!(node.sysctl("net.ipv4.ip_forward"), "1");

        let key = "net.ipv4.conf.all.rp_filter";
        node.sh("echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter");
        apply(&node, &format!("sysctls: {{{key}: 2}}\n{RECIPE}"));
        node.sh("echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter");
        apply(&node, RECIPE);
        node.sh("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter");
        settled(&node);
        assert_eq!(node.sysctl(key), "1");
    });
}

/// Keys of `net.ipv6.conf.all` rewrite those of every interface, which a rollback did not restore.
#[test]
fn ipv6_switches_are_restored_on_every_interface() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("echo 1 >/proc/sys/net/ipv6/conf/lan0/ignore_routes_with_linkdown");
        let before = node.witness();
        let all = "net.ipv6.conf.all.ignore_routes_with_linkdown";
        apply(&node, &format!("sysctls: {{{all}: 1}}\n{RECIPE}"));
        apply(&node, &format!("sysctls: {{{all}: 0}}\n{RECIPE}"));
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "two applies and destroy");
        node.write("hostgw.yaml", &format!("sysctls: {{net.ipv6.conf.all.disable_ipv6: 1}}\n{RECIPE}"));
        node.hostgw(&["apply", "--yes"]).expect(3).warns("it removes addresses");
    });
}

/// A rollback that could not begin reopened the committed transaction, and the next apply undid it.
#[test]
fn a_rollback_that_cannot_begin_leaves_the_apply_in_effect() {
    each(|privilege| {
        let node = node(privilege);
        apply(&node, RECIPE);
        let live = node.witness();
        let refused =
            node.try_sh("setpriv --bounding-set -net_admin --inh-caps -net_admin \"$HOSTGW\" rollback --yes");
        assert_eq!(refused.code, 9, "{}", refused.stderr);
        node.assert_unchanged(&live, "a refused rollback");
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        assert!(node.managed_routes().is_empty());
    });
}

/// An unreadable journal was overwritten by `destroy`, which made a rollback impossible.
#[test]
fn a_damaged_journal_is_never_overwritten() {
    each(|privilege| {
        let node = node(privilege);
        apply(&node, &cluster("", &[NODE_1, NODE_2]));
        let journal = node.state_dir().expect("a state directory").join("journal.json");
        node.sh(&format!("printf %s '{{\"format\":1,' >{}", journal.display()));
        for verb in ["apply", "destroy", "rollback"] {
            node.hostgw(&[verb, "--yes"]).expect(1).warns("journal.json: unexpected end of file");
            assert_eq!(std::fs::read_to_string(&journal).expect("there"), "{\"format\":1,");
        }
        assert_eq!(node.managed_routes().len(), 2);
    });
}

/// Abandoning a sysctl that could not be restored also removed its saved value, so destroy could not restore it,
/// either.
#[test]
fn destroy_restores_an_abandoned_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        apply(&node, RECIPE);
        let read_only = node.try_sh(
            "unshare -m sh -ec 'mount --rbind /proc/sys /proc/sys
                 mount -o remount,ro,bind,nosuid,nodev,noexec /proc/sys
                 exec \"$HOSTGW\" rollback --yes --abandon'",
        );
        read_only.expect(0).warns("not restored: net.ipv4.ip_forward = 0");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "an abandoned rollback and destroy");
    });
}

/// `--adopt` adopted a route that the kernel derives from an address of the node: the node's own pods were routed to
/// the egress interface, and destroy could not restore it.
#[test]
fn a_network_of_the_node_is_never_adopted() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.0.1/16 dev cni0");
        let before = node.witness();
        node.hostgw(&["apply", "--yes", "--adopt"]).expect(10);
        node.assert_unchanged(&before, "a refused apply");
    });
}

/// A pod CIDR inside another interface's network silently captured its addresses.
#[test]
fn a_plan_that_captures_addresses_of_another_network_warns() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add eth1 type veth peer name lan1; ip link set eth1 up; ip link set lan1 up
                 ip address add 10.244.1.50/20 dev eth1");
        node.hostgw(&["plan"]).expect(0).says("10.244.1.0/24 is part of 10.244.0.0/20, the network of eth1");
    });
}

/// A rollback offered to restore a set that it cannot write, and then could not be completed.
#[test]
fn a_rollback_that_cannot_complete_is_refused_before_it_begins() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("nft add table ip hostgw; nft add set ip hostgw foo '{ type ipv4_addr; }'");
        node.hostgw_ok(&["apply", "--yes", "--adopt"]).says("no rollback can restore set foo");
        let live = node.witness();
        node.hostgw(&["rollback", "--yes"]).expect(10).warns("set foo cannot be restored");
        node.assert_unchanged(&live, "a refused rollback");
        node.hostgw_ok(&["rollback", "--yes", "--abandon"]).warns("not restored");
        assert!(node.managed_routes().is_empty());
        apply(&node, RECIPE);
    });
}
