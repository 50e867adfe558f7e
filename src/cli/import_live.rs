//! `hostgw import --live`

use std::{fs::File, io::Read, path::Path, process::Command, time::Duration};

use super::{
    VerbFailure, VerbResult,
    arguments::{ImportArguments, OwnPodCidr},
    cannot_write,
    import::{ImportJson, failed},
    output::Output,
    program::{Limits, Printed, collect},
    write,
};
use crate::{
    config::Format,
    diagnose::{Diagnostic, Rule},
    error::{Error, Kind},
    import::{IptablesDump, LeftoverKind, LiveImport, LiveOptions, LiveSources, import_live},
    kernel::{self, LiveNode},
    model::Family,
    progress::Task,
    reconcile::{readable, state_dir},
    state::{self, Firewall},
    text::{self, OsError, count, list},
};

/// Where flannel writes its networks.
const FLANNEL: &str = "/run/flannel/subnet.env";

/// A node with a service mesh, or with thousands of services, has tens of thousands of rules.
const RULES: Limits = Limits { time: Some(Duration::from_secs(60)), bytes: 256 << 20 };

/// Prints a configuration that describes this node.
pub(super) fn run(options: &ImportArguments, output: &Output) -> VerbResult {
    let live = live_options(options)?;
    let task = Task::begin("importing this node");
    let observed = LiveNode.everything()?;
    let firewall = observed.host.firewall.as_ref();
    let iptables = firewall.map(dumps).transpose()?.unwrap_or_default();
    let hostname = kernel::hostname();
    let flannel = flannel();
    let mut unknown = Vec::new();
    let saved = readable(state_dir()?.saved(), &mut unknown)?.unwrap_or_default();
    let written = saved.0.into_iter().filter(|(_, saved)| saved.written).map(|(key, _)| key).collect();
    let sources = LiveSources {
        hostname: hostname.as_deref(),
        state: &observed.state,
        host: &observed.host,
        iptables: &iptables,
        flannel: flannel.as_deref(),
        written: &written,
    };
    let imported = import_live(&sources, &live).map_err(|errors| failed(output, "this node", errors))?;
    drop(task);
    if let Some(script) = &options.cleanup {
        let written = write::write(script, imported.script.as_bytes());
        written.map_err(|error| cannot_write(script, &OsError(&error)))?;
    }
    report(options, &imported, output)?;
    unknown.extend(observed.state.nat_unknowns().cloned());
    let what = match firewall {
        Some(_) if unknown.is_empty() => return Ok(0),
        Some(_) => "the configuration",
        None => "the list of what is left over",
    };
    output.incomplete(what, state::remedy_for(&unknown));
    Err(VerbFailure::AlreadyReported(Kind::Incomplete))
}

fn live_options(options: &ImportArguments) -> Result<LiveOptions, Error> {
    let cidrs: Vec<_> = options
        .pod_cidrs
        .iter()
        .filter_map(|cidr| match cidr {
            OwnPodCidr::Cidr(cidr) => Some(*cidr),
            OwnPodCidr::None => None,
        })
        .collect();
    if cidrs.len() != options.pod_cidrs.len() && options.pod_cidrs.len() > 1 {
        return Err(Error::new(Kind::Usage, "--pod-cidr none cannot be combined with other pod CIDRs"));
    }
    Ok(LiveOptions {
        format: if options.toml { Format::Toml } else { Format::Yaml },
        cluster_prefixes: options.cluster_prefixes.clone(),
        egress_interface: options.egress_interface.clone(),
        pod_cidrs: (!options.pod_cidrs.is_empty()).then_some(cidrs),
        node_name: options.node_name.clone(),
        cleanup: options.cleanup.as_deref().map(|script| text::path(script).to_string()),
    })
}

/// Prints the configuration, and what is left over.
fn report(options: &ImportArguments, imported: &LiveImport, output: &Output) -> Result<(), VerbFailure> {
    let mut findings = imported.findings.clone();
    findings.extend(left_over(imported, options.cleanup.as_deref()));
    if options.json {
        output.json(&ImportJson::live(imported, &findings))?;
        return Ok(());
    }
    output.verbatim(&imported.text)?;
    findings.iter().for_each(|finding| output.diagnostic(finding));
    if options.cleanup.is_none() {
        imported.leftovers.iter().for_each(|step| output.say_verbatim(&format!("    {}", step.command)));
    }
    Ok(())
}

/// Warns of what is left over.
fn left_over(imported: &LiveImport, script: Option<&Path>) -> Option<Diagnostic> {
    let number = |kind| imported.leftovers.iter().filter(|step| step.kind == kind).count();
    let kinds = [
        (number(LeftoverKind::Rule), "firewall rule"),
        // Each chain is emptied first, and removed later.
        (number(LeftoverKind::Chain) / 2, "chain"),
        (number(LeftoverKind::Set), "set"),
        (number(LeftoverKind::Table), "nftables table"),
        (number(LeftoverKind::PolicyRule), "policy rule"),
        (number(LeftoverKind::Route), "route"),
    ];
    let counts: Vec<String> = kinds
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number, noun))
        .collect();
    if counts.is_empty() {
        return None;
    }
    let undecided = imported.leftovers.iter().filter(|step| step.command.is_manual()).count();
    let need = match undecided {
        0 => String::new(),
        1 => "; 1 command needs your decision".to_owned(),
        some => format!("; {some} commands need your decision"),
    };
    let message = format!("hostgw does not adopt {}{need}", list(&counts, usize::MAX));
    let remedy = match script {
        Some(script) => {
            format!("after `hostgw apply --adopt`, read the first lines of {0}, and run `sh {0}`", text::path(script))
        }
        None => "after `hostgw apply --adopt`, stop the program that created them, and run these commands; --cleanup writes them to a \
             script"
            .to_owned(),
    };
    Some(Diagnostic::new(Rule::LeftOver, message).with_remedy(remedy))
}

/// What flannel wrote, if it runs on this node.
fn flannel() -> Option<String> {
    const MOST: u64 = 64 << 10;
    let mut text = String::new();
    File::open(FLANNEL).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The rules of iptables, in all its tables that have any.
fn dumps(firewall: &Firewall) -> Result<Vec<IptablesDump>, Error> {
    const TABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];
    let mut dumps = Vec::new();
    for family in Family::ALL {
        let name = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let is_of_iptables = |chain: &state::FirewallChain| {
            chain.family.name() == family.nft() && TABLES.contains(&chain.table.as_raw())
        };
        if firewall.chains.iter().any(is_of_iptables) {
            dumps.extend(dump(family, name, false)?);
        }
        if !firewall.legacy.is_empty() {
            dumps.extend(dump(family, name, true)?);
        }
    }
    Ok(dumps)
}

/// The rules that one variant of iptables knows. `None` if it is not installed, and its rules are not known by their names.
fn dump(family: Family, name: &str, is_legacy: bool) -> Result<Option<IptablesDump>, Error> {
    let variant = if is_legacy { "legacy" } else { "nft" };
    // The plain name is the variant that the administrator uses.
    for program in [name.to_owned(), format!("{name}-{variant}")] {
        if self::is_legacy(&program)? != Some(is_legacy) {
            continue;
        }
        if let Some(text) = saved(&program)? {
            return Ok(Some(IptablesDump { program, is_legacy, family, text }));
        }
    }
    Ok(None)
}

/// Whether a program is the legacy variant of iptables. `None` if there is no such program.
fn is_legacy(program: &str) -> Result<Option<bool>, Error> {
    // Not all versions of `iptables-save` print the variant. The versions before 1.8 have only the legacy one, and do not print it.
    let printed = run_program(program, &["--version"])?;
    Ok(printed.map(|it| !String::from_utf8_lossy(&it.stdout).contains("(nf_tables)")))
}

/// The output of `PROGRAM-save`. `None` if there is no such program.
fn saved(program: &str) -> Result<Option<String>, Error> {
    let save = format!("{program}-save");
    let Some(printed) = run_program(&save, &[])? else { return Ok(None) };
    if printed.status.success() {
        return Ok(Some(String::from_utf8_lossy(&printed.stdout).into_owned()));
    }
    let why = String::from_utf8_lossy(&printed.stderr);
    let why = why.lines().next().unwrap_or("it failed").to_owned();
    Err(Error::unexpected(format!("cannot read the rules of {program}: {save}: {why}")))
}

/// Runs a program to its end. `None` if there is no such program.
fn run_program(program: &str, arguments: &[&str]) -> Result<Option<Printed>, Error> {
    let mut command = Command::new(program);
    command.args(arguments);
    // The path of ordinary users lacks the folders of these programs.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    match collect(&mut command, RULES) {
        Ok(printed) => Ok(Some(printed)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::unexpected(format!("cannot run {program}: {}", OsError(&error)))),
    }
}
