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

fn neighbour(address: &str, timeout: Duration) -> Check {
    Check { target: CheckTarget::Neighbor(address.parse().expect("an address")), timeout }
}

/// Long enough for a machine that does other things too.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn answer(check: Check, effort: Effort) -> Answer {
    let [answer] = answers(&[check], effort).try_into().expect("one answer");
    answer
}

#[track_caller]
fn answers(checks: &[Check], effort: Effort) -> Vec<Answer> {
    probe(checks, effort, &Interrupt::new()).expect("answers")
}

#[track_caller]
fn once(check: Check) -> Answer {
    answer(check, Effort::Once)
}

fn no(why: &str) -> Answer {
    Err(why.to_owned())
}

/// A machine on the other end of eth0, which has the addresses .1 and ::1.
fn peer() -> Namespace {
    let peer = Namespace::new().expect("a namespace");
    let mut own = Interfaces::open().expect("a socket");
    own.cable("eth0", "far", &peer).expect("a cable");
    // A link of its own is ready for IPv6 only when its addresses are.
    sh("ip link set lo up
        for i in eth0 default; do echo 0 >/proc/sys/net/ipv6/conf/$i/accept_dad; done
        for table in arp_cache ndisc_cache; do ip ntable change name $table dev eth0 retrans 60; done
        ip address add 172.30.0.11/24 dev eth0
        ip address add fd00::11/64 dev eth0 nodad");
    there(
        &peer,
        "ip link set lo up
                  ip address add 172.30.0.1/24 dev far
                  ip address add fd00::1/64 dev far nodad",
    );
    // The kernel's own work queue makes the address a local one (addrconf_dad_work, net/ipv6/addrconf.c).
    let wait_for = |address| {
        format!("timeout 30 sh -c 'until ip -6 route show table local | grep -q {address}; do :; done'")
    };
    sh(&wait_for("fd00::11"));
    there(&peer, &wait_for("fd00::1 "));
    peer
}

fn there(peer: &Namespace, script: &str) -> String {
    peer.enter(|| Ok(sh(script))).expect("the other machine")
}

#[test]
fn a_connection_is_accepted_refused_or_unheard() {
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
            assert_eq!(answer(tcp(nobody, SHORT), Effort::UntilItAnswers), no("connection refused"));
        }
        for effort in [Effort::Once, Effort::UntilItAnswers] {
            assert_eq!(answer(tcp("172.30.0.9:80", SHORT), effort), no("no answer within 300ms"));
        }
        assert_eq!(once(tcp("192.0.2.1:80", LONG)), no("network unreachable"));
        assert_eq!(once(tcp("10.1.0.1:80", LONG)), no("permission denied"));
        assert_eq!(once(tcp("[fd01::1]:80", LONG)), no("host unreachable"));
        assert_eq!(once(tcp("[fd02::1]:80", LONG)), no("network unreachable"));
    });
}

/// The kernel gives a connection the very port that it goes to, where that is the only one there is.
#[test]
fn a_connection_to_itself_is_none() {
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
fn what_answers_in_time_is_waited_for_only_after_a_change() {
    in_namespace(|| {
        sh("ip link set lo up");
        let check = tcp("127.0.0.1:4000", LONG);
        assert_eq!(once(check), no("connection refused"));
        let listener = thread::spawn(|| {
            thread::sleep(SHORT);
            TcpListener::bind("127.0.0.1:4000").expect("a listener")
        });
        assert_eq!(answer(check, Effort::UntilItAnswers), Ok(()));
        listener.join().expect("no panic");
    });
}

#[test]
fn all_are_tried_at_once_and_answered_in_order() {
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
        checks[8] = neighbour("172.30.0.11", second);
        let begun = Instant::now();
        let answers = answers(&checks, Effort::UntilItAnswers);
        // One after another, they take a hundred seconds.
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_ok(), [7, 8].contains(&at), "{at}: {answer:?}");
        }
    });
}

#[test]
fn a_signal_ends_the_waiting() {
    in_namespace(|| {
        sh("ip link set lo up
            ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
            ip address add 172.30.0.11/24 dev eth0
            ip neigh add 172.30.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
        let checks = [tcp("172.30.0.9:80", Duration::from_secs(300)), neighbour("172.30.0.8", LONG)];
        for effort in [Effort::Once, Effort::UntilItAnswers] {
            let interrupt = Interrupt::new();
            let begun = Instant::now();
            let result = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    interrupt.raise();
                });
                probe(&checks, effort, &interrupt)
            });
            assert_eq!(result.map_err(|error| error.kind), Err(Kind::Interrupted));
            assert!(begun.elapsed() < Duration::from_secs(100), "{:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_neighbour_is_asked_afresh() {
    in_namespace(|| {
        let peer = peer();
        for address in ["172.30.0.1", "fd00::1"] {
            let entry = || sh(&format!("ip neigh show {address} dev eth0"));
            assert_eq!(entry(), "");
            // A new link takes a second until it does IPv6.
            assert_eq!(answer(neighbour(address, LONG), Effort::UntilItAnswers), Ok(()));
            assert!(entry().contains("REACHABLE"), "{}", entry());
            assert_eq!(once(neighbour(address, LONG)), Ok(()));
        }
        there(&peer, "ip address flush dev far scope global");
        for address in ["172.30.0.1", "fd00::1"] {
            let entry = || sh(&format!("ip neigh show {address} dev eth0"));
            // That it answered a moment ago is no proof.
            assert!(entry().contains("REACHABLE"), "{}", entry());
            for effort in [Effort::Once, Effort::UntilItAnswers] {
                let timeout = if effort == Effort::Once { LONG } else { Duration::from_secs(2) };
                let answer = answer(neighbour(address, timeout), effort);
                assert_eq!(answer, no("it does not answer on its link"), "{effort:?}");
            }
        }
        there(&peer, "ip address add 172.30.0.1/24 dev far; ip address add fd00::1/64 dev far nodad");
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbour(address, LONG), Effort::UntilItAnswers), Ok(()));
        }
        assert_eq!(sh("ip neigh show nud permanent nud noarp dev eth0 | grep -v '^ff0' || true"), "");
    });
}

/// Who answered last time is silent, and another machine has the address now.
#[test]
fn a_neighbour_that_moved_is_found() {
    in_namespace(|| {
        let peer = peer();
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbour(address, LONG), Effort::UntilItAnswers), Ok(()));
        }
        there(
            &peer,
            "echo 0 >/proc/sys/net/ipv4/conf/far/arp_notify
                      ip link set far address 02:00:00:00:00:99",
        );
        for address in ["172.30.0.1", "fd00::1"] {
            assert_eq!(answer(neighbour(address, LONG), Effort::Once), Ok(()));
            let entry = sh(&format!("ip neigh show {address} dev eth0"));
            assert!(entry.contains("02:00:00:00:00:99"), "{entry}");
        }
    });
}

#[test]
fn what_cannot_be_asked_says_why() {
    in_namespace(|| {
        let _peer = peer();
        sh("ip route add 10.9.0.0/16 via 172.30.0.1
            ip route add 10.8.0.0/16 via inet6 fd00::1 dev eth0
            ip route add prohibit 10.7.0.0/16
            ip route add unreachable fd01::/64");
        // The file is one for all nodes, and this is the node itself.
        assert_eq!(once(neighbour("172.30.0.11", LONG)), Ok(()));
        assert_eq!(once(neighbour("fd00::11", LONG)), Ok(()));
        let behind = |gateway: &str| no(&format!("not on a link of this node but behind {gateway}"));
        assert_eq!(once(neighbour("10.9.0.1", LONG)), behind("172.30.0.1"));
        assert_eq!(once(neighbour("10.8.0.1", LONG)), behind("fd00::1"));
        for address in ["10.7.0.1", "192.0.2.1", "fd01::1", "fd02::1"] {
            assert_eq!(once(neighbour(address, LONG)), no("no route to it"), "{address}");
        }
        let fixed = no("the kernel does not query it: its neighbor entry is permanent");
        assert_eq!(once(neighbour("172.30.0.255", LONG)), fixed);
        sh("ip link set eth0 down");
        assert_eq!(once(neighbour("172.30.0.1", LONG)), no("no route to it"));
    });
}

/// What others put into the table stays as it is, flags and all.
#[test]
fn entries_of_others_are_left_as_they_are() {
    in_namespace(|| {
        let peer = peer();
        let far = there(&peer, "ip -o link show far");
        let far = far.split("ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        there(&peer, "for i in 2 3 4 5 6; do ip address add 172.30.0.$i/24 dev far; done");
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
            let check = neighbour(&format!("172.30.0.{last}"), LONG);
            assert_eq!(
                once(check),
                no("the kernel does not query it: its neighbor entry is permanent"),
                "{last}"
            );
        }
        assert_eq!(table(), before);
        for last in [5, 6] {
            assert_eq!(once(neighbour(&format!("172.30.0.{last}"), LONG)), Ok(()), "{last}");
        }
        let after = table();
        assert!(after.contains(&format!("172.30.0.5 lladdr {far} router REACHABLE")), "{after}");
        assert!(after.contains(&format!("172.30.0.6 lladdr {far} managed REACHABLE")), "{after}");
    });
}
