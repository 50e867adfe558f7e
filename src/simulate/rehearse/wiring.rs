//! How the copy of a node is connected to the network that is simulated around it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{
    error::{Error, Kind},
    kernel::{Cable, Interfaces, LinkImage, Namespace, Omission, inside},
    model::{Cluster, Family, MAIN_TABLE, PerFamily, Prefixed, common_prefix, pod_address},
    simulate::{
        build::{self, ETH},
        networks::Networks,
        topology::{PodAddresses, Topology},
    },
    state::{Host, InterfaceAddress, Route, RouteType},
};

/// The port of the node on the switch.
const NODE_PORT: &str = "node";

/// The interface of the node that leads to other nodes.
#[derive(Debug)]
enum Uplink {
    /// The interface with this number is connected to the switch.
    Link(u32),
    /// The bridge with the first name gets a new port with the second name, which is connected to the switch.
    NewPort(String, String),
}

/// The interface of the node that leads to its pods.
#[derive(Debug)]
enum PodSide {
    /// The node has no pods.
    None,
    /// The bridge with the first name gets a new port with the second name, which leads to the pod.
    Bridge(String, String),
    /// The interface with this number leads to the pod.
    Link(u32),
    /// The interface with this number leads to a single pod, by a host route and without an address of its own. It answers
    /// for all addresses (`proxy_arp`).
    Routed(u32),
    /// No interface has the pod gateway: a bridge with the first name is added, with a port with the second name.
    NewBridge(String, String),
}

/// A default gateway on an interface other than the egress interface.
#[derive(Debug)]
struct Leg {
    link: u32,
    name: String,
    gateways: Vec<IpNet>,
}

/// The connections of the copy.
#[derive(Debug)]
pub(super) struct Wiring {
    uplink: Uplink,
    pod: PodSide,
    legs: Vec<Leg>,
    /// The addresses of the egress interface.
    addresses: PerFamily<IpNet>,
    /// The preferred default gateways on the egress interface.
    gateways: PerFamily<IpNet>,
    /// The other default gateways on the egress interface.
    more_gateways: Vec<IpNet>,
    /// The prefixes that routes make reachable on the egress interface.
    on_link: Vec<IpNet>,
    /// The numbers of the interfaces behind which machines are simulated, other than those connected when the copy is
    /// created.
    simulated: Vec<u32>,
    /// The addresses of the pod interface and of the pod.
    pods: Vec<PodAddresses>,
    /// The families with a default gateway.
    pub(super) families_with_gateway: BTreeSet<Family>,
    /// The families with a default route that has no gateway, or one that cannot be simulated.
    pub(super) families_with_other_default: BTreeSet<Family>,
    /// The differences from the node.
    pub(super) notes: Vec<Omission>,
}

impl Wiring {
    /// Finds out how the node at `index` is connected.
    ///
    /// # Errors
    /// Returns an error if it lacks its egress interface.
    pub(super) fn of(
        cluster: &Cluster,
        index: usize,
        host: &Host,
        links: &[LinkImage],
    ) -> Result<Self, Error> {
        let node = &cluster.nodes[index];
        let egress = cluster.egress_interface_of(node).and_then(|name| {
            let has_name = |link: &&crate::state::Link| {
                link.name == name.as_str() || link.altnames.iter().any(|other| *other == name.as_str())
            };
            host.links.iter().find(has_name)
        });
        let egress = egress.ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("this machine does not have the egress interface of node {}", node.name),
            )
        })?;
        if egress.carrier == Some(false) {
            let message = format!(
                "egress interface {} has no carrier: no packet leaves this node through it",
                egress.name
            );
            return Err(Error::unexpected(message).with_hint(
                "check the cable and the port at the other end, then run `hostgw rehearse` again",
            ));
        }
        let image = |number: u32| links.iter().find(|link| link.index == number);
        let mut simulated = Vec::new();
        let uplink = match image(egress.index).filter(|link| link.is_bridge()) {
            None => Uplink::Link(egress.index),
            Some(bridge) => {
                let is_hardware_port = |link: &&LinkImage| {
                    link.master == Some(bridge.index)
                        && !matches!(link.kind.as_deref(), Some("veth" | "tun" | "macvtap"))
                };
                match links.iter().find(is_hardware_port) {
                    Some(port) => Uplink::Link(port.index),
                    None => {
                        simulated.push(bridge.index);
                        Uplink::NewPort(bridge.name.as_raw().to_owned(), free_name(host, "uplink"))
                    }
                }
            }
        };
        let mut wiring = Self {
            uplink,
            pod: PodSide::NewBridge(free_name(host, "cni"), free_name(host, "veth")),
            legs: Vec::new(),
            addresses: PerFamily::default(),
            gateways: PerFamily::default(),
            more_gateways: Vec::new(),
            on_link: host.on_link(egress.name.as_raw()).collect(),
            simulated,
            pods: Vec::new(),
            families_with_gateway: BTreeSet::new(),
            families_with_other_default: BTreeSet::new(),
            notes: Vec::new(),
        };
        for family in Family::ALL {
            let of_egress = |local: &&InterfaceAddress| {
                local.device == egress.name && Family::from(local.address) == family && is_global(local)
            };
            let configured = node.addresses.get(family).copied();
            let own = host.addresses.iter().filter(of_egress);
            let own = own.min_by_key(|local| Some(local.address) != configured);
            *wiring.addresses.get_mut(family) = own.map(with_length);
        }
        wiring.find_gateways(host, egress);
        wiring.find_pods(cluster, index, host, image);
        Ok(wiring)
    }

    fn find_gateways(&mut self, host: &Host, egress: &crate::state::Link) {
        let is_default =
            |route: &&Route| route.destination.prefix_len() == 0 && route.kind == RouteType::Unicast;
        let mut routes: Vec<&Route> = host.foreign.iter().chain(&host.others).filter(is_default).collect();
        // What the kernel prefers comes first.
        routes.sort_by_key(|route| (route.table != MAIN_TABLE, route.metric));
        let hops = routes.into_iter().flat_map(|route| route.hops().map(move |hop| (route, hop)));
        for (route, (gateway, device)) in hops {
            let Some(gateway) = gateway else {
                self.families_with_other_default.insert(route.family());
                continue;
            };
            let is_on_egress = *device == egress.name;
            if Family::from(gateway) != route.family() || is_link_local(gateway) && !is_on_egress {
                self.families_with_other_default.insert(route.family());
                continue;
            }
            // The router also has an address in the node's network, by which answers come back.
            if is_link_local(gateway) {
                self.families_with_gateway.insert(route.family());
                let net = IpNet::new(gateway, 64).unwrap_or_else(|_| gateway.into());
                if !self.more_gateways.contains(&net) {
                    self.more_gateways.push(net);
                }
                continue;
            }
            let Some(link) = host.links.iter().find(|link| link.name == *device) else { continue };
            let local = host.addresses.iter().find(|local| {
                local.device == *device && Family::from(local.address) == route.family() && is_global(local)
            });
            let net = local.map_or_else(
                || gateway.into(),
                |local| {
                    let both = [gateway.into(), local.address.into()];
                    let common = common_prefix(both.into_iter()).map_or(0, |net| net.prefix_len());
                    let length = common.min(local.prefix.prefix_len());
                    IpNet::new(gateway, length).unwrap_or_else(|_| gateway.into())
                },
            );
            self.families_with_gateway.insert(route.family());
            if link.index == egress.index {
                let known = self.gateways.get_mut(route.family());
                match known {
                    None => *known = Some(net),
                    Some(known) if known.addr() != net.addr() && !self.more_gateways.contains(&net) => {
                        self.more_gateways.push(net);
                    }
                    Some(_) => {}
                }
                continue;
            }
            match self.legs.iter_mut().find(|leg| leg.link == link.index) {
                Some(leg) if !leg.gateways.contains(&net) => leg.gateways.push(net),
                Some(_) => {}
                None => {
                    let name = format!("leg{}", link.index);
                    self.legs.push(Leg { link: link.index, name, gateways: vec![net] });
                }
            }
        }
    }

    fn find_pods<'a>(
        &mut self,
        cluster: &Cluster,
        index: usize,
        host: &Host,
        image: impl Fn(u32) -> Option<&'a LinkImage>,
    ) {
        let node = &cluster.nodes[index];
        let mut chosen = None;
        for network in &node.pods {
            let (cidr, gateway) = (network.prefix(), node.gateway_of(network));
            let link = |local: &InterfaceAddress| {
                host.link(local.device.as_raw()).and_then(|link| image(link.index))
            };
            let leads_to_pods = |local: &&InterfaceAddress| {
                let is_usable = |link: &LinkImage| {
                    link.is_up()
                        && link.name != "lo"
                        && !matches!(self.uplink, Uplink::Link(uplink) if uplink == link.index)
                };
                cidr.contains(&local.address) && link(local).is_some_and(is_usable)
            };
            let holders = host.addresses.iter().filter(leads_to_pods);
            let holder = holders.min_by_key(|local| local.address != gateway);
            if let Some(link) = holder.and_then(link) {
                if *chosen.get_or_insert(link.index) != link.index {
                    self.notes.push(Omission::new(
                        format!("the pods in {cidr}"),
                        format!(
                            "not simulated: they are behind {}, and those of another pod CIDR are not",
                            link.name
                        ),
                    ));
                    continue;
                }
                if matches!(self.pod, PodSide::NewBridge(..)) {
                    self.pod = if link.is_bridge() {
                        self.simulated.push(link.index);
                        let port = free_name(host, &port_prefix(host, link.name.as_raw()));
                        PodSide::Bridge(link.name.as_raw().to_owned(), port)
                    } else {
                        PodSide::Link(link.index)
                    };
                }
            }
            let net = |address| IpNet::new(address, cidr.prefix_len()).unwrap_or(cidr);
            let bridge = net(holder.map_or(gateway, |local| local.address));
            let pod = net(pod_address(cidr, Some(bridge.addr())));
            self.pods.push(PodAddresses { bridge, pod });
        }
        if !node.has_pods() {
            self.pod = PodSide::None;
        }
        if matches!(self.pod, PodSide::NewBridge(..)) {
            self.find_routed_pod(cluster, index, host);
        }
        if let PodSide::NewBridge(name, _) = &self.pod {
            let gateways: Vec<String> = self.pods.iter().map(|pods| pods.bridge.addr().to_string()).collect();
            self.notes.push(Omission::new(
                format!("the bridge {name}"),
                format!(
                    "added in the copy, as a CNI plugin does for the first pod: no interface has the pod gateway {}",
                    gateways.join(", ")
                ),
            ));
        }
    }

    /// Finds an interface with routes to a single pod, as Calico creates one for each.
    fn find_routed_pod(&mut self, cluster: &Cluster, index: usize, host: &Host) {
        for cidr in cluster.nodes[index].pods.iter().map(Prefixed::prefix) {
            let is_of_pod = |route: &&Route| {
                route.destination.prefix_len() == route.destination.max_prefix_len()
                    && cidr.contains(&route.destination)
                    && route.next_hop.gateway.is_none()
            };
            let routes = host.foreign.iter().chain(&host.others).filter(is_of_pod);
            let mut usable = routes.filter_map(|route| {
                let link = host.link(route.next_hop.device.as_ref()?.as_raw()).filter(|link| link.up)?;
                let is_veth = link.is_a("veth") && link.master.is_none();
                let is_known = !matches!(self.pod, PodSide::Routed(known) if known != link.index);
                (is_veth && is_known).then_some((link.index, route.destination))
            });
            if let Some((link, pod)) = usable.next() {
                self.pod = PodSide::Routed(link);
                let of_cidr = self.pods.iter_mut().find(|pods| cidr.contains(&pods.pod.addr()));
                of_cidr.into_iter().for_each(|pods| pods.pod = pod);
            }
        }
    }

    /// The networks around the node.
    pub(super) fn networks(&self, cluster: &Cluster) -> Networks {
        let mut own = self.addresses;
        for family in cluster.prefixes.families() {
            // Routes without a gateway can make nodes outside of this node's network reachable on the link.
            let Some(address) = own.get(family).copied() else { continue };
            let nodes = cluster.nodes.iter().filter_map(|node| node.addresses.get(family).copied());
            let on_link = nodes.filter(|node| self.on_link.iter().any(|prefix| prefix.contains(node)));
            let gateway = self.gateways.get(family).map(IpNet::addr);
            let neighbors = on_link.chain(gateway).map(IpNet::from);
            let common = common_prefix(std::iter::once(address.trunc()).chain(neighbors));
            let length = common.map_or(address.prefix_len(), |common| common.prefix_len());
            *own.get_mut(family) = IpNet::new(address.addr(), length).ok();
        }
        Networks::around(cluster, &own, &self.gateways)
    }

    /// Gives the first machine of the topology the addresses of the node.
    pub(super) fn adjust(&self, topology: &mut Topology) {
        let families: Vec<Family> = topology.cluster.prefixes.families().collect();
        let machine = &mut topology.machines[0];
        let routers = &mut topology.segments[machine.segment].router;
        for gateway in &self.more_gateways {
            if routers.iter().all(|router| router.addr() != gateway.addr()) {
                routers.push(*gateway);
            }
        }
        for family in families {
            *machine.addresses.get_mut(family) = self.addresses.get(family).copied();
            *machine.router.get_mut(family) = self.gateways.get(family).copied();
        }
        machine.pods.clone_from(&self.pods);
        machine.rules.clear();
    }

    /// The numbers of the interfaces behind which machines are simulated, other than those connected when the copy is
    /// created.
    pub(super) fn simulated(&self) -> &[u32] {
        &self.simulated
    }

    /// The links that are created with the copy.
    pub(super) fn cables<'a>(
        &self,
        switch: &'a Namespace,
        router: &'a Namespace,
        pod: &'a Namespace,
    ) -> Vec<Cable<'a>> {
        let mut cables = Vec::new();
        if let Uplink::Link(link) = self.uplink {
            cables.push(Cable { link, to: switch, name: NODE_PORT.to_owned() });
        }
        if let PodSide::Link(link) | PodSide::Routed(link) = self.pod {
            cables.push(Cable { link, to: pod, name: ETH.to_owned() });
        }
        cables.extend(self.legs.iter().map(|leg| Cable {
            link: leg.link,
            to: router,
            name: leg.name.clone(),
        }));
        cables
    }

    /// Creates the other connections, and configures the pod and the router.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub(super) fn connect(
        &self,
        copy: &Namespace,
        pod: &Namespace,
        switch: &Namespace,
        router: &Namespace,
        topology: &Topology,
    ) -> Result<(), Error> {
        inside(copy, || {
            let mut interfaces = Interfaces::open()?;
            if let Uplink::NewPort(bridge, port) = &self.uplink {
                interfaces.cable(port, NODE_PORT, switch)?;
                interfaces.attach(port, bridge)?;
            }
            match &self.pod {
                PodSide::None | PodSide::Link(_) | PodSide::Routed(_) => {}
                PodSide::Bridge(bridge, port) => {
                    interfaces.cable(port, ETH, pod)?;
                    interfaces.attach(port, bridge)?;
                }
                PodSide::NewBridge(bridge, port) => {
                    interfaces.bridge(bridge)?;
                    interfaces.cable(port, ETH, pod)?;
                    interfaces.attach(port, bridge)?;
                    self.pods.iter().try_for_each(|pods| interfaces.address(bridge, pods.bridge))?;
                }
            }
            Ok(())
        })?;
        let link = build::bridge_of(topology.machines[0].segment);
        inside(switch, || Interfaces::open()?.attach(NODE_PORT, &link))?;
        inside(router, || {
            let mut interfaces = Interfaces::open()?;
            for leg in &self.legs {
                leg.gateways.iter().try_for_each(|net| interfaces.address(&leg.name, *net))?;
            }
            Ok(())
        })?;
        let machine = &topology.machines[0];
        inside(pod, || {
            let mut interfaces = Interfaces::open()?;
            interfaces.up("lo")?;
            machine.pods.iter().try_for_each(|pods| interfaces.address(ETH, pods.pod))?;
            let mut gateways = machine.gateways_of_pod();
            if matches!(self.pod, PodSide::Routed(_)) {
                return gateways
                    .try_for_each(|(family, _)| interfaces.route_on_link(build::default_route(family), ETH));
            }
            gateways.try_for_each(|(family, gateway)| interfaces.route(build::default_route(family), gateway))
        })
    }
}

fn with_length(local: &InterfaceAddress) -> IpNet {
    IpNet::new(local.address, local.prefix.prefix_len()).unwrap_or_else(|_| local.address.into())
}

fn is_global(local: &InterfaceAddress) -> bool {
    !is_link_local(local.address)
}

const fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(_) => false,
        std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Returns a name for an interface that the node does not have.
fn free_name(host: &Host, prefix: &str) -> String {
    let is_free = |name: &String| {
        host.links.iter().all(|link| {
            link.name != name.as_str() && link.altnames.iter().all(|other| *other != name.as_str())
        })
    };
    let mut names = (0..).map(|number: u32| format!("{prefix}{number}"));
    names.find(is_free).unwrap_or_else(|| prefix.to_owned())
}

/// Returns the prefix of the names of a pod bridge's ports, which firewall rules may match.
fn port_prefix(host: &Host, bridge: &str) -> String {
    /// The maximum length of the prefix, which leaves room for a number.
    const LONGEST: usize = 10;
    let is_port = |link: &&crate::state::Link| {
        let is_veth = link.is_a("veth");
        is_veth && link.master.as_ref().is_some_and(|master| *master == bridge)
    };
    let port = host.links.iter().find(is_port).map_or("veth", |link| link.name.as_raw());
    let letters: String = port.chars().take_while(char::is_ascii_alphabetic).take(LONGEST).collect();
    if letters.is_empty() { "veth".to_owned() } else { letters }
}
