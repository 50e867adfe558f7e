//! A repository can name programs for git to run. hostgw runs none of them, whatever it asks git for. Each test first
//! proves that the attack works on git itself: it leaves a canary file.

use super::{NODE_1, NODE_2, NODE_3, cluster, node};
use crate::support::namespace::{Namespace, Privilege, can_become_nobody, each};

/// The identity for commits in these tests.
const IDENTITY: &str =
    "export GIT_AUTHOR_NAME=o GIT_AUTHOR_EMAIL=o GIT_COMMITTER_NAME=o GIT_COMMITTER_EMAIL=o
    export GIT_CONFIG_GLOBAL=/dev/null";

/// Removes the file at v1 from a repository that claims to be a partial clone of `$url`.
const PARTIAL: &str = "blob=$(git rev-parse v1:hostgw.yaml)
    git config core.repositoryFormatVersion 1
    git config extensions.partialClone origin
    git config remote.origin.promisor true
    git config remote.origin.url \"$url\"
    rm -f .git/objects/$(echo $blob | cut -c1-2)/$(echo $blob | cut -c3-)";

struct Trick {
    name: &'static str,
    /// Makes the repository hostile. `$canary` is the file to leave, and `canary.sh` a program that creates it.
    arm: &'static str,
    /// A git command that triggers the attack.
    provoke: &'static str,
    /// Whether v1 can still be read.
    is_readable: bool,
}

const TRICKS: [Trick; 12] = [
    Trick {
        name: "a transport of a partial clone",
        arm: "url=ext::$PWD/canary.sh; PARTIAL; git config protocol.ext.allow always",
        provoke: "git cat-file -p v1:hostgw.yaml",
        is_readable: false,
    },
    Trick {
        name: "a transport of an included configuration",
        arm: "url=ext::$PWD/canary.sh; PARTIAL
            printf '[protocol \"ext\"]\nallow = always\n' >.git/more; git config include.path more",
        provoke: "git cat-file -p v1:hostgw.yaml",
        is_readable: false,
    },
    Trick {
        name: "a transport of the working tree's configuration",
        arm: "url=ext::$PWD/canary.sh; PARTIAL
            git config extensions.worktreeConfig true; git config --worktree protocol.ext.allow always",
        provoke: "git cat-file -p v1:hostgw.yaml",
        is_readable: false,
    },
    Trick {
        name: "the other end of a local remote",
        arm: "url=$PWD; PARTIAL; git config remote.origin.uploadpack \"touch $canary; false\"",
        provoke: "git cat-file -p v1:hostgw.yaml",
        is_readable: false,
    },
    Trick {
        name: "a program for ssh",
        arm: "url=ssh://nowhere.example/x; PARTIAL; git config core.sshCommand \"touch $canary; false\"",
        provoke: "git cat-file -p v1:hostgw.yaml",
        is_readable: false,
    },
    Trick {
        name: "a program that watches files",
        arm: "git config core.fsmonitor $PWD/canary.sh",
        provoke: "git status",
        is_readable: true,
    },
    Trick {
        name: "a hook",
        arm: "mkdir hooks; cp canary.sh hooks/post-index-change; git config core.hooksPath hooks",
        provoke: "git read-tree HEAD",
        is_readable: true,
    },
    Trick {
        name: "a filter",
        arm: "git config filter.own.clean \"touch $canary; cat\"; echo '* filter=own' >.gitattributes
            touch -d 2001-01-01 hostgw.yaml",
        provoke: "git status",
        is_readable: true,
    },
    Trick {
        name: "textconv",
        arm: "git config diff.own.textconv $PWD/canary.sh; echo '* diff=own' >.gitattributes",
        provoke: "git diff v1 v2",
        is_readable: true,
    },
    Trick {
        name: "a diff driver",
        arm: "git config diff.own.command $PWD/canary.sh; echo '* diff=own' >.gitattributes",
        provoke: "git diff v1 v2",
        is_readable: true,
    },
    Trick {
        name: "a pager",
        arm: "git config core.pager $PWD/canary.sh; git config pager.rev-parse true; git config pager.log true",
        provoke: "script -qec 'git log' /dev/null",
        is_readable: true,
    },
    Trick {
        name: "a credential helper",
        arm: "git config credential.helper \"!touch $canary; true\"; git config core.askPass false",
        provoke: "printf 'protocol=https\nhost=h\n' | git credential fill",
        is_readable: true,
    },
];

/// A repository with configurations at v1, at v2, and in the working tree.
fn repository(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.sh("chown 0:0 . && git init -q -b main .
        printf '#!/bin/sh\ntouch %s/pwned\n' \"$PWD\" >canary.sh; chmod +x canary.sh");
    for (tag, nodes) in [("v1", &[NODE_1, NODE_2][..]), ("v2", &[NODE_1, NODE_2, NODE_3])] {
        node.write("hostgw.yaml", &cluster("", nodes));
        node.sh(&format!("{IDENTITY}\ngit add hostgw.yaml; git commit -qm {tag}; git tag {tag}"));
    }
    node
}

fn arm(node: &Namespace, script: &str) {
    let script = script.replace("PARTIAL", PARTIAL);
    node.sh(&format!("{IDENTITY}\nexport GIT_ALLOW_PROTOCOL=; canary=$PWD/pwned; {script}; rm -f pwned"));
}

#[track_caller]
fn assert_not_run(node: &Namespace, what: &str) {
    assert_eq!(node.sh("find . -name 'pwned*'"), "", "{what}");
}

#[test]
fn programs_of_a_repository_are_never_run() {
    each(|privilege| {
        for trick in TRICKS {
            let node = repository(privilege);
            arm(&node, trick.arm);
            node.try_sh(&format!("export GIT_CONFIG_GLOBAL=/dev/null\n{}", trick.provoke));
            assert_eq!(
                node.sh("ls pwned 2>&1 || true").trim(),
                "pwned",
                "{} does not work on git itself",
                trick.name
            );
            node.sh("rm pwned");

            let code = if trick.is_readable { 0 } else { 3 };
            for range in ["v1..v2", "v2..v1", "v1...v2", "v1"] {
                let outcome = node.hostgw(&["diff", range, "-f", "hostgw.yaml"]).expect(code);
                if code != 0 {
                    outcome.warns("hostgw.yaml: its object is not in this clone");
                    outcome.warns("help: hostgw never fetches; if you trust");
                }
            }
            node.hostgw(&["plan", "--out", "saved"]).expect(0);
            node.hostgw(&["apply", "--yes"]).expect(0);
            let history = node.hostgw(&["status", "--history", "--json"]).expect(0).json();
            let commit = &history["transactions"][0]["commit"];
            assert_eq!((commit["id"].is_string(), &commit["dirty"]), (true, &false.into()), "{}", trick.name);
            assert_not_run(&node, trick.name);
        }
    });
}

/// The same when git detects renames, or looks for them without the necessary objects.
#[test]
fn rename_detection_runs_nothing() {
    each(|privilege| {
        let node = repository(privilege);
        node.sh(&format!("{IDENTITY}\ngit mv hostgw.yaml other.yaml; git commit -qm moved; git tag v3"));
        arm(
            &node,
            "url=ext::$PWD/canary.sh; PARTIAL; git config protocol.ext.allow always
            git config diff.own.textconv $PWD/canary.sh; git config diff.own.command $PWD/canary.sh
            echo '* diff=own' >.gitattributes; git config diff.renameLimit 1",
        );
        node.hostgw(&["diff", "v2..v3", "-f", "other.yaml"])
            .expect(0)
            .warns("hostgw.yaml was renamed to other.yaml");
        node.hostgw(&["diff", "v1..v3", "-f", "other.yaml"]).expect(0).warns("other.yaml is not in v1");
        assert_not_run(&node, "renames");
    });
}

/// A change can contain a folder that is a bare repository with a configuration of its own.
#[test]
fn a_bare_repository_inside_another_is_ignored() {
    each(|privilege| {
        let node = repository(privilege);
        node.sh("git clone -q --bare . inner; cp hostgw.yaml inner
            git -C inner config core.fsmonitor \"$PWD/canary.sh\"");
        node.hostgw(&["diff", "v1", "-f", "inner/hostgw.yaml"]).expect(3).warns("safe.bareRepository");
        assert_not_run(&node, "a bare repository");
    });
}

/// Variables that name programs, repositories and files for git are not passed on.
#[test]
fn git_gets_a_clean_environment() {
    each(|privilege| {
        let node = repository(privilege);
        node.sh("git init -q elsewhere; mkdir programs; cp canary.sh programs/git-rev-parse
            cp canary.sh programs/git-ls-tree");
        let expected = node.hostgw_ok(&["diff", "v1..v2", "-f", "hostgw.yaml"]).stdout;
        for variables in [
            "GIT_DIR=$PWD/elsewhere/.git GIT_WORK_TREE=$PWD/elsewhere",
            "GIT_OBJECT_DIRECTORY=$PWD/elsewhere/.git/objects",
            "GIT_INDEX_FILE=$PWD/pwned-index",
            "GIT_NAMESPACE=x GIT_COMMON_DIR=$PWD/elsewhere/.git",
            "GIT_EXEC_PATH=$PWD/programs",
            "GIT_EXTERNAL_DIFF=$PWD/canary.sh GIT_PAGER=$PWD/canary.sh GIT_SSH=$PWD/canary.sh",
            "GIT_TRACE=$PWD/pwned-trace GIT_TRACE2=$PWD/pwned-trace2 GIT_TRACE_SETUP=$PWD/pwned-setup",
            "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.fsmonitor GIT_CONFIG_VALUE_0=$PWD/canary.sh",
            "GIT_CONFIG_PARAMETERS=\"'core.fsmonitor'='$PWD/canary.sh'\"",
            "GIT_GLOB_PATHSPECS=1 GIT_ICASE_PATHSPECS=1",
        ] {
            let script = format!("{variables} \"$HOSTGW\" diff v1..v2 -f hostgw.yaml");
            assert_eq!(node.try_sh(&script).expect(0).stdout, expected, "{variables}");
            assert_not_run(&node, variables);
        }
    });
}

/// A review shows the objects that others receive, not local replacements (git replace).
#[test]
fn replaced_objects_are_ignored() {
    each(|privilege| {
        let node = repository(privilege);
        let expected = node.hostgw_ok(&["diff", "v1..v2", "-f", "hostgw.yaml"]).stdout;
        node.sh(&format!("{IDENTITY}\ngit replace v2:hostgw.yaml v1:hostgw.yaml; git replace v2 v1"));
        assert_eq!(node.hostgw_ok(&["diff", "v1..v2", "-f", "hostgw.yaml"]).stdout, expected);
    });
}

/// The user's own git configuration decides whose repositories may be read.
#[test]
fn repositories_of_other_users_are_not_read() {
    each(|privilege| {
        // Requires a second user.
        if privilege != Privilege::Root || !can_become_nobody() {
            return;
        }
        let node = repository(privilege);
        node.sh("chown -R 65534 .");
        node.hostgw(&["diff", "v1..v2", "-f", "hostgw.yaml"]).expect(3).warns("dubious ownership");
        let script = "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
            export GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
            \"$HOSTGW\" diff v1..v2 -f hostgw.yaml";
        node.try_sh(script).expect(0);
    });
}

/// A repository in which git hangs does not delay an apply.
#[test]
fn a_hanging_repository_does_not_delay_an_apply() {
    each(|privilege| {
        let node = repository(privilege);
        node.sh("git config include.path ../fifo; mkfifo fifo");
        node.hostgw(&["apply", "--yes"]).expect(0);
        let history = node.hostgw(&["status", "--history", "--json"]).expect(0).json();
        assert!(history["transactions"][0]["commit"].is_null(), "{history}");
    });
}

/// A link is controlled by the author of the revision, and can point to any file on this machine.
#[test]
fn links_in_a_repository_are_not_followed() {
    each(|privilege| {
        let node = repository(privilege);
        node.write("secret.yaml", "password: hunter2\n");
        node.sh(&format!(
            "{IDENTITY}\nmkdir envs; cp hostgw.yaml envs; ln -s \"$PWD/secret.yaml\" link.yaml; ln -s envs way
            git init -q sub; git -C sub commit -q --allow-empty -m sub; git add sub 2>&1
            git add envs link.yaml way; git commit -qm links; git tag v3; rm -rf sub"
        ));
        for (file, why) in [
            ("link.yaml", "v3:link.yaml is a symbolic link, not a file"),
            ("way/hostgw.yaml", "v3:way is a symbolic link, not a directory"),
            ("sub/hostgw.yaml", "v3:sub is a submodule, not a directory"),
        ] {
            let outcome = node.hostgw(&["diff", "v2..v3", "-f", file]).expect(3);
            outcome.warns(why);
            assert!(!outcome.to_string().contains("hunter2"), "{outcome}");
        }
        let outcome = node.hostgw(&["diff", "v3", "-f", "link.yaml"]).expect(3);
        outcome.warns("link.yaml is a symbolic link tracked by Git");
        assert!(!outcome.to_string().contains("hunter2"), "{outcome}");
        // The user's own links are followed.
        node.sh("ln -s envs/hostgw.yaml own.yaml; ln -s own.yaml twice.yaml");
        node.hostgw(&["diff", "v3..v3", "-f", "twice.yaml"]).expect(0);
        node.sh("ln -s loop.yaml loop.yaml");
        node.hostgw(&["diff", "v3..v3", "-f", "loop.yaml"]).expect(3).warns("too many symbolic links");
    });
}
