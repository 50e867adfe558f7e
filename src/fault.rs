//! Fault injection for tests, in builds with the feature `fault-injection`.
//!
//! Every exchange with the kernel, and every step of writing the state directory, passes an injection point. They are
//! counted from 1. `HOSTGW_FAULT` selects one of them and the fault:
//!
//! | fault | effect |
//! |---|---|
//! | `fail:3` | the third point fails with `EIO` before anything is sent or written, or with another error: `fail:3:EPERM` |
//! | `fail-from:3` | the third point and all later ones fail |
//! | `kill:3` | the process is killed at the third point, as by `kill -9` |
//! | `stop:3` | the process is stopped at the third point, until it receives SIGCONT |
//! | `hang:3` | the process hangs at the third point without being stopped |
//! | `cut:3`, `cut-from:3` | the kernel's reply is marked as interrupted by a concurrent change (`NLM_F_DUMP_INTR`) |
//! | `lose:3`, `lose-from:3` | part of the kernel's reply did not fit the socket (`ENOBUFS`) |
//!
//! A fault applies to a single process. `HOSTGW_FAULT_SUPERVISOR` contains the fault for its supervisor. When the point
//! is reached, the file in `HOSTGW_FAULT_MARK` is written. Without the feature, the variables have no effect.

#[cfg(feature = "fault-injection")]
pub(crate) use injection::{interrupt_reply, lose_reply, pass_on, point};

#[cfg(feature = "fault-injection")]
mod injection {
    use std::sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    };

    use rustix::{
        io::Errno,
        process::{Signal, getpid, kill_process},
    };

    /// The number of points passed.
    static PASSED: AtomicUsize = AtomicUsize::new(0);

    static FAULT: LazyLock<Option<Fault>> =
        LazyLock::new(|| Fault::parse(&std::env::var("HOSTGW_FAULT").ok()?));

    /// The fault in `HOSTGW_FAULT`.
    struct Fault {
        text: String,
        kind: String,
        at: usize,
        /// Whether it also applies to every later point.
        persists: bool,
        errno: Errno,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let (kind, at) = (parts.next()?, parts.next()?.parse().ok()?);
            let errno = match parts.next() {
                Some("EPERM") => Errno::PERM,
                Some("ENOSPC") => Errno::NOSPC,
                _ => Errno::IO,
            };
            let (kind, persists) = kind.strip_suffix("-from").map_or((kind, false), |kind| (kind, true));
            Some(Self { text: text.to_owned(), kind: kind.to_owned(), at, persists, errno })
        }

        fn is_at(&self, number: usize) -> bool {
            number == self.at || (self.persists && number > self.at)
        }
    }

    /// Passes the next injection point.
    ///
    /// # Errors
    /// Returns the injected error.
    pub(crate) fn point() -> Result<(), Errno> {
        let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(fault) = FAULT.as_ref().filter(|fault| fault.is_at(number)) else { return Ok(()) };
        if number == fault.at {
            // The file distinguishes a command that survived the fault from one that never reached it.
            if let Some(mark) = std::env::var_os("HOSTGW_FAULT_MARK") {
                std::fs::write(mark, &fault.text).map_err(|_| Errno::IO)?;
            }
        }
        match fault.kind.as_str() {
            "fail" => Err(fault.errno),
            "kill" => kill_process(getpid(), Signal::KILL),
            "stop" => kill_process(getpid(), Signal::STOP),
            "hang" => loop {
                std::thread::park();
            },
            _ => Ok(()),
        }
    }

    /// Prepares the environment of a supervisor: its fault is in `HOSTGW_FAULT_SUPERVISOR`, and this process's own does
    /// not apply to it.
    pub(crate) fn pass_on(command: &mut std::process::Command) {
        match std::env::var_os("HOSTGW_FAULT_SUPERVISOR") {
            Some(fault) => command.env("HOSTGW_FAULT", fault),
            None => command.env_remove("HOSTGW_FAULT"),
        };
    }

    /// Returns the number of the last point if a fault of this kind applies to it.
    fn active_at(kind: &str) -> Option<usize> {
        let number = PASSED.load(Ordering::SeqCst);
        FAULT.as_ref().filter(|fault| fault.kind == kind && fault.is_at(number)).map(|_| number)
    }

    /// Fails the reading of a reply, if requested.
    ///
    /// # Errors
    /// Returns the injected error.
    pub(crate) fn lose_reply() -> Result<(), Errno> {
        /// The last exchange that lost part of its reply: the kernel reports that once.
        static LOST: AtomicUsize = AtomicUsize::new(0);
        match active_at("lose") {
            Some(number) if LOST.swap(number, Ordering::SeqCst) != number => Err(Errno::NOBUFS),
            _ => Ok(()),
        }
    }

    /// Marks a reply, a datagram of netlink messages, as interrupted if requested.
    pub(crate) fn interrupt_reply(datagram: &mut [u8]) {
        // The field nlmsg_flags, and in it NLM_F_DUMP_INTR (linux/netlink.h).
        if let Some(flags) = datagram.get_mut(6..8).filter(|_| active_at("cut").is_some()) {
            let interrupted = u16::from_ne_bytes([flags[0], flags[1]]) | 0x10;
            flags.copy_from_slice(&interrupted.to_ne_bytes());
        }
    }
}

/// Without the feature, no point fails.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn point() -> Result<(), rustix::io::Errno> {
    Ok(())
}

/// Without the feature, there is no fault to pass on.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn pass_on(_command: &mut std::process::Command) {}

/// Without the feature, no reply is lost.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn lose_reply() -> Result<(), rustix::io::Errno> {
    Ok(())
}

/// Without the feature, replies are left unchanged.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn interrupt_reply(_datagram: &mut [u8]) {}
