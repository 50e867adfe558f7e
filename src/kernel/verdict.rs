//! Asks the kernel which way it would forward packets (`ip route get … from … iif …`).

use std::{
    fs, io,
    net::IpAddr,
    num::NonZero,
    panic::resume_unwind,
    thread::{self, Scope, ScopedJoinHandle},
};

use rtnetlink::{packet_core::Parseable, packet_route::route::RouteMessage};
use rustix::io::Errno;

use super::{
    link::Links,
    netlink::{KernelError, Requests, put_attribute},
    open_route_socket,
    route::{RTM_GETROUTE, RouteAnswer, family_number, next_hops},
    unreadable,
};
use crate::{
    error::Error,
    forwarding::{Hop, Packet, Refusal, Verdict, drops},
    model::{Family, SysctlKey},
    progress::Task,
    text::Untrusted,
};

// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
/// Returns the route itself rather than the way through it.
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// With fewer questions for each thread, starting it takes longer than it saves.
const MIN_PER_THREAD: usize = 512;

/// Asks the kernel what it would do with packets, in their order. Needs no privilege.
///
/// The kernel answers such questions without its lock for routes, so many of them are asked on several threads.
///
/// # Errors
/// Returns an error if the kernel does not answer.
pub fn verdicts(packets: &[Packet]) -> Result<Vec<Verdict>, Error> {
    if packets.is_empty() {
        return Ok(Vec::new());
    }
    let _task = Task::begin("asking the kernel for its routes");
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(packets.len() / MIN_PER_THREAD).max(1);
    let mut parts = packets.chunks(packets.len().div_ceil(threads));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| (part, spawn(scope, part))).collect();
        let mut verdicts = ask(own)?;
        for (part, thread) in others {
            // Without another thread, this one asks.
            verdicts.append(&mut match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic))?,
                Err(_) => ask(part)?,
            });
        }
        Ok(verdicts)
    })
}

/// Asks on another thread, which is in the network namespace of this one.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    packets: &'scope [Packet],
) -> io::Result<ScopedJoinHandle<'scope, Result<Vec<Verdict>, Error>>> {
    thread::Builder::new().name("verdicts".to_owned()).spawn_scoped(scope, || ask(packets))
}

fn ask(packets: &[Packet]) -> Result<Vec<Verdict>, Error> {
    let mut socket = open_route_socket()?;
    let links = Links::read(&mut socket).map_err(|error| unreadable("the interfaces", &error))?;
    let cannot = |error: KernelError| {
        Error::unexpected(format!("cannot ask the kernel for its routes: {error}"))
            .with_hint_if(error.inconsistent_hint())
    };
    let mut requests = Requests::default();
    // Without its interface, no packet comes in.
    let mut verdicts = vec![Verdict::Refused(Refusal::Other(Errno::NODEV.raw_os_error())); packets.len()];
    let mut asked = Vec::with_capacity(packets.len());
    for (index, packet) in packets.iter().enumerate() {
        let input = match &packet.input {
            Some(input) => match links.index(input.as_raw()) {
                Some(index) => Some(index),
                None => continue,
            },
            None => None,
        };
        requests.put(RTM_GETROUTE, 0, |bytes| put_question(bytes, packet, input)).map_err(cannot)?;
        asked.push(index);
    }
    let mut verdict = |at: usize, answer: Result<&[u8], KernelError>| {
        if let Some(verdict) = asked.get(at).and_then(|index| verdicts.get_mut(*index)) {
            *verdict = match answer {
                Ok(payload) => read(payload, &links),
                Err(error) => Verdict::Refused(refusal(error.errno)),
            };
        }
    };
    socket.ask(&mut requests, &mut verdict).map_err(cannot)?;
    let is_v6 = |packet: &Packet| packet.destination.is_ipv6();
    if packets.iter().any(is_v6) && !forwards_v6() {
        // The kernel decides this only when it forwards a packet.
        let packets = packets.iter().zip(&mut verdicts);
        for (packet, verdict) in packets.filter(|(packet, _)| is_v6(packet)) {
            let Some(input) = &packet.input else { continue };
            if matches!(verdict, Verdict::Forwarded { .. }) && !is_forced(input) {
                *verdict = Verdict::Refused(Refusal::Unreachable);
            }
        }
    }
    Ok(verdicts)
}

fn put_question(bytes: &mut Vec<u8>, packet: &Packet, input: Option<u32>) -> Result<(), KernelError> {
    let family = Family::from(packet.destination);
    bytes.extend_from_slice(&[family_number(family), family.bits(), family.bits(), 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
    for (kind, address) in [(RTA_DST, packet.destination), (RTA_SRC, packet.source)] {
        match address {
            IpAddr::V4(address) => put_attribute(bytes, kind, &address.octets())?,
            IpAddr::V6(address) => put_attribute(bytes, kind, &address.octets())?,
        }
    }
    if let Some(input) = input {
        put_attribute(bytes, RTA_IIF, &input.to_ne_bytes())?;
    }
    Ok(())
}

fn read(payload: &[u8], links: &Links) -> Verdict {
    let Some(RouteAnswer { kind, length, gateway, interface, has_several_hops }) = RouteAnswer::read(payload)
    else {
        return Verdict::Refused(refusal(Errno::PROTO));
    };
    if kind.is_local() {
        return Verdict::Local;
    }
    if let Some(refusal) = drops(kind) {
        return Verdict::Refused(refusal);
    }
    let device = interface.and_then(|index| links.name(index)).cloned();
    let mut hops: Vec<Hop> = device.into_iter().map(|device| Hop { gateway, device }).collect();
    if has_several_hops && let Ok(route) = RouteMessage::parse(payload) {
        let several = next_hops(&route, links).into_iter();
        hops.extend(several.filter_map(|hop| Some(Hop { gateway: hop.gateway, device: hop.device? })));
    }
    Verdict::Forwarded { length, hops }
}

fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::NETUNREACH => Refusal::NoRoute,
        Errno::HOSTUNREACH => Refusal::Unreachable,
        Errno::ACCESS => Refusal::Prohibited,
        Errno::INVAL | Errno::XDEV => Refusal::Invalid,
        other => Refusal::Other(other.raw_os_error()),
    }
}

fn forwards_v6() -> bool {
    is_set(&SysctlKey::ipv6_forwarding())
}

/// `force_forwarding` of the interface, since Linux 6.17.
fn is_forced(input: &Untrusted) -> bool {
    SysctlKey::from_parts(["net", "ipv6", "conf", input.as_raw(), "force_forwarding"])
        .is_ok_and(|key| is_set(&key))
}

fn is_set(key: &SysctlKey) -> bool {
    let value = fs::read_to_string(super::sysctl::file(key));
    value.is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests;
