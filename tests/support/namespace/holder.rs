//! A shell that runs scripts in a namespace. Starting programs is what the suite spends most of its time with: one shell
//! saves the programs that would enter the namespace for every script, and another shell.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, PoisonError},
};

use super::{new_folder, programs};

/// Removes the folders in its arguments at the end, if they still exist. Each line is a request to run the script in the first one.
///
/// Signals to the terminal's process group only concern the test, which ends this process when it ends. The shell
/// mentions killed programs on its own standard error.
const HOLD: &str = r#"
trap '' INT HUP
exec 2>/dev/null
echo ready
while read -r _; do
    (trap - INT HUP; . "$1/script") </dev/null >"$1/stdout" 2>"$1/stderr"
    echo $?
done
cd /
for folder; do
    [ ! -e "$folder" ] || rm -rf "$folder"
done
"#;

/// A child process that lives as long as the pipe to it.
pub struct Holder {
    child: Child,
    pipes: Mutex<Option<Pipes>>,
    /// The script that it runs, and the output.
    exchange: PathBuf,
    /// What it removes at the end, unless this process has done so.
    folders: Vec<PathBuf>,
}

struct Pipes {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts `command` with a shell as its last arguments, and waits until it is ready. It removes `folders` at the end.
    pub fn start(mut command: Command, folders: &[&Path]) -> Self {
        let exchange = new_folder();
        let folders = [&[&*exchange], folders].concat();
        let mut child = command
            .args(["sh", "-c", HOLD, "hold"])
            .args(&folders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let requests = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        answers.read_line(&mut ready).expect("text");
        if ready != "ready\n" {
            let mut why = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut why).expect("text");
            for folder in folders {
                let _ = fs::remove_dir_all(folder);
            }
            panic!("{}", programs::no_namespaces(&why));
        }
        let folders = folders.into_iter().map(Path::to_owned).collect();
        Self { child, pipes: Mutex::new(Some(Pipes { requests, answers })), exchange, folders }
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs a script in a subshell. Returns `None` if it is running another one.
    pub fn run(&self, script: &str) -> Option<Output> {
        let mut pipes = self.pipes.try_lock().ok()?;
        let Pipes { requests, answers } = pipes.as_mut().expect("it runs until it is dropped");
        fs::write(self.exchange.join("script"), script).expect("our folder");
        requests.write_all(b"\n").expect("a shell that reads");
        let mut code = String::new();
        answers.read_line(&mut code).expect("text");
        let code: i32 = code.trim_end().parse().unwrap_or_else(|_| panic!("the shell ended: {script}"));
        // Programs in the background may still write, so the next script has other files.
        let take = |name| {
            let path = self.exchange.join(name);
            let bytes = fs::read(&path).expect("the output");
            fs::remove_file(&path).expect("our folder");
            bytes
        };
        Some(Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: take("stdout"),
            stderr: take("stderr"),
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
        }
        self.pipes.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.child.wait();
    }
}

/// A word of a script.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
