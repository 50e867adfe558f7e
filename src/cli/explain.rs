//! `hostgw explain`

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbResult,
    arguments::{ExplainOptions, PacketSource},
    configuration::load,
    environment,
    output::Output,
};
use crate::{
    config::Loaded,
    doctor::{Guidepost, Journey, JourneyEnd, JourneyStep, StepKind},
    error::{Error, Kind},
    forwarding::{ForwardingModel, OwnPod, Packet, Stop, owner},
    model::{Cluster, Family, InterfaceName, Prefixed},
    plan::{self, Desired, Observed, OriginalSysctls},
    render::Locator,
    state::{
        Host, InterfaceAddress, LOCAL_TABLE, Link, NextHop, Route, RouteScope, RouteType, State, protocol,
    },
    text::{ShellCommand, Untrusted, printable},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw explain --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw explain")]
pub(super) struct ExplainJson {
    /// The version of this format.
    format: u32,
    /// The node.
    node: Untrusted,
    /// The path of the packet through this node.
    packet: Journey,
    /// The path of the reply through this node; absent if the packet does not leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Journey>,
}

/// Explains the path of a packet through a node.
pub(super) fn run(options: &ExplainOptions, output: &Output) -> VerbResult {
    let loaded = load(options.target.file.as_deref())?;
    let node = environment::node(options.target.node.as_deref());
    if options.planned {
        let index = planned_node(&loaded, node.as_deref())?;
        let mut loaded = loaded;
        let node = &loaded.cluster.nodes[index];
        if loaded.cluster.egress_interface_of(node).is_none() {
            let name = node.name.clone();
            if let Ok(interface) = InterfaceName::linux(UNNAMED) {
                loaded.cluster.set_found_egress(name, interface);
            }
        }
        let desired = plan::desired(&loaded.cluster, index, &OriginalSysctls::default())
            .map_err(|plan::NotLinux| not_linux(&loaded.cluster, index))?;
        let observed = planned(&loaded.cluster, index, &desired);
        return explain(options, &loaded, index, &desired, &observed, output);
    }
    let (session, observed) = super::doctor::visit(loaded, node.as_deref(), options.state.as_deref())?;
    explain(options, &session.loaded, session.index, &session.prepared.desired, &observed, output)
}

/// Checks that the configuration decides about a packet: it describes neither the default route of a node nor its other networks.
fn check_planned(model: &ForwardingModel<'_>, packet: Packet) -> Result<(), Error> {
    if model.trace(&packet).stop != Some(Stop::NoRoute) {
        return Ok(());
    }
    let message = format!(
        "--planned cannot trace packets to {}: the configuration does not describe the other routes of this node, such as its default \
         route",
        packet.destination
    );
    let hint = "run `hostgw explain` on the node, or pass --state with a snapshot of it";
    Err(Error::new(Kind::Usage, message).with_hint(hint))
}

fn planned_node(loaded: &Loaded, node: Option<&str>) -> Result<usize, Error> {
    let Some(name) = node else {
        return Err(Error::new(Kind::Usage, "--planned needs the name of a node")
            .with_hint(format!("pass --node NAME, or set {}", environment::NODE)));
    };
    plan::node_named(&loaded.cluster, name)
}

fn not_linux(cluster: &Cluster, index: usize) -> Error {
    let name = &cluster.nodes[index].name;
    let message = format!("node {name} is a Windows node: packets can only be traced on Linux nodes");
    let doctor = ShellCommand::new(["hostgw", "doctor", "--node", name.as_raw(), "--state", "FILE"]);
    Error::new(Kind::Invalid, message).with_hint(format!("run `{doctor}` to examine a snapshot of that node"))
}

fn explain(
    options: &ExplainOptions,
    loaded: &Loaded,
    index: usize,
    desired: &Desired,
    observed: &Observed,
    output: &Output,
) -> VerbResult {
    let model = ForwardingModel::of(&observed.state, &observed.host);
    let guidepost = Guidepost {
        cluster: &loaded.cluster,
        index,
        desired,
        host: &observed.host,
        model: &model,
        is_planned: options.planned,
    };
    let (source, input) = origin(options, &guidepost, &model)?;
    if options.planned {
        check_planned(&model, Packet { source, destination: options.address, input: input.clone() })?;
    }
    let locator = Locator::new(&loaded.document);
    let describe = |route: &Route| {
        let line = desired.route_origin(&loaded.cluster, &route.key()).and_then(|path| locator.source(&path));
        let line = line.map_or_else(String::new, |source| format!(", {}:{}", source.file, source.line));
        match guidepost.node_of(route) {
            Some(node) => format!("managed by hostgw: pods of node {node}{line}"),
            None if route.is_owned() => format!("managed by hostgw{line}"),
            None => owner(route),
        }
    };
    let packet = guidepost.journey(source, options.address, input, false, &describe);
    let reply = match (packet.outcome, packet.output.clone()) {
        (JourneyEnd::Forwarded | JourneyEnd::Sent, Some(device)) => {
            let target = packet.new_destination.unwrap_or(options.address);
            let mut reply = guidepost.journey(target, source, Some(device), true, &describe);
            if packet.is_masqueraded {
                let text =
                    format!("connection tracking changes the destination of the reply back to {source}");
                reply.steps.insert(0, JourneyStep { kind: StepKind::ReverseNat, text: text.into() });
            }
            if packet.new_destination.is_some() {
                let text = format!(
                    "connection tracking changes the source of the reply back to {}",
                    options.address
                );
                reply.steps.push(JourneyStep { kind: StepKind::ReverseNat, text: text.into() });
            }
            Some(reply)
        }
        _ => None,
    };
    let node = loaded.cluster.nodes[index].name.clone();
    if options.json {
        output.json(&ExplainJson { format: FORMAT, node, packet, reply })?;
        return Ok(0);
    }
    let mut text = journey(&packet, output);
    if let Some(reply) = &reply {
        text.push('\n');
        text.push_str(&journey(reply, output));
    }
    output.result(&text)?;
    Ok(0)
}

/// The source of the packet, and the interface that it comes in through.
fn origin(
    options: &ExplainOptions,
    guidepost: &Guidepost<'_>,
    model: &ForwardingModel<'_>,
) -> Result<(IpAddr, Option<Untrusted>), Error> {
    let family = Family::from(options.address);
    let missing = |what: &str, hint: &str| {
        Error::new(Kind::Invalid, format!("this node has no {family} {what}")).with_hint(hint)
    };
    let own = guidepost.own_pod(family);
    let is_own = guidepost.cluster.nodes[guidepost.index].pods.containing(options.address).is_some();
    let from = match options.from {
        PacketSource::Pod if !guidepost.cluster.nodes[guidepost.index].has_pods() => PacketSource::Node,
        from => from,
    };
    // Where each pod has an interface of its own, the node routes the packets between them.
    let is_routed = own.as_ref().is_some_and(|pod| pod.is_alone && pod.address != options.address);
    if from == PacketSource::Pod && is_own && !is_routed {
        let (message, hint) = match own.as_ref().is_some_and(|pod| pod.is_alone) {
            true => (
                format!("{} is the pod of this node from which the packet would come", options.address),
                "to trace a packet from another pod to it, pass --from with the address of that pod",
            ),
            false => (
                format!(
                    "{} belongs to a pod of this node: traffic between pods of one node is bridged, not routed",
                    options.address
                ),
                "to trace a packet to it from another node, pass --from with the address of a pod there",
            ),
        };
        return Err(Error::new(Kind::Usage, message).with_hint(hint));
    }
    match from {
        PacketSource::Pod => {
            let OwnPod { address, device, .. } = own.ok_or_else(|| {
                missing("pod interface", "pass `--from node`, or a source with --from ADDRESS")
            })?;
            Ok((address, Some(device)))
        }
        PacketSource::Node => {
            let mut addresses = guidepost.host.addresses.iter();
            let is_usable = |local: &&InterfaceAddress| {
                Family::from(local.address) == family && !local.address.is_loopback() && local.is_used()
            };
            let chosen = model.own_source(options.address);
            let source = chosen.or_else(|| addresses.find(is_usable).map(|local| local.address));
            source
                .map(|source| (source, None))
                .ok_or_else(|| missing("address", "pass a source with --from ADDRESS"))
        }
        PacketSource::Address(address) if Family::from(address) != family => Err(Error::new(
            Kind::Usage,
            format!("{address} and {} belong to different address families", options.address),
        )
        .with_hint(format!("pass --from with an {family} address"))),
        PacketSource::Address(address) if guidepost.host.uses(address) => Ok((address, None)),
        PacketSource::Address(address) => {
            // The packet arrives on the interface that the reply would leave through.
            let back = model.trace_own(options.address, address);
            let device = back.route.and_then(|route| route.next_hop.device.clone());
            device.map(|device| (address, Some(device))).ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    format!(
                        "cannot tell on which interface a packet from {address} arrives: this node has no return route to it"
                    ),
                )
                .with_hint("pass --from with an address that this node has a route to")
            })
        }
    }
}

fn journey(journey: &Journey, output: &Output) -> String {
    let Journey { source, from, destination, to, input, outcome, steps, .. } = journey;
    let palette = &output.palette;
    let input = input.as_ref().map_or_else(String::new, |input| format!(", arriving on {input}"));
    let title = printable(&format!("From {source} ({from}) to {destination} ({to}){input}"));
    let mut text = format!("{}\n", palette.head.apply_to(title));
    for step in steps {
        text.push_str(&format!("  {:<10} {}\n", step.kind.label(), printable(&step.text.to_string())));
    }
    let end = match outcome {
        JourneyEnd::Forwarded => palette.add.apply_to("forwarded"),
        JourneyEnd::Sent => palette.add.apply_to("sent"),
        JourneyEnd::Diverted if journey.input.is_some() => {
            palette.change.apply_to("diverted: forwarded, but not to the planned next hop")
        }
        JourneyEnd::Diverted => palette.change.apply_to("diverted: sent, but not to the planned next hop"),
        JourneyEnd::Local => palette.add.apply_to("received by this node"),
        JourneyEnd::Dropped => palette.conflict.apply_to("dropped"),
        JourneyEnd::Unanswered => palette.conflict.apply_to("lost: the next hop does not answer"),
        JourneyEnd::Redirected => palette.change.apply_to(
            "redirected: to trace the packet further, run `hostgw explain` with one of the new destinations",
        ),
    };
    text.push_str(&format!("  {:<10} {end}\n", "outcome"));
    text
}

/// Stands for the egress interface of a planned node that only the node itself knows.
const UNNAMED: &str = "(egress)";

/// The node as it is planned, with a bridge for its pods.
fn planned(cluster: &Cluster, index: usize, desired: &Desired) -> Observed {
    const BRIDGE: &str = "cni0";
    let node = &cluster.nodes[index];
    let egress: Untrusted =
        cluster.egress_interface_of(node).map_or_else(Untrusted::default, |name| name.as_str().into());
    let link = |name: &Untrusted, index| Link { carrier: Some(true), ..Link::new(name.clone(), index) };
    let bridge: Untrusted = BRIDGE.into();
    let mut host = Host { links: vec![link(&egress, 1), link(&bridge, 2)], ..Host::default() };
    let mut add = |device: &Untrusted, address: IpAddr, prefix: IpNet| {
        let route = |destination, table, kind| Route {
            destination,
            table,
            tos: None,
            metric: 0,
            protocol: protocol::KERNEL,
            scope: RouteScope::Link,
            kind,
            next_hop: NextHop { gateway: None, device: Some(device.clone()), onlink: false },
            source: None,
            mtu: None,
            opaque: None,
        };
        host.addresses.push(InterfaceAddress { device: device.clone(), address, prefix, flags: Vec::new() });
        host.foreign.push(route(address.into(), LOCAL_TABLE, RouteType::LOCAL));
        if prefix.prefix_len() < Family::from(prefix).bits() {
            host.foreign.push(route(prefix, crate::model::MAIN_TABLE, RouteType::Unicast));
        }
    };
    for network in &node.pods {
        add(&bridge, node.gateway_of(network), network.prefix());
    }
    for (_, address) in node.addresses.iter() {
        add(&egress, *address, (*address).into());
    }
    let mut sysctls = desired.state.sysctls.clone();
    for device in [egress.as_raw(), BRIDGE] {
        let keys = crate::forwarding::sysctls(Family::V4, device)
            .filter(|key| key.as_str().ends_with(".forwarding"));
        sysctls.extend(keys.map(|key| (key, "1".into())));
    }
    Observed { state: State { routes: desired.state.routes.clone(), sysctls, ..State::default() }, host }
}
