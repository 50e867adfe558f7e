//! The jobs of `examples/ci`, run as their services run them. Everything that would leave the machine is replaced:
//! `programs/` contains substitutes for cargo, apt-get, sudo, and the commands that talk to the service.

use std::fs;

use serde_json::Value;

use crate::support::{
    ci::{example, text},
    namespace::{Namespace, Outcome, Privilege},
};

/// The scripts that a user copies to `ci/`.
const SCRIPTS: [&str; 5] =
    ["review.sh", "github-comment.sh", "gitlab-comment.sh", "import.sh", "github-pull-request.sh"];

/// The substitutes, and the programs that they replace.
const PROGRAMS: [(&str, &str); 6] = [
    ("apt-get", include_str!("programs/note")),
    ("sudo", include_str!("programs/note")),
    ("cargo", include_str!("programs/cargo")),
    ("curl", include_str!("programs/curl")),
    ("gh", include_str!("programs/gh")),
    ("kubectl", include_str!("programs/kubectl")),
];

/// A repository at a service, with the branches `base` and `topic`, and the checkout of a job.
pub struct Project {
    pub node: Namespace,
    base: String,
}

impl Project {
    /// Creates a repository whose `base` has this configuration. `base` advances after `topic` branched off.
    pub fn new(privilege: Privilege, base: &str, configuration: &str) -> Self {
        let project = Self { node: Namespace::new(privilege), base: base.to_owned() };
        project.node.sh("mkdir bin temp; echo [] >comments.json; touch calls");
        for (name, program) in PROGRAMS {
            project.node.write(&format!("bin/{name}"), program);
        }
        project.git("git init -q -b \"$BASE\" origin; mkdir origin/ci");
        for name in SCRIPTS {
            project.node.write(&format!("origin/ci/{name}"), &text(name));
        }
        project.node.write("origin/hostgw.yaml", configuration);
        project.git(
            "chmod +x bin/* origin/ci/*; cd origin; git add .; git commit -qm 'Describe the cluster'
             git branch topic; printf 'sysctls: {net.ipv4.conf.all.rp_filter: 2}\n' >>hostgw.yaml
             git commit -qam 'Filter'; git checkout -q topic",
        );
        project
    }

    /// Commits another configuration to `topic`.
    pub fn push(&self, configuration: &str) {
        self.node.write("origin/hostgw.yaml", configuration);
        self.git("cd origin; git commit -qam 'Change the cluster'");
    }

    /// Commits the changes of a script to `topic`.
    pub fn change(&self, script: &str) {
        self.git(&format!("cd origin; {script}\ngit add -A; git commit -qm Change"));
    }

    /// Same for `base`, from which `topic` then branches off again.
    pub fn rebase(&self, script: &str) {
        self.git(&format!(
            "cd origin; git checkout -q \"$BASE\"; {script}\ngit add -A; git commit -qm Base
             git branch -f topic; git checkout -q topic"
        ));
    }

    fn git(&self, script: &str) {
        let prelude = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=o GIT_AUTHOR_EMAIL=o
            export GIT_COMMITTER_NAME=o GIT_COMMITTER_EMAIL=o";
        let mut command = self.node.command("env");
        command.arg(format!("BASE={}", self.base)).args(["sh", "-ec", &format!("{prelude}\n{script}")]);
        Outcome::of(&self.node, script, &mut command).expect(0);
    }

    /// Clones `topic` to `work`.
    pub fn check_out(&self) {
        self.git("rm -rf work; git clone -q -b topic origin work");
    }

    /// Runs a script of a job in its checkout.
    pub fn run(&self, environment: &[(String, String)], script: &str) -> Outcome {
        let script = format!("PATH=$PWD/../bin:$PATH\n{script}");
        let mut command = self.node.command("env");
        command.args(["-C", "work"]).args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", &script]);
        Outcome::of(&self.node, &script, &mut command)
    }

    /// Runs the GitHub workflow. Returns the outcome of the first step that fails, or else of the last one.
    pub fn github(&self, from_fork: bool) -> Outcome {
        self.git(
            "rm -rf work; git clone -q origin work; cd work; git checkout -q --detach \"origin/$BASE\"
             git merge -q --no-ff -m Merge origin/topic; rm -f ../path ../summary ../temp/*.md; touch ../path",
        );
        let workflow = example("github-actions.yml");
        let mut first_failure = None;
        let mut last = None;
        for step in workflow["jobs"]["review"]["steps"].as_array().unwrap() {
            let Some(script) = step["run"].as_str() else { continue };
            let runs = match step["if"].as_str() {
                None => first_failure.is_none(),
                Some("${{ !cancelled() && steps.review.outcome != 'skipped' }}") => true,
                Some(
                    "${{ !cancelled() && steps.review.outcome != 'skipped' && \
                    github.event.pull_request.head.repo.full_name == github.repository }}",
                ) => !from_fork,
                Some(other) => panic!("when is {other:?}?"),
            };
            if !runs {
                continue;
            }
            let mut environment = self.environment(&workflow["env"]);
            environment.extend(self.environment(&step["env"]));
            let folder = self.node.folder().display();
            environment.extend(
                [
                    ("GITHUB_PATH", format!("{folder}/path")),
                    ("GITHUB_STEP_SUMMARY", format!("{folder}/summary")),
                    ("RUNNER_TEMP", format!("{folder}/temp")),
                    ("GITHUB_REPOSITORY", "org/net".to_owned()),
                    ("GITHUB_SERVER_URL", "https://github.example".to_owned()),
                    ("GITHUB_RUN_ID", "11".to_owned()),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
            let path = self.file("path").replace('\n', ":");
            let outcome = self.run(&environment, &format!("PATH={path}$PATH\n{script}"));
            if outcome.code != 0 && first_failure.is_none() {
                first_failure = Some(outcome.clone());
            }
            last = Some(outcome);
        }
        first_failure.or(last).unwrap()
    }

    /// Runs the scheduled GitHub workflow on `base`. Returns the outcome of the first step that fails, or else of the last one.
    pub fn scheduled(&self) -> Outcome {
        self.git("rm -rf work; git clone -q -b \"$BASE\" origin work; rm -f path temp/*.md; touch path");
        let workflow = example("github-import.yml");
        let folder = self.node.folder().display().to_string();
        let mut last = None;
        for step in workflow["jobs"]["import"]["steps"].as_array().unwrap() {
            let Some(script) = step["run"].as_str() else { continue };
            assert!(step["if"].is_null(), "when is {:?}?", step["if"]);
            let mut environment = self.environment(&workflow["env"]);
            environment.extend(self.environment(&step["env"]));
            environment.extend(
                [
                    ("GITHUB_PATH", format!("{folder}/path")),
                    ("GITHUB_REF_NAME", self.base.clone()),
                    ("RUNNER_TEMP", format!("{folder}/temp")),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
            let path = self.file("path").replace('\n', ":");
            let outcome = self.run(&environment, &format!("PATH={path}$PATH\n{script}"));
            if outcome.code != 0 {
                return outcome;
            }
            last = Some(outcome);
        }
        last.unwrap()
    }

    /// Runs the GitLab job with additional variables from the project settings.
    pub fn gitlab(&self, settings: &[(&str, &str)]) -> Outcome {
        self.check_out();
        let job = &example("gitlab-ci.yml")["hostgw"];
        let mut environment = self.environment(&job["variables"]);
        let predefined = [
            ("CI_API_V4_URL", "https://gitlab.example/api/v4"),
            ("CI_MERGE_REQUEST_PROJECT_ID", "3"),
            ("CI_MERGE_REQUEST_IID", "7"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", &self.base),
        ];
        let all = predefined.iter().chain(settings);
        environment.extend(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let lines = ["before_script", "script"].map(|part| job[part].as_array().unwrap().iter());
        let lines: Vec<&str> = lines.into_iter().flatten().map(|line| line.as_str().unwrap()).collect();
        self.run(&environment, &lines.join("\n"))
    }

    /// The variables of a job, with its placeholders filled in.
    fn environment(&self, variables: &Value) -> Vec<(String, String)> {
        let value = |name: &str, text: &str| match (name, text) {
            ("HOSTGW_REPOSITORY", "") => "https://git.example/hostgw".to_owned(),
            ("HOSTGW_REV", "") => "0123abc".to_owned(),
            (_, "${{ github.base_ref }}") => self.base.clone(),
            (_, "${{ github.token }}") => "the-token".to_owned(),
            (_, "${{ secrets.KUBECONFIG }}") => "the-kubeconfig".to_owned(),
            (_, "${{ github.event.pull_request.number }}") => "7".to_owned(),
            (_, text) => {
                assert!(!text.contains("${{"), "what is {text:?}?");
                text.to_owned()
            }
        };
        let variables = variables.as_object().into_iter().flatten();
        variables.map(|(name, text)| (name.clone(), value(name, text.as_str().unwrap()))).collect()
    }

    /// The content of a file that a job left; empty if it does not exist.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.node.folder().join(name)).unwrap_or_default()
    }

    /// The pull requests.
    pub fn pulls(&self) -> Vec<Value> {
        serde_json::from_str(&self.file("pulls.json")).unwrap()
    }

    /// The comments on the change.
    pub fn comments(&self) -> Vec<Value> {
        serde_json::from_str(&self.file("comments.json")).unwrap()
    }

    /// Asserts that no name in the change was executed as a command.
    pub fn assert_nothing_injected(&self) {
        assert_eq!(self.node.sh("find . -name 'pwned*'"), "");
    }
}
