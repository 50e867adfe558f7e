//! A state directory on a full or read-only file system: a real one, filled so that each write in turn does not fit.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use super::{NODE_1, RECIPE, cluster, node};
use crate::support::namespace::{Holder, Namespace, Outcome, Snapshots, each};

/// A separate file system for the state directory, visible only to commands that run through this.
struct Disk<'a> {
    node: &'a Namespace,
    shell: Holder,
}

/// The remaining room on a disk.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// This number of 4 KiB pages; every file takes at least one.
    Pages(usize),
    /// This number of files.
    Files(usize),
    /// Unlimited.
    Ample,
}

impl<'a> Disk<'a> {
    fn new(node: &'a Namespace) -> Self {
        // The kernel treats a size of zero as unlimited.
        const MOUNT: &str =
            "mount -t tmpfs -o mode=0700 hostgw state && echo ballast >state/ballast && exec \"$@\"";
        node.sh("mkdir state");
        let mut command = node.command("unshare");
        command.args(["-m", "sh", "-c", MOUNT, "mount"]);
        Self { node, shell: Holder::start(command, &[]) }
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.run(script, &format!("set -e\n{script}")).expect(0).stdout
    }

    fn hostgw(&self, arguments: &[&str]) -> Outcome {
        let script = format!("exec \"$HOSTGW\" {}", arguments.join(" "));
        self.run(&format!("hostgw {}", arguments.join(" ")), &script)
    }

    /// A hostgw command that sees the file system.
    fn hostgw_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.node.command("nsenter");
        command.args(["-m", "-t", &self.shell.id().to_string()]);
        // The working directory belongs to the outer mount namespace until it is opened again.
        command.args(["--", "sh", "-c", "cd \"$0\" && exec \"$HOSTGW\" \"$@\""]).arg(self.node.folder());
        command.args(arguments);
        command
    }

    /// Runs a script, and calls it `name`.
    fn run(&self, name: &str, script: &str) -> Outcome {
        let output = self.shell.run(script).expect("only one at a time");
        Outcome::from_output(self.node, name, output)
    }

    /// Limits the remaining room.
    fn leave(&self, room: Room) {
        let used = |script: &str| self.sh(script).trim().parse::<usize>().expect("a number");
        self.remount(&match room {
            Room::Pages(pages) => {
                format!("size={}k", 4 * (pages + used("df --output=used -B 4096 state | tail -n 1")))
            }
            Room::Files(files) => format!("nr_inodes={}", files + used("find state | wc -l")),
            Room::Ample => "rw,size=10m,nr_inodes=1000".to_owned(),
        });
    }

    fn remount(&self, options: &str) {
        // A user namespace may not use options that mount(8) reads from the existing mount.
        self.sh(&format!("mount --options-mode ignore -o remount,{options} hostgw state"));
    }

    fn is_open(&self) -> bool {
        !self.sh("find state -name journal.json").is_empty()
    }
}

/// The number of routes that are removed when the recipe replaces many nodes.
const REMOVED: &str = "59";

/// Runs `verb` with increasing room until it succeeds. Asserts that each failure leaves the node unchanged and no
/// transaction open. Returns the outcomes.
fn retry_with_more_room(disk: &Disk, verb: &str, room: impl Fn(usize) -> Room) -> Vec<Outcome> {
    let before = disk.node.witness();
    let mut outcomes = Vec::new();
    for more in 0..20 {
        disk.leave(room(more));
        let allowed: &[&str] = if verb == "apply" { &["--allow-removals", REMOVED] } else { &[] };
        let mut outcome = disk.hostgw(&[&[verb, "--yes"], allowed].concat());
        outcome.command = format!("hostgw {verb} --yes # the file system of the state directory is full");
        assert!([0, 1, 6].contains(&outcome.code), "{:?}: {outcome}", room(more));
        assert!(!disk.is_open(), "{:?}: {outcome}", room(more));
        disk.leave(Room::Ample);
        outcomes.push(outcome);
        let last = &outcomes[outcomes.len() - 1];
        if last.code == 0 {
            return outcomes;
        }
        last.warns("No space left on device").warns("free some space on that file system");
        disk.node.assert_unchanged(&before, &format!("{:?} and {last}", room(more)));
    }
    panic!("{verb} never had enough");
}

/// A configuration whose record takes several pages, which fill up one after another: NAT takes most of them.
fn many_nodes() -> String {
    let nodes: Vec<_> = (2..62)
        .map(|i| (format!("linux-{i}"), format!("10.244.{i}.0/24"), format!("172.30.0.{}", 100 + i)))
        .collect();
    let mut all = vec![NODE_1];
    all.extend(nodes.iter().map(|(name, cidr, address)| (&**name, &**cidr, &**address)));
    let exclude: Vec<_> = (0..60).map(|at| format!("192.168.{at}.0/24")).collect();
    let head = format!("nat: {{exclude: [{}]}}", exclude.join(", "));
    cluster(&head, &all)
}

/// Whatever does not fit, nothing was changed (1) or everything was rolled back (6).
#[test]
fn a_write_that_does_not_fit_leaves_the_node_unchanged() {
    /// The records that an apply writes.
    const PARTS: [&str; 6] = [
        "the state directory ",
        "take the lock in ",
        "/last-id: ",
        "/journal.json: ",
        "/saved-sysctls.json: ",
        "/applied/",
    ];
    each(|privilege| {
        let node = node(privilege);
        let disk = Disk::new(&node);
        let mut snapshots = Snapshots::default();
        let mut missed = BTreeSet::new();
        for room in [Room::Files as fn(usize) -> Room, Room::Pages] {
            let before = node.witness();
            node.write("hostgw.yaml", &many_nodes());
            let first = retry_with_more_room(&disk, "apply", room);
            let misses = |part: &&&str| first.iter().any(|outcome| outcome.stderr.contains(**part));
            missed.extend(PARTS.iter().filter(misses));
            if let Room::Pages(_) = room(0) {
                for (name, part) in [("before", "/journal.json: "), ("after", "/applied/")] {
                    let outcome = first.iter().find(|outcome| outcome.stderr.contains(part)).expect(part);
                    snapshots.compare(&format!("full-disk-{name}"), outcome);
                }
            }
            // This apply adds a saved value and must remove it when it fails.
            let sysctl = "sysctls: {net.ipv4.conf.all.rp_filter: 2}";
            node.write("hostgw.yaml", &format!("{sysctl}\n{RECIPE}"));
            let live = node.witness();
            let second = retry_with_more_room(&disk, "apply", room);
            assert!(second.len() > 2, "{second:?}");
            // The records that a rollback removes make room for those it writes.
            assert_eq!(retry_with_more_room(&disk, "rollback", room).len(), 1);
            node.assert_unchanged(&live, "apply and rollback");
            assert!(retry_with_more_room(&disk, "destroy", room).len() > 2);
            node.assert_unchanged(&before, "apply and destroy");
        }
        assert_eq!(missed, PARTS.into(), "each of them failed to fit once");
        snapshots.conclude();
    });
}

/// The disk fills up at any point during an apply: what could not be recorded is reported (7), and a rollback finishes
/// once there is room.
#[cfg(feature = "fault-injection")]
#[test]
fn a_disk_that_fills_up_at_any_point_loses_nothing() {
    use super::stopped::Stopped;
    use crate::support::namespace::{Privilege, is_root};
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let disk = Disk::new(&node);
    node.write("hostgw.yaml", &cluster("", &[NODE_1, super::NODE_2]));
    disk.hostgw(&["apply", "--yes"]).expect(0);
    node.write("hostgw.yaml", &format!("sysctls: {{net.ipv4.conf.all.rp_filter: 2}}\n{RECIPE}"));
    let before = node.witness();
    let mut codes = BTreeSet::new();
    let mut snapshots = Snapshots::default();
    for point in 1.. {
        assert!(point < 400, "more than 400 points");
        let name = "hostgw apply --yes # the file system of the state directory fills up";
        let mut command = disk.hostgw_command(&["apply", "--yes"]);
        let stopped = match Stopped::at(&node, &mut command, name, point) {
            Ok(stopped) => stopped,
            Err(ended) => {
                ended.expect(0);
                break;
            }
        };
        disk.leave(Room::Pages(0));
        let outcome = stopped.resume();
        assert_eq!(disk.is_open(), outcome.code == 7, "filled at {point}: {outcome}");
        match outcome.code {
            1 | 6 => {}
            7 => {
                if codes.insert(7) {
                    snapshots.compare("full-disk-rollback", &outcome);
                }
                disk.hostgw(&["rollback", "--yes"]).expect(7);
                disk.leave(Room::Ample);
                disk.hostgw(&["rollback", "--yes"]).expect(0);
            }
            _ => {
                // Everything was already written.
                disk.leave(Room::Ample);
                disk.hostgw(&["rollback", "--yes"]).expect(0);
            }
        }
        codes.insert(outcome.code);
        node.assert_unchanged(&before, &format!("a disk that filled up at point {point}, and {outcome}"));
        disk.leave(Room::Ample);
    }
    assert_eq!(codes, [0, 1, 6, 7].into());
    snapshots.conclude();
}

/// A read-only file system can be read, but nothing can be changed.
#[test]
fn a_read_only_state_directory_is_refused() {
    each(|privilege| {
        let node = node(privilege);
        let disk = Disk::new(&node);
        disk.hostgw(&["apply", "--yes"]).expect(0);
        node.sh("ip route del 10.244.1.0/24");
        let before = node.witness();
        disk.remount("ro");
        let mut snapshots = Snapshots::default();
        for verb in ["apply", "destroy", "rollback"] {
            let mut outcome = disk.hostgw(&[verb, "--yes"]).expect(1);
            outcome.command += " # the state directory is read-only";
            snapshots.compare(&format!("read-only-state-{verb}"), &outcome);
        }
        disk.hostgw(&["plan", "--detailed-exitcode"]).expect(2);
        disk.hostgw(&["status"]).expect(0).says("the last apply");
        node.assert_unchanged(&before, "commands with a read-only state directory");
        disk.leave(Room::Ample);
        disk.hostgw(&["apply", "--yes"]).expect(0);
        snapshots.conclude();
    });
}

/// The disk fills up while an apply is pending: it can still be decided immediately.
#[test]
fn a_pending_apply_can_be_decided_on_a_full_disk() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let disk = Disk::new(&node);
        for (verb, code) in [("cancel", 8), ("rollback", 8), ("confirm", 0)] {
            disk.leave(Room::Ample);
            let mut command = disk.hostgw_command(&["apply", "--yes", "--confirm", "10m"]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
            node.wait_until("the apply is pending", || {
                let seen = disk.sh("cat state/net-*/wait/pending.json state/net-*/lock 2>/dev/null || true");
                seen.contains("deadline") && seen.contains("pending until")
            });
            disk.leave(Room::Pages(0));
            let arguments: &[&str] = if verb == "rollback" { &[verb, "--yes"] } else { &[verb] };
            disk.hostgw(arguments).expect(0);
            let output = child.wait_with_output().expect("our child");
            Outcome::from_output(&node, "hostgw apply --yes --confirm 10m", output).expect(code);
            if code == 8 {
                node.assert_unchanged(&before, verb);
            }
        }
        assert_eq!(node.managed_routes().len(), 3);
    });
}
