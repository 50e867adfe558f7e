//! The metrics and the probes of `hostgw agent`, over HTTP and in a file.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    agent::{node_with_bridge, three},
    agent_process::Agent,
};
use crate::support::namespace::{Namespace, Privilege, each};

const PORT: &[&str] = &["--metrics", "10087"];

/// Sends a request to a server in the namespace. Returns the answer, or nothing if there is none.
fn request(node: &Namespace, address: &str, method: &str, path: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{address}/10087 || exit 0
         printf '{method} {path} HTTP/1.1\\r\\nHost: node\\r\\n\\r\\n' >&3
         cat <&3"
    );
    let output = node.command("bash").args(["-c", &script]).output().expect("bash");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn get(node: &Namespace, path: &str) -> String {
    request(node, "127.0.0.1", "GET", path)
}

#[track_caller]
fn await_answer(agent: &Agent<'_>, node: &Namespace, path: &str, status: &str, text: &str) {
    agent.await_true(&format!("{path}: {status}, {text}"), || {
        let answer = get(node, path);
        answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text)
    });
}

fn start<'a>(node: &'a Namespace, options: &[&str]) -> Agent<'a> {
    let agent = Agent::spawn(node, options);
    agent.await_condition("inSync");
    agent
}

#[test]
fn metrics_and_probes_are_served_on_the_loopback_interface() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = start(&node, PORT);
        assert_eq!(request(&node, "172.30.0.11", "GET", "/metrics"), "", "only on 127.0.0.1");
        await_answer(&agent, &node, "/healthz", "200", "\r\n\r\nThe agent is working\n");
        await_answer(&agent, &node, "/readyz", "200", "\r\n\r\nIn sync: 3 routes on node linux-1\n");
        let metrics = get(&node, "/metrics");
        for line in [
            "content-type: text/plain; version=0.0.4; charset=utf-8\r",
            "# TYPE hostgw_agent_repairs_total counter",
            "hostgw_agent_ready 1",
            "hostgw_agent_condition{condition=\"inSync\"} 1",
            "hostgw_agent_routes 3",
            "hostgw_agent_applies_total 1",
            "hostgw_agent_repaired_objects_total{kind=\"route\"} 0",
        ] {
            assert!(metrics.split('\n').any(|served| served == line), "no {line} in\n{metrics}");
        }
        assert!(metrics.contains(",node=\"linux-1\",version="), "{metrics}");
        node.sh("ip route flush proto 87; nft flush ruleset");
        agent.await_event("repaired", 1);
        await_answer(
            &agent,
            &node,
            "/metrics",
            "200",
            "\nhostgw_agent_repaired_objects_total{kind=\"route\"} 3\n",
        );
        await_answer(
            &agent,
            &node,
            "/metrics",
            "200",
            "\nhostgw_agent_repaired_objects_total{kind=\"nat\"} 1\n",
        );
    });
}

#[test]
fn other_paths_and_methods_are_refused() {
    let node = node_with_bridge(Privilege::Root);
    let agent = start(&node, PORT);
    await_answer(&agent, &node, "/", "404", "see /metrics");
    await_answer(&agent, &node, "/metrics/", "404", "see /metrics");
    await_answer(&agent, &node, "/readyz?verbose", "200", "In sync");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = request(&node, "127.0.0.1", method, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
    let (head, get) = (request(&node, "127.0.0.1", "HEAD", "/healthz"), get(&node, "/healthz"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(get.ends_with("\r\n\r\nThe agent is working\n"), "{get}");
    let nonsense = request(&node, "127.0.0.1", "\\001\\377", "/metrics");
    assert!(nonsense.is_empty() || nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
    await_answer(&agent, &node, "/healthz", "200", "working");
}

#[test]
fn readiness_depends_on_the_node_and_not_on_the_file() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        node.sh("rm hostgw.yaml");
        let agent = Agent::spawn(&node, &["-f", "hostgw.yaml", "--metrics", ":10087"]);
        agent.await_event("refused", 1);
        await_answer(&agent, &node, "/readyz", "503", "Waiting: ");
        await_answer(&agent, &node, "/healthz", "200", "");
        node.write("hostgw.yaml", &three());
        await_answer(&agent, &node, "/readyz", "200", "In sync");
        node.sh("ip rule add to 10.244.1.0/24 blackhole");
        await_answer(&agent, &node, "/readyz", "503", "pod traffic to 1 node is lost or diverted");
        await_answer(&agent, &node, "/metrics", "200", "\nhostgw_agent_unreachable_nodes 1\n");
        await_answer(&agent, &node, "/metrics", "200", "\nhostgw_agent_ready 0\n");
        node.sh("ip rule del to 10.244.1.0/24 blackhole");
        await_answer(&agent, &node, "/readyz", "200", "In sync");
        node.sh("ip route replace 10.244.1.0/24 via 172.30.0.99 dev eth0 proto static");
        await_answer(&agent, &node, "/readyz", "503", "Degraded: 1 conflict\n");
        await_answer(&agent, &node, "/metrics", "200", "\nhostgw_agent_conflicts 1\n");
        node.sh("ip route del 10.244.1.0/24");
        await_answer(&agent, &node, "/readyz", "200", "In sync");
        node.write("hostgw.yaml", "clusterPrefix: nonsense\n");
        await_answer(&agent, &node, "/metrics", "200", "\nhostgw_agent_configuration_refused 1\n");
        await_answer(&agent, &node, "/readyz", "200", "Degraded: hostgw.yaml is invalid");
        await_answer(&agent, &node, "/currentz", "503", "Degraded: hostgw.yaml is invalid");
        await_answer(
            &agent,
            &node,
            "/metrics",
            "200",
            "\nhostgw_agent_failures_total{operation=\"apply\"} 2\n",
        );
        node.write("hostgw.yaml", &three());
        await_answer(&agent, &node, "/currentz", "200", "\r\n\r\nIn sync");
        node.write("other.yaml", &three().replace("nodes:", "routes: {metric: 5}\nnodes:"));
        node.hostgw_ok(&["apply", "--yes", "-f", "other.yaml"]);
        await_answer(&agent, &node, "/currentz", "503", "another configuration is. In sync");
        await_answer(&agent, &node, "/readyz", "200", "In sync");
        node.hostgw_ok(&["destroy", "--yes"]);
        await_answer(&agent, &node, "/readyz", "503", "Suspended");
        await_answer(&agent, &node, "/metrics", "200", "\nhostgw_agent_pinned{reason=\"destroy\"} 1\n");
        agent.signal(Signal::HUP);
        await_answer(&agent, &node, "/readyz", "200", "In sync");
        assert_eq!(agent.stop(), Some(0));
    });
}

#[test]
fn an_ipv6_address_can_be_listened_on() {
    let node = node_with_bridge(Privilege::Root);
    let agent = start(&node, &["--metrics", "[::1]:10087"]);
    assert!(request(&node, "::1", "GET", "/healthz").starts_with("HTTP/1.1 200 "));
    assert_eq!(get(&node, "/healthz"), "", "only on ::1");
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn an_unusable_address_or_file_is_refused_before_anything_is_applied() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = |options: &[&str]| node.hostgw(&[&["agent"], options].concat());
        agent(&["--metrics", "192.0.2.1:10087"]).expect(1).warns("this node does not have that address");
        agent(&["--metrics", "localhost:10087"]).expect(64).warns("such as 127.0.0.1:10087");
        agent(&["--metrics-file", "missing/hostgw.prom"]).expect(1).warns("missing is not a directory");
        agent(&["--metrics-file", "hostgw.txt"]).expect(64).warns("must end in .prom");
        assert!(node.managed_routes().is_empty());
        let other = start(&node, PORT);
        agent(PORT)
            .expect(1)
            .warns("cannot serve metrics on 127.0.0.1:10087")
            .warns("another program, or another agent, is listening there");
        assert_eq!(other.stop(), Some(0));
    });
}

#[test]
fn slow_clients_do_not_keep_others_from_an_answer() {
    let node = node_with_bridge(Privilege::Root);
    let agent = start(&node, PORT);
    let script =
        "for i in $(seq 16); do exec {fd}<>/dev/tcp/127.0.0.1/10087; done; echo open; exec sleep 300";
    let mut slow = node.command("bash").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("bash");
    let mut line = String::new();
    BufReader::new(slow.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line, "open\n");
    let begun = Instant::now();
    await_answer(&agent, &node, "/healthz", "200", "working");
    // The slow clients were served first, and have used up their 10 seconds.
    let took = begun.elapsed().as_secs();
    assert!((5..60).contains(&took), "{took} s");
    slow.kill().expect("our child");
    slow.wait().expect("our child");
}

#[test]
fn the_server_sleeps_until_a_request_arrives() {
    let node = node_with_bridge(Privilege::Root);
    let agent = start(&node, PORT);
    assert!(get(&node, "/metrics").starts_with("HTTP/1.1 200 "));
    let tasks = format!("/proc/{}/task", agent.process().as_raw_nonzero());
    let task = fs::read_dir(tasks).expect("it runs").map(|task| task.expect("a task").path());
    let name = |path: &std::path::Path| fs::read_to_string(path.join("comm")).expect("a name");
    let task = task.into_iter().find(|path| name(path) == "metrics\n").expect("the thread of the server");
    let wakeups = || {
        let status = fs::read_to_string(task.join("status")).expect("it runs");
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).map(ToOwned::to_owned)
    };
    let begun = wakeups();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(wakeups(), begun);
}

#[test]
fn the_file_is_replaced_atomically_and_readable_for_all_users() {
    each(|privilege| {
        let node = node_with_bridge(privilege);
        let agent = start(&node, &["--metrics-file", "hostgw.prom"]);
        let path = node.folder().join("hostgw.prom");
        let read = || {
            let text = fs::read_to_string(&path).expect("it is there all the time");
            let families = text.matches("# TYPE ").count();
            assert!(text.ends_with('\n') && families >= 19, "it is incomplete:\n{text}");
            text
        };
        agent.await_true("the condition", || {
            read().contains("\nhostgw_agent_condition{condition=\"inSync\"} 1\n")
        });
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o644);
        for round in 1..=10 {
            node.sh("ip route del 10.244.1.0/24; ip route del 10.244.2.0/24");
            let repaired = format!("\nhostgw_agent_repaired_objects_total{{kind=\"route\"}} {}\n", round * 2);
            agent.await_true("a repair", || read().contains(&repaired));
            // A reload prevents a contest, which would delay the repair.
            if round % 4 == 0 {
                agent.signal(Signal::HUP);
                node.write("hostgw.yaml", &format!("{}# {round}\n", three()));
                agent.await_true("the new file", || read().contains("inSync\"} 1"));
            }
        }
        let names: Vec<_> =
            fs::read_dir(node.folder()).expect("a folder").map(|it| it.expect("it").file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");
        assert_eq!(agent.stop(), Some(0));
        read();
    });
}

#[test]
fn a_file_that_cannot_be_written_is_reported_once() {
    let node = node_with_bridge(Privilege::Root);
    node.sh("mkdir metrics");
    let agent = start(&node, &["--metrics-file", "metrics/hostgw.prom"]);
    node.sh("rm -r metrics");
    for round in 1..=2 {
        node.sh("ip route flush proto 87");
        agent.await_event("repaired", round);
    }
    let failure = agent.await_event("taskFailed", 1);
    assert!(failure["message"].to_string().contains("Cannot write metrics/hostgw.prom"), "{failure}");
    assert_eq!(agent.count("taskFailed"), 1);
    node.sh("mkdir metrics");
    node.sh("ip route flush proto 87");
    agent.await_true("the file", || node.folder().join("metrics/hostgw.prom").exists());
}
