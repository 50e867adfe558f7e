//! What `--json` prints is what the schemas say, and the schemas say all of it.

use std::{fs, path::Path};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{diff_cases, plan_cases};

/// A schema of the repository, with everything forbidden that it does not describe.
fn strict(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.schema.json"));
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("type") == Some(&json!("object")) && map.contains_key("properties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[track_caller]
fn accept(validator: &Validator, what: &str, value: &Value) {
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// Every value without which, or with another type of which, the schema must refuse the whole.
#[track_caller]
fn refuse(validator: &Validator, good: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let mut missing = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        missing.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).expect("it is there");
        assert!(!validator.is_valid(&missing), "{pointer} may not be missing");
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = json!({ "not": "this" });
        assert!(!validator.is_valid(&wrong), "{pointer} may not be anything");
    }
}

#[test]
fn comparisons_are_as_their_schema_says() {
    let validator = strict("diff");
    let cases = diff_cases::folders();
    for folder in &cases {
        let report = serde_json::to_value(diff_cases::report(folder)).unwrap();
        accept(&validator, &folder.display().to_string(), &report);
    }
    let folder = cases.iter().find(|folder| folder.ends_with("one-node-more")).unwrap();
    let good = serde_json::to_value(diff_cases::report(folder)).unwrap();
    refuse(
        &validator,
        &good,
        &[
            "/format",
            "/new",
            "/totals/nodes",
            "/blocks/0/standing",
            "/blocks/0/nodes/0/name",
            "/blocks/0/changes/0/action",
            "/blocks/0/changes/0/kind",
            "/blocks/0/changes/0/reason",
            "/blocks/0/changes/0/source/file",
            "/blocks/0/changes/0/source/line",
            "/blocks/0/changes/0/after/route/next",
        ],
    );
}

#[test]
fn plans_are_as_their_schema_says() {
    let validator = strict("plan");
    let cases = plan_cases::folders();
    for folder in &cases {
        if let Some(report) = plan_cases::report(folder) {
            accept(&validator, &folder.display().to_string(), &serde_json::to_value(report).unwrap());
        }
    }
    let folder = cases.iter().find(|folder| folder.ends_with("fresh-node")).unwrap();
    let good = serde_json::to_value(plan_cases::report(folder)).unwrap();
    refuse(&validator, &good, &["/format", "/totals/unknown", "/changes/0/action", "/changes/0/drift"]);
}
