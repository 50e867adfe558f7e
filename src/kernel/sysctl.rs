//! Reads and writes sysctls as files: `/proc/sys/net` shows the network namespace of the thread that opens it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    buffer::spare_capacity,
    fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, openat, statfs},
    io::pread,
};

use super::link::Links;
use crate::{
    error::{Error, Kind},
    fault,
    model::{SysctlKey, normalize_value},
    plan::{Scope, SysctlChange},
    state::{InterfaceAddress, StatePart, Unknown},
    text::{self, OsError, Untrusted},
};

/// The environment variable that names another directory of sysctls.
const OVERRIDE: &str = "HOSTGW_SYSCTL_DIR";
const DEFAULT: &str = "/proc/sys";

/// The directory of sysctls. The one in an unprivileged container is read-only, and a container runtime refuses to mount
/// something over a part of it (`checkProcMount` in runc), but `/proc/sys/net` of the host can be mounted elsewhere.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let named = std::env::var_os(OVERRIDE).filter(|named| !named.is_empty());
        named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from)
    })
}

/// Checks that `HOSTGW_SYSCTL_DIR` names a directory of sysctls: values in ordinary files would have no effect.
///
/// # Errors
/// Returns an error if it does not, or is relative to the working directory, which other processes do not share.
pub fn check_directory() -> Result<(), Error> {
    if root() == Path::new(DEFAULT) {
        return Ok(());
    }
    // `/proc` has a directory `net`, too, but without `core`.
    let why = match statfs(root().join("net/core")) {
        _ if root().is_relative() => "is not absolute",
        Ok(file_system) if file_system.f_type == PROC_SUPER_MAGIC => return Ok(()),
        _ => "does not contain the sysctls of net",
    };
    let message = format!("{OVERRIDE}={} {why}", text::path(root()));
    Err(Error::new(Kind::Usage, message).with_hint(format!(
        "mount /proc/sys/net as DIR/net and pass the absolute path of DIR, or unset {OVERRIDE} to use {DEFAULT}"
    )))
}

/// The sysctls that were read.
#[derive(Debug, Default)]
pub struct ObservedSysctls {
    /// Value by key. Keys that the kernel does not have are absent.
    pub values: BTreeMap<SysctlKey, Untrusted>,
    /// Keys that exist but could not be read.
    pub unknown: Vec<Unknown>,
}

/// Reads the sysctls that `scope` asks for, except for those that came with the interfaces.
#[must_use]
pub fn observe(scope: &Scope, links: &Links, addresses: &[InterfaceAddress]) -> ObservedSysctls {
    let interfaces = |family: &str| -> Vec<String> {
        let mut known = links.with_ipv4().peekable();
        match family {
            "ipv4" if known.peek().is_some() => known.chain(["all", "default"]).map(str::to_owned).collect(),
            _ => interfaces(family),
        }
    };
    let is_mounted = root() == Path::new(DEFAULT);
    let known = |key: &SysctlKey| {
        let parts: Vec<_> = key.parts().collect();
        let [net, family, conf, interface, name] = parts.as_slice() else { return None };
        let is_of_interface = is_mounted && [&**net, &**family, &**conf] == ["net", "ipv4", "conf"];
        is_of_interface.then(|| links.ipv4_setting(interface, name))?
    };
    let (mut values, mut others) = (BTreeMap::new(), Vec::new());
    for key in scope.every_sysctl(interfaces, addresses) {
        match known(&key) {
            Some(value) => {
                values.insert(key, value.to_string().into());
            }
            None => others.push(key),
        }
    }
    let mut found = read(others);
    found.values.append(&mut values);
    found
}

/// Reads every sysctl under `net.`.
#[must_use]
pub fn everything() -> ObservedSysctls {
    let mut keys = Vec::new();
    collect(&root().join("net"), &mut keys);
    read(keys)
}

/// Collects the keys of all files below a directory, except names that are not valid keys: no plan can contain them.
fn collect(directory: &Path, keys: &mut Vec<SysctlKey>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, keys);
        } else {
            let parts =
                path.strip_prefix(root()).into_iter().flat_map(Path::iter).filter_map(|part| part.to_str());
            keys.extend(SysctlKey::from_parts(parts));
        }
    }
}

/// Reads the given sysctls.
pub fn read(keys: impl IntoIterator<Item = SysctlKey>) -> ObservedSysctls {
    let mut found = ObservedSysctls::default();
    let mut directory = OpenDirectory::default();
    for key in keys {
        match directory.open(&file(&key)).and_then(|file| value(&file)) {
            Ok(value) => {
                found.values.insert(key, value.into());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unknown.push(Unknown {
                reason: format!("cannot read it: {}", OsError(&error)).into(),
                part: StatePart::Sysctl { key },
                remedy: Some("run as root; hostgw cannot manage what root cannot read".into()),
            }),
        }
    }
    found
}

/// The directory of the last opened file. Files after it in the same directory are opened by name: otherwise, the kernel would
/// look up each component of their paths among those of all network namespaces.
#[derive(Default)]
struct OpenDirectory {
    path: PathBuf,
    descriptor: Option<OwnedFd>,
}

impl OpenDirectory {
    /// Opens a file for reading.
    fn open(&mut self, path: &Path) -> io::Result<File> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return File::open(path) };
        if self.path != parent {
            *self = Self { path: parent.to_owned(), descriptor: None };
            return File::open(path);
        }
        let directory = match &self.descriptor {
            Some(directory) => directory,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                self.descriptor.insert(openat(CWD, parent, flags, Mode::empty())?)
            }
        };
        Ok(openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

/// Reads a value in one system call. Some sysctls, such as lists of ports, return what fits into the first read and
/// nothing after it.
pub(super) fn value(file: &File) -> io::Result<String> {
    /// Enough for every sysctl but lists.
    const FIRST: usize = 4096;
    /// The kernel rejects larger reads (`KMALLOC_MAX_SIZE`, include/linux/slab.h).
    const LAST: usize = 2 << 20;
    let mut first = [MaybeUninit::uninit(); FIRST];
    let (text, rest) = pread(file, &mut first, 0)?;
    if !rest.is_empty() {
        return normalized(text);
    }
    let mut size = FIRST * 8;
    while size <= LAST {
        let mut buffer = Vec::with_capacity(size);
        pread(file, spare_capacity(&mut buffer), 0)?;
        if buffer.len() < buffer.capacity() {
            return normalized(&buffer);
        }
        size *= 8;
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {LAST} bytes")))
}

fn normalized(text: &[u8]) -> io::Result<String> {
    let text = str::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(normalize_value(text))
}

/// Lists the directories in `net/FAMILY/conf`: the interfaces, plus `all` and `default`.
fn interfaces(family: &str) -> Vec<String> {
    let directory = root().join("net").join(family).join("conf");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The reason that [`replace`] did not replace a value.
#[derive(Debug)]
pub enum ReplaceError {
    /// The system call failed: `EINVAL` for a value that the kernel rejects, `EROFS` for a read-only `/proc/sys`.
    Refused(io::Error),
    /// The kernel accepted the value but stored this one instead, so the previous value was restored.
    Normalized(Untrusted),
    /// Another program wrote this value concurrently.
    Moved(Untrusted),
}

impl From<io::Error> for ReplaceError {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// The live values that [`replace`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// The old or the new value; if it is the new one, there is nothing to write.
    OldOrNew,
    /// Only the old value: if it is the new one, another program wrote it.
    OldOnly,
}

/// Replaces a value unless another program changed it concurrently. The kernel has no compare-and-swap for sysctls, so
/// the value is read just before and just after the write.
///
/// # Errors
/// See [`ReplaceError`]. On an error, the value is unchanged.
pub fn replace(
    SysctlChange { key, before, after, .. }: &SysctlChange,
    accepts: Accepts,
) -> Result<(), ReplaceError> {
    fault::point().map_err(io::Error::from)?;
    let file = OpenOptions::new().read(true).write(true).open(file(key))?;
    let live = Untrusted::from(value(&file)?);
    if live == *after && accepts == Accepts::OldOrNew {
        return Ok(());
    }
    if live != *before {
        return Err(ReplaceError::Moved(live));
    }
    // In a list of numbers, the kernel stores those before the one that it rejects.
    let restore =
        || if value(&file).is_ok_and(|now| live != now) { write(&file, live.as_raw()) } else { Ok(()) };
    if let Err(error) = write(&file, after.as_raw()) {
        restore()?;
        return Err(error.into());
    }
    let now = Untrusted::from(value(&file)?);
    if now != *after {
        restore()?;
        return Err(ReplaceError::Normalized(now));
    }
    Ok(())
}

fn write(file: &File, value: &str) -> io::Result<()> {
    file.write_all_at(format!("{value}\n").as_bytes(), 0)
}

/// Returns `true` if the key exists and this process may write it in its network namespace.
#[must_use]
pub fn can_write(key: &SysctlKey) -> bool {
    OpenOptions::new().write(true).open(file(key)).is_ok()
}

/// Returns the remedy for an error of a write, if there is one.
#[must_use]
pub fn hint(error: &io::Error) -> Option<String> {
    let text = match rustix::io::Errno::from_io_error(error)? {
        rustix::io::Errno::ROFS => {
            "/proc/sys is read-only here, as in an unprivileged container: set the value on the host, or mount its /proc/sys/net elsewhere and set HOSTGW_SYSCTL_DIR"
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "run as root",
        rustix::io::Errno::INVAL | rustix::io::Errno::RANGE => "the kernel rejected the value",
        _ => return None,
    };
    Some(text.to_owned())
}

pub(super) fn file(key: &SysctlKey) -> PathBuf {
    root().join(key.file())
}

/// Returns `true` for sysctls that change on their own or cannot be compared.
pub fn is_volatile(name: &str) -> bool {
    name.contains("nf_conntrack_count") || name.ends_with(".flush") || name.contains("stable_secret")
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::kernel::{
        link::{self, IPV4_SETTINGS},
        netlink::Socket,
        testing::{in_namespace, sh},
    };

    /// Each setting changes alone, so a wrong number is noticed.
    #[test]
    fn settings_that_come_with_interfaces_are_those_in_their_files() {
        in_namespace(|| {
            sh(
                "ip link set lo up; ip link add name eth.0 type bridge; ip address add 172.30.0.11/24 dev eth.0",
            );
            let read_all = || {
                let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
                let links = Links::read(&mut socket).expect("links");
                let key = |name: &str| {
                    SysctlKey::from_parts(["net", "ipv4", "conf", "eth.0", name]).expect("a key")
                };
                for name in IPV4_SETTINGS {
                    let file = fs::read_to_string(file(&key(name))).expect("a sysctl");
                    assert_eq!(
                        links.ipv4_setting("eth.0", name).map(|value| value.to_string()).as_deref(),
                        Some(file.trim()),
                        "{name}"
                    );
                }
                links
            };
            read_all();
            // Nobody can write `mc_forwarding`.
            for name in IPV4_SETTINGS.into_iter().filter(|name| *name != "mc_forwarding") {
                let key = SysctlKey::from_parts(["net", "ipv4", "conf", "eth.0", name]).expect("a key");
                let path = file(&key);
                let before = fs::read_to_string(&path).expect("a sysctl");
                let other = if before.trim() == "1" { "0" } else { "1" };
                fs::write(&path, other).expect("writable");
                read_all();
                fs::write(&path, before).expect("writable");
            }
            let links = read_all();
            let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
            let addresses = link::addresses(&mut socket, &links).expect("addresses");
            let scope = Scope {
                prefixes: vec!["10.244.0.0/16".parse().expect("a prefix")],
                sysctls: [SysctlKey::ipv4_forwarding()].into(),
                ..Scope::default()
            };
            let known = observe(&scope, &links, &addresses).values;
            let from_files = observe(&scope, &Links::default(), &addresses).values;
            assert!(known.len() > 10, "{known:?}");
            assert_eq!(known, from_files);
        });
    }
}
