//! Checks whether a TCP port accepts connections.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, getpeername, getsockname, socket_with, sockopt},
};

use super::{AttemptStatus, cannot_run};
use crate::{error::Error, fault, text::OsError};

/// A connection attempt in progress.
pub(super) struct Connecting {
    socket: OwnedFd,
}

impl Connecting {
    /// Starts connecting to `address`.
    ///
    /// # Errors
    /// Returns an error if no socket can be created.
    pub(super) fn start(address: SocketAddr) -> Result<(Self, AttemptStatus), Error> {
        let failed = |errno: Errno| cannot_run(&errno.into());
        fault::point().map_err(failed)?;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
        let progress = match connect(&socket, &address) {
            Ok(()) => connected(&socket),
            Err(Errno::INPROGRESS | Errno::INTR) => AttemptStatus::Waiting,
            Err(errno) => AttemptStatus::Failed(describe(errno)),
        };
        Ok((Self { socket }, progress))
    }

    /// Checks the connection again.
    ///
    /// # Errors
    /// Returns an error if the socket cannot be queried.
    pub(super) fn advance(&self) -> Result<AttemptStatus, Error> {
        let failed = |errno: Errno| cannot_run(&errno.into());
        let mut watched = [PollFd::new(&self.socket, PollFlags::OUT)];
        match poll(&mut watched, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => return Ok(AttemptStatus::Waiting),
            Ok(_) => {}
            Err(errno) => return Err(failed(errno)),
        }
        Ok(match sockopt::socket_error(&self.socket).map_err(failed)? {
            Ok(()) => connected(&self.socket),
            Err(errno) => AttemptStatus::Failed(describe(errno)),
        })
    }

    /// The descriptor that becomes writable when the attempt ends.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The result of an established connection. A socket that connects to a local port without a listener may connect to
/// itself, if the kernel happens to assign it that very port (simultaneous open, RFC 9293, section 3.5).
fn connected(socket: &OwnedFd) -> AttemptStatus {
    let is_self_connected = getsockname(socket).ok().is_some_and(|own| getpeername(socket) == Ok(Some(own)));
    if is_self_connected {
        AttemptStatus::Failed(describe(Errno::CONNREFUSED))
    } else {
        AttemptStatus::Passed
    }
}

/// Describes an error as a sentence fragment, such as "connection refused".
fn describe(errno: Errno) -> String {
    let error = io::Error::from(errno);
    match error.kind() {
        // Errors that the standard library does not name.
        io::ErrorKind::Other => OsError(&error).to_string(),
        kind => {
            let kind = kind.to_string();
            if kind.starts_with("uncategorized") { OsError(&error).to_string() } else { kind }
        }
    }
}
