//! What `hostgw doctor` learns from other sources than routes, firewalls and sysctls: next hops, lifetimes of addresses, the
//! firmware, and the files of programs that manage interfaces.

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, doctor::healthy_node, node};
use crate::support::namespace::{Namespace, Outcome, Peer, Privilege, SimulatedCluster, each};

/// The table still has the entry of a node that went down.
#[test]
fn next_hops_are_asked_on_request() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        let doctor = |options: &str| {
            cluster.try_sh("node linux-1", &format!("\"$HOSTGW\" doctor --node linux-1 {options}"))
        };
        doctor("--probe").expect(0).says("no findings");
        cluster.sh("node linux-2", "ip link set eth0 down || ip link set bond0 down");
        doctor("").expect(0).says("no findings");
        doctor("--probe")
            .expect(11)
            .says("error[HG1013]: 1 next hop did not answer: 10.244.1.1 (node linux-2)");
        doctor("--probe --state -").expect(64);
    });
}

/// A configuration with IPv6 addresses as next hops.
fn dual_stack() -> String {
    "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
nodes:
  - {name: linux-1, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.11, '2001:db8::11']}
  - {name: linux-2, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:2::/64'], address: [172.30.0.12, '2001:db8::12']}
"
    .to_owned()
}

#[test]
fn addresses_that_do_not_last_are_found() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.0.1/24 dev cni0
                 ip address add fd00:244:0:1::1/64 dev cni0 nodad; ip address add 2001:db8::11/64 dev eth0 nodad");
        node.await_ipv6_addresses();
        node.write("hostgw.yaml", &dual_stack());
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw(&["doctor"]).expect(0);
        node.sh("ip address change 2001:db8::11/64 dev eth0 valid_lft 3000 preferred_lft 0");
        node.hostgw(&["doctor"]).expect(11).says(
            "warning[HG1020]: this node's address 2001:db8::11 on eth0 is deprecated: the kernel will remove it, \
             and other nodes will lose their next hop\n",
        );
        // The other end of the cable answers for the address.
        node.sh("ip address del 2001:db8::11/64 dev eth0");
        let peer = Peer::behind(&node, "lan0", &[]);
        peer.sh(&node, "ip address add 2001:db8::11/64 dev far nodad");
        node.sh("sysctl -qw net.ipv6.conf.eth0.accept_dad=1
                 ip address add 2001:db8::11/64 dev eth0; \"$HOSTGW\" apply --yes");
        node.wait_until("the duplicate is detected", || node.sh("ip -6 address").contains("dadfailed"));
        node.hostgw(&["doctor"])
            .expect(11)
            .says("error[HG1019]: the kernel does not use this node's address 2001:db8::11 on eth0: another machine has it\n")
            .says("`ip address del 2001:db8::11/64 dev eth0 && ip address add 2001:db8::11/64 dev eth0`\n");
    });
}

/// Mounts an empty folder over `folder` and writes a file there, for one command of hostgw.
fn with_file(node: &Namespace, command: &str, folder: &str, file: &str, text: &str) -> Outcome {
    node.write("file", text);
    node.try_sh(&format!(
        "exec unshare -m sh -ec 'mount -t tmpfs none {folder}; mkdir -p \"$(dirname {folder}/{file})\"
                                 cp file {folder}/{file}; exec \"$HOSTGW\" {command}'"
    ))
}

#[test]
fn clouds_are_told_from_the_firmware() {
    each(|privilege| {
        let node = healthy_node(privilege);
        let vendor = "class/dmi/id/sys_vendor";
        let snapshot = with_file(&node, "snapshot", "/sys", vendor, "Amazon EC2\n").expect(0).json();
        assert_eq!(snapshot["observed"]["host"]["machine"], serde_json::json!({"vendor": "Amazon EC2"}));
        node.sh("\"$HOSTGW\" snapshot >snapshot.json");
        // The interface of the test is a virtual one, as of an overlay, which the cloud does not see.
        let with = |hardware: &str| {
            node.sh(&format!(
                "jq '.observed.host.machine = {hardware} | del(.observed.host.links[].kind)' snapshot.json >cloud.json"
            ));
            node.hostgw(&["doctor", "--state", "cloud.json"])
        };
        node.sh("jq '.observed.host.machine = {vendor: \"Amazon EC2\"}' snapshot.json >overlay.json");
        node.hostgw(&["doctor", "--state", "overlay.json"]).expect(0).says("no findings");
        with(r#"{vendor: "Amazon EC2"}"#).expect(11).says(
            "error[HG1022]: this machine runs in Amazon EC2, whose network never delivers packets to pod gateways\n  \
             help: set nextHop: node-address and each node's address; also turn off the source/destination check of each instance\n",
        );
        // OpenStack can be configured to accept pod gateways, and Hyper-V is not a cloud.
        with(r#"{vendor: "Microsoft Corporation"}"#).expect(0).says("no findings");
        let note = "note: this machine runs in OpenStack, whose network drops pod traffic by default; hostgw cannot see its \
                    settings: add the pod CIDRs to the allowed address pairs of each port, or turn off its port security\n";
        assert!(with(r#"{product: "OpenStack Nova"}"#).expect(0).stdout.starts_with(note));
        // A silent next hop gets the advice for this cloud.
        node.sh("ip neigh replace 10.244.1.1 dev eth0 nud failed; \"$HOSTGW\" snapshot >snapshot.json");
        with(r#"{product: "OpenStack Nova"}"#)
            .expect(11)
            .says("in OpenStack, add the pod CIDRs to the allowed address pairs");
        // With node addresses as next hops, only the settings matter.
        node.write("hostgw.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_2, NODE_3]));
        node.sh("ip neigh flush all; \"$HOSTGW\" apply --yes; \"$HOSTGW\" snapshot >snapshot.json");
        with(r#"{vendor: "Hetzner"}"#).expect(0).says("add a route for each pod CIDR to the private network");
        let json = node.hostgw(&["doctor", "--state", "cloud.json", "--json"]).expect(0).json();
        let notes = json["notes"].as_array().expect("notes").iter();
        let is_of_cloud =
            |note: &&serde_json::Value| note.as_str().is_some_and(|note| note.contains("Hetzner Cloud"));
        assert_eq!(notes.filter(is_of_cloud).count(), 1, "{json}");
    });
}

#[test]
fn managers_of_the_interface_are_found() {
    each(|privilege| {
        let node = healthy_node(privilege);
        let index = node.sh("ip -o link show eth0");
        let index = index.split(':').next().expect("a number");
        let networkd = format!("systemd/netif/links/{index}");
        with_file(&node, "doctor", "/run", &networkd, "ADMIN_STATE=unmanaged\n").expect(0);
        with_file(&node, "doctor", "/run", &networkd, "ADMIN_STATE=configured\n")
            .expect(11)
            .says("warning[HG1017]: systemd-networkd manages eth0");
        let manager = format!("NetworkManager/devices/{index}");
        with_file(&node, "doctor", "/run", &manager, "[device]\nmanaged=unmanaged\n").expect(0);
        with_file(&node, "doctor", "/run", &manager, "[device]\nconnection-uuid=1\nmanaged=full\n").expect(11).says(
            "warning[HG1018]: NetworkManager manages eth0, and removes hostgw's routes when it activates a connection on it\n",
        );
    });
}

/// The egress interface of a node whose cable is unplugged.
#[test]
fn a_lost_carrier_is_found() {
    let node = healthy_node(Privilege::User);
    node.sh("ip link set lan0 down");
    node.hostgw(&["doctor"]).expect(11).says("error[HG1023]: egress interface eth0 has no carrier");
    node.sh("ip link set lan0 up");
    node.hostgw(&["doctor"]).expect(0);
}
