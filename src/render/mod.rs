//! Renders plans for people, for programs, and as scripts for nodes without hostgw.
//!
//! A [`Report`] contains everything that the forms of a plan show, resolved once: each object with its reason and its
//! location in the configuration. [`text()`] renders it for a terminal, [`plan_markdown`] for a pull request, and
//! serde as JSON. A [`ComparisonReport`] does the same for the comparison of two configurations.

mod boot_file;
mod commands;
mod comparison;
mod findings;
mod fleet;
mod fold_names;
mod locator;
mod markdown;
mod powershell;
mod report;
mod schema;
mod shell;
mod text;
mod windows;

pub use boot_file::{BootFile, BootFileState};
pub use commands::commands;
pub use comparison::{
    BeforeAfter, BlockReport, CollapsedLine, ComparedFiles, ComparisonReport, Detail, NodeEntry, Renamed,
    RevisionNote, comparison_text,
};
pub use findings::{FileFinding, code_span, findings_markdown, github_annotations, sarif};
pub use fleet::{
    ChangeGroup, FleetChange, FleetChanges, FleetNode, FleetReport, fleet_markdown, fleet_summary, fleet_text,
};
pub use fold_names::short_names;
pub use locator::Locator;
pub use markdown::{COMMENT_LIMIT, comparison_markdown, plan_markdown};
pub use powershell::{windows_collector, windows_script};
pub use report::{ChangeEntry, FindingEntry, Object, Report, SourceLocation};
pub use schema::schema_text;
pub use shell::{
    ApplyHook, Freshness, InvalidNetplanId, NetplanId, Persist, PersistHeader, PersistedNode,
    UnrecognizedHeader, UnwritableInterface, freshness, linux_script, persisted,
};
pub use text::{Palette, finding_text, plan_summary, text, text_of};

/// The origin of a script, for its header.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// The configuration, as named on the command line.
    pub file: &'a str,
    /// The SHA-256 of the configuration, as `sha256sum` prints it.
    pub config_hash: &'a str,
}
