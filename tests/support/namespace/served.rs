//! A hostgw that forks for every command: see `tests/support/server.rs`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
};

use serde_json::{Map, Value, json};

/// A child process that lives as long as the pipe to it.
pub struct Served {
    child: Child,
    pipes: Option<Pipes>,
    /// The folder for the output of a command.
    exchange: PathBuf,
}

struct Pipes {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Served {
    /// Starts `command`, which ends with the path of the server. `exchange` exists as long as this.
    pub fn start(mut command: Command, exchange: &Path) -> Self {
        command.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, pipes: Some(Pipes { requests, answers }), exchange: exchange.to_owned() }
    }

    /// Runs hostgw in a folder, with namespaces. Returns its output and process ID.
    pub fn run(
        &mut self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        folder: &Path,
        namespaces: &[String],
    ) -> (Output, u32) {
        self.run_in(arguments, variables, folder, namespaces, false)
    }

    /// Runs hostgw in the process that otherwise forks.
    pub fn run_here(&mut self, arguments: &[&str], folder: &Path) -> Output {
        self.run_in(arguments, &[], folder, &[], true).0
    }

    fn run_in(
        &mut self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        folder: &Path,
        namespaces: &[String],
        is_here: bool,
    ) -> (Output, u32) {
        let Pipes { requests, answers } = self.pipes.as_mut().expect("it runs until it is dropped");
        let name = |stream| format!("{stream}-{}", self.child.id());
        let [stdout, stderr] = ["stdout", "stderr"].map(|stream| self.exchange.join(name(stream)));
        let variables: Map<String, Value> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let request = json!([arguments, variables, folder, stdout, stderr, namespaces, is_here]);
        requests.write_all(format!("{request}\n").as_bytes()).expect("a server that reads");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("text");
        let (status, process) =
            answer.trim_end().split_once(' ').unwrap_or_else(|| panic!("no answer to {request}"));
        // Programs in the background may still write, so the next command has other files.
        let take = |path| {
            let bytes = fs::read(path).unwrap_or_default();
            let _ = fs::remove_file(path);
            bytes
        };
        let output = Output {
            status: ExitStatus::from_raw(status.parse().expect("a status")),
            stdout: take(&stdout),
            stderr: take(&stderr),
        };
        (output, process.parse().expect("a process ID"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.pipes.take();
        let _ = self.child.wait();
    }
}
