//! Checks that the plugin is for the node's operating system.

use super::{Correction, Finding, FindingKind, Severity, node_label, plugin::Plugin};
use crate::model::{Node, OperatingSystem};

/// Returns the operating system of the first plugin that is for only one.
pub(super) fn of(plugins: &[Plugin]) -> Option<OperatingSystem> {
    plugins.iter().find_map(Plugin::os)
}

pub(super) fn check(plugin: &Plugin, node: &Node) -> Option<Finding> {
    let os = plugin.os().filter(|os| *os != node.os)?;
    let kind = plugin.entry("type")?;
    let (plugin_os, node_os) = (os.title(), node.os.title());
    Some(Finding {
        kind: FindingKind::Platform,
        severity: Severity::Error,
        message: format!("this plugin runs on {plugin_os}, but {} runs {node_os}", node_label(node)),
        actual: Some(kind.text()),
        correction: Some(Correction::Other(match node.os {
            OperatingSystem::Linux => "use a plugin for Linux, such as bridge".to_owned(),
            OperatingSystem::Windows => {
                "use a plugin for Windows, such as win-bridge or sdnbridge".to_owned()
            }
        })),
        path: kind.path,
        at: plugin.path.clone(),
    })
}
