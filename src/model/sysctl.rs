//! The keys and values of sysctls.

use std::{fmt, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Family;
use crate::text::{all_bytes, printable};

/// The key of a kernel parameter under `net`, in the syntax of sysctl(8): `net.ipv4.ip_forward`, or
/// `net.ipv4.conf.eth0/100.rp_filter` for the interface `eth0.100`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SysctlKey(String);

/// The maximum length of a file name (`NAME_MAX`, linux/limits.h).
const MAX_PART_LEN: usize = 255;

/// The reason that hostgw cannot set a sysctl, as a fragment to follow "… cannot be set by hostgw: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSysctlKey {
    /// The key does not start with `net.`.
    OutsideNet,
    /// A part is empty, longer than a file name, `.` or `..`, or contains whitespace or control characters.
    Malformed,
}

impl fmt::Display for InvalidSysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideNet => "hostgw only manages sysctls under net.",
            Self::Malformed => "not a valid sysctl name",
        })
    }
}

impl std::error::Error for InvalidSysctlKey {}

impl SysctlKey {
    /// Returns `net.ipv4.ip_forward`, which enables forwarding on all IPv4 interfaces.
    #[must_use]
    pub fn ipv4_forwarding() -> Self {
        Self("net.ipv4.ip_forward".to_owned())
    }

    /// Returns `net.ipv6.conf.all.forwarding`, which enables forwarding on all IPv6 interfaces.
    #[must_use]
    pub fn ipv6_forwarding() -> Self {
        Self("net.ipv6.conf.all.forwarding".to_owned())
    }

    /// Returns the sysctl that enables forwarding of `family`.
    #[must_use]
    pub fn forwarding(family: Family) -> Self {
        match family {
            Family::V4 => Self::ipv4_forwarding(),
            Family::V6 => Self::ipv6_forwarding(),
        }
    }

    /// Returns the parameter's file, relative to `/proc/sys`.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        swapped(&self.0).into()
    }

    /// Iterates over the directories and the file name. A slash in a part of the key represents a dot in its name.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        self.0.split('.').map(|part| part.replace('/', "."))
    }

    /// Returns the key of the file with these directories and this name, relative to `/proc/sys`.
    ///
    /// # Errors
    /// Same as [`FromStr`].
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidSysctlKey> {
        /// Enough for almost all keys.
        const TYPICAL: usize = 64;
        let mut key = String::with_capacity(TYPICAL);
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                key.push('.');
            }
            let start = key.len();
            key.push_str(part);
            if part.contains('.') {
                key.replace_range(start.., &part.replace('.', "/"));
            }
        }
        Self::from_dotted(key)
    }

    /// Checks a key whose parts are separated by dots.
    fn from_dotted(dotted: String) -> Result<Self, InvalidSysctlKey> {
        let is_plain = all_bytes(&dotted, |byte| byte.is_ascii_graphic());
        let is_invalid = |part: &str| {
            part.is_empty()
                || part.len() > MAX_PART_LEN
                || (part.starts_with('/') && part.bytes().all(|byte| byte == b'/'))
                || (!is_plain && part.chars().any(|c| c.is_whitespace() || c.is_control()))
        };
        if dotted.split('.').any(is_invalid) {
            return Err(InvalidSysctlKey::Malformed);
        }
        if !dotted.starts_with("net.") {
            return Err(InvalidSysctlKey::OutsideNet);
        }
        Ok(Self(dotted))
    }

    /// Returns the key in its canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SysctlKey {
    type Err = InvalidSysctlKey;

    /// Accepts both spellings of sysctl(8): the first `.` or `/` determines the separator.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let slashes_separate = text.find(['.', '/']).is_some_and(|at| text.as_bytes()[at] == b'/');
        Self::from_dotted(if slashes_separate { swapped(text) } else { text.to_owned() })
    }
}

impl TryFrom<String> for SysctlKey {
    type Error = InvalidSysctlKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SysctlKey> for String {
    fn from(key: SysctlKey) -> Self {
        key.0
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// Converts the two spellings of a key into each other.
fn swapped(key: &str) -> String {
    let swap = |byte| match byte {
        b'/' => b'.',
        b'.' => b'/',
        other => other,
    };
    // Both are ASCII, so the text remains UTF-8.
    String::from_utf8(key.bytes().map(swap).collect()).unwrap_or_default()
}

/// Normalizes a value for comparison: the kernel separates the parts of a vector with tabs and ends every value with a
/// newline.
#[must_use]
pub fn normalize_value(value: &str) -> String {
    let mut words = value.split_whitespace();
    let mut normalized = words.next().unwrap_or_default().to_owned();
    for word in words {
        normalized.push(' ');
        normalized.push_str(word);
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_file() {
        for text in ["net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"] {
            let key: SysctlKey = text.parse().expect("a key");
            assert_eq!(key.to_string(), "net.ipv4.conf.eth0/100.rp_filter");
            assert_eq!(key.file(), PathBuf::from("net/ipv4/conf/eth0.100/rp_filter"));
        }
    }

    #[test]
    fn keys_outside_net_are_rejected() {
        for text in ["kernel.panic", "netfoo.x", "net"] {
            assert_eq!(text.parse::<SysctlKey>(), Err(InvalidSysctlKey::OutsideNet), "{text}");
        }
        for text in
            ["net..x", "net.ipv4.", "", ".net", "net/../kernel/panic", "net.//.x", "net.a b", "net.a\nb"]
        {
            assert_eq!(text.parse::<SysctlKey>(), Err(InvalidSysctlKey::Malformed), "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_file_name_make_a_key() {
        let key = |parts: &[&str]| SysctlKey::from_parts(parts.iter().copied());
        let of_interface = key(&["net", "ipv4", "conf", "eth0.100", "rp_filter"]).expect("a key");
        assert_eq!(of_interface.as_str(), "net.ipv4.conf.eth0/100.rp_filter");
        assert!(key(&["net", "ipv6", "conf", "v\u{e9}th", "forwarding"]).is_ok());
        for parts in [["", "net"], ["net", ""], ["net", ".."], ["net", "a b"], ["net", "a\u{a0}b"]] {
            assert_eq!(key(&parts), Err(InvalidSysctlKey::Malformed), "{parts:?}");
        }
        assert_eq!(key(&["kernel", "panic"]), Err(InvalidSysctlKey::OutsideNet));
    }

    #[test]
    fn values_compare_without_white_space() {
        assert_eq!(normalize_value("4096\t131072\t6291456\n"), "4096 131072 6291456");
    }
}
