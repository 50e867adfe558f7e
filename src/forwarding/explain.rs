//! Why packets take another way than planned, in a sentence, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Direction, ForwardingModel, Path, Paths, Rank, Stop, Trace, Verdict};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, MAIN_TABLE},
    state::{PolicyRule, Route, RouteType, protocol, table_name},
    text::{ShellCommand, Untrusted, list},
};

/// Paths that do not work, for the same reason.
#[derive(Debug, Clone, PartialEq)]
pub struct PathFault {
    /// The other nodes, with the directions in which their packets are affected.
    pub nodes: BTreeMap<Untrusted, BTreeSet<Direction>>,
    /// The number of all other nodes.
    pub of: usize,
    /// Whether the packets go another way rather than being lost.
    pub is_detour: bool,
    /// The rule of [`crate::diagnose`].
    pub rule: Rule,
    /// Why, as a sentence in lower case without a period.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Returns why the paths with these indexes do not work. Paths with the same reason are taken together.
#[must_use]
pub fn explain(paths: &Paths, blocked: &[usize], model: &ForwardingModel) -> Vec<PathFault> {
    let mut faults: Vec<PathFault> = Vec::new();
    if blocked.is_empty() {
        return faults;
    }
    let of = paths.nodes();
    let mut wanted = blocked.iter().peekable();
    for (index, path) in paths.iter().enumerate() {
        if wanted.next_if(|wanted| **wanted == index).is_none() {
            continue;
        }
        let trace = model.trace(&path.packet);
        let is_detour = path.rank(&trace.verdict) == Rank::Elsewhere;
        let (rule, why, remedy) = reason(&path, &trace);
        let is_same =
            |fault: &&mut PathFault| (fault.is_detour, fault.rule, &fault.why) == (is_detour, rule, &why);
        match faults.iter_mut().find(is_same) {
            Some(fault) => {
                fault.nodes.entry(path.node).or_default().insert(path.direction);
            }
            None => {
                let nodes = BTreeMap::from([(path.node, BTreeSet::from([path.direction]))]);
                faults.push(PathFault { nodes, of, is_detour, rule, why, remedy });
            }
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
        let who = match number {
            1 => format!("node {}", names[0]),
            all if all == self.of => format!("all {all} other nodes ({})", list(&names, 6)),
            some => format!("{some} of {} other nodes ({})", self.of, list(&names, 6)),
        };
        let are = if number == 1 { "is" } else { "are" };
        let directions: BTreeSet<Direction> = self.nodes.values().flatten().copied().collect();
        let is_out = directions.contains(&Direction::Out);
        match (self.is_detour, is_out, directions.contains(&Direction::In)) {
            (false, true, true) => format!("{who} and this node's pods cannot reach each other"),
            (false, true, false) => format!("{who} {are} not reachable from this node's pods"),
            (false, false, _) => format!("this node's pods are not reachable from {who}"),
            (true, true, true) => {
                format!("packets between this node's pods and {who} take another way than planned")
            }
            (true, true, false) => format!("packets to {who} take another way than planned"),
            (true, false, _) => {
                format!("packets from {who} to this node's pods take another way than planned")
            }
        }
    }

    /// Returns the finding.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            rule: self.rule,
            message: format!("{}: {}", self.summary(), self.why),
            path: None,
            remedy: self.remedy.clone(),
        }
    }
}

/// Returns the code, the reason and the remedy.
fn reason(path: &Path, trace: &Trace<'_>) -> (Rule, String, Option<String>) {
    let family = Family::from(path.packet.destination);
    match &trace.stop {
        Some(Stop::Rule(rule)) => (
            Rule::PathByRule,
            format!("the policy rule `{rule}` discards the packets"),
            Some(remove_rule(rule)),
        ),
        Some(Stop::Route(route)) => by_route(family, trace.rule, route, "discards the packets"),
        Some(Stop::Forwarding(key)) => (
            Rule::PathNotForwarded,
            format!("{key} is 0, so the node does not forward packets that come in there"),
            Some(format!(
                "enable it with `{}`, and find out what disables it, such as a file in /etc/sysctl.d",
                ShellCommand::new(["sysctl", "-w", &format!("{key}=1")])
            )),
        ),
        Some(Stop::ReversePath { sysctl, back }) => {
            let back = back.map_or_else(
                || format!("there is no route back to {}", path.packet.source),
                |back| format!("the route back is `{back}`"),
            );
            (
                Rule::PathFiltered,
                format!(
                    "{sysctl} makes the kernel discard packets that come in on {} although {back}",
                    path.packet.input
                ),
                Some(format!(
                    "correct the route back, or relax the filter with `{}`",
                    ShellCommand::new(["sysctl", "-w", &format!("{sysctl}=2")])
                )),
            )
        }
        Some(Stop::NoRoute) => (
            Rule::PathLost,
            "no policy rule leads to a route".to_owned(),
            Some(format!(
                "list the rules with `{}`; the routes of a table need a rule that leads to it",
                ip(family, &["rule"])
            )),
        ),
        Some(Stop::Source) => (
            Rule::PathLost,
            format!("the kernel does not accept {} as a source on {}", path.packet.source, path.packet.input),
            None,
        ),
        Some(Stop::Destination) => (
            Rule::PathLost,
            format!("the kernel does not accept {} as the address of a pod", path.packet.destination),
            None,
        ),
        None => match (&trace.verdict, trace.route) {
            (verdict, Some(route)) if path.rank(verdict) != Rank::Planned => {
                let does = match verdict {
                    Verdict::Local => "delivers the packets to this node itself",
                    _ => "takes the packets another way",
                };
                by_route(family, trace.rule, route, does)
            }
            _ => (
                Rule::PathLost,
                "the kernel does not forward the packets, for a reason that hostgw does not know".to_owned(),
                Some(format!("ask it with `{}`", asks(path))),
            ),
        },
    }
}

fn by_route(
    family: Family,
    rule: Option<&PolicyRule>,
    route: &Route,
    does: &str,
) -> (Rule, String, Option<String>) {
    let shown = format!("`{route}` ({})", owner(route));
    let diverting = rule.filter(|rule| route.table != MAIN_TABLE && rule.protocol != protocol::KERNEL);
    match diverting {
        Some(rule) => (
            Rule::PathByRule,
            format!("the policy rule `{rule}` leads to the route {shown}, which {does}"),
            Some(format!(
                "if the rule is not meant for pods, {}; otherwise add the routes of hostgw to table {} with `routes.table`",
                remove_rule(rule),
                table_name(route.table)
            )),
        ),
        None => {
            let is_owned = route.is_owned();
            let remedy = (!is_owned && route.opaque.is_none()).then(|| {
                format!(
                    "if it is not needed, remove it with `{}`",
                    ip(family, &["route", "del", &removal(route)])
                )
            });
            (Rule::PathByRoute, format!("the route {shown} {does}"), remedy)
        }
    }
}

/// Who added a route.
fn owner(route: &Route) -> String {
    if route.is_owned() {
        return "managed by hostgw".to_owned();
    }
    match route.protocol {
        protocol::KERNEL => "added by the kernel".to_owned(),
        3 => "added with `ip route`".to_owned(),
        other => format!("added by protocol {}", protocol::name(other)),
    }
}

fn remove_rule(rule: &PolicyRule) -> String {
    let priority = rule.priority.to_string();
    format!("remove it with `{}`", ip(rule.family, &["rule", "del", "priority", &priority]))
}

/// The words that identify a route for `ip route del`.
fn removal(route: &Route) -> String {
    let kind = match route.kind {
        RouteType::Unicast => String::new(),
        kind => format!("{kind} "),
    };
    let via = route.next.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    let table =
        if route.table == MAIN_TABLE { String::new() } else { format!(" table {}", table_name(route.table)) };
    format!("{kind}{}{via}{table}", route.destination)
}

fn asks(path: &Path) -> String {
    let family = Family::from(path.packet.destination);
    ip(family, &["route", "get", &path.packet.to_string()])
}

/// A command of `ip`, whose words may contain several arguments.
fn ip(family: Family, words: &[&str]) -> String {
    let option = match family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    };
    format!("ip {option}{}", words.join(" "))
}
