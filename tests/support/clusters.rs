//! Random small clusters. Pairs of them have much in common, like two revisions of a file.

use std::fmt::Write as _;

use hostgw::{
    config::{self, Document, Format},
    model::Cluster,
};
use proptest::prelude::*;

/// A compact description of a cluster. All combinations of its values are valid.
#[derive(Debug, Clone)]
pub struct Spec {
    options: Options,
    nodes: Vec<NodeSpec>,
}

/// The options that apply to all nodes.
#[derive(Debug, Clone)]
struct Options {
    /// 0: IPv4; 1: both families; 2: IPv4 in a wider prefix, with the usual one as a pod CIDR; 3: two IPv4 prefixes.
    layout: u8,
    node_address: bool,
    egress: u8,
    masquerade: bool,
    pods: bool,
    random_fully: bool,
    exclude: u8,
    sysctls: [Option<bool>; 5],
    table: bool,
    metric: bool,
    mtu: bool,
    master: Option<u8>,
    router: Option<u8>,
    unreachable: bool,
    own_source: bool,
    source_nat: bool,
}

#[derive(Debug, Clone)]
struct NodeSpec {
    name: usize,
    cidr: usize,
    address: usize,
    has_address: bool,
    families: u8,
    windows: bool,
    other_gateway: bool,
    egress: Option<u8>,
    default_gateway: Option<u8>,
    podless: bool,
    /// Further pod CIDRs: 1: in the first prefix; 2: in the last prefix; 3: in both.
    more: u8,
    /// 0: node-address; 1: pod-gateway; 2 and 3: a router.
    next_hop: Option<u8>,
    mtu: Option<u32>,
}

const SYSCTLS: [&str; 5] = [
    "net.ipv4.conf.all.rp_filter",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.eth0.disable_ipv6",
    "net.ipv6.conf.eth0.accept_ra",
    "net.ipv4.conf.all.accept_redirects",
];

fn options() -> impl Strategy<Value = Options> {
    let sysctls = prop::array::uniform5(prop::option::weighted(0.3, any::<bool>()));
    let flags = prop::array::uniform8(prop::bool::weighted(0.3));
    let master = prop::option::weighted(0.5, 0_u8..3);
    let router = prop::option::weighted(0.2, 0_u8..2);
    let more_flags = prop::array::uniform3(prop::bool::weighted(0.3));
    (0_u8..4, 0_u8..2, 0_u8..4, sysctls, flags, master, router, more_flags).prop_map(
        |(layout, egress, exclude, sysctls, flags, master, router, [unreachable, own_source, source_nat])| {
            Options {
                router,
                unreachable,
                own_source,
                source_nat,
                layout,
                egress,
                exclude,
                sysctls,
                node_address: flags[0],
                masquerade: !flags[1],
                pods: flags[2] || flags[3],
                random_fully: flags[4],
                table: flags[5],
                metric: flags[6],
                mtu: flags[7],
                master,
            }
        },
    )
}

fn nodes() -> impl Strategy<Value = Vec<NodeSpec>> {
    const MAX_NODES: usize = 6;
    let order = || Just((0..MAX_NODES).collect::<Vec<usize>>()).prop_shuffle();
    // Most often, the n-th name has the n-th pod CIDR and the n-th address.
    let usual = || prop_oneof![3 => Just((0..MAX_NODES).collect::<Vec<usize>>()), 2 => order()];
    let kinds = (
        prop::bool::weighted(0.7),
        0_u8..4,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0_u8..3),
        prop::option::weighted(0.5, 0_u8..2),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.2, 0_u8..4),
        (
            prop_oneof![2 => Just(0), 1 => 1_u8..4],
            prop::option::weighted(0.2, prop::sample::select(vec![1300_u32, 1500, 9000])),
        ),
    );
    let kinds = prop::collection::vec(kinds, MAX_NODES);
    (order(), usual(), usual(), kinds, 1..=MAX_NODES).prop_map(|(names, cidrs, addresses, kinds, count)| {
        let node = |name: usize| {
            let (
                has_address,
                families,
                windows,
                other_gateway,
                egress,
                default_gateway,
                podless,
                next_hop,
                (more, mtu),
            ) = kinds[name];
            NodeSpec {
                name,
                cidr: cidrs[name],
                address: addresses[name],
                has_address,
                families,
                windows,
                other_gateway,
                egress,
                default_gateway,
                podless,
                more,
                next_hop,
                mtu,
            }
        };
        names.into_iter().take(count).map(node).collect()
    })
}

/// Two clusters, which often have the same options or the same nodes.
pub fn two() -> impl Strategy<Value = (Cluster, Cluster)> {
    let options =
        prop_oneof![options().prop_map(|options| (options.clone(), options)), (options(), options()),];
    let nodes = prop_oneof![1 => nodes().prop_map(|nodes| (nodes.clone(), nodes)), 3 => (nodes(), nodes())];
    (options, nodes).prop_map(|((first, second), (before, after))| {
        let cluster = |options, nodes| Spec { options, nodes }.cluster();
        (cluster(first, before), cluster(second, after))
    })
}

/// A router, in one or both families.
fn router_of(number: u8, is_dual: bool) -> String {
    match is_dual && number % 2 == 1 {
        true => format!("[172.30.0.{}, 'fd00:1::{}']", 100 + number, 100 + number),
        false => format!("172.30.0.{}", 100 + number),
    }
}

impl Spec {
    fn cluster(&self) -> Cluster {
        let text = self.text();
        let document = Document::new("generated.yaml", text.clone(), Format::Yaml);
        config::load(&document).unwrap_or_else(|invalid| panic!("{}\n{text}", invalid.render(false)))
    }

    fn text(&self) -> String {
        let options = &self.options;
        let mut text = String::new();
        let prefix = [
            "10.244.0.0/16",
            "[10.244.0.0/16, fd00:244::/48]",
            "10.240.0.0/12",
            "[10.244.0.0/16, 10.250.0.0/16]",
        ];
        let _ = writeln!(text, "clusterPrefix: {}", prefix[usize::from(options.layout)]);
        let _ = writeln!(text, "egressInterface: eth{}", options.egress);
        if let Some(router) = options.router {
            let _ = writeln!(text, "nextHop: {}", router_of(router, options.layout == 1));
        } else if options.node_address {
            text += "nextHop: node-address\n";
        }
        if let Some(master) = options.master {
            let v6 = options.layout == 1 && master == 2;
            let master = if v6 { "fd00:1::1".to_owned() } else { format!("172.30.0.{}", master + 1) };
            let _ = writeln!(text, "masterAddress: '{master}'");
        }
        let exclude = ["[]", "[192.168.0.0/16]", "[192.168.0.0/16, 172.16.0.0/12]", "[172.16.0.0/12]"];
        let _ = writeln!(
            text,
            "nat: {{masquerade: {}, source: {}, randomFully: {}, exclude: {}, to: {}}}",
            options.masquerade,
            if options.pods { "pods" } else { "any" },
            options.random_fully,
            exclude[usize::from(options.exclude)],
            if options.source_nat { "node-address" } else { "interface" }
        );
        let _ = writeln!(
            text,
            "routes: {{table: {}, metric: {}{}{}{}}}",
            if options.table { "100" } else { "main" },
            if options.metric { 50 } else { 0 },
            if options.mtu { ", mtu: 1400" } else { "" },
            if options.unreachable { ", unassigned: unreachable" } else { "" },
            if options.own_source { ", source: node-address" } else { "" }
        );
        text += "sysctls:\n";
        for (key, value) in SYSCTLS.iter().zip(options.sysctls) {
            if let Some(value) = value {
                let _ = writeln!(text, "  {key}: {}", u8::from(value));
            }
        }
        if options.sysctls.iter().all(Option::is_none) {
            text += "  {}\n";
        }
        text += "nodes:\n";
        for node in &self.nodes {
            self.node(node, &mut text);
        }
        text
    }

    fn node(&self, node: &NodeSpec, text: &mut String) {
        let NodeSpec { cidr, address, .. } = node;
        let v4 = match (self.options.layout, cidr, self.nodes.len()) {
            // A single node may have the entire cluster prefix.
            (0, 0, 1) => "10.244.0.0/16".to_owned(),
            (2, 0, _) => "10.244.0.0/16".to_owned(),
            (2, ..) => format!("10.241.{cidr}.0/24"),
            _ => format!("10.244.{cidr}.0/24"),
        };
        let dual = self.options.layout == 1;
        let (has_v4, has_v6) = (!dual || node.families != 1, dual && node.families != 0);
        let quoted = |values: &[(bool, String)]| {
            let values = values.iter().filter(|(has, _)| *has).map(|(_, value)| format!("\"{value}\""));
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        };
        let list_of =
            |[has_v4, has_v6]: [bool; 2], v4: String, v6: String| quoted(&[(has_v4, v4), (has_v6, v6)]);
        // The whole prefix has no room for more.
        let has_more = |number: u8| node.more & number != 0 && !v4.ends_with("/16");
        let os = if node.windows { "windows" } else { "linux" };
        let _ = writeln!(text, "  - name: n{}\n    os: {os}", node.name);
        let first = match self.options.layout {
            2 => format!("10.242.{cidr}.0/25"),
            _ => format!("10.244.{}.0/25", 100 + cidr),
        };
        let cidrs = quoted(&[
            (has_v4 && has_more(1), first),
            (has_v4, v4.clone()),
            (has_v4 && self.options.layout == 3 && has_more(2), format!("10.250.{cidr}.0/24")),
            (has_v6, format!("fd00:244:0:{cidr}::/64")),
            (has_v6 && has_more(2), format!("fd00:244:0:{}::/64", 100 + cidr)),
        ]);
        let cidrs = if node.podless { "none".to_owned() } else { cidrs };
        let _ = writeln!(text, "    podCIDR: {cidrs}");
        if let Some(next_hop) = node.next_hop.filter(|_| !node.podless) {
            let next_hop = match next_hop {
                0 => "node-address".to_owned(),
                1 => "pod-gateway".to_owned(),
                router => router_of(router, dual && has_v6),
            };
            let _ = writeln!(text, "    nextHop: {next_hop}");
        }
        let own_source = self.options.own_source;
        if node.has_address
            || node.windows
            || self.options.node_address
            || node.next_hop == Some(0)
            || own_source
            || self.options.source_nat
        {
            let families = [has_v4 || own_source, has_v6 || (own_source && dual)];
            let (v4, v6) = (format!("172.30.0.{}", address + 1), format!("fd00:1::{}", address + 1));
            let _ = writeln!(text, "    address: {}", list_of(families, v4, v6));
        }
        if node.other_gateway && has_v4 && !node.podless {
            let base = match (self.options.layout, cidr) {
                (2, 0) => "10.244.0".to_owned(),
                (2, _) => format!("10.241.{cidr}"),
                _ => format!("10.244.{cidr}"),
            };
            let _ = writeln!(text, "    gateway: {base}.9");
        }
        if let Some(gateway) = node.default_gateway.filter(|_| node.windows) {
            let _ = writeln!(text, "    defaultGateway: 172.30.0.{}", 200 + gateway);
        }
        if let Some(mtu) = node.mtu {
            let _ = writeln!(text, "    mtu: {mtu}");
        }
        if let Some(egress) = node.egress {
            let _ = writeln!(text, "    egressInterface: eth{egress}");
        }
    }
}
