//! Text of others.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    path::Path,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{escape::is_hidden, printable};

/// Text that comes from a file, the kernel, git, or a record.
///
/// It can only be printed escaped: [`fmt::Display`] writes it as [`printable`] does, so that it cannot drive a
/// terminal, begin a line of its own, or show something else than it holds. JSON carries it as it is, as
/// [`to_json`](super::to_json) writes it. [`Self::as_raw`] is for comparing and for the kernel, never for people.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// The text itself: to compare it, to look it up, to hand it to the kernel or a file.
    #[must_use]
    pub fn as_raw(&self) -> &str {
        &self.0
    }

    /// The text itself, owned.
    #[must_use]
    pub fn into_raw(self) -> String {
        self.0
    }

    /// The first `length` characters.
    #[must_use]
    pub fn start(&self, length: usize) -> Self {
        Self(self.0.chars().take(length).collect())
    }

    /// Whether it is the empty string.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The usual text has nothing to escape, and is not copied.
        if self.0.contains(is_hidden) { f.pad(&printable(&self.0)) } else { f.pad(&self.0) }
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable(&self.0.replace('\\', "\\\\").replace('"', "\\\"")))
    }
}

/// A string, to whoever reads the JSON.
impl JsonSchema for Untrusted {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl From<String> for Untrusted {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Untrusted {
    fn from(text: Cow<'_, str>) -> Self {
        Self(text.into_owned())
    }
}

impl PartialEq<str> for Untrusted {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Untrusted {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<String> for Untrusted {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

impl Borrow<str> for Untrusted {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A path as text; what is not UTF-8 in it is replaced. `Path::display` would print it unescaped, and is
/// refused by a lint.
#[must_use]
pub fn path(path: &Path) -> Untrusted {
    path.to_string_lossy().into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_escaped_and_compares_raw() {
        let name = Untrusted::from("n\n\u{1b}[31m\u{202e}\"");
        assert_eq!(name.to_string(), "n\\n\\u{1b}[31m\\u{202e}\"");
        assert_eq!(format!("{name:?}"), "\"n\\n\\u{1b}[31m\\u{202e}\\\"\"");
        assert_eq!(name, "n\n\u{1b}[31m\u{202e}\"");
        assert_eq!(format!("{:>4}|", Untrusted::from("n1")), "  n1|");
    }
}
