$JournalFile = Join-Path $Folder 'journal.json'
$LastFile = Join-Path $Folder 'last.json'
$LockFile = Join-Path $Folder 'lock'
$TranscriptFile = Join-Path $Folder 'transcript.log'

# The number of problems to list.
$MaxProblems = 10

# The exit code for Ctrl-C at this point, what to do about the reason of a rollback, and the script that the task started.
$Run = @{ Interrupted = 130; Remedy = ''; Script = '' }

# ---- Output

function Write-Line([string] $text) {
    [void] $Report.Lines.Add((Format-Printable $text))
    Write-Host (Format-Printable $text)
}

function Write-WarningLine([string] $text) {
    [void] $Report.Lines.Add('WARNING: ' + (Format-Printable $text))
    Write-Warning (Format-Printable $text)
}

# Prints a line and adds it to the transcript. A failing transcript must not prevent an undo, which only needs the
# journal.
function Write-Record([string] $text) {
    Write-Line $text
    try {
        [System.IO.File]::AppendAllText($TranscriptFile, [DateTime]::UtcNow.ToString('o') + ' ' + (Format-Printable $text) + "`r`n")
    } catch {
        Write-WarningLine ('cannot write to the transcript: ' + (Get-Reason $_))
    }
}

# Starts a new transcript once the old one has reached 1 MiB. Keeps one older transcript.
function Limit-Transcript {
    try {
        if ((Read-Text $TranscriptFile).Length -lt 1048576) { return }
        Remove-File ($TranscriptFile + '.old')
        [System.IO.File]::Move($TranscriptFile, $TranscriptFile + '.old')
    } catch {
        Write-WarningLine ('cannot rotate the transcript: ' + (Get-Reason $_))
    }
}

# Reports why this node cannot be planned. Many problems usually share one cause that affects every node.
function Write-Problems($problems) {
    $count = 0
    foreach ($problem in $problems) {
        $count += 1
        if ($count -le $MaxProblems) { Write-Failure $problem }
    }
    if ($count -eq $MaxProblems + 1) { Write-Detail 'and 1 more problem' }
    if ($count -gt $MaxProblems + 1) { Write-Detail ('and ' + ($count - $MaxProblems) + ' more problems') }
}

# Returns at most $limit items as a list in a sentence.
function Format-List($items, [int] $limit) {
    $shown = @()
    for ($at = 0; $at -lt $items.Count -and $at -lt $limit; $at++) { $shown += $items[$at] }
    $text = $shown -join ', '
    if ($items.Count -gt $limit) { $text += ' and ' + ($items.Count - $limit) + ' more' }
    return $text
}

# ---- The interfaces of this node

# Returns whether an alias is in a list, compared as Windows does. -eq and -contains depend on the culture, and ignore
# zero-width characters.
function Test-Alias([string] $alias, $names) {
    foreach ($name in $names) {
        if ([string]::Equals($alias, $name, 'OrdinalIgnoreCase')) { return $true }
    }
    return $false
}

# Returns the number of interfaces that were found.
function Format-Found([int] $count) {
    if ($count -eq 0) { return 'none' }
    return [string] $count
}

# Returns the egress interface, the pod interface, and the problems in finding them. A machine without pods has no pod
# interface.
function Get-NodeInterfaces {
    $interfaces = @{ Egress = $null; Pod = $null; Problems = @(); Remedies = @() }
    $aliases = Get-Aliases
    $holders = @()
    $podHolders = @()
    foreach ($address in (Get-Existing 'addresses' '')) {
        $index = [string] $address.InterfaceIndex
        if (($Addresses -contains $address.IPAddress) -and ($holders -notcontains $index)) { $holders += $index }
        if (($PodGateways -contains $address.IPAddress) -and ($podHolders -notcontains $index)) { $podHolders += $index }
    }
    if ($InterfaceAlias -ne '') {
        $holders = @($aliases.Keys | Where-Object { Test-Alias $aliases[$_] @($InterfaceAlias) })
    }
    if ($podHolders.Count -eq 0) {
        $podHolders = @($aliases.Keys | Where-Object { Test-Alias $aliases[$_] $PodAliases })
    }
    $names = @($aliases.Values | Sort-Object -Unique) -join ', '
    if ($holders.Count -eq 1) {
        $interfaces.Egress = @{ Index = [int] $holders[0]; Alias = $aliases[$holders[0]] }
    } else {
        $criterion = 'has address ' + ($Addresses -join ' or ')
        if ($InterfaceAlias -ne '') { $criterion = 'is named ' + $InterfaceAlias }
        $interfaces.Problems += 'node ' + $Node + ': expected exactly one interface that ' + $criterion + ', found ' +
            (Format-Found $holders.Count) + '; interfaces: ' + $names
        $interfaces.Remedies += 'correct the node''s address or egressInterface in the configuration'
    }
    if ($PodGateways.Count -eq 0) { return $interfaces }
    if ($podHolders.Count -eq 1) {
        $interfaces.Pod = @{ Index = [int] $podHolders[0]; Alias = $aliases[$podHolders[0]] }
    } else {
        $interfaces.Problems += 'node ' + $Node + ': expected exactly one pod interface (with address ' +
            ($PodGateways -join ' or ') + ', or named ' + ($PodAliases -join ' or ') + '), found ' +
            (Format-Found $podHolders.Count) + '; interfaces: ' + $names
        $interfaces.Remedies += 'set up the pod network first: the CNI plugin creates this interface'
    }
    return $interfaces
}

# Returns the gateway of the best default route on the egress interface.
function Get-DefaultGateway($live, $egress, [string] $everything) {
    $best = $null
    foreach ($key in (Get-Sorted $live.Keys)) {
        $route = $live[$key]
        if ($route.Destination -ne $everything -or $route.Index -ne $egress.Index -or $route.ActiveMetric -lt 0) { continue }
        if ($null -eq $best -or $route.ActiveMetric -lt $best.ActiveMetric) { $best = $route }
    }
    if ($null -eq $best) { return '' }
    return $best.NextHop
}

# Returns the forwarding setting of each interface by index and family.
function Get-Forwarding {
    $forwarding = @{}
    foreach ($interface in (Get-Existing 'interfaces' '')) {
        $forwarding[[string] $interface.InterfaceIndex + ' ' + [string] $interface.AddressFamily] = [string] $interface.Forwarding
    }
    return $forwarding
}

# Returns the index of each interface by alias. Indexes change when HNS creates its switch.
function Get-Indexes {
    $indexes = @{}
    foreach ($interface in (Get-Existing 'interfaces' '')) {
        $indexes[[string] $interface.InterfaceAlias] = [int] $interface.InterfaceIndex
    }
    return $indexes
}

# ---- The plan

# Returns the identity of a managed route: a route on another interface is not managed.
function Get-OwnedKey([string] $alias, [string] $destination, [string] $nextHop) {
    return $destination + ' ' + $nextHop + ' ' + $alias
}

function New-RouteChange($now, $active, $persistent, [string] $why) {
    return @{
        Kind = 'route'; Index = $now.Index; Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop
        BeforeActive = $now.ActiveMetric; BeforePersistent = $now.PersistentMetric
        AfterActive = $active; AfterPersistent = $persistent; Why = $why
    }
}

function New-ForwardingChange($index, [string] $alias, [string] $family, [string] $before, [string] $after, [string] $why) {
    return @{
        Kind = 'forwarding'; Index = $index; Alias = $alias; Family = $family; Before = $before; After = $after; Why = $why
    }
}

# Returns the desired routes, each with its live route.
function Get-DesiredRoutes($plan, $interfaces, $state, $live) {
    $desired = New-Object System.Collections.ArrayList
    $link = $null
    foreach ($route in $Routes) {
        $nextHop = $route.NextHop
        if ($nextHop -eq '') { $nextHop = Get-DefaultGateway $live $interfaces.Egress $route.Everything }
        if ($nextHop -eq '') {
            $plan.Problems += 'the gateway for ' + $route.Destination + ' is unknown, because ' + $interfaces.Egress.Alias +
                ' has no default route: set defaultGateway for node ' + $Node + ' in the configuration'
            continue
        }
        if ($route.ContainsKey('Link')) {
            if ($null -eq $link) { $link = Get-NodeLink $plan $interfaces $state }
            $nextHop = Get-AdaptedNextHop $plan $interfaces $link $route
            if ($nextHop -eq '') { continue }
        }
        $now = $live[(Get-Key $interfaces.Egress.Index $route.Destination $nextHop)]
        if ($null -eq $now) {
            $now = @{
                Index = $interfaces.Egress.Index; Alias = $interfaces.Egress.Alias
                Destination = $route.Destination; NextHop = $nextHop; ActiveMetric = $Absent; PersistentMetric = $Absent
                Protocol = 'NetMgmt'
            }
        }
        [void] $desired.Add(@{ Now = $now; Metric = $route.Metric; Why = $route.Why; Role = $route.Role })
    }
    return ,$desired
}

# ---- Traffic: which destination a packet belongs to

# The masks for the first 0 to 7 bits of a byte.
$Masks = @(0, 128, 192, 224, 240, 248, 252, 254)

# Returns the prefix of the given length around an address, as text.
function Get-Prefix($bytes, [int] $length) {
    $parts = @()
    for ($at = 0; $at -lt $bytes.Count; $at++) {
        $bits = $length - 8 * $at
        if ($bits -ge 8) {
            $parts += [int] $bytes[$at]
        } elseif ($bits -le 0) {
            $parts += 0
        } else {
            $parts += $bytes[$at] -band $Masks[$bits]
        }
    }
    return ($parts -join '.') + '/' + $length
}

# Returns the desired routes by destination, and the pod CIDRs of all nodes by prefix.
function Get-Destinations($desired) {
    $destinations = @{ Exact = @{}; Pods = @{}; Lengths = @() }
    $lengths = @{}
    foreach ($entry in $desired) {
        $destinations.Exact[$entry.Now.Destination] = $entry
        if ($entry.Role -eq 'master') { continue }
        $parts = $entry.Now.Destination.Split('/')
        $length = [int] $parts[1]
        $destinations.Pods[(Get-Prefix ([System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()) $length)] = $entry
        $lengths[$length] = $true
    }
    $destinations.Lengths = @($lengths.Keys)
    return $destinations
}

# Returns the desired route to the destination of a live route, or else the one to the pod CIDR around it. Returns null if
# there is none.
function Get-NeededRoute($destinations, [string] $destination) {
    $entry = $destinations.Exact[$destination]
    if ($null -ne $entry) { return $entry }
    $parts = $destination.Split('/')
    $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
    foreach ($length in $destinations.Lengths) {
        if ($length -gt [int] $parts[1]) { continue }
        $enclosing = $destinations.Pods[(Get-Prefix $bytes $length)]
        if ($null -ne $enclosing) { $entry = $enclosing }
    }
    return $entry
}

# Returns whether packets of a desired route may use a live route. The node's own pods are on-link on its pod interface,
# too.
function Test-Planned($entry, $interfaces, $route) {
    if ($route.Index -eq $interfaces.Egress.Index -and $route.NextHop -eq $entry.Now.NextHop) { return $true }
    return $entry.Role -eq 'own' -and $route.Index -eq $interfaces.Pod.Index -and $route.NextHop -eq $entry.Now.NextHop
}

# Describes a foreign route to the destination of a desired one.
function Format-Conflict($route, $entry) {
    return (Format-Route $route) + ' on ' + $route.Alias + ' is foreign: it conflicts with -NextHop ' + $entry.Now.NextHop + ' on ' +
        $entry.Now.Alias
}

# Returns the addresses of this machine inside the pod CIDR of another node, and the address of the master. Windows keeps
# packets to them, and no route can change that.
function Get-MisplacedAddresses($destinations, $interfaces, $derived) {
    $problems = @()
    $seen = @{}
    foreach ($route in $derived) {
        $entry = Get-NeededRoute $destinations $route.Destination
        if ($null -eq $entry -or $entry.Role -eq 'own' -or (Test-Planned $entry $interfaces $route)) { continue }
        $problem = $route.Alias + ' has an address in ' + $entry.Now.Destination + ' (' + $entry.Why +
            '): Windows delivers packets to that address locally'
        if (-not $seen.ContainsKey($problem)) { $problems += $problem }
        $seen[$problem] = $true
    }
    return ,$problems
}

# ---- Orphans: persistent routes of interfaces that no longer exist. They carry no traffic and never conflict.

function Test-Orphan($route) {
    return $route.Alias -eq '' -and $route.ActiveMetric -lt 0
}

# hostgw removes orphans that it manages or adopts, if Windows still knows the index of their interface.
function New-Orphan($route, [bool] $isOwned) {
    return @{ Route = $route; IsRemovable = ($isOwned -or [bool] $Adopt) -and $route.Index -gt 0 }
}

function Get-OrphanStep {
    return @{ Verb = 'remove'; Store = 'PersistentStore'; Metric = $Absent }
}

# Returns the command that removes an orphan manually.
function Format-RouteDelete($route) {
    $parts = $route.Destination.Split('/')
    $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
    if ($bytes.Count -eq 16) { return 'route -6 delete ' + $route.Destination + ' ' + $route.NextHop }
    $mask = (Get-Prefix @(255, 255, 255, 255) ([int] $parts[1])).Split('/')[0]
    return 'route delete ' + $parts[0] + ' mask ' + $mask + ' ' + $route.NextHop
}

function Format-Orphan($orphan) {
    if ($orphan.IsRemovable) { return (Format-Step $orphan.Route (Get-OrphanStep)) + '  # its interface no longer exists' }
    return 'the persistent route ' + $orphan.Route.Destination + ' via ' + $orphan.Route.NextHop +
        ' belongs to an interface that no longer exists'
}

function Write-OrphanWarning($orphan) {
    Write-WarningLine (Format-Orphan $orphan)
    Write-Line ('  help: run `' + (Format-RouteDelete $orphan.Route) + '`, then run this script again')
}

# Removes orphans. A failure is only a warning, because they have no effect.
function Remove-Orphans($orphans) {
    foreach ($orphan in $orphans) {
        if ($orphan.IsRemovable) {
            Write-Record (Format-Orphan $orphan)
            try {
                Invoke-Step $orphan.Route (Get-OrphanStep)
                $Report.IsChanged = $true
                continue
            } catch {
                [void] $Report.Problems.Add((Get-Reason $_))
                Write-WarningLine (Get-Reason $_)
                $orphan.IsRemovable = $false
            }
        }
        Write-OrphanWarning $orphan
    }
}

# ---- The complete plan

# Returns the changes, the conflicts, and the routes that are managed afterwards. $removeAll removes all managed
# routes.
function Get-Plan($interfaces, $state, [bool] $removeAll) {
    $plan = @{
        Changes = @(); Conflicts = @(); Problems = @(); Forwarding = @(); Removed = 0; ManagedCount = 0; Orphans = @(); Remedy = ''
        Managed = (New-Object System.Collections.ArrayList); Traffic = (New-Object System.Collections.ArrayList)
        Skipped = (New-Object System.Collections.ArrayList)
        Faults = @(); Later = @(); Unverified = ''; IsDisconnected = $false
    }
    $derived = New-Object System.Collections.ArrayList
    $live = Get-LiveRoutes $derived
    $plan.Live = $live
    $plan.Derived = $derived
    $additions = New-Object System.Collections.ArrayList
    $keys = @{}
    $desired = @()
    if (-not $removeAll) { $desired = Get-DesiredRoutes $plan $interfaces $state $live }
    foreach ($entry in $desired) {
        $now = $entry.Now
        $keys[(Get-Key $now.Index $now.Destination $now.NextHop)] = $true
        [void] $plan.Managed.Add(@{ Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop })
        if ($now.ActiveMetric -ne $entry.Metric -or $now.PersistentMetric -ne $entry.Metric) {
            [void] $additions.Add((New-RouteChange $now $entry.Metric $entry.Metric $entry.Why))
        }
    }
    $destinations = Get-Destinations $desired
    $misplaced = Get-MisplacedAddresses $destinations $interfaces $derived
    $plan.Problems += $misplaced
    if ($misplaced.Count -gt 0 -and $plan.Remedy -eq '') { $plan.Remedy = 'remove the address with Remove-NetIPAddress, or correct the configuration' }
    $plan.Desired = $desired
    $removals = Get-Removals $plan $interfaces $state $live $destinations $keys
    # As on Linux, forwarding is enabled last and disabled first.
    $forwarding = Get-ForwardingChanges $plan $interfaces $state $removeAll
    if ($removeAll) {
        $plan.Changes = @($forwarding) + $removals.ToArray()
    } else {
        $plan.Changes = $additions.ToArray() + $removals.ToArray() + @($forwarding)
        Set-Faults $plan $interfaces $destinations
    }
    return $plan
}

# Returns the changes that remove routes. Adds conflicts, orphans and the number of destinations to $plan.
function Get-Removals($plan, $interfaces, $state, $live, $destinations, $keys) {
    $owned = @{}
    # The interface of an orphan no longer has a name.
    $orphaned = @{}
    foreach ($route in @($state.Managed)) {
        $owned[(Get-OwnedKey $route.Alias $route.Destination $route.NextHop)] = $true
        $orphaned[(Get-OwnedKey '' $route.Destination $route.NextHop)] = $true
    }
    $removals = New-Object System.Collections.ArrayList
    $managed = @{}
    $removed = @{}
    foreach ($key in (Get-Sorted $live.Keys)) {
        $now = $live[$key]
        $isOwned = $owned.ContainsKey((Get-OwnedKey $now.Alias $now.Destination $now.NextHop))
        $needed = $null
        if (-not $keys.ContainsKey($key)) { $needed = Get-NeededRoute $destinations $now.Destination }
        $affected = $null
        if ($null -ne $needed -and -not (Test-Planned $needed $interfaces $now)) { $affected = $needed }
        if (Test-Orphan $now) {
            $isOwned = $orphaned.ContainsKey((Get-OwnedKey '' $now.Destination $now.NextHop))
            if ($isOwned -or $null -ne $affected) { $plan.Orphans += New-Orphan $now $isOwned }
            continue
        }
        if ($isOwned) { $managed[$now.Destination] = $true }
        if ($isOwned -and -not $destinations.Exact.ContainsKey($now.Destination)) { $removed[$now.Destination] = $true }
        if ($keys.ContainsKey($key)) { continue }
        if ($isOwned) {
            $why = 'not in the configuration'
            if ($removeAll) { $why = 'managed by hostgw' }
            [void] $removals.Add((New-RouteChange $now $Absent $Absent $why))
        } elseif ($null -ne $affected -and $Adopt) {
            [void] $removals.Add((New-RouteChange $now $Absent $Absent 'adopt foreign route'))
        } elseif ($null -ne $needed) {
            if ($null -ne $affected -and $now.Destination -eq $needed.Now.Destination) {
                $plan.Conflicts += Format-Conflict $now $affected
            }
            [void] $plan.Traffic.Add((New-Candidate $now $needed ($null -eq $affected) $now.PersistentMetric))
        }
    }
    $plan.ManagedCount = $managed.Count
    $plan.Removed = $removed.Count
    return ,$removals
}

# Returns the changes of forwarding. Saves the original settings in $plan.Forwarding.
function Get-ForwardingChanges($plan, $interfaces, $state, [bool] $removeAll) {
    $changes = @()
    $live = Get-Forwarding
    if ($removeAll) {
        $indexes = Get-Indexes
        foreach ($entry in @($state.Forwarding)) {
            $index = $indexes[[string] $entry.Alias]
            if ($null -eq $index) { continue }
            $now = $live[[string] $index + ' ' + $entry.Family]
            if ($null -ne $now -and $now -ne $entry.Value) {
                $changes += New-ForwardingChange $index $entry.Alias $entry.Family $now $entry.Value 'restore original value'
            }
        }
        return ,$changes
    }
    $saved = @{}
    foreach ($entry in @($state.Forwarding)) {
        $saved[[string] $entry.Alias + ' ' + $entry.Family] = $true
        $plan.Forwarding += $entry
    }
    $forwarders = @($interfaces.Egress, $interfaces.Pod)
    if ($null -eq $interfaces.Pod) { $forwarders = @() }
    foreach ($interface in $forwarders) {
        foreach ($family in $Families) {
            $now = $live[[string] $interface.Index + ' ' + $family]
            if ($null -eq $now) {
                $plan.Problems += $family + ' is disabled on ' + $interface.Alias + ', which therefore cannot forward ' + $family + ' packets'
                continue
            }
            if ($now -eq 'Enabled') { continue }
            $changes += New-ForwardingChange $interface.Index $interface.Alias $family $now 'Enabled' 'forwarding is required on every node with pods'
            if (-not $saved.ContainsKey([string] $interface.Alias + ' ' + $family)) {
                $plan.Forwarding += @{ Alias = $interface.Alias; Family = $family; Value = $now }
            }
        }
    }
    return ,$changes
}

# ---- Steps: the calls that take a route from its state in the two stores to another one

# New-NetRoute writes both stores or only the active one, but never only the persistent one: a route in the active
# store must be removed first.
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

# The only calls that change routes. Each names a single route: without an interface, destination or next hop, a cmdlet
# would affect every route.
function Invoke-Step($route, $step) {
    if ([int] $route.Index -le 0 -or [string]::IsNullOrEmpty($route.Destination) -or [string]::IsNullOrEmpty($route.NextHop)) {
        throw 'refusing to change a route without an interface, destination or next hop: the cmdlet would change all routes'
    }
    $target = @{
        InterfaceIndex = $route.Index; DestinationPrefix = $route.Destination; NextHop = $route.NextHop
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
    }
    try {
        if ($step.Verb -eq 'remove') {
            Remove-NetRoute @target -PolicyStore $step.Store
        } elseif ($step.Verb -eq 'set') {
            Set-NetRoute @target -RouteMetric $step.Metric -PolicyStore $step.Store
        } elseif ($step.Store -eq 'both') {
            [void] (New-NetRoute @target -RouteMetric $step.Metric)
        } else {
            [void] (New-NetRoute @target -RouteMetric $step.Metric -PolicyStore $step.Store)
        }
    } catch {
        throw (Format-Failed (Format-Step $route $step) $_)
    }
}

function Invoke-Forwarding($change, [string] $value) {
    if ([int] $change.Index -le 0 -or [string]::IsNullOrEmpty($change.Family) -or [string]::IsNullOrEmpty($value)) {
        throw 'refusing to change an interface without an index or address family: the cmdlet would change all interfaces'
    }
    $target = @{
        InterfaceIndex = $change.Index; AddressFamily = $change.Family
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
    }
    try {
        Set-NetIPInterface @target -Forwarding $value
    } catch {
        throw (Format-Failed (Format-Forwarding $change $value) $_)
    }
}

# Describes the failure of a call, whose line begins with a symbol.
function Format-Failed([string] $line, $failure) {
    return 'cannot run ' + $line.Substring(2) + ': ' + (Get-Reason $failure)
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

# Returns the steps of a change, from the state that it was planned from.
function Get-ChangeSteps($change) {
    return ,(Get-Steps $change.BeforeActive $change.BeforePersistent $change.AfterActive $change.AfterPersistent)
}

# Returns the lines of a change, one per call.
function Format-Change($change) {
    $comment = '  # ' + $change.Alias + ': ' + $change.Why
    if ($change.Kind -eq 'forwarding') { return ,@((Format-Forwarding $change $change.After) + $comment) }
    $lines = @()
    foreach ($step in (Get-ChangeSteps $change)) { $lines += (Format-Step $change $step) + $comment }
    return ,$lines
}

# Returns whether a plan changes nothing.
function Test-Empty($plan) {
    return $plan.Changes.Count -eq 0 -and @($plan.Orphans | Where-Object { $_.IsRemovable }).Count -eq 0
}

function Format-NoChanges($plan) {
    if ($plan.Faults.Count -eq 0) { return 'No changes. This node matches the configuration.' }
    return 'No changes. This node matches the configuration, but some pod traffic is lost or diverted; see the warnings above.'
}

# Returns how many objects the plan adds, updates and removes.
function Get-Totals($plan) {
    $add = 0
    $change = 0
    $remove = @($plan.Orphans | Where-Object { $_.IsRemovable }).Count
    foreach ($target in $plan.Changes) {
        if ($target.Kind -eq 'forwarding') { $change += 1 }
        elseif ($target.BeforeActive -lt 0 -and $target.BeforePersistent -lt 0) { $add += 1 }
        elseif ($target.AfterActive -lt 0 -and $target.AfterPersistent -lt 0) { $remove += 1 }
        else { $change += 1 }
    }
    return @{ Added = $add; Updated = $change; Removed = $remove }
}

function Format-Planned($plan) {
    $totals = Get-Totals $plan
    return [string] $totals.Added + ' to add, ' + $totals.Updated + ' to update, ' + $totals.Removed + ' to remove'
}

function Format-Applied($plan) {
    $totals = Get-Totals $plan
    return [string] $totals.Added + ' added, ' + $totals.Updated + ' updated, ' + $totals.Removed + ' removed'
}

# ---- The transaction

# Replaces a file atomically and verifies the result. The content is on disk before the name refers to it. The second
# flush writes the new name to disk as well: when a file is flushed, NTFS writes its log up to the last change of that
# file.
function Write-File([string] $path, [string] $text) {
    $new = $path + '.new'
    $mismatch = $path + ' does not contain what was written'
    $stream = [System.IO.File]::Open($new, 'Create', 'Write', 'Read')
    try {
        $bytes = [System.Text.Encoding]::UTF8.GetBytes($text)
        $stream.Write($bytes, 0, $bytes.Length)
        $stream.Flush($true)
    } finally {
        $stream.Dispose()
    }
    if (-not (Test-Text $new $text)) { throw $mismatch }
    if ([System.IO.File]::Exists($path)) {
        [System.IO.File]::Replace($new, $path, $path + '.old')
    } else {
        [System.IO.File]::Move($new, $path)
    }
    Sync-File $path
    if (-not (Test-Text $path $text)) { throw $mismatch }
}

# Returns whether a file has exactly this content.
function Test-Text([string] $path, [string] $text) {
    return [string]::Equals((Read-Text $path), $text, 'Ordinal')
}

# Flushes a file and its current name to disk.
function Sync-File([string] $path) {
    $stream = [System.IO.File]::Open($path, 'Open', 'ReadWrite', 'ReadWrite')
    try {
        $stream.Flush($true)
    } finally {
        $stream.Dispose()
    }
}

function Remove-File([string] $path) {
    if ([System.IO.File]::Exists($path)) { [System.IO.File]::Delete($path) }
    if ([System.IO.File]::Exists($path)) { throw ($path + ' was removed, but still exists') }
}

# Commits the transaction: without a journal, the next run does not undo it.
function Close-Journal {
    Remove-File $LastFile
    try {
        [System.IO.File]::Move($JournalFile, $LastFile)
    } catch {
        if ([System.IO.File]::Exists($JournalFile)) { throw }
    }
    if ([System.IO.File]::Exists($JournalFile)) { throw ($JournalFile + ' was moved, but still exists') }
    try {
        Sync-File $LastFile
    } catch {
        Write-WarningLine ('not flushed to disk yet: ' + (Get-Reason $_))
    }
}

# Parses a journal, and validates every field before it is used.
function ConvertFrom-Journal([string] $text) {
    $journal = ConvertFrom-Record $text
    foreach ($change in @(Get-Field $journal 'Changes' 'list')) {
        Assert-TextFields $change @('Kind', 'Alias')
        [void] (Get-Field $change 'Index' 'number')
        if ($change.Kind -eq 'forwarding') {
            Assert-TextFields $change @('Family', 'Before', 'After')
            continue
        }
        if ($change.Kind -ne 'route') { throw ('"' + $change.Kind + '" is not a kind of change') }
        Assert-TextFields $change @('Destination', 'NextHop')
        foreach ($name in @('BeforeActive', 'BeforePersistent', 'AfterActive', 'AfterPersistent')) {
            [void] (Get-Field $change $name 'number')
        }
    }
    $before = Get-Field $journal 'StateBefore' 'any text'
    if ($before.Length -gt 0) { [void] (ConvertFrom-State $before) }
    return $journal
}

# Reads a journal. Throws if it is missing or damaged.
function Read-Journal([string] $path) {
    try {
        $text = Read-RecordText $path
        if ($null -eq $text) { throw 'it is missing' }
        return (ConvertFrom-Journal $text)
    } catch {
        throw ('cannot use ' + $path + ': ' + (Get-Reason $_))
    }
}

# Compressed, because some versions of Windows PowerShell cannot parse more than 2 MiB of JSON.
function Format-State($plan) {
    return ConvertTo-Json @{
        Format = 1; Node = $Node; ConfigHash = $ConfigHash; At = [DateTime]::UtcNow.ToString('o')
        Managed = @($plan.Managed.ToArray()); Forwarding = @($plan.Forwarding)
    } -Depth 5 -Compress
}

function Invoke-Changes($changes) {
    foreach ($change in $changes) {
        $comment = '  # ' + $change.Alias + ': ' + $change.Why
        if ($change.Kind -eq 'forwarding') {
            Write-Record ((Format-Forwarding $change $change.After) + $comment)
            Invoke-Forwarding $change $change.After
            continue
        }
        foreach ($step in (Get-ChangeSteps $change)) {
            Write-Record ((Format-Step $change $step) + $comment)
            Invoke-Step $change $step
        }
    }
}

# Returns the steps that restore a route from its live state to the state before a change.
function Get-UndoSteps($live, $change) {
    $now = $live[(Get-Key $change.Index $change.Destination $change.NextHop)]
    if ($null -eq $now) { $now = @{ ActiveMetric = $Absent; PersistentMetric = $Absent } }
    return ,(Get-Steps $now.ActiveMetric $now.PersistentMetric $change.BeforeActive $change.BeforePersistent)
}

# Restores the state from before the changes of a journal, in reverse order.
function Undo-Changes($changes) {
    $live = Get-LiveRoutes
    $forwarding = Get-Forwarding
    for ($at = $changes.Count - 1; $at -ge 0; $at--) {
        $change = $changes[$at]
        if ($change.Kind -eq 'forwarding') {
            if ($forwarding[[string] $change.Index + ' ' + $change.Family] -eq $change.Before) { continue }
            Write-Record (Format-Forwarding $change $change.Before)
            try { Invoke-Forwarding $change $change.Before } catch { Write-Failure (Get-Reason $_) }
            continue
        }
        foreach ($step in (Get-UndoSteps $live $change)) {
            Write-Record (Format-Step $change $step)
            try { Invoke-Step $change $step } catch { Write-Failure (Get-Reason $_); break }
        }
    }
}

# Returns the commands that would undo the changes that are still in effect, without their symbols.
function Get-RemainingCommands($changes) {
    $remaining = @()
    $live = Get-LiveRoutes
    $forwarding = Get-Forwarding
    for ($at = $changes.Count - 1; $at -ge 0; $at--) {
        $change = $changes[$at]
        if ($change.Kind -eq 'forwarding') {
            if ($forwarding[[string] $change.Index + ' ' + $change.Family] -ne $change.Before) {
                $remaining += (Format-Forwarding $change $change.Before).Substring(2)
            }
            continue
        }
        foreach ($step in (Get-UndoSteps $live $change)) { $remaining += (Format-Step $change $step).Substring(2) }
    }
    return ,$remaining
}

# Rolls back the transaction of the journal. Returns the exit code: 6, or 7 if the rollback is incomplete.
function Undo-Journal {
    $Run.Interrupted = 7
    try {
        $journal = Read-Journal $JournalFile
    } catch {
        Write-DamagedJournal (Get-Reason $_)
        return 7
    }
    try {
        $remaining = Undo-Record $journal
    } catch {
        Write-Failure ('the rollback is incomplete: ' + (Get-Reason $_))
        Write-Help 'fix the cause, then run this script with -Rollback to resume'
        return 7
    }
    if ($remaining.Count -gt 0) {
        Write-Failure 'the rollback is incomplete. Remaining commands, in this order:'
        foreach ($line in $remaining) { Write-Detail ('  ' + $line + ' -Confirm:$false') }
        Write-Help 'fix the cause, or run these commands; then run this script with -Rollback to finish'
        return 7
    }
    Write-Record 'Rolled back and verified: the node is in its previous state.'
    $Run.Interrupted = 130
    return 6
}

# Restores the state from before a journal and, once that is complete, the records. Returns the remaining commands.
function Undo-Record($journal) {
    $Report.IsChanged = $true
    $changes = Get-UndoableChanges $journal
    Undo-Changes $changes
    $remaining = Get-RemainingCommands $changes
    if ($remaining.Count -eq 0) {
        if ($journal.StateBefore -eq '') { Remove-File $StateFile } else { Write-File $StateFile $journal.StateBefore }
        Remove-File $JournalFile
    }
    return ,$remaining
}

# Returns the changes of a journal that can be undone, with the current indexes of their interfaces. Windows cannot
# restore a route whose interface no longer exists; such a route has no effect.
function Get-UndoableChanges($journal) {
    $undoable = New-Object System.Collections.ArrayList
    $indexes = Get-Indexes
    $aliases = Get-Aliases
    foreach ($change in @($journal.Changes)) {
        $index = $indexes[[string] $change.Alias]
        if ($null -ne $index) { $change.Index = $index }
        if ($aliases.ContainsKey([string] $change.Index)) {
            [void] $undoable.Add($change)
        } else {
            Write-Record ('Skipped: ' + $change.Alias + ' no longer exists, so these calls cannot be undone: ' + ((Format-Change $change) -join '; '))
        }
    }
    return ,$undoable.ToArray()
}

# ---- Damaged records: which file it is, what is known, and what to do

function Format-Path([string] $path) {
    return '''' + $path.Replace('''', '''''') + ''''
}

function Format-MoveAside([string] $path) {
    return 'Move-Item -LiteralPath ' + (Format-Path $path) + ' -Destination ' + (Format-Path ($path + '.damaged'))
}

function Write-DamagedState([string] $why) {
    Write-Failure ($why + '. It lists the routes that hostgw manages on this node; nothing was changed.')
    $old = $StateFile + '.old'
    try {
        $state = ConvertFrom-State (Read-RecordText $old)
        $listed = '1 route'
        if (@($state.Managed).Count -ne 1) { $listed = ('' + @($state.Managed).Count + ' routes') }
        Write-Detail ('The previous version is intact and lists ' + $listed + '.')
        Write-Help ('restore that version, then run this script again: Copy-Item -LiteralPath ' + (Format-Path $old) +
            ' -Destination ' + (Format-Path $StateFile))
    } catch {
        Write-Detail ('There is no intact previous version. ' + $TranscriptFile + ' contains a line for every change.')
        Write-Help ('move it aside, then run this script again: ' + (Format-MoveAside $StateFile))
        Write-Help ('hostgw then manages the routes of the configuration again. It no longer knows the routes of removed nodes, or the ' +
            'original forwarding settings: check those manually.')
    }
}

function Write-DamagedJournal([string] $why) {
    Write-Failure ($why + '. It lists the changes of an interrupted run; they were not rolled back.')
    Write-Detail ($TranscriptFile + ' contains a line for every change.')
    Write-Help 'run this script with -WhatIf to see how this node differs from the configuration'
    Write-Help ('move the file aside, then run this script again: ' + (Format-MoveAside $JournalFile))
}

function Write-DamagedLast([string] $why) {
    Write-Failure ($why + '. It lists the changes of the last run; nothing was changed.')
    Write-Help 'the last run can no longer be rolled back. Run the script of the previous configuration, or this one with -Destroy.'
}

# Verifies that the live state matches the plan. Returns the plan for it, which is empty.
function Assert-InEffect($interfaces, [bool] $removeAll) {
    $recheck = Get-Plan $interfaces (Read-State) $removeAll
    $lines = @($recheck.Conflicts) + @($recheck.Problems)
    foreach ($change in $recheck.Changes) { $lines += Format-Change $change }
    if ($lines.Count -gt 0) { throw ('Windows reported success, but these changes are not in effect: ' + ($lines -join '; ')) }
    return $recheck
}

# Commits a plan: journal, changes, verification, state. Returns the exit code.
function Invoke-Plan($plan, $interfaces, [bool] $removeAll) {
    Write-File $JournalFile (ConvertTo-Json @{
        Format = 1; Node = $Node; ConfigHash = $ConfigHash; At = [DateTime]::UtcNow.ToString('o')
        Changes = @($plan.Changes); StateBefore = (Read-Text $StateFile)
    } -Depth 5 -Compress)
    $isDone = $false
    try {
        $before = Get-Baseline $plan $interfaces $removeAll
        Invoke-Changes $plan.Changes
        $after = Assert-InEffect $interfaces $removeAll
        if (-not $removeAll) { Assert-Paths $before $after $interfaces }
        $plan.Faults = $after.Faults
        $plan.Later = $after.Later
        $plan.Unverified = $after.Unverified
        if ($removeAll) { Remove-File $StateFile } else { Write-File $StateFile (Format-State $plan) }
        Close-Journal
        $isDone = $true
        return 0
    } catch {
        $isDone = $true
        Write-Failure (Get-Reason $_)
        if ($Run.Remedy -ne '') { Write-Help $Run.Remedy }
        return (Undo-Journal)
    } finally {
        # Ctrl-C skips catch blocks.
        if (-not $isDone) { Stop-Plan }
    }
}

# Handles Ctrl-C: rolls back unless the transaction is committed. Sets the exit code of the script.
function Stop-Plan {
    if ([System.IO.File]::Exists($JournalFile)) {
        [void] (Undo-Journal)
    } else {
        $Run.Interrupted = 0
        Write-Record 'Interrupted after everything was committed and verified.'
    }
}

# Returns an error if a plan removes most routes or all routes to other nodes, for example because the configuration lost
# its nodes; '' if it does not, or if that is allowed. Same rule as in hostgw apply.
function Get-MassRemoval($plan) {
    $others = 0
    foreach ($entry in $plan.Desired) {
        if ($entry.Role -eq 'node') { $others += 1 }
    }
    $isMassRemoval = $plan.Removed -ge 10 -and $plan.Removed * 2 -gt $plan.ManagedCount
    if ($plan.Removed -eq 0 -or -not ($isMassRemoval -or $others -eq 0) -or $Allowed -eq $plan.Removed) { return '' }
    $left = ''
    if ($others -eq 0) { $left = '; this node would have no routes to other nodes' }
    $removed = '' + $plan.Removed + ' of the ' + $plan.ManagedCount + ' managed routes'
    if ($plan.ManagedCount -eq 1) { $removed = 'the only managed route' }
    return 'this plan removes ' + $removed + $left + '; nothing was changed'
}

# Records that matching live routes are managed from now on, and that routes missing from the configuration are not.
function Save-Ownership($plan, $state, [bool] $removeAll) {
    if ($removeAll) {
        Remove-File $StateFile
        return
    }
    $before = (Get-Sorted @($state.Managed | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
    $after = (Get-Sorted @($plan.Managed | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
    if (-not [string]::Equals($before, $after, 'Ordinal')) { Write-File $StateFile (Format-State $plan) }
}

# ---- The command

# Plans and shows the changes, and commits them if $commit is set. Returns the exit code.
function Invoke-Reconcile([bool] $commit) {
    $removeAll = [bool] $Destroy
    try {
        $state = Read-State
    } catch {
        Write-DamagedState (Get-Reason $_)
        return 1
    }
    $interfaces = Get-NodeInterfaces
    $problems = @($interfaces.Problems)
    $plan = $null
    if ($removeAll -or $problems.Count -eq 0) {
        $plan = Get-Plan $interfaces $state $removeAll
        $problems = @($plan.Problems)
    }
    if ($problems.Count -gt 0) {
        Write-Problems $problems
        $remedies = @($interfaces.Remedies)
        if ($null -ne $plan) { $remedies = @($plan.Remedy) }
        foreach ($remedy in $remedies) { if ($remedy -ne '') { Write-Help $remedy } }
        return 3
    }
    if (-not $removeAll -and $plan.Changes.Count -eq 0 -and $plan.Conflicts.Count -eq 0) { Confirm-Faults $plan $interfaces }
    $skipped = Format-Skipped $plan
    if ($skipped -ne '') { Write-WarningLine $skipped }
    $code = Test-Plan $plan $commit
    if ($null -ne $code) { return $code }
    if ($plan.Changes.Count -eq 0) {
        if ($commit) { Save-Ownership $plan $state $removeAll }
    } else {
        $code = Invoke-Plan $plan $interfaces $removeAll
        if ($code -ne 0) { return $code }
        $Report.IsChanged = $true
        $Run.Interrupted = 0
    }
    $opening = ''
    if ($plan.Changes.Count -gt 0) { $opening = 'applied, but ' }
    Write-Faults $plan $opening
    Remove-Orphans $plan.Orphans
    if (Test-Empty $plan) {
        Write-Line (Format-NoChanges $plan)
    } elseif ($plan.Faults.Count -gt 0) {
        Write-Record ('Applied to node ' + $Node + ': ' + (Format-Applied $plan) +
            '. Some pod traffic is lost or diverted; see the warnings above.')
    } elseif ($removeAll) {
        Write-Record ('Destroyed on node ' + $Node + ' and verified: ' + (Format-Applied $plan) + '.')
    } else {
        Write-Record ('Applied to node ' + $Node + ' and verified: ' + (Format-Applied $plan) + '.')
    }
    return 0
}

# Shows a plan that is not or cannot be committed. Returns the exit code, or null to continue.
function Test-Plan($plan, [bool] $commit) {
    if (-not $commit -or $plan.Conflicts.Count -gt 0) {
        foreach ($conflict in $plan.Conflicts) {
            [void] $Report.Problems.Add($conflict)
            Write-Line ('! ' + $conflict)
        }
        Write-Faults $plan ''
        foreach ($change in $plan.Changes) {
            foreach ($line in (Format-Change $change)) { Write-Line $line }
        }
        foreach ($orphan in $plan.Orphans) {
            if ($orphan.IsRemovable) { Write-Line (Format-Orphan $orphan) } else { Write-OrphanWarning $orphan }
        }
    }
    if ($plan.Conflicts.Count -gt 0) {
        $conflicts = '1 conflict with an object'
        $remedy = 'remove the foreign object, or run this script with -Adopt to take it over (-Rollback then restores it)'
        if ($plan.Conflicts.Count -ne 1) {
            $conflicts = ('' + $plan.Conflicts.Count + ' conflicts with objects')
            $remedy = 'remove the foreign objects, or run this script with -Adopt to take them over (-Rollback then restores them)'
        }
        Write-Failure ($conflicts + ' that hostgw does not manage; nothing was changed')
        Write-Help $remedy
        return 10
    }
    if (-not $commit) {
        if (Test-Empty $plan) {
            Write-Line (Format-NoChanges $plan)
        } else {
            Write-Line ('Plan: ' + (Format-Planned $plan) + '. Nothing was changed.')
        }
        return 0
    }
    if ($Destroy -or $plan.Changes.Count -eq 0) { return $null }
    $removal = Get-MassRemoval $plan
    if ($removal -eq '') { return $null }
    Write-Failure $removal
    Write-Help ('review the removals with -WhatIf; if they are intended, run this script with -AllowRemovals ' + $plan.Removed)
    return 8
}

# Rolls back an interrupted run, then does what the arguments request.
function Invoke-Locked {
    if ($Scheduled -and (Test-Replaced)) {
        Write-Line 'This script was replaced or uninstalled.'
        return 0
    }
    if ($Uninstall) { return (Uninstall-Task (Get-UninstallSteps)) }
    if ([System.IO.File]::Exists($JournalFile)) {
        Write-Record 'A previous run was interrupted, or its rollback is incomplete: rolling it back first.'
        $code = Undo-Journal
        if ($code -ne 6) { return $code }
        if ($Rollback) { return 0 }
    } elseif ($Rollback) {
        return (Invoke-Rollback)
    }
    $code = Invoke-Reconcile $true
    if ($Install -and $code -eq 0) { return (Install-Task) }
    return $code
}

# Rolls back the last run. Returns the exit code.
function Invoke-Rollback {
    if (-not [System.IO.File]::Exists($LastFile)) {
        Write-Line 'Nothing to roll back: there is no record of a run on this node.'
        return 0
    }
    try {
        [void] (Read-Journal $LastFile)
    } catch {
        Write-DamagedLast (Get-Reason $_)
        return 1
    }
    [System.IO.File]::Move($LastFile, $JournalFile)
    $code = Undo-Journal
    if ($code -eq 6) { return 0 }
    return $code
}

function Test-Administrator {
    $principal = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Returns what is wrong with the arguments, or ''.
function Get-ArgumentError {
    if ($AllowRemovals -and $Allowed -lt 1) { return '-AllowRemovals requires the number of removals' }
    if (-not $AllowRemovals -and $Arguments.Count -gt 0) { return 'unknown argument: ' + $Arguments[0] }
    $modes = @()
    if ($Rollback) { $modes += '-Rollback' }
    if ($Scheduled) { $modes += '-Scheduled' }
    if ($Destroy) { $modes += '-Destroy' }
    if ($Install) { $modes += '-Install' }
    if ($Uninstall) { $modes += '-Uninstall' }
    if ($modes.Count -gt 1) { return $modes[0] + ' cannot be combined with ' + $modes[1] }
    $hasConsent = $Adopt -or $AllowRemovals
    if (($Rollback -or $Scheduled) -and ($WhatIf -or $hasConsent)) { return $modes[0] + ' cannot be combined with other switches' }
    if (($Destroy -or $Uninstall) -and $hasConsent) { return $modes[0] + ' can only be combined with -WhatIf' }
    return ''
}

# Shows what a run would do, and writes nothing. Returns the exit code.
function Show-Plan {
    if ($Uninstall) {
        Show-TaskSteps (Get-UninstallSteps)
        return 0
    }
    if ([System.IO.File]::Exists($JournalFile)) {
        Write-WarningLine 'a previous run was interrupted: the next run will roll it back first, so this plan will change'
    }
    $code = Invoke-Reconcile $false
    if ($code -ne 0) { return $code }
    if ($Install) { Show-TaskSteps (Get-InstallSteps) } elseif (-not $Destroy) { Write-TaskWarning }
    return 0
}

# Takes the lock, and does what the arguments request. Returns the exit code.
function Invoke-Exclusive {
    [void] [System.IO.Directory]::CreateDirectory($Folder)
    $lock = $null
    try {
        $lock = [System.IO.File]::Open($LockFile, 'OpenOrCreate', 'ReadWrite', 'None')
    } catch {
        Write-Failure ('another run holds ' + $LockFile + ': ' + (Get-Reason $_))
        Write-Help 'wait for it to finish, then run this script again'
        return 4
    }
    try {
        Limit-Transcript
        return (Invoke-Locked)
    } finally {
        $lock.Dispose()
    }
}

function Invoke-Main {
    $problem = Get-ArgumentError
    if ($problem -ne '') {
        Write-Failure ($problem + '; nothing was changed')
        Write-Help 'the switches are -WhatIf, -Adopt, -AllowRemovals N, -Rollback, -Destroy, -Install and -Uninstall'
        return 64
    }
    if ($Destroy -and (Test-TaskActive)) {
        Write-Failure ('the task ' + $TaskName + ' would apply its configuration again; nothing was changed')
        Write-Help 'run this script with -Uninstall first'
        return 8
    }
    if ($WhatIf) { return (Show-Plan) }
    if (-not (Test-Administrator)) {
        Write-Failure 'only administrators can change routes and tasks'
        Write-Help 'run PowerShell as administrator; -WhatIf works for all users'
        return 1
    }
    if ($Scheduled) { return (Invoke-Scheduled) }
    if ($Uninstall -and (Get-UninstallSteps).Count -eq 0) {
        Write-NotInstalled
        return 0
    }
    $code = Invoke-Exclusive
    if ($code -eq 0 -and -not ($Destroy -or $Install -or $Uninstall)) { Write-TaskWarning }
    return $code
}

$code = 1
$isDone = $false
try {
    $code = Invoke-Main
    $isDone = $true
} catch {
    $isDone = $true
    Write-Failure (Get-Reason $_)
} finally {
    # Ctrl-C runs only this block. Without an explicit exit, PowerShell would exit with 0.
    if (-not $isDone) { exit $Run.Interrupted }
}
exit $code
