//! What can be said on the command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::transaction_json::Operation;
use crate::{guide::GUIDES, render::NetplanId, text::duration};

/// The exit codes, as `hostgw help` lists them.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
    0  done, or nothing to do
    1  unexpected error; of simulate, something does not work
    2  changes pending, something was changed, or drift; only with --detailed-exitcode
    3  configuration invalid, or it does not fit this node
    4  another apply holds the lock
    5  the live state changed since the plan was shown or saved
    6  apply failed; rolled back, and the rollback verified
    7  rollback incomplete: what is left is listed, with the commands that would finish it
    8  declined, too many removals, no terminal to ask on, or not confirmed in time;
       state restored. Of confirm: this call confirmed nothing
    9  plan incomplete: part of the live state could not be read
   10  conflict with something hostgw does not own
   64  usage error
  130  interrupted; rolled back where something had been changed";

/// The environment variables, as `hostgw help` lists them.
pub(super) const ENVIRONMENT: &str = "\
Environment:
  HOSTGW_FILE       the configuration, where no -f names one
  HOSTGW_NODE       the node, where no --node names one
  HOSTGW_STATE_DIR  the state directory; default: /run/hostgw
  PAGER             the program that shows long plans; default: less";

/// The version with the git commit it is built from, where it is built in a repository.
const VERSION: &str = env!("HOSTGW_VERSION");

/// The date of that commit, or nothing.
pub(super) const DATE: &str = env!("HOSTGW_DATE");

/// What `hostgw help` says after the options.
fn after_help() -> String {
    let mut text = format!("{EXIT_CODES}\n\n{ENVIRONMENT}\n\nGuides (hostgw help GUIDE):\n");
    for guide in GUIDES {
        text.push_str(&format!("  {:<20} {}\n", guide.name, guide.summary));
    }
    text
}

/// Declarative host gateway networking for Kubernetes nodes.
///
/// One file describes the cluster. `plan` shows what would change in this node's routes, NAT and sysctls;
/// `apply` makes it so as one transaction, and puts everything back if any part fails.
#[derive(Debug, Parser)]
#[command(name = "hostgw", version = VERSION, after_help = after_help(), max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// When to use colour: auto follows NO_COLOR, CLICOLOR_FORCE, FORCE_COLOR, then the terminal.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Do not show a long plan on a terminal by the program that PAGER names (default: less).
    #[arg(long, global = true)]
    pub no_pager: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what would change on this node; changes nothing.
    Plan(PlanOptions),
    /// Plan, ask, change, verify; put everything back on failure.
    Apply(ApplyOptions),
    /// Remove all that hostgw owns on this node and restore its sysctls.
    Destroy(DestroyOptions),
    /// Keep the pending apply (apply --confirm); works from any shell on this node.
    ///
    /// Exits with 8 unless this very call confirmed an apply.
    Confirm(ConfirmOptions),
    /// Roll back the pending apply now.
    Cancel(CancelOptions),
    /// Undo the last apply, or finish undoing an interrupted one.
    Rollback(RollbackOptions),
    /// Show what hostgw owns on this node, the last apply, and drift.
    Status(StatusOptions),
    /// Show a plan that hostgw plan --out saved; needs no node and no root.
    Show(ShowOptions),
    /// Print all that plans of this node can rest on, as JSON, to plan elsewhere (plan --state).
    Snapshot,
    /// Show what a change of the configuration changes on every node; needs no node and no root.
    Diff(DiffOptions),
    /// Write a node's plan as a script to read, or to run where hostgw is not: PowerShell for a Windows node, sh for
    /// a Linux node.
    ///
    /// The script plans on the node, commits as one transaction and undoes it on failure. The one for Windows is made
    /// from the documentation of the cmdlets, and has not been run on Windows by the authors of hostgw:
    /// examples/windows has a self-test.
    Render(RenderOptions),
    /// Check whether a node's CNI configuration fits the cluster.
    ///
    /// Checks that it hands out the node's pod CIDR, that its pod gateway is the one that hostgw routes to, that its MTU
    /// is not larger than routes.mtu and, on Linux, that ipMasq is off. On Windows the CNI masquerades, by an OutBoundNAT
    /// policy: its exceptions must hold the cluster prefix, in the spelling of HNS (ExceptionList) or of HCN
    /// (Settings.Exceptions). Shows what to change.
    CheckCni(CheckCniOptions),
    /// Check configuration files; needs no node.
    Validate(ValidateOptions),
    /// Build the cluster in network namespaces, apply it there, and prove that traffic flows.
    Simulate(SimulateOptions),
    /// Print the JSON Schema of the configuration, or of a document that hostgw writes.
    Schema(SchemaOptions),
    /// Print the completion script of a shell.
    ///
    /// It completes commands, options, files, node names of the configuration, and git revisions. Load it in the
    /// startup file of the shell: `source <(hostgw completions bash)`.
    Completions(CompletionsOptions),
    /// Write manual pages: hostgw(1), one for each command and one for each guide.
    Man(ManOptions),
    /// Explain a command or show a guide.
    Help(HelpOptions),
    /// Roll back what nobody confirms; for apply --confirm to start.
    #[command(hide = true)]
    Supervise,
}

impl Verb {
    /// What works on a Linux node alone, by its name on the command line.
    #[cfg(not(target_os = "linux"))]
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "hostgw apply",
            Self::Destroy(_) => "hostgw destroy",
            Self::Confirm(_) => "hostgw confirm",
            Self::Cancel(_) => "hostgw cancel",
            Self::Rollback(_) => "hostgw rollback",
            Self::Status(_) => "hostgw status",
            Self::Snapshot => "hostgw snapshot",
            Self::Simulate(_) => "hostgw simulate",
            _ => "this command",
        }
    }

    /// The form of the result, and of failures.
    pub(super) const fn form(&self) -> Form {
        let (json, operation) = match self {
            Self::Plan(options) => (options.json, None),
            Self::Apply(options) => (options.json, Some(Operation::Apply)),
            Self::Destroy(options) => (options.json, Some(Operation::Destroy)),
            Self::Confirm(options) => (options.json, Some(Operation::Confirm)),
            Self::Cancel(options) => (options.json, Some(Operation::Cancel)),
            Self::Rollback(options) => (options.json, Some(Operation::Rollback)),
            Self::Status(options) => (options.json, None),
            Self::Show(options) => (options.json, None),
            Self::Diff(options) => (options.json, None),
            Self::CheckCni(options) => (options.json, None),
            Self::Validate(options) => (options.json, None),
            Self::Simulate(options) => (options.json, None),
            Self::Snapshot | Self::Render(_) | Self::Schema(_) | Self::Supervise => (false, None),
            Self::Completions(_) | Self::Man(_) | Self::Help(_) => (false, None),
        };
        match (json, operation) {
            (false, _) => Form::Text,
            (true, None) => Form::Json,
            (true, Some(operation)) => Form::Transaction(operation),
        }
    }
}

/// The form of what a verb prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Text for people.
    Text,
    /// One JSON document: the result, or the error.
    Json,
    /// One JSON document about a transaction, however it ends.
    Transaction(Operation),
}

/// Which configuration, and which of its nodes.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The configuration; `-` is standard input. Default: HOSTGW_FILE, else hostgw.yaml, hostgw.yml or hostgw.toml
    /// here, else in /etc/hostgw.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The node to plan for. Default: HOSTGW_NODE, else the node that owns an address of this machine, else the one
    /// with its host name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PlanOptions {
    #[command(flatten)]
    pub target: Target,
    /// Plan to take over what is not hostgw's where hostgw needs the place.
    #[arg(long)]
    pub adopt: bool,
    /// Plan for the node as it was when hostgw snapshot printed this file, wherever this runs; of a Windows
    /// node, what the script of hostgw render --collect printed. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Show what the file asks for on every node, without looking at this one.
    #[arg(long, conflicts_with_all = ["node", "adopt", "state", "out"])]
    pub all_nodes: bool,
    /// With --all-nodes, show every change and every name.
    #[arg(long, requires = "all_nodes")]
    pub full: bool,
    /// Show names and counts only.
    #[arg(long, conflicts_with_all = ["full", "json", "markdown"])]
    pub summary: bool,
    /// Save the plan to this file: hostgw apply FILE applies just that, or refuses. Nothing is saved of a plan
    /// with conflicts or unknown parts.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the plan as Markdown for a comment of a pull request: removals first, and no more than fits.
    #[arg(long, conflicts_with_all = ["json", "full"])]
    pub markdown: bool,
    /// Exit with 2 when changes are pending.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApplyOptions {
    /// A plan that hostgw plan --out saved: just that is applied, without a question, or it is refused as
    /// stale; `-` is standard input.
    #[arg(value_name = "PLAN", conflicts_with_all = ["file", "node", "adopt"])]
    pub plan: Option<PathBuf>,
    /// Apply a plan that removes more than half of hostgw's routes (at least 10), or leaves no other node:
    /// just so many.
    #[arg(long, value_name = "N")]
    pub allow_removals: Option<usize>,
    #[command(flatten)]
    pub target: Target,
    /// Take over what is not hostgw's where hostgw needs the place; rollback gives it back.
    #[arg(long)]
    pub adopt: bool,
    /// Roll back after TIME (as in 90s or 5m) unless `hostgw confirm` is run, even if this terminal is gone.
    #[arg(long, value_name = "TIME", value_parser = confirmation)]
    pub confirm: Option<Duration>,
    #[command(flatten)]
    pub consent: Consent,
    /// Print the result as one JSON document when the command ends; asks nothing, so pass --yes.
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 when something was changed.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// How a command that changes the node gets leave to do so.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Consent {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// How long a command waits for others.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Patience {
    /// How long to wait for another hostgw to end, as in 500ms, 30s or 2m.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub lock_timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ConfirmOptions {
    /// Confirm this apply and no other, by the id that `hostgw apply --confirm` and `hostgw status` print.
    #[arg(value_name = "ID")]
    pub id: Option<u64>,
    /// Wait up to this long for an apply (with ID, for that one) to become pending, as in 30s or 2m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub patience: Patience,
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CancelOptions {
    /// Cancel this apply and no other, by the id that `hostgw apply --confirm` and `hostgw status` print.
    #[arg(value_name = "ID")]
    pub id: Option<u64>,
    #[command(flatten)]
    pub patience: Patience,
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DestroyOptions {
    /// Restore the original value of a sysctl even if somebody else has changed it since.
    #[arg(long)]
    pub adopt: bool,
    /// Keep the value of a sysctl that somebody else has changed since, and do not restore it later either.
    #[arg(long, conflicts_with = "adopt")]
    pub abandon: bool,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub preview: Preview,
    /// Print the result as one JSON document when the command ends; asks nothing, so pass --yes.
    #[arg(long)]
    pub json: bool,
}

/// How a command that changes the node is tried first, and what it ends with.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Preview {
    /// Show what would change; change nothing, take no lock.
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 2 when something was changed; with --dry-run, when something would be.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct RollbackOptions {
    /// Restore the previous routes and sysctls even where somebody else has changed them since.
    #[arg(long)]
    pub adopt: bool,
    /// Keep what cannot be restored or what somebody else has changed since, list it, and end the transaction.
    #[arg(long, conflicts_with = "adopt")]
    pub abandon: bool,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub preview: Preview,
    /// Print the result as one JSON document when the command ends; asks nothing, so pass --yes.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// Show the transactions that rollback can undo, newest first, instead.
    #[arg(long)]
    pub history: bool,
    /// Print the status as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 when the live state has drifted.
    #[arg(long, conflicts_with = "history")]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    /// The saved plan; `-` is standard input.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Show names and counts only.
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    pub summary: bool,
    /// Print the plan as JSON, as hostgw plan --json does.
    #[arg(long)]
    pub json: bool,
    /// Print the plan as Markdown for a comment of a pull request: removals first, and no more than fits.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiffOptions {
    /// The old configuration, a file; `-` is standard input. Without NEW, or with -f: a git revision (which
    /// is compared with the working tree), OLD..NEW, or OLD...NEW (since both branched off).
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The new configuration, a file; with -f, a git revision.
    #[arg(value_name = "NEW")]
    pub new: Option<PathBuf>,
    /// Compare git revisions of this file. Default, without NEW: as for plan.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show every change and every name: many changes of one kind are one line otherwise.
    #[arg(long, conflicts_with = "summary")]
    pub full: bool,
    /// Show names and counts only.
    #[arg(long)]
    pub summary: bool,
    /// Print the changes as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the changes as Markdown for a comment of a pull request: removals first, and no more than fits.
    #[arg(long, conflicts_with_all = ["json", "full", "summary"])]
    pub markdown: bool,
    /// Exit with 2 when something changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenderOptions {
    /// The configuration; `-` is standard input. Default: as for plan.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The node whose plan it is. Default: HOSTGW_NODE.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Of a Windows node: a script that changes nothing and prints what stands, for plan --node NAME --state FILE.
    #[arg(long)]
    pub collect: bool,
    /// Print a file that restores part of a Linux node's state at boot, instead of a script. Its comments say where to
    /// install it. A file for routes needs one for NAT (nftables) and one for sysctls (sysctl.d) beside it.
    #[arg(long, value_enum, value_name = "PROGRAM", conflicts_with = "collect")]
    pub persist: Option<Persist>,
    /// The ID of the egress interface in the netplan configuration, for --persist netplan. Default: the name of the
    /// interface. `networkctl status INTERFACE` shows it in the name of the Network File: 10-netplan-ID.network.
    #[arg(long, value_name = "ID", requires = "persist")]
    pub netplan_id: Option<NetplanId>,
    /// Write to this file instead of standard output: whole or not at all, a script as executable.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Persist {
    /// Routes: a drop-in for systemd-networkd.
    SystemdNetworkd,
    /// Routes: a drop-in for systemd-networkd as netplan configures it.
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
}

#[derive(Debug, Args)]
pub(super) struct CheckCniOptions {
    /// The CNI configuration, or a list of them (.conf, .conflist); `-` is standard input.
    #[arg(value_name = "FILE")]
    pub cni: PathBuf,
    /// The configuration of hostgw. Default: as for plan.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The node that the file is for. Default: HOSTGW_NODE, else the node whose pod CIDR the file hands out.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateOptions {
    /// The files to check; `-` is standard input. Default: as for plan.
    #[arg(value_name = "FILE", action = ArgAction::Append)]
    pub files: Vec<PathBuf>,
    /// A file to check, named as for the other commands; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE", action = ArgAction::Append)]
    pub more: Vec<PathBuf>,
    /// Print the mistakes as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SchemaOptions {
    /// The document that the schema describes.
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
    /// `hostgw diff --json` and `hostgw plan --all-nodes --json`.
    Diff,
    /// `hostgw check-cni --json`.
    CheckCni,
    /// `hostgw validate --json`.
    Validate,
    #[cfg(target_os = "linux")]
    /// `hostgw simulate --json`.
    Simulate,
    /// Any command with `--json` that fails before it has a result.
    Error,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// The shell.
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
    /// The directory to write to; created if missing.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct HelpOptions {
    /// A command, or a guide from the list that `hostgw help` prints.
    #[arg(value_name = "COMMAND")]
    pub subject: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SimulateOptions {
    /// The configuration; `-` is standard input. Default: as for plan.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Build these nodes only.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "sample")]
    pub nodes: Vec<String>,
    /// Build so many nodes: the first of each operating system, the first and the last of the file, the
    /// rest at random. Default: all, or 30 where there are more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// Draw the sample of this size that an earlier run printed this seed for.
    #[arg(long, value_name = "SEED", conflicts_with = "nodes")]
    pub seed: Option<u64>,
    /// Leave the cluster standing until Ctrl-C, and say how to enter each namespace.
    #[arg(long, conflicts_with = "json")]
    pub keep: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How long an apply waits for its confirmation.
fn confirmation(text: &str) -> Result<Duration, String> {
    /// Who needs longer has gone home.
    const MOST: Duration = Duration::from_secs(24 * 60 * 60);
    let time = duration(text)?;
    if time < Duration::from_secs(1) || time > MOST {
        return Err("say at least 1s, and at most 24h".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The codes at the beginning of the lines of a list.
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
        assert_eq!(listed, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 64, 130]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn short_flags_mean_the_same_everywhere() {
        // clap makes one of a field's name: each is listed here, so that none comes to be by a rename.
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
