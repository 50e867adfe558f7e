//! Recognizes the programs that set up the routes, rules and chains of a node.

use super::iptables::IptablesRule;
use crate::state::{FirewallChain, PLUGIN_CHAINS, PLUGIN_INTERFACES};

/// What the `bridge` plugin is called here: it creates a chain for each pod if its `ipMasq` is true.
pub(super) const BRIDGE_PLUGIN: &str = "the bridge plugin";

/// The beginnings of the names of further chains.
const MORE_CHAINS: [(&str, &str); 3] =
    [("IP-MASQ-AGENT", "ip-masq-agent"), ("KUBE-NWPLCY-", "kube-router"), ("KUBE-POD-FW-", "kube-router")];

/// The beginnings of the comments of rules.
const COMMENTS: [(&str, &str); 3] =
    [("cali:", "Calico"), ("flanneld ", "flannel"), ("kube-router ", "kube-router")];

/// The beginnings of the names of sets.
const SETS: [(&str, &str); 4] = [
    ("cali40", "Calico"),
    ("cali60", "Calico"),
    ("inet6:kube-router-", "kube-router"),
    ("kube-router-", "kube-router"),
];

/// The ends of the names of sets that contain all pods.
const POD_SETS: [&str; 3] = ["all-ipam-pools", "masq-ipam-pools", "pod-subnets"];

/// The comments of kube-router's rules about the bridge to the pods.
const BRIDGE_COMMENTS: [&str; 2] = ["allow inbound traffic to pods", "allow outbound traffic from pods"];

/// The bridge of kube-router.
const KUBE_BRIDGE: &str = "kube-bridge";

/// The beginnings of the names of nftables tables that belong to one program as a whole.
const TABLES: [(&str, &str); 2] = [("calico", "Calico"), ("flannel-", "flannel")];

/// The kinds of interfaces that encapsulate packets.
const TUNNELS: [&str; 11] =
    ["geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ip6tnl", "ipip", "sit", "tun", "vxlan", "wireguard"];

fn find(starts: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    starts.iter().find(|(start, _)| name.starts_with(start)).map(|(_, plugin)| *plugin)
}

/// The program that created a chain.
pub(super) fn of_chain(name: &str) -> Option<&'static str> {
    // The names of the bridge plugin end with a part of a hash; those of the portmap plugin do not.
    let is_hash = |text: &str| text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if name.strip_prefix("CNI-").is_some_and(is_hash) {
        return Some(BRIDGE_PLUGIN);
    }
    find(&PLUGIN_CHAINS, name).or_else(|| find(&MORE_CHAINS, name))
}

/// The program that created a set.
pub(super) fn of_set(name: &str) -> Option<&'static str> {
    find(&SETS, name)
}

/// Whether a set contains all pods.
pub(super) fn contains_pods(name: &str) -> bool {
    of_set(name).is_some() && POD_SETS.iter().any(|end| name.ends_with(end))
}

/// The program that created a whole table of nftables.
pub(super) fn of_table(name: &str) -> Option<&'static str> {
    find(&TABLES, name)
}

/// Whether a chain is one of kube-proxy, which masquerades some packets to services.
pub(super) fn is_kube_proxy(chain: &FirewallChain) -> bool {
    chain.table == "kube-proxy"
        || chain.name.as_raw().starts_with("KUBE-") && of_chain(chain.name.as_raw()).is_none()
}

/// Whether a program adds routes to the pods of other nodes.
pub(super) fn adds_routes(plugin: &str) -> bool {
    ["Calico", "flannel", "kube-router"].contains(&plugin)
}

/// The program that created a rule.
pub(super) fn of_rule(rule: &IptablesRule) -> Option<&'static str> {
    of_chain(&rule.chain)
        .or_else(|| of_chain(rule.target()?))
        .or_else(|| rule.comments().find_map(|comment| find(&COMMENTS, comment)))
        .or_else(|| rule.sets().find_map(of_set))
        .or_else(|| is_about_kube_bridge(rule).then_some("kube-router"))
}

/// Whether a rule accepts packets of the bridge of kube-router, as kube-router adds it.
fn is_about_kube_bridge(rule: &IptablesRule) -> bool {
    let is_of_bridge = ["-i", "-o"].into_iter().any(|option| rule.value(option) == Some(KUBE_BRIDGE));
    is_of_bridge && rule.comments().any(|comment| BRIDGE_COMMENTS.contains(&comment))
}

/// The program that created an interface through which packets leave encapsulated, or its kind.
pub(super) fn of_tunnel<'a>(name: &str, kind: Option<&'a str>) -> Option<&'a str> {
    find(&PLUGIN_INTERFACES, name).or_else(|| kind.filter(|kind| TUNNELS.contains(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_other_programs_are_not_taken_for_those_of_plugins() {
        for (name, plugin) in [
            ("FLANNEL-POSTRTG", Some("flannel")),
            ("cali-POSTROUTING", Some("Calico")),
            ("KUBE-POD-FW-ABCDEFGHIJKLMNOP", Some("kube-router")),
            ("CNI-0123456789abcdef01234567", Some(BRIDGE_PLUGIN)),
            ("CNI-HOSTPORT-SETMARK", None),
            ("CNI-DN-0123456789abcdef01234", None),
            ("KUBE-POSTROUTING", None),
            ("KUBE-FORWARD", None),
            ("DOCKER", None),
        ] {
            assert_eq!(of_chain(name), plugin, "{name}");
        }
    }
}
