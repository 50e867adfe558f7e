//! Sysctls, by plain files: `/proc/sys/net` shows the network namespace of the thread that opens it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    fault,
    plan::Scope,
    state::{Subject, SysctlKey, Unknown, normalise_value},
};

const ROOT: &str = "/proc/sys";

/// What was read.
#[derive(Debug, Default)]
pub struct Found {
    /// Value by key; a key that the kernel does not have is absent.
    pub values: BTreeMap<SysctlKey, String>,
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

fn read(keys: impl IntoIterator<Item = SysctlKey>) -> Found {
    let mut found = Found::default();
    for key in keys {
        match read_value(&key) {
            Ok(value) => {
                found.values.insert(key, normalise_value(&value));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unknown.push(Unknown {
                why: format!("it cannot be read: {error}").into(),
                what: Subject::Sysctl { key },
                hint: Some("run as root; what root cannot read either, hostgw cannot manage".into()),
            }),
        }
    }
    found
}

/// Reads a value in one system call: some sysctls, such as lists of ports, give what fits in the first read and
/// nothing after it.
fn read_value(key: &SysctlKey) -> io::Result<String> {
    /// Enough for all but lists.
    const FIRST: usize = 4096;
    /// The kernel refuses to fill more (`KMALLOC_MAX_SIZE`, include/linux/slab.h).
    const LAST: usize = 2 << 20;
    let file = File::open(file(key))?;
    let mut buffer = vec![0; FIRST];
    loop {
        let length = file.read_at(&mut buffer, 0)?;
        if length < buffer.len() {
            buffer.truncate(length);
            return String::from_utf8(buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
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

/// Writes one value.
///
/// # Errors
/// The system call's, `EINVAL` for a value that the kernel refuses, `EROFS` for a read-only `/proc/sys`.
pub fn write(key: &SysctlKey, value: &str) -> io::Result<()> {
    fault::point()?;
    let mut file = OpenOptions::new().write(true).open(file(key))?;
    file.write_all(format!("{value}\n").as_bytes())
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
            "/proc/sys is read-only here, as in an unprivileged container: set it on the host, or mount \
             /proc/sys writable"
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "run as root",
        rustix::io::Errno::INVAL | rustix::io::Errno::RANGE => {
            "the kernel does not take that value: see its documentation"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn file(key: &SysctlKey) -> PathBuf {
    Path::new(ROOT).join(key.file())
}
