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
/// `TCA_KIND`, `TCA_OPTIONS` (linux/rtnetlink.h).
const TC_KIND: u16 = 1;
const TC_OPTIONS: u16 = 2;
/// `TCA_U32_DIVISOR`, `TCA_U32_ACT`, `TCA_ACT_KIND`, `TCA_ACT_OPTIONS` (linux/pkt_cls.h).
const U32_DIVISOR: u16 = 4;
const U32_ACTIONS: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
/// `TCA_MIRRED_PARMS`, and the places in `struct tc_mirred` of its action and interface (linux/tc_act/tc_mirred.h).
const MIRRED_PARAMETERS: u16 = 2;
const MIRRED_ACTION: usize = 20;
const MIRRED_INTERFACE: usize = 24;
/// `TCA_EGRESS_REDIR`.
const EGRESS_REDIRECT: u32 = 1;
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
                let kind = match attribute(payload, TC_HEADER, TC_KIND).map(text).as_deref() {
                    Some("bpf") => PacketProgramKind::TcProgram,
                    Some("u32") if passes_all(payload, links) => continue,
                    _ => PacketProgramKind::TcFilter,
                };
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

/// Returns `true` for a u32 filter that passes its packets: one that sends them through an `ifb` interface and back, as the CNI
/// plugin `bandwidth` does to limit the rate of a pod (`tcf_mirred_act`, net/sched/act_mirred.c), or a hash table without actions.
fn passes_all(payload: &[u8], links: &Links) -> bool {
    let Some(options) = attribute(payload, TC_HEADER, TC_OPTIONS) else { return true };
    let Some(actions) = Attributes::find(options, U32_ACTIONS) else {
        return Attributes::find(options, U32_DIVISOR).is_some();
    };
    let actions: Vec<&[u8]> = Attributes::new(actions).flatten().map(|(_, action)| action).collect();
    let [action] = actions.as_slice() else { return false };
    let target = Attributes::find(action, ACTION_OPTIONS)
        .filter(|_| Attributes::find(action, ACTION_KIND).map(text).as_deref() == Some("mirred"))
        .and_then(|options| Attributes::find(options, MIRRED_PARAMETERS))
        .and_then(|parameters| {
            let word = |at: usize| Some(u32::from_ne_bytes(*parameters.get(at..)?.first_chunk()?));
            word(MIRRED_ACTION)
                .filter(|action| *action == EGRESS_REDIRECT)
                .and_then(|_| word(MIRRED_INTERFACE))
        });
    let target = target.and_then(|index| links.all.iter().find(|link| link.index == index));
    target.is_some_and(|link| link.is_a("ifb") && link.up)
}

fn attribute(payload: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    Attributes::find(payload.get(header..)?, kind)
}

fn has_policies() -> bool {
    let dump =
        Socket::open(NETLINK_XFRM).ok().and_then(|mut socket| socket.dump(XFRM_MSG_GETPOLICY, 0, &[]).ok());
    dump.is_some_and(|dump| dump.iter().next().is_some())
}
