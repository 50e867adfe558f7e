//! The scheduled job imports nodes, and maintains one pull request.

use serde_json::{Value, json};

use super::{HOSTILE, jobs::Project, with};
use crate::support::namespace::each;

/// The output of kubectl: names with pod CIDRs.
fn nodes(nodes: &[(&str, &str)]) -> String {
    let node = |(number, (name, pod_cidr)): (usize, &(&str, &str))| {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": pod_cidr, "podCIDRs": [pod_cidr] },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": format!("172.30.0.{}", 11 + number) }],
                "nodeInfo": { "operatingSystem": "linux" },
            },
        })
    };
    let items: Vec<Value> = nodes.iter().enumerate().map(node).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

#[test]
fn a_new_node_becomes_a_pull_request() {
    each(|privilege| {
        let project = Project::new(privilege, HOSTILE, &with("10.244.1.0/24"));
        let same = [("linux-1", "10.244.0.0/24"), ("linux-2", "10.244.1.0/24")];
        project.node.write("nodes.json", &nodes(&same));
        project.scheduled().expect(0);
        assert!(project.pulls().is_empty(), "{:?}", project.pulls());

        let added = [&same[..], &[("linux-10", "10.244.10.0/24")]].concat();
        project.node.write("nodes.json", &nodes(&added));
        project.scheduled().expect(0);
        let pulls = project.pulls();
        assert_eq!(pulls.len(), 1, "{pulls:?}");
        assert_eq!((&pulls[0]["head"], &pulls[0]["state"]), (&json!("hostgw-import"), &json!("open")));
        let body = pulls[0]["body"].as_str().unwrap();
        assert!(body.contains("\n    + linux-10: linux, 10.244.10.0/24, 172.30.0.13\n"), "{body}");
        assert!(
            body.contains("+ 10.244.10.0/24 via 10.244.10.1 dev eth0 proto 87"),
            "the routes on every node: {body}"
        );
        assert!(!body.contains("<!--"), "{body}");
        let committed = project.node.sh("git -c safe.directory='*' -C origin show hostgw-import:hostgw.yaml");
        assert!(committed.contains("linux-10"), "{committed}");

        // The pull request is still open, and another node joins.
        let more = [&added[..], &[("linux-11", "10.244.11.0/24")]].concat();
        project.node.write("nodes.json", &nodes(&more));
        project.scheduled().expect(0);
        let pulls = project.pulls();
        assert_eq!(pulls.len(), 1, "{pulls:?}");
        assert!(pulls[0]["body"].as_str().unwrap().contains("+ linux-11: "), "{pulls:?}");

        // Both left again.
        project.node.write("nodes.json", &nodes(&same));
        project.scheduled().expect(0);
        assert_eq!(project.pulls()[0]["state"], "closed");
        project.assert_nothing_injected();
    });
}

#[test]
fn a_list_that_cannot_be_imported_opens_nothing() {
    each(|privilege| {
        let project = Project::new(privilege, "main", &with("10.244.1.0/24"));
        project.node.write("nodes.json", &nodes(&[("linux-1", "10.244.0.0/24"), ("linux-2", "10.9.1.0/24")]));
        project
            .scheduled()
            .expect(3)
            .warns("pod CIDR 10.9.1.0/24 of node linux-2 is not inside the cluster prefix");
        project.node.write("nodes.json", "");
        project.scheduled().expect(3).warns("the list of nodes is empty");
        assert!(!project.file("calls").contains("gh "), "{}", project.file("calls"));
    });
}
