//! Reads files that users pass to hostgw: configurations, snapshots, saved plans and CNI configurations.
//!
//! A file in a repository is untrusted: it must not make a job that reads it run out of memory, hang, or print unrelated
//! data. hostgw therefore only reads regular files and pipes that the caller created, up to a size
//! limit. The checks use the open descriptor rather than the name, which could refer to something else a moment later.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Cursor, Read, Write},
    path::Path,
};

use flate2::{Compression, GzBuilder, read::MultiGzDecoder};

use crate::{progress::Task, text, text::OsError};

/// The maximum size of a file and of standard input: 64 MiB.
pub const LIMIT: u64 = 64 << 20;

/// The maximum size of an input that is read in parts: 1 GiB.
const PARTS_LIMIT: u64 = 1 << 30;

/// An input that need not fit into memory.
#[derive(Debug)]
pub enum AnyInput {
    /// All of an input of at most [`LIMIT`] bytes.
    Whole(Vec<u8>),
    /// An input that is larger.
    Large(LargeInput),
}

/// An input of more than [`LIMIT`] bytes, decompressed if it is compressed. Reading more than 1 GiB of it fails.
pub struct LargeInput {
    name: String,
    head: Cursor<Vec<u8>>,
    rest: Box<dyn Read>,
    left: u64,
}

/// The reason that an input could not be read, as a sentence without a period.
#[derive(Debug)]
pub struct InputError {
    name: String,
    /// A suggestion of where to find the file, if it does not exist.
    whereabouts: Option<String>,
    why: InputProblem,
}

#[derive(Debug)]
enum InputProblem {
    Io(io::Error),
    Directory,
    TooLarge,
    /// Another kind of file: its name, with an article.
    Special(&'static str),
    SizeMismatch,
    /// A file that begins like a gzip file, but cannot be decompressed.
    Gzip(io::Error),
}

/// Reads the file at `path`, or a pipe that a shell created, such as `/dev/fd/63`, and decompresses it if it is compressed.
///
/// # Errors
/// Returns an error if it is a directory, a device, a socket or a named pipe, if it is larger than [`LIMIT`], compressed or
/// not, if its length differs from its reported size, as with kernel files (`/proc/self/environ`), or if it cannot be
/// read.
pub fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    let _task = Task::begin(format!("reading {}", text::path(path)));
    let bytes = read_file(path).and_then(inflated);
    bytes.map_err(|why| InputError {
        name: text::path(path).to_string(),
        whereabouts: whereabouts(path),
        why,
    })
}

/// Reads the file at `path` as [`read`] does, whatever its size.
///
/// # Errors
/// Fails as [`read`] does, except that a large input is no error.
pub fn read_of_any_size(path: &Path) -> Result<AnyInput, InputError> {
    let _task = Task::begin(format!("reading {}", text::path(path)));
    let name = text::path(path).to_string();
    let result = open_file(path).and_then(|(file, length)| match length.filter(|length| *length <= LIMIT) {
        Some(length) => of_any_size(Cursor::new(read_regular(&file, length)?), &name),
        None => of_any_size(file, &name),
    });
    result.map_err(|why| InputError { name, whereabouts: whereabouts(path), why })
}

/// Reads standard input as [`read_standard_input`] does, whatever its size.
///
/// # Errors
/// Returns an error if it cannot be read.
pub fn read_standard_input_of_any_size() -> Result<AnyInput, InputError> {
    let _task = Task::begin("reading standard input");
    let name = "standard input".to_owned();
    of_any_size(io::stdin(), &name).map_err(|why| InputError { name, whereabouts: None, why })
}

/// Reads the beginning of an input, and all of it if it is small.
fn of_any_size(mut source: impl Read + 'static, name: &str) -> Result<AnyInput, InputProblem> {
    let mut start = Vec::new();
    source.by_ref().take(2).read_to_end(&mut start)?;
    let is_compressed = is_compressed(&start);
    let source = Cursor::new(start).chain(source);
    let mut rest: Box<dyn Read> = match is_compressed {
        true => Box::new(MultiGzDecoder::new(BufReader::new(source))),
        false => Box::new(source),
    };
    let mut head = Vec::new();
    let read = rest.by_ref().take(LIMIT + 1).read_to_end(&mut head);
    read.map_err(|error| if is_compressed { InputProblem::Gzip(error) } else { error.into() })?;
    if u64::try_from(head.len()).is_ok_and(|length| length <= LIMIT) {
        return Ok(AnyInput::Whole(head));
    }
    let left = PARTS_LIMIT;
    Ok(AnyInput::Large(LargeInput { name: name.to_owned(), head: Cursor::new(head), rest, left }))
}

impl LargeInput {
    /// The first bytes.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        self.head.get_ref()
    }

    /// The error for an input that cannot be read in parts.
    #[must_use]
    pub fn refused(self) -> InputError {
        InputError { name: self.name, whereabouts: None, why: InputProblem::TooLarge }
    }
}

impl fmt::Debug for LargeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeInput").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Read for LargeInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.head.read(buffer)?;
        if count == 0 {
            count = self.rest.read(buffer)?;
        }
        let length = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            io::Error::other(format!("it is too large: hostgw reads at most {} MiB of it", PARTS_LIMIT >> 20))
        })?;
        Ok(count)
    }
}

/// Returns a suggestion for a path that does not exist: a file with a similar name in the same directory, if there is one.
fn whereabouts(path: &Path) -> Option<String> {
    /// The maximum number of files to compare.
    const MAX_FILES: usize = 1000;
    if path.exists() {
        return None;
    }
    let parent = path.parent()?;
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Some(format!("check the path: there is no directory {}", text::path(folder)));
    };
    let files = entries.flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> =
        files.take(MAX_FILES).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let similar =
        path.file_name().and_then(|name| text::nearest(name.to_str()?, names.iter().map(String::as_str)));
    Some(match similar {
        Some(similar) => format!("did you mean {}?", text::path(&parent.join(similar))),
        None => "check the path".to_owned(),
    })
}

/// Reads standard input, which may be of any kind, and decompresses it if it is compressed.
///
/// # Errors
/// Returns an error if it is larger than [`LIMIT`], compressed or not, or cannot be read.
pub fn read_standard_input() -> Result<Vec<u8>, InputError> {
    let _task = Task::begin("reading standard input");
    let bytes = read_limited(io::stdin().lock()).and_then(inflated);
    bytes.map_err(|why| InputError { name: "standard input".to_owned(), whereabouts: None, why })
}

/// Decompresses the contents of the file `name` if they are compressed.
///
/// # Errors
/// Returns an error if they are damaged, or larger than [`LIMIT`].
pub fn decompressed(name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, InputError> {
    inflated(bytes).map_err(|why| InputError { name: name.to_owned(), whereabouts: None, why })
}

/// Returns `true` for what begins like a gzip file (RFC 1952). No text begins with these bytes.
#[must_use]
pub fn is_compressed(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Compresses a text as `gzip -n` does: equal texts give equal files, because they contain neither a time nor a name.
///
/// # Errors
/// Returns an error if the compressor fails.
pub fn compressed(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(text)?;
    encoder.finish()
}

fn inflated(bytes: Vec<u8>) -> Result<Vec<u8>, InputProblem> {
    if !is_compressed(&bytes) {
        return Ok(bytes);
    }
    read_limited(MultiGzDecoder::new(bytes.as_slice())).map_err(|why| match why {
        InputProblem::Io(error) => InputProblem::Gzip(error),
        other => other,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, InputProblem> {
    let (file, length) = open_file(path)?;
    match length {
        None => read_limited(&file),
        Some(length) if length > LIMIT => Err(InputProblem::TooLarge),
        Some(length) => read_regular(&file, length),
    }
}

/// Reads a regular file of this size.
fn read_regular(file: &File, length: u64) -> Result<Vec<u8>, InputProblem> {
    let bytes = read_about(file, length)?;
    if u64::try_from(bytes.len()).ok() != Some(file.metadata()?.len()) {
        return Err(InputProblem::SizeMismatch);
    }
    Ok(bytes)
}

/// Opens a regular file. On other systems pipes are rejected: only Linux can distinguish a pipe that the caller created from an
/// existing one. Returns the size of a regular file.
#[cfg(not(target_os = "linux"))]
fn open_file(path: &Path) -> Result<(File, Option<u64>), InputProblem> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        Err(InputProblem::Directory)
    } else if !metadata.is_file() {
        Err(InputProblem::Special("a device or a pipe"))
    } else {
        Ok((file, Some(metadata.len())))
    }
}

#[cfg(target_os = "linux")]
use linux::open_file;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::{self, File, Metadata, OpenOptions},
        io,
        os::unix::fs::{FileTypeExt, OpenOptionsExt},
        path::Path,
    };

    use rustix::fs::{FsWord, OFlags, fcntl_getfl, fcntl_setfl, fstatfs};

    use super::InputProblem;

    /// `PIPEFS_MAGIC` (linux/magic.h): the file system of pipes without a name.
    const PIPE_FILE_SYSTEM: FsWord = 0x5049_5045;

    /// Opens a regular file, or a pipe that the caller created. Returns the size of a regular file.
    pub(super) fn open_file(path: &Path) -> Result<(File, Option<u64>), InputProblem> {
        // The check comes first, because opening a device can have side effects.
        reject_special(&fs::metadata(path)?)?;
        let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        reject_special(&metadata)?;
        if !metadata.file_type().is_fifo() {
            return Ok((file, Some(metadata.len())));
        }
        if fstatfs(&file).map_err(io::Error::from)?.f_type != PIPE_FILE_SYSTEM {
            return Err(InputProblem::Special("a named pipe"));
        }
        let flags = fcntl_getfl(&file).map_err(io::Error::from)?;
        fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK)).map_err(io::Error::from)?;
        Ok((file, None))
    }

    fn reject_special(metadata: &Metadata) -> Result<(), InputProblem> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            Err(InputProblem::Directory)
        } else if kind.is_char_device() || kind.is_block_device() {
            Err(InputProblem::Special("a device"))
        } else if kind.is_socket() {
            Err(InputProblem::Special("a socket"))
        } else {
            Ok(())
        }
    }
}

fn read_limited(input: impl Read) -> Result<Vec<u8>, InputProblem> {
    read_about(input, 0)
}

/// Reads an input of probably `expected` bytes.
fn read_about(input: impl Read, expected: u64) -> Result<Vec<u8>, InputProblem> {
    // One byte more, in which the read that finds the end fits.
    let capacity = expected.min(LIMIT).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    input.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LIMIT) {
        Ok(bytes)
    } else {
        Err(InputProblem::TooLarge)
    }
}

impl From<io::Error> for InputProblem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl InputError {
    /// Returns a suggestion.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self.why {
            InputProblem::Io(ref error) => {
                return self.whereabouts.clone().filter(|_| error.kind() == io::ErrorKind::NotFound);
            }
            InputProblem::Directory => "pass a file inside it",
            InputProblem::TooLarge => {
                "a configuration of 100,000 nodes takes about 9 MB; is this the right file?"
            }
            InputProblem::Gzip(_) => "compress it again with `gzip`; `gzip -t` checks a file",
            InputProblem::Special(_) | InputProblem::SizeMismatch => {
                "copy it to a regular file, or pass it on standard input with `-`"
            }
        };
        Some(hint.to_owned())
    }

    /// Returns `true` if the input exceeds [`LIMIT`].
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self.why, InputProblem::TooLarge)
    }

    /// Returns the error of the operating system, if there was one.
    #[must_use]
    pub const fn io_error(&self) -> Option<&io::Error> {
        match &self.why {
            InputProblem::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.why {
            InputProblem::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "no such file: {name}")
            }
            InputProblem::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{name} is not readable: permission denied")
            }
            InputProblem::Io(error) => write!(f, "{name} cannot be read: {}", OsError(error)),
            InputProblem::Gzip(error) => write!(f, "{name} is a damaged gzip file: {}", OsError(error)),
            InputProblem::Directory => write!(f, "{name} is a directory, not a file"),
            InputProblem::TooLarge => {
                write!(f, "{name} is too large: hostgw reads at most {} MiB", LIMIT >> 20)
            }
            InputProblem::Special(kind) => write!(f, "{name} is {kind}, not a file"),
            InputProblem::SizeMismatch => {
                write!(f, "{name} changed size while it was read: it is a kernel file, or is being written")
            }
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}
