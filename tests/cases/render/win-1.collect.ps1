# hostgw: routes and forwarding of Windows node win-1
# from hostgw.yaml, SHA-256 0123456789abcdef, by hostgw 0.1.0
#
# Prints routes, addresses and forwarding as JSON, without changing anything. Does not require administrator rights:
#
#   powershell -ExecutionPolicy Bypass -File collect.ps1 >node.json
#
# Then plan with it: hostgw plan --node win-1 --state node.json
#
# The authors of hostgw wrote this script from the documentation of the cmdlets, and have not run it on Windows. Run the
# self-test in examples/windows of hostgw's repository first.

if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    Write-Host 'error: this PowerShell runs in a restricted language mode (AppLocker or App Control); nothing was changed'
    Write-Host 'help: allow this script in that policy, or sign it as the policy requires'
    exit 1
}

$Arguments = @($args)
$Node = 'win-1'

# The ranges of characters that are escaped in the output, as pairs of code points.
$Hidden = @(
    0, 31, 127, 159, 173, 173, 847, 847, 1536, 1541, 1564, 1564, 1757, 1757, 1807, 1807,
    2192, 2193, 2274, 2274, 4447, 4448, 6068, 6069, 6155, 6159, 8203, 8207, 8232, 8238, 8288, 8303,
    12644, 12644, 65024, 65039, 65279, 65279, 65440, 65440, 65520, 65531, 69821, 69821, 69837, 69837, 78896, 78911,
    113824, 113827, 119155, 119162, 917504, 921599
)

<src/render/powershell/read.ps1>

<src/render/powershell/collect.ps1>
