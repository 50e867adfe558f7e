//! Sysctls, by plain files: `/proc/sys/net` shows the network namespace of the thread that opens it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    fault,
    model::{SysctlKey, normalize_value},
    plan::{Scope, SysctlChange},
    state::{StatePart, Unknown},
    text::Untrusted,
};

const ROOT: &str = "/proc/sys";

/// What was read.
#[derive(Debug, Default)]
pub struct Found {
    /// Value by key; a key that the kernel does not have is absent.
    pub values: BTreeMap<SysctlKey, Untrusted>,
    /// Keys that exist and could not be read.
    pub unknown: Vec<Unknown>,
}

/// Reads the sysctls that `scope` asks for.
#[must_use]
pub fn observe(scope: &Scope) -> Found {
    read(scope.every_sysctl(interfaces))
}

/// Reads every sysctl below `net`.
#[must_use]
pub fn everything() -> Found {
    let mut keys = Vec::new();
    collect(&Path::new(ROOT).join("net"), &mut keys);
    read(keys)
}

/// The keys of all files below a directory. What is not a key of hostgw's is no key of its plans either.
fn collect(directory: &Path, keys: &mut Vec<SysctlKey>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, keys);
        } else {
            let parts =
                path.strip_prefix(ROOT).into_iter().flat_map(Path::iter).filter_map(|part| part.to_str());
            keys.extend(SysctlKey::from_parts(parts));
        }
    }
}

/// Reads these sysctls.
pub fn read(keys: impl IntoIterator<Item = SysctlKey>) -> Found {
    let mut found = Found::default();
    for key in keys {
        match File::open(file(&key)).and_then(|file| value(&file)) {
            Ok(value) => {
                found.values.insert(key, value.into());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unknown.push(Unknown {
                why: format!("it cannot be read: {error}").into(),
                what: StatePart::Sysctl { key },
                hint: Some("run as root; hostgw cannot manage what root cannot read".into()),
            }),
        }
    }
    found
}

/// Reads a value in one system call: some sysctls, such as lists of ports, give what fits in the first read and
/// nothing after it.
fn value(file: &File) -> io::Result<String> {
    /// Enough for all but lists.
    const FIRST: usize = 4096;
    /// The kernel refuses to fill more (`KMALLOC_MAX_SIZE`, include/linux/slab.h).
    const LAST: usize = 2 << 20;
    let mut buffer = vec![0; FIRST];
    loop {
        let length = file.read_at(&mut buffer, 0)?;
        if length < buffer.len() {
            buffer.truncate(length);
            let text = String::from_utf8(buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            return Ok(normalize_value(&text));
        }
        if buffer.len() >= LAST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {LAST} bytes")));
        }
        buffer.resize(buffer.len() * 8, 0);
    }
}

/// The interfaces that have a directory in `net/FAMILY/conf`, `all` and `default` among them.
fn interfaces(family: &str) -> Vec<String> {
    let directory = Path::new(ROOT).join("net").join(family).join("conf");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Why a value was not replaced.
#[derive(Debug)]
pub enum NotReplaced {
    /// The system call's error: `EINVAL` for a value that the kernel refuses, `EROFS` for a read-only `/proc/sys`.
    Refused(io::Error),
    /// The kernel took the value and made another one of it, so the one before was written again.
    Normalized(Untrusted),
    /// Somebody else has written this value meanwhile.
    Moved(Untrusted),
}

impl From<io::Error> for NotReplaced {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// What a value may be, besides the one before the change, when it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Already {
    /// It may be the new one: there is nothing to write then.
    Replaced,
    /// Nothing else: who wrote the new value meanwhile is somebody else.
    Nothing,
}

/// Replaces one value by another, unless somebody else has written it meanwhile. The kernel cannot do that in one
/// step: the value is read again just before it is written, and just after.
///
/// # Errors
/// As [`NotReplaced`] says; the value is as it was.
pub fn replace(
    SysctlChange { key, before, after, .. }: &SysctlChange,
    already: Already,
) -> Result<(), NotReplaced> {
    fault::point().map_err(io::Error::from)?;
    let file = OpenOptions::new().read(true).write(true).open(file(key))?;
    let live = Untrusted::from(value(&file)?);
    if live == *after && already == Already::Replaced {
        return Ok(());
    }
    if live != *before {
        return Err(NotReplaced::Moved(live));
    }
    // Of several numbers, the kernel takes those before the one that it refuses.
    let restore =
        || if value(&file).is_ok_and(|now| live != now) { write(&file, live.as_raw()) } else { Ok(()) };
    if let Err(error) = write(&file, after.as_raw()) {
        restore()?;
        return Err(error.into());
    }
    let now = Untrusted::from(value(&file)?);
    if now != *after {
        restore()?;
        return Err(NotReplaced::Normalized(now));
    }
    Ok(())
}

fn write(file: &File, value: &str) -> io::Result<()> {
    file.write_all_at(format!("{value}\n").as_bytes(), 0)
}

/// Whether there is such a key that this process may write in its network namespace.
#[must_use]
pub fn can_write(key: &SysctlKey) -> bool {
    OpenOptions::new().write(true).open(file(key)).is_ok()
}

/// What a refusal means for a sysctl.
#[must_use]
pub fn hint(error: &io::Error) -> Option<String> {
    let text = match rustix::io::Errno::from_io_error(error)? {
        rustix::io::Errno::ROFS => {
            "/proc/sys is read-only here, as in an unprivileged container: set the value on the host, or mount /proc/sys read-write"
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "run as root",
        rustix::io::Errno::INVAL | rustix::io::Errno::RANGE => "the kernel rejected the value",
        _ => return None,
    };
    Some(text.to_owned())
}

fn file(key: &SysctlKey) -> PathBuf {
    Path::new(ROOT).join(key.file())
}
