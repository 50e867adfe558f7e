//! Where a system call or a C library leaves no way round `unsafe`.
//!
//! What the crate nftnl lacks: the expression `fib`, flags of `masq`, and messages made of ready bytes
//! (table flags, foreign rules). And the system calls that no safe crate has: the cookie of a network
//! namespace, leaving one for a new one, ignoring a signal, and keeping descriptors from other programs.
#![allow(unsafe_code, reason = "the one file that may; each place says why")]

use std::{
    ffi::{CStr, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr::{self, NonNull},
};

use nftnl::{
    MsgType, NlMsg, Rule,
    expr::Expression,
    nftnl_sys::{self as sys, libc},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{
    nat::abi::{self, expr},
    netlink::{HEADER, NLM_F_REQUEST},
};
use crate::model::Family;

/// `fib daddr type`, into register 1.
pub(super) struct FibDaddrType;

impl Expression for FibDaddrType {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        expression(
            c"fib",
            &[
                (sys::NFTNL_EXPR_FIB_DREG, expr::REG_1),
                (sys::NFTNL_EXPR_FIB_RESULT, expr::FIB_ADDRTYPE),
                (sys::NFTNL_EXPR_FIB_FLAGS, expr::FIB_DADDR),
            ],
        )
    }
}

/// `masquerade` with `NF_NAT_RANGE_*` flags (linux/netfilter/nf_nat.h).
pub(super) struct Masquerade {
    pub(super) flags: u32,
}

impl Expression for Masquerade {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        expression(c"masq", &[(sys::NFTNL_EXPR_MASQ_FLAGS, self.flags)])
    }
}

/// An expression with numbers for attributes.
fn expression(name: &CStr, attributes: &[(u32, u32)]) -> NonNull<sys::nftnl_expr> {
    // SAFETY: the name is a C string; the result is checked, and the caller of `to_expr` frees it.
    let Some(expression) = NonNull::new(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) }) else {
        // Out of memory, or a libnftnl without this expression (they are of 2016 and 2014): nftnl
        // aborts here as well, for the trait leaves no other way.
        std::process::abort();
    };
    for (attribute, value) in attributes {
        let Ok(attribute) = u16::try_from(*attribute) else { continue };
        // SAFETY: the expression has just been allocated, and the attributes are 32-bit ones of it.
        unsafe { sys::nftnl_expr_set_u32(expression.as_ptr(), attribute, *value) };
    }
    expression
}

/// A message of a batch as ready bytes.
pub(super) struct Message {
    header: libc::nlmsghdr,
    generic: [u8; abi::GENERIC_HEADER],
    attributes: Vec<u8>,
}

impl Message {
    /// A message with these attributes; `None` when it is longer than nftnl's buffer takes for sure.
    pub(super) fn new(message_type: u16, flags: u16, family: Family, attributes: Vec<u8>) -> Option<Self> {
        let length = u16::try_from(HEADER + abi::GENERIC_HEADER + attributes.len()).ok()?;
        let header = libc::nlmsghdr {
            nlmsg_len: length.into(),
            nlmsg_type: message_type,
            nlmsg_flags: flags | NLM_F_REQUEST,
            nlmsg_seq: 0,
            nlmsg_pid: 0,
        };
        Some(Self { header, generic: [abi::protocol(family), 0, 0, 0], attributes })
    }
}

// SAFETY: `new` refuses what is longer than 65,535 bytes, and `nft_nlmsg_maxsize` is more than that.
unsafe impl NlMsg for Message {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, _msg_type: MsgType) {
        let start = buf.cast::<u8>();
        let header = libc::nlmsghdr { nlmsg_seq: seq, ..self.header };
        // SAFETY: the caller promises `nft_nlmsg_maxsize` bytes, which hold header, family header and
        // attributes (see `new`); the sources are other memory, of just these lengths. The header is
        // written unaligned because nothing is promised about the buffer's alignment.
        unsafe {
            start.cast::<libc::nlmsghdr>().write_unaligned(header);
            ptr::copy_nonoverlapping(self.generic.as_ptr(), start.add(HEADER), abi::GENERIC_HEADER);
            ptr::copy_nonoverlapping(
                self.attributes.as_ptr(),
                start.add(HEADER + abi::GENERIC_HEADER),
                self.attributes.len(),
            );
        }
    }
}

/// `SO_NETNS_COOKIE` (asm-generic/socket.h), Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number of the network namespace that `socket` lives in; never used again in one boot, as the
/// inode of a namespace is.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14.
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `length` bytes to
    // the cookie and the length itself, both of which live here.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast::<c_void>(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Moves this thread into a new network namespace.
///
/// # Errors
/// The system call's.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: only unsharing file descriptors is unsafe, and they are not unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Moves this process, which must have one thread only, into a new user namespace.
///
/// # Errors
/// The system call's.
pub(super) fn unshare_user() -> io::Result<()> {
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}

/// The kernel's `struct sigaction` (asm-generic/signal.h). On architectures where it has no restorer it is shorter,
/// and the rest is not read.
#[repr(C)]
struct KernelSigaction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Has this process ignore `signal`.
///
/// # Errors
/// `EINVAL` for SIGKILL, SIGSTOP, and what is no signal.
pub(super) fn ignore_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Has `signal` do to this process what it does by default.
///
/// # Errors
/// `EINVAL` for SIGKILL, SIGSTOP, and what is no signal.
pub(super) fn default_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_DFL)
}

/// `disposition` is `SIG_IGN` or `SIG_DFL`. The system call itself, since the C library keeps its own signals from
/// sigaction(2).
fn set_disposition(signal: i32, disposition: usize) -> io::Result<()> {
    let action = KernelSigaction { handler: disposition, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the kernel reads a struct sigaction, which lives here, and writes to no old one. Neither disposition runs
    // code of this process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            ptr::null::<c_void>(),
            size_of::<u64>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has no program that this process starts inherit the descriptor.
///
/// # Errors
/// `EBADF` when it is not open.
pub(super) fn close_on_exec(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: setting a flag closes nothing, and a number that is not open is an error.
    let result = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
