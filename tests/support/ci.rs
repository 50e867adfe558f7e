//! The files of `examples/ci`, and the hooks for pre-commit.

use std::{fs, path::Path};

use serde_json::Value;

/// The content of a file.
pub fn text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The content of a YAML file.
pub fn example(name: &str) -> Value {
    serde_yaml::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The pre-commit hooks, which must be in the root of the repository.
pub fn hooks() -> Value {
    example("../../.pre-commit-hooks.yaml")
}
