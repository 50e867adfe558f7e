//! Asks for MAC addresses with ARP and neighbor discovery, past the kernel's neighbor table, which keeps only one answer and
//! asks for no static entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, send, sendto,
        socket_with, sockopt,
    },
};

use super::{HopAddress, TICK};
use crate::{kernel::ffi, model::solicited_node};

/// A MAC address of Ethernet.
type MacAddress = [u8; 6];

/// The interface that questions are asked on.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Asker {
    /// The number of the interface.
    pub interface: u32,
    /// Its MAC address.
    pub hardware: MacAddress,
    /// One of its IPv4 addresses, if it has any.
    pub address: Option<Ipv4Addr>,
}

/// The time to wait for the first answers, after which questions without one are asked again.
const FIRST: Duration = Duration::from_millis(300);
/// The time to wait for all answers.
const ALL: Duration = Duration::from_millis(900);
/// The time to wait for a second answer, once all have answered.
const SECOND: Duration = Duration::from_millis(150);

/// `ETH_P_ARP` (linux/if_ether.h).
const ARP: u16 = 0x0806;
/// ARP for IPv4 on Ethernet: the kinds and lengths of the addresses.
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// Types and options of neighbor discovery (RFC 4861).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// The MAC addresses in the answers about each address.
pub(in crate::kernel) type Answers = BTreeMap<HopAddress, BTreeSet<MacAddress>>;

/// Asks for the MAC addresses of `targets` on one interface.
///
/// # Errors
/// Returns an error if packets cannot be sent and received, which requires `CAP_NET_RAW`.
pub(in crate::kernel) fn answers(asker: Asker, targets: &[IpAddr]) -> io::Result<Answers> {
    let v4: Vec<Ipv4Addr> = targets.iter().filter_map(|target| as_v4(*target)).collect();
    let v6: Vec<Ipv6Addr> = targets.iter().filter_map(|target| as_v6(*target)).collect();
    let arp = if v4.is_empty() { None } else { Some(arp_socket(asker.interface)?) };
    let discovery = if v6.is_empty() { None } else { Some(discovery_socket(asker.interface)?) };
    let mut found = Answers::new();
    let ask = |found: &Answers| -> io::Result<()> {
        let is_silent = |target: IpAddr| !found.contains_key(&(target, asker.interface));
        if let Some(socket) = &arp {
            for target in v4.iter().filter(|target| is_silent((**target).into())) {
                ignore_full(send(socket, &arp_request(asker, *target), SendFlags::empty()))?;
            }
        }
        if let Some(socket) = &discovery {
            for target in v6.iter().filter(|target| is_silent((**target).into())) {
                let to = SocketAddrV6::new(solicited_node(*target), 0, 0, asker.interface);
                ignore_full(sendto(socket, &solicitation(asker, *target), SendFlags::empty(), &to))?;
            }
        }
        Ok(())
    };
    let start = Instant::now();
    ask(&found)?;
    let mut is_repeated = false;
    let mut complete: Option<Instant> = None;
    while start.elapsed() < ALL && complete.is_none_or(|complete| complete.elapsed() < SECOND) {
        wait([&arp, &discovery])?;
        let mut note = |(address, hardware): (IpAddr, MacAddress)| {
            if targets.contains(&address) {
                found.entry((address, asker.interface)).or_default().insert(hardware);
            }
        };
        arp.iter().try_for_each(|socket| receive(socket, arp_answer, &mut note))?;
        discovery.iter().try_for_each(|socket| receive(socket, discovery_answer, &mut note))?;
        if complete.is_none() && found.len() == targets.len() {
            complete = Some(Instant::now());
        }
        if !is_repeated && start.elapsed() > FIRST {
            is_repeated = true;
            ask(&found)?;
        }
    }
    Ok(found)
}

const fn as_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn as_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// A packet that the interface has no room for is lost, like one on the network.
fn ignore_full(sent: Result<usize, Errno>) -> io::Result<()> {
    match sent {
        Ok(_) | Err(Errno::NOBUFS | Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn raw_socket(family: AddressFamily, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::RAW, flags, protocol)?)
}

/// Opens a socket for the ARP packets of an interface.
fn arp_socket(interface: u32) -> io::Result<OwnedFd> {
    let socket = raw_socket(AddressFamily::PACKET, None)?;
    ffi::bind_to_ethernet(socket.as_fd(), ARP, interface)?;
    Ok(socket)
}

/// Opens a socket for ICMPv6 that sends to the link of an interface.
fn discovery_socket(interface: u32) -> io::Result<OwnedFd> {
    let socket = raw_socket(AddressFamily::INET6, Some(ipproto::ICMPV6))?;
    sockopt::set_ipv6_multicast_if(&socket, interface)?;
    // Receivers drop other packets: they could come from beyond a router.
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    Ok(socket)
}

fn wait(sockets: [&Option<OwnedFd>; 2]) -> io::Result<()> {
    let mut watched: Vec<PollFd<'_>> =
        sockets.into_iter().flatten().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    match poll(&mut watched, Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Passes each answer that a socket has received to `note`.
fn receive(
    socket: &OwnedFd,
    read: fn(&[u8]) -> Option<(IpAddr, MacAddress)>,
    note: &mut impl FnMut((IpAddr, MacAddress)),
) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        match recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _)) => buffer.get(..length).and_then(read).into_iter().for_each(&mut *note),
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns an Ethernet frame with an ARP request.
fn arp_request(asker: Asker, target: Ipv4Addr) -> Vec<u8> {
    let source = asker.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut frame = vec![0xff; 6];
    frame.extend(asker.hardware);
    frame.extend(ARP.to_be_bytes());
    frame.extend(ARP_KIND);
    frame.extend([0, REQUEST]);
    frame.extend(asker.hardware);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// Returns the address that an ARP reply is about, and its MAC address.
fn arp_answer(frame: &[u8]) -> Option<(IpAddr, MacAddress)> {
    let (header, packet) = frame.split_at_checked(14)?;
    let is_reply =
        header[12..] == ARP.to_be_bytes() && packet.get(..8)? == [&ARP_KIND[..], &[0, REPLY]].concat();
    let hardware: &MacAddress = packet.get(8..)?.first_chunk()?;
    let address: &[u8; 4] = packet.get(14..)?.first_chunk()?;
    is_reply.then_some((IpAddr::from(*address), *hardware))
}

/// Returns a neighbor solicitation. The kernel computes its checksum.
fn solicitation(asker: Asker, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([SOURCE_ADDRESS, 1]);
    message.extend(asker.hardware);
    message
}

/// Returns the address that a neighbor advertisement is about, and its MAC address.
fn discovery_answer(message: &[u8]) -> Option<(IpAddr, MacAddress)> {
    let is_answer = *message.first()? == ADVERTISEMENT;
    let target: &[u8; 16] = message.get(8..)?.first_chunk()?;
    let mut options = message.get(24..)?;
    while let [kind, length, ..] = *options {
        let length = usize::from(length) * 8;
        if kind == TARGET_ADDRESS && length == 8 {
            let hardware: &MacAddress = options.get(2..)?.first_chunk()?;
            return is_answer.then_some((IpAddr::from(*target), *hardware));
        }
        options = options.get(length..).filter(|_| length > 0)?;
    }
    None
}
