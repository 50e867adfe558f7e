//! The grammar of single values: prefixes and addresses, with what to say about those that are none.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::Family;

/// Why a text is not what it should be: a sentence, and what to do.
#[derive(Debug)]
pub(super) struct Wrong {
    pub message: String,
    pub hint: Option<String>,
}

impl Wrong {
    pub fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: Some(hint.into()) }
    }
}

/// A prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(prefix) = text.parse::<IpNet>() {
        if prefix != prefix.trunc() {
            let hint = format!("the network is {}", prefix.trunc());
            return Err(Wrong::new(format!("{text} has host bits set"), hint));
        }
        return match prefix.addr() {
            IpAddr::V6(address) => not_mapped(address).map(|()| prefix),
            IpAddr::V4(_) => Ok(prefix),
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let hint = format!("add the prefix length, as in {text}/{}", Family::from(address).bits());
        return Err(Wrong::new(format!("{text} is an address, not a prefix"), hint));
    }
    let parts = text.split_once('/').map(|(address, length)| (address.parse::<IpAddr>(), length.trim()));
    match parts {
        Some((Ok(address), length)) => Err(wrong_length(text, address, length)),
        _ => Err(Wrong::new(
            format!("{text:?} is not a prefix"),
            "a prefix is an address and a length, such as 10.244.0.0/16 or fd00:244::/48",
        )),
    }
}

fn wrong_length(text: &str, address: IpAddr, length: &str) -> Wrong {
    let family = Family::from(address);
    if let Some(length) = length.parse().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok()) {
        return Wrong::new(
            format!("{text} has a netmask instead of a prefix length"),
            format!("write {address}/{length}"),
        );
    }
    let hint = format!("the length of an {family} prefix is a number from 0 to {}", family.bits());
    Wrong::new(format!("{text:?} is not a prefix"), hint)
}

/// An address that one machine can have.
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(no_address(text));
    };
    if let Some(kind) = nobodys(address).or(address.is_loopback().then_some("a loopback address")) {
        return Err(Wrong::new(
            format!("{text} is {kind}"),
            "give an address by which other machines reach this one",
        ));
    }
    if let IpAddr::V6(address) = address {
        not_mapped(address)?;
    }
    Ok(address)
}

/// What an address is that no machine has.
const fn nobodys(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an unspecified address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// An address and a port to connect to. Loopback is allowed: what listens there may lead elsewhere.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, Wrong> {
    let no_port = |address: IpAddr| {
        let hint = match address {
            IpAddr::V4(_) => format!("add it, as in {address}:6443"),
            IpAddr::V6(_) => {
                "with a port an IPv6 address stands in brackets, as in \"[fd00::1]:6443\"".to_owned()
            }
        };
        Wrong::new(format!("{text} has no port"), hint)
    };
    if let Ok(address) = text.parse() {
        return Err(no_port(address));
    }
    let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(address, port)| (address, Some(port))),
    };
    let address = target(address)?;
    let Some(port) = port else { return Err(no_port(address)) };
    match port.parse() {
        Ok(port) if port != 0 => Ok(SocketAddr::new(address, port)),
        _ => Err(Wrong::new(
            format!("{port:?} is not a port"),
            format!("a port is a number from 1 to {}", u16::MAX),
        )),
    }
}

/// An address that another machine has on a link of the node.
pub(super) fn neighbour(text: &str) -> Result<IpAddr, Wrong> {
    let address = target(text)?;
    if address.is_loopback() {
        return Err(Wrong::new(format!("{text} is a loopback address"), "a neighbour is another machine"));
    }
    Ok(address)
}

/// An address to send packets to, in words that fit one of another machine.
fn target(text: &str) -> Result<IpAddr, Wrong> {
    const NOT_LINK_LOCAL: &str =
        "give another address of that machine: which link is meant cannot be said here";
    let Ok(address) = text.parse::<IpAddr>() else {
        let is_zoned = text.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        return Err(if is_zoned {
            Wrong::new(format!("{text:?} has a zone"), NOT_LINK_LOCAL)
        } else if is_host_name(text) {
            let hint = "give its address: whether a name is found is nothing that a check should depend on";
            Wrong::new(format!("{text:?} is a host name, not an address"), hint)
        } else {
            no_address(text)
        });
    };
    if let Some(kind) = nobodys(address) {
        return Err(Wrong::new(format!("{text} is {kind}"), "give the address of a machine"));
    }
    if let IpAddr::V6(address) = address {
        not_mapped(address)?;
        if address.is_unicast_link_local() {
            return Err(Wrong::new(format!("{text} is a link-local address"), NOT_LINK_LOCAL));
        }
    }
    Ok(address)
}

fn is_host_name(text: &str) -> bool {
    text.chars().any(char::is_alphabetic)
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

fn no_address(text: &str) -> Wrong {
    if let Ok(prefix) = text.parse::<IpNet>() {
        let hint = format!("leave out the prefix length: {}", prefix.addr());
        return Wrong::new(format!("{text} is a prefix, not an address"), hint);
    }
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        let hint = format!("leave out the zone %{zone}: the interface is known from egressInterface");
        return Wrong::new(format!("{text:?} has a zone"), hint);
    }
    Wrong::new(format!("{text:?} is not an address"), "an address is such as 172.30.0.11 or fd00::11")
}

fn not_mapped(address: Ipv6Addr) -> Result<(), Wrong> {
    match address.to_ipv4_mapped() {
        Some(v4) => {
            Err(Wrong::new(format!("{address} is an IPv4 address in IPv6 form"), format!("write {v4}")))
        }
        None => Ok(()),
    }
}
