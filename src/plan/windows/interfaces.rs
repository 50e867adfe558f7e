//! Finds the interfaces of a node, exactly as its script does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Cluster, Family, InterfaceName, Node},
    state::Role,
};

use super::{Interface, ObservedRoute, WindowsObserved};

/// The aliases of the pod interface if no interface has the pod gateway: HNS uses the first one for the endpoint of the
/// network `cbr0`, and flannel the second one.
pub const POD_ALIASES: [&str; 2] = ["vEthernet (cbr0)", "vEthernet (cbr0_ep)"];

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRef {
    /// The index of the interface, which is not stable.
    pub index: u32,
    /// The alias of the interface.
    pub alias: String,
}

/// The interfaces of a node that hostgw needs, or why one was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundInterfaces {
    /// The egress interface.
    pub egress: Result<InterfaceRef, Diagnostic>,
    /// The interface with the pod gateway. A machine without pods has none.
    pub pod: Result<Option<InterfaceRef>, Diagnostic>,
}

impl FoundInterfaces {
    /// Returns both interfaces, or else why they were not found.
    pub(super) fn both(self) -> Result<(InterfaceRef, Option<InterfaceRef>), Vec<Diagnostic>> {
        match (self.egress, self.pod) {
            (Ok(egress), Ok(pod)) => Ok((egress, pod)),
            (egress, pod) => Err([egress.err(), pod.err()].into_iter().flatten().collect()),
        }
    }

    /// Iterates over the interfaces that were found.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &InterfaceRef)> {
        let pod = self.pod.as_ref().ok().and_then(Option::as_ref);
        [(Role::Egress, self.egress.as_ref().ok()), (Role::Pod, pod)]
            .into_iter()
            .filter_map(|(role, found)| Some((role, found?)))
    }
}

/// All interfaces of a node.
pub(super) struct NodeInterfaces<'a> {
    aliases: BTreeMap<u32, &'a str>,
    observed: &'a WindowsObserved,
}

impl<'a> NodeInterfaces<'a> {
    pub fn new(observed: &'a WindowsObserved) -> Self {
        let aliases =
            observed.interfaces.iter().map(|interface| (interface.index, interface.alias.as_str())).collect();
        Self { aliases, observed }
    }

    /// Returns `true` if a route is only in the persistent store and its interface no longer exists, so that it has no
    /// effect.
    pub fn is_orphan(&self, route: &ObservedRoute) -> bool {
        route.active_metric.is_none() && !self.aliases.contains_key(&route.index)
    }

    /// Returns the interfaces with one of `addresses`.
    fn with_address(&self, addresses: &[IpAddr]) -> BTreeSet<u32> {
        let matching = self.observed.addresses.iter().filter(|address| addresses.contains(&address.address));
        matching.map(|address| address.index).collect()
    }

    /// Returns the interfaces with one of these aliases, which Windows compares without case.
    fn with_alias(&self, names: &[&str]) -> BTreeSet<u32> {
        let matches = |alias: &str| names.iter().any(|name| name.to_lowercase() == alias.to_lowercase());
        self.aliases.iter().filter(|(_, alias)| matches(alias)).map(|(index, _)| *index).collect()
    }

    /// Finds the egress interface and the pod interface.
    pub fn find(&self, cluster: &Cluster, node: &Node) -> FoundInterfaces {
        let addresses: Vec<IpAddr> = node.addresses.iter().map(|(_, address)| *address).collect();
        let gateways: Vec<IpAddr> = node.pod_gateways().collect();
        let alias = cluster.egress_interface_of(node).map(InterfaceName::as_str);
        let egress = match alias {
            Some(alias) => self.with_alias(&[alias]),
            None => self.with_address(&addresses),
        };
        let with_gateway = self.with_address(&gateways);
        let pod = if with_gateway.is_empty() { self.with_alias(&POD_ALIASES) } else { with_gateway };
        let sought = alias
            .map_or_else(|| format!("has address {}", or(&addresses)), |alias| format!("is named {alias}"));
        FoundInterfaces {
            egress: self.unique(&egress, &format!("interface that {sought}")).map_err(|message| {
                Diagnostic::new(Rule::WindowsEgressMissing, message)
                    .with_remedy("correct the node's address or egressInterface in the configuration")
            }),
            pod: match node.has_pods() {
                true => self
                    .unique(
                        &pod,
                        &format!(
                            "pod interface (with address {}, or named {})",
                            or(&gateways),
                            or(&POD_ALIASES)
                        ),
                    )
                    .map(Some)
                    .map_err(|message| {
                        Diagnostic::new(Rule::NoPodInterface, message).with_remedy(
                            "set up the pod network first: the CNI plugin creates this interface",
                        )
                    }),
                false => Ok(None),
            },
        }
    }

    fn unique(&self, found: &BTreeSet<u32>, what: &str) -> Result<InterfaceRef, String> {
        if let (Some(index), 1) = (found.first(), found.len()) {
            return Ok(InterfaceRef {
                index: *index,
                alias: self.aliases.get(index).copied().unwrap_or_default().to_owned(),
            });
        }
        let names: BTreeSet<&str> = self.aliases.values().copied().collect();
        let names: Vec<&str> = names.into_iter().collect();
        let number = if found.is_empty() { "none".to_owned() } else { found.len().to_string() };
        Err(format!("expected exactly one {what}, found {number}; interfaces: {}", names.join(", ")))
    }
}

impl WindowsObserved {
    /// Finds the egress interface and the pod interface of `node`.
    #[must_use]
    pub fn find_interfaces(&self, cluster: &Cluster, node: &Node) -> FoundInterfaces {
        NodeInterfaces::new(self).find(cluster, node)
    }

    /// Returns the state of an address family of an interface.
    #[must_use]
    pub fn interface(&self, index: u32, family: Family) -> Option<&Interface> {
        let name = family.to_string();
        self.interfaces.iter().find(|interface| interface.index == index && interface.family == name)
    }
}

fn or<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
