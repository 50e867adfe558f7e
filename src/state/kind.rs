//! The kinds of objects that hostgw manages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StatePart;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Routes.
    Route,
    /// NAT tables.
    Nat,
    /// Sysctls.
    Sysctl,
    /// Forwarding on an interface of a Windows node.
    Forwarding,
}

impl ObjectKind {
    /// All kinds, in the order in which a plan lists them.
    pub const ALL: [Self; 4] = [Self::Route, Self::Nat, Self::Sysctl, Self::Forwarding];

    /// Returns the heading of a list.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Route => "Routes",
            Self::Nat => "NAT",
            Self::Sysctl => "Sysctls",
            Self::Forwarding => "Forwarding",
        }
    }

    /// Returns the noun for one object.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Nat => "NAT object",
            Self::Sysctl => "sysctl",
            Self::Forwarding => "forwarding interface",
        }
    }

    /// Returns the position in an undo, which reverses the order of a commit: the node stops forwarding first.
    #[must_use]
    pub const fn undo_order(self) -> u8 {
        match self {
            Self::Sysctl | Self::Forwarding => 0,
            Self::Route => 1,
            Self::Nat => 2,
        }
    }
}

impl ObjectKind {
    /// Returns the kind under which a part of the state is listed; `None` for the records, which are no object.
    #[must_use]
    pub const fn of(part: &StatePart) -> Option<Self> {
        match part {
            StatePart::Nat { .. } => Some(Self::Nat),
            StatePart::Sysctl { .. } => Some(Self::Sysctl),
            StatePart::Records => None,
        }
    }
}
