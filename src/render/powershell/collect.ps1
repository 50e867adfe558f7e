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
