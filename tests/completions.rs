//! Shells complete command lines of hostgw: real shells load the script as the guide says, and ask for candidates. Of
//! those that are not here a sentence says so; `tests/run` installs bash, fish and zsh.

use std::process::Command;

use crate::{
    e2e,
    support::{
        namespace::{Namespace, Outcome, Privilege, is_root},
        say,
    },
};

/// What is typed, and candidates of it; with `!`, what is none.
const CASES: [(&[&str], &[&str]); 12] = [
    (&["hostgw", "pl"], &["plan"]),
    (&["hostgw", "plan", "--det"], &["--detailed-exitcode"]),
    (&["hostgw", "plan", "--node", "l"], &["linux-1", "linux-2", "!win-1"]),
    (&["hostgw", "render", "-f", "other.yaml", "--node", ""], &["other-1", "!linux-1"]),
    (&["hostgw", "simulate", "--nodes", "linux-1,w"], &["linux-1,win-1"]),
    (&["hostgw", "validate", "host"], &["hostgw.yaml"]),
    (&["hostgw", "apply", "-f", "oth"], &["other.yaml"]),
    (&["hostgw", "diff", "mai"], &["main"]),
    (&["hostgw", "diff", "main..fea"], &["main..feature"]),
    (&["hostgw", "diff", "ev"], &["!evil$(id)", "!evil;id.yaml"]),
    (&["hostgw", "help", "gl"], &["glossary"]),
    (&["hostgw", "schema", "sta"], &["status"]),
];

/// A node with two configurations in a repository with two branches, and with names that no shell should be given.
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
    code.replace("\\|", "|")
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("a shell");
    if !found.status.success() {
        say(&format!("not tried: {program} is not on the PATH, so it completes nothing"));
    }
    found.status.success()
}

/// Asks a shell for the candidates of every case; `script` is a program of the shell for the words of a case.
fn ask(shell: &str, program: &[&str], script: impl Fn(&[&str]) -> String) {
    if !is_there(program[0]) {
        return;
    }
    let node = repository();
    for (words, expected) in CASES {
        let setting = "export HOME=$PWD PATH=$PWD/bin:$PATH TERM=dumb; exec \"$@\"";
        let mut command = node.command("sh");
        let path =
            Command::new("sh").args(["-c", &format!("command -v {}", program[0])]).output().expect("a shell");
        let path = String::from_utf8(path.stdout).expect("UTF-8").trim().to_owned();
        command.args(["-c", setting, "sh", &path]).args(&program[1..]).arg(script(words));
        let outcome = Outcome::of(&node, &words.join(" "), &mut command);
        let candidates: Vec<&str> = outcome.stdout.lines().map(str::trim_end).collect();
        for value in expected {
            let (value, is_expected) = value.strip_prefix('!').map_or((*value, true), |value| (value, false));
            assert_eq!(
                candidates.contains(&value),
                is_expected,
                "{shell}: {value} for {words:?}:\n{outcome}"
            );
        }
    }
}

/// Words as a shell reads them.
fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

#[test]
fn bash_completes() {
    ask("bash", &["bash", "--norc", "-c"], |words| {
        let last = words.len() - 1;
        format!(
            "{}\ncomplete -p hostgw >/dev/null || exit\nCOMP_WORDS=({}) COMP_CWORD={last} COMP_TYPE=9\n\
             _clap_complete_hostgw hostgw '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            loading("bash"),
            quoted(words),
            words[last],
            words[last - 1]
        )
    });
}

#[test]
fn fish_completes() {
    ask("fish", &["fish", "--no-config", "-c"], |words| {
        format!("{}\ncomplete -C '{}' | string replace -r '\\t.*' ''", loading("fish"), words.join(" "))
    });
}

#[test]
fn zsh_completes() {
    // Outside of its editor zsh has no list of candidates: the function that would fill it prints them.
    ask("zsh", &["zsh", "-f", "-c"], |words| {
        format!(
            "autoload -U compinit; compinit -D -u\n{}\n_describe() {{ local name=$4; [[ $3 == values ]] || name=$3\n\
             for each in ${{(P)name}}; do print -r -- ${{${{each%%:*}}//\\\\/}}; done }}\n\
             (( $+_comps[hostgw] )) || exit\nwords=({}) CURRENT={}\n_clap_dynamic_completer_hostgw",
            loading("zsh"),
            quoted(words),
            words.len()
        )
    });
}

#[test]
fn powershell_completes() {
    ask("PowerShell", &["pwsh", "-NoProfile", "-NonInteractive", "-Command"], |words| {
        let line = words.join(" ");
        format!(
            "{}; [System.Management.Automation.CommandCompletion]::CompleteInput('{line}', {}, $null)\
             .CompletionMatches.CompletionText",
            loading("PowerShell"),
            line.len()
        )
    });
}

/// The editor of elvish, which completes, is there on a terminal only: this is what its script runs.
#[test]
fn elvish_is_answered() {
    let node = repository();
    let script = node.hostgw_ok(&["completions", "elvish"]).stdout;
    assert!(script.contains("HOSTGW_COMPLETE=\"elvish\" hostgw -- $@words"), "{script}");
    for (words, expected) in CASES {
        let mut command = node.hostgw_command(&["--"]);
        command.args(words).env("HOSTGW_COMPLETE", "elvish").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string()).env("HOME", node.folder());
        let outcome = Outcome::of(&node, &words.join(" "), &mut command).expect(0);
        for value in expected {
            let (value, is_expected) = value.strip_prefix('!').map_or((*value, true), |value| (value, false));
            let is_there = outcome.stdout.lines().any(|line| line == value);
            assert_eq!(is_there, is_expected, "{value} for {words:?}:\n{outcome}");
        }
    }
}
