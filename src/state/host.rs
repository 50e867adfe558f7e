//! The surroundings of a node that plans are checked against: interfaces, addresses and foreign routes.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Firewall, LOCAL_TABLE, PolicyRule, Route, is_zero};
use crate::{model::Family, text::Untrusted};

/// The foreign parts of a node's live state that a plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The interfaces of the network namespace.
    pub links: Vec<Link>,
    /// The addresses of the network namespace.
    pub addresses: Vec<InterfaceAddress>,
    /// Foreign routes without a gateway that make addresses on an interface reachable, default routes, and foreign
    /// routes inside a cluster prefix.
    pub foreign: Vec<Route>,
    /// The remaining foreign routes, of any table, that can carry the packets of pods. Empty in a snapshot, where all are
    /// among the foreign ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Route>,
    /// The policy rules, in the order in which the kernel applies them. Empty if they were not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
    /// The chains of firewalls and NAT. Absent if they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// The neighbor table. Empty if it was not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<NeighborEntry>,
    /// The MAC addresses of the Ethernet interfaces, by name. Empty if they were not read.
    #[serde(default, rename = "macAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    pub mac_addresses: BTreeMap<Untrusted, Untrusted>,
    /// Programs and filters that see packets besides the firewall.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<PacketProgram>,
    /// The firmware's description of the machine. Absent if it was not read or is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Hardware>,
}

/// A program or a filter that sees packets besides the firewall, and that hostgw does not examine.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PacketProgram {
    /// The kind of program or filter.
    pub kind: PacketProgramKind,
    /// The interface that the program is attached to. Absent if it is for all interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Untrusted>,
}

/// A kind of program or filter that sees packets.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum PacketProgramKind {
    /// An eBPF program in the network driver (XDP).
    Xdp,
    /// An eBPF program that is attached to tc.
    TcProgram,
    /// A tc filter that is not an eBPF program.
    TcFilter,
    /// A `netem` qdisc, which drops or delays packets.
    Netem,
    /// IPsec policies.
    Ipsec,
    /// IPVS services.
    Ipvs,
}

impl fmt::Display for PacketProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PacketProgramKind::Xdp => "XDP program",
            PacketProgramKind::TcProgram => "tc eBPF program",
            PacketProgramKind::TcFilter => "tc filter",
            PacketProgramKind::Netem => "netem qdisc",
            PacketProgramKind::Ipsec => "IPsec policies",
            PacketProgramKind::Ipvs => "IPVS services",
        })?;
        self.device.as_ref().map_or(Ok(()), |device| write!(f, " on {device}"))
    }
}

/// The firmware's description of a machine (`/sys/class/dmi/id`), from which hostgw recognizes clouds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hardware {
    /// The vendor of the machine (`sys_vendor`).
    #[serde(default, skip_serializing_if = "Untrusted::is_empty")]
    pub vendor: Untrusted,
    /// The model of the machine (`product_name`).
    #[serde(default, skip_serializing_if = "Untrusted::is_empty")]
    pub product: Untrusted,
    /// The asset tag of the machine's chassis (`chassis_asset_tag`).
    #[serde(default, skip_serializing_if = "Untrusted::is_empty")]
    pub asset_tag: Untrusted,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The name of the interface in the namespace.
    pub name: Untrusted,
    /// The index of the interface in the namespace.
    pub index: u32,
    /// Whether the interface is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether the interface has a carrier (`IFF_LOWER_UP`); absent if it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// The kind of interface, such as `bridge` or `veth`; absent for a physical one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Untrusted>,
    /// Whether ARP and neighbor discovery are off on the interface (`IFF_NOARP`), although its link needs them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_arp: bool,
    /// The bridge, bond or VRF that the interface belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Untrusted>,
    /// The interface below this one, such as that of a VLAN or a macvlan interface; absent if it is in another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Untrusted>,
    /// Whether the bridge forwards no packets through this port, although the port is up and has a carrier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_forwarding: bool,
    /// Whether this bridge uses the Spanning Tree Protocol (`stp_state`), so that a new port forwards no packets at first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stp: bool,
    /// Whether the bridge forwards no packets between this port and other isolated ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// The families of the packets that pass the firewall when this bridge forwards them, because of its own options
    /// (`nf_call_iptables`, `nf_call_ip6tables`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Family>,
    /// The MTU of the interface in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The group of the interface.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub group: u32,
    /// The alternative names of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<Untrusted>,
}

/// An entry of the neighbor table (ARP and NDP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeighborEntry {
    /// The interface's name.
    pub device: Untrusted,
    /// The address of the neighbor.
    pub address: IpAddr,
    /// Its MAC address, such as `02:00:00:00:00:01`. Absent if it is unknown.
    #[serde(default, rename = "macAddress", skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<Untrusted>,
    /// Whether the neighbor did not answer the kernel's last request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// Whether the entry was set by hand or by a program: the kernel never resolves the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// Whether a program manages the entry (`extern_learn` in `ip neigh`), such as the control plane of an overlay network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// The MAC addresses in the answers to `hostgw doctor --probe`.
    #[serde(skip)]
    pub answers: Vec<Untrusted>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub device: Untrusted,
    /// The address.
    pub address: IpAddr,
    /// The prefix that the address makes reachable through the interface.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The flags of an address that is temporary, or that the kernel does not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<AddressFlag>,
}

/// A flag of an address (`IFA_F_*` in linux/if_addr.h), named as in `ip address`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum AddressFlag {
    /// A privacy address (RFC 8981), which the kernel replaces after a while.
    Temporary,
    /// An address whose preferred lifetime has expired.
    Deprecated,
    /// An address for which duplicate address detection has not finished, so the kernel does not use it yet.
    Tentative,
    /// An address that another machine has, too, so the kernel does not use it.
    DadFailed,
}

impl fmt::Display for AddressFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temporary => "temporary",
            Self::Deprecated => "deprecated",
            Self::Tentative => "tentative",
            Self::DadFailed => "dadfailed",
        })
    }
}

impl Link {
    /// Creates an interface that is up, without other properties.
    #[must_use]
    pub fn new(name: impl Into<Untrusted>, index: u32) -> Self {
        Self {
            name: name.into(),
            index,
            up: true,
            carrier: None,
            kind: None,
            no_arp: false,
            master: None,
            parent: None,
            not_forwarding: false,
            stp: false,
            isolated: false,
            filters: Vec::new(),
            mtu: None,
            group: 0,
            altnames: Vec::new(),
        }
    }

    /// Returns `true` if the interface is of this kind, such as `bridge`.
    #[must_use]
    pub fn is_a(&self, kind: &str) -> bool {
        self.kind.as_ref().is_some_and(|own| *own == kind)
    }
}

impl InterfaceAddress {
    /// Returns `true` if the kernel uses the address: it delivers packets for it to the node, and accepts it as a source.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.flags.iter().any(|flag| matches!(flag, AddressFlag::Tentative | AddressFlag::DadFailed))
    }
}

impl Host {
    /// Iterates over the routes by which the node receives packets. A snapshot may lack them.
    pub fn local_routes(&self) -> impl Iterator<Item = &Route> {
        let foreign = self.foreign.iter().chain(&self.others);
        foreign.filter(|route| route.table == LOCAL_TABLE && route.kind.is_local())
    }

    /// Returns `true` if the interface belongs to a VRF, which has the node's addresses in a table of its own.
    #[must_use]
    pub fn is_in_vrf(&self, device: &Untrusted) -> bool {
        let master = self.link(device.as_raw()).and_then(|link| self.link(link.master.as_ref()?.as_raw()));
        master.is_some_and(|master| master.is_a("vrf"))
    }

    /// Returns the interface with this `name`.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns the entry of `address`, if the node has it.
    #[must_use]
    pub fn owner_of(&self, address: IpAddr) -> Option<&InterfaceAddress> {
        self.addresses.iter().find(|local| local.address == address)
    }

    /// Returns `true` if the node has `address`, and the kernel uses it.
    #[must_use]
    pub fn uses(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|local| local.address == address && local.is_used())
    }

    /// Iterates over the prefixes that foreign routes make reachable on `device`. Addresses do not count: with
    /// `noprefixroute`, they have no route.
    pub fn on_link<'a>(&'a self, device: &'a str) -> impl Iterator<Item = IpNet> + 'a {
        self.foreign.iter().filter(move |route| route.is_on_link(device)).map(|route| route.destination)
    }
}
