//! Compares the model of forwarding with the kernel, on random nodes.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use super::*;
use crate::{
    config::{self, Document, Format},
    forwarding::ForwardingModel,
    kernel::{
        LiveNode,
        testing::{in_namespace, sh},
    },
    model::Cluster,
    plan::{self, Observed, OriginalSysctls},
};

/// A reproducible sequence of numbers (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[usize::try_from(self.roll(items.len() as u64)).expect("an index")]
    }
}

const DEVICES: [&str; 3] = ["eth0", "cni0", "eth1"];
const TABLES: [&str; 4] = ["main", "101", "102", "70000"];

/// Prefixes and addresses that overlap each other in many ways.
fn prefixes(family: Family) -> [&'static str; 9] {
    match family {
        Family::V4 => [
            "10.244.0.0/16",
            "10.244.1.0/24",
            "10.244.1.128/25",
            "10.244.2.0/24",
            "10.244.0.0/24",
            "10.244.0.16/28",
            "172.30.0.0/24",
            "0.0.0.0/0",
            "10.244.1.10/32",
        ],
        Family::V6 => [
            "fd00:244::/48",
            "fd00:244:0:1::/64",
            "fd00:244:0:1:8000::/65",
            "fd00:244:0:2::/64",
            "fd00:244::/64",
            "fd00:244::10/124",
            "fd00:30::/64",
            "::/0",
            "fd00:244:0:1::10/128",
        ],
    }
}

fn addresses(family: Family) -> [&'static str; 12] {
    match family {
        Family::V4 => [
            "10.244.0.1",
            "10.244.0.10",
            "10.244.0.20",
            "10.244.0.255",
            "10.244.1.10",
            "10.244.1.200",
            "10.244.2.3",
            "172.30.0.11",
            "172.30.0.12",
            "192.0.2.7",
            "8.8.8.8",
            "192.168.7.7",
        ],
        Family::V6 => [
            "fd00:244::1",
            "fd00:244::10",
            "fd00:244::20",
            "fd00:244::ffff",
            "fd00:244:0:1::10",
            "fd00:244:0:1:9000::1",
            "fd00:244:0:2::3",
            "fd00:30::11",
            "fd00:30::12",
            "2001:db8::7",
            "2600::1",
            "fd00:7::7",
        ],
    }
}

/// The gateways on each device.
fn gateway(family: Family, device: &str, dice: &mut Dice) -> String {
    let host = 2 + dice.roll(90);
    match (family, device) {
        (Family::V4, "eth0") => format!("172.30.0.{}", 12 + host),
        (Family::V4, "cni0") => format!("10.244.0.{}", 30 + host),
        (Family::V4, _) => format!("192.168.7.{}", 10 + host),
        (Family::V6, "eth0") => format!("fd00:30::{:x}", 0x20 + host),
        (Family::V6, "cni0") => format!("fd00:244::{:x}", 0x30 + host),
        (Family::V6, _) => format!("fd00:7::{:x}", 0x10 + host),
    }
}

/// Commands for `ip -batch -force`: not all of them have to succeed.
fn configure(family: Family, dice: &mut Dice) -> String {
    let mut batch = String::new();
    for _ in 0..dice.roll(10) {
        let (prefix, table) = (dice.pick(&prefixes(family)), dice.pick(&TABLES));
        let metric = if dice.one_in(4) { format!(" metric {}", 1 + dice.roll(3)) } else { String::new() };
        let target = match dice.roll(11) {
            0 => format!("blackhole {prefix}"),
            1 => format!("unreachable {prefix}"),
            2 => format!("prohibit {prefix}"),
            3 => format!("throw {prefix}"),
            4 => format!("{prefix} dev {}", dice.pick(&DEVICES)),
            5 if family == Family::V6 => {
                let device = dice.pick(&DEVICES);
                let source =
                    dice.pick(&["fd00:244::/48", "fd00:244::/64", "fd00:244:0:1::/64", "fd00:30::/64"]);
                format!("{prefix} from {source} via {} dev {device}", gateway(family, device, dice))
            }
            5 => {
                let device = dice.pick(&DEVICES);
                format!("{prefix} via {} dev {device} advmss 1200", gateway(family, device, dice))
            }
            _ if dice.one_in(6) => {
                let mut hop = || {
                    let device = dice.pick(&DEVICES);
                    format!("nexthop via {} dev {device}", gateway(family, device, dice))
                };
                format!("{prefix} {} {}", hop(), hop())
            }
            _ => {
                let device = dice.pick(&DEVICES);
                format!("{prefix} via {} dev {device}", gateway(family, device, dice))
            }
        };
        let protocol = if dice.one_in(4) { " proto 87" } else { "" };
        let _ = writeln!(batch, "route add {target} table {table}{metric}{protocol}");
    }
    for _ in 0..dice.roll(5) {
        let mut rule = format!("rule add pref {}", 1 + dice.roll(5) * 100);
        if dice.one_in(5) {
            rule.push_str(" not");
        }
        let mut selects = false;
        // IPv6 looks up forwarded packets for user 0 of the machine, which a user namespace may not have.
        if family == Family::V4 && dice.one_in(8) {
            rule.push_str(dice.pick(&[" uidrange 0-0", " uidrange 1-4000000000"]));
            selects = true;
        }
        for (word, chance) in [("from", 2), ("to", 3)] {
            if dice.one_in(chance) {
                let _ = write!(rule, " {word} {}", dice.pick(&prefixes(family)));
                selects = true;
            }
        }
        for word in ["iif", "oif"] {
            if dice.one_in(5) {
                let _ = write!(rule, " {word} {}", dice.pick(&["eth0", "cni0", "eth1", "lo", "gone0"]));
                selects = true;
            }
        }
        if dice.one_in(8) {
            rule.push_str(dice.pick(&[
                " fwmark 0x4000/0x4000",
                " fwmark 1",
                " ipproto tcp",
                " fwmark 0/0xff",
            ]));
            selects = true;
        }
        if !selects {
            rule.push_str(" from all");
        }
        let action = match dice.roll(10) {
            0 => " blackhole".to_owned(),
            1 => " unreachable".to_owned(),
            2 => " prohibit".to_owned(),
            3 => format!(" goto {}", 1 + dice.roll(5) * 100),
            4 => " nop".to_owned(),
            6 => format!(" lookup {} suppress_ifgroup {}", dice.pick(&TABLES), dice.roll(3)),
            5 => format!(
                " lookup {} suppress_prefixlength {}",
                dice.pick(&TABLES),
                dice.pick(&["0", "16", "24"])
            ),
            _ => format!(" lookup {}", dice.pick(&TABLES)),
        };
        let _ = writeln!(batch, "{rule}{action}");
    }
    batch
}

fn sysctls(dice: &mut Dice) -> String {
    let mut script = String::new();
    let mut set = |name: String, value: u64| {
        let _ = writeln!(script, "echo {value} >/proc/sys/net/{name}");
    };
    set("ipv4/ip_forward".to_owned(), u64::from(!dice.one_in(6)));
    set("ipv6/conf/all/forwarding".to_owned(), u64::from(!dice.one_in(6)));
    for device in ["all", "eth0", "cni0", "eth1"] {
        set(
            format!("ipv4/conf/{device}/rp_filter"),
            [0, 0, 1, 2][usize::try_from(dice.roll(4)).expect("small")],
        );
        if dice.one_in(4) && device != "all" {
            set(format!("ipv4/conf/{device}/forwarding"), 0);
        }
        if dice.one_in(5) {
            set(format!("ipv4/conf/{device}/accept_local"), 1);
        }
        if dice.one_in(3) {
            set(format!("ipv4/conf/{device}/send_redirects"), dice.roll(2));
        }
    }
    script
}

/// A node of random rules, routes and sysctls answers every question as the model does.
fn compare(seed: u64) {
    let mut dice = Dice(seed);
    let batches = Family::ALL.map(|family| configure(family, &mut dice));
    let without_address = dice.one_in(8);
    let mut script = String::from(
        "ip link set lo up
         ip link add eth0 type veth peer name peer0; ip link add eth1 type veth peer name peer1
         ip link add cni0 type bridge
         for i in eth0 peer0 eth1 peer1 cni0; do ip link set $i up; done
         ip link set eth1 group 1; ip link set cni0 group 2
         ip addr add 172.30.0.11/24 dev eth0; ip addr add 10.244.0.1/24 dev cni0
         ip -6 addr add fd00:30::11/64 dev eth0 nodad; ip -6 addr add fd00:244::1/64 dev cni0 nodad
         ip -6 addr add fd00:7::1/64 dev eth1 nodad\n",
    );
    if !without_address {
        script.push_str("ip addr add 192.168.7.1/24 dev eth1\n");
    }
    if dice.one_in(4) {
        // The addresses of the pods that stand for those of n3.
        script.push_str(
            "ip addr add 10.244.3.10/32 dev eth1; ip -6 addr add fd00:244:0:3::a/128 dev eth1 nodad\n",
        );
    }
    script.push_str(&sysctls(&mut dice));
    for (option, batch) in ["", "-6"].into_iter().zip(&batches) {
        let _ = writeln!(script, "ip {option} -force -batch - 2>/dev/null <<'END' || true\n{batch}END");
    }
    sh(&script);
    // The kernel adds the local routes of IPv6 addresses some time after the addresses.
    let local = "ip -6 route show table local type local proto kernel";
    while sh(local).lines().filter(|line| line.contains("fd00:")).count() < 3 {
        thread::sleep(std::time::Duration::from_millis(10));
    }
    let observed = LiveNode.everything().expect("a node");
    let model = ForwardingModel::of(&observed.state, &observed.host);
    let mut packets = Vec::new();
    for family in Family::ALL {
        for source in addresses(family) {
            for destination in addresses(family) {
                let parse = |address: &str| address.parse::<IpAddr>().expect("an address");
                let (source, destination) = (parse(source), parse(destination));
                let mut packet = |input| packets.push(Packet { source, destination, input });
                DEVICES.into_iter().for_each(|input| packet(Some(input.into())));
                // A node only sends packets from its own addresses.
                if observed.host.uses(source) {
                    packet(None);
                }
            }
        }
    }
    // Twice, which is enough for several threads.
    let asked: Vec<Packet> = packets.iter().chain(&packets).cloned().collect();
    assert!(asked.len() >= 2 * MIN_PER_THREAD);
    let answers = verdicts(&asked).expect("answers");
    let (verdicts, again) = answers.split_at(packets.len());
    assert_eq!(verdicts, again, "seed {seed}");
    let mut kinds = BTreeSet::new();
    for (packet, verdict) in packets.iter().zip(verdicts) {
        let trace = model.trace(packet);
        kinds.insert(format!("{:?}", std::mem::discriminant(verdict)));
        assert_eq!(
            &trace.verdict,
            verdict,
            "seed {seed}, {packet}: the model follows {:?} and {:?}, stopped by {:?}\n{script}\n{}",
            trace.rule.map(ToString::to_string),
            trace.route.map(ToString::to_string),
            trace.stop,
            sh(
                "ip rule; ip route show table all | grep -v '^broadcast'; ip -6 rule; ip -6 route show table all"
            ),
        );
    }
    compare_ranks(&observed, seed);
    assert!(kinds.len() >= 2 || seed != 0, "all answers are of one kind");
}

/// The cluster of a random node.
fn cluster() -> Cluster {
    let mut text = String::from(
        "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\nnextHop: node-address\nnodes:\n",
    );
    for node in 0..6 {
        let _ = writeln!(
            text,
            "  - {{name: n{node}, os: linux, podCIDR: [10.244.{node}.0/24, 'fd00:244:0:{node}::/64'], \
             address: [172.30.0.{}, 'fd00:30::{}']}}",
            11 + node,
            11 + node
        );
    }
    let document = Document::new("hostgw.yaml", text, Format::Yaml);
    config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

/// Judging one of the nodes that are alike gives the same result as judging all of them, by the model and by the kernel.
fn compare_ranks(observed: &Observed, seed: u64) {
    let cluster = cluster();
    let desired = plan::desired(&cluster, 0, &OriginalSysctls::default()).expect("a Linux node");
    let paths = plan::paths(&cluster, 0, &desired, observed);
    assert!(paths.iter().count() >= 20, "seed {seed}");
    // A plan removes the routes with hostgw's protocol that are not desired.
    let kept = observed.state.routes.iter().filter(|route| !route.is_owned());
    let routes = kept.chain(&desired.state.routes);
    let model = ForwardingModel::new(routes, &observed.state.sysctls, &observed.host);
    let all = paths
        .judge(|packets| Ok::<_, ()>(packets.iter().map(|packet| model.trace(packet).verdict).collect()));
    assert_eq!(Ok(paths.rank_by(&model)), all, "seed {seed}");
    let alike = paths.judge_alike(&observed.state.routes, verdicts);
    assert_eq!(alike, paths.judge(verdicts), "seed {seed}");
}

/// 100 nodes with 864 questions each; `HOSTGW_WHOLE=1` asks ten times as many.
#[test]
fn the_model_of_forwarding_agrees_with_the_kernel() {
    let nodes = if std::env::var_os("HOSTGW_WHOLE").is_some() { 1000 } else { 100 };
    let first = std::env::var("HOSTGW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + nodes {
        in_namespace(move || compare(seed));
    }
}
