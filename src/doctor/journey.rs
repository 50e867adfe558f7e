//! The path of one packet through a node, step by step.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use ipnet::IpNet;

use super::{
    conditions::{partial_property, spot_text},
    destination::{Rewriting, Rewritten},
};
use crate::{
    forwarding::{
        AddressChange, ChainIndex, Conditional, Filtering, ForwardingModel, HeaderPart, Overwriting, OwnPod,
        Packet, Passage, SAMPLE_PORT, Trace, Transport, Treatment, Verdict, Way, own_pod, stop_text,
    },
    model::{Cluster, Family, NextHopKind, Prefixed, pod_address},
    plan::Desired,
    state::{Host, MatchedChains, NeighborEntry, PacketProgramKind, Route},
    text::{Untrusted, list},
};

/// The path of a packet through a node.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Journey {
    /// The source address.
    pub source: IpAddr,
    /// The owner of the source address, such as "a pod of this node".
    pub from: Untrusted,
    /// The destination address.
    pub destination: IpAddr,
    /// The owner of the destination address, such as "a pod on node linux-2".
    pub to: Untrusted,
    /// The interface that the packet comes in through; absent for a packet of the node itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Untrusted>,
    /// The destination address that NAT gives to the packet before it is routed. Absent if NAT does not change it, or if it
    /// depends on which rule applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_destination: Option<IpAddr>,
    /// The outgoing interface of the route.
    #[serde(skip)]
    pub output: Option<Untrusted>,
    /// What the node finally does with the packet.
    pub outcome: JourneyEnd,
    /// Whether the source address is changed, so that the reply is addressed to this node.
    #[serde(skip)]
    pub is_masqueraded: bool,
    /// The steps, in order.
    pub steps: Vec<JourneyStep>,
}

/// What a node finally does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JourneyEnd {
    /// The node forwards the packet to the planned next hop.
    Forwarded,
    /// The node sends its own packet to the planned next hop.
    Sent,
    /// The node forwards or sends the packet, but not to the planned next hop.
    Diverted,
    /// The node receives the packet itself.
    Local,
    /// The node drops the packet.
    Dropped,
    /// The node forwards or sends the packet, but the next hop does not answer.
    Unanswered,
    /// NAT changes the destination of the packet, and hostgw cannot tell to which address.
    Redirected,
}

/// A step of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JourneyStep {
    /// The kind of decision.
    pub kind: StepKind,
    /// The decision.
    pub text: Untrusted,
}

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    /// Connection tracking changes an address of a reply back.
    ReverseNat,
    /// What NAT does with the destination address.
    Destination,
    /// The policy rule that selects the routing table.
    PolicyRule,
    /// The route.
    Route,
    /// Why routing drops the packet.
    Dropped,
    /// The next hop.
    NextHop,
    /// The next hop in the plan, if it differs.
    PlannedNextHop,
    /// What firewalls do with the packet.
    Firewall,
    /// What NAT does with the source address.
    Source,
}

impl StepKind {
    /// The label of the step in text.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ReverseNat => "reply NAT",
            Self::Destination => "DNAT",
            Self::PolicyRule => "rule",
            Self::Route => "route",
            Self::Dropped => "dropped",
            Self::NextHop => "next hop",
            Self::PlannedNextHop => "planned",
            Self::Firewall => "firewall",
            Self::Source => "source",
        }
    }
}

/// A node through which packets are traced.
pub struct Guidepost<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The index of the node.
    pub index: usize,
    /// The desired state of the node.
    pub desired: &'a Desired,
    /// The node.
    pub host: &'a Host,
    /// The model of the node.
    pub model: &'a ForwardingModel<'a>,
    /// Whether the node is only planned, so that firewalls and neighbors are unknown.
    pub is_planned: bool,
}

impl Guidepost<'_> {
    /// Returns the path of a packet. `describe` adds the source line of a managed route.
    pub fn journey(
        &self,
        source: IpAddr,
        destination: IpAddr,
        input: Option<Untrusted>,
        is_reply: bool,
        describe: &dyn Fn(&Route) -> String,
    ) -> Journey {
        let (from, original) = (self.whose(source).into(), destination);
        let rewriting = self.rewriting(source, destination, input.as_ref()).filter(|_| !is_reply);
        let mut steps = Vec::new();
        let mut add = |kind, text: String| steps.push(JourneyStep { kind, text: text.into() });
        // A rule for a port of a node says nothing about the other packets to it.
        let is_known = self.known(original).is_some();
        let is_traced = |rewriting: &Rewriting<'_>| rewriting.is_for_all_ports() || !is_known;
        let texts = rewriting.iter().flat_map(|rewriting| rewriting.texts(is_traced(rewriting)));
        texts.for_each(|text| add(StepKind::Destination, text));
        if !is_reply {
            self.unread_nat(original).into_iter().for_each(|text| add(StepKind::Destination, text));
        }
        let rewriting = rewriting.filter(is_traced);
        let to = match rewriting.is_some() && !is_known {
            true => "an address that NAT rules rewrite".into(),
            false => self.whose(original).into(),
        };
        let own = self.own_address_on(input.as_ref(), Family::from(original));
        let rewritten = rewriting.as_ref().map(|rewriting| rewriting.rewritten(own));
        if let Some(None) = rewritten {
            let (outcome, is_masqueraded) = (JourneyEnd::Redirected, false);
            let (output, new_destination) = (None, None);
            let destination = original;
            return Journey {
                source,
                from,
                destination,
                to,
                input,
                new_destination,
                output,
                outcome,
                is_masqueraded,
                steps,
            };
        }
        let rewritten = rewritten.flatten();
        let destination = rewritten.as_ref().map_or(original, |rewritten| rewritten.destination);
        let packet = Packet { source, destination, input };
        let trace = self.model.trace(&packet);
        let mut add = |kind, text: String| steps.push(JourneyStep { kind, text: text.into() });
        if let Some(rule) = trace.rule {
            add(StepKind::PolicyRule, rule.to_string());
        }
        if let Some(route) = trace.route {
            add(StepKind::Route, format!("{route} ({})", describe(route)));
        }
        let mut outcome = match &trace.verdict {
            Verdict::Forwarded { .. } if packet.input.is_none() => JourneyEnd::Sent,
            Verdict::Forwarded { .. } => JourneyEnd::Forwarded,
            Verdict::Local => JourneyEnd::Local,
            Verdict::Refused(refusal) => {
                let why = trace.stop.as_ref().map_or_else(|| refusal.to_string(), stop_text);
                add(StepKind::Dropped, why);
                JourneyEnd::Dropped
            }
        };
        let mut is_masqueraded = false;
        let next_hop = hop(&trace);
        let mut is_unanswered = false;
        if let Some((gateway, device)) = &next_hop {
            let gateway = *gateway;
            let next = gateway.unwrap_or(destination);
            add(StepKind::NextHop, self.next_hop(next, device));
            is_unanswered = self.neighbor(next, device).is_some_and(|neighbor| neighbor.unanswered);
            if is_unanswered {
                outcome = JourneyEnd::Unanswered;
            }
            let planned = self.planned(destination);
            if let Some(planned) = planned.filter(|planned| (planned.0, &planned.1) != (gateway, device)) {
                if matches!(outcome, JourneyEnd::Forwarded | JourneyEnd::Sent) {
                    outcome = JourneyEnd::Diverted;
                }
                let via = planned.0.map_or_else(String::new, |gateway| format!("{gateway} on "));
                add(StepKind::PlannedNextHop, format!("{via}{}", planned.1));
            }
        }
        let way = match (&packet.input, &trace.verdict) {
            (Some(_), Verdict::Forwarded { .. }) => Some(Way::Through),
            (Some(_), Verdict::Local) => Some(Way::In),
            (None, Verdict::Forwarded { .. }) => Some(Way::Out),
            // From the node to itself, or to nowhere.
            (None, Verdict::Local) | (_, Verdict::Refused(_)) => None,
        };
        if let Some(way) = way {
            let output = next_hop.map_or_else(Untrusted::default, |(_, device)| device);
            let passage = |transport, port| Passage {
                packet: &packet,
                transport,
                port,
                way,
                output: &output,
                is_reply,
            };
            match self.treatments(rewritten.as_ref(), passage) {
                Some(treatments) => {
                    let unread = self.unread_tables();
                    let unread = unread.map_or_else(String::new, |unread| format!("; unknown: {unread}"));
                    add(StepKind::Firewall, format!("{}{unread}", treatment_text(&treatments)));
                    let is_lost =
                        |treatment: &Treatment<'_>| matches!(treatment.filter, Filtering::Dropped(_));
                    let of_tcp = treatments.first().map(|(_, treatment)| treatment);
                    let masquerade = of_tcp.and_then(|treatment| treatment.masquerade);
                    if treatments.iter().all(|(_, treatment)| is_lost(treatment)) {
                        outcome = JourneyEnd::Dropped;
                    } else if way != Way::In && !is_reply && !is_unanswered {
                        // NAT applies to the first packet of a connection.
                        let text = masquerade.map(|AddressChange { spot, depends_on }| {
                            let unless = if depends_on.is_none() { "" } else { UNLESS };
                            format!("masqueraded by {}{unless}", spot_text(&spot))
                        });
                        add(StepKind::Source, text.unwrap_or_else(|| "unchanged".to_owned()));
                        is_masqueraded = masquerade.is_some_and(|masquerade| masquerade.is_certain());
                    }
                }
                None if self.is_planned => {}
                None => add(StepKind::Firewall, "unknown: reading its rules requires root".to_owned()),
            }
        }
        let output = trace.route.and_then(|route| route.next_hop.device.clone());
        let new_destination = rewritten.map(|rewritten| rewritten.destination);
        let destination = original;
        Journey {
            source,
            from,
            destination,
            to,
            input: packet.input,
            new_destination,
            output,
            outcome,
            is_masqueraded,
            steps,
        }
    }

    /// Returns the rules that change the destination of a packet before it is routed.
    fn rewriting(
        &self,
        source: IpAddr,
        destination: IpAddr,
        input: Option<&Untrusted>,
    ) -> Option<Rewriting<'_>> {
        let chains = ChainIndex::new(self.host.firewall.as_ref().filter(|_| !self.is_planned)?);
        // Without a route, the kernel does not even create a packet of its own.
        let own = || self.model.trace_own(source, destination);
        if input.is_none() && matches!(own().verdict, Verdict::Refused(_)) {
            return None;
        }
        let way = if input.is_some() { Way::Through } else { Way::Out };
        let output = hop(&own()).map_or_else(Untrusted::default, |(_, device)| device);
        let packet = Packet { source, destination, input: input.cloned() };
        let passage = |transport, port| Passage {
            packet: &packet,
            transport,
            port,
            way,
            output: &output,
            is_reply: false,
        };
        Rewriting::of(&chains, self.model, destination, passage)
    }

    /// Returns what may change the destination of a packet, and hostgw cannot read.
    fn unread_nat(&self, destination: IpAddr) -> Vec<String> {
        let firewall = self.host.firewall.as_ref().filter(|_| !self.is_planned);
        let has_nat = firewall.is_some_and(|firewall| firewall.legacy.iter().any(|table| table == "nat"));
        let legacy = has_nat.then(|| {
            "unknown: iptables-legacy has NAT rules, which hostgw cannot read, and which may change the destination".to_owned()
        });
        // IPVS sees the packets that the node receives.
        let has_ipvs = self.host.programs.iter().any(|program| program.kind == PacketProgramKind::Ipvs)
            && !self.is_planned;
        let ipvs = (has_ipvs && self.host.owner_of(destination).is_some()).then(|| {
            "unknown: IPVS, which hostgw does not examine, may change the destination to a pod".to_owned()
        });
        legacy.into_iter().chain(ipvs).collect()
    }

    /// Returns the tables with rules that hostgw cannot read, as a sentence fragment.
    fn unread_tables(&self) -> Option<String> {
        let legacy = &self.host.firewall.as_ref()?.legacy;
        (!legacy.is_empty())
            .then(|| format!("iptables-legacy has rules in {}, which hostgw cannot read", list(legacy, 5)))
    }

    /// Returns an address of this node on an interface.
    fn own_address_on(&self, device: Option<&Untrusted>, family: Family) -> Option<IpAddr> {
        let mut addresses = self.host.addresses.iter().filter(|local| {
            Family::from(local.address) == family && device.is_none_or(|device| local.device == *device)
        });
        addresses.next().map(|local| local.address)
    }

    /// Returns what firewalls and NAT do with a packet of each protocol, if that is known.
    fn treatments<'p>(
        &self,
        rewritten: Option<&Rewritten>,
        passage: impl Fn(Transport, u16) -> Passage<'p>,
    ) -> Option<Vec<(Transport, Treatment<'_>)>> {
        let chains = ChainIndex::new(self.host.firewall.as_ref().filter(|_| !self.is_planned)?);
        let follow = |transport| {
            let treatment = match rewritten {
                None => {
                    let passage = passage(transport, SAMPLE_PORT);
                    chains.follow(self.model, &passage, MatchedChains::All)
                }
                Some(Rewritten { services, mark, .. }) => {
                    let (_, port) = services.iter().find(|(of, _)| *of == transport)?;
                    chains.follow_translated(self.model, &passage(transport, *port), *mark)
                }
            };
            Some((transport, treatment))
        };
        Some(Transport::ALL.into_iter().filter_map(follow).collect())
    }

    fn next_hop(&self, address: IpAddr, device: &Untrusted) -> String {
        let whose = self.known(address).map_or_else(String::new, |whose| format!(", {whose}"));
        let place = format!("{address} on {device}{whose}");
        if self.is_planned {
            return place;
        }
        match self.neighbor(address, device) {
            Some(neighbor) if neighbor.unanswered => format!("{place}: did not answer"),
            Some(_) => format!("{place}: has a neighbor entry"),
            None => format!("{place}: no neighbor entry"),
        }
    }

    fn neighbor(&self, address: IpAddr, device: &Untrusted) -> Option<&NeighborEntry> {
        let mut neighbors = self.host.neighbors.iter();
        neighbors.find(|neighbor| neighbor.address == address && neighbor.device == *device)
    }

    /// Returns the planned next hop to a pod.
    fn planned(&self, destination: IpAddr) -> Option<(Option<IpAddr>, Untrusted)> {
        if let Some(own) = self.cluster.nodes[self.index].pods.containing(destination) {
            // If each pod has an interface of its own, only routes tell which one.
            let pod = self.own_pod_in(own.prefix()).filter(|pod| !pod.is_alone)?;
            return Some((None, pod.device));
        }
        let mut routes = self.desired.routes_to_nodes();
        let (route, _) = routes.find(|(route, _)| route.destination.contains(&destination))?;
        Some((route.next_hop.gateway, route.next_hop.device.clone()?))
    }

    /// Describes an address.
    fn whose(&self, address: IpAddr) -> String {
        self.known(address).unwrap_or_else(|| {
            if self.cluster.prefixes.containing(address).is_some() {
                return "an address in the cluster prefix that belongs to no node".to_owned();
            }
            "an address outside the cluster".to_owned()
        })
    }

    /// Describes an address of a node or of a pod.
    fn known(&self, address: IpAddr) -> Option<String> {
        let family = Family::from(address);
        if let Some(local) = self.host.owner_of(address) {
            let unused = if local.is_used() { "" } else { ", which the kernel does not use" };
            return Some(format!("an address of this node, on {}{unused}", local.device));
        }
        self.cluster.nodes.iter().enumerate().find_map(|(index, node)| {
            let name = &node.name;
            if node.addresses.get(family) == Some(&address) {
                return Some(format!("node {name}"));
            }
            let next_hop = self.cluster.next_hop_of(node, family);
            let mut gateways = node.pod_gateways();
            if next_hop == NextHopKind::PodGateway && gateways.any(|gateway| gateway == address) {
                return Some(format!("the pod gateway of node {name}"));
            }
            node.pods.containing(address).map(|_| match index == self.index {
                true => "a pod of this node".to_owned(),
                false => format!("a pod on node {name}"),
            })
        })
    }

    /// Returns the address of a pod of this node, and the interface to it.
    #[must_use]
    pub fn own_pod(&self, family: Family) -> Option<OwnPod> {
        let node = &self.cluster.nodes[self.index];
        node.pods.of(family).find_map(|network| self.own_pod_in(network.prefix()))
    }

    /// Returns a pod in `cidr`, one of the node's pod CIDRs, even if the interface to it is down.
    fn own_pod_in(&self, cidr: IpNet) -> Option<OwnPod> {
        let bridge = || {
            let local = self.host.addresses.iter().find(|local| cidr.contains(&local.address))?;
            let address = pod_address(cidr, Some(local.address));
            Some(OwnPod { address, device: local.device.clone(), is_alone: false })
        };
        let gateway = self.cluster.nodes[self.index].gateway_at(cidr);
        gateway.and_then(|gateway| own_pod(cidr, gateway, self.host)).or_else(bridge)
    }

    /// Returns the node whose pods a managed route reaches.
    #[must_use]
    pub fn node_of(&self, route: &Route) -> Option<&Untrusted> {
        let index = self.desired.node_of(&route.key()).filter(|_| route.is_owned())?;
        Some(&self.cluster.nodes[index].name)
    }
}

fn hop(trace: &Trace<'_>) -> Option<(Option<IpAddr>, Untrusted)> {
    let Verdict::Forwarded { hops, .. } = &trace.verdict else { return None };
    let hop = hops.first()?;
    Some((hop.gateway, hop.device.clone()))
}

/// Describes what happens to packets, by protocol if it differs.
fn treatment_text(treatments: &[(Transport, Treatment<'_>)]) -> String {
    let mut texts: Vec<(String, Vec<&str>)> = Vec::new();
    for (transport, treatment) in treatments {
        let text = filtering_text(treatment);
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, protocols)) => protocols.push(transport.name()),
            None => texts.push((text, vec![transport.name()])),
        }
    }
    match texts.as_slice() {
        [(text, _)] => text.clone(),
        _ => {
            let parts = texts.iter().map(|(text, protocols)| format!("{}: {text}", protocols.join(" and ")));
            parts.collect::<Vec<_>>().join("; ")
        }
    }
}

fn filtering_text(treatment: &Treatment<'_>) -> String {
    if let Some(AddressChange { spot, depends_on }) = &treatment.redirected {
        let unless = if depends_on.is_none() { "" } else { UNLESS };
        return format!("redirected by {}{unless}", spot_text(spot));
    }
    match &treatment.filter {
        Filtering::Passed => passed_text(treatment),
        Filtering::MaybeDropped(spot) => {
            format!("accepted unless {} applies; hostgw cannot tell whether it does", spot_text(spot))
        }
        Filtering::DroppedUnless(spot, by) => format!(
            "dropped by {} unless {} applies; hostgw cannot tell whether it does",
            spot_text(spot),
            spot_text(by)
        ),
        Filtering::Dropped(spot) => format!("dropped by {}", spot_text(spot)),
    }
}

const UNLESS: &str = " if it applies, which hostgw cannot tell";

/// Describes what happens to packets that no rule certainly drops.
fn passed_text(treatment: &Treatment<'_>) -> String {
    if let Some(Overwriting { spot, part, depends_on }) = &treatment.overwritten {
        let what = match part {
            HeaderPart::Destination => "accepted, with the destination address overwritten".to_owned(),
            HeaderPart::Source => "accepted, with the source address overwritten".to_owned(),
            HeaderPart::Ports => "accepted, with the ports overwritten".to_owned(),
            HeaderPart::TimeToLive(value) => format!("accepted, with the TTL set to {value}"),
            HeaderPart::Unknown => "accepted, with a part of the headers overwritten".to_owned(),
        };
        let unless = if depends_on.is_none() { "" } else { UNLESS };
        return format!("{what} by {}{unless}", spot_text(spot));
    }
    match &treatment.partly {
        Some(Conditional { spot, depends_on }) => {
            let property = [depends_on, spot].into_iter().find_map(partial_property);
            let depending =
                property.map_or_else(String::new, |property| format!(", depending on {property}"));
            format!("accepted, except what {} drops{depending}", spot_text(spot))
        }
        None => "accepted".to_owned(),
    }
}
