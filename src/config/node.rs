//! The rules for one node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    mistake::{Finding, Place},
    parse::{self, Wrong},
    raw::{Address, OneOrMany, RawNode},
    validator::{Context, Located, Validator, item_path, map},
};
use crate::{
    model::{
        ConfigPath, Family, InterfaceName, InvalidPodCidr, NextHop, Node, OperatingSystem, PerFamily, PodCidr,
    },
    text::shortened,
};

/// A node as far as its description is good.
#[derive(Debug, Default)]
pub(super) struct Draft {
    index: usize,
    pub name: Option<String>,
    pub os: Option<OperatingSystem>,
    pub cidrs: PerFamily<Located<PodCidr>>,
    pub addresses: PerFamily<Located<IpAddr>>,
    /// Whether one is given, good or not.
    pub has_egress_interface: bool,
    /// What few nodes have.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    gateways: PerFamily<Located<IpAddr>>,
    egress_interface: Option<InterfaceName>,
    default_gateway: Option<IpAddr>,
}

/// The node in a sentence.
pub(super) fn name_of(draft: &Draft) -> String {
    draft.name.as_ref().map_or_else(|| draft.path().to_string(), |name| format!("node {name}"))
}

impl Draft {
    pub fn path(&self) -> ConfigPath {
        ConfigPath::root().key("nodes").index(self.index)
    }

    pub fn cidr_path(&self, family: Family) -> ConfigPath {
        item_path(&self.path().key("podCIDR"), self.cidrs.get(family).and_then(|cidr| cidr.item))
    }

    /// Where `address` stands under `key`, whose values are `all`.
    pub fn place_in(&self, key: &str, all: &PerFamily<Located<IpAddr>>, address: IpAddr) -> ConfigPath {
        item_path(&self.path().key(key), all.get(address.into()).and_then(|located| located.item))
    }

    pub fn finish(self) -> Option<Node> {
        let rare = self.rare.map(|rare| *rare).unwrap_or_default();
        Some(Node {
            name: self.name?.into(),
            os: self.os?,
            pod_cidrs: map(&self.cidrs, |located| located.value),
            addresses: map(&self.addresses, |located| located.value),
            gateways: map(&rare.gateways, |located| located.value),
            egress_interface: rare.egress_interface,
            default_gateway: rare.default_gateway,
        })
    }
}

impl Validator<'_> {
    pub fn node(&mut self, index: usize, raw: RawNode, context: &Context) -> Draft {
        let mut draft = Draft { index, ..Draft::default() };
        draft.name = self.require(raw.name).and_then(|name| self.node_name(name.0, &draft));
        draft.os = self.require(raw.os).map(|word| word.0);
        let mut cidrs_complete = false;
        if let Some(cidrs) = self.require(raw.pod_cidr) {
            let path = || draft.path().key("podCIDR");
            (draft.cidrs, cidrs_complete) =
                self.per_family(&cidrs, path, "pod CIDR", pod_cidr, |cidr| cidr.prefix().into());
        }
        self.cidrs_in_cluster(&draft, context);
        let addresses_given = raw.address.is_some() || self.is_wrong(&draft.path().key("address"));
        let addresses_complete;
        (draft.addresses, addresses_complete) = self.addresses(raw.address.as_ref(), &draft, context);
        if !addresses_given || addresses_complete {
            self.needed_addresses(&draft, addresses_given, context);
        }
        draft.has_egress_interface = raw.egress_interface.is_some();
        if raw.gateway.is_some() || raw.egress_interface.is_some() || raw.default_gateway.is_some() {
            let gateways = raw.gateway.map(|gateway| self.gateways(&gateway, &draft, cidrs_complete));
            let egress_interface = raw.egress_interface.and_then(|name| self.node_interface(&name.0, &draft));
            let default_gateway =
                raw.default_gateway.and_then(|gateway| self.default_gateway(&gateway.0, &draft, context));
            let gateways = gateways.unwrap_or_default();
            draft.rare = Some(Rare { gateways, egress_interface, default_gateway }.into());
        }
        draft
    }

    fn node_name(&mut self, name: String, draft: &Draft) -> Option<String> {
        let fault = match name.chars().find(|c| c.is_whitespace() || c.is_control()) {
            _ if name.is_empty() => "empty node name".to_owned(),
            _ if name.len() > Node::LONGEST_NAME => {
                format!("the node name {:?} is longer than {} bytes", shortened(&name), Node::LONGEST_NAME)
            }
            Some(c) => format!("{:?} is not a node name: {c:?} is not allowed", shortened(&name)),
            None => return Some(name),
        };
        let hint = "use the name that `kubectl get nodes` shows";
        self.report(Finding::new(fault, Place::value(draft.path().key("name"))).hint(hint));
        None
    }

    fn cidrs_in_cluster(&mut self, draft: &Draft, context: &Context) {
        for (family, located) in draft.cidrs.iter() {
            let cidr = located.value;
            // Only spelled out for a mistake.
            let whose = || format!("pod CIDR {cidr} of {}", name_of(draft));
            let place = || Place::value(draft.cidr_path(family));
            let finding = match context.prefixes.of.get(family) {
                Some(cluster) if !cluster.contains(&cidr.prefix()) => {
                    let message = format!("{} is outside the cluster prefix {cluster}", whose());
                    let prefix = Place::value(ConfigPath::root().key("clusterPrefix"));
                    Finding::new(message, place()).related("cluster prefix defined here", prefix)
                }
                Some(cluster) if *cluster == cidr.prefix() && context.node_count > 1 => {
                    Finding::new(format!("{} is the whole cluster prefix", whose()), place())
                        .hint("leave room for the pods of other nodes")
                }
                None if context.prefixes.complete => {
                    Finding::new(format!("{} has no {family} cluster prefix to belong to", whose()), place())
                        .hint(format!("clusterPrefix can be a list: add an {family} prefix"))
                }
                _ => continue,
            };
            self.report(finding);
        }
    }

    fn addresses(
        &mut self,
        raw: Option<&OneOrMany<Address>>,
        draft: &Draft,
        context: &Context,
    ) -> (PerFamily<Located<IpAddr>>, bool) {
        let Some(raw) = raw else { return (PerFamily::default(), false) };
        let path = || draft.path().key("address");
        let (addresses, complete) =
            self.per_family(raw, path, "address", parse::address, |address| (*address).into());
        for (_, Located { value: address, item }) in addresses.iter() {
            if let Some(prefix) = context.prefixes.around(*address) {
                let message =
                    format!("address {address} of {} is inside the cluster prefix {prefix}", name_of(draft));
                let hint = "use the machine's own address; the cluster prefix is for pods";
                self.report(Finding::new(message, Place::value(item_path(&path(), *item))).hint(hint));
            }
        }
        (addresses, complete)
    }

    /// Windows nodes need an address, and so does `nextHop: node-address`, for every family of pods.
    fn needed_addresses(&mut self, draft: &Draft, given: bool, context: &Context) {
        let path = || draft.path().key("address");
        if !given && draft.os == Some(OperatingSystem::Windows) {
            let message = format!("{} has no address; Windows nodes need one", name_of(draft));
            self.report_missing(message, path(), "hostgw uses it to find the node's interface");
            return;
        }
        if context.next_hop != Some(NextHop::NodeAddress) {
            return;
        }
        for (family, _) in draft.cidrs.iter().filter(|(family, _)| draft.addresses.get(*family).is_none()) {
            let message = format!(
                "{} has {family} pods but no {family} address; nextHop: node-address needs one",
                name_of(draft)
            );
            let hint = "with nextHop: node-address, other nodes route to these pods via the node's address";
            self.report_missing(message, path(), hint);
        }
    }

    fn gateways(
        &mut self,
        raw: &OneOrMany<Address>,
        draft: &Draft,
        cidrs_complete: bool,
    ) -> PerFamily<Located<IpAddr>> {
        let path = draft.path().key("gateway");
        let (gateways, _) =
            self.per_family(raw, || path.clone(), "pod gateway", parse::address, |address| (*address).into());
        for (family, Located { value: gateway, item }) in gateways.iter() {
            let place = Place::value(item_path(&path, *item));
            let whose = format!("gateway {gateway} of {}", name_of(draft));
            match draft.cidrs.get(family) {
                Some(cidr) => {
                    let cidr_path = draft.cidr_path(family);
                    if let Some(finding) = misplaced(&whose, *gateway, cidr.value, place, cidr_path) {
                        self.report(finding.hint(usual_gateway(draft.os, cidr.value)));
                    }
                }
                None if cidrs_complete => {
                    let message = format!("{whose} has no {family} pod CIDR to belong to");
                    self.report(
                        Finding::new(message, place)
                            .hint("the pod gateway must be an address in the pod CIDR"),
                    );
                }
                None => {}
            }
        }
        gateways
    }

    fn node_interface(&mut self, name: &str, draft: &Draft) -> Option<InterfaceName> {
        let path = draft.path().key("egressInterface");
        match draft.os? {
            OperatingSystem::Linux => self.interface(name, &path, InterfaceName::linux),
            OperatingSystem::Windows => self.interface(name, &path, InterfaceName::windows),
        }
    }

    fn default_gateway(&mut self, text: &str, draft: &Draft, context: &Context) -> Option<IpAddr> {
        let place = Place::value(draft.path().key("defaultGateway"));
        if draft.os == Some(OperatingSystem::Linux) {
            let message = format!("{} runs Linux: defaultGateway is for Windows nodes", name_of(draft));
            self.report(Finding::new(message, place).hint("remove it"));
            return None;
        }
        let gateway = match parse::router(text) {
            Ok(gateway) => gateway,
            Err(wrong) => {
                self.refuse(wrong, place);
                return None;
            }
        };
        if let Some(prefix) = context.prefixes.around(gateway) {
            let message = format!(
                "default gateway {gateway} of {} is inside the cluster prefix {prefix}",
                name_of(draft)
            );
            let hint = "use the router of the machine's own network";
            self.report(Finding::new(message, place).hint(hint));
        }
        Some(gateway)
    }
}

fn pod_cidr(text: &str) -> Result<PodCidr, Wrong> {
    let prefix = parse::prefix(text)?;
    PodCidr::new(prefix).map_err(|why| {
        let hint = match why {
            InvalidPodCidr::TooSmall => {
                Some(format!("the smallest pod CIDR is a /{}", Family::from(prefix).bits() - 2))
            }
            InvalidPodCidr::HostBits(_) => None,
        };
        Wrong { message: format!("{text} is not a pod CIDR: {why}"), hint }
    })
}

/// A gateway that is no usable address of its pod CIDR.
fn misplaced(
    whose: &str,
    gateway: IpAddr,
    cidr: PodCidr,
    place: Place,
    cidr_path: ConfigPath,
) -> Option<Finding> {
    let prefix: IpNet = cidr.prefix();
    if !prefix.contains(&gateway) {
        let finding = Finding::new(format!("{whose} is outside its pod CIDR {cidr}"), place);
        return Some(finding.related("pod CIDR defined here", Place::value(cidr_path)));
    }
    if gateway == prefix.network() {
        return Some(Finding::new(format!("{whose} is the network address of {cidr}"), place));
    }
    // IPv6 has no broadcast address.
    if gateway.is_ipv4() && gateway == prefix.broadcast() {
        return Some(Finding::new(format!("{whose} is the broadcast address of {cidr}"), place));
    }
    None
}

fn usual_gateway(os: Option<OperatingSystem>, cidr: PodCidr) -> String {
    os.map_or_else(
        || "the pod gateway must be an address in the pod CIDR".to_owned(),
        |os| format!("the default gateway address is {}", cidr.gateway(os)),
    )
}
