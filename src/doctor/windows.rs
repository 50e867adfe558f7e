//! Examines a Windows node, from the state that the script of `hostgw render --collect` printed there.

use super::{conflicts, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::Cluster,
    plan::{
        ForeignPolicy,
        windows::{
            WindowsDesired, WindowsObserved, WindowsPaths, WindowsPlan, WindowsReach, windows_paths,
            windows_plan, windows_reach,
        },
    },
    text::ShellCommand,
};

/// A Windows node to examine.
pub struct WindowsExamination<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The index of the node.
    pub index: usize,
    /// The desired state.
    pub desired: &'a WindowsDesired,
    /// The live state.
    pub observed: &'a WindowsObserved,
    /// The file with the live state, as named on the command line.
    pub state: &'a str,
}

/// Returns everything that is wrong with a Windows node, the causes of lost packets first.
#[must_use]
pub fn examine_windows(examination: &WindowsExamination<'_>) -> Vec<Diagnostic> {
    let WindowsSymptoms { plan, problems, others, .. } = windows_symptoms(examination);
    let plan = plan.iter().flat_map(|plan| examination.plan(plan));
    problems.into_iter().chain(plan).chain(others).collect()
}

/// Everything that is wrong with a Windows node.
#[derive(Debug, Clone)]
pub struct WindowsSymptoms {
    /// The plan; `None` if the node cannot be planned.
    pub plan: Option<WindowsPlan>,
    /// Why it cannot be planned.
    pub problems: Vec<Diagnostic>,
    /// Everything else.
    pub others: Vec<Diagnostic>,
    /// Where packets get now.
    pub reach: WindowsReach,
}

/// Examines a Windows node.
#[must_use]
pub fn windows_symptoms(examination: &WindowsExamination<'_>) -> WindowsSymptoms {
    let WindowsExamination { cluster, index, desired, observed, .. } = examination;
    let (plan, problems, paths) =
        match windows_plan(cluster, *index, desired, observed, ForeignPolicy::Respect) {
            Ok(mut plan) => {
                let paths = std::mem::take(&mut plan.paths);
                (Some(plan), Vec::new(), paths)
            }
            Err(problems) => (None, problems, windows_paths(cluster, *index, desired, observed)),
        };
    let mut findings = Vec::new();
    let WindowsPaths { faults, warnings, unrouted } = paths;
    findings.extend(faults);
    findings.extend(unrouted.iter().map(|pods| {
        finding(
            Rule::OwnPodsUnrouted,
            format!("no active on-link route leads to this node's pods ({pods})"),
            examination.run_the_script(),
        )
    }));
    let forwarding = examination.forwarding();
    let reach = match forwarding.is_empty() {
        true => windows_reach(cluster, *index, desired, observed),
        false => WindowsReach::nothing(cluster),
    };
    findings.extend(forwarding);
    findings.extend(warnings);
    WindowsSymptoms { plan, problems, others: findings, reach }
}

impl WindowsExamination<'_> {
    fn run_the_script(&self) -> String {
        let render =
            ShellCommand::new(["hostgw", "render", "--node", self.cluster.nodes[self.index].name.as_raw()]);
        format!("run the script from `{render}` on the node")
    }

    fn plan_command(&self) -> ShellCommand {
        let node = self.cluster.nodes[self.index].name.as_raw();
        ShellCommand::new(["hostgw", "plan", "--node", node, "--state", self.state])
    }

    fn plan(&self, plan: &WindowsPlan) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if !plan.changes.is_empty() {
            findings.push(finding(
                Rule::NotApplied,
                format!("this node does not match the configuration: {}", plan.totals()),
                format!("review the changes with `{}`, then {}", self.plan_command(), self.run_the_script()),
            ));
        }
        if !plan.conflicts.is_empty() {
            findings.push(finding(
                Rule::InConflict,
                conflicts(plan.conflicts.len()),
                match plan.conflicts.len() {
                    1 => format!(
                        "review it with `{}`, then remove the foreign route, or run the script with -Adopt to take it over",
                        self.plan_command()
                    ),
                    _ => format!(
                        "review them with `{}`, then remove the foreign routes, or run the script with -Adopt to take them over",
                        self.plan_command()
                    ),
                },
            ));
        }
        findings.extend(plan.leftovers.iter().cloned());
        findings
    }

    /// Finds the interfaces that do not forward packets.
    fn forwarding(&self) -> Vec<Diagnostic> {
        let interfaces = self.observed.find_interfaces(self.cluster, &self.cluster.nodes[self.index]);
        let has_pods = self.cluster.nodes[self.index].has_pods();
        let families = || self.cluster.prefixes.families().filter(|_| has_pods);
        let pairs = interfaces
            .iter()
            .flat_map(|(role, interface)| families().map(move |family| (role, interface, family)));
        pairs
            .filter(|(_, interface, family)| {
                let live = self.observed.interface(interface.index, *family);
                live.is_some_and(|live| live.forwarding != "Enabled")
            })
            .map(|(role, interface, family)| {
                finding(
                    Rule::PathNotForwarded,
                    format!(
                        "{family} forwarding is disabled on the {role} {}, so packets between this node's pods and those on \
                         other nodes are lost",
                        interface.alias
                    ),
                    format!(
                        "enable it with `Set-NetIPInterface -InterfaceIndex {} -AddressFamily {family} -Forwarding Enabled`",
                        interface.index
                    ),
                )
            })
            .collect()
    }
}
