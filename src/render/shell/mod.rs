//! Renders the plan of a Linux node as a shell script, for nodes without hostgw and for review.
//!
//! A script consists of a header, the desired state in the syntax of `ip route`, `nft` and `sysctl`, and a body that
//! is the same in every script of a version. It needs POSIX sh and awk, iproute2 and nft. It plans on the node
//! by the rules of [`plan`](crate::plan::plan()), and its result is the same as that of `hostgw apply`, including the
//! marks of managed objects. hostgw and scripts can therefore be used in turn.

mod persist;

use std::fmt::Write as _;

use super::Provenance;
use crate::{
    model::{Cluster, Family, NextHopKind, OffLink},
    plan::{
        Desired, in_write_order,
        reason::{ON_LINK, UNASSIGNED},
    },
    state::{NatTable, Route, RouteType, State},
    text::{hidden_ranges, padded, printable},
};

pub use persist::{
    ApplyHook, Freshness, InvalidNetplanId, NetplanId, Persist, PersistHeader, PersistedNode,
    UnrecognizedHeader, UnwritableInterface, freshness, persisted,
};

/// The placeholder for the interface with the node's address in the routes of a script.
const FOUND_BY_ADDRESS: &str = "@";

/// The body of every script.
const BODY: &str = include_str!("body.sh");

/// Renders the script that brings the node at `index` of `cluster` to its desired state.
#[must_use]
pub fn linux_script(cluster: &Cluster, index: usize, desired: &Desired, provenance: &Provenance) -> String {
    let node = &cluster.nodes[index];
    let device = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
    // The script finds the interface by these addresses.
    let addresses: Vec<String> = node.addresses.iter().map(|(_, address)| address.to_string()).collect();
    let addresses = match device {
        "" => format!("addresses='{}'\n", addresses.join(" ")),
        _ => String::new(),
    };
    let mut text = format!(
        "#!/bin/sh
# hostgw: routes, NAT and sysctls of Linux node {}
# from {}, SHA-256 {}, by hostgw {}
#
# Usage:
#   (no option)         Apply the changes and verify them; roll everything back on failure.
#   --dry-run           Show the changes without making them.
#   --undo              Restore the state from before the last run, or resume an incomplete rollback. Keep foreign changes
#                       made since, and list them (exit code 7).
#   --undo --abandon    Same, but finish even if foreign changes remain.
#   --allow-removals N  Allow a mass removal: the exact number of routes to remove. Required if it is at least 10 and more
#                       than half of the managed routes, or if no route to another node would be left.
#
# Exit codes: 0 success, or no changes; 1 unexpected error; 3 the configuration does not fit this machine; 4 another run
# holds the lock; 6 failed, rolled back and verified; 7 rollback incomplete, remaining commands listed; 8 mass removal refused; 10 conflict with foreign
# objects; 64 invalid options; 130 interrupted and rolled back.
set -u

# ---- Data: everything that differs from node to node

node={}
device={}
{}off_link={}

# The ranges of characters that are escaped in the output, as pairs of code points.
hidden='{}'
",
        node.name,
        printable(provenance.file),
        provenance.config_hash,
        env!("CARGO_PKG_VERSION"),
        quoted(&node.name.to_string()),
        quoted(device),
        addresses,
        cluster.off_link.word(),
        hidden_characters(),
    );
    let _ = write!(text, "\n{}", variable("desired_routes", &routes(cluster, desired)));
    let _ = write!(text, "\n{}", variable("pod_gateway_routes", &pod_gateway_routes(cluster, desired)));
    for family in Family::ALL {
        let table = desired.state.nat.get(family).map(table).unwrap_or_default();
        let _ = write!(text, "\n{}", variable(&format!("desired_table_{}", family.nft()), &table));
    }
    let sysctls: String = in_write_order(&desired.state.sysctls)
        .iter()
        .map(|(key, value)| format!("{key} {}\n", value))
        .collect();
    let _ = write!(text, "\n{}", variable("desired_sysctls", &sysctls));
    let _ = write!(text, "\n# ---- Body: the same in every script of this version\n\n{BODY}");
    text
}

/// Renders the assignment of lines to a variable, without the last line break. Several lines begin on a line of their own, to
/// be aligned.
fn variable(name: &str, lines: &str) -> String {
    let value = quoted(lines.trim_end_matches('\n'));
    let continued = if value.contains('\n') { "\\\n" } else { "" };
    format!("{name}={continued}{value}\n")
}

/// The ranges of hidden characters, several per line.
fn hidden_characters() -> String {
    let mut text = String::new();
    for (at, (first, last)) in hidden_ranges().iter().enumerate() {
        let separator = if at == 0 {
            ""
        } else if at % 10 == 0 {
            "\n"
        } else {
            " "
        };
        let _ = write!(text, "{separator}{first} {last}");
    }
    text
}

/// Quotes `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The routes, each with its purpose.
fn routes(cluster: &Cluster, desired: &Desired) -> String {
    let lines: Vec<(String, String)> = on_link_first(&desired.state)
        .map(|route| {
            let mut route = route.clone();
            let is_unicast = route.kind == RouteType::Unicast;
            if is_unicast {
                route.next_hop.device.get_or_insert_with(|| FOUND_BY_ADDRESS.into());
            }
            let other = if is_unicast { ON_LINK } else { UNASSIGNED };
            let purpose = desired
                .node_of(&route.key())
                .map(|node| format!("pods of node {}", cluster.nodes[node].name));
            (route.to_string(), printable(&purpose.unwrap_or_else(|| other.to_owned())))
        })
        .collect();
    let width = lines.iter().map(|(route, _)| route.len()).max().unwrap_or(0);
    lines.iter().map(|(route, purpose)| format!("{}  # {purpose}\n", padded(route, width))).collect()
}

/// The destinations of the routes that lead to pod gateways, each with the address of the node, or `-` if it is unknown. Empty
/// if the script does not need them.
fn pod_gateway_routes(cluster: &Cluster, desired: &Desired) -> String {
    if cluster.off_link == OffLink::Refuse {
        return String::new();
    }
    let lines = desired.routes_to_nodes().filter_map(|(route, node)| {
        let (node, family) = (&cluster.nodes[node], route.family());
        let is_by_gateway = cluster.next_hop_of(node, family) == NextHopKind::PodGateway;
        let address = node.addresses.get(family).map_or_else(|| "-".to_owned(), ToString::to_string);
        is_by_gateway.then(|| format!("{} {address}\n", route.destination))
    });
    lines.collect()
}

/// Returns on-link routes first, because the gateways of other routes are reached through them.
fn on_link_first(state: &State) -> impl Iterator<Item = &Route> {
    let (on_link, others): (Vec<_>, Vec<_>) =
        state.routes.iter().partition(|route| route.next_hop.gateway.is_none());
    on_link.into_iter().chain(others)
}

/// Renders a table as `nft list` does.
fn table(table: &NatTable) -> String {
    let mut text = format!("table {} {} {{\n", table.family.nft(), NatTable::NAME);
    for chain in &table.chains {
        let _ = writeln!(text, "    chain {} {{", chain.name);
        if let Some(base) = &chain.base {
            let _ = writeln!(text, "        {base}");
        }
        for rule in &chain.rules {
            let _ = writeln!(text, "        {rule}");
        }
        text.push_str("    }\n");
    }
    text.push_str("}\n");
    text
}
