//! `plan --out` and `apply PLAN`: exactly that plan, or none.

use super::{NODE_1, NODE_2, cluster, node, settled};
use crate::support::namespace::{Namespace, Privilege, Snapshots, can_become_nobody, each};

fn save(node: &Namespace) {
    node.hostgw_ok(&["plan", "--out", "p.json"])
        .warns("Saved to p.json. `hostgw apply p.json` applies exactly this plan.");
}

#[test]
fn a_saved_plan_is_applied_unchanged() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.sh("chown 0:0 . && git init -q . && git add hostgw.yaml
                 git -c user.name=o -c user.email=o commit -qm nodes");
        save(&node);
        node.assert_unchanged(&before, "plan --out");
        super::assert_no_record(&node);
        // The configuration is deleted, and unrelated foreign changes do not matter.
        node.sh("rm hostgw.yaml
                 ip route add 10.99.0.0/16 via 172.30.0.1; ip route add 10.244.128.0/24 via 172.30.0.1
                 nft add table ip other; echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp
                 ip link add docker0 type bridge");
        let live = node.witness();
        let mut snapshots = Snapshots::default();
        snapshots.compare("saved-plan-apply", &node.hostgw_ok(&["apply", "p.json"]));
        assert_eq!(node.managed_routes().len(), 3);
        let twice = node.hostgw_ok(&["apply", "p.json"]);
        snapshots.compare("saved-plan-apply-twice", &twice);
        let history = node.hostgw_ok(&["status", "--history", "--json"]).json();
        let head = node.run(["git", "rev-parse", "HEAD"]);
        let transaction = &history["transactions"][0];
        assert_eq!(transaction["commit"], serde_json::json!({ "id": head.trim(), "dirty": false }));
        assert_eq!(transaction["file"], "hostgw.yaml");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&live, "a saved plan and rollback");
        snapshots.conclude();
    });
}

/// A reviewer of a plan needs neither the node nor its privileges.
#[test]
fn a_saved_plan_can_be_shown_on_any_machine_in_every_format() {
    each(|privilege| {
        let node = node(privilege);
        node.sh(
            "ip route add 10.244.1.0/24 via 172.30.0.9 proto 87; ip route add 10.1.0.0/16 dev eth0 proto 87",
        );
        let plan = |form: &[&str]| node.hostgw_ok(&[&["plan", "--out", "p.json"], form].concat()).stdout;
        let elsewhere = Namespace::new(privilege);
        for form in [&[][..], &["--summary"], &["--json"], &["--markdown"], &["--color", "always"]] {
            let planned = plan(form);
            let saved = std::fs::read_to_string(node.folder().join("p.json")).expect("a plan");
            elsewhere.write("p.json", &saved);
            let shown = elsewhere.hostgw_ok(&[&["show", "p.json"], form].concat());
            assert!(shown.stdout.ends_with(&planned), "{shown}\n{planned}");
            let title = shown.stdout.len() - planned.len();
            let is_text = !["--json", "--markdown"].contains(form.first().unwrap_or(&""));
            assert_eq!(title > 0, is_text, "{shown}");
        }
        let mut snapshots = Snapshots::default();
        snapshots.compare("show", &elsewhere.hostgw_ok(&["show", "p.json"]));
        let piped = elsewhere.try_sh("\"$HOSTGW\" show - <p.json").expect(0);
        piped.says("Saved plan for node linux-1");
        elsewhere.write("no-plan.json", "{}");
        elsewhere.hostgw(&["show", "no-plan.json"]).expect(3).warns("is not a saved plan");
        elsewhere.hostgw(&["show", "--json", "no-plan.json"]).expect(3).says("\"outcome\": \"invalid\"");
        snapshots.conclude();
    });
}

/// A plan is written to the target of a link or into a pipe; neither is replaced.
#[test]
fn a_plan_is_written_through_links_and_pipes() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("mkfifo pipe; echo old >file; ln -s file link
                 timeout 9 cat pipe >read & \"$HOSTGW\" plan --out pipe; wait; test -p pipe
                 \"$HOSTGW\" plan --out link; test -L link");
        for file in ["file", "read"] {
            node.sh(&format!("grep -q '\"kind\": \"savedPlan\"' {file}"));
        }
        node.hostgw_ok(&["apply", "link"]);
    });
}

/// Two fresh nodes look alike, but the plan for one is not applied to the other.
#[test]
fn a_plan_for_another_node_is_refused() {
    each(|privilege| {
        let node = node(privilege);
        save(&node);
        node.sh("ip addr del 172.30.0.11/24 dev eth0; ip addr add 172.30.0.12/24 dev eth0");
        let before = node.witness();
        node.hostgw(&["apply", "p.json"]).expect(5).warns("- address 172.30.0.11 of the node");
        node.assert_unchanged(&before, "a plan for another node");
    });
}

/// If anything that the plan depends on changes, the plan is stale, and nothing is changed.
#[test]
fn a_stale_plan_is_refused() {
    each(|privilege| {
        let mut snapshots = Snapshots::default();
        for (name, moved) in [
            ("route-of-hostgw", "ip route add 10.244.1.0/24 via 172.30.0.9 proto 87"),
            ("route-of-another-node", "ip route add 10.244.77.0/24 via 172.30.0.9 proto 87"),
            ("sysctl", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
            ("nat", "nft add table ip hostgw; nft add chain ip hostgw other"),
        ] {
            let node = node(privilege);
            save(&node);
            node.sh(moved);
            let before = node.witness();
            snapshots.compare(&format!("stale-{name}"), &node.hostgw(&["apply", "p.json"]).expect(5));
            node.assert_unchanged(&before, moved);
            super::assert_no_record(&node);
        }
        // A foreign object in its place is a conflict, as without a saved plan.
        let node = node(privilege);
        save(&node);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9");
        node.hostgw(&["apply", "p.json"]).expect(10);
        // Problems that arose since are found as well.
        node.sh("ip route del 10.244.1.0/24; ip link set eth0 down");
        node.hostgw(&["apply", "p.json"]).expect(3);
        snapshots.conclude();
    });
}

/// Half of the plan is already in effect, because drift was repaired or by another apply: that is a different plan.
#[test]
fn a_partly_applied_plan_is_stale() {
    each(|privilege| {
        let node = node(privilege);
        save(&node);
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        node.hostgw_ok(&["apply", "--yes"]);
        let before = node.witness();
        node.hostgw(&["apply", "p.json"]).expect(5).warns("+ net.ipv4.ip_forward = 1");
        node.assert_unchanged(&before, "a stale plan");
    });
}

/// Objects adopted in the plan are adopted by its apply.
#[test]
fn a_saved_plan_with_adopt_adopts() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9");
        let before = node.witness();
        node.hostgw(&["plan", "--out", "p.json"]).expect(10);
        assert!(!node.folder().join("p.json").exists(), "a plan with conflicts is not saved");
        node.hostgw_ok(&["plan", "--adopt", "--out", "p.json"]);
        node.hostgw_ok(&["apply", "p.json"]);
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "an adopting plan and rollback");
    });
}

#[test]
fn a_plan_from_a_snapshot_can_be_applied() {
    each(|privilege| {
        let node = node(privilege);
        let snapshot = node.hostgw_ok(&["snapshot"]).stdout;
        node.write("snapshot.json", &snapshot);
        node.hostgw_ok(&["plan", "--state", "snapshot.json", "--out", "p.json"]);
        node.hostgw_ok(&["apply", "p.json"]);
        settled(&node);
    });
}

/// A file that was modified, or is not a plan, is refused.
#[test]
fn files_that_are_not_saved_plans_are_refused() {
    each(|privilege| {
        let node = node(privilege);
        save(&node);
        let before = node.witness();
        let plan = std::fs::read_to_string(node.folder().join("p.json")).expect("a plan");
        for (text, why) in [
            (String::new(), "unexpected end of file"),
            (plan[..plan.len() / 2].to_owned(), "unexpected end of file"),
            ("{}".to_owned(), "missing field `format`"),
            (
                plan.replacen("\"format\": 1", "\"format\": 2", 1),
                "it has format 2, but this version of hostgw reads format 1",
            ),
            (plan.replace("172.30.0.12", "172.30.0.66"), "it was modified after it was saved"),
            (
                plan.replacen("\"net.ipv4.ip_forward\": \"0\"", "\"net.ipv4.ip_forward\": \"1\"", 1),
                "it was modified after",
            ),
        ] {
            assert_ne!(text, plan);
            node.write("broken.json", &text);
            node.hostgw(&["apply", "broken.json"]).expect(3).warns("is not a saved plan").warns(why);
        }
        node.hostgw(&["apply", "hostgw.yaml"]).expect(3).warns("pass a configuration with -f");
        // The reviewed changes differ from those of the configuration.
        node.write("broken.json", &plan.replacen("via 10.244.1.1", "via 10.244.1.77", 1));
        node.hostgw(&["apply", "broken.json"]).expect(5).warns("would make different changes");
        node.hostgw(&["apply", "p.json", "-f", "hostgw.yaml"]).expect(64);
        node.assert_unchanged(&before, "refused plans");
    });
}

/// A configuration that lost its nodes.
#[test]
fn a_mass_removal_requires_its_number() {
    each(|privilege| {
        let node = node(privilege);
        let others: Vec<(String, String, String)> = (1..=20)
            .map(|n| (format!("n{n}"), format!("10.244.{n}.0/24"), format!("172.30.0.{}", 20 + n)))
            .collect();
        let file = |count: usize| {
            let others =
                others.iter().take(count).map(|(name, cidr, address)| (&**name, &**cidr, &**address));
            cluster("", &std::iter::once(NODE_1).chain(others).collect::<Vec<_>>())
        };
        node.write("hostgw.yaml", &file(20));
        node.hostgw_ok(&["apply", "--yes"]);
        let before = node.witness();
        // 11 of 21 routes, including the on-link route.
        node.write("hostgw.yaml", &file(9));
        let mut snapshots = Snapshots::default();
        snapshots.compare("mass-removal", &node.hostgw(&["apply", "--yes"]).expect(8));
        node.hostgw(&["apply", "--yes", "--allow-removals", "12"])
            .expect(8)
            .warns("removes 11 of the 21 managed routes, not 12");
        node.assert_unchanged(&before, "refused removals");
        node.hostgw_ok(&["plan", "--out", "p.json"]);
        node.hostgw(&["apply", "p.json"]).expect(8);
        node.assert_unchanged(&before, "a refused saved plan");
        // 10 of 21 are not more than half; with the exact number, a mass removal is allowed.
        node.write("hostgw.yaml", &file(10));
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.hostgw_ok(&["apply", "p.json", "--allow-removals", "11"]);
        node.write("hostgw.yaml", &file(9));
        settled(&node);
        // If no route to another node remains, the number is always required.
        node.write("hostgw.yaml", &file(2));
        node.hostgw_ok(&["apply", "--yes"]);
        node.write("hostgw.yaml", &cluster("", &[NODE_1]));
        node.hostgw(&["apply", "--yes"])
            .expect(8)
            .warns("; this node would have no routes to other nodes; nothing");
        // Other machines in the configuration make no difference if they have no pods.
        node.write("hostgw.yaml", &cluster("", &[NODE_1, ("db", "none", "172.30.0.20")]));
        node.hostgw(&["apply", "--yes"])
            .expect(8)
            .warns("; this node would have no routes to other nodes; nothing");
        node.hostgw_ok(&["apply", "--yes", "--allow-removals", "2"]);
        // The purpose of destroy is to remove everything.
        node.write("hostgw.yaml", &file(20));
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["destroy", "--yes"]);
        snapshots.conclude();
    });
}

/// A plan contains the configuration: only its owner can read it, and a file that it replaces keeps its mode.
#[test]
fn only_the_owner_can_read_a_plan() {
    each(|privilege| {
        let node = node(privilege);
        for umask in ["000", "022"] {
            node.sh(&format!("umask {umask}; rm -f p.json; \"$HOSTGW\" plan --out p.json"));
            assert_eq!(node.sh("stat -c %a p.json"), "600\n", "umask {umask}");
        }
        for mode in ["600", "640", "664"] {
            node.sh(&format!("chmod {mode} p.json; \"$HOSTGW\" plan --out p.json"));
            assert_eq!(node.sh("stat -c %a p.json"), format!("{mode}\n"));
        }
        assert_eq!(node.sh("ls -A | grep new || true"), "", "no temporary file stays");
        for place in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            node.sh(&format!("\"$HOSTGW\" plan --out {place} | grep -q '\"kind\": \"savedPlan\"'"));
        }
        node.sh("\"$HOSTGW\" plan --out /dev/null; test -c /dev/null");
    });
}

/// Files of other users in a folder such as /tmp are not followed, and decide nothing.
#[test]
fn a_plan_follows_no_files_of_other_users() {
    if !can_become_nobody() {
        crate::support::say("not as root: no other user can create a link");
        return;
    }
    let node = node(Privilege::Root);
    node.sh("mkdir -m 1777 shared; echo mine >precious; chmod 600 precious; chown 0:0 precious
             cd shared; ln -s ../precious link; chown -h 65534 link; ln -s link chain; mkfifo pipe; chown 65534 pipe
             echo theirs >file; chmod 666 file; chown 65534 file; ln -s ../precious own");
    for name in ["link", "chain", "pipe"] {
        let outcome = node.hostgw(&["plan", "--out", &format!("shared/{name}")]).expect(1);
        outcome.warns("owned by uid 65534, in a directory that others can write to");
    }
    assert_eq!(node.sh("cat precious"), "mine\n");
    // The file that replaces theirs belongs to root.
    node.hostgw_ok(&["plan", "--out", "shared/file"]);
    assert_eq!(node.sh("stat -c '%a %u' shared/file"), "600 0\n");
    // The user's own link is followed, and stays.
    node.hostgw_ok(&["plan", "--out", "shared/own"]);
    assert_eq!(node.sh("stat -c '%F %a' shared/own precious"), "symbolic link 777\nregular file 600\n");
    node.sh("grep -q 'savedPlan' precious");
}
