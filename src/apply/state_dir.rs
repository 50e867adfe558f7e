//! The files hostgw keeps about one network namespace: lock, journal, history, saved sysctls, last apply.
//!
//! None of them is needed to find what hostgw owns; they hold what the kernel cannot say: what stood there
//! before. Every file carries a format version and the boot and namespace it speaks of; what speaks of
//! another boot or namespace is set aside, since the kernel state it describes is gone.

//!
//! The directory is opened once, by the first call that needs it, and used through its descriptor from then on.
//! [`HOSTGW_STATE_DIR`](OVERRIDE) itself and everything in it must belong to root or to the caller, be writable by
//! nobody else, and be no symbolic link: see [`Folder`]. As with sudo's own directories, the folders above it are the
//! choice of whoever names it: whoever can rename it can hide the records from hostgw, but not forge them. A sticky
//! folder such as `/tmp` prevents even that.

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

use super::{
    Holder, Lock,
    folder::{Folder, Remedy, Suspect},
};
use crate::{
    error::{Error, Kind},
    plan::{OriginalSysctls, SysctlValues},
    record::{Decision, Entry, LastApplied, Outcome, Pending, Record},
    text,
};

/// The environment variable that names another place for the state directory.
pub const OVERRIDE: &str = "HOSTGW_STATE_DIR";
const DEFAULT: &str = "/run/hostgw";
const JOURNAL: &str = "journal.json";
/// What belongs to an apply that waits.
const WAIT: &str = "wait";
const PENDING: &str = "wait/pending.json";
const OUTCOME: &str = "outcome.json";
const SAVED: &str = "saved-sysctls.json";
const FOREIGN: &str = "foreign-sysctls.json";
const APPLIED: &str = "applied";
const HISTORY: &str = "history";
/// The number of the newest transaction, which none has again: a late `hostgw confirm ID` confirms no other.
const LAST_ID: &str = "last-id";

/// How many committed transactions are kept.
const KEPT: usize = 20;

/// Of how many the whole desired state is kept, which only tells drift.
const APPLIED_KEPT: usize = 3;

/// The directory of one network namespace.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    identity: Identity,
    /// Shared by all clones, so that a command never opens it twice.
    folder: Arc<OnceLock<Folder>>,
}

/// The boot and the namespace that a file speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// By the namespace's cookie (`SO_NETNS_COOKIE`, Linux 5.14), else by its inode: `net-1`,
    /// `net-i4026531840`.
    pub namespace: String,
}

/// The version of every file in the state directory. A file of another version is never guessed at.
const FORMAT: u32 = 2;

/// The state of the records at one moment: any transaction that begins or ends changes it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The apply that is pending.
    pub(super) pending: Option<Pending>,
    is_open: bool,
    history: Vec<u64>,
    /// The file as it is: whether it makes sense does not matter here.
    last_id: Option<Vec<u8>>,
}

/// What every file is wrapped in.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<T> {
    format: u32,
    boot_id: String,
    namespace: String,
    content: T,
}

/// The head of an [`Envelope`], to tell a newer format from a broken file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    boot_id: String,
    namespace: String,
}

impl StateDir {
    /// The directory of the namespace that `identity` names, below `HOSTGW_STATE_DIR` or `/run/hostgw`.
    /// Nothing is created yet.
    #[must_use]
    pub fn of(identity: Identity) -> Self {
        let base = std::env::var_os(OVERRIDE).filter(|base| !base.is_empty());
        Self::below(&base.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from), identity)
    }

    /// The same below `base`.
    #[must_use]
    pub fn below(base: &Path, identity: Identity) -> Self {
        Self { path: base.join(&identity.namespace), identity, folder: Arc::default() }
    }

    /// The directory as another process opened it, and handed its descriptor to this one.
    ///
    /// # Errors
    /// When it is not a directory, or not to be trusted.
    pub fn handed_over(descriptor: OwnedFd, identity: Identity) -> Result<Self, Error> {
        let dir = Self::of(identity);
        let folder = Folder::handed_over(descriptor, dir.path.clone());
        let folder = folder.map_err(|error| cannot_read(&dir.path, &error))?;
        dir.folder.get_or_init(|| folder);
        Ok(dir)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder below which every namespace has its directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The directory, if it is there.
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

    /// The directory, which is created where it is not there.
    fn create(&self) -> Result<&Folder, Error> {
        let cannot = |error: io::Error| {
            let hint = format!("run as root, or point {OVERRIDE} to a writable folder");
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

    /// The directory for a write. The caller holds the lock, so it exists.
    fn existing(&self, name: &str) -> Result<&Folder, Error> {
        let absent = io::Error::from(io::ErrorKind::NotFound);
        self.folder()?.ok_or_else(|| cannot("write", &self.path.join(name), &absent))
    }

    /// Another descriptor of the directory, to be handed to another process. It is there once the lock was taken.
    ///
    /// # Errors
    /// When it is not there, or there are too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.folder.get().ok_or(io::ErrorKind::NotFound)?.share()
    }

    /// The lock that another process took, and handed to this one as an open file.
    ///
    /// # Errors
    /// `file` is not this directory's lock, or the lock is free.
    pub fn take_over(&self, file: File, description: &str) -> io::Result<Lock> {
        Lock::handed_over(self.folder.get().ok_or(io::ErrorKind::NotFound)?, file, description)
    }

    /// Creates the directory, for its owner alone, and takes the lock.
    ///
    /// # Errors
    /// When the directory cannot be written, or [`Kind::Locked`] when `timeout` passes.
    pub fn lock(&self, timeout: Duration, description: &str) -> Result<Lock, Error> {
        match Lock::acquire(self.create()?, timeout, description) {
            Ok(Ok(lock)) => Ok(lock),
            Ok(Err(holder)) => Err(held_by(Some(&holder), timeout)),
            Err(error) => Err(cannot("take the lock in", &self.path, &error)),
        }
    }

    /// The current holder of the lock, as far as it is known; `None` if it is free.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        Lock::holder(self.folder().ok()??)
    }

    /// The transaction that was begun and not ended, if any.
    ///
    /// # Errors
    /// When the journal is there and cannot be read or understood.
    pub fn open_journal(&self) -> Result<Option<Record>, Error> {
        self.read(JOURNAL)
    }

    /// Writes the journal and everything it needs to disk, before the first kernel write.
    ///
    /// # Errors
    /// When it cannot be written; nothing may be changed then.
    pub fn begin(&self, record: &Record) -> Result<(), Error> {
        self.end_wait()?;
        self.remove(FOREIGN)?;
        self.write(LAST_ID, &record.id)?;
        self.write(JOURNAL, record).inspect_err(|_| {
            // It may be there all the same, and would speak of a transaction that never began.
            self.discard(JOURNAL);
        })
    }

    /// Leaves the open transaction open, in force, until it is decided on.
    ///
    /// # Errors
    /// When it cannot be written; the transaction is an interrupted one then.
    pub fn hold(&self, pending: &Pending) -> Result<(), Error> {
        self.remove(OUTCOME)?;
        let made = self.existing(WAIT)?.create_subfolder(WAIT);
        made.map_err(|error| cannot("create", &self.path.join(WAIT), &error))?;
        for decision in Decision::ALL {
            self.write(&ballot(pending, decision), &decision)?;
        }
        self.write(PENDING, pending)
    }

    /// The open transaction, when it is in force and waits for its confirmation.
    ///
    /// # Errors
    /// As [`Self::open_journal`].
    pub fn pending(&self) -> Result<Option<(Record, Pending)>, Error> {
        // First what is small: this is asked for many times a second.
        let Some(pending) = self.read::<Pending>(PENDING)? else { return Ok(None) };
        let record = self.open_journal()?.filter(|record| record.id == pending.id);
        Ok(record.map(|record| (record, pending)))
    }

    /// A value that changes whenever a command begins or ends a transaction.
    ///
    /// # Errors
    /// When a file is there and cannot be read or understood.
    pub fn mark(&self) -> Result<Mark, Error> {
        let journal = self.folder()?.map(|folder| folder.open_file(JOURNAL, OFlags::RDONLY)).transpose();
        let journal = journal.map_err(|error| cannot_read(&self.path.join(JOURNAL), &error))?;
        let is_open = journal.flatten().is_some();
        let pending = self.read::<Pending>(PENDING)?.filter(|_| is_open);
        let last_id = self.folder()?.map(|folder| folder.read(LAST_ID)).transpose();
        let last_id = last_id.map_err(|error| cannot_read(&self.path.join(LAST_ID), &error))?.flatten();
        Ok(Mark { pending, is_open, history: self.history()?, last_id })
    }

    /// Decides on `pending`, unless somebody has, or that is over already. Returns whether this call did.
    /// The ballot is there since [`Self::hold`] and only gets another name: that takes no room on a disk that
    /// has filled up meanwhile, and the first one to do it wins.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn decide(&self, pending: &Pending, decision: Decision) -> Result<bool, Error> {
        let [from, to] = [ballot(pending, decision), decided(pending)];
        let renamed = self.existing(&to)?.rename_new(&from, &to);
        renamed.map_err(|error| cannot("decide by", &self.path.join(&to), &error))
    }

    /// What is decided on `pending`.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn decision(&self, pending: &Pending) -> Result<Option<Decision>, Error> {
        self.read(&decided(pending))
    }

    /// Records the outcome for waiting commands and, until the next apply, for `hostgw status`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell(&self, outcome: &Outcome) -> Result<(), Error> {
        self.write(OUTCOME, outcome)
    }

    /// How the last wait ended.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn outcome(&self) -> Result<Option<Outcome>, Error> {
        self.read(OUTCOME)
    }

    /// Nothing waits any more; a transaction that is still open is an interrupted one now.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn end_wait(&self) -> Result<(), Error> {
        self.remove(PENDING)?;
        self.clear_wait();
        Ok(())
    }

    /// Ends the open transaction as committed: the journal becomes the newest of the history.
    ///
    /// # Errors
    /// When the files cannot be moved.
    pub fn commit(&self, record: &Record) -> Result<(), Error> {
        self.rename(JOURNAL, &file_name(HISTORY, record.id))?;
        self.clear_wait();
        self.discard(OUTCOME);
        // Only now: what a transaction that fails would have pushed out is still there.
        self.prune(HISTORY, KEPT);
        self.prune(APPLIED, APPLIED_KEPT);
        Ok(())
    }

    /// Opens a committed transaction again, to undo it.
    ///
    /// # Errors
    /// When the files cannot be moved.
    pub fn reopen(&self, record: &Record) -> Result<(), Error> {
        self.end_wait()?;
        self.remove(OUTCOME)?;
        self.remove(FOREIGN)?;
        self.rename(&file_name(HISTORY, record.id), JOURNAL)
    }

    /// The foreign sysctl values that an undo of the open transaction found, and leaves.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn foreign(&self) -> Result<SysctlValues, Error> {
        Ok(self.read(FOREIGN)?.unwrap_or_default())
    }

    /// Keeps in mind which sysctl values an undo leaves, before it makes them look like its own.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_foreign(&self, foreign: &SysctlValues) -> Result<(), Error> {
        self.write(FOREIGN, foreign)
    }

    /// Ends the open transaction as undone.
    ///
    /// # Errors
    /// When the journal cannot be removed.
    pub fn forget(&self) -> Result<(), Error> {
        self.remove(JOURNAL)?;
        self.clear_wait();
        self.discard(FOREIGN);
        Ok(())
    }

    /// Forgets what the transaction `record` put in force; what an earlier one did is the last apply again.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_applied(&self, record: &Record) -> Result<(), Error> {
        self.remove(&file_name(APPLIED, record.id))
    }

    /// The numbers of the committed transactions, oldest first.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn history(&self) -> Result<Vec<u64>, Error> {
        self.numbers(HISTORY)
    }

    /// The committed transactions of this boot, newest first.
    ///
    /// # Errors
    /// As [`Self::open_journal`].
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let ids = self.history()?;
        let entries = ids.iter().rev().map(|id| self.numbered(HISTORY, *id, |entry: &Entry| entry.id));
        entries.filter_map(Result::transpose).collect()
    }

    /// The newest committed transaction of this boot.
    ///
    /// # Errors
    /// As [`Self::open_journal`].
    pub fn last_committed(&self) -> Result<Option<Record>, Error> {
        match self.history()?.last() {
            Some(id) => self.numbered(HISTORY, *id, |record: &Record| record.id),
            None => Ok(None),
        }
    }

    /// The number of the next transaction: one that no transaction of this boot had, not even one that was undone.
    ///
    /// # Errors
    /// As [`Self::history`]; and when there is no greater number.
    pub fn next_id(&self) -> Result<u64, Error> {
        let newest = self.history()?.last().copied().unwrap_or(0).max(self.read(LAST_ID)?.unwrap_or(0));
        newest.checked_add(1).ok_or_else(|| {
            Error::unexpected(format!("{} has no transaction number below 2^64", text::path(&self.path)))
                .with_hint(format!("check {LAST_ID} and {HISTORY}/{newest}.json there, then move them aside"))
        })
    }

    /// The original values of the sysctls hostgw has written; empty if it has written none.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn saved(&self) -> Result<OriginalSysctls, Error> {
        Ok(self.read(SAVED)?.unwrap_or_default())
    }

    /// Replaces the saved sysctl values.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_saved(&self, saved: &OriginalSysctls) -> Result<(), Error> {
        if saved.0.is_empty() { self.remove(SAVED) } else { self.write(SAVED, saved) }
    }

    /// What the last apply put in force.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn last_applied(&self) -> Result<Option<LastApplied>, Error> {
        match self.numbers(APPLIED)?.last() {
            Some(id) => self.numbered(APPLIED, *id, |last: &LastApplied| last.id),
            None => Ok(None),
        }
    }

    /// Adds what an apply put in force.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_last_applied(&self, last: &LastApplied) -> Result<(), Error> {
        self.write(&file_name(APPLIED, last.id), last)
    }

    /// The numbers of the files in a folder, in order.
    fn numbers(&self, folder: &str) -> Result<Vec<u64>, Error> {
        let Some(dir) = self.folder()? else { return Ok(Vec::new()) };
        let names = dir.names(folder).map_err(|error| cannot_read(&self.path.join(folder), &error))?;
        let number = |name: &String| name.strip_suffix(".json")?.parse().ok();
        let mut ids: Vec<u64> = names.iter().filter_map(number).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads a file of a folder, which must hold the number it is named by.
    fn numbered<T: DeserializeOwned>(
        &self,
        folder: &str,
        id: u64,
        number: impl Fn(&T) -> u64,
    ) -> Result<Option<T>, Error> {
        let name = file_name(folder, id);
        match self.read(&name)? {
            Some(content) if number(&content) != id => {
                Err(self.broken(&name, &format!("it is of transaction {}", number(&content))))
            }
            content => Ok(content),
        }
    }

    /// Removes what says nothing without its journal, and does no harm where it stays.
    fn clear_wait(&self) {
        let Ok(Some(folder)) = self.folder() else { return };
        for name in folder.names(WAIT).unwrap_or_default() {
            folder.discard(&format!("{WAIT}/{name}"));
        }
    }

    /// Removes all but the newest `kept` files of a folder. One too many is no reason to fail what is in
    /// force.
    fn prune(&self, folder: &str, kept: usize) {
        for id in self.numbers(folder).unwrap_or_default().iter().rev().skip(kept) {
            self.discard(&file_name(folder, *id));
        }
    }

    /// Reads a file of the directory; one of another boot or namespace is as good as absent.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(folder) = self.folder()? else { return Ok(None) };
        let bytes = folder.read(name).map_err(|error| cannot_read(&self.path.join(name), &error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let broken = |error: serde_json::Error| self.broken(name, &error.to_string());
        let head: Head = serde_json::from_slice(&bytes).map_err(broken)?;
        if head.boot_id != self.identity.boot_id || head.namespace != self.identity.namespace {
            return Ok(None);
        }
        if head.format != FORMAT {
            let why = format!("its format is {}, this version of hostgw reads {FORMAT}", head.format);
            return Err(self.broken(name, &why));
        }
        let envelope: Envelope<T> = serde_json::from_slice(&bytes).map_err(broken)?;
        Ok(Some(envelope.content))
    }

    fn broken(&self, name: &str, why: &str) -> Error {
        let path = self.path.join(name);
        Error::unexpected(format!("cannot read {}: {why}", text::path(&path))).with_hint(
            "truncated, or written by another version of hostgw; check its contents, then move it aside",
        )
    }

    fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        let replaced = self.existing(name)?.replace(name, &self.wrapped(content)?);
        replaced.map_err(|error| cannot("write", &self.path.join(name), &error))
    }

    fn wrapped<T: Serialize>(&self, content: &T) -> Result<Vec<u8>, Error> {
        let Identity { boot_id, namespace } = self.identity.clone();
        serde_json::to_vec(&Envelope { format: FORMAT, boot_id, namespace, content })
            .map_err(|error| Error::unexpected(format!("cannot write JSON: {error}")))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = self.existing(to)?.rename(from, to);
        renamed.map_err(|error| cannot("move the journal to", &self.path.join(to), &error))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(folder) = self.folder()? else { return Ok(()) };
        folder.remove(name).map_err(|error| cannot("remove", &self.path.join(name), &error))
    }

    /// Removes what does no harm where it stays.
    fn discard(&self, name: &str) {
        if let Ok(Some(folder)) = self.folder() {
            folder.discard(name);
        }
    }
}

/// The file that becomes [`decided`] when this is decided. A later wait has others, which a late decision on
/// this one does not reach.
fn ballot(Pending { deadline, .. }: &Pending, decision: Decision) -> String {
    format!("{WAIT}/{deadline}-{}.json", decision.name())
}

/// The file that holds what is decided.
fn decided(Pending { deadline, .. }: &Pending) -> String {
    format!("{WAIT}/{deadline}.json")
}

/// That `holder` did not let go of the lock in time.
pub fn held_by(holder: Option<&Holder>, timeout: Duration) -> Error {
    let waited = humantime::format_duration(timeout);
    let who = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
    let error = Error::new(Kind::Locked, format!("{who} holds the lock of this node; waited {waited}"));
    error.with_hint(match holder.and_then(Holder::stopped) {
        Some(process) => format!("it is stopped; run `kill -CONT {}` to resume it", process.as_raw_nonzero()),
        None => "wait for it to finish, or wait longer with --lock-timeout".to_owned(),
    })
}

/// A file of a folder, by the number of its transaction.
fn file_name(folder: &str, id: u64) -> String {
    format!("{folder}/{id:06}.json")
}

/// A file that exists but cannot be read. Without permission it counts as unknown, not as damaged.
fn cannot_read(path: &Path, error: &io::Error) -> Error {
    let cannot = cannot("read", path, error);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error { kind: Kind::Incomplete, ..cannot.with_hint("run as root") };
    }
    let hint = cannot.hint.clone().unwrap_or_else(|| format!("fix it, or point {OVERRIDE} elsewhere").into());
    cannot.with_hint(hint)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    if let Some(suspect) = Suspect::of(error) {
        return Error::unexpected(format!("cannot trust the records of this node: {suspect}"))
            .with_hint(remedy(suspect.remedy));
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
    Error::unexpected(format!("cannot {what} {}: {error}", text::path(path))).with_hint_if(hint)
}

fn remedy(remedy: Remedy) -> String {
    match remedy {
        Remedy::FixOwner => format!("fix its ownership, or point {OVERRIDE} elsewhere"),
        Remedy::FixMode => format!("run `chmod go-w` on it, or point {OVERRIDE} elsewhere"),
        Remedy::Replace => format!("replace it with a folder, or point {OVERRIDE} at the folder itself"),
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

    /// A directory that is removed with the test.
    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hostgw-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        pub fn dir(&self, boot: &str) -> StateDir {
            let identity = Identity { boot_id: boot.to_owned(), namespace: "net-1".to_owned() };
            StateDir::below(&self.0, identity)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub fn record(id: u64) -> Record {
        Record {
            id,
            occasion: TransactionMeta::new(Command::Apply, 0),
            totals: Totals::default(),
            touched: Touched::default(),
            before: State::default(),
            written: SysctlValues::new(),
            written_nat: crate::state::Tables::default(),
            saved_before: OriginalSysctls::default(),
        }
    }

    #[test]
    fn nothing_there_is_nothing_on_record() {
        let folder = Folder::new("nothing");
        let dir = folder.dir("boot");
        assert_eq!(dir.open_journal(), Ok(None));
        assert_eq!(dir.last_committed(), Ok(None));
        assert_eq!(dir.saved(), Ok(OriginalSysctls::default()));
        assert!(!folder.0.exists(), "reading creates nothing");
    }

    #[test]
    fn a_committed_transaction_moves_to_the_history_and_twenty_are_kept() {
        let folder = Folder::new("history");
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
    fn what_speaks_of_another_boot_is_set_aside() {
        let folder = Folder::new("boot");
        let before = folder.dir("before");
        let _lock = before.lock(Duration::ZERO, "test").expect("the lock");
        before.begin(&record(1)).expect("begun");
        let now = folder.dir("now");
        assert_eq!(now.open_journal(), Ok(None));
        assert_eq!(before.open_journal(), Ok(Some(record(1))));
    }

    #[test]
    fn a_cut_empty_or_newer_journal_is_an_error_that_says_so() {
        let folder = Folder::new("broken");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        dir.begin(&record(1)).expect("begun");
        let path = dir.path().join(JOURNAL);
        let whole = fs::read_to_string(&path).expect("readable");
        for (text, why) in [
            ("", "EOF while parsing"),
            (&whole[..whole.len() / 2], "EOF while parsing"),
            (
                &whole.replace("\"format\":2", "\"format\":3"),
                "its format is 3, this version of hostgw reads 2",
            ),
            (
                &whole.replace("\"format\":2", "\"format\":1"),
                "its format is 1, this version of hostgw reads 2",
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
    fn the_directory_is_its_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let mode = fs::metadata(dir.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_held_lock_is_waited_for_and_its_holder_named() {
        let folder = Folder::new("lock");
        let dir = folder.dir("boot");
        let held = dir.lock(Duration::ZERO, "apply, since noon").expect("the lock");
        let begun = Instant::now();
        let error = dir.lock(Duration::from_millis(200), "second").expect_err("held");
        assert!(begun.elapsed() >= Duration::from_millis(200));
        assert_eq!(error.kind, Kind::Locked);
        assert!(error.message.as_raw().contains("(apply, since noon) holds the lock"), "{error}");
        drop(held);
        dir.lock(Duration::ZERO, "third").expect("free again");
    }
}
