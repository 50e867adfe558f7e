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
    let family = spot.chain.family;
    let named = terms.iter().find_map(|term| match term {
        Term::Varies(name) | Term::Load { part: PacketPart::Varies(name), .. } => Some(name.to_string()),
        _ => None,
    });
    let differs = |part: &PacketPart| match part {
        PacketPart::Header { offset, .. } => match family {
            TableFamily::Ip6 => matches!(offset, 4 | 7),
            TableFamily::Ip | TableFamily::Inet => matches!(offset, 2 | 4 | 8 | 10),
        },
        PacketPart::Transport { offset, .. } => *offset >= 4,
        PacketPart::ConnectionStatus => true,
        _ => false,
    };
    let part = || {
        terms.iter().find_map(|term| match term {
            Term::Load { part, .. } if differs(part) => Some(part.name(family)),
            _ => None,
        })
    };
    named.or_else(part).map(|name| format!("`{name}`"))
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

/// What hostgw cannot decide in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Undecided {
    /// A mark, which other rules may set.
    Mark(String),
    /// An expression that cannot be decoded.
    Expression(String),
}

impl Undecided {
    fn name(&self) -> &str {
        match self {
            Self::Mark(name) | Self::Expression(name) => name,
        }
    }

    /// What hostgw cannot decide in the rule of a spot.
    fn all(spot: &Spot<'_>) -> Vec<Self> {
        let family = spot.chain.family;
        let terms = spot.rule.iter().flat_map(|rule| &rule.terms);
        let found = terms.filter_map(|term| match term {
            Term::Condition(name) | Term::Effect(name) => Some(Self::Expression(name.to_string())),
            Term::Mark { .. } => Some(Self::Mark(PacketPart::Mark.name(family))),
            Term::Load { part: part @ (PacketPart::Mark | PacketPart::ConnectionMark), .. } => {
                Some(Self::Mark(part.name(family)))
            }
            Term::Load { part: PacketPart::Other(name), .. } => Some(Self::Expression(name.to_string())),
            _ => None,
        });
        found.collect()
    }
}

/// Returns `true` if the rule has a condition that cannot be decoded. A mark is one only if nothing else is.
fn has_undecoded(spot: &Spot<'_>) -> bool {
    Undecided::all(spot).iter().any(|it| matches!(it, Undecided::Expression(_)))
}

/// Returns what hostgw cannot decode in a rule.
pub(super) fn undecoded(spot: &Spot<'_>) -> String {
    let all = Undecided::all(spot);
    let mut names: Vec<&str> = all.iter().map(Undecided::name).collect();
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
