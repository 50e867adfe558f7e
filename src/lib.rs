//! hostgw: declarative host-gateway networking for Kubernetes nodes.
//!
//! The configuration, a YAML or TOML file, describes a cluster. For each node, hostgw computes the *desired state* of
//! routes, NAT and sysctls from it, compares it with the *live state* of the kernel, and commits the difference, the
//! *plan*, as one *transaction*.
//!
//! # The central idea
//!
//! The desired and the live state have the same type, [`state::State`], and one pure function, [`plan::plan`], computes
//! the [`plan::Plan`] that turns one into the other. All commands use this function with different arguments:
//!
//! | command | desired | live |
//! |---|---|---|
//! | plan, apply | the configuration | the kernel |
//! | verification after an apply | the configuration | the kernel again: the plan must be empty |
//! | rollback, crash recovery | the journal's *before* | the kernel |
//! | destroy | nothing, with the original sysctls | the kernel |
//! | drift in status | the last applied state | the kernel |
//! | diff, plan for all nodes | the new configuration, per node | the old configuration, per node, or nothing |
//!
//! hostgw therefore plans an undo, and crash recovery, like any other change; only the order of the writes differs
//! ([`apply::Order`]). The last row is special: computing it node by node would be quadratic in the number of nodes.
//! [`plan::compare`](mod@plan::compare) computes the same result for all nodes at once, and a test compares the two.
//!
//! hostgw manages different objects on Windows nodes than on Linux nodes. Windows nodes have their own state and plan,
//! which follow the same rules ([`plan::windows`]), and a script commits the plan.
//!
//! # Data flow
//!
//! ```text
//! file -> config -> model -> desired state --+
//!                                            +-> plan -> render (text, JSON, Markdown, scripts)
//! kernel ----------------------> live state -+      \-> apply: lock, re-observe, journal, commit,
//!                                                       verify, or roll back
//! ```
//!
//! # Modules
//!
//! | module | purpose |
//! |---|---|
//! | [`cli`] | one file per command; the only module that prints, prompts or chooses an exit code |
//! | [`error`] | errors: what failed, on which object, why, and what to do next; the exit codes |
//! | [`config`] | parses and validates a configuration; reports all errors at once, with their locations |
//! | [`input`] | reads the files, pipes and standard input that users pass, up to 64 MiB |
//! | [`diagnose`] | the rules: the code, severity and explanation of everything that checks and warnings report |
//! | [`model`] | the cluster, its nodes and their pod CIDRs, valid by construction |
//! | [`state`] | the state of a node, formatted as `ip`, `nft` and `sysctl` print it |
//! | [`forwarding`] | where a node forwards a packet, and why: a model that tests compare with the kernel's own answers |
//! | [`plan`] | the desired state, plans, checks against the node, reasons, and the comparison of two configurations |
//! | [`record`] | what hostgw stores and prints about a node: transactions, the last applied state, snapshots |
//! | [`audit`] | judges a whole cluster from the snapshots of its nodes, every pair both ways |
//! | [`doctor`] | examines a node for everything that keeps pods from reaching each other |
//! | [`render`] | plans and comparisons as text, JSON and Markdown; plans as commands and scripts |
//! | [`import`] | describes the nodes of a Kubernetes cluster, or the routes of a node, in a configuration, and updates one in place |
//! | [`cni`] | checks whether the CNI configuration of a node matches the cluster |
//! | [`kernel`] | Linux: observes, commits, runs checks, and creates what simulate needs; contains all netlink code |
//! | [`apply`] | transactions: lock, journal, commit, verify, check, roll back |
//! | [`reconcile`] | brings a node to a desired state or back: observe, plan, approve, commit, verify, wait, undo; neither prints nor prompts |
//! | [`agent`] | keeps a node in sync with its configuration: waits for changes to the node and to the file, and repairs or applies |
//! | [`simulate`] | runs a cluster, or a copy of this node, in network namespaces, applies it, and verifies it with packets |
//! | [`guide`] | the guides, as text for a terminal, as manual pages, and as modules of this documentation |
//! | [`text`] | text that people read: [`text::Untrusted`] input, escaping, shell quoting, line wrapping |
//! | `clock` | the wall clock |
//! | `align` | finds what two versions of a list have in common |
//! | `progress` | what the process is doing, for the progress line of a terminal |
//! | `fault` | fault injection, in test builds only |
//!
//! A module only uses modules in lower layers, and the files of a module do not use each other in a cycle.
//! `tests/source_rules.rs` compares the imports with this list, which starts with the lowest layer:
//!
//! 1. `text`, `hex`, `fault`, `clock`, `progress`, `align`
//! 2. `error`, `input`, `model`
//! 3. `state`, `diagnose`
//! 4. `config`, `forwarding`
//! 5. `plan`, `cni`, `import`
//! 6. `record`, `render`, `doctor`
//! 7. `apply`, `guide`, `audit`
//! 8. `kernel`
//! 9. `reconcile`
//! 10. `simulate`, `agent`
//! 11. `cli`
//!
//! All modules up to `render` are therefore pure: they use neither `kernel` nor `apply`, and build on any system. Only
//! `cli` prints or exits, always through its `Output`. Only `kernel/ffi.rs` contains `unsafe` code. Lints forbid
//! `unwrap`, `expect`, `panic!` and `Path::display`.
//!
//! # Where to make a change
//!
//! Each file begins with what it does: `head -n 1 src/kernel/*.rs` lists the files of a module. Expected outputs are files
//! under `tests/cases`; after a change, `HOSTGW_BLESS=1 tests/run` regenerates them for review.
//!
//! | to change | start in | continue in |
//! |---|---|---|
//! | a command, its options or its help | `src/cli/arguments.rs` | `src/cli/mod.rs`, the command's file in `src/cli`; `tests/cases/cli` |
//! | a key of the configuration | `src/config/raw.rs` | `src/config/validate.rs` or `src/config/node.rs`, `src/model`, `src/plan/desired.rs`, `src/plan/compare` (the reason in a comparison), `src/kernel`; `schemas`, `src/guide/configuration.md`, `tests/cases/config` |
//! | which addresses and prefixes a configuration may contain | `src/config/parse.rs`, `src/config/special.rs` | `src/config/node.rs` and `src/config/validator.rs`, which call them, `src/diagnose/rules.rs`; `src/guide/diagnostics.md`, `tests/cases/config` |
//! | how YAML and TOML are read, and their syntax errors | `src/config/yaml.rs`, `src/config/toml.rs` | `src/config/plain.rs`, a faster reader of plain YAML; `tests/cases/config/invalid` |
//! | the text of an error in a configuration | `src/config/validate.rs`, `src/config/node.rs` | `src/diagnose/rules.rs` (its code, title and severity), `src/diagnose/rules` (its page); `tests/cases/config` |
//! | an exit code | `src/error.rs` | where the error arises, such as `src/reconcile/apply.rs` (mass removals); the scripts in `src/render`, `src/cli/arguments.rs`; `src/guide/exit-codes-and-json.md` |
//! | an error or a warning about a node or a plan | `src/diagnose/rules.rs` | `src/plan/check.rs`, `tests/cases/plan` |
//! | the routes that packets use on a Windows node | `src/forwarding/windows.rs` | `src/plan/windows/paths.rs` and `src/render/powershell/paths.ps1`, which use the same words; `tests/powershell/paths.rs` |
//! | what `offLink` does | `src/plan/off_link.rs` | `src/render/shell/body.sh`; for Windows nodes `src/plan/windows/off_link.rs` and `src/render/powershell/off-link.ps1`, which use the same words; `tests/e2e/situations.rs`, `tests/powershell/off_link.rs` |
//! | the path of packets, and why | `src/forwarding/model.rs` | `src/forwarding/cause.rs`, `src/kernel/verdict/tests.rs`, which compares it with the kernel; `tests/e2e/paths.rs` |
//! | what `hostgw doctor` finds | `src/doctor` | `src/forwarding/cause.rs` (policy rules, routes, `rp_filter`, forwarding), `src/forwarding/firewall.rs` (which rules apply to a packet), `src/kernel/nat/terms.rs` (how rules are decoded), `src/diagnose/rules.rs`; `tests/e2e/doctor.rs`, `tests/e2e/losses.rs` |
//! | what is known about a node besides routes, NAT and sysctls | `src/state/host.rs` | `src/kernel/link.rs` (interfaces, addresses), `src/kernel/neighbor.rs`, `src/kernel/policy_rule.rs`, `src/kernel/packet_program.rs`, `src/kernel/mod.rs`; `schemas/snapshot.schema.json` |
//! | what `hostgw explain` prints | `src/doctor/journey.rs` | `src/cli/explain.rs` (the reply, the text), `src/forwarding/firewall.rs` and `src/forwarding/treatment.rs` (what rules do to a packet); `schemas/explain.schema.json`, `tests/e2e/situations.rs` |
//! | what `hostgw status` prints | `src/cli/status.rs`, `src/cli/agent_status.rs` (the agent) | `src/record/agent.rs` (the agent's report), `src/agent/keeper/report.rs` (which writes it); `schemas/status.schema.json`, `src/guide/node-agent.md`, `tests/e2e/agent.rs` |
//! | what `hostgw audit` finds | `src/audit/conclude.rs` | `src/audit/examine.rs` (one node), `src/audit/report.rs`; `tests/audit.rs`, `tests/e2e/audit.rs` |
//! | a plan for many nodes | `src/cli/fleet_plan.rs` | `src/render/fleet.rs`; `tests/e2e/audit.rs` |
//! | the web page of `hostgw audit` | `src/audit/page` | `src/audit/report.rs` (its data), `src/audit/html.rs`, `tests/browser` |
//! | what `hostgw import` reads from a node | `src/import/node.rs`, `src/import/annotations.rs` | `src/import/survey.rs` (warnings); `tests/cases/import` |
//! | what `hostgw import --live` describes and removes | `src/import/live/mod.rs`, `src/import/live/leftover.rs` | `src/import/live/plugin.rs` (how plugins are recognized), `src/cli/import_live.rs`; `tests/cases/import-live`, `tests/e2e/migration.rs` |
//! | how `hostgw import --update` edits a file | `src/import/edit.rs` | `src/config/outline` (the lines of a node), `src/import/changes.rs` (the nodes and keys that changed); `tests/import.rs`, `tests/cases/import` |
//! | an error about a CNI configuration | `src/diagnose/rules.rs` | `src/cni`, `tests/cases/cni` |
//! | how a route is read and written | `src/kernel/route.rs` | `src/kernel/netlink`; NAT: `src/kernel/nat`, sysctls: `src/kernel/sysctl.rs` |
//! | how netlink requests are sent, repeated and refused | `src/kernel/netlink/socket.rs` | `src/kernel/netlink/error.rs`, `src/kernel/nat.rs` (repeats a read while the ruleset changes); `tests/e2e/faults.rs`, `tests/e2e/churn.rs` |
//! | what is managed on a node | `src/plan/desired.rs` | `src/state`, `src/plan/diff.rs`, `src/kernel/mod.rs`; `src/plan/reason.rs`, `src/plan/check.rs` and `src/import/live/mod.rs` (sysctls that a configuration implies) |
//! | the reason for a change | `src/plan/reason.rs` | `routes.rs`, `nat.rs` and `sysctls.rs` in `src/plan/compare` (which cause), `src/plan/compare/cause.rs` (its words) |
//! | the remedy for an error of the kernel | `hint` in `src/kernel/route.rs`, `src/kernel/nat.rs` and `src/kernel/sysctl.rs` | `src/text/os_error.rs` (the names of errors); `tests/e2e/faults.rs` |
//! | the order of writes, in a commit and in an undo | `src/plan/diff.rs` | `src/kernel/mod.rs`, and `tests/support/model.rs`, which imitates it |
//! | how a plan looks | `src/render/text.rs` | `src/render/report.rs`, `src/render/markdown`; `tests/cases/plan` |
//! | how a comparison looks | `src/render/comparison/text.rs` | `src/render/comparison/collapse.rs`, `src/render/markdown`; `tests/cases/diff` |
//! | what happens between a command and the first write | `src/reconcile/run.rs` | `src/reconcile/turn.rs`, `src/reconcile/apply.rs` |
//! | the transaction, or what recovery does | `src/apply/transaction.rs` | `src/apply/state_dir`, `src/record/transaction.rs`; `tests/e2e/faults.rs`, `tests/e2e/kills.rs` |
//! | `apply --confirm` | `src/reconcile/pending.rs` (the wait), `src/apply/confirm.rs` (the decision and its effect) | `src/record/confirmation.rs` (what is recorded of it), `src/reconcile/decision.rs`, `src/reconcile/supervisor.rs`, `src/reconcile/decide.rs`, `src/cli/status.rs`; `tests/e2e/confirm.rs` |
//! | what the agent does, and when | `src/agent/keeper/`, `src/agent/pace.rs` (when it observes the node) | `src/agent/contest.rs` (pauses of contested objects), `src/agent/backoff.rs` (after failures), `src/kernel/events.rs`, `src/reconcile/repair.rs`; `tests/e2e/agent.rs`, `tests/e2e/disturbances.rs` |
//! | what the agent logs | `src/agent/host.rs` | `src/cli/agent_log.rs`, `src/guide/node-agent.md` |
//! | what `hostgw rehearse` copies | `src/kernel/copy.rs` | `src/kernel/nat/ruleset.rs`, `src/simulate/rehearse.rs`; `tests/e2e/rehearse.rs` |
//! | the shell script | `src/render/shell/body.sh` | `src/render/shell/mod.rs`; `tests/e2e/render.rs`, `tests/cases/cli/render-linux.out` |
//! | the PowerShell scripts | `src/render/powershell/apply.ps1` | `src/render/powershell/mod.rs` (parameters, usage), `src/plan/windows`, which computes the same plan; `tests/powershell` |
//! | the scheduled task of a Windows node | `src/render/powershell/task.ps1` | `tests/powershell/task.rs`, `tests/cases/render/task` |
//! | the systemd units | `dist/systemd` | `src/cli/agent.rs` (notifications), `src/reconcile/systemd_scope.rs`; `tests/e2e/units.rs`, which boots systemd, and `tests/machine`, which boots a machine |
//! | the packages | `Cargo.toml`, `dist/package` | `dist/debian`, `dist/rpm`, `.github/workflows/release.yml`; `tests/install`, which installs them |
//! | the image, and the DaemonSet | `dist/image`, `examples/kubernetes` | `src/guide/kubernetes.md`; `tests/image`, which runs the pods |
//! | files that are restored at boot | `src/render/shell/persist` | `src/cli/boot_files.rs`; `tests/e2e/persist.rs` |
//! | a JSON document | its type in `src/cli` or `src/render/report.rs` | `schemas`, which `HOSTGW_BLESS=1` writes; `tests/e2e/documents.rs` |
//! | the metrics of the agent | `src/cli/agent_metrics.rs` | `src/agent/host.rs` (the events that they count), `src/cli/agent_server.rs`, `src/guide/node-agent.md`, `examples/monitoring`; `tests/monitoring.rs`, `tests/e2e/agent_metrics.rs` |
//! | rollouts with Ansible | `examples/ansible/roles/hostgw` | `src/guide/ansible.md`; `tests/ansible`, which rolls out to six nodes |
//! | a guide | `src/guide` | `tests/guides.rs`, which runs its commands |
//!
//! `hostgw validate` reports errors, and the few warnings that need no node (`src/config/warnings.rs`). All others require a plan.
//!
//! On Windows nodes, hostgw manages routes and forwarding. The CNI plugin masquerades, and `src/cni/masquerade.rs` checks it.
//!
//! # Untrusted text
//!
//! A name in a file, a record, the kernel or git can contain anything, including escape sequences and invisible
//! characters. From the moment it is read, it is a [`text::Untrusted`], which compares unescaped and prints escaped.
//! `Output` additionally escapes everything except hostgw's own colors, and writes hidden characters in JSON as
//! `\uXXXX`. A printed command is a [`text::ShellCommand`], which quotes its words.
//!
//! # Synchronous netlink
//!
//! The kernel processes a route request within the system call that sends it, so there is nothing to wait for and
//! nothing to overlap. Requests are sent in groups of up to 128 per system call, over a plain socket, without an async
//! runtime. (Only the agent's HTTP server, `cli/agent_server.rs`, is async, because its library is.) Messages are built and
//! parsed with the types of `rtnetlink`, except for routes, of which there can be very many: those are written into the
//! group and read from the socket's buffer in place.
//!
//! Route lookups are the exception: the kernel answers them without holding its routing lock, so large numbers of them are sent
//! from several threads, each with its own socket.
//!
//! # Files on disk
//!
//! `/run/hostgw/net-COOKIE/` (or a folder in `HOSTGW_STATE_DIR`) contains the lock, the journal of the open
//! transaction, the last 20 committed transactions, the original values of sysctls, and the last applied state. None of
//! this is needed to find managed objects, which the kernel identifies by their mark. See [`apply::StateDir`].

// On other systems, parts of the library are unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

#[cfg(target_os = "linux")]
pub mod agent;
mod align;
#[cfg(target_os = "linux")]
pub mod apply;
pub mod audit;
pub mod cli;
mod clock;
pub mod cni;
pub mod config;
pub mod diagnose;
pub mod doctor;
pub mod error;
#[cfg(target_os = "linux")]
mod fault;
pub mod forwarding;
pub mod guide;
mod hex;
pub mod import;
pub mod input;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod model;
pub mod plan;
mod progress;
pub mod reconcile;
pub mod record;
pub mod render;
#[cfg(target_os = "linux")]
pub mod simulate;
pub mod state;
pub mod text;
