//! The objects of a network plugin or of a manual setup that hostgw does not adopt, and the commands that remove them.
//!
//! The commands are in an order in which no packet is lost: what drops packets goes before what accepts them, rules before
//! the chains that they jump to, chains before the sets that they match, and routes last.

use std::collections::BTreeSet;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    super::prefix::private_block,
    chains::Chains,
    iptables::{IptablesRule, IptablesTable},
    masquerade::{NatReading, RuleFate},
    nat_rules::RuleOrigin,
    plugin,
    pods::{NodeView, is_calico_block, is_rejecting},
};
use crate::{
    model::Family,
    state::{
        FirewallChain, FirewallRule, NatTable, PLUGIN_PROTOCOLS, PolicyRule, Route, RouteType, RuleAction,
        RuleVerdict, Term,
    },
    text::{ShellCommand, Untrusted},
};

/// The tables of iptables, in the order in which their rules are removed: the filter drops packets, and the others only mark
/// or change them.
const TABLE_ORDER: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Why a person has to decide about a rule that does not name any network.
const UNCLEAR: &str =
    "this rule may also serve networks other than the pods'. If it does not, delete it yourself";

/// Why a person has to decide about a rule that the configuration does not contain.
const KEPT: &str =
    "the configuration does not contain this rule (HG1123). If pods do not need it, delete it yourself";

/// Why a person has to decide about a route that rejects packets to pods that no node has.
const REJECTS: &str = "the configuration does not contain this route. If the configuration has `unassigned: unreachable` under `routes`, or pods do not need it, \
     delete it yourself";

/// The routing tables that kube-router creates: for tunnels, and for two kinds of services.
const KUBE_ROUTER_TABLES: [u32; 3] = [77, 78, 79];

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LeftoverKind {
    /// Accepts pod traffic, as the rules that are removed next do, because the firewall drops forwarded packets by default.
    Accept,
    /// Removes a rule of a firewall.
    Rule,
    /// Empties or removes a chain.
    Chain,
    /// Removes an address set.
    Set,
    /// Removes a whole table of nftables.
    Table,
    /// Removes a policy rule.
    PolicyRule,
    /// Removes a route.
    Route,
}

/// One step of the removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The kind of step.
    pub kind: LeftoverKind,
    /// The program that created the object; absent if it was created by hand.
    pub plugin: Option<&'static str>,
    /// The command.
    pub command: ShellCommand,
}

/// What determines which objects are left over.
pub(super) struct LeftoverScope<'a> {
    /// The cluster prefixes.
    pub prefixes: &'a [IpNet],
    /// The node's own pod CIDRs.
    pub own: &'a [IpNet],
    /// The table in which the configuration rejects packets to pods that no node has, if routes of others do so now.
    pub unassigned_table: Option<u32>,
    /// What becomes of the NAT rules.
    pub nat: &'a NatReading<'a>,
    /// The routes that hostgw adopts.
    pub adopted: &'a [&'a Route],
}

impl LeftoverScope<'_> {
    /// Whether a network contains more than the pods of one node, but not all private addresses of its kind, as those for which
    /// routers have no other route.
    fn is_around_pods(&self, net: IpNet) -> bool {
        let mut of_nodes = self.own.iter().copied().chain(self.adopted.iter().map(|route| route.destination));
        let contains = |cidr: IpNet| net.contains(&cidr) && (net != cidr || self.prefixes.contains(&net));
        private_block(net) != Some(net) && of_nodes.any(contains)
    }

    /// What becomes of a route that rejects or drops packets to pods that no node has. `None` if it is another one, or hostgw
    /// adopts it.
    fn of_rejecting(&self, route: &Route) -> Option<RuleFate> {
        if !is_rejecting(route) || !self.is_around_pods(route.destination) {
            return None;
        }
        let is_of_prefix = self.prefixes.contains(&route.destination);
        let Some(table) = self.unassigned_table.filter(|_| is_of_prefix) else { return Some(RuleFate::Kept) };
        // The kernel has one route with the metric of hostgw's.
        let is_adopted = route.table == table && route.metric == u32::MAX;
        let is_replaced = route.table == table && route.kind == RouteType::Unreachable;
        (!is_adopted).then_some(if is_replaced { RuleFate::Replaced } else { RuleFate::Kept })
    }
}

/// Finds everything that is left over, in the order of its removal.
pub(super) fn leftovers(
    view: &NodeView<'_>,
    chains: &Chains<'_>,
    scope: &LeftoverScope<'_>,
) -> Vec<Leftover> {
    let mut tables: Vec<&IptablesTable> = chains.iptables.iter().collect();
    let position =
        |name: &str| TABLE_ORDER.iter().position(|known| *known == name).unwrap_or(TABLE_ORDER.len());
    tables.sort_by_key(|table| position(&table.name));
    let mut steps = Vec::new();
    for table in &tables {
        steps.extend(accept(table, scope));
        steps.extend(rules(table, scope));
    }
    for table in &tables {
        steps.extend(empty_chains(table));
    }
    steps.extend(sets(&tables));
    steps.extend(native(chains, scope));
    steps.extend(policy_rules(view, scope));
    steps.extend(routes(view, scope));
    steps
}

fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> ShellCommand {
    ShellCommand::new(words)
}

/// The program that created a rule to remove, or `None` if it was created by hand. The outer `None` if the rule stays.
fn owner(
    table: &IptablesTable,
    rule: &IptablesRule,
    scope: &LeftoverScope<'_>,
) -> Option<(Option<&'static str>, RuleFate)> {
    if let Some(plugin) = plugin::of_rule(rule) {
        return Some((Some(plugin), RuleFate::Replaced));
    }
    Some((None, scope.nat.decision(&RuleOrigin::Iptables(table, rule))?))
}

/// The command that removes a rule, or a comment about it.
fn removal<'a>(decision: RuleFate, words: impl IntoIterator<Item = &'a str>) -> ShellCommand {
    match decision {
        RuleFate::Replaced => command(words),
        RuleFate::Unclear => ShellCommand::manual(UNCLEAR, words),
        RuleFate::Kept => ShellCommand::manual(KEPT, words),
    }
}

/// Whether a rule of iptables only ends the processing of packets, which must outlast the rules after it.
fn is_exclusion(rule: &IptablesRule) -> bool {
    matches!(rule.target(), Some("RETURN" | "ACCEPT"))
}

fn is_of_plugin_chain(rule: &IptablesRule) -> bool {
    plugin::of_chain(&rule.chain).is_some()
}

/// The rules outside the plugins' chains.
fn rules(table: &IptablesTable, scope: &LeftoverScope<'_>) -> Vec<Leftover> {
    let outside = || table.rules.iter().filter(|rule| !is_of_plugin_chain(rule));
    let is_last = |rule: &&IptablesRule| table.name == "nat" && is_exclusion(rule);
    let ordered = outside().filter(|rule| !is_last(rule)).chain(outside().filter(is_last));
    ordered
        .filter_map(|rule| {
            let (plugin, decision) = owner(table, rule, scope)?;
            let head = [table.program.as_str(), "-t", &table.name, "-D", &rule.chain];
            let words = head.into_iter().chain(rule.words.iter().map(String::as_str));
            Some(Leftover { kind: LeftoverKind::Rule, plugin, command: removal(decision, words) })
        })
        .collect()
}

/// If the firewall drops forwarded packets that no rule accepts, and rules of plugins accept those of pods, rules that do the
/// same in their place.
fn accept(table: &IptablesTable, scope: &LeftoverScope<'_>) -> Vec<Leftover> {
    if table.name != "filter" {
        return Vec::new();
    }
    let forward: Vec<&IptablesRule> = table.rules.iter().filter(|rule| rule.chain == "FORWARD").collect();
    let is_removed = |rule: &&&IptablesRule| plugin::of_rule(rule).is_some();
    let drops = |rule: &&&IptablesRule| {
        plugin::of_rule(rule).is_none() && matches!(rule.target(), Some("DROP" | "REJECT"))
    };
    let is_dropped = forward.iter().any(|rule| drops(&rule))
        || table
            .chains
            .iter()
            .any(|chain| chain.name == "FORWARD" && chain.policy.as_deref() == Some("DROP"));
    let accepts = |rule: &IptablesRule| rule.target() == Some("ACCEPT") && plugin::of_rule(rule).is_some();
    let first = forward.iter().position(|rule| is_removed(&rule));
    let (Some(first), true) = (first, is_dropped && table.rules.iter().any(accepts)) else {
        return Vec::new();
    };
    let position = (first + 1).to_string();
    let of_family = scope.prefixes.iter().filter(|prefix| Family::from(**prefix) == table.family);
    let mut steps = Vec::new();
    for prefix in of_family.map(ToString::to_string) {
        for side in ["-d", "-s"] {
            let words =
                [&table.program, "-t", "filter", "-I", "FORWARD", &position, side, &prefix, "-j", "ACCEPT"];
            steps.push(Leftover { kind: LeftoverKind::Accept, plugin: None, command: command(words) });
        }
    }
    steps
}

/// Empties all chains of plugins, and then removes them, because they jump to each other.
fn empty_chains(table: &IptablesTable) -> Vec<Leftover> {
    let chains: Vec<(&str, &'static str)> = table
        .chains
        .iter()
        .filter_map(|chain| Some((chain.name.as_str(), plugin::of_chain(&chain.name)?)))
        .collect();
    let step = |option: &'static str| {
        let table = &table;
        chains.iter().map(move |(chain, plugin)| Leftover {
            kind: LeftoverKind::Chain,
            plugin: Some(*plugin),
            command: command([table.program.as_str(), "-t", &table.name, option, chain]),
        })
    };
    step("-F").chain(step("-X")).collect()
}

/// The sets of plugins that the removed rules match.
fn sets(tables: &[&IptablesTable]) -> Vec<Leftover> {
    let rules = tables.iter().flat_map(|table| &table.rules);
    let names: BTreeSet<&str> = rules.flat_map(IptablesRule::sets).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let plugin = plugin::of_set(name)?;
            let command = command(["ipset", "destroy", name]);
            Some(Leftover { kind: LeftoverKind::Set, plugin: Some(plugin), command })
        })
        .collect()
}

/// The tables of plugins, their rules and chains, and rules that masquerade, that iptables does not know.
fn native(chains: &Chains<'_>, scope: &LeftoverScope<'_>) -> Vec<Leftover> {
    let (mut rules, mut emptied, mut removed, mut tables) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for chain in &chains.native {
        let (family, table, name) = (chain.family.name(), chain.table.as_raw(), chain.name.as_raw());
        if let Some(plugin) = plugin::of_table(table) {
            if seen.insert((family, table)) {
                let command = command(["nft", "delete", "table", family, table]);
                tables.push(Leftover { kind: LeftoverKind::Table, plugin: Some(plugin), command });
            }
            continue;
        }
        if let Some(plugin) = plugin::of_chain(name) {
            for (steps, verb) in [(&mut emptied, "flush"), (&mut removed, "delete")] {
                let command = command(["nft", verb, "chain", family, table, name]);
                steps.push(Leftover { kind: LeftoverKind::Chain, plugin: Some(plugin), command });
            }
            continue;
        }
        let is_exclusion = |rule: &&FirewallRule| {
            let ends = |term: &Term| matches!(term, Term::Verdict(RuleVerdict::Return | RuleVerdict::Accept));
            rule.terms.iter().any(ends)
        };
        let (last, first): (Vec<_>, Vec<_>) = chain.rules.iter().partition(is_exclusion);
        rules.extend(first.into_iter().chain(last).filter_map(|rule| native_rule(chain, rule, scope)));
    }
    [rules, emptied, removed, tables].concat()
}

/// A rule outside the plugins' chains that iptables does not know.
fn native_rule(chain: &FirewallChain, rule: &FirewallRule, scope: &LeftoverScope<'_>) -> Option<Leftover> {
    let mut targets = rule.terms.iter().flat_map(Term::targets);
    let plugin = targets.find_map(|target| plugin::of_chain(target.as_raw()));
    let decision = match plugin {
        Some(_) => RuleFate::Replaced,
        None => scope.nat.decision(&RuleOrigin::Native(chain, rule))?,
    };
    let handle = rule.handle.to_string();
    let (family, table, name) = (chain.family.name(), chain.table.as_raw(), chain.name.as_raw());
    let words = ["nft", "delete", "rule", family, table, name, "handle", &handle];
    Some(Leftover { kind: LeftoverKind::Rule, plugin, command: removal(decision, words) })
}

/// The policy rules that send pod traffic to the tables of kube-router.
fn policy_rules(view: &NodeView<'_>, scope: &LeftoverScope<'_>) -> Vec<Leftover> {
    let is_about_pods = |rule: &&PolicyRule| {
        let selector = [rule.selector.from, rule.selector.to];
        let mut nets = selector.into_iter().flatten();
        let is_of_pods = nets.any(|net| scope.prefixes.iter().any(|prefix| prefix.contains(&net)));
        matches!(rule.action, RuleAction::Lookup(table) if KUBE_ROUTER_TABLES.contains(&table)) && is_of_pods
    };
    view.host
        .rules
        .iter()
        .filter(is_about_pods)
        .map(|rule| {
            let priority = rule.priority.to_string();
            let words = rule.words();
            let start = ["rule", "del", "priority", &*priority].into_iter();
            let words = rule.family.ip_words(start.chain(words.iter().map(String::as_str)));
            Leftover { kind: LeftoverKind::PolicyRule, plugin: Some("kube-router"), command: command(words) }
        })
        .collect()
}

/// The routes that adopted ones replace: to the same pods with another metric, and to the whole cluster prefix without a gateway.
/// Also the blackhole routes with which Calico rejects packets to pods that do not exist, and those by which somebody rejects or
/// drops packets to pods that no node has. All others stay: routes to running pods, and to nodes that are not in the
/// configuration.
fn routes(view: &NodeView<'_>, scope: &LeftoverScope<'_>) -> Vec<Leftover> {
    let added = Family::ALL.into_iter().flat_map(|family| view.added(family));
    let is_left = |route: &&Route| {
        let destination = route.destination;
        let is_adopted = scope.adopted.iter().any(|adopted| adopted.key() == route.key());
        let is_replaced = scope.adopted.iter().any(|adopted| adopted.destination == destination);
        let is_on_link = scope.prefixes.contains(&destination) && route.next_hop.gateway.is_none();
        let is_forwarding = route.kind == RouteType::Unicast && (is_replaced || is_on_link);
        let is_block = is_calico_block(route) && scope.own.contains(&destination);
        let is_around = scope.of_rejecting(route).is_some();
        !route.is_owned() && !is_adopted && (is_forwarding || is_block || is_around)
    };
    added
        .filter(is_left)
        .map(|route| {
            // The kernel finds the route without what only some commands can print.
            let arguments = Route { opaque: None, mtu: None, ..route.clone() }.arguments();
            let start = ["route", "del"].into_iter();
            let words = route.family().ip_words(start.chain(arguments.iter().map(String::as_str)));
            let by_protocol = PLUGIN_PROTOCOLS.iter().find(|(number, _)| *number == route.protocol);
            Leftover {
                kind: LeftoverKind::Route,
                plugin: by_protocol.map(|(_, plugin)| *plugin),
                command: match scope.of_rejecting(route) {
                    Some(RuleFate::Kept) => ShellCommand::manual(REJECTS, words),
                    _ => command(words),
                },
            }
        })
        .collect()
}

/// What must be true before the script runs, one line each.
fn conditions(plugins: &[&str]) -> Vec<String> {
    let adopted = "`hostgw apply --adopt` must have succeeded on this node".to_owned();
    let others = plugins.iter().map(|plugin| match *plugin {
        plugin::BRIDGE_PLUGIN => "the CNI configuration of this node must have `ipMasq: false`".to_owned(),
        other => format!("{other} must be stopped on this node"),
    });
    std::iter::once(adopted).chain(others).collect()
}

/// The plugins that created any of these, sorted.
pub(super) fn plugins(steps: &[Leftover]) -> Vec<&'static str> {
    let plugins: BTreeSet<&str> = steps.iter().filter_map(|step| step.plugin).collect();
    plugins.into_iter().collect()
}

/// What shows that hostgw has taken over, so that the rest can be removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takeover {
    Routes(Family),
    /// The NAT table, on a node without routes to others.
    Table(Family),
    /// Nothing: hostgw manages neither on this node.
    Nothing,
}

impl Takeover {
    /// The commands that end a script before the takeover.
    fn check(self) -> String {
        let (condition, what) = match self {
            Self::Routes(family) => {
                let option = if family == Family::V6 { "-6" } else { "-4" };
                (format!("! ip {option} route show table all proto 87 | grep -q ."), "routes")
            }
            Self::Table(family) => {
                let table = format!("nft list table {} {}", family.nft(), NatTable::NAME);
                (format!("command -v nft >/dev/null && ! {table} >/dev/null 2>&1"), "NAT table")
            }
            Self::Nothing => return String::new(),
        };
        format!(
            "if {condition}; then\n\
             \x20   echo 'error: hostgw manages no {what} on this node; nothing was removed' >&2\n\
             \x20   echo 'help: run `hostgw apply --adopt` first' >&2\n\
             \x20   exit 1\n\
             fi\n"
        )
    }
}

/// Writes a script of the steps. `command` writes it again.
pub(super) fn script(
    node: &Untrusted,
    steps: &[Leftover],
    takeover: Takeover,
    plugins: &[&str],
    command: &ShellCommand,
) -> String {
    let mut text =
        format!("#!/bin/sh\n# Removes what hostgw does not adopt from node {node}. Before you run it:\n");
    for condition in conditions(plugins) {
        text.push_str(&format!("#   - {condition}\n"));
    }
    text.push_str("# If a command fails because its object is gone, generate this script again:\n");
    text.push_str(&format!("#   {command} >/dev/null\nset -e\n\n"));
    text.push_str(&takeover.check());
    let mut kind = None;
    for step in steps {
        if kind.replace(step.kind) != Some(step.kind) {
            text.extend(["\n# ", heading(step.kind), "\n"]);
        }
        text.push_str(&format!("{}\n", step.command));
    }
    let undecided = steps.iter().filter(|step| step.command.is_manual()).count();
    let done = match (steps.len(), undecided) {
        (0, _) => "Nothing is left over.".to_owned(),
        (all, some) if all == some => {
            "Removed nothing: all commands in this script need your decision.".to_owned()
        }
        (_, 0) => "Done. To check, run `hostgw plan`.".to_owned(),
        (_, some) => {
            let need = if some == 1 { "1 command that needs" } else { &format!("{some} commands that need") };
            format!(
                "Done, except for {need} your decision: see the comments in this script. To check, run `hostgw plan`."
            )
        }
    };
    text.push_str(&format!("\necho '{done}'\n"));
    text
}

const fn heading(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Accept => {
            "The firewall drops forwarded packets by default. These rules replace the ones below that accept pod traffic.\n# Save them with your firewall, or a reboot removes them."
        }
        LeftoverKind::Rule => "Rules",
        LeftoverKind::Chain => "Chains",
        LeftoverKind::Set => "Sets",
        LeftoverKind::Table => "nftables tables",
        LeftoverKind::PolicyRule => "Policy rules",
        LeftoverKind::Route => "Routes",
    }
}
