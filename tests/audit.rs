//! `hostgw audit` on whole clusters: it finds each planted fault where it is, and nothing in a healthy cluster.

use std::sync::LazyLock;

use hostgw::{
    audit::{Auditor, Sighting, conclude},
    config::{Document, Format, Loaded},
    model::{OperatingSystem, Prefixed},
    record::Snapshot,
    text::write_json_rows,
};
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    import_managed,
    support::{clusters, fleet},
};

const NODES: usize = 200;

/// The nodes that run Windows: every twentieth.
const WINDOWS: Option<usize> = Some(20);

/// A healthy cluster: its configuration, and the snapshots of its nodes, with what they tell.
static HEALTHY: LazyLock<(Auditor<'static>, Vec<Value>, Vec<Sighting>)> = LazyLock::new(|| {
    static LOADED: LazyLock<Loaded> = LazyLock::new(|| fleet::load(&fleet::configuration(NODES, WINDOWS)));
    let auditor = Auditor::new(&LOADED);
    let snapshots: Vec<Value> = (0..NODES).map(|index| fleet::snapshot(&LOADED, index)).collect();
    let mut worker = auditor.worker();
    let examine = |(index, snapshot): (usize, &Value)| worker.examine(&name(index), &snapshot.to_string());
    let sightings = snapshots.iter().enumerate().map(examine).collect();
    drop(worker);
    (auditor, snapshots, sightings)
});

/// The name of a snapshot.
fn name(index: usize) -> String {
    format!("{index}.json")
}

/// The snapshots of a cluster, to be changed.
struct Fleet {
    snapshots: Vec<Value>,
}

impl Fleet {
    fn new() -> Self {
        Self { snapshots: HEALTHY.1.clone() }
    }

    /// Returns the report as JSON. Only the snapshots that were changed are examined again.
    fn report(&self) -> Value {
        let (auditor, healthy, known) = &*HEALTHY;
        let mut worker = auditor.worker();
        let present = self.snapshots.iter().enumerate().filter(|(_, snapshot)| !snapshot.is_null());
        let sightings = present.map(|(index, snapshot)| match healthy.get(index) {
            Some(same) if same == snapshot => known[index].clone(),
            _ => worker.examine(&name(index), &snapshot.to_string()),
        });
        let sightings = sightings.collect();
        serde_json::to_value(conclude(auditor, sightings)).expect("JSON")
    }

    fn routes(&mut self, node: usize) -> &mut Vec<Value> {
        self.snapshots[node]["observed"]["state"]["routes"].as_array_mut().expect("routes")
    }

    fn route(&mut self, node: usize, peer: usize) -> &mut Value {
        let destination = format!("10.0.{peer}.0/24");
        self.routes(node).iter_mut().find(|route| route["destination"] == *destination).expect("a route")
    }

    fn neighbors(&mut self, node: usize) -> &mut Vec<Value> {
        let neighbors = &mut self.snapshots[node]["observed"]["host"]["neighbors"];
        if neighbors.is_null() {
            *neighbors = json!([]);
        }
        neighbors.as_array_mut().expect("neighbors")
    }

    /// Adds the MAC addresses of a node to its snapshot. That of `eth0` ends with the number of the node.
    fn hardware(&mut self, node: usize) {
        self.snapshots[node]["observed"]["host"]["macAddresses"] =
            json!({"eth0": format!("02:00:00:00:00:{node}"), "cni0": "02:00:00:00:01:00"});
    }

    fn foreign(&mut self, node: usize) -> &mut Vec<Value> {
        self.snapshots[node]["observed"]["host"]["foreign"].as_array_mut().expect("routes")
    }
}

/// Returns the codes of the findings, each with its nodes.
fn found(report: &Value) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let findings = report["findings"].as_array().expect("findings").iter();
    findings
        .map(|finding| {
            let nodes = finding["nodes"].as_array().expect("nodes").iter();
            (text(&finding["code"]), nodes.map(text).collect())
        })
        .collect()
}

/// The letters of the matrix.
fn matrix(report: &Value) -> Vec<Vec<char>> {
    let rows = report["matrix"].as_array().expect("rows").iter();
    rows.map(|row| {
        let mut letters = Vec::new();
        let mut number = 0;
        for character in row.as_str().expect("text").chars() {
            match character.to_digit(10) {
                Some(digit) => number = 10 * number + digit as usize,
                None => letters.extend(std::iter::repeat_n(character, std::mem::take(&mut number))),
            }
        }
        assert_eq!(letters.len(), NODES);
        letters
    })
    .collect()
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    let report = Fleet::new().report();
    assert_eq!(found(&report), []);
    assert_eq!(report["nodesToApply"], json!([]));
    let pairs = NODES * (NODES - 1);
    assert_eq!(
        report["pairs"],
        json!({"working": pairs, "diverted": 0, "unknown": 0, "lost": 0, "oneWay": 0})
    );
    for (from, row) in matrix(&report).iter().enumerate() {
        let expected = |to| if from == to { '.' } else { 'w' };
        assert!(row.iter().enumerate().all(|(to, letter)| *letter == expected(to)), "{from}");
    }
}

/// A fault: its name, how it is planted, the finding that names it, and the pairs that are lost.
struct Fault {
    name: &'static str,
    plant: fn(&mut Fleet),
    code: &'static str,
    nodes: &'static [usize],
    /// Pairs of nodes between which packets are lost; `None` stands for all others.
    lost: &'static [(Option<usize>, Option<usize>)],
    /// Pairs of nodes of which that is not known.
    unknown: &'static [(Option<usize>, Option<usize>)],
}

const ALL: Option<usize> = None;

const FAULTS: &[Fault] = &[
    Fault {
        name: "a missing route",
        plant: |fleet| fleet.routes(3).retain(|route| route["destination"] != "10.0.7.0/24"),
        code: "HG1210",
        nodes: &[3],
        lost: &[(Some(3), Some(7))],
        unknown: &[],
    },
    Fault {
        name: "a node that was never applied",
        plant: |fleet| {
            fleet.routes(4).clear();
            fleet.snapshots[4]["lastApplied"] = Value::Null;
            fleet.snapshots[4].as_object_mut().expect("an object").remove("lastApplied");
        },
        code: "HG1207",
        nodes: &[4],
        lost: &[(Some(4), ALL)],
        unknown: &[],
    },
    Fault {
        name: "a route by another next hop",
        plant: |fleet| fleet.route(5, 9)["nextHop"]["gateway"] = json!(fleet::address(10)),
        code: "HG1211",
        nodes: &[5],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "a leftover of a node that left",
        plant: |fleet| {
            let mut route = fleet.route(6, 9).clone();
            route["destination"] = json!("10.9.9.0/24");
            fleet.routes(6).push(route);
        },
        code: "HG1212",
        nodes: &[6],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "no NAT table",
        plant: |fleet| fleet.snapshots[7]["observed"]["state"]["nat"] = json!({}),
        code: "HG1213",
        nodes: &[7],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "NAT that differs",
        plant: |fleet| {
            let chains = &mut fleet.snapshots[8]["observed"]["state"]["nat"]["v4"]["chains"];
            chains[0]["rules"].as_array_mut().expect("rules").clear();
        },
        code: "HG1213",
        nodes: &[8],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "forwarding off",
        plant: |fleet| {
            let sysctls = &mut fleet.snapshots[9]["observed"]["state"]["sysctls"];
            for key in
                ["net.ipv4.ip_forward", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.cni0.forwarding"]
            {
                sysctls[key] = json!("0");
            }
        },
        code: "HG1214",
        nodes: &[9],
        lost: &[(Some(9), ALL), (ALL, Some(9))],
        unknown: &[],
    },
    Fault {
        name: "a strict reverse path filter and a return route elsewhere",
        plant: |fleet| {
            let sysctls = &mut fleet.snapshots[10]["observed"]["state"]["sysctls"];
            sysctls["net.ipv4.conf.eth0.rp_filter"] = json!("1");
            fleet.foreign(10).push(json!({
                "destination": "10.0.11.0/25", "table": 254, "metric": 0, "protocol": 4, "scope": "link",
                "type": "unicast", "nextHop": {"device": "cni0"}}));
        },
        code: "HG0852",
        nodes: &[10],
        lost: &[(Some(10), Some(11)), (Some(11), Some(10))],
        unknown: &[],
    },
    Fault {
        name: "a foreign blackhole route",
        plant: |fleet| {
            fleet.foreign(11).push(json!({
                "destination": "10.0.30.0/24", "table": 254, "metric": 0, "protocol": 4, "scope": "global",
                "type": "blackhole", "nextHop": {}}));
            fleet.routes(11).retain(|route| route["destination"] != "10.0.30.0/24");
        },
        code: "HG1002",
        nodes: &[11],
        lost: &[(Some(11), Some(30))],
        unknown: &[],
    },
    Fault {
        name: "a policy rule that drops packets",
        plant: |fleet| {
            let rules = fleet.snapshots[12]["observed"]["host"]["rules"].as_array_mut().expect("rules");
            rules.insert(
                1,
                json!({"family": "ipv4", "priority": 100, "selector": {"to": "10.0.31.0/24"},
                                   "action": "blackhole", "protocol": 3}),
            );
        },
        code: "HG0851",
        nodes: &[12],
        lost: &[(Some(12), Some(31))],
        unknown: &[],
    },
    Fault {
        name: "a firewall that drops forwarded packets",
        plant: |fleet| {
            fleet.snapshots[13]["observed"]["host"]["firewall"]["chains"] = json!([{
                "family": "inet", "table": "filter", "name": "forward", "rules": [],
                "base": {"type": "filter", "hook": "forward", "priority": 0, "policy": "drop"}}]);
        },
        code: "HG1004",
        nodes: &[13],
        lost: &[(Some(13), ALL), (ALL, Some(13))],
        unknown: &[],
    },
    Fault {
        name: "another configuration",
        plant: |fleet| {
            for node in [14, 15, 16] {
                let metadata = &mut fleet.snapshots[node]["lastApplied"]["metadata"];
                metadata["configHash"] = json!("f".repeat(64));
                metadata["commit"] =
                    json!({"id": "0123456789abcdef0123456789abcdef01234567", "dirty": false});
            }
        },
        code: "HG1206",
        nodes: &[14, 15, 16],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "an address that moved",
        plant: |fleet| {
            fleet.snapshots[17]["observed"]["host"]["addresses"][1]["address"] = json!("172.16.40.1");
        },
        code: "HG1220",
        nodes: &[17],
        lost: &[(ALL, Some(17))],
        unknown: &[],
    },
    Fault {
        name: "an address on two machines",
        plant: |fleet| {
            let addresses =
                fleet.snapshots[18]["observed"]["host"]["addresses"].as_array_mut().expect("addresses");
            addresses.push(json!({"device": "eth0", "address": "172.16.50.1", "prefix": "172.16.0.0/12"}));
            let addresses =
                fleet.snapshots[20]["observed"]["host"]["addresses"].as_array_mut().expect("addresses");
            addresses.push(json!({"device": "eth0", "address": "172.16.50.1", "prefix": "172.16.0.0/12"}));
        },
        code: "HG1221",
        nodes: &[18, 20],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "a machine that answers for another's address",
        plant: |fleet| {
            for node in [0, 1, 2, 21] {
                let hardware = if node == 21 { "02:00:00:00:00:99" } else { "02:00:00:00:00:05" };
                fleet.snapshots[node]["observed"]["host"]["neighbors"] =
                    json!([{"device": "eth0", "address": fleet::address(5), "macAddress": hardware}]);
            }
        },
        code: "HG1222",
        nodes: &[21],
        lost: &[],
        unknown: &[(Some(21), Some(5))],
    },
    Fault {
        name: "no snapshot",
        plant: |fleet| fleet.snapshots[22] = Value::Null,
        code: "HG1200",
        nodes: &[22],
        lost: &[],
        unknown: &[(Some(22), ALL), (ALL, Some(22))],
    },
    Fault {
        name: "an old snapshot",
        plant: |fleet| fleet.snapshots[23]["takenAt"] = json!("2026-11-28T20:00:00Z"),
        code: "HG1203",
        nodes: &[23],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "two snapshots of one node",
        plant: |fleet| fleet.snapshots[24] = fleet.snapshots[25].clone(),
        code: "HG1202",
        nodes: &[25],
        lost: &[],
        unknown: &[(Some(24), ALL), (ALL, Some(24))],
    },
    Fault {
        name: "no pod interface",
        plant: |fleet| {
            let host = &mut fleet.snapshots[26]["observed"]["host"];
            host["addresses"].as_array_mut().expect("addresses").pop();
            host["links"].as_array_mut().expect("links").pop();
            fleet.foreign(26).retain(|route| route["nextHop"]["device"] != "cni0");
        },
        code: "HG1003",
        nodes: &[26],
        lost: &[],
        unknown: &[(Some(26), ALL), (ALL, Some(26))],
    },
    Fault {
        name: "a next hop that does not answer",
        plant: |fleet| {
            fleet.snapshots[27]["observed"]["host"]["neighbors"] =
                json!([{"device": "eth0", "address": fleet::address(40), "unanswered": true}]);
        },
        code: "HG1013",
        nodes: &[27],
        lost: &[(Some(27), Some(40))],
        unknown: &[],
    },
    Fault {
        name: "a Windows node without a route",
        plant: |fleet| {
            let routes = fleet.snapshots[19]["Routes"].as_array_mut().expect("routes");
            routes.retain(|route| route["Destination"] != "10.0.33.0/24");
        },
        code: "HG1210",
        nodes: &[19],
        lost: &[(Some(19), Some(33))],
        unknown: &[],
    },
    Fault {
        name: "a Windows node that does not forward",
        plant: |fleet| fleet.snapshots[39]["Interfaces"][0]["Forwarding"] = json!("Disabled"),
        code: "HG1214",
        nodes: &[39],
        lost: &[(Some(39), ALL), (ALL, Some(39))],
        unknown: &[],
    },
    Fault {
        name: "a machine that left",
        plant: |fleet| {
            let mut left = fleet.snapshots[0].clone();
            left["hostname"] = json!("gone");
            left["lastApplied"]["metadata"]["node"] = json!("gone");
            let addresses = &mut left["observed"]["host"]["addresses"];
            addresses[1]["address"] = json!("172.20.0.1");
            addresses[2]["address"] = json!("10.200.0.1");
            fleet.snapshots.push(left);
        },
        code: "HG1205",
        nodes: &[],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "a file that is no snapshot",
        plant: |fleet| fleet.snapshots.push(json!({"format": 99})),
        code: "HG1201",
        nodes: &[],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "a machine that answers for another's address, whose own MAC address is known",
        plant: |fleet| {
            fleet.hardware(51);
            for node in [0, 1, 52] {
                let hardware = if node == 52 { "02:00:00:00:00:51" } else { "02:00:00:00:00:99" };
                fleet
                    .neighbors(node)
                    .push(json!({"device": "eth0", "address": fleet::address(51), "macAddress": hardware}));
            }
        },
        code: "HG1222",
        nodes: &[0, 1],
        lost: &[(Some(0), Some(51)), (Some(1), Some(51))],
        unknown: &[],
    },
    Fault {
        name: "a wrong static neighbor entry",
        plant: |fleet| {
            fleet.hardware(53);
            fleet.neighbors(54).push(json!({"device": "eth0", "address": fleet::address(53),
                                            "macAddress": "02:00:00:00:00:99", "permanent": true}));
            fleet.neighbors(55).push(json!({"device": "eth0", "address": fleet::address(53),
                                            "macAddress": "02:00:00:00:00:53", "permanent": true}));
        },
        code: "HG1222",
        nodes: &[54],
        lost: &[(Some(54), Some(53))],
        unknown: &[],
    },
    Fault {
        name: "a node that does not answer ARP requests",
        plant: |fleet| {
            fleet.snapshots[56]["observed"]["state"]["sysctls"]["net.ipv4.conf.eth0.arp_ignore"] = json!("8");
        },
        code: "HG1011",
        nodes: &[56],
        lost: &[(ALL, Some(56))],
        unknown: &[],
    },
    Fault {
        name: "ARP off on the egress interface",
        plant: |fleet| fleet.snapshots[57]["observed"]["host"]["links"][1]["noArp"] = json!(true),
        code: "HG1044",
        nodes: &[57],
        lost: &[(Some(57), ALL), (ALL, Some(57))],
        unknown: &[],
    },
    Fault {
        name: "no carrier",
        plant: |fleet| fleet.snapshots[58]["observed"]["host"]["links"][1]["carrier"] = json!(false),
        code: "HG1023",
        nodes: &[58],
        lost: &[(Some(58), ALL), (ALL, Some(58))],
        unknown: &[],
    },
    Fault {
        name: "an address that the kernel does not use",
        plant: |fleet| {
            fleet.snapshots[60]["observed"]["host"]["addresses"][1]["flags"] = json!(["dadFailed"]);
        },
        code: "HG1019",
        nodes: &[60],
        lost: &[(ALL, Some(60))],
        unknown: &[],
    },
    Fault {
        name: "a chain that hostgw does not evaluate",
        plant: |fleet| {
            fleet.snapshots[61]["observed"]["host"]["firewall"]["lower"] =
                json!([{"family": "netdev", "table": "x", "name": "i", "devices": ["eth0"]}]);
        },
        code: "HG1024",
        nodes: &[61],
        lost: &[],
        unknown: &[(Some(61), ALL), (ALL, Some(61))],
    },
    Fault {
        name: "a firewall that was not read",
        plant: |fleet| {
            let host = &mut fleet.snapshots[62]["observed"]["host"];
            host.as_object_mut().expect("an object").remove("firewall");
        },
        code: "HG1006",
        nodes: &[62],
        lost: &[],
        unknown: &[(Some(62), ALL), (ALL, Some(62))],
    },
    Fault {
        name: "a rule that routes marked packets",
        plant: |fleet| {
            let rules = fleet.snapshots[63]["observed"]["host"]["rules"].as_array_mut().expect("rules");
            rules.insert(
                1,
                json!({"family": "ipv4", "priority": 100, "selector": {"mark": {"value": 1, "mask": 255}},
                       "action": {"lookup": 100}, "protocol": 3}),
            );
            fleet.snapshots[63]["observed"]["host"]["firewall"]["chains"] = json!([{
                "family": "ip", "table": "mangle", "name": "PREROUTING",
                "rules": [{"handle": 2, "terms": ["setMark"]}],
                "base": {"type": "filter", "hook": "prerouting", "priority": -150, "policy": "accept"}}]);
        },
        code: "HG1025",
        nodes: &[63],
        lost: &[],
        unknown: &[(Some(63), ALL), (ALL, Some(63))],
    },
    Fault {
        name: "a snapshot without a valid time",
        plant: |fleet| fleet.snapshots[64]["takenAt"] = json!("yesterday"),
        code: "HG1204",
        nodes: &[64],
        lost: &[],
        unknown: &[],
    },
    Fault {
        name: "a second machine with a node's address",
        plant: |fleet| {
            fleet.hardware(65);
            let mut other = fleet.snapshots[65].clone();
            other["hostname"] = json!("old");
            other.as_object_mut().expect("an object").remove("lastApplied");
            other["takenAt"] = json!("2026-11-29T20:01:00Z");
            other["observed"]["state"]["routes"] = json!([]);
            other["observed"]["host"]["macAddresses"]["eth0"] = json!("02:00:00:00:00:98");
            other["observed"]["host"]["addresses"].as_array_mut().expect("addresses").pop();
            fleet.snapshots.push(other);
        },
        code: "HG1221",
        nodes: &[65],
        lost: &[],
        unknown: &[(ALL, Some(65))],
    },
];

#[test]
fn each_planted_fault_is_found_where_it_is() {
    let mut failures = Vec::new();
    for fault in FAULTS {
        let mut fleet = Fleet::new();
        (fault.plant)(&mut fleet);
        let report = fleet.report();
        let found = found(&report);
        let nodes: Vec<String> = fault.nodes.iter().map(|node| format!("n{node}")).collect();
        if !found.contains(&(fault.code.to_owned(), nodes)) {
            failures.push(format!("{}: no {} in {found:?}", fault.name, fault.code));
        }
        let is_among = |pairs: &[(Option<usize>, Option<usize>)], from: usize, to: usize| {
            let matches = |wanted: Option<usize>, node: usize| wanted.is_none_or(|wanted| wanted == node);
            pairs.iter().any(|(one, other)| matches(*one, from) && matches(*other, to))
        };
        for (from, row) in matrix(&report).into_iter().enumerate() {
            for (to, letter) in row.into_iter().enumerate().filter(|(to, _)| *to != from) {
                let is_expected = (letter == 'x') == is_among(fault.lost, from, to)
                    && (letter == 'u') == is_among(fault.unknown, from, to);
                if !is_expected {
                    failures.push(format!("{}: n{from} to n{to} is {letter}: {found:?}", fault.name));
                }
            }
        }
        failures.truncate(40);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Without `egressInterface`, only the address tells the egress interface.
#[test]
fn an_address_that_moved_is_found_without_an_egress_interface() {
    let text = fleet::configuration(3, None).replace("egressInterface: eth0\n", "");
    let loaded = fleet::load(&text);
    let auditor = Auditor::new(&loaded);
    let mut worker = auditor.worker();
    let snapshots = (0..3).map(|index| {
        // The address of the interface is in the desired state.
        let named = fleet::load(&fleet::configuration(3, None));
        let mut snapshot = fleet::snapshot(&named, index);
        snapshot["lastApplied"]["metadata"]["configHash"] = json!(loaded.document.hash());
        if index == 1 {
            snapshot["observed"]["host"]["addresses"][1]["address"] = json!("172.16.40.1");
        }
        worker.examine(&name(index), &snapshot.to_string())
    });
    let snapshots = snapshots.collect();
    let report = serde_json::to_value(conclude(&auditor, snapshots)).expect("JSON");
    let found: Vec<_> = found(&report).into_iter().filter(|(_, nodes)| nodes == &["n1"]).collect();
    let codes: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["HG1201", "HG1220"], "{report:#}");
    assert_eq!(report["matrix"], json!(["1.1x1w", "1u1.1u", "1w1x1."]));
    assert_eq!(report["nodes"][1]["totals"], Value::Null);
}

/// The snapshots of one node and of another machine with its address. The node's own counts, whichever is newer.
#[test]
fn the_snapshot_of_the_node_counts() {
    for is_newer in [false, true] {
        let mut fleet = Fleet::new();
        fleet.hardware(65);
        let mut other = fleet.snapshots[65].clone();
        other["hostname"] = json!("old");
        other.as_object_mut().expect("an object").remove("lastApplied");
        other["takenAt"] = json!(if is_newer { "2026-11-29T20:01:00Z" } else { "2026-11-29T19:59:00Z" });
        other["observed"]["host"]["macAddresses"]["eth0"] = json!("02:00:00:00:00:98");
        other["observed"]["host"]["addresses"].as_array_mut().expect("addresses").pop();
        fleet.snapshots.push(other);
        let report = fleet.report();
        assert_eq!(report["nodes"][65]["snapshot"], "65.json");
        let message = |code: &str| {
            let findings = report["findings"].as_array().expect("findings").iter();
            let messages =
                findings.filter(|finding| finding["code"] == code).map(|finding| &finding["message"]);
            messages.cloned().collect::<Vec<Value>>()
        };
        let address = fleet::address(65);
        assert_eq!(
            message("HG1221"),
            [json!(format!("2 machines have the address {address}: n65, old (not in the configuration)"))]
        );
        assert_eq!(
            message("HG1202"),
            [json!(
                "200.json and 65.json are from different machines, but both match node n65; ignoring 200.json"
            )]
        );
    }
}

/// Most nodes are alike, so a node is examined with few of them. The result is the same as with all.
#[test]
fn a_sample_gives_the_same_result_as_the_whole_cluster() {
    let (auditor, healthy, _) = &*HEALTHY;
    let (mut sampling, mut exhaustive) = (auditor.worker(), auditor.worker_from(usize::MAX));
    let mut compared = 0;
    for fault in FAULTS {
        let mut fleet = Fleet::new();
        (fault.plant)(&mut fleet);
        for (index, snapshot) in fleet.snapshots.iter().enumerate() {
            if snapshot.is_null() || healthy.get(index) == Some(snapshot) {
                continue;
            }
            let (name, text) = (name(index), snapshot.to_string());
            let [sampled, whole] =
                [&mut sampling, &mut exhaustive].map(|worker| worker.examine(&name, &text));
            assert_eq!(format!("{sampled:#?}"), format!("{whole:#?}"), "{}: {name}", fault.name);
            compared += 1;
        }
    }
    assert!(compared > 25, "{compared}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// The same for all kinds of clusters and damages, down to two nodes.
    #[test]
    fn samples_of_random_clusters_give_the_same_result(
        (cluster, _) in clusters::two(),
        surroundings in import_managed::surroundings(),
        is_lost in prop::collection::vec(prop::bool::weighted(0.2), 40),
        stray in prop::option::of((0_usize..8, 8_u8..=32)),
        is_filtered in any::<bool>(),
    ) {
        let document = Document::new("hostgw.yaml", String::new(), Format::Yaml);
        let loaded = Loaded { document, cluster };
        let auditor = Auditor::new(&loaded);
        let (mut sampling, mut exhaustive) = (auditor.worker_from(0), auditor.worker_from(usize::MAX));
        for (index, node) in loaded.cluster.nodes.iter().enumerate() {
            if node.os != OperatingSystem::Linux {
                continue;
            }
            let (observed, saved) = import_managed::managed(&loaded.cluster, index, &surroundings);
            let mut observed = serde_json::to_value(observed).expect("JSON");
            let routes = observed["state"]["routes"].as_array_mut().expect("routes");
            let mut lost = is_lost.iter();
            routes.retain(|_| !lost.next().copied().unwrap_or(false));
            if let Some((peer, length)) = stray
                && let Some(pods) = loaded.cluster.nodes.get(peer).and_then(|node| node.pods.iter().next())
                && let Ok(prefix) = IpNet::new(pods.prefix().addr(), length)
                && pods.prefix().addr().is_ipv4()
            {
                let foreign = observed["host"]["foreign"].as_array_mut().expect("routes");
                foreign.push(json!({
                    "destination": prefix.trunc().to_string(), "table": 254, "metric": 5, "protocol": 4,
                    "scope": "global", "type": "unicast", "nextHop": {"gateway": "172.30.0.99", "device": "eth0"}}));
            }
            if is_filtered {
                observed["host"]["firewall"]["chains"] = json!([{
                    "family": "inet", "table": "filter", "name": "forward", "rules": [],
                    "base": {"type": "filter", "hook": "forward", "priority": 0, "policy": "drop"}}]);
            }
            let snapshot = json!({"format": 2, "takenAt": "2026-11-29T20:00:00Z", "hostname": node.name,
                                  "observed": observed, "originalSysctls": saved});
            // With sorted keys, and as hostgw prints it.
            let sorted = snapshot.to_string();
            let mut printed = Vec::new();
            write_json_rows(&mut printed, &Snapshot::parse("x", &sorted).expect("a snapshot")).expect("JSON");
            for text in [sorted, String::from_utf8(printed).expect("UTF-8")] {
                let workers = [&mut sampling, &mut exhaustive];
                let [sampled, whole] = workers.map(|worker| worker.examine("x", &text));
                prop_assert_eq!(format!("{sampled:#?}"), format!("{whole:#?}"));
            }
        }
    }
}

/// All at once: faults do not hide each other.
#[test]
fn many_faults_at_once_are_all_found() {
    let mut fleet = Fleet::new();
    FAULTS.iter().for_each(|fault| (fault.plant)(&mut fleet));
    let found = found(&fleet.report());
    for fault in FAULTS.iter().filter(|fault| fault.code != "HG1202") {
        let names: Vec<String> = fault.nodes.iter().map(|node| format!("n{node}")).collect();
        let is_named = |(code, nodes): &(String, Vec<String>)| {
            *code == fault.code && names.iter().all(|name| nodes.contains(name))
        };
        assert!(found.iter().any(is_named), "{}: {found:?}", fault.name);
    }
}
