//! Programs and filters that see the packets of pods beside the firewall.

use super::{Patient, carriers, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::Paths,
    state::{PacketProgram, PacketProgramKind},
    text::{ShellCommand, Untrusted, list},
};

/// Those that see the packets of pods.
fn relevant<'a>(patient: &Patient<'a>, paths: &Paths<'_>) -> Vec<&'a PacketProgram> {
    let carriers = carriers(patient, paths);
    let sees = |device: &Untrusted| carriers.iter().any(|link| link.name == *device);
    let programs = patient.observed.host.programs.iter();
    programs.filter(|program| program.device.as_ref().is_none_or(sees)).collect()
}

pub(super) fn examine(patient: &Patient<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
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
                format!("a {program} loses or delays packets of pods"),
                format!("look at it with `{}`, and remove it after a test", show(&["qdisc"])),
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
    relevant(patient, paths).into_iter().filter_map(diagnostic).collect()
}

/// What many healthy nodes have.
pub(super) fn notes(patient: &Patient<'_>, paths: &Paths<'_>) -> Vec<String> {
    let is_usual = |program: &&&PacketProgram| {
        !matches!(program.kind, PacketProgramKind::Netem | PacketProgramKind::TcFilter)
    };
    let relevant = relevant(patient, paths);
    let programs: Vec<String> = relevant.iter().filter(is_usual).map(ToString::to_string).collect();
    let unseen = (!programs.is_empty())
        .then(|| format!("hostgw does not know what these do with packets of pods: {}", list(&programs, 6)));
    let unknown = patient.observed.host.firewall.iter().flat_map(|firewall| &firewall.legacy_unknown);
    let unknown: Vec<&Untrusted> = unknown.collect();
    let unlisted = (!unknown.is_empty()).then(|| {
        format!(
            "hostgw may not list the tables of {}: if there are any, it does not know what they do with packets of pods",
            list(&unknown, 2)
        )
    });
    unseen.into_iter().chain(unlisted).collect()
}
