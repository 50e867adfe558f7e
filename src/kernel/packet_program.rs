//! Finds the programs and filters that see packets besides the firewall: XDP, tc, IPsec and IPVS.

use std::fs;

use rtnetlink::sys::protocols::NETLINK_XFRM;

use super::{
    link::Links,
    netlink::{Attributes, Socket, text},
};
use crate::state::{PacketProgram, PacketProgramKind};

// linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
/// `XFRM_MSG_GETPOLICY` (linux/xfrm.h).
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// `sizeof(struct ifinfomsg)`, `sizeof(struct tcmsg)`.
const LINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;
/// `IFLA_XDP`, `IFLA_XDP_ATTACHED` (linux/if_link.h).
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
/// `TCA_KIND` (linux/rtnetlink.h).
const TC_KIND: u16 = 1;
/// The handle of ingress, and the parents of the filters of clsact: `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS` (linux/pkt_sched.h).
const PARENTS: [u32; 3] = [0xffff_0000, 0xffff_fff2, 0xffff_fff3];

/// Lists them. What cannot be read is left out: most of it is there only with a kernel module.
pub fn all(socket: &mut Socket, links: &Links) -> Vec<PacketProgram> {
    let mut found = Vec::new();
    let on = |kind, number: u32| {
        links.name(number).map(|device| PacketProgram { kind, device: Some(device.clone()) })
    };
    let number = |payload: &[u8]| Some(u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?));
    for (_, payload) in socket.dump(RTM_GETLINK, 0, &[0; LINK_HEADER]).iter().flat_map(|dump| dump.iter()) {
        let xdp = attribute(payload, LINK_HEADER, XDP).unwrap_or_default();
        let is_attached = Attributes::new(xdp)
            .flatten()
            .any(|(kind, mode)| kind == XDP_ATTACHED && mode.first() != Some(&0));
        found.extend(
            number(payload).filter(|_| is_attached).and_then(|link| on(PacketProgramKind::Xdp, link)),
        );
    }
    let mut filtered = Vec::new();
    for (_, payload) in socket.dump(RTM_GETQDISC, 0, &[0; TC_HEADER]).iter().flat_map(|dump| dump.iter()) {
        let Some(link) = number(payload) else { continue };
        match attribute(payload, TC_HEADER, TC_KIND).map(text).as_deref() {
            Some("netem") => found.extend(on(PacketProgramKind::Netem, link)),
            Some("clsact" | "ingress") => filtered.push(link),
            _ => {}
        }
    }
    for link in filtered {
        for parent in PARENTS {
            let mut request = [0; TC_HEADER];
            request[4..8].copy_from_slice(&link.to_ne_bytes());
            request[12..16].copy_from_slice(&parent.to_ne_bytes());
            for (_, payload) in socket.dump(RTM_GETTFILTER, 0, &request).iter().flat_map(|dump| dump.iter()) {
                let is_program = attribute(payload, TC_HEADER, TC_KIND).map(text).as_deref() == Some("bpf");
                let kind =
                    if is_program { PacketProgramKind::TcProgram } else { PacketProgramKind::TcFilter };
                found.extend(on(kind, link));
            }
        }
    }
    if has_policies() {
        found.push(PacketProgram { kind: PacketProgramKind::Ipsec, device: None });
    }
    // Three lines are its head.
    if fs::read_to_string("/proc/thread-self/net/ip_vs").is_ok_and(|list| list.lines().count() > 3) {
        found.push(PacketProgram { kind: PacketProgramKind::Ipvs, device: None });
    }
    found.sort();
    found.dedup();
    found
}

fn attribute(payload: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    Attributes::find(payload.get(header..)?, kind)
}

fn has_policies() -> bool {
    let dump =
        Socket::open(NETLINK_XFRM).ok().and_then(|mut socket| socket.dump(XFRM_MSG_GETPOLICY, 0, &[]).ok());
    dump.is_some_and(|dump| dump.iter().next().is_some())
}
