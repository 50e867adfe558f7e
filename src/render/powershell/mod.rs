//! A Windows node's plan as a PowerShell script, for 5.1 and 7: one file that needs nothing else.
//!
//! A script is a header, a data block and a body. The data block is all that differs from node to node, for people to
//! review; the body is the same in every script of a version. It plans on the node by the rules of
//! [`plan::windows`](crate::plan::windows), and commits as one transaction:
//!
//! | what is kept, below Program Files | when it is written |
//! |---|---|
//! | `journal.json`: every change with what stood before it | before the first call |
//! | `transcript.log`: a line for each call | before the call |
//! | `state.json`: what hostgw owns, for Windows has no mark for it | when all was read back and found right |
//! | `last.json`: the journal of the last run, for `-Rollback` | with that the run is committed |
//!
//! A power loss can leave a file empty, cut short or full of zeros. So records are flushed before they count, and read as
//! a whole and checked before anything of them is used: a damaged record is never taken for an empty one.
//!
//! A journal that is there when a run begins is one that was not committed: it is undone first. Undoing goes from
//! whatever stands to what stood before, key by key, by the same steps as going forward.

mod literal;

use std::{fmt::Write as _, net::IpAddr};

use super::Facts;
use crate::{
    model::{Cluster, Family, Node},
    plan::{WindowsDesired, WindowsOrigin, windows::POD_ALIASES},
    state::WindowsRoute,
    text::hidden_ranges,
};
use literal::{comment, literal};

/// What both scripts have in common: how to read what stands.
const READ: &str = include_str!("read.ps1");

/// What commits, and undoes.
const APPLY: &str = include_str!("apply.ps1");

/// What prints what stands.
const COLLECT: &str = include_str!("collect.ps1");

/// That nobody should take it for more than it is.
const UNTESTED: &str = "\
# Made from the documentation of the cmdlets, and not run on Windows by the authors of hostgw: its documentation tells of
# a self-test.
";

/// In a constrained language nothing below would run, the functions that report an error included. What is not
/// PowerShell's core is left out here.
const FULL_LANGUAGE: &str = "
if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'Error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed.'
    Write-Host 'Help: allow this script in that policy, or sign it as the policy asks.'
    exit 1
}
";

/// Every parameter is a switch, so that all else is left in `$args`: PowerShell would drop it without a word. The
/// number of `-AllowRemovals` is there too.
const ARGUMENTS: &str = "
$Arguments = @($args)
$Allowed = 0
if ($AllowRemovals -and $Arguments.Count -eq 1) {
    try { $Allowed = [int] $Arguments[0] } catch { $Allowed = 0 }
    if ([string] $Allowed -cne [string] $Arguments[0]) { $Allowed = 0 }
}

# $WhatIfPreference of the caller means -WhatIf.
if ($WhatIfPreference -and -not $PSBoundParameters.ContainsKey('WhatIf')) { $WhatIf = $true }
$WhatIfPreference = $false
";

/// The script that brings node number `index` of `cluster` to its desired state. It ends lines as Windows does, and is
/// ASCII.
#[must_use]
pub fn windows_script(cluster: &Cluster, index: usize, desired: &WindowsDesired, facts: &Facts) -> String {
    let node = &cluster.nodes[index];
    let mut text = header(node, facts);
    text.push_str(
        "#
#   -WhatIf     shows what would be changed; changes nothing, needs no administrator
#   (nothing)   changes it, reads everything back, and puts everything back if any part fails
#   -Adopt      takes over routes of others that stand in the way
#   -Rollback   undoes the last run, or finishes undoing an interrupted one
#   -Destroy    removes what hostgw owns here, and restores forwarding
#   -AllowRemovals N   lets a plan remove more than half of its destinations (at least 10), or all of other nodes: just N
#
# Run it as a file: powershell -ExecutionPolicy Bypass -File SCRIPT. PowerShell ignores a script on standard input.
#
# Exit codes: 0 done, or nothing to do; 1 unexpected error, damaged record, or no administrator; 3 does not fit this
# machine; 4 another run holds the lock; 6 failed and rolled back, verified; 7 rollback incomplete: what is left is listed;
# 8 too many removals; 10 conflict with what hostgw does not own; 64 wrong arguments; 130 interrupted and rolled back.
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
    [switch] $AllowRemovals
)
",
    );
    text.push_str(FULL_LANGUAGE);
    text.push_str(ARGUMENTS);
    text.push_str("\n# ---- Data: all that differs from node to node\n\n");
    data(&mut text, cluster, node, desired, facts);
    let _ = write!(
        text,
        "\n# ---- Body: the same in every script of this version\n\n{}\n{READ}\n{APPLY}",
        hidden()
    );
    with_windows_line_ends(&text)
}

/// The script that prints what stands on the node, as `plan --node NODE --state FILE` takes it.
#[must_use]
pub fn windows_collector(cluster: &Cluster, index: usize, facts: &Facts) -> String {
    let node = &cluster.nodes[index];
    let mut text = header(node, facts);
    let _ = write!(
        text,
        "#
# Prints routes, addresses and forwarding as JSON; changes nothing, needs no administrator. Save what it prints as UTF-8:
#
#   .\\collect.ps1 | Out-File -Encoding utf8 node.json
#
# and plan with it: hostgw plan --node {} --state node.json
#
{UNTESTED}{FULL_LANGUAGE}
$Arguments = @($args)
$Node = {}

{}
{READ}
{COLLECT}",
        comment(&shell_word(node.name.as_raw())),
        literal(node.name.as_raw()),
        hidden()
    );
    with_windows_line_ends(&text)
}

/// The characters that are escaped before they are shown.
fn hidden() -> String {
    let ranges: Vec<String> =
        hidden_ranges().into_iter().map(|(first, last)| format!("{first}, {last}")).collect();
    let lines: Vec<String> = ranges.chunks(8).map(|line| format!("    {}", line.join(", "))).collect();
    format!(
        "# The characters that are escaped before they are shown, from and to, by their numbers.\n$Hidden = @(\n{}\n)\n",
        lines.join(",\n")
    )
}

/// A name as an argument of a shell.
fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

fn header(node: &Node, facts: &Facts) -> String {
    format!(
        "# hostgw: routes and forwarding of Windows node {}
# from {}, SHA-256 {}, by hostgw {}
",
        comment(node.name.as_raw()),
        comment(facts.file),
        facts.config_hash,
        env!("CARGO_PKG_VERSION"),
    )
}

fn data(text: &mut String, cluster: &Cluster, node: &Node, desired: &WindowsDesired, facts: &Facts) {
    let alias = cluster.egress_interface_of(node).map_or("", |name| name.as_str());
    let addresses = node.addresses.iter().map(|(_, address)| address.to_string());
    let gateways = Family::ALL.into_iter().filter_map(|family| node.pod_gateway(family));
    let families = cluster.prefixes.iter().map(|(family, _)| family.to_string());
    let pod_aliases = POD_ALIASES.map(ToOwned::to_owned).into_iter();
    let entries = [
        ("$Node", literal(node.name.as_raw()), ""),
        ("$ConfigHash", literal(facts.config_hash), ""),
        ("$InterfaceAlias", literal(alias), "# empty: the interface that holds one of $Addresses"),
        ("$Addresses", list(addresses), ""),
        (
            "$PodGateways",
            list(gateways.map(|gateway: IpAddr| gateway.to_string())),
            "# held by the pod interface",
        ),
        ("$PodAliases", list(pod_aliases), "# its names, where nothing holds them"),
        ("$Families", list(families), ""),
    ];
    for (name, value, side) in entries {
        let line = format!("{name} = {value}");
        let _ = writeln!(text, "{}", if side.is_empty() { line } else { format!("{line}  {side}") });
    }
    text.push_str(
        "# Role: pods of another node, own pods, or masterAddress. NextHop: 0.0.0.0 and :: are on-link; empty: the default\n\
         # gateway of the interface\n$Routes = @(\n",
    );
    for (route, origin) in desired.state.routes.iter().zip(&desired.origins) {
        let _ = writeln!(text, "    {}", entry(cluster, route, *origin));
    }
    text.push_str(")\n");
}

/// A route in the data block.
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
    format!(
        "@{{ Role = '{role}'; Destination = '{}'; NextHop = '{next_hop}'; Metric = {}; Why = {}{everything} }}",
        route.destination_prefix,
        route.route_metric,
        literal(&origin.purpose(cluster))
    )
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("@({})", items.map(|item| literal(&item)).collect::<Vec<_>>().join(", "))
}

/// Notepad of old Windows shows nothing else as lines.
fn with_windows_line_ends(text: &str) -> String {
    text.replace('\n', "\r\n")
}
