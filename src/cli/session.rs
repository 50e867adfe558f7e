//! From the command line's target to a plan for this node.

use std::path::{Path, PathBuf};

use super::{Failure, arguments::Target, environment};
#[cfg(target_os = "linux")]
use super::{
    node_records::{last_applied, readable, state_dir},
    persisted::{self, Basis},
};
#[cfg(target_os = "linux")]
use crate::{
    apply::StateDir,
    kernel::{self, LiveNode},
};
use crate::{
    config::{self, Document, Positions, StoredConfig},
    error::{Error, Kind},
    input,
    model::{Cluster, ConfigPath},
    plan::{
        self, Desired, ForeignPolicy, Observe, OriginalSysctls, Plan, PlanProblem, Prepared, compare::Side,
    },
    record::{LastApplied, Snapshot},
    render::{PersistedFile, Report, Source},
    state::Host,
    text::{self, ShellCommand, Untrusted},
};

/// A configuration that was read and found valid.
pub(super) struct Loaded {
    pub document: Document,
    pub cluster: Cluster,
}

/// Where the configuration of a node lies.
const NODE_FOLDER: &str = "/etc/hostgw";

/// Reads the document that `file` names, `-` for standard input, or the one that [`find`] finds.
pub(super) fn document(file: Option<&Path>) -> Result<Document, Failure> {
    let found = file.map_or_else(find, |file| Ok(file.to_owned()))?;
    let document =
        if found.as_os_str() == "-" { Document::read_standard_input() } else { Document::read(&found) };
    Ok(document.map_err(|error| {
        let is_from_environment = file.is_none() && environment::file().is_some();
        let details = is_from_environment.then(|| format!("{} names it", environment::FILE));
        invalid_input(&error).with_details(details)
    })?)
}

/// The configuration that nobody named: the one that the environment names, else the one in the working directory,
/// else the node's own.
pub(super) fn find() -> Result<PathBuf, Failure> {
    if let Some(file) = environment::file() {
        return Ok(file);
    }
    let folders = ["", NODE_FOLDER].map(Path::new);
    Ok(config::find_in(&folders).map_err(|error| invalid_input(&error))?)
}

fn invalid_input(error: &config::ReadError) -> Error {
    Error::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint())
}

/// The name and the text of a file that is no configuration; `-` is standard input.
pub(super) fn text_of(file: &Path) -> Result<(String, String), Error> {
    let (name, bytes) = if file.as_os_str() == "-" {
        ("standard input".to_owned(), input::read_standard_input())
    } else {
        (text::path(file).to_string(), input::read(file))
    };
    let bytes =
        bytes.map_err(|error| Error::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint()))?;
    let text = decoded(bytes).map_err(|why| {
        Error::new(Kind::Invalid, format!("cannot read {name}: {why}")).with_hint("save it as UTF-8")
    })?;
    Ok((name, text))
}

/// UTF-8, or UTF-16 with a byte order mark, as `>` of Windows PowerShell 5.1 writes it.
fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect()
    };
    let units = match bytes.get(..2) {
        Some([0xff, 0xfe]) => units(&bytes[2..], u16::from_le_bytes),
        Some([0xfe, 0xff]) => units(&bytes[2..], u16::from_be_bytes),
        _ => return String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()),
    };
    String::from_utf16(&units).map_err(|_| "it is not UTF-16 text".to_owned())
}

/// Reads and checks a configuration.
pub(super) fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    let document = document(file)?;
    let cluster = config::load(&document)?;
    Ok(Loaded { document, cluster })
}

/// The node to plan for.
pub(super) enum Place {
    /// This node, with what hostgw keeps about it.
    #[cfg(target_os = "linux")]
    Live(StateDir),
    /// A node's saved state.
    Snapshot(Box<Snapshot>),
}

/// A configuration, a node, and everything known about the node before any change.
pub(super) struct Session {
    pub loaded: Loaded,
    pub index: usize,
    pub place: Place,
    pub saved: OriginalSysctls,
    pub last: Option<LastApplied>,
    pub policy: ForeignPolicy,
    pub prepared: Prepared,
}

impl Session {
    #[cfg(target_os = "linux")]
    /// Loads the configuration, and finds out which node this is.
    pub(super) fn live(target: &Target, policy: ForeignPolicy) -> Result<Self, Failure> {
        let node = environment::node(target.node.as_deref());
        Self::live_of(load(target.file.as_deref())?, node.as_deref(), policy)
    }

    #[cfg(target_os = "linux")]
    /// The same for a configuration that is loaded already.
    pub(super) fn live_of(
        loaded: Loaded,
        node: Option<&str>,
        policy: ForeignPolicy,
    ) -> Result<Self, Failure> {
        let (host, host_name) = (kernel::host()?, kernel::host_name().ok());
        Self::new(loaded, node, &host, host_name.as_deref(), Place::Live(state_dir()?), policy)
    }

    /// Loads the configuration, and finds out of which node the snapshot is.
    pub(super) fn of_snapshot(
        target: &Target,
        snapshot: Snapshot,
        policy: ForeignPolicy,
    ) -> Result<Self, Failure> {
        let loaded = load(target.file.as_deref())?;
        let snapshot = Box::new(snapshot);
        let (host, host_name) = (snapshot.observed.host.clone(), snapshot.host_name.clone());
        let node = environment::node(target.node.as_deref());
        Self::new(loaded, node.as_deref(), &host, host_name.as_deref(), Place::Snapshot(snapshot), policy)
    }

    fn new(
        loaded: Loaded,
        node: Option<&str>,
        host: &Host,
        host_name: Option<&str>,
        place: Place,
        policy: ForeignPolicy,
    ) -> Result<Self, Failure> {
        let index = plan::identify(&loaded.cluster, node, host, host_name)
            .map_err(|error| with_last_name(error, &loaded, node, &place))?;
        Ok(Self {
            index,
            place,
            saved: OriginalSysctls::default(),
            last: None,
            policy,
            prepared: Prepared::nothing(),
            loaded,
        })
    }

    /// Observes the node and plans.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let mut unknown = Vec::new();
        let node: &mut dyn Observe = match &mut self.place {
            #[cfg(target_os = "linux")]
            Place::Live(dir) => {
                self.saved = readable(dir.saved(), &mut unknown)?.unwrap_or_default();
                self.last = last_applied(dir)?;
                &mut LiveNode
            }
            Place::Snapshot(snapshot) => {
                self.saved = snapshot.saved.clone();
                self.last = snapshot.last_applied.clone();
                unknown.clone_from(&snapshot.unknown);
                snapshot.as_mut()
            }
        };
        let prepared = plan::prepare(node, &self.loaded.cluster, self.index, &self.saved, self.policy)?;
        self.prepared = prepared.map_err(|plan::NotLinux| not_linux(self.node_name()))?;
        self.prepared.plan.unknown.extend(unknown);
        if let Some(last) = &self.last {
            self.prepared.plan.tell_replaced(&last.state);
        }
        Ok(())
    }

    pub(super) fn node_name(&self) -> &Untrusted {
        &self.loaded.cluster.nodes[self.index].name
    }

    /// The plan with its reasons, warnings and source lines.
    pub(super) fn report(&self) -> Report {
        let locator = Locator::new(&self.loaded.document);
        let last = self.last.as_ref().filter(|last| last.occasion.node.as_ref() == Some(self.node_name()));
        let cluster = &self.loaded.cluster;
        let Prepared { desired, observed, plan, .. } = &self.prepared;
        let former = last.filter(|_| !plan.changes.is_empty()).and_then(|last| self.former(last));
        let known = last.map(|last| plan::PreviousApply {
            state: &last.state,
            previous: former.as_ref().map(|former| plan::PreviousConfig::new(&former.cluster, cluster)),
        });
        let former_places = former.as_ref().map(|former| Locator::new(&former.document));
        let explain = |change: &_| plan::reason(Some(cluster), desired, &self.saved, known.as_ref(), change);
        let mut report = Report::new(plan, explain, |side, path| match side {
            Side::New => locator.source(path),
            Side::Old => {
                let source = former_places.as_ref()?.source(path)?;
                Some(Source { apply: last.map(|last| last.id), ..source })
            }
        });
        report.node = Some(self.node_name().to_owned());
        report.file = Some(self.loaded.document.name().clone());
        report.warnings = plan::check::warnings(cluster, self.index, desired, observed);
        report.warnings.extend(plan::check::irrevocable(plan));
        report.warnings.extend(plan::foreign::left(&self.prepared.left));
        #[cfg(target_os = "linux")]
        if let Place::Live(_) = self.place {
            report.add_persisted(self.persisted());
        }
        report
    }

    #[cfg(target_os = "linux")]
    /// The files on this node that restore part of its state at boot, compared with the configuration. Sysctls that go
    /// back to their original values are nothing to restore.
    fn persisted(&self) -> Vec<PersistedFile> {
        let found = persisted::find();
        if found.is_empty() {
            return Vec::new();
        }
        let Desired { state, released, .. } = &self.prepared.desired;
        let mut state = state.clone();
        state.sysctls.retain(|key, _| !released.contains(key));
        let document = &self.loaded.document;
        // As whoever follows the advice may be elsewhere by then.
        let file = document.path().and_then(|path| path.canonicalize().ok());
        let file = file.map_or_else(|| "FILE".into(), |path| path.to_string_lossy().into_owned());
        persisted::judge(
            &found,
            &Basis::Wanted { state: &state, node: self.node_name().as_raw(), file: &file },
        )
    }

    /// The configuration that was applied last, where it is another one and this version still takes it.
    fn former(&self, last: &LastApplied) -> Option<Loaded> {
        let kept =
            last.configuration.as_ref().filter(|kept| **kept != StoredConfig::from(&self.loaded.document))?;
        let document = kept.document(last.occasion.file.clone().unwrap_or_default());
        let cluster = config::load(&document).ok()?;
        Some(Loaded { document, cluster })
    }

    /// What in the configuration does not fit this node, as one error.
    pub(super) fn check(&self) -> Result<(), Error> {
        let problems =
            plan::check(&self.loaded.cluster, self.index, &self.prepared.desired, &self.prepared.observed);
        if problems.is_empty() { Ok(()) } else { Err(self.problems(&problems)) }
    }

    fn problems(&self, problems: &[PlanProblem]) -> Error {
        /// The number of problems listed in full. More usually have one cause that shows on every node.
        const TOLD: usize = 10;
        let locator = Locator::new(&self.loaded.document);
        let place = |problem: &PlanProblem| {
            let source = problem.path.as_ref().and_then(|path| locator.source(path));
            source.map_or_else(String::new, |source| format!(" ({}:{})", source.file, source.line))
        };
        let described = |problem: &PlanProblem| format!("{}{}", problem.message, place(problem));
        if let [only] = problems {
            return Error::new(Kind::Invalid, described(only)).with_hint_if(only.hint.clone());
        }
        let count = text::count(problems.len(), "problem");
        let mut details: Vec<String> = problems.iter().take(TOLD).map(described).collect();
        if problems.len() > TOLD {
            details.push(format!("and {} more", problems.len() - TOLD));
        }
        let name = self.node_name();
        let message = format!("the configuration does not fit node {name}: {count}");
        let hint = problems.iter().find_map(|problem| problem.hint.clone());
        Error::new(Kind::Invalid, message).with_details(details).with_hint_if(hint)
    }
}

/// The failure to tell which node this is, with what the last apply knows of it: a node that has left the file is
/// found by neither its address nor its name.
fn with_last_name(error: Error, loaded: &Loaded, asked: Option<&str>, place: &Place) -> Error {
    let last = match place {
        #[cfg(target_os = "linux")]
        Place::Live(dir) => last_applied(dir).ok().flatten(),
        Place::Snapshot(snapshot) => snapshot.last_applied.clone(),
    };
    let Some(name) = last.and_then(|last| last.occasion.node) else { return error };
    if asked.is_some_and(|asked| name != asked) {
        return error;
    }
    let file = loaded.document.name();
    let option = |verb: &str| ShellCommand::new(["hostgw", verb, "--node", name.as_raw()]);
    let (detail, hint) = if loaded.cluster.node(name.as_raw()).is_some() {
        (
            format!("the last apply here was for node {name}, which is still in {file}"),
            format!(
                "if this is that node, fix its address in the configuration, or run `{}`",
                option("plan")
            ),
        )
    } else {
        (
            format!("the last apply here was for node {name}, which is no longer in {file}"),
            "run `hostgw destroy` to remove everything hostgw manages on this machine; if the node was renamed, pass its new name with --node"
                .to_owned(),
        )
    };
    error.with_details([detail]).with_hint(hint)
}

/// Checks that all the live state a plan depends on could be read.
pub(super) fn check_complete(plan: &Plan) -> Result<(), Error> {
    let Some(first) = plan.unknown.first() else { return Ok(()) };
    let details = plan.unknown.iter().map(|unknown| format!("{}: {}", unknown.what, unknown.why));
    let error = Error::new(Kind::Incomplete, "part of the live state could not be read; nothing was changed")
        .with_details(details)
        .with_hint_if(first.hint.clone());
    Err(error)
}

/// Checks that no foreign object conflicts with the plan.
pub(super) fn check_conflicts(plan: &Plan, hint: &str) -> Result<(), Error> {
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    let count = text::count(plan.conflicts.len(), "conflict");
    Err(Error::new(
        Kind::Conflict,
        format!("{count} with objects that hostgw does not manage; nothing was changed"),
    )
    .with_details(plan.conflicts.iter().map(ToString::to_string))
    .with_hint(hint))
}

fn not_linux(name: &Untrusted) -> Error {
    Error::new(Kind::Invalid, format!("node {name} is a Windows node, but this is Linux")).with_hint(format!(
        "{} writes its plan as a PowerShell script",
        ShellCommand::new(["hostgw", "render", "--node", name.as_raw()])
    ))
}

/// Finds places in a document, reading it again only when one is asked for.
pub(super) struct Locator<'a> {
    document: &'a Document,
    positions: std::cell::OnceCell<Positions>,
}

impl<'a> Locator<'a> {
    pub(super) const fn new(document: &'a Document) -> Self {
        Self { document, positions: std::cell::OnceCell::new() }
    }

    pub(super) fn source(&self, path: &ConfigPath) -> Option<Source> {
        let position = self.positions.get_or_init(|| self.document.positions()).of(path)?;
        Some(Source::new(path, self.document.name(), position.line, position.column))
    }
}
