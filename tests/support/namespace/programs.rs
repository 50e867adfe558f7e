//! The programs that the end-to-end tests need, and error messages if they are missing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// On Debian, the path of ordinary users lacks `/usr/sbin`, which contains `nft`, `ip` and `iptables`.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs, and their Debian packages.
const NEEDED: [(&str, &str); 17] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-save", "iptables"),
    ("ping", "iputils-ping"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("flock", "util-linux"),
    ("script", "bsdutils"),
    ("sysctl", "procps"),
    ("hostname", "hostname"),
    ("git", "git"),
    ("jq", "jq"),
    ("less", "less"),
    ("ss", "iproute2"),
    ("perl", "perl-base"),
    ("busybox", "busybox"),
    ("valgrind", "valgrind"),
];

/// Returns the path of a program; its name if there is none.
pub fn find(name: &str) -> PathBuf {
    let mut paths = PATH.split(':').map(|folder| Path::new(folder).join(name));
    paths.find(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// Fails if a program is missing.
pub fn check() {
    static MISSING: OnceLock<Vec<(&str, &str)>> = OnceLock::new();
    let missing =
        MISSING.get_or_init(|| NEEDED.into_iter().filter(|(name, _)| !find(name).is_absolute()).collect());
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    assert!(
        missing.is_empty(),
        "the end-to-end tests need {}: apt install {}",
        names.join(", "),
        packages.join(" ")
    );
}

/// Returns why no namespace could be created, and the remedy.
pub fn no_namespaces(why: &str) -> String {
    let remedies = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ];
    let closed = |(file, value, _): &(&str, &str, &str)| {
        fs::read_to_string(file).is_ok_and(|value_now| value_now.trim() == *value)
    };
    let remedy = remedies.iter().find(|remedy| closed(remedy)).map_or_else(
        || "allow user namespaces on this machine, or run the tests as its root".to_owned(),
        |(.., command)| format!("run `{command}`, or run the tests as root"),
    );
    format!("the end-to-end tests cannot make network namespaces here ({}): {remedy}", why.trim())
}

/// The script of the suite installs all of them on a fresh machine.
#[test]
fn the_script_of_the_suite_installs_every_program() {
    /// Part of every Debian system.
    const ESSENTIAL: [&str; 4] = ["bash", "coreutils", "hostname", "perl-base"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a script");
    let (script, packages) = (read("run"), read("packages"));
    let installed = script.lines().find_map(|line| line.strip_prefix("install_packages ")).expect("a list");
    for package in NEEDED.map(|(_, package)| package).iter().filter(|package| !ESSENTIAL.contains(package)) {
        assert!(installed.split(' ').any(|name| name == *package), "tests/run does not install {package}");
        assert!(packages.contains(&format!("[{package}]=")), "tests/packages does not know {package}");
    }
}
