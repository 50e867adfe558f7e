//! Checks that a Linux plugin does not masquerade traffic inside the cluster.
//!
//! The chain that `ipMasq` creates accepts traffic to the node's own pod CIDR and masquerades all other traffic of its
//! pods. Pods of other nodes then see the node's address.

use super::{Correction, Finding, FindingKind, Severity, plugin::Plugin};

pub(super) fn check(plugin: &Plugin) -> Option<Finding> {
    let entry = plugin.entry("ipMasq").filter(|_| plugin.is_true("ipMasq"))?;
    Some(Finding {
        kind: FindingKind::IpMasq,
        severity: Severity::Error,
        actual: Some(entry.text()),
        correction: Some(Correction::Set("false".to_owned())),
        path: entry.path,
        at: plugin.path.clone(),
        message: "pods on other nodes see this node's address instead of the pod's; \
                  hostgw masquerades only traffic that leaves the cluster"
            .to_owned(),
    })
}
