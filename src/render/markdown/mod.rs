//! Plans and comparisons as comments of pull requests.
//!
//! The first line is a hidden marker that stays the same, so that a bot finds its comment again and edits it.
//! Then come the counts, and what is removed, before all else. A changed object is a line with `!`: GitHub
//! shows it in a colour of its own, and nobody takes it for a removal, as a pair of `-` and `+` could be.
//!
//! A comment never holds more than [`LIMIT`] bytes, unless the removals alone take more: those are told in
//! fewer and fewer words, but told they are. First the reasons give way, then the next hops, then names share
//! words. A removed node and the routes to it are two removals that tell the same: next, one of the two is named
//! and stands for both. Last, where most nodes go, those that stay are named. With that, 5,000 nodes of IPv4 fit whatever
//! they are called.

mod comment;
mod comparison;
mod escape;
mod plan;
#[cfg(test)]
mod tests;

pub use comment::LIMIT;
pub use comparison::comparison_markdown;
pub use plan::plan_markdown;
