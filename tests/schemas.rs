//! The output of `--json` matches the schemas exactly: nothing is missing and nothing is undocumented.

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{
    diff_cases, plan_cases,
    support::schema::{accept, strict},
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
