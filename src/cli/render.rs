//! `hostgw render`

use super::{
    Verdict,
    arguments::{Persist, RenderOptions},
    occasion::hash,
    output::Output,
    session::{Loaded, load},
};
use crate::{
    error::{Error, Kind},
    model::OperatingSystem,
    plan::{self, Saved},
    render::{self, Facts},
};

/// Prints a script for a node, or a file that keeps its state over a restart.
pub(super) fn run(options: &RenderOptions, output: &Output) -> Verdict {
    let Loaded { document, cluster } = load(options.file.as_deref())?;
    let index = plan::node_named(&cluster, &options.node)?;
    let hash = hash(document.bytes());
    let facts = Facts { file: document.name(), config_hash: &hash };
    let os = cluster.nodes[index].os;
    let text = match (plan::windows_desired(&cluster, index), options.persist) {
        (Some(_), Some(_)) => return Err(wrong("--persist is for Linux nodes", &options.node, os).into()),
        (Some(_), None) if options.collect => render::windows_collector(&cluster, index, &facts),
        (Some(desired), None) => render::windows_script(&cluster, index, &desired, &facts),
        (None, _) if options.collect => {
            return Err(wrong("--collect is for Windows nodes", &options.node, os)
                .with_hint("hostgw snapshot prints what stands on a Linux node")
                .into());
        }
        (None, persist) => {
            let desired = plan::desired(&cluster, index, &Saved::default()).map_err(|plan::NotLinux| {
                Error::unexpected(format!("node {} is of no system", options.node))
            })?;
            match persist {
                None => render::linux_script(&cluster, index, &desired, &facts),
                Some(kind) => render::persisted(&cluster, index, &desired, &facts, kind.into()),
            }
        }
    };
    output.result(&text)?;
    Ok(0)
}

fn wrong(what: &str, node: &str, os: OperatingSystem) -> Error {
    Error::new(Kind::Usage, format!("{what}, and {node} runs {os}"))
}

impl From<Persist> for render::Persist {
    fn from(kind: Persist) -> Self {
        match kind {
            Persist::SystemdNetworkd => Self::SystemdNetworkd,
            Persist::Ifupdown => Self::Ifupdown,
            Persist::Netplan => Self::Netplan,
            Persist::Nftables => Self::Nftables,
            Persist::SysctlD => Self::SysctlD,
        }
    }
}
