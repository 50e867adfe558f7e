//! The files of `hostgw render --persist`, loaded by the programs that they are for.

use super::{NODE_1, NODE_2, NODE_3, cluster, node};
use crate::support::{
    namespace::{Machine, Namespace, Outcome, Privilege, each},
    schema::{accept, strict},
};

/// The values of `--persist`.
pub(super) const PROGRAMS: [&str; 9] = [
    "systemd-networkd",
    "netplan",
    "networkmanager",
    "ifupdown",
    "nftables",
    "sysctl.d",
    "networkd-dispatcher",
    "networkmanager-apply",
    "ifupdown-apply",
];

fn configuration() -> String {
    cluster(
        "sysctls: {net.ipv4.conf.eth0.rp_filter: 2, net.ipv4.conf.all.accept_redirects: 1}",
        &[NODE_1, NODE_2, NODE_3],
    )
}

/// A machine with an unconfigured eth0 and these programs, and a configuration for it.
fn machine(name: &str, programs: &[&str]) -> Option<Machine> {
    let machine = Machine::new(name, programs)?;
    machine.node().sh("ip link add eth0 type veth peer name lan0; ip link set lan0 up");
    machine.node().write("hostgw.yaml", &configuration());
    Some(machine)
}

/// Renders a file for node linux-1 and installs it.
#[track_caller]
fn install(machine: &Machine, arguments: &[&str], path: &str, mode: &str) {
    let render = [&["render", "--node", "linux-1", "--persist"], arguments].concat();
    machine.write(path, &machine.hostgw(&render).expect(0).stdout);
    machine.sh(&format!("chmod {mode} '{path}'"));
}

/// Installs NAT and sysctls, and loads them as at boot.
#[track_caller]
fn load_nat_and_sysctls(machine: &Machine) {
    install(machine, &["nftables"], "/etc/nftables.d/hostgw.nft", "644");
    machine.write("/etc/nftables.conf", "flush ruleset\ninclude \"/etc/nftables.d/*.nft\"\n");
    install(machine, &["sysctl.d"], "/etc/sysctl.d/90-hostgw.conf", "644");
    machine.sh("nft -c -f /etc/nftables.conf; nft -f /etc/nftables.conf; nft -f /etc/nftables.d/hostgw.nft");
    machine.sh("sysctl -q -p /etc/sysctl.d/90-hostgw.conf");
}

/// Waits until the plan is empty: routes appear some time after the event that restores them.
#[track_caller]
fn wait_for_the_plan_to_be_empty(machine: &Machine) {
    let plan = || machine.hostgw(&["plan", "--node", "linux-1", "--detailed-exitcode"]);
    let mut last = plan();
    machine.node().wait_until(&last.to_string(), || {
        last = plan();
        last.code == 0
    });
    last.expect(0).says("No changes");
}

/// Starts systemd-networkd, and waits until `interface` has its address.
#[track_caller]
fn start_networkd(machine: &Machine, interface: &str) {
    machine.sh("dbus-daemon --system --fork --nopidfile
                /lib/systemd/systemd-networkd >/run/networkd.log 2>&1 & echo $! >/run/networkd.pid");
    machine.wait_for(&format!("ip address show dev {interface} | grep -q 172.30.0.11/24"));
}

/// Makes systemd-networkd reconfigure the interface: all routes that exist afterwards were created by it.
#[track_caller]
fn reconfigure(machine: &Machine, interface: &str) {
    flush_and(machine, &format!("networkctl reconfigure {interface}"));
    wait_for_the_plan_to_be_empty(machine);
}

/// Removes the routes, and runs a command of systemd-networkd. Before that, systemd-networkd must have carried out earlier
/// commands, which would bring the routes back, and must have heard of every removal: otherwise it believes that a route
/// still exists, and does not restore it.
fn flush_and(machine: &Machine, command: &str) {
    machine.wait_for("! networkctl --no-legend | grep -q 'configuring\\|pending'");
    machine.sh(&format!("ip route flush proto 87; sleep 1; {command}"));
}

const NETWORKD: [&str; 3] = ["dbus-daemon", "networkctl", "/lib/systemd/systemd-networkd"];

const STATIC_NETWORK: &str =
    "[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=no\nAddress=172.30.0.11/24\n";

#[test]
fn systemd_networkd_restores_and_keeps_routes() {
    let Some(machine) = machine("network", &NETWORKD) else { return };
    machine.write("/etc/systemd/network/20-wired.network", STATIC_NETWORK);
    // Without the drop-in, the routes of an apply are foreign to systemd-networkd, and a reconfiguration loses them.
    start_networkd(&machine, "eth0");
    machine.hostgw(&["apply", "--yes"]).expect(0);
    machine.sh("networkctl reconfigure eth0");
    machine
        .node()
        .wait_until("the routes are lost without the drop-in", || machine.node().managed_routes().is_empty());

    install(&machine, &["systemd-networkd"], "/etc/systemd/network/20-wired.network.d/hostgw.conf", "644");
    load_nat_and_sysctls(&machine);
    machine.sh("networkctl reload");
    wait_for_the_plan_to_be_empty(&machine);
    reconfigure(&machine, "eth0");
    machine.sh("ip link set eth0 down");
    assert_eq!(machine.node().managed_routes(), Vec::<String>::new());
    machine.sh("ip link set eth0 up");
    wait_for_the_plan_to_be_empty(&machine);
    machine.sh("! grep -i 'unknown\\|failed to parse\\|ignoring' /run/networkd.log");
}

#[test]
fn systemd_networkd_understands_every_option_of_a_route() {
    let Some(machine) = machine("network", &NETWORKD) else { return };
    let network = format!("{STATIC_NETWORK}Address=fd00:30::11/64\n");
    machine.write("/etc/systemd/network/20-wired.network", &network);
    let options = "routes: {table: 100, metric: 7, mtu: 1400}";
    let drop_in = "/etc/systemd/network/20-wired.network.d/hostgw.conf";
    machine.node().write("hostgw.yaml", &cluster(options, &[NODE_1, NODE_2, NODE_3]));
    install(&machine, &["systemd-networkd"], drop_in, "644");
    load_nat_and_sysctls(&machine);
    start_networkd(&machine, "eth0");
    wait_for_the_plan_to_be_empty(&machine);
    machine.node().write("hostgw.yaml", super::dual_stack::CLUSTER);
    install(&machine, &["systemd-networkd"], drop_in, "644");
    load_nat_and_sysctls(&machine);
    machine.sh("networkctl reload");
    wait_for_the_plan_to_be_empty(&machine);
    machine.sh("! grep -i 'unknown\\|failed to parse\\|ignoring' /run/networkd.log");
}

/// The kernel looks up gateways, unless a route has the flag `onlink`. It then refuses routes by pod gateways that exist already,
/// and systemd-networkd gives up the interface.
#[test]
fn systemd_networkd_writes_routes_by_pod_gateways_again() {
    let Some(machine) = machine("network", &NETWORKD) else { return };
    let network = format!("{STATIC_NETWORK}Address=fd00:30::11/64\n");
    machine.write("/etc/systemd/network/20-wired.network", &network);
    machine.node().write("hostgw.yaml", super::dual_stack::CLUSTER);
    install(&machine, &["systemd-networkd"], "/etc/systemd/network/20-wired.network.d/hostgw.conf", "644");
    load_nat_and_sysctls(&machine);
    start_networkd(&machine, "eth0");
    wait_for_the_plan_to_be_empty(&machine);
    let is_configured = "networkctl status eth0 | grep -q 'State: routable (configured)'";
    machine.wait_for(is_configured);
    let restart = "process=$(cat /run/networkd.pid); kill $process
                   while readlink /proc/$process/exe >/dev/null; do sleep 0.02; done
                   /lib/systemd/systemd-networkd >>/run/networkd.log 2>&1 & echo $! >/run/networkd.pid";
    for write_again in ["networkctl reconfigure eth0", restart] {
        machine.sh(&format!("{write_again}\nsleep 2"));
        machine.wait_for(is_configured);
        wait_for_the_plan_to_be_empty(&machine);
        machine.sh("! grep 'Could not set route' /run/networkd.log");
    }
}

/// A netplan configuration.
struct Netplan {
    network: &'static str,
    /// The egress interface.
    id: &'static str,
    interface: &'static str,
    /// Whether it can be loaded here: some interfaces need hardware, or a module that not every kernel has.
    runs: bool,
}

/// IPv6 is disabled, because systemd-networkd would wait for routers.
const NETPLANS: [Netplan; 7] = [
    Netplan {
        network: "ethernets: {eth0: {link-local: [], addresses: [172.30.0.11/24]}}",
        id: "eth0",
        interface: "eth0",
        runs: true,
    },
    Netplan {
        network: "ethernets: {uplink: {match: {name: eth*}, link-local: [], addresses: [172.30.0.11/24]}}",
        id: "uplink",
        interface: "eth0",
        runs: true,
    },
    Netplan {
        network: "ethernets: {eth0: {}}\n  bridges: {br0: {interfaces: [eth0], link-local: [], addresses: [172.30.0.11/24], \
                  parameters: {stp: false, forward-delay: 0}}}",
        id: "br0",
        interface: "br0",
        runs: true,
    },
    Netplan {
        network: "ethernets: {up: {match: {macaddress: '52:54:00:00:00:01'}, set-name: eth0, dhcp4: true}}",
        id: "up",
        interface: "eth0",
        runs: false,
    },
    Netplan {
        network: "ethernets: {eth0: {}, eth1: {}}\n  bonds: {bond0: {interfaces: [eth0, eth1], dhcp4: true}}",
        id: "bond0",
        interface: "bond0",
        runs: false,
    },
    Netplan {
        network: "ethernets: {eth0: {}}\n  vlans: {eth0.5: {id: 5, link: eth0, dhcp4: true}}",
        id: "eth0.5",
        interface: "eth0.5",
        runs: false,
    },
    Netplan {
        network: "wifis: {wlan0: {dhcp4: true, access-points: {lab: {password: '12345678'}}}}",
        id: "wlan0",
        interface: "wlan0",
        runs: false,
    },
];

#[test]
fn netplan_restores_routes_whatever_kind_of_interface_carries_them() {
    for Netplan { network, id, interface, runs } in NETPLANS {
        let Some(machine) = machine("network", &[&NETWORKD[..], &["netplan"]].concat()) else { return };
        machine.sh("rm -f /etc/netplan/*");
        machine.write("/etc/netplan/50-node.yaml", &format!("network:\n  version: 2\n  {network}\n"));
        machine.sh("chmod 600 /etc/netplan/*");
        let of_interface = format!("egressInterface: {interface}");
        let configuration = configuration().replace("egressInterface: eth0", &of_interface);
        machine.node().write("hostgw.yaml", &configuration.replace("conf.eth0.", "conf.lo."));
        let drop_in = format!("/etc/systemd/network/10-netplan-{id}.network.d/hostgw.conf");
        let arguments = if id == interface { vec!["netplan"] } else { vec!["netplan", "--netplan-id", id] };
        install(&machine, &arguments, &drop_in, "644");
        machine.sh(&format!("grep -q '^# Install as {drop_in},' {drop_in}"));
        machine.sh("netplan generate");
        machine.sh(&format!("[ -f /run/systemd/network/10-netplan-{id}.network ]"));
        if runs {
            load_nat_and_sysctls(&machine);
            start_networkd(&machine, interface);
            wait_for_the_plan_to_be_empty(&machine);
            reconfigure(&machine, interface);
        }
    }
}

const NETWORK_MANAGER: [&str; 4] =
    ["dbus-daemon", "NetworkManager", "nmcli", "/usr/lib/NetworkManager/nm-dispatcher"];

#[test]
fn network_manager_restores_routes() {
    let Some(machine) = machine("network", &NETWORK_MANAGER) else { return };
    let script = "/etc/NetworkManager/dispatcher.d/90-hostgw";
    let connection = "/etc/NetworkManager/system-connections/wired.nmconnection";
    machine.write(
        connection,
        "[connection]\nid=wired\ntype=ethernet\ninterface-name=eth0\n\
         [ipv4]\nmethod=manual\naddress1=172.30.0.11/24\n[ipv6]\nmethod=ignore\n",
    );
    machine.write(
        "/etc/NetworkManager/NetworkManager.conf",
        "[main]\nplugins=keyfile\n[device-wired]\nmatch-device=interface-name:eth0\nmanaged=true\n\
         [keyfile]\nunmanaged-devices=interface-name:lan0\n",
    );
    install(&machine, &["networkmanager"], script, "755");
    load_nat_and_sysctls(&machine);
    machine.sh(&format!("chmod 600 {connection}; dbus-daemon --system --fork --nopidfile"));
    let start = "NetworkManager --no-daemon >>/run/nm.log 2>&1 & echo $!";
    let first = machine.sh(start);
    wait_for_the_plan_to_be_empty(&machine);
    machine.sh("nmcli --wait 20 connection up wired");
    wait_for_the_plan_to_be_empty(&machine);
    // The doctor knows that the script restores the routes.
    let doctor = || machine.hostgw(&["doctor", "--node", "linux-1"]).expect(11).stdout;
    assert!(!doctor().contains("NetworkManager"), "{}", doctor());
    machine.sh(&format!("mv {script} /root/script"));
    assert!(doctor().contains("warning[HG1018]: NetworkManager manages eth0"), "{}", doctor());
    machine.sh(&format!("mv /root/script {script}"));
    machine.sh("ip route flush proto 87; nmcli --wait 20 device reapply eth0");
    wait_for_the_plan_to_be_empty(&machine);
    let first = first.trim();
    // Nothing there waits for its child processes.
    machine.sh(&format!("kill {first}"));
    machine.wait_for(&format!("! readlink /proc/{first}/exe"));
    machine.sh("ip route flush proto 87");
    machine.sh(start);
    wait_for_the_plan_to_be_empty(&machine);
    machine.sh("nmcli --wait 20 connection down wired");
    assert_eq!(machine.node().managed_routes(), Vec::<String>::new());
    machine.sh("nmcli --wait 20 connection up wired");
    wait_for_the_plan_to_be_empty(&machine);
    // With the hook, NAT and sysctls return, too.
    machine.sh(&format!("nmcli --wait 20 connection down wired; rm {script}"));
    install_hook(&machine, "networkmanager-apply", "/etc/NetworkManager/dispatcher.d/90-hostgw-apply");
    assert!(!doctor().contains("NetworkManager"), "{}", doctor());
    machine.sh("nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0; nmcli --wait 20 connection up wired");
    wait_for_the_plan_to_be_empty(&machine);
}

/// Applies everything with the hook of a program, instead of restoring routes without hostgw.
#[track_caller]
fn install_hook(machine: &Machine, program: &str, path: &str) {
    install(machine, &[program], path, "755");
    machine.sh("mkdir -p /etc/hostgw; cp hostgw.yaml /etc/hostgw; cp \"$HOSTGW\" /usr/local/bin/hostgw");
}

const INTERFACES: &str = "auto lo\niface lo inet loopback\n\
                          auto eth0\niface eth0 inet static\n    address 172.30.0.11/24\n";

#[test]
fn ifup_restores_routes() {
    for (name, settings) in [("network", ""), ("ifupdown2", "/etc/network/ifupdown2/ifupdown2.conf")] {
        let Some(machine) = machine(name, &["ifup", "ifdown"]) else { continue };
        if !settings.is_empty() {
            machine.sh(&format!("sed -i 's/^addon_scripts_support=.*/addon_scripts_support=1/' {settings}"));
        }
        machine.write("/etc/network/interfaces", INTERFACES);
        machine.sh("mkdir -p /run/network; rm -rf /etc/network/interfaces.d");
        install(&machine, &["ifupdown"], "/etc/network/if-up.d/hostgw", "755");
        load_nat_and_sysctls(&machine);
        machine.sh("ifup -a");
        wait_for_the_plan_to_be_empty(&machine);
        machine.sh("ifdown eth0");
        assert_eq!(machine.node().managed_routes(), Vec::<String>::new());
        machine.sh("ifup eth0");
        wait_for_the_plan_to_be_empty(&machine);
        machine.sh("ifdown eth0; rm /etc/network/if-up.d/hostgw; nft flush ruleset");
        install_hook(&machine, "ifupdown-apply", "/etc/network/if-up.d/hostgw-apply");
        machine.sh("ifup eth0");
        wait_for_the_plan_to_be_empty(&machine);
    }
}

/// The scripts, called as by their programs.
#[test]
fn scripts_only_add_missing_routes() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &configuration());
        for (program, name, other, own) in [
            ("ifupdown", "hook", "IFACE=lo sh hook", "IFACE=eth0 sh hook"),
            ("networkmanager", "90-hostgw", "sh 90-hostgw lo up", "sh 90-hostgw eth0 up"),
            ("networkmanager", "90-hostgw", "sh 90-hostgw eth0 down", "sh 90-hostgw eth0 dhcp4-change"),
        ] {
            node.sh("ip route flush proto 87");
            node.write(name, &node.hostgw_ok(&["render", "--node", "linux-1", "--persist", program]).stdout);
            assert_eq!(node.try_sh(other).expect(0).stderr, "");
            assert_eq!(node.managed_routes(), Vec::<String>::new(), "{other}");
            assert_eq!(node.try_sh(own).expect(0).stderr, "");
            let routes = node.managed_routes();
            assert_eq!(routes.len(), 3, "{routes:?}");
            assert_eq!(node.try_sh(own).expect(0).stderr, "", "a second run prints nothing");
            assert_eq!(node.managed_routes(), routes);
            // A foreign route in place of one of them stays, whatever its attributes.
            node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.1 proto static");
            let foreign = node.look("ip route show 10.244.1.0/24");
            assert_eq!(node.try_sh(own).expect(0).stderr, "");
            assert_eq!(node.look("ip route show 10.244.1.0/24"), foreign);
            node.sh("ip route del 10.244.1.0/24");
            // A route that the kernel refuses is reported, and does not make the interface fail.
            node.sh("ip route flush proto 87; ip address flush dev eth0; ip link set eth0 down");
            assert_eq!(node.try_sh(own).expect(0).stderr, "", "an interface that is down gets no routes");
            node.sh("ip link set eth0 up");
            node.write("broken", &node.sh(&format!("sed 's/via 10.244.1.1/via 192.0.2.1/' {name}")));
            node.try_sh(&own.replace(name, "broken"))
                .expect(0)
                .warns("hostgw: Error: Nexthop has invalid gateway.");
            node.sh("ip address add 172.30.0.11/24 dev eth0");
        }
    });
}

/// The hooks, called as by their programs.
#[test]
fn hooks_apply_the_configuration_in_etc() {
    each(|privilege| {
        let node = node_with_etc(privilege);
        install_all(&node);
        node.sh("mkdir etc/hostgw; cp hostgw.yaml etc/hostgw");
        let run = |call: &str| in_etc(&node, &format!("PATH=$(dirname \"$HOSTGW\"):$PATH; cd /; {call}"));
        for (other, own) in [
            ("IFACE=lo /etc/network/if-up.d/hostgw-apply", "IFACE=eth0 /etc/network/if-up.d/hostgw-apply"),
            (
                "IFACE=lo /etc/networkd-dispatcher/routable.d/50-hostgw",
                "IFACE=eth0 /etc/networkd-dispatcher/routable.d/50-hostgw",
            ),
            (
                "/etc/NetworkManager/dispatcher.d/90-hostgw-apply eth0 down",
                "/etc/NetworkManager/dispatcher.d/90-hostgw-apply eth0 dhcp4-change",
            ),
        ] {
            node.sh("ip route flush proto 87; nft flush ruleset");
            let outcome = run(other).expect(0);
            assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{other}");
            assert_eq!(node.managed_routes(), Vec::<String>::new(), "{other}");
            // The log names a change, once.
            for message in ["Applied to node linux-1 and verified: ", ""] {
                let outcome = run(own).expect(0);
                assert_eq!(outcome.stdout, "", "{own}");
                assert!(outcome.stderr.starts_with(message), "{outcome}");
                assert_eq!(outcome.stderr.lines().count(), usize::from(!message.is_empty()), "{outcome}");
                node.hostgw(&["plan", "--node", "linux-1", "--detailed-exitcode"]).expect(0);
            }
            // The interface must not fail because of the configuration.
            node.sh("echo 'nodes: [' >etc/hostgw/hostgw.yaml");
            run(own).expect(0).warns("hostgw.yaml");
            node.sh("cp hostgw.yaml etc/hostgw; mv etc/hostgw etc/moved");
            run(own).expect(0);
            node.sh("mv etc/moved etc/hostgw");
        }
    });
}

#[test]
fn unsupported_names_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        let render = |name: &str, arguments: &[&str]| {
            let interface = serde_json::Value::from(name).to_string();
            let text =
                configuration().replace("egressInterface: eth0", &format!("egressInterface: {interface}"));
            node.write("hostgw.yaml", &text);
            node.hostgw(&[&["render", "--node", "linux-1", "--persist"], arguments].concat())
        };
        for name in ["a#b", "a'b", "a\"b", "a\\b"] {
            for program in ["ifupdown", "networkmanager"] {
                render(name, &[program]).expect(3).warns("cannot name the interface a");
            }
            render(name, &["systemd-networkd"]).expect(0);
            render(name, &["netplan"]).expect(64).warns("--netplan-id ID");
            render(name, &["netplan", "--netplan-id", "uplink"])
                .expect(0)
                .says("10-netplan-uplink.network.d");
        }
        for id in ["", "../x", "a b", "a\nb", "é"] {
            render("eth0", &["netplan", "--netplan-id", id]).expect(64).warns("expected letters, digits");
        }
        render("eth0", &["ifupdown", "--netplan-id", "eth0"]).expect(64).warns("--persist netplan");
    });
}

/// Where each file is installed in the tests below.
const INSTALLED: [(&str, &str); 9] = [
    ("systemd-networkd", "/etc/systemd/network/20-wired.network.d/hostgw.conf"),
    ("netplan", "/etc/systemd/network/10-netplan-eth0.network.d/hostgw.conf"),
    ("networkmanager", "/etc/NetworkManager/dispatcher.d/90-hostgw"),
    ("ifupdown", "/etc/network/if-up.d/hostgw"),
    ("nftables", "/etc/nftables.d/hostgw.nft"),
    ("sysctl.d", "/etc/sysctl.d/90-hostgw.conf"),
    ("networkd-dispatcher", "/etc/networkd-dispatcher/routable.d/50-hostgw"),
    ("networkmanager-apply", "/etc/NetworkManager/dispatcher.d/90-hostgw-apply"),
    ("ifupdown-apply", "/etc/network/if-up.d/hostgw-apply"),
];

/// A node whose commands in [`in_etc`] see its folder `etc` as /etc.
fn node_with_etc(privilege: Privilege) -> Namespace {
    let node = node(privilege);
    node.write("hostgw.yaml", &configuration());
    for (_, path) in INSTALLED {
        node.sh(&format!("mkdir -p \"$(dirname .{path})\""));
    }
    node.sh("touch etc/systemd/network/20-wired.network etc/systemd/network/10-netplan-eth0.network");
    node
}

/// Runs a script with the node's own /etc and without systemd-networkd.
fn in_etc(node: &Namespace, script: &str) -> Outcome {
    node.write("script", &format!("hostgw() {{ \"$HOSTGW\" \"$@\"; }}\nnetworkctl() {{ :; }}\n{script}\n"));
    let mut command = node.command("unshare");
    command.args(["-m", "sh", "-c", "mount --bind \"$PWD/etc\" /etc && . ./script"]);
    Outcome::of(node, script, &mut command)
}

/// Renders every file to its place.
#[track_caller]
fn install_all(node: &Namespace) {
    for (program, path) in INSTALLED {
        in_etc(node, &format!("hostgw render --node linux-1 --persist {program} --out {path}")).expect(0);
    }
}

/// The files in the output of a `--json` command, each with its state and its problem.
fn boot_files(outcome: &Outcome) -> Vec<(String, String, String)> {
    let document = outcome.json();
    let schema = if document["managed"].is_object() { "status" } else { "plan" };
    accept(&strict(schema), &outcome.command, &document);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let files = document["bootFiles"].as_array().into_iter().flatten();
    files.map(|file| (text(&file["program"]), text(&file["state"]), text(&file["problem"]))).collect()
}

/// The programs whose files are outdated according to a plan.
fn outdated(node: &Namespace) -> Vec<String> {
    let files = boot_files(&in_etc(node, "hostgw plan --node linux-1 --json"));
    assert_eq!(files.len(), INSTALLED.len(), "{files:?}");
    assert!(files.iter().all(|(_, state, _)| ["current", "outdated"].contains(&state.as_str())), "{files:?}");
    files.into_iter().filter(|(_, state, _)| state == "outdated").map(|(program, ..)| program).collect()
}

#[test]
fn a_file_is_outdated_if_it_would_restore_something_else() {
    const ROUTES: [&str; 4] = ["networkmanager", "ifupdown", "netplan", "systemd-networkd"];
    let less = cluster("", &[NODE_1, NODE_2]);
    each(|privilege| {
        let node = node_with_etc(privilege);
        install_all(&node);
        assert_eq!(outdated(&node), Vec::<String>::new());
        in_etc(&node, "hostgw apply --yes --node linux-1").expect(0);
        let plan = in_etc(&node, "hostgw plan --node linux-1").expect(0);
        assert!(!plan.stdout.contains("Warning"), "{plan}");
        // Comments, and changes that do not concern this node, do not matter.
        let other_address = configuration().replace("172.30.0.13", "172.30.0.14");
        node.write("hostgw.yaml", &format!("# a comment\n{other_address}"));
        assert_eq!(outdated(&node), Vec::<String>::new());
        // Each file depends only on its own part.
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2, NODE_3]));
        assert_eq!(outdated(&node), ["sysctl.d"]);
        node.write("hostgw.yaml", &format!("nat: {{exclude: [192.168.0.0/16]}}\n{}", configuration()));
        assert_eq!(outdated(&node), ["nftables"]);
        node.write("hostgw.yaml", &format!("nat: {{masquerade: false}}\n{}", configuration()));
        assert_eq!(outdated(&node), ["nftables"]);
        for option in ["metric: 7", "mtu: 1400", "table: 100"] {
            node.write("hostgw.yaml", &format!("routes: {{{option}}}\n{}", configuration()));
            assert_eq!(outdated(&node), ROUTES, "{option}");
        }
        node.sh("ip link add eth1 type veth peer name lan1; ip link set eth1 up");
        node.write("hostgw.yaml", &configuration().replace("egressInterface: eth0", "egressInterface: eth1"));
        let scripts =
            ["networkmanager", "networkmanager-apply", "ifupdown", "ifupdown-apply", "networkd-dispatcher"];
        assert_eq!(outdated(&node), scripts, "the others do not name it");
        node.write("hostgw.yaml", &less);
        let mut found = outdated(&node);
        found.retain(|program| program != "sysctl.d");
        assert_eq!(found, ROUTES);
        // As text, with the command that fixes it.
        let plan = in_etc(&node, "hostgw plan --node linux-1").expect(0);
        for (program, path) in INSTALLED.into_iter().take(4) {
            plan.says(&format!(
                "warning[HG0808]: {path} is out of date: it would bring back 10.244.2.0/24\n  help: run `hostgw render -f "
            ));
            plan.says(&format!("/hostgw.yaml --node linux-1 --persist {program} "));
        }
        let document = in_etc(&node, "hostgw apply --yes --node linux-1 --json").expect(0).json();
        assert_eq!(
            document["planned"]["bootFiles"].as_array().map(Vec::len),
            Some(INSTALLED.len()),
            "{document}"
        );
        let status = in_etc(&node, "hostgw status").expect(0);
        status.says("Boot file: /etc/nftables.d/hostgw.nft (for nftables) is up to date\n");
        status.says(
            "Boot file: /etc/network/if-up.d/hostgw (for ifupdown) is out of date: it would bring back",
        );
        for file in in_etc(&node, "hostgw status --json").expect(0).json()["bootFiles"].as_array().unwrap() {
            if let Some(remedy) = file["remedy"].as_str() {
                in_etc(&node, remedy).expect(0);
            }
        }
        assert_eq!(outdated(&node), Vec::<String>::new());
        assert_eq!(
            boot_files(&in_etc(&node, "hostgw status --json"))
                .iter()
                .filter(|file| file.1 != "current")
                .count(),
            0
        );
        assert_eq!(
            node.sh("stat -c %a etc/network/if-up.d/hostgw etc/sysctl.d/90-hostgw.conf"),
            "755\n644\n"
        );
    });
}

/// Other commands that change the state in effect.
#[test]
fn rollback_and_destroy_name_files_that_would_restore_removed_objects() {
    each(|privilege| {
        let node = node_with_etc(privilege);
        let status = || boot_files(&in_etc(&node, "hostgw status --json"));
        in_etc(&node, "hostgw apply --yes --node linux-1").expect(0);
        assert_eq!(status(), []);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        in_etc(&node, "hostgw apply --yes --node linux-1").expect(0);
        let path = "/etc/network/if-up.d/hostgw";
        in_etc(&node, &format!("hostgw render --node linux-1 --persist ifupdown --out {path}")).expect(0);
        assert_eq!(status(), [("ifupdown".to_owned(), "current".to_owned(), String::new())]);
        let rollback = in_etc(&node, "hostgw rollback --yes").expect(0);
        rollback.warns(&format!("{path} is out of date: it lacks 10.244.2.0/24\n  help: run `hostgw render"));
        in_etc(&node, "hostgw rollback --yes").expect(0).warns(&format!(
            "{path} would restore objects that hostgw no longer manages\n  help: run `rm {path}`"
        ));
        assert!(status()[0].2.contains("there is no record of an apply"), "{:?}", status());
        in_etc(&node, "hostgw apply --yes --node linux-1").expect(0);
        in_etc(&node, "hostgw destroy --yes").expect(0).says(&format!("help: run `rm {path}`"));
        assert_eq!(status()[0].1, "outdated");
        in_etc(&node, "hostgw destroy --yes").expect(0).says(&format!("help: run `rm {path}`"));
    });
}

#[test]
fn an_unused_file_is_named() {
    each(|privilege| {
        let node = node_with_etc(privilege);
        install_all(&node);
        node.sh("rm etc/systemd/network/10-netplan-eth0.network
                 chmod 644 etc/NetworkManager/dispatcher.d/90-hostgw
                 mv etc/network/if-up.d/hostgw etc/network/if-up.d/hostgw.sh
                 mv etc/sysctl.d/90-hostgw.conf etc/sysctl.d/90-hostgw");
        let plan = in_etc(&node, "hostgw plan --node linux-1").expect(0);
        plan.says(
            "10-netplan-eth0.network.d/hostgw.conf has no effect: 10-netplan-eth0.network does not exist",
        );
        plan.says("90-hostgw has no effect: it is not executable\n  help: run `chmod 755 /etc/NetworkManager/dispatcher.d/90-hostgw`");
        plan.says("/etc/network/if-up.d/hostgw.sh has no effect: run-parts ignores");
        plan.says("/etc/sysctl.d/90-hostgw has no effect: its name does not end in .conf");
        node.sh("chmod 777 etc/NetworkManager/dispatcher.d/90-hostgw");
        in_etc(&node, "hostgw plan --node linux-1").expect(0).says("users other than root can modify it");
        // Rendered for another machine and copied.
        in_etc(&node, "hostgw render --node linux-2 --persist sysctl.d --out /etc/sysctl.d/90-hostgw.conf")
            .expect(0);
        in_etc(&node, "hostgw plan --node linux-1").expect(0).says("it is for node linux-2, not linux-1");
    });
}

/// A plan neither fails nor hangs because of any file in these folders.
#[test]
fn foreign_and_damaged_files_are_ignored() {
    each(|privilege| {
        let node = node_with_etc(privilege);
        let quiet = in_etc(&node, "hostgw plan --node linux-1").expect(0).stdout;
        node.sh("cd etc/sysctl.d
                 mkfifo fifo.conf; ln -s /dev/zero zero.conf; ln -s nowhere gone.conf; mkdir folder.conf
                 printf '\\377# hostgw-persist: {}\\n' >bytes.conf; : >empty.conf
                 printf '[Route]\\n' >../systemd/network/20-wired.network.d/own.conf
                 truncate -s 65M large.conf; touch closed.conf; chmod 000 closed.conf");
        assert_eq!(in_etc(&node, "hostgw plan --node linux-1").expect(0).stdout, quiet);
        let path = "/etc/sysctl.d/90-hostgw.conf";
        in_etc(&node, &format!("hostgw render --node linux-1 --persist sysctl.d --out {path}")).expect(0);
        for (damage, problem) in [
            ("s/\"format\":1/\"format\":2/", "it has format 2"),
            ("s/\"node\"/\"name\"/", "its second line is damaged"),
            ("s/^\\(# hostgw-persist: {\\).*/\\1/", "its second line is damaged"),
            ("s/sysctl.d\"/\\x1b[31m\"/", "its second line is damaged"),
        ] {
            node.sh(&format!("cp .{path} good; sed -i '{damage}' .{path}"));
            in_etc(&node, "hostgw plan --node linux-1")
                .expect(0)
                .says(&format!("{path} could not be checked: {problem}"));
            node.sh(&format!("mv good .{path}"));
        }
        // A name that would control a terminal.
        node.sh(&format!("sed -i 's/linux-1\"/\\\\u001b[31m\\\\u202e\"/' .{path}"));
        in_etc(&node, "hostgw plan --node linux-1")
            .expect(0)
            .says("it is for node \\u{1b}[31m\\u{202e}, not linux-1");
    });
}

#[test]
fn render_writes_a_file_completely_or_not_at_all() {
    each(|privilege| {
        let node = node_with_etc(privilege);
        let render = |path: &str| {
            node.hostgw(&["render", "--node", "linux-1", "--persist", "ifupdown", "--out", path])
        };
        let text = node.hostgw_ok(&["render", "--node", "linux-1", "--persist", "ifupdown"]).stdout;
        node.sh("echo own >own; ln -s own link; mkfifo fifo; mkdir folder; echo old >old; chmod 600 old");
        for path in ["link", "fifo", "folder", "missing/file"] {
            render(path).expect(1).warns("cannot write");
        }
        assert_eq!(node.sh("cat own; ls -A | grep new || true"), "own\n");
        for path in ["new", "old"] {
            assert_eq!(render(path).expect(0).stdout, "");
            assert_eq!(node.sh(&format!("cat {path}")), text);
            assert_eq!(node.sh(&format!("stat -c %a {path}")), "755\n");
        }
        node.write("hostgw.yaml", "nodes: [");
        render("old").expect(3);
        assert_eq!(node.sh("cat old"), text, "a configuration with a mistake leaves the file as it was");
    });
}

/// The route of a removed node returns at the next reload, unless the file is updated.
#[test]
fn a_stale_drop_in_restores_a_route_until_its_remedy_is_applied() {
    let Some(machine) = machine("network", &NETWORKD) else { return };
    let drop_in = "/etc/systemd/network/20-wired.network.d/hostgw.conf";
    machine.write("/etc/systemd/network/20-wired.network", STATIC_NETWORK);
    start_networkd(&machine, "eth0");
    machine.hostgw(&["apply", "--yes"]).expect(0);
    install(&machine, &["systemd-networkd"], drop_in, "644");
    // A reload reconfigures the interface: once these routes are back, it has its address.
    flush_and(&machine, "networkctl reload");
    wait_for_the_plan_to_be_empty(&machine);
    machine.node().write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
    machine
        .hostgw(&["apply", "--yes", "--node", "linux-1"])
        .expect(0)
        .says(&format!("{drop_in} is out of date: it would bring back 10.244.2.0/24"));
    machine.sh("networkctl reconfigure eth0");
    machine.wait_for("ip route show 10.244.2.0/24 | grep -q 'proto 87'");
    let plan = machine.hostgw(&["plan", "--node", "linux-1", "--json"]).expect(0).json();
    assert_eq!(plan["totals"]["remove"], 1, "{plan}");
    let remedy = plan["bootFiles"][0]["remedy"].as_str().expect("a remedy").to_owned();
    machine.hostgw(&["apply", "--yes", "--node", "linux-1"]).expect(0);
    machine.sh(&format!("hostgw() {{ \"$HOSTGW\" \"$@\"; }}\n{remedy}"));
    reconfigure(&machine, "eth0");
    machine
        .hostgw(&["status"])
        .expect(0)
        .says(&format!("Boot file: {drop_in} (for systemd-networkd) is up to date"));
}
