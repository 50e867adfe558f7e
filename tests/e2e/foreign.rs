//! Foreign objects never change: they are the same byte for byte, whatever hostgw does.

use super::{NODE_1, NODE_2, NODE_3, cluster, node};
use crate::support::namespace::{Namespace, Privilege, each};

/// More than fifty routes, foreign rule sets of both tools, and changed sysctls.
const FOREIGN: &str = r#"
    ip address add 172.30.0.111/24 dev eth0
    for i in $(seq 1 40); do ip route add 10.99.$i.0/24 via 172.30.0.$i metric $i proto $((i % 20 + 2)); done
    ip route add 10.98.1.0/24 dev eth0 scope link
    ip route add blackhole 10.98.2.0/24
    ip route add unreachable 10.98.3.0/24 metric 7
    ip route add prohibit 10.98.4.0/24 table 100
    ip route add 10.98.5.0/24 nexthop via 172.30.0.1 dev eth0 weight 1 nexthop via 172.30.0.2 dev eth0 weight 3
    ip route add 10.98.6.0/24 via 172.30.0.1 mtu lock 1400 advmss 1300
    ip route add 10.98.7.0/24 via 172.30.0.1 src 172.30.0.111
    ip route add 10.98.8.0/24 via 192.0.2.1 dev eth0 onlink
    ip route add 10.98.9.0/24 via 172.30.0.1 table 4000 proto bird
    ip route add 10.98.10.0/24 via 172.30.0.1 tos 0x10
    ip route add 10.98.11.0/24 via 172.30.0.1
    ip route append 10.98.11.0/24 via 172.30.0.2
    ip route add 10.244.77.0/24 via 172.30.0.1 metric 500
    ip route add default via 172.30.0.1
    ip -6 address add fd00:1::11/64 dev eth0
    ip -6 route add fd00:2::/64 via fd00:1::1 metric 50 proto 42
    ip -6 route add blackhole fd00:3::/64
    ip -6 route add fd00:4::/64 nexthop via fd00:1::1 dev eth0 nexthop via fd00:1::2 dev eth0
    ip rule add from 10.98.0.0/16 lookup 100
    ip link add other0 type veth peer name other0.100
    ip nexthop add id 7 via 172.30.0.1 dev eth0 proto bird
    ip route add 10.98.12.0/24 nhid 7
    nft -f - <<'END'
    table inet somebody {
        set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
        map ports { type inet_service : verdict; elements = { 22 : accept, 23 : drop } }
        chain input {
            type filter hook input priority filter; policy accept;
            ip saddr @blocked drop
            tcp dport vmap @ports
        }
    }
    table ip other_nat {
        chain post {
            type nat hook postrouting priority 50;
            ip saddr 192.0.2.0/24 masquerade
        }
    }
END
    iptables -t nat -A POSTROUTING -s 10.99.0.0/16 -m comment --comment "not hostgw's" -j MASQUERADE
    iptables -A FORWARD -d 192.0.2.9 -j DROP
    echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding
    echo 1 >/proc/sys/net/ipv4/conf/default/forwarding
    echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects
    echo 1 >/proc/sys/net/ipv4/conf/other0.100/forwarding
    echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter
    echo 1 >/proc/sys/net/ipv6/conf/eth0/forwarding
"#;

/// A node with many foreign objects, and its state as other tools print it.
fn crowded(privilege: Privilege) -> (Namespace, String) {
    let node = node(privilege);
    node.sh(FOREIGN);
    node.await_ipv6_addresses();
    let before = node.witness();
    (node, before)
}

/// Asserts that all foreign objects are unchanged while managed ones exist, too.
#[track_caller]
fn assert_routes_kept(node: &Namespace, before: &str) {
    let now = node.witness();
    let is_route =
        |line: &&str| line.contains("10.98.") || line.contains("10.99.") || line.contains("10.244.77.");
    let of = |text: &str| text.lines().filter(is_route).map(ToOwned::to_owned).collect::<Vec<_>>();
    assert_eq!(of(&now), of(before));
}

#[test]
fn destroy_restores_the_state_from_before_the_first_apply() {
    each(|privilege| {
        let (node, before) = crowded(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        assert_routes_kept(&node, &before);
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "apply and destroy");
    });
}

#[test]
fn rollback_restores_the_state_from_before_the_apply() {
    each(|privilege| {
        let (node, before) = crowded(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "apply and rollback");
    });
}

#[test]
fn destroy_after_two_applies_restores_the_state_from_before_the_first() {
    each(|privilege| {
        let (node, before) = crowded(privilege);
        let first = "sysctls:\n  net.ipv4.conf.all.rp_filter: 2\n  net.ipv4.conf.eth0.rp_filter: 0";
        node.write("hostgw.yaml", &cluster(first, &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        let second = "nextHop: node-address\nsysctls:\n  net.ipv4.conf.eth0.rp_filter: 1";
        node.write("hostgw.yaml", &cluster(second, &[NODE_1, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        assert_eq!(node.managed_routes(), ["10.244.2.0/24 via 172.30.0.13 dev eth0"]);
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "two applies and destroy");
    });
}

/// The sysctl is written last. The kernel rejects its value, and everything before it is undone.
#[test]
fn a_failed_apply_restores_the_previous_state() {
    each(|privilege| {
        let (node, before) = crowded(privilege);
        node.write("hostgw.yaml", &cluster("sysctls:\n  net.ipv4.ip_default_ttl: 0", &[NODE_1, NODE_2]));
        node.hostgw(&["apply", "--yes"]).expect(6).warns("net.ipv4.ip_default_ttl").warns("Rolled back");
        node.assert_unchanged(&before, "a failed apply");
        super::assert_no_record(&node);
    });
}

#[test]
fn destroy_without_an_apply_changes_nothing() {
    each(|privilege| {
        let (node, before) = crowded(privilege);
        node.hostgw_ok(&["destroy", "--yes"]).says("Nothing to do");
        node.assert_unchanged(&before, "destroy");
    });
}
