//! Only hostgw may change the state directory: anyone else who can could make root execute a forged journal.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{live, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, can_become_nobody, each};

/// Every command that reads or writes records.
const COMMANDS: [&[&str]; 9] = [
    &["plan"],
    &["status"],
    &["status", "--history"],
    &["snapshot"],
    &["apply", "--yes"],
    &["rollback", "--yes"],
    &["destroy", "--yes"],
    &["confirm"],
    &["cancel"],
];

/// Runs hostgw, and fails if it does not end in time.
fn in_time(node: &Namespace, arguments: &[&str]) -> Outcome {
    let mut command = node.command("timeout");
    command.args(["20", "sh", "-c", "exec \"$HOSTGW\" \"$@\"", "hostgw"]).args(arguments);
    let outcome = Outcome::of(node, &format!("hostgw {}", arguments.join(" ")), &mut command);
    assert_ne!(outcome.code, 124, "it hangs: {outcome}");
    assert!(outcome.code < 128, "it panicked or was killed: {outcome}");
    outcome
}

/// Asserts that every command refuses after `damage`, and works again after `repair`.
#[track_caller]
fn assert_refused(node: &Namespace, damage: &str, repair: &str, why: &str) {
    let before = live(node);
    node.sh(&format!("cd state; {damage}"));
    for arguments in COMMANDS {
        let outcome = in_time(node, arguments).expect(1);
        outcome.warns("cannot trust the records of this node").warns(why);
    }
    assert_eq!(live(node), before, "{damage}");
    node.sh(&format!("cd state; {repair}"));
    node.hostgw_ok(&["status"]).says("Drift: none");
}

#[test]
fn every_command_refuses_a_folder_that_others_can_change() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let why = "is writable by group or others (mode 0777)";
        for folder in [".", "net-*"] {
            assert_refused(&node, &format!("chmod 777 {folder}"), &format!("chmod 700 {folder}"), why);
        }
        assert_refused(&node, "chmod 720 net-*", "chmod 700 net-*", "(mode 0720)");
        let link = "is a symbolic link";
        assert_refused(
            &node,
            "set net-*; mv $1 ../away; ln -s ../away $1",
            "set net-*; rm $1; mv ../away $1",
            link,
        );
        node.sh("mv state real; ln -s real state");
        node.hostgw(&["apply", "--yes"])
            .expect(1)
            .warns(link)
            .warns("point HOSTGW_STATE_DIR at the directory itself");
        // A trailing slash does not make hostgw follow the link.
        let mut command = node.hostgw_command(&["apply", "--yes"]);
        command.env("HOSTGW_STATE_DIR", format!("{}/state/", node.folder().display()));
        Outcome::of(&node, "hostgw apply --yes", &mut command).expect(1).warns(link);
        node.sh("rm state; mv real state");
        if privilege == Privilege::Root && can_become_nobody() {
            for folder in [".", "net-*"] {
                let why = "belongs to uid 65534, expected root";
                assert_refused(&node, &format!("chown 65534 {folder}"), &format!("chown 0 {folder}"), why);
            }
        }
        node.hostgw_ok(&["rollback", "--yes"]);
    });
}

#[test]
fn subfolders_that_others_can_change_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let before = live(&node);
        for folder in ["history", "applied"] {
            for (damage, repair) in [
                ("chmod 777 F", "chmod 700 F"),
                ("mv F away; ln -s away F", "rm F; mv away F"),
                ("mv F away; mkfifo F", "rm F; mv away F"),
            ] {
                node.sh(&format!("cd state/net-*; {}", damage.replace('F', folder)));
                for verb in if folder == "history" { &["rollback", "destroy"][..] } else { &["destroy"] } {
                    in_time(&node, &[verb, "--yes"]).expect(1);
                }
                assert_eq!(live(&node), before, "{damage}");
                node.sh(&format!("cd state/net-*; {}", repair.replace('F', folder)));
            }
        }
        node.hostgw_ok(&["rollback", "--yes"]);
    });
}

/// A record is a regular file of limited size. Anything else in its place is neither waited for nor followed.
#[test]
fn records_that_are_not_files_of_hostgw_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        let before = live(&node);
        node.sh("cp state/net-*/history/000001.json record; echo '{}' >empty");
        let mut damages = vec![
            ("mkfifo F", "is not a regular file"),
            ("ln -s ../../../record F", "is not a regular file"),
            ("ln -s /dev/zero F", "is not a regular file"),
            ("truncate -s 600M F", "is larger than 512 MiB"),
        ];
        if privilege == Privilege::Root && can_become_nobody() {
            damages.push(("cp ../../record F; chown 65534 F", "belongs to uid 65534"));
        }
        for (damage, why) in damages {
            node.sh(&format!("cd state/net-*; {}", damage.replace('F', "journal.json")));
            for verb in ["rollback", "apply", "destroy"] {
                in_time(&node, &[verb, "--yes"]).expect(1).warns(why).warns("journal.json");
            }
            assert_eq!(live(&node), before, "{damage}");
            node.sh("rm state/net-*/journal.json");
        }
        node.sh("cd state/net-*; rm lock; mkfifo lock");
        in_time(&node, &["apply", "--yes"]);
        in_time(&node, &["rollback", "--yes"]).expect(1).warns("lock is not a regular file");
        in_time(&node, &["status"]).expect(0);
        node.sh("rm state/net-*/lock");
        node.hostgw_ok(&["rollback", "--yes"]);
    });
}

#[test]
fn only_the_owner_can_access_records_with_any_umask() {
    each(|privilege| {
        for umask in ["000", "077", "277"] {
            let node = node(privilege);
            node.sh(&format!("umask {umask}; \"$HOSTGW\" apply --yes"));
            node.write("hostgw.yaml", &super::cluster("", &[super::NODE_1, super::NODE_2]));
            let mut child = node
                .command("sh")
                .args(["-c", &format!("umask {umask}; exec \"$HOSTGW\" apply --yes --confirm 10m")])
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("sh");
            node.wait_until("the apply is pending", || {
                node.state_dir().is_some_and(|dir| dir.join("wait/pending.json").exists())
            });
            let modes = node.sh("find state -type d -printf '%m d\\n' -o -printf '%m %y\\n' | sort -u");
            assert_eq!(modes, "600 f\n700 d\n", "umask {umask}");
            node.hostgw_ok(&["confirm"]);
            child.wait().expect("our child");
        }
    });
}

/// Missing records are noticed: the managed objects show that there was an apply.
#[test]
fn a_rollback_without_records_reports_that() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["rollback", "--yes"]).says("Nothing to do");
        node.hostgw_ok(&["apply", "--yes"]);
        let before = live(&node);
        node.sh("mv state away");
        let outcome = node.hostgw(&["rollback", "--yes"]).expect(1);
        outcome.warns("hostgw manages 3 routes and 1 NAT table here").warns("HOSTGW_STATE_DIR");
        assert_eq!(live(&node), before);
        node.sh("mv away state");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]).says("Nothing to do");
    });
}

/// A background script that runs as the owner of the state directory's parent until this is dropped.
struct Attacker<'a>(&'a Path, std::process::Child);

impl<'a> Attacker<'a> {
    fn start(folder: &'a Path, script: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script]);
        command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        Self(folder, command.spawn().expect("setpriv"))
    }
}

impl Drop for Attacker<'_> {
    fn drop(&mut self) {
        std::fs::write(self.0.join("stop"), "").expect("our folder");
        let _ = self.1.wait();
    }
}

/// The owner of the parent folder swaps the state directory for their own and for a link to it, in a loop: root never
/// executes their journal, and never writes to their folder.
#[test]
fn root_never_uses_a_journal_of_swapped_folders() {
    if !can_become_nobody() {
        crate::support::say("not as root: no other user could swap folders");
        return;
    }
    let node = node(Privilege::Root);
    // A journal whose undo would add a route: the record of an apply that adopted one.
    node.sh("ip route add 10.244.1.0/24 via 172.30.0.9");
    node.hostgw_ok(&["apply", "--yes", "--adopt"]);
    node.sh("mkdir evil; cp -r state/net-* evil; cd evil/net-*; mv history/000001.json journal.json; rm lock
             chown -R 65534:65534 ../../evil; chmod -R 700 ../../evil");
    node.hostgw_ok(&["rollback", "--yes"]);
    node.sh("ip route del 10.244.1.0/24");
    let evil = || {
        node.sh("cd $(ls -d evil state/evil junk.*/evil 2>/dev/null | head -n 1); find . -type f -exec sha256sum {} + | sort")
    };
    let initial = evil();
    {
        let _attacker = Attacker::start(
            node.folder(),
            "i=0; while [ ! -e stop ]; do i=$((i + 1))
                 mv -T state real || mv -T state junk.$i
                 mv -T evil state; mv -T state evil
                 ln -s evil state; rm -f state
                 mv -T real state
             done",
        );
        let started = Instant::now();
        let mut codes = std::collections::BTreeMap::new();
        for round in 0.. {
            let arguments: &[&str] = match round % 4 {
                0 => &["apply", "--yes"],
                1 | 2 => &["rollback", "--yes"],
                _ => &["destroy", "--yes"],
            };
            let outcome = in_time(&node, arguments);
            assert!([0, 1].contains(&outcome.code), "{outcome}");
            *codes.entry(outcome.code).or_insert(0) += 1;
            let routes = node.look("ip route show 10.244.1.0/24");
            assert!(!routes.contains("172.30.0.9"), "their journal was carried out, by {outcome}");
            if round >= 40 && codes.len() == 2 || started.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        assert_eq!(codes.len(), 2, "no swap was met, or nothing else: {codes:?}");
    }
    assert_eq!(evil(), initial, "root wrote into their folder");
}
