//! The files of `examples/ci`, and the hooks for pre-commit.

use std::{fs, path::Path};

use serde_json::Value;

/// A file as it is.
pub fn text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A YAML file.
pub fn example(name: &str) -> Value {
    serde_yaml::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The hooks for pre-commit, which looks for them in the root of the repository.
pub fn hooks() -> Value {
    example("../../.pre-commit-hooks.yaml")
}
