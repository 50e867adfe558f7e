# hostgw: routes and forwarding of Windows node win-1
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
# Prints routes, addresses and forwarding as JSON; changes nothing, needs no administrator. Save what it prints as UTF-8:
#
#   .\collect.ps1 | Out-File -Encoding utf8 node.json
#
# and plan with it: hostgw plan --node win-1 --state node.json
#
# Made from the documentation of the cmdlets, and not run on Windows by the authors of hostgw: its documentation tells of
# a self-test.

$Node = 'win-1'

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

# ---- Prints what stands, as JSON; changes nothing

$interfaces = @()
foreach ($interface in (Get-Found 'interfaces' '')) {
    $interfaces += @{
        Index = [int] $interface.InterfaceIndex; Alias = [string] $interface.InterfaceAlias
        Family = [string] $interface.AddressFamily; Forwarding = [string] $interface.Forwarding
    }
}
$addresses = @()
foreach ($address in (Get-Found 'addresses' '')) {
    $addresses += @{ Index = [int] $address.InterfaceIndex; Address = [string] $address.IPAddress }
}
$standing = Get-Standing
$routes = @()
foreach ($key in @($standing.Keys | Sort-Object)) { $routes += $standing[$key] }
$state = Read-State
$collected = @{
    Format = 1; System = 'windows'; Node = $Node; At = [DateTime]::UtcNow.ToString('o')
    Interfaces = @($interfaces); Addresses = @($addresses); Routes = @($routes)
    Owned = @($state.Owned); Forwarding = @($state.Forwarding)
}
Write-Output (ConvertTo-Json $collected -Depth 5)
exit 0
