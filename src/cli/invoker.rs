//! Determines the user who runs hostgw, and whether privileges are elevated.

use std::{env, fs, process::Command, time::Duration};

use rustix::process::{getegid, geteuid, getgid, getuid};

use super::program::{self, Limits};
use crate::text::Untrusted;

/// How long to wait for a user directory such as LDAP. After that, an apply continues without the name.
const TIME: Duration = Duration::from_secs(2);

/// The maximum length of a name from any source, in bytes.
const MAX_NAME: usize = 256;

/// Returns `true` if this process has privileges that the user who started it lacks: through sudo, su, pkexec, doas
/// or setuid.
pub(super) fn is_elevated() -> bool {
    let own = geteuid().as_raw();
    let has_other_ids = getuid() != geteuid() || getgid() != getegid();
    let is_by_doas = env::var_os("DOAS_USER").is_some_and(|user| own == 0 && user != "root");
    let started_by = [login_id(), id_in("SUDO_UID"), id_in("PKEXEC_UID")];
    has_other_ids || is_by_doas || started_by.into_iter().flatten().any(|id| id != own)
}

/// Returns the user who logged in, even after sudo or su, or `uid N` if the name is unknown.
pub(super) fn user() -> Untrusted {
    let id = login_id().or_else(|| id_in("SUDO_UID")).unwrap_or_else(|| getuid().as_raw());
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(id, &users)
        .map(ToOwned::to_owned)
        .or_else(|| name_in_directory(id))
        .or_else(|| id_in("SUDO_UID").filter(|by_sudo| *by_sudo == id).and_then(|_| name_by_sudo()));
    name.map_or_else(|| format!("uid {id}").into(), |name| Untrusted::from(name).truncated(MAX_NAME))
}

/// Returns the user ID of the login, if there was one.
fn login_id() -> Option<u32> {
    let login = fs::read_to_string("/proc/self/loginuid").ok()?;
    // 4294967295 (-1) means no login, as in a daemon.
    login.trim().parse().ok().filter(|id| *id != u32::MAX)
}

fn id_in(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// Returns the name of a user in the format of passwd(5).
fn name_of(id: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

/// Returns the name from the name service (nsswitch.conf(5)). A separate program asks for it, because a module of the
/// name service can hang or crash.
fn name_in_directory(id: u32) -> Option<String> {
    let limits = Limits { time: Some(TIME), bytes: 64 << 10 };
    let mut command = Command::new("/usr/bin/getent");
    command.env_clear().args(["passwd", &id.to_string()]);
    let printed = program::collect(&mut command, limits).ok().filter(|printed| printed.status.success())?;
    name_of(id, &String::from_utf8_lossy(&printed.stdout)).map(ToOwned::to_owned)
}

/// Returns the name that sudo passes, if it is a plausible name: any user can set the variable.
fn name_by_sudo() -> Option<String> {
    env::var("SUDO_USER").ok().filter(|name| is_user_name(name))
}

/// Returns `true` if `name` is a plausible user name. useradd(8) allows fewer characters; user directories allow more.
fn is_user_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '\\' | '$');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && name.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\n:x:7\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(0, users), Some("root"));
        assert_eq!(name_of(1000, users), Some("alice"));
        assert_eq!(name_of(1001, users), None);
        assert_eq!(name_of(7, users), None);
    }

    #[test]
    fn names_by_sudo_are_like_names() {
        for name in ["alice", "alice.b-c_d", "alice@example.org", "EXAMPLE\\alice", "host$"] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "-x", "a b", "a\nb", "a\u{1b}[31m", "a:b", "\u{202e}a", &"a".repeat(300)] {
            assert!(!is_user_name(name), "{name}");
        }
    }
}
