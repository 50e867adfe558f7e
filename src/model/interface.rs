//! Names of network interfaces.

use std::fmt;

use crate::text::is_hidden;

/// The longest name of a Linux interface in bytes: `IFNAMSIZ` is 16 with the final NUL (linux/if.h).
const LINUX_NAME_MAX: usize = 15;

/// The longest alias of a Windows interface in characters: `NDIS_IF_MAX_STRING_SIZE` is 256 (ifdef.h).
const WINDOWS_ALIAS_MAX: usize = 256;

/// The name of a network interface, checked against the rules of the node's operating system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// Why a string is no interface name; a fragment that follows "… is not an interface name: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidInterfaceName {
    /// Nothing but white space, or nothing.
    Empty,
    /// More than 15 bytes on Linux.
    TooLong,
    /// More than 256 characters on Windows.
    AliasTooLong,
    /// `.` and `..` are directories in /proc/sys.
    Dots,
    /// `/`, `:`, white space or a control character.
    Character(char),
}

impl fmt::Display for InvalidInterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "Linux allows at most {LINUX_NAME_MAX} bytes"),
            Self::AliasTooLong => write!(f, "Windows allows at most {WINDOWS_ALIAS_MAX} characters"),
            Self::Dots => f.write_str("\".\" and \"..\" are reserved"),
            Self::Character(c) => write!(f, "{c:?} is not allowed"),
        }
    }
}

impl InterfaceName {
    /// A Linux interface name, by the kernel's own rule (`dev_valid_name`, net/core/dev.c), without characters
    /// that nobody can see.
    ///
    /// # Errors
    /// Says which part of the rule `name` breaks.
    pub fn linux(name: &str) -> Result<Self, InvalidInterfaceName> {
        if name.is_empty() {
            return Err(InvalidInterfaceName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidInterfaceName::Dots);
        }
        if let Some(c) = name.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace() || is_hidden(*c)) {
            return Err(InvalidInterfaceName::Character(c));
        }
        if name.len() > LINUX_NAME_MAX {
            return Err(InvalidInterfaceName::TooLong);
        }
        Ok(Self(name.to_owned()))
    }

    /// A Windows interface alias, such as `vEthernet (Ethernet)`.
    ///
    /// # Errors
    /// An alias that is empty, too long or holds a character that nobody can see is refused.
    pub fn windows(alias: &str) -> Result<Self, InvalidInterfaceName> {
        if alias.trim().is_empty() {
            return Err(InvalidInterfaceName::Empty);
        }
        if let Some(c) = alias.chars().find(|c| is_hidden(*c)) {
            return Err(InvalidInterfaceName::Character(c));
        }
        if alias.chars().count() > WINDOWS_ALIAS_MAX {
            return Err(InvalidInterfaceName::AliasTooLong);
        }
        Ok(Self(alias.to_owned()))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
