//! One change of a namespace at a time: an advisory lock that the kernel drops with its holder.

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

/// The name of its file.
const LOCK: &str = "lock";

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// The holder of the lock, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What it wrote about itself: process id and start, as in `process 4711 (apply, since 12:00:00)`.
    description: String,
    /// The process, when it is one that has the lock open.
    process: Option<Pid>,
    is_stopped: bool,
}

impl Lock {
    /// Takes the lock of `folder`, waiting for at most `timeout`. `description` is what others are told who
    /// wait for it.
    ///
    /// # Errors
    /// The outer error when the file cannot be opened or written; the holder when the time is over.
    pub(super) fn acquire(
        folder: &Folder,
        timeout: Duration,
        description: &str,
    ) -> io::Result<Result<Self, Holder>> {
        let file = folder.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?.ok_or(io::ErrorKind::NotFound)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < timeout => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Ok(Err(Holder::of(&file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Self::described(file, description).map(Ok)
    }

    /// The same lock once more, to be handed to another process. The lock is free when both are dropped.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The lock of `folder` that another process took and handed over as `file`.
    ///
    /// # Errors
    /// When `file` is not that lock, or does not hold it.
    pub(super) fn handed_over(folder: &Folder, file: File, description: &str) -> io::Result<Self> {
        let there = folder.open_file(LOCK, OFlags::RDONLY)?.ok_or(io::ErrorKind::NotFound)?;
        // Locking again what is locked by the same open file succeeds, and by another one does not.
        if !is_same(&there.metadata()?, &file.metadata()?)
            || Self::holder(folder).is_none()
            || file.try_lock().is_err()
        {
            return Err(io::Error::other("not a held lock"));
        }
        Self::described(file, description)
    }

    /// Writes who holds it, in one go: whoever reads the first line meanwhile sees the old one or the new.
    fn described(mut file: File, description: &str) -> io::Result<Self> {
        let line = format!("process {} ({description})\n", std::process::id());
        file.rewind()?;
        file.write_all(line.as_bytes())?;
        file.set_len(line.len().try_into().unwrap_or(u64::MAX))?;
        Ok(Self { file })
    }

    /// Writes what its holder does now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn describe(&mut self, description: &str) -> io::Result<()> {
        *self = Self::described(self.share()?, description)?;
        Ok(())
    }

    /// The current holder of the lock of `folder`; `None` if it is free or the holder is unknown.
    pub(super) fn holder(folder: &Folder) -> Option<Holder> {
        let file = folder.open_file(LOCK, OFlags::RDONLY).ok()??;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(Holder::of(&file)),
            _ => None,
        }
    }
}

impl Holder {
    fn of(file: &File) -> Self {
        let description = first_line(file).unwrap_or_else(|| "another process".to_owned());
        let number = description.strip_prefix("process ").and_then(|rest| rest.split_once(' '));
        let process = number.and_then(|(number, _)| Pid::from_raw(number.parse().ok()?));
        let process = process.filter(|process| has_open(*process, file));
        Self { description, process, is_stopped: process.is_some_and(is_stopped) }
    }

    /// The process, when it is stopped, as by Ctrl-Z: it neither works nor lets go of the lock.
    #[must_use]
    pub fn stopped(&self) -> Option<Pid> {
        self.process.filter(|_| self.is_stopped)
    }

    /// Lets a stopped process go on. Returns whether that was tried.
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

/// Whether `process` is stopped, as by Ctrl-Z or a debugger (`T`, `t` in proc_pid_stat(5)).
#[must_use]
pub fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // The program's name is in parentheses and can contain anything.
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't'])))
}

/// Whether `process` has `file` open: the number in the lock can be one of another process by now, or one of
/// another process namespace.
fn has_open(process: Pid, file: &File) -> bool {
    let Ok(own) = file.metadata() else { return false };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero()));
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::metadata(entry.path()).is_ok_and(|other| is_same(&own, &other)))
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn first_line(mut file: &File) -> Option<String> {
    /// More than any description has.
    const LONGEST: u64 = 4096;
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
