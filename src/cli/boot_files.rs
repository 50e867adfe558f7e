//! Compares installed files of `render --persist` with the state that they should restore.
//!
//! A file with the routes of an old configuration silently restores them when the interface is configured again. So
//! `plan`, `apply`, `status`, `rollback` and `destroy` look for such files. A finding never fails the command: it is
//! a warning, with the command that fixes it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::output::Output;
use crate::{
    apply::StateDir,
    input,
    plan::{self, OriginalSysctls},
    reconcile::last_applied,
    record::{Command, LastApplied},
    render::{
        ApplyHook, BootFile, BootFileState, Freshness, Persist, PersistHeader, UnrecognizedHeader, freshness,
    },
    state::State,
    text::{self, ShellCommand, ShellWord, Untrusted},
};

/// The directories where the files say to install them, and where distributions keep such files.
const FOLDERS: [&str; 6] = [
    "/etc/NetworkManager/dispatcher.d",
    "/etc/network/if-up.d",
    "/etc/networkd-dispatcher/routable.d",
    "/etc/nftables",
    "/etc/nftables.d",
    "/etc/sysctl.d",
];

/// The configuration directory of systemd-networkd, which has a directory of drop-ins for each .network file.
const NETWORKD: &str = "/etc/systemd/network";

/// The directories in which systemd-networkd finds .network files (systemd.network(5)).
const NETWORK_FILES: [&str; 5] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

/// The number of entries of a directory to look at.
const MAX_ENTRIES: usize = 4096;

/// The state that the files on this node should restore.
pub(super) enum Basis<'a> {
    /// The desired state of a node.
    Wanted {
        /// The state.
        state: &'a State,
        /// The node.
        node: &'a str,
        /// The configuration, as a command line names it.
        file: &'a str,
    },
    /// hostgw manages nothing here, or will manage nothing.
    Nothing,
    /// The state to restore is unknown, for this reason.
    Unknown(&'a str),
}

/// A file that hostgw rendered.
pub(super) struct RenderedFile {
    path: PathBuf,
    text: String,
    header: Result<PersistHeader, UnrecognizedHeader>,
}

/// Finds the files of `render --persist` on this node. Skips files that cannot be read.
pub(super) fn find() -> Vec<RenderedFile> {
    let drop_ins = entries(Path::new(NETWORKD)).into_iter();
    let drop_ins = drop_ins.filter(|path| path.to_string_lossy().ends_with(".network.d"));
    let folders = FOLDERS.iter().map(PathBuf::from).chain(drop_ins);
    folders.flat_map(|folder| entries(&folder)).filter_map(|path| read(&path)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Option<RenderedFile> {
    // A link could lead anywhere.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let text = String::from_utf8(input::read(path).ok()?).ok()?;
    let header = PersistHeader::find(&text)?;
    Some(RenderedFile { path: path.to_owned(), text, header })
}

/// Compares the files with the state that they should restore.
pub(super) fn judge(found: &[RenderedFile], basis: &Basis) -> Vec<BootFile> {
    found.iter().map(|found| found.judge(basis)).collect()
}

/// Returns the reason that the last applied configuration is not known.
pub(super) const UNREADABLE: &str = "this version of hostgw cannot read the applied configuration";

/// Compares the files on this node with the last applied configuration.
pub(super) fn judge_by_last(last: Option<&LastApplied>) -> Vec<BootFile> {
    let found = find();
    if found.is_empty() {
        return Vec::new();
    }
    let Some(last) = last else {
        return judge(&found, &Basis::Unknown("there is no record of an apply"));
    };
    let applied = applied(last);
    let file = last.metadata.file.as_ref().map_or("FILE", Untrusted::as_raw);
    let basis = match (&applied, last.metadata.command) {
        (_, Command::Destroy) => Basis::Nothing,
        (Some((state, node)), Command::Apply) => Basis::Wanted { state, node, file },
        (None, Command::Apply) => Basis::Unknown(UNREADABLE),
    };
    judge(&found, &basis)
}

/// Warns about files that do not restore the state after a rollback.
pub(super) fn warn_after_rollback(dir: &StateDir, output: &Output) {
    let Ok(last) = last_applied(dir) else { return };
    let files = match last {
        None if dir.last_committed().is_ok_and(|record| record.is_none()) => judge(&find(), &Basis::Nothing),
        last => judge_by_last(last.as_ref()),
    };
    files.iter().filter_map(BootFile::warning).for_each(|warning| output.diagnostic(&warning));
}

/// Returns the desired state under the last applied configuration. The applied state can also contain sysctls that
/// were restored to their original values.
fn applied(last: &LastApplied) -> Option<(State, String)> {
    let node = last.metadata.node.as_ref()?.as_raw();
    let cluster = last.load()?.cluster;
    let (index, _) = cluster.node(node)?;
    let desired = plan::desired(&cluster, index, &OriginalSysctls::default()).ok()?;
    Some((desired.state, node.to_owned()))
}

impl RenderedFile {
    /// Returns `true` if NetworkManager runs it.
    pub(super) fn is_for_network_manager(&self) -> bool {
        self.header.as_ref().is_ok_and(|header| {
            matches!(header.persist, Persist::NetworkManager | Persist::Apply(ApplyHook::NetworkManager))
        })
    }

    fn judge(&self, basis: &Basis) -> BootFile {
        let (state, problem, remedy) = self.verdict(basis);
        let header = self.header.as_ref().ok();
        BootFile {
            path: text::path(&self.path),
            program: header.map(|header| header.persist.name().to_owned()),
            node: header.map(|header| header.node.clone().into()),
            config_hash: header.map(|header| header.config_hash.clone().into()),
            state,
            problem: problem.map(Into::into),
            remedy: remedy.map(Into::into),
        }
    }

    fn verdict(&self, basis: &Basis) -> (BootFileState, Option<String>, Option<String>) {
        let header = match &self.header {
            Ok(header) => header,
            Err(why) => {
                let problem = format!("could not be checked: {why}");
                return (BootFileState::Unknown, Some(problem), Some(self.removal(None)));
            }
        };
        let (wanted, node, file) = match basis {
            Basis::Wanted { state, node, file } => (*state, *node, *file),
            Basis::Nothing => {
                let problem = "would restore objects that hostgw no longer manages".to_owned();
                let removal = self.removal(header.persist.reload());
                return (BootFileState::Outdated, Some(problem), Some(removal));
            }
            Basis::Unknown(why) => {
                return (BootFileState::Unknown, Some(format!("could not be checked: {why}")), None);
            }
        };
        let renewal = || Some(self.renewal(&header.persist, node, file));
        let outdated =
            |why: String| (BootFileState::Outdated, Some(format!("is out of date: {why}")), renewal());
        if header.node != node {
            return outdated(format!("it is for node {}, not {node}", header.node));
        }
        if let Freshness::Outdated { restores, lacks } = freshness(header, &self.text, wanted) {
            return outdated(difference(&restores, &lacks));
        }
        match self.obstacle(header) {
            Some((why, remedy)) => (BootFileState::Unused, Some(format!("has no effect: {why}")), remedy),
            None => (BootFileState::Current, None, None),
        }
    }

    /// Returns what keeps the program from using the file, and the command that fixes it.
    fn obstacle(&self, header: &PersistHeader) -> Option<(String, Option<String>)> {
        let path = ShellWord::new(&self.path.to_string_lossy());
        let name = self.path.file_name()?.to_string_lossy();
        match header.persist {
            Persist::SystemdNetworkd | Persist::Netplan(_) => {
                let folder = self.path.parent()?.file_name()?.to_string_lossy();
                let network = folder.strip_suffix(".d")?;
                let is_there = NETWORK_FILES.iter().any(|folder| Path::new(folder).join(network).is_file());
                if !is_there {
                    let why = format!(
                        "{network} does not exist; run `networkctl status {}` to find the right Network File",
                        header.interface
                    );
                    return Some((why, None));
                }
                (!name.ends_with(".conf")).then(|| ("its name does not end in .conf".to_owned(), None))
            }
            Persist::NetworkManager | Persist::Ifupdown | Persist::Apply(_) => {
                let is_for_ifup =
                    matches!(header.persist, Persist::Ifupdown | Persist::Apply(ApplyHook::Ifup));
                let metadata = fs::metadata(&self.path).ok()?;
                let is_safe = metadata.mode() & 0o022 == 0 && metadata.uid() == 0;
                if metadata.mode() & 0o111 == 0 {
                    return Some(("it is not executable".to_owned(), Some(format!("chmod 755 {path}"))));
                }
                if !is_for_ifup && !is_safe {
                    let remedy = format!("chown root: {path} && chmod 755 {path}");
                    return Some(("users other than root can modify it".to_owned(), Some(remedy)));
                }
                // run-parts(8)
                let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                (is_for_ifup && !name.chars().all(is_plain)).then(|| {
                    (
                        "run-parts ignores files with this name; use only letters, digits, _ and -"
                            .to_owned(),
                        None,
                    )
                })
            }
            Persist::SysctlD if !name.ends_with(".conf") => {
                Some(("its name does not end in .conf".to_owned(), None))
            }
            Persist::SysctlD | Persist::Nftables => None,
        }
    }

    /// Returns the command that renders the file again.
    fn renewal(&self, persist: &Persist, node: &str, file: &str) -> String {
        let path = self.path.to_string_lossy();
        let mut words = vec!["hostgw", "render", "-f", file, "--node", node, "--persist", persist.name()];
        if let Some(id) = persist.netplan_id() {
            words.extend(["--netplan-id", id.as_str()]);
        }
        words.extend(["--out", path.as_ref()]);
        and_reload(&ShellCommand::new(words), persist.reload())
    }

    fn removal(&self, reload: Option<&str>) -> String {
        and_reload(&ShellCommand::new(["rm", self.path.to_string_lossy().as_ref()]), reload)
    }
}

fn and_reload(command: &ShellCommand, reload: Option<&str>) -> String {
    reload.map_or_else(|| command.to_string(), |reload| format!("{command} && {reload}"))
}

/// Describes how a file differs from what it should be.
fn difference(restores: &[String], lacks: &[String]) -> String {
    /// The number of destinations to name.
    const NAMED: usize = 3;
    let mut parts = Vec::new();
    if !restores.is_empty() {
        parts.push(format!("it would bring back {}", text::list(restores, NAMED)));
    }
    if !lacks.is_empty() {
        parts.push(format!("it lacks {}", text::list(lacks, NAMED)));
    }
    if parts.is_empty() { "the configuration has changed".to_owned() } else { parts.join(", and ") }
}
