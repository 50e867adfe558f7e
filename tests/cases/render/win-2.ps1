# hostgw: routes and forwarding of Windows node win-2
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
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
# Made from the documentation of the cmdlets, and not run on Windows by the authors of hostgw: its documentation tells of
# a self-test.
param(
    [switch] $WhatIf,
    [switch] $Adopt,
    [switch] $Rollback,
    [switch] $Destroy,
    [switch] $AllowRemovals
)

if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'Error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed.'
    Write-Host 'Help: allow this script in that policy, or sign it as the policy asks.'
    exit 1
}

$Arguments = @($args)
$Allowed = 0
if ($AllowRemovals -and $Arguments.Count -eq 1) {
    try { $Allowed = [int] $Arguments[0] } catch { $Allowed = 0 }
    if ([string] $Allowed -cne [string] $Arguments[0]) { $Allowed = 0 }
}

# $WhatIfPreference of the caller means -WhatIf.
if ($WhatIfPreference -and -not $PSBoundParameters.ContainsKey('WhatIf')) { $WhatIf = $true }
$WhatIfPreference = $false

# ---- Data: all that differs from node to node

$Node = 'win-2'
$ConfigHash = '0123456789abcdef'
$InterfaceAlias = ''  # empty: the interface that holds one of $Addresses
$Addresses = @('172.30.0.14')
$PodGateways = @('10.244.8.2')  # held by the pod interface
$PodAliases = @('vEthernet (cbr0)', 'vEthernet (cbr0_ep)')  # its names, where nothing holds them
$Families = @('IPv4')
# Role: pods of another node, own pods, or masterAddress. NextHop: 0.0.0.0 and :: are on-link; empty: the default
# gateway of the interface
$Routes = @(
    @{ Role = 'node'; Destination = '10.244.0.0/24'; NextHop = '10.244.0.1'; Metric = 256; Why = 'pods of node linux-1' }
    @{ Role = 'node'; Destination = '10.244.1.0/24'; NextHop = '10.244.1.2'; Metric = 256; Why = 'pods of node win-1' }
    @{ Role = 'node'; Destination = '10.244.2.0/25'; NextHop = '10.244.2.1'; Metric = 256; Why = 'pods of node linux-2' }
    @{ Role = 'own'; Destination = '10.244.8.0/21'; NextHop = '0.0.0.0'; Metric = 300; Why = 'own pods are on-link' }
    @{ Role = 'master'; Destination = '172.30.0.11/32'; NextHop = ''; Metric = 256; Why = 'masterAddress via the default gateway'; Everything = '0.0.0.0/0' }
)

