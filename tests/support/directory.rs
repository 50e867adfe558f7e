//! State directories of nodes in memory.

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

/// A fresh state directory that goes with the test.
pub struct Directory(pub StateDir, PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory, where there is such a place: on a disk most of the time would go into waiting for it.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { env::temp_dir() };
        let path = place.join(format!("hostgw-properties-{}-{number}", std::process::id()));
        let identity = Identity { boot_id: "boot".to_owned(), namespace: "net-1".to_owned() };
        Self(StateDir::new_in(&path, identity), path)
    }
}

impl Directory {
    /// The folder itself, made where it is not there yet.
    pub fn path(&self) -> &Path {
        fs::create_dir_all(&self.1).expect("a folder");
        &self.1
    }

    /// Takes the lock. A child that another test starts just now holds it too, until it is a program of its
    /// own.
    pub fn lock(&self) -> Result<Lock, Error> {
        self.0.lock(Duration::from_secs(10), "test")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.1);
    }
}
