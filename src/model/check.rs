//! Connectivity checks around a change.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A connectivity check. An apply runs it before and after the change. If it passed before and fails after, the change
/// is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The target.
    pub target: CheckTarget,
    /// How long a single attempt before the change may take, and how long attempts are repeated after it.
    pub timeout: Duration,
}

/// The target of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckTarget {
    /// `tcp`: accepts TCP connections at this address and port.
    Tcp(SocketAddr),
    /// `neighbor`: answers ARP or neighbor discovery for this address on its link.
    Neighbor(IpAddr),
}

impl Check {
    /// The default timeout.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The maximum timeout. The apply holds the lock and the user waits meanwhile.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(300);
    /// The maximum number of checks in a configuration.
    pub const MAX_COUNT: usize = 100;
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl fmt::Display for CheckTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Neighbor(address) => write!(f, "neighbor {address}"),
        }
    }
}
