//! The rules: their explanations and their list are complete.

use hostgw::{
    config::{Document, Format, Loaded},
    diagnose::{Rule, Severity},
};

/// The YAML examples in the explanation of a rule: an invalid one, and the fixed one.
fn examples(rule: Rule) -> Vec<&'static str> {
    let blocks = rule.explanation().split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

/// The codes of the rules that a configuration violates.
fn violations(text: &str) -> Vec<Rule> {
    let document = Document::new("hostgw.yaml", text.to_owned(), Format::Yaml);
    match Loaded::new(document) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.errors().iter().map(|error| error.rule).collect(),
    }
}

#[test]
fn the_examples_of_a_rule_violate_only_that_rule() {
    let mut tried = 0;
    for rule in Rule::ALL {
        let examples = examples(*rule);
        let [wrong, fixed] = examples[..] else {
            assert!(examples.is_empty(), "{rule} has {} examples", examples.len());
            continue;
        };
        assert_eq!(violations(wrong), [*rule], "{rule}: the wrong example");
        assert_eq!(violations(fixed), [], "{rule}: the fixed example");
        tried += 1;
    }
    assert!(tried > 35, "{tried}");
}

#[test]
fn every_rule_about_a_configuration_has_examples() {
    let without = ["HG0002", "HG0007"];
    for rule in Rule::ALL.iter().filter(|rule| rule.code() < "HG07") {
        assert_eq!(rule.severity(), Severity::Error, "{rule}");
        assert_ne!(without.contains(&rule.code()), examples(*rule).len() == 2, "{rule}");
    }
}

#[test]
fn the_guide_lists_every_rule() {
    let guide = include_str!("../src/guide/diagnostics.md");
    let rows: Vec<String> = Rule::ALL
        .iter()
        .map(|rule| format!("| {rule} | {} | {} |", rule.severity().name(), rule.title()))
        .collect();
    let listed: Vec<&str> = guide.lines().filter(|line| line.starts_with("| HG")).collect();
    assert_eq!(listed, rows);
}

/// Every code that is used belongs to a rule, and every rule is used.
#[test]
fn every_rule_is_used() {
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for rule in Rule::ALL {
        assert!(sources.contains(&format!("Rule::{rule:?}")), "{rule} ({rule:?}) is never used");
    }
}
