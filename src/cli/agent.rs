//! `hostgw agent`

use std::{cell::Cell, path::Path, sync::Arc, time::Duration};

use sd_notify::NotifyState;

use super::{
    VerbFailure, VerbResult, agent_log::AgentLog, agent_metrics::AgentMetrics,
    agent_metrics_file::MetricsFile, agent_server, arguments::AgentOptions, cannot_write, configuration,
    environment, output::Output, signals, transaction_meta, write::write,
};
use crate::{
    agent::{self, AgentEvent, AgentHost, AgentSettings},
    config::Document,
    error::{Error, Kind},
    record::{AgentCondition, AgentReport, TransactionMeta},
    text::{self, OsError, Untrusted},
};

/// How long an apply may take in addition to its checks before the service manager considers the start failed.
const SPARE: Duration = Duration::from_secs(60);

/// Keeps this node in sync with its configuration.
pub(super) fn run(options: &AgentOptions, output: &Output) -> VerbResult {
    let file = options.file.clone().map_or_else(configuration::find, Ok)?;
    if file.as_os_str() == "-" {
        let message = "the agent follows a file: it cannot read the configuration from standard input";
        return Err(Error::new(Kind::Usage, message).with_hint("pass the file with -f").into());
    }
    let settings = AgentSettings {
        file,
        node: environment::node(options.node.as_deref()),
        last_good: options.last_good.clone(),
        write: |path: &Path, bytes: &[u8]| {
            write(path, bytes).map_err(|error| cannot_write(path, &OsError(&error)))
        },
    };
    let signals = signals::for_agent()?;
    let metrics = Arc::new(AgentMetrics::new()?);
    let metrics_file = options.metrics_file.as_deref().map(MetricsFile::new).transpose()?;
    if let Some(address) = options.metrics {
        agent_server::serve(address, Arc::clone(&metrics))?;
    }
    let user = AgentUser {
        log: AgentLog::new(options.log, output),
        watchdog: sd_notify::watchdog_enabled(),
        metrics,
        metrics_file,
        is_ready: Cell::new(false),
        is_reloading: Cell::new(false),
    };
    let ended = agent::run(&settings, &user, &signals);
    notify(&[NotifyState::Stopping]);
    ended.map(|()| 0).map_err(VerbFailure::from)
}

/// Notifies systemd, if it manages this process.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// The log, the metrics, and the service manager.
struct AgentUser<'a> {
    log: AgentLog<'a>,
    /// The time after which the service manager considers an agent without heartbeat stuck.
    watchdog: Option<Duration>,
    /// Whether the service manager has been notified that the agent is ready.
    is_ready: Cell<bool>,
    /// Whether the service manager waits for the end of a reload.
    is_reloading: Cell<bool>,
    metrics: Arc<AgentMetrics>,
    metrics_file: Option<MetricsFile>,
}

impl AgentUser<'_> {
    /// Reports that the file with the metrics could not be written.
    fn report_unwritten(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.log.event(&AgentEvent::TaskFailed(&error));
        }
    }
}

impl AgentHost for AgentUser<'_> {
    fn event(&self, event: AgentEvent<'_>) {
        self.metrics.event(&event);
        // The end of a reload must not report an agent as ready that was not ready before.
        if matches!(event, AgentEvent::Reloading) && self.is_ready.get() {
            self.is_reloading.set(true);
            match NotifyState::monotonic_usec_now() {
                Ok(now) => notify(&[NotifyState::Reloading, now]),
                Err(_) => notify(&[NotifyState::Reloading]),
            }
        }
        self.log.event(&event);
    }

    fn report(&self, report: &AgentReport) {
        let status = status_line(report);
        let is_verified = report.config_hash.is_some()
            && matches!(report.condition, AgentCondition::InSync | AgentCondition::Degraded);
        let is_reloaded = self.is_reloading.take();
        if is_verified || is_reloaded || report.condition == AgentCondition::Suspended {
            self.is_ready.set(true);
            notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        } else {
            notify(&[NotifyState::Status(&status)]);
        }
        self.metrics.report(report, status);
        if let Some(file) = &self.metrics_file {
            self.report_unwritten(file.write(&self.metrics));
        }
    }

    fn looked(&self) {
        self.metrics.looked();
        if let Some(file) = &self.metrics_file {
            self.report_unwritten(file.refresh(&self.metrics));
        }
    }

    fn verified(&self) {
        self.metrics.verified();
    }

    fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 3)
    }

    fn beat(&self) {
        self.metrics.beat();
        if self.watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
    }

    fn begin_checks(&self, longest: Duration) {
        // Before and after the changes.
        let time = u32::try_from((2 * longest + SPARE).as_micros()).unwrap_or(u32::MAX);
        if !self.is_ready.get() {
            notify(&[NotifyState::ExtendTimeoutUsec(time)]);
        }
    }

    fn metadata(&self, document: &Document, node: &Untrusted) -> TransactionMeta {
        TransactionMeta { by: Some("hostgw agent".into()), ..transaction_meta::of_apply(document, node) }
    }
}

/// Returns the line that `systemctl status` shows.
fn status_line(report: &AgentReport) -> String {
    let routes = text::count(report.routes, "route");
    let node = report.node.as_ref().map_or_else(String::new, |node| format!(" on node {node}"));
    let why = report.problem.as_ref().map_or_else(String::new, |problem| format!(": {}", problem.message));
    match report.condition {
        AgentCondition::Starting => "Starting".to_owned(),
        AgentCondition::InSync if report.unreachable.is_empty() => format!("In sync: {routes}{node}"),
        AgentCondition::InSync => {
            let nodes = text::count(report.unreachable.len(), "node");
            format!("In sync: {routes}{node}; pod traffic to {nodes} is lost or diverted")
        }
        AgentCondition::Waiting => format!("Waiting{why}"),
        AgentCondition::Yielding => "Waiting for another hostgw command".to_owned(),
        AgentCondition::Degraded if why.is_empty() => format!("Degraded: {}", degradation(report)),
        AgentCondition::Degraded => format!("Degraded{why}"),
        AgentCondition::Suspended => "Suspended after `hostgw destroy` or `hostgw rollback`".to_owned(),
    }
}

/// Returns why a node without a reported problem is degraded.
fn degradation(report: &AgentReport) -> String {
    let (conflicts, contested) = (report.conflicts.len(), report.contested.len());
    let counts = [(conflicts, "conflict"), (contested, "contested object")];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(number, what)| text::count(number, what))
        .collect();
    if counts.is_empty() { "retrying a failed repair".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AgentConflict, Contested};

    #[test]
    fn a_degraded_node_says_why() {
        let contested = |number| {
            let object =
                Contested { object: "route 10.244.1.0/24".into(), by: None, repairs: 5, pause_seconds: 1 };
            vec![object; number]
        };
        let conflicts = |number| {
            let conflict = AgentConflict { object: "route 10.244.1.0/24".into(), text: "a conflict".into() };
            vec![conflict; number]
        };
        for (conflicts, contested, wanted) in [
            (conflicts(0), contested(0), "Degraded: retrying a failed repair"),
            (conflicts(1), contested(0), "Degraded: 1 conflict"),
            (conflicts(0), contested(2), "Degraded: 2 contested objects"),
            (conflicts(1), contested(2), "Degraded: 1 conflict, 2 contested objects"),
        ] {
            let report = AgentReport {
                condition: AgentCondition::Degraded,
                contested,
                conflicts,
                ..AgentReport::new(0, "hostgw.yaml")
            };
            assert_eq!(status_line(&report), wanted);
        }
    }
}
