//! Judges a whole cluster from the snapshots of its nodes: every pair of nodes, both ways.
//!
//! Each snapshot is examined on its own, as `hostgw doctor` examines a node, and then dropped: what is left of it takes a few
//! kilobytes. The conclusions about the cluster combine these.
//!
//! - `examine.rs`: what one snapshot tells about its node
//! - `changes.rs`: how the routes, NAT and sysctls of a node differ from the configuration
//! - `matrix.rs`: which pods can send packets to which
//! - `conclude.rs`: the findings about the cluster
//! - `finding.rs`: a finding, and the nodes that share it
//! - `report.rs`: everything that the forms of an audit show
//! - `sample.rs`: a part of the cluster that represents all of it, as one node sees it
//! - `text.rs`, `markdown.rs`, `html.rs`: these forms
//! - `units.rs`: numbers of nodes

mod changes;
mod conclude;
mod examine;
mod finding;
mod html;
mod markdown;
mod matrix;
mod report;
mod sample;
mod text;
mod units;

pub use changes::Changes;
pub use conclude::conclude;
pub use examine::{AppliedConfig, Auditor, Examined, Sighting, Worker};
pub use html::audit_html;
pub use markdown::audit_markdown;
pub use matrix::{PairCounts, PairState};
pub use report::AuditReport;
pub use text::audit_text;
