//! The pod CIDRs of the node itself.

use ipnet::IpNet;

use super::super::prefix::private_block;
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, PodCidr},
    state::{Host, InterfaceAddress, LOCAL_TABLE, Route, RouteType, State, protocol},
    text::{Untrusted, list},
};

/// The pod interfaces of common CNI configurations.
const POD_INTERFACES: [&str; 4] = ["cbr0", "cni0", "cnio0", "kube-bridge"];

/// The beginnings of the names of bridges that container engines and hypervisors create.
const OTHER_BRIDGES: [&str; 7] = ["br-", "docker", "lxcbr", "lxdbr", "nerdctl", "podman", "virbr"];

fn is_other_bridge(name: &str) -> bool {
    OTHER_BRIDGES.iter().any(|start| name.starts_with(start))
}

/// `RTPROT_BIRD` (linux/rtnetlink.h), by which Calico marks its routes if BIRD adds them, and the number by which Felix does.
pub(super) const CALICO_PROTOCOLS: [u8; 2] = [12, 80];

/// The routes and the surroundings of a node.
#[derive(Debug, Clone)]
pub(super) struct NodeView<'a> {
    /// All routes that forward or reject packets.
    pub routes: Vec<&'a Route>,
    pub host: &'a Host,
}

impl<'a> NodeView<'a> {
    pub fn new(state: &'a State, host: &'a Host) -> Self {
        let all = state.routes.iter().chain(&host.foreign).chain(&host.others);
        let mut routes: Vec<&Route> =
            all.filter(|route| !route.kind.is_local() && route.table != LOCAL_TABLE).collect();
        routes.sort_by_cached_key(|route| route.key());
        Self { routes, host }
    }

    /// The routes of a family that somebody added.
    pub fn added(&self, family: Family) -> impl Iterator<Item = &'a Route> {
        const BY_ITSELF: [u8; 2] = [1, protocol::RA];
        let is_added = move |route: &&&Route| {
            route.family() == family && !BY_ITSELF.contains(&route.protocol) && !route.is_of_address()
        };
        self.routes.iter().filter(is_added).copied()
    }

    /// Whether an interface is a bridge that a container engine or a hypervisor created for its own containers or machines, and
    /// leads to nothing else.
    pub fn is_local_bridge(&self, device: &Untrusted) -> bool {
        let link = self.host.link(device.as_raw());
        let is_bridge = link.is_some_and(|link| link.is_a("bridge"));
        is_bridge && is_other_bridge(device.as_raw()) && !self.has_gateways(device)
    }

    /// Whether any route leads through a gateway on an interface.
    fn has_gateways(&self, device: &Untrusted) -> bool {
        self.routes
            .iter()
            .any(|route| route.next_hop.gateway.is_some() && route.next_hop.device.as_ref() == Some(device))
    }
}

/// An interface that may be the pod interface.
struct PodInterface<'a> {
    local: &'a InterfaceAddress,
    cidr: IpNet,
}

impl PodInterface<'_> {
    /// How likely it is, the lowest number first; `None` if it is not.
    fn rank(&self, view: &NodeView<'_>) -> Option<u8> {
        let name = self.local.device.as_raw();
        if POD_INTERFACES.contains(&name) {
            return Some(0);
        }
        let link = view.host.link(name)?;
        let is_bridge = link.is_a("bridge");
        if is_bridge && !is_other_bridge(name) {
            return Some(1);
        }
        let block = private_block(self.cidr);
        let is_among_routes = view.added(Family::from(self.cidr)).any(|route| {
            route.next_hop.gateway.is_some()
                && route.destination.prefix_len() == self.cidr.prefix_len()
                && private_block(route.destination) == block
        });
        let is_first = self.cidr.hosts().next() == Some(self.local.address);
        (is_among_routes && (is_bridge || is_first)).then_some(2)
    }
}

/// The pod CIDRs of the node in a family, inside the `given` cluster prefixes. Empty if it has none. `prefixes` are networks that
/// probably contain pods.
///
/// # Errors
/// Returns an error if several interfaces may be the pod interface.
pub(super) fn own(
    view: &NodeView<'_>,
    family: Family,
    given: &[IpNet],
    prefixes: &[IpNet],
) -> Result<Vec<IpNet>, Diagnostic> {
    let is_possible = |net: &IpNet| given.is_empty() || given.iter().any(|given| given.contains(net));
    let mut blocks: Vec<IpNet> =
        view.added(family).filter(|route| is_calico_block(route)).map(|route| route.destination).collect();
    blocks.retain(|block| is_possible(block) && PodCidr::new(*block).is_ok());
    blocks.sort_unstable();
    blocks.dedup();
    if !blocks.is_empty() {
        return Ok(blocks);
    }
    let addresses = view.host.addresses.iter().filter(|local| {
        Family::from(local.address) == family
            && local.prefix.prefix_len() + 2 <= family.bits()
            && local.device != "lo"
            && !is_link_local(local.address)
            && is_possible(&local.prefix.trunc())
            && !view.has_gateways(&local.device)
    });
    let candidates = addresses.map(|local| PodInterface { local, cidr: local.prefix.trunc() });
    let mut ranked: Vec<(u8, PodInterface<'_>)> =
        candidates.filter_map(|candidate| Some((candidate.rank(view)?, candidate))).collect();
    let is_inside =
        |candidate: &PodInterface<'_>| prefixes.iter().any(|prefix| prefix.contains(&candidate.cidr));
    if ranked.iter().any(|(_, candidate)| is_inside(candidate)) {
        ranked.retain(|(_, candidate)| is_inside(candidate));
    }
    let best = ranked.iter().map(|(rank, _)| *rank).min();
    // One interface with several pod CIDRs.
    let is_one_interface = |ranked: &[(u8, PodInterface<'_>)]| {
        ranked.windows(2).all(|two| two[0].1.local.device == two[1].1.local.device)
            && ranked.iter().all(|(_, candidate)| is_inside(candidate))
    };
    ranked.retain(|(rank, _)| Some(*rank) == best);
    let mut cidrs: Vec<IpNet> = ranked.iter().map(|(_, candidate)| candidate.cidr).collect();
    cidrs.sort_unstable();
    cidrs.dedup();
    if cidrs.len() < 2 || is_one_interface(&ranked) {
        return Ok(cidrs);
    }
    let is_by_gateway =
        |route: &Route| route.next_hop.gateway.is_some() && route.destination.prefix_len() > 0;
    if !view.added(family).any(is_by_gateway) {
        return Ok(Vec::new());
    }
    let named: Vec<String> =
        ranked.iter().map(|(_, it)| format!("{} ({})", it.cidr, it.local.device)).collect();
    let message = format!("several interfaces could be the {family} pod interface: {}", list(&named, 8));
    Err(Diagnostic::new(Rule::OwnPodsUnknown, message).with_remedy("pass the pod CIDR with --pod-cidr"))
}

/// Whether a route is one by which Calico rejects packets to pods of this node that do not exist.
pub(super) fn is_calico_block(route: &Route) -> bool {
    route.kind == RouteType::Blackhole && CALICO_PROTOCOLS.contains(&route.protocol)
}

/// Whether somebody added a route to reject or drop packets for which there is no better one.
pub(super) fn is_rejecting(route: &Route) -> bool {
    matches!(route.kind, RouteType::Unreachable | RouteType::Blackhole | RouteType::Prohibit)
        && !route.is_owned()
        && route.destination.prefix_len() > 0
        && !is_calico_block(route)
}

/// The networks whose other addresses somebody made unreachable, from small to large. Whole private blocks are not among them:
/// routers usually reject packets to all private addresses that they do not know.
pub(super) fn unreachable(view: &NodeView<'_>, family: Family) -> Vec<IpNet> {
    let routes =
        view.added(family).filter(|route| route.kind == RouteType::Unreachable && is_rejecting(route));
    let mut nets: Vec<IpNet> = routes.map(|route| route.destination).collect();
    nets.retain(|net| private_block(*net) != Some(*net));
    nets.sort_by_key(|net| std::cmp::Reverse(net.prefix_len()));
    nets
}

/// Whether somebody made all addresses in the cluster prefixes unreachable that no node has, by routes in this table.
pub(super) fn rejects_unassigned(view: &NodeView<'_>, prefixes: &[IpNet], table: u32) -> bool {
    let rejects = |prefix: &IpNet| {
        view.added(Family::from(*prefix)).any(|route| {
            route.kind == RouteType::Unreachable
                && route.destination == *prefix
                && route.table == table
                && is_rejecting(route)
        })
    };
    !prefixes.is_empty() && prefixes.iter().all(rejects)
}

/// The networks that somebody made reachable on an interface with gateways, as the recipe does for all pods.
pub(super) fn on_link(view: &NodeView<'_>, family: Family) -> Vec<IpNet> {
    let is_on_link = |route: &&Route| {
        let device = route.next_hop.device.as_ref();
        device.is_some_and(|device| route.is_on_link(device.as_raw()) && view.has_gateways(device))
    };
    view.added(family).filter(is_on_link).map(|route| route.destination).collect()
}

pub(super) use crate::model::is_link_local;
