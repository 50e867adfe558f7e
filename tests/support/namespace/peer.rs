//! A machine at the other end of a test's cable.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use super::{Namespace, Outcome};

/// A network namespace that listens on some ports, until this is dropped or the process of the test ends.
pub struct Peer {
    child: Child,
}

/// Listens on the ports in its arguments until its standard input ends. perl-base is essential on Debian and Ubuntu;
/// `nc` is not.
const LISTEN: &str = r#"
use Socket;
$SIG{INT} = $SIG{HUP} = 'IGNORE';
my $watched = '';
vec($watched, 0, 1) = 1;
my @listeners = map {
    socket(my $listener, PF_INET, SOCK_STREAM, 0) or die $!;
    bind($listener, sockaddr_in($_, INADDR_ANY)) or die $!;
    listen($listener, 100) or die $!;
    vec($watched, fileno($listener), 1) = 1;
    $listener
} @ARGV;
$| = 1;
print "ready\n";
while (select(my $ready = $watched, undef, undef, undef) > 0) {
    last if vec($ready, 0, 1);
    for my $listener (@listeners) {
        accept(my $connection, $listener) if vec($ready, fileno($listener), 1);
    }
}
"#;

impl Peer {
    /// Moves the interface `end` of `node` into a new namespace, renames it to `far`, and listens on `ports`.
    pub fn behind(node: &Namespace, end: &str, ports: &[u16]) -> Self {
        let ports = ports.iter().map(ToString::to_string);
        let mut child = node
            .command("unshare")
            .args(["-n", "perl", "-e", LISTEN])
            .args(ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("text");
        assert_eq!(ready, "ready\n", "the peer does not listen");
        let peer = Self { child };
        node.sh(&format!("ip link set {end} netns {} name far", peer.child.id()));
        peer.sh(
            node,
            "echo 0 >/proc/sys/net/ipv6/conf/far/accept_dad; ip link set lo up; ip link set far up",
        );
        peer
    }

    /// A command in it. `node` is the namespace at the other end.
    pub fn command(&self, node: &Namespace, program: &str) -> std::process::Command {
        let mut command = node.command("nsenter");
        command.args(["-t", &self.child.id().to_string(), "-n", program]);
        command
    }

    /// Runs a script in it, which must succeed. `node` is the namespace at the other end.
    #[track_caller]
    pub fn sh(&self, node: &Namespace, script: &str) -> String {
        Outcome::of(node, script, self.command(node, "sh").args(["-ec", script])).expect(0).stdout
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
