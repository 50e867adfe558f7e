//! Explains in a sentence why packets do not take the planned path, and what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Direction, ForwardingModel, Ledger, LocalEnd, Path, Paths, Peer, PodPart, Rank, Stop, TableRule, Trace,
    Transport, Verdict,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{ConfigPath, Family, MAIN_TABLE, SysctlKey},
    state::{InterfaceAddress, PolicyRule, Route, RouteKey, RouteType, State, protocol, table_name},
    text::{ShellCommand, Untrusted, list},
};

/// Paths that do not work, for the same reason.
#[derive(Debug, Clone, PartialEq)]
pub struct PathFault {
    /// This node's end of the paths.
    pub local_end: LocalEnd,
    /// The other nodes, with the directions in which their packets are affected. Empty if packets from or to the outside
    /// are affected.
    pub nodes: BTreeMap<Untrusted, BTreeSet<Direction>>,
    /// The directions in which packets are affected.
    pub directions: BTreeSet<Direction>,
    /// The families of the packets that are affected.
    pub families: BTreeSet<Family>,
    /// The number of all other nodes.
    pub of: usize,
    /// The part of a pod CIDR, if not all of it is affected.
    pub part: Option<PodPart>,
    /// Whether the packets take a different path that probably leads to the same pods.
    pub is_detour: bool,
    /// Whether the node drops or returns some of the packets, rather than forwarding them to another next hop.
    pub is_lost: bool,
    /// Whether it forwards some of them to another next hop.
    pub is_diverted: bool,
    /// The rule of [`crate::diagnose`].
    pub rule: Rule,
    /// The reason: a sentence in lower case without a period.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The key of the configuration that sets the sysctl that drops the packets.
    pub key: Option<ConfigPath>,
    /// The protocols whose packets are affected. Empty if all are.
    pub protocols: BTreeSet<Transport>,
    /// The route that diverts or drops the packets.
    pub culprit: Option<RouteKey>,
    /// The sysctl that drops the packets.
    sysctl: Option<BlockingSysctl>,
    /// The routing table of hostgw's routes, if no policy rule looks it up.
    unused_table: Option<u32>,
}

/// A sysctl that drops packets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BlockingSysctl {
    key: SysctlKey,
    /// A value with which it lets the packets pass.
    passing: u8,
}

impl BlockingSysctl {
    fn of(stop: &Stop<'_>) -> Option<Self> {
        let (key, passing) = match stop {
            Stop::Forwarding(key) => (key, 1),
            Stop::ReversePath { sysctl, is_strict: true, back: Some(_) } => (sysctl, 2),
            Stop::ReversePath { sysctl, back: None, .. } => (sysctl, 0),
            _ => return None,
        };
        Some(Self { key: key.clone(), passing })
    }
}

/// Returns why paths do not work according to a model of the node.
#[must_use]
pub fn faults<'a>(paths: &Paths<'_>, model: ForwardingModel<'a>) -> Vec<PathFault> {
    ranked_faults(paths, model, |model| paths.rank_by(model))
}

/// Returns why paths do not work according to a model of the node whose routes to `changed` are not the planned ones.
#[must_use]
pub fn faults_unapplied<'a>(
    paths: &Paths<'_>,
    model: ForwardingModel<'a>,
    changed: &[IpNet],
) -> Vec<PathFault> {
    ranked_faults(paths, model, |model| paths.rank_unapplied(model, changed))
}

fn ranked_faults<'a>(
    paths: &Paths<'_>,
    model: ForwardingModel<'a>,
    rank: impl Fn(&ForwardingModel<'a>) -> Ledger,
) -> Vec<PathFault> {
    let mut faults = explain(paths, &rank(&model).blocked(), &model);
    if !model.depends_on_protocol() {
        return faults;
    }
    let mut model = model;
    for transport in Transport::ALL {
        model = model.with(transport);
        for fault in explain(paths, &rank(&model).blocked(), &model) {
            let is_same = |known: &&mut PathFault| {
                let key = |fault: &PathFault| (fault.local_end, fault.directions.clone());
                known.nodes == fault.nodes && known.why == fault.why && key(known) == key(&fault)
            };
            match faults.iter_mut().find(is_same) {
                // All protocols are affected.
                Some(known) if known.protocols.is_empty() => {}
                Some(known) => {
                    known.protocols.insert(transport);
                }
                None => faults.push(PathFault { protocols: BTreeSet::from([transport]), ..fault }),
            }
        }
    }
    faults
}

/// Returns why the paths with these indexes do not work. Paths with the same reason form one fault.
#[must_use]
pub fn explain(paths: &Paths<'_>, blocked: &[usize], model: &ForwardingModel) -> Vec<PathFault> {
    let mut faults: Vec<PathFault> = Vec::new();
    if blocked.is_empty() {
        return faults;
    }
    let of = paths.nodes();
    // What affects pods.
    let mut causes = BTreeSet::new();
    let mut wanted = blocked.iter().peekable();
    for (index, path) in paths.iter().enumerate() {
        if wanted.next_if(|wanted| **wanted == index).is_none() {
            continue;
        }
        let trace = model.trace(&path.packet);
        let is_detour = path.rank(&trace.verdict) == Rank::Elsewhere;
        let is_diverted = path.is_diverted(&trace.verdict);
        let local = without_local_route(&path, &trace, model);
        let hiding = match &local {
            None if is_lost_or_default(&trace) => model.hiding_route(path.table, &path.packet),
            _ => None,
        };
        let is_unused = local.is_none() && hiding.is_none() && lacks_rule(&path, &trace, model);
        let unused_table = is_unused.then_some(path.table);
        let (rule, why, remedy) = local
            .or_else(|| hiding.map(by_hiding_route))
            .or_else(|| unused_table.map(|table| without_rule(table, &trace)))
            .or_else(|| without_pod_route(&path, &trace, model))
            .unwrap_or_else(|| reason(paths, &path, &trace, &model.host().addresses));
        let is_outside = path.peer == Peer::Outside;
        if path.local_end == LocalEnd::Pod {
            causes.insert((rule, why.clone()));
        }
        let part = part(&path, &trace).or(path.part).filter(|_| !is_outside);
        let known = faults.iter().position(|fault| {
            (fault.local_end, fault.is_detour, fault.rule, fault.part, &fault.why, fault.nodes.is_empty())
                == (path.local_end, is_detour, rule, part, &why, is_outside)
        });
        let at = known.unwrap_or_else(|| {
            let (nodes, directions, families) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            let (protocols, is_lost, is_diverted) = (BTreeSet::new(), false, false);
            faults.push(PathFault {
                local_end: path.local_end,
                nodes,
                directions,
                families,
                of,
                part,
                is_detour,
                is_lost,
                is_diverted,
                rule,
                why,
                remedy,
                key: None,
                protocols,
                culprit: hiding.or(trace.route).filter(|_| rule == Rule::PathByRoute).map(Route::key),
                sysctl: trace.stop.as_ref().and_then(BlockingSysctl::of),
                unused_table,
            });
            faults.len() - 1
        });
        faults[at].is_lost |= !is_diverted;
        faults[at].is_diverted |= is_diverted;
        let PathFault { nodes, directions, families, .. } = &mut faults[at];
        directions.insert(path.direction);
        families.insert(path.packet.destination.into());
        let mut add = |node: Untrusted| {
            nodes.entry(node).or_default().insert(path.direction);
        };
        if path.is_of_all {
            paths.names().cloned().for_each(&mut add);
        } else if let Peer::Node(node) = path.peer {
            add(node);
        }
    }
    faults.retain(|fault| {
        fault.local_end == LocalEnd::Pod || !causes.contains(&(fault.rule, fault.why.clone()))
    });
    for fault in &mut faults {
        if let Some(table) = fault.unused_table {
            let add = use_routes(paths, &fault.families, table, TableRule::PRIORITY);
            fault.remedy = Some(format!("run {add}, or remove routes.table from the configuration"));
        }
    }
    faults
}

impl PathFault {
    /// Returns who cannot reach whom: a sentence in lower case without a period.
    #[must_use]
    pub fn summary(&self) -> String {
        let names: Vec<&Untrusted> = self.nodes.keys().collect();
        let number = names.len();
        let listed = list(&names, 6);
        let is_all = number == self.of && number > 1;
        let some = match number {
            1 => format!("node {listed}"),
            _ if is_all => format!("the other {number} nodes ({listed})"),
            _ => format!("{number} of {} other nodes ({listed})", self.of),
        };
        let all = format!("({number} nodes: {listed})");
        let names: Vec<&str> = self.protocols.iter().map(|protocol| protocol.name()).collect();
        let packets = match names.is_empty() {
            true => "packets".to_owned(),
            false => format!("{} packets", names.join(" and ")),
        };
        let over = if names.is_empty() { String::new() } else { format!(" over {}", names.join(" and ")) };
        let within = |part: Option<IpNet>| part.map_or_else(String::new, |part| format!(" in {part}"));
        let [own, other] = match self.part {
            Some(PodPart::Own(part)) => [Some(part), None],
            Some(PodPart::Other(part)) => [None, Some(part)],
            None => [None, None],
        }
        .map(within);
        let [own, those] = match self.local_end {
            LocalEnd::Pod => [format!("this node's pods{own}"), "those".to_owned()],
            LocalEnd::Node => ["this node".to_owned(), "the pods".to_owned()],
        };
        let [is_out, is_in] = [Direction::Out, Direction::In].map(|it| self.directions.contains(&it));
        if number == 0 {
            return match (is_out, !self.is_lost) {
                (true, _) => format!("this node's pods cannot reach destinations outside the cluster{over}"),
                (false, false) => {
                    format!("replies from outside the cluster cannot reach this node's pods{over}")
                }
                (false, true) => {
                    let replies =
                        if over.is_empty() { "replies".to_owned() } else { format!("{packets} in reply") };
                    format!("{replies} from outside the cluster to this node's pods are diverted")
                }
            };
        }
        let misled = if self.is_lost { "are lost or diverted" } else { "are diverted" };
        match (self.is_diverted, is_out, is_in) {
            (false, true, true) if is_all => {
                format!("no {packets} pass between {own} and {those} on any other node{other} {all}")
            }
            (false, true, true) => {
                format!("no {packets} pass between {own} and {those} on {some}{other}")
            }
            (false, true, false) if is_all => {
                format!("{own} cannot reach any pods on other nodes{other}{over} {all}")
            }
            (false, true, false) => format!("{own} cannot reach pods on {some}{other}{over}"),
            (false, false, _) if is_all => {
                format!("no pods on other nodes{other} can reach {own}{over} {all}")
            }
            (false, false, _) => format!("pods on {some}{other} cannot reach {own}{over}"),
            (true, true, true) => {
                format!("{packets} between {own} and {those} on {some}{other} {misled}")
            }
            (true, true, false) if self.local_end == LocalEnd::Node => {
                format!("{packets} from {own} to the pods on {some}{other} {misled}")
            }
            (true, true, false) => format!("{packets} to the pods on {some}{other} {misled}"),
            (true, false, _) => {
                format!("{packets} from the pods on {some}{other} to {own} {misled}")
            }
        }
    }

    /// Returns `true` if only packets to the node itself are affected.
    #[must_use]
    pub fn is_only_to_node(&self) -> bool {
        self.local_end == LocalEnd::Node && !self.directions.contains(&Direction::Out)
    }

    /// Changes the remedy if hostgw itself sets the sysctl that drops the packets, so that the sysctl must be changed in
    /// the configuration. `desired` is the desired state, `released` are its sysctls that get their original values back,
    /// and `observed` is the live state.
    #[must_use]
    pub fn with_configured_sysctls(
        mut self,
        desired: &State,
        released: &BTreeSet<SysctlKey>,
        observed: &State,
    ) -> Self {
        let Some(BlockingSysctl { key, passing }) = &self.sysctl else { return self };
        let Some(value) = desired.sysctls.get(key) else { return self };
        let is_changed = observed.sysctls.get(key) != Some(value);
        let remedy = match released.contains(key) {
            true if is_changed => format!(
                "the plan restores the original value of {key}; to prevent that, set `{key}: {passing}` under sysctls in the \
                 configuration"
            ),
            true => return self,
            false => format!("the configuration sets {key}; set it to {passing} under sysctls"),
        };
        if !released.contains(key) {
            self.key = Some(ConfigPath::root().key("sysctls").key(key.as_str()));
        }
        self.remedy = Some(remedy);
        self
    }

    /// Returns the finding about a node as it is. Packets on a different path may still arrive, but lost packets are an error.
    #[must_use]
    pub fn finding(&self) -> Diagnostic {
        let diagnostic = self.diagnostic();
        if self.is_detour { diagnostic } else { diagnostic.as_error() }
    }

    /// Returns the finding.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic::new(self.rule, format!("{}: {}", self.summary(), self.why))
            .at(self.key.clone())
            .with_remedy_if(self.remedy.clone())
    }
}

/// Returns the part of a pod CIDR that the cause of a fault is about.
fn part(path: &Path, trace: &Trace<'_>) -> Option<PodPart> {
    let inside = |whole: IpNet, prefix: IpNet| whole.contains(&prefix) && whole != prefix;
    if let Some(Stop::ReversePath { back: Some(back), .. }) = &trace.stop {
        return inside(path.other, back.destination).then_some(PodPart::Other(back.destination));
    }
    let destination = trace.route?.destination;
    match path.direction {
        Direction::Out => inside(path.other, destination).then_some(PodPart::Other(destination)),
        Direction::In => inside(path.own, destination).then_some(PodPart::Own(destination)),
    }
}

/// Explains a lost packet to an address of this node that table local does not have. The kernel adds the route with the
/// address.
fn without_local_route(
    path: &Path,
    trace: &Trace<'_>,
    model: &ForwardingModel,
) -> Option<(Rule, String, Option<String>)> {
    let (host, address) = (model.host(), path.packet.destination);
    let has_it = || host.local_routes().any(|route| route.destination.contains(&address));
    if !path.is_to_node() || trace.verdict == Verdict::Local || has_it() {
        return None;
    }
    let owner = host.owner_of(address).filter(|owner| !host.is_in_vrf(&owner.device))?;
    let instead = trace.route.map_or_else(String::new, |route| format!(", so the packets follow `{route}`"));
    Some((
        Rule::PathLost,
        format!("table local has no route for {address}, an address of {}{instead}", owner.device),
        Some(format!("run `{}`", add_local_route(address, &owner.device))),
    ))
}

/// Explains lost packets to the pods of this node that no route on their interface leads to. The kernel adds the route with the
/// address of the interface.
fn without_pod_route(
    path: &Path,
    trace: &Trace<'_>,
    model: &ForwardingModel,
) -> Option<(Rule, String, Option<String>)> {
    let Path { local_end, direction, packet, expected, own, part, is_alone, .. } = path;
    let host = model.host();
    let leads_there = |route: &&Route| {
        route.destination.contains(&packet.destination)
            && route.next_hop.device.as_ref() == Some(&expected.device)
    };
    let is_to_pods =
        *local_end == LocalEnd::Pod && *direction == Direction::In && part.is_none() && !is_alone;
    if !is_to_pods || host.foreign.iter().chain(&host.others).any(|route| leads_there(&route)) {
        return None;
    }
    let instead = trace.route.map_or_else(String::new, |route| format!(", so the packets follow `{route}`"));
    let to = own.to_string();
    let words = ["route", "add", &to, "dev", expected.device.as_raw()];
    let add = ShellCommand::new(Family::from(*own).ip_words(words));
    Some((
        Rule::PathLost,
        format!("no route leads to {own} on {}{instead}", expected.device),
        Some(format!("run `{add}`, or correct the prefix length of the address of {}", expected.device)),
    ))
}

/// Returns the command that adds the route by which the node receives packets to its own `address`.
pub fn add_local_route(address: IpAddr, device: &Untrusted) -> ShellCommand {
    let to = address.to_string();
    let words = ["route", "add", "local", &to, "dev", device.as_raw(), "table", "local"];
    ShellCommand::new(Family::from(address).ip_words(words))
}

/// Whether no route leads to the destination, or only a default route.
fn is_lost_or_default(trace: &Trace<'_>) -> bool {
    let follows_default = trace.route.is_some_and(|route| route.destination.prefix_len() == 0);
    trace.stop.is_none() && follows_default || matches!(trace.stop, Some(Stop::NoRoute))
}

/// Returns the code, the reason and the remedy if a route for certain sources keeps the packets from using another one.
fn by_hiding_route(route: &Route) -> (Rule, String, Option<String>) {
    let why = format!(
        "the route `{route}` keeps packets from other sources from using other routes to {}",
        route.destination
    );
    (Rule::PathByRoute, why, remove_route(route))
}

/// Whether packets are lost because no policy rule looks up the table of the planned route.
fn lacks_rule(path: &Path, trace: &Trace<'_>, model: &ForwardingModel) -> bool {
    let has_none = !model.looks_up(path.table, path.packet.destination.into());
    path.node().is_some() && has_none && is_lost_or_default(trace)
}

/// Returns the code and the reason if no policy rule looks up the table of the planned route. The remedy depends on the families
/// of all such paths.
fn without_rule(table: u32, trace: &Trace<'_>) -> (Rule, String, Option<String>) {
    let table = table_name(table);
    let instead = trace.route.map_or_else(String::new, |route| format!(", so the packets follow `{route}`"));
    (
        Rule::PathLost,
        format!("no policy rule looks up table {table}, which has hostgw's routes{instead}"),
        None,
    )
}

/// Returns the commands that add policy rules by which pod traffic uses hostgw's routes, the last ones with this priority.
fn use_routes(paths: &Paths<'_>, families: &BTreeSet<Family>, table: u32, priority: u32) -> String {
    let rules = families.iter().flat_map(|family| paths.table_rules(*family, table, priority));
    rules.map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(" and ")
}

/// Returns the code, the reason and the remedy.
fn reason(
    paths: &Paths<'_>,
    path: &Path,
    trace: &Trace<'_>,
    addresses: &[InterfaceAddress],
) -> (Rule, String, Option<String>) {
    let family = Family::from(path.packet.destination);
    match &trace.stop {
        Some(Stop::Rule(rule)) => {
            (Rule::PathByRule, format!("the policy rule `{rule}` drops the packets"), Some(remove_rule(rule)))
        }
        Some(Stop::Route(route)) => by_route(paths, path, trace.rule, route, "drops the packets", addresses),
        Some(Stop::Forwarding(key)) => (
            Rule::PathNotForwarded,
            format!("{key} is 0, so the node does not forward packets{}", arriving(path)),
            Some(format!(
                "enable it with `{}`, and find out what disables it, such as a file in /etc/sysctl.d",
                ShellCommand::new(["sysctl", "-w", &format!("{key}=1")])
            )),
        ),
        Some(Stop::ReversePath { sysctl, is_strict, back }) => {
            let source = path.packet.source;
            let relax = |value| ShellCommand::new(["sysctl", "-w", &format!("{sysctl}={value}")]);
            let (because, remedy) = match back {
                Some(back) => (
                    format!("the return route is `{back}`"),
                    match is_strict {
                        true => format!("fix the return route, or relax the filter with `{}`", relax(2)),
                        false => "fix the return route".to_owned(),
                    },
                ),
                None => (
                    "there is no return route".to_owned(),
                    format!("add a route to {source}, or disable the filter with `{}`", relax(0)),
                ),
            };
            (
                Rule::PathFiltered,
                format!("{sysctl} drops packets{}, because {because}", arriving(path)),
                Some(remedy),
            )
        }
        Some(Stop::NoRoute) => (
            Rule::PathLost,
            "no policy rule selects a table with a matching route".to_owned(),
            Some(format!(
                "list the rules with `{}`; a routing table is used only if a rule selects it",
                ip(family, &["rule"])
            )),
        ),
        Some(Stop::Source) => (
            Rule::PathLost,
            format!(
                "the kernel does not accept {} as the source of packets{}",
                path.packet.source,
                arriving(path)
            ),
            None,
        ),
        Some(Stop::Destination) => (
            Rule::PathLost,
            format!("the kernel does not accept {} as the address of a pod", path.packet.destination),
            None,
        ),
        None => match (&trace.verdict, trace.route) {
            // Without table local, or before it, another route takes the packets.
            (Verdict::Forwarded { .. }, Some(route)) if path.is_to_node() => (
                Rule::PathByRule,
                format!("policy rules do not look up table local first, so the packets follow `{route}`"),
                Some(format!(
                    "compare the rules with `{}`: table local comes first, with priority 0",
                    ip(family, &["rule"])
                )),
            ),
            (verdict, Some(route)) if path.rank(verdict) != Rank::Planned => {
                let does = match verdict {
                    Verdict::Local => "delivers the packets to this node itself",
                    _ => "leads elsewhere",
                };
                by_route(paths, path, trace.rule, route, does, addresses)
            }
            _ => (
                Rule::PathLost,
                "the kernel does not forward the packets, for an unknown reason".to_owned(),
                Some(format!("to see the kernel's answer, run `{}`", asks(path))),
            ),
        },
    }
}

/// Returns on which interface packets arrive, after a noun.
fn arriving(path: &Path) -> String {
    path.packet.input.as_ref().map_or_else(String::new, |input| format!(" that arrive on {input}"))
}

fn by_route(
    paths: &Paths<'_>,
    path: &Path,
    rule: Option<&PolicyRule>,
    route: &Route,
    does: &str,
    addresses: &[InterfaceAddress],
) -> (Rule, String, Option<String>) {
    let shown = format!("`{route}` ({})", owner(route));
    let diverting = rule.filter(|rule| route.table != MAIN_TABLE && rule.protocol != protocol::KERNEL);
    match diverting {
        Some(rule) => (
            Rule::PathByRule,
            format!("the policy rule `{rule}` looks up the route {shown}, which {does}"),
            Some(match rule.priority.checked_sub(1).filter(|before| *before > 1) {
                Some(before) if route.is_owned() && path.own.contains(&path.packet.destination) => {
                    let whose = match path.local_end {
                        LocalEnd::Pod => "for this node's own pods",
                        LocalEnd::Node => "for this node",
                    };
                    let own = TableRule { to: path.own, table: MAIN_TABLE, priority: before };
                    format!("add a rule before it {whose}: `{own}`")
                }
                Some(before) if path.node().is_some() => format!(
                    "if the rule is not meant for pods, {}; otherwise, add a rule before it that uses hostgw's routes for pod traffic: {}",
                    remove_rule(rule),
                    use_routes(paths, &BTreeSet::from([path.packet.destination.into()]), path.table, before)
                ),
                _ => format!("if the rule is not meant for pods, {}", remove_rule(rule)),
            }),
        ),
        None => {
            // Without its default route, the node would lose more than the packets of pods.
            let is_default = route.destination.prefix_len() == 0;
            let remedy = if route.is_of_address() {
                // The address does not work without its route.
                Some(belongs_to_address(path, route, addresses))
            } else if route.is_owned() || is_default {
                None
            } else {
                remove_route(route)
            };
            (Rule::PathByRoute, format!("the route {shown} {does}"), remedy)
        }
    }
}

/// Returns what to do about a route that the kernel added together with an address.
fn belongs_to_address(path: &Path, route: &Route, addresses: &[InterfaceAddress]) -> String {
    let device = route.next_hop.device.as_ref();
    // The address of a point-to-point interface, which is outside the prefix, is deleted with other arguments.
    let local = addresses.iter().find(|local| {
        Some(local.address) == route.source
            && Some(&local.device) == device
            && local.prefix.contains(&local.address)
    });
    // Without its address on the interface to the other nodes, this node would lose more than the packets of pods.
    let is_egress = |device: &Untrusted| match path.direction {
        Direction::Out => *device == path.expected.device,
        Direction::In => path.packet.input.as_ref() == Some(device),
    };
    match local {
        Some(InterfaceAddress { device, address, prefix, .. }) if is_egress(device) => format!(
            "the route comes from the address {address}/{} of {device}: check its prefix length",
            prefix.prefix_len()
        ),
        Some(InterfaceAddress { device, address, prefix, .. }) => {
            let local = format!("{address}/{}", prefix.prefix_len());
            let remove = ip(route.family(), &["address", "del", &local, "dev", device.as_raw()]);
            format!(
                "the route comes from the address {local} of {device}: if it is not needed there, remove it with `{remove}`"
            )
        }
        None => {
            let on = device.map_or_else(String::new, |device| format!(" of {device}"));
            format!("the route comes from an address{on}: if it is not needed there, remove it")
        }
    }
}

/// Returns what refused a packet: a sentence in lower case without a period.
#[must_use]
pub fn stop_text(stop: &Stop<'_>) -> String {
    match stop {
        Stop::NoRoute => "no policy rule selects a table with a matching route".to_owned(),
        Stop::Rule(rule) => format!("the policy rule `{rule}` drops it"),
        Stop::Route(route) => format!("the route `{route}` drops it"),
        Stop::Forwarding(key) => format!("{key} is 0, so the node does not forward it"),
        Stop::ReversePath { sysctl, back: Some(back), .. } => {
            format!("{sysctl} drops it, because the return route is `{back}`")
        }
        Stop::ReversePath { sysctl, back: None, .. } => {
            format!("{sysctl} drops it, because there is no return route")
        }
        Stop::Source => "the kernel does not accept its source there".to_owned(),
        Stop::Destination => "the kernel does not accept its destination".to_owned(),
    }
}

/// Returns who added a route.
#[must_use]
pub fn owner(route: &Route) -> String {
    if route.is_owned() {
        return "managed by hostgw".to_owned();
    }
    match route.protocol {
        _ if route.is_of_address() => "added by the kernel".to_owned(),
        protocol::BOOT => "added with `ip route`, or by a script".to_owned(),
        other => format!("added by protocol {}", protocol::name(other)),
    }
}

/// Returns how to delete a rule. The kernel deletes the first rule with all the properties that the command names.
#[must_use]
pub fn remove_rule(rule: &PolicyRule) -> String {
    match delete_rule(rule) {
        Some(command) => format!("remove it with `{command}`"),
        None => "remove it in the program that added it".to_owned(),
    }
}

/// Returns the command that deletes a policy rule, unless it has selectors that hostgw does not know.
#[must_use]
pub fn delete_rule(rule: &PolicyRule) -> Option<String> {
    if !rule.selector.others.is_empty() {
        return None;
    }
    let priority = rule.priority.to_string();
    let words = rule.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = vec!["rule", "del"];
    // `not` comes first.
    let (not, rest) = words.split_at(usize::from(words.first() == Some(&"not")));
    command.extend(not);
    command.extend(["priority", &priority]);
    command.extend(rest);
    Some(ip(rule.family, &command))
}

/// Returns how to delete a route that is not needed, if there is a command for it.
#[must_use]
pub fn remove_route(route: &Route) -> Option<String> {
    delete_route(route).map(|command| format!("if it is not needed, remove it with `{command}`"))
}

/// Returns the command that deletes a route. The kernel compares only what the command names (`fib_table_delete`,
/// net/ipv4/fib_trie.c; `ip6_route_del`, net/ipv6/route.c), so metrics, encapsulation and several next hops can be left out. `None` if
/// the route has parts that hostgw does not know.
#[must_use]
pub fn delete_route(route: &Route) -> Option<String> {
    let parts = || route.opaque.iter().flat_map(|opaque| &opaque.attributes).map(Untrusted::as_raw);
    if parts().any(|part| ["more", "from"].contains(&part)) {
        return None;
    }
    let is_shared = parts().any(|part| part.contains(" next hop") || part.starts_with("nhid "));
    // The kernel has no default for these two.
    let tos = route.tos.map_or_else(String::new, |tos| format!(" tos {tos:#x}"));
    let from =
        parts().find(|part| part.starts_with("from ")).map_or_else(String::new, |from| format!(" {from}"));
    let kind = match route.kind {
        RouteType::Unicast => String::new(),
        // The kernel stores the type with the nexthop object, and finds no route of that type.
        _ if is_shared => String::new(),
        kind => format!("{kind} "),
    };
    // For a nexthop object, the kernel compares neither address nor interface.
    let gateway = route.next_hop.gateway.filter(|_| !is_shared);
    let via = gateway.map_or_else(String::new, |gateway| match Family::from(gateway) == route.family() {
        true => format!(" via {gateway}"),
        false => format!(" via inet6 {gateway}"),
    });
    let table =
        if route.table == MAIN_TABLE { String::new() } else { format!(" table {}", table_name(route.table)) };
    // IPv6 routes without a metric have this one.
    let metric = match (route.metric, route.family()) {
        (0, _) | (1024, Family::V6) => String::new(),
        (metric, _) => format!(" metric {metric}"),
    };
    let words = format!("{kind}{}{from}{tos}{via}{table}{metric}", route.destination);
    Some(ip(route.family(), &["route", "del", &words]))
}

fn asks(path: &Path) -> String {
    let family = Family::from(path.packet.destination);
    ip(family, &["route", "get", &path.packet.to_string()])
}

/// Returns a command of `ip`. A word may contain several arguments.
fn ip(family: Family, words: &[&str]) -> String {
    let option = match family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    };
    format!("ip {option}{}", words.join(" "))
}
