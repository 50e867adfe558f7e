//! The snapshots of a whole cluster, as its nodes would print them after an apply.

use hostgw::{
    config::{Document, Format, Loaded},
    model::{OperatingSystem, Prefixed},
    plan::{OriginalSysctls, desired, windows_desired},
};
use serde_json::{Value, json};

/// The configuration of a cluster of `size` nodes. Every `windows`th node, if any, runs Windows.
pub fn configuration(size: usize, windows: Option<usize>) -> String {
    let mut text =
        "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnextHop: node-address\nnodes:\n".to_owned();
    for node in 0..size {
        let is_windows = windows.is_some_and(|every| node % every == every - 1);
        let os = if is_windows { "windows" } else { "linux" };
        let address = address(node);
        let (high, low) = (node / 256, node % 256);
        text +=
            &format!("  - {{name: n{node}, os: {os}, podCIDR: 10.{high}.{low}.0/24, address: {address}}}\n");
    }
    text
}

/// The address of a node.
pub fn address(node: usize) -> String {
    format!("172.16.{}.{}", node / 250, node % 250 + 1)
}

/// Loads a configuration.
pub fn load(text: &str) -> Loaded {
    Loaded::new(Document::new("hostgw.yaml", text.to_owned(), Format::Yaml)).expect("a valid configuration")
}

/// The snapshot of a node that matches its configuration.
pub fn snapshot(loaded: &Loaded, index: usize) -> Value {
    match loaded.cluster.nodes[index].os {
        OperatingSystem::Linux => linux(loaded, index),
        OperatingSystem::Windows => windows(loaded, index),
    }
}

fn linux(loaded: &Loaded, index: usize) -> Value {
    let node = &loaded.cluster.nodes[index];
    let desired = desired(&loaded.cluster, index, &OriginalSysctls::default()).expect("a Linux node");
    let pods = node.pods.iter().next().expect("a pod CIDR");
    let (prefix, gateway) = (pods.prefix(), node.gateway_of(pods));
    let own = node.addresses.iter().next().expect("an address").1.to_string();
    let mut state = serde_json::to_value(&desired.state).expect("JSON");
    for interface in ["all", "default", "eth0", "cni0", "lo"] {
        state["sysctls"][format!("net.ipv4.conf.{interface}.forwarding")] = json!("1");
        state["sysctls"][format!("net.ipv4.conf.{interface}.rp_filter")] = json!("0");
        state["sysctls"][format!("net.ipv4.conf.{interface}.arp_ignore")] = json!("0");
    }
    let connected = |destination: &str, device: &str, source: &str| {
        json!({"destination": destination, "table": 254, "metric": 0, "protocol": 2, "scope": "link",
               "type": "unicast", "nextHop": {"device": device}, "source": source})
    };
    let local = |address: &str, device: &str| {
        json!({"destination": format!("{address}/32"), "table": 255, "metric": 0, "protocol": 2, "scope": "host",
               "type": {"other": 2}, "nextHop": {"device": device}, "source": address})
    };
    let gateway = gateway.to_string();
    let rule = |priority: u32, table: u32| json!({"family": "ipv4", "priority": priority, "selector": {}, "action": {"lookup": table}, "protocol": 2});
    let link = |name: &str, index: u32| json!({"name": name, "index": index, "up": true, "carrier": true, "mtu": 1500});
    json!({
        "format": 2,
        "takenAt": "2026-11-29T20:00:00Z",
        "hostname": node.name,
        "observed": {
            "state": state,
            "host": {
                "links": [link("lo", 1), link("eth0", 2), link("cni0", 3)],
                "addresses": [
                    {"device": "lo", "address": "127.0.0.1", "prefix": "127.0.0.0/8"},
                    {"device": "eth0", "address": own, "prefix": "172.16.0.0/12"},
                    {"device": "cni0", "address": gateway, "prefix": prefix.to_string()},
                ],
                "foreign": [
                    {"destination": "0.0.0.0/0", "table": 254, "metric": 0, "protocol": 3, "scope": "global",
                     "type": "unicast", "nextHop": {"gateway": "172.31.255.254", "device": "eth0"}},
                    connected(&prefix.to_string(), "cni0", &gateway),
                    connected("172.16.0.0/12", "eth0", &own),
                    local(&gateway, "cni0"),
                    local(&own, "eth0"),
                ],
                "rules": [rule(0, 255), rule(32766, 254), rule(32767, 253)],
                "firewall": {"chains": []},
            },
        },
        "originalSysctls": {},
        "lastApplied": {
            "id": 1,
            "metadata": {"command": "apply", "node": node.name, "file": "hostgw.yaml",
                         "configHash": loaded.document.hash(), "at": "2026-11-30T00:53:20Z"},
            "state": {"routes": [], "nat": {}, "sysctls": {}},
        },
    })
}

fn windows(loaded: &Loaded, index: usize) -> Value {
    let node = &loaded.cluster.nodes[index];
    let desired = windows_desired(&loaded.cluster, index).expect("a Windows node");
    let own = node.addresses.iter().next().expect("an address").1.to_string();
    let pods = node.pods.iter().next().expect("a pod CIDR");
    let gateway = node.gateway_of(pods).to_string();
    let alias = "vEthernet (Ethernet)";
    let route = |destination: String, next_hop: String, metric: u32| {
        json!({"Index": 5, "Alias": alias, "Destination": destination, "NextHop": next_hop,
               "ActiveMetric": metric, "PersistentMetric": metric, "Protocol": "NetMgmt"})
    };
    let mut routes =
        vec![json!({"Index": 5, "Alias": alias, "Destination": "0.0.0.0/0", "NextHop": "172.31.255.254",
                                 "ActiveMetric": 256, "PersistentMetric": -1, "Protocol": "Dhcp"})];
    let mut owned = Vec::new();
    for wanted in &desired.state.routes {
        let next_hop = wanted.next_hop.expect("a next hop").to_string();
        routes.push(route(wanted.destination_prefix.to_string(), next_hop.clone(), wanted.route_metric));
        owned.push(json!({"Alias": alias, "Destination": wanted.destination_prefix.to_string(), "NextHop": next_hop}));
    }
    let interface = |index: u32, alias: &str| {
        json!({"Index": index, "Alias": alias, "Family": "IPv4", "Forwarding": "Enabled", "Metric": 25,
               "ConnectionState": "Connected"})
    };
    json!({
        "Format": 1,
        "System": "windows",
        "Node": node.name,
        "TakenAt": "2026-11-29T20:00:00Z",
        "Interfaces": [interface(5, alias), interface(9, "vEthernet (cbr0_ep)")],
        "Addresses": [
            {"Index": 5, "Address": own, "PrefixLength": 12},
            {"Index": 9, "Address": gateway, "PrefixLength": 24},
        ],
        "Routes": routes,
        "Derived": [],
        "Managed": owned,
        "Forwarding": [],
    })
}
