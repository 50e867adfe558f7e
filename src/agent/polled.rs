//! The sysctls whose changes the kernel does not announce.

use std::time::{Duration, Instant};

use crate::{apply::Backend, kernel::LiveNode, model::SysctlKey, plan::SysctlValues, state::State};

/// The time between two comparisons.
const INTERVAL: Duration = Duration::from_secs(1);

/// The managed sysctls whose changes the kernel does not announce, with their desired values. They are few, and read once a
/// second.
#[derive(Debug, Default)]
pub(super) struct Polled {
    keys: Vec<SysctlKey>,
    values: SysctlValues,
    next: Option<Instant>,
}

impl Polled {
    /// Sets the sysctls to compare to those of `desired`.
    pub fn set(&mut self, desired: &State, now: Instant) {
        let polled = desired.sysctls.iter().filter(|(key, _)| !is_announced(key));
        self.values = polled.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.keys = self.values.keys().cloned().collect();
        self.next = (!self.keys.is_empty()).then(|| now + INTERVAL);
    }

    /// When the next comparison is due.
    pub const fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Returns `true` if a comparison is due and a value has changed.
    pub fn differ(&mut self, now: Instant) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        self.next = Some(now + INTERVAL);
        let live = LiveNode.sysctls(&self.keys);
        self.values.iter().any(|(key, value)| live.get(key).is_some_and(|live| live != value))
    }
}

/// Returns `true` if the kernel announces changes to the sysctl (`inet_netconf_notify_devconf` in net/ipv4/devinet.c,
/// `inet6_netconf_notify_devconf` in net/ipv6/addrconf.c).
fn is_announced(key: &SysctlKey) -> bool {
    let text = key.as_str();
    let of_interface = |family: &str, names: &[&str]| {
        let rest = text.strip_prefix("net.").and_then(|rest| rest.strip_prefix(family));
        let name = rest.and_then(|rest| rest.strip_prefix(".conf.")).and_then(|rest| rest.rsplit('.').next());
        name.is_some_and(|name| names.contains(&name))
    };
    text == "net.ipv4.ip_forward"
        || of_interface("ipv4", &["forwarding", "rp_filter", "ignore_routes_with_linkdown"])
        || of_interface("ipv6", &["forwarding", "ignore_routes_with_linkdown"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_announced_and_redirects_are_not() {
        let announced = |key: &str| is_announced(&key.parse().expect("a key"));
        for key in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.eth0/100.forwarding",
            "net.ipv6.conf.all.forwarding",
        ] {
            assert!(announced(key), "{key}");
        }
        for key in [
            "net.ipv4.conf.all.send_redirects",
            "net.ipv6.conf.eth0.accept_ra",
            "net.core.somaxconn",
            "net.ipv6.conf.all.rp_filter",
        ] {
            assert!(!announced(key), "{key}");
        }
    }
}
