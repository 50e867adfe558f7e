//! A running agent, its log and its report.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::namespace::Namespace;

/// A repair should end within a second after its cause. Tests run in parallel on busy machines, so they allow more.
const SOON: Duration = Duration::from_secs(5);

/// A running agent, which is killed when dropped.
pub struct Agent<'a> {
    node: &'a Namespace,
    child: Option<Child>,
}

impl<'a> Agent<'a> {
    /// Starts an agent, and waits until it has verified the node.
    pub fn start(node: &'a Namespace) -> Self {
        let agent = Self::spawn(node, &[]);
        agent.await_condition("inSync");
        agent
    }

    pub fn spawn(node: &'a Namespace, options: &[&str]) -> Self {
        let log =
            fs::File::options().create(true).append(true).open(node.folder().join("log")).expect("a log");
        let mut command = node.hostgw_command(&["agent", "--log", "json"]);
        let child = command.args(options).stdout(log).stderr(Stdio::inherit()).spawn().expect("hostgw");
        Self { node, child: Some(child) }
    }

    pub fn process(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("our child");
    }

    /// Stops the agent, and returns its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.take().expect("it runs").wait().expect("our child").code()
    }

    /// Returns the lines of the log.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.node.folder().join("log")).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub fn count(&self, event: &str) -> usize {
        self.log().iter().filter(|line| line["event"] == event).count()
    }

    /// Waits for the `nth` line of an event, and returns it.
    #[track_caller]
    pub fn await_event(&self, event: &str, nth: usize) -> Value {
        self.await_true(event, || self.count(event) >= nth);
        self.log().into_iter().filter(|line| line["event"] == event).nth(nth - 1).expect("it is there")
    }

    #[track_caller]
    pub fn await_true(&self, what: &str, is_true: impl Fn() -> bool) {
        self.await_true_or(what, is_true, String::new);
    }

    /// Like [`Self::await_true`], with an explanation if it waits in vain.
    #[track_caller]
    fn await_true_or(&self, what: &str, is_true: impl Fn() -> bool, explanation: impl Fn() -> String) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !is_true() {
            if Instant::now() > deadline {
                let log: Vec<String> = self.log().iter().map(ToString::to_string).collect();
                panic!("waited in vain: {what}\n{}\n{}\n{}", log.join("\n"), self.report(), explanation());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the report of the agent.
    pub fn report(&self) -> Value {
        let text = self.node.state_dir().and_then(|dir| fs::read_to_string(dir.join("agent.json")).ok());
        let text = text.unwrap_or_else(|| "{}".to_owned());
        serde_json::from_str::<Value>(&text).map(|envelope| envelope["content"].clone()).unwrap_or_default()
    }

    #[track_caller]
    pub fn await_condition(&self, condition: &str) {
        self.await_true(condition, || self.report()["condition"] == condition);
    }

    /// Waits until `ip` and `nft` show the state `wanted`.
    #[track_caller]
    pub fn await_state(&self, wanted: &str, after: &str) {
        let begun = Instant::now();
        self.await_rest(wanted, after, || true);
        assert!(begun.elapsed() < SOON, "{:?} after {after}", begun.elapsed());
    }

    /// Waits, for any time, until `ip` and `nft` show the state `wanted`, and `holds`.
    #[track_caller]
    pub fn await_rest(&self, wanted: &str, after: &str, holds: impl Fn() -> bool) {
        self.await_true_or(
            &format!("the state after {after}"),
            || state(self.node) == wanted && holds(),
            || {
                let found = state(self.node);
                similar::TextDiff::from_lines(wanted, &found)
                    .unified_diff()
                    .header("wanted", "found")
                    .to_string()
            },
        );
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns routes, NAT and forwarding as other programs print them.
pub fn state(node: &Namespace) -> String {
    node.look("ip route; nft -s list ruleset") + &node.sysctl("net.ipv4.ip_forward")
}

/// Returns the CPU time that the agent has used.
pub fn cpu_time(agent: &Agent<'_>) -> Duration {
    let stat =
        fs::read_to_string(format!("/proc/{}/stat", agent.process().as_raw_nonzero())).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}
