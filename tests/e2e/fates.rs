//! What `hostgw doctor` says about firewalls, held to what happens to real packets of TCP, UDP and ICMP.

use std::process::{Child, Stdio};

use super::RECIPE;
use crate::support::namespace::{Privilege, SimulatedCluster, each};

/// Answers on TCP port 443 and UDP port 9000 until its standard input ends.
const SERVE: &str = r#"
use Socket;
socket(my $tcp, PF_INET, SOCK_STREAM, 0) or die $!;
bind($tcp, sockaddr_in(443, INADDR_ANY)) or die $!;
listen($tcp, 100) or die $!;
socket(my $udp, PF_INET, SOCK_DGRAM, 0) or die $!;
bind($udp, sockaddr_in(9000, INADDR_ANY)) or die $!;
my $watched = '';
vec($watched, $_, 1) = 1 for (0, fileno($tcp), fileno($udp));
while (select(my $ready = $watched, undef, undef, undef) > 0) {
    last if vec($ready, 0, 1);
    accept(my $connection, $tcp) if vec($ready, fileno($tcp), 1);
    if (vec($ready, fileno($udp), 1)) {
        my $from = recv($udp, my $text, 2000, 0);
        send($udp, $text, 0, $from);
    }
}
"#;

/// Tries connections at the same time, and prints the names of those with an answer. Each has three arguments: address,
/// protocol, name.
const TRY: &str = r#"
use Socket qw(:DEFAULT SOCK_NONBLOCK);
my (%sockets, %is_tcp);
while (my ($address, $protocol, $name) = splice @ARGV, 0, 3) {
    my $is_tcp = $protocol eq 'TCP';
    socket(my $socket, PF_INET, ($is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0) or die $!;
    connect($socket, sockaddr_in($is_tcp ? 443 : 9000, inet_aton($address)));
    $is_tcp or send($socket, 'x', 0) or next;
    ($sockets{$name}, $is_tcp{$name}) = ($socket, $is_tcp);
}
my ($ready, $rest) = (0, 0.5);
while (%sockets) {
    my ($readable, $writable) = ('', '');
    vec($is_tcp{$_} ? $writable : $readable, fileno($sockets{$_}), 1) = 1 for keys %sockets;
    ($ready, $rest) = select($readable, $writable, undef, $rest);
    $ready > 0 or last;
    for my $name (sort keys %sockets) {
        my $socket = $sockets{$name};
        vec($is_tcp{$name} ? $writable : $readable, fileno($socket), 1) or next;
        my $answered = $is_tcp{$name} ? getpeername($socket) : defined(recv($socket, my $text, 2000, 0));
        print "$name\n" if $answered;
        delete $sockets{$name};
    }
}
"#;

const PODS: [&str; 2] = ["pod of linux-1", "pod of linux-2"];
const POD: &str = "10.244.1.10";
const OWN_POD: &str = "10.244.0.10";
const NODE: &str = "172.30.0.12";
const OUTSIDE: &str = "203.0.113.10";

/// A table for the rules of a case, with chains at the hooks that packets pass.
const CHAINS: &str = "
    add chain ip fw pre { type filter hook prerouting priority -200; }
    add chain ip fw nat { type nat hook prerouting priority -110; }
    add chain ip fw forward { type filter hook forward priority 10; }
    add chain ip fw post { type nat hook postrouting priority 90; }
";

/// The rules of table `fw` in linux-1, what doctor says of them, and what does not get through to the pod of linux-2 (its
/// protocols) and to the outside.
const CASES: [(&str, &str, &str); 72] = [
    // Protocols.
    ("add rule ip fw forward meta l4proto tcp drop", "HG1004 drops TCP packets between", "TCP outside"),
    ("add rule ip fw forward meta l4proto udp drop", "HG1004 drops UDP packets between", "UDP"),
    ("add rule ip fw forward ip protocol icmp drop", "HG1040 drops ICMP packets between", "ICMP"),
    (
        "add rule ip fw forward meta l4proto { tcp, udp } drop",
        "HG1004 drops TCP and UDP packets between",
        "TCP UDP outside",
    ),
    (
        "add rule ip fw forward meta l4proto { icmp, tcp, udp } drop",
        "HG1004 drops packets between",
        "ICMP TCP UDP outside",
    ),
    ("add rule ip fw forward tcp dport 1-65535 drop", "HG1004 drops TCP packets between", "TCP outside"),
    ("add rule ip fw forward tcp flags syn drop", "HG1004 drops TCP packets between", "TCP outside"),
    ("add rule ip fw forward tcp dport { 25, 135, 445 } drop", "", ""),
    ("add rule ip fw forward tcp flags & (fin|syn) == fin|syn drop", "", ""),
    ("add rule ip fw forward icmp type { redirect, router-advertisement } drop", "", ""),
    ("add rule ip fw forward ip frag-off & 0x1fff != 0 drop", "", ""),
    ("add rule ip fw forward ip dscp 0 drop", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    // Packets that are dropped by chance or by their size.
    ("add rule ip fw forward ip ttl lt 250 drop", "HG1040 depending on `ttl`", "ICMP TCP UDP outside"),
    ("add rule ip fw forward ip length gt 1000 drop", "HG1040 depending on `length`", ""),
    (
        "add rule ip fw forward limit rate over 10/second burst 9 packets drop",
        "HG1040 depending on `limit`",
        "?",
    ),
    ("add rule ip fw forward limit rate over 100000/second drop", "", ""),
    ("add limit ip fw l { rate over 100000/second; }\nadd rule ip fw forward limit name l drop", "", ""),
    (
        "add set ip fw flood { type ipv4_addr; flags dynamic; timeout 1m; size 100; }
         add rule ip fw forward update @flood { ip saddr limit rate over 100000/second } drop",
        "",
        "",
    ),
    (
        "add limit ip fw l { rate over 10/second; }\nadd rule ip fw forward limit name l drop",
        "HG1040 depending on `limit`",
        "?",
    ),
    (
        "add set ip fw flood { type ipv4_addr; flags dynamic; timeout 1m; size 100; }
         add rule ip fw forward update @flood { ip saddr limit rate over 10/second } drop",
        "HG1040 depending on `limit`",
        "?",
    ),
    ("add rule ip fw forward limit rate 1/second drop", "HG1040 depending on `limit`", "?"),
    ("add rule ip fw forward ct count over 0 drop", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("add rule ip fw forward ct count over 5000 drop", "", ""),
    ("add rule ip fw forward ct packets > 0 drop", "HG1040 depending on `ct packets`", "?"),
    (
        "add rule ip fw forward ip checksum != 0 drop",
        "HG1040 depending on `checksum`",
        "ICMP TCP UDP outside",
    ),
    (
        "add rule ip fw forward jhash ip saddr mod 1 == 0 drop",
        "HG1040 depending on `hash`",
        "ICMP TCP UDP outside",
    ),
    (
        "add chain ip fw sub\nadd rule ip fw sub drop\nadd rule ip fw forward numgen inc mod 1 == 0 jump sub",
        "HG1004 in chain `sub`",
        "ICMP TCP UDP outside",
    ),
    // Conditions that are not decoded.
    (
        "add rule ip fw forward meta day { 0, 1, 2, 3, 4, 5, 6 } drop",
        "HG1005 cannot decode `meta day`",
        "ICMP TCP UDP outside",
    ),
    ("add rule ip fw forward meta day { 0, 1, 2, 3, 4, 5, 6 } log", "", ""),
    ("add rule ip fw forward meta day { 0, 1, 2, 3, 4, 5, 6 } accept", "", ""),
    ("add rule ip fw forward meta mark 1-10 drop", "", ""),
    ("add rule ip fw pre iifname cni0 meta pkttype set other", "HG1005 meta pkttype", "ICMP TCP UDP outside"),
    (
        "add rule ip fw post meta day { 0, 1, 2, 3, 4, 5, 6 } masquerade",
        "HG1005 may change the source address",
        "",
    ),
    ("add rule ip fw post numgen inc mod 2 == 0 masquerade", "HG1005 depending on `numgen`", ""),
    (
        "add rule ip fw post ct original ip saddr 10.9.0.0/16 return\nadd rule ip fw post masquerade",
        "HG1005 may change the source address of packets between",
        "",
    ),
    (
        "add rule ip fw nat ip daddr 10.244.1.0/24 dnat to numgen inc mod 2 map { 0 : 10.244.1.11, 1 : 10.244.1.11 }",
        "HG1005 may change the destination of packets from",
        "ICMP TCP UDP",
    ),
    // Headers that rules overwrite.
    (
        "add rule ip fw pre iifname cni0 ip ttl set 1",
        "HG1047 sets the TTL of packets from",
        "ICMP TCP UDP outside",
    ),
    ("add rule ip fw forward ip ttl set 64", "", ""),
    ("add rule ip fw forward ip dscp set cs1", "", ""),
    (
        "add rule ip fw forward ip daddr 10.244.0.0/16 ip daddr set 10.244.1.77",
        "HG1047 overwrites the destination address of packets between",
        "ICMP TCP UDP outside",
    ),
    (
        "add rule ip fw forward ip daddr 10.244.1.0/24 ip saddr set 192.0.2.9",
        "HG1047 overwrites the source address of packets from",
        "ICMP TCP UDP",
    ),
    (
        "add rule ip fw forward tcp dport set 88",
        "HG1047 overwrites ports of TCP packets between",
        "TCP outside",
    ),
    // NAT of the destination, and chains of NAT that drop.
    (
        "add rule ip fw nat ip daddr 10.244.1.0/24 dnat to 10.244.0.99",
        "HG1041 changes the destination of packets from",
        "ICMP TCP UDP",
    ),
    (
        "add rule ip fw nat ip daddr 10.244.0.0/16 tcp dport 1-65535 redirect to :15001",
        "HG1041 changes the destination of TCP packets between",
        "TCP",
    ),
    ("add rule ip fw nat tcp dport 8080 dnat to 10.244.0.99:80", "", ""),
    ("add rule ip fw nat fib daddr type local tcp dport 443 dnat to 10.244.0.99:80", "", ""),
    ("add rule ip fw nat dnat ip to ip daddr map { 192.168.9.1 : 10.244.0.99 }", "", ""),
    ("add rule ip fw nat ip daddr 10.244.1.0/24 drop", "HG1004 drops packets from", "ICMP TCP UDP"),
    ("add chain ip fw nat { policy drop; }", "HG1004 the policy of chain `nat`", "ICMP TCP UDP outside"),
    ("add chain ip fw post { policy drop; }", "HG1004 the policy of chain `post`", "ICMP TCP UDP outside"),
    // Keys of several fields, and elements for all other keys.
    (
        "add rule ip fw forward ip saddr . ip daddr { 10.244.0.0/24 . 10.244.1.0/24 } drop",
        "HG1004 drops packets from",
        "ICMP TCP UDP",
    ),
    ("add rule ip fw forward ip saddr . ip daddr { 10.244.0.0/24 . 10.243.0.0-10.243.255.255 } drop", "", ""),
    (
        "add rule ip fw forward iifname . ip protocol vmap { \"cni0\" . udp : drop, \"docker0\" . tcp : drop }",
        "HG1004 drops UDP packets from",
        "UDP",
    ),
    (
        "add rule ip fw forward ip daddr vmap { 10.9.0.0/16 : accept, * : drop }",
        "HG1004 drops packets between",
        "ICMP TCP UDP outside",
    ),
    ("add rule ip fw forward ip daddr vmap { 10.9.0.0/16 : drop, * : accept }", "", ""),
    (
        "add rule ip fw forward ip daddr != 10.244.0.0-10.244.0.255 ip saddr 10.244.0.0/16 drop",
        "HG1004 drops packets",
        "ICMP TCP UDP outside",
    ),
    // Connections, marks, and the way back.
    (
        "add chain ip fw forward { policy drop; }\nadd rule ip fw forward ct status dnat accept",
        "HG1004 the policy",
        "ICMP TCP UDP outside",
    ),
    (
        "add chain ip fw forward { policy drop; }\nadd rule ip fw forward ct direction { original, reply } accept",
        "",
        "",
    ),
    ("add rule ip fw forward ct mark 7 drop", "", ""),
    // Only packets with a mark set that of their connection.
    (
        "add rule ip fw forward meta mark 7 ct mark set meta mark; add rule ip fw forward ct mark != 0 drop",
        "",
        "",
    ),
    (
        "add rule ip fw pre iifname cni0 meta mark set 0x7\nadd rule ip fw forward meta mark & 0xf == 0x7 drop",
        "HG1004 drops packets from",
        "ICMP TCP UDP outside",
    ),
    (
        "add rule ip fw pre iifname cni0 meta mark set 0x10\nadd rule ip fw forward meta mark & 0xf == 0x7 drop",
        "",
        "",
    ),
    ("add rule ip fw pre fib saddr . iif oif missing drop", "", ""),
    (
        "add rule ip fw pre fib saddr . iif oif exists iifname cni0 drop",
        "HG1004 drops packets from",
        "ICMP TCP UDP outside",
    ),
    ("add rule ip fw forward meta pkttype { broadcast, multicast } drop", "", ""),
    ("add rule ip fw forward meta iifgroup 7 drop", "", ""),
    // The outside.
    ("add rule ip fw forward iifname cni0 ip daddr != 10.244.0.0/16 drop", "HG1042 drops packets", "outside"),
    ("add rule ip fw forward oifname cni0 ip saddr != 10.244.0.0/16 drop", "HG1042 drops replies", "outside"),
    (
        "add rule ip fw pre iifname cni0 ip daddr != 10.244.0.0/16 notrack",
        "HG1042 excludes packets",
        "outside",
    ),
    (
        "add rule ip fw post ip daddr != 10.244.0.0/16 snat to 192.0.2.55",
        "HG1042 to 192.0.2.55, which is not an address of this node",
        "outside",
    ),
    (
        "add chain ip fw raw { type filter hook prerouting priority -300; }
         add rule ip fw raw iifname cni0 ct zone set 5",
        "HG1042 to connection tracking zone 5",
        "outside",
    ),
    (
        "add chain ip fw raw { type filter hook prerouting priority -300; }\nadd rule ip fw raw ct zone set 5",
        "",
        "",
    ),
];

/// The same with rules of iptables.
const IPTABLES: [(&str, &str, &str); 43] = [
    ("-A FORWARD -p tcp -j DROP", "HG1004 drops TCP packets between", "TCP outside"),
    ("-A FORWARD -p udp -m udp --dport 1:65535 -j DROP", "HG1004 drops UDP packets between", "UDP"),
    ("-A FORWARD -p icmp -j REJECT", "HG1040 drops ICMP packets between", "ICMP"),
    ("-A FORWARD -p icmp -m icmp --icmp-type redirect -j DROP", "", ""),
    ("-A FORWARD -p tcp -m tcp ! --syn -m conntrack --ctstate NEW -j DROP", "", ""),
    ("-A FORWARD -m state --state INVALID -j DROP", "", ""),
    ("-A FORWARD -m state --state NEW -j DROP", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("-A FORWARD -m state ! --state NEW,ESTABLISHED -j DROP", "", ""),
    ("-A FORWARD -p tcp -m multiport --dports 25,135:139,445 -j DROP", "", ""),
    (
        "-A FORWARD -m statistic --mode nth --every 2 --packet 0 -j DROP",
        "HG1040 depending on `statistic`",
        "?",
    ),
    (
        "-A FORWARD -m iprange --dst-range 10.244.1.1-10.244.1.99 -j DROP",
        "HG1004 drops packets",
        "ICMP TCP UDP",
    ),
    ("-A FORWARD -m iprange ! --src-range 10.0.0.0-10.255.255.255 -d 10.244.1.0/24 -j DROP", "", ""),
    ("-t mangle -A PREROUTING -m rpfilter --invert -j DROP", "", ""),
    (
        "-t nat -A PREROUTING -p tcp -d 10.244.0.0/16 -j REDIRECT --to-ports 15001",
        "HG1041 of TCP packets",
        "TCP",
    ),
    (
        "-t nat -A PREROUTING -d 10.244.1.0/24 -j NETMAP --to 10.99.0.0/24",
        "HG1041 changes the destination of packets",
        "ICMP TCP UDP",
    ),
    ("-A FORWARD -m dscp --dscp 0 -j DROP", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("-A FORWARD -m dscp --dscp 46 -j DROP", "", ""),
    ("-t mangle -A FORWARD -j TEE --gateway 172.30.0.77", "", ""),
    ("-t mangle -A FORWARD -p tcp -j TCPOPTSTRIP --strip-options timestamp", "", ""),
    ("-A FORWARD -m tos ! --tos 0x10/0xff -j DROP", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("-A FORWARD -m ecn --ecn-ip-ect 0 -j DROP", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("-A FORWARD -p tcp -m ecn --ecn-tcp-cwr -j DROP", "", ""),
    (
        "-A FORWARD -m time --timestart 00:00 --timestop 23:59:59 -j DROP",
        "HG1004 drops packets between",
        "ICMP TCP UDP outside",
    ),
    (
        "-A FORWARD -m time --datestop 2037-12-31 -j DROP",
        "HG1005 cannot decode `time`",
        "ICMP TCP UDP outside",
    ),
    ("-A FORWARD -m recent --set -j DROP", "HG1004 drops packets between", "ICMP TCP UDP outside"),
    ("-A FORWARD -m recent --name scanners --rcheck -j DROP", "HG1005 cannot decode `recent`", ""),
    ("-A FORWARD -m connlimit --connlimit-above 0 -j DROP", "HG1004 drops packets", "ICMP TCP UDP outside"),
    ("-A FORWARD -m connlimit --connlimit-above 5000 -j DROP", "", ""),
    (
        "-A FORWARD -m connbytes --connbytes 0: --connbytes-dir both --connbytes-mode packets -j DROP",
        "HG1004 drops packets between",
        "ICMP TCP UDP outside",
    ),
    ("-A FORWARD -m limit --limit 1000/s -j DROP", "HG1040 depending on `limit`", "?"),
    (
        "-N LIMIT; iptables-nft -A FORWARD -j LIMIT; iptables-nft -A LIMIT -m limit --limit 1000/s -j ACCEPT; iptables-nft -A LIMIT -j DROP",
        "HG1040 drops some packets between this node's pods and those on other nodes, depending on `limit`",
        "?",
    ),
    ("-A FORWARD -m hashlimit --hashlimit-above 5/sec --hashlimit-name h -j DROP", "HG1040 `hashlimit`", "?"),
    (
        "-A FORWARD -m hashlimit --hashlimit-above 10000/sec --hashlimit-burst 1000 --hashlimit-name h -j DROP",
        "",
        "",
    ),
    ("-A FORWARD -m helper --helper ftp -j DROP", "", ""),
    ("-A FORWARD -m string --algo bm --string hostgw-test -j DROP", "HG1040 depending on `string`", ""),
    ("-A FORWARD -p tcp -m multiport --ports 25,135:139 -j DROP", "", ""),
    ("-A FORWARD -p tcp -m multiport --ports 1:65535 -j DROP", "HG1004 drops TCP packets", "TCP outside"),
    ("-t mangle -A PREROUTING -i cni0 -j TTL --ttl-set 1", "HG1047 TTL", "ICMP TCP UDP outside"),
    ("-t mangle -A PREROUTING -i cni0 -j TTL --ttl-dec 63", "HG1047 TTL", "ICMP TCP UDP outside"),
    ("-t mangle -A POSTROUTING -j TTL --ttl-inc 1", "", ""),
    ("-t raw -A PREROUTING -i cni0 -j CT --zone 5", "HG1042 to connection tracking zone 5", "outside"),
    (
        "-t nat -A POSTROUTING ! -d 10.244.0.0/16 -j SNAT --to-source 192.0.2.55",
        "HG1042 to 192.0.2.55, which is not an address of this node",
        "outside",
    ),
    ("-t raw -A PREROUTING -i cni0 ! -d 10.244.0.0/16 -j CT --notrack", "HG1042 excludes packets", "outside"),
];

struct Bench {
    cluster: SimulatedCluster,
    servers: Vec<Child>,
}

impl Bench {
    fn new(privilege: Privilege) -> Self {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        let serve = |place: &str| {
            let mut command = cluster.command(place, "perl");
            command.args(["-e", SERVE]).stdin(Stdio::piped()).spawn().expect("perl")
        };
        let servers = [PODS[0], PODS[1], "node linux-2", "outside"].into_iter().map(serve).collect();
        let bench = Self { cluster, servers };
        bench.cluster.machine().wait_until("the servers answer", || bench.lost().is_empty());
        bench
    }

    /// Returns what gets no answer, as words.
    fn lost(&self) -> String {
        self.cluster.machine().write("try.pl", TRY);
        let script = format!(
            "(ping -n -q -c 1 -W 0.5 {POD} >&2 && echo ICMP) &
             perl try.pl {POD} TCP TCP {POD} UDP UDP {OUTSIDE} TCP outside; wait"
        );
        let answered = self.cluster.sh(PODS[0], &script);
        let is_lost = |what: &&str| !answered.lines().any(|line| line == *what);
        ["ICMP", "TCP", "UDP", "outside"].into_iter().filter(is_lost).collect::<Vec<_>>().join(" ")
    }

    /// Compares what doctor says with what packets do while `install` is in effect. Returns what is different.
    fn compare(&self, case: &str, install: &str, says: &str, lost: &str) -> Option<String> {
        let node = "node linux-1";
        self.cluster.sh(node, install);
        let doctor = self.cluster.try_sh(node, "\"$HOSTGW\" doctor");
        let findings: Vec<&str> = doctor.stdout.lines().filter(|line| line.contains("[HG")).collect();
        let is_right = match says.split_once(' ') {
            Some((code, text)) => {
                let is_it = |line: &&str| line.contains(&format!("[{code}]")) && line.contains(text);
                doctor.code == 11 && findings.iter().any(is_it)
            }
            None => doctor.code == 0 && findings.is_empty(),
        };
        // What is lost by chance is not the same each time.
        let seen = if lost == "?" { lost.to_owned() } else { self.lost() };
        self.cluster.sh(
            node,
            "nft list tables | grep -v 'ip6* hostgw$' | while read -r _ family name; do nft delete table \"$family\" \"$name\"; done",
        );
        (!is_right || seen != lost)
            .then(|| format!("{case}: lost {seen:?} instead of {lost:?}, expected {says:?} in\n{doctor}\n"))
    }

    /// Returns which connections between the pod of linux-1 and linux-2 itself get no answer, and whether UDP to the outside does.
    fn lost_to_others(&self) -> String {
        self.cluster.machine().write("try.pl", TRY);
        let script = format!("perl try.pl {NODE} TCP to-node {OUTSIDE} UDP UDP");
        let mut answered = self.cluster.sh(PODS[0], &script);
        let script = format!("perl try.pl {OWN_POD} TCP from-node");
        answered += &self.cluster.sh("node linux-2", &script);
        let is_lost = |what: &&str| !answered.lines().any(|line| line == *what);
        ["to-node", "from-node", "UDP"].into_iter().filter(is_lost).collect::<Vec<_>>().join(" ")
    }

    /// Runs the commands that doctor prints, after which it finds nothing.
    fn follow_remedies(&self) {
        let node = "node linux-1";
        let doctor = self.cluster.try_sh(node, "\"$HOSTGW\" doctor").stdout;
        let quoted = doctor.lines().filter(|line| line.contains("  help:"));
        let quoted = quoted.flat_map(|line| line.split('`').skip(1).step_by(2));
        for command in quoted {
            self.cluster.sh(node, &command.replacen("iptables ", "iptables-nft ", 1));
        }
        self.cluster.sh(node, "\"$HOSTGW\" doctor");
    }

    fn assert_right(&self, failures: Vec<String>) {
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert_eq!(self.lost(), "", "the rules are gone");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.stdin.take());
            let _ = server.wait();
        }
    }
}

#[test]
fn rules_of_nftables_do_what_doctor_says() {
    each(|privilege| {
        let bench = Bench::new(privilege);
        let compare = |(rules, says, lost)| {
            let install = format!(
                "nft -f - <<'END'
add table ip fw
{CHAINS}
{rules}
END"
            );
            bench.compare(rules, &install, says, lost)
        };
        bench.assert_right(CASES.into_iter().filter_map(compare).collect());
    });
}

/// The commands that doctor prints let pods reach the outside.
#[test]
fn pods_reach_the_outside_with_the_commands_that_doctor_prints() {
    each(|privilege| {
        let bench = Bench::new(privilege);
        let node = "node linux-1";
        for block in [
            "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT",
            "iptables-nft -A FORWARD ! -s 10.244.0.0/16 -j DROP; iptables-nft -A FORWARD ! -d 10.244.0.0/16 -j DROP",
            "nft add table inet fw; nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'
             nft add rule inet fw f ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept",
        ] {
            bench.cluster.sh(node, block);
            assert_eq!(bench.lost(), "outside", "{block}");
            bench.follow_remedies();
            assert_eq!(bench.lost(), "", "{block}");
            bench.cluster.sh(
                node,
                "iptables-nft -P FORWARD ACCEPT; iptables-nft -F FORWARD; nft delete table inet fw || true",
            );
        }
    });
}

/// What lets pods talk may cut them off from other nodes, or only from UDP services outside.
#[test]
fn packets_to_other_nodes_and_udp_to_the_outside_are_followed() {
    each(|privilege| {
        let bench = Bench::new(privilege);
        let node = "node linux-1";
        bench.cluster.machine().wait_until("all answer", || bench.lost_to_others().is_empty());
        for (block, says, lost) in [
            (
                "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT
                 iptables-nft -A FORWARD -i cni0 -j ACCEPT
                 iptables-nft -A FORWARD -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                "[HG1028]: the policy of chain `FORWARD` in table `ip filter` drops packets from other nodes (not their pods) to this",
                "from-node",
            ),
            (
                "iptables-nft -P FORWARD DROP",
                "between this node's pods and other nodes, the pods there, and destinations outside the cluster",
                "to-node from-node UDP",
            ),
            (
                "iptables-nft -A FORWARD -s 10.244.0.0/16 -d 172.16.0.0/12 -j REJECT",
                "[HG1028]: the rule with handle",
                "to-node from-node",
            ),
            (
                "ip rule add from 172.30.0.12 to 10.244.0.0/24 blackhole",
                "from 172.30.0.12/32 to 10.244.0.0/24 blackhole` drops packets from node linux-2 (not its pods)",
                "to-node from-node",
            ),
            (
                "ip rule add from 10.244.0.0/24 to 172.30.0.0/24 blackhole",
                "drops packets from this node's pods to other nodes (not their pods)",
                "to-node from-node",
            ),
            (
                "ip route add blackhole 172.30.0.12",
                "[HG1028]: the route `blackhole 172.30.0.12",
                "to-node from-node",
            ),
            (
                "iptables-nft -A FORWARD -i cni0 ! -d 10.244.0.0/16 -p udp -j DROP",
                "drops UDP packets from this node's pods to destinations outside the cluster (traced for UDP port 53)",
                "UDP",
            ),
        ] {
            bench.cluster.sh(node, block);
            assert_eq!(bench.lost_to_others(), lost, "{block}");
            let doctor = bench.cluster.try_sh(node, "\"$HOSTGW\" doctor");
            assert!(doctor.code == 11 && doctor.stdout.contains(says), "{block}: {doctor}");
            bench.follow_remedies();
            assert_eq!(bench.lost_to_others(), "", "{block}");
            bench.cluster.sh(node, "iptables-nft -P FORWARD ACCEPT; iptables-nft -F FORWARD");
        }
    });
}

#[test]
fn rules_of_iptables_do_what_doctor_says() {
    each(|privilege| {
        let bench = Bench::new(privilege);
        let compare = |(rule, says, lost)| bench.compare(rule, &format!("iptables-nft {rule}"), says, lost);
        bench.assert_right(IPTABLES.into_iter().filter_map(compare).collect());
    });
}
