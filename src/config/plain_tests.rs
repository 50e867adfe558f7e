//! A list that is written plainly is read as the YAML parser reads it, or left to the parser.

use proptest::{prelude::*, sample::select};

use super::{plain::PlainList, *};

fn document(text: &str) -> Document {
    Document::new("hostgw.yaml", text.to_owned(), Format::Yaml)
}

/// Asserts that the plain reader agrees with the parser, if it accepts the text.
fn assert_agreement(text: &str) {
    let document = document(text);
    let cluster = load_parsed(&document).ok();
    if let Some(plain) = load_plain(&document) {
        assert_eq!(Some(&plain), cluster.as_ref(), "{text}");
    }
    if let Some(cluster) = cluster {
        assert_positions(&document, cluster.nodes.len());
    }
}

/// Asserts that the position of everything in a document with this number of nodes is where the parser finds it.
fn assert_positions(document: &Document, nodes: usize) {
    let (source, text) = (document.source(), document.text());
    let Ok(parsed) = document.parse(&source) else { return };
    let expected = Positions::new(source, Some(parsed.root), None);
    let found = document.positions();
    let root = ConfigPath::root();
    let keys = ["clusterPrefix", "egressInterface", "nextHop", "nat", "sysctls", "routes", "checks", "nodes"];
    let mut paths: Vec<_> = keys.iter().map(|key| root.key(*key)).collect();
    paths.extend([root.clone(), root.key("nat").key("exclude").index(1), root.key("routes").key("mtu")]);
    for node in 0..=nodes {
        let node = root.key("nodes").index(node);
        for key in ["name", "os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway"] {
            let key = node.key(key);
            paths.extend([key.index(0), key.index(1), key.index(2), key.key("below"), key]);
        }
        paths.extend([node.key("other"), node]);
    }
    for path in paths {
        assert_eq!(found.of(&path), expected.of(&path), "{path} in:\n{text}");
    }
}

/// One of the plain ways to write a scalar.
fn scalar(text: &str) -> impl Strategy<Value = String> + use<> {
    let text = text.to_owned();
    (0..3).prop_map(move |form| match form {
        0 => text.clone(),
        1 => format!("\"{text}\""),
        _ => format!("'{text}'"),
    })
}

fn list(items: Vec<String>) -> impl Strategy<Value = String> {
    select(vec![", ", ",", " , "]).prop_map(move |comma| format!("[{}]", items.join(comma)))
}

/// A node with an index that determines its subnet, as keys and values.
fn node(index: usize) -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names = vec!["n", "linux", "a.b-c_d", "N", "win (1)"];
    let name = select(names).prop_flat_map(move |name| scalar(&format!("{name}{index}")));
    let v4 = scalar(&format!("10.244.{index}.0/24"));
    let v6 = scalar(&format!("fd00:244:0:{index:x}::/64"));
    let cidr = (v4, v6, any::<bool>(), any::<bool>()).prop_flat_map(|(v4, v6, both, bare)| {
        let items = if both { vec![v4, v6] } else { vec![v4] };
        let one = items[0].clone();
        let is_bare = bare && !both;
        list(items).prop_map(move |list| if is_bare { one.clone() } else { list })
    });
    let address = scalar(&format!("172.30.0.{}", index + 1));
    let gateway = scalar(&format!("10.244.{index}.9"));
    let interface = select(vec!["eth1", "vEthernet (Ethernet)", "ens1f0", "\"a b\"", "7"]);
    let os = select(vec!["linux", "linux", "windows", "\"linux\"", "Linux"]);
    let has = || prop::collection::vec(any::<bool>(), 3);
    (name, os, cidr, address, gateway, interface, has(), any::<prop::sample::Index>()).prop_map(
        |(name, os, cidr, address, gateway, interface, has, first)| {
            let mut fields = vec![("name", name), ("os", os.to_owned()), ("podCIDR", cidr)];
            let more =
                [("address", address), ("gateway", gateway), ("egressInterface", interface.to_owned())];
            fields.extend(more.into_iter().zip(has).filter_map(|(field, has)| has.then_some(field)));
            let first = first.index(fields.len());
            fields.rotate_left(first);
            fields
        },
    )
}

/// A configuration whose nodes are written plainly.
fn text() -> impl Strategy<Value = String> {
    let heads = vec![
        "",
        "egressInterface: eth0\n",
        "# it's a comment\negressInterface: \"eth0\" # [\n",
        "egressInterface: eth0\nnat: {exclude: [192.168.0.0/16,\n  192.169.0.0/16]}\n",
        "egressInterface: eth0\nsysctls:\n  net.ipv4.tcp_rmem: '4096 131072 6291456'\n",
        "egressInterface: eth0\nsysctls: {net.core.somaxconn: \"1\n  nodes: 2\"}\n",
        "nat:\n  exclude:\n  - 192.168.0.0/16\n  - 192.169.0.0/16\negressInterface: eth0\n",
    ];
    let tails = vec![
        "",
        "\n",
        "# end\n",
        "routes: {mtu: 1400}\n",
        "\nroutes:\n  mtu: 1400\n",
        "nodes: []\n",
        "---\n",
        "...\n",
        "  - {}\n",
        "nextHop: node-address",
    ];
    let starts = vec!["nodes:\n", "nodes: # all\n", "nodes:   \n\n# first\n", "nodes:\r\n", "\"nodes\":\n"];
    let nodes = (0..5_usize).prop_flat_map(|count| (0..count).map(node).collect::<Vec<_>>());
    let forms = prop::collection::vec((any::<bool>(), any::<bool>(), select(vec!["", " # note", "   "])), 5);
    let indents = select(vec![0_usize, 2, 2, 4]);
    (select(heads), select(starts), nodes, forms, indents, select(tails)).prop_map(
        |(head, start, nodes, forms, indent, tail)| {
            let mut text = format!("clusterPrefix: [10.244.0.0/16, \"fd00:244::/48\"]\n{head}{start}");
            let indent = " ".repeat(indent);
            for (fields, (in_flow, is_spaced, end)) in nodes.into_iter().zip(forms) {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                if in_flow {
                    let space = if is_spaced { " " } else { "" };
                    text += &format!("{indent}- {{{space}{}{space}}}{end}\n", fields.join(", "));
                    continue;
                }
                let between = if is_spaced {
                    format!("{end}\n\n  # more\n{indent}  ")
                } else {
                    format!("{end}\n{indent}  ")
                };
                text += &format!("{indent}- {}{end}\n", fields.join(&between));
            }
            text + tail
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_lists_are_read_as_the_parser_reads_them(text in text()) {
        assert_agreement(&text);
    }

    #[test]
    fn damaged_lists_are_read_as_the_parser_reads_them(text in text(), edits in edits()) {
        assert_agreement(&edited(text, edits));
    }

    /// What an earlier version has in common with a later one is not read, which does not change the result.
    #[test]
    fn earlier_versions_are_read_like_any_other(
        text in text(),
        edits in edits(),
        moved in (any::<prop::sample::Index>(), 0..7_usize, any::<prop::sample::Index>(), any::<bool>()),
    ) {
        let versions = [text.clone(), edited(text.clone(), edits), with_lines_moved(&text, moved)];
        for (earlier, later) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (0, 0)] {
            let [earlier, later] = [&versions[earlier], &versions[later]];
            let (Ok(expected), Ok(later)) = (load(&document(earlier)), Loaded::new(document(later))) else { continue };
            let loaded = Loaded::earlier(document(earlier), &later).expect("valid");
            assert_eq!(loaded.cluster, expected, "{earlier}\nlater:\n{}", later.document.text());
            assert_positions(&loaded.document, expected.nodes.len());
        }
    }
}

type Edit = (prop::sample::Index, usize, &'static str);

/// Characters that mean something in YAML, anywhere.
fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let inserted = select(vec![
        "",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r",
        ":",
        ": ",
        "::",
        "#",
        " #",
        "-",
        "- ",
        "\n- ",
        ",",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "''",
        "\\",
        "&a ",
        "*a",
        "!",
        "|",
        ">",
        "?",
        "? ",
        "%",
        "@",
        "`",
        "~",
        "null",
        "true",
        "7",
        "0x7",
        "1.5",
        "\u{e9}",
        "\u{2028}",
        "\u{a0}",
        "\u{feff}",
        "nodes:\n",
        "\nnodes:\n",
        "\n---\n",
        "name: x\n",
        "\n  ",
    ]);
    prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, inserted), 1..4)
}

fn edited(mut text: String, edits: Vec<Edit>) -> String {
    for (place, removed, inserted) in edits {
        let places: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        let first = place.index(places.len());
        let end = places.get(first + removed).copied().unwrap_or(text.len());
        text.replace_range(places[first]..end, inserted);
    }
    text
}

/// Moves some lines, or removes them.
fn with_lines_moved(
    text: &str,
    (from, count, to, is_kept): (prop::sample::Index, usize, prop::sample::Index, bool),
) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let from = from.index(lines.len());
    let moved: Vec<&str> = lines.drain(from..(from + count).min(lines.len())).collect();
    if is_kept && !lines.is_empty() {
        let to = to.index(lines.len());
        lines.splice(to..to, moved);
    }
    lines.concat()
}

#[test]
fn the_usual_forms_are_plain() {
    for list in [
        "nodes:\n  - name: a\n    os: linux\n    podCIDR: 10.244.0.0/24\n  - {name: b, os: windows, podCIDR: [10.244.1.0/24], address: 172.30.0.2}\n",
        "nodes:\n- name: \"a\" # the first\n  podCIDR: 10.244.0.0/24\n\n  os: linux\nroutes: {mtu: 1400}\n",
    ] {
        let text =
            format!("# A cluster that's small\nclusterPrefix: 10.244.0.0/16\negressInterface: eth0\n{list}");
        let found = PlainList::find(&text).expect("plain");
        assert!(!found.rest(&text).contains("podCIDR"));
        assert!(load_plain(&document(&text)).is_some(), "{text}");
        assert_agreement(&text);
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a text");
            assert!(load_plain(&document(&text)).is_some(), "{}", path.to_string_lossy());
        }
    }
}

/// The parser ends a comment at these characters, and reads what follows.
#[test]
fn a_comment_ends_at_every_line_break_of_the_parser() {
    for line_break in ["\r", "\u{85}", "\u{2028}", "\u{2029}"] {
        for hidden in ["  - {name: b, os: linux, podCIDR: 10.244.2.0/24}", "    address: 172.30.0.9"] {
            let text = format!(
                "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n  - name: a\n    os: linux\n    \
                 podCIDR: 10.244.1.0/24 # more{line_break}{hidden}\n"
            );
            assert!(PlainList::find(&text).is_none(), "{text:?}");
            assert_agreement(&text);
        }
    }
    for head in ["x'y: 'a\n", "a'b: \"c\n"] {
        assert!(PlainList::find(&format!("{head}nodes:\n- name: a\nend'\n")).is_none(), "{head}");
    }
}

/// Only the nodes that are not in the later version are read.
#[test]
fn an_earlier_version_shares_its_nodes() {
    let text = |names: &[&str]| {
        let mut text = String::from("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n");
        for name in names {
            let number = name.len();
            text += &format!("  - name: {name}\n    os: linux\n    podCIDR: 10.244.{number}.0/24\n");
        }
        text
    };
    let later = Loaded::new(document(&text(&["a", "ccc", "bb", "dddd"]))).expect("valid");
    let earlier = document(&text(&["a", "bb", "eeeee", "ccc"]));
    let (_, shared) = earlier.plain_list_shared_with(&later.document).expect("plain");
    assert_eq!(shared, [Some(0), Some(2), None, Some(1)]);
    assert_eq!(load_sharing(&earlier, &later), load(&earlier).ok());
}
