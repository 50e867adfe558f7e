//! Untrusted text.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    path::Path,
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{escape::is_hidden, printable};

/// Text from a file, the kernel, git or a record.
///
/// It only prints escaped: its [`fmt::Display`] uses [`printable`], so that it can neither control a terminal, start a
/// new line, nor disguise its contents. In JSON it is unchanged, as written by [`to_json`](super::to_json).
/// [`Self::as_raw`] is for comparisons and for the kernel, never for output. A clone shares the text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(Arc<str>);

impl Untrusted {
    /// Returns the unescaped text, for comparisons and lookups, or to pass it to the kernel or a file.
    #[must_use]
    pub fn as_raw(&self) -> &str {
        &self.0
    }

    /// Returns the unescaped text as an owned string.
    #[must_use]
    pub fn into_raw(self) -> String {
        self.0.as_ref().to_owned()
    }

    /// Returns the first `length` characters.
    #[must_use]
    pub fn truncated(&self, length: usize) -> Self {
        Self(self.0.chars().take(length).collect::<String>().into())
    }

    /// Returns `true` if the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most text has nothing to escape and is not copied.
        if self.0.contains(is_hidden) { f.pad(&printable(&self.0)) } else { f.pad(&self.0) }
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable(&self.0.replace('\\', "\\\\").replace('"', "\\\"")))
    }
}

/// The schema is that of a string.
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
        Self(text.into())
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Cow<'_, str>> for Untrusted {
    fn from(text: Cow<'_, str>) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Untrusted {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Untrusted {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for Untrusted {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl Borrow<str> for Untrusted {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Returns a path as text, with invalid UTF-8 replaced. A lint forbids `Path::display`, which prints paths unescaped.
#[must_use]
pub fn path(path: &Path) -> Untrusted {
    path.to_string_lossy().into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_prints_escaped_and_compares_raw() {
        let name = Untrusted::from("n\n\u{1b}[31m\u{202e}\"");
        assert_eq!(name.to_string(), "n\\n\\u{1b}[31m\\u{202e}\"");
        assert_eq!(format!("{name:?}"), "\"n\\n\\u{1b}[31m\\u{202e}\\\"\"");
        assert_eq!(name, "n\n\u{1b}[31m\u{202e}\"");
        assert_eq!(format!("{:>4}|", Untrusted::from("n1")), "  n1|");
    }
}
