//! Sysctls that somebody else has written since hostgw did.
//!
//! A route carries its owner's mark; a sysctl has nothing but its value. The records say which value hostgw left,
//! and which one it found: a live value that is neither is foreign.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Desired, OriginalSysctls, switch};
use crate::diagnose::{Diagnostic, Rule};
use crate::{model::SysctlKey, text::Untrusted};

/// Sysctl values by key.
pub type SysctlValues = BTreeMap<SysctlKey, Untrusted>;

/// A sysctl that hostgw would restore, and that somebody else has written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignSysctl {
    /// The key.
    pub key: SysctlKey,
    /// The live value.
    pub live: Untrusted,
    /// The value that hostgw left.
    pub written: Option<Untrusted>,
    /// The value that hostgw would restore.
    pub original: Untrusted,
}

impl fmt::Display for ForeignSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, live, written, original } = self;
        write!(f, "{key} = {live} was not set by hostgw: hostgw ")?;
        match written {
            Some(written) => write!(f, "wrote {written} and would restore {original}"),
            None => write!(f, "would restore {original}"),
        }
    }
}

/// What to do about foreign values where others are to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSysctlPolicy {
    /// Report them as conflicts.
    Refuse,
    /// Restore the original values all the same (`--adopt`).
    Overwrite,
    /// Leave them to whoever wrote them (`--abandon`).
    Leave,
}

/// How far the transaction came whose sysctls are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionProgress {
    /// It was verified: every sysctl had the value that it leaves.
    Verified,
    /// It or its undo may have stopped anywhere.
    Partial,
}

/// The values that are to be restored, and what tells hostgw's values from foreign ones.
#[derive(Debug, Clone, Copy)]
pub struct Restoration<'a> {
    /// The values to restore.
    pub original: &'a SysctlValues,
    /// The values that hostgw left.
    pub written: &'a SysctlValues,
    /// Values that are known to be foreign, whatever they look like by now.
    pub foreign: &'a SysctlValues,
    /// How far hostgw came.
    pub progress: TransactionProgress,
}

impl Restoration<'_> {
    /// The sysctls among the `live` ones that somebody else has written since.
    #[must_use]
    pub fn foreign(&self, live: &SysctlValues) -> Vec<ForeignSysctl> {
        let switches: Vec<&SysctlKey> = self.written.keys().filter(|key| switch::is_switch(key)).collect();
        let mut foreign = Vec::new();
        for (key, original) in self.original {
            // A key that is gone took its value with it.
            let Some(value) = live.get(key).filter(|value| *value != original) else { continue };
            let is_known = self.foreign.get(key) == Some(value);
            let is_own = self.written.get(key) == Some(value)
                || switches.iter().any(|switch| self.is_rewritten(switch, key, value, live));
            if is_known || !is_own {
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

    /// Whether `value` is what the kernel made of `key` when `switch` took the value that it has now: the step
    /// after that, which writes `key` itself, may be missing still.
    fn is_rewritten(
        &self,
        switch: &SysctlKey,
        key: &SysctlKey,
        value: &Untrusted,
        live: &SysctlValues,
    ) -> bool {
        let Some(position) = live.get(switch) else { return false };
        let is_back = self.original.get(switch) == Some(position);
        let is_written = self.written.get(switch) == Some(position);
        let may_be_between = match self.progress {
            // Only an undo that began with the switch leads there.
            TransactionProgress::Verified => is_back && !is_written,
            TransactionProgress::Partial => is_back || is_written,
        };
        may_be_between
            && switch::side_effects(switch, std::iter::once(key)).next().is_some()
            && *value == switch::value_with(key, position.as_raw())
    }
}

/// What to say of `foreign` values that are not restored.
pub fn left(foreign: &[ForeignSysctl]) -> impl Iterator<Item = Diagnostic> + '_ {
    foreign.iter().map(|ForeignSysctl { key, live, .. }| {
        let message =
            format!("{key} keeps its value {live}, set by another program; hostgw no longer manages it");
        Diagnostic::new(Rule::ForeignSysctl, message)
    })
}

/// Takes `foreign` values out of those that `wanted` would change: they stay, even where the kernel rewrites them
/// with a switch.
pub fn leave(wanted: &mut SysctlValues, foreign: &[ForeignSysctl]) {
    for ForeignSysctl { key, live, .. } in foreign {
        wanted.insert(key.clone(), live.clone());
    }
}

/// Adds to `wanted` what a switch among the `restored` keys would rewrite though hostgw never touched it: the values
/// of interfaces that came later, where they are not what the switch made of them.
pub fn leave_deviating(wanted: &mut SysctlValues, restored: &BTreeSet<SysctlKey>, live: &SysctlValues) {
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
    /// The sysctls among the `live` ones that are to be restored by what is `saved`, and that somebody else has
    /// written since.
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

    /// The keys that are foreign where `live` is what there is, of a transaction that switched forwarding on.
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
    fn a_value_that_is_neither_the_one_before_nor_the_one_written_is_foreign() {
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            for value in ["0", "2"] {
                assert!(foreign(&[(FILTER, value)], &[], progress).is_empty());
            }
            assert_eq!(foreign(&[(FILTER, "1")], &[], progress), [FILTER]);
        }
    }

    #[test]
    fn a_key_that_is_gone_is_not_foreign() {
        assert!(foreign(&[], &[], TransactionProgress::Verified).is_empty());
    }

    /// Forwarding goes off first, and the kernel rewrites the others with it.
    #[test]
    fn an_undo_that_stopped_between_two_steps_goes_on() {
        let between = [(SWITCH, "0"), (REDIRECTS, "1"), (LAN, "0")];
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            assert!(foreign(&between, &[], progress).is_empty());
        }
    }

    #[test]
    fn a_side_effect_that_somebody_changed_later_is_foreign() {
        let live = [(SWITCH, "1"), (REDIRECTS, "1"), (LAN, "0")];
        for progress in [TransactionProgress::Verified, TransactionProgress::Partial] {
            assert_eq!(foreign(&live, &[], progress), [REDIRECTS, LAN]);
        }
    }

    /// The flip that an undo began with makes a foreign value look like one of its own steps.
    #[test]
    fn what_is_known_to_be_foreign_stays_so() {
        let live = [(SWITCH, "0"), (REDIRECTS, "1"), (LAN, "0")];
        assert_eq!(foreign(&live, &[(REDIRECTS, "1")], TransactionProgress::Partial), [REDIRECTS]);
    }

    #[test]
    fn what_a_switch_would_rewrite_of_an_interface_that_came_later_stays() {
        let live = values(&[(SWITCH, "1"), ("net.ipv4.conf.new0.forwarding", "0"), (LAN, "1")]);
        let mut wanted = values(&[(SWITCH, "0"), (LAN, "1")]);
        let restored = [SWITCH.parse().expect("a key")].into();
        leave_deviating(&mut wanted, &restored, &live);
        assert_eq!(wanted, values(&[(SWITCH, "0"), (LAN, "1"), ("net.ipv4.conf.new0.forwarding", "0")]));
        let mut settled = values(&[(SWITCH, "1")]);
        leave_deviating(&mut settled, &restored, &live);
        assert_eq!(settled, values(&[(SWITCH, "1")]));
    }
}
