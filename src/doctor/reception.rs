//! Examines whether the node receives packets to its own addresses, and so answers ARP requests and neighbor solicitations.

use std::net::IpAddr;

use super::{Effect, Examination, TrafficEffects, asked_for, egress, finding, own_gateways, set_sysctls};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        Direction, ForwardingModel, Packet, Paths, Stop, Trace, Verdict, add_local_route, delete_rule,
        remove_rule, stop_text,
    },
    model::{Family, MAIN_TABLE},
    state::{InterfaceAddress, LOCAL_TABLE, PolicyRule, RuleAction, RuleSelector},
    text::{ShellCommand, Untrusted},
};

/// A packet to an address of the node, which must receive it.
pub(super) struct Call {
    pub address: IpAddr,
    pub sender: IpAddr,
    /// The interface that it arrives on.
    pub device: Untrusted,
    /// Who sends it.
    pub senders: &'static str,
    /// The direction of the packets between pods that depend on the answer.
    pub direction: Direction,
}

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let mut findings: Vec<Diagnostic> = Vec::new();
    for family in Family::ALL {
        let mut lost = calls(examination, paths, family).into_iter().filter_map(|call| {
            let found = examine_call(examination, model, &call)?;
            effects.on_all(family, call.direction, Effect::Lost);
            Some(found)
        });
        // The others usually have the same cause.
        findings.extend(lost.next());
        lost.for_each(drop);
    }
    findings
}

/// Returns a packet of another node, and packets of this node's pods to their gateways.
pub(super) fn calls(examination: &Examination<'_>, paths: &Paths<'_>, family: Family) -> Vec<Call> {
    let Examination { cluster, index, observed, .. } = examination;
    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| at != index);
    let other = others.filter_map(|(_, node)| node.addresses.get(family)).next();
    let of_nodes = egress(examination).zip(other).into_iter().flat_map(|(egress, other)| {
        asked_for(cluster, examination.node(), family).into_iter().map(|address| Call {
            address,
            sender: *other,
            device: egress.name.clone(),
            senders: "other nodes",
            direction: Direction::In,
        })
    });
    let of_pods = own_gateways(examination, paths, family).into_iter().map(|gateway| Call {
        address: gateway.address,
        sender: gateway.pod,
        device: gateway.device,
        senders: "its pods",
        direction: Direction::Out,
    });
    of_nodes.chain(of_pods).filter(|call| observed.host.uses(call.address)).collect()
}

fn examine_call(
    examination: &Examination<'_>,
    model: &ForwardingModel<'_>,
    call: &Call,
) -> Option<Diagnostic> {
    let Call { address, sender, device, senders, .. } = call;
    let family = Family::from(*address);
    let packet = Packet { source: *sender, destination: *address, input: Some(device.clone()) };
    let trace = model.trace(&packet);
    if trace.verdict == Verdict::Local || model.host().is_in_vrf(device) {
        return None;
    }
    let question = match family {
        Family::V4 => "ARP requests",
        Family::V6 => "neighbor solicitations",
    };
    let effect = format!("so this node does not answer {question} of {senders} for {address} on {device}");
    if let Some(Stop::ReversePath { sysctl, back, .. }) = &trace.stop {
        // A node whose address is in another network may ask from another of its addresses.
        let on_device = |local: &&InterfaceAddress| local.device == *device;
        let mut networks = model.host().addresses.iter().filter(on_device);
        if !networks.any(|local| local.prefix.contains(sender)) {
            return None;
        }
        let relax = set_sysctls(examination, &[(sysctl.clone(), "2".to_owned())]);
        let why = back.map_or_else(
            || "there is no return route".to_owned(),
            |back| format!("the return route is `{back}`"),
        );
        return Some(finding(
            Rule::OwnAddressUnreachable,
            format!("{sysctl} drops packets from {sender} that arrive on {device}, because {why}, {effect}"),
            format!("fix the return route, or relax the filter: {relax}"),
        ));
    }
    let rules: Vec<&PolicyRule> = model.host().rules.iter().filter(|rule| rule.family == family).collect();
    match blocking_rule(&trace, &rules) {
        Some(Ok(rule)) => Some(finding(
            Rule::OwnAddressUnreachable,
            format!("the policy rule `{rule}` applies before the rule that looks up table local, {effect}"),
            remedy(family, Some(rule), &rules),
        )),
        Some(Err(NoLocalRule)) => Some(finding(
            Rule::OwnAddressUnreachable,
            format!("no policy rule looks up table local for packets to this node's addresses, {effect}"),
            remedy(family, None, &rules),
        )),
        None => missing_route(model, &trace, call, &effect),
    }
}

/// No rule for all packets looks up table local.
struct NoLocalRule;

/// Returns the rule that applies before table local is looked up, if the table is not looked up first.
fn blocking_rule<'a>(
    trace: &Trace<'_>,
    rules: &[&'a PolicyRule],
) -> Option<Result<&'a PolicyRule, NoLocalRule>> {
    let local = rules.iter().position(is_local);
    let Some(local) = local else { return (!rules.is_empty()).then_some(Err(NoLocalRule)) };
    let applied = trace.rule?;
    let at = rules.iter().position(|rule| *rule == applied)?;
    (at < local).then(|| Ok(rules[at]))
}

/// Returns `true` for the rule that looks up table local for all packets.
fn is_local(rule: &&PolicyRule) -> bool {
    rule.selector == RuleSelector::default() && rule.action == RuleAction::Lookup(LOCAL_TABLE)
}

/// Returns how to make the kernel look up table local first. `blocking` is the rule that applies instead, if there is one.
fn remedy(family: Family, blocking: Option<&PolicyRule>, rules: &[&PolicyRule]) -> String {
    let is_general = |rule: &PolicyRule| rule.selector == RuleSelector::default();
    let is_main = |rule: &PolicyRule| is_general(rule) && rule.action == RuleAction::Lookup(MAIN_TABLE);
    let local = rules.iter().position(is_local);
    let before = rules.get(..local.unwrap_or(rules.len())).unwrap_or_default();
    // A new rule follows the others of its priority.
    let is_removed = |rule: &PolicyRule| {
        rule.priority == 0
            && (is_general(rule) || Some(rule) == blocking)
            && before.iter().any(|other| std::ptr::eq(*other, rule))
    };
    let mut steps = Vec::new();
    if before.iter().any(|rule| is_removed(rule) && is_main(rule))
        && !rules.iter().any(|rule| is_main(rule) && !is_removed(rule))
    {
        steps.push(format!("run `{}`", add_lookup(family, 32766, "main")));
    }
    steps.extend(before.iter().filter(|rule| is_removed(rule)).map(|rule| match delete_rule(rule) {
        // The message names only the rule that applies.
        Some(command) if Some(*rule) != blocking => {
            format!("remove the rule that now has priority 0 with `{command}`")
        }
        _ => remove_rule(rule),
    }));
    if local.is_none() || before.iter().any(|rule| !is_removed(rule)) {
        steps.push(format!("run `{}`", add_lookup(family, 0, "local")));
    }
    steps.join(", then ")
}

/// Returns the command that adds a policy rule for all packets.
fn add_lookup(family: Family, priority: u32, table: &str) -> ShellCommand {
    let priority = priority.to_string();
    let words = ["rule", "add", "priority", &priority, "lookup", table];
    ShellCommand::new(family.ip_words(words))
}

/// Reports an address without its route in table local, which the kernel adds with the address. Neighbor discovery of IPv6
/// works without it.
fn missing_route(
    model: &ForwardingModel<'_>,
    trace: &Trace<'_>,
    call: &Call,
    effect: &str,
) -> Option<Diagnostic> {
    let Call { address, .. } = call;
    let host = model.host();
    let has_local_routes = || host.local_routes().next().is_some();
    let owner = host.owner_of(*address).filter(|_| address.is_ipv4() && has_local_routes())?;
    if matches!(trace.stop, Some(Stop::Source)) {
        return None;
    }
    let instead = match (&trace.stop, trace.route) {
        (Some(stop), _) => format!(": {}", stop_text(stop)),
        (None, Some(route)) => format!(", and packets to it follow `{route}`"),
        (None, None) => String::new(),
    };
    Some(finding(
        Rule::OwnAddressUnreachable,
        format!("table local has no route for {address}, an address of {}{instead}, {effect}", owner.device),
        format!("run `{}`", add_local_route(*address, &owner.device)),
    ))
}
