//! `hostgw simulate`

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use console::measure_text_width;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult, arguments::SimulateOptions, configuration, output::Output, progress_line,
    signals,
};
use crate::{
    config::Loaded,
    error::{Error, Kind},
    kernel::{self, Namespace},
    model::{Cluster, Family, OperatingSystem, SysctlKey},
    plan::node_named,
    render::Palette,
    simulate::{
        Assumption, Connection, ConnectionKind, Guarantee, KeepGoing, NodeResult, Simulation, sample,
    },
    text::{self, OsError, Untrusted, count, list, padded, printable},
};

/// The default number of nodes: every pair of them is probed.
const DEFAULT_SAMPLE: u32 = 30;
/// The maximum number of nodes for which the matrix is printed.
const WIDEST_MATRIX: usize = 40;

/// The limits of a simulation, as printed below the result.
const NOT_SIMULATED: &str = "· not simulated: firewalls, routes and rules of other programs, and filters in the network between the nodes";

/// The result of `hostgw simulate --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw simulate")]
pub(super) struct SimulationJson<'a> {
    /// The version of this format.
    format: u32,
    /// The configuration, as named on the command line.
    file: &'a Untrusted,
    /// The simulated nodes.
    nodes: &'a [NodeResult],
    /// The number of nodes in the configuration.
    nodes_in_configuration: usize,
    /// The networks of the simulated nodes, by link. There is a router between links.
    #[schemars(with = "Vec<Vec<String>>")]
    networks: Vec<&'a [IpNet]>,
    /// The seed that selects the same sample again.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// What the simulated machines have although hostgw does not set it up, because the configuration relies on it.
    assumptions: Vec<Assumption>,
    /// The connections that were tried.
    connections: &'a [Connection],
    /// The sysctls that do not exist in a network namespace or cannot be written there. They were skipped.
    skipped_sysctls: &'a [SysctlKey],
    /// The families whose connections to the outside were not tested, because they are not masqueraded.
    outside_untested: Vec<Family>,
    /// The guarantees of hostgw, and whether they held.
    guarantees: &'a [Guarantee],
    /// Whether every connection works and every guarantee held.
    passed: bool,
}

/// The nodes to simulate, and how they were chosen.
struct Choice {
    indexes: Vec<usize>,
    seed: Option<u64>,
}

/// Builds the cluster in network namespaces, applies every plan, and tests the connections.
pub(super) fn run(options: &SimulateOptions, output: &Output) -> VerbResult {
    let loaded = configuration::load(options.file.as_deref())?;
    let choice = choose(&loaded.cluster, options)?;
    kernel::become_root_of_own_user_namespace().map_err(|error| forbidden(&error))?;
    progress_line::start(output.style_of_progress());
    raise_file_limit();
    let interrupt = signals::interrupt()?;
    let keep_going = || if interrupt.is_raised() { Err(interrupted()) } else { Ok(()) };
    let scratch = Scratch::new()?;
    let fulls_before = neighbor_table_fulls();
    let (simulation, connections, guarantees) = prove(options, &loaded, &choice, &scratch.path, &keep_going)?;
    let full = neighbor_table_fulls() > fulls_before;
    let show = || {
        let cluster = &loaded.cluster;
        output.result(&text(&simulation, &connections, &guarantees, cluster, &choice, full, &output.palette))
    };
    if options.keep {
        show()?;
        keep(simulation.namespaces(), &scratch.path, output, || interrupt.is_raised());
    } else if options.json {
        output.json(&SimulationJson {
            format: 1,
            file: loaded.document.name(),
            nodes: &simulation.nodes,
            nodes_in_configuration: loaded.cluster.nodes.len(),
            networks: simulation.networks().collect(),
            seed: choice.seed,
            assumptions: simulation.assumptions(),
            connections: &connections,
            skipped_sysctls: simulation.unsupported_sysctls(),
            outside_untested: simulation.untested_outside(),
            guarantees: &guarantees,
            passed: passed(&simulation, &connections, &guarantees),
        })?;
    } else {
        show()?;
    }
    if passed(&simulation, &connections, &guarantees) {
        Ok(0)
    } else {
        Err(VerbFailure::AlreadyReported(Kind::Unexpected))
    }
}

/// Returns how often the neighbor table, which all namespaces share, was full.
fn neighbor_table_fulls() -> u64 {
    let text = fs::read_to_string("/proc/net/stat/arp_cache").unwrap_or_default();
    let mut lines = text.lines();
    let heads = lines.next().unwrap_or_default();
    let Some(column) = heads.split_whitespace().position(|head| head == "table_fulls") else { return 0 };
    let values = lines.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok());
    values.sum()
}

/// Raises the limit of open files: every namespace and every socket needs a descriptor.
pub(super) fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If that fails, a smaller cluster still fits.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// Builds the cluster and probes it. Unless `--keep` is passed, also verifies the guarantees.
fn prove(
    options: &SimulateOptions,
    loaded: &Loaded,
    choice: &Choice,
    scratch: &Path,
    keep_going: &KeepGoing,
) -> Result<(Simulation, Vec<Connection>, Vec<Guarantee>), Error> {
    let simulation =
        Simulation::build(&loaded.cluster, &choice.indexes, &options.networks, scratch, keep_going)?;
    let connections = simulation.probe(keep_going)?;
    let guarantees = if options.keep { Vec::new() } else { simulation.guarantees(keep_going)? };
    Ok((simulation, connections, guarantees))
}

fn passed(simulation: &Simulation, connections: &[Connection], guarantees: &[Guarantee]) -> bool {
    let is_applied = simulation.nodes.iter().all(|node| node.refused.is_empty());
    is_applied
        && connections.iter().all(|connection| connection.works)
        && guarantees.iter().all(|guarantee| guarantee.held)
}

pub(super) fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted; everything was cleaned up")
}

fn forbidden(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::unexpected("this system does not let unprivileged users create network namespaces").with_hint(
                "run hostgw as root, or allow user namespaces: as root, run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu) or `sysctl -w \
                 kernel.unprivileged_userns_clone=1` (older Debian)",
            )
        }
        _ => kernel::cannot_create_namespace(error),
    }
}

fn choose(cluster: &Cluster, options: &SimulateOptions) -> Result<Choice, Error> {
    if !options.nodes.is_empty() {
        let mut indexes =
            options.nodes.iter().map(|name| node_named(cluster, name)).collect::<Result<Vec<_>, _>>()?;
        indexes.sort_unstable();
        indexes.dedup();
        return Ok(Choice { indexes, seed: None });
    }
    let size = usize::try_from(options.sample.unwrap_or(DEFAULT_SAMPLE)).unwrap_or(usize::MAX);
    if size >= cluster.nodes.len() {
        return Ok(Choice { indexes: (0..cluster.nodes.len()).collect(), seed: None });
    }
    let seed = options.seed.unwrap_or_else(random_seed);
    Ok(Choice { indexes: sample(cluster, size, seed), seed: Some(seed) })
}

/// A seed to draw a sample with.
pub(super) fn random_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
}

/// A directory for the journals of the nodes, which is removed with the simulation.
pub(super) struct Scratch {
    pub path: PathBuf,
    _lock: File,
}

impl Scratch {
    const PREFIX: &str = "hostgw-simulate-";
    const LOCK: &str = "lock";

    pub(super) fn new() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        Self::clean(&parent);
        // A process in another PID namespace can have the same ID, and share the directory.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let path = parent.join(format!("{}{}-{now:x}", Self::PREFIX, std::process::id()));
        let create = || -> io::Result<Self> {
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::create(path.join(Self::LOCK))?;
            lock.lock()?;
            Ok(Self { path: path.clone(), _lock: lock })
        };
        create().map_err(|error| {
            Error::unexpected(format!("cannot create {}: {}", text::path(&path), OsError(&error)))
        })
    }

    /// Removes what killed simulations of this user left behind. A running simulation holds its lock.
    fn clean(parent: &Path) {
        let own = rustix::process::getuid().as_raw();
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_scratch = entry.file_name().to_str().is_some_and(|name| name.starts_with(Self::PREFIX));
            let is_own = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
            let lock = || File::open(entry.path().join(Self::LOCK)).ok()?.try_lock().ok();
            if is_scratch && is_own && lock().is_some() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Prints how to enter each namespace, then waits for a signal.
pub(super) fn keep<'a>(
    namespaces: impl Iterator<Item = (String, &'a Namespace)>,
    scratch: &Path,
    output: &Output,
    is_over: impl Fn() -> bool,
) {
    let process = std::process::id();
    let user = if is_in_first_user_namespace() {
        String::new()
    } else {
        format!("--preserve-credentials --user=/proc/{process}/ns/user ")
    };
    output.say("The cluster keeps running until you press Ctrl-C. To enter a node from another shell:");
    for (name, namespace) in namespaces {
        let descriptor = namespace.descriptor();
        output.say_verbatim(&format!("  {name:<24} nsenter {user}--net=/proc/{process}/fd/{descriptor}"));
    }
    output.say("For hostgw to find the node's records there, set");
    output.say_verbatim(&format!("  HOSTGW_STATE_DIR={}", text::path(scratch)));
    while !is_over() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Returns `true` if this process is in the initial user namespace.
fn is_in_first_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn text(
    simulation: &Simulation,
    connections: &[Connection],
    guarantees: &[Guarantee],
    cluster: &Cluster,
    choice: &Choice,
    full: bool,
    palette: &Palette,
) -> String {
    let mut text = String::new();
    let built = simulation.nodes.len();
    let _ = match choice.seed {
        Some(seed) => writeln!(
            text,
            "{}: {built} of {} nodes, drawn with --seed {seed}\n",
            palette.head.apply_to("Simulated"),
            cluster.nodes.len()
        ),
        None => writeln!(text, "{}: {}\n", palette.head.apply_to("Simulated"), count(built, "node")),
    };
    applied(&mut text, &simulation.nodes, palette);
    networks(&mut text, simulation);
    let assumed = simulation.assumptions();
    assumptions(&mut text, &assumed);
    if !assumed.is_empty() {
        text.push('\n');
    }
    matrices(&mut text, simulation, connections, palette);
    failures(&mut text, connections, palette);
    if full && connections.iter().any(|connection| !connection.works) {
        let _ = writeln!(
            text,
            "· the machine's neighbor table overflowed, which loses packets: try again on an idle machine or with a smaller --sample"
        );
    }
    for key in simulation.unsupported_sysctls() {
        let _ = writeln!(
            text,
            "· {key} was skipped: it does not exist or is not writable in a network namespace"
        );
    }
    for family in simulation.untested_outside() {
        let _ = writeln!(text, "· {family} connections to the outside were not tested: masquerading is off");
    }
    for guarantee in guarantees {
        let mark = mark(guarantee.held, palette);
        let _ = writeln!(text, "{mark} {}", guarantee.guarantee);
        for violation in &guarantee.violations {
            let _ = writeln!(text, "    {}", violation);
        }
    }
    let _ = writeln!(text, "{}", palette.dim.apply_to(NOT_SIMULATED));
    let is_all = passed(simulation, connections, guarantees);
    conclusion(&mut text, connections, is_all, palette);
    text
}

/// Returns the width of the column of these names. A single very long name does not widen it.
fn column<'a>(names: impl Iterator<Item = &'a Untrusted>) -> usize {
    const WIDEST: usize = 64;
    names.map(|name| measure_text_width(&name.to_string()).min(WIDEST)).max().unwrap_or(0)
}

fn applied(text: &mut String, nodes: &[NodeResult], palette: &Palette) {
    let _ = writeln!(text, "{}", palette.head.apply_to("Applied"));
    let width = column(nodes.iter().map(|node| &node.name));
    for node in nodes {
        if let Some((why, details)) = node.refused.split_first() {
            let why = palette.conflict.apply_to(format!("refused: {}", printable(&why.to_string())));
            let _ = writeln!(text, "  {}  {why}", padded(&node.name.to_string(), width));
            for detail in details {
                let _ = writeln!(text, "  {}    {}", padded("", width), printable(&detail.to_string()));
            }
            continue;
        }
        let totals = node.totals;
        let played = match node.os {
            OperatingSystem::Linux => "",
            OperatingSystem::Windows => "  # Windows, simulated on Linux with the Windows pod gateway",
        };
        let _ = writeln!(
            text,
            "  {}  {} added, {} updated, {} removed{}",
            padded(&node.name.to_string(), width),
            totals.add,
            totals.update,
            totals.remove,
            palette.dim.apply_to(played)
        );
    }
    text.push('\n');
}

/// Says which nodes are on one link, if not all of them.
fn networks(text: &mut String, simulation: &Simulation) {
    let links: Vec<&[IpNet]> = simulation.networks().collect();
    if links.len() < 2 {
        return;
    }
    let names: Vec<String> = links.iter().map(|networks| list(networks, networks.len())).collect();
    let number = count(links.len(), "link");
    let _ = writeln!(text, "· {number} with a router between them: {}", list(&names, 6));
    if let Some(one) = simulation.one_link() {
        let options: Vec<String> = one.iter().map(|prefix| format!("--network {prefix}")).collect();
        let _ = writeln!(
            text,
            "  The configuration does not say how large the nodes' networks are. If all nodes are on one link, pass {}.",
            options.join(" ")
        );
    }
    text.push('\n');
}

/// Says what the simulated machines have although hostgw does not set it up.
pub(super) fn assumptions(text: &mut String, assumptions: &[Assumption]) {
    for assumption in assumptions {
        let _ = writeln!(text, "· {assumption}");
    }
}

pub(super) fn mark(works: bool, palette: &Palette) -> String {
    if works { palette.add.apply_to("✓").to_string() } else { palette.conflict.apply_to("✗").to_string() }
}

/// Renders a matrix for each family: a row for each source node, a column for each destination pod, and one for the
/// outside. A cell shows the results from the pod and from the node itself.
fn matrices(text: &mut String, simulation: &Simulation, connections: &[Connection], palette: &Palette) {
    let names: Vec<&Untrusted> = simulation.machines().iter().map(|machine| &machine.name).collect();
    if names.len() > WIDEST_MATRIX {
        return;
    }
    for family in Family::ALL {
        let of_family = connections.iter().filter(|connection| connection.family == family);
        let cells: BTreeMap<(&Untrusted, Option<&Untrusted>, bool), bool> = of_family
            .map(|it| ((&it.from, it.to.as_ref(), it.kind == ConnectionKind::NodeToPod), it.works))
            .collect();
        if cells.is_empty() {
            continue;
        }
        let head = format!(
            "{family}: each cell shows two connections to the column's pod: from the row's pod, then from the row's node"
        );
        let _ = writeln!(text, "{}", palette.head.apply_to(head));
        let width = column(names.iter().copied());
        header(text, &names, width);
        for (number, from) in (1..).zip(&names) {
            let _ = write!(text, "  {number:>2} {} ", padded(&from.to_string(), width));
            let cell = |to, node| {
                cells.get(&(*from, to, node)).map_or_else(|| "·".to_owned(), |works| mark(*works, palette))
            };
            for to in &names {
                let _ = write!(text, " {}{}", cell(Some(*to), false), cell(Some(*to), true));
            }
            let _ = writeln!(text, "  {}", cell(None, false));
        }
        text.push('\n');
    }
}

/// Returns the column headings: the number of the row of each node, two characters wide.
fn header(text: &mut String, names: &[&Untrusted], width: usize) {
    let _ = write!(text, "     {} ", padded("", width));
    for number in 1..=names.len() {
        let _ = write!(text, " {number:>2}");
    }
    text.push_str("  outside\n");
}

/// Renders the reason for each failure, and each reason only once.
fn failures(text: &mut String, connections: &[Connection], palette: &Palette) {
    let failed = connections.iter().filter(|connection| !connection.works);
    let failures = failed
        .map(|connection| (connection.reason.as_ref().map_or("lost", Untrusted::as_raw), pair(connection)));
    reasons(text, failures, palette);
}

/// Renders reasons, each only once, with the connections that fail for it.
pub(super) fn reasons<'a>(
    text: &mut String,
    failures: impl Iterator<Item = (&'a str, String)>,
    palette: &Palette,
) {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for (reason, pair) in failures {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, pairs)) => pairs.push(pair),
            None => reasons.push((reason, vec![pair])),
        }
    }
    for (reason, pairs) in &reasons {
        let _ = writeln!(text, "{} {}", mark(false, palette), printable(&list(pairs, 6)));
        let _ = writeln!(text, "    {}", printable(reason));
    }
    if !reasons.is_empty() {
        text.push('\n');
    }
}

fn pair(connection: &Connection) -> String {
    described(connection.kind, &connection.from, connection.to.as_ref())
}

/// Describes a connection by its ends.
pub(super) fn described(kind: ConnectionKind, from: &Untrusted, to: Option<&Untrusted>) -> String {
    let to = to.map_or_else(|| "outside".to_owned(), ToString::to_string);
    match kind {
        ConnectionKind::PodToPod => format!("pod of {from} -> pod of {to}"),
        ConnectionKind::NodeToPod => format!("node {from} -> pod of {to}"),
        ConnectionKind::PodToOutside => format!("pod of {from} -> outside"),
    }
}

fn conclusion(text: &mut String, connections: &[Connection], is_all: bool, palette: &Palette) {
    let working = connections.iter().filter(|connection| connection.works).count();
    let line = format!("{working} of {} work", count(connections.len(), "connection"));
    let style = if is_all { &palette.add } else { &palette.conflict };
    let _ = writeln!(text, "{}", style.apply_to(line));
}
