# hostgw: routes and forwarding of Windows node win-1
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
#   (no switch) applies the changes and verifies them; rolls everything back on failure
#   -WhatIf     shows the changes without making them; does not require an administrator
#   -Adopt      adopts conflicting foreign routes
#   -Rollback   rolls back the last run, or resumes an incomplete rollback
#   -Destroy    removes everything that hostgw manages on this node, and restores forwarding
#   -AllowRemovals N   allows a mass removal: the exact number of removed destinations, if they are more than half of them
#                      (at least 10) or if no other node remains
#
# Run it as a file: powershell -ExecutionPolicy Bypass -File SCRIPT. PowerShell ignores a script on standard input.
#
# Exit codes: 0 success, or no changes; 1 unexpected error, damaged record, or not an administrator; 3 wrong machine;
# 4 another run holds the lock; 6 failed, rolled back and verified; 7 rollback incomplete, remaining commands listed;
# 8 mass removal; 10 conflict with foreign objects; 64 invalid arguments; 130 interrupted and rolled back.
#
# The authors of hostgw wrote this script from the documentation of the cmdlets, and have not run it on Windows. The
# documentation of hostgw describes a self-test.
param(
    [switch] $WhatIf,
    [switch] $Adopt,
    [switch] $Rollback,
    [switch] $Destroy,
    [switch] $AllowRemovals
)

if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'Error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed.'
    Write-Host 'Help: allow this script in that policy, or sign it as the policy requires.'
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
    @{ Role = 'own'; Destination = '10.244.1.0/24'; NextHop = '0.0.0.0'; Metric = 300; Why = 'own pods are on-link' }
    @{ Role = 'master'; Destination = '172.30.0.11/32'; NextHop = ''; Metric = 256; Why = 'masterAddress via the default gateway'; Everything = '0.0.0.0/0' }
)

# ---- Body: the same in every script of this version

# The ranges of characters that are escaped in the output, as pairs of code points.
$Hidden = @(
    0, 31, 127, 159, 173, 173, 847, 847, 1536, 1541, 1564, 1564, 1757, 1757, 1807, 1807,
    2192, 2193, 2274, 2274, 4447, 4448, 6068, 6069, 6155, 6159, 8203, 8207, 8232, 8238, 8288, 8303,
    12644, 12644, 65024, 65039, 65279, 65279, 65440, 65440, 65520, 65531, 69821, 69821, 69837, 69837, 78896, 78911,
    113824, 113827, 119155, 119162, 917504, 921599
)

Set-StrictMode -Version 2.0

# A script inherits the preferences of its caller, but must not depend on them.
$ErrorActionPreference = 'Stop'
$WarningPreference = 'Continue'
$InformationPreference = 'Continue'
$ProgressPreference = 'SilentlyContinue'
$DebugPreference = 'SilentlyContinue'
$VerbosePreference = 'SilentlyContinue'
$PSDefaultParameterValues = @{}

# The folder of the records: the managed routes, the journal of a running transaction, and the last run. Only
# administrators can write below Program Files, so nobody else can make this script undo changes that it never made. A
# 32-bit PowerShell would see another folder.
$Programs = $env:ProgramW6432
if ([string]::IsNullOrEmpty($Programs)) { $Programs = $env:ProgramFiles }
$Folder = Join-Path $Programs 'hostgw'
$StateFile = Join-Path $Folder 'state.json'

# ---- Output

function Test-Hidden([int] $code) {
    if ($code -lt 127) { return $code -lt 32 }
    for ($at = 0; $at -lt $Hidden.Count; $at += 2) {
        if ($code -ge $Hidden[$at] -and $code -le $Hidden[$at + 1]) { return $true }
    }
    return $false
}

# Returns the code points of a text.
function Get-Codes([string] $text) {
    $codes = New-Object System.Collections.ArrayList
    $bytes = [System.Text.Encoding]::UTF32.GetBytes($text)
    for ($at = 0; $at -lt $bytes.Count; $at += 4) {
        [void] $codes.Add($bytes[$at] + 256 * $bytes[$at + 1] + 65536 * $bytes[$at + 2])
    }
    return ,$codes.ToArray()
}

# Escapes characters that could control a terminal or hide text, as hostgw does: every hidden character and line break.
function Format-Printable([string] $text) {
    if ($text -cnotmatch '[^ -~]') { return $text }
    $printable = New-Object System.Collections.ArrayList
    foreach ($code in (Get-Codes $text)) {
        if (-not (Test-Hidden $code)) { [void] $printable.Add([char]::ConvertFromUtf32($code)) }
        elseif ($code -eq 9) { [void] $printable.Add('\t') }
        elseif ($code -eq 10) { [void] $printable.Add('\n') }
        elseif ($code -eq 13) { [void] $printable.Add('\r') }
        else { [void] $printable.Add('\u{' + $code.ToString('x') + '}') }
    }
    return $printable.ToArray() -join ''
}

# Makes JSON printable: a hidden character in a string becomes \uXXXX, which parses to the same character. Outside of
# strings, JSON contains only white space.
function Format-PrintableJson([string] $json) {
    $lines = New-Object System.Collections.ArrayList
    foreach ($line in $json.Replace([string] [char] 13, '').Split([char] 10)) {
        if ($line -cnotmatch '[^ -~]') {
            [void] $lines.Add($line)
            continue
        }
        $printable = New-Object System.Collections.ArrayList
        foreach ($code in (Get-Codes $line)) {
            $character = [char]::ConvertFromUtf32($code)
            if ($code -lt 127 -or -not (Test-Hidden $code)) {
                [void] $printable.Add($character)
                continue
            }
            $bytes = [System.Text.Encoding]::BigEndianUnicode.GetBytes($character)
            for ($at = 0; $at -lt $bytes.Count; $at += 2) {
                [void] $printable.Add('\u' + $bytes[$at].ToString('x2') + $bytes[$at + 1].ToString('x2'))
            }
        }
        [void] $lines.Add($printable.ToArray() -join '')
    }
    return $lines.ToArray() -join [string] [char] 10
}

# All output passes through these functions, Write-Line and Write-Record.
function Write-Detail([string] $text) {
    [Console]::Error.WriteLine((Format-Printable $text))
}

function Write-Failure([string] $text) {
    Write-Detail ('Error: ' + $text)
}

function Write-Help([string] $text) {
    Write-Detail ('Help: ' + $text)
}

# ---- Live state

# The metric of a route that a store does not contain.
$Absent = -1

# Returns what a cmdlet lists; an empty list is not an error. The cmdlets are functions of a module, which does not see
# the preferences of a script, so each call needs its own -ErrorAction.
function Get-Existing([string] $what, [string] $store) {
    $found = @()
    try {
        if ($what -eq 'routes') { $found = @(Get-NetRoute -PolicyStore $store -ErrorAction Stop) }
        if ($what -eq 'addresses') { $found = @(Get-NetIPAddress -ErrorAction Stop) }
        if ($what -eq 'interfaces') { $found = @(Get-NetIPInterface -ErrorAction Stop) }
    } catch {
        # A missing cmdlet has the same category.
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

# Sorts texts in an order that does not depend on the culture.
function Get-Sorted($texts) {
    $sorted = New-Object System.Collections.ArrayList
    foreach ($text in $texts) { [void] $sorted.Add($text) }
    $sorted.Sort([System.StringComparer]::Ordinal)
    return ,$sorted.ToArray()
}

# Returns the message of the innermost .NET exception.
function Get-Reason($failure) {
    return $failure.Exception.GetBaseException().Message
}

# Returns the alias of each interface by its index.
function Get-Aliases {
    $aliases = @{}
    foreach ($interface in (Get-Existing 'interfaces' '')) {
        $aliases[[string] $interface.InterfaceIndex] = [string] $interface.InterfaceAlias
    }
    return $aliases
}

# Creates an entry for a route that is not yet in either store.
function New-LiveRoute($route, $aliases) {
    return @{
        Index = [int] $route.InterfaceIndex; Alias = [string] $aliases[[string] $route.InterfaceIndex]
        Destination = [string] $route.DestinationPrefix; NextHop = [string] $route.NextHop
        Active = $Absent; Persistent = $Absent
    }
}

# Returns the routes of both stores by interface, destination and next hop, without those that Windows derives from
# addresses, because these cannot be restored. Adds the derived routes in the active store to the list $derived.
function Get-LiveRoutes($derived) {
    $live = @{}
    $local = @{}
    $aliases = Get-Aliases
    foreach ($store in @('ActiveStore', 'PersistentStore')) {
        foreach ($route in (Get-Existing 'routes' $store)) {
            $key = Get-Key $route.InterfaceIndex $route.DestinationPrefix $route.NextHop
            if ([string] $route.Protocol -eq 'Local') {
                $local[$key] = $true
                if ($null -ne $derived -and $store -eq 'ActiveStore') { [void] $derived.Add((New-LiveRoute $route $aliases)) }
                continue
            }
            if (-not $live.ContainsKey($key)) { $live[$key] = New-LiveRoute $route $aliases }
            if ($store -eq 'ActiveStore') {
                $live[$key].Active = [int] $route.RouteMetric
            } else {
                $live[$key].Persistent = [int] $route.RouteMetric
            }
        }
    }
    foreach ($key in @($local.Keys)) { $live.Remove($key) }
    return $live
}

function Read-Text([string] $path) {
    if ([System.IO.File]::Exists($path)) { return [System.IO.File]::ReadAllText($path) }
    return ''
}

# ---- Records: every file is validated completely before it is used

# Returns a property of a record. Throws if it is missing or does not have the type 'text' (not empty), 'any text',
# 'number' or 'list'.
function Get-Field($record, [string] $name, [string] $type) {
    try {
        $value = $record.$name
    } catch {
        throw ('"' + $name + '" is missing')
    }
    $isValid = $false
    if ($type -eq 'text') { $isValid = $value -is [string] -and $value.Length -gt 0 }
    if ($type -eq 'any text') { $isValid = $value -is [string] }
    if ($type -eq 'number') { $isValid = $value -is [int] -or $value -is [long] }
    if ($type -eq 'list') { $isValid = $value -is [array] }
    if (-not $isValid) { throw ('"' + $name + '" is not of type ' + $type) }
    return $value
}

# Parses the text of a record. A power loss can leave a file empty, truncated, or full of zeros.
function ConvertFrom-Record([string] $text) {
    if ($text.Length -eq 0) { throw 'it is empty' }
    if ($text.IndexOf([char] 0) -ge 0) { throw 'it contains zeros' }
    try {
        $record = ConvertFrom-Json $text
    } catch {
        throw 'it is not valid JSON, or truncated'
    }
    $format = Get-Field $record 'Format' 'number'
    if ($format -ne 1) { throw ('it has format ' + $format + ', but this script reads format 1') }
    return $record
}

function Assert-TextFields($record, $names) {
    foreach ($name in $names) { [void] (Get-Field $record $name 'text') }
}

function ConvertFrom-State([string] $text) {
    $state = ConvertFrom-Record $text
    foreach ($route in @(Get-Field $state 'Owned' 'list')) { Assert-TextFields $route @('Alias', 'Destination', 'NextHop') }
    foreach ($entry in @(Get-Field $state 'Forwarding' 'list')) { Assert-TextFields $entry @('Alias', 'Family', 'Value') }
    return $state
}

# Reads the text of a record. Returns null if the file does not exist.
function Read-RecordText([string] $path) {
    if ([System.IO.Directory]::Exists($path)) { throw 'it is a folder' }
    if (-not [System.IO.File]::Exists($path)) { return $null }
    return [System.IO.File]::ReadAllText($path)
}

# Returns the managed routes, and the forwarding settings from before hostgw.
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

# The exit code for Control-C at this point.
$Run = @{ Interrupted = 130 }

# ---- Output

function Write-Line([string] $text) {
    Write-Host (Format-Printable $text)
}

function Write-WarningLine([string] $text) {
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

# ---- The interfaces of this node

# Returns whether an alias is in a list, compared as Windows does. -eq and -contains depend on the culture, and ignore
# zero-width characters.
function Test-Alias([string] $alias, $names) {
    foreach ($name in $names) {
        if ([string]::Equals($alias, $name, 'OrdinalIgnoreCase')) { return $true }
    }
    return $false
}

# Returns the management interface, the pod interface, and the problems in finding them.
function Get-NodeInterfaces {
    $interfaces = @{ Management = $null; Pod = $null; Problems = @() }
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
        $interfaces.Management = @{ Index = [int] $holders[0]; Alias = $aliases[$holders[0]] }
    } else {
        $criterion = 'holds ' + ($Addresses -join ' or ')
        if ($InterfaceAlias -ne '') { $criterion = 'is called ' + $InterfaceAlias }
        $interfaces.Problems += 'expected exactly one interface that ' + $criterion + ' (node ' + $Node + '), found ' +
            $holders.Count + '; interfaces: ' + $names
    }
    if ($podHolders.Count -eq 1) {
        $interfaces.Pod = @{ Index = [int] $podHolders[0]; Alias = $aliases[$podHolders[0]] }
    } else {
        $interfaces.Problems += 'expected exactly one pod interface, which holds ' + ($PodGateways -join ' or ') +
            ' or is called ' + ($PodAliases -join ' or ') + ' (node ' + $Node + '), found ' + $podHolders.Count +
            '; interfaces: ' + $names + '. The CNI creates it: set up the pod network first'
    }
    return $interfaces
}

# Returns the gateway of the best default route on the management interface.
function Get-DefaultGateway($live, $management, [string] $everything) {
    $best = $null
    foreach ($route in $live.Values) {
        if ($route.Destination -ne $everything -or $route.Index -ne $management.Index -or $route.Active -lt 0) { continue }
        if ($null -eq $best -or $route.Active -lt $best.Active) { $best = $route }
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
        BeforeActive = $now.Active; BeforePersistent = $now.Persistent
        AfterActive = $active; AfterPersistent = $persistent; Why = $why
    }
}

function New-ForwardingChange($index, [string] $alias, [string] $family, [string] $before, [string] $after, [string] $why) {
    return @{
        Kind = 'forwarding'; Index = $index; Alias = $alias; Family = $family; Before = $before; After = $after; Why = $why
    }
}

# Returns the desired routes, each with its live route.
function Get-DesiredRoutes($plan, $interfaces, $live) {
    $desired = New-Object System.Collections.ArrayList
    foreach ($route in $Routes) {
        $nextHop = $route.NextHop
        if ($nextHop -eq '') { $nextHop = Get-DefaultGateway $live $interfaces.Management $route.Everything }
        if ($nextHop -eq '') {
            $plan.Problems += 'no default route of ' + $interfaces.Management.Alias + ' shows the gateway for ' + $route.Destination +
                ': set defaultGateway of node ' + $Node + ' in the configuration'
            continue
        }
        $now = $live[(Get-Key $interfaces.Management.Index $route.Destination $nextHop)]
        if ($null -eq $now) {
            $now = @{
                Index = $interfaces.Management.Index; Alias = $interfaces.Management.Alias
                Destination = $route.Destination; NextHop = $nextHop; Active = $Absent; Persistent = $Absent
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

# Returns the desired route whose traffic a live route affects: one with the same destination, or with a pod CIDR
# around it. Returns null if there is none. Traffic to the node's own pods may use the pod interface.
function Get-AffectedRoute($destinations, $interfaces, $route) {
    $entry = $destinations.Exact[$route.Destination]
    if ($null -eq $entry) {
        $parts = $route.Destination.Split('/')
        $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
        foreach ($length in $destinations.Lengths) {
            if ($length -gt [int] $parts[1]) { continue }
            $enclosing = $destinations.Pods[(Get-Prefix $bytes $length)]
            if ($null -ne $enclosing) { $entry = $enclosing }
        }
    }
    if ($null -eq $entry -or ($entry.Role -eq 'own' -and $route.Index -eq $interfaces.Pod.Index)) { return $null }
    return $entry
}

# Describes a foreign route that affects the traffic of a desired one.
function Format-Conflict($route, $entry) {
    $text = (Format-Route $route) + ' on ' + $route.Alias + ' is foreign: it '
    $need = ' -NextHop ' + $entry.Now.NextHop + ' on ' + $entry.Now.Alias
    if ($route.Destination -eq $entry.Now.Destination) { return $text + 'conflicts with' + $need }
    return $text + 'takes packets from -DestinationPrefix ' + $entry.Now.Destination + $need
}

# Returns the addresses of this machine inside the pod CIDR of another node. Windows keeps packets to them, and no
# route can change that.
function Get-MisplacedAddresses($destinations, $interfaces, $derived) {
    $problems = @()
    $seen = @{}
    foreach ($route in $derived) {
        $entry = Get-AffectedRoute $destinations $interfaces $route
        if ($null -eq $entry -or $entry.Role -ne 'node') { continue }
        $problem = $route.Alias + ' has an address in ' + $entry.Now.Destination + ' (' + $entry.Why +
            '): Windows keeps packets to it on this machine. Remove that address, or fix the configuration'
        if (-not $seen.ContainsKey($problem)) { $problems += $problem }
        $seen[$problem] = $true
    }
    return ,$problems
}

# ---- Orphans: persistent routes of interfaces that no longer exist. They carry no traffic and never conflict.

function Test-Orphan($route) {
    return $route.Alias -eq '' -and $route.Active -lt 0
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
    return (Format-Route $orphan.Route) + ' is left of an interface that no longer exists; it carries nothing. To remove it: ' +
        (Format-RouteDelete $orphan.Route) + ', then run this script again'
}

# Removes orphans. A failure is only a warning, because they have no effect.
function Remove-Orphans($orphans) {
    foreach ($orphan in $orphans) {
        if ($orphan.IsRemovable) {
            Write-Record (Format-Orphan $orphan)
            try {
                Invoke-Step $orphan.Route (Get-OrphanStep)
                continue
            } catch {
                Write-WarningLine (Get-Reason $_)
                $orphan.IsRemovable = $false
            }
        }
        Write-WarningLine (Format-Orphan $orphan)
    }
}

# ---- The complete plan

# Returns the changes, the conflicts, and the routes that are managed afterwards. $removeAll removes all managed
# routes.
function Get-Plan($interfaces, $state, [bool] $removeAll) {
    $plan = @{
        Changes = @(); Conflicts = @(); Problems = @(); Forwarding = @(); Removed = 0; Managed = 0; Orphans = @()
        Owned = (New-Object System.Collections.ArrayList)
    }
    $derived = New-Object System.Collections.ArrayList
    $live = Get-LiveRoutes $derived
    $additions = New-Object System.Collections.ArrayList
    $keys = @{}
    $desired = @()
    if (-not $removeAll) { $desired = Get-DesiredRoutes $plan $interfaces $live }
    foreach ($entry in $desired) {
        $now = $entry.Now
        $keys[(Get-Key $now.Index $now.Destination $now.NextHop)] = $true
        [void] $plan.Owned.Add(@{ Alias = $now.Alias; Destination = $now.Destination; NextHop = $now.NextHop })
        if ($now.Active -ne $entry.Metric -or $now.Persistent -ne $entry.Metric) {
            [void] $additions.Add((New-RouteChange $now $entry.Metric $entry.Metric $entry.Why))
        }
    }
    $destinations = Get-Destinations $desired
    $plan.Problems += Get-MisplacedAddresses $destinations $interfaces $derived
    $removals = Get-Removals $plan $interfaces $state $live $destinations $keys
    # As on Linux, forwarding is enabled last and disabled first.
    $forwarding = Get-ForwardingChanges $plan $interfaces $state $removeAll
    if ($removeAll) {
        $plan.Changes = @($forwarding) + $removals.ToArray()
    } else {
        $plan.Changes = $additions.ToArray() + $removals.ToArray() + @($forwarding)
    }
    return $plan
}

# Returns the changes that remove routes. Adds conflicts, orphans and the number of destinations to $plan.
function Get-Removals($plan, $interfaces, $state, $live, $destinations, $keys) {
    $owned = @{}
    # The interface of an orphan no longer has a name.
    $orphaned = @{}
    foreach ($route in @($state.Owned)) {
        $owned[(Get-OwnedKey $route.Alias $route.Destination $route.NextHop)] = $true
        $orphaned[(Get-OwnedKey '' $route.Destination $route.NextHop)] = $true
    }
    $removals = New-Object System.Collections.ArrayList
    $managed = @{}
    $removed = @{}
    foreach ($key in (Get-Sorted $live.Keys)) {
        $now = $live[$key]
        $isOwned = $owned.ContainsKey((Get-OwnedKey $now.Alias $now.Destination $now.NextHop))
        $affected = $null
        if (-not $keys.ContainsKey($key)) { $affected = Get-AffectedRoute $destinations $interfaces $now }
        if (Test-Orphan $now) {
            $isOwned = $orphaned.ContainsKey((Get-OwnedKey '' $now.Destination $now.NextHop))
            if ($isOwned -or $null -ne $affected) { $plan.Orphans += New-Orphan $now $isOwned }
            continue
        }
        if ($isOwned) { $managed[$now.Destination] = $true }
        if ($isOwned -and -not $destinations.Exact.ContainsKey($now.Destination)) { $removed[$now.Destination] = $true }
        if ($keys.ContainsKey($key)) { continue }
        if ($isOwned) {
            [void] $removals.Add((New-RouteChange $now $Absent $Absent 'not in the configuration'))
        } elseif ($null -ne $affected -and $Adopt) {
            [void] $removals.Add((New-RouteChange $now $Absent $Absent 'adopt foreign route'))
        } elseif ($null -ne $affected) {
            $plan.Conflicts += Format-Conflict $now $affected
        }
    }
    $plan.Managed = $managed.Count
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
    foreach ($interface in @($interfaces.Management, $interfaces.Pod)) {
        foreach ($family in $Families) {
            $now = $live[[string] $interface.Index + ' ' + $family]
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
        throw 'a route without interface, destination or next hop would mean every route'
    }
    $target = @{
        InterfaceIndex = $route.Index; DestinationPrefix = $route.Destination; NextHop = $route.NextHop
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
    }
    if ($step.Verb -eq 'remove') {
        Remove-NetRoute @target -PolicyStore $step.Store
    } elseif ($step.Verb -eq 'set') {
        Set-NetRoute @target -RouteMetric $step.Metric -PolicyStore $step.Store
    } elseif ($step.Store -eq 'both') {
        [void] (New-NetRoute @target -RouteMetric $step.Metric)
    } else {
        [void] (New-NetRoute @target -RouteMetric $step.Metric -PolicyStore $step.Store)
    }
}

function Invoke-Forwarding($change, [string] $value) {
    if ([int] $change.Index -le 0 -or [string]::IsNullOrEmpty($change.Family) -or [string]::IsNullOrEmpty($value)) {
        throw 'an interface without index or family would mean every interface'
    }
    $target = @{
        InterfaceIndex = $change.Index; AddressFamily = $change.Family
        Confirm = $false; WhatIf = $false; ErrorAction = 'Stop'
    }
    Set-NetIPInterface @target -Forwarding $value
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

function Format-Totals($plan) {
    $add = 0
    $change = 0
    $remove = @($plan.Orphans | Where-Object { $_.IsRemovable }).Count
    foreach ($target in $plan.Changes) {
        if ($target.Kind -eq 'forwarding') { $change += 1 }
        elseif ($target.BeforeActive -lt 0 -and $target.BeforePersistent -lt 0) { $add += 1 }
        elseif ($target.AfterActive -lt 0 -and $target.AfterPersistent -lt 0) { $remove += 1 }
        else { $change += 1 }
    }
    return [string] $add + ' to add, ' + $change + ' to change, ' + $remove + ' to remove'
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
        Owned = @($plan.Owned.ToArray()); Forwarding = @($plan.Forwarding)
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
    if ($null -eq $now) { $now = @{ Active = $Absent; Persistent = $Absent } }
    return ,(Get-Steps $now.Active $now.Persistent $change.BeforeActive $change.BeforePersistent)
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
        Write-Detail 'Fix the cause, then run this script with -Rollback to resume.'
        return 7
    }
    if ($remaining.Count -gt 0) {
        Write-Failure 'the rollback is incomplete. Remaining commands, in this order:'
        foreach ($line in $remaining) { Write-Detail ('  ' + $line + ' -Confirm:$false') }
        Write-Detail 'Run these commands, or fix the cause and run this script with -Rollback to resume.'
        return 7
    }
    Write-Record 'Rolled back and verified: the node is in its previous state.'
    $Run.Interrupted = 130
    return 6
}

# Restores the state from before a journal and, once that is complete, the records. Returns the remaining commands.
function Undo-Record($journal) {
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
        Write-Detail ('The previous version is intact and lists ' + @($state.Owned).Count + ' routes.')
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
    Write-Help 'run this script with -WhatIf to see how this node differs from the configuration.'
    Write-Help ('move the file aside, then run this script again: ' + (Format-MoveAside $JournalFile))
}

function Write-DamagedLast([string] $why) {
    Write-Failure ($why + '. It lists the changes of the last run; nothing was changed.')
    Write-Help 'the last run can no longer be rolled back. Run the script of the previous configuration, or this one with -Destroy.'
}

# Verifies that the live state matches the plan.
function Assert-InForce($interfaces, [bool] $removeAll) {
    $recheck = Get-Plan $interfaces (Read-State) $removeAll
    $lines = @($recheck.Conflicts) + @($recheck.Problems)
    foreach ($change in $recheck.Changes) { $lines += Format-Change $change }
    if ($lines.Count -gt 0) { throw ('Windows reported success, but these changes are not in force: ' + ($lines -join '; ')) }
}

# Commits a plan: journal, changes, verification, state. Returns the exit code.
function Invoke-Plan($plan, $interfaces, [bool] $removeAll) {
    Write-File $JournalFile (ConvertTo-Json @{
        Format = 1; Node = $Node; ConfigHash = $ConfigHash; At = [DateTime]::UtcNow.ToString('o')
        Changes = @($plan.Changes); StateBefore = (Read-Text $StateFile)
    } -Depth 5 -Compress)
    $isDone = $false
    try {
        Invoke-Changes $plan.Changes
        Assert-InForce $interfaces $removeAll
        if ($removeAll) { Remove-File $StateFile } else { Write-File $StateFile (Format-State $plan) }
        Close-Journal
        $isDone = $true
        return 0
    } catch {
        $isDone = $true
        Write-Failure (Get-Reason $_)
        return (Undo-Journal)
    } finally {
        # Control-C skips catch blocks.
        if (-not $isDone) { Stop-Plan }
    }
}

# Handles Control-C: rolls back unless the transaction is committed. Sets the exit code of the script.
function Stop-Plan {
    if ([System.IO.File]::Exists($JournalFile)) {
        [void] (Undo-Journal)
    } else {
        $Run.Interrupted = 0
        Write-Record 'Interrupted after everything was committed and verified.'
    }
}

# Returns an error if a plan removes most routes, for example because the configuration lost its nodes; '' if it does
# not, or if that is allowed. Same rule as in hostgw apply.
function Get-MassRemoval($plan) {
    $others = 0
    foreach ($route in $Routes) {
        if ($route.Role -eq 'node') { $others += 1 }
    }
    $isMassRemoval = $plan.Removed -ge 10 -and $plan.Removed * 2 -gt $plan.Managed
    if ($plan.Removed -eq 0 -or -not ($isMassRemoval -or $others -eq 0) -or $Allowed -eq $plan.Removed) { return '' }
    return 'this plan removes ' + $plan.Removed + ' of the ' + $plan.Managed + ' managed destinations; nothing was changed. ' +
        'If that is intended, pass -AllowRemovals ' + $plan.Removed
}

# Records that matching live routes are managed from now on, and that routes missing from the configuration are not.
function Save-Ownership($plan, $state, [bool] $removeAll) {
    if ($removeAll) {
        Remove-File $StateFile
        return
    }
    $before = (Get-Sorted @($state.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
    $after = (Get-Sorted @($plan.Owned | ForEach-Object { Get-OwnedKey $_.Alias $_.Destination $_.NextHop })) -join ', '
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
        foreach ($problem in $problems) { Write-Failure $problem }
        return 3
    }
    $code = Test-Plan $plan $commit
    if ($null -ne $code) { return $code }
    if ($plan.Changes.Count -eq 0) {
        if ($commit) { Save-Ownership $plan $state $removeAll }
    } else {
        $code = Invoke-Plan $plan $interfaces $removeAll
        if ($code -ne 0) { return $code }
        $Run.Interrupted = 0
    }
    Remove-Orphans $plan.Orphans
    if (Test-Empty $plan) {
        Write-Line 'No changes. This node matches the configuration.'
    } else {
        Write-Record ('Applied to node ' + $Node + ' and verified (' + (Format-Totals $plan) + ').')
    }
    return 0
}

# Shows a plan that is not or cannot be committed. Returns the exit code, or null to continue.
function Test-Plan($plan, [bool] $commit) {
    if (-not $commit -or $plan.Conflicts.Count -gt 0) {
        foreach ($conflict in $plan.Conflicts) { Write-Line ('! ' + $conflict) }
        foreach ($change in $plan.Changes) {
            foreach ($line in (Format-Change $change)) { Write-Line $line }
        }
        foreach ($orphan in $plan.Orphans) {
            if ($orphan.IsRemovable) { Write-Line (Format-Orphan $orphan) } else { Write-WarningLine (Format-Orphan $orphan) }
        }
    }
    if ($plan.Conflicts.Count -gt 0) {
        Write-Failure ('the plan conflicts with foreign objects (' + $plan.Conflicts.Count + '); nothing was changed. Remove them first, or adopt them with -Adopt; -Rollback restores them.')
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

# Rolls back an interrupted run, then does what the arguments request.
function Invoke-Locked {
    if ([System.IO.File]::Exists($JournalFile)) {
        Write-Record 'A previous run was interrupted, or its rollback is incomplete: rolling it back first.'
        $code = Undo-Journal
        if ($code -ne 6) { return $code }
        if ($Rollback) { return 0 }
    } elseif ($Rollback) {
        if (-not [System.IO.File]::Exists($LastFile)) {
            Write-Line 'Nothing to roll back: no run is recorded on this node.'
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
    return (Invoke-Reconcile $true)
}

function Test-Administrator {
    $principal = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Returns what is wrong with the arguments, or ''.
function Get-ArgumentError {
    if ($AllowRemovals -and $Allowed -lt 1) { return '-AllowRemovals requires the number of removals' }
    if (-not $AllowRemovals -and $Arguments.Count -gt 0) { return 'unknown argument: ' + $Arguments[0] }
    if ($Rollback -and ($Destroy -or $WhatIf -or $Adopt -or $AllowRemovals)) { return '-Rollback cannot be combined with other switches' }
    if ($Destroy -and ($Adopt -or $AllowRemovals)) { return '-Destroy can only be combined with -WhatIf' }
    return ''
}

function Invoke-Main {
    $problem = Get-ArgumentError
    if ($problem -ne '') {
        Write-Failure ($problem + '; nothing was changed.')
        Write-Help 'the switches are -WhatIf, -Adopt, -AllowRemovals N, -Rollback and -Destroy.'
        return 64
    }
    if ($WhatIf) {
        if ([System.IO.File]::Exists($JournalFile)) {
            Write-WarningLine 'a previous run was interrupted: the next run rolls it back first, so this plan will change'
        }
        return (Invoke-Reconcile $false)
    }
    if (-not (Test-Administrator)) {
        Write-Failure 'only administrators can change routes: start PowerShell as administrator. -WhatIf works for all users.'
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
$isDone = $false
try {
    $code = Invoke-Main
    $isDone = $true
} catch {
    $isDone = $true
    Write-Failure (Get-Reason $_)
} finally {
    # Control-C runs only this block. Without an explicit exit, PowerShell would exit with 0.
    if (-not $isDone) { exit $Run.Interrupted }
}
exit $code
