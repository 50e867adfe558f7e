//! Reads what users hand to hostgw: configurations, snapshots, saved plans, CNI files.
//!
//! Whoever may change a file in a repository must not be able to make a job that reads it eat memory, hang, or
//! print what is not meant for it. So only stored files are read, and pipes that the caller itself made, and of
//! both only so much. What is opened is judged by its descriptor, not by its name: a name can lead elsewhere a
//! moment later.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
};

use crate::text;

/// The most that is read of a file or of standard input: 64 MiB.
pub const LIMIT: u64 = 64 << 20;

/// Why nothing could be read; prints as one sentence without a full stop.
#[derive(Debug)]
pub struct InputError {
    name: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Io(io::Error),
    Directory,
    TooLarge,
    /// What it is, with an article.
    Special(&'static str),
    OtherSize,
}

/// Reads a file that `path` names, or a pipe that a shell made, such as `/dev/fd/63`.
///
/// # Errors
/// It is a directory, a device, a socket or a named pipe; it is larger than [`LIMIT`]; it holds another number of
/// bytes than its size says, as files of the kernel do (`/proc/self/environ`); or it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    read_file(path).map_err(|why| InputError { name: text::path(path).to_string(), why })
}

/// Reads standard input, whatever it is.
///
/// # Errors
/// It is larger than [`LIMIT`], or it cannot be read.
pub fn read_standard_input() -> Result<Vec<u8>, InputError> {
    bounded(io::stdin().lock()).map_err(|why| InputError { name: "standard input".to_owned(), why })
}

/// Elsewhere pipes are left out: only Linux tells one that the caller made from one that lies there.
#[cfg(not(target_os = "linux"))]
fn read_file(path: &Path) -> Result<Vec<u8>, Why> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        Err(Why::Directory)
    } else if !metadata.is_file() {
        Err(Why::Special("a device or a pipe"))
    } else if metadata.len() > LIMIT {
        Err(Why::TooLarge)
    } else {
        bounded(&file)
    }
}

#[cfg(target_os = "linux")]
use linux::read_file;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::{self, Metadata, OpenOptions},
        io,
        os::unix::fs::{FileTypeExt, OpenOptionsExt},
        path::Path,
    };

    use rustix::fs::{FsWord, OFlags, fcntl_getfl, fcntl_setfl, fstatfs};

    use super::{LIMIT, Why, bounded};

    /// `PIPEFS_MAGIC` (linux/magic.h): where the pipes without a name are.
    const PIPE_FILE_SYSTEM: FsWord = 0x5049_5045;

    pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Why> {
        // Looked at first, because opening alone can do something to a device.
        refuse_special(&fs::metadata(path)?)?;
        let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        refuse_special(&metadata)?;
        if metadata.file_type().is_fifo() {
            if fstatfs(&file).map_err(io::Error::from)?.f_type != PIPE_FILE_SYSTEM {
                return Err(Why::Special("a named pipe"));
            }
            let flags = fcntl_getfl(&file).map_err(io::Error::from)?;
            fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK)).map_err(io::Error::from)?;
            return bounded(&file);
        }
        if metadata.len() > LIMIT {
            return Err(Why::TooLarge);
        }
        let bytes = bounded(&file)?;
        if u64::try_from(bytes.len()).ok() != Some(file.metadata()?.len()) {
            return Err(Why::OtherSize);
        }
        Ok(bytes)
    }

    fn refuse_special(metadata: &Metadata) -> Result<(), Why> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            Err(Why::Directory)
        } else if kind.is_char_device() || kind.is_block_device() {
            Err(Why::Special("a device"))
        } else if kind.is_socket() {
            Err(Why::Special("a socket"))
        } else {
            Ok(())
        }
    }
}

fn bounded(input: impl Read) -> Result<Vec<u8>, Why> {
    let mut bytes = Vec::new();
    input.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LIMIT) {
        Ok(bytes)
    } else {
        Err(Why::TooLarge)
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl InputError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self.why {
            Why::Io(_) => return None,
            Why::Directory => "name a file inside it",
            Why::TooLarge => "a configuration of 100,000 nodes takes about 9 MB; is this the right file?",
            Why::Special(_) | Why::OtherSize => {
                "copy it to a regular file, or pass it on standard input with `-`"
            }
        };
        Some(hint.to_owned())
    }

    /// The error of the operating system, if there was one.
    #[must_use]
    pub const fn io_error(&self) -> Option<&io::Error> {
        match &self.why {
            Why::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.why {
            Why::Io(error) if error.kind() == io::ErrorKind::NotFound => write!(f, "no such file: {name}"),
            Why::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{name} is not readable: permission denied")
            }
            Why::Io(error) => write!(f, "{name} cannot be read: {error}"),
            Why::Directory => write!(f, "{name} is a directory, not a file"),
            Why::TooLarge => write!(f, "{name} is too large: hostgw reads at most {} MiB", LIMIT >> 20),
            Why::Special(kind) => write!(f, "{name} is {kind}, not a file"),
            Why::OtherSize => {
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
