//! The grammar of single values: prefixes and addresses, with what to say about those that are none.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::special::Special;
use crate::{model::Family, text::shortened};

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
            let hint = format!("did you mean {}?", prefix.trunc());
            return Err(Wrong::new(format!("{text} has host bits set"), hint));
        }
        not_mapped(prefix.addr())?;
        return Ok(prefix);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let hint = format!("add the prefix length, as in {text}/{}", Family::from(address).bits());
        return Err(Wrong::new(format!("{text} is an address, not a prefix"), hint));
    }
    let parts = text.split_once('/').map(|(address, length)| (address.parse::<IpAddr>(), length.trim()));
    match parts {
        Some((Ok(address), length)) => Err(wrong_length(text, address, length)),
        _ => Err(Wrong::new(
            format!("{:?} is not a prefix", shortened(text)),
            "expected an address and a length, such as 10.244.0.0/16 or fd00:244::/48",
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
    let hint = format!("an {family} prefix length is a number from 0 to {}", family.bits());
    Wrong::new(format!("{:?} is not a prefix", shortened(text)), hint)
}

/// An address that one machine has, and no other.
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    one_machine(text, false)
}

/// The address of a router on a link that is known: there a link-local one will do.
pub(super) fn router(text: &str) -> Result<IpAddr, Wrong> {
    one_machine(text, true)
}

fn one_machine(text: &str, on_known_link: bool) -> Result<IpAddr, Wrong> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(no_address(text));
    };
    not_mapped(address)?;
    match Special::of(address) {
        Some(Special::LinkLocal) if on_known_link => Ok(address),
        Some(special) => Err(Wrong::new(
            format!("{text} is {}", special.name()),
            "use an address at which other machines can reach this one",
        )),
        None => Ok(address),
    }
}

/// An address and a port to connect to. Loopback is allowed: what listens there may lead elsewhere.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, Wrong> {
    let no_port = |address: IpAddr| {
        let hint = match address {
            IpAddr::V4(_) => format!("add a port, such as {address}:6443"),
            IpAddr::V6(_) => {
                "put an IPv6 address with a port in brackets, such as \"[fd00::1]:6443\"".to_owned()
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
            format!("{:?} is not a port", shortened(port)),
            format!("a port is a number from 1 to {}", u16::MAX),
        )),
    }
}

/// An address that another machine has on a link of the node.
pub(super) fn neighbour(text: &str) -> Result<IpAddr, Wrong> {
    let address = target(text)?;
    match Special::of(address) {
        Some(special @ Special::Loopback) => {
            Err(Wrong::new(format!("{text} is {}", special.name()), "a neighbor must be another machine"))
        }
        _ => Ok(address),
    }
}

/// An address to send packets to, in words that fit one of another machine.
fn target(text: &str) -> Result<IpAddr, Wrong> {
    const NOT_LINK_LOCAL: &str =
        "use another address of that machine: a link-local address does not name its link";
    let Ok(address) = text.parse::<IpAddr>() else {
        let is_zoned = text.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        return Err(if is_zoned {
            Wrong::new(format!("{:?} has a zone", shortened(text)), NOT_LINK_LOCAL)
        } else if is_host_name(text) {
            let hint = "use an IP address: checks must not depend on DNS";
            Wrong::new(format!("{:?} is a host name, not an address", shortened(text)), hint)
        } else {
            no_address(text)
        });
    };
    not_mapped(address)?;
    match Special::of(address) {
        // What listens on loopback may lead elsewhere. An IPv4 address is looked for where a route leads.
        None | Some(Special::Loopback) => Ok(address),
        Some(Special::LinkLocal) if address.is_ipv4() => Ok(address),
        Some(special @ Special::LinkLocal) => {
            Err(Wrong::new(format!("{text} is {}", special.name()), NOT_LINK_LOCAL))
        }
        Some(special) => {
            Err(Wrong::new(format!("{text} is {}", special.name()), "use the address of a machine"))
        }
    }
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
        let hint =
            format!("leave out the zone %{}: egressInterface already names the interface", shortened(zone));
        return Wrong::new(format!("{:?} has a zone", shortened(text)), hint);
    }
    Wrong::new(
        format!("{:?} is not an address", shortened(text)),
        "expected an address such as 172.30.0.11 or fd00::11",
    )
}

fn not_mapped(address: IpAddr) -> Result<(), Wrong> {
    let IpAddr::V6(v6) = address else { return Ok(()) };
    match v6.to_ipv4_mapped() {
        Some(v4) => {
            Err(Wrong::new(format!("{address} is {}", Special::Mapped.name()), format!("write {v4}")))
        }
        None => Ok(()),
    }
}
