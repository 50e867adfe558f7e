# ---- Paths: which way packets go. hostgw plan --state judges by the same rules, and uses the same words.

# Windows uses the active route with the longest prefix and, of several, the one with the lowest total metric: its own plus
# that of its interface. Find-NetRoute has the last word for this many destinations.
$MaxSample = 32
$MaxListed = 32

# Returns the metric and the connection of each interface by index and family.
function Get-Links {
    $links = @{}
    foreach ($interface in (Get-Existing 'interfaces' '')) {
        $links[[string] $interface.InterfaceIndex + ' ' + [string] $interface.AddressFamily] = @{
            Metric = [long] $interface.InterfaceMetric
            IsConnected = ([string] $interface.ConnectionState -ne 'Disconnected')
        }
    }
    return $links
}

# Returns the key of an interface for the family of a destination.
function Get-LinkKey($index, [string] $destination) {
    if ($destination.IndexOf(':') -ge 0) { return [string] $index + ' IPv6' }
    return [string] $index + ' IPv4'
}

# Creates an entry for a route that packets of a desired one can use, with its metric after a restart.
function New-Candidate($route, $entry, [bool] $isPlanned, $persistent) {
    return @{
        Route = $route; Entry = $entry; IsPlanned = $isPlanned; Destination = $route.Destination
        ActiveMetric = $route.ActiveMetric; PersistentMetric = $persistent
    }
}

# Returns the bits of a prefix, after a mark for the family.
function Get-Bits([string] $destination) {
    $parts = $destination.Split('/')
    $bytes = [System.Net.IPAddress]::Parse($parts[0]).GetAddressBytes()
    $bits = @()
    foreach ($byte in $bytes) { $bits += [System.Convert]::ToString($byte, 2).PadLeft(8, '0') }
    return [string] $bytes.Count + ':' + ($bits -join '').Substring(0, [int] $parts[1])
}

# Returns the bits of an address.
function Get-AddressBits([string] $address) {
    if ($address.IndexOf(':') -ge 0) { return (Get-Bits ($address + '/128')) }
    return (Get-Bits ($address + '/32'))
}

# Returns active routes by the bits of their destinations.
function Get-RoutesByBits($active) {
    $byBits = @{}
    foreach ($route in $active) {
        $bits = Get-Bits $route.Destination
        if (-not $byBits.ContainsKey($bits)) { $byBits[$bits] = New-Object System.Collections.ArrayList }
        [void] $byBits[$bits].Add($route)
    }
    return $byBits
}

# Returns the routes to the longest prefix around an address.
function Get-LongestMatch($byBits, [string] $bits) {
    for ($length = $bits.Length; $length -gt $bits.IndexOf(':'); $length--) {
        $found = $byBits[$bits.Substring(0, $length)]
        if ($null -ne $found) { return ,$found }
    }
    return ,@()
}

# Returns the bits of the largest prefix inside a prefix that contains none of others inside it, or '' if they cover it.
function Get-FreeBits([string] $bits, $inside) {
    $todo = New-Object System.Collections.ArrayList
    [void] $todo.Add(@{ Bits = $bits; Inside = @($inside) })
    for ($at = 0; $at -lt $todo.Count; $at++) {
        $prefix = $todo[$at].Bits
        $others = @($todo[$at].Inside)
        if ($others.Count -eq 0) { return $prefix }
        $isCovered = $false
        foreach ($other in $others) {
            if ($other.Length -eq $prefix.Length) { $isCovered = $true }
        }
        if ($isCovered) { continue }
        foreach ($bit in @('0', '1')) {
            $half = $prefix + $bit
            [void] $todo.Add(@{ Bits = $half; Inside = @($others | Where-Object { $_.StartsWith($half, 'Ordinal') }) })
        }
    }
    return ''
}

# Returns an address in a prefix: the sixth one, because the first ones are often gateways, or else the first.
function Get-Address([string] $bits) {
    $parts = $bits.Split(':')
    $all = $parts[1]
    $width = 8 * [int] $parts[0]
    if ($width - $all.Length -ge 3) { $all = $all.PadRight($width - 3, '0') + '101' }
    return (Format-Address ($all.PadRight($width, '0')))
}

# Returns the text of an address that consists of these bits.
function Format-Address([string] $all) {
    $groups = @()
    if ($all.Length -eq 32) {
        for ($at = 0; $at -lt 32; $at += 8) { $groups += [System.Convert]::ToInt32($all.Substring($at, 8), 2) }
        return $groups -join '.'
    }
    for ($at = 0; $at -lt 128; $at += 16) { $groups += [System.Convert]::ToInt32($all.Substring($at, 16), 2).ToString('x') }
    return $groups -join ':'
}

# Returns the text of a prefix, as Windows prints it.
function Format-Prefix([string] $bits) {
    $parts = $bits.Split(':')
    $first = Format-Address ($parts[1].PadRight(8 * [int] $parts[0], '0'))
    return [System.Net.IPAddress]::Parse($first).ToString() + '/' + $parts[1].Length
}

# Returns the stores that contain a route.
function Get-Stores($route) {
    $stores = @()
    if ($route.ActiveMetric -ge 0) { $stores += 'ActiveStore' }
    if ($route.PersistentMetric -ge 0) { $stores += 'PersistentStore' }
    return ,$stores
}

function Format-Metrics($links, $index, [string] $destination, $metric) {
    $link = $links[(Get-LinkKey $index $destination)]
    if ($null -eq $link) { return 'metric ' + $metric }
    return 'metric ' + $metric + ' + interface metric ' + $link.Metric
}

function Format-Culprit($links, $route, $metric) {
    $kind = 'the foreign route '
    if ($route.Protocol -eq 'Local') { $kind = 'the route of a local address ' }
    return $kind + (Format-Route $route) + ' on ' + $route.Alias + ' (' +
        (Format-Metrics $links $route.Index $route.Destination $metric) + ', ' + ((Get-Stores $route) -join ' and ') +
        ', protocol ' + $route.Protocol + ')'
}

function Format-Remedy($route) {
    if ($route.Protocol -eq 'Local') {
        return 'remove this machine''s address in ' + $route.Destination + ' from ' + $route.Alias + ', or correct the configuration'
    }
    $commands = @()
    foreach ($store in (Get-Stores $route)) {
        $commands += (Format-Step $route @{ Verb = 'remove'; Store = $store; Metric = $Absent }).Substring(2)
    }
    return 'hostgw did not add this route: find out what did, then remove it with `' + ($commands -join '; ') +
        '`, or run the script with -Adopt'
}

function New-Fault([string] $code, [string] $destination, [string] $text, [string] $remedy) {
    return @{ Code = $code; Destination = $destination; Text = $text; Remedy = $remedy; Entry = $null; Address = ''; IsCertain = $false }
}

# Adds the routes of local addresses among the node's own pods to the traffic. Windows keeps packets to the addresses
# themselves.
function Add-DerivedCandidates($plan, $interfaces, $destinations) {
    foreach ($route in $plan.Derived) {
        $entry = Get-NeededRoute $destinations $route.Destination
        if ($null -eq $entry -or $entry.Role -ne 'own') { continue }
        $length = [int] $route.Destination.Split('/')[1]
        $isAddress = $length -eq 128 -or ($length -eq 32 -and $route.Destination.IndexOf(':') -lt 0)
        [void] $plan.Traffic.Add((New-Candidate $route $entry ($isAddress -or (Test-Planned $entry $interfaces $route)) $route.ActiveMetric))
    }
}

# Judges the paths of packets once a plan is applied: now, and after a restart.
function Set-Faults($plan, $interfaces, $destinations) {
    Add-DerivedCandidates $plan $interfaces $destinations
    $links = Get-Links
    $plan.Faults = Get-DisconnectedFaults $plan $links $interfaces
    $known = @{}
    foreach ($fault in (Get-Faults $plan $interfaces $destinations $links 'ActiveMetric')) {
        $plan.Faults += $fault
        $known[$fault.Destination] = $true
    }
    foreach ($fault in (Get-Faults $plan $interfaces $destinations $links 'PersistentMetric')) {
        if ($known.ContainsKey($fault.Destination)) { continue }
        $fault.Text = 'after the next restart, ' + $fault.Text
        $plan.Later += $fault
    }
}

function Get-DisconnectedFaults($plan, $links, $interfaces) {
    $faults = @()
    foreach ($entry in @(@{ Role = 'egress'; Now = $interfaces.Egress }, @{ Role = 'pod'; Now = $interfaces.Pod })) {
        if ($null -eq $entry.Now) { continue }
        $isConnected = $true
        foreach ($family in $Families) {
            $link = $links[[string] $entry.Now.Index + ' ' + $family]
            if ($null -ne $link -and -not $link.IsConnected) { $isConnected = $false }
        }
        if ($isConnected) { continue }
        if ($entry.Role -eq 'egress') { $plan.IsDisconnected = $true }
        $text = 'the ' + $entry.Role + ' interface ' + $entry.Now.Alias + ' is disconnected, so no packets pass through it'
        $faults += New-Fault $Codes.Disconnected '' $text 'connect it, or enable it with `Enable-NetAdapter`; `Get-NetAdapter` shows its state'
    }
    return ,$faults
}

# Returns the candidates by destination, with their total metrics in a store, and the desired routes among them. Windows
# does not use the routes of a disconnected interface. The egress interface is judged as if it were connected.
function Get-Groups($plan, $interfaces, $links, [string] $metricKey) {
    $groups = @{}
    foreach ($candidate in $plan.Traffic) {
        $metric = $candidate[$metricKey]
        if ($metric -lt 0) { continue }
        $route = $candidate.Route
        $link = $links[(Get-LinkKey $route.Index $route.Destination)]
        if ($null -ne $link -and -not $link.IsConnected -and $route.Index -ne $interfaces.Egress.Index) { continue }
        $entry = $candidate.Entry
        if (-not $groups.ContainsKey($route.Destination)) {
            $groups[$route.Destination] = @{ Entry = $entry; Candidates = (New-Object System.Collections.ArrayList) }
            if ($route.Destination -eq $entry.Now.Destination) {
                $own = Get-Total $links $entry.Now.Index $entry.Now.Destination $entry.Metric
                [void] $groups[$route.Destination].Candidates.Add(@{ Route = $entry.Now; Metric = $entry.Metric; Total = $own; IsPlanned = $true })
            }
        }
        $total = Get-Total $links $route.Index $route.Destination $metric
        [void] $groups[$route.Destination].Candidates.Add(@{
            Route = $route; Metric = $metric; Total = $total; IsPlanned = $candidate.IsPlanned
        })
    }
    return $groups
}

function Get-Total($links, $index, [string] $destination, $metric) {
    $link = $links[(Get-LinkKey $index $destination)]
    if ($null -eq $link) { return [long] $metric }
    return [long] $metric + $link.Metric
}

# Returns the parts of needed destinations whose packets take a different path than planned.
function Get-Faults($plan, $interfaces, $destinations, $links, [string] $metricKey) {
    $faults = @()
    $groups = Get-Groups $plan $interfaces $links $metricKey
    $byBits = @{}
    foreach ($destination in $groups.Keys) { $byBits[(Get-Bits $destination)] = $destination }
    $sorted = Get-Sorted $byBits.Keys
    for ($at = 0; $at -lt $sorted.Count; $at++) {
        $bits = $sorted[$at]
        $group = $groups[$byBits[$bits]]
        $culprit = Get-Culprit $group.Candidates
        if ($null -eq $culprit) { continue }
        # A prefix sorts right before those inside it.
        $inside = New-Object System.Collections.ArrayList
        for ($next = $at + 1; $next -lt $sorted.Count; $next++) {
            if (-not $sorted[$next].StartsWith($bits, 'Ordinal')) { break }
            [void] $inside.Add($sorted[$next])
        }
        $free = Get-FreeBits $bits $inside
        if ($free -eq '') { continue }
        $fault = New-Fault $Codes.Route $byBits[$bits] (Format-Fault $links $group.Entry $culprit) (Format-Remedy $culprit.Route)
        $fault.Entry = $group.Entry
        $fault.Address = Get-Address $free
        $fault.IsCertain = -not $culprit.IsTie
        $faults += $fault
    }
    return ,$faults
}

# Returns the route that diverts packets: one with the lowest total metric that they may not use. It only may divert them
# if another one with that metric is planned. Returns null if there is none.
function Get-Culprit($candidates) {
    $best = $null
    foreach ($candidate in $candidates) {
        if ($null -eq $best -or $candidate.Total -lt $best) { $best = $candidate.Total }
    }
    $culprit = $null
    $isTie = $false
    foreach ($candidate in $candidates) {
        if ($candidate.Total -ne $best) { continue }
        if ($candidate.IsPlanned) { $isTie = $true } elseif ($null -eq $culprit) { $culprit = $candidate }
    }
    if ($null -eq $culprit) { return $null }
    return @{ Route = $culprit.Route; Metric = $culprit.Metric; IsTie = $isTie }
}

function Format-Packets([string] $destination, $entry) {
    return 'packets to ' + $destination + ' (' + $entry.Why + ')'
}

function Format-Fault($links, $entry, $culprit) {
    $route = $culprit.Route
    $are = ' are'
    $metric = ' has a lower total metric than'
    if ($culprit.IsTie) {
        $are = ' can be'
        $metric = ' has the same total metric as'
    }
    $text = (Format-Packets $route.Destination $entry) + $are + ' diverted: ' +
        (Format-Culprit $links $route $culprit.Metric)
    if ($route.Destination -ne $entry.Now.Destination) {
        return $text + ' is more specific than -DestinationPrefix ' + $entry.Now.Destination
    }
    return $text + $metric + ' -NextHop ' + $entry.Now.NextHop + ' on ' + $entry.Now.Alias + ' (' +
        (Format-Metrics $links $entry.Now.Index $entry.Now.Destination $entry.Metric) + ')'
}

# ---- Windows has the last word

# Returns the route that Windows reports for an address, or null if it reports that there is none. Find-NetRoute returns
# the local address, too.
function Find-Route([string] $address) {
    try {
        $found = @(Find-NetRoute -RemoteIPAddress $address -ErrorAction Stop)
    } catch {
        # ERROR_NETWORK_UNREACHABLE and ERROR_HOST_UNREACHABLE.
        $id = [string] $_.FullyQualifiedErrorId
        if ($id.IndexOf('System Error 1231') -ge 0 -or $id.IndexOf('System Error 1232') -ge 0) { return $null }
        throw
    }
    foreach ($object in $found) {
        $nextHop = ''
        try { $nextHop = [string] $object.NextHop } catch { continue }
        if ($nextHop -eq '') { continue }
        return @{
            Index = [int] $object.InterfaceIndex; Alias = [string] $object.InterfaceAlias
            Destination = [string] $object.DestinationPrefix; NextHop = $nextHop
        }
    }
    throw 'it reports neither a route nor an error'
}

# Returns the addresses to ask Windows about: in diverted parts, and in needed destinations, evenly chosen. Without a
# connection, all of them are lost.
function Get-Sample($plan) {
    $sample = New-Object System.Collections.ArrayList
    if ($plan.IsDisconnected) { return ,$sample.ToArray() }
    foreach ($fault in $plan.Faults) {
        if ($fault.Address -eq '' -or $sample.Count * 2 -ge $MaxSample) { continue }
        [void] $sample.Add(@{ Address = $fault.Address; Entry = $fault.Entry; Fault = $fault })
    }
    $room = $MaxSample - $sample.Count
    $count = @($plan.Desired).Count
    $due = $count - 1
    foreach ($entry in $plan.Desired) {
        $due += $room
        if ($due -lt $count) { continue }
        if ($room -lt $count) { $due = $due - $count }
        $bits = Get-Bits $entry.Now.Destination
        $inside = New-Object System.Collections.ArrayList
        foreach ($candidate in $plan.Traffic) {
            if ($candidate.ActiveMetric -lt 0 -or $candidate.Entry.Now.Destination -ne $entry.Now.Destination) { continue }
            $other = Get-Bits $candidate.Destination
            if ($other.Length -gt $bits.Length) { [void] $inside.Add($other) }
        }
        $free = Get-FreeBits $bits $inside
        if ($free -ne '') { [void] $sample.Add(@{ Address = (Get-Address $free); Entry = $entry; Fault = $null }) }
    }
    return ,$sample.ToArray()
}

# Asks Windows about a sample. Returns its answers by address, each with whether it is the planned path. Stops at the first
# failure.
function Get-Answers($sample, $interfaces) {
    $answers = @{ Failure = ''; Ways = @{} }
    foreach ($probe in $sample) {
        try {
            $route = Find-Route $probe.Address
        } catch {
            $answers.Failure = 'cannot ask Windows for the path to ' + $probe.Address + ' (destinations not verified: ' +
                ($sample.Count - $answers.Ways.Count) + ' of ' + $sample.Count + '): Find-NetRoute: ' + (Get-Reason $_)
            break
        }
        $isPlanned = $null -ne $route -and (Test-Planned $probe.Entry $interfaces $route)
        $answers.Ways[$probe.Address] = @{ Route = $route; IsPlanned = $isPlanned }
    }
    return $answers
}

# Corrects the path faults of a plan in effect by what Windows reports.
function Confirm-Faults($plan, $interfaces) {
    $sample = Get-Sample $plan
    $answers = Get-Answers $sample $interfaces
    $plan.Unverified = $answers.Failure
    $refuted = @{}
    foreach ($probe in $sample) {
        $way = $answers.Ways[$probe.Address]
        if ($null -eq $way) { continue }
        if ($null -ne $probe.Fault) {
            $probe.Fault.IsCertain = -not $way.IsPlanned
            if ($way.IsPlanned) { $refuted[$probe.Fault.Destination] = $true }
        } elseif (-not $way.IsPlanned) {
            $plan.Faults += New-DifferentFault $probe $way.Route
        }
    }
    $plan.Faults = @($plan.Faults | Where-Object { -not $refuted.ContainsKey($_.Destination) })
}

# Creates a fault for an address that Windows reports another path for than its route table shows.
function New-DifferentFault($probe, $route) {
    $entry = $probe.Entry
    $text = Format-Packets $probe.Address $entry
    if ($null -eq $route) {
        $text += ' are lost: Find-NetRoute reports no route'
    } else {
        $text += ' are diverted: Find-NetRoute reports ' + (Format-Route $route) + ' on ' + $route.Alias
    }
    $text += ', although the active routes lead to -NextHop ' + $entry.Now.NextHop + ' on ' + $entry.Now.Alias
    $fault = New-Fault $Codes.Differs ('by Find-NetRoute: ' + $probe.Address) $text ('compare `Find-NetRoute -RemoteIPAddress ' + $probe.Address +
        '` with `Get-NetRoute -PolicyStore ActiveStore`; a VPN client or a filter driver can select another route')
    $fault.Entry = $entry
    $fault.Address = $probe.Address
    $fault.IsCertain = $true
    return $fault
}

# Returns what is needed to tell whether a path worked before the changes.
function Get-Baseline($plan, $interfaces, [bool] $removeAll) {
    if ($removeAll) { return $null }
    return @{
        Routes = @($plan.Live.Values) + $plan.Derived.ToArray(); Links = (Get-Links); ByBits = $null
        Answers = (Get-Answers (Get-Sample $plan) $interfaces)
    }
}

# Returns whether packets to an address took the planned path before the changes. Windows has the last word if it was asked.
function Test-WorkedBefore($before, $fault, $interfaces) {
    $way = $before.Answers.Ways[$fault.Address]
    if ($null -ne $way) { return $way.IsPlanned }
    if ($null -eq $before.ByBits) { $before.ByBits = Get-RoutesByBits @($before.Routes | Where-Object { $_.ActiveMetric -ge 0 }) }
    $used = Get-LongestMatch $before.ByBits (Get-AddressBits $fault.Address)
    if ($used.Count -eq 0) { return $false }
    $candidates = New-Object System.Collections.ArrayList
    foreach ($route in $used) {
        $total = Get-Total $before.Links $route.Index $route.Destination $route.ActiveMetric
        [void] $candidates.Add(@{ Route = $route; Metric = 0; Total = $total; IsPlanned = (Test-Planned $fault.Entry $interfaces $route) })
    }
    return $null -eq (Get-Culprit $candidates)
}

# Returns the faults of paths that worked before the changes.
function Get-Regressions($before, $after, $interfaces) {
    $worse = @()
    foreach ($fault in $after.Faults) {
        if ($fault.IsCertain -and (Test-WorkedBefore $before $fault $interfaces)) { $worse += $fault }
    }
    return ,$worse
}

# Throws if a path that worked before the changes no longer works. Right after a change, Windows may not have settled, so it
# is asked again before its answer fails the change.
function Assert-Paths($before, $after, $interfaces) {
    $judged = $after.Faults
    $worse = @()
    for ($attempt = 1; $attempt -le 3; $attempt++) {
        $after.Faults = $judged
        Confirm-Faults $after $interfaces
        $worse = Get-Regressions $before $after $interfaces
        if (@($worse | Where-Object { $_.Code -eq $Codes.Differs }).Count -eq 0) { break }
        if ($attempt -lt 3) { Start-Sleep -Seconds 1 }
    }
    if ($worse.Count -eq 0) { return }
    $Run.Remedy = $worse[0].Remedy
    throw ('the change caused pod traffic to be lost or diverted: ' + (@($worse | ForEach-Object { $_.Text }) -join '; '))
}

# Reports the paths that do not work, or will not after a restart.
function Write-Faults($plan, [string] $opening) {
    $count = 0
    foreach ($fault in @($plan.Faults) + @($plan.Later)) {
        $count += 1
        [void] $Report.Problems.Add($fault.Code + ': ' + $fault.Text)
        if ($count -gt $MaxListed) { continue }
        Write-WarningLine ($fault.Code + ': ' + $opening + $fault.Text)
        Write-Line ('  help: ' + $fault.Remedy)
    }
    if ($count -gt $MaxListed) { Write-WarningLine ('and ' + ($count - $MaxListed) + ' more') }
    if ($plan.Unverified -ne '') {
        [void] $Report.Problems.Add($Codes.Unknown + ': ' + $plan.Unverified)
        Write-WarningLine ($Codes.Unknown + ': ' + $plan.Unverified)
    }
}
