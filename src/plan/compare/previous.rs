//! Explains changes on a node whose previous configuration is known.

use std::collections::HashMap;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    plan::{Action, Plan},
    state::RouteKey,
};

use super::{
    Explanation, Member, Side,
    pairing::NodePairing,
    routes::{RouteSlot, slot_cause, slots_at},
};

/// The configuration that was applied last, compared with the one being planned.
pub struct PreviousConfig<'a> {
    pairing: NodePairing<'a>,
    slots: HashMap<RouteKey, RouteSlot>,
    old: &'a Cluster,
    /// The node whose changes are explained.
    member: Member,
}

impl<'a> PreviousConfig<'a> {
    /// Compares `old`, which was applied last, with `new`, to explain the changes of a plan for the node at `index` of
    /// `new`.
    #[must_use]
    pub fn new(old: &'a Cluster, new: &'a Cluster, index: usize, plan: &Plan) -> Self {
        let keys = plan.route_keys();
        let pairing = NodePairing::new(Some(old), new);
        let member = pairing.new_member(index);
        let slots = slots_at(Some(old), new, |key| keys.contains(key)).into_iter();
        let by_key = slots
            .filter(|slot| slot.differs_on(&pairing, member))
            .filter_map(|slot| Some((slot.key()?, slot)));
        Self { slots: by_key.collect(), pairing, old, member }
    }

    /// Explains the change of the route at `key` as a comparison of the two configurations would. Returns `None` if the
    /// configuration did not change it.
    #[must_use]
    pub fn route(&self, key: &RouteKey, action: Action) -> Option<Explanation> {
        let cause = slot_cause(&self.pairing, self.slots.get(key)?, &[self.member]);
        Some(cause.explain(Some(self.old), self.pairing.new, action, Some(key.destination)))
    }

    /// Returns the location of a sysctl in the old configuration: its own entry, or the cluster prefix for a forwarding
    /// switch.
    #[must_use]
    pub fn sysctl(&self, key: &SysctlKey) -> (Side, ConfigPath) {
        (Side::Old, super::sysctls::path_of(key, Some(self.old)))
    }
}
