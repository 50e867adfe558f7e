//! What must answer before and after a change.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A probe of the configuration. An apply tries it before and after the change: what answered before and does
/// not answer any more is a reason to roll back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// What is tried.
    pub target: CheckTarget,
    /// How long one try before the change may take, and how long it is tried again after the change.
    pub timeout: Duration,
}

/// What a check tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckTarget {
    /// `tcp`: a TCP connection to this address and port is accepted.
    Tcp(SocketAddr),
    /// `neighbour`: this address answers on its link (ARP, or neighbour discovery).
    Neighbor(IpAddr),
}

impl Check {
    /// The timeout of a check that names none.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The longest timeout: an apply holds the lock, and whoever ran it waits.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(300);
    /// So many checks a file may have.
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
            Self::Neighbor(address) => write!(f, "neighbour {address}"),
        }
    }
}
