//! Finds the SSH client that the user is logged in from.

use std::{env, fs, net::IpAddr};

/// Returns the address of the SSH client of this session: from the `SSH_CONNECTION` of this process or, because sudo
/// removes it, of the nearest ancestor that has it.
pub(super) fn client() -> Option<IpAddr> {
    if let Some(connection) = env::var_os("SSH_CONNECTION") {
        return address(connection.to_str()?);
    }
    let mut process = rustix::process::getppid()?.as_raw_pid();
    while process > 1 {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if let Some(connection) = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION=")) {
            return address(str::from_utf8(connection).ok()?);
        }
        process = parent(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    }
    None
}

/// Returns the address of the client in a value of the form that ssh(1) describes: client, port, server, port. A
/// link-local address has a zone index.
fn address(connection: &str) -> Option<IpAddr> {
    let client = connection.split_whitespace().next()?;
    client.split('%').next()?.parse().ok()
}

/// Returns the parent in a line of the form that proc_pid_stat(5) describes. The name in parentheses can contain
/// anything.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_comes_first() {
        assert_eq!(address("192.0.2.7 51022 172.30.0.11 22"), Some(IpAddr::from([192, 0, 2, 7])));
        assert_eq!(address("fe80::1%eth0 51022 fe80::2%eth0 22"), "fe80::1".parse().ok());
        assert_eq!(address(""), None);
        assert_eq!(address("nonsense 1 2 3"), None);
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("42 (a) b) (c) S 7 42 42 0"), Some(7));
        assert_eq!(parent("42 (sh"), None);
    }
}
