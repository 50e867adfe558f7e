//! The units in `dist/systemd`, run by systemd itself, and the notifications of the agent to a service manager.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::{Child, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{NODE_1, NODE_2, NODE_3, cluster, plug_in};
use crate::support::namespace::{BootedMachine, Namespace, each};

const FILE: &str = "/etc/hostgw/hostgw.yaml";

/// A stand-in for kubelet, which records when it starts.
const KUBELET: &str = "[Unit]
After=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'ip route show proto 87 | wc -l >/run/kubelet'
[Install]
WantedBy=multi-user.target
";

fn three() -> String {
    cluster("", &[NODE_1, NODE_2, NODE_3])
}

/// A machine with a configuration, and a unit that starts at boot.
fn machine_with(unit: &str) -> Option<BootedMachine> {
    let machine = BootedMachine::new()?;
    machine.write(FILE, &three());
    machine.write("/etc/systemd/system/kubelet.service", KUBELET);
    machine.sh(&format!("systemctl daemon-reload; systemctl -q enable {unit} kubelet.service"));
    Some(machine)
}

/// Waits until the plan is empty.
#[track_caller]
fn wait_until_in_sync(machine: &BootedMachine) {
    machine.wait_for(&format!("hostgw plan -f {FILE} --detailed-exitcode"));
}

/// A property of a unit.
fn show(machine: &BootedMachine, unit: &str, property: &str) -> String {
    machine.sh(&format!("systemctl show --value -p {property} {unit}")).trim_end().to_owned()
}

#[test]
fn the_units_are_valid_and_the_guide_names_their_exposure() {
    let Some(machine) = BootedMachine::new() else { return };
    let guide = include_str!("../../src/guide/boot.md");
    for unit in ["hostgw-agent.service", "hostgw.service"] {
        let verified =
            machine.try_sh(&format!("systemd-analyze verify /etc/systemd/system/{unit}")).expect(0);
        assert_eq!((verified.stdout.as_str(), verified.stderr.as_str()), ("", ""), "{unit}");
        let text = machine.sh(&format!(
            "systemd-analyze security --no-pager --offline=yes /etc/systemd/system/{unit} | tail -n 1"
        ));
        let exposure =
            text.split(':').nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a number");
        let exposure: f32 = exposure.parse().expect("a number");
        // Other versions of systemd add criteria.
        assert!(exposure < 2.8, "{text}");
    }
    assert!(guide.contains("exposure level of 2.4"));
}

/// The agent starts before the interface exists, and does everything with a single capability.
#[test]
fn the_agent_unit_waits_for_the_interface_and_keeps_the_node_in_sync() {
    let Some(mut machine) = machine_with("hostgw-agent.service") else { return };
    machine.boot();
    machine.wait_for("systemctl show --value -p StatusText hostgw-agent | grep -q ^Waiting");
    assert_eq!(show(&machine, "hostgw-agent", "ActiveState"), "activating");
    machine.sh("! test -e /run/kubelet");
    plug_in(machine.node());
    machine.wait_for("test -s /run/kubelet");
    assert_eq!(machine.sh("cat /run/kubelet"), "3\n", "kubelet starts after the routes exist");
    assert_eq!(show(&machine, "hostgw-agent", "ActiveState"), "active");
    assert_eq!(show(&machine, "hostgw-agent", "StatusText"), "In sync: 3 routes on node linux-1");
    wait_until_in_sync(&machine);
    assert_eq!(
        machine.sh("grep -h '^Cap[PEB]' /proc/$(systemctl show --value -p MainPID hostgw-agent)/status"),
        "CapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t0000000000001000\n"
    );

    for event in [
        "ip route flush proto 87",
        "nft flush ruleset",
        "sysctl -qw net.ipv4.ip_forward=0",
        "ip link set eth0 down; ip link set eth0 up",
    ] {
        machine.sh(event);
        wait_until_in_sync(&machine);
    }
    machine.write(FILE, &cluster("", &[NODE_1, NODE_2]));
    machine.sh("systemctl reload hostgw-agent");
    wait_until_in_sync(&machine);
    machine.write(FILE, "nodes: [");
    machine.wait_for("systemctl show --value -p StatusText hostgw-agent | grep -q ^Degraded");
    machine.sh("systemctl reload hostgw-agent");
    // Not `reloading`.
    machine.wait_for("systemctl is-active hostgw-agent");
    machine.write(FILE, &three());
    machine.sh("systemctl reload hostgw-agent");
    wait_until_in_sync(&machine);

    // The unit shares the lock and the records with other commands.
    machine.write("/root/two.yaml", &cluster("", &[NODE_1, NODE_2]));
    machine.sh("hostgw apply --confirm 60s --yes -f /root/two.yaml >/run/apply 2>&1 & echo");
    machine.wait_for("systemctl show --value -p StatusText hostgw-agent | grep -q 'another hostgw command'");
    machine.wait_for("hostgw cancel");
    wait_until_in_sync(&machine);

    machine.sh("systemctl kill -s KILL hostgw-agent");
    machine.wait_for("systemctl show --value -p NRestarts hostgw-agent | grep -qx 1");
    machine.wait_for("systemctl is-active hostgw-agent");
    machine.sh("systemctl stop hostgw-agent");
    assert_eq!(show(&machine, "hostgw-agent", "Result"), "success");
    machine.sh(&format!("hostgw plan -f {FILE} --detailed-exitcode"));
    assert_eq!(
        machine.sh("stat -c '%a %U' /run/hostgw /var/lib/hostgw /var/lib/hostgw/last-good.yaml"),
        "700 root\n700 root\n600 root\n"
    );
    machine.sh("! journalctl -b --no-pager -u hostgw-agent | grep -i 'not permitted\\|denied\\|read-only'");
}

/// The power is cut, and the files of the last boot are damaged.
#[test]
fn the_agent_unit_restores_the_node_after_each_boot() {
    let Some(mut machine) = machine_with("hostgw-agent.service") else { return };
    for (damage, status) in [
        ("true", "In sync: 3 routes on node linux-1"),
        ("echo 'nodes: [' >/etc/hostgw/hostgw.yaml", "Degraded: "),
        ("rm /etc/hostgw/hostgw.yaml", "Degraded: "),
        (": >/var/lib/hostgw/last-good.yaml", "Waiting: "),
    ] {
        machine.sh(damage);
        machine.boot();
        plug_in(machine.node());
        machine.wait_for(&format!("systemctl show --value -p StatusText hostgw-agent | grep -q '^{status}'"));
        if status.starts_with("Waiting") {
            assert_eq!(machine.sh("ip route show proto 87"), "");
            machine.write(FILE, &three());
        }
        machine.wait_for("test -s /run/kubelet");
        machine.wait_for("test $(ip route show proto 87 | wc -l) = 3");
        assert_eq!(machine.sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n", "{damage}");
    }

    // kubelet does not wait forever, and the agent keeps trying.
    machine.sh("rm -r /etc/hostgw /var/lib/hostgw");
    machine.write("/etc/systemd/system/hostgw-agent.service.d/time.conf", "[Service]\nTimeoutStartSec=2s\n");
    machine.boot();
    plug_in(machine.node());
    machine.wait_for("test -s /run/kubelet");
    assert_eq!(machine.sh("cat /run/kubelet"), "0\n");
    machine.wait_for("test $(systemctl show --value -p NRestarts hostgw-agent) -ge 2");
    machine.write(FILE, &three());
    machine.wait_for("systemctl is-active hostgw-agent && test $(ip route show proto 87 | wc -l) = 3");
}

#[test]
fn the_apply_unit_applies_at_boot() {
    let Some(mut machine) = machine_with("hostgw.service") else { return };
    machine.write("/etc/default/hostgw", "HOSTGW_FILE=/etc/hostgw/other.yaml\nHOSTGW_NODE=linux-1\n");
    machine.sh("cd /etc/hostgw; mv hostgw.yaml other.yaml; git init -q; git add other.yaml
                git -c user.name=a -c user.email=a@b commit -qm a");
    machine.boot();
    // Without the interface, it fails and is tried again.
    machine.wait_for("systemctl show --value -p Result hostgw | grep -q exit-code");
    plug_in(machine.node());
    machine.wait_for("systemctl is-active hostgw");
    machine.sh("hostgw plan -f /etc/hostgw/other.yaml --detailed-exitcode");
    // The records survive the unit, and git can be asked for the commit.
    machine.sh("systemctl restart hostgw; grep -rq \"$(git -C /etc/hostgw rev-parse HEAD)\" /run/hostgw");
}

/// systemd kills all processes of a unit that ends, and logind those of a login (`KillUserProcesses=yes`).
#[test]
fn a_supervisor_survives_the_unit_that_started_it() {
    let Some(machine) = machine_with("hostgw-agent.service") else { return };
    plug_in(machine.node());
    let apply = "hostgw apply --confirm 10s --yes -f /etc/hostgw/hostgw.yaml";
    machine.write("/etc/systemd/system/change.service", &format!("[Service]\nExecStart={apply}\n"));
    let service = ("systemctl daemon-reload; systemctl start change".to_owned(), "change.service");
    let login =
        (format!("systemd-run --scope --unit=session-7 {apply} >/dev/null 2>&1 &"), "session-7.scope");
    let ways = [(&service, "hostgw confirm", "3"), (&service, "sleep 0", "0"), (&login, "sleep 0", "0")];
    for ((start, unit), end, left) in ways {
        machine.sh(&format!("hostgw destroy --yes; {start}"));
        machine.wait_for("hostgw status | grep '^Pending: apply .* rolls back at'");
        machine.sh(&format!("systemctl kill -s KILL {unit}"));
        machine.wait_for(&format!("! systemctl is-active {unit}"));
        assert_eq!(show(&machine, unit, "ControlGroup"), "", "the unit has no process left");
        machine.sh("hostgw status | grep '^Pending: apply .* rolls back at'");
        assert_eq!(machine.sh("ip route show proto 87 | wc -l"), "3\n");
        machine.sh(end);
        machine.wait_for("! hostgw status | grep '^Pending:'");
        machine.wait_for(&format!("test $(ip route show proto 87 | wc -l) = {left}"));
        machine.wait_for("test -z \"$(systemctl --no-legend list-units --type=scope 'run-*')\"");
        machine.sh("systemctl reset-failed");
    }

    // Without systemd-run, the supervisor ends with the unit, but not without rolling back.
    machine.sh("chmod a-x \"$(command -v systemd-run)\"; hostgw destroy --yes; systemctl start change");
    machine.wait_for("hostgw status | grep '^Pending: apply .* rolls back at'");
    machine.sh("kill -KILL $(systemctl show --value -p MainPID change)");
    machine.wait_for("test -z \"$(ip route show proto 87)\"");
    machine.sh("hostgw status | grep '^Rolled back: apply .* canceled$'");
}

#[test]
fn the_watchdog_waits_for_the_longest_check() {
    let unit = include_str!("../../dist/systemd/hostgw-agent.service");
    let minutes = unit.lines().find_map(|line| line.strip_prefix("WatchdogSec=")?.strip_suffix("min"));
    let watchdog = Duration::from_secs(60) * minutes.expect("minutes").parse().expect("a number");
    assert!(watchdog > hostgw::model::Check::MAX_TIMEOUT + Duration::from_secs(30), "{watchdog:?}");
}

/// An agent whose service manager is a test.
struct Managed<'a> {
    child: Child,
    socket: UnixDatagram,
    node: &'a Namespace,
}

impl<'a> Managed<'a> {
    fn start(node: &'a Namespace) -> Self {
        let path = node.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("our folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("our socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let mut command = node.hostgw_command(&["agent"]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
        let child = command.stdout(Stdio::null()).spawn().expect("hostgw");
        Self { child, socket, node }
    }

    /// Returns the next message other than a heartbeat.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for a message that contains `text`.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        loop {
            let message = self.next();
            if message.contains(text) {
                return message;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child");
    }
}

impl Drop for Managed<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_agent_notifies_its_service_manager() {
    each(|privilege| {
        let node = Namespace::new(privilege);
        node.write("hostgw.yaml", &format!("{}checks: [{{tcp: \"127.0.0.1:1\", timeout: 300s}}]\n", three()));
        let agent = Managed::start(&node);
        // A reload of an agent that was never ready does not make it ready.
        let waiting = agent.next();
        assert!(waiting.contains("STATUS=Waiting") && !waiting.contains("READY"), "{waiting}");
        agent.signal(Signal::HUP);
        let reloaded = agent.next();
        assert!(reloaded.contains("STATUS=Waiting") && !reloaded.contains("READY"), "{reloaded}");
        plug_in(agent.node);
        // The checks may take longer than systemd waits for a start.
        assert_eq!(agent.wait_for("EXTEND"), "EXTEND_TIMEOUT_USEC=660000000\n");
        let ready = agent.wait_for("READY=1\n");
        assert!(ready.contains("STATUS=In sync: 3 routes on node linux-1\n"), "{ready}");
        for _ in 0..5 {
            assert_eq!(agent.any(), "WATCHDOG=1\n");
        }
        agent.signal(Signal::HUP);
        let reloading = agent.next();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert!(agent.next().starts_with("READY=1\nSTATUS=In sync"));
        node.write("hostgw.yaml", "nodes: [");
        let refused = agent.wait_for("Degraded");
        assert!(refused.contains("is invalid"), "{refused}");
        agent.signal(Signal::HUP);
        agent.wait_for("RELOADING=1\n");
        assert!(
            agent.next().starts_with("READY=1\n"),
            "the reload has ended, with the earlier configuration"
        );
        agent.signal(Signal::TERM);
        agent.wait_for("STOPPING=1\n");
    });
}
