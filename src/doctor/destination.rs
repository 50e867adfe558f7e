//! The rules that change the destination of packets to an address, such as those for a Service of Kubernetes.

use std::net::{IpAddr, SocketAddr};

use super::conditions::spot_text;
use crate::{
    forwarding::{ChainIndex, ForwardingModel, NewDestination, Passage, SAMPLE_PORT, Translation, Transport},
    text::{ShellCommand, count, list},
};

/// The packets of a protocol, or those to one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Service {
    transport: Transport,
    /// The port; `None` for all packets of the protocol.
    port: Option<u16>,
}

impl Service {
    fn text(self) -> String {
        let name = self.transport.name();
        self.port.map_or_else(|| format!("{name} packets"), |port| format!("{name} port {port}"))
    }
}

/// The rules that change the destination of packets to an address.
#[derive(Debug)]
pub(super) struct Rewriting<'a> {
    /// The rules, each with the packets that it applies to.
    rules: Vec<(Vec<Service>, Translation<'a>)>,
    destination: IpAddr,
}

/// A packet after the change of its destination.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The new destination.
    pub destination: IpAddr,
    /// The protocols and ports of such packets after the change.
    pub services: Vec<(Transport, u16)>,
    /// The mark of the packets, if it is known.
    pub mark: Option<u32>,
}

impl<'a> Rewriting<'a> {
    /// Returns the rules for packets to `destination`, if there are any. `passage` returns a packet of a protocol to a port.
    pub(super) fn of<'p>(
        chains: &ChainIndex<'a>,
        model: &ForwardingModel<'_>,
        destination: IpAddr,
        passage: impl Fn(Transport, u16) -> Passage<'p>,
    ) -> Option<Self> {
        let mut rules: Vec<(Vec<Service>, Translation<'a>)> = Vec::new();
        let mut add = |service: Service, translations: &[Translation<'a>]| {
            for translation in translations {
                match rules.iter_mut().find(|(_, known)| known == translation) {
                    Some((services, _)) => services.push(service),
                    None => rules.push((vec![service], *translation)),
                }
            }
        };
        for transport in Transport::ALL {
            let any = passage(transport, SAMPLE_PORT);
            let of_any = chains.translations(model, &any);
            add(Service { transport, port: None }, &of_any);
            if transport == Transport::Icmp {
                continue;
            }
            for port in chains.ports(model, &any) {
                let translations = chains.translations(model, &passage(transport, port));
                if translations != of_any {
                    add(Service { transport, port: Some(port) }, &translations);
                }
            }
        }
        (!rules.is_empty()).then_some(Self { rules, destination })
    }

    /// Returns `true` if a rule is for all packets of a protocol.
    pub(super) fn is_for_all_ports(&self) -> bool {
        self.rules.iter().any(|(services, _)| services.iter().any(|service| service.port.is_none()))
    }

    /// Describes the rules. `is_traced` tells whether the packets are traced to their new destination.
    pub(super) fn texts(&self, is_traced: bool) -> Vec<String> {
        /// The maximum number of rules to describe.
        const MAX: usize = 8;
        let text = |(services, translation): &(Vec<Service>, Translation<'_>)| {
            let is_all = Transport::ALL.map(|transport| Service { transport, port: None });
            let what = match *services == is_all {
                true => "all packets".to_owned(),
                false => list(&services.iter().map(|service| service.text()).collect::<Vec<_>>(), 4),
            };
            let verb = if translation.is_certain { "changed" } else { "may be changed" };
            let to = destination_text(translation.destination);
            let (only, next) = match is_traced {
                true => ("", String::new()),
                false => (" only", untraced_text(translation.destination)),
            };
            format!("{what}{only}: {verb} to {to} by {}{next}", spot_text(&translation.spot))
        };
        let mut texts: Vec<String> = self.rules.iter().take(MAX).map(text).collect();
        if let Some(more @ 1..) = self.rules.len().checked_sub(MAX) {
            texts.push(format!("{} more can change the destination", count(more, "rule")));
        }
        texts
    }

    /// Returns the rewritten packet, if all rules give it the same destination. `own` is the address that a packet to this node
    /// itself gets.
    pub(super) fn rewritten(&self, own: Option<IpAddr>) -> Option<Rewritten> {
        let address = |translation: &Translation<'_>| match translation.destination? {
            NewDestination::Node => own,
            NewDestination::Other { addresses: None, .. } => Some(self.destination),
            NewDestination::Other { addresses: Some((from, to)), .. } => (from == to).then_some(from),
        };
        let mut addresses = self.rules.iter().map(|(_, translation)| address(translation));
        let destination = addresses.next()??;
        if !addresses.all(|address| address == Some(destination)) {
            return None;
        }
        let services = self.rules.iter().flat_map(|(services, translation)| {
            let port = match translation.destination {
                Some(NewDestination::Other { port, .. }) => port,
                _ => None,
            };
            services
                .iter()
                .map(move |service| (service.transport, port.or(service.port).unwrap_or(SAMPLE_PORT)))
        });
        let mut services: Vec<(Transport, u16)> = services.collect();
        services.sort_unstable();
        services.dedup_by_key(|(transport, _)| *transport);
        let mut marks = self.rules.iter().map(|(_, translation)| translation.mark);
        let first = marks.next()?;
        let mark = first.filter(|_| marks.all(|mark| mark == first));
        Some(Rewritten { destination, services, mark })
    }
}

/// Says that packets to a new destination are not traced, and how to trace them.
fn untraced_text(destination: Option<NewDestination>) -> String {
    match destination {
        Some(NewDestination::Other { addresses: Some((from, to)), .. }) if from == to => {
            let explain = ShellCommand::new(["hostgw", "explain", &from.to_string()]);
            format!("; not traced here: run `{explain}`")
        }
        _ => "; not traced here".to_owned(),
    }
}

fn destination_text(destination: Option<NewDestination>) -> String {
    match destination {
        None => "an address that hostgw cannot decode".to_owned(),
        Some(NewDestination::Node) => "this node itself".to_owned(),
        Some(NewDestination::Other { addresses: None, port: Some(port) }) => format!("port {port}"),
        Some(NewDestination::Other { addresses: None, port: None }) => "another port".to_owned(),
        Some(NewDestination::Other { addresses: Some((from, to)), port }) => match port {
            _ if from != to => format!("one of the addresses from {from} to {to}"),
            Some(port) => SocketAddr::new(from, port).to_string(),
            None => from.to_string(),
        },
    }
}
