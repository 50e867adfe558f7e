//! Formats addresses and prefixes. A large plan has tens of thousands of them, and the standard library needs several
//! times as long for each.

use std::{
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

/// The length of the longest IPv4 prefix: 255.255.255.255/32.
const MAX_LEN: usize = 18;

/// An address, formatted as its own type does.
#[derive(Debug, Clone, Copy)]
pub struct FastAddress(pub IpAddr);

/// A prefix, formatted as its own type does.
#[derive(Debug, Clone, Copy)]
pub struct FastPrefix(pub IpNet);

impl fmt::Display for FastAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => Ipv4Text::new(address).write_to(f),
            IpAddr::V6(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for FastPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNet::V4(prefix) => {
                let mut text = Ipv4Text::new(prefix.addr());
                text.push(b'/');
                text.push_number(prefix.prefix_len());
                text.write_to(f)
            }
            IpNet::V6(prefix) => prefix.fmt(f),
        }
    }
}

/// An IPv4 address or prefix as text.
struct Ipv4Text {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Ipv4Text {
    fn new(address: Ipv4Addr) -> Self {
        let mut text = Self { bytes: [0; MAX_LEN], len: 0 };
        for (index, octet) in address.octets().into_iter().enumerate() {
            if index > 0 {
                text.push(b'.');
            }
            text.push_number(octet);
        }
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn push_number(&mut self, number: u8) {
        if number >= 100 {
            self.push(b'0' + number / 100);
        }
        if number >= 10 {
            self.push(b'0' + number / 10 % 10);
        }
        self.push(b'0' + number % 10);
    }

    fn write_to(&self, f: &mut impl Write) -> fmt::Result {
        let text = self.bytes.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok());
        f.write_str(text.ok_or(fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_are_formatted_as_by_their_types() {
        let octets = || (0..=255).map(|octet| [octet, 255 - octet, 0, octet / 2]);
        let addresses = octets().map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
        let more =
            ["::", "fd00::1", "::ffff:10.0.0.1", "255.255.255.255"].map(|text| text.parse().expect(text));
        for address in addresses.chain(more) {
            assert_eq!(FastAddress(address).to_string(), address.to_string());
            for length in [0, 1, 9, 10, 24, 32] {
                let prefix = IpNet::new(address, length).expect("a length that both families have");
                assert_eq!(FastPrefix(prefix).to_string(), prefix.to_string());
            }
        }
    }
}
