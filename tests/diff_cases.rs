//! Folders of cases: `tests/cases/diff/NAME/` holds `old.yaml` (without it, `new.yaml` is compared with nothing),
//! `new.yaml`, and what `hostgw diff old.yaml new.yaml` prints. A new folder is a new test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hostgw::{
    config::{self, Document, Format, Positions},
    model::{Cluster, ConfigPath},
    plan::{compare, compare::Side},
    render::{ComparisonReport, Detail, Files, Palette, Source, comparison_markdown, comparison_text},
};

use crate::support::cases;

/// A file of a case.
struct File {
    document: Document,
    cluster: Cluster,
    positions: Positions,
}

impl File {
    fn read(folder: &Path, name: &str) -> Option<Self> {
        let document = Document::new(name, fs::read_to_string(folder.join(name)).ok()?, Format::Yaml);
        let cluster = config::load(&document)
            .unwrap_or_else(|invalid| panic!("{}: {}", folder.display(), invalid.render(false)));
        Some(Self { positions: document.positions(), document, cluster })
    }

    fn source(&self, path: &ConfigPath) -> Option<Source> {
        let position = self.positions.of(path)?;
        Some(Source {
            path: path.to_string(),
            file: self.document.name().to_owned(),
            line: position.line,
            column: position.column,
        })
    }
}

/// The folders of all cases.
pub fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diff");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// What is told of a case.
pub fn report(folder: &Path) -> ComparisonReport {
    let old = File::read(folder, "old.yaml");
    let new = File::read(folder, "new.yaml").expect("new.yaml");
    let comparison = compare(old.as_ref().map(|old| &old.cluster), &new.cluster);
    let files = Files {
        old: old.as_ref().map(|old| (old.document.name(), &old.cluster)),
        new: (new.document.name(), &new.cluster),
    };
    ComparisonReport::new(&comparison, files, |side, path| match side {
        Side::Old => old.as_ref()?.source(path),
        Side::New => new.source(path),
    })
}

#[test]
fn every_case_is_told_in_these_words() {
    let folders = folders();
    let mut failures = Vec::new();
    for folder in &folders {
        let report = report(folder);
        let told = |detail| comparison_text(&report, &Palette::new(false), detail);
        let text = format!(
            "$ hostgw diff old.yaml new.yaml\n{}\n$ hostgw diff --full\n{}\n$ hostgw diff --summary\n{}",
            told(Detail::Short),
            told(Detail::Full),
            told(Detail::Summary)
        );
        cases::compare(&folder.join("expected.txt"), &text, &mut failures);
        let json = serde_json::to_string_pretty(&report).unwrap() + "\n";
        cases::compare(&folder.join("expected.json"), &json, &mut failures);
        let markdown = comparison_markdown(&report, "new.yaml");
        cases::compare(&folder.join("expected.md"), &markdown, &mut failures);
    }
    cases::conclude(folders.len(), &failures);
}
