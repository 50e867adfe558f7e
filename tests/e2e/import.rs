//! `hostgw import` reads what kubectl prints, and edits files as carefully as a person.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use super::node;
use crate::support::{
    namespace::{Namespace, Outcome, Privilege, each},
    schema::{accept, strict},
};

/// A list of nodes: the last number of each pod CIDR and address.
fn list(numbers: &[u8]) -> String {
    let node = |number: &u8| {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": format!("n-{number}") },
            "spec": { "podCIDR": format!("10.244.{number}.0/24") },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": format!("172.30.0.{number}") }],
                "nodeInfo": { "operatingSystem": "linux" },
            },
        })
    };
    json!({ "kind": "List", "apiVersion": "v1", "items": numbers.iter().map(node).collect::<Vec<_>>() })
        .to_string()
}

const CONFIG: &str = "\
clusterPrefix: 10.244.0.0/16 # all pods
egressInterface: eth0
nodes:
  - {name: n-1, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.1} # first
  - {name: n-2, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.2}
";

fn machine(privilege: Privilege) -> Namespace {
    let machine = Namespace::new(privilege);
    machine.write("two.json", &list(&[1, 2]));
    machine.write("three.json", &list(&[3, 2, 1]));
    machine.write("hostgw.yaml", CONFIG);
    machine
}

#[test]
fn a_list_can_come_from_a_file_or_a_pipe() {
    each(|privilege| {
        let machine = machine(privilege);
        let options = "--cluster-prefix 10.244.0.0/16 --egress-interface eth0";
        let expected = machine.sh(&format!("$HOSTGW import two.json {options}"));
        assert!(
            expected.contains("  - {name: n-1, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.1}\n")
        );
        for script in [
            format!("$HOSTGW import {options} <two.json"),
            format!("cat two.json | $HOSTGW import - {options}"),
            format!("bash -c '$HOSTGW import <(cat two.json) {options}'"),
            "$HOSTGW import /dev/stdin --egress-interface=eth0 --cluster-prefix=10.244.0.0/16 <two.json"
                .to_owned(),
            // As Windows PowerShell writes it.
            format!("(printf '\\377\\376'; iconv -t UTF-16LE two.json) | $HOSTGW import {options}"),
            format!("(printf '\\357\\273\\277'; cat two.json) | $HOSTGW import {options}"),
        ] {
            assert_eq!(machine.sh(&script), expected, "{script}");
        }
        machine.write("imported.yaml", &expected);
        machine.hostgw_ok(&["validate", "imported.yaml"]).says("imported.yaml is valid: 2 nodes");
        machine.hostgw_ok(&["plan", "--all-nodes", "-f", "imported.yaml"]);
    });
}

#[test]
fn a_terminal_is_not_a_list() {
    each(|privilege| {
        let machine = machine(privilege);
        let outcome = super::terminal::on_terminal(&machine, 24, 80, "\"$HOSTGW\" import --color never");
        outcome.expect(64).says("error: no list of nodes given");
    });
}

#[test]
fn an_update_keeps_permissions_and_links() {
    each(|privilege| {
        let machine = machine(privilege);
        machine.sh("chmod 640 hostgw.yaml; ln -s hostgw.yaml link.yaml");
        let path = machine.folder().join("hostgw.yaml");
        let inode = || std::fs::metadata(&path).unwrap().ino();
        let before = inode();
        machine
            .hostgw_ok(&["import", "two.json", "--update", "link.yaml"])
            .says("No changes. link.yaml matches");
        machine
            .hostgw_ok(&["import", "three.json", "--update", "link.yaml", "--dry-run"])
            .says("Would update");
        assert_eq!(inode(), before, "an unchanged file was written");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), CONFIG);

        let outcome = machine.hostgw_ok(&["import", "three.json", "--update", "link.yaml"]);
        outcome.says(
            "+ n-3: linux, 10.244.3.0/24, 172.30.0.3\nUpdated link.yaml: 1 node added, 0 updated, 0 removed.",
        );
        let added = "  - {name: n-3, os: linux, podCIDR: 10.244.3.0/24, address: 172.30.0.3}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{CONFIG}{added}"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(machine.folder().join("link.yaml").is_symlink());
        machine.sh("test $(ls -A | wc -l) = 4");
    });
}

#[test]
fn a_byte_order_mark_and_line_ends_stay() {
    each(|privilege| {
        let machine = machine(privilege);
        let windows = format!("\u{feff}{}", CONFIG.replace('\n', "\r\n"));
        machine.write("hostgw.yaml", &windows);
        machine.hostgw_ok(&["import", "three.json", "--update", "hostgw.yaml"]);
        let added = "  - {name: n-3, os: linux, podCIDR: 10.244.3.0/24, address: 172.30.0.3}\r\n";
        let written = std::fs::read_to_string(machine.folder().join("hostgw.yaml")).unwrap();
        assert_eq!(written, format!("{windows}{added}"));
    });
}

/// A compressed file stays compressed, whatever its name, and the same text gives the same bytes.
#[test]
fn a_compressed_file_is_updated() {
    each(|privilege| {
        let machine = machine(privilege);
        let added = "  - {name: n-3, os: linux, podCIDR: 10.244.3.0/24, address: 172.30.0.3}\n";
        machine.write("hostgw.yaml", CONFIG);
        machine.sh("gzip -k hostgw.yaml && cp hostgw.yaml.gz other.yaml && chmod 640 hostgw.yaml.gz");
        for name in ["hostgw.yaml.gz", "other.yaml"] {
            let path = machine.folder().join(name);
            let before = std::fs::read(&path).unwrap();
            machine.hostgw_ok(&["import", "two.json", "--update", name]).says("No changes.");
            assert!(std::fs::read(&path).unwrap() == before, "{name}: an unchanged file was written");
            machine.hostgw_ok(&["import", "three.json", "--update", name]).says("1 node added");
            machine.sh(&format!("gunzip <{name} >text"));
            let text = std::fs::read_to_string(machine.folder().join("text")).unwrap();
            assert_eq!(text, format!("{CONFIG}{added}"));
            machine.hostgw_ok(&["import", "three.json", "--update", name]).says("No changes.");
        }
        machine.sh("cmp hostgw.yaml.gz other.yaml && test $(stat -c %a hostgw.yaml.gz) = 640");
    });
}

#[test]
fn a_failed_update_changes_nothing() {
    each(|privilege| {
        let machine = machine(privilege);
        machine.write("one.json", &list(&[1]));
        machine.write("outside.json", &list(&[1, 2, 3]).replace("10.244.3", "10.245.3"));
        let refused: [(&[&str], i32, &str); 9] = [
            (&["two.json", "--update", "missing.yaml"], 3, "no such file: missing.yaml"),
            (&["two.json", "--update", "-"], 64, "--update needs a file"),
            (&["two.json", "--update", "two.json"], 3, "two.json is invalid"),
            (&["outside.json", "--update", "hostgw.yaml"], 3, "change clusterPrefix in the file first"),
            (&["hostgw.yaml", "--update", "hostgw.yaml"], 3, "not a list of nodes"),
            (&["three.json", "--update", "hostgw.yaml", "--toml"], 64, "cannot be used with"),
            (
                &["three.json", "--update", "hostgw.yaml", "--cluster-prefix", "10.0.0.0/8"],
                64,
                "cannot be used with",
            ),
            (&["three.json", "--dry-run"], 64, "--update <CONFIG>"),
            (&["one.json", "--update", "hostgw.yaml", "--allow-removals", "2"], 8, "--allow-removals is 2"),
        ];
        for (arguments, code, why) in refused {
            let outcome = machine.hostgw(&[&["import"], arguments].concat()).expect(code);
            outcome.warns(why);
            assert_eq!(std::fs::read_to_string(machine.folder().join("hostgw.yaml")).unwrap(), CONFIG);
        }
        // One of two is not a mass removal.
        machine
            .hostgw_ok(&["import", "one.json", "--update", "hostgw.yaml", "--allow-removals", "1"])
            .says("- n-2\n");
    });
}

#[test]
fn a_full_disk_leaves_the_file() {
    each(|privilege| {
        let machine = machine(privilege);
        let import = "ulimit -f 0; trap '' XFSZ; exec \"$HOSTGW\" import three.json --update hostgw.yaml";
        machine.try_limited_sh(import).expect(1).warns("cannot write hostgw.yaml");
        assert_eq!(std::fs::read_to_string(machine.folder().join("hostgw.yaml")).unwrap(), CONFIG);
        machine.sh("test $(ls -A | wc -l) = 3");
    });
}

/// The only output is a document that matches its schema.
fn document(outcome: &Outcome, code: i32, schema: &str) -> Value {
    assert_eq!(outcome.code, code, "{outcome}");
    let document = outcome.json();
    accept(&strict(schema), &outcome.to_string(), &document);
    document
}

#[test]
fn every_result_has_a_document() {
    each(|privilege| {
        let machine = machine(privilege);
        let imported = document(
            &machine.hostgw(&["import", "two.json", "--egress-interface", "eth0", "--json"]),
            0,
            "import",
        );
        assert_eq!(imported["nodes"], 2);
        let warned: Vec<_> = imported["findings"].as_array().unwrap().iter().map(|it| &it["code"]).collect();
        assert_eq!(warned, ["HG1112"]);
        assert!(imported["configuration"].as_str().unwrap().contains("name: n-2"));

        let update = ["import", "three.json", "--update", "hostgw.yaml", "--json", "--detailed-exitcode"];
        let shown = document(&machine.hostgw(&[&update[..], &["--dry-run"]].concat()), 2, "import");
        assert_eq!(shown["update"]["written"], false);
        let changed = document(&machine.hostgw(&update), 2, "import");
        let added = json!([{ "node": "n-3", "action": "add", "keys": [
            { "key": "os", "before": [], "after": ["linux"] },
            { "key": "podCIDR", "before": [], "after": ["10.244.3.0/24"] },
            { "key": "address", "before": [], "after": ["172.30.0.3"] },
        ] }]);
        assert_eq!((&changed["update"]["changes"], &shown["update"]["changes"]), (&added, &added));
        assert_eq!((&changed["update"]["written"], &changed["nodes"]), (&json!(true), &json!(3)));
        let same = document(&machine.hostgw(&update), 0, "import");
        assert_eq!(same["update"], json!({ "file": "hostgw.yaml", "written": false, "changes": [] }));

        let outcome = machine.hostgw(&["import", "hostgw.yaml", "--json"]);
        let failed = document(&outcome, 3, "error");
        assert_eq!(failed["error"]["cause"]["code"], "HG1100", "{failed:#}");
        machine.write("one.json", &list(&[1]));
        let outcome = machine.hostgw(&["import", "one.json", "--update", "hostgw.yaml", "--json"]);
        assert_eq!(document(&outcome, 8, "error")["error"]["outcome"], "notApplied");
    });
}

/// What hostgw applied is read back whole, its sysctls included.
#[test]
fn a_managed_node_is_imported() {
    const TWO_PREFIXES: &str = "clusterPrefix: [10.244.0.0/16, 10.250.0.0/16]
egressInterface: eth0
nat: {exclude: [192.168.0.0/16]}
routes: {mtu: 1400}
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 10.250.0.0/24], address: 172.30.0.11}
  - {name: b, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.12, mtu: 1300}
  - {name: c, os: linux, podCIDR: 10.250.2.0/24, gateway: 10.250.2.9}
";
    const OWN_ADDRESS: &str = "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: node-address
nat: {to: node-address, source: pods, randomFully: true}
routes: {source: node-address, unassigned: unreachable, table: 100}
sysctls: {net.ipv4.conf.eth0.rp_filter: 2}
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244::/64'], address: [172.30.0.11, 'fd00:30::11'], mtu: 1400}
  - {name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:1::/64'], address: [172.30.0.12, 'fd00:30::12']}
";
    const ROUTER: &str = "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']
egressInterface: eth0
nextHop: 172.30.0.1
nat: {masquerade: false}
routes: {metric: 1024}
nodes:
  - {name: a, os: linux, podCIDR: [10.244.0.0/24, 'fd00:244::/64']}
  - {name: b, os: linux, podCIDR: [10.244.1.0/24, 'fd00:244:0:1::/64']}
  - {name: c, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.13, nextHop: node-address}
";
    each(|privilege| {
        for (configuration, expected) in [
            (
                TWO_PREFIXES,
                "clusterPrefix: [10.244.0.0/16, 10.250.0.0/16] # from the objects that hostgw manages\n",
            ),
            (OWN_ADDRESS, "sysctls: {\"net.ipv4.conf.eth0.rp_filter\": \"2\"} # written by hostgw\n"),
            (ROUTER, "nat: {masquerade: false}"),
        ] {
            let node = node(privilege);
            node.sh("ip link add cni0 type bridge; ip link set cni0 up
                     ip address add 10.244.0.1/24 dev cni0; ip address add fd00:244::1/64 dev cni0 nodad
                     ip address add fd00:30::11/64 dev eth0 nodad; ip route add default via 172.30.0.1");
            if configuration == TWO_PREFIXES {
                node.sh("ip address add 10.250.0.1/24 dev cni0");
            }
            node.await_ipv6_addresses();
            node.write("hostgw.yaml", configuration);
            node.hostgw_ok(&["apply", "--yes", "--node", "a"]);
            node.sh("for address in 172.30.0.12 fd00:30::12; do
                         ip neigh replace $address lladdr 02:00:00:00:00:12 nud reachable dev eth0
                     done");
            let written = node.sh("\"$HOSTGW\" import --live --node-name a | tee live.yaml");
            assert!(written.contains(expected), "{written}");
            node.hostgw(&["plan", "-f", "live.yaml", "--node", "a", "--detailed-exitcode"])
                .expect(0)
                .says("No changes.");
        }
    });
}

/// Images and managed fields make a list of thousands of nodes larger than any configuration.
#[test]
fn a_list_that_is_larger_than_any_configuration_is_read_in_parts() {
    each(|privilege| {
        let machine = machine(privilege);
        let mut nodes: Vec<Value> =
            serde_json::from_str::<Value>(&list(&[1, 2])).unwrap()["items"].as_array().unwrap().clone();
        for node in &mut nodes {
            let image = json!({ "names": ["x".repeat(1 << 20)], "sizeBytes": 1 });
            node["status"]["images"] = Value::Array(vec![image; 10]);
        }
        let many: Vec<Value> = [vec![nodes[1].clone(); 3], vec![nodes[0].clone(); 4]].concat();
        machine
            .write("large.json", &json!({ "kind": "List", "apiVersion": "v1", "items": many }).to_string());
        let script = "gzip -k large.json
             ulimit -v 1000000
             $HOSTGW import large.json --cluster-prefix 10.244.0.0/16 --egress-interface eth0 >file.yaml
             $HOSTGW import --cluster-prefix 10.244.0.0/16 --egress-interface eth0 <large.json.gz | cmp - file.yaml
             cat large.json | $HOSTGW import --update file.yaml";
        let updated = machine.sh(script);
        assert_eq!(updated, "No changes. file.yaml matches the list.\n");
        let file = machine.sh("cat file.yaml");
        assert!(file.ends_with("podCIDR: 10.244.2.0/24, address: 172.30.0.2}\n"), "{file}");
        machine
            .sh("head -c 70000000 large.json >cut.json; { echo '# a comment'; cat large.json; } >large.yaml");
        for (list, why) in [
            ("cut.json", "invalid JSON: unexpected end of file"),
            ("large.yaml", "large.yaml is too large: hostgw reads at most 64 MiB"),
        ] {
            machine.hostgw(&["import", list]).expect(3).warns(why);
        }
        machine.hostgw(&["import", "large.yaml"]).expect(3).warns("help: save it as JSON");
    });
}

/// Without routes to others, the cleanup script must not run before hostgw masquerades.
#[test]
fn the_only_node_of_a_cluster_is_taken_over() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.0.1/24 dev cni0
                 ip route add default via 172.30.0.1
                 sysctl -qw net.ipv4.ip_forward=1
                 iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE");
        let live = "\"$HOSTGW\" import --live --node-name a --cleanup cleanup.sh >hostgw.yaml";
        let outcome = node.try_sh(live).expect(0);
        outcome.warns("warning[HG1122]: found no routes to the pod CIDRs of other nodes in 10.244.0.0/16");
        node.try_sh("sh cleanup.sh").expect(1).warns("hostgw manages no NAT table on this node");
        node.hostgw_ok(&["apply", "--yes", "--node", "a", "--adopt"]);
        assert_eq!(node.look("ip route show proto 87"), "");
        node.sh("sh cleanup.sh");
        assert!(!node.sh("iptables-save -t nat").contains("MASQUERADE"));
        assert!(node.look("nft list table ip hostgw").contains("masquerade"));
        node.hostgw(&["plan", "--node", "a", "--detailed-exitcode"]).expect(0).says("No changes.");
    });
}

/// A VPN router leads to other networks than pods, and the router of the cluster to the pods of several nodes.
#[test]
fn routers_are_no_nodes() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.0.1/24 dev cni0
                 ip route add 10.244.1.0/24 via 172.30.0.50; ip route add 10.244.2.0/24 via 172.30.0.50
                 ip route add 10.244.3.0/24 via 172.30.0.13
                 ip route add 10.200.0.0/16 via 172.30.0.254; ip route add 10.245.7.0/24 via 172.30.0.254");
        let live = "\"$HOSTGW\" import --live --node-name a --cluster-prefix 10.244.0.0/16 >hostgw.yaml";
        node.try_sh(live).expect(0).warns("warning[HG1122]");
        let live = "\"$HOSTGW\" import --live --node-name a >hostgw.yaml";
        node.try_sh(live).expect(0).warns("warning[HG1125]").warns("10.245.7.0/24 via 172.30.0.254");
        let file = node.sh("cat hostgw.yaml");
        assert!(
            file.contains("podCIDR: 10.244.1.0/24}\n") && file.contains("nextHop: 172.30.0.50\n"),
            "{file}"
        );
        assert!(!file.lines().any(|line| line.starts_with("  - ") && line.contains("10.245")), "{file}");
        node.hostgw_ok(&["apply", "--yes", "--node", "a", "--adopt"]);
        let routes = node.sh("ip route show | grep via");
        for expected in [
            "10.244.1.0/24 via 172.30.0.50 dev eth0 proto 87",
            "10.244.3.0/24 via 172.30.0.13 dev eth0 proto 87",
            "10.245.7.0/24 via 172.30.0.254 dev eth0 \n",
        ] {
            assert!(routes.contains(expected), "{routes}");
        }
    });
}
