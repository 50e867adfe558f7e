//! Which node of the file this machine is.

use crate::{
    error::{Error, Kind},
    model::Cluster,
    state::Host,
    text::{list, nearest, printable},
};

/// How many names an error lists at most.
const LISTED: usize = 8;

/// The index of the node to plan for: the one called `name`, else the one that owns an address of this
/// `host`, else the one with this machine's `host_name` (case ignored, with or without its domain).
///
/// # Errors
/// [`Kind::Invalid`] when none or more than one node answers to that.
pub fn identify(
    cluster: &Cluster,
    name: Option<&str>,
    host: &Host,
    host_name: Option<&str>,
) -> Result<usize, Error> {
    match name {
        Some(name) => node_named(cluster, name),
        None => by_address(cluster, host)
            .transpose()
            .or_else(|| by_host_name(cluster, host_name?).transpose())
            .unwrap_or_else(|| Err(unidentified(cluster, host_name))),
    }
}

/// The index of the node called `name`.
///
/// # Errors
/// [`Kind::Invalid`] when there is none, with the name that is most like it.
pub fn node_named(cluster: &Cluster, name: &str) -> Result<usize, Error> {
    if let Some((index, _)) = cluster.node(name) {
        return Ok(index);
    }
    let names = cluster.nodes.iter().map(|node| node.name.as_raw());
    let error = Error::new(Kind::Invalid, format!("no node {name}"));
    Err(match nearest(name, names) {
        Some(nearest) => error.with_hint(format!("did you mean {}?", printable(nearest))),
        None => error.with_hint(format!("the configuration has {}", listed(cluster))),
    })
}

fn by_address(cluster: &Cluster, host: &Host) -> Result<Option<usize>, Error> {
    let local: std::collections::HashSet<_> = host.addresses.iter().map(|own| own.address).collect();
    let has_local =
        |index: &usize| cluster.nodes[*index].addresses.iter().any(|(_, address)| local.contains(address));
    only(cluster, (0..cluster.nodes.len()).filter(has_local).collect(), "have an address of this machine")
}

fn by_host_name(cluster: &Cluster, host_name: &str) -> Result<Option<usize>, Error> {
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_lowercase();
    let exact: Vec<usize> = (0..cluster.nodes.len())
        .filter(|index| cluster.nodes[*index].name.as_raw().eq_ignore_ascii_case(host_name))
        .collect();
    if !exact.is_empty() {
        return only(cluster, exact, "have this machine's host name");
    }
    let wanted = short(host_name);
    let matching = (0..cluster.nodes.len())
        .filter(|index| short(cluster.nodes[*index].name.as_raw()) == wanted)
        .collect();
    only(cluster, matching, "have this machine's host name")
}

/// The one match; none is no error yet, two are.
fn only(cluster: &Cluster, matches: Vec<usize>, what: &str) -> Result<Option<usize>, Error> {
    match matches[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        _ => {
            let names: Vec<_> = matches.iter().map(|index| &cluster.nodes[*index].name).collect();
            Err(Error::new(
                Kind::Invalid,
                format!("{} nodes {what}: {}", matches.len(), list(&names, LISTED)),
            )
            .with_hint("pass the right one with --node"))
        }
    }
}

fn unidentified(cluster: &Cluster, host_name: Option<&str>) -> Error {
    let host_name = host_name.map_or_else(String::new, |name| format!(", and none is named {name}"));
    Error::new(
        Kind::Invalid,
        format!("cannot tell which node this machine is: no node has an address of it{host_name}"),
    )
    .with_hint(format!("pass its name with --node; the configuration has {}", listed(cluster)))
}

fn listed(cluster: &Cluster) -> String {
    list(&cluster.nodes.iter().map(|node| &node.name).collect::<Vec<_>>(), LISTED)
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

    /// What `identify` says on a machine with these addresses.
    fn who(name: Option<&str>, addresses: &[&str], host_name: Option<&str>) -> Result<String, String> {
        let document = Document::new("hostgw.yaml", FILE.to_owned(), Format::Yaml);
        let cluster = config::load(&document).expect("a valid file");
        let addresses = addresses.iter().map(|address| {
            let address = address.parse().expect("an address");
            InterfaceAddress { device: "eth0".into(), address, prefix: address.into() }
        });
        let host = Host { addresses: addresses.collect(), ..Host::default() };
        match identify(&cluster, name, &host, host_name) {
            Ok(index) => Ok(cluster.nodes[index].name.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_name_wins_then_an_address_then_the_host_name() {
        assert_eq!(who(Some("b"), &["172.30.0.11"], Some("a.example.com")), Ok("b".to_owned()));
        assert_eq!(who(None, &["10.0.0.1", "172.30.0.12"], Some("a.example.com")), Ok("b".to_owned()));
        assert_eq!(who(None, &["10.0.0.1"], Some("A.EXAMPLE.com")), Ok("a.example.com".to_owned()));
        assert_eq!(who(None, &[], Some("B.example.net")), Ok("b".to_owned()));
        assert_eq!(who(None, &[], Some("Only")), Ok("only.example.com".to_owned()));
    }

    #[test]
    fn none_and_two_are_refused() {
        assert_eq!(
            who(None, &["172.30.0.11", "172.30.0.13"], None),
            Err("2 nodes have an address of this machine: a.example.org, a.example.com\n\
                 help: pass the right one with --node"
                .to_owned())
        );
        assert_eq!(
            who(None, &[], Some("a")),
            Err("2 nodes have this machine's host name: a.example.org, a.example.com\n\
                 help: pass the right one with --node"
                .to_owned())
        );
        assert_eq!(
            who(None, &[], Some("x")),
            Err(
                "cannot tell which node this machine is: no node has an address of it, and none is named x\n\
                 help: pass its name with --node; the configuration has a.example.org, b, a.example.com, \
                 only.example.com"
                    .to_owned()
            )
        );
        assert_eq!(
            who(Some("only.exmple.com"), &[], None),
            Err("no node only.exmple.com\nhelp: did you mean only.example.com?".to_owned())
        );
    }
}
