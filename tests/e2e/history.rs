//! Transactions can be undone, newest first, and `status` reports them.

use super::{NODE_1, NODE_2, NODE_3, cluster, node, settled};
use crate::support::namespace::{Snapshots, each};

#[test]
fn nothing_to_undo_is_not_an_error() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("rollback-nothing", &node.hostgw(&["rollback", "--yes"]));
        snapshots.compare("destroy-nothing", &node.hostgw(&["destroy", "--yes"]));
        snapshots.compare("status-nothing", &node.hostgw(&["status"]));
        node.assert_unchanged(&before, "nothing");
        snapshots.conclude();
    });
}

#[test]
fn rollbacks_undo_applies_newest_first() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        let first = node.witness();
        node.write("hostgw.yaml", &cluster("sysctls:\n  net.ipv4.conf.all.rp_filter: 2", &[NODE_1, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        let mut snapshots = Snapshots::default();
        snapshots.compare("rollback", &node.hostgw(&["rollback", "--yes"]));
        node.assert_unchanged(&first, "the first rollback");
        snapshots.compare("status-after-rollback", &node.hostgw(&["status"]));
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "the second rollback");
        node.hostgw_ok(&["rollback", "--yes"]).says("Nothing to do");
        snapshots.conclude();
    });
}

/// Another program may have undone the change already, without anything for a rollback to do.
#[test]
fn a_rollback_without_changes_does_not_say_that_nothing_is_managed() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.2.0/24");
        let preview = node.hostgw_ok(&["rollback", "--dry-run"]);
        preview.says("Nothing to do: this node is already in its previous state.");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.hostgw_ok(&["status"]).says("Managed: 2 routes,");
    });
}

#[test]
fn a_destroy_can_be_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        let applied = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("destroy", &node.hostgw(&["destroy", "--yes"]));
        node.assert_unchanged(&before, "destroy");
        snapshots.compare("rollback-of-destroy", &node.hostgw(&["rollback", "--yes"]));
        node.assert_unchanged(&applied, "destroy and rollback");
        settled(&node);
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "destroy, rollback and destroy");
        snapshots.conclude();
    });
}

/// Time, user, file, commit, and the number of changes.
#[test]
fn the_history_records_who_did_what() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["status", "--history"])
            .says("The history is empty: there is no apply or destroy to roll back.");
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("chown 0:0 . && git init -q . && git add hostgw.yaml
                 git -c user.name=o -c user.email=o commit -qm nodes");
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("git -c user.name=o -c user.email=o commit -qam fewer; ln -s hostgw.yaml link.yaml");
        node.hostgw_ok(&["destroy", "--yes"]);
        node.hostgw_ok(&["apply", "--yes", "-f", "link.yaml"]);

        let history = node.hostgw_ok(&["status", "--history", "--json"]).json();
        let transactions = history["transactions"].as_array().expect("a list");
        let get = |at: usize, path: &str| transactions[at].pointer(path).cloned().unwrap_or_default();
        let ids: Vec<_> = (0..4).map(|at| get(at, "/id")).collect();
        assert_eq!(ids, [4, 3, 2, 1]);
        let commands: Vec<_> = (0..4).map(|at| get(at, "/command")).collect();
        assert_eq!(commands, ["apply", "destroy", "apply", "apply"]);
        let user = node.run(["id", "-un"]);
        let login = node.sh("cat /proc/self/loginuid 2>/dev/null || true");
        if login.trim() == u32::MAX.to_string() {
            assert_eq!(get(0, "/by"), user.trim());
        }
        let head = node.run(["git", "rev-parse", "HEAD"]);
        let older = node.run(["git", "rev-parse", "HEAD~1"]);
        // For a link, the file behind it counts.
        assert_eq!(get(0, "/commit"), serde_json::json!({ "id": head.trim(), "dirty": false }));
        assert_eq!(get(2, "/commit"), serde_json::json!({ "id": older.trim(), "dirty": true }));
        assert!(get(1, "/commit").is_null() && get(3, "/commit").is_null(), "{history}");
        let hash = node.run(["sha256sum", "hostgw.yaml"]);
        assert_eq!(get(0, "/configHash"), hash.split(' ').next().expect("a hash"));
        assert_ne!(get(0, "/configHash"), get(3, "/configHash"));
        assert_eq!(get(3, "/totals"), serde_json::json!({ "add": 6, "update": 1, "remove": 0 }));

        let table = node.hostgw_ok(&["status", "--history"]).stdout;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "WHEN", "COMMAND", "NODE", "BY", "CHANGES", "FILE", "CONFIG", "COMMIT"]);
        assert_eq!(lines.len(), 5, "{table}");
        assert_eq!(lines[1].last(), Some(&&head[..12]), "{table}");
        assert!(
            table.lines().nth(3).expect("a line").ends_with(&format!("{} (dirty)", &older[..12])),
            "{table}"
        );
        let columns: Vec<_> = table.lines().map(|line| line.find("link.yaml")).collect();
        assert_eq!(columns[1], table.lines().next().and_then(|heads| heads.find("FILE")), "{table}");
    });
}

/// Outside a repository, git is not started.
#[test]
fn git_only_runs_in_a_repository() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("mkdir bin; printf '#!/bin/sh\\ntouch ran\\n' >bin/git; chmod +x bin/git");
        let apply = || {
            node.sh("\"$HOSTGW\" destroy --yes; PATH=$PWD/bin:$PATH; \"$HOSTGW\" apply --yes; [ ! -e ran ] || echo git")
        };
        assert!(!apply().contains("git\n"), "no repository");
        node.sh("git init -q");
        assert!(apply().contains("git\n"), "a repository");
    });
}

/// A committed file is not dirty, and finding that out does not run anything that the repository configures.
#[test]
fn a_repository_cannot_run_programs() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("chown 0:0 . && git init -q . && git add hostgw.yaml
                 git -c user.name=o -c user.email=o commit -qm nodes
                 git config filter.own.clean 'tee ran' && echo '* filter=own' >.gitattributes
                 touch -d 2001-01-01 hostgw.yaml");
        node.hostgw_ok(&["apply", "--yes"]);
        let history = node.hostgw_ok(&["status", "--history", "--json"]).json();
        assert_eq!(history["transactions"][0]["commit"]["dirty"], false);
        node.sh("test ! -e ran");
    });
}

/// A rollback does not undo drift after the apply, unless it affects the same objects.
#[test]
fn a_rollback_keeps_later_changes_elsewhere() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route add 10.250.0.0/16 via 172.30.0.1 proto 87");
        node.hostgw_ok(&["rollback", "--yes"]);
        assert_eq!(node.managed_routes(), ["10.250.0.0/16 via 172.30.0.1 dev eth0"]);
    });
}

#[test]
fn status_lists_managed_objects_and_drift() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let mut snapshots = Snapshots::default();
        snapshots.compare("status", &node.hostgw(&["status"]));
        node.sh("ip route del 10.244.1.0/24; echo 0 >/proc/sys/net/ipv4/ip_forward");
        snapshots.compare("status-drift", &node.hostgw(&["status"]));
        snapshots.conclude();
    });
}

/// Two namespaces that share a state directory, as under /run/hostgw, do not share their state.
#[test]
fn namespaces_do_not_share_their_history() {
    each(|privilege| {
        let (one, other) = (node(privilege), node(privilege));
        let shared = one.folder().join("state");
        one.hostgw_ok(&["apply", "--yes"]);
        let mut command = other.hostgw_command(&["rollback", "--yes"]);
        let output = command.env("HOSTGW_STATE_DIR", shared).output().expect("hostgw");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        // Without access to the directory, another user has no history, either.
        assert!(stdout.contains("Nothing to do"), "{stdout}");
        settled(&one);
    });
}

/// A record of an earlier boot describes kernel state that no longer exists.
#[test]
fn a_record_of_another_boot_is_ignored() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("boot=$(cat /proc/sys/kernel/random/boot_id)
                 find state -name '*.json' -exec sed -i \"s/$boot/00000000-0000-0000-0000-000000000000/\" {} +");
        node.hostgw_ok(&["rollback", "--yes"]).says("Nothing to do");
        settled(&node);
    });
}

/// A damaged record is named, and nothing is guessed.
#[test]
fn a_damaged_journal_is_named() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24; echo '{\"format\": 1,' >$(echo state/net-*)/journal.json");
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        for verb in ["plan", "status"] {
            snapshots.compare(&format!("broken-journal-{verb}"), &node.hostgw(&[verb]));
        }
        for verb in ["apply", "rollback", "destroy"] {
            let outcome = node.hostgw(&[verb, "--yes"]).expect(1);
            snapshots.compare(&format!("broken-journal-{verb}"), &outcome);
        }
        node.assert_unchanged(&before, "commands with a broken journal");
        snapshots.conclude();
        // The advice works: the rollback is given up, and the next apply repairs the node.
        let help = node.hostgw(&["plan"]).stderr;
        let (_, command) = help.split_once("to abandon the rollback, run `").expect("a command");
        let (command, _) = command.split_once('`').expect("the end of the command");
        assert!(command.starts_with("mv "), "{command}");
        node.sh(command);
        node.hostgw(&["plan"]).expect(0).says("+ 10.244.1.0/24 via 10.244.1.1");
        node.hostgw_ok(&["apply", "--yes"]);
    });
}

/// After two different applies, a destroy restores the state from before both.
#[test]
fn a_destroy_restores_the_state_from_before_the_first_apply() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for value in ["1", "2", "0"] {
            let head = format!("sysctls:\n  net.ipv4.conf.eth0.rp_filter: {value}");
            node.write("hostgw.yaml", &cluster(&head, &[NODE_1, NODE_2]));
            node.hostgw_ok(&["apply", "--yes"]);
        }
        node.hostgw_ok(&["destroy", "--yes"]);
        node.assert_unchanged(&before, "three applies and destroy");
    });
}

/// The interface was removed after the apply, and with it its routes and sysctls.
#[test]
fn objects_lost_with_their_interface_do_not_prevent_a_rollback() {
    each(|privilege| {
        for verb in ["destroy", "rollback"] {
            let node = node(privilege);
            node.write(
                "hostgw.yaml",
                &cluster("sysctls:\n  net.ipv4.conf.eth0.rp_filter: 2", &[NODE_1, NODE_2]),
            );
            node.hostgw_ok(&["apply", "--yes"]);
            node.sh("ip link del eth0");
            node.hostgw_ok(&[verb, "--yes"]);
            assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0");
            assert_eq!(node.look("nft list tables"), "");
        }
    });
}
