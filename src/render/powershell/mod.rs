//! Renders the plan of a Windows node as a PowerShell script for 5.1 and 7: one file without dependencies.
//!
//! A script consists of a header, a data block and a body. Only the data block differs from node to node, for review;
//! the body is the same in every script of a version. The script plans on the node by the rules of
//! [`plan::windows`](crate::plan::windows), and commits as one transaction:
//!
//! | file under Program Files | written |
//! |---|---|
//! | `journal.json`: every change with the previous state | before the first call |
//! | `transcript.log`: a line for each call | before the call |
//! | `state.json`: the managed objects, because Windows has no mark for them | after the verification |
//! | `last.json`: the journal of the last run, for `-Rollback` | at the end of the commit |
//! | `hostgw.ps1`: the copy that the scheduled task runs | by `-Install` |
//! | `failure.json`: the last failure of the task, which is reported once | when the failure changes |
//!
//! A power loss can leave a file empty, truncated or full of zeros. Therefore records are flushed before they are
//! relied on, and are read and validated completely before use: a damaged record never counts as an empty one.
//!
//! A journal that exists at the start of a run was not committed, and is undone first. An undo restores the previous
//! state from any live state, key by key, with the same steps as a commit.

mod literal;

use std::{fmt::Write as _, net::IpAddr};

use super::Provenance;
use crate::{
    diagnose::Rule,
    model::{Cluster, Family, Node, OffLink},
    plan::{
        WindowsDesired, WindowsOrigin,
        windows::{POD_ALIASES, RequiredLink},
    },
    state::WindowsRoute,
    text::hidden_ranges,
};
use literal::{comment, literal};

/// Reads the live state. Both scripts contain it.
const READ: &str = include_str!("read.ps1");

/// Adapts routes to the links of the node.
const OFF_LINK: &str = include_str!("off-link.ps1");

/// Determines which routes packets use, and asks Windows.
const PATHS: &str = include_str!("paths.ps1");

/// Installs and uninstalls the scheduled task, and reports its runs to the event log.
const TASK: &str = include_str!("task.ps1");

/// Commits and rolls back.
const APPLY: &str = include_str!("apply.ps1");

/// Prints the live state.
const COLLECT: &str = include_str!("collect.ps1");

/// The warning that the script was not tested on Windows.
const UNTESTED: &str = "\
# The authors of hostgw wrote this script from the documentation of the cmdlets, and have not run it on Windows. Run the
# self-test in examples/windows of hostgw's repository first.
";

/// The check of the language mode. In a constrained mode, none of the code below would run, not even the functions
/// that report an error. Hence this uses only the core of PowerShell.
const FULL_LANGUAGE: &str = "
if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed'
    Write-Host 'help: allow this script in that policy, or sign it as the policy requires'
    exit 1
}
";

/// Parses the arguments. All parameters are switches, so `$args` contains everything else, which PowerShell would
/// otherwise ignore; that includes the number for `-AllowRemovals`.
const ARGUMENTS: &str = "
$Arguments = @($args)
$Allowed = 0
if ($AllowRemovals -and $Arguments.Count -eq 1) {
    try { $Allowed = [int] $Arguments[0] } catch { $Allowed = 0 }
    if ([string] $Allowed -cne [string] $Arguments[0]) { $Allowed = 0 }
}

# The caller's $WhatIfPreference implies -WhatIf.
if ($WhatIfPreference -and -not $PSBoundParameters.ContainsKey('WhatIf')) { $WhatIf = $true }
$WhatIfPreference = $false
";

/// Renders the script that brings the node at `index` of `cluster` to its desired state. It is ASCII with Windows line
/// endings.
#[must_use]
pub fn windows_script(
    cluster: &Cluster,
    index: usize,
    desired: &WindowsDesired,
    provenance: &Provenance,
) -> String {
    let node = &cluster.nodes[index];
    let mut text = header(node, provenance);
    text.push_str(
        "#
# Usage:
#   (no switch)        Apply the changes and verify them; roll everything back on failure.
#   -WhatIf            Show the changes without making them. Works with -Destroy, -Install and -Uninstall, and without
#                      administrator rights.
#   -Adopt             Take over conflicting foreign routes.
#   -Rollback          Roll back the last run, or resume an incomplete rollback.
#   -Destroy           Remove everything that hostgw manages on this node, and restore forwarding.
#   -Install           Apply the changes, then keep them in effect: copy this script to Program Files\\hostgw, and register a
#                      scheduled task that runs it as SYSTEM at startup, when a network connects, and every 5 minutes.
#   -Uninstall         Remove the task, its copy of the script, and its event source. Routes stay.
#   -Scheduled         Used by the task: reports changes and failures to the event log, and never prompts.
#   -AllowRemovals N   Allow a mass removal: the exact number of destinations to remove. Required if it is at least 10 and
#                      more than half of the managed ones, or if no route to another node would be left.
#
# Run it as a file: powershell -ExecutionPolicy Bypass -File SCRIPT. PowerShell ignores a script on standard input.
#
# Exit codes: 0 success, or no changes; 1 unexpected error, damaged record, or not an administrator; 3 the configuration
# does not fit this machine; 4 another run holds the lock; 6 failed, rolled back and verified; 7 rollback incomplete,
# remaining commands listed; 8 refused: mass removal, or -Destroy while the task is active; 10 conflict with foreign objects;
# 64 invalid arguments; 130 interrupted and rolled back.
#
",
    );
    text.push_str(UNTESTED);
    text.push_str(
        "param(
    [switch] $WhatIf,
    [switch] $Adopt,
    [switch] $Rollback,
    [switch] $Destroy,
    [switch] $Install,
    [switch] $Uninstall,
    [switch] $Scheduled,
    [switch] $AllowRemovals
)
",
    );
    text.push_str(FULL_LANGUAGE);
    text.push_str(ARGUMENTS);
    text.push_str("\n# ---- Data: everything that differs from node to node\n\n");
    data(&mut text, cluster, node, desired, provenance);
    let _ = write!(
        text,
        "\n# ---- Body: the same in every script of this version\n\n{}\n{}\n{READ}\n{OFF_LINK}\n{PATHS}\n{TASK}\n{APPLY}",
        codes(),
        hidden_characters()
    );
    with_windows_line_endings(&text)
}

/// Renders the script that prints the live state of the node as input for `plan --node NODE --state FILE`.
#[must_use]
pub fn windows_collector(cluster: &Cluster, index: usize, provenance: &Provenance) -> String {
    let node = &cluster.nodes[index];
    let mut text = header(node, provenance);
    let _ = write!(
        text,
        "#
# Prints routes, addresses and forwarding as JSON, without changing anything. Does not require administrator rights:
#
#   powershell -ExecutionPolicy Bypass -File collect.ps1 >node.json
#
# Then plan with it: hostgw plan --node {} --state node.json
#
{UNTESTED}{FULL_LANGUAGE}
$Arguments = @($args)
$Node = {}

{}
{READ}
{COLLECT}",
        comment(&shell_word(node.name.as_raw())),
        literal(node.name.as_raw()),
        hidden_characters()
    );
    with_windows_line_endings(&text)
}

/// Renders the codes of warnings, which `hostgw help CODE` explains.
fn codes() -> String {
    let codes = [
        ("Skipped", Rule::SkippedOffLink),
        ("Route", Rule::PathByRoute),
        ("Disconnected", Rule::InterfaceDisconnected),
        ("Differs", Rule::FindNetRouteDiffers),
        ("Unknown", Rule::PathUnknown),
    ];
    let entries = codes.map(|(name, rule)| format!("{name} = '{rule}'"));
    format!(
        "# The codes of warnings; `hostgw help CODE` explains them.\n$Codes = @{{ {} }}\n",
        entries.join("; ")
    )
}

/// Renders the table of characters that the script escapes before it prints them.
fn hidden_characters() -> String {
    let ranges: Vec<String> =
        hidden_ranges().iter().map(|(first, last)| format!("{first}, {last}")).collect();
    let lines: Vec<String> = ranges.chunks(8).map(|line| format!("    {}", line.join(", "))).collect();
    format!(
        "# The ranges of characters that are escaped in the output, as pairs of code points.\n$Hidden = @(\n{}\n)\n",
        lines.join(",\n")
    )
}

/// Quotes a name as an argument of a POSIX shell.
fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

fn header(node: &Node, provenance: &Provenance) -> String {
    format!(
        "# hostgw: routes and forwarding of Windows node {}
# from {}, SHA-256 {}, by hostgw {}
",
        comment(node.name.as_raw()),
        comment(provenance.file),
        provenance.config_hash,
        env!("CARGO_PKG_VERSION"),
    )
}

fn data(
    text: &mut String,
    cluster: &Cluster,
    node: &Node,
    desired: &WindowsDesired,
    provenance: &Provenance,
) {
    let alias = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
    let addresses = node.addresses.iter().map(|(_, address)| address.to_string());
    let gateways = node.pod_gateways();
    let families = cluster.prefixes.families().map(|family| family.to_string());
    let pod_aliases = POD_ALIASES.map(ToOwned::to_owned).into_iter();
    let entries = [
        ("$Node", literal(node.name.as_raw()), ""),
        ("$ConfigHash", literal(provenance.config_hash), ""),
        ("$InterfaceAlias", literal(alias), "# empty: the interface that has one of $Addresses"),
        ("$Addresses", list(addresses), ""),
        (
            "$PodGateways",
            list(gateways.map(|gateway: IpAddr| gateway.to_string())),
            "# addresses of the pod interface",
        ),
        ("$PodAliases", list(pod_aliases), "# its names, if no interface has these addresses"),
        ("$Families", list(families), ""),
    ];
    for (name, value, comment_text) in entries {
        let line = format!("{name} = {value}");
        let _ = writeln!(
            text,
            "{}",
            if comment_text.is_empty() { line } else { format!("{line}  {comment_text}") }
        );
    }
    let routes = || desired.state.routes.iter().zip(&desired.origins);
    if routes().any(|(route, origin)| RequiredLink::of(cluster, route, *origin).is_some()) {
        let _ = writeln!(
            text,
            "# What happens to a route to node Peer if the address Link is not on the link of the interface\n$OffLink = '{}'",
            cluster.off_link.word()
        );
    }
    text.push_str(
        "# Role: pods of another node, own pods, or masterAddress. NextHop: 0.0.0.0 and :: are on-link; empty is the default\n\
         # gateway of the interface\n$Routes = @(\n",
    );
    for (route, origin) in routes() {
        let _ = writeln!(text, "    {}", entry(cluster, route, *origin));
    }
    text.push_str(")\n");
}

/// Renders a route for the data block.
fn entry(cluster: &Cluster, route: &WindowsRoute, origin: WindowsOrigin) -> String {
    let next_hop = route.next_hop.map(|address| address.to_string()).unwrap_or_default();
    let role = match origin {
        WindowsOrigin::Node(_) => "node",
        WindowsOrigin::OwnPods(_) => "own",
        WindowsOrigin::Master => "master",
    };
    let everything = match (route.next_hop, route.family()) {
        (Some(_), _) => "",
        (None, Family::V4) => "; Everything = '0.0.0.0/0'",
        (None, Family::V6) => "; Everything = '::/0'",
    };
    let link = RequiredLink::of(cluster, route, origin)
        .map(|link| required_link(cluster, &link))
        .unwrap_or_default();
    format!(
        "@{{ Role = '{role}'; Destination = '{}'; NextHop = '{next_hop}'; Metric = {}; Why = {}{everything}{link} }}",
        route.destination_prefix,
        route.route_metric,
        literal(&origin.reason_in(cluster))
    )
}

/// Renders what must be on the link for a route: with `offLink: gateway`, also the other node's own address.
fn required_link(cluster: &Cluster, link: &RequiredLink) -> String {
    let address = || link.address.map(|address| address.to_string()).unwrap_or_default();
    let address = match cluster.off_link {
        OffLink::Gateway => format!("; Address = '{}'", address()),
        OffLink::Refuse | OffLink::Skip | OffLink::Onlink => String::new(),
    };
    let peer = literal(cluster.nodes[link.peer].name.as_raw());
    format!("; Link = '{}'; Peer = {peer}{address}", link.on_link)
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("@({})", items.map(|item| literal(&item)).collect::<Vec<_>>().join(", "))
}

/// Converts line endings, because Notepad on old Windows versions shows only CR LF as a line break.
fn with_windows_line_endings(text: &str) -> String {
    text.replace('\n', "\r\n")
}
