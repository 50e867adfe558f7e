//! Determines where a node forwards a packet, and why.
//!
//! hostgw asks the kernel where it would send a packet ([`kernel`](crate::kernel)), because only the kernel's answer takes
//! everything into account: policy rules, all tables, foreign routes, the forwarding of each interface, and reverse path
//! filtering. The kernel does not say why it refuses a packet, so [`ForwardingModel`] computes the same answer from the
//! observed state and names the rule, the route or the sysctl. Tests compare the two.
//!
//! Neither answer covers firewall and NAT rules, which [`ChainIndex::follow`] evaluates as far as they can be decoded. Neither
//! says whether the next hop answers, or what the other node does.
//!
//! - `model.rs`: the path of a packet according to rules, routes and sysctls
//! - `path.rs`: the packets between the pods of this node and those of all others and the outside, and their planned next hops
//! - `ends.rs`: the ends of these paths on this node
//! - `rank.rs`: how good a path is
//! - `prefix_set.rs`: prefixes whose packets may take a different path
//! - `treatment.rs`: what firewalls and NAT can do with a packet
//! - `firewall.rs`: what the chains of firewalls and NAT do with a packet
//! - `distinction.rs`: the addresses that no rule of a firewall distinguishes
//! - `register.rs`: the values that a rule compares, as far as they are known
//! - `sample.rs`: the headers of the packets that represent pod traffic
//! - `table_rule.rs`: the policy rules by which packets to pods use the table with hostgw's routes
//! - `windows.rs`: the route that a Windows node uses
//! - `cause.rs`: explains why a packet does not take the planned path, and what to do about it

mod cause;
mod distinction;
mod ends;
mod firewall;
mod model;
mod path;
mod prefix_set;
mod rank;
mod register;
mod sample;
mod table_rule;
mod treatment;
mod windows;

pub use cause::{
    PathFault, add_local_route, delete_route, delete_rule, explain, faults, faults_unapplied, owner,
    remove_route, remove_rule, stop_text,
};
pub use distinction::{Distinctions, Region};
pub use ends::{Direction, LocalEnd, OwnPod, own_pod};
pub use firewall::{ChainIndex, MAX_DEPTH};
pub use model::{ForwardingModel, Stop, Trace, drops, interface_key, sysctls};
pub use path::{Path, Paths, Peer, PodPart};
pub use rank::{Ledger, Rank};
use sample::CLIENT_PORT;
pub use sample::{SAMPLE_PORT, Transport};
pub use table_rule::TableRule;
pub use treatment::{
    AddressChange, Conditional, Filtering, HeaderPart, NewDestination, Overwriting, Passage, Spot,
    Translation, Treatment, Way,
};
pub use windows::{ActiveRoute, ActiveTable, Candidates, TrafficPart};

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{error::Error, model::Family, text::Untrusted};

/// Returns the address that represents all destinations outside the cluster: a documentation address (RFC 5737, RFC 3849).
#[must_use]
pub const fn outside_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

/// A node that can be asked where it forwards packets.
pub trait Forwarder {
    /// Returns what the node does with packets, in their order.
    ///
    /// # Errors
    /// Returns an error if the node cannot be asked.
    fn verdicts(&mut self, packets: &[Packet]) -> Result<Vec<Verdict>, Error>;
}

/// A packet that a node receives or sends, without a mark and with the type of service 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The interface that the packet arrives on; `None` if the node itself sends it.
    pub input: Option<Untrusted>,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.destination, self.source)?;
        self.input.iter().try_for_each(|input| write!(f, " iif {input}"))
    }
}

/// What a node does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node forwards the packet.
    Forwarded {
        /// The prefix length of the route.
        length: u8,
        /// The next hops, of which one is used. Empty if they are unknown.
        hops: Vec<Hop>,
    },
    /// The node receives the packet itself.
    Local,
    /// The node drops the packet.
    Refused(Refusal),
}

/// The next hop of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The address of the next hop, or `None` if the destination is on-link.
    pub gateway: Option<IpAddr>,
    /// The outgoing interface.
    pub device: Untrusted,
}

/// The kernel's reason to refuse a packet, as coarse as its error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No route (`ENETUNREACH`).
    NoRoute,
    /// An unreachable route, or no forwarding (`EHOSTUNREACH`).
    Unreachable,
    /// A route or a rule that prohibits the packet (`EACCES`).
    Prohibited,
    /// A blackhole, a source address that cannot be right, or another impossible packet (`EINVAL`).
    Invalid,
    /// Another error, by its number.
    Other(i32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "there is no route",
            Self::Unreachable => "the kernel reports it as unreachable (EHOSTUNREACH)",
            Self::Prohibited => "the kernel prohibits it (EACCES)",
            Self::Invalid => "the kernel drops it (EINVAL)",
            Self::Other(errno) => return write!(f, "the kernel refuses it (error {errno})"),
        })
    }
}
