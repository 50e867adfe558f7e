//! Reads the annotations that distributions and network plugins write on the nodes of a cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value as Json;

/// The cluster's network according to the annotations of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetworkHints {
    /// The arguments of the k3s or RKE2 server on this node.
    pub server: Option<ServerArguments>,
    /// The state of flannel on this node.
    pub flannel: Option<Flannel>,
    /// Another program that assigns the addresses of pods.
    pub assigner: Option<Assigner>,
}

/// The arguments of a server of k3s or RKE2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerArguments {
    pub distribution: &'static str,
    /// The values of `--cluster-cidr`; empty if it was not given.
    pub cluster_cidrs: Vec<String>,
}

/// The state of flannel on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flannel {
    /// The backend, such as `host-gw` or `vxlan`.
    pub backend: String,
    /// The addresses that other nodes use as next hops or tunnel endpoints.
    pub public: Vec<IpAddr>,
}

/// A program that assigns the addresses of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assigner {
    pub name: &'static str,
    /// The pod CIDRs that the program uses on this node; empty if the annotations do not say.
    pub pod_cidrs: Vec<IpNet>,
}

impl NetworkHints {
    /// Reads the annotations of a node.
    pub fn new(annotations: &Json) -> Self {
        let text = |key: &str| annotations.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let servers = [("k3s", "k3s.io/node-args"), ("RKE2", "rke2.io/node-args")];
        let server = servers
            .into_iter()
            .find_map(|(distribution, key)| ServerArguments::new(distribution, text(key)?));
        let flannel = text("flannel.alpha.coreos.com/backend-type").map(|backend| {
            let keys = ["public-ip", "public-ipv6"].map(|key| format!("flannel.alpha.coreos.com/{key}"));
            let public = keys.iter().filter_map(|key| text(key)?.parse().ok()).collect();
            Flannel { backend: backend.to_owned(), public }
        });
        Self { server, flannel, assigner: assigner(&text) }
    }
}

impl ServerArguments {
    /// Reads the arguments of a process, a JSON list. Returns `None` if it is not a server.
    fn new(distribution: &'static str, arguments: &str) -> Option<Self> {
        const OPTION: &str = "--cluster-cidr";
        let arguments: Vec<String> = serde_json::from_str(arguments).ok()?;
        (arguments.first()? == "server").then_some(())?;
        let mut cluster_cidrs = Vec::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = match word.strip_prefix(OPTION) {
                Some("") => words.next().map(String::as_str),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            let values = value.unwrap_or_default().split(',').map(str::trim);
            cluster_cidrs.extend(values.filter(|value| !value.is_empty()).map(ToOwned::to_owned));
        }
        cluster_cidrs.sort();
        cluster_cidrs.dedup();
        Some(Self { distribution, cluster_cidrs })
    }
}

/// Finds a program that assigns pod addresses and does not have to follow `spec.podCIDRs`.
fn assigner<'a>(text: &impl Fn(&str) -> Option<&'a str>) -> Option<Assigner> {
    let prefixes = |keys: &[&str]| -> Vec<IpNet> {
        let values = keys.iter().filter_map(|key| text(key)).flat_map(|value| value.split(','));
        let mut prefixes: Vec<IpNet> = values.filter_map(|value| value.trim().parse().ok()).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    };
    let known = [
        (
            "Cilium",
            &[
                "network.cilium.io/ipv4-pod-cidr",
                "network.cilium.io/ipv6-pod-cidr",
                "io.cilium.network.ipv4-pod-cidr",
                "io.cilium.network.ipv6-pod-cidr",
            ][..],
        ),
        ("kube-router", &["kube-router.io/pod-cidr", "kube-router.io/pod-cidrs"]),
    ];
    for (name, keys) in known {
        let pod_cidrs = prefixes(keys);
        if !pod_cidrs.is_empty() {
            return Some(Assigner { name, pod_cidrs });
        }
    }
    // Canal: Calico for policies, flannel for addresses.
    if text("flannel.alpha.coreos.com/backend-type").is_some() {
        return None;
    }
    let is_calico = ["projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address"]
        .iter()
        .any(|key| text(key).is_some());
    is_calico.then_some(Assigner { name: "Calico", pod_cidrs: Vec::new() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster_cidrs(arguments: &str) -> Option<Vec<String>> {
        let annotations = json!({ "k3s.io/node-args": arguments });
        NetworkHints::new(&annotations).server.map(|server| server.cluster_cidrs)
    }

    #[test]
    fn the_cluster_cidr_of_a_server_is_found_in_both_forms() {
        let found = |arguments: &str| cluster_cidrs(arguments).unwrap_or_else(|| vec!["-".to_owned()]);
        assert_eq!(found(r#"["server","--cluster-cidr","10.42.0.0/16"]"#), ["10.42.0.0/16"]);
        assert_eq!(
            found(r#"["server","--cluster-cidr=10.42.0.0/16,2001:cafe:42:0::/56","--tls-san","x"]"#),
            ["10.42.0.0/16", "2001:cafe:42:0::/56"]
        );
        assert_eq!(
            found(r#"["server","--cluster-cidr","10.42.0.0/16","--cluster-cidr","fd00::/56"]"#),
            ["10.42.0.0/16", "fd00::/56"]
        );
        assert!(found(r#"["server","--cluster-cidr-x","10.42.0.0/16"]"#).is_empty());
        assert!(found(r#"["server","--cluster-cidr"]"#).is_empty());
        for other in [r#"["agent","--cluster-cidr","10.42.0.0/16"]"#, "[]", "server", r#"[1]"#, "{"] {
            assert_eq!(cluster_cidrs(other), None, "{other}");
        }
    }
}
