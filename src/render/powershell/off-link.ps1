# ---- Nodes on other links: their routes as `offLink` of the configuration asks. hostgw plan --state decides by the same rules, and
# uses the same words.

# Returns what this node reaches on the link of its egress interface, and the routes to everything else, by bits. Managed
# routes do not count, because they depend on the result.
function Get-NodeLink($plan, $interfaces, $state) {
    $link = @{ Local = @{}; Networks = @(); Routes = @{}; Links = (Get-Links); Reported = @{} }
    $prefixes = @{}
    $hosts = @{}
    $aliases = Get-Aliases
    foreach ($address in (Get-Existing 'addresses' '')) {
        $bits = Get-AddressBits $address.IPAddress
        $link.Local[$bits] = [string] $aliases[[string] $address.InterfaceIndex]
        $hosts[$bits] = $true
        if ([int] $address.InterfaceIndex -ne $interfaces.Egress.Index) { continue }
        $length = [int] $address.PrefixLength
        $prefixes[$bits.Substring(0, $bits.IndexOf(':') + 1 + $length)] = $true
    }
    # Each of them covers an address of this machine, or a broadcast address.
    foreach ($route in $plan.Derived) {
        $bits = Get-Bits $route.Destination
        if ($bits -eq (Get-AddressBits ($route.Destination.Split('/')[0]))) { $hosts[$bits] = $true }
    }
    $foreign = Get-ForeignRoutes $plan $interfaces $state $link.Links
    foreach ($route in $foreign) {
        $isOnLink = @('0.0.0.0', '::') -contains $route.NextHop
        if ($isOnLink -and $route.Index -eq $interfaces.Egress.Index) { $prefixes[(Get-Bits $route.Destination)] = $true }
    }
    foreach ($bits in (Get-Sorted $prefixes.Keys)) {
        $isWhole = $bits.Length -eq $bits.IndexOf(':') + 1
        $isMulticast = $bits.StartsWith('4:1110', 'Ordinal') -or $bits.StartsWith('16:11111111', 'Ordinal')
        if (-not $isWhole -and -not $isMulticast -and -not $hosts.ContainsKey($bits)) { $link.Networks += $bits }
    }
    $link.Routes = Get-RoutesByBits $foreign
    return $link
}

# Returns the active routes on connected interfaces that are neither managed nor will be, in a fixed order. The egress
# interface is treated as if it were connected.
function Get-ForeignRoutes($plan, $interfaces, $state, $links) {
    $managed = @{}
    foreach ($route in @($state.Managed)) { $managed[(Get-OwnedKey $route.Alias $route.Destination $route.NextHop)] = $true }
    $desired = @{}
    foreach ($route in $Routes) { $desired[$route.Destination] = $true }
    $active = New-Object System.Collections.ArrayList
    foreach ($key in (Get-Sorted $plan.Live.Keys)) { [void] $active.Add($plan.Live[$key]) }
    foreach ($route in $plan.Derived) { [void] $active.Add($route) }
    $foreign = New-Object System.Collections.ArrayList
    foreach ($route in $active) {
        if ($route.ActiveMetric -lt 0 -or $desired.ContainsKey($route.Destination)) { continue }
        if ($managed.ContainsKey((Get-OwnedKey $route.Alias $route.Destination $route.NextHop))) { continue }
        $now = $links[(Get-LinkKey $route.Index $route.Destination)]
        $isDisconnected = $null -ne $now -and -not $now.IsConnected
        if ($isDisconnected -and $route.Index -ne $interfaces.Egress.Index) { continue }
        [void] $foreign.Add($route)
    }
    return ,$foreign
}

# Returns the next hop of a route to another node's pods, or '' if it gets none: the node is then among those in
# $plan.Skipped, or the reason among $plan.Problems.
function Get-AdaptedNextHop($plan, $interfaces, $link, $route) {
    $alias = $interfaces.Egress.Alias
    $bits = Get-AddressBits $route.Link
    $what = 'next hop ' + $route.NextHop + ' of node ' + $route.Peer
    if ($link.Local.ContainsKey($bits)) {
        # With a pod gateway, the address of its node decides.
        if ($route.Link -ne $route.NextHop) { return $route.NextHop }
        $what += ' is this node''s own address (on ' + $link.Local[$bits] + '): packets would never leave this node'
        Add-Problem $plan $link $what ('this machine looks like node ' + $route.Peer + ', not ' + $Node + '; run the script of node ' +
            $route.Peer + ' here, or fix the address in the file')
        return ''
    }
    foreach ($network in $link.Networks) {
        if ($bits.StartsWith($network, 'Ordinal')) { return $route.NextHop }
    }
    if ($OffLink -eq 'skip') {
        if (-not $plan.Skipped.Contains($route.Peer)) { [void] $plan.Skipped.Add($route.Peer) }
        return ''
    }
    if ($OffLink -eq 'gateway' -and $route.Address -ne '') {
        $gateway = Get-Gateway $link $interfaces $route.Address
        if ($gateway -ne '') { return $gateway }
    }
    $remedy = ''
    if ($plan.Remedy -eq '') { $remedy = Format-OffLinkRemedy $link $route $alias }
    Add-Problem $plan $link ($what + ' is not on-link on ' + $alias) $remedy
    return ''
}

# Adds a problem once, although each pod CIDR of a node has a route. Only the first remedy is shown.
function Add-Problem($plan, $link, [string] $problem, [string] $remedy) {
    if ($link.Reported.ContainsKey($problem)) { return }
    $link.Reported[$problem] = $true
    $plan.Problems += $problem
    if ($plan.Remedy -eq '') { $plan.Remedy = $remedy }
}

# Returns the gateway on the egress interface through which this node reaches an address, or '' if there is none. Several
# routes with the same metric are equally good.
function Get-Gateway($link, $interfaces, [string] $address) {
    $best = $null
    $gateway = ''
    foreach ($route in (Get-LongestMatch $link.Routes (Get-AddressBits $address))) {
        $total = Get-Total $link.Links $route.Index $route.Destination $route.ActiveMetric
        if ($null -eq $best -or $total -lt $best) {
            $best = $total
            $gateway = ''
        }
        $isUsable = $route.Index -eq $interfaces.Egress.Index -and @('0.0.0.0', '::') -notcontains $route.NextHop
        if ($total -ne $best -or $gateway -ne '' -or -not $isUsable) { continue }
        if (-not $link.Local.ContainsKey((Get-AddressBits $route.NextHop))) { $gateway = $route.NextHop }
    }
    return $gateway
}

function Format-OffLinkRemedy($link, $route, [string] $alias) {
    $family = 'IPv4'
    if ($route.NextHop.IndexOf(':') -ge 0) { $family = 'IPv6' }
    $mark = Get-Bits ($route.NextHop + '/0')
    $networks = @($link.Networks | Where-Object { $_.StartsWith($mark, 'Ordinal') } | ForEach-Object { Format-Prefix $_ })
    if ($networks.Count -eq 0) {
        return $alias + ' has no ' + $family + ' address in the nodes'' network: assign one with `New-NetIPAddress`'
    }
    if ($OffLink -eq 'gateway') {
        return 'set node ' + $route.Peer + '''s address to one that this node reaches through a gateway on ' + $alias +
            ', or set its nextHop'
    }
    return 'use a next hop in ' + (Format-List $networks 4) + ', the network on ' + $alias +
        ', or set offLink to gateway, skip or onlink'
}

# Returns the warning about the nodes that get no route, or ''.
function Format-Skipped($plan) {
    if ($plan.Skipped.Count -eq 0) { return '' }
    $others = @{}
    foreach ($route in $Routes) {
        if ($route.Role -eq 'node') { $others[$route.Why] = $true }
    }
    $nodes = ' other nodes'
    if ($others.Count -eq 1) { $nodes = ' other node' }
    return $Codes.Skipped + ': no route to ' + $plan.Skipped.Count + ' of ' + $others.Count + $nodes +
        ' (offLink: skip); not on this node''s link: ' + (Format-List $plan.Skipped 6)
}
