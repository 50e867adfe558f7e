//! A machine at the other end of a test's cable.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::{Holder, Namespace};

/// A network namespace that listens on some ports, until this is dropped or the process of the test ends.
pub struct Peer {
    shell: Holder,
    /// The program that listens, if there are ports.
    listener: Option<Child>,
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
        let shell = node.with_command("unshare", |mut command| {
            command.arg("-n");
            Holder::start(command, &[])
        });
        let mut peer = Self { shell, listener: None };
        if !ports.is_empty() {
            let mut command = peer.command(node, "perl");
            command.args(["-e", LISTEN]).args(ports.iter().map(ToString::to_string));
            let mut listener = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("perl");
            let mut ready = String::new();
            BufReader::new(listener.stdout.take().expect("piped")).read_line(&mut ready).expect("text");
            assert_eq!(ready, "ready\n", "the peer does not listen");
            peer.listener = Some(listener);
        }
        node.sh(&format!("ip link set {end} netns {} name far", peer.shell.id()));
        peer.sh(
            node,
            "echo 0 >/proc/sys/net/ipv6/conf/far/accept_dad; ip link set lo up; ip link set far up",
        );
        peer
    }

    /// A command in it. `node` is the namespace at the other end.
    pub fn command(&self, node: &Namespace, program: &str) -> Command {
        let mut command = node.command("nsenter");
        command.args(["-t", &self.shell.id().to_string(), "-n", program]);
        command
    }

    /// Runs a script in it, which must succeed. `node` is the namespace at the other end.
    #[track_caller]
    pub fn sh(&self, node: &Namespace, script: &str) -> String {
        let all = format!("set -e\n{script}");
        node.run_script_in(&self.shell, script, &all, || self.command(node, "sh")).expect(0).stdout
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(listener) = &mut self.listener {
            drop(listener.stdin.take());
            let _ = listener.wait();
        }
    }
}
