//! `hostgw render`

use std::{fs, path::Path};

use super::{
    VerbResult,
    arguments::{PersistArgument, RenderOptions},
    cannot_write,
    configuration::load,
    environment,
    output::Output,
    write,
};
use crate::{
    config::Loaded,
    error::{Error, Kind},
    model::{OffLink, OperatingSystem},
    plan::{self, OriginalSysctls},
    render::{self, ApplyHook, NetplanId, PersistedNode, Provenance, UnwritableInterface},
    text::{OsError, ShellCommand, Untrusted},
};

/// Prints a script for a node, or a file that restores part of its state at boot.
pub(super) fn run(options: &RenderOptions, output: &Output) -> VerbResult {
    if options.netplan_id.is_some() && options.persist != Some(PersistArgument::Netplan) {
        return Err(Error::new(Kind::Usage, "--netplan-id needs --persist netplan")
            .with_hint("pass --persist netplan, or leave out --netplan-id")
            .into());
    }
    let Loaded { document, cluster } = load(options.file.as_deref())?;
    let node = environment::node(options.node.as_deref()).ok_or_else(|| {
        Error::new(Kind::Usage, "no node given: a script is for one node")
            .with_hint(format!("pass --node NAME, or set {}", environment::NODE))
    })?;
    let index = plan::node_named(&cluster, &node)?;
    let hash = document.hash();
    let provenance = Provenance { file: document.name().as_raw(), config_hash: &hash };
    let os = cluster.nodes[index].os;
    let text = match (plan::windows_desired(&cluster, index), options.persist) {
        (Some(_), Some(_)) => {
            let command = ShellCommand::new(["hostgw", "render", "--node", &node]);
            return Err(wrong("--persist works for Linux nodes only", &node, os)
                .with_hint(format!(
                    "run `{command}`: the script writes the routes to the persistent store and, with -Install, keeps them in effect"
                ))
                .into());
        }
        (Some(_), None) if options.collect => render::windows_collector(&cluster, index, &provenance),
        (Some(desired), None) => render::windows_script(&cluster, index, &desired, &provenance),
        (None, _) if options.collect => {
            return Err(wrong("--collect works for Windows nodes only", &node, os)
                .with_hint("run `hostgw snapshot` on a Linux node")
                .into());
        }
        (None, persist) => {
            let desired =
                plan::desired(&cluster, index, &OriginalSysctls::default()).map_err(|plan::NotLinux| {
                    Error::unexpected(format!("node {node} is neither a Linux nor a Windows node"))
                })?;
            let provenance = &provenance;
            match persist {
                None => render::linux_script(&cluster, index, &desired, provenance),
                Some(program) => {
                    let node = &cluster.nodes[index];
                    let interface = cluster.egress_interface_of(node).filter(|name| !name.is_alternative());
                    let is_of_interface =
                        !matches!(program, PersistArgument::Nftables | PersistArgument::SysctlD);
                    if interface.is_none() && is_of_interface {
                        return Err(unnamed_interface(&node.name).into());
                    }
                    if is_of_interface && cluster.off_link != OffLink::Refuse {
                        return Err(depends_on_links().into());
                    }
                    let interface = interface.map_or("", |name| name.as_str());
                    let form = form(program, options.netplan_id.as_ref(), interface)?;
                    let node = PersistedNode { name: node.name.as_raw(), interface };
                    render::persisted(&form, &desired.state, node, provenance).map_err(unwritable)?
                }
            }
        }
    };
    match &options.out {
        Some(path) => write_file(path, &text)?,
        None => output.verbatim(&text)?,
    }
    Ok(0)
}

/// Creates or replaces the file `path` atomically: other programs see either the old file or the new one.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => return Err(cannot_write(path, &"it exists and is not a file")),
        _ => {}
    }
    let written = write::publish(path, text.as_bytes(), text.starts_with("#!"));
    written.map_err(|error| cannot_write(path, &OsError(&error)))
}

fn wrong(what: &str, node: &str, os: OperatingSystem) -> Error {
    Error::new(Kind::Usage, format!("{what}, but {node} runs {}", os.title()))
}

/// Returns the requested kind of file. The netplan ID of an interface is its name, unless the options name another
/// one.
fn form(program: PersistArgument, id: Option<&NetplanId>, interface: &str) -> Result<render::Persist, Error> {
    Ok(match program {
        PersistArgument::SystemdNetworkd => render::Persist::SystemdNetworkd,
        PersistArgument::Netplan => render::Persist::Netplan(match id {
            Some(id) => id.clone(),
            None => interface.parse().map_err(|why| {
                Error::new(Kind::Usage, format!("the interface name {interface} is not a netplan ID: {why}"))
                    .with_hint("pass its ID in the netplan configuration with --netplan-id ID")
            })?,
        }),
        PersistArgument::NetworkManager => render::Persist::NetworkManager,
        PersistArgument::Ifupdown => render::Persist::Ifupdown,
        PersistArgument::Nftables => render::Persist::Nftables,
        PersistArgument::SysctlD => render::Persist::SysctlD,
        PersistArgument::NetworkdDispatcher => render::Persist::Apply(ApplyHook::NetworkdDispatcher),
        PersistArgument::NetworkManagerApply => render::Persist::Apply(ApplyHook::NetworkManager),
        PersistArgument::IfupdownApply => render::Persist::Apply(ApplyHook::Ifup),
    })
}

fn unnamed_interface(node: &Untrusted) -> Error {
    Error::new(Kind::Invalid, format!("the configuration does not name the egress interface of node {node}"))
        .with_hint("set egressInterface, which this file needs; use the interface name from `ip link`, not an altname")
}

fn depends_on_links() -> Error {
    let message = "a boot file cannot restore the routes: with offLink, they depend on this node's links";
    Error::new(Kind::Invalid, message.to_owned())
        .with_hint("restore the routes at boot with `hostgw agent`, or set `offLink: refuse`")
}

fn unwritable(why: UnwritableInterface) -> Error {
    Error::new(Kind::Invalid, why.to_string())
        .with_hint("rename the interface, or use --persist systemd-networkd, which does not need its name")
}
