//! Sysctls that the kernel overwrites when a switch for all interfaces is written.
//!
//! Writing `net.ipv4.ip_forward` sets every `net.ipv4.conf.*.forwarding`, and `net.ipv4.conf.all.accept_redirects` to
//! the opposite (`inet_forward_change`, net/ipv4/devinet.c). Writing the previous value of the switch does not restore
//! theirs. Some keys of `net.ipv6.conf.all` set those of every interface (`addrconf_sysctl_*`, net/ipv6/addrconf.c).
//! Writing the live value has no such effect.

use std::collections::BTreeMap;

use crate::{model::SysctlKey, plan::SysctlChange, text::Untrusted};

/// The keys of `net.ipv6.conf.all` that set those of every interface.
const IPV6_LEAVES: [&str; 5] =
    ["addr_gen_mode", "disable_ipv6", "force_forwarding", "forwarding", "ignore_routes_with_linkdown"];

/// The keys that a switch overwrites: a directory with one subdirectory per interface, and the name in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FanOut {
    directory: &'static str,
    leaf: &'static str,
}

fn fan_out(key: &SysctlKey) -> Option<FanOut> {
    match key.as_str() {
        "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => {
            Some(FanOut { directory: "net.ipv4.conf.", leaf: "forwarding" })
        }
        other => {
            let leaf = other.strip_prefix("net.ipv6.conf.all.")?;
            let leaf = IPV6_LEAVES.into_iter().find(|known| *known == leaf)?;
            Some(FanOut { directory: "net.ipv6.conf.", leaf })
        }
    }
}

/// Returns `true` if writing `key` makes the kernel overwrite those of the interfaces.
#[must_use]
pub fn is_switch(key: &SysctlKey) -> bool {
    fan_out(key).is_some()
}

/// Returns the keys that `switch` may overwrite if these are all `interfaces`, including `all` and `default`. The
/// result is empty if it is not a switch.
pub fn rewritten_on<'a>(switch: &SysctlKey, interfaces: impl Iterator<Item = &'a str>) -> Vec<SysctlKey> {
    let Some(FanOut { directory, leaf }) = fan_out(switch) else { return Vec::new() };
    let directory: Vec<&str> = directory.trim_end_matches('.').split('.').collect();
    let is_v4 = directory.get(1) == Some(&"ipv4");
    interfaces
        .filter_map(|interface| {
            let name = match interface {
                "all" if is_v4 => "accept_redirects",
                "all" => return None,
                _ => leaf,
            };
            SysctlKey::from_parts(directory.iter().copied().chain([interface, name])).ok()
        })
        .collect()
}

/// Returns the `keys` that the kernel overwrites when `switch` is written, except the switch itself. The result is
/// empty if it is not a switch.
pub fn side_effects<'a>(
    switch: &SysctlKey,
    keys: impl Iterator<Item = &'a SysctlKey>,
) -> impl Iterator<Item = &'a SysctlKey> {
    let fan_out = fan_out(switch);
    // Most keys are not switches: their cost must not depend on the number of interfaces.
    keys.take_while(move |_| fan_out.is_some())
        .filter(move |key| fan_out.is_some_and(|fan_out| is_rewritten(key, fan_out)))
}

fn is_rewritten(key: &SysctlKey, FanOut { directory, leaf }: FanOut) -> bool {
    let Some((interface, name)) = key.as_str().strip_prefix(directory).and_then(|rest| rest.rsplit_once('.'))
    else {
        return false;
    };
    // `all.forwarding` is the switch itself, or its alias.
    (name == leaf && interface != "all")
        || (directory == "net.ipv4.conf." && interface == "all" && name == "accept_redirects")
}

/// Returns the value that the kernel gives to `key`, a side effect of a switch, when `value` is written to the switch.
pub(super) fn value_with(key: &SysctlKey, value: &str) -> String {
    let name = key.as_str().rsplit('.').next().unwrap_or_default();
    match (name, value) {
        ("accept_redirects", "0") => "1".to_owned(),
        ("accept_redirects", _) => "0".to_owned(),
        // The IPv4 switch accepts any number.
        ("forwarding", other) if other != "0" && key.as_str().starts_with("net.ipv4.") => "1".to_owned(),
        (_, other) => other.to_owned(),
    }
}

/// Returns the values of all sysctls after `changes` were made in this order.
#[must_use]
pub fn after<'a>(
    values: &BTreeMap<SysctlKey, Untrusted>,
    changes: impl IntoIterator<Item = &'a SysctlChange>,
) -> BTreeMap<SysctlKey, Untrusted> {
    let mut values = values.clone();
    for SysctlChange { key, after, .. } in changes {
        values.insert(key.clone(), after.clone());
        flip(&mut values, key, after.as_raw());
    }
    values
}

/// Updates `values` as the kernel does when `value` is written to `switch`.
pub(super) fn flip(values: &mut BTreeMap<SysctlKey, Untrusted>, switch: &SysctlKey, value: &str) {
    let rewritten: Vec<SysctlKey> = side_effects(switch, values.keys()).cloned().collect();
    for key in rewritten {
        let rewritten = value_with(&key, value);
        values.insert(key, rewritten.into());
    }
    for (key, current) in values.iter_mut() {
        if fan_out(key).is_some_and(|other| Some(other) == fan_out(switch)) {
            *current = value.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_a_switch_rewrites_are_its_side_effects() {
        const INTERFACES: [&str; 4] = ["all", "default", "eth0", "eth0.100"];
        let names = ["forwarding", "accept_redirects", "rp_filter", "disable_ipv6"];
        let all: Vec<SysctlKey> = ["ipv4", "ipv6"]
            .into_iter()
            .flat_map(|family| INTERFACES.map(|interface| ["net", family, "conf", interface]))
            .flat_map(|parts| names.map(|name| SysctlKey::from_parts(parts.into_iter().chain([name]))))
            .map(|key| key.expect("a key"))
            .collect();
        for (switch, count) in [
            ("net.ipv4.ip_forward", 4),
            ("net.ipv4.conf.all.forwarding", 4),
            ("net.ipv6.conf.all.forwarding", 3),
            ("net.ipv6.conf.all.disable_ipv6", 3),
            ("net.ipv4.conf.all.rp_filter", 0),
        ] {
            let switch: SysctlKey = switch.parse().expect("a key");
            let mut expected: Vec<&SysctlKey> = side_effects(&switch, all.iter()).collect();
            let mut rewritten = rewritten_on(&switch, INTERFACES.into_iter());
            expected.sort();
            rewritten.sort();
            assert_eq!(rewritten.iter().collect::<Vec<_>>(), expected, "{switch}");
            assert_eq!(expected.len(), count, "{switch}");
        }
    }
}
