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
#   -Task                  also install the scheduled task, run it, and uninstall it
#
# The authors of hostgw have run it against stubs of the cmdlets, but not on Windows: please report its output.
param(
    [string] $Script,
    [string] $PowerShell,
    [int] $PodInterface = 1,
    [switch] $Task
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

function Test-AllInEffect([string] $when) {
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
    Test-AllInEffect 'after the first run'
    $applied = Get-Snapshot
    Assert-That ((Invoke-Script @()) -eq 0) 'the second run exits with 0'
    Assert-That ((Get-Snapshot) -eq $applied) 'the second run changes nothing'

    $broken = @{ InterfaceIndex = $Loopback; DestinationPrefix = $Desired[0].Destination; NextHop = $Desired[0].NextHop; Confirm = $false; ErrorAction = 'Stop' }
    Remove-NetRoute @broken -PolicyStore ActiveStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route missing from the active store'
    Test-AllInEffect 'repaired'
    Remove-NetRoute @broken -PolicyStore PersistentStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route missing from the persistent store'
    Test-AllInEffect 'repaired'
    Set-NetRoute @broken -RouteMetric 77 -PolicyStore ActiveStore
    Assert-That ((Invoke-Script @()) -eq 0) 'exits with 0 after repairing a route with a changed metric'
    Test-AllInEffect 'repaired'

    foreach ($route in $Foreign) { Test-Foreign $route }
    Test-Diverting $Diverting
    Add-Route $OwnPods
    Assert-That ((Invoke-Script @()) -eq 0) 'own pods may use the pod interface'
    Remove-Route $OwnPods

    Assert-That ((Invoke-Script @('-Destroy')) -eq 0) '-Destroy exits with 0'
    Assert-That ((Get-Snapshot) -eq $before) '-Destroy restores the state from before the first run'
}

# ---- The scheduled task

function Get-InstalledTask {
    return Get-ScheduledTask -TaskName 'hostgw' -TaskPath '\' -ErrorAction SilentlyContinue
}

# Starts the task once it is idle, and waits for its end. Returns its result.
function Invoke-InstalledTask {
    foreach ($phase in @('before', 'after')) {
        for ($attempt = 1; $attempt -le 120 -and [string] (Get-InstalledTask).State -ne 'Ready'; $attempt++) { Start-Sleep -Seconds 1 }
        if ($phase -eq 'before') {
            Start-ScheduledTask -TaskName 'hostgw' -TaskPath '\' -ErrorAction Stop
            Start-Sleep -Seconds 2
        }
    }
    return (Get-ScheduledTaskInfo -TaskName 'hostgw' -TaskPath '\' -ErrorAction Stop).LastTaskResult
}

# Returns the IDs of the entries that this test caused, oldest first.
function Get-EntryIds {
    $filter = @{ LogName = 'Application'; ProviderName = 'hostgw'; StartTime = $Started }
    $entries = @(Get-WinEvent -FilterHashtable $filter -ErrorAction SilentlyContinue | Sort-Object -Property TimeCreated, RecordId)
    return @($entries | ForEach-Object { $_.Id }) -join ' '
}

function Test-InstalledTask {
    $installed = Join-Path $env:ProgramFiles (Join-Path 'hostgw' 'hostgw.ps1')
    Assert-That ((Invoke-Script @('-Install', '-WhatIf')) -eq 0) '-Install -WhatIf exits with 0'
    Assert-That ($null -eq (Get-InstalledTask)) 'and installs nothing'
    Assert-That ((Invoke-Script @('-Install')) -eq 0) '-Install exits with 0'
    Test-AllInEffect 'installed'
    $task = Get-InstalledTask
    Assert-That ($null -ne $task) 'the task exists'
    if ($null -eq $task) { return }
    Assert-That ([string] $task.State -eq 'Ready') 'it is ready'
    Assert-That ([string] $task.Principal.UserId -eq 'SYSTEM' -and [string] $task.Principal.RunLevel -eq 'Highest') 'it runs as SYSTEM'
    $classes = @($task.Triggers | ForEach-Object { [string] $_.CimClass.CimClassName }) -join ' '
    Assert-That ($classes -eq 'MSFT_TaskBootTrigger MSFT_TaskEventTrigger MSFT_TaskTimeTrigger') ('it has three triggers: ' + $classes)
    Assert-That (@($task.Triggers)[2].Repetition.Interval -eq 'PT5M' -and @($task.Triggers)[2].RandomDelay -eq 'PT1M') 'one repeats every 5 minutes, with jitter'
    Assert-That ((Get-FileHash -LiteralPath $installed).Hash -eq (Get-FileHash -LiteralPath $Script).Hash) 'its script is a copy of this one'
    Assert-That ((Invoke-Script @('-Install')) -eq 0) '-Install again exits with 0'
    Assert-That (@((Get-InstalledTask).Triggers)[2].StartBoundary -eq @($task.Triggers)[2].StartBoundary) 'and does not register the task again'

    Assert-That ((Invoke-InstalledTask) -eq 0) 'a run of the task with nothing to do succeeds'
    Assert-That ((Get-EntryIds) -eq '') 'and writes no entry'
    Remove-NetRoute -InterfaceIndex $Loopback -DestinationPrefix $Desired[0].Destination -NextHop $Desired[0].NextHop -PolicyStore ActiveStore -Confirm:$false -ErrorAction Stop
    Assert-That ((Invoke-InstalledTask) -eq 0) 'a run of the task repairs a lost route'
    Test-AllInEffect 'repaired by the task'
    Assert-That ((Get-EntryIds) -eq '1') ('and writes one entry: ' + (Get-EntryIds))
    Add-Route $Foreign[0]
    Assert-That ((Invoke-InstalledTask) -eq 10) 'a run of the task does not adopt a foreign route'
    Assert-That ((Invoke-InstalledTask) -eq 10) 'nor does the next one'
    Assert-That ((Get-EntryIds) -eq '1 110') ('and only the first one writes an entry: ' + (Get-EntryIds))
    Remove-Route $Foreign[0]
    Assert-That ((Invoke-InstalledTask) -eq 0) 'a run of the task succeeds again'
    Assert-That ((Get-EntryIds) -eq '1 110 2') ('and writes an entry: ' + (Get-EntryIds))

    Assert-That ((Invoke-Script @('-Destroy')) -eq 8) '-Destroy is refused while the task is installed'
    Test-AllInEffect 'after that'
    Assert-That ((Invoke-Script @('-Uninstall')) -eq 0) '-Uninstall exits with 0'
    Assert-That ($null -eq (Get-InstalledTask)) 'and removes the task'
    Assert-That (-not (Test-Path -LiteralPath $installed)) 'and its script'
    Test-AllInEffect 'but no route'
    Assert-That ((Invoke-Script @('-Uninstall')) -eq 0) '-Uninstall again exits with 0'
    Assert-That ((Invoke-Script @('-Destroy')) -eq 0) '-Destroy exits with 0'
}

if ([string]::IsNullOrEmpty($Script)) {
    [Console]::Error.WriteLine('error: pass -Script with the script to test')
    exit 64
}
if ($Extra.Count -gt 0) {
    [Console]::Error.WriteLine('error: unknown argument: ' + $Extra[0])
    exit 64
}
if ($Task -and $null -ne (Get-InstalledTask)) {
    [Console]::Error.WriteLine('error: hostgw is installed on this machine, and the test would uninstall it; omit -Task')
    exit 1
}
$Started = Get-Date
$settings = @{ AddressFamily = 'IPv4'; PolicyStore = 'ActiveStore'; SkipAsSource = $true; PrefixLength = 32; ErrorAction = 'Stop' }
try {
    [void] (New-NetIPAddress @settings -IPAddress $Address -InterfaceIndex $Loopback)
    [void] (New-NetIPAddress @settings -IPAddress $PodGateway -InterfaceIndex $PodInterface)
    Start-Sleep -Seconds 3
    Test-Script
    if ($Task) { Test-InstalledTask }
} finally {
    if ($Task -and $null -ne (Get-InstalledTask)) { [void] (Invoke-Script @('-Uninstall')) }
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
