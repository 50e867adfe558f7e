//! Firewall rules, and their conditions that hostgw cannot decide, as text.

use super::finding;
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{AddressChange, Spot},
    state::{PacketPart, RuleVerdict, TableFamily, Term},
    text::list,
};

/// What to do about a rule whose conditions hostgw cannot decide.
pub(super) const TRY: &str = "try a connection between two pods on different nodes, or run `hostgw rehearse`";

/// Returns the packet property that makes the rule apply to only some packets, in backticks.
pub(super) fn partial_property(spot: &Spot<'_>) -> Option<String> {
    let terms = &spot.rule?.terms;
    let named = terms.iter().find_map(|term| match term {
        Term::Varies(name) | Term::Load { part: PacketPart::Varies(name), .. } => Some(name.to_string()),
        _ => None,
    });
    let in_header = |offset: usize| match (spot.chain.family, offset) {
        (TableFamily::Ip6, 4) | (TableFamily::Ip | TableFamily::Inet, 2) => Some("length"),
        (TableFamily::Ip6, 7) => Some("hl"),
        (TableFamily::Ip | TableFamily::Inet, 8) => Some("ttl"),
        (TableFamily::Ip | TableFamily::Inet, 4) => Some("id"),
        (TableFamily::Ip | TableFamily::Inet, 10) => Some("checksum"),
        _ => None,
    };
    let part = || {
        terms.iter().find_map(|term| match term {
            Term::Load { part: PacketPart::Header { offset, .. }, .. } => in_header(*offset),
            Term::Load { part: PacketPart::ConnectionStatus, .. } => Some("ct status"),
            Term::Load { part: PacketPart::Transport { offset: 4.., .. }, .. } => Some("transport header"),
            _ => None,
        })
    };
    named.or_else(|| part().map(str::to_owned)).map(|name| format!("`{name}`"))
}

/// Returns `true` if a rule changes source addresses only of packets whose addresses are in an ipset, or not in one. CNI
/// plugins add such rules for packets to the outside; [`super::notes`] mentions them.
pub(super) fn is_for_ipset(change: &AddressChange<'_>) -> bool {
    let rule = change.depends_on.and_then(|condition| condition.rule);
    rule.is_some_and(|rule| {
        rule.depends_on_ipset()
            && !rule
                .terms
                .iter()
                .any(|term| matches!(term, Term::Verdict(RuleVerdict::Return | RuleVerdict::Accept)))
    })
}

/// Reports a rule that may change packets, depending on a condition.
pub(super) fn undecided(spot: &Spot<'_>, spot_text: &str, effect: &str, condition: &Spot<'_>) -> Diagnostic {
    let property = [condition, spot].into_iter().find_map(partial_property);
    let why = match property.filter(|_| !has_undecoded(condition)) {
        Some(property) => format!(", depending on {property}"),
        None => format!(": hostgw cannot tell, because it cannot decode {}", undecoded(condition)),
    };
    finding(Rule::ForwardUnclear, format!("{spot_text} may {effect}{why}"), TRY)
}

/// Returns the words of `nft` for what hostgw cannot decode in a rule.
fn undecoded_names(spot: &Spot<'_>) -> Vec<String> {
    let terms = spot.rule.iter().flat_map(|rule| &rule.terms);
    let names = terms.filter_map(|term| match term {
        Term::Condition(name) | Term::Effect(name) => Some(name.to_string()),
        Term::Mark { .. } | Term::Load { part: PacketPart::Mark, .. } => Some("mark".to_owned()),
        Term::Load { part: PacketPart::ConnectionMark, .. } => Some("ct mark".to_owned()),
        Term::Load { part: PacketPart::Other(name), .. } => Some(name.to_string()),
        _ => None,
    });
    names.collect()
}

/// Returns `true` if the rule has a condition that cannot be decoded. A mark is one only if nothing else is.
fn has_undecoded(spot: &Spot<'_>) -> bool {
    undecoded_names(spot).iter().any(|name| !name.ends_with("mark"))
}

/// Returns what hostgw cannot decode in a rule.
pub(super) fn undecoded(spot: &Spot<'_>) -> String {
    let mut names = undecoded_names(spot);
    names.dedup();
    if names.is_empty() { "its conditions".to_owned() } else { format!("`{}`", list(&names, 3)) }
}

/// Names a rule or a policy.
pub(super) fn spot_text(spot: &Spot<'_>) -> String {
    let chain =
        format!("chain `{}` in table `{} {}`", spot.chain.name, spot.chain.family.name(), spot.chain.table);
    match spot.rule {
        None => format!("the policy of {chain}"),
        Some(rule) => {
            let comment =
                rule.comment.as_ref().map_or_else(String::new, |comment| format!(" (\"{comment}\")"));
            format!("the rule with handle {}{comment} in {chain}", rule.handle)
        }
    }
}
