//! The headers of the packets that represent the traffic between two pods.

use std::net::IpAddr;

use super::{Packet, register::Byte};
use crate::model::Family;

/// The protocol of a sample packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// The first packet of a TCP connection (SYN), or the answer to it (SYN and ACK).
    Tcp,
    /// A UDP packet.
    Udp,
    /// An echo request of ICMP or ICMPv6, or the reply.
    Icmp,
    /// An IPv6 neighbor solicitation (RFC 4861), the counterpart of an ARP request.
    Solicitation,
    /// A neighbor advertisement, the answer to a solicitation.
    Advertisement,
}

/// The port that represents services between pods. No firewall treats it specially: it is not in IANA's registry,
/// Linux does not choose it for clients (`ip_local_port_range`), and Kubernetes does not choose it for services
/// (30000 to 32767).
pub const SAMPLE_PORT: u16 = 23_457;
/// The port of a client.
pub const CLIENT_PORT: u16 = 45_678;

impl Transport {
    /// Returns `true` if connection tracking ignores the packet, as it does for neighbor discovery (`nf_conntrack_icmpv6_error`,
    /// net/netfilter/nf_conntrack_proto_icmpv6.c).
    #[must_use]
    pub const fn is_untracked(self) -> bool {
        matches!(self, Self::Solicitation | Self::Advertisement)
    }

    /// The protocols of pods.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// `IPPROTO_*` (linux/in.h, linux/in6.h).
    #[must_use]
    pub const fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Icmp, Family::V4) => 1,
            (Self::Icmp, Family::V6) | (Self::Solicitation | Self::Advertisement, _) => 58,
        }
    }

    /// Returns the name of the protocol in text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
            Self::Solicitation => "neighbor solicitation",
            Self::Advertisement => "neighbor advertisement",
        }
    }
}

/// No differentiated services, and no ECN.
pub(super) const SERVICE_TYPE: Byte = Byte::known(0);

/// Returns the IP header: struct iphdr (linux/ip.h) or struct ipv6hdr (linux/ipv6.h).
pub(super) fn network(packet: &Packet, transport: Transport) -> Vec<Byte> {
    let protocol = Byte::known(transport.number(Family::from(packet.destination)));
    match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![Byte::VARIES; 12];
            // Version and header length, no differentiated services, and the flag "don't fragment".
            (header[0], header[1]) = (Byte::known(0x45), SERVICE_TYPE);
            (header[6], header[7]) = (Byte::known(0x40), Byte::known(0));
            header[9] = protocol;
            header.extend(from.octets().into_iter().chain(to.octets()).map(Byte::known));
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![Byte::VARIES; 8];
            // Version, no differentiated services, and a flow label.
            (header[0], header[1]) = (Byte::known(0x60), Byte::varying(0, 0x0f));
            header[6] = protocol;
            if transport.is_untracked() {
                header[7] = Byte::known(255);
            }
            header.extend(from.octets().into_iter().chain(to.octets()).map(Byte::known));
            header
        }
        _ => Vec::new(),
    }
}

/// Returns the header of the transport protocol.
pub(super) fn transport(family: Family, transport: Transport, port: u16, is_reply: bool) -> Vec<Byte> {
    let mut header = vec![Byte::VARIES; 20];
    let ports = if is_reply { [port, CLIENT_PORT] } else { [CLIENT_PORT, port] };
    for (place, byte) in header.iter_mut().zip(ports.into_iter().flat_map(u16::to_be_bytes)) {
        *place = Byte::known(byte);
    }
    match transport {
        // SYN, and SYN with ACK.
        Transport::Tcp => header[13] = Byte::known(if is_reply { 0x12 } else { 0x02 }),
        Transport::Udp => header.truncate(8),
        Transport::Icmp | Transport::Solicitation | Transport::Advertisement => {
            let [request, reply] = match (transport, family) {
                (Transport::Solicitation, _) => [135; 2],
                (Transport::Advertisement, _) => [136; 2],
                (_, Family::V4) => [8, 0],
                (_, Family::V6) => [128, 129],
            };
            header[0] = Byte::known(if is_reply { reply } else { request });
            header[1] = Byte::known(0);
        }
    }
    header
}

/// Returns some bytes of a header. Bytes beyond its end vary.
pub(super) fn part(header: &[Byte], offset: usize, length: usize) -> Vec<Byte> {
    let bytes = header.iter().copied().skip(offset).chain(std::iter::repeat(Byte::VARIES));
    bytes.take(length).collect()
}
