//! The pod paths once a plan is applied.

use super::{Change, Desired, Observed, Plan, after, kept_routes};
use crate::{
    forwarding::{ForwardingModel, PathFault, Paths, faults},
    model::Cluster,
};

/// Returns the pod paths that will not work even after `plan` is applied to the node at `index` of `cluster`, as far
/// as rules, routes and sysctls decide.
#[must_use]
pub fn path_faults(
    cluster: &Cluster,
    index: usize,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> Vec<PathFault> {
    let paths = paths(cluster, index, desired, observed);
    if paths.is_empty() {
        return Vec::new();
    }
    let routes = desired.state.routes.iter().chain(kept_routes(&desired.state, &observed.state));
    let sysctls = after(&observed.state.sysctls, plan.changes.iter().filter_map(Change::as_sysctl));
    let model = ForwardingModel::new(routes, &sysctls, &observed.host);
    let (desired, released) = (&desired.state, &desired.released);
    let faults = faults(&paths, model).into_iter();
    faults.map(|fault| fault.with_configured_sysctls(desired, released, &observed.state)).collect()
}

/// Returns the paths between the pods of the node at `index` of `cluster` and those of all others.
#[must_use]
pub fn paths<'a>(
    cluster: &'a Cluster,
    index: usize,
    desired: &'a Desired,
    observed: &'a Observed,
) -> Paths<'a> {
    let foreign = observed.state.routes.iter().filter(|route| !route.is_owned());
    let foreign = foreign.chain(&observed.host.foreign).chain(&observed.host.others);
    Paths::new(cluster, index, desired.routes_to_nodes(), foreign, &observed.host)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::{
        config::{self, Document, Format},
        forwarding::{Ledger, Packet, Verdict},
        plan::{OriginalSysctls, desired},
        state::{Host, InterfaceAddress, Link, Route, RouteType},
    };

    const NODES: usize = 100;

    fn cluster() -> Cluster {
        let mut text = String::from(
            "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnextHop: node-address\nnodes:\n",
        );
        for node in 0..NODES {
            let _ = writeln!(
                text,
                "  - {{name: n{node}, os: linux, podCIDR: 10.244.{node}.0/24, address: 172.30.0.{}}}",
                node + 1
            );
        }
        let document = Document::new("hostgw.yaml", text, Format::Yaml);
        config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    }

    /// A node with these interfaces and addresses.
    fn host(addresses: &[(&str, &str)]) -> Host {
        let link = |(index, (name, _)): (usize, &(&str, &str))| -> Link {
            let link = serde_json::json!({ "name": name, "index": index + 1, "up": true });
            serde_json::from_value(link).expect("a link")
        };
        let address = |(name, address): &(&str, &str)| InterfaceAddress {
            device: (*name).into(),
            address: address.parse::<ipnet::IpNet>().expect("a prefix").addr(),
            prefix: address.parse::<ipnet::IpNet>().expect("a prefix").trunc(),
            flags: Vec::new(),
        };
        // The kernel's own route to an address.
        let local = |(name, address): &(&str, &str)| -> Route {
            let address = address.parse::<ipnet::IpNet>().expect("a prefix").addr();
            let route = serde_json::json!({
                "destination": format!("{address}/32"), "table": 255, "metric": 0, "protocol": 2, "scope": "host",
                "type": "unicast", "nextHop": { "device": name },
            });
            Route { kind: RouteType::LOCAL, ..serde_json::from_value(route).expect("a route") }
        };
        Host {
            links: addresses.iter().enumerate().map(link).collect(),
            addresses: addresses.iter().map(address).collect(),
            others: addresses.iter().map(local).collect(),
            ..Host::default()
        }
    }

    /// Judges the paths before any route is added; all `at_once`, or one of those that are alike. Returns the number of
    /// questions, too.
    fn judged(host: &Host, live: &[Route], foreign: &[Route], at_once: bool) -> (usize, Ledger) {
        let cluster = cluster();
        let desired = desired(&cluster, 0, &OriginalSysctls::default()).expect("a Linux node");
        let mut observed = Observed { host: host.clone(), ..Observed::default() };
        observed.host.foreign = foreign.to_vec();
        observed.state.routes = live.to_vec().into();
        let paths = paths(&cluster, 0, &desired, &observed);
        let model = ForwardingModel::new(live.iter(), &observed.state.sysctls, &observed.host);
        let mut asked = 0;
        let ask = |packets: &[Packet]| {
            asked += packets.len();
            let verdicts: Vec<Verdict> = packets.iter().map(|packet| model.trace(packet).verdict).collect();
            Ok::<_, ()>(verdicts)
        };
        let ledger = if at_once { paths.judge(ask) } else { paths.judge_alike(live, ask) };
        (asked, ledger.expect("verdicts"))
    }

    /// A route to the pods of a node, with another destination.
    fn route(destination: &str) -> Route {
        let desired = desired(&cluster(), 0, &OriginalSysctls::default()).expect("a Linux node");
        let mut routes = desired.routes_to_nodes().map(|(route, _)| route.clone());
        let destination = destination.parse().expect("a prefix");
        Route { destination, ..routes.next().expect("a route") }
    }

    #[test]
    fn nodes_without_a_route_are_judged_by_one_of_them() {
        let pods = [("eth0", "172.30.0.1/24"), ("cni0", "10.244.0.1/24")];
        let foreign = |destination| Route { protocol: 3, ..route(destination) };
        let with = |address| [pods[0], pods[1], ("eth1", address)];
        let cases: [(Host, Vec<Route>, Vec<Route>, usize); 8] = [
            (host(&pods), vec![], vec![], 4),
            // Another node, and the node itself, each both ways. Then the node that has a route, and one of the others.
            (host(&pods), vec![route("10.244.7.0/24")], vec![], 6),
            // Those with a part of their pods elsewhere, or with all of them behind another route.
            (host(&pods), vec![route("10.244.7.16/28")], vec![], 6),
            (host(&pods), vec![route("10.244.8.0/22")], vec![], 12),
            // A foreign route has two paths of its own, and the packets of the node itself to that node are judged, too.
            (host(&pods), vec![], vec![foreign("10.244.7.16/28")], 10),
            (host(&pods), vec![], vec![foreign("10.0.0.0/8")], 4),
            (host(&with("10.244.9.10/32")), vec![], vec![], 8),
            // Before the first pod, there is no pod interface.
            (host(&pods[..1]), vec![], vec![], 0),
        ];
        for (at, (host, live, foreign, questions)) in cases.iter().enumerate() {
            let (all, expected) = judged(host, live, foreign, true);
            let (asked, ledger) = judged(host, live, foreign, false);
            assert!(all >= 2 * (NODES - 1) || host.links.len() == 1, "case {at}: {all}");
            assert_eq!((asked, ledger), (*questions, expected), "case {at}");
        }
    }
}
