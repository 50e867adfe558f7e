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
    render::{
        ComparedFiles, ComparisonReport, Detail, Palette, SourceLocation, comparison_markdown,
        comparison_text,
    },
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
        Some(Self::new(name, fs::read_to_string(folder.join(name)).ok()?))
    }

    fn new(name: &str, text: String) -> Self {
        let document = Document::new(name, text, Format::Yaml);
        let cluster = config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        Self { positions: document.positions(), document, cluster }
    }

    fn source(&self, path: &ConfigPath) -> Option<SourceLocation> {
        let position = self.positions.of(path)?;
        Some(SourceLocation::new(path, self.document.name(), position.line, position.column))
    }
}

/// The folders of all cases.
pub fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diff");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Returns the report for a case.
pub fn report(folder: &Path) -> ComparisonReport {
    report_of(File::read(folder, "old.yaml").as_ref(), &File::read(folder, "new.yaml").expect("new.yaml"))
}

fn report_of(old: Option<&File>, new: &File) -> ComparisonReport {
    let comparison = compare(old.map(|old| &old.cluster), &new.cluster);
    let files = ComparedFiles {
        old: old.map(|old| (old.document.name(), &old.cluster)),
        new: (new.document.name(), &new.cluster),
    };
    ComparisonReport::new(comparison, files, |side, path| match side {
        Side::Old => old?.source(path),
        Side::New => new.source(path),
    })
}

#[test]
fn every_case_has_the_expected_report() {
    let folders = folders();
    let mut failures = Vec::new();
    for folder in &folders {
        let report = report(folder);
        let text_of = |detail| comparison_text(&report, &Palette::new(false), detail);
        let text = format!(
            "$ hostgw diff old.yaml new.yaml\n{}\n$ hostgw diff --full\n{}\n$ hostgw diff --summary\n{}",
            text_of(Detail::Collapsed),
            text_of(Detail::Full),
            text_of(Detail::Summary)
        );
        cases::compare(&folder.join("expected.txt"), &text, &mut failures);
        let json = serde_json::to_string_pretty(&report).unwrap() + "\n";
        cases::compare(&folder.join("expected.json"), &json, &mut failures);
        let markdown = comparison_markdown(&report, &"new.yaml".into());
        cases::compare(&folder.join("expected.md"), &markdown, &mut failures);
    }
    cases::assert_none(folders.len(), &failures);
}

/// One new node among 500: at most 25 lines, while everything is more than 500.
#[test]
fn one_new_node_among_many_takes_few_lines() {
    let file = |name: &str, nodes: usize| {
        let mut text = "clusterPrefix: [10.0.0.0/8, 'fd00::/16']\negressInterface: eth0\nnodes:\n".to_owned();
        for node in 0..nodes {
            let (high, low) = (node / 256, node % 256);
            let os = if node % 20 == 7 { "windows" } else { "linux" };
            text += &format!(
                "  - name: n{node}\n    os: {os}\n    podCIDR: [10.{high}.{low}.0/24, 'fd00:{node}::/64']\n    \
                 address: 172.16.{high}.{low}\n"
            );
        }
        File::new(name, text)
    };
    let report = report_of(Some(&file("old.yaml", 499)), &file("new.yaml", 500));
    let lines = |detail| comparison_text(&report, &Palette::new(false), detail).lines().count();
    assert!(
        lines(Detail::Collapsed) <= 25,
        "{}",
        comparison_text(&report, &Palette::new(false), Detail::Collapsed)
    );
    assert!(lines(Detail::Summary) <= lines(Detail::Collapsed));
    assert!(lines(Detail::Full) > 1_000);
}
