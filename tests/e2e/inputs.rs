//! Input files: how they can be named, which kinds of files are accepted, and how much is read.

use std::{
    io::{PipeReader, PipeWriter, Read, Write},
    process::Stdio,
    time::Duration,
};

use super::RECIPE;
use crate::support::namespace::{Namespace, Privilege, each};

#[test]
fn validate_takes_files_by_name_and_by_flag() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("a.yaml", RECIPE);
        machine.write("b.yaml", RECIPE);
        for arguments in [
            &["validate", "a.yaml", "b.yaml"][..],
            &["validate", "-f", "a.yaml", "-f", "b.yaml"],
            &["validate", "--file", "a.yaml", "b.yaml"],
            &["validate", "-fa.yaml", "--file=b.yaml"],
        ] {
            let outcome = machine.hostgw_ok(arguments);
            outcome.says("a.yaml is valid").says("b.yaml is valid");
        }
        machine.hostgw(&["validate", "-m", "a.yaml"]).expect(64);
    });
}

/// Every option that takes a file, which is appended.
const VERBS: [&[&str]; 6] = [
    &["validate", "-f"],
    &["plan", "--all-nodes", "-f"],
    &["plan", "-f", "good.yaml", "--state"],
    &["apply", "--yes"],
    &["check-cni", "-f", "good.yaml"],
    &["import"],
];

/// Runs every command on `file`, with limited memory and time.
fn assert_refuses(machine: &Namespace, file: &str, why: &str) {
    for verb in VERBS {
        let words = verb.join(" ");
        let outcome = machine.try_sh(&format!("ulimit -v 1000000; timeout 20 $HOSTGW {words} {file}"));
        let outcome = outcome.expect(3);
        // A directory can have the snapshots of many nodes.
        let is_folder = file == "folder.yaml" && verb.last() == Some(&"--state");
        outcome.warns(if is_folder { "no snapshots in folder.yaml" } else { why });
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        assert!(outcome.stderr.len() < 1000, "{}", outcome.stderr);
    }
}

#[test]
fn devices_named_pipes_and_kernel_files_are_rejected() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("good.yaml", RECIPE);
        machine.sh("mkdir folder.yaml; mkfifo pipe.yaml; ln -s /dev/zero zero.yaml; ln -s pipe.yaml way.yaml
                    ln -s /proc/self/environ environ.yaml; ln -s nothing.yaml dangling.yaml");
        for (file, why) in [
            ("folder.yaml", "is a directory, not a file"),
            ("pipe.yaml", "is a named pipe, not a file"),
            ("way.yaml", "is a named pipe, not a file"),
            ("zero.yaml", "is a device, not a file"),
            ("/dev/null", "is a device, not a file"),
            ("environ.yaml", "changed size while it was read"),
            ("/proc/self/environ", "changed size while it was read"),
            ("dangling.yaml", "no such file: dangling.yaml"),
        ] {
            assert_refuses(&machine, file, why);
        }
        // No message of any command contains the environment.
        for verb in VERBS {
            let words = verb.join(" ");
            let outcome =
                machine.try_sh(&format!("export SECRET=xyzzy; $HOSTGW {words} environ.yaml --json"));
            assert!(!outcome.stdout.contains("xyzzy") && !outcome.stderr.contains("xyzzy"), "{words}");
        }
    });
}

#[test]
fn at_most_64_mib_of_a_file_are_read() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("good.yaml", RECIPE);
        machine.sh("truncate -s 67108865 large.yaml");
        assert_refuses(&machine, "large.yaml", "is too large: hostgw reads at most 64 MiB");
        for verb in VERBS {
            let words = verb.join(" ");
            let script = format!("ulimit -v 1000000; yes | timeout 60 $HOSTGW {words} -");
            machine
                .try_sh(&script)
                .expect(3)
                .warns("standard input is too large: hostgw reads at most 64 MiB");
            let script = format!("ulimit -v 1000000; timeout 60 bash -c '$HOSTGW {words} <(yes)'");
            machine.try_sh(&script).expect(3).warns("is too large: hostgw reads at most 64 MiB");
        }
    });
}

#[test]
fn a_compressed_file_is_read_like_any_other() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        let toml = "clusterPrefix = '10.244.0.0/16'\negressInterface = 'eth0'\n[[nodes]]\nname = 'a'\nos = 'linux'\npodCIDR = '10.244.0.0/24'\n";
        machine.write("good.yaml", RECIPE);
        machine.write("other.toml", toml);
        machine.write("wrong.yaml", &RECIPE.replacen("os: linux", "os: solaris", 1));
        machine.sh("gzip -k good.yaml other.toml wrong.yaml; head -c 100000000 /dev/zero | gzip >bomb.yaml.gz
                    head -c 200 good.yaml.gz >cut.yaml.gz; cat good.yaml.gz good.yaml >trailing.yaml.gz
                    gzip -c <good.yaml | head -c -4 >sum.yaml.gz; head -c 30 good.yaml >part; tail -c +31 good.yaml >rest
                    { gzip -c part; gzip -c rest; } >members.yaml.gz");
        let plain = machine.hostgw_ok(&["plan", "--all-nodes", "-f", "good.yaml"]).stdout;
        for compressed in ["good.yaml.gz", "members.yaml.gz"] {
            let plan = machine.hostgw_ok(&["plan", "--all-nodes", "-f", compressed]).stdout;
            assert_eq!(plan, plain.replace("good.yaml", compressed));
        }
        let piped = machine.sh("$HOSTGW plan --all-nodes -f - <good.yaml.gz");
        assert_eq!(piped, plain.replace("good.yaml", "<stdin>"));
        machine.hostgw_ok(&["validate", "other.toml.gz"]);
        machine.hostgw(&["validate", "wrong.yaml.gz"]).expect(3).warns("--> wrong.yaml.gz:");
        assert_refuses(&machine, "bomb.yaml.gz", "bomb.yaml.gz is too large: hostgw reads at most 64 MiB");
        for damaged in ["cut.yaml.gz", "trailing.yaml.gz", "sum.yaml.gz"] {
            assert_refuses(&machine, damaged, &format!("{damaged} is a damaged gzip file"));
        }
        // The folder belongs to another user than the tests.
        let diff = machine.sh(
            "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=\"$PWD\"
             git init -q; git add good.yaml.gz; git -c user.name=o -c user.email=o commit -qm one; git tag one
             sed s/10.244.2.0/10.244.5.0/ good.yaml | gzip >new.gz; mv new.gz good.yaml.gz
             $HOSTGW diff one -f good.yaml.gz",
        );
        assert!(diff.contains("10.244.5.0/24"), "{diff}");
    });
}

#[test]
fn warnings_that_the_file_alone_shows_come_early() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        let node = |number: u8, addresses: &str| {
            format!(
                "  - {{name: n{number}, os: linux, podCIDR: [10.244.{number}.0/24, \"fd00:244:0:{number}::/64\"]{addresses}}}\n"
            )
        };
        let file = |next_hop: &str, addresses: [&str; 2]| {
            let nodes = node(1, addresses[0]) + &node(2, addresses[1]);
            format!(
                "clusterPrefix: [10.244.0.0/16, \"fd00:244::/48\"]\negressInterface: eth0\n{next_hop}nodes:\n{nodes}"
            )
        };
        let both = [", address: [172.30.0.11, \"fd00:30::11\"]", ", address: [172.30.0.12, \"fd00:30::12\"]"];
        let cases = [
            ("gateways", file("", both), Some("set nextHop: node-address")),
            (
                "addresses",
                file("", ["", ""]),
                Some("add an IPv6 address to every node, and set nextHop: node-address"),
            ),
            (
                "router",
                file("nextHop: 172.30.0.1\n", ["", ""]),
                Some("nextHop only has an IPv4 router: add an IPv6 router to it"),
            ),
            ("routers", file("nextHop: [172.30.0.1, \"fd00:30::1\"]\n", ["", ""]), None),
            ("good", file("nextHop: node-address\n", both), None),
        ];
        for (name, text, remedy) in cases {
            let file = format!("{name}.yaml");
            machine.write(&file, &text);
            for command in [&["validate", &file][..], &["plan", "--all-nodes", "-f", &file]] {
                let outcome = machine.hostgw(command).expect(0);
                match remedy {
                    Some(remedy) => {
                        outcome
                            .warns("warning[HG0802]: IPv6 routes through pod gateways do not work")
                            .warns(remedy);
                    }
                    None => assert!(!outcome.stderr.contains("HG0802"), "{}", outcome.stderr),
                }
            }
            let json = machine.hostgw(&["validate", "--json", &file]).expect(0).stdout.clone();
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let code = &json["files"][0]["findings"][0]["code"];
            assert_eq!(code.as_str(), remedy.map(|_| "HG0802"), "{name}: {json}");
        }
        for format in ["sarif", "github", "markdown"] {
            machine.hostgw(&["validate", "--format", format, "gateways.yaml"]).expect(0).says("HG0802");
        }
    });
}

#[test]
fn a_file_can_have_any_name_and_be_a_pipe() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("good.yaml", RECIPE);
        machine.write("good.json", &format!("{:#}", as_json(RECIPE)));
        machine.write("tabs.json", &format!("{:#}", as_json(RECIPE)).replace("  ", "\t"));
        machine.write("cluster", RECIPE);
        let expected = machine.hostgw_ok(&["plan", "--all-nodes", "-f", "good.yaml"]).stdout;
        let totals = expected.lines().last().unwrap();
        for file in ["good.json", "tabs.json", "cluster"] {
            machine.hostgw_ok(&["plan", "--all-nodes", "-f", file]).says(totals);
        }
        for script in [
            "bash -c '$HOSTGW plan --all-nodes -f <(cat good.yaml)'",
            "bash -c '$HOSTGW plan --all-nodes -f /dev/fd/0' <good.yaml",
            "cat good.json | $HOSTGW plan --all-nodes -f /dev/stdin",
            "cat tabs.json | $HOSTGW plan --all-nodes -f -",
            // Slower than its reader.
            "bash -c '$HOSTGW plan --all-nodes -f <(head -c 99 good.json; sleep 0.2; tail -c +100 good.json)'",
        ] {
            machine.try_sh(script).expect(0).says(totals);
        }
    });
}

/// The same configuration as JSON.
fn as_json(yaml: &str) -> serde_json::Value {
    serde_yaml::from_str(yaml).unwrap()
}

/// Invalid files: name, beginning, repeated text in which `N` is a different number each time, and end.
const REPEATED: [(&str, &str, &str, &str); 27] = [
    ("keys.toml", "", "kN = 1\n", ""),
    ("the same key.toml", "", "k = 1\n", ""),
    ("short keys.toml", "", "a=1\n", ""),
    ("dotted keys.toml", "", "a.bN.c = 1\n", ""),
    ("tables.toml", "", "[tN]\n", ""),
    ("deep tables.toml", "", "[aN.b.c]\nd=1\n", ""),
    ("nodes with unknown keys.toml", "", "[[nodes]]\nxN = 1\n", ""),
    (
        "wrong nodes.toml",
        "clusterPrefix='10.0.0.0/8'\n",
        "[[nodes]]\nname='nN'\nos='linux'\npodCIDR='x'\n",
        "",
    ),
    (
        "a node twice.toml",
        "clusterPrefix='fd00::/8'\negressInterface='e'\n",
        "[[nodes]]\nname='nN'\nos='linux'\npodCIDR='fd00:0:N::/48'\n",
        "[[nodes]]\nname='n1'\n",
    ),
    ("inline nodes.toml", "nodes = [\n", "{ nameN = 'nN', x = 1 },\n", "]\n"),
    ("numbers.toml", "x = [", "1,", "]\n"),
    ("commas.toml", "x = [", ",", "]\n"),
    ("strings.toml", "nodes = [", "'aN',\n", "]\n"),
    ("lists.toml", "nodes = [", "[[1]],\n", "]\n"),
    ("comments.toml", "", "#\n", ""),
    ("an open list.toml", "x = [", "1111111,\n", ""),
    ("keys.yaml", "", "kN: 1\n", ""),
    ("the same key.yaml", "", "k: 1\n", ""),
    ("numbers.yaml", "x: [", "1,", "]\n"),
    ("items.yaml", "x:\n", "- 1\n", ""),
    ("strings.yaml", "nodes:\n", "- 'a'\n", ""),
    ("nodes with unknown keys.yaml", "nodes:\n", "- xN: 1\n", ""),
    ("nodes in flow style.yaml", "nodes: [", "{a: N},", "]\n"),
    (
        "wrong nodes.yaml",
        "clusterPrefix: 10.0.0.0/8\nnodes:\n",
        "- name: nN\n  os: linux\n  podCIDR: x\n",
        "",
    ),
    (
        "a node twice.yaml",
        "clusterPrefix: fd00::/8\negressInterface: e\nnodes:\n",
        "- name: nN\n  os: linux\n  podCIDR: fd00:0:N::/48\n",
        "- name: n1\n  os: linux\n  podCIDR: x\n",
    ),
    ("deep mappings.yaml", "nodes:\n", "- {a: {b: {c: N}}}\n", ""),
    ("blank lines.yaml", "", "\n", "a: 1\n"),
];

/// The peak memory that hostgw uses to reject a file, in bytes, as accounted by the kernel. A full pipe stops hostgw when it
/// prints its result, so its peak can be read. That includes memory that was freed.
fn peak(machine: &Namespace, file: &str) -> usize {
    let (mut output, full) = full_pipe();
    let mut command = machine.hostgw_command(&["validate", file]);
    let mut child = command.stdout(Stdio::null()).stderr(full).spawn().expect("hostgw runs");
    drop(command);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    machine.wait_up_to(Duration::from_secs(120), "hostgw prints its result", || {
        let text = std::fs::read_to_string(&status).expect("our child");
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let sleeps = field("Name:") == Some("hostgw") && field("State:") == Some("S (sleeping)");
        let kilobytes = field("VmHWM:").and_then(|size| size.strip_suffix(" kB")?.parse::<usize>().ok());
        // It may sleep for a moment before: the peak counts once it does not grow any more.
        let last = std::mem::replace(&mut peak, kilobytes.filter(|_| sleeps));
        std::thread::sleep(Duration::from_millis(10));
        peak.is_some() && peak == last
    });
    output.read_to_end(&mut Vec::new()).expect("a pipe");
    assert_eq!(child.wait().expect("a child").code(), Some(3), "{file}");
    peak.expect("a peak") * 1024
}

/// A pipe that takes no more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    (reader, writer)
}

#[test]
fn an_invalid_file_takes_less_than_twenty_times_its_size_in_memory() {
    const SIZE: usize = 2 << 20;
    let machine = Namespace::new(Privilege::User);
    machine.write("small.toml", "a = 1\n");
    let least = peak(&machine, "small.toml");
    let mut hungry = Vec::new();
    for (file, begin, part, end) in REPEATED {
        let mut text = begin.to_owned();
        let mut number = 0;
        while text.len() < SIZE {
            number += 1;
            text.push_str(&part.replace('N', &format!("{number:x}")));
        }
        text.push_str(end);
        machine.write(file, &text);
        let bytes = peak(&machine, file).saturating_sub(least) / text.len();
        if bytes >= 20 {
            hungry.push(format!("{file}: {bytes}"));
        }
        machine.sh(&format!("rm '{file}'"));
    }
    assert!(hungry.is_empty(), "bytes of memory for each byte of a file: {hungry:#?}");
}
