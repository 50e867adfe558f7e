//! A TCP connection, tried.

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

use super::{Progress, untried};
use crate::{error::Error, fault};

/// A connection under way.
pub(super) struct Connecting {
    socket: OwnedFd,
}

impl Connecting {
    /// Begins to connect to `address`.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(super) fn begin(address: SocketAddr) -> Result<(Self, Progress), Error> {
        let failed = |errno: Errno| untried(&errno.into());
        fault::point().map_err(failed)?;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
        let progress = match connect(&socket, &address) {
            Ok(()) => connected(&socket),
            Err(Errno::INPROGRESS | Errno::INTR) => Progress::Waiting,
            Err(errno) => Progress::Failed(words(errno)),
        };
        Ok((Self { socket }, progress))
    }

    /// How far it is now.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn go_on(&self) -> Result<Progress, Error> {
        let failed = |errno: Errno| untried(&errno.into());
        let mut watched = [PollFd::new(&self.socket, PollFlags::OUT)];
        match poll(&mut watched, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => return Ok(Progress::Waiting),
            Ok(_) => {}
            Err(errno) => return Err(failed(errno)),
        }
        Ok(match sockopt::socket_error(&self.socket).map_err(failed)? {
            Ok(()) => connected(&self.socket),
            Err(errno) => Progress::Failed(words(errno)),
        })
    }

    /// What becomes writable when there is something to see.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that asks a port of its own machine where nobody listens may meet itself, when the kernel happens
/// to give it that very port (simultaneous open, RFC 9293, section 3.5).
fn connected(socket: &OwnedFd) -> Progress {
    let met_itself = getsockname(socket).ok().is_some_and(|own| getpeername(socket) == Ok(Some(own)));
    if met_itself { Progress::Failed(words(Errno::CONNREFUSED)) } else { Progress::Passed }
}

/// Why there is no connection, as a fragment: "connection refused".
fn words(errno: Errno) -> String {
    let error = io::Error::from(errno);
    match error.kind() {
        // What the standard library has no word for.
        io::ErrorKind::Other => error.to_string(),
        kind => {
            let kind = kind.to_string();
            if kind.starts_with("uncategorized") { error.to_string() } else { kind }
        }
    }
}
