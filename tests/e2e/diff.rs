//! `hostgw diff` and `plan --all-nodes`: without privileges, on any machine, for files and git revisions.

use super::{NODE_1, NODE_2, NODE_3, cluster};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, can_become_nobody, each};

/// Runs a script as the user nobody, without capabilities.
fn nobody(node: &Namespace, privilege: Privilege, script: &str) -> Outcome {
    let user = if privilege == Privilege::Root && can_become_nobody() {
        "--reuid 65534 --regid 65534 --clear-groups"
    } else {
        ""
    };
    let mut outcome = node.try_sh(&format!(
        "exec setpriv {user} --bounding-set -all --inh-caps -all --no-new-privs sh -ec '{script}'"
    ));
    outcome.command = script.replace("\"$HOSTGW\"", "hostgw");
    outcome
}

/// A repository with the tags v1 (two nodes) and v2 (three), the branch topic from v1 (another next hop), and a
/// working tree at v2 with only one node.
fn repository(privilege: Privilege) -> Namespace {
    let node = Namespace::new(privilege);
    nobody(&node, privilege, "git init -q -b main && mkdir envs && touch other.yaml").expect(0);
    let commit = |name: &str, text: &str| {
        node.write("envs/cluster.yaml", text);
        let script = format!(
            "export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z
             git add envs && git -c user.name=o -c user.email=o commit -qm {name} && git tag {name}"
        );
        nobody(&node, privilege, &script).expect(0);
    };
    commit("v1", &cluster("", &[NODE_1, NODE_2]));
    commit("v2", &cluster("", &[NODE_1, NODE_2, NODE_3]));
    nobody(&node, privilege, "git checkout -qb topic v1").expect(0);
    commit("v1.1", &cluster("nextHop: node-address", &[NODE_1, NODE_2]));
    nobody(&node, privilege, "git checkout -q main").expect(0);
    node.write("envs/cluster.yaml", &cluster("", &[NODE_1]));
    node
}

#[test]
fn revisions_are_named_as_in_git() {
    each(|privilege| {
        let node = repository(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        for (name, arguments, code) in [
            ("two", "v1..v2 -f envs/cluster.yaml --detailed-exitcode", 2),
            ("head", "v1.. -f envs/cluster.yaml", 0),
            ("two-words", "v2 v1 -f envs/cluster.yaml", 0),
            ("working-tree", "main -f envs/cluster.yaml --detailed-exitcode", 2),
            ("markdown", "v2..v1 -f envs/cluster.yaml --markdown", 0),
            ("since", "main...topic -f envs/cluster.yaml", 0),
            ("same", "v2..main -f envs/cluster.yaml --detailed-exitcode", 0),
            ("unknown", "nonsense -f envs/cluster.yaml", 3),
            ("dash", "-f envs/cluster.yaml -- --output=x", 3),
            ("no-such-file", "v1..v2 -f other.yaml", 3),
            ("no-file", "v1..v2", 3),
            ("stdin", "v1..v2 -f -", 64),
        ] {
            let outcome = nobody(&node, privilege, &format!("\"$HOSTGW\" diff {arguments}")).expect(code);
            snapshots.compare(&format!("diff-revisions-{name}"), &outcome);
        }
        node.assert_unchanged(&before, "diffs");
        snapshots.conclude();
    });
}

/// Neither the working directory nor the environment of a git hook matters.
#[test]
fn the_repository_of_the_file_is_found() {
    each(|privilege| {
        let node = repository(privilege);
        let diff = |script: &str| nobody(&node, privilege, script).expect(0).stdout;
        let expected = diff("\"$HOSTGW\" diff v1..v2 -f envs/cluster.yaml --summary");
        assert!(expected.contains("linux-3"), "{expected}");
        let folder = node.folder().display();
        for script in [
            "cd envs; \"$HOSTGW\" diff v1..v2 -f cluster.yaml --summary".to_owned(),
            format!("cd /; \"$HOSTGW\" diff v1..v2 -f {folder}/envs/cluster.yaml --summary"),
            "GIT_DIR=.git GIT_INDEX_FILE=.git/index \"$HOSTGW\" diff v1..v2 -f envs/cluster.yaml --summary"
                .to_owned(),
            "ln -s envs/cluster.yaml link.yaml; \"$HOSTGW\" diff v1..v2 -f link.yaml --summary".to_owned(),
            "rm envs/cluster.yaml; rmdir envs; \"$HOSTGW\" diff v1..v2 -f envs/cluster.yaml --summary"
                .to_owned(),
        ] {
            let output = diff(&script)
                .replace(&format!("{folder}/envs/"), "envs/")
                .replace("link.yaml", "envs/cluster.yaml");
            assert_eq!(output.replace(":cluster", ":envs/cluster"), expected, "{script}");
        }
    });
}

#[test]
fn a_new_file_is_compared_with_an_empty_configuration() {
    each(|privilege| {
        let node = repository(privilege);
        node.write("other.yaml", &cluster("", &[NODE_1, NODE_2]));
        let mut snapshots = Snapshots::default();
        let diff = |arguments: &str| nobody(&node, privilege, &format!("\"$HOSTGW\" diff {arguments}"));
        snapshots.compare("diff-new-file", &diff("v1 -f other.yaml --detailed-exitcode").expect(2));
        let json = diff("v1 -f other.yaml --json").expect(0).json();
        assert!(json["old"].is_null() && json["new"] == "other.yaml", "{json:#}");
        snapshots.conclude();
    });
}

/// A renamed file is not a new cluster: git knows its old name.
#[test]
fn a_renamed_file_is_compared_with_its_old_version() {
    each(|privilege| {
        let node = repository(privilege);
        node.write("envs/cluster.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        let renamed = cluster("", &[NODE_1, ("linux-2", "10.244.7.0/24", "172.30.0.12"), NODE_3]);
        let commit = "git -c user.name=o -c user.email=o commit -qam rename; git tag v3";
        nobody(&node, privilege, "mkdir sites && git mv envs/cluster.yaml sites/hostgw.yaml").expect(0);
        node.write("sites/hostgw.yaml", &renamed);
        nobody(&node, privilege, "git add sites").expect(0);
        let mut snapshots = Snapshots::default();
        let diff = |arguments: &str| nobody(&node, privilege, &format!("\"$HOSTGW\" diff {arguments}"));
        let totals = "2 nodes change: 2 to add, 0 to update, 2 to remove.";
        // In the index.
        diff("v2 -f sites/hostgw.yaml").expect(0).says(totals);
        nobody(&node, privilege, commit).expect(0);
        snapshots.compare("diff-renamed", &diff("v2..v3 -f sites/hostgw.yaml --detailed-exitcode").expect(2));
        snapshots.compare("diff-renamed-markdown", &diff("v2..v3 -f sites/hostgw.yaml --markdown").expect(0));
        let json = diff("v2..v3 -f sites/hostgw.yaml --json").expect(0).json();
        assert_eq!(json["old"], "v2:envs/cluster.yaml");
        let note = serde_json::json!([
            { "kind": "renamed", "before": "envs/cluster.yaml", "after": "sites/hostgw.yaml" }
        ]);
        assert_eq!(json["notes"], note);
        // By its old name, and from a subfolder.
        diff("v2..v3 -f envs/cluster.yaml").expect(0).says(totals);
        let script = "cd sites; \"$HOSTGW\" diff v2..v3 -f hostgw.yaml";
        nobody(&node, privilege, script).expect(0).says(totals);
        diff("v3..v2 -f envs/cluster.yaml").expect(0).says(totals);
        snapshots.conclude();
    });
}

/// Nodes lose everything that the deleted file describes.
#[test]
fn a_deleted_file_lists_what_every_node_loses() {
    each(|privilege| {
        let node = repository(privilege);
        nobody(
            &node,
            privilege,
            "rm envs/cluster.yaml; git -c user.name=o -c user.email=o commit -qam gone; git tag v3",
        )
        .expect(0);
        let mut snapshots = Snapshots::default();
        let diff = |arguments: &str| nobody(&node, privilege, &format!("\"$HOSTGW\" diff {arguments}"));
        snapshots.compare("diff-deleted", &diff("v2..v3 -f envs/cluster.yaml --detailed-exitcode").expect(2));
        snapshots.compare("diff-deleted-markdown", &diff("v2..v3 -f envs/cluster.yaml --markdown").expect(0));
        let json = diff("v2..v3 -f envs/cluster.yaml --json").expect(0).json();
        assert!(json["new"].is_null(), "{json:#}");
        let removed = diff("v2 -f envs/cluster.yaml").expect(0);
        removed.says("0 to add, 0 to update, 21 to remove").warns("is not in the working tree");
        diff("v2..v3 -f nowhere.yaml").expect(3).warns("nowhere.yaml is not in v3");
        snapshots.conclude();
    });
}

/// Errors in the base are not reported for the change that fixes it.
#[test]
fn a_change_that_fixes_an_invalid_base_is_compared_with_an_empty_configuration() {
    each(|privilege| {
        let node = repository(privilege);
        let commit = |name: &str, text: &str| {
            node.write("envs/cluster.yaml", text);
            let script = format!("git -c user.name=o -c user.email=o commit -qam {name}; git tag {name}");
            nobody(&node, privilege, &script).expect(0);
        };
        commit("broken", "clusterPrefix: 10.244.0.0/16\nnodes: []\n");
        commit("worse", "nodes: 1\n");
        commit("mended", &cluster("", &[NODE_1, NODE_2]));
        nobody(
            &node,
            privilege,
            "git rm -q envs/cluster.yaml; git -c user.name=o -c user.email=o commit -qm gone",
        )
        .expect(0);
        let mut snapshots = Snapshots::default();
        let diff = |arguments: &str| {
            let script = format!("\"$HOSTGW\" diff {arguments} -f envs/cluster.yaml");
            nobody(&node, privilege, &script)
        };
        snapshots.compare("diff-mended", &diff("broken..mended --detailed-exitcode").expect(2));
        let markdown = diff("broken..mended --markdown").expect(0);
        snapshots.compare("diff-mended-markdown", &markdown);
        assert!(markdown.stdout.starts_with("<!-- hostgw:diff envs/cluster.yaml -->\n"), "{markdown}");
        // Only the errors of the change are reported.
        let outcome = diff("broken..worse").expect(3);
        assert!(outcome.stderr.contains("worse:") && !outcome.stderr.contains("broken:"), "{outcome}");
        diff("mended..broken").expect(3).warns("broken:envs/cluster.yaml");
        // A broken file that is deleted was never in effect.
        diff("broken..HEAD").expect(0).says("No changes on any node.").warns("1 error");
        snapshots.conclude();
    });
}

#[test]
fn git_failures_are_reported() {
    each(|privilege| {
        let node = repository(privilege);
        let mut snapshots = Snapshots::default();
        let mut compare = |name: &str, script: &str, code: i32| {
            let outcome = nobody(&node, privilege, script).expect(code);
            snapshots.compare(&format!("diff-{name}"), &outcome);
        };
        compare("no-git", "PATH=/nonexistent \"$HOSTGW\" diff v1 -f envs/cluster.yaml", 1);
        compare("no-git-json", "PATH=/nonexistent \"$HOSTGW\" diff v1 -f envs/cluster.yaml --json", 1);
        compare("no-repository", "rm -rf .git; LC_ALL=C \"$HOSTGW\" diff v1 -f envs/cluster.yaml", 3);
        snapshots.conclude();
    });
}

#[test]
fn files_are_compared_without_git() {
    each(|privilege| {
        let node = Namespace::new(privilege);
        node.write("old.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.write("new.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        node.write("wrong.yaml", "clusterPrefix: 10.244.0.0/16\nnodes: []\n");
        node.write("other.yaml", "nodes: 1\n");
        let mut snapshots = Snapshots::default();
        let mut compare = |name: &str, arguments: &str, code: i32| {
            let outcome = nobody(&node, privilege, &format!("\"$HOSTGW\" {arguments}")).expect(code);
            snapshots.compare(&format!("diff-{name}"), &outcome);
        };
        compare("files", "diff old.yaml new.yaml --detailed-exitcode", 2);
        compare("files-summary", "diff old.yaml new.yaml --summary", 0);
        compare("files-same", "diff old.yaml old.yaml --detailed-exitcode", 0);
        compare("stdin", "diff - new.yaml --summary <old.yaml", 0);
        compare("stdin-twice", "diff - - <old.yaml", 64);
        compare("invalid-old", "diff wrong.yaml new.yaml", 3);
        compare("invalid-both", "diff wrong.yaml other.yaml", 3);
        compare("invalid-both-json", "diff wrong.yaml other.yaml --json", 3);
        compare("missing", "diff old.yaml nowhere.yaml", 3);
        compare("one-file", "diff old.yaml", 64);
        compare("all-nodes", "plan --all-nodes -f new.yaml --detailed-exitcode", 2);
        compare("all-nodes-markdown", "plan --all-nodes -f new.yaml --markdown", 0);
        compare("all-nodes-of-one", "plan --all-nodes --node linux-1 -f new.yaml", 64);
        snapshots.conclude();
    });
}
