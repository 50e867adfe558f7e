//! Identifies the node of the configuration that this machine is.

use crate::{
    error::{Error, Kind},
    model::Cluster,
    state::Host,
    text::{list, nearest, printable},
};

/// The maximum number of names in an error.
const MAX_LISTED: usize = 8;

/// Where the interfaces and addresses are from that identify a node.
#[derive(Debug, Clone, Copy)]
pub enum MachineSource<'a> {
    /// This machine.
    Live,
    /// The snapshot in this file. The user can name the node.
    Snapshot(&'a str),
    /// One of several snapshots, in this file.
    OneOf(&'a str),
}

impl<'a> MachineSource<'a> {
    /// Returns the name of the snapshot.
    #[must_use]
    pub const fn file(self) -> Option<&'a str> {
        match self {
            Self::Live => None,
            Self::Snapshot(file) | Self::OneOf(file) => Some(file),
        }
    }
}

/// Returns the index of the node to plan for: the one with this `name`, or else the one with an address of this `host`,
/// or else the one with the machine's `hostname`, ignoring case and domain.
///
/// # Errors
/// Returns [`Kind::Invalid`] unless exactly one node matches.
pub fn identify(
    cluster: &Cluster,
    name: Option<&str>,
    host: &Host,
    hostname: Option<&str>,
    source: MachineSource<'_>,
) -> Result<usize, Error> {
    match name {
        Some(name) => node_named(cluster, name),
        None => by_address(cluster, host, source)
            .transpose()
            .or_else(|| by_hostname(cluster, hostname?, source).transpose())
            .unwrap_or_else(|| Err(unidentified(cluster, hostname, source))),
    }
}

/// Returns the index of the node with this `name`.
///
/// # Errors
/// Returns [`Kind::Invalid`] if there is none, and suggests the most similar name.
pub fn node_named(cluster: &Cluster, name: &str) -> Result<usize, Error> {
    if let Some((index, _)) = cluster.node(name) {
        return Ok(index);
    }
    let names = cluster.nodes.iter().map(|node| node.name.as_raw());
    let error = Error::new(Kind::Invalid, format!("unknown node: {name}"));
    Err(match nearest(name, names) {
        Some(nearest) => error.with_hint(format!("did you mean {}?", printable(nearest))),
        None => error.with_hint(format!("use one of these nodes: {}", listed(cluster))),
    })
}

fn by_address(cluster: &Cluster, host: &Host, source: MachineSource<'_>) -> Result<Option<usize>, Error> {
    let local: std::collections::HashSet<_> = host.addresses.iter().map(|local| local.address).collect();
    let has_local =
        |index: &usize| cluster.nodes[*index].addresses.iter().any(|(_, address)| local.contains(address));
    unique(cluster, (0..cluster.nodes.len()).filter(has_local).collect(), "the addresses", source)
}

fn by_hostname(cluster: &Cluster, hostname: &str, source: MachineSource<'_>) -> Result<Option<usize>, Error> {
    let without_domain = |name: &str| name.split('.').next().unwrap_or(name).to_lowercase();
    let exact: Vec<usize> = (0..cluster.nodes.len())
        .filter(|index| cluster.nodes[*index].name.as_raw().eq_ignore_ascii_case(hostname))
        .collect();
    if !exact.is_empty() {
        return unique(cluster, exact, "the hostname", source);
    }
    let wanted = without_domain(hostname);
    let matching = (0..cluster.nodes.len())
        .filter(|index| without_domain(cluster.nodes[*index].name.as_raw()) == wanted)
        .collect();
    unique(cluster, matching, "the hostname", source)
}

/// Returns the only match, if there is one. Several matches are an error.
fn unique(
    cluster: &Cluster,
    matches: Vec<usize>,
    what: &str,
    source: MachineSource<'_>,
) -> Result<Option<usize>, Error> {
    match matches[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        _ => {
            let names: Vec<_> = matches.iter().map(|index| &cluster.nodes[*index].name).collect();
            let owner = source.file().map_or_else(
                || "this machine has".to_owned(),
                |file| format!("{file} is from a machine with"),
            );
            let message = format!("{owner} {what} of {} nodes: {}", matches.len(), list(&names, MAX_LISTED));
            Err(Error::new(Kind::Invalid, message).with_hint(match source {
                MachineSource::Live | MachineSource::Snapshot(_) => {
                    "pass --node NAME to select one of them".to_owned()
                }
                MachineSource::OneOf(_) => format!("correct {what} of the machine, or the configuration"),
            }))
        }
    }
}

fn unidentified(cluster: &Cluster, hostname: Option<&str>, source: MachineSource<'_>) -> Error {
    let hostname = hostname.map_or_else(String::new, |name| format!(" or its hostname ({name})"));
    let what = source
        .file()
        .map_or_else(|| "which node this machine is".to_owned(), |file| format!("which node {file} is from"));
    let message =
        format!("cannot tell {what}: no node in the configuration has one of its addresses{hostname}");
    Error::new(Kind::Invalid, message).with_hint(match source {
        MachineSource::Live | MachineSource::Snapshot(_) => {
            format!("pass --node NAME; nodes in the configuration: {}", listed(cluster))
        }
        MachineSource::OneOf(_) => {
            "correct the address or the name of the node in the configuration, or the hostname of the machine"
                .to_owned()
        }
    })
}

fn listed(cluster: &Cluster) -> String {
    list(&cluster.nodes.iter().map(|node| &node.name).collect::<Vec<_>>(), MAX_LISTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Document, Format},
        state::InterfaceAddress,
    };

    const FILE: &str = "clusterPrefix: 10.244.0.0/16
egressInterface: eth0
nodes:
  - {name: a.example.org, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}
  - {name: b, os: linux, podCIDR: 10.244.1.0/24, address: 172.30.0.12}
  - {name: a.example.com, os: linux, podCIDR: 10.244.2.0/24, address: 172.30.0.13}
  - {name: only.example.com, os: linux, podCIDR: 10.244.3.0/24}
";

    /// Returns the result of `identify` on a machine with these addresses.
    fn identified(name: Option<&str>, addresses: &[&str], hostname: Option<&str>) -> Result<String, String> {
        let document = Document::new("hostgw.yaml", FILE.to_owned(), Format::Yaml);
        let cluster = config::load(&document).expect("a valid file");
        let addresses = addresses.iter().map(|address| {
            let address = address.parse().expect("an address");
            InterfaceAddress { device: "eth0".into(), address, prefix: address.into(), flags: Vec::new() }
        });
        let host = Host { addresses: addresses.collect(), ..Host::default() };
        match identify(&cluster, name, &host, hostname, MachineSource::Live) {
            Ok(index) => Ok(cluster.nodes[index].name.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The user can name the node of a single snapshot, but not those of several.
    #[test]
    fn every_remedy_is_possible() {
        let document = Document::new("hostgw.yaml", FILE.to_owned(), Format::Yaml);
        let cluster = config::load(&document).expect("a valid file");
        let rejected = |hostname, source| {
            identify(&cluster, None, &Host::default(), Some(hostname), source)
                .expect_err("unknown")
                .to_string()
        };
        assert_eq!(
            rejected("zz", MachineSource::Snapshot("s.json")),
            "cannot tell which node s.json is from: no node in the configuration has one of its addresses or its hostname (zz)\n\
             help: pass --node NAME; nodes in the configuration: a.example.org, b, a.example.com, only.example.com"
        );
        assert_eq!(
            rejected("zz", MachineSource::OneOf("s.json")),
            "cannot tell which node s.json is from: no node in the configuration has one of its addresses or its hostname (zz)\n\
             help: correct the address or the name of the node in the configuration, or the hostname of the machine"
        );
        assert_eq!(
            rejected("a", MachineSource::OneOf("s.json")),
            "s.json is from a machine with the hostname of 2 nodes: a.example.org, a.example.com\n\
             help: correct the hostname of the machine, or the configuration"
        );
    }

    #[test]
    fn names_take_precedence_over_addresses_and_host_names() {
        assert_eq!(identified(Some("b"), &["172.30.0.11"], Some("a.example.com")), Ok("b".to_owned()));
        assert_eq!(identified(None, &["10.0.0.1", "172.30.0.12"], Some("a.example.com")), Ok("b".to_owned()));
        assert_eq!(identified(None, &["10.0.0.1"], Some("A.EXAMPLE.com")), Ok("a.example.com".to_owned()));
        assert_eq!(identified(None, &[], Some("B.example.net")), Ok("b".to_owned()));
        assert_eq!(identified(None, &[], Some("Only")), Ok("only.example.com".to_owned()));
    }

    #[test]
    fn ambiguous_and_unknown_machines_are_rejected() {
        assert_eq!(
            identified(None, &["172.30.0.11", "172.30.0.13"], None),
            Err("this machine has the addresses of 2 nodes: a.example.org, a.example.com\n\
                 help: pass --node NAME to select one of them"
                .to_owned())
        );
        assert_eq!(
            identified(None, &[], Some("a")),
            Err("this machine has the hostname of 2 nodes: a.example.org, a.example.com\n\
                 help: pass --node NAME to select one of them"
                .to_owned())
        );
        assert_eq!(
            identified(None, &[], Some("x")),
            Err(
                "cannot tell which node this machine is: no node in the configuration has one of its addresses or its hostname (x)\n\
                 help: pass --node NAME; nodes in the configuration: a.example.org, b, a.example.com, \
                 only.example.com"
                    .to_owned()
            )
        );
        assert_eq!(
            identified(Some("only.exmple.com"), &[], None),
            Err("unknown node: only.exmple.com\nhelp: did you mean only.example.com?".to_owned())
        );
    }
}
