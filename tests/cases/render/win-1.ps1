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

$Node = 'win-1'
$ConfigHash = '0123456789abcdef'
$InterfaceAlias = ''  # empty: the interface that holds one of $Addresses
$Addresses = @('172.30.0.12')
$PodGateways = @('10.244.1.2')  # held by the pod interface
$PodAliases = @('vEthernet (cbr0)', 'vEthernet (cbr0_ep)')  # its names, where nothing holds them
$Families = @('IPv4')
# Role: pods of another node, own pods, or masterAddress. NextHop: 0.0.0.0 and :: are on-link; empty: the default
# gateway of the interface
$Routes = @(
    @{ Role = 'node'; Destination = '10.244.0.0/24'; NextHop = '10.244.0.1'; Metric = 256; Why = 'pods of node linux-1' }
    @{ Role = 'node'; Destination = '10.244.2.0/25'; NextHop = '10.244.2.1'; Metric = 256; Why = 'pods of node linux-2' }
    @{ Role = 'node'; Destination = '10.244.8.0/21'; NextHop = '10.244.8.2'; Metric = 256; Why = 'pods of node win-2' }
    @{ Role = 'own'; Destination = '10.244.1.0/24'; NextHop = '0.0.0.0'; Metric = 300; Why = 'own pods are on-link' }
    @{ Role = 'master'; Destination = '172.30.0.11/32'; NextHop = ''; Metric = 256; Why = 'masterAddress via the default gateway'; Everything = '0.0.0.0/0' }
)

# ---- Body: the same in every script of this version

# The characters that are escaped before they are shown, from and to, by their numbers.
$Hidden = @(
    0, 31, 127, 159, 173, 173, 847, 847, 1536, 1541, 1564, 1564, 1757, 1757, 1807, 1807,
    2192, 2193, 2274, 2274, 4447, 4448, 6068, 6069, 6155, 6159, 8203, 8207, 8232, 8238, 8288, 8303,
    12644, 12644, 65024, 65039, 65279, 65279, 65440, 65440, 65520, 65531, 69821, 69821, 69837, 69837, 78896, 78911,
    113824, 113827, 119155, 119162, 917504, 921599
)

Set-StrictMode -Version 2.0

# A script inherits the preferences of its caller; this one must not depend on them.
$ErrorActionPreference = 'Stop'
$WarningPreference = 'Continue'
$InformationPreference = 'Continue'
$ProgressPreference = 'SilentlyContinue'
$DebugPreference = 'SilentlyContinue'
$VerbosePreference = 'SilentlyContinue'
$PSDefaultParameterValues = @{}

# What hostgw owns here, the journal of what is under way, and the last run. Only administrators can write below
# Program Files: nobody else can make this script undo what it never did. A PowerShell of 32 bits sees another one.
$Programs = $env:ProgramW6432
if ([string]::IsNullOrEmpty($Programs)) { $Programs = $env:ProgramFiles }
$Folder = Join-Path $Programs 'hostgw'
$StateFile = Join-Path $Folder 'state.json'

# ---- What is said

function Test-Hidden([int] $code) {
    if ($code -lt 127) { return $code -lt 32 }
    for ($at = 0; $at -lt $Hidden.Count; $at += 2) {
        if ($code -ge $Hidden[$at] -and $code -le $Hidden[$at + 1]) { return $true }
    }
    return $false
}

# The characters of a text by their numbers.
function Get-Codes([string] $text) {
    $codes = New-Object System.Collections.ArrayList
    $bytes = [System.Text.Encoding]::UTF32.GetBytes($text)
    for ($at = 0; $at -lt $bytes.Count; $at += 4) {
        [void] $codes.Add($bytes[$at] + 256 * $bytes[$at + 1] + 65536 * $bytes[$at + 2])
    }
    return ,$codes.ToArray()
}

# Escapes what could drive a terminal or hide from a reader, as hostgw does: every hidden character, line breaks included.
function Format-Shown([string] $text) {
    if ($text -cnotmatch '[^ -~]') { return $text }
    $shown = New-Object System.Collections.ArrayList
    foreach ($code in (Get-Codes $text)) {
        if (-not (Test-Hidden $code)) { [void] $shown.Add([char]::ConvertFromUtf32($code)) }
        elseif ($code -eq 9) { [void] $shown.Add('\t') }
        elseif ($code -eq 10) { [void] $shown.Add('\n') }
        elseif ($code -eq 13) { [void] $shown.Add('\r') }
        else { [void] $shown.Add('\u{' + $code.ToString('x') + '}') }
    }
    return $shown.ToArray() -join ''
}

# JSON that a terminal can show: a hidden character in a string becomes \uXXXX, which reads back as the same. JSON itself
# holds none but white space.
function Format-ShownJson([string] $json) {
    $lines = New-Object System.Collections.ArrayList
    foreach ($line in $json.Replace([string] [char] 13, '').Split([char] 10)) {
        if ($line -cnotmatch '[^ -~]') {
            [void] $lines.Add($line)
            continue
        }
        $shown = New-Object System.Collections.ArrayList
        foreach ($code in (Get-Codes $line)) {
            $character = [char]::ConvertFromUtf32($code)
            if ($code -lt 127 -or -not (Test-Hidden $code)) {
                [void] $shown.Add($character)
                continue
            }
            $bytes = [System.Text.Encoding]::BigEndianUnicode.GetBytes($character)
            for ($at = 0; $at -lt $bytes.Count; $at += 2) {
                [void] $shown.Add('\u' + $bytes[$at].ToString('x2') + $bytes[$at + 1].ToString('x2'))
            }
        }
        [void] $lines.Add($shown.ToArray() -join '')
    }
    return $lines.ToArray() -join [string] [char] 10
}

# All that is printed passes through these, Write-Line and Write-Record.
function Write-Detail([string] $text) {
    [Console]::Error.WriteLine((Format-Shown $text))
}

function Write-Failure([string] $text) {
    Write-Detail ('Error: ' + $text)
}

function Write-Help([string] $text) {
    Write-Detail ('Help: ' + $text)
}

# ---- What stands

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
        # That a cmdlet is missing is of the same category.
        $isMissing = $_.Exception -is [System.Management.Automation.CommandNotFoundException]
        if ($isMissing -or [string] $_.CategoryInfo.Category -ne 'ObjectNotFound') { throw }
    }
    # Every machine has a loopback interface with addresses and active routes.
    if ($found.Count -eq 0 -and $store -ne 'PersistentStore') { throw ('Windows lists no ' + $what) }
    return ,$found
}

function Get-Key($index, [string] $destination, [string] $nextHop) {
    return [string] $index + ' ' + $destination + ' ' + $nextHop
}

# Texts in an order that is the same in every culture.
function Get-Sorted($texts) {
    $sorted = New-Object System.Collections.ArrayList
    foreach ($text in $texts) { [void] $sorted.Add($text) }
    $sorted.Sort([System.StringComparer]::Ordinal)
    return ,$sorted.ToArray()
}

# What went wrong, without the words in which PowerShell wraps an error of .NET.
function Get-Reason($failure) {
    return $failure.Exception.GetBaseException().Message
}

# The name of each interface by its index.
function Get-Aliases {
    $aliases = @{}
    foreach ($interface in (Get-Found 'interfaces' '')) {
        $aliases[[string] $interface.InterfaceIndex] = [string] $interface.InterfaceAlias
    }
    return $aliases
}

# A route of a cmdlet, in neither store yet.
function New-Standing($route, $aliases) {
    return @{
        Index = [int] $route.InterfaceIndex; Alias = [string] $aliases[[string] $route.InterfaceIndex]
        Destination = [string] $route.DestinationPrefix; NextHop = [string] $route.NextHop
        Active = $Absent; Persistent = $Absent
    }
}

# The routes of both stores by interface, destination and next hop, but for those that Windows makes of addresses: where
# one of these stands, nothing could be put back. $made, a list, gets those in the active store.
function Get-Standing($made) {
    $standing = @{}
    $local = @{}
    $aliases = Get-Aliases
    foreach ($store in @('ActiveStore', 'PersistentStore')) {
        foreach ($route in (Get-Found 'routes' $store)) {
            $key = Get-Key $route.InterfaceIndex $route.DestinationPrefix $route.NextHop
            if ([string] $route.Protocol -eq 'Local') {
                $local[$key] = $true
                if ($null -ne $made -and $store -eq 'ActiveStore') { [void] $made.Add((New-Standing $route $aliases)) }
                continue
            }
            if (-not $standing.ContainsKey($key)) { $standing[$key] = New-Standing $route $aliases }
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

# ---- Records: every file is checked as a whole before anything of it is used

# Returns a property of a record. Throws if it is missing or of the wrong type: 'text' (not empty), 'any text', 'number'
# or 'list'.
function Get-Field($record, [string] $name, [string] $type) {
    try {
        $value = $record.$name
    } catch {
        throw ('"' + $name + '" is missing')
    }
    $isRight = $false
    if ($type -eq 'text') { $isRight = $value -is [string] -and $value.Length -gt 0 }
    if ($type -eq 'any text') { $isRight = $value -is [string] }
    if ($type -eq 'number') { $isRight = $value -is [int] -or $value -is [long] }
    if ($type -eq 'list') { $isRight = $value -is [array] }
    if (-not $isRight) { throw ('"' + $name + '" is not a ' + $type) }
    return $value
}

# Parses the text of a record. A power loss can leave a file empty, cut short, or full of zeros.
function ConvertFrom-Record([string] $text) {
    if ($text.Length -eq 0) { throw 'it is empty' }
    if ($text.IndexOf([char] 0) -ge 0) { throw 'it contains zeros' }
    try {
        $record = ConvertFrom-Json $text
    } catch {
        throw 'it is not valid JSON, or cut short'
    }
    $format = Get-Field $record 'Format' 'number'
    if ($format -ne 1) { throw ('format ' + $format + ' is of another version of hostgw; this script reads format 1') }
    return $record
}

function Assert-Texts($record, $names) {
    foreach ($name in $names) { [void] (Get-Field $record $name 'text') }
}

function ConvertFrom-State([string] $text) {
    $state = ConvertFrom-Record $text
    foreach ($route in @(Get-Field $state 'Owned' 'list')) { Assert-Texts $route @('Alias', 'Destination', 'NextHop') }
    foreach ($entry in @(Get-Field $state 'Forwarding' 'list')) { Assert-Texts $entry @('Alias', 'Family', 'Value') }
    return $state
}

# Reads the text of a record. Returns null if there is no such file.
function Read-RecordText([string] $path) {
    if ([System.IO.Directory]::Exists($path)) { throw 'it is a folder' }
    if (-not [System.IO.File]::Exists($path)) { return $null }
    return [System.IO.File]::ReadAllText($path)
}

# The routes that hostgw owns here, and the forwarding settings from before it.
function Read-State {
    try {
        $text = Read-RecordText $StateFile
        if ($null -ne $text) { return (ConvertFrom-State $text) }
    } catch {
        throw ('cannot use ' + $StateFile + ': ' + (Get-Reason $_))
    }
    return @{ Owned = @(); Forwarding = @() }
}

$JournalFile = Join-Path $Folder 'journal.json'
$LastFile = Join-Path $Folder 'last.json'
$LockFile = Join-Path $Folder 'lock'
$TranscriptFile = Join-Path $Folder 'transcript.log'

# The exit code if Control-C arrives now.
$Run = @{ Interrupted = 130 }

# ---- What is said

function Write-Line([string] $text) {
    Write-Host (Format-Shown $text)
}

function Write-Caution([string] $text) {
    Write-Warning (Format-Shown $text)
}

# A line for people and for the transcript. What undoes a change must not fail for want of a transcript: the journal
# is what counts.
function Write-Record([string] $text) {
    Write-Line $text
    try {
        [System.IO.File]::AppendAllText($TranscriptFile, [DateTime]::UtcNow.ToString('o') + ' ' + (Format-Shown $text) + "`r`n")
    } catch {
        Write-Caution ('not in the transcript: ' + (Get-Reason $_))
    }
}

# Starts a new transcript when the old one has reached 1 MiB. One older transcript is kept.
function Limit-Transcript {
    try {
        if ((Read-Text $TranscriptFile).Length -lt 1048576) { return }
        Remove-File ($TranscriptFile + '.old')
        [System.IO.File]::Move($TranscriptFile, $TranscriptFile + '.old')
    } catch {
        Write-Caution ('the transcript keeps growing: ' + (Get-Reason $_))
    }
}

# ---- What this node is

# Whether an alias is one of those, as Windows compares them. -eq and -contains go by the culture, and overlook characters
# without width.
function Test-Alias([string] $alias, $names) {
    foreach ($name in $names) {
        if ([string]::Equals($alias, $name, 'OrdinalIgnoreCase')) { return $true }
    }
    return $false
}

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
        $holders = @($aliases.Keys | Where-Object { Test-Alias $aliases[$_] @($InterfaceAlias) })
    }
    if ($podHolders.Count -eq 0) {
        $podHolders = @($aliases.Keys | Where-Object { Test-Alias $aliases[$_] $PodAliases })
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
        [void] $wanted.Add(@{ Now = $now; Metric = $route.Metric; Why = $route.Why; Role = $route.Role })
    }
    return ,$wanted
}

# ---- Traffic: whose it is, by destination

# The bits of a byte that the first 0 to 7 bits of a prefix keep.
$Masks = @(0, 128, 192, 224, 240, 248, 252, 254)

# The prefix of that length around an address, as a name.
function Get-Enclosing($bytes, [int] $length) {
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

# What is wanted by destination, and the pods of every node by the prefix that holds them.
function Get-Needs($wanted) {
    $needs = @{ Exact = @{}; Pods = @{}; Lengths = @() }
    $lengths = @{}
    foreach ($entry in $wanted) {
        $needs.Exact[$entry.Now.Destination] = $entry
        if ($entry.Role -eq 'master') { continue }
        $parts = $entry.Now.Destination.Split('/')
        $length = [int] $parts[1]
        $needs.Pods[(Get-Enclosing ([System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()) $length)] = $entry
        $lengths[$length] = $true
    }
    $needs.Lengths = @($lengths.Keys)
    return $needs
}

# What is wanted of the traffic that a route takes: the same destination, or the pods of a node around it. Null if it
# takes none. The node's own pods belong on its pod interface.
function Get-Taken($needs, $place, $route) {
    $entry = $needs.Exact[$route.Destination]
    if ($null -eq $entry) {
        $parts = $route.Destination.Split('/')
        $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
        foreach ($length in $needs.Lengths) {
            if ($length -gt [int] $parts[1]) { continue }
            $around = $needs.Pods[(Get-Enclosing $bytes $length)]
            if ($null -ne $around) { $entry = $around }
        }
    }
    if ($null -eq $entry -or ($entry.Role -eq 'own' -and $route.Index -eq $place.Pod.Index)) { return $null }
    return $entry
}

# What is said of a route of somebody else that takes traffic.
function Format-Conflict($route, $entry) {
    $text = (Format-Route $route) + ' on ' + $route.Alias + ' is not hostgw''s: it '
    $need = ' -NextHop ' + $entry.Now.NextHop + ' on ' + $entry.Now.Alias
    if ($route.Destination -eq $entry.Now.Destination) { return $text + 'needs' + $need }
    return $text + 'takes packets from -DestinationPrefix ' + $entry.Now.Destination + $need
}

# Addresses of this machine among the pods of another node: Windows keeps their packets, and no route can change that.
function Get-Misplaced($needs, $place, $made) {
    $problems = @()
    $seen = @{}
    foreach ($route in $made) {
        $entry = Get-Taken $needs $place $route
        if ($null -eq $entry -or $entry.Role -ne 'node') { continue }
        $problem = $route.Alias + ' has an address in ' + $entry.Now.Destination + ' (' + $entry.Why +
            '): Windows keeps packets to it on this machine. Remove that address, or fix the configuration'
        if (-not $seen.ContainsKey($problem)) { $problems += $problem }
        $seen[$problem] = $true
    }
    return ,$problems
}

# ---- Orphans: persistent routes of interfaces that no longer exist. They carry nothing, and never stand in the way.

function Test-Orphan($route) {
    return $route.Alias -eq '' -and $route.Active -lt 0
}

# hostgw removes the orphans that it owns, or takes over, where Windows still knows the index of their interface.
function New-Orphan($route, [bool] $isOwned) {
    return @{ Route = $route; IsRemovable = ($isOwned -or [bool] $Adopt) -and $route.Index -gt 0 }
}

function Get-OrphanStep {
    return @{ Verb = 'remove'; Store = 'PersistentStore'; Metric = $Absent }
}

# The line that removes an orphan by hand.
function Format-RouteDelete($route) {
    $parts = $route.Destination.Split('/')
    $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
    if ($bytes.Count -eq 16) { return 'route -6 delete ' + $route.Destination + ' ' + $route.NextHop }
    $mask = (Get-Enclosing @(255, 255, 255, 255) ([int] $parts[1])).Split('/')[0]
    return 'route delete ' + $parts[0] + ' mask ' + $mask + ' ' + $route.NextHop
}

function Format-Orphan($orphan) {
    if ($orphan.IsRemovable) { return (Format-Step $orphan.Route (Get-OrphanStep)) + '  # its interface no longer exists' }
    return (Format-Route $orphan.Route) + ' is left of an interface that no longer exists; it carries nothing. To remove it: ' +
        (Format-RouteDelete $orphan.Route) + ', then run this script again'
}

# Removes orphans. Nothing depends on it, so a failure is a warning.
function Remove-Orphans($orphans) {
    foreach ($orphan in $orphans) {
        if ($orphan.IsRemovable) {
            Write-Record (Format-Orphan $orphan)
            try {
                Invoke-Step $orphan.Route (Get-OrphanStep)
                continue
            } catch {
                Write-Caution (Get-Reason $_)
                $orphan.IsRemovable = $false
            }
        }
        Write-Caution (Format-Orphan $orphan)
    }
}

# ---- The plan as a whole

# What must change, what stands in the way, and what is owned afterwards. $nothing: all that is owned goes.
function Get-Plan($place, $state, [bool] $nothing) {
    $plan = @{
        Changes = @(); Conflicts = @(); Problems = @(); Forwarding = @(); Removed = 0; Standing = 0; Orphans = @()
        Owned = (New-Object System.Collections.ArrayList)
    }
    $made = New-Object System.Collections.ArrayList
    $standing = Get-Standing $made
    $come = New-Object System.Collections.ArrayList
    $keys = @{}
    $wanted = @()
    if (-not $nothing) { $wanted = Get-Wanted $plan $place $standing }
    foreach ($entry in $wanted) {
        $now = $entry.Now
        $keys[(Get-Key $now.Index $now.Destination $now.NextHop)] = $true
        [void] $plan.Owned.Add(@{ Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop })
        if ($now.Active -ne $entry.Metric -or $now.Persistent -ne $entry.Metric) {
            [void] $come.Add((New-RouteChange $now $entry.Metric $entry.Metric $entry.Why))
        }
    }
    $needs = Get-Needs $wanted
    $plan.Problems += Get-Misplaced $needs $place $made
    $go = Get-Departures $plan $place $state $standing $needs $keys
    # As on Linux: a node forwards when everything else stands, and stops before it goes.
    $forwarding = Get-ForwardingChanges $plan $place $state $nothing
    if ($nothing) {
        $plan.Changes = @($forwarding) + $go.ToArray()
    } else {
        $plan.Changes = $come.ToArray() + $go.ToArray() + @($forwarding)
    }
    return $plan
}

# The routes that go, of those that are not wanted; conflicts, orphans and counts of destinations go to $plan.
function Get-Departures($plan, $place, $state, $standing, $needs, $keys) {
    $owned = @{}
    # An orphan has lost the name of its interface.
    $orphaned = @{}
    foreach ($route in @($state.Owned)) {
        $owned[(Get-OwnedKey $route.Alias $route.Destination $route.NextHop)] = $true
        $orphaned[(Get-OwnedKey '' $route.Destination $route.NextHop)] = $true
    }
    $go = New-Object System.Collections.ArrayList
    $had = @{}
    $lost = @{}
    foreach ($key in (Get-Sorted $standing.Keys)) {
        $now = $standing[$key]
        $isOwned = $owned.ContainsKey((Get-OwnedKey $now.Alias $now.Destination $now.NextHop))
        $taken = $null
        if (-not $keys.ContainsKey($key)) { $taken = Get-Taken $needs $place $now }
        if (Test-Orphan $now) {
            $isOwned = $orphaned.ContainsKey((Get-OwnedKey '' $now.Destination $now.NextHop))
            if ($isOwned -or $null -ne $taken) { $plan.Orphans += New-Orphan $now $isOwned }
            continue
        }
        if ($isOwned) { $had[$now.Destination] = $true }
        if ($isOwned -and -not $needs.Exact.ContainsKey($now.Destination)) { $lost[$now.Destination] = $true }
        if ($keys.ContainsKey($key)) { continue }
        if ($isOwned) {
            [void] $go.Add((New-RouteChange $now $Absent $Absent 'not in the configuration'))
        } elseif ($null -ne $taken -and $Adopt) {
            [void] $go.Add((New-RouteChange $now $Absent $Absent 'adopt foreign route'))
        } elseif ($null -ne $taken) {
            $plan.Conflicts += Format-Conflict $now $taken
        }
    }
    $plan.Standing = $had.Count
    $plan.Removed = $lost.Count
    return ,$go
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
    foreach ($interface in @($place.Management, $place.Pod)) {
        foreach ($family in $Families) {
            $now = $standing[[string] $interface.Index + ' ' + $family]
            if ($null -eq $now) {
                $plan.Problems += $interface.Alias + ' has no ' + $family + ': it cannot forward it'
                continue
            }
            if ($now -eq 'Enabled') { continue }
            $changes += New-ForwardingChange $interface.Index $interface.Alias $family $now 'Enabled' 'forwarding: required on every node'
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
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
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
    $one = @{
        InterfaceIndex = $change.Index; AddressFamily = $change.Family
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
    }
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

# Whether a plan changes nothing.
function Test-Empty($plan) {
    return $plan.Changes.Count -eq 0 -and @($plan.Orphans | Where-Object { $_.IsRemovable }).Count -eq 0
}

function Format-Totals($plan) {
    $add = 0
    $change = 0
    $remove = @($plan.Orphans | Where-Object { $_.IsRemovable }).Count
    foreach ($one in $plan.Changes) {
        if ($one.Kind -eq 'forwarding') { $change += 1 }
        elseif ($one.BeforeActive -lt 0 -and $one.BeforePersistent -lt 0) { $add += 1 }
        elseif ($one.AfterActive -lt 0 -and $one.AfterPersistent -lt 0) { $remove += 1 }
        else { $change += 1 }
    }
    return [string] $add + ' to add, ' + $change + ' to change, ' + $remove + ' to remove'
}

# ---- The transaction

# Replaces a file, so that there is always the old one or the new one; what counts is what can be read afterwards. The
# content is on the disk before the name refers to it, and the second flush takes the new name there as well: NTFS writes
# its log up to the last change of a file when that file is flushed.
function Write-File([string] $path, [string] $text) {
    $new = $path + '.new'
    $wrong = $path + ' was written, and holds something else'
    $stream = [System.IO.File]::Open($new, 'Create', 'Write', 'Read')
    try {
        $bytes = [System.Text.Encoding]::UTF8.GetBytes($text)
        $stream.Write($bytes, 0, $bytes.Length)
        $stream.Flush($true)
    } finally {
        $stream.Dispose()
    }
    if (-not (Test-Text $new $text)) { throw $wrong }
    if ([System.IO.File]::Exists($path)) {
        [System.IO.File]::Replace($new, $path, $path + '.old')
    } else {
        [System.IO.File]::Move($new, $path)
    }
    Sync-File $path
    if (-not (Test-Text $path $text)) { throw $wrong }
}

# Whether a file holds exactly that.
function Test-Text([string] $path, [string] $text) {
    return [string]::Equals((Read-Text $path), $text, 'Ordinal')
}

# Takes a file to the disk, with the name that it has now.
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
    try {
        Sync-File $LastFile
    } catch {
        Write-Caution ('not flushed to the disk yet: ' + (Get-Reason $_))
    }
}

# Checks every field of a journal before any of it is used.
function ConvertFrom-Journal([string] $text) {
    $journal = ConvertFrom-Record $text
    foreach ($change in @(Get-Field $journal 'Changes' 'list')) {
        Assert-Texts $change @('Kind', 'Alias')
        [void] (Get-Field $change 'Index' 'number')
        if ($change.Kind -eq 'forwarding') {
            Assert-Texts $change @('Family', 'Before', 'After')
            continue
        }
        if ($change.Kind -ne 'route') { throw ('"' + $change.Kind + '" is not a kind of change') }
        Assert-Texts $change @('Destination', 'NextHop')
        foreach ($name in @('BeforeActive', 'BeforePersistent', 'AfterActive', 'AfterPersistent')) {
            [void] (Get-Field $change $name 'number')
        }
    }
    $before = Get-Field $journal 'StateBefore' 'any text'
    if ($before.Length -gt 0) { [void] (ConvertFrom-State $before) }
    return $journal
}

# Reads a journal. Throws if there is none, or if it is damaged.
function Read-Journal([string] $path) {
    try {
        $text = Read-RecordText $path
        if ($null -eq $text) { throw 'it is missing' }
        return (ConvertFrom-Journal $text)
    } catch {
        throw ('cannot use ' + $path + ': ' + (Get-Reason $_))
    }
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
            try { Invoke-Forwarding $change $change.Before } catch { Write-Failure (Get-Reason $_) }
            continue
        }
        foreach ($step in (Get-StepsBack $standing $change)) {
            Write-Record (Format-Step $change $step)
            try { Invoke-Step $change $step } catch { Write-Failure (Get-Reason $_); break }
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

# Undoes the transaction of the journal, and ends it. Returns the exit code that this is: 6, or 7 where it is not done.
function Undo-Journal {
    $Run.Interrupted = 7
    try {
        $journal = Read-Journal $JournalFile
    } catch {
        Write-DamagedJournal (Get-Reason $_)
        return 7
    }
    try {
        $left = Undo-Record $journal
    } catch {
        Write-Failure ('the rollback is incomplete: ' + (Get-Reason $_))
        Write-Detail 'Run this script with -Rollback once the cause is gone: it goes on from here.'
        return 7
    }
    if ($left.Count -gt 0) {
        Write-Failure 'the rollback is incomplete. What is left to do, in this order:'
        foreach ($line in $left) { Write-Detail ('  ' + $line + ' -Confirm:$false') }
        Write-Detail 'Run these commands, or this script with -Rollback once the cause is gone: it goes on from here.'
        return 7
    }
    Write-Record 'Rolled back and verified: the node is in its previous state.'
    $Run.Interrupted = 130
    return 6
}

# Restores what stood before a journal, and when all of it stands, the records too. Returns what is left.
function Undo-Record($journal) {
    $changes = Get-Undoable $journal
    Undo-Changes $changes
    $left = Get-Left $changes
    if ($left.Count -eq 0) {
        if ($journal.StateBefore -eq '') { Remove-File $StateFile } else { Write-File $StateFile $journal.StateBefore }
        Remove-File $JournalFile
    }
    return ,$left
}

# The changes of a journal that can be undone, with the indexes that their interfaces have now. A route of an interface
# that no longer exists carries nothing, and Windows cannot restore it.
function Get-Undoable($journal) {
    $undoable = New-Object System.Collections.ArrayList
    $indexes = Get-Indexes
    $aliases = Get-Aliases
    foreach ($change in @($journal.Changes)) {
        $index = $indexes[[string] $change.Alias]
        if ($null -ne $index) { $change.Index = $index }
        if ($aliases.ContainsKey([string] $change.Index)) {
            [void] $undoable.Add($change)
        } else {
            Write-Record ('Skipped: ' + $change.Alias + ' no longer exists, so this cannot be undone: ' + ((Format-Change $change) -join '; '))
        }
    }
    return ,$undoable.ToArray()
}

# ---- Damaged records: which file, what is known, what to do next

function Format-Path([string] $path) {
    return '''' + $path.Replace('''', '''''') + ''''
}

function Format-MoveAside([string] $path) {
    return 'Move-Item -LiteralPath ' + (Format-Path $path) + ' -Destination ' + (Format-Path ($path + '.damaged'))
}

function Write-DamagedState([string] $why) {
    Write-Failure ($why + '. It lists the routes that hostgw owns on this node; nothing was changed.')
    $old = $StateFile + '.old'
    try {
        $state = ConvertFrom-State (Read-RecordText $old)
        Write-Detail ('The version before it is intact, and lists ' + @($state.Owned).Count + ' routes.')
        Write-Help ('go back to that version, then run this script again: Copy-Item -LiteralPath ' + (Format-Path $old) +
            ' -Destination ' + (Format-Path $StateFile))
    } catch {
        Write-Detail ('There is no intact version before it. ' + $TranscriptFile + ' has a line for every change.')
        Write-Help ('set it aside, then run this script again: ' + (Format-MoveAside $StateFile))
        Write-Help ('hostgw then owns again what the configuration asks for. It no longer knows routes of nodes that left the ' +
            'configuration, nor forwarding restore original value: check those by hand.')
    }
}

function Write-DamagedJournal([string] $why) {
    Write-Failure ($why + '. A run was interrupted, and this file lists its changes; they were not undone.')
    Write-Detail ($TranscriptFile + ' has a line for every change.')
    Write-Help 'run this script with -WhatIf to see what differs from the configuration now.'
    Write-Help ('set the file aside, then run this script again: ' + (Format-MoveAside $JournalFile))
}

function Write-DamagedLast([string] $why) {
    Write-Failure ($why + '. It lists the changes of the last run; nothing was changed.')
    Write-Help 'the last run cannot be undone from it. Run the script of the previous configuration, or this one with -Destroy.'
}

# That Windows did what it says it did.
function Assert-InForce($place, [bool] $nothing) {
    $again = Get-Plan $place (Read-State) $nothing
    $lines = @($again.Conflicts) + @($again.Problems)
    foreach ($change in $again.Changes) { $lines += Format-Change $change }
    if ($lines.Count -gt 0) { throw ('Windows reported success, and this is not applied: ' + ($lines -join '; ')) }
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
        Write-Failure (Get-Reason $_)
        return (Undo-Journal)
    } finally {
        # Control-C runs no catch.
        if (-not $ended) { Stop-Plan }
    }
}

# Control-C: undoes what is not committed. Sets the exit code of the script.
function Stop-Plan {
    if ([System.IO.File]::Exists($JournalFile)) {
        [void] (Undo-Journal)
    } else {
        $Run.Interrupted = 0
        Write-Record 'Interrupted when everything was committed and verified.'
    }
}

# What a file that lost its nodes would take with it unseen; nothing where that was asked for. The rule is that of
# hostgw apply.
function Get-MassRemoval($plan) {
    $others = 0
    foreach ($route in $Routes) {
        if ($route.Role -eq 'node') { $others += 1 }
    }
    $isMass = $plan.Removed -ge 10 -and $plan.Removed * 2 -gt $plan.Standing
    if ($plan.Removed -eq 0 -or -not ($isMass -or $others -eq 0) -or $Allowed -eq $plan.Removed) { return '' }
    return 'this plan removes ' + $plan.Removed + ' of the ' + $plan.Standing + ' destinations managed here; nothing was changed. ' +
        'If they are intended, pass -AllowRemovals ' + $plan.Removed
}

# What stands already is hostgw's from now on, and what left the file is not any more.
function Save-Ownership($plan, $state, [bool] $nothing) {
    if ($nothing) {
        Remove-File $StateFile
        return
    }
    $before = (Get-Sorted @($state.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
    $after = (Get-Sorted @($plan.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
    if (-not [string]::Equals($before, $after, 'Ordinal')) { Write-File $StateFile (Format-State $plan) }
}

# ---- The command

# Plans, shows, and unless that was all that was asked for, commits. Gives the exit code.
function Invoke-Work([bool] $commit) {
    $nothing = [bool] $Destroy
    try {
        $state = Read-State
    } catch {
        Write-DamagedState (Get-Reason $_)
        return 1
    }
    $place = Get-Place
    $problems = @($place.Problems)
    $plan = $null
    if ($nothing -or $problems.Count -eq 0) {
        $plan = Get-Plan $place $state $nothing
        $problems = @($plan.Problems)
    }
    if ($problems.Count -gt 0) {
        foreach ($problem in $problems) { Write-Failure $problem }
        return 3
    }
    $code = Test-Plan $plan $commit
    if ($null -ne $code) { return $code }
    if ($plan.Changes.Count -eq 0) {
        if ($commit) { Save-Ownership $plan $state $nothing }
    } else {
        $code = Invoke-Plan $plan $place $nothing
        if ($code -ne 0) { return $code }
        $Run.Interrupted = 0
    }
    Remove-Orphans $plan.Orphans
    if (Test-Empty $plan) {
        Write-Line 'No changes. This node matches the configuration.'
    } else {
        Write-Record ('Done on node ' + $Node + ', and verified: ' + (Format-Totals $plan) + ' before, nothing now.')
    }
    return 0
}

# Shows a plan that is not committed, or cannot be. Returns the exit code, or null for one to go on with.
function Test-Plan($plan, [bool] $commit) {
    if (-not $commit -or $plan.Conflicts.Count -gt 0) {
        foreach ($conflict in $plan.Conflicts) { Write-Line ('! ' + $conflict) }
        foreach ($change in $plan.Changes) {
            foreach ($line in (Format-Change $change)) { Write-Line $line }
        }
        foreach ($orphan in $plan.Orphans) {
            if ($orphan.IsRemovable) { Write-Line (Format-Orphan $orphan) } else { Write-Caution (Format-Orphan $orphan) }
        }
    }
    if ($plan.Conflicts.Count -gt 0) {
        Write-Failure ([string] $plan.Conflicts.Count + ' in conflict with objects that hostgw does not manage; nothing was changed. -Adopt takes it over, and -Rollback gives it back.')
        return 10
    }
    if (-not $commit) {
        if (Test-Empty $plan) {
            Write-Line 'No changes. This node matches the configuration.'
        } else {
            Write-Line ('Plan: ' + (Format-Totals $plan) + '. Nothing was changed.')
        }
        return 0
    }
    if ($Destroy -or $plan.Changes.Count -eq 0) { return $null }
    $removal = Get-MassRemoval $plan
    if ($removal -eq '') { return $null }
    Write-Failure $removal
    return 8
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
    return (Invoke-Work $true)
}

function Test-Administrator {
    $principal = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

# What is wrong with the arguments, or '' if nothing is.
function Get-Misuse {
    if ($AllowRemovals -and $Allowed -lt 1) { return '-AllowRemovals takes the number of removals' }
    if (-not $AllowRemovals -and $Arguments.Count -gt 0) { return 'unknown argument: ' + $Arguments[0] }
    if ($Rollback -and ($Destroy -or $WhatIf -or $Adopt -or $AllowRemovals)) { return '-Rollback goes with no other switch' }
    if ($Destroy -and ($Adopt -or $AllowRemovals)) { return '-Destroy goes with no other switch than -WhatIf' }
    return ''
}

function Invoke-Main {
    $misuse = Get-Misuse
    if ($misuse -ne '') {
        Write-Failure ($misuse + '; nothing was changed.')
        Write-Help 'the switches are -WhatIf, -Adopt, -AllowRemovals N, -Rollback and -Destroy.'
        return 64
    }
    if ($WhatIf) {
        if ([System.IO.File]::Exists($JournalFile)) {
            Write-Caution 'a run was interrupted here: the next one undoes it first, and what stands now will change'
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
        Write-Failure ('another run holds ' + $LockFile + ': ' + (Get-Reason $_))
        return 4
    }
    try {
        Limit-Transcript
        return (Invoke-Locked)
    } finally {
        $lock.Dispose()
    }
}

$code = 1
$ended = $false
try {
    $code = Invoke-Main
    $ended = $true
} catch {
    $ended = $true
    Write-Failure (Get-Reason $_)
} finally {
    # Control-C runs nothing but this. Without its own exit, PowerShell would end with 0.
    if (-not $ended) { exit $Run.Interrupted }
}
exit $code
