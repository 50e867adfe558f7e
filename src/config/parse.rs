//! Parses prefixes, addresses, and endpoints, with a message and a hint for invalid ones.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::special::SpecialAddress;
use crate::{diagnose::Rule, model::Family, text::shortened};

/// The reason why a value is invalid, and a suggested fix.
#[derive(Debug)]
pub(super) struct ParseError {
    pub rule: Rule,
    pub message: String,
    pub hint: Option<String>,
}

impl ParseError {
    pub fn new(message: String, hint: impl Into<String>) -> Self {
        Self { rule: Rule::InvalidAddress, message, hint: Some(hint.into()) }
    }
}

/// Parses a prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, ParseError> {
    if let Ok(prefix) = text.parse::<IpNet>() {
        // `IpNet` accepts leading zeros, `IpAddr` does not.
        if text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_err()) {
            let message =
                format!("{text} has a number with leading zeros, which some programs read as octal");
            return Err(ParseError::new(message, "write the numbers without leading zeros"));
        }
        if prefix != prefix.trunc() {
            let hint = format!("did you mean {}?", prefix.trunc());
            return Err(ParseError::new(format!("{text} has host bits set"), hint));
        }
        not_mapped(prefix.addr()).map_err(|error| match unmapped(prefix) {
            Some(v4) => ParseError { hint: Some(format!("use {v4}")), ..error },
            None => error,
        })?;
        return Ok(prefix);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let hint =
            format!("add a prefix length; {text}/{} covers only this address", Family::from(address).bits());
        return Err(ParseError::new(format!("{text} is an address, not a prefix"), hint));
    }
    let parts = text.split_once('/').map(|(address, length)| (address.parse::<IpAddr>(), length.trim()));
    match parts {
        Some((Ok(address), length)) => Err(wrong_length(text, address, length)),
        _ => Err(ParseError::new(
            format!("{:?} is not a valid prefix", shortened(text)),
            "use a prefix such as 10.244.0.0/16 or fd00:244::/48",
        )),
    }
}

/// Returns the IPv4 prefix that an IPv4-mapped one stands for.
fn unmapped(prefix: IpNet) -> Option<IpNet> {
    let IpAddr::V6(address) = prefix.addr() else { return None };
    IpNet::new(address.to_ipv4_mapped()?.into(), prefix.prefix_len().checked_sub(96)?).ok()
}

fn wrong_length(text: &str, address: IpAddr, length: &str) -> ParseError {
    let family = Family::from(address);
    if let Some(length) = length.parse().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok()) {
        return ParseError::new(
            format!("{text} has a netmask instead of a prefix length"),
            format!("use {address}/{length}"),
        );
    }
    let hint = format!("use a prefix length from 0 to {}", family.bits());
    ParseError::new(format!("{:?} is not a valid prefix", shortened(text)), hint)
}

/// Parses an address that identifies a single machine.
pub(super) fn address(text: &str) -> Result<IpAddr, ParseError> {
    one_machine(text, false)
}

/// Parses the address of a router on a known link, where a link-local address is enough.
pub(super) fn router(text: &str) -> Result<IpAddr, ParseError> {
    one_machine(text, true)
}

fn one_machine(text: &str, on_known_link: bool) -> Result<IpAddr, ParseError> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(no_address(text));
    };
    not_mapped(address)?;
    match SpecialAddress::of(address) {
        Some(SpecialAddress::LinkLocal) if on_known_link => Ok(address),
        Some(special) => Err(ParseError::new(
            format!("{text} is {}", special.name()),
            "use an address that the nodes can reach",
        )),
        None => Ok(address),
    }
}

/// Parses an address and a port to connect to. Loopback is allowed, because a local proxy may listen there.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, ParseError> {
    let no_port = |address: IpAddr| {
        let hint = match address {
            IpAddr::V4(_) => format!("add one, such as {address}:6443"),
            IpAddr::V6(_) => {
                "put the IPv6 address in brackets and add a port, such as \"[fd00::1]:6443\"".to_owned()
            }
        };
        ParseError::new(format!("{text} has no port"), hint)
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
        _ => Err(ParseError::new(
            format!("{:?} is not a valid port", shortened(port)),
            format!("use a port from 1 to {}", u16::MAX),
        )),
    }
}

/// Parses the address of another machine on a link of the node.
pub(super) fn neighbor(text: &str) -> Result<IpAddr, ParseError> {
    let address = target(text)?;
    match SpecialAddress::of(address) {
        Some(special @ SpecialAddress::Loopback) => Err(ParseError::new(
            format!("{text} is {}", special.name()),
            "use the address of another machine",
        )),
        _ => Ok(address),
    }
}

/// Parses an address to send packets to.
fn target(text: &str) -> Result<IpAddr, ParseError> {
    const NOT_LINK_LOCAL: &str =
        "use another address of that machine; link-local addresses do not work in checks";
    let Ok(address) = text.parse::<IpAddr>() else {
        let is_zoned = text.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        return Err(if is_zoned {
            ParseError::new(format!("{:?} has a zone index", shortened(text)), NOT_LINK_LOCAL)
        } else if is_hostname(text) {
            let hint = "use an IP address: checks must not depend on DNS";
            ParseError::new(format!("{:?} is a hostname, not an address", shortened(text)), hint)
        } else {
            no_address(text)
        });
    };
    not_mapped(address)?;
    match SpecialAddress::of(address) {
        // A local proxy may listen on loopback. A route determines the link of an IPv4 link-local address.
        None | Some(SpecialAddress::Loopback) => Ok(address),
        Some(SpecialAddress::LinkLocal) if address.is_ipv4() => Ok(address),
        Some(special @ SpecialAddress::LinkLocal) => {
            Err(ParseError::new(format!("{text} is {}", special.name()), NOT_LINK_LOCAL))
        }
        Some(special) => Err(ParseError::new(
            format!("{text} is {}", special.name()),
            "use the address of the machine to check",
        )),
    }
}

fn is_hostname(text: &str) -> bool {
    text.chars().any(char::is_alphabetic)
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

fn no_address(text: &str) -> ParseError {
    if let Ok(prefix) = text.parse::<IpNet>() {
        let hint = format!("remove the prefix length: {}", prefix.addr());
        return ParseError::new(format!("{text} is a prefix, not an address"), hint);
    }
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        let hint = format!("remove %{}: egressInterface already selects the interface", shortened(zone));
        return ParseError::new(format!("{:?} has a zone index", shortened(text)), hint);
    }
    ParseError::new(
        format!("{:?} is not a valid IP address", shortened(text)),
        "use an address such as 172.30.0.11 or fd00::11",
    )
}

fn not_mapped(address: IpAddr) -> Result<(), ParseError> {
    let IpAddr::V6(v6) = address else { return Ok(()) };
    match v6.to_ipv4_mapped() {
        Some(v4) => Err(ParseError::new(
            format!("{address} is {}", SpecialAddress::Mapped.name()),
            format!("use {v4}"),
        )),
        None => Ok(()),
    }
}
