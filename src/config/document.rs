//! Where a configuration comes from, and in which format it is written.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    source::Source,
    toml,
    tree::{Parsed, Positions, SyntaxError},
    yaml,
};
use crate::{
    input::{self, InputError},
    text::{self, Untrusted},
};

/// The names that are looked for in a directory, in this order.
pub const FILE_NAMES: [&str; 3] = ["hostgw.yaml", "hostgw.yml", "hostgw.toml"];

/// The languages a configuration can be written in. Both carry the same keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// YAML.
    Yaml,
    /// TOML.
    Toml,
}

impl Format {
    /// The format that the extension of `path` stands for.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            // Every JSON text is YAML.
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// The format of the file `path` that holds `text`: by its name, else by the text.
    #[must_use]
    pub fn of(path: &Path, text: &str) -> Self {
        Self::of_path(path).unwrap_or_else(|| Self::of_text(text))
    }

    /// The format of a text that has no name.
    ///
    /// The first line that is neither blank nor a comment decides: a `[table]` header, or a key
    /// followed by `=`, is TOML; all else is YAML. Neither can begin a configuration in the other
    /// language, and a mistake further down does not change the answer.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let mut lines = without_mark(text)
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let Some(line) = lines.next() else { return Self::Yaml };
        let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' ' | '\t');
        let is_assignment = line.split_once('=').is_some_and(|(key, _)| key.chars().all(is_key));
        if line.starts_with('[') || is_assignment { Self::Toml } else { Self::Yaml }
    }
}

/// The text of a configuration, under the name that users know it by.
#[derive(Debug, Clone)]
pub struct Document {
    name: Untrusted,
    path: Option<PathBuf>,
    /// As it was read, with its byte order mark.
    whole: Arc<str>,
    format: Format,
}

/// The text of a configuration as it is kept in files of hostgw's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The language.
    pub format: Format,
    /// As it was read, with its byte order mark.
    pub text: String,
}

impl Kept {
    /// The configuration, under `name`.
    #[must_use]
    pub fn document(&self, name: impl Into<Untrusted>) -> Document {
        Document::new(name, self.text.clone(), self.format)
    }
}

impl From<&Document> for Kept {
    fn from(document: &Document) -> Self {
        Self { format: document.format, text: document.whole.to_string() }
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

impl Document {
    /// A configuration that is in memory.
    pub fn new(name: impl Into<Untrusted>, text: String, format: Format) -> Self {
        Self { name: name.into(), path: None, whole: text.into(), format }
    }

    /// Reads a file; the format is the one of its name ([`Format::of_path`]), else that of its text
    /// ([`Format::of_text`]).
    ///
    /// # Errors
    /// See [`input::read`]; or it is not text.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let name = text::path(path).to_string();
        let text = decode(&name, input::read(path)?)?;
        let format = Format::of(path, &text);
        Ok(Self { path: Some(path.to_owned()), ..Self::new(text::path(path), text, format) })
    }

    /// A configuration from standard input; its format is that of [`Format::of_text`].
    ///
    /// # Errors
    /// See [`input::read_standard_input`]; or it is not text.
    pub fn read_standard_input() -> Result<Self, ReadError> {
        Ok(Self::from_stdin(decode("standard input", input::read_standard_input()?)?))
    }

    /// The same, from a text that was read already.
    #[must_use]
    pub fn from_stdin(text: String) -> Self {
        let format = Format::of_text(&text);
        Self::new("<stdin>", text, format)
    }

    /// The name, as shown to the user.
    #[must_use]
    pub fn name(&self) -> &Untrusted {
        &self.name
    }

    /// The file it was read from, if it was.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The text, without a byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        without_mark(&self.whole)
    }

    /// The bytes as they were read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.whole.as_bytes()
    }

    /// The language it is written in.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Reads the whole text once more to learn where everything stands. Costs several times what
    /// [`super::load`] does: for those who will show lines.
    #[must_use]
    pub fn positions(&self) -> Positions {
        let source = self.source();
        let root = self.parse(&source).ok().map(|parsed| parsed.root);
        Positions::new(source, root)
    }

    pub(super) fn source(&self) -> Source {
        let text = self.text();
        // A byte order mark is seldom; without one, nothing is copied.
        Source::new(if text.len() == self.whole.len() { Arc::clone(&self.whole) } else { text.into() })
    }

    pub(super) fn parse(&self, source: &Source) -> Result<Parsed, SyntaxError> {
        match self.format {
            Format::Yaml => yaml::parse(source),
            Format::Toml => toml::parse(source),
        }
    }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

fn decode(name: &str, bytes: Vec<u8>) -> Result<String, ReadError> {
    String::from_utf8(bytes).map_err(|error| ReadError::NotUtf8 {
        name: name.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// The configuration in the first of `folders` that holds one: the one of [`FILE_NAMES`] that is there.
///
/// # Errors
/// None of them is in any of the folders, or more than one in one of them.
pub fn find_in(folders: &[&Path]) -> Result<PathBuf, ReadError> {
    for dir in folders {
        let mut found = FILE_NAMES.iter().filter(|name| dir.join(name).exists());
        match (found.next(), found.next()) {
            (Some(name), None) => return Ok(dir.join(name)),
            (Some(first), Some(second)) => {
                return Err(ReadError::Several { dir: (*dir).to_owned(), first, second });
            }
            _ => {}
        }
    }
    Err(ReadError::NoneFound { folders: folders.iter().map(|dir| (*dir).to_owned()).collect() })
}

/// Why no configuration could be read; prints as one sentence without a full stop.
#[derive(Debug)]
pub enum ReadError {
    /// The file, or standard input.
    Input(InputError),
    /// It is not text.
    NotUtf8 {
        /// The name, escaped.
        name: String,
        /// How many bytes before the first wrong one are UTF-8.
        offset: usize,
    },
    /// There is none in these directories.
    NoneFound {
        /// The directories.
        folders: Vec<PathBuf>,
    },
    /// There are two in this directory.
    Several {
        /// The directory.
        dir: PathBuf,
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Input(error) => error.hint(),
            Self::NotUtf8 { .. } => Some("save it as UTF-8".to_owned()),
            Self::NoneFound { .. } => Some("name the configuration with -f FILE".to_owned()),
            Self::Several { .. } => Some("remove all but one, or name one with -f FILE".to_owned()),
        }
    }

    /// The error of the operating system, if there was one.
    #[must_use]
    pub const fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Input(error) => error.io_error(),
            _ => None,
        }
    }
}

impl From<InputError> for ReadError {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |dir: &Path| match text::path(dir) {
            name if name.is_empty() => "the working directory".to_owned(),
            name => name.to_string(),
        };
        match self {
            Self::Input(error) => error.fmt(f),
            Self::NotUtf8 { name, offset } => {
                write!(f, "{name} is not UTF-8 text: byte {} is wrong", offset + 1)
            }
            Self::NoneFound { folders } => {
                let folders: Vec<String> = folders.iter().map(|dir| place(dir)).collect();
                let (folders, names) = (folders.join(" and "), FILE_NAMES.join(", "));
                write!(f, "no configuration found: looked for {names} in {folders}")
            }
            Self::Several { dir, first, second } => {
                write!(f, "{} holds both {first} and {second}", place(dir))
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}
