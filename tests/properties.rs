//! Properties that hold for every plan and every transaction.

use std::{collections::BTreeSet, net::Ipv4Addr};

use hostgw::{
    apply::{self, BaselineCheck, CheckResult, Failure, Interrupt, ProbeMode, Request},
    config::{self, Document, Format},
    error::{Error, Kind},
    model::{Check, CheckTarget, Cluster, SysctlKey},
    plan::{self, Desired, ForeignPolicy, OriginalSysctls, Scope, TransactionProgress, plan},
    record::{Command, TransactionMeta},
    state::{Route, State},
};
use proptest::prelude::*;

use crate::support::{directory::Directory, model::ModelNode};
use hostgw::text::Untrusted;

/// Generates a cluster of a few nodes, as a configuration would describe it.
fn cluster() -> impl Strategy<Value = Cluster> {
    let nodes = prop::collection::btree_set(0_u8..40, 1..8);
    (nodes, any::<bool>(), any::<bool>(), any::<bool>(), 0_u32..3, prop::option::of(0_u8..3), any::<[bool; 2]>())
        .prop_map(|(nodes, node_address, masquerade, pods, metric, rp_filter, [own_source, source_nat])| {
            let mut text = String::from("clusterPrefix: 10.244.0.0/16\negressInterface: eth0\n");
            if node_address {
                text += "nextHop: node-address\n";
            }
            let source = if pods { "pods" } else { "any" };
            let to = if source_nat { "node-address" } else { "interface" };
            text += &format!(
                "nat: {{masquerade: {masquerade}, source: {source}, to: {to}, exclude: [192.168.0.0/16]}}\n"
            );
            let source = if own_source { "node-address" } else { "auto" };
            text += &format!("routes: {{metric: {metric}, source: {source}}}\n");
            if let Some(value) = rp_filter {
                text += &format!("sysctls: {{net.ipv4.conf.all.rp_filter: {value}}}\n");
            }
            text += "nodes:\n";
            for node in nodes {
                let os = if node % 5 == 4 { "windows, egressInterface: Ethernet" } else { "linux" };
                let address = Ipv4Addr::new(172, 30, 0, node + 1);
                text += &format!(
                    "  - {{name: n{node}, os: {os}, podCIDR: 10.244.{node}.0/24, address: {address}{}}}\n",
                    if node % 7 == 3 { ", mtu: 9000" } else { "" }
                );
            }
            let document = Document::new("generated.yaml", text, Format::Yaml);
            config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
        })
}

fn key(text: &str) -> SysctlKey {
    text.parse().unwrap()
}

/// Returns the sysctls of a node with one interface.
fn sysctls(values: &[u8; 5]) -> std::collections::BTreeMap<SysctlKey, Untrusted> {
    let names = [
        "net.ipv4.conf.all.accept_redirects",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.default.forwarding",
        "net.ipv4.conf.eth0.forwarding",
        "net.ipv4.ip_forward",
    ];
    names.iter().zip(values).map(|(name, value)| (key(name), value.to_string().into())).collect()
}

/// Generates the state of a node after an earlier cluster, drift and foreign changes.
fn node() -> impl Strategy<Value = State> {
    let stale = prop::collection::vec((0_u8..40, 1_u8..4, any::<bool>(), any::<bool>()), 0..6);
    (cluster(), stale, any::<[bool; 5]>(), any::<bool>()).prop_map(|(cluster, stale, values, fresh)| {
        let linux = cluster.nodes.iter().position(|node| node.os == hostgw::model::OperatingSystem::Linux);
        let mut state = linux
            .filter(|_| !fresh)
            .and_then(|index| plan::desired(&cluster, index, &OriginalSysctls::default()).ok())
            .map(|desired| desired.state)
            .unwrap_or_default();
        state.sysctls = sysctls(&values.map(u8::from));
        let mut routes = state.routes.to_vec();
        for (third, last, foreign, other_table) in stale {
            let mut route = sample_route(third, last);
            if foreign {
                route.protocol = 4;
            }
            if other_table {
                route.table = 100;
            }
            if !routes.iter().any(|existing| existing.key() == route.key()) {
                routes.push(route);
            }
        }
        routes.sort_by_key(Route::key);
        state.routes = routes.into();
        state
    })
}

fn sample_route(third: u8, last: u8) -> Route {
    serde_json::from_value(serde_json::json!({
        "destination": format!("10.244.{third}.0/24"), "table": 254, "metric": 0, "protocol": 87,
        "scope": "global", "type": "unicast",
        "nextHop": { "gateway": format!("10.244.{third}.{last}"), "device": "eth0" },
    }))
    .unwrap()
}

/// Applies `desired` to `node` as `hostgw apply --adopt` does.
fn run(
    node: &mut ModelNode,
    directory: &Directory,
    desired: &Desired,
    command: Command,
) -> Result<(), Failure> {
    run_checked(node, directory, desired, command, &[])
}

/// Same as [`run`], with checks.
fn run_checked(
    node: &mut ModelNode,
    directory: &Directory,
    desired: &Desired,
    command: Command,
    checks: &[BaselineCheck],
) -> Result<(), Failure> {
    use hostgw::plan::Observe;
    let scope = Scope::of(&desired.state, desired.prefixes.clone());
    let observed = node.observe(&scope).unwrap().state;
    let plan = plan(&desired.state, &observed, ForeignPolicy::Adopt);
    let _lock = directory.lock().unwrap();
    let metadata = TransactionMeta::new(command, 0);
    let request = Request {
        metadata: &metadata,
        configuration: None,
        desired: &desired.state,
        is_adapted: false,
        scope: &scope,
        plan: &plan,
        observed: &observed,
        released: &desired.released,
        policy: ForeignPolicy::Adopt,
        confirm_within: None,
        checks,
        paths: None,
        is_repair: false,
        withheld: None,
    };
    apply::run(node, &directory.0, &request, &Interrupt::new()).map(|_| ())
}

/// Returns checks of `count` ports.
fn checks(count: usize) -> Vec<Check> {
    let check = |port| Check {
        target: CheckTarget::Tcp((Ipv4Addr::LOCALHOST, port).into()),
        timeout: Check::DEFAULT_TIMEOUT,
    };
    (1..).take(count).map(check).collect()
}

/// Returns the results of checks: passed, or failed with a reason.
fn answers(which: impl IntoIterator<Item = bool>) -> Vec<CheckResult> {
    which.into_iter().map(|answers| if answers { Ok(()) } else { Err("simulated".to_owned()) }).collect()
}

/// Returns the desired state of the first Linux node, or `None` if there is nothing to test.
fn wanted(cluster: &Cluster, saved: &OriginalSysctls) -> Option<Desired> {
    (0..cluster.nodes.len()).find_map(|index| plan::desired(cluster, index, saved).ok())
}

fn foreign(state: &State, except: &BTreeSet<hostgw::state::RouteKey>) -> Vec<Route> {
    state.routes.iter().filter(|route| !route.is_owned() && !except.contains(&route.key())).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// After an apply the plan is empty, and no foreign routes were changed except for conflicts.
    #[test]
    fn plan_after_apply_is_empty(cluster in cluster(), before in node()) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let directory = Directory::new();
        let mut node = ModelNode::new(before.clone());
        run(&mut node, &directory, &desired, Command::Apply).unwrap();
        let after = plan(&desired.state, &node.state, ForeignPolicy::Respect);
        prop_assert!(after.is_empty(), "{after:?}");
        let needed: BTreeSet<_> = desired.state.routes.iter().map(Route::key).collect();
        prop_assert_eq!(foreign(&before, &needed), foreign(&node.state, &needed));
    }

    /// Without `--adopt`, no change involves foreign routes.
    #[test]
    fn foreign_routes_are_never_changed(cluster in cluster(), before in node()) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let plan = plan(&desired.state, &before, ForeignPolicy::Respect);
        let mut node = ModelNode::new(before.clone());
        use hostgw::apply::{Backend, Order};
        node.commit(&plan.changes, Order::Forward, &Interrupt::new()).unwrap();
        prop_assert_eq!(foreign(&before, &BTreeSet::new()), foreign(&node.state, &BTreeSet::new()));
    }

    /// Undoing a committed apply restores the previous state, including adopted routes.
    #[test]
    fn rollback_restores(cluster in cluster(), before in node()) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let directory = Directory::new();
        let mut node = ModelNode::new(before.clone());
        run(&mut node, &directory, &desired, Command::Apply).unwrap();
        if let Some(record) = directory.0.last_committed().unwrap() {
            directory.0.reopen(&record).unwrap();
            apply::restore(&mut node, &directory.0, &record, ForeignPolicy::Respect, TransactionProgress::Verified, None).unwrap();
        }
        prop_assert_eq!(before, node.state);
        prop_assert!(directory.0.saved().unwrap().0.is_empty());
    }

    /// Whichever exchange fails, the previous state is restored and the failure says so.
    #[test]
    fn a_failure_at_any_exchange_restores(cluster in cluster(), before in node(), at in 0_usize..20) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let directory = Directory::new();
        let mut node = ModelNode { fail_at: Some(at), ..ModelNode::new(before.clone()) };
        match run(&mut node, &directory, &desired, Command::Apply) {
            Ok(()) => prop_assert!(node.exchanges <= at),
            Err(Failure::RolledBack { cause }) => {
                prop_assert_eq!(cause.kind, Kind::RolledBack);
                prop_assert_eq!(before, node.state);
                prop_assert!(directory.0.open_journal().unwrap().is_none());
                prop_assert!(directory.0.saved().unwrap().0.is_empty());
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    /// A check that passed before the change and fails after it causes a rollback. Nothing else does.
    #[test]
    fn checks_that_stop_passing_cause_a_rollback(
        cluster in cluster(),
        before in node(),
        pattern in prop::collection::vec(any::<(bool, bool)>(), 0..8),
    ) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let directory = Directory::new();
        let mut node = ModelNode::new(before.clone());
        let checks = checks(pattern.len());
        let (passing, failing): (Vec<usize>, Vec<usize>) = (0..pattern.len()).partition(|at| pattern[*at].0);
        node.answers.push_back(Ok(answers(pattern.iter().map(|(before, _)| *before))));
        node.answers.push_back(Ok(answers(passing.iter().map(|at| pattern[*at].1))));
        let baseline = apply::run_baseline(&mut node, &checks, &Interrupt::new()).unwrap();
        let failed: Vec<_> = failing.iter().map(|at| (checks[*at], "simulated".to_owned())).collect();
        prop_assert_eq!(&baseline.failed, &failed);
        let lost: Vec<Check> = passing.iter().filter(|at| !pattern[**at].1).map(|at| checks[*at]).collect();
        match run_checked(&mut node, &directory, &desired, Command::Apply, &baseline.passed) {
            Ok(()) => {
                prop_assert!(lost.is_empty());
                prop_assert!(plan(&desired.state, &node.state, ForeignPolicy::Adopt).is_empty());
                prop_assert!(directory.0.last_committed().unwrap().is_some());
            }
            Err(Failure::RolledBack { cause }) => {
                prop_assert!(!lost.is_empty());
                prop_assert_eq!(cause.kind, Kind::RolledBack);
                let details: Vec<String> = lost.iter().map(|check| format!("{check}: simulated")).collect();
                match &lost[..] {
                    [one] => prop_assert_eq!(
                        cause.message,
                        format!("check {} passed before the change but failed after it: simulated", one)
                    ),
                    _ => prop_assert_eq!(cause.details, details),
                }
                prop_assert_eq!(&before, &node.state);
                prop_assert!(directory.0.last_committed().unwrap().is_none());
                prop_assert!(directory.0.saved().unwrap().0.is_empty());
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        prop_assert!(directory.0.open_journal().unwrap().is_none());
        let mut probed = Vec::new();
        if !checks.is_empty() {
            probed.push((checks.clone(), ProbeMode::Once));
        }
        if !passing.is_empty() {
            probed.push((passing.iter().map(|at| checks[*at]).collect(), ProbeMode::Retry));
        }
        prop_assert_eq!(node.probed, probed);
    }

    /// If the rollback fails as well, the error says so, the journal remains, and a later rollback completes.
    #[test]
    fn a_failed_rollback_can_be_completed_later(cluster in cluster(), before in node(), from in 1_usize..20) {
        let Some(desired) = wanted(&cluster, &OriginalSysctls::default()) else { return Ok(()) };
        let directory = Directory::new();
        let mut node = ModelNode { fail_from: Some(from), ..ModelNode::new(before.clone()) };
        match run(&mut node, &directory, &desired, Command::Apply) {
            Ok(()) => return Ok(()),
            Err(Failure::Incomplete(incomplete)) => prop_assert!(!incomplete.left.is_empty()),
            Err(Failure::RolledBack { .. }) => prop_assert_eq!(&before, &node.state),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        node.fail_from = None;
        apply::recover(&mut node, &directory.0).unwrap();
        prop_assert_eq!(before, node.state);
        prop_assert!(directory.0.open_journal().unwrap().is_none());
    }

    /// Any number of applies, followed by a destroy, restores the state from before hostgw, including sysctls.
    #[test]
    fn destroy_restores_the_original_state(first in cluster(), second in cluster(), mut before in node()) {
        before.routes = before.routes.iter().filter(|route| !route.is_owned()).cloned().collect();
        before.nat = Default::default();
        let directory = Directory::new();
        let mut node = ModelNode::new(before.clone());
        let mut needed = BTreeSet::new();
        for cluster in [&first, &second] {
            let saved = directory.0.saved().unwrap();
            let Some(desired) = wanted(cluster, &saved) else { continue };
            needed.extend(desired.state.routes.iter().map(Route::key));
            run(&mut node, &directory, &desired, Command::Apply).unwrap();
        }
        let nothing = Desired::nothing(&directory.0.saved().unwrap());
        run(&mut node, &directory, &nothing, Command::Destroy).unwrap();
        prop_assert_eq!(&before.sysctls, &node.state.sysctls);
        prop_assert!(node.state.routes.iter().all(|route| !route.is_owned()));
        prop_assert_eq!(foreign(&before, &needed), foreign(&node.state, &needed));
        prop_assert!(node.state.nat.is_empty());
        prop_assert!(directory.0.saved().unwrap().0.is_empty());
    }
}

/// Returns an empty node, and the desired state of the recipe on it.
fn fresh() -> (Directory, ModelNode, Desired) {
    let document =
        Document::new("recipe.yaml", include_str!("../examples/recipe.yaml").to_owned(), Format::Yaml);
    let cluster = config::load(&document).unwrap();
    let state = State { sysctls: sysctls(&[0; 5]), ..State::default() };
    (Directory::new(), ModelNode::new(state), wanted(&cluster, &OriginalSysctls::default()).unwrap())
}

fn cannot_run() -> Error {
    Error::unexpected("cannot run the checks: simulated failure")
}

/// A change is not committed if its checks cannot run first.
#[test]
fn checks_that_cannot_run_before_prevent_the_change() {
    let (_, mut node, _) = fresh();
    node.answers.push_back(Err(cannot_run()));
    let error = apply::run_baseline(&mut node, &checks(2), &Interrupt::new()).unwrap_err();
    assert_eq!(error, cannot_run());
}

#[test]
fn checks_that_cannot_run_after_cause_a_rollback() {
    let (directory, mut node, desired) = fresh();
    let before = node.state.clone();
    node.answers.extend([Ok(answers([true])), Err(cannot_run())]);
    let baseline = apply::run_baseline(&mut node, &checks(1), &Interrupt::new()).unwrap();
    let failure = run_checked(&mut node, &directory, &desired, Command::Apply, &baseline.passed).unwrap_err();
    let Failure::RolledBack { cause } = failure else { panic!("{failure:?}") };
    assert_eq!(cause, Error { kind: Kind::RolledBack, ..cannot_run() });
    assert_eq!(before, node.state);
    assert!(directory.0.open_journal().unwrap().is_none());
}

#[test]
fn a_signal_during_checks_is_not_a_failure() {
    let (directory, mut node, desired) = fresh();
    let before = node.state.clone();
    let raised = Interrupt::new();
    raised.raise();
    let error = apply::run_baseline(&mut node, &checks(1), &raised).unwrap_err();
    assert_eq!(error, Error::new(Kind::Interrupted, "interrupted; nothing was changed"));
    node.answers.extend([Ok(answers([true])), Err(Error::new(Kind::Interrupted, "interrupted"))]);
    let baseline = apply::run_baseline(&mut node, &checks(1), &Interrupt::new()).unwrap();
    let failure = run_checked(&mut node, &directory, &desired, Command::Apply, &baseline.passed).unwrap_err();
    let Failure::RolledBack { cause } = failure else { panic!("{failure:?}") };
    assert_eq!(cause.kind, Kind::Interrupted);
    assert_eq!(before, node.state);
}
