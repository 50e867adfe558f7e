//! The metrics of the agent, and the answers to its health probes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::{
    agent::{AgentEvent, LONGEST_INTERVAL},
    clock::now as wall_clock,
    error::Error,
    model::Check,
    record::{AgentCondition, AgentReport, PinReason},
    state::ObjectKind,
};

/// After this time without a heartbeat, the agent counts as stuck: the longest time until it wakes up, and the longest wait,
/// which is for checks. They run concurrently.
const MAX_SILENCE: Duration = Check::MAX_TIMEOUT.saturating_add(LONGEST_INTERVAL);

/// The upper bounds of the histogram of repairs, in seconds. A repair should end within a second.
const BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Every condition, with its name in labels, which is the one in JSON.
const CONDITIONS: [(AgentCondition, &str); 6] = [
    (AgentCondition::Starting, "starting"),
    (AgentCondition::InSync, "inSync"),
    (AgentCondition::Waiting, "waiting"),
    (AgentCondition::Yielding, "yielding"),
    (AgentCondition::Degraded, "degraded"),
    (AgentCondition::Suspended, "suspended"),
];

/// Every reason of a pin, with its name in labels, which is the one in JSON.
const PIN_REASONS: [(PinReason, &str); 4] = [
    (PinReason::LastGood, "lastGood"),
    (PinReason::Apply, "apply"),
    (PinReason::Rollback, "rollback"),
    (PinReason::Destroy, "destroy"),
];

/// The kinds of objects on a Linux node, with their names in labels.
const KINDS: [(ObjectKind, &str); 3] =
    [(ObjectKind::Route, "route"), (ObjectKind::Nat, "nat"), (ObjectKind::Sysctl, "sysctl")];

const APPLY: &str = "apply";
const REPAIR: &str = "repair";

/// The answers to the probes.
#[derive(Debug)]
struct Health {
    /// The last heartbeat of the agent.
    beat: Instant,
    /// Whether the node matches the configuration in effect, and all pod paths work.
    is_ready: bool,
    /// Whether the configuration in effect is the content of the file.
    is_current: bool,
    /// The condition, in one line.
    status: String,
}

/// The metrics of the agent, which can be read while it updates them.
pub(super) struct AgentMetrics {
    registry: Registry,
    health: Mutex<Health>,
    info: IntGaugeVec,
    start_time: IntGauge,
    ready: IntGauge,
    condition: IntGaugeVec,
    pinned: IntGaugeVec,
    refused: IntGauge,
    comparisons: IntCounter,
    last_comparison: IntGauge,
    last_verification: IntGauge,
    applies: IntCounter,
    repairs: IntCounter,
    repaired_objects: IntCounterVec,
    repair_duration: Histogram,
    last_repair: IntGauge,
    failures: IntCounterVec,
    routes: IntGauge,
    contested: IntGauge,
    conflicts: IntGauge,
    unreachable: IntGauge,
}

impl AgentMetrics {
    /// # Errors
    /// Returns an error if two metrics have the same name.
    pub(super) fn new() -> Result<Self, Error> {
        Self::register().map_err(|error| Error::unexpected(format!("cannot create the metrics: {error}")))
    }

    fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help)?);
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let metrics = Self {
            info: gauges(
                "hostgw_agent_info",
                "Always 1; the labels are the version of hostgw, the node, and the SHA-256 hash of the configuration in effect.",
                &["version", "node", "config_hash"],
            )?,
            start_time: gauge("hostgw_agent_start_time_seconds", "When the agent started, in Unix time.")?,
            ready: gauge("hostgw_agent_ready", "1 if /readyz succeeds.")?,
            condition: gauges(
                "hostgw_agent_condition",
                "The condition of the node: 1 for the current one.",
                &["condition"],
            )?,
            pinned: gauges(
                "hostgw_agent_pinned",
                "Why the agent does not follow the file: 1 for the current reason, if any.",
                &["reason"],
            )?,
            refused: gauge(
                "hostgw_agent_configuration_refused",
                "1 if the file is invalid, was refused, or does not fit the node yet.",
            )?,
            comparisons: counter(
                "hostgw_agent_comparisons_total",
                "Comparisons of the node with the configuration in effect.",
            )?,
            last_comparison: gauge(
                "hostgw_agent_last_comparison_timestamp_seconds",
                "When the agent last compared the node with the configuration, in Unix time; 0 before the first time.",
            )?,
            last_verification: gauge(
                "hostgw_agent_last_verification_timestamp_seconds",
                "When the node last matched the configuration in effect, except for conflicts and contested objects, in Unix time; 0 if never.",
            )?,
            applies: counter(
                "hostgw_agent_applies_total",
                "Applies of a new configuration that changed the node.",
            )?,
            repairs: counter("hostgw_agent_repairs_total", "Repairs.")?,
            repaired_objects: counters(
                "hostgw_agent_repaired_objects_total",
                "Objects that repairs added, updated or removed.",
                &["kind"],
            )?,
            repair_duration: registered(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "hostgw_agent_repair_duration_seconds",
                        "The time from the first notification of a change to the end of the repair.",
                    )
                    .buckets(BUCKETS.to_vec()),
                )?,
            )?,
            last_repair: gauge(
                "hostgw_agent_last_repair_timestamp_seconds",
                "When the last repair took place, in Unix time; 0 if never.",
            )?,
            failures: counters(
                "hostgw_agent_failures_total",
                "Refused or failed applies, and failed repairs; the same failure in a row counts once.",
                &["operation"],
            )?,
            routes: gauge(
                "hostgw_agent_routes",
                "Managed routes that the configuration in effect asks for.",
            )?,
            contested: gauge("hostgw_agent_contested_objects", "Objects that other programs keep changing.")?,
            conflicts: gauge("hostgw_agent_conflicts", "Foreign objects in place of managed ones.")?,
            unreachable: gauge(
                "hostgw_agent_unreachable_nodes",
                "Nodes to which pod traffic is lost or diverted.",
            )?,
            health: Mutex::new(Health {
                beat: Instant::now(),
                is_ready: false,
                is_current: false,
                status: "Starting".to_owned(),
            }),
            registry,
        };
        // Rates need series that exist from the start.
        metrics.set_info("", "");
        for (_, kind) in KINDS {
            metrics.repaired_objects.get_metric_with_label_values(&[kind])?;
        }
        for operation in [APPLY, REPAIR] {
            metrics.failures.get_metric_with_label_values(&[operation])?;
        }
        one_hot(&metrics.condition, &CONDITIONS, Some(AgentCondition::Starting));
        one_hot(&metrics.pinned, &PIN_REASONS, None);
        Ok(metrics)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_info(&self, node: &str, config_hash: &str) {
        self.info.reset();
        set(&self.info, &[env!("CARGO_PKG_VERSION"), node, config_hash], true);
    }

    /// Counts an event.
    pub(super) fn event(&self, event: &AgentEvent<'_>) {
        match event {
            AgentEvent::Started(report) => self.start_time.set(whole(report.since)),
            AgentEvent::Applied { totals: Some(_), .. } => self.applies.inc(),
            AgentEvent::Repaired { changes, took, .. } => {
                self.repairs.inc();
                self.repair_duration.observe(took.as_secs_f64());
                self.last_repair.set(whole(wall_clock()));
                for (kind, name) in KINDS {
                    let count = changes.iter().filter(|change| change.kind() == kind).count();
                    add(&self.repaired_objects, name, count);
                }
            }
            AgentEvent::Refused { .. } => add(&self.failures, APPLY, 1),
            AgentEvent::RepairFailed { .. } => add(&self.failures, REPAIR, 1),
            _ => {}
        }
    }

    /// Updates the metrics from a report, which `status` describes in one line.
    pub(super) fn report(&self, report: &AgentReport, status: String) {
        let text = |value: &Option<crate::text::Untrusted>| {
            value.as_ref().map_or_else(String::new, ToString::to_string)
        };
        self.set_info(&text(&report.node), &text(&report.config_hash));
        one_hot(&self.condition, &CONDITIONS, Some(report.condition));
        one_hot(&self.pinned, &PIN_REASONS, report.pin.as_ref().map(|pin| pin.reason));
        self.refused.set(report.refused.into());
        self.routes.set(size(report.routes));
        self.contested.set(size(report.contested.len()));
        self.conflicts.set(size(report.conflicts.len()));
        self.unreachable.set(size(report.unreachable.len()));
        let mut health = self.health();
        health.is_ready = report.verified && report.unreachable.is_empty();
        health.is_current = !report.refused && report.pin.is_none();
        health.status = status;
    }

    /// Counts a comparison of the node with the configuration.
    pub(super) fn looked(&self) {
        self.comparisons.inc();
        self.last_comparison.set(whole(wall_clock()));
    }

    /// Records that the node matches the configuration.
    pub(super) fn verified(&self) {
        self.last_verification.set(whole(wall_clock()));
    }

    /// Records a heartbeat.
    pub(super) fn beat(&self) {
        self.health().beat = Instant::now();
    }

    /// Returns whether the agent is working at `now`, and one line about it.
    pub(super) fn is_healthy(&self, now: Instant) -> (bool, String) {
        let silence = now.saturating_duration_since(self.health().beat);
        if silence > MAX_SILENCE {
            (false, format!("The agent has not responded for {} s", silence.as_secs()))
        } else {
            (true, "The agent is working".to_owned())
        }
    }

    /// Returns whether the node is ready for pods at `now`, and one line about it.
    pub(super) fn is_ready(&self, now: Instant) -> (bool, String) {
        match self.is_healthy(now) {
            (true, _) => {
                let health = self.health();
                (health.is_ready, health.status.clone())
            }
            unhealthy => unhealthy,
        }
    }

    /// Returns whether the node is ready for pods at `now` with the content of the file, and one line about it.
    pub(super) fn is_current(&self, now: Instant) -> (bool, String) {
        match self.is_ready(now) {
            (true, line) if !self.health().is_current => {
                (false, format!("The file is not in effect; another configuration is. {line}"))
            }
            answer => answer,
        }
    }

    /// Returns all metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be expressed in it.
    pub(super) fn text(&self) -> Result<String, Error> {
        self.ready.set(self.is_ready(Instant::now()).0.into());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| Error::unexpected(format!("cannot write the metrics: {error}")))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn set(gauges: &IntGaugeVec, labels: &[&str], value: bool) {
    if let Ok(gauge) = gauges.get_metric_with_label_values(labels) {
        gauge.set(value.into());
    }
}

/// Sets the series of `current` to 1, and all others to 0.
fn one_hot<T: Copy + PartialEq>(gauges: &IntGaugeVec, all: &[(T, &str)], current: Option<T>) {
    for (each, name) in all {
        set(gauges, &[name], Some(*each) == current);
    }
}

fn add(counters: &IntCounterVec, label: &str, count: usize) {
    if let Ok(counter) = counters.get_metric_with_label_values(&[label]) {
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

fn size(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AgentConflict, Contested, Pin};

    /// A row of the table in the guide: name, type, labels, meaning.
    type MetricRow = [String; 4];

    fn guide() -> Vec<MetricRow> {
        const GUIDE: &str = include_str!("../guide/node-agent.md");
        let rows = GUIDE.lines().filter(|line| line.starts_with("| `hostgw_agent_"));
        let mut rows: Vec<MetricRow> = rows
            .map(|row| {
                let cells: Vec<String> =
                    row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
                cells.try_into().expect("four columns")
            })
            .collect();
        rows.sort();
        rows
    }

    /// Returns the same about the metrics in their text format.
    fn served(text: &str) -> Vec<MetricRow> {
        let mut rows = Vec::new();
        for part in text.split("# HELP ").filter(|part| !part.is_empty()) {
            let (help, rest) = part.split_once('\n').expect("lines");
            let (name, meaning) = help.split_once(' ').expect("a text");
            let (kind, samples) = rest.split_once('\n').expect("lines");
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect("a type");
            let sample = samples.lines().next().expect("a sample");
            let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels).split(',');
            let mut labels: Vec<&str> = labels
                .filter_map(|label| Some(label.split_once('=')?.0))
                .filter(|label| *label != "le")
                .collect();
            labels.sort_unstable();
            let meaning = meaning.trim_end_matches('.');
            rows.push([name.to_owned(), kind.to_owned(), labels.join(", "), meaning.to_owned()]);
        }
        rows.sort();
        rows
    }

    fn report() -> AgentReport {
        AgentReport {
            node: Some("linux-1".into()),
            condition: AgentCondition::InSync,
            config_hash: Some("ab12".into()),
            verified: true,
            routes: 5000,
            ..AgentReport::new(1000, "hostgw.yaml")
        }
    }

    fn contested() -> Contested {
        Contested { object: "route 10.244.1.0/24".into(), by: None, repairs: 5, pause_seconds: 2 }
    }

    fn conflict() -> AgentConflict {
        AgentConflict { object: "route 10.244.2.0/24".into(), text: "a conflict".into() }
    }

    #[track_caller]
    fn assert_lines(metrics: &AgentMetrics, wanted: &[&str]) {
        let text = metrics.text().expect("text");
        for line in wanted {
            assert!(text.lines().any(|served| served == *line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn the_guide_lists_all_metrics() {
        let metrics = AgentMetrics::new().expect("metrics");
        assert_eq!(guide(), served(&metrics.text().expect("text")));
    }

    #[test]
    fn the_names_in_labels_are_those_in_json() {
        for (condition, name) in CONDITIONS {
            assert_eq!(serde_json::json!(condition), name);
        }
        for (reason, name) in PIN_REASONS {
            assert_eq!(serde_json::json!(reason), name);
        }
        for (kind, name) in KINDS {
            assert_eq!(serde_json::json!(kind), name);
        }
    }

    #[test]
    fn a_report_sets_all_gauges() {
        let metrics = AgentMetrics::new().expect("metrics");
        assert_lines(&metrics, &["hostgw_agent_ready 0", "hostgw_agent_condition{condition=\"starting\"} 1"]);
        metrics.report(&report(), String::new());
        let version = env!("CARGO_PKG_VERSION");
        let info =
            format!("hostgw_agent_info{{config_hash=\"ab12\",node=\"linux-1\",version=\"{version}\"}} 1");
        assert_lines(
            &metrics,
            &[
                &info,
                "hostgw_agent_ready 1",
                "hostgw_agent_condition{condition=\"starting\"} 0",
                "hostgw_agent_condition{condition=\"inSync\"} 1",
                "hostgw_agent_pinned{reason=\"apply\"} 0",
                "hostgw_agent_configuration_refused 0",
                "hostgw_agent_routes 5000",
            ],
        );
        let pin = Pin { reason: PinReason::Apply, transaction_id: None, file: None, instead_of: None };
        let changed = AgentReport {
            node: Some("a\"b\\c".into()),
            condition: AgentCondition::Degraded,
            pin: Some(pin),
            refused: true,
            contested: vec![contested()],
            conflicts: vec![conflict(), conflict()],
            unreachable: vec!["linux-2".into()],
            ..report()
        };
        metrics.report(&changed, String::new());
        let text = metrics.text().expect("text");
        assert!(!text.contains("linux-1"), "the old labels are gone:\n{text}");
        assert!(text.contains(r#"node="a\"b\\c""#), "{text}");
        assert_lines(
            &metrics,
            &[
                "hostgw_agent_ready 0",
                "hostgw_agent_condition{condition=\"inSync\"} 0",
                "hostgw_agent_condition{condition=\"degraded\"} 1",
                "hostgw_agent_pinned{reason=\"apply\"} 1",
                "hostgw_agent_pinned{reason=\"destroy\"} 0",
                "hostgw_agent_configuration_refused 1",
                "hostgw_agent_contested_objects 1",
                "hostgw_agent_conflicts 2",
                "hostgw_agent_unreachable_nodes 1",
            ],
        );
    }

    #[test]
    fn events_are_counted() {
        let metrics = AgentMetrics::new().expect("metrics");
        let error = Error::unexpected("no");
        metrics.event(&AgentEvent::Started(&report()));
        metrics.event(&AgentEvent::Refused { error: &error, in_effect: None });
        metrics.event(&AgentEvent::RepairFailed { error: &error, failures: 3 });
        metrics.event(&AgentEvent::RepairFailed { error: &error, failures: 3 });
        let took = Duration::from_millis(300);
        let totals = crate::plan::Totals::default();
        metrics.event(&AgentEvent::Repaired { changes: &[], totals, objects: &[], programs: &[], took });
        let (file, node) = ("hostgw.yaml".into(), "linux-1".into());
        metrics.event(&AgentEvent::Applied { file: &file, node: &node, totals: None });
        metrics.event(&AgentEvent::Applied { file: &file, node: &node, totals: Some(totals) });
        metrics.looked();
        assert_lines(
            &metrics,
            &[
                "hostgw_agent_start_time_seconds 1000",
                "hostgw_agent_failures_total{operation=\"apply\"} 1",
                "hostgw_agent_failures_total{operation=\"repair\"} 2",
                "hostgw_agent_applies_total 1",
                "hostgw_agent_repairs_total 1",
                "hostgw_agent_repair_duration_seconds_bucket{le=\"0.25\"} 0",
                "hostgw_agent_repair_duration_seconds_bucket{le=\"0.5\"} 1",
                "hostgw_agent_comparisons_total 1",
                "hostgw_agent_last_verification_timestamp_seconds 0",
            ],
        );
    }

    #[test]
    fn a_silent_agent_is_neither_healthy_nor_ready() {
        let metrics = AgentMetrics::new().expect("metrics");
        metrics.report(&report(), "In sync".to_owned());
        let (now, late) = (Instant::now(), Instant::now() + MAX_SILENCE + Duration::from_secs(1));
        assert!(metrics.is_healthy(now).0);
        assert_eq!(metrics.is_ready(now), (true, "In sync".to_owned()));
        let (is_healthy, line) = metrics.is_healthy(late);
        assert!(!is_healthy);
        assert!(line.starts_with("The agent has not responded for 36"), "{line}");
        assert_eq!(metrics.is_ready(late), (false, line));
    }

    #[test]
    fn a_refused_file_does_not_make_a_node_unready() {
        let metrics = AgentMetrics::new().expect("metrics");
        let is_ready = |report: &AgentReport| {
            metrics.report(report, String::new());
            metrics.is_ready(Instant::now()).0
        };
        assert!(is_ready(&report()));
        assert!(metrics.is_current(Instant::now()).0);
        let refused = AgentReport { condition: AgentCondition::Degraded, refused: true, ..report() };
        assert!(is_ready(&refused), "the last good configuration is in effect");
        assert!(!metrics.is_current(Instant::now()).0, "but not the file");
        let pin = Pin { reason: PinReason::Apply, transaction_id: None, file: None, instead_of: None };
        assert!(is_ready(&AgentReport { pin: Some(pin), ..report() }));
        assert!(!metrics.is_current(Instant::now()).0);
        assert!(!is_ready(&AgentReport { verified: false, ..report() }));
        assert!(!is_ready(&AgentReport { unreachable: vec!["linux-2".into()], ..report() }));
    }
}
