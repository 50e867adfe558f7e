//! Packets that a node loses, what `hostgw doctor` says about them, and whether its remedy cures them: `ping` judges.

use super::{RECIPE, doctor::healthy_node};
use crate::support::namespace::{Namespace, Peer, SimulatedCluster, each};

/// A cause of lost packets.
struct Loss {
    /// What causes it on node linux-1.
    cause: &'static str,
    /// Who sends packets, and where to.
    lost: (&'static str, &'static str),
    /// Options of `hostgw doctor`.
    options: &'static str,
    /// What it says.
    finding: &'static str,
    /// The remedy that it prints.
    remedy: &'static str,
}

const OUT: (&str, &str) = ("pod of linux-1", "10.244.1.10");
const IN: (&str, &str) = ("pod of linux-2", "10.244.0.10");

const LOSSES: [Loss; 8] = [
    Loss {
        cause: "ip neigh replace 10.244.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent",
        lost: OUT,
        options: "",
        finding: "warning[HG1048]: the neighbor entry of next hop 10.244.1.1 on eth0 (node linux-2) is static",
        remedy: "ip neigh del 10.244.1.1 dev eth0",
    },
    Loss {
        cause: "ip neigh replace 10.244.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent",
        lost: OUT,
        options: "--probe",
        finding: "error[HG1048]: the static neighbor entry for 10.244.1.1 on eth0 (node linux-2) has MAC address \
                  02:00:00:00:00:99, but ",
        remedy: "ip neigh del 10.244.1.1 dev eth0",
    },
    Loss {
        cause: "ip link set cni0 arp off",
        lost: OUT,
        options: "",
        finding: "error[HG1044]: ARP is off on cni0, which leads to pods",
        remedy: "ip link set cni0 arp on",
    },
    Loss {
        cause: "sysctl -qw net.ipv4.conf.all.arp_ignore=8",
        lost: IN,
        options: "",
        finding: "error[HG1011]: net.ipv4.conf.all.arp_ignore is 8",
        remedy: "sysctl -w net.ipv4.conf.all.arp_ignore=0",
    },
    Loss {
        cause: "ip rule add priority 100 lookup main; ip rule add priority 200 lookup local; ip rule del priority 0",
        lost: OUT,
        options: "",
        finding: "error[HG1050]: the policy rule `100: from all lookup main` applies before the rule that looks up table local",
        remedy: "ip rule add priority 0 lookup local",
    },
    Loss {
        cause: "ip rule add priority 0 lookup main; ip rule del priority 0 lookup local; ip rule add priority 50 lookup local",
        lost: IN,
        options: "",
        finding: "error[HG1050]: the policy rule `0: from all lookup main` applies before the rule that looks up table local",
        remedy: "ip rule del priority 0 from all lookup main",
    },
    Loss {
        cause: "while ip rule del lookup local; do :; done",
        lost: IN,
        options: "",
        finding: "error[HG1050]: no policy rule looks up table local",
        remedy: "ip rule add priority 0 lookup local",
    },
    Loss {
        cause: "ip route del local 10.244.0.1 dev cni0 table local",
        lost: IN,
        options: "",
        finding: "error[HG1050]: table local has no route for 10.244.0.1",
        remedy: "ip route add local 10.244.0.1 dev cni0 table local",
    },
];

#[test]
fn remedies_cure_lost_packets() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        let arrives = |(from, to): (&str, &str)| {
            // What the nodes and pods have learned before must not hide the loss.
            for place in ["node linux-1", "node linux-2", "pod of linux-1", "pod of linux-2"] {
                cluster.sh(place, "ip neigh flush all");
            }
            cluster.try_sh(from, &format!("ping -n -q -c 1 -W 1 {to}")).code == 0
        };
        let node = |script: &str| cluster.try_sh("node linux-1", script);
        let doctor = |options: &str| node(&format!("\"$HOSTGW\" doctor --node linux-1 {options}"));
        for Loss { cause, lost, options, finding, remedy } in LOSSES {
            doctor("--probe").expect(0).says("no findings");
            assert!(arrives(lost), "before {cause}");
            node(cause).expect(0);
            assert!(!arrives(lost), "{cause}");
            doctor(options).expect(11).says(finding).says(&format!("`{remedy}`"));
            node(remedy).expect(0);
            assert!(arrives(lost), "{cause}: not cured by {remedy}");
            node("ip rule add priority 1 lookup local; while ip rule del priority 0; do :; done; ip rule add priority 0 lookup local
                  ip rule del priority 1 lookup local; while ip rule del priority 50; do :; done
                  for priority in 100 200; do ip rule del priority $priority || :; done");
        }
        doctor("--probe").expect(0).says("no findings");
    });
}

/// Two nodes with both families.
const DUAL_STACK: &str = "\
clusterPrefix: [10.244.0.0/16, \"fd00:244::/48\"]
egressInterface: eth0
nextHop: node-address
nodes:
  - {name: linux-1, os: linux, podCIDR: [10.244.0.0/24, \"fd00:244::/64\"], address: [172.30.0.11, \"fd00:30::11\"]}
  - {name: linux-2, os: linux, podCIDR: [10.244.1.0/24, \"fd00:244:0:1::/64\"], address: [172.30.0.12, \"fd00:30::12\"]}
";

/// Where an IPv6 route is for certain sources only, the kernel drops packets from all others: hostgw's own route to the same
/// destination is not in its place, but unused.
#[test]
fn a_route_for_certain_sources_hides_a_managed_one() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, DUAL_STACK);
        let node = |script: &str| cluster.try_sh("node linux-1", script);
        let hostgw = |arguments: &str| node(&format!("\"$HOSTGW\" {arguments} --node linux-1"));
        let arrives = || {
            let ping = "ping -n -q -c 1 -W 1 fd00:244:0:1::a >&2 && echo arrived || :";
            cluster.sh("pod of linux-1", ping).contains("arrived")
        };
        let limited = "fd00:244:0:1::/64 from fd00:9::/64";
        let add = |options: &str| {
            assert!(arrives(), "before {options}");
            node(&format!("ip -6 route add {limited} via fd00:30::12 dev eth0{options}")).expect(0);
            assert!(!arrives(), "{options}");
        };
        for metric in ["", " metric 512"] {
            add(metric);
            let why = "(with from fd00:9::/64)` keeps packets from other sources from using other routes to";
            hostgw("plan").expect(0).says("No changes.").says("warning[HG0852]: ").says(why);
            hostgw("apply --yes").expect(0);
            let remedy = format!("ip -6 route del {limited} via fd00:30::12{metric}");
            hostgw("doctor").expect(11).says("error[HG0852]: ").says(why).says(&format!("`{remedy}`"));
            node(&remedy).expect(0);
        }
        // It is drift if it has hostgw's protocol.
        add(" proto 87");
        hostgw("apply --yes").expect(0).says("Plan: 0 to add, 0 to update, 1 to remove.");
        assert!(arrives());
        hostgw("doctor").expect(0).says("no findings");
    });
}

/// A second machine with the address of a next hop.
#[test]
fn two_machines_with_the_same_address_are_found() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        cluster.sh("node win-1", "ip address add 10.244.1.1/32 dev lo");
        let doctor = || cluster.try_sh("node linux-1", "\"$HOSTGW\" doctor --node linux-1 --probe");
        doctor()
            .expect(11)
            .says("error[HG1049]: 2 MAC addresses answer for 10.244.1.1 on eth0 (node linux-2): ");
        cluster.sh("node win-1", "ip address del 10.244.1.1/32 dev lo");
        doctor().expect(0).says("no findings");
    });
}

/// Adds a pod to a node, behind a port of its bridge.
fn pod(node: &Namespace, number: u8) -> Peer {
    node.sh(&format!(
        "ip link add veth{number} type veth peer name pod{number}; ip link set veth{number} master cni0 up"
    ));
    let pod = Peer::behind(node, &format!("pod{number}"), &[]);
    pod.sh(
        node,
        &format!("ip address add 10.244.0.{number}/24 dev far; ip route add default via 10.244.0.1"),
    );
    pod
}

/// Bridged packets pass the firewall if `br_netfilter` is loaded, and some bridges isolate their ports.
#[test]
fn remedies_cure_lost_packets_between_pods_of_one_node() {
    each(|privilege| {
        let node = healthy_node(privilege);
        let pods = [20, 21].map(|number| pod(&node, number));
        let arrives = || {
            let ping = "ping -n -q -c 1 -W 1 10.244.0.21 >&2 && echo arrived || :";
            pods[0].sh(&node, ping).contains("arrived")
        };
        let check = |cause: &str, finding: &str, remedy: &str| {
            node.hostgw(&["doctor"]).expect(0).says("no findings");
            assert!(arrives(), "before {cause}");
            node.sh(cause);
            assert!(!arrives(), "{cause}");
            node.hostgw(&["doctor"]).expect(11).says(finding).says(&format!("`{remedy}`"));
            node.sh(remedy);
            assert!(arrives(), "{cause}: not cured by {remedy}");
        };
        node.sh("bridge link set dev veth20 isolated on");
        check(
            "bridge link set dev veth21 isolated on",
            "warning[HG1052]: ports veth20, veth21 of cni0 are isolated: the pods behind them cannot reach each other",
            "bridge link set dev veth21 isolated off",
        );
        node.sh("bridge link set dev veth20 isolated off");
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if node.try_sh(&format!("echo 1 >{switch}")).code != 0 {
            crate::support::say("Left out: br_netfilter is not loaded");
            return;
        }
        check(
            "iptables-nft -A FORWARD -i cni0 -o cni0 -j DROP",
            "error[HG1004]: the rule with handle 2 in chain `FORWARD` in table `ip filter` drops packets between pods of this node; \
             they pass the firewall, although they are only bridged, because net.bridge.bridge-nf-call-iptables is 1",
            "iptables -I FORWARD -i cni0 -o cni0 -j ACCEPT",
        );
        node.sh("iptables-nft -F FORWARD");
        check(
            "iptables-nft -A FORWARD -i cni0 ! -o cni0 -j ACCEPT; iptables-nft -A FORWARD -i eth0 -j ACCEPT
             iptables-nft -P FORWARD DROP",
            "error[HG1004]: the policy of chain `FORWARD` in table `ip filter` drops packets between pods of this node",
            "iptables -A FORWARD -i cni0 -o cni0 -j ACCEPT",
        );
        node.sh("iptables-nft -P FORWARD ACCEPT; iptables-nft -F FORWARD");
        check(
            "nft add table inet fw; nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'
             nft add rule inet fw f iifname cni0 oifname eth0 accept; nft add rule inet fw f iifname eth0 accept",
            "error[HG1004]: the policy of chain `f` in table `inet fw` drops packets between pods of this node",
            "nft add rule inet fw f iifname cni0 oifname cni0 accept",
        );
        node.sh(&format!(
            "nft flush chain inet fw f; nft add rule inet fw f iifname cni0 oifname != cni0 accept
             nft add rule inet fw f iifname eth0 accept; echo 0 >{switch}"
        ));
        check(
            "ip link set cni0 type bridge nf_call_iptables 1",
            "although they are only bridged, because nf_call_iptables is set on cni0",
            "nft add rule inet fw f iifname cni0 oifname cni0 accept",
        );
    });
}
