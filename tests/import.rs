//! Properties of `hostgw import`, for any list and any way to write a configuration.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use hostgw::{
    config::{self, Document, Format, Loaded, outline},
    import::{self, ImportOptions, NodeChangeKind, NodeList, UpdateOptions},
    model::{NextHopMode, OperatingSystem},
};
use proptest::{prelude::*, sample::select};
use serde_json::{Value as Json, json};

/// A node as a test describes it.
#[derive(Debug, Clone)]
struct Sample {
    name: String,
    windows: bool,
    cidrs: Vec<String>,
    addresses: Vec<(&'static str, String)>,
    /// Where the operating system is: in `nodeInfo`, in a label, in the older label.
    systems: [bool; 3],
    annotations: Vec<(&'static str, &'static str)>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let name = (0_u8..30, select(vec!["node-", "n", "ip-10-0-0-", "0x", "", "Node-"]))
        .prop_map(|(number, prefix)| format!("{prefix}{number}"));
    let addresses = prop::collection::vec(
        (
            select(vec!["InternalIP", "InternalIP", "InternalIP", "ExternalIP", "Hostname"]),
            select(vec!["172.30.0.", "172.30.8.", "10.0.2.", "fd00::", "192.168.7.", "0.1.2.", "x"]),
            0_u8..200,
        )
            .prop_map(|(kind, network, last)| (kind, format!("{network}{last}"))),
        0..4,
    );
    let annotations = prop::collection::vec(
        select(vec![
            ("flannel.alpha.coreos.com/backend-type", "host-gw"),
            ("flannel.alpha.coreos.com/backend-type", "vxlan"),
            ("flannel.alpha.coreos.com/public-ip", "172.30.0.7"),
            ("k3s.io/node-args", "[\"server\",\"--cluster-cidr\",\"10.42.0.0/16\"]"),
            ("k3s.io/node-args", "[\"server\"]"),
            ("rke2.io/node-args", "[\"server\",\"--cluster-cidr=10.0.0.0/8\"]"),
            ("projectcalico.org/IPv4Address", "172.30.0.7/24"),
            ("network.cilium.io/ipv4-pod-cidr", "10.42.3.0/24"),
        ]),
        0..3,
    );
    (name, any::<bool>(), 0_u8..60, 0_u8..8, addresses, any::<[bool; 3]>(), annotations).prop_map(
        |(name, windows, third, kind, addresses, systems, annotations)| Sample {
            name,
            windows,
            cidrs: match kind {
                0 => vec![],
                1 => vec![format!("fd00:42:0:{third}::/64")],
                2 | 3 => vec![format!("fd00:42:0:{third}::/64"), format!("10.42.{third}.0/24")],
                _ => vec![format!("10.42.{third}.0/24")],
            },
            addresses,
            systems,
            annotations,
        },
    )
}

impl Sample {
    fn json(&self) -> Json {
        let system = if self.windows { "windows" } else { "linux" };
        let mut labels = serde_json::Map::new();
        for (is_set, label) in self.systems[1..].iter().zip(["kubernetes.io/os", "beta.kubernetes.io/os"]) {
            if *is_set {
                labels.insert(label.to_owned(), system.into());
            }
        }
        let info = if self.systems[0] { json!({ "operatingSystem": system }) } else { json!({}) };
        let annotations: serde_json::Map<String, Json> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let addresses: Vec<Json> = self
            .addresses
            .iter()
            .map(|(kind, address)| json!({ "type": kind, "address": address }))
            .collect();
        let mut spec = json!({ "podCIDRs": self.cidrs });
        if let Some(first) = self.cidrs.first() {
            spec["podCIDR"] = first.as_str().into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name, "labels": labels, "annotations": annotations },
            "spec": spec,
            "status": { "addresses": addresses, "nodeInfo": info },
        })
    }
}

fn listed(nodes: &[Json]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": nodes }).to_string()
}

fn options(format: Format) -> ImportOptions {
    ImportOptions {
        format,
        cluster_prefixes: Vec::new(),
        egress_interface: None,
        next_hop: None,
        all: false,
        strict: false,
    }
}

fn loaded(text: &str, format: Format) -> Loaded {
    let document = Document::new("hostgw", text.to_owned(), format);
    Loaded::new(document).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"))
}

/// Imports a list. Fails only with messages.
fn imported(list: &str, options: &ImportOptions) -> Result<(String, Vec<String>), Vec<String>> {
    let messages = |found: Vec<hostgw::diagnose::Diagnostic>| -> Vec<String> {
        found.into_iter().map(|finding| format!("{} {}", finding.rule, finding.message)).collect()
    };
    let in_parts = import::is_json(list.as_bytes()).then(|| NodeList::read_json(list.as_bytes()));
    let list = NodeList::read(list).map_err(|error| messages(vec![error]))?;
    let imported = import::import(list, options).map_err(messages)?;
    if let Some(Ok(list)) = in_parts {
        let again = import::import(list, options).map_err(messages)?;
        assert_eq!(again.text, imported.text);
    }
    Ok((imported.text, messages(imported.findings)))
}

/// Updates a text with a list. Returns the text and the number of changes.
fn updated(text: &str, format: Format, list: &str) -> Result<(String, usize), String> {
    let list = NodeList::read(list).map_err(|error| error.to_string())?;
    let updated = import::update(&loaded(text, format), list, &UpdateOptions::default());
    let updated = updated.map_err(|errors| {
        errors.iter().map(|error| format!("{} {error}\n", error.rule)).collect::<String>()
    })?;
    Ok((updated.text, updated.changes.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every list is refused with a message, or imported to a valid configuration that a second import does not change.
    #[test]
    fn an_imported_list_is_valid_and_stable(
        samples in prop::collection::vec(sample(), 0..7),
        shuffled in any::<prop::sample::Index>(),
        toml in any::<bool>(),
        prefix in any::<bool>(),
    ) {
        let format = if toml { Format::Toml } else { Format::Yaml };
        let mut options = options(format);
        if prefix {
            options.cluster_prefixes = vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/48".parse().unwrap()];
        }
        let nodes: Vec<Json> = samples.iter().map(Sample::json).collect();
        let first = imported(&listed(&nodes), &options);
        match &first {
            Err(messages) => prop_assert!(!messages.is_empty() && messages.iter().all(|it| it.len() > 20), "{messages:?}"),
            Ok((text, _)) => {
                loaded(text, format);
                let again = updated(text, format, &listed(&nodes)).unwrap();
                prop_assert_eq!(&again, &(text.clone(), 0));
            }
        }
        // The same list in another order, and in YAML.
        let mut moved = samples;
        if !moved.is_empty() {
            let by = shuffled.index(moved.len());
            moved.rotate_left(by);
        }
        for sample in &mut moved {
            sample.addresses.reverse();
            sample.cidrs.reverse();
        }
        let moved: Vec<Json> = moved.iter().map(Sample::json).collect();
        let yaml = serde_yaml::to_string(&json!({ "items": moved })).unwrap();
        prop_assert_eq!(&imported(&yaml, &options).map(|(text, _)| text).ok(), &first.clone().map(|(text, _)| text).ok());
        prop_assert_eq!(imported(&listed(&moved), &options), first);
    }

    /// Whatever a list contains, nothing panics.
    #[test]
    fn a_damaged_list_is_refused_or_imported(
        samples in prop::collection::vec(sample(), 1..4),
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut list = json!({ "kind": "List", "items": samples.iter().map(Sample::json).collect::<Vec<_>>() });
        for (at, value) in damages {
            let mut places = Vec::new();
            pointers(&list, String::new(), &mut places);
            let place = &places[at.index(places.len())];
            *list.pointer_mut(place).unwrap() = value;
        }
        let text = list.to_string();
        let yaml = serde_yaml::to_string(&list).unwrap();
        for text in [&text, &yaml] {
            if let Ok((imported, _)) = imported(text, &options(Format::Yaml)) {
                loaded(&imported, Format::Yaml);
            }
        }
        let cut = text.char_indices().nth(cut.index(text.chars().count())).unwrap().0;
        let _ = imported(&text[..cut], &options(Format::Yaml));
    }

    /// However a configuration is written, an update changes its nodes only, and keeps comments.
    #[test]
    fn an_update_keeps_everything_else(
        before in prop::collection::btree_map(0_u8..20, 0_u8..60, 1..7),
        after in prop::collection::btree_map(0_u8..20, 0_u8..60, 1..7),
        layout in layout(),
    ) {
        let before: Vec<(u8, u8)> = layout.ordered(before.into_iter().collect());
        let after: Vec<(u8, u8)> = after.into_iter().collect();
        let text = layout.write(&before);
        let format = layout.format();
        // Pod CIDRs may be used twice.
        let document = Document::new("hostgw", text.clone(), format);
        prop_assume!(config::load(&document).is_ok());
        let nodes: Vec<Json> = after.iter().map(|(name, third)| json!({
            "metadata": { "name": format!("n-{name}") },
            "spec": { "podCIDR": format!("10.42.{third}.0/24") },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": format!("172.30.0.{}", name + 1) }],
                "nodeInfo": { "operatingSystem": "linux" },
            },
        })).collect();
        let list = listed(&nodes);
        let (new, changes) = match updated(&text, format, &list) {
            Ok(updated) => updated,
            Err(why) => {
                prop_assert!(why.contains("overlaps"), "{why}\n{text}");
                return Ok(());
            }
        };
        prop_assert_eq!(changes == 0, new == text);
        let cluster = loaded(&new, format).cluster;
        let found: BTreeSet<(String, String)> = cluster
            .nodes
            .iter()
            .map(|node| (node.name.to_string(), node.pods.iter().next().unwrap().cidr.to_string()))
            .collect();
        let expected: BTreeSet<(String, String)> =
            after.iter().map(|(name, third)| (format!("n-{name}"), format!("10.42.{third}.0/24"))).collect();
        prop_assert_eq!(found, expected, "{}", new);
        prop_assert_eq!(updated(&new, format, &list), Ok((new.clone(), 0)));
        // Comments on lines of their own, and those of nodes that stay.
        for line in text.lines().filter(|line| line.contains("# ")) {
            let comment = &line[line.find("# ").unwrap()..];
            let of_removed = comment
                .strip_prefix("# n-")
                .is_some_and(|name| !after.iter().any(|(other, _)| other.to_string() == name.trim()));
            prop_assert!(of_removed || new.contains(comment), "{comment:?} is missing:\n{text}\n---\n{new}");
        }
        for line in text.lines().filter(|line| !line.contains("n-") && !line.contains("10.42.")) {
            let is_of_node = ["linux", "{", "}", "-", "nodes", "172.30"].iter().any(|part| line.contains(part));
            prop_assert!(is_of_node || new.contains(line), "{line:?} is missing:\n{text}\n---\n{new}");
        }
        prop_assert_eq!(text.contains("\r\n"), new.contains("\r\n"));
        prop_assert!(!new.replace("\r\n", "").contains('\r'));
        prop_assert!(!text.contains("\r\n") || !new.replace("\r\n", "").contains('\n'), "{new:?}");
    }
}

/// A value that does not belong there.
fn damage() -> impl Strategy<Value = Json> {
    select(vec![
        json!(null),
        json!(5),
        json!(-1.5),
        json!(true),
        json!(""),
        json!("<redacted>"),
        json!("\u{0}\n\u{202e}\u{1f600}"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "items": [] }),
        json!("10.0.0.0/33"),
        json!("::ffff:10.0.0.1"),
        json!("0.0.0.0/0"),
        json!("windows"),
    ])
}

/// The pointers of all values.
fn pointers(value: &Json, at: String, found: &mut Vec<String>) {
    match value {
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, format!("{at}/{index}"), found));
        }
        Json::Object(entries) => {
            for (key, item) in entries {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(item, format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

/// A way to write a list of nodes.
#[derive(Debug, Clone, Copy)]
struct Layout {
    kind: LayoutKind,
    separated: bool,
    comments: bool,
    windows_lines: bool,
    no_last_line_end: bool,
    addresses: bool,
    reversed: bool,
    last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayoutKind {
    Block,
    BlockAtMargin,
    DashAlone,
    FlowItems,
    FlowList,
    OneLine,
    Json,
    Tables,
    InlineTables,
    OneLineToml,
}

fn layout() -> impl Strategy<Value = Layout> {
    use LayoutKind::*;
    let kinds = vec![
        Block,
        BlockAtMargin,
        DashAlone,
        FlowItems,
        FlowList,
        OneLine,
        Json,
        Tables,
        InlineTables,
        OneLineToml,
    ];
    (select(kinds), any::<[bool; 7]>()).prop_map(|(kind, flags)| Layout {
        kind,
        separated: flags[0],
        comments: flags[1],
        windows_lines: flags[2],
        no_last_line_end: flags[3],
        addresses: flags[4],
        reversed: flags[5],
        last: flags[6],
    })
}

impl Layout {
    fn format(self) -> Format {
        match self.kind {
            LayoutKind::Tables | LayoutKind::InlineTables | LayoutKind::OneLineToml => Format::Toml,
            _ => Format::Yaml,
        }
    }

    fn ordered(self, mut nodes: Vec<(u8, u8)>) -> Vec<(u8, u8)> {
        if self.reversed {
            nodes.reverse();
        }
        nodes
    }

    fn write(self, nodes: &[(u8, u8)]) -> String {
        let head = match self.format() {
            Format::Yaml => "clusterPrefix: 10.42.0.0/16\negressInterface: eth0\nroutes: {mtu: 1400}\n",
            Format::Toml => "clusterPrefix = '10.42.0.0/16'\negressInterface = \"eth0\"\nroutes.mtu = 1400\n",
        };
        let rest = match (self.format(), self.last) {
            (_, true) => "",
            (Format::Yaml, false) => {
                "\n# behind the list\nsysctls:\n  net.ipv4.conf.all.rp_filter: 2 # loose\n"
            }
            (Format::Toml, false) => {
                "\n# behind the list\n[sysctls]\n\"net.ipv4.conf.all.rp_filter\" = 2 # loose\n"
            }
        };
        if self.kind == LayoutKind::Json {
            let nodes: Vec<Json> = nodes.iter().map(|(name, third)| {
                json!({ "name": format!("n-{name}"), "os": "linux", "podCIDR": format!("10.42.{third}.0/24") })
            }).collect();
            let whole = json!({ "clusterPrefix": "10.42.0.0/16", "egressInterface": "eth0", "nodes": nodes });
            return self.finished(serde_json::to_string_pretty(&whole).unwrap() + "\n");
        }
        let mut text = format!("# first line\n{head}");
        text.push_str(match self.kind {
            LayoutKind::Tables => "",
            LayoutKind::InlineTables => "nodes = [\n",
            LayoutKind::OneLineToml => "nodes = [",
            LayoutKind::FlowList => "nodes: [\n",
            LayoutKind::OneLine => "nodes: [",
            _ => "nodes: # all of them\n",
        });
        for (at, (name, third)) in nodes.iter().enumerate() {
            let is_last = at + 1 == nodes.len();
            let is_one_line = matches!(self.kind, LayoutKind::OneLine | LayoutKind::OneLineToml);
            if self.separated && at > 0 && !is_one_line {
                text.push('\n');
            }
            if self.comments && !is_one_line {
                let indent = if self.kind == LayoutKind::BlockAtMargin { "" } else { "  " };
                writeln!(text, "{indent}# above {name}").unwrap();
            }
            let comment = if self.comments { format!(" # n-{name}") } else { String::new() };
            let name = format!("n-{name}");
            let cidr = format!("10.42.{third}.0/24");
            let address =
                self.addresses.then(|| format!("172.30.0.{}", name[2..].parse::<u8>().unwrap() + 1));
            let yaml_address = address.as_ref().map_or_else(String::new, |it| format!(", address: {it}"));
            let toml_address = address.as_ref().map_or_else(String::new, |it| format!(", address = '{it}'"));
            let flow = format!("{{name: {name}, podCIDR: '{cidr}'{yaml_address}, os: linux}}");
            let inline = format!("{{ name = \"{name}\", podCIDR = '{cidr}'{toml_address}, os = \"linux\" }}");
            let below = |indent: &str, separator: &str, quote: &str| {
                let address = address
                    .as_ref()
                    .map_or_else(String::new, |it| format!("\n{indent}address{separator}{quote}{it}{quote}"));
                format!(
                    "podCIDR{separator}{quote}{cidr}{quote}{comment}{address}\n{indent}os{separator}{quote}linux{quote}\n"
                )
            };
            text += &match self.kind {
                LayoutKind::Block => format!("  - name: {name}\n    {}", below("    ", ": ", "")),
                LayoutKind::BlockAtMargin => format!("- name: {name}\n  {}", below("  ", ": ", "")),
                LayoutKind::DashAlone => format!("  -\n    name: {name}\n    {}", below("    ", ": ", "")),
                LayoutKind::FlowItems => format!("  - {flow}{comment}\n"),
                LayoutKind::FlowList => format!("  {flow}{}{comment}\n", if is_last { "" } else { "," }),
                LayoutKind::OneLine => format!("{flow}{}", if is_last { "]\n" } else { ", " }),
                LayoutKind::Tables => format!("[[nodes]]\nname = \"{name}\"\n{}", below("", " = ", "'")),
                LayoutKind::InlineTables => {
                    format!("  {inline}{}{comment}\n", if is_last && self.reversed { "" } else { "," })
                }
                LayoutKind::OneLineToml => format!("{inline}{}", if is_last { "]\n" } else { ", " }),
                LayoutKind::Json => String::new(),
            };
        }
        if matches!(self.kind, LayoutKind::FlowList | LayoutKind::InlineTables) {
            text.push_str("]\n");
        }
        self.finished(text + rest)
    }

    fn finished(self, mut text: String) -> String {
        if self.no_last_line_end {
            text.truncate(text.trim_end().len());
        }
        if self.windows_lines { text.replace('\n', "\r\n") } else { text }
    }
}

/// Every configuration in the repository that is valid.
fn configurations() -> Vec<(String, Loaded)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("examples"), root.join("tests/cases")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if Format::of_path(&path).is_some()
                && let Ok(document) = Document::read(&path)
                && let Ok(loaded) = Loaded::new(document)
            {
                found.push((path.display().to_string(), loaded));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// The nodes of a cluster as the Kubernetes API would list them.
fn api_nodes(loaded: &Loaded) -> Vec<Json> {
    let api = |node: &hostgw::model::Node| {
        let cidrs: Vec<String> = node.pods.iter().map(|network| network.cidr.to_string()).collect();
        let addresses: Vec<Json> = node
            .addresses
            .iter()
            .map(|(_, address)| json!({ "type": "InternalIP", "address": address.to_string() }))
            .collect();
        let system = if node.os == OperatingSystem::Linux { "linux" } else { "windows" };
        json!({
            "kind": "Node",
            "metadata": { "name": node.name.as_raw() },
            "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
            "status": { "addresses": addresses, "nodeInfo": { "operatingSystem": system } },
        })
    };
    loaded.cluster.nodes.iter().map(api).collect()
}

/// The comments of a text that are not on the lines of a node.
fn comments_between_nodes(text: &str, document: &Document) -> Vec<String> {
    let outline = outline(document).unwrap();
    let mut at = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        let is_in_node = outline.nodes.iter().any(|node| node.lines.start < end && at < node.lines.end);
        if let (Some(start), false) = (line.find('#'), is_in_node) {
            found.push(line[start..].trim_end().to_owned());
        }
        at += line.len();
    }
    found
}

#[test]
fn every_configuration_in_the_repository_survives_an_update() {
    let configurations = configurations();
    assert!(configurations.len() > 80, "{}", configurations.len());
    let (mut removed, mut refused) = (0, Vec::new());
    for (path, loaded) in &configurations {
        let (text, format) = (loaded.document.text(), loaded.document.format());
        let nodes = api_nodes(loaded);
        assert_eq!(updated(text, format, &listed(&nodes)), Ok((text.to_owned(), 0)), "{path}");
        // Without the first node, and with it once more.
        if nodes.len() < 2 {
            continue;
        }
        let (shorter, changes) = match updated(text, format, &listed(&nodes[1..])) {
            Ok(updated) => updated,
            Err(why) => {
                assert!(why.starts_with("HG1105") || text.contains("masterAddress"), "{path}: {why}");
                refused.push(path);
                continue;
            }
        };
        // A machine without pods need not be a node of the cluster.
        let goes = usize::from(loaded.cluster.nodes[0].has_pods());
        assert_eq!(changes, goes, "{path}");
        for comment in comments_between_nodes(text, &loaded.document) {
            assert!(shorter.contains(&comment), "{path}: {comment} is missing:\n{shorter}");
        }
        removed += 1;
        let Ok((again, changes)) = updated(&shorter, format, &listed(&nodes)) else {
            // The new node lacks keys that the list does not have.
            continue;
        };
        assert_eq!(changes, goes, "{path}");
        assert_eq!(updated(&again, format, &listed(&nodes)), Ok((again.clone(), 0)), "{path}");
    }
    assert!(removed > 60 && refused.len() < 4, "{removed} {refused:?}");
}

#[test]
fn the_next_hop_of_flannel_is_taken_over() {
    let mut node = json!({
        "metadata": { "name": "a", "annotations": { "flannel.alpha.coreos.com/backend-type": "host-gw" } },
        "spec": { "podCIDR": "10.42.0.0/24" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "172.30.0.1" }] },
    });
    let mode = |node: &Json, options: &ImportOptions| {
        let (text, _) = imported(&listed(std::slice::from_ref(node)), options).unwrap();
        loaded(&text, Format::Yaml).cluster.next_hop_mode
    };
    let mut given = options(Format::Yaml);
    assert_eq!(mode(&node, &given), NextHopMode::NodeAddress);
    given.next_hop = Some(NextHopMode::PodGateway);
    assert_eq!(mode(&node, &given), NextHopMode::PodGateway);
    node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"] = "vxlan".into();
    assert_eq!(mode(&node, &options(Format::Yaml)), NextHopMode::PodGateway);
}

/// Thousands of nodes, with everything that kubectl prints.
#[test]
fn a_large_list_is_imported_and_updated() {
    const NODES: usize = 5_000;
    let node = |number: usize| {
        let (third, fourth) = (number / 256, number % 256);
        json!({
            "metadata": {
                "name": format!("node-{number}"),
                "managedFields": [{ "fieldsV1": { "f:spec": { "f:podCIDR": {} } } }],
            },
            "spec": { "podCIDR": format!("10.{}.{fourth}.0/24", 64 + third) },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": format!("172.30.{third}.{fourth}") }],
                "images": [{ "names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 321_520 }],
                "nodeInfo": { "operatingSystem": "linux" },
            },
        })
    };
    let nodes: Vec<Json> = (1..=NODES).map(node).collect();
    for format in [Format::Yaml, Format::Toml] {
        let (text, _) = imported(&listed(&nodes), &options(format)).unwrap();
        assert_eq!(loaded(&text, format).cluster.nodes.len(), NODES);
        let (half, changes) = updated(&text, format, &listed(&nodes[NODES / 2..])).unwrap();
        assert_eq!(changes, NODES / 2);
        let (whole, changes) = updated(&half, format, &listed(&nodes)).unwrap();
        assert_eq!(changes, NODES / 2);
        assert!(whole == text);
    }
}

#[test]
fn changes_are_reported_in_natural_order() {
    let text = "clusterPrefix: 10.42.0.0/16\negressInterface: eth0\nnodes:\n- {name: n-2, os: linux, podCIDR: 10.42.2.0/24}\n";
    let node = |number: u8| {
        json!({
            "metadata": { "name": format!("n-{number}") },
            "spec": { "podCIDR": format!("10.42.{}.0/24", number + 1) },
            "status": { "nodeInfo": { "operatingSystem": "linux" } },
        })
    };
    let list = NodeList::read(&listed(&[node(10), node(9), node(2)])).unwrap();
    let updated = import::update(&loaded(text, Format::Yaml), list, &UpdateOptions::default()).unwrap();
    let messages: Vec<(String, NodeChangeKind)> =
        updated.changes.iter().map(|change| (change.node.to_string(), change.action)).collect();
    assert_eq!(
        messages,
        [
            ("n-2".to_owned(), NodeChangeKind::Update),
            ("n-9".to_owned(), NodeChangeKind::Add),
            ("n-10".to_owned(), NodeChangeKind::Add),
        ]
    );
    assert_eq!((updated.nodes_before, updated.nodes), (1, 3));
}

/// A list of nodes by the last numbers of their pod CIDRs and addresses.
fn numbered(numbers: &[u8]) -> String {
    let node = |number: &u8| {
        json!({
            "metadata": { "name": format!("n{number}") },
            "spec": { "podCIDR": format!("10.42.{number}.0/24") },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": format!("172.30.0.1{number}") }],
                "nodeInfo": { "operatingSystem": "linux" },
            },
        })
    };
    listed(&numbers.iter().map(node).collect::<Vec<_>>())
}

/// Asserts what an update to the nodes with these numbers writes. Each text is the list of nodes only.
#[track_caller]
fn assert_updated(format: Format, before: &str, numbers: &[u8], after: &str) {
    let head = match format {
        Format::Yaml => "clusterPrefix: 10.42.0.0/16\negressInterface: eth0\n",
        Format::Toml => "clusterPrefix = '10.42.0.0/16'\negressInterface = 'eth0'\n",
    };
    for line_end in ["\n", "\r\n"] {
        let [before, after] = [before, after].map(|nodes| format!("{head}{nodes}").replace('\n', line_end));
        let (written, _) = updated(&before, format, &numbered(numbers)).unwrap();
        assert_eq!(written, after, "{numbers:?}");
    }
}

#[test]
fn commas_before_closing_brackets_are_kept() {
    // As Prettier breaks a long line.
    let spread = "\
nodes:
  - {
      name: n1,
      os: linux,
      podCIDR: 10.42.1.0/24,
      address: 172.30.0.99,
    } # first
  - {name: n3, os: linux, podCIDR: [10.42.3.0/24 , ], address: 172.30.0.13 , # here
    # and here
    }
";
    let changed = spread.replace("172.30.0.99", "172.30.0.11");
    let added = "  - {name: n4, os: linux, podCIDR: 10.42.4.0/24, address: 172.30.0.14}\n";
    assert_updated(Format::Yaml, spread, &[1, 3, 4], &format!("{changed}{added}"));
    assert_updated(Format::Yaml, spread, &[1], &changed[..changed.find("  - {name").unwrap()]);

    let one = "{name: n1, os: linux, podCIDR: 10.42.1.0/24, address: 172.30.0.11,}";
    let two = "{name: n2, os: linux, podCIDR: 10.42.2.0/24, address: 172.30.0.12}";
    let three = "{name: n3, os: linux, podCIDR: 10.42.3.0/24, address: 172.30.0.13,}";
    let line = format!("nodes: [ {one}, {three}, ] # all\n");
    assert_updated(Format::Yaml, &line, &[1, 2, 3], &format!("nodes: [ {one}, {two}, {three}, ] # all\n"));
    assert_updated(Format::Yaml, &line, &[1], &format!("nodes: [ {one}, ] # all\n"));
    let lines = format!("nodes: [\n  {one}, # 1\n  {three}, # 3\n]\n");
    assert_updated(Format::Yaml, &lines, &[3], &format!("nodes: [\n  {three}, # 3\n]\n"));
    assert_updated(
        Format::Yaml,
        &lines,
        &[1, 2, 3],
        &format!("nodes: [\n  {one}, # 1\n  {two},\n  {three}, # 3\n]\n"),
    );
}

/// A node in the block style of YAML, and a table of TOML.
fn block(number: u8) -> String {
    format!(
        "  - name: n{number}\n    os: linux\n    podCIDR: 10.42.{number}.0/24\n    address: 172.30.0.1{number}\n"
    )
}

fn table(number: u8) -> String {
    format!(
        "[[nodes]]\nname = \"n{number}\"\nos = \"linux\"\npodCIDR = \"10.42.{number}.0/24\"\naddress = \"172.30.0.1{number}\"\n"
    )
}

#[test]
fn comments_in_the_indentation_of_keys_belong_to_the_node_above() {
    let [one, two, three] = [1, 2, 3].map(block);
    let mtu = "    # mtu: 9000\n";
    let rack = "  # rack 3\n    # beside the door\n";
    let text = format!("nodes:\n{one}{mtu}{rack}{three}    # a bad DIMM\n\n      # order one\n# all\n");
    let owned = format!("{three}    # a bad DIMM\n\n      # order one\n");
    assert_updated(Format::Yaml, &text, &[1, 3], &text);
    assert_updated(Format::Yaml, &text, &[1, 2, 3], &format!("nodes:\n{one}{mtu}{two}{rack}{owned}# all\n"));
    assert_updated(Format::Yaml, &text, &[3], &format!("nodes:\n{rack}{owned}# all\n"));
    assert_updated(Format::Yaml, &text, &[1], &format!("nodes:\n{one}{mtu}{rack}# all\n"));

    // Without indentation, and in braces.
    let text = "nodes:\n- name: n1\n  os: linux\n  podCIDR: 10.42.1.0/24\n  # mtu: 9000\n# rack 3\n- {name: n3, os: linux, podCIDR: 10.42.3.0/24}\n  # own\n# all\n";
    let removed = text.replace("- {name: n3, os: linux, podCIDR: 10.42.3.0/24}\n  # own\n", "");
    assert_updated(Format::Yaml, text, &[1], &removed);

    // The blank lines between nodes are found below comments.
    let text = format!("nodes:\n{one}{mtu}\n{three}");
    assert_updated(Format::Yaml, &text, &[1, 2, 3], &format!("nodes:\n{one}{mtu}\n{two}\n{three}"));
}

#[test]
fn comments_below_the_keys_of_a_table_belong_to_it() {
    let [one, two, three] = [1, 2, 3].map(table);
    let text = format!("{one}# mtu = 9000\n\n# rack 3\n{three}# a bad DIMM\n");
    assert_updated(
        Format::Toml,
        &text,
        &[1, 2, 3],
        &format!("{one}# mtu = 9000\n\n{two}\n# rack 3\n{three}# a bad DIMM\n"),
    );
    assert_updated(Format::Toml, &text, &[3], &format!("\n# rack 3\n{three}# a bad DIMM\n"));
    assert_updated(Format::Toml, &text, &[1], &format!("{one}# mtu = 9000\n\n# rack 3\n"));

    // A commented-out key is never one of the next table, and a commented-out table is no key.
    let table = "# [[nodes]]\n# name = \"n9\"\n";
    let text = format!("{one}# old\n# mtu = 9000\n# rack 3\n{three}\n{table}\n[routes]\nmtu = 1400\n");
    let routes = format!("{table}\n[routes]\nmtu = 1400\n");
    assert_updated(
        Format::Toml,
        &text,
        &[1, 2, 3],
        &format!("{one}# old\n# mtu = 9000\n{two}# rack 3\n{three}\n{routes}"),
    );
    assert_updated(Format::Toml, &text, &[3], &format!("# rack 3\n{three}\n{routes}"));
    assert_updated(Format::Toml, &text, &[1], &format!("{one}# old\n# mtu = 9000\n# rack 3\n\n{routes}"));
}

#[test]
fn only_values_that_are_shared_are_not_edited() {
    let text = "\
nodes:
  - name: n1
    os: linux
    egressInterface: &nic bond0
    podCIDR: 10.42.1.0/24
    address: 172.30.0.99
  - name: n2
    os: linux
    egressInterface: *nic
    podCIDR: 10.42.2.0/24
    address: [172.30.0.98]
";
    let changed = text.replace("172.30.0.99", "172.30.0.11").replace("172.30.0.98", "172.30.0.12");
    assert_updated(Format::Yaml, text, &[1, 2], &changed);
    // An alias may leave.
    assert_updated(Format::Yaml, &changed, &[1], &changed[..changed.find("  - name: n2").unwrap()]);
    let head = "clusterPrefix: 10.42.0.0/16\negressInterface: eth0\n";
    let refused = |text: &str, numbers: &[u8]| {
        updated(&format!("{head}{text}"), Format::Yaml, &numbered(numbers)).unwrap_err()
    };
    let error = refused(&changed, &[2]);
    assert!(error.contains("node n1 uses an anchor, alias or tag"), "{error}");
    for (written, instead) in [
        ("172.30.0.99", "&a 172.30.0.99"),
        ("[172.30.0.98]", "[!!str 172.30.0.98]"),
        ("podCIDR: 10.42.1.0/24", "podCIDR: &p 10.42.9.0/24"),
    ] {
        let error = refused(&text.replace(written, instead), &[1, 2]);
        assert!(error.contains("uses an anchor, alias or tag in its "), "{error}");
    }
    let error = refused(&text.replace("- name: n1", "- &n1\n    name: n1"), &[1, 2]);
    assert!(error.contains("node n1 uses an anchor, alias or tag\n"), "{error}");
}

#[test]
fn what_is_wrong_in_a_yaml_list_is_located() {
    let failure = |text: &str| imported(text, &options(Format::Yaml)).unwrap_err().join("\n");
    for name in ["1e3", "1.5", ".inf", "12", "true"] {
        let error =
            failure(&format!("kind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: 10.1.2.0/24}}\n"));
        assert!(error.contains("metadata.name is not a string: quote it"), "{error}");
    }
    let item = "- kind: Node\n  metadata: {name: a}\n  spec: {podCIDR: 10.1.0.0/24}\n";
    let error =
        failure(&format!("kind: List\nitems:\n{item}- kind: Node\n  metadata:\n    name: b\n    name: c\n"));
    assert!(error.contains("duplicate key \"name\" (line 9, column 5)"), "{error}");
    let error = failure("kind: Node\nmetadata: {}\nkind: Node\n");
    assert!(error.contains("duplicate key \"kind\" (line 3, column 1)"), "{error}");
}

#[test]
fn a_list_that_is_read_in_parts_is_read_like_any_other() {
    let node =
        json!({ "kind": "Node", "metadata": { "name": "n-1" }, "spec": { "podCIDR": "10.42.1.0/24" } });
    let text = listed(&[node]);
    let read = |text: &str| NodeList::read_json(text.as_bytes()).map(|list| list.len());
    assert_eq!(read(&format!("\u{feff} \n{text}\n{text}")).unwrap(), 2);
    let padding = "x".repeat(17 << 20);
    // Every document may be as large as an object of a list.
    let note = &padding[..9 << 20];
    let large =
        format!("{{\"kind\": \"Node\", \"metadata\": {{\"name\": \"n-2\"}}, \"note\": \"{note}\"}}\n");
    assert_eq!(read(&large.repeat(3)).unwrap(), 3);
    for (text, why) in [
        (text[..text.len() - 1].to_owned(), "invalid JSON: unexpected end of file on line"),
        (String::new(), "the list contains no nodes"),
        (format!("{{\"items\": [{{\"note\": \"{padding}\"}}]}}"), "an object in it is larger than 16 MiB"),
        (
            format!("{{\"items\": [{}{{}}]}}", "{},".repeat(1_000_000)),
            "the list has more than 1,000,000 objects",
        ),
        ("{}\n".repeat(1_000_001), "the list has more than 1,000,000 objects"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
