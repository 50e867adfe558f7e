//! The interfaces of a node, and their counterparts in its copy.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::send;
use crate::{
    error::Error,
    kernel::{
        Interfaces, Namespace, inside,
        netlink::{Attributes, KernelError, Malformed, Socket, put_attribute, retain, text},
        omission::Omission,
    },
    text::Untrusted,
};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWLINKPROP: u16 = 108;
// linux/netlink.h
const CREATE_NEW: u16 = 0x200 | 0x400;
const APPEND: u16 = 0x400 | 0x800;
const NESTED: u16 = 0x8000;
/// `sizeof(struct ifinfomsg)`, `sizeof(struct tcmsg)`.
const LINK_HEADER: usize = 16;
const QDISC_HEADER: usize = 20;
// linux/if.h
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_NOARP: u32 = 0x80;
const IFF_PROMISC: u32 = 0x100;
const IFF_ALLMULTI: u32 = 0x200;
/// The flags that a copy can have.
const FLAGS: u32 = IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI;
/// `ARPHRD_ETHER` (linux/if_arp.h).
const ETHERNET: u16 = 1;
/// The largest MTU of a veth pair (`ETH_MAX_MTU`), so that its far end never drops a packet.
const MAX_MTU: u32 = 65_535;

/// `IFLA_*`, `IFLA_INFO_*` (linux/if_link.h), `VETH_INFO_PEER` (linux/veth.h), `TCA_KIND` (linux/rtnetlink.h).
mod attribute {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const IFNAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const LINK: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const TXQLEN: u16 = 13;
    pub(super) const LINKINFO: u16 = 18;
    pub(super) const IFALIAS: u16 = 20;
    pub(super) const GROUP: u16 = 27;
    pub(super) const NET_NS_FD: u16 = 28;
    pub(super) const CARRIER: u16 = 33;
    pub(super) const LINK_NETNSID: u16 = 37;
    pub(super) const XDP: u16 = 43;
    pub(super) const PROP_LIST: u16 = 52;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const INFO_SLAVE_KIND: u16 = 4;
    pub(super) const INFO_SLAVE_DATA: u16 = 5;
    pub(super) const VETH_PEER: u16 = 1;
    pub(super) const XDP_ATTACHED: u16 = 2;
    pub(super) const TCA_KIND: u16 = 1;
}

/// The options of a bridge that decide about packets: `IFLA_BR_AGEING_TIME`, `_GROUP_FWD_MASK`, `_MCAST_SNOOPING`,
/// `_NF_CALL_IPTABLES`, `_NF_CALL_IP6TABLES`, `_NF_CALL_ARPTABLES` (linux/if_link.h).
const BRIDGE_OPTIONS: [u16; 6] = [4, 9, 23, 36, 37, 38];
/// `IFLA_BR_STP_STATE`, `IFLA_BR_VLAN_FILTERING`.
const BRIDGE_STP: u16 = 5;
const BRIDGE_VLAN_FILTERING: u16 = 7;
/// The options of a bridge port that decide about packets: `IFLA_BRPORT_MODE` (hairpin), `_GUARD`, `_PROTECT`,
/// `_FAST_LEAVE`, `_LEARNING`, `_UNICAST_FLOOD`, `_PROXYARP`, `_PROXYARP_WIFI`, `_MCAST_FLOOD`, `_BCAST_FLOOD`,
/// `_NEIGH_SUPPRESS`, `_ISOLATED` (linux/if_link.h).
const PORT_OPTIONS: [u16; 12] = [4, 5, 6, 7, 8, 9, 10, 12, 27, 30, 32, 33];

/// Kinds whose behavior depends on their settings alone, so that a namespace can have the same.
const SELF_CONTAINED: [&str; 4] = ["dummy", "ifb", "vlan", "vrf"];

/// The connection of a copied interface to something that answers.
#[derive(Debug)]
pub struct Cable<'a> {
    /// The number of the interface.
    pub link: u32,
    /// The namespace at the far end.
    pub to: &'a Namespace,
    /// The name of the far end.
    pub name: String,
}

/// An interface of the node.
#[derive(Debug, Clone)]
pub struct LinkImage {
    /// The name.
    pub name: Untrusted,
    /// The number.
    pub index: u32,
    /// The kind, such as `bridge`; none for hardware.
    pub kind: Option<String>,
    /// The number of its master, such as the bridge or the bond that it is a port of.
    pub master: Option<u32>,
    flags: u32,
    hardware: u16,
    /// The number of the interface that it depends on in this namespace: the parent of a VLAN, the peer of a veth.
    lower: Option<u32>,
    has_carrier: bool,
    has_xdp: bool,
    /// The attributes, as they were dumped.
    attributes: Vec<u8>,
}

impl LinkImage {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_at_checked(LINK_HEADER)?;
        let word = |bytes: &[u8]| Some(u32::from_ne_bytes(*bytes.first_chunk()?));
        let mut link = Self {
            name: Untrusted::default(),
            index: word(&header[4..])?,
            kind: None,
            master: None,
            flags: word(&header[8..])?,
            hardware: u16::from_ne_bytes([header[2], header[3]]),
            lower: None,
            has_carrier: true,
            has_xdp: false,
            attributes: rest.to_vec(),
        };
        let mut is_elsewhere = false;
        for (kind, value) in Attributes::new(rest).flatten() {
            match kind {
                attribute::IFNAME => link.name = text(value).into(),
                attribute::MASTER => link.master = word(value),
                attribute::LINK => link.lower = word(value).filter(|lower| *lower != 0),
                attribute::LINK_NETNSID => is_elsewhere = true,
                attribute::CARRIER => link.has_carrier = value.first() != Some(&0),
                attribute::LINKINFO => {
                    link.kind = Attributes::find(value, attribute::INFO_KIND).map(text);
                }
                attribute::XDP => {
                    link.has_xdp =
                        Attributes::find(value, attribute::XDP_ATTACHED).is_some_and(|mode| mode != [0]);
                }
                _ => {}
            }
        }
        link.lower = link.lower.filter(|_| !is_elsewhere);
        (!link.name.is_empty()).then_some(link)
    }

    const fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }

    /// Returns `true` if the interface is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// Returns `true` if the interface is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    fn get(&self, kind: u16) -> Option<&[u8]> {
        Attributes::find(&self.attributes, kind)
    }

    fn info(&self, kind: u16) -> Option<&[u8]> {
        Attributes::find(self.get(attribute::LINKINFO)?, kind)
    }

    fn header(&self, flags: u32, change: u32) -> Vec<u8> {
        let mut header = vec![0; 4];
        for word in [self.index, flags, change] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        header
    }

    /// The name as a NUL-terminated attribute.
    fn name_bytes(&self) -> &[u8] {
        self.get(attribute::IFNAME).unwrap_or_default()
    }

    /// The request that creates it with the kind `kind` and the options `data`.
    fn creation(&self, kind: &str, data: &[u8], with_lower: bool) -> Result<Vec<u8>, Malformed> {
        let mut message = self.header(0, 0);
        put_attribute(&mut message, attribute::IFNAME, self.name_bytes())?;
        if let Some(lower) = self.lower.filter(|_| with_lower) {
            put_attribute(&mut message, attribute::LINK, &lower.to_ne_bytes())?;
        }
        let mut info = Vec::new();
        put_attribute(&mut info, attribute::INFO_KIND, kind.as_bytes())?;
        if !data.is_empty() {
            put_attribute(&mut info, attribute::INFO_DATA | NESTED, data)?;
        }
        put_attribute(&mut message, attribute::LINKINFO | NESTED, &info)?;
        Ok(message)
    }

    /// The request that creates it as one end of a veth pair. `peer` begins with the header of the far end.
    fn veth(&self, peer: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut data = Vec::new();
        put_attribute(&mut data, attribute::VETH_PEER | NESTED, peer)?;
        self.creation("veth", &data, false)
    }
}

/// The name of the far end of an interface that nothing answers on.
fn void_name(link: &LinkImage) -> String {
    format!("far{}", link.index)
}

/// The interfaces of a node.
#[derive(Debug)]
pub(super) struct LinkImages {
    pub(super) all: Vec<LinkImage>,
    /// The interfaces with filters or programs of tc.
    with_tc: BTreeSet<u32>,
}

impl LinkImages {
    pub(super) fn read(socket: &mut Socket) -> Result<Self, KernelError> {
        let dump = socket.dump(RTM_GETLINK, 0, &[0; LINK_HEADER])?;
        let all = dump.iter().filter_map(|(_, payload)| LinkImage::parse(payload)).collect();
        let dump = socket.dump(RTM_GETQDISC, 0, &[0; QDISC_HEADER]);
        let mut with_tc = BTreeSet::new();
        for (_, payload) in dump.iter().flat_map(super::super::netlink::Dump::iter) {
            let Some((header, rest)) = payload.split_at_checked(QDISC_HEADER) else { continue };
            let kind = Attributes::find(rest, attribute::TCA_KIND).map(text);
            if matches!(kind.as_deref(), Some("clsact" | "ingress"))
                && let Some(index) = header.get(4..).and_then(<[u8]>::first_chunk)
            {
                with_tc.insert(u32::from_ne_bytes(*index));
            }
        }
        Ok(Self { all, with_tc })
    }

    pub(super) fn by_index(&self, index: u32) -> Option<&LinkImage> {
        self.all.iter().find(|link| link.index == index)
    }

    /// Returns the numbers of the interfaces at the near end of `cables`, and of the bridges that they are ports of.
    pub(super) fn played(&self, cables: &[Cable<'_>]) -> BTreeSet<u32> {
        let links = cables.iter().filter_map(|cable| self.by_index(cable.link));
        links.flat_map(|link| [Some(link.index), link.master]).flatten().collect()
    }

    /// Creates the interfaces, which stay down.
    pub(super) fn create(
        &self,
        socket: &mut Socket,
        cables: &[Cable<'_>],
        void: &Namespace,
        omissions: &mut Vec<Omission>,
    ) -> Result<(), Error> {
        let mut created: BTreeSet<u32> = BTreeSet::new();
        // A VLAN can only be created after the interface that it is on.
        let has_parent = |link: &&LinkImage| link.kind.as_deref() == Some("vlan");
        let (later, first): (Vec<&LinkImage>, Vec<&LinkImage>) = self.all.iter().partition(has_parent);
        for link in first.into_iter().chain(later) {
            let cable = cables.iter().find(|cable| cable.link == link.index);
            if !link.is_loopback() && !created.contains(&link.index) {
                created.extend(self.create_one(socket, link, cable, (cables, void), omissions)?);
            }
        }
        for link in &self.all {
            self.configure(socket, link, omissions)?;
            if link.has_xdp {
                omissions.push(Omission::new(
                    format!("the XDP program of {}", link.name),
                    "programs are not copied",
                ));
            }
            if self.with_tc.contains(&link.index) {
                omissions.push(Omission::new(
                    format!("the tc filters of {}", link.name),
                    "tc filters and programs are not copied",
                ));
            }
        }
        Ok(())
    }

    /// Creates an interface. Returns the numbers of those that exist now.
    fn create_one(
        &self,
        socket: &mut Socket,
        link: &LinkImage,
        cable: Option<&Cable<'_>>,
        (cables, void): (&[Cable<'_>], &Namespace),
        omissions: &mut Vec<Omission>,
    ) -> Result<Vec<u32>, Error> {
        let refused = |error: KernelError| {
            Error::unexpected(format!("cannot create the interface {} in the copy: {error}", link.name))
        };
        let mut new = |message: Result<Vec<u8>, Malformed>| send(socket, RTM_NEWLINK, CREATE_NEW, message?);
        let kind = link.kind.as_deref();
        if link.is_bridge() {
            let data = link.info(attribute::INFO_DATA).unwrap_or_default();
            let options = retain(data, |option| BRIDGE_OPTIONS.contains(&option));
            // Options of bridges depend on the kernel's configuration.
            new(link.creation("bridge", &options, false))
                .or_else(|_| new(link.creation("bridge", &[], false)))
                .map_err(refused)?;
            omissions.extend(bridge_omissions(link, data));
            return Ok(vec![link.index]);
        }
        let peer = link.lower.and_then(|peer| self.by_index(peer)).filter(|_| kind == Some("veth"));
        if let Some(peer) = peer
            .filter(|peer| !cables.iter().any(|cable| cable.link == peer.index || cable.link == link.index))
        {
            let mut far = peer.header(0, 0);
            put_attribute(&mut far, attribute::IFNAME, peer.name_bytes())
                .map_err(|error| refused(error.into()))?;
            new(link.veth(&far)).map_err(refused)?;
            return Ok(vec![link.index, peer.index]);
        }
        if let (None, Some(kind)) = (cable, kind.filter(|kind| SELF_CONTAINED.contains(kind))) {
            let data = link.info(attribute::INFO_DATA).unwrap_or_default();
            match new(link.creation(kind, data, kind == "vlan")) {
                Ok(()) => return Ok(vec![link.index]),
                Err(error) if kind == "vrf" => {
                    omissions
                        .push(Omission::new(format!("VRF {}", link.name), format!("not copied: {error}")));
                }
                Err(_) => {}
            }
        }
        let far =
            cable.map_or_else(|| far_end(void, &void_name(link)), |cable| far_end(cable.to, &cable.name));
        new(far.and_then(|far| link.veth(&far))).map_err(refused)?;
        omissions.extend(played(link));
        Ok(vec![link.index])
    }

    /// Sets the properties of an interface that are not part of its creation.
    fn configure(
        &self,
        socket: &mut Socket,
        link: &LinkImage,
        omissions: &mut Vec<Omission>,
    ) -> Result<(), Error> {
        let cannot =
            |error: KernelError| Error::unexpected(format!("cannot configure {}: {error}", link.name));
        let mut change = |message_type, flags, header: Vec<u8>, attributes: &[u8]| {
            send(socket, message_type, flags, [header, attributes.to_vec()].concat())
        };
        let plain = |kind: u16| retain(&link.attributes, |found| found == kind);
        if link.hardware == ETHERNET {
            // A multicast address or one of zeros, which only some kinds accept, is left out.
            let _ = change(RTM_NEWLINK, 0, link.header(0, 0), &plain(attribute::ADDRESS));
        }
        for kind in [attribute::MTU, attribute::GROUP, attribute::TXQLEN, attribute::IFALIAS] {
            let value = plain(kind);
            if !value.is_empty()
                && let Err(error) = change(RTM_NEWLINK, 0, link.header(0, 0), &value)
                && kind == attribute::MTU
            {
                omissions
                    .push(Omission::new(format!("MTU of {}", link.name), format!("not copied: {error}")));
            }
        }
        let names = plain(attribute::PROP_LIST);
        if !names.is_empty() {
            let list = link.get(attribute::PROP_LIST).unwrap_or_default();
            let mut nested = Vec::new();
            put_attribute(&mut nested, attribute::PROP_LIST | NESTED, list)
                .map_err(|error| cannot(error.into()))?;
            if let Err(error) = change(RTM_NEWLINKPROP, APPEND, link.header(0, 0), &nested) {
                omissions.push(Omission::new(
                    format!("alternative names of {}", link.name),
                    format!("not copied: {error}"),
                ));
            }
        }
        let master = link.master.and_then(|master| self.by_index(master));
        if let Some(master) = master {
            if matches!(master.kind.as_deref(), Some("bridge" | "vrf")) {
                let attached = change(RTM_NEWLINK, 0, link.header(0, 0), &plain(attribute::MASTER));
                match attached {
                    Ok(()) => {
                        let options = port_options(link).map_err(|error| cannot(error.into()))?;
                        if let Some(options) = options {
                            let _ = change(RTM_NEWLINK, 0, link.header(0, 0), &options);
                        }
                    }
                    Err(error) => omissions.push(Omission::new(
                        format!("{} in {}", link.name, master.name),
                        format!("not copied: {error}"),
                    )),
                }
            } else {
                omissions.push(Omission::new(
                    format!("{} in {}", link.name, master.name),
                    "not attached to its master in the copy",
                ));
            }
        }
        Ok(())
    }

    /// Brings up the interfaces that are up on the node.
    pub(super) fn bring_up(&self, socket: &mut Socket, omissions: &mut Vec<Omission>) -> Result<(), Error> {
        for link in &self.all {
            let wanted = link.flags & (IFF_UP | FLAGS);
            if let Err(error) = send(socket, RTM_NEWLINK, 0, link.header(wanted, IFF_UP | FLAGS)) {
                if error.errno == Errno::NODEV {
                    return Err(Error::unexpected(format!("the copy lacks the interface {}", link.name)));
                }
                omissions.push(Omission::new(
                    format!("the state of {}", link.name),
                    format!("not copied: {error}"),
                ));
            }
        }
        Ok(())
    }

    /// Brings up the far ends in the void. Those of interfaces without a carrier stay down.
    pub(super) fn bring_up_far_ends(&self, cables: &[Cable<'_>], void: &Namespace) -> Result<(), Error> {
        let mut ends: Vec<(&Namespace, String)> =
            cables.iter().map(|cable| (cable.to, cable.name.clone())).collect();
        let with_carrier = self.all.iter().filter(|link| link.has_carrier || !link.is_up());
        ends.extend(with_carrier.map(|link| (void, void_name(link))));
        let bring_up = |namespace: &Namespace, names: Vec<String>| {
            inside(namespace, || Interfaces::open()?.up_existing(&names))
        };
        let in_void: Vec<String> =
            ends.iter().filter(|(to, _)| std::ptr::eq(*to, void)).map(|(_, name)| name.clone()).collect();
        bring_up(void, in_void)?;
        for (to, name) in ends.into_iter().filter(|(to, _)| !std::ptr::eq(*to, void)) {
            bring_up(to, vec![name])?;
        }
        Ok(())
    }
}

/// The header and attributes of the far end of a veth pair.
fn far_end(namespace: &Namespace, name: &str) -> Result<Vec<u8>, Malformed> {
    let mut far = vec![0; LINK_HEADER];
    put_attribute(&mut far, attribute::IFNAME, &[name.as_bytes(), &[0]].concat())?;
    put_attribute(&mut far, attribute::MTU, &MAX_MTU.to_ne_bytes())?;
    put_attribute(&mut far, attribute::NET_NS_FD, &namespace.descriptor().to_ne_bytes())?;
    Ok(far)
}

/// The options of a port of a bridge, in a change of the interface.
fn port_options(link: &LinkImage) -> Result<Option<Vec<u8>>, Malformed> {
    let is_of_bridge = link.info(attribute::INFO_SLAVE_KIND).map(text).as_deref() == Some("bridge");
    let Some(data) = link.info(attribute::INFO_SLAVE_DATA).filter(|_| is_of_bridge) else { return Ok(None) };
    let options = retain(data, |option| PORT_OPTIONS.contains(&option));
    let (mut info, mut message) = (Vec::new(), Vec::new());
    put_attribute(&mut info, attribute::INFO_SLAVE_KIND, b"bridge")?;
    put_attribute(&mut info, attribute::INFO_SLAVE_DATA | NESTED, &options)?;
    put_attribute(&mut message, attribute::LINKINFO | NESTED, &info)?;
    Ok(Some(message))
}

fn bridge_omissions(link: &LinkImage, options: &[u8]) -> Vec<Omission> {
    let is_on =
        |option| Attributes::find(options, option).is_some_and(|value| value.iter().any(|byte| *byte != 0));
    let mut omissions = Vec::new();
    if is_on(BRIDGE_STP) {
        omissions.push(Omission::new(
            format!("spanning tree of {}", link.name),
            "off in the copy, where it would block all ports for 30 s",
        ));
    }
    if is_on(BRIDGE_VLAN_FILTERING) {
        omissions.push(Omission::new(format!("VLAN filtering of {}", link.name), "off in the copy"));
    }
    omissions
}

/// Describes an interface that is copied as a veth pair, unless that makes no difference to packets.
fn played(link: &LinkImage) -> Option<Omission> {
    let kind = match link.kind.as_deref() {
        // Hardware, the ends of pods, and what swallows packets.
        None | Some("veth" | "dummy" | "ifb") => return None,
        Some(kind) => kind,
    };
    let lacks = match kind {
        "bond" | "team" => "its members and its transmit hash policy are not copied",
        "vlan" => "its tag and the interface below it are not copied",
        "vxlan" | "geneve" | "gre" | "gretap" | "ipip" | "sit" | "ip6tnl" | "wireguard" | "tun" => {
            "it does not encapsulate"
        }
        _ => "its behavior is not copied",
    };
    Some(Omission::new(format!("{} ({kind})", link.name), format!("copied as a veth pair: {lacks}")))
}
