# ---- The scheduled task, which keeps this node in sync with the configuration

$TaskName = 'hostgw'
$TaskPath = '\'

# The task runs this copy. A newer script replaces it, so that the task itself does not change.
$TaskScript = Join-Path $Folder 'hostgw.ps1'

# The last reported failure. The file exists only while a failure lasts.
$FailureFile = Join-Path $Folder 'failure.json'

# Every Windows node has this PowerShell. The Task Scheduler expands the variable.
$TaskProgram = '%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe'
$TaskArguments = '-NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "' + $TaskScript + '" -Scheduled'
$TaskTimes = 'at startup, when a network connects, and every 5 minutes'

# Windows logs this event when it has identified a network.
$NetworkConnected = '<QueryList><Query Id="0" Path="Microsoft-Windows-NetworkProfile/Operational">' +
    '<Select Path="Microsoft-Windows-NetworkProfile/Operational">*[System[Provider[@Name=''Microsoft-Windows-NetworkProfile'']' +
    ' and EventID=10000]]</Select></Query></QueryList>'

$SystemAccount = 'S-1-5-18'

# ---- The event log: the only functions that use it. The cmdlets for it are missing from PowerShell 7.

$EventSource = 'hostgw'

# Reads the registry, as all users can. SourceExists also opens logs that only administrators can read.
function Test-EventSource {
    return Test-Path -LiteralPath ('HKLM:\SYSTEM\CurrentControlSet\Services\EventLog\Application\' + $EventSource)
}

function Add-EventSource {
    [System.Diagnostics.EventLog]::CreateEventSource($EventSource, 'Application')
}

function Remove-EventSource {
    [System.Diagnostics.EventLog]::DeleteEventSource($EventSource)
}

function Write-EventEntry([int] $id, [string] $level, [string] $text) {
    [System.Diagnostics.EventLog]::WriteEntry($EventSource, $text, $level, $id)
}

# ---- The task

# Returns the task of this name, or null if there is none.
function Get-InstalledTask {
    try {
        $found = @(Get-ScheduledTask -TaskName $TaskName -TaskPath $TaskPath -ErrorAction Stop)
    } catch {
        if (-not (Test-NotFound $_)) { throw ('cannot read the task ' + $TaskName + ': ' + (Get-Reason $_)) }
        return $null
    }
    if ($found.Count -eq 0) { return $null }
    return $found[0]
}

# Creates the definition of the task. The repetition starts now, so that nodes do not all run the task at the same time.
function New-TaskDefinition {
    $class = Get-CimClass -Namespace 'Root/Microsoft/Windows/TaskScheduler' -ClassName 'MSFT_TaskEventTrigger' -ErrorAction Stop
    $connected = New-CimInstance -CimClass $class -ClientOnly -Property @{
        Enabled = $true; Subscription = $NetworkConnected; Delay = 'PT5S'
    } -ErrorAction Stop
    $repetition = @{
        Once = $true; At = [DateTime]::Now; RepetitionInterval = [TimeSpan]::FromMinutes(5)
        RandomDelay = [TimeSpan]::FromMinutes(1); ErrorAction = 'Stop'
    }
    $triggers = @((New-ScheduledTaskTrigger -AtStartup -ErrorAction Stop), $connected, (New-ScheduledTaskTrigger @repetition))
    $rules = @{
        MultipleInstances = 'IgnoreNew'; ExecutionTimeLimit = [TimeSpan]::FromMinutes(15); StartWhenAvailable = $true
        AllowStartIfOnBatteries = $true; DontStopIfGoingOnBatteries = $true; ErrorAction = 'Stop'
    }
    $action = New-ScheduledTaskAction -Execute $TaskProgram -Argument $TaskArguments -ErrorAction Stop
    $principal = New-ScheduledTaskPrincipal -UserId $SystemAccount -LogonType ServiceAccount -RunLevel Highest -ErrorAction Stop
    $settings = New-ScheduledTaskSettingsSet @rules
    $description = 'Keeps the routes and forwarding of this node in sync with the hostgw configuration. Runs ' + $TaskTimes + '.'
    return New-ScheduledTask -Action $action -Trigger $triggers -Principal $principal -Settings $settings -Description $description -ErrorAction Stop
}

# Returns whether an account is SYSTEM. Windows returns its name, which depends on the language of Windows.
function Test-SystemAccount([string] $account) {
    foreach ($name in @($SystemAccount, 'SYSTEM', 'NT AUTHORITY\SYSTEM')) {
        if ([string]::Equals($account, $name, 'OrdinalIgnoreCase')) { return $true }
    }
    try {
        $named = New-Object Security.Principal.NTAccount $account
        return [string] $named.Translate([Security.Principal.SecurityIdentifier]).Value -eq $SystemAccount
    } catch {
        return $false
    }
}

# Returns what a task does, and when, as text. Two tasks with the same text behave the same.
function Format-Task($task) {
    $lines = @()
    foreach ($action in @($task.Actions)) { $lines += 'action ' + $action.Execute + ' ' + $action.Arguments }
    foreach ($trigger in @($task.Triggers)) {
        $class = [string] $trigger.CimClass.CimClassName
        $line = 'trigger ' + $class + ' ' + $trigger.Enabled
        if ($class -eq 'MSFT_TaskEventTrigger') { $line += ' ' + $trigger.Subscription + ' ' + $trigger.Delay }
        if ($class -eq 'MSFT_TaskTimeTrigger') { $line += ' ' + $trigger.Repetition.Interval + ' ' + $trigger.RandomDelay }
        $lines += $line
    }
    $settings = $task.Settings
    $lines += 'system ' + (Test-SystemAccount $task.Principal.UserId) + ' ' + $task.Principal.RunLevel
    $lines += 'settings ' + $settings.Enabled + ' ' + $settings.MultipleInstances + ' ' + $settings.ExecutionTimeLimit + ' ' +
        $settings.StartWhenAvailable + ' ' + $settings.DisallowStartIfOnBatteries + ' ' + $settings.StopIfGoingOnBatteries
    return (Get-Sorted $lines) -join '; '
}

# Returns whether a task behaves as defined. A task that cannot be read does not.
function Test-Task($task, $defined) {
    try {
        return [string]::Equals((Format-Task $task), (Format-Task $defined), 'Ordinal')
    } catch {
        return $false
    }
}

# Returns whether the task will run the installed script.
function Test-TaskActive {
    if (-not [System.IO.File]::Exists($TaskScript)) { return $false }
    $task = Get-InstalledTask
    return $null -ne $task -and [string] $task.State -ne 'Disabled'
}

# ---- Install and uninstall

# Returns the text of the running script.
function Read-OwnScript {
    if ([string]::IsNullOrEmpty($PSCommandPath)) { throw 'the path of this script is unknown: run it as a file' }
    return [System.IO.File]::ReadAllText($PSCommandPath)
}

function New-Step([string] $kind, [string] $line) {
    return @{ Kind = $kind; Line = $line; Subject = $null }
}

# Returns the steps that are still missing for the task to run this script.
function Get-InstallSteps {
    $steps = @()
    if (-not (Test-EventSource)) {
        $steps += New-Step 'add source' ('+ [System.Diagnostics.EventLog]::CreateEventSource(''' + $EventSource + ''', ''Application'')')
    }
    $text = Read-OwnScript
    if (-not (Test-Text $TaskScript $text)) {
        $symbol = '+'
        if ([System.IO.File]::Exists($TaskScript)) { $symbol = '~' }
        $step = New-Step 'copy' ($symbol + ' Copy-Item -LiteralPath ' + (Format-Path $PSCommandPath) + ' -Destination ' + (Format-Path $TaskScript))
        $step.Subject = $text
        $steps += $step
    }
    $defined = New-TaskDefinition
    $task = Get-InstalledTask
    if ($null -eq $task -or -not (Test-Task $task $defined)) {
        $symbol = '+'
        if ($null -ne $task) { $symbol = '~' }
        $step = New-Step 'register' ($symbol + ' Register-ScheduledTask -TaskName ' + $TaskName + '  # as SYSTEM: ' + $TaskTimes)
        $step.Subject = $defined
        $steps += $step
    }
    return ,$steps
}

# Returns the files of the task that exist.
function Get-TaskFiles {
    $files = @()
    foreach ($file in @($TaskScript, $FailureFile)) {
        foreach ($path in @($file, ($file + '.old'), ($file + '.new'))) {
            if ([System.IO.File]::Exists($path)) { $files += $path }
        }
    }
    return ,$files
}

# Returns the steps that remove what is installed: the task first, so that no run starts without its script.
function Get-UninstallSteps {
    $steps = @()
    if ($null -ne (Get-InstalledTask)) { $steps += New-Step 'unregister' ('- Unregister-ScheduledTask -TaskName ' + $TaskName) }
    foreach ($path in (Get-TaskFiles)) {
        $step = New-Step 'remove file' ('- Remove-Item -LiteralPath ' + (Format-Path $path))
        $step.Subject = $path
        $steps += $step
    }
    if (Test-EventSource) {
        $steps += New-Step 'remove source' ('- [System.Diagnostics.EventLog]::DeleteEventSource(''' + $EventSource + ''')')
    }
    return ,$steps
}

# The only calls that change the task, its files and its source. Register-ScheduledTask has neither -WhatIf nor -Confirm.
function Invoke-TaskStep($step) {
    $target = @{ TaskName = $TaskName; TaskPath = $TaskPath; ErrorAction = 'Stop' }
    $removed = @{ TaskName = $TaskName; TaskPath = $TaskPath; Confirm = $false; WhatIf = $false; ErrorAction = 'Stop' }
    if ($step.Kind -eq 'add source') { Add-EventSource }
    if ($step.Kind -eq 'copy') { Write-File $TaskScript $step.Subject }
    if ($step.Kind -eq 'register') { [void] (Register-ScheduledTask @target -InputObject $step.Subject -Force) }
    if ($step.Kind -eq 'unregister') { Unregister-ScheduledTask @removed }
    if ($step.Kind -eq 'remove file') { Remove-File $step.Subject }
    if ($step.Kind -eq 'remove source') { Remove-EventSource }
}

function Invoke-TaskSteps($steps) {
    foreach ($step in $steps) {
        Write-Record $step.Line
        Invoke-TaskStep $step
    }
}

# Verifies that the task will run this script.
function Assert-Installed {
    if (-not (Test-EventSource)) { throw 'Windows reported success, but the event source does not exist' }
    if (-not (Test-Text $TaskScript (Read-OwnScript))) { throw ($TaskScript + ' does not contain this script') }
    $task = Get-InstalledTask
    if ($null -eq $task) { throw 'Windows reported success, but the task does not exist' }
    $action = @($task.Actions)[0]
    if (-not [string]::Equals([string] $action.Arguments, $TaskArguments, 'Ordinal') -or [string] $task.State -eq 'Disabled') {
        throw 'Windows reported success, but the task does not run this script'
    }
}

# Installs the task after its configuration has been applied. Returns the exit code.
function Install-Task {
    $Run.Interrupted = 130
    try {
        $steps = Get-InstallSteps
        Invoke-TaskSteps $steps
        Assert-Installed
    } catch {
        Write-Failure ('the configuration is applied, but the task could not be installed: ' + (Get-Reason $_))
        Write-Help 'fix the cause, then run this script with -Install again, or with -Uninstall to remove what was installed'
        return 1
    }
    $Run.Interrupted = 0
    if ($steps.Count -eq 0) {
        Write-Line ('No changes. The task ' + $TaskName + ' is installed and runs this script.')
    } else {
        Write-Record ('Installed and verified: the task ' + $TaskName + ' keeps this configuration in effect. It runs ' + $TaskTimes + '.')
    }
    return 0
}

# Removes the task, its script and its event source, but no routes. Returns the exit code.
function Uninstall-Task($steps) {
    try {
        Invoke-TaskSteps $steps
        $left = Get-UninstallSteps
        if ($left.Count -gt 0) { throw ('Windows reported success, but these steps had no effect: ' + (@($left | ForEach-Object { $_.Line }) -join '; ')) }
    } catch {
        Write-Failure ('the task could not be uninstalled: ' + (Get-Reason $_))
        Write-Help 'fix the cause, then run this script with -Uninstall again'
        return 1
    }
    Write-Record 'Uninstalled. Routes and forwarding stay in effect; run this script with -Destroy to remove the routes and restore forwarding.'
    return 0
}

# Shows the steps of -Install or -Uninstall without executing them.
function Show-TaskSteps($steps) {
    if (-not (Test-Administrator)) { Write-WarningLine 'only administrators can see tasks of SYSTEM, so this may be incomplete' }
    if ($Install -and $steps.Count -gt 0) { Write-Line 'Then, to install the task:' }
    foreach ($step in $steps) { Write-Line $step.Line }
    if ($steps.Count -gt 0) {
        Write-Line 'Nothing was changed.'
    } elseif ($Install) {
        Write-Line ('No changes. The task ' + $TaskName + ' is installed and runs this script.')
    } else {
        Write-NotInstalled
    }
}

function Write-NotInstalled {
    Write-Line 'Nothing to uninstall: the task is not installed on this node.'
}

# Warns about changes that the task will undo. If that cannot be determined, this is only a warning, because the run itself
# succeeded.
function Write-TaskWarning {
    if (-not [System.IO.File]::Exists($TaskScript)) { return }
    try {
        if ($Rollback -and -not $Report.IsChanged) { return }
        if (-not $Rollback -and (Test-Text $TaskScript (Read-OwnScript))) { return }
        if (-not (Test-TaskActive)) { return }
        if ($Rollback) {
            Write-WarningLine ('the task ' + $TaskName + ' applies ' + $TaskScript + ' again within 6 minutes')
            Write-Help ('to prevent that, run this script with -Uninstall, the previous script with -Install, or Disable-ScheduledTask -TaskName ' + $TaskName)
        } else {
            Write-WarningLine ('the task ' + $TaskName + ' runs another script, ' + $TaskScript + ', which applies its own configuration again within 6 minutes')
            Write-Help 'to replace it, run this script with -Install'
        }
    } catch {
        Write-WarningLine ('cannot tell whether the task will undo this run: ' + (Get-Reason $_))
    }
}

# ---- A run of the task

# Exit codes of failures that often resolve themselves: at startup, the network and its interfaces are not ready yet, and
# another run may hold the lock.
$TransientCodes = @(1, 3, 4)
$MaxAttempts = 25

function Wait-Attempt {
    Start-Sleep -Seconds 5
}

# Runs unattended: waits for up to 2 minutes before it reports a new failure, and reports to the event log. Returns the exit
# code.
function Invoke-Scheduled {
    $Run.Script = Read-OwnScript
    $known = Read-Failure
    $code = 1
    for ($attempt = 1; $attempt -le $MaxAttempts; $attempt++) {
        if (-not $Report.IsChanged) { $Report.Lines.Clear() }
        $Report.Problems.Clear()
        try {
            $code = Invoke-Exclusive
        } catch {
            Write-Failure (Get-Reason $_)
            $code = 1
        }
        if ($TransientCodes -notcontains $code -or $attempt -eq $MaxAttempts) { break }
        if ([string]::Equals((Get-FailureText $code), $known, 'Ordinal')) { break }
        Wait-Attempt
    }
    Write-Outcome $code $known
    return $code
}

# Returns whether the task now runs another script, or none: it was installed or uninstalled while this run was waiting.
function Test-Replaced {
    return -not (Test-Text $PSCommandPath $Run.Script)
}

# Returns a text that identifies the problems of a run, or '' if there are none.
function Get-FailureText([int] $code) {
    if ($code -eq 0 -and $Report.Problems.Count -eq 0) { return '' }
    return [string] $code + ': ' + ($Report.Problems.ToArray() -join '; ')
}

# Returns the text of the last reported failure, or ''. If the file is damaged, the failure is reported again.
function Read-Failure {
    try {
        return (Get-Field (ConvertFrom-Record (Read-Text $FailureFile)) 'Text' 'text')
    } catch {
        return ''
    }
}

# Writes one entry for a change or a new failure, and none for a run without either.
function Write-Outcome([int] $code, [string] $known) {
    $failure = Get-FailureText $code
    $isKnown = [string]::Equals($failure, $known, 'Ordinal')
    if ($isKnown -and ($code -ne 0 -or -not $Report.IsChanged)) { return }
    $id = 2
    $level = 'Information'
    $headline = 'Node ' + $Node + ' matches the configuration again.'
    if ($code -ne 0) {
        $id = 100 + $code
        $level = 'Error'
        $headline = 'The configuration of node ' + $Node + ' could not be applied (exit code ' + $code + ').'
    } elseif ($failure -ne '') {
        $id = 3
        $level = 'Warning'
        $headline = 'Some pod traffic of node ' + $Node + ' is lost or diverted, will be lost or diverted after a restart, or could not be checked.'
        if ($Report.IsChanged) { $headline = 'The configuration of node ' + $Node + ' was applied. ' + $headline }
    } elseif ($Report.IsChanged) {
        $id = 1
        $headline = 'The configuration of node ' + $Node + ' was applied.'
    }
    try {
        Write-EventEntry $id $level (Format-Entry $headline)
        if ($isKnown) { return }
        if ($failure -eq '') {
            foreach ($path in @($FailureFile, ($FailureFile + '.old'))) { Remove-File $path }
        } else {
            Write-File $FailureFile (ConvertTo-Json @{ Format = 1; Text = $failure } -Depth 2 -Compress)
        }
    } catch {
        Write-WarningLine ('cannot report to the event log: ' + (Get-Reason $_))
    }
}

# Returns the text of an entry: what a run printed. An entry has at most 31,839 characters, so the middle of a long text is
# omitted: the reason for a failure is at its end.
function Format-Entry([string] $headline) {
    $lines = @((Format-Printable $headline), '') + $Report.Lines.ToArray() + @('', ('Script: ' + $PSCommandPath), ('Transcript: ' + $TranscriptFile))
    $text = $lines -join "`r`n"
    if ($text.Length -le 30000) { return $text }
    return $text.Substring(0, 15000) + "`r`n(omitted; see the transcript)`r`n" + $text.Substring($text.Length - 14900)
}
