//! Output on a terminal: pages, and lines that fit.

use super::node;
use crate::support::namespace::{Namespace, Outcome, each};

/// Runs a script on a terminal of this size.
pub fn on_terminal(node: &Namespace, rows: usize, columns: usize, script: &str) -> Outcome {
    let sized = format!("stty rows {rows} cols {columns}; {script}");
    let mut command = node.command("script");
    command.args(["-qec", &sized, "/dev/null"]);
    let mut outcome = Outcome::of(node, script, &mut command);
    outcome.stdout = outcome.stdout.replace("\r\n", "\n");
    outcome
}

const PAGER: &str = "PAGER=\"sed s/^/paged:/\"";

#[test]
fn a_long_plan_is_shown_page_by_page() {
    each(|privilege| {
        let node = node(privilege);
        let plain = node.hostgw_ok(&["plan"]).stdout;
        let paged: String = plain.lines().map(|line| format!("paged:{line}\n")).collect();
        let shown = |script: &str, rows| on_terminal(&node, rows, 300, script).expect(0).stdout;
        let plan = |pager: &str| format!("{pager} \"$HOSTGW\" plan --color never");
        assert_eq!(shown(&plan(PAGER), 10), paged);
        // Not if it fits, is disabled, or the output is not a terminal.
        assert_eq!(shown(&plan(PAGER), 100), plain);
        assert_eq!(shown(&format!("{} --no-pager", plan(PAGER)), 10), plain);
        assert_eq!(shown(&plan("PAGER=cat"), 10), plain);
        assert_eq!(shown(&plan("PAGER="), 10), plain);
        assert_eq!(shown(&format!("{} | cat", plan(PAGER)), 10), plain);
        // less would wait for a key; git sets these options for it.
        let set = shown(
            &plan("PAGER=\"cat >/dev/null; echo $LESS $LV\"")
                .replace('$', "\\$")
                .replace("\\$HOSTGW", "$HOSTGW"),
            10,
        );
        assert_eq!(set, "FRX -c\n");
        // A pager that quits early, or does not exist, is not an error.
        assert_eq!(shown(&plan("PAGER=\"head -n 1\""), 10).lines().count(), 1);
        assert!(shown(&plan("PAGER=no-such-pager"), 10).ends_with(&plain));
        // The exit code is that of the plan.
        let detailed = format!("{} --detailed-exitcode", plan(PAGER));
        on_terminal(&node, 10, 300, &detailed).expect(2);
    });
}

/// 40 columns suffice: no line is wider, except for a single long word.
#[test]
fn a_narrow_terminal_does_not_break_words() {
    const COLUMNS: usize = 40;
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.9");
        for (arguments, code) in [
            ("plan", 10),
            ("plan --summary", 10),
            ("plan --all-nodes", 0),
            ("apply --yes", 10),
            ("apply --yes --node linux-9", 3),
            ("status", 0),
            ("status --history", 0),
            ("destroy --dry-run", 0),
            ("rollback --yes", 0),
            ("confirm", 8),
            ("simulate -f hostgw.yaml", 0),
            ("--help", 0),
            ("apply --help", 0),
            ("help glossary", 0),
        ] {
            let script = format!("\"$HOSTGW\" {arguments} --color never");
            let text = on_terminal(&node, 200, COLUMNS, &script).expect(code).stdout;
            // The progress of simulate overwrites itself.
            let lines = text.lines().map(|line| line.rsplit('\r').next().unwrap_or_default());
            for line in lines.map(|line| line.trim_start_matches("\x1b[K")) {
                let is_one_word = line.split_whitespace().filter(|word| *word != "#").count() <= 1;
                assert!(line.chars().count() <= COLUMNS || is_one_word, "{arguments}: {line:?}\n{text}");
            }
        }
        // Text to copy is not wrapped.
        let script = on_terminal(&node, 200, COLUMNS, "\"$HOSTGW\" render --node linux-1").expect(0).stdout;
        assert_eq!(script, node.hostgw_ok(&["render", "--node", "linux-1"]).stdout);
    });
}

#[test]
fn a_narrow_terminal_moves_reasons_to_lines_of_their_own() {
    each(|privilege| {
        let node = node(privilege);
        let shown =
            |columns| on_terminal(&node, 200, columns, "\"$HOSTGW\" plan --color never").expect(0).stdout;
        let wide = "+ 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87             # pods of node linux-2, hostgw.yaml:14\n";
        let narrow =
            "+ 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87\n    # pods of node linux-2, hostgw.yaml:14\n";
        assert!(shown(wide.trim_end().len()).contains(wide));
        assert!(shown(wide.trim_end().len() - 1).contains(narrow));
        // Without a terminal, nothing is wrapped.
        assert!(node.hostgw_ok(&["plan"]).stdout.contains(wide));
    });
}
