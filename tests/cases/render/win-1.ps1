# hostgw: routes and forwarding of Windows node win-1
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
#   -WhatIf     shows what would be changed; changes nothing, needs no administrator
#   (nothing)   changes it, reads everything back, and puts everything back if any part fails
#   -Adopt      takes over routes of others that stand in the way
#   -Rollback   undoes the last run, or finishes undoing an interrupted one
#   -Destroy    removes what hostgw owns here, and restores forwarding
#   -AllowRemovals N   lets a plan remove more than half of its destinations (at least 10), or all of other nodes: just N
#
# Exit codes: 0 done, or nothing to do; 1 unexpected error, or no administrator; 3 does not fit this machine; 4 another
# run holds the lock; 6 failed and rolled back, verified; 7 rollback incomplete: what is left is listed; 8 too many
# removals; 10 conflict with what hostgw does not own; 64 wrong switches.
#
# Made from the documentation of the cmdlets, and not run on Windows by the authors of hostgw: its documentation tells of
# a self-test.
param(
    [switch] $WhatIf,
    [switch] $Adopt,
    [switch] $Rollback,
    [switch] $Destroy,
    [string] $AllowRemovals
)

# ---- Data: all that differs from node to node

$Node = 'win-1'
$ConfigHash = '0123456789abcdef'
$InterfaceAlias = ''  # empty: the interface that holds one of $Addresses
$Addresses = @('172.30.0.12')
$PodGateways = @('10.244.1.2')  # held by the pod interface
$PodAliases = @('vEthernet (cbr0)', 'vEthernet (cbr0_ep)')  # its names, where nothing holds them
$Families = @('IPv4')
# NextHop: 0.0.0.0 and :: are on-link; empty: the default gateway of the interface
$Routes = @(
    @{ Destination = '10.244.0.0/24'; NextHop = '10.244.0.1'; Metric = 256; Why = 'pods of node linux-1' }
    @{ Destination = '10.244.2.0/25'; NextHop = '10.244.2.1'; Metric = 256; Why = 'pods of node linux-2' }
    @{ Destination = '10.244.8.0/21'; NextHop = '10.244.8.2'; Metric = 256; Why = 'pods of node win-2' }
    @{ Destination = '10.244.1.0/24'; NextHop = '0.0.0.0'; Metric = 300; Why = 'own pods are on-link' }
    @{ Destination = '172.30.0.11/32'; NextHop = ''; Metric = 256; Why = 'masterAddress by the default gateway'; Everything = '0.0.0.0/0' }
)

# ---- Body: the same in every script of this version

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

# What hostgw owns here, the journal of what is under way, and the last run. Only administrators can write below
# Program Files: nobody else can make this script undo what it never did. A PowerShell of 32 bits sees another one.
$Programs = $env:ProgramW6432
if ([string]::IsNullOrEmpty($Programs)) { $Programs = $env:ProgramFiles }
$Folder = Join-Path $Programs 'hostgw'
$StateFile = Join-Path $Folder 'state.json'

# No such route in a store.
$Absent = -1

# What a cmdlet finds; that there is nothing is no error. The cmdlets are functions of a module, which does not see
# the preference of a script: each call says itself that errors are to stop it.
function Get-Found([string] $what, [string] $store) {
    $found = @()
    try {
        if ($what -eq 'routes') { $found = @(Get-NetRoute -PolicyStore $store -ErrorAction Stop) }
        if ($what -eq 'addresses') { $found = @(Get-NetIPAddress -ErrorAction Stop) }
        if ($what -eq 'interfaces') { $found = @(Get-NetIPInterface -ErrorAction Stop) }
    } catch {
        if ([string] $_.CategoryInfo.Category -ne 'ObjectNotFound') { throw }
    }
    return ,$found
}

function Get-Key($index, [string] $destination, [string] $nextHop) {
    return [string] $index + ' ' + $destination + ' ' + $nextHop
}

# The name of each interface by its index.
function Get-Aliases {
    $aliases = @{}
    foreach ($interface in (Get-Found 'interfaces' '')) {
        $aliases[[string] $interface.InterfaceIndex] = [string] $interface.InterfaceAlias
    }
    return $aliases
}

# The routes of both stores by interface, destination and next hop, but for those that Windows makes of addresses: where
# one of these stands, nothing could be put back.
function Get-Standing {
    $standing = @{}
    $local = @{}
    $aliases = Get-Aliases
    foreach ($store in @('ActiveStore', 'PersistentStore')) {
        foreach ($route in (Get-Found 'routes' $store)) {
            $key = Get-Key $route.InterfaceIndex $route.DestinationPrefix $route.NextHop
            if ([string] $route.Protocol -eq 'Local') {
                $local[$key] = $true
                continue
            }
            if (-not $standing.ContainsKey($key)) {
                $standing[$key] = @{
                    Index = [int] $route.InterfaceIndex; Alias = [string] $aliases[[string] $route.InterfaceIndex]
                    Destination = [string] $route.DestinationPrefix; NextHop = [string] $route.NextHop
                    Active = $Absent; Persistent = $Absent
                }
            }
            if ($store -eq 'ActiveStore') {
                $standing[$key].Active = [int] $route.RouteMetric
            } else {
                $standing[$key].Persistent = [int] $route.RouteMetric
            }
        }
    }
    foreach ($key in @($local.Keys)) { $standing.Remove($key) }
    return $standing
}

function Read-Text([string] $path) {
    if ([System.IO.File]::Exists($path)) { return [System.IO.File]::ReadAllText($path) }
    return ''
}

# What hostgw owns here, and what forwarded before it.
function Read-State {
    $text = Read-Text $StateFile
    if ($text -eq '') { return @{ Owned = @(); Forwarding = @() } }
    $state = ConvertFrom-Json $text
    if ($state.Format -ne 1) { throw ($StateFile + ' is of another version of hostgw: format ' + $state.Format) }
    return $state
}

$JournalFile = Join-Path $Folder 'journal.json'
$LastFile = Join-Path $Folder 'last.json'
$LockFile = Join-Path $Folder 'lock'
$TranscriptFile = Join-Path $Folder 'transcript.log'

# ---- What is said

function Write-Line([string] $text) {
    Write-Host $text
}

function Write-Failure([string] $text) {
    [Console]::Error.WriteLine('Error: ' + $text)
}

# A line for people and for the transcript. What undoes a change must not fail for want of a transcript: the journal
# is what counts.
function Write-Record([string] $text) {
    Write-Line $text
    try {
        [System.IO.File]::AppendAllText($TranscriptFile, [DateTime]::UtcNow.ToString('o') + ' ' + $text + "`r`n")
    } catch {
        Write-Warning ('not in the transcript: ' + $_.Exception.Message)
    }
}

# ---- What this node is

# The management interface, the pod interface, and what of them is missing.
function Get-Place {
    $place = @{ Management = $null; Pod = $null; Problems = @() }
    $aliases = Get-Aliases
    $holders = @()
    $podHolders = @()
    foreach ($address in (Get-Found 'addresses' '')) {
        $index = [string] $address.InterfaceIndex
        if (($Addresses -contains $address.IPAddress) -and ($holders -notcontains $index)) { $holders += $index }
        if (($PodGateways -contains $address.IPAddress) -and ($podHolders -notcontains $index)) { $podHolders += $index }
    }
    if ($InterfaceAlias -ne '') {
        $holders = @($aliases.Keys | Where-Object { $aliases[$_] -eq $InterfaceAlias })
    }
    if ($podHolders.Count -eq 0) {
        $podHolders = @($aliases.Keys | Where-Object { $PodAliases -contains $aliases[$_] })
    }
    $names = @($aliases.Values | Sort-Object -Unique) -join ', '
    if ($holders.Count -eq 1) {
        $place.Management = @{ Index = [int] $holders[0]; Alias = $aliases[$holders[0]] }
    } else {
        $sought = 'holds ' + ($Addresses -join ' or ')
        if ($InterfaceAlias -ne '') { $sought = 'is called ' + $InterfaceAlias }
        $place.Problems += 'node ' + $Node + ' is to have one interface that ' + $sought + '; this machine has ' +
            $holders.Count + ' of them among: ' + $names
    }
    if ($podHolders.Count -eq 1) {
        $place.Pod = @{ Index = [int] $podHolders[0]; Alias = $aliases[$podHolders[0]] }
    } else {
        $place.Problems += 'node ' + $Node + ' is to have one pod interface, which holds ' + ($PodGateways -join ' or ') +
            ' or is called ' + ($PodAliases -join ' or ') + '; this machine has ' + $podHolders.Count + ' of them among: ' +
            $names + '. The CNI makes it: let it make the pod network first'
    }
    return $place
}

# The gateway of the best default route of the management interface.
function Get-DefaultGateway($standing, $management, [string] $everything) {
    $best = $null
    foreach ($route in $standing.Values) {
        if ($route.Destination -ne $everything -or $route.Index -ne $management.Index -or $route.Active -lt 0) { continue }
        if ($null -eq $best -or $route.Active -lt $best.Active) { $best = $route }
    }
    if ($null -eq $best) { return '' }
    return $best.NextHop
}

# Whether each interface forwards, by index and family.
function Get-Forwarding {
    $forwarding = @{}
    foreach ($interface in (Get-Found 'interfaces' '')) {
        $forwarding[[string] $interface.InterfaceIndex + ' ' + [string] $interface.AddressFamily] = [string] $interface.Forwarding
    }
    return $forwarding
}

# The index of each interface by its alias: indexes change when HNS makes its switch.
function Get-Indexes {
    $indexes = @{}
    foreach ($interface in (Get-Found 'interfaces' '')) {
        $indexes[[string] $interface.InterfaceAlias] = [int] $interface.InterfaceIndex
    }
    return $indexes
}

# ---- The plan

# What is owned: a route on that interface, not the like of it on another one.
function Get-OwnedKey([string] $alias, [string] $destination, [string] $nextHop) {
    return $destination + ' ' + $nextHop + ' ' + $alias
}

function New-RouteChange($now, $active, $persistent, [string] $why) {
    return @{
        Kind = 'route'; Index = $now.Index; Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop
        BeforeActive = $now.Active; BeforePersistent = $now.Persistent
        AfterActive = $active; AfterPersistent = $persistent; Why = $why
    }
}

function New-ForwardingChange($index, [string] $alias, [string] $family, [string] $before, [string] $after, [string] $why) {
    return @{
        Kind = 'forwarding'; Index = $index; Alias = $alias; Family = $family; Before = $before; After = $after; Why = $why
    }
}

# What is wanted of each route, with what stands there.
function Get-Wanted($plan, $place, $standing) {
    $wanted = New-Object System.Collections.ArrayList
    foreach ($route in $Routes) {
        $nextHop = $route.NextHop
        if ($nextHop -eq '') { $nextHop = Get-DefaultGateway $standing $place.Management $route.Everything }
        if ($nextHop -eq '') {
            $plan.Problems += 'no default route of ' + $place.Management.Alias + ' shows the gateway for ' + $route.Destination +
                ': set defaultGateway of node ' + $Node + ' in the configuration'
            continue
        }
        $now = $standing[(Get-Key $place.Management.Index $route.Destination $nextHop)]
        if ($null -eq $now) {
            $now = @{
                Index = $place.Management.Index; Alias = $place.Management.Alias
                Destination = $route.Destination; NextHop = $nextHop; Active = $Absent; Persistent = $Absent
            }
        }
        [void] $wanted.Add(@{ Now = $now; Metric = $route.Metric; Why = $route.Why })
    }
    return ,$wanted
}

# What must change, what stands in the way, and what is owned afterwards. $nothing: all that is owned goes.
function Get-Plan($place, $state, [bool] $nothing) {
    $plan = @{
        Changes = @(); Conflicts = @(); Problems = @(); Forwarding = @(); Removed = 0; Standing = 0
        Owned = (New-Object System.Collections.ArrayList)
    }
    $standing = Get-Standing
    $owned = @{}
    foreach ($route in @($state.Owned)) { $owned[(Get-OwnedKey $route.Alias $route.Destination $route.NextHop)] = $true }
    $come = New-Object System.Collections.ArrayList
    $go = New-Object System.Collections.ArrayList
    $keys = @{}
    $needs = @{}
    $had = @{}
    $lost = @{}
    if (-not $nothing) {
        foreach ($entry in (Get-Wanted $plan $place $standing)) {
            $now = $entry.Now
            $keys[(Get-Key $now.Index $now.Destination $now.NextHop)] = $true
            $needs[$now.Destination] = $now.NextHop
            [void] $plan.Owned.Add(@{ Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop })
            if ($now.Active -ne $entry.Metric -or $now.Persistent -ne $entry.Metric) {
                [void] $come.Add((New-RouteChange $now $entry.Metric $entry.Metric $entry.Why))
            }
        }
    }
    foreach ($key in @($standing.Keys | Sort-Object)) {
        $now = $standing[$key]
        $isOwned = $owned.ContainsKey((Get-OwnedKey $now.Alias $now.Destination $now.NextHop))
        if ($isOwned) { $had[$now.Destination] = $true }
        if ($isOwned -and -not $needs.ContainsKey($now.Destination)) { $lost[$now.Destination] = $true }
        if ($keys.ContainsKey($key)) { continue }
        if ($isOwned) {
            [void] $go.Add((New-RouteChange $now $Absent $Absent 'owned by hostgw, not in the file'))
        } elseif ($needs.ContainsKey($now.Destination) -and $now.Index -ne $place.Pod.Index) {
            if ($Adopt) {
                [void] $go.Add((New-RouteChange $now $Absent $Absent 'takes over a foreign route'))
            } else {
                $plan.Conflicts += (Format-Route $now) + ' on ' + $now.Alias + ' is not hostgw''s: it needs -NextHop ' +
                    $needs[$now.Destination] + ' on ' + $place.Management.Alias
            }
        }
    }
    $plan.Standing = $had.Count
    $plan.Removed = $lost.Count
    # As on Linux: a node forwards when everything else stands, and stops before it goes.
    $forwarding = Get-ForwardingChanges $plan $place $state $nothing
    if ($nothing) {
        $plan.Changes = @($forwarding) + $go.ToArray()
    } else {
        $plan.Changes = $come.ToArray() + $go.ToArray() + @($forwarding)
    }
    return $plan
}

# The changes of forwarding. What stood before hostgw is kept in $plan.Forwarding.
function Get-ForwardingChanges($plan, $place, $state, [bool] $nothing) {
    $changes = @()
    $standing = Get-Forwarding
    if ($nothing) {
        $indexes = Get-Indexes
        foreach ($entry in @($state.Forwarding)) {
            $index = $indexes[[string] $entry.Alias]
            if ($null -eq $index) { continue }
            $now = $standing[[string] $index + ' ' + $entry.Family]
            if ($null -ne $now -and $now -ne $entry.Value) {
                $changes += New-ForwardingChange $index $entry.Alias $entry.Family $now $entry.Value 'as it was before hostgw'
            }
        }
        return ,$changes
    }
    $saved = @{}
    foreach ($entry in @($state.Forwarding)) {
        $saved[[string] $entry.Alias + ' ' + $entry.Family] = $true
        $plan.Forwarding += $entry
    }
    foreach ($interface in @($place.Management, $place.Pod)) {
        foreach ($family in $Families) {
            $now = $standing[[string] $interface.Index + ' ' + $family]
            if ($null -eq $now) {
                $plan.Problems += $interface.Alias + ' has no ' + $family + ': it cannot forward it'
                continue
            }
            if ($now -eq 'Enabled') { continue }
            $changes += New-ForwardingChange $interface.Index $interface.Alias $family $now 'Enabled' 'a gateway node forwards'
            if (-not $saved.ContainsKey([string] $interface.Alias + ' ' + $family)) {
                $plan.Forwarding += @{ Alias = $interface.Alias; Family = $family; Value = $now }
            }
        }
    }
    return ,$changes
}

# ---- Steps: what takes a route from what stands in the two stores to what shall stand

# New-NetRoute writes both stores or the active one, never the persistent one alone: a route that stands in the active
# store has to go there first.
function Get-Steps($active, $persistent, $toActive, $toPersistent) {
    $steps = @()
    if ($persistent -ge 0 -and $toPersistent -lt 0) {
        $steps += @{ Verb = 'remove'; Store = 'PersistentStore'; Metric = $Absent }
        $persistent = $Absent
    }
    if ($active -ge 0 -and ($toActive -lt 0 -or ($persistent -lt 0 -and $toPersistent -ge 0))) {
        $steps += @{ Verb = 'remove'; Store = 'ActiveStore'; Metric = $Absent }
        $active = $Absent
    }
    if ($persistent -lt 0 -and $toPersistent -ge 0) {
        $steps += @{ Verb = 'add'; Store = 'both'; Metric = $toPersistent }
        $active = $toPersistent
        $persistent = $toPersistent
        if ($toActive -lt 0) {
            $steps += @{ Verb = 'remove'; Store = 'ActiveStore'; Metric = $Absent }
            $active = $Absent
        }
    }
    if ($active -lt 0 -and $toActive -ge 0) {
        $steps += @{ Verb = 'add'; Store = 'ActiveStore'; Metric = $toActive }
        $active = $toActive
    }
    if ($active -ge 0 -and $active -ne $toActive) { $steps += @{ Verb = 'set'; Store = 'ActiveStore'; Metric = $toActive } }
    if ($persistent -ge 0 -and $persistent -ne $toPersistent) {
        $steps += @{ Verb = 'set'; Store = 'PersistentStore'; Metric = $toPersistent }
    }
    return ,$steps
}

# The only calls that change routes. Each names one route: without interface, destination or next hop, a cmdlet means
# every route there is.
function Invoke-Step($route, $step) {
    if ([int] $route.Index -le 0 -or [string]::IsNullOrEmpty($route.Destination) -or [string]::IsNullOrEmpty($route.NextHop)) {
        throw 'a route without interface, destination or next hop would mean every route'
    }
    $one = @{
        InterfaceIndex = $route.Index; DestinationPrefix = $route.Destination; NextHop = $route.NextHop
        Confirm = $false; ErrorAction = 'Stop'
    }
    if ($step.Verb -eq 'remove') {
        Remove-NetRoute @one -PolicyStore $step.Store
    } elseif ($step.Verb -eq 'set') {
        Set-NetRoute @one -RouteMetric $step.Metric -PolicyStore $step.Store
    } elseif ($step.Store -eq 'both') {
        [void] (New-NetRoute @one -RouteMetric $step.Metric)
    } else {
        [void] (New-NetRoute @one -RouteMetric $step.Metric -PolicyStore $step.Store)
    }
}

function Invoke-Forwarding($change, [string] $value) {
    if ([int] $change.Index -le 0 -or [string]::IsNullOrEmpty($change.Family) -or [string]::IsNullOrEmpty($value)) {
        throw 'an interface without index or family would mean every interface'
    }
    $one = @{ InterfaceIndex = $change.Index; AddressFamily = $change.Family; Confirm = $false; ErrorAction = 'Stop' }
    Set-NetIPInterface @one -Forwarding $value
}

function Format-Route($route) {
    return '-DestinationPrefix ' + $route.Destination + ' -NextHop ' + $route.NextHop
}

function Format-Step($route, $step) {
    $text = ' -InterfaceIndex ' + $route.Index + ' ' + (Format-Route $route)
    if ($step.Metric -ge 0) { $text += ' -RouteMetric ' + $step.Metric }
    if ($step.Store -ne 'both') { $text += ' -PolicyStore ' + $step.Store }
    if ($step.Verb -eq 'remove') { return '- Remove-NetRoute' + $text }
    if ($step.Verb -eq 'set') { return '~ Set-NetRoute' + $text }
    return '+ New-NetRoute' + $text
}

function Format-Forwarding($change, [string] $value) {
    return '~ Set-NetIPInterface -InterfaceIndex ' + $change.Index + ' -AddressFamily ' + $change.Family + ' -Forwarding ' + $value
}

# The steps of a change, from what stood when it was planned.
function Get-StepsOf($change) {
    return ,(Get-Steps $change.BeforeActive $change.BeforePersistent $change.AfterActive $change.AfterPersistent)
}

# The lines of a change: each is one call.
function Format-Change($change) {
    $side = '  # ' + $change.Alias + ': ' + $change.Why
    if ($change.Kind -eq 'forwarding') { return ,@((Format-Forwarding $change $change.After) + $side) }
    $lines = @()
    foreach ($step in (Get-StepsOf $change)) { $lines += (Format-Step $change $step) + $side }
    return ,$lines
}

function Format-Totals($changes) {
    $add = 0
    $change = 0
    $remove = 0
    foreach ($one in $changes) {
        if ($one.Kind -eq 'forwarding') { $change += 1 }
        elseif ($one.BeforeActive -lt 0 -and $one.BeforePersistent -lt 0) { $add += 1 }
        elseif ($one.AfterActive -lt 0 -and $one.AfterPersistent -lt 0) { $remove += 1 }
        else { $change += 1 }
    }
    return [string] $add + ' to add, ' + $change + ' to change, ' + $remove + ' to remove'
}

# ---- The transaction

# Replaces a file, so that there is always the old one or the new one; what counts is what can be read afterwards.
function Write-File([string] $path, [string] $text) {
    $new = $path + '.new'
    [System.IO.File]::WriteAllText($new, $text)
    if ([System.IO.File]::Exists($path)) {
        [System.IO.File]::Replace($new, $path, $path + '.old')
    } else {
        [System.IO.File]::Move($new, $path)
    }
    if ((Read-Text $path) -cne $text) { throw ($path + ' was written, and holds something else') }
}

function Remove-File([string] $path) {
    if ([System.IO.File]::Exists($path)) { [System.IO.File]::Delete($path) }
    if ([System.IO.File]::Exists($path)) { throw ($path + ' was removed, and is there') }
}

# With this, what the journal holds is committed: where it is gone, the next run does not undo it.
function Close-Journal {
    Remove-File $LastFile
    try {
        [System.IO.File]::Move($JournalFile, $LastFile)
    } catch {
        if ([System.IO.File]::Exists($JournalFile)) { throw }
    }
    if ([System.IO.File]::Exists($JournalFile)) { throw ($JournalFile + ' was moved, and is there') }
}

# Without white space: some versions of Windows PowerShell read no more than 2 MiB of JSON.
function Format-State($plan) {
    return ConvertTo-Json @{
        Format = 1; Node = $Node; ConfigHash = $ConfigHash; At = [DateTime]::UtcNow.ToString('o')
        Owned = @($plan.Owned.ToArray()); Forwarding = @($plan.Forwarding)
    } -Depth 5 -Compress
}

function Invoke-Changes($changes) {
    foreach ($change in $changes) {
        $side = '  # ' + $change.Alias + ': ' + $change.Why
        if ($change.Kind -eq 'forwarding') {
            Write-Record ((Format-Forwarding $change $change.After) + $side)
            Invoke-Forwarding $change $change.After
            continue
        }
        foreach ($step in (Get-StepsOf $change)) {
            Write-Record ((Format-Step $change $step) + $side)
            Invoke-Step $change $step
        }
    }
}

# What takes a route back to what stood before a change, from whatever stands now.
function Get-StepsBack($standing, $change) {
    $now = $standing[(Get-Key $change.Index $change.Destination $change.NextHop)]
    if ($null -eq $now) { $now = @{ Active = $Absent; Persistent = $Absent } }
    return ,(Get-Steps $now.Active $now.Persistent $change.BeforeActive $change.BeforePersistent)
}

# Puts back what stood before the changes of a journal, last change first.
function Undo-Changes($changes) {
    $standing = Get-Standing
    $forwarding = Get-Forwarding
    for ($at = $changes.Count - 1; $at -ge 0; $at--) {
        $change = $changes[$at]
        if ($change.Kind -eq 'forwarding') {
            if ($forwarding[[string] $change.Index + ' ' + $change.Family] -eq $change.Before) { continue }
            Write-Record (Format-Forwarding $change $change.Before)
            try { Invoke-Forwarding $change $change.Before } catch { Write-Failure $_.Exception.Message }
            continue
        }
        foreach ($step in (Get-StepsBack $standing $change)) {
            Write-Record (Format-Step $change $step)
            try { Invoke-Step $change $step } catch { Write-Failure $_.Exception.Message; break }
        }
    }
}

# What is not as it was before the changes of a journal: the commands that would make it so, without their symbols.
function Get-Left($changes) {
    $left = @()
    $standing = Get-Standing
    $forwarding = Get-Forwarding
    for ($at = $changes.Count - 1; $at -ge 0; $at--) {
        $change = $changes[$at]
        if ($change.Kind -eq 'forwarding') {
            if ($forwarding[[string] $change.Index + ' ' + $change.Family] -ne $change.Before) {
                $left += (Format-Forwarding $change $change.Before).Substring(2)
            }
            continue
        }
        foreach ($step in (Get-StepsBack $standing $change)) { $left += (Format-Step $change $step).Substring(2) }
    }
    return ,$left
}

# Undoes the transaction of the journal, and ends it. Gives the exit code that this is: 6, or 7 where it is not done.
function Undo-Journal {
    try {
        $left = Undo-Record (ConvertFrom-Json (Read-Text $JournalFile))
    } catch {
        Write-Failure ('the rollback could not be finished: ' + $_.Exception.Message)
        [Console]::Error.WriteLine('Run this script with -Rollback once the cause is gone: it goes on from here.')
        return 7
    }
    if ($left.Count -gt 0) {
        Write-Failure 'the rollback could not be finished. What is left to do, in this order:'
        foreach ($line in $left) { [Console]::Error.WriteLine('  ' + $line + ' -Confirm:$false') }
        [Console]::Error.WriteLine('Run these commands, or this script with -Rollback once the cause is gone: it goes on from here.')
        return 7
    }
    Write-Record 'Rolled back, and verified: the node is as it was before.'
    return 6
}

# Puts back what stood before a journal, and when all of it stands, the records too. Gives what is left.
function Undo-Record($journal) {
    if ($journal.Format -ne 1) { throw ($JournalFile + ' is of another version of hostgw: format ' + $journal.Format) }
    $changes = @($journal.Changes)
    $indexes = Get-Indexes
    foreach ($change in $changes) {
        $index = $indexes[[string] $change.Alias]
        if ($null -ne $index) { $change.Index = $index }
    }
    Undo-Changes $changes
    $left = Get-Left $changes
    if ($left.Count -eq 0) {
        if ($journal.StateBefore -eq '') { Remove-File $StateFile } else { Write-File $StateFile $journal.StateBefore }
        Remove-File $JournalFile
    }
    return ,$left
}

# That Windows did what it says it did.
function Assert-InForce($place, [bool] $nothing) {
    $again = Get-Plan $place (Read-State) $nothing
    $lines = @($again.Conflicts) + @($again.Problems)
    foreach ($change in $again.Changes) { $lines += Format-Change $change }
    if ($lines.Count -gt 0) { throw ('Windows reported success, and this is not in force: ' + ($lines -join '; ')) }
}

# Commits a plan: journal, changes, verification, state. Gives the exit code.
function Invoke-Plan($plan, $place, [bool] $nothing) {
    Write-File $JournalFile (ConvertTo-Json @{
        Format = 1; Node = $Node; ConfigHash = $ConfigHash; At = [DateTime]::UtcNow.ToString('o')
        Changes = @($plan.Changes); StateBefore = (Read-Text $StateFile)
    } -Depth 5 -Compress)
    $ended = $false
    try {
        Invoke-Changes $plan.Changes
        Assert-InForce $place $nothing
        if ($nothing) { Remove-File $StateFile } else { Write-File $StateFile (Format-State $plan) }
        Close-Journal
        $ended = $true
        return 0
    } catch {
        $ended = $true
        Write-Failure $_.Exception.Message
        return (Undo-Journal)
    } finally {
        # Control-C runs no catch.
        if (-not $ended -and [System.IO.File]::Exists($JournalFile)) { [void] (Undo-Journal) }
    }
}

# What a file that lost its nodes would take with it unseen; nothing where that was asked for. The rule is that of
# hostgw apply.
function Get-MassRemoval($plan) {
    $others = 0
    foreach ($route in $Routes) {
        if ($route.NextHop -ne '' -and $route.NextHop -ne '0.0.0.0' -and $route.NextHop -ne '::') { $others += 1 }
    }
    $isMass = $plan.Removed -ge 10 -and $plan.Removed * 2 -gt $plan.Standing
    if ($plan.Removed -eq 0 -or -not ($isMass -or $others -eq 0) -or $AllowRemovals -eq [string] $plan.Removed) { return '' }
    return 'this plan removes ' + $plan.Removed + ' of the ' + $plan.Standing + ' destinations that hostgw has here; nothing was changed. ' +
        'If the file is right, say -AllowRemovals ' + $plan.Removed
}

# What stands already is hostgw's from now on, and what left the file is not any more.
function Save-Ownership($plan, $state, [bool] $nothing) {
    if ($nothing) {
        Remove-File $StateFile
        return
    }
    $before = @($state.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop } | Sort-Object) -join ', '
    $after = @($plan.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop } | Sort-Object) -join ', '
    if ($before -ne $after) { Write-File $StateFile (Format-State $plan) }
}

# ---- The command

# Plans, shows, and unless that was all that was asked for, commits. Gives the exit code.
function Invoke-Work([bool] $commit) {
    $nothing = [bool] $Destroy
    $place = Get-Place
    $problems = @($place.Problems)
    $plan = $null
    $state = Read-State
    if ($nothing -or $problems.Count -eq 0) {
        $plan = Get-Plan $place $state $nothing
        $problems = @($plan.Problems)
    }
    if ($problems.Count -gt 0) {
        foreach ($problem in $problems) { Write-Failure $problem }
        return 3
    }
    if (-not $commit -or $plan.Conflicts.Count -gt 0) {
        foreach ($conflict in $plan.Conflicts) { Write-Line ('! ' + $conflict) }
        foreach ($change in $plan.Changes) {
            foreach ($line in (Format-Change $change)) { Write-Line $line }
        }
    }
    if ($plan.Conflicts.Count -gt 0) {
        Write-Failure ([string] $plan.Conflicts.Count + ' in conflict with what hostgw does not own; nothing was changed. -Adopt takes it over, and -Rollback gives it back.')
        return 10
    }
    if ($plan.Changes.Count -eq 0) {
        if ($commit) { Save-Ownership $plan $state $nothing }
        Write-Line 'Nothing to do: the node is as the file says.'
        return 0
    }
    if (-not $commit) {
        Write-Line ('Plan: ' + (Format-Totals $plan.Changes) + '. Nothing was changed.')
        return 0
    }
    $removal = ''
    if (-not $nothing) { $removal = Get-MassRemoval $plan }
    if ($removal -ne '') {
        Write-Failure $removal
        return 8
    }
    $code = Invoke-Plan $plan $place $nothing
    if ($code -eq 0) {
        Write-Record ('Done on node ' + $Node + ', and verified: ' + (Format-Totals $plan.Changes) + ' before, nothing now.')
    }
    return $code
}

# Finishes what was interrupted, then does what was asked for.
function Invoke-Locked {
    if ([System.IO.File]::Exists($JournalFile)) {
        Write-Record 'A run was interrupted here, or not undone to its end: undoing it first.'
        $code = Undo-Journal
        if ($code -ne 6) { return $code }
        if ($Rollback) { return 0 }
    } elseif ($Rollback) {
        if (-not [System.IO.File]::Exists($LastFile)) {
            Write-Line 'Nothing to undo: no apply is on record here.'
            return 0
        }
        [System.IO.File]::Move($LastFile, $JournalFile)
        $code = Undo-Journal
        if ($code -eq 6) { return 0 }
        return $code
    }
    return (Invoke-Work $true)
}

function Test-Administrator {
    $principal = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

function Invoke-Main {
    if ($Rollback -and ($Destroy -or $WhatIf -or $Adopt -or $AllowRemovals -ne '')) {
        Write-Failure '-Rollback goes with no other switch.'
        return 64
    }
    if ($WhatIf) {
        if ([System.IO.File]::Exists($JournalFile)) {
            Write-Warning 'a run was interrupted here: the next one undoes it first, and what stands now will change'
        }
        return (Invoke-Work $false)
    }
    if (-not (Test-Administrator)) {
        Write-Failure 'only an administrator can change routes: start PowerShell as administrator. -WhatIf works for everybody.'
        return 1
    }
    [void] [System.IO.Directory]::CreateDirectory($Folder)
    $lock = $null
    try {
        $lock = [System.IO.File]::Open($LockFile, 'OpenOrCreate', 'ReadWrite', 'None')
    } catch {
        Write-Failure ('another run holds ' + $LockFile + ': ' + $_.Exception.Message)
        return 4
    }
    try {
        return (Invoke-Locked)
    } finally {
        $lock.Dispose()
    }
}

$code = 1
try {
    $code = Invoke-Main
} catch {
    Write-Failure $_.Exception.Message
}
exit $code
