# A substitute for the NetTCPIP module of Windows, for tests in a real PowerShell on another system.
#
# The machine (interfaces, addresses, both stores of routes) is a JSON file, $env:HGW_MACHINE. Each call that changes
# it is appended to $env:HGW_CALLS. Errors are those that the documentation of the cmdlets describes.
#
# Faults, by the number of the call from 0: $env:HGW_FAULTS = '3:refuse,5:late'. Kinds: refuse (an error, no change), late
# (the change, then an error), ignore (no change, no error), kill and killafter (the process ends before or after the
# change), stop (Ctrl-C arrives during the call). $env:HGW_REFUSED_FROM = '4' refuses that call and all later ones.
# $env:HGW_BLIND makes every reading cmdlet fail; 'silent': find nothing.

$script:Calls = 0

$script:Diverted = 0

function Set-CallNumber([int] $number) {
    $script:Calls = $number
    $script:Diverted = 0
}

function Read-Machine { Get-Content -Raw -LiteralPath $env:HGW_MACHINE | ConvertFrom-Json -AsHashtable }

function Write-Machine($machine) { [System.IO.File]::WriteAllText($env:HGW_MACHINE, (ConvertTo-Json $machine -Depth 8)) }

function New-Failure([string] $message, [string] $id, $category) {
    return [System.Management.Automation.ErrorRecord]::new([System.Exception]::new($message), $id, $category, $null)
}

function New-NotFound([string] $what) { return New-Failure "No $what found" 'CmdletizationQuery_NotFound' 'ObjectNotFound' }

function Stop-Here {
    [System.Diagnostics.Process]::GetCurrentProcess().Kill()
    Start-Sleep -Seconds 60
}

# Counts a call. Returns how it proceeds: 'go', 'late', 'killafter', or 'no' if nothing must be done.
function Enter-Call([string] $words, $cmdlet) {
    $number = $script:Calls
    $script:Calls += 1
    [System.IO.File]::AppendAllText($env:HGW_CALLS, $words + "`n")
    $kind = 'go'
    foreach ($fault in @($env:HGW_FAULTS -split ',')) {
        if ($fault -like "${number}:*") { $kind = $fault.Substring($fault.IndexOf(':') + 1) }
    }
    if ($env:HGW_REFUSED_FROM -and $number -ge [int] $env:HGW_REFUSED_FROM) { $kind = 'refuse' }
    switch ($kind) {
        'refuse' {
            $cmdlet.WriteError((New-Failure 'Access is denied.' 'Windows System Error 5' 'PermissionDenied'))
            return 'no'
        }
        'ignore' { return 'no' }
        'kill' { Stop-Here }
        'stop' {
            & /bin/kill -INT $PID
            Start-Sleep -Seconds 60
        }
    }
    return $kind
}

function Exit-Call([string] $kind, $cmdlet) {
    if ($kind -eq 'late') { $cmdlet.WriteError((New-Failure 'A general error occurred.' 'Windows System Error 31' 'NotSpecified')) }
    if ($kind -eq 'killafter') { Stop-Here }
}

function Assert-Sight {
    if ($env:HGW_BLIND -eq 'silent') { throw (New-NotFound 'MSFT objects') }
    if ($env:HGW_BLIND) { throw 'The WMI repository is corrupted.' }
}

function Get-Alias-Of($machine, $index) {
    foreach ($interface in $machine.interfaces) {
        if ($interface.index -eq $index) { return $interface.alias }
    }
    return $null
}

function Select-Route($machine, $index, $prefix, $nextHop, $store) {
    @($machine.routes | Where-Object {
        (-not $store -or $_.store -eq $store) -and ($null -eq $index -or $_.index -eq $index) -and
        (-not $prefix -or $_.prefix -eq $prefix) -and (-not $nextHop -or $_.nexthop -eq $nextHop)
    })
}

function Get-NetRoute {
    [CmdletBinding()]
    param([string] $DestinationPrefix, [System.Nullable[uint32]] $InterfaceIndex, [string] $NextHop, [string] $PolicyStore)
    Assert-Sight
    $machine = Read-Machine
    $found = @(Select-Route $machine $InterfaceIndex $DestinationPrefix $NextHop $PolicyStore)
    if ($found.Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetRoute objects'))
        return
    }
    foreach ($route in $found) {
        [pscustomobject] @{
            ifIndex = [uint32] $route.index; InterfaceIndex = [uint32] $route.index
            InterfaceAlias = [string] (Get-Alias-Of $machine $route.index); DestinationPrefix = $route.prefix
            NextHop = $route.nexthop; RouteMetric = [uint16] $route.metric; Protocol = $route.protocol; Store = $route.store
        }
    }
}

function Get-NetIPAddress {
    [CmdletBinding()] param()
    Assert-Sight
    $machine = Read-Machine
    if (@($machine.addresses).Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetIPAddress objects'))
        return
    }
    foreach ($address in $machine.addresses) {
        [pscustomobject] @{
            IPAddress = $address.address; InterfaceIndex = [uint32] $address.index
            InterfaceAlias = [string] (Get-Alias-Of $machine $address.index); PrefixLength = $address.length
        }
    }
}

function Get-NetIPInterface {
    [CmdletBinding()] param()
    Assert-Sight
    $machine = Read-Machine
    if (@($machine.interfaces).Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetIPInterface objects'))
        return
    }
    foreach ($interface in $machine.interfaces) {
        [pscustomobject] @{
            InterfaceIndex = [uint32] $interface.index; InterfaceAlias = $interface.alias
            AddressFamily = $interface.family; Forwarding = $interface.forwarding
            InterfaceMetric = [uint32] $interface.metric; ConnectionState = $interface.connection
        }
    }
}

# Returns whether a prefix contains an address.
function Test-Inside([string] $prefix, [System.Net.IPAddress] $address) {
    $network, $length = $prefix -split '/'
    $network = ([System.Net.IPAddress] $network).GetAddressBytes()
    $bytes = $address.GetAddressBytes()
    if ($network.Count -ne $bytes.Count) { return $false }
    for ($bit = 0; $bit -lt [int] $length; $bit++) {
        $mask = 128 -shr ($bit % 8)
        if (($network[$bit -shr 3] -band $mask) -ne ($bytes[$bit -shr 3] -band $mask)) { return $false }
    }
    return $true
}

# The route that packets use: the longest prefix, then the lowest total metric of a connected interface.
function Select-Best($machine, [System.Net.IPAddress] $address) {
    $interfaces = @{}
    foreach ($interface in $machine.interfaces) { $interfaces[[int] $interface.index] = $interface }
    @($machine.routes | Where-Object {
        $_.store -eq 'ActiveStore' -and (Test-Inside $_.prefix $address) -and $interfaces.ContainsKey([int] $_.index) -and
        $interfaces[[int] $_.index].connection -eq 'Connected'
    } | Sort-Object { -[int] ($_.prefix -split '/')[1] }, { $_.metric + $interfaces[[int] $_.index].metric }, { $_.index }, { $_.nexthop } |
        Select-Object -First 1)
}

function Find-NetRoute {
    [CmdletBinding()] param([Parameter(Mandatory)] [string] $RemoteIPAddress)
    $machine = Read-Machine
    $kind = if ($machine.find) { $machine.find.kind } else { '' }
    if ($kind -eq 'absent') { throw [System.Management.Automation.CommandNotFoundException]::new("The term 'Find-NetRoute' is not recognized.") }
    if ($kind -eq 'fails') { throw 'A general error occurred.' }
    $found = @(Select-Best $machine $RemoteIPAddress)
    if ($kind -eq 'diverts' -and $script:Calls -ge $machine.find.from -and $script:Diverted -lt $machine.find.times -and
        (Test-Inside $machine.find.prefix $RemoteIPAddress)) {
        $script:Diverted += 1
        $found = @()
        if ($machine.find.route) {
            $found = @(@{ index = $machine.find.route.index; prefix = $machine.find.prefix; nexthop = $machine.find.route.nexthop; metric = 1; protocol = 'NetMgmt' })
        }
    }
    if ($found.Count -eq 0) {
        $PSCmdlet.WriteError((New-Failure 'The network location cannot be reached.' 'Windows System Error 1231' 'NotSpecified'))
        return
    }
    [pscustomobject] @{ IPAddress = '172.30.0.12' }
    $route = $found[0]
    [pscustomobject] @{
        InterfaceIndex = [uint32] $route.index; InterfaceAlias = [string] (Get-Alias-Of $machine $route.index)
        DestinationPrefix = $route.prefix; NextHop = $route.nexthop; RouteMetric = [uint16] $route.metric; Protocol = $route.protocol
    }
}

function New-NetRoute {
    [CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'Medium')]
    param(
        [Parameter(Mandatory)] [string] $DestinationPrefix, [Parameter(Mandatory)] [uint32] $InterfaceIndex,
        [string] $NextHop = '0.0.0.0', [uint16] $RouteMetric = 256, [string] $PolicyStore
    )
    if (-not $PSCmdlet.ShouldProcess($DestinationPrefix)) { return }
    $kind = Enter-Call "New-NetRoute $InterfaceIndex $DestinationPrefix $NextHop $RouteMetric $PolicyStore".Trim() $PSCmdlet
    if ($kind -eq 'no') { return }
    $machine = Read-Machine
    if ($null -eq (Get-Alias-Of $machine $InterfaceIndex)) {
        $PSCmdlet.WriteError((New-NotFound 'the interface'))
        return
    }
    if ($PolicyStore -eq 'PersistentStore') {
        $PSCmdlet.WriteError((New-Failure 'Invalid parameter PolicyStore' 'Windows System Error 87' 'InvalidArgument'))
        return
    }
    $stores = @('ActiveStore', 'PersistentStore')
    if ($PolicyStore) { $stores = @($PolicyStore) }
    foreach ($store in $stores) {
        if (@(Select-Route $machine $InterfaceIndex $DestinationPrefix $NextHop $store).Count) {
            $PSCmdlet.WriteError((New-Failure 'Instance MSFT_NetRoute already exists' 'Windows System Error 5010' 'ResourceExists'))
            return
        }
    }
    foreach ($store in $stores) {
        $machine.routes = @($machine.routes) + @{
            store = $store; index = [int] $InterfaceIndex; prefix = $DestinationPrefix; nexthop = $NextHop
            metric = [int] $RouteMetric; protocol = 'NetMgmt'
        }
    }
    Write-Machine $machine
    Exit-Call $kind $PSCmdlet
    foreach ($store in $stores) {
        [pscustomobject] @{ InterfaceIndex = $InterfaceIndex; DestinationPrefix = $DestinationPrefix; NextHop = $NextHop; Store = $store }
    }
}

function Remove-NetRoute {
    [CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
    param([string] $DestinationPrefix, [System.Nullable[uint32]] $InterfaceIndex, [string] $NextHop, [string] $PolicyStore)
    if (-not $PSCmdlet.ShouldProcess($DestinationPrefix)) { return }
    $kind = Enter-Call "Remove-NetRoute $InterfaceIndex $DestinationPrefix $NextHop $PolicyStore".Trim() $PSCmdlet
    if ($kind -eq 'no') { return }
    $machine = Read-Machine
    $gone = @(Select-Route $machine $InterfaceIndex $DestinationPrefix $NextHop $PolicyStore)
    if ($gone.Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetRoute objects'))
        return
    }
    $machine.routes = @($machine.routes | Where-Object {
        $route = $_
        -not ($gone | Where-Object { [object]::ReferenceEquals($_, $route) })
    })
    Write-Machine $machine
    Exit-Call $kind $PSCmdlet
}

function Set-NetRoute {
    [CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'Medium')]
    param(
        [string] $DestinationPrefix, [System.Nullable[uint32]] $InterfaceIndex, [string] $NextHop, [uint16] $RouteMetric,
        [string] $PolicyStore
    )
    if (-not $PSCmdlet.ShouldProcess($DestinationPrefix)) { return }
    $kind = Enter-Call "Set-NetRoute $InterfaceIndex $DestinationPrefix $NextHop $RouteMetric $PolicyStore".Trim() $PSCmdlet
    if ($kind -eq 'no') { return }
    $machine = Read-Machine
    $found = @(Select-Route $machine $InterfaceIndex $DestinationPrefix $NextHop $PolicyStore)
    if ($found.Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetRoute objects'))
        return
    }
    foreach ($route in $found) { $route.metric = [int] $RouteMetric }
    Write-Machine $machine
    Exit-Call $kind $PSCmdlet
}

function Set-NetIPInterface {
    [CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'Medium')]
    param(
        [System.Nullable[uint32]] $InterfaceIndex, [string] $AddressFamily,
        [ValidateSet('Enabled', 'Disabled')] [string] $Forwarding
    )
    if (-not $PSCmdlet.ShouldProcess("$InterfaceIndex")) { return }
    $kind = Enter-Call "Set-NetIPInterface $InterfaceIndex $AddressFamily $Forwarding" $PSCmdlet
    if ($kind -eq 'no') { return }
    $machine = Read-Machine
    $found = @($machine.interfaces | Where-Object { $_.index -eq $InterfaceIndex -and $_.family -eq $AddressFamily })
    if ($found.Count -eq 0) {
        $PSCmdlet.WriteError((New-NotFound 'MSFT_NetIPInterface objects'))
        return
    }
    foreach ($interface in $found) { $interface.forwarding = $Forwarding }
    Write-Machine $machine
    Exit-Call $kind $PSCmdlet
}

# Adds an address with the routes that Windows derives from it, for the self-test.
function New-NetIPAddress {
    [CmdletBinding(SupportsShouldProcess)]
    param(
        [string] $IPAddress, [uint32] $InterfaceIndex, [byte] $PrefixLength, [string] $AddressFamily, [string] $PolicyStore,
        [bool] $SkipAsSource
    )
    $machine = Read-Machine
    if ($null -eq (Get-Alias-Of $machine $InterfaceIndex)) {
        $PSCmdlet.WriteError((New-NotFound 'the interface'))
        return
    }
    $machine.addresses = @($machine.addresses) + @{ index = [int] $InterfaceIndex; address = $IPAddress; length = [int] $PrefixLength }
    $machine.routes = @($machine.routes) + @{
        store = 'ActiveStore'; index = [int] $InterfaceIndex; prefix = "$IPAddress/32"; nexthop = '0.0.0.0'; metric = 256
        protocol = 'Local'
    }
    Write-Machine $machine
    [pscustomobject] @{ IPAddress = $IPAddress; InterfaceIndex = $InterfaceIndex }
}

function Remove-NetIPAddress {
    [CmdletBinding(SupportsShouldProcess)]
    param([string] $IPAddress, [uint32] $InterfaceIndex)
    $machine = Read-Machine
    $machine.addresses = @($machine.addresses | Where-Object { $_.address -ne $IPAddress })
    $machine.routes = @($machine.routes | Where-Object { $_.prefix -ne "$IPAddress/32" -or $_.protocol -ne 'Local' })
    Write-Machine $machine
}

Export-ModuleMember -Function Set-CallNumber, Get-NetRoute, Get-NetIPAddress, Get-NetIPInterface, Find-NetRoute, New-NetRoute, Remove-NetRoute,
    Set-NetRoute, Set-NetIPInterface, New-NetIPAddress, Remove-NetIPAddress
