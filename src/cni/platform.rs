//! The plugin is one for the node's operating system.

use super::{Code, Finding, Severity, named, plugin::Plugin};
use crate::model::{Node, OperatingSystem};

/// The operating system that the plugins are for, by the first that is for one alone.
pub(super) fn of(plugins: &[Plugin]) -> Option<OperatingSystem> {
    plugins.iter().find_map(Plugin::os)
}

pub(super) fn check(plugin: &Plugin, node: &Node) -> Option<Finding> {
    let os = plugin.os().filter(|os| *os != node.os)?;
    let kind = plugin.entry("type")?;
    let (theirs, ours) = (name(os), name(node.os));
    Some(Finding {
        code: Code::Platform,
        severity: Severity::Error,
        message: format!("this plugin runs on {theirs}, {} on {ours}", named(node)),
        found: Some(kind.text()),
        wanted: None,
        path: kind.path,
        at: plugin.path.clone(),
    })
}

const fn name(os: OperatingSystem) -> &'static str {
    match os {
        OperatingSystem::Linux => "Linux",
        OperatingSystem::Windows => "Windows",
    }
}
