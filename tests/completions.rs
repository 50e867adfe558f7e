//! Shell completion: real shells load the script as in the guide, and ask for candidates. Shells that are not
//! installed are skipped with a message; `tests/run` installs bash, fish and zsh.

use std::process::Command;

use crate::{
    e2e,
    support::{
        namespace::{Namespace, Outcome, Privilege, feed, is_root},
        say,
    },
};

/// The typed words, and expected candidates; those with `!` must not be offered.
const CASES: [(&[&str], &[&str]); 13] = [
    (&["hostgw", "pl"], &["plan"]),
    (&["hostgw", "plan", "--det"], &["--detailed-exitcode"]),
    (&["hostgw", "plan", "--node", "l"], &["linux-1", "linux-2", "!win-1"]),
    (&["hostgw", "render", "-f", "other.yaml", "--node", ""], &["other-1", "!linux-1"]),
    (&["hostgw", "simulate", "--nodes", "linux-1,w"], &["linux-1,win-1"]),
    (&["hostgw", "validate", "host"], &["hostgw.yaml"]),
    (&["hostgw", "apply", "-f", "oth"], &["other.yaml"]),
    (&["hostgw", "import", "--update", "oth"], &["other.yaml"]),
    (&["hostgw", "diff", "mai"], &["main"]),
    (&["hostgw", "diff", "main..fea"], &["main..feature"]),
    (&["hostgw", "diff", "ev"], &["!evil$(id)", "!evil;id.yaml"]),
    (&["hostgw", "help", "gl"], &["glossary"]),
    (&["hostgw", "schema", "sta"], &["status"]),
];

/// A node with two configurations in a repository with two branches, including names that must not be passed to a
/// shell.
fn repository() -> Namespace {
    let node = e2e::node(if is_root() { Privilege::Root } else { Privilege::User });
    node.write(
        "other.yaml",
        "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes:\n- {name: other-1, os: linux, podCIDR: 10.1.0.0/24}\n",
    );
    node.sh("export HOME=$PWD; git config --global safe.directory '*'
             git config --global user.name hostgw; git config --global user.email hostgw@example.net
             git init --quiet --initial-branch=main
             git add hostgw.yaml; git commit --quiet --message one
             git branch feature; git branch 'evil$(id)'; touch 'evil;id.yaml'
             mkdir bin; ln -s \"$HOSTGW\" bin/hostgw");
    node
}

/// The command that loads the script of a shell, from the guide.
fn loading(shell: &str) -> String {
    let guide = include_str!("../src/guide/plan-and-apply.md");
    let row = guide.lines().find(|line| line.starts_with(&format!("| {shell} |"))).expect("a row");
    let code = row.rsplit('`').nth(1).expect("code");
    let before = if shell == "zsh" { "autoload -U compinit; compinit -D -u\n" } else { "" };
    before.to_owned() + &code.replace("\\|", "|")
}

/// The path of a shell, if it is installed.
fn path_of(program: &str) -> Option<String> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("a shell");
    if !found.status.success() {
        say(&format!("not tried: {program} is not on the PATH, so it completes nothing"));
        return None;
    }
    Some(String::from_utf8(found.stdout).expect("UTF-8").trim().to_owned())
}

/// Asks a shell for the candidates of every case: `prepare` runs once, and `script` for each case.
fn ask(shell: &str, program: &[&str], prepare: &str, script: impl Fn(&[&str]) -> String) {
    const SEPARATOR: &str = "-----";
    let Some(path) = path_of(program[0]) else { return };
    let node = repository();
    let scripts = CASES.map(|(words, _)| format!("{}\necho '{SEPARATOR}'", script(words)));
    let whole = format!("{}\n{prepare}\n{}", loading(shell), scripts.join("\n"));
    let setting = "export HOME=$PWD PATH=$PWD/bin:$PATH TERM=dumb; exec \"$@\"";
    let mut command = node.command("sh");
    command.args(["-c", setting, "sh", &path]).args(&program[1..]).arg(whole);
    let outcome = Outcome::of(&node, shell, &mut command);
    let answers: Vec<&str> = outcome.stdout.split(SEPARATOR).collect();
    assert_eq!(answers.len(), CASES.len() + 1, "{outcome}");
    for ((words, expected), answer) in CASES.into_iter().zip(answers) {
        check(&format!("{shell} for {words:?}"), answer, expected);
    }
}

/// Compares the candidates in `answer`, one per line, with the expected ones.
fn check(what: &str, answer: &str, expected: &[&str]) {
    for value in expected {
        let (value, is_expected) = value.strip_prefix('!').map_or((*value, true), |value| (value, false));
        let is_there = answer.lines().any(|line| line.trim_end() == value);
        assert_eq!(is_there, is_expected, "{value}: {what}:\n{answer}");
    }
}

/// Quotes words for a shell.
fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

#[test]
fn bash_completes() {
    ask("bash", &["bash", "--norc", "-c"], "complete -p hostgw >/dev/null || exit", |words| {
        let last = words.len() - 1;
        format!(
            "COMP_WORDS=({}) COMP_CWORD={last} COMP_TYPE=9\n_clap_complete_hostgw hostgw '{}' '{}'\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted(words),
            words[last],
            words[last - 1]
        )
    });
}

/// As in readline: an interactive bash splits words at `=`, and inserts a single candidate.
#[test]
fn bash_inserts_a_single_candidate() {
    let node = repository();
    let typed = [
        ("hostgw plan --node=w\t --summary", "hostgw plan --node=win-1  --summary"),
        ("hostgw render -f oth\t --node=\t", "hostgw render -f other.yaml  --node=other-1 "),
        ("hostgw diff main..fea\t", "hostgw diff main..feature "),
    ];
    // Instead of executing a line, bash prints it.
    let start = format!(
        "{}\nset -o emacs\nbind 'set enable-bracketed-paste off'\n\
         shown() {{ printf 'line:%s:\\n' \"$READLINE_LINE\" >>lines; READLINE_LINE=; }}\nbind -x '\"\\C-g\": shown'\n",
        loading("bash")
    );
    node.write("rc", &start);
    let script = "export HOME=$PWD PATH=$PWD/bin:$PATH TERM=dumb; bash --noprofile --rcfile rc -i";
    let mut child = node.on_terminal(script).spawn().expect("bash");
    let input: String = typed.iter().map(|(line, _)| format!("{line}\u{7}")).collect();
    feed(&mut child, &format!("{input}exit\n"));
    child.wait_with_output().expect("bash ends");
    let lines = node.sh("cat lines");
    let expected: String = typed.iter().map(|(_, line)| format!("line:{line}:\n")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn fish_completes() {
    ask("fish", &["fish", "--no-config", "-c"], "", |words| {
        format!("complete -C '{}' | string replace -r '\\t.*' ''", words.join(" "))
    });
}

#[test]
fn zsh_completes() {
    // Outside of its editor, zsh has no list of candidates, so the function that would fill it prints them.
    let shown = "_describe() { local name=$4; [[ $3 == values ]] || name=$3\n\
                 for each in ${(P)name}; do print -r -- ${${each%%:*}//\\\\/}; done }\n(( $+_comps[hostgw] )) || exit";
    ask("zsh", &["zsh", "-f", "-c"], shown, |words| {
        format!("words=({}) CURRENT={}\n_clap_dynamic_completer_hostgw", quoted(words), words.len())
    });
}

#[test]
fn powershell_completes() {
    ask("PowerShell", &["pwsh", "-NoProfile", "-NonInteractive", "-Command"], "", |words| {
        let line = words.join(" ");
        format!(
            "[System.Management.Automation.CommandCompletion]::CompleteInput('{line}', {}, $null)\
             .CompletionMatches.CompletionText",
            line.len()
        )
    });
}

/// The editor of elvish only completes on a terminal, so this runs what its script runs.
#[test]
fn elvish_gets_candidates() {
    let node = repository();
    let script = node.hostgw_ok(&["completions", "elvish"]).stdout;
    assert!(script.contains("HOSTGW_COMPLETE=\"elvish\" hostgw -- $@words"), "{script}");
    for (words, expected) in CASES {
        let mut command = node.hostgw_command(&["--"]);
        command.args(words).env("HOSTGW_COMPLETE", "elvish").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string()).env("HOME", node.folder());
        let outcome = Outcome::of(&node, &words.join(" "), &mut command).expect(0);
        check(&format!("elvish for {words:?}"), &outcome.stdout, expected);
    }
}
