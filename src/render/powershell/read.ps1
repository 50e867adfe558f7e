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
