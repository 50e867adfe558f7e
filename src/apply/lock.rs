//! One change of a namespace at a time: an advisory lock that the kernel drops with its holder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Somebody else holds the lock; what they wrote about themselves, when it can be read.
#[derive(Debug)]
pub struct LockHeld {
    /// Process id and start, as in `process 4711 (apply, since 12:00:00)`.
    pub holder: Option<String>,
}

impl Lock {
    /// Takes the lock at `path`, waiting for at most `timeout`. `description` is what others are told who
    /// wait for it.
    ///
    /// # Errors
    /// The outer error when the file cannot be opened or written; [`LockHeld`] when the time is over.
    pub fn acquire(path: &Path, timeout: Duration, description: &str) -> io::Result<Result<Self, LockHeld>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let deadline = Instant::now() + timeout;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Ok(Err(LockHeld { holder: holder(&file) })),
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

    /// The lock at `path` that another process took and handed over as `file`.
    ///
    /// # Errors
    /// When `file` is not that lock, or does not hold it.
    pub(super) fn handed_over(path: &Path, file: File, description: &str) -> io::Result<Self> {
        let (there, here) = (fs::metadata(path)?, file.metadata()?);
        let is_this = (there.dev(), there.ino()) == (here.dev(), here.ino());
        // Locking again what is locked by the same open file succeeds, and by another one does not.
        if !is_this || Self::holder(path).is_none() || file.try_lock().is_err() {
            return Err(io::Error::other("that is not a lock that is held"));
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

    /// Who holds the lock at `path` now; `None` when nobody does, or when it cannot be told.
    #[must_use]
    pub fn holder(path: &Path) -> Option<String> {
        let file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                Some(holder(&file).unwrap_or_else(|| "another process".to_owned()))
            }
            _ => None,
        }
    }
}

fn holder(mut file: &File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
