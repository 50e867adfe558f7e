//! `--dry-run` and `--detailed-exitcode`: what would change, and whether something did.

use super::{NODE_1, NODE_2, cluster, node, refusals::HeldLock, state_files};
use crate::support::namespace::{Snapshots, each};

#[test]
fn a_dry_run_changes_nothing_and_takes_no_lock() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        for verb in ["destroy", "rollback"] {
            node.hostgw_ok(&[verb, "--dry-run", "--detailed-exitcode"]).says("Nothing to do");
        }
        super::assert_no_record(&node);
        node.hostgw_ok(&["apply", "--yes"]);
        let (before, files) = (node.witness(), state_files(&node));
        let lock = HeldLock::take(&node);
        for verb in ["destroy", "rollback"] {
            let outcome = node.hostgw_ok(&[verb, "--dry-run"]);
            outcome.says("- 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87").says("6 to remove");
            snapshots.compare(&format!("{verb}-dry-run"), &outcome);
            node.hostgw(&[verb, "--dry-run", "--detailed-exitcode"]).expect(2);
            let document =
                node.hostgw(&[verb, "--dry-run", "--json", "--detailed-exitcode"]).expect(2).json();
            assert_eq!((&document["dryRun"], &document["outcome"]), (&true.into(), &"changes".into()));
            assert_eq!(document["planned"]["totals"]["remove"], 6);
            assert!(document["done"].is_null(), "{document:#}");
        }
        node.assert_unchanged(&before, "dry runs");
        assert_eq!(state_files(&node), files);
        drop(lock);
        // A dry run is refused for the same reasons as the change, but shows the plan.
        node.hostgw_ok(&["rollback", "--yes"]);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9 proto 87");
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.7");
        node.hostgw(&["rollback", "--dry-run"]).expect(10).says("Plan:").warns("nothing was changed");
        node.hostgw_ok(&["rollback", "--dry-run", "--abandon"]);
        node.hostgw_ok(&["rollback", "--dry-run", "--adopt"]);
        snapshots.conclude();
    });
}

/// A pending apply stays pending during a dry run.
#[test]
fn a_dry_run_leaves_a_pending_apply_alone() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = node
            .hostgw_command(&["apply", "--yes", "--confirm", "10m"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("hostgw");
        node.wait_until("the apply is pending", || {
            node.state_dir().is_some_and(|dir| dir.join("wait/pending.json").exists())
        });
        node.hostgw(&["rollback", "--dry-run", "--detailed-exitcode"]).expect(2).says("- 10.244.1.0/24");
        node.hostgw(&["destroy", "--dry-run", "--detailed-exitcode"]).expect(2).warns("is pending until");
        assert!(child.try_wait().expect("our child").is_none(), "it is still pending");
        node.hostgw_ok(&["confirm"]);
        assert!(child.wait().expect("our child").success());
    });
}

#[test]
fn the_detailed_exit_code_tells_whether_something_changed() {
    each(|privilege| {
        let node = node(privilege);
        let code = |arguments: &[&str]| node.hostgw(&[arguments, &["--detailed-exitcode"]].concat()).code;
        assert_eq!(code(&["status"]), 0);
        assert_eq!(code(&["apply", "--yes"]), 2);
        assert_eq!(code(&["apply", "--yes"]), 0);
        assert_eq!(code(&["status"]), 0);
        node.sh("ip route del 10.244.1.0/24");
        assert_eq!(code(&["status"]), 2);
        assert_eq!(code(&["status", "--json"]), 2);
        assert_eq!(code(&["rollback", "--yes"]), 2);
        assert_eq!(code(&["rollback", "--yes"]), 0);
        let applied = node.hostgw(&["apply", "--yes", "--json", "--detailed-exitcode"]).expect(2).json();
        assert_eq!((&applied["exitCode"], &applied["outcome"]), (&2.into(), &"changes".into()));
        assert_eq!(code(&["destroy", "--yes"]), 2);
        assert_eq!(code(&["destroy", "--yes"]), 0);
        node.hostgw(&["status", "--history", "--detailed-exitcode"]).expect(64);
    });
}

#[test]
fn a_summary_lists_names_and_counts() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        snapshots.compare("plan-summary", &node.hostgw_ok(&["plan", "--summary"]));
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", &cluster("nat: {randomFully: true}", &[NODE_1, NODE_2]));
        node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.9");
        snapshots.compare("plan-summary-conflict", &node.hostgw(&["plan", "--summary"]).expect(10));
        snapshots.compare("plan-summary-all-nodes", &node.hostgw_ok(&["plan", "--all-nodes", "--summary"]));
        node.hostgw(&["plan", "--summary", "--json"]).expect(64);
        snapshots.conclude();
    });
}
