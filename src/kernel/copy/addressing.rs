//! Addresses, and the neighbor entries that an administrator set.

use std::collections::BTreeSet;

use super::{links::LinkImages, send};
use crate::kernel::{
    netlink::{Attributes, KernelError, Socket, put_attribute, retain},
    omission::Omission,
    route::address,
};

// linux/rtnetlink.h
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// `NLM_F_REPLACE | NLM_F_CREATE` (linux/netlink.h): the loopback addresses exist already.
const REPLACE: u16 = 0x100 | 0x400;
/// `sizeof(struct ifaddrmsg)`, `sizeof(struct ndmsg)`.
const ADDRESS_HEADER: usize = 8;
const NEIGHBOR_HEADER: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `IFA_F_*` (linux/if_addr.h).
const NO_DUPLICATE_DETECTION: u32 = 0x2;
const DUPLICATE: u32 = 0x8;
/// `IFA_F_HOMEADDRESS | IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN`: the flags that can be set.
const ADDRESS_FLAGS: u32 = 0x10 | 0x200 | 0x400;
/// `IFA_ADDRESS`, `_LOCAL`, `_LABEL`, `_BROADCAST`, `_CACHEINFO` (lifetimes), `_FLAGS`, `_RT_PRIORITY`, `_PROTO`.
const ADDRESS_ATTRIBUTES: [u16; 7] = [1, 2, 3, 4, 6, 9, 11];
const IFA_ADDRESS: u16 = 1;
const IFA_FLAGS: u16 = 8;

/// `NUD_PERMANENT` (linux/neighbour.h).
const PERMANENT: u16 = 0x80;
/// `NTF_PROXY`.
const PROXY: u8 = 0x8;
/// `NDA_DST`, `_LLADDR`, `_VLAN`, `_PROTOCOL`, `_FLAGS_EXT`.
const NEIGHBOR_ATTRIBUTES: [u16; 5] = [1, 2, 5, 12, 15];
const NDA_DST: u16 = 1;

/// The addresses and neighbor entries of a node, as they were dumped.
#[derive(Debug)]
pub(super) struct Addressing {
    addresses: Vec<Vec<u8>>,
    neighbors: Vec<Vec<u8>>,
}

impl Addressing {
    pub(super) fn read(socket: &mut Socket) -> Result<Self, KernelError> {
        let all = |payloads: &super::super::netlink::Dump| -> Vec<Vec<u8>> {
            payloads.iter().map(|(_, payload)| payload.to_vec()).collect()
        };
        let addresses = all(&socket.dump(RTM_GETADDR, 0, &[0; ADDRESS_HEADER])?);
        let mut neighbors = all(&socket.dump(RTM_GETNEIGH, 0, &[0; NEIGHBOR_HEADER])?);
        let is_set = |entry: &Vec<u8>| {
            let state =
                entry.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |state| u16::from_ne_bytes(*state));
            state & PERMANENT != 0 && matches!(entry.first(), Some(&(AF_INET | AF_INET6)))
        };
        neighbors.retain(is_set);
        let mut request = [0; NEIGHBOR_HEADER];
        request[10] = PROXY;
        for family in [AF_INET, AF_INET6] {
            request[0] = family;
            // Without IPv6, the kernel refuses.
            neighbors.extend(socket.dump(RTM_GETNEIGH, 0, &request).iter().flat_map(all));
        }
        Ok(Self { addresses, neighbors })
    }

    pub(super) const fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Assigns the addresses, and adds the neighbor entries, except those on the interfaces `played`: what is connected to
    /// them has other MAC addresses.
    pub(super) fn write(
        &self,
        socket: &mut Socket,
        links: &LinkImages,
        played: &BTreeSet<u32>,
        omissions: &mut Vec<Omission>,
    ) {
        let name = |index: u32| {
            links.by_index(index).map_or_else(|| index.to_string(), |link| link.name.to_string())
        };
        // The kernel dumps the IPv6 addresses of an interface with the newest one first.
        let is_v6 = |address: &&Vec<u8>| address.first() == Some(&AF_INET6);
        let (v6, v4): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) = self.addresses.iter().partition(is_v6);
        for dumped in v4.into_iter().chain(v6.into_iter().rev()) {
            let Some(new) = NewAddress::of(dumped) else { continue };
            let object = || format!("{} on {}", new.text, name(new.index));
            if new.is_duplicate {
                omissions.push(Omission::new(object(), "not copied: duplicate address detection failed"));
                continue;
            }
            if let Err(error) = send(socket, RTM_NEWADDR, REPLACE, new.payload.clone()) {
                omissions.push(Omission::new(object(), format!("not copied: {error}")));
            }
        }
        for dumped in &self.neighbors {
            let Some((header, rest)) = dumped.split_at_checked(NEIGHBOR_HEADER) else { continue };
            let target = Attributes::find(rest, NDA_DST).and_then(address);
            let target = target.map_or_else(String::new, |it| it.to_string());
            let index =
                header.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |index| u32::from_ne_bytes(*index));
            let object = format!("neighbor entry {target} on {}", name(index));
            if header.get(10).is_some_and(|flags| flags & PROXY == 0) && played.contains(&index) {
                omissions
                    .push(Omission::new(object, "not copied: simulated machines have other MAC addresses"));
                continue;
            }
            let attributes = retain(rest, |kind| NEIGHBOR_ATTRIBUTES.contains(&kind));
            let payload = [header, &attributes].concat();
            if let Err(error) = send(socket, RTM_NEWNEIGH, REPLACE, payload) {
                omissions.push(Omission::new(object, format!("not copied: {error}")));
            }
        }
    }
}

/// The request that assigns an address.
struct NewAddress {
    index: u32,
    text: String,
    is_duplicate: bool,
    payload: Vec<u8>,
}

impl NewAddress {
    fn of(dumped: &[u8]) -> Option<Self> {
        let (header, rest) = dumped.split_first_chunk::<ADDRESS_HEADER>()?;
        let [family, length, old_flags, scope, index @ ..] = *header;
        let mut flags = u32::from(old_flags);
        let mut text = String::new();
        for (kind, value) in Attributes::new(rest).flatten() {
            match kind {
                IFA_FLAGS => flags = u32::from_ne_bytes(value.try_into().ok()?),
                IFA_ADDRESS => text = format!("{}/{length}", address(value)?),
                _ => {}
            }
        }
        let is_duplicate = flags & DUPLICATE != 0;
        flags &= ADDRESS_FLAGS;
        if family == AF_INET6 {
            flags |= NO_DUPLICATE_DETECTION;
        }
        let mut payload = [&[family, length, 0, scope][..], &index].concat();
        payload.extend(retain(rest, |kind| ADDRESS_ATTRIBUTES.contains(&kind)));
        put_attribute(&mut payload, IFA_FLAGS, &flags.to_ne_bytes()).ok()?;
        Some(Self { index: u32::from_ne_bytes(index), text, is_duplicate, payload })
    }
}
