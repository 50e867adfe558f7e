//! A hostgw process that is stopped at a point of fault injection, so that a test can change the node at that moment.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::namespace::{Namespace, Outcome};

/// A process that is stopped midway until it is resumed.
pub struct Stopped<'a> {
    node: &'a Namespace,
    name: String,
    child: Child,
}

impl<'a> Stopped<'a> {
    /// Starts `command`, whose output must fit into a pipe, and waits for it to stop at `point`.
    ///
    /// # Errors
    /// Returns its outcome if it ended before that point.
    pub fn at(node: &'a Namespace, command: &mut Command, name: &str, point: usize) -> Result<Self, Outcome> {
        let child = command
            .env("HOSTGW_FAULT", format!("stop:{point}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hostgw");
        Self::wait(node, child, name)
    }

    /// Same, for a hostgw with these arguments.
    ///
    /// # Errors
    /// Returns its outcome if it ended before that point.
    pub fn hostgw(
        node: &'a Namespace,
        arguments: &[&str],
        name: &str,
        point: usize,
    ) -> Result<Self, Outcome> {
        let child = node.start_hostgw(arguments, &[("HOSTGW_FAULT", &format!("stop:{point}"))]);
        Self::wait(node, child, name)
    }

    fn wait(node: &'a Namespace, child: Child, name: &str) -> Result<Self, Outcome> {
        let stat = format!("/proc/{}/stat", child.id());
        loop {
            // The program's name is in parentheses, followed by its state.
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

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as by `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Resumes it, and returns its outcome.
    pub fn resume(self) -> Outcome {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::CONT).expect("a child that was not waited for");
        let output = self.child.wait_with_output().expect("our child");
        Outcome::from_output(self.node, &self.name, output)
    }
}
