//! Sysctls, by plain files: `/proc/sys/net` shows the network namespace of the thread that opens it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    plan::{is_forwarding_switch, side_effects},
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

/// Reads `keys`, and for a forwarding switch among them everything that the kernel rewrites with it.
#[must_use]
pub fn observe(keys: &BTreeSet<SysctlKey>) -> Found {
    let mut found = Found::default();
    let mut wanted = keys.clone();
    for key in keys {
        wanted.extend(rewritten_with(key));
    }
    for key in wanted {
        match fs::read_to_string(file(&key)) {
            Ok(value) => {
                found.values.insert(key, normalise_value(&value));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unknown.push(Unknown {
                why: format!("it cannot be read: {error}"),
                what: Subject::Sysctl { key },
                hint: Some("run as root".to_owned()),
            }),
        }
    }
    found
}

/// The keys that flip with `switch`; none when it is no forwarding switch.
fn rewritten_with(switch: &SysctlKey) -> Vec<SysctlKey> {
    let family = switch.parts().nth(1).filter(|_| is_forwarding_switch(switch));
    let Some(family) = family else { return Vec::new() };
    let directory = Path::new(ROOT).join("net").join(&family).join("conf");
    let Ok(interfaces) = fs::read_dir(directory) else { return Vec::new() };
    let names = interfaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let candidates: Vec<SysctlKey> = names
        .flat_map(|name| {
            ["forwarding", "accept_redirects"]
                .map(|leaf| SysctlKey::from_parts(["net", &family, "conf", &name, leaf]))
        })
        .filter_map(Result::ok)
        .collect();
    side_effects(switch, candidates.iter()).cloned().collect()
}

/// Writes one value.
///
/// # Errors
/// The system call's, `EINVAL` for a value that the kernel refuses, `EROFS` for a read-only `/proc/sys`.
pub fn write(key: &SysctlKey, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(file(key))?;
    file.write_all(format!("{value}\n").as_bytes())
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
