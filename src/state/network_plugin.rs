//! The marks by which the routes, interfaces and chains of network plugins are recognized.

/// The plugins that mark their routes with a protocol of their own.
pub const PLUGIN_PROTOCOLS: [(u8, &str); 2] = [(17, "kube-router"), (80, "Calico")];

/// The beginnings of the names of interfaces that plugins create to reach other nodes.
pub const PLUGIN_INTERFACES: [(&str, &str); 8] = [
    ("antrea-gw", "Antrea"),
    ("cilium_", "Cilium"),
    ("flannel", "flannel"),
    ("ovn-k8s-", "OVN-Kubernetes"),
    ("tunl0", "Calico"),
    ("vxlan.calico", "Calico"),
    ("weave", "Weave Net"),
    ("wireguard.cali", "Calico"),
];

/// The beginnings of the names of chains that plugins create.
pub const PLUGIN_CHAINS: [(&str, &str); 6] = [
    ("ANTREA-", "Antrea"),
    ("CILIUM_", "Cilium"),
    ("FLANNEL-", "flannel"),
    ("KUBE-ROUTER-", "kube-router"),
    ("WEAVE-", "Weave Net"),
    ("cali-", "Calico"),
];
