//! Whether packets get through: what plan, apply and status say about rules, foreign routes and sysctls that keep the pods
//! of the nodes from reaching each other.

use super::{NODE_1, NODE_2, NODE_3, cluster, node, settled};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, each};

/// The node linux-1 of a cluster of three, with the bridge of its pods.
pub fn node_with_pods(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up");
    node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
    node
}

/// The kernel's answer to a packet from or to the node's own pod, as `ip` prints it.
fn asked(node: &Namespace, question: &str) -> String {
    node.sh(&format!("ip route get {question} 2>&1 || true"))
}

const OUT: &str = "10.244.1.10 from 10.244.0.10 iif cni0";
const IN: &str = "10.244.0.10 from 10.244.1.10 iif eth0";

/// What breaks the paths, the command that heals them, and what the kernel says meanwhile.
const FAULTS: [(&str, &str, &str, &str, &str); 9] = [
    (
        "own-part",
        "ip route add 10.244.0.192/26 via 172.30.0.99",
        "ip route del 10.244.0.192/26 via 172.30.0.99",
        "10.244.0.200 from 10.244.1.10 iif eth0",
        "dev eth0",
    ),
    (
        "part",
        "ip route add unreachable 10.244.1.192/26",
        "ip route del unreachable 10.244.1.192/26",
        "10.244.1.200 from 10.244.0.10 iif cni0",
        "No route to host",
    ),
    (
        "forwarding",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.forwarding=0",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
        IN,
        "No route to host",
    ),
    (
        "rule",
        "ip rule add from 10.244.0.0/16 lookup 101 pref 1000; ip route add default via 172.30.0.9 table 101",
        "ip rule del pref 1000",
        OUT,
        "via 172.30.0.9",
    ),
    (
        "blackhole-rule",
        "ip rule add from 10.244.0.0/24 to 10.244.1.0/24 blackhole pref 5",
        "ip rule del pref 5",
        OUT,
        "Invalid argument",
    ),
    (
        "own-cidr",
        "ip address del 10.244.0.1/24 dev cni0; ip route add 10.244.0.0/24 via 172.30.0.99
         ip address add 10.244.0.1/24 dev cni0",
        "ip route del 10.244.0.0/24 via 172.30.0.99",
        IN,
        "dev eth0",
    ),
    (
        "blackhole",
        "ip route add blackhole 10.244.1.8/29",
        "ip route del blackhole 10.244.1.8/29",
        OUT,
        "Invalid argument",
    ),
    (
        "filter",
        "ip link add eth1 type veth peer name lan1; ip link set lan1 up; ip link set eth1 up
         ip address add 192.168.7.1/24 dev eth1; ip route add 10.244.1.8/29 via 192.168.7.9
         sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        "ip route del 10.244.1.8/29 via 192.168.7.9",
        IN,
        "Invalid argument",
    ),
    (
        "table",
        "ip rule add from all lookup 102 pref 2000; ip route add 10.244.2.0/24 via 172.30.0.77 table 102",
        "ip rule del pref 2000",
        "10.244.2.10 from 10.244.0.10 iif cni0",
        "via 172.30.0.77",
    ),
];

#[test]
fn lost_paths_are_reported_with_their_cause() {
    let snapshots = std::sync::Mutex::new(Snapshots::default());
    each(|privilege| {
        for (name, break_it, heal, question, answer) in FAULTS {
            let node = node_with_pods(privilege);
            node.sh(break_it);
            let shown = |verb: &str, outcome: &Outcome| {
                snapshots.lock().expect("no panic").compare(&format!("paths-{name}-{verb}"), outcome);
            };
            let applied = node.hostgw(&["apply", "--yes"]);
            shown("apply", &applied.expect(0));
            assert!(asked(&node, question).contains(answer), "{name}: {}", asked(&node, question));
            let planned = node.hostgw(&["plan", "--detailed-exitcode"]);
            shown("plan", &planned.expect(0));
            let status = node.hostgw_ok(&["status"]);
            assert!(
                status
                    .stdout
                    .contains("Drift: none in routes, NAT and sysctls\nPaths: not as planned\nwarning[HG085"),
                "{status}"
            );
            // A snapshot tells the same.
            node.sh("\"$HOSTGW\" snapshot >snapshot.json");
            let [live, saved] = [&["plan"][..], &["plan", "--state", "snapshot.json"]]
                .map(|verb| node.hostgw_ok(verb).stdout);
            assert_eq!(live, saved, "{name}");
            let json = node.hostgw_ok(&["status", "--json"]).stdout;
            assert!(json.contains("\"code\": \"HG085"), "{json}");
            node.sh(heal);
            settled(&node);
            let status = node.hostgw_ok(&["status"]);
            status.says("Drift: none\n");
            assert!(!status.stdout.contains("warning"), "{name}: {status}");
        }
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// Routes in a table that no rule leads to: the transaction verifies its own objects, and the packets are lost.
#[test]
fn an_apply_that_loses_a_path_is_rolled_back() {
    let snapshots = std::sync::Mutex::new(Snapshots::default());
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let before = node.witness();
        node.write("hostgw.yaml", &cluster("routes: {table: 101}", &[NODE_1, NODE_2, NODE_3]));
        let outcome = node.hostgw(&["apply", "--yes"]).expect(6);
        snapshots.lock().expect("no panic").compare("paths-lost-apply", &outcome);
        node.assert_unchanged(&before, "a lost path");
        // With a rule, the same configuration works.
        node.sh("ip rule add to 10.244.0.0/16 lookup 101 pref 1000; ip route add 10.244.0.0/24 dev cni0 table 101");
        node.hostgw_ok(&["apply", "--yes"]);
        assert!(asked(&node, OUT).contains("via 10.244.1.1"), "{}", asked(&node, OUT));
        settled(&node);
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// Nothing is said about a path that is fine, or about a node without pods.
#[test]
fn working_paths_and_nodes_without_pods_are_quiet() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1
                 ip route add default via 172.30.0.1
                 ip rule add fwmark 0x4000/0x4000 lookup 105 pref 3
                 ip rule add to 192.0.2.0/24 lookup 105 pref 4
                 ip route add 192.0.2.0/24 via 172.30.0.8 table 105");
        let outcome = node.hostgw_ok(&["apply", "--yes"]);
        assert!(!format!("{outcome}").contains("warning"), "{outcome}");
        settled(&node);
        node.sh("ip link del cni0; sysctl -qw net.ipv4.conf.eth0.forwarding=0");
        let outcome = node.hostgw_ok(&["plan"]);
        assert!(!format!("{outcome}").contains("warning"), "{outcome}");
    });
}

/// Without a rule for hostgw's table, packets follow the default route, which nobody should remove.
#[test]
fn a_table_without_a_rule_is_named() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip route add default via 172.30.0.1");
        node.write("hostgw.yaml", &cluster("routes: {table: 101}", &[NODE_1, NODE_2, NODE_3]));
        node.hostgw(&["apply", "--yes"])
            .expect(0)
            .warns("HG0855]: applied, but ")
            .warns("no policy rule looks up table 101, which has hostgw's routes, so the packets follow `default via 172.30.0.1")
            .warns("help: run `ip rule add to 10.244.0.0/24 lookup main priority 999` and `ip rule add to 10.244.0.0/16 lookup 101 priority 1000`, or");
        let found = node.hostgw(&["doctor"]).expect(11);
        assert!(!found.stdout.contains("ip route del"), "{found}");
        // Another rule is in the way: the remedy names the same table.
        node.sh("ip rule add to 10.244.0.0/16 lookup 101 priority 1000; ip route add 10.244.0.0/24 dev cni0 table 101
                 ip rule add from 10.244.0.0/16 lookup 105 priority 900; ip route add default via 172.30.0.9 table 105");
        node.hostgw(&["doctor"]).expect(11).says("`ip rule add to 10.244.0.0/24 lookup main priority 898` and `ip rule add to 10.244.0.0/16 lookup 101 priority 899`");
        node.sh("ip rule add to 10.244.0.0/16 lookup 101 priority 899");
        node.hostgw(&["doctor"]).expect(0);
    });
}

/// A sysctl that gets its original value back must be configured to stay as it is.
#[test]
fn a_restored_sysctl_that_loses_a_path_is_named() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.ipv4.conf.eth0.forwarding=0");
        let configured = "sysctls: {net.ipv4.conf.eth0.forwarding: 1}";
        node.write("hostgw.yaml", &cluster(configured, &[NODE_1, NODE_2, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.hostgw(&["plan"]).expect(0).says("restore original value").says(
            "the plan restores the original value of net.ipv4.conf.eth0.forwarding; to prevent that, set \
             `net.ipv4.conf.eth0.forwarding: 1` under sysctls in the configuration",
        );
    });
}

/// What pods send to the outside leaves by the default route, and the replies come back through its interface.
#[test]
fn the_outside_is_a_path_too() {
    let snapshots = std::sync::Mutex::new(Snapshots::default());
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip link add eth1 type veth peer name lan1; ip link set lan1 up; ip link set eth1 up
                 ip address add 192.168.7.2/24 dev eth1; ip route add default via 192.168.7.1");
        node.await_ipv6_addresses();
        let outcome = node.hostgw_ok(&["apply", "--yes"]);
        assert!(!format!("{outcome}").contains("warning"), "{outcome}");
        let compare = |name: &str, outcome: &Outcome| {
            snapshots.lock().expect("no panic").compare(&format!("paths-outside-{name}"), outcome);
        };
        // A change that loses the replies is rolled back.
        let before = node.witness();
        node.write(
            "hostgw.yaml",
            &cluster("sysctls: {net.ipv4.conf.eth1.forwarding: 0}", &[NODE_1, NODE_2, NODE_3]),
        );
        let refused = node.hostgw(&["apply", "--yes"]).expect(6);
        compare("apply", &refused);
        refused
            .says("hostgw.yaml:3")
            .warns("help: the configuration sets net.ipv4.conf.eth1.forwarding; set it to 1 under sysctls");
        assert!(!format!("{refused}").contains("sysctl -w"), "{refused}");
        node.assert_unchanged(&before, "a lost outside");
        // Paths that were lost before are reported.
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.sh("ip route add unreachable 128.0.0.0/1");
        compare("plan", &node.hostgw(&["plan"]).expect(0));
        node.sh("\"$HOSTGW\" snapshot >snapshot.json");
        let saved = node.hostgw_ok(&["plan", "--state", "snapshot.json"]).stdout;
        assert_eq!(saved, node.hostgw_ok(&["plan"]).stdout);
        assert!(!asked(&node, "198.51.100.1 from 10.244.0.10 iif cni0").contains(" via "));
        node.hostgw(&["doctor"])
            .expect(11)
            .says("error[HG0852]: this node's pods cannot reach destinations outside the cluster");
        // A filter of addresses that nobody should use tells nothing about the outside.
        node.sh("ip route del unreachable 128.0.0.0/1; ip route add blackhole 198.51.100.0/24");
        node.hostgw(&["doctor"]).expect(0);
        // Without masquerading, hostgw does not care about the outside.
        node.sh("ip route del blackhole 198.51.100.0/24; ip route add unreachable 128.0.0.0/1");
        node.write("hostgw.yaml", &cluster("nat: {masquerade: false}", &[NODE_1, NODE_2, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0);
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// IPv6, where the kernel's answer does not tell whether it forwards.
#[test]
fn ipv6_paths_are_judged_too() {
    each(|privilege| {
        let node = node(privilege);
        super::configure_ipv6(&node);
        let outcome = node.hostgw_ok(&["apply", "--yes"]);
        assert!(!format!("{outcome}").contains("warning"), "{outcome}");
        node.sh("ip -6 route add unreachable fd00:244:0:1::/96");
        node.hostgw_ok(&["plan"])
            .says("warning[HG0852]: this node's pods cannot reach pods on node linux-2 in fd00:244:0:1::/96");
        // A route that the kernel adds with each address.
        node.sh("ip -6 route del unreachable fd00:244:0:1::/96
                 ip -6 route del local fd00:30::11 dev eth0 table local");
        node.hostgw_ok(&["plan"])
            .says("cannot reach this node: table local has no route for fd00:30::11, an address of eth0, so the packets")
            .says("help: run `ip -6 route add local fd00:30::11 dev eth0 table local`");
        node.sh("ip -6 route add local fd00:30::11 dev eth0 table local");
        assert!(!node.hostgw_ok(&["plan"]).stdout.contains("warning"));
        node.sh("ip -6 rule add from fd00:244:0:1::/64 prohibit pref 7");
        node.hostgw_ok(&["plan"]).says("warning[HG0851]: pods on node linux-2 cannot reach this node's pods");
    });
}

/// A firewall is not part of the kernel's answer, and the plan cannot change it, but an apply says what it does.
#[test]
fn an_apply_says_that_a_firewall_drops_pod_traffic() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("iptables-nft -P FORWARD DROP");
        let applied = node.hostgw(&["apply", "--yes"]).expect(0);
        applied
            .warns("error[HG1004]: applied, but the policy of chain `FORWARD` in table `ip filter` drops packets between")
            .warns("Some pod traffic is lost or diverted; see the warnings above.");
        assert!(!applied.stderr.contains("and verified"), "{applied}");
        node.sh("iptables-nft -P FORWARD ACCEPT; ip route del 10.244.1.0/24");
        node.hostgw_ok(&["apply", "--yes"]).warns("and verified");
    });
}

/// The packets of the node itself: all there is on a machine without pods, and those of programs on the others.
#[test]
fn packets_of_the_node_itself_are_judged() {
    let snapshots = std::sync::Mutex::new(Snapshots::default());
    // What breaks the paths of the node itself, and the command that heals them.
    let faults = [
        (
            "source-rule",
            "ip rule add from 172.30.0.11 lookup 103 pref 100; ip route add default via 172.30.0.1 table 103",
            "ip rule del pref 100",
        ),
        ("one-node", "ip rule add iif lo to 10.244.2.0/24 blackhole pref 90", "ip rule del pref 90"),
        (
            "replies",
            "ip link add eth1 type veth peer name lan1; ip link set lan1 up; ip link set eth1 up
             ip address add 192.168.7.1/24 dev eth1; ip route add default via 192.168.7.9 table 104
             sysctl -qw net.ipv4.conf.eth0.rp_filter=1; ip rule add from 172.30.0.11 lookup 104 pref 80",
            "ip rule del pref 80",
        ),
    ];
    each(|privilege| {
        for has_pods in [false, true] {
            let node = if has_pods { node_with_pods(privilege) } else { node(privilege) };
            if !has_pods {
                let itself = (NODE_1.0, "none", NODE_1.2);
                node.write("hostgw.yaml", &cluster("", &[itself, NODE_2, NODE_3]));
            }
            let applied = node.hostgw_ok(&["apply", "--yes"]);
            assert!(!format!("{applied}").contains("warning"), "{applied}");
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            let whose = if has_pods { "with-pods" } else { "without-pods" };
            for (name, break_it, heal) in faults {
                node.sh(break_it);
                let found = node.hostgw(&["doctor"]).expect(11);
                snapshots.lock().expect("no panic").compare(&format!("paths-own-{name}-{whose}"), &found);
                node.hostgw_ok(&["status"]).says("Paths: not as planned");
                node.sh("\"$HOSTGW\" snapshot >snapshot.json");
                let [live, saved] = [&["plan"][..], &["plan", "--state", "snapshot.json"]]
                    .map(|verb| node.hostgw_ok(verb).stdout);
                assert_eq!(live, saved, "{name}");
                node.sh(heal);
                node.hostgw(&["doctor"]).expect(0).says("no findings");
            }
            assert_eq!(asked(&node, "10.244.1.10 from 172.30.0.11").matches("via").count(), 1);
            // The firewall of the node itself.
            for (chain, rule) in [("OUTPUT", "-d 10.244.0.0/16"), ("INPUT", "-s 10.244.1.0/24")] {
                node.sh(&format!("iptables-nft -A {chain} {rule} -j DROP"));
                let found = node.hostgw(&["doctor"]).expect(11);
                let name = format!("paths-own-{}-{whose}", chain.to_lowercase());
                snapshots.lock().expect("no panic").compare(&name, &found);
                for help in found.stdout.lines().filter(|line| line.contains("help:")) {
                    let remedy = help.rsplit('`').nth(1).expect("a command in backquotes");
                    node.sh(&remedy.replace("iptables ", "iptables-nft "));
                }
                node.hostgw(&["doctor"]).expect(0).says("no findings");
                node.sh(&format!("iptables-nft -F {chain}"));
            }
        }
    });
    snapshots.into_inner().expect("no panic").conclude();
}

/// A change after which the node itself reaches pods no more is rolled back.
#[test]
fn an_apply_that_loses_the_packets_of_the_node_is_rolled_back() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        // Pods use hostgw's table, but nothing else does.
        node.sh("ip rule add iif cni0 lookup 101 pref 1000; ip rule add iif eth0 lookup 101 pref 1001
                 ip route add 10.244.0.0/24 dev cni0 table 101");
        let before = node.witness();
        node.write("hostgw.yaml", &cluster("routes: {table: 101}", &[NODE_1, NODE_2, NODE_3]));
        let refused = node.hostgw(&["apply", "--yes"]).expect(6);
        refused.says(
            "this node cannot reach any pods on other nodes (2 nodes: linux-2, linux-3): no policy rule",
        );
        node.assert_unchanged(&before, "lost packets of the node");
        node.sh("ip rule add iif lo to 10.244.0.0/16 lookup 101 pref 1002");
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// Where the default route is not in the main table, or in two halves, as with a VPN.
#[test]
fn default_routes_of_every_kind_lead_outside() {
    let ways = [
        ("main", "ip route add default via 192.168.7.1"),
        ("halves", "ip route add 0.0.0.0/1 via 192.168.7.1; ip route add 128.0.0.0/1 via 192.168.7.1"),
        (
            "table",
            "ip route add default via 192.168.7.1 table 106; ip rule add from all lookup 106 pref 40000",
        ),
        (
            "wg-quick",
            "ip route add default via 172.30.0.1; ip route add default via 192.168.7.1 table 51820
             ip rule add not fwmark 51820 lookup 51820 pref 2001
             ip rule add lookup main suppress_prefixlength 0 pref 2000",
        ),
    ];
    each(|privilege| {
        for (name, way) in ways {
            let node = node_with_pods(privilege);
            node.sh("ip link add eth1 type veth peer name lan1; ip link set lan1 up; ip link set eth1 up
                     ip address add 192.168.7.2/24 dev eth1");
            node.sh(way);
            node.await_ipv6_addresses();
            node.hostgw_ok(&["apply", "--yes"]);
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            assert!(
                asked(&node, "198.51.100.1 from 10.244.0.10 iif cni0").contains("via 192.168.7.1"),
                "{name}"
            );
            node.sh("sysctl -qw net.ipv4.conf.eth1.forwarding=0");
            node.hostgw(&["doctor"]).expect(11).says(
                "error[HG0853]: replies from outside the cluster cannot reach this node's pods: net.ipv4.conf.eth1.forwarding is 0",
            );
        }
    });
}

/// Policy rules that look up another table before the kernel's own routes to its addresses.
#[test]
fn a_local_table_that_is_not_first_is_named() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip rule add pref 0 lookup main; ip rule del pref 0 lookup local; ip rule add pref 100 lookup local");
        assert!(!asked(&node, "172.30.0.11 from 10.244.1.10 iif eth0").contains("local"));
        node.hostgw_ok(&["plan"]).says(
            "warning[HG0851]: no pods on other nodes can reach this node (2 nodes: linux-2, linux-3): \
             policy rules do not look up table local first, so the packets follow `172.30.0.0/24 dev eth0",
        );
        // The cause is one finding.
        let found = node.hostgw(&["doctor"]).expect(11);
        assert!(found.stdout.contains("HG1050") && !found.stdout.contains("HG0851"), "{found}");
        node.sh("ip rule add pref 0 lookup local; ip rule del pref 0 lookup main");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        node.sh("ip route del local 172.30.0.11 dev eth0 table local");
        node.hostgw_ok(&["plan"])
            .says("table local has no route for 172.30.0.11, an address of eth0, so the packets follow")
            .says("help: run `ip route add local 172.30.0.11 dev eth0 table local`");
        let found = node.hostgw(&["doctor"]).expect(11);
        assert!(found.stdout.contains("table local has no route for 172.30.0.11"), "{found}");
        assert_eq!(found.stdout.matches("error[").count(), 1, "{found}");
        node.sh("ip route add local 172.30.0.11 dev eth0 table local");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
    });
}

/// Each pod has an interface and a route of its own, as with the CNI plugin `ptp` or Calico.
#[test]
fn pods_can_have_an_interface_each() {
    each(|privilege| {
        for next_hop in ["pod-gateway", "node-address"] {
            let node = node(privilege);
            // The plugin gives each interface the address of the pod gateway.
            for (name, pod) in [("veth1", "10.244.0.10"), ("veth2", "10.244.0.11"), ("veth3", "10.244.0.12")]
            {
                node.sh(&format!(
                    "ip link add {name} type veth peer name {name}p; ip link set {name}p up; ip link set {name} up
                     ip address add 10.244.0.1/32 dev {name}
                     ip route add {pod} dev {name} scope link src 10.244.0.1"
                ));
            }
            let text = cluster(&format!("nextHop: {next_hop}"), &[NODE_1, NODE_2, NODE_3]);
            node.write("hostgw.yaml", &text);
            let applied = node.hostgw_ok(&["apply", "--yes"]);
            assert!(!format!("{applied}").contains("warning"), "{applied}");
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            node.hostgw_ok(&["status"]).says("Paths: as planned");
            node.hostgw_ok(&["explain", "10.244.1.10"])
                .says("From 10.244.0.10 (a pod of this node) to 10.244.1.10 (a pod on node linux-2), arriving on veth1")
                .says("outcome    forwarded");
            let explained = node.hostgw_ok(&["explain", "10.244.0.11", "--from", "10.244.1.10"]);
            explained.says("dev veth2").says("outcome    forwarded");
            let explained = node.hostgw_ok(&["explain", "10.244.0.12"]);
            explained.says("From 10.244.0.10 (a pod of this node) to 10.244.0.12").says("dev veth3");
            node.hostgw(&["explain", "10.244.0.10"])
                .expect(64)
                .warns("10.244.0.10 is the pod of this node from which");
            // What diverts the packets of one pod is found.
            node.sh("ip route del 10.244.0.11; ip route add 10.244.0.11 dev eth0");
            node.hostgw(&["doctor"]).expect(11).says("this node's pods in 10.244.0.11/32");
            node.sh("ip route del 10.244.0.11; ip route add 10.244.0.11 dev veth2
                     ip rule add from 10.244.0.12 to 10.244.1.0/24 blackhole");
            node.hostgw(&["doctor"]).expect(11).says("this node's pods in 10.244.0.12/32");
            // A remedy is about all pods.
            node.sh(
                "ip rule del from 10.244.0.12 to 10.244.1.0/24 blackhole; ip route add default via 172.30.0.1
                     iptables-nft -P FORWARD DROP
                     iptables-nft -A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT",
            );
            let found = node.hostgw(&["doctor"]).expect(11);
            let replies =
                "iptables -A FORWARD -d 10.244.0.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
            found.says(&format!("`iptables -A FORWARD -s 10.244.0.0/24 -j ACCEPT` and `{replies}`"));
            node.sh("iptables-nft -A FORWARD -s 10.244.0.0/24 -j ACCEPT");
            node.sh(&replies.replace("iptables", "iptables-nft"));
            node.sh("iptables-nft -A FORWARD -s 172.30.0.0/24 -d 10.244.0.0/24 -j ACCEPT");
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            // The next hop of a route can be of another family.
            node.sh("ip route add 10.244.1.0/26 via inet6 fe80::99 dev eth0");
            let found = node.hostgw(&["doctor"]).expect(11);
            found.says(
                "help: if it is not needed, remove it with `ip route del 10.244.1.0/26 via inet6 fe80::99`",
            );
            node.sh("ip route del 10.244.1.0/26 via inet6 fe80::99");
            // A route via a gateway does not belong to an address, whatever its protocol.
            node.sh("ip route add 10.244.1.0/26 via 172.30.0.99 proto kernel");
            let found = node.hostgw(&["doctor"]).expect(11);
            found
                .says("(added by protocol kernel)")
                .says("remove it with `ip route del 10.244.1.0/26 via 172.30.0.99");
            node.sh("ip route del 10.244.1.0/26");
            node.hostgw(&["doctor"]).expect(0).says("no findings");
        }
    });
}

/// The CNI configuration has the prefix of the cluster where the pod CIDR of the node belongs.
#[test]
fn the_network_of_the_pods_can_be_too_large() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cni0 type bridge; ip address add 10.244.0.1/16 dev cni0; ip link set cni0 up");
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        let warning = "warning[HG0815]: the network of cni0, 10.244.0.0/16, contains pods of other nodes";
        let remedy = "help: the prefix length must be that of the node's pod CIDR, 24: correct `subnet` in the CNI configuration";
        node.hostgw(&["plan"]).expect(10).says(warning).says(remedy);
        // hostgw does not recommend what it refuses.
        let refused = node.hostgw(&["apply", "--yes", "--adopt"]).expect(10);
        refused.warns("correct the prefix length of the address");
        assert!(!format!("{refused}").contains("take it over with"), "{refused}");
        let found = node.hostgw(&["doctor"]).expect(11);
        found.says(warning).says("correct the prefix length of the address");
        assert!(!format!("{found}").contains("hostgw apply --adopt"), "{found}");
        node.write("hostgw.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_2, NODE_3]));
        node.hostgw_ok(&["plan"]).says(warning);
        node.sh("ip address add 10.244.0.1/24 dev cni0; ip address del 10.244.0.1/16 dev cni0");
        assert!(!format!("{}", node.hostgw_ok(&["apply", "--yes"])).contains("warning"));
    });
}

/// The kernel's route to the pods of the node is gone.
#[test]
fn a_missing_route_to_the_pods_is_named() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.0.0/24 dev cni0");
        assert!(!asked(&node, IN).contains("dev cni0"));
        let cause = "no route leads to 10.244.0.0/24 on cni0, so the packets follow `10.244.0.0/16 dev eth0";
        let remedy = "help: run `ip route add 10.244.0.0/24 dev cni0`, or correct the prefix length";
        node.hostgw_ok(&["plan"]).says(cause).says(remedy);
        node.hostgw(&["doctor"]).expect(11).says(cause).says(remedy);
        node.sh("ip route add 10.244.0.0/24 dev cni0");
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        assert!(asked(&node, IN).contains("dev cni0"));
    });
}

/// Connection tracking recognizes the replies to masqueraded packets only if it sees both directions in one zone.
#[test]
fn replies_that_are_not_tracked_are_found() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.sh("ip route add default via 172.30.0.1");
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0).says("no findings");
        for (rule, finding) in [
            (
                "counter notrack",
                "excludes replies to packets from this node's pods to destinations outside the cluster",
            ),
            (
                "ct zone set 3",
                "assigns replies to packets from this node's pods to destinations outside the cluster to",
            ),
        ] {
            node.sh(&format!(
                "nft add table ip raw2; nft 'add chain ip raw2 pre {{ type filter hook prerouting priority raw; }}'
                 nft 'add rule ip raw2 pre iifname eth0 {rule}'"
            ));
            node.hostgw(&["doctor"]).expect(11).says("HG1042").says(finding);
            node.sh("nft delete table ip raw2");
            node.hostgw(&["doctor"]).expect(0).says("no findings");
        }
    });
}

/// The kernel deletes a route without being told all of its attributes.
#[test]
fn routes_with_attributes_are_deleted_by_the_command_in_their_finding() {
    each(|privilege| {
        let node = node_with_pods(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        for attributes in [
            "via 172.30.0.99 mtu lock 1400",
            "via 172.30.0.99 hoplimit 1 realm 7",
            "via 172.30.0.99 initcwnd 20 rtt 100ms advmss 1200 quickack 1",
            "encap ip id 1 dst 10.0.0.9 dev eth0",
            "nexthop via 172.30.0.98 nexthop via 172.30.0.99 weight 5",
            "via 172.30.0.99 metric 77 congctl cubic",
        ] {
            node.sh(&format!("ip route add 10.244.1.0/26 {attributes}"));
            let doctor = node.hostgw(&["doctor"]).expect(11);
            doctor.says("HG0852");
            let (_, rest) = doctor.stdout.split_once("remove it with `").expect("a remedy");
            let (command, _) = rest.split_once('`').expect("the end of the command");
            node.sh(command);
            node.hostgw(&["doctor"]).expect(0).says("no findings");
        }
    });
}
