//! The sysctls of a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    kernel::{omission::Omission, sysctl},
    model::SysctlKey,
    text::{self, Untrusted},
};

/// How often to write everything that differs: some sysctls set others.
const PASSES: usize = 3;

/// The sysctls of a node.
#[derive(Debug)]
pub(super) struct Settings {
    values: BTreeMap<SysctlKey, Untrusted>,
}

/// Keeps the namespace of the calling thread from choosing addresses by itself. The node's own settings follow once its
/// addresses are assigned.
pub(super) fn prepare() {
    for (name, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("addr_gen_mode", "1")]
    {
        for interfaces in ["all", "default"] {
            // A kernel without IPv6 has none of these.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{interfaces}/{name}"), value);
        }
    }
}

impl Settings {
    pub(super) fn read() -> Self {
        let mut values = sysctl::everything().values;
        values.retain(|key, _| !is_volatile(&key.to_string()));
        Self { values }
    }

    /// Writes what must be set before addresses are assigned.
    pub(super) fn write_early(&self) {
        let early = |key: &SysctlKey| {
            let name = key.to_string();
            ["disable_ipv6", "optimistic_dad", "use_optimistic"].iter().any(|end| name.ends_with(end))
        };
        for key in self.ordered().into_iter().filter(|key| early(key)) {
            self.write_one(key);
        }
    }

    /// Writes everything that differs. Returns the number of sysctls that were set.
    pub(super) fn write(&self, omissions: &mut Vec<Omission>) -> usize {
        let mut written = BTreeSet::new();
        for _ in 0..PASSES {
            let different = self.different();
            if different.is_empty() {
                break;
            }
            for key in different {
                self.write_one(key);
                written.insert(key);
            }
        }
        let left = self.different();
        if !left.is_empty() {
            let names: Vec<String> = left.iter().map(ToString::to_string).collect();
            omissions.push(Omission::new(
                text::list(&names, usize::MAX),
                "not copied: the value cannot be set in a namespace",
            ));
        }
        written.len() - left.len().min(written.len())
    }

    /// The keys in an order in which those that set others come first: `all`, then `default`, then the interfaces.
    fn ordered(&self) -> Vec<&SysctlKey> {
        let rank = |key: &&SysctlKey| {
            let name = key.to_string();
            match () {
                () if name.contains(".all.") => 1,
                () if name.contains(".default.") => 2,
                () if name.contains(".conf.") => 3,
                () => 0,
            }
        };
        let mut keys: Vec<&SysctlKey> = self.values.keys().collect();
        keys.sort_by_key(rank);
        keys
    }

    /// The keys with another value in the namespace of the calling thread, except those that it lacks.
    fn different(&self) -> Vec<&SysctlKey> {
        let keys = self.ordered();
        let now = sysctl::read(keys.iter().map(|key| (*key).clone())).values;
        keys.into_iter().filter(|key| now.get(*key).is_some_and(|now| *now != self.values[*key])).collect()
    }

    fn write_one(&self, key: &SysctlKey) {
        if let Some(value) = self.values.get(key) {
            let _ = fs::write(sysctl::file(key), format!("{}\n", value.as_raw()));
        }
    }
}

/// Returns `true` for sysctls that change on their own, that are commands, or that show what the kernel supports.
fn is_volatile(name: &str) -> bool {
    sysctl::is_volatile(name) || name.contains("fastopen_key") || name.contains("netdev_rss_key")
}
