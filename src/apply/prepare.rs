//! From a node as it is to a plan for it, with everything that the plan rests on.

use super::{Observe, Occasion, Request};
use crate::{
    error::Error,
    model::Cluster,
    plan::{self, Desired, NotLinux, Observed, Plan, Policy, Saved, Scope},
};

/// A plan with everything it rests on.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What the node shall hold.
    pub desired: Desired,
    /// What was looked at.
    pub scope: Scope,
    /// What stands.
    pub observed: Observed,
    /// What must change.
    pub plan: Plan,
    /// How the plan treats what is not hostgw's.
    pub policy: Policy,
}

impl Prepared {
    /// A plan of nothing, before anything was looked at.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            desired: Desired::nothing(&Saved::default()),
            scope: Scope::default(),
            observed: Observed::default(),
            plan: Plan::default(),
            policy: Policy::default(),
        }
    }

    fn new(node: &mut dyn Observe, desired: Desired, policy: Policy) -> Result<Self, Error> {
        let scope = Scope::of(&desired.state, desired.prefixes.clone());
        let observed = node.observe(&scope)?;
        let plan = plan::plan(&desired.state, &observed.state, policy);
        Ok(Self { desired, scope, observed, plan, policy })
    }

    /// The transaction that commits the plan at once, without checks.
    #[must_use]
    pub const fn request<'a>(&'a self, occasion: &'a Occasion) -> Request<'a> {
        Request {
            occasion,
            configuration: None,
            desired: &self.desired.state,
            scope: &self.scope,
            plan: &self.plan,
            observed: &self.observed.state,
            released: &self.desired.released,
            policy: self.policy,
            hold: None,
            checks: &[],
        }
    }
}

/// Plans node number `index` of `cluster` on the node as it is now.
///
/// # Errors
/// The outer error when the node cannot be read; [`NotLinux`] for a Windows node.
pub fn prepare(
    node: &mut dyn Observe,
    cluster: &Cluster,
    index: usize,
    saved: &Saved,
    policy: Policy,
) -> Result<Result<Prepared, NotLinux>, Error> {
    match plan::desired(cluster, index, saved) {
        Ok(desired) => Prepared::new(node, desired, policy).map(Ok),
        Err(not_linux) => Ok(Err(not_linux)),
    }
}

/// Plans the removal of all that hostgw owns on the node as it is now. Everything in hostgw's own table goes,
/// whoever put it there.
///
/// # Errors
/// When the node cannot be read.
pub fn prepare_removal(node: &mut dyn Observe, saved: &Saved) -> Result<Prepared, Error> {
    Prepared::new(node, Desired::nothing(saved), Policy::Adopt)
}
