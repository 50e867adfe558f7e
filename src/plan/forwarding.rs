//! What the kernel rewrites on its own when a forwarding switch flips.
//!
//! Flipping `net.ipv4.ip_forward` sets every `net.ipv4.conf.*.forwarding` and the opposite of it in
//! `net.ipv4.conf.all.accept_redirects` (`inet_forward_change`, net/ipv4/devinet.c); flipping it back does
//! not bring back what stood there. `net.ipv6.conf.all.forwarding` sets every
//! `net.ipv6.conf.*.forwarding` (`addrconf_fixup_forwarding`, net/ipv6/addrconf.c). Writing the value that
//! stands already does neither.

use std::collections::BTreeMap;

use crate::state::SysctlKey;

/// The two switches and their families' directories.
fn switch_directory(key: &SysctlKey) -> Option<&'static str> {
    match key.as_str() {
        "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => Some("net.ipv4.conf."),
        "net.ipv6.conf.all.forwarding" => Some("net.ipv6.conf."),
        _ => None,
    }
}

/// Whether `key` is a forwarding switch of all interfaces.
#[must_use]
pub fn is_forwarding_switch(key: &SysctlKey) -> bool {
    switch_directory(key).is_some()
}

/// Those of `keys` that the kernel rewrites when `switch` flips, without the switch itself; none when
/// `switch` is no forwarding switch.
pub fn side_effects<'a>(
    switch: &SysctlKey,
    keys: impl Iterator<Item = &'a SysctlKey>,
) -> impl Iterator<Item = &'a SysctlKey> {
    let directory = switch_directory(switch);
    keys.filter(move |key| directory.is_some_and(|directory| is_rewritten(key, directory)))
}

fn is_rewritten(key: &SysctlKey, directory: &str) -> bool {
    let Some(rest) = key.as_str().strip_prefix(directory) else { return false };
    // `all.forwarding` is the switch itself, or its other name.
    (rest.ends_with(".forwarding") && rest != "all.forwarding")
        || (directory == "net.ipv4.conf." && rest == "all.accept_redirects")
}

/// Sets in `values` what the kernel will have set once `switch` holds `value`.
pub(super) fn flip(values: &mut BTreeMap<SysctlKey, String>, switch: &SysctlKey, value: &str) {
    let on = value != "0";
    let rewritten: Vec<SysctlKey> = side_effects(switch, values.keys()).cloned().collect();
    for key in rewritten {
        let is_redirects = key.as_str().ends_with("accept_redirects");
        values.insert(key, if on == is_redirects { "0" } else { "1" }.to_owned());
    }
    for (key, standing) in values.iter_mut() {
        if switch_directory(key).is_some_and(|directory| Some(directory) == switch_directory(switch)) {
            value.clone_into(standing);
        }
    }
}
