//! Faults on demand, to prove what is said of failures: with the build feature `fault-injection` alone.
//!
//! Every exchange with the kernel, and every step in writing the state directory, passes a point, counted
//! from 1. `HOSTGW_FAULT` names one, and what happens there:
//!
//! | fault | what happens |
//! |---|---|
//! | `fail:3` | the third fails with `EIO`, before anything is sent or written; `fail:3:EPERM` with another error |
//! | `fail-from:3` | so do the third and all after it |
//! | `kill:3` | the process ends there, as by `kill -9` |
//! | `stop:3` | it stops there, and goes on when it gets a SIGCONT |
//! | `hang:3` | it does nothing any more, and does not look stopped |
//! | `cut:3`, `cut-from:3` | the kernel's answer is marked as cut by a concurrent change (`NLM_F_DUMP_INTR`) |
//! | `lose:3`, `lose-from:3` | part of the answer did not fit the socket (`ENOBUFS`) |
//!
//! A fault is of one process: what its supervisor shall meet is in `HOSTGW_FAULT_SUPERVISOR`.
//! The file that `HOSTGW_FAULT_MARK` names is written when the point is reached. Without the feature the
//! variables mean nothing.

#[cfg(feature = "fault-injection")]
pub(crate) use on_demand::{hand_on, lose, point, tear};

#[cfg(feature = "fault-injection")]
mod on_demand {
    use std::sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    };

    use rustix::{
        io::Errno,
        process::{Signal, getpid, kill_process},
    };

    /// How many points were passed.
    static PASSED: AtomicUsize = AtomicUsize::new(0);

    static ASKED: LazyLock<Option<Asked>> =
        LazyLock::new(|| Asked::parse(&std::env::var("HOSTGW_FAULT").ok()?));

    /// What `HOSTGW_FAULT` says.
    struct Asked {
        text: String,
        kind: String,
        at: usize,
        /// At every point from there on.
        lasts: bool,
        errno: Errno,
    }

    impl Asked {
        fn parse(text: &str) -> Option<Self> {
            let mut words = text.split(':');
            let (kind, at) = (words.next()?, words.next()?.parse().ok()?);
            let errno = match words.next() {
                Some("EPERM") => Errno::PERM,
                Some("ENOSPC") => Errno::NOSPC,
                _ => Errno::IO,
            };
            let (kind, lasts) = kind.strip_suffix("-from").map_or((kind, false), |kind| (kind, true));
            Some(Self { text: text.to_owned(), kind: kind.to_owned(), at, lasts, errno })
        }

        fn is_at(&self, number: usize) -> bool {
            number == self.at || (self.lasts && number > self.at)
        }
    }

    /// Passes the next point.
    ///
    /// # Errors
    /// The fault that was asked for.
    pub(crate) fn point() -> Result<(), Errno> {
        let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(asked) = ASKED.as_ref().filter(|asked| asked.is_at(number)) else { return Ok(()) };
        if number == asked.at {
            // Tells a command that came through a fault from one that met none.
            if let Some(mark) = std::env::var_os("HOSTGW_FAULT_MARK") {
                std::fs::write(mark, &asked.text).map_err(|_| Errno::IO)?;
            }
        }
        match asked.kind.as_str() {
            "fail" => Err(asked.errno),
            "kill" => kill_process(getpid(), Signal::KILL),
            "stop" => kill_process(getpid(), Signal::STOP),
            "hang" => loop {
                std::thread::park();
            },
            _ => Ok(()),
        }
    }

    /// Prepares a supervisor that is about to be started: the fault that was asked for is this process's
    /// alone, `HOSTGW_FAULT_SUPERVISOR` is the supervisor's.
    pub(crate) fn hand_on(command: &mut std::process::Command) {
        match std::env::var_os("HOSTGW_FAULT_SUPERVISOR") {
            Some(fault) => command.env("HOSTGW_FAULT", fault),
            None => command.env_remove("HOSTGW_FAULT"),
        };
    }

    /// The fault of that kind at the last point, if it was asked for.
    fn is_asked(kind: &str) -> Option<usize> {
        let number = PASSED.load(Ordering::SeqCst);
        ASKED.as_ref().filter(|asked| asked.kind == kind && asked.is_at(number)).map(|_| number)
    }

    /// Before an answer is read.
    ///
    /// # Errors
    /// The fault that was asked for.
    pub(crate) fn lose() -> Result<(), Errno> {
        /// The exchange that lost a part of its answer last: the kernel says so once.
        static LOST: AtomicUsize = AtomicUsize::new(0);
        match is_asked("lose") {
            Some(number) if LOST.swap(number, Ordering::SeqCst) != number => Err(Errno::NOBUFS),
            _ => Ok(()),
        }
    }

    /// Marks an answer, a datagram of netlink messages, as cut, where that was asked for.
    pub(crate) fn tear(datagram: &mut [u8]) {
        // nlmsg_flags, and NLM_F_DUMP_INTR in them (linux/netlink.h).
        if let Some(flags) = datagram.get_mut(6..8).filter(|_| is_asked("cut").is_some()) {
            let torn = u16::from_ne_bytes([flags[0], flags[1]]) | 0x10;
            flags.copy_from_slice(&torn.to_ne_bytes());
        }
    }
}

/// Without the feature no point fails.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn point() -> Result<(), rustix::io::Errno> {
    Ok(())
}

/// Without the feature no fault is handed on.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn hand_on(_command: &mut std::process::Command) {}

/// Without the feature no answer is lost.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn lose() -> Result<(), rustix::io::Errno> {
    Ok(())
}

/// Without the feature every answer is what the kernel sent.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn tear(_datagram: &mut [u8]) {}
