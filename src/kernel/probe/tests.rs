use std::{
    net::{SocketAddr, TcpListener},
    thread,
};

use super::*;
use crate::kernel::{
    Interfaces, Namespace,
    testing::{in_namespace, sh},
};

fn tcp(address: &str, timeout: Duration) -> Check {
    Check { target: CheckTarget::Tcp(address.parse().expect("an address and a port")), timeout }
}

fn neighbor(address: &str, timeout: Duration) -> Check {
    Check { target: CheckTarget::Neighbor(address.parse().expect("an address")), timeout }
}

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn answer(check: Check, mode: ProbeMode) -> CheckResult {
    let [answer] = answers(&[check], mode).try_into().expect("one answer");
    answer
}

#[track_caller]
fn answers(checks: &[Check], mode: ProbeMode) -> Vec<CheckResult> {
    probe(checks, mode, &Interrupt::new()).expect("answers")
}

#[track_caller]
fn once(check: Check) -> CheckResult {
    answer(check, ProbeMode::Once)
}

fn no(why: &str) -> CheckResult {
    Err(why.to_owned())
}

/// Connects eth0 to another namespace, which has the addresses .1 and ::1.
fn peer() -> Namespace {
    let peer = Namespace::new().expect("a namespace");
    let mut own = Interfaces::open().expect("a socket");
    own.cable("eth0", "far", &peer).expect("a cable");
    // Disable duplicate address detection, so IPv6 addresses are usable immediately, and shorten ARP and NDP timeouts.
    sh("ip link set lo up
        for i in eth0 default; do echo 0 >/proc/sys/net/ipv6/conf/$i/accept_dad; done
        for table in arp_cache ndisc_cache; do ip ntable change name $table dev eth0 retrans 60; done
        ip address add 172.30.0.11/24 dev eth0
        ip address add fd00::11/64 dev eth0 nodad");
    in_peer(
        &peer,
        "ip link set lo up
                  ip address add 172.30.0.1/24 dev far
                  ip address add fd00::1/64 dev far nodad",
    );
    // The kernel makes the address a local one asynchronously (addrconf_dad_work, net/ipv6/addrconf.c).
    let wait_for = |address| {
        format!("timeout 30 sh -c 'until ip -6 route show table local | grep -q {address}; do :; done'")
    };
    sh(&wait_for("fd00::11"));
    in_peer(&peer, &wait_for("fd00::1 "));
    peer
}

fn in_peer(peer: &Namespace, script: &str) -> String {
    peer.enter(|| Ok(sh(script))).expect("the other machine")
}

#[test]
fn a_connection_is_accepted_refused_or_unanswered() {
    in_namespace(|| {
        sh("ip link set lo up
            ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
            ip address add 172.30.0.11/24 dev eth0
            ip neigh add 172.30.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
            ip route add prohibit 10.1.0.0/16
            ip route add unreachable fd01::/64");
        for (address, nobody) in [("127.0.0.1:0", "127.0.0.1:1"), ("[::1]:0", "[::1]:1")] {
            let listener = TcpListener::bind(address).expect("a listener");
            let address = listener.local_addr().expect("an address").to_string();
            assert_eq!(once(tcp(&address, LONG)), Ok(()));
            assert_eq!(once(tcp(nobody, LONG)), no("connection refused"));
            assert_eq!(answer(tcp(nobody, SHORT), ProbeMode::Retry), no("connection refused"));
        }
        for mode in [ProbeMode::Once, ProbeMode::Retry] {
            assert_eq!(answer(tcp("172.30.0.9:80", SHORT), mode), no("no answer within 300ms"));
        }
        assert_eq!(once(tcp("192.0.2.1:80", LONG)), no("network unreachable"));
        assert_eq!(once(tcp("10.1.0.1:80", LONG)), no("permission denied"));
        assert_eq!(once(tcp("[fd01::1]:80", LONG)), no("host unreachable"));
        assert_eq!(once(tcp("[fd02::1]:80", LONG)), no("network unreachable"));
    });
}

/// If the destination port is the only local port, the kernel assigns it to the connection.
#[test]
fn a_self_connection_is_refused() {
    in_namespace(|| {
        sh("ip link set lo up; echo 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range");
        let own: SocketAddr = "127.0.0.1:40000".parse().expect("an address");
        let stream = std::net::TcpStream::connect(own).expect("the kernel joins the two ends");
        assert_eq!(stream.local_addr().ok(), stream.peer_addr().ok());
        sh("echo 40001 40001 >/proc/sys/net/ipv4/ip_local_port_range");
        assert_eq!(once(tcp("127.0.0.1:40001", LONG)), no("connection refused"));
    });
}

#[test]
fn a_late_answer_counts_only_with_retries() {
    in_namespace(|| {
        sh("ip link set lo up");
        let check = tcp("127.0.0.1:4000", LONG);
        assert_eq!(once(check), no("connection refused"));
        let listener = thread::spawn(|| {
            thread::sleep(SHORT);
            TcpListener::bind("127.0.0.1:4000").expect("a listener")
        });
        assert_eq!(answer(check, ProbeMode::Retry), Ok(()));
        listener.join().expect("no panic");
    });
}

#[test]
fn checks_run_concurrently_and_are_answered_in_order() {
    in_namespace(|| {
        sh("ip link set lo up
            ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
            ip address add 172.30.0.11/24 dev eth0
            ip neigh add 172.30.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let open = tcp(&listener.local_addr().expect("an address").to_string(), LONG);
        let second = Duration::from_secs(1);
        let mut checks = vec![tcp("172.30.0.9:80", second); Check::MAX_COUNT];
        checks[7] = open;
        checks[8] = neighbor("172.30.0.11", second);
        let start = Instant::now();
        let answers = answers(&checks, ProbeMode::Retry);
        // Sequentially, they would take 100 seconds.
        assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_ok(), [7, 8].contains(&at), "{at}: {answer:?}");
        }
    });
}

#[test]
fn a_signal_stops_the_checks() {
    in_namespace(|| {
        sh("ip link set lo up
            ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
            ip address add 172.30.0.11/24 dev eth0
            ip neigh add 172.30.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
        let checks = [tcp("172.30.0.9:80", Duration::from_secs(300)), neighbor("172.30.0.8", LONG)];
        for mode in [ProbeMode::Once, ProbeMode::Retry] {
            let interrupt = Interrupt::new();
            let start = Instant::now();
            let result = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    interrupt.raise();
                });
                probe(&checks, mode, &interrupt)
            });
            assert_eq!(result.map_err(|error| error.kind), Err(Kind::Interrupted));
            assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn an_earlier_answer_does_not_count() {
    in_namespace(|| {
        let peer = peer();
        for address in ["172.30.0.1", "fd00::1"] {
            let entry = || sh(&format!("ip neigh show {address} dev eth0"));
            assert_eq!(entry(), "");
            // IPv6 needs a second on a new link.
            assert_eq!(answer(neighbor(address, LONG), ProbeMode::Retry), Ok(()));
            assert!(entry().contains("REACHABLE"), "{}", entry());
            assert_eq!(once(neighbor(address, LONG)), Ok(()));
        }
        in_peer(&peer, "ip address flush dev far scope global");
        for address in ["172.30.0.1", "fd00::1"] {
            let entry = || sh(&format!("ip neigh show {address} dev eth0"));
            // The entry still says that it answered a moment ago.
            assert!(entry().contains("REACHABLE"), "{}", entry());
            for mode in [ProbeMode::Once, ProbeMode::Retry] {
                let timeout = if mode == ProbeMode::Once { LONG } else { Duration::from_secs(2) };
                let answer = answer(neighbor(address, timeout), mode);
                assert_eq!(answer, no("it does not answer on its link"), "{mode:?}");
            }
        }
        in_peer(&peer, "ip address add 172.30.0.1/24 dev far; ip address add fd00::1/64 dev far nodad");
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbor(address, LONG), ProbeMode::Retry), Ok(()));
        }
        assert_eq!(sh("ip neigh show nud permanent nud noarp dev eth0 | grep -v '^ff0' || true"), "");
    });
}

/// The last known MAC address is silent: another machine has the IP address now.
#[test]
fn a_neighbor_that_moved_is_found() {
    in_namespace(|| {
        let peer = peer();
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbor(address, LONG), ProbeMode::Retry), Ok(()));
        }
        in_peer(
            &peer,
            "echo 0 >/proc/sys/net/ipv4/conf/far/arp_notify
                      ip link set far address 02:00:00:00:00:99",
        );
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbor(address, LONG), ProbeMode::Once), Ok(()));
            let entry = sh(&format!("ip neigh show {address} dev eth0"));
            assert!(entry.contains("02:00:00:00:00:99"), "{entry}");
        }
    });
}

#[test]
fn unanswerable_checks_give_a_reason() {
    in_namespace(|| {
        let _peer = peer();
        sh("ip route add 10.9.0.0/16 via 172.30.0.1
            ip route add 10.8.0.0/16 via inet6 fd00::1 dev eth0
            ip route add prohibit 10.7.0.0/16
            ip route add unreachable fd01::/64");
        // All nodes share the configuration, so a check may target the node itself.
        assert_eq!(once(neighbor("172.30.0.11", LONG)), Ok(()));
        assert_eq!(once(neighbor("fd00::11", LONG)), Ok(()));
        let behind = |gateway: &str| no(&format!("not on-link: reached via {gateway}"));
        assert_eq!(once(neighbor("10.9.0.1", LONG)), behind("172.30.0.1"));
        assert_eq!(once(neighbor("10.8.0.1", LONG)), behind("fd00::1"));
        for address in ["10.7.0.1", "192.0.2.1", "fd01::1", "fd02::1"] {
            assert_eq!(once(neighbor(address, LONG)), no("no route to it"), "{address}");
        }
        let fixed = no("the kernel does not query it: its neighbor entry is permanent");
        assert_eq!(once(neighbor("172.30.0.255", LONG)), fixed);
        sh("ip link set eth0 down");
        assert_eq!(once(neighbor("172.30.0.1", LONG)), no("no route to it"));
    });
}

/// Entries that other programs added stay unchanged, including their flags.
#[test]
fn foreign_entries_stay_unchanged() {
    in_namespace(|| {
        let peer = peer();
        let far = in_peer(&peer, "ip -o link show far");
        let far = far.split("ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        in_peer(&peer, "for i in 2 3 4 5 6; do ip address add 172.30.0.$i/24 dev far; done");
        sh(&format!(
            "ip neigh add 172.30.0.2 lladdr {far} dev eth0 nud permanent
             ip neigh add 172.30.0.3 lladdr {far} dev eth0 nud noarp
             ip neigh add 172.30.0.4 lladdr {far} dev eth0 nud reachable extern_learn
             ip neigh add 172.30.0.5 lladdr {far} dev eth0 nud reachable router
             ip neigh add 172.30.0.6 dev eth0 managed"
        ));
        let table = || sh("ip neigh show nud all dev eth0 | grep ^172 | sort");
        let before = table();
        for last in [2, 3, 4] {
            let check = neighbor(&format!("172.30.0.{last}"), LONG);
            assert_eq!(
                once(check),
                no("the kernel does not query it: its neighbor entry is permanent"),
                "{last}"
            );
        }
        assert_eq!(table(), before);
        for last in [5, 6] {
            assert_eq!(once(neighbor(&format!("172.30.0.{last}"), LONG)), Ok(()), "{last}");
        }
        let after = table();
        assert!(after.contains(&format!("172.30.0.5 lladdr {far} router REACHABLE")), "{after}");
        assert!(after.contains(&format!("172.30.0.6 lladdr {far} managed REACHABLE")), "{after}");
    });
}
