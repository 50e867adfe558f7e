//! Tests the configurations in `tests/cases/config`. A new case is a new file and needs no code.
//!
//! Every file in `valid` must load. For every file in `invalid`, the `.out` file of the same name contains the
//! expected report; `HOSTGW_BLESS=1 cargo test` updates these files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hostgw::config::{Document, Format, load};

use crate::support::cases;

fn configurations(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).expect("a folder of cases");
    let paths = entries.map(|entry| entry.expect("an entry of the folder").path());
    let mut paths: Vec<_> = paths.filter(|path| Format::of_path(path).is_some()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} contains no cases", folder.display());
    paths
}

/// Loads a file under its base name, so that messages do not depend on the location of the sources.
fn document(path: &Path) -> Document {
    let name = path.file_name().expect("a file name").to_string_lossy();
    let text = fs::read_to_string(path).expect("a text");
    Document::new(name, text, Format::of_path(path).expect("a known extension"))
}

#[test]
fn valid_configurations_and_examples_load() {
    for path in configurations("tests/cases/config/valid").into_iter().chain(configurations("examples")) {
        if let Err(invalid) = load(&document(&path)) {
            panic!("{} should load:\n{invalid}", path.display());
        }
    }
}

#[test]
fn invalid_configurations_are_rejected_with_the_expected_report() {
    let paths = configurations("tests/cases/config/invalid");
    let mut failures = Vec::new();
    for path in &paths {
        let Err(invalid) = load(&document(path)) else { panic!("{} should not load", path.display()) };
        let expected = PathBuf::from(format!("{}.out", path.with_extension("").display()));
        cases::compare(&expected, &invalid.to_string(), &mut failures);
    }
    cases::assert_none(paths.len(), &failures);
}
