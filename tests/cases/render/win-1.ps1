# hostgw: routes and forwarding of Windows node win-1
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
# Usage:
#   (no switch)        Apply the changes and verify them; roll everything back on failure.
#   -WhatIf            Show the changes without making them. Works with -Destroy, -Install and -Uninstall, and without
#                      administrator rights.
#   -Adopt             Take over conflicting foreign routes.
#   -Rollback          Roll back the last run, or resume an incomplete rollback.
#   -Destroy           Remove everything that hostgw manages on this node, and restore forwarding.
#   -Install           Apply the changes, then keep them in effect: copy this script to Program Files\hostgw, and register a
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
# The authors of hostgw wrote this script from the documentation of the cmdlets, and have not run it on Windows. Run the
# self-test in examples/windows of hostgw's repository first.
param(
    [switch] $WhatIf,
    [switch] $Adopt,
    [switch] $Rollback,
    [switch] $Destroy,
    [switch] $Install,
    [switch] $Uninstall,
    [switch] $Scheduled,
    [switch] $AllowRemovals
)

if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed'
    Write-Host 'help: allow this script in that policy, or sign it as the policy requires'
    exit 1
}

$Arguments = @($args)
$Allowed = 0
if ($AllowRemovals -and $Arguments.Count -eq 1) {
    try { $Allowed = [int] $Arguments[0] } catch { $Allowed = 0 }
    if ([string] $Allowed -cne [string] $Arguments[0]) { $Allowed = 0 }
}

# The caller's $WhatIfPreference implies -WhatIf.
if ($WhatIfPreference -and -not $PSBoundParameters.ContainsKey('WhatIf')) { $WhatIf = $true }
$WhatIfPreference = $false

# ---- Data: everything that differs from node to node

$Node = 'win-1'
$ConfigHash = '0123456789abcdef'
$InterfaceAlias = ''  # empty: the interface that has one of $Addresses
$Addresses = @('172.30.0.12')
$PodGateways = @('10.244.1.2')  # addresses of the pod interface
$PodAliases = @('vEthernet (cbr0)', 'vEthernet (cbr0_ep)')  # its names, if no interface has these addresses
$Families = @('IPv4')
# Role: pods of another node, own pods, or masterAddress. NextHop: 0.0.0.0 and :: are on-link; empty is the default
# gateway of the interface
$Routes = @(
    @{ Role = 'node'; Destination = '10.244.0.0/24'; NextHop = '10.244.0.1'; Metric = 256; Why = 'pods of node linux-1' }
    @{ Role = 'node'; Destination = '10.244.2.0/25'; NextHop = '10.244.2.1'; Metric = 256; Why = 'pods of node linux-2' }
    @{ Role = 'node'; Destination = '10.244.8.0/21'; NextHop = '10.244.8.2'; Metric = 256; Why = 'pods of node win-2' }
    @{ Role = 'own'; Destination = '10.244.1.0/24'; NextHop = '0.0.0.0'; Metric = 300; Why = 'this node''s pods' }
    @{ Role = 'master'; Destination = '172.30.0.11/32'; NextHop = ''; Metric = 256; Why = 'masterAddress via the default gateway'; Everything = '0.0.0.0/0' }
)

# ---- Body: the same in every script of this version

# The codes of warnings; `hostgw help CODE` explains them.
$Codes = @{ Skipped = 'HG0812'; Route = 'HG0852'; Disconnected = 'HG0860'; Differs = 'HG0861'; Unknown = 'HG0862' }

# The ranges of characters that are escaped in the output, as pairs of code points.
$Hidden = @(
    0, 31, 127, 159, 173, 173, 847, 847, 1536, 1541, 1564, 1564, 1757, 1757, 1807, 1807,
    2192, 2193, 2274, 2274, 4447, 4448, 6068, 6069, 6155, 6159, 8203, 8207, 8232, 8238, 8288, 8303,
    12644, 12644, 65024, 65039, 65279, 65279, 65440, 65440, 65520, 65531, 69821, 69821, 69837, 69837, 78896, 78911,
    113824, 113827, 119155, 119162, 917504, 921599
)

<src/render/powershell/read.ps1>

<src/render/powershell/off-link.ps1>

<src/render/powershell/paths.ps1>

<src/render/powershell/task.ps1>

<src/render/powershell/apply.ps1>
