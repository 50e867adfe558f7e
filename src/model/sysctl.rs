//! Keys and values of sysctls.

use std::{fmt, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::printable;

/// The name of a kernel parameter under `net`, as sysctl(8) writes it: `net.ipv4.ip_forward`, and
/// `net.ipv4.conf.eth0/100.rp_filter` for the interface `eth0.100`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SysctlKey(String);

/// The longest name of a file (`NAME_MAX`, linux/limits.h).
const LONGEST_PART: usize = 255;

/// Why a string is no sysctl of hostgw's; a fragment that follows "… cannot be set by hostgw: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSysctlKey {
    /// It does not begin with `net.`.
    OutsideNet,
    /// A part that is empty, longer than a file name may be, `.` or `..`, or holds white space or a control character.
    Malformed,
}

impl fmt::Display for InvalidSysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideNet => "hostgw only manages sysctls under net.",
            Self::Malformed => "not a sysctl name such as net.ipv4.ip_forward",
        })
    }
}

impl std::error::Error for InvalidSysctlKey {}

impl SysctlKey {
    /// `net.ipv4.ip_forward`, the forwarding switch of all IPv4 interfaces.
    #[must_use]
    pub fn ipv4_forwarding() -> Self {
        Self("net.ipv4.ip_forward".to_owned())
    }

    /// `net.ipv6.conf.all.forwarding`, the forwarding switch of all IPv6 interfaces.
    #[must_use]
    pub fn ipv6_forwarding() -> Self {
        Self("net.ipv6.conf.all.forwarding".to_owned())
    }

    /// The file of this parameter, relative to `/proc/sys`.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.parts().collect()
    }

    /// The directories and the file name, in order. A slash inside a part of the key stands for a dot.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        self.0.split('.').map(|part| part.replace('/', "."))
    }

    /// The key of the file that these parts, below `/proc/sys`, name.
    ///
    /// # Errors
    /// As [`FromStr`].
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidSysctlKey> {
        let parts: Vec<String> = parts.into_iter().map(|part| part.replace('.', "/")).collect();
        parts.join(".").parse()
    }

    /// The key as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SysctlKey {
    type Err = InvalidSysctlKey;

    /// Accepts both spellings of sysctl(8): whichever of `.` and `/` comes first separates the parts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let slashes_separate = text.find(['.', '/']).is_some_and(|at| text.as_bytes()[at] == b'/');
        let dotted: String = if slashes_separate {
            text.chars()
                .map(|c| {
                    if c == '/' {
                        '.'
                    } else if c == '.' {
                        '/'
                    } else {
                        c
                    }
                })
                .collect()
        } else {
            text.to_owned()
        };
        let bad_part = |part: &str| {
            part.is_empty()
                || part.len() > LONGEST_PART
                || part.chars().all(|c| c == '/')
                || part.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        if dotted.split('.').any(bad_part) {
            return Err(InvalidSysctlKey::Malformed);
        }
        if !dotted.starts_with("net.") {
            return Err(InvalidSysctlKey::OutsideNet);
        }
        Ok(Self(dotted))
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

/// A value as compared: the kernel reads vectors back with tabs and ends every value with a newline.
#[must_use]
pub fn normalize_value(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_sysctl_name_the_same_file() {
        for text in ["net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"] {
            let key: SysctlKey = text.parse().expect("a key");
            assert_eq!(key.to_string(), "net.ipv4.conf.eth0/100.rp_filter");
            assert_eq!(key.file(), PathBuf::from("net/ipv4/conf/eth0.100/rp_filter"));
        }
    }

    #[test]
    fn refuses_what_would_leave_the_net_directory() {
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
    fn values_compare_without_the_kernel_s_white_space() {
        assert_eq!(normalize_value("4096\t131072\t6291456\n"), "4096 131072 6291456");
    }
}
