//! Properties of every configuration: YAML and TOML are equivalent, and nothing panics.

use std::{fmt::Write as _, fs, net::Ipv4Addr, net::Ipv6Addr};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::model::{NextHopMode, OperatingSystem};

fn yaml(text: &str) -> Document {
    Document::new("hostgw.yaml", text.to_owned(), Format::Yaml)
}

fn toml(text: &str) -> Document {
    Document::new("hostgw.toml", text.to_owned(), Format::Toml)
}

/// The examples and test cases in a folder, valid or not.
fn stored(folder: &str) -> Vec<(String, Format)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    paths
        .filter_map(|path| {
            Some((Format::of_path(&path)?, path))
                .map(|(format, path)| (fs::read_to_string(path).expect("a text"), format))
        })
        .collect()
}

/// A generated cluster, to be written as both YAML and TOML.
#[derive(Debug, Clone)]
struct Sample {
    dual: bool,
    node_address: bool,
    nodes: Vec<SampleNode>,
    masquerade: Option<bool>,
    exclude: Vec<u8>,
    sysctls: Vec<(String, Result<i32, String>)>,
    table: Option<u32>,
    mtu: Option<u32>,
    /// Whether nodes masquerade with, and prefer, their own addresses, where that is set.
    own_addresses: [Option<bool>; 2],
    /// The last byte of the address, and the timeout in seconds.
    checks: Vec<(u8, Option<u8>)>,
}

#[derive(Debug, Clone)]
struct SampleNode {
    name: String,
    windows: bool,
    both_families: bool,
    interface: Option<String>,
    gateway: bool,
    mtu: Option<u32>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let name = "[a-z0-9\u{e9}\"'#:{}\\[\\],&*!|>%@`-]{1,12}";
    let mtu = || prop::option::of(1280_u32..=65535);
    let interface = prop::option::of("[a-z0-9.]{3,12}");
    let node = (name, any::<bool>(), any::<bool>(), interface, any::<bool>(), mtu()).prop_map(
        |(name, windows, both_families, interface, gateway, mtu)| SampleNode {
            mtu,
            name,
            windows,
            both_families,
            interface,
            gateway,
        },
    );
    let value = prop_oneof![any::<i32>().prop_map(Ok), "[a-z0-9]{1,3}( [a-z0-9]{1,3}){0,2}".prop_map(Err)];
    (
        (any::<bool>(), any::<bool>(), prop::collection::vec(node, 1..6), any::<[Option<bool>; 2]>()),
        prop::option::of(any::<bool>()),
        prop::collection::btree_set(any::<u8>(), 0..4),
        prop::collection::btree_map("net\\.core\\.[a-z_]{1,8}", value, 0..20),
        prop::option::of(1u32..255),
        mtu(),
        prop::collection::btree_map(1_u8.., prop::option::of(1_u8..), 0..4),
    )
        .prop_map(
            |(
                (dual, node_address, nodes, own_addresses),
                masquerade,
                exclude,
                sysctls,
                table,
                mtu,
                checks,
            )| {
                Sample {
                    dual,
                    node_address,
                    nodes,
                    masquerade,
                    exclude: exclude.into_iter().collect(),
                    sysctls: sysctls.into_iter().rev().collect(),
                    table,
                    mtu,
                    own_addresses,
                    checks: checks.into_iter().collect(),
                }
            },
        )
}

impl Sample {
    /// Writes YAML in flow style (which is JSON), or inline TOML tables.
    fn write(&self, format: Format) -> String {
        let (is, end) = if format == Format::Yaml { (": ", "\n") } else { (" = ", "\n") };
        let mut text = String::new();
        let prefix = if self.dual { "[\"10.0.0.0/8\", \"fd00::/16\"]" } else { "\"10.0.0.0/8\"" };
        let _ = write!(text, "clusterPrefix{is}{prefix}{end}egressInterface{is}\"eth0\"{end}");
        if self.node_address {
            let _ = write!(text, "nextHop{is}\"node-address\"{end}");
        }
        let nodes: Vec<String> =
            self.nodes.iter().enumerate().map(|(at, node)| self.write_node(at, node, is)).collect();
        let _ = write!(text, "nodes{is}[{}]{end}", nodes.join(", "));
        let exclude: Vec<String> = self.exclude.iter().map(|byte| format!("\"192.{byte}.0.0/16\"")).collect();
        let masquerade = self.masquerade.map_or_else(String::new, |flag| format!("masquerade{is}{flag}, "));
        let [nat, source] = self.own_addresses;
        let to = nat.map(|own| if own { "node-address" } else { "interface" });
        let to = to.map_or_else(String::new, |to| format!("to{is}\"{to}\", "));
        let _ = write!(text, "nat{is}{{{masquerade}{to}exclude{is}[{}]}}{end}", exclude.join(", "));
        let sysctls: Vec<String> = self
            .sysctls
            .iter()
            .map(|(key, value)| match value {
                Ok(number) => format!("\"{key}\"{is}{number}"),
                Err(words) => format!("\"{key}\"{is}\"{words}\""),
            })
            .collect();
        let _ = write!(text, "sysctls{is}{{{}}}{end}", sysctls.join(", "));
        let table = self.table.map(|table| format!("table{is}{table}"));
        let mtu = self.mtu.map(|mtu| format!("mtu{is}{mtu}"));
        // A source needs an address of every family.
        let are_complete = !self.dual || self.nodes.iter().all(|node| node.both_families || node.windows);
        let source = source.map(|own| if own && are_complete { "node-address" } else { "auto" });
        let source = source.map(|source| format!("source{is}\"{source}\""));
        let routes: Vec<String> = table.into_iter().chain(mtu).chain(source).collect();
        let _ = write!(text, "routes{is}{{{}}}{end}", routes.join(", "));
        let checks: Vec<String> = self.checks.iter().map(|check| Self::write_check(*check, is)).collect();
        let _ = write!(text, "checks{is}[{}]{end}", checks.join(", "));
        text
    }

    fn write_check((byte, timeout): (u8, Option<u8>), is: &str) -> String {
        let target = match byte % 4 {
            0 => format!("tcp{is}\"172.16.1.{byte}:{}\"", 256 * u32::from(byte) + 1),
            1 => format!("tcp{is}\"[fd01::1:{byte}]:{byte}\""),
            2 => format!("neighbor{is}\"172.16.1.{byte}\""),
            _ => format!("neighbor{is}\"fd01::1:{byte}\""),
        };
        let timeout = timeout.map_or_else(String::new, |seconds| format!(", timeout{is}\"{seconds}s\""));
        format!("{{{target}{timeout}}}")
    }

    fn write_node(&self, at: usize, node: &SampleNode, is: &str) -> String {
        let both = self.dual && node.both_families;
        let name = format!("{}{at}", node.name.to_lowercase());
        let list =
            |v4: String, v6: String| if both { format!("[\"{v4}\", \"{v6}\"]") } else { format!("\"{v4}\"") };
        let os = if node.windows { "windows" } else { "linux" };
        let cidr = list(format!("10.{at}.0.0/16"), format!("fd00:{at}::/64"));
        let address = list(format!("172.16.0.{}", at + 1), format!("fd01::{}", at + 1));
        let mut text = format!("{{name{is}{name:?}, os{is}\"{os}\", podCIDR{is}{cidr}, address{is}{address}");
        if let Some(interface) = &node.interface {
            let _ = write!(text, ", egressInterface{is}\"{interface}\"");
        }
        if node.gateway {
            let _ = write!(text, ", gateway{is}\"10.{at}.9.9\"");
        }
        if let Some(mtu) = node.mtu {
            let _ = write!(text, ", mtu{is}{mtu}");
        }
        text.push('}');
        text
    }
}

/// Asserts that the search for errors finds none in a valid document.
fn assert_no_errors(document: &Document) {
    let cluster = diagnose(document).unwrap_or_else(|invalid| panic!("{invalid}\n{}", document.text()));
    assert_eq!(cluster, load(document).expect("a valid configuration"));
}

/// Loads a document, and checks that every way to read it gives the same result.
fn check_any(document: &Document) -> Result<(), TestCaseError> {
    plain_tests::assert_agreement(document);
    match load(document) {
        Ok(cluster) => {
            prop_assert!(!cluster.nodes.is_empty());
            assert_no_errors(document);
        }
        Err(invalid) => {
            prop_assert!(!invalid.errors().is_empty());
            prop_assert!(invalid.errors().iter().all(|error| error.position.is_some()), "{}", invalid);
            let text = invalid.render(false);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", text);
            prop_assert!(!text.contains("incomplete"), "{}", text);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_and_toml_give_the_same_cluster(sample in sample()) {
        let (yaml, toml) = (yaml(&sample.write(Format::Yaml)), toml(&sample.write(Format::Toml)));
        let from_yaml = load(&yaml).map_err(|invalid| TestCaseError::fail(invalid.to_string()))?;
        let from_toml = load(&toml).map_err(|invalid| TestCaseError::fail(invalid.to_string()))?;
        prop_assert_eq!(&from_yaml, &from_toml);
        prop_assert_eq!(from_yaml.nodes.len(), sample.nodes.len());
        let timeouts: Vec<_> = from_yaml.checks.iter().map(|check| check.timeout.as_secs()).collect();
        let written: Vec<_> = sample.checks.iter().map(|(_, timeout)| timeout.map_or(5, u64::from)).collect();
        prop_assert_eq!(timeouts, written);
        for document in [yaml, toml] {
            assert_no_errors(&document);
        }
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in any::<String>(), format in select(vec![Format::Yaml, Format::Toml])) {
        check_any(&Document::new("any", text, format))?;
    }

    #[test]
    fn mutated_configurations_do_not_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..6, select(vec![
                "", "\n", "  ", "\t", ":", ": ", "- ", "[", "]", "{", "}", "\"", "'", "#", "&a ", "*a", "!x ", "!!str ",
                "|\n", "---\n", "? ", "<<: ", "~", "0", "1e3", "true", "\u{1b}", "é", "\r\n", "=", "[[nodes]]\n", ",", "0x1f",
            ])),
            1..4,
        ),
    ) {
        let all: Vec<_> = ["examples", "tests/cases/config/valid", "tests/cases/config/invalid"].map(stored).concat();
        let (text, format) = &all[which.index(all.len())];
        let mut characters: Vec<char> = text.chars().collect();
        for (at, removed, inserted) in edits {
            let start = at.index(characters.len() + 1);
            let end = (start + removed).min(characters.len());
            characters.splice(start..end, inserted.chars());
        }
        check_any(&Document::new("changed", String::from_iter(characters), *format))?;
    }
}

#[test]
fn no_errors_are_found_in_valid_files() {
    for (text, format) in ["examples", "tests/cases/config/valid"].map(stored).concat() {
        assert_no_errors(&Document::new("valid", text, format));
    }
}

#[test]
fn the_recipe_is_the_same_cluster_in_both_languages() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        load(&Document::read(&path).expect("an example")).expect("a valid example")
    };
    let cluster = read("recipe.yaml");
    assert_eq!(cluster, read("recipe.toml"));
    let gateways: Vec<_> = cluster
        .nodes
        .iter()
        .flat_map(|node| node.pod_gateways().collect::<Vec<_>>())
        .map(|ip| ip.to_string())
        .collect();
    assert_eq!(gateways, ["10.244.0.1", "10.244.1.1", "10.244.2.2"]);
    assert_eq!(cluster.next_hop_mode, NextHopMode::PodGateway);
    assert_eq!(cluster.nodes[2].os, OperatingSystem::Windows);
}

#[test]
fn families_may_come_in_any_order() {
    let cluster = load(&yaml(
        "clusterPrefix: [fd00::/16, 10.0.0.0/8]\negressInterface: eth0\nnodes:\n  \
         - {name: a, os: linux, podCIDR: [fd00:1::/64, 10.1.0.0/16], address: [\"fd01::1\", 172.16.0.1]}\n",
    ))
    .expect("a valid configuration");
    assert_eq!(cluster.nodes[0].addresses.v4, Some(Ipv4Addr::new(172, 16, 0, 1).into()));
    assert_eq!(cluster.nodes[0].addresses.v6, Some(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1).into()));
}

#[test]
fn positions_fall_back_to_the_nearest_ancestor() {
    let text = "# a\nnodes:\n  - name: é\n    podCIDR: [a, b]\n    address:\n";
    let positions = yaml(text).positions();
    let node = ConfigPath::root().key("nodes").index(0);
    let at = |path: &ConfigPath| positions.of(path).map(|position| (position.line, position.column));
    assert_eq!(at(&ConfigPath::root()), Some((2, 1)));
    assert_eq!(at(&node), Some((3, 5)));
    assert_eq!(at(&node.key("podCIDR").index(1)), Some((4, 18)));
    assert_eq!(at(&node.key("podCIDR").index(7)), Some((4, 14)));
    assert_eq!(at(&node.key("gateway")), Some((3, 5)));
    assert_eq!(at(&node.key("address")), Some((5, 5)));
    assert_eq!(yaml("a: [").positions().of(&node), None);

    let positions = toml("[[nodes]]\nname = \"a\"\n\n[[nodes]]\nname = \"b\"\n").positions();
    let name = ConfigPath::root().key("nodes").index(1).key("name");
    assert_eq!(positions.of(&name), Some(Position { line: 5, column: 8 }));
}

#[test]
fn the_format_of_standard_input_is_detected() {
    for text in ["", "# x\n", "a: b", "a: b = c", "- a", "{a: b}", "---\n", "clusterPrefix:\n", "a b"] {
        assert_eq!(Format::of_text(text), Format::Yaml, "{text:?}");
    }
    for text in ["a = 1", "# x\n\n[nat]\n", "[[nodes]]", "\"a b\".c = 1", "a.b=\"c: d\""] {
        assert_eq!(Format::of_text(text), Format::Toml, "{text:?}");
    }
    assert_eq!(Document::from_stdin("\u{feff}a = 1".to_owned()).format(), Format::Toml);
    assert_eq!(Document::from_stdin("\u{feff}a: 1".to_owned()).text(), "a: 1");
}

#[test]
fn color_is_optional() {
    let invalid = load(&yaml("nodes: 1\n")).expect_err("an invalid configuration");
    assert!(!invalid.render(false).contains('\u{1b}'));
    let colored = invalid.render(true);
    assert!(colored.contains('\u{1b}'));
    let mut parts = colored.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    plain.extend(parts.filter_map(|part| Some(part.split_once('m')?.1)));
    assert_eq!(plain, invalid.render(false));
}

/// Many tools write flow collections like this, although YAML 1.2 expects them to be indented.
#[test]
fn flow_collections_need_no_indentation() {
    let text = "clusterPrefix: 10.0.0.0/8\negressInterface: e\nnodes: [\n\
                {name: a, os: linux, podCIDR: 11.0.0.0/16},\n]\n";
    let invalid = load(&yaml(text)).expect_err("an invalid configuration");
    let position = invalid.errors()[0].position;
    assert_eq!(position, Some(Position { line: 4, column: 31 }), "{invalid}");
    assert!(load(&yaml(&text.replace("11.", "10."))).is_ok());
}

#[test]
fn a_tab_may_separate_a_key_and_its_value() {
    let text = "clusterPrefix:\t10.0.0.0/8\negressInterface: \t e\nnodes:\n\
                - {name: a, os:\tlinux, podCIDR: 10.0.0.0/16}\n";
    assert!(load(&yaml(text)).is_ok());
}

/// The underline covers the value only, and a file with two kinds of errors shows both.
#[test]
fn quoted_values_end_at_their_quote() {
    let text = "clusterPrefix: \"10.0.0.1/8\" # a comment\negressInterface: e # \u{7f}\nnodes: []\n";
    let report = load(&yaml(text)).expect_err("errors").to_string();
    assert!(
        report.contains("1 | clusterPrefix: \"10.0.0.1/8\" # a comment\n  |                ^^^^^^^^^^^^\n"),
        "{report}"
    );
    assert!(report.contains("control characters are not allowed\n --> hostgw.yaml:2:22\n"), "{report}");
}

/// A temporary folder that is removed at the end of a test.
struct TempFolder(std::path::PathBuf);

impl TempFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hostgw-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_must_contain_exactly_one_configuration() {
    let folder = TempFolder::new("find");
    let message = |folder: &TempFolder| find_in(&[&folder.0]).expect_err("an error").to_string();
    let path = crate::text::path(&folder.0);
    assert_eq!(
        message(&folder),
        format!("no configuration found: searched for hostgw.yaml, hostgw.yml, hostgw.toml in {path}")
    );
    let toml = folder.write("hostgw.toml", b"");
    assert_eq!(find_in(&[&folder.0]).expect("a file"), toml);
    folder.write("hostgw.yml", b"");
    assert_eq!(message(&folder), format!("{path} contains both hostgw.yml and hostgw.toml"));
    let error = find_in(&[&folder.0]).expect_err("an error");
    assert!(error.hint().is_some_and(|hint| hint.contains("-f FILE")));
}

#[test]
fn read_errors_name_the_file_and_the_reason() {
    let folder = TempFolder::new("read");
    let message = |path: &std::path::Path| Document::read(path).expect_err("an error").to_string();
    let path = crate::text::path(&folder.0);
    assert_eq!(
        message(&folder.write("b.yaml", b"a: \xff")),
        format!("{path}/b.yaml is not valid UTF-8: invalid byte 4")
    );
    assert_eq!(message(&folder.0.join("c.yaml")), format!("no such file: {path}/c.yaml"));
    fs::create_dir_all(folder.0.join("d.yaml")).expect("a folder");
    assert_eq!(message(&folder.0.join("d.yaml")), format!("{path}/d.yaml is a directory, not a file"));
    let text = Document::read(&folder.write("e.toml", b"\xef\xbb\xbfa = 1")).expect("a document");
    assert_eq!(text.text(), "a = 1");
}

#[test]
fn an_unknown_extension_falls_back_to_the_text() {
    let folder = TempFolder::new("names");
    let format =
        |name: &str, text: &[u8]| Document::read(&folder.write(name, text)).expect("a document").format();
    assert_eq!(format("a.json", b"{\"version\": 1}"), Format::Yaml);
    assert_eq!(format("cluster.conf", b"version = 1"), Format::Toml);
    assert_eq!(format("cluster", b"\xef\xbb\xbfversion: 1"), Format::Yaml);
    assert_eq!(format("b.yaml", b"version = 1"), Format::Yaml);
}

/// The first line of the report on an invalid document, and the length of the report in bytes.
fn refusal(document: &Document) -> (String, usize) {
    let invalid = load(document).expect_err("an error");
    let text = invalid.render(false);
    (text.lines().next().unwrap_or_default().to_owned(), text.len())
}

#[test]
fn deep_nesting_is_rejected_while_parsing() {
    let begun = std::time::Instant::now();
    let deep = |part: &str| part.repeat(40_000);
    let headers: String = (1..400).map(|depth| format!("[{}]\n", vec!["a"; depth].join("."))).collect();
    let indented: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let documents = [
        yaml(&deep("{a: ")),
        yaml(&deep("[")),
        yaml(&deep("- ")),
        yaml(&deep("? ")),
        yaml(&deep("&a [")),
        yaml(&deep("{\"a\":")),
        yaml(&indented),
        toml(&format!("a = {}", deep("["))),
        toml(&format!("a = {}", deep("{a = "))),
        toml(&format!("{}a = 1", deep("a."))),
        toml(&format!("[{}a]", deep("a."))),
        toml(&headers),
    ];
    for document in documents {
        let (first, length) = refusal(&document);
        let is_meant =
            ["nested more than 64 levels deep", "recursion"].iter().any(|word| first.contains(word));
        assert!(is_meant && length < 2000, "{first} ({length} bytes)");
    }
    // Scanning every open bracket for each token took half a minute for the first document alone.
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[test]
fn shallow_nesting_is_accepted_in_either_style() {
    let node =
        |at: usize| format!("{{name: node-{at}, os: linux, podCIDR: 10.{}.{}.0/24}}", at / 256, at % 256);
    let nodes: Vec<String> = (0..2000).map(node).collect();
    let text = format!("clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes: [{}]\n", nodes.join(", "));
    let block = text.replace(['[', ']'], "").replace("nodes: {", "nodes:\n- {").replace("}, {", "}\n- {");
    let block = block
        .replace("- {name", "- name")
        .replace(", os", "\n  os")
        .replace(", pod", "\n  pod")
        .replace('}', "");
    assert_eq!(load(&yaml(&text)).expect("a cluster"), load(&yaml(&block)).expect("a cluster"));
}

#[test]
fn alias_bombs_are_rejected() {
    let list = vec!["x"; 1000].join(",");
    let aliases = vec!["*a"; 1000].join(",");
    let documents = [
        format!("a: &a [{list}]\nb: &b [{aliases}]\nc: [{}]\n", aliases.replace('a', "b")),
        // Each level is stored for its own anchor.
        format!("x: {}{}{}\n", "&a [".repeat(60), vec!["1"; 100_000].join(","), "]".repeat(60)),
        // The value of one key, in many nodes.
        format!("nodes:\n- podCIDR: &a [{list}]\n{}", "- podCIDR: *a\n".repeat(1000)),
    ];
    for text in documents {
        let (first, length) = refusal(&yaml(&text));
        assert!(first.contains("too many values") || first.contains("too many keys and values"), "{first}");
        assert!(length < 2000, "{length}");
    }
}

#[test]
fn the_british_spelling_of_neighbor_is_the_same_key() {
    const HEAD: &str = "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes: [{name: a, os: linux, podCIDR: \
                        10.244.0.0/24}]\nchecks:\n";
    const TABLES: &str = "clusterPrefix = \"10.244.0.0/16\"\negressInterface = \"eth0\"\n[[nodes]]\nname = \"a\"\nos = \
                          \"linux\"\npodCIDR = \"10.244.0.0/24\"\n[[checks]]\n";
    let expected = load(&yaml(&format!("{HEAD}  - neighbor: 172.30.0.1\n"))).expect("a valid configuration");
    assert_eq!(expected.checks.len(), 1);
    for same in [
        yaml(&format!("{HEAD}  - neighbour: 172.30.0.1\n")),
        yaml(&format!("{HEAD}  - {{\"neighbour\": &router 172.30.0.1}}\n")),
        toml(&format!("{TABLES}neighbor = \"172.30.0.1\"\n")),
        toml(&format!("{TABLES}neighbour = \"172.30.0.1\"\n")),
    ] {
        let cluster = load(&same).unwrap_or_else(|invalid| panic!("{invalid}\n{}", same.text()));
        assert_eq!(cluster, expected, "{}", same.text());
        let key = ConfigPath::root().key("checks").index(0).key("neighbor");
        assert!(same.positions().of(&key).is_some(), "{}", same.text());
    }
    // Anywhere else, it is an unknown key.
    let outside = load(&yaml(&format!("{HEAD}  []\nneighbour: 172.30.0.1\n"))).expect_err("an unknown key");
    assert!(outside.to_string().contains("unknown key \"neighbour\""), "{outside}");
}

#[test]
fn both_spellings_of_neighbor_in_a_check_are_duplicates() {
    let head = "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes: [{name: a, os: linux, podCIDR: 10.244.0.0/24}]\n\
                checks:\n  - ";
    let keys = ["neighbor: 172.30.0.1", "neighbour: 172.30.0.2"];
    let unknown: String = (0..30).map(|number| format!("    unknown{number}: 1\n")).collect();
    for [first, second] in [keys, [keys[1], keys[0]]] {
        // Mappings with many keys have an index.
        for between in ["", &unknown] {
            let document = yaml(&format!("{head}{first}\n{between}    {second}\n"));
            let text = load(&document).expect_err("a duplicate").to_string();
            let (second, _) = second.split_once(':').expect("a key");
            assert!(text.contains(&format!("duplicate key \"{second}\"")), "{text}");
            assert_eq!(text.matches("first used here").count(), 1, "{text}");
            assert!(!text.contains("neither tcp nor neighbor"), "{text}");
        }
    }
    let tables = "clusterPrefix = \"10.244.0.0/16\"\negressInterface = \"eth0\"\nnodes = [{name = \"a\", os = \"linux\", podCIDR = \
                  \"10.244.0.0/24\"}]\n[[checks]]\nneighbor = \"172.30.0.1\"\nneighbour = \"172.30.0.1\"\n";
    let text = load(&toml(tables)).expect_err("a duplicate").to_string();
    assert!(text.contains("duplicate key \"neighbour\""), "{text}");
}

#[test]
fn errors_beyond_the_limit_are_counted() {
    let documents = [
        yaml(&format!("nodes:\n{}", "- 1\n".repeat(5000))),
        yaml(&format!("nodes:\n{}", "- {a: 1}\n".repeat(1250))),
        yaml(&"a: 1\n".repeat(5000)),
        yaml(&format!("nodes:\n{}", "- [a]\n".repeat(5000))),
        yaml(&format!("? [a]\n: 1\n{}", "? [a]\n: 1\n".repeat(4999))),
        toml(&"a = 1\n".repeat(5000)),
        toml(&"[[nodes]]\na = 1\n".repeat(1250)),
        toml(&format!("nodes = [{}]\n", "1,".repeat(5000))),
    ];
    for document in documents {
        let invalid = load(&document).expect_err("errors");
        assert_eq!(invalid.errors().len(), 100, "{}", &document.text()[..40]);
        assert!((4899..=4910).contains(&invalid.omitted()), "{} more", invalid.omitted());
        let text = invalid.render(false);
        assert!(text.contains(&format!("… and {} more\n", invalid.omitted())), "{text}");
        assert!(text.len() < 50_000, "{} bytes", text.len());
    }
}

#[test]
fn long_values_are_shortened() {
    let long = "x".repeat(50_000);
    for value in [format!("\"{long}\""), format!("[\"{long}\", \"{long}\"]"), format!("{{\"{long}\": 1}}")] {
        for key in [
            "version",
            "clusterPrefix",
            "egressInterface",
            "nextHop",
            "masterAddress",
            "nat",
            "sysctls",
            &long,
        ] {
            let (first, length) = refusal(&yaml(&format!("{{\"{key}\": {value}}}\n")));
            assert!(length < 5000, "{length} bytes of {}: {}", &key[..3], &first[..200.min(first.len())]);
        }
        let node = |key: &str| format!("nodes: [{{\"{key}\": {value}}}]\n");
        for key in ["name", "os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway", &long]
        {
            let (_, length) = refusal(&yaml(&node(key)));
            assert!(length < 5000, "{length} bytes of {}", &key[..2]);
        }
    }
}

/// Values that few or no fields accept.
fn hostile() -> Vec<serde_json::Value> {
    let deep = (0..60).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    vec![
        serde_json::json!(null),
        serde_json::json!(true),
        serde_json::json!(-1),
        serde_json::json!(0),
        serde_json::json!(i64::MIN),
        serde_json::json!(u64::MAX),
        serde_json::json!(1e308),
        serde_json::json!(""),
        serde_json::json!("\u{202e}\u{0}\u{1b}[31m"),
        serde_json::json!("255.255.255.255/32"),
        serde_json::json!("::/0"),
        serde_json::json!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        serde_json::json!("99999999999999999999h"),
        serde_json::json!("9".repeat(70_000)),
        serde_json::json!("日".repeat(70_000)),
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!([[], {}, null, 1, "a"]),
        serde_json::json!({ "a": { "a": null } }),
        deep,
    ]
}

/// Collects the JSON pointer of every value in a document.
fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        serde_json::Value::Object(map) => {
            map.iter()
                .for_each(|(key, value)| places(value, &format!("{at}/{}", key.replace('/', "~1")), found));
        }
        serde_json::Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// A configuration with every key of the format.
const EVERY_KEY: &str = "{\"version\": 1, \"clusterPrefix\": [\"10.244.0.0/16\", \"fd00:244::/48\"], \"egressInterface\": \"eth0\",
\"nextHop\": [\"172.30.0.9\"], \"offLink\": \"skip\", \"masterAddress\": \"172.30.0.1\", \"nodes\": [{\"name\": \"a\", \"os\": \"windows\",
\"podCIDR\": \"10.244.0.0/24\", \"address\": [\"172.30.0.2\"], \"gateway\": \"10.244.0.2\", \"nextHop\": \"node-address\", \"egressInterface\": \"e\",
\"defaultGateway\": \"172.30.0.1\", \"mtu\": 9000}], \"nat\": {\"masquerade\": true, \"exclude\": [\"192.168.0.0/16\"], \"source\": \"any\", \"to\": \"interface\",
\"randomFully\": false}, \"sysctls\": {\"net.core.somaxconn\": 1}, \"routes\": {\"table\": 100, \"metric\": 1, \"mtu\": 1400, \"spread\": \"auto\", \"unassigned\": \"leave\", \"source\": \"auto\"},
\"checks\": [{\"tcp\": \"172.30.0.1:1\", \"timeout\": \"1s\"}, {\"neighbor\": \"172.30.0.1\"}]}";

/// Loads any document, and checks that a report on it is not empty and of limited length.
fn assert_load_is_bounded(document: &Document) {
    if let Err(invalid) = load(document) {
        let text = invalid.render(false);
        assert!(!invalid.errors().is_empty() && !text.contains("incomplete"), "{text}");
        assert!(
            text.len() < 60_000,
            "{} bytes: {}…",
            text.len(),
            text.chars().take(2000).collect::<String>()
        );
    }
}

#[test]
fn hostile_values_do_not_panic() {
    let good: serde_json::Value = serde_json::from_str(EVERY_KEY).expect("JSON");
    let (mut found, mut keys) = (Vec::new(), Vec::new());
    places(&good, "", &mut found);
    assert!(load(&yaml(EVERY_KEY)).is_ok(), "{}", load(&yaml(EVERY_KEY)).expect_err("errors"));
    // The sweep must cover every key of the format.
    let schema = schema();
    let nodes = &schema["properties"]["nodes"]["items"];
    let check = &schema["properties"]["checks"]["items"];
    for part in [&schema, nodes, check, &schema["properties"]["nat"], &schema["properties"]["routes"]] {
        keys.extend(part["properties"].as_object().expect("properties").keys().cloned());
    }
    for key in &keys {
        assert!(found.iter().any(|place| place.ends_with(&format!("/{key}"))), "{key} is not swept");
    }
    for place in &found {
        for value in hostile() {
            let mut changed = good.clone();
            *changed.pointer_mut(place).expect("a place") = value;
            assert_load_is_bounded(&yaml(&changed.to_string()));
            assert_load_is_bounded(&yaml(&serde_yaml::to_string(&changed).expect("YAML")));
            if let Ok(text) = ::toml::to_string(&changed) {
                assert_load_is_bounded(&toml(&text));
            }
        }
    }
}

#[test]
fn truncated_files_do_not_panic() {
    let whole = [
        yaml(EVERY_KEY),
        yaml(include_str!("../../examples/recipe.yaml")),
        yaml(include_str!("../../examples/checks.yaml")),
        toml(include_str!("../../examples/recipe.toml")),
    ];
    for document in whole {
        let text = document.text();
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            assert_load_is_bounded(&Document::new("cut", text[..at].to_owned(), document.format()));
        }
    }
}
