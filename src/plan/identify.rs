//! Which node of the file this machine is.

use crate::{
    error::{Error, Kind},
    model::Cluster,
    state::Host,
    text::nearest,
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
        Some(name) => by_name(cluster, name),
        None => by_address(cluster, host)
            .transpose()
            .or_else(|| by_host_name(cluster, host_name?).transpose())
            .unwrap_or_else(|| Err(unidentified(cluster, host_name))),
    }
}

fn by_name(cluster: &Cluster, name: &str) -> Result<usize, Error> {
    if let Some((index, _)) = cluster.node(name) {
        return Ok(index);
    }
    let names = cluster.nodes.iter().map(|node| node.name.as_str());
    let error = Error::new(Kind::Invalid, format!("the file has no node {name}"));
    Err(match nearest(name, names) {
        Some(nearest) => error.with_hint(format!("did you mean {nearest}?")),
        None => error.with_hint(format!("its nodes are {}", listed(cluster))),
    })
}

fn by_address(cluster: &Cluster, host: &Host) -> Result<Option<usize>, Error> {
    let local: std::collections::HashSet<_> = host.addresses.iter().map(|own| own.address).collect();
    let has_local =
        |index: &usize| cluster.nodes[*index].addresses.iter().any(|(_, address)| local.contains(address));
    only(cluster, (0..cluster.nodes.len()).filter(has_local).collect(), "own an address of this machine")
}

fn by_host_name(cluster: &Cluster, host_name: &str) -> Result<Option<usize>, Error> {
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_lowercase();
    let exact: Vec<usize> = (0..cluster.nodes.len())
        .filter(|index| cluster.nodes[*index].name.eq_ignore_ascii_case(host_name))
        .collect();
    if !exact.is_empty() {
        return only(cluster, exact, "have the name of this machine");
    }
    let wanted = short(host_name);
    let matching =
        (0..cluster.nodes.len()).filter(|index| short(&cluster.nodes[*index].name) == wanted).collect();
    only(cluster, matching, "have the name of this machine")
}

/// The one match; none is no error yet, two are.
fn only(cluster: &Cluster, matches: Vec<usize>, what: &str) -> Result<Option<usize>, Error> {
    match matches[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        _ => {
            let names: Vec<&str> =
                matches.iter().take(LISTED).map(|index| cluster.nodes[*index].name.as_str()).collect();
            Err(Error::new(Kind::Invalid, format!("{} nodes {what}: {}", matches.len(), names.join(", ")))
                .with_hint("say which one this is with --node"))
        }
    }
}

fn unidentified(cluster: &Cluster, host_name: Option<&str>) -> Error {
    let host_name = host_name.map_or_else(String::new, |name| format!(", and none is called {name}"));
    Error::new(
        Kind::Invalid,
        format!("cannot tell which node this machine is: no node has an address of it{host_name}"),
    )
    .with_hint(format!("name it with --node; the file's nodes are {}", listed(cluster)))
}

fn listed(cluster: &Cluster) -> String {
    let names: Vec<&str> = cluster.nodes.iter().take(LISTED).map(|node| node.name.as_str()).collect();
    match cluster.nodes.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
