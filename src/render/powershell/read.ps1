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
# strings, JSON contains only whitespace.
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

# What this run printed, the problems in it, and whether it changed anything.
$Report = @{
    Lines = (New-Object System.Collections.ArrayList); Problems = (New-Object System.Collections.ArrayList); IsChanged = $false
}

# All output passes through these functions, Write-Line and Write-Record.
function Write-Detail([string] $text) {
    [void] $Report.Lines.Add((Format-Printable $text))
    [Console]::Error.WriteLine((Format-Printable $text))
}

function Write-Failure([string] $text) {
    [void] $Report.Problems.Add($text)
    Write-Detail ('error: ' + $text)
}

function Write-Help([string] $text) {
    Write-Detail ('help: ' + $text)
}

# ---- Live state

# The metric of a route that a store does not contain.
$Absent = -1

# Returns whether a cmdlet failed because it found nothing. A missing cmdlet has the same category.
function Test-NotFound($failure) {
    $isMissing = $failure.Exception -is [System.Management.Automation.CommandNotFoundException]
    return -not $isMissing -and [string] $failure.CategoryInfo.Category -eq 'ObjectNotFound'
}

# Returns what a cmdlet lists; an empty list is not an error. The cmdlets are functions of a module, which does not see
# the preferences of a script, so each call needs its own -ErrorAction.
function Get-Existing([string] $what, [string] $store) {
    $found = @()
    try {
        if ($what -eq 'routes') { $found = @(Get-NetRoute -PolicyStore $store -ErrorAction Stop) }
        if ($what -eq 'addresses') { $found = @(Get-NetIPAddress -ErrorAction Stop) }
        if ($what -eq 'interfaces') { $found = @(Get-NetIPInterface -ErrorAction Stop) }
    } catch {
        if (-not (Test-NotFound $_)) { throw ('cannot list the ' + $what + ': ' + (Get-Reason $_)) }
    }
    # Every machine has a loopback interface with addresses and active routes.
    if ($found.Count -eq 0 -and $store -ne 'PersistentStore') { throw ('cannot list the ' + $what + ': Windows shows none') }
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
        ActiveMetric = $Absent; PersistentMetric = $Absent; Protocol = [string] $route.Protocol
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
                if ($null -ne $derived -and $store -eq 'ActiveStore') {
                    $entry = New-LiveRoute $route $aliases
                    $entry.ActiveMetric = [int] $route.RouteMetric
                    [void] $derived.Add($entry)
                }
                continue
            }
            if (-not $live.ContainsKey($key)) { $live[$key] = New-LiveRoute $route $aliases }
            if ($store -eq 'ActiveStore') {
                $live[$key].ActiveMetric = [int] $route.RouteMetric
            } else {
                $live[$key].PersistentMetric = [int] $route.RouteMetric
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
    if ($text.IndexOf([char] 0) -ge 0) { throw 'it contains null bytes' }
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
    foreach ($route in @(Get-Field $state 'Managed' 'list')) { Assert-TextFields $route @('Alias', 'Destination', 'NextHop') }
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
    return @{ Managed = @(); Forwarding = @() }
}
