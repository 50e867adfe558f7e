//! Reads and replaces the nftables tables named `hostgw`.
//!
//! On the node, hostgw writes no other nftables object. It reads the chains of other tables to find out what they do with
//! the packets of pods, and whole tables to copy them to another namespace.

pub(super) mod abi;
mod chains;
mod compat;
mod decode;
mod extensions;
mod key;
mod limits;
mod read;
mod ruleset;
mod terms;
#[cfg(test)]
mod tests;
mod trace;
mod write;

use std::{
    fmt, io, thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::netlink::KernelError;
use crate::{apply::Interrupt, model::Family, state::NatTable, text::OsError};

pub(in crate::kernel) use chains::LEGACY;
pub use chains::firewall;
pub use read::observe;
pub use ruleset::{CopiedRules, Ruleset};
pub use trace::{FirewallTrace, PacketFate, TracedVerdict};
pub use write::replace;

/// The reason that NAT could not be read or written.
#[derive(Debug)]
pub enum NatError {
    /// A netlink socket could not be opened.
    Open(io::Error),
    /// A dump failed.
    Read {
        /// The requested objects, in nft terms ("chains of ip").
        what: String,
        /// The kernel's answer.
        error: KernelError,
    },
    /// The generation of the ruleset, the first object hostgw requests, could not be read.
    Generation(KernelError),
    /// Other programs change nftables too fast to read it consistently, or to replace the table. Nothing was changed.
    Unsteady,
    /// Another program changed this family's table after the plan was created. Nothing was changed.
    Overtaken(Family),
    /// A signal arrived before anything was changed.
    Interrupted,
    /// An object cannot be encoded. Nothing was sent.
    Unwritable {
        /// The object, in `nft add` syntax.
        object: String,
        /// The reason, as a sentence fragment.
        why: String,
    },
    /// The kernel rejected the batch. None of it took effect.
    Refused {
        /// The rejected object, in `nft add` syntax, or `None` for the batch as a whole.
        object: Option<String>,
        /// The kernel's answer.
        error: KernelError,
    },
    /// The batch could not be sent, or the kernel's reply could not be read: it is unknown whether the batch took
    /// effect.
    Unheard(KernelError),
}

impl NatError {
    /// Returns the remedy, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { error, .. } => error.inconsistent_hint(),
            Self::Generation(error) => {
                error.inconsistent_hint().or_else(|| read::unavailable_hint(error.errno))
            }
            Self::Unsteady => {
                Some("find the program that keeps changing nftables with `nft monitor`, then try again")
            }
            Self::Overtaken(_) => Some("run the command again to plan against the current table"),
            Self::Open(error) if error.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error()) => {
                Some(LOAD_NF_TABLES)
            }
            Self::Refused { object: None, error } | Self::Unheard(error) => match error.errno {
                Errno::MSGSIZE => Some(
                    "the rules do not fit in one netlink message: raise the limit, for example with `sysctl -w net.core.wmem_max=16777216`",
                ),
                Errno::PERM => Some(NEEDS_ROOT),
                // nfnetlink returns this for a subsystem that it lacks.
                Errno::OPNOTSUPP => Some(LOAD_NF_TABLES),
                _ => None,
            },
            Self::Refused { object: Some(_), error } => match error.errno {
                // The only EPERM for a single object comes from `nft_table_lookup` (nf_tables_api.c).
                Errno::PERM => Some("another program owns this table (flags owner): stop that program first"),
                Errno::NOENT => Some(
                    "load the kernel modules: `modprobe -a nft_chain_nat nft_masq nft_nat nft_fib_ipv4 nft_fib_ipv6`",
                ),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The hint for a missing CAP_NET_ADMIN.
const NEEDS_ROOT: &str = "run as root, or with CAP_NET_ADMIN";
/// The hint for a kernel without nf_tables.
const LOAD_NF_TABLES: &str = "run `modprobe nf_tables`";

impl std::error::Error for NatError {
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

impl fmt::Display for NatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot open an nftables netlink socket: {}", OsError(error)),
            Self::Read { what, error } => write!(f, "cannot dump {what}: {error}"),
            Self::Generation(error) => write!(f, "cannot read the nftables generation: {error}"),
            Self::Unsteady => {
                let time = Retries::LIMIT.as_secs();
                write!(f, "no consistent nftables dump: the ruleset kept changing for {time} s")
            }
            Self::Overtaken(family) => write!(
                f,
                "another program changed table {} {} after the plan was created",
                family.nft(),
                NatTable::NAME
            ),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Unwritable { object, why } => write!(f, "cannot write {object}: {why}"),
            Self::Refused { object: Some(object), error } => {
                write!(f, "the kernel rejected {object}: {error}")
            }
            Self::Refused { object: None, error } => write!(f, "the kernel rejected the NAT batch: {error}"),
            Self::Unheard(error) => write!(f, "cannot send the NAT batch: {error}"),
        }
    }
}

/// Limits the retries while other programs change nftables. A change of any table makes an attempt fail, so a firewall or
/// kube-proxy causes a few retries, but never fails all attempts for that long.
struct Retries<'a> {
    since: Instant,
    attempts: u32,
    interrupt: Option<&'a Interrupt>,
}

impl<'a> Retries<'a> {
    const LIMIT: Duration = Duration::from_secs(10);
    /// The minimum on a slow machine, even after [`Self::LIMIT`].
    const MIN_ATTEMPTS: u32 = 50;
    /// The delay between attempts, to get out of step with the other program.
    const PAUSE: Duration = Duration::from_millis(1);

    fn new() -> Self {
        Self { since: Instant::now(), attempts: 0, interrupt: None }
    }

    fn interruptible(interrupt: &'a Interrupt) -> Self {
        Self { interrupt: Some(interrupt), ..Self::new() }
    }

    /// Counts a failed attempt and waits briefly before the next.
    ///
    /// # Errors
    ///
    /// Returns [`NatError::Unsteady`] once the limits are exceeded, [`NatError::Interrupted`] after a signal.
    fn wait(&mut self) -> Result<(), NatError> {
        self.attempts += 1;
        if self.interrupt.is_some_and(Interrupt::is_raised) {
            return Err(NatError::Interrupted);
        }
        if self.attempts >= Self::MIN_ATTEMPTS && self.since.elapsed() >= Self::LIMIT {
            return Err(NatError::Unsteady);
        }
        thread::sleep(Self::PAUSE);
        Ok(())
    }
}
