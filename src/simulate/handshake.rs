//! Opens TCP connections between the namespaces.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    error::Error,
    kernel::{Namespace, inside},
    text::OsError,
};

/// How long to wait for the other end, whose MAC address is known: less than the kernel waits to repeat a SYN.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Returns `true` if a connection from `from` to `port` of `address`, which `to` has, can be opened. The kernels at both ends
/// shake hands.
///
/// # Errors
/// Returns an error if `to` cannot listen.
pub fn shakes_hands(from: &Namespace, to: &Namespace, address: IpAddr, port: u16) -> Result<bool, Error> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let cannot = |error: io::Error| {
        Error::unexpected(format!("cannot open a listening socket for probes: {}", OsError(&error)))
    };
    let _listener = inside(to, || TcpListener::bind((any, port)).map_err(cannot))?;
    inside(from, || Ok(TcpStream::connect_timeout(&(address, port).into(), TIMEOUT).is_ok()))
}
