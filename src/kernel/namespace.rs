//! Network namespaces that end with the process: created on a thread and held by a file descriptor.
//!
//! The kernel destroys a namespace when its last descriptor is closed and its last process has exited. However this
//! process ends, it leaves nothing behind.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ffi;
use crate::error::Error;
use crate::text::OsError;

/// An anonymous network namespace, held open by a file descriptor.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Creates an empty network namespace.
    ///
    /// # Errors
    /// Returns `EPERM` without CAP_SYS_ADMIN in the process's user namespace.
    pub fn new() -> io::Result<Self> {
        on_a_thread(|| {
            ffi::unshare_network()?;
            Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
        })
    }

    /// Runs `work` on a thread inside the namespace. Sockets that it opens stay in the namespace.
    ///
    /// # Errors
    /// Returns an error if the namespace cannot be entered, or the error of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        })
    }

    /// Returns the descriptor that keeps the namespace alive.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Returns the error for a namespace that could not be created. If a limit is reached, the kernel's own words would be those for a
/// full disk.
#[must_use]
pub fn cannot_create_namespace(error: &io::Error) -> Error {
    let cannot = "cannot create a network namespace";
    match error.kind() {
        io::ErrorKind::StorageFull => Error::unexpected(format!(
            "{cannot}: a limit is reached (user.max_user_namespaces or user.max_net_namespaces)"
        ))
        .with_hint(
            "run hostgw as root, or raise the limits as root: `sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000`",
        ),
        _ => Error::unexpected(format!("{cannot}: {}", OsError(error))),
    }
}

/// Runs `work` in a namespace.
///
/// # Errors
/// Returns an error if the namespace cannot be entered, or if `work` returns one.
pub fn inside<T: Send>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    namespace.enter(|| Ok(work())).map_err(|error| {
        Error::unexpected(format!("cannot enter a network namespace: {}", OsError(&error)))
    })?
}

/// Runs `work` on a thread of its own, so that a change of namespace does not affect the caller.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Creates a user namespace. The kernel only does so for a single thread, and counts a joined thread until it has removed it, which
/// takes longer on a busy machine.
fn unshare_user_when_alone() -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match ffi::unshare_user() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Lets an unprivileged user create network namespaces: moves the process, which must be single-threaded, into a new
/// user namespace in which it is root. Does nothing if the process can create them already.
///
/// # Errors
/// Returns an error if the system forbids unprivileged user namespaces.
pub fn become_root_of_own_user_namespace() -> io::Result<()> {
    if Namespace::new().is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    unshare_user_when_alone()?;
    // An unprivileged process may map groups only after disabling setgroups (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw()))?;
    // Ubuntu allows creating a user namespace, but withholds capabilities inside it.
    Namespace::new().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that has ended is waited for, but not one that goes on.
    #[test]
    fn a_user_namespace_waits_for_threads_that_end() {
        let start = Instant::now();
        let error = on_a_thread(unshare_user_when_alone).expect_err("this thread goes on");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}
