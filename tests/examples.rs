//! Every configuration in `examples` loads, matches the JSON Schema, and yields the plan in
//! `tests/cases/examples/NAME.txt` for its first node.

use std::{fs, path::Path};

use hostgw::{
    config::{self, Document, Format},
    model::{Cluster, ConfigPath, OperatingSystem},
    plan::{self, Desired, ForeignPolicy, OriginalSysctls, Plan},
    render::{self, Palette, Report, SourceLocation},
    state::State,
};

use crate::support::{cases, schema::schema};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> Document {
    Document::read(&root().join("examples").join(name)).unwrap()
}

fn load(name: &str) -> Cluster {
    config::load(&document(name)).unwrap_or_else(|invalid| panic!("{name}\n{}", invalid.render(false)))
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(root().join("examples")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| Format::of_path(path).is_some())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Plans a node with no managed objects, but with all the sysctls it needs.
fn fresh_plan(cluster: &Cluster, index: usize) -> (Desired, Plan) {
    let desired = plan::desired(cluster, index, &OriginalSysctls::default()).expect("a Linux node");
    let sysctls = desired.state.sysctls.keys().map(|key| (key.clone(), "0".into())).collect();
    let observed = State { sysctls, ..State::default() };
    let plan = plan::plan(&desired.state, &observed, ForeignPolicy::Respect);
    (desired, plan)
}

#[test]
fn every_example_has_its_expected_plan() {
    let mut failures = Vec::new();
    let names = names();
    for name in &names {
        let cluster = load(name);
        let index = cluster.nodes.iter().position(|node| node.os == OperatingSystem::Linux).unwrap();
        let (desired, plan) = fresh_plan(&cluster, index);
        let explain =
            |change: &_| plan::reason(Some(&cluster), &desired, &OriginalSysctls::default(), None, change);
        let positions = document(name).positions();
        let locate = |_, path: &ConfigPath| {
            let position = positions.of(path)?;
            Some(SourceLocation::new(path, &name.as_str().into(), position.line, position.column))
        };
        let report = Report::new(&plan, explain, locate);
        let text = render::text(&report, &Palette::new(false));
        cases::compare(&root().join(format!("tests/cases/examples/{name}.txt")), &text, &mut failures);
    }
    cases::assert_none(names.len(), &failures);
}

#[test]
fn yaml_and_toml_yield_the_same_plans() {
    let (yaml, toml) = (load("recipe.yaml"), load("recipe.toml"));
    assert_eq!(yaml, toml);
    for index in 0..yaml.nodes.len() {
        if yaml.nodes[index].os == OperatingSystem::Linux {
            assert_eq!(fresh_plan(&yaml, index).1, fresh_plan(&toml, index).1);
        }
    }
}

#[test]
fn an_independent_validator_accepts_the_examples_and_rejects_errors() {
    let validator = jsonschema::validator_for(&schema("config")).unwrap();
    let instance = |name: &str| -> serde_json::Value {
        let text = fs::read_to_string(root().join(name)).unwrap();
        if name.ends_with(".toml") {
            toml::from_str(&text).unwrap()
        } else {
            serde_yaml::from_str(&text).unwrap()
        }
    };
    for name in names() {
        let errors: Vec<_> = validator
            .iter_errors(&instance(&format!("examples/{name}")))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    let good = instance("examples/recipe.yaml");
    let broken: [(&str, serde_json::Value); 11] = [
        ("/unknownKey", serde_json::json!(1)),
        ("/clusterPrefix", serde_json::json!(10)),
        ("/nextHop", serde_json::json!("router")),
        ("/nodes/0/os", serde_json::json!("solaris")),
        ("/nodes/0/podCidr", serde_json::json!("10.244.0.0/24")),
        ("/checks", serde_json::json!([{ "timeout": "3s" }])),
        ("/checks", serde_json::json!([{ "tcp": "172.30.0.1:6443", "neighbor": "172.30.0.1" }])),
        ("/checks", serde_json::json!([{ "tcp": "api.example:6443" }])),
        ("/checks", serde_json::json!([{ "tcp": "172.30.0.1" }])),
        ("/checks", serde_json::json!([{ "neighbor": "172.30.0.1", "timeout": 3 }])),
        ("/checks", serde_json::json!([{ "neighbor": "172.30.0.1", "timeout": "1d" }])),
    ];
    for (pointer, value) in broken {
        let mut bad = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[key] = value;
        assert!(!validator.is_valid(&bad), "{pointer} should be rejected");
    }
}

/// `tests/image` runs the rest of the folder.
#[test]
fn the_configurations_for_kubernetes_are_valid() {
    let nodes = |folder: &str| load(&format!("kubernetes/{folder}/hostgw.yaml")).nodes;
    assert_eq!(nodes("compressed"), nodes("base"));
    let (base, canary) = (nodes("base"), nodes("canary/new"));
    assert!(canary.starts_with(&base));
    assert_eq!(canary.len(), base.len() + 1, "the canary nodes get a route to another node");
}
