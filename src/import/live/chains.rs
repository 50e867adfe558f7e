//! The chains of a node's firewalls.

use super::{iptables::IptablesTable, plugin};
use crate::state::{Firewall, FirewallChain, NatTable};

/// The chains of a node.
pub(super) struct Chains<'a> {
    /// Those of iptables.
    pub iptables: Vec<IptablesTable>,
    /// Those that iptables does not know, except hostgw's own.
    pub native: Vec<&'a FirewallChain>,
}

impl<'a> Chains<'a> {
    /// Splits the chains of `firewall` into those that `iptables` knows and the others.
    pub fn new(firewall: Option<&'a Firewall>, iptables: Vec<IptablesTable>) -> Self {
        let is_native = |chain: &&FirewallChain| {
            // A table can have chains of both, and iptables only lists its own.
            let is_known = iptables.iter().any(|table| {
                let is_table =
                    chain.family.name() == table.family.nft() && chain.table == *table.name.as_str();
                let mut chains = table.chains.iter();
                !table.is_legacy && is_table && chains.any(|known| chain.name == *known.name.as_str())
            });
            chain.table != NatTable::NAME && !plugin::is_kube_proxy(chain) && !is_known
        };
        let native = firewall.iter().flat_map(|firewall| &firewall.chains).filter(is_native).collect();
        Self { iptables, native }
    }
}
