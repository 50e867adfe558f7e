//! The state of a namespace as other tools see it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::Namespace;

impl Namespace {
    /// All routes, the entire rule set and every sysctl of the namespace, as `ip`, `nft`, `iptables` and the kernel's
    /// files show them. Tables of iptables are among those of nft, or are named in a file of the kernel.
    pub fn witness(&self) -> String {
        self.await_duplicate_detection();
        let mut seen = self.look(
            "exec 2>/dev/null
             set +e
             echo '# IPv4'; ip -d -batch - <<'END'
route show table all
rule
nexthop
END
             echo '# IPv6'; ip -6 -d -batch - <<'END'
route show table all
rule
END
             echo '# nft list ruleset'; nft list ruleset
             exit 0",
        );
        if self.has_legacy_tables(&seen) {
            seen +=
                &self.sh("echo '# iptables-save'; iptables-save; echo '# ip6tables-save'; ip6tables-save");
        }
        let is_steady = |line: &&str| !line.starts_with("# Generated") && !line.starts_with("# Completed");
        let seen = without_counters(&seen);
        let mut sysctls = self.sysctls(&["/proc/sys/net"]);
        sysctls.retain(|line| !line.contains("conntrack_count:"));
        seen.lines()
            .filter(is_steady)
            .chain(sysctls.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Returns whether tables of iptables-legacy exist, or tables of iptables-nft are among those of nft.
    fn has_legacy_tables(&self, ruleset: &str) -> bool {
        const FAMILIES: [&str; 2] = ["ip", "ip6"];
        let has = |(family, table): (&str, &str)| ruleset.contains(&format!("table {family} {table} "));
        let tables = ["filter", "nat", "mangle", "raw", "security"];
        if FAMILIES.iter().any(|family| tables.iter().any(|table| has((family, table)))) {
            return true;
        }
        let read = |family: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names")).unwrap_or_default()
        };
        let names = self.inside(|| FAMILIES.map(read).concat());
        !names
            .unwrap_or_else(|| {
                self.sh("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true")
            })
            .is_empty()
    }

    /// The values of the sysctls below some paths of /proc/sys, as sorted lines `PATH:VALUE`.
    pub fn sysctls(&self, paths: &[&str]) -> Vec<String> {
        let read = || {
            let mut values = Vec::new();
            for path in paths {
                read_sysctls(path, &mut values);
            }
            values
        };
        let mut values = self.inside(read).unwrap_or_else(|| {
            let values = self.sh(&format!("grep -rs '' {} || true", paths.join(" ")));
            values.lines().map(ToOwned::to_owned).collect()
        });
        values.sort_unstable();
        values
    }

    /// Fails if the state differs from `before`.
    #[track_caller]
    pub fn assert_unchanged(&self, before: &str, after_what: &str) {
        let now = self.witness();
        if now != before {
            let diff = similar::TextDiff::from_lines(before, &now).unified_diff().to_string();
            panic!("not as it was before, after {after_what}:\n{diff}");
        }
    }

    /// Waits until the duplicate address detection of IPv6 is done: until then, the kernel itself adds routes. Without
    /// a carrier it never finishes, and is not waited for.
    fn await_duplicate_detection(&self) {
        /// `IFA_F_TENTATIVE`
        const TENTATIVE: u32 = 0x40;
        // address, index, length of the prefix, scope, flags, link
        let is_tentative = |line: &&str| {
            let flags = line.split_whitespace().nth(4).expect("flags");
            u32::from_str_radix(flags, 16).expect("a hexadecimal number") & TENTATIVE != 0
        };
        self.wait_until("no IPv6 address is tentative", || {
            let path = "/proc/thread-self/net/if_inet6";
            let addresses = self.inside(|| fs::read_to_string(path).unwrap_or_default());
            let addresses =
                addresses.unwrap_or_else(|| self.sh("cat /proc/net/if_inet6 2>/dev/null || true"));
            let mut links =
                addresses.lines().filter(is_tentative).filter_map(|line| line.split_whitespace().nth(5));
            links.all(|link| !self.run(["ip", "-o", "link", "show", "dev", link]).contains("LOWER_UP"))
        });
    }

    /// Waits until every IPv6 address is in effect, because the kernel adds its local route later.
    pub fn await_ipv6_addresses(&self) {
        self.await_link_addresses(0);
    }

    /// Same, with at least this number of link-local addresses.
    pub fn await_link_addresses(&self, number: usize) {
        /// `RTF_LOCAL`
        const LOCAL: u32 = 0x8000_0000;
        /// `IFA_LINK`
        const LINK: &str = "20";
        self.wait_until("every IPv6 address is in effect", || {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            let [addresses, routes] =
                self.inside(|| ["if_inet6", "ipv6_route"].map(read)).unwrap_or_else(|| {
                    ["if_inet6", "ipv6_route"]
                        .map(|name| self.sh(&format!("cat /proc/net/{name} 2>/dev/null || true")))
                });
            let words = |line: &'_ str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
            let addresses: Vec<_> = addresses.lines().map(words).collect();
            // destination, length, source, length, next hop, metric, references, uses, flags, link
            let flags = |route: &[String]| u32::from_str_radix(&route[8], 16).expect("a hexadecimal number");
            let local: Vec<_> = routes.lines().map(words).filter(|route| flags(route) & LOCAL != 0).collect();
            let of_links = addresses.iter().filter(|address| address[3] == LINK).count();
            of_links >= number
                && addresses.iter().all(|address| local.iter().any(|route| route[0] == address[0]))
        });
    }

    /// The managed routes in the main table, one per line.
    pub fn managed_routes(&self) -> Vec<String> {
        let routes = self.look("ip route show proto 87");
        routes.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The value of a sysctl.
    pub fn sysctl(&self, key: &str) -> String {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            _ => c,
        };
        let path = format!("/proc/sys/{}", key.chars().map(swap).collect::<String>());
        let open = || fs::File::open(&path).ok();
        let value = self.inside(|| {
            open().and_then(|file| read_sysctl(file, open)).unwrap_or_else(|| panic!("no {path}"))
        });
        value.unwrap_or_else(|| self.run(["sysctl", "-n", key])).trim_end().to_owned()
    }

    /// Records the kernel's notifications about routes, links, addresses and rules.
    pub fn listen(&self) -> Monitors {
        Monitors::start(self)
    }
}

/// Adds the values of a sysctl, or of all those in a directory, as lines `PATH:VALUE`. Leaves out those that cannot be
/// read.
fn read_sysctls(path: &str, values: &mut Vec<String>) {
    let open = || fs::File::open(path).ok();
    match rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(directory) => read_directory(&directory, path, values),
        Err(_) => values.extend(open().into_iter().flat_map(|file| lines_of(path, file))),
    }
}

/// Same, for a directory. Every file is opened by its name alone: the kernel would look up every component of its path.
fn read_directory(directory: &OwnedFd, path: &str, values: &mut Vec<String>) {
    for entry in rustix::fs::Dir::read_from(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let path = format!("{path}/{}", name.to_string_lossy());
        let open = |flags| {
            rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty()).ok()
        };
        match entry.file_type() {
            FileType::Directory if name == c"." || name == c".." => {}
            FileType::Directory => {
                open(OFlags::DIRECTORY).into_iter().for_each(|inner| read_directory(&inner, &path, values));
            }
            _ => {
                values.extend(open(OFlags::empty()).into_iter().flat_map(|file| lines_of(&path, file.into())))
            }
        }
    }
}

/// The value of a sysctl as lines `PATH:VALUE`.
fn lines_of(path: &str, file: fs::File) -> Vec<String> {
    let value = read_sysctl(file, || fs::File::open(path).ok()).unwrap_or_default();
    value.lines().map(|line| format!("{path}:{line}")).collect()
}

/// The value of a sysctl. The kernel cuts long values to the size of the first read, so they are read `again`.
fn read_sysctl(file: fs::File, again: impl FnOnce() -> Option<fs::File>) -> Option<String> {
    let read = |mut file: fs::File, size| {
        let mut value = vec![0; size];
        let length = file.read(&mut value).ok()?;
        value.truncate(length);
        Some(value)
    };
    let short = read(file, 1 << 10)?;
    let value = if short.len() < 1 << 10 { short } else { read(again()?, 1 << 17)? };
    Some(String::from_utf8(value).expect("UTF-8"))
}

/// Removes counters, which change on their own.
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

/// `ip monitor` and `nft monitor`, and their output.
pub struct Monitors {
    children: Vec<Child>,
    readers: Vec<JoinHandle<()>>,
    notifications: Arc<Mutex<Vec<String>>>,
}

impl Monitors {
    fn start(namespace: &Namespace) -> Self {
        let mut monitors = Self {
            children: Vec::new(),
            readers: Vec::new(),
            notifications: Arc::new(Mutex::new(Vec::new())),
        };
        monitors.listen(namespace, &["ip", "-o", "monitor", "link", "address", "route", "rule", "netconf"]);
        monitors.listen(namespace, &["ip", "-6", "-o", "monitor", "route"]);
        monitors.listen(namespace, &["stdbuf", "-oL", "nft", "monitor"]);
        // A change by the test itself shows that all monitors receive notifications.
        namespace.sh("ip link add probe0 type bridge && nft add table ip probe");
        namespace.wait_until("the monitors receive notifications", || {
            let notifications = monitors.notifications();
            let has = |what: &str| notifications.iter().any(|line| line.contains(what));
            if has("probe0") && has("add table ip probe") {
                return true;
            }
            namespace.sh("nft delete table ip probe; ip link del probe0; ip link add probe0 type bridge
                          nft add table ip probe");
            thread::sleep(Duration::from_millis(50));
            false
        });
        namespace.sh("nft delete table ip probe; ip link del probe0");
        monitors.discard_pending();
        monitors
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
        let notifications = Arc::clone(&self.notifications);
        self.readers.push(thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                notifications.lock().expect("no panic").push(line);
            }
        }));
        self.children.push(child);
    }

    fn notifications(&self) -> Vec<String> {
        self.notifications.lock().expect("no panic").clone()
    }

    /// Waits until no more notifications arrive, and discards them.
    fn discard_pending(&self) {
        let mut last = usize::MAX;
        while std::mem::replace(&mut last, self.notifications().len()) != last {
            thread::sleep(Duration::from_millis(100));
        }
        self.notifications.lock().expect("no panic").clear();
    }

    /// Returns the notifications so far.
    pub fn end(mut self) -> Vec<String> {
        let mut last = usize::MAX;
        while std::mem::replace(&mut last, self.notifications().len()) != last {
            thread::sleep(Duration::from_millis(100));
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic");
        }
        self.notifications()
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
