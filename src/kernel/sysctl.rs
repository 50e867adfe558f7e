//! Sysctls, by plain files: `/proc/sys/net` shows the network namespace of the thread that opens it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    fault,
    plan::{is_switch, rewritten_on},
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

/// Reads `keys`, for a switch among them everything that the kernel rewrites with it, and for IPv6
/// forwarding whether each interface goes on taking router advertisements.
#[must_use]
pub fn observe(keys: &BTreeSet<SysctlKey>) -> Found {
    let mut found = Found::default();
    let mut wanted = keys.clone();
    for key in keys {
        wanted.extend(rewritten_with(key));
    }
    if keys.contains(&SysctlKey::ipv6_forwarding()) {
        let accept_ra = |name: &String| SysctlKey::from_parts(["net", "ipv6", "conf", name, "accept_ra"]);
        wanted.extend(interfaces("ipv6").iter().filter_map(|name| accept_ra(name).ok()));
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
                hint: Some("run as root; what root cannot read either, hostgw cannot manage".to_owned()),
            }),
        }
    }
    found
}

/// The keys that the kernel rewrites with `switch`; none when it is no switch.
fn rewritten_with(switch: &SysctlKey) -> Vec<SysctlKey> {
    let family = switch.parts().nth(1).filter(|_| is_switch(switch));
    let interfaces = family.map(|family| interfaces(&family)).unwrap_or_default();
    rewritten_on(switch, interfaces.iter().map(String::as_str))
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
