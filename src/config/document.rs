//! The text of a configuration, its origin, and its format.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use super::{
    places::Places,
    plain,
    positions::Positions,
    source::Source,
    toml,
    tree::{NodeReceiver, Parsed, SyntaxError},
    yaml,
};
use crate::{
    error::{Error, Kind},
    hex::sha256,
    input::{self, InputError},
    text::{self, Untrusted},
};

/// The file names searched for in a directory.
pub const FILE_NAMES: [&str; 3] = ["hostgw.yaml", "hostgw.yml", "hostgw.toml"];

/// The languages a configuration can be written in. Both have the same keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// YAML.
    Yaml,
    /// TOML.
    Toml,
}

impl Format {
    /// Returns the format for the extension of `path`, which `.gz` may follow.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
        let uncompressed = path.with_extension("");
        let path = if is_compressed { uncompressed.as_path() } else { path };
        match path.extension()?.to_str()? {
            // JSON is a subset of YAML.
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// Returns the format of a file: by its extension, or else by its text.
    #[must_use]
    pub fn of(path: &Path, text: &str) -> Self {
        Self::of_path(path).unwrap_or_else(|| Self::of_text(text))
    }

    /// Detects the format of a text.
    ///
    /// The first line that is neither blank nor a comment decides. A `[table]` header, or a key followed by `=`, is
    /// TOML; anything else is YAML. Neither can begin a configuration in the other language, and an error further down
    /// does not change the result.
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

/// The text of a configuration, with the name shown to the user.
#[derive(Debug, Clone)]
pub struct Document {
    name: Untrusted,
    path: Option<PathBuf>,
    /// The text including any byte order mark.
    whole: Arc<str>,
    format: Format,
    /// The positions of all values, and whether the nodes are plain YAML. Set once the text was read.
    places: OnceLock<(Arc<Places>, bool)>,
}

/// The text of a configuration as hostgw embeds it in its own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredConfig {
    /// The language of the text.
    pub format: Format,
    /// The text including any byte order mark.
    pub text: Arc<str>,
}

impl StoredConfig {
    /// Returns the configuration as a document called `name`.
    #[must_use]
    pub fn document(&self, name: impl Into<Untrusted>) -> Document {
        Document::new(name, Arc::clone(&self.text), self.format)
    }
}

/// Compares the text and the language.
impl PartialEq<Document> for StoredConfig {
    fn eq(&self, document: &Document) -> bool {
        self.format == document.format && *self.text == *document.whole
    }
}

impl From<&Document> for StoredConfig {
    fn from(document: &Document) -> Self {
        Self { format: document.format, text: Arc::clone(&document.whole) }
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

impl Document {
    /// Creates a document from a text in memory.
    pub fn new(name: impl Into<Untrusted>, text: impl Into<Arc<str>>, format: Format) -> Self {
        Self { name: name.into(), path: None, whole: text.into(), format, places: OnceLock::new() }
    }

    /// Reads a file; see [`Format::of`] for how its format is detected.
    ///
    /// # Errors
    /// Fails as [`input::read`] does, or if the file is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let name = text::path(path).to_string();
        let text = decode(&name, input::read(path)?)?;
        let format = Format::of(path, &text);
        Ok(Self { path: Some(path.to_owned()), ..Self::new(text::path(path), text, format) })
    }

    /// Reads a configuration from standard input; see [`Format::of_text`] for how its format is detected.
    ///
    /// # Errors
    /// Fails as [`input::read_standard_input`] does, or if the input is not UTF-8.
    pub fn read_standard_input() -> Result<Self, ReadError> {
        Ok(Self::from_stdin(decode("standard input", input::read_standard_input()?)?))
    }

    /// Creates a document from text that was read from standard input.
    #[must_use]
    pub fn from_stdin(text: String) -> Self {
        let format = Format::of_text(&text);
        Self::new("<stdin>", text, format)
    }

    /// The name shown to the user.
    #[must_use]
    pub fn name(&self) -> &Untrusted {
        &self.name
    }

    /// The file that the document was read from, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The text, without a byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        without_mark(&self.whole)
    }

    /// The bytes of the text, including any byte order mark.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.whole.as_bytes()
    }

    /// The language that the configuration is written in.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Returns the position of every value. Parses the text, unless it was loaded before.
    #[must_use]
    pub fn positions(&self) -> Positions {
        let parse = || {
            let mut places = Places::default();
            let parsed = self.parse(&mut places).ok()?;
            places.add(&parsed.root);
            Some(Arc::new(places))
        };
        let known = self.places.get().map(|(places, _)| Arc::clone(places));
        Positions::new(self.source(), known.or_else(parse))
    }

    /// Returns the SHA-256 hash of the file, as `sha256sum` prints it.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256(self.bytes())
    }

    /// Returns the positions of all values, if the text was loaded and the nodes are plain YAML.
    pub(super) fn plain_places(&self) -> Option<&Places> {
        self.places.get().filter(|(_, is_plain)| *is_plain).map(|(places, _)| &**places)
    }

    pub(super) fn set_places(&self, places: Places, is_plain: bool) {
        self.places.get_or_init(|| (places.into(), is_plain));
    }

    pub(super) fn source(&self) -> Source {
        let text = self.text();
        // Byte order marks are rare; without one, nothing is copied.
        Source::new(if text.len() == self.whole.len() { Arc::clone(&self.whole) } else { text.into() })
    }

    /// Parses the text. The nodes go to the receiver.
    pub(super) fn parse<'a>(
        &'a self,
        receiver: &mut dyn NodeReceiver<'a>,
    ) -> Result<Parsed<'a>, SyntaxError> {
        if let Some(parsed) = self.parse_plain(receiver) {
            return Ok(parsed);
        }
        receiver.restart();
        self.parse_any(receiver)
    }

    /// Parses the text, if it is YAML that is written plainly. Otherwise, the receiver may have received some nodes.
    pub(super) fn parse_plain<'a>(&'a self, receiver: &mut dyn NodeReceiver<'a>) -> Option<Parsed<'a>> {
        (self.format == Format::Yaml).then(|| plain::parse(self.text(), Some(receiver)).ok()).flatten()
    }

    /// Parses the text, however it is written.
    pub(super) fn parse_any<'a>(
        &'a self,
        receiver: &mut dyn NodeReceiver<'a>,
    ) -> Result<Parsed<'a>, SyntaxError> {
        match self.format {
            Format::Yaml => yaml::parse(self.text(), Some(receiver)),
            Format::Toml => toml::parse(self.text(), Some(receiver)),
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

/// Finds the configuration in the first of `folders` that contains one of [`FILE_NAMES`].
///
/// # Errors
/// Fails if no folder contains a configuration, or if the first one that does contains several.
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

/// The reason why no configuration could be read. Prints as one sentence without a period.
#[derive(Debug)]
pub enum ReadError {
    /// The file or standard input could not be read.
    Input(InputError),
    /// The text is not UTF-8.
    NotUtf8 {
        /// The escaped name of the file.
        name: String,
        /// The offset of the first invalid byte.
        offset: usize,
    },
    /// No folder contains a configuration.
    NoneFound {
        /// The folders that were searched.
        folders: Vec<PathBuf>,
    },
    /// A folder contains more than one configuration.
    Several {
        /// The folder.
        dir: PathBuf,
        /// The first file name found.
        first: &'static str,
        /// The second file name found.
        second: &'static str,
    },
}

impl ReadError {
    /// A suggested fix.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Input(error) => error.hint(),
            Self::NotUtf8 { .. } => Some("save the file as UTF-8".to_owned()),
            Self::NoneFound { .. } => {
                Some("pass the configuration with -f FILE, or create one with `hostgw import`".to_owned())
            }
            Self::Several { .. } => Some("remove one of them, or select one with -f FILE".to_owned()),
        }
    }

    /// The underlying operating system error, if any.
    #[must_use]
    pub const fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Input(error) => error.io_error(),
            _ => None,
        }
    }
}

/// The error of a command that cannot read its configuration.
impl From<&ReadError> for Error {
    fn from(error: &ReadError) -> Self {
        Self::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint())
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
                write!(f, "{name} is not valid UTF-8: invalid byte {}", offset + 1)
            }
            Self::NoneFound { folders } => {
                let folders: Vec<String> = folders.iter().map(|dir| place(dir)).collect();
                let (folders, names) = (folders.join(" and "), FILE_NAMES.join(", "));
                write!(f, "no configuration found: searched for {names} in {folders}")
            }
            Self::Several { dir, first, second } => {
                write!(f, "{} contains both {first} and {second}", place(dir))
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}
