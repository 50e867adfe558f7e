//! Renders plans and comparisons as comments on pull requests.
//!
//! The first line is a hidden marker that never changes, so a bot can find its comment and update it. The totals and
//! the removals follow before all other changes. A changed object is a line with `!`: GitHub shows it in a color of
//! its own, and it cannot be mistaken for a removal, unlike a pair of `-` and `+`.
//!
//! A comment has at most [`COMMENT_LIMIT`] bytes. Removals are never omitted, but shown with less and less detail: first
//! without reasons, then without next hops, then with folded names. A removed node implies the removal of the routes to
//! it, so next only one of the two is listed. Then, if most nodes are removed, the remaining ones are listed instead. That
//! way, the removals of 5,000 IPv4 nodes fit with any node names.
//! More are summarized as ranges of prefixes and names, with their numbers and the command that lists them.

mod comment;
mod comparison;
mod escape;
mod plan;
#[cfg(test)]
mod tests;

pub use comment::COMMENT_LIMIT;
pub use comparison::comparison_markdown;
pub(in crate::render) use escape::{name as escaped_name, quote_commands};
pub use plan::plan_markdown;
