//! The state that the last apply established.

use serde::{Deserialize, Serialize};

use super::TransactionMeta;
use crate::{
    config::{Document, Loaded, StoredConfig},
    model::InterfaceName,
    plan,
    state::{Route, RouteKey, State},
    text::Untrusted,
};

/// The state that the last apply established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastApplied {
    /// The ID of its transaction.
    pub id: u64,
    /// The metadata of its transaction.
    pub metadata: TransactionMeta,
    /// The desired state. It omits the routes if they follow from the configuration.
    pub state: State,
    /// The egress interface of the routes, which the configuration need not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_interface: Option<Untrusted>,
    /// The configuration. It locates objects that have been removed from the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<StoredConfig>,
}

impl LastApplied {
    /// Returns the configuration, if this version still accepts it.
    #[must_use]
    pub fn load(&self) -> Option<Loaded> {
        self.with_egress(Loaded::new(self.document()?).ok()?)
    }

    /// Returns the configuration, if this version still accepts it, given the one that is applied now.
    #[must_use]
    pub fn load_before(&self, now: &Loaded) -> Option<Loaded> {
        self.with_egress(Loaded::earlier(self.document()?, now).ok()?)
    }

    /// Adds the egress interface that was found on the node.
    fn with_egress(&self, mut loaded: Loaded) -> Option<Loaded> {
        if let (Some(node), Some(name)) = (&self.metadata.node, &self.egress_interface) {
            let interface = InterfaceName::linux(name.as_raw()).ok()?;
            loaded.cluster.set_found_egress(node.clone(), interface);
        }
        Some(loaded)
    }

    fn document(&self) -> Option<Document> {
        let name = self.metadata.file.clone().unwrap_or_default();
        Some(self.configuration.as_ref()?.document(name))
    }

    /// Returns the routes of the desired state that have a wanted key, given the loaded configuration: those that it asks
    /// for on this node. `None` if they are not known, because this version does not accept the configuration.
    #[must_use]
    pub fn routes(
        &self,
        loaded: Option<&Loaded>,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> Option<Vec<Route>> {
        let node = || {
            let cluster = &loaded?.cluster;
            Some((cluster, cluster.node(self.metadata.node.as_ref()?.as_raw())?.0))
        };
        match node().filter(|_| self.state.routes.is_empty()) {
            Some((cluster, index)) => Some(plan::desired_routes(cluster, index, is_wanted)),
            None if self.configuration.is_some() && self.state.routes.is_empty() => None,
            None => Some(self.state.routes.iter().filter(|route| is_wanted(&route.key())).cloned().collect()),
        }
    }

    /// Returns the whole desired state, given the loaded configuration; `None` if its routes are not known.
    #[must_use]
    pub fn whole_state(&self, loaded: Option<&Loaded>) -> Option<State> {
        Some(State { routes: self.routes(loaded, |_| true)?.into(), ..self.state.clone() })
    }
}
