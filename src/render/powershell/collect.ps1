# ---- Prints the live state as JSON; changes nothing

function Get-LiveState {
    $interfaces = @()
    foreach ($interface in (Get-Existing 'interfaces' '')) {
        $interfaces += @{
            Index = [int] $interface.InterfaceIndex; Alias = [string] $interface.InterfaceAlias
            Family = [string] $interface.AddressFamily; Forwarding = [string] $interface.Forwarding
            Metric = [long] $interface.InterfaceMetric; ConnectionState = [string] $interface.ConnectionState
        }
    }
    $addresses = @()
    foreach ($address in (Get-Existing 'addresses' '')) {
        $addresses += @{
            Index = [int] $address.InterfaceIndex; Address = [string] $address.IPAddress; PrefixLength = [int] $address.PrefixLength
        }
    }
    $derived = New-Object System.Collections.ArrayList
    $live = Get-LiveRoutes $derived
    $routes = @()
    foreach ($key in (Get-Sorted $live.Keys)) { $routes += $live[$key] }
    $state = Read-State
    return @{
        Format = 1; System = 'windows'; Node = $Node; TakenAt = [DateTime]::UtcNow.ToString('o')
        Interfaces = @($interfaces); Addresses = @($addresses); Routes = @($routes); Derived = @($derived.ToArray())
        Managed = @($state.Managed); Forwarding = @($state.Forwarding)
    }
}

if ($Arguments.Count -gt 0) {
    Write-Failure ('unknown argument: ' + $Arguments[0])
    Write-Help 'run this script without arguments'
    exit 64
}
try {
    Write-Output (Format-PrintableJson (ConvertTo-Json (Get-LiveState) -Depth 5))
} catch {
    Write-Failure (Get-Reason $_)
    exit 1
}
exit 0
