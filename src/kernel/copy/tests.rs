use std::collections::BTreeSet;

use super::*;
use crate::kernel::testing::{in_namespace, sh};

/// A node with what nodes have: a bridge with ports, an egress interface with a far end elsewhere, and settings.
const NODE: &str = "
    sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    ip link set lo up
    ip link add index 40 name eth0 type veth peer name lan0
    ip link add index 50 name cni0 address 02:00:00:00:00:50 type bridge
    ip link add index 61 name pod1 type veth peer name pod1p
    ip link set pod1 master cni0
    ip link set pod1 type bridge_slave hairpin on isolated on
    ip link set eth0 mtu 1400 address 02:00:00:00:00:40 group 7 txqueuelen 77 alias uplink
    ip link property add dev eth0 altname enp0s1
    for link in eth0 lan0 cni0 pod1 pod1p; do ip link set $link up; done
    ip address add 172.30.0.11/24 dev eth0 metric 50
    ip address add 172.30.0.99/24 dev eth0
    ip address add 10.9.9.9/32 dev lo
    ip address add 10.8.0.1 peer 10.8.0.2/32 dev eth0
    ip address add 10.244.0.1/24 brd + dev cni0 noprefixroute
    ip address add 2001:db8::11/64 dev eth0
    ip address add 2001:db8::12/64 dev eth0 preferred_lft 0
    ip neigh add 172.30.0.77 lladdr 02:11:22:33:44:55 dev lan0 nud permanent
    ip neigh add proxy 10.1.1.1 dev eth0
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.all.arp_ignore=1 \
        net.ipv6.conf.all.forwarding=1 net.ipv4.conf.cni0.forwarding=0 net.ipv4.tcp_ecn=1 \
        net.ipv4.ip_local_port_range='20000 30000' net.ipv6.conf.lan0.accept_ra=0
";

const ROUTING: &str = "
    ip route add default via 172.30.0.1 proto dhcp metric 100
    ip route add 10.244.0.0/16 dev eth0 scope link proto 87
    ip route add 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87 mtu 1350
    ip route add 10.244.2.0/24 via 10.244.2.1 dev eth0 onlink table 100
    ip route append 10.244.2.0/24 via 10.244.2.9 dev eth0 table 100
    ip route add blackhole 10.99.0.0/16 table 5000
    ip route add 10.20.0.0/16 proto static nexthop via 172.30.0.8 dev eth0 weight 3 nexthop via 172.30.0.9 dev eth0
    ip route add 10.21.0.0/16 via 172.30.0.9 dev eth0 advmss 1200 mtu lock 1300 realm 5
    ip route add 10.22.0.0/16 via inet6 2001:db8::9 dev eth0
    ip route add local 10.30.0.0/16 dev lo table local
    ip route del broadcast 172.30.0.255 dev eth0 table local
    ip route add 10.31.0.0/16 via 10.244.2.77 dev eth0 onlink src 172.30.0.99
    ip -6 route add fd00:244::/48 via 2001:db8::1 dev eth0 metric 20 pref high
    ip -6 route add fd00:245::/48 proto static nexthop via 2001:db8::1 dev eth0 nexthop via 2001:db8::2 dev eth0
    ip nexthop add id 7 via 172.30.0.9 dev eth0
    ip nexthop add id 8 via 172.30.0.10 dev eth0
    ip nexthop add id 6 group 7/8,3
    ip route add 10.40.0.0/16 nhid 6
    ip rule add pref 100 fwmark 0x10/0xf0 lookup 100
    ip rule add pref 100 iif cni0 to 10.99.0.0/16 lookup 5000
    ip rule add pref 200 from 10.0.0.0/8 not ipproto tcp dport 80-90 prohibit
    ip rule add pref 300 goto 32766
    ip rule add pref 5 oif nothere lookup 77 suppress_prefixlength 0
    ip rule del pref 32767
    ip -6 rule add pref 400 fwmark 3 lookup 9
";

const RULESET: &str = r#"
table inet t {
    comment "mine"
    counter cnt { packets 5 bytes 100 }
    quota q { over 10 mbytes }
    limit lim { rate 10/second }
    set s { type ipv4_addr; flags interval; auto-merge; comment "a set"
        elements = { 10.0.0.0/8, 192.168.1.1-192.168.1.9 } }
    set dynm { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
    set cc { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 80-90 } }
    set counted { type ipv4_addr; counter; elements = { 9.9.9.9 counter packets 3 bytes 4 comment "x" } }
    map m { type inet_service : verdict; elements = { 22 : accept, 80 : goto other } }
    map om { type ipv4_addr : counter; elements = { 1.2.3.4 : "cnt" } }
    chain other {
        counter packets 3 bytes 200 drop
    }
    chain fw { type filter hook forward priority 10; policy drop;
        ip saddr @s tcp dport vmap @m
        tcp dport { 1, 2, 3-9 } counter packets 1 bytes 2 accept
        ip daddr vmap { 1.1.1.1 : jump other, 2.2.2.2 : drop }
        iif "eth0" oifname "cni*" accept
        update @dynm { ip saddr limit rate 10/second }
        counter name "cnt"
        limit name "lim" accept
        counter name ip saddr map @om
        ip saddr 1.1.1.1 jump {
            counter packets 4 bytes 5 accept
            tcp dport { 80, 90 } drop
            ip daddr 3.3.3.3 accept
        }
        ct state established,related accept comment "hello"
        meta mark set ip saddr map { 1.1.1.1 : 0x00000001, 2.2.2.2 : 0x00000002 }
        tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
        log prefix "x" reject with icmp type host-prohibited
    }
}
table inet many {
    ct timeout short {
        protocol udp
        l3proto ip
        policy = { unreplied : 5, replied : 9 }
    }
    synproxy guard {
        mss 1460
        wscale 7
        timestamp sack-perm
    }
    set seen { type ipv4_addr; size 100; flags dynamic; }
    set counted { type ipv4_addr . inet_service; size 100; flags dynamic; counter; }
    map last { type ipv4_addr : mark; size 100; flags dynamic; }
    chain raw { type filter hook prerouting priority raw;
        ip protocol igmp accept comment "the kernel's own packets must not fill the sets during the test"
        add @seen { ip saddr }
        add @counted { ip saddr . udp dport counter }
        add @last { ip saddr : 5 }
        delete @seen { ip daddr }
        ct state new add @seen { ip daddr } counter
        ct state new meter flood { ip saddr limit rate over 10/second } drop
        meter slow { ip saddr timeout 60s limit rate over 10/minute } drop
        udp dport 53 notrack
        iif lo accept
    }
    chain mangle { type filter hook prerouting priority mangle;
        ip dscp set cs1
        ip ttl set 5
        ct mark set meta mark
        meta priority set 1:2
        fib saddr . iif oif missing drop
        fib daddr type { local, broadcast } return
        numgen inc mod 3 vmap { 0 : accept, 1 : continue, 2 : return }
        meta mark set jhash ip saddr . tcp sport mod 4 offset 2
        socket transparent 1 accept
        ct count over 20 drop
        quota over 5 mbytes drop
        ct state invalid log group 3 drop
        ct timeout set "short"
        tcp option sack exists accept
        rt ip nexthop 10.0.0.1 accept
        meta l4proto { tcp, udp } th dport 5000-6000 tproxy to :80
        ip daddr & 255.255.0.0 == 10.1.0.0 drop
    }
    chain nat { type nat hook prerouting priority dstnat;
        ip daddr 10.0.0.1 tcp dport 80 dnat ip to 10.0.0.2:8080
        tcp dport 81 redirect to :8081
        dnat ip to numgen inc mod 2 map { 0 : 10.0.0.3, 1 : 10.0.0.4 }
    }
    chain post { type nat hook postrouting priority srcnat;
        ip saddr 10.0.0.0/8 snat ip to 192.0.2.1-192.0.2.9 persistent
        ip saddr 172.16.0.0/12 meta l4proto tcp masquerade to :1024-2048
    }
}
table netdev n {
    chain in { type filter hook ingress device "eth0" priority 0; policy accept;
        ip saddr 9.9.9.9 drop
    }
}
table bridge b {
    chain f { type filter hook forward priority 0; policy accept;
        iifname "pod1" accept
    }
}
table ip asleep {
    flags dormant
    chain p { type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.0.0.0/8 masquerade random,fully-random
    }
}
table arp a {
    chain i { type filter hook input priority 0; policy accept;
        arp operation request counter packets 0 bytes 0
    }
}
"#;

/// Rules of iptables-nft, some of which need their protocol.
const IPTABLES: &str = "
    iptables-nft -N KUBE
    iptables-nft -P FORWARD DROP
    iptables-nft -A FORWARD -p tcp -m multiport --dports 1,2:9 -m comment --comment hi -j KUBE
    iptables-nft -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
    iptables-nft -A FORWARD ! -p udp -m ttl --ttl-gt 3 -j DROP
    iptables-nft -A FORWARD -m length --length 100:200 -j DROP
    iptables-nft -A FORWARD -m statistic --mode random --probability 0.5 -j KUBE
    iptables-nft -A FORWARD -p icmp --icmp-type 8 -m hashlimit --hashlimit-name x --hashlimit-above 5/sec -j RETURN
    iptables-nft -A KUBE -i eth0 -o cni+ -m conntrack --ctstate NEW -j REJECT --reject-with icmp-port-unreachable
    iptables-nft -t mangle -A PREROUTING -i cni0 -j MARK --set-xmark 0x10/0xf0
    iptables-nft -t nat -A POSTROUTING ! -d 192.168.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE
    iptables-nft -t nat -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.0.9:8080
    ip6tables-nft -A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
";

/// Matches and targets of iptables, as far as the kernel has them. Some are native expressions, others are not.
const EXTENSIONS: &str = "
    i() { iptables-nft \"$@\" 2>/dev/null || true; }
    i -A FORWARD -s 9.9.9.9 -p tcp -m multiport --ports 1,2:5 -j ACCEPT
    i -A FORWARD -s 9.9.9.9 -p tcp ! --syn -m conntrack --ctstate NEW -j DROP
    i -A FORWARD -s 9.9.9.9 -p tcp --tcp-option 5 -j DROP
    i -A FORWARD -s 9.9.9.9 -p udp -m udp --sport 5:9 -j DROP
    i -A FORWARD -s 9.9.9.9 -p icmp --icmp-type echo-request -j DROP
    i -A FORWARD -s 9.9.9.9 -p sctp --dport 80 -j DROP
    i -A FORWARD -s 9.9.9.9 -p esp -m esp --espspi 500 -j DROP
    i -A FORWARD -s 9.9.9.9 -m iprange --src-range 1.1.1.1-1.1.1.9 -j DROP
    i -A FORWARD -s 9.9.9.9 -m string --string abc --algo bm -j DROP
    i -A FORWARD -s 9.9.9.9 -m hashlimit --hashlimit-name h --hashlimit-above 5/sec --hashlimit-mode srcip -j DROP
    i -A FORWARD -s 9.9.9.9 -m limit --limit 5/min --limit-burst 9 -j LOG --log-prefix x
    i -A FORWARD -s 9.9.9.9 -m mac --mac-source 02:00:00:00:00:01 -j DROP
    i -A FORWARD -s 9.9.9.9 -m mark --mark 5/7 -j DROP
    i -A FORWARD -s 9.9.9.9 -m connmark --mark 5 -j DROP
    i -A FORWARD -s 9.9.9.9 -m dscp --dscp-class AF11 -j DROP
    i -A FORWARD -s 9.9.9.9 -m tos --tos 0x10 -j DROP
    i -A FORWARD -s 9.9.9.9 -m ecn --ecn-ip-ect 1 -j DROP
    i -A FORWARD -s 9.9.9.9 -m pkttype --pkt-type broadcast -j DROP
    i -A FORWARD -s 9.9.9.9 -m physdev --physdev-in eth0 -j DROP
    i -A FORWARD -s 9.9.9.9 -m policy --dir in --pol ipsec -j DROP
    i -A FORWARD -s 9.9.9.9 -m time --timestart 10:00 --timestop 11:00 -j DROP
    i -A FORWARD -s 9.9.9.9 -m u32 --u32 '0&0xFF=0x1' -j DROP
    i -A FORWARD -s 9.9.9.9 -m realm --realm 5 -j DROP
    i -t raw -A PREROUTING -s 9.9.9.9 -j CT --notrack
    i -t raw -A PREROUTING -s 9.9.9.9 -j CT --zone 5
    i -A FORWARD -s 9.9.9.9 -m statistic --mode nth --every 3 --packet 1 -j DROP
    i -A FORWARD -s 9.9.9.9 -m cpu --cpu 0 -j DROP
    i -A FORWARD -s 9.9.9.9 -m devgroup --src-group 1 -j DROP
    i -A FORWARD -s 9.9.9.9 -m connbytes --connbytes 100 --connbytes-dir both --connbytes-mode bytes -j DROP
    i -A FORWARD -s 9.9.9.9 -m helper --helper ftp -j DROP
    i -A FORWARD -s 9.9.9.9 -m comment --comment c -m state --state RELATED -j DROP
    i -t mangle -A FORWARD -s 9.9.9.9 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1300
    i -t mangle -A FORWARD -s 9.9.9.9 -j CONNMARK --save-mark
    i -t mangle -A FORWARD -s 9.9.9.9 -j DSCP --set-dscp 5
    i -t mangle -A FORWARD -s 9.9.9.9 -j CLASSIFY --set-class 1:2
    i -t mangle -A PREROUTING -s 9.9.9.9 -j TTL --ttl-set 5
    i -t mangle -A PREROUTING -s 9.9.9.9 -p tcp -j TPROXY --on-port 80 --tproxy-mark 1
    i -t mangle -A FORWARD -s 9.9.9.9 -j TEE --gateway 172.30.0.9
    i -t mangle -A POSTROUTING -p udp -j CHECKSUM --checksum-fill
    i -t nat -A PREROUTING -s 9.9.9.9 -p tcp -j REDIRECT --to-ports 80
    i -t nat -A PREROUTING -s 9.9.9.9 -j NETMAP --to 10.9.0.0/16
    i -t nat -A POSTROUTING -s 9.9.9.9 -p udp -j SNAT --to-source 1.1.1.1:1000-2000 --random
    i -t nat -A POSTROUTING -s 9.9.9.9 -p tcp -j MASQUERADE --to-ports 5-9 --random-fully
    i -A FORWARD -s 9.9.9.9 -j NFLOG --nflog-group 2
    i -A FORWARD -s 9.9.9.9 -j AUDIT --type drop
    i -A FORWARD -s 9.9.9.9 -p tcp -j REJECT --reject-with tcp-reset
";

/// What other tools say about the namespace of the calling thread, without what differs by design: the link of a veth pair
/// to its far end, identifiers of bridges, timers and counters of use.
fn seen() -> String {
    let links = sh(
        "ip -d -o link | sed -E 's/@[^:]*:/:/; s/ link-netnsid [0-9]+//; s/(gso|gro|tso)[a-z0-9_]* [0-9]+ ?//g; \
                    s/(hello|tcn|topology_change|gc)_timer +[0-9.]+//g; s/designated_[a-z]+ [^ ]+//g; \
                    s/(bridge_id|root_id|port_id|port_no|priority) [^ ]+//g; s/(promiscuity|minmtu|allmulti|maxmtu|num[rt]xqueues) [0-9]+//g;\
                    s/parentbus.*//; s/[a-z_]+_timer +[0-9.]+//g'",
    );
    let rest = sh("echo '# addresses'; ip -o address | sed -E 's/valid_lft [0-9]+sec//; s/ nodad//'
        echo '# neighbors'; ip neigh show nud permanent; ip neigh show proxy
        echo '# rules'; ip rule; ip -6 rule
        echo '# nexthops'; ip nexthop
        echo '# routes'; { ip -d route show table all; ip -6 -d route show table all; } | sed -E 's/ expires [0-9]+sec//' | sort
        echo '# nft'; nft -s list ruleset
        echo '# legacy'; iptables-legacy-save | grep -v '^#' | sort || true");
    format!("{links}{rest}")
}

fn assert_same(original: &str, copy: &str) {
    let diff = similar::TextDiff::from_lines(original, copy).unified_diff().to_string();
    assert!(original == copy, "{diff}");
}

/// Copies the namespace of the calling thread, and returns what other tools say about the copy.
fn copied() -> (NodeCopy, String) {
    let copy = NodeImage::read().expect("readable").write(&[], &[]).expect("a copy");
    let text = copy.namespace.enter(|| Ok(seen())).expect("our namespace");
    (copy, text)
}

#[test]
fn links_addresses_routes_and_rules_are_the_same_in_the_copy() {
    in_namespace(|| {
        sh(NODE);
        sh(ROUTING);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let before = seen();
        let (copy, text) = copied();
        assert_same(&before, &text);
        assert_eq!(copy.omissions, []);
        assert_same(&before, &seen());
    });
}

#[test]
fn the_ruleset_is_the_same_in_the_copy() {
    in_namespace(|| {
        sh(NODE);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        sh(&format!("nft -f - <<'END'\n{RULESET}\nEND"));
        sh(IPTABLES);
        sh(EXTENSIONS);
        let before = seen();
        assert!(before.contains("filter + 10"), "{before}");
        let (copy, text) = copied();
        assert_eq!(copy.omissions, []);
        assert_same(&before, &text);
        assert!(copy.totals.nft_tables >= 8, "{:?}", copy.totals);
        assert!(copy.totals.nft_rules > 80, "{:?}", copy.totals);
        // Nothing shows the protocol of a rule, except that iptables accepts to list it.
        let list = "iptables-nft-save; ip6tables-nft-save";
        let strip =
            |text: String| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_same(&strip(sh(list)), &strip(copy.namespace.enter(|| Ok(sh(list))).unwrap()));
    });
}

#[test]
fn rules_of_iptables_legacy_are_copied() {
    in_namespace(|| {
        sh("ip link set lo up; iptables-legacy -A FORWARD -m ttl --ttl-gt 3 -j DROP; \
            iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE");
        let before = seen();
        let (copy, text) = copied();
        assert_same(&before, &text);
        assert_eq!((copy.totals.legacy_tables, &copy.omissions[..]), (2, &[][..]));
    });
}

#[test]
fn handles_of_the_copy_are_found_in_the_original() {
    in_namespace(|| {
        sh("nft add table ip t; nft add chain ip t c; for n in 1 2 3 4 5 6; do nft add rule ip t c ip ttl $n drop; done
            nft delete rule ip t c handle 4; nft delete rule ip t c handle 2");
        let handles = |text: &str| -> Vec<(String, u64)> {
            let rules = text.lines().filter(|line| line.contains("ttl"));
            let split = rules.map(|line| line.trim().split_once(" # handle ").expect("a handle"));
            split.map(|(rule, handle)| (rule.to_owned(), handle.parse().expect("a number"))).collect()
        };
        let original = handles(&sh("nft -a list ruleset"));
        let copy = NodeImage::read().unwrap().write(&[], &[]).unwrap();
        let in_copy = handles(&copy.namespace.enter(|| Ok(sh("nft -a list ruleset"))).unwrap());
        assert_ne!(original, in_copy, "the test shows nothing");
        let found: Vec<(String, u64)> = in_copy
            .into_iter()
            .map(|(rule, handle)| (rule, copy.rules.original_handle(2, "t", handle).expect("known")))
            .collect();
        assert_eq!(found, original);
    });
}

/// Sysctls of the copy have the same values, except those that a namespace lacks.
#[test]
fn sysctls_are_the_same_in_the_copy() {
    in_namespace(|| {
        sh(NODE);
        let read =
            || sh("cd /proc/sys/net; grep -rs '' ipv4 ipv6 core netfilter bridge 2>/dev/null | sort || true");
        let lines = |text: &str| -> BTreeSet<String> {
            let is_steady = |line: &&str| {
                !["conntrack_count", "fastopen_key", "stable_secret"].iter().any(|part| line.contains(part))
            };
            text.lines().filter(is_steady).map(str::to_owned).collect()
        };
        let before = lines(&read());
        let (copy, _) = copied();
        assert_eq!(copy.omissions, []);
        let after = lines(&copy.namespace.enter(|| Ok(read())).unwrap());
        let different: Vec<&String> = before.symmetric_difference(&after).collect();
        assert_eq!(different, Vec::<&String>::new());
        assert!(copy.totals.sysctls >= 8, "{:?}", copy.totals);
    });
}

/// A ruleset that does not fit into one batch of an unprivileged socket.
#[test]
fn large_rulesets_are_copied() {
    in_namespace(|| {
        let mut rules = String::from("table ip t {\n set s { type ipv4_addr; elements = { ");
        for n in 0..5_000 {
            rules.push_str(&format!("10.{}.{}.1, ", n / 250, n % 250));
        }
        rules.push_str("} }\n chain c { type filter hook forward priority 0;\n");
        for n in 0..1_500 {
            rules.push_str(&format!(
                "ip saddr 10.0.{}.{} tcp dport {{ {}, 1 }} drop\n",
                n / 250,
                n % 250,
                n + 2
            ));
        }
        rules.push_str("}\n}\n");
        std::fs::write("/tmp/hostgw-large-ruleset", &rules).unwrap();
        sh("nft -f /tmp/hostgw-large-ruleset; rm /tmp/hostgw-large-ruleset");
        let before = sh("nft -s list ruleset");
        let copy = NodeImage::read().unwrap().write(&[], &[]).unwrap();
        assert_eq!(copy.omissions, []);
        let after = copy.namespace.enter(|| Ok(sh("nft -s list ruleset"))).unwrap();
        assert!(before == after, "the rulesets differ");
    });
}
