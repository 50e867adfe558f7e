//! Routes as sections of a systemd.network(5) file.

use std::fmt::Write as _;

use crate::{
    model::MAIN_TABLE,
    state::{NextHop, Route, RouteType},
};

/// Renders a `[Route]` section for each route.
///
/// systemd-networkd writes routes again that exist already, for example after its restart, in any order. The kernel looks up
/// the gateway of a route, and refuses one by a pod gateway while the route to the cluster prefix is missing or, with IPv6, if
/// it finds the gateway behind the route itself; and systemd-networkd gives up the whole interface. With the flag `onlink`, the
/// kernel does not look up the gateway.
pub(super) fn content<'a>(routes: impl Iterator<Item = &'a Route>) -> String {
    routes.map(section).collect()
}

fn section(route: &Route) -> String {
    // Lists every field, so that a new one is not forgotten. The drop-in belongs to the file of the interface, and
    // managed routes have neither a type of service nor anything else beyond these fields.
    let Route { destination, table, tos: _, metric, protocol, scope, kind, next_hop, source, mtu, opaque: _ } =
        route;
    let NextHop { gateway, device: _, onlink } = next_hop;
    let mut text = format!("\n[Route]\nDestination={destination}\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{key}={value}");
    };
    if *kind != RouteType::Unicast {
        line("Type", kind);
    }
    if let Some(gateway) = gateway {
        line("Gateway", gateway);
    }
    if *onlink || gateway.is_some_and(|gateway| destination.contains(&gateway)) {
        line("GatewayOnLink", &"yes");
    }
    if !scope.is_global() {
        line("Scope", scope);
    }
    line("Protocol", protocol);
    if *table != MAIN_TABLE {
        line("Table", table);
    }
    if *metric != 0 {
        line("Metric", metric);
    }
    if let Some(source) = source {
        line("PreferredSource", source);
    }
    if let Some(mtu) = mtu {
        line("MTUBytes", mtu);
    }
    text
}
