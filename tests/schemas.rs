//! The output of `--json` matches the schemas exactly: nothing is missing and nothing is undocumented.

use std::{collections::BTreeSet, fs, path::Path};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{
    diff_cases, plan_cases,
    support::schema::{accept, schema, strict},
};

/// Verifies that the schema rejects the document if one of these values is missing or has another type.
#[track_caller]
fn assert_required(validator: &Validator, good: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let mut missing = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        missing.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).expect("it is there");
        assert!(!validator.is_valid(&missing), "{pointer} must be required");
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = json!({ "not": "this" });
        assert!(!validator.is_valid(&wrong), "{pointer} must have a type");
    }
}

#[test]
fn comparisons_match_their_schema() {
    let validator = strict("diff");
    let cases = diff_cases::folders();
    for folder in &cases {
        let report = serde_json::to_value(diff_cases::report(folder)).unwrap();
        accept(&validator, &folder.display().to_string(), &report);
    }
    let folder = cases.iter().find(|folder| folder.ends_with("one-node-more")).unwrap();
    let good = serde_json::to_value(diff_cases::report(folder)).unwrap();
    assert_required(
        &validator,
        &good,
        &[
            "/format",
            "/new",
            "/totals/nodes",
            "/blocks/0/status",
            "/blocks/0/nodes/0/name",
            "/blocks/0/changes/0/action",
            "/blocks/0/changes/0/kind",
            "/blocks/0/changes/0/reason",
            "/blocks/0/changes/0/location/file",
            "/blocks/0/changes/0/location/line",
            "/blocks/0/changes/0/after/route/nextHop",
        ],
    );
}

#[test]
fn plans_match_their_schema() {
    let validator = strict("plan");
    let cases = plan_cases::folders();
    for folder in &cases {
        if let Some(report) = plan_cases::report(folder) {
            accept(&validator, &folder.display().to_string(), &serde_json::to_value(report).unwrap());
        }
    }
    let folder = cases.iter().find(|folder| folder.ends_with("fresh-node")).unwrap();
    let good = serde_json::to_value(plan_cases::report(folder)).unwrap();
    assert_required(
        &validator,
        &good,
        &["/format", "/totals/unknown", "/changes/0/action", "/changes/0/drift"],
    );
}

/// The descriptions come from doc comments, but their readers know JSON, not Rust.
#[test]
fn descriptions_are_free_of_rust() {
    fn descriptions(schema: &Value, found: &mut Vec<String>) {
        if let Some(text) = schema["description"].as_str() {
            found.push(text.to_owned());
        }
        let inner: Vec<_> = match schema {
            Value::Object(map) => map.values().collect(),
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        inner.into_iter().for_each(|schema| descriptions(schema, found));
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".schema.json").expect("a schema");
        let mut found = Vec::new();
        descriptions(&schema(name), &mut found);
        assert!(!found.is_empty(), "{name}");
        for text in found {
            let is_rust = text.contains("[`") || text.contains("`None`") || text.contains("`Some");
            assert!(!is_rust, "{name}: {text}");
        }
    }
}

/// The guide lists the fields of errors and findings completely, and no field that does not exist.
#[test]
fn the_guide_names_the_fields_of_the_schemas() {
    let guide = include_str!("../src/guide/exit-codes-and-json.md");
    let words = |text: &str| -> BTreeSet<String> {
        text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
    };
    let fields = |name: &str, pointer: &str| -> BTreeSet<String> {
        schema(name).pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
    };
    let (_, common) = guide.split_once("These fields are the same in every document").unwrap();
    for (row, document, type_name, others) in [
        ("error", "error", "ErrorJson", &[][..]),
        ("findings", "plan", "FindingEntry", &["hostgw help CODE"]),
        ("location", "plan", "SourceLocation", &[]),
    ] {
        let (_, described) = common.split_once(&format!("| `{row}` | ")).unwrap();
        let (described, _) = described.split_once(" |\n").unwrap();
        let mut described = words(described);
        others.iter().for_each(|other| assert!(described.remove(*other)));
        assert_eq!(described, fields(document, &format!("/$defs/{type_name}/properties")));
    }
    let (_, table) = guide.split_once("Its document has these fields:").unwrap();
    let rows =
        table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows.flat_map(|row| words(row.split('|').nth(1).unwrap())).collect();
    assert!(listed.len() > 5, "{listed:?}");
    let unknown: Vec<_> = listed.difference(&fields("transaction", "/properties")).cloned().collect();
    assert_eq!(unknown, Vec::<String>::new());
}

/// The keys that the Ansible module reads from documents exist in a schema.
#[test]
fn the_ansible_module_reads_keys_of_the_schemas() {
    /// The variables that hold documents or parts of them.
    const DOCUMENTS: [&str; 14] = [
        "report", "change", "item", "error", "document", "location", "one", "conflict", "part", "finding",
        "history", "pending", "status", "old",
    ];
    let module = include_str!("../examples/ansible/roles/hostgw/library/hostgw.py");
    let mut known = BTreeSet::new();
    for entry in fs::read_dir("schemas").unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        properties(&serde_json::from_str(&text).unwrap(), &mut known);
    }
    let mut read = BTreeSet::new();
    for (opening, closing) in [("[\"", "\"]"), (".get(\"", "\"")] {
        for (at, _) in module.match_indices(opening) {
            let before = module[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let (key, _) = module[at + opening.len()..].split_once(closing).unwrap();
            if DOCUMENTS.contains(&before) {
                read.insert(key.to_owned());
            }
        }
    }
    assert!(read.len() > 25, "{read:?}");
    let unknown: Vec<&String> = read.difference(&known).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}

/// Collects the names of all properties in a schema.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let own = members.get("properties").and_then(Value::as_object);
            names.extend(own.into_iter().flat_map(|own| own.keys().cloned()));
            members.values().for_each(|member| properties(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, names)),
        _ => {}
    }
}
