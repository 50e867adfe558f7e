//! Records with every field damaged in turn: every command ends with a message, never with a panic or a hang, and
//! rollback remains possible unless it needs the damaged part.

use std::path::Path;

use serde_json::{Value, json};

use super::{NODE_1, NODE_2, cluster, node, pending};
use crate::support::namespace::{Namespace, Privilege, each, is_root};

/// Every command that reads records.
const COMMANDS: [&[&str]; 10] = [
    &["status"],
    &["status", "--json"],
    &["status", "--history"],
    &["plan"],
    &["confirm", "--lock-timeout", "100ms"],
    &["cancel", "--lock-timeout", "100ms"],
    &["confirm", "7", "--lock-timeout", "100ms"],
    &["apply", "--yes", "--lock-timeout", "100ms"],
    &["rollback", "--yes", "--lock-timeout", "100ms"],
    &["destroy", "--yes", "--lock-timeout", "100ms"],
];

/// The replacements for each value.
fn invalid_values() -> Vec<Value> {
    vec![
        json!(253_402_300_800_u64),
        json!(u64::MAX),
        json!(-1),
        json!(1e300),
        json!("x".repeat(70_000)),
        json!("\u{1b}[31m\u{202e}\0"),
        json!({}),
        json!(null),
    ]
}

/// Collects the paths of all values in a document, with at most three elements per list.
fn paths(value: &Value, here: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| {
                paths(field, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), found)
            });
        }
        Value::Array(items) => {
            items
                .iter()
                .take(3)
                .enumerate()
                .for_each(|(at, item)| paths(item, &format!("{here}/{at}"), found));
        }
        _ => {}
    }
    found.push(here.to_owned());
}

/// A node with records of every kind: two committed applies, and a pending one without processes or an outcome.
struct Damaged {
    node: Namespace,
}

impl Damaged {
    fn new() -> Self {
        let node = node(if is_root() { Privilege::Root } else { Privilege::User });
        node.write("hostgw.yaml", &cluster("sysctls: {net.ipv4.conf.all.rp_filter: 2}", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", super::RECIPE);
        // An outcome, and then a pending apply whose processes are gone.
        let mut child = pending(&node, "10m", &[]);
        node.hostgw_ok(&["cancel"]);
        child.wait().expect("our child");
        node.sh("cp state/net-*/outcome.json outcome");
        let mut child = pending(&node, "10m", &[]);
        child.kill().expect("our child");
        child.wait().expect("our child");
        node.sh("kill -9 $(sed 's/process \\([0-9]*\\).*/\\1/' state/net-*/lock)
                 cp outcome \"$(echo state/net-*)/outcome.json\"
                 cp -a state whole");
        Self { node }
    }

    /// Runs every command with a record that contains `text`. Each one must end on its own.
    fn run(&self, record: &str, text: &[u8], what: &str) {
        let folder = self.node.folder();
        for arguments in COMMANDS {
            std::fs::remove_dir_all(folder.join("state")).expect("our folder");
            copy(&folder.join("whole"), &folder.join("state"));
            let dir = self.node.state_dir().expect("the records");
            std::fs::write(dir.join(record), text).expect("a record");
            let mut outcome =
                self.node.try_sh(&format!("exec timeout 20 \"$HOSTGW\" {}", arguments.join(" ")));
            outcome.command = format!("hostgw {} # {record}: {what}", arguments.join(" "));
            assert!([0, 1, 3, 4, 5, 6, 7, 8, 9, 10].contains(&outcome.code), "{outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{outcome}");
            assert!(
                !outcome.stdout.contains('\u{202e}') && !outcome.stderr.contains('\u{202e}'),
                "{outcome}"
            );
        }
    }
}

/// Copies a folder with its files and their permissions.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("our folder");
    std::fs::set_permissions(to, from.metadata().expect("a folder").permissions()).expect("our folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("readable");
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file");
        }
    }
}

/// The names of all records in the directory of the namespace.
fn records(node: &Namespace) -> Vec<String> {
    node.sh("cd state/net-*; find . -type f ! -name lock | sed 's|^./||' | sort")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Distributes the mutations over several tests, each with a node of its own.
fn sweep(share: usize, of: usize) {
    let damaged = Damaged::new();
    let whole_sweep = std::env::var_os("HOSTGW_WHOLE").is_some();
    let mut number = 0;
    for record in records(&damaged.node) {
        let text = damaged.node.sh(&format!("cat whole/net-*/{record}"));
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{record}: {error}"));
        let half = &text.as_bytes()[..text.len() / 2];
        for (what, bytes) in [
            ("empty", &b""[..]),
            ("zeros", &[0; 4096]),
            ("cut", half),
            ("deep", "[".repeat(100_000).as_bytes()),
        ] {
            number += 1;
            if number % of == share {
                damaged.run(&record, bytes, what);
            }
        }
        let mut found = Vec::new();
        paths(&value, "", &mut found);
        for (at, path) in found.iter().enumerate() {
            for (kind, invalid) in invalid_values().into_iter().enumerate() {
                number += 1;
                // Times and IDs are replaced by every value, all others by one of them unless the whole sweep is
                // requested.
                let is_number = value.pointer(path).is_some_and(Value::is_number);
                let is_tried = whole_sweep || (is_number && kind < 4) || kind == at % 8;
                if is_tried && number % of == share {
                    let mut changed = value.clone();
                    *changed.pointer_mut(path).expect("an existing path") = invalid;
                    damaged.run(&record, changed.to_string().as_bytes(), &format!("{path}, value {kind}"));
                }
            }
        }
    }
    assert!(number > 500, "{number} mutations");
}

/// Runs a part of the mutations; with `HOSTGW_WHOLE=1`, every value in every place.
#[test]
fn damaged_records_cause_neither_a_panic_nor_a_hang() {
    std::thread::scope(|scope| {
        for share in 0..4 {
            scope
                .spawn(move || sweep(share, if std::env::var_os("HOSTGW_WHOLE").is_some() { 4 } else { 48 }));
        }
    });
}

/// `at` and `until` are for display: a damaged or impossible time does not prevent a rollback.
#[test]
fn a_damaged_time_does_not_prevent_a_rollback() {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let before = node.witness();
    for until in ["253402300800", "18446744073709551615"] {
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh(&format!("sed -i 's/\"at\":\"[^\"]*/\"at\":\"after {until}/' state/net-*/*/*.json"));
        for arguments in [&["status"][..], &["status", "--json"], &["status", "--history"], &["plan"]] {
            let outcome = node.hostgw_ok(arguments);
            assert!(arguments == ["plan"] || outcome.stdout.contains(&format!("after {until}")), "{outcome}");
        }
        node.hostgw_ok(&["rollback", "--yes"]).warns(&format!("after {until}"));
        node.assert_unchanged(&before, "rollback");

        let mut child = pending(&node, "10m", &[]);
        node.sh(&format!(
            "sed -i 's/\"at\":\"[^\"]*/\"at\":\"after {until}/; s/\"until\":[0-9]*/\"until\":{until}/' state/net-*/*.json state/net-*/wait/*.json"
        ));
        node.hostgw_ok(&["status"]).says("an impossible time");
        child.kill().expect("our child");
        child.wait().expect("our child");
        node.sh("kill -9 $(sed 's/process \\([0-9]*\\).*/\\1/' state/net-*/lock)");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "the rollback of a pending apply");
    }
}

/// A version that no longer accepts the configuration of the last apply does not know which routes it asked for. That is
/// not drift.
#[test]
fn routes_of_a_configuration_that_is_not_accepted_are_unknown() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("sed -i 's/os: linux/os: plan9/' state/*/applied/*.json");
        let outcome = node.hostgw(&["status", "--detailed-exitcode"]).expect(9);
        outcome
            .says("? hostgw's records: this version of hostgw cannot read the applied configuration")
            .warns("the status is incomplete\n  help: run `hostgw apply`");
        assert!(!outcome.stdout.contains("rift"), "{outcome}");
        let json: Value = node.hostgw(&["status", "--json"]).expect(9).json();
        assert_eq!((&json["drift"], &json["unknown"][0]["part"]["kind"]), (&Value::Null, &json!("records")));
        // A plan does not need it, but does not know either who removed a route.
        node.hostgw_ok(&["plan"]).says("No changes.");
        node.sh("ip route del 10.244.1.0/24");
        let outcome = node.hostgw_ok(&["plan"]);
        outcome.says("+ 10.244.1.0/24").says("# pods of node linux-2, hostgw.yaml:");
        assert!(!outcome.stdout.contains("drift"), "{outcome}");
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]).replace("10.244.1.0", "10.244.7.0"));
        node.sh("ip route add 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87");
        let outcome = node.hostgw_ok(&["plan"]);
        outcome.says("- 10.244.1.0/24");
        assert!(!outcome.stdout.contains("drift"), "{outcome}");
        node.hostgw_ok(&["apply", "--yes", "--allow-removals", "1"]);
        node.hostgw_ok(&["status"]);
    });
}
