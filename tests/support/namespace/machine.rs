//! A node with programs that configure the network at boot: systemd-networkd, netplan, NetworkManager, ifupdown.
//!
//! They are not installed on the machine that runs the tests, where they would start to work. `tests/run` unpacks them
//! into a folder. A machine is a private view of the file system with that folder mounted over it, and discards
//! everything that is written: it has its own `/etc`, `/run`, `/sys` and processes, and the network namespace of the
//! node.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Holder, Namespace, Outcome, Privilege, can_become_nobody, quoted, until};
use crate::support::say;

/// Builds the view in the folder `$1` with `$2` mounted over it and the folder `$3` unchanged, and exits when its
/// standard input ends.
/// systemd-networkd waits for udev unless /sys is read-only. A minimal system lacks the users of packages that are not
/// installed.
const BUILD: &str = r#"
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
[ ! -d "$2" ] || cp -a "$2/." "$1/upper"
chown root: "$1/upper"
chmod 755 "$1/upper"
root=$1/root
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" none "$root"
mount --rbind /dev "$root/dev"
mount --rbind "$3" "$root$3"
mount -t proc none "$root/proc"
mount -t sysfs -o ro none "$root/sys"
mount -t tmpfs none "$root/run"
exec chroot "$root" sh -ec '
    ldconfig
    for user in messagebus systemd-network; do
        getent passwd $user >/dev/null || useradd --system --no-create-home $user
    done
    rm -rf /etc/NetworkManager/system-connections/* /usr/lib/NetworkManager/conf.d/* /etc/systemd/network/*
    # As its installation does.
    [ ! -e /usr/share/ifupdown2/__main__.py ] || chmod 755 /usr/share/ifupdown2/__main__.py
    mkdir -p /run/dbus /run/systemd/network /run/NetworkManager /etc/network/if-up.d
    echo ready
    trap "" INT HUP
    read -r _ || true
'
"#;

/// A node with such programs.
pub struct Machine {
    node: Namespace,
    child: Child,
    /// The first process inside, by its process ID outside.
    inside: String,
    shell: Holder,
}

impl Machine {
    /// A machine with the programs that `tests/run` unpacked as `name`. Returns `None` and prints the reason if that
    /// is impossible: it requires real root and each of `programs`.
    pub fn new(name: &str, programs: &[&str]) -> Option<Self> {
        if !can_become_nobody() {
            say(&format!("Left out without the rights of a real root: {}", programs.join(", ")));
            return None;
        }
        let machine = Self::start(name);
        let missing = machine.sh(&format!(
            "for program in {}; do command -v $program >/dev/null || echo $program; done",
            programs.join(" ")
        ));
        if missing.is_empty() {
            return Some(machine);
        }
        say(&format!("Left out without these programs: {}", missing.trim().replace('\n', ", ")));
        None
    }

    fn start(name: &str) -> Self {
        let node = Namespace::new(Privilege::Root);
        let view = node.folder().join("view");
        fs::create_dir(&view).expect("our folder");
        let mut command = node.command("unshare");
        command.args(["-m", "-p", "--fork", "--kill-child", "sh", "-ec", BUILD, "build"]);
        command.arg(&view).arg(unpacked(name)).arg(env::temp_dir());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("text");
        assert_eq!(ready, "ready\n", "no machine");
        let inside = first_child(child.id());
        let shell = Holder::start(entrance(&node, &inside), &[]);
        Self { node, child, inside, shell }
    }

    /// The node.
    pub const fn node(&self) -> &Namespace {
        &self.node
    }

    /// Runs a script up to its first failure, which fails the test. Returns its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run(script, &format!("set -e\n{script}")).expect(0).stdout
    }

    /// Runs a script. Returns its outcome, whatever its exit code.
    pub fn try_sh(&self, script: &str) -> Outcome {
        self.run(script, script)
    }

    /// Runs hostgw.
    pub fn hostgw(&self, arguments: &[&str]) -> Outcome {
        let words: Vec<String> = arguments.iter().copied().map(quoted).collect();
        let script = format!("exec \"$HOSTGW\" {}", words.join(" "));
        self.run(&format!("hostgw {}", arguments.join(" ")), &script)
    }

    /// Runs a script, and calls it `name`.
    fn run(&self, name: &str, script: &str) -> Outcome {
        let another = || {
            let mut command = entrance(&self.node, &self.inside);
            command.arg("sh");
            command
        };
        self.node.run_script_in(&self.shell, name, script, another)
    }

    /// Writes a file, and creates its parent folders.
    pub fn write(&self, path: &str, text: &str) {
        self.node.write("written", text);
        self.sh(&format!("mkdir -p \"$(dirname '{path}')\"; cat written >'{path}'"));
    }

    /// Waits until a script succeeds.
    #[track_caller]
    pub fn wait_for(&self, script: &str) {
        let outcome = self.try_sh(&until(script, 20));
        assert_eq!(outcome.code, 0, "waited in vain: {script}\n{}", self.try_sh(script));
    }
}

/// A command whose further arguments run on the machine with this first process, in the folder of the node.
fn entrance(node: &Namespace, inside: &str) -> Command {
    let mut command = node.command("nsenter");
    command.args(["-t", inside, "-m", "-p", "-r", "sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(node.folder());
    command
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process ends the others and the view.
        self.child.stdin.take();
        let _ = self.child.wait();
    }
}

/// The folder of the programs `name`.
pub(super) fn unpacked(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs").join(name).join("root")
}

/// The process ID of the only child of a process.
pub(super) fn first_child(parent: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("a child");
    children.split_whitespace().next().expect("a child").to_owned()
}
