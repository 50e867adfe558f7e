//! The rules of iptables-legacy, which its own programs save and restore: their binary form depends on the kernel's
//! configuration.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write},
    process::{Command, Output, Stdio},
};

use crate::{
    kernel::{nat::LEGACY, omission::Omission},
    text::{OsError, Untrusted},
};

/// A program of iptables-legacy: its list of tables in use, and how to save and restore them.
struct Program {
    family: &'static str,
    list: &'static str,
    save: &'static str,
    restore: &'static str,
}

const PROGRAMS: [Program; 2] = [
    Program {
        family: "iptables",
        list: LEGACY[0],
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
    },
    Program {
        family: "ip6tables",
        list: LEGACY[1],
        save: "ip6tables-legacy-save",
        restore: "ip6tables-legacy-restore",
    },
];

/// The rules of one address family.
#[derive(Debug)]
struct SavedRules {
    family: &'static str,
    /// The names of the tables in use.
    tables: Vec<String>,
    restore: &'static str,
    /// The output of the program that saves them, or why there is none.
    text: Result<Vec<u8>, String>,
}

/// The rules of iptables-legacy on a node.
#[derive(Debug, Default)]
pub(super) struct LegacyRules {
    saved: Vec<SavedRules>,
    /// The families whose tables cannot be listed, as in some user namespaces.
    unreadable: Vec<&'static str>,
    /// The sets that they use, as the program `ipset` saves them.
    sets: Option<Result<Vec<u8>, String>>,
}

impl LegacyRules {
    /// Saves the rules of the namespace of the calling thread, if any are loaded.
    pub(super) fn read() -> Self {
        let mut found = Self::default();
        for Program { family, list, save, restore } in PROGRAMS {
            let list = fs::read_to_string(list);
            if list.as_ref().is_err_and(|error| error.kind() != ErrorKind::NotFound) {
                found.unreadable.push(family);
            }
            let tables: Vec<String> = list.unwrap_or_default().lines().map(str::to_owned).collect();
            if !tables.is_empty() {
                let text = run(Command::new(save), None);
                found.saved.push(SavedRules { family, tables, restore, text });
            }
        }
        let uses_sets = |saved: &SavedRules| {
            let text = saved.text.as_deref().unwrap_or_default();
            text.windows(11).any(|part| part == b"--match-set")
        };
        if found.saved.iter().any(uses_sets) {
            let mut save = Command::new("ipset");
            save.arg("save");
            found.sets = Some(run(save, None));
        }
        found
    }

    pub(super) fn count(&self) -> usize {
        self.saved.iter().map(|saved| saved.tables.len()).sum()
    }

    /// Restores the rules in the namespace of the calling thread.
    pub(super) fn write(&self, omissions: &mut Vec<Omission>) {
        for family in &self.unreadable {
            omissions.push(Omission::decisive(
                format!("the rules of {family}-legacy"),
                "unknown: no permission to list them",
            ));
        }
        if let Some(sets) = &self.sets {
            let mut restore = Command::new("ipset");
            restore.arg("restore");
            if let Err(error) = sets.clone().and_then(|text| run(restore, Some(&text))) {
                omissions.push(Omission::decisive("ipset sets", format!("not copied: {error}")));
            }
        }
        for SavedRules { family, restore, text, .. } in &self.saved {
            let mut command = Command::new(restore);
            command.arg("--counters");
            let restored = text.clone().and_then(|text| run(command, Some(&text)));
            if let Err(error) = restored {
                omissions.push(Omission::decisive(
                    format!("the rules of {family}-legacy"),
                    format!("not copied: {error}"),
                ));
            }
        }
    }
}

/// Returns the names of the tables of iptables-legacy that do anything with packets in the namespace of the calling thread, and
/// the programs whose tables cannot be listed. A table whose rules cannot be read counts.
#[must_use]
pub fn legacy_tables() -> (Vec<Untrusted>, Vec<Untrusted>) {
    let LegacyRules { saved, unreadable, .. } = LegacyRules::read();
    let mut names: Vec<String> = Vec::new();
    for SavedRules { tables, text, .. } in saved {
        match text {
            Ok(text) => names.extend(tables_with_rules(&String::from_utf8_lossy(&text))),
            Err(_) => names.extend(tables),
        }
    }
    names.sort();
    names.dedup();
    let programs = unreadable.into_iter().map(|family| format!("{family}-legacy").into());
    (names.into_iter().map(Into::into).collect(), programs.collect())
}

/// Listing the rules of a table loads it: it is in use then, and does nothing.
fn tables_with_rules(saved: &str) -> Vec<String> {
    let (mut names, mut table) = (Vec::new(), "");
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if line.starts_with("-A ") || line.starts_with(':') && line.contains(" DROP ") {
            names.push(table.to_owned());
        }
    }
    names.dedup();
    names
}

/// Returns every rule and chain policy of iptables-legacy in the namespace of the calling thread that drops packets, each as
/// a command that creates it, and how many it has dropped.
#[must_use]
pub fn legacy_drops() -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    for Program { family, list, save, .. } in PROGRAMS {
        if fs::read_to_string(list).unwrap_or_default().is_empty() {
            continue;
        }
        let mut command = Command::new(save);
        command.arg("--counters");
        let text = run(command, None).unwrap_or_default();
        let mut table = String::new();
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some((rule, packets)) = drop_of(line) {
                drops.insert(format!("{family}-legacy -t {table} {rule}"), packets);
            }
        }
    }
    drops
}

/// Parses `:FORWARD DROP [3:90]` and `[3:90] -A FORWARD -j DROP`. Returns the options of the command that creates it, and
/// the number of packets.
fn drop_of(line: &str) -> Option<(String, u64)> {
    let packets = |counters: &str| counters.split_once(':')?.0.parse().ok();
    if let Some(chain) = line.strip_prefix(':') {
        let (name, rest) = chain.split_once(" DROP [")?;
        return Some((format!("-P {name} DROP"), packets(rest)?));
    }
    let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
    let mut words = rule.split(' ').skip_while(|word| *word != "-j").skip(1);
    matches!(words.next()?, "DROP" | "REJECT").then_some((rule.to_owned(), packets(counters)?))
}

/// Runs a program with an input, in the namespace of the calling thread. Returns its output.
fn run(mut command: Command, input: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("cannot run {name}: {}", OsError(&error));
    // The path of ordinary users lacks the folders of these programs.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    // Nothing else changes the rules of the copy, so the lock that programs on the node may hold is not needed.
    command.env("XTABLES_LOCKFILE", "/dev/null");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child =
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    // These programs read all of their input before they print anything.
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        let _ = pipe.write_all(input);
    }
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
    if status.success() {
        return Ok(stdout);
    }
    let why = String::from_utf8_lossy(&stderr);
    let why = why.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
    Err(format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_rules_does_nothing() {
        let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:MINE - [0:0]\nCOMMIT\n*mangle\n:FORWARD DROP [0:0]\nCOMMIT\n\
                     *filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n";
        assert_eq!(tables_with_rules(saved), ["mangle", "filter"]);
    }

    #[test]
    fn rules_and_policies_that_drop_are_found() {
        let found = |line: &str| drop_of(line).map(|(rule, packets)| format!("{rule} {packets}"));
        assert_eq!(found(":FORWARD DROP [3:90]").as_deref(), Some("-P FORWARD DROP 3"));
        assert_eq!(found(":FORWARD ACCEPT [3:90]"), None);
        assert_eq!(
            found("[3:90] -A A -m ttl --ttl-gt 3 -j DROP").as_deref(),
            Some("-A A -m ttl --ttl-gt 3 -j DROP 3")
        );
        let reject = "[0:0] -A A -j REJECT --reject-with icmp-port-unreachable";
        assert_eq!(found(reject).as_deref(), Some("-A A -j REJECT --reject-with icmp-port-unreachable 0"));
        assert_eq!(found("[3:90] -A A -j ACCEPT"), None);
        assert_eq!(found("COMMIT"), None);
    }
}
