//! Long values and long names are planned, applied, shown and undone, whatever their length.

use super::{node, simulate::small};
use crate::support::namespace::{Namespace, each};

/// A valid value of `net.ipv4.ip_local_reserved_ports` with this number of nonadjacent ports.
fn ports(number: u32) -> String {
    (0..number).map(|at| (20_000 + 2 * at).to_string()).collect::<Vec<_>>().join(",")
}

fn with_ports(value: &str) -> String {
    format!(
        "clusterPrefix: 10.244.0.0/16
egressInterface: eth0
sysctls: {{net.ipv4.ip_local_reserved_ports: \"{value}\"}}
nodes:
  - {{name: a, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}}
  - {{name: b, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.12}}
"
    )
}

#[test]
fn a_sysctl_value_of_any_length_is_planned_applied_and_undone() {
    each(|privilege| {
        let node = node(privilege);
        // Longer than the first read of a small buffer, than a page, and than the widths that Rust can format.
        for number in [7, 900, 13_000] {
            let value = ports(number);
            node.write("hostgw.yaml", &with_ports(&value));
            for arguments in [
                &["plan"][..],
                &["plan", "--markdown"],
                &["plan", "--json"],
                &["plan", "--all-nodes", "--full"],
                &["plan", "--all-nodes", "--markdown"],
                &["render", "--node", "a"],
                &["plan", "--out", "plan.json"],
                &["apply", "plan.json", "--yes"],
            ] {
                node.hostgw_ok(arguments);
            }
            assert_eq!(node.sysctl("net.ipv4.ip_local_reserved_ports"), value);
            node.hostgw_ok(&["plan"]).says("No changes");
            node.hostgw_ok(&["status"]).says("Drift: none");
            let snapshot = node.hostgw_ok(&["snapshot"]);
            node.write("snapshot.json", &snapshot.stdout);
            node.hostgw_ok(&["plan", "--state", "snapshot.json"]).says("No changes");
            node.write("before.yaml", &with_ports("1"));
            node.hostgw_ok(&["diff", "before.yaml", "hostgw.yaml"]);
            node.hostgw_ok(&["rollback", "--yes"]);
            assert_eq!(node.sysctl("net.ipv4.ip_local_reserved_ports"), "");
        }
    });
}

/// A configuration of two nodes with names of this length in bytes.
fn with_names(length: usize) -> String {
    let name = |first: &str| format!("{first}{}", "n".repeat(length - 1));
    format!(
        "clusterPrefix: 10.244.0.0/16
egressInterface: eth0
nodes:
  - {{name: {}, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}}
  - {{name: {}, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.12}}
",
        name("a"),
        name("b")
    )
}

#[test]
fn the_longest_names_are_simulated_and_longer_ones_are_errors() {
    let _turn = small();
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("hostgw.yaml", &with_names(253));
        machine.hostgw(&["simulate"]).expect(0).says("connections work");
        for length in [254, 70_000] {
            machine.write("hostgw.yaml", &with_names(length));
            for verb in [&["simulate"][..], &["plan", "--all-nodes"], &["validate"]] {
                let outcome = machine.hostgw(verb).expect(3);
                outcome.warns("is longer than 253 bytes").warns("2 errors");
                assert!(outcome.stderr.len() < 4000, "{} bytes", outcome.stderr.len());
            }
        }
    });
}
