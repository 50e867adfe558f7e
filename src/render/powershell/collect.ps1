# ---- Prints what stands, as JSON; changes nothing

function Get-Collected {
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
    $made = New-Object System.Collections.ArrayList
    $standing = Get-Standing $made
    $routes = @()
    foreach ($key in (Get-Sorted $standing.Keys)) { $routes += $standing[$key] }
    $state = Read-State
    return @{
        Format = 1; System = 'windows'; Node = $Node; At = [DateTime]::UtcNow.ToString('o')
        Interfaces = @($interfaces); Addresses = @($addresses); Routes = @($routes); Made = @($made.ToArray())
        Owned = @($state.Owned); Forwarding = @($state.Forwarding)
    }
}

if ($Arguments.Count -gt 0) {
    Write-Failure ('unknown argument: ' + $Arguments[0])
    Write-Help 'this script takes no arguments.'
    exit 64
}
try {
    Write-Output (Format-ShownJson (ConvertTo-Json (Get-Collected) -Depth 5))
} catch {
    Write-Failure (Get-Reason $_)
    exit 1
}
exit 0
