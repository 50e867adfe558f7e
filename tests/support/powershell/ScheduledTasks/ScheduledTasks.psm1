# A substitute for the module ScheduledTasks and the event log of Windows, for tests in a real PowerShell on another system.
#
# Tasks, event sources and event log entries are in a JSON file, $env:HGW_SCHEDULER. Parameters, their sets and their types are
# those of the real cmdlets, and so are the errors that the documentation describes. Where "faults" of that file names a
# command: 'refuse' (an error, no change), 'ignore' (no change, no error).

function Read-Scheduler {
    $scheduler = @{}
    if (Test-Path -LiteralPath $env:HGW_SCHEDULER) {
        $scheduler = Get-Content -Raw -LiteralPath $env:HGW_SCHEDULER | ConvertFrom-Json -AsHashtable
    }
    foreach ($name in @('tasks', 'faults')) { if (-not $scheduler.ContainsKey($name)) { $scheduler[$name] = @{} } }
    foreach ($name in @('sources', 'events')) { if (-not $scheduler.ContainsKey($name)) { $scheduler[$name] = @() } }
    if (-not $scheduler.ContainsKey('waits')) { $scheduler.waits = 0 }
    return $scheduler
}

function Write-Scheduler($scheduler) {
    [System.IO.File]::WriteAllText($env:HGW_SCHEDULER, (ConvertTo-Json $scheduler -Depth 10))
}

function New-SchedulerError([string] $message, [string] $id, $category) {
    return [System.Management.Automation.ErrorRecord]::new([System.Exception]::new($message), $id, $category, $null)
}

# Returns whether a call proceeds.
function Enter-SchedulerCall([string] $name, $cmdlet) {
    $kind = (Read-Scheduler).faults[$name]
    if ($kind -eq 'refuse') {
        $failure = New-SchedulerError 'Access is denied.' 'HRESULT 0x80070005' 'PermissionDenied'
        if ($null -eq $cmdlet) { throw $failure }
        $cmdlet.WriteError($failure)
    }
    return $null -eq $kind
}

# ---- Objects of the CIM classes

$script:Properties = @{
    MSFT_TaskEventTrigger = @{
        Enabled = [bool]; StartBoundary = [string]; EndBoundary = [string]; ExecutionTimeLimit = [string]; Id = [string]
        Delay = [string]; Subscription = [string]; MatchingElement = [string]; PeriodOfOccurrence = [string]; NumberOfOccurrences = [uint32]
    }
}

function New-Instance([string] $class, $properties) {
    $instance = [ordered] @{ CimClass = [pscustomobject] @{ CimClassName = $class } }
    foreach ($name in $properties.Keys) { $instance[$name] = $properties[$name] }
    return [pscustomobject] $instance
}

# The real parameters take instances of one class, or of those that are derived from it.
function Assert-Class($value, [string] $pattern, [string] $parameter) {
    foreach ($one in @($value)) {
        if ([string] $one.CimClass.CimClassName -notmatch $pattern) {
            throw "Cannot bind argument to parameter '$parameter': not an instance of $pattern."
        }
    }
}

function Format-Duration([timespan] $duration) { return [System.Xml.XmlConvert]::ToString($duration) }

function Get-CimClass {
    [CmdletBinding()] param([Parameter(Mandatory)] [string] $ClassName, [string] $Namespace = 'root/cimv2')
    if ($Namespace -ne 'Root/Microsoft/Windows/TaskScheduler' -or -not $script:Properties.ContainsKey($ClassName)) {
        $PSCmdlet.WriteError((New-SchedulerError 'Not found' 'HRESULT 0x80041002' 'ObjectNotFound'))
        return
    }
    return [pscustomobject] @{ CimClassName = $ClassName }
}

function New-CimInstance {
    [CmdletBinding(SupportsShouldProcess)]
    param([Parameter(Mandatory)] $CimClass, [switch] $ClientOnly, [System.Collections.IDictionary] $Property)
    if (-not $ClientOnly) { throw 'The operation is not supported for this class.' }
    $known = $script:Properties[$CimClass.CimClassName]
    foreach ($name in $Property.Keys) {
        if (-not $known.ContainsKey($name)) { throw "The property '$name' cannot be found on the class." }
        if ($Property[$name] -isnot $known[$name]) { throw "The property '$name' has the wrong type." }
    }
    return New-Instance $CimClass.CimClassName $Property
}

function New-ScheduledTaskAction {
    [CmdletBinding()]
    param([string] $Id, [Parameter(Mandatory, Position = 0)] [string] $Execute, [string] $Argument, [string] $WorkingDirectory)
    return New-Instance 'MSFT_TaskExecAction' ([ordered] @{ Execute = $Execute; Arguments = $Argument })
}

function New-ScheduledTaskTrigger {
    [CmdletBinding(DefaultParameterSetName = 'Once')]
    param(
        [Parameter(Mandatory, ParameterSetName = 'Once')] [switch] $Once,
        [Parameter(Mandatory, ParameterSetName = 'Once')] [datetime] $At,
        [Parameter(ParameterSetName = 'Once')] [timespan] $RepetitionInterval,
        [Parameter(ParameterSetName = 'Once')] [timespan] $RepetitionDuration,
        [Parameter(Mandatory, ParameterSetName = 'Startup')] [switch] $AtStartup,
        [timespan] $RandomDelay
    )
    if ($AtStartup) { return New-Instance 'MSFT_TaskBootTrigger' ([ordered] @{ Enabled = $true }) }
    $repetition = [pscustomobject] @{ Interval = $null; Duration = $null; StopAtDurationEnd = $false }
    if ($RepetitionInterval) {
        if ($RepetitionInterval -lt [timespan]::FromMinutes(1)) { throw 'The task XML contains a value which is incorrectly formatted or out of range.' }
        $repetition.Interval = Format-Duration $RepetitionInterval
    }
    return New-Instance 'MSFT_TaskTimeTrigger' ([ordered] @{
        Enabled = $true; StartBoundary = $At.ToString('s'); RandomDelay = Format-Duration $RandomDelay; Repetition = $repetition
    })
}

function New-ScheduledTaskPrincipal {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory, Position = 0)] [string] $UserId,
        [ValidateSet('None', 'Password', 'S4U', 'Interactive', 'Group', 'ServiceAccount', 'InteractiveOrPassword')] [string] $LogonType = 'None',
        [ValidateSet('Limited', 'Highest')] [string] $RunLevel = 'Limited', [string] $Id
    )
    return New-Instance 'MSFT_TaskPrincipal2' ([ordered] @{ UserId = $UserId; LogonType = $LogonType; RunLevel = $RunLevel })
}

function New-ScheduledTaskSettingsSet {
    [CmdletBinding()]
    param(
        [switch] $AllowStartIfOnBatteries, [switch] $DontStopIfGoingOnBatteries, [switch] $StartWhenAvailable, [switch] $Hidden,
        [switch] $Disable, [switch] $RunOnlyIfNetworkAvailable, [switch] $WakeToRun,
        [ValidateSet('Parallel', 'Queue', 'IgnoreNew')] [string] $MultipleInstances = 'IgnoreNew',
        [timespan] $ExecutionTimeLimit = [timespan]::FromDays(3), [int] $Priority = 7
    )
    return New-Instance 'MSFT_TaskSettings3' ([ordered] @{
        Enabled = -not $Disable; MultipleInstances = $MultipleInstances; ExecutionTimeLimit = Format-Duration $ExecutionTimeLimit
        StartWhenAvailable = [bool] $StartWhenAvailable; DisallowStartIfOnBatteries = -not $AllowStartIfOnBatteries
        StopIfGoingOnBatteries = -not $DontStopIfGoingOnBatteries
    })
}

function New-ScheduledTask {
    [CmdletBinding()] param([object[]] $Action, [object[]] $Trigger, [object] $Settings, [object] $Principal, [string] $Description)
    Assert-Class $Action '^MSFT_Task.*Action$' 'Action'
    Assert-Class $Trigger '^MSFT_Task.*Trigger$' 'Trigger'
    Assert-Class $Settings '^MSFT_TaskSettings' 'Settings'
    Assert-Class $Principal '^MSFT_TaskPrincipal' 'Principal'
    return New-Instance 'MSFT_ClientScheduledTask' ([ordered] @{
        Description = $Description; Actions = $Action; Triggers = $Trigger; Principal = $Principal; Settings = $Settings
    })
}

# ---- Tasks

function Test-Definition($task) {
    if (@($task.Actions).Count -eq 0) { return 'The task XML is missing a required element or attribute. (Actions)' }
    foreach ($trigger in @($task.Triggers)) {
        if ($trigger.CimClass.CimClassName -ne 'MSFT_TaskEventTrigger') { continue }
        try { $query = [xml] $trigger.Subscription } catch { return 'The task XML is malformed. (Subscription)' }
        $select = $query.QueryList.Query.Select
        if ($select.Path -ne $query.QueryList.Query.Path -or -not $select.'#text'.StartsWith('*[System[')) { return 'The specified query is invalid.' }
        try { [void] [System.Xml.XmlConvert]::ToTimeSpan($trigger.Delay) } catch { return 'The task XML contains a value which is incorrectly formatted or out of range. (Delay)' }
    }
    if (@('S-1-5-18', 'SYSTEM', 'NT AUTHORITY\SYSTEM') -notcontains $task.Principal.UserId) {
        return 'No mapping between account names and security IDs was done.'
    }
    return ''
}

function Register-ScheduledTask {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory, Position = 0)] [string] $TaskName, [string] $TaskPath = '\', [Parameter(Mandatory)] [object] $InputObject, [switch] $Force
    )
    Assert-Class $InputObject 'ScheduledTask$' 'InputObject'
    if (-not (Enter-SchedulerCall 'Register-ScheduledTask' $PSCmdlet)) { return }
    $problem = Test-Definition $InputObject
    if ($problem -ne '') {
        $PSCmdlet.WriteError((New-SchedulerError $problem 'HRESULT 0x80041318' 'InvalidArgument'))
        return
    }
    $scheduler = Read-Scheduler
    $name = $TaskPath + $TaskName
    if ($scheduler.tasks.ContainsKey($name) -and -not $Force) {
        $PSCmdlet.WriteError((New-SchedulerError 'Cannot create a file when that file already exists.' 'HRESULT 0x800700b7' 'ResourceExists'))
        return
    }
    $task = ConvertTo-Json $InputObject -Depth 8 | ConvertFrom-Json -AsHashtable
    # Windows returns the name of the account.
    $task.Principal.UserId = 'SYSTEM'
    $scheduler.tasks[$name] = $task
    Write-Scheduler $scheduler
    return Get-ScheduledTask -TaskName $TaskName -TaskPath $TaskPath
}

# Returns the name of a registered task. Reports an error and returns nothing if there is none.
function Find-TaskName([string] $TaskName, [string] $TaskPath, $cmdlet) {
    $name = $TaskPath + $TaskName
    if ((Read-Scheduler).tasks.ContainsKey($name)) { return $name }
    $message = "No MSFT_ScheduledTask objects found with property 'TaskName' equal to '$TaskName'. Verify the value of the property and retry."
    $cmdlet.WriteError((New-SchedulerError $message 'CmdletizationQuery_NotFound_TaskName' 'ObjectNotFound'))
}

function Get-ScheduledTask {
    [CmdletBinding()] param([Parameter(Position = 0)] [string] $TaskName, [string] $TaskPath = '\')
    if (-not (Enter-SchedulerCall 'Get-ScheduledTask' $PSCmdlet)) { return }
    $name = Find-TaskName $TaskName $TaskPath $PSCmdlet
    if (-not $name) { return }
    $task = ConvertTo-Json (Read-Scheduler).tasks[$name] -Depth 8 | ConvertFrom-Json
    $state = 'Ready'
    if (-not $task.Settings.Enabled) { $state = 'Disabled' }
    Add-Member -InputObject $task -NotePropertyMembers @{ TaskName = $TaskName; TaskPath = $TaskPath; State = $state }
    return $task
}

function Unregister-ScheduledTask {
    [CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
    param([Parameter(Position = 0)] [string] $TaskName, [string] $TaskPath = '\')
    $name = Find-TaskName $TaskName $TaskPath $PSCmdlet
    if (-not $name -or -not $PSCmdlet.ShouldProcess($name)) { return }
    if (-not (Enter-SchedulerCall 'Unregister-ScheduledTask' $PSCmdlet)) { return }
    $scheduler = Read-Scheduler
    $scheduler.tasks.Remove($name)
    Write-Scheduler $scheduler
}

# Runs the action of a task to its end, in the PowerShell of $env:HGW_PWSH. The real one starts it and returns.
function Start-ScheduledTask {
    [CmdletBinding()] param([Parameter(Position = 0)] [string] $TaskName, [string] $TaskPath = '\')
    $name = Find-TaskName $TaskName $TaskPath $PSCmdlet
    if (-not $name) { return }
    $scheduler = Read-Scheduler
    $action = @($scheduler.tasks[$name].Actions)[0]
    if ($action.Execute -ne '%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe') { throw 'The system cannot find the file specified.' }
    $words = @([regex]::Matches($action.Arguments, '"([^"]*)"|(\S+)') | ForEach-Object { $_.Groups[1].Value + $_.Groups[2].Value })
    & $env:HGW_PWSH @words | Out-Null
    $code = $LASTEXITCODE
    $scheduler = Read-Scheduler
    $scheduler.tasks[$name].LastTaskResult = $code
    Write-Scheduler $scheduler
}

function Get-ScheduledTaskInfo {
    [CmdletBinding()] param([Parameter(Position = 0)] [string] $TaskName, [string] $TaskPath = '\')
    $name = Find-TaskName $TaskName $TaskPath $PSCmdlet
    if (-not $name) { return }
    # SCHED_S_TASK_HAS_NOT_RUN.
    $code = 267011
    $task = (Read-Scheduler).tasks[$name]
    if ($task.ContainsKey('LastTaskResult')) { $code = $task.LastTaskResult }
    return [pscustomobject] @{ TaskName = $TaskName; LastTaskResult = $code }
}

# ---- The event log. The script's functions that use it only work on Windows.

function Test-SchedulerSource { return (Read-Scheduler).sources -contains 'hostgw' }

function Add-SchedulerSource {
    if (-not (Enter-SchedulerCall 'CreateEventSource' $null)) { return }
    $scheduler = Read-Scheduler
    if ($scheduler.sources -contains 'hostgw') { throw "Source hostgw already exists on the local computer." }
    $scheduler.sources = @($scheduler.sources) + 'hostgw'
    Write-Scheduler $scheduler
}

function Remove-SchedulerSource {
    if (-not (Enter-SchedulerCall 'DeleteEventSource' $null)) { return }
    $scheduler = Read-Scheduler
    if ($scheduler.sources -notcontains 'hostgw') { throw 'The source "hostgw" is not registered on the local computer.' }
    $scheduler.sources = @($scheduler.sources | Where-Object { $_ -ne 'hostgw' })
    Write-Scheduler $scheduler
}

function Write-SchedulerEntry([uint16] $id, [ValidateSet('Error', 'Warning', 'Information')] [string] $level, [string] $text) {
    if (-not (Enter-SchedulerCall 'WriteEntry' $null)) { return }
    if ($text.Length -gt 31839) { throw 'Log entry string is too long. A string written to the event log cannot exceed 32766 characters.' }
    $scheduler = Read-Scheduler
    # Writing creates a missing source.
    if ($scheduler.sources -notcontains 'hostgw') { $scheduler.sources = @($scheduler.sources) + 'hostgw' }
    $scheduler.events = @($scheduler.events) + @{ id = $id; level = $level; text = $text }
    Write-Scheduler $scheduler
}

function Get-WinEvent {
    [CmdletBinding()] param([Parameter(Mandatory)] [hashtable] $FilterHashtable)
    foreach ($event in @((Read-Scheduler).events)) {
        [pscustomobject] @{ Id = $event.id; LevelDisplayName = $event.level; Message = $event.text }
    }
}

# Waits for no time. If there is a folder "later" beside the machine, its files replace those of the machine and the records.
function Wait-SchedulerAttempt {
    $scheduler = Read-Scheduler
    $scheduler.waits += 1
    Write-Scheduler $scheduler
    $folder = Split-Path -Parent $env:HGW_MACHINE
    $later = Join-Path $folder 'later'
    if (-not (Test-Path -LiteralPath $later)) { return }
    Move-Item -Force -LiteralPath (Join-Path $later 'machine.json') -Destination $env:HGW_MACHINE
    $records = Join-Path $later 'hostgw'
    foreach ($file in @(Get-ChildItem -LiteralPath $records)) {
        Move-Item -Force -LiteralPath $file.FullName -Destination (Join-Path (Join-Path $env:ProgramFiles 'hostgw') $file.Name)
    }
    Remove-Item -Recurse -LiteralPath $later
}

# An alias takes precedence over the function of that name in a script.
$substitutes = @{
    'Test-EventSource' = 'Test-SchedulerSource'; 'Add-EventSource' = 'Add-SchedulerSource'; 'Remove-EventSource' = 'Remove-SchedulerSource'
    'Write-EventEntry' = 'Write-SchedulerEntry'; 'Wait-Attempt' = 'Wait-SchedulerAttempt'
}
foreach ($name in $substitutes.Keys) { Set-Alias -Name $name -Value $substitutes[$name] }

Export-ModuleMember -Alias * -Function Get-CimClass, New-CimInstance, New-ScheduledTaskAction, New-ScheduledTaskTrigger,
    New-ScheduledTaskPrincipal, New-ScheduledTaskSettingsSet, New-ScheduledTask, Register-ScheduledTask, Get-ScheduledTask,
    Unregister-ScheduledTask, Start-ScheduledTask, Get-ScheduledTaskInfo, Test-SchedulerSource, Add-SchedulerSource, Remove-SchedulerSource,
    Write-SchedulerEntry, Get-WinEvent, Wait-SchedulerAttempt
