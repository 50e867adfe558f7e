//! One node, as the Kubernetes API describes it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value as Json;

use super::annotations::NetworkHints;
use crate::{
    config,
    model::{Family, OperatingSystem},
    text::{Untrusted, shortened},
};

/// The sources of a node's operating system, in order of precedence.
const OS_SOURCES: [&str; 3] =
    ["status.nodeInfo.operatingSystem", "label kubernetes.io/os", "label beta.kubernetes.io/os"];

/// A node of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ListedNode {
    pub name: Untrusted,
    /// The operating systems that the node claims to run, with the source of each.
    pub systems: Vec<(&'static str, OperatingSystem)>,
    /// The pod CIDRs, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
    /// The usable addresses of type InternalIP, IPv4 first.
    pub internal: Vec<IpAddr>,
    /// The addresses of other types.
    pub other_addresses: Vec<IpAddr>,
    /// The problems of addresses of type InternalIP that cannot be used.
    pub unusable: Vec<String>,
    /// The values of the annotations.
    pub hints: NetworkHints,
    /// The problem of the node.
    pub errors: Vec<String>,
}

/// A node, as a configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedNode {
    pub name: Untrusted,
    pub os: OperatingSystem,
    /// Whether the operating system is assumed, because nothing in the list says it.
    pub is_os_assumed: bool,
    /// The pod CIDRs, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
    /// At most one address per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// All addresses that the node could use.
    pub candidates: Vec<IpAddr>,
}

impl ListedNode {
    /// Reads a node.
    pub fn new(node: &Json) -> Self {
        let metadata = &node["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let mut listed =
            Self { name: name.into(), hints: NetworkHints::new(&metadata["annotations"]), ..Self::default() };
        if name.is_empty() {
            let problem = if metadata["name"].is_null() { "is missing" } else { "is not a string: quote it" };
            listed.errors.push(format!("metadata.name {problem}"));
        }
        listed.read_system(node);
        listed.read_pod_cidrs(&node["spec"]);
        listed.read_addresses(&node["status"]["addresses"]);
        listed
    }

    /// The operating system, if it is known.
    pub fn system(&self) -> Option<OperatingSystem> {
        self.systems.first().map(|(_, system)| *system)
    }

    fn read_system(&mut self, node: &Json) {
        let labels = &node["metadata"]["labels"];
        let claims = [
            &node["status"]["nodeInfo"]["operatingSystem"],
            &labels["kubernetes.io/os"],
            &labels["beta.kubernetes.io/os"],
        ];
        let mut unknown = None;
        for (source, claim) in OS_SOURCES.into_iter().zip(claims) {
            let Some(text) = claim.as_str().map(str::trim).filter(|text| !text.is_empty()) else { continue };
            match text.to_ascii_lowercase().as_str() {
                "linux" => self.systems.push((source, OperatingSystem::Linux)),
                "windows" => self.systems.push((source, OperatingSystem::Windows)),
                _ => {
                    unknown.get_or_insert_with(|| {
                        format!(
                            "{source} is {:?}, but hostgw supports only linux and windows",
                            Untrusted::from(shortened(text))
                        )
                    });
                }
            }
        }
        if self.systems.is_empty() {
            self.errors.extend(unknown);
        }
    }

    /// Reads `podCIDRs` or, if it is empty, `podCIDR`, which every version of the API has.
    fn read_pod_cidrs(&mut self, spec: &Json) {
        let several = match &spec["podCIDRs"] {
            Json::Null => &[][..],
            Json::Array(items) => items.as_slice(),
            _ => {
                self.errors.push("spec.podCIDRs is not a list".to_owned());
                return;
            }
        };
        let one = std::slice::from_ref(&spec["podCIDR"]);
        let is_given = |value: &Json| !value.is_null() && value.as_str() != Some("");
        let (key, values) =
            if several.iter().any(is_given) { ("podCIDRs", several) } else { ("podCIDR", one) };
        for value in values.iter().filter(|value| is_given(value)) {
            let text = value.as_str().map(str::trim).ok_or_else(|| "not a string".to_owned());
            match text.and_then(config::prefix) {
                Ok(prefix) => self.pod_cidrs.push(prefix),
                Err(why) => self.errors.push(format!("spec.{key}: {why}")),
            }
        }
        self.pod_cidrs.sort();
        self.pod_cidrs.dedup();
    }

    fn read_addresses(&mut self, addresses: &Json) {
        let addresses = match addresses {
            Json::Null => &[][..],
            Json::Array(items) => items.as_slice(),
            _ => {
                self.unusable.push("status.addresses is not a list".to_owned());
                return;
            }
        };
        for entry in addresses {
            let Some(text) = entry["address"].as_str().map(str::trim) else { continue };
            if entry["type"] != "InternalIP" {
                self.other_addresses.extend(text.parse::<IpAddr>());
                continue;
            }
            match config::machine_address(text) {
                Ok(address) => self.internal.push(address),
                Err(why) => self.unusable.push(why),
            }
        }
        for list in [&mut self.internal, &mut self.other_addresses] {
            list.sort();
            list.dedup();
        }
        self.unusable.sort();
        self.unusable.dedup();
    }

    /// The usable InternalIP addresses of a family.
    pub fn internal_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.internal.iter().copied().filter(move |address| Family::from(*address) == family)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_cidrs_take_precedence_over_the_older_key() {
        let read = |spec: Json| ListedNode::new(&json!({ "metadata": { "name": "n" }, "spec": spec }));
        let cidrs =
            |spec: Json| -> Vec<String> { read(spec).pod_cidrs.iter().map(ToString::to_string).collect() };
        assert_eq!(cidrs(json!({ "podCIDR": "10.1.0.0/24" })), ["10.1.0.0/24"]);
        assert_eq!(cidrs(json!({ "podCIDR": "10.1.0.0/24", "podCIDRs": [] })), ["10.1.0.0/24"]);
        assert_eq!(cidrs(json!({ "podCIDR": "10.1.0.0/24", "podCIDRs": null })), ["10.1.0.0/24"]);
        assert_eq!(
            cidrs(json!({ "podCIDR": "fd00::/64", "podCIDRs": ["fd00::/64", "10.1.0.0/24"] })),
            ["10.1.0.0/24", "fd00::/64"]
        );
        assert!(cidrs(json!({ "podCIDR": "" })).is_empty());
        for wrong in [
            json!({ "podCIDR": 5 }),
            json!({ "podCIDR": "REDACTED" }),
            json!({ "podCIDR": "10.1.0.7/24" }),
            json!({ "podCIDRs": "10.1.0.0/24" }),
            json!({ "podCIDRs": [{}] }),
        ] {
            assert_eq!(read(wrong.clone()).errors.len(), 1, "{wrong}");
        }
    }

    #[test]
    fn the_system_comes_from_the_node_itself_first() {
        let read = |info: &str, label: &str, beta: &str| {
            ListedNode::new(&json!({
                "metadata": { "name": "n", "labels": { "kubernetes.io/os": label, "beta.kubernetes.io/os": beta } },
                "status": { "nodeInfo": { "operatingSystem": info } },
            }))
        };
        let system = |info: &str, label: &str, beta: &str| read(info, label, beta).system();
        assert_eq!(system("windows", "linux", ""), Some(OperatingSystem::Windows));
        assert_eq!(system("", "windows", "linux"), Some(OperatingSystem::Windows));
        assert_eq!(system("<redacted>", "", "windows"), Some(OperatingSystem::Windows));
        assert_eq!(system("", "", ""), None);
        assert_eq!(read("", "", "").errors, Vec::<String>::new());
        assert_eq!(read("darwin", "", "").errors.len(), 1);
    }
}
