//! Pull-request comments keep their structure, whatever names they contain. An independent CommonMark parser verifies
//! them.

use std::net::IpAddr;

use hostgw::{
    config::{self, Document, Format},
    diagnose::{Diagnostic, Rule},
    model::{Cluster, ConfigPath, InterfaceName},
    plan::{self, Action, ForeignPolicy, OriginalSysctls, compare},
    render::{
        COMMENT_LIMIT, ComparedFiles, ComparisonReport, Detail, Palette, Report, SourceLocation,
        comparison_markdown, comparison_text, plan_markdown,
    },
    state::{Route, State, StatePart, Unknown},
};
use proptest::prelude::*;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::support::clusters::two;

/// A comment as parsed.
#[derive(Default)]
struct ParsedComment {
    html: String,
    text: String,
    /// The contents of code spans.
    spans: Vec<String>,
    /// The contents of fenced blocks.
    fenced: String,
    headings: usize,
}

/// Parses a comment, and panics at elements that hostgw never writes.
fn parse(markdown: &str) -> ParsedComment {
    let mut parsed = ParsedComment::default();
    let mut in_fence = false;
    for event in Parser::new(markdown) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                assert_eq!(&*language, "diff", "{markdown}");
                in_fence = true;
            }
            Event::End(TagEnd::CodeBlock) => in_fence = false,
            Event::Text(text) if in_fence => parsed.fenced.push_str(&text),
            Event::Text(text) => parsed.text.extend([&*text, "\n"]),
            Event::Code(text) => parsed.spans.push(text.into_string()),
            Event::Html(html) | Event::InlineHtml(html) => parsed.html.push_str(&html),
            Event::Start(Tag::Heading { .. }) => parsed.headings += 1,
            Event::Start(Tag::Paragraph | Tag::HtmlBlock | Tag::Strong | Tag::Emphasis)
            | Event::End(_)
            | Event::SoftBreak => {}
            other => panic!("{other:?} in\n{markdown}"),
        }
    }
    parsed
}

/// Verifies the structure of a comment, and returns its contents with names unescaped.
fn check(markdown: &str) -> ParsedComment {
    let parsed = parse(markdown);
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || " \n.,:;()'_→-#".contains(c);
    assert!(parsed.text.chars().all(is_harmless), "{:?} in\n{markdown}", parsed.text);
    let mut html = parsed.html.lines();
    let marker = html.next().unwrap();
    assert_eq!(markdown.lines().next(), Some(marker));
    let inside = marker.strip_prefix("<!-- hostgw:").and_then(|rest| rest.strip_suffix(" -->")).unwrap();
    assert!(!inside.contains(['<', '>', '`', '&', '@']), "{marker}");
    for line in html {
        let summary = line.strip_prefix("<summary>").and_then(|rest| rest.strip_suffix("</summary>"));
        let known = summary.is_some_and(|text| text.chars().all(is_harmless))
            || ["<details>", "<details open>", "</details>"].contains(&line);
        assert!(known, "{line:?} in\n{markdown}");
    }
    for line in parsed.fenced.lines() {
        assert!(
            ["+ ", "- ", "! ", "= ", "  dev", "  -InterfaceAlias"]
                .iter()
                .any(|start| line.starts_with(start)),
            "{line:?}"
        );
        assert!(!line.contains(['`', '<', '&', '@']), "{line:?}");
    }
    let is_hidden = |c: char| (c.is_control() && c != '\n') || ('\u{200b}'..='\u{206f}').contains(&c);
    assert!(!markdown.contains(is_hidden), "{markdown:?}");
    ParsedComment {
        spans: parsed.spans.iter().map(|span| plain(span)).collect(),
        fenced: plain(&parsed.fenced),
        ..parsed
    }
}

/// Removes escapes such as `\u{60}` from the text, for comparisons.
fn plain(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let character = part.split_once('}').and_then(|(number, rest)| {
            let character = u32::from_str_radix(number, 16).ok().and_then(char::from_u32)?;
            Some((character, rest))
        });
        match character {
            Some((character, rest)) => plain.extend([character.to_string().as_str(), rest]),
            None => plain.extend(["\\u{", part]),
        }
    }
    plain.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
}

/// Generates node names that try to escape from their place.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "`",
        "```",
        "````",
        "~~~",
        "<script>",
        "</details>",
        "<!--",
        "-->",
        "&lt;",
        "&#64;",
        "@owner",
        "**",
        "_",
        "](http://x.example)",
        "[x]",
        "![",
        "https://x.example",
        "www.x.example",
        "#1",
        "\\",
        "\\`",
        "|",
        "+",
        "-",
        "!",
        "'",
        "\"",
        "\u{202e}",
        "\u{200b}",
        "é",
        "$(id)",
        "%0a",
        "{}",
        "\\u{60}",
        "n",
    ]);
    prop::collection::vec(pieces, 1..5).prop_map(|pieces| pieces.concat())
}

/// Generates names that can also contain whitespace and line breaks.
fn hostile_text() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", " ", "\n", "\n\n```\n\n", "\t", "\r\n", "  "]);
    (hostile(), space, hostile()).prop_map(|(one, space, other)| format!("{one}{space}{other}"))
}

/// Renames everything in a cluster that a configuration can name freely.
fn rename(cluster: &mut Cluster, names: &[String], value: &str) {
    let many = names.len();
    for (at, node) in cluster.nodes.iter_mut().enumerate() {
        node.name = format!("{}{}", names[at % many], node.name.as_raw()).into();
        if node.egress_interface().is_some() {
            node.overrides_mut().egress_interface =
                InterfaceName::windows(&format!("{} x", names[(at + 1) % many])).ok();
        }
    }
    cluster.egress_interface = InterfaceName::windows(&names[0]).ok();
    for (_, sysctl) in &mut cluster.sysctls {
        *sysctl = format!("{}{}", sysctl.as_raw(), value.replace(char::is_control, " ")).into();
    }
}

fn report(old: Option<(&str, &Cluster)>, new: (&str, &Cluster)) -> ComparisonReport {
    let comparison = compare(old.map(|(_, cluster)| cluster), new.1);
    let names = (old.map(|(name, _)| name.into()), new.0.into());
    let files = ComparedFiles {
        old: old.zip(names.0.as_ref()).map(|((_, cluster), name)| (name, cluster)),
        new: (&names.1, new.1),
    };
    ComparisonReport::new(comparison, files, |side, path| {
        let file = if side == compare::Side::Old { old?.0 } else { new.0 };
        Some(source(file, path))
    })
}

fn source(file: &str, path: &ConfigPath) -> SourceLocation {
    SourceLocation::new(path, &file.into(), 7, 1)
}

/// Parses the numbers in a line such as `1 to add, 2 to update, 3 to remove`, and the number in front of them.
fn counts(line: &str) -> [usize; 4] {
    let words: Vec<&str> = line.split([' ', ':', ';', ',', '.']).collect();
    let before = |word: &str| -> usize {
        let at = words.windows(2).position(|pair| pair == ["to", word]).unwrap();
        words[at - 1].parse().unwrap()
    };
    [words[0].trim_start_matches('*').parse().unwrap(), before("add"), before("update"), before("remove")]
}

/// Returns the same numbers, counted in the JSON.
fn counts_in_json(json: &serde_json::Value) -> [usize; 4] {
    let mut counts = [0; 4];
    let mut nodes = std::collections::BTreeSet::new();
    for block in json["blocks"].as_array().unwrap() {
        let names = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let all: Vec<String> = block["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["name"].as_str().unwrap().to_owned())
            .collect();
        for change in block["changes"].as_array().unwrap() {
            let except = names(&change["on"]["except"]);
            let only = change["on"]["only"].as_str();
            let is_affected =
                |name: &&String| !except.contains(name) && only.is_none_or(|only| only == *name);
            let on: Vec<&String> = all.iter().filter(is_affected).collect();
            assert_eq!(change["on"]["nodes"], on.len());
            let at =
                ["add", "update", "remove"].iter().position(|action| change["action"] == **action).unwrap();
            counts[at + 1] += on.len();
            // A removed node and a remaining one can have the same name.
            let is_removed = block["status"] == "removed";
            nodes.extend(on.into_iter().map(|name| (is_removed, name.clone())));
        }
    }
    counts[0] = nodes.len();
    counts
}

/// Returns `true` if a fenced block contains the text, regardless of column widths.
fn has_line(parsed: &ParsedComment, text: &str) -> bool {
    let narrow = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    narrow(&parsed.fenced).contains(&narrow(text))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_names_are_contained_in_comparisons(
        (mut old, mut new) in two(),
        names in prop::collection::vec(hostile(), 1..4),
        value in hostile_text(),
        files in prop::array::uniform3(hostile_text()),
        with_old in prop::bool::weighted(0.8),
    ) {
        rename(&mut old, &names, &value);
        rename(&mut new, &names, &value);
        let [old_file, new_file, file] = &files;
        let report = report(with_old.then_some((old_file.as_str(), &old)), (new_file, &new));
        let markdown = comparison_markdown(&report, &file.as_str().into());
        let parsed = check(&markdown);
        prop_assert!(markdown.len() <= COMMENT_LIMIT);
        prop_assert!(parsed.spans.contains(&plain(new_file)), "{:?} not in {:?}", new_file, parsed.spans);
        for block in &report.blocks {
            let removals = block.changes.iter().filter(|entry| entry.action == Action::Remove);
            for entry in removals.filter(|_| block.status != compare::NodeStatus::Removed) {
                let text = entry.before.as_ref().unwrap().text();
                prop_assert!(has_line(&parsed, &format!("- {}", plain(&text))), "{text:?} not in\n{markdown}");
            }
            for node in block.nodes.iter().filter(|_| block.status == compare::NodeStatus::Removed) {
                prop_assert!(parsed.fenced.contains(&format!("- node {}", plain(node.name.as_raw()))), "{markdown}");
            }
        }
    }

    #[test]
    fn hostile_names_are_contained_in_plans(
        (mut cluster, mut before) in two(),
        names in prop::collection::vec(hostile(), 1..4),
        value in hostile_text(),
        file in hostile_text(),
    ) {
        rename(&mut cluster, &names, &value);
        rename(&mut before, &names, &value);
        let linux = |cluster: &Cluster| (0..cluster.nodes.len()).find_map(|index| {
            plan::desired(cluster, index, &OriginalSysctls::default()).ok().map(|desired| (index, desired))
        });
        let Some((index, desired)) = linux(&cluster) else { return Ok(()) };
        let live = linux(&before).map(|(_, desired)| desired.state).unwrap_or_default();
        let observed = hostile_state(live, &names);
        let plan = plan::plan(&desired.state, &observed, ForeignPolicy::Respect);
        let explain = |change: &_| plan::reason(Some(&cluster), &desired, &OriginalSysctls::default(), None, change);
        let mut report = Report::new(&plan, explain, |_, path| Some(source(&file, path)));
        report.node = Some(cluster.nodes[index].name.clone());
        report.warn([Diagnostic::new(Rule::PathLost, value.clone())], |_| None);
        let markdown = plan_markdown(&report);
        let parsed = check(&markdown);
        prop_assert!(parsed.spans.contains(&plain(cluster.nodes[index].name.as_raw())));
        for entry in report.changes.iter().filter(|entry| entry.action == Action::Remove) {
            let text = entry.before.as_ref().unwrap().text();
            prop_assert!(has_line(&parsed, &format!("- {}", plain(&text))), "{text:?} not in\n{markdown}");
        }
        let line = markdown.lines().find(|line| line.starts_with("**")).unwrap();
        if !line.contains("No changes") && !line.contains("Nothing to do") {
            let counts = counts(&line.replace("**Plan", "0"));
            let totals = report.totals;
            prop_assert_eq!(counts, [0, totals.add, totals.update, totals.remove]);
        }
    }

    /// Text, JSON and Markdown contain the same numbers, which match the changes.
    #[test]
    fn counts_agree_in_every_format((old, new) in two()) {
        let report = report(Some(("old.yaml", &old)), ("new.yaml", &new));
        let json = serde_json::to_value(&report).unwrap();
        let expected = counts_in_json(&json);
        let totals = |key: &str| json["totals"][key].as_u64().unwrap() as usize;
        prop_assert_eq!(expected, [totals("nodes"), totals("add"), totals("update"), totals("remove")]);
        let markdown = comparison_markdown(&report, &"new.yaml".into());
        check(&markdown);
        let mut lines = vec![markdown.lines().find(|line| line.starts_with("**")).unwrap().to_owned()];
        for detail in [Detail::Summary, Detail::Collapsed, Detail::Full] {
            let text = comparison_text(&report, &Palette::new(false), detail);
            let is_totals = |line: &&str| line.ends_with('.') && (line.contains(" to add") || line.starts_with("No changes"));
            lines.push(text.lines().rfind(is_totals).unwrap().to_owned());
        }
        for line in lines {
            if expected[0] == 0 {
                prop_assert!(line.contains("No changes"), "{}", line);
            } else {
                prop_assert_eq!(counts(&line), expected, "{}", line);
            }
        }
    }
}

/// Returns the state of a node whose foreign objects also have hostile names.
fn hostile_state(mut state: State, names: &[String]) -> State {
    let mut routes = state.routes.to_vec();
    for (at, route) in routes.iter_mut().enumerate() {
        route.protocol = if at % 3 == 0 { 4 } else { 87 };
        route.next_hop.device = Some(names[at % names.len()].clone().into());
    }
    let gateway: IpAddr = "10.244.77.1".parse().unwrap();
    if let Some(mut route) = routes.first().cloned() {
        route.destination = "10.244.77.0/24".parse().unwrap();
        route.next_hop.gateway = Some(gateway);
        route.protocol = 87;
        routes.push(route);
    }
    routes.sort_by_key(Route::key);
    state.routes = routes.into();
    state.unknown.push(Unknown { part: StatePart::Records, reason: names[0].clone().into(), remedy: None });
    state
}

/// The verification detects what it should.
#[test]
fn the_verification_detects_violations() {
    let comment = |line: &str| format!("<!-- hostgw:diff x -->\n\n{line}\n");
    let fails = |line: &str| std::panic::catch_unwind(|| check(&comment(line))).is_err();
    assert!(!fails("On 3 of 3 nodes: `a`"));
    for line in [
        "@owner",
        "<b>",
        "[a](http://b)",
        "```diff\n+ a `b`\n```",
        "```diff\n@owner\n```",
        "<!-- a -->",
        "a\u{202e}",
    ] {
        assert!(fails(line), "{line}");
    }
    let document = Document::new("x", "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes: [{name: '`', os: linux, podCIDR: 10.0.0.0/24}]\n".to_owned(), Format::Yaml);
    assert!(config::load(&document).is_ok(), "the name of the node is valid");
}
