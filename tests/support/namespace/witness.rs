//! What others than hostgw see in a namespace.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Namespace;

impl Namespace {
    /// All routes, the whole rule set and every sysctl of the namespace, as `ip`, `nft`, `iptables` and the
    /// kernel's own files show them.
    pub fn witness(&self) -> String {
        self.await_duplicate_detection();
        let seen = self.sh("exec 2>/dev/null
             echo '# ip -d route'; ip -d route show table all
             echo '# ip -6 -d route'; ip -6 -d route show table all
             echo '# ip rule'; ip rule; ip -6 rule; ip nexthop
             echo '# nft list ruleset'; nft list ruleset
             echo '# iptables-save'; iptables-save
             echo '# ip6tables-save'; ip6tables-save
             echo '# sysctls'; grep -r '' /proc/sys/net | sort || true");
        let is_steady = |line: &&str| {
            !line.contains("conntrack_count:")
                && !line.starts_with("# Generated")
                && !line.starts_with("# Completed")
        };
        without_counters(&seen).lines().filter(is_steady).collect::<Vec<_>>().join("\n")
    }

    /// Fails when what others see is not what they saw `before`.
    #[track_caller]
    pub fn assert_unchanged(&self, before: &str, after_what: &str) {
        let now = self.witness();
        if now != before {
            let diff = similar::TextDiff::from_lines(before, &now).unified_diff().to_string();
            panic!("not as it was before, after {after_what}:\n{diff}");
        }
    }

    /// Waits until the kernel has made sure that no IPv6 address is a duplicate: until then it adds routes by
    /// itself. Without a carrier it never does, and is not waited for.
    fn await_duplicate_detection(&self) {
        self.wait_until("no IPv6 address is tentative", || {
            let tentative = self.run(["ip", "-6", "-o", "address", "show", "tentative"]);
            let mut links = tentative.lines().filter_map(|line| line.split_whitespace().nth(1));
            links.all(|link| !self.run(["ip", "-o", "link", "show", "dev", link]).contains("LOWER_UP"))
        });
    }

    /// Waits until every IPv6 address is in force: the kernel adds its local route some time after it.
    pub fn settle(&self) {
        self.wait_until("every IPv6 address is in force", || {
            let addresses = self.run(["ip", "-6", "-o", "address", "show"]);
            let local = self.run(["ip", "-6", "route", "show", "table", "local"]);
            let of =
                |line: &str| line.split_whitespace().nth(3)?.split('/').next().map(|a| format!("local {a} "));
            addresses.lines().filter_map(of).all(|route| local.contains(&route))
        });
    }

    /// The routes of hostgw in the main table, one a line.
    pub fn managed_routes(&self) -> Vec<String> {
        let routes = self.run(["ip", "route", "show", "proto", "87"]);
        routes.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The value of a sysctl.
    pub fn sysctl(&self, key: &str) -> String {
        self.run(["sysctl", "-n", key]).trim_end().to_owned()
    }

    /// Watches the kernel's own announcements of changes to routes, links, addresses and rules.
    pub fn listen(&self) -> Silence {
        Silence::start(self)
    }
}

/// Counters go up by themselves.
pub fn without_counters(text: &str) -> String {
    let mut words = text.split_inclusive([' ', '\n', '[']).peekable();
    let mut result = String::new();
    while let Some(word) = words.next() {
        result.push_str(word);
        let is_counter = matches!(word.trim_end(), "packets" | "bytes");
        if is_counter && words.peek().is_some_and(|next| next.trim_end().parse::<u64>().is_ok()) {
            let number = words.next().unwrap_or_default();
            result.push('N');
            result.push_str(number.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    // `:POSTROUTING ACCEPT [12:720]`
    result
        .lines()
        .map(|line| line.split_once(" [").filter(|_| line.starts_with(':')).map_or(line, |(head, _)| head))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// `ip monitor` and `nft monitor`, and what they said.
pub struct Silence {
    children: Vec<Child>,
    readers: Vec<JoinHandle<()>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Silence {
    fn start(namespace: &Namespace) -> Self {
        let mut silence =
            Self { children: Vec::new(), readers: Vec::new(), heard: Arc::new(Mutex::new(Vec::new())) };
        silence.listen(namespace, &["ip", "-o", "monitor", "link", "address", "route", "rule", "netconf"]);
        silence.listen(namespace, &["ip", "-6", "-o", "monitor", "route"]);
        silence.listen(namespace, &["stdbuf", "-oL", "nft", "monitor"]);
        // A change of the listener's own, to know that all of them hear.
        namespace.sh("ip link add probe0 type bridge && nft add table ip probe");
        namespace.wait_until("the monitors hear", || {
            let heard = silence.heard();
            let has = |what: &str| heard.iter().any(|line| line.contains(what));
            if has("probe0") && has("add table ip probe") {
                return true;
            }
            namespace.sh("nft delete table ip probe; ip link del probe0; ip link add probe0 type bridge
                          nft add table ip probe");
            thread::sleep(Duration::from_millis(50));
            false
        });
        namespace.sh("nft delete table ip probe; ip link del probe0");
        silence.settle();
        silence
    }

    fn listen(&mut self, namespace: &Namespace, command: &[&str]) {
        let mut child = namespace
            .command(command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a monitor");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let heard = Arc::clone(&self.heard);
        self.readers.push(thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().expect("no panic").push(line);
            }
        }));
        self.children.push(child);
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }

    /// Waits until nothing more comes, and forgets what came.
    fn settle(&self) {
        let mut last = usize::MAX;
        while std::mem::replace(&mut last, self.heard().len()) != last {
            thread::sleep(Duration::from_millis(100));
        }
        self.heard.lock().expect("no panic").clear();
    }

    /// What was heard up to now.
    pub fn end(mut self) -> Vec<String> {
        let mut last = usize::MAX;
        while std::mem::replace(&mut last, self.heard().len()) != last {
            thread::sleep(Duration::from_millis(100));
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic");
        }
        self.heard()
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
