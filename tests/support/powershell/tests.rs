//! Tests of the PowerShell interpreter, for rules that are surprising.

use super::{Fault, Machine, lint, parse, run};

/// The output of a script and its exit code.
fn printed(text: &str) -> String {
    let mut machine = Machine { is_administrator: true, ..Machine::default() };
    let outcome = run(&mut machine, text, &[]);
    format!("{}{:?}", outcome.stdout, outcome.code.unwrap())
}

/// Scripts with their output, and the rule (about_* are topics of PowerShell's documentation).
const RULES: [(&str, &str, &str); 20] = [
    (
        "function F { return @('a') }\nWrite-Host ((F) + 'b')",
        "ab\n0",
        "about_Return: a collection of one is taken apart",
    ),
    (
        "function F { return ,@('a') }\nWrite-Host (F).Count",
        "1\n0",
        "about_Arrays: the comma keeps it a collection",
    ),
    (
        "function F { }\nif ($null -eq (F)) { Write-Host 'nothing' }",
        "nothing\n0",
        "a function without output is null",
    ),
    (
        "function F { 'x'; return 'y' }\nWrite-Host ((F) -join '+')",
        "x+y\n0",
        "about_Return: every value is output",
    ),
    (
        "$list = New-Object System.Collections.ArrayList\nfunction F { $list.Add('x') }\nWrite-Host (F)",
        "0\n0",
        "Add leaves the place",
    ),
    (
        "$x = 1\nfunction F { $x = 2 }\nF\nWrite-Host ([string] $x)",
        "1\n0",
        "about_Scopes: an assignment is local",
    ),
    (
        "$x = 'a'\nfunction F { Write-Host $x }\nfunction G { $x = 'b'; F }\nG",
        "b\n0",
        "about_Scopes: callers' variables are seen",
    ),
    ("Write-Host ([string] 1 + ' ' + 2)", "1 2\n0", "the left side decides what + does"),
    (
        "$h = @{ A = 1 }\nif ($h.ContainsKey('a')) { Write-Host 'same' }",
        "same\n0",
        "about_Hash_Tables: keys without case",
    ),
    (
        "$h = @{}\n$h[1] = 'number'\nif ($null -eq $h['1']) { Write-Host 'other' }",
        "other\n0",
        "keys have types",
    ),
    (
        "if ('A' -eq 'a') { Write-Host 'same' }\nif ('A' -ceq 'a') { Write-Host 'never' }",
        "same\n0",
        "about_Comparison_Operators",
    ),
    ("if (@('x') -contains 'X') { Write-Host 'in' }", "in\n0", "about_Comparison_Operators: -contains"),
    ("try { throw 'why' } catch { Write-Host $_.Exception.Message }", "why\n0", "about_Try_Catch_Finally"),
    (
        "try { try { throw 'why' } finally { Write-Host 'last' } } catch { Write-Host 'caught' }",
        "last\ncaught\n0",
        "finally comes first",
    ),
    (
        "function F { try { return 'x' } finally { Write-Host 'last' } }\nWrite-Host (F)",
        "last\nx\n0",
        "finally after return",
    ),
    ("function F { exit 7 }\ntry { F } catch { Write-Host 'never' }", "7", "exit is no error"),
    (
        "$j = ConvertFrom-Json (ConvertTo-Json @{ A = @(1) } -Depth 3)\nWrite-Host ([string] @($j.A).Count)",
        "1\n0",
        "a list of one stays one",
    ),
    (
        "try { $h = @{}; $h.Missing } catch { Write-Host 'strict' }",
        "strict\n0",
        "Set-StrictMode 2: no such property",
    ),
    ("try { $x = $never } catch { Write-Host 'strict' }", "strict\n0", "Set-StrictMode 1: no such variable"),
    ("Write-Host ('it''s ' + [char] 0x41)", "it's A\n0", "about_Quoting_Rules"),
];

#[test]
fn surprising_rules_of_powershell() {
    for (text, expected, rule) in RULES {
        let text = if text.contains("exit") { text.to_owned() } else { format!("{text}\nexit 0") };
        assert_eq!(printed(&text), expected, "{rule}: {text}");
    }
}

/// Unsupported constructs fail the test.
#[test]
fn unsupported_constructs_fail_the_test() {
    for text in [
        "Get-Process\nexit 0",
        "$x = 'a' -match 'b'\nexit 0",
        "$x = \"$y\"\nexit 0",
        "while ($true) { }\nexit 0",
        "Get-NetRoute -PolicyStore ActiveStore\nexit 0",
        "Remove-NetRoute -Confirm:$false -ErrorAction Stop\nexit 0",
        "Write-Host 'no end'",
    ] {
        let run = std::panic::catch_unwind(|| printed(text));
        assert!(run.is_err(), "{text}");
    }
}

#[test]
fn a_kill_stops_everything_and_control_c_runs_only_finally() {
    let text = "try { [System.IO.File]::WriteAllText('C:\\x', 'y') } catch { Write-Host 'catch' } finally { Write-Host 'finally' }\nexit 0";
    for (fault, output) in
        [(Fault::Kill, ""), (Fault::Stop, "finally\n"), (Fault::Refuse, "catch\nfinally\n")]
    {
        let mut machine = Machine { faults: [(0, fault)].into(), ..Machine::default() };
        assert_eq!(run(&mut machine, text, &[]).stdout, output);
        assert!(machine.files.is_empty());
    }
}

/// The lint finds calls that could affect more than one route, however they are written.
#[test]
fn the_lint_finds_calls_that_affect_every_route() {
    for (text, finding) in [
        ("Remove-NetRoute -Confirm:$false -ErrorAction Stop", "no -interfaceindex"),
        (
            "Set-NetRoute -InterfaceIndex 1 -DestinationPrefix $d -NextHop $n -ErrorAction Stop -PolicyStore ActiveStore",
            "would ask",
        ),
        (
            "$a = @{ InterfaceIndex = 1; Confirm = $false; ErrorAction = 'Stop' }\nRemove-NetRoute @a -PolicyStore ActiveStore",
            "no -destinationprefix",
        ),
        ("function F { Remove-NetRoute @given -PolicyStore ActiveStore }", "no -interfaceindex"),
        (
            "Set-NetIPInterface -InterfaceIndex 1 -Forwarding Enabled -Confirm:$false -ErrorAction Stop",
            "no -addressfamily",
        ),
        (
            "New-NetRoute -InterfaceIndex 1 -DestinationPrefix '*' -NextHop $n -RouteMetric 1 -Confirm:$false -ErrorAction Stop",
            "a pattern",
        ),
        ("Get-NetIPAddress", "continues after an error"),
        ("iex $x", "executes text as code"),
    ] {
        let (tree, wrong) = &*parse(text);
        assert!(wrong.is_empty(), "{wrong:?}");
        let found = lint(text, tree);
        assert!(found.iter().any(|line| line.contains(finding)), "{text}: {found:?}");
    }
}
