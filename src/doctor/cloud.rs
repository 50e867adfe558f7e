//! Cloud networks, which deliver only packets for addresses that they know.

use super::{Effect, Examination, TrafficEffects, egress, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::Direction,
    model::{Family, NextHopKind},
    state::Hardware,
};

/// A cloud whose network must be configured for pod traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    Aws,
    Azure,
    Google,
    Hetzner,
    OpenStack,
}

/// The asset tag of every virtual machine in Azure.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// The models and asset tags of OpenStack and of clouds that are built on it.
const OPENSTACK: [&str; 5] =
    ["OpenStack Nova", "OpenStack Compute", "OpenTelekomCloud", "SAP CCloud VM", "HUAWEICLOUD"];

impl Cloud {
    /// Returns the cloud of a machine. The values are those that cloud-init recognizes (`DataSource*.py`).
    fn of(hardware: &Hardware) -> Option<Self> {
        let [vendor, product, tag] =
            [&hardware.vendor, &hardware.product, &hardware.asset_tag].map(|text| text.as_raw());
        Some(match () {
            () if vendor == "Amazon EC2" || tag == "Amazon EC2" => Self::Aws,
            () if tag == AZURE => Self::Azure,
            () if vendor == "Google" || product == "Google Compute Engine" => Self::Google,
            () if vendor == "Hetzner" => Self::Hetzner,
            () if OPENSTACK.contains(&product) || OPENSTACK.contains(&tag) => Self::OpenStack,
            () => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Aws => "Amazon EC2",
            Self::Azure => "Azure",
            Self::Google => "Google Cloud",
            Self::Hetzner => "Hetzner Cloud",
            Self::OpenStack => "OpenStack",
        }
    }

    /// Returns what to do so that the network delivers packets from and to pods.
    const fn cure(self) -> &'static str {
        match self {
            Self::Aws => "turn off the source/destination check of each instance",
            Self::Azure => {
                "enable IP forwarding on the network interface of each node, and add a user-defined route for each pod CIDR"
            }
            Self::Google => {
                "create each instance with canIpForward, and add a route for each pod CIDR to the VPC network"
            }
            Self::Hetzner => "add a route for each pod CIDR to the private network",
            Self::OpenStack => {
                "add the pod CIDRs to the allowed address pairs of each port, or turn off its port security"
            }
        }
    }

    /// Returns `true` if nodes share no network, so that they reach each other only through the cloud's router.
    const fn routes_between_nodes(self) -> bool {
        matches!(self, Self::Google | Self::Hetzner)
    }

    /// Returns `true` if the network never delivers packets to addresses that it did not assign, whatever its settings.
    const fn ignores_pod_gateways(self) -> bool {
        !matches!(self, Self::OpenStack)
    }
}

/// Returns the cloud whose network carries this node's packets. A virtual egress interface, such as a tunnel, uses another
/// network.
pub(super) fn of(examination: &Examination<'_>) -> Option<Cloud> {
    let is_virtual = egress(examination).is_some_and(|link| link.kind.is_some());
    examination.observed.host.machine.as_ref().filter(|_| !is_virtual).and_then(Cloud::of)
}

/// Returns what to do about a next hop that does not answer.
pub(super) fn advice(examination: &Examination<'_>) -> String {
    match of(examination) {
        Some(cloud) => format!("in {}, {}", cloud.name(), cloud.cure()),
        None => {
            "most cloud networks drop traffic to addresses that they did not assign: see `hostgw help HG1013`"
                .to_owned()
        }
    }
}

/// Reports pod gateways as next hops in a cloud whose network does not deliver packets to them.
pub(super) fn examine(examination: &Examination<'_>, effects: &mut TrafficEffects) -> Option<Diagnostic> {
    let cloud = of(examination).filter(|cloud| cloud.ignores_pod_gateways())?;
    let has_others = examination.size > 1;
    let node = examination.node();
    let is_pod_gateway = |family| examination.cluster.next_hop_of(node, family) == NextHopKind::PodGateway;
    let families: Vec<Family> = node.pods.families().filter(|family| is_pod_gateway(*family)).collect();
    if !has_others {
        return None;
    }
    families.iter().for_each(|family| effects.on_all(*family, Direction::In, Effect::Lost));
    (!families.is_empty()).then(|| {
        finding(
            Rule::CloudPodGateway,
            format!(
                "this machine runs in {}, whose network never delivers packets to pod gateways",
                cloud.name()
            ),
            match cloud.routes_between_nodes() {
                true => format!("routes between nodes have no effect there; instead, {}", cloud.cure()),
                false => format!("set nextHop: node-address and each node's address; also {}", cloud.cure()),
            },
        )
    })
}

/// Returns a note about the settings of the cloud's network, which hostgw cannot see.
pub(super) fn note(examination: &Examination<'_>) -> Option<String> {
    let cloud = of(examination)?;
    Some(format!(
        "this machine runs in {}, whose network drops pod traffic by default; hostgw cannot see its settings: {}",
        cloud.name(),
        cloud.cure()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_recognized() {
        let of = |vendor: &str, product: &str, tag: &str| {
            Cloud::of(&Hardware { vendor: vendor.into(), product: product.into(), asset_tag: tag.into() })
        };
        assert_eq!(of("Amazon EC2", "m5.large", ""), Some(Cloud::Aws));
        assert_eq!(of("Microsoft Corporation", "Virtual Machine", AZURE), Some(Cloud::Azure));
        assert_eq!(of("Microsoft Corporation", "Virtual Machine", ""), None, "Hyper-V elsewhere");
        assert_eq!(of("Google", "Google Compute Engine", ""), Some(Cloud::Google));
        assert_eq!(of("Hetzner", "vServer", ""), Some(Cloud::Hetzner));
        assert_eq!(of("OpenStack Foundation", "OpenStack Nova", ""), Some(Cloud::OpenStack));
        assert_eq!(of("QEMU", "Standard PC (Q35 + ICH9, 2009)", ""), None);
    }
}
