//! What hostgw itself created on the node: its routes, and the tables named `hostgw`.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{masquerade::NatChoice, nat_rules::SourceTarget};
use crate::{
    model::{Family, PerFamily},
    state::{Expression, Field, NatTable, Route, RouteType, RuleBody, State},
};

/// What hostgw manages on the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Managed<'a> {
    state: &'a State,
}

impl<'a> Managed<'a> {
    pub const fn new(state: &'a State) -> Self {
        Self { state }
    }

    /// Whether it manages any routes.
    pub fn has_routes(&self) -> bool {
        self.routes().next().is_some()
    }

    fn routes(&self) -> impl Iterator<Item = &'a Route> + use<'a> {
        self.state.routes.iter().filter(|route| route.is_owned())
    }

    /// The routes that make pod gateways reachable.
    pub fn on_link(&self) -> impl Iterator<Item = &'a Route> + use<'a> {
        let is_on_link = |route: &&Route| {
            route.kind == RouteType::Unicast && route.next_hop.gateway.is_none() && route.hops().count() == 1
        };
        self.routes().filter(is_on_link)
    }

    /// The routes that reject packets to pods that no node has.
    fn unassigned(&self) -> impl Iterator<Item = &'a Route> + use<'a> {
        self.routes().filter(|route| route.kind == RouteType::Unreachable && route.metric == u32::MAX)
    }

    /// Whether it rejects packets to pods that no node has.
    pub fn rejects_unassigned(&self) -> bool {
        self.unassigned().next().is_some()
    }

    /// The routing table of the routes that reject packets to pods that no node has.
    pub fn table_of_unassigned(&self) -> Option<u32> {
        self.unassigned().next().map(|route| route.table)
    }

    /// The cluster prefixes of a family, as far as routes and rules show them, sorted.
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let of_routes = self.on_link().chain(self.unassigned()).map(|route| route.destination);
        let of_rules = self.state.nat.get(family).into_iter().flat_map(RuleMeaning::all);
        let of_rules = of_rules.flat_map(|rule| rule.outside);
        let prefixes: BTreeSet<IpNet> =
            of_routes.chain(of_rules).filter(|prefix| Family::from(*prefix) == family).collect();
        // Another program's change to a table can name a part of a prefix.
        let is_part = |part: &IpNet| prefixes.iter().any(|prefix| prefix != part && prefix.contains(part));
        prefixes.iter().copied().filter(|prefix| !is_part(prefix)).collect()
    }

    /// The node's own pod CIDRs of a family, if only their packets are masqueraded.
    pub fn own_pods(&self, family: Family) -> Vec<IpNet> {
        let table = self.state.nat.get(family);
        let rules = table.into_iter().flat_map(RuleMeaning::all);
        let mut own: Vec<IpNet> = rules.filter_map(|rule| rule.source).collect();
        own.sort_unstable();
        own.dedup();
        own
    }

    /// What its tables say. `None` if there are none.
    pub fn nat(&self) -> Option<NatChoice> {
        let tables = || self.state.nat.iter().map(|(_, table)| table);
        let rules: Vec<RuleMeaning> = tables().flat_map(RuleMeaning::all).collect();
        let first = rules.iter().find(|rule| !rule.is_return)?;
        // In the order of the rules, which a plan compares.
        let mut exclude: Vec<IpNet> = Vec::new();
        for net in rules.iter().filter(|rule| rule.is_return).filter_map(|rule| rule.inside) {
            if !exclude.contains(&net) {
                exclude.push(net);
            }
        }
        let mut targets: PerFamily<SourceTarget> = PerFamily::default();
        for (family, table) in self.state.nat.iter() {
            let rules = RuleMeaning::all(table);
            let to = rules.filter(|rule| !rule.is_return).map(|rule| rule.target());
            *targets.get_mut(family) = SourceTarget::common(to);
        }
        Some(NatChoice {
            masquerade: true,
            exclude,
            is_source_pods: first.source.is_some(),
            is_random_fully: first.flags & Expression::FULLY_RANDOM != 0,
            targets,
        })
    }
}

/// A rule of hostgw's own table.
#[derive(Debug, Clone, Default)]
struct RuleMeaning {
    /// Whether it leaves packets alone; otherwise, it masquerades them.
    is_return: bool,
    source: Option<IpNet>,
    /// The destination.
    inside: Option<IpNet>,
    /// The networks that are not the destination.
    outside: Vec<IpNet>,
    /// The new source address, unless it is that of the interface.
    address: Option<IpAddr>,
    /// The `NF_NAT_RANGE_*` flags.
    flags: u32,
}

impl RuleMeaning {
    /// The rules of a table that hostgw could have written.
    fn all(table: &NatTable) -> impl Iterator<Item = Self> + '_ {
        table.chains.iter().flat_map(|chain| &chain.rules).filter_map(|rule| match &rule.body {
            RuleBody::Known(expressions) => Self::of(expressions),
            RuleBody::Other { .. } => None,
        })
    }

    /// `None` for a rule that neither masquerades packets nor leaves them alone.
    fn of(expressions: &[Expression]) -> Option<Self> {
        let mut found = Self::default();
        let mut has_end = false;
        for expression in expressions {
            match *expression {
                Expression::Address { field: Field::Saddr, negated: false, prefix } => {
                    found.source = Some(prefix);
                }
                Expression::Address { field: Field::Daddr, negated: false, prefix } => {
                    found.inside = Some(prefix);
                }
                Expression::Address { field: Field::Daddr, negated: true, prefix } => {
                    found.outside.push(prefix);
                }
                Expression::Address { field: Field::Saddr, negated: true, .. } => return None,
                Expression::NotLocal | Expression::Counter => {}
                Expression::Masquerade { flags } => (found.flags, has_end) = (flags, true),
                Expression::SourceNat { address, flags } => {
                    (found.address, found.flags, has_end) = (Some(address), flags, true);
                }
                Expression::Return => (found.is_return, has_end) = (true, true),
            }
        }
        has_end.then_some(found)
    }

    fn target(&self) -> SourceTarget {
        self.address.map_or(SourceTarget::Interface, SourceTarget::Address)
    }
}
