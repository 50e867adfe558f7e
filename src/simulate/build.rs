//! Builds the machines of a topology as network namespaces.

use std::{fs, io, path::Path};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    KeepGoing,
    topology::{Machine, Topology},
    workers,
};
use crate::{
    error::Error,
    forwarding::TableRule,
    kernel::{self, Interfaces, Namespace, inside},
    model::{Family, PerFamily},
    text::OsError,
};

/// The interface of pods, of the router and of the outside host.
pub(super) const ETH: &str = "eth0";
/// The router's interface to the outside.
const TO_OUTSIDE: &str = "outside";

/// The namespaces of a simulated cluster. They disappear when this is dropped or the process exits.
#[derive(Debug)]
pub struct Lab {
    /// The namespaces of the nodes and their pods, in the order of the topology.
    pub nodes: Vec<(Namespace, Namespace)>,
    /// The outside host.
    pub outside: Namespace,
    /// The router between the nodes' links and the outside.
    pub router: Namespace,
    /// The bridges that are the nodes' links.
    pub switch: Namespace,
}

impl Lab {
    /// Builds `topology`.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses a part of it, or if `keep_going` returns one.
    pub fn build(topology: &Topology, keep_going: &KeepGoing) -> Result<Self, Error> {
        let switch = build_switch(topology)?;
        let (router, outside) = build_outside(topology, &switch)?;
        let count = topology.machines.len();
        let nodes = workers::each("building nodes", count, keep_going, |number| {
            build_node(&topology.machines[number], number, &switch)
        })?;
        Ok(Self { nodes, outside, router, switch })
    }
}

/// Sysctls that a new namespace inherits from the machine. They are reset to the kernel's defaults, because the
/// machine's settings say nothing about the cluster.
const DEFAULTS: [(&str, &str); 4] =
    [("arp_ignore", "0"), ("arp_filter", "0"), ("proxy_arp", "0"), ("rp_filter", "0")];
/// Sysctls of IPv6, where the kernel has it: a link-local address, from which neighbors are resolved, is usable without
/// the second that duplicate address detection takes.
const DEFAULTS_V6: [(&str, &str); 1] = [("accept_dad", "0")];

pub(super) fn namespace() -> Result<Namespace, Error> {
    let cannot = |error: io::Error| kernel::cannot_create_namespace(&error);
    let namespace = Namespace::new().map_err(cannot)?;
    namespace
        .enter(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
            set_defaults("/proc/sys/net/ipv4/conf", &DEFAULTS)?;
            let v6 = "/proc/sys/net/ipv6/conf";
            if Path::new(v6).exists() { set_defaults(v6, &DEFAULTS_V6) } else { Ok(()) }
        })
        .map_err(cannot)?;
    Ok(namespace)
}

/// Sets sysctls of all interfaces, present and future, in the folder `conf`.
fn set_defaults(conf: &str, sysctls: &[(&str, &str)]) -> io::Result<()> {
    ["all", "default"].iter().try_for_each(|interfaces| {
        sysctls.iter().try_for_each(|(key, value)| fs::write(format!("{conf}/{interfaces}/{key}"), value))
    })
}

/// The destination that `ip route` prints as `default`.
pub(super) fn default_route(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

/// Builds the nodes' links.
pub(super) fn build_switch(topology: &Topology) -> Result<Namespace, Error> {
    let switch = namespace()?;
    inside(&switch, || {
        let mut interfaces = Interfaces::open()?;
        (0..topology.segments.len()).try_for_each(|segment| interfaces.bridge(&bridge_of(segment)))
    })?;
    Ok(switch)
}

/// The bridge that is a link of nodes.
pub(super) fn bridge_of(segment: usize) -> String {
    format!("link{segment}")
}

/// Connects the interface `peer` of another namespace with a link of nodes.
pub(super) fn connect(
    switch: &Namespace,
    segment: usize,
    port: &str,
    peer: &str,
    other: &Namespace,
) -> Result<(), Error> {
    inside(switch, || {
        let mut interfaces = Interfaces::open()?;
        interfaces.cable(port, peer, other)?;
        interfaces.attach(port, &bridge_of(segment))
    })
}

pub(super) fn add_addresses(
    interfaces: &mut Interfaces,
    name: &str,
    addresses: &PerFamily<IpNet>,
) -> Result<(), Error> {
    addresses.iter().try_for_each(|(_, address)| interfaces.address(name, *address))
}

pub(super) fn build_outside(
    topology: &Topology,
    switch: &Namespace,
) -> Result<(Namespace, Namespace), Error> {
    let (router, outside) = (namespace()?, namespace()?);
    for segment in 0..topology.segments.len() {
        connect(switch, segment, &format!("router{segment}"), &format!("eth{segment}"), &router)?;
    }
    inside(&router, || {
        let mut interfaces = Interfaces::open()?;
        interfaces.up("lo")?;
        for (number, segment) in topology.segments.iter().enumerate() {
            let name = format!("eth{number}");
            segment.router.iter().try_for_each(|address| interfaces.address(&name, *address))?;
        }
        interfaces.cable(TO_OUTSIDE, ETH, &outside)?;
        for (family, (_, router)) in topology.outside.iter() {
            interfaces.address(TO_OUTSIDE, *router)?;
            enable_forwarding(family)?;
        }
        topology.routes_of_router().try_for_each(|(pods, node)| interfaces.route(pods, node))
    })?;
    inside(&outside, || {
        let mut interfaces = Interfaces::open()?;
        interfaces.up("lo")?;
        for (family, (host, router)) in topology.outside.iter() {
            interfaces.address(ETH, *host)?;
            interfaces.route(default_route(family), router.addr())?;
        }
        Ok(())
    })?;
    Ok((router, outside))
}

/// Enables forwarding on the router, which is not a node of the cluster.
fn enable_forwarding(family: Family) -> Result<(), Error> {
    let file = match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    fs::write(file, "1")
        .map_err(|error: io::Error| Error::unexpected(format!("cannot write {file}: {}", OsError(&error))))
}

pub(super) fn build_node(
    machine: &Machine,
    number: usize,
    switch: &Namespace,
) -> Result<(Namespace, Namespace), Error> {
    let (node, pod) = (namespace()?, namespace()?);
    connect(switch, machine.segment, &format!("port{number}"), &machine.interface, &node)?;
    // The names must differ from the egress interface's.
    let distinct_name = |name: &'static str, other| if machine.interface == name { other } else { name };
    let (bridge, to_pod) = (distinct_name("cni0", "cni1"), distinct_name("pod0", "pod1"));
    inside(&node, || {
        let mut interfaces = Interfaces::open()?;
        interfaces.up("lo")?;
        add_addresses(&mut interfaces, &machine.interface, &machine.addresses)?;
        if !machine.pods.is_empty() {
            interfaces.bridge(bridge)?;
            interfaces.cable(to_pod, ETH, &pod)?;
            interfaces.attach(to_pod, bridge)?;
            machine.pods.iter().try_for_each(|pods| interfaces.address(bridge, pods.bridge))?;
        }
        for TableRule { to, table, priority } in &machine.rules {
            interfaces.rule(*to, *table, *priority)?;
        }
        let routers = machine.router.iter();
        routers
            .map(|(family, router)| (default_route(family), router.addr()))
            .try_for_each(|(destination, router)| interfaces.route(destination, router))
    })?;
    inside(&pod, || {
        let mut interfaces = Interfaces::open()?;
        interfaces.up("lo")?;
        machine.pods.iter().try_for_each(|pods| interfaces.address(ETH, pods.pod))?;
        machine
            .gateways_of_pod()
            .try_for_each(|(family, gateway)| interfaces.route(default_route(family), gateway))
    })?;
    Ok((node, pod))
}
