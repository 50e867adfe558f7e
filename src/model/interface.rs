//! The names of network interfaces.

use std::fmt;

use crate::text::is_hidden;

/// The maximum length of a Linux interface name in bytes: `IFNAMSIZ` is 16 with the terminating NUL (linux/if.h).
const MAX_LINUX_NAME_LEN: usize = 15;

/// The maximum length of an alternative name in bytes: `ALTIFNAMSIZ` is 128 with the terminating NUL (linux/if.h).
const MAX_LINUX_ALTNAME_LEN: usize = 127;

/// The maximum length of a Windows interface alias in characters: `NDIS_IF_MAX_STRING_SIZE` is 256 (ifdef.h).
const MAX_WINDOWS_ALIAS_LEN: usize = 256;

/// The name of a network interface that is valid on the node's operating system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// The reason that a string is not an interface name, as a fragment to follow "… is not an interface name: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidInterfaceName {
    /// It is empty or whitespace.
    Empty,
    /// It exceeds the 127 bytes of an alternative name on Linux.
    TooLong,
    /// It exceeds 256 characters on Windows.
    AliasTooLong,
    /// It is `.` or `..`, which are directories in /proc/sys.
    Dots,
    /// It contains `/`, `:`, whitespace or a hidden character.
    Character(char),
}

impl fmt::Display for InvalidInterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is blank"),
            Self::TooLong => write!(f, "Linux allows at most {MAX_LINUX_ALTNAME_LEN} bytes"),
            Self::AliasTooLong => write!(f, "Windows allows at most {MAX_WINDOWS_ALIAS_LEN} characters"),
            Self::Dots => f.write_str("\".\" and \"..\" are reserved"),
            Self::Character(c) => write!(f, "{c:?} is not allowed"),
        }
    }
}

impl InterfaceName {
    /// Creates a name or an alternative name of a Linux interface. It must satisfy the kernel's rule (`dev_valid_name`, net/core/dev.c) and contain
    /// no hidden characters.
    ///
    /// # Errors
    /// Returns the part of the rule that `name` violates.
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
        if name.len() > MAX_LINUX_ALTNAME_LEN {
            return Err(InvalidInterfaceName::TooLong);
        }
        Ok(Self(name.to_owned()))
    }

    /// Creates a Windows interface alias, such as `vEthernet (Ethernet)`.
    ///
    /// # Errors
    /// Returns an error if the alias is empty, too long or contains hidden characters.
    pub fn windows(alias: &str) -> Result<Self, InvalidInterfaceName> {
        if alias.trim().is_empty() {
            return Err(InvalidInterfaceName::Empty);
        }
        if let Some(c) = alias.chars().find(|c| is_hidden(*c)) {
            return Err(InvalidInterfaceName::Character(c));
        }
        if alias.chars().count() > MAX_WINDOWS_ALIAS_LEN {
            return Err(InvalidInterfaceName::AliasTooLong);
        }
        Ok(Self(alias.to_owned()))
    }

    /// Returns `true` for a name that only an alternative name of a Linux interface can be, because it is longer than 15
    /// bytes.
    #[must_use]
    pub const fn is_alternative(&self) -> bool {
        self.0.len() > MAX_LINUX_NAME_LEN
    }

    /// Returns the name as a string.
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
