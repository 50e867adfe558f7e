//! `hostgw audit` with snapshots of real nodes, in each of its forms.

use serde_json::Value;

use super::{NODE_1, NODE_2, NODE_3, cluster};
use crate::support::{
    namespace::{Namespace, Outcome, Privilege, each},
    schema,
};

/// The machine of a node with its bridge, after an apply.
fn applied((name, cidr, address): (&str, &str, &str), privilege: Privilege) -> Namespace {
    let node = Namespace::new(privilege);
    let gateway = cidr.replace(".0/24", ".1/24");
    node.sh(&format!(
        "ip link set lo up; ip link add eth0 type veth peer name lan0; ip link set eth0 up; ip link set lan0 up
         ip address add {address}/24 dev eth0
         ip link add cni0 type bridge; ip link set cni0 up; ip address add {gateway} dev cni0"
    ));
    node.write("hostgw.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_2, NODE_3]));
    node.hostgw_ok(&["apply", "--yes", "--node", name]);
    node
}

/// Audits the nodes on the first one.
fn audit(nodes: &[Namespace], options: &[&str]) -> Outcome {
    collect(nodes, &[&["audit", "snapshots"], options].concat())
}

/// Copies the snapshots of the nodes to the first one, and runs a command there.
fn collect(nodes: &[Namespace], command: &[&str]) -> Outcome {
    nodes[0].sh("mkdir -p snapshots");
    for (number, node) in nodes.iter().enumerate() {
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        // One is compressed, as for a transfer.
        nodes[0].write(&format!("snapshots/{number}.json"), &snapshot);
        if number == 1 {
            nodes[0].sh("gzip -f snapshots/1.json");
        }
    }
    nodes[0].hostgw(command)
}

#[test]
fn real_nodes_are_judged() {
    each(|privilege| {
        let nodes = [NODE_1, NODE_2, NODE_3].map(|node| applied(node, privilege));
        let healthy = audit(&nodes, &[]).expect(0);
        assert_eq!(
            healthy.stdout,
            "3 nodes, 3 snapshots: no findings. Pod traffic works for 6 of 6 pairs (one per direction).\n"
        );

        // linux-2 loses a route, linux-3 drops packets, and another machine comes.
        nodes[1].sh("ip route del 10.244.0.0/24");
        nodes[2]
            .sh("nft add table ip fw; nft 'add chain ip fw forward { type filter hook forward priority 0; }'
             nft add rule ip fw forward ip saddr 10.244.0.0/24 drop");
        let broken = audit(&nodes, &[]).expect(11);
        let lines: Vec<&str> = broken.stdout.lines().collect();
        for line in [
            "error[HG1210]: linux-2: no route to the pods of linux-1",
            "Run `hostgw apply` on 1 node: linux-2",
            "error[HG1223]: linux-1: one-way traffic: packets from the pods of 1 node (linux-3) arrive, but packets to them are lost",
        ] {
            assert!(lines.contains(&line), "{line}\n{broken}");
        }
        assert!(broken.stdout.contains("error[HG1004]: linux-3: "), "{broken}");

        let json: Value = serde_json::from_str(&audit(&nodes, &["--json"]).expect(11).stdout).expect("JSON");
        assert_eq!(json["matrix"], serde_json::json!(["1.1w1x", "1x1.1w", "2w1."]), "{json}");
        assert_eq!(json["nodesToApply"], serde_json::json!(["linux-2"]));
        let markdown = audit(&nodes, &["--markdown"]).expect(11).stdout;
        assert!(markdown.contains("- `linux-2`: `no route to the pods of linux-1`"), "{markdown}");
        let html = audit(&nodes, &["--html"]).expect(11).stdout;
        assert!(
            html.starts_with("<!DOCTYPE html>") && html.contains("no route to the pods of linux-1"),
            "{html}"
        );
    });
}

/// Static neighbor entries are compared with the MAC addresses in the other node's own snapshot, for both families.
#[test]
fn a_wrong_static_neighbor_entry_is_found() {
    const CONFIG: &str = "clusterPrefix: [10.244.0.0/16, \"fd00:244::/48\"]\nnextHop: node-address\nnodes:
  - {name: n1, os: linux, podCIDR: [10.244.0.0/24, \"fd00:244::/64\"], address: [172.30.0.11, \"fd00:30::11\"]}
  - {name: n2, os: linux, podCIDR: [10.244.1.0/24, \"fd00:244:0:1::/64\"], address: [172.30.0.12, \"fd00:30::12\"]}\n";
    each(|privilege| {
        let nodes = [("n1", 0, 11), ("n2", 1, 12)].map(|(name, pods, address)| {
            let node = Namespace::new(privilege);
            node.sh(&format!(
                "ip link set lo up; ip link add eth0 type veth peer name lan0; ip link set eth0 up; ip link set lan0 up
                 ip address add 172.30.0.{address}/24 dev eth0; ip address add fd00:30::{address}/64 dev eth0 nodad
                 ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.{pods}.1/24 dev cni0
                 ip address add fd00:244:0:{pods}::1/64 dev cni0 nodad"
            ));
            node.write("hostgw.yaml", CONFIG);
            node.hostgw_ok(&["apply", "--yes", "--node", name]);
            node
        });
        audit(&nodes, &[]).expect(0);
        let hardware = nodes[1].sh("ip -o link show eth0 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2");
        for (address, matrix) in [("172.30.0.12", "1.1x"), ("fd00:30::12", "1.1x")] {
            nodes[0]
                .sh(&format!("ip neigh replace {address} lladdr {} dev eth0 nud permanent", hardware.trim()));
            audit(&nodes, &[]).expect(0);
            nodes[0]
                .sh(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"));
            let found = audit(&nodes, &[]).expect(11);
            found
                .says(&format!(
                    "error[HG1222]: n1: static neighbor entry for {address} (02:00:00:00:00:99 on eth0), but no interface of n2 \
                     has this MAC address"
                ))
                .says(&format!("help: remove the entry with `ip neigh del {address} dev eth0`"))
                .says("Pod traffic works for 1 of 2 pairs (one per direction); 1 lost (1 of them one-way).");
            let json: Value =
                serde_json::from_str(&audit(&nodes, &["--json"]).expect(11).stdout).expect("JSON");
            assert_eq!(json["matrix"], serde_json::json!([matrix, "1w1."]), "{json}");
            nodes[0].sh(&format!("ip neigh del {address} dev eth0"));
        }
        audit(&nodes, &[]).expect(0);
    });
}

/// One plan for many nodes, made elsewhere, and applied on the nodes as it is, or refused as stale.
#[test]
fn a_fleet_is_planned_in_one_run() {
    each(|privilege| {
        let nodes = [NODE_1, NODE_2, NODE_3].map(|node| applied(node, privilege));
        let desk = &nodes[0];
        let unchanged = collect(&nodes, &["plan", "--out", "none", "--state", "snapshots"]).expect(0);
        assert_eq!(unchanged.stdout, "No changes on 3 nodes.\n");
        assert_eq!(desk.sh("ls none"), "");

        // A node joins.
        let joined = ("linux-4", "10.244.3.0/24", "172.30.0.14");
        desk.write("new.yaml", &cluster("nextHop: node-address", &[NODE_1, NODE_2, NODE_3, joined]));
        let arguments = ["plan", "-f", "new.yaml", "--out", "plans", "--detailed-exitcode", "--state"];
        let planned = desk.hostgw(
            &[&arguments[..], &["snapshots/0.json", "snapshots/1.json.gz", "snapshots/2.json"]].concat(),
        );
        let planned = planned.expect(2);
        assert_eq!(
            planned.stdout,
            "On 3 nodes (linux-1, linux-2, linux-3):
  + 10.244.3.0/24 via 172.30.0.14 dev eth0 proto 87  # node linux-4 added

3 of 3 nodes change: 3 to add, 0 to update, 0 to remove.
"
        );
        assert_eq!(desk.sh("ls plans"), "linux-1.json\nlinux-2.json\nlinux-3.json\n");
        let markdown =
            desk.hostgw(&["plan", "-f", "new.yaml", "--markdown", "--state", "snapshots"]).expect(0).stdout;
        assert!(
            markdown.contains("**On 3 nodes** `linux-1, linux-2, linux-3`\n\n```diff\n+ 10.244.3.0/24 via"),
            "{markdown}"
        );

        let summary = ["plan", "-f", "new.yaml", "--summary", "--state", "snapshots"];
        assert_eq!(
            desk.hostgw_ok(&summary).stdout,
            "On 3 nodes (linux-1, linux-2, linux-3): 1 to add, 0 to update, 0 to remove
3 of 3 nodes change: 3 to add, 0 to update, 0 to remove.
"
        );

        // linux-2 applies its plan. linux-3 has changed since.
        for (number, node) in [(2, &nodes[1]), (3, &nodes[2])] {
            node.write("plan.json", &desk.sh(&format!("cat plans/linux-{number}.json")));
        }
        nodes[1].hostgw_ok(&["apply", "plan.json"]);
        assert!(nodes[1].managed_routes().iter().any(|route| route.starts_with("10.244.3.0/24 ")));
        nodes[2].sh("ip route del 10.244.0.0/24");
        nodes[2].hostgw(&["apply", "plan.json"]).expect(5);

        // A conflict on one node does not keep the others from being planned.
        nodes[2].sh("ip route add 10.244.3.0/24 via 172.30.0.99");
        let arguments = ["plan", "-f", "new.yaml", "--out", "more", "--state", "snapshots"];
        let planned = collect(&nodes, &arguments).expect(10);
        assert!(planned.stdout.contains("error: linux-3: 1 conflict: apply refuses this plan"), "{planned}");
        planned.says("1 of 3 nodes changes: 1 to add, 0 to update, 0 to remove; 1 has no usable plan.");
        // What is refused is not among the changes.
        planned.says("On 1 node (linux-1):\n  + 10.244.3.0/24 via");
        let report =
            desk.hostgw(&["plan", "-f", "new.yaml", "--json", "--state", "snapshots"]).expect(10).json();
        schema::accept(&schema::strict("fleet-plan"), "the plans", &report);
        assert_eq!(desk.sh("ls more"), "linux-1.json\n");
        desk.hostgw(&["plan", "--node", "linux-1", "--state", "snapshots"]).expect(64);
        desk.hostgw(&["plan", "--out", "new.yaml", "--state", "snapshots"]).expect(64);
    });
}

#[test]
fn unusable_input_is_reported() {
    let node = applied(NODE_1, Privilege::Root);
    node.hostgw(&["audit", "missing.json"]).expect(3).warns("no such file: missing.json");
    node.hostgw(&["audit"]).expect(64);
    node.sh("mkdir empty");
    node.hostgw(&["audit", "empty"]).expect(3).warns("no snapshots in empty");
    node.write("bad.json", "{\"format\": 2, \"takenAt\": \"\\u202e<script>\"}");
    let page = node.hostgw(&["audit", "bad.json", "--html"]).expect(11).stdout;
    assert_eq!(page.matches("<script").count(), 2, "{page}");
    let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
    node.write("one.json", &snapshot);
    node.hostgw(&["audit", "one.json"])
        .expect(11)
        .says("warning[HG1200]: 2 nodes (linux-2, linux-3): no snapshot");
    node.hostgw(&["audit", "one.json", "-f", "other.yaml"]).expect(3);
}
