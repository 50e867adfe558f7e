//! The script of `hostgw render` for a Linux node, run by sh: its result is the same as that of apply, and its undo
//! restores the previous state.

use super::{NODE_1, NODE_2, NODE_3, cluster, dual_stack, large_cluster, node};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

/// Initial states of a node: a name, whether NODE_1 to NODE_3 were applied by hostgw, and further changes.
const STARTS: [(&str, bool, &str); 9] = [
    ("fresh", false, ""),
    (
        "foreign routes elsewhere",
        false,
        "ip route add 10.245.0.0/16 via 172.30.0.9; ip route add 10.244.1.0/25 via 172.30.0.9",
    ),
    ("a foreign table", false, "nft add table ip other; nft add chain ip other postrouting"),
    ("in effect", true, ""),
    ("a route is gone", true, "ip route del 10.244.1.0/24"),
    ("another gateway", true, "ip route change 10.244.1.0/24 via 172.30.0.9 dev eth0 proto 87"),
    (
        "stale routes",
        true,
        "ip route add 10.244.9.0/24 via 172.30.0.9 proto 87
         ip route add 10.244.8.0/24 via 172.30.0.9 proto 87 table 100 metric 7 mtu 1400
         ip route add blackhole 10.244.10.0/24 proto 87
         ip route append 10.244.1.0/24 via 172.30.0.8 proto 87
         ip route add 10.244.7.0/24 via 172.30.0.9",
    ),
    (
        "another table",
        true,
        "nft add rule ip hostgw postrouting counter; nft add chain ip hostgw more; nft add table ip6 hostgw",
    ),
    (
        "nothing forwards",
        true,
        "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding",
    ),
];

/// Renders the script of a node to its folder.
fn render(node: &Namespace, name: &str) {
    node.write("node.sh", &node.hostgw_ok(&["render", "--node", name]).stdout);
}

fn script(node: &Namespace, options: &str) -> Outcome {
    script_by("sh", node, options)
}

fn script_by(shell: &str, node: &Namespace, options: &str) -> Outcome {
    node.try_sh(&format!("HOSTGW_STATE_DIR=$PWD/scripts {shell} node.sh {options}"))
}

fn configuration() -> String {
    cluster(
        "sysctls: {net.ipv4.conf.eth0.rp_filter: 2, net.ipv4.conf.all.accept_redirects: 1}",
        &[NODE_1, NODE_2, NODE_3],
    )
}

#[test]
fn the_script_has_the_result_of_apply_and_its_undo_restores_the_previous_state() {
    each(|privilege| {
        for (at, (what, applied, change)) in STARTS.into_iter().enumerate() {
            let shell = ["sh", "busybox sh", "bash --posix"][at % 3];
            let script = |node: &Namespace, options: &str| script_by(shell, node, options);
            let node = node(privilege);
            node.write("hostgw.yaml", &configuration());
            if applied {
                node.hostgw_ok(&["apply", "--yes"]);
            }
            node.sh(change);
            let before = node.witness();
            render(&node, "linux-1");
            script(&node, "--dry-run").expect(0);
            node.assert_unchanged(&before, &format!("--dry-run: {what}"));
            script(&node, "").expect(0);
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
            let after = node.witness();
            script(&node, "").expect(0).says("No changes");
            node.assert_unchanged(&after, &format!("a second run: {what}"));
            if after != before {
                script(&node, "--undo").expect(0);
                node.assert_unchanged(&before, &format!("--undo: {what}"));
                script(&node, "--undo").expect(0).says("Nothing to undo");
            }
            node.hostgw_ok(&["apply", "--yes"]);
            node.assert_unchanged(&after, &format!("apply: {what}"));
        }
    });
}

/// A script finds out which next hops are on other links, as hostgw does.
#[test]
fn next_hops_on_other_links() {
    let configuration = |next_hop: &str, off_link: &str| {
        format!(
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: {next_hop}
offLink: {off_link}
routes: {{mtu: 1400}}
nodes:
  - {{name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, 'fd00:30::11']}}
  - {{name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, 'fd00:30::12']}}
  - {{name: far, os: linux, podCIDR: [10.244.2.0/24, 'fd00:244:0:3::/64'], address: [172.31.0.13, 'fd00:31::13']}}
"
        )
    };
    each(|privilege| {
        for (at, (next_hop, off_link, route)) in [
            ("node-address", "skip", ""),
            ("node-address", "gateway", "10.244.2.0/24 via 172.30.0.1 dev eth0 mtu 1400"),
            ("node-address", "onlink", "10.244.2.0/24 via 172.31.0.13 dev eth0 onlink mtu 1400"),
            ("pod-gateway", "skip", ""),
            ("pod-gateway", "gateway", "10.244.2.0/24 via 172.30.0.1 dev eth0 mtu 1400"),
        ]
        .into_iter()
        .enumerate()
        {
            let shell = ["sh", "busybox sh", "bash --posix"][at % 3];
            let script = |node: &Namespace, options: &str| script_by(shell, node, options);
            let node = node(privilege);
            node.sh("ip address add fd00:30::11/64 dev eth0 nodad; ip route add default via 172.30.0.1");
            node.await_ipv6_addresses();
            node.sh("ip -6 route add default via fd00:30::1");
            node.write("hostgw.yaml", &configuration(next_hop, off_link));
            let before = node.witness();
            render(&node, "a");
            let outcome = script(&node, "").expect(0);
            if off_link == "skip" {
                outcome.says("note: no route to 2 pod CIDRs, because their next hops are on other links");
            }
            let routes = node.look("ip route show 10.244.2.0/24 proto 87");
            assert_eq!(routes.trim().replace(" proto 87", ""), route, "{next_hop} {off_link}");
            node.hostgw(&["plan", "--node", "a", "--detailed-exitcode"]).expect(0).says("No changes");
            script(&node, "").expect(0).says("No changes");
            script(&node, "--undo").expect(0);
            node.assert_unchanged(&before, &format!("--undo: {next_hop} {off_link}"));
        }
        let node = node(privilege);
        node.write("hostgw.yaml", &configuration("node-address", "skip"));
        for form in ["systemd-networkd", "ifupdown"] {
            node.hostgw(&["render", "--node", "a", "--persist", form])
                .expect(3)
                .warns("with offLink, they depend on this node's links");
        }
        node.hostgw_ok(&["render", "--node", "a", "--persist", "nftables"]);
    });
}

/// The kernel rejects the address as a source before duplicate address detection has finished, which an interface without
/// carrier cannot start.
#[test]
fn a_tentative_address_is_not_a_source() {
    each(|privilege| {
        let node = node(privilege);
        node.write(
            "hostgw.yaml",
            "clusterPrefix: fd00:244::/48
egressInterface: eth0
nextHop: node-address
routes: {source: node-address}
nat: {to: node-address}
nodes:
  - {name: a, os: linux, podCIDR: 'fd00:244:0:1::/64', address: 'fd00:30::11'}
  - {name: b, os: linux, podCIDR: 'fd00:244:0:2::/64', address: 'fd00:30::12'}
",
        );
        node.sh("ip address add fd00:30::10/64 dev eth0 nodad
             ip link add off type veth peer name off-peer && sysctl -qw net.ipv6.conf.off.accept_dad=1
             ip link set off up && ip address add fd00:30::11/128 dev off");
        let why = "fd00:30::11 (node a) cannot be the source of routes and of masqueraded packets: duplicate address detection for it \
                   has not finished on off";
        node.hostgw(&["plan", "--node", "a"]).expect(3).warns(why);
        let rejected = "ip -6 route add fd00:244:0:2::/64 via fd00:30::12 dev eth0 src fd00:30::11";
        node.try_sh(rejected).expect(2).warns("Invalid source address");
        render(&node, "a");
        script(&node, "").expect(3).warns("duplicate address detection has not finished");
        node.hostgw(&["doctor", "--node", "a"])
            .says("the kernel does not use this node's address fd00:30::11 on off yet");
        node.sh("ip link set off-peer up");
        node.wait_until("the address is used", || !node.sh("ip -6 address").contains("tentative"));
        node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
        let routes = node.look("ip -6 route show proto 87");
        assert!(routes.contains("fd00:244:0:2::/64 via fd00:30::12 dev eth0 src fd00:30::11"), "{routes}");
    });
}

#[test]
fn options_of_routes_both_families_and_other_next_hops() {
    each(|privilege| {
        let pods = "nat: {source: pods, exclude: [192.168.0.0/16], randomFully: true}\nroutes: {table: 100, metric: 7, mtu: 1400}";
        let by_node = "nextHop: node-address\nnat: {masquerade: false}";
        for configuration in [
            cluster(pods, &[NODE_1, NODE_2, NODE_3]),
            cluster(by_node, &[NODE_1, NODE_2, NODE_3]),
            dual_stack::CLUSTER.to_owned(),
        ] {
            let node = node(privilege);
            node.sh("ip address add fd00:30::11/64 dev eth0 nodad");
            node.await_ipv6_addresses();
            let before = node.witness();
            node.write("hostgw.yaml", &configuration);
            render(&node, "linux-1");
            script(&node, "").expect(0);
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
            let after = node.witness();
            script(&node, "").expect(0).says("No changes");
            script(&node, "--undo").expect(0);
            node.assert_unchanged(&before, &configuration);
            node.hostgw_ok(&["apply", "--yes"]);
            node.assert_unchanged(&after, &configuration);
        }
    });
}

#[test]
fn conflicts_and_wrong_machines_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &configuration());
        render(&node, "linux-1");
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.1 proto static");
        let before = node.witness();
        script(&node, "").expect(10).says("! 10.244.1.0/24 via 172.30.0.1 dev eth0 proto 4");
        node.assert_unchanged(&before, "a conflict");
        node.sh("ip route del 10.244.1.0/24; ip link set eth0 down");
        script(&node, "").expect(3).warns("the interface eth0 is down");
        node.sh("ip link set eth0 name eth7");
        script(&node, "").expect(3).warns("this machine has no interface eth0");
        script(&node, "--destroy").expect(64);
        node.write(
            "hostgw.yaml",
            &configuration().replace("egressInterface: eth0", "egressInterface: 'a#b'"),
        );
        render(&node, "linux-1");
        script(&node, "").expect(3).warns("ip -batch cannot name the interface a#b");
    });
}

/// A change that the kernel refuses after others were made.
#[test]
fn a_failure_midway_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        node.write(
            "hostgw.yaml",
            &cluster(
                "sysctls: {net.ipv4.conf.eth0.rp_filter: 2, net.ipv4.ip_default_ttl: 300}",
                &[NODE_1, NODE_2, NODE_3],
            ),
        );
        render(&node, "linux-1");
        let before = node.witness();
        script(&node, "").expect(6).warns("Rolled back and verified: the node is in its previous state.");
        node.assert_unchanged(&before, "a refused sysctl");
        // The next hop is not reachable any more.
        node.write(
            "hostgw.yaml",
            &cluster("nextHop: node-address", &[NODE_1, NODE_2, ("far", "10.244.2.0/24", "192.0.2.9")]),
        );
        render(&node, "linux-1");
        script(&node, "").expect(6);
        node.assert_unchanged(&before, "a refused route");
    });
}

/// The next run, or --undo, rolls back what a kill left behind.
#[test]
fn an_interrupted_run_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &configuration());
        render(&node, "linux-1");
        let before = node.witness();
        node.sh("mkdir bin");
        // The script reads a sysctl with tr, directly after the write.
        node.write(
            "bin/tr",
            "#!/bin/sh\ncase $(readlink /proc/self/fd/0) in /proc/sys/*) kill -KILL $SCRIPT ;; esac\nexec /usr/bin/tr \"$@\"\n",
        );
        node.sh("chmod 755 bin/tr");
        let run = "PATH=$PWD/bin:$PATH HOSTGW_STATE_DIR=$PWD/scripts sh -c 'SCRIPT=$$; export SCRIPT; exec sh node.sh'";
        let killed = node.try_sh(run);
        assert_ne!(killed.code, 0, "{killed}");
        await_lock(&node);
        assert_ne!(node.witness(), before, "the node is partly changed");
        script(&node, "--undo").expect(0);
        node.assert_unchanged(&before, "a kill, and --undo");
        node.try_sh(run);
        await_lock(&node);
        script(&node, "").expect(0).warns("A previous run was interrupted");
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(0);
        script(&node, "--undo").expect(0);
        node.assert_unchanged(&before, "the next run, and --undo");
    });
}

/// Waits until no child process of a killed script is left, which would hold the lock.
pub(super) fn await_lock(node: &Namespace) {
    node.wait_until("the lock is free", || node.are_free("scripts/script-"));
}

/// A substitute for a program. It counts its calls, and kills the script before or after the one with a given number.
const KILLER: &str = r#"#!/bin/sh
read -r number <"$FOLDER/count"
number=$((number + 1))
echo "$number" >"$FOLDER/count"
PATH=$REAL
[ "$number" != "$KILL_BEFORE" ] || { kill -KILL "$SCRIPT"; exit 1; }
"${0##*/}" "$@"
code=$?
[ "$number" != "$KILL_AFTER" ] || kill -KILL "$SCRIPT"
exit $code
"#;

/// After a kill at any call that changes something, --undo restores the previous state.
#[test]
fn a_kill_at_any_call_is_rolled_back() {
    use crate::support::namespace::{Privilege, is_root};
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    node.write("hostgw.yaml", &configuration());
    render(&node, "linux-1");
    node.write("killer", KILLER);
    node.sh("mkdir bin; chmod 755 killer
             for program in ip nft tr mv rm mkdir cp; do ln -s ../killer bin/$program; done
             ip route add 10.244.9.0/24 via 172.30.0.9 proto 87; nft add table ip hostgw");
    let before = node.witness();
    let mut killed_midway = 0;
    for call in 1.. {
        let mut ended = false;
        for when in ["BEFORE", "AFTER"] {
            let outcome = node.try_sh(&format!(
                "echo 0 >count; export FOLDER=$PWD REAL=$PATH KILL_BEFORE= KILL_AFTER= HOSTGW_STATE_DIR=$PWD/scripts
                 export KILL_{when}={call} PATH=$PWD/bin:$PATH
                 sh -c 'SCRIPT=$$; export SCRIPT; exec sh node.sh'"
            ));
            ended = outcome.code == 0;
            await_lock(&node);
            killed_midway += usize::from(node.try_sh("ls -d scripts/script-*/open").code == 0);
            script(&node, "--undo").expect(0);
            node.assert_unchanged(&before, &format!("a kill {when} call {call}"));
        }
        if ended {
            break;
        }
    }
    assert!(killed_midway > 10, "{killed_midway} kills came midway");
}

/// Untrusted names have no effect.
#[test]
fn hostile_names_have_no_effect() {
    each(|privilege| {
        let node = node(privilege);
        let own = "a'$(id>owned)`id>owned`\"\u{202e}#;id>owned;";
        let other = "x'$(id>owned)`id>owned`\"\\#END\u{202e};id>owned;";
        let text = configuration()
            .replace("name: linux-1", &format!("name: {}", serde_json::Value::from(own)))
            .replace("name: linux-2", &format!("name: {}", serde_json::Value::from(other)));
        node.write("hostgw.yaml", &text);
        render(&node, own);
        script(&node, "").expect(0);
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(0);
        assert_eq!(node.sh("ls"), node.sh("ls | grep -v owned"));
        node.sh("! grep -P '\\x{202e}' node.sh");
        // Names that the shell would expand to file names or to a variable.
        node.sh("ip link set eth0 down; ip link set eth0 name '*$x'; ip link set '*$x' up");
        node.write(
            "hostgw.yaml",
            &text
                .replace("egressInterface: eth0", "egressInterface: '*$x'")
                .replace("conf.eth0.", "conf.lo."),
        );
        render(&node, own);
        script(&node, "").expect(0);
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
        for kind in super::persist::PROGRAMS {
            let id: &[&str] = if kind == "netplan" { &["--netplan-id", "uplink"] } else { &[] };
            let file = node.hostgw_ok(&[&["render", "--node", own, "--persist", kind], id].concat());
            assert!(
                file.stdout.lines().all(|line| {
                    line.starts_with('#') || line.starts_with("node='") || !line.contains("owned")
                }),
                "{file}"
            );
        }
    });
}

#[test]
fn a_mass_removal_is_refused_without_its_number() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &large_cluster(21));
        node.hostgw_ok(&["apply", "--yes", "--node", "linux-0"]);
        let before = node.witness();
        for (left, removed) in [(6, 15), (1, 20)] {
            node.write("hostgw.yaml", &large_cluster(left));
            render(&node, "linux-0");
            script(&node, "").expect(8).warns(&format!("removes {removed} of the 21 managed routes"));
            script(&node, "--allow-removals 3").expect(8);
            node.hostgw(&["apply", "--yes", "--node", "linux-0"]).expect(8);
            node.assert_unchanged(&before, "too many removals");
            script(&node, &format!("--allow-removals {removed}")).expect(0);
            node.hostgw(&["plan", "--node", "linux-0", "--detailed-exitcode"]).expect(0);
            script(&node, "--undo").expect(0);
            node.assert_unchanged(&before, "and back");
        }
    });
}

/// Thousands of routes need only a few processes.
#[test]
fn a_large_cluster_is_one_batch() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &large_cluster(3_000));
        render(&node, "linux-0");
        script(&node, "").expect(0);
        node.hostgw(&["plan", "--node", "linux-0", "--detailed-exitcode"]).expect(0);
        script(&node, "").expect(0).says("No changes");
        script(&node, "--undo").expect(0);
        assert_eq!(node.managed_routes(), Vec::<String>::new());
    });
}

#[test]
fn output_of_the_script() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        for kind in super::persist::PROGRAMS {
            let outcome = node.hostgw(&["render", "--node", "linux-1", "--persist", kind]);
            snapshots.compare(&format!("render-{kind}"), &outcome);
        }
        snapshots.compare("render-linux", &node.hostgw(&["render", "--node", "linux-1"]));
        snapshots.compare("render-unknown", &node.hostgw(&["render", "--node", "linux-11"]));
        snapshots
            .compare("render-collect-linux", &node.hostgw(&["render", "--node", "linux-1", "--collect"]));
        snapshots.compare(
            "render-persist-windows",
            &node.hostgw(&["render", "--node", "win-1", "--persist", "netplan"]),
        );
        let mut scripted = node.hostgw(&["render", "--node", "win-1"]).expect(0);
        assert!(scripted.stdout.contains("$Node = 'win-1'"));
        scripted = node.hostgw(&["render", "--node", "win-1", "--collect"]).expect(0);
        assert!(scripted.stdout.contains("Prints routes, addresses and forwarding as JSON"));
        render(&node, "linux-1");
        snapshots.compare("render-script-dry-run", &script(&node, "--dry-run"));
        snapshots.compare("render-script", &script(&node, ""));
        snapshots.compare("render-script-undo", &script(&node, "--undo"));
        snapshots.conclude();
    });
}
