//! Programs and filters that see pod packets besides the firewall.

use super::{Effect, Examination, TrafficEffects, carriers, finding, outer_carriers};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::Paths,
    state::{FirewallRule, Link, PacketProgram, PacketProgramKind, RuleVerdict, Term},
    text::{ShellCommand, Untrusted, list},
};

/// Returns the programs and filters that see packets between pods, and those that only see packets to the outside.
fn relevant<'a>(examination: &Examination<'a>, paths: &Paths<'_>) -> [Vec<&'a PacketProgram>; 2] {
    let programs = &examination.observed.host.programs;
    let on = |links: Vec<&Link>| -> Vec<&'a PacketProgram> {
        let is_on = |device: &Untrusted| links.iter().any(|link| link.name == *device);
        programs.iter().filter(|program| program.device.as_ref().is_some_and(is_on)).collect()
    };
    let inner = on(carriers(examination, paths)).into_iter();
    let everywhere = programs.iter().filter(|program| program.device.is_none());
    [inner.chain(everywhere).collect(), on(outer_carriers(examination, paths))]
}

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let diagnostic = |program: &PacketProgram| {
        let device = program.device.as_ref()?;
        let show = |words: &[&str]| {
            let place = ["show", "dev", device.as_raw()];
            let (what, hook) = words.split_at(1);
            ShellCommand::new(
                ["tc"].into_iter().chain(what.iter().copied()).chain(place).chain(hook.iter().copied()),
            )
        };
        Some(match program.kind {
            PacketProgramKind::Netem => finding(
                Rule::PartlyBlocked,
                format!("a {program} drops or delays pod packets"),
                format!(
                    "list it with `{}`; if it is left over from a test, remove it with `{}`",
                    show(&["qdisc"]),
                    ShellCommand::new(["tc", "qdisc", "del", "dev", device.as_raw(), "root"])
                ),
            ),
            PacketProgramKind::TcFilter => finding(
                Rule::FirewallBelowIp,
                format!("a {program} can drop packets, and hostgw does not examine it"),
                format!(
                    "check that it passes pod traffic: `{}`, `{}`",
                    show(&["filter", "ingress"]),
                    show(&["filter", "egress"])
                ),
            ),
            _ => return None,
        })
    };
    let [inner, outer] = relevant(examination, paths);
    let mut findings: Vec<Diagnostic> = inner.into_iter().filter_map(diagnostic).collect();
    if !findings.is_empty() {
        effects.on_everything(Effect::Unclear);
    }
    findings.extend(outer.into_iter().filter_map(diagnostic));
    findings
}

/// Returns notes about programs that many healthy nodes have, and about tables that could not be listed.
pub(super) fn notes(examination: &Examination<'_>, paths: &Paths<'_>) -> Vec<String> {
    let is_usual = |program: &&&PacketProgram| {
        !matches!(program.kind, PacketProgramKind::Netem | PacketProgramKind::TcFilter)
    };
    let relevant = relevant(examination, paths).concat();
    let programs: Vec<String> = relevant.iter().filter(is_usual).map(ToString::to_string).collect();
    let unseen = (!programs.is_empty())
        .then(|| format!("not examined: {} (they can drop or divert pod traffic)", list(&programs, 6)));
    let unknown = examination.observed.host.firewall.iter().flat_map(|firewall| &firewall.legacy_unknown);
    let unknown: Vec<&Untrusted> = unknown.collect();
    let unlisted = (!unknown.is_empty())
        .then(|| format!("not examined: {} (listing their tables requires root)", list(&unknown, 2)));
    let rules = examination.observed.host.firewall.iter().flat_map(|firewall| &firewall.chains);
    let depends = |rule: &FirewallRule| {
        let masquerades = Term::Verdict(RuleVerdict::Masquerade);
        rule.depends_on_ipset() && rule.terms.contains(&masquerades)
    };
    let ipsets = rules.flat_map(|chain| &chain.rules).any(depends).then(|| {
        "not examined: masquerade rules that depend on an ipset (hostgw cannot read ipsets)".to_owned()
    });
    unseen.into_iter().chain(unlisted).chain(ipsets).collect()
}
