//! What `hostgw doctor` finds, and what it must not find.

use std::sync::Mutex;

use super::{NODE_1, NODE_2, NODE_3, cluster, paths::node_with_pods};
use crate::support::namespace::{Namespace, Privilege, Snapshots, each};

/// The node linux-1 of a cluster of three, with the bridge of its pods and everything applied.
pub fn healthy_node(privilege: Privilege) -> Namespace {
    let node = node_with_pods(privilege);
    node.hostgw_ok(&["apply", "--yes"]);
    node
}

const RECIPE_RULE: &str =
    "iptables-nft -t nat -A POSTROUTING ! -d 10.244.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE";

/// What is wrong with the node, what else the configuration says, and what cures it.
const DISEASES: [(&str, &str, &str, &str); 58] = [
    ("not-applied", "ip route del 10.244.1.0/24", "", "\"$HOSTGW\" apply --yes"),
    ("conflict", "ip route replace 10.244.1.0/24 via 172.30.0.77", "", "ip route del 10.244.1.0/24; \"$HOSTGW\" apply --yes"),
    ("forwarding", "sysctl -qw net.ipv4.conf.cni0.forwarding=0", "", "sysctl -qw net.ipv4.conf.cni0.forwarding=1"),
    ("policy", "iptables-nft -P FORWARD DROP", "", "iptables-nft -P FORWARD ACCEPT"),
    (
        "established-only",
        "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -j REJECT",
        "",
        "iptables-nft -I FORWARD -i cni0 -o eth0 -j ACCEPT; iptables-nft -I FORWARD -s 10.244.0.0/16 -d 10.244.0.0/24 -j ACCEPT
         iptables-nft -I FORWARD -s 172.30.0.0/24 -d 10.244.0.0/24 -j ACCEPT",
    ),
    (
        "inet",
        "nft add table inet fw; nft 'add chain inet fw forward { type filter hook forward priority 10; policy drop; }'
         nft add rule inet fw forward ct state established,related accept
         nft add rule inet fw forward iifname eth0 oifname cni0 ip saddr 10.244.0.0/16 accept",
        "",
        "nft add rule inet fw forward iifname cni0 accept
         nft add rule inet fw forward ip saddr 172.30.0.0/24 ip daddr 10.244.0.0/24 accept",
    ),
    (
        "unclear",
        "nft add table ip fw; nft 'add set ip fw friends { type ipv4_addr; }'
         nft 'add chain ip fw forward { type filter hook forward priority 10; policy drop; }'
         nft add rule ip fw forward ip saddr @friends accept",
        "",
        "nft delete table ip fw",
    ),
    (
        "nested",
        "nft add table ip fw; nft add chain ip fw inner; nft add rule ip fw inner ip daddr 10.244.1.0/24 drop
         nft 'add chain ip fw forward { type filter hook forward priority 10; }'; nft add rule ip fw forward jump inner",
        "",
        "nft delete table ip fw",
    ),
    (
        "recipe-exclude",
        RECIPE_RULE,
        "nat: {exclude: [192.168.0.0/16]}",
        "iptables -t nat -D POSTROUTING ! -d 10.244.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE",
    ),
    (
        "recipe-no-masquerade",
        RECIPE_RULE,
        "nat: {masquerade: false}",
        "iptables -t nat -D POSTROUTING ! -d 10.244.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE",
    ),
    (
        "ip-masq",
        "iptables-nft -t nat -N CNI-1; iptables-nft -t nat -A CNI-1 -d 10.244.0.0/24 -j ACCEPT
         iptables-nft -t nat -A CNI-1 ! -d 224.0.0.0/4 -j MASQUERADE
         iptables-nft -t nat -A POSTROUTING -s 10.244.0.0/24 -m comment --comment 'name: \"bridge\"' -j CNI-1",
        "",
        "iptables-nft -t nat -F POSTROUTING",
    ),
    (
        "raw",
        "iptables-nft -t raw -A PREROUTING -s 10.244.2.0/24 -d 10.244.0.0/24 -j DROP",
        "",
        "iptables-nft -t raw -F PREROUTING",
    ),
    (
        "mangle",
        "iptables-nft -t mangle -A POSTROUTING -o eth0 -d 10.244.1.0/24 -j DROP",
        "",
        "iptables-nft -t mangle -F POSTROUTING",
    ),
    (
        "snat",
        "nft add table inet extra; nft 'add chain inet extra post { type nat hook postrouting priority 110; }'
         nft add rule inet extra post ip saddr 10.244.0.0/16 oifname eth0 snat ip to 172.30.0.11",
        "",
        "nft delete table inet extra",
    ),
    (
        "set",
        "nft add table inet fw; nft 'add chain inet fw forward { type filter hook forward priority 10; }'
         nft 'add rule inet fw forward iifname { \"cni0\", \"docker0\" } ip daddr { 10.244.0.0-10.244.1.255, 10.96.0.0/12 } drop'",
        "",
        "nft delete table inet fw",
    ),
    (
        "vmap",
        "nft add table inet fw; nft 'add chain inet fw cni'; nft add rule inet fw cni meta nfproto ipv4 ip daddr 10.244.2.0/24 drop
         nft 'add chain inet fw forward { type filter hook forward priority 10; policy drop; }'
         nft 'add rule inet fw forward ct state vmap { established : accept, related : accept, invalid : drop }'
         nft 'add rule inet fw forward iifname vmap { \"cni0\" : jump cni, \"wg0\" : drop }'
         nft 'add rule inet fw forward iifname { \"cni0\", \"eth0\" } accept'",
        "",
        "nft flush chain inet fw cni",
    ),
    (
        "replies",
        "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m conntrack --ctstate NEW -j ACCEPT",
        "",
        "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ),
    (
        "extension",
        "iptables-nft -A FORWARD -m addrtype --src-type UNICAST --limit-iface-in -j DROP",
        "",
        "iptables-nft -F FORWARD",
    ),
    (
        "ports",
        "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -p tcp --dport 443 -j ACCEPT",
        "",
        "iptables-nft -P FORWARD ACCEPT",
    ),
    (
        "untracked",
        "nft add table ip fw; nft 'add chain ip fw pre { type filter hook prerouting priority -300; }'; nft add rule ip fw pre notrack
         nft 'add chain ip fw forward { type filter hook forward priority 10; policy drop; }'
         nft add rule ip fw forward ct state established,related,new accept",
        "",
        "nft add rule ip fw forward ct state untracked accept",
    ),
    (
        "prerouting-policy",
        "nft add table ip fw; nft 'add chain ip fw pre { type filter hook prerouting priority -200; policy drop; }'
         nft add rule ip fw pre oifname cni0 accept; nft add rule ip fw pre ip saddr 10.244.1.0/24 accept
         nft add rule ip fw pre ip saddr 10.244.2.0/24 accept",
        "",
        "nft insert rule ip fw pre iifname cni0 ip daddr 10.244.0.0/24 accept
         nft insert rule ip fw pre iifname cni0 ip daddr 10.244.1.0/24 accept
         nft insert rule ip fw pre iifname cni0 ip daddr 10.244.2.0/24 accept
         nft insert rule ip fw pre iifname cni0 ip daddr 172.30.0.0/24 accept; nft insert rule ip fw pre ip saddr 172.30.0.0/24 accept",
    ),
    (
        "rule-part",
        "ip rule add to 10.244.1.128/25 blackhole pref 77",
        "",
        "ip rule del priority 77 from all to 10.244.1.128/25 blackhole",
    ),
    (
        "rule-priority-0",
        "ip rule add iif cni0 unreachable pref 0",
        "",
        "ip rule del priority 0 from all iif cni0 unreachable",
    ),
    (
        "hairpin",
        "ip route add 10.244.1.0/25 via 10.244.0.77 dev cni0",
        "",
        "ip route del 10.244.1.0/25 via 10.244.0.77",
    ),
    ("arp", "sysctl -qw net.ipv4.conf.eth0.arp_ignore=2", "", "sysctl -qw net.ipv4.conf.eth0.arp_ignore=0"),
    (
        "silent",
        "ip neigh replace 10.244.1.1 dev eth0 nud failed",
        "",
        "ip neigh flush dev eth0 nud failed",
    ),
    ("stray", "ip route add 10.244.9.0/24 via 172.30.0.19", "", "ip route del 10.244.9.0/24"),
    (
        "other-network",
        "ip link add virbr0 type bridge; ip address add 192.168.50.1/24 dev virbr0; ip link set virbr0 up",
        "",
        "ip link del virbr0",
    ),
    ("port", "ip link add vmbr0 type bridge; ip link set vmbr0 up; ip link set eth0 master vmbr0", "", "ip link set eth0 nomaster"),
    (
        "flannel",
        "ip link add flannel.1 type bridge; ip link set flannel.1 up; ip route add 10.244.2.0/24 dev flannel.1 metric 5000
         iptables-nft -N FLANNEL-FWD; iptables-nft -A FORWARD -j FLANNEL-FWD",
        "",
        "ip link del flannel.1",
    ),
    (
        "netdev",
        "nft add table netdev fw; nft 'add chain netdev fw in { type filter hook ingress device eth0 priority 0; }'
         nft add rule netdev fw in ip saddr 10.244.1.0/24 drop",
        "",
        "nft delete table netdev fw",
    ),
    (
        "ingress",
        "nft add table inet fw; nft 'add chain inet fw in { type filter hook ingress device eth0 priority 0; policy drop; }'",
        "",
        "nft delete table inet fw",
    ),
    (
        "bridge",
        "nft add table bridge fw; nft 'add chain bridge fw f { type filter hook input priority 0; }'
         nft add rule bridge fw f ip daddr 10.244.1.0/24 drop",
        "",
        "nft delete table bridge fw",
    ),
    (
        "arp-table",
        "nft add table arp fw; nft 'add chain arp fw in { type filter hook input priority 0; policy drop; }'",
        "",
        "nft delete table arp fw",
    ),
    (
        "marked",
        "iptables-nft -t mangle -A PREROUTING -i cni0 -d 10.244.1.0/24 -j MARK --set-mark 7; ip rule add fwmark 7 lookup 107",
        "",
        "ip rule del fwmark 7 lookup 107",
    ),
    (
        "gateway",
        "ip address flush dev cni0; ip address add 10.244.0.254/24 dev cni0",
        "",
        "ip address flush dev cni0; ip address add 10.244.0.1/24 dev cni0",
    ),
    (
        "host-routes",
        "ip link add cali1 type veth peer name pod1; ip link set cali1 up; ip link set pod1 up
         ip route add 10.244.0.9 dev cali1; ip link del cni0",
        "nat: {masquerade: true}",
        "sysctl -qw net.ipv4.conf.eth0.proxy_arp=1",
    ),
    ("kube-router", "ip route add 10.244.1.0/24 via 172.30.0.12 proto 17 metric 9", "", "ip route del 10.244.1.0/24 proto 17"),
    ("mtu", "ip link set eth0 mtu 1400", "", "ip link set eth0 mtu 1500"),
    (
        "rule-users",
        "ip rule add uidrange 0-0 blackhole pref 100",
        "",
        "ip rule del priority 100 from all uidrange 0-0 blackhole",
    ),
    (
        "rule-protocol",
        "ip rule add from 10.244.0.0/24 ipproto tcp blackhole pref 100; ip rule add ipproto udp dport 53 blackhole pref 101",
        "",
        "ip rule del priority 100 from 10.244.0.0/24 ipproto tcp blackhole",
    ),
    ("arp-off", "ip link set eth0 arp off", "", "ip link set eth0 arp on"),
    (
        "arp-filter",
        "sysctl -qw net.ipv4.conf.all.arp_filter=1; ip rule add from 10.244.0.1 lookup 55 pref 44; ip route add default dev cni0 table 55",
        "",
        "sysctl -w net.ipv4.conf.all.arp_filter=0",
    ),
    (
        "default-gateway",
        "ip route add default nexthop via 172.30.0.1 dev eth0 nexthop via 172.30.0.2 dev eth0
         ip neigh replace 172.30.0.2 dev eth0 nud failed",
        "",
        "ip route replace default via 172.30.0.1 dev eth0",
    ),
    (
        "multipath",
        "ip route add 10.244.1.0/28 nexthop via 172.30.0.1 dev eth0 nexthop via 172.30.0.12 dev eth0",
        "",
        "ip route del 10.244.1.0/28",
    ),
    (
        "next-hop-object",
        "ip nexthop add id 5 via 172.30.0.1 dev eth0; ip route add 10.244.1.0/28 nhid 5",
        "",
        "ip route del 10.244.1.0/28",
    ),
    (
        "static-neighbor",
        "ip neigh replace 10.244.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent
         ip neigh replace 10.244.2.1 dev eth0 lladdr 02:00:00:00:00:98 nud permanent",
        "",
        "ip neigh del 10.244.1.1 dev eth0; ip neigh del 10.244.2.1 dev eth0",
    ),
    ("pod-arp", "sysctl -qw net.ipv4.conf.cni0.arp_ignore=8", "", "sysctl -w net.ipv4.conf.cni0.arp_ignore=0"),
    ("pod-arp-off", "ip link set cni0 arp off", "", "ip link set cni0 arp on"),
    (
        "local-rule",
        "ip rule add priority 0 lookup main; ip rule del priority 0 lookup local",
        "",
        "ip rule del priority 0 from all lookup main && ip rule add priority 0 lookup local",
    ),
    (
        "default-forwarding",
        "sysctl -qw net.ipv4.conf.default.forwarding=0; ip link del cni0",
        "",
        "sysctl -w net.ipv4.conf.default.forwarding=1
         ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up",
    ),
    (
        "outside-unclear",
        "ip route add default via 172.30.0.1
         iptables-nft -A FORWARD -i cni0 ! -d 10.244.0.0/16 -m policy --dir out --pol none -j DROP",
        "",
        "iptables-nft -F FORWARD",
    ),
    (
        "outside-partly",
        "ip route add default via 172.30.0.1
         iptables-nft -A FORWARD -i cni0 ! -d 10.244.0.0/16 -m statistic --mode random --probability 0.5 -j DROP",
        "",
        "iptables-nft -F FORWARD",
    ),
    (
        // The kernel lets a port forward a moment after it has a carrier.
        "bridge-port",
        "ip link add vp1 type veth peer name pod1; ip link set pod1 up; ip link set vp1 master cni0 up
         until bridge link show dev vp1 | grep -q 'state forwarding'; do sleep 0.01; done
         bridge link set dev vp1 state 0",
        "",
        "bridge link set dev vp1 state 3",
    ),
    ("stp", "ip link set cni0 type bridge stp_state 1", "", "ip link set cni0 type bridge stp_state 0"),
    ("own-pods", "iptables-nft -A INPUT -i cni0 -j DROP", "", "iptables-nft -I INPUT -i cni0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    (
        "own-pods-out",
        "nft add table ip fw; nft 'add chain ip fw out { type filter hook output priority 0; policy drop; }'
         nft add rule ip fw out oifname eth0 accept; nft add rule ip fw out oifname lo accept",
        "",
        "nft add rule ip fw out oifname cni0 accept",
    ),
    (
        "second-interface",
        "ip link add eth1 type veth peer name lan1; ip link set lan1 up; ip link set eth1 up
         ip address add 172.30.0.21/24 dev eth1; sysctl -qw net.ipv4.conf.eth1.forwarding=0",
        "",
        "sysctl -w net.ipv4.conf.eth1.arp_ignore=1",
    ),
];

#[test]
fn every_disease_is_found_and_cured() {
    let snapshots = Mutex::new(Snapshots::default());
    each(|privilege| {
        for (name, infect, head, cure) in DISEASES {
            let node = healthy_node(privilege);
            if !head.is_empty() {
                node.write("hostgw.yaml", &cluster(head, &[NODE_1, NODE_2, NODE_3]));
                node.hostgw_ok(&["apply", "--yes"]);
            }
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            node.sh(infect);
            let found = node.hostgw(&["doctor"]);
            assert_eq!(found.code, 11, "{name}: {found}");
            snapshots.lock().expect("no panic").compare(&format!("doctor-{name}"), &found);
            // A snapshot tells the same on any machine.
            node.sh("\"$HOSTGW\" snapshot >snapshot.json");
            let saved = node.hostgw(&["doctor", "--state", "snapshot.json"]);
            assert_eq!((saved.code, saved.stdout), (11, found.stdout), "{name}");
            node.sh(&format!("{cure} >/dev/null 2>&1"));
            node.hostgw(&["doctor"]).expect(0).says("no findings");
        }
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// The plan enables forwarding, which new interfaces inherit then. A remedy of their own would outlast hostgw.
#[test]
fn new_interfaces_are_not_a_finding_of_their_own_on_a_node_that_does_not_forward() {
    each(|privilege| {
        let found = super::node(privilege).hostgw(&["doctor"]).expect(11);
        found.says("error[HG1001]: this node does not match the configuration");
        assert!(!found.stdout.contains("HG1051"), "{found}");
    });
}

/// A switch for ARP says nothing about IPv6, whose nodes only answer for single addresses.
#[test]
fn proxy_arp_answers_for_no_ipv6_pod_gateway() {
    each(|privilege| {
        let node = super::node(privilege);
        node.sh(
            "ip link add cni0 type bridge; ip link set cni0 up; sysctl -qw net.ipv6.conf.cni0.accept_dad=0
             ip address add 10.244.0.2/24 dev cni0; ip address add fd00:244::2/64 dev cni0 nodad
             sysctl -qw net.ipv4.conf.eth0.proxy_arp=1",
        );
        node.write(
            "hostgw.yaml",
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nodes:
  - {name: linux-1, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244::/64'], address: [172.30.0.11]}
  - {name: linux-2, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.12]}
",
        );
        node.hostgw_ok(&["apply", "--yes"]);
        let doctor = node.hostgw(&["doctor"]).expect(11);
        doctor.says(
            "error[HG1026]: no interface has this node's pod gateway fd00:244::1 (cni0 has fd00:244::2)",
        );
        assert!(!doctor.stdout.contains("10.244.0.1 "), "{doctor}");
    });
}

/// Pod packets pass the parent of a macvlan interface, and packets to the outside the interface of the default route.
#[test]
fn interfaces_below_and_beside_the_egress_interface_are_examined() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip address flush dev eth0; ip link add mv0 link eth0 type macvlan mode bridge; ip link set mv0 up
                 ip address add 172.30.0.11/24 dev mv0
                 ip link add wan0 type veth peer name wan1; ip link set wan0 up; ip link set wan1 up
                 ip address add 192.0.2.2/24 dev wan0; ip route add default via 192.0.2.1");
        node.write(
            "hostgw.yaml",
            &cluster("", &[NODE_1, NODE_2, NODE_3]).replace("egressInterface: eth0", "egressInterface: mv0"),
        );
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        for device in ["eth0", "wan0"] {
            node.sh(&format!(
                "nft add table netdev fw; nft 'add chain netdev fw in {{ type filter hook ingress device {device} priority 0; policy drop; }}'"
            ));
            let found = node.hostgw(&["doctor"]).expect(11);
            found.says(&format!("warning[HG1024]: chain `in` in table `netdev fw` on {device} can drop"));
            node.sh("nft delete table netdev fw");
        }
        node.sh("ip link set wan0 arp off");
        let found = node.hostgw(&["doctor"]).expect(11);
        found.says("[HG1044]: ARP is off on wan0: this node cannot resolve the gateway of the default route");
        node.sh("ip link set wan0 arp on");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// The CNI plugin `bandwidth` sends the packets of a pod through an interface that limits their rate.
#[test]
fn a_limited_pod_is_no_finding() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip link add vp1 type veth peer name pod1; ip link set pod1 up; ip link set vp1 master cni0 up
                 ip link add bwp1 type ifb; ip link set bwp1 up; tc qdisc add dev bwp1 root tbf rate 10mbit burst 32k latency 25ms
                 tc qdisc add dev vp1 root tbf rate 10mbit burst 32k latency 25ms; tc qdisc add dev vp1 ingress
                 tc filter add dev vp1 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev bwp1");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        let says = "warning[HG1024]: a tc filter on vp1 can drop packets";
        node.sh("ip link set bwp1 down");
        node.hostgw(&["doctor"]).expect(11).says(says);
        node.sh("ip link set bwp1 up
                 tc filter add dev vp1 parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev eth0");
        node.hostgw(&["doctor"]).expect(11).says(says);
    });
}

/// Rules that only name interfaces treat all pods of a family alike, and those of the other family not at all.
#[test]
fn rules_without_addresses_apply_to_one_family() {
    each(|privilege| {
        let node = super::node(privilege);
        node.sh(
            "ip link add cni0 type bridge; ip link set cni0 up; sysctl -qw net.ipv6.conf.cni0.accept_dad=0
             ip address add 10.244.0.1/24 dev cni0; ip address add fd00:244:0:1::1/64 dev cni0 nodad
             ip address add fd00:30::11/64 dev eth0 nodad",
        );
        node.await_ipv6_addresses();
        let cluster = super::dual_stack::CLUSTER.replacen("egress", "nextHop: node-address\negress", 1);
        node.write("hostgw.yaml", &cluster);
        node.hostgw_ok(&["apply", "--yes"]);
        let is_blocked = |doctor: &str| doctor.contains("error[HG1004]");
        for (family, other) in [("ip6", "ip"), ("ip", "ip6")] {
            for interface in ["-i eth0", "-o cni0"] {
                let rule = format!("{family}tables-nft -A FORWARD {interface} -j DROP");
                node.sh(&rule);
                let doctor = node.hostgw(&["doctor"]).expect(11);
                assert!(is_blocked(&doctor.stdout), "{rule}: {doctor}");
                let named = |family: &str| doctor.stdout.contains(&format!("in table `{family} filter`"));
                assert!(named(family) && !named(other), "{rule}: {doctor}");
                node.sh(&rule.replace("-A", "-D"));
            }
        }
        assert!(!is_blocked(&node.hostgw(&["doctor"]).stdout));
        node.sh("ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -i cni0 -j ACCEPT
                 ip6tables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
        let doctor = node.hostgw(&["doctor"]).expect(11);
        assert!(is_blocked(&doctor.stdout), "{doctor}");
    });
}

/// A rule for some of the pods of a node concerns these, and one for a single pod is a policy for it.
#[test]
fn rules_for_parts_of_a_pod_cidr() {
    each(|privilege| {
        let node = healthy_node(privilege);
        let doctor = |rules: &str, code: i32| {
            node.sh(&format!("{rules}\n"));
            let doctor = node.hostgw(&["doctor"]).expect(code);
            node.sh("iptables-nft -P FORWARD ACCEPT; iptables-nft -F; iptables-nft -t nat -F POSTROUTING");
            doctor
        };
        doctor("iptables-nft -A FORWARD -d 10.244.1.128/25 -j DROP", 11)
            .says("drops packets from this node's pods to those in 10.244.1.128/25 on node linux-2\n");
        doctor("iptables-nft -A FORWARD -s 10.244.0.128/25 -j DROP", 11)
            .says("drops packets from this node's pods in 10.244.0.128/25 to those on other nodes\n");
        doctor("iptables-nft -A FORWARD -s 10.244.0.128/25 -d 10.244.1.0/24 -j DROP", 11)
            .says("drops packets from this node's pods in 10.244.0.128/25 to those on node linux-2\n");
        doctor("iptables-nft -A FORWARD -s 10.244.1.128/25 -d 10.244.0.128/25 -j DROP", 11)
            .says("drops packets from pods in 10.244.1.128/25 on node linux-2 to this node's pods in 10.244.0.128/25\n");
        doctor(
            "nft add table ip t; nft 'add chain ip t c { type filter hook forward priority 0; }'
                nft add rule ip t c ip daddr 10.244.1.195-10.244.1.205 drop",
            11,
        )
        .says(
            "drops packets from this node's pods to those in 10.244.1.195 to 10.244.1.205 on node linux-2\n",
        );
        node.sh("nft delete table ip t");
        doctor(
            "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.244.0.0/25 -j ACCEPT
                iptables-nft -A FORWARD -d 10.244.0.0/25 -j ACCEPT",
            11,
        )
        .says("drops packets between this node's pods in 10.244.0.128/25 and those on other nodes\n");
        doctor("iptables-nft -t nat -A POSTROUTING -s 10.244.0.128/25 -j MASQUERADE", 11)
            .says("changes the source address of packets from this node's pods in 10.244.0.128/25 to those on other nodes");
        for pod in ["10.244.1.10", "10.244.1.11", "10.244.1.10/31"] {
            let rules = format!("iptables-nft -A FORWARD -d {pod} -j DROP");
            let outcome = doctor(&rules, if pod.ends_with("31") { 11 } else { 0 });
            assert!(pod.ends_with("31") || !outcome.stdout.contains("HG1004"), "{outcome}");
        }
    });
}

/// Each remedy leads to a node that works: rules for another table must leave out the node's own pods.
#[test]
fn rules_for_another_table_do_not_divert_packets_to_own_pods() {
    each(|privilege| {
        for mode in ["pod-gateway", "node-address"] {
            let node = node_with_pods(privilege);
            let options = format!("nextHop: {mode}\nroutes: {{table: 100, unassigned: unreachable}}");
            node.write("hostgw.yaml", &cluster(&options, &[NODE_1, NODE_2, NODE_3]));
            node.hostgw_ok(&["apply", "--yes"]);
            let own = "ip rule add to 10.244.0.0/24 lookup main priority 999";
            let others = "ip rule add to 10.244.0.0/16 lookup 100 priority 1000";
            node.hostgw(&["doctor"]).expect(11).says(&format!("run `{own}` and `{others}`"));
            node.sh(others);
            node.hostgw(&["doctor"])
                .expect(11)
                .says(&format!("add a rule before it for this node's own pods: `{own}`"));
            node.sh(own);
            let doctor = node.hostgw(&["doctor"]);
            assert!(!doctor.stdout.contains("HG085"), "{doctor}");
        }
    });
}

/// One remedy covers all pod CIDRs and cluster prefixes of both families.
#[test]
fn rules_for_another_table_cover_all_pod_cidrs() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip address add 10.245.0.1/24 dev cni0; ip address add fd00:244::1/64 dev cni0 nodad
             ip address add fd00:30::11/64 dev eth0 nodad");
        node.write(
            "hostgw.yaml",
            "clusterPrefix: [10.244.0.0/16, 10.245.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
routes: {table: 100}
nodes:
  - {name: linux-1, os: linux, podCIDR: [10.244.0.0/24, 10.245.0.0/24, 'fd00:244::/64'], address: [172.30.0.11, 'fd00:30::11']}
  - {name: linux-2, os: linux, podCIDR: [10.244.1.0/24, 10.245.1.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.12, 'fd00:30::12']}
",
        );
        node.hostgw_ok(&["apply", "--yes"]);
        let rules = [
            "ip rule add to 10.244.0.0/24 lookup main priority 999",
            "ip rule add to 10.245.0.0/24 lookup main priority 999",
            "ip rule add to 10.244.0.0/16 lookup 100 priority 1000",
            "ip rule add to 10.245.0.0/16 lookup 100 priority 1000",
            "ip -6 rule add to fd00:244::/64 lookup main priority 999",
            "ip -6 rule add to fd00:244::/48 lookup 100 priority 1000",
        ];
        let remedy = format!("run `{}`, or remove routes.table", rules.join("` and `"));
        node.hostgw(&["doctor"]).expect(11).says(&remedy);
        node.sh(&rules.join("\n"));
        let doctor = node.hostgw(&["doctor"]);
        assert!(!doctor.stdout.contains("HG085"), "{doctor}");
    });
}

/// A left-over address of another node does not turn this machine into that node.
#[test]
fn an_address_left_over_from_another_node() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip address add 10.244.1.1/32 dev lo");
        let remedy = "ip -4 address del 10.244.1.1/32 dev lo";
        node.hostgw(&["doctor"])
            .expect(11)
            .says("error[HG0703]")
            .says(&format!("help: remove it with `{remedy}` if"));
        node.sh(remedy);
        assert!(!node.hostgw(&["doctor"]).stdout.contains("HG0703"));
    });
}

/// The kernel keeps the type of a route with its nexthop object, and does not find the route by it.
#[test]
fn the_remedy_for_a_route_by_a_nexthop_object_works() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip nexthop add id 5 blackhole; ip route add 10.244.1.0/25 nhid 5");
        let remedy = "ip route del 10.244.1.0/25";
        node.hostgw(&["doctor"]).expect(11).says(&format!("`{remedy}`"));
        node.sh(remedy);
        assert!(!node.hostgw(&["doctor"]).stdout.contains("10.244.1.0/25"));
    });
}

#[test]
fn a_pod_interface_that_is_down() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip link set cni0 down");
        let remedy = "ip link set cni0 up";
        node.hostgw(&["doctor"])
            .expect(11)
            .says("error[HG1003]: the interface cni0, which has an address for pods, is down")
            .says(&format!("help: run `{remedy}`, and"));
        node.sh(remedy);
        assert!(!node.hostgw(&["doctor"]).stdout.contains("HG1003"));
    });
}

/// A thousand nodes behind the rules of a thousand services, as kube-proxy adds them, and one rule for one of the nodes.
#[test]
fn rules_of_many_services_and_a_rule_for_one_of_many_nodes() {
    let node = super::node(Privilege::User);
    node.sh("ip link add cni0 type bridge; ip address add 10.64.0.1/24 dev cni0; ip link set cni0 up");
    node.write("hostgw.yaml", &super::large_cluster(1000));
    node.hostgw_ok(&["apply", "--yes", "--node", "linux-0"]);
    // More at once do not fit the socket of iptables.
    for part in 0..20 {
        let mut rules = String::from("*nat\n");
        let services = part * 50..(part + 1) * 50;
        for service in services.clone() {
            rules.push_str(&format!(":KUBE-SVC-{service} - [0:0]\n"));
        }
        for service in services {
            let [high, low] = [service / 250, service % 250];
            rules.push_str(&format!(
                "-A PREROUTING -d 10.0.{high}.{low}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{service}\n\
                 -A KUBE-SVC-{service} -s 10.{}.{}.9/32 -j MARK --set-xmark 0x4000/0x4000\n\
                 -A KUBE-SVC-{service} -p tcp -j DNAT --to-destination 10.64.7.9:80\n",
                64 + service / 256,
                service % 256
            ));
        }
        node.write("rules", &format!("{rules}COMMIT\n"));
        node.sh("iptables-nft-restore --noflush <rules");
    }
    let quiet = |doctor: &str| !doctor.contains("HG10") || doctor.contains("HG1012");
    let doctor = node.hostgw(&["doctor", "--node", "linux-0"]);
    assert!(quiet(&doctor.stdout), "{doctor}");
    node.sh("iptables-nft -A FORWARD -d 10.67.169.0/24 -j DROP");
    node.hostgw(&["doctor", "--node", "linux-0"])
        .expect(11)
        .says("drops packets from this node's pods to those on node linux-937");
}

/// Where IPv4 uses ARP, which no IP firewall sees, IPv6 uses ICMPv6.
#[test]
fn a_firewall_that_drops_neighbor_discovery_is_a_finding() {
    each(|privilege| {
        let node = super::node(privilege);
        super::configure_ipv6(&node);
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        for (rule, effect) in [
            ("INPUT -i cni0", "to this node on cni0, so its pods cannot send packets over IPv6"),
            (
                "OUTPUT -o cni0 -p icmpv6 --icmpv6-type neighbor-solicitation",
                "from this node on cni0, so it cannot deliver packets to its pods over IPv6",
            ),
        ] {
            node.sh(&format!("ip6tables-nft -A {rule} -j DROP"));
            node.hostgw(&["doctor"])
                .expect(11)
                .says("error[HG1046]")
                .says(&format!("drops neighbor solicitations {effect}"));
            node.sh(&format!("ip6tables-nft -D {rule} -j DROP"));
        }
        // As ufw does.
        node.sh("for type in neighbor-solicitation neighbor-advertisement; do
                     ip6tables-nft -A INPUT -p icmpv6 --icmpv6-type $type -m hl --hl-eq 255 -j ACCEPT
                 done; ip6tables-nft -P INPUT DROP
                 ip6tables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        node.sh("ip6tables-nft -F INPUT");
        node.sh("ip6tables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; ip6tables-nft -P INPUT DROP");
        node.hostgw(&["doctor"]).expect(11).says(
            "error[HG1046]: the policy of chain `INPUT` in table `ip6 filter` drops neighbor solicitations to this node on eth0, \
             so it does not answer other nodes over IPv6",
        );
        node.sh("ip6tables-nft -I INPUT -p icmpv6 -j ACCEPT");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        node.sh("ip6tables-nft -A OUTPUT -p icmpv6 --icmpv6-type neighbor-solicitation -j DROP");
        node.hostgw(&["doctor"])
            .expect(11)
            .says("drops neighbor solicitations from this node on eth0, so it cannot resolve IPv6 next hops");
    });
}

/// Only the machine's own namespace can set the limit, so a snapshot has it.
#[test]
fn a_nearly_full_table_of_connections_is_a_finding() {
    let node = healthy_node(Privilege::User);
    node.sh("\"$HOSTGW\" snapshot | sed -E 's/(nf_conntrack_count\": \")[0-9]+/\\161000/; s/(nf_conntrack_max\": \")[0-9]+/\\165536/' >full.json");
    node.hostgw(&["doctor", "--state", "full.json"]).expect(11).says(
        "warning[HG1045]: the node tracks 61000 connections, and net.netfilter.nf_conntrack_max is 65536",
    );
}

/// What hostgw does not examine is said. Only what is made to drop or delay packets is a finding.
#[test]
fn programs_beside_the_firewall_are_said() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip xfrm policy add dir fwd src 10.0.0.0/24 dst 10.1.0.0/24 action block");
        node.hostgw(&["doctor"])
            .expect(0)
            .says("note: not examined: IPsec policies (they can drop or divert pod traffic)")
            .says("no findings");
        node.sh("ip xfrm policy flush");
        if node
            .try_sh(
                "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress protocol ip u32 match u32 0 0",
            )
            .code
            == 0
        {
            node.hostgw(&["doctor"])
                .expect(11)
                .says("warning[HG1024]: a tc filter on eth0 can drop packets, and hostgw does not examine it")
                .says("`tc filter show dev eth0 ingress`");
        }
        node.sh("tc qdisc del dev eth0 clsact || true; \"$HOSTGW\" snapshot >bare.json");
        // Not every kernel has these.
        let with = |programs: &str| {
            node.sh(&format!(
                "sed '0,/\"links\": \\[/s//\"programs\": [{programs}], \"links\": [/' bare.json >programs.json"
            ));
            node.hostgw(&["doctor", "--state", "programs.json"])
        };
        with(r#"{"kind": "netem", "device": "eth0"}, {"kind": "tcFilter", "device": "cni0"}"#)
            .expect(11)
            .says("warning[HG1040]: a netem qdisc on eth0 drops or delays pod packets")
            .says("warning[HG1024]: a tc filter on cni0 can drop packets, and hostgw does not examine it");
        with(r#"{"kind": "xdp", "device": "eth0"}, {"kind": "tcProgram", "device": "eth0"}, {"kind": "netem", "device": "eth7"}"#)
            .expect(0)
            .says("not examined: XDP program on eth0, tc eBPF program on eth0");
    });
}

/// Listing the rules of iptables-legacy loads a table that does nothing.
#[test]
fn a_legacy_table_without_rules_is_no_finding() {
    each(|privilege| {
        let node = healthy_node(privilege);
        if node
            .try_sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -t nat -A POSTROUTING -s 192.0.2.1 -j ACCEPT")
            .code
            != 0
        {
            crate::support::say("Left out: iptables-legacy does not work here");
            return;
        }
        let doctor = node.hostgw(&["doctor", "--json"]);
        let may_list = !doctor.stdout.contains("listing their tables requires root");
        let says = doctor.stdout.contains("iptables-legacy has rules in nat");
        assert_eq!(says, may_list, "{doctor}");
        let explained = node.hostgw_ok(&["explain", "10.244.1.10"]).stdout;
        assert_eq!(explained.contains("unknown: iptables-legacy has NAT rules"), may_list, "{explained}");
        node.sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -t nat -F");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// `sysctl -w` would be drift if the configuration sets the sysctl.
#[test]
fn a_configured_sysctl_is_corrected_in_the_configuration() {
    each(|privilege| {
        let node = healthy_node(privilege);
        let configured = "sysctls: {net.ipv4.conf.all.arp_ignore: 2}";
        node.write("hostgw.yaml", &cluster(configured, &[NODE_1, NODE_2, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("sysctl -qw net.ipv4.conf.eth0.arp_ignore=2");
        node.hostgw(&["doctor"]).expect(11).says(
            "help: set nextHop: node-address, or set net.ipv4.conf.all.arp_ignore to 0 under sysctls in the configuration, and \
             run `sysctl -w net.ipv4.conf.eth0.arp_ignore=0`",
        );
    });
}

/// The chains that kube-proxy, flannel and Docker create, as `iptables-save` prints them.
const CHAINS: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
:FLANNEL-FWD - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:FLANNEL-POSTRTG - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-1 - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-1 - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SEP-1 -s 10.244.1.10/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.1.10:8080
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-1
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j RETURN
-A KUBE-SVC-1 ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-1 -j KUBE-SEP-1
COMMIT
";

/// With the chains of other programs in place, packets get through, and nothing is found. Without the one rule that lets
/// them through, they do not, and it is.
#[test]
fn the_chains_of_kube_proxy_flannel_and_docker_are_no_finding() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.write("chains", CHAINS);
        node.sh("ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up
                 iptables-nft-restore <chains");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        node.sh("iptables-nft -D FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
                 iptables-nft -D FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT");
        node.hostgw(&["doctor"])
            .expect(11)
            .says("error[HG1004]: the policy of chain `FORWARD` in table `ip filter` drops packets between");
    });
}

/// The rules of ufw, Calico and Cilium that depend on limits, times, marks and sockets, which leave pods alone.
const OTHER_PROGRAMS: &str = "*raw
:PREROUTING ACCEPT [0:0]
:CILIUM_PRE_raw - [0:0]
:cali-PREROUTING - [0:0]
-A PREROUTING -j CILIUM_PRE_raw
-A PREROUTING -j cali-PREROUTING
-A CILIUM_PRE_raw -m mark --mark 0x200/0xf00 -j CT --notrack
-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CILIUM_PRE_mangle - [0:0]
-A PREROUTING -j CILIUM_PRE_mangle
-A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A POSTROUTING -j TOS --set-tos 0x10/0x3f
-A CILIUM_PRE_mangle -m socket --transparent -m mark ! --mark 0xe00/0xf00 -j MARK --set-xmark 0x200/0xffffffff
COMMIT
*filter
:FORWARD DROP [0:0]
:CILIUM_FORWARD - [0:0]
:ufw-before-forward - [0:0]
:ufw-after-logging-forward - [0:0]
:ufw-user-limit - [0:0]
-A FORWARD -j CILIUM_FORWARD
-A FORWARD -j ufw-before-forward
-A FORWARD -i cni0 -j ACCEPT
-A FORWARD -o cni0 -j ACCEPT
-A FORWARD -j ufw-after-logging-forward
-A CILIUM_FORWARD -o cilium_host -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW AUDIT INVALID] \"
-A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
-A ufw-before-forward -m limit --limit 3/min --limit-burst 10 -j RETURN
-A ufw-before-forward -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set
-A ufw-before-forward -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 -j ufw-user-limit
-A ufw-user-limit -m limit --limit 3/min -j LOG
-A ufw-user-limit -j REJECT
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:CILIUM_POST_nat - [0:0]
:cali-POSTROUTING - [0:0]
-A POSTROUTING -j CILIUM_POST_nat
-A POSTROUTING -j cali-POSTROUTING
-A CILIUM_POST_nat -s 10.244.0.0/24 ! -d 10.244.0.0/16 ! -o cilium+ -j MASQUERADE
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -j ACCEPT
-A cali-POSTROUTING -o tunl0 -m addrtype ! --src-type LOCAL -j MASQUERADE
COMMIT
";

#[test]
fn the_rules_of_ufw_calico_and_cilium_are_no_finding() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.write("rules", OTHER_PROGRAMS);
        node.sh("iptables-nft-restore <rules");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// Calico and kube-router masquerade with ipsets, which hostgw cannot read. It says so, but not as a finding.
#[test]
fn a_masquerade_rule_that_depends_on_an_ipset_is_a_note() {
    let node = healthy_node(Privilege::User);
    node.sh("iptables-nft -t nat -A POSTROUTING -m policy --dir out --pol none -j MASQUERADE");
    node.hostgw(&["doctor"])
        .expect(11)
        .says("may change the source address of packets between")
        .says("cannot decode `policy`");
    node.sh("\"$HOSTGW\" snapshot | sed -E 's/(\"condition\": ?)\"policy\"/\\1\"ipset\"/' >ipset.json");
    node.hostgw(&["doctor", "--state", "ipset.json"])
        .expect(0)
        .says("no findings")
        .says("not examined: masquerade rules that depend on an ipset");
}

/// What does not apply to packets between pods, or not to all of them, is no finding, and neither is what is dormant.
#[test]
fn rules_for_other_packets_are_no_finding() {
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("iptables-nft -A FORWARD -p tcp --dport 25 -j DROP
                 iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP
                 nft add table inet fw; nft 'add chain inet fw forward { type filter hook forward priority 10; policy drop; }'
                 nft 'add rule inet fw forward ct state vmap { established : accept, related : accept, invalid : drop }'
                 nft 'add rule inet fw forward meta l4proto { tcp, udp } th dport { 135, 445 } drop'
                 nft 'add rule inet fw forward ip saddr { 192.168.0.0/16, 172.16.0.0/13 } ip daddr 10.244.0.0/16 drop'
                 nft 'add rule inet fw forward iifname \"cni*\" oifname != \"docker0\" accept'
                 nft 'add rule inet fw forward ip saddr { 10.244.0.0/16, 172.30.0.0/24 } accept'
                 nft add table ip sleeping '{ flags dormant; }'
                 nft 'add chain ip sleeping forward { type filter hook forward priority 0; policy drop; }'
                 ip -6 rule add from fd00:1::/64 blackhole pref 9
                 ip rule add fwmark 7 lookup 107
                 iptables-nft -t mangle -A PREROUTING -i docker0 -j MARK --set-mark 7
                 nft add table netdev fw; nft 'add chain netdev fw in { type filter hook ingress device lan0 priority 0; policy drop; }'
                 nft add table bridge count; nft 'add chain bridge count f { type filter hook forward priority 0; }'
                 nft add rule bridge count f counter");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// Chains that jump to each other in more ways than can be followed.
#[test]
fn an_examination_of_many_jumps_ends() {
    let node = healthy_node(Privilege::User);
    let mut script = String::from("add table ip fw\n");
    for level in (0..8).rev() {
        script.push_str(&format!("add chain ip fw l{level}\n"));
        for _ in 0..12 {
            if level < 7 {
                script.push_str(&format!("add rule ip fw l{level} meta rtclassid 3 jump l{}\n", level + 1));
            }
        }
    }
    script.push_str(
        "add chain ip fw forward { type filter hook forward priority 0; }\nadd rule ip fw forward jump l0\n",
    );
    node.write("jumps", &script);
    node.sh("nft -f jumps");
    node.hostgw(&["doctor"]).expect(11).says("warning[HG1005]");
}

/// A CNI configuration is examined with the node.
#[test]
fn the_cni_configuration_is_part_of_the_examination() {
    let node = healthy_node(Privilege::User);
    node.write(
        "cni.conf",
        r#"{"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "subnet": "10.244.7.0/24"}}"#,
    );
    node.hostgw(&["doctor", "--cni", "cni.conf"])
        .expect(11)
        .says("error[HG0903]: cni.conf: ipam.subnet")
        .says("error[HG0905]: cni.conf: ipMasq");
    node.hostgw(&["doctor", "--cni", "hostgw.yaml"]).expect(3);
    // What costs no packets is a warning here, as for check-cni, and the remedy keeps the other family.
    node.write("hostgw.yaml", &dual_stack_cluster());
    node.write(
        "cni.conf",
        r#"{"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}"#,
    );
    let said = node.hostgw(&["doctor", "--node", "linux-1", "--cni", "cni.conf"]).stdout;
    assert!(said.contains("warning[HG0903]: cni.conf: ipam.ranges[1]: no IPv6 range"), "{said}");
    assert!(said.contains("set ipam.ranges[1] to [{\"subnet\": \"fd00:244::/64\"}]"), "{said}");
}

/// The nodes of the recipe with pod CIDRs of both families.
fn dual_stack_cluster() -> String {
    let nodes = [NODE_1, NODE_2].into_iter().enumerate().map(|(number, (name, cidr, address))| {
        format!("  - {{name: {name}, os: linux, podCIDR: [{cidr}, 'fd00:244:0:{number}::/64'], address: {address}}}\n")
    });
    format!(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\nnodes:\n{}",
        nodes.collect::<String>()
    )
}

/// An ordinary user learns what needs no privilege.
#[test]
fn without_privileges_the_firewall_is_unknown() {
    let node = healthy_node(Privilege::User);
    let said = node.sh("setpriv --bounding-set=-all --inh-caps=-all \"$HOSTGW\" doctor 2>&1 || echo code $?");
    assert!(said.contains("warning[HG1006]: the firewall rules could not be read"), "{said}");
    assert!(said.ends_with("0 errors, 1 warning.\ncode 11\n"), "{said}");
}

/// `explain --from node` uses the source address that the kernel would choose.
#[test]
fn packets_of_the_node_have_the_source_that_the_kernel_chooses() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip link add mgmt0 type veth peer name mgmt1; ip link set mgmt0 up; ip link set mgmt1 up
                 ip link property add dev mgmt0 altname aaa0
                 ip address add 192.168.1.5/24 dev mgmt0; ip address add 172.31.0.11/24 dev eth0
                 ip address add fd00:31::5/64 dev mgmt0 nodad; ip address add fd00:30::11/64 dev eth0 nodad
                 ip address add fd00:32::11/64 dev eth0 nodad
                 ip route add 10.9.0.0/16 via 172.31.0.9; ip route add 10.8.0.0/16 via 172.30.0.9 src 192.168.1.5
                 ip route add 10.7.0.0/16 dev eth0; ip route add default via 192.168.1.1
                 ip route add fd00:32:1::/48 via fd00:30::9; ip route add default via fd00:31::9");
        node.await_ipv6_addresses();
        node.hostgw_ok(&["apply", "--yes"]);
        for destination in [
            "10.244.1.10",
            "10.244.0.10",
            "10.9.0.1",
            "10.8.0.1",
            "10.7.0.1",
            "192.0.2.7",
            "192.168.1.9",
            "172.31.0.77",
            "172.30.0.12",
            "fd00:30::12",
            "fd00:32:1::9",
            "2001:db8::7",
            "fd00:31::77",
        ] {
            let answer = node.sh(&format!("ip route get {destination}"));
            let (_, rest) = answer.split_once(" src ").expect("a source");
            let source = rest.split_whitespace().next().expect("a source");
            let explained = node.hostgw_ok(&["explain", destination, "--from", "node"]);
            explained.says(&format!("From {source} (an address of this node"));
        }
    });
}

#[test]
fn packets_are_explained_step_by_step() {
    let snapshots = Mutex::new(Snapshots::default());
    each(|privilege| {
        let node = healthy_node(privilege);
        node.sh("ip route add default via 172.30.0.1");
        let compare = |name: &str, arguments: &[&str], code| {
            let outcome = node.hostgw(arguments).expect(code);
            snapshots.lock().expect("no panic").compare(&format!("explain-{name}"), &outcome);
        };
        compare("pod", &["explain", "10.244.1.10"], 0);
        compare("outside", &["explain", "192.0.2.7"], 0);
        compare("node", &["explain", "192.0.2.7", "--from", "node"], 0);
        compare("own-pod", &["explain", "10.244.0.10", "--from", "10.244.2.10"], 0);
        compare("same-node", &["explain", "10.244.0.10"], 64);
        compare("nobody", &["explain", "10.244.77.1"], 0);
        compare("families", &["explain", "10.244.1.10", "--from", "fd00::1"], 64);
        compare("planned", &["explain", "10.244.0.10", "--planned", "--node", "linux-3"], 0);
        compare(
            "planned-from-node",
            &["explain", "10.244.1.10", "--planned", "--node", "linux-1", "--from", "node"],
            0,
        );
        let unnamed = cluster("", &[NODE_1, NODE_2, NODE_3]).replace("egressInterface: eth0\n", "");
        node.write("unnamed.yaml", &unnamed);
        let arguments = ["explain", "10.244.1.10", "--planned", "--node", "linux-1", "-f", "unnamed.yaml"];
        compare("planned-without-interface", &arguments, 0);
        compare("planned-outside", &["explain", "192.0.2.7", "--planned", "--node", "linux-3"], 64);
        compare("planned-of-nobody", &["explain", "10.244.0.10", "--planned"], 64);
        node.sh("iptables-nft -P FORWARD DROP; ip neigh replace 10.244.1.1 dev eth0 nud failed");
        compare("dropped", &["explain", "10.244.1.10"], 0);
        node.sh("iptables-nft -P FORWARD ACCEPT; ip rule add from 10.244.1.0/24 prohibit pref 50");
        compare("prohibited", &["explain", "10.244.1.10"], 0);
        // Packets from and to the node itself pass other hooks.
        node.sh("iptables-nft -A INPUT -i cni0 -p all -d 172.30.0.11 -j DROP
                 nft add table inet own; nft 'add chain inet own out { type filter hook output priority 0; policy drop; }'
                 nft add rule inet own out oifname cni0 accept");
        compare("input", &["explain", "172.30.0.11"], 0);
        compare("output", &["explain", "192.0.2.7", "--from", "node"], 0);
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// A foreign route is one finding, not several.
#[test]
fn a_foreign_route_is_reported_once() {
    each(|privilege| {
        let node = healthy_node(privilege);
        for (route, code) in [
            ("10.244.7.0/24 via 172.30.0.99", "warning[HG1015]"),
            ("10.244.7.0/24 via 172.30.0.99 proto kernel", "warning[HG1015]"),
            ("10.244.1.0/25 via 172.30.0.99", "warning[HG0852]"),
            ("unreachable 10.244.1.128/26", "error[HG0852]"),
        ] {
            node.sh(&format!("ip route add {route}"));
            let planned = node.hostgw_ok(&["plan"]);
            assert_eq!(planned.stdout.matches("[HG").count(), 1, "{planned}");
            let found = node.hostgw(&["doctor"]).expect(11);
            assert_eq!(found.stdout.matches("[HG").count(), 1, "{found}");
            found.says(code);
            node.sh(&format!("ip route del {route}"));
        }
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// The rules of kube-proxy's nftables mode for a Service with one endpoint and one with two.
const KUBE_PROXY: &str = "table ip kube-proxy {
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.20 . tcp . 80 : goto service-1, 10.96.0.21 . udp . 53 : goto service-2 }
    }
    chain endpoint-1 { meta l4proto tcp dnat to 10.244.2.10:8080; }
    chain endpoint-2 { meta l4proto udp dnat to 10.244.0.10:5353; }
    chain endpoint-3 { meta l4proto udp dnat to 10.244.2.10:5353; }
    chain mark-for-masquerade { meta mark set meta mark | 0x00004000; }
    chain service-1 {
        ip daddr 10.96.0.20 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
        numgen random mod 1 vmap { 0 : goto endpoint-1 }
    }
    chain service-2 { numgen random mod 2 vmap { 0 : goto endpoint-2, 1 : goto endpoint-3 }; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain masquerading {
        meta mark & 0x00004000 == 0 return
        meta mark set meta mark ^ 0x00004000
        masquerade fully-random
    }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

/// A packet to a Service is a packet to one of its endpoints.
#[test]
fn packets_to_services_are_explained_with_their_new_destination() {
    let snapshots = Mutex::new(Snapshots::default());
    each(|privilege| {
        let node = healthy_node(privilege);
        node.write("chains", CHAINS);
        node.write("kube-proxy", KUBE_PROXY);
        node.sh("ip route add default via 172.30.0.1; iptables-nft-restore <chains; nft -f kube-proxy
                 nft add table ip own; nft 'add chain ip own pre { type nat hook prerouting priority -90; }'
                 nft add rule ip own pre ip daddr 10.96.0.30 redirect
                 nft 'add rule ip own pre ip daddr 10.96.0.31 dnat to numgen random mod 2 map { 0 : 10.244.1.10, 1 : 10.244.1.11 }'
                 nft add rule ip own pre ip daddr 172.30.0.11 tcp dport 30080 dnat to 10.244.1.10:8080");
        let compare = |name: &str, arguments: &[&str]| {
            let outcome = node.hostgw(arguments).expect(0);
            snapshots.lock().expect("no panic").compare(&format!("explain-service-{name}"), &outcome);
        };
        compare("iptables", &["explain", "10.96.0.10"]);
        compare("nft", &["explain", "10.96.0.20"]);
        compare("from-node", &["explain", "10.96.0.20", "--from", "node"]);
        compare("of-two", &["explain", "10.96.0.21"]);
        compare("redirect", &["explain", "10.96.0.30"]);
        compare("map", &["explain", "10.96.0.31"]);
        compare("node-port", &["explain", "172.30.0.11"]);
        let json = node.hostgw_ok(&["explain", "10.96.0.20", "--json"]).stdout;
        assert!(json.contains("\"newDestination\": \"10.244.2.10\""), "{json}");
        // Not every kernel has IPVS.
        node.sh("\"$HOSTGW\" snapshot | sed '0,/\"links\": \\[/s//\"programs\": [{\"kind\": \"ipvs\"}], \"links\": [/' >ipvs.json");
        node.hostgw(&["explain", "172.30.0.11", "--state", "ipvs.json"]).expect(0).says("unknown: IPVS");
    });
    snapshots.into_inner().expect("no panic").conclude();
}
