//! Whether the source addresses that routes prefer, and that masqueraded packets get, are the node's own address, as
//! `routes.source` and `nat.to` of the configuration ask for.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{document::LiveEntry, nat_rules::SourceTarget, pods};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, PerFamily},
    state::{Host, Route},
    text::list,
};

/// The source addresses that hostgw sets.
#[derive(Debug, Default)]
pub(super) struct SourceAddresses {
    /// The addresses of this node.
    pub own: PerFamily<IpAddr>,
    /// Whether its routes prefer them.
    pub are_of_routes: bool,
    /// Whether its masqueraded packets get them.
    pub are_of_nat: bool,
    /// What a configuration cannot describe.
    pub findings: Vec<Diagnostic>,
}

/// What determines the source addresses.
pub(super) struct SourceFacts<'a> {
    pub host: &'a Host,
    /// The cluster prefixes.
    pub prefixes: &'a [IpNet],
    /// The node's own pod CIDRs.
    pub own_pods: &'a [IpNet],
    /// The routes to other nodes.
    pub routes: &'a [&'a Route],
    /// The addresses that masqueraded packets get.
    pub targets: &'a PerFamily<SourceTarget>,
    /// The other nodes.
    pub others: &'a [LiveEntry],
    /// The address that the node probably has.
    pub usual: &'a PerFamily<IpAddr>,
}

/// Why an address is not one that hostgw can set.
type Obstacle = String;

impl SourceFacts<'_> {
    /// Returns the addresses that a configuration can describe, and warnings about the others.
    pub fn addresses(&self) -> SourceAddresses {
        let mut found = SourceAddresses { own: *self.usual, ..SourceAddresses::default() };
        let of_routes = self.of_routes();
        if is_set(&of_routes) {
            match self.route_sources(&of_routes) {
                Ok(own) => (found.own, found.are_of_routes) = (own, true),
                Err(why) => found.findings.push(finding(
                    &of_routes,
                    "the routes to other nodes prefer",
                    "routes.source",
                    &why,
                )),
            }
        }
        if is_set(self.targets) {
            match self.nat_targets(found.are_of_routes.then_some(&found.own)) {
                Ok(own) => {
                    own.iter().for_each(|(family, address)| *found.own.get_mut(family) = Some(*address));
                    found.are_of_nat = true;
                }
                Err(why) => {
                    found.findings.push(finding(self.targets, "masqueraded packets get", "nat.to", &why));
                }
            }
        }
        found
    }

    /// The preferred sources of the routes.
    fn of_routes(&self) -> PerFamily<SourceTarget> {
        let mut sources = PerFamily::default();
        for family in Family::ALL {
            let of_family = self.routes.iter().filter(|route| route.family() == family);
            let targets =
                of_family.map(|route| route.source.map_or(SourceTarget::Interface, SourceTarget::Address));
            *sources.get_mut(family) = SourceTarget::common(targets);
        }
        sources
    }

    /// The addresses of this node if `routes.source: node-address` gives its routes their sources.
    fn route_sources(&self, sources: &PerFamily<SourceTarget>) -> Result<PerFamily<IpAddr>, Obstacle> {
        let mut own = *self.usual;
        for (family, source) in sources.iter() {
            match source {
                SourceTarget::Address(address) => *own.get_mut(family) = Some(self.usable(*address, family)?),
                SourceTarget::Interface => return Err(format!("the {family} routes do not set one")),
                SourceTarget::Unclear => {
                    return Err(format!("they differ between the {family} routes"));
                }
            }
        }
        let families = || self.prefixes.iter().map(|prefix| Family::from(*prefix));
        if let Some(family) = families().find(|family| own.get(*family).is_none()) {
            return Err(format!("this node has no {family} address"));
        }
        self.others_have_addresses(|_, family| families().any(|of_cluster| of_cluster == family))?;
        Ok(own)
    }

    /// The addresses that `nat.to: node-address` gives to packets. `given` are those of the node, if they are known.
    fn nat_targets(&self, given: Option<&PerFamily<IpAddr>>) -> Result<PerFamily<IpAddr>, Obstacle> {
        let mut own = PerFamily::default();
        for (family, target) in self.targets.iter() {
            let address = match target {
                SourceTarget::Address(address) => self.usable(*address, family)?,
                SourceTarget::Interface => {
                    return Err(format!("other rules give {family} packets the address of the interface"));
                }
                SourceTarget::Unclear => {
                    return Err(format!("the {family} rules use several, or a range"));
                }
            };
            if let Some(other) = given.and_then(|given| given.get(family)).filter(|other| **other != address)
            {
                return Err(format!("the routes prefer another source, {other}"));
            }
            *own.get_mut(family) = Some(address);
        }
        let lacks = |family: &Family| own.get(*family).or_else(|| self.usual.get(*family)).is_none();
        if let Some(family) = self.own_pods.iter().map(|cidr| Family::from(*cidr)).find(lacks) {
            return Err(format!("this node has no {family} address"));
        }
        self.others_have_addresses(|node, family| {
            node.pod_cidrs.iter().any(|cidr| Family::from(*cidr) == family)
        })?;
        Ok(own)
    }

    /// Checks whether the node can have an address.
    fn usable(&self, address: IpAddr, family: Family) -> Result<IpAddr, Obstacle> {
        if !self.host.uses(address) {
            return Err("this node does not have it".to_owned());
        }
        if let Some(prefix) = self.prefixes.iter().find(|prefix| prefix.contains(&address)) {
            return Err(format!("it is inside the cluster prefix {prefix}"));
        }
        if pods::is_link_local(address) {
            return Err("it is link-local".to_owned());
        }
        if let Some(usual) = self.usual.get(family).filter(|usual| **usual != address) {
            return Err(format!("other nodes reach this node by {usual}"));
        }
        Ok(address)
    }

    /// Checks whether the addresses of all other nodes are known, not only their pod gateways.
    fn others_have_addresses(&self, is_needed: impl Fn(&LiveEntry, Family) -> bool) -> Result<(), Obstacle> {
        let lacks = |node: &&LiveEntry| {
            let has = |family| node.addresses.iter().any(|address| Family::from(*address) == family);
            Family::ALL.into_iter().any(|family| is_needed(node, family) && !has(family))
        };
        let names: Vec<&str> = self.others.iter().filter(lacks).map(|node| node.name.as_str()).collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(format!("the addresses of other nodes are unknown: {}", list(&names, 4)))
        }
    }
}

/// Whether an address is set at all.
fn is_set(targets: &PerFamily<SourceTarget>) -> bool {
    targets.iter().any(|(_, target)| *target != SourceTarget::Interface)
}

fn finding(targets: &PerFamily<SourceTarget>, what: &str, key: &str, why: &str) -> Diagnostic {
    let addresses: Vec<IpAddr> = targets
        .iter()
        .filter_map(|(_, target)| match target {
            SourceTarget::Address(address) => Some(*address),
            SourceTarget::Interface | SourceTarget::Unclear => None,
        })
        .collect();
    let source = match addresses.as_slice() {
        [] => "source addresses that were not imported".to_owned(),
        addresses => format!("the source address {}, which was not imported", list(addresses, 2)),
    };
    let message = format!("{what} {source}: {why}");
    Diagnostic::new(Rule::SourceNotImported, message).with_remedy(format!(
        "to keep it, give every node its `address`, and set `{key}: node-address`, which only supports the node's own address"
    ))
}
