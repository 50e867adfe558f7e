//! From a node as it is to a plan for it, with everything that the plan rests on.

use super::{
    Conflict, Desired, ForeignPolicy, ForeignSysctl, ForeignSysctlPolicy, NotLinux, Observed,
    OriginalSysctls, Plan, Scope, desired, foreign,
};
use crate::{error::Error, model::Cluster};

/// A node that can be read.
pub trait Observe {
    /// Reads what `scope` asks for, and what is hostgw's. A part that cannot be read is reported as
    /// unknown, never left out.
    ///
    /// # Errors
    /// When the node cannot be read at all.
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error>;
}

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
    pub policy: ForeignPolicy,
    /// The sysctls that are not restored, since somebody else has written them: they are theirs from now on.
    pub left: Vec<ForeignSysctl>,
}

impl Prepared {
    /// A plan of nothing, before anything was looked at.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            desired: Desired::nothing(&OriginalSysctls::default()),
            scope: Scope::default(),
            observed: Observed::default(),
            plan: Plan::default(),
            policy: ForeignPolicy::default(),
            left: Vec::new(),
        }
    }

    fn new(
        node: &mut dyn Observe,
        mut desired: Desired,
        saved: &OriginalSysctls,
        policy: ForeignPolicy,
        on_foreign: ForeignSysctlPolicy,
    ) -> Result<Self, Error> {
        let scope = Scope::of(&desired.state, desired.prefixes.clone());
        let observed = node.observe(&scope)?;
        let live = &observed.state.sysctls;
        let found = match on_foreign {
            ForeignSysctlPolicy::Overwrite => Vec::new(),
            ForeignSysctlPolicy::Refuse | ForeignSysctlPolicy::Leave => desired.foreign_sysctls(saved, live),
        };
        foreign::leave(&mut desired.state.sysctls, &found);
        foreign::leave_deviating(&mut desired.state.sysctls, &desired.released, live);
        let mut plan = super::plan(&desired.state, &observed.state, policy);
        let mut left = Vec::new();
        match on_foreign {
            ForeignSysctlPolicy::Refuse => plan.conflicts.extend(found.into_iter().map(Conflict::Sysctl)),
            ForeignSysctlPolicy::Leave | ForeignSysctlPolicy::Overwrite => left = found,
        }
        Ok(Self { desired, scope, observed, plan, policy, left })
    }
}

/// Plans node number `index` of `cluster` on the node as it is now. A sysctl that the configuration asks for no
/// longer, and that somebody else has written since, is left to them, but for [`ForeignPolicy::Adopt`].
///
/// # Errors
/// The outer error when the node cannot be read; [`NotLinux`] for a Windows node.
pub fn prepare(
    node: &mut dyn Observe,
    cluster: &Cluster,
    index: usize,
    saved: &OriginalSysctls,
    policy: ForeignPolicy,
) -> Result<Result<Prepared, NotLinux>, Error> {
    match desired(cluster, index, saved) {
        Ok(desired) => {
            let on_foreign = match policy {
                ForeignPolicy::Respect => ForeignSysctlPolicy::Leave,
                ForeignPolicy::Adopt => ForeignSysctlPolicy::Overwrite,
            };
            Prepared::new(node, desired, saved, policy, on_foreign).map(Ok)
        }
        Err(not_linux) => Ok(Err(not_linux)),
    }
}

/// Plans the removal of all that hostgw owns on the node as it is now. Everything in hostgw's own table goes,
/// whoever put it there; what becomes of sysctls that somebody else has written since, `on_foreign` says.
///
/// # Errors
/// When the node cannot be read.
pub fn prepare_removal(
    node: &mut dyn Observe,
    saved: &OriginalSysctls,
    on_foreign: ForeignSysctlPolicy,
) -> Result<Prepared, Error> {
    Prepared::new(node, Desired::nothing(saved), saved, ForeignPolicy::Adopt, on_foreign)
}
