//! Tests NAT against the kernel, with `nft` as an independent reference. Each test has its own network namespace.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use ipnet::IpNet;
use proptest::prelude::*;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{write::replace as compare_and_replace, *};
use crate::{
    apply::Interrupt,
    kernel::{
        netlink::{Socket, put_attribute},
        testing::in_namespace,
    },
    model::{Family, PerFamily},
    plan::NatChange,
    state::{
        BaseChain, ChainPolicy, ChainType, Expression, Field, Hook, NatChain, NatObject, NatRule, NatTable,
        RuleBody, StatePart, Tables,
    },
};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs an `nft` script.
fn nft(script: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("writable");
    assert!(child.wait().expect("our child").success(), "{script}");
}

/// Lists the table with `nft`, without counters.
fn listing(family: Family) -> String {
    run("nft", &["--stateless", "list", "table", family.nft(), "hostgw"])
}

fn base() -> BaseChain {
    BaseChain {
        kind: ChainType::Nat,
        hook: Hook::Postrouting,
        priority: BaseChain::SRCNAT,
        policy: ChainPolicy::Accept,
    }
}

fn table(family: Family, rules: Vec<NatRule>) -> NatTable {
    let chain = NatChain { name: "postrouting".into(), base: Some(base()), rules };
    NatTable { family, flags: 0, chains: vec![chain], others: Vec::new() }
}

fn rule(expressions: &[Expression]) -> NatRule {
    NatRule { body: RuleBody::Known(expressions.to_vec()), comment: None }
}

fn to(prefix: &str) -> Expression {
    Expression::Address { field: Field::Daddr, negated: false, prefix: prefix.parse().expect("a prefix") }
}

fn not_to(prefix: &str) -> Expression {
    Expression::Address { field: Field::Daddr, negated: true, prefix: prefix.parse().expect("a prefix") }
}

fn from(prefix: &str) -> Expression {
    Expression::Address { field: Field::Saddr, negated: false, prefix: prefix.parse().expect("a prefix") }
}

const MASQUERADE: Expression = Expression::Masquerade { flags: 0 };

fn recipe(prefix: &str) -> NatRule {
    NatRule {
        body: RuleBody::Known(vec![not_to(prefix), Expression::NotLocal, Expression::Counter, MASQUERADE]),
        comment: Some("pods to the outside, by hostgw".into()),
    }
}

/// A change from the live table.
fn change((family, after): &(Family, Option<&NatTable>)) -> NatChange {
    let (mut live, _) = observe(&[*family]).expect("readable");
    NatChange { family: *family, before: live.get_mut(*family).take(), after: after.cloned() }
}

/// Replaces the live tables.
fn replace(tables: &[(Family, Option<&NatTable>)]) -> Result<(), NatError> {
    let changes: Vec<_> = tables.iter().map(change).collect();
    compare_and_replace(&changes.iter().collect::<Vec<_>>(), &Interrupt::new())
}

fn write(table: &NatTable) {
    replace(&[(table.family, Some(table))]).expect("accepted");
}

fn observed(family: Family) -> Option<NatTable> {
    let (mut tables, unknown) = observe(&[family]).expect("readable");
    assert_eq!(unknown, []);
    tables.get_mut(family).take()
}

/// Rules for every encoding of a prefix, and their nft syntax.
fn samples(family: Family) -> Vec<(NatRule, String)> {
    let prefixes: &[&str] = match family {
        Family::V4 => &[
            "0.0.0.0/0",
            "128.0.0.0/1",
            "10.0.0.0/8",
            "10.128.0.0/9",
            "10.244.0.0/16",
            "10.244.128.0/17",
            "10.244.1.0/24",
            "10.244.1.128/25",
            "10.244.1.2/31",
            "10.244.1.2/32",
        ],
        Family::V6 => &[
            "::/0",
            "fd00::/8",
            "fd00:244::/48",
            "fd00:244:0:8000::/49",
            "fd00:244:0:1::/64",
            "fd00:244:0:1::80/121",
            "fd00:244:0:1::2/127",
            "fd00:244:0:1::2/128",
        ],
    };
    let mut samples = Vec::new();
    for prefix in prefixes {
        for (field, name) in [(Field::Saddr, "saddr"), (Field::Daddr, "daddr")] {
            for (negated, sign) in [(false, ""), (true, "!= ")] {
                let net: IpNet = prefix.parse().expect("a prefix");
                let text = prefix.trim_end_matches(&format!("/{}", net.max_prefix_len())).to_owned();
                let address = Expression::Address { field, negated, prefix: net };
                let line = format!("{} {name} {sign}{text} return", family.nft());
                samples.push((rule(&[address, Expression::Return]), line));
            }
        }
    }
    for (flags, words) in [
        (0, ""),
        (4, " random"),
        (8, " persistent"),
        (16, " fully-random"),
        (28, " random,fully-random,persistent"),
    ] {
        samples.push((rule(&[Expression::Masquerade { flags }]), format!("masquerade{words}")));
        let address: std::net::IpAddr = match family {
            Family::V4 => std::net::Ipv4Addr::new(172, 30, 0, 11).into(),
            Family::V6 => "fd00:30::11".parse().expect("an address"),
        };
        let line = format!("snat to {address}{words}");
        samples.push((rule(&[Expression::SourceNat { address, flags }]), line));
    }
    let mut commented = rule(&[Expression::NotLocal, Expression::Counter, MASQUERADE]);
    commented.comment = Some("a comment".into());
    samples.push((commented, "fib daddr type != local counter masquerade comment \"a comment\"".to_owned()));
    samples.push((rule(&[Expression::Counter]), "counter".to_owned()));
    samples
}

#[test]
fn writes_the_recipe_as_nft_lists_it() {
    in_namespace(|| {
        assert_eq!(observed(Family::V4), None);
        let wanted = table(
            Family::V4,
            vec![
                rule(&[from("10.244.0.0/24"), to("172.30.0.0/16"), Expression::Return]),
                recipe("10.244.0.0/16"),
            ],
        );
        write(&wanted);
        assert_eq!(
            listing(Family::V4),
            "table ip hostgw {\n\
             \tchain postrouting {\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr 10.244.0.0/24 ip daddr 172.30.0.0/16 return\n\
             \t\tip daddr != 10.244.0.0/16 fib daddr type != local counter masquerade comment \"pods to the outside, by hostgw\"\n\
             \t}\n}\n"
        );
        let observed = observed(Family::V4).expect("there");
        assert_eq!(observed, wanted);
        assert_eq!(observed.chains[0].rules[1].comment, wanted.chains[0].rules[1].comment);
        let before = listing(Family::V4);
        write(&wanted);
        assert_eq!(listing(Family::V4), before, "replacing is idempotent");
    });
}

#[test]
fn both_families_are_written_and_removed_in_one_batch() {
    in_namespace(|| {
        let v4 = table(Family::V4, vec![recipe("10.244.0.0/16")]);
        let v6 = table(Family::V6, vec![recipe("fd00:244::/48")]);
        replace(&[(Family::V4, Some(&v4)), (Family::V6, Some(&v6))]).expect("accepted");
        let both = PerFamily { v4: Some(v4), v6: Some(v6) };
        assert_eq!(observe(&Family::ALL).expect("readable"), (both, vec![]));
        replace(&[(Family::V4, None), (Family::V6, None)]).expect("accepted");
        assert_eq!(observe(&Family::ALL).expect("readable"), (Tables::default(), vec![]));
        assert_eq!(run("nft", &["list", "ruleset"]), "");
        replace(&[(Family::V4, None)]).expect("an absent table can be removed");
        replace(&[]).expect("nothing to do");
    });
}

#[test]
fn every_prefix_length_is_read_back_whether_hostgw_or_nft_wrote_it() {
    for family in Family::ALL {
        in_namespace(move || {
            let (rules, lines): (Vec<_>, Vec<_>) = samples(family).into_iter().unzip();
            let wanted = table(family, rules);
            write(&wanted);
            let listed = listing(family);
            let body: Vec<_> = listed.lines().skip(3).take(lines.len()).map(str::trim).collect();
            assert_eq!(body, lines);
            assert_eq!(observed(family).as_ref(), Some(&wanted));

            // nft encodes the same rules with other bytes.
            run("nft", &["delete", "table", family.nft(), "hostgw"]);
            nft(&listed);
            assert_eq!(observed(family), Some(wanted));
        });
    }
}

#[test]
fn foreign_rules_are_kept_and_restored() {
    in_namespace(|| {
        nft("table ip hostgw {\n\
             flags dormant\n\
             chain side { ip saddr 1.2.3.4 drop; tcp dport 80 counter accept; quota over 5 bytes drop\n }\n\
             chain postrouting { type nat hook postrouting priority 90; policy accept;\n\
               ct state new jump side\n\
               ip daddr != 10.244.0.0/16 fib daddr . oif type != local counter masquerade\n\
               ip daddr 10.1.0.0-10.1.255.255 return\n\
               ip daddr & 255.0.255.0 == 10.0.1.0 return\n\
               ip saddr 10.0.0.1 ip daddr 10.0.0.2 meta l4proto tcp masquerade to :1000-2000 comment \"ports\"\n\
               ip daddr 10.0.0.0/8 accept\n\
               fib daddr type local counter masquerade\n\
               fib saddr type != local masquerade\n\
               fib daddr type != multicast masquerade\n\
               return\n }\n\
             chain guard { type filter hook forward priority -5; policy drop; ip saddr 10.0.0.0/8 return\n }\n\
             }\n");
        let before = listing(Family::V4);
        let live = observed(Family::V4).expect("there");
        assert_eq!(live.flags, 1);
        assert_eq!(live.others, [""; 0]);
        assert!(live.can_be_restored());
        // Depending on its version, nft encodes a range as one expression or two.
        let by_meaning =
            |object: &NatObject| object.to_string().replace("payload, range,", "payload, cmp, cmp,");
        let lines: Vec<_> = live.objects().iter().map(by_meaning).collect();
        assert_eq!(
            lines,
            [
                "table ip hostgw { flags dormant; }",
                "chain ip hostgw side",
                "chain ip hostgw postrouting { type nat hook postrouting priority 90; policy accept; }",
                "chain ip hostgw guard { type filter hook forward priority -5; policy drop; }",
                "rule ip hostgw side (payload, cmp, immediate)",
                "rule ip hostgw side (meta, cmp, payload, cmp, counter, immediate)",
                "rule ip hostgw side (quota, immediate)",
                "rule ip hostgw postrouting (ct, bitwise, cmp, immediate)",
                "rule ip hostgw postrouting (payload, cmp, fib, cmp, counter, masq)",
                "rule ip hostgw postrouting (payload, cmp, cmp, immediate)",
                "rule ip hostgw postrouting (payload, bitwise, cmp, immediate)",
                "rule ip hostgw postrouting (payload, cmp, payload, cmp, meta, cmp, immediate, immediate, masq) comment \"ports\"",
                "rule ip hostgw postrouting (payload, cmp, immediate)",
                "rule ip hostgw postrouting (fib, cmp, counter, masq)",
                "rule ip hostgw postrouting (fib, cmp, masq)",
                "rule ip hostgw postrouting (fib, cmp, masq)",
                "rule ip hostgw postrouting return",
                "rule ip hostgw guard ip saddr 10.0.0.0/8 return",
            ]
        );
        write(&table(Family::V4, vec![recipe("10.244.0.0/16")]));
        assert_ne!(listing(Family::V4), before);
        write(&live);
        assert_eq!(listing(Family::V4), before);
        assert_eq!(observed(Family::V4), Some(live));
    });
}

#[test]
fn counters_of_foreign_rules_are_ignored() {
    in_namespace(|| {
        run("ip", &["link", "set", "lo", "up"]);
        nft("table ip hostgw {\n chain out { type filter hook output priority 0; policy accept;\n\
             meta l4proto icmp counter accept; meta l4proto != tcp quota 1 bytes\n }\n }\n");
        let before = observed(Family::V4).expect("there");
        run("ping", &["-c", "1", "-W", "1", "127.0.0.1"]);
        let counted = run("nft", &["list", "table", "ip", "hostgw"]);
        assert!(!counted.contains("packets 0 "), "{counted}");
        let after = observed(Family::V4).expect("there");
        assert_eq!(after, before);
        write(&after);
        assert_eq!(observed(Family::V4), Some(before));
    });
}

#[test]
fn objects_that_cannot_be_written_are_named() {
    in_namespace(|| {
        nft("table ip hostgw {\n\
             set blocked { type ipv4_addr; }\n\
             map marks { type ipv4_addr : mark; }\n\
             counter hits { }\n\
             quota much { 5 mbytes\n }\n\
             chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n\
               ip saddr @blocked return; counter name hits; tcp dport { 80, 443 } return\n }\n\
             }\n");
        nft(
            "table ip elsewhere { set foreign { type ipv4_addr; }\n chain c { ip saddr 1.1.1.1 drop\n }\n }\n",
        );
        let mut others = observed(Family::V4).expect("there").others;
        others.sort();
        assert_eq!(others, ["counter hits", "map marks", "quota much", "set __set0", "set blocked"]);
        assert_eq!(observed(Family::V6), None);
    });
}

#[test]
fn foreign_objects_stay_unchanged() {
    in_namespace(|| {
        run("iptables", &["-t", "nat", "-A", "POSTROUTING", "-s", "10.9.0.0/16", "-j", "MASQUERADE"]);
        nft("table ip other { chain c { type nat hook postrouting priority 50; policy accept;\n\
             ip saddr 10.8.0.0/16 counter masquerade\n }\n set s { type ipv4_addr; elements = { 1.2.3.4 }\n }\n }\n\
             table inet hostgw { chain c { }\n }\n");
        let foreign = || {
            let nat = run("iptables-save", &["-t", "nat"]);
            let nat: Vec<_> = nat.lines().filter(|line| !line.starts_with('#')).collect();
            (
                nat.join("\n"),
                run("nft", &["-a", "list", "table", "ip", "other"]),
                run("nft", &["-a", "list", "table", "inet", "hostgw"]),
            )
        };
        let before = foreign();
        assert!(before.0.contains("10.9.0.0/16"), "{}", before.0);
        write(&table(Family::V4, vec![recipe("10.244.0.0/16")]));
        write(&table(Family::V4, vec![]));
        replace(&[(Family::V4, None), (Family::V6, None)]).expect("accepted");
        assert_eq!(foreign(), before);
    });
}

#[test]
fn without_the_capability_nat_is_unknown() {
    in_namespace(|| {
        write(&table(Family::V4, vec![recipe("10.244.0.0/16")]));
        // Capabilities are per thread, and this thread ends with the test.
        let mut sets = capabilities(None).expect("our own");
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).expect("fewer");
        let (tables, unknown) = observe(&Family::ALL).expect("no error");
        assert_eq!(tables, Tables::default());
        let what: Vec<_> = unknown.iter().map(|unknown| unknown.part.clone()).collect();
        assert_eq!(what, Family::ALL.map(|family| StatePart::Nat { family }));
        assert_eq!(unknown[0].reason, "reading nf_tables requires CAP_NET_ADMIN");
        assert_eq!(
            unknown[0].remedy.as_ref().map(crate::text::Untrusted::as_raw),
            Some("run as root, or with CAP_NET_ADMIN")
        );

        let error = replace(&[(Family::V4, None)]).expect_err("refused");
        assert_eq!(error.to_string(), "cannot read the nftables generation: Operation not permitted (EPERM)");
        assert_eq!(error.hint(), Some("run as root, or with CAP_NET_ADMIN"));
    });
}

#[test]
fn a_rejected_object_is_named_and_nothing_changes() {
    in_namespace(|| {
        let good = table(Family::V4, vec![recipe("10.244.0.0/16")]);
        write(&good);
        let before = run("nft", &["-a", "list", "table", "ip", "hostgw"]);
        let mut bad = table(Family::V4, vec![recipe("10.0.0.0/8"); 300]);
        // A list with one expression that has this name and no data.
        let mut element = Vec::new();
        put_attribute(&mut element, abi::expr::NAME, b"nonsense\0").expect("short");
        let mut list = Vec::new();
        put_attribute(&mut list, abi::LIST_ELEMENT, &element).expect("short");
        let raw = list.iter().map(|byte| format!("{byte:02x}")).collect();
        let foreign = RuleBody::Other { summary: "nonsense".to_owned(), raw };
        bad.chains[0].rules.push(NatRule { body: foreign, comment: None });
        let error = replace(&[(Family::V4, Some(&bad)), (Family::V6, None)]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the kernel rejected rule ip hostgw postrouting (nonsense): No such file or directory (ENOENT)"
        );
        assert_eq!(run("nft", &["-a", "list", "table", "ip", "hostgw"]), before);

        // Masquerade outside a NAT chain.
        let mut bad = good.clone();
        bad.chains[0].base = None;
        let jump = NatChain { name: "f".into(), base: None, rules: Vec::new() };
        bad.chains.push(jump);
        bad.chains[1].base = Some(BaseChain {
            kind: ChainType::Filter,
            hook: Hook::Forward,
            priority: 0,
            policy: ChainPolicy::Accept,
        });
        bad.chains[1].rules.push(rule(&[MASQUERADE]));
        let error = replace(&[(Family::V4, Some(&bad))]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the kernel rejected rule ip hostgw f masquerade: Operation not supported (EOPNOTSUPP)"
        );
        assert_eq!(run("nft", &["-a", "list", "table", "ip", "hostgw"]), before);
    });
}

#[test]
fn an_object_that_cannot_be_encoded_fails_before_anything_is_sent() {
    in_namespace(|| {
        let complain = |change: &dyn Fn(&mut NatTable)| {
            let mut table = table(Family::V4, vec![recipe("10.244.0.0/16")]);
            change(&mut table);
            let error = replace(&[(Family::V4, Some(&table))]).expect_err("unwritable");
            assert!(matches!(error, NatError::Unwritable { .. }), "{error:?}");
            error.to_string()
        };
        let nul = complain(&|table| table.chains[0].name = "a\0b".into());
        assert!(nul.ends_with("its name has a NUL byte"), "{nul}");
        let comment = complain(&|table| table.chains[0].rules[0].comment = Some("a\0b".into()));
        assert!(comment.ends_with("its comment has a NUL byte"), "{comment}");
        let other = |raw: String| RuleBody::Other { summary: "x".to_owned(), raw };
        let hex = complain(&|table| table.chains[0].rules[0].body = other("zz".to_owned()));
        assert!(hex.ends_with("its expressions are not hexadecimal"), "{hex}");
        let long = complain(&|table| table.chains[0].rules[0].body = other("00".repeat(70_000)));
        assert!(long.ends_with("it is longer than a netlink message"), "{long}");
        let family = complain(&|table| table.chains[0].rules.push(rule(&[to("fd00::/8")])));
        assert!(family.ends_with("it compares an address of another family"), "{family}");
        complain(&|table| table.flags = 2);
        complain(&|table| table.family = Family::V6);
        assert_eq!(observed(Family::V4), None);
    });
}

#[test]
fn long_comments_and_names() {
    in_namespace(|| {
        let mut wanted = table(Family::V4, vec![recipe("10.244.0.0/16"); 3]);
        for (rule, length) in wanted.chains[0].rules.iter_mut().zip([125, 126, 4000]) {
            rule.comment = Some(("ä".repeat(length / 2) + if length % 2 == 1 { "b" } else { "" }).into());
        }
        write(&wanted);
        let observed = observed(Family::V4).expect("there");
        let lengths: Vec<_> = observed.chains[0]
            .rules
            .iter()
            .map(|rule| rule.comment.as_ref().map_or(0, |comment| comment.as_raw().len()))
            .collect();
        assert_eq!(lengths, [125, 124, 124]);

        // The kernel rejects a chain name that is too long (NFT_CHAIN_MAXNAMELEN).
        wanted.chains[0].name = "c".repeat(500).into();
        let error = replace(&[(Family::V4, Some(&wanted))]).expect_err("too long");
        assert!(error.to_string().contains("rejected chain ip hostgw ccc"), "{error}");
        wanted.chains[0].name = "c".repeat(70_000).into();
        replace(&[(Family::V4, Some(&wanted))]).expect_err("far too long");
    });
}

#[test]
fn a_large_table_is_written_in_one_batch() {
    in_namespace(|| {
        let mut large = table(Family::V4, Vec::new());
        for number in 0..1000_u32 {
            let prefix = IpNet::new(std::net::Ipv4Addr::from((10 << 24) + (number << 8)).into(), 24)
                .expect("24 <= 32");
            let address = Expression::Address { field: Field::Daddr, negated: false, prefix };
            let mut rule = rule(&[address, Expression::Counter, Expression::Return]);
            rule.comment = Some(format!("rule {number}").into());
            large.chains[0].rules.push(rule);
        }
        for number in 0..200 {
            let rules = vec![rule(&[MASQUERADE])];
            large.chains.push(NatChain { name: format!("chain-{number}").into(), base: Some(base()), rules });
        }
        // This exceeds two pages of nftnl's batch (128 KiB each), yet fits where SO_SNDBUFFORCE fails.
        write(&large);
        assert_eq!(observed(Family::V4), Some(large));
    });
}

fn expression(family: Family) -> impl Strategy<Value = Expression> {
    let address = (any::<u128>(), 0..=family.bits(), any::<bool>(), any::<bool>()).prop_map(
        move |(bits, length, negated, source)| {
            let address = match family {
                Family::V4 => std::net::Ipv4Addr::from((bits >> 96) as u32).into(),
                Family::V6 => std::net::Ipv6Addr::from(bits).into(),
            };
            let prefix = IpNet::new(address, length).expect("a length in range").trunc();
            let field = if source { Field::Saddr } else { Field::Daddr };
            Expression::Address { field, negated, prefix }
        },
    );
    let flags = || prop::sample::select(vec![0, 4, 8, 16, 28]);
    prop_oneof![
        4 => address,
        1 => Just(Expression::NotLocal),
        1 => Just(Expression::Counter),
        1 => Just(Expression::Return),
        1 => flags().prop_map(|flags| Expression::Masquerade { flags }),
        1 => (any::<u128>(), flags()).prop_map(move |(bits, flags)| {
            let address = match family {
                Family::V4 => std::net::Ipv4Addr::from((bits >> 96) as u32).into(),
                Family::V6 => std::net::Ipv6Addr::from(bits).into(),
            };
            Expression::SourceNat { address, flags }
        }),
    ]
}

fn tables(family: Family) -> impl Strategy<Value = NatTable> {
    let rules = prop::collection::vec(prop::collection::vec(expression(family), 1..6), 0..6);
    let chain = (rules, -300..300_i32, any::<bool>());
    (prop::collection::vec(chain, 0..4), 0..2_u32).prop_map(move |(chains, flags)| NatTable {
        family,
        flags,
        chains: chains
            .into_iter()
            .enumerate()
            .map(|(at, (rules, priority, hooked))| NatChain {
                name: format!("chain{at}").into(),
                // The kernel rejects NAT hooks with priorities before connection tracking (-200).
                base: hooked.then(|| BaseChain { priority: priority.max(-199), ..base() }),
                rules: rules.iter().map(|expressions| rule(expressions)).collect(),
            })
            .collect(),
        others: Vec::new(),
    })
}

#[test]
fn any_table_of_known_expressions_is_observed_as_written() {
    in_namespace(|| {
        proptest!(ProptestConfig::with_cases(100), |(v4 in tables(Family::V4), v6 in tables(Family::V6))| {
            replace(&[(Family::V4, Some(&v4)), (Family::V6, Some(&v6))]).expect("accepted");
            let (seen, unknown) = observe(&Family::ALL).expect("readable");
            prop_assert_eq!(unknown, vec![]);
            prop_assert_eq!(seen, PerFamily { v4: Some(v4), v6: Some(v6) });
        });
    });
}

#[test]
fn a_reader_sees_one_generation() {
    in_namespace(|| {
        let few = table(Family::V4, vec![recipe("10.244.0.0/16")]);
        let many = table(Family::V4, vec![recipe("10.0.0.0/8"); 200]);
        write(&few);
        let done = std::sync::atomic::AtomicBool::new(false);
        // A thread inherits the namespace of its parent.
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    write(&many);
                    write(&few);
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let mut read = 0;
            for _ in 0..300 {
                match observe(&[Family::V4]) {
                    Ok((tables, unknown)) => {
                        assert_eq!(unknown, []);
                        let table = tables.v4.expect("never absent");
                        assert!(table == few || table == many, "{} rules", table.chains[0].rules.len());
                        read += 1;
                    }
                    Err(NatError::Unsteady) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(read > 0);
        });
    });
}

/// A table is replaced only if it still equals the one that the plan was created from.
#[test]
fn a_table_that_changed_after_the_plan_is_not_replaced() {
    const THEIRS: [&str; 6] = [
        "add set ip hostgw theirs { type ipv4_addr; }",
        "add chain ip hostgw theirs",
        "insert rule ip hostgw postrouting ip saddr 192.0.2.1 return",
        "flush chain ip hostgw postrouting",
        "add table ip hostgw { flags dormant; }",
        "delete table ip hostgw",
    ];
    for theirs in THEIRS {
        for is_removal in [false, true] {
            in_namespace(move || {
                write(&table(Family::V4, vec![recipe("10.244.0.0/16")]));
                let wanted = table(Family::V4, vec![recipe("10.0.0.0/8")]);
                let ours = change(&(Family::V4, (!is_removal).then_some(&wanted)));
                nft(theirs);
                let before = run("nft", &["-a", "list", "ruleset"]);
                let error = compare_and_replace(&[&ours], &Interrupt::new()).expect_err(theirs);
                assert_eq!(
                    error.to_string(),
                    "another program changed table ip hostgw after the plan was created"
                );
                assert_eq!(run("nft", &["-a", "list", "ruleset"]), before);
            });
        }
    }
}

/// Another program adds a set at an arbitrary moment, while the table is replaced repeatedly.
#[test]
fn a_concurrently_added_set_is_never_lost() {
    const ROUNDS: usize = 60;
    in_namespace(|| {
        let tables =
            [table(Family::V4, vec![recipe("10.244.0.0/16")]), table(Family::V4, vec![recipe("10.0.0.0/8")])];
        let (mut replaced, mut overtaken) = (0, 0);
        for round in 0.. {
            write(&tables[0]);
            thread::scope(|scope| {
                let theirs = scope.spawn(|| nft("add set ip hostgw theirs { type ipv4_addr; }"));
                for wanted in tables.iter().cycle() {
                    let is_in = theirs.is_finished();
                    let ours = change(&(Family::V4, Some(wanted)));
                    if ours.before.as_ref().is_some_and(|before| !before.can_be_restored()) {
                        break;
                    }
                    assert!(!is_in, "round {round}: the set is lost");
                    match compare_and_replace(&[&ours], &Interrupt::new()) {
                        Ok(()) => replaced += 1,
                        Err(NatError::Overtaken(Family::V4)) => overtaken += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                theirs.join().expect("nft adds it");
            });
            assert_eq!(observed(Family::V4).expect("there").others, ["set theirs"], "round {round}");
            // On a busy machine, the set is often added before the first replacement.
            if round >= ROUNDS && replaced > ROUNDS {
                break;
            }
            assert!(round < 20 * ROUNDS, "{replaced} replaced, {overtaken} overtaken");
        }
    });
}

/// Other programs, such as kube-proxy or a firewall, keep changing their tables.
#[test]
fn changes_of_other_tables_do_not_prevent_a_replacement() {
    in_namespace(|| {
        let (few, many) = (
            table(Family::V4, vec![recipe("10.244.0.0/16")]),
            table(Family::V4, vec![recipe("10.0.0.0/8"); 50]),
        );
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            for name in ["others", "more"] {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        nft(&format!("add table ip {name}\ndelete table ip {name}\n"));
                    }
                });
            }
            for _ in 0..40 {
                write(&few);
                write(&many);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(observed(Family::V4), Some(many));
    });
}

/// If nftables never stops changing, hostgw gives up without a change.
#[test]
fn retries_are_limited() {
    let interrupt = Interrupt::new();
    let mut retries = Retries::interruptible(&interrupt);
    for _ in 0..Retries::MIN_ATTEMPTS * 2 {
        retries.wait().expect("not so long yet");
    }
    retries.since = retries.since.checked_sub(Retries::LIMIT).expect("the machine runs longer");
    let error = retries.wait().expect_err("long enough");
    assert_eq!(error.to_string(), "no consistent nftables dump: the ruleset kept changing for 10 s");
    retries.attempts = 0;
    retries.wait().expect("the minimum number of attempts");
    interrupt.raise();
    assert!(matches!(retries.wait(), Err(NatError::Interrupted)));
}

#[test]
fn comments_of_foreign_rules_may_be_as_long_as_nft_allows() {
    in_namespace(|| {
        let comment = "c".repeat(128);
        nft(&format!(
            "table ip hostgw {{\n chain c {{\n tcp dport 80 accept comment \"{comment}\"\n }}\n }}\n"
        ));
        let before = listing(Family::V4);
        assert!(before.contains(&comment));
        write(&observed(Family::V4).expect("there"));
        assert_eq!(listing(Family::V4), before);
    });
}

#[test]
fn the_kernel_filters_out_the_rules_of_other_tables() {
    in_namespace(|| {
        nft("table ip elsewhere {\n chain c {\n ip saddr 1.1.1.1 drop\n ip saddr 1.1.1.2 drop\n }\n }\n");
        write(&table(Family::V4, vec![recipe("10.244.0.0/16")]));
        let mut socket = Socket::open(NETLINK_NETFILTER).expect("a socket");
        let mut request = vec![abi::protocol(Family::V4), 0, 0, 0];
        assert_eq!(socket.dump(abi::message::GETRULE, 0, &request).expect("rules").iter().count(), 3);
        put_attribute(&mut request, abi::rule::TABLE, b"hostgw\0").expect("short");
        assert_eq!(socket.dump(abi::message::GETRULE, 0, &request).expect("rules").iter().count(), 1);
    });
}

#[test]
fn a_rule_that_only_the_whole_ruleset_forbids_is_named() {
    in_namespace(|| {
        nft("table ip hostgw {\n chain a {\n jump b\n }\n chain b {\n }\n }\n");
        let before = listing(Family::V4);
        let observed = observed(Family::V4).expect("there");

        // A jump from b back to a is a loop.
        let mut table = observed.clone();
        let RuleBody::Other { raw, .. } = &observed.chains[0].rules[0].body else { panic!("{observed:?}") };
        // The chain name in the verdict is `b` and its NUL.
        let raw = raw.replace("6200", "6100");
        let body = RuleBody::Other { summary: "immediate".to_owned(), raw };
        table.chains[1].rules.push(NatRule { body, comment: None });
        table.chains[0].base = Some(base());
        let error = replace(&[(Family::V4, Some(&table))]).expect_err("a loop");
        assert!(
            error.to_string().starts_with("the kernel rejected rule ip hostgw b (immediate): "),
            "{error}"
        );

        let mut table = observed;
        table.chains[1].rules = vec![rule(&[MASQUERADE])];
        table.chains[0].base = Some(BaseChain { kind: ChainType::Filter, ..base() });
        let error = replace(&[(Family::V4, Some(&table))]).expect_err("masquerade in a filter");
        assert!(
            error.to_string().starts_with("the kernel rejected rule ip hostgw b masquerade: "),
            "{error}"
        );
        assert_eq!(listing(Family::V4), before);
    });
}

#[test]
fn a_table_that_another_program_owns_is_left_alone() {
    in_namespace(|| {
        let mut owner =
            Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().expect("nft is installed");
        let mut input = owner.stdin.take().expect("piped");
        input.write_all(b"add table ip hostgw { flags owner; }\n").expect("writable");
        let owned = || observed(Family::V4).is_some_and(|table| table.flags == 2);
        let patience = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(10));
            owned()
        });
        assert!(patience, "nft makes the table");
        let error = replace(&[(Family::V4, None)]).expect_err("owned");
        assert_eq!(error.to_string(), "the kernel rejected table ip hostgw: Operation not permitted (EPERM)");
        assert_eq!(
            error.hint(),
            Some("another program owns this table (flags owner): stop that program first")
        );
        assert!(owned());
        drop(input);
        owner.wait().expect("our child");
    });
}
