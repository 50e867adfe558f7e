//! The words of a printed route, with their meaning.

use std::fmt;

/// A word of a route: a keyword with its value, or a value alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word {
    /// The column that it belongs to.
    pub column: Column,
    /// The keyword, such as `via`, or nothing for the destination.
    pub keyword: &'static str,
    /// The value, or nothing for a flag such as `onlink`.
    pub value: String,
}

/// A column of a list of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// What identifies the route: type, destination, type of service.
    Destination,
    /// The next hop.
    NextHop,
    /// The interface.
    Interface,
    /// Everything else.
    Details,
}

impl Column {
    /// All columns, from left to right.
    pub const ALL: [Self; 4] = [Self::Destination, Self::NextHop, Self::Interface, Self::Details];
}

impl Word {
    /// Creates a keyword with its value.
    pub(super) fn new(column: Column, keyword: &'static str, value: impl ToString) -> Self {
        Self { column, keyword, value: value.to_string() }
    }

    /// Creates a value without a keyword, in a text that has no columns.
    #[must_use]
    pub fn plain(value: &str) -> Self {
        Self { column: Column::Details, keyword: "", value: value.to_owned() }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword)?;
        if !self.keyword.is_empty() && !self.value.is_empty() {
            f.write_str(" ")?;
        }
        f.write_str(&self.value)
    }
}

/// Writes a word as a [`Word`] prints, after a space if it follows another one.
///
/// # Errors
/// Returns the error of `f`.
pub(super) fn write_word(
    f: &mut impl fmt::Write,
    follows: bool,
    keyword: &str,
    value: Option<&dyn fmt::Display>,
) -> fmt::Result {
    if follows {
        f.write_str(" ")?;
    }
    match (keyword, value) {
        ("", Some(value)) => write!(f, "{value}"),
        (_, Some(value)) => {
            f.write_str(keyword)?;
            write!(f, " {value}")
        }
        (_, None) => f.write_str(keyword),
    }
}

/// Joins words as they are printed.
#[must_use]
pub fn join_words(words: &[Word]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
