//! A systemd scope for a process that must outlive the service or the login that started it.
//!
//! When a service ends, systemd kills all processes in its control group, even those in other sessions. When a user logs out,
//! logind can do the same to the scope of the login (`KillUserProcesses=`, logind.conf(5)).

use std::{fs, path::Path, process::Command as Program};

/// Exists if systemd manages this machine (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";

/// Returns `true` if systemd can kill this process, because it belongs to a service or a login.
pub(super) fn can_end_this_process() -> bool {
    Path::new(SYSTEMD).is_dir()
        && fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| can_end(&groups))
}

/// Returns `true` if a process with this `/proc/PID/cgroup` belongs to a service or a login.
fn can_end(groups: &str) -> bool {
    let is_login = |unit: &str| unit.starts_with("session-") && unit.ends_with(".scope");
    groups
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .filter(|(controllers, _)| matches!(*controllers, "" | "name=systemd"))
        .any(|(_, path)| path.split('/').any(|unit| unit.ends_with(".service") || is_login(unit)))
}

/// Returns a command that runs this program in a scope of its own, with the same process ID and the same open files.
pub(super) fn this_program_in_scope() -> Program {
    let mut program = Program::new("systemd-run");
    program
        .args([
            "--scope",
            "--collect",
            "--quiet",
            "--no-ask-password",
            "--description=hostgw apply --confirm",
        ])
        .arg("--")
        // `/proc/self` would refer to systemd-run.
        .arg(format!("/proc/{}/exe", std::process::id()));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_services_and_logins_are_recognized() {
        for groups in [
            "0::/system.slice/backup.service\n",
            "0::/user.slice/user-0.slice/user@0.service/app.slice/run-1.scope\n",
            "0::/system.slice/agent.service/payload\n",
            "0::/user.slice/user-0.slice/session-3.scope\n",
            "0::/user.slice/user-1000.slice/session-c1.scope\n",
            "4:memory:/a\n1:name=systemd:/system.slice/cron.service\n0::/\n",
        ] {
            assert!(can_end(groups), "{groups}");
        }
        for groups in [
            "",
            "0::/\n",
            "0::/system.slice/run-u3.scope\n",
            "4:memory:/system.slice/cron.service\n1:name=systemd:/init.scope\n",
            "damaged.service",
        ] {
            assert!(!can_end(groups), "{groups}");
        }
    }
}
