//! Plans and comparisons as comments of pull requests.
//!
//! The first line is a hidden marker that stays the same, so that a bot finds its comment again and edits it.
//! Then come the counts, and what is removed, before all else. A changed object is a line with `!`: GitHub
//! shows it in a colour of its own, and nobody takes it for a removal, as a pair of `-` and `+` could be.
//!
//! A comment never holds more than [`LIMIT`] bytes, unless the removals alone take more: those are told in
//! fewer and fewer words (without reasons, by their names, names that share words), but told they are.

mod comment;
mod comparison;
mod escape;
mod plan;
#[cfg(test)]
mod tests;

pub use comment::LIMIT;
pub use comparison::comparison_markdown;
pub use plan::plan_markdown;
