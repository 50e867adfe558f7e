//! A machine that boots systemd as its first process, with the units of `dist/systemd`.
//!
//! Like [`Machine`](super::Machine), it has a private view of the file system and the programs that `tests/run` unpacked.
//! What is written stays on its disk until the test ends. So the power can be cut, and it boots again: with a new network
//! namespace, another boot ID and an empty `/run`. Only the kernel stays the same.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{
    Namespace, Outcome, Privilege, can_become_nobody, hostgw,
    machine::{first_child, unpacked},
    until,
};
use crate::support::say;

/// Runs `$2` in the new control group `$1` until the standard input ends, and kills it.
const HOLD: &str = r#"
group=$1 script=$2
shift 2
mkdir "$group"
(
    echo 0 >"$group/cgroup.procs"
    exec unshare -m -p -C -i --fork --kill-child sh -ec "$script" boot "$@"
) </dev/null &
trap '' INT HUP
read -r _ || true
exec 2>/dev/null
kill -KILL $!
wait $! || true
for attempt in 1 2 3 4 5 6 7 8 9; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.$attempt
done
"#;

/// Mounts the disk `$1` and becomes systemd. At the first boot, it installs the programs in `$2`, hostgw from `$3` and the
/// units from `$4`.
const BOOT: &str = concat!(
    include_str!("boot.sh"),
    r#"
disk=$1 root=$1/root new=
mount --make-rprivate /
if [ ! -e "$disk" ]; then
    new=1
    mkdir "$disk" "$disk/upper" "$disk/work" "$disk/root"
    [ ! -d "$2" ] || cp -a "$2/." "$disk/upper"
    chown root: "$disk/upper"
    chmod 755 "$disk/upper"
fi
mount -t overlay -o lowerdir=/,upperdir="$disk/upper",workdir="$disk/work" none "$root"
mount_machine "$root" "$disk/boot-id"
if [ "$new" ]; then
    rm -rf "$root/etc/systemd/system" "$root/etc/fstab" "$root/etc/hostgw" "$root/etc/default/hostgw" "$root/var/lib/hostgw"
    mkdir -p "$root/etc/systemd/system" "$root/etc/hostgw" "$root/usr/local/bin"
    select_units "$root"
    cp "$3" "$root/usr/local/bin/hostgw"
    cp "$4"/*.service "$root/etc/systemd/system"
    chroot "$root" ldconfig
fi
cd /
echo ready
become_systemd "$root"
"#
);

/// A machine that runs systemd, or is switched off.
pub struct BootedMachine {
    /// Holds the disk.
    home: Namespace,
    running: Option<Boot>,
}

/// The time from a boot to the next.
struct Boot {
    node: Namespace,
    child: Child,
    /// The first process inside, by its process ID outside.
    inside: String,
}

impl BootedMachine {
    /// A machine that has just booted for the first time, without any interface. Returns `None` and prints the reason if
    /// that is impossible: it requires real root, systemd and control groups of version 2.
    pub fn new() -> Option<Self> {
        let has_systemd =
            ["/lib/systemd/systemd".into(), unpacked("network").join("usr/lib/systemd/systemd")]
                .iter()
                .any(|path: &PathBuf| path.exists());
        if !can_become_nobody() || group_folder().is_none() || !has_systemd {
            say(
                "Left out without the rights of a real root, systemd, and control groups of version 2: units",
            );
            return None;
        }
        let mut machine = Self { home: Namespace::new(Privilege::Root), running: None };
        machine.boot();
        Some(machine)
    }

    /// Boots, after cutting the power if necessary.
    pub fn boot(&mut self) {
        self.cut_power();
        self.running = Some(Boot::start(&self.home));
        self.wait_for("systemctl -q is-active basic.target");
    }

    /// Ends all processes at once, and the network with them.
    pub fn cut_power(&mut self) {
        self.running = None;
    }

    fn running(&self) -> &Boot {
        self.running.as_ref().expect("it is switched on")
    }

    /// The network.
    pub fn node(&self) -> &Namespace {
        &self.running().node
    }

    fn command(&self, script: &str) -> Command {
        let Boot { node, inside, .. } = self.running();
        let mut command = node.command("nsenter");
        command.args(["-t", inside, "-m", "-p", "-C", "-r", "-w", "env", "-i", "LC_ALL=C.UTF-8"]);
        command.args(["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", script]);
        command
    }

    /// Runs a script up to its first failure, which fails the test. Returns its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).expect(0).stdout
    }

    /// Runs a script up to its first failure. Returns its outcome, whatever its exit code.
    pub fn try_sh(&self, script: &str) -> Outcome {
        Outcome::of(self.node(), script, &mut self.command(script))
    }

    /// Writes a file, and creates its parent folders.
    pub fn write(&self, path: &str, text: &str) {
        let mut command = self.command(&format!("mkdir -p \"$(dirname '{path}')\"; cat >'{path}'"));
        let mut child = command.stdin(Stdio::piped()).spawn().expect("nsenter");
        super::feed(&mut child, text);
        assert!(child.wait().expect("our child").success(), "cannot write {path}");
    }

    /// Waits until a script succeeds.
    #[track_caller]
    pub fn wait_for(&self, script: &str) {
        // At first, the root of the first process is still another one.
        let is_true = |limit| self.try_sh(&until(script, limit)).code == 0;
        if !is_true(1) && !(0..9).any(|_| is_true(10)) {
            let outcome = self.try_sh(script);
            let journal = self.try_sh("systemctl --failed --no-pager; journalctl -b --no-pager | tail -n 40");
            panic!("waited in vain:\n{outcome}\n{journal}");
        }
    }
}

impl Boot {
    fn start(home: &Namespace) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = group_folder().expect("a mount").join(format!("{}-{number}", group_name()));
        let node = Namespace::new(Privilege::Root);
        let mut command = node.command("sh");
        command.args(["-ec", HOLD, "hold"]).arg(group).arg(BOOT);
        command.arg(home.folder().join("disk")).arg(unpacked("network")).arg(hostgw());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/dist/systemd"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("text");
        assert_eq!(ready, "ready\n", "it does not boot");
        let inside = first_child(first_child(child.id()).parse().expect("a process"));
        Self { node, child, inside }
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.child.stdin.take();
        let _ = self.child.wait();
    }
}

/// The beginning of the names of this process's control groups.
fn group_name() -> String {
    format!("hostgw-test-{}", std::process::id())
}

/// Where control groups of version 2 can be created. A container often has a read-only view.
fn group_folder() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let mounts = mounts.lines().map(|mount| mount.split(' ').collect::<Vec<_>>());
    let folders = mounts.filter(|mount| mount[2] == "cgroup2").map(|mount| PathBuf::from(mount[1]));
    let mut usable = folders.filter(|folder| {
        let thread = thread::current().id();
        let probe = folder.join(format!("{}-{thread:?}", group_name()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
    });
    usable.next()
}
