//! Observes a node and plans its changes.

use super::{
    Conflict, Desired, ForeignPolicy, ForeignSysctl, ForeignSysctlPolicy, NotLinux, Observed,
    OriginalSysctls, Plan, Scope, desired, foreign,
};
use crate::{error::Error, model::Cluster, progress::Task};

/// A node whose state can be read.
pub trait Observe {
    /// Reads the objects in `scope`, and all managed ones. Parts that cannot be read are reported as unknown rather
    /// than omitted.
    ///
    /// # Errors
    /// Returns an error if the node cannot be read at all.
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error>;
}

/// A plan, and everything that it is based on.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The desired state.
    pub desired: Desired,
    /// The scope of the observation.
    pub scope: Scope,
    /// The live state.
    pub observed: Observed,
    /// The plan.
    pub plan: Plan,
    /// How the plan treats foreign objects.
    pub policy: ForeignPolicy,
    /// The sysctls that are not restored because another program has written them. hostgw no longer manages them.
    pub left: Vec<ForeignSysctl>,
}

impl Prepared {
    /// Creates a plan without changes, before anything was observed.
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
        adapt_to: Option<(&Cluster, usize)>,
    ) -> Result<Self, Error> {
        let _task = Task::begin("planning");
        let mut scope = Scope::of(&desired.state, desired.prefixes.clone());
        if let Some((cluster, _)) = adapt_to {
            scope.look_up_nodes(cluster);
        }
        let observed = node.observe(&scope)?;
        if let Some((cluster, index)) = adapt_to {
            desired.adapt_off_link(cluster, index, &observed);
        }
        let live = &observed.state.sysctls;
        let found = match on_foreign {
            ForeignSysctlPolicy::Overwrite => Vec::new(),
            ForeignSysctlPolicy::Refuse | ForeignSysctlPolicy::Leave => desired.foreign_sysctls(saved, live),
        };
        foreign::keep(&mut desired.state.sysctls, &found);
        foreign::keep_deviating(&mut desired.state.sysctls, &desired.released, live);
        let mut plan = super::plan(&desired.state, &observed.state, policy);
        let mut left = Vec::new();
        match on_foreign {
            ForeignSysctlPolicy::Refuse => plan.conflicts.extend(found.into_iter().map(Conflict::Sysctl)),
            ForeignSysctlPolicy::Leave | ForeignSysctlPolicy::Overwrite => left = found,
        }
        Ok(Self { desired, scope, observed, plan, policy, left })
    }

    /// Observes the node again. Returns `true` if everything is as it was when the plan was made.
    ///
    /// # Errors
    /// Returns an error if the node cannot be read.
    pub fn is_current(&self, node: &mut dyn Observe) -> Result<bool, Error> {
        Ok(node.observe(&self.scope)?.is_identical(&self.observed))
    }
}

/// Plans the changes of the node at `index` of `cluster` from its live state. A sysctl that is no longer configured but
/// that another program has written since keeps its value, unless the policy is [`ForeignPolicy::Adopt`].
///
/// # Errors
/// Returns the outer error if the node cannot be read, and [`NotLinux`] for a Windows node.
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
            Prepared::new(node, desired, saved, policy, on_foreign, Some((cluster, index))).map(Ok)
        }
        Err(not_linux) => Ok(Err(not_linux)),
    }
}

/// Plans the removal of everything that hostgw manages from the node's live state, including foreign objects in
/// hostgw's own table. `on_foreign` determines the treatment of sysctls that another program has written.
///
/// # Errors
/// Returns an error if the node cannot be read.
pub fn prepare_removal(
    node: &mut dyn Observe,
    saved: &OriginalSysctls,
    on_foreign: ForeignSysctlPolicy,
) -> Result<Prepared, Error> {
    Prepared::new(node, Desired::nothing(saved), saved, ForeignPolicy::Adopt, on_foreign, None)
}
