//! Determines which routes packets use once a plan is applied, and whether that is as planned.
//!
//! The script judges by the same rules and uses the same words (`src/render/powershell/paths.ps1`); a test compares them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Interface, InterfaceRef, ObservedRoute, WindowsObserved, WindowsOrigin,
    observed::COLLECT_AGAIN,
    traffic::{InterfaceIndexes, ResolvedRoute},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{ActiveRoute, ActiveTable, TrafficPart},
    model::{Cluster, Family},
    state::Role,
};

/// What the routes of a node do with packets once a plan is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsPaths {
    /// Packets that are lost or take a different path than planned.
    pub faults: Vec<Diagnostic>,
    /// Findings that take effect after a restart, paths that are unknown, and nodes that get no route.
    pub warnings: Vec<Diagnostic>,
    /// The node's own pod CIDRs that no active route keeps on the node yet.
    pub unrouted: Vec<IpNet>,
}

/// What the routes of a node do with packets now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsReach {
    /// The indexes of the nodes to whose pods packets do not certainly take the planned path.
    pub lost: BTreeSet<usize>,
    /// The indexes of the nodes that get no route, because they are not on this node's link.
    pub skipped: BTreeSet<usize>,
    /// Whether packets from other nodes do not certainly reach the node's own pods.
    pub is_unrouted: bool,
}

impl WindowsReach {
    /// No packets pass.
    #[must_use]
    pub fn nothing(cluster: &Cluster) -> Self {
        Self { lost: (0..cluster.nodes.len()).collect(), skipped: BTreeSet::new(), is_unrouted: true }
    }
}

/// The state of a node once a plan is applied.
pub(super) struct PlannedNode<'a> {
    cluster: &'a Cluster,
    observed: &'a WindowsObserved,
    /// The interfaces by index and family.
    interfaces: HashMap<(u32, Family), &'a Interface>,
    egress: &'a InterfaceRef,
    pod: Option<&'a InterfaceRef>,
    wanted: &'a [ResolvedRoute],
    /// The other routes that remain.
    kept: &'a [&'a ObservedRoute],
    /// The remaining routes by interface, destination and next hop.
    by_key: HashMap<(u32, IpNet, IpAddr), &'a ObservedRoute>,
}

/// The store whose routes are examined: the active store now, or the persistent store after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Now,
    Restart,
}

impl<'a> PlannedNode<'a> {
    pub fn new(
        cluster: &'a Cluster,
        observed: &'a WindowsObserved,
        (egress, pod): (&'a InterfaceRef, Option<&'a InterfaceRef>),
        wanted: &'a [ResolvedRoute],
        kept: &'a [&'a ObservedRoute],
    ) -> Self {
        let families = Family::ALL.map(|family| (family.to_string(), family));
        let interfaces = observed.interfaces.iter().filter_map(|interface| {
            let (_, family) = families.iter().find(|(name, _)| *name == interface.family)?;
            Some(((interface.index, *family), interface))
        });
        let by_key = kept.iter().map(|route| ((route.index, route.destination, route.next_hop), *route));
        Self {
            cluster,
            observed,
            interfaces: interfaces.collect(),
            egress,
            pod,
            wanted,
            kept,
            by_key: by_key.collect(),
        }
    }

    pub fn judge(&self) -> WindowsPaths {
        let mut paths =
            WindowsPaths { faults: self.disconnected(), warnings: Vec::new(), unrouted: self.unrouted() };
        let known = self.judge_at(Moment::Now, &BTreeSet::new(), &mut paths);
        self.judge_at(Moment::Restart, &known, &mut paths);
        paths
    }

    /// Judges every needed destination except the parts in `known`. Returns the parts with findings.
    fn judge_at(&self, moment: Moment, known: &BTreeSet<IpNet>, paths: &mut WindowsPaths) -> BTreeSet<IpNet> {
        let table = self.table(moment);
        let mut found = BTreeSet::new();
        for needed in self.wanted {
            for part in table.parts(needed.destination) {
                let Some(diagnostic) =
                    self.fault(moment, needed, &part).filter(|_| !known.contains(&part.destination))
                else {
                    continue;
                };
                found.insert(part.destination);
                let is_fault = moment == Moment::Now && diagnostic.rule != Rule::PathUnknown;
                if is_fault { &mut paths.faults } else { &mut paths.warnings }.push(diagnostic);
            }
        }
        found
    }

    /// Returns the active routes. A route that Windows derives from an address is in no store, but returns with it.
    fn table(&self, moment: Moment) -> ActiveTable {
        let desired = self
            .wanted
            .iter()
            .map(|route| self.active(self.egress.index, route.destination, route.next_hop, route.metric));
        let kept = self.kept.iter().filter_map(|route| {
            let metric = if moment == Moment::Now { route.active_metric } else { route.persistent_metric }?;
            Some(self.active(route.index, route.destination, route.next_hop, metric))
        });
        desired.chain(kept).chain(self.derived_routes()).filter(|route| self.is_usable(route)).collect()
    }

    /// Returns the routes that are active now.
    fn live_table(&self) -> ActiveTable {
        let live = self.observed.routes.iter().filter_map(|route| {
            Some(self.active(route.index, route.destination, route.next_hop, route.active_metric?))
        });
        live.chain(self.derived_routes()).filter(|route| self.is_usable(route)).collect()
    }

    /// Judges the routes that are active now.
    pub fn reach(&self) -> WindowsReach {
        if !self.disconnected().is_empty() {
            return WindowsReach::nothing(self.cluster);
        }
        let live = self.live_table();
        let mut reach = WindowsReach { is_unrouted: !self.unrouted().is_empty(), ..WindowsReach::default() };
        for needed in self.wanted {
            let WindowsOrigin::Node(index) = needed.origin else { continue };
            let is_planned = |part: &TrafficPart<'_>| {
                !part.routes.is_empty() && part.routes.iter().all(|route| self.may_use(needed, route))
            };
            if !live.parts(needed.destination).iter().all(is_planned) {
                reach.lost.insert(index);
            }
        }
        reach
    }

    /// Returns the node's own pod CIDRs for which the node currently uses a less specific route that leads elsewhere, or no
    /// route.
    fn unrouted(&self) -> Vec<IpNet> {
        let live = self.live_table();
        let own = self.wanted.iter().filter(|needed| matches!(needed.origin, WindowsOrigin::OwnPods(_)));
        own.filter(|needed| {
            let parts = live.parts(needed.destination);
            let whole = parts.iter().find(|part| part.destination == needed.destination);
            let is_kept =
                |route: &&ActiveRoute| route.destination == needed.destination || self.may_use(needed, route);
            whole.is_some_and(|part| !part.routes.iter().copied().any(|route| is_kept(&route)))
        })
        .map(|needed| needed.destination)
        .collect()
    }

    /// Iterates over the routes that Windows derives from addresses.
    fn derived_routes(&self) -> impl Iterator<Item = ActiveRoute> + '_ {
        self.observed
            .derived
            .iter()
            .map(|route| self.active(route.index, route.destination, route.next_hop, route.derived_metric()))
    }

    fn active(&self, index: u32, destination: IpNet, next_hop: IpAddr, metric: u32) -> ActiveRoute {
        let interface = self.interfaces.get(&(index, destination.into()));
        ActiveRoute {
            destination,
            next_hop,
            interface: index,
            route_metric: metric,
            interface_metric: interface.and_then(|interface| interface.metric),
        }
    }

    /// Windows does not use the routes of a disconnected interface. The egress interface is judged as if it were
    /// connected: HG0860 already reports it.
    fn is_usable(&self, route: &ActiveRoute) -> bool {
        let interface = self.interfaces.get(&(route.interface, route.destination.into()));
        route.interface == self.egress.index || interface.is_none_or(|interface| !interface.is_disconnected())
    }

    fn may_use(&self, needed: &ResolvedRoute, route: &ActiveRoute) -> bool {
        let indexes = InterfaceIndexes { egress: self.egress.index, pod: self.pod.map(|pod| pod.index) };
        // Addresses of this machine inside its own pod CIDR.
        let is_local = matches!(needed.origin, WindowsOrigin::OwnPods(_))
            && route.destination.prefix_len() == route.destination.max_prefix_len()
            && self.derived(route).is_some();
        is_local || needed.may_use(route.next_hop, route.interface, indexes)
    }

    /// Returns why packets to a part of the needed destination are diverted, or may be.
    fn fault(&self, moment: Moment, needed: &ResolvedRoute, part: &TrafficPart<'_>) -> Option<Diagnostic> {
        let culprit = part.routes.iter().find(|route| !self.may_use(needed, route))?;
        let packets = format!("packets to {} ({})", part.destination, needed.origin.reason_in(self.cluster));
        let is_unknown =
            part.routes.len() > 1 && part.routes.iter().any(|route| route.interface_metric.is_none());
        if is_unknown {
            let message =
                format!("cannot tell whether {packets} are diverted: the interface metrics are unknown");
            return Some(Diagnostic::new(Rule::PathUnknown, message).with_remedy(COLLECT_AGAIN));
        }
        let when = if moment == Moment::Restart { "after the next restart, " } else { "" };
        let is_tie = part.routes.iter().any(|route| self.may_use(needed, route));
        let are = if is_tie { "can be" } else { "are" };
        let relation = if culprit.destination != needed.destination {
            format!("is more specific than -DestinationPrefix {}", needed.destination)
        } else {
            let metric = if is_tie { "the same total metric as" } else { "a lower total metric than" };
            format!(
                "has {metric} -NextHop {} on {} ({})",
                needed.next_hop,
                self.egress.alias,
                self.metrics(self.egress.index, needed.destination, needed.metric)
            )
        };
        let message = format!("{when}{packets} {are} diverted: {} {relation}", self.describe(culprit));
        Some(Diagnostic::new(Rule::PathByRoute, message).with_remedy(self.remedy(culprit)))
    }

    /// Returns the observed route, unless Windows derives it from an address.
    fn foreign(&self, route: &ActiveRoute) -> Option<&ObservedRoute> {
        self.by_key.get(&(route.interface, route.destination, route.next_hop)).copied()
    }

    fn derived(&self, route: &ActiveRoute) -> Option<&ObservedRoute> {
        self.observed.derived.iter().find(|observed| is_same(observed, route))
    }

    fn alias(&self, index: u32) -> &str {
        let interface = self.observed.interfaces.iter().find(|interface| interface.index == index);
        interface.map_or("", |interface| interface.alias.as_str())
    }

    /// Returns the metrics of a route, `metric 256 + interface metric 25`.
    fn metrics(&self, index: u32, destination: IpNet, metric: u32) -> String {
        match self.active(index, destination, destination.addr(), metric).interface_metric {
            Some(interface) => format!("metric {metric} + interface metric {interface}"),
            None => format!("metric {metric}"),
        }
    }

    fn describe(&self, route: &ActiveRoute) -> String {
        let found = self.foreign(route).or_else(|| self.derived(route));
        let mut details = self.metrics(route.interface, route.destination, route.route_metric);
        if let Some(found) = found {
            details.push_str(&format!(", {}", stores(found).join(" and ")));
            if let Some(protocol) = &found.protocol {
                details.push_str(&format!(", protocol {protocol}"));
            }
        }
        let kind = if self.foreign(route).is_some() { "foreign route" } else { "route of a local address" };
        format!(
            "the {kind} -DestinationPrefix {} -NextHop {} on {} ({details})",
            route.destination,
            route.next_hop,
            self.alias(route.interface)
        )
    }

    fn remedy(&self, route: &ActiveRoute) -> String {
        let Some(foreign) = self.foreign(route) else {
            return format!(
                "remove this machine's address in {} from {}, or correct the configuration",
                route.destination,
                self.alias(route.interface)
            );
        };
        let commands = stores(foreign).into_iter().map(|store| {
            format!(
                "Remove-NetRoute -InterfaceIndex {} -DestinationPrefix {} -NextHop {} -PolicyStore {store}",
                route.interface, route.destination, route.next_hop
            )
        });
        let commands = commands.collect::<Vec<_>>().join("; ");
        format!(
            "hostgw did not add this route: find out what did, then remove it with `{commands}`, or run the script with -Adopt"
        )
    }

    /// Returns the interfaces that are disconnected, so that nothing passes through them.
    fn disconnected(&self) -> Vec<Diagnostic> {
        let own = [(Role::Egress, Some(self.egress)), (Role::Pod, self.pod)];
        let families: Vec<Family> = self.cluster.prefixes.families().collect();
        let own = own.into_iter().filter_map(|(role, interface)| Some((role, interface?)));
        own.filter(|(_, interface)| {
            families.iter().any(|family| {
                self.interfaces.get(&(interface.index, *family)).is_some_and(|it| it.is_disconnected())
            })
        })
        .map(|(role, interface)| {
            let message =
                format!("the {role} {} is disconnected, so no packets pass through it", interface.alias);
            Diagnostic::new(Rule::InterfaceDisconnected, message).with_remedy(
                "connect it, or enable it with `Enable-NetAdapter`; `Get-NetAdapter` shows its state",
            )
        })
        .collect()
    }
}

fn is_same(observed: &ObservedRoute, route: &ActiveRoute) -> bool {
    (observed.index, observed.destination, observed.next_hop)
        == (route.interface, route.destination, route.next_hop)
}

/// Returns the stores that contain a route.
fn stores(route: &ObservedRoute) -> Vec<&'static str> {
    let stores = [("ActiveStore", route.active_metric), ("PersistentStore", route.persistent_metric)];
    stores.into_iter().filter(|(_, metric)| metric.is_some()).map(|(name, _)| name).collect()
}
