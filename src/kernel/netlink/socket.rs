//! A netlink socket: dumps, single requests, packed changes and nftables batches.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rtnetlink::sys::{self, protocols::NETLINK_ROUTE};
use rustix::{
    buffer::spare_capacity,
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use super::{
    error::{KernelError, Malformed},
    wire::{
        HEADER, Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, Received, close_message,
        number, put_message,
    },
};
use crate::{error::Error, fault, text::OsError};

/// Fits 10,000 error replies; the default of 208 KiB loses half of them.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The initial size of the receive buffer. The kernel's dumps use datagrams of up to 32 KiB (`netlink_dump`,
/// af_netlink.c), except for links with many virtual functions: for those the buffer grows.
const DATAGRAM: usize = 64 << 10;
/// The kernel replies immediately; this only prevents a hang when it is out of memory.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of attempts to get a consistent dump before hostgw gives up.
const MAX_ATTEMPTS: usize = 10;
/// More messages per send would lose error replies where the receive buffer could not be raised.
const MESSAGES_PER_SEND: usize = 128;
/// Well below the default send buffer (208 KiB), which bounds one send.
const BYTES_PER_SEND: usize = 64 << 10;

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

/// Requests that change objects, packed one after another as they are sent.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    /// The end of each request.
    ends: Vec<usize>,
}

impl Requests {
    /// Appends a request. `payload` appends its family header and attributes.
    pub fn put<T>(&mut self, message_type: u16, flags: u16, payload: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.bytes.len();
        put_message(&mut self.bytes, message_type, flags & !NLM_F_ACK | NLM_F_REQUEST, 0, &[]);
        let result = payload(&mut self.bytes);
        close_message(&mut self.bytes, start);
        self.ends.push(self.bytes.len());
        result
    }

    /// Returns the number of requests.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Removes all requests after the first `count`, and keeps the memory.
    pub fn truncate(&mut self, count: usize) {
        let end = count.checked_sub(1).and_then(|last| self.ends.get(last));
        self.bytes.truncate(end.copied().unwrap_or(0));
        self.ends.truncate(count);
    }

    /// Returns the requests from `first` on that can be sent at once, and their number.
    fn packet(&mut self, first: usize) -> Option<(&mut [u8], usize)> {
        let start = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        let rest = self.ends.get(first..)?;
        let is_small = |end: &&usize| **end - start <= BYTES_PER_SEND;
        let count = rest.iter().take(MESSAGES_PER_SEND).take_while(is_small).count().max(1);
        let end = *rest.get(count - 1)?;
        Some((self.bytes.get_mut(start..end)?, count))
    }
}

/// The failure of a sequence of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Index and error of every request that the kernel rejected, in order.
    pub rejections: Vec<(usize, KernelError)>,
    /// The number of requests before the failed send, all of which took effect.
    pub before: usize,
    /// The number of requests up to the end of the failed send. Unless there is a `failure`, those that the kernel did not
    /// reject took effect; of an nftables batch, none did.
    pub sent: usize,
    /// Set if requests could not be sent or replies not be read: the outcome of the last send is then unknown.
    pub failure: Option<KernelError>,
}

impl Refused {
    /// A failure without a send.
    fn unsent(count: usize, failure: KernelError) -> Self {
        Self { sent: count, failure: Some(failure), ..Self::default() }
    }

    /// Returns the indexes of the requests that did not take effect, or may not have, in order and each once.
    pub fn failed(&self) -> Vec<usize> {
        match self.failure {
            Some(_) => (self.before..self.sent).collect(),
            None => self.rejections.iter().map(|(index, _)| *index).collect(),
        }
    }

    /// Adjusts the count and the indexes of a send of `count` requests for `before` requests sent earlier.
    pub(super) fn after(mut self, before: usize, count: usize) -> Self {
        (self.before, self.sent) = (before, before + count);
        for (index, _) in &mut self.rejections {
            *index += before;
        }
        self
    }
}

/// A message that the kernel sends to a multicast group.
#[derive(Debug, Clone, Copy)]
pub struct Notification<'a> {
    /// `nlmsg_type`, such as `RTM_NEWROUTE`.
    pub kind: u16,
    /// The port of the socket that made the change, usually the ID of its process; 0 for the kernel.
    pub port: u32,
    /// The family header and the attributes.
    pub payload: &'a [u8],
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
#[derive(Debug)]
pub struct Socket {
    inner: sys::Socket,
    sequence: u32,
    pub(super) buffer: Vec<u8>,
}

/// Opens a socket to the routing subsystem of the namespace of the calling thread.
///
/// # Errors
/// Returns an error if the kernel refuses.
pub fn open_route_socket() -> Result<Socket, Error> {
    Socket::open(NETLINK_ROUTE).map_err(|error| {
        Error::unexpected(format!("cannot open a route netlink socket: {}", OsError(&error)))
    })
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
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

    /// Joins a multicast group, to receive its notifications with [`Self::drain`].
    ///
    /// # Errors
    /// Returns the system call's error.
    pub fn subscribe(&mut self, group: u32) -> io::Result<()> {
        let mut address = sys::SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        if address.port_number() == 0 {
            // The kernel's own notifications do not reach a socket without a port (`do_one_broadcast`, af_netlink.c).
            self.inner.bind_auto()?;
        }
        self.inner.add_membership(group)
    }

    /// Passes every notification that has arrived to `take`. Returns `true` if some were lost.
    pub fn drain(&mut self, mut take: impl FnMut(Notification<'_>)) -> bool {
        let mut is_lossy = false;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(()) => {}
                Err(Errno::NOBUFS | Errno::MSGSIZE) => {
                    is_lossy = true;
                    continue;
                }
                Err(_) => return is_lossy,
            }
            for message in Messages(&self.buffer) {
                match message {
                    Ok(Received { kind, port, payload, .. }) => take(Notification { kind, port, payload }),
                    Err(Malformed) => is_lossy = true,
                }
            }
        }
    }

    /// Limits the memory that unread notifications may take.
    pub fn limit_receive_buffer(&self, bytes: usize) {
        // Without it, more are kept, which does no harm.
        let _ = sockopt::set_socket_recv_buffer_size(self.inner.as_fd(), bytes);
    }

    /// Requests a dump, with `flags` besides `NLM_F_DUMP`; `payload` is the family header and the attributes.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error; `EINTR` or `ENOBUFS` if no attempt gave a consistent reply.
    pub fn dump(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<Dump, KernelError> {
        self.query(message_type, flags | NLM_F_DUMP, payload, Dump::default, Dump::push)
    }

    /// Requests a dump, and passes the payload of each message to `take`, with what `new` created. Both start over if the
    /// kernel's reply is inconsistent.
    ///
    /// # Errors
    ///
    /// As [`Self::dump`].
    pub fn dump_into<T>(
        &mut self,
        message_type: u16,
        payload: &[u8],
        new: impl Fn() -> T,
        take: impl Fn(&mut T, &[u8]),
    ) -> Result<T, KernelError> {
        self.query(message_type, NLM_F_DUMP, payload, new, |collected, message| {
            take(collected, message.payload)
        })
    }

    /// Requests one object.
    ///
    /// # Errors
    ///
    /// As [`Self::dump`]; usually `ENOENT` for an object that does not exist.
    pub fn get(&mut self, message_type: u16, payload: &[u8]) -> Result<Dump, KernelError> {
        self.query(message_type, NLM_F_ACK, payload, Dump::default, Dump::push)
    }

    /// Sends a request, and retries if the reply is inconsistent.
    fn query<T>(
        &mut self,
        message_type: u16,
        flags: u16,
        payload: &[u8],
        new: impl Fn() -> T,
        take: impl Fn(&mut T, &Received<'_>),
    ) -> Result<T, KernelError> {
        let mut attempts = 0;
        loop {
            let sequence = self.request(message_type, flags, payload)?;
            attempts += 1;
            match self.collect(sequence, new(), &take)? {
                Ok(collected) => return Ok(collected),
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
    fn collect<T>(
        &mut self,
        sequence: u32,
        mut collected: T,
        take: impl Fn(&mut T, &Received<'_>),
    ) -> Result<Result<T, Errno>, KernelError> {
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
                    None => take(&mut collected, &message),
                    Some(Ok(())) => return Ok(inconsistency.map_or(Ok(collected), Err)),
                    Some(Err(error)) if error.errno == Errno::INTR => return Ok(Err(Errno::INTR)),
                    Some(Err(error)) => return Err(error),
                }
            }
        }
    }

    /// Sends `messages` as [`Self::transact`] does.
    ///
    /// # Errors
    ///
    /// As [`Self::transact`].
    pub fn transact_all(&mut self, messages: &[Message]) -> Result<(), Refused> {
        let mut requests = Requests::default();
        for Message { message_type, flags, payload } in messages {
            requests.put(*message_type, *flags, |bytes| bytes.extend_from_slice(payload));
        }
        self.transact(&mut requests, 0)
    }

    /// Sends requests from `first` on, as many per system call as is safe. Stops after the first send in which the kernel
    /// rejects one.
    ///
    /// # Errors
    ///
    /// Returns which requests the kernel rejected, by their indexes, and the index after the last one of that send. Those
    /// of a send that failed count as sent.
    pub fn transact(&mut self, requests: &mut Requests, first: usize) -> Result<(), Refused> {
        let mut sent = first;
        while let Some((bytes, count)) = requests.packet(sent) {
            let first = self.sequence.wrapping_add(1);
            self.sequence = u32::try_from(count).map_or(0, |count| self.sequence.wrapping_add(count));
            number(bytes, first, count - 1)
                .map_err(|failure| Refused::unsent(count, failure))
                .and_then(|()| self.exchange(bytes, first, count))
                .map_err(|refused| refused.after(sent, count))?;
            sent += count;
        }
        Ok(())
    }

    /// Sends questions, as many per system call as is safe, and passes each answer to `take` with the question's index:
    /// the payload of the reply, or the error that is the answer.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel could not be asked, or did not answer every question.
    pub fn ask(
        &mut self,
        questions: &mut Requests,
        take: &mut impl FnMut(usize, Result<&[u8], KernelError>),
    ) -> Result<(), KernelError> {
        let (mut sent, mut attempts) = (0, 0);
        'packets: while let Some((bytes, count)) = questions.packet(sent) {
            let first = self.sequence.wrapping_add(1);
            self.sequence = u32::try_from(count).map_or(0, |count| self.sequence.wrapping_add(count));
            number(bytes, first, count)?;
            self.send(bytes)?;
            attempts += 1;
            let mut missing = count;
            while missing > 0 {
                match self.receive(RecvFlags::empty()) {
                    Ok(()) => {}
                    // Answers were lost. A question changes nothing, so it can be asked again.
                    Err(Errno::NOBUFS) if attempts < MAX_ATTEMPTS => continue 'packets,
                    Err(Errno::NOBUFS) => return Err(KernelError::inconsistent(Errno::NOBUFS)),
                    Err(Errno::AGAIN) => {
                        return Err(KernelError::with_text(Errno::TIMEDOUT, "the kernel did not reply"));
                    }
                    Err(errno) => return Err(errno.into()),
                }
                for message in Messages(&self.buffer) {
                    let message = message?;
                    let index = message.sequence.wrapping_sub(first) as usize;
                    if index >= count {
                        continue;
                    }
                    missing = missing.saturating_sub(1);
                    match message.outcome()? {
                        None => take(sent + index, Ok(message.payload)),
                        Some(Err(error)) => take(sent + index, Err(error)),
                        Some(Ok(())) => {}
                    }
                }
            }
            (sent, attempts) = (sent + count, 0);
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
        let failed = |failure| Refused::unsent(0, failure);
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
        self.send(bytes).map_err(|errno| Refused::unsent(0, errno.into()))?;
        let mut refused = Refused { sent: count, ..Refused::default() };
        let mut acknowledged = false;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(()) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => {
                    refused.failure = Some(KernelError::with_text(
                        Errno::NOBUFS,
                        "the kernel's replies did not fit in the socket buffer",
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
        fault::lose_reply()?;
        self.buffer.clear();
        let (read, length) = retry_on_intr(|| {
            recv(self.inner.as_fd(), spare_capacity(&mut self.buffer), flags | RecvFlags::TRUNC)
        })?;
        if length > read {
            self.buffer.clear();
            self.buffer.reserve(length);
            return Err(Errno::MSGSIZE);
        }
        fault::interrupt_reply(&mut self.buffer);
        Ok(())
    }
}
