//! The netlink client of this module: dumps, single requests, packed changes and nftables batches, with the kernel's
//! own error texts.
//!
//! It is synchronous because the kernel handles a request inside `send`. When the call returns, every reply (of a dump,
//! the first part) is queued on the socket, so there is nothing to wait for.

use std::{fmt, io, ops::Range, os::fd::AsFd, time::Duration};

use rtnetlink::sys::{self, protocols::NETLINK_ROUTE};
use rustix::{
    buffer::spare_capacity,
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use crate::fault;

// Message types below 16 and header flags: linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 16;
/// The message is a request.
pub const NLM_F_REQUEST: u16 = 0x1;
/// Requests an acknowledgment even if there is no error.
pub const NLM_F_ACK: u16 = 0x4;
/// A concurrent change made the dump inconsistent.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Requests all objects (`NLM_F_ROOT | NLM_F_MATCH`).
pub const NLM_F_DUMP: u16 = 0x300;
/// The error message repeats only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// The error or done message ends with the attributes of an extended acknowledgment.
const NLM_F_ACK_TLVS: u16 = 0x200;
// Attributes of the extended acknowledgment: enum nlmsgerr_attrs, linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER` (linux/netlink.h): flags in the type field of an attribute.
const NLA_FLAGS: u16 = 0xc000;

/// `sizeof(struct nlmsghdr)` (linux/netlink.h).
pub const HEADER: usize = 16;
/// `sizeof(struct nlattr)` (linux/netlink.h).
const ATTRIBUTE_HEADER: usize = 4;

/// Fits 10,000 error replies; the default of 208 KiB loses half of them.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The initial size of the receive buffer. The kernel's dumps use datagrams of up to 32 KiB (`netlink_dump`,
/// af_netlink.c), except for links with many virtual functions: for those the buffer grows.
const DATAGRAM: usize = 64 << 10;
/// The kernel replies immediately; this only prevents a hang when it is out of memory.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an inconsistent dump is requested before hostgw gives up.
const MAX_ATTEMPTS: usize = 10;
/// More messages per send would lose error replies where the receive buffer could not be raised.
const MESSAGES_PER_SEND: usize = 128;
/// Well below the default send buffer (208 KiB), which bounds one send.
const BYTES_PER_SEND: usize = 64 << 10;

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
    fn with_text(errno: Errno, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::from(errno) }
    }

    /// Every attempt to read a reply failed: parts were lost, or the objects kept changing.
    fn inconsistent(errno: Errno) -> Self {
        Self::with_text(
            errno,
            match errno {
                Errno::NOBUFS => "the kernel's reply did not fit the socket buffer",
                _ => "the objects kept changing while they were read",
            },
        )
    }

    /// Returns the remedy for a reply that could not be read consistently.
    #[must_use]
    pub const fn inconsistent_hint(&self) -> Option<&'static str> {
        match self.errno {
            Errno::INTR => Some("another program keeps changing them: try again when they have settled"),
            Errno::NOBUFS => Some("raise net.core.rmem_default, or run as root"),
            _ => None,
        }
    }

    fn malformed() -> Self {
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
        let errno = Named(self.errno);
        match &self.text {
            Some(text) => write!(f, "{text} ({errno})"),
            None => errno.fmt(f),
        }
    }
}

/// Prints an error number as `ENODEV: No such device`.
struct Named(Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = ERRNO_NAMES.iter().find(|(errno, _)| *errno == self.0) {
            write!(f, "{name}: ")?;
        }
        let text = io::Error::from(self.0).to_string();
        // Drop the number: the name says the same.
        f.write_str(text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words))
    }
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

/// A request that changes an object, complete except for its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_type`, such as `RTM_NEWROUTE`.
    pub message_type: u16,
    /// `nlmsg_flags` besides `NLM_F_REQUEST` and `NLM_F_ACK`, such as `NLM_F_CREATE | NLM_F_EXCL`.
    pub flags: u16,
    /// The family header and the attributes.
    pub payload: Vec<u8>,
}

/// The failure of a sequence of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Index and error of every request that the kernel rejected, in order.
    pub rejections: Vec<(usize, KernelError)>,
    /// The number of requests that reached the kernel. Unless there is a `failure`, those that it did not reject took
    /// effect; of an nftables batch, none did.
    pub sent: usize,
    /// Set if requests could not be sent or replies not be read: the outcome of the last send is then unknown.
    pub failure: Option<KernelError>,
}

/// The messages of a reply.
#[derive(Debug, Default)]
pub struct Dump {
    bytes: Vec<u8>,
    messages: Vec<(u16, Range<usize>)>,
}

impl Dump {
    /// Iterates over the type and payload (family header and attributes) of each message, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.messages.iter().filter_map(|(kind, range)| Some((*kind, self.bytes.get(range.clone())?)))
    }

    fn push(&mut self, message: &Received<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message.payload);
        self.messages.push((message.kind, start..self.bytes.len()));
    }
}

/// A netlink socket.
pub struct Socket {
    inner: sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of `protocol` (`NETLINK_*`, linux/netlink.h) in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// Returns the system call's error: `EPROTONOSUPPORT` if the kernel lacks the protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let inner = sys::Socket::new(protocol)?;
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        if protocol == NETLINK_ROUTE {
            // The kernel ignores dump filters without this option.
            inner.set_netlink_get_strict_chk(true)?;
        }
        // Fails without CAP_NET_ADMIN, but the replies to one send fit the default buffer, too.
        let _ = sockopt::set_socket_recv_buffer_size_force(inner.as_fd(), RECEIVE_BUFFER);
        sockopt::set_socket_timeout(inner.as_fd(), sockopt::Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
        Ok(Self { inner, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Requests a dump, with `flags` besides `NLM_F_DUMP`; `payload` is the family header and the attributes.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error; `EINTR` or `ENOBUFS` if no attempt gave a consistent reply.
    pub fn dump(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<Dump, KernelError> {
        self.query(message_type, flags | NLM_F_DUMP, payload)
    }

    /// Requests one object.
    ///
    /// # Errors
    ///
    /// As [`Self::dump`]; usually `ENOENT` for an object that does not exist.
    pub fn get(&mut self, message_type: u16, payload: &[u8]) -> Result<Dump, KernelError> {
        self.query(message_type, NLM_F_ACK, payload)
    }

    /// Sends a request, and retries if the reply is inconsistent.
    fn query(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<Dump, KernelError> {
        let mut attempts = 0;
        loop {
            let sequence = self.request(message_type, flags, payload)?;
            attempts += 1;
            match self.collect(sequence)? {
                Ok(dump) => return Ok(dump),
                Err(errno) if attempts == MAX_ATTEMPTS => return Err(KernelError::inconsistent(errno)),
                Err(_) => {}
            }
        }
    }

    fn request(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<u32, KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        put_message(&mut bytes, message_type, flags | NLM_F_REQUEST, self.sequence, payload);
        self.send(&bytes)?;
        Ok(self.sequence)
    }

    /// Reads the whole reply. The inner error says why the reply is inconsistent: `ENOBUFS` if parts of it were lost,
    /// `EINTR` if the objects changed while they were read.
    fn collect(&mut self, sequence: u32) -> Result<Result<Dump, Errno>, KernelError> {
        let mut dump = Dump::default();
        let mut inconsistency = None;
        loop {
            match self.receive(RecvFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOBUFS | Errno::MSGSIZE) => {
                    inconsistency = Some(Errno::NOBUFS);
                    continue;
                }
                Err(Errno::AGAIN) => {
                    return Err(KernelError::with_text(Errno::TIMEDOUT, "the kernel did not reply"));
                }
                Err(errno) => return Err(errno.into()),
            }
            for message in Messages(&self.buffer) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    inconsistency = Some(Errno::INTR);
                }
                match message.outcome()? {
                    None => dump.push(&message),
                    Some(Ok(())) => return Ok(inconsistency.map_or(Ok(dump), Err)),
                    Some(Err(error)) if error.errno == Errno::INTR => return Ok(Err(Errno::INTR)),
                    Some(Err(error)) => return Err(error),
                }
            }
        }
    }

    /// Sends requests, as many per system call as is safe. Stops after the first send in which the kernel rejects one.
    ///
    /// # Errors
    ///
    /// Returns which requests the kernel rejected, and how many reached it.
    pub fn transact(&mut self, messages: &[Message]) -> Result<(), Refused> {
        let mut sent = 0;
        while sent < messages.len() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut count = 0;
            for message in messages.iter().skip(sent).take(MESSAGES_PER_SEND) {
                if count > 0 && bytes.len() + HEADER + message.payload.len() > BYTES_PER_SEND {
                    break;
                }
                self.sequence = self.sequence.wrapping_add(1);
                let flags = message.flags & !NLM_F_ACK | NLM_F_REQUEST;
                put_message(&mut bytes, message.message_type, flags, self.sequence, &message.payload);
                count += 1;
            }
            number(&mut bytes, first, count - 1).map_err(|failure| Refused::failed(sent, failure))?;
            self.exchange(&bytes, first, count).map_err(|refused| refused.after(sent))?;
            sent += count;
        }
        Ok(())
    }

    /// Sends one nftables batch, from `NFNL_MSG_BATCH_BEGIN` to `NFNL_MSG_BATCH_END`, in one system call. Sets its
    /// sequence numbers and `NLM_F_ACK` flags: thousands of acknowledgments would not fit the socket buffer, and the
    /// kernel reports errors without that flag.
    ///
    /// # Errors
    ///
    /// Returns which messages the kernel rejected, by their index in the batch; index 0 is the batch as a whole. None
    /// of the batch has then taken effect.
    pub fn batch(&mut self, bytes: &mut [u8]) -> Result<(), Refused> {
        let failed = |failure| Refused::failed(0, failure);
        let count = Messages(bytes).filter(Result::is_ok).count();
        if count < 3 {
            return Err(failed(KernelError::with_text(Errno::INVAL, "the batch has no messages")));
        }
        let first = self.sequence.wrapping_add(1);
        // Kernels before 6.10 do not acknowledge the end of a batch, so request it for the message before.
        number(bytes, first, count - 2).map_err(failed)?;
        self.sequence = u32::try_from(count).map_or(0, |count| self.sequence.wrapping_add(count));
        self.reserve_send_buffer(bytes.len());
        self.exchange(bytes, first, count)
    }

    /// Raises the send buffer, which limits the size of a datagram. If that fails, the send fails with EMSGSIZE.
    fn reserve_send_buffer(&self, bytes: usize) {
        let fd = self.inner.as_fd();
        let wanted = bytes + DATAGRAM;
        if sockopt::socket_send_buffer_size(fd).is_ok_and(|size| size >= wanted) {
            return;
        }
        if sockopt::set_socket_send_buffer_size_force(fd, wanted).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(fd, wanted);
        }
    }

    /// Sends `count` numbered messages and reads the replies, which must contain an error or the acknowledgment of the
    /// one message that requests it.
    fn exchange(&mut self, bytes: &[u8], first: u32, count: usize) -> Result<(), Refused> {
        self.send(bytes).map_err(|errno| Refused::failed(0, errno.into()))?;
        let mut refused = Refused { sent: count, ..Refused::default() };
        let mut acknowledged = false;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(()) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => {
                    refused.failure = Some(KernelError::with_text(
                        Errno::NOBUFS,
                        "the kernel's replies did not fit the socket buffer",
                    ));
                    continue;
                }
                Err(errno) => {
                    refused.failure = Some(errno.into());
                    break;
                }
            }
            for message in Messages(&self.buffer) {
                match message.and_then(|message| Ok((message.sequence, message.outcome()?))) {
                    Ok((sequence, Some(outcome))) => {
                        let index = sequence.wrapping_sub(first) as usize;
                        match outcome {
                            _ if index >= count => {}
                            Ok(()) => acknowledged = true,
                            Err(error) => refused.rejections.push((index, error)),
                        }
                    }
                    Ok((_, None)) => {}
                    Err(Malformed) => refused.failure = Some(KernelError::malformed()),
                }
            }
        }
        if refused.failure.is_none() && refused.rejections.is_empty() {
            if acknowledged {
                return Ok(());
            }
            refused.failure = Some(KernelError::with_text(Errno::TIMEDOUT, "the kernel did not reply"));
        }
        refused.rejections.sort_by_key(|(index, _)| *index);
        Err(refused)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        fault::point()?;
        // A netlink send is one datagram: the kernel accepts all of it or nothing.
        retry_on_intr(|| send(self.inner.as_fd(), bytes, SendFlags::empty())).map(drop)
    }

    /// Reads one datagram into the buffer. Returns `EMSGSIZE` if it does not fit, and grows the buffer for the next.
    fn receive(&mut self, flags: RecvFlags) -> Result<(), Errno> {
        fault::lose()?;
        self.buffer.clear();
        let (read, length) = retry_on_intr(|| {
            recv(self.inner.as_fd(), spare_capacity(&mut self.buffer), flags | RecvFlags::TRUNC)
        })?;
        if length > read {
            self.buffer.clear();
            self.buffer.reserve(length);
            return Err(Errno::MSGSIZE);
        }
        fault::tear(&mut self.buffer);
        Ok(())
    }
}

impl Refused {
    fn failed(sent: usize, failure: KernelError) -> Self {
        Self { sent, failure: Some(failure), rejections: Vec::new() }
    }

    /// Adjusts the counts and indexes for `before` requests sent earlier.
    fn after(mut self, before: usize) -> Self {
        self.sent += before;
        for (index, _) in &mut self.rejections {
            *index += before;
        }
        self
    }
}

/// A message received from the kernel.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Received<'_> {
    /// The outcome of the request: done, rejected, or `None` if this message does not end the reply.
    fn outcome(&self) -> Result<Option<Result<(), KernelError>>, Malformed> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => {}
            // Control messages (NLMSG_NOOP) are never part of a dump.
            kind if kind < NLMSG_MIN_TYPE => return Err(Malformed),
            _ => return Ok(None),
        }
        let code = match self.payload.first_chunk::<4>() {
            Some(code) => i32::from_ne_bytes(*code),
            // Some older dumps end with an empty NLMSG_DONE.
            None if self.kind == NLMSG_DONE => 0,
            None => return Err(Malformed),
        };
        if code >= 0 {
            return Ok(Some(Ok(())));
        }
        // The kernel's numbers are at most MAX_ERRNO, 4095 (linux/err.h).
        if code < -4095 {
            return Err(Malformed);
        }
        let mut error = KernelError::from(Errno::from_raw_os_error(-code));
        if self.flags & NLM_F_ACK_TLVS != 0 {
            self.read_extended_ack(&mut error);
        }
        Ok(Some(Err(error)))
    }

    /// Adds the extended acknowledgment to `error`, ignoring malformed parts.
    fn read_extended_ack(&self, error: &mut KernelError) {
        let Some(start) = self.extended_ack_start() else { return };
        for (kind, payload) in Attributes::new(self.payload.get(start..).unwrap_or_default()).flatten() {
            let number = payload.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
            match kind {
                NLMSGERR_ATTR_MSG => error.text = Some(text(payload)).filter(|text| !text.is_empty()),
                NLMSGERR_ATTR_OFFS => error.offset = number,
                NLMSGERR_ATTR_MISS_TYPE => error.missing = number,
                _ => {}
            }
        }
    }

    /// The offset of the extended acknowledgment in the payload.
    fn extended_ack_start(&self) -> Option<usize> {
        if self.kind == NLMSG_DONE {
            return Some(4);
        }
        if self.flags & NLM_F_CAPPED != 0 {
            return Some(4 + HEADER);
        }
        let length = u32::from_ne_bytes(*self.payload.get(4..)?.first_chunk()?);
        Some(4 + aligned(usize::try_from(length).ok()?.max(HEADER))?)
    }
}

/// Iterates over the messages of a datagram; ends after a malformed one.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Received<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = split_message(self.0);
        self.0 = message.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(message.map(|(message, _)| message).ok_or(Malformed))
    }
}

/// Splits off the first message of `bytes`.
fn split_message(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let message = Received {
        kind: half(4)?,
        flags: half(6)?,
        sequence: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
        payload: bytes.get(HEADER..length)?,
    };
    Some((message, bytes.get(aligned(length)?..).unwrap_or_default()))
}

/// Rounds up to a multiple of 4, as netlink pads messages and attributes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
fn aligned(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(4)
}

/// Appends a message and its padding.
pub fn put_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    // The kernel rejects datagrams long before their length exceeds u32.
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Numbers the messages from `first` on, and requests the acknowledgment of only one of them.
fn number(bytes: &mut [u8], first: u32, acknowledge: usize) -> Result<(), KernelError> {
    let invalid = || KernelError::with_text(Errno::INVAL, "the messages to send are malformed");
    let (mut at, mut index, mut sequence) = (0, 0, first);
    while at < bytes.len() {
        let header = bytes.get_mut(at..at + HEADER).ok_or_else(invalid)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let mut flags = u16::from_ne_bytes([header[6], header[7]]) & !NLM_F_ACK;
        if index == acknowledge {
            flags |= NLM_F_ACK;
        }
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        if length < HEADER || length > bytes.len() - at {
            return Err(invalid());
        }
        at += length.next_multiple_of(4);
        index += 1;
        sequence = sequence.wrapping_add(1);
    }
    Ok(())
}

/// The position of a netlink attribute in a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeAt {
    /// The attribute type, without flags.
    pub kind: u16,
    /// The range of the payload.
    pub payload: Range<usize>,
    /// The offset of the next attribute.
    pub next: usize,
}

/// Locates the attribute at offset `at`. Returns `None` at the end of `bytes`.
///
/// # Errors
///
/// Returns [`Malformed`] if the remaining bytes are not an attribute.
pub fn attribute_at(bytes: &[u8], at: usize) -> Option<Result<AttributeAt, Malformed>> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let parse = || {
        let &[l0, l1, k0, k1] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            return None;
        }
        Some(AttributeAt {
            kind: u16::from_ne_bytes([k0, k1]) & !NLA_FLAGS,
            payload: at + ATTRIBUTE_HEADER..at + length,
            next: at + aligned(length)?,
        })
    };
    Some(parse().ok_or(Malformed))
}

/// Iterates over the type (without flags) and payload of each attribute in a slice; ends after a malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// Iterates over the attributes in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = attribute_at(self.bytes, self.at)?;
        self.at = attribute.as_ref().map_or(self.bytes.len(), |attribute| attribute.next);
        Some(attribute.and_then(|AttributeAt { kind, payload, .. }| {
            Ok((kind, self.bytes.get(payload).ok_or(Malformed)?))
        }))
    }
}

/// Appends an attribute and its padding.
///
/// # Errors
///
/// Returns [`Malformed`], and appends nothing, if the payload exceeds 65,531 bytes.
pub fn put_attribute(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) -> Result<(), Malformed> {
    let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).map_err(|_| Malformed)?;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

/// Decodes a string attribute, up to its first NUL.
#[must_use]
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::in_namespace;
    use proptest::prelude::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_message(&mut bytes, kind, flags, sequence, payload);
        bytes
    }

    fn error(errno: Errno, echoed: usize) -> Vec<u8> {
        let mut payload = (-errno.raw_os_error()).to_ne_bytes().to_vec();
        payload.extend(u32::try_from(echoed).expect("short").to_ne_bytes());
        payload.resize(4 + echoed.next_multiple_of(4), 0);
        payload
    }

    fn outcome(bytes: &[u8]) -> Result<Option<Result<(), KernelError>>, Malformed> {
        Messages(bytes).next().expect("a message")?.outcome()
    }

    fn rejection(bytes: &[u8]) -> KernelError {
        outcome(bytes).expect("well-formed").expect("an outcome").expect_err("a rejection")
    }

    #[test]
    fn reads_the_extended_acknowledgment_of_errors() {
        for (flags, echoed) in [(NLM_F_CAPPED, HEADER), (0, HEADER + 13)] {
            let mut payload = error(Errno::NETUNREACH, echoed);
            put_attribute(&mut payload, NLMSGERR_ATTR_MSG, b"Nexthop has invalid gateway\0").expect("short");
            put_attribute(&mut payload, NLMSGERR_ATTR_OFFS, &36u32.to_ne_bytes()).expect("short");
            let error = rejection(&message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, 7, &payload));
            assert_eq!(
                error.to_string(),
                "Nexthop has invalid gateway (ENETUNREACH: Network is unreachable)"
            );
            assert_eq!((error.offset, error.missing), (Some(36), None));
        }
    }

    #[test]
    fn reads_plain_errors_acknowledgments_and_ends() {
        let plain = rejection(&message(NLMSG_ERROR, NLM_F_CAPPED, 1, &error(Errno::NODEV, HEADER)));
        assert_eq!(plain.to_string(), "ENODEV: No such device");
        let mut acknowledgment = vec![0; 4];
        acknowledgment.resize(4 + HEADER, 0);
        assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &acknowledgment)), Ok(Some(Ok(()))));
        assert_eq!(outcome(&message(NLMSG_DONE, 0, 1, &[0; 4])), Ok(Some(Ok(()))));
        assert_eq!(outcome(&message(NLMSG_DONE, 0, 1, &[])), Ok(Some(Ok(()))));
        assert_eq!(outcome(&message(24, 0, 1, &[])), Ok(None));
    }

    #[test]
    fn reads_errors_inside_done() {
        let mut payload = (-Errno::INVAL.raw_os_error()).to_ne_bytes().to_vec();
        put_attribute(&mut payload, NLMSGERR_ATTR_MSG, b"bad filter\0").expect("short");
        put_attribute(&mut payload, NLMSGERR_ATTR_MISS_TYPE, &4u32.to_ne_bytes()).expect("short");
        let error = rejection(&message(NLMSG_DONE, NLM_F_ACK_TLVS, 1, &payload));
        assert_eq!(error.to_string(), "bad filter (EINVAL: Invalid argument)");
        assert_eq!(error.missing, Some(4));
    }

    #[test]
    fn rejects_malformed_messages() {
        assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &[1])), Err(Malformed));
        assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &i32::MIN.to_ne_bytes())), Err(Malformed));
        assert_eq!(outcome(&message(1, 0, 1, &[])), Err(Malformed));
        assert_eq!(outcome(&[1, 2, 3]), Err(Malformed));
        let mut short = message(24, 0, 1, &[0; 8]);
        short.truncate(20);
        assert_eq!(outcome(&short), Err(Malformed));
        // A malformed extended acknowledgment does not hide the error.
        let mut payload = error(Errno::EXIST, HEADER);
        payload.extend([0xff; 7]);
        let error = rejection(&message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 1, &payload));
        assert_eq!(error, Errno::EXIST.into());
    }

    #[test]
    fn attributes_end_after_a_malformed_one() {
        let mut bytes = Vec::new();
        put_attribute(&mut bytes, 3 | 0x8000, b"abcde").expect("short");
        put_attribute(&mut bytes, 4, b"").expect("short");
        bytes.extend([3, 0, 1, 0]);
        let all: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!(all, [Ok((3, b"abcde".as_slice())), Ok((4, b"".as_slice())), Err(Malformed)]);
        assert_eq!(put_attribute(&mut bytes, 1, &[0; 65_532]), Err(Malformed));
    }

    #[test]
    fn numbers_a_batch_and_asks_once() {
        let mut bytes = message(16, NLM_F_ACK, 0, &[0; 4]);
        bytes.extend(message(2560, NLM_F_ACK | NLM_F_REQUEST, 9, &[0; 7]));
        bytes.extend(message(17, 0, 9, &[0; 4]));
        number(&mut bytes, u32::MAX, 1).expect("well-formed");
        let seen: Vec<_> =
            Messages(&bytes).map(|m| m.map(|m| (m.sequence, m.flags)).expect("well-formed")).collect();
        assert_eq!(seen, [(u32::MAX, 0), (0, NLM_F_ACK | NLM_F_REQUEST), (1, 0)]);
        bytes.push(0);
        number(&mut bytes, 1, 1).expect_err("a byte too many");
    }

    #[test]
    fn an_unprivileged_dump_works_with_any_buffer() {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        // RTM_GETLINK with an all-zero struct ifinfomsg (linux/rtnetlink.h).
        let whole = socket.dump(18, 0, &[0; 16]).expect("links").iter().count();
        socket.buffer = Vec::with_capacity(32);
        let again = socket.dump(18, 0, &[0; 16]).expect("links, on the second attempt").iter().count();
        assert!(whole >= 1);
        assert_eq!(whole, again);
    }

    #[test]
    fn a_dump_returns_the_kernel_s_error() {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        // This header is too short for RTM_GETLINK.
        let error = socket.dump(18, 0, &[0; 1]).expect_err("rejected");
        assert_eq!(error.errno, Errno::INVAL, "{error}");
    }

    /// A request that adds a blackhole route for one address, and fails if it exists.
    fn blackhole(address: [u8; 4]) -> Message {
        // struct rtmsg (linux/rtnetlink.h): a /32 in table main, protocol 87, RTN_BLACKHOLE.
        let mut payload = vec![2, 32, 0, 0, 254, 87, 0, 6, 0, 0, 0, 0];
        put_attribute(&mut payload, 1, &address).expect("short");
        // NLM_F_CREATE | NLM_F_EXCL.
        Message { message_type: 24, flags: 0x600, payload }
    }

    #[test]
    fn transact_reports_every_rejection_of_the_first_failing_send() {
        in_namespace(|| {
            let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
            let route = |number: u16| {
                let [high, low] = number.to_be_bytes();
                blackhole([10, 0, high, low])
            };
            let mut routes: Vec<_> = (0..1000).map(route).collect();
            socket.transact(&routes).expect("new routes");
            socket.transact(&[]).expect("nothing to do");

            // Send by send: 0..128, 128..256, 256..384.
            routes = (2000..2400).map(route).collect();
            for known in [255, 130, 129, 300] {
                routes[known] = route(7);
            }
            routes[255].payload.truncate(5);
            let refused = socket.transact(&routes).expect_err("known routes");
            assert_eq!(refused.failure, None);
            assert_eq!(refused.sent, 256);
            let seen: Vec<_> = refused.rejections.iter().map(|(at, error)| (*at, error.errno)).collect();
            assert_eq!(seen, [(129, Errno::EXIST), (130, Errno::EXIST), (255, Errno::INVAL)]);

            // The receive buffer fits the replies to a send whose requests are all rejected.
            let again: Vec<_> = (0..128).map(route).collect();
            assert_eq!(socket.transact(&again).expect_err("known routes").rejections.len(), 128);
            assert_eq!(
                socket.dump(26, 0, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect("routes").iter().count(),
                1253
            );
        });
    }

    #[test]
    fn an_off_link_gateway_is_rejected_with_the_kernel_s_text() {
        in_namespace(|| {
            let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
            // RTN_UNICAST with RTA_GATEWAY.
            let mut route = blackhole([10, 0, 0, 1]);
            route.payload[7] = 1;
            put_attribute(&mut route.payload, 5, &[192, 0, 2, 1]).expect("short");
            let refused = socket.transact(&[route]).expect_err("an unreachable gateway");
            assert_eq!(
                refused.rejections[0].1.to_string(),
                "Nexthop has invalid gateway (ENETUNREACH: Network is unreachable)"
            );
        });
    }

    #[test]
    fn a_batch_without_messages_is_an_error() {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        socket.batch(&mut []).expect_err("empty");
        socket.batch(&mut [1; 40]).expect_err("garbage");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0u16..20,
            flags in any::<u16>(),
        ) {
            let received = Received { kind, flags, sequence: 0, payload: &bytes };
            let _ = received.outcome();
            for message in Messages(&bytes).flatten() {
                let _ = message.outcome();
            }
            Attributes::new(&bytes).for_each(drop);
            let mut bytes = bytes;
            let _ = number(&mut bytes, 0, 0);
        }
    }
}
