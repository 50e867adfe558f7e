//! A rendered Linux script keeps foreign changes: sysctls, the NAT table, IPv6 routes. Untrusted names cannot control
//! the terminal.

use super::{NODE_1, NODE_2, NODE_3, cluster, dual_stack, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, each, is_root, programs};

const SHELLS: [&str; 3] = ["sh", "busybox sh", "bash --posix"];
const FILTER: &str = "net.ipv4.conf.all.rp_filter";
const LAN: &str = "net.ipv4.conf.lan0.forwarding";
const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";

fn write(node: &Namespace, key: &str, value: &str) {
    node.sh(&format!("echo '{value}' >/proc/sys/{}", key.replace('.', "/")));
}

fn render(node: &Namespace, configuration: &str) {
    node.write("hostgw.yaml", configuration);
    node.write("node.sh", &node.hostgw_ok(&["render", "--node", "linux-1"]).stdout);
}

/// With busybox as the shell, awk is busybox's as well.
fn script(shell: &str, node: &Namespace, options: &str) -> Outcome {
    if shell.starts_with("busybox") {
        node.sh("mkdir -p awk; ln -sf $(command -v busybox) awk/awk");
        return node
            .try_sh(&format!("HOSTGW_STATE_DIR=$PWD/scripts PATH=$PWD/awk:$PATH {shell} node.sh {options}"));
    }
    node.try_sh(&format!("HOSTGW_STATE_DIR=$PWD/scripts {shell} node.sh {options}"))
}

/// Same, with a program replaced by a shell script that can call the real one as `$REAL/NAME`.
fn script_with(shell: &str, node: &Namespace, name: &str, program: &str) -> Outcome {
    let real = programs::find(name);
    let real = real.parent().expect("a folder").display();
    node.write("program", &format!("#!/bin/sh\nREAL={real}\n{program}\n"));
    node.sh(&format!("rm -rf bin; mkdir bin; mv program bin/{name}; chmod 755 bin/{name}"));
    node.try_sh(&format!("HOSTGW_STATE_DIR=$PWD/scripts PATH=$PWD/bin:$PATH {shell} node.sh"))
}

fn configuration(head: &str) -> String {
    cluster(head, &[NODE_1, NODE_2, NODE_3])
}

/// Asserts that no record is open, which the script would report.
fn assert_no_open_record(node: &Namespace, shell: &str) {
    script(shell, node, "--undo").expect(0).says("Nothing to undo");
}

#[test]
fn an_undo_does_not_overwrite_a_foreign_sysctl() {
    each(|privilege| {
        for shell in SHELLS {
            let node = node(privilege);
            render(&node, &configuration(&format!("sysctls: {{{FILTER}: 2}}")));
            write(&node, FILTER, "0");
            let before = node.witness();
            script(shell, &node, "").expect(0);
            write(&node, FILTER, "1");
            let outcome = script(shell, &node, "--undo").expect(7);
            outcome
                .warns("# net.ipv4.conf.all.rp_filter = 1 was set by another program: hostgw had set 2; the original value is 0")
                .warns("--undo --abandon");
            assert_eq!(
                (node.sysctl(FILTER).as_str(), node.sysctl("net.ipv4.ip_forward").as_str()),
                ("1", "0")
            );
            assert!(node.managed_routes().is_empty(), "everything else is restored");
            // Whichever shell runs it, and however often.
            script(shell, &node, "").expect(7).warns("rp_filter = 1 was set by another program");
            script(shell, &node, "--undo --abandon")
                .expect(0)
                .warns("rp_filter = 1 was set by another program");
            assert_eq!(node.sysctl(FILTER), "1");
            assert_no_open_record(&node, shell);
            write(&node, FILTER, "0");
            node.assert_unchanged(&before, "an undo that abandoned a foreign value");
            // Setting it to the original or to the written value resolves the conflict.
            for resolved in ["0", "2"] {
                script(shell, &node, "").expect(0);
                write(&node, FILTER, "1");
                script(shell, &node, "--undo").expect(7);
                write(&node, FILTER, resolved);
                script(shell, &node, "--undo").expect(0);
                node.assert_unchanged(&before, "an undo once the conflict is gone");
            }
        }
    });
}

/// Disabling forwarding makes the kernel rewrite these values, so they are written again.
#[test]
fn a_foreign_value_survives_the_side_effects_of_an_undo() {
    each(|privilege| {
        let node = node(privilege);
        render(&node, &configuration(&format!("sysctls: {{{LAN}: 0}}")));
        write(&node, REDIRECTS, "0");
        let before = node.witness();
        script("sh", &node, "").expect(0);
        node.sh("ip link add new0 type bridge");
        // Neither the previous values, nor those of the script, nor those that the switch sets when it is disabled.
        write(&node, LAN, "1");
        write(&node, REDIRECTS, "1");
        let outcome = script("sh", &node, "--undo").expect(7);
        outcome.warns(&format!("{LAN} = 1")).warns(&format!("{REDIRECTS} = 1"));
        let values = |node: &Namespace| [LAN, REDIRECTS, "net.ipv4.ip_forward"].map(|key| node.sysctl(key));
        assert_eq!(values(&node), ["1", "1", "0"]);
        script("sh", &node, "--undo").expect(7);
        assert_eq!(values(&node), ["1", "1", "0"]);
        script("sh", &node, "--undo --abandon").expect(0);
        assert_eq!(values(&node), ["1", "1", "0"]);
        write(&node, LAN, "0");
        write(&node, REDIRECTS, "0");
        node.sh("ip link del new0");
        node.assert_unchanged(&before, "an undo");
    });
}

/// A new interface was never managed: its value survives the switch as well.
#[test]
fn a_new_interface_keeps_its_value() {
    each(|privilege| {
        let node = node(privilege);
        let key = "net.ipv6.conf.new0.ignore_routes_with_linkdown";
        let all = "net.ipv6.conf.all.ignore_routes_with_linkdown";
        render(&node, &configuration(&format!("sysctls: {{{all}: 1}}")));
        script("sh", &node, "").expect(0);
        node.sh("ip link add new0 type bridge");
        write(&node, key, "7");
        script("sh", &node, "--undo").expect(0);
        assert_eq!((node.sysctl(all).as_str(), node.sysctl(key).as_str()), ("0", "7"));
    });
}

/// The kernel prints several numbers separated by tabs, and accepts them separated by spaces.
#[test]
fn several_numbers_are_compared_as_one_value() {
    each(|privilege| {
        for shell in SHELLS {
            let node = node(privilege);
            let (ports, memory) = ("net.ipv4.ip_local_port_range", "net.ipv4.tcp_rmem");
            write(&node, ports, "32768 60999");
            write(&node, memory, "4096 131072 6291456");
            let before = node.witness();
            render(
                &node,
                &configuration(&format!("sysctls: {{{ports}: 20000 60000, {memory}: 4096   5000 6000000}}")),
            );
            script(shell, &node, "").expect(0).says("~ net.ipv4.ip_local_port_range = 20000 60000");
            script(shell, &node, "").expect(0).says("No changes");
            script(shell, &node, "--undo").expect(0);
            node.assert_unchanged(&before, "apply and undo");
            script(shell, &node, "").expect(0);
            write(&node, memory, "4096 5000 6000001");
            script(shell, &node, "--undo")
                .expect(7)
                .warns("net.ipv4.tcp_rmem = 4096 5000 6000001 was set by another program");
            assert_eq!(node.sysctl(ports), "32768\t60999");
        }
    });
}

/// A value that the kernel normalizes or stores only partly is not foreign.
#[test]
fn a_value_that_the_kernel_changes_is_restored() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for invalid in ["net.ipv4.ip_default_ttl: '0x41'", "net.ipv4.tcp_rmem: '5000 0 6000000'"] {
            render(&node, &configuration(&format!("sysctls: {{{invalid}}}")));
            script("sh", &node, "").expect(6).warns("the kernel stored");
            node.assert_unchanged(&before, invalid);
            assert_no_open_record(&node, "sh");
        }
    });
}

/// A kill after the write, and a concurrent change.
#[test]
fn an_interrupted_run_keeps_a_foreign_sysctl() {
    each(|privilege| {
        let node = node(privilege);
        write(&node, FILTER, "0");
        write(&node, LAN, "1");
        render(&node, &configuration(&format!("sysctls: {{{FILTER}: 2}}")));
        // A script reads a sysctl with tr, directly after the write.
        let kill = "case $(readlink /proc/self/fd/0) in *rp_filter) kill -KILL $(cat script.pid) ;; esac\nexec $REAL/tr \"$@\"";
        node.write("wrapper", "echo $$ >script.pid; exec \"$@\"\n");
        let outcome = script_with("sh wrapper sh", &node, "tr", kill);
        assert_ne!(outcome.code, 0, "{outcome}");
        super::render::await_lock(&node);
        assert_eq!(node.sysctl(FILTER), "2", "{outcome}");
        write(&node, FILTER, "1");
        write(&node, LAN, "0");
        let undone = script("sh", &node, "--undo").expect(7);
        undone
            .warns("rp_filter = 1 was set by another program")
            .warns("lan0.forwarding = 0 was set by another program");
        script("sh", &node, "--undo --abandon").expect(0);
        assert_eq!([FILTER, LAN, "net.ipv4.ip_forward"].map(|key| node.sysctl(key)), ["1", "0", "0"]);
    });
}

/// Objects that another program adds to the table just before or during the write are not lost.
#[test]
fn foreign_objects_added_to_the_table_are_kept() {
    each(|privilege| {
        for (shell, foreign) in SHELLS.into_iter().zip([
            "add set ip hostgw theirs { type ipv4_addr; }",
            "add rule ip hostgw postrouting ip daddr 192.0.2.1 counter",
            "add chain ip hostgw theirs",
        ]) {
            let node = node(privilege);
            render(&node, &configuration(""));
            script(shell, &node, "").expect(0);
            render(&node, &configuration("nat: {exclude: [192.168.0.0/16]}"));
            // Before the script reads the table again: nothing is written.
            let early = format!(
                "[ \"$1\" != -a ] || {{ touch looked; [ \"$(wc -c <looked)\" != 2 ] || $REAL/nft '{foreign}'; printf x >>looked; }}\nexec $REAL/nft \"$@\""
            );
            let outcome = script_with(shell, &node, "nft", &early).expect(6);
            outcome.warns("another program changed the table ip hostgw");
            let ruleset = node.look("nft list ruleset");
            assert!(!ruleset.contains("192.168.0.0"), "{ruleset}");
            assert!(ruleset.contains("theirs") || ruleset.contains("192.0.2.1"), "{foreign}: {ruleset}");
            assert_no_open_record_of_this_run(&node);
            // During the write: the object survives it, and is reported.
            let node = self::node(privilege);
            render(&node, &configuration(""));
            script(shell, &node, "").expect(0);
            render(&node, &configuration("nat: {exclude: [192.168.0.0/16]}"));
            let late = format!("[ \"$1\" != -f ] || $REAL/nft '{foreign}'\nexec $REAL/nft \"$@\"");
            let outcome = script_with(shell, &node, "nft", &late).expect(7);
            outcome.warns("another program changed the table ip hostgw");
            let ruleset = node.look("nft list ruleset");
            assert!(ruleset.contains("theirs") || ruleset.contains("192.0.2.1"), "{foreign}: {ruleset}");
            script(shell, &node, "--undo --abandon").expect(0);
            assert_eq!(node.look("nft list ruleset"), ruleset);
        }
    });
}

fn assert_no_open_record_of_this_run(node: &Namespace) {
    assert_eq!(node.try_sh("ls -d scripts/script-*/open").code, 2);
}

/// A foreign rule in place of a managed one is not removed.
#[test]
fn an_undo_keeps_a_table_with_foreign_changes() {
    each(|privilege| {
        let node = node(privilege);
        render(&node, &configuration(""));
        script("sh", &node, "").expect(0);
        node.sh("nft add set ip hostgw theirs '{ type ipv4_addr; }'");
        let ruleset = node.look("nft -s list ruleset");
        script("sh", &node, "--undo").expect(7).warns("another program changed the table ip hostgw");
        assert_eq!(node.look("nft -s list ruleset"), ruleset);
        assert!(node.managed_routes().is_empty());
        node.sh("nft delete set ip hostgw theirs");
        script("sh", &node, "--undo").expect(0);
        assert_eq!(node.look("nft list ruleset"), "");
    });
}

/// All kinds of objects are replaced and restored, including another chain type and table flags.
#[test]
fn a_table_with_all_kinds_of_objects_is_replaced_and_restored() {
    each(|privilege| {
        for (shell, start) in SHELLS.into_iter().zip([
            "table ip hostgw {
                counter c { }
                set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
                map m { type ipv4_addr : verdict; elements = { 192.0.2.1 : jump other }; }
                chain other { }
                chain postrouting {
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr @s counter name c comment \"a # handle 3\"
                    ip daddr vmap @m
                    jump other
                }
             }",
            "table ip hostgw { chain postrouting { type nat hook postrouting priority 50; policy accept; counter masquerade; }; }",
            "table ip hostgw { flags dormant; chain postrouting { type nat hook postrouting priority srcnat; policy accept; counter; }; }",
        ]) {
            let node = node(privilege);
            node.write("start", &format!("{start}\n"));
            node.sh("nft -f start");
            render(&node, &configuration(""));
            let before = node.witness();
            script(shell, &node, "").expect(0);
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0);
            script(shell, &node, "").expect(0).says("No changes");
            script(shell, &node, "--undo").expect(0);
            node.assert_unchanged(&before, start);
        }
    });
}

/// The script never replaces a route: a foreign one that is added between its read and its write stays.
#[test]
fn a_foreign_ipv6_route_added_concurrently_is_kept() {
    each(|privilege| {
        for shell in SHELLS {
            let node = node(privilege);
            node.sh("ip address add fd00:30::11/64 dev eth0 nodad");
            node.await_ipv6_addresses();
            render(&node, &format!("nextHop: node-address\n{}", dual_stack::CLUSTER));
            script(shell, &node, "").expect(0);
            let route = node.sh("ip -6 -o route show proto 87 | grep -m 1 via");
            let destination = route.split_whitespace().next().expect("a route");
            node.sh(&format!(
                "ip -6 route del {destination}; ip -6 route add {destination} via fd00:30::9 dev eth0 proto 87"
            ));
            // The managed route is gone when the batch runs, and another one has its place.
            let swap = format!(
                "case $* in *-6*-batch*) [ -e swapped ] || {{ touch swapped; $REAL/ip -6 route del {destination}
                 $REAL/ip -6 route add {destination} via fd00:30::8 dev eth0 proto static; }} ;; esac\nexec $REAL/ip \"$@\""
            );
            let outcome = script_with(shell, &node, "ip", &swap);
            assert!(matches!(outcome.code, 6 | 7), "{outcome}");
            let live = node.look("ip -6 route show");
            assert!(live.contains("via fd00:30::8"), "{outcome}{live}");
            assert!(!live.contains("4294967294"), "{live}");
            node.sh(&format!("ip -6 route del {destination} via fd00:30::8"));
            script(shell, &node, "--undo").expect(0);
        }
    });
}

/// Changes and restores the gateway, the MTU and the number of next hops, with and without another route that has the
/// same next hop.
#[test]
fn ipv6_routes_are_changed_individually() {
    each(|privilege| {
        for (at, change) in [
            "ip -6 route del $D; ip -6 route add $D via fd00:30::9 dev eth0 proto 87",
            "ip -6 route del $D; ip -6 route add $D via $G dev eth0 proto 87 mtu 1300",
            "ip -6 route del $D; ip -6 route add $D dev eth0 proto 87",
            "ip -6 route del $D; ip -6 route add $D via fd00:30::9 dev eth0 proto 87; ip -6 route append $D via fd00:30::8 dev eth0 proto 87",
            "ip -6 route del $D; ip -6 route add $D via fd00:30::9 dev eth0 proto 87 mtu 1300; ip -6 route append $D via fd00:30::8 dev eth0 proto 87 mtu 1300",
            "ip -6 route append fd00:244::/48 dev lan0 proto 87",
        ]
        .into_iter()
        .enumerate()
        {
            let shell = SHELLS[at % 3];
            let node = node(privilege);
            node.sh("ip address add fd00:30::11/64 dev eth0 nodad");
            node.await_ipv6_addresses();
            render(&node, dual_stack::CLUSTER);
            script(shell, &node, "").expect(0);
            let after = node.witness();
            let route = node.sh("ip -6 -o route show proto 87 | grep -m 1 via");
            let words: Vec<&str> = route.split_whitespace().collect();
            node.sh(&format!("D={} G={}; {change}", words[0], words[2]));
            let before = node.witness();
            script(shell, &node, "").expect(0);
            node.assert_unchanged(&after, change);
            node.hostgw(&["plan", "--detailed-exitcode"]).expect(0);
            script(shell, &node, "--undo").expect(0);
            node.assert_unchanged(&before, change);
        }
    });
}

/// Terminal sequences, and characters that hide or reorder others. An interface can have such a name.
const HOSTILE: &str = "\u{1b}[5m\u{9b}\u{202e}";

fn is_hostile(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || (c.is_control() && c != '\n')
}

#[track_caller]
fn assert_harmless(outcome: &Outcome) {
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(!text.contains(is_hostile), "{}", text.escape_debug());
}

/// Conflicts, plans, messages of ip itself, remaining commands, and options.
#[test]
fn no_name_controls_the_terminal() {
    each(|privilege| {
        for shell in SHELLS {
            let node = node(privilege);
            render(&node, &configuration(""));
            node.sh(&format!(
                "ip link add '{HOSTILE}' type bridge; ip link set '{HOSTILE}' up; ip address add 172.31.0.1/24 dev '{HOSTILE}'
                 ip route add 10.244.1.0/24 via 172.31.0.9 dev '{HOSTILE}' proto static"
            ));
            let refused = script(shell, &node, "").expect(10);
            refused.says("\\u{1b}[5m\\u{9b}\\u{202e}");
            assert_harmless(&refused);
            node.sh(&format!(
                "ip route del 10.244.1.0/24; ip route add 10.244.9.0/24 via 172.31.0.9 dev '{HOSTILE}' proto 87"
            ));
            let shown = script(shell, &node, "--dry-run").expect(0);
            shown.says("- 10.244.9.0/24 via 172.31.0.9 dev \\u{1b}[5m\\u{9b}\\u{202e}");
            assert_harmless(&shown);
            let applied = script(shell, &node, "").expect(0);
            assert_harmless(&applied);
            // The interface has lost its address, so the route cannot be restored.
            node.sh(&format!("ip address del 172.31.0.1/24 dev '{HOSTILE}'"));
            let left = script(shell, &node, "--undo").expect(7);
            assert_harmless(&left);
            let command = left.stderr.lines().find(|line| line.contains("10.244.9.0/24")).expect("a command");
            node.sh(&format!("ip address add 172.31.0.1/24 dev '{HOSTILE}'\n{command}"));
            script(shell, &node, "--undo").expect(0);
            assert_harmless(&script(shell, &node, "\"$(printf '\\033[2J\\nx')\"").expect(64));
        }
    });
}

/// The script escapes the same characters as hostgw.
#[test]
fn the_script_escapes_what_hostgw_escapes() {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    let text = node.hostgw_ok(&["render", "--node", "linux-1"]).stdout;
    let end = text.find("# ---- Live state").expect("a section");
    let start = text.find("hidden='").expect("the ranges");
    let body = text.find("LC_ALL=C").expect("the body");
    let data = &text[start..text[start..].find("\n\n").map_or(body, |at| start + at)];
    node.write("escape.sh", &format!("{data}\n{}\nescaped\n", &text[body..end]));
    let is_hidden = |c: &char| hostgw::text::printable(&c.to_string()) != c.to_string();
    let all: Vec<char> = ('\u{1}'..=char::MAX).filter(|c| *c != '\n').collect();
    // Both sides of every boundary, and a sample of all others.
    let every: Vec<char> = (0..all.len())
        .filter(|at| {
            at % 97 == 0
                || all[at.saturating_sub(1)..all.len().min(at + 2)]
                    .iter()
                    .any(|c| is_hidden(c) != is_hidden(&all[*at]))
        })
        .map(|at| all[at])
        .collect();
    let lines: Vec<String> = every.chunks(64).map(|chunk| chunk.iter().collect()).collect();
    node.write("every", &(lines.join("\n") + "\n"));
    let wanted: Vec<String> = lines.iter().map(|line| hostgw::text::printable(line)).collect();
    for shell in SHELLS {
        let shown = node.sh(&format!("{shell} escape.sh <every"));
        let different = shown.lines().zip(&wanted).find(|(shown, wanted)| shown != wanted);
        assert_eq!((different, shown.lines().count()), (None, wanted.len()), "{shell}");
    }
    // With another awk as well.
    node.sh("mkdir bin; ln -s $(command -v busybox) bin/awk");
    let shown = node.sh("PATH=$PWD/bin:$PATH sh escape.sh <every");
    assert!(shown.lines().eq(wanted.iter()), "busybox awk");
    let raw =
        node.sh("printf 'a\\377b\\300\\200c\\355\\240\\200d\\364\\220\\200\\200e\\342\\200' | sh escape.sh");
    assert_eq!(raw, "a\\xffb\\xc0\\x80c\\xed\\xa0\\x80d\\xf4\\x90\\x80\\x80e\\xe2\\x80\n");
}

/// The kernel allows everything except whitespace, `/` and `:` in an interface name.
#[test]
fn remaining_commands_quote_unusual_interface_names() {
    each(|privilege| {
        for shell in SHELLS {
            let node = node(privilege);
            let name = "a;id>x$'`id`\"";
            let quoted = "a;id>x$'\\''`id`\"";
            render(&node, &configuration(""));
            node.sh(&format!(
                "ip link add '{quoted}' type bridge; ip link set '{quoted}' up; ip address add 172.31.0.1/24 dev '{quoted}'
                 ip route add 10.244.9.0/24 via 172.31.0.9 dev '{quoted}' proto 87"
            ));
            let before = node.witness();
            script(shell, &node, "").expect(0).says(&format!("- 10.244.9.0/24 via 172.31.0.9 dev {name}"));
            node.sh(&format!("ip address del 172.31.0.1/24 dev '{quoted}'"));
            let left = script(shell, &node, "--undo").expect(7);
            let line = format!("  ip -4 route add 10.244.9.0/24 via 172.31.0.9 dev '{quoted}' proto 87");
            assert!(left.stderr.lines().any(|one| one == line), "{left}");
            node.sh(&format!("ip address add 172.31.0.1/24 dev '{quoted}'\n{line}"));
            script(shell, &node, "--undo").expect(0);
            node.assert_unchanged(&before, "the command that was printed");
            assert_eq!(node.try_sh("ls x").code, 2, "nothing ran by itself");
        }
    });
}
