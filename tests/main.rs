//! The integration tests: pure ones that use the library, and end-to-end ones that run the built program in network
//! namespaces. `tests/run` installs what they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    missing_docs,
    reason = "tests fail by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "the output of tests is trusted")]

mod audit;
mod ci_examples;
mod cni_cases;
mod comparison;
mod completions;
mod config_cases;
mod diagnostics;
mod diff_cases;
mod e2e;
mod editor;
mod examples;
mod guides;
mod import;
mod import_cases;
mod import_live_cases;
mod import_managed;
mod manual;
mod markdown;
mod monitoring;
mod plan_cases;
mod powershell;
mod properties;
mod schemas;
mod sequences;
mod source_rules;
mod support;
mod version;
mod work;
