//! Sends real packets between the namespaces. A question is a UDP packet, and its answer contains the source address
//! that the other end saw.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    error::Error,
    kernel::{Namespace, inside},
    model::Family,
    text::OsError,
};

/// The first dynamic port. Nothing else listens in these namespaces.
pub const PORT: u16 = 49_152;
/// How often to repeat unanswered questions: the first packets may wait for neighbor resolution.
const RETRY_INTERVAL: Duration = Duration::from_millis(150);
/// The ID of the next question.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// How long to wait for answers in the first round, whose interfaces are new.
pub const FIRST_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long to wait for answers in later rounds.
pub const TIMEOUT: Duration = Duration::from_millis(400);
/// How long to keep waiting after each answer.
const QUIET_PERIOD: Duration = Duration::from_millis(300);

/// The distance from the port that answers to the port that asks. They differ, because a question in one direction and
/// one in the other would otherwise be the same flow to connection tracking.
const ASKING: u16 = 8_192;

/// The sockets in a namespace.
#[derive(Debug)]
pub struct Endpoint {
    /// Receives questions, and answers them.
    answering: UdpSocket,
    /// Sends questions, and receives the answers.
    asking: UdpSocket,
    /// The port that answers. Packets of another port are another flow to connection tracking.
    port: u16,
}

impl Endpoint {
    /// Opens sockets of `family` in `namespace`, to answer on `port` and to ask.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened.
    pub fn open(namespace: &Namespace, family: Family, port: u16) -> Result<Self, Error> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::open_at(namespace, any, port)
    }

    /// Opens sockets with `address` in `namespace`. They receive only packets to this address.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened.
    pub fn open_at(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self, Error> {
        inside(namespace, || {
            let open = |port| -> io::Result<UdpSocket> {
                let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let both = || Ok(Self { answering: open(port)?, asking: open(port + ASKING)?, port });
            both().map_err(|error: io::Error| {
                Error::unexpected(format!("cannot open a probe socket: {}", OsError(&error)))
            })
        })
    }
}

/// A question: can `from` reach `to`?
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The index of the endpoint that asks.
    pub from: usize,
    /// The target address.
    pub to: IpAddr,
}

/// Asks all questions concurrently and waits `timeout` for answers. Returns for each question the source address that
/// the target saw, or `None` without an answer. Only the endpoints with the indexes `listening` are read.
///
/// # Errors
/// Returns an error if a socket fails.
pub fn ask(
    endpoints: &[Endpoint],
    listening: &[usize],
    probes: &[Probe],
    timeout: Duration,
) -> Result<Vec<Option<IpAddr>>, Error> {
    // Late answers to earlier questions must not be mistaken for answers to these.
    let count = u32::try_from(probes.len()).unwrap_or(u32::MAX);
    let first = NEXT_ID.fetch_add(count, Ordering::Relaxed);
    let mut answers = vec![None; probes.len()];
    let failed = |error: io::Error| Error::unexpected(format!("cannot probe: {}", OsError(&error)));
    let start = Instant::now();
    let mut next = start;
    let (mut unanswered, mut last_answer) = (answers.len(), start);
    while unanswered > 0 && (start.elapsed() < timeout || last_answer.elapsed() < QUIET_PERIOD) {
        if Instant::now() >= next {
            send_unanswered(endpoints, probes, &answers, first);
            next += RETRY_INTERVAL;
        }
        let time = next.saturating_duration_since(Instant::now());
        for socket in ready(endpoints, listening, time).map_err(failed)? {
            receive(socket, &mut answers, first).map_err(failed)?;
        }
        let remaining = answers.iter().filter(|answer| answer.is_none()).count();
        if remaining < unanswered {
            (unanswered, last_answer) = (remaining, Instant::now());
        }
    }
    Ok(answers)
}

/// Sends the unanswered questions. A send error counts as no answer.
fn send_unanswered(endpoints: &[Endpoint], probes: &[Probe], answers: &[Option<IpAddr>], first: u32) {
    for ((id, probe), _) in (first..).zip(probes).zip(answers).filter(|(_, answer)| answer.is_none()) {
        let Endpoint { asking, port, .. } = &endpoints[probe.from];
        let _ = asking.send_to(&question(id), SocketAddr::new(probe.to, *port));
    }
}

/// Waits up to `time`, and returns the sockets that have received something.
fn ready<'a>(
    endpoints: &'a [Endpoint],
    listening: &[usize],
    time: Duration,
) -> io::Result<Vec<&'a UdpSocket>> {
    let listening = listening.iter().map(|index| &endpoints[*index]);
    let listening: Vec<&UdpSocket> =
        listening.flat_map(|endpoint| [&endpoint.answering, &endpoint.asking]).collect();
    let mut descriptors: Vec<_> =
        listening.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut descriptors, Some(&time)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    }
    let is_ready = |descriptor: &PollFd| !descriptor.revents().is_empty();
    Ok(listening
        .iter()
        .zip(&descriptors)
        .filter(|(_, found)| is_ready(found))
        .map(|(found, _)| *found)
        .collect())
}

/// Reads all received packets: answers questions and records answers.
fn receive(socket: &UdpSocket, answers: &mut [Option<IpAddr>], first: u32) -> io::Result<()> {
    let mut buffer = [0_u8; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => match parse(&buffer[..length]) {
                Some(ProbeMessage::Question(id)) => {
                    let _ = socket.send_to(&answer(id, from.ip()), from);
                }
                Some(ProbeMessage::Answer(id, seen)) => {
                    let index = id.checked_sub(first).and_then(|index| usize::try_from(index).ok());
                    if let Some(answer) = index.and_then(|index| answers.get_mut(index)) {
                        *answer = Some(seen);
                    }
                }
                None => {}
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // ICMP errors that belong to an earlier question.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

enum ProbeMessage {
    Question(u32),
    Answer(u32, IpAddr),
}

fn question(id: u32) -> [u8; 5] {
    let [a, b, c, d] = id.to_be_bytes();
    [b'?', a, b, c, d]
}

fn answer(id: u32, seen: IpAddr) -> Vec<u8> {
    let mut bytes = vec![b'!'];
    bytes.extend_from_slice(&id.to_be_bytes());
    match seen {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
    bytes
}

fn parse(bytes: &[u8]) -> Option<ProbeMessage> {
    let (kind, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let id = u32::from_be_bytes(*id);
    match (kind, rest.len()) {
        (b'?', 0) => Some(ProbeMessage::Question(id)),
        (b'!', 4) => Some(ProbeMessage::Answer(id, <[u8; 4]>::try_from(rest).ok()?.into())),
        (b'!', 16) => Some(ProbeMessage::Answer(id, <[u8; 16]>::try_from(rest).ok()?.into())),
        _ => None,
    }
}
