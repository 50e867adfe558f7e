//! Finds the egress interface of a node among the interfaces that it has.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    diagnose::{Diagnostic, Rule},
    error::{Error, Kind},
    model::{Cluster, InterfaceName, Node, OperatingSystem},
    state::{Host, Link},
    text::{Untrusted, list, printable},
};

/// Finds the egress interface of the Linux node at `index` of `cluster` on its `host`: the interface with the configured
/// name or alternative name or, without a name, the one with the node's address. Sets [`Cluster::found_egress`] if the name
/// differs from the configured one.
///
/// # Errors
/// Returns [`Kind::Invalid`] if no name is configured, and not exactly one interface has an address of the node.
pub fn find_egress(cluster: &mut Cluster, index: usize, host: &Host) -> Result<(), Error> {
    let node = &cluster.nodes[index];
    if node.os != OperatingSystem::Linux {
        return Ok(());
    }
    let found = match cluster.egress_interface_of(node) {
        Some(name) => match host.links.iter().find(|link| has_altname(link, name.as_str())) {
            Some(link) if host.link(name.as_str()).is_none() => link.name.clone(),
            // Whether it exists is checked later.
            _ => return Ok(()),
        },
        None => by_address(node, host)?,
    };
    let interface = InterfaceName::linux(found.as_raw()).map_err(|why| {
        Error::new(Kind::Invalid, format!("cannot use the interface {found} of node {}: {why}", node.name))
    })?;
    cluster.set_found_egress(node.name.clone(), interface);
    Ok(())
}

fn has_altname(link: &Link, name: &str) -> bool {
    link.altnames.iter().any(|altname| *altname == name)
}

fn by_address(node: &Node, host: &Host) -> Result<Untrusted, Error> {
    let addresses: Vec<IpAddr> = node.addresses.iter().map(|(_, address)| *address).collect();
    let of_node = host.addresses.iter().filter(|local| addresses.contains(&local.address));
    let devices: BTreeSet<&Untrusted> = of_node.map(|local| &local.device).collect();
    let sought = format!("{} (node {})", list(&addresses, 2), node.name);
    let (message, hint) = match devices.into_iter().collect::<Vec<_>>()[..] {
        [device] if *device == "lo" => (
            format!("cannot find the egress interface: {sought} is assigned to lo"),
            "set egressInterface to the interface that carries pod traffic".to_owned(),
        ),
        [device] => return Ok(device.clone()),
        [] => (
            format!("cannot find the egress interface: no local interface has {sought}"),
            "if this is the right machine, correct the node's address, or set egressInterface".to_owned(),
        ),
        ref several => (
            format!(
                "cannot find the egress interface: several interfaces have {sought}: {}",
                list(several, 4)
            ),
            "set egressInterface to the one that carries pod traffic".to_owned(),
        ),
    };
    Err(Error::new(Kind::Invalid, message).with_hint(hint))
}

/// Reports an egress interface that is a port of another one, which receives its packets. A VRF only selects the routing
/// table.
pub(super) fn port_of(link: &Link, host: &Host) -> Option<Diagnostic> {
    let master = link.master.as_ref()?;
    let kind = host.link(master.as_raw()).and_then(|link| link.kind.as_ref());
    if kind.is_some_and(|kind| kind == "vrf") {
        return None;
    }
    let what = kind.map_or_else(|| "interface".to_owned(), ToString::to_string);
    let role = if what == "bond" { "member" } else { "port" };
    let message = format!(
        "egress interface {} is a {role} of the {what} {master}: packets that arrive on it are received by {master}",
        link.name
    );
    let remedy = match host.addresses.iter().any(|local| local.device == *master) {
        true => format!("set egressInterface: {}", printable(master.as_raw())),
        false => "set egressInterface to the interface that has this node's address".to_owned(),
    };
    Some(Diagnostic::new(Rule::EgressIsPort, message).with_remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_and_a_member_are_named_as_in_the_documentation_of_linux() {
        let link = |name: &str, kind: Option<&str>, master: Option<&str>| Link {
            kind: kind.map(Into::into),
            master: master.map(Into::into),
            ..Link::new(name, 1)
        };
        for (kind, expected) in [
            ("bridge", Some("is a port of the bridge top")),
            ("bond", Some("is a member of the bond top")),
            ("vrf", None),
        ] {
            let lower = link("eth0", None, Some("top"));
            let host = Host { links: vec![link("top", Some(kind), None)], ..Host::default() };
            let message = port_of(&lower, &host).map(|found| found.message);
            assert_eq!(message.is_some(), expected.is_some(), "{kind}: {message:?}");
            assert!(message.is_none_or(|message| message.contains(expected.unwrap_or_default())), "{kind}");
        }
    }
}
