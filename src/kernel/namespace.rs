//! Network namespaces that go with the process: made on a thread, held by a file descriptor.
//!
//! The kernel drops a namespace with the last descriptor and the last process in it, so whatever ends this
//! process, nothing is left behind.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ffi;

/// A network namespace of this process's own.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new, empty network namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN in the user namespace of the process.
    pub fn new() -> io::Result<Self> {
        on_a_thread(|| {
            ffi::unshare_network()?;
            Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
        })
    }

    /// Runs `work` on a thread inside the namespace: sockets it opens belong to the namespace for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and those of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        })
    }

    /// The descriptor that holds it.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A thread's namespace ends with the thread, so whatever moves a thread moves one that nobody else uses.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended early")))
    })
}

/// Gives an ordinary user leave to make network namespaces: moves the process, which must have one thread
/// only, into a user namespace of its own in which it is root. Does nothing for who has leave already.
///
/// # Errors
/// Where the system forbids ordinary users to make user namespaces.
pub fn become_root_of_own_user_namespace() -> io::Result<()> {
    if Namespace::new().is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    ffi::unshare_user()?;
    // An ordinary user may map groups only where setgroups is given up (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw()))?;
    // Ubuntu lets anybody make a user namespace, and gives no rights in it.
    Namespace::new().map(drop)
}
