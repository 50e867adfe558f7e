//! `hostgw validate --format`, and `hostgw help CODE`.

use serde_json::{Value, json};

use super::{NODE_1, NODE_2, RECIPE, cluster, node};
use crate::support::namespace::{Snapshots, each};

/// Files with all kinds of findings: one with a second location, a misspelled key, and one that cannot be read.
const FILES: [&str; 4] = ["twice.yaml", "hostgw.yaml", "a%b: c.yaml", "missing.yaml"];

#[test]
fn the_findings_are_the_same_in_every_format() {
    each(|privilege| {
        let node = node(privilege);
        node.write("twice.yaml", &cluster("", &[NODE_1, ("linux-1", NODE_2.1, NODE_2.2)]));
        node.write("a%b: c.yaml", &RECIPE.replace("egressInterface", "egresInterface"));
        let validate = |format: &str| {
            let arguments: Vec<&str> = ["validate", "--format", format].into_iter().chain(FILES).collect();
            node.hostgw(&arguments).expect(3)
        };
        let mut snapshots = Snapshots::default();
        for format in ["text", "github", "markdown"] {
            snapshots.compare(&format!("validate-{format}"), &validate(format));
        }
        snapshots.conclude();
        assert_eq!(
            validate("json").json(),
            node.hostgw(&["validate", "--json", FILES[0], FILES[1], FILES[2], FILES[3]]).json()
        );
        let sarif = validate("sarif").json();
        assert_eq!(sarif["version"], "2.1.0");
        let run = &sarif["runs"][0];
        let rules: Vec<&Value> =
            run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert_eq!(rules, ["HG0003", "HG0202"]);
        let results = run["results"].as_array().unwrap();
        let ids: Vec<&Value> = results.iter().map(|result| &result["ruleId"]).collect();
        assert_eq!(ids, [&json!("HG0202"), &json!("HG0003"), &json!("HG0003"), &Value::Null]);
        assert_eq!(
            results[1]["locations"][0]["physicalLocation"],
            json!({
                "artifactLocation": { "uri": "a%25b%3A%20c.yaml" },
                "region": { "startLine": 4, "startColumn": 1 },
            })
        );
        assert_eq!(results[0]["relatedLocations"][0]["message"]["text"], "first used here");
        assert!(results.iter().all(|result| result["level"] == "error"), "{results:#?}");
        let valid = node.hostgw(&["validate", "--format", "sarif"]).expect(0).json();
        assert_eq!(valid["runs"][0]["results"], json!([]));
        node.hostgw(&["validate", "--json", "--format", "sarif"]).expect(64);
    });
}

#[test]
fn every_code_is_explained() {
    each(|privilege| {
        let node = node(privilege);
        for rule in hostgw::diagnose::Rule::ALL {
            node.hostgw(&["help", rule.code()]).expect(0).says(rule.title());
        }
        let mut snapshots = Snapshots::default();
        snapshots.compare("help-code", &node.hostgw(&["help", "hg0210"]).expect(0));
        snapshots.conclude();
    });
}
