//! `hostgw rehearse`: what it finds on nodes with firewalls, policy rules and NAT of other programs, and that it changes
//! nothing on the node.

use std::{fs, process::Stdio, thread, time::Duration};

use serde_json::Value;

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, node, simulate};
use crate::support::namespace::{Namespace, Outcome, Privilege, SimulatedCluster, Snapshots, each};

/// A node with the bridge of its pods and a default gateway.
fn healthy(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("ip link add cni0 type bridge
         ip link set cni0 up
         ip address add 10.244.0.1/24 dev cni0
         ip route add default via 172.30.0.1");
    node.await_ipv6_addresses();
    node
}

/// Runs `hostgw rehearse`, and fails unless the node is unchanged.
#[track_caller]
fn rehearse(node: &Namespace, options: &[&str], code: i32) -> Outcome {
    let before = node.witness();
    let arguments: Vec<&str> = ["rehearse"].into_iter().chain(options.iter().copied()).collect();
    let outcome = node.hostgw(&arguments).expect(code);
    node.assert_unchanged(&before, "a rehearsal");
    outcome
}

/// The connections that fail, as `KIND FROM TO`.
fn failing(outcome: &Outcome) -> Vec<String> {
    let json = outcome.json();
    let failing = json["connections"].as_array().unwrap().iter().filter(|it| it["works"] != true);
    let text = |value: &Value| value.as_str().unwrap_or("outside").to_owned();
    failing.map(|it| format!("{} {} {}", text(&it["kind"]), text(&it["from"]), text(&it["to"]))).collect()
}

/// The reasons of failures, each once.
fn reasons(outcome: &Outcome) -> Vec<String> {
    let json = outcome.json();
    let connections = json["connections"].as_array().unwrap();
    let mut reasons: Vec<String> =
        connections.iter().filter_map(|it| Some(it["reason"].as_str()?.to_owned())).collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

/// A rule for one protocol only.
#[test]
fn tcp_is_tested_too() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh(
            "nft add table inet fw; nft 'add chain inet fw forward { type filter hook forward priority 0; }'
                 nft add rule inet fw forward ip daddr 10.244.1.0/24 meta l4proto tcp drop",
        );
        let outcome = rehearse(&node, &["--json"], 1);
        // In the other direction, the rule drops the answer.
        assert_eq!(failing(&outcome), ["podToPod linux-1 linux-2", "podToPod linux-2 linux-1"]);
        let reasons = reasons(&outcome);
        assert!(
            matches!(&*reasons, [reason] if reason.starts_with("TCP connections fail: dropped by the rule with handle 2 in chain `forward`")),
            "{reasons:?}"
        );
    });
}

/// What the copy lacks and can drop packets is part of the verdict.
#[test]
fn a_copy_that_lacks_a_filter_says_so() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("ip xfrm policy add dir fwd src 10.244.0.0/24 dst 10.244.1.0/24 action block");
        rehearse(&node, &[], 0)
            .says("IPsec policies: not copied")
            .says("warning: this node can drop or divert packets that the copy does not, because the copy lacks IPsec policies");
        assert_eq!(rehearse(&node, &["--json"], 0).json()["complete"], false);
    });
}

#[test]
fn the_recipe_works_on_a_healthy_node() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let outcome = rehearse(&node, &[], 0);
        outcome.says("11 of 11 connections work after the plan").says("✓ rollback restores the copy");
        assert_eq!(node.state_dir(), None, "a rehearsal leaves no record on the node");
        // The node is already as planned.
        node.hostgw_ok(&["apply", "--yes"]);
        let again = rehearse(&node, &["--json"], 0).json();
        assert_eq!((&again["totals"]["add"], &again["passed"]), (&Value::from(0), &Value::from(true)));
        assert!(
            again["connections"].as_array().unwrap().iter().all(|it| it["workedBefore"] == true),
            "{again}"
        );
    });
}

/// Only nodes in the network of this one are on its link.
#[test]
fn a_node_in_another_network_is_behind_the_router() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let far = ("linux-3", "10.244.2.0/24", "172.30.8.13");
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, far]));
        let outcome = rehearse(&node, &["--json"], 1);
        assert_eq!(
            failing(&outcome),
            [
                "podToPod linux-1 linux-3",
                "nodeToPod linux-1 linux-3",
                "podToPod linux-3 linux-1",
                "nodeToPod linux-3 linux-1"
            ]
        );
        let reasons = reasons(&outcome);
        assert!(reasons.iter().all(|reason| reason.contains("is behind a router")), "{reasons:?}");
        // The address of this node says how large its network is.
        node.sh("ip address del 172.30.0.11/24 dev eth0; ip address add 172.30.0.11/20 dev eth0
                 ip route add default via 172.30.0.1");
        rehearse(&node, &[], 0);
        // As on machines whose gateway is outside of their network, and without addresses in the configuration.
        node.sh("ip address del 172.30.0.11/20 dev eth0; ip address add 172.30.0.11/32 dev eth0
                 ip route add 172.30.0.1 dev eth0; ip route add default via 172.30.0.1");
        let nodes = cluster("", &[NODE_1, NODE_2, NODE_3]);
        let nodes: Vec<&str> = nodes.lines().filter(|line| !line.contains(" address:")).collect();
        node.write("hostgw.yaml", &nodes.join("\n"));
        rehearse(&node, &["--node", "linux-1"], 0);
    });
}

/// Waits until the routes of an interface have the flag of a lost carrier, which the kernel sets up to a second later.
fn await_lost_carrier(node: &Namespace, interface: &str) {
    node.wait_until("the routes have the flag", || {
        node.run(["ip", "route", "show", "dev", interface]).contains("linkdown")
    });
}

/// Nodes that work, however they are connected.
#[test]
fn unusual_nodes_work_in_the_copy() {
    let _turn = simulate::small();
    each(|privilege| {
        let works = |change: &str| {
            let node = healthy(privilege);
            node.sh(change);
            node.await_ipv6_addresses();
            if change.contains("master cni0") {
                await_lost_carrier(&node, "cni0");
            }
            rehearse(&node, &[], 0)
        };
        // Another default gateway, in a table that no rule looks up, and a less preferred one.
        works("ip route add default via 172.30.0.9 table 100; ip route add default via 172.30.0.8 metric 50");
        // Names that the copy could want itself.
        works("ip link add pod type veth peer name podx; ip link add veth0 type veth peer name uplink");
        // Each node has a route of its own, without a network.
        works(
            "ip address del 172.30.0.11/24 dev eth0; ip address add 172.30.0.11/32 dev eth0
               for node in 1 12 13; do ip route add 172.30.0.$node dev eth0; done
               ip route add default via 172.30.0.1",
        );
        // Machines behind the bridge of pods have other MAC addresses in the copy.
        works("ip neigh add 10.244.0.10 lladdr 02:00:00:00:00:99 dev cni0 nud permanent")
            .says("not copied: simulated machines have other MAC addresses");
        // Firewalls can match the ports of the bridge of pods.
        works("ip link add veth1a2b type veth peer name pod1; ip link set veth1a2b master cni0 up
               nft add table bridge f; nft 'add chain bridge f in { type filter hook input priority 0; policy drop; }'
               nft 'add rule bridge f in iifname \"veth*\" accept'");
        // Several gateways, each of which is simulated, and one without an address to simulate.
        works("ip route replace default nexthop via 172.30.0.1 nexthop via 172.30.0.2")
            .says("pod of linux-1 -> outside")
            .says("11 of 11 connections work");
        works("ip route replace default dev eth0")
            .says("the default route has no gateway, or one that is not simulated");
        // Rules that the kernel does not accept as it dumps them.
        let node = healthy(privilege);
        node.sh("nft add table inet t; nft 'add chain inet t f { type filter hook forward priority 0; }'
                 nft 'add set inet t s4 { type ipv4_addr; size 1000; flags dynamic; }'
                 nft 'add rule inet t f ip daddr 10.244.1.0/24 add @s4 { ip saddr limit rate over 1/hour burst 1 packets counter } drop'
                 ebtables-nft -A INPUT -p IPv4 --ip-src 10.244.77.0/24 -j DROP");
        let outcome = rehearse(&node, &[], 1);
        assert!(!outcome.stdout.contains("rejected"), "{outcome}");
        node.sh("ebtables-nft -A INPUT -p IPv4 --ip-src 10.244.0.0/24 -j DROP; nft delete table inet t");
        let outcome = rehearse(&node, &[], 1);
        assert!(!outcome.stdout.contains("rejected"), "{outcome}");
        let node = healthy(privilege);
        node.sh("ip link set lan0 down");
        await_lost_carrier(&node, "eth0");
        rehearse(&node, &[], 1);
        let outcome = node.hostgw(&["rehearse"]);
        outcome.warns("error: egress interface eth0 has no carrier: no packet leaves this node through it");
    });
}

/// A machine on which no pod has started yet, without a default gateway.
#[test]
fn a_bare_node_gets_a_bridge_in_the_copy() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = node(privilege);
        let outcome = rehearse(&node, &["--full"], 0);
        outcome.says("added in the copy").says("no interface has the pod gateway 10.244.0.1");
        outcome.says("IPv4 connections to the outside were not tested: this node has no default gateway");
        outcome.says("10 of 10 connections work after the plan");
    });
}

/// Rules that hostgw cannot decode: only packets show what they do.
#[test]
fn rules_of_iptables_that_drop_packets_are_named() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("iptables-nft -N OTHER
             iptables-nft -A FORWARD -i cni0 -m comment --comment first -j OTHER
             iptables-nft -A OTHER -p tcp -m multiport --dports 80,443 -j ACCEPT
             iptables-nft -A OTHER -d 10.244.1.0/24 -m ttl --ttl-gt 3 -m length --length 0:100 -j DROP");
        let outcome = rehearse(&node, &[], 1);
        let handle = node.run(["nft", "-a", "list", "chain", "ip", "filter", "OTHER"]);
        let rule = handle.lines().find(|line| line.contains("drop")).expect("the rule");
        let handle = rule.rsplit(' ').next().unwrap();
        outcome
            .says(&format!("dropped by the rule with handle {handle} in chain `OTHER` in table `ip filter`"));
        if privilege == Privilege::Root {
            let mut snapshots = Snapshots::default();
            snapshots.compare("rehearse-firewall", &outcome);
            snapshots.conclude();
        } else {
            outcome.says("unknown: no permission to list them");
        }
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(failing(&json), ["podToPod linux-1 linux-2", "podToPod linux-2 linux-1"]);
    });
}

/// A program that decides about packets, such as an intrusion detection system, does not run in the copy.
#[test]
fn queues_to_programs_are_reported() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("iptables-nft -A FORWARD -d 10.244.1.0/24 -j NFQUEUE --queue-num 3");
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(
            json.json()["omissions"][0]["object"],
            "the queue of chain `FORWARD` in table `ip filter`"
        );
        let reasons = reasons(&json);
        assert!(reasons[0].starts_with("queued by the rule with handle "), "{reasons:?}");
    });
}

#[test]
fn a_forward_policy_of_drop_is_named() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.244.0.0/24 -d 10.244.2.0/24 -j ACCEPT");
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(reasons(&json), ["dropped by the policy of chain `FORWARD` in table `ip filter`"]);
        assert!(failing(&json).contains(&"podToOutside linux-1 outside".to_owned()), "{json}");
    });
}

#[test]
fn sets_maps_and_verdict_maps_decide_in_the_copy() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.write(
            "rules.nft",
            r#"table inet guard {
                counter seen {}
                set peers { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 172.30.0.0/24 } }
                set small { type ipv4_addr . ipv4_addr; flags interval; elements = { 10.244.0.0/24 . 10.244.2.0/24 } }
                map ports { type inet_service : verdict; elements = { 22 : accept, 80 : goto refuse } }
                chain refuse {
                    counter name "seen" drop
                }
                chain forward { type filter hook forward priority 5; policy drop;
                    ct state established,related accept
                    udp dport vmap @ports
                    ip saddr . ip daddr @small jump {
                        meta mark 7 accept
                        goto refuse
                    }
                    ip saddr @peers ip daddr { 10.244.0.0-10.244.1.255, 203.0.113.0/24 } accept
                }
            }
            table ip idle { flags dormant; chain x { type filter hook forward priority 0; policy drop; }
            }
            "#,
        );
        node.sh("nft -f rules.nft");
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(failing(&json), ["podToPod linux-1 win-1"]);
        let reasons = reasons(&json);
        assert!(reasons[0].contains("in chain `refuse` in table `inet guard`"), "{reasons:?}");
    });
}

/// A mark that one table sets and a policy rule uses.
#[test]
fn marks_that_divert_packets_are_followed() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh(
            "iptables-nft -t mangle -A PREROUTING -i cni0 -d 10.244.1.0/24 -m ttl --ttl-gt 3 -j MARK --set-mark 3
             ip rule add pref 50 fwmark 3 lookup 100
             ip route add blackhole default table 100",
        );
        let json = rehearse(&node, &["--json"], 1);
        // Replies to the other node's pod are marked, too.
        assert_eq!(failing(&json), ["podToPod linux-1 linux-2", "podToPod linux-2 linux-1"]);
    });
}

#[test]
fn a_foreign_policy_rule_is_the_reason() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh(
            "ip rule add pref 10 from 10.244.0.0/24 lookup 99; ip route add blackhole 10.244.0.0/15 table 99",
        );
        let json = rehearse(&node, &["--json"], 1);
        let reasons = reasons(&json);
        assert!(reasons.iter().any(|reason| reason.contains("99")), "{reasons:?}");
        assert!(failing(&json).contains(&"podToPod linux-1 linux-2".to_owned()), "{json}");
    });
}

#[test]
fn strict_reverse_path_filtering_is_found() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        // Replies of pods come in where their route does not lead.
        node.sh("sysctl -qw net.ipv4.conf.eth0.rp_filter=1; ip rule add pref 10 to 10.244.2.0/24 iif eth0 lookup 99
                      ip route add 10.244.2.0/24 dev cni0 table 99; ip rule add pref 11 to 10.244.2.0/24 iif lo lookup 99");
        let json = rehearse(&node, &["--json"], 1);
        assert!(failing(&json).iter().any(|pair| pair.ends_with("win-1")), "{json}");
    });
}

#[test]
fn nat_that_catches_pod_traffic_is_named() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("iptables-nft -t nat -A POSTROUTING -s 10.244.0.0/24 -o eth0 -m statistic --mode nth --every 1 --packet 0 -j MASQUERADE");
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(failing(&json), ["podToPod linux-1 linux-2", "podToPod linux-1 win-1"]);
        let reasons = reasons(&json);
        assert!(reasons[0].starts_with("masqueraded by the rule with handle "), "{reasons:?}");
        assert!(reasons[0].contains("in chain `POSTROUTING` in table `ip nat`"), "{reasons:?}");
    });
}

#[test]
fn iptables_legacy_is_copied() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        // A user who is not root may not list the tables of a user namespace.
        if privilege == Privilege::User || node.try_sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -A FORWARD -d 10.244.1.0/24 -m ttl --ttl-gt 3 -j DROP").code != 0 {
            crate::support::say("Left out: iptables-legacy does not work here");
            return;
        }
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(failing(&json), ["podToPod linux-1 linux-2", "podToPod linux-2 linux-1"]);
        let rule = "iptables-legacy -t filter -A FORWARD -d 10.244.1.0/24 -m ttl --ttl-gt 3 -j DROP";
        assert_eq!(reasons(&json), [format!("dropped by `{rule}`")]);
        assert_eq!(json.json()["copied"]["legacyTables"], 1);
    });
}

/// The egress interface is a bridge, and the default gateway is on another interface.
#[test]
fn a_bridge_with_a_hardware_port_and_a_second_interface() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = Namespace::new(privilege);
        node.sh("ip link add eth0 type bridge
             ip link add port0 type veth peer name lan0
             ip link add mgmt0 type veth peer name lan1
             ip link set port0 master eth0
             for link in eth0 port0 lan0 mgmt0 lan1; do ip link set $link up; done
             ip address add 172.30.0.11/24 dev eth0
             ip address add 192.168.7.2/24 dev mgmt0
             ip route add default via 192.168.7.1 dev mgmt0");
        node.write("hostgw.yaml", RECIPE);
        node.await_ipv6_addresses();
        rehearse(&node, &[], 0).says("11 of 11 connections work after the plan");
    });
}

/// Simulated machines have other MAC addresses than the node's real neighbors.
#[test]
fn permanent_neighbor_entries_of_simulated_machines_are_left_out() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("ip neigh add 10.244.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
             ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:02 dev lan0 nud permanent");
        let json = rehearse(&node, &["--json"], 0).json();
        let left_out: Vec<&str> =
            json["omissions"].as_array().unwrap().iter().filter_map(|it| it["object"].as_str()).collect();
        assert!(left_out.contains(&"neighbor entry 10.244.1.1 on eth0"), "{left_out:?}");
        assert!(!left_out.iter().any(|object| object.contains("10.77.0.1")), "{left_out:?}");
    });
}

/// Each pod has an interface of its own, with a host route and without an address, as with Calico.
#[test]
fn a_pod_behind_a_host_route() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cali1 type veth peer name pod1
             ip link set cali1 up; ip link set pod1 up
             ip route add 10.244.0.7 dev cali1 scope link
             ip route add default via 172.30.0.1
             sysctl -qw net.ipv4.conf.cali1.proxy_arp=1 net.ipv4.neigh.cali1.proxy_delay=0
             iptables-nft -A FORWARD -i cali1 -d 10.244.2.0/24 -m ttl --ttl-gt 3 -j DROP");
        node.await_ipv6_addresses();
        node.write("hostgw.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_2, NODE_3]));
        let json = rehearse(&node, &["--json"], 1);
        assert_eq!(failing(&json), ["podToPod linux-1 linux-3", "podToPod linux-3 linux-1"]);
        assert_eq!(
            json.json()["omissions"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it["object"] == "the bridge cni0")
                .count(),
            0
        );
    });
}

#[test]
fn both_families_are_rehearsed() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh(
            "ip address add 2001:db8::11/64 dev eth0 nodad; ip address add fd00:244:0:1::1/64 dev cni0 nodad
                      ip -6 route add default via 2001:db8::1",
        );
        node.await_ipv6_addresses();
        node.write(
            "hostgw.yaml",
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}
  - {name: b, os: linux, podCIDR: [10.244.1.128/25, 'fd00:244:0:2::/112'], address: [172.30.0.12, '2001:db8::12']}
",
        );
        rehearse(&node, &[], 0).says("14 of 14 connections work after the plan");
        node.sh("ip route add blackhole 10.244.1.128/26; ip -6 route add blackhole fd00:244:0:2::/113");
        let json = rehearse(&node, &["--json"], 1).json();
        let connections = json["connections"].as_array().expect("a list").iter();
        let lost: Vec<_> = connections.filter(|connection| connection["works"] == false).collect();
        for (family, destination) in [("ipv4", "10.244.1.128/26"), ("ipv6", "fd00:244:0:2::/113")] {
            let mut of_family = lost.iter().filter(|connection| connection["family"] == family).peekable();
            assert!(of_family.peek().is_some(), "{json:#}");
            for connection in of_family {
                let reason = connection["reason"].as_str().expect("a reason");
                assert!(reason.contains(destination), "{connection:#}");
            }
        }
    });
}

/// With `routes.table`, the simulated nodes have the policy rules that operators add, and the copy has those of the node: without
/// them, its packets are lost.
#[test]
fn policy_rules_for_another_table() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.write("hostgw.yaml", &cluster("routes: {table: 100}", &[NODE_1, NODE_2]));
        let outcome = rehearse(&node, &[], 1);
        outcome.says("no policy rule looks up table 100, which has hostgw's routes, so the packets follow");
        outcome.says("help: run `ip rule add to 10.244.0.0/24 lookup main priority 999` and `ip rule add to 10.244.0.0/16 lookup 100 priority 1000`");
        node.sh("ip rule add to 10.244.0.0/24 lookup main priority 999
             ip rule add to 10.244.0.0/16 lookup 100 priority 1000");
        let outcome = rehearse(&node, &[], 0);
        outcome.says("7 of 7 connections work after the plan");
        outcome.says("· each other node was given policy rules for table 100: the configuration relies on them (routes.table), and hostgw adds none\n");
        let json = rehearse(&node, &["--json"], 0).json();
        assert_eq!(json["assumptions"][0]["kind"], "policyRules", "{json}");
    });
}

/// With `offLink: onlink`, nodes in other networks are on the link of this one.
#[test]
fn nodes_in_other_networks_share_the_link_with_onlink() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let far = ("linux-3", "10.244.2.0/24", "172.30.8.13");
        for next_hop in ["pod-gateway", "node-address", "172.31.1.1"] {
            let head = format!("nextHop: {next_hop}\noffLink: onlink");
            node.write("hostgw.yaml", &cluster(&head, &[NODE_1, NODE_2, far]));
            rehearse(&node, &[], 0)
                .says("11 of 11 connections work after the plan")
                .says("· nodes in different networks are on one link");
        }
    });
}

/// What `apply` refuses is refused with the same exit code, and nothing is copied.
#[test]
fn refused_plans_are_refused() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.99 proto static");
        let applied = node.hostgw(&["apply", "--yes"]).expect(10);
        let rehearsed = rehearse(&node, &[], 10);
        assert_eq!(rehearsed.stdout, "");
        assert!(applied.stderr.ends_with(&rehearsed.stderr), "{applied}\n{rehearsed}");
        rehearse(&node, &["--adopt"], 0).says("11 of 11 connections work after the plan");
        node.write("hostgw.yaml", &cluster("sysctls: {net.ipv4.nothing: 1}", &[NODE_1, NODE_2]));
        rehearse(&node, &[], node.hostgw(&["apply", "--yes"]).code);
    });
}

/// Only root can read the firewall.
#[test]
fn without_privileges_nothing_is_pretended() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let outcome = node
            .try_sh("exec setpriv --bounding-set -all --inh-caps -all --no-new-privs \"$HOSTGW\" rehearse");
        outcome.expect(9).warns("requires CAP_NET_ADMIN");
    });
}

#[test]
fn many_nodes_are_sampled() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let nodes: Vec<_> = (0..60)
            .map(|n| (format!("n{n}"), format!("10.244.{n}.0/24"), format!("172.30.0.{}", n + 11)))
            .collect();
        let nodes: Vec<_> = nodes.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        node.write("hostgw.yaml", &cluster("", &nodes));
        let json = rehearse(&node, &["--sample", "4", "--seed", "7", "--json"], 0).json();
        assert_eq!(
            (&json["otherNodesInConfiguration"], &json["seed"], &json["node"]),
            (&59.into(), &7.into(), &"n0".into())
        );
        assert_eq!(json["others"].as_array().unwrap().len(), 4);
        assert_eq!(json["connections"].as_array().unwrap().len(), 19);
        rehearse(&node, &["--sample", "6"], 0)
            .says("6 of 59 other nodes, drawn with --seed")
            .says("and 2 more");
    });
}

/// The copy that `--keep` leaves has the firewall and the policy rules of the node, and the plan.
#[test]
fn a_kept_copy_can_be_entered() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        node.sh(
            "iptables-nft -A FORWARD -i eth0 -m ttl --ttl-lt 2 -j DROP; ip rule add pref 70 fwmark 9 lookup 9
                      ip route add 10.99.0.0/16 via 172.30.0.77 table 9",
        );
        let kept = SimulatedCluster::kept_by(node, &["rehearse", "--keep"]);
        for command in
            ["nft -s list table ip filter", "ip rule", "ip route show table 9", "ip -o address show eth0"]
        {
            let strip = |text: String| text.replace(" nodad", "").replace("@lan0", "").replace("@if", " ");
            let on_node = strip(kept.machine().sh(command));
            assert_eq!(strip(kept.sh("node linux-1", command)), on_node, "{command}");
        }
        let routes = kept.sh("node linux-1", "ip route show proto 87");
        assert!(routes.contains("10.244.2.0/24 via 10.244.2.2 dev eth0"), "{routes}");
        let status = kept.sh("node linux-1", "\"$HOSTGW\" status");
        assert!(status.contains("Drift: none"), "{status}");
    });
}

#[test]
fn nothing_is_left_behind() {
    let _turn = simulate::small();
    each(|privilege| {
        let node = healthy(privilege);
        let before = node.witness();
        for (signal, delay) in [("KILL", 0), ("KILL", 300), ("INT", 100), ("TERM", 1500)] {
            let scratch = node.folder().join("scratch");
            node.sh("mkdir -p scratch");
            let mut child = node
                .command("env")
                .args(["--default-signal=INT,TERM", "sh", "-c", "TMPDIR=scratch exec \"$HOSTGW\" rehearse"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            node.wait_until("a namespace exists", || !simulate::namespaces_of(child.id()).is_empty());
            thread::sleep(Duration::from_millis(delay));
            node.sh(&format!("kill -{signal} {}", child.id()));
            let status = child.wait().unwrap();
            assert_eq!(simulate::left_behind(node.folder()), [""; 0], "after SIG{signal}");
            if signal != "KILL" && status.code() == Some(130) {
                assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "after SIG{signal}");
            }
            node.assert_unchanged(&before, &format!("SIG{signal}"));
        }
    });
}
