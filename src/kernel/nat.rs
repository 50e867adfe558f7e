//! The nftables tables named `hostgw`: read by meaning, replaced as a whole.
//!
//! Nothing else of nftables is ever written, and of other tables no rule is even read.

pub(super) mod abi;
mod decode;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::{
    fmt, io, thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::netlink::KernelError;
use crate::{apply::Interrupt, model::Family, state::NatTable};

pub use read::observe;
pub use write::replace;

/// NAT could not be read or written.
#[derive(Debug)]
pub enum Error {
    /// There is no netlink socket to be had.
    Open(io::Error),
    /// The kernel refused to tell something.
    Read {
        /// What was asked for, in the words of nft ("chains of ip").
        what: String,
        /// The kernel's answer.
        error: KernelError,
    },
    /// The kernel does not tell the generation of the ruleset, the first thing that is asked of it.
    Generation(KernelError),
    /// Other programs change nftables faster than it can be read, or replaced as it was read. Nothing was changed.
    Unsteady,
    /// Another program changed the table of this family after the plan was made. Nothing was changed.
    Overtaken(Family),
    /// A signal came before anything was changed.
    Interrupted,
    /// A table cannot be put into words that the kernel understands; nothing was sent.
    Unwritable {
        /// The object, in the words of `nft add`.
        object: String,
        /// Why, as a sentence fragment.
        why: String,
    },
    /// The kernel refused the batch; nothing of it is in force.
    Refused {
        /// The object that it refused, in the words of `nft add`; `None`: the batch as a whole.
        object: Option<String>,
        /// The kernel's answer.
        error: KernelError,
    },
    /// The batch could not be sent, or the kernel's answer not be read: look before concluding anything.
    Unheard(KernelError),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { error, .. } => error.torn_hint(),
            Self::Generation(error) => error.torn_hint().or_else(|| read::remedy(error.errno)),
            Self::Unsteady => {
                Some("find out what rewrites nftables without pause (nft monitor), then try again")
            }
            Self::Overtaken(_) => Some("run the command again to plan against the table as it is now"),
            Self::Open(error) if error.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error()) => {
                Some(LOAD_NF_TABLES)
            }
            Self::Refused { object: None, error } | Self::Unheard(error) => match error.errno {
                Errno::MSGSIZE => Some("the rules do not fit one netlink message: raise net.core.wmem_max"),
                Errno::PERM => Some(BECOME_ROOT),
                // nfnetlink's answer for a subsystem that it does not have.
                Errno::OPNOTSUPP => Some(LOAD_NF_TABLES),
                _ => None,
            },
            Self::Refused { object: Some(_), error } => match error.errno {
                // `nft_table_lookup` (nf_tables_api.c): the only EPERM of a single object.
                Errno::PERM => Some("another program owns this table (flags owner): stop it first"),
                Errno::NOENT => Some(
                    "what it refers to is missing, or a kernel module: \
                     nft_chain_nat, nft_masq, nft_fib_ipv4 or nft_fib_ipv6",
                ),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The hint where CAP_NET_ADMIN is missing.
const BECOME_ROOT: &str = "run as root, or with CAP_NET_ADMIN";
/// The hint where the kernel does not know nftables.
const LOAD_NF_TABLES: &str = "modprobe nf_tables";

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Read { error, .. }
            | Self::Generation(error)
            | Self::Refused { error, .. }
            | Self::Unheard(error) => Some(error),
            Self::Unsteady | Self::Overtaken(_) | Self::Interrupted | Self::Unwritable { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "failed to open a netlink socket for nftables: {error}"),
            Self::Read { what, error } => write!(f, "failed to read the {what}: {error}"),
            Self::Generation(error) => write!(f, "failed to read the generation of nftables: {error}"),
            Self::Unsteady => {
                let time = Patience::LIMIT.as_secs();
                write!(f, "no consistent view of nftables: the ruleset kept changing for {time} s")
            }
            Self::Overtaken(family) => write!(
                f,
                "another program changed table {} {} after the plan was made",
                family.nft(),
                NatTable::NAME
            ),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Unwritable { object, why } => write!(f, "cannot write {object}: {why}"),
            Self::Refused { object: Some(object), error } => {
                write!(f, "the kernel refused {object}: {error}")
            }
            Self::Refused { object: None, error } => write!(f, "the kernel refused the NAT batch: {error}"),
            Self::Unheard(error) => write!(f, "failed to hand the NAT batch to the kernel: {error}"),
        }
    }
}

/// How long to try again while other programs change nftables. Every change of any table counts, so a firewall or
/// kube-proxy at work makes a few attempts fail, never all of them for so long.
struct Patience<'a> {
    since: Instant,
    attempts: u32,
    interrupt: Option<&'a Interrupt>,
}

impl<'a> Patience<'a> {
    const LIMIT: Duration = Duration::from_secs(10);
    /// However slow the machine is.
    const MIN_ATTEMPTS: u32 = 50;
    /// Steps out of the rhythm of whatever changes nftables.
    const PAUSE: Duration = Duration::from_millis(1);

    fn new() -> Self {
        Self { since: Instant::now(), attempts: 0, interrupt: None }
    }

    fn until(interrupt: &'a Interrupt) -> Self {
        Self { interrupt: Some(interrupt), ..Self::new() }
    }

    /// Counts an attempt that failed, and waits for a moment before the next.
    ///
    /// # Errors
    ///
    /// [`Error::Unsteady`] at the end of its patience, [`Error::Interrupted`] when a signal came.
    fn again(&mut self) -> Result<(), Error> {
        self.attempts += 1;
        if self.interrupt.is_some_and(Interrupt::is_raised) {
            return Err(Error::Interrupted);
        }
        if self.attempts >= Self::MIN_ATTEMPTS && self.since.elapsed() >= Self::LIMIT {
            return Err(Error::Unsteady);
        }
        thread::sleep(Self::PAUSE);
        Ok(())
    }
}
