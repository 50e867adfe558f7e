//! The recorded name of the user, and what a pager may do if hostgw runs with elevated privileges.

use super::{node, terminal::on_terminal};
use crate::support::namespace::{Namespace, each};

/// Runs a script in which `fakes` replace programs or files of the machine.
fn with_fake(fakes: &[(&str, &str)], script: &str) -> String {
    let mounts: String =
        fakes.iter().map(|(path, fake)| format!("mount --bind \"$PWD/{fake}\" {path} && ")).collect();
    let script = script.replace('\'', "'\\''");
    format!("unshare -m sh -ec '{}{script}'", mounts.replace('\'', "'\\''"))
}

fn program(node: &Namespace, name: &str, script: &str) {
    node.write(name, &format!("#!/bin/sh\n{script}\n"));
    node.sh(&format!("chmod 755 {name}"));
}

/// Variables that name programs, options and files for less.
const HOSTILE: &str = "PAGER='touch pwned-pager; cat' LESS='+!touch pwned-less' LESSOPEN='|-touch pwned-open' \
    LESSCLOSE='touch pwned-close' LESSEDIT=x LESSKEY=x LESSKEYIN=x LESSKEY_CONTENT=x LESSHISTFILE=pwned-history \
    LV=x MORE=x EDITOR=x VISUAL=x SHELL=x TERMINFO=x HOME=x LD_LIBRARY_PATH=x";

#[test]
fn with_elevated_privileges_the_pager_is_less_in_secure_mode() {
    each(|privilege| {
        let node = node(privilege);
        program(&node, "fake-less", "env | sort; echo arguments: $#; sed s/^/paged:/");
        let plain = node.hostgw_ok(&["plan"]).stdout;
        let paged: String = plain.lines().map(|line| format!("paged:{line}\n")).collect();
        for by in ["SUDO_UID=4242", "PKEXEC_UID=4242", "DOAS_USER=alice"] {
            let plan = format!("{by} {HOSTILE} \"$HOSTGW\" plan --color never");
            let shown = on_terminal(&node, 10, 300, &with_fake(&[("/usr/bin/less", "fake-less")], &plan));
            let shown = shown.expect(0).stdout;
            let (head, text) = shown.split_once("arguments: 0\n").unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(text, paged, "{by}");
            let mut variables: Vec<&str> = head.lines().collect();
            variables.retain(|line| {
                let shells = ["PWD=", "OLDPWD=", "SHLVL=", "_="];
                !shells.iter().any(|own| line.starts_with(own)) && !line.starts_with("TERM=")
            });
            let expected =
                ["LC_ALL=C.UTF-8", "LESS=FRX", "LESSHISTFILE=-", "LESSSECURE=1", "PATH=/usr/bin:/bin"];
            assert_eq!(variables, expected, "{by}");
        }
        // The real less, which would run programs named in the environment.
        let plan =
            format!("TERM=dumb SUDO_UID=4242 {HOSTILE} timeout 3 \"$HOSTGW\" plan --color never </dev/null");
        on_terminal(&node, 10, 300, &plan);
        assert_eq!(node.sh("find . -name 'pwned*'"), "");
        // An empty pager means none.
        for none in ["cat", "", "' cat '"] {
            let plan = format!("SUDO_UID=4242 PAGER={none} \"$HOSTGW\" plan --color never");
            let plan = with_fake(&[("/usr/bin/less", "fake-less")], &plan);
            assert_eq!(on_terminal(&node, 10, 300, &plan).expect(0).stdout, plain, "PAGER={none}");
        }
    });
}

/// Output that a pager does not show is printed nevertheless.
#[test]
fn a_failing_pager_loses_no_output() {
    each(|privilege| {
        let node = node(privilege);
        let plain = node.hostgw_ok(&["plan"]).stdout;
        let shown = |pager: &str| {
            let plan = format!("PAGER={pager} \"$HOSTGW\" plan --color never");
            on_terminal(&node, 10, 300, &plan).expect(0).stdout
        };
        for pager in ["false", "'kill -9 $$'", "'exit 3'", "no-such-pager", "/", "\"sh -c 'exit 127'\""] {
            assert!(shown(pager).ends_with(&plain), "PAGER={pager}");
        }
        let arguments = shown("\"sed -e 's/^/a b:/' -e 's/$/;/'\"");
        assert!(arguments.lines().all(|line| line.starts_with("a b:") && line.ends_with(';')), "{arguments}");
        // A pager with a path or options runs as it is.
        let plan = "PAGER=$(printf 'cat; : \\377') \"$HOSTGW\" plan --color never";
        assert_eq!(on_terminal(&node, 10, 300, plan).expect(0).stdout, plain);
        // If the user quit or interrupted the pager, nothing is printed again.
        assert_eq!(shown("'head -n 1'").lines().count(), 1);
        assert_eq!(shown("'head -n 1; kill -INT $$'").lines().count(), 1);
    });
}

/// The user in the newest record.
fn by(node: &Namespace) -> String {
    let history = node.hostgw_ok(&["status", "--history", "--json"]).json();
    history["transactions"][0]["by"].as_str().expect("a name").to_owned()
}

#[test]
fn users_of_a_directory_are_recorded_by_name() {
    each(|privilege| {
        let node = node(privilege);
        node.write("users", "root:x:0:0:root:/root:/bin/sh\n");
        let fakes = [("/etc/passwd", "users"), ("/usr/bin/getent", "fake-getent")];
        let apply = |variables: &str| {
            node.sh("\"$HOSTGW\" destroy --yes");
            let apply = format!("{variables} \"$HOSTGW\" apply --yes");
            node.try_sh(&with_fake(&fakes, &apply)).expect(0);
            by(&node)
        };
        program(
            &node,
            "fake-getent",
            "[ \"$*\" = \"passwd $2\" ] && echo \"ldap-alice:*:$2:4242::/home/alice:/bin/sh\"",
        );
        assert_eq!(apply("SUDO_UID=4242 SUDO_USER=somebody"), "ldap-alice");
        // Untrusted text of any length.
        program(&node, "fake-getent", "printf 'a\\033[31m%0999d:*:%s:1::/:/bin/sh\\n' 0 \"$2\"");
        let long = apply("SUDO_UID=4242");
        assert!(long.starts_with("a\u{1b}[31m000") && long.len() < 300, "{long:?}");
        let table = node.hostgw_ok(&["status", "--history", "--color", "never"]).stdout;
        assert!(!table.contains('\u{1b}') && table.contains("a\\u{1b}[31m000"), "{table}");
        // A directory that returns another user, none, or endless output, and one that hangs.
        for script in ["echo mallory:x:1:1::/:/bin/sh", "exit 2", "exec cat /dev/zero", "exec sleep 1000"] {
            program(&node, "fake-getent", script);
            assert_eq!(apply("SUDO_UID=4242 SUDO_USER=alice"), "alice", "{script}");
            assert_eq!(apply("SUDO_UID=4242 SUDO_USER=\"$(printf 'a\\nroot')\""), "uid 4242", "{script}");
        }
    });
}
