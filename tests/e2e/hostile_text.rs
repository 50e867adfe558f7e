//! Untrusted text is escaped in all output, whatever its source and format: it contains no control characters, no
//! invisible or direction-changing characters, and cannot start a line of its own.
//!
//! Every source of such text is filled with [`POISON`], one at a time. Then every command that can read it runs, and
//! both of its output streams are checked.

use std::process::Stdio;

use serde_json::{Value, json};

use super::node;
use crate::support::namespace::{Namespace, Privilege, is_root};

/// Terminal sequences, C0 and C1 controls, characters that hide or reorder others, all kinds of line endings, and a
/// line of its own.
const POISON: &str = "\u{1b}[5;45mP\u{1b}]0;t\u{7}\u{9b}5m\r\u{8}\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{85}\u{e0001}\t\nFORGED";

/// The same for names of files and interfaces, which cannot contain every character.
const NAME: &str = "\u{1b}[5;45m\u{9b}\u{7f}\u{202e}";

/// Replaces a value by poison.
type Poisoning = fn(&str) -> String;

const POISONINGS: [Poisoning; 2] = [|text| format!("{text}{POISON}"), |_| POISON.to_owned()];

/// Returns whether a character must not appear in any output.
fn is_hostile(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}')
        || (c.is_control() && c != '\n')
}

/// Returns what is wrong with an output, if anything.
fn find_problem(output: &str) -> Option<String> {
    let hostile = output.lines().find(|line| line.contains(is_hostile));
    let forged = || output.lines().find(|line| line.trim_start().starts_with("FORGED"));
    hostile.or_else(forged).map(|line| line.chars().take(300).flat_map(char::escape_debug).collect())
}

/// Commands whose output is checked.
struct Readings<'a> {
    node: &'a Namespace,
    seen: usize,
    escaped: usize,
    failures: Vec<String>,
}

impl<'a> Readings<'a> {
    const fn of(node: &'a Namespace) -> Self {
        Self { node, seen: 0, escaped: 0, failures: Vec::new() }
    }

    /// Runs a script in between.
    fn sh(&self, script: &str) {
        self.node.try_sh(&format!("{{ {script}\n}} >/dev/null 2>&1"));
    }

    /// Runs a hostgw command. Its arguments are quoted as for a shell.
    #[track_caller]
    fn read(&mut self, arguments: &str) {
        let words = words(arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--color", "never"]).collect();
        let outcome = self.node.hostgw(&words);
        self.check(arguments, &(outcome.stdout + &outcome.stderr));
    }

    /// Runs a hostgw command with environment variables.
    #[track_caller]
    fn read_with(&mut self, variables: &str, arguments: &str) {
        let command = format!("{variables} \"$HOSTGW\" {arguments} --color never 2>&1");
        let outcome = self.node.try_sh(&command);
        assert!(find_problem(&outcome.stderr).is_none(), "{}", outcome.stderr.escape_debug());
        self.check(&command, &outcome.stdout);
    }

    #[track_caller]
    fn check(&mut self, command: &str, output: &str) {
        self.seen += 1;
        self.escaped += usize::from(output.contains("u{202e}") || output.contains("u202e"));
        if let Some(line) = find_problem(output) {
            self.failures.push(format!("{command}\n    {line}"));
        }
        assert!(!output.contains("panicked"), "{command}\n{output}");
    }

    /// Fails with the commands whose output is wrong.
    #[track_caller]
    fn finish(self) {
        let Self { seen, escaped, failures, .. } = self;
        // Otherwise nothing was tested.
        assert!(escaped > 0, "no output contains untrusted text at all");
        let shown = &failures[..failures.len().min(30)];
        assert!(
            failures.is_empty(),
            "{} of {seen} outputs contain unescaped untrusted text:\n{}",
            failures.len(),
            shown.join("\n")
        );
    }
}

/// The words of a command without other special characters than spaces and single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in command.chars() {
        let last = words.len() - 1;
        match c {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted && words[last].is_empty() => {}
            ' ' if !is_quoted => words.push(String::new()),
            _ => words[last].push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A machine for tests in which privileges do not matter.
fn machine() -> Namespace {
    let node = node(if is_root() { Privilege::Root } else { Privilege::User });
    // git refuses repositories of other users.
    node.sh("chown 0:0 .");
    node
}

/// The pointers to all strings and numbers, but only one for all places whose last two path components are the same.
fn places(value: &Value) -> Vec<String> {
    fn collect(value: &Value, pointer: &str, shape: &str, seen: &mut Vec<(String, String)>) {
        let mut add = |pointer: &str, shape: String| {
            let last_two = shape.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at);
            let shape = shape[last_two..].to_owned();
            if !seen.iter().any(|(_, known)| *known == shape) {
                seen.push((pointer.to_owned(), shape));
            }
        };
        match value {
            Value::Object(object) => {
                add(pointer, format!("{shape}{{}}"));
                for (key, value) in object {
                    let part = if key.contains('.') { "*" } else { key };
                    let escaped = key.replace('~', "~0").replace('/', "~1");
                    collect(value, &format!("{pointer}/{escaped}"), &format!("{shape}/{part}"), seen);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(item, &format!("{pointer}/{index}"), &format!("{shape}/*"), seen);
                }
            }
            _ => add(pointer, shape.to_owned()),
        }
    }
    let mut seen = Vec::new();
    collect(value, "", "", &mut seen);
    seen.into_iter().map(|(pointer, _)| pointer).collect()
}

/// Copies of the document with one place poisoned in each: strings and numbers, an unknown key, and a known key with a
/// suffix.
fn poisoned(document: &Value, poisonings: &[Poisoning]) -> Vec<Value> {
    let mut all = Vec::new();
    for place in places(document) {
        for poisoning in poisonings {
            let mut copy = document.clone();
            match copy.pointer_mut(&place).expect("existed") {
                Value::Object(object) => {
                    let first = object.iter().next().map(|(key, value)| (key.clone(), value.clone()));
                    let (key, value) = first.unwrap_or_else(|| ("k".to_owned(), Value::Null));
                    object.insert(poisoning(&key), value);
                }
                Value::String(text) => *text = poisoning(text),
                other => *other = Value::String(poisoning(&other.to_string())),
            }
            all.push(copy);
        }
    }
    all
}

fn write_all(node: &Namespace, prefix: &str, documents: &[Value]) -> Vec<String> {
    let write = |(index, document): (usize, &Value)| {
        let name = format!("{prefix}-{index:03}.json");
        node.write(&name, &document.to_string());
        name
    };
    documents.iter().enumerate().map(write).collect()
}

fn configuration() -> Value {
    json!({
        "version": 1,
        "clusterPrefix": ["10.244.0.0/16", "fd00:244::/48"],
        "egressInterface": "eth0",
        "nextHop": "pod-gateway",
        "nodes": [
            { "name": "linux-1", "os": "linux", "podCIDR": ["10.244.0.0/24", "fd00:244::/64"], "address": "172.30.0.11" },
            { "name": "linux-2", "os": "linux", "podCIDR": ["10.244.1.0/24", "fd00:244:0:1::/64"],
              "address": "172.30.0.12", "gateway": "10.244.1.9", "egressInterface": "eth0" },
            { "name": "win-1", "os": "windows", "podCIDR": "10.244.2.0/24", "address": "172.30.0.13",
              "egressInterface": "vEthernet (Ethernet)", "defaultGateway": "172.30.0.1" },
        ],
        "masterAddress": "172.30.0.11",
        "nat": { "masquerade": true, "exclude": ["192.168.7.0/24"], "source": "pods", "randomFully": false },
        "sysctls": { "net.ipv4.conf.all.rp_filter": 2, "net.ipv4.tcp_congestion_control": "reno" },
        "routes": { "table": "main", "metric": 0, "mtu": 1400 },
    })
}

/// Every command that reads a configuration.
fn read_configuration(readings: &mut Readings<'_>, file: &str) {
    for form in ["", "--json"] {
        readings.read(&format!("validate {form} {file}"));
    }
    for form in ["", "--json", "--markdown"] {
        readings.read(&format!("plan {form} -f {file}"));
        readings.read(&format!("plan {form} --all-nodes -f {file}"));
        readings.read(&format!("diff {form} good.json {file}"));
        readings.read(&format!("diff {form} {file} good.json"));
    }
    readings.read(&format!("plan --all-nodes --full -f {file}"));
    readings.read(&format!("render --node linux-1 -f {file}"));
    readings.read(&format!("render --node win-1 -f {file}"));
    readings.read(&format!("render --node win-1 --collect -f {file}"));
    for what in ["systemd-networkd", "ifupdown", "nftables", "sysctl.d"] {
        readings.read(&format!("render --node linux-1 --persist {what} -f {file}"));
    }
    readings.read(&format!("check-cni cni.conf -f {file}"));
    readings.read(&format!("apply --yes -f {file}"));
    readings.read("status");
}

#[test]
fn configurations() {
    let node = machine();
    node.write("cni.conf", "{\"type\": \"sdnbridge\", \"ExceptionList\": [\"10.0.0.0/8\"]}");
    node.write("good.json", &configuration().to_string());
    let mut readings = Readings::of(&node);
    for file in write_all(&node, "config", &poisoned(&configuration(), &POISONINGS)) {
        read_configuration(&mut readings, &file);
    }
    readings.finish();
}

/// Source lines in compiler style, and the names in them.
#[test]
fn source_lines() {
    let node = machine();
    node.write("cni.conf", "{}");
    node.write("good.json", &configuration().to_string());
    let raw = POISON.replace(['\n', '\r', '\u{2028}', '\u{85}'], "");
    let quoted = serde_json::to_string(POISON).expect("a string");
    let head = "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\n";
    let node_1 = "  - {name: linux-1, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}\n";
    let mut readings = Readings::of(&node);
    let texts = [
        ("yaml", format!("{head}nodes: 7 # {raw}\n")),
        ("yaml", format!("{head}nodes: {raw}\n")),
        ("yaml", format!("{head}# {POISON}\nnodes:\n{node_1}")),
        ("yaml", format!("{head}\"{raw}\": 1\nnodes:\n{node_1}")),
        ("yaml", format!("{head}{quoted}: 1\nnodes:\n{node_1}")),
        (
            "yaml",
            format!(
                "{head}nodes:\n  - {{name: {quoted}, os: linux, podCIDR: 10.244.0.0/24, address: 172.30.0.11}}\n"
            ),
        ),
        ("yaml", format!("{head}nodes:\n  - &{raw} {{name: *{raw}}}\n")),
        ("yaml", format!("{head}nodes: !{raw} x\n")),
        ("yaml", POISON.to_owned()),
        ("yaml", format!("%{raw}\n---\n{head}")),
        ("toml", format!("clusterPrefix = 7 # {raw}\n")),
        ("toml", format!("{raw} = 7\n")),
        ("toml", format!("clusterPrefix = {quoted}\n[[nodes]]\nname = {quoted}\n")),
        ("toml", format!("[{quoted}]\nx = 1\n")),
        ("txt", POISON.to_owned()),
        (NAME, POISON.to_owned()),
    ];
    for (index, (ending, text)) in texts.iter().enumerate() {
        let file = format!("{index}.{ending}");
        node.write(&file, text);
        read_configuration(&mut readings, &format!("'{file}'"));
    }
    readings.finish();
}

/// Existing and missing files, folders, and anything else that a path can name.
#[test]
fn file_names() {
    let node = machine();
    node.write("cni.conf", "{}");
    node.write("good.json", &configuration().to_string());
    let mut readings = Readings::of(&node);
    let names = [POISON.replace('/', ""), format!("{}\nFORGED", "n".repeat(40))];
    for (index, name) in names.iter().enumerate() {
        node.sh(&format!("mkdir 'dir{index}{name}'; ln -s 'loop{index}{name}' 'loop{index}{name}'; mkfifo 'fifo{index}{name}'"));
        for ending in ["yaml", "toml"] {
            node.write(&format!("bad{name}.{ending}"), "nodes: 7\n");
            read_configuration(&mut readings, &format!("'bad{name}.{ending}'"));
        }
        node.write(&format!("good{name}.json"), &configuration().to_string());
        for file in
            ["good{}.json", "gone{}.yaml", "gone{}", "dir{}", "loop{}", "fifo{}", "good{}.json/x", "bytes{}"]
        {
            let file = format!(
                "'{}'",
                file.replace("{}", &format!("{index}{name}"))
                    .replace("good0", "good")
                    .replace("good1", "good")
            );
            read_configuration(&mut readings, &file);
            readings.read(&format!("check-cni {file} -f good.json"));
            readings.read(&format!("plan --state {file} -f good.json"));
            readings.read(&format!("apply {file}"));
            // A plan is also written to a pipe, which blocks without a reader.
            readings.sh(&format!("timeout 5 cat {file} &"));
            readings.read(&format!("plan -f good.json --out {file}"));
            readings.read(&format!("diff {file}"));
            readings.read(&format!("diff v1 -f {file}"));
        }
    }
    readings.finish();
}

#[test]
fn snapshots_plans_and_cni_files() {
    let node = machine();
    node.write("good.json", &configuration().to_string());
    node.sh("\"$HOSTGW\" snapshot >snapshot.json; \"$HOSTGW\" plan -f good.json --out plan.json");
    let document =
        |name: &str| -> Value { serde_json::from_str(&node.sh(&format!("cat {name}"))).expect("JSON") };
    let mut readings = Readings::of(&node);
    for file in write_all(&node, "snapshot", &poisoned(&document("snapshot.json"), &POISONINGS)) {
        readings.read(&format!("plan --state {file} -f good.json"));
        readings.read(&format!("plan --state {file} -f good.json --json"));
        readings.read(&format!("plan --state {file} -f good.json --markdown"));
    }
    for file in write_all(&node, "plan", &poisoned(&document("plan.json"), &POISONINGS)) {
        readings.read(&format!("apply {file}"));
        readings.read(&format!("apply {file} --json"));
        node.hostgw(&["destroy", "--yes"]);
    }
    let cni = json!({ "cniVersion": "1", "name": "n", "plugins": [{ "type": "sdnbridge", "capabilities": { "dns": true },
        "policies": [{ "Name": "EndpointPolicy", "Value": { "Type": "OutBoundNAT", "ExceptionList": ["10.0.0.0/8"] } },
                     { "Value": { "Type": "OutBoundNAT", "Settings": { "Exceptions": ["10.0.0.0/8"] } } }],
        "ipam": { "type": "host-local", "subnet": "10.244.0.0/24" } }] });
    for file in write_all(&node, "cni", &poisoned(&cni, &POISONINGS)) {
        readings.read(&format!("check-cni {file} -f good.json"));
        readings.read(&format!("check-cni {file} -f good.json --json"));
    }
    for (index, text) in [POISON, &format!("{{\"a\": \"{POISON}"), &format!("[{POISON}]")].iter().enumerate()
    {
        node.write(&format!("{index}.txt"), text);
        for command in ["plan -f good.json --state", "apply", "check-cni -f good.json"] {
            readings.read(&format!("{command} {index}.txt"));
        }
    }
    readings.finish();
}

/// Node names in a simulation, with working and with failing connections.
#[test]
fn simulations() {
    let node = machine();
    let mut document = configuration();
    document["nodes"][0]["name"] = POISON.into();
    document["nodes"][1]["name"] = format!("{POISON}2").into();
    document["nodes"].as_array_mut().expect("a list").truncate(2);
    document["sysctls"] = json!({});
    node.write("wrong.json", &document.to_string());
    document["nodes"][1].as_object_mut().expect("a node").remove("gateway");
    node.write("right.json", &document.to_string());
    node.sh(&format!("cp right.json 'f{POISON}.json'"));
    let mut readings = Readings::of(&node);
    let named = format!("'f{POISON}.json'");
    for file in ["wrong.json", "right.json", &named] {
        readings.read(&format!("simulate -f {file}"));
        readings.read(&format!("simulate --json -f {file}"));
        readings.read(&format!("rehearse -f {file}"));
        readings.read(&format!("rehearse --json -f {file}"));
    }
    readings.finish();
}

/// Every record of the state directory: finished transactions and a pending one.
#[test]
fn records() {
    let node = machine();
    node.write("good.json", &configuration().to_string());
    node.sh("git init -q .; git add good.json; git -c user.name=o -c user.email=o commit -qm x
        \"$HOSTGW\" apply --yes -f good.json; cp -a state ended");
    node.write("other.json", &configuration().to_string().replace("10.244.1.9", "10.244.1.7"));
    let mut waiting = node.hostgw_command(&["apply", "--yes", "--confirm", "10m", "-f", "other.json"]);
    let mut waiting = waiting.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("hostgw");
    node.wait_until("an apply is pending", || {
        node.try_sh("\"$HOSTGW\" status --json | grep -q '\"pending\": {'").code == 0
    });
    node.sh("cp -a state waiting; \"$HOSTGW\" cancel");
    waiting.wait().expect("an end");
    let mut readings = Readings::of(&node);
    // While an apply is pending, there is a journal in addition to the other records.
    for (pristine, names) in [("ended", "*.json"), ("waiting", "journal*.json")] {
        for path in node.sh(&format!("cd {pristine}; find . -name '{names}'")).lines() {
            let document: Value =
                serde_json::from_str(&node.sh(&format!("cat {pristine}/{path}"))).expect("JSON");
            let prefix = format!("{pristine}{}", path.replace(['/', '.'], "-"));
            for file in write_all(&node, &prefix, &poisoned(&document, &POISONINGS[..1])) {
                readings.sh(&format!("rm -rf state; cp -a {pristine} state; cat {file} >state/{path}"));
                for command in [
                    "status",
                    "status --history",
                    "plan -f good.json",
                    "confirm",
                    "rollback --yes",
                    "apply --yes -f good.json",
                    "destroy --yes",
                ] {
                    readings.read(command);
                }
                readings.sh("rm -rf state");
                node.hostgw(&["apply", "--yes", "-f", "good.json"]);
            }
        }
    }
    for text in [POISON, "", "{"] {
        node.write("text", text);
        for path in node.sh("cd ended; find . -name '*.json'").lines() {
            readings.sh(&format!("rm -rf state; cp -a ended state; cat text >state/{path}"));
            for command in ["status", "plan -f good.json", "rollback --yes", "apply --yes -f good.json"] {
                readings.read(command);
            }
        }
    }
    readings.finish();
}

/// Everything in the kernel that other programs can name: interfaces, devices of routes, comments and objects in
/// nftables.
#[test]
fn kernel_objects() {
    let node = machine();
    node.write("good.json", &configuration().to_string());
    node.sh(&format!(
        "ip link add '{NAME}' type veth peer name 'x{NAME}'; ip link set '{NAME}' up; ip link set 'x{NAME}' up
         ip link property add dev '{NAME}' altname 'alt{NAME}' || true
         ip address add 172.31.0.1/24 dev '{NAME}'
         ip route add 10.244.1.0/24 via 172.31.0.9; ip route add 10.244.9.0/24 dev '{NAME}' proto 87
         ip route add default via 172.31.0.9"
    ));
    let comment = NAME.repeat(2);
    node.write(
        "table.nft",
        &format!(
            "table ip hostgw {{
                comment \"{comment}\"
                set s {{ type ipv4_addr; comment \"{comment}\"; }}
                chain other {{ comment \"{comment}\"; ip saddr 10.9.9.9 counter comment \"{comment}\"; }}
                chain postrouting {{ type nat hook postrouting priority srcnat; oifname \"{NAME}\" masquerade comment \"{comment}\"; }}
            }}"
        ),
    );
    node.sh("nft -f table.nft");
    let mut readings = Readings::of(&node);
    for (index, interface) in ["eth0", NAME, &format!("alt{NAME}"), "none", "eth1"].iter().enumerate() {
        let mut document = configuration();
        document["egressInterface"] = json!(interface);
        document["sysctls"] = json!({ format!("net.ipv4.conf.{interface}.rp_filter"): 2 });
        let file = format!("kernel-{index}.json");
        node.write(&file, &document.to_string());
        for flags in ["", "--json", "--markdown", "--adopt"] {
            readings.read(&format!("plan -f {file} {flags}"));
        }
        readings.read(&format!("render --node linux-1 -f {file}"));
        readings.read("snapshot");
        readings.read(&format!("apply --yes -f {file}"));
        readings.read(&format!("apply --yes --adopt -f {file}"));
        readings.read("status");
        readings.read("status --json");
        readings.read("rollback --yes");
        readings.read(&format!("apply --yes --adopt -f {file}"));
        readings.read("destroy --yes");
        readings.sh("nft -f table.nft");
    }
    readings.finish();
}

#[test]
fn git_repositories() {
    let node = machine();
    node.write("good.json", &configuration().to_string());
    let name = POISON.replace('/', "");
    node.sh(&format!(
        "git init -q -b main .; cp good.json 'n{name}.json'; mkdir 'd{name}'; cp good.json 'd{name}/f.json'
         printf 'nodes: 7 # {NAME}' >'bad{name}.yaml'; ln -s x 'link{name}.json'
         git add .; git -c user.name=o -c user.email=o commit -qm one; git tag v1; git branch 'b\u{202e}\u{200b}'
         git mv 'n{name}.json' 'm{name}.json'; git rm -qr 'd{name}'
         git -c user.name=o -c user.email=o commit -qm two; git tag v2"
    ));
    let mut readings = Readings::of(&node);
    for file in ["n", "m", "bad", "link", "gone"] {
        let ending = if file == "bad" { "yaml" } else { "json" };
        for range in ["v1..v2", "v2..v1", "v1", "'b\u{202e}\u{200b}..v2'"] {
            for form in ["", "--json", "--markdown", "--summary"] {
                readings.read(&format!("diff {form} {range} -f '{file}{name}.{ending}'"));
            }
        }
    }
    for revision in ["d", "x..", "..", "..."] {
        readings.read(&format!("diff '{revision}{name}' -f good.json"));
        readings.read(&format!("diff '{revision}{name}' -f good.json --json"));
        readings.read(&format!("diff -f good.json -- '-{revision}{name}'"));
    }
    readings.read(&format!("diff v1..v2 -f 'd{name}/f.json' --markdown"));
    readings.read(&format!("apply --yes -f 'm{name}.json'"));
    readings.read("status --history");
    // A repository that git rejects, quoting the repository.
    readings.sh(&format!("printf '[extensions]\\n\\t{} = x\\n' >>.git/config", "nonsense"));
    readings.sh("git config core.repositoryFormatVersion 1");
    readings.read("diff v1..v2 -f good.json");
    readings.sh(&format!("printf '[{NAME}' >>.git/config"));
    readings.read("diff v1..v2 -f good.json");
    readings.finish();
}

#[test]
fn command_line_and_environment() {
    let node = machine();
    node.write("good.json", &configuration().to_string());
    node.write("hostgw.yaml", &configuration().to_string());
    let name = POISON;
    let mut readings = Readings::of(&node);
    for arguments in [
        "'{}'",
        "'--{}'",
        "'-{}'",
        "plan '{}'",
        "plan '--{}'",
        "plan '--json={}'",
        "plan --node '{}' -f good.json",
        "plan '--node={}' --json -f good.json",
        "plan '--node={}' --all-nodes -f good.json",
        "plan '--color={}'",
        "apply '--confirm={}'",
        "apply '--allow-removals={}'",
        "apply '--lock-timeout={}'",
        "apply --yes '{}'",
        "render --node '{}' -f good.json",
        "render --node linux-1 '--persist={}' -f good.json",
        "schema '{}'",
        "help '{}'",
        "confirm '{}'",
        "confirm '--wait={}'",
        "cancel '{}'",
        "status '--{}'",
        "rollback '{}'",
        "destroy '{}'",
        "simulate '{}'",
        "simulate '--{}'",
        "validate '--{}'",
        "diff '{}' '{}'",
        "snapshot '{}'",
        "check-cni '{}'",
        "completions '{}'",
        "plan '--jso{}' --json",
    ] {
        readings.read(&arguments.replace("{}", name));
    }
    for variables in [
        "HOSTGW_STATE_DIR='{}'",
        "HOSTGW_STATE_DIR='/{}'",
        "HOSTGW_STATE_DIR=\"$PWD/{}\"",
        "HOSTGW_STATE_DIR='good.json/{}'",
        "HOSTGW_FILE='{}'",
        "HOSTGW_NODE='{}'",
        "PAGER='{}'",
        "SUDO_USER='{}' SUDO_UID=4242",
        "SUDO_UID='{}'",
        "SSH_CONNECTION='{}'",
        "NO_COLOR='{}'",
        "PATH='{}'",
        "TMPDIR='{}'",
        "HOME='{}'",
        "GIT_DIR='{}'",
        "TERM='{}'",
        "LANG='{}'",
    ] {
        let variables = variables.replace("{}", name);
        for arguments in
            ["plan", "apply --yes", "status", "status --history", "diff HEAD -f good.json", "destroy --yes"]
        {
            // PATH is for hostgw, not for timeout.
            readings.read_with(&format!("env {variables}"), arguments);
        }
    }
    readings.finish();
}
