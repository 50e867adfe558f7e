//! Writes a configuration.

use super::{
    node::ImportedNode,
    prefix::{ClusterPrefix, PrefixOrigin},
    survey::HOST_GW,
    syntax::{Syntax, keys_of},
};
use crate::{config::Format, model::NextHopMode};

/// The values of a configuration, except for its nodes.
#[derive(Debug)]
pub(super) struct Head {
    pub prefix: ClusterPrefix,
    pub egress: Egress,
    pub next_hop: NextHopChoice,
    /// Machines without pods are imported, too.
    pub has_all: bool,
}

/// The egress interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Egress {
    /// The key is not written.
    LeftOut,
    /// The command line names it.
    Given(String),
    /// Neither the command line nor the list names it.
    Assumed(&'static str),
}

/// The next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextHopChoice {
    /// The default, which is not written.
    Default,
    /// The command line names it.
    Given(NextHopMode),
    /// flannel's host-gw backend uses the addresses of nodes.
    Flannel,
    /// Linux does not answer for IPv6 pod gateways, so the addresses of nodes are used.
    Ipv6,
}

impl Head {
    /// The keys, each with a comment.
    fn lines(&self, syntax: Syntax) -> Vec<String> {
        let prefixes: Vec<String> = self.prefix.prefixes.iter().map(ToString::to_string).collect();
        let mut lines = vec![line(
            &syntax.entry("clusterPrefix", &prefixes),
            &match self.prefix.origin {
                PrefixOrigin::Given => String::new(),
                PrefixOrigin::Server(name) => format!("{name}'s --cluster-cidr"),
                PrefixOrigin::ServerDefault(name) => format!("{name}'s default"),
                PrefixOrigin::Computed => "computed from the pod CIDRs: see `hostgw help HG1112`".to_owned(),
            },
        )];
        match &self.egress {
            Egress::LeftOut => {}
            Egress::Given(name) => lines.push(syntax.entry("egressInterface", std::slice::from_ref(name))),
            Egress::Assumed(name) => {
                let entry = syntax.entry("egressInterface", &[(*name).to_owned()]);
                lines.push(line(&entry, "assumed: see `hostgw help HG1116`"));
            }
        }
        match self.next_hop {
            NextHopChoice::Default => {}
            NextHopChoice::Given(mode) => lines.push(syntax.entry("nextHop", &[name_of(mode).to_owned()])),
            NextHopChoice::Flannel => {
                let entry = syntax.entry("nextHop", &[name_of(NextHopMode::NodeAddress).to_owned()]);
                lines.push(line(&entry, &format!("as flannel's {HOST_GW} backend does")));
            }
            NextHopChoice::Ipv6 => {
                let entry = syntax.entry("nextHop", &[name_of(NextHopMode::NodeAddress).to_owned()]);
                lines.push(line(&entry, "IPv6 pod gateways do not work: see `hostgw help HG0802`"));
            }
        }
        lines
    }
}

const fn name_of(mode: NextHopMode) -> &'static str {
    match mode {
        NextHopMode::PodGateway => "pod-gateway",
        NextHopMode::NodeAddress => "node-address",
    }
}

fn line(entry: &str, comment: &str) -> String {
    if comment.is_empty() { entry.to_owned() } else { format!("{entry} # {comment}") }
}

/// Writes a configuration. The text ends with a newline.
pub(super) fn configuration(head: &Head, nodes: &[ImportedNode], format: Format) -> String {
    let mut text = String::with_capacity(128 * nodes.len() + 512);
    text.push_str(&header(head, format));
    let syntax = match format {
        Format::Yaml => Syntax::Yaml,
        Format::Toml => Syntax::Toml,
    };
    for line in head.lines(syntax) {
        text.extend([line.as_str(), "\n"]);
    }
    match format {
        Format::Yaml => {
            text.push_str("nodes:\n");
            for node in nodes {
                text.extend(["  - ", &syntax.inline(&keys_of(node), ""), "\n"]);
            }
        }
        Format::Toml => {
            for node in nodes {
                text.push_str("\n[[nodes]]\n");
                for (key, values) in keys_of(node) {
                    text.extend([syntax.entry(key, &values).as_str(), "\n"]);
                }
            }
        }
    }
    text
}

/// The comment at the beginning of a file: how to update it in the same way as it was made.
fn header(head: &Head, format: Format) -> String {
    let all = if head.has_all { "--all " } else { "" };
    let name = match format {
        Format::Yaml => "hostgw.yaml",
        Format::Toml => "hostgw.toml",
    };
    format!(
        "# Imported from Kubernetes by hostgw. When nodes join, leave or change:\n\
         #   kubectl get nodes -o json | hostgw import {all}--update {name}\n"
    )
}
