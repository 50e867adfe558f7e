//! The command line: verbs, options, and their help texts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::transaction_json::TransactionCommand;
use crate::{guide::GUIDES, render::NetplanId, text::duration};

/// The exit codes, as `hostgw help` lists them.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
    0  success, or no changes
    1  unexpected error; simulate, rehearse: a connection or another test failed
    2  changes planned, changes made, or drift found; only with --detailed-exitcode
    3  the configuration is missing or invalid, or does not fit this node; check-cni: the file
       must be changed; import: the list cannot be imported; audit: no snapshot
    4  another hostgw command holds the lock; agent: another agent is running
    5  the live state changed since the plan was shown or saved; rollback: another command
       ran after the plan was shown
    6  apply failed; rolled back and verified
    7  rollback incomplete; the output lists what remains
    8  nothing was changed: declined, mass removal refused, or no terminal for the prompt;
       or rolled back: apply canceled or not confirmed in time;
       confirm: nothing was confirmed; cancel ID: apply ID is not pending
    9  incomplete: part of the live state could not be read
   10  conflict with an object that hostgw does not manage
   11  doctor, audit: at least one finding
   64  usage error
  130  interrupted; any changes were rolled back";

/// The environment variables, as `hostgw help` lists them.
pub(super) const ENVIRONMENT: &str = "\
Environment:
  HOSTGW_FILE        configuration to use without -f
  HOSTGW_NODE        node to use without --node
  HOSTGW_STATE_DIR   state directory [default: /run/hostgw]
  HOSTGW_SYSCTL_DIR  directory of sysctls [default: /proc/sys]
  PAGER              program that shows long output [default: less]";

/// The version, with the Git commit if it was built in a repository.
pub(super) const VERSION: &str = env!("HOSTGW_VERSION");

/// The date of that commit, or an empty string.
pub(super) const DATE: &str = env!("HOSTGW_DATE");

/// The commands that need no node, as `hostgw help` lists them.
const WITHOUT_ROOT: &str = "\
On any machine, without root:
  show, diff, render, audit, check-cni, validate, schema, completions, man;
  import without --live; plan with --state or --all-nodes; doctor with --state;
  explain with --state or --planned";

/// The text of `hostgw help` after the options.
fn after_help() -> String {
    let mut text =
        format!("{WITHOUT_ROOT}\n\n{EXIT_CODES}\n\n{ENVIRONMENT}\n\nGuides (hostgw help GUIDE):\n");
    for guide in GUIDES {
        text.push_str(&format!("  {:<20} {}\n", guide.name, guide.summary));
    }
    text
}

/// Declarative host-gateway networking for Kubernetes nodes.
///
/// One file describes the cluster. `plan` shows what would change in this node's routes, NAT and sysctls. `apply`
/// makes the changes as one transaction, and rolls back if any part fails.
#[derive(Debug, Parser)]
#[command(name = "hostgw", version = VERSION, after_help = after_help(), max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// When to use color. `auto` follows NO_COLOR, CLICOLOR_FORCE, FORCE_COLOR, CLICOLOR and TERM=dumb, then checks for a
    /// terminal.
    // The help of a command lists its own options first.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", display_order = 900)]
    pub color: Color,
    /// Do not use a pager.
    #[arg(long, global = true, display_order = 900)]
    pub no_pager: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

impl Arguments {
    /// Returns the definition of the command line with the options of every command.
    pub(super) fn definition() -> Command {
        let mut command = Self::command();
        command.build();
        command
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

// Parsing builds the options of the command that it finds, and of no other.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Verb {
    /// Show what would change on this node.
    ///
    /// Run it as root: otherwise hostgw cannot read NAT and its own records, and the plan is incomplete (exit code 9). With --state
    /// or --all-nodes, runs on any machine, without root.
    Plan(PlanOptions),
    /// Make this node match the configuration; roll back on failure.
    ///
    /// Requires root.
    Apply(ApplyOptions),
    /// Remove everything hostgw manages on this node, and restore its sysctls.
    ///
    /// Requires root.
    Destroy(DestroyOptions),
    /// Keep the pending apply; works from any shell on this node.
    ///
    /// Exits with 8 unless this command confirmed an apply. Requires root.
    Confirm(ConfirmOptions),
    /// Roll back the pending apply now.
    ///
    /// Requires root.
    Cancel(CancelOptions),
    /// Undo the last apply or destroy, or a pending or interrupted one.
    ///
    /// Requires root.
    Rollback(RollbackOptions),
    /// Keep this node in sync with the configuration, until stopped.
    ///
    /// Applies the configuration, then restores what is lost: routes after a link or address change, a flushed NAT table,
    /// changed sysctls. Applies the file again whenever it changes. If the new file is invalid or refused, the last good
    /// configuration stays in effect. Logs one line per event. Usually runs as a systemd service (`hostgw help boot`).
    /// Requires root, or CAP_NET_ADMIN and write access to the state directory.
    Agent(AgentOptions),
    /// Show what hostgw manages on this node, the last apply, drift, and the agent.
    ///
    /// Run it as root: otherwise the status is incomplete (exit code 9).
    Status(StatusOptions),
    /// Show a saved plan.
    ///
    /// Runs on any machine, without root.
    Show(ShowOptions),
    /// Print this node's live state as JSON, to plan against on another machine.
    ///
    /// Run it as root: otherwise the snapshot is incomplete (exit code 9).
    Snapshot,
    /// Show what a configuration change does to every node.
    ///
    /// Compares two files (`hostgw diff old.yaml new.yaml`), or the file of one Git revision with the working tree or with
    /// another revision (`hostgw diff main`, `hostgw diff v1..v2`). Runs on any machine, without root.
    Diff(DiffOptions),
    /// Write a script that applies a node's plan without hostgw: PowerShell for Windows, sh for Linux.
    ///
    /// The script plans on the node, commits as one transaction, and rolls back on failure. The Windows script can also install
    /// itself as a scheduled task that keeps the configuration in effect (-Install, -Uninstall). The authors have not run it on
    /// Windows: run the self-test in examples/windows first. hostgw itself runs on any machine, without root.
    Render(RenderOptions),
    /// Find out why this node loses pod traffic.
    ///
    /// Looks for drift, for policy rules, routes and sysctls that divert or drop pod traffic, for other programs' firewalls
    /// and NAT, for neighbors that do not answer, and for settings that will cause trouble later. Prints the cause and the
    /// remedy for each finding. Exits with 11 if there are findings. Changes nothing. Run it as root: otherwise it cannot read
    /// firewall rules. With --state, runs on any machine, without root.
    Doctor(DoctorOptions),
    /// Check the whole cluster from snapshots of its nodes.
    ///
    /// Examines every node as `doctor` does, and checks every pair of nodes, both ways: whether packets from the pods of one
    /// reach those of the other. Finds missing and outdated routes, nodes with a different configuration, moved and duplicate
    /// addresses, and leftovers of removed nodes. Lists the nodes that need `hostgw apply`. Exits with 11 if there are findings.
    /// Runs on any machine, without root.
    Audit(AuditOptions),
    /// Trace a packet to ADDRESS through this node, and the reply.
    ///
    /// Shows which policy rule, route and next hop apply, what firewalls do with the packet, and whether its source address
    /// is masqueraded. Exits with 0 even if the packet is dropped. Run it as root: otherwise it cannot read firewall rules. With
    /// --state or --planned, runs on any machine, without root.
    Explain(ExplainOptions),
    /// Check whether a node's CNI configuration fits the cluster.
    ///
    /// Checks that the subnet is the node's pod CIDR, that the gateway is the one hostgw routes to, that the MTU is no
    /// larger than routes.mtu or the node's mtu and, on Linux, that ipMasq is off. On Windows, where the CNI plugin masquerades with an OutBoundNAT
    /// policy, checks that its exceptions (HNS: ExceptionList, HCN: Settings.Exceptions) cover the cluster prefix and
    /// nat.exclude. Prints what to change. Runs on any machine, without root.
    CheckCni(CheckCniOptions),
    /// Write or update a configuration from `kubectl get nodes`, or write one from this node's routes (--live).
    ///
    /// Reads the output of `kubectl get nodes -o json` or `-o yaml`, and prints a valid configuration. With
    /// --update, edits an existing configuration instead: adds nodes that joined, removes nodes that left, and updates nodes
    /// that changed. Comments, the order of nodes and all other keys stay as they are. Without --live, runs on any machine,
    /// without root.
    Import(ImportArguments),
    /// Check configuration files.
    ///
    /// Runs on any machine, without root.
    Validate(ValidateOptions),
    /// Build the cluster in network namespaces, apply the plans there, and send packets between all pods.
    ///
    /// Runs on Linux. Requires root only if unprivileged users cannot create network namespaces. Does not touch this machine's
    /// network.
    Simulate(SimulateOptions),
    /// Try the plan on a copy of this node, firewall included, and send packets.
    ///
    /// Copies this node's interfaces, addresses, policy rules, routes, sysctls and firewall to a network namespace. Connects
    /// the copy to a simulated pod, other nodes and an outside host, and tests these connections before and after applying
    /// the plan there. Requires root, to read the firewall. Changes nothing on this node.
    Rehearse(RehearseOptions),
    /// Print the JSON Schema of the configuration or of another document.
    ///
    /// Editors and CI jobs check files with it. Runs on any machine, without root.
    Schema(SchemaOptions),
    /// Print a completion script for a shell.
    ///
    /// Completes commands, options, files, node names from the configuration, and Git revisions. Load it from your
    /// shell's startup file. For bash, add `source <(hostgw completions bash)` to ~/.bashrc; `hostgw help plan-and-apply`
    /// lists the line for every shell.
    Completions(CompletionsOptions),
    /// Write manual pages: hostgw(1), one for each command and one for each guide.
    ///
    /// Runs on any machine, without root.
    Man(ManOptions),
    /// Explain a command or a diagnostic code, or show a guide.
    ///
    /// Without a topic, lists the commands and guides.
    Help(HelpOptions),
    /// Print the version, as --version does.
    ///
    /// Names the Git commit from which hostgw was built.
    Version,
    /// Roll back an apply that is not confirmed in time (internal; started by `apply --confirm`).
    #[command(hide = true)]
    Supervise,
}

impl Verb {
    /// Returns the name of a command that needs a Linux node.
    #[cfg(not(target_os = "linux"))]
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "hostgw apply",
            Self::Destroy(_) => "hostgw destroy",
            Self::Confirm(_) => "hostgw confirm",
            Self::Cancel(_) => "hostgw cancel",
            Self::Rollback(_) => "hostgw rollback",
            Self::Agent(_) => "hostgw agent",
            Self::Status(_) => "hostgw status",
            Self::Snapshot => "hostgw snapshot",
            Self::Simulate(_) => "hostgw simulate",
            Self::Rehearse(_) => "hostgw rehearse",
            _ => "this command",
        }
    }

    /// Returns the form of results and errors.
    pub(super) const fn form(&self) -> OutputForm {
        let (json, operation) = match self {
            Self::Plan(options) => (options.json, None),
            Self::Apply(options) => (options.json, Some(TransactionCommand::Apply)),
            Self::Destroy(options) => (options.json, Some(TransactionCommand::Destroy)),
            Self::Confirm(options) => (options.json, Some(TransactionCommand::Confirm)),
            Self::Cancel(options) => (options.json, Some(TransactionCommand::Cancel)),
            Self::Rollback(options) => (options.json, Some(TransactionCommand::Rollback)),
            Self::Status(options) => (options.json, None),
            Self::Show(options) => (options.json, None),
            Self::Diff(options) => (options.json, None),
            Self::CheckCni(options) => (options.json, None),
            Self::Doctor(options) => (options.json, None),
            Self::Audit(options) => (options.json, None),
            Self::Explain(options) => (options.json, None),
            Self::Validate(options) => {
                (matches!(options.format(), FindingsFormat::Json | FindingsFormat::Sarif), None)
            }
            Self::Import(options) => (options.json, None),
            Self::Simulate(options) => (options.json, None),
            Self::Rehearse(options) => (options.json, None),
            Self::Snapshot | Self::Render(_) | Self::Schema(_) | Self::Supervise => (false, None),
            Self::Agent(_) | Self::Completions(_) | Self::Man(_) | Self::Help(_) | Self::Version => {
                (false, None)
            }
        };
        match (json, operation) {
            (false, _) => OutputForm::Text,
            (true, None) => OutputForm::Json,
            (true, Some(operation)) => OutputForm::Transaction(operation),
        }
    }
}

/// The form of a command's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// Human-readable text.
    Text,
    /// One JSON document: the result or the error.
    Json,
    /// One JSON document that describes the transaction, whether it succeeds or not.
    Transaction(TransactionCommand),
}

// The options that commands share have no doc comments: clap would show those instead of the command's own.

// The configuration, and the node in it.
#[derive(Debug, Args)]
pub(super) struct TargetOptions {
    /// Configuration file, or `-` for standard input [default: HOSTGW_FILE, then hostgw.yaml, hostgw.yml or
    /// hostgw.toml in the working directory, then in /etc/hostgw].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Node to use [default: HOSTGW_NODE, then the node whose address belongs to this machine, then the node with this
    /// machine's hostname].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PlanOptions {
    #[command(flatten)]
    pub target: TargetOptions,
    /// Show the plan that adopts conflicting foreign objects.
    #[arg(long)]
    pub adopt: bool,
    /// Plan against a snapshot instead of this machine: the output of `hostgw snapshot` or, for a Windows node,
    /// of the script from `hostgw render --collect`. `-` is standard input. With several files, or a directory of them, plan
    /// for all of their nodes at once.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub state: Vec<PathBuf>,
    /// Show the desired state of every node, without reading any live state.
    #[arg(long, conflicts_with_all = ["node", "adopt", "state", "out"])]
    pub all_nodes: bool,
    /// With --all-nodes, list every change and every node by name.
    #[arg(long, requires = "all_nodes")]
    pub full: bool,
    /// Show only names and counts.
    #[arg(long, conflicts_with_all = ["full", "json", "markdown"])]
    pub summary: bool,
    /// Save the plan to FILE, for `hostgw apply FILE`. A plan with conflicts or unreadable parts is not saved. With
    /// several snapshots, FILE is a directory that gets one plan per node, named after it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the plan as Markdown for a pull request comment: removals first, truncated to 60,000 bytes.
    #[arg(long, conflicts_with_all = ["json", "full"])]
    pub markdown: bool,
    /// Exit with 2 if there are changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApplyOptions {
    /// Saved plan to apply exactly as is, without asking; refused if anything that it depends on has changed since. `-` is
    /// standard input.
    #[arg(value_name = "PLAN", conflicts_with_all = ["file", "node", "adopt"])]
    pub plan: Option<PathBuf>,
    /// Allow a mass removal: the exact number of routes the plan removes. Required if N is at least 10 and more than
    /// half of the managed routes, or if no route to another node would be left.
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub allow_removals: Option<usize>,
    #[command(flatten)]
    pub target: TargetOptions,
    /// Take over foreign objects that conflict with the plan. A rollback restores them, except for those that the plan
    /// marks as impossible to restore.
    #[arg(long)]
    pub adopt: bool,
    /// Roll back after TIME (90s, 5m) unless `hostgw confirm` is run, even if this terminal is gone.
    #[arg(long, value_name = "TIME", value_parser = confirmation)]
    pub confirm: Option<Duration>,
    #[command(flatten)]
    pub consent: Consent,
    /// Print the result as one JSON document when the command ends. Cannot prompt, so pass --yes.
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 if anything was changed.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

// Whether a command that changes the node asks first, and how long it waits for the lock.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Consent {
    /// Do not ask for approval.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub lock: LockOptions,
}

// How long a command waits for other hostgw commands.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct LockOptions {
    /// How long to wait for another hostgw command to finish (500ms, 30s, 2m).
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub lock_timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ConfirmOptions {
    /// Confirm only the apply with this ID, which `hostgw apply --confirm` and `hostgw status` print.
    #[arg(value_name = "ID", value_parser = number::<u64>)]
    pub id: Option<u64>,
    /// Wait up to TIME (30s, 2m) for an apply, or for the one with ID, to become pending.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub lock: LockOptions,
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CancelOptions {
    /// Cancel only the apply with this ID, which `hostgw apply --confirm` and `hostgw status` print.
    #[arg(value_name = "ID", value_parser = number::<u64>)]
    pub id: Option<u64>,
    #[command(flatten)]
    pub lock: LockOptions,
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DestroyOptions {
    /// Restore the original value of a sysctl even if another program has changed it since.
    #[arg(long)]
    pub adopt: bool,
    /// Keep sysctl values that another program has changed, and stop managing them.
    #[arg(long, conflicts_with = "adopt")]
    pub abandon: bool,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub preview: Preview,
    /// Print the result as one JSON document when the command ends. Cannot prompt, so pass --yes.
    #[arg(long)]
    pub json: bool,
}

// Options to preview a change, and to report it to scripts.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Preview {
    /// Show what would change, without changing anything or taking the lock.
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 2 if anything was changed or, with --dry-run, would be.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct RollbackOptions {
    /// Restore the previous routes and sysctls even if another program has changed them since.
    #[arg(long)]
    pub adopt: bool,
    /// Keep what cannot be restored or was changed by another program, list it, and close the transaction.
    #[arg(long, conflicts_with = "adopt")]
    pub abandon: bool,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub preview: Preview,
    /// Print the result as one JSON document when the command ends. Cannot prompt, so pass --yes.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AgentOptions {
    /// Configuration file to follow [default: HOSTGW_FILE, then hostgw.yaml, hostgw.yml or hostgw.toml in the working
    /// directory, then in /etc/hostgw].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Node to use [default: HOSTGW_NODE, then the node whose address belongs to this machine, then the node with this
    /// machine's hostname].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Log format: one line of text or one JSON object per event.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log: LogFormat,
    /// Keep a copy of the last good configuration in FILE. The agent uses it if the configuration is invalid, refused or
    /// missing when it starts, for example after a reboot.
    #[arg(long, value_name = "FILE")]
    pub last_good: Option<PathBuf>,
    /// Serve metrics for Prometheus at /metrics, and the probes /healthz, /readyz and /currentz, over HTTP. Without
    /// ADDRESS, listens on 127.0.0.1 only.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = listen_address)]
    pub metrics: Option<SocketAddr>,
    /// Write the metrics to FILE for the node exporter's textfile collector. FILE must end in .prom.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// List the transactions that rollback can undo, newest first.
    #[arg(long)]
    pub history: bool,
    /// Print the status as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 if the live state has drifted.
    #[arg(long, conflicts_with = "history")]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    /// Saved plan, or `-` for standard input.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Show only names and counts.
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    pub summary: bool,
    /// Print the plan as JSON, in the form of `hostgw plan --json`.
    #[arg(long)]
    pub json: bool,
    /// Print the plan as Markdown for a pull request comment: removals first, truncated to 60,000 bytes.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiffOptions {
    /// Old configuration file, or `-` for standard input. With -f, or without NEW: a Git revision (compared with
    /// NEW, or with the working tree), or a range: OLD..NEW, or OLD...NEW (from the merge base).
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// New configuration file; with -f, a Git revision.
    #[arg(value_name = "NEW")]
    pub new: Option<PathBuf>,
    /// Configuration to compare across Git revisions [default: the same as for `hostgw plan`, if NEW is not given].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// List every change and every node, instead of summarizing similar changes in one line.
    #[arg(long, conflicts_with = "summary")]
    pub full: bool,
    /// Show only names and counts.
    #[arg(long)]
    pub summary: bool,
    /// Print the changes as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the changes as Markdown for a pull request comment: removals first, truncated to 60,000 bytes.
    #[arg(long, conflicts_with_all = ["json", "full", "summary"])]
    pub markdown: bool,
    /// Exit with 2 if anything changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenderOptions {
    /// Configuration file, or `-` for standard input [default: the same as for `hostgw plan`].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Node to write the script for [default: HOSTGW_NODE].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print a script that prints a Windows node's live state as JSON, for `hostgw plan --state FILE`.
    #[arg(long)]
    pub collect: bool,
    /// Print a file that restores a Linux node's state at boot. Its comments say where to install it. Use one file for
    /// routes, one for NAT (nftables) and one for sysctls (sysctl.d); or a single hook that runs `hostgw apply` and restores
    /// everything.
    #[arg(long, value_enum, value_name = "PROGRAM", conflicts_with = "collect")]
    pub persist: Option<PersistArgument>,
    /// ID of the egress interface in the netplan configuration, if it differs from the interface's name. `networkctl
    /// status INTERFACE` shows it as part of the Network File: 10-netplan-ID.network.
    #[arg(long, value_name = "ID", requires = "persist")]
    pub netplan_id: Option<NetplanId>,
    /// Write to FILE instead of standard output; scripts are made executable.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PersistArgument {
    /// Routes: a drop-in for systemd-networkd.
    SystemdNetworkd,
    /// Routes: a drop-in for the .network file that netplan generates.
    Netplan,
    /// Routes: a dispatcher script for NetworkManager.
    #[value(name = "networkmanager")]
    NetworkManager,
    /// Routes: a script for ifup.
    Ifupdown,
    /// NAT: a file for nft -f.
    Nftables,
    /// Sysctls: a file for /etc/sysctl.d.
    #[value(name = "sysctl.d")]
    SysctlD,
    /// Everything: a script for networkd-dispatcher that runs `hostgw apply`.
    NetworkdDispatcher,
    /// Everything: a dispatcher script for NetworkManager that runs `hostgw apply`.
    #[value(name = "networkmanager-apply")]
    NetworkManagerApply,
    /// Everything: a script for ifup that runs `hostgw apply`.
    IfupdownApply,
}

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    #[command(flatten)]
    pub target: TargetOptions,
    /// Examine a snapshot instead of this machine: the output of `hostgw snapshot`, or of the script from
    /// `hostgw render --collect`. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// CNI configuration of the node [default: the first one in /etc/cni/net.d, unless --state is given].
    #[arg(long, value_name = "FILE")]
    pub cni: Option<PathBuf>,
    /// Ask every next hop and default gateway for its MAC address (ARP, neighbor discovery) instead of trusting the neighbor
    /// table.
    #[arg(long, conflicts_with = "state")]
    pub probe: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AuditOptions {
    /// Output of `hostgw snapshot` of each node, or of the script from `hostgw render --collect`. For a directory, all
    /// .json and .json.gz files in it. `-` is standard input.
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<PathBuf>,
    /// Configuration file, or `-` for standard input [default: HOSTGW_FILE, then hostgw.yaml, hostgw.yml or
    /// hostgw.toml in the working directory, then in /etc/hostgw].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print everything as JSON, with a matrix of all pairs.
    #[arg(long, group = "form")]
    pub json: bool,
    /// Print a summary in Markdown.
    #[arg(long, group = "form")]
    pub markdown: bool,
    /// Print a self-contained web page with a map of all pairs.
    #[arg(long, group = "form")]
    pub html: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExplainOptions {
    /// Destination of the packet.
    #[arg(value_name = "ADDRESS", value_parser = destination)]
    pub address: IpAddr,
    /// Source of the packet: `pod` (a pod of this node), `node` (the node itself), or an address.
    #[arg(long, value_name = "SOURCE", default_value = "pod")]
    pub from: PacketSource,
    #[command(flatten)]
    pub target: TargetOptions,
    /// Trace through a snapshot instead of this machine: the output of `hostgw snapshot`. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Trace through a node as the configuration describes it, without reading any live state. Knows only hostgw's routes and
    /// the route to the node's own pods, not the node's other routes, firewalls or neighbors. Requires --node or HOSTGW_NODE.
    #[arg(long, conflicts_with = "state")]
    pub planned: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The source of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketSource {
    /// A pod of the node.
    Pod,
    /// The node itself.
    Node,
    /// This address.
    Address(IpAddr),
}

impl FromStr for PacketSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pod" => Ok(Self::Pod),
            "node" => Ok(Self::Node),
            other => {
                other.parse().map(Self::Address).map_err(|_| "use `pod`, `node`, or an address".to_owned())
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CheckCniOptions {
    /// CNI configuration (.conf) or list (.conflist), or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub cni: PathBuf,
    /// hostgw configuration file [default: the same as for `hostgw plan`].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Node that the CNI configuration belongs to [default: HOSTGW_NODE, then the node whose pod CIDR the file
    /// assigns].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateOptions {
    /// Files to check, or `-` for standard input [default: the same as for `hostgw plan`].
    #[arg(value_name = "FILE", action = ArgAction::Append)]
    pub files: Vec<PathBuf>,
    /// Same as FILE, for consistency with the other commands; repeatable.
    #[arg(short = 'f', long = "file", value_name = "FILE", action = ArgAction::Append)]
    pub more: Vec<PathBuf>,
    /// Print the result as JSON: the same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: FindingsFormat,
}

impl ValidateOptions {
    /// The format of the result.
    pub(super) const fn format(&self) -> FindingsFormat {
        if self.json { FindingsFormat::Json } else { self.format }
    }
}

/// A format for the findings in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum FindingsFormat {
    /// Human-readable text, with source lines.
    #[default]
    Text,
    /// The JSON document that `hostgw schema validate` describes.
    Json,
    /// Markdown for a comment or a job summary.
    Markdown,
    /// SARIF 2.1.0 for code scanning.
    Sarif,
    /// Workflow commands that annotate lines in GitHub.
    Github,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// Output of `kubectl get nodes -o json` or `-o yaml`, or `-` for standard input [default: standard input].
    #[arg(value_name = "FILE")]
    pub list: Option<PathBuf>,
    /// Import this node's own routes instead of a list of nodes: routes of flannel host-gw, kube-router or Calico without
    /// encapsulation, or routes added by hand. Applying the result with --adopt only adopts these routes. Requires root, to read the firewall.
    /// Changes nothing.
    #[arg(long, conflicts_with_all = ["list", "update", "all", "strict", "next_hop"])]
    pub live: bool,
    /// With --live, pod CIDR of this node, or `none` if it has no pods; repeat it, or separate several with commas
    /// [default: that of the pod interface].
    #[arg(long = "pod-cidr", value_name = "CIDR", value_delimiter = ',', value_parser = own_pod_cidr, requires = "live")]
    pub pod_cidrs: Vec<OwnPodCidr>,
    /// With --live, name of this node [default: the hostname].
    #[arg(long, value_name = "NAME", requires = "live")]
    pub node_name: Option<String>,
    /// With --live, write a script that removes what hostgw does not adopt, to run afterward.
    #[arg(long, value_name = "SCRIPT", requires = "live")]
    pub cleanup: Option<PathBuf>,
    /// Cluster prefix, which contains all pod CIDRs; repeat it, or separate several with commas [default: the value of
    /// --cluster-cidr of k3s or RKE2, or else the smallest that contains all pod CIDRs, with a warning. With --live: that of
    /// hostgw, flannel, an on-link route or a masquerade rule, or else the smallest that contains all pod CIDRs, with a warning].
    #[arg(long = "cluster-prefix", value_name = "CIDR", value_delimiter = ',', value_parser = network, conflicts_with = "update")]
    pub cluster_prefixes: Vec<IpNet>,
    /// Egress interface of Linux nodes; with --update, of new ones [default: none if the configuration does not need
    /// one, or else eth0, with a warning. With --live: the interface of the routes to other nodes, or of the default route].
    #[arg(long, value_name = "NAME")]
    pub egress_interface: Option<String>,
    /// Next hop of the routes [default: node-address if flannel's host-gw backend is in use, or if Linux nodes have IPv6
    /// pod CIDRs and every node has the addresses; or else pod-gateway].
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "update")]
    pub next_hop: Option<NextHopArgument>,
    /// Write TOML instead of YAML.
    #[arg(long, conflicts_with = "update")]
    pub toml: bool,
    /// Include nodes that have no pod CIDR, with `podCIDR: none`: they get the routes to all pods.
    #[arg(long, conflicts_with = "strict")]
    pub all: bool,
    /// Fail if a node has no pod CIDR, instead of leaving it out with a warning.
    #[arg(long)]
    pub strict: bool,
    /// Configuration to update in place, instead of printing a new one.
    #[arg(long, value_name = "CONFIG")]
    pub update: Option<PathBuf>,
    /// With --update, show what would change, without writing the file.
    #[arg(long, requires = "update")]
    pub dry_run: bool,
    /// With --update, keep nodes that are not in the list.
    #[arg(long, requires = "update")]
    pub keep_missing: bool,
    /// With --update, allow a mass removal: the exact number of nodes the update removes. Required if N is at least 2
    /// and more than half of the nodes with pod CIDRs in the file.
    #[arg(long, value_name = "N", value_parser = number::<usize>, requires = "update", conflicts_with = "keep_missing")]
    pub allow_removals: Option<usize>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// With --update, exit with 2 if the file was changed or, with --dry-run, would be.
    #[arg(long, requires = "update")]
    pub detailed_exitcode: bool,
}

/// A pod CIDR of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnPodCidr {
    /// It has no pods.
    None,
    /// This one.
    Cidr(IpNet),
}

/// A next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NextHopArgument {
    /// The pod gateway of the other node.
    PodGateway,
    /// The address of the other node.
    NodeAddress,
}

#[derive(Debug, Args)]
pub(super) struct SchemaOptions {
    /// Document to describe.
    #[arg(value_enum, default_value_t = Subject::Config, value_name = "NAME")]
    pub subject: Subject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Subject {
    /// The configuration.
    Config,
    /// `hostgw plan --json` and `hostgw show --json`.
    #[value(alias = "show")]
    Plan,
    /// `hostgw plan --state … --json` with the snapshots of several nodes.
    FleetPlan,
    /// The file that `hostgw plan --out` writes.
    SavedPlan,
    /// `apply`, `destroy`, `rollback`, `confirm` and `cancel` with `--json`.
    #[value(aliases = ["apply", "destroy", "rollback", "confirm", "cancel"])]
    Transaction,
    #[cfg(target_os = "linux")]
    /// `hostgw status --json`.
    Status,
    #[cfg(target_os = "linux")]
    /// `hostgw status --history --json`.
    History,
    /// `hostgw snapshot`.
    Snapshot,
    /// The output of the script from `hostgw render --collect`.
    WindowsSnapshot,
    /// `hostgw diff --json` and `hostgw plan --all-nodes --json`.
    Diff,
    /// `hostgw check-cni --json`.
    CheckCni,
    /// `hostgw doctor --json`.
    Doctor,
    /// `hostgw audit --json`.
    Audit,
    /// `hostgw explain --json`.
    Explain,
    /// `hostgw import --json`.
    Import,
    /// `hostgw validate --json`.
    Validate,
    #[cfg(target_os = "linux")]
    /// `hostgw simulate --json`.
    Simulate,
    #[cfg(target_os = "linux")]
    /// `hostgw rehearse --json`.
    Rehearse,
    /// The error of any command with `--json` that fails before it has a result.
    Error,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// Shell to complete for.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(alias = "pwsh")]
    Powershell,
    Zsh,
}

#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// Directory to write to; created if missing.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct HelpOptions {
    /// A command, a guide, or a diagnostic code such as HG0210 [default: an overview of commands and guides].
    #[arg(value_name = "TOPIC")]
    pub subject: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SimulateOptions {
    /// Configuration file, or `-` for standard input [default: the same as for `hostgw plan`].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Build only these nodes, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "sample")]
    pub nodes: Vec<String>,
    /// Build a sample of N nodes: the first of each operating system, the first and last in the file, and random others
    /// [default: 30, or all nodes if there are fewer].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub sample: Option<u32>,
    /// Build the same sample as the earlier run that printed SEED; pass the same --sample, too.
    #[arg(long, value_name = "SEED", value_parser = number::<u64>, conflicts_with = "nodes")]
    pub seed: Option<u64>,
    /// A network of the nodes, such as 172.30.0.0/16; repeatable. A router connects nodes in different networks [default:
    /// each /24 (IPv6: /64) that contains a node's address].
    #[arg(long = "network", value_name = "CIDR", value_parser = network)]
    pub networks: Vec<IpNet>,
    /// Keep the cluster running until Ctrl-C, and print how to enter each namespace.
    #[arg(long, conflicts_with = "json")]
    pub keep: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RehearseOptions {
    #[command(flatten)]
    pub target: TargetOptions,
    /// Take over foreign objects that conflict with the plan, as `hostgw apply --adopt` does.
    #[arg(long)]
    pub adopt: bool,
    /// Allow a mass removal, as `hostgw apply --allow-removals` does.
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub allow_removals: Option<usize>,
    /// Simulate N other nodes: first those that the plan would leave unreachable, then the first of each operating system,
    /// the first and last in the file, and random others [default: 10, or all nodes if there are fewer].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub sample: Option<u32>,
    /// Simulate the same nodes as the earlier run that printed SEED; pass the same --sample, too.
    #[arg(long, value_name = "SEED", value_parser = number::<u64>)]
    pub seed: Option<u64>,
    /// List every connection, instead of summarizing those with the same result.
    #[arg(long, conflicts_with = "json")]
    pub full: bool,
    /// Keep the copy running until Ctrl-C, and print how to enter each namespace. The rollback is not tested.
    #[arg(long, conflicts_with = "json")]
    pub keep: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Parses a network.
fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| "expected a prefix such as 10.244.0.0/16".to_owned())?;
    match net.trunc() == net {
        true => Ok(net),
        false => Err(format!("host bits set; did you mean {}?", net.trunc())),
    }
}

/// Parses a whole number.
fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number".to_owned())
}

/// Parses a whole number from 1.
fn at_least_one(text: &str) -> Result<u32, String> {
    let found = text.parse().ok().filter(|number| *number > 0);
    found.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// Parses the address of a host.
fn destination(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address: hostgw does not look up names".to_owned())
}

/// Parses a pod CIDR of this node.
fn own_pod_cidr(text: &str) -> Result<OwnPodCidr, String> {
    if text == "none" { Ok(OwnPodCidr::None) } else { network(text).map(OwnPodCidr::Cidr) }
}

/// Parses the address of a server. A port alone, with or without a colon before it, is one of the loopback interface.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix(':').unwrap_or(text).parse() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => text.parse().map_err(
            |_| "expected an address and a port, such as 127.0.0.1:10087 or [::1]:10087, or a port",
        )?,
    };
    match address.port() {
        0 => Err("the port must be between 1 and 65535".to_owned()),
        _ => Ok(address),
    }
}

/// Parses the time limit of a pending apply.
fn confirmation(text: &str) -> Result<Duration, String> {
    /// Longer than a day is a forgotten terminal, not a pending confirmation.
    const MAX: Duration = Duration::from_secs(24 * 60 * 60);
    let time = duration(text)?;
    if time < Duration::from_secs(1) || time > MAX {
        return Err("must be between 1s and 24h".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Returns the codes at the beginning of the lines of a list.
    fn codes<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
        lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    #[test]
    fn help_and_guide_list_the_same_exit_codes() {
        let guide =
            include_str!("../guide/exit-codes-and-json.md").split("## Exit codes").nth(1).expect("the table");
        let rows = guide.lines().map_while(|line| (!line.starts_with("## ")).then_some(line));
        let listed = codes(rows.filter_map(|row| row.strip_prefix("| ")));
        assert_eq!(listed, codes(EXIT_CODES.lines()));
        assert_eq!(listed, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 64, 130]);
    }

    #[test]
    fn a_port_alone_is_one_of_the_loopback_interface() {
        let parsed = |text: &str| listen_address(text).map(|address| address.to_string());
        for text in ["10087", ":10087", "127.0.0.1:10087"] {
            assert_eq!(parsed(text).as_deref(), Ok("127.0.0.1:10087"), "{text}");
        }
        for text in ["[::1]:10087", "[::]:10087", "0.0.0.0:1", "172.30.0.11:65535"] {
            assert_eq!(parsed(text).as_deref(), Ok(text));
        }
        for text in ["", ":", "0", ":0", "127.0.0.1:0", "65536", "127.0.0.1", "::1:10087x", "localhost:10087"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    /// Every option that does not accept any text says what it expects, rather than what a parser of the standard library says.
    #[test]
    fn wrong_values_are_explained() {
        let mut wrong = 0;
        let mut whole = Arguments::command();
        whole.build();
        for command in whole.get_subcommands() {
            let head = ["hostgw", command.get_name()];
            let options = command.get_arguments().filter(|argument| argument.get_action().takes_values());
            for argument in options {
                let option = argument.get_long().map(|long| format!("--{long}"));
                let mut words = head.to_vec();
                words.extend(option.as_deref());
                words.push("\u{1}");
                let Err(error) = Arguments::try_parse_from(&words) else { continue };
                let text = error.to_string();
                if error.kind() != clap::error::ErrorKind::ValueValidation {
                    continue;
                }
                wrong += 1;
                assert!(
                    ["expected ", "use ", "must "].iter().any(|word| text.contains(&format!(": {word}"))),
                    "{words:?}: {text}"
                );
            }
        }
        assert!(wrong >= 15, "{wrong}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn short_flags_mean_the_same_everywhere() {
        // clap derives a short flag from a field's name; listing them keeps a rename from adding one.
        let known = [('f', "file"), ('y', "yes"), ('h', "help"), ('V', "version")];
        let mut command = Arguments::command();
        command.build();
        for verb in command.get_subcommands() {
            for argument in verb.get_arguments() {
                let Some(short) = argument.get_short() else { continue };
                let long = argument.get_long().unwrap_or_default();
                assert!(known.contains(&(short, long)), "{}: -{short} is --{long}", verb.get_name());
            }
            let takes_file = verb.get_arguments().any(|argument| argument.get_long() == Some("file"));
            assert!(
                !takes_file || verb.get_arguments().any(|argument| argument.get_short() == Some('f')),
                "{} takes --file and not -f",
                verb.get_name()
            );
        }
    }
}
