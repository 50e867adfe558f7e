//! `hostgw rehearse`

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    arguments::RehearseOptions,
    configuration::load,
    environment,
    output::Output,
    plan::warn_of_open,
    signals,
    simulate::{
        Scratch, assumptions, described, interrupted, keep, mark, raise_file_limit, random_seed, reasons,
    },
};
use crate::{
    error::Kind,
    kernel::{CopyTotals, Omission},
    model::{Family, SysctlKey},
    plan::{ForeignPolicy, Totals},
    reconcile::{Apply, Operation, Session, look_when_idle},
    render::{FindingEntry, Palette, finding_text},
    simulate::{
        Assumption, ConnectionKind, Guarantee, Rehearsal, RehearsalOptions, RehearsedConnection, sample,
    },
    text::{self, Untrusted, count, printable},
};

/// The limits of a rehearsal, as printed below the result.
const NOT_TESTED: &str = "· not tested: protocols other than TCP and UDP, and ports below 49152";

/// The default number of other nodes.
const DEFAULT_SAMPLE: u32 = 10;
/// The largest number of connections that are listed without `--full`.
const MAX_LISTED: usize = 16;
/// The number of names to list for connections with the same result.
const MAX_NAMES: usize = 4;
/// How long to wait for another command, as `apply` does by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of `hostgw rehearse --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw rehearse")]
pub(super) struct RehearsalJson<'a> {
    /// The version of this format.
    format: u32,
    /// The configuration, as named on the command line.
    file: &'a Untrusted,
    /// The node.
    node: &'a Untrusted,
    /// The other nodes that were simulated.
    others: Vec<&'a Untrusted>,
    /// The number of other nodes in the configuration.
    other_nodes_in_configuration: usize,
    /// The seed that selects the same nodes again.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// The number of copied objects of each kind.
    copied: CopyTotals,
    /// The objects that the copy lacks, or has in another form.
    omissions: &'a [Omission],
    /// The totals of the plan; absent if it could not be applied in the copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<Totals>,
    /// Why the plan could not be applied in the copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_error: Option<&'a Untrusted>,
    /// What the simulated machines have although hostgw does not set it up, because the configuration relies on it.
    assumptions: Vec<Assumption>,
    /// The connections of the node, before and after the plan.
    connections: &'a [RehearsedConnection],
    /// The pod paths that will not work, as far as rules, routes and sysctls decide.
    findings: Vec<FindingEntry>,
    /// The sysctls of the configuration that cannot be set in a network namespace. They were skipped.
    skipped_sysctls: &'a [SysctlKey],
    /// The families whose connections to the outside were not tested.
    outside_untested: Vec<Family>,
    /// Whether a rollback restores the copy; absent if there was nothing to roll back.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<&'a Guarantee>,
    /// Whether the plan was applied, every connection works, and the rollback restored the copy.
    passed: bool,
    /// Whether the copy has everything that can drop or divert packets on the node.
    complete: bool,
}

/// The other nodes to simulate, and the seed if some were left out.
struct OtherNodes {
    indexes: Vec<usize>,
    of: usize,
    seed: Option<u64>,
}

/// Applies the plan on a copy of this node, and tests its connections.
pub(super) fn run(options: &RehearseOptions, output: &Output) -> VerbResult {
    let policy = if options.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let node = environment::node(options.target.node.as_deref());
    let session = Session::live(load(options.target.file.as_deref())?, node.as_deref(), policy)?;
    let guard = |_: &Session| Ok(());
    let mut apply = Apply::new(session, options.allow_removals, &guard)?;
    let dir = apply.dir().clone();
    look_when_idle(&dir, TIMEOUT, || apply.look())?;
    warn_of_open(&dir, output);
    // A plan that `apply` refuses is refused here, too, with the same exit code.
    apply.check()?;
    let session = apply.session;
    let (file, name) = (session.loaded.document.name().clone(), session.node_name().clone());
    let others = choose(&session, options);
    raise_file_limit();
    let interrupt = signals::interrupt()?;
    let keep_going = || if interrupt.is_raised() { Err(interrupted()) } else { Ok(()) };
    let scratch = Scratch::new()?;
    let rehearsal_options = RehearsalOptions {
        others: others.indexes.clone(),
        allowed_removals: options.allow_removals,
        keep: options.keep,
    };
    let rehearsal = Rehearsal::run(session, &rehearsal_options, &scratch.path, &keep_going)?;
    if options.json {
        output.json(&RehearsalJson {
            format: 1,
            file: &file,
            node: &name,
            others: rehearsal.others().collect(),
            other_nodes_in_configuration: others.of,
            seed: others.seed,
            copied: rehearsal.copied,
            omissions: &rehearsal.omissions,
            totals: rehearsal.applied.as_ref().ok().copied(),
            apply_error: rehearsal.applied.as_ref().err().map(|error| &error.message),
            assumptions: rehearsal.assumptions(),
            connections: &rehearsal.connections,
            findings: rehearsal.faults().map(|fault| FindingEntry::new(fault, None)).collect(),
            skipped_sysctls: rehearsal.unsupported_sysctls(),
            outside_untested: rehearsal.untested_outside().into_iter().map(|(family, _)| family).collect(),
            rollback: rehearsal.rollback.as_ref(),
            passed: rehearsal.passed(),
            complete: rehearsal.decisive_omissions().next().is_none(),
        })?;
    } else {
        output.result(&text(&rehearsal, &name, &others, options.full, &output.palette))?;
    }
    if options.keep {
        keep(rehearsal.namespaces(), &scratch.path, output, || interrupt.is_raised());
    }
    if rehearsal.passed() { Ok(0) } else { Err(VerbFailure::AlreadyReported(Kind::Unexpected)) }
}

/// Selects the other nodes to simulate: first those that the plan cannot connect, then a sample.
fn choose(session: &Session, options: &RehearseOptions) -> OtherNodes {
    let (nodes, own) = (&session.loaded.cluster.nodes, session.index);
    let of = nodes.len().saturating_sub(1);
    let size = usize::try_from(options.sample.unwrap_or(DEFAULT_SAMPLE)).unwrap_or(usize::MAX);
    if size >= of {
        return OtherNodes {
            indexes: (0..nodes.len()).filter(|index| *index != own).collect(),
            of,
            seed: None,
        };
    }
    let seed = options.seed.unwrap_or_else(random_seed);
    let mut chosen = BTreeSet::new();
    let faults = session.path_faults();
    let faulty = faults.iter().filter_map(|fault| fault.nodes.keys().next());
    let faulty = faulty.filter_map(|name| session.loaded.cluster.node(name.as_raw())).map(|(index, _)| index);
    for index in faulty.chain(sample(&session.loaded.cluster, size + 1, seed)) {
        if index != own && chosen.len() < size {
            chosen.insert(index);
        }
    }
    OtherNodes { indexes: chosen.into_iter().collect(), of, seed: Some(seed) }
}

fn text(
    rehearsal: &Rehearsal,
    name: &Untrusted,
    others: &OtherNodes,
    is_full: bool,
    palette: &Palette,
) -> String {
    let mut text = String::new();
    let played = match others.seed {
        Some(seed) => {
            format!("{} of {} other nodes, drawn with --seed {seed}", others.indexes.len(), others.of)
        }
        None => count(others.of, "other node"),
    };
    let _ = writeln!(text, "{}: node {name} with {played}\n", palette.head.apply_to("Rehearsed"));
    let _ = writeln!(text, "{}\n  {}", palette.head.apply_to("Copied"), copied(rehearsal.copied));
    for Omission { object, reason, .. } in &rehearsal.omissions {
        let _ = writeln!(text, "  · {object}: {reason}");
    }
    match &rehearsal.applied {
        Ok(Totals { add, update, remove, .. }) => {
            let head = palette.head.apply_to("Applied in the copy");
            let _ = writeln!(text, "\n{head}\n  {add} added, {update} updated, {remove} removed\n");
        }
        Err(error) => {
            let head = palette.conflict.apply_to("Cannot be applied");
            let _ = writeln!(text, "\n{head}\n  {}\n", printable(&error.to_string()).replace('\n', "\n  "));
        }
    }
    connections(&mut text, rehearsal, name, is_full, palette);
    failures(&mut text, rehearsal, palette);
    notes(&mut text, rehearsal, palette);
    conclusion(&mut text, rehearsal, palette);
    text
}

fn copied(totals: CopyTotals) -> String {
    let tables = match totals.nft_tables {
        0 => "no nftables tables".to_owned(),
        tables => format!("{} with {}", count(tables, "nftables table"), count(totals.nft_rules, "rule")),
    };
    let mut parts = vec![
        count(totals.interfaces, "interface"),
        format!("{} address{}", totals.addresses, if totals.addresses == 1 { "" } else { "es" }),
        count(totals.policy_rules, "policy rule"),
        count(totals.routes, "route"),
        tables,
    ];
    if totals.legacy_tables > 0 {
        parts.push(count(totals.legacy_tables, "iptables-legacy table"));
    }
    parts.join(", ")
}

/// Renders the connections, each with a mark for before and one for after the plan.
fn connections(text: &mut String, rehearsal: &Rehearsal, name: &Untrusted, is_full: bool, palette: &Palette) {
    for family in Family::ALL {
        let of_family: Vec<&RehearsedConnection> =
            rehearsal.connections.iter().filter(|connection| connection.family == family).collect();
        if of_family.is_empty() {
            continue;
        }
        let head = match rehearsal.applied {
            Ok(_) => format!("{family}: before and after the plan"),
            Err(_) => format!("{family}: before the plan"),
        };
        let _ = writeln!(text, "{}", palette.head.apply_to(head));
        if is_full || of_family.len() <= MAX_LISTED {
            for connection in of_family {
                let _ = writeln!(text, "  {}  {}", marks(connection, palette), printable(&pair(connection)));
            }
        } else {
            summarize(text, &of_family, name, palette);
        }
        text.push('\n');
    }
}

/// Renders connections of the same kind and direction with the same result as one line.
fn summarize(text: &mut String, connections: &[&RehearsedConnection], name: &Untrusted, palette: &Palette) {
    let key = |it: &RehearsedConnection| {
        let is_own = it.from == *name && it.to.as_ref().is_none_or(|to| to == name);
        (it.kind, it.from == *name, is_own, it.worked_before, it.works)
    };
    let mut groups: Vec<Vec<&RehearsedConnection>> = Vec::new();
    for connection in connections {
        let is_alike = |group: &&mut Vec<&RehearsedConnection>| {
            group.first().is_some_and(|first| key(first) == key(connection))
        };
        match groups.iter_mut().find(is_alike) {
            Some(group) => group.push(connection),
            None => groups.push(vec![connection]),
        }
    }
    for group in groups {
        let Some(first) = group.first() else { continue };
        let marks = marks(first, palette);
        let line = match group.len() {
            1 => pair(first),
            _ => plural(&group, first, name),
        };
        let _ = writeln!(text, "  {marks}  {}", printable(&line));
    }
}

/// Describes several connections of one kind from this node, or to it.
fn plural(group: &[&RehearsedConnection], first: &RehearsedConnection, name: &Untrusted) -> String {
    let is_out = first.from == *name;
    let others = group.iter().filter_map(|it| if is_out { it.to.as_ref() } else { Some(&it.from) });
    let others = text::list(&others.collect::<Vec<_>>(), MAX_NAMES);
    match (first.kind, is_out) {
        (ConnectionKind::NodeToPod, true) => format!("node {name} -> pods of {others}"),
        (ConnectionKind::NodeToPod, false) => format!("nodes {others} -> pod of {name}"),
        (_, true) => format!("pod of {name} -> pods of {others}"),
        (_, false) => format!("pods of {others} -> pod of {name}"),
    }
}

fn marks(connection: &RehearsedConnection, palette: &Palette) -> String {
    let before = mark(connection.worked_before, palette);
    connection.works.map_or_else(|| before.clone(), |works| format!("{before}{}", mark(works, palette)))
}

fn pair(connection: &RehearsedConnection) -> String {
    described(connection.kind, &connection.from, connection.to.as_ref())
}

/// Renders the reason of each failure, and each reason only once.
fn failures(text: &mut String, rehearsal: &Rehearsal, palette: &Palette) {
    let failures = rehearsal.connections.iter();
    let failures = failures.filter_map(|it| Some((it.reason.as_ref()?.as_raw(), pair(it))));
    reasons(text, failures, palette);
}

fn notes(text: &mut String, rehearsal: &Rehearsal, palette: &Palette) {
    for fault in rehearsal.faults() {
        text.push_str(&finding_text(&FindingEntry::new(fault, None), palette));
    }
    assumptions(text, &rehearsal.assumptions());
    for key in rehearsal.unsupported_sysctls() {
        let _ = writeln!(
            text,
            "· {key} was skipped: it does not exist or is not writable in a network namespace"
        );
    }
    for (family, why) in rehearsal.untested_outside() {
        let _ = writeln!(text, "· {family} connections to the outside were not tested: {why}");
    }
    let _ = writeln!(text, "{}", palette.dim.apply_to(NOT_TESTED));
    if let Some(Guarantee { guarantee, held, violations }) = &rehearsal.rollback {
        let _ = writeln!(text, "{} {guarantee}", mark(*held, palette));
        for line in violations {
            let _ = writeln!(text, "    {line}");
        }
    }
}

fn conclusion(text: &mut String, rehearsal: &Rehearsal, palette: &Palette) {
    let number = |works: &dyn Fn(&RehearsedConnection) -> bool| {
        rehearsal.connections.iter().filter(|connection| works(connection)).count()
    };
    let before = number(&|connection| connection.worked_before);
    let total = count(rehearsal.connections.len(), "connection");
    let line = match rehearsal.applied {
        Ok(_) => {
            let after = number(&|connection| connection.works == Some(true));
            format!("{after} of {total} work after the plan (before: {before}). This node is unchanged.")
        }
        Err(_) => format!("{before} of {total} work now. This node is unchanged."),
    };
    let line = match rehearsal.omissions.len() {
        0 => line,
        number => format!("{line} The copy differs from it in {}: see Copied.", count(number, "way")),
    };
    let decisive: Vec<&Untrusted> = rehearsal.decisive_omissions().collect();
    let style = match (rehearsal.passed(), decisive.is_empty()) {
        (true, true) => &palette.add,
        (true, false) => &palette.change,
        (false, _) => &palette.conflict,
    };
    if !decisive.is_empty() {
        let head = palette.change.apply_to("warning:");
        let _ = writeln!(
            text,
            "{head} this node can drop or divert packets that the copy does not, because the copy lacks {}",
            printable(&text::list(&decisive, MAX_NAMES))
        );
    }
    let _ = writeln!(text, "{}", style.apply_to(line));
}
