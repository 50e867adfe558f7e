//! Impossible plans are refused before the first write, with an exit code, a message that names the remedy, and no
//! change.

use std::process::{Child, Stdio};

use super::{NODE_1, NODE_2, RECIPE, assert_no_record, cluster, node};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

/// A refusal: the setup of the node, the configuration, the arguments and the exit code.
struct Refusal {
    name: &'static str,
    setup: &'static str,
    configuration: String,
    arguments: &'static [&'static str],
    code: i32,
    /// Restores the node for the next one.
    cleanup: &'static str,
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            name: "",
            setup: "true",
            configuration: RECIPE.to_owned(),
            arguments: &["apply", "--yes"],
            code: 3,
            cleanup: "true",
        }
    }
}

/// Runs `apply` and, for most refusals, `plan`, which gives the same result.
fn check(refusals: &[Refusal]) {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        for refusal in refusals {
            node.sh(refusal.setup);
            node.write("hostgw.yaml", &refusal.configuration);
            let before = node.witness();
            let outcome = node.hostgw(refusal.arguments);
            assert_eq!(outcome.code, refusal.code, "{}: {outcome}", refusal.name);
            node.assert_unchanged(&before, refusal.name);
            assert_no_record(&node);
            snapshots.compare(&format!("refused-{}", refusal.name), &outcome);
            node.sh(refusal.cleanup);
        }
        snapshots.conclude();
    });
}

fn on_interface(name: &str) -> String {
    RECIPE.replacen("egressInterface: eth0", &format!("egressInterface: {name}"), 1)
}

#[test]
fn interfaces_that_cannot_carry_routes() {
    check(&[
        Refusal { name: "interface-missing", configuration: on_interface("eth1"), ..Refusal::default() },
        Refusal {
            name: "interface-no-suggestion",
            configuration: on_interface("wlp3s0"),
            ..Refusal::default()
        },
        Refusal {
            name: "interface-down",
            setup: "ip link add down0 type bridge",
            configuration: on_interface("down0"),
            cleanup: "ip link del down0",
            ..Refusal::default()
        },
    ]);
}

#[test]
fn unusable_next_hops() {
    let far = ("linux-2", "10.244.1.0/24", "172.30.9.12");
    let address = "nextHop: node-address";
    check(&[
        Refusal {
            name: "next-hop-not-on-link",
            configuration: cluster(address, &[NODE_1, far]),
            ..Refusal::default()
        },
        Refusal {
            name: "next-hop-is-own-address",
            configuration: cluster(address, &[NODE_1, NODE_2]),
            arguments: &["apply", "--yes", "--node", "linux-2"],
            ..Refusal::default()
        },
        Refusal {
            name: "next-hop-is-own-pod-gateway",
            setup: "ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up
                    sleep 0.3",
            configuration: cluster("", &[NODE_1, NODE_2]),
            arguments: &["apply", "--yes", "--node", "linux-2"],
            cleanup: "ip link del cni0",
            ..Refusal::default()
        },
    ]);
}

/// A cause that affects all nodes is reported once, not once per node.
#[test]
fn many_unusable_next_hops_are_reported_briefly() {
    let nodes: Vec<_> = (2..60)
        .map(|i| (format!("linux-{i}"), format!("10.244.{i}.0/24"), format!("172.31.0.{i}")))
        .collect();
    let mut all = vec![NODE_1];
    all.extend(nodes.iter().map(|(name, cidr, address)| (&**name, &**cidr, &**address)));
    let configuration = cluster("nextHop: node-address", &all);
    check(&[Refusal { name: "next-hops-not-on-link", configuration, ..Refusal::default() }]);
}

#[test]
fn ambiguous_nodes() {
    let elsewhere = cluster("", &[("linux-8", "10.244.8.0/24", "172.30.0.18"), NODE_2]);
    check(&[
        Refusal {
            name: "node-unknown",
            arguments: &["apply", "--yes", "--node", "linux-22"],
            ..Refusal::default()
        },
        Refusal {
            name: "node-ambiguous",
            setup: "ip address add 172.30.0.12/24 dev eth0",
            cleanup: "ip address del 172.30.0.12/24 dev eth0",
            ..Refusal::default()
        },
        Refusal { name: "node-unidentified", configuration: elsewhere, ..Refusal::default() },
        Refusal {
            name: "node-windows",
            arguments: &["apply", "--yes", "--node", "win-1"],
            ..Refusal::default()
        },
    ]);
}

#[test]
fn configurations_of_another_node() {
    let sysctl = "sysctls:\n  net.ipv4.conf.eth9.rp_filter: 2";
    let invalid = RECIPE.replace("10.244.1.0/24", "10.244.1.7/24").replace("os: windows", "os: plan9");
    check(&[
        Refusal {
            name: "sysctl-missing",
            configuration: cluster(sysctl, &[NODE_1, NODE_2]),
            ..Refusal::default()
        },
        Refusal { name: "configuration-invalid", configuration: invalid, ..Refusal::default() },
        Refusal {
            name: "configuration-not-yaml",
            configuration: "nodes: [".to_owned(),
            ..Refusal::default()
        },
        Refusal {
            name: "configuration-none",
            setup: "mkdir empty",
            arguments: &["apply", "--yes", "-f", "empty"],
            ..Refusal::default()
        },
        Refusal {
            name: "configuration-file-missing",
            arguments: &["apply", "--yes", "-f", "hostgv.yaml"],
            ..Refusal::default()
        },
    ]);
}

#[test]
fn invalid_command_lines() {
    check(&[
        Refusal { name: "usage-verb", arguments: &["aply"], code: 64, ..Refusal::default() },
        Refusal { name: "usage-flag", arguments: &["apply", "--force"], code: 64, ..Refusal::default() },
        Refusal {
            name: "usage-time",
            arguments: &["apply", "--lock-timeout", "5"],
            code: 64,
            ..Refusal::default()
        },
        Refusal { name: "usage-none", arguments: &[], code: 64, ..Refusal::default() },
        Refusal { name: "no-terminal", arguments: &["apply"], code: 8, ..Refusal::default() },
    ]);
}

#[test]
fn no_configuration_in_the_working_directory() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("rm hostgw.yaml");
        let before = node.witness();
        let outcome = node.hostgw(&["apply", "--yes"]).expect(3);
        node.assert_unchanged(&before, "an apply without a file");
        let mut snapshots = Snapshots::default();
        snapshots.compare("refused-no-configuration", &outcome);
        snapshots.conclude();
    });
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let below_a_file = format!("{}/hostgw.yaml/state", node.folder().display());
        for (name, place) in [("below-a-file", &*below_a_file), ("nowhere", "/proc/hostgw")] {
            let mut command = node.hostgw_command(&["apply", "--yes"]);
            let command = command.env("HOSTGW_STATE_DIR", place);
            let outcome = Outcome::of(&node, "hostgw apply --yes # with HOSTGW_STATE_DIR", command).expect(1);
            node.assert_unchanged(&before, "an apply without a state directory");
            snapshots.compare(&format!("refused-state-directory-{name}"), &outcome);
        }
        snapshots.conclude();
    });
}

/// A lock that is held until this is dropped.
pub(super) struct HeldLock(Child);

impl HeldLock {
    /// Takes the lock of a node that hostgw has changed before.
    pub(super) fn take(node: &Namespace) -> Self {
        let path = node.state_dir().expect("a state directory").join("lock");
        let mut child = node
            .command("flock")
            .arg(path)
            .args(["sh", "-c", "echo held; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock");
        let mut held = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut held).expect("the lock");
        Self(child)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.stdin.take();
        let _ = self.0.wait();
    }
}

#[test]
fn a_lock_held_by_another_command() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24");
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let lock = HeldLock::take(&node);
        for verb in ["apply", "destroy", "rollback"] {
            let outcome = node.hostgw(&[verb, "--yes", "--lock-timeout", "300ms"]).expect(4);
            snapshots.compare(&format!("locked-{verb}"), &outcome);
        }
        // See terraform #28130: a plan only reads, so it takes no lock.
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(2);
        node.hostgw_ok(&["status"]);
        node.assert_unchanged(&before, "commands that got no lock");
        drop(lock);
        node.hostgw_ok(&["apply", "--yes", "--lock-timeout", "300ms"]);
        snapshots.conclude();
    });
}

/// The wait for the lock ends when the holder releases it.
#[test]
fn a_lock_released_in_time() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24");
        let lock = HeldLock::take(&node);
        let mut waiting = node
            .hostgw_command(&["apply", "--yes"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hostgw");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(waiting.try_wait().expect("our child").is_none(), "the command did not wait");
        drop(lock);
        assert!(waiting.wait().expect("our child").success());
        super::settled(&node);
    });
}

/// A node without addresses is identified by the machine's name, ignoring case and domain.
#[test]
fn a_node_is_identified_by_the_machine_name() {
    each(|privilege| {
        let node = node(privilege);
        let named = cluster("", &[NODE_2, ("Machine.example.org", "10.244.3.0/24", "172.30.0.99")]);
        node.write("hostgw.yaml", &named.replace("    address: 172.30.0.99\n", ""));
        let plan = node.hostgw_ok(&["plan"]);
        plan.says("10.244.1.0/24 via 10.244.1.1");
        assert!(!plan.stdout.contains("10.244.3.0/24"), "a route for the node's own pods:\n{plan}");
    });
}
