//! The identity of an object that a plan changes.

use std::{collections::BTreeSet, fmt};

use super::{Change, Conflict, Plan};
use crate::{
    model::{Family, SysctlKey},
    state::{NatTable, RouteKey},
};

/// The identity of an object that a plan changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKey {
    /// The routes of one key.
    Route(RouteKey),
    /// The NAT table of one family.
    Nat(Family),
    /// One sysctl.
    Sysctl(SysctlKey),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(key) => write!(f, "route {key}"),
            Self::Nat(family) => write!(f, "table {} {}", family.nft(), NatTable::NAME),
            Self::Sysctl(key) => write!(f, "sysctl {key}"),
        }
    }
}

impl Change {
    /// Returns the identity of the object.
    #[must_use]
    pub fn object(&self) -> ObjectKey {
        match self {
            Self::Route(route) => ObjectKey::Route(route.key),
            Self::Nat(nat) => ObjectKey::Nat(nat.family),
            Self::Sysctl(sysctl) => ObjectKey::Sysctl(sysctl.key.clone()),
        }
    }
}

impl Conflict {
    /// Returns the identity of the object that cannot be changed.
    #[must_use]
    pub fn object(&self) -> ObjectKey {
        match self {
            Self::Route { wanted, .. } => ObjectKey::Route(wanted.key()),
            Self::Nat { family, .. } | Self::ForeignNat { family, .. } => ObjectKey::Nat(*family),
            Self::Sysctl(foreign) => ObjectKey::Sysctl(foreign.key.clone()),
        }
    }
}

impl Plan {
    /// Removes the changes and the conflicts of these objects.
    pub fn exclude(&mut self, objects: &BTreeSet<ObjectKey>) {
        if objects.is_empty() {
            return;
        }
        self.changes.retain(|change| !objects.contains(&change.object()));
        self.conflicts.retain(|conflict| !objects.contains(&conflict.object()));
    }
}
