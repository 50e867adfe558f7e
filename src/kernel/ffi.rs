//! The only file with `unsafe` code: system calls and C library calls that no safe crate wraps.
//!
//! - nftables, where the nftnl crate falls short: the `fib` expression, flags of `masq`, and messages from
//!   preassembled bytes (table flags, foreign rules).
//! - System calls: binding packet sockets, the cookie of a network namespace, unsharing namespaces, signal dispositions, close-on-exec.
#![allow(unsafe_code, reason = "the only file allowed to use unsafe; every block has a SAFETY comment")]

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

/// The expression `fib daddr type`, loaded into register 1.
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

/// The expression `masquerade` with `NF_NAT_RANGE_*` flags (linux/netfilter/nf_nat.h).
pub(super) struct Masquerade {
    pub(super) flags: u32,
}

impl Expression for Masquerade {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        expression(c"masq", &[(sys::NFTNL_EXPR_MASQ_FLAGS, self.flags)])
    }
}

/// The expression `nat` that sets the source to the address in register 1, with `NF_NAT_RANGE_*` flags.
pub(super) struct SourceNat {
    pub(super) family: Family,
    pub(super) flags: u32,
}

impl Expression for SourceNat {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let mut attributes = vec![
            (sys::NFTNL_EXPR_NAT_TYPE, expr::NAT_SOURCE),
            (sys::NFTNL_EXPR_NAT_FAMILY, abi::protocol(self.family).into()),
            (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, expr::REG_1),
        ];
        if self.flags != 0 {
            attributes.push((sys::NFTNL_EXPR_NAT_FLAGS, self.flags));
        }
        expression(c"nat", &attributes)
    }
}

/// Allocates an nftnl expression and sets its 32-bit attributes.
fn expression(name: &CStr, attributes: &[(u32, u32)]) -> NonNull<sys::nftnl_expr> {
    // SAFETY: the name is a C string; the result is checked, and the caller of `to_expr` frees it.
    let Some(expression) = NonNull::new(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) }) else {
        // Out of memory, or a libnftnl too old for this expression (fib: 2016, masq: 2014). `Expression::to_expr`
        // cannot return an error; nftnl's own expressions abort, too.
        std::process::abort();
    };
    for (attribute, value) in attributes {
        let Ok(attribute) = u16::try_from(*attribute) else { continue };
        // SAFETY: the expression has just been allocated, and these attributes of it are 32 bits wide.
        unsafe { sys::nftnl_expr_set_u32(expression.as_ptr(), attribute, *value) };
    }
    expression
}

/// A message of an nftables batch, assembled by hostgw rather than by nftnl.
pub(super) struct BatchMessage {
    header: libc::nlmsghdr,
    generic: [u8; abi::GENERIC_HEADER],
    attributes: Vec<u8>,
}

impl BatchMessage {
    /// Creates a message. Returns `None` if it could overflow nftnl's buffer.
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

// SAFETY: `new` rejects messages longer than 65,535 bytes, and `nft_nlmsg_maxsize` is larger than that.
unsafe impl NlMsg for BatchMessage {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, _msg_type: MsgType) {
        let start = buf.cast::<u8>();
        let header = libc::nlmsghdr { nlmsg_seq: seq, ..self.header };
        // SAFETY: the caller guarantees `nft_nlmsg_maxsize` bytes, enough for the header, the family header
        // and the attributes (see `new`). The sources do not overlap the buffer and have exactly these
        // lengths. The header is written unaligned because the buffer's alignment is not guaranteed.
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

/// Returns the cookie of the network namespace of `socket`. Unlike an inode number, a cookie is never reused
/// within one boot.
///
/// # Errors
/// Returns `ENOPROTOOPT` before Linux 5.14.
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: the descriptor stays open while it is borrowed. The kernel writes at most `length` bytes to
    // `cookie`, and `length` itself; both are locals.
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
/// Returns the error of unshare(2).
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: only unsharing the file descriptor table is unsafe, and this call does not unshare it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Moves this process, which must be single-threaded, into a new user namespace.
///
/// # Errors
/// Returns the error of unshare(2).
pub(super) fn unshare_user() -> io::Result<()> {
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}

/// The kernel's `struct sigaction` (asm-generic/signal.h). Architectures without a restorer use a shorter struct and
/// ignore the rest.
#[repr(C)]
struct KernelSigaction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Ignores `signal` in this process.
///
/// # Errors
/// Returns `EINVAL` for SIGKILL, SIGSTOP and invalid signal numbers.
pub(super) fn ignore_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Resets `signal` to its default action.
///
/// # Errors
/// Returns `EINVAL` for SIGKILL, SIGSTOP and invalid signal numbers.
pub(super) fn default_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_DFL)
}

/// Sets a signal to `SIG_IGN` or `SIG_DFL`. Uses the raw system call, since the C library's sigaction(2) refuses the
/// signals that it reserves for itself.
fn set_disposition(signal: i32, disposition: usize) -> io::Result<()> {
    let action = KernelSigaction { handler: disposition, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the kernel reads `action`, a local, and has no old action to write. Neither disposition runs code of
    // this process.
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

/// Binds a packet socket to the packets of one Ethernet type on interface number `interface`.
///
/// # Errors
/// Returns `ENODEV` if the interface does not exist.
pub(super) fn bind_to_ethernet(socket: BorrowedFd<'_>, kind: u16, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: kind.to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`, a local.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks a descriptor close-on-exec.
///
/// # Errors
/// Returns `EBADF` if it is not open.
pub(super) fn close_on_exec(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: setting the flag closes nothing, and a descriptor that is not open is an error.
    let result = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
