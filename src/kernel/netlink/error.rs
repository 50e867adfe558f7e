//! The kernel's errors, as netlink reports them.

use std::{fmt, io};

use rustix::io::Errno;

/// An error that the kernel returned for a request, or one that occurred while hostgw talked to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The error number.
    pub errno: Errno,
    /// The text of the kernel's extended acknowledgment, if any.
    pub text: Option<String>,
    /// The offset of the rejected attribute, in bytes from the start of the message.
    pub offset: Option<u32>,
    /// The type of the missing attribute.
    pub missing: Option<u32>,
}

impl KernelError {
    /// An error that hostgw detected, with a text of its own.
    pub(super) fn with_text(errno: Errno, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::from(errno) }
    }

    /// Every attempt to read a reply failed: parts were lost, or the objects kept changing.
    pub(super) fn inconsistent(errno: Errno) -> Self {
        Self::with_text(
            errno,
            match errno {
                Errno::NOBUFS => "the kernel's reply did not fit in the socket buffer",
                _ => "they changed during every attempt",
            },
        )
    }

    /// Returns the remedy for a reply that could not be read consistently.
    #[must_use]
    pub const fn inconsistent_hint(&self) -> Option<&'static str> {
        match self.errno {
            Errno::INTR => Some("another program keeps changing them; try again later"),
            Errno::NOBUFS => Some(
                "run as root, or raise the limit, for example with `sysctl -w net.core.rmem_default=4194304`",
            ),
            _ => None,
        }
    }

    pub(super) fn malformed() -> Self {
        Self::with_text(Errno::BADMSG, "the kernel's reply is malformed")
    }
}

impl From<Errno> for KernelError {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None, offset: None, missing: None }
    }
}

impl From<Malformed> for KernelError {
    fn from(_: Malformed) -> Self {
        Self::malformed()
    }
}

impl std::error::Error for KernelError {}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.text, name_of(self.errno)) {
            (Some(text), Some(name)) => write!(f, "{text} ({name})"),
            (Some(text), None) => write!(f, "{text} ({})", Named(self.errno)),
            (None, _) => Named(self.errno).fmt(f),
        }
    }
}

/// Prints an error number as `No such device (ENODEV)`.
struct Named(Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from(self.0).to_string();
        let Some(name) = name_of(self.0) else { return f.write_str(&text) };
        // The name replaces the number.
        let words = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
        write!(f, "{words} ({name})")
    }
}

/// Returns the name of an error number, such as `ENODEV`.
fn name_of(errno: Errno) -> Option<&'static str> {
    ERRNO_NAMES.iter().find(|(known, _)| *known == errno).map(|(_, name)| *name)
}

/// The names of the errors that netlink returns.
const ERRNO_NAMES: [(Errno, &str); 32] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::SRCH, "ESRCH"),
    (Errno::INTR, "EINTR"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NODEV, "ENODEV"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::RANGE, "ERANGE"),
    (Errno::LOOP, "ELOOP"),
    (Errno::BADMSG, "EBADMSG"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    (Errno::MSGSIZE, "EMSGSIZE"),
    (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
];

/// Bytes that are not in netlink format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;
