//! Output for programs: the JSON of plans, status and errors.

use serde_json::{Value, json};

use super::{RECIPE, node};
use crate::support::namespace::{Namespace, each};

const RECIPE_TOML: &str = include_str!("../../examples/recipe.toml");

#[test]
fn a_plan_has_the_agreed_fields() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.2.0/24 via 172.30.0.1");
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9 proto 87");
        let plan = node.hostgw(&["plan", "--json"]).expect(10).json();
        assert_eq!(plan["format"], 1);
        assert_eq!(plan["node"], "linux-1");
        assert_eq!(
            plan["totals"],
            json!({ "add": 4, "update": 2, "remove": 0, "conflicts": 1, "unknown": 0 }),
            "{plan:#}"
        );
        let changes = plan["changes"].as_array().expect("a list");
        let change = |name: &str| {
            changes
                .iter()
                .find(|change| change["after"]["name"] == name)
                .unwrap_or_else(|| panic!("{plan:#}"))
        };
        let route = change("10.244.1.0/24");
        assert_eq!(route["action"], "update");
        assert_eq!(route["kind"], "route");
        assert_eq!(route["before"]["text"], "10.244.1.0/24 via 172.30.0.9 dev eth0 proto 87");
        assert_eq!(route["after"]["text"], "10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87");
        let line =
            RECIPE.lines().position(|line| line.contains("podCIDR: 10.244.1.0/24")).expect("there") + 1;
        assert_eq!(route["location"]["line"], line);
        assert_eq!(route["location"]["path"], "nodes[1].podCIDR");
        assert_eq!(change("net.ipv4.ip_forward")["before"]["value"], "0");
        assert_eq!(change("table ip hostgw")["before"], Value::Null);
        let conflicts = plan["conflicts"].as_array().expect("a list");
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0]["foreign"][0]["text"], "10.244.2.0/24 via 172.30.0.1 dev eth0 proto boot");
    });
}

/// `ip` itself accepts every route of a plan as it is printed.
#[test]
fn ip_accepts_the_routes_of_a_plan() {
    each(|privilege| {
        let node = node(privilege);
        let plan = node.hostgw_ok(&["plan", "--json"]).json();
        for change in plan["changes"].as_array().expect("a list") {
            if change["kind"] == "route" {
                node.sh(&format!("ip route add {}", change["after"]["text"].as_str().expect("text")));
            }
        }
        let left = node.hostgw_ok(&["plan", "--json"]).json();
        let kinds: Vec<_> = left["changes"].as_array().expect("a list").iter().map(|c| &c["kind"]).collect();
        assert!(!kinds.contains(&&json!("route")), "{left:#}");
    });
}

/// The same for `nft` and `sysctl`.
#[test]
fn nft_and_sysctl_accept_the_objects_of_a_plan() {
    each(|privilege| {
        let node = node(privilege);
        let plan = node.hostgw_ok(&["plan", "--json"]).json();
        for change in plan["changes"].as_array().expect("a list") {
            let text = change["after"]["text"].as_str().expect("text");
            match change["kind"].as_str().expect("text") {
                "nat" => node.run(["nft", &format!("add {text}")]),
                "sysctl" => node.run(["sysctl", "-w", text]),
                _ => node.sh(&format!("ip route add {text}")),
            };
        }
        node.hostgw(&["plan", "--detailed-exitcode"]).expect(0);
    });
}

#[test]
fn yaml_and_toml_give_the_same_plan() {
    each(|privilege| {
        let node = node(privilege);
        node.write("cluster.yaml", RECIPE);
        node.write("cluster.toml", RECIPE_TOML);
        let text = |file: &str| {
            let plan = node.hostgw_ok(&["plan", "-f", file]).stdout;
            plan.lines().map(|line| without_line(line, file)).collect::<Vec<_>>()
        };
        assert_eq!(text("cluster.yaml"), text("cluster.toml"));
        let json = |file: &str| {
            let mut plan = node.hostgw_ok(&["plan", "--json", "-f", file]).json();
            plan["file"] = Value::Null;
            for change in plan["changes"].as_array_mut().expect("a list") {
                if let Some(source) = change["location"].as_object_mut() {
                    source.retain(|key, _| key == "path");
                }
            }
            plan
        };
        assert_eq!(json("cluster.yaml"), json("cluster.toml"));
        // After one is applied, the other makes no changes.
        node.hostgw_ok(&["apply", "--yes", "-f", "cluster.yaml"]);
        node.hostgw(&["plan", "--detailed-exitcode", "-f", "cluster.toml"]).expect(0);
    });
}

fn without_line(line: &str, file: &str) -> String {
    line.split(&format!("{file}:")).next().expect("one part").to_owned()
}

#[test]
fn standard_input_is_accepted_as_a_file() {
    each(|privilege| {
        let node = node(privilege);
        for file in ["hostgw.yaml", "cluster.toml"] {
            node.write("cluster.toml", RECIPE_TOML);
            let outcome = node.try_sh(&format!("\"$HOSTGW\" plan -f - <{file}")).expect(0);
            outcome.says("+ 10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87");
        }
    });
}

#[test]
fn errors_are_json_if_json_is_requested() {
    each(|privilege| {
        let node = node(privilege);
        let failure = |node: &Namespace, arguments: &[&str], code: i32| {
            let outcome = node.hostgw(arguments).expect(code);
            let failure = outcome.json();
            assert_eq!(failure["format"], 1, "{outcome}");
            assert_eq!(failure["error"]["exitCode"], code, "{outcome}");
            failure
        };
        let unknown = failure(&node, &["plan", "--json", "--node", "linux-22"], 3);
        assert_eq!(unknown["error"]["remedy"], "did you mean linux-2?");
        node.write("hostgw.yaml", &RECIPE.replace("10.244.1.0/24", "10.244.1.7/24"));
        let invalid = failure(&node, &["plan", "--json"], 3);
        let invalid_value = &invalid["error"]["errors"][0];
        assert_eq!(invalid_value["location"]["path"], "nodes[1].podCIDR", "{invalid:#}");
        assert!(
            invalid_value["location"]["line"].is_u64() && invalid_value["location"]["column"].is_u64(),
            "{invalid:#}"
        );
        failure(&node, &["validate", "--json"], 3);
    });
}

#[test]
fn status_for_programs() {
    each(|privilege| {
        let node = node(privilege);
        let nothing = node.hostgw_ok(&["status", "--json"]).json();
        assert_eq!(nothing["lastTransaction"], Value::Null);
        node.hostgw_ok(&["apply", "--yes"]);
        let status = node.hostgw_ok(&["status", "--json"]).json();
        assert_eq!(status["format"], 1);
        assert_eq!(status["managed"]["routes"].as_array().map(Vec::len), Some(3), "{status:#}");
        assert_eq!(status["lastTransaction"]["node"], "linux-1");
        assert_eq!(status["unfinished"], Value::Null);
        assert_eq!(status["drift"]["changes"], json!([]));
        node.sh("ip route del 10.244.1.0/24");
        let drifted = node.hostgw_ok(&["status", "--json"]).json();
        assert_eq!(drifted["drift"]["changes"][0]["after"]["name"], "10.244.1.0/24", "{drifted:#}");
    });
}
