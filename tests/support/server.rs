//! hostgw for tests that run it many times: a process that forks for every command, because starting a program takes
//! longer than most commands. Only commands that `Served` sends are run like that; with other arguments, this is hostgw.

#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    #[cfg(target_os = "linux")]
    if arguments.get(1).is_some_and(|argument| argument == "--serve") {
        return match linux::serve() {
            Some(command) => hostgw::cli::run(command),
            None => ExitCode::SUCCESS,
        };
    }
    hostgw::cli::run(arguments)
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code, reason = "fork and the environment; every block has a SAFETY comment")]

    use std::{
        collections::BTreeMap,
        env,
        ffi::OsString,
        fs::File,
        io::{self, BufRead, BufReader, Write},
        os::fd::{AsFd, OwnedFd},
        path::PathBuf,
        process::ExitCode,
    };

    use nftnl::nftnl_sys::libc;
    use rustix::{
        process::{Pid, WaitOptions, waitpid},
        stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    };

    /// Arguments, variables, folder, standard output, standard error, and whether to run the command here.
    type Request = (Vec<String>, BTreeMap<String, String>, PathBuf, PathBuf, PathBuf, bool);

    /// Forks for each command on standard input. Returns the command in the child process, and `None` at the end of the
    /// input. A command is a line `[ARGUMENTS, VARIABLES, FOLDER, STDOUT, STDERR, HERE]`; without arguments, the child ends
    /// at once. Each answer is a line with the status of the wait and the process ID.
    ///
    /// A command that runs here leaves behind what valgrind translated for it, and only its exit code is of interest.
    pub fn serve() -> Option<Vec<OsString>> {
        // No output may be in a buffer of this process when it forks.
        let take = |descriptor: io::Result<OwnedFd>| File::from(descriptor.expect("an open file"));
        let mut requests = BufReader::new(take(io::stdin().as_fd().try_clone_to_owned()));
        let mut answers = take(io::stdout().as_fd().try_clone_to_owned());
        let mut line = String::new();
        while requests.read_line(&mut line).expect("text") > 0 {
            let (arguments, variables, folder, stdout, stderr, is_here): Request =
                serde_json::from_str(&line).expect("a command");
            let become_it = || become_command(arguments, variables, folder, stdout, stderr);
            line.clear();
            if is_here {
                let is_success = hostgw::cli::run(become_it()) == ExitCode::SUCCESS;
                writeln!(answers, "{} {}", i32::from(!is_success) << 8, std::process::id())
                    .expect("a test that reads");
                continue;
            }
            // SAFETY: this process has only one thread, so the child can do anything that this process can.
            match unsafe { libc::fork() } {
                0 => return Some(become_it()),
                child => {
                    let pid = Pid::from_raw(child).expect("fork failed");
                    let (_, status) =
                        waitpid(Some(pid), WaitOptions::empty()).expect("our child").expect("it ended");
                    writeln!(answers, "{} {child}", status.as_raw()).expect("a test that reads");
                }
            }
        }
        None
    }

    /// Makes this process what a shell would start. Its copies of the pipes to the test close when `serve` returns.
    fn become_command(
        arguments: Vec<String>,
        variables: BTreeMap<String, String>,
        folder: PathBuf,
        stdout: PathBuf,
        stderr: PathBuf,
    ) -> Vec<OsString> {
        if arguments.is_empty() {
            // SAFETY: nothing has to be done at the end.
            unsafe { libc::_exit(0) };
        }
        for (name, value) in variables {
            // SAFETY: this process has only one thread.
            unsafe { env::set_var(name, value) };
        }
        env::set_current_dir(folder).expect("a folder");
        dup2_stdin(File::open("/dev/null").expect("/dev/null")).expect("standard input");
        dup2_stdout(File::create(stdout).expect("a folder")).expect("standard output");
        dup2_stderr(File::create(stderr).expect("a folder")).expect("standard error");
        arguments.into_iter().map(OsString::from).collect()
    }
}
