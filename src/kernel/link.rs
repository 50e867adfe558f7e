//! Reads the interfaces and addresses of the network namespace.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
    },
};

use super::netlink::{Attributes, KernelError, Socket, text};
use crate::{
    model::Family,
    state::{AddressFlag, InterfaceAddress, Link},
    text::Untrusted,
};

// linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
/// `sizeof(struct ifinfomsg)`.
const LINK_HEADER: usize = 16;
// linux/if.h
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 1 << 7;
const IFF_LOWER_UP: u32 = 1 << 16;

/// `BR_STATE_FORWARDING` (linux/if_bridge.h).
const FORWARDING: u8 = 3;

/// A link with Ethernet addresses (linux/if_arp.h).
const ARPHRD_ETHER: u16 = 1;

/// `AF_INET` (linux/socket.h).
const AF_INET: u16 = 2;

/// The sysctls of an interface with the numbers from 1 on in `IPV4_DEVCONF_*` (linux/ip.h).
pub(super) const IPV4_SETTINGS: [&str; 24] = [
    "forwarding",
    "mc_forwarding",
    "proxy_arp",
    "accept_redirects",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "rp_filter",
    "accept_source_route",
    "bootp_relay",
    "log_martians",
    "tag",
    "arp_filter",
    "medium_id",
    "disable_xfrm",
    "disable_policy",
    "force_igmp_version",
    "arp_announce",
    "arp_ignore",
    "promote_secondaries",
    "arp_accept",
    "arp_notify",
    "accept_local",
    "src_valid_mark",
];

/// `IFA_F_*` (linux/if_addr.h).
const ADDRESS_FLAGS: [(u32, AddressFlag); 4] = [
    (0x01, AddressFlag::Temporary),
    (0x08, AddressFlag::DadFailed),
    (0x20, AddressFlag::Deprecated),
    (0x40, AddressFlag::Tentative),
];

/// `IFA_F_OPTIMISTIC` (linux/if_addr.h).
const OPTIMISTIC: u32 = 0x04;

/// `IFLA_*` (linux/if_link.h).
mod attribute {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const AF_SPEC: u16 = 26;
    pub const GROUP: u16 = 27;
    pub const LINK_NETNSID: u16 = 37;
    pub const PROP_LIST: u16 = 52;
    pub const ALT_IFNAME: u16 = 53;
    pub const INET_CONF: u16 = 1;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const INFO_SLAVE_KIND: u16 = 4;
    pub const INFO_SLAVE_DATA: u16 = 5;
    /// `IFLA_BRPORT_STATE`, `IFLA_BR_STP_STATE`, `IFLA_BRPORT_ISOLATED`, `IFLA_BR_NF_CALL_IPTABLES`, `IFLA_BR_NF_CALL_IP6TABLES`.
    pub const PORT_STATE: u16 = 1;
    pub const BRIDGE_STP: u16 = 5;
    pub const PORT_ISOLATED: u16 = 33;
    pub const BRIDGE_CALLS_IPTABLES: u16 = 36;
    pub const BRIDGE_CALLS_IP6TABLES: u16 = 37;
}

/// The interfaces of a namespace, indexed by name and by number.
#[derive(Debug, Default)]
pub struct Links {
    /// All interfaces, in the kernel's order.
    pub all: Vec<Link>,
    /// The MAC addresses of Ethernet interfaces, by name.
    pub hardware: BTreeMap<Untrusted, Untrusted>,
    names: HashMap<u32, Untrusted>,
    indexes: HashMap<String, u32>,
    /// The IPv4 settings of the interfaces that have any, in the order of [`IPV4_SETTINGS`].
    ipv4: HashMap<String, Vec<i32>>,
}

impl Links {
    /// Dumps the interfaces.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn read(socket: &mut Socket) -> Result<Self, KernelError> {
        let mut links = Self::default();
        let mut relatives: Vec<Relatives> = Vec::new();
        for (_, payload) in socket.dump(RTM_GETLINK, 0, &[0; LINK_HEADER])?.iter() {
            let Some((link, related)) = link(payload) else { continue };
            links.ipv4.extend(ipv4_settings(payload).map(|values| (link.name.as_raw().to_owned(), values)));
            links.hardware.extend(hardware_address(payload).map(|address| (link.name.clone(), address)));
            links.indexes.insert(link.name.as_raw().to_owned(), link.index);
            links.names.insert(link.index, link.name.clone());
            relatives.push(related);
            links.all.push(link);
        }
        for (link, Relatives { master, parent }) in links.all.iter_mut().zip(relatives) {
            [link.master, link.parent] = [master, parent].map(|number| links.names.get(&number?).cloned());
        }
        Ok(links)
    }

    /// Returns the name of interface number `index`.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<&Untrusted> {
        self.names.get(&index)
    }

    /// Returns the value of `net.ipv4.conf.INTERFACE.NAME`, which came with the interface: a node has an interface for each of its
    /// pods, and to read a file for each takes much longer. `None` if it did not.
    pub(super) fn ipv4_setting(&self, interface: &str, name: &str) -> Option<i32> {
        let at = IPV4_SETTINGS.iter().position(|known| *known == name)?;
        self.ipv4.get(interface)?.get(at).copied()
    }

    /// Iterates over the names of the interfaces that have IPv4 settings.
    pub(super) fn with_ipv4(&self) -> impl Iterator<Item = &str> {
        self.ipv4.keys().map(String::as_str)
    }

    /// Returns the number of the interface called `name`.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        self.indexes.get(name).copied()
    }
}

/// The numbers of the interfaces that one depends on.
struct Relatives {
    /// The one that it is a port of.
    master: Option<u32>,
    /// The one below it.
    parent: Option<u32>,
}

/// Decodes an interface.
fn link(payload: &[u8]) -> Option<(Link, Relatives)> {
    let (header, attributes) = payload.split_at_checked(LINK_HEADER)?;
    let word = |bytes: &[u8]| Some(u32::from_ne_bytes(*bytes.first_chunk()?));
    let flags = word(&header[8..])?;
    let mut link = Link {
        up: flags & IFF_UP != 0,
        carrier: Some(flags & IFF_LOWER_UP != 0),
        no_arp: flags & IFF_NOARP != 0 && header[2..4] == ARPHRD_ETHER.to_ne_bytes(),
        ..Link::new(Untrusted::default(), word(&header[4..])?)
    };
    let (mut master, mut parent, mut is_local) = (None, None, true);
    for (kind, payload) in Attributes::new(attributes).flatten() {
        match kind {
            attribute::IFNAME => link.name = text(payload).into(),
            attribute::MTU => link.mtu = word(payload),
            attribute::MASTER => master = word(payload),
            attribute::LINK => parent = word(payload),
            attribute::LINK_NETNSID => is_local = false,
            attribute::GROUP => link.group = word(payload)?,
            attribute::LINKINFO => {
                let inner = |wanted| Attributes::find(payload, wanted);
                link.kind = inner(attribute::INFO_KIND).map(|kind| text(kind).into());
                let is =
                    |of, name: &[u8]| inner(of).is_some_and(|kind| kind.strip_suffix(&[0]) == Some(name));
                let is_set = |of, option| {
                    let mut options = Attributes::new(inner(of).unwrap_or_default()).flatten();
                    options
                        .any(|(kind, value)| kind == option && value.first().is_some_and(|value| *value != 0))
                };
                if is(attribute::INFO_SLAVE_KIND, b"bridge") {
                    link.isolated = is_set(attribute::INFO_SLAVE_DATA, attribute::PORT_ISOLATED);
                    let options = inner(attribute::INFO_SLAVE_DATA).unwrap_or_default();
                    let state = Attributes::find(options, attribute::PORT_STATE);
                    let is_used = link.up && link.carrier == Some(true);
                    link.not_forwarding =
                        is_used && state.is_some_and(|state| state.first() != Some(&FORWARDING));
                }
                if is(attribute::INFO_KIND, b"bridge") {
                    link.stp = is_set(attribute::INFO_DATA, attribute::BRIDGE_STP);
                    let options = [
                        (Family::V4, attribute::BRIDGE_CALLS_IPTABLES),
                        (Family::V6, attribute::BRIDGE_CALLS_IP6TABLES),
                    ];
                    let set = options.into_iter().filter(|(_, option)| is_set(attribute::INFO_DATA, *option));
                    link.filters = set.map(|(family, _)| family).collect();
                }
            }
            attribute::PROP_LIST => {
                let names = Attributes::new(payload).flatten();
                let names = names.filter(|(kind, _)| *kind == attribute::ALT_IFNAME);
                link.altnames.extend(names.map(|(_, name)| text(name).into()));
            }
            _ => {}
        }
    }
    // For an interface with a peer, this is the peer.
    let is_peer = link.is_a("veth") || link.is_a("netkit");
    let parent = parent.filter(|parent| is_local && !is_peer && ![0, link.index].contains(parent));
    (!link.name.is_empty()).then_some((link, Relatives { master, parent }))
}

/// Returns the IPv4 settings of an interface: `IFLA_INET_CONF`, an array of `int` (`inet_fill_link_af`, net/ipv4/devinet.c).
fn ipv4_settings(payload: &[u8]) -> Option<Vec<i32>> {
    let families = Attributes::find(payload.get(LINK_HEADER..)?, attribute::AF_SPEC)?;
    let values = Attributes::find(Attributes::find(families, AF_INET)?, attribute::INET_CONF)?;
    let (values, _) = values.as_chunks();
    Some(values.iter().map(|bytes| i32::from_ne_bytes(*bytes)).take(IPV4_SETTINGS.len()).collect())
}

/// Returns the MAC address of an Ethernet interface, as `ip link` prints it.
fn hardware_address(payload: &[u8]) -> Option<Untrusted> {
    let (header, attributes) = payload.split_at_checked(LINK_HEADER)?;
    let is_ethernet = header[2..4] == ARPHRD_ETHER.to_ne_bytes();
    let bytes = Attributes::find(attributes, attribute::ADDRESS).filter(|_| is_ethernet)?;
    let is_set = bytes.iter().any(|byte| *byte != 0);
    is_set.then(|| hardware_text(bytes).into())
}

/// Formats a MAC address, as `ip` prints it.
pub(super) fn hardware_text(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// Dumps the addresses of all interfaces.
///
/// # Errors
/// Returns the kernel's error.
pub fn addresses(socket: &mut Socket, links: &Links) -> Result<Vec<InterfaceAddress>, KernelError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    let dump = socket.dump(RTM_GETADDR, 0, &message(&request))?;
    Ok(dump.iter().filter_map(|(_, payload)| address(&AddressMessage::parse(payload).ok()?, links)).collect())
}

fn address(message: &AddressMessage, links: &Links) -> Option<InterfaceAddress> {
    let (mut local, mut peer) = (None, None);
    let mut bits = u32::from(message.header.flags.bits());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(flags) => bits = flags.bits(),
            _ => {}
        }
    }
    // IPv6 omits IFA_LOCAL if it equals IFA_ADDRESS (rtnetlink(7)).
    let address: IpAddr = local.or(peer)?;
    let prefix = IpNet::new(peer.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    // In IPv4, the first bit marks a secondary address.
    let is_set = |(bit, _): &(u32, AddressFlag)| bits & bit != 0 && address.is_ipv6();
    let mut flags: Vec<AddressFlag> =
        ADDRESS_FLAGS.into_iter().filter(is_set).map(|(_, flag)| flag).collect();
    // The kernel already uses an optimistic address, and one that another machine has stays tentative.
    let is_decided = bits & OPTIMISTIC != 0 || flags.contains(&AddressFlag::DadFailed);
    flags.retain(|flag| !(is_decided && *flag == AddressFlag::Tentative));
    Some(InterfaceAddress { device: links.name(message.header.index)?.clone(), address, prefix, flags })
}

/// Serializes a message, without the netlink header.
pub(super) fn message(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}
