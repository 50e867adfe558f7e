//! Sysctls that another program has written since hostgw did.
//!
//! Routes carry the mark of their owner, but a sysctl is nothing but its value. The records contain the value that
//! hostgw wrote and the one it found: a live value that is neither of the two is foreign.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Desired, OriginalSysctls, switch};
use crate::diagnose::{Diagnostic, Rule};
use crate::{model::SysctlKey, text::Untrusted};

/// Sysctl values by key.
pub type SysctlValues = BTreeMap<SysctlKey, Untrusted>;

/// A sysctl that hostgw would restore but another program has written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignSysctl {
    /// The key.
    pub key: SysctlKey,
    /// The live value.
    pub live: Untrusted,
    /// The value that hostgw wrote.
    pub written: Option<Untrusted>,
    /// The value that hostgw would restore.
    pub original: Untrusted,
}

impl fmt::Display for ForeignSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, live, written, original } = self;
        write!(f, "{key} = {live} was set by another program: ")?;
        match written {
            Some(written) => write!(f, "hostgw had set {written}; the original value is {original}"),
            None => write!(f, "the original value is {original}"),
        }
    }
}

/// How to treat foreign values of sysctls that would be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSysctlPolicy {
    /// Report them as conflicts.
    Refuse,
    /// Restore the original values anyway (`--adopt`).
    Overwrite,
    /// Keep the foreign values (`--abandon`).
    Leave,
}

/// The progress of the transaction whose sysctls are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionProgress {
    /// The transaction was verified: every sysctl had its new value.
    Verified,
    /// The transaction or its rollback may have stopped anywhere.
    Partial,
}

/// The sysctls to restore, and the information that distinguishes hostgw's values from foreign ones.
#[derive(Debug, Clone, Copy)]
pub struct Restoration<'a> {
    /// The values to restore.
    pub original: &'a SysctlValues,
    /// The values that hostgw wrote.
    pub written: &'a SysctlValues,
    /// Values that are known to be foreign, even if they look like hostgw's by now.
    pub foreign: &'a SysctlValues,
    /// The progress of the transaction.
    pub progress: TransactionProgress,
}

impl Restoration<'_> {
    /// Returns the `live` sysctls that another program has written.
    #[must_use]
    pub fn foreign(&self, live: &SysctlValues) -> Vec<ForeignSysctl> {
        let switches: Vec<&SysctlKey> = self.written.keys().filter(|key| switch::is_switch(key)).collect();
        let mut foreign = Vec::new();
        for (key, original) in self.original {
            // A sysctl that no longer exists has no value.
            let Some(value) = live.get(key).filter(|value| *value != original) else { continue };
            let is_known = self.foreign.get(key) == Some(value);
            let is_by_hostgw = self.written.get(key) == Some(value)
                || switches.iter().any(|switch| self.is_rewritten(switch, key, value, live));
            if is_known || !is_by_hostgw {
                foreign.push(ForeignSysctl {
                    key: key.clone(),
                    live: value.clone(),
                    written: self.written.get(key).cloned(),
                    original: original.clone(),
                });
            }
        }
        foreign
    }

    /// Returns `true` if the kernel set `key` to `value` when `switch` got its live value. The next step, which writes
    /// `key` itself, may not have happened yet.
    fn is_rewritten(
        &self,
        switch: &SysctlKey,
        key: &SysctlKey,
        value: &Untrusted,
        live: &SysctlValues,
    ) -> bool {
        let Some(position) = live.get(switch) else { return false };
        let is_restored = self.original.get(switch) == Some(position);
        let is_written = self.written.get(switch) == Some(position);
        let can_be_partial = match self.progress {
            // Only a rollback that has written the switch leads to this state.
            TransactionProgress::Verified => is_restored && !is_written,
            TransactionProgress::Partial => is_restored || is_written,
        };
        can_be_partial
            && switch::side_effects(switch, std::iter::once(key)).next().is_some()
            && *value == switch::value_with(key, position.as_raw())
    }
}

/// Returns the warnings about `foreign` values that are not restored.
pub fn warnings(foreign: &[ForeignSysctl]) -> impl Iterator<Item = Diagnostic> + '_ {
    foreign.iter().map(|ForeignSysctl { key, live, .. }| {
        let message =
            format!("{key} keeps its value {live}, set by another program; hostgw no longer manages it");
        Diagnostic::new(Rule::ForeignSysctl, message)
    })
}

/// Keeps `foreign` values: sets them in `wanted`, so that they survive even where the kernel overwrites them because of
/// a switch.
pub fn keep(wanted: &mut SysctlValues, foreign: &[ForeignSysctl]) {
    for ForeignSysctl { key, live, .. } in foreign {
        wanted.insert(key.clone(), live.clone());
    }
}

/// Keeps sysctls that hostgw never touched although a switch among the `restored` keys would overwrite them: those of
/// interfaces that were created later, if their values differ from the switch's.
pub fn keep_deviating(wanted: &mut SysctlValues, restored: &BTreeSet<SysctlKey>, live: &SysctlValues) {
    let switches = wanted.iter().filter(|(key, value)| {
        restored.contains(*key) && switch::is_switch(key) && live.get(*key) != Some(value)
    });
    let deviating: SysctlValues = switches
        .filter_map(|(switch, _)| Some((switch, live.get(switch)?)))
        .flat_map(|(switch, position)| {
            switch::side_effects(switch, live.keys()).filter(|key| {
                !wanted.contains_key(*key) && live[*key] != switch::value_with(key, position.as_raw())
            })
        })
        .map(|key| (key.clone(), live[key].clone()))
        .collect();
    wanted.extend(deviating);
}

impl Desired {
    /// Returns the `live` sysctls that would be restored from `saved` but that another program has written since.
    #[must_use]
    pub fn foreign_sysctls(&self, saved: &OriginalSysctls, live: &SysctlValues) -> Vec<ForeignSysctl> {
        let released = self.released.iter().filter_map(|key| self.state.sysctls.get_key_value(key));
        let original: SysctlValues = released.map(|(key, value)| (key.clone(), value.clone())).collect();
        let written = saved.0.iter().map(|(key, saved)| (key.clone(), saved.last.clone())).collect();
        let restoration = Restoration {
            original: &original,
            written: &written,
            foreign: &SysctlValues::new(),
            progress: TransactionProgress::Verified,
        };
        restoration.foreign(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: &str = "net.ipv4.ip_forward";
    const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";
    const LAN: &str = "net.ipv4.conf.lan0.forwarding";
    const FILTER: &str = "net.ipv4.conf.all.rp_filter";

    fn values(values: &[(&str, &str)]) -> SysctlValues {
        values.iter().map(|(key, value)| (key.parse().expect("a key"), (*value).into())).collect()
    }

    /// Returns the foreign keys if `live` are the live values, for a transaction that enabled forwarding.
    fn foreign(live: &[(&str, &str)], known: &[(&str, &str)], progress: TransactionProgress) -> Vec<String> {
        let restoration = Restoration {
            original: &values(&[(SWITCH, "0"), (REDIRECTS, "0"), (LAN, "1"), (FILTER, "0")]),
            written: &values(&[(SWITCH, "1"), (REDIRECTS, "0"), (LAN, "1"), (FILTER, "2")]),
            foreign: &values(known),
            progress,
        };
        restoration.foreign(&values(live)).iter().map(|foreign| foreign.key.to_string()).collect()
    }

    #[test]
    fn values_that_are_neither_original_nor_written_are_foreign() {
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            for value in ["0", "2"] {
                assert!(foreign(&[(FILTER, value)], &[], progress).is_empty());
            }
            assert_eq!(foreign(&[(FILTER, "1")], &[], progress), [FILTER]);
        }
    }

    #[test]
    fn missing_keys_are_not_foreign() {
        assert!(foreign(&[], &[], TransactionProgress::Verified).is_empty());
    }

    /// The rollback disables forwarding first, and the kernel overwrites the other keys.
    #[test]
    fn an_interrupted_rollback_can_resume() {
        let partial = [(SWITCH, "0"), (REDIRECTS, "1"), (LAN, "0")];
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            assert!(foreign(&partial, &[], progress).is_empty());
        }
    }

    #[test]
    fn side_effects_changed_later_are_foreign() {
        let live = [(SWITCH, "1"), (REDIRECTS, "1"), (LAN, "0")];
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            assert_eq!(foreign(&live, &[], progress), [REDIRECTS, LAN]);
        }
    }

    /// The switch that the rollback wrote first makes a foreign value look like one of its own steps.
    #[test]
    fn known_foreign_values_remain_foreign() {
        let live = [(SWITCH, "0"), (REDIRECTS, "1"), (LAN, "0")];
        assert_eq!(foreign(&live, &[(REDIRECTS, "1")], TransactionProgress::Partial), [REDIRECTS]);
    }

    #[test]
    fn sysctls_of_later_interfaces_are_kept() {
        let live = values(&[(SWITCH, "1"), ("net.ipv4.conf.new0.forwarding", "0"), (LAN, "1")]);
        let mut wanted = values(&[(SWITCH, "0"), (LAN, "1")]);
        let restored = [SWITCH.parse().expect("a key")].into();
        keep_deviating(&mut wanted, &restored, &live);
        assert_eq!(wanted, values(&[(SWITCH, "0"), (LAN, "1"), ("net.ipv4.conf.new0.forwarding", "0")]));
        let mut unchanged = values(&[(SWITCH, "1")]);
        keep_deviating(&mut unchanged, &restored, &live);
        assert_eq!(unchanged, values(&[(SWITCH, "1")]));
    }
}
