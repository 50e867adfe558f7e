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
