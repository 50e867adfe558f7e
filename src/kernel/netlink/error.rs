//! The kernel's errors, as netlink reports them.

use std::{fmt, io};

use rustix::io::Errno;

use crate::text::{OsError, errno_name};

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
                "run hostgw as root, or raise the limit as root, for example with `sysctl -w net.core.rmem_default=4194304`",
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
        let error = io::Error::from(self.errno);
        match (&self.text, errno_name(self.errno.raw_os_error())) {
            (Some(text), Some(name)) => write!(f, "{text} ({name})"),
            (Some(text), None) => write!(f, "{text} ({})", OsError(&error)),
            (None, _) => OsError(&error).fmt(f),
        }
    }
}

/// Bytes that are not in netlink format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;
