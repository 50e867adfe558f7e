//! Programs on this node that manage its interfaces, and can remove routes that they did not add.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{boot_files, doctor_files::files};
use crate::{
    diagnose::{Diagnostic, Rule},
    state::Link,
    text::{ShellCommand, Untrusted},
};

/// The configuration of systemd-networkd, and the directories of its drop-ins (networkd.conf(5)).
const NETWORKD: [&str; 4] = [
    "/etc/systemd/networkd.conf",
    "/etc/systemd/networkd.conf.d",
    "/run/systemd/networkd.conf.d",
    "/usr/lib/systemd/networkd.conf.d",
];

/// Warns if a program manages the egress interface and does not know hostgw's routes.
pub(super) fn examine(egress: Option<&Link>, node: &Untrusted) -> Vec<Diagnostic> {
    let Some(link) = egress else { return Vec::new() };
    networkd(link, node).into_iter().chain(network_manager(link, node)).collect()
}

/// Returns the command that prints the file for a program.
fn render(node: &Untrusted, program: &str) -> ShellCommand {
    ShellCommand::new(["hostgw", "render", "--node", node.as_raw(), "--persist", program])
}

/// The lines of a file that describes interface `link` in the folder of its manager.
fn state_lines(folder: &str, link: &Link) -> Vec<String> {
    let text = fs::read_to_string(format!("{folder}/{}", link.index)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn networkd(link: &Link, node: &Untrusted) -> Option<Diagnostic> {
    let is_managed = state_lines("/run/systemd/netif/links", link).iter().any(|line| {
        matches!(line.strip_prefix("ADMIN_STATE="), Some("configured" | "configuring" | "degraded"))
    });
    (is_managed && !keeps_foreign_routes()).then(|| {
        Diagnostic::new(
            Rule::NetworkdRemovesRoutes,
            format!(
                "systemd-networkd manages {}, and can remove hostgw's routes when it configures the interface",
                link.name
            ),
        )
        .with_remedy(format!(
            "have networkd add the routes, too: install the file that `{}` prints, and set ManageForeignRoutes=no under \
             [Network] in a file in /etc/systemd/networkd.conf.d",
            render(node, "systemd-networkd")
        ))
    })
}

/// Returns `true` if `ManageForeignRoutes=no` is set. The last setting applies.
fn keeps_foreign_routes() -> bool {
    let mut keeps = false;
    for place in NETWORKD.map(Path::new) {
        let found: Vec<PathBuf> = if place.is_dir() { files(place) } else { vec![place.to_owned()] };
        for file in found {
            let Ok(settings) = fs::read_to_string(&file) else { continue };
            for line in settings.lines() {
                if let Some(value) = line.trim().strip_prefix("ManageForeignRoutes=") {
                    keeps = ["no", "false", "0", "off"].contains(&value.trim().to_lowercase().as_str());
                }
            }
        }
    }
    keeps
}

/// NetworkManager removes all routes of an interface when it activates a connection. A dispatcher script adds hostgw's again.
fn network_manager(link: &Link, node: &Untrusted) -> Option<Diagnostic> {
    let lines = state_lines("/run/NetworkManager/devices", link);
    let is_managed = lines.iter().any(|line| line.starts_with("connection-uuid="));
    let is_restored = || boot_files::find().iter().any(|file| file.is_for_network_manager());
    (is_managed && !is_restored()).then(|| {
        Diagnostic::new(
            Rule::NetworkManagerRemovesRoutes,
            format!(
                "NetworkManager manages {}, and removes hostgw's routes when it activates a connection on it",
                link.name
            ),
        )
        .with_remedy(format!(
            "have a dispatcher script restore them: install the file that `{}` prints",
            render(node, "networkmanager")
        ))
    })
}
