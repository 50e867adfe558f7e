//! State directories in memory.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hostgw::{
    apply::{Identity, Lock, StateDir},
    error::Error,
};

/// A new state directory that is removed at the end of the test.
pub struct Directory(pub StateDir, PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory if possible: on a disk, most of the time would be spent on flushing.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { env::temp_dir() };
        let path = place.join(format!("hostgw-properties-{}-{number}", std::process::id()));
        let identity = Identity { boot_id: "boot".to_owned(), namespace: "net-1".to_owned() };
        Self(StateDir::new_in(&path, identity), path)
    }
}

impl Directory {
    /// The folder, which is created if it does not exist.
    pub fn path(&self) -> &Path {
        fs::create_dir_all(&self.1).expect("a folder");
        &self.1
    }

    /// Takes the lock. A child process that another test is starting shares the lock until it executes its program.
    pub fn lock(&self) -> Result<Lock, Error> {
        self.0.lock(Duration::from_secs(10), "test")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.1);
    }
}
