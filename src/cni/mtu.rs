//! Checks that pods do not send larger packets than `routes.mtu`, or the node's own `mtu`, allows.

use super::{Correction, Finding, FindingKind, Severity, plugin::Plugin};
use crate::model::{Cluster, Node};

/// The MTU of Ethernet (RFC 894), which is the default of a veth.
const ETHERNET: u64 = 1500;

pub(super) fn check(plugin: &Plugin, node: Option<&Node>, cluster: &Cluster) -> Option<Finding> {
    let expected = u64::from(node.map_or(cluster.routes.mtu, |node| cluster.mtu_of(node))?);
    let key = if node.is_some_and(|node| node.mtu().is_some()) { "the node's mtu" } else { "routes.mtu" };
    let entry = plugin.entry("mtu");
    let makes_interfaces = ["bridge", "ptp"].contains(&plugin.kind()?.as_str()) && !plugin.is_delegate;
    // 0 selects the kernel's default.
    let given = entry.as_ref().map(|entry| entry.value.as_u64()).filter(|mtu| *mtu != Some(0));
    let (severity, message) = match given {
        Some(None) => (Severity::Error, "the MTU is not a number".to_owned()),
        Some(Some(mtu)) if mtu > expected => {
            (Severity::Error, format!("larger than {key} ({expected}): pods send packets that are too large"))
        }
        Some(Some(mtu)) if mtu < expected => (
            Severity::Warning,
            format!("smaller than {key} ({expected}): pods send smaller packets than necessary"),
        ),
        None if makes_interfaces && expected < ETHERNET => (
            Severity::Error,
            format!(
                "the default MTU, {ETHERNET}, is larger than {key} ({expected}): pods send packets that are too large"
            ),
        ),
        _ => return None,
    };
    Some(Finding {
        kind: FindingKind::Mtu,
        severity,
        path: entry.as_ref().map_or_else(|| plugin.path.key("mtu"), |entry| entry.path.clone()),
        at: plugin.path.clone(),
        actual: entry.map(|entry| entry.text()),
        correction: Some(Correction::Set(expected.to_string())),
        message,
    })
}
