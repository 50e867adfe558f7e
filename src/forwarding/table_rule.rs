//! The policy rules by which packets to pods use the table with hostgw's routes (`routes.table`). hostgw does not add them.

use std::fmt;

use ipnet::IpNet;

use crate::{
    model::{Family, MAIN_TABLE},
    state::table_name,
    text::ShellCommand,
};

/// A policy rule by which packets to a prefix use a table. Prints as the command that adds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRule {
    /// The destinations.
    pub to: IpNet,
    /// The number of the table.
    pub table: u32,
    /// The preference. Rules apply in ascending order.
    pub priority: u32,
}

impl TableRule {
    /// The priority of the rules if no other rule has to come after them.
    pub const PRIORITY: u32 = 1000;

    /// Returns the rules of a node with the pod CIDRs `own`, in the order of their priorities, the last of which is
    /// `priority`. Only the main table has the routes to the node's own pods, which routes to the cluster prefix would divert.
    pub fn for_pods(
        own: impl Iterator<Item = IpNet>,
        cluster: impl Iterator<Item = IpNet>,
        table: u32,
        priority: u32,
    ) -> Vec<Self> {
        let before = priority.saturating_sub(1);
        let own =
            own.filter(|_| table != MAIN_TABLE).map(|to| Self { to, table: MAIN_TABLE, priority: before });
        own.chain(cluster.map(|to| Self { to, table, priority })).collect()
    }
}

impl fmt::Display for TableRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [to, table, priority] = [self.to.to_string(), table_name(self.table), self.priority.to_string()];
        let words = ["rule", "add", "to", &to, "lookup", &table, "priority", &priority];
        ShellCommand::new(Family::from(self.to).ip_words(words)).fmt(f)
    }
}
