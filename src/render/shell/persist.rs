//! The desired state of a Linux node in the files of what sets up the network at boot.

use std::fmt::Write as _;

use super::{in_order, table};
use crate::{
    model::{Cluster, Family, MAIN_TABLE},
    plan::{Desired, in_order_of_writing},
    render::Facts,
    state::{NatTable, Route, protocol},
    text::printable,
};

/// What sets up the network at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// Routes: a drop-in for the .network file of the egress interface, systemd.network(5).
    SystemdNetworkd,
    /// Routes: a hook that ifup runs, interfaces(5).
    Ifupdown,
    /// Routes: netplan(5).
    Netplan,
    /// NAT: a file for `nft -f`, nft(8).
    Nftables,
    /// Sysctls: sysctl.d(5).
    SysctlD,
}

/// The file of node number `index` of `cluster` that keeps its part of the desired state over a restart.
#[must_use]
pub fn persisted(cluster: &Cluster, index: usize, desired: &Desired, facts: &Facts, kind: Persist) -> String {
    let node = &cluster.nodes[index];
    let device = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
    let header = |where_: &str| {
        let mut text = format!(
            "# hostgw: {} of Linux node {}\n# from {}, SHA-256 {}, by hostgw {}\n#\n",
            kind.content(),
            printable(&node.name),
            printable(facts.file),
            facts.config_hash,
            env!("CARGO_PKG_VERSION")
        );
        where_.lines().for_each(|line| {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        });
        text
    };
    match kind {
        Persist::SystemdNetworkd => {
            header(&format!(
                "Goes to /etc/systemd/network/FILE.d/hostgw.conf, where FILE is the .network file that networkctl status\n\
                 {device} names; networkctl reload loads it. Holds no NAT and no sysctls."
            )) + &networkd(desired)
        }
        Persist::Ifupdown => {
            format!(
                "#!/bin/sh\n{}",
                header(&format!(
                    "Goes to /etc/network/if-up.d/hostgw (chmod 755): ifup runs it when {device} is up.\n\
                 Holds no NAT and no sysctls."
                ))
            ) + &ifupdown(desired, device)
        }
        Persist::Netplan => {
            header(
                "Goes to /etc/netplan/90-hostgw.yaml (chmod 600); netplan apply loads it. Holds no NAT and no sysctls.\n\
                 \n\
                 netplan knows no protocol of a route, by which hostgw tells its own: it takes these for routes of\n\
                 somebody else, and hostgw plan shows them as conflicts. Use one or the other, or take them over once\n\
                 with hostgw apply --adopt after each boot.",
            ) + &netplan(desired, device)
        }
        Persist::Nftables => {
            let text = header(
                "Goes to where /etc/nftables.conf includes it (include \"/etc/nftables.d/*.nft\"), or nft -f loads it. Loaded\n\
                 again it replaces its own table and nothing else. Holds no routes and no sysctls.",
            );
            Family::ALL
                .into_iter()
                .filter_map(|family| desired.state.nat.get(family))
                .fold(text, |text, own| text + &nftables(own))
        }
        Persist::SysctlD => {
            header(
                "Goes to /etc/sysctl.d/90-hostgw.conf; sysctl --system loads it. Of two files that set a key the one whose\n\
                 name comes last wins. Holds no routes and no NAT.",
            ) + &sysctls(desired)
        }
    }
}

impl Persist {
    const fn content(self) -> &'static str {
        match self {
            Self::SystemdNetworkd | Self::Ifupdown | Self::Netplan => "routes",
            Self::Nftables => "NAT",
            Self::SysctlD => "sysctls",
        }
    }
}

fn networkd(desired: &Desired) -> String {
    let mut text = String::new();
    for route in in_order(desired) {
        let _ = write!(text, "\n[Route]\nDestination={}\n", route.destination);
        match route.next.gateway {
            Some(gateway) => {
                let _ = writeln!(text, "Gateway={gateway}");
            }
            None if route.destination.addr().is_ipv4() => text.push_str("Scope=link\n"),
            None => {}
        }
        let _ = writeln!(text, "Protocol={}", protocol::HOSTGW);
        if route.table != MAIN_TABLE {
            let _ = writeln!(text, "Table={}", route.table);
        }
        if route.metric != 0 {
            let _ = writeln!(text, "Metric={}", route.metric);
        }
        if let Some(mtu) = route.mtu {
            let _ = writeln!(text, "MTUBytes={mtu}");
        }
    }
    text
}

fn ifupdown(desired: &Desired, device: &str) -> String {
    let mut text = format!("\n[ \"$IFACE\" = '{}' ] || exit 0\n", device.replace('\'', "'\\''"));
    for (family, option) in [(true, "-4"), (false, "-6")] {
        let routes: Vec<&Route> =
            in_order(desired).filter(|route| route.destination.addr().is_ipv4() == family).collect();
        if routes.is_empty() {
            continue;
        }
        let _ = writeln!(text, "ip {option} -force -batch - <<'END'");
        for route in routes {
            let _ = writeln!(text, "route add {route}");
        }
        text.push_str("END\n");
    }
    text.push_str("exit 0 # what stands already is refused, and stays\n");
    text
}

/// YAML that is JSON where names of others stand.
fn netplan(desired: &Desired, device: &str) -> String {
    let device = serde_json::Value::from(device);
    let mut text = format!("network:\n  version: 2\n  ethernets:\n    {device}:\n      routes:\n");
    for route in in_order(desired) {
        let _ = writeln!(text, "        - to: \"{}\"", route.destination);
        match route.next.gateway {
            Some(gateway) => {
                let _ = writeln!(text, "          via: \"{gateway}\"");
            }
            None => text.push_str("          scope: link\n"),
        }
        if route.table != MAIN_TABLE {
            let _ = writeln!(text, "          table: {}", route.table);
        }
        if route.metric != 0 {
            let _ = writeln!(text, "          metric: {}", route.metric);
        }
        if let Some(mtu) = route.mtu {
            let _ = writeln!(text, "          mtu: {mtu}");
        }
    }
    text
}

/// The table of one family, in the place of the one that stands: declared first, so that it can be deleted.
fn nftables(own: &NatTable) -> String {
    let name = format!("{} {}", own.family.nft(), NatTable::NAME);
    format!("\nadd table {name}\ndelete table {name}\n{}", table(own))
}

fn sysctls(desired: &Desired) -> String {
    let mut text = "\n".to_owned();
    for (key, value) in in_order_of_writing(&desired.state.sysctls) {
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}
