//! Network namespaces for the tests of this module.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    process::{Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `test` on a thread inside a new network namespace, which its threads and child processes inherit.
///
/// A child process (`unshare -n`) creates the namespace and the thread joins it: unsharing a thread in place would need
/// `unsafe`.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let mut holder = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo ready; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare (util-linux) is installed");
    let mut ready = String::new();
    BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut ready).expect("readable");
    assert_eq!(
        ready, "ready\n",
        "these tests create network namespaces: run them as root, or under `unshare -rn`"
    );
    let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).expect("a live child");
    drop(holder.stdin.take());
    holder.wait().expect("our child");
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace that we own");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a shell script, which must succeed, in the namespace of the calling thread, and returns its standard output.
pub(super) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("a shell");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
