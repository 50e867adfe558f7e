//! Real packets between the namespaces: a question goes out by UDP, and the answer says from which source
//! the other end saw it come.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::build::inside;
use crate::{error::Error, kernel::Namespace, model::Family};

/// The discard port's neighbour in the dynamic range; nothing else listens in these namespaces.
const PORT: u16 = 49_152;
/// Unanswered questions are asked again this often: the first ones may wait for neighbours to be found.
const AGAIN: Duration = Duration::from_millis(150);
/// The number of the next question.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// What is not answered in this time is lost: for the first questions, and for later ones. IPv6 takes a second
/// until a new interface is ready.
pub const FIRST_PATIENCE: Duration = Duration::from_millis(1_500);
/// See [`FIRST_PATIENCE`].
pub const PATIENCE: Duration = Duration::from_millis(400);
/// As long as answers come, there is more patience than that.
const QUIET: Duration = Duration::from_millis(300);

/// A socket at one end.
#[derive(Debug)]
pub struct Endpoint {
    socket: UdpSocket,
}

impl Endpoint {
    /// A socket of `family` in `namespace` that asks and answers.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(namespace: &Namespace, family: Family) -> Result<Self, Error> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        inside(namespace, || {
            let open = || -> io::Result<UdpSocket> {
                let socket = UdpSocket::bind(SocketAddr::new(any, PORT))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let socket = open()
                .map_err(|error| Error::unexpected(format!("cannot open a socket to probe with: {error}")))?;
            Ok(Self { socket })
        })
    }
}

/// A question: can `from` reach `to`?
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Index of the endpoint that asks.
    pub from: usize,
    /// The address that is asked.
    pub to: IpAddr,
}

/// Asks all questions at once, and waits for answers for `patience`. Gives, question by question, the source that the other end saw; `None` for
/// what got no answer.
///
/// # Errors
/// When the sockets fail.
pub fn ask(
    endpoints: &[Endpoint],
    probes: &[Probe],
    patience: Duration,
) -> Result<Vec<Option<IpAddr>>, Error> {
    // Late answers to earlier questions must not be taken for answers to these.
    let count = u32::try_from(probes.len()).unwrap_or(u32::MAX);
    let first = NEXT_ID.fetch_add(count, Ordering::Relaxed);
    let mut answers = vec![None; probes.len()];
    let failed = |error: io::Error| Error::unexpected(format!("cannot probe: {error}"));
    let begun = Instant::now();
    let mut next = begun;
    let (mut open, mut last) = (answers.len(), begun);
    while open > 0 && (begun.elapsed() < patience || last.elapsed() < QUIET) {
        if Instant::now() >= next {
            send_open(endpoints, probes, &answers, first);
            next += AGAIN;
        }
        wait(endpoints, next.saturating_duration_since(Instant::now())).map_err(failed)?;
        for endpoint in endpoints {
            receive(endpoint, &mut answers, first).map_err(failed)?;
        }
        let now = answers.iter().filter(|answer| answer.is_none()).count();
        if now < open {
            (open, last) = (now, Instant::now());
        }
    }
    Ok(answers)
}

/// A question that cannot even be sent is a question without an answer.
fn send_open(endpoints: &[Endpoint], probes: &[Probe], answers: &[Option<IpAddr>], first: u32) {
    for ((id, probe), _) in (first..).zip(probes).zip(answers).filter(|(_, answer)| answer.is_none()) {
        let _ = endpoints[probe.from].socket.send_to(&question(id), SocketAddr::new(probe.to, PORT));
    }
}

fn wait(endpoints: &[Endpoint], time: Duration) -> io::Result<()> {
    let mut descriptors: Vec<_> =
        endpoints.iter().map(|endpoint| PollFd::new(&endpoint.socket, PollFlags::IN)).collect();
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut descriptors, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes everything that has come: answers questions, notes answers.
fn receive(endpoint: &Endpoint, answers: &mut [Option<IpAddr>], first: u32) -> io::Result<()> {
    let mut buffer = [0_u8; 64];
    loop {
        match endpoint.socket.recv_from(&mut buffer) {
            Ok((length, from)) => match parse(&buffer[..length]) {
                Some(Message::Question(id)) => {
                    let _ = endpoint.socket.send_to(&answer(id, from.ip()), from);
                }
                Some(Message::Answer(id, seen)) => {
                    let place = id.checked_sub(first).and_then(|place| usize::try_from(place).ok());
                    if let Some(place) = place.and_then(|place| answers.get_mut(place)) {
                        *place = Some(seen);
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

enum Message {
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

fn parse(bytes: &[u8]) -> Option<Message> {
    let (kind, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let id = u32::from_be_bytes(*id);
    match (kind, rest.len()) {
        (b'?', 0) => Some(Message::Question(id)),
        (b'!', 4) => Some(Message::Answer(id, <[u8; 4]>::try_from(rest).ok()?.into())),
        (b'!', 16) => Some(Message::Answer(id, <[u8; 16]>::try_from(rest).ok()?.into())),
        _ => None,
    }
}
