//! The files of `examples/monitoring` use metrics and labels that there are: those in the guide, which another test compares
//! with what the agent serves.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

fn read(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the name of every series, with its labels.
fn series() -> BTreeMap<String, Vec<String>> {
    let rows = include_str!("../src/guide/node-agent.md")
        .lines()
        .filter(|line| line.starts_with("| `hostgw_agent_"));
    let mut series = BTreeMap::new();
    for row in rows {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [_, name, kind, labels, ..] = &cells[..] else { panic!("{row}") };
        let labels: Vec<String> =
            labels.split(", ").filter(|label| !label.is_empty()).map(ToOwned::to_owned).collect();
        if kind == "histogram" {
            for suffix in ["_bucket", "_sum", "_count"] {
                series.insert(format!("{name}{suffix}"), [&labels[..], &["le".to_owned()]].concat());
            }
        } else {
            series.insert(name.clone(), labels);
        }
    }
    assert!(series.len() > 15, "{series:?}");
    series
}

/// Returns the words of an expression that can be names of metrics or labels, and what follows each of them.
fn words(expression: &str) -> Vec<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let (mut words, mut rest) = (Vec::new(), expression);
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        rest = &word[end..];
        words.push((&word[..end], rest));
    }
    words
}

/// Checks the metrics of an expression and the labels that select or group them. Returns the number of metrics.
#[track_caller]
fn check(expression: &str) -> usize {
    const OF_TARGETS: [&str; 2] = ["job", "instance"];
    let series = series();
    let mut known: Vec<&str> = OF_TARGETS.to_vec();
    let mut count = 0;
    for (word, rest) in words(expression) {
        if word != "up" && !word.starts_with("hostgw_") {
            continue;
        }
        let labels = match series.get(word) {
            Some(labels) => &labels[..],
            None if word == "up" => &[],
            None => panic!("no metric {word}: {expression}"),
        };
        let selected = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        for matcher in selected.map_or("", |(matchers, _)| matchers).split(',').filter(|it| !it.is_empty()) {
            let label = matcher.trim().split(['=', '!']).next().unwrap();
            let exists = OF_TARGETS.contains(&label) || labels.iter().any(|known| known == label);
            assert!(exists, "{word} has no label {label}: {expression}");
        }
        known.extend(labels.iter().map(String::as_str));
        count += 1;
    }
    for (word, rest) in words(expression).into_iter().filter(|(word, _)| ["by", "on"].contains(word)) {
        let labels = rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
        for label in labels.unwrap_or_else(|| panic!("{word}: {expression}")).0.split(", ") {
            assert!(known.contains(&label), "no label {label}: {expression}");
        }
    }
    count
}

/// Returns the strings at every `key` in a document.
fn strings_at<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| strings_at(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| strings_at(value, key, found)),
        _ => {}
    }
}

#[test]
fn alerts_use_metrics_that_exist() {
    let alerts: Value = serde_yaml::from_str(&read("alerts.yml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 8);
    let mut names = Vec::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(check(rule["expr"].as_str().unwrap()) > 0, "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().unwrap().ends_with('.'), "{name}: {text}");
        }
        assert!(!names.contains(&name), "{name} twice");
        names.push(name);
    }
    let readme = read("README.md");
    for name in readme.split('`').filter(|span| span.starts_with("Hostgw")) {
        assert!(names.contains(&name), "README.md names {name}");
    }
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let (mut expressions, mut variables) = (Vec::new(), Vec::new());
    strings_at(&dashboard["panels"], "expr", &mut expressions);
    strings_at(&dashboard["templating"], "definition", &mut variables);
    assert!(expressions.len() > 15 && variables.len() == 2, "{expressions:?} {variables:?}");
    for expression in expressions.iter().chain(&variables) {
        assert!(check(expression) > 0, "{expression}");
    }
    // Everything that the agent counts or measures can be seen.
    let all = expressions.join(" ") + &read("alerts.yml");
    let unseen = ["hostgw_agent_last_repair_timestamp_seconds"];
    for name in series().keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        assert!(
            all.contains(name.as_str()) || unseen.contains(&name.as_str()),
            "{name} is nowhere to be seen"
        );
    }
}

#[test]
fn panels_neither_overlap_nor_share_an_id() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let area = |panel: &Value| {
        let number = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        (number("x"), number("y"), number("x") + number("w"), number("y") + number("h"))
    };
    for (at, panel) in panels.iter().enumerate() {
        let (left, top, right, bottom) = area(panel);
        assert!(right <= 24, "{}", panel["title"]);
        for other in &panels[..at] {
            let (x, y, end, below) = area(other);
            assert_ne!(panel["id"], other["id"]);
            let is_apart = right <= x || end <= left || bottom <= y || below <= top;
            assert!(is_apart, "{} and {}", panel["title"], other["title"]);
        }
    }
}

#[test]
#[should_panic(expected = "no metric hostgw_agent_typos_total")]
fn an_unknown_metric_is_found() {
    check("rate(hostgw_agent_typos_total[5m])");
}

#[test]
#[should_panic(expected = "hostgw_agent_ready has no label kind")]
fn an_unknown_label_is_found() {
    check("hostgw_agent_ready{instance=\"a\", kind=\"route\"} == 0");
}

#[test]
#[should_panic(expected = "no label kind")]
fn a_group_by_an_unknown_label_is_found() {
    check("sum by (instance, kind) (hostgw_agent_routes)");
}
