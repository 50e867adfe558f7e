//! A kill or a power cut at any moment: the next start restores the node, whatever files are left. Requires a build with
//! the feature `fault-injection`.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{NODE_1, NODE_2, NODE_3, cluster, is_open, node};
use crate::support::namespace::{Namespace, Privilege, is_root};

/// An upper bound on the number of points. A test that reaches it is in an endless loop.
const MAX_POINTS: usize = 400;

/// Removes everything that hostgw has made or written, as a reboot does with `/run` and the kernel.
const CLEAR: &str =
    "ip route flush proto 87; nft flush ruleset; echo 0 >/proc/sys/net/ipv4/ip_forward; rm -rf state";

fn three() -> String {
    cluster("", &[NODE_1, NODE_2, NODE_3])
}

fn two() -> String {
    cluster("", &[NODE_1, NODE_2])
}

fn new_node() -> Namespace {
    node(if is_root() { Privilege::Root } else { Privilege::User })
}

/// Routes, NAT and forwarding, as other programs print them.
fn state(node: &Namespace) -> String {
    node.look("ip route; nft -s list ruleset") + &node.sysctl("net.ipv4.ip_forward")
}

fn clear(node: &Namespace) {
    node.sh(CLEAR);
}

/// The state after an apply of three nodes.
fn wanted(node: &Namespace) -> String {
    clear(node);
    node.write("hostgw.yaml", &three());
    node.hostgw_ok(&["apply", "--yes"]);
    let wanted = state(node);
    clear(node);
    wanted
}

fn start_agent(node: &Namespace, fault: &str) -> Child {
    let mut command = node.hostgw_command(&["agent"]);
    command.env("HOSTGW_FAULT", fault).stdout(Stdio::null()).spawn().expect("hostgw")
}

/// Waits until the agent reports that the node is in sync. Returns `false` if it ends instead.
fn comes_in_sync(node: &Namespace, agent: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let report = node.state_dir().and_then(|dir| fs::read(dir.join("agent.json")).ok());
        let report: Value = report.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let report = &report["content"];
        if report["condition"] == "inSync" && report["pid"] == agent.id() {
            return true;
        }
        if agent.try_wait().expect("our child").is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "neither in sync nor at its end: {report}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn kill(mut agent: Child) {
    let _ = agent.kill();
    let _ = agent.wait();
}

/// Kills an agent at each point between the state after `prepare` and the state that the file asks for, and starts another.
fn kill_at_every_point(prepare: impl Fn(&Namespace)) {
    let node = new_node();
    let wanted = wanted(&node);
    for point in 1..MAX_POINTS {
        clear(&node);
        prepare(&node);
        node.write("hostgw.yaml", &three());
        let mut agent = start_agent(&node, &format!("kill:{point}"));
        let survived = comes_in_sync(&node, &mut agent);
        kill(agent);
        let mut agent = start_agent(&node, "");
        assert!(comes_in_sync(&node, &mut agent), "point {point}: the next agent ended");
        assert_eq!(state(&node), wanted, "point {point}");
        assert!(!is_open(&node), "point {point}: the transaction is still open");
        kill(agent);
        assert_eq!(state(&node), wanted, "point {point}, at rest");
        if survived {
            assert!(point > 25, "only {point} points");
            return;
        }
    }
    panic!("more than {MAX_POINTS} points");
}

#[test]
fn an_agent_that_is_killed_in_its_first_apply_is_followed_by_one_that_applies() {
    kill_at_every_point(|_| {});
}

#[test]
fn an_agent_that_is_killed_in_a_repair_is_followed_by_one_that_repairs() {
    kill_at_every_point(|node| {
        node.write("hostgw.yaml", &three());
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route flush proto 87; nft flush ruleset");
    });
}

#[test]
fn an_agent_that_is_killed_in_a_change_is_followed_by_one_that_changes() {
    kill_at_every_point(|node| {
        node.write("hostgw.yaml", &two());
        node.hostgw_ok(&["apply", "--yes"]);
    });
}

/// The directory of a namespace in the state directory.
fn records(node: &Namespace) -> PathBuf {
    node.state_dir().expect("records")
}

/// A name that a directory of records has in the state directory.
fn name_of(folder: &std::path::Path) -> String {
    folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// The state after an apply of three nodes, and the name of the directory of records.
fn wanted_and_name(node: &Namespace) -> (String, String) {
    let wanted = wanted(node);
    node.hostgw_ok(&["apply", "--yes"]);
    let name = name_of(&records(node));
    clear(node);
    (wanted, name)
}

/// The records of another node as a node finds them after a reboot: the name of the machine's first network namespace is the
/// same at each boot, and the boot ID is not. With `is_copied`, it is the boot ID that is the same, as if the machine had created
/// another namespace.
fn leave_records(old: &Namespace, new: &Namespace, name: &str, is_copied: bool) {
    let (folder, before) = (records(old), name_of(&records(old)));
    new.sh(&format!("mkdir state; cp -a '{}' state/{name}", folder.display()));
    if !is_copied {
        new.sh(&format!(
            "boot=$(cat /proc/sys/kernel/random/boot_id)
             find state -type f -exec sed -i \"s/$boot/00000000-0000-0000-0000-000000000000/; s/{before}\\\"/{name}\\\"/\" {{}} +"
        ));
    }
}

/// An apply on the new boot is the first, and can be undone.
#[track_caller]
fn assert_fresh_start(node: &Namespace, wanted: &str, what: &str) {
    node.write("hostgw.yaml", &three());
    let status = node.hostgw_ok(&["status"]);
    assert!(!status.stdout.contains("Pending") && !status.stdout.contains("interrupted"), "{what}: {status}");
    let apply = node.hostgw_ok(&["apply", "--yes"]);
    // Nothing of the earlier boot is rolled back.
    let report = "Applied to node linux-1 and verified: 6 added, 1 updated, 0 removed.\n";
    assert_eq!(apply.stderr, report, "{what}");
    assert_eq!(state(node), wanted, "{what}");
    node.hostgw_ok(&["rollback", "--yes"]);
    assert_eq!(node.managed_routes(), Vec::<String>::new(), "{what}");
    assert_eq!(node.sysctl("net.ipv4.ip_forward"), "0", "{what}");
    clear(node);
}

/// The journal of an interrupted apply survives a reboot in a state directory on a disk, but the state that it describes does
/// not.
#[test]
fn records_of_an_apply_that_a_power_cut_interrupted_do_not_matter() {
    let (old, new) = (new_node(), new_node());
    let (wanted, name) = wanted_and_name(&new);
    for point in 1..MAX_POINTS {
        clear(&old);
        old.write("hostgw.yaml", &two());
        old.hostgw_ok(&["apply", "--yes"]);
        old.write("hostgw.yaml", &three());
        let killed = old.hostgw_with(&["apply", "--yes"], &[("HOSTGW_FAULT", &format!("kill:{point}"))]);
        for is_copied in [false, true] {
            leave_records(&old, &new, &name, is_copied);
            assert_fresh_start(&new, &wanted, &format!("point {point}, copied: {is_copied}"));
        }
        if killed.code == 0 {
            assert!(point > 25, "only {point} points");
            return;
        }
    }
    panic!("more than {MAX_POINTS} points");
}

/// A power cut can leave files empty or cut off, except those that are synchronized with the disk.
#[test]
fn records_that_a_power_cut_damaged_do_not_matter() {
    let (old, new) = (new_node(), new_node());
    let (wanted, name) = wanted_and_name(&new);
    old.write("hostgw.yaml", &two());
    let mut agent = start_agent(&old, "");
    assert!(comes_in_sync(&old, &mut agent));
    kill(agent);
    old.write("hostgw.yaml", &three());
    // An apply that is interrupted while it is pending has records of every kind.
    let mut pending = super::pending(&old, "60s", &[]);
    let files = old.sh("cd state/net-*; find . -type f | sort");
    let files: Vec<&str> = files.lines().filter(|file| *file != "./boot").collect();
    assert!(files.len() > 8, "{files:?}");
    for damage in [": >", "truncate -s 40 ", "rm "] {
        for file in &files {
            leave_records(&old, &new, &name, false);
            new.sh(&format!("{damage}state/{name}/{file}"));
            assert_fresh_start(&new, &wanted, &format!("{damage}{file}"));
        }
    }
    leave_records(&old, &new, &name, false);
    new.sh(&format!("for file in {}; do : >state/{name}/$file; done", files.join(" ")));
    new.write("hostgw.yaml", &three());
    let mut agent = start_agent(&new, "");
    assert!(comes_in_sync(&new, &mut agent), "an agent starts with nothing but damaged files");
    assert_eq!(state(&new), wanted);
    kill(agent);
    old.hostgw_ok(&["cancel"]);
    let _ = pending.wait();
}
