# Tests a script of hostgw on a Windows machine. Run it as administrator.
#
#   powershell -NoProfile -ExecutionPolicy Bypass -File self-test.ps1 -Script self-test-node.ps1
#
# -Script is the output of hostgw render for node self-test of self-test.yaml. The test adds two addresses to the loopback
# interface until the test ends or the machine restarts. It only touches routes of the documentation prefixes
# 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24 (RFC 5737), which are not routed anywhere. It exits with 0 if all checks
# pass.
#
#   -PowerShell PATH       the PowerShell to run the script in; by default the one that runs the test
#   -PodInterface INDEX    the interface to use as the pod interface; by default the loopback interface,
#                          which is then both egress and pod interface
#
# The authors of hostgw have run it against stubs of the cmdlets, but not on Windows: please report its output.
param(
    [string] $Script,
    [string] $PowerShell,
    [int] $PodInterface = 1
)
$Extra = @($args)
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$Loopback = 1
$Address = '192.0.2.10'
$PodGateway = '203.0.113.2'
$Desired = @(
    @{ Destination = '203.0.113.64/26'; NextHop = '203.0.113.65'; Metric = 256 }
    @{ Destination = '203.0.113.128/25'; NextHop = '203.0.113.130'; Metric = 256 }
    @{ Destination = '203.0.113.0/26'; NextHop = '0.0.0.0'; Metric = 300 }
    @{ Destination = '198.51.100.1/32'; NextHop = '192.0.2.1'; Metric = 256 }
)
# Foreign routes: two to the destination of a managed route, one to a part of another node's pods, and one to the node's own
# pods on the pod interface. Only the first two are conflicts.
$Foreign = @(
    @{ Index = $Loopback; Destination = '203.0.113.128/25'; NextHop = '192.0.2.77' }
    @{ Index = $PodInterface; Destination = '203.0.113.128/25'; NextHop = '0.0.0.0' }
)
$Diverting = @{ Index = $PodInterface; Destination = '203.0.113.192/26'; NextHop = '0.0.0.0' }
$OwnPods = @{ Index = $PodInterface; Destination = '203.0.113.32/27'; NextHop = '0.0.0.0' }
$Failed = New-Object System.Collections.ArrayList

function Assert-That([bool] $holds, [string] $what) {
    if ($holds) {
        Write-Host ('ok      ' + $what)
    } else {
        Write-Host ('FAILED  ' + $what)
        [void] $Failed.Add($what)
    }
}

# Runs the script in a new PowerShell. Returns its exit code.
function Invoke-Script([string[]] $switches) {
    $program = $PowerShell
    if ([string]::IsNullOrEmpty($program)) { $program = (Get-Process -Id $PID).Path }
    & $program -NoProfile -ExecutionPolicy Bypass -File $Script @switches | Out-Host
    return $LASTEXITCODE
}

# Returns the metric of a route in a store, or -1 if the store does not contain it.
function Get-Metric($route, [string] $store, [int] $index) {
    $found = @(Get-NetRoute -InterfaceIndex $index -DestinationPrefix $route.Destination -NextHop $route.NextHop -PolicyStore $store -ErrorAction SilentlyContinue |
        Where-Object { [string] $_.Protocol -ne 'Local' })
    if ($found.Count -eq 0) { return -1 }
    return [int] $found[0].RouteMetric
}

# Returns all routes in both stores, and the forwarding settings, as text.
function Get-Snapshot {
    $lines = @()
    foreach ($store in @('ActiveStore', 'PersistentStore')) {
        foreach ($route in @(Get-NetRoute -PolicyStore $store -ErrorAction SilentlyContinue)) {
            $lines += $store + ' ' + $route.InterfaceIndex + ' ' + $route.DestinationPrefix + ' ' + $route.NextHop + ' ' + $route.RouteMetric
        }
    }
    foreach ($interface in @(Get-NetIPInterface -ErrorAction Stop)) {
        $lines += [string] $interface.InterfaceIndex + ' ' + $interface.AddressFamily + ' forwarding ' + $interface.Forwarding
    }
    return (@($lines | Sort-Object) -join "`n")
}

function Test-AllInForce([string] $when) {
    foreach ($route in $Desired) {
        foreach ($store in @('ActiveStore', 'PersistentStore')) {
            Assert-That ((Get-Metric $route $store $Loopback) -eq $route.Metric) ($when + ': ' + $route.Destination + ' in the ' + $store)
        }
    }
}

function Add-Route($route) {
    [void] (New-NetRoute -InterfaceIndex $route.Index -DestinationPrefix $route.Destination -NextHop $route.NextHop -RouteMetric 1 -Confirm:$false -ErrorAction Stop)
}

function Remove-Route($route) {
    foreach ($store in @('ActiveStore', 'PersistentStore')) {
        Remove-NetRoute -InterfaceIndex $route.Index -DestinationPrefix $route.Destination -NextHop $route.NextHop -PolicyStore $store -Confirm:$false -ErrorAction SilentlyContinue
    }
}

# A foreign route is refused with 10, adopted, and restored.
function Test-Foreign($route) {
    $what = $route.Destination + ' on interface ' + $route.Index + ' (foreign)'
    Add-Route $route
    $live = Get-Snapshot
    Assert-That ((Invoke-Script @()) -eq 10) ($what + ' is refused with 10')
    Assert-That ((Get-Snapshot) -eq $live) 'and nothing is changed'
    Assert-That ((Invoke-Script @('-Adopt')) -eq 0) '-Adopt adopts it'
    Assert-That ((Get-Metric $route 'ActiveStore' $route.Index) -eq -1) 'and removes it'
    Assert-That ((Invoke-Script @('-Rollback')) -eq 0) '-Rollback exits with 0'
    Assert-That ((Get-Snapshot) -eq $live) 'and restores it'
    Remove-Route $route
}

# A more specific foreign route stays until it is adopted, and is restored.
function Test-Diverting($route) {
    $what = $route.Destination + ' on interface ' + $route.Index + ' (foreign, more specific)'
    Add-Route $route
    $live = Get-Snapshot
    Assert-That ((Invoke-Script @()) -eq 0) ($what + ' is reported, and the run exits with 0')
    Assert-That ((Get-Snapshot) -eq $live) 'and nothing is changed'
    Assert-That ((Invoke-Script @('-Adopt')) -eq 0) '-Adopt adopts it'
    Assert-That ((Get-Metric $route 'ActiveStore' $route.Index) -eq -1) 'and removes it'
    Assert-That ((Invoke-Script @('-Rollback')) -eq 0) '-Rollback exits with 0'
    Assert-That ((Get-Snapshot) -eq $live) 'and restores it'
    Remove-Route $route
}

function Test-Script {
    $before = Get-Snapshot
    Assert-That ((Invoke-Script @('-Destory')) -eq 64) 'a mistyped switch exits with 64'
    Assert-That ((Get-Snapshot) -eq $before) 'and nothing is changed'
    Assert-That ((Invoke-Script @('-WhatIf')) -eq 0) '-WhatIf exits with 0'
    Assert-That ((Get-Snapshot) -eq $before) '-WhatIf changes nothing'

    Assert-That ((Invoke-Script @()) -eq 0) 'the first run exits with 0'
    Test-AllInForce 'after the first run'
    $applied = Get-Snapshot
    Assert-That ((Invoke-Script @()) -eq 0) 'the second run exits with 0'
    Assert-That ((Get-Snapshot) -eq $applied) 'the second run changes nothing'

    $broken = @{ InterfaceIndex = $Loopback; DestinationPrefix = $Desired[0].Destination; NextHop = $Desired[0].NextHop; Confirm = $false; ErrorAction = 'Stop' }
    Remove-NetRoute @broken -PolicyStore ActiveStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route missing from the active store'
    Test-AllInForce 'repaired'
    Remove-NetRoute @broken -PolicyStore PersistentStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route missing from the persistent store'
    Test-AllInForce 'repaired'
    Set-NetRoute @broken -RouteMetric 77 -PolicyStore ActiveStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route with a changed metric'
    Test-AllInForce 'repaired'

    foreach ($route in $Foreign) { Test-Foreign $route }
    Test-Diverting $Diverting
    Add-Route $OwnPods
    Assert-That ((Invoke-Script @()) -eq 0) 'own pods may use the pod interface'
    Remove-Route $OwnPods

    Assert-That ((Invoke-Script @('-Destroy')) -eq 0) '-Destroy exits with 0'
    Assert-That ((Get-Snapshot) -eq $before) '-Destroy restores the state from before the first run'
}

if ([string]::IsNullOrEmpty($Script)) {
    [Console]::Error.WriteLine('error: pass -Script with the script to test')
    exit 64
}
if ($Extra.Count -gt 0) {
    [Console]::Error.WriteLine('error: unknown argument: ' + $Extra[0])
    exit 64
}
$settings = @{ AddressFamily = 'IPv4'; PolicyStore = 'ActiveStore'; SkipAsSource = $true; PrefixLength = 32; ErrorAction = 'Stop' }
try {
    [void] (New-NetIPAddress @settings -IPAddress $Address -InterfaceIndex $Loopback)
    [void] (New-NetIPAddress @settings -IPAddress $PodGateway -InterfaceIndex $PodInterface)
    Start-Sleep -Seconds 3
    Test-Script
} finally {
    foreach ($one in @($Address, $PodGateway)) {
        Remove-NetIPAddress -IPAddress $one -Confirm:$false -ErrorAction SilentlyContinue
    }
    foreach ($route in $Desired) { Remove-Route @{ Index = $Loopback; Destination = $route.Destination; NextHop = $route.NextHop } }
    foreach ($route in ($Foreign + @($Diverting, $OwnPods))) { Remove-Route $route }
}
if ($Failed.Count -gt 0) {
    Write-Host ([string] $Failed.Count + ' failed')
    exit 1
}
Write-Host 'All checks passed.'
exit 0
