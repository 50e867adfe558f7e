//! The records of one network namespace: lock, journal, history, original sysctl values, and the last apply.
//!
//! hostgw does not need them to find what it manages. They hold what the kernel cannot tell: the previous state. Every
//! file names its format version, boot and namespace. A file of another boot or namespace is ignored, because the
//! kernel state that it describes is gone. So only the journal is written to the disk at once. A crash of the machine
//! can leave the other files empty or damaged, but not the file `boot`, which names the boot of all of them: what is
//! damaged is ignored if it is of an earlier boot, and an error otherwise.
//!
//! The first call that needs the directory opens it; later calls use its descriptor. [`HOSTGW_STATE_DIR`](OVERRIDE)
//! and everything in it must belong to root or to the caller, must not be writable by anyone else, and must not be
//! symbolic links: see [`Folder`]. As with sudo's directories, the parent folders are the caller's responsibility:
//! anyone who can rename the directory can hide the records from hostgw, but cannot forge them. A sticky parent such as
//! `/tmp` prevents that, too.

mod agent;
mod history;
mod pending;
mod storage;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use agent::AGENT;

use super::{
    Holder, Lock,
    folder::{Folder, Remedy, Survives, UntrustedPath},
    lock::LOCK_FILE,
};
use crate::{
    error::{Error, Kind},
    plan::{OriginalSysctls, SysctlValues},
    record::{Decision, HistoryEntry, LastApplied, Outcome, Pending, Record},
    text::{self, OsError},
};

/// The environment variable that overrides the location of the state directory.
pub const OVERRIDE: &str = "HOSTGW_STATE_DIR";
const DEFAULT: &str = "/run/hostgw";
const JOURNAL: &str = "journal.json";
/// The boot of the last command that changed the directory. Without content: its envelope tells the boot.
const BOOT: &str = "boot";
/// The folder for the files of a pending apply.
const PENDING_FOLDER: &str = "wait";
const PENDING: &str = "wait/pending.json";
const OUTCOME: &str = "outcome.json";
const ORIGINAL_SYSCTLS: &str = "saved-sysctls.json";
const FOREIGN_SYSCTLS: &str = "foreign-sysctls.json";
const APPLIED: &str = "applied";
const HISTORY: &str = "history";
/// The ID of the newest transaction. IDs are never reused, so a late `hostgw confirm ID` cannot confirm another apply.
const LAST_ID: &str = "last-id";

/// The number of committed transactions to keep.
const MAX_HISTORY: usize = 20;

/// The number of desired states to keep, for drift detection.
const MAX_APPLIED: usize = 3;

/// The state directory of one network namespace.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    identity: Identity,
    /// Shared by all clones, so a command opens it only once.
    folder: Arc<OnceLock<Folder>>,
}

/// The boot and the namespace that a file describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The boot ID, from `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The namespace by its cookie (`SO_NETNS_COOKIE`, Linux 5.14), such as `net-1`, or else by its inode, such as
    /// `net-i4026531840`.
    pub namespace: String,
}

/// A value that identifies the state of the records: any transaction that begins or ends changes it permanently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The pending apply.
    pub(super) pending: Option<Pending>,
    is_open: bool,
    history: Vec<u64>,
    /// The raw content of the file, which is not validated here.
    last_id: Option<Vec<u8>>,
}

impl StateDir {
    /// The directory of the namespace `identity`, under `HOSTGW_STATE_DIR` or `/run/hostgw`. Creates nothing.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let base = std::env::var_os(OVERRIDE).filter(|base| !base.is_empty());
        Self::new_in(&base.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from), identity)
    }

    /// The directory of the namespace `identity`, under `base`.
    #[must_use]
    pub fn new_in(base: &Path, identity: Identity) -> Self {
        Self { path: base.join(&identity.namespace), identity, folder: Arc::default() }
    }

    /// Takes over the descriptor of a directory that another process opened.
    ///
    /// # Errors
    /// Returns an error if it is not a directory, or is not trusted.
    pub fn from_descriptor(descriptor: OwnedFd, identity: Identity) -> Result<Self, Error> {
        let dir = Self::new(identity);
        let folder = Folder::from_descriptor(descriptor, dir.path.clone());
        let folder = folder.map_err(|error| cannot_read(&dir.path, &error))?;
        dir.folder.get_or_init(|| folder);
        Ok(dir)
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parent folder of all namespaces' directories.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Opens the directory if it exists.
    fn folder(&self) -> Result<Option<&Folder>, Error> {
        if let Some(folder) = self.folder.get() {
            return Ok(Some(folder));
        }
        let opened = Folder::open(self.base()).and_then(|base| base.subfolder(&self.identity.namespace));
        match opened {
            Ok(folder) => Ok(Some(self.folder.get_or_init(|| folder))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&self.path, &error)),
        }
    }

    /// Opens the directory, creating it if it does not exist.
    fn create(&self) -> Result<&Folder, Error> {
        let cannot = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("run as root, or point {OVERRIDE} to a writable directory")
                }
                _ => format!("point {OVERRIDE} to a directory on a writable file system"),
            };
            let error = cannot("create the state directory", &self.path, &error);
            Error { hint: error.hint.or(Some(hint.into())), ..error }
        };
        let folder = match self.folder()? {
            Some(folder) => folder,
            None => {
                let base = Folder::create(self.base()).map_err(cannot)?;
                let folder = base.create_subfolder(&self.identity.namespace).map_err(cannot)?;
                self.folder.get_or_init(|| folder)
            }
        };
        for name in [HISTORY, APPLIED] {
            folder.create_subfolder(name).map_err(cannot)?;
        }
        Ok(folder)
    }

    /// The directory, for writing. It exists, because the caller holds the lock.
    fn existing(&self, name: &str) -> Result<&Folder, Error> {
        let absent = io::Error::from(io::ErrorKind::NotFound);
        self.folder()?.ok_or_else(|| cannot("write", &self.path.join(name), &absent))
    }

    /// Duplicates the directory's descriptor, to pass it to another process. Requires that the lock was taken.
    ///
    /// # Errors
    /// Returns an error if the directory is not open, or if too many files are open.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.folder.get().ok_or(io::ErrorKind::NotFound)?.duplicate()
    }

    /// Returns the error for a lock that `holder` did not release in time. If an apply is pending, it names the commands that
    /// confirm or cancel it.
    pub fn lock_timeout(&self, holder: Option<&Holder>, timeout: Duration) -> Error {
        let pending = self.pending().ok().flatten();
        let undecided = pending.filter(|(_, pending)| self.decision(pending).is_ok_and(|it| it.is_none()));
        locked(holder, timeout, undecided.map(|(_, pending)| pending.id))
    }

    /// Takes over the lock from another process, which passed its descriptor as `file`.
    ///
    /// # Errors
    /// Returns an error if `file` is not this directory's lock, or if the lock is free.
    pub fn inherit_lock(&self, file: File, description: &str) -> io::Result<Lock> {
        Lock::inherit(self.folder.get().ok_or(io::ErrorKind::NotFound)?, file, description)
    }

    /// Creates the directory with mode 0700, and takes the lock.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be written, or [`Kind::Locked`] after `timeout`.
    pub fn lock(&self, timeout: Duration, description: &str) -> Result<Lock, Error> {
        match Lock::acquire(self.create()?, LOCK_FILE, timeout, description) {
            Ok(Ok(lock)) => Ok(lock),
            Ok(Err(holder)) => Err(locked(Some(&holder), timeout, None)),
            Err(error) => Err(cannot("take the lock in", &self.path, &error)),
        }
    }

    /// The current holder of the lock, as far as it is known; `None` if the lock is free.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        Lock::holder(self.folder().ok()??, LOCK_FILE)
    }

    /// Returns the open transaction, which was begun and has not ended.
    ///
    /// # Errors
    /// Returns an error if the journal exists but cannot be read or parsed.
    pub fn open_journal(&self) -> Result<Option<Record>, Error> {
        self.read(JOURNAL)
    }

    /// Writes the journal to disk, before the first write to the kernel.
    ///
    /// # Errors
    /// Returns an error if it cannot be written. In that case, nothing may be changed.
    pub fn begin(&self, record: &Record) -> Result<(), Error> {
        self.begin_boot()?;
        self.end_pending()?;
        self.remove(FOREIGN_SYSCTLS)?;
        self.write(LAST_ID, &record.id)?;
        self.write_to_disk(JOURNAL, record).inspect_err(|_| {
            // It may exist nevertheless, and would describe a transaction that never began.
            self.discard(JOURNAL);
        })
    }

    /// Ends the open transaction as committed: its journal becomes the newest record of the history.
    ///
    /// # Errors
    /// Returns an error if the files cannot be moved.
    pub fn commit(&self, record: &Record) -> Result<(), Error> {
        self.rename(JOURNAL, &file_name(HISTORY, record.id))?;
        self.clear_pending();
        self.discard(OUTCOME);
        // Prune last: a transaction that fails must not have removed old records.
        self.prune(HISTORY, MAX_HISTORY);
        self.prune(APPLIED, MAX_APPLIED);
        Ok(())
    }

    /// Ends the open transaction as committed without adding it to the history: it restored what the last apply established.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be removed.
    pub fn end_repaired(&self) -> Result<(), Error> {
        self.remove(JOURNAL)
    }

    /// Opens a committed transaction again, to undo it.
    ///
    /// # Errors
    /// Returns an error if the files cannot be moved.
    pub fn reopen(&self, record: &Record) -> Result<(), Error> {
        self.end_pending()?;
        self.remove(OUTCOME)?;
        self.remove(FOREIGN_SYSCTLS)?;
        self.rename(&file_name(HISTORY, record.id), JOURNAL)
    }

    /// Returns the foreign sysctl values that the undo of the open transaction found and keeps.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn foreign(&self) -> Result<SysctlValues, Error> {
        Ok(self.read(FOREIGN_SYSCTLS)?.unwrap_or_default())
    }

    /// Records the foreign sysctl values that an undo keeps, before the undo makes them indistinguishable from its
    /// own.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub fn write_foreign(&self, foreign: &SysctlValues) -> Result<(), Error> {
        self.write(FOREIGN_SYSCTLS, foreign)
    }

    /// Ends the open transaction as rolled back.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be removed.
    pub fn end_rolled_back(&self) -> Result<(), Error> {
        self.remove(JOURNAL)?;
        self.clear_pending();
        self.discard(FOREIGN_SYSCTLS);
        Ok(())
    }

    /// Returns the original values of the sysctls that hostgw has written.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn saved(&self) -> Result<OriginalSysctls, Error> {
        Ok(self.read(ORIGINAL_SYSCTLS)?.unwrap_or_default())
    }

    /// Replaces the saved sysctl values.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub fn write_saved(&self, saved: &OriginalSysctls) -> Result<(), Error> {
        if saved.0.is_empty() { self.remove(ORIGINAL_SYSCTLS) } else { self.write(ORIGINAL_SYSCTLS, saved) }
    }
}

/// The error for a lock that `holder` did not release in time. `pending` is the ID of the apply that can be confirmed.
fn locked(holder: Option<&Holder>, timeout: Duration, pending: Option<u64>) -> Error {
    let waited = text::in_units(timeout);
    let who = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
    let hint = match (holder.and_then(Holder::stopped), pending) {
        (Some(process), _) => {
            format!("it is stopped; run `kill -CONT {}` to resume it", process.as_raw_nonzero())
        }
        (None, Some(id)) => format!(
            "run `hostgw confirm {id}` to keep the pending apply, or `hostgw cancel {id}` to roll it back; then run this command again"
        ),
        (None, None) => {
            "run the command again when it has finished, or wait longer with --lock-timeout".to_owned()
        }
    };
    Error::new(Kind::Locked, format!("{who} holds this node's lock; waited {waited}")).with_hint(hint)
}

/// The name of a transaction's file in `folder`.
fn file_name(folder: &str, id: u64) -> String {
    format!("{folder}/{id:06}.json")
}

/// The error for a file that exists but cannot be read. If permission is missing, its content counts as unknown, not
/// as damaged.
fn cannot_read(path: &Path, error: &io::Error) -> Error {
    if let Some(error) = below_a_file(path, error) {
        return error;
    }
    let cannot = cannot("read", path, error);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error { kind: Kind::Incomplete, ..cannot.with_hint("run as root") };
    }
    let hint = cannot
        .hint
        .clone()
        .unwrap_or_else(|| format!("fix its path or permissions, or point {OVERRIDE} elsewhere").into());
    cannot.with_hint(hint)
}

/// Returns the error for a path below something that is not a directory.
fn below_a_file(path: &Path, error: &io::Error) -> Option<Error> {
    let is_file = |path: &&Path| path.metadata().is_ok_and(|found| !found.is_dir());
    let file = path.ancestors().find(is_file).filter(|_| error.kind() == io::ErrorKind::NotADirectory)?;
    let (path, file) = (text::path(path), text::path(file));
    let message = format!("the state directory {path} cannot be used: {file} is not a directory");
    Some(Error::unexpected(message).with_hint(format!("point {OVERRIDE} to a directory")))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    if let Some(untrusted) = UntrustedPath::of(error) {
        return Error::unexpected(format!("cannot trust the records of this node: {untrusted}"))
            .with_hint(remedy(untrusted.remedy));
    }
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space on that file system, then run the command again")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("make that file system writable, then run the command again")
        }
        _ => None,
    };
    Error::unexpected(format!("cannot {what} {}: {}", text::path(path), OsError(error))).with_hint_if(hint)
}

fn remedy(remedy: Remedy) -> String {
    match remedy {
        Remedy::FixOwner => format!("fix its ownership, or point {OVERRIDE} elsewhere"),
        Remedy::FixMode => format!("run `chmod go-w` on it, or point {OVERRIDE} elsewhere"),
        Remedy::Replace => {
            format!("replace it with a directory, or point {OVERRIDE} at the directory itself")
        }
        Remedy::MoveAside => "check its contents, then move it aside".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, time::Instant};

    use super::*;
    use crate::{
        plan::{Totals, Touched},
        record::{Command, TransactionMeta},
        state::State,
    };

    /// A state directory that is removed at the end of the test.
    pub struct TestFolder(PathBuf);

    impl TestFolder {
        pub fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hostgw-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        pub fn dir(&self, boot: &str) -> StateDir {
            let identity = Identity { boot_id: boot.to_owned(), namespace: "net-1".to_owned() };
            StateDir::new_in(&self.0, identity)
        }
    }

    impl Drop for TestFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub fn record(id: u64) -> Record {
        Record {
            id,
            metadata: TransactionMeta::new(Command::Apply, 0),
            totals: Totals::default(),
            touched: Touched::default(),
            before: State::default(),
            written: SysctlValues::new(),
            written_nat: crate::state::Tables::default(),
            saved_before: OriginalSysctls::default(),
        }
    }

    #[test]
    fn a_missing_directory_has_no_records_and_is_not_created_by_reading() {
        let folder = TestFolder::new("nothing");
        let dir = folder.dir("boot");
        assert_eq!(dir.open_journal(), Ok(None));
        assert_eq!(dir.last_committed(), Ok(None));
        assert_eq!(dir.saved(), Ok(OriginalSysctls::default()));
        assert!(!folder.0.exists(), "reading creates nothing");
    }

    #[test]
    fn the_history_keeps_the_last_twenty_committed_transactions() {
        let folder = TestFolder::new("history");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        for _ in 0..25 {
            let record = record(dir.next_id().expect("a number"));
            dir.begin(&record).expect("begun");
            assert_eq!(dir.open_journal(), Ok(Some(record.clone())));
            dir.commit(&record).expect("committed");
            assert_eq!(dir.open_journal(), Ok(None));
        }
        assert_eq!(dir.history(), Ok((6..=25).collect()));
        assert_eq!(dir.last_committed(), Ok(Some(record(25))));
        let entries = dir.entries().expect("readable");
        assert_eq!(
            entries.iter().map(|entry| entry.id).collect::<Vec<_>>(),
            (6..=25).rev().collect::<Vec<_>>()
        );
    }

    #[test]
    fn records_of_another_boot_are_ignored() {
        let folder = TestFolder::new("boot");
        let before = folder.dir("before");
        let _lock = before.lock(Duration::ZERO, "test").expect("the lock");
        before.begin(&record(1)).expect("begun");
        let now = folder.dir("now");
        assert_eq!(now.open_journal(), Ok(None));
        assert_eq!(before.open_journal(), Ok(Some(record(1))));
    }

    /// As after a power cut: what was not written to disk is empty.
    #[test]
    fn damaged_records_of_another_boot_are_ignored_and_removed() {
        let folder = TestFolder::new("power-cut");
        let before = folder.dir("before");
        let _lock = before.lock(Duration::ZERO, "test").expect("the lock");
        before.begin(&record(1)).expect("begun");
        before.commit(&record(1)).expect("committed");
        before.begin(&record(2)).expect("begun");
        before.write_foreign(&SysctlValues::new()).expect("written");
        let files = ["history/000001.json", JOURNAL, LAST_ID, FOREIGN_SYSCTLS];
        for file in files {
            fs::write(before.path().join(file), "").expect("writable");
        }
        assert!(before.open_journal().is_err(), "in the same boot, this is an error");
        let now = folder.dir("now");
        assert_eq!(now.open_journal(), Ok(None));
        assert_eq!(now.entries(), Ok(Vec::new()));
        assert_eq!(now.foreign(), Ok(SysctlValues::new()));
        let id = now.next_id().expect("a number");
        now.begin(&record(id)).expect("begun");
        now.commit(&record(id)).expect("committed");
        assert_eq!(now.history(), Ok(vec![id]));
        for file in files {
            assert!(!now.path().join(file).exists() || file == LAST_ID, "{file}");
        }
    }

    #[test]
    fn a_truncated_empty_or_newer_journal_is_a_specific_error() {
        let folder = TestFolder::new("broken");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        dir.begin(&record(1)).expect("begun");
        let path = dir.path().join(JOURNAL);
        let whole = fs::read_to_string(&path).expect("readable");
        for (text, why) in [
            ("", "unexpected end of file"),
            (&whole[..whole.len() / 2], "unexpected end of file"),
            (
                &whole.replace("\"format\":3", "\"format\":4"),
                "it has format 4, but this version of hostgw reads format 3",
            ),
            (
                &whole.replace("\"format\":3", "\"format\":2"),
                "it has format 2, but this version of hostgw reads format 3",
            ),
            (&whole.replace("\"id\":1", "\"id\":1,\"more\":2"), "unknown field `more`"),
        ] {
            fs::write(&path, text).expect("writable");
            let error = dir.open_journal().expect_err(why);
            assert!(error.message.as_raw().contains(why), "{error}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn only_the_owner_can_access_the_directory() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TestFolder::new("mode");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let mode = fs::metadata(dir.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_lock_timeout_names_the_holder() {
        let folder = TestFolder::new("lock");
        let dir = folder.dir("boot");
        let held = dir.lock(Duration::ZERO, "apply, since noon").expect("the lock");
        let start = Instant::now();
        let error = dir.lock(Duration::from_millis(200), "second").expect_err("held");
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert_eq!(error.kind, Kind::Locked);
        assert!(error.message.as_raw().contains("(apply, since noon) holds this node's lock"), "{error}");
        let hint = error.hint.expect("a hint").to_string();
        assert!(hint.contains("--lock-timeout"), "{hint}");
        drop(held);
        dir.lock(Duration::ZERO, "third").expect("free again");
    }
}
