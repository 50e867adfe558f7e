//! Every signal that ends a process by default, sent to hostgw in the middle of its work: the result is the one in the
//! table of the internals guide.

use std::{collections::BTreeMap, process::Child};

use super::{is_open, live, node, pending, settled, stopped::Stopped, supervisor};
use crate::support::namespace::{Namespace, Outcome, each};

/// The response to a signal according to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    RollsBack,
    Ignored,
    Ends,
}

/// The signals of the table by number, with some of the real-time ones.
fn table(node: &Namespace) -> BTreeMap<i32, Response> {
    const GUIDE: &str = include_str!("../../src/guide/internals.md");
    let mut signals = BTreeMap::new();
    for line in GUIDE.lines().filter(|line| line.starts_with("| SIG")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let response = match cells[2] {
            what if what.starts_with("rolled back") => Response::RollsBack,
            "ignored" => Response::Ignored,
            what if what.starts_with("the process ends") => Response::Ends,
            what => panic!("{what}"),
        };
        for name in cells[1].split(", ") {
            let numbers: Vec<i32> = match name.strip_prefix("SIG") {
                // Two that the C library reserves, and both ends of its range.
                None => vec![32, 34, 64],
                Some(name) => {
                    // kill(1) knows SIGIO by another name.
                    let name = if name == "IO" { "POLL" } else { name };
                    vec![node.sh(&format!("/bin/kill -l {name}")).trim().parse().expect("a number")]
                }
            };
            signals.extend(numbers.into_iter().map(|number| (number, response)));
        }
    }
    assert_eq!(signals.len(), 23 + 3, "{signals:?}");
    signals
}

fn send(node: &Namespace, signal: i32, process: u32) {
    node.sh(&format!("/bin/kill -{signal} {process}"));
}

/// A point at which an apply has made some of its changes.
fn point_midway(node: &Namespace) -> usize {
    for point in 10..200 {
        let stopped = Stopped::hostgw(node, &["apply", "--yes"], "apply", point);
        stopped.unwrap_or_else(|outcome| panic!("no middle: {outcome}")).kill();
        let is_middle = is_open(node) && !node.managed_routes().is_empty();
        node.hostgw_ok(&["rollback", "--yes"]);
        if is_middle {
            return point;
        }
    }
    panic!("no point midway");
}

#[test]
fn no_signal_leaves_an_apply_incomplete() {
    each(|privilege| {
        let node = node(privilege);
        let before = live(&node);
        let point = point_midway(&node);
        for (signal, response) in table(&node) {
            let name = format!("hostgw apply --yes, and signal {signal} midway");
            let stopped = Stopped::hostgw(&node, &["apply", "--yes"], &name, point);
            let stopped = stopped.unwrap_or_else(|outcome| panic!("{outcome}"));
            send(&node, signal, stopped.id());
            match response {
                Response::RollsBack => {
                    stopped.resume().expect(130).warns("Rolled back and verified");
                }
                Response::Ignored => {
                    stopped.resume().expect(0);
                    settled(&node);
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
                Response::Ends => {
                    let outcome = stopped.resume();
                    assert_eq!(outcome.code, 128 + signal, "{outcome}");
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
            }
            assert!(!is_open(&node), "signal {signal}");
            assert_eq!(live(&node), before, "signal {signal}");
        }
    });
}

fn end(node: &Namespace, child: Child, signal: i32) -> Outcome {
    let name = format!("hostgw apply --confirm, and signal {signal} while it is pending");
    Outcome::from_output(node, &name, child.wait_with_output().expect("our child"))
}

#[test]
fn no_signal_to_a_waiting_command_leaves_its_apply_incomplete() {
    each(|privilege| {
        let node = node(privilege);
        let before = live(&node);
        let hang_up = 1;
        for (signal, response) in table(&node) {
            let child = pending(&node, "10m", &[]);
            send(&node, signal, child.id());
            match response {
                Response::RollsBack if signal != hang_up => {
                    end(&node, child, signal).expect(130);
                }
                Response::Ignored => {
                    node.hostgw_ok(&["cancel"]);
                    end(&node, child, signal).expect(8);
                }
                Response::RollsBack | Response::Ends => {
                    end(&node, child, signal).expect(128 + signal);
                    node.hostgw_ok(&["status"]).says("Pending: apply");
                    node.hostgw_ok(&["cancel"]);
                }
            }
            assert!(!is_open(&node), "signal {signal}");
            assert_eq!(live(&node), before, "signal {signal}");
        }
    });
}

#[test]
fn no_signal_to_a_supervisor_leaves_its_apply_incomplete() {
    each(|privilege| {
        let node = node(privilege);
        let before = live(&node);
        for (signal, response) in table(&node) {
            let child = pending(&node, "10m", &[]);
            let supervisor = supervisor(&node).expect("a pending apply");
            send(&node, signal, supervisor.as_raw_nonzero().get().unsigned_abs());
            match response {
                Response::RollsBack => {
                    end(&node, child, signal).expect(8).warns("was canceled");
                }
                Response::Ignored => {
                    node.hostgw_ok(&["confirm"]);
                    end(&node, child, signal).expect(0);
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
                Response::Ends => {
                    node.hostgw_ok(&["cancel"]);
                    end(&node, child, signal).expect(8);
                }
            }
            assert!(!is_open(&node), "signal {signal}");
            assert_eq!(live(&node), before, "signal {signal}");
        }
    });
}

/// With a file size limit, writing a record would raise SIGXFSZ. The limit increases until the apply succeeds.
#[test]
fn a_file_size_limit_leaves_the_previous_state() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &super::large_cluster(300));
        let before = live(&node);
        let mut rolled_back = 0;
        for blocks in (1..).map(|step| step * 8) {
            let outcome = node
                .try_limited_sh(&format!("ulimit -f {blocks}; exec \"$HOSTGW\" apply --yes --node linux-0"));
            if outcome.code == 0 {
                break;
            }
            assert!([1, 6].contains(&outcome.code), "{blocks} blocks: {outcome}");
            rolled_back += usize::from(outcome.code == 6);
            assert!(!is_open(&node), "{blocks} blocks: {outcome}");
            assert_eq!(live(&node), before, "{blocks} blocks: {outcome}");
        }
        assert!(rolled_back > 0, "the limit was never reached after the first change");
    });
}
