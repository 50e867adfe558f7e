//! The lock of a network namespace. It is advisory, and the kernel releases it when its holder exits.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::folder::Folder;

/// The name of the lock file of the commands that change the node.
pub(super) const LOCK_FILE: &str = "lock";

/// How often to retry while the lock is held.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped or the process exits.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// The holder of the lock, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The description that the holder wrote to the file, such as `process 4711 (apply, since 12:00:00)`.
    description: String,
    /// The holder's process, if it is still the one that has the lock file open.
    process: Option<Pid>,
    is_stopped: bool,
}

impl Lock {
    /// Takes the lock `name` in `folder`, waiting at most `timeout`. Other commands show `description` while they wait for
    /// it.
    ///
    /// # Errors
    /// Returns the outer error if the file cannot be opened or written, and the holder if the timeout expires.
    pub(super) fn acquire(
        folder: &Folder,
        name: &str,
        timeout: Duration,
        description: &str,
    ) -> io::Result<Result<Self, Holder>> {
        let file = folder.open_file(name, OFlags::RDWR | OFlags::CREATE)?.ok_or(io::ErrorKind::NotFound)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < timeout => {
                    std::thread::sleep(RETRY_INTERVAL)
                }
                Err(TryLockError::WouldBlock) => return Ok(Err(Holder::of(&file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Self::write_description(file, description).map(Ok)
    }

    /// Duplicates the lock's descriptor, to pass it to another process. The lock is released once both are closed.
    ///
    /// # Errors
    /// Returns an error if too many files are open.
    pub fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Takes over the lock of `folder` from another process, which passed its descriptor as `file`.
    ///
    /// # Errors
    /// Returns an error if `file` is not the lock file or does not hold the lock.
    pub(super) fn inherit(folder: &Folder, file: File, description: &str) -> io::Result<Self> {
        let lock_file = folder.open_file(LOCK_FILE, OFlags::RDONLY)?.ok_or(io::ErrorKind::NotFound)?;
        // Locking succeeds again only through the open file description that holds the lock.
        if !is_same(&lock_file.metadata()?, &file.metadata()?)
            || Self::holder(folder, LOCK_FILE).is_none()
            || file.try_lock().is_err()
        {
            return Err(io::Error::other("not a held lock"));
        }
        Self::write_description(file, description)
    }

    /// Writes the holder's description in one write, so a concurrent reader sees either the old or the new line.
    fn write_description(mut file: File, description: &str) -> io::Result<Self> {
        let line = format!("process {} ({description})\n", std::process::id());
        file.rewind()?;
        file.write_all(line.as_bytes())?;
        file.set_len(line.len().try_into().unwrap_or(u64::MAX))?;
        Ok(Self { file })
    }

    /// Updates the holder's description.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn describe(&mut self, description: &str) -> io::Result<()> {
        *self = Self::write_description(self.duplicate()?, description)?;
        Ok(())
    }

    /// Returns the holder of the lock `name` in `folder`, or `None` if the lock is free or the holder is unknown.
    pub(super) fn holder(folder: &Folder, name: &str) -> Option<Holder> {
        let file = folder.open_file(name, OFlags::RDONLY).ok()??;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(Holder::of(&file)),
            _ => None,
        }
    }
}

impl Holder {
    fn of(file: &File) -> Self {
        let description = first_line(file).unwrap_or_else(|| "another process".to_owned());
        let pid = description.strip_prefix("process ").and_then(|rest| rest.split_once(' '));
        let process = pid.and_then(|(pid, _)| Pid::from_raw(pid.parse().ok()?));
        let process = process.filter(|process| has_open(*process, file));
        Self { description, process, is_stopped: process.is_some_and(is_stopped) }
    }

    /// The process, if it is stopped (Ctrl-Z): it holds the lock without making progress.
    #[must_use]
    pub fn stopped(&self) -> Option<Pid> {
        self.process.filter(|_| self.is_stopped)
    }

    /// Resumes a stopped process. Returns `true` if the signal was sent.
    #[must_use]
    pub fn resume(&self) -> bool {
        let Some(process) = self.stopped() else { return false };
        pidfd_open(process, PidfdFlags::empty())
            .and_then(|process| pidfd_send_signal(process, Signal::CONT))
            .is_ok()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = if self.is_stopped { ", stopped" } else { "" };
        write!(f, "{}{stopped}", self.description)
    }
}

/// Returns `true` if `process` is stopped by a signal or a debugger (`T` or `t` in proc_pid_stat(5)).
#[must_use]
pub fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // The program's name is in parentheses and can contain anything.
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't'])))
}

/// Returns `true` if `process` has `file` open. The process ID in the lock file may have been reused, or may belong to
/// another PID namespace.
fn has_open(process: Pid, file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero()));
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::metadata(entry.path()).is_ok_and(|other| is_same(&metadata, &other)))
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn first_line(mut file: &File) -> Option<String> {
    /// Longer than any description.
    const MAX_LENGTH: u64 = 4096;
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(MAX_LENGTH).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
