//! `hostgw import --live` on nodes that were set up by hand or by a network plugin: hostgw adopts the routes, the rest is
//! removed, and pods never lose a packet.
//!
//! The plugins themselves are not installed. Their routes, rules and chains are those that they create.

use std::process::{Child, Stdio};

use super::settled;
use crate::support::{
    namespace::{Namespace, Outcome, Peer, Privilege, each},
    schema::{accept, strict},
};

/// A way to set up a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// A bridge with two pods, and no routes.
    Bare,
    /// The recipe of the README.
    Recipe,
    /// flannel with its host-gw backend.
    Flannel,
    /// The same with IPv6, and a firewall that drops what no rule accepts, as Docker sets it up.
    FlannelBesideDocker,
    /// kube-router without an overlay.
    KubeRouter,
    /// The same with IPv6.
    KubeRouterDualStack,
    /// Calico without encapsulation.
    Calico,
    /// `ip route` as in Kubernetes The Hard Way, and the bridge plugin.
    HardWay,
    /// Routes with the kernel's protocol, as Cilium adds them, a route that rejects packets to other pods, and a rule with a set.
    Unassigned,
}

impl Setup {
    /// The one with this name in a guide.
    pub fn named(name: &str) -> Option<Self> {
        let names = [
            ("bare", Self::Bare),
            ("recipe", Self::Recipe),
            ("flannel", Self::Flannel),
            ("kube-router", Self::KubeRouter),
        ];
        names.iter().find(|(known, _)| *known == name).map(|(_, setup)| *setup)
    }

    /// The interface to the pod on the node.
    const fn pod_interface(self) -> &'static str {
        match self {
            Self::Calico => "cali0123456789a",
            Self::KubeRouter | Self::KubeRouterDualStack => "kube-bridge",
            _ => "cni0",
        }
    }

    /// What whoever set the node up did.
    fn script(self) -> String {
        match self {
            Self::Bare => String::new(),
            Self::Recipe => RECIPE.to_owned(),
            Self::Flannel => FLANNEL.to_owned(),
            Self::FlannelBesideDocker => {
                let ipv6 = FLANNEL
                    .replace("iptables", "ip6tables")
                    .replace("10.244.0.0/16", "fd00:244::/48")
                    .replace("10.244.0.0/24", "fd00:244::/64")
                    .replace("224.0.0.0/4", "ff00::/8")
                    .replace("10.244.1.0/24 via 172.30.0.12", "fd00:244:0:1::/64 via fd00:30::12")
                    .replace("10.244.2.0/24 via 172.30.0.13", "fd00:244:0:2::/64 via fd00:30::13");
                format!("iptables -P FORWARD DROP\nip6tables -P FORWARD DROP\n{FLANNEL}\n{ipv6}")
            }
            Self::KubeRouter => KUBE_ROUTER.to_owned(),
            Self::KubeRouterDualStack => {
                let ipv6 = KUBE_ROUTER
                    .replace("iptables", "ip6tables")
                    .replace("10.244.0.0/16", "fd00:244::/48")
                    .replace("10.244.1.0/24 via 172.30.0.12", "fd00:244:0:1::/64 via fd00:30::12")
                    .replace("10.244.2.0/24 via 172.30.0.13", "fd00:244:0:2::/64 via fd00:30::13")
                    .replace("ip rule add from 10.244.0.0/24", "ip -6 rule add from fd00:244::/64");
                format!("{KUBE_ROUTER}\n{ipv6}")
            }
            Self::Calico => CALICO.to_owned(),
            Self::HardWay => HARD_WAY.to_owned(),
            Self::Unassigned => REJECTS_UNASSIGNED.to_owned(),
        }
    }

    /// Whether the pods have IPv6, too.
    const fn has_ipv6(self) -> bool {
        matches!(self, Self::FlannelBesideDocker | Self::KubeRouterDualStack)
    }
}

const RECIPE: &str = "
iptables -t nat -A POSTROUTING ! -d 10.244.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE
ip route add 10.244.0.0/16 dev eth0
ip route add 10.244.1.0/24 via 10.244.1.1 dev eth0
ip route add 10.244.2.0/24 via 10.244.2.2 dev eth0
";

const FLANNEL: &str = r#"
iptables -t nat -N FLANNEL-POSTRTG
iptables -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
iptables -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment "flanneld masq" -j RETURN
iptables -t nat -A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment "flanneld masq" -j RETURN
iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
iptables -t nat -A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
iptables -N FLANNEL-FWD
iptables -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
iptables -A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
ip route add 10.244.1.0/24 via 172.30.0.12 dev eth0
ip route add 10.244.2.0/24 via 172.30.0.13 dev eth0
"#;

/// With network policies: each pod has a chain that refuses what no policy has marked.
const KUBE_ROUTER: &str = r#"
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m comment --comment "kube-router pod egress" -j MASQUERADE --random-fully
for chain in KUBE-ROUTER-FORWARD KUBE-POD-FW-3K2JW6DZRWTVG3LX KUBE-NWPLCY-DEFAULT; do iptables -N $chain; done
iptables -A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
iptables -A KUBE-ROUTER-FORWARD -m comment --comment "rule to jump traffic of POD" -j KUBE-POD-FW-3K2JW6DZRWTVG3LX
iptables -A KUBE-POD-FW-3K2JW6DZRWTVG3LX -m comment --comment "run through default policy" -j KUBE-NWPLCY-DEFAULT
iptables -A KUBE-NWPLCY-DEFAULT -m comment --comment "rule to mark traffic" -j MARK --set-xmark 0x10000/0x10000
iptables -A KUBE-POD-FW-3K2JW6DZRWTVG3LX -m mark ! --mark 0x10000/0x10000 -m comment --comment "rule to REJECT traffic" -j REJECT
ip route add 10.244.1.0/24 via 172.30.0.12 dev eth0 proto 17
ip route add 10.244.2.0/24 via 172.30.0.13 dev eth0 proto 17
ip rule add from 10.244.0.0/24 lookup 77 priority 32765
"#;

/// Its chains drop what comes from unknown interfaces.
const CALICO: &str = r#"
iptables -t nat -N cali-POSTROUTING
iptables -t nat -N cali-nat-outgoing
iptables -t nat -A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
iptables -t nat -A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-nat-outgoing
iptables -t nat -A cali-nat-outgoing -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m comment --comment "cali:flqWnvo8yq4ULQLa" -j MASQUERADE --random-fully
iptables -N cali-FORWARD
iptables -N cali-from-wl-dispatch
iptables -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
iptables -A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
iptables -A cali-from-wl-dispatch -i cali0123456789a -m comment --comment "cali:5zKJNvKbkB9kuhMf" -j RETURN
iptables -A cali-from-wl-dispatch -m comment --comment "cali:zTj6P0TIgYvgz-md" -j DROP
iptables -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
ip route add blackhole 10.244.0.0/24 proto 80
ip route add 10.244.1.0/24 via 172.30.0.12 dev eth0 proto bird
ip route add 10.244.2.0/24 via 172.30.0.13 dev eth0 proto bird
"#;

const HARD_WAY: &str = r#"
chain=CNI-0123456789abcdef01234567
iptables -t nat -N $chain
iptables -t nat -A POSTROUTING -s 10.244.0.10/32 -m comment --comment 'name: "bridge" id: "0a1b"' -j $chain
iptables -t nat -A $chain -d 10.244.0.0/24 -m comment --comment 'name: "bridge" id: "0a1b"' -j ACCEPT
iptables -t nat -A $chain ! -d 224.0.0.0/4 -m comment --comment 'name: "bridge" id: "0a1b"' -j MASQUERADE
ip route add 10.244.1.0/24 via 172.30.0.12
ip route add 10.244.2.0/24 via 172.30.0.13
"#;

const REJECTS_UNASSIGNED: &str = "
nft 'table ip mine { chain c { type nat hook postrouting priority 100; ip saddr 10.244.0.0/24 ip daddr != { 10.244.0.0/16, 192.0.2.0/24 } masquerade; }; }'
ip route add 10.244.1.0/24 via 172.30.0.12 dev eth0 proto kernel
ip route add 10.244.2.0/24 via 172.30.0.13 dev eth0 proto kernel
ip route add unreachable 10.244.0.0/16 metric 9999
";

/// The pods of both nodes ping each other and the outside all the time, in short runs: each run is a new connection, for which
/// the firewall decides anew. Prints the number of runs, and what is wrong with one.
const FLOW: &str = r#"
    runs=0
    while [ ! -e stop ]; do
        result=$(ping -n -q -c 100 -i 0.002 -W 5 "$1" 2>&1) || :
        case $result in
        *" 100 received, 0% packet loss"*) runs=$((runs + 1)) ;;
        *) echo "lost: $result"; exit 1 ;;
        esac
    done
    echo "runs: $runs"
"#;

/// A node that was set up by somebody else, with a pod, and another node with a pod and the outside behind it.
pub struct SetUpNode {
    pub node: Namespace,
    setup: Setup,
    pod: Peer,
    /// Another pod on the node, if its routes are not set up.
    local: Option<Peer>,
    other: Peer,
    flows: Vec<(String, Child)>,
}

/// The addresses of the pods and of the outside.
const POD: [&str; 2] = ["10.244.0.10", "fd00:244::a"];
const LOCAL_POD: &str = "10.244.0.11";
const OTHER_POD: [&str; 2] = ["10.244.1.10", "fd00:244:0:1::a"];
const OUTSIDE: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];

impl SetUpNode {
    pub fn new(privilege: Privilege, setup: Setup) -> Self {
        let node = Namespace::new(privilege);
        super::plug_in(&node);
        node.sh("ip address add fd00:30::11/64 dev eth0 nodad
             ip link add pod0 type veth peer name inner; ip link set pod0 up");
        if setup != Setup::Bare {
            node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        }
        let other = Peer::behind(&node, "lan0", &[]);
        other.sh(
            &node,
            "ip link add pods type bridge; ip link set pods up
             for address in 172.30.0.12/24 172.30.0.1/24 fd00:30::12/64 fd00:30::1/64 203.0.113.10/32 2001:db8:113::10/128; do
                 ip address add $address dev far nodad
             done
             for address in 10.244.1.1/24 10.244.1.10/24 fd00:244:0:1::a/64; do
                 ip address add $address dev pods nodad
             done
             ip route add 10.244.0.0/24 via 172.30.0.11; ip route add fd00:244::/64 via fd00:30::11",
        );
        // Not by a default route, which would hide a missing route to pods.
        node.sh("ip route add 203.0.113.0/24 via 172.30.0.1; ip route add 2001:db8:113::/64 via fd00:30::1");
        let pod = Peer::behind(&node, "inner", &[]);
        let interface = setup.pod_interface();
        if setup == Setup::Calico {
            node.sh(&format!(
                "ip link set pod0 down; ip link set pod0 name {interface}; ip link set {interface} up
                 ip route add 10.244.0.10 dev {interface} scope link
                 ip address add 169.254.1.1/32 dev {interface}"
            ));
            pod.sh(
                &node,
                "ip address add 10.244.0.10/32 dev far; ip route add 169.254.1.1 dev far; ip route add default via 169.254.1.1",
            );
        } else {
            node.sh(&format!(
                "ip link add {interface} type bridge; ip link set {interface} up; ip link set pod0 master {interface}
                 ip address add 10.244.0.1/24 dev {interface}; ip address add fd00:244::1/64 dev {interface} nodad"
            ));
            pod.sh(
                &node,
                "ip address add 10.244.0.10/24 dev far; ip address add fd00:244::a/64 dev far nodad
                 ip route add default via 10.244.0.1; ip route add default via fd00:244::1",
            );
            if !setup.has_ipv6() {
                node.sh(&format!("ip address del fd00:244::1/64 dev {interface}"));
            }
        }
        let local = (setup == Setup::Bare).then(|| {
            node.sh("ip link add pod1 type veth peer name inner; ip link set pod1 up; ip link set pod1 master cni0");
            let local = Peer::behind(&node, "inner", &[]);
            local.sh(&node, &format!("ip address add {LOCAL_POD}/24 dev far; ip route add default via 10.244.0.1"));
            local
        });
        node.sh(&setup.script());
        Self { node, setup, pod, local, other, flows: Vec::new() }
    }

    /// Starts the pings between the pods that reach each other before hostgw is applied.
    pub fn start_flows(&mut self) {
        if self.local.is_some() {
            self.start([(false, LOCAL_POD)]);
        } else {
            self.start_all_flows();
        }
    }

    /// Starts the pings between the pods of both nodes, and to the outside.
    pub fn start_all_flows(&mut self) {
        let families = if self.setup.has_ipv6() { 0..2 } else { 0..1 };
        for family in families {
            self.start([(false, OTHER_POD[family]), (false, OUTSIDE[family]), (true, POD[family])]);
        }
    }

    /// Starts pings to addresses, from the pod of the node or from that of the other one, once they get through.
    fn start<const N: usize>(&mut self, flows: [(bool, &str); N]) {
        for (is_from_other, to) in flows {
            let from = if is_from_other { &self.other } else { &self.pod };
            from.sh(&self.node, &format!("until ping -n -q -c 1 -W 1 {to} >/dev/null; do sleep 0.02; done"));
            let mut command = from.command(&self.node, "sh");
            command.args(["-c", FLOW, "flow", to]).stdout(Stdio::piped()).stderr(Stdio::piped());
            self.flows.push((to.to_owned(), command.spawn().expect("sh")));
        }
    }

    /// Ends the pings. Returns what each printed.
    pub fn end_flows(&mut self) -> Vec<String> {
        self.node.write("stop", "");
        let outputs = self.flows.drain(..).map(|(to, child)| {
            let output = child.wait_with_output().expect("our child");
            let outcome = Outcome::from_output(&self.node, "ping", output);
            format!("{to}: {}{}", outcome.stdout, outcome.stderr)
        });
        outputs.collect()
    }

    /// Asserts that no packet was lost.
    #[track_caller]
    pub fn assert_nothing_lost(&mut self) {
        let outputs = self.end_flows();
        assert!(!outputs.is_empty(), "no pings");
        for output in outputs {
            let runs = output.split_once("runs: ").and_then(|(_, runs)| runs.trim().parse::<u32>().ok());
            assert!(runs.is_some_and(|runs| runs > 0), "{:?}: {output}", self.setup);
        }
    }
}

impl Drop for SetUpNode {
    fn drop(&mut self) {
        self.node.write("stop", "");
        for (_, child) in &mut self.flows {
            let _ = child.wait();
        }
    }
}

/// Imports, applies and cleans up while the pods send packets, and asserts that nothing of the previous setup is left.
fn migrate(privilege: Privilege, setup: Setup, arguments: &[&str]) -> SetUpNode {
    let mut machine = SetUpNode::new(privilege, setup);
    machine.start_flows();
    let node = &machine.node;
    let before = node.witness();
    let import = [&["import", "--live", "--cleanup", "cleanup.sh"], arguments].concat();
    let imported = node.hostgw_ok(&import);
    node.assert_unchanged(&before, "import --live");
    node.write("hostgw.yaml", &imported.stdout);
    if setup.has_ipv6() {
        // The pings fill the neighbor table.
        imported.says(
            "podCIDR: [10.244.1.0/24, \"fd00:244:0:1::/64\"], address: [172.30.0.12, \"fd00:30::12\"]}\n",
        );
    }

    let plan = node.hostgw(&["plan", "--adopt", "--json", "--detailed-exitcode"]).expect(2).json();
    for change in plan["changes"].as_array().expect("a list") {
        // The kernel keeps the route that rejects packets now, at its own metric.
        let is_added = setup == Setup::Unassigned && change["after"]["route"]["type"] == "unreachable";
        if change["kind"] == "route" && !is_added {
            assert_eq!(change["action"], "update", "{setup:?}: {change:#}");
        }
        assert_ne!(change["kind"], "sysctl", "{setup:?}: {change:#}");
        assert_ne!(change["action"], "remove", "{setup:?}: {change:#}");
    }
    // Without an apply, the script removes nothing, and says why.
    node.try_sh("sh cleanup.sh").expect(1).warns("error: hostgw manages no routes on this node");
    node.assert_unchanged(&before, "a script that runs too early");

    node.hostgw_ok(&["apply", "--adopt", "--yes"]);
    let again = node.hostgw_ok(&import);
    // Only the comments say where the values come from.
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned());
        lines.filter(|line| !line.starts_with('#')).collect()
    };
    assert_eq!(
        values(&again.stdout),
        values(&imported.stdout),
        "{setup:?}: the adopted routes give another file"
    );
    let done = node.sh("sh cleanup.sh");
    assert!(
        ["Done. To check, run `hostgw plan`.\n", "Nothing is left over.\n"].contains(&done.as_str()),
        "{done}"
    );
    settled(node);
    machine.assert_nothing_lost();

    let node = &machine.node;
    let foreign = node.sh("iptables-save | grep '^-A' || :; ip6tables-save | grep '^-A' || :
         iptables-save | grep '^:.* - ' || :; ip6tables-save | grep '^:.* - ' || :
         ip rule | grep 77 || :; ip -6 rule | grep 77 || :; ip route show type blackhole");
    if setup == Setup::FlannelBesideDocker {
        let kept =
            foreign.lines().all(|line| line.starts_with("-A FORWARD -") && line.ends_with(" -j ACCEPT"));
        assert!(kept && foreign.lines().count() == 4, "{foreign}");
    } else {
        assert_eq!(foreign, "", "{setup:?}");
    }
    machine
}

#[test]
fn a_node_set_up_by_the_recipe_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::Recipe, &[]);
    });
}

#[test]
fn a_node_of_flannel_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::Flannel, &[]);
    });
}

#[test]
fn a_node_of_flannel_and_docker_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::FlannelBesideDocker, &[]);
    });
}

#[test]
fn a_node_of_kube_router_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::KubeRouter, &[]);
    });
}

#[test]
fn a_dual_stack_node_of_kube_router_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::KubeRouterDualStack, &[]);
    });
}

#[test]
fn a_node_of_calico_is_migrated_without_losing_a_packet() {
    // Without its blackhole route, which the script removes, the pod CIDR is unknown.
    each(|privilege| {
        migrate(privilege, Setup::Calico, &["--pod-cidr", "10.244.0.0/24"]);
    });
}

#[test]
fn a_node_set_up_the_hard_way_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        migrate(privilege, Setup::HardWay, &["--cluster-prefix", "10.244.0.0/16"]);
    });
}

#[test]
fn a_node_that_rejects_packets_to_other_pods_is_migrated_without_losing_a_packet() {
    each(|privilege| {
        let machine = migrate(privilege, Setup::Unassigned, &[]);
        let node = &machine.node;
        let config = node.sh("cat hostgw.yaml");
        assert!(config.contains("clusterPrefix: 10.244.0.0/16 # from the unreachable route"), "{config}");
        assert!(config.contains("nat: {exclude: [192.0.2.0/24], source: pods}"), "{config}");
        let rejecting = node.look("ip route show type unreachable");
        assert_eq!(rejecting.trim_end(), "unreachable 10.244.0.0/16 proto 87 metric 4294967295");
        assert!(!node.look("nft list table ip mine").contains("masquerade"));
        node.hostgw_ok(&["rollback", "--yes"]);
        let restored = node.look("ip route show 10.244.1.0/24");
        assert_eq!(restored.trim_end(), "10.244.1.0/24 via 172.30.0.12 dev eth0 proto kernel");
    });
}

/// What the outside sees: the packets with the address of the pod, and all others.
fn seen_outside(machine: &SetUpNode) -> [u64; 2] {
    let SetUpNode { node, pod, other, .. } = machine;
    other.sh(
        node,
        "nft delete table ip seen 2>/dev/null || :
         nft -f - <<'END'
         table ip seen {
             counter pod { }
             counter others { }
             chain input {
                 type filter hook input priority 0
                 ip daddr 203.0.113.10 ip saddr 10.244.0.10 counter name pod accept
                 ip daddr 203.0.113.10 counter name others
             }
         }
END",
    );
    pod.sh(node, "ping -n -q -c 1 -W 5 203.0.113.10");
    ["pod", "others"].map(|counter| {
        let text = other.sh(node, &format!("nft list counter ip seen {counter}"));
        let (_, rest) = text.split_once("packets ").expect("a counter");
        rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    })
}

/// Pods keep their address, or get that of the node, through the whole migration.
#[test]
fn masquerading_is_the_same_before_and_after() {
    const KEEPS: [u64; 2] = [1, 0];
    const CHANGES: [u64; 2] = [0, 1];
    let pods = "iptables -t nat -A POSTROUTING -s 10.244.0.0/16";
    let cases = [
        // An exclusion before the rule becomes `nat.exclude`.
        (format!("{pods} -d 203.0.113.0/24 -j RETURN; {pods} -j MASQUERADE"), KEEPS, None),
        // Exclusions after it have no effect.
        (format!("{pods} -j MASQUERADE; {pods} -d 203.0.113.0/24 -j RETURN"), CHANGES, None),
        // Conditions that no configuration can express: the rules stay.
        (format!("{pods} -p tcp -j MASQUERADE"), KEEPS, Some("HG1123")),
        (format!("{pods} -p icmp -j MASQUERADE"), CHANGES, Some("HG1123")),
        ("iptables -t nat -A POSTROUTING -o cni9 -j MASQUERADE".to_owned(), KEEPS, Some("HG1123")),
        ("iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE".to_owned(), CHANGES, None),
        // The rules of a chain of its own.
        (
            format!("iptables -t nat -N PODS; {pods} -j PODS; iptables -t nat -A PODS ! -d 10.0.0.0/8 -j MASQUERADE"),
            CHANGES,
            None,
        ),
        (
            "nft 'table inet mine { chain c { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 ip daddr 203.0.113.0/24 return; ip saddr 10.244.0.0/16 masquerade; }; }'"
                .to_owned(),
            KEEPS,
            None,
        ),
        // Sets of destinations.
        (
            "nft 'table inet mine { chain c { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 203.0.113.0/24 } masquerade; }; }'"
                .to_owned(),
            KEEPS,
            None,
        ),
        (
            "nft 'table ip mine { chain c { type nat hook postrouting priority 100; ip daddr { 10.244.0.0/16, 203.0.113.0/24 } return; ip saddr 10.244.0.0/16 masquerade; }; }'"
                .to_owned(),
            KEEPS,
            None,
        ),
        (
            "nft 'table ip mine { chain c { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 ip daddr != 203.0.113.0/24 masquerade; }; }'"
                .to_owned(),
            KEEPS,
            None,
        ),
        (
            "nft 'table ip mine { chain c { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 192.0.2.0/24 } masquerade; }; }'"
                .to_owned(),
            CHANGES,
            None,
        ),
    ];
    each(|privilege| {
        for (rules, expected, code) in &cases {
            let machine = SetUpNode::new(privilege, Setup::HardWay);
            let node = &machine.node;
            node.sh(&format!("iptables -t nat -F; iptables -t nat -X; {rules}"));
            assert_eq!(seen_outside(&machine), *expected, "before: {rules}");
            let import = ["import", "--live", "--cluster-prefix", "10.244.0.0/16", "--cleanup", "cleanup.sh"];
            let imported = node.hostgw_ok(&import);
            match code {
                Some(code) => {
                    imported.warns(code);
                }
                None => assert!(!imported.stderr.contains("HG1123"), "{rules}: {}", imported.stderr),
            }
            node.write("hostgw.yaml", &imported.stdout);
            node.hostgw_ok(&["apply", "--adopt", "--yes"]);
            assert_eq!(seen_outside(&machine), *expected, "adopted: {rules}\n{}", imported.stdout);
            node.sh("sh cleanup.sh");
            assert_eq!(seen_outside(&machine), *expected, "cleaned up: {rules}\n{}", imported.stdout);
        }
    });
}

/// The kernel's NAT rules of iptables-legacy are not those of nftables.
#[test]
fn rules_of_iptables_legacy_are_imported() {
    each(|privilege| {
        let machine = SetUpNode::new(privilege, Setup::HardWay);
        let node = &machine.node;
        node.sh("iptables -t nat -F; iptables -t nat -X");
        let add = "iptables-legacy -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE";
        // An ordinary user may not list the tables of iptables-legacy.
        if privilege == Privilege::User || node.try_sh(&format!("XTABLES_LOCKFILE=/dev/null {add}")).code != 0
        {
            crate::support::say("Left out: iptables-legacy does not work here");
            return;
        }
        node.hostgw_ok(&["import", "--live"])
            .says("clusterPrefix: 10.244.0.0/16 # from the masquerade rule")
            .says("nat: {source: pods} # from the current masquerade rules")
            .warns("iptables-legacy -t nat -D POSTROUTING -s 10.244.0.0/16");
    });
}

/// A lock of the MTU is lost by the adoption, but neither the MTU itself nor silently.
#[test]
fn a_locked_mtu_is_imported_and_its_lock_is_named() {
    each(|privilege| {
        let machine = SetUpNode::new(privilege, Setup::HardWay);
        let node = &machine.node;
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.12 mtu lock 1400
             ip route replace 10.244.2.0/24 via 172.30.0.13 mtu lock 1400");
        let imported = node.hostgw_ok(&["import", "--live", "--cluster-prefix", "10.244.0.0/16"]);
        imported.says("routes: {mtu: 1400} # from the current routes").warns("HG1124").warns("mtu lock");
        node.write("hostgw.yaml", &imported.stdout);
        node.hostgw_ok(&["plan", "--adopt"]).says("mtu lock");
        node.hostgw_ok(&["apply", "--adopt", "--yes"]);
        assert!(node.look("ip route show 10.244.1.0/24").contains(" mtu 1400"));
        node.hostgw_ok(&["rollback", "--yes"]);
        assert!(node.look("ip route show 10.244.1.0/24").contains(" mtu lock 1400"));
    });
}

/// The control experiment: the pings notice a route that is missing for a moment.
#[test]
fn the_pings_notice_a_gap() {
    each(|privilege| {
        let mut machine = SetUpNode::new(privilege, Setup::Flannel);
        machine.start_flows();
        machine.node.sh("ip route del 10.244.1.0/24; sleep 0.3; ip route add 10.244.1.0/24 via 172.30.0.12");
        let outputs = machine.end_flows();
        assert!(outputs.iter().any(|output| output.contains("lost: ")), "{outputs:?}");
    });
}

#[test]
fn the_result_has_a_document() {
    each(|privilege| {
        let machine = SetUpNode::new(privilege, Setup::KubeRouterDualStack);
        let outcome = machine.node.hostgw_ok(&["import", "--live", "--json"]);
        let document = outcome.json();
        accept(&strict("import"), &outcome.to_string(), &document);
        let warned: Vec<_> = document["findings"].as_array().unwrap().iter().map(|it| &it["code"]).collect();
        assert_eq!(warned, ["HG1119", "HG1120"], "{document:#}");
        assert_eq!(document["nodes"], 5);
        let kinds: Vec<&str> =
            document["leftovers"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"rule"), Some(&"policyRule")));
        // In a terminal, the commands follow the warning.
        let outcome = machine.node.hostgw_ok(&["import", "--live"]);
        assert_eq!(document["configuration"], outcome.stdout);
        outcome.warns("\n    ip rule del priority 32765 from 10.244.0.0/24 lookup 77\n");
    });
}

#[test]
fn what_cannot_be_described_is_refused() {
    each(|privilege| {
        let machine = SetUpNode::new(privilege, Setup::Flannel);
        let node = &machine.node;
        for (arguments, code, why) in [
            (&["--pod-cidr", "none"][..], 3, "pass --cluster-prefix"),
            (
                &["--pod-cidr", "none,10.244.0.0/24"],
                64,
                "--pod-cidr none cannot be combined with other pod CIDRs",
            ),
            (&["--pod-cidr", "10.244.0.1/24"], 64, "did you mean 10.244.0.0/24?"),
            (&["--cluster-prefix", "10.9.0.0/16"], 3, "found no pod interface in 10.9.0.0/16 on this node"),
            (&["--egress-interface", "eth9"], 3, "error[HG1106]"),
            (&["--node-name", ""], 3, "--node-name"),
            (&["--update", "x.yaml"], 64, "cannot be used with"),
            (&["--cleanup", "."], 1, "cannot write ."),
        ] {
            node.hostgw(&[&["import", "--live"], arguments].concat()).expect(code).warns(why);
        }
        node.hostgw(&["import", "--cleanup", "x"]).expect(64).warns("--live");
        node.sh(
            "ip route replace 10.244.2.0/24 via 172.30.0.13 metric 7; ip route del 10.244.2.0/24 metric 0",
        );
        node.hostgw(&["import", "--live"])
            .expect(3)
            .warns("error[HG1108]: the routes to other nodes use several metrics");
        assert_eq!(node.sh("ls"), "");
    });
}

/// Without root, the routes are described, and the firewall is unknown.
#[test]
fn without_privileges_the_list_of_leftovers_is_incomplete() {
    let machine = SetUpNode::new(Privilege::User, Setup::Flannel);
    let outcome = machine.node.try_sh(
        "exec setpriv --inh-caps=-all --bounding-set=-all --ambient-caps=-all \"$HOSTGW\" import --live --cluster-prefix 10.244.0.0/16",
    );
    outcome.expect(9).says("node-172-30-0-12").warns("the list of what is left over is incomplete");
}
