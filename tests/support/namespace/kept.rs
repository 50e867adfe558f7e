//! A cluster that `hostgw simulate --keep`, or the copy of a node that `hostgw rehearse --keep` has built, for other tools
//! to examine.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use super::{Holder, Namespace, Outcome, Privilege};

/// A namespace of a cluster.
struct Place {
    /// The option of `nsenter` that enters it.
    entry: String,
    shell: OnceLock<Holder>,
}

/// A cluster in namespaces, until this is dropped.
pub struct SimulatedCluster {
    machine: Namespace,
    child: Child,
    /// Each namespace by its name: `node linux-1`, `pod of linux-1`, `outside`.
    places: BTreeMap<String, Place>,
    state: String,
}

impl SimulatedCluster {
    /// Builds the cluster of a configuration.
    pub fn new(privilege: Privilege, configuration: &str) -> Self {
        let machine = Namespace::new(privilege);
        machine.write("hostgw.yaml", configuration);
        Self::kept_by(machine, &["simulate", "--keep"])
    }

    /// Runs a command that keeps what it builds.
    pub fn kept_by(machine: Namespace, arguments: &[&str]) -> Self {
        let mut child = machine
            .hostgw_command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hostgw");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (mut places, mut state) = (BTreeMap::new(), None);
        for line in lines {
            let line = line.expect("readable");
            if let Some((name, entry)) = line.split_once(" nsenter ") {
                // Commands of the machine are already in its user namespace.
                let network = entry.split(' ').find(|option| option.starts_with("--net="));
                let entry = network.expect("a network namespace").to_owned();
                places.insert(name.trim().to_owned(), Place { entry, shell: OnceLock::new() });
            }
            if let Some((_, folder)) = line.split_once("HOSTGW_STATE_DIR=") {
                state = Some(folder.to_owned());
                break;
            }
        }
        let state = state.expect("--keep says where its records are");
        Self { machine, child, places, state }
    }

    /// The machine on which the command runs.
    pub const fn machine(&self) -> &Namespace {
        &self.machine
    }

    fn place(&self, name: &str) -> &Place {
        self.places.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.places.keys()))
    }

    /// A command in the namespace `place`.
    pub fn command(&self, place: &str, program: &str) -> Command {
        let mut command = self.entrance(place);
        command.arg(program);
        command
    }

    /// A command whose further arguments run in the namespace `place`.
    fn entrance(&self, place: &str) -> Command {
        let mut command = self.machine.command("nsenter");
        command.arg(&self.place(place).entry).env("HOSTGW_STATE_DIR", &self.state);
        command
    }

    /// Runs a script in the namespace `place`. Fails the test if the script fails.
    #[track_caller]
    pub fn sh(&self, place: &str, script: &str) -> String {
        self.try_sh(place, script).expect(0).stdout
    }

    /// Runs a script in the namespace `place`, up to its first failure.
    pub fn try_sh(&self, place: &str, script: &str) -> Outcome {
        let shell = self.place(place).shell.get_or_init(|| Holder::start(self.entrance(place), &[]));
        let name = format!("{place}: {script}");
        let script = format!("set -e\n{script}");
        self.machine.run_script_in(shell, &name, &script, || self.command(place, "sh"))
    }

    /// Writes a file that all namespaces can read.
    pub fn write(&self, name: &str, text: &str) {
        self.machine.write(name, text);
    }

    /// The outcome of a finished command of this cluster.
    pub fn outcome(&self, name: &str, output: std::process::Output) -> Outcome {
        Outcome::from_output(&self.machine, name, output)
    }
}

impl Drop for SimulatedCluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}
