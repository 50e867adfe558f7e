//! One change of a namespace at a time: an advisory lock that the kernel drops with its holder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    time::{Duration, Instant},
};

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let deadline = Instant::now() + timeout;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Ok(Err(LockHeld { holder: holder(&mut file) })),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {} ({description})", std::process::id())?;
        Ok(Ok(Self { _file: file }))
    }
}

impl Lock {
    /// Who holds the lock at `path` now; `None` when nobody does, or when it cannot be told.
    #[must_use]
    pub fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                Some(holder(&mut file).unwrap_or_else(|| "another process".to_owned()))
            }
            _ => None,
        }
    }
}

fn holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
