//! When output is colored, and how commands handle a closed pipe.

use super::node;
use crate::support::namespace::{Outcome, each};

/// `--color`, if given, the environment, and whether output to a pipe is colored.
type Case = (Option<&'static str>, &'static [(&'static str, &'static str)], bool);

const CASES: [Case; 12] = [
    (None, &[], false),
    (Some("always"), &[], true),
    (Some("never"), &[], false),
    (Some("always"), &[("NO_COLOR", "1")], true),
    (Some("never"), &[("CLICOLOR_FORCE", "1")], false),
    (None, &[("CLICOLOR_FORCE", "1")], true),
    (None, &[("FORCE_COLOR", "1")], true),
    (None, &[("CLICOLOR_FORCE", "0")], false),
    (None, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false),
    (None, &[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")], true),
    (Some("auto"), &[("FORCE_COLOR", "1")], true),
    (Some("auto"), &[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false),
];

#[test]
fn color_follows_the_flag_and_then_the_environment() {
    each(|privilege| {
        let node = node(privilege);
        let plain = node.hostgw_ok(&["plan"]).stdout;
        for (flag, environment, expected) in CASES {
            let mut command = node.hostgw_command(&["plan"]);
            command.args(flag.map(|when| format!("--color={when}"))).envs(environment.iter().copied());
            let outcome = Outcome::of(&node, "hostgw plan", &mut command).expect(0);
            let is_coloured = outcome.stdout.contains('\x1b');
            assert_eq!(is_coloured, expected, "{flag:?} {environment:?}\n{outcome}");
            assert_eq!(without_colors(&outcome.stdout), plain, "{flag:?} {environment:?}");
        }
        let json = node.hostgw_ok(&["plan", "--json", "--color", "always"]).stdout;
        assert!(!json.contains('\x1b') && !json.contains("\\u001b"), "colours in JSON:\n{json}");
    });
}

/// The symbols of a diff have the usual colors.
#[test]
fn additions_are_green_and_removals_red() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["plan", "--color", "always"]).says("\x1b[32m+ 10.244.1.0/24");
        node.sh("ip route add 10.1.0.0/16 dev eth0 proto 87");
        node.hostgw_ok(&["plan", "--color", "always"]).says("\x1b[31m- 10.1.0.0/16");
    });
}

/// Output to a terminal is colored by default.
#[test]
fn output_to_a_terminal_is_colored() {
    each(|privilege| {
        let node = node(privilege);
        let on_terminal = |command: &str| node.run(["script", "-qec", command, "/dev/null"]);
        assert!(on_terminal("\"$HOSTGW\" plan").contains("\x1b[32m"));
        for plain in ["NO_COLOR=1", "TERM=dumb", "CLICOLOR=0", "FORCE_COLOR=0"] {
            let text = on_terminal(&format!("{plain} \"$HOSTGW\" plan"));
            assert!(!text.contains('\x1b'), "{plain}: {text}");
            let forced = on_terminal(&format!("{plain} \"$HOSTGW\" plan --color always"));
            assert!(forced.contains("\x1b[32m"), "{plain}: {forced}");
        }
        assert!(on_terminal("TERM=dumb CLICOLOR_FORCE=1 \"$HOSTGW\" plan").contains("\x1b[32m"));
        assert!(on_terminal("TERM=xterm CLICOLOR=1 \"$HOSTGW\" plan").contains("\x1b[32m"));
    });
}

/// Help and usage errors follow the same rules as all other output.
#[test]
fn help_and_usage_errors_follow_the_color_rules() {
    each(|privilege| {
        let node = node(privilege);
        let on_terminal = |command: &str| node.run(["script", "-qec", command, "/dev/null"]);
        for arguments in ["--help", "plan --help", "plan --no-such-flag || true", "no-such-verb || true"] {
            let shown = |before: &str, after: &str| {
                on_terminal(&format!("{before} \"$HOSTGW\" {after} {arguments}")).contains('\x1b')
            };
            assert!(shown("", ""), "{arguments}");
            assert!(!shown("", "--color never"), "{arguments}");
            assert!(!shown("", "--color=never"), "{arguments}");
            for plain in ["NO_COLOR=1", "TERM=dumb", "CLICOLOR=0", "FORCE_COLOR=0"] {
                assert!(!shown(plain, ""), "{plain} {arguments}");
                assert!(shown(plain, "--color always"), "{plain} {arguments}");
            }
        }
        // Output to a pipe is colored if that is forced.
        let piped = |command: &str| node.try_sh(&format!("{command} 2>&1 | cat")).stdout.contains('\x1b');
        assert!(!piped("\"$HOSTGW\" --help"));
        assert!(piped("FORCE_COLOR=1 \"$HOSTGW\" --help"));
        assert!(piped("\"$HOSTGW\" --color always plan --no-such-flag"));
    });
}

fn without_colors(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24");
        for arguments in [
            "plan",
            "plan --json",
            "plan --color always",
            "status",
            "status --json",
            "schema",
            "validate",
            "--help",
        ] {
            // The reader closes the pipe before the first byte.
            let script = format!("{{ sleep 0.1; \"$HOSTGW\" {arguments}; echo $? >code; }} | true; cat code");
            let outcome = node.try_sh(&script);
            assert_eq!(outcome.stdout.trim(), "0", "{outcome}");
            assert_eq!(outcome.stderr, "", "{outcome}");
        }
        let outcome =
            node.try_sh("{ \"$HOSTGW\" plan --detailed-exitcode; echo $? >code; } | head -n1; cat code");
        assert_eq!(outcome.stdout, "Routes\n2\n", "{outcome}");
    });
}

/// An apply whose reader closed the pipe is committed and verified nevertheless.
#[test]
fn an_apply_into_a_closed_pipe_completes() {
    each(|privilege| {
        let node = node(privilege);
        let outcome =
            node.try_sh("{ sleep 0.1; \"$HOSTGW\" apply --yes 2>&1; echo $? >code; } | true; cat code");
        assert_eq!(outcome.stdout.trim(), "0", "{outcome}");
        super::settled(&node);
    });
}
