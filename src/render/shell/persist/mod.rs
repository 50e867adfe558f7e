//! Renders the desired state of a Linux node as files for the programs that configure its network at boot.
//!
//! Each file is additive: it only adds managed routes, replaces the managed NAT table, or sets the sysctls of the
//! configuration. None describes an interface, so none can take a node off the network. Hooks contain no state: they apply
//! the configuration on the node.

mod apply_hook;
mod header;
mod hook;
mod networkd;

use std::{collections::HashSet, fmt, str::FromStr};

use super::{on_link_first, table};
use crate::{
    model::Family,
    plan::in_write_order,
    render::Provenance,
    state::{NatTable, State},
    text::{Untrusted, printable},
};

pub use apply_hook::ApplyHook;
pub use header::{PersistHeader, UnrecognizedHeader};

/// The program that a file is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// Routes: a drop-in for the .network file of the egress interface, systemd.network(5).
    SystemdNetworkd,
    /// Routes: the same drop-in for the .network file that netplan generates for an ID, netplan(5).
    Netplan(NetplanId),
    /// Routes: a script for NetworkManager-dispatcher(8).
    NetworkManager,
    /// Routes: a script that ifup runs, interfaces(5).
    Ifupdown,
    /// NAT: a file for `nft -f`, nft(8).
    Nftables,
    /// Sysctls: sysctl.d(5).
    SysctlD,
    /// Everything: a script that runs `hostgw apply`.
    Apply(ApplyHook),
}

/// The ID of an interface in a netplan configuration: a key under `ethernets`, `bonds`, `bridges`, `vlans` or `wifis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetplanId(String);

/// The error for a text that is not a valid netplan ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetplanId;

impl fmt::Display for InvalidNetplanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected letters, digits, '.', '_', ':' and '-' only")
    }
}

impl std::error::Error for InvalidNetplanId {}

impl FromStr for NetplanId {
    type Err = InvalidNetplanId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        /// A file name has at most 255 bytes, and netplan adds `10-netplan-` and `.network`.
        const MAX_LENGTH: usize = 200;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        let is_valid = !text.is_empty() && text.len() <= MAX_LENGTH && text.chars().all(is_allowed);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidNetplanId) }
    }
}

impl NetplanId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The error for an egress interface whose name cannot be written in a script for `ip -batch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwritableInterface(String);

impl fmt::Display for UnwritableInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a script for ip -batch cannot name the interface {}", self.0)
    }
}

impl std::error::Error for UnwritableInterface {}

/// The node that a file is for.
#[derive(Debug, Clone, Copy)]
pub struct PersistedNode<'a> {
    /// The node's name in the configuration.
    pub name: &'a str,
    /// The node's egress interface.
    pub interface: &'a str,
}

/// Renders the file that restores its part of `state` on `node` after a reboot.
///
/// # Errors
/// Returns an error if the file cannot name the egress interface.
pub fn persisted(
    kind: &Persist,
    state: &State,
    node: PersistedNode,
    provenance: &Provenance,
) -> Result<String, UnwritableInterface> {
    let content = kind.content(state, node)?;
    let shebang = if kind.is_script() { "#!/bin/sh\n" } else { "" };
    let mut text = format!(
        "{shebang}# {} of node {}, generated from {} by hostgw {}.\n",
        kind.subject(),
        printable(node.name),
        printable(provenance.file),
        env!("CARGO_PKG_VERSION"),
    );
    text.push_str(&PersistHeader::new(kind, node, provenance).line());
    text.push_str("#\n");
    for line in kind.instructions(node.interface).lines() {
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
    Ok(text + &content)
}

/// The effective lines of a file, without comments.
fn without_comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The result of comparing a boot file with the state that it should restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// The file restores exactly its part of the state.
    Current,
    /// The file restores something else.
    Outdated {
        /// Destinations that it would restore although the state does not contain them.
        restores: Vec<String>,
        /// Destinations of the state that it does not contain.
        lacks: Vec<String>,
    },
}

/// Compares the text of a boot file with `state`. Only its effect matters: if the configuration differs in a
/// comment or in another node's part, the file is still current.
#[must_use]
pub fn freshness(header: &PersistHeader, text: &str, state: &State) -> Freshness {
    let device = state.device().map(Untrusted::as_raw);
    let node = PersistedNode { name: &header.node, interface: device.unwrap_or(&header.interface) };
    let expected = header.persist.content(state, node);
    // If no script can name the interface, no script is current.
    let expected = expected.unwrap_or_default();
    if without_comments(text).eq(without_comments(&expected)) {
        return Freshness::Current;
    }
    let missing_in = |from: &str, other: &str| -> Vec<String> {
        let has: HashSet<&str> = destinations(other).collect();
        destinations(from).filter(|name| !has.contains(name)).map(printable).collect()
    };
    Freshness::Outdated { restores: missing_in(text, &expected), lacks: missing_in(&expected, text) }
}

/// The destinations of the routes in a file.
fn destinations(text: &str) -> impl Iterator<Item = &str> {
    without_comments(text).filter_map(destination)
}

fn destination(line: &str) -> Option<&str> {
    match line.strip_prefix("route add ") {
        Some(route) => route.split(' ').next(),
        None => line.strip_prefix("Destination="),
    }
}

impl Persist {
    /// The value of `--persist`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SystemdNetworkd => "systemd-networkd",
            Self::Netplan(_) => "netplan",
            Self::NetworkManager => "networkmanager",
            Self::Ifupdown => "ifupdown",
            Self::Nftables => "nftables",
            Self::SysctlD => "sysctl.d",
            Self::Apply(hook) => hook.name(),
        }
    }

    /// The value of `--netplan-id`.
    #[must_use]
    pub const fn netplan_id(&self) -> Option<&NetplanId> {
        match self {
            Self::Netplan(id) => Some(id),
            Self::SystemdNetworkd
            | Self::NetworkManager
            | Self::Ifupdown
            | Self::Nftables
            | Self::SysctlD
            | Self::Apply(_) => None,
        }
    }

    /// The value with this [`Self::name`] and [`Self::netplan_id`].
    fn from_name(name: &str, netplan_id: Option<&str>) -> Option<Self> {
        let forms =
            [Self::SystemdNetworkd, Self::NetworkManager, Self::Ifupdown, Self::Nftables, Self::SysctlD];
        let hooks = ApplyHook::ALL.map(Self::Apply);
        match netplan_id {
            Some(id) => id.parse().ok().map(Self::Netplan).filter(|form| form.name() == name),
            None => forms.into_iter().chain(hooks).find(|form| form.name() == name),
        }
    }

    /// What the file contains.
    #[must_use]
    pub const fn subject(&self) -> &'static str {
        match self {
            Self::SystemdNetworkd | Self::Netplan(_) | Self::NetworkManager | Self::Ifupdown => "Routes",
            Self::Nftables => "NAT",
            Self::SysctlD => "Sysctls",
            Self::Apply(_) => "Hook",
        }
    }

    /// Returns `true` if the file is executed instead of read.
    #[must_use]
    pub const fn is_script(&self) -> bool {
        matches!(self, Self::NetworkManager | Self::Ifupdown | Self::Apply(_))
    }

    /// The command that makes a running program reload a changed file.
    #[must_use]
    pub const fn reload(&self) -> Option<&'static str> {
        match self {
            Self::SystemdNetworkd | Self::Netplan(_) => Some("networkctl reload"),
            Self::NetworkManager | Self::Ifupdown | Self::Nftables | Self::SysctlD | Self::Apply(_) => None,
        }
    }

    fn content(&self, state: &State, node: PersistedNode) -> Result<String, UnwritableInterface> {
        match self {
            Self::SystemdNetworkd | Self::Netplan(_) => Ok(networkd::content(on_link_first(state))),
            Self::NetworkManager => hook::content(hook::HookRunner::NetworkManager, state, node.interface),
            Self::Ifupdown => hook::content(hook::HookRunner::Ifup, state, node.interface),
            Self::Nftables => Ok(nftables(state)),
            Self::SysctlD => Ok(sysctls(state)),
            Self::Apply(hook) => Ok(hook.content(node)),
        }
    }

    /// Where to install the file, what loads it, and its limitations.
    fn instructions(&self, interface: &str) -> String {
        let interface = printable(interface);
        match self {
            Self::SystemdNetworkd => format!(
                "Install as /etc/systemd/network/FILE.d/hostgw.conf, where FILE is the name of the \"Network File\" that\n\
                 `networkctl status {interface}` shows, then run `networkctl reload`.\n\
                 Under netplan, use --persist netplan instead. NAT and sysctls need separate files."
            ),
            Self::Netplan(id) => format!(
                "Install as /etc/systemd/network/10-netplan-{id}.network.d/hostgw.conf, then run `networkctl reload`.\n\
                 Check the netplan ID first: `networkctl status {interface}` must show the Network File\n\
                 /run/systemd/network/10-netplan-{id}.network. If it shows another ID, pass that with --netplan-id.\n\
                 If netplan's renderer is NetworkManager, use --persist networkmanager instead.\n\
                 NAT and sysctls need separate files.",
                id = id.as_str()
            ),
            Self::NetworkManager => format!(
                "Install as /etc/NetworkManager/dispatcher.d/90-hostgw, owned by root, with mode 755.\n\
                 NetworkManager runs it when {interface} comes up or gets a different DHCP lease.\n\
                 NetworkManager does not run it after `ip link set {interface} down` and `up`, or when it regains the same\n\
                 DHCP lease. In those cases, run `nmcli connection up ifname {interface}` or `hostgw apply`.\n\
                 NAT and sysctls need separate files."
            ),
            Self::Ifupdown => format!(
                "Install as /etc/network/if-up.d/hostgw with mode 755. ifup runs it after bringing up {interface}.\n\
                 With ifupdown2, set addon_scripts_support=1 in /etc/network/ifupdown2/ifupdown2.conf.\n\
                 NAT and sysctls need separate files."
            ),
            Self::Nftables => {
                "Install as /etc/nftables.d/hostgw.nft, and add this line at the end of /etc/nftables.conf:\n\
                 \x20   include \"/etc/nftables.d/*.nft\"\n\
                 Each load replaces hostgw's own table and nothing else. Routes and sysctls need separate files."
                    .to_owned()
            }
            Self::SysctlD => {
                "Install as /etc/sysctl.d/90-hostgw.conf. If several files set a key, the last file by name wins.\n\
                 Routes and NAT need separate files."
                    .to_owned()
            }
            Self::Apply(hook) => hook.instructions(&interface),
        }
    }
}

/// Renders tables that replace the loaded ones: each is declared before it is deleted, in case it does not exist.
fn nftables(state: &State) -> String {
    let tables = Family::ALL.into_iter().filter_map(|family| state.nat.get(family));
    tables.fold(String::new(), |text, table_state| {
        let name = format!("{} {}", table_state.family.nft(), NatTable::NAME);
        format!("{text}\nadd table {name}\ndelete table {name}\n{}", table(table_state))
    })
}

fn sysctls(state: &State) -> String {
    let lines = in_write_order(&state.sysctls);
    lines.into_iter().fold("\n".to_owned(), |text, (key, value)| format!("{text}{key} = {value}\n"))
}
