//! Why a route of one node changes, where the configuration that was applied before is known.

use std::collections::HashMap;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    plan::Action,
    state::RouteKey,
};

use super::{
    Explanation, Side,
    pairing::NodePairing,
    routes::{RouteSlot, slot_cause, slots},
};

/// The configuration that was last applied beside the one that is planned now.
pub struct PreviousConfig<'a> {
    pairing: NodePairing<'a>,
    slots: HashMap<RouteKey, RouteSlot>,
    old: &'a Cluster,
}

impl<'a> PreviousConfig<'a> {
    /// `old` was applied, `new` is planned.
    #[must_use]
    pub fn new(old: &'a Cluster, new: &'a Cluster) -> Self {
        let slots = slots(Some(old), new).into_iter().filter(RouteSlot::differs);
        let by_key = slots.filter_map(|slot| Some((slot.key()?, slot))).collect();
        Self { pairing: NodePairing::new(Some(old), new), slots: by_key, old }
    }

    /// What in the configuration changed the route on `key`, in the words of a comparison of the two; none when
    /// nothing did.
    #[must_use]
    pub fn route(&self, key: &RouteKey, action: Action) -> Option<Explanation> {
        let cause = slot_cause(&self.pairing, self.slots.get(key)?);
        Some(cause.explain(Some(self.old), self.pairing.new, action, Some(key.family())))
    }

    /// Where the old configuration asked for a sysctl: by an entry of its own, or by the cluster prefix for the
    /// forwarding switches.
    #[must_use]
    pub fn sysctl(&self, key: &SysctlKey) -> (Side, ConfigPath) {
        (Side::Old, super::sysctls::path_of(key, Some(self.old)))
    }
}
