//! A hostgw that is stopped at one of the points of fault injection, so that a test can do anything to the
//! node just then.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::namespace::{Namespace, Outcome};

/// Stopped half way, until it is let go.
pub struct Stopped<'a> {
    node: &'a Namespace,
    name: String,
    child: Child,
}

impl<'a> Stopped<'a> {
    /// Starts `command`, a hostgw that says less than a pipe holds, and waits for it to stop at `point`.
    ///
    /// # Errors
    /// How it ended, when it did not come to that point.
    pub fn at(node: &'a Namespace, command: &mut Command, name: &str, point: usize) -> Result<Self, Outcome> {
        let child = command
            .env("HOSTGW_FAULT", format!("stop:{point}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hostgw");
        let stat = format!("/proc/{}/stat", child.id());
        loop {
            // The name of the program stands in brackets, and its state behind them.
            let seen = std::fs::read_to_string(&stat).expect("a child that was not waited for");
            match seen.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
                Some('T') => return Ok(Self { node, name: name.to_owned(), child }),
                Some('Z') => {
                    let output = child.wait_with_output().expect("our child");
                    return Err(Outcome::from_output(node, name, output));
                }
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Lets it go on, and gives how it ended.
    pub fn go_on(self) -> Outcome {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::CONT).expect("a child that was not waited for");
        let output = self.child.wait_with_output().expect("our child");
        Outcome::from_output(self.node, &self.name, output)
    }
}
