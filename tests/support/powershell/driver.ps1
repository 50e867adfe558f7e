# Runs scripts of hostgw on the substitutes for NetTCPIP and ScheduledTasks, many in one process, because a PowerShell takes a second to
# start.
#
# Reads one request per line as JSON, and answers each with a line of '@@' and JSON. A script that calls `exit` only
# ends itself when it is called by another one.
$ErrorActionPreference = 'Stop'
Import-Module NetTCPIP
Import-Module ScheduledTasks

# Replaces a function that only works on Windows. An alias takes precedence over the function of that name.
function global:Test-AnsweredAdministrator { return $global:IsAdministrator }
Set-Alias -Scope Global -Name Test-Administrator -Value Test-AnsweredAdministrator

function Invoke-Request($request) {
    $env:HGW_MACHINE = Join-Path $request.folder 'machine.json'
    $env:HGW_CALLS = Join-Path $request.folder 'calls'
    $env:HGW_SCHEDULER = Join-Path $request.folder 'scheduler.json'
    $env:HGW_FAULTS = $request.faults
    $env:HGW_REFUSED_FROM = $request.refusedFrom
    $env:HGW_BLIND = $request.blind
    $env:ProgramW6432 = ''
    $env:ProgramFiles = Join-Path $request.folder 'Program Files'
    Set-CallNumber $request.calls
    $global:IsAdministrator = $request.administrator
    $locks = @($request.locked | ForEach-Object { [System.IO.File]::Open($_, 'OpenOrCreate', 'ReadWrite', 'None') })
    $culture = [System.Threading.Thread]::CurrentThread.CurrentCulture
    if ($request.culture) { [System.Threading.Thread]::CurrentThread.CurrentCulture = [cultureinfo] $request.culture }
    $switches = @{}
    foreach ($name in $request.switches) { $switches[$name] = $true }
    $rest = @($request.rest)
    foreach ($preference in $request.preferences.PSObject.Properties) {
        $value = $preference.Value
        if ($preference.Name -eq 'PSDefaultParameterValues') {
            $value = @{}
            foreach ($entry in $preference.Value.PSObject.Properties) { $value[$entry.Name] = $entry.Value }
        }
        Set-Variable -Scope Global -Name $preference.Name -Value $value
    }
    $stderr = New-Object System.IO.StringWriter
    [Console]::SetError($stderr)
    $lines = New-Object System.Collections.ArrayList
    $code = $null
    try {
        $ErrorActionPreference = 'Continue'
        & $request.script @switches @rest 2>&1 3>&1 4>&1 5>&1 6>&1 | ForEach-Object {
            if ($_ -is [System.Management.Automation.WarningRecord]) { [void] $lines.Add('WARNING: ' + $_.Message) }
            elseif ($_ -is [System.Management.Automation.InformationRecord]) { [void] $lines.Add([string] $_.MessageData) }
            elseif ($_ -is [System.Management.Automation.ErrorRecord]) { $stderr.WriteLine('ERROR RECORD: ' + $_) }
            else { [void] $lines.Add([string] $_) }
        }
        $code = $LASTEXITCODE
    } catch {
        $stderr.WriteLine('NOT CAUGHT: ' + $_)
        $code = 1
    } finally {
        $global:WhatIfPreference = $false
        $global:ConfirmPreference = 'High'
        $global:PSDefaultParameterValues = @{}
        $global:WarningPreference = 'Continue'
        $global:ProgressPreference = 'Continue'
        $global:OFS = ' '
        [System.Threading.Thread]::CurrentThread.CurrentCulture = $culture
        foreach ($lock in $locks) { $lock.Dispose() }
    }
    return @{ code = $code; stdout = @($lines); stderr = $stderr.ToString() }
}

while ($null -ne ($line = [Console]::In.ReadLine())) {
    $answer = Invoke-Request (ConvertFrom-Json $line)
    [Console]::Out.WriteLine('@@' + (ConvertTo-Json $answer -Compress -Depth 3))
}
