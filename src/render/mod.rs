//! A plan for people, for programs, and for nodes without hostgw.
//!
//! A [`Report`] holds what every form of a plan tells, resolved once: object by object, with reasons and
//! their places in the configuration. [`text()`] prints it for people, [`plan_markdown`] for pull requests; it
//! serialises as the JSON form. A [`ComparisonReport`] is the same for the comparison of two files.

mod commands;
mod compact;
mod comparison;
mod locator;
mod markdown;
mod persisted;
mod powershell;
mod report;
mod schema;
mod shell;
mod text;
mod windows;

pub use commands::commands;
pub use comparison::{
    BlockReport, ComparisonReport, Detail, Files, NodeEntry, Note, Renamed, Short, Values, comparison_text,
};
pub use locator::Locator;
pub use markdown::{LIMIT, comparison_markdown, plan_markdown};
pub use persisted::{PersistedFile, PersistedState};
pub use powershell::{windows_collector, windows_script};
pub use report::{Entry, Group, Object, Report, Source};
pub use schema::schema_text;
pub use shell::{
    Freshness, InvalidNetplanId, NetplanId, Persist, PersistHeader, PersistedNode, UnrecognizedHeader,
    UnwritableInterface, freshness, linux_script, persisted,
};
pub use text::{Palette, plan_summary, text};

/// Where a script comes from, for its header.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The configuration, as named on the command line.
    pub file: &'a str,
    /// SHA-256 of the configuration, as `sha256sum` prints it.
    pub config_hash: &'a str,
}
