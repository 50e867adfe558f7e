//! Text that is written plainly is read as the YAML parser reads it, or left to the parser. However a text is read, the
//! result is the same, and everything is where it is in the tree of the whole text.

use proptest::{prelude::*, sample::select};
use serde_json::{Value as Json, json};

use super::{
    tree::{NODES, NodeReceiver, Parsed, Value},
    *,
};

fn document(text: &str) -> Document {
    Document::new("hostgw.yaml", text.to_owned(), Format::Yaml)
}

/// The tree of a whole text, read by the parser of its language.
fn whole_tree(document: &Document) -> Option<Parsed<'_>> {
    match document.format() {
        Format::Yaml => yaml::parse(document.text(), None).ok(),
        Format::Toml => toml::parse(document.text(), None).ok(),
    }
}

/// Asserts that every way to read a document gives the same result.
pub(super) fn assert_agreement(document: &Document) {
    let text = document.text();
    let plain = (document.format() == Format::Yaml).then(|| plain::parse(text, None).ok()).flatten();
    let whole = whole_tree(document);
    match (&plain, &whole) {
        (Some(plain), Some(whole)) => {
            assert_same_tree(&plain.root, &whole.root, text);
        }
        // The parser expects flow collections to be indented; libyaml does not.
        (Some(plain), None) => {
            let expected: Json =
                serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
            assert_same(&plain.root, &expected, text);
        }
        (None, _) => {}
    }
    let Some(whole) = plain.or(whole) else { return };
    let mut nodes = Collected::default();
    let mut parsed = document.parse(&mut nodes).expect("the same tree");
    nodes.put_back(&mut parsed.root);
    assert_same_tree(&parsed.root, &whole.root, text);
    let cluster = load_as(whole, document);
    assert_eq!(load(document).ok(), cluster, "{text}");
    assert_eq!(diagnose(document).ok(), cluster, "{text}");
    let split = document.clone();
    if let Some(found) = load_split(&split, None) {
        assert_eq!(Some(found), cluster, "{text}");
        assert_positions(&split);
    }
    assert_positions(document);
    assert_positions(&Document::new("again", text.to_owned(), document.format()));
}

fn assert_same_tree(one: &TreeNode<'_>, other: &TreeNode<'_>, text: &str) {
    let [one, other] = [one, other].map(|tree| {
        let mut lines = Vec::new();
        describe(tree, "", &mut lines);
        lines
    });
    let difference = one.iter().zip(&other).find(|(one, other)| one != other);
    assert!(one == other, "{difference:?}:\n{text}");
}

/// Adds a line for everything in a tree.
fn describe(node: &TreeNode<'_>, path: &str, lines: &mut Vec<String>) {
    let span = node.span();
    match &node.value {
        Value::Map(mapping) => {
            lines.push(format!("{path} {span:?} {:?}", mapping.clone().take_duplicates()));
            for entry in &mapping.entries {
                let path = format!("{path}.{:?} {:?}", entry.key, entry.key_span());
                describe(&entry.node, &path, lines);
            }
        }
        Value::List(items) => {
            lines.push(format!("{path} {span:?}"));
            items.iter().enumerate().for_each(|(at, item)| describe(item, &format!("{path}[{at}]"), lines));
        }
        other => lines.push(format!("{path} {span:?} {other:?}")),
    }
}

/// Loads a document from the tree of the whole text.
fn load_as(whole: Parsed<'_>, document: &Document) -> Option<Cluster> {
    let source = document.source();
    let check = StructureCheck::new(&source, document.format());
    let Parsed { mut root, errors, .. } = whole;
    let report = check.finish(&mut root);
    let raw = Drafts::default().complete(root).ok()?;
    let cluster = validate(raw, &report.reported).ok()?;
    (errors.is_empty() && report.problems.is_empty()).then_some(cluster)
}

/// Collects all nodes.
#[derive(Default)]
struct Collected<'a>(Vec<TreeNode<'a>>);

impl<'a> Collected<'a> {
    /// Makes the list of nodes complete again.
    fn put_back(self, root: &mut TreeNode<'a>) {
        let Value::Map(mapping) = &mut root.value else { return };
        let Some(at) = mapping.position(NODES) else { return };
        let value = &mut mapping.entries[at].node.value;
        if matches!(value, Value::Nodes) {
            *value = Value::List(self.0);
        }
    }
}

impl<'a> NodeReceiver<'a> for Collected<'a> {
    fn node(&mut self, node: TreeNode<'a>) {
        self.0.push(node);
    }

    fn restart(&mut self) {
        self.0.clear();
    }
}

/// Asserts that a tree has the same values as another parser found.
fn assert_same(node: &TreeNode<'_>, expected: &Json, text: &str) {
    match (&node.value, expected) {
        (Value::Map(mapping), Json::Object(expected)) => {
            assert_eq!(mapping.entries.len(), expected.len(), "{text}");
            // Of a duplicate key, the other parser keeps the last value and the tree the first.
            if !mapping.has_duplicates() {
                mapping
                    .entries
                    .iter()
                    .for_each(|entry| assert_same(&entry.node, &expected[&*entry.key], text));
            }
        }
        (Value::List(items), Json::Array(expected)) => {
            assert_eq!(items.len(), expected.len(), "{text}");
            items.iter().zip(expected).for_each(|(item, expected)| assert_same(item, expected, text));
        }
        (Value::Text(found), _) => assert_eq!(json!(found), *expected, "{text}"),
        (Value::Integer(found), _) => assert_eq!(json!(found), *expected, "{text}"),
        (Value::Flag(found), _) => assert_eq!(json!(found), *expected, "{text}"),
        (Value::Null, Json::Null) | (Value::Other("a number"), Json::Number(_)) => {}
        (found, _) => panic!("{found:?} is {expected} in:\n{text}"),
    }
}

/// Asserts that everything in a document is where it is in the tree of the whole text.
fn assert_positions(document: &Document) {
    let text = document.text();
    let plain = (document.format() == Format::Yaml).then(|| plain::parse(text, None).ok()).flatten();
    let Some(Parsed { root: tree, .. }) = plain.or_else(|| whole_tree(document)) else { return };
    let source = document.source();
    let found = document.positions();
    let root = ConfigPath::root();
    let keys = ["clusterPrefix", "egressInterface", "nextHop", "nat", "sysctls", "routes", "checks", "nodes"];
    let mut paths: Vec<_> = keys.iter().map(|key| root.key(*key)).collect();
    paths.extend([root.clone(), root.key("nat").key("exclude").index(1), root.key("routes").key("mtu")]);
    for node in 0..6 {
        let node = root.key("nodes").index(node);
        for key in ["name", "os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway"] {
            let key = node.key(key);
            paths.extend([key.index(0), key.index(1), key.index(2), key.key("below"), key]);
        }
        paths.extend([node.key("other"), node]);
    }
    for path in paths {
        let nearest = tree.find(path.segments());
        let is_known = path.segments().is_empty() || !std::ptr::eq(nearest.node, &raw const tree);
        let expected = is_known.then(|| source.position(nearest.span.start));
        assert_eq!(found.of(&path), expected, "{path} in:\n{text}");
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
        assert_agreement(&document(&text));
    }

    #[test]
    fn damaged_lists_are_read_as_the_parser_reads_them(text in text(), edits in edits()) {
        assert_agreement(&document(&edited(text, edits)));
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
            assert_positions(&loaded.document);
        }
    }
}

/// Any JSON text, in one of the ways in which programs write it.
fn json_text() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "[a-z0-9 .:/#,{}\\[\\]'\u{e9}-]{0,8}".prop_map(Json::from),
    ];
    let value = scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-z0-9 :#,-]{0,5}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    });
    let form = select(vec!["", " ", "  ", "\t"]);
    (value, form).prop_map(
        |(value, indent)| {
            if indent.is_empty() { value.to_string() } else { indented(&value, indent) }
        },
    )
}

fn indented(value: &Json, indent: &str) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("JSON");
    String::from_utf8(text).expect("UTF-8")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Almost every JSON text is written plainly.
    #[test]
    fn json_is_plain(text in json_text(), edits in edits()) {
        if text.starts_with(['[', '{']) {
            assert!(plain::parse(&text, None).is_ok(), "{text}");
        }
        assert_agreement(&document(&text));
        assert_agreement(&document(&edited(text, edits)));
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
        let places: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
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
        let document = document(&text);
        assert!(!SplitList::new(&document).expect("plain").rest().contains("podCIDR"));
        assert!(plain::parse(&text, None).is_ok() && load_split(&document, None).is_some(), "{text}");
        assert_agreement(&document);
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a text");
            assert!(plain::parse(&text, None).is_ok(), "{}", path.to_string_lossy());
        }
    }
}

/// The parser ends a comment at these characters, and reads what follows.
/// YAML indents a line in a block with spaces. JSON may use tabs, because nothing is around it.
#[test]
fn a_tab_is_no_indentation_in_a_block() {
    for text in ["- [\n\t[\n\t\tnull\n\t]\n]", "a: [\n  \tb\n  ]\n", "- {\n\t\"a\": 1\n  }\n"] {
        assert!(plain::parse(text, None).is_err(), "{text}");
        assert_agreement(&document(text));
    }
    assert!(plain::parse("[\n\t1\n]", None).is_ok());
}

/// The parser rejects a list that is not indented, so the plain one is compared with another parser.
#[test]
fn duplicate_keys_keep_their_first_value() {
    let text = "clusterPrefix: [\n10.244.0.0/16]\nnodes:\n  - {name: a}\nnodes: []\n";
    assert!(plain::parse(text, None).is_ok() && whole_tree(&document(text)).is_none());
    assert_agreement(&document(text));
}

#[test]
fn a_comment_ends_at_every_line_break_of_the_parser() {
    for line_break in ["\r", "\u{85}", "\u{2028}", "\u{2029}"] {
        for hidden in ["  - {name: b, os: linux, podCIDR: 10.244.2.0/24}", "    address: 172.30.0.9"] {
            let text = format!(
                "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n  - name: a\n    os: linux\n    \
                 podCIDR: 10.244.1.0/24 # more{line_break}{hidden}\n"
            );
            assert!(plain::parse(&text, None).is_err(), "{text:?}");
            assert_agreement(&document(&text));
        }
    }
    for head in ["x'y: 'a\n", "a'b: \"c\n"] {
        let text = format!("{head}nodes:\n- name: a\nend'\n");
        assert!(SplitList::new(&document(&text)).is_none(), "{head}");
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
    let list = |document| SplitList::new(document).expect("plain");
    let shared = list(&earlier).shared_with(&list(&later.document));
    assert_eq!(shared, [Some(0), Some(2), None, Some(1)]);
    assert_eq!(load_split(&earlier, Some(&later)), load(&earlier).ok());
}
