//! With `--json`, standard output is exactly one document that matches its schema, however the command ends.

use std::process::Child;

use serde_json::{Value, json};

use super::{
    NODE_1, NODE_2, RECIPE,
    checks::{checked, node_with_router},
    cluster, node, pending,
};
use crate::support::{
    namespace::{Namespace, Outcome, Snapshots, each},
    schema::{accept, strict},
};

/// The document of a command that ended with `code`. Asserts that it is the only output and matches the schema
/// `schema`, and that errors without a result use the error schema.
#[track_caller]
fn document(outcome: &Outcome, code: i32, schema: &str) -> Value {
    assert_eq!(outcome.code, code, "{outcome}");
    let document = outcome.json();
    accept(&strict(schema), &outcome.to_string(), &document);
    if let Some(error) = document.get("error") {
        assert_eq!(error["exitCode"], code, "{outcome}");
        assert_ne!(code, 0, "{outcome}");
    }
    document
}

/// The document of a command that changes the node.
#[track_caller]
fn transaction(outcome: &Outcome, code: i32, name: &str) -> Value {
    let document = document(outcome, code, "transaction");
    assert_eq!((&document["exitCode"], &document["outcome"]), (&json!(code), &json!(name)), "{outcome}");
    assert_eq!(document.get("error").is_some(), code > 2, "{outcome}");
    document
}

#[test]
fn a_change_prints_one_document() {
    each(|privilege| {
        let node = node(privilege);
        let mut snapshots = Snapshots::default();
        let nothing = Value::Null;

        let asked = transaction(&node.hostgw(&["apply", "--json"]), 8, "notApplied");
        assert_eq!(asked["error"]["remedy"], "pass --yes to proceed without asking");
        assert_eq!((&asked["done"], &asked["transactionId"]), (&nothing, &nothing));
        assert_eq!(asked["planned"]["totals"]["add"], 6, "{asked:#}");
        super::assert_no_record(&node);

        let outcome = node.hostgw(&["apply", "--yes", "--json"]);
        snapshots.compare("json-apply", &outcome);
        let applied = transaction(&outcome, 0, "success");
        assert_eq!(applied["transactionId"], 1);
        assert_eq!(applied["done"], json!({ "add": 6, "update": 1, "remove": 0 }));
        assert_eq!((&applied["verified"], &applied["rolledBack"]), (&json!(true), &json!(false)));

        let again = transaction(&node.hostgw(&["apply", "--yes", "--json"]), 0, "success");
        assert_eq!((&again["done"], &again["transactionId"]), (&nothing, &nothing));
        assert_eq!(again["planned"]["changes"], json!([]));

        transaction(&node.hostgw(&["rollback", "--json"]), 8, "notApplied");
        let outcome = node.hostgw(&["rollback", "--yes", "--json"]);
        snapshots.compare("json-rollback", &outcome);
        let undone = transaction(&outcome, 0, "success");
        assert_eq!((&undone["transactionId"], &undone["rolledBack"]), (&json!(1), &json!(true)));
        assert_eq!(undone["done"], json!({ "add": 0, "update": 1, "remove": 6 }));
        let nothing_left = transaction(&node.hostgw(&["rollback", "--yes", "--json"]), 0, "success");
        assert_eq!(nothing_left["rolledBack"], false);

        node.hostgw_ok(&["apply", "--yes"]);
        transaction(&node.hostgw(&["destroy", "--json"]), 8, "notApplied");
        let outcome = node.hostgw(&["destroy", "--yes", "--json"]);
        snapshots.compare("json-destroy", &outcome);
        assert_eq!(transaction(&outcome, 0, "success")["done"]["remove"], 6);
        assert_eq!(transaction(&node.hostgw(&["cancel", "--json"]), 0, "success")["rolledBack"], false);
        snapshots.conclude();
    });
}

#[test]
fn a_refused_change_prints_one_document() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for verb in ["apply", "destroy", "rollback", "confirm", "cancel"] {
            let outcome = node.hostgw(&[verb, "--json", "--no-such-flag"]);
            let error = document(&outcome, 64, "error");
            assert_eq!(error["error"]["outcome"], "usageError", "{outcome}");
            assert_eq!(outcome.stderr, "");
        }
        transaction(&node.hostgw(&["confirm", "--json"]), 8, "notApplied");
        transaction(&node.hostgw(&["apply", "--yes", "--json", "--node", "linux-22"]), 3, "invalid");
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9");
        let conflict = transaction(&node.hostgw(&["apply", "--yes", "--json"]), 10, "conflict");
        assert!(conflict["error"]["details"][0].is_string(), "{conflict:#}");
        node.sh("ip route del 10.244.1.0/24");
        node.write("hostgw.yaml", &RECIPE.replace("10.244.1.0/24", "10.244.1.7/24"));
        let invalid = transaction(&node.hostgw(&["apply", "--yes", "--json"]), 3, "invalid");
        assert_eq!(invalid["error"]["errors"][0]["location"]["path"], "nodes[1].podCIDR");
        node.assert_unchanged(&before, "refused changes");
    });
}

fn end(node: &Namespace, child: Child) -> Outcome {
    let output = child.wait_with_output().expect("our child");
    Outcome::from_output(node, "hostgw apply --yes --json --confirm", output)
}

#[test]
fn a_confirmation_prints_one_document() {
    each(|privilege| {
        let node = node(privilege);
        for (verb, decision, code, name) in
            [("confirm", "confirmed", 0, "success"), ("cancel", "canceled", 8, "notApplied")]
        {
            let child = pending(&node, "10m", &["--json"]);
            let decided = transaction(&node.hostgw(&[verb, "--json"]), 0, "success");
            let applied = transaction(&end(&node, child), code, name);
            for document in [&decided, &applied] {
                assert_eq!(document["confirmation"]["decision"], decision, "{document:#}");
                assert_eq!(document["confirmation"]["transactionId"], applied["transactionId"]);
                assert_eq!(document["rolledBack"], verb == "cancel", "{document:#}");
            }
            assert_eq!(applied["done"].is_null(), verb == "cancel", "{applied:#}");
            assert_eq!(applied["verified"], true);
            node.hostgw_ok(&["destroy", "--yes"]);
        }
        let expired = transaction(&end(&node, pending(&node, "1s", &["--json"])), 8, "notApplied");
        assert_eq!(expired["confirmation"]["decision"], "expired");
        assert_eq!((&expired["done"], &expired["rolledBack"]), (&Value::Null, &json!(true)));
        // Confirmed by another command.
        let child = pending(&node, "10m", &["--json"]);
        let undone = transaction(&node.hostgw(&["rollback", "--yes", "--json"]), 0, "success");
        assert_eq!(undone["rolledBack"], true);
        transaction(&end(&node, child), 8, "notApplied");
    });
}

/// A change that failed and was rolled back, and an incomplete rollback with its remaining commands.
#[test]
fn a_failed_change_prints_one_document() {
    each(|privilege| {
        let (node, _router) = node_with_router(privilege);
        node.sh("echo 1 >/proc/sys/net/ipv4/tcp_syn_retries");
        node.write("hostgw.yaml", &checked(&["{tcp: 10.244.1.9:8080, timeout: 2s}"]));
        let before = node.witness();
        let undone = transaction(&node.hostgw(&["apply", "--yes", "--json"]), 6, "rolledBack");
        assert_eq!((&undone["rolledBack"], &undone["verified"]), (&json!(true), &json!(true)));
        assert_eq!((&undone["done"], &undone["remainingCommands"]), (&Value::Null, &json!([])));
        node.assert_unchanged(&before, "an apply whose check failed");

        let node = super::node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9 proto 87");
        let child = pending(&node, "10m", &["--json"]);
        node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.7");
        let canceled = transaction(&node.hostgw(&["cancel", "--json"]), 7, "rollbackIncomplete");
        let applied = transaction(&end(&node, child), 7, "rollbackIncomplete");
        assert_eq!(applied["error"]["cause"]["outcome"], "notApplied", "{applied:#}");
        for document in [&canceled, &applied] {
            assert_eq!((&document["rolledBack"], &document["verified"]), (&json!(false), &json!(false)));
            let left: Vec<&str> =
                document["remainingCommands"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(left.iter().any(|command| command.starts_with("ip route")), "{document:#}");
        }
        // The next apply rolls back first, as far as possible, and reports it.
        node.sh("ip route del 10.244.1.0/24");
        let recovered = transaction(&node.hostgw(&["apply", "--yes", "--json"]), 0, "success");
        assert_eq!(recovered["recoveredTransactionId"], applied["transactionId"], "{recovered:#}");
        assert!(recovered["warnings"][0].as_str().unwrap().contains("interrupted"), "{recovered:#}");
    });
}

#[test]
fn a_validation_prints_one_document() {
    each(|privilege| {
        let node = node(privilege);
        node.write("wrong.yaml", &RECIPE.replace("10.244.1.0/24", "10.244.1.7/24"));
        node.write("twice.yaml", &cluster("", &[NODE_1, ("linux-1", NODE_2.1, NODE_2.2)]));
        let outcome =
            node.hostgw(&["validate", "--json", "wrong.yaml", "hostgw.yaml", "twice.yaml", "missing.yaml"]);
        let validated = document(&outcome, 3, "validate");
        let files: Vec<_> =
            validated["files"].as_array().unwrap().iter().map(|it| (&it["file"], &it["valid"])).collect();
        let (yes, no) = (json!(true), json!(false));
        assert_eq!(
            files,
            [
                (&json!("wrong.yaml"), &no),
                (&json!("hostgw.yaml"), &yes),
                (&json!("twice.yaml"), &no),
                (&json!("missing.yaml"), &no),
            ]
        );
        assert_eq!(outcome.stderr, "");
        let mut snapshots = Snapshots::default();
        snapshots.compare("json-validate", &outcome);
        snapshots.conclude();
        let valid = document(&node.hostgw(&["validate", "--json"]), 0, "validate");
        assert_eq!(
            valid["files"][0],
            json!({ "file": "hostgw.yaml", "valid": true, "nodes": 3, "findings": [] })
        );

        // The same error has the same form everywhere.
        let errors = &validated["files"][2]["error"]["errors"];
        assert_eq!(errors[0]["related"]["message"], "first used here", "{errors:#}");
        for arguments in [
            &["plan", "--json", "-f", "twice.yaml"][..],
            &["plan", "--all-nodes", "--json", "-f", "twice.yaml"],
            &["simulate", "--json", "-f", "twice.yaml"],
            &["diff", "--json", "hostgw.yaml", "twice.yaml"],
        ] {
            let error = document(&node.hostgw(arguments), 3, "error");
            assert_eq!(&error["error"]["errors"], errors, "{arguments:?}");
        }
    });
}

/// All other documents, on a node with various findings.
#[test]
fn every_document_matches_its_schema() {
    each(|privilege| {
        let node = node(privilege);
        let check = |arguments: &[&str], code: i32, schema: &str| {
            document(&node.hostgw(arguments), code, schema);
        };
        check(&["status", "--json"], 0, "status");
        check(&["status", "--history", "--json"], 0, "history");
        check(&["snapshot"], 0, "snapshot");
        node.hostgw_ok(&["plan", "--out", "p.json"]);
        let saved = serde_json::from_str(&node.sh("cat p.json")).unwrap();
        accept(&strict("saved-plan"), "plan --out", &saved);
        check(&["show", "--json", "p.json"], 0, "plan");
        check(&["show", "--json", "hostgw.yaml"], 3, "error");
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24; nft add set ip hostgw blocked '{ type ipv4_addr; }'");
        check(&["status", "--json"], 0, "status");
        check(&["status", "--history", "--json"], 0, "history");
        check(&["snapshot"], 0, "snapshot");
        check(&["plan", "--json"], 10, "plan");
        check(&["plan", "--all-nodes", "--json"], 0, "diff");
        node.write("new.yaml", &cluster("", &[NODE_1, NODE_2]));
        check(&["diff", "--json", "hostgw.yaml", "new.yaml"], 0, "diff");
        check(&["simulate", "--json", "-f", "new.yaml"], 0, "simulate");
        node.write("cni.conf", CNI);
        check(&["check-cni", "--json", "cni.conf"], 3, "check-cni");
        node.write("cni.conf", "no JSON");
        check(&["check-cni", "--json", "cni.conf"], 3, "error");
        check(&["doctor", "--json"], 11, "doctor");
        check(&["explain", "10.244.1.10", "--from", "10.244.0.10", "--json"], 0, "explain");
        check(&["explain", "10.244.1.10", "--json"], 3, "error");
        node.sh("nft delete set ip hostgw blocked");
        check(&["rehearse", "--json", "-f", "new.yaml"], 0, "rehearse");
        check(&["destroy", "--dry-run", "--json"], 0, "transaction");
        check(&["rollback", "--dry-run", "--json"], 0, "transaction");
        // A pending apply, and one that was not confirmed.
        let child = pending(&node, "10m", &["--json"]);
        check(&["status", "--json"], 0, "status");
        node.hostgw_ok(&["cancel"]);
        end(&node, child).expect(8);
        check(&["status", "--json"], 0, "status");
    });
}

const CNI: &str = r#"{"cniVersion": "0.3.0", "name": "l2", "type": "win-bridge", "policies": [
    {"Name": "EndpointPolicy", "Value": {"Type": "OutBoundNAT", "ExceptionList": ["10.9.0.0/16", "x"]}}]}"#;

/// A failure after the document was printed goes to standard error. There is never a second document.
#[test]
fn there_is_never_a_second_document() {
    each(|privilege| {
        let node = node(privilege);
        let outcome = node.hostgw(&["plan", "--json", "--out", "no/such/folder"]);
        assert_eq!(outcome.code, 1, "{outcome}");
        document(&outcome, 1, "error");
        let full = node.try_sh("\"$HOSTGW\" plan --json >/dev/full");
        assert_eq!(full.code, 1, "{full}");
        full.warns("cannot write to standard output");
    });
}
