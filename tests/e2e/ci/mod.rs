//! The jobs of `examples/ci` review changes in local repositories: what they post, and that they update the comment of
//! an earlier run.

mod import;
mod jobs;

use serde_json::{Value, json};

use self::jobs::Project;
use super::{NODE_1, cluster, simulate::small};
use crate::support::{
    ci::{hooks, text},
    namespace::{Namespace, Outcome, each},
};

/// A branch name that git accepts and a careless script executes.
const HOSTILE: &str = "x';touch${IFS}pwned1;'\"$(touch${IFS}pwned2)`touch${IFS}pwned3`\"&&{touch,pwned4}|$0";

/// The hidden marker that `hostgw diff --markdown` prints.
const MARKER: &str = "<!-- hostgw:diff hostgw.yaml -->\n";

/// A cluster in which node linux-2 has this pod CIDR.
fn with(pod_cidr: &str) -> String {
    cluster("", &[NODE_1, ("linux-2", pod_cidr, "172.30.0.12")])
}

fn body(comment: &Value) -> &str {
    comment["body"].as_str().unwrap()
}

#[test]
fn the_github_comment_is_updated() {
    let _turn = small();
    each(|privilege| {
        let project = Project::new(privilege, HOSTILE, &with("10.244.1.0/24"));
        let foreign = json!([{ "id": 1, "user": { "login": "somebody" }, "body": MARKER }]);
        project.node.write("comments.json", &foreign.to_string());

        project.push(&with("10.244.7.0/24"));
        project.github(false).expect(0);
        let comments = project.comments();
        assert_eq!(comments.len(), 2, "{comments:?}");
        assert_eq!(body(&comments[0]), MARKER, "a foreign comment was edited");
        let first = body(&comments[1]);
        assert!(first.starts_with(MARKER), "{first}");
        assert!(
            first.contains("\n- 10.244.1.0/24 via 10.244.1.1") && first.contains("\n+ 10.244.7.0/24"),
            "{first}"
        );
        assert!(first.ends_with("\n#### Simulated\n\n    10 of 10 connections work\n"), "{first}");
        assert!(!first.contains("rp_filter"), "a change of the other branch:\n{first}");
        assert_eq!(project.file("summary"), first);

        project.push(&with("10.244.8.0/24"));
        project.github(false).expect(0);
        let comments = project.comments();
        assert_eq!((comments.len(), &comments[1]["id"]), (2, &json!(2)), "{comments:?}");
        assert!(body(&comments[1]).contains("\n+ 10.244.8.0/24"), "{comments:?}");
        assert!(!body(&comments[1]).contains("10.244.7.0/24"), "{comments:?}");

        project.push(&with("10.244.0.0/24"));
        project.github(false).expect(11).says("pod CIDR 10.244.0.0/24 of node linux-2 overlaps");
        let comments = project.comments();
        assert_eq!(comments.len(), 2, "{comments:?}");
        let last = body(&comments[1]);
        assert!(last.starts_with(&format!("{MARKER}### hostgw: the configuration is invalid\n")), "{last}");
        assert!(last.contains("\n      --> hostgw.yaml:") && !last.contains("10.244.8.0/24"), "{last}");
        assert_eq!(project.file("summary"), last);

        let calls = project.file("calls");
        let install =
            "cargo install --locked --root TEMP/hostgw --git https://git.example/hostgw --rev 0123abc hostgw";
        let temp = format!("{}/temp", project.node.folder().display());
        assert!(calls.contains(&install.replace("TEMP", &temp)), "{calls}");
        project.assert_nothing_injected();
    });
}

#[test]
fn a_fork_gets_only_the_run_summary() {
    let _turn = small();
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.push(&with("10.244.7.0/24"));
        project.github(true).expect(0);
        assert!(project.file("summary").starts_with(MARKER));
        assert!(!project.file("calls").contains("gh "), "{}", project.file("calls"));
    });
}

#[test]
fn the_gitlab_note_is_updated() {
    let _turn = small();
    each(|privilege| {
        let project = Project::new(privilege, HOSTILE, &with("10.244.1.0/24"));
        let foreign: Vec<Value> =
            (1..=100).map(|id| json!({ "id": id, "author": { "id": 5 }, "body": MARKER })).collect();
        project.node.write("comments.json", &Value::from(foreign).to_string());
        let token = [("HOSTGW_TOKEN", "the-token")];

        project.push(&with("10.244.7.0/24"));
        project.gitlab(&token).expect(0);
        let notes = project.comments();
        assert_eq!(notes.len(), 101);
        let first = body(&notes[100]);
        assert!(first.starts_with(MARKER) && first.contains("\n- 10.244.1.0/24 via 10.244.1.1"), "{first}");
        assert!(first.ends_with("\n#### Simulated\n\n    10 of 10 connections work\n"), "{first}");
        assert!(!first.contains("rp_filter"), "a change of the other branch:\n{first}");
        assert_eq!(project.file("work/hostgw-comment.md"), first);

        project.push(&with("10.244.0.0/24"));
        project.gitlab(&token).expect(11);
        let notes = project.comments();
        assert_eq!((notes.len(), &notes[100]["id"]), (101, &json!(101)), "edited");
        assert!(notes[..100].iter().all(|note| body(note) == MARKER), "a foreign note was edited");
        assert!(body(&notes[100]).contains("pod CIDR 10.244.0.0/24 of node linux-2 overlaps"));

        project.push(&with("10.244.7.0/24"));
        let calls = project.file("calls").lines().count();
        project.gitlab(&[("HOSTGW_SIMULATE", "no")]).expect(0);
        let artifact = project.file("work/hostgw-comment.md");
        assert!(artifact.starts_with(MARKER) && artifact.ends_with("\n_Not simulated._\n"), "{artifact}");
        let calls: Vec<String> = project.file("calls").lines().skip(calls).map(ToOwned::to_owned).collect();
        assert!(!calls.iter().any(|call| call.starts_with("curl")), "posted without a token: {calls:?}");
        project.assert_nothing_injected();
    });
}

/// Placeholders that must be filled in are reported, not guessed.
#[test]
fn jobs_name_missing_settings() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.gitlab(&[("HOSTGW_REV", "")]).expect(1).warns("HOSTGW_REV: must be set");
    });
}

#[test]
fn a_truncated_comment_links_to_the_full_report() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.node.sh("mkdir work; cp -r origin/ci work/ci");
        let long = format!("{MARKER}{}", "- removal\n".repeat(6_600));
        project.node.write("work/comment.md", &long);
        let environment = [
            ("GH_TOKEN", "the-token"),
            ("PULL_REQUEST", "7"),
            ("GITHUB_REPOSITORY", "org/net"),
            ("GITHUB_SERVER_URL", "https://github.example"),
            ("GITHUB_RUN_ID", "11"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        project.run(&environment, "ci/github-comment.sh comment.md").expect(0);
        let comments = project.comments();
        let short = body(&comments[0]);
        assert!(short.starts_with(MARKER) && short.len() < 1_000, "{short}");
        assert!(short.contains("(https://github.example/org/net/actions/runs/11)"), "{short}");
    });
}

/// Reports failures first, with the exit code of the first one, followed by whatever could be determined nevertheless.
#[test]
fn a_review_reports_every_failed_step() {
    let _turn = small();
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.push(&with("10.244.7.0/24\n    gateway: 10.244.7.9"));
        project.check_out();
        let review = |target: &str, code: i32| {
            let script = "ln -sf \"$HOSTGW\" ../bin/hostgw; ci/review.sh \"$TARGET\" hostgw.yaml comment.md";
            let outcome = project.run(&[("TARGET".to_owned(), target.to_owned())], script).expect(code);
            (outcome, project.file("work/comment.md"))
        };
        let (outcome, comment) = review("origin/main", 13);
        outcome.says("connections work");
        let title = "### hostgw: the simulated cluster does not work\n\n    ✗ pod of linux-1";
        assert!(comment.starts_with(&format!("{MARKER}{title}")), "{comment}");
        assert!(
            comment.contains("linux-1 sends to 10.244.7.9") && comment.contains("\n- 10.244.1.0/24"),
            "{comment}"
        );
        for target in ["origin/nowhere", "--output=pwned"] {
            let (_, comment) = review(target, 12);
            let title = "### hostgw: the change cannot be compared\n\n    error: ";
            assert!(comment.starts_with(&format!("{MARKER}{title}")), "{comment}");
            assert!(comment.contains("### hostgw: the simulated cluster does not work"), "{comment}");
        }
        project.run(&[], "ci/review.sh main hostgw.yaml").expect(64).warns("usage: review.sh");
        project.assert_nothing_injected();
    });
}

/// Whatever a file contains and is called, the comment quotes it and nothing is executed.
#[test]
fn a_review_executes_nothing_from_a_file() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        let mistakes = "  - {name: '```', os: solaris, podCIDR: '</details> @org [x](y) $(touch pwned)'}\n";
        project.push(&format!("{}{}", with("10.244.1.0/24"), mistakes.repeat(60)));
        let file = "-`touch pwned`$(touch pwned) --><b>.yaml";
        project.change(&format!("mv -- hostgw.yaml '{file}'"));
        project.check_out();
        let script = "ln -sf \"$HOSTGW\" ../bin/hostgw; ln -s /dev/full comment.md
            ci/review.sh origin/main \"$FILE\" comment.md";
        project.run(&[("FILE".to_owned(), file.to_owned())], script).expect(11);
        let comment = project.file("work/comment.md");
        let mut lines = comment.lines();
        let marker = "<!-- hostgw:diff -_touch pwned_$(touch pwned) --__b_.yaml -->";
        assert_eq!(lines.next(), Some(marker));
        assert_eq!(lines.next(), Some("### hostgw: the configuration is invalid"));
        assert!(lines.clone().all(|line| line.is_empty() || line.starts_with("    ")), "{comment}");
        assert!(comment.contains("solaris") && comment.chars().count() < 4_500, "{comment}");
        assert!(comment.ends_with("\n    … see the log of the job for the rest\n\n"), "{comment}");
        project.assert_nothing_injected();
    });
}

/// Reviews these files of `topic`, with a secret in the environment. Returns the outcome and the comment.
fn review(project: &Project, files: &[&str], code: i32) -> (Outcome, String) {
    project.check_out();
    let environment: Vec<(String, String)> = [
        ("SECRET", "hunter2"),
        ("GITHUB_ACTIONS", "true"),
        ("HOSTGW_FILE", "elsewhere.yaml"),
        ("HOSTGW_NODE", "nobody"),
        ("HOSTGW_SIMULATE", "no"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let files: Vec<String> = files.iter().map(|file| format!("'{}'", file.replace('\'', "'\\''"))).collect();
    let script = format!(
        "ln -sf \"$HOSTGW\" ../bin/hostgw; ci/review.sh origin/main {} ../comment.md",
        files.join(" ")
    );
    let outcome = project.run(&environment, &script).expect(code);
    let comment = project.file("comment.md");
    let folder = project.node.folder().display().to_string();
    for secret in ["hunter2", "root:x:0:0", "-----BEGIN", &folder] {
        assert!(!comment.contains(secret), "{secret}:\n{comment}");
    }
    for secret in ["hunter2", "root:x:0:0"] {
        assert!(!outcome.to_string().contains(secret), "{secret}: {outcome}");
    }
    project.assert_nothing_injected();
    (outcome, comment)
}

/// The review neither reads nor reveals the target of a link.
#[test]
fn a_review_follows_no_links() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        for target in
            ["/proc/self/environ", "/etc/passwd", "/dev/zero", "ci/review.sh", "../../state", "nowhere"]
        {
            project.change(&format!("rm -rf hostgw.yaml; ln -s {target} hostgw.yaml"));
            let (_, comment) = review(&project, &["hostgw.yaml"], 11);
            let expected = "### hostgw: the configuration is invalid\n\n    hostgw.yaml is a symbolic link; \
                a configuration must be a file in the repository\n\n";
            assert_eq!(comment, format!("{MARKER}{expected}"), "{target}");
        }
        // A linked folder in the path, a submodule, and a folder in place of the file.
        project.change("rm hostgw.yaml; ln -s /etc envs");
        let (_, comment) = review(&project, &["envs/passwd"], 12);
        assert!(comment.contains("HEAD:envs is a symbolic link, not a directory"), "{comment}");
        project.change("rm envs; git init -q hostgw.yaml; git -C hostgw.yaml commit -q --allow-empty -m s");
        let (_, comment) = review(&project, &["hostgw.yaml"], 11);
        assert!(comment.ends_with("    hostgw.yaml is not a file\n\n"), "{comment}");
        project.change(
            "git rm -qf --cached hostgw.yaml; rm -rf hostgw.yaml; mkdir hostgw.yaml; touch hostgw.yaml/x",
        );
        let (_, comment) = review(&project, &["hostgw.yaml"], 11);
        assert!(comment.ends_with("    hostgw.yaml is not a file\n\n"), "{comment}");
    });
}

/// The review uses the committed files, whatever earlier steps did to the working tree.
#[test]
fn a_review_reads_the_committed_files() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.push(&with("10.244.7.0/24"));
        project.check_out();
        let script = "ln -sf \"$HOSTGW\" ../bin/hostgw; ln -sf /proc/self/environ hostgw.yaml
            SECRET=hunter2 HOSTGW_SIMULATE=no ci/review.sh origin/main hostgw.yaml ../comment.md";
        let outcome = project.run(&[], script).expect(0);
        let comment = project.file("comment.md");
        assert!(comment.contains("\n+ 10.244.7.0/24"), "{comment}");
        assert!(!format!("{comment}{}{}", outcome.stdout, outcome.stderr).contains("hunter2"), "{outcome}");
        let elsewhere =
            "cd ci; ln -sf \"$HOSTGW\" ../../bin/hostgw; ./review.sh origin/main hostgw.yaml x.md";
        project.run(&[], elsewhere).expect(64).warns("usage: review.sh");
        for outside in ["../hostgw.yaml", "/etc/passwd", "a//b", "a/../../b"] {
            let script = format!("ci/review.sh origin/main {outside} x.md");
            project.run(&[], &script).expect(64).warns("usage: review.sh");
        }
    });
}

/// The file can be named by its new and by its old name.
#[test]
fn a_renamed_file_is_reviewed_as_a_rename() {
    each(|privilege| {
        let project = Project::new(privilege, "main", "");
        let name = |at: usize| format!("linux-{at}");
        let nodes: Vec<(String, String, String)> = (0..10)
            .map(|at| (name(at), format!("10.244.{at}.0/24"), format!("172.30.0.{}", at + 10)))
            .collect();
        let nodes: Vec<(&str, &str, &str)> =
            nodes.iter().map(|(name, cidr, address)| (&name[..], &cidr[..], &address[..])).collect();
        project.node.write("old.yaml", &cluster("", &nodes));
        let mut changed = nodes.clone();
        changed.swap(8, 9);
        changed[9].1 = "10.244.77.0/24";
        project.node.write("new.yaml", &cluster("", &changed[..9]));
        project.rebase("cp ../old.yaml hostgw.yaml");
        project
            .change("mkdir sites; git mv hostgw.yaml \"sites/a b.yaml\"; cp ../new.yaml \"sites/a b.yaml\"");
        for file in ["sites/a b.yaml", "hostgw.yaml"] {
            let (_, comment) = review(&project, &[file], 0);
            assert!(comment.starts_with(&format!("<!-- hostgw:diff {file} -->\n")), "{comment}");
            assert!(comment.contains("\n`hostgw.yaml` was renamed to `sites/a b.yaml`.\n"), "{comment}");
            assert!(comment.contains("0 to add") && comment.contains("node linux-8"), "{comment}");
        }
    });
}

#[test]
fn the_review_of_a_deleted_file_lists_what_every_node_loses() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.change("rm hostgw.yaml");
        let (_, comment) = review(&project, &["hostgw.yaml"], 0);
        assert!(comment.starts_with(MARKER), "{comment}");
        assert!(comment.contains("run `hostgw destroy` on each node"), "{comment}");
        assert!(comment.contains("\n- node linux-1  # 2 routes, 3 NAT objects, 1 sysctl;"), "{comment}");
        assert!(comment.contains("\n- node linux-2  #"), "{comment}");
        let (_, comment) = review(&project, &["nowhere.yaml"], 12);
        assert!(comment.contains("nowhere.yaml is not in HEAD"), "{comment}");
    });
}

#[test]
fn a_change_that_fixes_the_file_passes() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.rebase("printf 'nodes: 1\n' >hostgw.yaml");
        project.push(&with("10.244.7.0/24"));
        let (_, comment) = review(&project, &["hostgw.yaml"], 0);
        assert!(comment.starts_with(MARKER), "{comment}");
        assert!(
            comment.contains(":hostgw.yaml` is invalid (")
                && comment.contains("comparing with an empty configuration."),
            "{comment}"
        );
        assert!(comment.contains("\n+ 10.244.7.0/24"), "{comment}");
        // A change that breaks the file differently fails, with its own errors.
        project.push("nodes: 2\n");
        let (_, comment) = review(&project, &["hostgw.yaml"], 11);
        assert!(comment.contains("nodes: 2") && !comment.contains("nodes: 1"), "{comment}");
    });
}

/// There is one comment, most severe results first, whatever the files are called.
#[test]
fn several_files_share_a_comment() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        let names = [
            "a b.yaml",
            "-n.yaml",
            "$(touch pwned1).yaml",
            "it's `touch pwned2`\".yaml",
            "x\n::error::@org\n# y.yaml",
        ];
        let quoted = |name: &str| format!("'./{}'", name.replace('\'', "'\\''"));
        let copies: String = names.iter().map(|name| format!("cp hostgw.yaml {}\n", quoted(name))).collect();
        project.rebase(&copies);
        let changes: String = names[1..]
            .iter()
            .map(|name| format!("sed -i s/10.244.1.0/10.244.7.0/ {}\n", quoted(name)))
            .collect();
        project.change(&changes);
        project.change(&format!("echo 'extra: ::set-output name=x::y' >>{}", quoted(names[4])));
        let (outcome, comment) = review(&project, &names, 11);
        let headings: Vec<&str> = comment.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(
            headings,
            [
                "## `x_::error::_org_# y.yaml`",
                "## `a b.yaml`",
                "## `-n.yaml`",
                "## `$(touch pwned1).yaml`",
                "## `it_s _touch pwned2__.yaml`",
            ]
        );
        assert!(comment.starts_with("<!-- hostgw:review a b.yaml -n.yaml "), "{comment}");
        assert!(comment.contains("\n## `a b.yaml`\n\n_Not changed._\n"), "{comment}");
        assert_eq!(comment.matches("\n+ 10.244.7.0/24").count(), 3, "{comment}");
        assert!(comment.contains("unknown key"), "{comment}");
        // Code blocks do not mention users.
        let mut lines = comment.lines().filter(|line| line.contains('@'));
        assert!(lines.all(|line| line.starts_with("    ")), "{comment}");
        // The runner executes only the annotations: commands are disabled everywhere else.
        let log: Vec<&str> = outcome.stdout.lines().collect();
        let token = log[0].strip_prefix("::stop-commands::").expect("switched off first");
        assert!(token.len() == 32, "{token}");
        assert_eq!(log.last(), Some(&&format!("::{token}::")[..]));
        let (mut enabled, mut annotations) = (false, Vec::new());
        for line in &log {
            if line.contains(token) {
                enabled = *line == format!("::{token}::");
            } else if enabled {
                annotations.push(*line);
            } else {
                assert!(!line.trim_start().starts_with("::error"), "{line:?} in {outcome}");
            }
        }
        assert_eq!(annotations.len(), 1, "{annotations:#?}");
        let place = "::error file=x\\n%3A%3Aerror%3A%3A@org\\n# y.yaml,line=";
        assert!(annotations[0].starts_with(place), "{annotations:#?}");
        assert!(annotations[0].contains(",title=HG0003::unknown key \"extra\""), "{annotations:#?}");
    });
}

/// The comment fits the limit, however many large files change.
#[test]
fn a_comment_about_many_large_files_fits() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        let many = |second: usize| -> String {
            let nodes: String = (0..600)
                .map(|at| {
                    format!(
                        "  - {{name: node-of-the-{at}, os: linux, podCIDR: 10.{second}.{}.{}/26}}\n",
                        at / 4,
                        at % 4 * 64
                    )
                })
                .collect();
            format!("clusterPrefix: 10.{second}.0.0/16\negressInterface: eth0\nnodes:\n{nodes}")
        };
        project.node.write("old", &many(1));
        project.node.write("new", &many(2));
        project.rebase("for i in 1 2 3; do cp ../old $i.yaml; done");
        project.change("for i in 1 2 3; do cp ../new $i.yaml; done");
        let (_, comment) = review(&project, &["1.yaml", "2.yaml", "3.yaml"], 0);
        assert!(comment.len() < 65_000, "{} bytes", comment.len());
        assert_eq!(comment.matches("\n## `").count(), 3);
        assert_eq!(comment.matches("### hostgw diff").count(), 3);
    });
}

/// Runs the entry of the hook as pre-commit does, with the files that match its pattern.
#[test]
fn the_hook_of_pre_commit_validates_what_is_committed() {
    each(|privilege| {
        let node = Namespace::new(privilege);
        let hook = &hooks()[0];
        node.sh("mkdir envs bin; ln -s \"$HOSTGW\" bin/hostgw");
        node.write("hostgw.yaml", &with("10.244.1.0/24"));
        node.write("envs/hostgw.yml", &with("10.244.0.0/24"));
        node.write("README.yaml", "no: configuration\n");
        let (entry, pattern) = (hook["entry"].as_str().unwrap(), hook["files"].as_str().unwrap());
        let run = |files: &str| {
            let script = format!("PATH=$PWD/bin:$PATH; {files} | grep -E '{pattern}' | xargs {entry}");
            node.try_sh(&script)
        };
        run("ls *.yaml").expect(0).says("hostgw.yaml is valid: 2 nodes");
        let outcome = run("printf '%s\\n' hostgw.yaml envs/hostgw.yml not-hostgw.yaml hostgw.yaml.md");
        outcome.expect(123).warns("--> envs/hostgw.yml:").warns("is invalid: 1 error");
        assert_eq!(text("pre-commit-config.yaml").matches("hostgw-validate").count(), 1);
    });
}
